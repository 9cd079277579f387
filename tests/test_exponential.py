"""Exponentials of kernels: e^x, ln x and tanh x against fifty digits, and at the ends of what a number can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

pytest.importorskip("numba")

from neko_rules.kernels.exponential import (
    exp_float32,
    exp_float64,
    log_float32,
    log_float64,
    tanh_float32,
    tanh_float64,
)

TYPES = {"float32": np.float32, "float64": np.float64}
FUNCTIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("exp", "float32"): exp_float32,
    ("exp", "float64"): exp_float64,
    ("log", "float32"): log_float32,
    ("log", "float64"): log_float64,
    ("tanh", "float32"): tanh_float32,
    ("tanh", "float64"): tanh_float64,
}
ENDS = {("exp", "float32"): (-87.3, 88.7), ("exp", "float64"): (-708.3, 709.7)}
CASES = [pytest.param(*key, id="-".join(key)) for key in FUNCTIONS]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_errors_stay_below_two_units_in_the_last_place(name: str, dtype: str) -> None:
    function, exact = FUNCTIONS[name, dtype], getattr(mpmath, name)
    low, high = ENDS.get((name, dtype), (-20.0, 20.0))
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(low, high, 1500), rng.uniform(-1, 1, 1500), 10.0 ** rng.uniform(-30, -1, 200)])
    if name == "log":
        points = np.concatenate([np.abs(points), 10.0 ** rng.uniform(-37, 38, 500), 1 + 0.01 * points[1500:3000]])
    worst = 0.0
    with mpmath.workdps(50):
        for x in points.astype(dtype):
            wanted = exact(mpmath.mpf(float(x)))
            unit = float(np.spacing(np.abs(TYPES[dtype](float(wanted)))))
            worst = max(worst, abs(float((mpmath.mpf(float(function(x))) - wanted) / unit)))
    assert worst < 2.0


@pytest.mark.parametrize("dtype", TYPES)
def test_exp_at_the_ends(dtype: str) -> None:
    kind, function = TYPES[dtype], FUNCTIONS["exp", dtype]
    largest, smallest = np.finfo(kind).max, np.finfo(kind).tiny
    assert function(kind(0)) == 1
    assert function(kind(-np.inf)) == 0
    assert function(kind(np.inf)) == np.inf
    assert np.isnan(function(kind(np.nan)))
    # The last whole number below the logarithm of the largest number, and the first above it.
    edge = np.floor(np.log(largest))
    assert 0.1 * largest < function(kind(edge)) < largest
    assert function(kind(edge + 1)) == np.inf
    # Below the smallest normal number there is nothing.
    floor = np.ceil(np.log(smallest))
    assert smallest < function(kind(floor)) < 3 * smallest
    assert function(kind(floor - 1)) == 0


@pytest.mark.parametrize("dtype", TYPES)
def test_log_at_the_ends(dtype: str) -> None:
    kind, function = TYPES[dtype], FUNCTIONS["log", dtype]
    assert function(kind(1)) == 0
    assert function(kind(0)) == -np.inf
    assert function(kind(np.inf)) == np.inf
    assert np.isnan(function(kind(-1)))
    assert np.isnan(function(kind(np.nan)))
    for number in (np.finfo(kind).max, np.finfo(kind).tiny):
        assert abs(function(number) / np.log(number) - 1) < 2 * np.finfo(kind).eps


@pytest.mark.parametrize("dtype", TYPES)
def test_tanh_at_the_ends_and_its_symmetry(dtype: str) -> None:
    kind, function = TYPES[dtype], FUNCTIONS["tanh", dtype]
    assert function(kind(np.inf)) == 1
    assert function(kind(-np.inf)) == -1
    assert function(kind(0)) == 0
    assert np.isnan(function(kind(np.nan)))
    for x in np.linspace(0.01, 12.0, 200).astype(dtype):
        assert function(kind(-x)) == -function(x)
