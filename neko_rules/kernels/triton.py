"""Triton: the same statements as loops for a GPU, one neuron of one example per lane.

A forward and an adjoint kernel of a population go through time steps within one launch. Where a step needs all neurons
of the step before, through recurrent weights, a launch makes one step and a dense product stands between launches.
Without a GPU Triton's interpreter runs the kernels (``TRITON_INTERPRET=1``), which is how the tests check them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from neko_rules.backend import Array, Backend
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import fusing
from neko_rules.kernels.tracing import Body, Dialect
from neko_rules.kernels.writer import Carried, Constant, Lines
from neko_rules.optional import installed

LANES = 256
"""Neurons times examples in a block of one launch."""


class Lanes(Dialect):
    """How operations are spelled in Triton."""

    named_literals = False
    functions: ClassVar[dict[str, str]] = {
        "abs": "tl.abs",
        "exp": "tl.exp",
        "log": "tl.log",
        "sqrt": "tl.sqrt",
        "tanh": "_tanh",
        "floor": "tl.floor",
    }
    operators: ClassVar[dict[str, str]] = {"and": "&", "or": "|"}

    def choice(self, condition: str, yes: str, no: str) -> str:
        """One of two values."""
        return f"tl.where({condition}, {yes}, {no})"

    def cast(self, value: str, dtype: str) -> str:
        """A value of another type."""
        return f"{value}.to(tl.{dtype})"

    def negation(self, condition: str) -> str:
        """The opposite of a condition."""
        return f"({condition} == 0)"


LANE = Lanes()

_HEAD = '''"""{title}; generated, do not edit."""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    # Of the smaller exponential, so that nothing overflows.
    decayed = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1 - decayed) / (1 + decayed)


@triton.jit
def run({arguments}, steps, lanes, size, LANES: tl.constexpr):
    i = tl.program_id(0) * LANES + tl.arange(0, LANES)
    there = i < lanes
'''


def on_gpu(nx: Backend) -> bool:
    """Whether kernels of this module may work on a backend's arrays."""
    return fusing() and bool(getattr(nx, "in_gpu_memory", False)) and installed("triton")


def _source(title: str, arguments: Sequence[str]) -> Lines:
    return Lines(_HEAD.format(title=title, arguments=", ".join(arguments)))


def _constants(source: Lines, constants: Sequence[Constant]) -> None:
    if any(constant.per_neuron for constant in constants):
        source.add(1, "n = i % size")
    for constant in constants:
        place = f"{constant.name} + n, mask=there, other=1.0" if constant.per_neuron else constant.name
        source.add(1, f"{constant.traced} = tl.load({place})")


def forward_kernel(
    body: Body, states: Sequence[str], constants: Sequence[Constant], results: Mapping[str, str]
) -> Callable[..., Any]:
    """The forward kernel of a population: current, starts, results, constants, steps, lanes, size.

    Args:
        body: the statements of ``update`` and ``emit``.
        states: names of the states.
        constants: of the cell.
        results: state or ``"z"`` → the traced name of its new value.
    """
    carried = [*states, "z"]
    names = ["current", *(f"start_{k}" for k in carried), *(f"out_{k}" for k in carried), *(c.name for c in constants)]
    source = _source("A forward pass of one population", names)
    _constants(source, constants)
    source.add(1, *(f"s_{key} = tl.load(start_{key} + i, mask=there, other=0.0)" for key in carried))
    source.add(1, "for t in range(steps):", "    o = t * lanes + i")
    source.add(2, "i_current = tl.load(current + o, mask=there, other=0.0)", *body.statements)
    for key in carried:
        source.add(2, f"tl.store(out_{key} + o, {results[key]}, mask=there)")
    source.add(2, *_moved_on({f"s_{key}": results[key] for key in carried}))
    run: Callable[..., Any] = module_of(source.text()).run
    return run


def adjoint_kernel(
    body: Body,
    *,
    constants: Sequence[Constant],
    signals: Mapping[str, str],
    recorded: Mapping[str, str],
    carried: Sequence[Carried],
    sums: Mapping[str, str],
    outputs: Mapping[str, str],
) -> Callable[..., Any]:
    """The adjoint kernel: signals, histories, gathered sums, constants, results, carries, steps, lanes, size.

    Args:
        body: the statements of one step back.
        constants: of the cell.
        signals: argument → traced name, of what comes from outside.
        recorded: argument → traced name, of histories, those of the step before being arguments of their own.
        carried: what goes from step to step.
        sums: argument → traced name, of what was gathered through a matrix for this step.
        outputs: argument → traced name, of what is written at every step.
    """
    carries = [f"carry_{each.name}" for each in carried]
    names = [*signals, *recorded, *sums, *(c.name for c in constants), *outputs, *carries]
    source = _source("An adjoint pass of one population", names)
    _constants(source, constants)
    source.add(1, *(f"{c.name} = tl.load(carry_{c.name} + i, mask=there, other=0.0)" for c in carried))
    source.add(1, *(f"{v} = tl.load({name} + i, mask=there, other=0.0)" for name, v in sums.items()))
    source.add(1, "for step in range(steps):", "    o = (steps - 1 - step) * lanes + i")
    for array, value in {**signals, **recorded}.items():
        source.add(2, f"{value} = tl.load({array} + o, mask=there, other=0.0)")
    source.add(2, *body.statements)
    for array, value in outputs.items():
        source.add(2, f"tl.store({array} + o, {value} + 0 * {_any(carried, signals)}, mask=there)")
    source.add(2, *_moved_on({c.name: c.result for c in carried}))
    source.add(1, *(f"tl.store(carry_{c.name} + i, {c.name}, mask=there)" for c in carried))
    run: Callable[..., Any] = module_of(source.text()).run
    return run


def _moved_on(after: Mapping[str, str]) -> list[str]:
    """Statements that give names their next values, all at once: one may be what another was, as on a delay line."""
    return [*(f"next_{name} = {value} + 0.0" for name, value in after.items()), *(f"{n} = next_{n}" for n in after)]


def _any(carried: Sequence[Carried], signals: Mapping[str, str]) -> str:
    return carried[0].name if carried else next(iter(signals.values()))


def launch(run: Callable[..., Any], arrays: Sequence[Array], steps: int, lanes: int, size: int) -> None:
    """Run a kernel over all lanes."""
    grid = (-(-lanes // LANES),)
    run[grid](*arrays, steps, lanes, size, LANES=LANES)  # type: ignore[index]
