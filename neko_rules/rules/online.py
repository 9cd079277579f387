"""Online: weights that change within a sequence, at every time step, every few, or after every window.

The loss of a sequence is a sum over its time steps, each with its weight; so are the gradients here, which add up to
the deferred gradient as long as the weights stay as they are. A penalty on firing rates is taken at the rate so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import trees
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.credit.adjoint import Problem
from neko_rules.credit.rewinding import ENOUGH, MUCH, ROOM, Place, Rewinding, rewinds
from neko_rules.credit.spans import Spans
from neko_rules.credit.stepwise import LocalTraces
from neko_rules.evaluator import Judgement
from neko_rules.kernels.host import HostBackend, host_of
from neko_rules.layers.forward import NetworkState, Record, Signals, Trajectory, Z, add_signals
from neko_rules.layers.graph import INPUT
from neko_rules.layers.moment import Moment, advance, at_rest
from neko_rules.metrics import Measurement
from neko_rules.regularizers import Activity, of_rates, of_states
from neko_rules.rules.chained_pass import chained_pass, host_for_chains
from neko_rules.rules.kept import Kept
from neko_rules.rules.penalties import OfRatesSoFar, OfWindow, Penalties, SoFar
from neko_rules.rules.updates import Summed, Updates, learning

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule

Tree = Any
Totals = dict[str, tuple[Array, Array]]
Trained = tuple[Parameters, dict[str, Parameters], dict[str, Parameters], Totals, Parameters]


def in_chunks(
    nx: Backend,
    size: int,
    carry: Tree,
    by_step: Tree,
    by_chunk: Tree,
    steps: int,
    body: Callable[[Tree, Tree, Tree, int, bool], tuple[Tree, Tree]],
    apart: bool = False,
) -> tuple[Tree, Tree]:
    """A carry taken through a sequence in pieces of ``size`` time steps; the last may be shorter.

    Args:
        nx: backend.
        size: time steps per piece.
        carry: a tree.
        by_step: a tree of arrays [time, …], cut into pieces.
        by_chunk: a tree of arrays [piece, …].
        steps: number of time steps.
        body: carry, a piece of ``by_step``, an entry of ``by_chunk``, the piece's length and whether it is known to be
            the last to the next carry and outputs [time of the piece, …]. A library that compiles goes through it once
            for all pieces that are alike.
        apart: whether the last piece is compiled by itself even where it is like the others, and so known to be it.

    Returns:
        The last carry, and the outputs [time, …].
    """
    (several, alone), parts = pieces(size, steps, apart), []

    def single(carry: Tree, number: int, length: int, last: bool) -> tuple[Tree, Tree]:
        given = trees.mapped(lambda a: a[number * size : number * size + length], by_step)
        return body(carry, given, trees.mapped(lambda a: a[number], by_chunk), length, last)

    if several == 1:
        carry, outputs = single(carry, 0, size, not alone)
        parts.append(outputs)
    elif several:
        cut = trees.mapped(lambda a: nx.reshape(a[: steps - alone], (several, size, *a.shape[1:])), by_step)
        entries = trees.mapped(lambda a: a[:several], by_chunk)

        def piece(carry: Tree, given: Tree) -> tuple[Tree, Tree]:
            return body(carry, given[0], given[1], size, False)

        carry, outputs = trees.scan(nx, piece, carry, (cut, entries), several)
        parts.append(trees.mapped(lambda a: nx.reshape(a, (steps - alone, *a.shape[2:])), outputs))
    if alone:
        carry, outputs = single(carry, several, alone, True)
        parts.append(outputs)
    if len(parts) == 1:
        return carry, parts[0]
    joined = [nx.concat([one, other], 0) for one, other in zip(*map(trees.leaves, parts), strict=True)]
    return carry, trees.rebuilt(parts[0], iter(joined))


def pieces(size: int, steps: int, apart: bool) -> tuple[int, int]:
    """How many pieces of a sequence are alike, and the time steps of one after them that is compiled by itself.

    Example:
        >>> pieces(20, 200, apart=True), pieces(20, 210, apart=True), pieces(20, 200, apart=False)
        ((9, 20), (10, 10), (10, 0))
    """
    alone = steps % size or (size if apart else 0)
    return (steps - alone) // size, alone


class _Schedule:
    """What online and windowed learning share.

    Args:
        rule: the rule whose weights change.
        size: time steps between two changes.
    """

    def __init__(self, rule: LearningRule, size: int) -> None:
        self.rule, self.size = rule, size
        self.model, self.nx = rule.model, rule.nx

    def by_step(self, batch: tuple[Array, Array, Array]) -> Tree:
        """Inputs, targets, mask and weight of every time step."""
        nx = self.nx
        inputs, target, mask = batch
        steps = inputs.shape[0]
        weights = self.model.step_weights(mask, steps)
        counted = nx.astype(weights > 0, nx.dtype(mask))
        spread = nx.broadcast_to(target, (steps, *target.shape[1:]))
        return {"x": inputs, "target": spread, "mask": counted, "weight": weights}

    def judged(self, trajectory: Trajectory, target: Array, mask: Array, weights: Array) -> Judgement:
        """The loss of some time steps, its signals scaled to the weights of these steps in the whole loss."""
        nx = self.nx
        found = self.model.judge_loss(trajectory, target, mask, "sequence")
        # judge_loss gives every supervised step and example of what it sees the same weight, 1 in all.
        share = nx.sum(weights)
        return Judgement(found.loss, {key: share * each for key, each in found.signals.items()}, found.totals)

    def forward(
        self, carry: Tree, values: Parameters, own: Any, given: Tree
    ) -> tuple[Trajectory, Signals, tuple[Array, Array]]:
        """Some time steps: what the network does, the signals of the loss, and its total and count.

        An output that is read at the last step of the sequence is read through the mask.
        """
        start: NetworkState = carry["network"]
        trajectory = self.model.network.forward(values, given["x"], start, keep_slopes=True)
        judgement = self.judged(trajectory, given["target"], given["mask"], given["weight"])
        signals = self.rule.signals(trajectory, judgement.signals, own, given["target"], given["weight"], rates=False)
        return trajectory, signals, judgement.totals["loss"]

    def by_chains(
        self, host: HostBackend, batch: tuple[Array, Array, Array], spans: Spans | None, updates: Updates
    ) -> Totals | None:
        """One pass by a compiled loop for every window: loss and metrics of it all; None where there is none.

        Args:
            host: the backend, of ``host_for_chains``.
            batch: inputs, targets and mask.
            spans: how traces go on; None where credit ends with every window.
            updates: what is learned on the way.
        """
        penalties = self.penalties(*batch[0].shape[:2]) if self.rule.regularizers else None
        passed = chained_pass(self.rule, host, self.by_step(batch), self.size, spans, updates, penalties=penalties)
        if passed is None:
            return None
        spikes = {name: host.from_host(sums) for name, sums in passed.spikes.items()}
        met = {"loss": tuple(map(host.from_host, passed.loss)), "spikes": spikes}
        return self.totals(met, host.from_host(passed.outputs), batch)

    def penalties(self, steps: int, examples: int) -> Penalties:
        """What the rule's penalties add to errors, in a sequence of so many time steps from rest."""
        raise NotImplementedError

    def learned_by_chains(
        self,
        values: Parameters,
        own: Any,
        memory: Any,
        noise: Parameters,
        batch: tuple[Array, Array, Array],
        rates: Array,
        counts: Array,
        spans: Spans | None = None,
    ) -> Trained | None:
        """A pass with an update after every window, as ``Rule._trained``; None where there is no chain for it."""
        host = host_for_chains(self.rule, batch[0])
        if host is None:
            return None
        updates = learning(self.rule, host, values, own, memory, noise, rates, counts)
        totals = self.by_chains(host, batch, spans, updates)
        if totals is None:
            return None
        kept = updates.after()
        # The last update met all that those before kept.
        return *kept[:3], totals, self.rule.finite(kept, totals["loss"][0])

    def after(self, carry: Tree, trajectory: Trajectory, loss: tuple[Array, Array]) -> Tree:
        """Network, spikes so far and loss so far after some time steps."""
        fired = {name: each + self.nx.sum(trajectory.z(name), axis=0) for name, each in carry["spikes"].items()}
        total = tuple(one + other for one, other in zip(carry["loss"], loss, strict=True))
        return {"network": trajectory.end(), "spikes": fired, "loss": total}

    def updated(
        self, carry: Tree, moving: Tree, noise: Parameters, found: Parameters, rate: Array, count: Array
    ) -> tuple[Tree, bool | None]:
        """What is carried after an update by a gradient, and whether all that it changed is known to be finite."""
        kept = self.rule.applied(carry["values"], carry["own"], carry["memory"], noise, found, rate, count)
        return {**moving, "values": kept.values, "own": kept.own, "memory": kept.memory}, kept.finite

    def finite(self, carry: Tree, loss: Array, looked: bool | None) -> Parameters:
        """By name, whether all that is kept in the end is finite: the last update met all that those before kept."""
        return self.rule.finite(Kept(carry["values"], carry["own"], carry["memory"], looked), loss)

    def totals(self, carry: Tree, outputs: Array, batch: tuple[Array, Array, Array]) -> Totals:
        """Loss and metrics of the whole sequence, from sums over its time steps and from the outputs."""
        nx, network = self.nx, self.model.network
        steps = batch[0].shape[0]
        pooled = outputs[-1:] if network.readout == "last" else outputs
        scores = self.model.loss.scores(nx, pooled, nx.broadcast_to(batch[2], pooled.shape[:2]))
        spikes = {name: nx.expand_dims(each, 0) for name, each in carry["spikes"].items()}
        measured = self.model.measured(Measurement(scores, *batch[1:], spikes, network.dt, steps))
        return {"loss": carry["loss"], **measured}

    def first(self, inputs: Array) -> Tree:
        """What is carried before the first time step, apart from weights."""
        nx, network = self.nx, self.model.network
        batch, dtype = inputs.shape[1], nx.dtype(inputs)
        zero = nx.full((), 0.0, dtype)
        rest = at_rest(nx, network.graph, batch, inputs.shape[2], dtype)
        return {"network": rest, "spikes": {name: rest[name][Z] for name in network.spiking}, "loss": (zero, zero)}


class Online(_Schedule):
    """Traces carried along with the network, and weights that change every ``size`` time steps.

    Traces are stepped together with the network, or taken from one change to the next where ``spans`` allows. Where an
    influence on whole populations would be carried, every gradient goes back through the sequence so far instead, as
    long as that takes not much more memory (``credit.rewinding``).
    """

    def trained(
        self,
        values: Parameters,
        own: Any,
        memory: Any,
        drawn: Parameters,
        batch: tuple[Array, Array, Array],
        rates: Array,
        counts: Array,
    ) -> Trained:
        """One pass over a batch of sequences; as ``Rule._trained``."""
        nx, rule, network, inputs = self.nx, self.rule, self.model.network, batch[0]
        steps, examples, _ = inputs.shape
        time_share = 1.0 / steps
        signs = {name: value for name, value in drawn.items() if name.startswith("signs/")}
        noise = {name: value for name, value in drawn.items() if name.startswith("noise/")}
        spans, windows = (None, None) if signs else (self.spans, self.windows)
        if windows is not None:
            learned = self.learned_by_chains(values, own, memory, noise, batch, rates, counts, windows)
            if learned is not None:
                return learned
        in_turn = host_of(nx) is not None
        rewinding = Rewinding(rule.stepwise, inputs, self.size) if self.rewinds(steps, examples) else None
        credit: Tree
        if rewinding is None:
            credit, chosen = rule.stepwise.start(examples), None
        else:
            credit = rewinding.start(network.forward(values, inputs[:1], keep_slopes=True))
            chosen = None if in_turn else nx.eye(rewinding.pieces, network.dtype)
        carry = {
            **self.first(inputs),
            **self.fresh(examples),
            "credit": credit,
            "values": values,
            "own": own,
            "memory": memory,
        }

        # Filtered traces are not wanted after the last change, where they are much of what a piece costs.
        apart = in_turn or (self.size > 1 and spans is not None and spans.per_synapse)
        # A library that compiles goes through several pieces at once, and then does not know which is the first.
        known, passed = in_turn or pieces(self.size, steps, apart)[0] <= 1, 0
        looked: bool | None = None

        def body(carry: Tree, given: Tree, entry: Tree, length: int, last: bool) -> tuple[Tree, Tree]:
            nonlocal passed, looked
            rate, count, noise_now, here = entry
            place, begun = Place(passed, here.get("chosen")), passed > 0 or not known
            passed += length

            def step(before: Tree, at: Tree) -> tuple[Tree, Parameters, Array]:
                moving, found, output = self.step(
                    before, carry["values"], carry["own"], at["step"], at["signs"], time_share
                )
                after = moving["network"]
                moving["spikes"] = {name: each + after[name][Z] for name, each in before["spikes"].items()}
                loss = zip(before["loss"], moving["loss"], strict=True)
                moving["loss"] = tuple(one + other for one, other in loss)
                return moving, found, output

            def adding(state: Tree, at: Tree) -> tuple[Tree, Array]:
                moving, found, output = step(state[0], at)
                return (moving, {name: total + found[name] for name, total in state[1].items()}), output

            moving = {key: carry[key] for key in ("network", "spikes", "loss", "clock", "rates", "credit")}
            if rewinding is not None:
                given_now = carry["values"], carry["own"], given["step"], place, time_share
                moving, total, outputs = self._rewound(rewinding, moving, *given_now)
            elif length > 1 and spans is not None:
                moving, total, outputs = self._several(spans, moving, carry["values"], carry["own"], given, begun, last)
            elif length == 1:
                moving, total, output = step(moving, trees.mapped(lambda a: a[0], given))
                outputs = nx.expand_dims(output, 0)
            else:
                zero = {name: 0 * value for name, value in carry["values"].items()}
                (moving, total), outputs = trees.scan(nx, adding, (moving, zero), given, length)
            after, looked = self.updated(carry, moving, noise_now, total, rate, count)
            return after, outputs

        by_step = {"step": self.by_step(batch), "signs": signs}
        by_chunk = (rates, counts, noise, {} if chosen is None else {"chosen": chosen})
        carry, outputs = in_chunks(nx, self.size, carry, by_step, by_chunk, steps, body, apart)
        totals = self.totals(carry, outputs, batch)
        finite = self.finite(carry, totals["loss"][0], looked)
        return carry["values"], carry["own"], carry["memory"], totals, finite

    def penalties(self, steps: int, examples: int) -> Penalties:
        """Those at rates so far."""
        network = self.model.network
        sizes = {name: network.graph.populations[name].size for name in network.spiking}
        rates = {name: np.zeros((examples, size), network.dtype) for name, size in sizes.items()}
        return OfRatesSoFar(self.rule, steps, SoFar(np.zeros((), network.dtype), rates))

    @property
    def spans(self) -> Spans | None:
        """The traces over the steps between two changes, where these can be gone through backward.

        What a rule of a user's makes of signals or of the way back is asked for step by step, as it was written for.
        """
        found = None if self.rule.regularizers else self._of_traces
        return found if found is not None and not found.wide else None

    @property
    def windows(self) -> Spans | None:
        """The same for chains."""
        found = self._of_traces
        return found if found is not None and not found.reaching else None

    @property
    def _of_traces(self) -> Spans | None:
        rule, stepwise = self.rule, self.rule.stepwise
        if not rule.plain or not isinstance(stepwise, LocalTraces):
            return None
        if not all(of_rates(penalty) or of_states(penalty) for penalty in rule.regularizers):
            return None
        return stepwise.windows

    def rewinds(self, steps: int, examples: int) -> bool:
        """Whether gradients go back through the sequence so far: where much would be carried, and little is kept.

        Args:
            steps, examples: of a batch.
        """
        rule, graph = self.rule, self.model.network.graph
        # Elsewhere the product of an influence and a matrix takes no longer than it is to ask for it.
        here = getattr(self.nx, "in_host_memory", False) or getattr(self.nx, "on_processor", False)
        if not here or not rule.plain or not rewinds(rule.stepwise, rule.goes_back, self.size):
            return False
        if rule.carried * examples * self.size < (MUCH if host_of(self.nx) is None else ENOUGH):
            return False
        sizes = {name: population.size for name, population in graph.populations.items()}
        # Beside states and outputs: the signals that arrive, δ, and lists of who has fired; matrices as they are and in
        # panels.
        done = steps * sum((len(graph.cell(name).states) + 4) * size for name, size in sizes.items())
        weights = 2 * sum(sizes[c.source] * sizes[c.target] for c in graph.connections if c.source in sizes)
        return done + -(-steps // self.size) * weights / examples <= ROOM * rule.carried

    def _rewound(
        self,
        rewinding: Rewinding,
        moving: Tree,
        values: Parameters,
        own: Any,
        given: Tree,
        place: Place,
        time_share: float,
    ) -> tuple[Tree, Parameters, Array]:
        """All time steps between two changes, with a gradient that goes back through all before them."""
        nx, rule, network = self.nx, self.rule, self.model.network
        trajectory, signals, loss = self.forward(moving, values, own, given)
        so_far = SoFar(moving["clock"], moving["rates"])
        if rule.regularizers:
            so_far, penalties = self._penalised(so_far, trajectory, time_share)
            signals = add_signals(signals, penalties)
        network_now = rule.jacobians, rule.constants_with(values), values, own["feedback"]
        problem = Problem(nx, network.graph, *network_now, trajectory, rule.credit, alone=rule.alone)
        kept, found = rewinding.gradients(moving["credit"], place, trajectory, signals, problem)
        after = {"credit": kept, "clock": so_far.clock, "rates": so_far.rates}
        return self.after(moving, trajectory, loss) | after, found, self.model.observed(trajectory)

    def _penalised(self, before: SoFar, trajectory: Trajectory, time_share: float) -> tuple[SoFar, Signals]:
        """Rates after some time steps, and the signals of regularisers in each, [time, batch, neuron]."""
        nx = self.nx
        records = {name: {**each.states, Z: each.z} for name, each in trajectory.records.items()}

        def body(carry: Tree, at: Tree) -> tuple[Tree, Tree]:
            clock, rates = SoFar(*carry).after(nx, {name: at["records"][name][Z] for name in carry[1]})
            moment = Moment({}, {INPUT: {Z: at["inputs"]}, **at["records"]}, {})
            one = one_step(nx, moment)
            found = self.at_one_step(self.regularized(one, rates, time_share), one)
            return (clock, rates), {key: each[0] for key, each in found.items()}

        steps = trajectory.inputs.shape[0]
        given = {"inputs": trajectory.inputs, "records": records}
        (clock, rates), signals = trees.scan(nx, body, (before.clock, before.rates), given, steps)
        return SoFar(clock, rates), signals

    def _several(
        self, spans: Spans, moving: Tree, values: Parameters, own: Any, given: Tree, begun: bool, last: bool
    ) -> tuple[Tree, Parameters, Array]:
        """All time steps between two changes: as ``step``, with a gradient that is summed over them.

        Firing rates so far are left as they were: they are for regularisers alone.
        """
        trajectory, signals, loss = self.forward(moving, values, own, given["step"])
        earlier = spans.earlier(moving["credit"]) if begun else None
        found = self.rule.adjoint(values, own, trajectory, signals, earlier)
        for name, part in (spans.reached(moving["credit"], trajectory, signals) if begun else {}).items():
            found[name] = found[name] + part
        now = self.rule.now(values, own, None, {})
        credit = moving["credit"] if last else spans.through(moving["credit"], trajectory, now)
        after = self.after(moving, trajectory, loss) | {"credit": credit}
        return moving | after, found, self.model.observed(trajectory)

    def step(
        self, moving: Tree, values: Parameters, own: Any, at: Tree, signs: Parameters, time_share: float
    ) -> tuple[Tree, Parameters, Array]:
        """One time step of network, loss and traces: what is carried on, dE_t/dparameter, and what the loss observes.

        Args:
            moving: state of the network and of the traces, firing rates so far, and the steps they are a mean of.
            values: parameters.
            own: the rule's own arrays.
            at: input, target, mask and weight of this step, without an axis of time.
            signs: random signs of this step.
            time_share: how much this step counts for regularisers: 1 over the number of steps.
        """
        nx, rule, network = self.nx, self.rule, self.model.network
        moment = advance(
            nx,
            network.graph,
            network.constants_with(values),
            values,
            moving["network"],
            at["x"],
            network.keeps_current,
        )
        trajectory = one_step(nx, moment)
        target, mask, weight = (nx.expand_dims(at[key], 0) for key in ("target", "mask", "weight"))
        judgement = self.judged(trajectory, target, mask, weight)
        before = SoFar(moving["clock"], moving["rates"])
        clock, rates = before.after(nx, {name: moment.after[name][Z] for name in before.rates})
        signals = rule.signals(trajectory, judgement.signals, own, target, weight, rates=False)
        signals = add_signals(signals, self.regularized(trajectory, rates, time_share))
        arriving = {key: each[0] for key, each in self.at_one_step(signals, trajectory).items()}
        credit, found = rule.stepwise.step(moving["credit"], rule.now(values, own, moment, signs), arriving)
        loss = judgement.totals["loss"]
        after = {"network": moment.after, "loss": loss, "clock": clock, "rates": rates, "credit": credit}
        return after, found, self.model.observed(trajectory)[0]

    def fresh(self, examples: int) -> Tree:
        """What is carried beside network and credit before the first time step: firing rates so far."""
        nx, network = self.nx, self.model.network
        rest = at_rest(nx, network.graph, examples, 1, network.dtype)
        return {"clock": nx.full((), 0.0, network.dtype), "rates": {name: rest[name][Z] for name in network.spiking}}

    def regularized(self, trajectory: Trajectory, rates: dict[str, Array], time_share: float) -> Signals:
        """Signals of this step from the regularisers, at firing rates so far in the place of those of the sequence."""
        nx, network = self.nx, self.model.network
        running = {name: nx.expand_dims(rate, 0) for name, rate in rates.items()}
        found: Signals = {}
        for each in self.rule.regularizers:
            found = add_signals(found, each.online(nx, Activity.of(network, trajectory), running, network.dt))
        return {key: time_share * each for key, each in found.items()}

    def at_one_step(self, signals: Signals, trajectory: Trajectory) -> Signals:
        """Signals broadcast to [1, batch, neuron]."""
        return {key: self.nx.broadcast_to(each, trajectory.z(key[0]).shape) for key, each in signals.items()}


def one_step(nx: Backend, moment: Moment) -> Trajectory:
    """A moment as a trajectory of one time step."""
    records = {
        name: Record({key: nx.expand_dims(each, 0) for key, each in states.items()}, nx.expand_dims(states[Z], 0), None)
        for name, states in moment.after.items()
    }
    inputs = records.pop("input").z
    return Trajectory(inputs, records)


class Windowed(_Schedule):
    """The sequence in windows gone through backward one by one: states go on, credit ends at the window's edge."""

    def trained(
        self,
        values: Parameters,
        own: Any,
        memory: Any,
        drawn: Parameters,
        batch: tuple[Array, Array, Array],
        rates: Array,
        counts: Array,
    ) -> Trained:
        """One pass over a batch of sequences, with an update after every window; as ``Rule._trained``."""
        noise = {name: value for name, value in drawn.items() if name.startswith("noise/")}
        learned = self.learned_by_chains(values, own, memory, noise, batch, rates, counts)
        if learned is not None:
            return learned
        carry = {**self.first(batch[0]), "values": values, "own": own, "memory": memory}
        looked: bool | None = None

        def body(carry: Tree, given: Tree, entry: Tree, length: int, last: bool) -> tuple[Tree, Tree]:
            nonlocal looked
            rate, count, noise_now = entry
            moving, found, outputs = self._window(carry, carry["values"], carry["own"], given, length, batch)
            after, looked = self.updated(carry, moving, noise_now, found, rate, count)
            return after, outputs

        by_chunk = (rates, counts, noise)
        steps = batch[0].shape[0]
        carry, outputs = in_chunks(self.nx, self.size, carry, self.by_step(batch), by_chunk, steps, body)
        totals = self.totals(carry, outputs, batch)
        finite = self.finite(carry, totals["loss"][0], looked)
        return carry["values"], carry["own"], carry["memory"], totals, finite

    def penalties(self, steps: int, examples: int) -> Penalties:
        """Those at the rates of a window."""
        return OfWindow(self.rule, steps)

    def gradients(
        self, values: Parameters, own: Any, batch: tuple[Array, Array, Array]
    ) -> tuple[Judgement, Parameters]:
        """The sum of the gradients of all windows with the weights as they are."""
        host = host_for_chains(self.rule, batch[0])
        if host is not None:
            summed = Summed(host, values, own["feedback"])
            totals = self.by_chains(host, batch, None, summed)
            if totals is not None:
                total, count = totals["loss"]
                found = {name: host.from_host(each) for name, each in summed.total.items()}
                return Judgement(total / self.nx.maximum(count, 1.0), {}, totals), found
        carry = {**self.first(batch[0]), "total": {name: 0 * value for name, value in values.items()}}

        def body(carry: Tree, given: Tree, _: Tree, length: int, last: bool) -> tuple[Tree, Tree]:
            moving, found, outputs = self._window(carry, values, own, given, length, batch)
            return {**moving, "total": {name: carry["total"][name] + found[name] for name in found}}, outputs

        steps = batch[0].shape[0]
        carry, outputs = in_chunks(self.nx, self.size, carry, self.by_step(batch), (), steps, body)
        totals = self.totals(carry, outputs, batch)
        total, count = totals["loss"]
        return Judgement(total / self.nx.maximum(count, 1.0), {}, totals), carry["total"]

    def _window(
        self, carry: Tree, values: Parameters, own: Any, given: Tree, length: int, batch: tuple[Array, Array, Array]
    ) -> tuple[Tree, Parameters, Array]:
        """One window: what goes on, its gradient, and its outputs."""
        rule = self.rule
        trajectory, signals, loss = self.forward(carry, values, own, given)
        share = length / batch[0].shape[0]
        signals = add_signals(signals, {key: share * each for key, each in rule.regularized(trajectory).items()})
        found = rule.adjoint(values, own, trajectory, signals)
        return self.after(carry, trajectory, loss), found, self.model.observed(trajectory)
