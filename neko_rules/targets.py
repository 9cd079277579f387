"""Targets: what a user gives as y, made into dense arrays with a mask of the supervised steps.

classification   labels [batch] (one per sequence), whole numbers of any type, since tables give them as floats;
                 integers [batch, time] (one per step, -1: not supervised);
                 one-hot or distributions [batch, n_out] or [batch, time, n_out]
regression       [batch, time, n_out], or [batch, time] for one output; without an output at every step
                 [batch, n_out], or [batch] for one output
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from neko_rules.errors import DataError

UNSUPERVISED = -1
"""The label of a time step that does not count."""


@dataclass(frozen=True)
class Targets:
    """Targets in the engine's form.

    Args:
        dense: [1 or steps, batch, n_out]: one-hot, a distribution, or values.
        mask: [1 or steps, batch]: 1 where supervised, else 0.
        one_hot: whether the supervised rows were made from labels, so that nothing can be wrong with them.
    """

    dense: np.ndarray
    mask: np.ndarray
    one_hot: bool = False


def encode(
    y: Any, *, task_type: str, batch: int, steps: int, outputs: int, labels_only: bool = False, time: int = 0
) -> Targets:
    """Bring targets into the engine's form.

    Args:
        y: see the head of this file.
        task_type: ``"classification"`` or ``"regression"``.
        batch: number of examples that y must have.
        steps: number of outputs in time (1 if only the last, mean or maximum is taken).
        outputs: number of output units.
        labels_only: refuse anything but integer labels.
        time: number of time steps of x, by which an x whose axes are turned is recognised; 0 if unknown.

    Raises:
        DataError: a shape, type or label does not fit.

    Example:
        >>> encode([2, 0], task_type="classification", batch=2, steps=5, outputs=3).dense
        array([[[0., 0., 1.],
                [1., 0., 0.]]])
        >>> encode([[-1, 1]], task_type="classification", batch=1, steps=2, outputs=3).mask
        array([[0.],
               [1.]])
    """
    array = as_array(y, batch, time)
    if task_type == "regression":
        return _values(array, steps, outputs)
    if array.ndim == 1 and array.dtype.kind == "f" and _all_whole(array):
        return _labels(array, steps, outputs)
    if array.dtype.kind in "iu" and (labels_only or not _is_one_hot(array, steps, outputs)):
        return _labels(array, steps, outputs)
    if labels_only:
        received = f"y of type {array.dtype} and shape {array.shape}"
        raise DataError("this loss takes integer labels", received=received, works=_whole(array))
    return _distributions(array, steps, outputs)


def as_array(y: Any, batch: int, time: int = 0) -> np.ndarray:
    """Targets as an array of numbers with one entry per example.

    Args:
        y: targets.
        batch: number of examples that y must have.
        time: as for ``encode``.
    """
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise DataError("y must be a rectangular array of numbers", received=str(error)) from error
    if array.dtype.kind not in "iufb":
        raise DataError("y must hold numbers", received=f"an array of type {array.dtype}")
    if array.ndim == 0 or array.shape[0] != batch:
        turned = array.ndim > 0 and array.shape[0] == time
        works = "x is [batch, time, feature]: turn one that has time first by x.swapaxes(0, 1)" if turned else ""
        raise DataError(f"y must have one entry per example ({batch})", received=f"shape {array.shape}", works=works)
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _is_one_hot(array: np.ndarray, steps: int, outputs: int) -> bool:
    """Whether integers are one-hot rows rather than labels; refuses to guess where both are possible."""
    if array.ndim == 3:
        return True
    if array.ndim != 2 or array.shape[1] != outputs:
        return False
    if steps != outputs:
        return True
    raise DataError(
        f"integers of shape {array.shape} could be labels per time step or one-hot rows, as both number {outputs}",
        works="give one-hot rows as floating-point numbers, labels per step as one-hot [batch, time, n_out], or use "
        "the loss sparse_categorical_crossentropy, which takes labels only",
    )


def _labels(labels: np.ndarray, steps: int, outputs: int) -> Targets:
    if (labels.ndim == 2 and labels.shape[1] != steps) or labels.ndim > 2:
        raise DataError(
            f"integer labels must have shape [batch] or [batch, time] with {steps} time steps",
            received=f"shape {labels.shape}",
        )
    lowest = UNSUPERVISED if labels.ndim == 2 else 0
    if labels.size and (np.minimum.reduce(labels, None) < lowest or np.maximum.reduce(labels, None) >= outputs):
        wrong = labels[(labels < lowest) | (labels >= outputs)][0]
        extra = f", or {UNSUPERVISED} for a step that does not count" if labels.ndim == 2 else ""
        raise DataError(f"a label must be between 0 and {outputs - 1}{extra}", received=f"label {wrong}")
    labels = labels.astype(np.int64, copy=False)
    if labels.ndim == 1:
        return Targets(_identity(outputs).take(labels, axis=0)[None], _all_supervised(len(labels)), one_hot=True)
    by_step = labels.T
    supervised = by_step != UNSUPERVISED
    if supervised.all():
        return Targets(_identity(outputs)[by_step], supervised.astype(np.float64), one_hot=True)
    dense = _identity(outputs)[np.where(supervised, by_step, 0)]
    return Targets(dense * supervised[..., None], supervised.astype(np.float64), one_hot=True)


@lru_cache(maxsize=8)
def _all_supervised(examples: int) -> np.ndarray:
    """The mask of one label per example, to be looked at only."""
    return np.ones((1, examples))


@lru_cache(maxsize=8)
def _identity(size: int) -> np.ndarray:
    """Unit vectors, to be looked at only."""
    return np.eye(size)


def _distributions(array: np.ndarray, steps: int, outputs: int) -> Targets:
    dense = array.astype(np.float64)
    if array.ndim == 2 and array.shape[1] == outputs:
        dense = dense[None]
    elif array.ndim == 3 and array.shape[1:] == (steps, outputs):
        dense = dense.transpose(1, 0, 2)
    else:
        raise DataError(
            f"targets of a classification into {outputs} classes must be integers [batch] or [batch, {steps}], or "
            f"floating-point [batch, {outputs}] or [batch, {steps}, {outputs}]",
            received=f"type {array.dtype}, shape {array.shape}",
            works=_whole(array)
            or "values that are to be met belong to a model with task_type='regression' and a loss such as "
            "mean_squared_error",
        )
    _require_finite(dense)
    return Targets(dense, np.ones(dense.shape[:2]))


def _whole(array: np.ndarray) -> str:
    """What would work, where labels are whole numbers of a floating-point type."""
    whole = array.ndim <= 2 and array.dtype.kind == "f" and _all_whole(array)
    return "make labels integers by y.astype(int)" if whole else ""


def _all_whole(array: np.ndarray) -> bool:
    return bool((array == np.floor(array)).all())


def _values(array: np.ndarray, steps: int, outputs: int) -> Targets:
    dense = array.astype(np.float64)
    if dense.ndim == 1 and steps == outputs == 1:
        dense = dense[:, None, None]
    elif dense.ndim == 2 and steps == 1 and dense.shape[1] == outputs:
        dense = dense[:, None, :]
    elif dense.ndim == 2 and outputs == 1:
        dense = dense[:, :, None]
    if dense.ndim != 3 or dense.shape[1:] != (steps, outputs):
        raise DataError(
            f"regression targets must have shape [batch, {steps}, {outputs}] ([batch, time, n_out])",
            received=f"shape {array.shape}",
        )
    _require_finite(dense)
    dense = dense.transpose(1, 0, 2)
    return Targets(dense, np.ones(dense.shape[:2]))


def of_whole_sequence(targets: Targets) -> Targets:
    """Targets per step made into one per sequence; the mask stays that of the steps.

    Args:
        targets: as ``encode`` gave them.

    Raises:
        DataError: the supervised steps of an example differ in their target.

    Example:
        >>> by_step = encode([[1, 1, -1]], task_type="classification", batch=1, steps=3, outputs=2)
        >>> whole = of_whole_sequence(by_step)
        >>> whole.dense.tolist(), whole.mask.ravel().tolist()
        ([[[0.0, 1.0]]], [1.0, 1.0, 0.0])
    """
    if len(targets.dense) == 1:
        return targets
    first = np.argmax(targets.mask, axis=0)
    dense = targets.dense[first, np.arange(targets.dense.shape[1])][None]
    differs = ((targets.dense != dense).any(axis=-1) & (targets.mask > 0)).any(axis=0)
    if differs.any():
        raise DataError(
            "a loss of the whole sequence takes one target per example",
            received=f"targets that change within example {int(np.argmax(differs))}",
            works=f"give the same label at all steps that count, and {UNSUPERVISED} at the rest",
        )
    return Targets(dense, targets.mask, targets.one_hot)


def _require_finite(dense: np.ndarray) -> None:
    if not np.isfinite(dense).all():
        raise DataError("targets must be finite", received="NaN or infinite values in y")
