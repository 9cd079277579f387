"""Linking of windows: a chain over some time steps of a sequence, and then the next, with an update in between.

States and traces go on from window to window, and what was sent before the first time step of one meets its δ. Traces
are those of ``credit.spans``: one of each presynaptic neuron, and where what is above filters them one of each synapse.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from neko_rules.credit.recursion import Setting
from neko_rules.kernels import filtering, gathering, grouped, listing, products
from neko_rules.kernels.elementwise import kernel_of
from neko_rules.kernels.tracing import NotTraceableError
from neko_rules.layers.cell import Cell
from neko_rules.layers.forward import Z
from neko_rules.layers.fused import Form, carried
from neko_rules.layers.graph import INPUT, Connection, bias_name
from neko_rules.layers.jacobians import SLOPE, Jacobians
from neko_rules.rules.chained import Window
from neko_rules.rules.linked import Kind, Told
from neko_rules.rules.linking import Linking


class LinkingWindow(Linking):
    """Writes the chain of windows; as ``Linking``."""

    at = "at"
    onto = "true"

    def __init__(self, setting: Setting, kind: Kind) -> None:
        super().__init__(setting, kind)
        self.chain.size("examples")
        self._states: list[tuple[str, str, str]] = []
        self._rooms: dict[str, str] = {}

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

    # What was sent before.

    def _of_first(self, name: str, delta: str) -> None:
        # It acts as one more input at the first step.
        for connection in self.graph.into(name):
            if name in self._traced or connection.delay:
                self._met_before(connection.weight, self._size(connection.source), name, delta)
        if name in self._traced and self.graph.populations[name].bias:
            self._met_before(bias_name(name), "1", name, delta)

    def _met_before(self, parameter: str, size: str, name: str, delta: str) -> None:
        """Add what was sent before and δ of the first time step make of a gradient."""
        chain, post = self.chain, self._size(name)
        room, skip = self._sent(parameter, name, size)
        sent = chain.view(room, 1, "n", size, skip=skip)
        block = chain.room(f"block_{self.numbers[name]}", self._columns(name), products.DEPTH, self.width)
        gradient = self._gradient(parameter, 1 if size == "1" else 2)
        into = chain.view(gradient, "1", post) if size == "1" else gradient
        first = chain.view(delta, "1", "n", post)
        chain.call(products.multiply_transposed, sent, first, block, into, self._rest())

    def _sent(self, parameter: str, name: str, size: str) -> tuple[str, str]:
        """Where what was sent before and meets the first δ of a parameter lies, [n, pre]: an array and an entry.

        What is left in a trace is D/q ε; a connection that delays adds what its source sent last.
        """
        chain = self.chain
        starts = [self._start(c.source, Z) for c in self.graph.into(name) if c.delay and c.weight == parameter]
        if name not in self._traced and len(starts) == 1:
            return starts[0], f"begin * {size}"
        sent = self._rooms.setdefault(parameter, f"sent_{len(self._rooms)}")
        if not chain.has(sent):
            chain.room(sent, "n", 1 if size == "1" else size)
            parts = [chain.part(start, size) for start in starts]
            if name in self._traced:
                trace = chain.part(self._of_trace("before", parameter, 2), size)
                chain.call(grouped.scale_rows, self._of_trace("share", parameter, 0), trace, sent)
            else:
                chain.call(grouped.copy_rows, parts.pop(), sent)
            for part in parts:
                chain.call(grouped.add_rows, part, sent)
        return sent, "0"

    @property
    def _window(self) -> Window:
        window = self.kind.window
        assert window is not None, "a chain of whole sequences is written by Linking"
        return window

    @property
    def _traced(self) -> set[str]:
        """The populations whose traces go on."""
        return {name for name, _ in self._window.traced}

    def _tell(self, told: Told, condition: str) -> None:
        # Not where other threads may have changed what it would begin with anew.
        self.chain.add(f"{self.chain.take('reached', 1, 'int64')}[0] = window")
        super()._tell(told, f"{self._flag('telling')} and {condition}")

    # Traces.

    def _end(self) -> None:
        chain = self.chain
        if INPUT not in self.kind.walked and any(
            c.source == INPUT and c.target in self._traced for c in self.graph.connections
        ):
            chain.call(listing.list_history, self._history(INPUT, Z), *self._listed(INPUT))
        for name, state in self._window.traced:
            chi = self._chi(name, state) if state else ""
            for connection in self.graph.into(name):
                self._go_on(name, connection, chi)
            if self.graph.populations[name].bias:
                self._go_on_with_bias(name, chi)
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
            if connection.masked:
                chain.call_after(grouped.clear_diagonal, self._gradient(connection.weight, 2))
        given = [chain.take("slots", 1, "int64"), chain.take("table", 2, "int64"), "which"]
        given += [chain.take("odd", 1, "int64"), chain.take("rates", 1), chain.take("counts", 1, "float64")]
        chain.call_after(grouped.update_nothing, *given, condition=self._flag("updating"))
        self.update = chain.number_of(grouped.update_nothing)
        for back, (_, along) in list(self.backs.items()):
            if along is not None:
                weight, follows = self._weight(along), chain.take(f"follows_{back}", 0, "boolean")
                self.handed.follows[follows] = weight, back
                chain.call_after(grouped.transpose, weight, back, condition=follows)

    def _flag(self, what: str) -> str:
        """A condition that the chain is given."""
        self.handed.flags.add(what)
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
        jacobians = self.setting.jacobians[name]
        if self._lean(name):
            jacobians = jacobians.with_slope or jacobians
        constants = self._constants(name, "")
        if any(self._ranks(name)):
            raise NotTraceableError("constants that differ from neuron to neuron")
        recorded = [key for key in jacobians.arguments if key not in constants]
        if any(key != SLOPE and key not in carried(self.graph.cell(name)) for key in recorded):
            raise NotTraceableError("a sensitivity that depends on more than states")
        loop = kernel_of(
            ("sensitivity", self.graph.cell(name), jacobians, state),
            partial(_sensitivity, jacobians, self.graph.cell(name), state),
            recorded,
            dict.fromkeys(constants, self.kind.dtype),
            self.kind.dtype,
        )
        if loop is None:
            raise NotTraceableError("a sensitivity without a compiled loop")
        flat = [self.chain.view(self._history(name, key), f"rows * {size}") for key in recorded]
        self.chain.call(loop.run, *constants.values(), *flat, self.chain.view(slope, f"rows * {size}"))
        kept, leak = self._of_trace("kept", name, 1), self._of_trace("leak", name, 0)
        self.chain.call(filtering.filter_back, "zero", "n", kept, leak, slope, chi)
        return chi

    def _go_on(self, name: str, connection: Connection, chi: str) -> None:
        """Take on the traces of a weight."""
        chain, source, weight = self.chain, connection.source, connection.weight
        size, post = self._size(source), self._size(name)
        index, count = self._listed(source)
        ones = self._values(source) == "nothing"
        of = [index, count, self._values(source)]
        factor = chi
        if connection.delay:
            of = [chain.view(index, "steps - 1", "n", size), chain.view(count, "steps - 1", "n"), of[2]]
            of[2] = of[2] if ones else chain.view(of[2], "steps - 1", "n", size)
            factor = chi and chain.view(chi, "steps - 1", "n", post, skip=f"n * {post}")
        of.append("true" if ones else "false")
        room, skip = self._sent(weight, name, size)
        begin = chain.view(room, "n", size, skip=skip)
        vector = chain.part(self._of_trace("after", weight, 2), size)
        chain.call(grouped.scale_rows, self._of_trace("left", weight, 0), begin, vector)
        chain.call(filtering.add_events, "zero", "n", *of, self._of_trace("powers", weight, 1), vector)
        if chi:
            traces = chain.part(self._of_trace("filtered", weight, 3), size, post)
            decay, first = self._of_trace("decay", name, 0), chain.view(chi, "n", post)
            given = ["zero", "n", self._begun(), self._kept(), decay, begin, first, *of, factor, traces]
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

    def _met_first(self, name: str) -> tuple[str, str]:
        """κ, and the signal G of the first time step that what is left of filtered traces meets."""
        chain, size, signal = self.chain, self._size(name), self.arriving.get((name, Z))
        first = self._at_rest(name)
        if isinstance(signal, str):
            first = chain.view(signal, "n", size)
        elif signal is not None:
            first = f"first_signal_{self.numbers[name]}"
            if not chain.has(first):
                chain.room(first, "n", size)
                chain.call(gathering.from_above, "zero", "zero", "n", signal.errors, signal.back, first)
        return self._of_trace("kappa", name, 0), first


def _sensitivity(jacobians: Jacobians, cell: Cell, state: str, nx: Any, values: Mapping[str, Any]) -> list[Any]:
    """h_t, from the constants of a cell and what was recorded of it."""
    constants = {key: values[key] for key in jacobians.constants}
    return [jacobians.evaluate(nx, cell, constants, values.__getitem__)["h", state]]
