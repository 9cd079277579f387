"""Predictive: what many networks together say of an example, and of how sure they are.

    p̄ = mean over networks of p_m            what is predicted
    H[p̄] = -Σ_k p̄_k log p̄_k                  predictive entropy, all doubt
    I = H[p̄] - mean over networks of H[p_m]   mutual information of prediction and weights: the doubt that more data
                                              could take away (Houlsby et al. 2011); the rest is in the data themselves

For regression p̄ is a mixture of Gaussians: its mean, and its variance as that between networks plus that of the noise.
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
    """Predictions of several networks for regression.

    Attributes:
        mean: [examples, outputs] or [examples, time, outputs].
        epistemic: the variance between networks.
        variance: that and the variance of the noise.
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
    mean, doubt, networks = 0.0, 0.0, 0
    for logits in outputs:
        shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
        log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
        p = np.exp(log_p)
        mean, doubt, networks = mean + p, doubt - np.sum(p * log_p, axis=-1), networks + 1
    assert networks, "there is at least one network"
    probabilities = np.asarray(mean / networks)
    entropy = entropies(probabilities)
    return Predictive(probabilities, entropy, np.maximum(entropy - doubt / networks, 0.0), networks)


def of_values(outputs: Iterable[np.ndarray], noise_variance: float = 0.0) -> PredictiveValues:
    """The joint prediction of networks that each give values [..., outputs].

    Example:
        >>> told = of_values([np.array([[1.0]]), np.array([[3.0]])], noise_variance=0.5)
        >>> told.mean, told.epistemic, told.variance
        (array([[2.]]), array([[1.]]), array([[1.5]]))
    """
    networks, mean, squares = 0, np.zeros(()), np.zeros(())
    for values in outputs:
        networks += 1
        difference = np.asarray(values, np.float64) - mean
        mean = mean + difference / networks
        squares = squares + difference * (values - mean)
    assert networks, "there is at least one network"
    return PredictiveValues(mean, squares / networks, squares / networks + noise_variance, networks)


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """-Σ_k p_k log p_k over the last axis, in nats, with 0 log 0 = 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -np.sum(probabilities * logs, axis=-1)
