"""Rate: spikes at random, the more of them the larger a value is.

    P(z_t = 1) = min(1, r x dt)        independently at every time step

with r the rate of a value of 1 in Hz: a Poisson process of rate r x, of which a time step of length dt holds at most
one spike.

Reference: D. Heeger, Poisson model of spike generation, Stanford University, 2000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.encoders.encoder import ENCODERS, Encoder, features, flat, require_fractions, steps_of
from neko_rules.errors import ArgumentError, DataError
from neko_rules.pairs import parts

AT_ONCE = 2**15
"""Numbers that are drawn at once: as many as the cache holds beside what is made of them."""


@ENCODERS.register("rate", "poisson", "bernoulli")
@dataclass(frozen=True)
class Rate(Encoder):
    """Spikes at random, the more of them the larger a value is: P(z_t = 1) = r x dt.

    Args:
        steps: how many time steps; None for values that have time steps of their own, [example, time, feature], and
            are the rates of each.
        max_rate: r, the rate of a value of 1 in Hz, at most 1/dt; by default 1/dt: a spike at every time step.
        seed: of what is drawn.

    Example: a value of 0.2 as a fifth of all spikes, and as 20 Hz.

        >>> rng, x = np.random.default_rng(0), np.full((1, 1), 0.2)
        >>> float(Rate(steps=100_000).encode(x, rng, dt=1e-3).mean().round(2))
        0.2
        >>> float((Rate(steps=100_000, max_rate=100.0).encode(x, rng, dt=1e-3).mean() / 1e-3).round())
        20.0

    Raises:
        ArgumentError: a rate of more than one spike in a time step, once dt is known.
        DataError: a value is below 0 or above 1.
    """

    steps: int | None = None
    max_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None:
            steps_of(self.steps)
        if self.max_rate is not None:
            arguments.number("max_rate", self.max_rate, above=0)
        arguments.integer("seed", self.seed, at_least=0)

    @property
    def draws_from(self) -> int:
        """Its seed."""
        return self.seed

    def check(self, x: np.ndarray) -> None:
        """Refuse values beyond 0 and 1, and pictures where every time step is to have values of its own."""
        if self.steps is None and x.ndim != 3:
            raise DataError(
                "rate coding without steps takes values [example, time, feature]",
                received=f"shape {x.shape}",
                works="say how many time steps the values are to last: steps=25",
            )
        require_fractions(x, "rate coding")

    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        """As many time steps as were asked for, or as there are, and a feature for each value."""
        return (given[1], given[2]) if self.steps is None else (self.steps, features(given))

    def draws(self, given: tuple[int, ...]) -> int:
        """One for every value and time step."""
        return math.prod(self.shape(given))

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        """Spikes, 0 or 1."""
        rate = 1 / dt if self.max_rate is None else self.max_rate
        if rate * dt > 1 + 1e-9:
            raise ArgumentError(
                "a neuron spikes at most once in a time step: max_rate is at most 1/dt",
                received=f"{rate:g} Hz with a dt of {dt:g} s",
                works=f"max_rate={1 / dt:g}, or a smaller dt",
            )
        chance = rate * dt * (x if self.steps is None else flat(x)[:, None, :])
        shape = self.shape(x.shape)
        spikes = np.empty((len(x), *shape), bool)
        for part in parts(len(x), max(1, AT_ONCE // math.prod(shape))):
            drawn = rng.random(spikes[part].shape)
            np.less(drawn, chance[part], out=spikes[part])
        return spikes
