"""Factors: pp-prop, OTPE and SnAp backward in time give what they give forward, on every network and library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from chain_cases import data as spikes
from chain_cases import groups, layers, passes, same_weights
from credit_cases import NETWORKS, data, distance, feedback_network, stack

from neko_rules import Evaluator, Layer, LearningRule, Network, Stack
from neko_rules.backend import BUILT_IN
from neko_rules.credit import factors
from neko_rules.credit.axes import Credit
from neko_rules.errors import IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.layers.cell import Cell
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.optimizers import SGD
from neko_rules.rules import OTTT, RULES, ApproximateOTPE, SnAp, chained_pass, rule_of

__all__ = ["groups", "passes"]  # fixtures

SAME = 1e-12
RULES_WITH_FACTORS = ("pp_prop", "otpe", "approximate_otpe")
LEARNED: dict[str, Any] = {
    "learned thresholds": stack(ALIFCell(learnable=["threshold", "beta"])),
    "learned leaks": stack(LIFCell(learnable=["membrane_decay"]), LIFCell()),
}
EVERY = {**NETWORKS, **LEARNED}
COMPILING = ("per neuron", "deep", "learned thresholds")
"""What is tried on the libraries that take a moment for every operation on every new shape."""


def made(rule: str, network: Network, **options: Any) -> LearningRule:
    found: LearningRule = RULES[rule](Evaluator(network), **options)
    return found


def cases() -> Iterator[tuple[str, str, str]]:
    """Library, network and rule; without networks that OTPE refuses."""
    for name, rule in product(EVERY, RULES_WITH_FACTORS):
        try:
            made(rule, EVERY[name]("numpy"))
        except IncompatibleError:
            continue
        for backend in BUILT_IN:
            if backend not in ("jax", "tensorflow") or name in COMPILING:
                yield backend, name, rule


def forward(rule: LearningRule, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The same gradient by traces."""
    credit: Credit = rule.credit
    axes = {"temporal": credit.temporal, "learning_signal": credit.learning_signal, "trace": credit.trace}
    more = {"spatial": credit.spatial, "trace_decay": rule.trace_decay, "regularizers": rule.regularizers}
    return LearningRule(rule.model, **axes, **more, evaluation="traces", seed=rule.seed).gradients(x, y)


@pytest.mark.parametrize(("backend", "name", "rule"), list(cases()), indirect=["backend"])
def test_backward_in_time_is_forward_in_time(name: str, rule: str, backend: str) -> None:
    x, y = data()
    network = EVERY[name](backend)
    penalties = ["firing_rate", "voltage"] if network.spiking and "output" not in name else []
    taught = made(rule, network, regularizers=penalties)
    assert taught.evaluation == "adjoint"
    expected = forward(taught, x, y)
    assert distance(taught.gradients(x, y), expected) < SAME
    with unfused():
        assert distance(made(rule, network, regularizers=penalties).gradients(x, y), expected) < SAME


@pytest.mark.parametrize("spatial", ["random", "sign", "direct", "target", "local"])
def test_errors_of_every_way(spatial: str) -> None:
    x, y = data()
    options: Any = {"temporal": "neuron", "learning_signal": "instantaneous", "trace": "rank_one", "spatial": spatial}
    rule = LearningRule(Evaluator(NETWORKS["deep"]("numpy")), **options, trace_decay=0.7)
    assert distance(rule.gradients(x, y), forward(rule, x, y)) < SAME
    other = LearningRule(Evaluator(NETWORKS["deep"]("numpy")), **options, trace_decay=0.8)
    assert distance(other.gradients(x, y), rule.gradients(x, y)) > 1e-3


@dataclass(frozen=True)
class FaintCell(Cell):
    """A neuron on which half of a current acts: q is 1/2."""

    states = ("v",)

    def constants(self, dt: float) -> dict[str, Any]:
        return {"alpha": 0.8, "gain": 0.5}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": p.alpha * s.v + p.gain * current}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.spike(s.v - 0.4)


def test_a_current_that_acts_in_part_counts_once() -> None:
    """Approximate OTPE below a layer without a memory is OTTT, whatever a current does to a membrane."""
    x, y = data()
    model = Evaluator(stack(FaintCell(), tau_readout=0.0)("numpy"))
    assert distance(ApproximateOTPE(model).gradients(x, y), OTTT(model).gradients(x, y)) < SAME
    deep = ApproximateOTPE(Evaluator(stack(FaintCell(), FaintCell())("numpy")))
    assert distance(deep.gradients(x, y), forward(deep, x, y)) < SAME


@pytest.mark.parametrize("fault", ["a mean of other weights", "no norm", "a factor that does not decay"])
@pytest.mark.parametrize("rule", RULES_WITH_FACTORS)
def test_faults_of_factors_are_seen(rule: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in what goes forward in time, on the way back alone: an oracle that shares the fault would not see it."""
    x, y = data()
    taught = made(rule, NETWORKS["lif"]("numpy"))
    expected = forward(taught, x, y)
    step = factors.Factors.step

    def wrong(self: Any, nx: Any, before: Any, local: Any, decay: Any, like: Any, wanted: Any) -> Any:
        if fault == "a mean of other weights":
            decay = decay * decay
        if fault == "a factor that does not decay":
            local = {entry: 1.0 if entry[0] == "D" else value for entry, value in local.items()}
        after, found = step(self, nx, before, local, decay, like, wanted)
        if fault == "no norm":
            scale = after.get("norm", after.get("count"))
            found = {key: each * scale for key, each in found.items()}
        return after, found

    monkeypatch.setattr(factors.Factors, "step", wrong)
    with unfused():
        error = distance(made(rule, NETWORKS["lif"]("numpy")).gradients(x, y), expected)
    of_a_mean = rule != "pp_prop" and fault == "a factor that does not decay"
    # For one hidden layer OTPE's mean goes nowhere but down, where nobody is; and a mean has no leak of its own.
    unseen = of_a_mean or rule == "otpe"
    assert (error < SAME) == unseen, error


@pytest.mark.usefixtures("passes")
def test_factors_that_windows_do_not_hand_on_are_seen(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every window begins with factors of its own."""
    x, y = spikes()
    handed = chained_pass.Carried.handed

    def wrong(self: Any, links: Any, looped: bool) -> dict[str, Any]:
        found = handed(self, links, looped)
        for argument, (_, key) in links.handed.starts.items():
            if key.startswith("factors_"):
                found[argument] = 0 * found[argument]
        return found

    def taught() -> Any:
        return rule_of(Evaluator(layers(24)), {"name": "pp_prop", "optimizer": SGD(0.3), "online": 6})

    same_weights(taught, x, y)
    monkeypatch.setattr(chained_pass.Carried, "handed", wrong)
    with pytest.raises(AssertionError):
        same_weights(taught, x, y)
    assert groups


# SnAp, which goes backward where what a weight reaches allows it.


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_snap_backward_in_time_is_snap_forward_in_time(name: str, steps: int) -> None:
    """It goes back wherever layers hear of each other within the step, all of them."""
    x, y = data()
    model = Evaluator(NETWORKS[name]("numpy"))
    rule = SnAp(model, reach=steps)
    forward = LearningRule(model, temporal="full", trace=f"sparse_{steps}", evaluation="traces")
    # Below the pooling all reach each other in two steps, and so all that is above.
    few = name in ("sparse", "convolution") or (name, steps) == ("pooling", 1)
    if few:
        assert rule.evaluation == "traces", "what a weight reaches in the layer above is a part of it"
    else:
        assert rule.evaluation == "adjoint"
    if not few and model.network.readout in ("sequence", "last"):
        assert SnAp(model, reach=steps, online=True).evaluation == "adjoint"
    assert distance(rule.gradients(x, y), forward.gradients(x, y)) < SAME


def test_snap_1_of_sparse_recurrent_weights_goes_back() -> None:
    """What it reaches below a dense readout is its own neuron, however few synapses there are."""
    model = Evaluator(Stack([Layer("lif", 8, recurrent_connectivity=0.3)], 3, inputs=4, dtype="float64"))
    assert SnAp(model, reach=1).evaluation == "adjoint"
    assert SnAp(model, reach=2).evaluation == "traces"


def test_snap_1_of_connections_that_are_late_goes_forward() -> None:
    """What a weight does to another population a step later is out of reach, for this weight alone."""
    assert SnAp(Evaluator(feedback_network("numpy")), reach=1).evaluation == "traces"
