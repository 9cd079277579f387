"""Conformance of a surrogate derivative: the equations that every rule relies on, each named if it breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Backend, get_backend
from neko_rules.layers.cell import CellOperations
from neko_rules.surrogates import Surrogate, resolve_surrogate
from neko_rules.testing.failures import Failures, installed

WIDE = np.concatenate([np.linspace(-3, 3, 61), [-1e3, -30.0, 30.0, 1e3]])
"""u where a surrogate is looked at: around the threshold and far from it, dimensionless."""


def check_surrogate(
    surrogate: str | dict[str, Any] | Surrogate, backends: Sequence[str] | None = None, *, symmetric: bool = True
) -> None:
    """Prove a surrogate derivative ψ against what rules and networks take for granted.

    Args:
        surrogate: a name, mapping or Surrogate.
        backends: names; all built-in ones that are installed by default.
        symmetric: whether ψ(u) = ψ(-u) is promised.

    Raises:
        AssertionError: it lists every equation that broke, where, and the two sides.

    Example:
        >>> check_surrogate("triangular", ["numpy"])
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Lopsided(Surrogate):
        ...     def derivative(self, nx, u):
        ...         return nx.maximum(1 - nx.abs(u - 0.5), 0.0)
        >>> check_surrogate(Lopsided(), ["numpy"])
        Traceback (most recent call last):
        AssertionError: surrogate Lopsided fails 2 checks:
        - ψ(u) ≤ ψ(0), on numpy: 1 > 0.5 at u = 0.5
        - ψ(u) = ψ(-u), on numpy: 0 and 1 at u = -0.5
    """
    part = resolve_surrogate(surrogate)
    failures = Failures("surrogate", part)
    truth = _values(part, get_backend("numpy"), WIDE)
    for name in installed(backends):
        nx = get_backend(name)
        values = _values(part, nx, WIDE)
        failures.where = f"on {name}"
        if values.shape != WIDE.shape or values.dtype != WIDE.dtype:
            failures.add("ψ(u) has the shape and type of u", f"{values.shape} {values.dtype}")
            continue
        at_threshold = _values(part, nx, np.zeros(1))[0]
        failures.every("ψ(u) is finite", np.isfinite(values), values, WIDE)
        failures.every("ψ(u) ≥ 0", values >= 0, values, WIDE)
        worst = int(np.argmax(values))
        if values[worst] > at_threshold * (1 + 1e-12):
            failures.add("ψ(u) ≤ ψ(0)", f"{values[worst]:g} > {at_threshold:g} at u = {WIDE[worst]:g}")
        if symmetric:
            mirrored = _values(part, nx, -WIDE)
            failures.equal("ψ(u) = ψ(-u)", values, mirrored, WIDE, rtol=1e-12)
        failures.equal(f"ψ on {name} = ψ on numpy", values, truth, WIDE, rtol=1e-10)
        if nx.differentiates:
            failures.equal("dz/du = ψ(u) by automatic differentiation", _slope(part, nx), values, WIDE, rtol=1e-12)
    failures.report()


def _values(part: Surrogate, nx: Backend, u: np.ndarray) -> np.ndarray:
    compiled: Callable[[Any], Any] = nx.jit(lambda array: part.derivative(nx, array))
    return nx.to_numpy(compiled(nx.asarray(u)))


def _slope(part: Surrogate, nx: Backend) -> np.ndarray:
    """The derivative of Σ z with respect to u through a spike."""
    operations = CellOperations(nx, part, differentiable=True)
    gradient = nx.jit(lambda u: nx.value_and_grad(lambda p: nx.sum(operations.spike(p["u"])))({"u": u})[1]["u"])
    return nx.to_numpy(gradient(nx.asarray(WIDE)))
