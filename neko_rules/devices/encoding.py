"""Encoding: how a weight becomes the difference of two conductances, w = scale (G⁺ - G⁻) / (G_max - G_min).

    differential        every weight has a pair, both of which are pulsed in opposite directions
    one_fixed           every weight has a pair, of which G⁻ stays in the middle of its range
    one_sided           every weight has a pair, each pulsed upwards only; a refresh starts it again before it is full
    reference_column    every row has one G⁻ in the middle of its range, which all weights of the row share

With the largest weight w_max the scale is w_max for pairs that are both pulsed and 2 w_max for the others, so that a
weight reaches from -w_max to w_max whatever its encoding.
"""

from __future__ import annotations

import numpy as np

from neko_rules.devices.device import Device

ENCODINGS = ("differential", "one_fixed", "one_sided", "reference_column")

PULSED = {"differential": ("plus", "minus"), "one_sided": ("plus", "minus")}
"""The sides that pulses reach; of the other encodings it is the plus side alone."""


def pulsed(encoding: str) -> tuple[str, ...]:
    """The sides of a pair that pulses reach."""
    return PULSED.get(encoding, ("plus",))


def scale(encoding: str, w_max: float) -> float:
    """The weight of a whole conductance range.

    Example:
        >>> scale("differential", 1.0), scale("one_fixed", 1.0)
        (1.0, 2.0)
    """
    return w_max if encoding in PULSED else 2 * w_max


def shape_of(encoding: str, side: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one side's devices for weights of a shape."""
    return (*shape[:-1], 1) if encoding == "reference_column" and side == "minus" else shape


def split(encoding: str, device: Device, weight: np.ndarray, w_max: float) -> dict[str, np.ndarray]:
    """The conductances that stand for weights on nominal devices, in siemens; larger weights become ±w_max.

    A pair that is pulsed in both directions stands around the middle of the range; of a one-sided pair, one is at its
    low end.

    Example:
        >>> from neko_rules.devices import Constant
        >>> pair = split("differential", Constant(), np.array([0.5]), w_max=1.0)
        >>> {side: round(1e6 * float(g[0]), 6) for side, g in pair.items()}
        {'plus': 75.0, 'minus': 25.0}
    """
    fraction = np.clip(np.asarray(weight, np.float64) / scale(encoding, w_max), -1, 1)
    if encoding not in PULSED:
        fraction = np.clip(fraction, -0.5, 0.5)
    middle = np.full(shape_of(encoding, "minus", fraction.shape), 0.5)
    if encoding == "differential":
        sides = {"plus": 0.5 + fraction / 2, "minus": 0.5 - fraction / 2}
    elif encoding == "one_sided":
        sides = {"plus": np.maximum(fraction, 0.0), "minus": np.maximum(-fraction, 0.0)}
    else:
        sides = {"plus": 0.5 + fraction, "minus": middle}
    return {side: device.g_min + u * device.range for side, u in sides.items()}
