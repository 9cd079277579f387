"""Products: the dense product of two matrices, in vector registers.

    into[m, n] = Σ_k left[m, k] right[k, n]

A tile of ``into`` stays in registers over hundreds of k. ``right`` is copied before into panels as wide as a tile, that
are read from end to end, and go round in the second cache for a block of rows of ``left``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.compiling import kernel, within
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.parallel import each
from neko_rules.kernels.pipeline import REGISTER, WIDE_REGISTERS
from neko_rules.kernels.rows import PANEL, spread
from neko_rules.threads import parts_of_product

Array = Any
"""An array; what a kernel writes is in C order."""

_VECTORS = PANEL // REGISTER
"""Registers side by side in a row of a tile."""

_ROWS = 14 if WIDE_REGISTERS else 6
"""Rows of a tile: with a row of the panel and one factor its sums fill the registers."""

_FEW_ROWS = 4
"""Rows of a tile at the end of a block: enough sums that none waits for the one before."""

BLOCK = 112 // _ROWS * _ROWS
"""Rows of ``left`` for which the panels go round once."""

DEPTH = 512
"""Entries of k that are gone through at a time: panels of so many stay in the second cache."""


def _tile(rows: int) -> Any:
    """A function that adds to ``rows`` rows of one panel's columns.

    Its arguments are ``left`` [row, k] of any strides, the first row, the range of k, the panel [k, column], whose rows
    may lie anywhere, ``into`` [row, column], and there the first row and column.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing: Any, left: Any, row: Any, begin: Any, end: Any, panel: Any, into: Any, target: Any, column: Any
    ) -> Any:
        if into.layout != "C":
            raise TypingError("sums are expected in C order")
        if any(each.dtype != into.dtype for each in (left, panel)):
            raise TypingError("factors and sums are expected to be of one type")
        word_type = types.intp
        signature = types.void(left, word_type, word_type, word_type, panel, into, word_type, word_type)

        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number, word = context.get_value_type(into.dtype), context.get_value_type(word_type)
            width = context.get_abi_sizeof(number)
            lanes = REGISTER // width
            kind = ir.VectorType(number, lanes)

            def array(kind: Any, value: Any) -> Any:
                return context.make_array(kind)(context, builder, value)

            def place(of: Any, row: Any) -> Any:
                stride = cgutils.unpack_tuple(builder, of.strides)[0]
                return cgutils.pointer_add(builder, of.data, builder.mul(row, stride))

            def vectors(pointer: Any) -> list[Any]:
                offsets = [builder.gep(pointer, [word(lanes * v)]) for v in range(_VECTORS)]
                return [builder.bitcast(each, kind.as_pointer()) for each in offsets]

            factors, table, sums = array(left, arguments[0]), array(panel, arguments[4]), array(into, arguments[5])
            along = cgutils.unpack_tuple(builder, factors.strides)[1]
            sources = [place(factors, builder.add(arguments[1], word(i))) for i in range(rows)]
            targets = [
                vectors(builder.gep(place(sums, builder.add(arguments[6], word(i))), [arguments[7]]))
                for i in range(rows)
            ]
            held = [
                [cgutils.alloca_once_value(builder, builder.load(each, align=width)) for each in row] for row in targets
            ]
            name = f"llvm.fmuladd.v{lanes}{number.intrinsic_name}"
            fused = builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind, kind, kind]))
            with cgutils.for_range_slice(builder, arguments[2], arguments[3], word(1), intp=word) as (k, _):
                values = [builder.load(each, align=width) for each in vectors(place(table, k))]
                offset = builder.mul(k, along)
                for source, totals in zip(sources, held, strict=True):
                    factor = spread(builder, builder.load(cgutils.pointer_add(builder, source, offset)), lanes)
                    for value, total in zip(values, totals, strict=True):
                        builder.store(builder.call(fused, [factor, value, builder.load(total)]), total)
            for row, totals in zip(targets, held, strict=True):
                for pointer, total in zip(row, totals, strict=True):
                    builder.store(builder.load(total), pointer, align=width)
            return context.get_dummy_value()

        return signature, generated

    return tile


_many, _few, _one = (_tile(rows) for rows in (_ROWS, _FEW_ROWS, 1))


@within
def add_panel(
    left: Array,
    first: int,
    last: int,
    begin: int,
    end: int,
    panel: Array,
    into: Array,
    target: int,
    column: int,
) -> None:
    """into[target:, column:] += left[first:last, begin:end] · panel[begin:end]."""
    # Single rows wait for their own sums: before the end come tiles that leave few of them.
    while first + _ROWS <= last and (
        last - first >= 2 * _ROWS or (last - first - _ROWS) % _FEW_ROWS <= (last - first) % _FEW_ROWS
    ):
        _many(left, first, begin, end, panel, into, target, column)
        first += _ROWS
        target += _ROWS
    while first + _FEW_ROWS <= last:
        _few(left, first, begin, end, panel, into, target, column)
        first += _FEW_ROWS
        target += _FEW_ROWS
    while first < last:
        _one(left, first, begin, end, panel, into, target, column)
        first += 1
        target += 1


@kernel
def fill_panels(matrix: Array, panels: Array) -> None:
    """panels[p, k, n] = matrix[k, p · width + n], zero beyond the last column."""
    count, depth, width = panels.shape
    size = matrix.shape[1]
    for k in range(depth):
        for p in range(count):
            columns = min(width, size - p * width)
            for n in range(columns):
                panels[p, k, n] = matrix[k, p * width + n]
            for n in range(columns, width):
                panels[p, k, n] = 0


@within
def multiplied(first: int, last: int, left: Array, panels: Array, into: Array, rest: Array, onto: bool) -> None:
    """``multiply`` as a part of other kernels: called by them it would be compiled once more, by itself."""
    count, depth, width = panels.shape
    for top in range(first, last, BLOCK):
        bottom = min(last, top + BLOCK)
        for p in range(count):
            column = p * width
            if not onto:
                into[top:bottom, column : column + width] = 0
            # A tile is compiled once for each place that calls it, so that one place is for all columns.
            target, row, begin = into, top, column
            if column + width > into.shape[1]:
                target, row, begin = rest, 0, 0
                # Sums go on in the room from what they are, so that these columns too are added up in the order of k.
                rest[:] = 0
                for m in range(top, bottom):
                    for n in range(column, into.shape[1]):
                        rest[m - top, n - column] = into[m, n]
            add_panel(left, top, bottom, 0, depth, panels[p], target, row, begin)
            if column + width > into.shape[1]:
                for m in range(top, bottom):
                    for n in range(column, into.shape[1]):
                        into[m, n] = rest[m - top, n - column]


@kernel
def multiply(first: int, last: int, left: Array, panels: Array, into: Array, rest: Array, onto: bool) -> None:
    """into[m] = Σ_k left[m, k] right[k] for a range of rows, added to what is there if ``onto``.

    ``panels`` hold ``right``; ``rest`` [rows of a block, width of a panel] is scratch for columns that fill no panel.
    """
    multiplied(first, last, left, panels, into, rest, onto)


@kernel
def multiply_transposed(left: Array, right: Array, panels: Array, into: Array, rest: Array) -> None:
    """into += Σ_{t, b} left[t, b]ᵀ right[t, b].

    Args:
        left: [time, batch, row].
        right: [time, batch, column].
        panels: [panel, DEPTH, width of a panel]: scratch.
        into: [row, column].
        rest: as for ``multiply``.
    """
    depth = left.shape[0] * left.shape[1]
    count, most, width = panels.shape
    flat, memory = right.reshape(depth, right.shape[2]), panels.reshape(panels.size)
    factors = left.reshape(depth, left.shape[2]).T
    for begin in range(0, depth, most):
        end = min(depth, begin + most)
        block = memory[: count * (end - begin) * width].reshape(count, end - begin, width)
        fill_panels(flat[begin:end], block)
        multiplied(0, factors.shape[0], factors[:, begin:end], block, into, rest, True)


@kernel
def filter_on(first: int, last: int, decay: float, before: Array, vectors: Array, slope: Array, after: Array) -> None:
    """after[b, i] = decay · before[b, i] + Σ_t vectors[t, b, i] slope[t, b] for a range of examples."""
    steps, _, pre = vectors.shape
    size = slope.shape[2]
    width = PANEL // after.itemsize
    whole = size - size % width
    for b in range(first, last):
        left, into, held = vectors[:, b].T, after[b], before[b]
        for top in range(0, pre, _ROWS):
            bottom = min(pre, top + _ROWS)
            for i in range(top, bottom):
                for n in range(size):
                    into[i, n] = decay * held[i, n]
            for column in range(0, whole, width):
                add_panel(left, top, bottom, 0, steps, slope[:, b, column : column + width], into, top, column)
            for i in range(top, bottom):
                for t in range(steps):
                    for n in range(whole, size):
                        into[i, n] += left[i, t] * slope[t, b, n]


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left · right, of two matrices of one type and of any strides.

    Example:
        >>> product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    (rows, depth), columns = left.shape, right.shape[1]
    into = BUFFERS.empty((rows, columns), left.dtype)
    ranges = parts_of_product(rows, depth, columns)
    for begin in range(0, max(1, depth), DEPTH):
        of = slice(begin, begin + DEPTH)
        part = partial(_multiply_part, left[:, of], panels_of(right[of], left.dtype), into, begin > 0)
        each(part, ranges)
    return into


def _multiply_part(
    left: np.ndarray, panels: np.ndarray, into: np.ndarray, onto: bool, _: int, first: int, last: int
) -> None:
    multiply(first, last, left, panels, into, rest_for(panels), onto)


def panels_of(matrix: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """The second factor of a product as ``multiply`` wants it."""
    width = panel_width(dtype)
    panels = BUFFERS.lined((-(-matrix.shape[1] // width), matrix.shape[0], width), dtype)
    fill_panels(matrix, panels)
    return panels


def panel_width(dtype: np.dtype | str) -> int:
    """Columns of a panel."""
    return PANEL // np.dtype(dtype).itemsize


def rest_for(panels: np.ndarray) -> np.ndarray:
    """What ``multiply`` works in."""
    return BUFFERS.lined((BLOCK, panels.shape[2]), panels.dtype)
