"""Moment: one time step of a whole network, for rules that go along with it."""

from __future__ import annotations

from dataclasses import dataclass

from neko_rules.backend import Array, Backend, Parameters, shift_later
from neko_rules.layers.cell import CellOperations, Constants, namespace
from neko_rules.layers.forward import NetworkState, Trajectory, Z, arriving, stepped
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name


@dataclass(frozen=True)
class Moment:
    """One time step of a network.

    Args:
        before: the network after the step before.
        after: the network after this step.
        currents: the input current of the populations for which it is wanted.
    """

    before: NetworkState
    after: NetworkState
    currents: dict[str, Array]

    def value(self, population: str, name: str) -> Array:
        """A number by the name that ``Jacobians`` uses: ``v``, ``previous_v``, ``previous_z``, ``current``."""
        if name == "current":
            return self.currents[population]
        if name.startswith("previous_"):
            return self.before[population][name.removeprefix("previous_")]
        return self.after[population][name]

    def sent(self, connection: Connection) -> Array:
        """What a connection delivers in this step: z_t, or z_{t-1} if it is delayed."""
        return (self.before if connection.delay else self.after)[connection.source][Z]


def at_rest(nx: Backend, graph: Graph, batch: int, inputs: int, dtype: str) -> NetworkState:
    """A network before its first time step: everything is zero."""
    state: NetworkState = {}
    for name in (INPUT, *graph.order):
        keys = () if name == INPUT else graph.cell(name).state_names()
        zero = nx.full((batch, graph.size(name, inputs)), 0.0, dtype)
        state[name] = dict.fromkeys((*keys, Z), zero)
    return state


def advance(
    nx: Backend,
    graph: Graph,
    constants: dict[str, Constants],
    parameters: Parameters,
    state: NetworkState,
    x: Array,
    keep_current: frozenset[str] = frozenset(),
) -> Moment:
    """One time step of a whole network under inputs x [batch, feature]; the same numbers as ``run`` gives.

    Args:
        nx: backend.
        graph: the network.
        constants: population name → its cell's constants.
        parameters: name → array.
        state: the network after the step before.
        x: the input of this step.
        keep_current: populations whose input current is recorded.
    """
    after: NetworkState = {INPUT: {Z: x}}
    currents = {}
    for name in graph.order:
        cell = graph.cell(name)
        operations = CellOperations(nx, cell.surrogate)  # type: ignore[arg-type]
        parts = []
        for connection in graph.into(name):
            sent = (state if connection.delay else after)[connection.source][Z]
            parts.append(arriving(nx, connection, sent, parameters))
        if graph.populations[name].bias:
            parts.append(parameters[bias_name(name)])
        before = state[name]
        current = nx.broadcast_to(sum(parts[1:], parts[0]), before[Z].shape) if parts else 0.0 * before[Z]
        states = {key: before[key] for key in cell.state_names()}
        states, z = stepped(cell, operations, namespace(constants[name]), states, before[Z], current)
        after[name] = {**states, Z: z}
        if name in keep_current:
            currents[name] = current
    return Moment(state, after, currents)


def moments(nx: Backend, trajectory: Trajectory) -> Moment:
    """A whole forward pass as one Moment whose arrays have a first axis of time."""
    after: NetworkState = {INPUT: {Z: trajectory.inputs}}
    currents = {}
    for name, record in trajectory.records.items():
        after[name] = {**record.states, Z: record.z}
        if record.current is not None:
            currents[name] = record.current
    before = {name: {key: shift_later(nx, value) for key, value in values.items()} for name, values in after.items()}
    return Moment(before, after, currents)
