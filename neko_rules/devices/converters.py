"""Converters: what lies before and behind an array of devices, a DAC for every input and an ADC for every output.

    y = ADC(DAC(x) W),   DAC and ADC(x) = round(clip(x, -c, c) / q) q,   q = c / (2^(n-1) - 1)

with n bits and a bound c of their own. Both are flat nearly everywhere; in training they are passed straight through:
the derivative is that of x W, also where the ADC is at its bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.devices.quantization import MOST_BITS, quantized, straight_through
from neko_rules.errors import ArgumentError


@dataclass(frozen=True)
class Converters:
    """Resolution and bounds of the converters of an array.

    Args:
        dac_bits: of the inputs; 0 leaves them exact, and is 2 to 32 otherwise, of which one is the sign.
        dac_bound: the largest input, in the unit of the inputs (1 for spikes).
        adc_bits: of the outputs; 0 leaves them exact.
        adc_bound: the largest output, in the unit of inputs times weights.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> converters = Converters(dac_bits=2, adc_bits=8, adc_bound=12.7)
        >>> converters.multiply(get_backend("numpy"), np.array([[0.8, 0.4]]), np.array([[0.52], [3.0]])).round(6)
        array([[0.5]])
    """

    dac_bits: int = 0
    dac_bound: float = 1.0
    adc_bits: int = 0
    adc_bound: float = 12.0

    def __post_init__(self) -> None:
        for name in ("dac_bits", "adc_bits"):
            bits = arguments.integer(name, getattr(self, name), at_least=0, at_most=MOST_BITS)
            if bits == 1:
                raise ArgumentError(f"{name} is 0 (exact) or at least 2, of which one is the sign", received=bits)
        for name in ("dac_bound", "adc_bound"):
            arguments.number(name, getattr(self, name), above=0)

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return not (self.dac_bits or self.adc_bits)

    def multiply(self, nx: Backend, inputs: Array, weight: Array) -> Array:
        """ADC(DAC(inputs) @ weight), inputs [… , n_in], weight [n_in, n_out]."""
        inputs = quantized(nx, inputs, self.dac_bits, self.dac_bound) if self.dac_bits else inputs
        outputs = nx.matmul(inputs, weight)
        return quantized(nx, outputs, self.adc_bits, self.adc_bound) if self.adc_bits else outputs

    def passed_through(self, nx: Backend, inputs: Array, weight: Array, product: Array) -> Array:
        """``multiply``, with the derivative of the exact product, inputs @ weight: straight-through."""
        return straight_through(nx, product, self.multiply(nx, inputs, weight))
