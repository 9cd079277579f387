"""Durations and firing rates on a grid of time steps."""

from __future__ import annotations

import math
from typing import Any

from neko_rules.arguments import number
from neko_rules.errors import ArgumentError


def steps(name: str, duration: float, dt: float) -> int:
    """How many time steps of ``dt`` seconds a duration in seconds has; it must be a whole number of them.

    Example:
        >>> steps("delay", 1.05, 1e-3)
        1050
        >>> steps("delay", 0.0105, 1e-3)
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: delay must be a whole number of time steps of 0.001 s (received: 0.0105).
    """
    whole = round(duration / dt)
    # Decimal fractions are not exact in binary: 1.05 / 0.001 is not quite 1050.
    if not math.isclose(whole * dt, duration, rel_tol=1e-9):
        raise ArgumentError(f"{name} must be a whole number of time steps of {dt:g} s", received=duration)
    return whole


def spike_probability(name: str, rate: float, dt: float) -> float:
    """Probability of a spike in a step of ``dt`` seconds at a rate in Hz: ``rate · dt``, at most 1.

    Example:
        >>> spike_probability("cue_rate", 40.0, 1e-3)
        0.04
    """
    number(name, rate, at_least=0)
    if rate * dt > 1:
        raise ArgumentError(
            f"{name} must be at most one spike per time step, {1 / dt:g} Hz", received=rate, works="use a smaller dt"
        )
    return rate * dt


def delay_range(value: Any) -> float | tuple[float, float]:
    """A delay in seconds, or the shortest and the longest of delays that differ between trials.

    Example:
        >>> delay_range([0.5, 1.5])
        (0.5, 1.5)
    """
    if not isinstance(value, (list, tuple)):
        return number("delay", value, at_least=0)
    if len(value) != 2:
        raise ArgumentError("delay must be one number of seconds, or the shortest and the longest", received=value)
    shortest, longest = (number(f"delay[{i}]", v, at_least=0) for i, v in enumerate(value))
    if shortest > longest:
        raise ArgumentError("delay must be given as shortest, longest", received=value)
    return shortest, longest
