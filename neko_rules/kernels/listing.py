"""Listing: the numbers of a row's entries that are not zero, eight entries at a time and without a branch.

Which of eight entries are not zero makes one of 256 patterns; a table has the places of each pattern's entries in their
order, so that a vector of eight numbers is written at once and the next eight begin behind as many as are valid. Going
entry by entry takes three times as long, and asking whether any of eight is not zero longer still: at usual firing
rates the processor cannot guess the answer.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.bits import not_zero
from neko_rules.kernels.compiling import kernel, within

Array = Any
"""An array in C order."""

_TOGETHER = 8


def _patterns() -> list[int]:
    """For every pattern the places of its bits that are set, a byte each, the first one in the lowest byte."""
    places = [[place for place in range(_TOGETHER) if pattern >> place & 1] for pattern in range(1 << _TOGETHER)]
    return [sum(place << 8 * i for i, place in enumerate(found)) for found in places]


@intrinsic  # type: ignore[untyped-decorator]
def _put(typing: Any, row: Any, begin: Any, into: Any, count: Any) -> Any:
    """List the entries begin … begin + 7 of a row from ``into[count]`` on, and return how many are not zero.

    Eight numbers are written, of which the first ones are valid.
    """
    if into.layout != "C":
        raise TypingError("a list is expected in C order")
    signature = types.intp(row, types.intp, into, types.intp)

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index = context.get_value_type(into.dtype)
        kind = ir.VectorType(index, _TOGETHER)
        bits = not_zero(context, builder, row, arguments[0], arguments[1], _TOGETHER)
        table = ir.Constant(ir.ArrayType(ir.IntType(64), 1 << _TOGETHER), _patterns())
        patterns = cgutils.global_constant(builder, "patterns", table)
        entry = builder.gep(patterns, [ir.IntType(32)(0), builder.zext(bits, ir.IntType(64))], inbounds=True)
        places = builder.zext(builder.bitcast(builder.load(entry), ir.VectorType(ir.IntType(8), _TOGETHER)), kind)
        base = builder.trunc(arguments[1], index)
        spread = ir.Constant(kind, ir.Undefined)
        for lane in range(_TOGETHER):
            spread = builder.insert_element(spread, base, ir.IntType(32)(lane))
        place = builder.gep(context.make_array(into)(context, builder, arguments[2]).data, [arguments[3]])
        store = builder.store(builder.add(places, spread), builder.bitcast(place, kind.as_pointer()))
        store.align = context.get_abi_sizeof(index)
        return builder.zext(builder.ctpop(bits), context.get_value_type(types.intp))

    return signature, generated


@within
def list_row(row: Array, size: int, into: Array) -> int:
    """Write the numbers of a row's entries that are not zero to the front of ``into``, and return how many there are.

    Args:
        row: [size].
        size: of the row.
        into: [size], of unsigned integers; behind the valid numbers its contents are arbitrary.
    """
    count = 0
    whole = size - size % _TOGETHER
    for begin in range(0, whole, _TOGETHER):
        # What is written behind the valid ones stays within the row: no more entries are listed than were looked at.
        count += _put(row, begin, into, count)
    for n in range(whole, size):
        into[count] = n
        count += row[n] != 0
    return count


@within
def _odd(row: Array, size: int) -> int:
    """How many entries of a row are neither 0 nor 1."""
    found = 0
    for n in range(size):
        found += (row[n] != 0) & (row[n] != 1)
    return found


@kernel
def list_events(first: int, last: int, values: Array, index: Array, count: Array) -> int:
    """Which neurons are not zero, at every time step and example of a range: returns how many are, and not 1."""
    steps, _, size = values.shape
    odd = 0
    for t in range(steps):
        for b in range(first, last):
            row = values[t, b]
            odd += _odd(row, size)
            count[t, b] = list_row(row, size, index[t, b])
    return odd


@kernel
def survey(values: Array, examples: int) -> tuple[int, int]:
    """How many entries of [batch, time, feature] are not zero in the first examples, and neither that nor 1."""
    _, steps, size = values.shape
    some = 0
    odd = 0
    for b in range(examples):
        for t in range(steps):
            row = values[b, t]
            for n in range(size):
                some += row[n] != 0
            odd += _odd(row, size)
    return some, odd


@kernel
def mark_events(first: int, last: int, index: Array, count: Array, values: Array) -> None:
    """The array whose events are listed, of ones and zeros, for a range of examples."""
    steps, _, size = values.shape
    for t in range(steps):
        for b in range(first, last):
            row, found = values[t, b], index[t, b]
            for n in range(size):
                row[n] = 0
            for k in range(count[t, b]):
                row[found[k]] = 1


@kernel
def list_history(values: Array, index: Array, count: Array) -> None:
    """The entries of a history [time, example, entry] that are not zero: ``list_events`` where nothing is returned."""
    steps, examples, size = values.shape
    for t in range(steps):
        for b in range(examples):
            count[t, b] = list_row(values[t, b], size, index[t, b])


@kernel
def list_group(begin: int, at: int, inputs: Array, index: Array, count: Array) -> None:
    """The entries that are not zero of some examples of the inputs, over some time steps.

    Args:
        begin: number of the first example.
        at: number of the first time step.
        inputs: [batch, time, entry].
        index: [time, example, entry].
        count: [time, example].
    """
    size = inputs.shape[2]
    for b in range(index.shape[1]):
        for t in range(index.shape[0]):
            count[t, b] = list_row(inputs[begin + b, at + t], size, index[t, b])


@kernel
def list_group_of_ones(begin: int, inputs: Array, index: Array, count: Array, odd: Array) -> None:
    """The same, and in odd[0] how many entries are neither 0 nor 1."""
    size = inputs.shape[2]
    found = 0
    for b in range(index.shape[1]):
        for t in range(index.shape[0]):
            row = inputs[begin + b, t]
            found += _odd(row, size)
            count[t, b] = list_row(row, size, index[t, b])
    odd[0] = found
