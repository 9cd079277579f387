"""Elementwise: a function of arrays of one shape, entry by entry, as one compiled loop instead of many operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.buffers import Form, together
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over, host_of, only_finite
from neko_rules.kernels.tracing import Body, Memo, TracingBackend
from neko_rules.kernels.writer import elementwise_source

Formula = Callable[[Any, Mapping[str, Any]], Sequence[Any]]
"""Results from a backend and the arguments by name."""


class Loop(NamedTuple):
    """A formula, compiled.

    Attributes:
        run: ``run(scalars…, arrays…, results…)``, all vectors of one size.
        run_all: ``run_all(sizes, addresses, results, scalars…, of_each…)`` for vectors at addresses [array, group],
            with the results of all groups in one vector, result by result and each from a line of the cache on: returns
            whether all are finite. Without denormals.
        iterate: ``iterate(sizes, addresses, number, odd, scalars…, of_each…)``, which writes results over the arguments
            from the second on: scalars are entries ``number`` of vectors, and ``odd[0]`` is 1 where something is not
            finite. None where results are not as many.
        address: where an array begins.
        dtype: of the arrays, and of vectors ``of_each``, which have one number for every group.
        scalars: the types of the scalars.
        of_each: how many vectors of that kind there are.
    """

    run: Kernel
    run_all: Kernel
    iterate: Kernel | None
    address: Kernel
    dtype: str
    scalars: tuple[str, ...]
    of_each: int


_kernels: Memo[Loop] = Memo()


def kernel_of(
    key: Hashable,
    formula: Formula,
    arrays: Sequence[str],
    scalars: Mapping[str, str],
    dtype: str,
    of_each: Sequence[str] = (),
    norm: str = "",
) -> Loop | None:
    """The loop that evaluates a formula at every entry; None where it has no scalar form.

    Args:
        key: what the formula depends on beside its arguments.
        formula: entry by entry.
        arrays: names of the arguments that are arrays.
        scalars: name → type of the arguments that are the same for all entries.
        dtype: of the arrays.
        of_each: names of the arguments that every group has one number of.
        norm: whether the argument ``"norm"`` is the Euclidean norm of the first array of a group (``"each"``) or of
            all groups (``"all"``); empty where there is none.
    """

    def written() -> Loop:
        from neko_rules.kernels.calling import address
        from neko_rules.kernels.denormals import flushed

        body = Body(dtype)
        values = {name: body.argument(f"a_{name}") for name in arrays}
        values |= {name: body.argument(f"x_{name}", kind) for name, kind in scalars.items()}
        values |= {name: body.argument(f"x_{name}") for name in (*of_each, *(["norm"] if norm else []))}
        results = [body.value(each).name for each in formula(TracingBackend(body), values)]
        module: Any = module_of(elementwise_source(body, arrays, list(scalars), results, of_each, norm))
        loops = module.run, partial(flushed, module.run_all), getattr(module, "iterate", None)
        return Loop(*loops, address, dtype, tuple(scalars.values()), len(of_each))

    return _kernels.of((key, tuple(arrays), tuple(scalars.items()), dtype, tuple(of_each), norm), written)


def evaluated(
    host: HostBackend,
    loop: Loop,
    arrays: Sequence[Sequence[Array]],
    scalars: Sequence[Array],
    results: int,
    of_each: Sequence[np.ndarray] = (),
) -> tuple[list[list[Array]], bool]:
    """New arrays from a loop that ``kernel_of`` made, for every group of arrays.

    Args:
        host: the backend.
        loop: the loop.
        arrays: for every argument that is an array, one array per group; within a group all have one shape.
        scalars: the other arguments.
        results: how many the loop has.
        of_each: of the arguments that every group has one number of, all of them.

    Returns:
        For every result one array per group, and whether all are finite.
    """
    view = host.host
    given = [[handed_over(view(each), loop.dtype) for each in row] for row in arrays]
    rows, whole, sizes = _room(loop, given[0], results)
    alone = [view(scalar)[()] for scalar in scalars]
    finite = loop.run_all(sizes, _addresses(loop, given), whole, *alone, *of_each)
    return [list(map(host.from_host, row)) for row in rows], finite


class Iterated:
    """A loop whose results are its arguments the next time, in memory of its own.

    Args:
        loop: of one more argument, the first, which is another each time; scalars aside.
        rows: the others before the first time: one array per group.
        scalars: every other argument of all times, one after the other.
        of_each: of the arguments that every group has one number of, all of them.

    Attributes:
        rows: the others as they are.
        arguments: what ``loop.iterate`` takes, but for the number of the time: sizes, addresses, ``odd``, scalars, and
            ``of_each``.

    Example:
        >>> loop = kernel_of("half", lambda nx, a: [0.5 * (a["x"] + a["y"])], ["x", "y"], {}, "float64")
        >>> halves = Iterated(loop, [[np.zeros(2), np.zeros(1)]], [])
        >>> for number in range(3):
        ...     halves.step(number, [np.ones(2), np.full(1, 8.0)])
        >>> halves.rows[0][0].tolist(), halves.rows[0][1].tolist(), halves.finite
        ([0.875, 0.875], [7.0], True)
    """

    def __init__(
        self,
        loop: Loop,
        rows: Sequence[Sequence[np.ndarray]],
        scalars: Sequence[np.ndarray],
        of_each: Sequence[np.ndarray] = (),
    ) -> None:
        assert loop.iterate is not None, "a loop that has as many results as it takes again"
        self.loop, self._run = loop, loop.iterate
        self.rows, self._whole, sizes = _room(loop, rows[0], len(rows))
        self._copy = self._whole
        for own, row in zip(self.rows, rows, strict=True):
            for into, each in zip(own, row, strict=True):
                into[...] = each
        given = [handed_over(each, kind) for each, kind in zip(scalars, loop.scalars, strict=True)]
        # The first row holds the places of what is another each time.
        table = _addresses(loop, [self.rows[0], *self.rows])
        self.arguments = sizes, table, np.zeros(1, np.int64), given, of_each

    def meet(self, first: Sequence[np.ndarray]) -> None:
        """Say where the first argument of every group lies, in C order and of the loop's type."""
        self.arguments[1][0] = [self.loop.address(each) for each in first]

    def step(self, number: int, first: Sequence[np.ndarray]) -> None:
        """Run once: for the time of that number, with that first argument of every group."""
        from neko_rules.kernels.denormals import flushed

        self.meet(first)
        sizes, table, odd, scalars, of_each = self.arguments
        flushed(self._run, sizes, table, number, odd, *scalars, *of_each)

    def copied(self) -> list[list[np.ndarray]]:
        """``rows`` in memory of their own."""
        rows, self._copy, _ = _room(self.loop, self.rows[0], len(self.rows))
        self._copy[...] = self._whole
        return rows

    def take_back(self) -> None:
        """Go on from what ``copied`` gave last, as it is now."""
        self._whole[...] = self._copy

    @property
    def finite(self) -> bool:
        """Whether all results of the last time are."""
        return not self.arguments[2][0]

    def address(self) -> int:
        """Where the machine code of ``loop.iterate`` begins."""
        return _iterate_address(self._run, (*self.loop.scalars, *[self.loop.dtype] * self.loop.of_each))


@lru_cache(maxsize=64)
def _iterate_address(iterate: Kernel, vectors: tuple[str, ...]) -> int:
    from neko_rules.kernels.ahead import Wanted
    from neko_rules.kernels.calling import address_of, array_type

    given = [array_type("int64", 1), array_type("int64", 2), array_type("int64", 0), array_type("int64", 1)]
    return address_of(Wanted(iterate, (*given, *(array_type(kind, 1) for kind in vectors))))


def _addresses(loop: Loop, rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Where arrays begin, [array, group]."""
    return np.array([[loop.address(each) for each in row] for row in rows])


def _room(
    loop: Loop, groups: Sequence[np.ndarray], results: int
) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
    """Memory for results like some arrays: one array per group for every result, their vector, and entries of each."""
    # One piece for all, and one call: asking for either costs more than a short loop.
    form, sizes = laid_out(tuple([each.shape for each in groups]), results, loop.dtype)
    *arrays, whole = BUFFERS.lent(form)
    return [arrays[i : i + len(groups)] for i in range(0, len(arrays), len(groups))], whole, sizes


@lru_cache(maxsize=256)
def laid_out(shapes: tuple[tuple[int, ...], ...], results: int, dtype: str) -> tuple[Form, np.ndarray]:
    """How the results of a loop lie in memory, of every group of every result, and the entries of each group."""
    return together(shapes * results, np.dtype(dtype)), np.array([math.prod(shape) for shape in shapes])


def all_finite(nx: Backend, arrays: Sequence[Array]) -> Array:
    """Whether no entry of any array is NaN or infinite, a boolean scalar.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> bool(all_finite(get_backend("numpy"), [np.ones(3), np.array([0.0, np.inf])]))
        False
    """
    host = host_of(nx)
    if host is None:
        return nx.all(nx.stack([nx.all(nx.isfinite(array)) for array in arrays], 0))
    return host.from_host(np.array(only_finite(*map(host.host, arrays))))


def finite_names(nx: Backend, groups: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """By name, whether everything that groups of arrays hold under it is finite, a boolean scalar.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> flags = finite_names(get_backend("numpy"), [{"w": np.ones(3)}, {"w": np.ones(3), "b": np.array([np.nan])}])
        >>> {name: bool(flag) for name, flag in flags.items()}
        {'w': True, 'b': False}
    """
    names = dict.fromkeys(name for group in groups for name in group)
    if host_of(nx) is not None:
        # One look at everything, which nearly always is all there is to see.
        flag = all_finite(nx, [array for group in groups for array in group.values()])
        if flag:
            return dict.fromkeys(names, flag)
    return {name: all_finite(nx, [group[name] for group in groups if name in group]) for name in names}
