"""Pulse decisions: how many pulses, up or down, a wanted weight change becomes.

u is the change that gradient and optimiser ask for, ε the weight change of one pulse. Where u is 0 nothing is pulsed,
but for what is remembered of earlier ones; nor is anything where ε is 0, as at the end of a schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.registry import Registry

AXES = ("row", "column")


@dataclass(frozen=True)
class Decision:
    """A map from wanted weight changes to whole numbers of pulses; subclass it to add one.

    Attributes:
        slots: names of the arrays remembered for every parameter, all zero at first.
        random: whether it draws a uniform random number for every weight.
        pulses: the largest number of pulses that it sends to a weight at once.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    random: ClassVar[bool] = False

    @property
    def pulses(self) -> int:
        """The largest number of pulses at once."""
        return 1

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """Pulses for every weight, positive ones raising it, and the next memory.

        Args:
            nx: the backend.
            u: wanted changes.
            unit: ε.
            memory: in the order of ``slots``.
            noise: uniform between 0 and 1, for decisions that are ``random``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define counts()")


def in_pulses(nx: Backend, size: Array, unit: float | Array) -> Array:
    """How many pulses of a unit a change amounts to; none of a unit of 0, which would change nothing."""
    if not nx.is_tensor(unit):
        return size / unit
    none = unit <= 0
    return nx.where(none, 0.0 * size, size / nx.where(none, 0.0 * unit + 1.0, unit))


DECISIONS: Registry[Decision] = Registry("pulse decision", Decision)


@DECISIONS.register("sign", "batch", "manhattan")
@dataclass(frozen=True)
class Sign(Decision):
    """s = sign(u), sign(0) = 0: one pulse for every weight that has a gradient.

    Reference: E. Zamanidoost, F. M. Bayat, D. Strukov, I. Kataeva, Manhattan rule training for memristive crossbar
    circuit pattern classifiers, IEEE WISP 2015.
    """

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """sign(u)."""
        return nx.sign(u), ()


@DECISIONS.register("stochastic", "stochastic_pulse")
@dataclass(frozen=True)
class StochasticPulse(Decision):
    """n = sign(u) floor(|u|/r + ξ), ξ uniform, at most ``limit``: on average u/r pulses below saturation.

    With a limit of 1 it is P(s = sign u) = min(1, |u|/r).

    Args:
        reference: r, the change that certainly gets a pulse; None for ε, which makes the weight change unbiased.
        limit: pulses at most.

    Reference: T. Gokmen, Y. Vlasov, Acceleration of deep neural network training with resistive cross-point devices,
    Frontiers in Neuroscience 10:333, 2016.
    """

    reference: float | None = None
    limit: int = 1
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.reference is not None:
            arguments.number("reference", self.reference, above=0)
        arguments.integer("limit", self.limit, at_least=1)

    @property
    def pulses(self) -> int:
        """The limit."""
        return self.limit

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """sign(u) floor(|u|/r + ξ), at most the limit."""
        share = in_pulses(nx, nx.abs(u), unit if self.reference is None else self.reference)
        return nx.sign(u) * nx.minimum(nx.floor(share + noise), float(self.limit)), ()


@DECISIONS.register("top_k")
@dataclass(frozen=True)
class TopK(Decision):
    """s = sign(u) for the k largest |u| of every row or column, else 0; equal ones count as one.

    Args:
        k: how many.
        axis: ``"row"`` (all axes but the last share one) or ``"column"``; a vector is one row.
    """

    k: int = 1
    axis: str = "row"

    def __post_init__(self) -> None:
        arguments.integer("k", self.k, at_least=1)
        arguments.choice("axis", self.axis, AXES)

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """sign(u) where |u| is among the k largest."""
        size = nx.abs(u)
        last = len(u.shape) - 1
        along: tuple[int, ...] = (last,) if self.axis == "row" or last == 0 else tuple(range(last))
        left, least = size, size
        for _ in range(self.k):
            least = nx.max(left, axis=along, keepdims=True)
            left = nx.where(left >= least, -1.0 + 0.0 * left, left)
        return nx.where(size >= least, nx.sign(u), 0.0 * u), ()


@DECISIONS.register("accumulate", "accumulate_and_fire", "mixed_precision")
@dataclass(frozen=True)
class AccumulateAndFire(Decision):
    """χ ← χ + u, n = trunc(χ/ε), χ ← χ - n ε: small changes add up in digital memory until they are worth a pulse.

    As ε → 0, without a limit, the weights follow the optimiser itself.

    Args:
        limit: pulses at most; the rest stays in χ.

    Reference: S. R. Nandakumar et al., Mixed-precision deep learning based on computational memory, Frontiers in
    Neuroscience 14:406, 2020.
    """

    limit: int = 1
    slots: ClassVar[tuple[str, ...]] = ("accumulated",)

    def __post_init__(self) -> None:
        arguments.integer("limit", self.limit, at_least=1)

    @property
    def pulses(self) -> int:
        """The limit."""
        return self.limit

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """trunc(χ/ε) and what is left of χ."""
        accumulated = memory[0] + u
        size = nx.minimum(nx.floor(in_pulses(nx, nx.abs(accumulated), unit)), float(self.limit))
        fired = nx.sign(accumulated) * size
        return fired, (accumulated - fired * unit,)


@DECISIONS.register("momentum", "signum")
@dataclass(frozen=True)
class SignOfMomentum(Decision):
    """m ← β m + (1 - β) u, s = sign(m): Signum.

    Args:
        momentum: β.

    Reference: J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, signSGD: compressed optimisation for
    non-convex problems, ICML 2018.
    """

    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("mean",)

    def __post_init__(self) -> None:
        arguments.number("momentum", self.momentum, at_least=0, below=1)

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """sign(m)."""
        mean = self.momentum * memory[0] + (1 - self.momentum) * u
        return nx.sign(mean), (mean,)


@DECISIONS.register("multi_pulse")
@dataclass(frozen=True)
class MultiPulse(Decision):
    """n = u/ε rounded to the nearest whole number, at most ``limit``: several pulses where a change is large.

    Args:
        limit: pulses at most.
    """

    limit: int = 10

    def __post_init__(self) -> None:
        arguments.integer("limit", self.limit, at_least=1)

    @property
    def pulses(self) -> int:
        """The limit."""
        return self.limit

    def counts(
        self, nx: Backend, u: Array, unit: float | Array, memory: tuple[Array, ...], noise: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """sign(u) floor(|u|/ε + 1/2), at most the limit."""
        return nx.sign(u) * nx.minimum(nx.floor(in_pulses(nx, nx.abs(u), unit) + 0.5), float(self.limit)), ()
