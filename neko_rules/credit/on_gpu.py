"""Adjoint on a GPU: a population stepped backward in time by a Triton kernel made of the recursion's own step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def run(self, nx: Backend, setting: Setting, records: Mapping[str, Record], signals: Sequence[Array]) -> Solved:
        """Go through all time steps.

        Args:
            nx: the backend.
            setting: the network.
            records: what the population did, by its name.
            signals: those that arrive, in the order in which the kernel was made for them.
        """
        (step,) = self.step.stages
        record, shape = records[step.name], records[step.name].z.shape
        steps, batch, size = shape
        dtype = nx.dtype(record.z)
        histories = [nx.broadcast_to(signal, shape) + 0.0 for signal in signals]
        histories += [record.history(nx, key) for key in step.recorded.values()]
        constants = setting.numbers(step.name)
        results = [nx.full(shape, 0.0, dtype) for _ in (*step.errors, *step.learned)]
        carries = {each.name: nx.full((batch, size), 0.0, dtype) for each in step.carried}
        if not step.gathered:
            arrays = [*histories, *constants, *results, *carries.values()]
            triton.launch(self.kernel, arrays, steps, batch * size, size)
        else:
            backs = [setting.back(each.connection) for each in step.gathered]
            for t in reversed(range(steps)):
                sums = [nx.matmul(carries[each.of], back) for each, back in zip(step.gathered, backs, strict=True)]
                now, then = [each[t] for each in histories], [each[t] for each in results]
                arrays = [*now, *sums, *constants, *then, *carries.values()]
                triton.launch(self.kernel, arrays, 1, batch * size, size)
        delta, *within = results[: len(step.errors)]
        learned = [nx.sum(each, axis=(0, 1)) for each in results[len(step.errors) :]]
        within_step = {step.name: within[0]} if within else {}
        return {step.name: delta}, within_step, dict(zip(step.learnable, learned, strict=True)), {}


def _written(traced: TracedStep) -> Launch:
    (step,) = traced.stages
    kernel = triton.adjoint_kernel(
        traced.body,
        constants=step.constants,
        signals={f"signal{i}": value for i, value in enumerate(step.signals)},
        recorded={f"h_{key}": of for of, key in step.recorded.items()},
        carried=step.carried,
        sums={f"sum_{each.name}": f"g_{each.name}" for each in step.gathered},
        outputs={f"out{i}": value for i, value in enumerate([*step.errors, *step.learned])},
    )
    return Launch(traced, kernel)


LAUNCHES = Steps(triton.LANE, _written)
"""The kernels that have been made."""
