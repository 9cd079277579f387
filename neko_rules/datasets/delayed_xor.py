"""Delayed exclusive or: two cues with a delay between them, then say whether they differed.

A trial, on a grid of steps of dt seconds:

    [lead-in] first cue, delay, second cue, pause, recall

The lead-in is there only where delays differ between trials: all trials are as long as the longest, and a shorter delay
moves the first cue later, so that the second cue and recall are always at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.arguments import integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.timing import delay_range, spike_probability, steps

ZERO, ONE, RECALL, BACKGROUND = range(4)
"""The populations of input neurons, in the order of the features."""

NOT_SUPERVISED = -1
"""The label of a time step at which no answer is asked for."""


@DATASETS.register("delayed_xor")
@dataclass(frozen=True)
class DelayedXOR(Dataset):
    """Delayed exclusive or: two binary cues with a delay between them, then whether they differed.

    Inputs are spikes, 0 or 1, [examples, time, 4 · population_size], from four populations: cue 0, cue 1, the recall
    signal, background noise. A population fires at random at ``cue_rate`` while its signal is on and is silent
    otherwise; the background fires throughout. The two cues are drawn independently, 0 or 1 with equal chance, so that
    neither alone says anything about the answer. Targets are int64 labels per time step [examples, time]: during recall
    1 if the cues differ and 0 if they are alike, and -1, not supervised, before.

    Args:
        train_examples: trials to train on.
        test_examples: trials to test on, drawn from another stream.
        cue_duration: seconds that a cue lasts.
        delay: seconds between the cues; or the shortest and the longest, drawn uniformly for each trial.
        pause: seconds between the second cue and recall.
        recall_duration: seconds that recall lasts.
        population_size: neurons in each of the four populations.
        cue_rate: firing rate of a neuron whose signal is on, in Hz.
        background_rate: firing rate of a background neuron, in Hz.
        dt: time step in seconds; all durations must be multiples of it.
        seed: of the random numbers. More examples of the same seed begin with the same ones.

    Raises:
        ArgumentError: an argument is out of its range.

    References:
        The task is that of R. Kim, Y. Li & T. J. Sejnowski (2019), "Simple framework for constructing functional
        spiking recurrent neural networks", PNAS 116(45), 22811-22820, with the populations of ``EvidenceAccumulation``
        in place of its two continuous inputs.

    Example:
        >>> x_train, y_train, x_test, y_test = DelayedXOR(train_examples=4, test_examples=2).load()
        >>> x_train.shape, y_train.shape, x_test.shape
        ((4, 300, 40), (4, 300), (2, 300, 40))
    """

    train_examples: int = 512
    test_examples: int = 128
    cue_duration: float = 0.05
    delay: float | tuple[float, float] = 0.1
    pause: float = 0.05
    recall_duration: float = 0.05
    population_size: int = 10
    cue_rate: float = 100.0
    background_rate: float = 10.0
    dt: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        integer("train_examples", self.train_examples, at_least=1)
        integer("test_examples", self.test_examples, at_least=1)
        number("dt", self.dt, above=0)
        steps("cue_duration", number("cue_duration", self.cue_duration, above=0), self.dt)
        steps("pause", number("pause", self.pause, at_least=0), self.dt)
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
        """Steps of every trial: both cues, the longest delay, the pause, recall."""
        cue, pause, recall = self._duration_steps()
        return 2 * cue + self._delay_steps()[1] + pause + recall

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``."""
        x_train, y_train = self._trials(self.train_examples, stream=0)
        x_test, y_test = self._trials(self.test_examples, stream=1)
        return x_train, y_train, x_test, y_test

    def _trials(self, examples: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng([self.seed, stream])
        x = np.empty((examples, self.time_steps, 4 * self.population_size), np.float32)
        y = np.full((examples, self.time_steps), NOT_SUPERVISED, np.int64)
        recall = self._duration_steps()[2]
        shortest, longest = self._delay_steps()
        for spikes, labels in zip(x, y, strict=True):
            first, second = random.integers(2, size=2)
            delay = int(random.integers(shortest, longest, endpoint=True))
            chance = self._spike_probabilities(first, second, delay)
            spikes[:] = random.random(spikes.shape, dtype=np.float32) < chance
            labels[-recall:] = first ^ second
        return x, y

    def _spike_probabilities(self, first: int, second: int, delay: int) -> np.ndarray:
        """Probability of a spike [time, neuron] in a trial with the given cues and a delay in steps."""
        cue, pause, recall = self._duration_steps()
        chance = np.zeros((self.time_steps, 4), np.float32)
        start = self.time_steps - recall - pause - cue
        chance[start : start + cue, second] = self.cue_rate * self.dt
        start -= delay + cue
        chance[start : start + cue, first] = self.cue_rate * self.dt
        chance[-recall:, RECALL] = self.cue_rate * self.dt
        chance[:, BACKGROUND] = self.background_rate * self.dt
        return np.repeat(chance, self.population_size, axis=1)

    def _duration_steps(self) -> tuple[int, int, int]:
        """A cue, the pause and recall in time steps."""
        cue = steps("cue_duration", self.cue_duration, self.dt)
        return cue, steps("pause", self.pause, self.dt), steps("recall_duration", self.recall_duration, self.dt)

    def _delay_steps(self) -> tuple[int, int]:
        """Shortest and longest delay in time steps."""
        shortest, longest = self.delay if isinstance(self.delay, tuple) else (self.delay, self.delay)
        return steps("delay", shortest, self.dt), steps("delay", longest, self.dt)
