"""Measured: numbers that decide between two ways to the same result, found once per machine and kept on disk."""

from __future__ import annotations

import json
import platform
import timeit
from collections.abc import Callable
from typing import Any

from neko_rules.kernels.compiling import folder, release
from neko_rules.kernels.files import write_whole


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
    for function in functions:
        # May compile, and does not count.
        function()
    taken = [[min(timeit.repeat(each, repeat=3, number=1)) for each in functions] for _ in range(rounds)]
    return [min(times) for times in zip(*taken, strict=True)]
