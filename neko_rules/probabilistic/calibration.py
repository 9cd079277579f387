"""Calibration: whether predicted probabilities are frequencies, and whether doubt is where the errors are.

    ECE  = Σ_bins n_b/n |accuracy_b - confidence_b|                                expected calibration error
    risk-coverage: predict the surest part of the examples and leave the rest; risk is the error rate within that part
    AURC = mean of the risk over all coverages

Reference: M. P. Naeini, G. F. Cooper, M. Hauskrecht, AAAI 2015; C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, ICML 2017;
Y. Geifman, R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.errors import DataError
from neko_rules.losses.outputs import DISTRIBUTION_TOLERANCE


@dataclass(frozen=True)
class CalibrationCurve:
    """Accuracy against confidence, in bins of equal width.

    Attributes:
        edges: of the bins, from 0 to 1.
        confidence: mean confidence of the predictions in every bin; NaN where there are none.
        accuracy: part of them that is right; NaN where there are none.
        counts: how many there are.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray


def calibration_curve(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> CalibrationCurve:
    """Accuracy against the probability of the most probable class.

    Args:
        probabilities: [examples, classes], rows that sum to 1.
        labels: [examples].
        bins: how many, of equal width; an edge belongs to the bin below it.

    Raises:
        DataError: rows are no probabilities, labels are no classes, or there are no examples.

    Example: four predictions of 80 %, of which two are right.

        >>> curve = calibration_curve(np.array([[0.8, 0.2]] * 4), np.array([0, 0, 1, 1]), bins=5)
        >>> curve.accuracy[3], curve.counts
        (np.float64(0.5), array([0, 0, 0, 4, 0]))
    """
    arguments.integer("bins", bins, at_least=1)
    confidence, right = _judged(probabilities, labels)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        of_confidence = np.bincount(place, confidence, bins) / counts
        of_right = np.bincount(place, right, bins) / counts
    return CalibrationCurve(edges, of_confidence, of_right, counts)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """ECE: the mean distance of accuracy from confidence over bins, weighted by how many predictions they hold.

    Example:
        >>> round(expected_calibration_error(np.array([[0.8, 0.2]] * 4), np.array([0, 0, 1, 1])), 12)
        0.3
    """
    curve = calibration_curve(probabilities, labels, bins)
    filled = curve.counts > 0
    distance = np.abs(curve.accuracy[filled] - curve.confidence[filled])
    return float(np.sum(curve.counts[filled] * distance) / np.sum(curve.counts))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """-mean log p(label), in nats; a proper score, which rewards sharpness and calibration together.

    Example:
        >>> round(negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([1])), 4)
        0.6931
    """
    _judged(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(np.asarray(probabilities)[np.arange(len(labels)), labels])))


def risk_coverage(uncertainty: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, risk): the error rate among the surest 1/n, 2/n, … n/n of the examples.

    Examples that are equally sure come in no order: where a part of them is taken, they count with their mean error.

    Args:
        uncertainty: [examples]; predictive entropy, mutual information, or minus the confidence.
        right: [examples], whether the prediction is right.

    Raises:
        DataError: the two are not of the same examples, there are none, or an uncertainty is NaN.

    Example: the two errors are where the doubt is.

        >>> risk_coverage(np.array([0.1, 0.9, 0.2, 0.8]), np.array([True, False, True, False]))[1]
        array([0.        , 0.        , 0.33333333, 0.5       ])
    """
    uncertainty, right = _of_the_same(uncertainty, right)
    _, place, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    wrong = np.bincount(place, ~right) / sizes
    counts = np.arange(1, len(right) + 1)
    return counts / len(right), np.cumsum(np.repeat(wrong, sizes)) / counts


def area_under_risk_coverage(uncertainty: np.ndarray, right: np.ndarray) -> float:
    """AURC: the mean risk over all coverages; less is better.

    Example:
        >>> round(area_under_risk_coverage(np.array([0.1, 0.9]), np.array([True, False])), 3)
        0.25
    """
    return float(np.mean(risk_coverage(uncertainty, right)[1]))


def rank_test(uncertainty: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Mann-Whitney: (chance that a wrong prediction is less sure than a right one, one-sided p-value).

    Args:
        uncertainty, right: as for ``risk_coverage``.

    Raises:
        DataError: as for ``risk_coverage``; or all predictions are right, or all wrong.

    Example:
        >>> chance, p_value = rank_test(np.arange(20.0), np.arange(20) < 15)
        >>> chance, p_value < 0.001
        (1.0, True)
    """
    from scipy.stats import mannwhitneyu

    uncertainty, right = _of_the_same(uncertainty, right)
    if right.all() or not right.any():
        raise DataError(
            "a rank test needs right predictions and wrong ones", received=f"{right.sum()} right of {len(right)}"
        )
    found = mannwhitneyu(uncertainty[~right], uncertainty[right], alternative="greater")
    return float(found.statistic / ((~right).sum() * right.sum())), float(found.pvalue)


def _of_the_same(uncertainty: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainties and judgements of the same examples, as arrays."""
    uncertainty, right = np.asarray(uncertainty, np.float64), np.asarray(right, bool)
    if uncertainty.ndim != 1 or uncertainty.shape != right.shape or not len(right):
        raise DataError(
            "uncertainty and right must be of the same examples", received=f"shapes {uncertainty.shape}, {right.shape}"
        )
    if np.isnan(uncertainty).any():
        raise DataError("an uncertainty must be a number", received=f"{np.isnan(uncertainty).sum()} NaN")
    return uncertainty, right


def _judged(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether the most probable class is right."""
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    fit = probabilities.ndim == 2 and labels.shape == probabilities.shape[:1] and labels.dtype.kind in "iu"
    if not fit or not len(labels):
        raise DataError(
            "calibration needs probabilities [examples, classes] and integer labels [examples], of some examples",
            received=f"shapes {probabilities.shape} and {labels.shape}, labels of type {labels.dtype}",
        )
    sums = probabilities.sum(axis=1)
    wrong = ~(np.isfinite(probabilities).all(axis=1) & (probabilities.min(axis=1) >= 0))
    wrong |= ~(np.abs(sums - 1) < DISTRIBUTION_TOLERANCE)
    if wrong.any():
        raise DataError(
            "probabilities must be at least 0 and sum to 1 over the classes",
            received=f"{probabilities[wrong][0]} for example {int(np.argmax(wrong))}",
            works="take the softmax of logits first: predictive.softmax(outputs)",
        )
    classes = probabilities.shape[1]
    if not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"labels of {classes} classes lie from 0 to {classes - 1}",
            received=f"{labels.min()} to {labels.max()}",
            works="leave out what does not count",
        )
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
