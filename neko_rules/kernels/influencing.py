"""Influencing: the influence of a parameter on whole populations, taken through a time step.

    I = Σ back Z^source + x δ,    S'_k = Σ_j D_kj S_j + r_k Z + q_k I,    Z' = Σ_k h_k S'_k       [neuron, pre · post]

Z is zero for all neurons whose pseudo-derivative is, which are most of them: their rows are left out of the products.
Rows of many columns often begin at one place modulo the size of a cache's way, which then holds a few of them. What is
met more than once is copied beside each other before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from neko_rules.kernels.ahead import Wanted
from neko_rules.kernels.calling import array_type, call
from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.products import add_panel
from neko_rules.kernels.rows import PANEL

Array = Any
"""An array in C order."""

BLOCK = 1024
"""Bytes of a row that are gone through together: panels enough that what is done for each row is worth its while."""


@kernel
def add_products(count: int, wide: int, left: Array, gathered: Array, current: Array) -> None:
    """current[i] += Σ_{k < count} left[i, k] gathered[k], in whole panels of which ``wide`` columns are wanted.

    Called at its address, so that tiles are compiled with nothing beside them.
    """
    width = PANEL // current.itemsize
    for begin in range(0, wide, width):
        add_panel(left, 0, left.shape[0], 0, count, gathered[:, begin : begin + width], current, 0, begin)


@lru_cache(maxsize=2)
def calls(dtype: str) -> tuple[Wanted]:
    """What ``take_on`` calls for arrays of a type."""
    whole, matrix = array_type("int64", 0), array_type(dtype, 2)
    return (Wanted(add_products, (whole, whole, matrix, matrix, matrix)),)


@kernel
def take_on(
    first: int,
    last: int,
    addresses: Array,
    backs: tuple[Array, ...],
    sources: tuple[Array, ...],
    leaks: Array,
    returns: Array,
    gains: Array,
    slopes: Array,
    before: tuple[Array, ...],
    sent_before: Array,
    drive: Array,
    after: tuple[Array, ...],
    sent: Array,
    left: Array,
    live: Array,
    gathered: Array,
    current: Array,
) -> None:
    """S' and Z' of a range of blocks of columns.

    Args:
        first, last: the range.
        addresses: where ``calls`` lie in memory.
        backs: [neuron, source].
        sources: Z of what sends through them, [batch, source, pre · post].
        leaks, returns, gains, slopes: D [state, state, batch, neuron]; r, q and h [state, batch, neuron].
        before: S by state, [batch, neuron, pre · post].
        sent_before: Z, alike.
        drive: x of the parameter, if it ends on these very neurons, [batch, pre], pre = 0 if not.
        after, sent: to be written, as ``before`` and ``sent_before``.
        left: to work in, [neuron, all sources].
        live: the same, [2, all sources].
        gathered: the same, [all sources, a line more than the columns of a block].
        current: the same, [neuron, column of a block].
    """
    batch, size, whole = sent.shape
    block, states = BLOCK // sent.itemsize, len(before)
    begin, end = first * block, min(last * block, whole)
    for b in range(batch):
        count = 0
        for s in range(len(sources)):
            rows, back = sources[s][b], backs[s]
            for j in range(rows.shape[0]):
                row, n = rows[j], begin
                while n < end and row[n] == 0:
                    n += 1
                if n < end:
                    live[0, count], live[1, count] = s, j
                    for i in range(size):
                        left[i, count] = back[i, j]
                    count += 1
        for column in range(begin, end, block):
            wide = min(block, end - column)
            for k in range(count):
                row, into = sources[live[0, k]][b, live[1, k], column : column + wide], gathered[k]
                for n in range(wide):
                    into[n] = row[n]
                for n in range(wide, block):
                    into[n] = 0
            for i in range(size):
                into = current[i]
                for n in range(block):
                    into[n] = 0
            call(add_products, addresses, 0, (count, wide, left, gathered, current))
            if drive.shape[1]:
                for n in range(wide):
                    current[(column + n) % size, n] += drive[b, (column + n) // size]
            for i in range(size):
                received, emitted = current[i, :wide], sent[b, i, column : column + wide]
                for k in range(states):
                    into, held = after[k][b, i, column : column + wide], before[k][b, i, column : column + wide]
                    gain, leak, slope = gains[k, b, i], leaks[k, k, b, i], slopes[k, b, i]
                    alone = returns[k, b, i] == 0
                    for j in range(states):
                        alone = alone and (j == k or leaks[k, j, b, i] == 0)
                    if alone and k == 0:
                        for n in range(wide):
                            value = gain * received[n] + leak * held[n]
                            into[n] = value
                            emitted[n] = slope * value
                        continue
                    for n in range(wide):
                        into[n] = gain * received[n] + leak * held[n]
                    for j in range(states):
                        other = leaks[k, j, b, i]
                        if j != k and other != 0:
                            held = before[j][b, i, column : column + wide]
                            for n in range(wide):
                                into[n] += other * held[n]
                    other = returns[k, b, i]
                    if other != 0:
                        held = sent_before[b, i, column : column + wide]
                        for n in range(wide):
                            into[n] += other * held[n]
                    if k == 0:
                        for n in range(wide):
                            emitted[n] = slope * into[n]
                    else:
                        for n in range(wide):
                            emitted[n] += slope * into[n]
