"""Chain clock: how long each kernel of a chain takes, read from the processor's counter between them.

A profiler of Python sees a chain as one call. Here every kernel that a chain calls is followed by a statement that adds
the cycles since the one before to its place in a list; what passes between two steps goes to the first place. So all
time is somewhere, and shares need no frequency of the counter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from neko_rules.kernels.chain import Chain, Chained
from neko_rules.kernels.compiling import Kernel
from neko_rules.kernels.writer import Source

_MOST = 200
"""Kernels that may be told apart."""


@intrinsic  # type: ignore[untyped-decorator]
def tick(typing: Any, clock: Any, place: Any) -> Any:
    """Add the cycles since the last tick to a place of a clock, whose first entry is the time of that."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        counter = builder.module.declare_intrinsic("llvm.readcyclecounter", (), ir.FunctionType(word, []))
        now, last = builder.call(counter, []), builder.inttoptr(arguments[0], word.as_pointer())
        at = builder.gep(last, [builder.add(arguments[1], word(1))])
        builder.store(builder.add(builder.load(at), builder.sub(now, builder.load(last))), at)
        builder.store(now, last)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generated


class Clock:
    """Cycles by kernel, of all chains that were made while it was on.

    Attributes:
        kernels: what each place is of: the title of a generated module, or a function's name, and what it is given.
    """

    def __init__(self) -> None:
        self._cycles = np.zeros(_MOST + 2, np.int64)
        self.kernels: list[tuple[str, tuple[str, ...]]] = []

    @property
    def address(self) -> int:
        """Where it lies in memory."""
        return self._cycles.ctypes.data

    def place_of(self, run: Kernel, arguments: tuple[str, ...]) -> int:
        """A place for a kernel of a chain; the first is that of all else."""
        function: Any = run
        module, name = sys.modules[function.py_func.__module__], function.py_func.__name__
        title = str(module.__doc__).split(";")[0] if name == "run" else name
        self.kernels.append((title, arguments))
        assert len(self.kernels) <= _MOST, "there is a place for every kernel"
        return len(self.kernels)

    def start(self) -> None:
        """Begin at zero."""
        self._cycles[1:] = 0

    def read(self) -> np.ndarray:
        """Cycles since then: of all else, and of every kernel."""
        return self._cycles[1 : len(self.kernels) + 2].copy()


@contextmanager
def clocked() -> Iterator[Clock]:
    """A clock for the chains that are made within."""
    clock = Clock()
    call, compiled, text = Chain.call, Chain.compiled, Source.text
    addresses: Any = Chained.addresses
    ticking = "tick(addresses[addresses.shape[0] - 1], {})"

    def call_and_tick(self: Chain, run: Kernel, *arguments: str, once: bool = False) -> None:
        call(self, run, *arguments, once=once)
        (self._before if once else self._lines).append(ticking.format(clock.place_of(run, arguments)))

    def compiled_with_clock(self: Chain) -> Chained:
        self._before.insert(0, ticking.format(0))
        return compiled(self)

    def with_import(self: Source) -> str:
        written = text(self)
        line = "from neko_rules.kernels.compiling import kernel\n"
        return written.replace(line, f"{line}from {__name__} import tick\n", 1) if "tick(" in written else written

    def with_clock(self: Chained) -> np.ndarray:
        known: np.ndarray = addresses.func(self)
        return np.append(known, clock.address)

    patched: Any = cached_property(with_clock)
    patched.__set_name__(Chained, "addresses")
    changes: list[tuple[Any, str, Any, Any]] = [
        (Chain, "call", call_and_tick, call),
        (Chain, "compiled", compiled_with_clock, compiled),
        (Source, "text", with_import, text),
        (Chained, "addresses", patched, addresses),
    ]
    for owner, name, new, _ in changes:
        setattr(owner, name, new)
    try:
        yield clock
    finally:
        for owner, name, _, old in changes:
            setattr(owner, name, old)
