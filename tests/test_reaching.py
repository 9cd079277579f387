"""Reaching: the influence of lower layers on what remembers at the output, by a loop and over several steps at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain_cases import skipping
from credit_cases import INPUTS, OUTPUTS, alive, data, distance, recurrent_readout, stack

from neko_rules import EProp, Evaluator, Layer, LearningRule, Stack, trees
from neko_rules.backend import get_backend
from neko_rules.credit import fused_traces, stepwise
from neko_rules.credit.spans import Spans
from neko_rules.kernels.host import host_of, unfused
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.optimizers import SGD
from neko_rules.rules.online import Online
from neko_rules.threads import set_threads, threads

SAME = 1e-12

NETWORKS = {
    "one vector of the presynaptic neurons": stack(LIFCell(threshold=0.5), LIFCell(threshold=0.3)),
    "a state of every synapse": stack(ALIFCell(beta=0.3, threshold=0.5), LIFCell(threshold=0.3)),
    "three layers": stack(LIFCell(threshold=0.5), ALIFCell(threshold=0.3), LIFCell(threshold=0.3)),
    "a readout per neuron": stack(LIFCell(threshold=0.5), LIFCell(threshold=0.3), tau_readout=[5e-3, 20e-3, 8e-3]),
    "no recurrence": lambda backend: Stack(
        [Layer(LIFCell(threshold=0.3), 7, recurrent=False), Layer(LIFCell(threshold=0.3), 5, recurrent=False)],
        OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=4,
    ),
}  # fmt: skip


def eprop(model: Evaluator, **options: Any) -> LearningRule:
    return LearningRule(model, temporal="neuron", learning_signal="filtered", **options)


def host() -> Any:
    found = host_of(get_backend("numpy"))
    assert found is not None
    return found


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 10, 40, 33)])
def test_the_loop_is_its_equation(shape: tuple[int, int, int, int], number: int) -> None:
    batch, units, pre, post = shape
    random = np.random.default_rng(0)
    before, leak, error = (random.standard_normal((batch, units, *rest)) for rest in ((pre * post,), (), ()))
    paths, trace = random.standard_normal((batch, units, post)), random.standard_normal((batch, pre, post))
    used, kept = threads(), before.copy()
    try:
        set_threads(number)
        after, total = fused_traces.reached_on(host(), before, leak, paths, trace, error)
    finally:
        set_threads(used)
    reached = np.einsum("bkj,bij->bkij", paths, trace).reshape(before.shape)
    np.testing.assert_allclose(after, leak[:, :, None] * before + reached, rtol=SAME, atol=SAME)
    expected = np.einsum("bk,bkp->p", error, after).reshape(pre, post)
    np.testing.assert_allclose(total, expected, rtol=1e-10, atol=1e-11)
    assert np.array_equal(before, kept), "what was before is somebody's still"


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("penalized", [False, True])
def test_eprop_forward_in_time_is_that_of_operations(
    network: str, library: str, penalized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    x, y = data()
    model = Evaluator(NETWORKS[network](library))
    alive(model, x)
    options: dict[str, Any] = {"regularizers": ["membrane_bounds"]} if penalized else {}
    asked: list[int] = []

    def noted(*given: Any) -> Any:
        asked.append(1)
        return fused_traces.reached_on(*given)

    monkeypatch.setattr(stepwise, "reached_on", noted)
    by_loop = eprop(model, evaluation="traces", **options).gradients(x, y)
    assert asked
    asked.clear()
    with unfused():
        by_operations = eprop(model, evaluation="traces", **options).gradients(x, y)
    assert not asked
    assert distance(by_loop, by_operations) < SAME


@pytest.mark.parametrize("fault", ["leak", "paths", "error"])
def test_faults_in_what_the_loop_is_given_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    model = Evaluator(NETWORKS["a state of every synapse"]("numpy"))
    right = eprop(model, evaluation="adjoint").gradients(x, y)
    assert distance(eprop(model, evaluation="traces").gradients(x, y), right) < 1e-10
    place = {"leak": 2, "paths": 3, "error": 5}[fault]

    def wrong(*given: Any) -> Any:
        return fused_traces.reached_on(*given[:place], 0.9 * given[place], *given[place + 1 :])

    monkeypatch.setattr(stepwise, "reached_on", wrong)
    assert distance(eprop(model, evaluation="traces").gradients(x, y), right) > 1e-3


# Several time steps at once.

LEAKING = {
    name: NETWORKS[name] for name in ("one vector of the presynaptic neurons", "no recurrence")
} | {
    "three layers of one vector": stack(LIFCell(threshold=0.5), LIFCell(threshold=0.3), LIFCell(threshold=0.3)),
    "two ways to the readout": lambda _: skipping(),
    "the last output": stack(LIFCell(threshold=0.5), LIFCell(threshold=0.3), readout="last"),
}  # fmt: skip


def learned(
    build: Any, library: str, monkeypatch: pytest.MonkeyPatch, at_once: bool, size: int = 5, **options: Any
) -> dict[str, np.ndarray]:
    """Parameters after two batches with a change of the weights every few steps."""
    network = build(library)
    x, y = data(steps=14, inputs=network.inputs or INPUTS)
    with monkeypatch.context() as patch:
        rule = EProp(Evaluator(network), optimizer=SGD(0.3), online=size, **options)
        if at_once:
            assert Online(rule, size).spans is not None
            assert Online(rule, size).windows is None, "there is no chain"
        else:
            patch.setattr(Online, "spans", None)
        for _ in range(2):
            rule.step(x, y)
    return rule.model.network.parameters


@pytest.mark.parametrize("mode", ["symmetric", "random"])
@pytest.mark.parametrize("network", LEAKING)
@pytest.mark.parametrize("size", [5, 7, 20])
def test_influences_on_the_readout_are_taken_on_over_several_steps(
    size: int, network: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (learned(LEAKING[network], "numpy", monkeypatch, each, size, mode=mode) for each in (True, False))
    assert distance(one, other) < SAME


@pytest.mark.parametrize("library", ["torch", "jax", "tensorflow"])
def test_influences_are_taken_on_over_several_steps_on_every_library(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    build = LEAKING["one vector of the presynaptic neurons"]
    one, other = (learned(build, library, monkeypatch, each) for each in (True, False))
    assert distance(one, other) < SAME


@pytest.mark.parametrize("fault", ["reached", "_reaching_through", "sent_before"])
def test_faults_in_influences_over_several_steps_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, right = LEAKING["one vector of the presynaptic neurons"], getattr(Spans, fault)
    expected = learned(build, "numpy", monkeypatch, False)

    def wrong(*given: Any) -> Any:
        return trees.mapped(lambda array: 0.9 * array, right(*given))

    monkeypatch.setattr(Spans, fault, wrong)
    assert distance(learned(build, "numpy", monkeypatch, True), expected) > 1e-6


@pytest.mark.parametrize("build", [
    NETWORKS["a state of every synapse"],
    recurrent_readout,
    stack(LIFCell(), LIFCell(), tau_readout=[5e-3, 20e-3, 8e-3]),
    stack(LIFCell(), LIFCell(), output_cell=LIFCell()),
], ids=["adaptive thresholds", "a recurrent readout", "a readout per neuron", "an output that spikes"])  # fmt: skip
def test_what_has_another_form_is_gone_through_step_by_step(build: Any) -> None:
    assert Online(EProp(Evaluator(build("numpy")), online=5), 5).spans is None
