"""Quantisation: numbers rounded to n bits, as converters and digital memories hold them."""

from __future__ import annotations

from typing import Any

from neko_rules.backend import Array, Backend

MOST_BITS = 32
"""More than any converter has, and as many as a number of single precision takes."""


def quantized(nx: Backend, x: Array, bits: int, bound: Any) -> Array:
    """x rounded to 2^bits - 1 evenly spaced values from -bound to bound, 0 among them; larger values become ±bound.

    The distance of two values is bound / (2^(bits-1) - 1), so that one bit is the sign.

    Args:
        nx: the backend.
        x: an array.
        bits: at least 2.
        bound: a number, or an array that broadcasts.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> quantized(get_backend("numpy"), np.array([-2.0, -0.6, 0.1, 0.5]), bits=2, bound=1.0)
        array([-1., -1.,  0.,  1.])
    """
    apart = bound / (2 ** (bits - 1) - 1)
    # The halves go up, on every backend.
    return nx.floor(nx.minimum(nx.maximum(x, -bound), bound) / apart + 0.5) * apart


def straight_through(nx: Backend, x: Array, rounded: Array) -> Array:
    """``rounded``, with the derivative of x: the straight-through estimator.

    Reference: Y. Bengio, N. Léonard, A. Courville, Estimating or propagating gradients through stochastic neurons for
    conditional computation, arXiv:1308.3432, 2013.
    """
    return x + nx.stop_gradient(rounded - x)
