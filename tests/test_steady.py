"""Steps whose chain and update are at hand give what any other step gives, bit for bit, and leave as much behind."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from chain_cases import CLASSES, FEATURES, NETWORKS, PENALTIES, STEPS, Halved, answers, data, groups, layers
from credit_cases import distance
from steady_cases import UPDATES, batches, pair, same_steps

from neko_rules import BPTT, FPTT, EProp, Evaluator, LearningRule
from neko_rules.chains import running
from neko_rules.clipping import ClipValue
from neko_rules.errors import NonFiniteError
from neko_rules.kernels.host import by_library, unfused
from neko_rules.optimizers import OPTIMIZERS
from neko_rules.regularizers import FiringRate
from neko_rules.rules import rule_of, steady
from neko_rules.rules.steady import Steady
from neko_rules.threads import set_threads

__all__ = ["groups"]  # a fixture

CASES = [(name, rule) for name, (_, rules) in NETWORKS.items() for rule in rules if name != "on PyTorch"]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every step that was asked for, whether it was taken."""
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    return answers(monkeypatch, Steady, "stepped")


def make(rule: str = "eprop", **options: Any) -> LearningRule:
    made = rule_of(Evaluator(layers(12, cell="alif"), metrics=["accuracy", "firing_rate"]), {"name": rule, **options})
    assert isinstance(made, LearningRule)
    return made


@pytest.mark.parametrize(("network", "rule"), CASES)
def test_every_network(network: str, rule: str, groups: list[Any], taken: list[bool]) -> None:
    x, y = data()

    def of_network() -> Any:
        model = NETWORKS[network][0]()
        of_spikes = ["firing_rate", "spike_sparsity"] if model.spiking else []
        return rule_of(Evaluator(model, metrics=["accuracy", *of_spikes]), {"name": rule, "optimizer": "sgd"})

    same_steps(*pair(of_network), (x, y), (x, y), (x[::-1], y[::-1]), (x, y))
    if NETWORKS[network][0]().learned:
        assert not taken, "of learned constants a step is more than this"
    else:
        # Parameters and memory have to have been made by a step before; two matrices at once are added up in every one.
        assert taken == [False, *[network != "two recurrent matrices"] * 3]
    assert groups


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer(optimizer: str, taken: list[bool]) -> None:
    rate = {"name": "step", "initial": 0.02, "rate": 0.5, "steps": 2}
    options = {"optimizer": {"name": optimizer} | ({} if optimizer == "naive" else {"learning_rate": rate})}
    same_steps(*pair(lambda: make(**options)), *batches(5))
    assert taken[1:] == [True] * 4


@pytest.mark.parametrize("spatial", ["random", "direct", "sign"])
def test_errors_that_come_another_way(spatial: str, taken: list[bool]) -> None:
    def other_way() -> LearningRule:
        return LearningRule(Evaluator(layers(12, 8, cell="alif")), temporal="layer", spatial=spatial)

    same_steps(*pair(other_way), *batches(3))
    assert taken == [False, True, True]


def test_batches_of_every_kind_take_turns(taken: list[bool]) -> None:
    """Of other sizes, many events, graded, labels of single steps, and where the weights are not what they were."""
    few, many = batches(1)[0], batches(1, rate=0.9)[0]
    graded = few[0] * 0.5, few[1]
    of_steps = few[0], np.random.default_rng(0).integers(0, CLASSES, (24, STEPS))
    kinds = [few, many, graded, of_steps, *batches(1, examples=7), few, many, of_steps]
    same_steps(*pair(make), *kinds, *kinds)
    assert taken == [False] + [True] * (2 * len(kinds) - 1)


def test_what_others_do_between_steps_is_seen(taken: list[bool]) -> None:
    one, other = pair(make)
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
    for rule in (one, other):
        rule.model.network.values["hidden.bias"][...] = 0.1
    same_steps(one, other, fourth)
    twins = one.clone(), other.clone()
    same_steps(*twins, second)
    same_steps(one, other, fourth)
    for rule in (one, other):
        rule.optimizer = {"name": "sgd", "learning_rate": 0.1}
        rule.clipping = ClipValue(1e-3)
    same_steps(one, other, first, second)
    assert taken.count(True) >= 5


def test_values_that_somebody_holds_stay_as_they_are(taken: list[bool]) -> None:
    rule = make()
    held = []
    for batch in batches(12):
        rule.step(*batch)
        values = rule.model.network.values
        held.append((values, {name: np.array(value) for name, value in values.items()}))
    for values, expected in held:
        for name, value in expected.items():
            np.testing.assert_array_equal(values[name], value)
    assert taken.count(True) == 11


def test_threads_share_the_examples(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has gradients of its own, which are added up in their order."""
    monkeypatch.setattr("neko_rules.threads._WORTHWHILE", 1)
    one, other = pair(make)
    same_steps(one, other, *batches(2))
    try:
        set_threads(2)
        same_steps(one, other, *batches(2, seed=6))
    finally:
        set_threads(None)
    same_steps(one, other, *batches(2, seed=7))
    assert taken == [False] + [True] * 5
    assert {len(ready.gradients) for ready in vars(one)["_compiled_steady"]._ready.values()} == {1, 2}


@pytest.mark.filterwarnings("ignore:overflow|invalid")
@pytest.mark.parametrize("where", ["loss", "update"])
def test_a_step_that_fails_changes_nothing(where: str, taken: list[bool]) -> None:
    rule = make(optimizer="sgd")
    first, second, third = batches(3)
    rule.step(*first)
    rule.step(*second)
    if where == "loss":
        weights = rule.model.network.parameters
        rule.model.network.set_parameters({**weights, "readout.bias": np.array([1e308, -1e308, 1e308])})
    else:
        rule.optimizer = {"name": "sgd", "learning_rate": 1e308}
    before, count = rule.state(), len(taken)
    with pytest.raises(NonFiniteError):
        rule.step(*third)
    assert taken[count:] == [False]
    assert rule.steps == 2
    for name, value in rule.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", UPDATES)
def test_what_else_an_update_is(name: str, optimizer: str, taken: list[bool]) -> None:
    """Bit for bit, as the operations have it to rounding, and not without it."""
    options = {**UPDATES[name], "optimizer": {"name": optimizer, "learning_rate": 0.1}}
    one, other = pair(lambda: make(**options))
    same_steps(one, other, *batches(4))
    assert taken == [False] + [True] * 3
    plain, by_operations = make(optimizer=options["optimizer"]), make(**options)
    for x, y in batches(4):
        plain.step(x, y)
        with unfused():
            by_operations.step(x, y)
    found, wanted, without = (rule.model.network.parameters for rule in (one, by_operations, plain))
    assert distance(found, wanted) < 1e-12
    assert distance(found, without) > 1e-6, "or this is nothing here"


@pytest.mark.parametrize("penalty", [*PENALTIES, "all"])
def test_penalties(penalty: str, taken: list[bool]) -> None:
    every = [each for penalised in PENALTIES.values() for each in penalised]
    penalised = every if penalty == "all" else PENALTIES[penalty]
    one, other = pair(lambda: make(regularizers=penalised))
    kinds = [*batches(2), *batches(1, examples=7), *batches(1, rate=0.9), *batches(1)]
    same_steps(one, other, *kinds)
    assert taken == [False] + [True] * 4
    without = make()
    for x, y in kinds:
        without.step(x, y)
    assert distance(one.model.network.parameters, without.model.network.parameters) > 1e-6


def test_a_penalty_that_comes_and_goes(taken: list[bool]) -> None:
    one, other = pair(make)
    for penalised in ((), (FiringRate(10.0),), ()):
        for rule in (one, other):
            rule.regularizers = penalised
        same_steps(one, other, *batches(2))
    assert taken == [False] + [True] * 5


def test_gradients_that_are_observed(taken: list[bool]) -> None:
    """They are those of ``gradients``, and stay as they are when the next are made."""
    one, other = pair(lambda: make(regularizers=[FiringRate(10.0)], clipping=ClipValue(1e-3)))
    same_steps(one, other, *batches(1))
    held = []
    for x, y in batches(4):
        expected = other.gradients(x, y)
        figures, found = one.observed_step(x, y)
        assert (figures, list(found)) == (other.observed_step(x, y)[0], list(expected))
        held.append((found, expected))
    for found, expected in held:
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    same_steps(one, other)
    assert taken == [False] + [True] * 4


def test_what_a_step_is_more_than_that_is_done(taken: list[bool]) -> None:
    for options in ({"online": 4}, {"window": 4}, {"clipping": Halved(1.0)}, {"mode": "adaptive"}):
        same_steps(*pair(lambda options=options: EProp(Evaluator(layers(12, cell="alif")), **options)), *batches(3))
    assert not any(taken)


def test_other_rules_take_their_own_steps(taken: list[bool]) -> None:
    class Doubled(BPTT):
        def _judged_gradients(self, *given: Any) -> Any:
            judgement, found = super()._judged_gradients(*given)
            return judgement, {name: 2 * value for name, value in found.items()}

    for kind in (Doubled, FPTT):
        same_steps(*pair(lambda kind=kind: kind(Evaluator(layers(12, cell="alif")))), *batches(3))
    network = layers(12, cell="alif")
    network.weight_bits = 4
    EProp(Evaluator(network)).step(*batches(1)[0])
    with unfused():
        make().step(*batches(1)[0])
    assert not taken


def test_weights_of_few_bits_are_seen_when_they_come(taken: list[bool]) -> None:
    one, other = pair(make)
    same_steps(one, other, *batches(2))
    for rule in (one, other):
        rule.model.network.weight_bits = 3
    same_steps(one, other, *batches(2))
    assert taken == [False, True]


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_other_libraries_have_them_by_numpy(backend: str, taken: list[bool]) -> None:
    pytest.importorskip(backend)
    made = [EProp(Evaluator(layers(12, cell="alif", backend=name)), optimizer="sgd") for name in ("numpy", backend)]
    for x, y in batches(4):
        figures = [rule.step(x, y) for rule in made]
        assert figures[0] == pytest.approx(figures[1], rel=1e-12)
    assert taken == [False] + [True] * 7
    with by_library():
        made[1].step(*batches(1)[0])
    assert len(taken) == 8


@pytest.mark.parametrize("fault", ["weights of the first step", "errors by old weights", "the update reads what was"])
def test_faults_are_seen(fault: str, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "weights of the first step":
        made = Steady._made

        def kept(self: Steady, rule: LearningRule, links: Any, plan: Any, given: Any) -> Any:
            ready = made(self, rule, links, plan, given)
            assert ready is not None
            of_first = {name: given.values[of] for name, of in ready.parameters.items()}
            return ready._replace(known=ready.known | of_first, parameters={})

        monkeypatch.setattr(Steady, "_made", kept)
    elif fault == "errors by old weights":
        first: dict[str, Any] = {}
        backs = steady.backs_of
        monkeypatch.setattr(steady, "backs_of", lambda *given: first.setdefault("found", backs(*given)))
    else:
        stepped = Steady.stepped

        def left(self: Steady, *given: Any) -> Any:
            before = self._addresses.copy()
            result = stepped(self, *given)
            self._addresses[1:] = before[1:] if result and before[1].all() else self._addresses[1:]
            return result

        monkeypatch.setattr(Steady, "stepped", left)
    one, other = pair(lambda: make("bptt", optimizer={"name": "adam", "learning_rate": 0.01}))
    # One after the other: in turns they have each other's memory, with the same numbers.
    for x, y in batches(5):
        other.step(x, y)

    def followed() -> None:
        for x, y in batches(5):
            one.step(x, y)
        same_steps(one, other)

    with pytest.raises(AssertionError):
        followed()


def test_what_is_worth_no_chain_is_no_step_of_these(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    monkeypatch.setattr(running, "WORTHWHILE", 1 << 40)
    same_steps(*pair(make), *batches(2))
    assert taken == [False, False]


def test_batches_are_not_held(taken: list[bool]) -> None:
    """Only what every step works in is."""
    rule = make()
    (x, y), *others = batches(4)
    rule.step(x, y)
    rule.step(x, y)
    before = weakref.ref(x)
    del x
    for x, y in others:
        rule.step(x, y)
    del x, y, others
    assert before() is None
    assert taken == [False, True, True, True, True]


def test_sequences_of_any_length(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "_SIZES", 3)
    one, other = pair(make)
    random = np.random.default_rng(2)
    for steps in (*range(3, 12), 5):
        x = 1.0 * (random.random((6, steps, FEATURES)) < 0.3)
        same_steps(one, other, (x, random.integers(0, CLASSES, 6)))
    assert taken == [False] + [True] * 9
    assert len(vars(one)["_compiled_steady"]._ready) <= 3
