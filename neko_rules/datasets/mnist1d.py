"""MNIST-1D: ten one-dimensional shapes, stretched, moved, tilted and buried in noise.

Every example starts as the twelve points of its digit's template and goes through

    pad         zeros appended, a random number of them, then stretched to 12 + padding[1] points
    scale       times 1 + scale (u - 1/2), u uniform in [0, 1)
    translate   rotated by k points, k uniform in 0 … max_translation - 1
    noise       smooth noise where the signal is zero (the background), then independent noise everywhere
    shear       minus shear (u - 1/2) times a line from -1/2 to 1/2
    subsample   linear interpolation to ``length`` points

and the whole set is shuffled, then brought to mean 0 and standard deviation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.arguments import flag, integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.errors import ArgumentError

# Greydanus 2020: the pen's height at twelve instants, one row per digit.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)

MARK = 1e-8
"""Added to a template so that none of its points is exactly zero: zero means background, which gets smooth noise."""

SMOOTHING = 2.0
"""Standard deviation, in points, of the Gaussian that smooths the background's noise."""


@DATASETS.register("mnist1d")
@dataclass(frozen=True)
class MNIST1D(Dataset):
    """MNIST-1D, generated on the spot: 40 time steps of one feature, 10 classes.

    With the default arguments these are the published 4000 training and 1000 test examples (to float32 rounding).
    Inputs are [examples, length, 1], targets the digits 0 to 9. All amplitudes are dimensionless.

    Args:
        num_samples: training and test examples together, a multiple of 10; every digit gets a tenth.
        train_fraction: the part of them that is for training, above 0 and below 1.
        padding: fewest and most points appended to a template of 12 points.
        scale: width of the range of factors around 1 by which a template is multiplied.
        max_translation: the signal is rotated by fewer points than this.
        correlated_noise: standard deviation of the background's noise before it is smoothed.
        independent_noise: standard deviation of the noise added to every point.
        shear: width of the range of slopes that tilt the signal.
        length: time steps of an example.
        shuffle_time: put the time steps of all examples into one random order, which takes the shapes away.
        seed: of the random numbers, 0 to 2³²-1.

    Raises:
        ArgumentError: an argument is out of its range.

    References:
        S. Greydanus (2020), "Scaling down deep learning", arXiv:2011.14439.

    Example:
        >>> x_train, y_train, x_test, y_test = MNIST1D(num_samples=100, seed=1).load()
        >>> x_train.shape, x_train.dtype.name, y_train.dtype.name
        ((80, 40, 1), 'float32', 'int64')
    """

    num_samples: int = 5000
    train_fraction: float = 0.8
    padding: tuple[int, int] = (36, 60)
    scale: float = 0.4
    max_translation: int = 48
    correlated_noise: float = 0.25
    independent_noise: float = 0.02
    shear: float = 0.75
    length: int = 40
    shuffle_time: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", _padding(self.padding))
        if integer("num_samples", self.num_samples, at_least=10) % len(TEMPLATES):
            raise ArgumentError("num_samples must be a multiple of 10, the number of digits", received=self.num_samples)
        number("train_fraction", self.train_fraction, above=0, below=1)
        if not 0 < self.train_count < self.num_samples:
            raise ArgumentError(
                f"train_fraction must leave training and test examples of num_samples={self.num_samples}",
                received=self.train_fraction,
            )
        for name in ("scale", "correlated_noise", "independent_noise", "shear"):
            number(name, getattr(self, name), at_least=0)
        integer("max_translation", self.max_translation, at_least=1, at_most=self._points)
        integer("length", self.length, at_least=2)
        flag("shuffle_time", self.shuffle_time)
        integer("seed", self.seed, at_least=0, at_most=2**32 - 1)

    @property
    def task_type(self) -> str:
        """Always ``"classification"``."""
        return "classification"

    @property
    def train_count(self) -> int:
        """How many examples are for training; the others are for testing."""
        return int(self.num_samples * self.train_fraction)

    @property
    def _points(self) -> int:
        """Points of a signal between stretching and subsampling."""
        return len(TEMPLATES[0]) + self.padding[1]

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``."""
        signals, labels = generate(self)
        x, n = signals[:, :, None].astype(np.float32), self.train_count
        return x[:n], labels[:n], x[n:], labels[n:]


def generate(arguments: MNIST1D) -> tuple[np.ndarray, np.ndarray]:
    """Signals [num_samples, length] in float64 and labels [num_samples], shuffled and standardised.

    Example:
        >>> signals, labels = generate(MNIST1D(num_samples=20))
        >>> signals.shape, bool(abs(signals.mean()) < 1e-12), round(float(signals.std()), 12)
        ((20, 40), True, 1.0)
    """
    # The published set comes from NumPy's legacy stream: no other generator can give the same examples.
    random = np.random.RandomState(arguments.seed)
    per_class = arguments.num_samples // len(TEMPLATES)
    labels = np.repeat(np.arange(len(TEMPLATES), dtype=np.int64), per_class)
    signals = _distorted(templates(), labels, arguments, random)
    order = random.permutation(len(labels))
    signals, labels = signals[order], labels[order]
    if arguments.shuffle_time:
        signals = signals[:, random.permutation(arguments.length)]
    return (signals - signals.mean()) / signals.std(), labels


def templates() -> np.ndarray:
    """The ten shapes [10, 12]: each standardised, moved to start at zero, and divided by 6.

    Example:
        >>> templates().shape, bool((templates()[:, 0] == 0).all())
        ((10, 12), True)
    """
    raw = np.asarray(TEMPLATES, dtype=np.float64)
    shapes = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
    return (shapes - shapes[:, :1]) / 6.0


def _distorted(shapes: np.ndarray, labels: np.ndarray, a: MNIST1D, random: np.random.RandomState) -> np.ndarray:
    """One distorted signal [length] for every label."""
    from scipy.ndimage import gaussian_filter1d

    n, points = len(labels), a._points
    clean, smooth, white, slope = np.empty((n, points)), np.empty((n, points)), np.empty((n, points)), np.empty(n)
    for i, label in enumerate(labels):
        # The order of these draws is what makes the examples equal to the published ones.
        zeros = a.padding[0] + int(random.rand() * (a.padding[1] - a.padding[0] + 1))
        factor = 1 + a.scale * (random.rand() - 0.5)
        shift = random.randint(a.max_translation)
        smooth[i] = random.randn(points)
        white[i] = random.randn(points)
        slope[i] = a.shear * (random.rand() - 0.5)
        padded = np.concatenate([shapes[label] + MARK, np.zeros(zeros)])
        clean[i] = np.roll(_resampled(padded, points) * factor, shift)
    background = gaussian_filter1d(a.correlated_noise * smooth, SMOOTHING, axis=1)
    noisy = np.where(clean != 0, clean, background) + a.independent_noise * white
    tilted = noisy - slope[:, None] * np.linspace(-0.5, 0.5, points)
    return np.stack([_resampled(signal, a.length) for signal in tilted])


def _resampled(signal: np.ndarray, points: int) -> np.ndarray:
    """Linear interpolation of a signal to another number of points, end to end."""
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(signal)), signal)


def _padding(value: Any) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ArgumentError("padding must be two whole numbers, fewest and most", received=value, works="use [36, 60]")
    low, high = integer("padding[0]", value[0], at_least=0), integer("padding[1]", value[1], at_least=0)
    if low > high:
        raise ArgumentError("padding must be given as fewest, most", received=value, works=f"use [{high}, {low}]")
    return low, high
