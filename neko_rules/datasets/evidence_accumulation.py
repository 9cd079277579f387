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
from neko_rules.datasets.cued_trials import CuedTrials
from neko_rules.datasets.dataset import DATASETS
from neko_rules.datasets.timing import steps
from neko_rules.errors import ArgumentError

LEFT, RIGHT = range(2)
"""The sides of the cues: their populations and the labels."""


@DATASETS.register("evidence_accumulation")
@dataclass(frozen=True)
class EvidenceAccumulation(CuedTrials):
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
        super().__post_init__()
        if integer("cues", self.cues, at_least=1) % 2 == 0:
            raise ArgumentError("cues must be odd, so that one side has more", received=self.cues)
        number("cue_probability", self.cue_probability, at_least=0.5, at_most=1)
        steps("cue_interval", number("cue_interval", self.cue_interval, at_least=0), self.dt)

    @property
    def time_steps(self) -> int:
        """Steps of every trial: cues with their intervals, the longest delay, recall."""
        recall = steps("recall_duration", self.recall_duration, self.dt)
        return self.cues * sum(self._cue_steps()) + self._delay_steps()[1] + recall

    def _trial(self, random: np.random.Generator) -> tuple[list[tuple[int, int]], int]:
        favoured = random.integers(2)
        on_favoured = random.random(self.cues) < self.cue_probability
        sides = np.where(on_favoured, favoured, 1 - favoured)
        interval, cue = self._cue_steps()
        recall = steps("recall_duration", self.recall_duration, self.dt)
        first = self.time_steps - recall - self._drawn_delay(random) - self.cues * (interval + cue)
        cues = [(first + i * (interval + cue) + interval, side) for i, side in enumerate(sides)]
        return cues, RIGHT if 2 * sides.sum() > self.cues else LEFT

    def _cue_steps(self) -> tuple[int, int]:
        """An interval and the cue after it in time steps."""
        cue = steps("cue_duration", self.cue_duration, self.dt)
        return steps("cue_interval", self.cue_interval, self.dt), cue
