"""Fused forward pass: populations stepped through time by one compiled loop, generated from their cells' functions.

It takes the place of the scan in ``forward`` for a component of the network on a backend whose arrays lie in host
memory. Currents from sources that are mostly zero are gathered within the loop, spike by spike; the others are one
dense product over all time steps before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from neko_rules.backend import Array
from neko_rules.kernels.compiling import Kernel, module_of
from neko_rules.kernels.events import Events, index_type
from neko_rules.kernels.host import BUFFERS, contiguous, handed_over
from neko_rules.kernels.parallel import each
from neko_rules.kernels.tracing import Body, Memo
from neko_rules.kernels.writer import Constant, Stage, forward_arguments, forward_source, group_of
from neko_rules.layers.cell import Cell
from neko_rules.layers.traced import traced_results
from neko_rules.threads import parts

_NARROW = 32
"""Neurons below which a loop over them is mostly its beginning and its end: a readout of ten took twice the time."""


class Form(NamedTuple):
    """What the source of a forward kernel depends on, of one population.

    Args:
        cell: the neuron model.
        constants: names of the cell's constants, and whether each has one value per neuron.
        gathered: for every source whose events are walked, whether its values are all 1, and whether they arrive one
            step later.
        outside: whether a current is given.
        inner: for every source among the populations that step together, which one, and whether it is a step late.
        keep_current: whether the input current is recorded.
        lean: whether ψ is all that is recorded beside the events.
        listed: whether its events are listed.
        flat: whether a group's neurons are stepped in one loop.
    """

    cell: Cell
    constants: tuple[tuple[str, bool], ...]
    gathered: tuple[tuple[bool, bool], ...]
    outside: bool
    inner: tuple[tuple[int, bool], ...]
    keep_current: bool
    lean: bool
    listed: bool
    flat: bool


def goes_flat(size: int, constants: tuple[tuple[str, bool], ...], fed_back: bool, lean: bool) -> bool:
    """Whether a group's neurons are stepped in one loop, of a population that steps alone.

    Args:
        size: number of neurons.
        constants: names of the cell's constants, and whether each has one value per neuron.
        fed_back: whether it receives from itself.
        lean: whether ψ is all that is recorded beside the events.
    """
    return size < _NARROW and not any(per_neuron for _, per_neuron in constants) and not fed_back and not lean


class Forward(NamedTuple):
    """A compiled loop forward in time.

    Attributes:
        run: the loop over a range of examples.
        arguments: the names of what it takes, in order.
    """

    run: Kernel
    arguments: list[str]


_kernels: Memo[Forward] = Memo()


def kernel_of(forms: tuple[Form, ...], dtype: str) -> Forward | None:
    """The compiled loop; None where a cell or its surrogate asks for an operation that has no scalar form."""
    return _kernels.of((forms, dtype), lambda: _written(forms, dtype))


def _written(forms: tuple[Form, ...], dtype: str) -> Forward:
    body = Body(dtype)
    stages = [_stage(place, form, body) for place, form in enumerate(forms)]
    return Forward(module_of(forward_source(body, stages)).run, forward_arguments(stages))


def _stage(place: int, form: Form, body: Body) -> Stage:
    constants = [Constant(f"p{place}_{name}", per_neuron) for name, per_neuron in form.constants]
    begin = len(body.statements)
    results = traced_results(form.cell, (name for name, _ in form.constants), body, str(place), slope=form.lean)
    # One name where a state is handed on in place: two would be taken for rows that may overlap.
    arguments = {f"s{place}_{key}": f"{'o' if form.lean else 'q'}{place}_{key}[n]" for key in carried(form.cell)}
    for (name, _), each_constant in zip(form.constants, constants, strict=True):
        arguments[f"c{place}_{name}"] = each_constant.loading
    return Stage(
        statements=body.statements[begin:],
        states=form.cell.state_names(),
        constants=constants,
        arguments=arguments,
        results=results,
        gathered=form.gathered,
        outside=form.outside,
        inner=form.inner,
        binary=form.cell.spiking,
        keep_current=form.keep_current,
        lean=form.lean,
        listed=form.listed,
        flat=form.flat,
    )


def carried(cell: Cell) -> tuple[str, ...]:
    """What a step hands to the next."""
    return (*cell.state_names(), "z")


def together(of: Iterable[tuple[Cell, int]], dtype: str) -> int:
    """How many examples go through the time steps together, of these cells and so many neurons of each."""
    numbers = sum((len(carried(cell)) + 1) * size for cell, size in of)
    return group_of(numbers * np.dtype(dtype).itemsize)


class Given(NamedTuple):
    """A population and what it is given, as NumPy arrays.

    Args:
        cell: the neuron model.
        size: number of neurons.
        constants: by name, each a scalar or [neuron].
        bias: [neuron].
        outside: a current [time, batch, neuron].
        gathered: weights [pre, neuron] and the events that they meet in the same step.
        inner: (which of the populations, whether it is a step late) → weights [pre, neuron].
        start: every state and ``"z"`` before the first step, [batch, neuron]; None: zero.
        keep_current: whether the input current is recorded.
        lean: whether ψ is all that is recorded beside the events, of a spiking cell with one spike.
        listed: whether anybody looks at its events.
    """

    cell: Cell
    size: int
    constants: dict[str, np.ndarray]
    bias: np.ndarray | None
    outside: np.ndarray | None
    gathered: list[tuple[np.ndarray, Events]]
    inner: Mapping[tuple[int, bool], np.ndarray]
    start: dict[str, np.ndarray] | None
    keep_current: bool
    lean: bool
    listed: bool

    def form(self, alone: bool) -> Form:
        """What the source depends on.

        Args:
            alone: whether no other population steps with it.
        """
        order = tuple((name, value.ndim > 0) for name, value in self.constants.items())
        flat = alone and goes_flat(self.size, order, bool(self.inner), self.lean)
        ones = tuple((events.ones, False) for _, events in self.gathered)
        inner, outside = tuple(self.inner), self.outside is not None
        return Form(self.cell, order, ones, outside, inner, self.keep_current, self.lean, self.listed, flat)


class Stepped(NamedTuple):
    """What a population did, as NumPy arrays [time, batch, neuron].

    Args:
        states: by name; none where ψ is all that is recorded.
        z: the output; None there.
        slope: ψ of the spike; None elsewhere.
        current: the input current, if it was wanted.
        events: where the output is not zero; None if they were not listed.
    """

    states: dict[str, np.ndarray]
    z: np.ndarray | None
    slope: np.ndarray | None
    current: np.ndarray | None
    events: Events | None


def step_through(given: Sequence[Given], steps: int, batch: int, dtype: str) -> list[Stepped] | None:
    """Step populations through time together; None where a cell has no compiled form.

    Args:
        given: the populations, in the order in which they follow each other within a time step.
        steps: number of time steps.
        batch: number of examples.
        dtype: of all arrays.
    """
    forms = tuple(one.form(len(given) == 1) for one in given)
    forward = kernel_of(forms, dtype)
    if forward is None:
        return None
    fixed: list[Array] = []
    found = []
    work = 0
    for one in given:
        done = _room(one, steps, batch, dtype)
        fixed += _arguments(one, done, batch, dtype)
        found.append(done)
        fed_back = sum(matrix.shape[0] for matrix in one.inner.values())
        work += steps * batch * one.size * (1 + len(one.gathered)) * (1 + fed_back // 16)

    most = together(((one.cell, one.size) for one in given), dtype)

    def part(_: int, first: int, last: int) -> None:
        scratch: list[Array] = []
        group = min(most, last - first)
        for one, form in zip(given, forms, strict=True):
            if form.flat:
                scratch += [*np.empty((2, group, one.size), dtype)]
                continue
            scratch += [np.empty(one.size, index_type(one.size)), np.empty((group, one.size), dtype)]
            if one.lean:
                scratch += [*np.empty((len(carried(one.cell)), last - first, one.size), dtype)]
        forward.run(first, last, group, *fixed, *scratch)

    each(part, parts(batch, work))
    return found


def _room(one: Given, steps: int, batch: int, dtype: str) -> Stepped:
    """Arrays for what a population does."""
    shape = (steps, batch, one.size)
    fired = (BUFFERS.empty(shape, index_type(one.size)), np.empty((steps, batch), np.int32)) if one.listed else None
    if one.lean:
        assert fired is not None, "what fired is all that is known of the output"
        return Stepped({}, None, BUFFERS.empty(shape, dtype), None, Events(None, *fired, True))
    states = {key: BUFFERS.empty(shape, dtype) for key in one.cell.state_names()}
    z = BUFFERS.empty(shape, dtype)
    current = BUFFERS.empty(shape, dtype) if one.keep_current else None
    return Stepped(states, z, None, current, None if fired is None else Events(z, *fired, one.cell.spiking))


@lru_cache(maxsize=8)
def _at_rest(batch: int, size: int, dtype: str) -> np.ndarray:
    """Zeros, to be looked at only."""
    return np.zeros((batch, size), dtype)


def _arguments(one: Given, done: Stepped, batch: int, dtype: str) -> list[Array]:
    """In the order of ``Stage.given``."""
    from neko_rules.kernels.calling import addresses_of
    from neko_rules.kernels.gathering import forward_calls

    found: list[Array] = [np.zeros(one.size, dtype) if one.bias is None else contiguous(one.bias)]
    found += [contiguous(one.outside)] if one.outside is not None else []
    for weight, events in one.gathered:
        found += [addresses_of(forward_calls(dtype, index_type(weight.shape[0]), False)), handed_over(weight, dtype)]
        found += [events.index, events.count, handed_over(events.factors(dtype), dtype)]
    for (_, later), matrix in one.inner.items():
        found += [addresses_of(forward_calls(dtype, index_type(matrix.shape[0]), later)), handed_over(matrix, dtype)]
    found += [value if value.ndim else value[()] for value in one.constants.values()]
    keys = carried(one.cell)
    if one.start is None:
        found += [_at_rest(batch, one.size, dtype)] * len(keys)
    else:
        found += [handed_over(one.start[key], dtype) for key in keys]
    found += [*done.states.values(), *(each for each in (done.z, done.slope) if each is not None)]
    found += [done.current] if done.current is not None else []
    return found if done.events is None else [*found, done.events.index, done.events.count]
