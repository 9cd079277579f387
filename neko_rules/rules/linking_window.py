"""Linking of windows: a chain over some time steps of a sequence, and then the next, with an update in between.

States and traces go on from window to window, and what was sent before the first time step of one meets its δ. Traces
are those of ``credit.spans``: one of each presynaptic neuron, and where what is above filters them one of each synapse.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from neko_rules.chains.linked import Kind, Told
from neko_rules.credit.recursion import Setting
from neko_rules.kernels import asking, filtering, gathering, grouped, listing, products
from neko_rules.kernels.elementwise import kernel_of
from neko_rules.kernels.tracing import NotTraceableError
from neko_rules.layers.cell import Cell
from neko_rules.layers.forward import Z
from neko_rules.layers.fused import Form, carried
from neko_rules.layers.graph import INPUT, Connection, bias_name
from neko_rules.layers.jacobians import SLOPE, Jacobians
from neko_rules.rules.back import OF_FACTORS, Window
from neko_rules.rules.linking_back import Below, LinkingBack


class LinkingWindow(LinkingBack):
    """Writes the chain of windows; as ``LinkingBack``."""

    at = "at"
    onto = "true"

    def __init__(self, setting: Setting, kind: Kind) -> None:
        super().__init__(setting, kind)
        self.chain.size("examples")
        self._states: list[tuple[str, str, str]] = []
        self._rooms: dict[str, str] = {}
        self._before_push: dict[str, str | Below | None] = {}

    # Where things lie.

    def _part(self, given: str, *shape: str | int) -> str:
        skip = " * ".join(map(str, (self.at, *shape[1:])))
        return self.chain.view(given, *shape, skip=skip)

    def _total(self, total: str) -> str:
        return self.chain.view(total, 1, skip="which")

    def _list_inputs(self, inputs: str) -> None:
        # Whether all of them are 1 is known before.
        self.chain.call(listing.list_group, "begin", self.at, inputs, *self._listed(INPUT))

    def _before_first(self, name: str, key: str) -> str:
        return self.chain.part(self._start(name, key), self._size(name))

    def _start(self, name: str, key: str) -> str:
        given = self.chain.take(f"start_{self.numbers[name]}_{key}", 2)
        self.handed.starts[given] = name, key
        return given

    def _after_last(self, name: str, form: Form) -> None:
        number, size = self.numbers[name], self._size(name)
        for key in carried(form.cell):
            if form.lean:
                last = f"kept{number}_{key}"
            else:
                last = self.chain.view(self._history(name, key), "n", size, skip=f"(steps - 1) * n * {size}")
            self._states.append((name, key, last))

    def _begin_factor(self, name: str, key: str, room: str) -> None:
        if name not in self._traced:
            super()._begin_factor(name, key, room)
            return
        held = OF_FACTORS + key
        self.chain.call(grouped.copy_rows, self.chain.part(self._start(name, held), self._size(name)), room)
        self._states.append((name, held, room))

    # What was sent before.

    def _of_first(self, name: str, delta: str) -> None:
        for connection in self.graph.into(name):
            self._of_first_of(connection.weight, self._size(connection.source), name, delta)
        if self.graph.populations[name].bias:
            self._of_first_of(bias_name(name), "1", name, delta)

    def _of_first_of(self, parameter: str, size: str, name: str, delta: str) -> None:
        """Add to a parameter's gradient what was sent before: it acts as one more input at the first step."""
        if name in self._traced or self._arrives(parameter, name, size) is not None:
            self._add_met(parameter, size, name, self._sent(parameter, name, size), delta)

    def _add_met(self, parameter: str, size: str, name: str, sent: tuple[str, str], factor: str) -> None:
        """Add to a parameter's gradient the products of what was sent and of the first n rows of a room."""
        chain, post = self.chain, self._size(name)
        block = chain.room(f"block_{self.numbers[name]}", self._columns(name), products.DEPTH, self.width)
        gradient = self._gradient(parameter, 1 if size == "1" else 2)
        into = chain.view(gradient, "1", post) if size == "1" else gradient
        of = chain.view(sent[0], "1", "n", size, skip=sent[1]), chain.view(factor, "1", "n", post)
        chain.call(products.multiply_transposed, *of, block, into, self._rest())

    def _arrives(self, parameter: str, name: str, size: str) -> tuple[str, str] | None:
        """What the sources of connections that delay sent last, [n, pre]: an array and an entry; None without any."""
        chain = self.chain
        starts = [self._start(c.source, Z) for c in self.graph.into(name) if c.delay and c.weight == parameter]
        if len(starts) < 2:
            return (starts[0], f"begin * {size}") if starts else None
        both = self._room_of(f"arrives {parameter}")
        if not chain.has(both):
            chain.room(both, "n", size)
            chain.call(grouped.copy_rows, chain.part(starts[0], size), both)
            for start in starts[1:]:
                chain.call(grouped.add_rows, chain.part(start, size), both)
        return both, "0"

    def _trace(self, parameter: str, size: str) -> tuple[str, str]:
        """What is left of the trace that is the same for all postsynaptic neurons, as for ``_arrives``."""
        return self._of_trace("before", parameter, 2), f"begin * {size}"

    def _sent(self, parameter: str, name: str, size: str) -> tuple[str, str]:
        """What was sent before and meets the first δ of a parameter, D/q ε and what arrives, as for ``_arrives``."""
        chain, arrives = self.chain, self._arrives(parameter, name, size)
        if name not in self._traced:
            assert arrives is not None, "asked of what a trace or a delay has to do with"
            return arrives
        sent = self._room_of(f"sent {parameter}")
        if not chain.has(sent):
            chain.room(sent, "n", 1 if size == "1" else size)
            trace, skip = self._trace(parameter, size)
            share = self._of_trace("share", parameter, 0)
            chain.call(grouped.scale_rows, share, chain.view(trace, "n", size, skip=skip), sent)
            if arrives is not None:
                chain.call(grouped.add_rows, chain.view(arrives[0], "n", size, skip=arrives[1]), sent)
        return sent, "0"

    def _room_of(self, what: str) -> str:
        return self._rooms.setdefault(what, f"sent_{len(self._rooms)}")

    @property
    def _window(self) -> Window:
        window = self.back.window
        assert window is not None, "a chain of whole sequences is written by LinkingBack"
        return window

    @property
    def _traced(self) -> set[str]:
        """The populations whose traces go on."""
        return {name for name, _ in self._window.traced}

    def _tell(self, told: Told, condition: str) -> None:
        # Not where other threads may have changed what it would begin with anew.
        self.chain.add(f"{self.chain.take('reached', 1, 'int64')}[0] = window")
        super()._tell(told, f"{self._flag('telling')} and {condition}")

    # Penalties.

    def _backward(self) -> None:
        if self.back.pushed:
            self._ask()
        super()._backward()

    def _ask(self) -> None:
        """Say what has fired in all examples, and ask what penalties make of that."""
        chain = self.chain
        for name in (each for each in self.graph.order if self.graph.cell(each).spiking):
            fired = chain.take(f"fired_{self.numbers[name]}", 3)
            self.handed.fired[fired] = name
            if name in self.kind.walked:
                chain.call(listing.mark_events, "zero", "n", *self._listed(name), fired)
            else:
                chain.call(grouped.put_group, "begin", self._history(name, Z), fired)
        chain.call(asking.ask, chain.take("question", 0, "int64"), chain.take("asked", 1, "int64"))

    def _push(self, name: str) -> None:
        chain, number, size = self.chain, self.numbers[name], self._size(name)
        push = chain.take(f"push_{number}", 2)
        self.pushes[push] = name
        signal = self._before_push[name] = self.arriving.get((name, Z))
        whole = self.arriving[name, Z] = chain.room(f"pushed_{number}", "steps", "n", size)
        chain.call(grouped.spread_row_of_each, push, whole)
        if isinstance(signal, Below):
            self._carry(signal, self._above(signal), name, whole, True)
        elif signal is not None:
            chain.call(grouped.add_rows, self._flat(signal, name), self._flat(whole, name))

    # Traces.

    def _end(self) -> None:
        chain = self.chain
        if INPUT not in self.kind.walked and any(
            c.source == INPUT and c.target in self._traced for c in self.graph.connections
        ):
            chain.call(listing.list_history, self._history(INPUT, Z), *self._listed(INPUT))
        for name, state in self._window.traced:
            self._take_on(name, state)
        for name, key, last in self._states:
            end = chain.take(f"end_{self.numbers[name]}_{key}", 2)
            self.handed.ends[end] = name, key
            chain.call(grouped.copy_rows, last, chain.part(end, self._size(name)))
        self._update()

    def _update(self) -> None:
        """What is done with the gradient of a window after the last group of examples."""
        chain = self.chain
        whole = chain.take("gradients", 1)
        chain.call_before(grouped.clear, whole, condition=f"not {self._flag('adding')}")
        for connection in self.graph.connections:
            if not connection.complete:
                synapses = chain.take(f"synapses_{len(self.synapses)}", 2, "uint8")
                self.synapses[synapses] = connection
                chain.call_after(grouped.clear_absent, self._gradient(connection.weight, 2), synapses)
            elif connection.hollow:
                chain.call_after(grouped.clear_diagonal, self._gradient(connection.weight, 2))
        given = [chain.take("slots", 1, "int64"), chain.take("table", 2, "int64"), "which"]
        given += [chain.take("odd", 1, "int64"), chain.take("rates", 1), chain.take("counts", 1, "float64")]
        given += [chain.take("decays", 1), chain.take("factors", 1)]
        chain.call_after(grouped.update_nothing, *given, condition=self._flag("updating"))
        self.update = chain.number_of(grouped.update_nothing)
        for back, (_, along) in list(self.backs.items()):
            if along is not None:
                weight, follows = self._weight(along), chain.take(f"follows_{back}", 0, "boolean")
                self.handed.follows[follows] = weight, back
                chain.call_after(grouped.transpose, weight, back, condition=follows)

    def _flag(self, what: str) -> str:
        """A condition that the chain is given."""
        return self.chain.take(what, 0, "boolean")

    def _begun(self) -> str:
        """Whether there were time steps before."""
        return self.chain.flag("begun", f"{self._flag('before')} or window > opening")

    def _kept(self) -> str:
        """Whether traces are wanted after the window."""
        return self.chain.flag("kept", f"{self._flag('after')} or window + 1 < closing")

    def _of_trace(self, what: str, of: str, rank: int) -> str:
        """An argument that has to do with the traces of a parameter or population."""
        for given, known in self.handed.traces.items():
            if known == (what, of):
                return given
        given = self.chain.take(f"{what}_{len(self.handed.traces)}", rank)
        self.handed.traces[given] = what, of
        return given

    def _chi(self, name: str, state: str) -> str:
        """q χ_t of a population: [time, example, neuron]."""
        size, number = self._size(name), self.numbers[name]
        slope, chi = (self.chain.room(f"{what}{number}", "steps", "n", size) for what in ("sensitivity", "chi"))
        self._sensitivities(name, (state,), f"rows * {size}", "0", [self.chain.view(slope, f"rows * {size}")])
        kept, leak = self._of_trace("kept", name, 1), self._of_trace("leak", name, 0)
        self.chain.call(filtering.filter_back, "zero", "n", kept, leak, slope, chi)
        return chi

    def _take_on(self, name: str, state: str) -> None:
        """Take on the traces of a population, filtered where there is a state through which the output feels them."""
        chi = self._chi(name, state) if state else ""
        for connection in self.graph.into(name):
            self._go_on(name, connection, chi)
        if self.graph.populations[name].bias:
            self._go_on_with_bias(name, chi)

    def _events(self, connection: Connection, *factors: str) -> tuple[list[str], list[str]]:
        """The events that a connection delivers in these time steps, and of factors those that they meet."""
        chain, source, post = self.chain, connection.source, self._size(connection.target)
        size, (index, count), values = self._size(source), self._listed(source), self._values(source)
        ones = values == "nothing"
        if not connection.delay:
            return [index, count, values, "true" if ones else "false"], list(factors)
        of = [chain.view(index, "steps - 1", "n", size), chain.view(count, "steps - 1", "n")]
        of += [values if ones else chain.view(values, "steps - 1", "n", size), "true" if ones else "false"]
        return of, [chain.view(each, "steps - 1", "n", post, skip=f"n * {post}") for each in factors]

    def _go_on(self, name: str, connection: Connection, chi: str) -> None:
        """Take on the traces of a weight."""
        chain, weight = self.chain, connection.weight
        size, post = self._size(connection.source), self._size(name)
        of, factors = self._events(connection, *([chi] if chi else []))
        room, skip = self._sent(weight, name, size)
        begin = chain.view(room, "n", size, skip=skip)
        vector = chain.part(self._of_trace("after", weight, 2), size)
        chain.call(grouped.scale_rows, self._of_trace("left", weight, 0), begin, vector)
        chain.call(filtering.add_events, "zero", "n", *of, self._of_trace("powers", weight, 1), vector)
        if chi:
            traces = chain.part(self._of_trace("filtered", weight, 3), size, post)
            decay, first = self._of_trace("decay", name, 0), chain.view(chi, "n", post)
            given = ["zero", "n", self._begun(), self._kept(), decay, begin, first, *of, *factors, traces]
            chain.call(filtering.meet_and_filter, *given, *self._met_first(name), self._gradient(weight, 2))

    def _go_on_with_bias(self, name: str, chi: str) -> None:
        chain, bias, size = self.chain, bias_name(name), self._size(name)
        room, skip = self._sent(bias, name, "1")
        begin, vector = chain.view(room, "n", "1", skip=skip), chain.part(self._of_trace("after", bias, 2), "1")
        left, ones = self._of_trace("left", bias, 0), self._of_trace("ones", bias, 0)
        chain.call(grouped.scale_rows_and_add, left, begin, ones, vector)
        if chi:
            traces = chain.part(self._of_trace("filtered", bias, 3), "1", size)
            given = ["zero", "n", self._begun(), self._of_trace("decay", name, 0), begin, chi, traces]
            chain.call(filtering.meet_and_filter_constant, *given, *self._met_first(name), self._gradient(bias, 1))

    def _sensitivities(self, name: str, states: tuple[str, ...], rows: str, skip: str, into: list[str]) -> None:
        """Fill vectors with ∂z/∂s of some states, from an entry of the histories on."""
        chain, size, number = self.chain, self._size(name), self.numbers[name]
        jacobians = self.setting.jacobians[name]
        if self._lean(name):
            jacobians = jacobians.with_slope or jacobians
        constants = self._constants(name, "")
        each_own = {key for key, rank in zip(self.setting.constants[name], self._ranks(name), strict=True) if rank}
        recorded = [key for key in jacobians.arguments if key not in constants]
        if any(key != SLOPE and key not in carried(self.graph.cell(name)) for key in recorded):
            raise NotTraceableError("a sensitivity that depends on more than states")
        if each_own and rows != f"n * {size}":
            raise NotTraceableError("constants that differ from neuron to neuron")
        loop = kernel_of(
            ("sensitivity", self.graph.cell(name), jacobians, states, tuple(sorted(each_own))),
            partial(_sensitivity, jacobians, self.graph.cell(name), states),
            [*recorded, *sorted(each_own)],
            {key: self.kind.dtype for key in constants if key not in each_own},
            self.kind.dtype,
        )
        if loop is None:
            raise NotTraceableError("a sensitivity without a compiled loop")
        flat = [chain.view(self._history(name, key), rows, skip=skip) for key in recorded]
        for key in sorted(each_own):
            room = chain.room(f"constant_rows_{number}_{key}", "n", size)
            chain.call(grouped.spread_row, constants[key], room)
            flat.append(chain.view(room, rows))
        alone = [given for key, given in constants.items() if key not in each_own]
        chain.call(loop.run, *alone, *flat, *into)

    def _met_first(self, name: str) -> tuple[str, str]:
        """κ, and the signal G of the first time step that what is left of filtered traces meets."""
        chain, size = self.chain, self._size(name)
        # What is above filters what comes from there alone.
        signal = self._before_push.get(name) if name in self._before_push else self.arriving.get((name, Z))
        first = self._at_rest(name)
        if isinstance(signal, str):
            first = chain.view(signal, "n", size)
        elif signal is not None:
            first = f"first_signal_{self.numbers[name]}"
            if not chain.has(first):
                chain.room(first, "n", size)
                chain.call(gathering.from_above, "zero", "zero", "n", signal.errors, signal.back, first)
        return self._of_trace("kappa", name, 0), first


def _sensitivity(
    jacobians: Jacobians, cell: Cell, states: tuple[str, ...], nx: Any, values: Mapping[str, Any]
) -> list[Any]:
    """h_t of some states, from the constants of a cell and what was recorded of it."""
    constants = {key: values[key] for key in jacobians.constants}
    entries = jacobians.evaluate(nx, cell, constants, values.__getitem__)
    return [entries["h", state] for state in states]
