"""Fused factors: the factors of a population carried through time by one compiled loop, made of their own step.

Where there is no loop for it, by operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from neko_rules.backend import Array
from neko_rules.credit.factors import Factors, by_operations
from neko_rules.credit.fused import histories_of, loads_of_histories, numbers_of, previous, without_previous
from neko_rules.credit.recursion import DECAYS, Local, Setting
from neko_rules.credit.traced import DECAY
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, host_of
from neko_rules.kernels.parallel import each
from neko_rules.kernels.tracing import Body, Memo, TracingBackend
from neko_rules.kernels.writer import Back, Carried, Constant, carried_source
from neko_rules.layers.forward import Record
from neko_rules.threads import parts


class Loop(NamedTuple):
    """A compiled loop forward in time.

    Attributes:
        factors: what it carries.
        wanted: the histories that it fills.
        kernel: the loop over a range of examples.
        arguments: the names of what the kernel takes, in order.
        recorded: the histories that it reads.
        starts: those that it reads one step earlier too.
        dtype: of all arrays.
        constants: names of the cell's constants, and of the decay, in the order of ``Setting.numbers``.
    """

    factors: Factors
    wanted: tuple[str, ...]
    kernel: Kernel
    arguments: list[str]
    recorded: list[str]
    starts: list[str]
    dtype: str
    constants: list[str]

    def run(
        self, host: HostBackend, setting: Setting, name: str, record: Record, start: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Go through all time steps; as ``through_time``."""
        steps, batch, size = record.shape
        last = {key: np.array(host.host(start[key]), self.dtype, order="C") for key in self.factors.carried}
        made = {key: BUFFERS.empty(record.shape, self.dtype) for key in self.wanted}
        by_name: dict[str, Any] = {f"carries_{key}": each for key, each in last.items()}
        by_name |= {f"out_{key}": each for key, each in made.items()}
        by_name |= histories_of(host, setting.nx, record, self.recorded, self.starts, self.dtype)
        by_name |= numbers_of(host, setting, name, self.constants)

        def part(_: int, first: int, end: int) -> None:
            given = by_name | {"first": first, "last": end}
            self.kernel(*(given[argument] for argument in self.arguments))

        each(part, parts(batch, steps * batch * size))
        filled = {key: host.from_host(one) for key, one in made.items()}
        return {key: host.from_host(one) for key, one in last.items()}, filled


def through_time(
    setting: Setting, name: str, record: Record, start: Mapping[str, Array] | None, wanted: tuple[str, ...], dtype: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The factors of a population: what is carried after the last time step, and histories [time, batch, neuron].

    Args:
        setting: the network.
        name: of the population.
        record: what it did.
        start: what is carried before the first time step; None for zeros.
        wanted: the histories that are asked for.
        dtype: of all arrays.
    """
    nx, jacobians, host = setting.nx, setting.jacobians[name], host_of(setting.nx)
    factors = Factors(setting.factored[name], jacobians)
    steps, batch, size = record.shape
    if start is None:
        start = dict.fromkeys(factors.carried, nx.full((batch, size), 0.0, dtype))
    loop = None if host is None else loop_of(setting, name, wanted, dtype)
    if host is not None and loop is not None:
        return loop.run(host, setting, name, record, start)
    cell, constants = setting.graph.cell(name), setting.constants[name]
    histories = {key: record.history(nx, key) for key in jacobians.arguments if key not in constants}

    def local(at: Mapping[str, Array]) -> Local:
        return jacobians.evaluate(nx, cell, constants, at.__getitem__)

    decay = setting.constants[DECAYS][name]
    return by_operations(nx, factors, histories, local, decay, start, wanted, steps)


_loops: Memo[Loop] = Memo()


def loop_of(setting: Setting, name: str, wanted: tuple[str, ...], dtype: str) -> Loop | None:
    """The compiled loop of a population; None where its derivatives ask for what has no scalar form.

    Args:
        setting: the network.
        name: of the population.
        wanted: the histories that are asked for.
        dtype: of all arrays.
    """
    ranks = tuple((key, len(value.shape)) for key, value in setting.constants[name].items())
    kind, jacobians, cell = setting.factored[name], setting.jacobians[name], setting.graph.cell(name)
    key = kind, jacobians, cell.surrogate, ranks, wanted, dtype
    return _loops.of(key, lambda: _written(setting, name, ranks, wanted, Body(dtype)))


def _written(
    setting: Setting, name: str, ranks: tuple[tuple[str, int], ...], wanted: tuple[str, ...], body: Body
) -> Loop:
    nx: Any = TracingBackend(body)
    factors, jacobians = Factors(setting.factored[name], setting.jacobians[name]), setting.jacobians[name]
    constants = [Constant(f"p_{key}", rank > 0) for key, rank in ranks]
    tokens: Any = {key: body.argument(one.traced) for (key, _), one in zip(ranks, constants, strict=True)}
    decay = Constant(f"p_{DECAY}", False)
    recorded = {f"i_{key}": key for key in jacobians.arguments if key not in tokens}
    histories = {key: body.argument(traced) for traced, key in recorded.items()}
    local = jacobians.evaluate(nx, setting.graph.cell(name), tokens, histories.__getitem__)
    before: Any = {key: body.argument(f"l_{key}") for key in factors.carried}
    like = before[factors.carried[0]]
    after, made = factors.step(nx, before, local, body.argument(decay.traced), like, wanted)
    every = [*constants, decay]
    loads = {one.traced: one.loading for one in every} | {f"l_{key}": f"carry_{key}[n]" for key in factors.carried}
    of = Back(
        statements=body.statements,
        constants=every,
        loads=loads | loads_of_histories(recorded, "h_"),
        signals={},
        recorded=[f"h_{key}" for key in without_previous(recorded.values())],
        starts={f"start_{key}": f"h_{key}" for key in previous(recorded.values())},
        carried=[Carried(key, body.value(each).name) for key, each in after.items()],
        products=[],
        outputs={f"out_{key}": body.value(made[key]).name for key in wanted},
        totals={},
    )
    kernel: Kernel = module_of(carried_source(body, of)).run
    arguments, own = ["first", "last", *of.arguments], [one.name for one in every]
    needed = without_previous(recorded.values()), previous(recorded.values())
    return Loop(factors, wanted, kernel, arguments, *needed, body.dtype, own)
