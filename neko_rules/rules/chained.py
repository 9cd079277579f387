"""Chained: loss and gradient of a batch by one compiled loop over groups of examples, with all of a step in each.

Groups add up as portions do, and their histories stay in the second cache.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.credit.adjoint import FEW_ABOVE, back_to
from neko_rules.credit.recursion import Setting
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.kernels.dense import times_as_long
from neko_rules.kernels.events import SORTED, crossover
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
from neko_rules.rules.portions import numbers_of_a_step
from neko_rules.rules.rule import Batch, Own
from neko_rules.threads import parts, threads

if TYPE_CHECKING:
    from neko_rules.rules.chained_window import Carried
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.linking import Linked, Told

CACHED = 3 << 19
"""Bytes of histories of a group. Between a sixth and twice as much was measured to be the same with a second cache of
half a megabyte; at four times as much what a group leaves behind is gone when it is read."""

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
    """

    traced: tuple[tuple[str, str], ...]


class Given(NamedTuple):
    """What a chain works on, in backend arrays but for the inputs.

    Attributes:
        values, feedback, constants: the network.
        inputs: [batch, time, feature], the order in which chains read them.
        target: [1 or time, batch, n_out].
        counted: which steps and examples the loss is of, [1 or time, batch].
        weight: how much each of them counts in the loss whose gradient is wanted.
        pooling: how the outputs that are judged are made of those of every time step.
    """

    values: Parameters
    feedback: Parameters
    constants: dict[str, Constants]
    inputs: np.ndarray
    target: Array
    counted: Array
    weight: Array
    pooling: str


class Ran(NamedTuple):
    """What a chain found, in host memory.

    Attributes:
        links: the chain.
        gradients: by parameter.
        loss: its sum over what is counted.
        scores: the outputs that were judged, [1 or time, batch, n_out]; empty if nobody asks for them.
        spikes: how often every neuron fired, [1, batch, neuron], of the populations for which that is asked.
        handed: what it was given of the time steps before, and filled for those after, by argument.
    """

    links: Linked
    gradients: dict[str, np.ndarray]
    loss: float
    scores: np.ndarray
    spikes: dict[str, np.ndarray]
    handed: dict[str, Any]


class _Plan(NamedTuple):
    """What does not change from one batch to the next, if they are of one size.

    Attributes:
        constants: those of the network from which ``known`` was made.
        known: constants, and where what loops call begins, by argument.
        sizes: whole numbers, by name.
        shapes: of the gradients.
        ranges: the examples of each thread.
    """

    constants: dict[str, Constants]
    known: dict[str, Any]
    sizes: dict[str, int]
    shapes: list[tuple[int, ...]]
    ranges: list[tuple[int, int]]


class Chains:
    """The chains of a rule.

    Args:
        rule: the rule.
    """

    def __init__(self, rule: LearningRule) -> None:
        from neko_rules.kernels.listing import survey

        graph = rule.model.network.graph
        self._survey = survey
        self._seen = _seen(rule)
        self._possible = _possible(rule)
        self._numbers = numbers_of_a_step(rule.model)
        self._work = sum(population.size * 4 for population in graph.populations.values())
        self._spiking = frozenset(name for name in graph.order if name in graph.senders and graph.cell(name).spiking)
        # Those that did not fire much in the window before.
        self._few = self._spiking
        self._found: dict[Hashable, Linked | None] = {}
        self._plans: dict[Hashable, _Plan] = {}

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
        nx, model = rule.nx, rule.model
        inputs, target, mask = batch
        steps, pooling = inputs.shape[0], model.network.readout
        constants = model.network.constants_with(values)
        # One row of the mask, and of what is made from it, is that of all steps.
        count = nx.sum(mask) * ((steps if pooling == "sequence" else 1) // mask.shape[0])
        divisor = nx.maximum(count, 1.0)
        turned = host.host(inputs).transpose(1, 0, 2)
        given = Given(values, own["feedback"], constants, turned, target, mask, mask / divisor, pooling)
        ran = self.ran(rule, host, given)
        if ran is None:
            return None
        total = nx.asarray(ran.loss, model.network.dtype)
        totals = {"loss": (total, count)}
        if model.metrics:
            fired = {population: host.from_host(sums) for population, sums in ran.spikes.items()}
            scores = host.from_host(ran.scores)
            totals |= model.measured(Measurement(scores, target, mask, fired, model.network.dt, steps))
        gradients = {name: host.from_host(ran.gradients[name]) for name in values}
        return Judgement(total / divisor, {}, totals), gradients

    def serves(self, rule: LearningRule, steps: int, examples: int, features: int) -> bool:
        """Whether there may be a chain for so much of a batch, and it is worth compiling one."""
        return self._possible and examples * self._bytes_of_each(rule, steps, features) >= WORTHWHILE

    def _bytes_of_each(self, rule: LearningRule, steps: int, features: int) -> int:
        return steps * (self._numbers + features) * np.dtype(rule.model.network.dtype).itemsize

    def ran(
        self,
        rule: LearningRule,
        host: HostBackend,
        given: Given,
        window: Window | None = None,
        carried: Carried | None = None,
        goes_on: bool = False,
    ) -> Ran | None:
        """What a chain finds; None where there is none.

        Args:
            rule: the rule.
            host: its backend.
            given: parameters and data.
            window: what goes on beyond the time steps that are given; None for whole sequences.
            carried: what that is; None for whole sequences.
            goes_on: whether traces were handed on from a window before, which are changed where they are: what ends a
                chain before its time has then to be known before.
        """
        examples, steps, features = given.inputs.shape
        group = group_size(self._bytes_of_each(rule, steps, features), examples)
        given = given._replace(inputs=handed_over(given.inputs, rule.model.network.dtype))
        looked = examples if goes_on else group
        some, odd = self._survey(given.inputs, looked)
        walked = self._few if goes_on else self._spiking
        walked |= {INPUT} if some < crossover(features) * steps * looked * features else set()
        while True:
            self._few = walked - {INPUT}
            # Of an input that is not walked only what was looked at is known.
            look = walked, INPUT in walked and not odd, window
            if look not in self._found:
                self._found[look] = _made(rule, given, *look)
            links = self._found[look]
            if links is None:
                return None
            plan = self._plan(look, links, host, given, group, carried)
            ran = _run(links, plan, rule, host, given, group, {} if carried is None else carried.handed(links))
            if isinstance(ran, Ran):
                return ran
            # Begun anew, so that how a batch is gone through depends on no other batch.
            if ran.kind == "odd":
                odd = True
            else:
                walked -= {ran.source}

    def _plan(
        self, look: Hashable, links: Linked, host: HostBackend, given: Given, group: int, carried: Carried | None
    ) -> _Plan:
        """How a chain goes through batches of a size."""
        (examples, steps, _), goals = given.inputs.shape, given.target.shape[0]
        key = look, given.pooling, steps, examples, group, goals, threads()
        plan = self._plans.get(key)
        if plan is None or plan.constants is not given.constants:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[key] = _planned(links, host, given, group, self._work, carried)
        return plan


def group_size(bytes_of_each: int, examples: int) -> int:
    """How many examples of a batch make a group: all where their histories are small anyway.

    Example:
        >>> group_size(1 << 10, examples=64), group_size(1 << 18, examples=64)
        (64, 8)
    """
    room = CACHED / bytes_of_each
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
        and not rule.regularizers
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


def _made(rule: LearningRule, given: Given, walked: frozenset[str], ones: bool, window: Window | None) -> Linked | None:
    """The chain for a rule and such data, by whose events are few or all 1, and by what goes on beyond it."""
    from neko_rules.rules.linking import Kind, Linking
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
        bool(model.metrics) or window is not None,
        any(metric.requires == "spikes" for metric in model.metrics),
        network.dtype,
        given.inputs.shape[2],
        window,
        walked,
        ones,
        tuple(tuple(len(each_one.shape) for each_one in constants[name].values()) for name in network.graph.order),
    )
    setting = Setting(rule.nx, network.graph, rule.jacobians, constants, rule.credit, lambda connection: connection)
    written = Linking if window is None else LinkingWindow
    return _links.setdefault(network.graph, Memo()).of(kind, lambda: written(setting, kind).linked())


def _planned(links: Linked, host: HostBackend, given: Given, group: int, work: int, carried: Carried | None) -> _Plan:
    kind = links.kind
    (examples, steps, _), goals = given.inputs.shape, given.target.shape[0]
    known: dict[str, Any] = {n: addresses(kind.dtype, *asked) for n, (addresses, asked) in links.calls.items()}
    for name, (population, key) in links.constants.items():
        value = host.host(given.constants[population][key])
        known[name] = handed_over(value, kind.dtype) if value.ndim else value.astype(kind.dtype)[()]
    known |= {name: crossover(size) for name, size in links.crossovers.items()}
    known |= {} if carried is None else carried.constants(links)
    judged = steps if kind.pooling == "sequence" else 1
    sizes = {**links.sizes, "steps": steps, "judged": judged, "goals": goals, "sorted": max(SORTED, group)}
    shapes = [tuple(given.values[parameter].shape) for parameter in links.gradients.values()]
    return _Plan(given.constants, known, sizes, shapes, parts(examples, steps * examples * work))


def _run(
    links: Linked, plan: _Plan, rule: LearningRule, host: HostBackend, given: Given, group: int, handed: dict[str, Any]
) -> Ran | Told:
    """Go through all groups; or end where something is not what the chain was made for, and tell it.

    Args:
        links: the chain.
        plan: for batches of this size.
        rule: whose gradient it is.
        host: the backend.
        given: parameters and data.
        group: examples in a group.
        handed: what goes on beyond the time steps that are given, by argument.
    """
    nx, model, kind = rule.nx, rule.model, links.kind
    graph, dtype, sizes = model.network.graph, kind.dtype, plan.sizes
    examples, judged = given.inputs.shape[0], sizes["judged"]
    scores = np.empty((judged, examples, graph.populations[graph.output].size) if kind.scored else (0, 0, 0), dtype)

    def typed(array: Array) -> np.ndarray:
        return handed_over(host.host(array), dtype)

    every: dict[str, Any] = {
        "inputs": given.inputs,
        "target": typed(given.target),
        "counted": typed(given.counted),
        "weight": typed(given.weight),
        "scores": scores,
        **plan.known,
        **handed,
    }
    spikes = {
        population: np.empty((1, examples, graph.populations[population].size), dtype)
        for population in links.spikes.values()
    }
    every |= {name: spikes[population] for name, population in links.spikes.items()}
    for name, connections in links.weights.items():
        first, *others = (typed(effective_weight(nx, each_one, given.values)) for each_one in connections)
        every[name] = sum(others, first) if others else first
    for name, (source, connection) in links.backs.items():
        every[name] = typed(back_to(nx, kind.credit, given.values, given.feedback, source, connection))
    for name, population in links.biases.items():
        bias = given.values.get(bias_name(population))
        every[name] = np.zeros(graph.populations[population].size, dtype) if bias is None else typed(bias)
    chain = links.chain
    found = [BUFFERS.several(plan.shapes, dtype) for _ in plan.ranges]
    losses = np.zeros((len(plan.ranges), 1))

    def part(number: int, first: int, last: int) -> int:
        whole, gradients = found[number]
        whole.fill(0)
        own = {**every, **dict(zip(links.gradients, gradients, strict=True)), "total": losses[number]}
        size = min(group, last - first)
        counts = [sizes[name] for name in chain.sizes]
        scratch = chain.scratch(BUFFERS, sizes, size, dtype)
        return int(
            chain.run(first, last, size, chain.addresses, *scratch, *counts, *(own[name] for name in chain.given))
        )

    told = max(each(part, plan.ranges))
    if told:
        return links.told[told - 1]
    whole, parts_of_it = found[0]
    for other, _ in found[1:]:
        whole += other
    gradients = dict(zip(links.gradients.values(), parts_of_it, strict=True))
    for connection in graph.connections:
        if connection.masked:
            clear_diagonal(gradients[connection.weight])
    return Ran(links, gradients, sum(losses[:, 0].tolist()), scores, spikes, handed)


_links: WeakKeyDictionary[Graph, Memo[Linked]] = WeakKeyDictionary()
