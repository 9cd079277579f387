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


def _tile(vectors: int, *, lanes: int = LANES, ragged: int = 0, panels: bool = False, rows_by: str = "list") -> Any:
    """A function of ``lanes · vectors`` entries of the sums of one example or of several.

    Its arguments are a tuple of the sums [size] of the examples, one of their factors [row], empty where there are
    none, the first entry, the size, the matrix [row, size], the list of rows, and its length.

    Args:
        vectors: how many.
        lanes: entries of each.
        ragged: how many of the last ones may reach beyond the size: what lies there is neither read nor written.
        panels: whether the matrix is given as panels [panel, row, column], of which a tile takes whole ones.
        rows_by: ``"list"``; ``"bits"``, where in place of a list and its length there are a row and a word, whose bits
            say which of the rows from that one on are meant; or ``"range"`` from a row to another, of which the sums
            are written and not added to what is there.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typing: Any, sums: Any, factors: Any, begin: Any, size: Any, matrix: Any, rows: Any, count: Any) -> Any:
        if any(each.layout != "C" for each in (*sums, matrix, *([rows] if rows_by == "list" else []))):
            raise TypingError("sums, matrix and list of rows are expected in C order")
        if any(each.dtype != matrix.dtype for each in (*sums, *factors)):
            raise TypingError("sums, factors and matrix are expected to be of one type")
        listed = {"list": (rows, types.intp), "bits": (types.intp, types.uint64), "range": (types.intp, types.intp)}
        signature = types.void(sums, factors, types.intp, types.intp, matrix, *listed[rows_by])

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

            def masked(name: str, returned: Any, *given: Any) -> Any:
                signature = ir.FunctionType(returned, [each.type for each in given])
                function = cgutils.get_or_insert_function(
                    builder.module, signature, f"llvm.masked.{name}.v{lanes}{number.intrinsic_name}.p0"
                )
                return builder.call(function, given)

            def loaded(pointer: Any, offset: Any, within: Any) -> Any:
                place = vector_at(pointer, offset)
                if within is None:
                    return builder.load(place, align=width)
                return masked("load", kind, place, ir.IntType(32)(width), within, ir.Constant(kind, [0.0] * lanes))

            def kept(value: Any, pointer: Any, offset: Any, within: Any) -> None:
                place = vector_at(pointer, offset)
                if within is None:
                    builder.store(value, place, align=width)
                    return
                # A vector that is whole is written as one: some processors take long for one that is masked.
                whole = builder.icmp_signed("<=", builder.add(offset, word(lanes)), arguments[3])
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        builder.store(value, place, align=width)
                    with otherwise:
                        masked("store", ir.VoidType(), value, place, ir.IntType(32)(width), within)

            into = [each.data for each in members(sums, arguments[0])]
            meeting = members(factors, arguments[1])
            table = array(matrix, arguments[4])
            offsets = [builder.add(arguments[2], word(lanes * i)) for i in range(vectors)]
            each_lane = ir.Constant(ir.VectorType(word, lanes), list(range(lanes)))
            parts = [None] * (vectors - ragged) + [
                builder.icmp_signed("<", each_lane, spread(builder, builder.sub(arguments[3], offset), lanes))
                for offset in offsets[vectors - ragged :]
            ]
            *panel_bytes, row_bytes, _ = cgutils.unpack_tuple(builder, table.strides)
            # From where a row's part begins the vectors lie at fixed places, which instructions hold.
            origin, sources = builder.gep(table.data, [arguments[2]]), [word(lanes * i) for i in range(vectors)]
            if panels:
                share = PANEL // (lanes * width)
                skipped = builder.udiv(arguments[2], word(lanes * share))
                origin = cgutils.pointer_add(builder, table.data, builder.mul(skipped, panel_bytes[0]))
                apart = builder.udiv(panel_bytes[0], word(width))
                sources = [
                    builder.add(builder.mul(apart, word(i // share)), word(i % share * lanes)) for i in range(vectors)
                ]
            none = ir.Constant(kind, [0.0] * lanes)
            held = [
                [
                    cgutils.alloca_once_value(builder, none if rows_by == "range" else loaded(each, *where))
                    for where in zip(offsets, parts, strict=True)
                ]
                for each in into
            ]
            # Fused where the processor has it, a product and a sum where it has not.
            name = f"llvm.fmuladd.v{lanes}{number.intrinsic_name}"
            fused = builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind, kind, kind]))

            def add(row: Any) -> None:
                place = cgutils.pointer_add(builder, origin, builder.mul(row, row_bytes))
                values = [loaded(place, *where) for where in zip(sources, parts, strict=True)]
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

            if rows_by == "bits":
                left = cgutils.alloca_once_value(builder, arguments[6])
                asked, walked, done = (
                    builder.append_basic_block(f"bits.{each}") for each in ("asked", "walked", "done")
                )
                builder.branch(asked)
                builder.position_at_end(asked)
                builder.cbranch(builder.icmp_unsigned("!=", builder.load(left), word(0)), walked, done)
                builder.position_at_end(walked)
                bits = builder.load(left)
                add(builder.add(arguments[5], builder.cttz(bits, ir.IntType(1)(1))))
                builder.store(builder.and_(bits, builder.sub(bits, word(1))), left)
                builder.branch(asked)
                builder.position_at_end(done)
            elif rows_by == "range":
                with cgutils.for_range_slice(builder, arguments[5], arguments[6], word(1), intp=word) as (row, _):
                    add(row)
            else:
                numbers = array(rows, arguments[5]).data
                with cgutils.for_range(builder, arguments[6], intp=word) as loop:
                    add(builder.zext(builder.load(builder.gep(numbers, [loop.index])), word))
            for each, totals in zip(into, held, strict=True):
                for offset, part, total in zip(offsets, parts, totals, strict=True):
                    kept(builder.load(total), each, offset, part)
            return context.get_dummy_value()

        return signature, generated

    return tile


_many = _tile(ALONE)
_eight, _four, _two = (_tile(vectors, ragged=vectors // 2) for vectors in (ALONE, ALONE // 2, ALONE // 4))
_one, _half, _quarter = (_tile(1, lanes=LANES // share, ragged=1) for share in (1, 2, 4))

_many_each, _two_each = (_tile(vectors, ragged=(vectors + 1) // 2, rows_by="range") for vectors in (_EACH, 2))
_one_each, _half_each, _quarter_each = (
    _tile(1, lanes=LANES // share, ragged=1, rows_by="range") for share in (1, 2, 4)
)

_many_of_panels = _tile(ALONE, panels=True, rows_by="bits")
_eight_by_bits, _four_by_bits, _two_by_bits, _one_by_bits = (
    _tile(vectors, ragged=(vectors + 1) // 2, rows_by="bits") for vectors in (ALONE, ALONE // 2, ALONE // 4, 1)
)


@within
def _add_alone(
    sums: tuple[Array], factors: tuple[Array, ...], size: int, matrix: Array, rows: Array, count: int
) -> None:
    """The rows of one example, with factors or without; the list of rows is gone through once for all that is left."""
    begin = 0
    while begin + TILE <= size:
        _many(sums, factors, begin, size, matrix, rows, count)
        begin += TILE
    if size - begin > LANES * (ALONE // 2):
        _eight(sums, factors, begin, size, matrix, rows, count)
    elif size - begin > LANES * (ALONE // 4):
        _four(sums, factors, begin, size, matrix, rows, count)
    elif size - begin > LANES:
        _two(sums, factors, begin, size, matrix, rows, count)
    # No wider than it has to be: a vector that reaches into another line of the cache is fetched twice.
    elif size - begin > LANES // 2:
        _one(sums, factors, begin, size, matrix, rows, count)
    elif size - begin > LANES // 4:
        _half(sums, factors, begin, size, matrix, rows, count)
    elif size > begin:
        _quarter(sums, factors, begin, size, matrix, rows, count)


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
def add_scaled_rows_by_bits(
    into: Array, matrix: Array, panels: Array, first: int, bits: int, factors: Array, begin: int
) -> None:
    """The same of the rows from ``first`` on whose bits are set, for ``TILE`` columns from a multiple of it on.

    Args:
        into, matrix, factors: as for ``add_scaled_rows``.
        panels: the matrix as ``kernels.products`` has it; the matrix itself is read where fewer columns are left.
        first: the row of the lowest bit.
        bits: a word.
        begin: the first column.
    """
    size = into.shape[0]
    left = size - begin
    if left >= TILE:
        _many_of_panels((into,), (factors,), begin, size, panels, first, bits)
    elif left > LANES * (ALONE // 2):
        _eight_by_bits((into,), (factors,), begin, size, matrix, first, bits)
    elif left > LANES * (ALONE // 4):
        _four_by_bits((into,), (factors,), begin, size, matrix, first, bits)
    elif left > LANES:
        _two_by_bits((into,), (factors,), begin, size, matrix, first, bits)
    else:
        _one_by_bits((into,), (factors,), begin, size, matrix, first, bits)


@within
def scaled_rows_of_each(sums: tuple[Array, ...], size: int, matrix: Array, factors: tuple[Array, ...]) -> None:
    """into[n] = Σ_j f[j] · matrix[j, n] for several examples, each with its own sums [size] and factors [row]."""
    count, begin = matrix.shape[0], 0
    while size - begin > LANES * (_EACH // 2):
        _many_each(sums, factors, begin, size, matrix, 0, count)
        begin += LANES * _EACH
    if size - begin > LANES:
        _two_each(sums, factors, begin, size, matrix, 0, count)
    elif size - begin > LANES // 2:
        _one_each(sums, factors, begin, size, matrix, 0, count)
    elif size - begin > LANES // 4:
        _half_each(sums, factors, begin, size, matrix, 0, count)
    elif size > begin:
        _quarter_each(sums, factors, begin, size, matrix, 0, count)


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
