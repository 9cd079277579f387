"""Measured: numbers that decide between two ways to the same result, found once per machine and kept on disk."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from typing import Any

from neko_rules.kernels.compiling import folder, release, write_whole


def kept(name: str, measure: Callable[[], float]) -> float:
    """A number of this machine; measured if it is not known yet for these kernels.

    Args:
        name: of the number.
        measure: finds it.
    """
    path = folder() / f"{name}-{platform.node() or 'machine'}-{release()}.json"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["measured"])
    except (OSError, ValueError, KeyError, TypeError):
        number = measure()
        write_whole(path, json.dumps({"measured": number}))
        return number


def seconds(*functions: Callable[[], Any], rounds: int = 20) -> list[float]:
    """The shortest time that a call of each took, in turns: what slows a machine down for a moment meets all of them.

    Each is called three times in a row, since what it works on was in the cache before, as it is in a step.

    Example:
        >>> short, long = seconds(lambda: None, lambda: sum(range(1000)))
        >>> short < long
        True
    """
    shortest = [float("inf")] * len(functions)
    # The first round, which may compile, does not count.
    for count in range(rounds + 1):
        for i, function in enumerate(functions):
            for _ in range(3):
                start = time.perf_counter()
                function()
                took = time.perf_counter() - start
                shortest[i] = min(shortest[i], took) if count else shortest[i]
    return shortest
