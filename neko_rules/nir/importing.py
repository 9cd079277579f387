"""Import: a graph of NIR as a network.

Nodes with a state are populations. What lies between two of them is linear and is folded, with R, w_in and the leak of
the neurons, into the weights of one connection and the biases of its target.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Backend
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, nearest, warn
from neko_rules.layers.graph import INPUT, Connection, Population
from neko_rules.layers.integrate_and_fire import RESETS
from neko_rules.layers.network import Network
from neko_rules.layers.rate import LeakyReadoutCell
from neko_rules.nir.cycles import closing
from neko_rules.nir.equations import SCHEMES
from neko_rules.nir.library import library, read
from neko_rules.nir.maps import LinearMap
from neko_rules.nir.naming import OURS, bias_node, label_of
from neko_rules.nir.neurons_read import NEURONS, Read, Reading, read_neurons
from neko_rules.nir.transforms import TRANSFORMS, Transforms
from neko_rules.surrogates import Surrogate


def from_nir(
    graph: Any,
    dt: float | None = None,
    *,
    backend: str | Backend = "numpy",
    dtype: str = "float32",
    task_type: str = "classification",
    readout: str = "sequence",
    approximate: bool = False,
    scheme: str | None = None,
    reset: str = "zero",
    surrogate: Surrogate | str | Mapping[str, Any] = "triangular",
) -> Network:
    """A network from a graph of NIR, or the path of a file that holds one.

    Args:
        graph: a ``nir.NIRGraph`` or a path. Taken are LIF, LI, IF, I, CubaLIF, CubaLI, Threshold; Linear, Affine,
            Conv2d, AvgPool2d, Scale, Flatten, Delay of one step; graphs within; one Input and one Output.
        dt: seconds of a time step, which NIR leaves open; left out, what ``to_nir`` noted, or 1 ms.
        backend, dtype, task_type, readout: as for Network.
        approximate: whether what has no counterpart is done as nearly as it can be, with a warning that lists it.
        scheme: how a step follows from the differential equations: ``"exponential"``, exactly, or ``"euler"``; left
            out, what ``to_nir`` noted, or exactly.
        reset: what a spike does: ``"zero"`` sets v to v_reset, as NIR says; ``"subtract"`` or ``"none"`` for files of
            programs that mean that and cannot say it.
        surrogate: ψ of the neurons that spike, which NIR does not say.

    Potentials start at v_reset, those of LI, CubaLI and I at 0. Of every cycle one connection acts a step later: that
    from a population to itself, or the one that leads back on the way from the input.

    Raises:
        NekoError: the library ``nir`` is not installed.
        IncompatibleError: a node, or a parameter of one, has no counterpart here.
        DataError: the file cannot be read, or the graph does not fit together.

    Example:
        >>> from neko_rules import LIF
        >>> from neko_rules.nir import to_nir
        >>> network = LIF(8, 2, inputs=3, reset="zero")
        >>> again = from_nir(to_nir(network), backend="numpy")
        >>> again
        Network(hidden 8, readout 2; numpy, float32)
        >>> np.allclose(again.parameters["hidden.recurrent.weight"], network.parameters["hidden.recurrent.weight"])
        True
    """
    nir = library()
    if isinstance(graph, str | os.PathLike):
        graph = read(graph)
    if not isinstance(graph, nir.NIRGraph):
        raise ArgumentError("from_nir takes a nir.NIRGraph or the path of a file", received=type(graph).__name__)
    noted = graph.metadata.get(OURS, {}) if isinstance(graph.metadata, Mapping) else {}
    dt = arguments.number("dt", float(noted.get("dt", 1e-3)) if dt is None else dt, above=0)
    scheme = arguments.choice("scheme", str(noted.get("scheme", SCHEMES[0])) if scheme is None else scheme, SCHEMES)
    how = Reading(dt, scheme, arguments.choice("reset", reset, RESETS), surrogate)
    arguments.flag("approximate", approximate)
    reader = _Reader(*inlined(graph, nir.NIRGraph), how)
    network = reader.network(backend=backend, dtype=dtype, task_type=task_type, readout=readout, dt=dt)
    if reader.left_out and not approximate:
        raise IncompatibleError(
            f"not all of this graph has a counterpart here: {'; '.join(reader.left_out)}",
            works="change it, or take what is nearest by approximate=True",
        )
    if reader.left_out:
        warn("not all of this graph has a counterpart here", works=f"done nearly is {'; '.join(reader.left_out)}")
    return network


def inlined(graph: Any, kind: type, before: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges of a graph with those of the graphs within; their Input and Output pass on what they get.

    Args:
        graph: the graph.
        kind: the class of graphs.
        before: what names of nodes begin with.

    Raises:
        DataError: an edge ends at no node, or a graph within has not one Input and one Output.
    """
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    begin: dict[str, str] = {}
    end: dict[str, str] = {}
    for name, node in graph.nodes.items():
        full = f"{before}{name}"
        if not isinstance(node, kind):
            nodes[full] = node
            continue
        inner, within = inlined(node, kind, f"{full}_")
        for role, ends in (("Input", begin), ("Output", end)):
            # Only those of this very graph: the ones of graphs in it pass on already.
            own = [each for each in inner if type(inner[each]).__name__ == role and each in _own(node, f"{full}_")]
            if len(own) != 1:
                raise DataError(f"the graph {full!r} within a graph must have one {role}", received=f"{len(own)}")
            ends[full] = own[0]
        nodes |= inner
        edges += within
    for source, target in graph.edges:
        source, target = f"{before}{source}", f"{before}{target}"
        for each in (source, target):
            if each not in nodes and each not in begin:
                raise DataError("an edge must end at a node", received=each, works=nearest(each, nodes))
        edges.append((end.get(source, source), begin.get(target, target)))
    return nodes, edges


def _own(graph: Any, before: str) -> set[str]:
    return {f"{before}{name}" for name in graph.nodes}


@dataclass(frozen=True)
class _Path:
    """What leads from a population to another: the nodes between, and the edge that it begins with."""

    source: str
    target: str
    between: tuple[str, ...]
    begin: int


class _Reader:
    """A graph as it is taken apart."""

    def __init__(self, nodes: dict[str, Any], edges: list[tuple[str, str]], how: Reading) -> None:
        self.nodes, self.how = nodes, how
        self.left_out: list[str] = []
        self.into: dict[str, list[tuple[int, str]]] = {name: [] for name in nodes}
        for place, (source, target) in enumerate(edges):
            self.into[target].append((place, source))
        leaving = {source for source, _ in edges}
        self.kinds = {name: type(node).__name__ for name, node in nodes.items()}
        for name, kind in self.kinds.items():
            if kind not in (*NEURONS, *TRANSFORMS, "Input", "Output"):
                raise IncompatibleError(
                    f"a node of this kind has no counterpart here: {kind} {name!r}",
                    works=f"nodes are {', '.join((*NEURONS, *TRANSFORMS))}",
                )
        self.input = self._only("Input", [name for name in nodes if not self.into[name]])
        self.output = self._only("Output", [name for name in nodes if name not in leaving])
        self.transforms = Transforms(nodes, self.kinds, self.into, self.input, how.dt)

    def _only(self, kind: str, outermost: list[str]) -> str:
        found = [name for name in outermost if self.kinds[name] == kind]
        if len(found) != 1:
            raise IncompatibleError(f"a network has one {kind}", received=f"{len(found)}: {', '.join(found)}")
        return found[0]

    def _is_population(self, name: str) -> bool:
        return self.kinds[name] in NEURONS

    def network(self, **options: Any) -> Network:
        """The whole of it."""
        populations = [name for name in self.nodes if self._is_population(name)]
        paths = [path for name in populations for path in self._paths(name)]
        last = list(self._paths(self.output))
        alone = len(last) == 1 and self._is_population(last[0].source)
        if alone and not self.transforms.changes(last[0].between):
            output = last[0].source
        else:
            # What is read out of no neuron, or of several, is the sum of their weighted outputs.
            output = self.output
            populations.append(output)
            paths += last
        paths.sort(key=lambda path: path.begin)
        called = _called(populations)
        sizes = {name: self.transforms.size(name) for name in populations}
        neurons = {name: self._neurons(name, sizes[name]) for name in populations}
        ends = [(INPUT if path.source == self.input else path.source, path.target) for path in paths]
        steps = [self.transforms.steps(path.between) for path in paths]
        same = [place for place, each in enumerate(steps) if not each]
        late = {same[place] for place in closing([ends[place] for place in same], INPUT)}
        connections: list[Connection] = []
        weights: dict[str, np.ndarray] = {}
        for place, path in enumerate(paths):
            folded = self._folded(path, neurons[path.target].gain)
            if path.between[-1:] == (bias_node(path.target),) and not folded.matrix().any():
                continue  # What to_nir put there for its bias alone.
            target, names = called[path.target], {each.weight for each in connections}
            label = self._label(path, names, target)
            source = called.get(path.source, INPUT)
            delay = steps[place] or int(place in late)
            connections.append(_connection(source, target, label, delay, folded))
            weights[connections[-1].weight] = folded.parameter()
        # After the weights, so that all shapes are known to fit.
        biases = {name: self._bias(name, neurons[name]) for name in populations}
        made = Network(
            {
                called[name]: Population(neurons[name].cell, sizes[name], bias=biases[name] is not None)
                for name in populations
            },
            connections,
            called[output],
            inputs=self.transforms.size(self.input),
            **options,
        )
        given = {f"{called[name]}.bias": bias for name, bias in biases.items() if bias is not None}
        made.set_parameters({**weights, **given})
        return made

    def _folded(self, path: _Path, gain: np.ndarray) -> LinearMap:
        """What a path does, with what its target makes of it."""
        found = self.transforms.folded(path.source, path.between)
        if found.size != gain.size:
            raise DataError(
                f"{self.kinds[path.target]} {path.target!r} has {gain.size} neurons, which take as many values",
                received=f"{found.size} of them from {path.source!r}",
            )
        return found.scaled(gain)

    def _neurons(self, name: str, size: int) -> Read:
        if self._is_population(name):
            return read_neurons(name, self.nodes[name], size, self.how, self.left_out)
        return Read(LeakyReadoutCell(0.0), np.ones(size), np.zeros(size))

    def _bias(self, name: str, neurons: Read) -> np.ndarray | None:
        """The constant input, of the nodes before a population and of its leak voltage; None where nothing has one."""
        found = self.transforms.bias(name)
        if found is None and not neurons.bias.any():
            return None
        return neurons.bias + (0.0 if found is None else found * neurons.gain)

    def _paths(self, target: str) -> Iterator[_Path]:
        """All that leads into a population, or to the output."""
        for place, source in self.into[target]:
            yield from self._back(source, (), place, target)

    def _back(self, name: str, after: tuple[str, ...], place: int, target: str) -> Iterator[_Path]:
        if name == self.input or self._is_population(name):
            yield _Path(name, target, after, place)
            return
        if name in after:
            raise IncompatibleError("a cycle goes through a neuron", received=" → ".join((name, *after)))
        for before, source in self.into[name]:
            yield from self._back(source, (name, *after), before, target)

    def _label(self, path: _Path, taken: set[str], target: str) -> str:
        """The middle of a weight's name: after the node that holds the weights, without the target's name before it."""
        holding = [name for name in path.between if self.kinds[name] in ("Linear", "Affine", "Conv2d")]
        chosen = (holding or list(path.between) or [f"from_{path.source}"])[-1]
        label = label_of(chosen, path.target)
        while f"{target}.{label}.weight" in taken:
            label += f"_{path.source}"
        return label


def _called(populations: list[str]) -> dict[str, str]:
    """Node → population: the data have taken one name."""
    return {name: f"{name}_" if name == INPUT else name for name in populations}


def _connection(source: str, target: str, label: str, delay: int, folded: LinearMap) -> Connection:
    own = source == target and delay == 1
    if folded.factors is not None:
        return Connection(source, target, delay, autapses=own, label=label, connectivity="one_to_one")
    if folded.shared is not None:
        return Connection(source, target, delay, autapses=own, label=label, connectivity=folded.shared)
    autapses = own and bool(folded.matrix().diagonal().any())
    return Connection(source, target, delay, autapses=autapses, label=label)
