"""Forward pass: a network run over a batch of sequences, with everything that a learning rule may want to see kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neko_rules.backend import Array, Arrays, Backend, Parameters, shift_later
from neko_rules.layers.cell import CellOperations, Constants, namespace
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name

Z = "z"
"""The output of a population, as opposed to one of its states."""

Signals = dict[tuple[str, str], Array]
"""∂E/∂ of what a population did, from outside of the recursion through time: by population and ``"z"`` or a state."""


def add_signals(signals: Signals, parts: Signals) -> Signals:
    """The sum of two sets of signals."""
    total = dict(signals)
    for key, part in parts.items():
        total[key] = total[key] + part if key in total else part
    return total


@dataclass(frozen=True)
class Record:
    """What one population did: histories [time, batch, neuron].

    Args:
        states: each state variable.
        z: the output, spikes for spiking cells.
        current: the input current, kept only for cells whose derivatives depend on it.
    """

    states: dict[str, Array]
    z: Array
    current: Array | None

    def history(self, nx: Backend, name: str) -> Array:
        """A history by the name that ``Jacobians`` uses: ``v``, ``previous_v``, ``previous_z``, ``current``."""
        if name == "current":
            return self.current
        if not name.startswith("previous_"):
            return self.states[name]
        name = name.removeprefix("previous_")
        return shift_later(nx, self.z if name == "z" else self.states[name])


@dataclass(frozen=True)
class Trajectory:
    """A forward pass: the input [time, batch, feature] and the record of every population.

    Args:
        inputs: the data, time-major.
        records: population name → Record.
    """

    inputs: Array
    records: dict[str, Record]

    def z(self, name: str) -> Array:
        """What a population, or the input, sends: [time, batch, neuron]."""
        return self.inputs if name == INPUT else self.records[name].z

    def sent(self, nx: Backend, connection: Connection) -> Array:
        """What a connection delivers at each step: z_t, or z_{t-1} if it is delayed."""
        z = self.z(connection.source)
        return shift_later(nx, z) if connection.delay else z


def effective_weight(nx: Backend, connection: Connection, parameters: Parameters) -> Array:
    """The weights of a connection, with a zero diagonal where autapses are excluded."""
    weight = parameters[connection.weight]
    return without_diagonal(nx, weight) if connection.masked else weight


def without_diagonal(nx: Backend, matrix: Array) -> Array:
    """A square matrix with its diagonal set to zero."""
    return matrix * (1 - nx.eye(matrix.shape[0], nx.dtype(matrix)))


def project(nx: Backend, z: Array, weight: Array) -> Array:
    """[time, batch, pre] times [pre, post] for all time steps in one matrix product."""
    steps, batch, pre = z.shape
    return nx.reshape(nx.matmul(nx.reshape(z, (steps * batch, pre)), weight), (steps, batch, weight.shape[1]))


def run(
    nx: Backend,
    graph: Graph,
    constants: dict[str, Constants],
    parameters: Parameters,
    inputs: Array,
    *,
    keep_current: frozenset[str] = frozenset(),
    differentiable: bool = False,
    detach_delayed: bool = False,
    extra_current: dict[str, Array] | None = None,
) -> Trajectory:
    """Run a network from rest.

    Args:
        nx: backend.
        graph: the network.
        constants: population name → its cell's constants.
        parameters: name → array.
        inputs: [time, batch, feature].
        keep_current: populations whose input current is recorded.
        differentiable: spikes carry their surrogate derivative for automatic differentiation.
        detach_delayed: delayed connections deliver spikes without a gradient (with one hidden layer, automatic
            differentiation then gives e-prop's gradient).
        extra_current: population name → a current that is added to its input, [time, batch, neuron].
    """
    trajectory = Trajectory(inputs, {})
    extra = extra_current or {}
    for component in graph.components:
        outside = {name: _outside_current(nx, graph, parameters, trajectory, name, component) for name in component}
        outside = {name: current + extra[name] if name in extra else current for name, current in outside.items()}
        operations = {
            name: CellOperations(nx, graph.cell(name).surrogate, differentiable)  # type: ignore[arg-type]
            for name in component
        }
        stepper = _ComponentRun(nx, graph, constants, parameters, component, operations, keep_current, detach_delayed)
        trajectory.records.update(stepper.run(outside))
    return trajectory


def _outside_current(
    nx: Backend, graph: Graph, parameters: Parameters, trajectory: Trajectory, name: str, component: tuple[str, ...]
) -> Array:
    """Σ z W + b over the connections from outside the component, for all time steps: [time, batch, neuron]."""
    steps, batch, _ = trajectory.inputs.shape
    size = graph.populations[name].size
    current: Any = None
    for connection in graph.into(name):
        if connection.source not in component:
            part = project(nx, trajectory.sent(nx, connection), effective_weight(nx, connection, parameters))
            current = part if current is None else current + part
    if graph.populations[name].bias:
        bias = parameters[bias_name(name)]
        current = nx.broadcast_to(bias, (steps, batch, size)) if current is None else current + bias
    return nx.full((steps, batch, size), 0.0, nx.dtype(trajectory.inputs)) if current is None else current


class _ComponentRun:
    """One component stepped through time: its populations' states and outputs are the carry of a scan."""

    def __init__(
        self,
        nx: Backend,
        graph: Graph,
        constants: dict[str, Constants],
        parameters: Parameters,
        component: tuple[str, ...],
        operations: dict[str, CellOperations],
        keep_current: frozenset[str],
        detach_delayed: bool,
    ) -> None:
        self.nx = nx
        self.component = component
        self.operations = operations
        self.keep_current = tuple(name for name in component if name in keep_current)
        self.detach_delayed = detach_delayed
        self.cells = {name: graph.cell(name) for name in component}
        self.constants = {name: namespace(constants[name]) for name in component}
        self.incoming = {
            name: [
                (connection, effective_weight(nx, connection, parameters))
                for connection in graph.within(component)
                if connection.target == name
            ]
            for name in component
        }

    def run(self, outside: dict[str, Array]) -> dict[str, Record]:
        """Step through all time steps, given the current from outside the component."""
        steps, batch, _ = outside[self.component[0]].shape
        dtype = self.nx.dtype(outside[self.component[0]])
        carry = []
        for name in self.component:
            zero = self.nx.full((batch, outside[name].shape[-1]), 0.0, dtype)
            carry += [zero] * (len(self.cells[name].state_names()) + 1)
        currents = tuple(outside[name] for name in self.component)
        _, histories = self.nx.scan(self._step, tuple(carry), currents, steps)
        return self._records(histories)

    def _step(self, carry: Arrays, currents: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        states, z_before = self._unpacked(carry)
        z_now: dict[str, Array] = {}
        after: list[Array] = []
        received: dict[str, Array] = {}
        for name, current in zip(self.component, currents, strict=True):
            for connection, weight in self.incoming[name]:
                sent = z_before[connection.source] if connection.delay else z_now[connection.source]
                if connection.delay and self.detach_delayed:
                    sent = self.nx.stop_gradient(sent)
                current = current + self.nx.matmul(sent, weight)
            cell, nx, p = self.cells[name], self.operations[name], self.constants[name]
            state = cell.update(nx, p, namespace(states[name]), z_before[name], current)
            z_now[name] = cell.emit(nx, p, namespace(state))
            after += [*(state[key] for key in cell.state_names()), z_now[name]]
            received[name] = current
        return tuple(after), (*after, *(received[name] for name in self.keep_current))

    def _unpacked(self, flat: Arrays) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
        """States and outputs by population from the flat carry, or its history."""
        states, z, place = {}, {}, 0
        for name in self.component:
            keys = self.cells[name].state_names()
            states[name] = dict(zip(keys, flat[place:], strict=False))
            z[name] = flat[place + len(keys)]
            place += len(keys) + 1
        return states, z

    def _records(self, histories: Arrays) -> dict[str, Record]:
        states, z = self._unpacked(histories)
        kept = dict(zip(self.keep_current, histories[len(histories) - len(self.keep_current) :], strict=True))
        return {name: Record(states[name], z[name], kept.get(name)) for name in self.component}
