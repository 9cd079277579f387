"""Parallel: a kernel over every range of a batch, at the same time and without denormals."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from neko_rules import threads


def each(function: Callable[[int, int, int], Any], ranges: list[tuple[int, int]]) -> list[Any]:
    """``function(part, first, last)`` for every range that ``threads.parts`` made, in the order of the ranges."""
    return threads.each(partial(_flushed(), function), ranges)


@lru_cache(maxsize=1)
def _flushed() -> Callable[..., Any]:
    # With Numba, which those that import this need not have before they run a kernel.
    from neko_rules.kernels.denormals import flushed

    return flushed
