"""Spans: traces taken from end to end of several time steps at once, while the weights stay as they are.

Where a trace is one vector of the presynaptic neurons times a factor of the postsynaptic ones, with D and q constant,

    ε_T = D^T ε_0 + q Σ_t D^(T-1-t) x_t         ē_T = κ^T ē_0 + Σ_t κ^(T-1-t) h_t ε_t

and the gradient of the steps in between is that of the adjoint, to which what was sent before them adds one more input
at the first step, D/q ε_0, and what the readout's leak filters the product of κ ē_0 with the first signal. With the
order of its two sums turned, the filtered trace is a product of what was sent, with that input, and of what h filters
from every time step on,

    ē_T = κ^T ē_0 + q Σ_t x_t χ_t               χ_t = Σ_{s ≥ t} κ^(T-1-s) D^(s-t) h_s

A state whose trace differs from synapse to synapse, as that of an adaptive threshold, is taken on alike: what of ε_T or
ē_T comes from x_t, and from every ε_0, is what the recursion backward in time makes of a signal that picks ε_T, or of
κ^(T-1-t) at every time step. That is for chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neko_rules.backend import Array, Parameters, get_backend
from neko_rules.credit.factors import of_factors
from neko_rules.credit.fused_factors import through_time
from neko_rules.credit.fused_traces import filtered_on
from neko_rules.credit.recursion import FACTOR, Setting
from neko_rules.credit.traces import PRE, Diagonal, RankOne, Synapses, full
from neko_rules.kernels.events import Events
from neko_rules.kernels.host import HostBackend, contiguous, host_of
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Trajectory, Z
from neko_rules.layers.graph import Connection

if TYPE_CHECKING:
    from neko_rules.credit.stepwise import LocalTraces, State


class Earlier(NamedTuple):
    """What was sent before a time step and acts in it and later ones.

    Args:
        inputs: parameter name → [batch, pre], as one more input at that step.
        filtered: parameter name → κ and ē [batch, pre, post] of the step before, where what lies above remembers.
        factors: population name → what its factors carry, of those that have some.
    """

    inputs: Parameters
    filtered: dict[str, tuple[float, Array]]
    factors: dict[str, dict[str, Array]] = {}


class Rate(NamedTuple):
    """How the one state of a trace goes from step to step.

    Args:
        state: its name.
        leak: D.
        gain: q.
    """

    state: str
    leak: float
    gain: float


class Wide(NamedTuple):
    """A state of a population's traces that differs from synapse to synapse.

    Args:
        narrow: the state whose trace is the same for all postsynaptic neurons; empty without one.
        state: its own name.
        emitting: the states whose emission of a time step acts on traces in the next.
    """

    narrow: str
    state: str
    emitting: tuple[str, ...]


def spans_of(traces: LocalTraces) -> Spans | None:
    """The traces over several steps; None where one has another form.

    That is at most one vector of the presynaptic neurons, and one state that differs from synapse to synapse.
    """
    m, found, wide = traces.model, {}, {}
    if traces.unfolded or m.credit.learning_signal == "estimated":
        return None
    numpy = get_backend("numpy")
    for name, parameters in traces.of.items():
        # Any number for what neither D nor q of such a trace can depend on.
        constants = {
            key: np.ones(()) if len(value.shape) else np.asarray(m.nx.to_numpy(value))
            for key, value in m.shapes[name].items()
        }
        with np.errstate(all="ignore"):
            entries = m.jacobians[name].evaluate(numpy, m.graph.cell(name), constants, lambda _: np.ones(()))
        for of in parameters:
            trace = traces.traces[of.name]
            if isinstance(trace, RankOne):
                found[of.name] = Rate(PRE, trace.decay, 1.0)
                continue
            if of.constant or not isinstance(trace, Diagonal) or len(trace.narrow) > 1:
                return None
            others = [k for k in trace.states if k not in trace.narrow]
            if len(others) > 1 or not trace.states:
                return None
            for state in trace.narrow:
                leak, gain = (float(entries.get(key, 0.0)) for key in (("D", state, state), ("q", state)))
                if not gain:
                    return None
                found[of.name] = Rate(state, leak, gain)
            if others:
                wide[name] = Wide(next(iter(trace.narrow), ""), others[0], trace.emitting)
    return Spans(traces, found, wide)


@dataclass(frozen=True)
class Spans:
    """Traces over several time steps.

    Args:
        traces: what they are at every step.
        rates: by parameter, of those that have such a vector.
        wide: by population, of those that have one: for chains alone (``rules.linking_synapses``).
    """

    traces: LocalTraces
    rates: dict[str, Rate]
    wide: dict[str, Wide]

    def earlier(self, state: State) -> Earlier:
        """What was sent before, as far as it acts in the next time step."""
        inputs = {name: self.sent_before(state, name) for name in self.rates}
        filtered = {
            of.name: (self.filter_of(name), state[f"{of.name} filtered"]["trace"])
            for name in self.traces.leak
            for of in self.traces.of[name]
        }
        factors = {name: state[of_factors(name)] for name in self.traces.factors}
        return Earlier(inputs, filtered, factors)

    def sent_before(self, state: State, name: str) -> Array:
        """D/q ε_0 of a parameter: [batch, pre]."""
        k, leak, gain = self.rates[name]
        return leak / gain * state[name][k][:, :, 0]

    def through(self, state: State, trajectory: Trajectory, constants: dict[str, Constants]) -> State:
        """The traces after all time steps of a trajectory.

        Args:
            state: before the first step.
            trajectory: what the network did.
            constants: population name → the constants of its cell.
        """
        after: State = {}
        for name, parameters in self.traces.of.items():
            slope = self._slope(name, trajectory, constants) if name in self.traces.leak else None
            chi = None if slope is None else self._chi(name, slope)
            for of in parameters:
                after |= self._through(of, state, trajectory, chi)
        return after | self._factors_through(state, trajectory, constants)

    def _factors_through(self, state: State, trajectory: Trajectory, constants: dict[str, Constants]) -> State:
        """What factors carry after all time steps."""
        m, after = self.traces.model, {}
        found = {name: trajectory.records[name].derivatives(of) for name, of in m.jacobians.items()}
        kinds = {name: factors.kind for name, factors in self.traces.factors.items()}
        setting = Setting(m.nx, m.graph, found, constants, m.credit, lambda connection: connection, kinds)
        for name in kinds:
            key = of_factors(name)
            after[key] = through_time(setting, name, trajectory.records[name], state[key], (FACTOR + Z,), m.dtype)[0]
        return after

    def rate_of(self, name: str) -> Rate:
        """How the vector of a population's traces goes from step to step; nothing remembered where there is none."""
        # A population that receives from nobody has no parameters, and no traces.
        found = (self.rates[of.name] for of in self.traces.of[name] if of.name in self.rates)
        return next(found, Rate("", 0.0, 1.0))

    def filter_of(self, name: str) -> float:
        """κ of what filters the traces of a population."""
        return self.rate_of(self.traces.leak[name]).leak

    @cached_property
    def filters(self) -> tuple[tuple[str, str], ...]:
        """Every population, and the state whose influence on the output is filtered by what is above; or empty."""
        states = {
            name: self.wide[name].state if name in self.wide else self.rate_of(name).state for name in self.traces.of
        }
        return tuple((name, state if name in self.traces.leak else "") for name, state in states.items())

    @property
    def per_synapse(self) -> bool:
        """Whether there is a trace of every synapse."""
        return bool(self.wide) or any(state for _, state in self.filters)

    def _slope(self, name: str, trajectory: Trajectory, constants: dict[str, Constants]) -> Array:
        """h_t of the one state of a population's traces: [time, batch, neuron]."""
        m, record = self.traces.model, trajectory.records[name]
        jacobians, history = record.derivatives(m.jacobians[name]), partial(record.history, m.nx)
        entries = jacobians.evaluate(m.nx, m.graph.cell(name), constants[name], history)
        return full(m.nx, entries["h", self.rate_of(name).state], record.z)

    def _chi(self, name: str, slope: Array) -> Array:
        """q χ_t of a population, the same for all its parameters: [time, batch, neuron]."""
        nx, host = self.traces.model.nx, host_of(self.traces.model.nx)
        kappa, (_, leak, gain), steps = self.filter_of(name), self.rate_of(name), slope.shape[0]
        if host is not None:
            from neko_rules.kernels.filtering import back_filtered

            return host.from_host(back_filtered(kappa, leak, gain, contiguous(host.host(slope))))
        kept = gain * kappa ** np.arange(steps - 1.0, -1.0, -1.0)

        def body(carry: tuple[Array, ...], given: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            chi = leak * carry[0] + given[0]
            return (chi,), (chi,)

        weighted = nx.asarray(kept[:, None, None], self.traces.model.dtype) * slope
        return nx.scan(body, (0 * slope[0],), (weighted,), steps, reverse=True)[1][0]

    def _through_events(
        self,
        host: HostBackend,
        events: Events,
        of: Synapses,
        connection: Connection,
        state: State,
        trajectory: Trajectory,
        chi: Array | None,
    ) -> State:
        """The same from what fired, where that is little: only rows of neurons that fired are added to."""
        from neko_rules.kernels.filtering import filtered, powers, summed

        (k, leak, gain), steps = self.rates[of.name], trajectory.inputs.shape[0]
        kept, earlier = powers(leak, steps, gain), host.host(self.sent_before(state, of.name))
        later = int(bool(connection.delay))
        if later:
            events = events[:-1]
            if trajectory.start is not None:
                earlier = earlier + host.host(trajectory.start[connection.source][Z])
        vector = summed(events, kept[later:], float(kept[0]) * earlier)
        after = {of.name: {k: host.from_host(vector[:, :, None])}}
        if chi is None:
            return after
        key, left = f"{of.name} filtered", self.filter_of(of.population) ** steps
        traces, factor = contiguous(host.host(state[key]["trace"])), host.host(chi)
        found = filtered(events, left, traces, earlier, factor[0], factor[later:])
        return {**after, key: {"trace": host.from_host(found)}}

    def _through(
        self,
        of: Synapses,
        state: State,
        trajectory: Trajectory,
        chi: Array | None,
    ) -> State:
        """The traces of one parameter after all time steps."""
        nx, dtype = self.traces.model.nx, self.traces.model.dtype
        host, connection = host_of(nx), of.connection
        events = None if connection is None else trajectory.events.get(connection.source)
        if host is not None and connection is not None and events is not None and events.sparse:
            return self._through_events(host, events, of, connection, state, trajectory, chi)
        (k, leak, gain), (steps, batch, _) = self.rates[of.name], trajectory.inputs.shape
        each_step = (steps, batch, of.pre)
        sent = nx.full(each_step, 1.0, dtype) if connection is None else trajectory.sent(nx, connection)
        powers = nx.asarray(gain * leak ** np.arange(steps - 1.0, -1.0, -1.0)[None], dtype)
        added = nx.reshape(nx.matmul(powers, nx.reshape(sent, (steps, batch * of.pre))), (batch, of.pre, 1))
        after = {of.name: {k: leak**steps * state[of.name][k] + added}}
        if chi is None:
            return after
        key, left = f"{of.name} filtered", self.filter_of(of.population) ** steps
        received = nx.concat([sent[:1] + self.sent_before(state, of.name), sent[1:]], 0)
        return {**after, key: {"trace": filtered_on(nx, left, state[key]["trace"], received, chi)}}
