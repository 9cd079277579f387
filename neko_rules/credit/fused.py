"""Fused adjoint: a population stepped backward in time by one compiled loop, made of the recursion's own step.

The error that comes back through recurrent weights is gathered from the neurons whose error is not zero: with a
surrogate of bounded support those may be few. Where they are many, the errors of a group are one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.backend import Array
from neko_rules.credit.leaking import without_leak
from neko_rules.credit.recursion import Setting
from neko_rules.credit.traced import Product, Solved, Steps, TracedStep
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous, handed_over
from neko_rules.kernels.parallel import each as each_part
from neko_rules.kernels.tracing import SCALARS
from neko_rules.kernels.writer import Back, adjoint_source
from neko_rules.layers.forward import Record, Z
from neko_rules.threads import parts


@dataclass(frozen=True)
class Loop:
    """A compiled loop back through time for one population.

    Args:
        step: one step of it.
        recorded: the histories that it needs.
        starts: those that it needs one step earlier.
        kernel: the loop over a range of examples.
        dtype: of all arrays.
        arguments: the names of what the kernel takes, in order.
    """

    step: TracedStep
    recorded: list[str]
    starts: list[str]
    kernel: Kernel
    dtype: str
    arguments: list[str]

    def run(self, host: HostBackend, setting: Setting, record: Record, signals: Sequence[Array | Product]) -> Solved:
        """Go through all time steps.

        Args:
            host: the backend.
            setting: the network.
            record: what the population did.
            signals: those that arrive, in the order in which the loop was made for them.
        """

        def held(array: Array) -> np.ndarray:
            return contiguous(host.host(array))

        step = self.step
        shape, dtype = record.shape, self.dtype
        _, batch, size = shape

        def typed(array: Array) -> np.ndarray:
            return handed_over(host.host(array), dtype)

        def history(key: str) -> Array:
            return record.z if key == Z else record.history(setting.nx, key)

        fixed: list[Any] = []
        for each in signals:
            if isinstance(each, Product):
                fixed += [typed(each.errors), typed(each.back)]
            else:
                fixed.append(held(each if each.shape == shape else setting.nx.broadcast_to(each, shape)))
        fixed += [held(history(key)) for key in self.recorded]
        for key in self.starts:
            fixed.append(np.zeros((batch, size), dtype) if record.start is None else held(record.start[key]))
        if step.outgoing:
            from neko_rules.kernels.products import panels_of, rest_for

            matrices = [typed(setting.back(connection)) for connection in step.outgoing]
            panels = [panels_of(matrix, dtype) for matrix in matrices]
            fixed += [each for pair in zip(matrices, panels, strict=True) for each in pair]
        constants = (host.host(value) for value in setting.constants[step.name].values())
        fixed += [contiguous(value) if value.ndim else value[()] for value in constants]
        errors = [BUFFERS.empty(shape, dtype) for _ in step.errors]
        totals = [np.empty((batch, size), dtype) for _ in range(step.biased + len(step.learned))]
        fixed += [*errors, *totals]

        called = []
        if step.outgoing or any(step.products_of):
            from neko_rules.kernels.gathering import back_addresses

            called = [back_addresses(dtype, bool(step.outgoing))]

        def part(_: int, first: int, last: int) -> None:
            group = min(step.together(size), last - first)
            carries = np.empty((len(step.carried), group, size), dtype)
            sums = np.empty((len(step.outgoing), group, size), dtype)
            rest = [rest_for(panels[0])] if step.outgoing else []
            rows = np.empty((sum(step.products_of), group, size), dtype)
            self.kernel(first, last, group, *called, *fixed, *carries, *sums, *rest, *rows)

        each_part(part, parts(batch, math.prod(shape) * (1 + len(step.outgoing) * size // 16)))
        sums = [host.from_host(np.add.reduce(total, axis=0)) for total in totals]
        learned = sums[step.biased :]
        return step.solved(
            [host.from_host(error) for error in errors], learned, {step.name: sums[0]} if step.biased else {}
        )


def _written(whole: TracedStep) -> Loop:
    step, leaks = without_leak(whole)
    arguments = {each.traced: each.loading for each in step.constants}
    arguments |= {each.name: f"carry_{each.name}[n]" for each in step.carried}
    arguments |= {each: f"r_{each.removeprefix('i_')}[n]" for each in step.signals}
    for key in step.recorded:
        now = key.removeprefix("previous_")
        arguments[f"i_{key}"] = f"p_h_{now}[n]" if now != key else f"r_h_{now}[n]"
    arguments |= {f"g_{product}": f"sum_{product}[n]" for product, _ in step.products}
    recorded = list(dict.fromkeys(key.removeprefix("previous_") for key in step.recorded))
    starts = [key.removeprefix("previous_") for key in step.recorded if key.startswith("previous_")]
    back = Back(
        constants=step.constants,
        loads=arguments,
        signals={each.removeprefix("i_"): of for each, of in zip(step.signals, step.products_of, strict=True)},
        recorded=[f"h_{key}" for key in recorded],
        starts=[f"h_{key}" for key in starts],
        carried=step.carried,
        products=step.products,
        leaks=leaks,
        outputs={f"out{i}": value for i, value in enumerate(step.errors)},
        totals={f"total{i}": each for i, each in enumerate([*step.errors[: step.biased], *step.learned])},
    )
    kernel: Kernel = module_of(adjoint_source(step.body, back)).run
    return Loop(step, recorded, starts, kernel, step.body.dtype, back.arguments)


LOOPS = Steps(SCALARS, _written)
"""The loops that have been made."""
