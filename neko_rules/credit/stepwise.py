"""Stepwise: gradients of every time step as it comes, from traces and from learning signals within the step.

    dE_t/dW = Σ_batch G_t e_t                     the error as it comes down within the time step
    dE_t/dW = Σ_batch G_t ē_t, ē_t = κ ē_{t-1} + e_t        through a memory κ above: of the readout, or of the layer

What lies above a population remembers, so that its spikes act on later errors. Where the only thing above is a readout
with one leak κ, the traces are filtered with κ; in general the influence on every unit of the readout is carried,

    P_t = D_t P_{t-1} + r_t h_{t-1} P_{t-1} + q_t (∂I_t/∂z_t) e_t      [batch, n_out, pre · post]

with the paths within the step ∂I_t/∂z_t, which is n_out times as much; both are e-prop's filtered signal. OTPE filters
with the leak λ of the layer above, at every layer, and estimates what its spikes leave in it by the running mean ḡ of
its own pseudo-derivative,

    ḡ_t = (λ n_{t-1} ḡ_{t-1} + h_t) / n_t,    n_t = λ n_{t-1} + 1,      to the layer below: q_t ḡ_t G_t Wᵀ.

Reference: M. Summe, C. J. S. Schaefer, S. Joshi, Estimating post-synaptic effects for online training of feed-forward
SNNs, arXiv:2311.16151, 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.credit.factors import Factors, kinds, leak_of, of_factors
from neko_rules.credit.feedback import backward_weight, direct_name
from neko_rules.credit.fused_traces import reached_on
from neko_rules.credit.recursion import APART, DECAYS, FACTOR, RANK_ONE, Local, instantaneous_error, times, with_mean
from neko_rules.credit.spans import Spans, membrane_put_out, spans_of
from neko_rules.credit.traces import (
    Diagonal,
    Leaking,
    RankOne,
    Recurrent,
    Synapses,
    added,
    full,
    influenced,
    local_derivatives,
    over_batch,
    reached,
    synapses,
)
from neko_rules.errors import IncompatibleError
from neko_rules.kernels.host import host_of
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Z, add_signals, effective_weight
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.moment import Moment

State = dict[str, dict[str, Array]]
"""What is carried from one time step to the next: by parameter or population, then by what it is."""


@dataclass(frozen=True)
class Model:
    """What credit is assigned in: all that does not change while a network learns.

    Args:
        nx: backend.
        graph: the network.
        jacobians: population name → the derivatives of its cell, cut to the temporal credit.
        shapes: population name → the constants of its cell, of which only the shapes matter.
        credit: which gradient.
        inputs: number of input features.
        dtype: of all numbers.
    """

    nx: Backend
    graph: Graph
    jacobians: dict[str, Jacobians]
    shapes: dict[str, Constants]
    credit: Credit
    inputs: int
    dtype: str

    def upward(self, name: str) -> list[Connection]:
        """The connections through which a population acts within the time step."""
        return [c for c in self.graph.connections if c.source == name and not c.delay]


@dataclass(frozen=True)
class Now:
    """What the network is and does in one time step.

    Args:
        model: what does not change.
        parameters: name → array.
        feedback: as ``feedback.draw`` names them.
        constants: population name → the constants of its cell; beside them ``DECAYS``, where there are factors.
        moment: the step.
        drawn: random numbers of the step.
    """

    model: Model
    parameters: Parameters
    feedback: Parameters
    constants: dict[str, Constants]
    moment: Moment
    drawn: Parameters

    def back(self, connection: Connection) -> Array:
        """The transposed weight that carries a connection's error back: [target, source]."""
        nx = self.model.nx
        weight = effective_weight(nx, connection, self.parameters)
        weight = backward_weight(nx, connection, weight, self.feedback, self.model.credit)
        return nx.transpose(weight, (1, 0))

    def local(self) -> dict[str, Local]:
        """The local derivatives of every population."""
        m = self.model
        return local_derivatives(m.nx, m.graph, m.jacobians, self.constants, self.moment)


class Stepwise(Protocol):
    """A way to have gradients forward in time."""

    model: Model
    """What credit is assigned in."""

    def start(self, batch: int) -> State:
        """What is carried before the first time step."""

    def step(self, state: State, now: Now, signals: Signals) -> tuple[State, Parameters]:
        """The state after a time step, and dE_t/dparameter summed over the batch.

        Args:
            state: after the step before.
            now: the network in this step.
            signals: ∂E_t/∂z_t and ∂E_t/∂s_t from the loss and regularisers, [batch, neuron] each.
        """


class Advancing(NamedTuple):
    """A time step in which traces are being advanced.

    Attributes:
        before: what was carried from the step before.
        after: what is carried on, as far as it has been made.
        now: the network.
        local: the local derivatives of every population.
        arriving: what meets a population's traces as they are.
        above: what meets its filtered traces.
    """

    before: State
    after: State
    now: Now
    local: dict[str, Local]
    arriving: Signals
    above: dict[str, Array]


class LocalTraces:
    """Traces of every parameter on its own population, and learning signals from above.

    Args:
        model: what credit is assigned in.
        trace_decay: a of the rank-one form.

    Raises:
        IncompatibleError: a network on which the choice has no meaning; it says why.
    """

    def __init__(self, model: Model, trace_decay: float = 0.9) -> None:
        self.model = model
        graph, credit = model.graph, model.credit
        found = kinds(graph, model.jacobians, model.shapes, credit)
        self.factors = {name: Factors(kind, model.jacobians[name]) for name, kind in found.items()}
        self.traces: dict[str, Diagonal | Recurrent | RankOne] = {}
        self.of: dict[str, list[Synapses]] = {}
        for name in graph.order:
            own = tuple(c for c in graph.into(name) if c.source == name and c.delay)
            self.of[name] = list(synapses(graph, name, model.inputs))
            for of in self.of[name]:
                jacobians = model.jacobians[name]
                if credit.temporal == "layer" and own:
                    self.traces[of.name] = Recurrent(model.nx, of, jacobians, own)
                elif name in self.factors and credit.trace == "rank_one" and not of.constant:
                    self.traces[of.name] = RankOne(model.nx, of, trace_decay)
                else:
                    self.traces[of.name] = Diagonal(model.nx, of, jacobians, model.shapes[name])
        self.hidden = tuple(name for name in graph.order if name != graph.output)
        self.leaking = {name: self._single_leak(name) for name in graph.order}
        self.leak = {name: leak for name in self.hidden if (leak := self._leak_above(name)) is not None}
        self.unfolded = tuple(name for name in self.hidden if self._acts(name) and name not in self.leak)
        if credit.learning_signal == "estimated":
            self._check_estimated()
        if credit.learning_signal != "filtered":
            self.unfolded = ()

    # What lies above.

    def _acts(self, name: str) -> bool:
        """Whether the output's error reaches a population within the time step."""
        graph, credit = self.model.graph, self.model.credit
        if credit.spatial == "direct":
            return True
        above = [c.target for c in self.model.upward(name)]
        return credit.passes_down and any(t == graph.output or self._acts(t) for t in above)

    def _leak_above(self, name: str) -> str | None:
        """The population whose one leak filters the traces of this one, if that is how its memory can be had."""
        graph, signal = self.model.graph, self.model.credit.learning_signal
        above = {c.target for c in self.model.upward(name)}
        if self.model.credit.spatial == "direct":
            above = {graph.output}
        if signal == "filtered" and above != {graph.output}:
            return None
        if signal not in ("filtered", "estimated") or len(above) != 1:
            return None
        (target,) = above
        return target if self.leaking[target] is not None else None

    def _single_leak(self, name: str) -> str | None:
        """The one state of a population that a current drives, if it does no more than leak at one rate."""
        jacobians, shapes, graph = self.model.jacobians[name], self.model.shapes[name], self.model.graph
        if self.model.credit.learning_signal == "estimated":
            jacobians = jacobians.cut("presynaptic")
        states = reached(jacobians.expressions)
        probe = Diagonal(self.model.nx, Synapses("", name, 1, 2), jacobians, shapes)
        own = any(c.source == name for c in graph.into(name))
        mixes = own and self.model.credit.temporal == "layer" and self.model.credit.learning_signal == "filtered"
        return states[0] if len(states) == 1 and probe.narrow == set(states) and not mixes else None

    def _check_estimated(self) -> None:
        graph = self.model.graph
        for name in self.hidden:
            if name not in self.leak:
                raise IncompatibleError(
                    "an estimated learning signal needs a chain of layers, each with one layer above it whose membrane "
                    "does no more than leak, at one rate",
                    received=f"population {name!r} in a network of {', '.join(graph.order)}",
                    works="use learning_signal='instantaneous'",
                )
            if len(reached(self.model.jacobians[name].cut("presynaptic").expressions)) != 1:
                raise IncompatibleError(
                    "an estimated learning signal needs neurons with one membrane that a current drives",
                    received=f"population {name!r}",
                    works="use learning_signal='instantaneous'",
                )

    @cached_property
    def windows(self) -> Spans | None:
        """These traces over several time steps at once, where they have a form that allows it."""
        return spans_of(self)

    # Steps.

    def start(self, batch: int) -> State:
        """Nothing has been seen yet."""
        m = self.model
        state: State = {name: trace.start(batch, m.dtype) for name, trace in self.traces.items()}
        for name, factors in self.factors.items():
            zero = m.nx.full((batch, m.graph.populations[name].size), 0.0, m.dtype)
            state[of_factors(name)] = dict.fromkeys(factors.carried, zero)
        for name in self.hidden:
            if name in self.leak:
                for of in self.of[name]:
                    state[f"{of.name} filtered"] = {"trace": self._unfiltered(of, state[of.name], batch)}
            if name in self.unfolded:
                outputs = m.graph.populations[m.graph.output].size
                for of in self.of[name]:
                    zero = m.nx.full((batch, outputs, of.pre * of.post), 0.0, m.dtype)
                    keys = (*reached(m.jacobians[m.graph.output].expressions), Z)
                    state[f"{of.name} on output"] = dict.fromkeys(keys, zero)
        return state

    def _unfiltered(self, of: Synapses, state: dict[str, Array], batch: int) -> Array:
        """Zeros in the shape of what is filtered."""
        trace, nx = self.traces[of.name], self.model.nx
        if isinstance(trace, Recurrent):
            return state[Z]
        shape = (batch, of.pre, 1 if self._factor_kept_apart(trace) else of.post)
        # One zero seen from everywhere: the largest arrays of a step, that a chain needs no memory for at first.
        return nx.broadcast_to(nx.full((1, 1, 1), 0.0, self.model.dtype), shape)

    def _factor_kept_apart(self, trace: object) -> bool:
        """Whether approximate OTPE's presynaptic trace is filtered and the postsynaptic factor is ḡ."""
        if not isinstance(trace, Diagonal) or trace.of.constant:
            return False
        factors = self.factors.get(trace.of.population)
        return factors is not None and factors.kind == APART

    def step(self, state: State, now: Now, signals: Signals) -> tuple[State, Parameters]:
        """Traces advanced, signals brought down, and their product over the batch."""
        nx, graph, moment = now.model.nx, now.model.graph, now.moment
        local = now.local()
        after: State = {}
        factors = self._advance_factors(state, after, now, local)
        arriving, above = self._signals(factors, now, local, signals)
        at = Advancing(state, after, now, local, arriving, above)
        found: Parameters = {}
        for name in graph.order:
            weights = {c.weight: now.back(c) for c in graph.into(name) if c.source == name}
            paths = self.paths_to_output(name, now, local) if name in self.unfolded else None
            for of in self.of[name]:
                trace = self.traces[of.name]
                parts = self._fused(of, at)
                if not parts:
                    if isinstance(trace, Recurrent):
                        after[of.name] = trace.step(state[of.name], moment, local[name], weights)
                        parts = [trace.project(after[of.name], arriving)]
                    elif isinstance(trace, RankOne):
                        after[of.name] = trace.step(state[of.name], moment)
                        parts = [trace.project(after[of.name], factors[name], arriving)]
                    else:
                        after[of.name] = trace.step(state[of.name], moment, local[name])
                        parts = [trace.project(after[of.name], local[name], arriving)]
                    if name in self.leak:
                        mean = factors[name][Z] if self._factor_kept_apart(trace) else None
                        parts += self._through_leak(of, at, mean)
                if paths is not None:
                    parts += self._through_output(of, at, paths)
                found[of.name] = of.shaped(nx, added(parts))
        return after, found

    def _fused(self, of: Synapses, at: Advancing) -> list[Array]:
        """A parameter's traces advanced and projected by one loop, kept in ``after``; nothing where there is none."""
        name, trace, host = of.population, self.traces[of.name], host_of(at.now.model.nx)
        if host is None or not isinstance(trace, Diagonal) or self._factor_kept_apart(trace):
            return []
        key, leaking = f"{of.name} filtered", None
        if name in self.leak:
            leaking = Leaking(at.before[key]["trace"], self._leak(name, at.now, at.local), at.above.get(name))
        done = trace.fused(host, at.before[of.name], at.now.moment, at.local[name], at.arriving, leaking)
        if done is None:
            return []
        at.after[of.name], smooth, gradient = done
        if leaking is not None:
            at.after[key] = {"trace": smooth}
        return [gradient]

    # Learning signals.

    def _signals(
        self, factors: Mapping[str, dict[str, Array]], now: Now, local: dict[str, Local], signals: Signals
    ) -> tuple[Signals, dict[str, Array]]:
        """What meets a population's traces as they are, and what meets its filtered traces."""
        nx, graph, credit = now.model.nx, now.model.graph, now.model.credit
        like = now.moment.after
        apart = credit.learning_signal in ("filtered", "estimated")
        arriving = dict(signals)
        above: dict[str, Array] = {}
        for name in reversed(graph.order):
            mine = dict(arriving)
            mine.setdefault((name, Z), 0.0 * like[name][Z])
            if name in above and credit.learning_signal == "estimated":
                mine = add_signals(mine, {(name, Z): above[name]})
            estimated = name in self.factors and self.factors[name].kind != RANK_ONE
            sensitivity = with_mean(local[name], factors[name][Z]) if estimated else local[name]
            down = instantaneous_error(nx, name, sensitivity, mine)
            for target, part in self._handed_down(name, down, now):
                if apart and (name == graph.output or credit.learning_signal == "estimated"):
                    above[target] = above[target] + part if target in above else part
                else:
                    arriving = add_signals(arriving, {(target, Z): part})
        return arriving, above

    def _handed_down(self, name: str, down: Array, now: Now) -> list[tuple[str, Array]]:
        """The populations that an error goes to from another one, and what arrives there."""
        nx, graph, credit = now.model.nx, now.model.graph, now.model.credit
        if credit.spatial == "direct":
            if name != graph.output:
                return []
            return [
                (other, nx.matmul(down, nx.transpose(now.feedback[direct_name(other)], (1, 0))))
                for other in self.hidden
            ]
        if not credit.passes_down:
            return []
        below = [c for c in graph.into(name) if c.source != INPUT and not c.delay]
        return [(c.source, nx.matmul(down, now.back(c))) for c in below]

    # Memory above.

    def _advance_factors(
        self, state: State, after: State, now: Now, local: dict[str, Local]
    ) -> dict[str, dict[str, Array]]:
        """What factors carry, kept in ``after``, and what they make of the step: by population, and output or state."""
        made: dict[str, dict[str, Array]] = {}
        for name, factors in self.factors.items():
            key, like = of_factors(name), now.moment.after[name][Z]
            given = now.model.nx, state[key], local[name], now.constants[DECAYS][name], like, factors.made
            after[key], found = factors.step(*given)
            made[name] = {each.removeprefix(FACTOR): value for each, value in found.items()}
        return made

    def _leak(self, name: str, now: Now, local: dict[str, Local]) -> Array:
        """The leak of the population above."""
        if name in self.factors:
            return now.constants[DECAYS][name]
        target = self.leak[name]
        state = str(self.leaking[target])
        return local[target].get(("D", state, state), 0.0)

    def leak_above(self, name: str, constants: Mapping[str, Constants]) -> float:
        """λ of the layer above a population whose signals are estimated.

        Args:
            name: of the population.
            constants: population name → the constants of its cell.
        """
        m, target = self.model, self.leak[name]
        return leak_of(m.nx, m.graph.cell(target), m.jacobians[target], constants[target])

    def _through_leak(self, of: Synapses, at: Advancing, mean: Array | None) -> list[Array]:
        """Σ_batch G_t ē_t with the trace filtered by the leak of the population above; ``mean`` is ḡ if kept apart."""
        name, key, trace = of.population, f"{of.name} filtered", self.traces[of.name]
        like = at.now.moment.after[name][Z]
        if isinstance(trace, Recurrent):
            now_trace = trace.trace(at.after[of.name])
        elif isinstance(trace, Diagonal) and mean is not None:
            now_trace = at.after[of.name][trace.states[0]]
        else:
            assert isinstance(trace, Diagonal), "a rank-one trace has no filtered form"
            now_trace = trace.trace(at.after[of.name], at.local[name], like)
        filtered = self._leak(name, at.now, at.local) * at.before[key]["trace"] + now_trace
        at.after[key] = {"trace": filtered}
        if name not in at.above:
            return []
        signal = at.above[name] if mean is None else at.above[name] * mean
        return [trace.over_batch(filtered, signal)]

    def _through_output(self, of: Synapses, at: Advancing, paths: Array) -> list[Array]:
        """Σ_batch,output (∂E/∂y) ∂y/∂W through the output's own memory of all that reached it by ``paths``."""
        now, nx, graph = at.now, at.now.model.nx, at.now.model.graph
        output, key, trace = graph.output, f"{of.name} on output", self.traces[of.name]
        name, before = of.population, at.before[key]
        reached = self._reached_by_loop(of, at, before, paths)
        if reached is not None:
            at.after[key], gradient = reached
            return [gradient]
        if isinstance(trace, Recurrent):
            current = trace.spread(at.after[of.name], paths)
        else:
            assert isinstance(trace, Diagonal), "a rank-one trace has no filtered form"
            current = trace.spread(at.after[of.name], at.local[name], paths, now.moment.after[name][Z])
        if now.model.credit.temporal == "layer":
            own = [c for c in graph.into(output) if c.source == output]
            current = added([current, *(nx.matmul(now.back(c), before[Z]) for c in own)])
        influence = at.after[key] = influenced(before, at.local[output], current, {})
        errors = [(at.arriving[output, k], influence[k]) for k in influence if (output, k) in at.arriving]
        return [over_batch(nx, of, each, error) for error, each in errors]

    def _reached_by_loop(
        self, of: Synapses, at: Advancing, before: dict[str, Array], paths: Array
    ) -> tuple[dict[str, Array], Array] | None:
        """The same by one loop, for units of one membrane that does no more than leak; None otherwise."""
        model, trace, host = at.now.model, self.traces[of.name], host_of(at.now.model.nx)
        nx, output = model.nx, model.graph.output
        entries, like = at.local[output], at.now.moment.after
        if host is None or not isinstance(trace, Diagonal):
            return None
        unit = membrane_put_out(model.graph, entries)
        if unit is None or set(before) != {unit, Z}:
            return None
        gain, leak = (full(nx, entries.get(key, 0.0), like[output][Z]) for key in (("q", unit), ("D", unit, unit)))
        errors = [at.arriving[output, key] for key in (unit, Z) if (output, key) in at.arriving]
        error = added(errors) if errors else 0.0 * like[output][Z]
        own = trace.trace(at.after[of.name], at.local[of.population], like[of.population][Z])
        influence, gradient = reached_on(host, before[unit], leak, gain[:, :, None] * paths, own, error)
        return {unit: influence, Z: influence}, gradient

    def paths_to_output(self, name: str, now: Now, local: dict[str, Local]) -> Array:
        """∂I_out/∂z of a population through everything within the time step: [batch, n_out, neuron]."""
        nx, graph, like = now.model.nx, now.model.graph, now.moment.after
        if now.model.credit.spatial == "direct":
            matrix = nx.transpose(now.feedback[direct_name(name)], (1, 0))
            return nx.broadcast_to(matrix, (like[name][Z].shape[0], *matrix.shape))
        parts = []
        for connection in now.model.upward(name):
            target = connection.target
            back = now.back(connection)
            if target == graph.output:
                parts.append(nx.broadcast_to(back, (like[name][Z].shape[0], *back.shape)))
            elif self._acts(target):
                slope = added(
                    [
                        times(local[target]["q", k], full(nx, local[target]["h", k], like[target][Z]))
                        for _, k in (e for e in local[target] if e[0] == "h")
                        if ("q", k) in local[target]
                    ]
                )
                parts.append(nx.matmul(self.paths_to_output(target, now, local) * slope[:, None, :], back))
        return added(parts)
