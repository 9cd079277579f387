"""Likelihood: a loss as the negative logarithm of a density of targets, and what that says of outputs f.

    loss                      density of a target                  values: mean, variance   probabilities of classes
    crossentropies, KL        the class has probability softmax(f)                          softmax(f)
    mean squared error        y = f + σ ξ, normal noise            f, σ²                    the nearest to f
    mean absolute error       y = f + σ ξ, Laplace noise           f, 2σ²                   none
    poisson                   counts of rate e^f                   e^f, e^f                 softmax(f)

Where a loss of values classifies, its target is 1 for the class and 0 for the others. The squared error is then the
Brier score, whose mean is least where every output is the probability of its class: outputs are probabilities already,
and no logits. Those that are negative or do not add up to 1 are brought to the nearest that are probabilities, by
Euclidean projection on the simplex; for two classes these are (1 ± (f_0 - f_1))/2 within 0 and 1. A Poisson loss is
least where the rates e^f are the probabilities, and the mean absolute error where the outputs are medians, 0 or 1,
which say nothing of probabilities.

Reference: G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78:1, 1950;
J. Duchi et al., Efficient projections onto the l1-ball for learning in high dimensions, ICML 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from neko_rules import arguments
from neko_rules.errors import IncompatibleError
from neko_rules.losses import (
    CategoricalCrossentropy,
    KLDivergence,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SparseCategoricalCrossentropy,
)
from neko_rules.probabilistic.predictive import Predictive, PredictiveValues, of_moments, of_probabilities, softmax

LIKELIHOODS: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    KLDivergence,
    MeanSquaredError,
    MeanAbsoluteError,
    Poisson,
)
"""The losses that are negative logarithms of a density of the target, given the output of its step alone."""


def require_likelihood(loss: Loss) -> None:
    """Refuse a loss that is the negative logarithm of no density.

    Raises:
        IncompatibleError: it is none of ``LIKELIHOODS``.
    """
    if type(loss) not in LIKELIHOODS:
        raise IncompatibleError(
            "a posterior needs a loss that is the negative logarithm of a density of the targets",
            received=f"the loss {type(loss).__name__}",
            works=f"use one of {', '.join(each.__name__ for each in LIKELIHOODS)}",
        )


def checked_noise(loss: Loss, noise_scale: float | None) -> float | None:
    """A scale of noise, in units of the targets, above 0, where the loss has noise; None where none is given.

    Raises:
        ArgumentError: it is out of range.
        IncompatibleError: the loss has no noise.
    """
    if noise_scale is None:
        return None
    if not isinstance(loss, (MeanSquaredError, MeanAbsoluteError)):
        raise IncompatibleError(
            "noise_scale belongs to mean_squared_error and mean_absolute_error",
            received=f"a model with the loss {type(loss).__name__}",
            works="leave noise_scale out",
        )
    return arguments.number("noise_scale", noise_scale, above=0)


def scaled(loss: Loss, noise_scale: float, outputs: int) -> tuple[float, float]:
    """(factor, constant) with -log p of a target = factor · loss + constant, but for what ``of_targets`` adds.

    Args:
        loss: one of ``LIKELIHOODS``.
        noise_scale: σ, for the losses that have one.
        outputs: K, how many numbers a target has.

    Example: two outputs, each off by 1, under normal noise of σ = 1.

        >>> factor, constant = scaled(MeanSquaredError(), 1.0, outputs=2)
        >>> round(factor * 2 + constant, 4), round(1 + math.log(2 * math.pi), 4)
        (2.8379, 2.8379)
    """
    if isinstance(loss, MeanSquaredError):
        return 1 / (2 * noise_scale**2), outputs * math.log(noise_scale * math.sqrt(2 * math.pi))
    if isinstance(loss, MeanAbsoluteError):
        return 1 / noise_scale, outputs * math.log(2 * noise_scale)
    return 1.0, 0.0


def leaves_out(loss: Loss) -> bool:
    """Whether a loss leaves out a part of -log p that depends on the target alone."""
    return isinstance(loss, Poisson)


def of_targets(loss: Loss, target: np.ndarray) -> np.ndarray:
    """What -log p of a target has that depends on the target alone, which the loss leaves out: Σ_k log y_k! for counts.

    Args:
        loss: one of ``LIKELIHOODS``.
        target: [..., outputs].

    Returns:
        [...], zeros for all losses but Poisson.

    Example:
        >>> of_targets(Poisson(), np.array([[3.0, 0.0]])).round(4)
        array([1.7918])
    """
    if not leaves_out(loss):
        return np.zeros(np.shape(target)[:-1])
    from scipy.special import gammaln

    return np.asarray(gammaln(np.asarray(target, np.float64) + 1).sum(axis=-1))


def moments(loss: Loss, outputs: np.ndarray, noise_scale: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the targets that a network foretells by its outputs, both in float64, [..., outputs].

    Args:
        loss: what the network was trained by or sampled with.
        outputs: f.
        noise_scale: σ in units of the targets; without it the variance of noise is taken to be 0.

    Example: log rates are foretold as rates, which counts have as their mean and variance.

        >>> moments(Poisson(), np.array([[0.0, 1.0]]), None)[0].round(3)
        array([[1.   , 2.718]])
        >>> moments(MeanAbsoluteError(), np.array([[2.0]]), 0.5)
        (array([[2.]]), array([[0.5]]))
    """
    values = np.asarray(outputs, np.float64)
    if isinstance(loss, Poisson):
        with np.errstate(over="ignore"):
            rates = np.exp(values)
        return rates, rates
    variance = 0.0 if noise_scale is None else noise_scale**2
    return values, np.full_like(values, 2 * variance if isinstance(loss, MeanAbsoluteError) else variance)


def has_probabilities(loss: Loss) -> bool:
    """Whether outputs trained by a loss say how probable classes are."""
    return type(loss) is MeanSquaredError or isinstance(loss, Poisson) or _of_logits(loss)


def _of_logits(loss: Loss) -> bool:
    return loss.target_kind in ("classes", "labels") and not isinstance(loss, MeanSquaredError)


def require_probabilities(loss: Loss) -> None:
    """Refuse a loss of a classifier that says nothing of probabilities.

    Raises:
        IncompatibleError: it is least where the outputs are medians, counts or times.
    """
    if not has_probabilities(loss):
        raise IncompatibleError(
            "a classifier tells probabilities only if its loss is least where the outputs are those, or their logits",
            received=f"the loss {type(loss).__name__}",
            works="use a crossentropy or mean_squared_error, or task_type='regression' with targets 0 and 1",
        )


def probabilities(loss: Loss, outputs: np.ndarray) -> np.ndarray:
    """How probable a network holds every class to be, float64 [..., classes].

    Args:
        loss: what the network was trained by or sampled with.
        outputs: f.

    Raises:
        IncompatibleError: the loss says nothing of probabilities.

    Example:
        >>> probabilities(MeanSquaredError(), np.array([[0.8, 0.2], [1.2, 0.2], [0.5, 0.3]])).round(12)
        array([[0.8, 0.2],
               [1. , 0. ],
               [0.6, 0.4]])
    """
    require_probabilities(loss)
    return nearest_distribution(outputs) if type(loss) is MeanSquaredError else softmax(outputs)


def nearest_distribution(values: np.ndarray) -> np.ndarray:
    """The probabilities at the smallest distance from values: max(f - τ, 0) with the τ that makes their sum 1.

    Args:
        values: f [..., classes].

    Example:
        >>> nearest_distribution(np.array([2.0, 0.0, 0.0])), nearest_distribution(np.array([0.1, 0.1])).round(12)
        (array([1., 0., 0.]), array([0.5, 0.5]))
    """
    values = np.asarray(values, np.float64)
    falling = -np.sort(-values, axis=-1)
    counts = np.arange(1, values.shape[-1] + 1)
    excess = (np.cumsum(falling, axis=-1) - 1) / counts
    kept = np.sum(falling > excess, axis=-1, keepdims=True)
    return np.asarray(np.maximum(values - np.take_along_axis(excess, kept - 1, axis=-1), 0.0))


def foretold(
    outputs: Iterable[np.ndarray], task_type: str, loss: Loss, noise_scale: float | None
) -> Predictive | PredictiveValues:
    """The joint prediction of networks that were trained by a loss, or sampled with it; used up one by one.

    Args:
        outputs: of each network, [examples, outputs] or [examples, time, outputs].
        task_type: ``"classification"`` or ``"regression"``.
        loss: of all of them.
        noise_scale: σ, for squared and absolute errors of values.

    Raises:
        IncompatibleError: the loss of a classifier says nothing of probabilities.

    Example: two networks that foretell counts of rate 1 and 3; Var y = Var λ + E λ.

        >>> told = foretold(np.log([[[1.0]], [[3.0]]]), "regression", Poisson(), None)
        >>> told.mean, told.epistemic, told.variance
        (array([[2.]]), array([[1.]]), array([[3.]]))
    """
    if task_type == "classification":
        require_probabilities(loss)
        return of_probabilities(probabilities(loss, each) for each in outputs)
    return of_moments(moments(loss, each, noise_scale) for each in outputs)
