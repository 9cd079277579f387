"""NIR export: a network as a graph that simulators and compilers for neuromorphic hardware read.

How the equations correspond stands in ``neko_rules.exchange.nir_library``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import IncompatibleError, warn
from neko_rules.exchange.nir_library import DELAY, SCHEMES, nir_library, tau_of
from neko_rules.layers.convolution import Convolution
from neko_rules.layers.graph import INPUT, Connection, bias_name
from neko_rules.layers.integrate_and_fire import IFCell, LIFCell
from neko_rules.layers.network import Network
from neko_rules.layers.rate import LeakyReadoutCell

CELLS = (IFCell, LIFCell, LeakyReadoutCell)
"""The neurons that NIR has words for."""


def to_nir(network: Network, approximate: bool = False, *, scheme: str = "exact") -> Any:
    """A network as a ``nir.NIRGraph``, which ``nir.write`` writes to a file.

    Weights are those of a forward pass: rounded, where the network has ``weight_bits``. How outputs are read (mean,
    last step) and how spikes are differentiated is not part of a graph. Connections that act one time step later become
    edges that close a circle, or pass a ``nir.Delay`` of one step.

    Args:
        network: built, of LIF, IF and leaky readout neurons.
        approximate: write what NIR has no word for as what comes next to it (resets by subtraction as resets to zero,
            refractory neurons as others, products through converters as exact ones), and warn of all of it.
        scheme: how the simulator takes a step for which the time constants are right: ``"exact"``, by the solution of
            the equations, or ``"euler"``, as Norse does.

    Raises:
        NekoError: NIR is not installed.
        IncompatibleError: the network has something that NIR cannot say.

    Example:
        >>> from neko_rules import LIF
        >>> graph = to_nir(LIF(4, 2, inputs=3, reset="zero"))
        >>> sorted(graph.nodes)
        ['hidden', 'hidden_input', 'hidden_recurrent', 'input', 'output', 'readout', 'readout_input']
        >>> graph.nodes["hidden_input"].weight.shape
        (4, 3)
    """
    if not isinstance(network, Network):
        raise IncompatibleError("a network of populations has a graph", received=network, works="a Network such as LIF")
    network.require_built()
    arguments.choice("scheme", scheme, SCHEMES)
    return _Export(network, approximate, scheme).graph()


class _Export:
    """One network on its way.

    Args:
        network: what is written.
        approximate: whether what NIR cannot say is left out instead of refused.
        scheme: how the simulator takes a step.
    """

    def __init__(self, network: Network, approximate: bool, scheme: str) -> None:
        self.nir, self.network, self.approximate, self.scheme = nir_library(), network, approximate, scheme
        numpy = network.nx.to_numpy
        self.values = {k: np.asarray(numpy(v), np.float64) for k, v in network.seen(network.values).items()}
        self.constants = {
            name: {key: np.asarray(numpy(value), np.float64) for key, value in of.items()}
            for name, of in network.constants_with(network.values).items()
        }
        self.left_out: list[str] = []
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes = self._shapes()

    def graph(self) -> Any:
        """The graph, and a warning of what it does not say."""
        graph, nir = self.network.graph, self.nir
        self.nodes["input"] = nir.Input(np.array(self.shapes[INPUT]))
        for name in graph.order:
            gain = self._gain(name)
            biased = self._connected(name, gain)
            self.nodes[_named(name)] = self._neuron(name, biased, gain)
        output = graph.output
        self.nodes["output"] = nir.Output(np.array(self.shapes[output]))
        self.edges.append((_named(output), "output"))
        if self.left_out:
            warn("NIR has no word for all of this network", "; ".join(self.left_out), "it is written without")
        return nir.NIRGraph(self.nodes, self.edges)

    def _refuse(self, what: str, received: object) -> None:
        """Leave something out, or refuse it."""
        if not self.approximate:
            raise IncompatibleError(
                f"NIR has no word for {what}", received, "change it, or leave it out by approximate=True"
            )
        self.left_out.append(f"{what} ({received})")

    # Shapes: pictures where convolutions alone lead to, or begin, and else one axis.

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        graph, inputs = self.network.graph, self.network.inputs or 0
        found: dict[str, tuple[int, ...]] = {}
        for name in (INPUT, *graph.order):
            flat = (graph.size(name, inputs),)
            into = [] if name == INPUT else graph.into(name)
            # Of the input it is what leads from it that knows.
            ends = into or [connection for connection in graph.connections if connection.source == name]
            shapes = {_shape_at(connection, begins=not into) or flat for connection in ends}
            found[name] = shapes.pop() if len(shapes) == 1 else flat
        return found

    def _convolves(self, connection: Connection) -> bool:
        """Whether a connection can be a convolution: one that leaves nothing out, between pictures of its shapes."""
        begins, ends = (_shape_at(connection, begins) for begins in (True, False))
        return begins == self.shapes[connection.source] and ends == self.shapes[connection.target]

    # Weights.

    def _gain(self, name: str) -> np.ndarray | None:
        """What weights into a population are multiplied by, [neuron], so that its resistance is 1.

        Not of neurons without leak; nor where neurons of one filter of a convolution differ: None. The resistance is
        then another, which many a simulator does not look at.
        """
        of, shape = self.constants[name], self.shapes[name]
        left = (1 - self._per_neuron(name, "alpha", 1.0)) * (1 - self._per_neuron(name, "epsilon", 0.0))
        rows = left.reshape(shape[0], -1)
        alike = len(shape) == 1 or bool(np.all(rows == rows[:, :1]))
        return 1 / left.reshape(-1) if "alpha" in of and alike and np.all(left > 0) else None

    def _per_neuron(self, name: str, constant: str, usual: float) -> np.ndarray:
        """A constant of a population's neurons, in its shape."""
        shape = self.shapes[name]
        value = self.constants[name].get(constant, np.full((), usual))
        return np.broadcast_to(value, (int(np.prod(shape)),)).reshape(shape)

    def _connected(self, name: str, gain: np.ndarray | None) -> bool:
        """Write what leads to a population; whether its bias is among that."""
        graph = self.network.graph
        bias, factor = self.values.get(bias_name(name)), np.ones(()) if gain is None else gain
        left = factor * bias if bias is not None and np.any(bias) else None
        for connection in graph.into(name):
            if connection.converters is not None:
                self._refuse("converters", connection.weight)
            node = _named(connection.weight.removesuffix(".weight"))
            metadata = {DELAY: 1} if self._closes(connection) else {}
            weight = self.values[connection.weight]
            if self._convolves(connection):
                of_filter = factor if not factor.ndim else factor.reshape(weight.shape[1], -1)[:, 0]
                left = self._convolution(node, connection, of_filter * weight, left, metadata)
            else:
                matrix = (factor * self._matrix(connection, weight)).T
                if left is None:
                    self.nodes[node] = self.nir.Linear(matrix, metadata=metadata)
                else:
                    self.nodes[node], left = self.nir.Affine(matrix, left, metadata=metadata), None
            self._lead(connection, node)
            self.edges.append((node, _named(name)))
        return left is None

    def _matrix(self, connection: Connection, weight: np.ndarray) -> np.ndarray:
        """The matrix [source, target], zero where there is no synapse."""
        if connection.shares:
            from neko_rules.backend import get_backend

            return connection.sharing.spread(get_backend("numpy"), weight)
        matrix = np.array(weight)
        connection.clear(matrix)
        return matrix

    def _convolution(
        self, node: str, connection: Connection, weight: np.ndarray, bias: np.ndarray | None, metadata: dict[str, Any]
    ) -> np.ndarray | None:
        """Write a convolution; what is left of the bias, which it takes if each filter has one."""
        of = connection.connectivity
        assert isinstance(of, Convolution)
        kernel = weight.T.reshape(of.filters, of.channels, *of.window)  # type: ignore[misc]
        each, left = np.zeros(of.filters), bias
        if bias is not None:
            rows = bias.reshape(of.filters, -1)
            if np.all(rows == rows[:, :1]):
                each, left = rows[:, 0], None
        self.nodes[node] = self.nir.Conv2d(
            tuple(of.shape), kernel, of.stride, of.padding, (1, 1), 1, each, metadata=metadata
        )
        return left

    def _closes(self, connection: Connection) -> bool:
        """Whether a connection closes a circle, where a delay of one step is what everybody takes it to have."""
        order = self.network.graph.order
        return connection.source != INPUT and order.index(connection.source) >= order.index(connection.target)

    def _lead(self, connection: Connection, node: str) -> None:
        """Write the edge from what a connection comes from, with what has to lie between."""
        source = connection.source
        begin = "input" if source == INPUT else _named(source)
        if len(self.shapes[source]) > 1 and not self._convolves(connection):
            flat = f"{node}_flatten"
            self.nodes[flat] = self.nir.Flatten({"input": np.array(self.shapes[source])}, start_dim=0)
            self.edges.append((begin, flat))
            begin = flat
        if connection.delay and not self._closes(connection):
            late = f"{node}_delay"
            shape = self.shapes[source] if begin in ("input", _named(source)) else (int(np.prod(self.shapes[source])),)
            self.nodes[late] = self.nir.Delay(np.full(shape, self.network.dt))
            self.edges.append((begin, late))
            begin = late
        self.edges.append((begin, node))

    # Neurons.

    def _neuron(self, name: str, biased: bool, gain: np.ndarray | None) -> Any:
        """The node of a population's neurons; without a gain in the weights it is in their resistance."""
        cell, nir = self.network.graph.cell(name), self.nir
        if type(cell) not in CELLS:
            raise IncompatibleError(
                f"NIR has no word for the neurons of {name}", type(cell).__name__, "LIF, IF or leaky readout neurons"
            )
        shape, dt = self.shapes[name], self.network.dt
        bias = None if biased else self.values[bias_name(name)].reshape(shape)
        spiking: dict[str, Any] = {}
        if isinstance(cell, IFCell | LIFCell):
            if cell.reset != "zero":
                self._refuse(f"a reset that is not to a potential, of {name}", f"reset={cell.reset!r}")
            if cell.refractory:
                self._refuse(f"a refractory period, of {name}", f"{cell.refractory_period} s")
            spiking = {"v_threshold": self._per_neuron(name, "theta", 1.0), "v_reset": np.zeros(shape)}
        alpha, epsilon = self._per_neuron(name, "alpha", 1.0), self._per_neuron(name, "epsilon", 0.5)
        synaptic = "epsilon" in self.constants[name]
        if np.all(alpha == 1) and not synaptic:
            if bias is not None:
                self._refuse(f"a bias of {name}, which has no leak and no matrix", bias.reshape(-1)[0])
            return (nir.IF if spiking else nir.I)(r=np.full(shape, 1 / dt), **spiking)
        for what, decay in (("a membrane", alpha), ("a synapse", epsilon)):
            if np.any(decay <= 0) or np.any(decay >= 1):
                raise IncompatibleError(
                    f"in NIR the decay of {what} lies between 0 and 1, as that of a time constant does",
                    received=f"{name}, with {decay[(decay <= 0) | (decay >= 1)][0]:g}",
                )
        tau, r = tau_of(alpha, dt, self.scheme), 1 / (1 - alpha) if gain is None else np.ones(shape)
        if not synaptic:
            leak = np.zeros(shape) if bias is None else bias / (1 - alpha)
            return (nir.LIF if spiking else nir.LI)(tau=tau, r=r, v_leak=leak, **spiking)
        if bias is not None:
            self._refuse(f"a bias of {name}, whose synapses have a memory and no matrix", bias.reshape(-1)[0])
        w_in = 1 / (1 - epsilon) if gain is None else np.ones(shape)
        synapse = {"tau_syn": tau_of(epsilon, dt, self.scheme), "w_in": w_in, "v_leak": np.zeros(shape)}
        return (nir.CubaLIF if spiking else nir.CubaLI)(tau_mem=tau, r=r, **synapse, **spiking)


def _shape_at(connection: Connection, begins: bool) -> tuple[int, ...] | None:
    """The picture that a convolution begins or ends at; None where a connection is none, or leaves something out."""
    of = connection.connectivity
    if not isinstance(of, Convolution) or connection.hollow:
        return None
    rows, columns = of.shape if begins else of.places
    return (of.channels if begins else of.filters), rows, columns


def _named(name: str) -> str:
    """A name without dots, which in NIR stand between a graph and what is in it, and not that of an end."""
    found = name.replace(".", "_").replace("/", "_")
    return f"{found}_neurons" if found in ("input", "output") else found
