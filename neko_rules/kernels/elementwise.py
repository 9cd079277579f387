"""Elementwise: a function of arrays of one shape, entry by entry, as one compiled loop instead of many operations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous, host_of, only_finite
from neko_rules.kernels.tracing import Body, Memo, TracingBackend
from neko_rules.kernels.writer import elementwise_source

Formula = Callable[[Any, Mapping[str, Any]], Sequence[Any]]
"""Results from a backend and the arguments by name."""

_kernels: Memo[Callable[..., Any]] = Memo()


def kernel_of(
    key: Hashable, formula: Formula, arrays: Sequence[str], scalars: Mapping[str, str], dtype: str
) -> Callable[..., Any] | None:
    """The loop that evaluates a formula at every entry; None where it has no scalar form.

    Args:
        key: what the formula depends on beside its arguments.
        formula: entry by entry.
        arrays: names of the arguments that are arrays.
        scalars: name → type of the arguments that are the same for all entries.
        dtype: of the arrays.
    """

    def written() -> Callable[..., Any]:
        body = Body(dtype)
        values = {name: body.argument(f"a_{name}") for name in arrays}
        values |= {name: body.argument(f"x_{name}", kind) for name, kind in scalars.items()}
        results = [body.value(each).name for each in formula(TracingBackend(body), values)]
        run: Callable[..., Any] = module_of(elementwise_source(body, list(arrays), list(scalars), results)).run
        return run

    return _kernels.of((key, tuple(arrays), tuple(scalars.items()), dtype), written)


def evaluated(
    host: HostBackend,
    run: Callable[..., Any],
    arrays: Sequence[Sequence[Array]],
    scalars: Sequence[Array],
    results: int,
) -> list[list[Array]]:
    """New arrays from a loop that ``kernel_of`` made, for every group of arrays.

    Args:
        host: the backend.
        run: the loop.
        arrays: for every argument that is an array, one array per group; within a group all have one shape.
        scalars: the other arguments.
        results: how many the loop has.

    Returns:
        For every result, one array per group.
    """
    given = [[contiguous(host.host(each)) for each in row] for row in arrays]
    shared = [host.host(scalar)[()] for scalar in scalars]
    ends = list(accumulate([each.size for each in given[0]], initial=0))
    out = []
    for _ in range(results):
        # One piece of memory for all groups of a result: asking for it costs more than a short loop.
        whole = BUFFERS.empty((ends[-1],), given[0][0].dtype)
        out.append([whole[begin:end] for begin, end in pairwise(ends)])
    flat = [[each.reshape(-1) for each in row] for row in given]
    for group in zip(*flat, *out, strict=True):
        run(*shared, *group)
    shapes = [each.shape for each in given[0]]
    return [[host.from_host(each.reshape(shape)) for each, shape in zip(row, shapes, strict=True)] for row in out]


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
    with np.errstate(over="ignore", invalid="ignore"):
        sound = only_finite(*map(host.host, arrays))
    return host.from_host(np.array(sound))


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
