"""Gradient clipping: bounds kept, directions kept, zeros kept, and the same numbers on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.clipping import CLIPPINGS, ClipGlobalNorm, ClipNorm, Clipping, ClipValue
from neko_rules.errors import ArgumentError

NX = get_backend("numpy")


def gradients(scale: float = 1.0, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: (scale * rng.normal(size=shape)).astype(dtype) for name, shape in (("w", (5, 4)), ("b", (4,)))}


def clipped(name: str, limit: float, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return CLIPPINGS.resolve({"name": name, "limit": limit}).apply(NX, given)


def norm(tree: dict[str, np.ndarray]) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for array in tree.values() for x in array.ravel()))


SIZES: dict[str, Callable[[dict[str, np.ndarray]], float]] = {
    "value": lambda tree: max(float(np.abs(array).max()) for array in tree.values()),
    "norm": lambda tree: max(float(np.linalg.norm(array)) for array in tree.values()),
    "global_norm": norm,
}


def test_every_clipping_has_a_size_to_be_tested_against() -> None:
    assert set(SIZES) == set(CLIPPINGS)


@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_a_long_gradient_is_cut_to_the_limit_and_a_short_one_left(name: str) -> None:
    size = SIZES[name](gradients())
    assert SIZES[name](clipped(name, 0.5 * size, gradients())) == pytest.approx(0.5 * size, rel=1e-12)
    for limit in (size * 1.0001, 1e6):
        for key, array in clipped(name, limit, gradients()).items():
            np.testing.assert_allclose(array, gradients()[key], rtol=1e-15)


@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_a_zero_gradient_stays_zero(name: str, evaluate: Callable[..., Any]) -> None:
    clipping = CLIPPINGS.resolve({"name": name, "limit": 1e-3})
    zeros = {key: 0 * array for key, array in gradients().items()}
    for array in evaluate(clipping.apply, zeros).values():
        np.testing.assert_array_equal(array, np.zeros_like(array))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_same_on_every_backend(name: str, dtype: str, evaluate: Callable[..., Any]) -> None:
    clipping: Clipping = CLIPPINGS.resolve({"name": name, "limit": 0.8})
    given = gradients(dtype=dtype)
    found, expected = evaluate(clipping.apply, given), clipping.apply(NX, gradients())
    assert set(found) == set(expected)
    for key, array in found.items():
        assert array.dtype == dtype
        np.testing.assert_allclose(array, expected[key], rtol=1e-10 if dtype == "float64" else 1e-5)
        np.testing.assert_array_equal(given[key], gradients(dtype=dtype)[key])


@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_sizes_zero_and_one(name: str, evaluate: Callable[..., Any]) -> None:
    clipping = CLIPPINGS.resolve({"name": name, "limit": 0.5})
    found = evaluate(clipping.apply, {"none": np.zeros((0, 2)), "one": np.array([-3.0])})
    assert found["none"].shape == (0, 2)
    assert found["one"][0] == pytest.approx(-0.5, rel=1e-12)
    assert clipping.apply(NX, {}) == {}


def test_closed_forms_differ_between_the_three() -> None:
    given = {"w": np.array([3.0, -4.0]), "b": np.array([0.5])}
    np.testing.assert_allclose(ClipValue(1.0).apply(NX, given)["w"], [1.0, -1.0])
    np.testing.assert_allclose(ClipNorm(1.0).apply(NX, given)["w"], [0.6, -0.8])
    np.testing.assert_allclose(ClipNorm(1.0).apply(NX, given)["b"], [0.5])
    length = math.sqrt(25.25)
    np.testing.assert_allclose(ClipGlobalNorm(1.0).apply(NX, given)["w"], [3.0 / length, -4.0 / length])
    np.testing.assert_allclose(ClipGlobalNorm(1.0).apply(NX, given)["b"], [0.5 / length])


@pytest.mark.parametrize("limit", [0, -1.0, math.inf, "1"])
@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_refusals(name: str, limit: Any) -> None:
    with pytest.raises(ArgumentError, match="limit"):
        CLIPPINGS.resolve({"name": name, "limit": limit})
