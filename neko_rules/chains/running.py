"""Running: a batch gone through by a chain, group by group, each small enough that its histories stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Backend, Parameters, get_backend
from neko_rules.kernels.buffers import Form, together
from neko_rules.kernels.chain import WINDOWS
from neko_rules.kernels.events import crossover, sorted_together
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over, holding
from neko_rules.kernels.parallel import each
from neko_rules.kernels.tracing import Memo
from neko_rules.kernels.writer import TOGETHER
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import effective_weight
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name
from neko_rules.layers.network import Network
from neko_rules.losses import Loss
from neko_rules.metrics import Metric
from neko_rules.scoring import Scoring
from neko_rules.threads import parts, threads

if TYPE_CHECKING:
    from neko_rules.chains.linked import Kind, Linked, Told
    from neko_rules.kernels.chain import Layout

CACHED = 1 << 20
"""Bytes of histories of a group. Between a quarter and three times as much was measured to be the same with a second
cache of half a megabyte; with one of two megabytes one and a half times as much took a twentieth longer."""

_PLANS = 64
"""Sizes of batches for which plans are kept: sequences may be of any length."""

WORTHWHILE = 1 << 17
"""Bytes of histories for which a chain is compiled, which takes a second or two and is kept on disk."""


_often: ContextVar[bool] = ContextVar("often", default=False)


def often() -> AbstractContextManager[None]:
    """Within it the smallest batch is worth a chain: for who asks thousands of times, as samplers do."""
    return holding(_often, True)


class Given(NamedTuple):
    """What a chain works on.

    Attributes:
        values, constants: the network, in backend arrays; what follows is in host memory.
        inputs: [batch, time, feature], the order in which chains read them.
        target: [1 or time, batch, n_out].
        counted: which steps and examples the loss is of, [1 or time, batch].
        weight: how much each of them counts in the loss whose gradient is wanted.
        scoring: how the outputs are judged.
        divisor: how many of them count in the loss.
        pushes: by population, one more signal of every neuron, which is the same at all time steps of all examples; in
            windows [time, neuron], the same for all examples.
        share: how much of the penalties on states every time step of every example has.
    """

    values: Parameters
    constants: dict[str, Constants]
    inputs: np.ndarray
    target: np.ndarray
    counted: np.ndarray
    weight: np.ndarray
    scoring: Scoring
    divisor: float = 1.0
    pushes: Mapping[str, np.ndarray] = {}
    share: float = 0.0


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
        links: the chain, by which it is told apart as long as the plan is there.
        constants: those of the network from which ``known`` was made.
        known: constants, and where what loops call begins, by argument.
        given: of all arguments by name those that the chain is given, in its order.
        sizes: whole numbers, in the order of the chain.
        judged: how many time steps are.
        gradients: how they lie in memory.
        partial: connections of which some weights stay zero, and which of them are theirs.
        biases: parameter by argument, of the populations that have one.
        ranges: the examples of each thread.
        groups: how many of them make a group in each, and how its rooms lie in memory.
    """

    links: Linked
    constants: dict[str, Constants]
    known: dict[str, Any]
    given: Callable[[dict[str, Any]], tuple[Any, ...]]
    sizes: list[int]
    judged: int
    gradients: Form
    partial: list[tuple[Connection, int]]
    biases: dict[str, str]
    ranges: list[tuple[int, int]]
    groups: list[tuple[int, Layout]]


def prepared(
    network: Network, loss: Loss, values: Parameters, inputs: np.ndarray, target: np.ndarray, mask: np.ndarray
) -> tuple[Given, float]:
    """What a chain of whole sequences works on, and how many outputs count in the loss.

    Args:
        network: the network.
        loss: what its outputs are judged by.
        values: its parameters, in backend arrays.
        inputs: [batch, time, feature].
        target, mask: of every time step or of all, in host memory.
    """
    scoring = Scoring(loss, network.readout, network.task_type)
    counted = scoring.counting(get_backend("numpy"), mask, len(mask))[1]
    # One row of the mask, and of what is made from it, is that of all steps.
    rows = inputs.shape[1] if network.readout == "sequence" and loss.online else 1
    count = counted.sum() * (rows // len(counted))
    divisor = max(count, 1.0)
    return Given(values, network.constants_with(values), inputs, target, mask, mask / divisor, scoring, divisor), count


def kind_of(network: Network, given: Given, walked: frozenset[str], ones: bool) -> Kind:
    """The kind of a chain that goes forward and judges; of those that do more, what they share with it."""
    from neko_rules.chains.linked import Kind

    order, constants, loss = network.graph.order, given.constants, given.scoring.loss
    return Kind(
        lean=frozenset(),
        keeps_current=network.keeps_current,
        loss=loss if loss.is_of_outputs else None,
        observes=loss.observes,
        formulas=(type(loss).value, type(loss).gradient) if loss.is_of_outputs else (),
        pooling=given.scoring.readout,
        scored=False,
        rates=False,
        dtype=network.dtype,
        inputs=given.inputs.shape[2],
        walked=walked,
        ones=ones,
        ranks=tuple(tuple(len(one.shape) for one in constants[name].values()) for name in order),
        windows=False,
        back=None,
    )


def numbers_of_a_step(graph: Graph) -> int:
    """How many numbers the histories of an example grow by with every time step.

    Example:
        >>> from neko_rules import LIF
        >>> numbers_of_a_step(LIF(16, 4, inputs=8).graph)
        80
    """
    # States and output, and what comes and what goes on the way back.
    return sum(
        population.size * (len(graph.cell(name).state_names()) + 3) for name, population in graph.populations.items()
    )


def may_be_judged(network: Network, metrics: Sequence[Metric]) -> bool:
    """Whether all that metrics ask of a network, and how it is connected, is what chains have."""
    graph = network.graph
    return (
        type(network).forward is Network.forward
        and all(metric.requires != "spikes" or metric.of_counts for metric in metrics)
        # A chain's products, and its gradients, are those of whole matrices.
        and not any(connection.converters is not None or connection.shares for connection in graph.connections)
    )


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two tuples hold the same objects."""
    return len(one) == len(other) and all(map(is_, one, other))


def kept(graph: Graph, key: Hashable, make: Callable[[], Linked]) -> Linked | None:
    """The chain of a network by what it depends on, made once; None where something has no compiled loop."""
    return _links.setdefault(graph, Memo()).of(key, make)


class Runner:
    """Batches gone through by the chains of a network.

    Args:
        graph: the network's.
        dtype: its type.
        least: examples that a group is to have.
    """

    def __init__(self, graph: Graph, dtype: str, least: int = 1) -> None:
        from neko_rules.kernels.listing import survey

        self._graph, self._dtype, self._least, self._survey = graph, dtype, least, survey
        self._numbers = numbers_of_a_step(graph)
        self._work = sum(population.size * 4 for population in graph.populations.values())
        self._spiking = frozenset(name for name in graph.order if name in graph.senders and graph.cell(name).spiking)
        self._found: dict[Hashable, Linked | None] = {}
        self.lacking = False
        """Whether there was a batch that no chain could be made for."""
        self._plans: dict[Hashable, Plan] = {}

    def worthwhile(self, steps: int, examples: int, features: int) -> bool:
        """Whether so much of a batch is worth compiling a chain."""
        return _often.get() or examples * self._bytes_of_each(steps, features) >= WORTHWHILE

    def group(self, steps: int, examples: int, features: int) -> int:
        """How many examples make a group, over so many time steps."""
        return group_size(self._bytes_of_each(steps, features), examples, self._least)

    def _bytes_of_each(self, steps: int, features: int) -> int:
        return steps * (self._numbers + features) * np.dtype(self._dtype).itemsize

    def walked(self, inputs: np.ndarray, examples: int) -> tuple[frozenset[str], bool]:
        """What is taken to have few events, and whether those of the input are not all 1, by the first examples."""
        some, odd = self._survey(inputs, examples)
        _, steps, features = inputs.shape
        few = some < crossover(features) * steps * examples * features
        return self._spiking | ({INPUT} if few else set()), bool(odd)

    def known(self, look: Hashable, make: Callable[[], Linked | None]) -> Linked | None:
        """The chain for what is looked at, made where it is not known; None where there is none."""
        # Another thread may have made one in between.
        found = self._found[look] if look in self._found else self._found.setdefault(look, make())
        self.lacking |= found is None
        return found

    def plan(
        self,
        links: Linked,
        host: HostBackend,
        given: Given,
        group: int,
        rows: tuple[int, int],
        more: Callable[[], Mapping[str, Any]] = dict,
        together: bool = False,
    ) -> Plan:
        """How a chain goes through batches of a size.

        Args:
            links: the chain, one of those that are ``known``.
            host: the backend of the parameters.
            given: parameters and data.
            group: examples in each group.
            rows: time steps, and those that there are targets for.
            more: what else of what the chain takes does not change, by argument.
            together: whether one thread goes through all examples.
        """
        examples = given.inputs.shape[0]
        key = id(links), given.scoring.readout, *rows, examples, group, threads()
        plan = self._plans.get(key)
        if plan is None or plan.links is not links or plan.constants is not given.constants:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            ranges = [(0, examples)] if together else parts(examples, rows[0] * examples * self._work)
            plan = self._plans[key] = planned(links, self._graph, host, given, group, rows, ranges, more())
        return plan

    def through(
        self,
        host: HostBackend,
        given: Given,
        linked: Callable[[frozenset[str], bool], Linked | None],
        backs: Callable[[Linked], Mapping[str, np.ndarray]] = lambda links: {},
    ) -> Ran | None:
        """What a chain finds for whole sequences; None where there is none.

        Args:
            host: the backend of the parameters.
            given: parameters and data.
            linked: the chain for what is taken to have few events, and for whether those of the input are all 1.
            backs: the matrices that carry errors back, by argument.
        """
        given = given._replace(inputs=handed_over(given.inputs, self._dtype))
        examples, steps, features = given.inputs.shape
        group = self.group(steps, examples, features)
        walked, odd = self.walked(given.inputs, group)
        while True:
            # Of an input that is not walked only what was looked at is known.
            links = linked(walked, INPUT in walked and not odd)
            if links is None:
                return None
            plan = self.plan(links, host, given, group, (steps, given.target.shape[0]))
            ran = run(links, plan, self._graph, host, given, backs(links))
            if isinstance(ran, Ran):
                return ran
            # Begun anew, so that how a batch is gone through depends on no other batch.
            if ran.kind == "odd":
                odd = True
            else:
                walked -= {ran.source}


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


def planned(
    links: Linked,
    graph: Graph,
    host: HostBackend,
    given: Given,
    group: int,
    rows: tuple[int, int],
    ranges: Sequence[tuple[int, int]],
    more: Mapping[str, Any],
) -> Plan:
    """How a chain goes through batches of a size.

    Args:
        links: the chain.
        graph: the network's.
        host: the backend of the parameters.
        given: parameters and data.
        group: examples in each group.
        rows: time steps, and those that there are targets for.
        ranges: the examples of each thread.
        more: what else of what the chain takes does not change, by argument.
    """
    from neko_rules.kernels.calling import addresses_of

    kind, chain, examples, (steps, goals) = links.kind, links.chain, given.inputs.shape[0], rows
    chain.compile(each for calls in links.calls.values() for each in calls if each)
    known: dict[str, Any] = {name: addresses_of(calls) for name, calls in links.calls.items()}
    for name, (population, key) in links.constants.items():
        value = host.host(given.constants[population][key])
        known[name] = handed_over(value, kind.dtype) if value.ndim else value.astype(kind.dtype)[()]
    known |= {name: crossover(size) for name, size in links.crossovers.items()}
    for name, connection in links.synapses.items():
        known[name] = connection.synapses(*given.values[connection.weight].shape).astype(np.uint8)
    known |= more
    biases = {name: bias_name(population) for name, population in links.biases.items()}
    for name, population in links.biases.items():
        if biases[name] not in given.values:
            known[name] = np.zeros(graph.populations[population].size, kind.dtype)
            del biases[name]
    judged = steps if kind.pooling == "sequence" else 1
    sizes = {**links.sizes, "steps": steps, "judged": judged, "goals": goals, "examples": examples}
    sizes["sorted"] = sorted_together(group)
    in_each = [min(group, last - first) for first, last in ranges]
    layouts = {size: chain.layout(sizes, size, kind.dtype) for size in set(in_each)}
    parameters = list(links.gradients.values())
    shapes = tuple(tuple(given.values[name].shape) for name in parameters)
    # What comes before is of the windows of one pass.
    own = len(WINDOWS) if kind.windows else 0
    return Plan(
        links,
        given.constants,
        known,
        itemgetter(*chain.given),
        [sizes[name] for name in chain.sizes[own:]],
        judged,
        together(shapes or ((0,),), np.dtype(kind.dtype)),
        [(c, parameters.index(c.weight)) for c in graph.connections if c.partial and c.weight in parameters],
        biases,
        list(ranges),
        [(size, layouts[size]) for size in in_each],
    )


def arguments(
    links: Linked, plan: Plan, host: HostBackend, given: Given, backs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What a chain takes, by name, but for what it fills and what goes on from window to window.

    Args:
        links: the chain.
        plan: for batches of this size.
        host: the backend of the parameters: the rule's, or NumPy's.
        given: parameters and data.
        backs: the matrices that carry errors back, by argument; none where there is no way back.
    """
    kind, values, view = links.kind, given.values, host.host
    dtype, backend = kind.dtype, cast(Backend, host)
    # Written out, since a step of a small network is mostly the making of this.
    every = {**plan.known, "inputs": given.inputs}
    every["share_of_penalties"] = np.dtype(dtype).type(given.share)
    every["target"] = handed_over(given.target, dtype)
    every["counted"] = handed_over(given.counted, dtype)
    every["weight"] = handed_over(given.weight, dtype)
    for name, connections in links.weights.items():
        of_all = [handed_over(view(effective_weight(backend, one, values)), dtype) for one in connections]
        every[name] = of_all[0] if len(of_all) == 1 else sum(of_all[1:], of_all[0])
    every |= backs
    for name, parameter in plan.biases.items():
        every[name] = handed_over(view(values[parameter]), dtype)
    return every | {name: given.pushes[population] for name, population in links.pushes.items()}


def run(
    links: Linked, plan: Plan, graph: Graph, host: HostBackend, given: Given, backs: Mapping[str, np.ndarray]
) -> Ran | Told:
    """Go through all groups; or end where something is not what the chain was made for, and tell it.

    Args:
        links, plan, host, given, backs: as for ``arguments``.
        graph: the network's.
    """
    found = [BUFFERS.lent(plan.gradients) for _ in plan.ranges]
    return called(links, plan, graph, given, arguments(links, plan, host, given, backs), found)


def called(
    links: Linked, plan: Plan, graph: Graph, given: Given, every: dict[str, Any], found: Sequence[list[np.ndarray]]
) -> Ran | Told:
    """``run`` with arguments that are at hand.

    Args:
        links, plan, given: as for ``arguments``.
        graph: the network's.
        every: what ``arguments`` made; gets what the chain fills.
        found: for every thread, the arrays for gradients and their vector; of the first they become those of all.
    """
    kind, chain, dtype = links.kind, links.chain, links.kind.dtype
    examples = given.inputs.shape[0]
    outputs = graph.populations[graph.output].size
    pieces: dict[int, np.ndarray] | None = {} if kind.scored else None
    # A chain that only counts spikes judges nothing.
    asks, steps = "observed" in chain.given, given.inputs.shape[1]
    raised: list[BaseException] = []
    if asks:
        from neko_rules.chains.answering import answering
    shape = (plan.judged, examples, outputs) if kind.scored and not asks else (0, 0, 0)
    scores = every["scores"] = np.empty(shape, dtype)
    spikes = {}
    for name, population in links.spikes.items():
        spikes[population] = every[name] = np.empty((1, examples, graph.populations[population].size), dtype)
    losses = np.zeros((len(plan.ranges), 1))

    def part(number: int, first: int, last: int) -> int:
        *gradients, whole = found[number]
        whole.fill(0)
        own = {**every, **dict(zip(links.gradients, gradients, strict=False)), "total": losses[number]}
        size, (places, form) = plan.groups[number]
        if asks:
            history, of = (steps, size, outputs), (given.target, given.counted, given.divisor)
            question, asked = answering(given.scoring, *of, history, pieces, losses[number], raised)
            own |= asked
        memories = BUFFERS.lent(form)
        ended = chain.run(first, last, size, chain.addresses, places, *memories, *plan.sizes, *plan.given(own))
        if asks:
            question.check()
        return int(ended)

    told = max(each(part, plan.ranges))
    if told:
        return links.told[told - 1]
    *gradients, whole = found[0]
    for other in found[1:]:
        whole += other[-1]
    for connection, number in plan.partial:
        connection.clear(gradients[number])
    by_name = dict(zip(links.gradients.values(), gradients, strict=False))
    if pieces:
        scores = np.concatenate([pieces[begin] for begin in sorted(pieces)], axis=1)
    return Ran(by_name, float(losses.sum()), scores, spikes)


_links: WeakKeyDictionary[Graph, Memo[Linked]] = WeakKeyDictionary()
