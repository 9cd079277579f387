"""Chained: a batch gone through by one compiled loop over groups of examples gives what the engine gives by operations.

The loops that are called are those of ``test_kernels``, where every neuron and loss goes through them; here it is how
they are linked, for every way in which populations can be connected and signals can arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_cases import (
    CLASSES,
    EXAMPLES,
    FEATURES,
    GROUP,
    NETWORKS,
    PENALISED,
    PENALTIES,
    STEPS,
    Bursts,
    Leaning,
    circuit,
    data,
    exciting_each_other,
    groups,
    layers,
)
from credit_cases import recurrent_readout

from neko_rules import LIF, EProp, Evaluator, LearningRule
from neko_rules.chains import running
from neko_rules.errors import NonFiniteError
from neko_rules.kernels import compiling
from neko_rules.kernels.chain import Chain
from neko_rules.kernels.host import by_library, unfused
from neko_rules.kernels.writer import adjoint_source
from neko_rules.layers import fused
from neko_rules.layers.jacobians import Jacobians
from neko_rules.losses import LOSSES
from neko_rules.metrics import Measurement, Metric
from neko_rules.rules import chained, rule_of
from neko_rules.rules.chained import Chains
from neko_rules.threads import set_threads

__all__ = ["groups"]  # a fixture

SAME = 1e-12
CASES = [(name, rule) for name, (_, rules) in NETWORKS.items() for rule in rules]


def compare(make: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> None:
    """Figures, gradient and weights after a step, beside those of the engine."""
    rule, plain = make(), make()
    figures, found = rule.observed_step(x, y)
    with unfused():
        wanted, expected = plain.observed_step(x, y)
    assert figures == pytest.approx(wanted, rel=SAME)
    assert any(np.abs(value).max() > 1e-6 for value in expected.values())
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=SAME * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize(("network", "rule"), CASES)
def test_a_chain_gives_what_the_engine_gives(network: str, rule: str, groups: list[Any]) -> None:
    if network == "on PyTorch":
        pytest.importorskip("torch")
    x, y = data()

    def make() -> Any:
        model = NETWORKS[network][0]()
        of_spikes = ["firing_rate", "spike_sparsity"] if model.spiking else []
        return rule_of(Evaluator(model, metrics=["accuracy", *of_spikes]), rule)

    compare(make, x, y)
    assert groups, "a chain, or nothing is tested"


@pytest.mark.parametrize("kind", ["graded", "dense"])
def test_inputs_of_every_kind(kind: str, groups: list[Any]) -> None:
    x, y = data(kind)
    compare(lambda: rule_of(Evaluator(layers(24, cell="alif")), "eprop"), x, y)
    assert [("input" in walked) for walked in groups] == [kind == "graded"]


def test_an_input_that_is_not_all_ones_is_told_by_whichever_group_meets_it(groups: list[Any]) -> None:
    x, y = data()
    x[-1, 5, 2] = 0.5
    compare(lambda: rule_of(Evaluator(layers(24, cell="alif")), "eprop"), x, y)
    assert len(groups) == 2


def test_data_and_weights_that_cannot_be_written_to(groups: list[Any]) -> None:
    """Sequences of one step are not turned, and so not copied."""
    x, y = data()
    x = np.ascontiguousarray(x[:, :1])
    x.flags.writeable = False

    def make() -> Any:
        network = layers(24, cell="alif")
        for name, value in network.values.items():
            network.values[name] = value.copy()
            network.values[name].flags.writeable = False
        return rule_of(Evaluator(network), "eprop")

    compare(make, x, y)
    assert groups


@pytest.mark.parametrize("spatial", ["random", "direct"])
def test_errors_that_come_another_way(spatial: str, groups: list[Any]) -> None:
    x, y = data()
    credit: dict[str, Any] = {"temporal": "neuron", "spatial": spatial}
    compare(lambda: LearningRule(Evaluator(layers(16, 12, recurrent=False)), **credit), x, y)
    assert groups


@pytest.mark.parametrize("spatial", ["target", "local"])
@pytest.mark.parametrize("temporal", ["layer", "neuron", "presynaptic"])
@pytest.mark.parametrize("network", ["one recurrent layer", "wide layers", "a circuit", "analogue neurons"])
def test_signals_of_every_population_s_own(network: str, temporal: str, spatial: str, groups: list[Any]) -> None:
    x, y = data()
    options: dict[str, Any] = {"temporal": temporal, "spatial": spatial, "learning_signal": "instantaneous"}
    labels = np.where(np.random.default_rng(3).random((EXAMPLES, STEPS)) < 0.3, -1, y[:, None])
    make = NETWORKS[network][0]
    options["regularizers"] = ["firing_rate"] if make().spiking else []
    compare(lambda: LearningRule(Evaluator(make()), **options), x, labels)
    assert groups


@pytest.mark.parametrize("fault", [None, "target", "local"])
def test_faults_in_signals_of_their_own_are_seen(
    fault: str | None, groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target and a readout that are the same for all, in the place of those that the rule has drawn."""
    if fault:
        monkeypatch.setattr(
            chained, "back_to", lambda nx, credit, values, feedback, source, connection: np.ones((CLASSES, 24))
        )
    x, y = data()
    options: dict[str, Any] = {"temporal": "neuron", "spatial": fault or "local"}
    with nullcontext() if fault is None else pytest.raises(AssertionError):
        compare(lambda: LearningRule(Evaluator(layers(24)), **options), x, y)
    assert groups


@pytest.mark.parametrize("spatial", ["target", "local"])
def test_many_outputs(spatial: str, groups: list[Any]) -> None:
    """More than are multiplied out row by row."""
    x, y = data()
    network = lambda: LIF([12, 9], 70, inputs=FEATURES, dtype="float64")  # noqa: E731
    compare(lambda: LearningRule(Evaluator(network()), temporal="presynaptic", spatial=spatial), x, y)
    assert groups


@pytest.mark.parametrize("rule", ["bptt", "eprop"])
def test_populations_that_feed_back_to_each_other(rule: str, groups: list[Any]) -> None:
    """Two that step together, and a readout whose own units are connected."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((11, 12, 4)), rng.integers(3, size=11)
    for make in (lambda: exciting_each_other(4), lambda: recurrent_readout("numpy")):
        compare(lambda make=make: rule_of(Evaluator(make()), rule), x, y)  # type: ignore[misc]
    assert (groups[0], groups[-1]) == ({"low", "high"}, {"hidden"})


@pytest.mark.parametrize(
    "fault", [None, {"later": True}, {"later": False}, {"leak": ""}, {"leak": "0.5"}], ids=lambda fault: str(fault)
)
def test_faults_in_what_comes_back_between_populations_are_seen(
    fault: dict[str, Any] | None, groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of this step in the place of those of the step after and the other way round, another leak; and none."""

    def faulty(body: Any, stages: Any, varying: bool) -> str:
        wrong = [replace(stage, products=[replace(one, **fault or {}) for one in stage.products]) for stage in stages]
        return adjoint_source(body, wrong, varying)

    monkeypatch.setattr("neko_rules.credit.fused.adjoint_source", faulty)
    x, y = data()
    with nullcontext() if fault is None else pytest.raises(AssertionError):
        compare(lambda: rule_of(Evaluator(circuit()), "bptt"), x, y)
    assert groups


def test_labels_of_single_steps(groups: list[Any]) -> None:
    """Steps without a label count nothing, whole groups of examples among them."""
    x, y = data()
    labels = np.where(np.random.default_rng(3).random((EXAMPLES, STEPS)) < 0.4, -1, y[:, None])
    labels[4:12] = -1
    compare(lambda: rule_of(Evaluator(layers(24, cell="alif"), metrics=["accuracy"]), "eprop"), x, labels)
    assert groups


@pytest.mark.parametrize("rule", ["bptt", "eprop"])
def test_a_population_that_fires_much_is_told_by_the_first_group(
    rule: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a threshold that every population is above, each in its turn goes over to products; the next batch alike."""
    monkeypatch.setattr(running, "crossover", lambda senders: 1e-9)
    x, y = data()
    compare(lambda: rule_of(Evaluator(layers(16, 70, 12, recurrent=False), metrics=["firing_rate"]), rule), x, y)
    names = ["hidden0", "hidden1", "hidden2"]
    assert groups == [frozenset(names[i:]) for i in range(4)]


def test_threads_share_the_examples(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neko_rules.threads._WORTHWHILE", 1)
    x, y = data()
    make = lambda: rule_of(Evaluator(layers(24, cell="alif"), metrics=["accuracy"]), "eprop")  # noqa: E731
    alone = make().gradients(x, y)
    set_threads(3)
    try:
        compare(make, x, y)
        shared = make().gradients(x, y)
    finally:
        set_threads(None)
    assert any(not np.array_equal(alone[name], shared[name]) for name in alone), "other sums, or nothing was shared"


def test_what_has_no_chain_goes_another_way(groups: list[Any]) -> None:
    """Penalties of a user's, a modulator, and readouts of layers' own where outputs are pooled."""
    x, y = data()
    compare(lambda: EProp(Evaluator(layers(8)), regularizers=[Bursts()]), x, y)
    compare(lambda: EProp(Evaluator(layers(8)), regularizers=[Leaning()]), x, y)
    modulated: dict[str, Any] = {"temporal": "neuron", "spatial": "modulator"}
    compare(lambda: LearningRule(Evaluator(layers(8)), **modulated), x, y)
    compare(lambda: LearningRule(Evaluator(layers(8, readout="mean")), temporal="neuron", spatial="local"), x, y)
    assert not groups


@pytest.mark.parametrize("rule", ["bptt", "eprop", "dfa", "pp_prop", "otpe", "approximate_otpe"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("network", PENALISED)
def test_penalties(network: str, penalty: str, rule: str, groups: list[Any]) -> None:
    """Rates are those of all the batch: it is gone through once for them, but for a penalty that asks for none."""
    x, y = data()
    compare(lambda: rule_of(Evaluator(PENALISED[network]()), {"name": rule, "regularizers": PENALTIES[penalty]}), x, y)
    assert len(groups) == (1 if penalty in ("every spike", "membranes") else 2)


@pytest.mark.parametrize("fault", ["no penalty", "rates of half of the batch", "no division"])
def test_faults_of_penalties_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    factor = {"no penalty": 0.0, "no division": float(STEPS), "rates of half of the batch": 1.0}[fault]
    penalised = Chains.penalised

    def wrong(self: Any, rule: Any, given: Any, counted: Any) -> Any:
        def half() -> Any:
            ran = counted()
            return ran._replace(spikes={name: sums[:, : EXAMPLES // 2] for name, sums in ran.spikes.items()})

        found = penalised(self, rule, given, half if fault == "rates of half of the batch" else counted)
        return found._replace(pushes={name: factor * push for name, push in found.pushes.items()})

    monkeypatch.setattr(Chains, "penalised", wrong)
    with pytest.raises(AssertionError):
        compare(lambda: rule_of(Evaluator(layers(24)), {"name": "eprop", "regularizers": PENALTIES["a rate"]}), x, y)
    assert groups


@dataclass(frozen=True)
class Active(Metric):
    """Share of neurons that fired at least once."""

    requires = "spikes"

    @property
    def name(self) -> str:
        return "active"

    def measure(self, nx: Any, m: Measurement) -> tuple[Any, Any]:
        fired = [nx.max(spikes, axis=0) for spikes in m.spikes.values()]
        return sum(nx.sum(each) for each in fired), np.asarray(sum(each.size for each in fired) * 1.0)


def test_a_metric_that_looks_at_time_steps_sees_them(groups: list[Any]) -> None:
    x, y = data()
    compare(lambda: rule_of(Evaluator(layers(24, cell="alif"), metrics=[Active()]), "eprop"), x, y)
    assert not groups


def test_a_kernel_that_was_made_once_more_is_the_one_that_is_called(groups: list[Any]) -> None:
    """As after 512 others, or by two threads that begin at once."""
    x, y = data()
    make = lambda: rule_of(Evaluator(layers(17, cell="lif")), "eprop")  # noqa: E731
    make().gradients(x[:4], y[:4])
    compiling._loaded.cache_clear()
    for kernel in list(fused._kernels._made.values()):
        if kernel is not None:
            compiling.module_of(Path(kernel.run.py_func.__code__.co_filename).read_text(encoding="utf-8"))
    running._links.clear()
    compare(make, x, y)
    assert groups


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_other_libraries_compute_the_same(backend: str, groups: list[Any]) -> None:
    pytest.importorskip(backend)
    x, y = data()
    with by_library():
        found = rule_of(Evaluator(layers(70, 66, recurrent=False, backend=backend)), "eprop").gradients(x, y)
    wanted = rule_of(Evaluator(layers(70, 66, recurrent=False)), "eprop").gradients(x, y)
    assert len(groups) == 1
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9 * np.abs(value).max())


def test_faulty_links_are_seen(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted faults: a group left out, δ met by what was sent in the same step, a loss of other weights."""
    x, y = data()
    make = lambda: rule_of(Evaluator(layers(24, cell="alif")), "eprop")  # noqa: E731
    compare(make, x, y)
    view, call = Chain.view, Chain.call

    def viewed(chain: Chain, room: str, *shape: str | int, skip: str = "0") -> str:
        return view(chain, room, *shape)

    def called(chain: Chain, run: Any, *arguments: str, once: bool = False) -> None:
        call(chain, run, *(["zero", *arguments[1:]] if "weight" in arguments else arguments), once=once)

    labels = np.where(np.arange(EXAMPLES)[:, None] < GROUP, -1, np.broadcast_to(y[:, None], (EXAMPLES, STEPS)))
    for name, wrong in [("view", viewed), ("call", called)]:
        running._links.clear()
        with monkeypatch.context() as planted:
            planted.setattr(Chain, name, wrong)
            with pytest.raises(AssertionError):
                compare(make, x, labels)
    running._links.clear()
    compare(make, x, labels)


def test_numbers_that_leave_their_range_are_told(groups: list[Any]) -> None:
    x, y = data()
    rule = rule_of(Evaluator(layers(24, cell="alif")), "eprop")
    rule.model.check(x, y)
    weight = rule.model.network.values["readout.input.weight"]
    weight[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="loss"):
        rule.step(x, y)


def test_errors_that_are_fed_back_have_larger_groups() -> None:
    """Of a recurrent layer by BPTT, whose errors go through its weights at every step; not by e-prop."""
    for rule, recurrent in product(("bptt", "eprop"), (True, False)):
        least = Chains(rule_of(Evaluator(layers(24, recurrent=recurrent)), rule))._least
        assert running.group_size(1 << 30, 100, least) == (12 if rule == "bptt" and recurrent else 4)


def test_small_batches_are_not_cut(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert running.group_size(1 << 16, examples=16) == 16
    assert running.group_size(1 << 16, examples=100) == 16
    assert running.group_size(1 << 30, examples=100) == 4
    x, y = data()
    compare(lambda: rule_of(Evaluator(layers(24, cell="alif")), "eprop"), x, y)
    assert not groups


def test_a_clone_finds_the_chain_of_its_model() -> None:
    rule = rule_of(Evaluator(layers(8)), "eprop")
    assert isinstance(rule.chains(), Chains)
    assert rule.chains() is rule.chains()
    assert "_compiled_chains" not in vars(rule.clone())


class Flat(EProp):
    """e-prop without the memory of its neurons."""

    @property
    def jacobians(self) -> dict[str, Jacobians]:  # type: ignore[override]
        return {name: each.cut("none") for name, each in self.model.network.jacobians.items()}


def test_rules_of_other_derivatives_share_no_chain(groups: list[Any]) -> None:
    x, y = data()
    model = Evaluator(layers(24, cell="alif"))
    compare(lambda: EProp(model.clone()), x, y)
    compare(lambda: Flat(model.clone()), x, y)
    assert len(groups) == 2


def test_what_is_replaced_in_a_model_is_seen(groups: list[Any]) -> None:
    x, y = data()
    rule, plain = (rule_of(Evaluator(layers(24, cell="alif")), "eprop") for _ in range(2))
    for each in (rule, plain):
        each.gradients(x, y)
        each.model.metrics = Evaluator(layers(8), metrics=["accuracy"]).metrics
        each.model.loss = LOSSES.resolve("kl_divergence")
    both = iter((rule, plain))
    compare(lambda: next(both), x, y)
    before = len(groups)
    rule.regularizers = (Bursts(),)
    rule.gradients(x, y)
    assert len(groups) == before


class Halved(Evaluator):
    """An evaluator that asks for half of the change."""

    def judge(self, trajectory: Any, target: Any, mask: Any) -> Any:
        found = super().judge(trajectory, target, mask)
        return replace(found, signals={key: each / 2 for key, each in found.signals.items()})


def test_an_evaluator_of_ones_own_is_asked(groups: list[Any]) -> None:
    x, y = data()
    compare(lambda: rule_of(Halved(layers(24, cell="alif")), "eprop"), x, y)
    assert not groups


@pytest.mark.parametrize("steps", [1, 20])
def test_values_of_every_step_in_single_precision(steps: int, groups: list[Any]) -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.random((EXAMPLES, steps, FEATURES)) < 0.3) * 1.0, rng.standard_normal((EXAMPLES, steps, CLASSES))

    def make() -> Any:
        options: dict[str, Any] = {"inputs": FEATURES, "task_type": "regression", "seed": 3}
        return rule_of(Evaluator(LIF(24, CLASSES, **options)), "eprop")

    found = make().gradients(x, y)
    with unfused():
        wanted = make().gradients(x, y)
    assert groups
    for name, value in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * np.abs(value).max())
