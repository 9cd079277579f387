"""Graph: a network as populations of neurons and the connections between them.

Feed-forward connections (``delay=0``) act in the same time step and may not form a cycle; delayed connections
(``delay=1``: recurrent, or feeding back to an earlier population) act one step later and may. A graph is split into
components: populations that feed back to each other have to be stepped through time together, everything else is
stepped one population at a time, with the input current of all time steps in one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.devices.converters import Converters
from neko_rules.errors import ArgumentError, nearest
from neko_rules.initializers import INITIALIZERS, Initializer
from neko_rules.kernels.host import clear_diagonal
from neko_rules.layers.cell import CELLS, Cell
from neko_rules.layers.connectivity import Connectivity, ConnectivityLike, connectivity
from neko_rules.layers.patches import Patches
from neko_rules.layers.shared_weights import SharedWeights, Sharing
from neko_rules.registry import create
from neko_rules.seeding import stream

INPUT = "input"
"""The name of the source that stands for the data."""


@dataclass(frozen=True)
class Population:
    """A number of neurons of one model.

    Args:
        cell: the neuron model, by name, mapping or object.
        size: how many neurons.
        bias: whether each neuron has a trainable constant input (starting at 0).

    Example:
        >>> Population("lif", 100).cell.threshold
        1.0
    """

    cell: Cell | str | Mapping[str, Any]
    size: int
    bias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", CELLS.resolve(self.cell))
        arguments.integer("size", self.size, at_least=1)
        arguments.flag("bias", self.bias)


@dataclass(frozen=True)
class Connection:
    """A matrix of weights [source, target] between two populations.

    Args:
        source: name of the population (or ``"input"``) whose output is sent.
        target: name of the population that receives it as current.
        delay: 0 (same step) or 1 (one step later).
        initializer: distribution of the first weights, by name, mapping or object.
        autapses: whether a neuron may be connected to itself (delayed connections within one population).
        label: the middle part of the weight's name, ``target.label.weight``.
        converters: what outputs of the source and currents into the target go through, Converters or a mapping; None
            for exact products.
        connectivity: which of the weights are synapses, the others being zero for good: ``"dense"``, a probability, a
            matrix of zeros and ones, or a Connectivity by name, mapping or object.
        connectivity_seed: what the synapses are drawn from; None for the seed of the network.

    Example:
        >>> Connection("hidden", "hidden", delay=1).weight
        'hidden.recurrent.weight'
        >>> int(Connection("hidden", "hidden", delay=1, connectivity=0.1).synapses(100, 100).sum())
        1000
    """

    source: str
    target: str
    delay: int = 0
    initializer: Initializer | str | Mapping[str, Any] = "scaled_normal"
    autapses: bool = False
    label: str = ""
    converters: Converters | Mapping[str, Any] | None = None
    connectivity: ConnectivityLike = "dense"
    connectivity_seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "initializer", INITIALIZERS.resolve(self.initializer))
        object.__setattr__(self, "connectivity", connectivity(self.connectivity))
        if self.connectivity_seed is not None:
            arguments.integer("connectivity_seed", self.connectivity_seed, at_least=0)
        if self.converters is not None:
            object.__setattr__(self, "converters", create(Converters, self.converters))
        arguments.integer("delay", self.delay, at_least=0, at_most=1)
        arguments.flag("autapses", self.autapses)
        if self.autapses and (self.source != self.target or not self.delay):
            ends = f"{self.source} → {self.target}"
            raise ArgumentError("autapses are delayed connections of a population with itself", received=ends)
        if self.target == INPUT:
            raise ArgumentError("a connection cannot lead into the input", received=f"{self.source} → {self.target}")
        if not self.label:
            object.__setattr__(self, "label", "recurrent" if self.source == self.target else f"from_{self.source}")

    @cached_property
    def weight(self) -> str:
        """The name of the weight matrix among the parameters."""
        return f"{self.target}.{self.label}.weight"

    def current(self, nx: Backend, sent: Array, weight: Array, product: Array) -> Array:
        """What arrives of the exact product of what is sent and the weights: converted, or as it is."""
        if self.converters is None:
            return product
        assert isinstance(self.converters, Converters)
        return self.converters.passed_through(nx, sent, weight, product)

    @cached_property
    def shares(self) -> bool:
        """Whether several synapses have one weight, so that the parameter is not the matrix of all weights."""
        return isinstance(self.connectivity, SharedWeights)

    @cached_property
    def sharing(self) -> Sharing:
        """Which synapses have which weight, where they share them."""
        assert isinstance(self.connectivity, SharedWeights)
        return self.connectivity.sharing(hollow=self.hollow)

    @cached_property
    def patches(self) -> Patches | None:
        """What makes small matrix products, as of a convolution; None where a neuron may not reach itself."""
        return self.connectivity.patches if isinstance(self.connectivity, SharedWeights) and not self.hollow else None

    def weight_shape(self, sources: int, targets: int) -> tuple[int, int]:
        """The shape of the parameter: [source, target], or that of the weights that are shared."""
        return self.sharing.shape if self.shares else (sources, targets)

    @cached_property
    def hollow(self) -> bool:
        """Whether the diagonal has to stay zero."""
        return self.source == self.target and not self.autapses

    @cached_property
    def complete(self) -> bool:
        """Whether there is a synapse wherever there may be one."""
        return self.connectivity.complete  # type: ignore[union-attr]

    @cached_property
    def partial(self) -> bool:
        """Whether some entries of the parameter have to stay zero: autapses, or what is no synapse."""
        return not self.shares and (self.hollow or not self.complete)

    def synapses(self, sources: int, targets: int) -> np.ndarray:
        """Where there is a synapse: bool [source, target], which nobody may write to."""
        found = self._synapses.get((sources, targets))
        if found is None:
            assert isinstance(self.connectivity, Connectivity)
            rng = stream(self.connectivity_seed or 0, f"{self.weight}/synapses")
            chosen = self.connectivity
            try:
                found = chosen.hollow(rng, targets) if self.hollow else chosen.mask(rng, sources, targets)
            except ArgumentError as error:
                raise ArgumentError(f"in {self.weight!r}: {error}") from error
            found.setflags(write=False)
            self._synapses[sources, targets] = found
        return found

    def drawn(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        """First weights, zero where there is no synapse, in the shape of the parameter.

        Those of an initializer that goes by the number of inputs are larger by √(sources / synapses) of the neuron that
        they end on, so that its summed input has the variance that it has with all synapses; weights of means of p
        neurons by √p, so that where these send independently it has that of as many single neurons.
        """
        assert isinstance(self.initializer, Initializer)
        weights = self.initializer.sample(rng, *self.weight_shape(sources, targets))
        if self.shares:
            self.synapses(sources, targets)  # that it has such numbers of neurons
            if self.initializer.by_inputs:
                weights = weights * np.sqrt(self.sharing.pooled)
        elif not self.complete:
            synapses = self.synapses(sources, targets)
            if self.initializer.by_inputs:
                weights = weights * np.sqrt(sources / np.maximum(synapses.sum(axis=0), 1))
            weights = weights * synapses
        elif self.hollow:
            np.fill_diagonal(weights, 0.0)
        return weights

    @cached_property
    def _synapses(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def clear(self, matrix: np.ndarray) -> None:
        """Set what has to stay zero to zero, in a matrix of the parameter's shape in C order."""
        if not self.partial:
            return
        if self.complete:
            clear_diagonal(matrix)
        else:
            matrix *= self.synapses(*matrix.shape)

    def is_clear(self, matrix: np.ndarray) -> bool:
        """Whether what has to stay zero is zero, in a matrix of the parameter's shape."""
        if not self.partial:
            return True
        if self.complete:
            return not np.count_nonzero(matrix.diagonal())
        return not np.greater(matrix != 0, self.synapses(*matrix.shape)).any()


@dataclass(frozen=True, eq=False)
class Graph:
    """Populations by name, their connections, and the population that is read out.

    Args:
        populations: name → Population; the name ``"input"`` is taken by the data.
        connections: in any order.
        output: name of the population whose z is the output of the network.

    Example:
        >>> graph = Graph(
        ...     {"hidden": Population("lif", 3), "readout": Population("leaky_readout", 2)},
        ...     (Connection("input", "hidden"), Connection("hidden", "hidden", 1), Connection("hidden", "readout")),
        ...     output="readout",
        ... )
        >>> graph.order
        ('hidden', 'readout')
        >>> graph.parameter_shapes(inputs=4)["hidden.from_input.weight"]
        (4, 3)
    """

    populations: dict[str, Population]
    connections: tuple[Connection, ...]
    output: str
    order: tuple[str, ...] = field(init=False)
    """Populations in an order in which each comes after all whose spikes it receives in the same step."""
    components: tuple[tuple[str, ...], ...] = field(init=False)
    """Groups of populations that have to be stepped together, in order, each group ordered within."""

    _into: dict[str, list[Connection]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        instantaneous = [(c.source, c.target) for c in self.connections if c.delay == 0 and c.source != INPUT]
        groups = _components(self.populations, instantaneous)
        cycle = next((group for group in groups if len(group) > 1), None)
        if cycle or any(source == target for source, target in instantaneous):
            names = " → ".join(sorted(cycle or next([s] for s, t in instantaneous if s == t)))
            raise ArgumentError(
                "connections without delay form a cycle", received=names, works="give one of them delay=1"
            )
        rank = {group[0]: place for place, group in enumerate(groups)}
        every = [(c.source, c.target) for c in self.connections if c.source != INPUT]
        components = tuple(tuple(sorted(group, key=rank.__getitem__)) for group in _components(self.populations, every))
        object.__setattr__(self, "components", components)
        into: dict[str, list[Connection]] = {}
        for connection in self.connections:
            into.setdefault(connection.target, []).append(connection)
        object.__setattr__(self, "_into", into)
        object.__setattr__(self, "order", tuple(name for group in components for name in group))

    def _check(self) -> None:
        known = [INPUT, *self.populations]
        if INPUT in self.populations:
            raise ArgumentError("the population name 'input' stands for the data", works="choose another name")
        if not isinstance(self.output, str) or self.output not in self.populations:
            raise ArgumentError(
                "the output must be a population", received=self.output, works=nearest(str(self.output), known)
            )
        for connection in self.connections:
            for end in (connection.source, connection.target):
                if end not in known:
                    raise ArgumentError(
                        "a connection ends at an unknown population", received=end, works=nearest(end, known)
                    )
        names = [connection.weight for connection in self.connections]
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise ArgumentError("two connections have the same name", received=double, works="give one of them a label")

    def cell(self, name: str) -> Cell:
        """The neuron model of a population."""
        return self.populations[name].cell  # type: ignore[return-value]

    def into(self, target: str) -> list[Connection]:
        """The connections that a population receives."""
        return self._into.get(target, [])

    @cached_property
    def senders(self) -> frozenset[str]:
        """The populations, and the input, that a population receives from."""
        return frozenset(connection.source for connection in self.connections)

    def within(self, component: tuple[str, ...]) -> list[Connection]:
        """The connections whose two ends lie in a component."""
        return [c for c in self.connections if c.source in component and c.target in component]

    def size(self, name: str, inputs: int) -> int:
        """The number of neurons of a population, or of features of the input."""
        return inputs if name == INPUT else self.populations[name].size

    def ends(self, connection: Connection, inputs: int) -> tuple[int, int]:
        """The numbers of neurons that a connection leads from and to: the shape of its matrix."""
        return self.size(connection.source, inputs), self.size(connection.target, inputs)

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.order:
            for connection in self.into(name):
                shapes[connection.weight] = connection.weight_shape(*self.ends(connection, inputs))
            if self.populations[name].bias:
                shapes[bias_name(name)] = (self.populations[name].size,)
            for learnable in self.cell(name).learnable:
                shapes[f"{name}.{learnable}"] = (self.populations[name].size,)
        return shapes


def check_synapses(connections: Iterable[Connection], parameters: Mapping[str, np.ndarray]) -> None:
    """Refuse saved weights of other synapses than these.

    Raises:
        ArgumentError: a weight is not zero where there is no synapse here.
    """
    for connection in connections:
        weight = parameters.get(connection.weight)
        if weight is None or connection.complete or np.ndim(weight) != 2 or connection.is_clear(np.asarray(weight)):
            continue
        raise ArgumentError(
            f"{connection.weight} has weights where there is no synapse here",
            received=f"{np.count_nonzero(weight[~connection.synapses(*weight.shape)])} of them",
            works="a network with the same seed, or connectivity_seed, and connectivity as the one that was saved",
        )


def bias_name(population: str) -> str:
    """The name of a population's bias among the parameters."""
    return f"{population}.bias"


def constant_name(cell: Cell, population: str, constant: str) -> str:
    """The name of a learnable constant among the parameters, after the argument of the cell: ``hidden.threshold``."""
    return next(f"{population}.{name}" for name in cell.learnable if cell.trainable[name].constant == constant)


def _components(nodes: Iterable[str], edges: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Strongly connected components in topological order (Tarjan 1972, SIAM J. Comput. 1:146).

    Example:
        >>> _components("abc", [("a", "b"), ("b", "a"), ("b", "c")])
        [('a', 'b'), ('c',)]
    """
    successors: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        successors[source].append(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for following in successors[node]:
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            start = stack.index(node)
            found.append(tuple(sorted(stack[start:])))
            del stack[start:]

    # Reversed, so that unrelated nodes come out in the order in which they were named.
    for node in reversed(list(successors)):
        if node not in index:
            visit(node)
    return found[::-1]
