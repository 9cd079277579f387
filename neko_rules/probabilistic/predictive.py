"""Predictive: what many networks together say of an example, and of how sure they are.

    p̄ = mean over networks of p_m            what is predicted
    H[p̄] = -Σ_k p̄_k log p̄_k                  predictive entropy, all doubt
    I = H[p̄] - mean over networks of H[p_m]   mutual information of prediction and weights: the doubt that more data
                                              could take away (Houlsby et al. 2011); the rest is in the data themselves

For regression p̄ is the mixture of what the networks foretell, each with a mean μ_m and a variance v_m of the target:

    E[y] = mean μ_m,    Var[y] = variance of μ_m over networks + mean v_m
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictive:
    """Predictions of several networks for classification.

    Attributes:
        probabilities: p̄ [examples, classes], or [examples, time, classes] for outputs at every step.
        entropy: H[p̄] in nats, without the last axis.
        mutual_information: I in nats.
        networks: how many were averaged.
    """

    probabilities: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    networks: int

    @property
    def classes(self) -> np.ndarray:
        """The most probable class."""
        return np.argmax(self.probabilities, axis=-1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class."""
        return np.max(self.probabilities, axis=-1)


@dataclass(frozen=True)
class PredictiveValues:
    """Predictions of several networks for regression, in the units of the targets.

    Attributes:
        mean: of the target, [examples, outputs] or [examples, time, outputs]. Of counts (Poisson) it is the rate e^f,
            averaged over networks, not the log rate f that the outputs are.
        epistemic: the variance of that mean between networks.
        variance: of the target: that, and the mean variance of the noise, which for counts is the rate itself.
        networks: how many were averaged.
    """

    mean: np.ndarray
    epistemic: np.ndarray
    variance: np.ndarray
    networks: int


def of_logits(outputs: Iterable[np.ndarray]) -> Predictive:
    """The joint prediction of networks that each give logits [..., classes]; they are used up one by one.

    Example: two networks that contradict each other, both sure.

        >>> told = of_logits([np.array([[50.0, 0.0]]), np.array([[0.0, 50.0]])])
        >>> told.probabilities, told.mutual_information.round(4)
        (array([[0.5, 0.5]]), array([0.6931]))
    """
    return of_probabilities(map(softmax, outputs))


def of_probabilities(each: Iterable[np.ndarray]) -> Predictive:
    """The joint prediction of networks that each give probabilities [..., classes]; they are used up one by one.

    Example:
        >>> of_probabilities([np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])]).mutual_information.round(4)
        array([0.2158])
    """
    mean, doubt, networks = np.zeros(()), np.zeros(()), 0
    for p in each:
        mean, doubt, networks = mean + p, doubt + entropies(p), networks + 1
    assert networks, "there is at least one network"
    probabilities = mean / networks
    entropy = entropies(probabilities)
    return Predictive(probabilities, entropy, np.maximum(entropy - doubt / networks, 0.0), networks)


def of_values(outputs: Iterable[np.ndarray], noise_variance: float = 0.0) -> PredictiveValues:
    """The joint prediction of networks that each give values [..., outputs].

    Example:
        >>> told = of_values([np.array([[1.0]]), np.array([[3.0]])], noise_variance=0.5)
        >>> told.mean, told.epistemic, told.variance
        (array([[2.]]), array([[1.]]), array([[1.5]]))
    """
    return of_moments((values, np.full(np.shape(values), noise_variance)) for values in outputs)


def of_moments(moments: Iterable[tuple[np.ndarray, np.ndarray]]) -> PredictiveValues:
    """The joint prediction of networks that each foretell mean and variance of values, both [..., outputs].

    A mean that is infinite, as a rate that overflows, makes the mean and the variances of that value infinite.

    Example: two networks, the second of which foretells a noisier value.

        >>> told = of_moments([(np.array([1.0]), np.array([0.5])), (np.array([3.0]), np.array([1.5]))])
        >>> told.mean, told.epistemic, told.variance
        (array([2.]), array([1.]), array([2.]))
    """
    networks, mean, squares, noise, infinite = 0, np.zeros(()), np.zeros(()), np.zeros(()), np.zeros((), bool)
    for found, variance in moments:
        values = np.asarray(found, np.float64)
        networks, infinite = networks + 1, infinite | np.isposinf(values)
        with np.errstate(invalid="ignore"):
            difference = values - mean
            mean = mean + difference / networks
            squares = squares + difference * (values - mean)
        noise = noise + np.asarray(variance, np.float64)
    assert networks, "there is at least one network"
    mean, epistemic = (np.where(infinite, np.inf, each) for each in (mean, squares / networks))
    return PredictiveValues(mean, epistemic, epistemic + noise / networks, networks)


def softmax(logits: np.ndarray) -> np.ndarray:
    """The softmax over the last axis in float64, without overflow.

    Example:
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return np.asarray(shifted / np.sum(shifted, axis=-1, keepdims=True))


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """-Σ_k p_k log p_k over the last axis, in nats, with 0 log 0 = 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -np.sum(probabilities * logs, axis=-1)
