"""Fused forward pass: a population stepped through time by one compiled loop, generated from its cell's two functions.

It takes the place of the scan in ``forward`` for a component of one population on a backend whose arrays lie in host
memory. Input currents from sources that are mostly zero are gathered within the loop, spike by spike; the others are
one dense product over all time steps before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from neko_rules.backend import Array
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.events import Events, index_type
from neko_rules.kernels.host import BUFFERS, contiguous
from neko_rules.kernels.tracing import Body, Memo
from neko_rules.kernels.writer import Constant, forward_source
from neko_rules.layers.cell import Cell
from neko_rules.layers.traced import traced_results
from neko_rules.threads import each, parts

Kernel = Callable[..., Any]


class Form(NamedTuple):
    """What the source of a forward kernel depends on.

    Args:
        cell: the neuron model.
        dtype: of all arrays.
        constants: names of the cell's constants, and whether each has one value per neuron.
        gathered: for every source whose events are walked, whether its values are all 1.
        outside: whether a current is given.
        recurrent: whether the population feeds back to itself.
        keep_current: whether the input current is recorded.
    """

    cell: Cell
    dtype: str
    constants: tuple[tuple[str, bool], ...]
    gathered: tuple[bool, ...]
    outside: bool
    recurrent: bool
    keep_current: bool


_kernels: Memo[Kernel] = Memo()


def kernel_of(form: Form) -> Kernel | None:
    """The compiled loop; None where the cell or its surrogate asks for an operation that has no scalar form."""
    return _kernels.of(form, lambda: _written(form))


def _written(form: Form) -> Kernel:
    cell, body = form.cell, Body(form.dtype)
    constants = [Constant(f"p_{name}", per_neuron) for name, per_neuron in form.constants]
    results = traced_results(cell, (name for name, _ in form.constants), body)
    arguments = {f"s_{key}": f"carry_{key}[n]" for key in results} | {"i_current": "current[n]"}
    arguments |= {f"c_{name}": each.loading for (name, _), each in zip(form.constants, constants, strict=True)}
    source = forward_source(
        body,
        states=cell.state_names(),
        constants=constants,
        arguments=arguments,
        results=results,
        gathered=form.gathered,
        outside=form.outside,
        recurrent=form.recurrent,
        binary=cell.spiking,
        keep_current=form.keep_current,
    )
    run: Kernel = module_of(source).run
    return run


class Stepped(NamedTuple):
    """What a population did, as NumPy arrays [time, batch, neuron].

    Args:
        states: by name.
        z: the output.
        current: the input current, if it was wanted.
        events: where the output is not zero.
    """

    states: dict[str, np.ndarray]
    z: np.ndarray
    current: np.ndarray | None
    events: Events


def step_through(
    cell: Cell,
    constants: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    dtype: str,
    *,
    bias: np.ndarray | None,
    outside: np.ndarray | None,
    gathered: list[tuple[np.ndarray, Events]],
    recurrent: np.ndarray | None,
    start: dict[str, np.ndarray] | None,
    keep_current: bool,
) -> Stepped | None:
    """Step one population through time; None where its cell has no compiled form.

    Args:
        cell: the neuron model.
        constants: by name, each a scalar or [neuron].
        shape: (time, batch, neuron).
        dtype: of all arrays.
        bias: [neuron].
        outside: a current [time, batch, neuron].
        gathered: weights [pre, neuron] and the events that they meet in the same step.
        recurrent: weights [neuron, neuron] that the population's own output meets one step later.
        start: every state and ``"z"`` before the first step, [batch, neuron]; None: zero.
        keep_current: whether the input current is recorded.
    """
    steps, batch, size = shape
    order = tuple((name, value.ndim > 0) for name, value in constants.items())
    ones = tuple(events.ones for _, events in gathered)
    run = kernel_of(Form(cell, dtype, order, ones, outside is not None, recurrent is not None, keep_current))
    if run is None:
        return None
    keys = (*cell.state_names(), "z")
    out = {key: BUFFERS.empty(shape, dtype) for key in keys}
    current = BUFFERS.empty(shape, dtype) if keep_current else None
    fired = BUFFERS.empty(shape, index_type(size))
    count = np.empty((steps, batch), np.int32)
    zeros = np.zeros((batch, size), dtype) if start is None else None
    fixed: list[Array] = [np.zeros(size, dtype) if bias is None else contiguous(bias)]
    fixed += [contiguous(outside)] if outside is not None else []
    for weight, events in gathered:
        fixed += [contiguous(weight), events.index, events.count, events.values]
    fixed += [contiguous(recurrent)] if recurrent is not None else []
    fixed += [value if value.ndim else value[()] for value in constants.values()]
    fixed += [zeros if start is None else contiguous(start[key]) for key in keys]
    fixed += list(out.values())
    fixed += [current] if current is not None else []
    fixed += [fired, count]
    work = steps * batch * size * (1 + len(gathered)) * (1 + (recurrent is not None) * size // 16)

    def part(_: int, first: int, last: int) -> None:
        run(first, last, *fixed, *np.empty((1 + len(keys), size), dtype))

    each(part, parts(batch, work))
    z = out.pop("z")
    return Stepped(out, z, current, Events(z, fired, count, cell.spiking))
