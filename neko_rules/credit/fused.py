"""Fused adjoint: a population stepped backward in time by one compiled loop, generated from the recursion's own step.

``Recursion.step`` is called with values that stand for one neuron; what it writes down is the body of the loop. The one
thing that is not elementwise, the error that comes back through recurrent weights, is gathered before it from the
neurons whose error is not zero: with a surrogate of bounded support those are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Array
from neko_rules.credit.recursion import Constant as Learnable
from neko_rules.credit.recursion import Recursion, Setting
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.events import index_type
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous
from neko_rules.kernels.threads import each as each_part
from neko_rules.kernels.threads import parts
from neko_rules.kernels.tracing import Body, NotTraceableError, Traced, TracingBackend
from neko_rules.kernels.writer import TOGETHER, Carried, Constant, adjoint_source
from neko_rules.layers.forward import Record, Z
from neko_rules.layers.graph import Connection, Graph

Solved = tuple[dict[str, Array], dict[str, Array], dict[Learnable, Array], dict[str, Array]]
"""By population: δ; q_t·h_t G_t where that is what goes down, [time, batch, neuron]; dE/dc; Σ_t δ_t if it is known."""


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
class Loop:
    """A compiled loop back through time for one population.

    Args:
        name: of the population.
        kernel: the loop over a range of examples.
        recorded: the histories that it needs.
        starts: those that it needs one step earlier.
        carried: how many values go from step to step.
        outgoing: connections that carry error back through a matrix within the loop.
        instantaneous: whether the error within the time step goes down beside δ.
        learnable: the learnable constants, whose derivatives it sums up.
    """

    name: str
    kernel: Callable[..., Any]
    recorded: tuple[str, ...]
    starts: tuple[str, ...]
    carried: int
    outgoing: tuple[Connection, ...]
    instantaneous: bool
    learnable: tuple[tuple[str, str], ...]

    def run(self, host: HostBackend, setting: Setting, record: Record, signals: Sequence[Array]) -> Solved:
        """Go through all time steps.

        Args:
            host: the backend.
            setting: the network.
            record: what the population did.
            signals: those that arrive, in the order in which the loop was made for them.
        """

        def held(array: Array) -> np.ndarray:
            return contiguous(host.host(array))

        name = self.name
        z = held(record.z)
        _, batch, size = z.shape
        histories = {**record.states, Z: record.z, "current": record.current}
        spread = (each if each.shape == record.z.shape else setting.nx.broadcast_to(each, z.shape) for each in signals)
        fixed: list[Any] = [held(each) for each in spread]
        fixed += [held(histories[key]) for key in self.recorded]
        for key in self.starts:
            fixed.append(np.zeros((batch, size), z.dtype) if record.start is None else held(record.start[key]))
        fixed += [held(setting.back(connection)) for connection in self.outgoing]
        constants = (host.host(value) for value in setting.constants[name].values())
        fixed += [contiguous(value) if value.ndim else value[()] for value in constants]
        errors = [BUFFERS.empty(z.shape, z.dtype) for _ in range(1 + self.instantaneous)]
        totals = [np.empty((batch, size), z.dtype) for _ in range(1 + len(self.learnable))]
        fixed += [*errors, *totals]

        def part(_: int, first: int, last: int) -> None:
            rows = np.empty((self.carried + len(self.outgoing), TOGETHER, size), z.dtype)
            lists = [np.empty(size, index_type(size))] if self.outgoing else []
            self.kernel(first, last, *fixed, *rows, *lists)

        each_part(part, parts(batch, z.size * (1 + len(self.outgoing) * size // 16)))
        delta, *within = (host.from_host(error) for error in errors)
        summed, *learned = (host.from_host(total.sum(axis=0)) for total in totals)
        return (
            {name: delta},
            {name: within[0]} if within else {},
            dict(zip(self.learnable, learned, strict=True)),
            {name: summed},
        )


_loops: WeakKeyDictionary[Graph, dict[Any, Loop | None]] = WeakKeyDictionary()


def loop_of(setting: Setting, name: str, arriving: tuple[tuple[str, str], ...], dtype: str) -> Loop | None:
    """The loop of a population; None where its recursion has no scalar form.

    Args:
        setting: the network.
        name: of the population.
        arriving: keys of the signals that arrive.
        dtype: of all arrays.
    """
    ranks = tuple(len(value.shape) for value in setting.constants[name].values())
    key = (name, setting.credit, setting.jacobians[name], arriving, ranks, dtype)
    found = _loops.setdefault(setting.graph, {})
    if key not in found:
        try:
            found[key] = _written(setting, name, arriving, ranks, dtype)
        except NotTraceableError:
            found[key] = None
    return found[key]


@dataclass(frozen=True)
class TracedStep:
    """One step back of a population, written down.

    Args:
        body: the statements.
        constants: of the cell; traced as ``c_name``.
        recursion: the recursion over traced values.
        signals: traced names of the signals that arrive.
        recorded: names of the histories that are needed, as ``Jacobians`` names them; traced as ``i_name``.
        carried: what goes from step to step.
        products: (name, what goes through a matrix): gathered values, traced as ``g_name``.
        errors: traced names of δ, and of the error within the time step where it goes down apart.
        learned: traced names of the derivatives of learnable constants.
    """

    body: Body
    constants: list[Constant]
    recursion: Recursion
    signals: list[str]
    recorded: list[str]
    carried: list[Carried]
    products: list[tuple[str, str]]
    errors: list[str]
    learned: list[str]


def traced_step(
    setting: Setting, name: str, arriving: tuple[tuple[str, str], ...], ranks: tuple[int, ...], body: Body
) -> TracedStep:
    """Write one step back of a population down.

    Args:
        setting: the network.
        name: of the population.
        arriving: keys of the signals that arrive.
        ranks: for every constant, 1 if it has one value per neuron.
        body: where to.

    Raises:
        NotTraceableError: an operation has no scalar form.
    """
    nx: Any = _Products(body)
    names = list(setting.constants[name])
    tokens: Any = {name: {key: body.argument(f"c_{key}") for key in names}}
    recursion = Recursion(
        replace(setting, nx=nx, constants=tokens, back=lambda connection: connection),
        (name,),
        tuple(key for key in arriving if key[1] != Z),
    )
    carry = [f"l{i}" for i, _ in enumerate(recursion.carried)]
    signals = [f"i_signal{i}" for i, _ in enumerate(arriving)]
    inputs = [
        body.argument(signals[arriving.index(each)]) if each in arriving else body.literal(0.0, body.dtype)
        for each in recursion.arriving
    ]
    recorded = [key for _, key in recursion.recorded]
    inputs += [body.argument(f"i_{key}") for key in recorded]
    after, results = recursion.step(tuple(body.argument(each) for each in carry), tuple(inputs))
    values = [body.value(each).name for each in results]
    errors = 1 + len(recursion.instantaneous)
    return TracedStep(
        body,
        [Constant(f"p_{key}", rank > 0) for key, rank in zip(names, ranks, strict=True)],
        recursion,
        signals,
        recorded,
        [Carried(each, body.value(value).name) for each, value in zip(carry, after, strict=True)],
        nx.products,
        values[:errors],
        values[errors:],
    )


def _written(
    setting: Setting, name: str, arriving: tuple[tuple[str, str], ...], ranks: tuple[int, ...], dtype: str
) -> Loop:
    step = traced_step(setting, name, arriving, ranks, Body(dtype))
    arguments = {f"c_{each.name.removeprefix('p_')}": each.loading for each in step.constants}
    arguments |= {each.name: f"carry_{each.name}[n]" for each in step.carried}
    arguments |= {each: f"r_{each.removeprefix('i_')}[n]" for each in step.signals}
    for key in step.recorded:
        now = key.removeprefix("previous_")
        arguments[f"i_{key}"] = f"p_h_{now}[n]" if now != key else f"r_h_{now}[n]"
    arguments |= {f"g_{product}": f"sum_{product}[n]" for product, _ in step.products}
    recorded = list(dict.fromkeys(key.removeprefix("previous_") for key in step.recorded))
    starts = [key.removeprefix("previous_") for key in step.recorded if key.startswith("previous_")]
    source = adjoint_source(
        step.body,
        constants=step.constants,
        arguments=arguments,
        signals=[each.removeprefix("i_") for each in step.signals],
        recorded=[f"h_{key}" for key in recorded],
        starts=[f"h_{key}" for key in starts],
        carried=step.carried,
        products=step.products,
        outputs={f"out{i}": value for i, value in enumerate(step.errors)},
        totals={f"total{i}": value for i, value in enumerate([step.errors[0], *step.learned])},
    )
    return Loop(
        name,
        module_of(source).run,
        tuple(recorded),
        tuple(starts),
        len(step.carried),
        tuple(connection for connection, _ in step.recursion.outgoing[name]),
        bool(step.recursion.instantaneous),
        tuple(step.recursion.learnable),
    )
