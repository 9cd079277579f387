"""NIR's equations and ours: with which parameters a step of the one is a step of the other.

A neuron of NIR and a population here, for an input I that is held during a step of length dt,

    LIF, LI          τ dv/dt = v_leak - v + R I           v_t = α v_{t-1} + (1 - α)(v_leak + R I_t)
    IF, I              dv/dt = R I                        v_t = v_{t-1} + dt R I_t
    CubaLIF, CubaLI  τ_syn di/dt = w_in S - i             i_t = ε i_{t-1} + (1 - ε) w_in S_t
                     τ_mem dv/dt = v_leak - v + R i       v_t = α v_{t-1} + (1 - α)(v_leak + R i_t)

with α = exp(-dt/τ) and ε = exp(-dt/τ_syn). After a spike (v > v_threshold) v is v_reset, which is our reset to zero.
So R = 1/(1 - α), of a neuron without leak R = 1/dt, w_in = 1/(1 - ε) and v_leak = v_reset = 0 give our
v_t = α v_{t-1} + I_t; the same factors may stand in the weights instead. Thresholds are looked at where a step ends,
here as there.

The first four lines are the exact solution of their equations. For two equations one after the other, i is held during
a step too, as most simulators do. One that solves both together for a held S has (before a spike)

    v'_t = p v_t + (1 - p) v_{t-1}        p = (1 - α - K)/((1 - α)(1 - ε)),  K = (ε - α)/(1 - τ_mem/τ_syn)

which is our trajectory up to half a step later; no choice of parameters removes that.

By ``scheme="euler"`` steps are those of simulators that take α = 1 - dt/τ (Norse, snnTorch), to rounding likewise.
"""

from __future__ import annotations

import numpy as np

from neko_rules.errors import IncompatibleError

SCHEMES = ("exponential", "euler")
"""How a step follows from a differential equation: α = exp(-dt/τ), or α = 1 - dt/τ."""


def leaks(tau: np.ndarray, dt: float, scheme: str) -> np.ndarray:
    """1 - α of a time constant in seconds, without the rounding of a difference.

    Raises:
        IncompatibleError: by Euler's scheme, a time constant is shorter than the time step.

    Example:
        >>> leaks(np.array([20e-3, 1e-3]), 1e-3, "euler").tolist()
        [0.05, 1.0]
        >>> leaks(np.array([20e-3]), 1e-3, "exponential").round(6).tolist()
        [0.048771]
    """
    if scheme == "exponential":
        return -np.expm1(-dt / tau)
    if np.any(tau < dt):
        raise IncompatibleError(
            f"by Euler's scheme no time constant is shorter than the time step of {dt:g} s",
            received=f"{np.min(tau):g} s",
            works="take a shorter dt, or scheme='exponential'",
        )
    return dt / tau


def time_constants(leak: np.ndarray, dt: float, scheme: str) -> np.ndarray:
    """τ in seconds of 1 - α, between 0 and 1: the inverse of ``leaks``.

    Example:
        >>> time_constants(leaks(np.array([20e-3]), 1e-3, "exponential"), 1e-3, "exponential").round(12).tolist()
        [0.02]
    """
    return -dt / np.log1p(-leak) if scheme == "exponential" else dt / leak
