"""Steps with changes within the sequence whose chain and updates are at hand give what any other step gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chain_cases import CLASSES, FEATURES, ONLINE, STEPS, answers, data, groups, layers
from credit_cases import distance
from steady_cases import UPDATES, batches, pair, same_steps

from neko_rules import FPTT, EProp, Evaluator, LearningRule
from neko_rules.chains import running
from neko_rules.clipping import CLIPPINGS
from neko_rules.errors import NonFiniteError
from neko_rules.kernels.host import unfused
from neko_rules.optimizers import OPTIMIZERS
from neko_rules.regularizers import FiringRate
from neko_rules.rules import rule_of, steady_windows
from neko_rules.rules.steady_windows import SteadyWindows
from neko_rules.threads import set_threads

__all__ = ["groups"]  # a fixture

EVERY = 6
"""Time steps of a window; the last one has two."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every step that was asked for, whether it was taken."""
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    return answers(monkeypatch, SteadyWindows, "stepped")


def make(rule: str = "eprop", **options: Any) -> LearningRule:
    model = Evaluator(layers(12), metrics=["accuracy", "firing_rate"])
    schedule = {} if "window" in options else {"online": EVERY}
    made = rule_of(model, {"name": rule, "optimizer": {"name": "sgd", "learning_rate": 0.1}} | schedule | options)
    assert isinstance(made, LearningRule)
    return made


@pytest.mark.parametrize("every", [EVERY, 1])
@pytest.mark.parametrize(
    ("name", "rule"), [(name, rule) for name, (_, rules) in ONLINE.items() for rule in rules if "PyTorch" not in name]
)
def test_every_network(name: str, rule: str, every: int, groups: list[Any], taken: list[bool]) -> None:
    x, y = data()
    x = x[:, :, : ONLINE[name][0]().inputs]

    def of_network() -> Any:
        network = ONLINE[name][0]()
        of_spikes = ["firing_rate", "spike_sparsity"] if network.spiking else []
        options = {"name": rule, "optimizer": "sgd", "online": every}
        return rule_of(Evaluator(network, metrics=["accuracy", *of_spikes]), options)

    same_steps(*pair(of_network), (x, y), (x, y), (x[::-1], y[::-1]), (x, y))
    assert taken == [True] * 4
    assert groups


@pytest.mark.parametrize("window", [EVERY, 1, STEPS, 50])
def test_windows(window: int, taken: list[bool]) -> None:
    for rule in ("eprop", "truncated_bptt"):
        same_steps(*pair(lambda rule=rule: make(rule, window=window)), *batches(4))
    assert taken == [True] * 8


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer(optimizer: str, taken: list[bool]) -> None:
    """With a learning rate that falls on the way."""
    rate = {"name": "step", "initial": 0.02, "rate": 0.5, "steps": 6}
    options = {"optimizer": {"name": optimizer} | ({} if optimizer == "naive" else {"learning_rate": rate})}
    same_steps(*pair(lambda: make(**options)), *batches(4))
    assert taken == [True] * 4


@pytest.mark.parametrize("rule", ["eprop", "fptt"])
@pytest.mark.parametrize("name", UPDATES)
def test_what_else_an_update_is(name: str, rule: str, taken: list[bool]) -> None:
    """Bit for bit, as the operations have it to rounding, and not without it."""
    one, other = pair(lambda: make(rule, **UPDATES[name]))
    same_steps(one, other, *batches(4))
    # What FPTT makes of a gradient before it is clipped has its norm only when all of it is there.
    assert taken == ([] if rule == "fptt" and "norm" in str(UPDATES[name]) else [True] * 4)
    plain, by_operations = make(rule), make(rule, **UPDATES[name])
    for x, y in batches(4):
        plain.step(x, y)
        with unfused():
            by_operations.step(x, y)
    found, wanted, without = (each.model.network.parameters for each in (one, by_operations, plain))
    assert distance(found, wanted) < 1e-12
    assert distance(found, without) > 1e-6, "or this is nothing here"


def test_batches_of_every_kind_take_turns(taken: list[bool]) -> None:
    """Of other sizes and lengths, many events, graded, labels of single steps, some of which do not count."""
    few, many = batches(1)[0], batches(1, rate=0.9)[0]
    graded = few[0] * 0.5, few[1]
    of_steps = few[0], np.random.default_rng(0).integers(0, CLASSES, (24, STEPS))
    half = few[0], np.where(np.arange(STEPS) % 2, of_steps[1], -1)
    others = [*batches(1, examples=7), *batches(1, steps=9), *batches(1, steps=3)]
    kinds = [few, many, graded, of_steps, half, *others, few, many, of_steps]
    same_steps(*pair(make), *kinds, *kinds)
    assert taken == [True] * (2 * len(kinds))


def test_an_input_that_is_not_what_its_first_examples_are(
    taken: list[bool], groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A population that fires much in later windows: from there on another chain goes on."""
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    random = np.random.default_rng(3)
    loud = np.linspace(0, 1, STEPS)[:, None]
    kinds = [(1.0 * (random.random((24, STEPS, FEATURES)) < loud), random.integers(0, CLASSES, 24)) for _ in range(3)]
    same_steps(*pair(make), *kinds, *batches(1), *kinds)
    assert taken == [True] * 7
    assert len(set(groups)) > 1


def test_what_others_do_between_steps_is_seen(taken: list[bool]) -> None:
    one, other = pair(lambda: make(optimizer={"name": "adam", "learning_rate": 0.01}))
    first, second, third, fourth = batches(4)
    same_steps(one, other, first, second)
    state = one.state()
    for rule in (one, other):
        weights = {name: 0.5 * value for name, value in rule.model.network.parameters.items()}
        rule.model.network.set_parameters(weights)
    same_steps(one, other, third, fourth)
    for rule in (one, other):
        rule.observed_step(*first)
        rule.load_state(state)
    same_steps(one, other, third)
    for rule in (one, other):
        values = rule.model.network.values
        values["hidden.input.weight"] = 0.5 * values["hidden.input.weight"]
    same_steps(one, other, first)
    twins = one.clone(), other.clone()
    same_steps(*twins, second)
    same_steps(one, other, fourth)
    for rule in (one, other):
        rule.optimizer = {"name": "sgd", "learning_rate": 0.1}
        rule.clipping = CLIPPINGS.resolve({"name": "norm", "limit": 1e-3})
        rule.online = 3
    same_steps(one, other, first, second)
    assert taken.count(False) == 1, "of a step that is observed"


def test_parameters_that_somebody_writes_into(taken: list[bool]) -> None:
    """They are of the rule until the next step: what is written into them counts."""
    one, other = pair(make)
    same_steps(one, other, *batches(2))
    for rule in (one, other):
        rule.model.network.values["hidden.bias"][...] = 0.1
    same_steps(one, other, *batches(2, seed=6))


def test_values_that_somebody_holds_stay_as_they_are(taken: list[bool]) -> None:
    rule = make(optimizer="adam")
    held = []
    for batch in batches(8):
        rule.step(*batch)
        values = rule.model.network.values
        held.append((values, {name: np.array(value) for name, value in values.items()}))
    for values, expected in held:
        for name, value in expected.items():
            np.testing.assert_array_equal(values[name], value)
    assert taken == [True] * 8


@pytest.mark.filterwarnings("ignore:overflow|invalid")
@pytest.mark.parametrize("where", ["loss", "update"])
def test_a_step_that_fails_changes_nothing(where: str, taken: list[bool]) -> None:
    one, other = pair(lambda: make(optimizer="sgd"))
    first, second, third = batches(3)
    same_steps(one, other, first, second)
    kept = one.model.network.parameters
    if where == "loss":
        one.model.network.set_parameters({**kept, "readout.bias": np.array([1e308, -1e308, 1e308])})
    else:
        one.optimizer = {"name": "sgd", "learning_rate": 1e308}
    before, count = one.state(), len(taken)
    with pytest.raises(NonFiniteError):
        one.step(*third)
    assert taken[count:] == [False]
    assert one.steps == other.steps
    for name, value in one.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    one.model.network.set_parameters(kept)
    one.optimizer = other.optimizer
    same_steps(one, other, third, first)
    assert taken[count + 1 :] == [True, True]


def test_threads_take_their_own_steps(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neko_rules.threads._WORTHWHILE", 1)
    one, other = pair(make)
    same_steps(one, other, *batches(2))
    try:
        set_threads(2)
        same_steps(one, other, *batches(2, seed=6))
    finally:
        set_threads(None)
    same_steps(one, other, *batches(2, seed=7))
    assert taken == [True, True, False, False, True, True]


def test_what_a_step_is_more_than_that_is_done(taken: list[bool]) -> None:
    class Halved(EProp):
        def applied(self, values: Any, *others: Any) -> Any:
            kept = super().applied(values, *others)
            return kept._replace(values={name: 0.5 * (kept.values[name] + values[name]) for name in values})

    kinds: list[Callable[[], LearningRule]] = [
        lambda: make(regularizers=[FiringRate(10.0)]),
        lambda: make(mode="adaptive"),
        lambda: make("rtrl"),
        lambda: Halved(Evaluator(layers(12)), online=EVERY),
    ]
    for kind in kinds:
        same_steps(*pair(kind), *batches(2))
    same_steps(*pair(lambda: make(mode="sign")), *batches(2))
    assert not any(taken)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_other_libraries_have_them_by_numpy(backend: str, taken: list[bool]) -> None:
    pytest.importorskip(backend)
    made = [EProp(Evaluator(layers(12, backend=name)), optimizer="sgd", online=1) for name in ("numpy", backend)]
    for x, y in batches(4):
        figures = [rule.step(x, y) for rule in made]
        assert figures[0] == pytest.approx(figures[1], rel=1e-12)
    assert taken == [True] * 8


@pytest.mark.parametrize(
    "fault", ["states of the last sequence", "losses of the last step", "errors by old weights", "rates of the first"]
)
def test_faults_are_seen(fault: str, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    rate = {"name": "step", "initial": 0.1, "rate": 0.5, "steps": 4}
    one, other = pair(lambda: make(optimizer={"name": "sgd", "learning_rate": rate}))
    if fault == "errors by old weights":
        monkeypatch.setattr(SteadyWindows, "_meets", lambda self, rule, *sizes: len(self._for) == 5)
    elif fault == "states of the last sequence":
        begin = SteadyWindows._begin

        def begun(self: SteadyWindows, *given: Any) -> None:
            begin(self, *given)
            self._at_rest = list(self._carried.starts)

        monkeypatch.setattr(SteadyWindows, "_begin", begun)
    else:
        kept: dict[str, Any] = {}
        key = "total" if fault == "losses of the last step" else "rates"
        going = steady_windows._Going

        class Going(going):  # type: ignore[misc, valid-type]
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                self.put[key] = kept.setdefault("found", self.put[key])

        monkeypatch.setattr(steady_windows, "_Going", Going)
    first, *others = batches(5)

    def followed() -> None:
        same_steps(one, other, first)
        for rule in (one, other):
            rule.model.network.set_parameters({n: 0.7 * v for n, v in rule.model.network.parameters.items()})
        same_steps(one, other, *others)

    with pytest.raises(AssertionError):
        followed()


def test_what_is_worth_no_chain_is_no_step_of_these(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    monkeypatch.setattr(running, "WORTHWHILE", 1 << 40)
    same_steps(*pair(make), *batches(2))
    assert taken == [False, False]


def test_fptt_goes_on_with_its_means(taken: list[bool]) -> None:
    one, other = pair(lambda: FPTT(Evaluator(layers(12)), alpha=0.3, online=2))
    same_steps(one, other, *batches(3))
    assert taken == [True] * 3
