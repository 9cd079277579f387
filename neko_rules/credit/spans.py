"""Spans: traces taken from end to end of several time steps at once, while the weights stay as they are.

Where a trace is one vector of the presynaptic neurons times a factor of the postsynaptic ones, with D and q constant,

    ε_T = D^T ε_0 + q Σ_t D^(T-1-t) x_t         ē_T = κ^T ē_0 + Σ_t κ^(T-1-t) h_t ε_t

and the gradient of the steps in between is that of the adjoint, to which what was sent before them adds one more input
at the first step, D/q ε_0, and what the readout's leak filters the product of κ ē_0 with the first signal. With the
order of its two sums turned, the filtered trace is a product of what was sent, with that input, and of what h filters
from every time step on,

    ē_T = κ^T ē_0 + q Σ_t x_t χ_t               χ_t = Σ_{s ≥ t} κ^(T-1-s) D^(s-t) h_s

Where what lies between a population and the output changes from step to step, the influence P of every synapse on every
unit k of the output is carried (``credit.stepwise``), by its paths F_t [batch, k, post] within the step,

    P_T = κ^T P_0 + q Σ_t x_t δ_t      δ_t = D δ_{t+1} + h_t κ^(T-1-t) F_t

and what it adds to the gradient is Σ_batch,k P_0 Σ_t κ^(t+1) ∂E_t/∂y_t.

A state whose trace differs from synapse to synapse, as that of an adaptive threshold, is taken on alike: what of ε_T or
ē_T comes from x_t, and from every ε_0, is what the recursion backward in time makes of a signal that picks ε_T, or of
κ^(T-1-t) at every time step. That is for chains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neko_rules.backend import Array, Arrays, Parameters, get_backend
from neko_rules.credit.factors import of_factors
from neko_rules.credit.fused_factors import through_time
from neko_rules.credit.fused_traces import filtered_on
from neko_rules.credit.recursion import FACTOR, Local, Setting
from neko_rules.credit.traces import PRE, Diagonal, RankOne, Synapses, added, full, over_batch
from neko_rules.kernels.events import Events
from neko_rules.kernels.host import HostBackend, contiguous, host_of
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Trajectory, Z
from neko_rules.layers.graph import Connection, Graph
from neko_rules.layers.moment import Moment

if TYPE_CHECKING:
    from neko_rules.credit.stepwise import LocalTraces, Now, State


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
    if m.credit.learning_signal == "estimated":
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
        if traces.unfolded and name == m.graph.output and membrane_put_out(m.graph, entries) is None:
            return None
    # What comes back from above the output would have to reach it before its memory is gone through.
    above = any(c.source == m.graph.output and not c.delay for c in m.graph.connections)
    return None if traces.unfolded and (wide or above) else Spans(traces, found, wide)


def membrane_put_out(graph: Graph, local: Local) -> str | None:
    """The one state that the units of the output put out as it is, where nothing of it comes back; None otherwise.

    Args:
        graph: the network.
        local: the local derivatives of the output.
    """
    emitted = [entry[1] for entry, value in local.items() if entry[0] == "h" and isinstance(value, int) and value == 1]
    alone = len(emitted) == sum(entry[0] == "h" for entry in local) == 1
    returned = any(entry[0] == "r" for entry in local) or any(
        c.source == graph.output for c in graph.into(graph.output)
    )
    return emitted[0] if alone and not returned else None


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

    @property
    def reaching(self) -> tuple[str, ...]:
        """The populations whose influence on every unit of the output is carried: without chains."""
        return self.traces.unfolded

    def reached(self, state: State, trajectory: Trajectory, signals: Signals) -> Parameters:
        """What the influence on the output of what was sent before adds to the gradient of some time steps.

        Args:
            state: before the first step.
            trajectory: what the network did.
            signals: as for the adjoint.
        """
        m, found = self.traces.model, {}
        nx, output, (unit, leak, _) = m.nx, m.graph.output, self.rate_of(m.graph.output)
        arriving = [signals[output, key] for key in (Z, unit) if (output, key) in signals]
        if not self.reaching or not arriving:
            return {}
        error = nx.broadcast_to(added(arriving), trajectory.z(output).shape)
        powers = nx.asarray(leak ** np.arange(1.0, error.shape[0] + 1.0)[:, None, None], m.dtype)
        met = nx.sum(powers * error, axis=0)
        for of in (each for name in self.reaching for each in self.traces.of[name]):
            found[of.name] = of.shaped(nx, over_batch(nx, of, state[f"{of.name} on output"][unit], met))
        return found

    def through(self, state: State, trajectory: Trajectory, now: Now) -> State:
        """The traces after all time steps of a trajectory.

        Args:
            state: before the first step.
            trajectory: what the network did.
            now: parameters and constants; its moment is not looked at.
        """
        constants = now.constants
        after: State = {}
        for name, parameters in self.traces.of.items():
            slope = self._slope(name, trajectory, constants) if name in self.traces.leak else None
            chi = None if slope is None else self._chi(name, slope)
            for of in parameters:
                after |= self._through(of, state, trajectory, chi)
        if self.reaching:
            at_once = self._all_at_once(trajectory, now)
            for name in self.reaching:
                after |= self._reaching_through(name, state, trajectory, at_once)
        return after | self._factors_through(state, trajectory, constants)

    def _reaching_through(
        self, name: str, state: State, trajectory: Trajectory, at_once: tuple[Now, dict[str, Local]]
    ) -> State:
        """The influence of a population's parameters on every unit of the output after all time steps."""
        m = self.traces.model
        nx, output, (steps, batch, _) = m.nx, m.graph.output, trajectory.inputs.shape
        unit, leak, gain = self.rate_of(output)
        state_of_own, own_leak, own_gain = self.rate_of(name)
        now, local = at_once
        paths = self.traces.paths_to_output(name, now, local)
        _, units, post = paths.shape
        powers = nx.asarray(own_gain * gain * leak ** np.arange(steps - 1.0, -1.0, -1.0), m.dtype)
        slope = full(nx, local[name]["h", state_of_own], now.moment.after[name][Z])
        arriving = nx.reshape(paths * nx.expand_dims(slope, 1), (steps, batch, units, post))
        arriving = powers[:, None, None, None] * arriving

        def body(carry: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
            error = own_leak * carry[0] + given[0]
            return (error,), (error,)

        errors = nx.scan(body, (0 * arriving[0],), (arriving,), steps, reverse=True)[1][0]
        errors = nx.reshape(nx.transpose(errors, (1, 0, 2, 3)), (batch, steps, units * post))
        after: State = {}
        for of in self.traces.of[name]:
            received = self._received(of, state, self._sent(of, trajectory))
            found = nx.matmul(nx.transpose(received, (1, 2, 0)), errors)
            found = nx.transpose(nx.reshape(found, (batch, of.pre, units, post)), (0, 2, 1, 3))
            key = f"{of.name} on output"
            influence = leak**steps * state[key][unit] + nx.reshape(found, (batch, units, of.pre * post))
            after[key] = {unit: influence, Z: influence}
        return after

    def _all_at_once(self, trajectory: Trajectory, now: Now) -> tuple[Now, dict[str, Local]]:
        """All time steps as one with as many more examples, and the local derivatives."""
        m = self.traces.model
        nx, after, local = m.nx, {}, {}
        for name, record in trajectory.records.items():
            shape = (record.shape[0] * record.shape[1], record.shape[2])
            after[name] = {Z: nx.reshape(record.z, shape)}
            history = partial(record.history, nx)
            entries = record.derivatives(m.jacobians[name]).evaluate(
                nx, m.graph.cell(name), now.constants[name], history
            )
            local[name] = {
                entry: nx.reshape(value, shape) if len(getattr(value, "shape", ())) == 3 else value
                for entry, value in entries.items()
            }
        return replace(now, moment=Moment({}, after, {})), local

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
        return bool(self.wide or self.reaching) or any(state for _, state in self.filters)

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

    def _sent(self, of: Synapses, trajectory: Trajectory) -> Array:
        """What reaches a parameter at every time step, [time, batch, pre]: 1 for a bias."""
        m, (steps, batch, _) = self.traces.model, trajectory.inputs.shape
        if of.connection is None:
            return m.nx.full((steps, batch, of.pre), 1.0, m.dtype)
        return trajectory.sent(m.nx, of.connection)

    def _received(self, of: Synapses, state: State, sent: Array) -> Array:
        """The same with what was sent before, as one more input at the first step."""
        return self.traces.model.nx.concat([sent[:1] + self.sent_before(state, of.name), sent[1:]], 0)

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
        sent = self._sent(of, trajectory)
        powers = nx.asarray(gain * leak ** np.arange(steps - 1.0, -1.0, -1.0)[None], dtype)
        added = nx.reshape(nx.matmul(powers, nx.reshape(sent, (steps, batch * of.pre))), (batch, of.pre, 1))
        after = {of.name: {k: leak**steps * state[of.name][k] + added}}
        if chi is None:
            return after
        key, left = f"{of.name} filtered", self.filter_of(of.population) ** steps
        received = self._received(of, state, sent)
        return {**after, key: {"trace": filtered_on(nx, left, state[key]["trace"], received, chi)}}
