"""Rowwise: a function of the last axis, such as a cross-entropy, as one compiled pass over rows.

Traced values are of two kinds: one per entry of a row, and one per row, which is what a sum or a maximum over the last
axis gives. Statements about entries run in loops over the row, one loop up to every reduction; what a later loop needs
of an earlier one is kept in scratch rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.backend import Array
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous
from neko_rules.kernels.tracing import Body, Memo, NotTraceableError, Traced, TracingBackend
from neko_rules.kernels.writer import Source

_NAME = re.compile(r"[A-Za-z_]\w*")


class RowBody(Body):
    """Statements about the entries of a row, and about the row, in order; reductions in between.

    Args:
        dtype: of all arrays.
        entries: names of the arguments that have one value per entry.
    """

    def __init__(self, dtype: str, entries: tuple[str, ...]) -> None:
        super().__init__(dtype)
        self.entries = set(entries)
        self.steps: list[tuple[str, str, str]] = []
        """("entry", name, expression), ("row", name, expression), or (an operation, name, what is reduced)."""

    def statement(self, expression: str, dtype: str) -> Traced:
        """The value of an expression, of a row if nothing in it is of an entry."""
        before = len(self.statements)
        value = super().statement(expression, dtype)
        if len(self.statements) > before:
            per_entry = any(name in self.entries for name in _NAME.findall(expression))
            self.steps.append(("entry" if per_entry else "row", value.name, expression))
            if per_entry:
                self.entries.add(value.name)
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
        kept: how many scratch rows it needs.
    """

    kernel: Callable[..., Any]
    kept: int

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
        self.kernel(y, g, w, values, slopes, *np.empty((self.kept, y.shape[2]), y.dtype))
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
        source, kept = _source(body, body.value(value), body.value(gradient))
        return Pass(module_of(source).run, kept)

    return _passes.of((key, dtype), written)


def _source(body: RowBody, value: Traced, gradient: Traced) -> tuple[str, int]:
    if value.name in body.entries or gradient.name not in body.entries:
        raise NotTraceableError("a value of a row and one of every entry are expected")
    loops = _loops(body, gradient.name)
    kept = sorted({name for _, _, uses, _ in loops for name in uses})
    source = Source("A function of the last axis", body)
    source.function("run", ["outputs", "target", "weight", "values", "slopes", *(f"kept_{name}" for name in kept)])
    source.add(
        1, "steps, batch, size = outputs.shape", "for t in range(steps):", "    s = t if target.shape[0] > 1 else 0"
    )
    source.add(2, "for b in range(batch):", "    row, wanted, out = outputs[t, b], target[s, b], slopes[t, b]")
    source.add(3, "scale = weight[t, b]")
    for entries, reduction, uses, before in loops:
        source.add(3, *before)
        operation, result, of = reduction or ("", "", "")
        if reduction is not None:
            source.add(3, f"{result} = {body.dtype}({'0' if operation == 'sum' else '-np.inf'})")
        source.add(3, "for k in range(size):", "    y, g = row[k], wanted[k]")
        source.add(4, *(f"{name} = kept_{name}[k]" for name in sorted(uses)))
        for name, expression in entries:
            source.add(4, f"{name} = {expression}", *([f"kept_{name}[k] = {name}"] if name in kept else []))
        if reduction is None:
            source.add(4, f"out[k] = scale * {gradient.name}")
        elif operation == "sum":
            source.add(4, f"{result} = {result} + {of}")
        else:
            # A NaN is not smaller than anything: it stays.
            source.add(4, f"{result} = {result} if {of} <= {result} else {of}")
    source.add(3, f"values[t, b] = {value.name}")
    return source.text(), len(kept)


Loop = tuple[list[tuple[str, str]], tuple[str, str, str] | None, set[str], list[str]]
"""Entries computed, the reduction it ends in (None: it writes the result), entries of earlier loops, rows before it."""


def _loops(body: RowBody, result: str) -> list[Loop]:
    """The statements in loops over the row, each up to a reduction."""
    loops: list[Loop] = []
    entries: list[tuple[str, str]] = []
    before: list[str] = []
    for step in (*body.steps, None):
        if step is not None and step[0] == "entry":
            entries.append(step[1:])
        elif step is not None and step[0] == "row":
            before.append(f"{step[1]} = {step[2]}")
        else:
            here = {name for name, _ in entries}
            needed = {name for _, expression in entries for name in _NAME.findall(expression)}
            needed.add(result if step is None else step[2])
            uses = (needed & body.entries) - here - {"y", "g"}
            # Rows that come after this loop's reduction belong before the next one.
            loops.append((entries, step, uses, before))
            entries, before = [], []
    return loops
