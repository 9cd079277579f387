"""Gathering: rows of a matrix that a group of examples meets at one time step, added up for each of them.

What a population's loops call at their addresses: compiled into every loop once more, these would take most of the time
in which it is compiled, and a call for a group of examples takes none of that in which it runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from neko_rules.kernels.calling import address_of, array_type
from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.listing import list_row
from neko_rules.kernels.products import multiply
from neko_rules.kernels.rows import add_rows, add_scaled_rows, add_scaled_rows_to_each
from neko_rules.kernels.writer import TOGETHER

Array = Any
"""An array in C order."""

_DENSE = 0.3
"""Share of errors that are not zero above which a group's product with a matrix goes through all: four examples side by
side meet four fifths of the rows from two thirds on, and a product of whole tiles is the faster per row."""

assert TOGETHER == 4, "four examples side by side are written out"


@kernel
def back_through(
    count: int, factors: Array, matrix: Array, panels: Array, sums: Array, listed: Array, rest: Array
) -> None:
    """sums[e] = Σ_j factors[e, j] matrix[j] for e < count, without rows whose factors are all zero if those are many.

    Args:
        count: examples.
        factors: [example, row].
        matrix: [row, column].
        panels: the same in panels.
        sums: [example, column].
        listed: [row], to work in.
        rest: to work in.
    """
    size = matrix.shape[1]
    found = 0
    for e in range(count):
        row = factors[e]
        for n in range(row.shape[0]):
            found += row[n] != 0
    # One example alone has too few sums to keep a processor busy in the order in which a product goes.
    if found > _DENSE * factors.shape[1] * count and count >= TOGETHER:
        multiply(0, count, factors, panels, sums, rest, False)
        return
    here = 0
    while here < count:
        into, row = sums[here], factors[here]
        if here + TOGETHER <= count:
            row1, row2, row3 = factors[here + 1], factors[here + 2], factors[here + 3]
            into1, into2, into3 = sums[here + 1], sums[here + 2], sums[here + 3]
            # The first sum has room to work in until it is begun.
            for n in range(size):
                into[n] = abs(row[n]) + abs(row1[n]) + abs(row2[n]) + abs(row3[n])
            k = list_row(into, size, listed)
            for n in range(size):
                into[n] = into1[n] = into2[n] = into3[n] = 0
            several = (into, into1, into2, into3)
            add_scaled_rows_to_each(several, size, matrix, listed, k, (row, row1, row2, row3))
            here += TOGETHER
        else:
            k = list_row(row, size, listed)
            into[:] = 0
            add_scaled_rows(into, size, matrix, listed, k, row)
            here += 1


@kernel
def from_above(t: int, begin: int, count: int, errors: Array, back: Array, every: Array, sums: Array) -> None:
    """sums[e] = errors[t, begin + e] · back for e < count.

    Args:
        t, begin, count: time step, first example and number of examples.
        errors: [time, example, above].
        back: [above, column].
        every: the numbers from 0.
        sums: [example, column].
    """
    above, size = back.shape
    here = 0
    while here < count:
        into, row = sums[here], errors[t, begin + here]
        into[:] = 0
        if here + TOGETHER <= count:
            into1, into2, into3 = sums[here + 1], sums[here + 2], sums[here + 3]
            for n in range(size):
                into1[n] = into2[n] = into3[n] = 0
            b = begin + here
            rows = (row, errors[t, b + 1], errors[t, b + 2], errors[t, b + 3])
            add_scaled_rows_to_each((into, into1, into2, into3), size, back, every, above, rows)
            here += TOGETHER
        else:
            add_scaled_rows(into, size, back, every, above, row)
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
def forward_addresses(dtype: str, index: str, later: bool) -> np.ndarray:
    """Where what a loop forward in time calls begins: ``from_events`` and ``from_rows``.

    Args:
        dtype: of all numbers that are not whole.
        index: of numbers of neurons that send.
        later: whether what they send may arrive one step later; ``from_rows`` is not compiled for others.
    """
    whole, flag, listed = array_type("int64", 0), array_type("boolean", 0), array_type("int32", 2)
    matrix, cube = array_type(dtype, 2), array_type(dtype, 3)
    events = (whole, whole, whole, array_type(index, 3), listed, matrix, cube, flag, matrix)
    rows = (whole, whole, matrix, array_type(index, 1), matrix, flag, matrix)
    return np.array([address_of(from_events, events), address_of(from_rows, rows) if later else 0], np.int64)


@lru_cache(maxsize=16)
def back_addresses(dtype: str, index: str, fed_back: bool) -> np.ndarray:
    """Where what a loop back through time calls begins: ``back_through`` and ``from_above``.

    Args:
        dtype: of all numbers that are not whole.
        index: of numbers of neurons.
        fed_back: whether errors go through recurrent weights; ``back_through`` is not compiled for others.
    """
    whole, vector = array_type("int64", 0), array_type(index, 1)
    matrix, cube = array_type(dtype, 2), array_type(dtype, 3)
    through = (whole, matrix, matrix, cube, matrix, vector, matrix)
    above = (whole, whole, whole, cube, matrix, array_type("uint16", 1), matrix)
    return np.array([address_of(back_through, through) if fed_back else 0, address_of(from_above, above)], np.int64)
