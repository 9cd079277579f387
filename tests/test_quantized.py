"""Quantised networks: few values, straight-through gradients, membranes of n bits, and that a knob matters."""

from __future__ import annotations

import numpy as np
import pytest
from credit_cases import NETWORKS, data

from neko_rules import BPTT, LIF, EProp, Evaluator, TorchModel, quantize
from neko_rules.credit import autodiff
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.quantized import QuantizedCell, rounded_weights


def test_rounded_after_training_weights_are_few_and_the_old_network_is_untouched() -> None:
    network = NETWORKS["alif"]("numpy")
    before = network.parameters
    rounded = quantize(network, weight_bits=4, training=False)
    for name, value in rounded.parameters.items():
        if value.ndim > 1:
            assert len(np.unique(value)) <= 15
            assert 0 < np.abs(value - before[name]).max() <= np.abs(before[name]).max() / 7 / 2 + 1e-12
        else:
            assert np.array_equal(value, before[name])
        assert np.array_equal(network.parameters[name], before[name])


def test_in_training_the_gradient_is_that_at_the_rounded_weights(backend: str) -> None:
    x, y = data(steps=6)
    network = NETWORKS["alif"](backend)
    twin = quantize(network, weight_bits=4)
    rounded = quantize(network, weight_bits=4, training=False)
    ours, theirs = BPTT(Evaluator(twin), optimizer="naive"), BPTT(Evaluator(rounded))
    expected, full = theirs.gradients(x, y), twin.parameters
    for name, value in ours.gradients(x, y).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-14)
    assert ours.model.evaluate(x, y)["loss"] == pytest.approx(theirs.model.evaluate(x, y)["loss"], rel=1e-12)
    ours.step(x, y)
    for name, value in twin.parameters.items():  # behind them, weights of full precision move
        np.testing.assert_allclose(value, full[name] - expected[name], rtol=1e-10, atol=1e-14)
    assert Evaluator(network).evaluate(x, y)["loss"] != theirs.model.evaluate(x, y)["loss"]


def test_training_with_few_bits_lowers_the_loss_of_the_rounded_network() -> None:
    x, y = data(batch=16, steps=8)
    network = quantize(LIF(24, 3, threshold=0.5, seed=1), weight_bits=4)
    rule = BPTT(Evaluator(network), optimizer={"name": "adam", "learning_rate": 2e-2})
    losses = [rule.step(x, y)["loss"] for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    final = quantize(network, weight_bits=4, training=False)
    final.weight_bits = 0
    assert Evaluator(final).evaluate(x, y)["loss"] == pytest.approx(rule.model.evaluate(x, y)["loss"], rel=1e-5)


@pytest.mark.parametrize("bits", [3, 6])
def test_a_membrane_has_its_values_and_no_others(bits: int) -> None:
    x, _ = data()
    network = quantize(NETWORKS["alif"]("numpy"), membrane_bits=bits, membrane_bound=2.0)
    states = Evaluator(network).trajectory(x).records["hidden"].states
    apart = 2.0 / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(states["v"] / apart, np.round(states["v"] / apart), atol=1e-9)
    assert np.abs(states["v"]).max() <= 2.0
    assert len(np.unique(states["v"])) > 2
    assert not np.allclose(states["a"], np.round(states["a"] / apart) * apart)


def test_the_engines_gradient_through_a_rounded_membrane_is_straight_through(autodiff_backend: str) -> None:
    x, y = data(steps=6)
    network = quantize(NETWORKS["alif"](autodiff_backend), membrane_bits=8, membrane_bound=3.0)
    model = Evaluator(network)
    batch = [model.nx.asarray(array) for array in model.batch(x, y)]
    expected = autodiff.gradients(model, network.values, *batch)
    for name, gradient in BPTT(model).gradients(x, y).items():
        assert np.abs(gradient).max() > 1e-8
        np.testing.assert_allclose(gradient, model.nx.to_numpy(expected[name]), rtol=1e-10, atol=1e-14)


def test_the_last_of_several_roundings_of_a_membrane_counts() -> None:
    x, y = data()
    network = NETWORKS["alif"]("numpy")
    once = quantize(network, membrane_bits=3, membrane_bound=2.0)
    fine = quantize(network, membrane_bits=8, membrane_bound=3.0)
    losses = [Evaluator(each).evaluate(x, y)["loss"] for each in (once, fine)]
    again = quantize(fine, membrane_bits=3, membrane_bound=2.0)
    assert Evaluator(again).evaluate(x, y)["loss"] == losses[0] != losses[1]
    assert Evaluator(fine).evaluate(x, y)["loss"] == losses[1]
    assert again.graph.populations["hidden"].cell == once.graph.populations["hidden"].cell


def test_many_bits_are_the_network_itself_and_few_are_not() -> None:
    x, y = data()
    network = NETWORKS["alif"]("numpy")
    loss = Evaluator(network).evaluate(x, y)["loss"]
    fine = quantize(network, weight_bits=30, membrane_bits=32, membrane_bound=10.0)
    coarse = quantize(network, membrane_bits=3, membrane_bound=2.0)
    assert Evaluator(fine).evaluate(x, y)["loss"] == pytest.approx(loss, rel=1e-5)
    assert abs(Evaluator(coarse).evaluate(x, y)["loss"] - loss) > 1e-3


def test_a_wrapped_model_has_quantised_weights() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 4))
    y = (x[:, 0] > 0).astype(int)
    module = torch.nn.Linear(4, 2)
    model = quantize(TorchModel(module, inputs=4), weight_bits=3)
    rule = BPTT(Evaluator(model), optimizer={"name": "sgd", "learning_rate": 0.5})
    seen = rounded_weights(model.nx, model.values, 3)["weight"].numpy()
    expected = x @ seen.T + model.parameters["bias"]
    np.testing.assert_allclose(rule.model.predict(x), expected, rtol=1e-4, atol=1e-5)
    losses = [rule.step(x, y)["loss"] for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(IncompatibleError, match="no membrane potentials"):
        quantize(model, membrane_bits=4)


def test_what_makes_no_sense_is_refused() -> None:
    network = NETWORKS["alif"]("numpy")
    with pytest.raises(ArgumentError, match="weight_bits is 0"):
        quantize(network, weight_bits=1)
    with pytest.raises(ArgumentError, match="has no such state"):
        QuantizedCell("lif", state="w")
    with pytest.raises(ArgumentError, match="at least 2 bits"):
        QuantizedCell("lif", bits=1)
    with pytest.raises(ArgumentError, match="rounded already"):
        QuantizedCell(QuantizedCell("alif", state="a"))
    with pytest.raises(ArgumentError, match=r"bits must be .* at most 32"):
        QuantizedCell("lif", bits=33)
    for wrong, match in (
        ({"weight_bits": 1100}, "weight_bits must be .* at most 32"),
        ({"membrane_bits": 33}, "membrane_bits must be .* at most 32"),
        ({"membrane_bound": -1}, "membrane_bound must be .* above 0"),
        ({"weight_bits": 4, "training": "no"}, "training must be true or false"),
    ):
        with pytest.raises(ArgumentError, match=match):
            quantize(network, **wrong)
    assert quantize(network, weight_bits=32).weight_bits == 32
    with pytest.raises(IncompatibleError, match="not rounded"):
        EProp(Evaluator(quantize(network, weight_bits=4)), online=True)
