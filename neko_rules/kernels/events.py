"""Events: which neurons were not zero, so that a product goes through those and skips the rest.

Whether walking the events is faster than a dense product depends on their density, on the sizes, and on the machine:
where the two cost the same is measured once in a process, on matrices of a usual size, and kept on disk.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from neko_rules.kernels.compiling import folder
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.threads import each, parts

_IN_CACHE = 1 << 18
"""Bytes of a gradient that stay in a second-level cache while events are added to it in the order of time."""

_SORTED = 256
"""Steps times examples whose events are sorted together."""


@dataclass(frozen=True)
class Events:
    """The entries of [time, batch, neuron] that are not zero.

    Args:
        values: the array itself.
        index: [time, batch, neuron]: the numbers of the neurons that are not zero, of which ``count`` are valid.
        count: [time, batch].
        ones: whether every entry is 0 or 1.
    """

    values: np.ndarray
    index: np.ndarray
    count: np.ndarray
    ones: bool

    @cached_property
    def density(self) -> float:
        """The share of entries that are not zero."""
        return float(self.count.sum(dtype=np.int64)) / max(1, self.values.size)

    @cached_property
    def sparse(self) -> bool:
        """Whether walking the events is faster than a dense product."""
        return self.density < crossover()

    def __getitem__(self, steps: slice) -> Events:
        """The events of some time steps."""
        return Events(self.values[steps], self.index[steps], self.count[steps], self.ones)

    def times(self, matrix: np.ndarray) -> np.ndarray:
        """values · matrix, [time, batch, post]."""
        from neko_rules.kernels import rows

        steps, batch, _ = self.values.shape
        out = BUFFERS.empty((steps, batch, matrix.shape[1]), str(matrix.dtype))
        ranges = parts(batch, int(out.size * max(1.0, self.density * self.values.shape[2])))

        def part(_: int, first: int, last: int) -> None:
            rows.gathered(first, last, matrix, self.index, self.count, self.values, self.ones, out)

        each(part, ranges)
        return out

    def gradient(self, delta: np.ndarray) -> np.ndarray:
        """Σ_t values_tᵀ delta_t, [pre, post]."""
        from neko_rules.kernels import rows

        pre, post, batch = self.values.shape[2], delta.shape[2], delta.shape[1]
        ranges = parts(batch, int(delta.size * max(1.0, self.density * pre)))
        sums = np.zeros((len(ranges), pre, post), delta.dtype)
        arguments: tuple[Any, ...] = (self.index, self.count, self.values, self.ones, delta)
        sort = sums[0].nbytes > _IN_CACHE

        def part(number: int, first: int, last: int) -> None:
            if sort:
                examples = last - first
                listed = np.empty((pre, max(1, _SORTED // examples) * examples), np.int32)
                rows.add_outer_by_row(first, last, *arguments, sums[number], listed, np.empty(pre, np.int32))
            else:
                rows.add_outer(first, last, *arguments, sums[number])

        each(part, ranges)
        return sums[0] if len(ranges) == 1 else sums.sum(axis=0)


def index_type(size: int) -> str:
    """The narrowest type that holds the number of a neuron."""
    return "uint16" if size <= 1 << 16 else "uint32"


def listed(values: np.ndarray) -> Events:
    """The events of an array [time, batch, neuron] in C order.

    Example:
        >>> events = listed(np.array([[[0.0, 1.0, 1.0]]]))
        >>> events.index[0, 0, : events.count[0, 0]].tolist(), events.ones
        ([1, 2], True)
    """
    from neko_rules.kernels import rows

    steps, batch, size = values.shape
    index = BUFFERS.empty(values.shape, index_type(size))
    count = np.empty((steps, batch), np.int32)
    odd = each(lambda _, first, last: rows.list_events(first, last, values, index, count), parts(batch, values.size))
    return Events(values, index, count, not any(odd))


@lru_cache(maxsize=1)
def crossover() -> float:
    """The density below which walking events beats a dense product on this machine."""
    path = folder() / f"crossover-{platform.node() or 'machine'}.json"
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["density"])
    except (OSError, ValueError, KeyError, TypeError):
        density = _measured_crossover()
        path.write_text(json.dumps({"density": density}), encoding="utf-8")
        return density


def _measured_crossover(size: int = 256, rows_of: int = 512, repeats: int = 7) -> float:
    """Where a dense product takes as long as one over events, whose time grows in proportion to their number."""
    from neko_rules.kernels import rows

    random = np.random.default_rng(0)
    matrix = random.standard_normal((size, size)).astype(np.float32)
    spikes = (random.random((rows_of, 1, size)) < 0.1).astype(np.float32)
    events, out = listed(spikes), np.empty((rows_of, 1, size), np.float32)

    def seconds(function: Any) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    walking = seconds(lambda: rows.gathered(0, 1, matrix, events.index, events.count, spikes, True, out))
    dense = seconds(lambda: np.matmul(spikes[:, 0], matrix, out=out[:, 0]))
    return min(1.0, events.density * dense / walking)
