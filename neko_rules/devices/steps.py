"""The device models: how the step of a pulse depends on where in its range a conductance is.

u is the fraction of the range already covered in the direction of the pulse: 0 at the end where it starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.devices.device import DEVICES, Device, quantity
from neko_rules.errors import ArgumentError

DEFAULT_RANGE = 100e-6
"""G_max - G_min of a device where nothing else is said, in siemens."""


@DEVICES.register("constant")
@dataclass(frozen=True, kw_only=True, repr=False)
class Constant(Device):
    """f(u) = 1: every pulse moves the conductance by the same amount, up to hard bounds.

    Example:
        >>> Constant(step=40e-6).curve([1, 1, 1]).round(9)
        array([0.e+00, 4.e-05, 8.e-05, 1.e-04])
    """

    def up(self, nx: Backend, u: Array) -> Array:
        """1."""
        return 1.0

    down = up


@DEVICES.register("linear")
@dataclass(frozen=True, kw_only=True, repr=False)
class Linear(Device):
    """f(u) = 1 - γ u: steps shrink linearly along the range, down to 1 - γ of the first one.

    Example: seven pulses that lead from one end exactly to the other, with steps that shrink by exp(-0.2) each.

        >>> float(Linear.reaching(pulses=7, alpha=0.2).curve([1] * 7)[-1].round(18))
        0.0001
    """

    gamma_up: float = quantity(0.5, "", "γ⁺: f⁺(u) = 1 - γ⁺ u")
    gamma_down: float = quantity(0.5, "", "γ⁻: f⁻(u) = 1 - γ⁻ u")

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.number("gamma_up", self.gamma_up, at_most=1)
        arguments.number("gamma_down", self.gamma_down, at_most=1)

    def up(self, nx: Backend, u: Array) -> Array:
        """1 - γ⁺ u."""
        return 1 - self.gamma_up * u

    def down(self, nx: Backend, u: Array) -> Array:
        """1 - γ⁻ u."""
        return 1 - self.gamma_down * u

    @classmethod
    def reaching(cls, pulses: int, alpha: float, **others: Any) -> Self:
        """A device that so many pulses lead exactly from one end of its range to the other.

        G(p) = G_min + B (1 - e^{-α p}) with B = (G_max - G_min) / (1 - e^{-α p_max}), in both directions. One pulse
        then covers the fraction 1 - e^{-α} of what is left to G_min + B; with α in its place, as the derivative
        would have it, p_max pulses would not land on the end.
        """
        arguments.integer("pulses", pulses, at_least=1)
        arguments.number("alpha", alpha, above=0)
        total = -math.expm1(-alpha * pulses)
        span = others.get("g_max", DEFAULT_RANGE) - others.get("g_min", 0.0)
        return cls(step=span * -math.expm1(-alpha) / total, gamma_up=total, gamma_down=total, **others)


@DEVICES.register("soft_bounds")
@dataclass(frozen=True, kw_only=True, repr=False)
class SoftBounds(Device):
    """f(u) = 1 - u: steps shrink to nothing towards the end of the range, which is never reached.

    Reference: S. Fusi, L. F. Abbott, Limits on the memory storage capacity of bounded synapses, Nature Neuroscience
    10:485, 2007.

    Example:
        >>> SoftBounds(step=50e-6).curve([1, 1, 1]).round(9)
        array([0.00e+00, 5.00e-05, 7.50e-05, 8.75e-05])
    """

    def up(self, nx: Backend, u: Array) -> Array:
        """1 - u."""
        return 1 - u

    down = up


@DEVICES.register("power")
@dataclass(frozen=True, kw_only=True, repr=False)
class Power(Device):
    """f(u) = (1 - u)^γ: soft bounds with an exponent.

    Reference: J. Frascaroli, S. Brivio, E. Covi, S. Spiga, Evidence of soft bound behaviour in analogue memristive
    devices for neuromorphic computing, Scientific Reports 8:7178, 2018.

    Example:
        >>> Power(step=50e-6, gamma_up=2).curve([1, 1]).round(9)
        array([0.00e+00, 5.00e-05, 6.25e-05])
    """

    gamma_up: float = quantity(1.0, "", "γ⁺: f⁺(u) = (1 - u)^γ⁺")
    gamma_down: float = quantity(1.0, "", "γ⁻: f⁻(u) = (1 - u)^γ⁻")

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.number("gamma_up", self.gamma_up, at_least=0)
        arguments.number("gamma_down", self.gamma_down, at_least=0)

    def up(self, nx: Backend, u: Array) -> Array:
        """(1 - u)^γ⁺."""
        return nx.maximum(1 - u, 0.0) ** self.gamma_up

    def down(self, nx: Backend, u: Array) -> Array:
        """(1 - u)^γ⁻."""
        return nx.maximum(1 - u, 0.0) ** self.gamma_down


@DEVICES.register("exponential")
@dataclass(frozen=True, kw_only=True, repr=False)
class Exponential(Device):
    """f(u) = max(0, 1 - A e^{k u}): steps that shrink exponentially (A > 0 < k, or A < 0 > k).

    Example:
        >>> Exponential(step=10e-6, a_up=-1, k_up=-5).curve([1, 1]).round(8)
        array([0.000e+00, 2.000e-05, 3.368e-05])
    """

    a_up: float = quantity(0.1, "", "A⁺: f⁺(u) = max(0, 1 - A⁺ e^{k⁺ u})")
    a_down: float = quantity(0.1, "", "A⁻: f⁻(u) = max(0, 1 - A⁻ e^{k⁻ u})")
    k_up: float = quantity(2.0, "", "k⁺")
    k_down: float = quantity(2.0, "", "k⁻")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a_up", "a_down", "k_up", "k_down"):
            arguments.number(name, getattr(self, name))

    def up(self, nx: Backend, u: Array) -> Array:
        """max(0, 1 - A⁺ e^{k⁺ u})."""
        return nx.maximum(1 - self.a_up * nx.exp(self.k_up * u), 0.0)

    def down(self, nx: Backend, u: Array) -> Array:
        """max(0, 1 - A⁻ e^{k⁻ u})."""
        return nx.maximum(1 - self.a_down * nx.exp(self.k_down * u), 0.0)


@DEVICES.register("tabulated", "table")
@dataclass(frozen=True, kw_only=True, repr=False)
class Tabulated(Device):
    """f from a table: linear between values at evenly spaced places in the range.

    Example: steps up of 1, 0.5 and 0.2 times ΔG at the low end, in the middle and at the high end.

        >>> Tabulated(step=25e-6, table_up=(1, 0.5, 0.2)).curve([1, 1]).round(9)
        array([0.000e+00, 2.500e-05, 4.375e-05])
    """

    table_up: tuple[float, ...] = quantity((1.0, 0.5), "", "f⁺ at evenly spaced u, from where a pulse up starts")
    table_down: tuple[float, ...] = quantity((1.0, 0.5), "", "f⁻ at evenly spaced u, from where a pulse down starts")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("table_up", "table_down"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < 2:
                raise ArgumentError(f"{name} must hold at least two numbers", received=values)
            checked = tuple(arguments.number(f"{name}[{i}]", value, at_least=0) for i, value in enumerate(values))
            object.__setattr__(self, name, checked)

    def up(self, nx: Backend, u: Array) -> Array:
        """The table for pulses up, at u."""
        return _interpolated(nx, self.table_up, u)

    def down(self, nx: Backend, u: Array) -> Array:
        """The table for pulses down, at u."""
        return _interpolated(nx, self.table_down, u)


def _interpolated(nx: Backend, values: tuple[float, ...], u: Array) -> Array:
    """Σ_i v_i max(0, 1 - |u (n - 1) - i|): hat functions, which need no index."""
    place = u * (len(values) - 1)
    total: Array = 0.0 * u
    for i, value in enumerate(values):
        if value:
            total = total + value * nx.maximum(1 - nx.abs(place - i), 0.0)
    return total


def shape_fields(model: type[Device]) -> tuple[str, ...]:
    """The fields that a model has beyond those of every device.

    Example:
        >>> shape_fields(Linear)
        ('gamma_up', 'gamma_down')
    """
    common = {each.name for each in fields(Device)}
    return tuple(each.name for each in fields(model) if each.name not in common)
