"""Losses of outputs at a time step: cross-entropies, distances and counts, each with its derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules.backend import Array, Backend, log_softmax, softmax
from neko_rules.errors import DataError
from neko_rules.losses.loss import LOSSES, Loss

DISTRIBUTION_TOLERANCE = 1e-3
"""How far the probabilities of a target may be from summing to 1, wide enough for float32 and rounded files."""


@LOSSES.register("categorical_crossentropy", "crossentropy", "cce")
@dataclass(frozen=True)
class CategoricalCrossentropy(Loss):
    """-Σ_k t_k log softmax(y)_k: the surprise at the target class; derivative softmax(y) Σ_k t_k - t.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, y, t = get_backend("numpy"), np.zeros((1, 1, 4)), np.eye(4)[[[2]]]
        >>> CategoricalCrossentropy().value(nx, y, t).round(4), CategoricalCrossentropy().gradient(nx, y, t)
        (array([[1.3863]]), array([[[ 0.25,  0.25, -0.75,  0.25]]]))
    """

    target_kind: ClassVar[str] = "classes"

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """-Σ_k t_k log softmax(y)_k."""
        return -nx.sum(target * log_softmax(nx, outputs), axis=-1)

    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """softmax(y) Σ_k t_k - t."""
        return softmax(nx, outputs) * nx.sum(target, axis=-1, keepdims=True) - target

    def check_target(self, target: np.ndarray) -> None:
        """Refuse what is not a distribution over the outputs."""
        super().check_target(target)
        _check_distribution(target)


@LOSSES.register("sparse_categorical_crossentropy", "sparse_crossentropy", "scce")
@dataclass(frozen=True)
class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """-log softmax(y)_c for an integer label c: categorical cross-entropy that takes labels and nothing else.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> y, one_hot = np.array([[[0.0, 100.0]]]), np.array([[[0.0, 1.0]]])
        >>> float(abs(SparseCategoricalCrossentropy().value(get_backend("numpy"), y, one_hot)[0, 0]))
        0.0
    """

    target_kind: ClassVar[str] = "labels"


@LOSSES.register("mean_squared_error", "mse")
@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Σ_k (y_k - t_k)²: the squared distance, the mean being over batch and time; derivative 2 (y - t).

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, y, t = get_backend("numpy"), np.array([[[1.0, 2.0]]]), np.zeros((1, 1, 2))
        >>> MeanSquaredError().value(nx, y, t), MeanSquaredError().gradient(nx, y, t)
        (array([[5.]]), array([[[2., 4.]]]))
    """

    target_kind: ClassVar[str] = "values"

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """Σ_k (y_k - t_k)²."""
        difference = outputs - target
        return nx.sum(difference * difference, axis=-1)

    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """2 (y - t)."""
        return 2 * (outputs - target)


@LOSSES.register("mean_absolute_error", "mae")
@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Σ_k |y_k - t_k|: the absolute distance, the mean being over batch and time; derivative sign(y - t), 0 at 0.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, y, t = get_backend("numpy"), np.array([[[1.0, -2.0, 0.0]]]), np.zeros((1, 1, 3))
        >>> MeanAbsoluteError().value(nx, y, t), MeanAbsoluteError().gradient(nx, y, t)
        (array([[3.]]), array([[[ 1., -1.,  0.]]]))
    """

    target_kind: ClassVar[str] = "values"

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """Σ_k |y_k - t_k|."""
        return nx.sum(nx.abs(outputs - target), axis=-1)

    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """sign(y - t)."""
        return nx.sign(outputs - target)


@LOSSES.register("kl_divergence", "kl", "kld", "kullback_leibler_divergence")
@dataclass(frozen=True)
class KLDivergence(CategoricalCrossentropy):
    """Σ_k t_k (log t_k - log softmax(y)_k), 0 log 0 = 0: cross-entropy less the target's entropy, so 0 when they agree.

    The derivative is that of the cross-entropy.

    Reference:
        S. Kullback, R. A. Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22, 1951.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> t = np.array([[[0.25, 0.75]]])
        >>> bool(abs(KLDivergence().value(get_backend("numpy"), np.log(t), t)[0, 0]) < 1e-15)
        True
    """

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """Σ_k t_k (log t_k - log softmax(y)_k)."""
        log_target = nx.log(nx.where(target > 0, target, 1.0))
        return nx.sum(target * (log_target - log_softmax(nx, outputs)), axis=-1)


@LOSSES.register("poisson")
@dataclass(frozen=True)
class Poisson(Loss):
    """Σ_k exp(y_k) - t_k y_k: negative log-likelihood of counts t with rates exp(y); derivative exp(y) - t.

    The term log t! does not depend on the outputs and is left out.
    The rate exp(y) leaves the range of float32 for outputs above 88 (float64: 709), and the loss is then infinite.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, y, t = get_backend("numpy"), np.zeros((1, 1, 2)), np.array([[[0.0, 3.0]]])
        >>> Poisson().value(nx, y, t), Poisson().gradient(nx, y, t)
        (array([[2.]]), array([[[ 1., -2.]]]))
    """

    target_kind: ClassVar[str] = "values"

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """Σ_k exp(y_k) - t_k y_k."""
        return nx.sum(nx.exp(outputs) - target * outputs, axis=-1)

    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """exp(y) - t."""
        return nx.exp(outputs) - target

    def check_target(self, target: np.ndarray) -> None:
        """Refuse negative counts."""
        super().check_target(target)
        if np.any(target < 0):
            raise DataError("the target of a Poisson loss must be counts of at least 0", received=float(target.min()))


def _check_distribution(target: np.ndarray) -> None:
    """Refuse rows that are not probabilities."""
    works = (
        "give integer labels, one-hot rows, or probabilities; values that are to be met belong to a model with "
        "task_type='regression' and a loss such as mean_squared_error"
    )
    if np.any(target < 0):
        raise DataError("the probabilities of a target must be at least 0", received=float(target.min()), works=works)
    totals = np.sum(target, axis=-1)
    wrong = np.abs(totals - 1) > DISTRIBUTION_TOLERANCE
    if np.any(wrong):
        raise DataError(
            "the probabilities of a target must sum to 1", received=f"a sum of {totals[wrong].flat[0]:g}", works=works
        )
