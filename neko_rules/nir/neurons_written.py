"""Neurons written: the node of NIR that a population is, and what NIR cannot say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.errors import IncompatibleError
from neko_rules.layers.cell import Cell
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.quantized import QuantizedCell
from neko_rules.layers.rate import LeakyReadoutCell
from neko_rules.nir.equations import leaks, time_constants

TAKEN: tuple[type[Cell], ...] = (IFCell, LIFCell, ALIFCell, LeakyReadoutCell)
"""The neurons that NIR has, adaptation aside."""


@dataclass(frozen=True)
class Neurons:
    """A population as NIR has it.

    Args:
        kind: the name of the node; empty for units that are their input, which need none.
        fields: of the node, one value per neuron.
        gain: by what weights and biases are multiplied, one value per neuron.
        leak_gain: what v_leak a constant input of 1 is, of those that have a v_leak that does the same.
    """

    kind: str
    fields: dict[str, np.ndarray]
    gain: np.ndarray
    leak_gain: np.ndarray | None = None

    def node(self, nir: Any, shape: tuple[int, ...], dtype: str, bias: np.ndarray | None = None) -> Any:
        """The node with arrays of a shape; a bias becomes a leak voltage."""
        fields = dict(self.fields)
        if bias is not None:
            assert self.leak_gain is not None, "only some neurons have a leak voltage that does what a bias does"
            fields["v_leak"] = fields["v_leak"] + bias * self.leak_gain
        return getattr(nir, self.kind)(**{name: each.astype(dtype).reshape(shape) for name, each in fields.items()})


def plain(name: str, cell: Cell, left_out: list[str]) -> Cell:
    """The neuron without what NIR has no word for, which is added to a list.

    Raises:
        IncompatibleError: NIR has no such neuron at all.

    Example:
        >>> left_out = []
        >>> plain("hidden", LIFCell(refractory_period=2e-3), left_out).reset, left_out
        ('subtract', ["hidden: reset='subtract' (to zero instead)", 'hidden: the refractory period (none)'])
    """
    if type(cell) is QuantizedCell:
        left_out.append(f"{name}: a membrane of {cell.bits} bits (not rounded)")
        cell = cell.inner
    if type(cell) not in TAKEN:
        raise IncompatibleError(
            f"NIR has no neuron that is the {type(cell).__name__} of {name}",
            works=f"it has {', '.join(each.__name__ for each in TAKEN)}",
        )
    if isinstance(cell, IFCell | LIFCell):
        if cell.reset != "zero":
            left_out.append(f"{name}: reset={cell.reset!r} (to zero instead)")
        if cell.refractory:
            left_out.append(f"{name}: the refractory period (none)")
    if isinstance(cell, ALIFCell) and ("beta" in cell.learnable or np.any(cell.beta)):
        left_out.append(f"{name}: the adaptive threshold (constant)")
    return cell


def written(
    name: str, cell: Cell, size: int, learned: dict[str, np.ndarray], dt: float, scheme: str, in_weights: bool
) -> Neurons:
    """A population of neurons that ``plain`` gave.

    Args:
        name: of the population.
        cell: its neurons.
        size: their number.
        learned: the values of arguments that are learned, which go before those of the cell.
        dt: seconds of a time step.
        scheme: how a step follows from a differential equation.
        in_weights: whether R and w_in are 1, and the weights larger for it.

    Raises:
        IncompatibleError: some neurons of the population have a memory that others lack, or synapses never forget.
    """
    leak = _leak(cell, "membrane", size, learned, dt)
    if isinstance(cell, IFCell):
        leak = np.zeros(size)
    threshold = {}
    if isinstance(cell, IFCell | LIFCell):
        theta = learned.get("threshold", np.broadcast_to(np.asarray(cell.threshold, np.float64), size))
        threshold = {"v_threshold": theta, "v_reset": np.zeros(size)}
    release = _leak(cell, "synapse", size, learned, dt)
    synaptic = bool((release < 1).any())
    if synaptic and ((release == 0).any() or (leak == 0).any()):
        raise IncompatibleError(f"CubaLIF and CubaLI of NIR forget, and some decay of {name} is 1")
    one = np.ones(size)
    if not synaptic and (leak == 1).all():
        # A membrane without memory is its input, and a spike does not outlast the step.
        return Neurons("Threshold", {"threshold": threshold["v_threshold"]}, one) if threshold else Neurons("", {}, one)
    if not synaptic and (leak == 0).all():
        resistance = one / dt
        kind = "IF" if threshold else "I"
        return Neurons(kind, {"r": one if in_weights else resistance, **threshold}, resistance if in_weights else one)
    for what, each in (("membrane", leak), ("synapse", release if synaptic else leak)):
        if (each == 0).any() or (scheme == "exponential" and (each == 1).any()):
            raise IncompatibleError(
                f"neurons of one node of NIR all have a memory of the {what}, or none has; so must those of {name}",
                received=f"decays from {1 - each.max():g} to {1 - each.min():g}",
                works="make populations of their own of them",
            )
    fields = {"r": one if in_weights else 1 / leak, "v_leak": np.zeros(size), **threshold}
    tau = _tau(cell, "membrane", leak, learned, dt, scheme)
    if not synaptic:
        kind = "LIF" if threshold else "LI"
        return Neurons(kind, {"tau": tau, **fields}, 1 / leak if in_weights else one, leak_gain=1 / leak)
    fields |= {"tau_mem": tau, "tau_syn": _tau(cell, "synapse", release, learned, dt, scheme)}
    fields["w_in"] = one if in_weights else 1 / release
    return Neurons("CubaLIF" if threshold else "CubaLI", fields, 1 / (leak * release) if in_weights else one)


def _leak(cell: Cell, part: str, size: int, learned: dict[str, np.ndarray], dt: float) -> np.ndarray:
    """1 - the decay of a membrane or a synapse, one value per neuron; 1 of what has none."""
    given = learned.get(f"{part}_decay", getattr(cell, f"{part}_decay", None))
    if given is not None:
        return np.broadcast_to(1 - np.asarray(given, np.float64), size)
    tau = np.broadcast_to(np.asarray(getattr(cell, f"tau_{part}", 0.0), np.float64), size)
    return np.where(tau > 0, leaks(np.where(tau > 0, tau, 1.0), dt, "exponential"), 1.0)


def _tau(cell: Cell, part: str, leak: np.ndarray, learned: dict[str, np.ndarray], dt: float, scheme: str) -> np.ndarray:
    """The time constant that a reader finds the leak by: the very one that was given, where it was."""
    given = learned.get(f"{part}_decay", getattr(cell, f"{part}_decay", None)) is None
    if given and scheme == "exponential":
        return np.broadcast_to(np.asarray(getattr(cell, f"tau_{part}"), np.float64), leak.shape)
    return time_constants(leak, dt, scheme)
