"""Network: a graph with its parameters on one backend; what a user holds in hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters, get_backend, goes_by_name
from neko_rules.errors import ArgumentError, DataError, nearest
from neko_rules.layers.cell import Cell, CellOperations, Constants, backend_constants, namespace
from neko_rules.layers.forward import NetworkState, Trajectory, run
from neko_rules.layers.graph import Connection, Graph, Population
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.pooling import POOLINGS
from neko_rules.layers.protocol import NetworkProtocol
from neko_rules.ours import is_ours
from neko_rules.portable import Portable
from neko_rules.registry import Registry, create
from neko_rules.seeding import stream
from neko_rules.trees import OnHost, made, still

TASK_TYPES = ("classification", "regression")
DTYPES = ("float32", "float64")


class Network(Portable, NetworkProtocol):
    """Populations of neurons, the connections between them, and their weights, on one array library.

    Args:
        populations: name → Population (or a mapping of its arguments).
        connections: Connections (or mappings of their arguments); ``"input"`` is the data.
        output: name of the population that is read out.
        inputs: number of input features; found at the first data if left out.
        backend: ``"numpy"``, ``"torch"``, ``"tensorflow"``, ``"jax"``, another registered name, or a backend object.
        dtype: ``"float32"`` or ``"float64"``.
        task_type: ``"classification"`` or ``"regression"``: how targets are read.
        readout: outputs at every step (``"sequence"``), at the ``"last"``, their ``"mean"`` or their ``"max"``.
        dt: length of a time step in seconds.
        seed: of the first weights, which are the same on every backend.

    Example: two populations that feed back to each other.

        >>> network = Network(
        ...     populations={
        ...         "early": {"cell": "lif", "size": 8},
        ...         "late": {"cell": "alif", "size": 4},
        ...         "readout": {"cell": "leaky_readout", "size": 2},
        ...     },
        ...     connections=[
        ...         {"source": "input", "target": "early"},
        ...         {"source": "early", "target": "late"},
        ...         {"source": "late", "target": "early", "delay": 1},
        ...         {"source": "late", "target": "readout"},
        ...     ],
        ...     output="readout",
        ...     inputs=3,
        ... )
        >>> network.parameters["early.from_late.weight"].shape
        (4, 8)
    """

    def __init__(
        self,
        populations: Mapping[str, Population | Mapping[str, Any]],
        connections: Sequence[Connection | Mapping[str, Any]],
        output: str,
        *,
        inputs: int | None = None,
        backend: str | Backend = "numpy",
        dtype: str = "float32",
        task_type: str = "classification",
        readout: str = "sequence",
        dt: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if not isinstance(populations, Mapping):
            raise ArgumentError("populations must be a mapping from names", received=populations)
        if not isinstance(connections, Sequence) or isinstance(connections, str):
            raise ArgumentError("connections must be a list", received=connections)
        self.graph = Graph(
            {name: create(Population, value) for name, value in populations.items()},
            tuple(_seeded(create(Connection, value), seed) for value in connections),
            output,
        )
        self.nx = get_backend(backend)
        self.dtype = arguments.choice("dtype", dtype, DTYPES)
        self.task_type = arguments.choice("task_type", task_type, TASK_TYPES)
        self.readout = arguments.choice("readout", readout, POOLINGS)
        self.dt = arguments.number("dt", dt, above=0)
        self.seed = arguments.integer("seed", seed, at_least=0)
        self.weight_bits = 0
        self.inputs: int | None = None
        self.held: Parameters | OnHost = {}
        """The parameters as they lie, for the engine: backend arrays, or what these are made from when asked for."""
        self.constants: dict[str, Constants] = self._constants()
        self._check_spikes()
        if inputs is not None:
            self.build(inputs)

    offers: ClassVar[tuple[str, ...]] = ("cells", "nodes", "forward", "loss_gradient")

    @property
    def values(self) -> Parameters:
        """The parameters as backend arrays, which nothing changes in place."""
        return made(self.nx, self.held)

    @values.setter
    def values(self, values: Parameters) -> None:
        self.held = values

    def _constants(self) -> dict[str, Constants]:
        return {
            name: backend_constants(self.nx, self.graph.cell(name), population.size, self.dt, self.dtype, name)
            for name, population in self.graph.populations.items()
        }

    def _check_spikes(self) -> None:
        """Refuse a user's neuron that sends other numbers than 0 and 1, and does not say so."""
        for name, population in self.graph.populations.items():
            cell = self.graph.cell(name)
            if not cell.spiking or is_ours(cell) or type(cell).emit is Cell.emit:
                continue
            names, shape = cell.state_names(), (16, population.size)
            drawn = np.random.default_rng(0).uniform(-3, 3, (len(names), *shape))
            states = {key: self.nx.asarray(each, self.dtype) for key, each in zip(names, drawn, strict=True)}
            operations = CellOperations(self.nx, cell.surrogate)
            z = self.nx.to_numpy(cell.emit(operations, namespace(self.constants[name]), namespace(states)))
            if not np.isin(z, (0, 1)).all():
                raise ArgumentError(
                    f"{type(cell).__name__}, of {name}, sends other numbers than 0 and 1, as spikes are",
                    received=f"{z[~np.isin(z, (0, 1))][0]:g}",
                    works="say so in its class: spiking = False",
                )

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self.nx.name

    @property
    def built(self) -> bool:
        """Whether the number of input features is known and the weights exist."""
        return self.inputs is not None

    @property
    def outputs(self) -> int:
        """The number of output units."""
        return self.graph.populations[self.graph.output].size

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, which are known before they exist."""
        return tuple(self.graph.parameter_shapes(inputs=1))

    arrays = ("held",)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # Constants are made anew, and a backend goes by its name where it is the one of that name.
        del state["constants"]
        return state | {"nx": self.nx.name if goes_by_name(self.nx) else self.nx}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.nx = get_backend(self.nx)
        self.constants = self._constants()

    @property
    def layers(self) -> tuple[str, ...]:
        """The populations."""
        return self.graph.order

    @property
    def spiking(self) -> tuple[str, ...]:
        """The populations whose output is spikes."""
        return tuple(name for name in self.graph.order if self.graph.cell(name).spiking)

    @cached_property
    def jacobians(self) -> dict[str, Jacobians]:
        """The local derivatives of every population's cell."""
        return {name: Jacobians.of(self.graph.cell(name), self.dt) for name in self.graph.order}

    @cached_property
    def keeps_current(self) -> frozenset[str]:
        """The populations whose input current a backward pass needs."""
        return frozenset(name for name, jacobians in self.jacobians.items() if "current" in jacobians.arguments)

    @cached_property
    def spiking_once(self) -> frozenset[str]:
        """The populations whose step evaluates a single spike."""
        return frozenset(name for name, jacobians in self.jacobians.items() if jacobians.spikes == 1)

    @cached_property
    def learned(self) -> dict[str, tuple[str, str, float, float]]:
        """Learnable constants among the parameters: population, name in the equations, lowest and highest value."""
        found = {}
        for name in self.graph.order:
            cell = self.graph.cell(name)
            for argument in cell.learnable:
                each = cell.trainable[argument]
                found[f"{name}.{argument}"] = (name, each.constant, each.lowest, each.highest)
        return found

    def constants_with(self, parameters: Parameters) -> dict[str, Constants]:
        """The constants of every population, the learned ones taken from the parameters."""
        if not self.learned:
            return self.constants
        found = {name: dict(values) for name, values in self.constants.items()}
        for parameter, (name, constant, _, _) in self.learned.items():
            found[name][constant] = parameters[parameter]
        return found

    def within_bounds(self, parameters: Parameters) -> Parameters:
        """The parameters with every learned constant brought back into its range."""
        bounded = dict(parameters)
        for name, (_, _, lowest, highest) in self.learned.items():
            value = self.nx.maximum(bounded[name], lowest)
            bounded[name] = self.nx.minimum(value, highest) if highest < np.inf else value
        return bounded

    def build(self, inputs: int) -> None:
        """Draw the first weights for a number of input features; does nothing if they exist for that number.

        Raises:
            ArgumentError: the number is not a whole number of at least 1.
            DataError: the network was built for another number of features.
        """
        if type(inputs) is int and inputs == self.inputs:
            return
        inputs = arguments.integer("inputs", inputs, at_least=1)
        if self.inputs == inputs:
            return
        if self.inputs is not None:
            raise DataError(f"this network takes {self.inputs} input features", received=f"{inputs} features")
        drawn: Parameters = {}
        connections = {connection.weight: connection for connection in self.graph.connections}
        for name, shape in self.graph.parameter_shapes(inputs).items():
            if name in connections:
                connection = connections[name]
                value = connection.drawn(stream(self.seed, name), *self.graph.ends(connection, inputs))
            elif name in self.learned:
                population, constant = self.learned[name][:2]
                value = np.broadcast_to(self.nx.to_numpy(self.constants[population][constant]), shape).copy()
            else:
                value = np.zeros(shape)
            drawn[name] = self.nx.asarray(value, self.dtype)
        self.inputs, self.values = inputs, drawn

    @property
    def synapses(self) -> dict[str, np.ndarray]:
        """Where there is a synapse: bool [source, target] of every connection, by the name of its weight.

        Example:
            >>> from neko_rules import LIF
            >>> network = LIF(100, 2, inputs=50, recurrent_connectivity=0.2)
            >>> {name: round(float(mask.mean()), 2) for name, mask in network.synapses.items()}
            {'hidden.input.weight': 1.0, 'hidden.recurrent.weight': 0.2, 'readout.input.weight': 1.0}
        """
        self.require_built()
        return {c.weight: c.synapses(*self.graph.ends(c, self.inputs or 0)) for c in self.graph.connections}

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Take over parameters by name (all or some of them), converted to this network's type.

        Raises:
            ArgumentError: a name is unknown, a shape differs, a value is no number, NaN or infinite, or out of
                the range of the learned constant that it is for.
        """
        self.require_built()
        checked = {}
        for name, value in parameters.items():
            if name not in self.values:
                raise ArgumentError("unknown parameter", received=name, works=nearest(name, self.values))
            array = np.asarray(value)
            shape = tuple(self.values[name].shape)
            if array.shape != shape:
                raise ArgumentError(f"{name} must have shape {shape}", received=array.shape)
            if array.dtype.kind not in "iufb":
                raise ArgumentError(f"{name} must hold numbers", received=f"an array of type {array.dtype}")
            with np.errstate(over="ignore"):
                array = array.astype(self.dtype)
            if not np.isfinite(array).all():
                raise ArgumentError(f"{name} must be finite in {self.dtype}", received="NaN or infinite values")
            self._check_range(name, array)
            # A copy: what the caller does to the array afterwards must not reach the network.
            checked[name] = self.nx.asarray(np.array(array, self.dtype))
        self.values = {**self.values, **checked}

    def _check_range(self, name: str, array: np.ndarray) -> None:
        """Refuse values of a learned constant that its neurons cannot have."""
        if name not in self.learned:
            return
        lowest, highest = (np.asarray(bound, array.dtype) for bound in self.learned[name][2:])
        if (array < lowest).any() or (array > highest).any():
            raise ArgumentError(
                f"{name} must lie within {lowest:g} and {highest:g}", received=f"{array.min():g} to {array.max():g}"
            )

    def forward(
        self,
        parameters: Parameters,
        inputs: Array,
        start: NetworkState | None = None,
        extra_current: dict[str, Array] | None = None,
        keep_slopes: bool = False,
        lean: frozenset[str] = frozenset(),
    ) -> Trajectory:
        """Run over inputs [time, batch, feature] with the given parameters (backend arrays), from rest by default.

        A population that ``extra_current`` names receives that current [time, batch, neuron] besides its own. With
        ``keep_slopes`` ψ of every spike is recorded, for a backward pass that then needs fewer histories of states;
        of the populations in ``lean`` nothing else has to be kept but when they fired.
        """
        return run(
            self.nx,
            self.graph,
            self.constants_with(parameters),
            parameters,
            inputs,
            keep_current=self.keeps_current,
            keep_slope=self.spiking_once if keep_slopes else frozenset(),
            lean=lean,
            start=start,
            extra_current=extra_current,
        )

    def clone(self) -> Self:
        """The same network with the same weights, to be trained on its own."""
        twin = copy.copy(self)
        twin.held = still(self.nx, self.held)
        return twin

    def on(self, backend: str | Backend) -> Self:
        """The same network with the same weights on another backend, to be trained on its own.

        Args:
            backend: as for the constructor.

        Example:
            >>> from neko_rules import LIF
            >>> network = LIF(8, 2, inputs=3)
            >>> moved = network.on("torch")
            >>> moved.backend, bool((moved.parameters["hidden.bias"] == network.parameters["hidden.bias"]).all())
            ('torch', True)
        """
        twin = self.clone()
        twin.nx = get_backend(backend)

        def moved(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: twin.nx.asarray(self.nx.to_numpy(array)) for name, array in arrays.items()}

        twin.constants = {name: moved(of) for name, of in self.constants.items()}
        twin.values = moved(self.values)
        return twin

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {p.size}" for name, p in self.graph.populations.items())
        return f"{type(self).__name__}({sizes}; {self.backend}, {self.dtype})"


def _seeded(connection: Connection, seed: int) -> Connection:
    """A connection whose synapses are drawn from the seed of the network, if it has none of its own."""
    if connection.complete or connection.connectivity_seed is not None:
        return connection
    return replace(connection, connectivity_seed=arguments.integer("seed", seed, at_least=0))


MODELS: Registry[Network] = Registry("model", Network)
MODELS.register("network")(Network)
