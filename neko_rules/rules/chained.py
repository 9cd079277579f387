"""Chained: loss and gradient of a batch by one compiled loop over groups of examples, with all of a step in each.

Groups add up as portions do, and their histories stay in the second cache.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Backend, Parameters, get_backend
from neko_rules.credit.adjoint import FEW_ABOVE, back_to
from neko_rules.credit.recursion import Setting
from neko_rules.credit.spans import Wide
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.kernels.buffers import Form, together
from neko_rules.kernels.chain import WINDOWS
from neko_rules.kernels.dense import times_as_long
from neko_rules.kernels.events import crossover, sorted_together
from neko_rules.kernels.host import BUFFERS, HostBackend, clear_diagonal, handed_over
from neko_rules.kernels.parallel import each
from neko_rules.kernels.tracing import Memo
from neko_rules.kernels.writer import TOGETHER
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import effective_weight
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name
from neko_rules.layers.network import Network
from neko_rules.losses import Loss
from neko_rules.metrics import Measurement
from neko_rules.regularizers import of_rates
from neko_rules.rules.portions import numbers_of_a_step
from neko_rules.rules.rule import Batch, Own
from neko_rules.threads import parts, threads

if TYPE_CHECKING:
    from neko_rules.kernels.chain import Layout
    from neko_rules.rules.chained_pass import Carried
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.linked import Linked, Told

CACHED = 1 << 20
"""Bytes of histories of a group. Between a quarter and three times as much was measured to be the same with a second
cache of half a megabyte; with one of two megabytes one and a half times as much took a twentieth longer."""

_FED_BACK = 12
"""Examples of a group at least, where errors go back through recurrent weights: a product of fewer rows takes longer
for each of them than do the histories of more examples, which lie in no cache."""

WORTHWHILE = 1 << 17
"""Bytes of histories of a batch for which a chain is compiled, which takes a second or two and is kept on disk."""

_PLANS = 64
"""Sizes of batches for which plans are kept: sequences may be of any length."""

_SLOWEST = 0.75
"""How many times as long as ours a backend's product has to take at least, where large ones are part of a chain: they
are then ours, and what a chain saves elsewhere was measured to be a fifth."""


class Window(NamedTuple):
    """What goes on from some time steps of a sequence to the next, beside the states of the network.

    Attributes:
        traced: the populations whose traces go on, and the state through which a neuron's output feels them if what is
            above filters them; empty if not.
        wide: those of them that have a state whose trace differs from synapse to synapse.
    """

    traced: tuple[tuple[str, str], ...]
    wide: tuple[tuple[str, Wide], ...] = ()


class Given(NamedTuple):
    """What a chain works on.

    Attributes:
        values, feedback, constants: the network, in backend arrays; what follows is in host memory.
        inputs: [batch, time, feature], the order in which chains read them.
        target: [1 or time, batch, n_out].
        counted: which steps and examples the loss is of, [1 or time, batch].
        weight: how much each of them counts in the loss whose gradient is wanted.
        pooling: how the outputs that are judged are made of those of every time step.
        pushes: by population, one more signal of every neuron, which is the same at all time steps of all examples; in
            windows [time, neuron], the same for all examples.
    """

    values: Parameters
    feedback: Parameters
    constants: dict[str, Constants]
    inputs: np.ndarray
    target: np.ndarray
    counted: np.ndarray
    weight: np.ndarray
    pooling: str
    pushes: Mapping[str, np.ndarray] = {}


class Ran(NamedTuple):
    """What a chain found, in host memory.

    Attributes:
        gradients: by parameter.
        loss: its sum over what is counted.
        scores: the outputs that were judged, [1 or time, batch, n_out]; empty if nobody asks for them.
        spikes: how often every neuron fired, [1, batch, neuron], of the populations for which that is asked.
    """

    gradients: dict[str, np.ndarray]
    loss: float
    scores: np.ndarray
    spikes: dict[str, np.ndarray]


class Plan(NamedTuple):
    """What does not change from one batch to the next, if they are of one size.

    Attributes:
        constants: those of the network from which ``known`` was made.
        known: constants, and where what loops call begins, by argument.
        given: of all arguments by name those that the chain is given, in its order.
        sizes: whole numbers, in the order of the chain.
        judged: how many time steps are.
        gradients: how they lie in memory.
        masked: which of them have no diagonal.
        biases: parameter by argument, of the populations that have one.
        ranges: the examples of each thread.
        groups: how many of them make a group in each, and how its rooms lie in memory.
    """

    constants: dict[str, Constants]
    known: dict[str, Any]
    given: Callable[[dict[str, Any]], tuple[Any, ...]]
    sizes: list[int]
    judged: int
    gradients: Form
    masked: list[int]
    biases: dict[str, str]
    ranges: list[tuple[int, int]]
    groups: list[tuple[int, Layout]]


class Chains:
    """The chains of a rule.

    Args:
        rule: the rule.
    """

    def __init__(self, rule: LearningRule) -> None:
        from neko_rules.kernels.listing import survey

        graph = self._graph = rule.model.network.graph
        self._survey = survey
        self._seen = _seen(rule)
        self.possible = _possible(rule)
        self._numbers = numbers_of_a_step(rule.model)
        fed_back = rule.credit.temporal == "full" and any(c.source == c.target for c in graph.connections)
        self._least = _FED_BACK if fed_back else 1
        self._work = sum(population.size * 4 for population in graph.populations.values())
        self._spiking = frozenset(name for name in graph.order if name in graph.senders and graph.cell(name).spiking)
        self._found: dict[Hashable, Linked | None] = {}
        self.lacking = False
        """Whether there was a batch that no chain could be made for."""
        self._plans: dict[Hashable, Plan] = {}

    def fit(self, rule: LearningRule) -> bool:
        """Whether all that was looked at when they were made is still what the rule has."""
        return all(one is other for one, other in zip(self._seen, _seen(rule), strict=True))

    def judged(
        self, rule: LearningRule, host: HostBackend, values: Parameters, own: Own, batch: Batch
    ) -> tuple[Judgement, Parameters] | None:
        """What ``LearningRule`` finds for a batch; None where there is no chain for it, or no use for one.

        Args:
            rule: the same rule, whose gradient goes backward in time.
            host: its backend.
            values, own, batch: as for the rule.
        """
        if not self.serves(rule, *batch[0].shape):
            return None
        model, network = rule.model, rule.model.network
        inputs, target, mask = map(host.host, batch)
        steps, pooling = inputs.shape[0], network.readout
        # One row of the mask, and of what is made from it, is that of all steps.
        count = mask.sum() * ((steps if pooling == "sequence" else 1) // mask.shape[0])
        divisor = max(count, 1.0)
        constants, turned = network.constants_with(values), inputs.transpose(1, 0, 2)
        given = Given(values, own["feedback"], constants, turned, target, mask, mask / divisor, pooling)
        pushes = self._pushes(rule, host, given)
        ran = None if pushes is None else self.ran(rule, host, given._replace(pushes=pushes))
        if ran is None:
            return None
        total = np.asarray(ran.loss, network.dtype)
        loss, summed, counted = (host.from_host(np.asarray(each)) for each in (total / divisor, total, count))
        totals = {"loss": (summed, counted)}
        if model.metrics:
            fired = {population: host.from_host(sums) for population, sums in ran.spikes.items()}
            scores = host.from_host(ran.scores)
            totals |= model.measured(Measurement(scores, *batch[1:], fired, network.dt, steps))
        gradients = {name: host.from_host(ran.gradients[name]) for name in values}
        return Judgement(loss, {}, totals), gradients

    def _pushes(self, rule: LearningRule, host: HostBackend, given: Given) -> dict[str, np.ndarray] | None:
        """What penalties on mean rates add to errors, by population and neuron; None where there is no chain."""
        penalties = [own for penalty in rule.regularizers if (own := of_rates(penalty)) is not None]
        if not penalties:
            return {}
        network, (examples, steps, _) = rule.model.network, given.inputs.shape
        rates = {
            name: np.zeros((1, 1, network.graph.populations[name].size), network.dtype) for name in network.spiking
        }
        if any(penalty.reads_rates for penalty in penalties):
            ran = self.ran(rule, host, given, counting=True)
            if ran is None:
                return None
            rates = {name: sums.mean(axis=1, keepdims=True) / steps for name, sums in ran.spikes.items()}
        found: dict[str, np.ndarray] = {}
        for penalty in penalties:
            for name, slope in penalty.at_rates(get_backend("numpy"), rates, network.dt).items():
                pushed = handed_over(np.ravel(slope) / (steps * examples), network.dtype)
                found[name] = found[name] + pushed if name in found else pushed
        return found

    def serves(self, rule: LearningRule, steps: int, examples: int, features: int) -> bool:
        """Whether there may be a chain for so much of a batch, and it is worth compiling one."""
        return self.possible and examples * self._bytes_of_each(rule, steps, features) >= WORTHWHILE

    def _bytes_of_each(self, rule: LearningRule, steps: int, features: int) -> int:
        return steps * (self._numbers + features) * np.dtype(rule.model.network.dtype).itemsize

    def ran(self, rule: LearningRule, host: HostBackend, given: Given, counting: bool = False) -> Ran | None:
        """What a chain finds for whole sequences; None where there is none.

        Args:
            rule: the rule.
            host: its backend.
            given: parameters and data.
            counting: whether it only counts spikes.
        """
        examples, steps, features = given.inputs.shape
        group = self.group(rule, steps, examples, features)
        given = given._replace(inputs=handed_over(given.inputs, rule.model.network.dtype))
        walked, odd = self.walked(given.inputs, group)
        while True:
            links = self.linked(rule, given, walked, not odd, counting=counting)
            if links is None:
                return None
            plan = self.plan(links, host, given, group, steps)
            ran = _run(links, plan, self._graph, host, given)
            if isinstance(ran, Ran):
                return ran
            # Begun anew, so that how a batch is gone through depends on no other batch.
            if ran.kind == "odd":
                odd = True
            else:
                walked -= {ran.source}

    def group(self, rule: LearningRule, steps: int, examples: int, features: int) -> int:
        """How many examples make a group, over so many time steps."""
        return group_size(self._bytes_of_each(rule, steps, features), examples, self._least)

    def walked(self, inputs: np.ndarray, examples: int) -> tuple[frozenset[str], bool]:
        """What is taken to have few events, and whether those of the input are not all 1, by the first examples."""
        some, odd = self._survey(inputs, examples)
        _, steps, features = inputs.shape
        few = some < crossover(features) * steps * examples * features
        return self._spiking | ({INPUT} if few else set()), bool(odd)

    def linked(
        self,
        rule: LearningRule,
        given: Given,
        walked: frozenset[str],
        ones: bool,
        window: Window | None = None,
        counting: bool = False,
    ) -> Linked | None:
        """The chain for what is taken to have few events; None where there is none.

        Args:
            rule: the rule.
            given: parameters and data.
            walked: populations, and the input.
            ones: whether the events of the input are all 1.
            window: what goes on beyond the time steps of the chain; None for whole sequences.
            counting: whether it only counts spikes.
        """
        # Of an input that is not walked only what was looked at is known.
        look = walked, INPUT in walked and ones, window, counting
        if look not in self._found:
            self._found[look] = _made(rule, given, *look)
        found = self._found[look]
        self.lacking |= found is None
        return found

    def plan(
        self,
        links: Linked,
        host: HostBackend,
        given: Given,
        group: int,
        steps: int,
        carried: Carried | None = None,
    ) -> Plan:
        """How a chain goes through batches of a size, in so many time steps at once.

        Args:
            links: the chain.
            host: the backend of the parameters.
            given: parameters and data.
            group: examples in each group.
            steps: time steps.
            carried: what goes on from window to window; None for whole sequences.
        """
        examples, goals = given.inputs.shape[0], given.target.shape[0] if links.kind.window is None else steps
        look = links.kind.walked, links.kind.ones, links.kind.window, links.kind.counting
        key = *look, given.pooling, steps, examples, group, goals, threads()
        plan = self._plans.get(key)
        if plan is None or plan.constants is not given.constants:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            work = steps * examples * self._work
            plan = self._plans[key] = _planned(links, self._graph, host, given, group, (steps, goals), work, carried)
        return plan


def group_size(bytes_of_each: int, examples: int, least: int = 1) -> int:
    """How many examples of a batch make a group: all where their histories are small anyway.

    Args:
        bytes_of_each: of the histories of an example.
        examples: of the batch.
        least: as many as there are to be in a group if the batch has them.

    Example:
        >>> group_size(1 << 10, examples=64), group_size(1 << 17, examples=64), group_size(1 << 20, 64, least=12)
        (64, 8, 12)
    """
    room = max(CACHED / bytes_of_each, least)
    return examples if examples <= room else min(examples, max(1, round(room / TOGETHER)) * TOGETHER)


def _seen(rule: LearningRule) -> tuple[Any, ...]:
    """What chains depend on that may be replaced in a rule or its model."""
    model = rule.model
    network = model.network
    return model, network, network.graph, network.readout, model.loss, model.metrics, rule.regularizers


_OWN = ("judge", "judge_loss", "_judged", "_scored", "_counting", "counted", "observed")
"""Methods of an Evaluator in whose place a chain stands."""


def _possible(rule: LearningRule) -> bool:
    """Whether the rule's gradient is a sum over examples and made of loops that a chain can call."""
    model, network, loss = rule.model, rule.model.network, type(rule.model.loss)
    graph, full = network.graph, rule.credit.temporal == "full"
    delayed = (c for c in graph.connections if c.delay)
    return (
        rule.plain
        and all(getattr(type(model), name) is getattr(Evaluator, name) for name in _OWN)
        and type(network).forward is Network.forward
        and all(of_rates(penalty) is not None for penalty in rule.regularizers)
        and not rule.credit.outside_chain
        and model.loss.online
        and all(getattr(loss, name) is getattr(Loss, name) for name in ("scores", "pull_back", "desired"))
        and not any(metric.requires == "spikes" and not metric.of_counts for metric in model.metrics)
        and not any(connection.converters is not None for connection in graph.connections)
        and all(any(c.source in one and c.target in one for one in graph.components) for c in delayed)
        and not (full and any(len(component) > 1 for component in graph.components))
        and (not any(_is_wide(graph, c) for c in graph.connections) or times_as_long(rule.nx) > _SLOWEST)
    )


def _is_wide(graph: Graph, connection: Connection) -> bool:
    """Whether the error that a connection carries down is a large product."""
    ends = [graph.populations[name].size for name in (connection.source, connection.target) if name != INPUT]
    return len(ends) == 2 and min(ends) > FEW_ABOVE and connection.source != connection.target


def _made(
    rule: LearningRule, given: Given, walked: frozenset[str], ones: bool, window: Window | None, counting: bool
) -> Linked | None:
    """The chain for a rule and such data, by whose events are few or all 1, and by what goes on beyond it."""
    from neko_rules.rules.linked import Kind
    from neko_rules.rules.linking import Linking
    from neko_rules.rules.linking_counts import LinkingCounts
    from neko_rules.rules.linking_synapses import LinkingSynapses
    from neko_rules.rules.linking_window import LinkingWindow

    model, network, constants = rule.model, rule.model.network, given.constants
    kind = Kind(
        rule.credit,
        tuple(rule.jacobians[name] for name in network.graph.order),
        rule.lean,
        network.keeps_current,
        model.loss,
        (type(model.loss).value, type(model.loss).gradient),
        given.pooling,
        not counting and (bool(model.metrics) or window is not None),
        counting or any(metric.requires == "spikes" for metric in model.metrics),
        network.dtype,
        given.inputs.shape[2],
        window,
        walked,
        ones,
        tuple(tuple(len(each_one.shape) for each_one in constants[name].values()) for name in network.graph.order),
        frozenset() if counting else frozenset(given.pushes),
        counting,
    )
    setting = Setting(rule.nx, network.graph, rule.jacobians, constants, rule.credit, lambda connection: connection)
    written: type[Linking] = LinkingCounts if counting else Linking
    if window is not None:
        written = LinkingSynapses if window.wide else LinkingWindow
    return _links.setdefault(network.graph, Memo()).of(kind, lambda: written(setting, kind).linked())


def _planned(
    links: Linked,
    graph: Graph,
    host: HostBackend,
    given: Given,
    group: int,
    rows: tuple[int, int],
    work: int,
    carried: Carried | None,
) -> Plan:
    kind, chain, examples, (steps, goals) = links.kind, links.chain, given.inputs.shape[0], rows
    known: dict[str, Any] = {n: addresses(kind.dtype, *asked) for n, (addresses, asked) in links.calls.items()}
    for name, (population, key) in links.constants.items():
        value = host.host(given.constants[population][key])
        known[name] = handed_over(value, kind.dtype) if value.ndim else value.astype(kind.dtype)[()]
    known |= {name: crossover(size) for name, size in links.crossovers.items()}
    known |= {} if carried is None else carried.constants(links, steps)
    biases = {name: bias_name(population) for name, population in links.biases.items()}
    for name, population in links.biases.items():
        if biases[name] not in given.values:
            known[name] = np.zeros(graph.populations[population].size, kind.dtype)
            del biases[name]
    judged = steps if kind.pooling == "sequence" else 1
    sizes = {**links.sizes, "steps": steps, "judged": judged, "goals": goals, "examples": examples}
    sizes["sorted"] = sorted_together(group)
    # What penalties on rates within a sequence make of a window is asked for once all examples went through it.
    ranges = [(0, examples)] if kind.pushed and kind.window is not None else parts(examples, work)
    in_each = [min(group, last - first) for first, last in ranges]
    layouts = {size: chain.layout(sizes, size, kind.dtype) for size in set(in_each)}
    parameters = list(links.gradients.values())
    shapes = tuple(tuple(given.values[name].shape) for name in parameters)
    # What comes before is of the windows of one pass.
    own = len(WINDOWS) if kind.window is not None else 0
    return Plan(
        given.constants,
        known,
        itemgetter(*chain.given),
        [sizes[name] for name in chain.sizes[own:]],
        judged,
        together(shapes or ((0,),), np.dtype(kind.dtype)),
        [parameters.index(c.weight) for c in graph.connections if c.masked and c.weight in parameters],
        biases,
        ranges,
        [(size, layouts[size]) for size in in_each],
    )


def arguments(links: Linked, plan: Plan, graph: Graph, host: HostBackend, given: Given) -> dict[str, Any]:
    """What a chain takes, by name, but for what it fills and what goes on from window to window.

    Args:
        links: the chain.
        plan: for batches of this size.
        graph: the network's.
        host: the backend of the parameters: the rule's, or NumPy's.
        given: parameters and data.
    """
    kind, values, view = links.kind, given.values, host.host
    dtype, backend = kind.dtype, cast(Backend, host)
    # Written out, since a step of a small network is mostly the making of this.
    every = {**plan.known, "inputs": given.inputs}
    every["target"] = handed_over(given.target, dtype)
    every["counted"] = handed_over(given.counted, dtype)
    every["weight"] = handed_over(given.weight, dtype)
    for name, connections in links.weights.items():
        of_all = [handed_over(view(effective_weight(backend, one, values)), dtype) for one in connections]
        every[name] = of_all[0] if len(of_all) == 1 else sum(of_all[1:], of_all[0])
    for name, (source, connection) in links.backs.items():
        back = back_to(backend, kind.credit, values, given.feedback, source, connection)
        every[name] = handed_over(view(back), dtype)
    for name, parameter in plan.biases.items():
        every[name] = handed_over(view(values[parameter]), dtype)
    return every | {name: given.pushes[population] for name, population in links.pushes.items()}


def _run(links: Linked, plan: Plan, graph: Graph, host: HostBackend, given: Given) -> Ran | Told:
    """Go through all groups; or end where something is not what the chain was made for, and tell it."""
    kind, chain, dtype = links.kind, links.chain, links.kind.dtype
    examples = given.inputs.shape[0]
    every = arguments(links, plan, graph, host, given)
    outputs = graph.populations[graph.output].size
    scores = every["scores"] = np.empty((plan.judged, examples, outputs) if kind.scored else (0, 0, 0), dtype)
    spikes = {}
    for name, population in links.spikes.items():
        spikes[population] = every[name] = np.empty((1, examples, graph.populations[population].size), dtype)
    found = [BUFFERS.lent(plan.gradients) for _ in plan.ranges]
    losses = np.zeros((len(plan.ranges), 1))

    def part(number: int, first: int, last: int) -> int:
        *gradients, whole = found[number]
        whole.fill(0)
        own = {**every, **dict(zip(links.gradients, gradients, strict=False)), "total": losses[number]}
        size, (places, form) = plan.groups[number]
        memories = BUFFERS.lent(form)
        return int(chain.run(first, last, size, chain.addresses, places, *memories, *plan.sizes, *plan.given(own)))

    told = max(each(part, plan.ranges))
    if told:
        return links.told[told - 1]
    *gradients, whole = found[0]
    for other in found[1:]:
        whole += other[-1]
    for number in plan.masked:
        clear_diagonal(gradients[number])
    by_name = dict(zip(links.gradients.values(), gradients, strict=False))
    return Ran(by_name, float(losses.sum()), scores, spikes)


_links: WeakKeyDictionary[Graph, Memo[Linked]] = WeakKeyDictionary()
