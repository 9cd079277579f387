"""The library of NIR, which is imported when something is exchanged, and what its equations are in time steps.

NIR's neurons are differential equations without a time step. With a current that is constant within a step of length
dt, as the outputs of neurons are here, their solution is

    LIF   τ dv/dt = v_leak - v + R I             v_t = α v_{t-1} + (1-α)(v_leak + R I_t)        α = exp(-dt/τ)
    IF    dv/dt = R I                            v_t = v_{t-1} + dt R I_t
    Cuba  τ_syn di/dt = -i + w_in I              i_t = ε i_{t-1} + (1-ε) w_in I_t               ε = exp(-dt/τ_syn)
          τ_mem dv/dt = v_leak - v + R i         v_t = α v_{t-1} + (1-α)(v_leak + R i_t)

(LI and I likewise, without a spike). In the last, a step of the membrane sees the synaptic current at its end. Here a
current is not scaled by what leaks, v_t = α v_{t-1} + I_t: weights of NIR are those here divided by (1-α)(1-ε), with
which a simulator that solves its equations gives the numbers that there are here. One that takes steps by Euler's
method (Norse) has α = 1 - dt/τ, and the same follows from that. A neuron that spikes is set to v_reset, which is a
reset to zero here if v is counted from there.

Reference: J. Pedersen et al., Neuromorphic intermediate representation, Nature Communications 15:8122, 2024.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from neko_rules.errors import IncompatibleError, NekoError

SCHEMES = ("exact", "euler")
"""How a simulator takes a step: by the solution of the equation, or by Euler's method."""


def nir_library() -> Any:
    """The package ``nir``.

    Raises:
        NekoError: it is not installed.
    """
    try:
        return importlib.import_module("nir")
    except ModuleNotFoundError as error:
        if error.name != "nir":
            raise
        raise NekoError(
            "NIR needs the library 'nir', which is not installed", works="install it with pip install 'neko_rules[nir]'"
        ) from error


def decay_of(tau: np.ndarray, dt: float, scheme: str) -> np.ndarray:
    """What is left of a potential after a step.

    Args:
        tau: time constants, seconds.
        dt: time step, seconds.
        scheme: one of ``SCHEMES``.

    Raises:
        IncompatibleError: a time constant is not above 0, or by Euler's method below the step.

    Example:
        >>> decay_of(np.array([0.02]), 1e-3, "exact").round(4), decay_of(np.array([0.02]), 1e-3, "euler")
        (array([0.9512]), array([0.95]))
    """
    least = 0.0 if scheme == "exact" else dt
    if np.any(tau <= 0) or np.any(tau < least):
        raise IncompatibleError(
            "time constants lie above 0, and by Euler's method not below dt", received=f"{tau.min():g} s, dt {dt:g} s"
        )
    return np.exp(-dt / tau) if scheme == "exact" else 1 - dt / tau


def tau_of(decay: np.ndarray, dt: float, scheme: str) -> np.ndarray:
    """The time constants that such decays are those of; the inverse of ``decay_of``."""
    return -dt / np.log(decay) if scheme == "exact" else dt / (1 - decay)


DELAY = "delay_steps"
"""What metadata of a node of weights say of a connection that acts one time step later, as those of a circle do."""
