"""Linking of the way back: a chain that goes forward, judges, and comes back with the gradient.

The loops back are those of ``credit.fused``. Where the events of a source are few they are walked, where not all that
it sent is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from neko_rules.chains.linked import Kind
from neko_rules.chains.linking import Linking
from neko_rules.credit.adjoint import FEW_ABOVE, arrives_at, receiving
from neko_rules.credit.fused import LOOPS, recorded, starts
from neko_rules.credit.fused_factors import loop_of
from neko_rules.credit.recursion import DECAYS, Setting, factors_met
from neko_rules.credit.traced import DECAY, Stage
from neko_rules.kernels import gathering, grouped, products, rows
from neko_rules.kernels.elementwise import kernel_of
from neko_rules.kernels.tracing import NotTraceableError
from neko_rules.layers.forward import Z
from neko_rules.layers.graph import Connection, bias_name, constant_name
from neko_rules.losses import compiled_pass
from neko_rules.regularizers import MembraneBounds
from neko_rules.rules.back import Back


class Below(NamedTuple):
    """A signal that is multiplied out where it is used: names of the errors above, and of the matrix."""

    errors: str
    back: str


class _WentBack(NamedTuple):
    """A loop back through time of a population, and rooms that it fills.

    Attributes:
        stage: one step of it.
        errors: δ, and the error within the time step where it is asked for, [time, example, neuron].
        totals: what it sums over time, [example, neuron].
        carries: what it hands to the step before the first, [example, neuron], by what ``Recursion`` says it is of.
    """

    stage: Stage
    errors: list[str]
    totals: list[str]
    carries: dict[tuple[str, str], str]


class LinkingBack(Linking):
    """Writes such a chain.

    Args:
        setting: the network.
        kind: which chain; what the way back depends on is a ``Back``.
    """

    def __init__(self, setting: Setting, kind: Kind) -> None:
        super().__init__(setting.graph, setting.constants, kind)
        assert isinstance(kind.back, Back), "a chain that comes back"
        self.setting, self.back = setting, kind.back
        self.arriving: dict[tuple[str, str], str | Below] = {}
        self.carries: dict[str, dict[tuple[str, str], str]] = {}

    def _write(self) -> None:
        self._go_forward()
        self.arriving[self.graph.output, self.kind.observes] = self._judge()
        if self.back.credit.outside_chain:
            self._signals_of_their_own()
        self._backward()
        self._count_all()
        self._end()

    # What is different where a sequence goes on.

    def _of_first(self, name: str, delta: str) -> None:
        """What δ of a population at the first time step meets that was sent before."""

    def _carries_wanted(self, name: str) -> bool:
        """Whether what a loop back hands to the step before the first is wanted of every example, not of some."""
        return False

    def _end(self) -> None:
        """What comes after the gradient."""

    # Names.

    def _back(self, source: str, connection: Connection | None) -> str:
        name = self.chain.take(f"back_{len(self.backs)}", 2)
        self.backs[name] = source, connection
        return name

    def _gradient(self, parameter: str, rank: int) -> str:
        for name, known in self.gradients.items():
            if known == parameter:
                return name
        name = self.chain.take(f"gradient_{len(self.gradients)}", rank)
        self.gradients[name] = parameter
        return name

    # Backward in time.

    def _backward(self) -> None:
        for (name, state), penalties in self.back.bounded:
            self._bound(name, state, penalties)
        graph, credit = self.graph, self.back.credit
        full = credit.temporal == "full"
        groups = list(graph.components if full else ((name,) for name in graph.order))
        if credit.spatial == "direct":
            groups.sort(key=lambda group: graph.output in group)
        for group in reversed(groups):
            for name, went in self._stepped_back(group).items():
                delta, *within_step = went.errors
                self._of_first(name, delta)
                for connection in graph.into(name):
                    self._met(connection, delta)
                for source, down in receiving(graph, credit, name, group if full else ()):
                    self._hand_down(name, (within_step or [delta])[0], source, down)

    def _signals_of_their_own(self) -> None:
        """A signal for every population but the output: what is wanted there, or the error of its own fixed readout."""
        chain, output = self.chain, self.graph.output
        size, wanted = self._size(output), ""
        if self.back.credit.spatial == "target":
            wanted = chain.room("wanted", "steps", "n", size)
            chain.call(grouped.weigh_targets, self._goal(), chain.room("share", "judged", "n"), wanted)
        for name in (each for each in self.graph.order if each != output):
            back = self._back(name, None)
            self._send(wanted or self._own_error(name, back), output, name, back)

    def _own_error(self, name: str, back: str) -> str:
        """The error of a readout through the same matrix that carries it back, at every time step by itself."""
        chain, output, number = self.chain, self.graph.output, self.numbers[name]
        size = self._size(output)
        judge = None if self.kind.loss is None else compiled_pass(self.kind.loss, self.kind.dtype)
        assert judge is not None, "the outputs were judged by it"
        matrix = chain.room(f"readout_of_{number}", self._size(name), size, once=True)
        chain.call(grouped.transpose, back, matrix, once=True)
        scores, error = (chain.room(f"{what}_of_{number}", "steps", "n", size) for what in ("scores", "error"))
        if name in self.kind.walked:
            values = self._values(name)
            of = values, "true" if values == "nothing" else "false"
            chain.call(gathering.from_all_events, *self._listed(name), matrix, *of, scores)
        else:
            panels = self._panels(matrix, name, output)
            self._multiply(self._history(name, Z), name, panels, scores, output, False)
        flat = self._flat(scores, output), self._flat(error, output)
        self._differentiate(judge, *flat, chain.room("values", "judged", "n"))
        return error

    def _stepped_back(self, group: tuple[str, ...]) -> dict[str, _WentBack]:
        """Go back through populations that step together: δ, and the error within the time step if that goes down."""
        for name in group:
            if name in self.back.pushed:
                self._push(name)
        came = {key: one for name in reversed(group) for key, one in self.arriving.items() if key[0] == name}
        for name in (each for each in group if each in self.setting.factored):
            self._carry_factors(name, tuple(factors_met(self.setting.factored, name, tuple(came))))
        found = self._went_back(group, came, self.numbers[group[0]])
        for name, went in found.items():
            summed = [bias_name(name)] if went.stage.biased else []
            summed += [constant_name(self.graph.cell(of), of, constant) for of, constant in went.stage.learnable]
            for parameter, total in zip(summed, went.totals, strict=True):
                self.chain.call(grouped.add_rows_of_group, total, self._gradient(parameter, 1))
            self.carries[name] = went.carries
        return found

    def _carry_factors(self, name: str, wanted: tuple[str, ...]) -> None:
        """Fill histories of a population's factors."""
        loop = loop_of(self._sloped((name,)), name, wanted, self.kind.dtype)
        if loop is None:
            raise NotTraceableError("factors without a compiled loop")
        chain, size, carries = self.chain, self._size(name), {}
        for key in loop.factors.carried:
            room = carries[f"carries_{key}"] = chain.room(f"factors{self.numbers[name]}_{key}", "n", size)
            self._begin_factor(name, key, room)
        by_name = {"first": "zero", "last": "n", **self._constants(name, "p_"), **carries}
        by_name |= {f"p_{DECAY}": self._decay(name)}
        by_name |= {f"h_{key}": self._history(name, key) for key in loop.recorded}
        by_name |= {f"start_{key}": self._before_first(name, key) for key in loop.starts}
        by_name |= {f"out_{key}": self._history(name, key) for key in wanted}
        chain.call(loop.kernel, *(by_name[each] for each in loop.arguments))

    def _begin_factor(self, name: str, key: str, room: str) -> None:
        """Fill a room with what a factor carries before the first time step."""
        self.chain.call(grouped.clear, room)

    def _decay(self, name: str) -> str:
        """By what the factors of a population decay."""
        decay = self.chain.take(f"decay_{self.numbers[name]}", 0)
        self.constants[decay] = DECAYS, name
        return decay

    def _sloped(self, group: tuple[str, ...]) -> Setting:
        """The setting with derivatives made of ψ for the populations of which that is what was recorded."""
        sloped = {name: self.setting.jacobians[name].with_slope for name in group if self._lean(name)}
        jacobians = self.setting.jacobians | {name: of for name, of in sloped.items() if of is not None}
        return self.setting._replace(jacobians=jacobians)

    def _bound(self, name: str, state: str, penalties: tuple[MembraneBounds, ...]) -> None:
        """Add the slope of penalties to what arrives at a state."""
        chain, size, dtype = self.chain, self._size(name), self.kind.dtype

        def slopes(nx: Any, given: Mapping[str, Any]) -> list[Any]:
            parts = [penalty.slope(nx, given["state"]) for penalty in penalties]
            return [given["share"] * sum(parts[1:], parts[0])]

        loop = kernel_of(("bounds", penalties), slopes, ["state"], {"share": dtype}, dtype)
        if loop is None:
            raise NotTraceableError("a penalty without a compiled loop")
        signal = chain.room(f"bounds_{self.numbers[name]}_{state}", "steps", "n", size)
        flat = [chain.view(each, f"rows * {size}") for each in (self._history(name, state), signal)]
        chain.call(loop.run, chain.take("share_of_penalties", 0), *flat)
        present = self.arriving.get((name, state))
        if present is None:
            self.arriving[name, state] = signal
        else:
            assert isinstance(present, str), "errors from above arrive at what is sent"
            chain.call(grouped.add_rows, self._flat(signal, name), self._flat(present, name))

    def _push(self, name: str) -> None:
        """Add a signal that is the same at all time steps of all examples to what arrives at every neuron."""
        chain, number, size = self.chain, self.numbers[name], self._size(name)
        push = chain.take(f"push_{number}", 1)
        self.pushes[push] = name
        signal = self.arriving.get((name, Z))
        if isinstance(signal, Below):
            # As of one more neuron above, whose error is always 1.
            above = chain.size(f"above_{number}")
            self.sizes[above] = self.graph.populations[self._above(signal)].size + 1
            back = chain.room(f"back_and_push_{number}", above, size, once=True)
            chain.call(grouped.append_row, signal.back, push, back, once=True)
            errors = chain.room(f"errors_and_one_{number}", "steps", "n", above)
            chain.call(grouped.append_ones, signal.errors, errors)
            self.arriving[name, Z] = Below(errors, back)
        elif signal is None:
            whole = self.arriving[name, Z] = self._signal(name, Z)
            chain.call(grouped.spread_row, push, self._flat(whole, name))
        else:
            chain.call(grouped.add_row, push, self._flat(signal, name))

    def _went_back(
        self, group: tuple[str, ...], arriving: Mapping[tuple[str, str], str | Below], mark: str
    ) -> dict[str, _WentBack]:
        """Go back through the time steps of populations that step together.

        Args:
            group: the populations.
            arriving: the signals, the populations in the order in which one step back goes through them.
            mark: what rooms of this loop are told apart by.
        """
        chain = self.chain
        below = tuple(isinstance(one, Below) for one in arriving.values())
        loop = LOOPS.of(self._sloped(group), group, tuple(arriving), below, self.kind.dtype)
        if loop is None:
            raise NotTraceableError("a neuron without a compiled loop back")
        step = loop.step
        most = step.together([self.graph.populations[stage.name].size for stage in step.stages])
        whole = any(map(self._carries_wanted, group))
        by_name = {"first": "zero", "last": "n", "group": "n" if whole else self._together(f"back_{mark}", most)}
        if "addresses" in loop.arguments:
            by_name["addresses"] = self._calls(gathering.back_calls, "rest" in loop.arguments)
        if "rest" in loop.arguments:
            by_name["rest"] = self._rest()
        came = dict(zip((name for stage in step.stages for name in stage.signals), arriving.values(), strict=True))
        found = {}
        for place, stage in enumerate(step.stages):
            size = self._size(stage.name)
            for traced in stage.signals:
                signal, one = traced.removeprefix("i_"), came[traced]
                if isinstance(one, Below):
                    by_name |= {f"errors_{signal}": one.errors, f"back_{signal}": one.back}
                    by_name[f"rows_{signal}"] = chain.room(f"rows{mark}_{signal}", "n", size)
                else:
                    by_name[signal] = one
            found[stage.name] = self._filled(place, stage, mark, by_name)
        chain.call(loop.kernel, *(by_name[each] for each in loop.arguments))
        # As errors go on: what sends comes before what receives from it.
        return {name: found[name] for name in group}

    def _filled(self, place: int, stage: Stage, mark: str, by_name: dict[str, str]) -> _WentBack:
        """What a loop takes of a population beside signals, and rooms that it fills."""
        chain, name, size = self.chain, stage.name, self._size(stage.name)
        by_name |= self._constants(name, f"p{place}_")
        if name in self.setting.factored:
            by_name[f"p{place}_{DECAY}"] = self._decay(name)
        by_name |= {f"h{place}_{key}": self._history(name, key) for key in recorded(stage)}
        by_name |= {f"start{place}_{key}": self._before_first(name, key) for key in starts(stage)}
        for one in stage.gathered:
            matrix = self._back(one.connection.source, one.connection)
            by_name[f"matrix_{one.name}"] = matrix
            by_name[f"panels_{one.name}"] = self._panels(matrix, one.connection.target, one.connection.source)
            by_name[f"sums_{one.name}"] = chain.room(f"sums{mark}_{one.name}", "n", size)
        carries = [chain.room(f"carry{mark}_{one.name}", "n", size) for one in stage.carried]
        by_name |= {f"carries_{one.name}": room for one, room in zip(stage.carried, carries, strict=True)}
        errors = [chain.room(f"error{mark}_{place}_{i}", "steps", "n", size) for i, _ in enumerate(stage.errors)]
        by_name |= {f"out{place}_{i}": error for i, error in enumerate(errors)}
        totals = [chain.room(f"total{mark}_{place}_{i}", "n", size) for i in range(stage.biased + len(stage.learned))]
        by_name |= {f"total{place}_{i}": total for i, total in enumerate(totals)}
        handed = {key[1:]: room for key, room in zip(stage.keys, carries, strict=True)}
        return _WentBack(stage, errors, totals, handed)

    def _met(self, connection: Connection, delta: str) -> None:
        """Add what events, or all that was sent, and δ make of the gradient of a weight."""
        chain, source, target = self.chain, connection.source, connection.target
        gradient, size = self._gradient(connection.weight, 2), self._size(source)

        def sent(history: str, *row: str) -> str:
            return chain.view(history, "steps - 1", "n", *row) if connection.delay else history

        met = delta
        if connection.delay:
            met = chain.view(delta, "steps - 1", "n", self._size(target), skip=f"n * {self._size(target)}")
        if source in self.kind.walked:
            index, count = self._listed(source)
            values = self._values(source)
            ones = values == "nothing"
            of = [sent(index, size), sent(count), values if ones else sent(values, size), "true" if ones else "false"]
            of += [met, gradient, chain.room(f"sorted_{self.numbers[source]}", size, "sorted", kind="wide")]
            of.append(chain.room(f"length_{self.numbers[source]}", size, kind="wide"))
            chain.call(rows.add_outer_sorted, "zero", "n", *of)
        else:
            block = chain.room(f"block_{self.numbers[target]}", self._columns(target), products.DEPTH, self.width)
            of = [sent(self._history(source, Z), size), met, block, gradient, self._rest()]
            chain.call(products.multiply_transposed, *of)

    def _hand_down(self, name: str, below: str, source: str, connection: Connection | None) -> None:
        """Add a population's error to the signal of one that it receives from."""
        back = self._back(source, connection)
        number = self.numbers[name]
        if self.setting.jacobians[source].timed:
            below = self._once(f"between_{number}", name, grouped.mean_with_earlier, below)
        if connection is not None and connection.delay:
            below = self._once(f"later_{below}", name, grouped.shift_earlier, below)
        self._send(below, name, source, back)

    def _once(self, room: str, name: str, filled: Any, history: str) -> str:
        """A history of a population that a loop makes of another, when it is first asked for."""
        if not self.chain.has(room):
            self.chain.room(room, "steps", "n", self._size(name))
            self.chain.call(filled, history, room)
        return room

    def _send(self, error: str, above: str, source: str, back: str) -> None:
        """Add what a matrix makes of an error to the signal of a population."""
        key = source, arrives_at(self.back.credit)
        present = self.arriving.get(key)
        if present is None and self.graph.populations[above].size <= FEW_ABOVE:
            self.arriving[key] = Below(error, back)
            return
        whole = present if isinstance(present, str) else self._signal(*key)
        if isinstance(present, Below):
            self._carry(present, self._above(present), source, whole, False)
        self._carry(Below(error, back), above, source, whole, present is not None)
        self.arriving[key] = whole

    def _above(self, signal: Below) -> str:
        """The population that a signal comes from."""
        connection = self.backs[signal.back][1]
        return self.graph.output if connection is None else connection.target

    def _signal(self, name: str, key: str) -> str:
        return self.chain.room(f"signal_{self.numbers[name]}_{key}", "steps", "n", self._size(name))

    def _carry(self, error: Below, above: str, source: str, into: str, onto: bool) -> None:
        panels = self._panels(error.back, above, source)
        self._multiply(error.errors, above, panels, into, source, onto)
