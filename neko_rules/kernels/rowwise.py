"""Rowwise: a function of the last axis, such as a cross-entropy, as one compiled pass over rows.

Traced values are of two kinds: one per entry of a row, and one per row, which is what a sum or a maximum over the last
axis gives. A row of ten classes is shorter than the vectors of the processor, so a block of rows is turned: an entry of
all its rows lies side by side, and the innermost loop goes through the rows. There is one loop up to every reduction,
and what a later one needs of an earlier one is kept.
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
from neko_rules.kernels.writer import Source

_NAME = re.compile(r"[A-Za-z_]\w*")

_BLOCK = 1 << 11
"""Entries that go through a loop before the next: few enough to stay in the first cache."""

_ROWS = 16
"""Rows of a block at least: as many numbers as a vector holds."""


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

    def block(self, size: int) -> int:
        """How many rows of so many entries go through a loop before the next."""
        return max(_ROWS, _BLOCK // size // _ROWS * _ROWS)

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
        block = self.block(size)
        kept, numbers = np.empty((self.kept, size, block), y.dtype), np.empty((self.numbers, block), y.dtype)
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
    pieces = _pieces(body)
    kept = sorted({"y", "g", gradient.name}.union(*(piece.uses for piece in pieces)))
    numbers = sorted(body.numbers)
    source = Source("A function of the last axis", body)
    source.function(
        "run",
        [
            *("outputs", "target", "weight", "values", "slopes", "block"),
            *(f"kept_{name}" for name in kept),
            *(f"all_{name}" for name in numbers),
        ],
    )
    source.add(1, "rows, size = outputs.shape", "wanted = 0", "for first in range(0, rows, block):")
    source.add(2, "count = min(block, rows - first)", "for p in range(count):", "    row = outputs[first + p]")
    source.add(3, "for k in range(size):", "    kept_y[k, p] = row[k]")
    # Targets of a whole sequence begin anew after so many rows, and are then the same in every block.
    source.add(2, "if first == 0 or block % target.shape[0] != 0:", "    for p in range(count):")
    source.add(4, "goal = target[wanted]", "for k in range(size):", "    kept_g[k, p] = goal[k]")
    source.add(4, "wanted = wanted + 1 if wanted + 1 < target.shape[0] else 0")
    for piece in pieces:
        _add_piece(source, piece, body, kept)
    source.add(2, "for k in range(size):", f"    held, into = kept_{gradient.name}[k], kept_y[k]")
    source.add(3, "for p in range(count):", "    into[p] = weight[first + p] * held[p]")
    source.add(2, "for p in range(count):", f"    values[first + p] = all_{value.name}[p]")
    source.add(3, "out = slopes[first + p]", "for k in range(size):", "    out[k] = kept_y[k, p]")
    return source.text(), len(kept), len(numbers)


def _add_piece(source: Source, piece: Piece, body: RowBody, kept: list[str]) -> None:
    """What is computed of the rows of a block, and then of their entries."""
    if piece.before:
        here = {name for name, _ in piece.before}
        source.add(2, "for p in range(count):")
        source.add(3, *(f"{name} = all_{name}[p]" for name in sorted((_names(piece.before) & body.numbers) - here)))
        for name, expression in piece.before:
            source.add(3, f"{name} = {expression}", f"all_{name}[p] = {name}")
    operation, result, of = piece.reduction or ("", "", "")
    if piece.reduction is not None:
        begin = f"{body.dtype}({'0' if operation == 'sum' else '-np.inf'})"
        source.add(2, "for p in range(count):", f"    all_{result}[p] = {begin}")
    if not piece.entries and piece.reduction is None:
        return
    here = {name for name, _ in piece.entries}
    stored = [name for name in kept if name in here]
    source.add(2, "for k in range(size):")
    source.add(
        3, *(f"row_{name} = kept_{name}[k]" for name in sorted({*piece.uses, *stored})), "for p in range(count):"
    )
    source.add(4, *(f"{name} = row_{name}[p]" for name in sorted(piece.uses)))
    source.add(4, *(f"{name} = all_{name}[p]" for name in sorted(_names(piece.entries) & body.numbers)))
    for name, expression in piece.entries:
        source.add(4, f"{name} = {expression}", *([f"row_{name}[p] = {name}"] if name in stored else []))
    if piece.reduction is not None:
        source.add(4, f"{result} = all_{result}[p]")
        # A NaN is not smaller than anything: it stays.
        after = f"{result} + {of}" if operation == "sum" else f"{result} if {of} <= {result} else {of}"
        source.add(4, f"all_{result}[p] = {after}")


Statements = list[tuple[str, str]]
"""Names and expressions."""


def _names(statements: Statements) -> set[str]:
    """What the expressions speak of."""
    return {name for _, expression in statements for name in _NAME.findall(expression)}


@dataclass
class Piece:
    """What is computed of the rows of a block, of their entries, and a reduction that these end in.

    Args:
        before: of a row, before its entries.
        entries: of every entry.
        reduction: an operation, the name of its result, and what it reduces; None if there is none.
        uses: entries of earlier pieces.
    """

    before: Statements
    entries: Statements
    reduction: tuple[str, str, str] | None = None
    uses: set[str] = field(default_factory=set)


def _pieces(body: RowBody) -> list[Piece]:
    """The statements in pieces, each up to a reduction."""
    pieces: list[Piece] = []
    entries: Statements = []
    before: Statements = []

    def close(reduction: tuple[str, str, str] | None = None) -> None:
        pieces.append(Piece(list(before), list(entries), reduction))
        entries.clear()
        before.clear()

    for kind, name, expression in body.steps:
        if kind == "row":
            # Rows that come after a reduction belong before the next loop.
            if entries:
                close()
            before.append((name, expression))
        elif kind == "entry":
            entries.append((name, expression))
        else:
            close((kind, name, expression))
    close()
    for piece in pieces:
        names = _names(piece.entries) | ({piece.reduction[2]} if piece.reduction else set())
        piece.uses = (names & body.entries) - {name for name, _ in piece.entries}
    return pieces
