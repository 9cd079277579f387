"""Forward pass: a network run over a batch of sequences, with everything that a learning rule may want to see kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from neko_rules.backend import Array, Arrays, Backend, Parameters, shift_later
from neko_rules.kernels.dense import multiplied
from neko_rules.kernels.events import Events, listed
from neko_rules.kernels.host import HostBackend, contiguous, host_of
from neko_rules.kernels.triton import on_gpu
from neko_rules.layers import on_gpu as on_gpu_loops
from neko_rules.layers.cell import Cell, CellOperations, Constants, SlopeKeeping, namespace
from neko_rules.layers.fused import Given, step_through
from neko_rules.layers.graph import INPUT, Connection, Graph, bias_name
from neko_rules.layers.jacobians import SLOPE, Jacobians

Z = "z"
"""The output of a population, as opposed to one of its states."""

NetworkState = dict[str, dict[str, Array]]
"""What a network carries from one time step to the next: for every population its states and ``"z"``, and for the input
its last values as ``"z"``; all [batch, neuron]."""

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
        start: every state and ``"z"`` before the first step, [batch, neuron]; None where they are zero.
        slope: ψ of the spike, kept where it was asked for.
        factors: what was made of it on the way to a gradient, by name.
    """

    states: dict[str, Array]
    z: Array
    current: Array | None
    start: dict[str, Array] | None = None
    slope: Array | None = None
    factors: Mapping[str, Array] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, batch, neuron)."""
        return self.z.shape

    def derivatives(self, jacobians: Jacobians) -> Jacobians:
        """The derivatives of the population's cell, made of ψ if that was recorded."""
        return jacobians if self.slope is None else jacobians.with_slope or jacobians

    def with_factors(self, factors: Mapping[str, Array]) -> Record:
        """The same with histories of factors."""
        other = copy.copy(self)
        object.__setattr__(other, "factors", factors)
        return other

    @classmethod
    def of(cls, histories: Mapping[str, Array]) -> Record:
        """A record, from rest, of histories by the names that ``history`` knows; an output is one of them."""
        states = {name: each for name, each in histories.items() if name not in (Z, "current", SLOPE)}
        return cls(states, histories[Z], histories.get("current"), slope=histories.get(SLOPE))

    def history(self, nx: Backend, name: str) -> Array:
        """A history by its name in ``Jacobians``: ``v``, ``previous_v``, ``current``, ``slope``; ``z``; a factor's."""
        if name == "current":
            return self.current
        if name == SLOPE:
            return self.slope
        if name in self.factors:
            return self.factors[name]
        if name.startswith("previous_"):
            name = name.removeprefix("previous_")
            return after_start(nx, self.start, name, self.history(nx, name))
        return self.z if name == Z else self.states[name]


class LeanRecord(Record):
    """A record of the events and of ψ alone; the output is made of its events once somebody looks at it.

    It has no states: a network does not go on from its end, and ``dataclasses.replace`` makes no other of it.

    Args:
        host: the backend.
        events: where the population fired.
        start: as in ``Record``.
        slope: as in ``Record``.
    """

    def __init__(self, host: HostBackend, events: Events, start: dict[str, Array] | None, slope: np.ndarray) -> None:
        found = {"states": {}, "current": None, "start": start, "slope": host.from_host(slope), "factors": {}}
        for name, value in {**found, "_host": host, "_events": events, "_dtype": slope.dtype}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def z(self) -> Array:
        """Spikes [time, batch, neuron]."""
        host: HostBackend = self.__dict__["_host"]
        return host.from_host(self.__dict__["_events"].dense(self.__dict__["_dtype"]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, batch, neuron)."""
        return self.slope.shape  # type: ignore[union-attr]


@dataclass(frozen=True)
class Trajectory:
    """A forward pass: the input [time, batch, feature] and the record of every population.

    Args:
        inputs: the data, time-major.
        records: population name → Record.
        start: the network before the first step; None where it is at rest.
        events: where the input and what a compiled loop stepped are not zero, of those that a population receives from.
    """

    inputs: Array
    records: dict[str, Record]
    start: NetworkState | None = None
    events: dict[str, Events] = field(default_factory=dict)

    def z(self, name: str) -> Array:
        """What a population, or the input, sends: [time, batch, neuron]."""
        return self.inputs if name == INPUT else self.records[name].z

    def sent(self, nx: Backend, connection: Connection) -> Array:
        """What a connection delivers at each step: z_t, or z_{t-1} if it is delayed."""
        z = self.z(connection.source)
        if not connection.delay:
            return z
        return after_start(nx, None if self.start is None else self.start[connection.source], Z, z)

    def end(self) -> NetworkState:
        """The network after the last step."""
        assert not any(isinstance(record, LeanRecord) for record in self.records.values()), "states were kept"
        states = {name: {**record.states, Z: record.z} for name, record in self.records.items()}
        return {
            name: {key: value[-1] for key, value in values.items()}
            for name, values in {INPUT: {Z: self.inputs}, **states}.items()
        }


def after_start(nx: Backend, start: dict[str, Array] | None, name: str, history: Array) -> Array:
    """``history[t - 1]`` at every ``t``, with what was before the first step at ``t = 0``."""
    if start is None:
        return shift_later(nx, history)
    return nx.concat([nx.expand_dims(start[name], 0), history[:-1]], 0)


def effective_weight(nx: Backend, connection: Connection, parameters: Parameters) -> Array:
    """The weights of a connection [source, target], zero where there is no synapse."""
    return spread(nx, connection, connected(nx, connection, parameters[connection.weight]))


def spread(nx: Backend, connection: Connection, weights: Array) -> Array:
    """The matrix [source, target] of weights in the shape of the parameter: the same, or those that are shared."""
    return connection.sharing.spread(nx, weights) if connection.shares else weights


def by_parameter(nx: Backend, connection: Connection, gradient: Array) -> Array:
    """Of a derivative by the matrix [source, target] that by the parameter: of synapses, summed where they share."""
    return connection.sharing.gathered(nx, gradient) if connection.shares else connected(nx, connection, gradient)


def connected(nx: Backend, connection: Connection, matrix: Array) -> Array:
    """A matrix in the shape of the parameter, of weights or a gradient, set to zero where it has to stay zero."""
    if not connection.partial:
        return matrix
    host = host_of(nx)
    if host is not None:
        found = host.host(matrix)
        if connection.is_clear(found):
            return matrix
        copy = np.array(found, order="C")
        connection.clear(copy)
        return host.from_host(copy)
    if connection.complete:
        return matrix * (1 - nx.eye(matrix.shape[0], nx.dtype(matrix)))
    return matrix * nx.asarray(connection.synapses(*matrix.shape), nx.dtype(matrix))


def arriving(nx: Backend, connection: Connection, sent: Array, parameters: Parameters) -> Array:
    """What arrives of what a connection sends, [time, batch, source] or [batch, source]."""
    patches = connection.patches
    if patches is not None and connection.converters is None and patches.pay:
        rows = nx.reshape(sent, (math.prod(sent.shape[:-1]), sent.shape[-1]))
        product = patches.product(nx, rows, parameters[connection.weight])
        return nx.reshape(product, (*sent.shape[:-1], product.shape[-1]))
    weight = effective_weight(nx, connection, parameters)
    product = nx.matmul(sent, weight) if len(sent.shape) == 2 else project(nx, sent, weight)
    return connection.current(nx, sent, weight, product)


def worth_walking(connection: Connection, events: Events) -> bool:
    """Whether a connection is faster from the events of its source than from all that it sends."""
    patches = connection.patches
    return events.sparse and (patches is None or not patches.beat_events(events.density))


def project(nx: Backend, z: Array, weight: Array) -> Array:
    """[time, batch, pre] times [pre, post] for all time steps in one matrix product."""
    steps, batch, pre = z.shape
    return nx.reshape(multiplied(nx, nx.reshape(z, (steps * batch, pre)), weight), (steps, batch, weight.shape[1]))


def run(
    nx: Backend,
    graph: Graph,
    constants: dict[str, Constants],
    parameters: Parameters,
    inputs: Array,
    *,
    keep_current: frozenset[str] = frozenset(),
    keep_slope: frozenset[str] = frozenset(),
    lean: frozenset[str] = frozenset(),
    differentiable: bool = False,
    detach_delayed: bool = False,
    start: NetworkState | None = None,
    extra_current: dict[str, Array] | None = None,
) -> Trajectory:
    """Run a network over a batch of sequences.

    Args:
        nx: backend.
        graph: the network.
        constants: population name → its cell's constants.
        parameters: name → array.
        inputs: [time, batch, feature].
        keep_current: populations whose input current is recorded.
        keep_slope: populations of a single spike whose ψ is recorded where no compiled loop of ours steps them.
        lean: those of which a compiled loop in host memory records ψ in the place of states and output.
        differentiable: spikes carry their surrogate derivative for automatic differentiation.
        detach_delayed: delayed connections deliver spikes without a gradient (with one hidden layer, automatic
            differentiation then gives e-prop's gradient).
        start: the network before the first step; at rest if left out.
        extra_current: population name → a current that is added to its input, [time, batch, neuron].
    """
    trajectory = Trajectory(inputs, {}, start)
    extra = extra_current or {}
    compiled = _Compiled(nx, graph, parameters, trajectory, keep_current, lean)
    fusing = not differentiable and not detach_delayed and compiled.begin()
    for component in graph.components:
        if fusing and compiled.records(component, constants, extra):
            continue
        outside = {name: _outside_current(nx, graph, parameters, trajectory, name, component) for name in component}
        outside = {name: current + extra[name] if name in extra else current for name, current in outside.items()}
        operations = {
            name: CellOperations(nx, graph.cell(name).surrogate, differentiable)  # type: ignore[arg-type]
            for name in component
        }
        kept = keep_current, keep_slope
        stepper = _ComponentRun(nx, graph, constants, parameters, component, operations, kept, detach_delayed)
        trajectory.records.update(stepper.run(outside, start))
    return trajectory


class _Population(NamedTuple):
    """What a compiled loop needs of one population.

    Attributes:
        name: of the population.
        constants: of its cell.
        extra: a current that is added to its input, [time, batch, neuron].
        own: its connections with itself.
        start: every state and ``"z"`` before the first step; None where they are zero.
    """

    name: str
    constants: Constants
    extra: Array | None
    own: list[Connection]
    start: dict[str, Array] | None


class _Compiled(NamedTuple):
    """Populations stepped through time by compiled loops, in host memory or on a GPU.

    Args:
        nx, graph, parameters, trajectory, keep_current, lean: as in ``run``.
    """

    nx: Backend
    graph: Graph
    parameters: Parameters
    trajectory: Trajectory
    keep_current: frozenset[str]
    lean: frozenset[str]

    def begin(self) -> bool:
        """Whether there are loops for this backend; looks for the events of the input where they can be walked."""
        host = host_of(self.nx)
        if host is None:
            return on_gpu(self.nx)
        self.trajectory.events[INPUT] = listed(contiguous(host.host(self.trajectory.inputs)))
        return True

    def records(self, component: tuple[str, ...], constants: dict[str, Constants], extra: Mapping[str, Array]) -> bool:
        """Step a component, and keep what it does; False where it has no loop, or what feeds back is converted."""
        inner = self.graph.within(component)
        if any(connection.converters is not None for connection in inner):
            return False
        host = host_of(self.nx)
        if host is not None:
            return self._fused(host, component, constants, extra)
        if len(component) > 1:
            return False
        (name,) = component
        start = None if self.trajectory.start is None else self.trajectory.start[name]
        record = self._launched(_Population(name, constants[name], extra.get(name), inner, start))
        if record is not None:
            self.trajectory.records[name] = record
        return record is not None

    def _fused(
        self,
        host: HostBackend,
        component: tuple[str, ...],
        constants: dict[str, Constants],
        extra: Mapping[str, Array],
    ) -> bool:
        trajectory = self.trajectory
        steps, batch, _ = trajectory.inputs.shape
        given = [self._given(host, name, component, constants[name], extra.get(name)) for name in component]
        dtype = self.nx.dtype(trajectory.inputs)
        stepped = step_through(given, steps, batch, dtype)
        if stepped is None and any(one.lean for one in given):
            # It may be the surrogate's derivative alone that has no scalar form.
            stepped = step_through([one._replace(lean=False) for one in given], steps, batch, dtype)
        if stepped is None:
            return False
        for name, done in zip(component, stepped, strict=True):
            if done.events is not None:
                trajectory.events[name] = done.events
            start = None if trajectory.start is None else trajectory.start[name]
            if done.z is None:
                assert done.slope is not None, "ψ is recorded then"
                assert done.events is not None, "and so are the events"
                trajectory.records[name] = LeanRecord(host, done.events, start, done.slope)
                continue
            states = {key: host.from_host(value) for key, value in done.states.items()}
            received = None if done.current is None else host.from_host(done.current)
            trajectory.records[name] = Record(states, host.from_host(done.z), received, start)
        return True

    def _given(
        self, host: HostBackend, name: str, component: tuple[str, ...], constants: Constants, extra: Array | None
    ) -> Given:
        """A population of a component with what it receives, and from whom."""
        nx, graph, parameters, trajectory = self.nx, self.graph, self.parameters, self.trajectory
        held: Callable[[Array], np.ndarray] = host.host

        def walked(connection: Connection) -> bool:
            events = trajectory.events.get(connection.source)
            plain = not connection.delay and connection.converters is None
            return plain and events is not None and worth_walking(connection, events)

        dense: list[Connection] = []
        gathered: list[tuple[np.ndarray, Events]] = []
        inner: dict[tuple[int, bool], np.ndarray] = {}
        for connection in graph.into(name):
            if connection.source in component:
                key = (component.index(connection.source), bool(connection.delay))
                weight = held(effective_weight(nx, connection, parameters))
                inner[key] = weight + inner[key] if key in inner else weight
            elif walked(connection):
                gathered.append(
                    (held(effective_weight(nx, connection, parameters)), trajectory.events[connection.source])
                )
            else:
                dense.append(connection)
        current = _delivered(nx, parameters, trajectory, dense, extra)
        start = None if trajectory.start is None else trajectory.start[name]
        lean = name in self.lean - self.keep_current
        return Given(
            graph.cell(name),
            graph.populations[name].size,
            {key: held(value) for key, value in constants.items()},
            bias=held(parameters[bias_name(name)]) if graph.populations[name].bias else None,
            outside=None if current is None else held(current),
            gathered=gathered,
            inner=inner,
            start=None if start is None else {key: held(value) for key, value in start.items()},
            keep_current=name in self.keep_current,
            lean=lean,
            listed=lean or name in graph.senders,
        )

    def _launched(self, population: _Population) -> Record | None:
        name, constants, extra, own, start = population
        nx, graph, parameters = self.nx, self.graph, self.parameters
        # A sum is memory of its own, which the kernels may write to.
        outside = _outside_current(nx, graph, parameters, self.trajectory, name, (name,))
        current = outside + (0.0 if extra is None else extra)
        current = current + parameters[bias_name(name)] if graph.populations[name].bias else current
        recurrent = sum(effective_weight(nx, connection, parameters) for connection in own) if own else None
        stepped = on_gpu_loops.step_through(nx, graph.cell(name), constants, current, recurrent, start)
        if stepped is None:
            return None
        states, z, received = stepped
        return Record(states, z, received if name in self.keep_current else None, start)


def _delivered(
    nx: Backend,
    parameters: Parameters,
    trajectory: Trajectory,
    connections: Iterable[Connection],
    current: Array | None = None,
) -> Array | None:
    """Σ z W over connections for all time steps, [time, batch, neuron], added to a current; None if there is none."""
    for connection in connections:
        part = arriving(nx, connection, trajectory.sent(nx, connection), parameters)
        current = part if current is None else current + part
    return current


def _outside_current(
    nx: Backend, graph: Graph, parameters: Parameters, trajectory: Trajectory, name: str, component: tuple[str, ...]
) -> Array:
    """Σ z W over the connections from outside the component, for all time steps: [time, batch, neuron]."""
    steps, batch, _ = trajectory.inputs.shape
    outside = [connection for connection in graph.into(name) if connection.source not in component]
    current = _delivered(nx, parameters, trajectory, outside)
    if current is None:
        return nx.full((steps, batch, graph.populations[name].size), 0.0, nx.dtype(trajectory.inputs))
    return current


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
        kept: tuple[frozenset[str], frozenset[str]],
        detach_delayed: bool,
    ) -> None:
        keep_current, keep_slope = kept
        self.nx = nx
        self.component = component
        self.operations = operations
        self.keep_current = tuple(name for name in component if name in keep_current)
        self.keep_slope = tuple(name for name in component if name in keep_slope)
        self.detach_delayed = detach_delayed
        # Added within the scan, where it costs nothing: before it, it would be one more pass over all time steps.
        self.bias = {name: parameters[bias_name(name)] for name in component if graph.populations[name].bias}
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

    def run(self, outside: dict[str, Array], start: NetworkState | None) -> dict[str, Record]:
        """Step through all time steps, given the current from outside the component."""
        steps, batch, _ = outside[self.component[0]].shape
        dtype = self.nx.dtype(outside[self.component[0]])
        carry = []
        for name in self.component:
            zero = self.nx.full((batch, outside[name].shape[-1]), 0.0, dtype)
            keys = (*self.cells[name].state_names(), Z)
            carry += [zero if start is None else start[name][key] for key in keys]
        currents = tuple(outside[name] for name in self.component)
        _, histories = self.nx.scan(self._step, tuple(carry), currents, steps)
        return self._records(histories, start)

    def _step(self, carry: Arrays, currents: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        states, z_before = self._unpacked(carry)
        z_now: dict[str, Array] = {}
        after: list[Array] = []
        received: dict[str, Array] = {}
        slopes: dict[str, Array] = {}
        for name, current in zip(self.component, currents, strict=True):
            if name in self.bias:
                current = current + self.bias[name]
            for connection, weight in self.incoming[name]:
                sent = z_before[connection.source] if connection.delay else z_now[connection.source]
                if connection.delay and self.detach_delayed:
                    sent = self.nx.stop_gradient(sent)
                current = current + connection.current(self.nx, sent, weight, self.nx.matmul(sent, weight))
            cell = self.cells[name]
            operations = self.operations[name]
            if name in self.keep_slope:
                operations = SlopeKeeping(self.nx, operations.surrogate)
            state, z_now[name] = stepped(cell, operations, self.constants[name], states[name], z_before[name], current)
            if isinstance(operations, SlopeKeeping):
                slopes[name] = operations.slopes[-1]
            after += [*(state[key] for key in cell.state_names()), z_now[name]]
            received[name] = current
        kept = (*(received[name] for name in self.keep_current), *(slopes[name] for name in self.keep_slope))
        return tuple(after), (*after, *kept)

    def _unpacked(self, flat: Arrays) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
        """States and outputs by population from the flat carry, or its history."""
        states, z, place = {}, {}, 0
        for name in self.component:
            keys = self.cells[name].state_names()
            states[name] = dict(zip(keys, flat[place:], strict=False))
            z[name] = flat[place + len(keys)]
            place += len(keys) + 1
        return states, z

    def _records(self, histories: Arrays, start: NetworkState | None) -> dict[str, Record]:
        states, z = self._unpacked(histories)
        last = iter(histories[len(histories) - len(self.keep_current) - len(self.keep_slope) :])
        currents = {name: next(last) for name in self.keep_current}
        slopes = {name: next(last) for name in self.keep_slope}
        return {
            name: Record(
                states[name], z[name], currents.get(name), None if start is None else start[name], slopes.get(name)
            )
            for name in self.component
        }


def stepped(
    cell: Cell, operations: CellOperations, p: SimpleNamespace, states: dict[str, Array], z: Array, current: Array
) -> tuple[dict[str, Array], Array]:
    """s_t and z_t of one population."""
    after = cell.update(operations, p, namespace(states), z, current)
    return after, cell.emit(operations, p, namespace(after))
