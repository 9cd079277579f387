"""Events: which neurons were not zero, so that a product goes through those and skips the rest.

Whether walking the events is faster than a dense product depends on their density, on the sizes, and on the machine:
where the two cost the same is measured once for matrices of a few sizes, and kept on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from neko_rules.kernels.ahead import compiled
from neko_rules.kernels.buffers import LINE, form_of, together
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.measured import kept, seconds
from neko_rules.kernels.parallel import each
from neko_rules.threads import parts

_SORTED = 240
"""Steps times examples whose events are sorted together: what the targets sent back in them stays in the cache."""


def sorted_together(examples: int) -> int:
    """Entries of the lists of :func:`rows.add_outer_sorted`, one list per neuron that sends: steps times examples.

    They fill an odd number of lines of the cache. A first cache holds 8 or 12 of the lines that begin at one place
    modulo 4096 bytes. With lists of 1024 bytes, and so 4 such places for all of them, it holds none until the next
    event: sorting took up to 2.7 times as long.

    Args:
        examples: that are gone through together.

    Example:
        >>> sorted_together(4), sorted_together(256)
        (240, 272)
    """
    entries = LINE // np.dtype(np.uint32).itemsize
    return (-(-max(_SORTED, examples) // entries) | 1) * entries


@dataclass(eq=False)
class Events:
    """The entries of [time, batch, neuron] that are not zero.

    Args:
        values: the array itself; None where every entry is 0 or 1 and it was not kept.
        index: [time, batch, neuron]: the numbers of the neurons that are not zero, of which ``count`` are valid.
        count: [time, batch].
        ones: whether every entry is 0 or 1.
    """

    values: np.ndarray | None
    index: np.ndarray
    count: np.ndarray
    ones: bool
    _density: float | None = None

    @property
    def density(self) -> float:
        """The share of entries that are not zero."""
        if self._density is None:
            self._density = float(np.add.reduce(self.count, axis=None, dtype=np.int64)) / max(1, self.index.size)
        return self._density

    @property
    def sparse(self) -> bool:
        """Whether walking the events is faster than a dense product."""
        return self.density < crossover(self.index.shape[2])

    def __getitem__(self, steps: slice) -> Events:
        """The events of some time steps."""
        # The density only decides between two ways to the same numbers: that of the whole will do.
        values = None if self.values is None else self.values[steps]
        return Events(values, self.index[steps], self.count[steps], self.ones, self._density)

    def factors(self, dtype: np.dtype | str) -> np.ndarray:
        """What a kernel takes for the values; they are not looked at where all are 1."""
        return np.empty((0, 0, 0), dtype) if self.values is None else self.values.astype(dtype, copy=False)

    def dense(self, dtype: str) -> np.ndarray:
        """The array itself, [time, batch, neuron]."""
        if self.values is not None:
            return self.values
        from neko_rules.kernels.listing import mark_events

        batch, array = self.index.shape[1], BUFFERS.empty(self.index.shape, dtype)
        each(lambda _, first, last: mark_events(first, last, self.index, self.count, array), parts(batch, array.size))
        return array

    def gradient(self, delta: np.ndarray) -> np.ndarray:
        """Σ_t values_tᵀ delta_t, [pre, post]."""
        from neko_rules.kernels import rows

        pre, post, batch = self.index.shape[2], delta.shape[2], delta.shape[1]
        values = self.factors(delta.dtype)
        ranges = parts(batch, int(delta.size * max(1.0, self.density * pre)))
        sums = np.zeros((len(ranges), pre, post), delta.dtype)
        sort = self.count.size >= 2 * _SORTED

        def part(number: int, first: int, last: int) -> None:
            if sort:
                listed = np.empty((pre, sorted_together(last - first)), np.uint32)
                rows.add_outer_sorted(
                    first,
                    last,
                    self.index,
                    self.count,
                    values,
                    self.ones,
                    delta,
                    sums[number],
                    listed,
                    np.empty(pre, np.uint32),
                )
            else:
                rows.add_outer(first, last, self.index, self.count, values, self.ones, delta, sums[number])

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
    from neko_rules.kernels.listing import list_events

    steps, batch, size = values.shape
    index = BUFFERS.empty(values.shape, index_type(size))
    count = np.empty((steps, batch), np.int32)
    odd = each(lambda _, first, last: list_events(first, last, values, index, count), parts(batch, values.size))
    return Events(values, index, count, not any(odd))


_FEWEST, _MOST = 16, 256
"""Neurons that send: the least and the most for which the crossover is measured. Fewer and more have that of these."""


Work = tuple[Callable[..., Any], tuple[Any, ...]]
"""A kernel, and what it is called with."""


@lru_cache(maxsize=256)
def crossover(senders: int) -> float:
    """The density below which walking events beats a dense product on this machine.

    A product with few rows loads and stores its sums more often for what it does: where it pays from a fifth on with
    256 neurons that send, it takes two fifths with 32.

    Args:
        senders: how many neurons there are, events or not.
    """
    near = min(max(round(math.log2(senders)), round(math.log2(_FEWEST))), round(math.log2(_MOST)))
    return kept(f"crossover-{1 << near}", partial(_measured_crossover, 1 << near))


def _measured_crossover(senders: int, steps: int = 64, examples: int = 8) -> float:
    """Where currents and a gradient by dense products take as long as by events.

    By the kernels of a chain, in the shapes that it has: a few examples, and steps of which some are sorted together.
    The time that events take grows with their number, from what none of them takes.
    """
    from neko_rules.kernels import gathering, products, rows
    from neko_rules.kernels.calling import wanted

    random = np.random.default_rng(0)
    flat, size = steps * examples, max(128, senders)
    few, many = 0.1, 0.3

    # On lines of the cache as in a chain: rows that lie across them take events up to twice as long.
    shapes = [(flat, size), (senders, size), (flat, size), (senders, size), (flat, senders), (2 * flat, senders)]
    numbers = BUFFERS.lent(together(tuple(shapes), np.dtype(np.float32)))
    numbers[-1][:] = random.standard_normal(numbers[-1].shape)
    delta, weights, sums, gradient, factors, sent_by_both, _ = numbers
    whole = np.dtype(np.uint32)
    sorted_rows, length = BUFFERS.lent(form_of((((senders, sorted_together(examples)), whole), ((senders,), whole))))
    signal = delta.reshape(steps, examples, size)
    panels, block = products.panels_of(weights, "float32"), products.panels_of(delta[: products.DEPTH], "float32")
    rest = products.rest_for(panels)

    def walking(density: float, values: np.ndarray) -> list[Work]:
        values[:] = random.random(values.shape) < density
        sent = values.reshape(steps, examples, senders)
        events, all_at_once = listed(sent), listed(values[None])
        currents = 0, 0, flat, all_at_once.index, all_at_once.count, weights, values[None], True, sums
        of = 0, examples, events.index, events.count, sent, True, signal, gradient, sorted_rows, length
        return [(gathering.from_events, currents), (rows.add_outer_sorted, of)]

    sent = factors.reshape(steps, examples, senders)
    dense: list[Work] = [
        (products.multiply, (0, flat, factors, panels, sums, rest, False)),
        (products.multiply_transposed, (sent, signal, block, gradient, rest)),
    ]
    ways = walking(few, sent_by_both[:flat]), walking(many, sent_by_both[flat:]), dense
    compiled([wanted(run, arguments) for way in ways[1:] for run, arguments in way])
    by_few, by_many, by_products = seconds(*(partial(_done, way) for way in ways))
    for_each = max(by_many - by_few, 1e-9) / (many - few)
    return float(np.clip(few + (by_products - by_few) / for_each, 0.01, 1.0))


def _done(work: list[Work]) -> None:
    for run, arguments in work:
        run(*arguments)
