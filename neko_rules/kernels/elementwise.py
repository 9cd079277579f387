"""Elementwise: a function of arrays of one shape, entry by entry, as one compiled loop instead of many operations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous, host_of
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
    host: HostBackend, run: Callable[..., Any], arrays: Sequence[Array], scalars: Sequence[Array], results: int
) -> list[Array]:
    """New arrays from a loop that ``kernel_of`` made."""
    views = [contiguous(host.host(array)) for array in arrays]
    out = [BUFFERS.empty(views[0].shape, views[0].dtype) for _ in range(results)]
    run(*(host.host(scalar)[()] for scalar in scalars), *(each.reshape(-1) for each in (*views, *out)))
    return [host.from_host(each) for each in out]


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
    from neko_rules.kernels.rows import count_not_finite

    views = (contiguous(host.host(array)) for array in arrays)
    return host.from_host(np.array(not any(count_not_finite(view.reshape(-1)) for view in views)))
