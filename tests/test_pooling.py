"""Pooling: the four ways of reading outputs, and gradients that are their exact adjoints."""

from __future__ import annotations

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.layers.pooling import POOLINGS, pool, unpool

NX = get_backend("numpy")


def outputs(steps: int = 6, batch: int = 3, size: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((steps, batch, size))


def test_what_each_mode_takes() -> None:
    y = outputs()
    np.testing.assert_array_equal(pool(NX, "sequence", y), y)
    np.testing.assert_array_equal(pool(NX, "last", y), y[5:6])
    np.testing.assert_allclose(pool(NX, "mean", y)[0], sum(y) / 6, rtol=1e-14)
    np.testing.assert_array_equal(pool(NX, "max", y)[0], np.sort(y, axis=0)[-1])


@pytest.mark.parametrize("mode", ["sequence", "last", "mean"])
@pytest.mark.parametrize("steps", [1, 5])
def test_linear_modes_are_undone_by_their_transpose(mode: str, steps: int) -> None:
    """⟨pool(y), g⟩ = ⟨y, unpool(g)⟩ for every y and g."""
    y = outputs(steps)
    g = outputs(steps if mode == "sequence" else 1, seed=1)
    left, right = np.sum(pool(NX, mode, y) * g), np.sum(y * unpool(NX, mode, y, g))
    assert left == pytest.approx(right, rel=1e-13)


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("steps", [1, 5])
def test_unpool_equals_central_differences(mode: str, steps: int) -> None:
    y, epsilon = outputs(steps), 1e-6
    g = outputs(steps if mode == "sequence" else 1, seed=1)
    numeric = np.zeros_like(y)
    for place in np.ndindex(y.shape):
        moved = [y.copy(), y.copy()]
        moved[0][place] += epsilon
        moved[1][place] -= epsilon
        ends = [np.sum(pool(NX, mode, each) * g) for each in moved]
        numeric[place] = (ends[0] - ends[1]) / (2 * epsilon)
    np.testing.assert_allclose(unpool(NX, mode, y, g), numeric, atol=1e-8)


def test_on_ties_the_first_maximum_takes_the_whole_gradient() -> None:
    y = np.array([1.0, 3.0, 3.0, 2.0, 3.0]).reshape(5, 1, 1)
    assert unpool(NX, "max", y, np.full((1, 1, 1), 7.0)).ravel().tolist() == [0, 7, 0, 0, 0]
    constant = np.zeros((4, 2, 3))
    gradient = unpool(NX, "max", constant, np.ones((1, 2, 3)))
    np.testing.assert_array_equal(gradient[0], np.ones((2, 3)))
    assert not gradient[1:].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_numbers_and_type_on_every_backend(backend: str, dtype: str) -> None:
    nx = get_backend(backend)
    y = outputs().astype(dtype)
    y[4, :, 1] = y[2, :, 1] = 9.0
    for mode in POOLINGS:
        g = outputs(6 if mode == "sequence" else 1, seed=1).astype(dtype)
        run = nx.jit(lambda y, g, mode=mode: (pool(nx, mode, y), unpool(nx, mode, y, g)))
        forward, backward = map(nx.to_numpy, run(nx.asarray(y), nx.asarray(g)))
        assert forward.dtype == backward.dtype == dtype
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(forward, pool(NX, mode, y), atol=tolerance)
        np.testing.assert_allclose(backward, unpool(NX, mode, y, g), atol=tolerance)
