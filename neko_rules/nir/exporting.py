"""Export: a network as a graph of NIR.

A population is a node, and a connection a chain of nodes from one to another, of which one holds the weights: Linear,
Affine with the biases of its target, or Conv2d. A recurrent connection closes a cycle, and one that takes a step
elsewhere has a Delay of dt. Pooling comes before the weights, as an AvgPool2d.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError, IncompatibleError, warn
from neko_rules.layers.average_pooling import AveragePooling
from neko_rules.layers.convolution import Convolution, PooledDense
from neko_rules.layers.graph import INPUT, Connection, bias_name
from neko_rules.layers.network import Network
from neko_rules.nir.cycles import to_be_said
from neko_rules.nir.equations import SCHEMES
from neko_rules.nir.library import library
from neko_rules.nir.maps import per_filter
from neko_rules.nir.naming import OURS, bias_node, weight_node
from neko_rules.nir.neurons_written import Neurons, plain, written

GAINS = ("neurons", "weights")


def to_nir(network: Network, *, approximate: bool = False, scheme: str = "exponential", gain: str = "neurons") -> Any:
    """The graph of a network, for ``nir.write`` and whatever else takes a ``nir.NIRGraph``.

    Our v_t = α v_{t-1} + I_t is τ dv/dt = v_leak - v + R I with τ = -dt/ln α and R = 1/(1 - α), for inputs held during
    a step (``neko_rules.nir.equations``). Arrays have one value per neuron; weights are those of the network, zero
    where there is no synapse. The step is noted in the metadata of the graph, which NIR leaves to everyone.

    Args:
        network: with weights. IF, LIF, ALIF without adaptation, leaky readouts; all connections.
        approximate: whether what NIR cannot say is left out, with a warning that lists it: a reset that is none to
            zero, adaptation, refractory periods, membranes of some bits, converters of crossbars, pooled outputs.
        scheme: how the reader takes a step: ``"exponential"``, exactly, or ``"euler"``, as Norse and snnTorch do; τ is
            then dt/(1 - α).
        gain: where the factors 1/(1 - α) are: ``"neurons"``, as R and w_in, or ``"weights"``, for readers that look at
            neither; R and w_in are then 1.

    Raises:
        NekoError: the library ``nir`` is not installed.
        IncompatibleError: NIR cannot say what the network does.
        ArgumentError: it is no network of populations, or has no weights yet.

    Example:
        >>> from neko_rules import LIF
        >>> graph = to_nir(LIF(8, 2, inputs=3, reset="zero", tau_membrane=20e-3))
        >>> {name: type(node).__name__ for name, node in graph.nodes.items() if not name.endswith("put")}
        {'hidden': 'LIF', 'readout': 'LI', 'hidden_recurrent': 'Linear'}
        >>> round(float(graph.nodes["hidden"].tau[0]), 6), round(float(graph.nodes["hidden"].r[0]), 3)
        (0.02, 20.504)
    """
    nir = library()
    if not isinstance(network, Network):
        raise ArgumentError(
            "to_nir takes a network of populations",
            received=type(network).__name__,
            works="give a Network, such as LIF",
        )
    network.require_built()
    arguments.flag("approximate", approximate)
    arguments.choice("scheme", scheme, SCHEMES)
    arguments.choice("gain", gain, GAINS)
    writer = _Writer(nir, network, scheme, in_weights=gain == "weights")
    if writer.left_out:
        listed = "; ".join(writer.left_out)
        if not approximate:
            raise IncompatibleError(
                f"NIR cannot say all that this network does: {listed}",
                works="change it, or leave that out by approximate=True",
            )
        warn("NIR cannot say all that this network does", works=f"left out is {listed}")
    return writer.graph()


class _Writer:
    """Nodes and edges as they come to be."""

    def __init__(self, nir: Any, network: Network, scheme: str, in_weights: bool) -> None:
        self.nir, self.network, self.scheme = nir, network, scheme
        self.inputs = network.inputs or 0
        seen = network.seen(network.values)
        self.values = {name: network.nx.to_numpy(value).astype(np.float64) for name, value in seen.items()}
        self.left_out: list[str] = []
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.names: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of the input and of populations, in the order in which they send: of pictures, or flat."""
        self.neurons = {name: self._neurons(name, in_weights) for name in network.graph.order}
        if network.readout != "sequence":
            self.left_out.append(f"readout={network.readout!r} (outputs of all time steps)")
        converted = [each.weight for each in network.graph.connections if each.converters is not None]
        self.left_out += [f"{name}: converters (exact products)" for name in converted]

    def _neurons(self, name: str, in_weights: bool) -> Neurons:
        network, population = self.network, self.network.graph.populations[name]
        cell = plain(name, network.graph.cell(name), self.left_out)
        learned = {each: self.values[f"{name}.{each}"] for each in cell.learnable}
        return written(name, cell, population.size, learned, network.dt, self.scheme, in_weights)

    def graph(self) -> Any:
        """The whole of it."""
        graph = self.network.graph
        self._check_ends()
        for name in (INPUT, *graph.order):
            self.names[name] = self._free(name)
        for name in (INPUT, *graph.order):
            self.shapes[name] = self._pictures(name) or (graph.size(name, self.inputs),)
        self.nodes[self.names[INPUT]] = self.nir.Input(np.array(self.shapes[INPUT]))
        for name in graph.order:
            if self.neurons[name].kind:
                bias = self._bias(name) if self._bias_holder(name) == "leak" else None
                self.nodes[self.names[name]] = self.neurons[name].node(
                    self.nir, self.shapes[name], self.network.dtype, bias
                )
        edges = [(each.source, each.target) for each in graph.connections]
        said = to_be_said(edges, [bool(each.delay) for each in graph.connections], INPUT)
        for place, connection in enumerate(graph.connections):
            self._connect(connection, delayed=place in said)
        for name in graph.order:
            self._without_connection(name)
        self._output()
        metadata = {OURS: {"dt": self.network.dt, "scheme": self.scheme}}
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=metadata)

    def _check_ends(self) -> None:
        graph = self.network.graph
        if INPUT not in graph.senders:
            raise IncompatibleError("a graph of NIR has an input that something receives", received=self.network)
        for name in graph.order:
            if name not in graph.senders and name != graph.output:
                raise IncompatibleError(
                    "what sends to nothing is an output in NIR, and a network has one",
                    received=name,
                    works="leave that population out",
                )
            if not self.neurons[name].kind and (name != graph.output or name in graph.senders):
                raise IncompatibleError(
                    "NIR has no unit without a memory, other than as the output",
                    received=name,
                    works="give it a time constant",
                )

    def _free(self, name: str) -> str:
        """A name that no node has: HDF5 takes a slash for a folder."""
        name = name.replace("/", "_")
        while name in self.nodes or name in self.names.values():
            name += "_"
        return name

    # Shapes: [filter, row, column] where all comes by convolutions, else flat.

    def _convolution(self, connection: Connection) -> Convolution | None:
        """The convolution that a connection is, if it is one that can be written as such."""
        found = connection.connectivity
        if type(found) is not Convolution or connection.delay or connection.source == connection.target:
            return None
        rows, columns = found.window  # type: ignore[misc]
        # nir 1.0 takes the number of rows of a window for that of its columns when it checks shapes.
        if rows != columns or per_filter(self.neurons[connection.target].gain, found.filters) is None:
            return None
        pictures = (found.channels, *found.shape)
        return found if self.shapes[connection.source] == pictures else None

    def _pooled_dense(self, connection: Connection) -> PooledDense | None:
        """The dense connection behind pooled pictures that a connection is, if it can be written as such."""
        found = connection.connectivity
        if type(found) is not PooledDense or connection.delay or connection.source == connection.target:
            return None
        return found if self.shapes[connection.source] == (found.channels, *found.shape) else None

    def _pictures(self, name: str) -> tuple[int, ...] | None:
        """The shape of a population that lies as pictures do."""
        graph = self.network.graph
        if name == INPUT:
            for each in graph.connections:
                seen = each.connectivity
                if each.source == INPUT and type(seen) in (Convolution, PooledDense):
                    return (seen.channels, *seen.shape)
            return None
        into = graph.into(name)
        found = [self._convolution(each) for each in into if not each.delay]
        if not into or len(found) < len(into) or not all(found) or not self.neurons[name].kind:
            return None
        shapes = {(each.filters, *each.places) for each in found if each is not None}
        bias = self._bias(name)
        held = bias is None or per_filter(bias, found[0].filters) is not None  # type: ignore[union-attr]
        return shapes.pop() if len(shapes) == 1 and (held or self.neurons[name].leak_gain is not None) else None

    # Biases.

    def _bias(self, name: str) -> np.ndarray | None:
        return self.values.get(bias_name(name))

    def _bias_holder(self, name: str) -> str | Connection:
        """Where a bias stands: in the weights of a connection, in the leak voltage, or in a node of its own."""
        bias = self._bias(name)
        if bias is None:
            return "nowhere"
        same_step = [each for each in self.network.graph.into(name) if not each.delay]
        for connection in same_step:
            if self._convolution(connection) is None:
                return connection
        for connection in same_step:
            found = self._convolution(connection)
            if found is not None and per_filter(bias, found.filters) is not None:
                return connection
        return "leak" if self.neurons[name].leak_gain is not None else "alone"

    def _without_connection(self, name: str) -> None:
        """Zero weights from the input, for a population that has no connection, or whose bias has no other place."""
        alone = self._bias_holder(name) == "alone"
        if not alone and self.network.graph.into(name):
            return
        weight = np.zeros((self.inputs, self.network.graph.populations[name].size))
        bias = self._bias(name) if alone else None
        chain = [(bias_node(name), self._dense(name, weight, bias))]
        if len(self.shapes[INPUT]) > 1:
            chain.insert(0, (f"{bias_node(name)}_flatten", self._flatten(self.shapes[INPUT])))
        self._chain(INPUT, name, chain)

    def _dense(self, target: str, matrix: np.ndarray, bias: np.ndarray | None) -> Any:
        gain, dtype = self.neurons[target].gain, self.network.dtype
        weight = np.ascontiguousarray((matrix * gain).T.astype(dtype))
        return self.nir.Linear(weight) if bias is None else self.nir.Affine(weight, (bias * gain).astype(dtype))

    # Connections.

    def _connect(self, connection: Connection, delayed: bool) -> None:
        source, target = connection.source, connection.target
        weights, shape = self.values[connection.weight], self.shapes[source]
        bias = self._bias(target) if self._bias_holder(target) is connection else None
        name = weight_node(target, connection.label)
        chain: list[tuple[str, Any]] = []
        if delayed:
            late = np.full(shape, self.network.dt, self.network.dtype)
            chain.append((f"{name}_delay", self.nir.Delay(late)))
        convolution, pooled_dense = self._convolution(connection), self._pooled_dense(connection)
        pooled = convolution or pooled_dense
        if pooled is not None and pooled.pooled > 1:
            chain.append((f"{name}_pool", self._avg_pool(pooled.pooling)))
        if convolution is not None:
            chain.append((name, self._conv2d(target, convolution, weights, bias)))
            if len(self.shapes[target]) == 1:
                after = (convolution.filters, *convolution.places)
                chain.append((f"{name}_flatten", self._flatten(after)))
        elif pooled_dense is not None:
            chain.append((f"{name}_flatten", self._flatten((pooled_dense.channels, *pooled_dense.pooling.places))))
            chain.append((name, self._dense(target, weights, bias)))
        else:
            if len(shape) > 1:
                chain.append((f"{name}_flatten", self._flatten(shape)))
            if connection.shares:
                weights = connection.sharing.spread(get_backend("numpy"), weights)
            chain.append((name, self._dense(target, weights, bias)))
        self._chain(source, target, chain)

    def _conv2d(self, target: str, convolution: Convolution, weights: np.ndarray, bias: np.ndarray | None) -> Any:
        filters, dtype = convolution.filters, self.network.dtype
        gain = per_filter(self.neurons[target].gain, filters)
        of_filter = np.zeros(filters) if bias is None else per_filter(bias, filters)
        assert gain is not None, "what differs within a filter is written as a matrix"
        assert of_filter is not None, "a bias that differs within a filter stands elsewhere"
        kernel = (weights * gain).T.reshape(filters, convolution.channels, *convolution.window)  # type: ignore[misc]
        return self.nir.Conv2d(
            input_shape=convolution.pooling.places,
            weight=np.ascontiguousarray(kernel.astype(dtype)),
            stride=convolution.stride,
            padding=convolution.padding,
            dilation=(1, 1),
            groups=1,
            bias=(of_filter * gain).astype(dtype),
        )

    def _avg_pool(self, pooling: AveragePooling) -> Any:
        pool = np.array(pooling.pool)
        return self.nir.AvgPool2d(kernel_size=pool, stride=pool, padding=np.zeros(2, int))

    def _flatten(self, shape: tuple[int, ...]) -> Any:
        return self.nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)

    def _chain(self, source: str, target: str, chain: list[tuple[str, Any]]) -> None:
        """Edges from a population to another through nodes that are added."""
        before = self.names[source]
        for wanted, node in chain:
            name = self._free(wanted)
            self.nodes[name] = node
            self.edges.append((before, name))
            before = name
        self.edges.append((before, self.names[target]))

    def _output(self) -> None:
        """The output node; it stands for units that are their input."""
        output = self.network.graph.output
        shape = np.array(self.shapes[output])
        if not self.neurons[output].kind:
            self.nodes[self.names[output]] = self.nir.Output(shape)
            return
        name = self._free("output")
        self.nodes[name] = self.nir.Output(shape)
        self.edges.append((self.names[output], name))
