"""Learning-rate schedules: pure functions from the number of updates made so far to a learning rate, on the host.

Where ``unit="epochs"``, ``steps`` and ``boundaries`` are epochs, or parts of them. How many updates these have is known
to whoever goes through the data: a Trainer makes a schedule in updates of it, by ``in_updates``, before it begins.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from numbers import Real
from typing import Any

from neko_rules.arguments import choice, integer, number
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.registry import Registry

__all__ = [
    "SCHEDULES",
    "Constant",
    "CosineDecay",
    "Counted",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LinearWarmup",
    "PiecewiseConstant",
    "Schedule",
    "StepDecay",
    "resolve_learning_rate",
]


UNITS = ("updates", "epochs")


class Schedule(ABC):
    """A learning rate that depends on the number of updates."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate of update ``step``, which is 0 for the first."""

    @property
    def in_epochs(self) -> bool:
        """Whether it counts epochs, and can be asked for a learning rate only once it is ``in_updates``."""
        return False

    def in_updates(self, per_epoch: int) -> Schedule:
        """The same schedule in updates, of which an epoch has so many."""
        return self


@dataclass(frozen=True, repr=False)
class Counted(Schedule):
    """A schedule in a unit of time: updates, or epochs.

    Args:
        unit: of ``steps`` or ``boundaries``: ``"updates"`` or ``"epochs"``.

    Example:
        >>> schedule = CosineDecay(initial=1.0, steps=2.5, unit="epochs")
        >>> schedule.in_updates(per_epoch=100)
        CosineDecay(initial=1.0, steps=250, final=0.0)
        >>> schedule(0)
        Traceback (most recent call last):
        neko_rules.errors.IncompatibleError: a schedule in epochs needs to know how many updates an epoch has, as in a
        training by Trainer (received: CosineDecay(initial=1.0, steps=2.5, final=0.0, unit='epochs')); elsewhere give it
        in updates, such as schedule.in_updates(100).
    """

    unit: str = field(default="updates", kw_only=True)

    def __post_init__(self) -> None:
        choice("unit", self.unit, UNITS)

    def __call__(self, step: int) -> float:
        """The learning rate of update ``step``, which is 0 for the first."""
        if self.in_epochs:
            raise IncompatibleError(
                "a schedule in epochs needs to know how many updates an epoch has, as in a training by Trainer",
                received=self,
                works="elsewhere give it in updates, such as schedule.in_updates(100)",
            )
        return self._at(step)

    @abstractmethod
    def _at(self, step: int) -> float:
        """The learning rate, of a schedule in updates."""

    @property
    def in_epochs(self) -> bool:
        """Whether its unit is the epoch."""
        return self.unit == "epochs"

    def in_updates(self, per_epoch: int) -> Schedule:
        """The same schedule in updates, of which an epoch has so many; rounded to whole ones, of at least 1."""
        integer("per_epoch", per_epoch, at_least=1)
        if self.unit == "updates":
            return self
        return replace(self, unit="updates", **self._times(per_epoch))

    def _times(self, factor: int) -> dict[str, Any]:
        """What is counted, in units that are smaller by a factor."""
        return {"steps": _whole(self.steps * factor)}  # type: ignore[attr-defined]

    def _count(self, name: str, value: Any) -> float:
        """A number of updates or epochs, checked."""
        if self.unit == "epochs":
            return number(name, value, above=0)
        return integer(name, value, at_least=1)

    def __repr__(self) -> str:
        names = [each.name for each in fields(self) if each.name != "unit"]
        shown = [f"{name}={getattr(self, name)!r}" for name in (*names, *(["unit"] if self.in_epochs else []))]
        return f"{type(self).__name__}({', '.join(shown)})"


def _whole(updates: float) -> int:
    return max(1, round(updates))


SCHEDULES: Registry[Schedule] = Registry("schedule", Schedule)  # type: ignore[type-abstract]


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """η_s = value.

    Example:
        >>> Constant(1e-3)(1000)
        0.001
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number("value", self.value, at_least=0))

    def __call__(self, step: int) -> float:
        """The value."""
        return self.value


@SCHEDULES.register("exponential_decay", "exponential")
@dataclass(frozen=True, repr=False)
class ExponentialDecay(Counted):
    """η_s = initial · rate^(s / steps): a factor ``rate`` for every ``steps`` updates, smoothly.

    Args:
        initial: learning rate of the first update.
        rate: factor, above 0 and at most 1.
        steps: number of updates that take it, at least 1.
        unit: ``"updates"``, or ``"epochs"`` for ``steps`` in epochs.

    Example:
        >>> ExponentialDecay(initial=1.0, rate=0.25, steps=10)(5)
        0.5
    """

    initial: float
    rate: float
    steps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "initial", number("initial", self.initial, at_least=0))
        object.__setattr__(self, "rate", number("rate", self.rate, above=0, at_most=1))
        object.__setattr__(self, "steps", self._count("steps", self.steps))

    def _at(self, step: int) -> float:
        """initial · rate^(s / steps)."""
        return self.initial * self.rate ** (step / self.steps)


@SCHEDULES.register("step_decay", "step")
@dataclass(frozen=True, repr=False)
class StepDecay(Counted):
    """η_s = initial · rate^⌊s / steps⌋: a factor ``rate`` at once after every ``steps`` updates.

    Args:
        initial: learning rate of the first update.
        rate: factor, above 0 and at most 1.
        steps: number of updates between two drops, at least 1.
        unit: ``"updates"``, or ``"epochs"`` for ``steps`` in epochs.

    Example:
        >>> [StepDecay(initial=1.0, rate=0.5, steps=2)(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    initial: float
    rate: float
    steps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "initial", number("initial", self.initial, at_least=0))
        object.__setattr__(self, "rate", number("rate", self.rate, above=0, at_most=1))
        object.__setattr__(self, "steps", self._count("steps", self.steps))

    def _at(self, step: int) -> float:
        """initial · rate^⌊s / steps⌋."""
        return self.initial * self.rate ** (step // self.steps)


@SCHEDULES.register("cosine_decay", "cosine")
@dataclass(frozen=True, repr=False)
class CosineDecay(Counted):
    """η_s = final + ½ (initial - final) (1 + cos(π min(s / steps, 1))): half a cosine wave, then ``final``.

    Args:
        initial: learning rate of the first update.
        steps: number of updates until ``final`` is reached, at least 1.
        final: learning rate from there on.
        unit: ``"updates"``, or ``"epochs"`` for ``steps`` in epochs.

    Reference:
        I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017; without restarts.

    Example:
        >>> [round(CosineDecay(initial=1.0, steps=4)(step), 3) for step in (0, 2, 4, 100)]
        [1.0, 0.5, 0.0, 0.0]
    """

    initial: float
    steps: float
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "initial", number("initial", self.initial, at_least=0))
        object.__setattr__(self, "steps", self._count("steps", self.steps))
        object.__setattr__(self, "final", number("final", self.final, at_least=0))

    def _at(self, step: int) -> float:
        """final + ½ (initial - final) (1 + cos(π min(s / steps, 1)))."""
        phase = math.pi * min(step / self.steps, 1.0)
        return self.final + 0.5 * (self.initial - self.final) * (1 + math.cos(phase))


@SCHEDULES.register("inverse_time_decay", "inverse_time")
@dataclass(frozen=True, repr=False)
class InverseTimeDecay(Counted):
    """η_s = initial / (1 + s / steps): halved after ``steps`` updates, and slow enough for Σ η_s to diverge.

    Args:
        initial: learning rate of the first update.
        steps: number of updates after which it is halved, at least 1.
        unit: ``"updates"``, or ``"epochs"`` for ``steps`` in epochs.

    Reference:
        H. Robbins, S. Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.

    Example:
        >>> InverseTimeDecay(initial=1.0, steps=10)(30)
        0.25
    """

    initial: float
    steps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "initial", number("initial", self.initial, at_least=0))
        object.__setattr__(self, "steps", self._count("steps", self.steps))

    def _at(self, step: int) -> float:
        """initial / (1 + s / steps)."""
        return self.initial / (1 + step / self.steps)


@SCHEDULES.register("piecewise_constant", "piecewise")
@dataclass(frozen=True, repr=False)
class PiecewiseConstant(Counted):
    """η_s = values[i] between boundaries[i - 1] and boundaries[i].

    Args:
        boundaries: updates at which the next value begins, rising, each at least 1.
        values: learning rates, one more than boundaries.
        unit: ``"updates"``, or ``"epochs"`` for ``boundaries`` in epochs.

    Example:
        >>> [PiecewiseConstant(boundaries=[2, 3], values=[1.0, 0.5, 0.1])(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.1, 0.1]
    """

    boundaries: Sequence[float]
    values: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = tuple(self._count(f"boundaries[{i}]", b) for i, b in enumerate(_listed("boundaries", self.boundaries)))
        values = tuple(number(f"values[{i}]", v, at_least=0) for i, v in enumerate(_listed("values", self.values)))
        if any(later <= earlier for earlier, later in pairwise(starts)):
            raise ArgumentError("boundaries must rise from each to the next", received=starts)
        if len(values) != len(starts) + 1:
            raise ArgumentError(
                "values must be one more than boundaries",
                received=f"{len(values)} values and {len(starts)} boundaries",
            )
        object.__setattr__(self, "boundaries", starts)
        object.__setattr__(self, "values", values)

    def _at(self, step: int) -> float:
        """values[number of boundaries at or before s]."""
        return self.values[bisect_right(self.boundaries, step)]

    def _times(self, factor: int) -> dict[str, Any]:
        return {"boundaries": [_whole(each * factor) for each in self.boundaries]}


@SCHEDULES.register("linear_warmup", "warmup")
@dataclass(frozen=True, repr=False)
class LinearWarmup(Counted):
    """η_s = then(0) · (s + 1) / steps for s < steps, then(s - steps) from there: a gentle start of another schedule.

    Args:
        steps: number of updates of the warm-up, at least 1.
        then: learning rate or schedule that follows, which has a unit of its own.
        unit: ``"updates"``, or ``"epochs"`` for ``steps`` in epochs.

    Reference:
        P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv:1706.02677, 2017.

    Example:
        >>> [LinearWarmup(steps=4, then=1.0)(step) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    steps: float
    then: float | Schedule | Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", self._count("steps", self.steps))
        following = resolve_learning_rate(self.then, name="then")
        object.__setattr__(self, "then", following if isinstance(following, Schedule) else Constant(following))

    def _at(self, step: int) -> float:
        """then(0) · (s + 1) / steps, later then(s - steps)."""
        assert isinstance(self.then, Schedule)
        if step < self.steps:
            return self.then(0) * (step + 1) / self.steps
        return self.then(step - int(self.steps))

    @property
    def in_epochs(self) -> bool:
        """Whether its unit is the epoch, or that of what follows."""
        return self.unit == "epochs" or (isinstance(self.then, Schedule) and self.then.in_epochs)

    def in_updates(self, per_epoch: int) -> Schedule:
        """Both in updates, whichever was in epochs."""
        assert isinstance(self.then, Schedule)
        steps = _whole(self.steps * per_epoch) if self.unit == "epochs" else self.steps
        return LinearWarmup(steps, self.then.in_updates(per_epoch))


def resolve_learning_rate(spec: Any, name: str = "learning_rate") -> float | Schedule:
    """A learning rate from a number of at least 0, a schedule, or a mapping that names one.

    Raises:
        ArgumentError: the number is negative or not finite, or the schedule or one of its arguments is unknown.

    Example:
        >>> resolve_learning_rate(1e-3)
        0.001
        >>> resolve_learning_rate({"name": "cosine_decay", "initial": 1e-3, "steps": 100})
        CosineDecay(initial=0.001, steps=100, final=0.0)
        >>> resolve_learning_rate("fast")
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: learning_rate must be a number, a schedule or a mapping that names one
        (received: fast); use for example 1e-3.
    """
    if isinstance(spec, (Schedule, Mapping)):
        return SCHEDULES.resolve(spec)
    if isinstance(spec, Real):
        return number(name, spec, at_least=0)
    raise ArgumentError(
        f"{name} must be a number, a schedule or a mapping that names one", received=spec, works="use for example 1e-3"
    )


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ArgumentError(f"{name} must be a list", received=value)
    return list(value)
