"""Regularizers: closed form, derivative by central differences, and equality of the backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.regularizers import REGULARIZERS, FiringRate, Regularizer

NX = get_backend("numpy")
DT = 1e-3


def layers(seed: int = 0) -> dict[str, np.ndarray]:
    """Spikes of two layers, [20, 3, neuron], about 200 Hz."""
    rng = np.random.default_rng(seed)
    return {name: (rng.uniform(size=(20, 3, n)) < 0.2).astype(float) for name, n in (("first", 4), ("second", 2))}


def value(regularizer: Regularizer) -> Callable[..., Any]:
    return lambda nx, spikes: regularizer.value(nx, spikes, DT)


def gradient(regularizer: Regularizer) -> Callable[..., Any]:
    return lambda nx, spikes: regularizer.gradient(nx, spikes, DT)


@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_gradient_is_that_of_central_differences(name: str) -> None:
    regularizer, spikes, h = REGULARIZERS.resolve(name), layers(), 1e-4
    for layer, analytic in regularizer.gradient(NX, spikes, DT).items():
        full = np.broadcast_to(analytic, spikes[layer].shape)
        assert np.abs(full).max() > 1e-4
        for index in [(0, 0, 0), (7, 2, 1), (19, 1, 0)]:
            ends = []
            for sign in (1, -1):
                moved = {key: array.copy() for key, array in spikes.items()}
                moved[layer][index] += sign * h
                ends.append(regularizer.value(NX, moved, DT))
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(full[index], rel=1e-6)


@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_same_on_every_backend(name: str, evaluate: Callable[..., Any]) -> None:
    regularizer, spikes = REGULARIZERS.resolve(name), layers()
    assert evaluate(value(regularizer), spikes) == pytest.approx(regularizer.value(NX, spikes, DT), rel=1e-10)
    expected = regularizer.gradient(NX, spikes, DT)
    found = evaluate(gradient(regularizer), spikes)
    assert set(found) == set(expected)
    for layer, array in found.items():
        np.testing.assert_allclose(array, expected[layer], rtol=1e-10)


@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_float32_and_small_sizes(name: str, evaluate: Callable[..., Any]) -> None:
    regularizer = REGULARIZERS.resolve(name)
    spikes = {"one": np.ones((1, 1, 1), np.float32), "none": np.ones((4, 1, 0), np.float32)}
    total, derivative = evaluate(value(regularizer), spikes), evaluate(gradient(regularizer), spikes)
    assert total.dtype == derivative["one"].dtype == np.float32
    assert np.isfinite(total)
    np.broadcast_to(derivative["none"], (4, 1, 0))


@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_a_network_without_spiking_neurons_is_refused(name: str) -> None:
    for method in (REGULARIZERS.resolve(name).value, REGULARIZERS.resolve(name).gradient):
        with pytest.raises(IncompatibleError, match="spiking"):
            method(NX, {}, DT)


def test_firing_rate_in_closed_form() -> None:
    spikes = layers()
    rates = np.concatenate([array.mean(axis=(0, 1)) / DT for array in spikes.values()])
    expected = 0.5 * 3.0 * np.sum(((rates - 50.0) * DT) ** 2)
    regularizer = FiringRate(target=50.0, strength=3.0)
    assert regularizer.value(NX, spikes, DT) == pytest.approx(expected, rel=1e-12)
    first = regularizer.gradient(NX, spikes, DT)["first"]
    np.testing.assert_allclose(first.ravel(), 3.0 * (rates[:4] - 50.0) * DT / 60, rtol=1e-12)


def test_firing_rate_pushes_towards_its_target() -> None:
    silent, busy = {"h": np.zeros((10, 2, 1))}, {"h": np.ones((10, 2, 1))}
    assert FiringRate(10.0).gradient(NX, silent, DT)["h"] < 0
    assert FiringRate(10.0).gradient(NX, busy, DT)["h"] > 0
    at_target = {"h": np.eye(10)[:, :1, None]}
    assert FiringRate(100.0).value(NX, at_target, DT) == pytest.approx(0.0, abs=1e-30)


def test_firing_rate_does_not_depend_on_batch_and_time() -> None:
    spikes = layers()
    longer = {name: np.tile(array, (3, 2, 1)) for name, array in spikes.items()}
    assert FiringRate().value(NX, longer, DT) == pytest.approx(FiringRate().value(NX, spikes, DT), rel=1e-12)


@pytest.mark.parametrize("changed", [{"target": 20.0}, {"strength": 2.0}])
def test_firing_rate_knobs_matter(changed: dict[str, float]) -> None:
    assert FiringRate(**changed).value(NX, layers(), DT) != pytest.approx(
        FiringRate().value(NX, layers(), DT), rel=1e-3
    )


@pytest.mark.parametrize("wrong", [{"target": -1.0}, {"strength": -1.0}, {"target": float("nan")}])
def test_refusals(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        FiringRate(**wrong)
