"""Identities between rules, engines and automatic differentiation, in float64, on networks that are alive."""

from __future__ import annotations

import numpy as np
import pytest
from credit_cases import AUTODIFF_BACKENDS, NETWORKS, alive, by_autodiff, by_traces, data, distance, network_of, stack
from loss_cases import OF_OUTPUTS

from neko_rules import ALIF, BPTT, LIF, OSTL, RNN, EProp, Evaluator, LearningRule
from neko_rules.kernels.host import by_library
from neko_rules.layers.cell import CELLS
from neko_rules.layers.integrate_and_fire import ALIFCell
from neko_rules.losses import LOSSES

SAME = 1e-12
"""Relative tolerance for one number computed in two ways in float64."""


def model_of(name: str, backend: str = "numpy", loss: str | None = None) -> Evaluator:
    return Evaluator(network_of(name, backend), loss=loss)


# Adjoint and traces.


@pytest.mark.parametrize("name", [*NETWORKS, "feedback"])
@pytest.mark.parametrize("mode", ["symmetric", "random"])
def test_adjoint_equals_traces_for_neuron_credit(name: str, mode: str) -> None:
    x, y = data()
    rule = EProp(model_of(name), mode=mode)
    alive(rule.model, x)
    assert distance(rule.gradients(x, y), by_traces(rule, x, y)) < SAME


@pytest.mark.parametrize("name", ["alif", "refractory", "deep", "reset not detached"])
def test_adjoint_equals_traces_on_every_backend(name: str, backend: str) -> None:
    x, y = data(steps=6)
    rule = EProp(model_of(name, backend))
    assert distance(rule.gradients(x, y), by_traces(rule, x, y)) < SAME


# The engine and automatic differentiation.


@pytest.mark.parametrize("name", [*NETWORKS, "feedback"])
def test_bptt_equals_torch_autodiff(name: str) -> None:
    x, y = data()
    model = model_of(name, "torch")
    alive(model, x)
    assert distance(BPTT(model).gradients(x, y), by_autodiff(model, x, y)) < SAME


@pytest.mark.parametrize("name", ["alif", "deep", "feedback", "reset not detached", "maximum output"])
@pytest.mark.parametrize("library", ["tensorflow", "jax"])
def test_bptt_equals_autodiff_of_the_other_libraries(name: str, library: str) -> None:
    pytest.importorskip(library)
    x, y = data(steps=8)
    model = model_of(name, library)
    assert distance(BPTT(model).gradients(x, y), by_autodiff(model, x, y)) < SAME


@pytest.mark.parametrize("library", AUTODIFF_BACKENDS)
@pytest.mark.parametrize("name", ["alif", "reset not detached"])
def test_eprop_equals_autodiff_with_the_recurrent_spikes_detached(name: str, library: str) -> None:
    pytest.importorskip(library)
    x, y = data(steps=10)
    model = model_of(name, library)
    assert distance(EProp(model).gradients(x, y), by_autodiff(model, x, y, detach_delayed=True)) < SAME
    # Control: with the recurrent spikes attached it is another gradient.
    assert distance(EProp(model).gradients(x, y), by_autodiff(model, x, y)) > 1e-3


@pytest.mark.parametrize("loss", OF_OUTPUTS)
def test_bptt_equals_autodiff_for_every_loss(loss: str) -> None:
    regression = LOSSES[loss]().target_kind == "values"
    network = stack(ALIFCell(beta=0.2), task_type="regression" if regression else "classification")("torch")
    x, y = data()
    targets = np.random.default_rng(1).uniform(0.1, 2.0, (3, 14, 3)) if regression else y
    model = Evaluator(network, loss=loss)
    assert distance(BPTT(model).gradients(x, targets), by_autodiff(model, x, targets)) < SAME


# Rules among each other.


def test_ostl_equals_bptt_for_one_hidden_layer_and_a_readout_without_memory() -> None:
    x, y = data()
    model = Evaluator(stack(ALIFCell(beta=0.3), tau_readout=0.0)("numpy"))
    alive(model, x)
    assert distance(OSTL(model).gradients(x, y), BPTT(model).gradients(x, y)) < SAME


def test_ostl_differs_from_bptt_where_the_readout_remembers() -> None:
    x, y = data()
    model = model_of("alif")
    assert distance(OSTL(model).gradients(x, y), BPTT(model).gradients(x, y)) > 1e-2


def test_eprop_equals_bptt_for_one_feedforward_layer() -> None:
    x, y = data()
    model = Evaluator(LIF(9, 3, recurrent=False, threshold=0.5, dtype="float64"))
    model.check(x, y)
    alive(model, x)
    assert distance(EProp(model).gradients(x, y), BPTT(model).gradients(x, y)) < SAME


def test_temporal_credit_is_a_ladder_on_a_recurrent_network() -> None:
    """Cutting paths changes the gradient of the hidden weights, and never that of the readout."""
    x, y = data()
    model = model_of("deep")
    choices = [("full", "exact"), *((t, s) for t in ("layer", "neuron") for s in ("filtered", "instantaneous"))]
    found = {
        (temporal, signal): LearningRule(model, temporal=temporal, learning_signal=signal).gradients(x, y)
        for temporal, signal in choices
    }
    points = list(found)
    for place, one in enumerate(points):
        for other in points[:place]:
            assert distance(_hidden(found[one]), _hidden(found[other])) > 1e-3, (one, other)
            assert distance(_readout(found[one]), _readout(found[other])) < SAME


def _hidden(gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in gradients.items() if name.startswith("hidden0")}


def _readout(gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in gradients.items() if name.startswith("readout")}


# Finite differences, on networks without a threshold.


@pytest.mark.parametrize("build", ["tanh", "deep tanh"])
def test_bptt_equals_central_differences_on_smooth_networks(build: str) -> None:
    x, y = data(batch=2, steps=7)
    hidden: list[int] = [5, 4] if build == "deep tanh" else [6]
    network = RNN(hidden, 3, inputs=4, membrane_decay=0.5, dtype="float64", seed=2)
    model = Evaluator(network)
    found = BPTT(model).gradients(x, y)
    step = 1e-6
    for name, value in network.parameters.items():
        if name.endswith("recurrent.weight"):
            np.fill_diagonal(value, 0.0)
        numeric = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * step
                network.set_parameters({name: moved})
                numeric[place] += sign * model.evaluate(x, y)["loss"] / (2 * step)
        network.set_parameters({name: value})
        np.testing.assert_allclose(found[name], numeric, atol=1e-8, rtol=1e-6)


# The same numbers on every backend, on every neuron, as each library compiles them: the widest gradient and the
# narrowest. The matrix of all rules goes through them operation by operation.

RULES_TO_COMPARE = {
    "bptt": BPTT,
    "eprop random": lambda model: EProp(model, mode="random"),
}


@pytest.mark.parametrize("cell", list(CELLS))
def test_a_compiled_rule_on_every_neuron_gives_the_same_numbers_on_every_backend(cell: str, backend: str) -> None:
    x, y = data(steps=8)
    for name, rule in RULES_TO_COMPARE.items():
        reference = rule(Evaluator(stack(CELLS[cell]())("numpy"))).gradients(x, y)
        found = rule(Evaluator(stack(CELLS[cell]())(backend))).gradients(x, y)
        assert distance(found, reference) < 1e-10, name


# Real sizes: 256 neurons, batch 32, 100 steps.


def real_model(backend: str) -> tuple[Evaluator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    x = (rng.random((32, 100, 80)) < 0.05).astype(np.float64)
    y = rng.integers(0, 10, 32)
    network = ALIF(256, 10, inputs=80, beta=0.2, threshold=0.5, backend=backend, dtype="float64", seed=1)
    return Evaluator(network), x, y


@pytest.fixture(scope="module")
def real_references() -> dict[str, dict[str, np.ndarray]]:
    model, x, y = real_model("numpy")
    alive(model, x)
    return {
        "bptt": BPTT(model).gradients(x, y),
        "eprop": EProp(model).gradients(x, y),
        "ostl": OSTL(model).gradients(x, y),
    }


@pytest.mark.parametrize("rule", ["bptt", "eprop", "ostl"])
def test_backends_agree_at_real_sizes(
    rule: str, backend: str, real_references: dict[str, dict[str, np.ndarray]]
) -> None:
    model, x, y = real_model(backend)
    maker = {"bptt": BPTT, "eprop": EProp, "ostl": OSTL}[rule]
    # By the library itself, and by what takes its steps.
    with by_library():
        assert distance(maker(model).gradients(x, y), real_references[rule]) < 1e-10
    assert distance(maker(model).gradients(x, y), real_references[rule]) < 1e-10


@pytest.mark.parametrize("library", AUTODIFF_BACKENDS)
def test_engine_equals_autodiff_at_real_sizes(library: str, real_references: dict[str, dict[str, np.ndarray]]) -> None:
    pytest.importorskip(library)
    model, x, y = real_model(library)
    assert distance(real_references["bptt"], by_autodiff(model, x, y)) < SAME
    assert distance(real_references["eprop"], by_autodiff(model, x, y, detach_delayed=True)) < SAME


def test_ostl_equals_bptt_at_real_sizes_without_readout_memory() -> None:
    _, x, y = real_model("numpy")
    network = ALIF(256, 10, inputs=80, beta=0.2, threshold=0.5, tau_readout=0.0, dtype="float64", seed=1)
    model = Evaluator(network)
    alive(model, x)
    assert distance(OSTL(model).gradients(x, y), BPTT(model).gradients(x, y)) < SAME


def test_adjoint_equals_traces_at_real_sizes(real_references: dict[str, dict[str, np.ndarray]]) -> None:
    model, x, y = real_model("numpy")
    assert distance(real_references["eprop"], by_traces(EProp(model), x, y)) < SAME
