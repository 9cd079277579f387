"""Forward pass on a GPU: a population stepped through time by a Triton kernel made of its cell's two functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neko_rules.backend import Array, Backend
from neko_rules.kernels import triton
from neko_rules.kernels.tracing import Body, Memo
from neko_rules.kernels.writer import Constant
from neko_rules.layers.cell import Cell, Constants
from neko_rules.layers.traced import traced_results

_kernels: Memo[Callable[..., Any]] = Memo()


def _kernel(cell: Cell, constants: tuple[tuple[str, bool], ...], dtype: str) -> Callable[..., Any] | None:
    def written() -> Callable[..., Any]:
        body = Body(dtype, triton.LANE)
        results = traced_results(cell, (name for name, _ in constants), body)
        ranked = [Constant(f"p_{name}", rank) for name, rank in constants]
        return triton.forward_kernel(body, cell.state_names(), ranked, results)

    return _kernels.of((cell, constants, dtype), written)


def step_through(
    nx: Backend,
    cell: Cell,
    constants: Constants,
    current: Array,
    recurrent: Array | None,
    start: dict[str, Array] | None,
) -> tuple[dict[str, Array], Array, Array] | None:
    """States by name, output and input current [time, batch, neuron]; None where the cell has no compiled form.

    Args:
        nx: the backend.
        cell: the neuron model.
        constants: by name.
        current: from outside of the population, [time, batch, neuron]; what feeds back is added to it in place.
        recurrent: weights [neuron, neuron] that the population's own output meets one step later.
        start: every state and ``"z"`` before the first step, [batch, neuron]; None: zero.
    """
    dtype = nx.dtype(current)
    run = _kernel(cell, tuple((name, len(value.shape) > 0) for name, value in constants.items()), dtype)
    if run is None:
        return None
    steps, batch, size = current.shape
    keys = (*cell.state_names(), "z")
    zero = nx.full((batch, size), 0.0, dtype)
    before = {key: zero if start is None else start[key] for key in keys}
    out = {key: nx.full(current.shape, 0.0, dtype) for key in keys}
    if recurrent is None:
        arrays = [current, *before.values(), *out.values(), *constants.values()]
        triton.launch(run, arrays, steps, batch * size, size)
    else:
        for t in range(steps):
            current[t] += nx.matmul(before["z"], recurrent)
            after = {key: value[t] for key, value in out.items()}
            arrays = [current[t], *before.values(), *after.values(), *constants.values()]
            triton.launch(run, arrays, 1, batch * size, size)
            before = after
    z = out.pop("z")
    return out, z, current
