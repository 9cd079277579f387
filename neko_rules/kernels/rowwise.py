"""Rowwise: a function of the last axis, such as a cross-entropy, as one compiled pass over rows.

Traced values are of two kinds: one per entry of a row, and one per row, which is what a sum or a maximum over the last
axis gives. Statements about entries run in loops over the row, one loop up to every reduction; a block of rows goes
through one loop after the other, and what a later loop needs of an earlier one is kept. Exponentials of all entries of
a block are one loop, since a row of ten classes is shorter than the vectors of the processor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neko_rules.backend import Array
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous
from neko_rules.kernels.tracing import Body, Memo, NotTraceableError, Traced, TracingBackend
from neko_rules.kernels.writer import CALL, Source

_NAME = re.compile(r"[A-Za-z_]\w*")

_BLOCK = 1 << 10
"""Entries that go through a loop before the next: enough for vector code, and few enough to stay in the first cache."""


class RowBody(Body):
    """Statements about the entries of a row, and about the row, in order; reductions in between.

    Args:
        dtype: of all arrays.
        entries: names of the arguments that have one value per entry.
    """

    def __init__(self, dtype: str, entries: tuple[str, ...]) -> None:
        super().__init__(dtype)
        self.entries = set(entries)
        self.numbers: set[str] = set()
        self.steps: list[tuple[str, str, str]] = []
        """("entry", name, expression), ("row", name, expression), or (an operation, name, what is reduced)."""

    def statement(self, expression: str, dtype: str) -> Traced:
        """The value of an expression, of a row if nothing in it is of an entry."""
        before = len(self.statements)
        value = super().statement(expression, dtype)
        if len(self.statements) > before:
            per_entry = any(name in self.entries for name in _NAME.findall(expression))
            self.steps.append(("entry" if per_entry else "row", value.name, expression))
            (self.entries if per_entry else self.numbers).add(value.name)
        return value

    def reduced(self, operation: str, value: Traced) -> Traced:
        """A reduction over the row."""
        if value.name not in self.entries:
            raise NotTraceableError("a reduction of a value that is the same for a whole row")
        for kind, name, of in self.steps:
            if (kind, of) == (operation, value.name):
                return Traced(self, name, value.dtype)
        name = f"u{len(self.steps)}"
        self.steps.append((operation, name, value.name))
        self.numbers.add(name)
        return Traced(self, name, value.dtype)


class RowBackend(TracingBackend):
    """The operations of a backend over traced rows."""

    def __init__(self, body: RowBody) -> None:
        super().__init__(body)
        self.rows = body

    def sum(self, array: Traced, axis: int, keepdims: bool = False) -> Traced:
        """Σ over the row."""
        return self._reduced("sum", array, axis)

    def max(self, array: Traced, axis: int, keepdims: bool = False) -> Traced:
        """The largest entry of the row."""
        return self._reduced("max", array, axis)

    def _reduced(self, operation: str, array: Traced, axis: int) -> Traced:
        if axis != -1:
            raise NotTraceableError(f"a reduction over axis {axis}")
        return self.rows.reduced(operation, array)


Formula = Callable[[Any, Any, Any], tuple[Any, Any]]
"""A value per row and one per entry, from a backend, the outputs and the target."""


@dataclass(frozen=True)
class Pass:
    """A compiled pass over rows.

    Args:
        kernel: the pass.
        kept: how many entries of a row it keeps from one loop to the next.
        numbers: how many numbers of a row.
    """

    kernel: Callable[..., Any]
    kept: int
    numbers: int

    def run(self, host: HostBackend, outputs: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """Values [time, batch], and weighted gradients [time, batch, n].

        Args:
            host: the backend.
            outputs: [time, batch, n].
            target: [1 or time, batch, n].
            weight: of every row, [time, batch].
        """
        y, g, w = (contiguous(host.host(array)) for array in (outputs, target, weight))
        values, slopes = np.empty(y.shape[:2], y.dtype), BUFFERS.empty(y.shape, y.dtype)
        size = y.shape[2]
        block = max(1, _BLOCK // size)
        kept, numbers = np.empty((self.kept, block * size), y.dtype), np.empty((self.numbers, block), y.dtype)
        flat = [each.reshape(-1, size) for each in (y, g)]
        self.kernel(*flat, w.reshape(-1), values.reshape(-1), slopes.reshape(-1, size), block, *kept, *numbers)
        return host.from_host(values), host.from_host(slopes)


_passes: Memo[Pass] = Memo()


def pass_of(key: Hashable, formula: Formula, dtype: str) -> Pass | None:
    """The pass that evaluates a formula; None where it has no such form.

    Args:
        key: what the formula depends on beside its arguments.
        formula: of outputs and target.
        dtype: of all arrays.
    """

    def written() -> Pass:
        body = RowBody(dtype, ("y", "g"))
        value, gradient = formula(RowBackend(body), body.argument("y"), body.argument("g"))
        source, *scratch = _source(body, body.value(value), body.value(gradient))
        return Pass(module_of(source).run, *scratch)

    return _passes.of((key, dtype), written)


def _source(body: RowBody, value: Traced, gradient: Traced) -> tuple[str, int, int]:
    """The source, and how many rows and numbers per row it keeps from one loop to the next."""
    if value.name in body.entries or gradient.name not in body.entries:
        raise NotTraceableError("a value of a row and one of every entry are expected")
    pieces = _pieces(body, value.name, gradient.name)
    kept = sorted({name for piece in pieces for name in piece.uses})
    numbers = sorted({name for piece in pieces for name in piece.needs})
    source = Source("A function of the last axis", body)
    source.function(
        "run",
        [
            *("outputs", "target", "weight", "values", "slopes", "block"),
            *(f"kept_{name}" for name in kept),
            *(f"all_{name}" for name in numbers),
        ],
    )
    source.add(1, "rows, size = outputs.shape", "for first in range(0, rows, block):")
    source.add(2, "last = min(first + block, rows)")
    for piece in pieces:
        if piece.argument:
            argument = piece.argument
            ((name, expression),) = piece.entries
            source.add(2, "for i in range((last - first) * size):", f"    {argument} = kept_{argument}[i]")
            source.add(3, f"kept_{name}[i] = {expression}")
        else:
            _add_piece(source, piece, body, kept, numbers, value.name, gradient.name)
    return source.text(), len(kept), len(numbers)


def _add_piece(
    source: Source, piece: Piece, body: RowBody, kept: list[str], numbers: list[str], value: str, gradient: str
) -> None:
    """One loop over the rows of a block."""
    source.add(2, "for r in range(first, last):", "    place, start = r - first, (r - first) * size")
    source.add(3, "row, out = outputs[r], slopes[r]", "wanted = target[r % target.shape[0]]")
    source.add(3, *(f"{name} = all_{name}[place]" for name in sorted(piece.needs)))
    for name, expression in piece.before:
        source.add(3, f"{name} = {expression}", *([f"all_{name}[place] = {name}"] if name in numbers else []))
    operation, result, of = piece.reduction or ("", "", "")
    if piece.reduction is not None:
        source.add(3, f"{result} = {body.dtype}({'0' if operation == 'sum' else '-np.inf'})")
    if piece.last:
        source.add(3, "scale = weight[r]")
    source.add(3, "for k in range(size):", "    y, g = row[k], wanted[k]")
    source.add(4, *(f"{name} = kept_{name}[start + k]" for name in sorted(piece.uses)))
    for name, expression in piece.entries:
        source.add(4, f"{name} = {expression}", *([f"kept_{name}[start + k] = {name}"] if name in kept else []))
    if piece.last:
        source.add(4, f"out[k] = scale * {gradient}")
        source.add(3, f"values[r] = {value}")
    elif operation == "sum":
        source.add(4, f"{result} = {result} + {of}")
    elif operation == "max":
        # A NaN is not smaller than anything: it stays.
        source.add(4, f"{result} = {result} if {of} <= {result} else {of}")
    if result in numbers:
        source.add(3, f"all_{result}[place] = {result}")


@dataclass
class Piece:
    """A loop over the rows of a block, or over all their entries at once.

    Args:
        entries: names and expressions of what is computed of every entry.
        before: the same of a row, before its entries.
        reduction: an operation, the name of its result, and what it reduces; None if it ends in no reduction.
        argument: of a call that becomes vector code, for which single rows may be too short; then it is the only entry.
        last: whether it writes the results.
        uses: entries of earlier loops.
        needs: numbers of the row from earlier loops.
    """

    entries: list[tuple[str, str]]
    before: list[tuple[str, str]]
    reduction: tuple[str, str, str] | None = None
    argument: str = ""
    last: bool = False
    uses: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)


def _pieces(body: RowBody, value: str, gradient: str) -> list[Piece]:
    """The statements in loops over rows, each up to a reduction or a call."""
    pieces: list[Piece] = []
    entries: list[tuple[str, str]] = []
    before: list[tuple[str, str]] = []

    def close(reduction: tuple[str, str, str] | None = None, last: bool = False) -> None:
        # Rows that come after a reduction belong before the next loop.
        pieces.append(Piece(list(entries), list(before), reduction, last=last))
        entries.clear()
        before.clear()

    for kind, name, expression in body.steps:
        call = CALL.fullmatch(expression)
        if kind == "row":
            if entries:
                close()
            before.append((name, expression))
        elif kind != "entry":
            close((kind, name, expression))
        elif call and call[2] not in ("y", "g"):
            if entries or before:
                close()
            pieces.append(Piece([(name, expression)], [], argument=call[2]))
        else:
            entries.append((name, expression))
    close(last=True)
    for piece in pieces:
        statements = (*piece.before, *piece.entries)
        here = {name for name, _ in statements}
        names = {name for _, expression in statements for name in _NAME.findall(expression)}
        names |= {piece.reduction[2]} if piece.reduction else set()
        names |= {value, gradient} if piece.last else set()
        piece.uses = (names & body.entries) - here - {"y", "g"}
        piece.needs = (names & body.numbers) - here
    return pieces
