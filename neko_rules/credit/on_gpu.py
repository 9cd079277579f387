"""Adjoint on a GPU: a population stepped backward in time by a Triton kernel made of the recursion's own step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from neko_rules.backend import Array, Backend
from neko_rules.credit.fused import Solved, traced_step
from neko_rules.credit.recursion import Setting
from neko_rules.kernels import triton
from neko_rules.kernels.tracing import Body, NotTraceableError
from neko_rules.layers.forward import Record
from neko_rules.layers.graph import Connection, Graph


@dataclass(frozen=True)
class Launch:
    """A kernel that goes back through time for one population.

    Args:
        name: of the population.
        kernel: the kernel.
        recorded: the histories that it needs.
        carried: how many values go from step to step.
        through: the places of carried values that go through a matrix between steps.
        outgoing: the connections whose matrices those are.
        instantaneous: whether the error within the time step goes down beside δ.
        learnable: the learnable constants, whose derivatives it writes at every step.
    """

    name: str
    kernel: Callable[..., Any]
    recorded: tuple[str, ...]
    carried: int
    through: tuple[int, ...]
    outgoing: tuple[Connection, ...]
    instantaneous: bool
    learnable: tuple[tuple[str, str], ...]

    def run(self, nx: Backend, setting: Setting, record: Record, signals: Sequence[Array]) -> Solved:
        """Go through all time steps.

        Args:
            nx: the backend.
            setting: the network.
            record: what the population did.
            signals: those that arrive, in the order in which the kernel was made for them.
        """
        shape = record.z.shape
        steps, batch, size = shape
        dtype = nx.dtype(record.z)
        histories = [nx.broadcast_to(signal, shape) + 0.0 for signal in signals]
        histories += [record.history(nx, key) for key in self.recorded]
        constants = list(setting.constants[self.name].values())
        results = [nx.full(shape, 0.0, dtype) for _ in range(1 + self.instantaneous + len(self.learnable))]
        carries = [nx.full((batch, size), 0.0, dtype) for _ in range(self.carried)]
        if not self.outgoing:
            triton.launch(self.kernel, [*histories, *constants, *results, *carries], steps, batch * size, size)
        else:
            backs = [setting.back(connection) for connection in self.outgoing]
            for t in reversed(range(steps)):
                sums = [nx.matmul(carries[i], back) for i, back in zip(self.through, backs, strict=True)]
                now = [each[t] for each in histories]
                then = [each[t] for each in results]
                triton.launch(self.kernel, [*now, *sums, *constants, *then, *carries], 1, batch * size, size)
        delta, *others = results
        within = {self.name: others[0]} if self.instantaneous else {}
        learned = [nx.sum(each, axis=(0, 1)) for each in others[self.instantaneous :]]
        return {self.name: delta}, within, dict(zip(self.learnable, learned, strict=True)), {}


_launches: WeakKeyDictionary[Graph, dict[Any, Launch | None]] = WeakKeyDictionary()


def launch_of(setting: Setting, name: str, arriving: tuple[tuple[str, str], ...], dtype: str) -> Launch | None:
    """The kernel of a population; None where its recursion has no scalar form.

    Args:
        setting: the network.
        name: of the population.
        arriving: keys of the signals that arrive.
        dtype: of all arrays.
    """
    ranks = tuple(len(value.shape) for value in setting.constants[name].values())
    key = (name, setting.credit, setting.jacobians[name], arriving, ranks, dtype)
    found = _launches.setdefault(setting.graph, {})
    if key not in found:
        try:
            found[key] = _written(setting, name, arriving, ranks, dtype)
        except NotTraceableError:
            found[key] = None
    return found[key]


def _written(
    setting: Setting, name: str, arriving: tuple[tuple[str, str], ...], ranks: tuple[int, ...], dtype: str
) -> Launch:
    step = traced_step(setting, name, arriving, ranks, Body(dtype, triton.LANE))
    outputs = [*step.errors, *step.learned]
    kernel = triton.adjoint_kernel(
        step.body,
        constants=step.constants,
        signals={f"signal{i}": value for i, value in enumerate(step.signals)},
        recorded={f"h_{key}": f"i_{key}" for key in step.recorded},
        carried=step.carried,
        sums={f"sum_{product}": f"g_{product}" for product, _ in step.products},
        outputs={f"out{i}": value for i, value in enumerate(outputs)},
    )
    places = [each.name for each in step.carried]
    return Launch(
        name,
        kernel,
        tuple(step.recorded),
        len(step.carried),
        tuple(places.index(of) for _, of in step.products),
        tuple(connection for connection, _ in step.recursion.outgoing[name]),
        bool(step.recursion.instantaneous),
        tuple(step.recursion.learnable),
    )
