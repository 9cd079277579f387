"""Norms: sums of squares, and the largest entries, of vectors; for kernels that ask for the length of a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules.kernels.compiling import kernel

Array = Any
"""A vector."""


@kernel
def sum_of_squares(values: Array, scale: float) -> float:
    """Σ (v / scale)², in double precision: eight sums side by side, of which a processor adds to many at once."""
    a = b = c = d = e = f = g = h = 0.0
    per, whole = 1.0 / scale, values.shape[0] // 8 * 8
    for i in range(0, whole, 8):
        a += (per * values[i]) ** 2
        b += (per * values[i + 1]) ** 2
        c += (per * values[i + 2]) ** 2
        d += (per * values[i + 3]) ** 2
        e += (per * values[i + 4]) ** 2
        f += (per * values[i + 5]) ** 2
        g += (per * values[i + 6]) ** 2
        h += (per * values[i + 7]) ** 2
    for i in range(whole, values.shape[0]):
        a += (per * values[i]) ** 2
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel
def largest_of(values: Array) -> float:
    """max |v|, or NaN if there is one."""
    largest = 0.0
    for i in range(values.shape[0]):
        size = np.abs(np.float64(values[i]))
        if not size <= largest:
            largest = size
            if largest != largest:
                return largest
    return largest
