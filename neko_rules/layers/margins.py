"""Margins: how far every neuron of a forward pass was from its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.errors import IncompatibleError
from neko_rules.layers.cell import CellOperations, namespace
from neko_rules.layers.forward import Trajectory
from neko_rules.layers.network import Network


class _Watching:
    """The operations of a cell on NumPy, remembering the argument of its spike."""

    def __init__(self, surrogate: Any) -> None:
        self._operations = CellOperations(get_backend("numpy"), surrogate)
        self.seen: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def spike(self, u: np.ndarray) -> np.ndarray:
        """1 where u > 0."""
        self.seen.append(u)
        return np.asarray(self._operations.spike(u))


def constants_of(network: Network, population: str, parameters: Mapping[str, np.ndarray] | None = None) -> Any:
    """A population's constants as NumPy arrays, the learned ones from the parameters."""
    cell = network.graph.cell(population)
    constants: dict[str, Any] = {name: np.asarray(value) for name, value in cell.constants(network.dt).items()}
    given = network.parameters if parameters is None else parameters
    for parameter, (owner, constant, _, _) in network.learned.items():
        if owner == population:
            constants[constant] = given[parameter]
    return namespace(constants)


def margins(
    network: Network, trajectory: Trajectory, population: str, parameters: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """u of a population at every step, [time, batch, neuron]: the argument of its spike, z = [u > 0], dimensionless.

    Args:
        network: whose forward pass it was.
        trajectory: NumPy arrays, as ``Evaluator.trajectory`` gives them.
        population: of spiking neurons.
        parameters: of the forward pass; the network's own by default.

    Raises:
        IncompatibleError: its neurons do not spike.

    Example:
        >>> from neko_rules import LIF, Evaluator
        >>> model = Evaluator(LIF(3, 2, inputs=4))
        >>> u = margins(model.network, model.trajectory(np.zeros((1, 5, 4))), "hidden")
        >>> u.shape, float(u[0, 0, 0])
        ((5, 1, 3), -1.0)
    """
    cell = network.graph.cell(population)
    if not cell.spiking:
        raise IncompatibleError("only spiking neurons have a threshold", received=f"{population}: {cell!r}")
    operations = _Watching(cell.surrogate)
    constants = constants_of(network, population, parameters)
    cell.emit(operations, constants, namespace(trajectory.records[population].states))
    return operations.seen[0]


def thresholds(network: Network, trajectory: Trajectory, population: str) -> np.ndarray:
    """The threshold that the membrane v has to exceed, v - θ u, [time, batch, neuron]: θ + β a_t of an ALIF neuron.

    Raises:
        IncompatibleError: its neurons have no state v or no constant θ.

    Example:
        >>> from neko_rules import LIF, Evaluator
        >>> model = Evaluator(LIF(3, 2, inputs=4, threshold=0.5))
        >>> float(thresholds(model.network, model.trajectory(np.ones((1, 5, 4))), "hidden").max().round(6))
        0.5
    """
    constants, states = constants_of(network, population), trajectory.records[population].states
    if "v" not in states or not hasattr(constants, "theta"):
        raise IncompatibleError(
            "a threshold can be drawn beside a membrane v that is compared with a constant θ",
            received=f"{population} with states {', '.join(states)}",
        )
    return np.asarray(states["v"] - constants.theta * margins(network, trajectory, population))
