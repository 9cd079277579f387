"""Evidence accumulation: count cues on two sides, wait, then say which side had more.

A trial, on a grid of steps of dt seconds:

    [lead-in] (interval, cue) × cues, delay, recall

The lead-in is there only where delays differ between trials: all trials are as long as the longest, and a shorter delay
moves the cues later, so that recall is always at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.arguments import integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.timing import delay_range, spike_probability, steps
from neko_rules.errors import ArgumentError

LEFT, RIGHT, RECALL, BACKGROUND = range(4)
"""The populations of input neurons, in the order of the features."""

NOT_SUPERVISED = -1
"""The label of a time step at which no answer is asked for."""


@DATASETS.register("evidence_accumulation")
@dataclass(frozen=True)
class EvidenceAccumulation(Dataset):
    """Evidence accumulation: seven cues left or right, a delay, then the side that had more of them.

    Inputs are spikes, 0 or 1, [examples, time, 4 · population_size], from four populations: left cues, right cues, the
    recall signal, background noise. A population fires at random at ``cue_rate`` while its signal is on and is silent
    otherwise; the background fires throughout. In each trial one side, left or right with equal chance, is favoured,
    and every cue is on it with ``cue_probability``. Targets are int64 labels per time step [examples, time]: during
    recall 0 if most cues were left and 1 if most were right (the cues decide, not the favoured side), and -1, not
    supervised, before.

    Args:
        train_examples: trials to train on.
        test_examples: trials to test on, drawn from another stream.
        cues: number of cues, odd so that there is no tie.
        cue_probability: chance of a cue to be on the favoured side, 0.5 to 1.
        cue_duration: seconds that a cue lasts.
        cue_interval: seconds of silence before each cue.
        delay: seconds between the last cue and recall; or the shortest and the longest, drawn uniformly for each trial.
        recall_duration: seconds that recall lasts.
        population_size: neurons in each of the four populations.
        cue_rate: firing rate of a neuron whose signal is on, in Hz.
        background_rate: firing rate of a background neuron, in Hz.
        dt: time step in seconds; all durations must be multiples of it.
        seed: of the random numbers. More examples of the same seed begin with the same ones.

    Raises:
        ArgumentError: an argument is out of its range.

    References:
        G. Bellec et al. (2020), "A solution to the learning dilemma for recurrent networks of spiking neurons", Nature
        Communications 11, 3625; the defaults are those of the authors' published program, 2250 steps in all, whose
        delay is always 1050 ms; give ``delay=(0.5, 1.5)`` for delays that vary. The task is after A. S. Morcos &
        C. D. Harvey (2016), "History-dependent variability in population dynamics during evidence accumulation in
        cortex", Nature Neuroscience 19, 1672-1681.

    Example:
        >>> x_train, y_train, x_test, y_test = EvidenceAccumulation(train_examples=4, test_examples=2).load()
        >>> x_train.shape, y_train.shape, x_test.shape
        ((4, 2250, 40), (4, 2250), (2, 2250, 40))
    """

    train_examples: int = 512
    test_examples: int = 128
    cues: int = 7
    cue_probability: float = 0.7
    cue_duration: float = 0.1
    cue_interval: float = 0.05
    delay: float | tuple[float, float] = 1.05
    recall_duration: float = 0.15
    population_size: int = 10
    cue_rate: float = 40.0
    background_rate: float = 10.0
    dt: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        integer("train_examples", self.train_examples, at_least=1)
        integer("test_examples", self.test_examples, at_least=1)
        if integer("cues", self.cues, at_least=1) % 2 == 0:
            raise ArgumentError("cues must be odd, so that one side has more", received=self.cues)
        number("cue_probability", self.cue_probability, at_least=0.5, at_most=1)
        number("dt", self.dt, above=0)
        steps("cue_duration", number("cue_duration", self.cue_duration, above=0), self.dt)
        steps("cue_interval", number("cue_interval", self.cue_interval, at_least=0), self.dt)
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
        """Steps of every trial: cues with their intervals, the longest delay, recall."""
        cue = steps("cue_duration", self.cue_duration, self.dt) + steps("cue_interval", self.cue_interval, self.dt)
        return self.cues * cue + self._delay_steps()[1] + steps("recall_duration", self.recall_duration, self.dt)

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
        shortest, longest = self._delay_steps()
        for spikes, labels in zip(x, y, strict=True):
            favoured = random.integers(2)
            on_favoured = random.random(self.cues) < self.cue_probability
            sides = np.where(on_favoured, favoured, 1 - favoured)
            delay = int(random.integers(shortest, longest, endpoint=True))
            chance = self._spike_probabilities(sides, delay)
            spikes[:] = random.random(spikes.shape, dtype=np.float32) < chance
            labels[-recall:] = RIGHT if 2 * sides.sum() > self.cues else LEFT
        return x, y

    def _spike_probabilities(self, sides: np.ndarray, delay: int) -> np.ndarray:
        """Probability of a spike [time, neuron] in a trial with cues on the given sides."""
        cue = steps("cue_duration", self.cue_duration, self.dt)
        interval = steps("cue_interval", self.cue_interval, self.dt)
        recall = steps("recall_duration", self.recall_duration, self.dt)
        chance = np.zeros((self.time_steps, 4), np.float32)
        first = self.time_steps - recall - delay - self.cues * (interval + cue)
        for i, side in enumerate(sides):
            start = first + i * (interval + cue) + interval
            chance[start : start + cue, side] = self.cue_rate * self.dt
        chance[-recall:, RECALL] = self.cue_rate * self.dt
        chance[:, BACKGROUND] = self.background_rate * self.dt
        return np.repeat(chance, self.population_size, axis=1)

    def _delay_steps(self) -> tuple[int, int]:
        """Shortest and longest delay in time steps."""
        shortest, longest = self.delay if isinstance(self.delay, tuple) else (self.delay, self.delay)
        return steps("delay", shortest, self.dt), steps("delay", longest, self.dt)
