"""Targets: every form that is accepted, and every one that is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neko_rules.errors import DataError
from neko_rules.targets import Targets, encode

BATCH, STEPS, CLASSES = 2, 4, 3
LABELS = [2, 0]
BY_STEP = [[0, 1, 2, 1], [2, 2, 0, 1]]
EYE = np.eye(CLASSES)


def classes(y: Any, **changed: Any) -> Targets:
    return encode(y, **{"task_type": "classification", "batch": BATCH, "steps": STEPS, "outputs": CLASSES, **changed})


def values(y: Any, **changed: Any) -> Targets:
    return encode(y, **{"task_type": "regression", "batch": BATCH, "steps": STEPS, "outputs": CLASSES, **changed})


# Classification.


@pytest.mark.parametrize("kind", [list, tuple, np.array, np.int8, np.uint8, np.int64])
def test_one_label_per_sequence(kind: Any) -> None:
    y = np.array(LABELS, kind) if isinstance(kind, type) and issubclass(kind, np.generic) else kind(LABELS)
    targets = classes(y)
    np.testing.assert_array_equal(targets.dense, EYE[[LABELS]])
    np.testing.assert_array_equal(targets.mask, [[1, 1]])


@pytest.mark.parametrize(
    "y", [EYE[LABELS], EYE[LABELS].astype(int), EYE[LABELS].astype(bool), EYE[LABELS].astype("f4")]
)
def test_one_hot_per_sequence_is_the_same_as_labels(y: np.ndarray) -> None:
    np.testing.assert_array_equal(classes(y).dense, classes(LABELS).dense)
    np.testing.assert_array_equal(classes(y).mask, classes(LABELS).mask)


@pytest.mark.parametrize("kind", ["i8", "u1"])
def test_one_label_per_step(kind: str) -> None:
    targets = classes(np.array(BY_STEP, kind))
    assert targets.dense.shape == (STEPS, BATCH, CLASSES)
    for t in range(STEPS):
        for b in range(BATCH):
            assert targets.dense[t, b].tolist() == EYE[BY_STEP[b][t]].tolist()
    np.testing.assert_array_equal(targets.mask, np.ones((STEPS, BATCH)))


@pytest.mark.parametrize("kind", [float, int, bool])
def test_one_hot_per_step_is_the_same_as_labels(kind: type) -> None:
    targets = classes(EYE[np.array(BY_STEP)].astype(kind))
    np.testing.assert_array_equal(targets.dense, classes(BY_STEP).dense)
    np.testing.assert_array_equal(targets.mask, classes(BY_STEP).mask)


def test_steps_labelled_minus_one_do_not_count() -> None:
    targets = classes([[-1, 1, -1, 0], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(targets.mask, [[0, 0], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(targets.dense.sum(axis=-1), targets.mask)
    np.testing.assert_array_equal(targets.dense[[1, 3], 0], EYE[[1, 0]])


def test_distributions_are_kept() -> None:
    y = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(classes(y).dense, y[None])


def test_one_output_in_time_takes_labels_of_either_shape() -> None:
    for y in (LABELS, np.array(LABELS)[:, None]):
        np.testing.assert_array_equal(classes(y, steps=1).dense, EYE[[LABELS]])


def test_integers_that_could_be_labels_or_one_hot_are_refused() -> None:
    y = np.array([[0, 1, 0], [1, 0, 0]])
    with pytest.raises(DataError, match="could be labels per time step or one-hot rows, as both number 3"):
        classes(y, steps=3)
    # Three ways out: one-hot in floating point, labels per step as one-hot, a loss that takes labels only.
    np.testing.assert_array_equal(classes(y.astype(float), steps=3).dense, y[None])
    by_step = classes(EYE[y], steps=3)
    np.testing.assert_array_equal(classes(y, steps=3, labels_only=True).dense, by_step.dense)
    assert by_step.dense.shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 3], "a label must be between 0 and 2 (received: label 3)"),
        ([0, -1], "a label must be between 0 and 2 (received: label -1)"),
        ([[0, 1, 2, 3], [0] * 4], "between 0 and 2, or -1 for a step that does not count (received: label 3)"),
        ([[0, 1, 2, -2], [0] * 4], "label -2"),
        ([[0, 1], [0, 1]], "[batch, time] with 4 time steps (received: shape (2, 2))"),
        ([0, 1, 2], "y must have one entry per example (2) (received: shape (3,))"),
        (1, "one entry per example"),
        ([], "one entry per example"),
        ([0.0, 3.0], "a label must be between 0 and 2 (received: label 3.0)"),
        ([0.0, -1.0], "a label must be between 0 and 2 (received: label -1.0)"),
        ([0.0, np.inf], "a label must be between 0 and 2 (received: label inf)"),
        ([0.0, np.nan], "must be integers [batch] or [batch, 4]"),
        ([0.5, 1.0], "must be integers [batch] or [batch, 4]"),
        ([[0.0] * 4, [1.0] * 4], "received: type float64, shape (2, 4)); make labels integers by y.astype(int)."),
        ([0.5, 1.0], "task_type='regression' and a loss such as mean_squared_error."),
        (np.zeros((2, 4)), "targets of a classification into 3 classes"),
        (np.zeros((2, 3, 3)), "received: type float64, shape (2, 3, 3)"),
        (np.zeros((2, 3, 3), int), "shape (2, 3, 3)"),
        (np.zeros((2, 4, 3, 1)), "shape (2, 4, 3, 1)"),
        (np.array([[np.nan, 0, 1], [1, 0, 0]]), "targets must be finite"),
        (["a", "b"], "y must hold numbers"),
        ([None, 1], "y must hold numbers"),
        ([1j, 2], "y must hold numbers"),
        ([[0, 1], [0]], "y must be a rectangular array of numbers"),
    ],
)
def test_classification_targets_that_are_refused(y: Any, says: str) -> None:
    _refused(lambda: classes(y), says)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("labels_only", [False, True])
def test_whole_numbers_of_a_floating_point_type_are_labels(kind: str, labels_only: bool) -> None:
    # As data: {name: arrays} takes them from a file: a table holds all of its numbers as floats.
    found = classes(np.array(LABELS, kind), labels_only=labels_only)
    expected = classes(LABELS, labels_only=labels_only)
    np.testing.assert_array_equal(found.dense, expected.dense)
    assert found.one_hot
    assert classes([1.0, 0.0]).dense.tolist() == classes([1, 0]).dense.tolist()


def test_a_loss_that_takes_labels_refuses_distributions() -> None:
    np.testing.assert_array_equal(classes(LABELS, labels_only=True).dense, classes(LABELS).dense)
    _refused(lambda: classes(EYE[LABELS], labels_only=True), "this loss takes integer labels")
    _refused(lambda: classes(EYE[LABELS].astype(int), labels_only=True), "integer labels must have shape [batch]")


# Regression.


@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "?"])
def test_values_per_step(kind: str) -> None:
    y = np.random.default_rng(0).uniform(0, 3, (BATCH, STEPS, CLASSES)).astype(kind)
    targets = values(y)
    assert targets.dense.dtype == np.float64
    np.testing.assert_array_equal(targets.dense, y.transpose(1, 0, 2))
    np.testing.assert_array_equal(targets.mask, np.ones((STEPS, BATCH)))


@pytest.mark.parametrize(
    ("shape", "steps", "outputs"),
    [
        ((2, 4), 4, 1),
        ((2, 3), 1, 3),
        ((2,), 1, 1),
        ((2, 1), 1, 1),
        ((2, 1, 1), 1, 1),
        ((2, 1, 3), 1, 3),
        ((2, 4, 1), 4, 1),
    ],
)
def test_axes_of_length_one_may_be_left_out(shape: tuple[int, ...], steps: int, outputs: int) -> None:
    y = np.arange(np.prod(shape), dtype=float).reshape(shape)
    targets = values(y, steps=steps, outputs=outputs)
    np.testing.assert_array_equal(targets.dense, y.reshape(2, steps, outputs).transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (
            np.zeros((2, 3)),
            "regression targets must have shape [batch, 4, 3] ([batch, time, n_out]) (received: shape (2, 3))",
        ),
        (np.zeros((2, 4)), "[batch, 4, 3]"),
        (np.zeros(2), "[batch, 4, 3]"),
        (np.zeros((2, 3, 4)), "received: shape (2, 3, 4)"),
        (np.zeros((1, 4, 3)), "one entry per example (2)"),
        (np.full((2, 4, 3), np.inf), "targets must be finite"),
        (np.full((2, 4, 3), "x"), "y must hold numbers"),
    ],
)
def test_regression_targets_that_are_refused(y: Any, says: str) -> None:
    _refused(lambda: values(y), says)


def _refused(call: Any, says: str) -> None:
    with pytest.raises(DataError) as refusal:
        call()
    sentence = str(refusal.value)
    assert says in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


@pytest.mark.parametrize("y", [np.array(BY_STEP), EYE[LABELS], np.array(LABELS)])
def test_targets_of_the_user_are_not_changed(y: np.ndarray) -> None:
    before = y.copy()
    classes(y).dense[:] = -5
    np.testing.assert_array_equal(y, before)
