"""Failures: what a conformance check has found wrong, gathered so that one call tells all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neko_rules.backend import BUILT_IN, get_backend, is_installed
from neko_rules.errors import ArgumentError


def installed(backends: Sequence[str] | None) -> list[str]:
    """The backends asked for, or all built-in ones that are installed.

    Example:
        >>> installed(["numpy"])
        ['numpy']
    """
    return distinct([name for name in BUILT_IN if is_installed(name)] if backends is None else backends)


def distinct(backends: Sequence[str]) -> list[str]:
    """Names of backends that are there, none of them twice: one that is compared with itself agrees.

    Example:
        >>> distinct(["numpy", "numpy"])
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: each backend can be compared once, since with itself it agrees (received:
        numpy, numpy); ...
    """
    names = list(backends)
    found = [get_backend(name) for name in names]
    if any(each is other for place, each in enumerate(found) for other in found[:place]):
        others = [name for name in BUILT_IN if is_installed(name) and name not in names]
        raise ArgumentError(
            "each backend can be compared once, since with itself it agrees",
            received=", ".join(map(str, names)),
            works=f"name others, such as {others[0]}" if others else "leave the second out",
        )
    return names


class Failures:
    """Equations that broke.

    Args:
        kind: what is checked (``"neuron"``).
        part: the object.

    Example:
        >>> failures = Failures("number", 3)
        >>> failures.add("x = 4", "3")
        >>> failures.report()
        Traceback (most recent call last):
        AssertionError: number int fails 1 check:
        - x = 4: 3
    """

    def __init__(self, kind: str, part: Any) -> None:
        self.kind, self.name = kind, part if isinstance(part, str) else type(part).__name__
        self.where = ""
        self.found: list[str] = []

    def add(self, equation: str, what: str) -> None:
        """An equation that broke, and how."""
        place = f", {self.where}" if self.where else ""
        self.found.append(f"- {equation}{place}: {what}")

    def every(self, equation: str, holds: np.ndarray, values: np.ndarray, at: np.ndarray) -> None:
        """A condition that must hold everywhere."""
        if not np.all(holds):
            first = int(np.argmin(holds))
            self.add(equation, f"{values[first]:g} at u = {at[first]:g}")

    def equal(
        self,
        equation: str,
        given: np.ndarray,
        expected: np.ndarray,
        at: np.ndarray | None = None,
        *,
        rtol: float,
        atol: float = 0.0,
    ) -> None:
        """Two sides that must be equal to rtol of the largest entry, or to atol."""
        if np.shape(given) != np.shape(expected):
            self.add(equation, f"shapes {np.shape(given)} and {np.shape(expected)}")
            return
        if not np.size(given):
            return
        apart = np.abs(np.asarray(given, np.float64) - expected)
        apart = np.where(np.isfinite(apart), apart, np.inf)
        scale = np.abs(np.where(np.isfinite(expected), expected, 0.0)).max()
        if apart.max() > atol + rtol * scale:
            place = tuple(int(i) for i in np.unravel_index(apart.argmax(), apart.shape))
            where = f"entry {list(place)}" if at is None else f"u = {at[place]:g}"
            self.add(equation, f"{np.asarray(given)[place]:.10g} and {np.asarray(expected)[place]:.10g} at {where}")

    def report(self) -> None:
        """Raise if anything broke."""
        if self.found:
            checks = "1 check" if len(self.found) == 1 else f"{len(self.found)} checks"
            raise AssertionError("\n".join([f"{self.kind} {self.name} fails {checks}:", *self.found]))
