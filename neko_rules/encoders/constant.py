"""Constant: every value as a current that does not change, x_t = x (direct coding).

The first layer of neurons makes spikes of it, with weights that are learned.

Reference: N. Rathi, K. Roy, DIET-SNN, IEEE Transactions on Neural Networks and Learning Systems 34, 2023 (direct input
encoding).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.encoders.encoder import ENCODERS, Encoder, features, flat, steps_of


@ENCODERS.register("constant", "direct")
@dataclass(frozen=True)
class Constant(Encoder):
    """Every value as a current that does not change: x_t = x.

    Args:
        steps: how many time steps.

    Example:
        >>> Constant(steps=3).encode(np.array([[0.2, 0.7]]), np.random.default_rng(0), dt=1e-3)
        array([[[0.2, 0.7],
                [0.2, 0.7],
                [0.2, 0.7]]])
    """

    steps: int

    def __post_init__(self) -> None:
        steps_of(self.steps)

    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        """As many time steps as were asked for, and a feature for each value."""
        return self.steps, features(given)

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        """The values, once for every time step."""
        values = flat(x)
        return np.broadcast_to(values[:, None, :], (len(x), self.steps, values.shape[1]))
