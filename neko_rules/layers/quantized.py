"""Quantised networks: weights and membrane potentials of n bits, after training or in training.

Weights are rounded to 2^n - 1 evenly spaced values between ± the largest of their matrix. In training the rounded
weights make the forward and the backward pass, and the gradient with respect to them changes the weights of full
precision behind them: a straight-through estimator. The membrane potential is rounded to n bits between ± a bound after
every time step; its derivative is that of the unrounded one, and 0 beyond the bound.

References: Y. Bengio, N. Léonard, A. Courville, Estimating or propagating gradients through stochastic neurons for
conditional computation, arXiv:1308.3432, 2013 (straight-through); M. Courbariaux, Y. Bengio, J.-P. David,
BinaryConnect, NeurIPS 2015 (full-precision weights behind rounded ones).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.devices.quantization import MOST_BITS, quantized
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.cell import CELLS, Cell, PerNeuron
from neko_rules.surrogates import Surrogate

if TYPE_CHECKING:
    from neko_rules.layers.adaptors.adaptor import Adaptor
    from neko_rules.layers.network import Network

Quantizable = TypeVar("Quantizable", bound="Network | Adaptor")


def rounded_weights(nx: Backend, parameters: Parameters, bits: int) -> Parameters:
    """Parameters with every weight of at least two axes rounded to n bits between ± its largest; 0 bits: unchanged.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> rounded_weights(get_backend("numpy"), {"w": np.array([[0.3, -1.0], [0.6, 0.1]])}, bits=2)["w"]
        array([[ 0., -1.],
               [ 1.,  0.]])
    """
    if not bits:
        return parameters
    return {name: _rounded(nx, value, bits) if len(value.shape) > 1 else value for name, value in parameters.items()}


def _rounded(nx: Backend, weight: Array, bits: int) -> Array:
    largest = nx.max(nx.abs(weight))
    # A matrix of zeros stays one.
    return quantized(nx, weight, bits, nx.where(largest > 0, largest, 1.0 + 0.0 * largest))


@CELLS.register("quantized")
@dataclass(frozen=True)
class QuantizedCell(Cell):
    """A neuron whose membrane potential has n bits: v ← round(clip(v, -c, c)/q) q, q = c/(2^(n-1) - 1), every step.

    Args:
        cell: the neuron, by name, mapping or object.
        bits: n, 2 to 32.
        bound: c, in the unit of v, a number or one per neuron.
        state: the state that is rounded.

    Example:
        >>> from neko_rules.layers.jacobians import Jacobians
        >>> sorted(Jacobians.of(QuantizedCell("lif", bits=4), dt=1e-3).expressions)
        [('D', 'v', 'v'), ('h', 'v'), ('q', 'v')]
    """

    cell: Cell | str | Mapping[str, Any] = "lif"
    bits: int = 8
    bound: PerNeuron = 4.0
    state: str = "v"
    # These are the neuron's own.
    surrogate: Surrogate | str | Mapping[str, Any] = field(default="straight_through", init=False, repr=False)
    learnable: Sequence[str] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", CELLS.resolve(self.cell))
        if arguments.integer("bits", self.bits, at_least=0, at_most=MOST_BITS) < 2:
            raise ArgumentError(
                "a membrane potential has at least 2 bits, of which one is the sign", received=self.bits
            )
        if isinstance(self.inner, QuantizedCell):
            raise ArgumentError(
                "one state of a neuron is rounded",
                received=f"one of which {self.inner.state} is rounded already",
                works="round the neuron in it",
            )
        self._check("bound", above=0)
        if self.state not in self.inner.state_names():
            raise ArgumentError(
                f"{type(self.inner).__name__} has no such state",
                received=self.state,
                works=f"its states are {', '.join(self.inner.state_names())}",
            )
        object.__setattr__(self, "surrogate", self.inner.surrogate)
        object.__setattr__(self, "learnable", self.inner.learnable)
        object.__setattr__(self, "trainable", self.inner.trainable)
        object.__setattr__(self, "spiking", self.inner.spiking)

    @property
    def inner(self) -> Cell:
        """The neuron as one."""
        assert isinstance(self.cell, Cell)
        return self.cell

    @property
    def prompt(self) -> bool:
        """Whether the neuron is."""
        return self.inner.prompt

    def state_names(self) -> tuple[str, ...]:
        """Those of the neuron."""
        return self.inner.state_names()

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        """Those of the neuron, the bound and the distance of two values."""
        values = 2 ** (self.bits - 1) - 1
        bound = self.bound
        apart = tuple(each / values for each in bound) if isinstance(bound, tuple) else bound / values
        return {**self.inner.constants(dt), "membrane_bound": self.bound, "membrane_apart": apart}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        """The neuron's own, rounded."""
        after = self.inner.update(nx, p, s, z, current)
        v = nx.minimum(nx.maximum(after[self.state], -p.membrane_bound), p.membrane_bound)
        return {**after, self.state: nx.rounded(v, p.membrane_apart)}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        """The neuron's own."""
        return self.inner.emit(nx, p, s)


def quantize(
    network: Quantizable,
    *,
    weight_bits: int = 0,
    membrane_bits: int = 0,
    membrane_bound: float = 4.0,
    training: bool = True,
) -> Quantizable:
    """The same network with weights, or membrane potentials, of n bits.

    Args:
        network: a network or a wrapped model; not changed.
        weight_bits: bits of the weights, 2 to 32; 0 leaves them alone.
        membrane_bits: bits of every hidden neuron's state ``v``, 2 to 32, in place of those that it may have; 0 leaves
            them alone.
        membrane_bound: the largest membrane potential.
        training: whether weights keep their full precision behind what the network sees, so that it can be trained on
            (straight-through); False rounds the weights themselves, once: post-training quantisation.

    Raises:
        ArgumentError: a number of bits is 1, negative or above 32, the bound is not above 0, or ``training`` is neither
            true nor false.
        IncompatibleError: a wrapped model has no membrane potentials.

    Example:
        >>> import numpy as np
        >>> from neko_rules import LIF
        >>> rounded = quantize(LIF(8, 2, inputs=3), weight_bits=3, training=False)
        >>> len(np.unique(rounded.parameters["hidden.input.weight"])) <= 7
        True
    """
    for name, bits in (("weight_bits", weight_bits), ("membrane_bits", membrane_bits)):
        if arguments.integer(name, bits, at_least=0, at_most=MOST_BITS) == 1:
            raise ArgumentError(f"{name} is 0 (off) or at least 2, of which one is the sign", received=bits)
    arguments.number("membrane_bound", membrane_bound, above=0)
    arguments.flag("training", training)
    twin: Any = network.clone()
    if weight_bits and training:
        twin.weight_bits = weight_bits
    elif weight_bits:
        twin.require_built()
        twin.values = twin.nx.jit(lambda values: rounded_weights(twin.nx, values, weight_bits))(dict(twin.values))
    if membrane_bits:
        _round_membranes(twin, membrane_bits, membrane_bound)
    wanted: Quantizable = twin
    return wanted


def _round_membranes(network: Any, bits: int, bound: float) -> None:
    if "cells" not in network.offers:
        raise IncompatibleError(
            "a wrapped model has no membrane potentials", received=network, works="quantise its weights"
        )
    from dataclasses import replace

    from neko_rules.layers.cell import backend_constants

    populations = {}
    for name, population in network.graph.populations.items():
        cell = population.cell
        if name != network.graph.output and "v" in cell.state_names():
            own = cell.inner if isinstance(cell, QuantizedCell) and cell.state == "v" else cell
            population = replace(population, cell=QuantizedCell(own, bits, bound))
        populations[name] = population
    network.graph = copy.copy(network.graph)
    object.__setattr__(network.graph, "populations", populations)
    network.constants = {
        name: backend_constants(network.nx, each.cell, each.size, network.dt, network.dtype, name)
        for name, each in populations.items()
    }
    for cached in ("jacobians", "keeps_current", "learned"):
        network.__dict__.pop(cached, None)
