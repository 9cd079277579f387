"""Buffers: memory for the histories of a step, used again once nobody looks at it.

A step of learning fills arrays of [time, batch, neuron] and forgets them. Asking the operating system for that memory
each time costs as much as filling it: every page has to be cleared and mapped. A buffer is given out as views, and is
free again when no view of it is alive, which the reference count of the array that owns the memory says.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np

_SMALL = 1 << 20
"""Bytes below which the C library keeps freed memory to itself, and asking it is as fast."""

_FEW = _SMALL // 16
"""Entries that are small in every type."""


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
        self._kept: list[np.ndarray] = []
        self._peak = 0
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: np.dtype | str) -> np.ndarray:
        """An array in C order whose contents are arbitrary."""
        entries = math.prod(shape)
        if entries < _FEW:
            return np.empty(shape, dtype)
        kind = np.dtype(dtype)
        size = entries * kind.itemsize
        if size < _SMALL:
            return np.empty(shape, kind)
        with self._lock:
            memory = self._taken(size)
            return memory[:size].view(kind).reshape(shape)

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
        return sum(each.nbytes for each in self._kept)

    def _taken(self, size: int) -> np.ndarray:
        """The smallest free memory that is large enough and not more than twice that, or new memory."""
        best = -1
        lent = free = 0
        for place in range(len(self._kept)):
            room = self._kept[place].nbytes
            if self._free(place):
                free += room
                if size <= room <= 2 * size and (best < 0 or room < self._kept[best].nbytes):
                    best = place
            else:
                lent += room
        self._peak = max(self._peak, lent + size)
        if best >= 0:
            # Last used last: what is not used any more drifts to the front.
            self._kept.append(self._kept.pop(best))
            return self._kept[-1]
        self._forget(lent + free + size - self._peak)
        self._kept.append(np.empty(size, np.uint8))
        return self._kept[-1]

    def _free(self, place: int) -> bool:
        # Two references: the list's own and the argument of getrefcount.
        return sys.getrefcount(self._kept[place]) <= 2

    def _forget(self, excess: int) -> None:
        """Give back free memory, longest unused first, beyond the most that was ever in use at once."""
        place = 0
        while excess > 0 and place < len(self._kept):
            if self._free(place):
                excess -= self._kept.pop(place).nbytes
            else:
                place += 1
