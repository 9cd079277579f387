"""Delayed neurons: any neuron whose input takes its time to arrive, by a delay that may be learned.

The currents of the last K time steps are kept, and the neuron is driven by what lies d steps back among them,

    I^late_t = Σ_k φ_k I_{t-k},  k = 0 … K        φ_k = max(0, 1 - |d - k|/w)/w

which for w = 1 is I_{t-d} at a whole number of steps, and linear between two. What was sent and has not arrived is a
state like any other: the gradients and traces of every rule go through it as they go through a membrane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError
from neko_rules.layers.cell import CELLS, Cell, PerNeuron, Trainable
from neko_rules.surrogates import Surrogate

LONGEST = 1000
"""Time steps, of which each is a state of every neuron."""


@CELLS.register("delayed")
@dataclass(frozen=True)
class DelayedCell(Cell):
    """A neuron that its input reaches d time steps late: I_{t-d} drives it, of a bias too.

    Args:
        cell: the neuron, by name, mapping or object.
        steps: d ≥ 0 in time steps, a number or one per neuron; between whole steps currents are interpolated.
        longest: the longest delay that may be learned, in time steps; left out, the longest of ``steps``.
        spread: w ≥ 1, a whole number: a current arrives over 2w - 1 steps, as a triangle around d whose sum is 1.
        learnable: arguments that are learned, one value per neuron: ``"steps"``; those of the neuron are its own.

    The delay is that of a dendrite: it is the same for all that a neuron receives, and adds to the step that recurrent
    connections take. Input of one connection alone is late where it leads through a population of delayed units.

    The derivative with respect to d is that of the interpolation, at whole steps the mean of those on both sides; what
    would lie beyond the ends of what is kept counts as what lies there. It knows of currents w steps away: for spikes
    that are few, w has to be some steps. w is no parameter, so that weights and delays which were learned with one go
    on with another.

    References: I. Hammouamri, I. Khalfaoui-Hassani, T. Masquelier, Learning delays in spiking neural networks using
    dilated convolutions with learnable spacings, ICLR 2024 (a spread that shrinks); B. Mészáros, J. C. Knight,
    T. Nowotny, Efficient event-based delay learning in spiking neural networks, Nature Communications 2025; J. Göltz
    et al., DelGrad: exact event-based gradients for training delays and weights on spiking neuromorphic hardware,
    Nature Communications 2025 (delays of dendrites among others).

    Example:
        >>> from neko_rules.layers.integrate_and_fire import LIFCell
        >>> from neko_rules.layers.jacobians import Jacobians
        >>> late = DelayedCell(LIFCell(tau_membrane=10e-3), steps=2)
        >>> late.state_names()
        ('v', 'late1', 'late2')
        >>> print(Jacobians.of(late, dt=1e-3))
        ∂v/∂v' = alpha
        ∂v/∂late2' = 1
        ∂late2/∂late1' = 1
        ∂late1/∂I = 1
        ∂z/∂v = SpikeDerivative((-theta + v)/theta)/theta

    Raises:
        ArgumentError: a delay is negative, or longer than ``longest``.
    """

    cell: Cell | str | Mapping[str, Any] = "lif"
    steps: PerNeuron = 1.0
    longest: int | None = None
    spread: int = 1
    # Those of the neuron.
    surrogate: Surrogate | str | Mapping[str, Any] = field(default="straight_through", init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", CELLS.resolve(self.cell))
        if isinstance(self.cell, DelayedCell):
            raise ArgumentError(
                "a neuron has one delay",
                received=f"one of {self.cell.steps} steps around another",
                works="give the neuron itself, and the sum of both",
            )
        self._check("steps", at_least=0, at_most=LONGEST)
        needed = math.ceil(np.max(self.steps))
        if (
            self.longest is not None
            and arguments.integer("longest", self.longest, at_least=1, at_most=LONGEST) < needed
        ):
            raise ArgumentError(
                "no delay is longer than longest",
                received=f"longest={self.longest}, steps={self.steps}",
                works=f"use longest={needed}",
            )
        arguments.integer("spread", self.spread, at_least=1, at_most=LONGEST)
        super().__post_init__()
        self._share_learnable()
        object.__setattr__(self, "surrogate", self.inner.surrogate)
        object.__setattr__(self, "spiking", self.inner.spiking)

    def _share_learnable(self) -> None:
        """Have the neuron learn what is its own, and this what either does."""
        inner = self.inner
        own = tuple(name for name in self.learnable if name != "steps" and name not in inner.learnable)
        if own:
            inner = replace(inner, learnable=(*inner.learnable, *own))
            object.__setattr__(self, "cell", inner)
        if self.learned and not self._bound:
            raise ArgumentError("a delay of 0 steps at most is not learned", received="steps=0", works="use longest=20")
        object.__setattr__(self, "learnable", (*inner.learnable, *(("steps",) if self.learned else ())))

    @property
    def inner(self) -> Cell:
        """The neuron as one."""
        assert isinstance(self.cell, Cell)
        return self.cell

    @property
    def _bound(self) -> int:
        """The longest delay there may be."""
        return math.ceil(np.max(self.steps)) if self.longest is None else self.longest

    @property
    def line(self) -> int:
        """K, of how many steps the currents are kept."""
        return self._bound + self.spread - 1

    @property
    def prompt(self) -> bool:
        """Not so where some neuron's input is late, or may come to be."""
        return self.inner.prompt and not self.learned and self.line == 0

    @property
    def learned(self) -> bool:
        """Whether the delay is."""
        return "steps" in self.learnable

    @property
    def trainable(self) -> Mapping[str, Trainable]:  # type: ignore[override]
        """The arguments whose value may be learned: the neuron's and the delay."""
        return _trainable(self.inner, self._bound)

    def state_names(self) -> tuple[str, ...]:
        """Those of the neuron, and the currents of the last steps."""
        return (*self.inner.state_names(), *(f"late{k}" for k in range(1, self.line + 1)))

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        """Those of the neuron, and d where it is learned, else all φ_k that are neither 0 nor 1."""
        found = self.inner.constants(dt)
        if self.learned:
            return {**found, "delay": self.steps}
        shares = _shares(self.steps, self.line, self.spread)
        return {**found, **{f"share{k}": share for k, share in shares.items() if share != 1}}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        """The neuron's own, by the current of d steps ago."""
        kept = [current, *(getattr(s, f"late{k}") for k in range(1, self.line + 1))]
        if self.learned:
            parts = [_share(nx, p.delay, k, self.line, self.spread) * sent for k, sent in enumerate(kept)]
        else:
            shares = _shares(self.steps, self.line, self.spread)
            parts = [kept[k] if share == 1 else getattr(p, f"share{k}") * kept[k] for k, share in shares.items()]
        after = self.inner.update(nx, p, s, z, sum(parts[1:], parts[0]))
        return {**after, **{f"late{k}": sent for k, sent in enumerate(kept[:-1], 1)}}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        """The neuron's own."""
        return self.inner.emit(nx, p, s)


@cache
def _trainable(cell: Cell, longest: int) -> Mapping[str, Trainable]:
    return {**cell.trainable, "steps": Trainable("delay", lowest=0, highest=longest)}


@cache
def _shares(steps: PerNeuron, line: int, spread: int) -> dict[int, PerNeuron]:
    """φ_k of every lag that some neuron has a share of."""
    found: dict[int, PerNeuron] = {}
    for k in range(line + 1):
        share = np.asarray(_share(np, np.asarray(steps), k, line, spread))
        if share.any():
            found[k] = tuple(share.tolist()) if share.ndim else float(share)
    return found


def _share(nx: Any, delay: Any, k: int, line: int, spread: int) -> Any:
    """φ_k, at the ends of the line with those that would lie beyond.

    The triangle is written by absolute values, whose derivative at a corner is the mean of those on its two sides: at
    whole steps, where delays begin, one side alone would know of one neighbour. Far off, rounding would leave a rest.
    """

    def triangle(lag: int) -> Any:
        x = (delay - lag) / spread
        near = 0.5 * (nx.abs(x - 1) + nx.abs(x + 1)) - nx.abs(x)
        return nx.where(nx.abs(x) < 1.5, near, 0 * x) / spread

    before, after = (range(-spread, 0) if k == 0 else ()), (range(line + 1, line + spread + 1) if k == line else ())
    beyond = [triangle(lag) for lag in (*before, *after)]
    return sum(beyond, triangle(k))
