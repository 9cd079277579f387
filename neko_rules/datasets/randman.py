"""Randman: spike trains from smooth random manifolds, one manifold for each class.

A point of a class's manifold gives each unit a coordinate y in [0, 1], and that a whole number n = min(⌊T y⌋, T-1),
with T the number of time steps, which is coded as

    time    one spike, at time step n
    rate    n + 1 spikes, at time steps drawn without replacement for every unit of every example
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.arguments import choice, integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.random_manifold import RandomManifold


@DATASETS.register("randman")
@dataclass(frozen=True)
class Randman(Dataset):
    """Random manifolds as spike trains: ten classes told apart by spike times alone, or by spike counts alone.

    Inputs are spikes, 0 or 1, [examples, time_steps, units]; targets are the classes. With ``code="time"`` every unit
    fires exactly once, so that counts say nothing; with ``code="rate"`` the times say nothing, drawn independently for
    every unit of every example. The classes alternate at random, each once in every ``classes`` examples.

    Args:
        classes: number of manifolds.
        units: input neurons, the dimension of the space that the manifolds lie in.
        time_steps: length of an example; the task knows no seconds.
        dimension: of the manifolds, the number of their intrinsic coordinates; more make the task harder.
        smoothness: α, how fast the spectrum of a manifold falls off, 0 to 10; less makes the task harder.
        code: ``"time"`` or ``"rate"``.
        train_examples: examples of each class to train on.
        test_examples: examples of each class to test on, drawn from the same manifolds by another stream.
        manifold_seed: of the manifolds; more classes of the same seed begin with the same manifolds.
        seed: of the points on the manifolds, their order, and the spike times of the rate code. More examples of the
            same seed begin with the same ones.

    Raises:
        ArgumentError: an argument is out of its range.

    References:
        F. Zenke & T. P. Vogels (2021), "The remarkable robustness of surrogate gradient learning for instilling complex
        function in spiking neural networks", Neural Computation 33(4), 899-925: the manifolds and the time code. The
        rate code and the sizes are those of T. Summe, C. Schaefer & S. Joshi (2023), "Estimating post-synaptic effects
        for online training of feed-forward SNNs", arXiv:2311.16151; their published program takes the points of all
        classes at the same intrinsic coordinates, which are drawn independently here.

    Example:
        >>> x_train, y_train, x_test, y_test = Randman(train_examples=20, test_examples=5).load()
        >>> x_train.shape, y_train.shape, x_test.shape, float(x_train.sum(axis=1).max())
        ((200, 50, 50), (200,), (50, 50, 50), 1.0)
    """

    classes: int = 10
    units: int = 50
    time_steps: int = 50
    dimension: int = 3
    smoothness: float = 1.0
    code: str = "time"
    train_examples: int = 800
    test_examples: int = 200
    manifold_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        integer("classes", self.classes, at_least=2)
        for name in ("units", "time_steps", "dimension", "train_examples", "test_examples"):
            integer(name, getattr(self, name), at_least=1)
        number("smoothness", self.smoothness, above=0, at_most=10)
        choice("code", self.code, ["time", "rate"])
        integer("manifold_seed", self.manifold_seed, at_least=0)
        integer("seed", self.seed, at_least=0)

    @property
    def task_type(self) -> str:
        """Always ``"classification"``."""
        return "classification"

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``."""
        manifolds = [
            RandomManifold.drawn(
                np.random.default_rng([self.manifold_seed, label]), self.units, self.dimension, self.smoothness
            )
            for label in range(self.classes)
        ]
        x_train, y_train = self._examples(manifolds, self.train_examples, stream=0)
        x_test, y_test = self._examples(manifolds, self.test_examples, stream=1)
        return x_train, y_train, x_test, y_test

    def _examples(self, manifolds: list[RandomManifold], each: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        points, order, times = (np.random.default_rng([self.seed, stream, what]) for what in range(3))
        labels = order.permuted(np.tile(np.arange(self.classes), (each, 1)), axis=1).ravel()
        where = points.random((len(labels), self.dimension))
        coordinates = np.empty((len(labels), self.units))
        for label, manifold in enumerate(manifolds):
            coordinates[labels == label] = manifold(where[labels == label])
        numbers = whole(coordinates, self.time_steps)
        if self.code == "time":
            return spikes_at(numbers, self.time_steps), labels
        return spikes_at_random(times, numbers + 1, self.time_steps), labels


def whole(coordinates: np.ndarray, time_steps: int) -> np.ndarray:
    """The numbers n = min(⌊T y⌋, T-1) for coordinates y in [0, 1].

    Example:
        >>> whole(np.array([0.0, 0.019, 0.02, 0.5, 1.0]), 50).tolist()
        [0, 0, 1, 25, 49]
    """
    return np.minimum((coordinates * time_steps).astype(np.int64), time_steps - 1)


def spikes_at(times: np.ndarray, time_steps: int) -> np.ndarray:
    """One spike for each example and unit, [examples, time, units], at time steps [examples, units].

    Example:
        >>> spikes_at(np.array([[2, 0]]), 3)[0].tolist()
        [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    """
    return (np.arange(time_steps)[:, None] == times[:, None, :]).astype(np.float32)


def spikes_at_random(random: np.random.Generator, counts: np.ndarray, time_steps: int) -> np.ndarray:
    """So many spikes for each example and unit, [examples, time, units], each at time steps of its own drawing.

    Example:
        >>> spikes = spikes_at_random(np.random.default_rng(0), np.array([[4, 4, 0, 8]]), 8)
        >>> spikes.sum(axis=1).tolist(), bool((spikes[0, :, 0] == spikes[0, :, 1]).all())
        ([[4.0, 4.0, 0.0, 8.0]], False)
    """
    spikes = np.arange(time_steps) < counts[:, :, None]
    # permuted, unlike permutation and shuffle, gives every row an order of its own.
    random.permuted(spikes, axis=2, out=spikes)
    return np.ascontiguousarray(spikes.transpose(0, 2, 1), np.float32)
