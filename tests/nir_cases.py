"""Networks that NIR can say, and what tests of the exchange compare."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from neko_rules import ALIF, LIF, Connection, Convolution, Evaluator, Layer, Network, PooledDense, Stack, quantize

N = 6
TAU = [4e-3, 7e-3, 11e-3, 20e-3, 33e-3, 60e-3]
SYN = [2e-3, 3e-3, 5e-3, 9e-3, 4.5e-3, 14e-3]
THETA = [0.3, 0.5, 0.7, 0.9, 1.1, 0.4]

NEURONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LIF and LI": (
        {"name": "lif", "tau_membrane": TAU, "threshold": THETA, "reset": "zero"},
        {"name": "leaky_readout", "tau_membrane": [5e-3, 40e-3]},
    ),
    "LIF and LI by decays": (
        {"name": "lif", "membrane_decay": [0.3, 0.5, 0.7, 0.9, 0.95, 0.99], "threshold": THETA, "reset": "zero"},
        {"name": "leaky_readout", "membrane_decay": [0.6, 0.97]},
    ),
    "IF and I": (
        {"name": "if", "threshold": THETA, "reset": "zero"},
        {"name": "leaky_readout", "membrane_decay": 1.0},
    ),
    "CubaLIF and CubaLI": (
        {"name": "lif", "tau_membrane": TAU, "tau_synapse": SYN, "threshold": THETA, "reset": "zero"},
        {"name": "leaky_readout", "tau_membrane": [5e-3, 40e-3], "tau_synapse": [5.5e-3, 3e-3]},
    ),
    "CubaLIF and CubaLI by decays": (
        {"name": "lif", "membrane_decay": 0.9, "synapse_decay": [0.2, 0.4, 0.6, 0.8, 0.85, 0.95], "reset": "zero"},
        {"name": "leaky_readout", "membrane_decay": [0.6, 0.97], "synapse_decay": 0.5},
    ),
    "Threshold and Affine": (
        {"name": "lif", "membrane_decay": 0.0, "threshold": THETA, "reset": "zero"},
        {"name": "leaky_readout", "tau_membrane": 0.0},
    ),
}


def randomised(network: Network, seed: int = 5) -> Network:
    """The network with biases that are not zero, too."""
    rng = np.random.default_rng(seed)
    given = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in network.parameters.items()}
    for connection in network.partial.values():
        connection.clear(given[connection.weight])
    network.set_parameters({name: value for name, value in given.items() if name.endswith((".weight", ".bias"))})
    return network


def stack(neurons: str, recurrent: bool = True, dt: float = 1e-3, **options: Any) -> Network:
    cell, readout = NEURONS[neurons]
    layers = [Layer(cell, N, recurrent=recurrent)]
    return randomised(Stack(layers, 2, output_cell=readout, inputs=4, dtype="float64", dt=dt, **options))


def data(inputs: int = 4, steps: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1.0, size=(3, steps, inputs))


def outputs(network: Network, x: np.ndarray) -> np.ndarray:
    return Evaluator(network).predict(x)


def spikes(network: Network, x: np.ndarray, name: str = "hidden") -> np.ndarray:
    found = network.forward(network.seen(network.values), network.nx.asarray(x.swapaxes(0, 1), network.dtype))
    return network.nx.to_numpy(found.z(name))


def order(graph: Any, network: Network) -> list[str]:
    return [name for name in network.graph.order if not isinstance(graph.nodes[name], nir.Output)]


def feedback() -> Network:
    """Populations that feed back, skip, delay, and a sparse connection."""
    cell = {"name": "lif", "tau_membrane": 8e-3, "threshold": 0.5, "reset": "zero"}
    return Network(
        {
            "early": {"cell": cell, "size": 5},
            "late": {"cell": {**cell, "tau_synapse": 3e-3}, "size": 4, "bias": False},
            "readout": {"cell": "leaky_readout", "size": 2},
        },
        [
            Connection("input", "early", connectivity=0.5),
            Connection("early", "late"),
            Connection("late", "early", delay=1),
            Connection("early", "early", delay=1, autapses=True),
            Connection("late", "late", delay=1),
            Connection("early", "readout"),
            Connection("late", "readout"),
            Connection("late", "readout", delay=1, label="again"),
            Connection("input", "late", delay=1),
        ],
        "readout",
        inputs=4,
        dtype="float64",
    )


def against_the_walk() -> Network:
    """A cycle whose late connection is the one that a walk from the input goes along."""
    cell = {"name": "lif", "threshold": 0.4, "reset": "zero"}
    return Network(
        {"b": {"cell": cell, "size": 4}, "a": {"cell": cell, "size": 3}, "out": {"cell": "leaky_readout", "size": 2}},
        [
            Connection("input", "a"),
            Connection("a", "b", delay=1),
            Connection("b", "a"),
            Connection("input", "b"),
            Connection("b", "out"),
        ],
        "out",
        inputs=4,
        dtype="float64",
    )


def pictures(recurrent: bool = False, cell: dict[str, Any] | None = None, window: Any = 3) -> Network:
    first = Convolution((8, 7), filters=3, window=window, stride=2, channels=2, padding=1)
    second = Convolution(first.places, filters=4, window=2, channels=3)
    cell = cell or {"name": "lif", "threshold": 0.4, "reset": "zero", "tau_membrane": 6e-3}
    layers = [Layer(cell, connectivity=each, recurrent=recurrent) for each in (first, second)]
    return Stack(layers, 3, inputs=112, dtype="float64", seed=2)


def pooled() -> Network:
    """Pool, convolution, pool, convolution, pool, dense; a column of the input and one of the first fill no patch."""
    first = Convolution((8, 7), filters=3, window=3, channels=2, padding=1, pool=2)
    second = Convolution(first.places, filters=4, window=1, channels=3, pool=(1, 2))
    last = PooledDense(second.places, neurons=3, pool=(3, 1), channels=4)
    cell = {"name": "lif", "threshold": 0.3, "reset": "zero", "tau_membrane": 6e-3}
    layers = [Layer(cell, connectivity=each, recurrent=False) for each in (first, second)]
    return Stack(layers, 3, inputs=112, dtype="float64", seed=2, readout_connectivity=last)


NETWORKS: dict[str, Any] = {
    **{name: lambda name=name: stack(name) for name in NEURONS},
    "several layers": lambda: LIF([7, 5], 3, inputs=4, reset="zero", threshold=0.4, dtype="float64", seed=3),
    "spiking output": lambda: LIF(
        7, 3, inputs=4, reset="zero", output_cell={"name": "lif", "reset": "zero", "threshold": 0.3}, dtype="float64"
    ),
    "no adaptation": lambda: ALIF(7, 3, inputs=4, reset="zero", beta=0.0, threshold=0.4, dtype="float64"),
    "learned": lambda: LIF(
        7,
        3,
        inputs=4,
        reset="zero",
        tau_synapse=4e-3,
        learnable=["threshold", "membrane_decay", "synapse_decay"],
        dtype="float64",
    ),
    "feedback": feedback,
    "against the walk": against_the_walk,
    "pictures": pictures,
    "pictures, recurrent": lambda: pictures(recurrent=True),
    "pictures, synapses": lambda: pictures(
        cell={"name": "lif", "threshold": 0.4, "reset": "zero", "tau_synapse": 3e-3}
    ),
    "pictures, no leak": lambda: pictures(cell={"name": "if", "threshold": 0.9, "reset": "zero"}),
    "pictures, oblong": lambda: pictures(window=(3, 2)),
    "pooled": pooled,
    "weights of 3 bits": lambda: quantize(stack("LIF and LI"), weight_bits=3),
}


def random_network(seed: int) -> Network:
    """Neurons of all kinds, connected at random: skips, feedback, delays, sparse connections, in any order."""
    rng = np.random.default_rng(seed)
    kinds: list[dict[str, Any]] = [
        {"name": "lif", "reset": "zero", "threshold": 0.3, "tau_membrane": rng.uniform(2e-3, 3e-2)},
        {"name": "lif", "reset": "zero", "threshold": 0.4, "tau_synapse": rng.uniform(1e-3, 1e-2)},
        {"name": "lif", "reset": "zero", "threshold": 0.3, "membrane_decay": 0.0},
        {"name": "if", "reset": "zero", "threshold": 2.0},
        {"name": "leaky_readout", "tau_membrane": 5e-3},
    ]
    # Names in no order, by which a file is read.
    names = [f"p{rng.integers(1000)}_{place}" for place in range(rng.integers(1, 5))]
    populations: dict[str, Any] = {
        name: {"cell": kinds[rng.integers(5)], "size": int(rng.integers(1, 5)), "bias": bool(rng.integers(2))}
        for name in names
    }
    memory = {"name": "leaky_readout", "tau_membrane": float(rng.choice([0.0, 1e-2]))}
    populations["out"] = {"cell": memory, "size": 2, "bias": bool(rng.integers(2))}
    ways = [("input", names[0]), *((name, "out") for name in names)]
    ends = [(source, target) for source in ("input", *names) for target in names if rng.random() < 0.4]
    connections = []
    for place, (source, target) in enumerate([*ways, *ends]):
        back = source in names and target in names and names.index(source) >= names.index(target)
        late, own = back or rng.random() < 0.3, bool(source == target and rng.random() < 0.5)
        share = float(rng.choice([0.5, 1.0]))
        label = f"way{place}"
        connections.append(Connection(source, target, delay=int(late), label=label, connectivity=share, autapses=own))
    mixed = [connections[place] for place in rng.permutation(len(connections))]
    return randomised(Network(populations, mixed, "out", inputs=3, dtype="float64", seed=seed), seed)
