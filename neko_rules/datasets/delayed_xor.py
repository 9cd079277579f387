"""Delayed exclusive or: two cues with a delay between them, then say whether they differed.

A trial, on a grid of steps of dt seconds:

    [lead-in] first cue, delay, second cue, pause, recall

The lead-in is there only where delays differ between trials: all trials are as long as the longest, and a shorter delay
moves the first cue later, so that the second cue and recall are always at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.arguments import number
from neko_rules.datasets.cued_trials import CuedTrials
from neko_rules.datasets.dataset import DATASETS
from neko_rules.datasets.timing import steps


@DATASETS.register("delayed_xor")
@dataclass(frozen=True)
class DelayedXOR(CuedTrials):
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
        super().__post_init__()
        steps("pause", number("pause", self.pause, at_least=0), self.dt)

    @property
    def time_steps(self) -> int:
        """Steps of every trial: both cues, the longest delay, the pause, recall."""
        cue, pause, recall = self._duration_steps()
        return 2 * cue + self._delay_steps()[1] + pause + recall

    def _trial(self, random: np.random.Generator) -> tuple[list[tuple[int, int]], int]:
        first, second = random.integers(2, size=2)
        cue, pause, recall = self._duration_steps()
        start = self.time_steps - recall - pause - cue
        return [(start - self._drawn_delay(random) - cue, first), (start, second)], first ^ second

    def _duration_steps(self) -> tuple[int, int, int]:
        """A cue, the pause and recall in time steps."""
        cue = steps("cue_duration", self.cue_duration, self.dt)
        return cue, steps("pause", self.pause, self.dt), steps("recall_duration", self.recall_duration, self.dt)
