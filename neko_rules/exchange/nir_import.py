"""NIR import: a graph that another program has written, as a network that every rule trains.

How the equations correspond stands in ``neko_rules.exchange.nir_library``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Backend, get_backend
from neko_rules.errors import DataError, IncompatibleError
from neko_rules.exchange.nir_library import DELAY, SCHEMES, decay_of, nir_library
from neko_rules.layers.cell import Cell
from neko_rules.layers.convolution import Convolution
from neko_rules.layers.graph import INPUT, Connection, Population
from neko_rules.layers.integrate_and_fire import IFCell, LIFCell
from neko_rules.layers.network import Network
from neko_rules.layers.rate import LeakyReadoutCell

SPIKING, READ = ("LIF", "IF", "CubaLIF"), ("LI", "I", "CubaLI")
NEURONS = (*SPIKING, *READ)
"""The nodes that become populations."""
PASSED = ("Linear", "Affine", "Conv2d", "Scale", "Flatten", "Delay")
"""The nodes that become connections."""


def from_nir(
    graph: Any,
    dt: float = 1e-3,
    *,
    scheme: str = "exact",
    backend: str | Backend = "numpy",
    dtype: str = "float32",
    task_type: str = "classification",
    readout: str = "sequence",
) -> Network:
    """A network of the numbers that a simulator which solves NIR's equations in steps of dt would find.

    Linear and affine maps, convolutions, scales and delays of one step between two nodes of neurons become one
    connection, with the resistance, the input weight and the leak of the neurons in its weights and their bias. An edge
    that closes a circle acts one time step later. Outputs without neurons become units without a memory.

    Args:
        graph: a ``nir.NIRGraph``, or the path of a file that ``nir.write`` wrote.
        dt: time step, seconds.
        scheme: how a step is taken: ``"exact"``, by the solution for a current that is constant within it, or
            ``"euler"``, as by the simulator that trained the graph.
        backend, dtype, task_type, readout: as for Network.

    Raises:
        NekoError: NIR is not installed.
        DataError: the file cannot be read.
        IncompatibleError: the graph has something that a network cannot be; it says what.

    Example:
        >>> from neko_rules import LIF
        >>> from neko_rules.exchange import to_nir
        >>> network = from_nir(to_nir(LIF(4, 2, inputs=3, reset="zero")))
        >>> network, sorted(network.graph.populations)
        (Network(hidden 4, readout 2; numpy, float32), ['hidden', 'readout'])
    """
    library = nir_library()
    if isinstance(graph, str | os.PathLike):
        try:
            graph = library.read(os.fspath(graph))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"a NIR graph cannot be read from {os.fspath(graph)}", received=str(error)) from error
    arguments.number("dt", dt, above=0)
    arguments.choice("scheme", scheme, SCHEMES)
    return _Import(graph, dt, scheme).network(backend, dtype, task_type, readout)


@dataclass(frozen=True)
class Way:
    """What leads from neurons, or from the input, to a node.

    Args:
        source: the node of the neurons, or ``"input"``.
        matrix: [source, target]; None for the identity.
        convolution: what the matrix is, with its weights in the shape of the parameter, if it is one.
        delay: time steps.
        names: of the nodes on the way.
    """

    source: str
    matrix: np.ndarray | None = None
    convolution: tuple[Convolution, np.ndarray] | None = None
    delay: int = 0
    names: tuple[str, ...] = ()

    def whole(self, size: int) -> np.ndarray:
        """The matrix, of a source of so many neurons."""
        if self.convolution is not None:
            of, weights = self.convolution
            return of.sharing().spread(get_backend("numpy"), weights)
        return np.eye(size) if self.matrix is None else self.matrix


@dataclass(frozen=True)
class Neurons:
    """A node of neurons as a population.

    Args:
        cell: the neuron.
        gain: what a current is multiplied by, [neuron].
        drive: what is added to it at every time step, [neuron].
    """

    cell: Cell
    gain: np.ndarray
    drive: np.ndarray


class _Import:
    """One graph on its way.

    Args:
        graph: a ``nir.NIRGraph``.
        dt: time step, seconds.
        scheme: how a step is taken.
    """

    def __init__(self, graph: Any, dt: float, scheme: str) -> None:
        self.nodes, self.dt, self.scheme = dict(graph.nodes), dt, scheme
        self.edges = [(begin, end) for begin, end in graph.edges if begin != end or self._kind(begin) in NEURONS]
        for name in self.nodes:
            if self._kind(name) not in (*NEURONS, *PASSED, "Input", "Output"):
                raise IncompatibleError(
                    f"the node {name!r} is of a kind that a network does not have here",
                    received=self._kind(name),
                    works=f"nodes of {', '.join((*NEURONS, *PASSED))}",
                )
        self.begin, self.end = (self._only(kind) for kind in ("Input", "Output"))
        self.neurons = {name: self._neurons(name) for name in self.nodes if self._kind(name) in NEURONS}

    def network(self, backend: str | Backend, dtype: str, task_type: str, readout: str) -> Network:
        """The network."""
        output = self._output()
        sizes = {name: each.gain.size for name, each in self.neurons.items()}
        sizes[self.begin] = int(np.prod(self._shape(self.begin)))
        ways = {name: self._arriving(name) for name in self.neurons}
        order = self._order({name: [way.source for way in found if not way.delay] for name, (found, _) in ways.items()})
        connections: list[Connection] = []
        parameters: dict[str, np.ndarray] = {}
        labels: set[tuple[str, str]] = set()
        for name, (found, bias) in ways.items():
            of = self.neurons[name]
            for way in found:
                later = way.delay or int(way.source != self.begin and order[way.source] >= order[name])
                connection, weight = self._connection(name, way, later, of.gain, sizes)
                if (name, connection.label) in labels:
                    connection = replace(connection, label=f"{connection.label}_{len(labels)}")
                labels.add((name, connection.label))
                connections.append(connection)
                parameters[connection.weight] = weight
            parameters[f"{name}.bias"] = of.gain * bias + of.drive
        populations = {name: Population(of.cell, of.gain.size) for name, of in self.neurons.items()}
        made = Network(
            populations,
            connections,
            output,
            inputs=sizes[self.begin],
            backend=backend,
            dtype=dtype,
            task_type=task_type,
            readout=readout,
            dt=self.dt,
        )
        made.set_parameters(parameters)
        return made

    def _kind(self, name: str) -> str:
        return type(self.nodes[name]).__name__

    def _only(self, kind: str) -> str:
        found = [name for name in self.nodes if self._kind(name) == kind]
        if len(found) != 1:
            raise IncompatibleError(f"a network has one {kind.lower()}", received=f"{len(found)} nodes of {kind}")
        return found[0]

    def _shape(self, name: str) -> tuple[int, ...]:
        """What a node sends."""
        found = self.nodes[name].output_type
        shape = found.get("output", next(iter(found.values()), None))
        if shape is None:
            raise IncompatibleError("every node must know its shape", received=f"{name!r}, which does not")
        return tuple(int(each) for each in np.atleast_1d(shape))

    def _output(self) -> str:
        """The population that is read out, made here where the outputs have no neurons."""
        before = [begin for begin, end in self.edges if end == self.end]
        if len(before) == 1 and before[0] in self.neurons:
            return before[0]
        size = int(np.prod(self._shape(before[0]))) if before else 0
        if not size or any(begin == self.begin for begin in before):
            raise IncompatibleError("the output must come from something but the input", received=before)
        cell = LeakyReadoutCell(membrane_decay=0.0)
        self.neurons[self.end] = Neurons(cell, np.ones(size), np.zeros(size))
        return self.end

    # Neurons.

    def _neurons(self, name: str) -> Neurons:
        node, kind = self.nodes[name], self._kind(name)

        def values(key: str) -> np.ndarray:
            return np.asarray(getattr(node, key), np.float64).reshape(-1)

        r, size = values("r"), values("r").size
        # Counted from where a neuron is set to when it fires, a reset is one to zero.
        rest = values("v_reset") if kind in SPIKING else np.zeros(size)
        spiking: dict[str, Any] = {}
        if kind in SPIKING:
            threshold = values("v_threshold") - rest
            self._require(name, "v_threshold above v_reset", threshold > 0, threshold)
            spiking = {"threshold": _few(threshold), "reset": "zero"}
        if kind in ("IF", "I"):
            if spiking:
                return Neurons(IFCell(**spiking), self.dt * r, np.zeros(size))
            return Neurons(LeakyReadoutCell(membrane_decay=1.0), self.dt * r, np.zeros(size))
        tau = values("tau_mem" if "Cuba" in kind else "tau")
        alpha, leak = decay_of(tau, self.dt, self.scheme), values("v_leak") - rest
        made: Callable[..., Cell] = LIFCell if spiking else LeakyReadoutCell
        if "Cuba" not in kind:
            return Neurons(made(membrane_decay=_few(alpha), **spiking), (1 - alpha) * r, (1 - alpha) * leak)
        # What the membrane leaks to does not pass the synapses.
        self._require(name, "a v_leak that is where the neuron is reset to", leak == 0, leak)
        epsilon = decay_of(values("tau_syn"), self.dt, self.scheme)
        cell = made(membrane_decay=_few(alpha), synapse_decay=_few(epsilon), **spiking)
        return Neurons(cell, (1 - alpha) * r * (1 - epsilon) * values("w_in"), np.zeros(size))

    def _require(self, name: str, what: str, holds: np.ndarray, found: np.ndarray) -> None:
        if not np.all(holds):
            raise IncompatibleError(f"{self._kind(name)} needs {what}", received=f"{name!r}, {found[~holds][0]:g}")

    # Connections.

    def _arriving(self, name: str, passed: tuple[str, ...] = ()) -> tuple[list[Way], np.ndarray]:
        """All that arrives at a node, and what is added to it at every time step."""
        found: list[Way] = []
        total: np.ndarray = np.zeros(())
        for begin in [begin for begin, end in self.edges if end == name]:
            if begin == self.begin or begin in self.neurons:
                found.append(Way(begin))
                continue
            if begin in passed:
                raise IncompatibleError("a circle must pass neurons", received=" → ".join((*passed, begin)))
            ways, bias = self._arriving(begin, (*passed, begin))
            shape = self._shape(begin)
            found += [self._through(begin, way) for way in ways]
            total = total + self._biased(begin, bias, int(np.prod(shape)))
        return found, total

    def _through(self, name: str, way: Way) -> Way:
        """A way continued by a node."""
        node, kind, before = self.nodes[name], self._kind(name), way
        way = replace(way, names=(*way.names, name), delay=way.delay + int((node.metadata or {}).get(DELAY, 0)))
        if kind == "Flatten":
            return way
        if kind == "Delay":
            steps = np.asarray(node.delay, np.float64) / self.dt
            if not np.allclose(steps, 1) or before.delay:
                raise IncompatibleError(
                    "a connection is delayed by one time step at most",
                    received=f"{name!r}, {np.ravel(steps)[0]:g} steps of {self.dt:g} s",
                )
            return replace(way, delay=1)
        if kind == "Conv2d" and way.matrix is None and way.convolution is None:
            return replace(way, convolution=self._convolution(name))
        size = self._size_of(before.source)
        return replace(way, matrix=before.whole(size) @ self._matrix(name), convolution=None)

    def _size_of(self, source: str) -> int:
        return self.neurons[source].gain.size if source in self.neurons else int(np.prod(self._shape(source)))

    def _matrix(self, name: str) -> np.ndarray:
        """A node as a matrix [source, target]."""
        node, kind = self.nodes[name], self._kind(name)
        if kind == "Scale":
            return np.diag(np.asarray(node.scale, np.float64).reshape(-1))
        if kind == "Conv2d":
            of, weights = self._convolution(name)
            return of.sharing().spread(get_backend("numpy"), weights)
        return np.asarray(node.weight, np.float64).T

    def _biased(self, name: str, before: np.ndarray, size: int) -> np.ndarray:
        """What a node adds to what arrives, of what was added before it."""
        node, kind = self.nodes[name], self._kind(name)
        if kind in ("Flatten", "Delay"):
            return before
        passed = before @ self._matrix(name) if np.any(before) else np.zeros(size)
        if kind == "Affine":
            return passed + np.asarray(node.bias, np.float64)
        if kind == "Conv2d" and node.bias is not None:
            return passed + np.repeat(np.asarray(node.bias, np.float64), size // len(node.bias))
        return passed

    def _convolution(self, name: str) -> tuple[Convolution, np.ndarray]:
        node = self.nodes[name]
        if tuple(np.ravel(node.dilation)) not in ((1,), (1, 1)) or node.groups != 1 or node.input_shape is None:
            raise IncompatibleError(
                "convolutions are of one group, not dilated, and of pictures whose shape is known",
                received=f"{name!r}: dilation={node.dilation}, groups={node.groups}, input_shape={node.input_shape}",
            )
        filters, channels, *window = node.weight.shape
        of = Convolution(
            [int(each) for each in node.input_shape],
            filters,
            window,
            [int(each) for each in np.broadcast_to(node.stride, 2)],
            channels,
            self._padding(name, window),
        )
        return of, np.asarray(node.weight, np.float64).reshape(filters, -1).T

    def _padding(self, name: str, window: list[int]) -> list[int]:
        given = self.nodes[name].padding
        if isinstance(given, bytes):
            given = given.decode()
        if isinstance(given, str) and given == "valid":
            return [0, 0]
        if isinstance(given, str):
            if any(side % 2 == 0 for side in window):
                raise IncompatibleError(
                    "padding is the same on both sides of a picture",
                    received=f"{name!r}, 'same' with a window {window}",
                )
            return [side // 2 for side in window]
        return [int(each) for each in np.broadcast_to(given, 2)]

    def _connection(
        self, name: str, way: Way, delay: int, gain: np.ndarray, sizes: dict[str, int]
    ) -> tuple[Connection, np.ndarray]:
        """A connection and its weights, those of the neurons' gain in them."""
        source = INPUT if way.source == self.begin else way.source
        label = "_".join(
            each.removeprefix(f"{name}_") for each in way.names if self._kind(each) not in ("Flatten", "Delay")
        )
        given: dict[str, Any] = {"source": source, "target": name, "delay": delay, "label": label or f"from_{source}"}
        if way.convolution is not None:
            of, weights = way.convolution
            rows = gain.reshape(of.filters, -1)
            if np.all(rows == rows[:, :1]) and source != name:
                return Connection(**given, connectivity=of), weights * rows[:, 0]
        matrix = way.whole(sizes[way.source]) * gain
        if matrix.shape != (sizes[way.source], sizes[name]):
            raise IncompatibleError(
                f"what leads from {way.source} to {name} must fit to both",
                received=f"{matrix.shape[0]} to {matrix.shape[1]} of {sizes[way.source]} to {sizes[name]}",
            )
        if source == name:
            given["autapses"] = bool(np.any(matrix.diagonal()))
        if way.matrix is None and way.convolution is None:
            given["connectivity"] = "one_to_one"
        return Connection(**given), matrix

    def _order(self, senders: dict[str, list[str]]) -> dict[str, int]:
        """A number of every node of neurons: an edge that does not lead to a higher one closes a circle."""
        found: dict[str, int] = {}
        begun: set[str] = set()

        def after(name: str) -> None:
            if name in begun or name == self.begin:
                return
            begun.add(name)
            for source in senders.get(name, ()):
                after(source)
            found[name] = len(found)

        for name in [*(n for n in senders if n != self.end), *senders]:
            after(name)
        return found


def _few(values: np.ndarray) -> float | list[float]:
    """One number where all are the same."""
    return float(values[0]) if np.all(values == values[0]) else values.tolist()
