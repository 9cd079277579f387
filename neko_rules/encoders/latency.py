"""Latency: one spike of every value, the earlier the larger it is.

    linear         t = (1 - x) T                       T the time of the last step
    logarithmic    t = τ ln(x / (x - θ))               where a LIF neuron with a constant current x reaches θ

A value of at most θ sends no spike, nor does one whose spike would come after the last time step.

Reference: H. Mostafa, Supervised learning based on temporal coding in spiking neural networks, IEEE Transactions on
Neural Networks and Learning Systems 29, 2018 (times of first spikes as inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.encoders.encoder import ENCODERS, Encoder, features, flat, require_fractions, steps_of


@ENCODERS.register("latency", "first_spike")
@dataclass(frozen=True)
class Latency(Encoder):
    """One spike of every value, the earlier the larger it is: t = (1 - x) T, or τ ln(x / (x - θ)).

    Args:
        steps: how many time steps.
        threshold: θ, from 0 to below 1; values up to it send no spike.
        tau: τ in seconds, for logarithmic times; None for linear ones.

    Example: values of 1, 0.5 and 0 in five time steps.

        >>> Latency(steps=5).encode(np.array([[1.0, 0.5, 0.0]]), np.random.default_rng(0), dt=1e-3)[0].astype(int)
        array([[1, 0, 0],
               [0, 0, 0],
               [0, 1, 0],
               [0, 0, 0],
               [0, 0, 0]])

    Raises:
        DataError: a value is below 0 or above 1.
    """

    steps: int
    threshold: float = 0.01
    tau: float | None = None

    def __post_init__(self) -> None:
        steps_of(self.steps)
        # A logarithm needs a threshold that takes time to reach.
        arguments.number("threshold", self.threshold, at_least=0, below=1)
        if self.tau is not None:
            arguments.number("tau", self.tau, above=0)
            arguments.number("threshold", self.threshold, above=0, below=1)

    def check(self, x: np.ndarray) -> None:
        """Refuse values beyond 0 and 1."""
        require_fractions(x, "latency coding")

    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        """As many time steps as were asked for, and a feature for each value."""
        return self.steps, features(given)

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        """Spikes, 0 or 1, at most one of each feature."""
        values = flat(x).astype(np.float64)
        fires = values > self.threshold
        seen = np.where(fires, values, 1.0)
        if self.tau is None:
            step = (1 - seen) * (self.steps - 1)
        else:
            step = self.tau / dt * np.log(seen / (seen - self.threshold))
        step = np.where(fires, np.rint(step), -1.0)
        return step[:, None, :] == np.arange(self.steps)[:, None]
