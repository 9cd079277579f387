"""Adjoint: gradients backward in time, for full, layer and neuron temporal credit.

For a population with state s, given G_t = ∂E/∂z_t from outside it, the recursion from t = T-1 down to 0 is

    λz_t = G_t + r_{t+1}·λs_{t+1} + V δ_{t+1}          (V δ only for layer and full credit)
    λs_t = D_{t+1}ᵀ λs_{t+1} + h_t λz_t
    δ_t  = q_t·λs_t                                     the derivative with respect to the input current
    dE/dW = Σ_t x_tᵀ δ_t    dE/dV = Σ_t z_{t-1}ᵀ δ_t    dE/db = Σ_t δ_t

and the signal to a population below is δ_t Wᵀ where the signal keeps its paths through time, or (q_t·h_t G_t) Wᵀ
where it is instantaneous. The recursion steps through time, evaluating the local derivatives as it goes, while they
are in the processor's cache; weight gradients and signals are one matrix product over all time steps after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from neko_rules.backend import Array, Arrays, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.credit.feedback import backward_weight
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Trajectory, effective_weight, project, without_diagonal
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name
from neko_rules.layers.jacobians import Entry, Jacobians

Local = dict[Entry, Array]
"""The local derivatives of a population at one step: entries [batch, neuron], or constant in time."""

Carried = tuple[str, str, str]
"""What a step back sends to the step before: (population, "state", state name), (…, "z", "") or (…, "delta", "")."""


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
        weight = effective_weight(self.nx, connection, self.parameters)
        return self.nx.transpose(backward_weight(connection, weight, self.feedback), (1, 0))


def gradients(problem: Problem, signals: dict[str, Array]) -> Parameters:
    """dE/dparameter for every parameter.

    Args:
        problem: the forward pass.
        signals: population name → ∂E/∂z_t from the loss (the readout) and from regularisers, each broadcastable to
            [time, batch, neuron].
    """
    return _solved(problem, signals)[0]


def learning_signals(problem: Problem, signals: dict[str, Array]) -> dict[str, Array]:
    """G_t = ∂E/∂z_t of every population that an error reaches, [time, batch, neuron]; not for full credit.

    With full credit what reaches a population through its own component's recurrence is not separated from G.
    """
    assert problem.credit.temporal != "full", "full credit has no learning signals apart from the recursion"
    return {
        name: problem.nx.broadcast_to(signal, problem.trajectory.z(name).shape)
        for name, signal in _solved(problem, signals)[1].items()
    }


def _solved(problem: Problem, signals: dict[str, Array]) -> tuple[Parameters, dict[str, Array]]:
    """Gradients, and the signals that reached the populations, from the top down."""
    nx, graph = problem.nx, problem.graph
    whole = problem.credit.temporal == "full"
    groups = graph.components if whole else tuple((name,) for name in graph.order)
    signals = dict(signals)
    zero = nx.full((), 0.0, nx.dtype(problem.trajectory.inputs))
    found: Parameters = {}
    for group in reversed(groups):
        arriving = {name: nx.broadcast_to(signals.get(name, zero), problem.trajectory.z(name).shape) for name in group}
        delta, within_step = _Recursion(problem, group).run(arriving)
        for name in group:
            found.update(weight_gradients(problem, name, delta[name]))
            _pass_down(problem, name, within_step.get(name, delta[name]), group if whole else (), signals)
    return {name: found[name] for name in problem.parameters}, signals


def keeps_paths(problem: Problem, name: str) -> bool:
    """Whether the error that a population sends down includes its paths through time."""
    signal = problem.credit.learning_signal
    return signal == "exact" or (signal == "filtered" and name == problem.graph.output)


def times(factor: Array, array: Array) -> Array:
    """A product that leaves out a factor of exactly one (derivatives are often the number 1)."""
    if isinstance(factor, int) and factor == 1:
        return array
    if isinstance(array, int) and array == 1:
        return factor
    return factor * array


def weight_gradients(problem: Problem, name: str, delta: Array) -> Parameters:
    """dE/dW = Σ_t x_tᵀ δ_t for every weight into a population, and dE/db = Σ_t δ_t."""
    nx, found = problem.nx, {}
    for connection in problem.graph.into(name):
        sent, received = meeting(problem, connection, delta)
        gradient = nx.matmul(nx.transpose(_flat(nx, sent), (1, 0)), _flat(nx, received))
        found[connection.weight] = without_diagonal(nx, gradient) if connection.masked else gradient
    if problem.graph.populations[name].bias:
        found[bias_name(name)] = nx.sum(_flat(nx, delta), axis=0)
    return found


def meeting(problem: Problem, connection: Connection, delta: Array) -> tuple[Array, Array]:
    """What a connection sent and the δ at its arrival, step by step: a delayed one sends z_t to δ_{t+1}."""
    z = problem.trajectory.z(connection.source)
    return (z[:-1], delta[1:]) if connection.delay else (z, delta)


def _flat(nx: Backend, array: Array) -> Array:
    """[time, batch, neuron] as [time · batch, neuron]."""
    return nx.reshape(array, (array.shape[0] * array.shape[1], array.shape[2]))


def _pass_down(problem: Problem, name: str, below: Array, together: tuple[str, ...], signals: dict[str, Array]) -> None:
    """Add a population's error to the signals of the populations that it receives from.

    Delayed connections carry error only for full credit, and connections inside a group that was solved together have
    already carried theirs.
    """
    nx = problem.nx
    for connection in problem.graph.into(name):
        inside = connection.source in together
        if connection.source == INPUT or inside or (connection.delay and not together):
            continue
        part = project(nx, below, problem.back(connection))
        if connection.delay:
            part = nx.concat([part[1:], nx.full((1, *part.shape[1:]), 0.0, nx.dtype(part))], 0)
        signals[connection.source] = signals[connection.source] + part if connection.source in signals else part


class _Recursion:
    """λs and λz of a group of populations stepped backward in time: a scan whose carry is what t+1 sends to t.

    The carry holds only what is not identically zero: per population Σ_k D_kj λs_k for each state j, r·λs where
    something depends on z_{t-1}, and δ where a delayed connection carries error back.
    """

    def __init__(self, problem: Problem, group: tuple[str, ...]) -> None:
        self.problem = problem
        self.nx = problem.nx
        self.group = group
        self.recorded = [
            (name, key)
            for name in group
            for key in problem.jacobians[name].arguments
            if key not in problem.constants[name]
        ]
        temporal = problem.credit.temporal
        self.outgoing: dict[str, list[tuple[Connection, Array]]] = {name: [] for name in group}
        for connection in problem.graph.within(group):
            own = connection.source == connection.target
            if temporal == "full" or (temporal == "layer" and own):
                self.outgoing[connection.source].append((connection, problem.back(connection)))
        self.carried = [key for name in group for key in self._carried(name)]
        below = [name for name in group if any(c.source != INPUT and not c.delay for c in problem.graph.into(name))]
        self.instantaneous = [name for name in below if not keeps_paths(problem, name)]

    def _carried(self, name: str) -> list[Carried]:
        entries = self.problem.jacobians[name].expressions
        states = {entry[2] for entry in entries if entry[0] == "D"}
        keys: list[Carried] = [(name, "state", state) for state in sorted(states)]
        if any(entry[0] == "r" for entry in entries):
            keys.append((name, "z", ""))
        edges = (connection for edges in self.outgoing.values() for connection, _ in edges)
        if any(connection.delay and connection.target == name for connection in edges):
            keys.append((name, "delta", ""))
        return keys

    def run(self, signals: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """δ, and q_t·h_t G_t where that is what goes down, by population, from G: all [time, batch, neuron]."""
        nx, first = self.nx, signals[self.group[0]]
        records = self.problem.trajectory.records
        zeros = {name: nx.full(signals[name].shape[1:], 0.0, nx.dtype(first)) for name in self.group}
        histories = (records[name].history(nx, key) for name, key in self.recorded)
        inputs = (*(signals[name] for name in self.group), *histories)
        carry = tuple(zeros[name] for name, _, _ in self.carried)
        _, outputs = nx.scan(self._step, carry, inputs, first.shape[0], reverse=True)
        delta = dict(zip(self.group, outputs, strict=False))
        return delta, dict(zip(self.instantaneous, outputs[len(self.group) :], strict=True))

    def _step(self, carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        later = dict(zip(self.carried, carry, strict=True))
        signals = dict(zip(self.group, inputs, strict=False))
        recorded = dict(zip(self.recorded, inputs[len(self.group) :], strict=True))
        delta: dict[str, Array] = {}
        sent: dict[Carried, Array] = {}
        within_step: dict[str, Array] = {}
        for name in reversed(self.group):
            local = self._local(name, recorded)
            z = signals[name]
            if (name, "z", "") in later:
                z = z + later[name, "z", ""]
            for connection, back in self.outgoing[name]:
                error = later[connection.target, "delta", ""] if connection.delay else delta[connection.target]
                z = z + self.nx.matmul(error, back)
            delta[name] = self._neuron(name, local, later, z, sent)
            if name in self.instantaneous:
                direct = {entry[1]: times(h, signals[name]) for entry, h in local.items() if entry[0] == "h"}
                within_step[name] = self._total(local, [("q", k) for k in direct], direct, z)
        outputs = (*(delta[name] for name in self.group), *(within_step[name] for name in self.instantaneous))
        return tuple(sent[key] for key in self.carried), outputs

    def _local(self, name: str, recorded: dict[tuple[str, str], Array]) -> Local:
        """The local derivatives of a population at one step."""
        problem = self.problem
        return problem.jacobians[name].evaluate(
            self.nx, problem.graph.cell(name), problem.constants[name], lambda key: recorded[name, key]
        )

    def _neuron(
        self, name: str, local: Local, later: dict[Carried, Array], z: Array, sent: dict[Carried, Array]
    ) -> Array:
        """One step back within a population: δ_t is returned, and what goes to t-1 is put into ``sent``."""
        lam: dict[str, Array] = {}
        for state in dict.fromkeys(entry[1] for entry in local):
            parts = [later[name, "state", state]] if (name, "state", state) in later else []
            parts += [times(local["h", state], z)] if ("h", state) in local else []
            if parts:
                lam[state] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        delta = self._total(local, [("q", k) for k in lam], lam, z)
        for key in self.carried:
            if key[0] == name:
                entries: list[Entry] = [("D", k, key[2]) if key[1] == "state" else ("r", k) for k in lam]
                sent[key] = delta if key[1] == "delta" else self._total(local, entries, lam, z)
        return delta

    def _total(self, local: Local, entries: list[Entry], lam: dict[str, Array], like: Array) -> Array:
        """Σ_k entry_k λs_k over the entries that are not identically zero."""
        parts = [times(local[entry], lam[entry[1]]) for entry in entries if entry in local]
        if not parts:
            return self.nx.full(like.shape, 0.0, self.nx.dtype(like))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
