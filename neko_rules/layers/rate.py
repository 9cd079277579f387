"""Rate units: leaky tanh and ReLU neurons, on which a gradient can be checked by finite differences.

    v_t = α v_{t-1} + I_t        z_t = tanh(v_t)  or  max(0, v_t)

With α = 0 (τ_membrane = 0, the default) these are the units of an Elman network. Synapses may have a memory, as those
of every ``membrane``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neko_rules.layers.cell import CELLS, PerNeuron
from neko_rules.layers.membrane import Membrane
from neko_rules.surrogates import Surrogate


@dataclass(frozen=True)
class _Leaky(Membrane):
    """A membrane without spikes."""

    tau_membrane: PerNeuron = 0.0
    # Without spikes there is no choice of a surrogate, so this is no argument.
    surrogate: Surrogate | str | Mapping[str, Any] = field(default="straight_through", init=False, repr=False)

    states = ("v",)
    spiking = False

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        return self._decays(dt)

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        driving, synapses = self._arriving(p, s, current)
        return {"v": p.alpha * s.v + driving, **synapses}


@CELLS.register("tanh")
@dataclass(frozen=True)
class TanhCell(_Leaky):
    """Leaky tanh unit: v_t = α v_{t-1} + I_t, z_t = tanh(v_t).

    Args:
        tau_membrane: τ in seconds, a number or one per neuron; 0 means no memory.
        membrane_decay: α given directly, instead of ``tau_membrane``.
        tau_synapse, synapse_decay: as for LIFCell.
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``, ``"synapse_decay"``.

    Example:
        >>> TanhCell(membrane_decay=0.5).constants(dt=1e-3)
        {'alpha': 0.5}
    """

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.tanh(s.v)


@CELLS.register("relu")
@dataclass(frozen=True)
class ReLUCell(_Leaky):
    """Leaky rectified linear unit: v_t = α v_{t-1} + I_t, z_t = max(0, v_t); the derivative at 0 is 0.

    Args:
        tau_membrane: τ in seconds, a number or one per neuron; 0 means no memory.
        membrane_decay: α given directly, instead of ``tau_membrane``.
        tau_synapse, synapse_decay: as for LIFCell.
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``, ``"synapse_decay"``.

    Example:
        >>> ReLUCell().constants(dt=1e-3)
        {'alpha': 0.0}
    """

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.where(s.v > 0, s.v, 0 * s.v)


@CELLS.register("leaky_readout")
@dataclass(frozen=True)
class LeakyReadoutCell(_Leaky):
    """Leaky readout: y_t = κ y_{t-1} + I_t, κ = exp(-dt/τ_membrane), a linear unit that is its own output.

    Args:
        tau_membrane: τ in seconds, a number or one per neuron; 0 means no memory.
        membrane_decay: κ given directly, instead of ``tau_membrane``.
        tau_synapse, synapse_decay: as for LIFCell.
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``, ``"synapse_decay"``.

    Example:
        >>> round(LeakyReadoutCell(tau_membrane=20e-3).constants(dt=1e-3)["alpha"], 4)
        0.9512
    """

    tau_membrane: PerNeuron = 20e-3

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return s.v
