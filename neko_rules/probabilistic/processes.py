"""Processes: chains side by side, each in a Python of its own.

A chain depends on the seed and its number alone, so it is the same wherever it runs. What is sent to a new process is
the rule without what was compiled for this one. A backend goes by its name where it is the one of that name, and else
as it is; its arrays go as NumPy's.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Backend, get_backend, goes_by_name
from neko_rules.errors import IncompatibleError, NekoError
from neko_rules.on_request import own_state


def in_processes(
    function: Callable[[Any], Any], tasks: Sequence[Any], processes: int, nx: Backend | None = None
) -> Iterator[Any]:
    """``function(task)`` for every task, at most so many at a time, each as it is ready, in the order of the tasks.

    A program that calls this outside a function must guard it by ``if __name__ == "__main__":``, as the new processes
    import its module.

    Args:
        function: what is done, which the new processes find by its name.
        tasks: what it is done to.
        processes: how many at a time.
        nx: the backend of the tasks' arrays, if they are not those of backends that go by name.

    Raises:
        IncompatibleError: a task cannot be sent to another process.
        NekoError: a process did not come to its end.

    Example:
        >>> list(in_processes(abs, [], processes=2))
        []
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    work = [(function, packed(task, nx)) for task in tasks]
    # Forking a process in which an array library has started threads may deadlock.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_unpacked, work)
        except BrokenProcessPool as error:
            raise NekoError(
                "a process must run to its end",
                received="one that was ended from outside, or could not begin",
                works='put what your program does at its top within `if __name__ == "__main__":`, as new processes '
                "import it, and see that there is memory for all of them",
            ) from error


def _unpacked(work: tuple[Callable[[Any], Any], bytes]) -> Any:
    function, content = work
    try:
        task = pickle.loads(content)
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise _not_sent("be found there by its module and name", error) from error
    return function(task)


def packed(value: Any, nx: Backend | None = None) -> bytes:
    """A value as bytes for another process of this machine.

    Args:
        value: anything that can be pickled once what was compiled is left out.
        nx: the backend of its arrays, if they are not those of backends that go by name.

    Raises:
        IncompatibleError: something in it cannot be pickled.

    Example:
        >>> pickle.loads(packed({"draws": 3}))
        {'draws': 3}
    """
    buffer = io.BytesIO()
    try:
        _Packer(buffer, nx).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _not_sent("be such that Python can pickle it", error) from error
    return buffer.getvalue()


def _not_sent(must: str, error: Exception) -> IncompatibleError:
    return IncompatibleError(
        f"what runs in a process of its own must {must}",
        received=f"{type(error).__name__}: {error}",
        works="use processes=1, or put classes and functions of your own at the top of a module",
    )


TYPES = frozenset({"bool", "int32", "int64", "float32", "float64"})
"""Of arrays that are sent as NumPy's: a library may read its own in another precision (JAX has doubles only where
somebody asked for them)."""

_USUAL: Any = object.__getstate__
"""How an object says what there is of it to be pickled, if its class says nothing."""


class _Packer(pickle.Pickler):
    """Leaves out compiled functions, and turns backends and their arrays into what every process can read."""

    def __init__(self, buffer: io.BytesIO, nx: Backend | None) -> None:
        super().__init__(buffer)
        self.nx = nx

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) or callable(value):
            return NotImplemented
        if isinstance(value, Backend):
            return (get_backend, (value.name,)) if goes_by_name(value) else NotImplemented
        for nx in self._backends():
            if _is_plain_array(nx, value):
                return _array, (nx, nx.to_numpy(value))
        state = getattr(value, "__dict__", None)
        if not isinstance(state, dict) or type(value).__getstate__ is not _USUAL:
            return NotImplemented
        own = own_state(value)
        return NotImplemented if len(own) == len(state) else (_restored, (type(value), own))

    def _backends(self) -> Iterator[Backend]:
        """That of the tasks, and those that have been used in this process."""
        from neko_rules import backend

        if self.nx is not None:
            yield self.nx
        yield from backend._instances.values()


def _is_plain_array(nx: Backend, value: Any) -> bool:
    """Whether a value is an array that NumPy can hold without loss, and nothing more, as a parameter of a module is."""
    if isinstance(value, np.ndarray) or not nx.is_tensor(value):
        return False
    return type(value) is type(nx.asarray(np.zeros(1))) and nx.dtype(value) in TYPES


def _array(nx: Backend, value: np.ndarray) -> Any:
    return nx.asarray(value)


def _restored(cls: type, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(cls)
    made.__dict__.update(state)
    return made
