"""Trials of cues, a delay and recall, told as spikes by four populations: what the tasks of this kind share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from neko_rules.arguments import integer, number
from neko_rules.datasets.dataset import Dataset, Split
from neko_rules.datasets.timing import delay_range, spike_probability, steps

RECALL, BACKGROUND = 2, 3
"""The populations beside those of the two cues, 0 and 1, in the order of the features."""

NOT_SUPERVISED = -1
"""The label of a time step at which no answer is asked for."""


class CuedTrials(Dataset):
    """A data set of trials that all end with recall, whose steps alone are supervised, with one label per trial.

    A subclass is a frozen dataclass with the fields below, the number of ``time_steps`` and a ``_trial``.
    """

    train_examples: int
    test_examples: int
    cue_duration: float
    delay: float | tuple[float, float]
    recall_duration: float
    population_size: int
    cue_rate: float
    background_rate: float
    dt: float
    seed: int

    def __post_init__(self) -> None:
        integer("train_examples", self.train_examples, at_least=1)
        integer("test_examples", self.test_examples, at_least=1)
        number("dt", self.dt, above=0)
        steps("cue_duration", number("cue_duration", self.cue_duration, above=0), self.dt)
        steps("recall_duration", number("recall_duration", self.recall_duration, above=0), self.dt)
        object.__setattr__(self, "delay", delay_range(self.delay))
        self._delay_steps()
        integer("population_size", self.population_size, at_least=1)
        spike_probability("cue_rate", self.cue_rate, self.dt)
        spike_probability("background_rate", self.background_rate, self.dt)
        integer("seed", self.seed, at_least=0)

    @property
    def task_type(self) -> str:
        """Always ``"classification"``."""
        return "classification"

    @property
    def time_steps(self) -> int:
        """Steps of every trial."""
        raise NotImplementedError(f"{type(self).__name__} must define time_steps")

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``."""
        x_train, y_train = self._trials(self.train_examples, stream=0)
        x_test, y_test = self._trials(self.test_examples, stream=1)
        return x_train, y_train, x_test, y_test

    def _trials(self, examples: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng([self.seed, stream])
        x = np.empty((examples, self.time_steps, 4 * self.population_size), np.float32)
        y = np.full((examples, self.time_steps), NOT_SUPERVISED, np.int64)
        recall = steps("recall_duration", self.recall_duration, self.dt)
        for spikes, labels in zip(x, y, strict=True):
            cues, label = self._trial(random)
            spikes[:] = random.random(spikes.shape, dtype=np.float32) < self._spike_probabilities(cues)
            labels[-recall:] = label
        return x, y

    def _trial(self, random: np.random.Generator) -> tuple[Iterable[tuple[int, int]], int]:
        """First step and population of each cue of the next trial, and its label."""
        raise NotImplementedError(f"{type(self).__name__} must define _trial()")

    def _spike_probabilities(self, cues: Iterable[tuple[int, int]]) -> np.ndarray:
        """Probability of a spike [time, neuron] in a trial with the given cues."""
        cue = steps("cue_duration", self.cue_duration, self.dt)
        recall = steps("recall_duration", self.recall_duration, self.dt)
        chance = np.zeros((self.time_steps, 4), np.float32)
        for start, population in cues:
            chance[start : start + cue, population] = self.cue_rate * self.dt
        chance[-recall:, RECALL] = self.cue_rate * self.dt
        chance[:, BACKGROUND] = self.background_rate * self.dt
        return np.repeat(chance, self.population_size, axis=1)

    def _drawn_delay(self, random: np.random.Generator) -> int:
        """The delay of the next trial in time steps."""
        shortest, longest = self._delay_steps()
        return int(random.integers(shortest, longest, endpoint=True))

    def _delay_steps(self) -> tuple[int, int]:
        """Shortest and longest delay in time steps."""
        shortest, longest = self.delay if isinstance(self.delay, tuple) else (self.delay, self.delay)
        return steps("delay", shortest, self.dt), steps("delay", longest, self.dt)
