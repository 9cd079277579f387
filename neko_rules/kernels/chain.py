"""Chain: kernels that follow each other over a few examples at a time, written as one kernel.

A forward pass fills histories that the way back reads again. Those of a large batch fit no cache; those of a few
examples do, and every group of examples works in the memory of the one before. Called one by one from Python, the
kernels of so small a group would take less time than their calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neko_rules.kernels.buffers import Buffers
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.writer import Source

KINDS = {"number": "", "narrow": "uint16", "wide": "uint32", "count": "int32"}
"""The memories that rooms are cut from, and their types: that of all numbers, and those of numbers of neurons."""

_LINE = 64
"""Bytes of a line of the cache, on which a room begins."""

_ENTRIES = {"number": _LINE // 4, "narrow": _LINE // 2, "wide": _LINE // 4, "count": _LINE // 4}
"""Entries of a line: rooms are as large as a multiple of them."""


@dataclass(frozen=True)
class Room:
    """A piece of scratch memory.

    Args:
        name: of the array.
        kind: from which memory.
        shape: numbers, and names of the kernel's whole numbers.
    """

    name: str
    kind: str
    shape: tuple[str | int, ...]


@dataclass
class Chain:
    """A kernel that is being written: ``run(first, last, group, memories, sizes, …)`` over a range of examples.

    Args:
        sizes: names of whole numbers that it is given.
        given: names of everything else.
    """

    sizes: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    _once: list[Room] = field(default_factory=list)
    _rooms: list[Room] = field(default_factory=list)
    _before: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _called: dict[str, str] = field(default_factory=dict)

    def size(self, name: str) -> str:
        """A whole number that the kernel is given."""
        if name not in self.sizes:
            self.sizes.append(name)
        return name

    def take(self, name: str) -> str:
        """Something else that it is given."""
        if name not in self.given:
            self.given.append(name)
        return name

    def room(self, name: str, *shape: str | int, kind: str = "number", once: bool = False) -> str:
        """Scratch memory of every group, or one for all groups: its name."""
        rooms = self._once if once else self._rooms
        if all(each.name != name for each in rooms):
            rooms.append(Room(name, kind, shape))
        return name

    def before(self, *lines: str) -> None:
        """Statements before the first group."""
        self._before += lines

    def add(self, *lines: str) -> None:
        """Statements for a group, the examples ``begin`` to ``begin + n``."""
        self._lines += lines

    def function(self, run: Kernel) -> str:
        """What a compiled function of another generated module is called here."""
        module = run.py_func.__module__  # type: ignore[attr-defined]
        return self._called.setdefault(module, f"run{len(self._called)}")

    def call(self, run: Kernel, arguments: Sequence[str], by_name: Mapping[str, str]) -> str:
        """A statement that calls a compiled function with its arguments by their names."""
        return f"{self.function(run)}({', '.join(by_name[name] for name in arguments)})"

    def compiled(self) -> Chained:
        """The kernel."""
        source = Source("Kernels that follow each other over groups of examples")
        source.function("run", ["first", "last", "group", *KINDS, *self.sizes, *self.given])
        # Numba would compile every function that is called with a literal for that very number.
        source.add(1, "zero, true, false = first - first, first == first, first != first")
        source.add(1, "n = group", *(f"at_{kind} = 0" for kind in KINDS))
        for room in self._once:
            source.add(1, *_cut(room))
        source.add(1, *(f"once_{kind} = at_{kind}" for kind in KINDS), *self._before)
        source.add(1, "for begin in range(first, last, group):", "    n = min(group, last - begin)")
        source.add(2, *(f"at_{kind} = once_{kind}" for kind in KINDS))
        for room in self._rooms:
            source.add(2, *_cut(room))
        source.add(2, *self._lines)
        source.add(1, "return 0")
        for module, name in self._called.items():
            source.imports(module, "run", name)
        return Chained(module_of(source.text()).run, list(self.sizes), list(self.given), [*self._once, *self._rooms])


def _cut(room: Room) -> list[str]:
    """Statements that cut a room from its memory and begin the next on a line of the cache."""
    count = " * ".join(map(str, room.shape))
    at = f"at_{room.kind}"
    each = _ENTRIES[room.kind]
    return [
        f"{room.name} = {room.kind}[{at} : {at} + {count}].reshape({', '.join(map(str, room.shape))})",
        f"{at} += -(-({count}) // {each}) * {each}",
    ]


@dataclass(frozen=True)
class Chained:
    """A chain that was compiled.

    Args:
        run: the kernel.
        sizes: names of the whole numbers that it takes.
        given: names of what else it takes.
        rooms: the scratch memory that it needs.
    """

    run: Kernel
    sizes: list[str]
    given: list[str]
    rooms: list[Room]
    _entries: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def scratch(self, buffers: Buffers, sizes: Mapping[str, int], group: int, dtype: str) -> list[np.ndarray]:
        """Memory for groups of so many examples."""
        key = group, *sizes.values()
        if key not in self._entries:
            self._entries[key] = self._counted({**sizes, "n": group})
        found = []
        for of, count in zip(KINDS.values(), self._entries[key], strict=True):
            memory = buffers.empty((count,), of or dtype)
            found.append(memory[-memory.ctypes.data % _LINE // memory.itemsize :])
        return found

    def _counted(self, sizes: Mapping[str, int]) -> list[int]:
        """Entries of every memory, with a line more to begin on one."""
        entries = dict.fromkeys(KINDS, _LINE)
        for room in self.rooms:
            count = math.prod(sizes[each] if isinstance(each, str) else each for each in room.shape)
            entries[room.kind] += -(-count // _ENTRIES[room.kind]) * _ENTRIES[room.kind]
        return list(entries.values())
