"""Linking: compiled loops written down as a chain, in their order and with what each is handed: forward, and the loss.

The loops are those of the forward pass (``layers.fused``) and of the loss (``kernels.rowwise``); ``rules.linking_back``
goes on with the way back. Where the events of a source are few they are walked, where not all that it sent is
multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from neko_rules.chains.linked import Calls, Handed, Kind, Linked, Told
from neko_rules.kernels import asking, gathering, grouped, listing, products
from neko_rules.kernels.chain import Chain
from neko_rules.kernels.events import index_type
from neko_rules.kernels.rowwise import Pass
from neko_rules.kernels.tracing import NotTraceableError
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Z
from neko_rules.layers.fused import Form, carried, goes_flat, kernel_of, together
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.layers.jacobians import SLOPE
from neko_rules.losses import compiled_pass


class Linking:
    """Writes a chain that goes forward and judges the outputs.

    Args:
        graph: of the network.
        constants: of the cells of its populations, of which only the names matter.
        kind: which chain.
    """

    at = "zero"
    """Where the first time step is in what the chain is given."""
    onto = "false"
    """Whether sums over time steps are added to what there was."""

    def __init__(self, graph: Graph, constants: Mapping[str, Constants], kind: Kind) -> None:
        self.graph, self.kind = graph, kind
        self.keys = {name: tuple(of) for name, of in constants.items()}
        self.chain = Chain(kind.dtype, windows=kind.windows)
        self.numbers = {name: str(i) for i, name in enumerate(self.graph.order)} | {INPUT: "x"}
        self.width = products.panel_width(kind.dtype)
        self.sizes: dict[str, int] = {"largest": max(kind.inputs, *(p.size for p in graph.populations.values()))}
        self.weights: dict[str, tuple[Connection, ...]] = {}
        self.backs: dict[str, tuple[str, Connection | None]] = {}
        self.biases: dict[str, str] = {}
        self.constants: dict[str, tuple[str, str]] = {}
        self.gradients: dict[str, str] = {}
        self.told: list[Told] = []
        self.crossovers: dict[str, int] = {}
        self.spikes: dict[str, str] = {}
        self.pushes: dict[str, str] = {}
        self.synapses: dict[str, Connection] = {}
        self.calls: dict[str, Calls] = {}
        self.handed = Handed({}, {}, {}, {}, {})
        self.update = 0
        for name in ("steps", "judged", "goals", "largest", "sorted"):
            self.chain.size(name)
        self.chain.number("rows", "steps * n")

    def linked(self) -> Linked:
        """The chain.

        Raises:
            NotTraceableError: something has no compiled loop.
        """
        self._write()
        return Linked(
            self.kind,
            self.chain.compiled(),
            self.sizes,
            self.weights,
            self.backs,
            self.biases,
            self.constants,
            self.gradients,
            self.told,
            self.crossovers,
            self.spikes,
            self.pushes,
            self.synapses,
            self.calls,
            self.handed,
            self.update,
        )

    def _write(self) -> None:
        """All loops, in their order."""
        self._go_forward()
        self._judge()
        self._count_all()

    # What is different where a sequence goes on.

    def _part(self, given: str, *shape: str | int) -> str:
        """Of an array that has a first axis of time, the time steps that the chain is for, in that shape."""
        return given

    def _total(self, total: str) -> str:
        """Where the loss is added to."""
        return total

    def _list_inputs(self, inputs: str) -> None:
        """List the events of the inputs."""
        if self.kind.ones:
            odd = self.chain.room("odd", 1, kind="count")
            self.chain.call(listing.list_group_of_ones, "begin", inputs, *self._listed(INPUT), odd)
            self._tell(Told(INPUT, "odd"), f"{odd}[0] > 0")
        else:
            self.chain.call(listing.list_group, "begin", self.at, inputs, *self._listed(INPUT))

    def _before_first(self, name: str, key: str) -> str:
        """A state of a population before the first time step."""
        return self._at_rest(name)

    def _after_last(self, name: str, form: Form) -> None:
        """Look at the states of a population after the last time step."""

    # Names.

    def _size(self, source: str) -> str:
        name = f"size_{self.numbers[source]}"
        self.sizes[name] = self.graph.size(source, self.kind.inputs)
        return self.chain.size(name)

    def _columns(self, source: str) -> str:
        """Panels of a matrix with as many columns."""
        name = f"columns_{self.numbers[source]}"
        self.sizes[name] = -(-self.graph.size(source, self.kind.inputs) // self.width)
        return self.chain.size(name)

    def _history(self, source: str, key: str) -> str:
        """A history of a population, or of the input."""
        name = "x" if source == INPUT else f"h{self.numbers[source]}_{key}"
        return self.chain.room(name, "steps", "n", self._size(source))

    def _flat(self, history: str, source: str) -> str:
        return self.chain.view(history, "steps * n", self._size(source))

    def _kind(self, source: str) -> str:
        """The memory for numbers of its neurons."""
        return "narrow" if index_type(self.graph.size(source, self.kind.inputs)) == "uint16" else "wide"

    def _listed(self, source: str) -> tuple[str, str]:
        """Numbers and counts of the events of a population, or of the input."""
        number = self.numbers[source]
        index = self.chain.room(f"index_{number}", "steps", "n", self._size(source), kind=self._kind(source))
        return index, self.chain.room(f"count_{number}", "steps", "n", kind="count")

    def _values(self, source: str) -> str:
        """What a loop over events takes for their values."""
        ones = self.kind.ones if source == INPUT else self.graph.cell(source).spiking
        return self.chain.room("nothing", 0, 0, 0) if ones else self._history(source, Z)

    def _weight(self, *connections: Connection) -> str:
        for name, known in self.weights.items():
            if known == connections:
                return name
        name = self.chain.take(f"weight_{len(self.weights)}", 2)
        self.weights[name] = connections
        return name

    def _constants(self, name: str, prefix: str) -> dict[str, str]:
        """What a loop calls the constants of a cell, and what they are called here."""
        found = {}
        for key, rank in zip(self.keys[name], self._ranks(name), strict=True):
            here = self.chain.take(f"constant_{self.numbers[name]}_{key}", rank)
            self.constants[here] = name, key
            found[f"{prefix}{key}"] = here
        return found

    def _ranks(self, name: str) -> tuple[int, ...]:
        """How many axes the constants of a population have."""
        return self.kind.ranks[self.graph.order.index(name)]

    def _at_rest(self, name: str) -> str:
        rest = self.chain.room("at_rest", "n", "largest", once=True)
        return self.chain.view(rest, "n", self._size(name))

    def _rest(self) -> str:
        return self.chain.room("rest", products.BLOCK, self.width, once=True)

    def _forward_calls(self, source: str, later: bool) -> str:
        return self._calls(gathering.forward_calls, index_type(self.graph.size(source, self.kind.inputs)), later)

    def _calls(self, calls: Callable[..., Calls], *asked: str | bool) -> str:
        """Where what a loop calls begins."""
        found = self.chain.take("_".join(map(str, (calls.__name__, *asked))), 1, "int64")
        self.calls[found] = calls(self.kind.dtype, *asked)
        return found

    def _panels(self, matrix: str, rows: str, columns: str) -> str:
        """The panels of a matrix [rows, columns], each a population or the input; filled once."""
        chain, name = self.chain, f"panels_{matrix}"
        if not chain.has(name):
            chain.room(name, self._columns(columns), self._size(rows), self.width, once=True)
            chain.call(products.fill_panels, matrix, name, once=True)
        return name

    def _together(self, loop: str, most: int) -> str:
        """How many examples of a group go through the time steps of a loop together: so many at most."""
        name = self.chain.size(f"most_{loop}")
        self.sizes[name] = most
        return f"min(n, {name})"

    # Forward in time.

    def _go_forward(self, components: int | None = None) -> None:
        """Through the first so many components, or all of them."""
        self._begin()
        for component in self.graph.components[:components]:
            self._forward(component)

    def _begin(self) -> None:
        chain, walked, inputs = self.chain, INPUT in self.kind.walked, self.chain.take("inputs", 3)
        at_rest = chain.room("at_rest", "n", "largest", once=True)
        chain.call(grouped.clear, at_rest, once=True)
        if not (walked and self.kind.ones):
            chain.call(grouped.take_inputs, "begin", self.at, inputs, self._history(INPUT, Z))
        if walked:
            self._list_inputs(inputs)

    def _forward(self, component: tuple[str, ...]) -> None:
        """Populations that step together, from the events of what they receive from or from products with all of it."""
        by_name: dict[str, str] = {}
        forms = []
        for place, name in enumerate(component):
            outside = [c for c in self.graph.into(name) if c.source not in component]
            walked = [c for c in outside if c.source in self.kind.walked]
            dense = [c for c in outside if c.source not in self.kind.walked]
            inner: dict[tuple[int, bool], tuple[Connection, ...]] = {}
            for connection in self.graph.into(name):
                if connection.source in component:
                    key = component.index(connection.source), bool(connection.delay)
                    inner[key] = (*inner.get(key, ()), connection)
            form = self._form(name, walked, tuple(inner), bool(dense), len(component) == 1)
            forms.append(form)
            self._deliver(name, dense)
            by_name |= self._handed(name, place, form)
            for i, each_walked in enumerate(walked):
                source, own = each_walked.source, f"{place}_{i}"
                of = self._weight(each_walked), *self._listed(source), self._values(source)
                keys = ("weight", "index", "count", "values")
                by_name |= {f"{key}{own}": given for key, given in zip(keys, of, strict=True)}
                by_name[f"calls{own}"] = self._forward_calls(source, bool(each_walked.delay))
                if each_walked.delay:
                    by_name |= {f"began{own}": self._before_first(source, Z), f"row{own}": self._row_of_numbers(source)}
            for i, ((_, later), several) in enumerate(inner.items()):
                by_name[f"matrix{place}_{i}"] = self._weight(*several)
                by_name[f"called{place}_{i}"] = self._forward_calls(several[0].source, later)
        forward = kernel_of(tuple(forms), self.kind.dtype)
        if forward is None:
            raise NotTraceableError("a neuron without a compiled loop")
        most = together(((self.graph.cell(of), self.graph.populations[of].size) for of in component), self.kind.dtype)
        # Neurons of all examples are one row where these are few.
        group = "n" if forms[0].flat else self._together(f"forward_{self.numbers[component[0]]}", most)
        by_name |= {"first": "zero", "last": "n", "group": group}
        self.chain.call(forward.run, *(by_name[each] for each in forward.arguments))
        for name, form in zip(component, forms, strict=True):
            self._after_last(name, form)
            if name in self.kind.walked:
                self._count(name)

    def _lean(self, name: str) -> bool:
        """Whether ψ is all that is recorded of it beside its events: not where all that it sent is asked for."""
        return name in (self.kind.lean & self.kind.walked) - self.kind.keeps_current

    def _form(
        self,
        name: str,
        walked: Sequence[Connection],
        inner: tuple[tuple[int, bool], ...],
        dense: bool,
        alone: bool,
    ) -> Form:
        constants = tuple((key, rank > 0) for key, rank in zip(self.keys[name], self._ranks(name), strict=True))
        lean = self._lean(name)
        return Form(
            self.graph.cell(name),
            constants,
            tuple((self._values(each.source) == "nothing", bool(each.delay)) for each in walked),
            dense,
            inner,
            name in self.kind.keeps_current,
            lean,
            lean or name in self.graph.senders,
            alone and goes_flat(self.graph.populations[name].size, constants, bool(inner), lean),
        )

    def _deliver(self, name: str, dense: Sequence[Connection]) -> None:
        """The current that connections deliver, as products over all time steps."""
        for i, connection in enumerate(dense):
            source, panels = connection.source, self._panels(self._weight(connection), connection.source, name)
            if connection.delay:
                self._multiply_later(source, panels, name, i > 0)
            else:
                self._multiply(self._history(source, Z), source, panels, self._current(name), name, i > 0)

    def _current(self, name: str) -> str:
        return self.chain.room(f"outside_{self.numbers[name]}", "steps", "n", self._size(name))

    def _multiply(self, left: str, source: str, panels: str, into: str, target: str, onto: bool) -> None:
        """The product of a history and a matrix."""
        given = [self._flat(left, source), panels, self._flat(into, target), self._rest(), "true" if onto else "false"]
        self.chain.call(products.multiply, "zero", "rows", *given)

    def _multiply_later(self, source: str, panels: str, target: str, onto: bool) -> None:
        """The product of what arrives one step after it was sent, and of what was sent before the first."""
        chain, sent, received = self.chain, self._size(source), self._size(target)
        rest, flag, later = self._rest(), "true" if onto else "false", "(steps - 1) * n"
        first = chain.view(self._current(target), "n", received)
        chain.call(products.multiply, "zero", "n", self._before_first(source, Z), panels, first, rest, flag)
        of = chain.view(self._history(source, Z), later, sent), panels
        into = chain.view(self._current(target), later, received, skip=f"n * {received}")
        chain.number("later_rows", later)
        chain.call(products.multiply, "zero", "later_rows", *of, into, rest, flag)

    def _handed(self, name: str, place: int, form: Form) -> dict[str, str]:
        """What a forward loop takes of a population itself."""
        chain, number, size = self.chain, self.numbers[name], self._size(name)
        bias = chain.take(f"bias_{number}", 1)
        self.biases[bias] = name
        by_name = {f"bias{place}": bias} | self._constants(name, f"p{place}_")
        if form.outside:
            by_name[f"outside{place}"] = self._current(name)
        for key in carried(form.cell):
            by_name[f"start{place}_{key}"] = self._before_first(name, key)
            if form.lean:
                by_name[f"kept{place}_{key}"] = chain.room(f"kept{number}_{key}", "n", size)
        recorded = (SLOPE,) if form.lean else carried(form.cell)
        for key in (*recorded, *(("current",) if form.keep_current else ())):
            by_name[f"out{place}_{key}"] = self._history(name, key)
        if form.listed:
            by_name[f"fired{place}"], by_name[f"fired_count{place}"] = self._listed(name)
        if form.flat:
            by_name[f"current{place}"] = chain.room(f"current_{number}", "n", size)
            by_name[f"biases{place}"] = chain.room(f"biases_{number}", "n", size)
        else:
            by_name[f"current{place}"] = chain.room(f"current_{number}", "n", size)
            by_name[f"first{place}"] = self._row_of_numbers(name)
        return by_name

    def _row_of_numbers(self, name: str) -> str:
        return self.chain.room(f"first_{self.numbers[name]}", self._size(name), kind=self._kind(name))

    def _tell(self, told: Told, condition: str) -> None:
        """End if a condition holds."""
        self.told.append(told)
        self.chain.add(f"if {condition}:", f"    return {len(self.told)}")

    def _count(self, name: str) -> None:
        """End with the first group if the events of a population are not few."""
        found = self.chain.room("found", 1, kind="count")
        self.chain.call(grouped.count_group, self._listed(name)[1], found)
        crossover = self.chain.take(f"crossover_{self.numbers[name]}", 0, "float64")
        self.crossovers[crossover] = self.graph.populations[name].size
        few = f"{crossover} * rows * {self._size(name)}"
        self._tell(Told(name, "many"), f"begin == first and {found}[0] >= {few}")

    def _count_all(self) -> None:
        """How often every neuron fired in every example; after the last step from which a group is begun anew."""
        spiking = [name for name in self.graph.order if self.kind.rates and self.graph.cell(name).spiking]
        for name in spiking:
            sums = self.chain.take(f"spikes_{self.numbers[name]}", 3)
            self.spikes[sums] = name
            if name in self.kind.walked:
                self.chain.call(grouped.count_spikes, "begin", *self._listed(name), self.onto, sums)
            else:
                self.chain.call(grouped.sum_spikes, "begin", self._history(name, Z), self.onto, sums)

    # The loss.

    def _judge(self) -> str:
        """The loss, and the room of its derivative by what it observes."""
        chain, output = self.chain, self.graph.output
        if self.kind.loss is None:
            signal = chain.room("signal", "steps", "n", self._size(output))
            chain.call(grouped.copy_rows, self._ask_about_outputs(), self._flat(signal, output))
            return signal
        judge = compiled_pass(self.kind.loss, self.kind.dtype)
        if judge is None:
            raise NotTraceableError("a loss without a compiled pass")
        size, history = self._size(output), self._history(output, self.kind.observes)
        goal, signal = self._goal(), chain.room("signal", "steps", "n", size)
        share, values = (chain.room(name, "judged", "n") for name in ("share", "values"))
        chain.call(grouped.take_group, "begin", self._part(chain.take("target", 3), "goals", "examples", size), goal)
        chain.call(grouped.take_numbers, "begin", self._part(chain.take("weight", 2), "judged", "examples"), share)
        pooled, skip, chosen = self._pooled()
        slope = signal if pooled == history else chain.room("slope", "n", size)
        scores, into = (chain.view(each, "judged * n", size, skip=skip) for each in (pooled, slope))
        self._differentiate(judge, scores, into, values)
        if self.kind.pooling == "last":
            chain.call(grouped.clear_before_last, signal)
        elif slope != signal:
            chain.call(grouped.spread_largest if chosen else grouped.spread_mean, slope, *chosen, signal)
        counted, total = self._part(chain.take("counted", 2), "judged", "examples"), chain.take("total", 1, "float64")
        chain.call(grouped.add_loss, "begin", counted, values, self._total(total))
        if self.kind.scored:
            self._put_scores(pooled, skip)
        return signal

    def _goal(self) -> str:
        """The room of targets."""
        return self.chain.room("goal", "goals", "n", self._size(self.graph.output))

    def _differentiate(self, judge: Pass, scores: str, slope: str, values: str) -> None:
        """The values of scores, and their weighted derivative; by row."""
        chain, output = self.chain, self.graph.output
        size = self._size(output)
        self.sizes[chain.size("block")] = judge.block(self.graph.populations[output].size)
        given = [scores, chain.view(self._goal(), "goals * n", size)]
        given += [chain.view(chain.room("share", "judged", "n"), "judged * n"), chain.view(values, "judged * n")]
        given += [slope, "block"]
        given += [chain.room(f"row{i}", size, "block") for i in range(judge.kept)]
        given += [chain.room(f"number{i}", "block") for i in range(judge.numbers)]
        chain.call(judge.kernel, *given)

    def _ask_about_outputs(self) -> str:
        """Ask a function of Python's, which puts scores and the loss where they are wanted: what holds its answer."""
        chain, output = self.chain, self.graph.output
        size, history = self._size(output), self._history(output, self.kind.observes)
        observed, answered = (chain.view(chain.take(name, 1), "steps * n", size) for name in ("observed", "answered"))
        chain.call(grouped.copy_rows, self._flat(history, output), observed)
        question = chain.take("question", 0, "int64"), chain.take("asked", 1, "int64")
        chain.call(asking.ask_about, *question, "begin", "n", chain.take("place", 1, "int64"))
        return answered

    def _pooled(self) -> tuple[str, str, list[str]]:
        """Where the outputs that are judged are: a room, from an entry on; and the time steps that were chosen."""
        chain, size = self.chain, self._size(self.graph.output)
        history = self._history(self.graph.output, self.kind.observes)
        if self.kind.pooling == "sequence":
            return history, "0", []
        if self.kind.pooling == "last":
            return history, f"(steps - 1) * n * {size}", []
        pooled = chain.room("pooled", "n", size)
        chosen = [chain.room("chosen", "n", size, kind="count")] if self.kind.pooling == "max" else []
        chain.call(grouped.pool_largest if chosen else grouped.pool_mean, history, pooled, *chosen)
        return pooled, "0", chosen

    def _put_scores(self, pooled: str, skip: str) -> None:
        """Put the outputs that are judged where those of the batch are wanted."""
        chain, size = self.chain, self._size(self.graph.output)
        into = self._part(chain.take("scores", 3), "judged", "examples", size)
        chain.call(grouped.put_group, "begin", chain.view(pooled, "judged", "n", size, skip=skip), into)
