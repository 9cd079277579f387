"""Networks read through converters: the forward pass written out, straight-through gradients, noise, refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, alive, data, feedback_network

from neko_rules import (
    ALIF,
    BPTT,
    Crossbar,
    EProp,
    Evaluator,
    LearningRule,
    Manhattan,
    Network,
    TorchModel,
    on_crossbar,
)
from neko_rules.backend import get_backend
from neko_rules.credit import autodiff
from neko_rules.devices import Constant, Converters
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.moment import advance, at_rest

COARSE = {"dac_bits": 4, "dac_bound": 2.0, "adc_bits": 5, "adc_bound": 3.0}
IDEAL = Constant(step=1e-8)


def bar(**options: Any) -> Crossbar:
    return Crossbar(**{"device": IDEAL, "w_max": 8.0, **COARSE, **options})


def coarse(name: str = "alif", backend: str = "numpy", **options: Any) -> Network:
    network = feedback_network(backend) if name == "feedback" else NETWORKS[name](backend)
    return on_crossbar(network, bar(**options))


def converted(x: np.ndarray, bits: int, bound: float) -> np.ndarray:
    """Rounding and cutting, written out; halves go up."""
    levels = 2 ** (bits - 1) - 1
    return np.floor(np.clip(x, -bound, bound) * levels / bound + 0.5) * bound / levels


def test_the_forward_pass_is_the_equation_written_out() -> None:
    """I = ADC(DAC(x) W) + ADC(DAC(z) V) + b, in a plain loop."""
    x, _ = data()
    network = coarse()
    p, constants = network.parameters, network.constants["hidden"]
    recorded = Evaluator(network).trajectory(x)
    v = z = a = np.zeros((3, 6))
    recurrent = p["hidden.recurrent.weight"] * (1 - np.eye(6))
    for t in range(x.shape[1]):
        arriving = converted(converted(x[:, t], 4, 2.0) @ p["hidden.input.weight"], 5, 3.0)
        current = arriving + converted(converted(z, 4, 2.0) @ recurrent, 5, 3.0) + p["hidden.bias"]
        cell = network.graph.cell("hidden")
        after = cell.update(get_backend("numpy"), _names(constants), _names({"v": v, "a": a}), z, current)
        v, a = after["v"], after["a"]
        z = ((v - 1.0 - 0.3 * a) > 0).astype(float)
        np.testing.assert_allclose(recorded.records["hidden"].states["v"][t], v, rtol=1e-12, atol=1e-12)
        assert np.array_equal(recorded.z("hidden")[t], z)
    assert 0 < recorded.z("hidden").mean() < 1


def _names(values: dict[str, Any]) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(**values)


@pytest.mark.parametrize("name", ["alif", "feedback", "tanh", "recurrent readout"])
def test_same_outputs_on_every_backend_and_step_by_step(name: str, backend: str) -> None:
    x, _ = data()
    network = coarse(name, backend)
    found = Evaluator(network).predict(x)
    np.testing.assert_allclose(found, Evaluator(coarse(name)).predict(x), rtol=1e-9, atol=1e-12)
    exact = NETWORKS[name](backend) if name != "feedback" else feedback_network(backend)
    assert np.abs(found - Evaluator(exact).predict(x)).max() > 1e-2

    def stepped(values: Any, inputs: Any) -> Any:
        state = at_rest(network.nx, network.graph, 3, 4, "float64")
        outputs = []
        for t in range(5):
            state = advance(network.nx, network.graph, network.constants, values, state, inputs[t]).after
            outputs.append(state["readout"]["z"])
        return network.nx.stack(outputs, 1)

    inputs = network.nx.asarray(np.ascontiguousarray(x.transpose(1, 0, 2)))
    by_step = network.nx.to_numpy(network.nx.jit(stepped)(network.values, inputs))
    np.testing.assert_allclose(by_step, found[:, :5], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["alif", "feedback", "deep", "tanh"])
def test_the_engines_gradient_is_that_of_automatic_differentiation(name: str, autodiff_backend: str) -> None:
    x, y = data(steps=8)
    model = Evaluator(coarse(name, autodiff_backend))
    alive(model, x)
    batch = [model.nx.asarray(array) for array in model.batch(x, y)]
    expected = autodiff.gradients(model, model.network.values, *batch)
    exact = BPTT(Evaluator(feedback_network("numpy") if name == "feedback" else NETWORKS[name]("numpy")))
    other = exact.gradients(x, y)
    for key, gradient in BPTT(model).gradients(x, y).items():
        assert np.abs(gradient).max() > 1e-8
        np.testing.assert_allclose(gradient, model.nx.to_numpy(expected[key]), rtol=1e-9, atol=1e-13)
        assert np.abs(gradient - other[key]).max() > 1e-6


def test_straight_through_is_the_derivative_of_the_exact_product_at_what_the_network_did() -> None:
    """A readout alone: dE/dW = Σ_t x_tᵀ δ_t with the exact x and the δ of converted outputs."""
    x, y = data(steps=1)
    ends = [{"source": "input", "target": "readout"}]
    populations = {"readout": {"cell": {"name": "leaky_readout", "tau_membrane": 0.0}, "size": 3}}
    network = Network(populations, ends, "readout", inputs=4, dtype="float64", seed=1)
    shown = on_crossbar(network, bar())
    weight, bias = shown.parameters["readout.from_input.weight"], shown.parameters["readout.bias"]
    outputs = converted(converted(x[:, 0], 4, 2.0) @ weight, 5, 3.0) + bias
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    found = BPTT(Evaluator(shown)).gradients(x, y)["readout.from_input.weight"]
    np.testing.assert_allclose(found, x[:, 0].T @ ((p - np.eye(3)[y]) / 3), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("temporal", "options"), [("full", {}), ("neuron", {}), ("neuron", {"online": True})])
def test_rules_train_through_converters(temporal: str, options: dict[str, Any]) -> None:
    x, y = data(batch=16, steps=10)
    network = on_crossbar(ALIF(24, 3, inputs=4, threshold=0.5, seed=1), bar())
    adam = {"name": "adam", "learning_rate": 1e-2 if not options else 2e-3}
    rule = LearningRule(Evaluator(network), temporal=temporal, optimizer=adam, **options)
    losses = [rule.step(x, y)["loss"] for _ in range(60)]
    assert rule.model.evaluate(x, y)["loss"] < 0.7 * losses[0]


def test_many_bits_are_the_network_itself_and_fewer_are_further_from_it() -> None:
    x, _ = data()
    network = NETWORKS["tanh"]("numpy")
    truth, wide = Evaluator(network).predict(x), {"dac_bound": 5.0, "adc_bound": 20.0}
    errors = []
    for bits in (24, 11, 8, 5):
        shown = on_crossbar(network, bar(dac_bits=bits, adc_bits=bits, **wide))
        errors.append(float(np.abs(Evaluator(shown).predict(x) - truth).mean()))
    assert errors[0] < 1e-5
    assert all(3 * one < other for one, other in pairwise(errors))
    narrow = on_crossbar(network, bar(dac_bits=0, adc_bits=24, adc_bound=0.5))
    assert np.abs(Evaluator(narrow).predict(x) - truth).mean() > 0.05


def test_the_weights_are_what_the_devices_show_with_their_read_noise() -> None:
    network = NETWORKS["alif"]("numpy")
    quiet, before = on_crossbar(network, bar()), network.parameters
    noisy = [on_crossbar(network, bar(device=Constant(step=1e-8, read_noise=0.02)), read=read) for read in (0, 0, 1)]
    for name, value in before.items():
        assert np.array_equal(network.parameters[name], value)
        np.testing.assert_allclose(quiet.parameters[name], value, rtol=1e-9, atol=1e-12)
        reads = [each.parameters[name] for each in noisy]
        assert np.array_equal(reads[0], reads[1])
        assert np.array_equal(reads[0], reads[2]) == (value.ndim == 1)
    # Noise of both devices of a pair, as a part of the range: √2 · 0.02 · 8; 24 weights, four standard errors are 58 %.
    spread = (noisy[0].parameters["hidden.input.weight"] - before["hidden.input.weight"]).std()
    assert spread == pytest.approx(np.sqrt(2) * 0.02 * 8.0, rel=0.58)
    assert network.graph.connections[0].converters is None
    assert quiet.graph.connections[0].converters == Converters(**COARSE)  # type: ignore[arg-type]


def test_manhattan_trains_and_evaluates_through_its_crossbars_converters(backend: str) -> None:
    x, y = data(steps=6)
    figures: dict[str, list[float]] = {}
    for name, options in (("exact", {}), ("coarse", COARSE)):
        model = Evaluator(NETWORKS["alif"](backend))
        first = model.evaluate(x, y)["loss"]  # compiled before the converters are there
        crossbar = Crossbar(Constant(step=1e-7), w_max=8.0, **options)  # type: ignore[arg-type]
        rule = Manhattan(model, gradient=EProp(model), crossbar=crossbar)
        figures[name] = [first, model.evaluate(x, y)["loss"], rule.step(x, y)["loss"], rule.step(x, y)["loss"]]
    assert figures["exact"][1] == pytest.approx(figures["exact"][0], rel=1e-9)
    assert figures["coarse"][1] == pytest.approx(figures["coarse"][2], rel=1e-9)
    assert abs(figures["coarse"][1] - figures["coarse"][0]) > 1e-4
    reference = Evaluator(NETWORKS["alif"]("numpy"))
    twin = Manhattan(reference, crossbar=Crossbar(Constant(step=1e-7), w_max=8.0, **COARSE), gradient="eprop")  # type: ignore[arg-type]
    assert [twin.step(x, y)["loss"] for _ in range(2)] == pytest.approx(figures["coarse"][2:], rel=1e-9)


def test_a_connection_takes_converters_of_its_own() -> None:
    x, _ = data()
    network = Network(
        {"hidden": {"cell": "tanh", "size": 5}, "readout": {"cell": "leaky_readout", "size": 3}},
        [
            {"source": "input", "target": "hidden", "converters": {"dac_bits": 3, "dac_bound": 2.0}},
            {"source": "hidden", "target": "readout"},
        ],
        "readout",
        inputs=4,
        dtype="float64",
    )
    levels = np.unique(Evaluator(network).trajectory(x).records["hidden"].states["v"][0].round(12))
    assert len(levels) > 5
    plain = Network(
        dict(network.graph.populations),
        [{"source": "input", "target": "hidden"}, {"source": "hidden", "target": "readout"}],
        "readout",
        inputs=4,
        dtype="float64",
    )
    plain.set_parameters(network.parameters)
    held = converted(x, 3, 2.0)
    np.testing.assert_allclose(Evaluator(network).predict(x), Evaluator(plain).predict(held), rtol=1e-12, atol=1e-14)


def test_what_makes_no_sense_is_refused() -> None:
    torch = pytest.importorskip("torch")
    wrapped = TorchModel(torch.nn.Linear(4, 3), inputs=4)
    with pytest.raises(IncompatibleError, match="pass no converters"):
        on_crossbar(wrapped, bar())
    with pytest.raises(IncompatibleError, match="pass no converters"):
        Manhattan(Evaluator(wrapped), crossbar=bar())
    shown = on_crossbar(wrapped, bar(dac_bits=0, adc_bits=0, device=Constant(read_noise=0.1)))
    assert not np.allclose(shown.parameters["weight"], wrapped.parameters["weight"])
    with pytest.raises(ArgumentError, match="no weights yet"):
        on_crossbar(ALIF(4, 2), bar())
    with pytest.raises(ArgumentError, match="adc_bits is 0"):
        Converters(adc_bits=1)
    with pytest.raises(ArgumentError, match="dac_bound must be"):
        Crossbar(dac_bound=0.0)
