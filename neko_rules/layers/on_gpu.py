"""Forward pass on a GPU: a population stepped through time by a Triton kernel made of its cell's two functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from neko_rules.backend import Array, Backend
from neko_rules.kernels import triton
from neko_rules.kernels.tracing import Body, NotTraceableError, TracingBackend
from neko_rules.kernels.writer import Constant
from neko_rules.layers.cell import Cell, CellOperations, Constants, namespace


@lru_cache(maxsize=256)
def _kernel(cell: Cell, constants: tuple[tuple[str, bool], ...], dtype: str) -> Callable[..., Any] | None:
    body = Body(dtype, triton.LANE)
    operations = CellOperations(TracingBackend(body), cell.surrogate)  # type: ignore[arg-type]
    states = cell.state_names()
    p = namespace({name: body.argument(f"c_{name}") for name, _ in constants})
    before = {key: body.argument(f"s_{key}") for key in (*states, "z")}
    try:
        after = cell.update(operations, p, namespace(before), before["z"], body.argument("i_current"))
        emitted = body.value(cell.emit(operations, p, namespace({key: body.value(after[key]) for key in states})))
    except NotTraceableError:
        return None
    results = {**{key: body.value(after[key]).name for key in states}, "z": emitted.name}
    return triton.forward_kernel(body, states, [Constant(f"p_{name}", rank) for name, rank in constants], results)


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
