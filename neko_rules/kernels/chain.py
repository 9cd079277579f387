"""Chain: kernels that follow each other over a few examples at a time, written as one kernel.

A forward pass fills histories that the way back reads again. Those of a large batch fit no cache; those of a few
examples do, and every group of examples works in the memory of the one before. Called one by one from Python, the
kernels of so small a group would take less time than their calls. The chain calls them at their addresses, so that
compiling it is compiling what lies between them: statements of ``kernels.lowering``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neko_rules.kernels.ahead import Wanted, called, compiled
from neko_rules.kernels.buffers import LINE, Form
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.writer import Lines, Source

if TYPE_CHECKING:
    from neko_rules.kernels.calling import Type

KINDS = {"number": "", "narrow": "uint16", "wide": "uint32", "count": "int32"}
"""The memories that rooms are cut from, and their types: that of all numbers, and those of numbers of neurons."""

_ENTRIES = {"number": LINE // 4, "narrow": LINE // 2, "wide": LINE // 4, "count": LINE // 4}
"""Entries of a line of the cache: rooms are as large as a multiple of them."""

WINDOWS = ("opening", "closing", "offset", "base")
"""The first whole numbers that a chain of windows is given: which ones, and time step and number of window 0."""

Shape = tuple[str | int, ...]
"""Numbers, and names of whole numbers that a kernel has."""


@dataclass(frozen=True)
class Room:
    """A piece of scratch memory.

    Args:
        name: of the array.
        kind: from which memory.
        shape: its axes.
        once: whether it is the same for all groups.
    """

    name: str
    kind: str
    shape: Shape
    once: bool


class View(NamedTuple):
    """A part of a room, or of an array that the chain is given, under a shape of its own.

    Attributes:
        room: whose memory it is.
        shape: its axes, each a number or an expression.
        skip: at which entry it begins.
    """

    room: str
    shape: Shape
    skip: str


class Given(NamedTuple):
    """Something that a chain is given for functions that it calls.

    Attributes:
        rank: axes of an array in C order; none for a number.
        dtype: its type; empty for that of all numbers.
    """

    rank: int
    dtype: str


_AT_HAND = {"n": "int64", "begin": "int64", "zero": "int64", "true": "boolean", "false": "boolean"}
"""Numbers that every chain has at hand, and their types."""


@dataclass
class Chain:
    """A kernel that is being written, over a range of examples.

    Args:
        dtype: of all numbers that are not whole.
        windows: whether it goes through all examples again and again, for every window of some: those from ``opening``
            to ``closing``, of which each has the number ``which`` and begins with the time step ``at``.
        sizes: names of whole numbers that it is given.
        given: everything else that it is given.
    """

    dtype: str
    windows: bool = False
    sizes: list[str] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)
    _numbers: dict[str, str] = field(default_factory=dict)
    _flags: dict[str, str] = field(default_factory=dict)
    _rooms: dict[str, Room] = field(default_factory=dict)
    _views: dict[View, str] = field(default_factory=dict)
    _before: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _after: list[str] = field(default_factory=list)
    _calls: list[Wanted] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.windows:
            self.sizes += WINDOWS

    def size(self, name: str) -> str:
        """A whole number that the kernel is given."""
        if name not in self.sizes:
            self.sizes.append(name)
        return name

    def number(self, name: str, expression: str) -> None:
        """A whole number of every group."""
        self._numbers[name] = expression

    def flag(self, name: str, expression: str) -> str:
        """A condition that is the same for all groups of a window: its name."""
        self._flags[name] = expression
        return name

    def take(self, name: str, rank: int, dtype: str = "") -> str:
        """Something else that it is given: its name."""
        self.given.setdefault(name, Given(rank, dtype))
        return name

    def room(self, name: str, *shape: str | int, kind: str = "number", once: bool = False) -> str:
        """Scratch memory of every group, or one for all groups: its name."""
        self._rooms.setdefault(name, Room(name, kind, shape, once))
        return name

    def has(self, room: str) -> bool:
        """Whether there is such a room."""
        return room in self._rooms

    def view(self, room: str, *shape: str | int, skip: str = "0") -> str:
        """A group's part of a room under another shape, from an entry on: its name."""
        return self._views.setdefault(View(room, shape, skip), f"view{len(self._views)}")

    def part(self, given: str, *row: str) -> str:
        """A group's part of an array that the kernel is given, whose first axis is that of examples: its name.

        Args:
            given: its name.
            row: names of the whole numbers that are its other axes.
        """
        return self.view(given, "n", *row, skip=f"begin * {' * '.join(row)}")

    def add(self, *lines: str) -> None:
        """Statements for a group, the examples ``begin`` to ``begin + n``."""
        self._lines += lines

    def call(self, run: Kernel, *arguments: str, once: bool = False) -> None:
        """Call a compiled function for every group, or once before the first.

        Args:
            run: it returns nothing.
            arguments: names of rooms, of views, of numbers, of what the kernel is given, and of ``_AT_HAND``.
            once: whether it is called before the first group.
        """
        (self._before if once else self._lines).append(self._called(run, arguments))

    def call_before(self, run: Kernel, *arguments: str, condition: str) -> None:
        """Call a compiled function before the first group, if a condition holds; with no views among its arguments."""
        self._before += [f"if {condition}:", f"    {self._called(run, arguments)}"]

    def call_after(self, run: Kernel, *arguments: str, condition: str = "true") -> None:
        """Call a compiled function after the last group, if a condition holds; with no views among its arguments."""
        self._after += [f"if {condition}:", f"    {self._called(run, arguments)}"]

    def number_of(self, run: Kernel) -> int:
        """The place in ``addresses`` of a function that is called with arguments of one kind alone."""
        (found,) = (i for i, each in enumerate(self._calls) if each.run is run)
        return found

    def _called(self, run: Kernel, arguments: tuple[str, ...]) -> str:
        """A statement that calls a compiled function."""
        wanted = Wanted(run, tuple(self._type(each) for each in arguments))
        if wanted not in self._calls:
            self._calls.append(wanted)
        number = self._calls.index(wanted)
        return f"run{number}({', '.join(arguments)})"

    def _type(self, name: str) -> Type:
        from neko_rules.kernels.calling import array_type

        view = next((view for view, of in self._views.items() if of == name), None)
        of = name if view is None else view.room
        if of in self.given:
            rank, dtype = self.given[of]
        elif of in self._rooms:
            rank, dtype = len(self._rooms[of].shape), KINDS[self._rooms[of].kind]
        else:
            return array_type("boolean" if name in self._flags else _AT_HAND.get(name, "int64"), 0)
        return array_type(dtype or self.dtype, rank if view is None else len(view.shape))

    def compiled(self) -> Chained:
        """The kernel ``run(first, last, group, addresses, places, memories, sizes, …)``."""
        from neko_rules.kernels.calling import array_type

        source = Source("Kernels that follow each other over groups of examples")
        # A chain on disk belongs to functions that are called with these types.
        source.add(0, *(f"# run{i}{each.types}" for i, each in enumerate(self._calls)))
        names = ["first", "last", "group", "addresses", "places", *KINDS, *self.sizes, *self.given]
        functions = ", ".join(f"run{i}=run{i}" for i in range(len(self._calls)))
        source.add(0, "", 'statements = """', *self._statements(), '"""', f"functions = dict({functions})")
        source.add(0, f"names = {tuple(names)}", "body = lowered(names, statements, functions)")
        source.function("run", names, "thin")
        source.add(1, f"return body(({', '.join(names)}))")
        for i, each in enumerate(self._calls):
            function: Any = each.run
            source.imports(function.py_func.__module__, function.py_func.__name__, f"run{i}")
        module = module_of(source.text())
        # Those that the module has: another thread may have made the same functions once more in between.
        calls = [each._replace(run=getattr(module, f"run{i}")) for i, each in enumerate(self._calls)]
        # Where functions begin and where rooms do, and whole numbers.
        types = *[array_type("int64", 0)] * 3, *[array_type("int64", 1)] * 2
        types += *(array_type(of or self.dtype, 1) for of in KINDS.values()), *[types[0]] * len(self.sizes)
        types += (*(array_type(of.dtype or self.dtype, of.rank) for of in self.given.values()),)
        whole = Wanted(module.run, types)
        return Chained(whole, calls, list(self.sizes), list(self.given), list(self._rooms.values()))

    def _statements(self) -> list[str]:
        """What it does, in the language of ``kernels.lowering``."""
        lines = Lines("n = group")
        lines.add(0, "zero = 0", *(self._cut(name) for name, room in self._rooms.items() if room.once))
        depth = 0
        if self.windows:
            lines.add(0, "for window in range(opening, closing):")
            lines.add(1, "at, which = offset + window * steps, base + window")
            depth = 1
        lines.add(depth, *(f"{name} = {expression}" for name, expression in self._flags.items()), *self._before)
        lines.add(depth, "for begin in range(first, last, group):", "    n = min(group, last - begin)")
        lines.add(depth + 1, *(f"{name} = {expression}" for name, expression in self._numbers.items()))
        lines.add(depth + 1, *(self._cut(name) for name, room in self._rooms.items() if not room.once))
        for view, name in self._views.items():
            lines.add(depth + 1, self._cut(view.room, name, view.shape, view.skip))
        lines.add(depth + 1, *self._lines)
        lines.add(depth, *self._after)
        lines.add(0, "return 0")
        return lines.text().splitlines()

    def _cut(self, room: str, name: str = "", shape: Shape = (), skip: str = "0") -> str:
        """A statement that cuts a room, or a part of it under another name, from its memory."""
        if room in self.given:
            # Behind the places of all rooms stands that of everything that begins with its own memory.
            memory, place = room, len(self._rooms)
        else:
            memory, place = self._rooms[room].kind, list(self._rooms).index(room)
            shape = shape or self._rooms[room].shape
        return f"{name or room} = cut({memory}, {place}, {skip}, ({', '.join(map(str, shape))},))"


class Layout(NamedTuple):
    """How rooms lie in one piece of memory.

    Attributes:
        places: at which entry of its memory every room begins, and 0.
        form: of the memories that rooms are cut from.
    """

    places: np.ndarray
    form: Form


@dataclass(frozen=True)
class Chained:
    """A chain that was written.

    Args:
        whole: the kernel.
        calls: what it calls.
        sizes: names of the whole numbers that it takes.
        given: names of what else it takes.
        rooms: the scratch memory that it needs.
    """

    whole: Wanted
    calls: list[Wanted]
    sizes: list[str]
    given: list[str]
    rooms: list[Room]

    @property
    def run(self) -> Kernel:
        """The kernel."""
        return self.whole.run

    def compile(self, more: Iterable[Wanted]) -> None:
        """Have it compiled.

        Args:
            more: what else it calls, at addresses that it is given.
        """
        needed = [*more, *self.calls]
        called(needed)
        compiled([*needed, self.whole])

    @cached_property
    def addresses(self) -> np.ndarray:
        """Where what it calls lies in memory."""
        from neko_rules.kernels.calling import addresses_of

        return addresses_of(tuple(self.calls))

    def layout(self, sizes: Mapping[str, int], group: int, dtype: str) -> Layout:
        """Where rooms begin, and how much memory groups of so many examples take."""
        known, ends, places = {**sizes, "n": group}, dict.fromkeys(KINDS, 0), []
        for room in self.rooms:
            places.append(ends[room.kind])
            count = math.prod(known[each] if isinstance(each, str) else each for each in room.shape)
            ends[room.kind] += -(-count // _ENTRIES[room.kind]) * _ENTRIES[room.kind]
        kinds = (np.dtype(of or dtype) for of in KINDS.values())
        memories = [((end,), kind) for end, kind in zip(ends.values(), kinds, strict=True)]
        return Layout(np.array([*places, 0], np.int64), Form(memories))
