"""Threads: how many processors a compiled loop or a large product uses, and which part of a batch each takes.

A kernel releases the interpreter lock and goes through a range of examples; examples do not depend on each other. Below
a certain amount of work the whole range stays on the caller's thread, because waking another one takes longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

from neko_rules import arguments
from neko_rules.optional import installed

VARIABLE = "NEKO_THREADS"

_WORTHWHILE = 100_000
"""Neurons times steps times examples, per thread, that are worth waking it."""

_state: dict[str, Any] = {"threads": None, "pool": None}


def threads() -> int:
    """How many threads kernels may use.

    By default ``$NEKO_THREADS``, or ``$OMP_NUM_THREADS``, or as many as the process may run on.

    Example:
        >>> set_threads(2)
        >>> threads()
        2
        >>> set_threads(None)
    """
    if _state["threads"] is None:
        given = os.environ.get(VARIABLE) or os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        _state["threads"] = int(given) if given.isdigit() and int(given) else available
    return int(_state["threads"])


def set_threads(number: int | None) -> None:
    """Set how many threads kernels may use; None: the default again.

    Example:
        >>> set_threads(0)
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: threads must be a whole number of at least 1 (received: 0).
    """
    if number is not None:
        arguments.integer("threads", number, at_least=1)
    _state["threads"] = number


def parts(batch: int, work: int) -> list[tuple[int, int]]:
    """Ranges of examples, one per thread that is worth using.

    Args:
        batch: number of examples.
        work: operations in all.

    Example:
        >>> parts(5, work=10)
        [(0, 5)]
    """
    count = min(batch, work // _WORTHWHILE)
    if count > 1:
        count = min(count, threads())
    if count <= 1:
        return [(0, batch)]
    edges = [batch * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def parts_of_product(rows: int, inner: int, columns: int) -> list[tuple[int, int]]:
    """Ranges of rows of a matrix product [rows, inner] · [inner, columns], one per thread that is worth using."""
    # About 50 products of numbers take as long as one neuron's step, which is the unit of work.
    return parts(rows, rows * inner * columns // 50)


def each(function: Callable[[int, int, int], Any], ranges: list[tuple[int, int]]) -> list[Any]:
    """``function(part, first, last)`` for every range, at the same time, in the order of the ranges."""
    if len(ranges) == 1:
        return [function(0, *ranges[0])]
    pool = _pool()
    others = [pool.submit(function, part, *each) for part, each in enumerate(ranges) if part]
    return [function(0, *ranges[0]), *(future.result() for future in others)]


_blas: dict[str, Any] = {"users": 0, "limit": None}
_lock = threading.Lock()


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Within it BLAS keeps to the thread that calls it, if kernels use several: products are shared out like the rest.

    A thread of OpenBLAS that has nothing to do keeps its processor busy for some milliseconds in case there is more to
    come, and so takes it from the kernels. Does nothing without threadpoolctl, or without Numba and so without kernels.
    """
    if threads() == 1 or not installed("numba") or _controller() is None:
        yield
        return
    with _lock:
        _blas["users"] += 1
        if _blas["users"] == 1:
            _blas["limit"] = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _blas["users"] -= 1
            if not _blas["users"]:
                _blas["limit"].restore_original_limits()


def products_are_shared_out() -> bool:
    """Whether BLAS keeps to one thread just now, so that a large product is worth cutting into parts."""
    return bool(_blas["users"])


@lru_cache(maxsize=1)
def _controller() -> Any:
    """What sets the number of threads of the BLAS libraries that are loaded; None if threadpoolctl is not there."""
    if not installed("threadpoolctl"):
        return None
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _pool() -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads.
    if _state["pool"] is None or _state["pool"][0] != os.getpid() or _state["pool"][1] < threads():
        _state["pool"] = (os.getpid(), threads(), ThreadPoolExecutor(threads(), thread_name_prefix="neko"))
    pool: ThreadPoolExecutor = _state["pool"][2]
    return pool
