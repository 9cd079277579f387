"""Gathering: rows of a matrix that a group of examples meets at one time step, added up for each of them.

What a population's loops call at their addresses: compiled into every loop once more, these would take most of the time
in which it is compiled, and a call for a group of examples takes none of that in which it runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from neko_rules.kernels.ahead import Wanted
from neko_rules.kernels.bits import WORD, bits_of, bits_set
from neko_rules.kernels.calling import array_type
from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.listing import list_row
from neko_rules.kernels.products import multiplied
from neko_rules.kernels.rows import (
    TILE,
    add_rows,
    add_scaled_rows,
    add_scaled_rows_by_bits,
    scaled_rows_of_each,
)
from neko_rules.kernels.writer import TOGETHER

Array = Any
"""An array in C order."""

_DENSE = 0.6
"""Share of errors that are not zero above which a group's product with a matrix goes through all: four sums are worked
on at a time for one row that is read, and a row that is skipped is not worth the walk that leaves it out."""

assert TOGETHER == 4, "four examples side by side are written out"


@kernel
def back_through(
    count: int, factors: Array, matrix: Array, panels: Array, sums: Array, rest: Array, leak: float
) -> None:
    """sums[e] = leak · sums[e] + Σ_j factors[e, j] matrix[j] for e < count, without rows whose factors are zero.

    Where those are few all rows are gone through. Either way they are added in their order, so that both find the same
    to the last bit. All examples go through as many rows as a word has bits before the next ones, which keeps what a
    tile meets of them in the first cache.

    Args:
        count: examples.
        factors: [example, row].
        matrix: [row, column].
        panels: the same in panels.
        sums: [example, column].
        rest: to work in.
        leak: what remains of the sums that are there; none of them is looked at if it is 0.
    """
    height, size = matrix.shape
    for e in range(count):
        into = sums[e]
        for n in range(size):
            into[n] = leak * into[n] if leak != 0 else 0
    for first in range(0, height, WORD):
        last = min(height, first + WORD)
        # A few examples tell what all are like. One alone has too few sums to keep a processor busy in the order in
        # which a product goes.
        found = 0
        for e in range(min(count, TOGETHER)):
            found += bits_set(bits_of(factors[e], first, last))
        if found > _DENSE * (last - first) * TOGETHER:
            multiplied(0, count, factors[:, first:last], panels[:, first:last], sums, rest, True)
            continue
        for begin in range(0, size, TILE):
            # Those of the next example are found while the rows of this one are added: how many rows there are is
            # hard to foretell, and after a wrong guess everything would wait for them.
            following = bits_of(factors[0], first, last)
            for e in range(count):
                bits, following = following, bits_of(factors[min(e + 1, count - 1)], first, last)
                add_scaled_rows_by_bits(sums[e], matrix, panels, first, bits, factors[e], begin)


@kernel
def from_above(t: int, begin: int, count: int, errors: Array, back: Array, sums: Array) -> None:
    """sums[e] = errors[t, begin + e] · back for e < count.

    Args:
        t, begin, count: time step, first example and number of examples.
        errors: [time, example, above].
        back: [above, column].
        sums: [example, column].
    """
    size, here = back.shape[1], 0
    while here + TOGETHER <= count:
        b = begin + here
        into = (sums[here], sums[here + 1], sums[here + 2], sums[here + 3])
        rows = (errors[t, b], errors[t, b + 1], errors[t, b + 2], errors[t, b + 3])
        scaled_rows_of_each(into, size, back, rows)
        here += TOGETHER
    while here < count:
        scaled_rows_of_each((sums[here],), size, back, (errors[t, begin + here],))
        here += 1


@kernel
def from_events(
    t: int,
    begin: int,
    end: int,
    index: Array,
    count: Array,
    matrix: Array,
    values: Array,
    ones: bool,
    sums: Array,
) -> None:
    """sums[b - begin] += Σ_j values[t, b, j] matrix[j] over the events of examples ``begin`` to ``end``.

    Args:
        t, begin, end: time step and examples.
        index: numbers of the events, [time, example, row].
        count: how many, [time, example].
        matrix: [row, column].
        values: [time, example, row]; not looked at if all are 1.
        ones: whether they are.
        sums: [example, column].
    """
    size = matrix.shape[1]
    for b in range(begin, end):
        if ones:
            add_rows(sums[b - begin], size, matrix, index[t, b], count[t, b])
        else:
            add_scaled_rows(sums[b - begin], size, matrix, index[t, b], count[t, b], values[t, b])


@kernel
def from_all_events(index: Array, count: Array, matrix: Array, values: Array, ones: bool, sums: Array) -> None:
    """sums[t, b] = Σ_j values[t, b, j] matrix[j] over the events of all time steps and examples; as ``from_events``."""
    steps, examples, size = sums.shape
    for t in range(steps):
        into = sums[t]
        for b in range(examples):
            for n in range(size):
                into[b, n] = 0
        from_events(t, 0, examples, index, count, matrix, values, ones, into)


@kernel
def from_rows(begin: int, end: int, rows: Array, listed: Array, matrix: Array, ones: bool, sums: Array) -> None:
    """The same of what was sent before the first time step: rows [example, row].

    Args:
        begin, end, matrix, ones, sums: as in ``from_events``.
        rows: what was sent.
        listed: [row], to work in.
    """
    size = matrix.shape[1]
    for b in range(begin, end):
        row = rows[b]
        k = list_row(row, row.shape[0], listed)
        if ones:
            add_rows(sums[b - begin], size, matrix, listed, k)
        else:
            add_scaled_rows(sums[b - begin], size, matrix, listed, k, row)


@lru_cache(maxsize=16)
def forward_calls(dtype: str, index: str, later: bool) -> tuple[Wanted | None, ...]:
    """What a loop forward in time calls: ``from_events`` and ``from_rows``.

    Args:
        dtype: of all numbers that are not whole.
        index: of numbers of neurons that send.
        later: whether what they send may arrive one step later; there is no ``from_rows`` for others.
    """
    whole, flag, listed = array_type("int64", 0), array_type("boolean", 0), array_type("int32", 2)
    matrix, cube = array_type(dtype, 2), array_type(dtype, 3)
    events = (whole, whole, whole, array_type(index, 3), listed, matrix, cube, flag, matrix)
    rows = (whole, whole, matrix, array_type(index, 1), matrix, flag, matrix)
    return Wanted(from_events, events), Wanted(from_rows, rows) if later else None


@lru_cache(maxsize=16)
def back_calls(dtype: str, fed_back: bool) -> tuple[Wanted | None, ...]:
    """What a loop back through time calls: ``back_through`` and ``from_above``.

    Args:
        dtype: of all numbers that are not whole.
        fed_back: whether errors go through recurrent weights; there is no ``back_through`` for others.
    """
    whole = array_type("int64", 0)
    matrix, cube = array_type(dtype, 2), array_type(dtype, 3)
    number = array_type(dtype, 0)
    through = (whole, matrix, matrix, cube, matrix, matrix, number)
    above = (whole, whole, whole, cube, matrix, matrix)
    return Wanted(back_through, through) if fed_back else None, Wanted(from_above, above)
