"""Neurons read: the cell that a node of NIR is, and by what its input is multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.errors import DataError, IncompatibleError
from neko_rules.layers.cell import Cell, PerNeuron
from neko_rules.layers.integrate_and_fire import IFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell
from neko_rules.nir.equations import leaks
from neko_rules.surrogates import Surrogate

NEURONS = ("LIF", "LI", "IF", "I", "CubaLIF", "CubaLI", "Threshold")
"""The nodes that are populations."""

FIELDS: dict[str, tuple[str, ...]] = {
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "IF": ("r", "v_threshold", "v_reset"),
    "I": ("r",),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "Threshold": ("threshold",),
}
"""Their parameters, all of which count."""


@dataclass(frozen=True)
class Reading:
    """How nodes are read.

    Args:
        dt: seconds of a time step.
        scheme: how a step follows from a differential equation.
        reset: what happens after a spike: ``"zero"`` stands for NIR's v_reset.
        surrogate: of spiking cells.
    """

    dt: float
    scheme: str
    reset: str
    surrogate: Surrogate | str | Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """A node read.

    Args:
        cell: its neurons.
        gain: by what their input is multiplied, one value per neuron.
        bias: the constant input that their leak voltage is, one value per neuron.
    """

    cell: Cell
    gain: np.ndarray
    bias: np.ndarray


def read_neurons(name: str, node: Any, size: int, how: Reading, left_out: list[str]) -> Read:
    """The cell of a node of ``NEURONS``.

    The potential is counted from v_reset of neurons that spike, from where it then starts.

    Args:
        name: of the node.
        node: the node.
        size: the number of neurons.
        how: time step, scheme, reset, surrogate.
        left_out: takes what has no counterpart here.

    Raises:
        DataError: a parameter has neither one value nor one per neuron, or is out of range.
        IncompatibleError: a threshold is not above the potential that a spike resets to.
    """
    kind = type(node).__name__
    p = {each: _values(name, kind, each, getattr(node, each), size) for each in FIELDS[kind]}
    for each in ("tau", "tau_mem", "tau_syn"):
        if each in p and (p[each] <= 0).any():
            raise DataError(f"{each} of {kind} {name!r} must be positive", received=f"{p[each].min():g} s")
    one, zero = np.ones(size), np.zeros(size)
    if kind == "Threshold":
        theta = _threshold(name, kind, p["threshold"], zero)
        cell = LIFCell(tau_membrane=0.0, threshold=theta, reset="zero", surrogate=how.surrogate)
        return Read(cell, one, zero)
    spikes = "v_threshold" in p
    origin = p["v_reset"] if spikes and how.reset == "zero" else zero
    if spikes and how.reset == "subtract" and p["v_reset"].any():
        raise IncompatibleError(
            f"a reset by subtraction has no v_reset, as {kind} {name!r} has",
            received=f"{p['v_reset'][p['v_reset'] != 0][0]:g}",
            works="reset='zero'",
        )
    firing: dict[str, Any] = {}
    if spikes:
        theta = _threshold(name, kind, p["v_threshold"], origin)
        firing = {"threshold": theta, "reset": how.reset, "surrogate": how.surrogate}
    if kind in ("IF", "I"):
        return Read(IFCell(**firing) if spikes else LeakyReadoutCell(membrane_decay=1.0), how.dt * p["r"], zero)
    tau = p.get("tau", p.get("tau_mem"))
    assert tau is not None, "what leaks has a time constant"
    leak = leaks(tau, how.dt, how.scheme)
    memory = _memory("membrane", tau, leak, how.scheme)
    gain, bias = leak * p["r"], leak * (p["v_leak"] - origin)
    if "tau_syn" in p:
        release = leaks(p["tau_syn"], how.dt, how.scheme)
        memory |= _memory("synapse", p["tau_syn"], release, how.scheme)
        gain = gain * release * p["w_in"]
        if bias.any():
            # Our biases go through the synapses; the leak voltage does not, so that it is there at once.
            left_out.append(f"v_leak of {kind} {name!r} (which sets in with tau_syn)")
            bias = bias * release
    return Read(LIFCell(**memory, **firing) if spikes else LeakyReadoutCell(**memory), gain, bias)


def _values(name: str, kind: str, field: str, value: Any, size: int) -> np.ndarray:
    """A parameter as one number per neuron."""
    array = np.asarray(value, np.float64).reshape(-1)
    if array.size not in (1, size):
        raise DataError(
            f"{field} of {kind} {name!r} needs one value, or one per neuron ({size})", received=f"{array.size} values"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{field} of {kind} {name!r} must be finite", received="NaN or infinite values")
    return np.broadcast_to(array, size)


def _threshold(name: str, kind: str, theta: np.ndarray, origin: np.ndarray) -> PerNeuron:
    above = theta - origin
    if (above <= 0).any():
        raise IncompatibleError(
            f"a threshold is above the potential that a spike resets to, not so in {kind} {name!r}",
            received=f"{theta[above <= 0][0]:g} and {origin[above <= 0][0]:g}",
        )
    return _per_neuron(above)


def _memory(part: str, tau: np.ndarray, leak: np.ndarray, scheme: str) -> dict[str, Any]:
    """The arguments of a cell for a time constant."""
    if scheme == "exponential":
        return {f"tau_{part}": _per_neuron(tau)}
    return {f"{part}_decay": _per_neuron(1 - leak)}


def _per_neuron(values: np.ndarray) -> PerNeuron:
    """One number where all are alike."""
    return float(values[0]) if (values == values[0]).all() else tuple(float(each) for each in values)
