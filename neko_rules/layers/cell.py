"""Cell: a neuron model as two pure elementwise functions, from which everything a learning rule needs is derived.

A neuron with state s emits z. In each time step

    s_t = update(s_{t-1}, z_{t-1}, I_t)        z_t = emit(s_t)

both elementwise over batch and neuron. A subclass writes the two functions once, in backend operations; the engine
runs them as they are, and ``neko_rules.layers.jacobians`` derives ∂s_t/∂s_{t-1}, ∂s_t/∂z_{t-1}, ∂s_t/∂I_t and
∂z_t/∂s_t from them by calling them with symbols.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.alike import Alike
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError, nearest
from neko_rules.registry import Registry
from neko_rules.surrogates import Surrogate, resolve_surrogate

PerNeuron = float | tuple[float, ...]
"""A number for the whole population, or one per neuron."""

Constants = dict[str, Array]
"""The numbers of a cell by name, each a scalar or one value per neuron."""


@dataclass(frozen=True)
class Trainable:
    """A constant of a cell that may be learned.

    Args:
        constant: its name in the equations.
        lowest: the smallest value that it may take while it is learned.
        highest: the largest.
    """

    constant: str
    lowest: float
    highest: float = math.inf


@dataclass(frozen=True)
class Cell(Alike):
    """A neuron model; subclass it to add one.

    A subclass is a frozen dataclass that names its states, gives its constants, and writes ``update`` and ``emit``.
    Its two functions may use ``+ - * /``, comparisons inside ``nx.where``, and ``nx.exp``, ``nx.log``, ``nx.sqrt``,
    ``nx.tanh``, ``nx.abs``, ``nx.maximum``, ``nx.minimum``, ``nx.where``, ``nx.stop_gradient`` and ``nx.spike``.

    Example: a neuron whose membrane leaks to half in each step.

        >>> @dataclass(frozen=True)
        ... class HalvingCell(Cell):
        ...     states = ("v",)
        ...     def constants(self, dt):
        ...         return {"theta": 1.0}
        ...     def update(self, nx, p, s, z, current):
        ...         return {"v": 0.5 * s.v + current}
        ...     def emit(self, nx, p, s):
        ...         return nx.spike((s.v - p.theta) / p.theta)
        >>> from neko_rules.layers.jacobians import Jacobians
        >>> print(Jacobians.of(HalvingCell(), dt=1e-3))
        ∂v/∂v' = 0.500000000000000
        ∂v/∂I = 1
        ∂z/∂v = SpikeDerivative((-theta + v)/theta)/theta
    """

    states: ClassVar[tuple[str, ...]] = ()
    """Names of the state variables."""

    spiking: ClassVar[bool] = True
    """Whether z is 0 or 1 and nothing else: it counts for firing rates, and compiled loops add weights as they are."""

    trainable: ClassVar[Mapping[str, Trainable]] = {}
    """The arguments whose value may be learned."""

    surrogate: Surrogate | str | Mapping[str, Any] = field(default="triangular", kw_only=True)
    """What stands for dz/du of a spiking cell."""

    learnable: Sequence[str] = field(default=(), kw_only=True)
    """The arguments that are learned, one value per neuron, kept within their bounds by projection."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "surrogate", resolve_surrogate(self.surrogate))
        names = (self.learnable,) if isinstance(self.learnable, str) else self.learnable
        if not isinstance(names, Sequence):
            known = ", ".join(map(repr, self.trainable)) or "none"
            raise ArgumentError(
                "learnable must be a list of arguments",
                received=repr(names),
                works=f"{type(self).__name__} can learn: {known}",
            )
        for name in names:
            if not isinstance(name, str) or name not in self.trainable:
                raise ArgumentError(
                    f"{type(self).__name__} cannot learn this argument",
                    received=name,
                    works=nearest(str(name), self.trainable) if self.trainable else "leave learnable out",
                )
        object.__setattr__(self, "learnable", tuple(dict.fromkeys(names)))

    @property
    def prompt(self) -> bool:
        """Whether what every neuron receives acts on its output in the same time step.

        Rules that hand errors down within a time step bring none through a neuron that is not.
        """
        return True

    def _check(self, name: str, **bounds: float) -> None:
        """Check a constant that is a number or one per neuron, and keep it as a float or a tuple."""
        object.__setattr__(self, name, arguments.per_neuron(name, getattr(self, name), **bounds))

    def _check_decay(self, tau: str, given: str) -> None:
        """Check a time constant, and the decay that may stand in its place."""
        self._check(tau, at_least=0)
        if getattr(self, given) is None:
            return
        self._check(given, at_least=0, at_most=1)
        asked, default = getattr(self, tau), next(each.default for each in fields(self) if each.name == tau)
        # What a configuration writes out of the defaults asks for nothing.
        if set(asked if isinstance(asked, tuple) else (asked,)) != {default}:
            raise ArgumentError(
                f"{given} stands in the place of {tau}, which would have no effect",
                received=f"{tau}={asked!r} and {given}={getattr(self, given)!r}",
                works="give one of them",
            )

    def state_names(self) -> tuple[str, ...]:
        """The state variables of this very cell: options may add some."""
        return self.states

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        """The numbers in the equations for time step ``dt`` (seconds): scalars or one value per neuron."""
        raise NotImplementedError

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        """s_t from s_{t-1} (``s.name``), z_{t-1} and the input current I_t; ``p.name`` are the constants."""
        raise NotImplementedError

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        """z_t from s_t."""
        raise NotImplementedError


CELLS: Registry[Cell] = Registry("neuron", Cell)


@dataclass(frozen=True)
class CellOperations:
    """A backend with the two operations that only cells use: ``spike`` and a ``stop_gradient`` that may cost nothing.

    Args:
        nx: the backend.
        surrogate: ψ, which stands for dz/du.
        differentiable: whether automatic differentiation will run through the result. Then a spike is
            z = H(u) + sg(ψ(u))·(u - sg(u)), exactly 0 or 1 and with derivative exactly ψ(u); otherwise just H(u).
    """

    nx: Backend
    surrogate: Surrogate
    differentiable: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.nx, name)

    def maximum(self, left: Array | float, right: Array | float) -> Array:
        """The larger of two, either of which may be a number."""
        return self.nx.maximum(left, right) if self.nx.is_tensor(left) else self.nx.maximum(right, left)

    def minimum(self, left: Array | float, right: Array | float) -> Array:
        """The smaller of two, either of which may be a number."""
        return self.nx.minimum(left, right) if self.nx.is_tensor(left) else self.nx.minimum(right, left)

    def spike(self, u: Array) -> Array:
        """1 where u > 0 (strictly), else 0."""
        hard = self.nx.heaviside(u)
        if not self.differentiable:
            return hard
        slope = self.nx.stop_gradient(self.surrogate.derivative(self.nx, u))
        return hard + slope * (u - self.nx.stop_gradient(u))

    def rounded(self, array: Array, apart: Array | float) -> Array:
        """The nearest multiple of ``apart``, with derivative 1: a straight-through estimator."""
        hard = self.nx.floor(array / apart + 0.5) * apart
        return array + self.nx.stop_gradient(hard - array) if self.differentiable else hard

    def stop_gradient(self, array: Array) -> Array:
        """The same numbers, constant for differentiation."""
        return self.nx.stop_gradient(array) if self.differentiable else array


@dataclass(frozen=True)
class SlopeKeeping(CellOperations):
    """The same for one step of one population, with ψ(u) of every spike in the order in which they were asked for."""

    slopes: list[Array] = field(default_factory=list)

    def spike(self, u: Array) -> Array:
        """1 where u > 0 (strictly), else 0."""
        self.slopes.append(self.surrogate.derivative(self.nx, u))
        return super().spike(u)


def backend_constants(nx: Backend, cell: Cell, size: int, dt: float, dtype: str, owner: str) -> Constants:
    """A cell's constants as backend arrays, checked against the number of neurons.

    Raises:
        ArgumentError: a constant has one value per neuron, but not for this number of neurons.
    """
    converted = {}
    for name, value in cell.constants(dt).items():
        array = np.asarray(value, dtype=np.float64)
        if array.ndim and array.shape != (size,):
            raise ArgumentError(
                f"{_argument_behind(cell, name, value)} of {owner} needs one value, or one per neuron ({size})",
                received=f"{array.size} values",
            )
        converted[name] = nx.asarray(array, dtype)
    return converted


def _argument_behind(cell: Cell, constant: str, value: PerNeuron) -> str:
    """The argument with as many values as a constant (τ_membrane for α), which is what the user has to mend."""
    given = ((f.name, getattr(cell, f.name)) for f in fields(cell))
    return next((name for name, each in given if isinstance(each, tuple) and len(each) == np.size(value)), constant)


def namespace(values: Mapping[str, Any]) -> SimpleNamespace:
    """``p.alpha`` instead of ``p["alpha"]``, so that an update reads like its equation."""
    return SimpleNamespace(**values)


def decay(tau: PerNeuron, given: PerNeuron | None, dt: float) -> PerNeuron:
    """A decay per step: the one given directly, or exp(-dt/τ) for a time constant in seconds; τ = 0: no memory.

    Example:
        >>> round(decay(20e-3, None, 1e-3), 4), decay(20e-3, 0.5, 1e-3)
        (0.9512, 0.5)
    """
    if given is not None:
        return given
    if isinstance(tau, tuple):
        return tuple(math.exp(-dt / each) if each > 0 else 0.0 for each in tau)
    return math.exp(-dt / tau) if tau > 0 else 0.0
