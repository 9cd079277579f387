"""Processes: chains side by side, each in a Python of its own.

A chain depends on the seed and its number alone, so it is the same wherever it runs. What is sent to a new process is
the rule without what was compiled for this one: backends go by name, their arrays as NumPy's.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Backend, get_backend
from neko_rules.on_request import own_state


def in_processes(function: Callable[[Any], Any], tasks: Sequence[Any], processes: int) -> Iterator[Any]:
    """``function(task)`` for every task, at most so many at a time, each as it is ready, in the order of the tasks.

    A program that calls this outside a function must guard it by ``if __name__ == "__main__":``, as the new processes
    import its module.

    Example:
        >>> list(in_processes(abs, [], processes=2))
        []
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Forking a process in which an array library has started threads may deadlock.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_unpacked, [(function, packed(task)) for task in tasks])


def _unpacked(work: tuple[Callable[[Any], Any], bytes]) -> Any:
    function, content = work
    return function(pickle.loads(content))


def packed(value: Any) -> bytes:
    """A value as bytes for another process of this machine."""
    buffer = io.BytesIO()
    _Packer(buffer).dump(value)
    return buffer.getvalue()


class _Packer(pickle.Pickler):
    """Leaves out compiled functions, and turns backends and their arrays into what every process can read."""

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer)
        self.backends: list[Backend] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) or callable(value):
            return NotImplemented
        if isinstance(value, Backend):
            return get_backend, (value.name,)
        for name in _loaded():
            nx = get_backend(name)
            if nx.is_tensor(value) and not isinstance(value, np.ndarray):
                return _array, (name, nx.to_numpy(value))
        state = getattr(value, "__dict__", None)
        if not isinstance(state, dict):
            return NotImplemented
        own = own_state(value)
        return NotImplemented if len(own) == len(state) else (_restored, (type(value), own))


def _loaded() -> list[str]:
    """The backends that have been used in this process."""
    from neko_rules import backend

    return list(backend._instances)


def _array(name: str, value: np.ndarray) -> Any:
    return get_backend(name).asarray(value)


def _restored(cls: type, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(cls)
    made.__dict__.update(state)
    return made
