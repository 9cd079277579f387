"""Pattern generation: a fixed input, and target curves that are sums of sinusoids.

Output k must follow, at the times t = n dt,

    c_k(t) = Σ_f A_kf sin(2π f t + φ_kf)      A uniform in [0.5, 2], φ uniform in [0, 2π]
    y_k(t) = (c_k(t) - c_k(0)) / max_t |c_k(t) - c_k(0)|

so that every curve starts at 0 and reaches 1 or -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.arguments import choice, integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.timing import spike_probability
from neko_rules.errors import ArgumentError

AMPLITUDES = (0.5, 2.0)
"""Range of a sinusoid's amplitude, dimensionless, before a curve is normalised."""


@DATASETS.register("pattern_generation")
@dataclass(frozen=True)
class PatternGeneration(Dataset):
    """Pattern generation: produce sums of sinusoids while a frozen spike pattern is played.

    Inputs are spikes, 0 or 1, [examples, time_steps, input_neurons]; targets are [examples, time_steps, outputs],
    float32. Every example is the same trial, and the test set equals the training set: what is learned is one pattern.

    Args:
        time_steps: length of a trial in steps of ``dt``.
        dt: time step in seconds.
        input_neurons: number of input neurons.
        outputs: number of target curves.
        input_kind: ``"poisson"``, every neuron fires at random at ``input_rate``, once drawn and then frozen; or
            ``"clock"``, the neurons form ``clock_groups`` groups that take turns, the active one firing regularly
            at ``input_rate``.
        input_rate: firing rate of an active input neuron in Hz.
        clock_groups: groups of the clock, each active for an equal part of the trial; unused by ``"poisson"``.
        frequencies: of the sinusoids in a curve, in Hz; below half a cycle per time step.
        examples: how many copies of the trial each set holds.
        seed: of the random numbers; input and targets are drawn from separate streams.

    Raises:
        ArgumentError: an argument is out of its range.

    References:
        G. Bellec, F. Scherr, A. Subramoney, E. Hajek, D. Salaj, R. Legenstein & W. Maass (2020), "A solution to the
        learning dilemma for recurrent networks of spiking neurons", Nature Communications 11, 3625; the defaults are
        those of the authors' published program (100 Poisson neurons at 50 Hz, amplitudes, normalisation), with three
        curves in place of one. That program rounds the periods to 1000, 500, 333 and 200 steps and stretches them to
        end on the last step; here the frequencies are exact.

    Example:
        >>> x_train, y_train, x_test, y_test = PatternGeneration(time_steps=200).load()
        >>> x_train.shape, y_train.shape
        ((1, 200, 100), (1, 200, 3))
    """

    time_steps: int = 1000
    dt: float = 1e-3
    input_neurons: int = 100
    outputs: int = 3
    input_kind: str = "poisson"
    input_rate: float = 50.0
    clock_groups: int = 5
    frequencies: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0)
    examples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        integer("time_steps", self.time_steps, at_least=2)
        number("dt", self.dt, above=0)
        integer("input_neurons", self.input_neurons, at_least=1)
        integer("outputs", self.outputs, at_least=1)
        choice("input_kind", self.input_kind, ["poisson", "clock"])
        spike_probability("input_rate", number("input_rate", self.input_rate, above=0), self.dt)
        if self.input_kind == "clock":
            most = min(self.input_neurons, self.time_steps)
            integer("clock_groups", self.clock_groups, at_least=1, at_most=most)
        object.__setattr__(self, "frequencies", _frequencies(self.frequencies, self.dt))
        integer("examples", self.examples, at_least=1)
        integer("seed", self.seed, at_least=0)

    @property
    def task_type(self) -> str:
        """Always ``"regression"``."""
        return "regression"

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``; the last two are copies of the first two."""
        x = np.repeat(self._input()[None].astype(np.float32), self.examples, axis=0)
        y = np.repeat(self._targets()[None].astype(np.float32), self.examples, axis=0)
        return x, y, x.copy(), y.copy()

    def _input(self) -> np.ndarray:
        if self.input_kind == "clock":
            return _clock(self.time_steps, self.input_neurons, self.clock_groups, self.input_rate * self.dt)
        random = np.random.default_rng([self.seed, 0])
        return random.random((self.time_steps, self.input_neurons)) < self.input_rate * self.dt

    def _targets(self) -> np.ndarray:
        random = np.random.default_rng([self.seed, 1])
        shape = (self.outputs, len(self.frequencies))
        amplitudes, phases = random.uniform(*AMPLITUDES, shape), random.uniform(0, 2 * np.pi, shape)
        times = np.arange(self.time_steps) * self.dt
        return sums_of_sinusoids(times, np.asarray(self.frequencies), amplitudes, phases)


def sums_of_sinusoids(
    times: np.ndarray, frequencies: np.ndarray, amplitudes: np.ndarray, phases: np.ndarray
) -> np.ndarray:
    """Normalised sums of sinusoids, the equation at the top of this file.

    Args:
        times: [time], in seconds.
        frequencies: [sinusoids], in Hz.
        amplitudes: [outputs, sinusoids], dimensionless.
        phases: [outputs, sinusoids], in radians.

    Returns:
        The curves [time, outputs], each starting at 0 and with a largest absolute value of 1.

    Example:
        >>> quarter = np.array([0.0, 0.25])
        >>> sums_of_sinusoids(quarter, np.array([1.0]), np.array([[3.0]]), np.array([[0.0]])).round(12).tolist()
        [[0.0], [1.0]]
    """
    angles = 2 * np.pi * times[:, None, None] * frequencies + phases
    curves = np.sum(amplitudes * np.sin(angles), axis=-1)
    moved = curves - curves[:1]
    return moved / np.abs(moved).max(axis=0)


def _clock(time_steps: int, neurons: int, groups: int, spikes_per_step: float) -> np.ndarray:
    """Regular spikes [time, neuron] of groups of neurons that are active one after the other."""
    step = np.arange(time_steps)
    active = step * groups // time_steps
    group_of_neuron = np.arange(neurons) * groups // neurons
    # The step in which the number of spikes due since the start of the trial rises; the first step counts as such.
    due = np.floor(step * spikes_per_step + 1e-9)
    fires = np.diff(due, prepend=-1) >= 1
    return fires[:, None] & (active[:, None] == group_of_neuron)


def _frequencies(value: Any, dt: float) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ArgumentError("frequencies must be one or more numbers in Hz", received=value, works="use [1, 2, 3, 5]")
    return tuple(number(f"frequencies[{i}]", f, above=0, below=0.5 / dt) for i, f in enumerate(value))
