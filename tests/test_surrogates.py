"""Surrogate derivatives: their curves, their integrals, and the same numbers on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError
from neko_rules.surrogates import (
    SURROGATES,
    ArcTan,
    Custom,
    FastSigmoid,
    Gaussian,
    Sigmoid,
    StraightThrough,
    Surrogate,
    Triangular,
    resolve_surrogate,
)

NX = get_backend("numpy")
U = np.linspace(-2.3, 2.3, 47)


def triangular_integral(s: Triangular, u: float) -> float:
    u = min(max(u, -1.0), 1.0)
    return s.gamma * (u - 0.5 * u * abs(u))


ANTIDERIVATIVES: dict[str, Callable[[Any, float], float]] = {
    "triangular": triangular_integral,
    "fast_sigmoid": lambda s, u: s.gamma * u / (1 + s.slope * abs(u)),
    "arctan": lambda s, u: s.gamma * 2 / (math.pi * s.alpha) * math.atan(math.pi * s.alpha * u / 2),
    "sigmoid": lambda s, u: 4 * s.gamma / s.slope / (1 + math.exp(-s.slope * u)),
    "gaussian": lambda s, u: s.gamma * s.width * math.sqrt(math.pi / 2) * math.erf(u / (s.width * math.sqrt(2))),
    "straight_through": lambda s, u: s.gamma * u,
}


def test_every_surrogate_has_an_antiderivative_to_be_tested_against() -> None:
    assert set(ANTIDERIVATIVES) == set(SURROGATES)


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("name", list(SURROGATES))
def test_is_the_derivative_of_its_antiderivative(name: str, scale: float) -> None:
    default = SURROGATES.resolve(name)
    surrogate = replace(default, **{field.name: scale * getattr(default, field.name) for field in fields(default)})
    h = 1e-5
    smooth = U[(np.abs(np.abs(U) - 1) > h) & (np.abs(U) > h)]  # away from kinks
    integral = ANTIDERIVATIVES[name]
    expected = [(integral(surrogate, u + h) - integral(surrogate, u - h)) / (2 * h) for u in smooth]
    np.testing.assert_allclose(surrogate.derivative(NX, smooth), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("surrogate", "area"),
    [
        (Triangular(0.3), 0.3),
        (FastSigmoid(2.0, slope=4.0), 1.0),
        (ArcTan(1.0, alpha=2.0), 1.0),
        (Sigmoid(1.5, slope=6.0), 1.0),
        (Gaussian(1.0, width=0.5), 0.5 * math.sqrt(2 * math.pi)),
    ],
)
def test_area_under_the_curve(surrogate: Surrogate, area: float) -> None:
    # u = sinh(x) spaces the points so that the heavy tails up to |u| = 1e6 are covered as well as the peak.
    limit = math.asinh(1e6)
    x = np.linspace(-limit, limit, 400_001)
    values = surrogate.derivative(NX, np.sinh(x)) * np.cosh(x)
    assert np.trapezoid(values, x) == pytest.approx(area, rel=2e-6)


@pytest.mark.parametrize("name", list(SURROGATES))
def test_symmetric_with_its_peak_gamma_at_threshold(name: str) -> None:
    surrogate: Any = SURROGATES.create(name, {"gamma": 0.6})
    values = surrogate.derivative(NX, U)
    np.testing.assert_allclose(values, values[::-1], rtol=1e-12, atol=1e-15)
    assert surrogate.derivative(NX, np.zeros(1))[0] == pytest.approx(0.6, rel=1e-15)
    assert np.all(values >= 0)
    assert np.all(values <= 0.6)


@pytest.mark.parametrize("name", list(SURROGATES))
def test_every_parameter_matters(name: str) -> None:
    default = SURROGATES.resolve(name)
    for field in fields(default):
        changed = replace(default, **{field.name: 1.3 * getattr(default, field.name)})
        assert not np.allclose(changed.derivative(NX, U), default.derivative(NX, U)), field.name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(SURROGATES))
def test_same_on_every_backend(name: str, dtype: str, evaluate: Callable[..., Any]) -> None:
    surrogate, u = SURROGATES.resolve(name), U.reshape(1, -1).astype(dtype)
    before = u.copy()
    result = evaluate(lambda nx, u: surrogate.derivative(nx, u), u)
    assert result.dtype == dtype
    assert result.shape == u.shape
    np.testing.assert_allclose(
        result, surrogate.derivative(NX, U)[None], rtol=0, atol=1e-12 if dtype == "float64" else 1e-6
    )
    np.testing.assert_array_equal(u, before)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (1,), ()])
@pytest.mark.parametrize("name", list(SURROGATES))
def test_any_shape(name: str, shape: tuple[int, ...], evaluate: Callable[..., Any]) -> None:
    surrogate = SURROGATES.resolve(name)
    assert evaluate(lambda nx, u: surrogate.derivative(nx, u), np.zeros(shape)).shape == shape


def test_finite_far_from_threshold() -> None:
    for name in SURROGATES:
        values = SURROGATES.resolve(name).derivative(NX, np.array([-1e6, 1e6], dtype=np.float32))
        assert np.all(np.isfinite(values)), name


@pytest.mark.parametrize("name", list(SURROGATES))
def test_a_spike_built_from_it_has_it_as_derivative(name: str, autodiff_backend: str) -> None:
    nx, surrogate = get_backend(autodiff_backend), SURROGATES.resolve(name)

    def spikes(p: dict[str, Any]) -> Any:
        u = p["u"]
        ramp = nx.stop_gradient(surrogate.derivative(nx, u)) * (u - nx.stop_gradient(u))
        return nx.sum(nx.astype(u > 0, "float64") + ramp)

    value, gradient = nx.value_and_grad(spikes)({"u": nx.asarray(U)})
    assert nx.to_numpy(value) == np.count_nonzero(U > 0)
    np.testing.assert_allclose(nx.to_numpy(gradient["u"]), surrogate.derivative(NX, U), rtol=1e-12, atol=1e-15)


def test_resolved_from_a_name_a_mapping_an_object_and_a_function() -> None:
    assert resolve_surrogate("triangular") == Triangular(gamma=0.3)
    assert resolve_surrogate("Fast-Sigmoid") == FastSigmoid()
    assert resolve_surrogate({"name": "gaussian", "width": 2}) == Gaussian(width=2.0)
    assert resolve_surrogate(StraightThrough(0.5)) == StraightThrough(0.5)
    own = resolve_surrogate(lambda nx, u: 1 / (1 + u * u))
    assert isinstance(own, Custom)
    np.testing.assert_allclose(own.derivative(NX, U), 1 / (1 + U**2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Triangular(gamma=-0.1), "gamma"),
        (lambda: Triangular(gamma=math.nan), "gamma"),
        (lambda: FastSigmoid(slope=0), "slope"),
        (lambda: ArcTan(alpha=-1), "alpha"),
        (lambda: Gaussian(width=0), "width"),
        (lambda: Custom(3), "function"),  # type: ignore[arg-type]
        (lambda: resolve_surrogate("triangle_wave"), "triangular"),
        (lambda: resolve_surrogate({"name": "sigmoid", "slop": 1}), "slope"),
        (lambda: resolve_surrogate(Triangular), "surrogate"),
        (lambda: resolve_surrogate(3), "surrogate"),  # type: ignore[arg-type]
        (lambda: Custom(lambda nx, u: 1.0).derivative(NX, U), "shape"),
        (lambda: Custom(lambda nx, u: u[:1]).derivative(NX, U), "shape"),
    ],
)
def test_refusals(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make()
