"""Bits: which of 64 entries of a row are not zero, a bit of a word each.

A word is made by a few comparisons and walked from its lowest bit on, where a list has to be written and read again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.compiling import within

Array = Any
"""An array in C order."""

WORD = 64
"""Bits of a word."""

_FEW = 8
"""Entries that are compared at once at the end of a row."""


def not_zero(context: Any, builder: Any, row: Any, value: Any, begin: Any, entries: int) -> Any:
    """In LLVM, an integer of as many bits as entries, of which those are set whose entries are not zero.

    Args:
        context, builder: of what is compiled.
        row: the type of an array of floating-point numbers in C order.
        value: the array.
        begin: its first entry that is looked at.
        entries: how many.

    Raises:
        TypingError: the array is another.
    """
    if row.layout != "C" or not isinstance(row.dtype, types.Float):
        raise TypingError("a row of floating-point numbers in C order is expected")
    number = context.get_value_type(row.dtype)
    kind = ir.VectorType(number, entries)
    pointer = builder.gep(context.make_array(row)(context, builder, value).data, [begin])
    values = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=context.get_abi_sizeof(number))
    fired = builder.fcmp_unordered("!=", values, ir.Constant(kind, [0.0] * entries))
    return builder.bitcast(fired, ir.IntType(entries))


def _compared(entries: int) -> Any:
    """A function of a row and a first entry: the bits of that many entries from there on."""

    @intrinsic  # type: ignore[untyped-decorator]
    def compared(typing: Any, row: Any, begin: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.zext(not_zero(context, builder, row, arguments[0], arguments[1], entries), ir.IntType(WORD))

        return types.uint64(row, types.intp), generated

    return compared


_all, _few = _compared(WORD), _compared(_FEW)


@intrinsic  # type: ignore[untyped-decorator]
def bits_set(typing: Any, bits: Any) -> Any:
    """How many bits of a word are set."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), generated


@within
def bits_of(row: Array, first: int, last: int) -> Any:
    """The word whose bit k is set where ``row[first + k]`` is not zero; NaN is not.

    Args:
        row: [size].
        first, last: 64 entries at most.
    """
    if last - first == WORD:
        return _all(row, first)
    bits = np.uint64(0)
    whole = last - (last - first) % _FEW
    for begin in range(first, whole, _FEW):
        bits |= _few(row, begin) << np.uint64(begin - first)
    for n in range(whole, last):
        bits |= np.uint64(row[n] != 0) << np.uint64(n - first)
    return bits
