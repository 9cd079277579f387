"""Buffers: memory for the histories of a step, used again once nobody looks at it.

A step of learning fills arrays of [time, batch, neuron] and forgets them. Asking the operating system for that memory
each time costs as much as filling it: every page has to be cleared and mapped. A buffer is given out as an array, and
is free again when neither that nor a view of its memory is alive, which the reference counts of the two say.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from sys import getrefcount

import numpy as np

_SMALL = 1 << 16
"""Bytes below which the C library keeps freed memory to itself. Larger pieces it may give back to the system, in some
processes at every step: those spent a third of their time on pages that were mapped anew."""

_ALIKE = 8
"""Small pieces of one size that are kept. What of them is gained is not memory but the making of arrays, an eighth of a
step of a small network; who holds more of them than a step does may hold thousands, which nobody looks through."""

_FEW = _SMALL // 16
"""Entries that are small in every type."""


LINE = 64
"""Bytes of a line of the cache, on which memory that is kept begins."""

_SLACK = 2
"""How many times the most that was seen in use at once may be held. With less, pieces of one size made room for those
of another within every step and were asked for anew; a step holds about 1.1 times what it uses."""


class Buffers:
    """Memory that is lent and comes back.

    Example:
        >>> buffers = Buffers()
        >>> array = buffers.empty((1000, 200), "float64")
        >>> address = array.ctypes.data
        >>> del array
        >>> buffers.empty((200, 1000), "float64").ctypes.data == address
        True
    """

    def __init__(self) -> None:
        self._kept: dict[int, list[_Piece]] = {}
        # By the size that was asked for: other sizes that were lent in its place.
        self._served: dict[int, dict[int, None]] = {}
        self._peak = 0
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: np.dtype | str) -> np.ndarray:
        """An array in C order whose contents are arbitrary."""
        return np.empty(shape, dtype) if math.prod(shape) < _FEW else self.lined(shape, dtype)

    def lined(self, shape: Sequence[int], dtype: np.dtype | str) -> np.ndarray:
        """The same from a line of the cache on, however small: vectors that lie across two take twice as long to read.

        Example:
            >>> Buffers().lined((2, 3), "float32").ctypes.data % LINE
            0
        """
        return self.lent(form_of(((tuple(shape), np.dtype(dtype)),)))[0]

    def lent(self, form: Form) -> list[np.ndarray]:
        """Arrays of a form, whose memory is free when nobody holds any of them.

        Example:
            >>> first, second = Buffers().lent(form_of((((2, 3), np.dtype("float32")), ((4,), np.dtype("int64")))))
            >>> first.shape, first.dtype, second.shape, second.dtype
            ((2, 3), dtype('float32'), (4,), dtype('int64'))
        """
        with self._lock:
            return self._taken(form.size).as_arrays(form)

    def clear(self) -> None:
        """Give back all memory that nobody uses, so that what is used next is asked for anew.

        Example:
            >>> buffers = Buffers()
            >>> array = buffers.empty((1000, 200), "float64")
            >>> del array
            >>> buffers.clear()
            >>> buffers.held
            0
        """
        with self._lock:
            self._forget(self.held)
            self._peak = self.held

    @property
    def held(self) -> int:
        """Bytes that are lent or kept for later."""
        return sum(size * len(kept) for size, kept in list(self._kept.items()))

    def _taken(self, size: int) -> _Piece:
        """Free memory of a size that has served, which a step finds that is like the one before; else what fits."""
        for room in (size, *self._served.get(size, ())):
            for piece in self._kept.get(room, ()):
                if piece.free():
                    return piece
        if size < _SMALL:
            alike, piece = self._kept.setdefault(size, []), _Piece(size)
            if len(alike) < _ALIKE:
                alike.append(piece)
            return piece
        lent = sum(room * (not piece.free()) for room, kept in self._kept.items() for piece in kept)
        self._peak = max(self._peak, lent + size)
        for room in sorted(room for room in self._kept if size < room <= 2 * size):
            for piece in self._kept[room]:
                if piece.free():
                    # Sizes that were asked for last are last: those that are not used any more drift to the front.
                    self._kept[room] = self._kept.pop(room)
                    self._served.setdefault(size, {})[room] = None
                    return piece
        self._forget(self.held + size - _SLACK * self._peak)
        piece = _Piece(size)
        self._kept[size] = [*self._kept.pop(size, []), piece]
        return piece

    def _forget(self, excess: int) -> None:
        """Give back free memory of so many bytes, longest unused first."""
        for size, kept in list(self._kept.items()):
            for piece in [piece for piece in kept if piece.free()]:
                if excess > 0:
                    excess -= size
                    kept.remove(piece)
            if not kept:
                del self._kept[size]
                self._served = {asked: rooms for asked, rooms in self._served.items() if size not in rooms}


class Form:
    """How arrays lie in one piece of memory, each from a line of the cache on.

    Args:
        parts: shape and type of every array.
        whole: whether all of the memory is one more array behind them: a vector of the first one's type.
    """

    __slots__ = ("begins", "parts", "shapes", "size", "whole")

    def __init__(self, parts: Sequence[tuple[tuple[int, ...], np.dtype]], whole: bool = False) -> None:
        self.parts, self.whole, self.size = tuple(parts), whole, 0
        self.begins = []
        for shape, kind in self.parts:
            self.begins.append(self.size)
            self.size += _lines(math.prod(shape) * kind.itemsize)
        self.shapes = [shape for shape, _ in self.parts]
        if whole:
            self.shapes.append((self.size // self.parts[0][1].itemsize,))

    def cut(self, memory: np.ndarray) -> list[np.ndarray]:
        """The arrays, from the first line of some bytes on."""
        first = -memory.ctypes.data % LINE
        found = []
        for (shape, kind), begin in zip(self.parts, self.begins, strict=True):
            at = first + begin
            found.append(memory[at : at + math.prod(shape) * kind.itemsize].view(kind).reshape(shape))
        if self.whole:
            found.append(memory[first : first + self.size].view(self.parts[0][1]))
        return found


@lru_cache(maxsize=1024)
def form_of(parts: tuple[tuple[tuple[int, ...], np.dtype], ...]) -> Form:
    """The form of arrays of these shapes and types: the same one for the same."""
    return Form(parts)


@lru_cache(maxsize=256)
def together(shapes: tuple[tuple[int, ...], ...], kind: np.dtype) -> Form:
    """The form of arrays of one type, and of the vector that they are parts of, which comes last.

    Reading vectors of a matrix that lies across lines takes a fifth longer; within the vector an array is followed by
    as many entries as make its lines whole.

    Example:
        >>> first, second, whole = Buffers().lent(together(((2, 3), (4,)), np.dtype("float32")))
        >>> whole[:] = np.arange(32)
        >>> first.shape, second.tolist()
        ((2, 3), [16.0, 17.0, 18.0, 19.0])
    """
    return Form([(shape, kind) for shape in shapes], whole=True)


_FORMS = 2
"""Forms of a piece that are kept: a step's loops and the update of the weights take turns with some pieces."""


class _Piece:
    """Some memory, and the arrays of it that were given out last: those of the same form are these very arrays again.

    Args:
        size: in bytes.
    """

    __slots__ = ("_forms", "_memory")

    def __init__(self, size: int) -> None:
        self._memory = np.empty(size + LINE, np.uint8)
        self._forms: dict[Form, list[np.ndarray]] = {}

    def free(self) -> bool:
        """Whether nobody holds one of the arrays, or another view of the memory."""
        # Two references of an array are the list's and that of getrefcount's argument; the arrays hold the memory too.
        # A view of an array holds the memory and not the array.
        views = 0
        for arrays in self._forms.values():
            views += len(arrays)
            if max(map(getrefcount, arrays)) > 2:
                return False
        return getrefcount(self._memory) <= 2 + views

    def as_arrays(self, form: Form) -> list[np.ndarray]:
        """The first bytes as arrays of a form."""
        arrays = self._forms.get(form)
        if arrays is None or not _as_made(arrays, form):
            self._forms.pop(form, None)
            while len(self._forms) >= _FORMS:
                del self._forms[next(iter(self._forms))]
            arrays = self._forms[form] = form.cut(self._memory)
        # Who held the list itself would hold none of the arrays.
        return [*arrays]


def _as_made(arrays: list[np.ndarray], form: Form) -> bool:
    """Whether nobody has given an array another shape, or made it read-only."""
    # In one expression and without a generator: this is asked several times in every step.
    return [array.shape for array in arrays if array.flags.writeable] == form.shapes


def _lines(size: int) -> int:
    """Bytes of as many lines as so many bytes lie on."""
    return -(-size // LINE) * LINE
