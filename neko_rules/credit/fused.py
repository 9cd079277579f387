"""Fused adjoint: a population stepped backward in time by one compiled loop, generated from the recursion's own step.

``Recursion.step`` is called with values that stand for one neuron; what it writes down is the body of the loop. The one
thing that is not elementwise, the error that comes back through recurrent weights, is gathered before it from the
neurons whose error is not zero: with a surrogate of bounded support those are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Array
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.events import index_type
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous
from neko_rules.kernels.threads import each, parts
from neko_rules.kernels.tracing import Body, NotTraceableError, Traced, TracingBackend
from neko_rules.kernels.writer import Carried, Constant, adjoint_source
from neko_rules.layers.forward import Record, Z
from neko_rules.layers.graph import Connection, Graph


class _Products(TracingBackend):
    """Traced operations, with a product that stands for a value gathered from all neurons."""

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self.products: list[tuple[str, str]] = []

    def matmul(self, error: Traced, back: Connection) -> Traced:
        """Σ_target error · back, gathered under the name of the connection's weight."""
        name = f"m{len(self.products)}"
        self.products.append((name, error.name))
        return self.body.argument(f"g_{name}")


@dataclass(frozen=True)
class Kernel:
    """A compiled step back through time.

    Args:
        run: the loop over a range of examples.
        outputs: how many errors it writes, of which δ is the first.
        totals: how many values it sums over time: δ, and the derivative of every learnable constant.
        products: how many matrices it gathers through.
        starts: the histories that it needs one step earlier.
        recorded: the histories that it needs.
    """

    run: Callable[..., Any]
    outputs: int
    totals: int
    products: int
    starts: tuple[str, ...]
    recorded: tuple[str, ...]


_kernels: WeakKeyDictionary[Graph, dict[Any, Kernel | None]] = WeakKeyDictionary()


def kernel_of(recursion: Any, traced: Callable[[Any, Any], Any], present: tuple[bool, ...], dtype: str) -> Kernel | None:
    """The loop for a recursion of one population; None where it has no scalar form.

    Args:
        recursion: of the arrays.
        traced: makes the same recursion over traced values, from a backend and the constants.
        present: for every signal that may arrive, whether it does.
        dtype: of all arrays.
    """
    setting = recursion.setting
    (name,) = recursion.group
    ranks = tuple(np.ndim(value) > 0 or len(value.shape) > 0 for value in setting.constants[name].values())
    key = (name, setting.credit, setting.jacobians[name], tuple(recursion.arriving), present, ranks, dtype)
    found = _kernels.setdefault(setting.graph, {})
    if key not in found:
        try:
            found[key] = _written(recursion, traced, present, ranks, dtype)
        except NotTraceableError:
            found[key] = None
    return found[key]


def _written(recursion: Any, traced: Callable[[Any, Any], Any], present: Sequence[bool], ranks: Any, dtype: str) -> Kernel:
    (name,) = recursion.group
    body = Body(dtype)
    nx = _Products(body)
    names = list(recursion.setting.constants[name])
    constants = [Constant(f"p_{key}", rank) for key, rank in zip(names, ranks, strict=True)]
    arguments = {f"c_{key}": constant.loading for key, constant in zip(names, constants, strict=True)}
    carry_names = [f"l{i}" for i, _ in enumerate(recursion.carried)]
    carry = tuple(body.argument(each) for each in carry_names)
    arguments |= {each: f"carry_{each}[n]" for each in carry_names}
    signals, inputs = [], []
    for i, there in enumerate(present):
        if there:
            signals.append(f"signal{i}")
            arguments[f"i_signal{i}"] = f"r_signal{i}[n]"
        inputs.append(body.argument(f"i_signal{i}") if there else body.literal(0.0, dtype))
    recorded, starts = [], []
    for _, key in recursion.recorded:
        earlier = key.removeprefix("previous_")
        if earlier != key:
            starts.append(earlier)
        if f"h_{earlier}" not in recorded:
            recorded.append(f"h_{earlier}")
        arguments[f"i_{key}"] = f"p_h_{earlier}[n]" if earlier != key else f"r_h_{key}[n]"
        inputs.append(body.argument(f"i_{key}"))
    twin = traced(nx, {name: {key: body.argument(f"c_{key}") for key in names}})
    after, results = twin.step(carry, tuple(inputs))
    arguments |= {f"g_{product}": f"sum_{product}[n]" for product, _ in nx.products}
    values = [body.value(each).name for each in results]
    errors = 1 + len(recursion.instantaneous)
    source = adjoint_source(
        body,
        constants=constants,
        arguments=arguments,
        signals=signals,
        recorded=recorded,
        starts=[f"h_{key}" for key in starts],
        carried=[Carried(each, body.value(value).name) for each, value in zip(carry_names, after, strict=True)],
        products=nx.products,
        outputs={f"out{i}": value for i, value in enumerate(values[:errors])},
        totals={f"total{i}": value for i, value in enumerate([values[0], *values[errors:]])},
    )
    histories = tuple(each.removeprefix("h_") for each in recorded)
    return Kernel(module_of(source).run, errors, 1 + len(values) - errors, len(nx.products), tuple(starts), histories)


def step_back(
    host: HostBackend, kernel: Kernel, recursion: Any, record: Record, signals: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """δ and what else is an error, [time, batch, neuron]; Σ δ and the gradients of learnable constants, [neuron].

    Args:
        host: the backend.
        kernel: the loop.
        recursion: of the arrays.
        record: what the population did.
        signals: those that arrive.
    """

    def held(array: Array) -> np.ndarray:
        return contiguous(host.host(array))

    (name,) = recursion.group
    z = held(record.z)
    steps, batch, size = z.shape
    dtype = str(z.dtype)
    histories = {**record.states, Z: record.z, "current": record.current}
    fixed: list[Any] = [held(signal) for signal in signals]
    fixed += [held(histories[key]) for key in kernel.recorded]
    for key in kernel.starts:
        fixed.append(np.zeros((batch, size), dtype) if record.start is None else held(record.start[key]))
    fixed += [held(back) for _, back in recursion.outgoing[name]]
    constants = (host.host(value) for value in recursion.setting.constants[name].values())
    fixed += [contiguous(value) if value.ndim else value[()] for value in constants]
    outputs = [BUFFERS.empty(z.shape, dtype) for _ in range(kernel.outputs)]
    totals = [np.empty((batch, size), dtype) for _ in range(kernel.totals)]
    fixed += [*outputs, *totals]
    scratch = len(recursion.carried) + kernel.products

    def part(_: int, first: int, last: int) -> None:
        rows = np.empty((scratch, size), dtype)
        lists = [np.empty(size, index_type(size))] if kernel.products else []
        kernel.run(first, last, *fixed, *rows, *lists)

    each(part, parts(batch, z.size * (1 + kernel.products * size // 16)))
    return [host.from_host(value) for value in outputs], [host.from_host(value.sum(axis=0)) for value in totals]
