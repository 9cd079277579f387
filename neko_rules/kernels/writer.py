"""Writer: the source of a forward kernel and of an adjoint kernel, around the statements that were traced.

Both go through time step after time step, within it through a group of examples, and through all neurons in the
innermost loop, which the compiler turns into vector code. Histories are [time, batch, neuron], so they are read and
written in the order in which they lie in memory; going through the time steps of one example, whose rows lie far apart,
was measured to take half as long again. A group is as large as what it hands from step to step fits a cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neko_rules.kernels.buffers import LINE
from neko_rules.kernels.compiling import release
from neko_rules.kernels.tracing import Body

_HEAD = '''"""{title}; generated, do not edit."""

import math

import numpy as np
from numpy import bool_, float32, float64

from neko_rules.kernels.compiling import kernel, thin
'''


@dataclass(frozen=True)
class Constant:
    """A constant of a cell in a kernel.

    Args:
        name: of the kernel's argument.
        per_neuron: whether it is an array with one value per neuron.
    """

    name: str
    per_neuron: bool

    @property
    def traced(self) -> str:
        """What the statements call it."""
        return f"c_{self.name.removeprefix('p_')}"

    @property
    def loading(self) -> str:
        """What the innermost loop calls it."""
        return f"{self.name}[n]" if self.per_neuron else self.name


TOGETHER = 4
"""Examples that go back through a matrix side by side: each of its rows is fetched once for all of them."""

_FIRST_CACHE, _SECOND_CACHE = 12 << 10, 1 << 18
"""Bytes that a group of examples hands from step to step, which a cache holds beside what else passes."""


def group_of(per_example: int, fed_back: bool = False) -> int:
    """How many examples go through the time steps as a group.

    As many as a first cache holds the states of. More of them where their errors go through recurrent weights: these
    are then fetched less often, which is more than the states are. In a chain for 16 examples of 128 neurons at a time,
    groups of four took 0.9 of the time forward and 0.84 of that back through time, without recurrent weights.

    Args:
        per_example: bytes that one example hands from step to step.
        fed_back: whether errors go through recurrent weights.

    Example:
        >>> group_of(1 << 11), group_of(1 << 14), group_of(1 << 11, fed_back=True)
        (4, 4, 128)
    """
    cache = _SECOND_CACHE if fed_back else _FIRST_CACHE
    return max(1, cache // max(1, per_example) // TOGETHER) * TOGETHER


class Lines:
    """Lines of a module, with indentation.

    Args:
        head: the first ones.
    """

    def __init__(self, head: str) -> None:
        self._lines = [head.rstrip("\n")]

    def add(self, depth: int, *lines: str) -> None:
        """Lines at a depth of indentation."""
        self._lines += ["    " * depth + line for line in lines]

    def text(self) -> str:
        """The module."""
        return "\n".join(self._lines) + "\n"


_COMPILED_IN = {
    "calling": ("call", "vector"),
    "lowering": ("lowered",),
    "exponential": tuple(f"{name}_{dtype}" for name in ("exp", "log", "tanh") for dtype in ("float32", "float64")),
    "listing": ("list_row",),
    "norms": ("largest_of", "sum_of_squares"),
}
"""Functions that are compiled into the kernels that call them, by module."""


class Source(Lines):
    """A module for Numba.

    Args:
        title: of the module.
        bodies: whose literals it needs.
    """

    def __init__(self, title: str, *bodies: Body) -> None:
        super().__init__("")
        self._title = title
        self._imported: list[str] = []
        for body in bodies:
            for name, (dtype, value) in body.literals.items():
                number = repr(value) if value == value and abs(value) != float("inf") else f'float("{value}")'
                self._lines.append(f"{name} = {dtype}({number})")

    def function(self, name: str, arguments: Sequence[str], kind: str = "kernel") -> None:
        """Begin a function, compiled as a function of ``kernels.compiling`` does."""
        self._lines += ["", "", f"@{kind}", f"def {name}(", *(f"    {each}," for each in arguments), "):"]

    def call(self, depth: int, function: str, addresses: str, number: int, arguments: Sequence[str]) -> None:
        """A statement that calls a function of ``kernels.gathering`` at its address."""
        self.imports("neko_rules.kernels.gathering", function, function)
        self.add(depth, f"call({function}, {addresses}, {number}, ({', '.join(arguments)}))")

    def imports(self, module: str, function: str, name: str) -> None:
        """Import a function that is called at its address, under a name."""
        line = f"from {module} import {function} as {name}\n"
        if line not in self._imported:
            self._imported.append(line)

    def text(self) -> str:
        """The module, with an import of every function that its statements call."""
        statements = super().text()
        called = set(re.findall(r"\b(\w+)\(", statements))
        head = _HEAD.format(title=self._title)
        for module, names in _COMPILED_IN.items():
            own = sorted(called.intersection(names))
            if own:
                head += f"from neko_rules.kernels.{module} import {', '.join(own)}\n"
        # Releases that share a folder have modules of their own there.
        return f"{head}{''.join(self._imported)}{statements}\n# {release()}\n"


@dataclass(frozen=True)
class Stage:
    """One population of a forward kernel.

    Args:
        statements: of ``update`` and ``emit``.
        states: names of the states.
        constants: of the cell.
        arguments: traced name → what the loop loads it from, for states, ``z`` and constants.
        results: state or ``"z"`` → the traced name of its new value.
        gathered: for every source outside whose events are walked, whether all its values are 1, and whether they
            arrive one step later.
        outside: whether a current [time, batch, neuron] is given.
        inner: for every source among the stages, which one, and whether its events arrive one step later.
        binary: whether the neuron's output is 0 or 1.
        keep_current: whether the input current is recorded.
        lean: whether of the histories only that of ``results["slope"]`` is written; states are handed on in scratch.
        listed: whether its events are listed.
        flat: whether a group's neurons are stepped in one loop, as far as it may be a loop of its own: alone in the
            kernel, with histories, constants for all neurons, and no source that steps with it.
    """

    statements: Sequence[str]
    states: Sequence[str]
    constants: Sequence[Constant]
    arguments: Mapping[str, str]
    results: Mapping[str, str]
    gathered: Sequence[tuple[bool, bool]]
    outside: bool
    inner: Sequence[tuple[int, bool]]
    binary: bool
    keep_current: bool
    lean: bool
    listed: bool
    flat: bool

    @property
    def carried(self) -> tuple[str, ...]:
        """What a step hands to the next."""
        return (*self.states, "z")

    def given(self, place: int) -> list[str]:
        """The arguments of the kernel that belong to it."""
        names = [f"bias{place}", *([f"outside{place}"] if self.outside else [])]
        for i, (_, later) in enumerate(self.gathered):
            names += [f"{name}{place}_{i}" for name in ("calls", "weight", "index", "count", "values")]
            names += [f"{name}{place}_{i}" for name in ("began", "row") if later]
        for i, _ in enumerate(self.inner):
            names += [f"{name}{place}_{i}" for name in ("called", "matrix")]
        names += [constant.name for constant in self.constants]
        names += [f"start{place}_{key}" for key in self.carried]
        names += [f"out{place}_{key}" for key in self.histories]
        return [*names, *([f"fired{place}", f"fired_count{place}"] if self.listed else [])]

    @property
    def histories(self) -> tuple[str, ...]:
        """What is written of it, [time, batch, neuron]."""
        return (*(("slope",) if self.lean else self.carried), *(("current",) if self.keep_current else ()))

    def scratch(self, place: int) -> list[str]:
        """The rows that it works in."""
        names = [f"first{place}", f"current{place}"] if not self.flat else [f"current{place}", f"biases{place}"]
        return [*names, *(f"kept{place}_{key}" for key in self.carried)] if self.lean else names


def forward_arguments(stages: Sequence[Stage]) -> list[str]:
    """The names of a forward kernel's arguments, in order."""
    names = [name for place, stage in enumerate(stages) for name in stage.given(place)]
    return ["first", "last", "group", *names, *(name for i, stage in enumerate(stages) for name in stage.scratch(i))]


def forward_source(body: Body, stages: Sequence[Stage]) -> str:
    """The forward kernel of populations stepped together: ``run(first, last, group, …)`` over a range of examples.

    Args:
        body: where the statements of all stages were written.
        stages: the populations, in the order in which they follow each other within a time step.
    """
    source = Source("A forward pass of populations that step together", body)
    (shape, *_) = (f"out0_{key}.shape" for key in stages[0].histories)
    source.function("run", forward_arguments(stages))
    source.add(1, *(f"size{i} = out{i}_{stage.histories[0]}.shape[2]" for i, stage in enumerate(stages)))
    source.add(1, f"steps, batch, _ = {shape}")
    # A literal would be of a type of its own.
    source.add(1, "true, false = first == first, first != first")
    if stages[0].flat:
        _add_flat(source, stages[0])
        return source.text()
    source.add(1, "for begin in range(first, last, group):", "    end = min(begin + group, last)")
    source.add(2, "for t in range(steps):")
    for place, stage in enumerate(stages):
        _add_stage(source, place, stage, stages)
    return source.text()


def _add_stage(source: Source, place: int, stage: Stage, stages: Sequence[Stage]) -> None:
    """One time step of a population in a group: currents, states, and the lists of its events."""
    current, size = f"current{place}", f"size{place}"
    begin = f"outside{place}[t, b, n] + bias{place}[n]" if stage.outside else f"bias{place}[n]"
    source.add(3, "for b in range(begin, end):", f"    row = {current}[b - begin]", f"    for n in range({size}):")
    source.add(5, f"row[n] = {begin}")
    _add_gathered(source, 3, place, stage)
    for i, (of, delayed) in enumerate(stage.inner):
        sender, own = stages[of], f"{place}_{i}"
        ones = "true" if sender.binary else "false"
        # Whatever is not looked at, where all values are 1.
        values = f"out{of}_{sender.histories[0] if sender.binary else 'z'}"
        listed = [f"fired{of}", f"fired_count{of}", f"matrix{own}", values, ones, current]
        at = ["t - 1" if delayed else "t", "begin", "end"]
        if delayed:
            source.add(3, "if t > 0:")
        source.call(3 + delayed, "from_events", f"called{own}", 0, [*at, *listed])
        if delayed:
            source.add(3, "else:")
            started = [f"start{of}_z", f"first{of}", f"matrix{own}", ones, current]
            source.call(4, "from_rows", f"called{own}", 1, ["begin", "end", *started])
    source.add(3, "for b in range(begin, end):", f"    row = {current}[b - begin]")
    if stage.lean:
        source.add(4, *(f"o{place}_{key} = kept{place}_{key}[b - first]" for key in stage.carried))
        source.add(4, "if t == 0:", f"    for n in range({size}):")
        source.add(6, *(f"o{place}_{key}[n] = start{place}_{key}[b, n]" for key in stage.carried))
    else:
        source.add(4, "if t > 0:", *(f"    q{place}_{key} = out{place}_{key}[t - 1, b]" for key in stage.carried))
        source.add(4, "else:", *(f"    q{place}_{key} = start{place}_{key}[b]" for key in stage.carried))
    source.add(4, *(f"o{place}_{key} = out{place}_{key}[t, b]" for key in stage.histories))
    source.add(4, f"for n in range({size}):", *(f"    {each}" for each in _stepped(place, stage, "row")))
    if stage.listed:
        source.add(4, f"fired_count{place}[t, b] = list_row(o{place}_z, {size}, fired{place}[t, b])")


def _add_flat(source: Source, stage: Stage) -> None:
    """All time steps of a population whose neurons are too few to fill a loop: a group's are gone through as one row.

    In C order the rows of a group lie one behind the other.
    """
    source.add(1, "for e in range(group):", "    for n in range(size0):", "        biases0[e, n] = bias0[n]")
    flat = [f"out0_{key}" for key in stage.histories] + (["outside0"] if stage.outside else [])
    source.add(1, *(f"flat_{name} = {name}.reshape(steps, batch * size0)" for name in flat))
    source.add(1, *(f"flat_start0_{key} = start0_{key}.reshape(batch * size0)" for key in stage.carried))
    source.add(1, "flat_current, flat_biases = current0.reshape(group * size0), biases0.reshape(group * size0)")
    source.add(1, "for begin in range(first, last, group):", "    end = min(begin + group, last)")
    source.add(
        2, "head, tail = begin * size0, end * size0", "for t in range(steps):", "    for n in range(tail - head):"
    )
    source.add(4, f"flat_current[n] = {'flat_outside0[t, head + n] + ' if stage.outside else ''}flat_biases[n]")
    _add_gathered(source, 3, 0, stage)
    source.add(3, "if t > 0:", *(f"    q0_{key} = flat_out0_{key}[t - 1, head:tail]" for key in stage.carried))
    source.add(3, "else:", *(f"    q0_{key} = flat_start0_{key}[head:tail]" for key in stage.carried))
    source.add(3, *(f"o0_{key} = flat_out0_{key}[t, head:tail]" for key in stage.histories))
    source.add(3, "for n in range(tail - head):", *(f"    {each}" for each in _stepped(0, stage, "flat_current")))
    if stage.listed:
        source.add(3, "for b in range(begin, end):")
        source.add(4, "fired_count0[t, b] = list_row(out0_z[t, b], size0, fired0[t, b])")


def _add_gathered(source: Source, depth: int, place: int, stage: Stage) -> None:
    """Add what the events of other populations, or of the input, bring to a group's currents."""
    for i, (ones, later) in enumerate(stage.gathered):
        own, all_ones = f"{place}_{i}", "true" if ones else "false"
        given = [f"index{own}", f"count{own}", f"weight{own}", f"values{own}", all_ones, f"current{place}"]
        if later:
            source.add(depth, "if t > 0:")
        at = ["t - 1" if later else "t", "begin", "end"]
        source.call(depth + later, "from_events", f"calls{own}", 0, [*at, *given])
        if later:
            before = [f"began{own}", f"row{own}", f"weight{own}", all_ones, f"current{place}"]
            source.add(depth, "else:")
            source.call(depth + 1, "from_rows", f"calls{own}", 1, ["begin", "end", *before])


def _stepped(place: int, stage: Stage, current: str) -> list[str]:
    """Statements for one entry of a row: from its current and the states before to what is written of it."""
    lines = [f"o{place}_current[n] = {current}[n]"] if stage.keep_current else []
    loaded = {**stage.arguments, f"i{place}_current": f"{current}[n]"}
    lines += [*(f"{name} = {loading}" for name, loading in loaded.items()), *stage.statements]
    return lines + [f"o{place}_{key}[n] = {result}" for key, result in stage.results.items()]


@dataclass(frozen=True)
class Carried:
    """What a step back hands to the step before it.

    Args:
        name: of the variable.
        result: the traced name of what is handed on.
    """

    name: str
    result: str


@dataclass(frozen=True)
class Sum:
    """A value that is gathered from all neurons of a population through a matrix.

    Args:
        name: of the value, and of the matrix.
        of: the name of what is carried that goes through it.
        leak: the constant by which the value decays from step to step, or nothing.
        later: whether it is of what the step after handed on, and not of what this step does.
    """

    name: str
    of: str
    leak: str
    later: bool


@dataclass(frozen=True)
class Back:
    """What an adjoint kernel is made of for one population.

    Args:
        statements: of one step back.
        constants: of the cell.
        loads: traced name → what the innermost loop loads it from.
        signals: what comes from outside: an array [time, batch, neuron], or, where true, errors [time, batch, above]
            and the matrix [above, neuron] that carries them back, multiplied out where it is used.
        recorded: arrays of the forward pass.
        starts: what was before the first step [batch, neuron] → the array that it precedes.
        carried: what goes from step to step.
        products: values that are gathered.
        outputs: array [time, batch, neuron] → traced name.
        totals: array [batch, neuron] that sums a value over time → traced name.
    """

    statements: Sequence[str]
    constants: Sequence[Constant]
    loads: Mapping[str, str]
    signals: Mapping[str, bool]
    recorded: Sequence[str]
    starts: Mapping[str, str]
    carried: Sequence[Carried]
    products: Sequence[Sum]
    outputs: Mapping[str, str]
    totals: Mapping[str, str]

    @property
    def calls(self) -> bool:
        """Whether it calls what ``kernels.gathering`` lists."""
        return bool(self.products) or any(self.signals.values())

    @property
    def multiplied(self) -> list[str]:
        """The signals that are multiplied out where they are used."""
        return [name for name, product in self.signals.items() if product]

    @property
    def arguments(self) -> list[str]:
        """The names of the kernel's arguments that are its own, in order."""
        names: list[str] = []
        for name, product in self.signals.items():
            names += [f"errors_{name}", f"back_{name}"] if product else [name]
        names += [*self.recorded, *self.starts]
        names += [f"{kind}_{product.name}" for product in self.products for kind in ("matrix", "panels")]
        names += [constant.name for constant in self.constants]
        names += [*self.outputs, *self.totals, *(f"carries_{each.name}" for each in self.carried)]
        names += [f"sums_{product.name}" for product in self.products]
        return names + [f"rows_{name}" for name in self.multiplied]


def back_arguments(stages: Sequence[Back], varying: bool = False) -> list[str]:
    """The names of an adjoint kernel's arguments, in order; ``varying`` as for ``adjoint_source``."""
    names = ["first", "last", "group"]
    names += ["addresses"] if any(stage.calls for stage in stages) else []
    names += ["which"] if varying else []
    names += [name for stage in stages for name in stage.arguments]
    return names + (["rest"] if any(stage.products for stage in stages) else [])


def adjoint_source(body: Body, stages: Sequence[Back], varying: bool = False) -> str:
    """The adjoint kernel of populations: ``run(first, last, …)`` over a range of examples, from the last step back.

    Args:
        body: where the statements of all stages were written.
        stages: the populations, in the order in which one step back goes through them.
        varying: whether there are several of every matrix, of which ``which`` [time + 1] says the one of each step.
    """
    source = Source("An adjoint pass of populations that step together", body)
    source.function("run", back_arguments(stages, varying))
    source.add(1, *(f"size{i} = {next(iter(stage.outputs))}.shape[2]" for i, stage in enumerate(stages)))
    source.add(1, f"steps = {next(iter(stages[0].outputs))}.shape[0]", "for begin in range(first, last, group):")
    source.add(2, "end = min(begin + group, last)", "count = end - begin")
    for place, stage in enumerate(stages):
        begun = [f"carries_{each.name}[b - begin, n] = 0" for each in stage.carried]
        begun += [f"{name}[b, n] = 0" for name in stage.totals]
        begun += [f"sums_{product.name}[b - begin, n] = 0" for product in stage.products]
        if begun:
            source.add(2, "for b in range(begin, end):", f"    for n in range(size{place}):")
            source.add(4, *begun)
    source.add(2, "for t in range(steps - 1, -1, -1):")
    # Before a stage writes over what the step after handed on.
    for product in (product for stage in stages for product in stage.products if product.later):
        _gather_back(source, body, product, varying)
    for place, stage in enumerate(stages):
        _add_stage_back(source, body, place, stage, varying)
    return source.text()


def _gather_back(source: Source, body: Body, product: Sum, varying: bool) -> None:
    """Fill the sums of a group with what comes through a matrix."""
    name, by = product.name, f"{body.dtype}({product.leak or 0})"
    at = f"[which[{'t + 1' if product.later else 't'}]]" if varying else ""
    handed = [f"carries_{product.of}", f"matrix_{name}{at}", f"panels_{name}{at}", f"sums_{name}"]
    source.call(3, "back_through", "addresses", 0, ["count", *handed, "rest", by])


def _add_stage_back(source: Source, body: Body, place: int, stage: Back, varying: bool) -> None:
    """One step back of a population in a group."""
    for product in stage.products:
        if not product.later:
            _gather_back(source, body, product, varying)
    for name in stage.multiplied:
        handed = [f"errors_{name}", f"back_{name}", f"rows_{name}"]
        source.call(3, "from_above", "addresses", 1, ["t", "begin", "count", *handed])
    whole = [name for name in stage.signals if name not in stage.multiplied]
    source.add(3, "for b in range(begin, end):")
    source.add(4, *(f"r_{name} = {name}[t, b]" for name in (*whole, *stage.recorded, *stage.outputs)))
    source.add(4, *(f"r_{name} = rows_{name}[b - begin]" for name in stage.multiplied))
    source.add(4, *(f"carry_{each.name} = carries_{each.name}[b - begin]" for each in stage.carried))
    source.add(4, *(f"sum_{product.name} = sums_{product.name}[b - begin]" for product in stage.products))
    for start, history in stage.starts.items():
        source.add(4, f"p_{history} = {history}[t - 1, b] if t > 0 else {start}[b]")
    source.add(4, *(f"r_{name} = {name}[b]" for name in stage.totals))
    source.add(4, f"for n in range(size{place}):")
    source.add(5, *(f"{name} = {loading}" for name, loading in stage.loads.items()))
    source.add(5, *stage.statements)
    source.add(5, *(f"r_{name}[n] = {result}" for name, result in stage.outputs.items()))
    source.add(5, *(f"r_{name}[n] += {result}" for name, result in stage.totals.items()))
    source.add(5, *(f"carry_{each.name}[n] = {each.result}" for each in stage.carried))


def carried_source(body: Body, of: Back) -> str:
    """A kernel that carries something forward in time: ``run(first, last, …)`` over a range of examples.

    Args:
        body: where the statements of a step were written.
        of: what it is made of; what is carried [batch, neuron] lies where it is taken from, under ``carries_name``.
    """
    source, (out, *_) = Source("Something carried through time", body), of.outputs
    source.function("run", ["first", "last", *of.arguments])
    source.add(1, f"steps, _, size = {out}.shape", "for b in range(first, last):")
    source.add(2, *(f"carry_{each.name} = carries_{each.name}[b]" for each in of.carried), "for t in range(steps):")
    source.add(3, *(f"r_{name} = {name}[t, b]" for name in (*of.recorded, *of.outputs)))
    for start, history in of.starts.items():
        source.add(3, f"p_{history} = {history}[t - 1, b] if t > 0 else {start}[b]")
    source.add(3, "for n in range(size):", *(f"    {name} = {loading}" for name, loading in of.loads.items()))
    source.add(4, *of.statements, *(f"r_{name}[n] = {result}" for name, result in of.outputs.items()))
    source.add(4, *(f"carry_{each.name}[n] = {each.result}" for each in of.carried))
    return source.text()


def elementwise_source(
    body: Body,
    arrays: Sequence[str],
    scalars: Sequence[str],
    results: Sequence[str],
    of_each: Sequence[str] = (),
    norm: str = "",
) -> str:
    """A kernel that evaluates statements at every entry of vectors: ``run(scalars…, arrays…, results…)``.

    Beside it ``run_all(sizes, addresses, results, scalars…, of_each…)`` does so for many vectors of the type of the
    body at addresses [array, group], writes the results of all one after the other, result by result and each from a
    line of the cache on, and returns whether all of them are finite. And ``iterate(sizes, addresses, number, odd,
    scalars…, of_each…)`` writes results over the arguments from the second on, takes the scalars from the place
    ``number`` of vectors, and puts whether anything is not finite in ``odd[0]``; it is there where there are that many
    arguments.

    Args:
        body: the statements.
        arrays: names of the arguments that are vectors; traced as ``a_name``.
        scalars: names of the others; traced as ``x_name``.
        results: traced names of what is written.
        of_each: names of those of which every group has its own; traced as ``x_name``.
        norm: whether ``x_norm`` is the Euclidean norm of the first vector of a group (``"each"``), or of those of all
            groups together (``"all"``); empty where nobody asks for it.
    """
    source = Source("A function of the entries of vectors", body)
    out = [f"out{i}" for i, _ in enumerate(results)]
    given = [f"x_{name}" for name in scalars]
    own, every = [f"x_{name}" for name in of_each], [f"every_{name}" for name in of_each]

    def loop(depth: int, into: Sequence[str], looked: bool) -> None:
        source.add(depth, f"for n in range(array_{into[0]}.shape[0]):")
        source.add(depth + 1, *(f"a_{name} = array_{name}[n]" for name in arrays), *body.statements)
        source.add(depth + 1, *(f"array_{name}[n] = {result}" for name, result in zip(into, results, strict=True)))
        # What is NaN or infinite, as it is kept, is not zero away from itself.
        source.add(depth + 1, *(f"unlike |= array_{name}[n] - array_{name}[n] != 0" for name in into if looked))

    def groups() -> None:
        if norm == "all":
            source.add(1, "x_norm = norm(sizes, addresses, 0, sizes.shape[0])")
        source.add(1, "for k in range(sizes.shape[0]):")
        for i, name in enumerate(arrays):
            source.add(2, f"array_{name} = {vector(i)}")
        source.add(2, *(f"{name} = {all_of_it}[k]" for name, all_of_it in zip(own, every, strict=True)))
        if norm == "each":
            source.add(2, "x_norm = norm(sizes, addresses, k, k + 1)")

    def vector(i: int) -> str:
        return f'vector("{body.dtype}", addresses[{i}, k], sizes[k])'

    if norm:
        source.function("norm", ["sizes", "addresses", "first", "last"])
        source.add(1, "total, largest = 0.0, 0.0", "for k in range(first, last):")
        source.add(2, f"total += sum_of_squares({vector(0)}, 1.0)")
        # As it is unless squares have overflown or vanished, or there is a NaN.
        source.add(1, f"if {_SQUARED[0]} < total < {_SQUARED[1]}:", f"    return {body.dtype}(math.sqrt(total))")
        source.add(1, "for k in range(first, last):", f"    largest = max(largest, largest_of({vector(0)}))")
        source.add(1, "total, scale = 0.0, largest if largest > 0 else 1.0", "for k in range(first, last):")
        source.add(2, f"total += sum_of_squares({vector(0)}, scale)")
        source.add(1, f"return {body.dtype}(scale * math.sqrt(total))")
    alone = [*given, *own, *(["x_norm"] if norm else [])]
    source.function("run", [*alone, *(f"array_{name}" for name in (*arrays, *out))])
    loop(1, out, looked=False)
    source.function("run_all", ["sizes", "addresses", "results", *given, *every])
    source.add(1, f"whole, begin, unlike = results.shape[0] // {len(results)}, 0, False")
    groups()
    source.add(2, "end = begin + sizes[k]")
    source.add(2, *(f"array_{name} = results[{i} * whole + begin : {i} * whole + end]" for i, name in enumerate(out)))
    loop(2, out, looked=True)
    line = LINE // np.dtype(body.dtype).itemsize
    source.add(2, f"begin = (end + {line - 1}) // {line} * {line}")
    source.add(1, "return not unlike")
    if len(arrays) == 1 + len(results):
        taken = [*(f"all_{name}" for name in scalars), *every]
        source.function("iterate", ["sizes", "addresses", "number", "odd", *taken])
        source.add(1, *(f"x_{name} = all_{name}[number]" for name in scalars), "unlike = False")
        groups()
        loop(2, arrays[1:], looked=True)
        source.add(1, "odd[0] = unlike")
    return source.text()


_SQUARED = 1e-280, 1e280
"""Between which a sum of squares in double precision has lost nothing."""
