"""Chained pass: sequences gone through in windows, each by one compiled loop, with what goes on from one to the next.

What ``Online`` and ``Windowed`` do where there are chains of ``linking_window``. All of it lies in host memory as NumPy
arrays, whatever the backend: of a window of a few time steps, operations of a library would be most of the time.
"""

from __future__ import annotations

from functools import cached_property, lru_cache, partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from neko_rules.backend import Array, get_backend
from neko_rules.chains.running import Given, Plan, arguments
from neko_rules.credit.factors import of_factors
from neko_rules.credit.spans import Rate, Spans
from neko_rules.kernels.host import BUFFERS, HostBackend, handed_over, host_of
from neko_rules.kernels.parallel import each
from neko_rules.layers.forward import NetworkState, Z
from neko_rules.layers.graph import INPUT
from neko_rules.layers.moment import at_rest
from neko_rules.rules.back import OF_FACTORS, Window
from neko_rules.rules.chained import backs_of
from neko_rules.scoring import Scoring

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked, Told
    from neko_rules.credit.stepwise import State
    from neko_rules.kernels.asking import Question
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.penalties import Penalties
    from neko_rules.rules.updates import Updates


class Begin(NamedTuple):
    """Where a sequence is that a pass goes on with, in backend arrays; nothing of it is changed.

    Attributes:
        states: of the network.
        credit: traces.
    """

    states: NetworkState
    credit: State


class Passed(NamedTuple):
    """What a pass met on the way, in host memory.

    Attributes:
        loss: its sum over what is counted, and how much that is.
        last: the same of the last window alone.
        outputs: what the loss observes, [time, batch, n_out].
        spikes: how often every neuron fired, [batch, neuron]; of no population if nobody asks.
        states: of the network in the end.
        credit: traces in the end; anything where the sequence ends.
    """

    loss: tuple[np.ndarray, np.ndarray]
    last: tuple[np.ndarray, np.ndarray]
    outputs: np.ndarray
    spikes: dict[str, np.ndarray]
    states: dict[str, dict[str, np.ndarray]]
    credit: dict[str, dict[str, np.ndarray]]


def host_for_chains(rule: LearningRule, inputs: Array) -> HostBackend | None:
    """The rule's backend, if there may be chains for sequences [time, batch, feature] and they are worth compiling."""
    host = host_of(rule.nx)
    if host is None or not rule.chains().has_windows:
        return None
    return host if rule.chains().serves(rule, *inputs.shape) else None


def chained_pass(
    rule: LearningRule,
    host: HostBackend,
    by_step: dict[str, Array],
    size: int,
    spans: Spans | None,
    updates: Updates,
    begin: Begin | None = None,
    ends: bool = True,
    penalties: Penalties | None = None,
) -> Passed | None:
    """Go through all windows; None where there is no chain for them.

    Args:
        rule: whose gradients they are.
        host: its backend, of ``host_for_chains``.
        by_step: inputs, targets, masks and weights of every time step, in backend arrays.
        size: time steps of a window; the last may be shorter.
        spans: how traces go on; None where credit ends with every window.
        updates: the parameters, and what becomes of every gradient.
        begin: what came before; None for nothing.
        ends: whether nobody asks for traces after the last window.
        penalties: those of the rule; None for none.
    """
    data = data_of(rule, host, by_step, size)
    examples, _, features = data.inputs.shape
    carried = Carried(rule, host, spans, examples, features, begin)
    going = _Pass(rule, data, size, carried, updates, ends, penalties)
    if not going.through():
        return None
    states = carried.network() | {INPUT: {Z: np.array(data.inputs[:, -1])}}
    dtype = np.dtype(rule.model.network.dtype).type
    # One after the other, as they would be added up on the way.
    loss = reduce(np.add, going.losses.astype(dtype))
    totals = (loss, reduce(np.add, data.some)), (dtype(going.losses[-1]), data.some[-1])
    summed, alone = ((np.asarray(one), np.asarray(other)) for one, other in totals)
    spikes = {name: sums[0] for name, sums in going.spikes.items()}
    return Passed(summed, alone, going.scores, spikes, states, carried.credit())


class Data(NamedTuple):
    """What a pass goes through, in host memory.

    Attributes:
        inputs: [batch, time, feature].
        target: [time, batch, n_out].
        counted: which steps and examples the loss is of, [time, batch].
        weight: how much each of them counts in the loss whose gradient is wanted, [time, batch].
        some: how much of every window the loss is of.
    """

    inputs: np.ndarray
    target: np.ndarray
    counted: np.ndarray
    weight: np.ndarray
    some: np.ndarray


def data_of(rule: LearningRule, host: HostBackend, by_step: dict[str, Array], size: int) -> Data:
    """The data of a pass, with the arguments of ``chained_pass``."""
    dtype = rule.model.network.dtype
    x, target, mask, share = (host.host(by_step[key]) for key in ("x", "target", "mask", "weight"))
    steps = len(x)
    some, weights = (
        np.array([each[first : first + size].sum() for first in range(0, steps, size)]) for each in (mask, share)
    )
    weight = np.repeat(weights / np.maximum(some, 1), size)[:steps, None] * mask
    inputs = handed_over(x.transpose(1, 0, 2), dtype)
    return Data(inputs, handed_over(target, dtype), handed_over(mask, dtype), handed_over(weight, dtype), some)


class _Asked:
    """What a chain asks for in every window: what penalties on firing rates add to errors.

    Args:
        penalties: the penalties; None for none.
        steps, examples: of a window.
        dtype: of the network.

    Attributes:
        pushes: by population, [time, neuron].
    """

    def __init__(self, penalties: Penalties | None, steps: int, examples: int, dtype: str) -> None:
        self.pushes: dict[str, np.ndarray] = {}
        self._question: Question | None = None
        if penalties is not None and penalties.populations:
            from neko_rules.kernels.asking import Question

            self.pushes = {name: np.zeros((steps, penalties.sizes[name]), dtype) for name in penalties.populations}
            sizes = penalties.sizes.items()
            self._fired = {name: BUFFERS.empty((steps, examples, size), dtype) for name, size in sizes}
            self._question = Question(partial(penalties.fill, self._fired, self.pushes))

    def handed(self, links: Linked) -> dict[str, Any]:
        """What a chain takes for it beside ``pushes``."""
        if self._question is None:
            return {}
        fired = {argument: self._fired[of] for argument, of in links.handed.fired.items()}
        return {**fired, "question": self._question.address, "asked": self._question.asked}

    def check(self) -> None:
        """Raise what was raised where nobody could hear of it."""
        if self._question is not None:
            self._question.check()


class _Pass:
    """A pass on its way.

    Args:
        rule, data, size, updates, ends, penalties: as for ``chained_pass``.
        carried: what goes on from window to window.

    Attributes:
        scores: what the loss observes, [time, batch, n_out].
        losses: of every window.
        spikes: how often every neuron fired, by population: [1, batch, neuron].
    """

    def __init__(
        self,
        rule: LearningRule,
        data: Data,
        size: int,
        carried: Carried,
        updates: Updates,
        ends: bool,
        penalties: Penalties | None,
    ) -> None:
        self._rule, self._data, self._carried, self._updates, self._ends = rule, data, carried, updates, ends
        self._graph = graph = rule.model.network.graph
        self._chains, self._numpy = rule.chains(), cast(Any, get_backend("numpy"))
        examples, self._steps, features = data.inputs.shape
        # Groups are as large as windows of the first size have them, so that few chains go through few examples.
        self._size, self._group = size, self._chains.group(min(size, self._steps), examples, features)
        self._penalties = penalties
        if penalties is not None and penalties.populations:
            self._group = examples
        self._share = 0.0 if penalties is None else penalties.share(examples)
        self._walked, odd = self._chains.walked(data.inputs, examples)
        self._ones = not odd
        self._reached = np.zeros(1, np.int64)
        shape = self._steps, examples, graph.populations[graph.output].size
        self.scores = BUFFERS.empty(shape, data.weight.dtype)
        self.losses = np.zeros(-(-self._steps // size))
        self.spikes: dict[str, np.ndarray] = {}

    def through(self) -> bool:
        """Go through all windows: whether there were chains for them."""
        whole, rest = divmod(self._steps, self._size)
        return self._alike(0, whole, self._size) and self._alike(whole, min(rest, 1), rest)

    def _alike(self, base: int, count: int, steps: int) -> bool:
        """So many windows of as many time steps each, the first of which has the number ``base``."""
        opening, dtype = 0, self._rule.model.network.dtype
        asked = _Asked(self._penalties, steps, len(self._data.inputs), dtype)
        while opening < count:
            links, given = self._linked(asked)
            if links is None:
                return False
            plan = self._chains.plan_of_windows(links, self._numpy, given, self._group, steps, self._carried)
            backs = backs_of(self._rule, self._numpy, given.values, self._updates.feedback, links)
            every = arguments(links, plan, self._numpy, given, backs)
            every |= asked.handed(links)
            # By one call where nothing has to be done from outside in between.
            looped = len(plan.ranges) == 1 and self._updates.looped(links)
            closing = count if looped else opening + 1
            after = not self._ends or base + closing < len(self.losses)
            told = self._run(links, plan, every, (opening, closing, base * self._size, base), looped, after)
            asked.check()
            if told is None:
                opening = closing
            else:
                self._walked -= {told.source}
                opening = int(self._reached[0])
        return True

    def _linked(self, asked: _Asked) -> tuple[Linked | None, Given]:
        data, values = self._data, self._updates.values
        network, ones = self._rule.model.network, self._ones and INPUT in self._walked
        constants = self._rule.constants_with(values)
        # Every step is judged by itself.
        scoring = Scoring(self._rule.model.loss, "sequence", network.task_type)
        given = Given(values, constants, *data[:4], scoring, 1.0, asked.pushes, self._share)
        return self._chains.linked(self._rule, given, self._walked, ones, self._carried.window), given

    def _run(
        self,
        links: Linked,
        plan: Plan,
        every: dict[str, Any],
        windows: tuple[int, int, int, int],
        looped: bool,
        after: bool,
    ) -> Told | None:
        """Go through windows; or end where something is not what the chain was made for, and tell it."""
        chain, carried, updates = links.chain, self._carried, self._updates
        handed = carried.handed(links, looped)
        every |= handed
        # Where other threads go on, they change traces where they are: what one of them finds is then too late.
        every["telling"] = looped or not (carried.begun and carried.per_synapse)
        every |= {"before": carried.begun, "after": after, "scores": self.scores, "reached": self._reached}
        spikes = {of: self._spikes_of(of) for of in links.spikes.values()}
        # What is begun anew has added nothing yet by one thread; of several only one may know.
        counted = spikes if looped else {of: np.zeros_like(sums) for of, sums in spikes.items()}
        every |= {name: counted[of] for name, of in links.spikes.items()}
        found = [BUFFERS.lent(plan.gradients) for _ in plan.ranges]
        by_name = dict(zip(links.gradients.values(), found[0], strict=False))
        changes, addresses = updates.changes(links, by_name, looped), chain.addresses
        if changes.address:
            addresses = addresses.copy()
            addresses[links.update] = changes.address
        if changes.given["adding"]:
            found[0][-1].fill(0)
        every |= changes.given
        losses = [np.zeros_like(self.losses) for _ in plan.ranges]

        def part(number: int, first: int, last: int) -> int:
            *gradients, whole = found[number]
            own = {**every, **dict(zip(links.gradients, gradients, strict=True)), "gradients": whole}
            own["total"] = losses[number]
            size, (places, form) = plan.groups[number]
            numbers = *windows, *plan.sizes
            return int(chain.run(first, last, size, addresses, places, *BUFFERS.lent(form), *numbers, *plan.given(own)))

        told, number = max(each(part, plan.ranges)), windows[3] + windows[0]
        if looped or not told:
            self.losses += sum(losses)
        if told:
            if looped:
                # The windows before that one are done with.
                carried.begun |= bool(self._reached[0] > windows[0])
                updates.take(number, by_name, looped)
            return links.told[told - 1]
        for other in found[1:]:
            found[0][-1][:] += other[-1]
        for of, sums in spikes.items():
            if not looped:
                sums += counted[of]
        carried.take(links, handed)
        updates.take(number, by_name, looped)
        return None

    def _spikes_of(self, population: str) -> np.ndarray:
        if population not in self.spikes:
            shape = 1, len(self._data.inputs), self._graph.populations[population].size
            self.spikes[population] = np.zeros(shape, self.scores.dtype)
        return self.spikes[population]


_CONSTANT = frozenset({"decay", "kappa", "leak", "kept", "powers", "share", "left", "ones", "last", "filter"})
"""What of a trace is the same in every window of so many time steps."""

_FILTERED = " filtered"
"""What the engine calls filtered traces, behind the name of the parameter."""

_AFTER = ("after", "emitted_after")
"""What of a trace is written where it is not read, if windows are gone through one by one."""


class Carried:
    """What is carried from window to window.

    Args:
        rule: the rule.
        host: its backend.
        spans: how traces go on; None where credit ends with every window.
        examples: of a batch.
        features: of the input.
        begin: what came before; None for nothing.

    Attributes:
        states: of the network, and what factors carry.
    """

    def __init__(
        self,
        rule: LearningRule,
        host: HostBackend,
        spans: Spans | None,
        examples: int,
        features: int,
        begin: Begin | None = None,
    ) -> None:
        network = rule.model.network
        self.graph, self.dtype, self.spans = network.graph, network.dtype, spans
        self.begun = begin is not None
        states = at_rest(rule.nx, self.graph, examples, features, self.dtype) if begin is None else begin.states
        # Copies, since windows that are gone through by one call change them where they are.
        self.states = {
            name: {key: np.array(host.host(state), self.dtype, order="C") for key, state in of.items()}
            for name, of in states.items()
            if name != INPUT
        }
        self._sums: dict[str, np.ndarray] = {}
        self._filtered: dict[str, np.ndarray] = {}
        self._wide: dict[str, np.ndarray] = {}
        # What was there a window ago, which nobody needs.
        self._spare: dict[Any, np.ndarray] = {}
        self._later = {connection.weight for connection in self.graph.connections if connection.delay}
        if spans is not None:
            traces = rule.stepwise.start(examples) if begin is None else begin.credit
            for name, rate in spans.rates.items():
                self._sums[name] = np.array(host.host(traces[name][rate.state])[:, :, 0], self.dtype, order="C")
            for key in traces:
                if key.endswith(_FILTERED):
                    before = traces[key]["trace"]
                    held = self._filtered[key.removesuffix(_FILTERED)] = BUFFERS.empty(tuple(before.shape), self.dtype)
                    if begin is not None:
                        held[:] = host.host(before)
            for name, each_wide in self.window.wide:
                for of in spans.traces.of[name]:
                    held = self._wide[of.name] = BUFFERS.empty((examples, of.pre, of.post), self.dtype)
                    if begin is not None:
                        held[:] = host.host(traces[of.name][each_wide.state])
                for state in each_wide.emitting:
                    before = traces[spans.traces.of[name][0].name][f"h {state}"]
                    self._sums[f"{name} {state}"] = np.array(host.host(before), self.dtype, order="C")
            for name in spans.traces.factors:
                for key, before in traces[of_factors(name)].items():
                    self.states[name][OF_FACTORS + key] = np.array(host.host(before), self.dtype, order="C")

    @property
    def starts(self) -> list[np.ndarray]:
        """What windows which are gone through by one call change where it lies, and read before the first."""
        return [held for of in (*self.states.values(), self._sums) for held in of.values()]

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that they change where it lies."""
        return [*self.starts, *self._filtered.values(), *self._wide.values()]

    @property
    def per_synapse(self) -> bool:
        """Whether there are traces of every synapse, which are changed where they are."""
        return bool(self._filtered or self._wide)

    def handed(self, links: Linked, looped: bool) -> dict[str, Any]:
        """What a chain takes beside ``constants``, and arrays that it fills, by argument.

        Args:
            links: the chain.
            looped: whether it goes through several windows, and fills the arrays that it takes.
        """
        found: dict[str, Any] = {name: self.states[of][key] for name, (of, key) in links.handed.starts.items()}
        for argument, (name, key) in links.handed.ends.items():
            found[argument] = self._filled((name, key), self.states[name][key], looped)
        for argument, (what, parameter) in links.handed.traces.items():
            if what in ("before", "emitted"):
                found[argument] = self._sums[parameter]
            elif what in _AFTER:
                found[argument] = self._filled(parameter, self._sums[parameter], looped)
            elif what in ("filtered", "wide"):
                found[argument] = (self._filtered if what == "filtered" else self._wide)[parameter]
        return found

    def _filled(self, of: Any, before: np.ndarray, looped: bool) -> np.ndarray:
        if looped:
            return before
        spare = self._spare.pop(of, None)
        return np.empty_like(before) if spare is None else spare

    def constants(self, links: Linked, steps: int) -> dict[str, Any]:
        """What a chain takes that follows from how traces go on alone, in windows of so many time steps."""
        return {
            argument: self._of_rate(what, of, steps)
            for argument, (what, of) in links.handed.traces.items()
            if what in _CONSTANT
        }

    def _of_rate(self, what: str, of: str, steps: int) -> Any:
        """An argument of a chain that follows from how the traces of a parameter or population go on alone."""
        spans = self._spans
        if of in spans.rates:
            what = "later powers" if what == "powers" and of in self._later else what
            return _constant(what, steps, 0.0, spans.rates[of], self.dtype)
        kappa = spans.filter_of(of) if of in spans.traces.leak else 0.0
        return _constant(what, steps, kappa, spans.rate_of(of), self.dtype)

    def take(self, links: Linked, handed: dict[str, Any]) -> None:
        """Windows are over, for which a chain was handed that."""
        for argument, (name, key) in links.handed.ends.items():
            self.states[name][key] = self._taken((name, key), self.states[name][key], handed[argument])
        for argument, (what, parameter) in links.handed.traces.items():
            if what in _AFTER:
                self._sums[parameter] = self._taken(parameter, self._sums[parameter], handed[argument])
        self.begun = True

    def _taken(self, of: Any, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if after is not before:
            self._spare[of] = before
        return after

    def credit(self) -> dict[str, dict[str, np.ndarray]]:
        """The traces as the engine has them."""
        rates = {} if self.spans is None else self.spans.rates
        found = {name: {rate.state: self._sums[name][:, :, None]} for name, rate in rates.items()}
        for name, wide in self.window.wide:
            for of in self._spans.traces.of[name]:
                emitted = {f"h {state}": self._sums[f"{name} {state}"] for state in wide.emitting}
                found[of.name] = {**found.get(of.name, {}), wide.state: self._wide[of.name], **emitted}
        for name in () if self.spans is None else self.spans.traces.factors:
            held = {key: each for key, each in self.states[name].items() if key.startswith(OF_FACTORS)}
            found[of_factors(name)] = {key.removeprefix(OF_FACTORS): each for key, each in held.items()}
        return found | {f"{name}{_FILTERED}": {"trace": held} for name, held in self._filtered.items()}

    def network(self) -> dict[str, dict[str, np.ndarray]]:
        """The states of the network alone."""
        return {
            name: {key: held for key, held in of.items() if not key.startswith(OF_FACTORS)}
            for name, of in self.states.items()
        }

    @property
    def _spans(self) -> Spans:
        assert self.spans is not None, "a chain is told of traces where there are any"
        return self.spans

    @cached_property
    def window(self) -> Window:
        """What goes on, as chains are told."""
        if self.spans is None:
            return Window(())
        return Window(self.spans.filters, tuple(self.spans.wide.items()))


@lru_cache(maxsize=256)
def _constant(what: str, steps: int, kappa: float, rate: Rate, dtype: str) -> Any:
    """What follows for a window from how a trace goes on alone, as a chain takes it: not to be written to.

    Args:
        what: which number, or which numbers by time step.
        steps: time steps of the window.
        kappa: of what filters the traces; not looked at for others.
        rate: of the traces.
        dtype: of the network.
    """
    from neko_rules.kernels.filtering import powers

    _, leak, gain = rate
    sent = powers(leak, steps, gain)
    known = {
        "decay": kappa**steps,
        "kappa": kappa,
        "leak": leak,
        "share": leak / gain,
        "left": gain * leak ** (steps - 1.0),
        "kept": powers(kappa, steps, gain),
        "powers": sent,
        "later powers": sent[1:],
        "last": powers(0.0, steps),
        "filter": powers(kappa, steps),
        "ones": sent.sum(),
    }
    found = np.asarray(known[what], dtype)
    return found if found.ndim else found[()]
