"""Rows: products of spikes and weights that touch only what is not zero.

    into[n] += Σ_k f[rows[k]] · matrix[rows[k], n]     what fired adds its rows of weights, times its value if not 1
    dE/dW[j] += Σ_{(t, b): j fired} δ[t, b]            and its row of weights receives what the targets sent back

A loop over n within one over k reads and writes the sum for every row. Here as many n as there are registers for go
through all rows together, then the next ones. Where several examples meet the same rows, a row is loaded once for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.compiling import kernel, within
from neko_rules.kernels.pipeline import REGISTER, WIDE_REGISTERS

Array = Any
"""An array in C order."""

LANES = REGISTER // 4
"""Numbers side by side: of single precision as many as a vector register of the machine holds."""

PANEL = 2 * REGISTER
"""Bytes of a row of a panel, a part of a matrix whose rows follow each other in memory."""

ALONE = 8
"""Vectors in which the sum of one example is kept at a time."""

TILE = LANES * ALONE
"""Entries of the sum of one example that are kept at a time."""

_EACH = 4 if WIDE_REGISTERS else 3
"""Vectors of each of the examples that meet the same rows: with factors and the row itself they fill the registers."""


def spread(builder: Any, value: Any, lanes: int) -> Any:
    """A vector whose entries are all one number, in LLVM."""
    none = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    single = builder.insert_element(none, value, ir.IntType(32)(0))
    first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(single, none, first)


def _tile(vectors: int, *, lanes: int = LANES, partial: bool = False, panels: bool = False) -> Any:
    """A function of ``lanes · vectors`` entries of the sums of one example or of several.

    Its arguments are a tuple of the sums [size] of the examples, one of their factors [row], empty where there are
    none, the first entry, the size, the matrix [row, size], the list of rows, and its length.

    Args:
        vectors: how many.
        lanes: entries of each.
        partial: whether the last one reaches beyond the size: what lies there is neither read nor written.
        panels: whether the matrix is given as panels [panel, row, column], of which a tile takes whole ones.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typing: Any, sums: Any, factors: Any, begin: Any, size: Any, matrix: Any, rows: Any, count: Any) -> Any:
        if any(each.layout != "C" for each in (*sums, matrix, rows)):
            raise TypingError("sums, matrix and list of rows are expected in C order")
        if any(each.dtype != matrix.dtype for each in (*sums, *factors)):
            raise TypingError("sums, factors and matrix are expected to be of one type")
        signature = types.void(sums, factors, types.intp, types.intp, matrix, rows, types.intp)

        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = context.get_value_type(matrix.dtype)
            word = context.get_value_type(types.intp)
            kind = ir.VectorType(number, lanes)
            width = context.get_abi_sizeof(number)

            def array(kind: Any, value: Any) -> Any:
                return context.make_array(kind)(context, builder, value)

            def members(kind: Any, value: Any) -> list[Any]:
                return [array(each, one) for each, one in zip(kind, cgutils.unpack_tuple(builder, value), strict=True)]

            def vector_at(pointer: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())

            within = None
            if partial:
                each_lane = ir.Constant(ir.VectorType(word, lanes), list(range(lanes)))
                left = spread(builder, builder.sub(arguments[3], arguments[2]), lanes)
                within = builder.icmp_signed("<", each_lane, left)

            def masked(name: str, returned: Any, *given: Any) -> Any:
                signature = ir.FunctionType(returned, [each.type for each in given])
                function = cgutils.get_or_insert_function(
                    builder.module, signature, f"llvm.masked.{name}.v{lanes}{number.intrinsic_name}.p0"
                )
                return builder.call(function, given)

            def loaded(pointer: Any, offset: Any) -> Any:
                place = vector_at(pointer, offset)
                if within is None:
                    return builder.load(place, align=width)
                zero = ir.Constant(kind, [0.0] * lanes)
                return masked("load", kind, place, ir.IntType(32)(width), within, zero)

            def kept(value: Any, pointer: Any, offset: Any) -> None:
                place = vector_at(pointer, offset)
                if within is None:
                    builder.store(value, place, align=width)
                else:
                    masked("store", ir.VoidType(), value, place, ir.IntType(32)(width), within)

            into = [each.data for each in members(sums, arguments[0])]
            meeting = members(factors, arguments[1])
            table, listed = array(matrix, arguments[4]), array(rows, arguments[5])
            offsets = [builder.add(arguments[2], word(lanes * i)) for i in range(vectors)]
            *panel_bytes, row_bytes, _ = cgutils.unpack_tuple(builder, table.strides)
            origin, sources = table.data, offsets
            if panels:
                share = PANEL // (lanes * width)
                skipped = builder.udiv(arguments[2], word(lanes * share))
                origin = cgutils.pointer_add(builder, origin, builder.mul(skipped, panel_bytes[0]))
                apart = builder.udiv(panel_bytes[0], word(width))
                sources = [
                    builder.add(builder.mul(apart, word(i // share)), word(i % share * lanes)) for i in range(vectors)
                ]
            held = [[cgutils.alloca_once_value(builder, loaded(each, o)) for o in offsets] for each in into]
            # Fused where the processor has it, a product and a sum where it has not.
            name = f"llvm.fmuladd.v{lanes}{number.intrinsic_name}"
            fused = builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind, kind, kind]))
            with cgutils.for_range(builder, arguments[6], intp=word) as loop:
                row = builder.zext(builder.load(builder.gep(listed.data, [loop.index])), word)
                place = cgutils.pointer_add(builder, origin, builder.mul(row, row_bytes))
                values = [loaded(place, source) for source in sources]
                for example, totals in enumerate(held):
                    factor = None
                    if meeting:
                        (step,) = cgutils.unpack_tuple(builder, meeting[example].strides)
                        where = cgutils.pointer_add(builder, meeting[example].data, builder.mul(row, step))
                        factor = spread(builder, builder.load(where), lanes)
                    for value, total in zip(values, totals, strict=True):
                        before = builder.load(total)
                        after = (
                            builder.fadd(before, value)
                            if factor is None
                            else builder.call(fused, [factor, value, before])
                        )
                        builder.store(after, total)
            for each, totals in zip(into, held, strict=True):
                for offset, total in zip(offsets, totals, strict=True):
                    kept(builder.load(total), each, offset)
            return context.get_dummy_value()

        return signature, generated

    return tile


_many, _many_each, _some = (_tile(vectors) for vectors in (ALONE, _EACH, 1))
_many_of_panels = _tile(ALONE, panels=True)
_rest, _half, _quarter = (_tile(1, lanes=LANES // share, partial=True) for share in (1, 2, 4))


@within
def _add_rest(
    sums: tuple[Array, ...],
    factors: tuple[Array, ...],
    begin: int,
    size: int,
    matrix: Array,
    rows: Array,
    count: int,
) -> None:
    """The columns from ``begin`` on, which do not fill as many registers as there are."""
    while begin + LANES <= size:
        _some(sums, factors, begin, size, matrix, rows, count)
        begin += LANES
    # A vector no wider than it has to be: one that reaches into another line of the cache is fetched twice.
    if size - begin > LANES // 2:
        _rest(sums, factors, begin, size, matrix, rows, count)
    elif size - begin > LANES // 4:
        _half(sums, factors, begin, size, matrix, rows, count)
    elif size > begin:
        _quarter(sums, factors, begin, size, matrix, rows, count)


@within
def _add_alone(
    sums: tuple[Array], factors: tuple[Array, ...], size: int, matrix: Array, rows: Array, count: int
) -> None:
    """The rows of one example, with factors or without."""
    begin = 0
    while begin + TILE <= size:
        _many(sums, factors, begin, size, matrix, rows, count)
        begin += TILE
    _add_rest(sums, factors, begin, size, matrix, rows, count)


@within
def add_rows(into: Array, size: int, matrix: Array, rows: Array, count: int) -> None:
    """into[n] += Σ_k matrix[rows[k], n] for k < count.

    Args:
        into: [size].
        size: number of columns.
        matrix: [row, size].
        rows: numbers of rows, unsigned.
        count: how many of them.
    """
    _add_alone((into,), (), size, matrix, rows, count)


@within
def add_scaled_rows(into: Array, size: int, matrix: Array, rows: Array, count: int, factors: Array) -> None:
    """into[n] += Σ_k factors[rows[k]] · matrix[rows[k], n] for k < count.

    Args:
        into: [size].
        size: number of columns.
        matrix: [row, size].
        rows: numbers of rows, unsigned.
        count: how many of them.
        factors: [row], of any stride.
    """
    _add_alone((into,), (factors,), size, matrix, rows, count)


@within
def add_scaled_rows_of_panels(
    into: Array, matrix: Array, panels: Array, rows: Array, count: int, factors: Array, begin: int
) -> None:
    """The same for ``TILE`` columns from a multiple of it on, from panels; from the matrix where fewer are left.

    Args:
        into, matrix, rows, count, factors: as for ``add_scaled_rows``.
        panels: the matrix as ``kernels.products`` has it.
        begin: the first column.
    """
    size = into.shape[0]
    if begin + TILE <= size:
        _many_of_panels((into,), (factors,), begin, size, panels, rows, count)
    else:
        _add_rest((into,), (factors,), begin, size, matrix, rows, count)


@within
def add_scaled_rows_to_each(
    sums: tuple[Array, ...], size: int, matrix: Array, rows: Array, count: int, factors: tuple[Array, ...]
) -> None:
    """The same for several examples, each with its own sum and factors, on the same rows."""
    begin = 0
    while begin + LANES * _EACH <= size:
        _many_each(sums, factors, begin, size, matrix, rows, count)
        begin += LANES * _EACH
    _add_rest(sums, factors, begin, size, matrix, rows, count)


@kernel
def add_outer(
    first: int, last: int, index: Array, count: Array, values: Array, ones: bool, delta: Array, gradient: Array
) -> None:
    """gradient[j] += Σ_{t, b} values[t, b, j] delta[t, b] over the events of a range of examples, in order of time."""
    steps, _, size = delta.shape
    for t in range(steps):
        for b in range(first, last):
            row, listed = delta[t, b], index[t, b]
            for k in range(count[t, b]):
                into = gradient[listed[k]]
                if ones:
                    for n in range(size):
                        into[n] += row[n]
                else:
                    x = values[t, b, listed[k]]
                    for n in range(size):
                        into[n] += x * row[n]


@kernel
def add_outer_sorted(
    first: int,
    last: int,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    delta: Array,
    gradient: Array,
    listed: Array,
    length: Array,
) -> None:
    """The same, with the events of a few steps sorted by presynaptic neuron, so that its row is written less often.

    ``listed`` [presynaptic, events] and ``length`` [presynaptic] are scratch, unsigned; the room for events of one
    presynaptic neuron, divided by the number of examples, is the number of steps that are sorted together.
    """
    one = np.uint32(1)
    steps, batch, size = delta.shape
    rows, inputs = (
        delta.reshape(steps * batch, size),
        values.reshape(values.shape[0] * values.shape[1], values.shape[2]),
    )
    block = listed.shape[1] // (last - first)
    for start in range(0, steps, block):
        for j in range(length.shape[0]):
            length[j] = 0
        for t in range(start, min(steps, start + block)):
            for b in range(first, last):
                found, row = index[t, b], np.uint32(t * batch + b)
                for k in range(count[t, b]):
                    j = found[k]
                    place = length[j]
                    listed[j, place] = row
                    length[j] = place + one
        for j in range(length.shape[0]):
            if ones:
                add_rows(gradient[j], size, rows, listed[j], length[j])
            else:
                add_scaled_rows(gradient[j], size, rows, listed[j], length[j], inputs[:, j])


@kernel
def add_met(first: int, last: int, traces: Array, signal: Array, total: Array) -> None:
    """total[i] = Σ_b signal[b] · traces[b, i] for a range of presynaptic neurons."""
    batch, _, size = traces.shape
    total[first:last] = 0
    for b in range(batch):
        factor = signal[b]
        for i in range(first, last):
            into, held = total[i], traces[b, i]
            for n in range(size):
                into[n] += factor[n] * held[n]
