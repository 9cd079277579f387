"""Deviation: how one gradient (or weight change) differs from another, within a batch and over batches.

With a the reference, b what is compared with it, d = b - a, sums over the entries of a parameter (or of several taken
as one vector) that are learned, which what is no synapse is not, and n their number:

    cosine          Σ ab / (‖a‖ ‖b‖)
    angle           2 arcsin √((‖d‖² - (‖a‖ - ‖b‖)²) / (4 ‖a‖ ‖b‖)), in degrees: the same angle, without the loss of
                    digits that the arc cosine has between vectors that are almost the same
    norm_ratio      ‖b‖ / ‖a‖
    relative_error  ‖d‖ / ‖a‖
    sign_agreement  the share of entries with a ≠ 0 in which b has the sign of a
    mean, std       of d over the entries, in units of the gradient
    mean_absolute   Σ |d| / n
    norm, reference_norm  ‖b‖ and ‖a‖

Where a norm that is divided by is zero the figure is NaN. Over batches t = 1 … B, entry by entry,

    mean square deviation  (1/B) Σ_t d_t² = d̄² + (1/B) Σ_t (d_t - d̄)² = bias² + variance

so that what a rule gets wrong always is told from what it gets wrong in one batch and right in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

STATISTICS = (
    "cosine",
    "angle",
    "norm_ratio",
    "relative_error",
    "sign_agreement",
    "mean",
    "std",
    "mean_absolute",
    "norm",
    "reference_norm",
)
"""The figures of one batch, in the order in which they are stored."""


def sums(reference: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The sums that every figure is made of; those of several parameters add up to those of one long vector.

    Returns:
        Σab, Σa², Σb², Σd², Σd, Σ|d|, number of equal signs, number of a ≠ 0, number of entries.

    Example:
        >>> sums(np.array([3.0, 0.0]), np.array([3.0, 4.0])).tolist()
        [9.0, 9.0, 25.0, 16.0, 4.0, 4.0, 1.0, 1.0, 2.0]
    """
    a, b = np.asarray(reference, np.float64).ravel(), np.asarray(given, np.float64).ravel()
    d = b - a
    signs = np.sign(a)
    nonzero = np.count_nonzero(signs)
    equal = np.count_nonzero((signs == np.sign(b)) & (signs != 0))
    return np.array([a @ b, a @ a, b @ b, d @ d, d.sum(), np.abs(d).sum(), equal, nonzero, a.size], np.float64)


def statistics(total: np.ndarray) -> np.ndarray:
    """The figures of ``STATISTICS`` from ``sums``.

    Example: a gradient at a right angle to the reference, and one of opposite sign.

        >>> figures = dict(zip(STATISTICS, statistics(sums(np.array([1.0, 0.0]), np.array([0.0, 2.0])))))
        >>> round(float(figures["angle"]), 6), float(figures["cosine"]), float(figures["norm_ratio"])
        (90.0, 0.0, 2.0)
        >>> opposite = dict(zip(STATISTICS, statistics(sums(np.array([1.0, 2.0]), np.array([-1.0, -2.0])))))
        >>> round(float(opposite["cosine"]), 12), float(opposite["sign_agreement"])
        (-1.0, 0.0)
    """
    ab, aa, bb, dd, d, absolute, equal, nonzero, n = total
    a, b = np.sqrt(aa), np.sqrt(bb)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.clip(ab / (a * b), -1.0, 1.0)
        half = np.clip((dd - (a - b) ** 2) / (4 * a * b), 0.0, 1.0)
        angle = np.degrees(2 * np.arcsin(np.sqrt(half))) if a > 0 and b > 0 else np.nan
        mean = d / n
        std = np.sqrt(max(dd / n - mean**2, 0.0))
        figures = [cosine, angle, b / a, np.sqrt(dd) / a, equal / nonzero, mean, std, absolute / n, b, a]
    values = np.array(figures, np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def groups(parameters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What figures are made of: every parameter, every population that has several, and ``"all"`` together.

    Example:
        >>> list(groups(["hidden.input.weight", "hidden.bias", "readout.bias"]))
        ['hidden.input.weight', 'hidden.bias', 'readout.bias', 'hidden', 'all']
    """
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in parameters}
    populations: dict[str, list[str]] = {}
    for name in parameters:
        populations.setdefault(name.split(".")[0], []).append(name)
    found |= {layer: tuple(names) for layer, names in populations.items() if len(names) > 1 and layer not in found}
    return {**found, "all": tuple(parameters)}


def compared(
    reference: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], parts: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """The figures of every group: [group, statistic]."""
    by_parameter = {name: sums(reference[name], given[name]) for name in reference}
    return np.stack([statistics(np.sum([by_parameter[name] for name in names], axis=0)) for names in parts.values()])


@dataclass
class Moments:
    """Mean and variance over batches of every entry of a deviation, kept in O(1) memory.

    Args:
        count: batches seen, B.
        mean: d̄, entry by entry.
        squares: Σ_t (d_t - d̄)², entry by entry, updated as each batch comes (Welford 1962, Technometrics 4:419).
        synapses: which entries averages are of, bool; None for all.

    Example:
        >>> moments = Moments()
        >>> for value in (1.0, 3.0):
        ...     moments.add(np.array([value]))
        >>> moments.mean.tolist(), moments.variance.tolist(), moments.standard_error.tolist()
        ([2.0], [1.0], [1.0])
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))
    synapses: np.ndarray | None = None

    def add(self, deviation: np.ndarray) -> None:
        """Count one batch."""
        value = np.asarray(deviation, np.float64)
        self.count += 1
        step = value - self.mean
        self.mean = self.mean + step / self.count
        self.squares = self.squares + step * (value - self.mean)

    @property
    def variance(self) -> np.ndarray:
        """(1/B) Σ_t (d_t - d̄)²."""
        return self.squares / max(self.count, 1)

    @property
    def standard_error(self) -> np.ndarray:
        """Of the mean, √(Σ_t (d_t - d̄)² / (B (B - 1))), as if batches were independent; NaN for one batch."""
        if self.count < 2:
            return np.full(np.shape(self.mean), np.nan)
        return np.sqrt(self.squares / (self.count * (self.count - 1)))

    @property
    def squared_bias(self) -> float:
        """d̄², averaged over the entries that are synapses; NaN where none is."""
        return self._averaged(self.mean**2)

    @property
    def spread(self) -> float:
        """The variance, averaged likewise; with ``squared_bias`` it adds up to the mean square deviation."""
        return self._averaged(self.variance)

    def _averaged(self, entries: np.ndarray) -> float:
        counted = entries if self.synapses is None else entries[self.synapses]
        return float(np.mean(counted)) if counted.size else float("nan")
