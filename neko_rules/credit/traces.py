"""Traces: the influence of every parameter on its own population, carried forward in time.

For a synapse with presynaptic input x onto a neuron with state s, for neuron credit

    ε_t = (D_t + r_t h_{t-1}ᵀ) ε_{t-1} + q_t x_t        the eligibility vector [batch, state, pre, post]
    e_t = h_t·ε_t                                       the eligibility trace  [batch, pre, post]
    dE/dW = Σ_t G_t e_t + g_t·ε_t                       G_t = ∂E/∂z_t and g_t = ∂E/∂s_t from outside the population

A bias is a synapse with constant input 1, and a learnable constant c of the neuron one whose input is ∂s_t/∂c. This is
the same number as the adjoint with neuron credit, at O(N²) memory per example instead of O(T·N), and it can be had at
every time step. Where D, r and q are the same number for all neurons, as for a LIF neuron whose reset is detached, ε
does not depend on the postsynaptic neuron and is kept as [batch, pre, 1]: O(N) memory.

For layer credit the influence of a synapse on all neurons of its own population is carried,

    S_t = D_t S_{t-1} + r_t Z_{t-1} + q_t (Vᵀ Z_{t-1} + x_t),   Z_t = h_t·S_t      [batch, neuron, pre · post]

References: G. Bellec et al., Nature Communications 11:3625, 2020, results and methods on eligibility traces;
T. Bohnstingl et al., IEEE Transactions on Neural Networks and Learning Systems 34, 2023, for layer credit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from neko_rules.backend import Array, Backend
from neko_rules.credit.fused_influence import influenced_on
from neko_rules.credit.fused_traces import Form, advanced
from neko_rules.credit.recursion import Local, times
from neko_rules.kernels.host import HostBackend, host_of
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Z, by_parameter
from neko_rules.layers.graph import Connection, Graph, bias_name, constant_name
from neko_rules.layers.jacobians import Entry, Jacobians
from neko_rules.layers.moment import Moment

State = dict[str, Array]
"""What a trace carries from one time step to the next, by name."""

PRE = "pre"
"""What the presynaptic vector of a rank-one trace is called."""


@dataclass(frozen=True)
class Synapses:
    """The parameters of one name: weights of a connection, biases, or a learnable constant of the neurons.

    Args:
        name: the parameter.
        population: the population that it acts on.
        pre: the number of presynaptic neurons; 1 for a bias and a constant.
        post: the number of neurons of the population.
        connection: the connection of a weight.
        constant: the name of a learnable constant in the cell's equations.
    """

    name: str
    population: str
    pre: int
    post: int
    connection: Connection | None = None
    constant: str = ""

    def shaped(self, nx: Backend, gradient: Array) -> Array:
        """A gradient [pre, post] as one by the parameter."""
        if self.connection is None:
            return nx.reshape(gradient, (self.post,))
        return by_parameter(nx, self.connection, nx.reshape(gradient, (self.pre, self.post)))

    def sent(self, nx: Backend, moment: Moment, like: Array) -> Array:
        """x_t [batch, pre]; 1 for a bias."""
        if self.connection is not None:
            return moment.sent(self.connection)
        return nx.full((like.shape[0], 1), 1.0, nx.dtype(like))


def synapses(graph: Graph, population: str, inputs: int) -> Iterator[Synapses]:
    """All parameters that act on a population."""
    size = graph.populations[population].size
    for connection in graph.into(population):
        yield Synapses(connection.weight, population, graph.size(connection.source, inputs), size, connection)
    if graph.populations[population].bias:
        yield Synapses(bias_name(population), population, 1, size)
    cell = graph.cell(population)
    for argument in cell.learnable:
        constant = cell.trainable[argument].constant
        yield Synapses(constant_name(cell, population, constant), population, 1, size, constant=constant)


def local_derivatives(
    nx: Backend, graph: Graph, jacobians: Mapping[str, Jacobians], constants: dict[str, Constants], moment: Moment
) -> dict[str, Local]:
    """The local derivatives of every population at one time step."""
    return {
        name: jacobians[name].evaluate(nx, graph.cell(name), constants[name], partial(moment.value, name))
        for name in graph.order
    }


def reached(entries: Mapping[Entry, Any], constant: str = "") -> tuple[str, ...]:
    """The states of a cell that an input current, or a learnable constant, reaches."""
    driven = {e[1] for e in entries if (e[0] == "c" and e[2] == constant if constant else e[0] == "q")} - {Z}
    emits = {e[1] for e in entries if e[0] == "h"}
    emitted = bool(constant) and ("c", Z, constant) in entries
    while True:
        grown = driven | {e[1] for e in entries if e[0] == "D" and e[2] in driven}
        if emitted or grown & emits:
            grown |= {e[1] for e in entries if e[0] == "r"}
        if grown == driven:
            states = dict.fromkeys(e[1] for e in entries if e[0] in "Dqrh" or e[0] == "c")
            return tuple(state for state in states if state in driven)
        driven = grown


def factorised(jacobians: Jacobians, constants: Constants, states: tuple[str, ...]) -> frozenset[str]:
    """The states whose eligibility vector is the same for all postsynaptic neurons."""
    entries = jacobians.expressions

    def uniform(entry: Entry) -> bool:
        return all(name in constants and len(constants[name].shape) == 0 for name in jacobians.depends[entry])

    narrow = set(states)
    while True:
        kept = {
            k
            for k in narrow
            if ("r", k) not in entries
            and all(uniform(e) for e in entries if e[0] == "q" and e[1] == k)
            and all(uniform(e) and e[2] in narrow for e in entries if e[0] == "D" and e[1] == k and e[2] in states)
        }
        if kept == narrow:
            return frozenset(kept)
        narrow = kept


def over_synapses(value: Array) -> Array:
    """[batch, post] as [batch, 1, post]; numbers and [post] as they are."""
    return value[:, None, :] if len(getattr(value, "shape", ())) == 2 else value


def over_rows(value: Array) -> Array:
    """[batch, neuron] as [batch, neuron, 1], [neuron] as [neuron, 1]; numbers as they are."""
    shape = getattr(value, "shape", ())
    return value[:, :, None] if len(shape) == 2 else value[:, None] if len(shape) == 1 else value


def full(nx: Backend, value: Array, like: Array) -> Array:
    """A local derivative, which may be a number or one per neuron, as an array in the shape of another."""
    value = value if nx.is_tensor(value) else nx.full((), value, nx.dtype(like))
    return nx.broadcast_to(value, like.shape)


def added(parts: list[Array]) -> Array:
    """The sum of at least one array."""
    return sum(parts[1:], parts[0])


class Leaking(NamedTuple):
    """The filter of a population's traces by the one leak above it.

    Args:
        trace: ē_{t-1} [batch, pre, post].
        leak: κ.
        signal: what ē_t meets, [batch, post]; None if no error comes down.
    """

    trace: Array
    leak: Array
    signal: Array | None


class Diagonal:
    """Traces of one parameter for neuron credit and below: the influence of each synapse on its own neuron.

    Args:
        nx: backend.
        of: the parameter.
        jacobians: the derivatives of the population's cell, cut to the temporal credit.
        constants: the cell's constants, of which only the shapes matter here.
    """

    def __init__(self, nx: Backend, of: Synapses, jacobians: Jacobians, constants: Constants) -> None:
        self.nx, self.of = nx, of
        entries = jacobians.expressions
        self.states = reached(entries, of.constant)
        self.narrow = frozenset() if of.constant else factorised(jacobians, constants, self.states)
        self.emits_directly = bool(of.constant) and ("c", Z, of.constant) in entries
        returns = any(e[0] == "r" and e[1] in self.states for e in entries)
        self.emitting = tuple(k for k in self.states if returns and ("h", k) in entries)
        self.returns = returns and bool(self.emitting or self.emits_directly)

    def start(self, batch: int, dtype: str) -> State:
        """No influence yet: zeros."""
        nx, of = self.nx, self.of
        state = {k: nx.full((batch, of.pre, 1 if k in self.narrow else of.post), 0.0, dtype) for k in self.states}
        earlier = nx.full((batch, of.post), 0.0, dtype)
        state |= {f"h {k}": earlier for k in self.emitting}
        return {**state, "h z": earlier} if self.returns and self.emits_directly else state

    def step(self, state: State, moment: Moment, local: Local) -> State:
        """ε_t from ε_{t-1}."""
        nx, of, like = self.nx, self.of, moment.after[self.of.population][Z]
        drive = None if of.constant else of.sent(nx, moment, like)[:, :, None]
        emitted = self._emitted_before(state)
        after = {k: self._advanced(k, state, local, drive, emitted, like) for k in self.states}
        after |= {f"h {k}": full(nx, local["h", k], like) for k in self.emitting}
        if "h z" in state:
            after["h z"] = full(nx, local["c", Z, of.constant], like)
        return after

    def _advanced(
        self, k: str, state: State, local: Local, drive: Array | None, emitted: Array | None, like: Array
    ) -> Array:
        """ε_t of one state: D ε_{t-1} + r e_{t-1} + q x_t + ∂s_t/∂c, as far as there is each of them."""
        nx, of = self.nx, self.of
        parts = [times(over_synapses(local["D", k, j]), state[j]) for j in self.states if ("D", k, j) in local]
        if ("r", k) in local and emitted is not None:
            parts.append(times(over_synapses(local["r", k]), emitted))
        if drive is not None and ("q", k) in local:
            parts.append(times(over_synapses(local["q", k]), drive))
        if of.constant and ("c", k, of.constant) in local:
            parts.append(over_synapses(full(nx, local["c", k, of.constant], like)))
        return nx.broadcast_to(added(parts), state[k].shape) if parts else 0 * state[k]

    def fused(
        self,
        host: HostBackend,
        state: State,
        moment: Moment,
        local: Local,
        signals: Signals,
        leaking: Leaking | None,
    ) -> tuple[State, Array | None, Array] | None:
        """``step``, ``project`` and the filter of the layer above in one go; None where there is no loop for it.

        Args:
            host: the backend.
            state: ε_{t-1}.
            moment: the step.
            local: the local derivatives.
            signals: what the traces meet as they are.
            leaking: the filter above and what the filtered trace meets.

        Returns:
            ε_t, ē_t (None if there is no filter), and the gradient [pre, post].
        """
        nx, of, like = self.nx, self.of, moment.after[self.of.population][Z]
        wide = tuple(k for k in self.states if k not in self.narrow)
        if of.constant or not (wide or leaking):
            return None
        narrow = tuple(k for k in self.states if k in self.narrow)
        drive = of.sent(nx, moment, like)
        # A narrow state depends on narrow ones alone, and on no trace that comes back.
        after = {k: self._advanced(k, state, local, drive[:, :, None], None, like) for k in narrow}
        emitting = self.emitting if self.returns else ()
        uses = [("D", k, j) for k in wide for j in self.states] + [(e, k) for e in "qr" for k in wide]
        uses += [("h", k) for k in self.states] if leaking else []
        uses = [entry for entry in uses if entry in local and (entry[0] != "r" or emitting)]
        if any(not any(entry[1] == k for entry in uses if entry[0] != "h") for k in wide):
            return None
        if leaking and not any(entry[0] == "h" for entry in uses):
            return None
        plain = {k: total for k in self.states if (total := self._factor(k, local, signals)) is not None}
        projected = tuple(k for k in wide if k in plain)
        signal = None if leaking is None else leaking.signal
        form = Form(wide, narrow, tuple(uses), emitting, projected, leaking is not None, signal is not None)
        states, smooth, parts = advanced(
            host,
            form,
            before=state,
            after=after,
            drive=drive if any(entry[0] == "q" for entry in uses) else None,
            local={entry: full(nx, local[entry], like) for entry in uses},
            earlier={k: state[f"h {k}"] for k in emitting},
            factors={k: full(nx, plain[k], like) for k in projected},
            filtered=None if leaking is None else leaking.trace,
            leak=None if leaking is None else full(nx, leaking.leak, like),
            signal=None if signal is None else full(nx, signal, like),
            shape=(like.shape[0], of.pre, of.post),
        )
        parts += [self.over_batch(after[k], plain[k]) for k in narrow if k in plain]
        gradient = added(parts) if parts else nx.full((of.pre, of.post), 0.0, nx.dtype(like))
        ordered = {k: after[k] if k in after else states[k] for k in self.states}
        return ordered | {f"h {k}": full(nx, local["h", k], like) for k in self.emitting}, smooth, gradient

    def _factor(self, k: str, local: Local, signals: Signals) -> Array | None:
        """What ε_t of a state meets: G_t h_t + g_t, or None."""
        name = self.of.population
        signal = signals.get((name, Z))
        factors = [times(local["h", k], signal)] if signal is not None and ("h", k) in local else []
        factors += [signals[name, k]] if (name, k) in signals else []
        return added(factors) if factors else None

    def _emitted_before(self, state: State) -> Array | None:
        """e_{t-1} = h_{t-1}·ε_{t-1} (+ ∂z_{t-1}/∂c)."""
        parts = [over_synapses(state[f"h {k}"]) * state[k] for k in self.emitting]
        parts += [over_synapses(state["h z"])] if "h z" in state else []
        return added(parts) if self.returns and parts else None

    def trace(self, state: State, local: Local, like: Array) -> Array:
        """e_t [batch, pre, post]."""
        nx, of = self.nx, self.of
        parts = [over_synapses(full(nx, local["h", k], like)) * state[k] for k in self.states if ("h", k) in local]
        if self.emits_directly:
            parts.append(over_synapses(full(nx, local["c", Z, of.constant], like)))
        shape = (like.shape[0], of.pre, of.post)
        return nx.broadcast_to(added(parts), shape) if parts else nx.full(shape, 0.0, nx.dtype(like))

    def project(self, state: State, local: Local, signals: Signals) -> Array:
        """Σ_batch G_t e_t + g_t·ε_t, [pre, post]."""
        nx, of, name = self.nx, self.of, self.of.population
        signal = signals.get((name, Z))
        factors = [(k, self._factor(k, local, signals)) for k in self.states]
        parts = [self.over_batch(state[k], factor) for k, factor in factors if factor is not None]
        if signal is not None and self.emits_directly:
            parts.append(nx.sum(signal * full(nx, local["c", Z, of.constant], signal), axis=0, keepdims=True))
        if not parts:
            return nx.full((of.pre, of.post), 0.0, nx.dtype(moment_array(state, signals)))
        return nx.broadcast_to(added(parts), (of.pre, of.post))

    def over_batch(self, trace: Array, factor: Array) -> Array:
        """Σ_batch trace · factor for a trace [batch, pre, post or 1] and a factor [batch, post]."""
        nx = self.nx
        if trace.shape[2] == 1 and self.of.post > 1:
            return nx.matmul(nx.transpose(trace[:, :, 0], (1, 0)), factor)
        return nx.sum(trace * factor[:, None, :], axis=0)

    def spread(self, state: State, local: Local, paths: Array, like: Array) -> Array:
        """Σ_post paths e_t: the influence on K units that the population reaches by paths [batch, K, post].

        Each synapse acts through its own neuron alone: [batch, K, pre · post].
        """
        nx, of = self.nx, self.of
        product = paths[:, :, None, :] * self.trace(state, local, like)[:, None, :, :]
        return nx.reshape(product, (*paths.shape[:2], of.pre * of.post))


def moment_array(state: State, signals: Signals) -> Array:
    """Any array, for its type."""
    return next(iter(state.values())) if state else next(iter(signals.values()))


def influenced(
    before: State,
    local: Local,
    current: Array | None,
    constants: Mapping[str, Array],
    over: Callable[[Array], Array] = over_rows,
) -> State:
    """S_t = D_t S_{t-1} + r_t Z_{t-1} + q_t ∂I_t + ∂s_t/∂c and Z_t = h_t·S_t + ∂z_t/∂c, [batch, neuron, parameter].

    Args:
        before: S_{t-1} by state, and Z_{t-1} as ``"z"``.
        local: the local derivatives of the neurons.
        current: the influence on their input current; None where there is none.
        constants: what acts on a state or the output directly.
        over: brings a derivative of every neuron beside an influence.
    """
    after: State = {}
    for k in (k for k in before if k != Z):
        parts = [times(over(local["D", k, j]), before[j]) for j in before if j != Z and ("D", k, j) in local]
        parts += [times(over(local["r", k]), before[Z])] if ("r", k) in local else []
        parts += [times(over(local["q", k]), current)] if current is not None and ("q", k) in local else []
        parts += [constants[k]] if k in constants else []
        after[k] = added(parts) if parts else 0 * before[k]
    emitted = [times(over(local["h", k]), after[k]) for k in after if ("h", k) in local]
    emitted += [constants[Z]] if Z in constants else []
    after[Z] = added(emitted) if emitted else 0 * before[Z]
    return after


def over_batch(nx: Backend, of: Synapses, influence: Array, factor: Array) -> Array:
    """Σ_batch,neuron of an influence [batch, neuron, pre · post] times a factor [batch, neuron]: [pre, post]."""
    rows = influence.shape[0] * influence.shape[1]
    flat = nx.reshape(influence, (rows, of.pre * of.post))
    return nx.reshape(nx.matmul(nx.reshape(factor, (1, rows)), flat), (of.pre, of.post))


class Recurrent:
    """Traces of one parameter for layer credit: the influence of each synapse on every neuron of its population.

    Args:
        nx: backend.
        of: the parameter.
        jacobians: the derivatives of the population's cell.
        own: the delayed connections of the population with itself.
    """

    def __init__(self, nx: Backend, of: Synapses, jacobians: Jacobians, own: tuple[Connection, ...]) -> None:
        self.nx, self.of, self.own = nx, of, own
        entries = jacobians.expressions
        driven = set(reached(entries, of.constant)) if of.constant else set()
        # What a neuron emits reaches the others as a current.
        self.states = tuple(s for s in jacobians.states if s in driven or s in reached(entries))

    def start(self, batch: int, dtype: str) -> State:
        """No influence yet: zeros."""
        zero = self.nx.full((batch, self.of.post, self.of.pre * self.of.post), 0.0, dtype)
        return {**dict.fromkeys(self.states, zero), Z: zero}

    def step(self, state: State, moment: Moment, local: Local, weights: Mapping[str, Array]) -> State:
        """S_t and Z_t from those of the step before; ``weights`` are the recurrent ones, transposed."""
        nx, of, like, host = self.nx, self.of, moment.after[self.of.population][Z], host_of(self.nx)
        through = [(weights[c.weight], state[Z]) for c in self.own]
        if host is not None and not of.constant:
            after = influenced_on(host, state, local, through, of.sent(nx, moment, like), like)
            if after is not None:
                return after
        current = added([nx.matmul(back, z) for back, z in through])
        if not of.constant:
            current = current + self.onto_own_neuron(of.sent(nx, moment, like))
        return influenced(state, local, current, self.constants(local, like))

    def constants(self, local: Local, like: Array) -> dict[str, Array]:
        """∂s_t/∂c and ∂z_t/∂c of every neuron with respect to its own constant: [batch, neuron, post], diagonal."""
        nx, of = self.nx, self.of
        eye = nx.eye(of.post, nx.dtype(like))
        return {e[1]: full(nx, local[e], like)[:, :, None] * eye for e in local if e[0] == "c" and e[2] == of.constant}

    def onto_own_neuron(self, x: Array) -> Array:
        """x_i δ_mj: what a synapse (i, j) adds to the current of neuron m, [batch, neuron, pre · post]."""
        nx, of = self.nx, self.of
        eye = nx.eye(of.post, nx.dtype(x))
        return nx.reshape(x[:, None, :, None] * eye[None, :, None, :], (x.shape[0], of.post, of.pre * of.post))

    def trace(self, state: State) -> Array:
        """Z_t [batch, neuron, pre · post]."""
        return state[Z]

    def project(self, state: State, signals: Signals) -> Array:
        """Σ_batch,neuron G_t Z_t + g_t·S_t, [pre, post]."""
        name = self.of.population
        parts = [self.over_batch(state[key], signals[name, key]) for key in (Z, *self.states) if (name, key) in signals]
        if not parts:
            return self.nx.full((self.of.pre, self.of.post), 0.0, self.nx.dtype(state[Z]))
        return added(parts)

    def over_batch(self, influence: Array, factor: Array) -> Array:
        """Σ_batch,neuron of an influence times a factor: [pre, post]."""
        return over_batch(self.nx, self.of, influence, factor)

    def spread(self, state: State, paths: Array) -> Array:
        """The influence on K units that the population reaches by paths [batch, K, neuron]: [batch, K, pre · post]."""
        return self.nx.matmul(paths, state[Z])


class RankOne:
    """Traces of one parameter as a presynaptic vector, which meets a factor of the population: O(N) memory (pp-prop).

        x̄_t = a x̄_{t-1} + x_t                                                          [batch, pre, 1]
        dE/dW = Σ_t,batch x̄_t ⊗ (G_t F^z_t + g_t·F_t)                    F: the population's factors (``factors``)

    Args:
        nx: backend.
        of: the parameter, a weight or a bias.
        decay: a, from 0 to below 1.

    Reference: C. Wang et al. 2026, pp-prop (ES-D-RTRL in the authors' program).
    """

    def __init__(self, nx: Backend, of: Synapses, decay: float) -> None:
        self.nx, self.of, self.decay = nx, of, decay

    def start(self, batch: int, dtype: str) -> State:
        """No influence yet: zeros."""
        return {PRE: self.nx.full((batch, self.of.pre, 1), 0.0, dtype)}

    def step(self, state: State, moment: Moment) -> State:
        """x̄_t."""
        sent = self.of.sent(self.nx, moment, moment.after[self.of.population][Z])
        return {PRE: self.decay * state[PRE] + sent[:, :, None]}

    def project(self, state: State, factors: Mapping[str, Array], signals: Signals) -> Array:
        """Σ_batch x̄_t ⊗ (G_t F^z_t + g_t·F_t), [pre, post].

        Args:
            state: x̄_t.
            factors: F by the output or state that they belong to.
            signals: G and g.
        """
        nx, of = self.nx, self.of
        parts = [signals[of.population, k] * each for k, each in factors.items() if (of.population, k) in signals]
        if not parts:
            return nx.full((of.pre, of.post), 0.0, nx.dtype(state[PRE]))
        return nx.matmul(nx.transpose(state[PRE][:, :, 0], (1, 0)), added(parts))
