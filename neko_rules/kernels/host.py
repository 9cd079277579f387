"""Host: whether a backend's arrays lie in this process's memory, so that kernels may work on them as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.buffers import Buffers
from neko_rules.optional import installed

_fused: ContextVar[bool] = ContextVar("fused", default=True)
_alone: ContextVar[bool] = ContextVar("alone", default=False)

BUFFERS = Buffers()
"""The memory of all histories."""


class HostBackend(Protocol):
    """A backend whose arrays NumPy can view without a copy; such a backend has these beside the protocol's own."""

    in_host_memory: bool
    """Whether this very backend's arrays do: PyTorch's on the CPU, not those on a GPU."""

    def host(self, array: Array) -> np.ndarray:
        """A view of an array."""

    def from_host(self, array: np.ndarray) -> Array:
        """An array that shares the memory of a NumPy array in C order."""


def host_of(nx: Backend) -> HostBackend | None:
    """The backend, if kernels may work on its arrays and Numba is there; otherwise None.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> with unfused():
        ...     print(host_of(get_backend("numpy")))
        None
    """
    backend: Any = nx
    # Loops are NumPy's: what is compared with them is computed by operations of the library's own.
    asked = fusing() and (nx.name == "numpy" or not _alone.get())
    return backend if asked and getattr(backend, "in_host_memory", False) and installed("numba") else None


def fusing() -> bool:
    """Whether loops may stand for the engine's operations here."""
    return _fused.get()


@contextmanager
def holding(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    """Within it a variable of the context has a value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def unfused() -> AbstractContextManager[None]:
    """Within it nothing is fused: the engine's own equations run, operation by operation, in the backend."""
    return holding(_fused, False)


def lends(nx: Backend) -> bool:
    """Whether a backend that compiles whole steps lets NumPy's loops take them: its arrays lie in the same memory.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> lends(get_backend("numpy"))
        False
    """
    return fusing() and not _alone.get() and getattr(nx, "on_processor", False) and installed("numba")


def by_library() -> AbstractContextManager[None]:
    """Within it every library computes all of a step by its own operations, as where its numbers are compared.

    Compiled loops are NumPy's: it has them here too, and PyTorch, JAX and TensorFlow have none.

    Example:
        >>> from neko_rules import LIF, Evaluator, RTRL, by_library
        >>> rule = RTRL(Evaluator(LIF(8, 2)))
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> with by_library():
        ...     sorted(rule.step(x, y))
        ['loss']
    """
    return holding(_alone, True)


def only_finite(*arrays: np.ndarray) -> bool:
    """Whether no entry of any array is NaN or infinite.

    A sum is finite only if all its terms are, and BLAS has that of the squares in no time. One that is not may still
    have overflowed.

    Example:
        >>> only_finite(np.ones(3)), only_finite(np.array([0.0, np.nan]))
        (True, False)
    """
    total = 0.0
    for array in arrays:
        if array.flags.c_contiguous:
            total += float(np.vdot(array, array))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                total += float(np.add.reduce(array, axis=None))
    return math.isfinite(total) or all(bool(np.isfinite(array).all()) for array in arrays)


def clear_diagonal(matrix: np.ndarray) -> None:
    """Set the diagonal of a square matrix in C order to zero; NumPy's own function takes several times as long.

    Example:
        >>> matrix = np.ones((2, 2))
        >>> clear_diagonal(matrix)
        >>> matrix.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    matrix.reshape(-1)[:: len(matrix) + 1] = 0


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in C order, which a kernel expects; a copy only if it is not."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


_TYPES = {name: np.dtype(name) for name in ("float32", "float64")}
"""NumPy has one object for each, and takes as long to look up a name as to see what an array is like."""


def handed_over(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array as a function at an address takes it: a caller's weights may be of another type, and read-only."""
    if array.dtype is _TYPES.get(dtype) and array.flags.carray:
        return array
    found = np.ascontiguousarray(array, dtype)
    return found if found.flags.carray else found.copy()
