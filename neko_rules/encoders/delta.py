"""Delta: spikes where a signal has changed, as event cameras and silicon cochleas send them.

Each feature has a channel for up and one for down, and a level r that follows the signal by steps of θ:

    up:    x_t - r_{t-1} ≥ θ     r_t = r_{t-1} + θ
    down:  r_{t-1} - x_t ≥ θ     r_t = r_{t-1} - θ
    else   r_t = r_{t-1},        r_0 = x_0

Reference: M. Miskowicz, Send-on-delta concept: an event-based data reporting strategy, Sensors 6, 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.encoders.encoder import ENCODERS, Encoder
from neko_rules.errors import DataError


@ENCODERS.register("delta", "send_on_delta")
@dataclass(frozen=True)
class Delta(Encoder):
    """Spikes where a signal has changed by a threshold: a channel for up and one for down of every feature.

    Args:
        threshold: θ, in the unit of the signal.

    Example: a signal that rises and falls again; first come the channels for up, then those for down.

        >>> signal = np.array([[[0.0], [0.6], [1.2], [1.3], [0.1]]])
        >>> Delta(threshold=0.5).encode(signal, np.random.default_rng(0), dt=1e-3)[0].astype(int).T
        array([[0, 1, 1, 0, 0],
               [0, 0, 0, 0, 1]])

    Raises:
        DataError: the values have no time steps.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        arguments.number("threshold", self.threshold, above=0)

    def check(self, x: np.ndarray) -> None:
        """Refuse what does not change in time."""
        if x.ndim != 3:
            raise DataError("delta coding takes signals [example, time, feature]", received=f"shape {x.shape}")

    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        """As many time steps as there are, and two channels for every feature."""
        return given[1], 2 * given[2]

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        """Spikes, 0 or 1: the channels for up, then those for down."""
        level = x[:, 0].astype(np.float64)
        spikes = np.zeros((len(x), *self.shape(x.shape)), bool)
        up, down = np.split(spikes, 2, axis=2)
        for t in range(1, x.shape[1]):
            change = x[:, t] - level
            up[:, t], down[:, t] = change >= self.threshold, change <= -self.threshold
            level += self.threshold * (up[:, t].astype(np.float64) - down[:, t])
        return spikes
