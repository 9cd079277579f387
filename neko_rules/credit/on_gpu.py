"""Adjoint on a GPU: a population stepped backward in time by a Triton kernel made of the recursion's own step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neko_rules.backend import Array, Backend
from neko_rules.credit.recursion import Setting
from neko_rules.credit.traced import Solved, Steps, TracedStep
from neko_rules.kernels import triton
from neko_rules.layers.forward import Record


@dataclass(frozen=True)
class Launch:
    """A kernel that goes back through time for one population.

    Args:
        step: one step of it.
        kernel: the kernel.
    """

    step: TracedStep
    kernel: Callable[..., Any]

    def run(self, nx: Backend, setting: Setting, record: Record, signals: Sequence[Array]) -> Solved:
        """Go through all time steps.

        Args:
            nx: the backend.
            setting: the network.
            record: what the population did.
            signals: those that arrive, in the order in which the kernel was made for them.
        """
        step = self.step
        shape = record.z.shape
        steps, batch, size = shape
        dtype = nx.dtype(record.z)
        histories = [nx.broadcast_to(signal, shape) + 0.0 for signal in signals]
        histories += [record.history(nx, key) for key in step.recorded]
        constants = list(setting.constants[step.name].values())
        results = [nx.full(shape, 0.0, dtype) for _ in (*step.errors, *step.learned)]
        carries = {each.name: nx.full((batch, size), 0.0, dtype) for each in step.carried}
        if not step.outgoing:
            arrays = [*histories, *constants, *results, *carries.values()]
            triton.launch(self.kernel, arrays, steps, batch * size, size)
        else:
            backs = [setting.back(connection) for connection in step.outgoing]
            for t in reversed(range(steps)):
                sums = [nx.matmul(carries[of], back) for (_, of), back in zip(step.products, backs, strict=True)]
                now, then = [each[t] for each in histories], [each[t] for each in results]
                arrays = [*now, *sums, *constants, *then, *carries.values()]
                triton.launch(self.kernel, arrays, 1, batch * size, size)
        errors, learned = results[: len(step.errors)], results[len(step.errors) :]
        return step.solved(errors, [nx.sum(each, axis=(0, 1)) for each in learned], {})


def _written(step: TracedStep) -> Launch:
    kernel = triton.adjoint_kernel(
        step.body,
        constants=step.constants,
        signals={f"signal{i}": value for i, value in enumerate(step.signals)},
        recorded={f"h_{key}": f"i_{key}" for key in step.recorded},
        carried=step.carried,
        sums={f"sum_{product}": f"g_{product}" for product, _ in step.products},
        outputs={f"out{i}": value for i, value in enumerate([*step.errors, *step.learned])},
    )
    return Launch(step, kernel)


LAUNCHES = Steps(triton.LANE, _written)
"""The kernels that have been made."""
