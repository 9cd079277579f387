"""Initializers: moments, ranges, orthogonality, and one seed giving one matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from neko_rules.errors import ArgumentError
from neko_rules.initializers import INITIALIZERS, Constant, Orthogonal, ScaledNormal

VARIANCES = {
    "scaled_normal": lambda fan_in, fan_out: 1 / fan_in,
    "lecun_uniform": lambda fan_in, fan_out: 1 / fan_in,
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "orthogonal": lambda fan_in, fan_out: 1 / max(fan_in, fan_out),
    "zeros": lambda fan_in, fan_out: 0.0,
    "constant": lambda fan_in, fan_out: 0.0,
}


def sampled(name: str, fan_in: int, fan_out: int, seed: int = 0, **arguments: Any) -> np.ndarray:
    return INITIALIZERS.create(name, arguments).sample(np.random.default_rng(seed), fan_in, fan_out)


def test_every_initializer_has_a_variance_to_be_tested_against() -> None:
    assert set(VARIANCES) == set(INITIALIZERS)


@pytest.mark.parametrize("gain", [1.0, 0.4])
@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_mean_and_variance(name: str, gain: float) -> None:
    fan_in, fan_out = 300, 200
    weight = sampled(name, fan_in, fan_out, gain=gain)
    variance = gain**2 * VARIANCES[name](fan_in, fan_out)
    # Five standard errors of the mean, and of the variance of a normal distribution (the widest here).
    size = weight.size
    assert weight.mean() == pytest.approx(0.0, abs=5 * math.sqrt(variance / size) + 1e-15)
    assert weight.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / size))


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name.endswith("uniform")])
def test_uniform_ones_fill_their_range(name: str) -> None:
    limit = math.sqrt(3 * VARIANCES[name](300, 200))
    weight = sampled(name, 300, 200)
    assert 0.999 * limit < np.abs(weight).max() <= limit


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name.endswith("normal")])
def test_normal_ones_have_the_kurtosis_of_a_normal(name: str) -> None:
    weight = sampled(name, 300, 200)
    kurtosis = np.mean((weight / weight.std()) ** 4)
    assert kurtosis == pytest.approx(3.0, abs=5 * math.sqrt(24 / weight.size))


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    weight = Orthogonal(gain=2.0).sample(np.random.default_rng(3), *shape)
    gram = weight.T @ weight if shape[0] >= shape[1] else weight @ weight.T
    np.testing.assert_allclose(gram, 4.0 * np.eye(min(shape)), atol=1e-12)


def test_orthogonal_is_uniform_over_signs() -> None:
    # Plain QR gives a diagonal of one sign; uniform matrices are symmetric about zero.
    rng = np.random.default_rng(0)
    first = np.array([Orthogonal().sample(rng, 2, 2)[0, 0] for _ in range(400)])
    assert abs(first.mean()) < 5 * math.sqrt(0.5 / 400)


def test_values_in_closed_form() -> None:
    np.testing.assert_array_equal(Constant(0.5, gain=3.0).sample(np.random.default_rng(0), 2, 3), np.full((2, 3), 1.5))
    np.testing.assert_array_equal(sampled("zeros", 2, 3), np.zeros((2, 3)))
    expected = 0.7 * np.random.default_rng(5).standard_normal((4, 3)) / 2.0
    np.testing.assert_allclose(ScaledNormal(gain=0.7).sample(np.random.default_rng(5), 4, 3), expected, rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_sizes_zero_and_one(name: str, shape: tuple[int, int]) -> None:
    weight = sampled(name, *shape)
    assert weight.shape == shape
    assert weight.dtype == np.float64
    assert np.all(np.isfinite(weight))


@pytest.mark.parametrize("name", list(INITIALIZERS))
def test_seed_and_gain(name: str) -> None:
    weight = sampled(name, 6, 5)
    np.testing.assert_array_equal(weight, sampled(name, 6, 5))
    np.testing.assert_allclose(sampled(name, 6, 5, gain=2.5), 2.5 * weight, rtol=1e-15)
    if name not in ("zeros", "constant"):
        assert not np.allclose(weight, sampled(name, 6, 5, seed=1))


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="gain"):
        ScaledNormal(gain=math.inf)
    with pytest.raises(ArgumentError, match="value"):
        Constant("much")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="fan_in"):
        sampled("he_normal", -1, 2)
    with pytest.raises(ArgumentError, match="gain"):
        INITIALIZERS.resolve({"name": "he_normal", "gian": 2.0})
