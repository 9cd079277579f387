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


def seconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """The shortest time that a call took; the first, which may compile, does not count."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])
