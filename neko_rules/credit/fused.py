"""Fused adjoint: populations stepped backward in time by one compiled loop, made of the recursion's own step.

The error that comes back through weights between them is gathered from the neurons whose error is not zero: with a
surrogate of bounded support those may be few. Where they are many, the errors of a group are one product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.credit.leaking import without_leak
from neko_rules.credit.recursion import Constant as Learnable
from neko_rules.credit.recursion import Setting
from neko_rules.credit.traced import Product, Solved, Stage, Steps, TracedStep
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous, handed_over
from neko_rules.kernels.parallel import each as each_part
from neko_rules.kernels.tracing import SCALARS
from neko_rules.kernels.writer import Back, Sum, adjoint_source, back_arguments
from neko_rules.layers.forward import Record
from neko_rules.threads import parts


@dataclass(frozen=True)
class Loop:
    """A compiled loop back through time for populations that step together.

    Args:
        step: one step of it.
        kernel: the loop over a range of examples.
        dtype: of all arrays.
        arguments: the names of what the kernel takes, in order.
    """

    step: TracedStep
    kernel: Kernel
    dtype: str
    arguments: list[str]

    def run(
        self, host: HostBackend, setting: Setting, records: Mapping[str, Record], signals: Sequence[Array | Product]
    ) -> Solved:
        """Go through all time steps.

        Args:
            host: the backend.
            setting: the network.
            records: what the populations did.
            signals: those that arrive, in the order in which the loop was made for them.
        """
        step, dtype, nx = self.step, self.dtype, setting.nx

        def held(array: Array) -> np.ndarray:
            return contiguous(host.host(array))

        def typed(array: Array) -> np.ndarray:
            return handed_over(host.host(array), dtype)

        by_name: dict[str, Any] = {}
        # What a part of the examples has for itself: its last two axes are examples and neurons.
        own: dict[str, int] = {}
        coming = dict(zip((name for stage in step.stages for name in stage.signals), signals, strict=True))
        errors: dict[str, list[np.ndarray]] = {}
        totals: dict[str, list[np.ndarray]] = {}
        for place, stage in enumerate(step.stages):
            record = records[stage.name]
            shape = record.shape
            _, batch, size = shape
            for traced in stage.signals:
                name, one = traced.removeprefix("i_"), coming[traced]
                if isinstance(one, Product):
                    by_name |= {f"errors_{name}": typed(one.errors), f"back_{name}": typed(one.back)}
                    own[f"rows_{name}"] = size
                else:
                    by_name[name] = held(one if one.shape == shape else nx.broadcast_to(one, shape))
            by_name |= histories_of(host, nx, record, recorded(stage), starts(stage), dtype, str(place))
            for gathered in stage.gathered:
                from neko_rules.kernels.products import panels_of, rest_for

                if setting.versions is None:
                    matrix = typed(setting.back(gathered.connection))
                    panels = whole = panels_of(matrix, dtype)
                else:
                    weight = gathered.connection.weight
                    matrix, panels = typed(setting.versions.back[weight]), setting.versions.panels[weight]
                    whole = panels[0]
                by_name |= {f"matrix_{gathered.name}": matrix, f"panels_{gathered.name}": panels}
                own[f"sums_{gathered.name}"] = size
            by_name |= numbers_of(host, setting, stage.name, [constant.name for constant in stage.constants])
            own |= {f"carries_{one.name}": size for one in stage.carried}
            errors[stage.name] = [BUFFERS.empty(shape, dtype) for _ in stage.errors]
            totals[stage.name] = [np.empty((batch, size), dtype) for _ in range(stage.biased + len(stage.learned))]
            by_name |= {f"out{place}_{i}": each for i, each in enumerate(errors[stage.name])}
            by_name |= {f"total{place}_{i}": each for i, each in enumerate(totals[stage.name])}
        if "addresses" in self.arguments:
            from neko_rules.kernels.calling import addresses_of
            from neko_rules.kernels.gathering import back_calls

            by_name["addresses"] = addresses_of(back_calls(dtype, "rest" in self.arguments))
        sizes = [records[stage.name].shape[2] for stage in step.stages]
        if setting.versions is not None:
            by_name["which"] = setting.versions.which(records[step.stages[0].name].shape[0])

        def part(_: int, first: int, last: int) -> None:
            group = min(step.together(sizes), last - first)
            given = {name: np.empty((group, size), dtype) for name, size in own.items()}
            given |= by_name | {"first": first, "last": last, "group": group}
            if "rest" in self.arguments:
                given["rest"] = rest_for(whole)
            self.kernel(*(given[name] for name in self.arguments))

        steps, work = records[step.stages[0].name].shape[0], 0
        for stage, size in zip(step.stages, sizes, strict=True):
            work += size * (1 + len(stage.gathered) * size // 16)
        each_part(part, parts(batch, steps * batch * work))
        delta = {name: host.from_host(each[0]) for name, each in errors.items()}
        within = {name: host.from_host(each[1]) for name, each in errors.items() if len(each) > 1}
        learned: dict[Learnable, Array] = {}
        summed: dict[str, Array] = {}
        for stage in step.stages:
            sums = [host.from_host(np.add.reduce(total, axis=0)) for total in totals[stage.name]]
            learned |= zip(stage.learnable, sums[stage.biased :], strict=True)
            summed |= {stage.name: sums[0]} if stage.biased else {}
        return delta, within, learned, summed


_PREVIOUS = "previous_"
"""What ``Jacobians`` calls a history one step earlier begins with this."""


def _written(whole: TracedStep) -> Loop:
    step, leaks = without_leak(whole)
    backs = [_back(place, stage, leaks) for place, stage in enumerate(step.stages)]
    kernel: Kernel = module_of(adjoint_source(step.body, backs, step.varying)).run
    return Loop(step, kernel, step.body.dtype, back_arguments(backs, step.varying))


def histories_of(
    host: HostBackend,
    nx: Backend,
    record: Record,
    recorded: Iterable[str],
    starts: Iterable[str],
    dtype: str,
    place: str = "",
) -> dict[str, np.ndarray]:
    """What a loop takes of what a population did, by argument.

    Args:
        host, nx: the backend.
        record: what it did.
        recorded: the histories that are needed.
        starts: those that are needed one step earlier too.
        dtype: of all arrays.
        place: of the population in the loop.
    """
    found = {f"h{place}_{key}": contiguous(host.host(record.history(nx, key))) for key in recorded}
    for key in starts:
        at_rest = np.zeros(record.shape[1:], dtype)
        found[f"start{place}_{key}"] = at_rest if record.start is None else contiguous(host.host(record.start[key]))
    return found


def numbers_of(host: HostBackend, setting: Setting, name: str, arguments: Iterable[str]) -> dict[str, Any]:
    """The constants of a population, and by what its factors decay, by argument of a loop in their order."""
    held = (host.host(value) for value in setting.numbers(name))
    return {each: contiguous(of) if of.ndim else of[()] for each, of in zip(arguments, held, strict=True)}


def without_previous(names: Iterable[str]) -> list[str]:
    """The histories that are needed, of names as ``Jacobians`` has them."""
    return list(dict.fromkeys(key.removeprefix(_PREVIOUS) for key in names))


def previous(names: Iterable[str]) -> list[str]:
    """Those that are needed one step earlier too."""
    return [key.removeprefix(_PREVIOUS) for key in names if key.startswith(_PREVIOUS)]


def loads_of_histories(recorded: Mapping[str, str], begin: str) -> dict[str, str]:
    """What an innermost loop loads histories from.

    Args:
        recorded: traced name → the history, as ``Jacobians`` names it.
        begin: what the names of the arrays begin with.
    """
    return {
        traced: f"p_{begin}{key.removeprefix(_PREVIOUS)}[n]" if key.startswith(_PREVIOUS) else f"r_{begin}{key}[n]"
        for traced, key in recorded.items()
    }


def recorded(stage: Stage) -> list[str]:
    """The histories that a population's stage needs."""
    return without_previous(stage.recorded.values())


def starts(stage: Stage) -> list[str]:
    """Those that it needs one step earlier too."""
    return previous(stage.recorded.values())


def _back(place: int, stage: Stage, leaks: Mapping[str, str]) -> Back:
    """What a kernel is made of for a population."""
    loads = {each.traced: each.loading for each in stage.constants}
    loads |= {each.name: f"carry_{each.name}[n]" for each in stage.carried}
    loads |= {each: f"r_{each.removeprefix('i_')}[n]" for each in stage.signals}
    loads |= loads_of_histories(stage.recorded, f"h{place}_")
    loads |= {f"g_{each.name}": f"sum_{each.name}[n]" for each in stage.gathered}
    return Back(
        statements=stage.statements,
        constants=stage.constants,
        loads=loads,
        signals={each.removeprefix("i_"): of for each, of in zip(stage.signals, stage.products_of, strict=True)},
        recorded=[f"h{place}_{key}" for key in recorded(stage)],
        starts={f"start{place}_{key}": f"h{place}_{key}" for key in starts(stage)},
        carried=stage.carried,
        products=[Sum(each.name, each.of, leaks[each.of], bool(each.connection.delay)) for each in stage.gathered],
        outputs={f"out{place}_{i}": value for i, value in enumerate(stage.errors)},
        totals={f"total{place}_{i}": each for i, each in enumerate([*stage.errors[: stage.biased], *stage.learned])},
    )


LOOPS = Steps(SCALARS, _written)
"""The loops that have been made."""
