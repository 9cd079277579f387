"""Integrate-and-fire neurons: without leak (IF), with leak (LIF), and with an adaptive threshold (ALIF).

    v_t = α v_{t-1} + I_t - θ z_{t-1}            reset by subtraction
    v_t = α v_{t-1} (1 - z_{t-1}) + I_t          reset to zero
    a_t = ρ a_{t-1} + z_{t-1}
    u_t = (v_t - θ - β a_t)/θ                    z_t = [u_t > 0]

α = exp(-dt/τ_membrane), ρ = exp(-dt/τ_adaptation). Synapses may have a memory, i_t = ε i_{t-1} + I_t with
ε = exp(-dt/τ_synapse), and i_t then drives the membrane in the place of I_t. With a refractory period of n steps, z = 0
and dz/du = 0 in the n steps after a spike. Voltages, θ and β are in the units of the weights; τ and the refractory
period in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from neko_rules import arguments
from neko_rules.layers.cell import CELLS, Cell, PerNeuron, Trainable, decay
from neko_rules.layers.membrane import Membrane

RESETS = ("subtract", "zero", "none")


@dataclass(frozen=True)
class _Spiking(Cell):
    """What the family shares: threshold, reset, refractory period."""

    threshold: PerNeuron = 1.0
    reset: str = "subtract"
    detach_reset: bool = True
    refractory_period: PerNeuron = 0.0

    states: ClassVar[tuple[str, ...]] = ("v",)
    trainable: ClassVar[dict[str, Trainable]] = {"threshold": Trainable("theta", lowest=1e-3)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("threshold", above=0)
        self._check("refractory_period", at_least=0)
        arguments.choice("reset", self.reset, RESETS)
        arguments.flag("detach_reset", self.detach_reset)

    @property
    def refractory(self) -> bool:
        """Whether any neuron has a refractory period."""
        periods = self.refractory_period
        return any(periods) if isinstance(periods, tuple) else periods > 0

    def state_names(self) -> tuple[str, ...]:
        return (*self.states, "refractory") if self.refractory else self.states

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        values: dict[str, PerNeuron] = {"theta": self.threshold}
        if self.refractory:
            periods = self.refractory_period
            several = periods if isinstance(periods, tuple) else (periods,)
            # To the nearest step, but a period that is asked for is never rounded away.
            steps = tuple(float(max(1, math.floor(p / dt + 0.5))) if p else 0.0 for p in several)
            values["refractory_steps"] = steps if isinstance(periods, tuple) else steps[0]
        return values

    def _integrated(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        """The membrane after leak, input and reset, and the steps of silence still to come."""
        reset = nx.stop_gradient(z) if self.detach_reset else z
        leaking = p.alpha * s.v if hasattr(p, "alpha") else s.v
        if self.reset == "zero":
            v = leaking * (1 - reset) + current
        else:
            v = leaking + current - p.theta * reset if self.reset == "subtract" else leaking + current
        if not self.refractory:
            return {"v": v}
        counted = nx.maximum(nx.stop_gradient(s.refractory) - 1, 0)
        # A spike is 0 or 1: blending needs no comparison, and nothing here carries a gradient.
        fired = nx.stop_gradient(z)
        return {"v": v, "refractory": fired * p.refractory_steps + (1 - fired) * counted}

    def _fired(self, nx: Any, s: Any, u: Any) -> Any:
        """The spike, unless the neuron is refractory."""
        if not self.refractory:
            return nx.spike(u)
        ready = nx.where(nx.stop_gradient(s.refractory) > 0, 0 * s.v, 1 + 0 * s.v)
        return nx.spike(u) * nx.stop_gradient(ready)

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return self._integrated(nx, p, s, z, current)

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return self._fired(nx, s, (s.v - p.theta) / p.theta)


@CELLS.register("if", "integrate_and_fire")
@dataclass(frozen=True)
class IFCell(_Spiking):
    """Integrate-and-fire neuron without leak: v_t = v_{t-1} + I_t - θ z_{t-1}.

    Args:
        threshold: θ > 0, a number or one per neuron.
        reset: ``"subtract"`` (θ is taken off), ``"zero"`` or ``"none"``.
        detach_reset: no gradient flows through the reset.
        refractory_period: seconds of silence after a spike.
        surrogate: ψ(u), which stands for dz/du.
        learnable: arguments that are learned, one value per neuron: ``"threshold"``.

    Example:
        >>> IFCell(threshold=0.5).constants(dt=1e-3)
        {'theta': 0.5}
    """


@CELLS.register("lif")
@dataclass(frozen=True)
class LIFCell(Membrane, _Spiking):
    """Leaky integrate-and-fire neuron: v_t = α v_{t-1} + I_t - θ z_{t-1}, α = exp(-dt/τ_membrane).

    Args:
        tau_membrane: τ in seconds, a number or one per neuron.
        membrane_decay: α given directly, instead of ``tau_membrane``.
        tau_synapse: of a synaptic current i_t = ε i_{t-1} + I_t, by which the membrane is driven instead of I_t;
            ε = exp(-dt/τ_synapse), in seconds, a number or one per neuron; 0: none.
        synapse_decay: ε given directly, instead of ``tau_synapse``.
        threshold: θ > 0, a number or one per neuron.
        reset: ``"subtract"`` (θ is taken off), ``"zero"`` or ``"none"``.
        detach_reset: no gradient flows through the reset.
        refractory_period: seconds of silence after a spike.
        surrogate: ψ(u), which stands for dz/du.
        learnable: arguments that are learned, one value per neuron: ``"membrane_decay"``, ``"threshold"``,
            ``"synapse_decay"``.

    References: W. Gerstner et al., Neuronal Dynamics, Cambridge University Press 2014, section 1.3; with a synaptic
    current, section 3.1.

    Example:
        >>> {name: round(value, 4) for name, value in LIFCell(tau_membrane=20e-3).constants(dt=1e-3).items()}
        {'theta': 1.0, 'alpha': 0.9512}
        >>> LIFCell(tau_synapse=5e-3).state_names()
        ('v', 'i')
    """

    trainable = {**_Spiking.trainable, **Membrane.trainable}

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        return {**super().constants(dt), **self._decays(dt)}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        driving, synapses = self._arriving(p, s, current)
        return {**self._integrated(nx, p, s, z, driving), **synapses}


@CELLS.register("alif")
@dataclass(frozen=True)
class ALIFCell(LIFCell):
    """Adaptive LIF neuron: each spike raises its threshold by β, which decays with τ_adaptation.

    v_t = α v_{t-1} + I_t - θ z_{t-1},  a_t = ρ a_{t-1} + z_{t-1},  u_t = (v_t - θ - β a_t)/θ.

    Args:
        tau_adaptation: seconds, a number or one per neuron; ρ = exp(-dt/τ_adaptation).
        adaptation_decay: ρ given directly, instead of ``tau_adaptation``.
        beta: β ≥ 0, a number or one per neuron; 0 makes a neuron a LIF neuron, so a mixed layer is one cell.
        tau_membrane, membrane_decay, tau_synapse, synapse_decay, threshold, reset, detach_reset, refractory_period,
            surrogate: as for LIFCell.
        learnable: arguments that are learned, one value per neuron: those of LIFCell, ``"adaptation_decay"``,
            ``"beta"``.

    Reference: G. Bellec et al., A solution to the learning dilemma for recurrent networks of spiking neurons, Nature
    Communications 11:3625, 2020, methods on neuron models (there too the input is not scaled by 1 - α).

    Example:
        >>> mixed = ALIFCell(beta=[0.0, 0.1])
        >>> mixed.constants(dt=1e-3)["beta"]
        (0.0, 0.1)
    """

    tau_adaptation: PerNeuron = 200e-3
    adaptation_decay: PerNeuron | None = None
    beta: PerNeuron = 0.1

    states = ("v", "a")
    trainable = {
        **LIFCell.trainable,
        "adaptation_decay": Trainable("rho", lowest=0, highest=1),
        "beta": Trainable("beta", lowest=0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_decay("tau_adaptation", "adaptation_decay")
        self._check("beta", at_least=0)

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        rho = decay(self.tau_adaptation, self.adaptation_decay, dt)
        return {**super().constants(dt), "rho": rho, "beta": self.beta}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {**super().update(nx, p, s, z, current), "a": p.rho * s.a + z}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return self._fired(nx, s, (s.v - p.theta - p.beta * s.a) / p.theta)
