"""Rate units: leaky tanh and ReLU neurons, on which a gradient can be checked by finite differences.

    v_t = α v_{t-1} + I_t        z_t = tanh(v_t)  or  max(0, v_t)

With α = 0 (τ_membrane = 0, the default) these are the units of an Elman network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neko_rules.layers.cell import CELLS, Cell, PerNeuron, Trainable, decay
from neko_rules.surrogates import Surrogate


@dataclass(frozen=True)
class _Leaky(Cell):
    """A membrane without spikes."""

    tau_membrane: PerNeuron = 0.0
    membrane_decay: PerNeuron | None = None
    # Without spikes there is no choice of a surrogate, so this is no argument.
    surrogate: Surrogate | str | Mapping[str, Any] = field(default="straight_through", init=False, repr=False)

    states = ("v",)
    spiking = False
    trainable = {"membrane_decay": Trainable("alpha", lowest=0, highest=1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_decay("tau_membrane", "membrane_decay")

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        return {"alpha": decay(self.tau_membrane, self.membrane_decay, dt)}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": p.alpha * s.v + current}


@CELLS.register("tanh")
@dataclass(frozen=True)
class TanhCell(_Leaky):
    """Leaky tanh unit: v_t = α v_{t-1} + I_t, z_t = tanh(v_t).

    Args:
        tau_membrane: τ in seconds, a number or one per neuron; 0 means no memory.
        membrane_decay: α given directly, instead of ``tau_membrane``.
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``.

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
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``.

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
        learnable: arguments that are learned, one value per unit: ``"membrane_decay"``.

    Example:
        >>> round(LeakyReadoutCell(tau_membrane=20e-3).constants(dt=1e-3)["alpha"], 4)
        0.9512
    """

    tau_membrane: PerNeuron = 20e-3

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return s.v
