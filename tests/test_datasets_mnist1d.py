"""MNIST-1D: equal to the published set, and each argument does what it says."""

from pathlib import Path

import numpy as np
import pytest

from neko_rules.datasets import MNIST1D
from neko_rules.datasets.mnist1d import generate, templates
from neko_rules.errors import ArgumentError

FROZEN = Path(__file__).parents[1].parent / "shared" / "data" / "mnist1d" / "mnist1d_frozen.npz"


@pytest.mark.skipif(not FROZEN.is_file(), reason="the published set is not here")
def test_equal_to_the_published_set():
    with np.load(FROZEN) as frozen:
        signals, labels = generate(MNIST1D())
        np.testing.assert_allclose(signals[:4000], frozen["x"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(signals[4000:], frozen["x_test"], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(labels, np.concatenate([frozen["y"], frozen["y_test"]]))
        x_train, y_train, x_test, y_test = MNIST1D().load()
        np.testing.assert_array_equal(x_train[:, :, 0], signals[:4000].astype(np.float32))
        np.testing.assert_array_equal(x_test[:, :, 0], signals[4000:].astype(np.float32))
        np.testing.assert_array_equal(y_train, frozen["y"])
        np.testing.assert_array_equal(y_test, frozen["y_test"])
        assert np.abs(generate(MNIST1D(seed=43))[0][:4000] - frozen["x"]).max() > 1


def test_templates_start_and_end_at_zero():
    shapes = templates()
    assert shapes.shape == (10, 12)
    np.testing.assert_array_equal(shapes[:, 0], 0)
    np.testing.assert_allclose(shapes[:, -1], 0, atol=1e-15)
    np.testing.assert_allclose(shapes.std(axis=1), 1 / 6, rtol=1e-12)


def test_the_set_is_standardised_balanced_and_shuffled():
    signals, labels = generate(MNIST1D(num_samples=200))
    assert abs(signals.mean()) < 1e-14
    assert abs(signals.std() - 1) < 1e-12
    assert np.bincount(labels).tolist() == [20] * 10
    assert labels.tolist() != sorted(labels.tolist())


def test_without_distortion_every_example_is_its_template():
    """All randomness off: each example is the padded template, resampled, in closed form."""
    plain = MNIST1D(
        num_samples=20, padding=(60, 60), scale=0, max_translation=1, correlated_noise=0, independent_noise=0, shear=0
    )
    signals, labels = generate(plain)
    padded = np.concatenate([templates(), np.zeros((10, 60))], axis=1)
    grid, points = np.linspace(0, 71, 40), np.arange(72)
    expected = np.stack([np.interp(grid, points, padded[label]) for label in labels])
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(signals, expected, atol=1e-6)  # the published generator lifts a template by 1e-8


@pytest.mark.parametrize(
    "change",
    [
        {"padding": (10, 60)},
        {"padding": [36, 50]},
        {"scale": 0.1},
        {"max_translation": 5},
        {"correlated_noise": 0.5},
        {"independent_noise": 0.0},
        {"shear": 0.0},
        {"shuffle_time": True},
        {"seed": 7},
    ],
)
def test_every_argument_changes_the_signals(change):
    base, _ = generate(MNIST1D(num_samples=20))
    changed, _ = generate(MNIST1D(num_samples=20, **change))
    assert np.abs(base - changed).max() > 1e-3


def test_shuffling_time_only_permutes_the_steps():
    base, labels = generate(MNIST1D(num_samples=20))
    shuffled, same_labels = generate(MNIST1D(num_samples=20, shuffle_time=True))
    np.testing.assert_array_equal(labels, same_labels)
    np.testing.assert_allclose(np.sort(base, axis=1), np.sort(shuffled, axis=1), atol=1e-12)


def test_length_and_split():
    x_train, y_train, x_test, y_test = MNIST1D(num_samples=30, train_fraction=0.5, length=25).load()
    assert (x_train.shape, y_train.shape, x_test.shape, y_test.shape) == ((15, 25, 1), (15,), (15, 25, 1), (15,))


def test_a_list_from_yaml_is_the_same_value():
    assert MNIST1D(padding=[36, 60]) == MNIST1D()
    assert hash(MNIST1D(padding=[36, 60])) == hash(MNIST1D())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_samples": 15}, "multiple of 10"),
        ({"num_samples": 0}, "at least 10"),
        ({"train_fraction": 1.0}, "below 1"),
        ({"num_samples": 10, "train_fraction": 0.05}, "must leave training and test examples"),
        ({"padding": 36}, "two whole numbers"),
        ({"padding": [60, 36]}, r"use \[36, 60\]"),
        ({"padding": [1.5, 36]}, r"padding\[0\]"),
        ({"scale": -1}, "scale"),
        ({"shear": float("nan")}, "shear"),
        ({"max_translation": 0}, "max_translation"),
        ({"max_translation": 73}, "at most 72"),
        ({"length": 1}, "length"),
        ({"shuffle_time": 1}, "true or false"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        MNIST1D(**arguments)
