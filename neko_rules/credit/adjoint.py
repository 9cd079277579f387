"""Adjoint: gradients backward in time, for full, layer and neuron temporal credit.

For a population with state s, given G_t = ∂E/∂z_t and g_t = ∂E/∂s_t from outside it, the recursion from t = T-1 down
to 0 is

    λz_t = G_t + r_{t+1}·λs_{t+1} + V δ_{t+1}          (V δ only for layer and full credit)
    λs_t = g_t + D_{t+1}ᵀ λs_{t+1} + h_t λz_t
    δ_t  = q_t·λs_t                                     the derivative with respect to the input current
    dE/dW = Σ_t x_tᵀ δ_t    dE/dV = Σ_t z_{t-1}ᵀ δ_t    dE/db = Σ_t δ_t
    dE/dc = Σ_t λs_t·∂s_t/∂c + λz_t ∂z_t/∂c             for a learnable constant c of the neuron

and the signal to a population below is δ_t Wᵀ where the signal keeps its paths through time, or q_t·(h_t G_t + g_t) Wᵀ
where it is instantaneous. The recursion steps through time, evaluating the local derivatives as it goes, while they
are in the processor's cache; weight gradients and signals are one matrix product over all time steps after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from neko_rules.backend import Array, Arrays, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.credit.feedback import backward_weight, direct_name
from neko_rules.credit.fused import kernel_of, step_back
from neko_rules.kernels.host import contiguous, host_of
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Trajectory, Z, effective_weight, project, without_diagonal
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name, constant_name
from neko_rules.layers.jacobians import Entry, Jacobians

Local = dict[Entry, Array]
"""The local derivatives of a population at one step: entries [batch, neuron], or constant in time."""

Carried = tuple[str, str, str]
"""What a step back sends to the step before: (population, "state", state name), (…, "z", "") or (…, "delta", "")."""

Constant = tuple[str, str]
"""A learnable constant: the population and the constant's name in the cell's equations."""


@dataclass(frozen=True)
class Problem:
    """A forward pass and all that is needed to go back through it.

    Args:
        nx: backend.
        graph: the network.
        jacobians: population name → the derivatives of its cell.
        constants: population name → the constants of its cell.
        parameters: name → array.
        feedback: weight name → feedback matrix, where it is not the weight itself.
        trajectory: what the forward pass recorded.
        credit: which gradient.
    """

    nx: Backend
    graph: Graph
    jacobians: dict[str, Jacobians]
    constants: dict[str, Constants]
    parameters: Parameters
    feedback: Parameters
    trajectory: Trajectory
    credit: Credit

    def back(self, connection: Connection) -> Array:
        """The transposed weight that carries a connection's error back: [target, source]."""
        nx = self.nx
        weight = effective_weight(nx, connection, self.parameters)
        return nx.transpose(backward_weight(nx, connection, weight, self.feedback, self.credit), (1, 0))


def gradients(problem: Problem, signals: Signals) -> Parameters:
    """dE/dparameter for every parameter.

    Args:
        problem: the forward pass.
        signals: (population, "z" or state) → ∂E/∂z_t or ∂E/∂s_t from the loss and from regularisers, each broadcastable
            to [time, batch, neuron].
    """
    return _solved(problem, signals)[0]


def learning_signals(problem: Problem, signals: Signals) -> Signals:
    """G_t = ∂E/∂z_t of every population that an error reaches, [time, batch, neuron]; not for full credit.

    With full credit what reaches a population through its own component's recurrence is not separated from G. What
    ``signals`` gives for a state is kept as it is.
    """
    assert problem.credit.temporal != "full", "full credit has no learning signals apart from the recursion"
    return {
        key: problem.nx.broadcast_to(signal, problem.trajectory.z(key[0]).shape)
        for key, signal in _solved(problem, signals)[1].items()
    }


def _solved(problem: Problem, signals: Signals) -> tuple[Parameters, Signals]:
    """Gradients, and the signals that reached the populations, from the top down."""
    graph, credit = problem.graph, problem.credit
    whole = credit.temporal == "full"
    groups = list(graph.components if whole else ((name,) for name in graph.order))
    if credit.spatial == "direct":
        groups.sort(key=lambda group: graph.output in group)
    signals = dict(signals)
    found: Parameters = {}
    for group in reversed(groups):
        delta, within_step, constants, sums = _stepped_back(problem, group, signals)
        for (name, constant), gradient in constants.items():
            found[constant_name(graph.cell(name), name, constant)] = gradient
        for name in group:
            found.update(weight_gradients(problem, name, delta[name], sums.get(name)))
            _pass_down(problem, name, within_step.get(name, delta[name]), group if whole else (), signals)
    return {name: found[name] for name in problem.parameters}, signals


Solved = tuple[dict[str, Array], dict[str, Array], dict[Constant, Array], dict[str, Array]]
"""δ, and q_t·h_t G_t where that is what goes down, by population: [time, batch, neuron]; dE/dc, and Σ_t δ_t if known [neuron]."""


def _stepped_back(problem: Problem, group: tuple[str, ...], signals: Signals) -> Solved:
    """The recursion of a group over all time steps, as one compiled loop where there is one."""
    nx, records = problem.nx, problem.trajectory.records
    setting = Setting(nx, problem.graph, problem.jacobians, problem.constants, problem.credit, problem.back)
    states = tuple(key for key in signals if key[0] in group and key[1] != Z)
    recursion = Recursion(setting, group, states)
    host = host_of(nx)
    if host is not None and len(group) == 1:

        def traced(operations: Any, constants: dict[str, Constants]) -> Recursion:
            tokens = replace(setting, nx=operations, constants=constants, back=lambda connection: connection)
            return Recursion(tokens, group, states)

        present = tuple(key in signals for key in recursion.arriving)
        dtype = nx.dtype(problem.trajectory.inputs)
        kernel = kernel_of(recursion, traced, present, dtype)
        if kernel is not None:
            record = records[group[0]]
            given = [
                nx.broadcast_to(signals[key], record.z.shape) for key in recursion.arriving if key in signals
            ]
            errors, totals = step_back(host, kernel, recursion, record, given)
            within = dict(zip(recursion.instantaneous, errors[1:], strict=True))
            learned = dict(zip(recursion.learnable, totals[1:], strict=True))
            return {group[0]: errors[0]}, within, learned, {group[0]: totals[0]}
    zero = nx.full((), 0.0, nx.dtype(problem.trajectory.inputs))
    arriving = [
        nx.broadcast_to(signals.get(key, zero), problem.trajectory.z(key[0]).shape) for key in recursion.arriving
    ]
    histories = (records[name].history(nx, key) for name, key in recursion.recorded)
    carry = tuple(nx.full(arriving[group.index(name)].shape[1:], 0.0, nx.dtype(zero)) for name, *_ in recursion.carried)
    _, outputs = nx.scan(recursion.step, carry, (*arriving, *histories), arriving[0].shape[0], reverse=True)
    delta = dict(zip(group, outputs, strict=False))
    outputs = outputs[len(group) :]
    within_step = dict(zip(recursion.instantaneous, outputs, strict=False))
    outputs = outputs[len(recursion.instantaneous) :]
    constants = {key: nx.sum(each, axis=(0, 1)) for key, each in zip(recursion.learnable, outputs, strict=True)}
    return delta, within_step, constants, {}


def keeps_paths(credit: Credit, graph: Graph, name: str) -> bool:
    """Whether the error that a population sends down includes its paths through time."""
    return credit.learning_signal == "exact" or (credit.learning_signal == "filtered" and name == graph.output)


def times(factor: Array, array: Array) -> Array:
    """A product that leaves out a factor of exactly one (derivatives are often the number 1)."""
    if isinstance(factor, int) and factor == 1:
        return array
    if isinstance(array, int) and array == 1:
        return factor
    return factor * array


def weight_gradients(problem: Problem, name: str, delta: Array, summed: Array | None = None) -> Parameters:
    """dE/dW = Σ_t x_tᵀ δ_t for every weight into a population, and dE/db = Σ_t δ_t, which may be known already."""
    nx, found = problem.nx, {}
    for connection in problem.graph.into(name):
        gradient = _gradient_of_events(problem, connection, delta)
        if gradient is None:
            sent, received = meeting(problem, connection, delta)
            gradient = nx.matmul(nx.transpose(_flat(nx, sent), (1, 0)), _flat(nx, received))
        found[connection.weight] = without_diagonal(nx, gradient) if connection.masked else gradient
    if problem.graph.populations[name].bias:
        found[bias_name(name)] = nx.sum(_flat(nx, delta), axis=0) if summed is None else summed
    return found


def _gradient_of_events(problem: Problem, connection: Connection, delta: Array) -> Array | None:
    """The gradient of a weight from the events of its source, where those were kept and are few."""
    host, trajectory = host_of(problem.nx), problem.trajectory
    events = trajectory.events.get(connection.source)
    if host is None or events is None or not events.sparse or (connection.delay and trajectory.start is not None):
        return None
    received = contiguous(host.host(delta))
    if connection.delay:
        events, received = events[:-1], received[1:]
    return host.from_host(events.gradient(received))


def meeting(problem: Problem, connection: Connection, delta: Array) -> tuple[Array, Array]:
    """What a connection sent and the δ at its arrival, step by step: a delayed one sends z_t to δ_{t+1}."""
    z = problem.trajectory.z(connection.source)
    if connection.delay and problem.trajectory.start is not None:
        return problem.trajectory.sent(problem.nx, connection), delta
    return (z[:-1], delta[1:]) if connection.delay else (z, delta)


def _flat(nx: Backend, array: Array) -> Array:
    """[time, batch, neuron] as [time · batch, neuron]."""
    return nx.reshape(array, (array.shape[0] * array.shape[1], array.shape[2]))


def _pass_down(problem: Problem, name: str, below: Array, together: tuple[str, ...], signals: Signals) -> None:
    """Add a population's error to the signals of the populations that it receives from.

    Delayed connections carry error only for full credit, and connections inside a group that was solved together have
    already carried theirs. Direct feedback goes from the output straight to every other population, and where signals
    are local nothing is passed down at all.
    """
    nx, graph = problem.nx, problem.graph
    parts: Signals = {}
    if problem.credit.spatial == "direct" and name == graph.output:
        for other in graph.order:
            if other != name:
                matrix = problem.feedback[direct_name(other)]
                parts[other, Z] = project(nx, below, nx.transpose(matrix, (1, 0)))
    elif problem.credit.passes_down:
        for connection in graph.into(name):
            inside = connection.source in together
            if connection.source == INPUT or inside or (connection.delay and not together):
                continue
            part = project(nx, below, problem.back(connection))
            if connection.delay:
                part = nx.concat([part[1:], nx.full((1, *part.shape[1:]), 0.0, nx.dtype(part))], 0)
            key = (connection.source, Z)
            parts[key] = parts[key] + part if key in parts else part
    for key, part in parts.items():
        signals[key] = signals[key] + part if key in signals else part


@dataclass(frozen=True)
class Setting:
    """What the recursion of a group of populations depends on, in the arrays of one backend.

    Args:
        nx: backend.
        graph: the network.
        jacobians: population name → the derivatives of its cell.
        constants: population name → the constants of its cell.
        credit: which gradient.
        back: the transposed weight that carries a connection's error back: [target, source].
    """

    nx: Backend
    graph: Graph
    jacobians: dict[str, Jacobians]
    constants: dict[str, Constants]
    credit: Credit
    back: Callable[[Connection], Array]


class Recursion:
    """λs and λz of a group of populations, stepped backward in time: what t+1 sends to t, and what it does there.

    The carry holds only what is not identically zero: per population Σ_k D_kj λs_k for each state j, r·λs where
    something depends on z_{t-1}, and δ where a delayed connection carries error back.

    Args:
        setting: the network.
        group: the populations.
        states: (population, state) of the signals from outside that arrive at a state.
    """

    def __init__(self, setting: Setting, group: tuple[str, ...], states: tuple[tuple[str, str], ...]) -> None:
        self.setting = setting
        self.nx = setting.nx
        self.group = group
        self.arriving = (*((name, Z) for name in group), *states)
        self.recorded = [
            (name, key)
            for name in group
            for key in setting.jacobians[name].arguments
            if key not in setting.constants[name]
        ]
        temporal = setting.credit.temporal
        self.outgoing: dict[str, list[tuple[Connection, Array]]] = {name: [] for name in group}
        for connection in setting.graph.within(group):
            own = connection.source == connection.target
            if temporal == "full" or (temporal == "layer" and own):
                self.outgoing[connection.source].append((connection, setting.back(connection)))
        self.carried = [key for name in group for key in self._carried(name)]
        below = [name for name in group if any(c.source != INPUT and not c.delay for c in setting.graph.into(name))]
        self.instantaneous = [name for name in below if not keeps_paths(setting.credit, setting.graph, name)]
        self.learnable: list[Constant] = [
            (name, constant) for name in group for constant in setting.jacobians[name].learnable
        ]

    def _carried(self, name: str) -> list[Carried]:
        entries = self.setting.jacobians[name].expressions
        states = {entry[2] for entry in entries if entry[0] == "D"}
        keys: list[Carried] = [(name, "state", state) for state in sorted(states)]
        if any(entry[0] == "r" for entry in entries):
            keys.append((name, "z", ""))
        edges = (connection for edges in self.outgoing.values() for connection, _ in edges)
        if any(connection.delay and connection.target == name for connection in edges):
            keys.append((name, "delta", ""))
        return keys

    def step(self, carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        """One step back: the signals in the order of ``arriving``, then the histories in the order of ``recorded``.

        Returns the next carry and, by population, δ; q_t·h_t G_t where that is what goes down; ∂E/∂c of the step.
        """
        later = dict(zip(self.carried, carry, strict=True))
        signals = dict(zip(self.arriving, inputs, strict=False))
        recorded = dict(zip(self.recorded, inputs[len(self.arriving) :], strict=True))
        delta: dict[str, Array] = {}
        sent: dict[Carried, Array] = {}
        within_step: dict[str, Array] = {}
        constants: dict[Constant, Array] = {}
        for name in reversed(self.group):
            local = self._local(name, recorded)
            z = signals[name, Z]
            if (name, "z", "") in later:
                z = z + later[name, "z", ""]
            for connection, back in self.outgoing[name]:
                error = later[connection.target, "delta", ""] if connection.delay else delta[connection.target]
                z = z + self.nx.matmul(error, back)
            lam = self._lambda(name, local, later, signals, z)
            delta[name] = total(self.nx, local, [("q", k) for k in lam], lam, z)
            for key in self.carried:
                if key[0] == name:
                    entries: list[Entry] = [("D", k, key[2]) if key[1] == "state" else ("r", k) for k in lam]
                    sent[key] = delta[name] if key[1] == "delta" else total(self.nx, local, entries, lam, z)
            if name in self.instantaneous:
                within_step[name] = instantaneous_error(self.nx, name, local, signals)
            for _, constant in (key for key in self.learnable if key[0] == name):
                entries = [("c", k, constant) for k in (*lam, Z)]
                constants[name, constant] = total(self.nx, local, entries, {**lam, Z: z}, z)
        outputs = (
            *(delta[name] for name in self.group),
            *(within_step[name] for name in self.instantaneous),
            *(constants[key] for key in self.learnable),
        )
        return tuple(sent[key] for key in self.carried), outputs

    def _local(self, name: str, recorded: dict[tuple[str, str], Array]) -> Local:
        """The local derivatives of a population at one step."""
        setting = self.setting
        return setting.jacobians[name].evaluate(
            self.nx, setting.graph.cell(name), setting.constants[name], lambda key: recorded[name, key]
        )

    def _lambda(
        self, name: str, local: Local, later: dict[Carried, Array], signals: Signals, z: Array
    ) -> dict[str, Array]:
        """λs_t = g_t + D_{t+1}ᵀ λs_{t+1} + h_t λz_t of every state that an error reaches."""
        lam: dict[str, Array] = {}
        for state in self.setting.jacobians[name].states:
            parts = [later[name, "state", state]] if (name, "state", state) in later else []
            parts += [times(local["h", state], z)] if ("h", state) in local else []
            parts += [signals[name, state]] if (name, state) in signals else []
            if parts:
                lam[state] = sum(parts[1:], parts[0])
        return lam


def instantaneous_error(nx: Backend, name: str, local: Local, signals: Signals) -> Array:
    """q_t·(h_t G_t + g_t): a population's error at its current within the time step."""
    direct = {entry[1]: times(h, signals[name, Z]) for entry, h in local.items() if entry[0] == "h"}
    for (population, state), signal in signals.items():
        if population == name and state != Z:
            direct[state] = direct[state] + signal if state in direct else signal
    return total(nx, local, [("q", k) for k in direct], direct, signals[name, Z])


def total(nx: Backend, local: Local, entries: list[Entry], lam: dict[str, Array], like: Array) -> Array:
    """Σ_k entry_k λ_k over the entries that are not identically zero."""
    parts = [times(local[entry], lam[entry[1]]) for entry in entries if entry in local]
    if not parts:
        return nx.full(like.shape, 0.0, nx.dtype(like))
    return sum(parts[1:], parts[0])
