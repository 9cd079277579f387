"""Regularizers: penalties on the spikes themselves, added to the loss to keep a network alive and sparse.

A regularizer sees the spikes of every spiking layer, time-major, and gives a scalar E and dE/dz, which joins the
learning signal of each layer like the derivative of the loss does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from neko_rules.arguments import number
from neko_rules.backend import Array, Backend
from neko_rules.errors import IncompatibleError
from neko_rules.registry import Registry

__all__ = ["REGULARIZERS", "FiringRate", "Regularizer"]


class Regularizer(ABC):
    """A penalty on spikes."""

    @abstractmethod
    def value(self, nx: Backend, spikes: Mapping[str, Array], dt: float) -> Array:
        """The penalty E, a scalar.

        Args:
            nx: the backend of the arrays.
            spikes: of every spiking layer by name, 0 or 1, [time, batch, neuron].
            dt: time step in s.
        """

    @abstractmethod
    def gradient(self, nx: Backend, spikes: Mapping[str, Array], dt: float) -> dict[str, Array]:
        """dE/dz of every layer, in a shape that broadcasts to [time, batch, neuron]."""


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", Regularizer)  # type: ignore[type-abstract]


@REGULARIZERS.register("firing_rate", "rate")
@dataclass(frozen=True)
class FiringRate(Regularizer):
    """E = ½ c Σ_j ((f_j - f*) dt)²: pulls the mean firing rate f_j of every neuron towards a target f*.

    f_j is the mean over batch and time, so dE/dz_j = c (f_j - f*) dt / (T B) at every step of every example. Rates
    enter in spikes per time step, so c has no dimension and the penalty of a given rate does not depend on T and B.

    Args:
        target: f*, in Hz, at least 0.
        strength: c, at least 0.

    Reference:
        G. Bellec, F. Scherr, A. Subramoney, E. Hajek, D. Salaj, R. Legenstein, W. Maass, "A solution to the learning
        dilemma for recurrent networks of spiking neurons", Nature Communications 11, 2020, Methods.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> spikes = {"hidden": np.array([1.0, 0.0, 0.0, 0.0]).reshape(4, 1, 1)}
        >>> FiringRate(target=50.0).value(get_backend("numpy"), spikes, dt=1e-3).item()
        0.02...
        >>> FiringRate(target=50.0).gradient(get_backend("numpy"), spikes, dt=1e-3)
        {'hidden': array([[[0.05]]])}
    """

    target: float = 10.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", number("target", self.target, at_least=0))
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))

    def value(self, nx: Backend, spikes: Mapping[str, Array], dt: float) -> Array:
        """½ c Σ_j ((f_j - f*) dt)² over the neurons of all layers."""
        _check_spiking(spikes)
        excess = (self._excess(nx, layer, dt) for layer in spikes.values())
        layers = [nx.sum(per_neuron * per_neuron) for per_neuron in excess]
        return (0.5 * self.strength) * sum(layers[1:], layers[0])

    def gradient(self, nx: Backend, spikes: Mapping[str, Array], dt: float) -> dict[str, Array]:
        """c (f_j - f*) dt / (T B), [1, 1, neuron] for every layer."""
        _check_spiking(spikes)
        return {
            name: (self.strength / (layer.shape[0] * layer.shape[1])) * self._excess(nx, layer, dt)
            for name, layer in spikes.items()
        }

    def _excess(self, nx: Backend, layer: Array, dt: float) -> Array:
        """(f_j - f*) dt, [1, 1, neuron]."""
        return nx.mean(layer, axis=(0, 1), keepdims=True) - self.target * dt


def _check_spiking(spikes: Mapping[str, Array]) -> None:
    if not spikes:
        raise IncompatibleError(
            "a firing-rate regularizer needs spiking neurons, and the network has none",
            works="use spiking neurons such as LIF or ALIF, or leave the regularizer out",
        )
