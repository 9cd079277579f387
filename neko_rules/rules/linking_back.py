"""Linking of the way back: a chain that goes forward, judges, and comes back with the gradient.

The loops back are those of ``credit.fused``. Where the events of a source are few they are walked, where not all that
it sent is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from neko_rules.chains.linked import Kind
from neko_rules.chains.linking import Linking
from neko_rules.credit.adjoint import FEW_ABOVE, receiving
from neko_rules.credit.fused import LOOPS, Loop
from neko_rules.credit.recursion import Setting
from neko_rules.kernels import gathering, grouped, products, rows
from neko_rules.kernels.elementwise import kernel_of
from neko_rules.kernels.tracing import NotTraceableError
from neko_rules.layers.forward import Z
from neko_rules.layers.graph import Connection, bias_name, constant_name
from neko_rules.regularizers import MembraneBounds
from neko_rules.rules.back import Back


class Below(NamedTuple):
    """A signal that is multiplied out where it is used: names of the errors above, and of the matrix."""

    errors: str
    back: str


class _WentBack(NamedTuple):
    """A loop back through time of a population, and rooms that it fills.

    Attributes:
        loop: the loop.
        errors: δ, and the error within the time step where it is asked for, [time, example, neuron].
        totals: what it sums over time, [example, neuron].
        carries: what it hands to the step before the first, [example, neuron], by what ``Recursion`` says it is of.
    """

    loop: Loop
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
        self.arriving[self.graph.output, self.kind.loss.observes] = self._judge()
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
        names = [name for component in graph.components for name in component] if full else list(graph.order)
        if credit.spatial == "direct":
            names.sort(key=lambda name: name == graph.output)
        for name in reversed(names):
            delta, within_step = self._stepped_back(name)
            self._of_first(name, delta)
            for connection in graph.into(name):
                self._met(connection, delta)
            for source, down in receiving(graph, credit, name, (name,) if full else ()):
                self._hand_down(name, within_step or delta, source, down)

    def _stepped_back(self, name: str) -> tuple[str, str]:
        """δ of a population, and the error within the time step where that is what goes down."""
        chain, number = self.chain, self.numbers[name]
        if name in self.back.pushed:
            self._push(name)
        went = self._went_back(name, {key: one for key, one in self.arriving.items() if key[0] == name}, number)
        step = went.loop.step
        summed = [bias_name(name)] if step.biased else []
        summed += [constant_name(self.graph.cell(of), of, constant) for of, constant in step.learnable]
        for parameter, total in zip(summed, went.totals, strict=True):
            chain.call(grouped.add_rows_of_group, total, self._gradient(parameter, 1))
        self.carries[name] = went.carries
        return went.errors[0], went.errors[1] if len(went.errors) > 1 else ""

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
            self.arriving[name, Z] = self._signal(name)
            chain.call(grouped.spread_row, push, self._flat(self._signal(name), name))
        else:
            chain.call(grouped.add_row, push, self._flat(signal, name))

    def _went_back(self, name: str, arriving: Mapping[tuple[str, str], str | Below], mark: str) -> _WentBack:
        """Go back through the time steps of a population.

        Args:
            name: of the population.
            arriving: the signals.
            mark: what rooms of this loop are told apart by.
        """
        chain, size, setting = self.chain, self._size(name), self.setting
        if self._lean(name):
            sloped = setting.jacobians[name].with_slope or setting.jacobians[name]
            setting = setting._replace(jacobians={**setting.jacobians, name: sloped})
        below = tuple(isinstance(one, Below) for one in arriving.values())
        loop = LOOPS.of(setting, name, tuple(arriving), below, self.kind.dtype)
        if loop is None:
            raise NotTraceableError("a neuron without a compiled loop back")
        step = loop.step
        most = step.together(self.graph.populations[name].size)
        group = "n" if self._carries_wanted(name) else self._together(f"back_{mark}", most)
        by_name = {"first": "zero", "last": "n", "group": group} | self._constants(name, "p_")
        for i, one in enumerate(arriving.values()):
            if isinstance(one, Below):
                by_name |= {f"errors_signal{i}": one.errors, f"back_signal{i}": one.back}
                by_name[f"rows_signal{i}"] = chain.room(f"rows{mark}_{i}", "n", size)
            else:
                by_name[f"signal{i}"] = one
        if "addresses" in loop.arguments:
            by_name["addresses"] = self._calls(gathering.back_addresses, bool(step.outgoing))
        by_name |= {f"h_{key}": self._history(name, key) for key in loop.recorded}
        by_name |= {f"start_h_{key}": self._before_first(name, key) for key in loop.starts}
        for (product, _), connection in zip(step.products, step.outgoing, strict=True):
            matrix = self._back(connection.source, connection)
            by_name[f"matrix_{product}"] = matrix
            by_name[f"panels_{product}"] = self._panels(matrix, connection.target, connection.source)
            by_name[f"sums_{product}"] = chain.room(f"sums{mark}_{product}", "n", size)
            by_name["rest"] = self._rest()
        carries = [chain.room(f"carry{mark}_{one.name}", "n", size) for one in step.carried]
        by_name |= {f"carries_{one.name}": room for one, room in zip(step.carried, carries, strict=True)}
        errors = [chain.room(f"error{mark}_{i}", "steps", "n", size) for i, _ in enumerate(step.errors)]
        by_name |= {f"out{i}": error for i, error in enumerate(errors)}
        totals = [chain.room(f"total{mark}_{i}", "n", size) for i in range(step.biased + len(step.learned))]
        by_name |= {f"total{i}": total for i, total in enumerate(totals)}
        chain.call(loop.kernel, *(by_name[each] for each in loop.arguments))
        return _WentBack(loop, errors, totals, dict(zip((key[1:] for key in step.keys), carries, strict=True)))

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
        key = source, Z
        back = self._back(source, connection)
        present = self.arriving.get(key)
        if present is None and self.graph.populations[name].size <= FEW_ABOVE:
            self.arriving[key] = Below(below, back)
            return
        whole = present if isinstance(present, str) else self._signal(source)
        if isinstance(present, Below):
            self._carry(present, self._above(present), source, whole, False)
        self._carry(Below(below, back), name, source, whole, present is not None)
        self.arriving[key] = whole

    def _above(self, signal: Below) -> str:
        """The population that a signal comes from."""
        connection = self.backs[signal.back][1]
        return self.graph.output if connection is None else connection.target

    def _signal(self, source: str) -> str:
        return self.chain.room(f"signal_{self.numbers[source]}", "steps", "n", self._size(source))

    def _carry(self, error: Below, above: str, source: str, into: str, onto: bool) -> None:
        panels = self._panels(error.back, above, source)
        self._multiply(error.errors, above, panels, into, source, onto)
