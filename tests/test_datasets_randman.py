"""Randman: the manifolds against the sum that defines them, and spikes that carry a coordinate in one way only.

Random counts are compared with their mean within five standard deviations. A right generator fails such a comparison
with probability 6e-7; the seeds are fixed, so that what passes once passes always.
"""

import itertools

import numpy as np
import pytest

from neko_rules.datasets import Randman
from neko_rules.datasets import randman as module
from neko_rules.datasets.randman import spikes_at_random, whole
from neko_rules.datasets.random_manifold import RandomManifold, modes, sums_of_sines
from neko_rules.errors import ArgumentError

SMALL = {"classes": 3, "units": 7, "time_steps": 20, "dimension": 2, "train_examples": 40, "test_examples": 10}


def direct(amplitudes, frequencies, phases, x):
    """Σ_k A_uk sin(2π (f_uk x_n + c_uk)), term by term."""
    turns = frequencies * x[:, None, None] + phases
    return np.einsum("uk,nuk->nu", amplitudes, np.sin(2 * np.pi * turns))


# Manifolds.


@pytest.mark.parametrize("smoothness", [0.3, 1.0, 1.5, 2.0, 3.0, 10.0])
def test_the_fast_sum_is_the_sum(smoothness):
    random = np.random.default_rng(0)
    k = np.arange(1, modes(smoothness))
    a, b, c = random.random((3, 4, len(k)))
    x = np.concatenate([[0.0, 1.0, 0.5], random.random(40)])
    expected = direct(a, k * b, c, x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(sums_of_sines(a, k * b, c, x), expected, rtol=0, atol=1e-12 * a.sum(axis=1).max())


def test_a_sum_of_constants_and_an_empty_set_of_points():
    assert sums_of_sines(np.ones((2, 3)), np.zeros((2, 3)), np.full((2, 3), 0.25), np.array([0.3])).round(
        9
    ).tolist() == [[3.0, 3.0]]
    assert sums_of_sines(np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3)), np.zeros(0)).shape == (0, 2)


def test_a_manifold_is_the_normalised_product_of_its_sums():
    manifold = RandomManifold.drawn(np.random.default_rng(1), units=5, dimension=3, smoothness=1.5)
    points = np.random.default_rng(2).random((30, 3))
    parts = [
        direct(manifold.amplitudes[:, d], manifold.frequencies[:, d], manifold.phases[:, d], points[:, d])
        for d in range(3)
    ]
    expected = (np.prod(parts, axis=0) - manifold.lowest) / (manifold.highest - manifold.lowest)
    np.testing.assert_allclose(manifold(points), np.clip(expected, 0, 1), atol=1e-10)


def test_parameters_have_their_ranges_and_the_spectrum_falls_as_it_should():
    alpha, units, dimension = 1.0, 200, 2
    manifold = RandomManifold.drawn(np.random.default_rng(3), units, dimension, alpha)
    assert manifold.amplitudes.shape == (units, dimension, 999)
    k = np.arange(1, 1000)
    for values in (manifold.amplitudes * (1 + (k + 1) ** alpha), manifold.frequencies / k, manifold.phases):
        assert values.min() >= 0
        assert values.max() < 1
        # Uniform: each mode's mean over units and dimensions is 1/2, its deviation 1/√12.
        error = np.abs(values.mean(axis=(0, 1)) - 0.5) / np.sqrt(1 / 12 / (units * dimension))
        assert error.max() < 6  # largest of 999 modes: a right generator fails with probability 2e-6


def test_units_use_the_whole_range_of_coordinates():
    """Of n points beyond the 1000 that normalise, 2 in 1001 are expected to be clipped for each unit."""
    manifold = RandomManifold.drawn(np.random.default_rng(4), units=20, dimension=2, smoothness=2.0)
    values = manifold(np.random.default_rng(5).random((2000, 2)))
    assert values.min() == 0
    assert values.max() == 1
    assert ((values == 0) | (values == 1)).mean() < 0.01
    assert (np.ptp(values, axis=0) > 0.9).all()


def test_manifolds_are_smoother_with_a_larger_exponent():
    """The mean step of the coordinates over a distance of 1/1000 falls with α."""
    x = np.random.default_rng(6).random((500, 1)) * 0.99
    steps = [
        np.abs(np.subtract(*(RandomManifold.drawn(np.random.default_rng(7), 50, 1, alpha)(p) for p in (x, x + 1e-3))))
        for alpha in (0.5, 1.0, 2.0, 3.0)
    ]
    means = [step.mean() for step in steps]
    assert all(rough > 1.5 * smooth for rough, smooth in itertools.pairwise(means)), means


# Spikes.


@pytest.fixture
def coordinates(monkeypatch):
    """What the manifolds gave when the data were loaded, in the order of the calls: classes of training, of testing."""
    seen = []
    original = RandomManifold.__call__

    def spying(self, points):
        values = original(self, points)
        seen.append(values)
        return values

    monkeypatch.setattr(RandomManifold, "__call__", spying)
    return seen


def test_in_the_time_code_every_unit_fires_once_at_its_coordinate(coordinates):
    x, y, _, _ = Randman(**SMALL, code="time").load()
    assert set(np.unique(x)) == {0, 1}
    assert (x.sum(axis=1) == 1).all()
    for label in range(3):
        np.testing.assert_array_equal(x[y == label].argmax(axis=1), np.minimum(np.floor(coordinates[label] * 20), 19))


def test_in_the_rate_code_the_count_is_the_coordinate(coordinates):
    x, y, _, _ = Randman(**SMALL, code="rate").load()
    assert set(np.unique(x)) == {0, 1}
    for label in range(3):
        expected = np.minimum(np.floor(coordinates[label] * 20), 19) + 1
        np.testing.assert_array_equal(x[y == label].sum(axis=1), expected)


def test_both_codes_carry_the_same_numbers():
    (x_time, y_time, *_), (x_rate, y_rate, *_) = (Randman(**SMALL, code=code).load() for code in ("time", "rate"))
    np.testing.assert_array_equal(y_time, y_rate)
    np.testing.assert_array_equal(x_time.argmax(axis=1) + 1, x_rate.sum(axis=1))


def orders_are_independent(spikes):
    """Whether pairs of trains with half their steps on, [examples, time, units], coincide as often as chance has it.

    Of T steps with T/2 spikes each, two independent trains share a hypergeometric number: mean T/4, variance
    T²/(16 (T-1)).
    """
    examples, time_steps, units = spikes.shape
    assert (spikes.sum(axis=1) == time_steps / 2).all()
    deviation = time_steps / 4 / np.sqrt(time_steps - 1)
    between_units = np.einsum("etu,etv->euv", spikes, spikes)[:, *np.triu_indices(units, 1)]
    between_examples = np.einsum("etu,ftu->uef", spikes, spikes)[:, *np.triu_indices(examples, 1)]
    return all(
        abs(shared.mean() - time_steps / 4) < 5 * deviation / np.sqrt(shared.size)
        for shared in (between_units, between_examples)
    )


def test_every_unit_of_every_example_has_an_order_of_its_own():
    """Pairs of trains share as many steps as independent ones; pairs are uncorrelated, so that the bound is exact."""
    counts = np.full((30, 20), 10)
    assert orders_are_independent(spikes_at_random(np.random.default_rng(0), counts, 20))


@pytest.mark.parametrize("shared_by", ["all", "units", "examples"])
def test_a_shared_order_is_found(shared_by):
    """One order for all, for the units of an example, or for the examples of a unit: each turns the test above red."""
    random = np.random.default_rng(0)
    orders = {"all": (1, 1), "units": (30, 1), "examples": (1, 20)}[shared_by]
    order = random.permuted(np.broadcast_to(np.arange(20), (*orders, 20)).copy(), axis=2)
    order = np.broadcast_to(order, (30, 20, 20))
    assert not orders_are_independent((order < 10).transpose(0, 2, 1).astype(np.float64))


def test_spike_times_of_the_rate_code_say_nothing():
    """Each time step has its share of the spikes: with n of T spikes, a step has one with probability n/T."""
    x, _, _, _ = Randman(**{**SMALL, "train_examples": 200}, code="rate").load()
    chance = x.mean(axis=1, keepdims=True, dtype=np.float64)
    excess = (x - chance).sum(axis=(0, 2))
    assert (np.abs(excess) < 5 * np.sqrt((chance * (1 - chance)).sum())).all()


def test_the_largest_coordinate_still_is_a_time_step():
    assert whole(np.array([0.0, 0.05, 0.999, 1.0]), 20).tolist() == [0, 1, 19, 19]


# The set.


def test_shapes_and_balance():
    x_train, y_train, x_test, y_test = Randman(**SMALL).load()
    assert (x_train.shape, x_test.shape) == ((120, 20, 7), (30, 20, 7))
    for y in (y_train, y_test):
        np.testing.assert_array_equal(np.sort(y.reshape(-1, 3), axis=1), np.tile(np.arange(3), (len(y) // 3, 1)))
    assert len({tuple(block) for block in y_train.reshape(-1, 3)}) > 1


@pytest.mark.parametrize("code", ["time", "rate"])
def test_more_examples_begin_with_the_same_ones(code):
    few = Randman(**SMALL, code=code).load()
    many = Randman(**{**SMALL, "train_examples": 60, "test_examples": 15}, code=code).load()
    for fewer, more in zip(few, many, strict=True):
        np.testing.assert_array_equal(fewer, more[: len(fewer)])


def test_each_seed_changes_what_it_says():
    base = Randman(**SMALL).load()
    other_points = Randman(**SMALL, seed=1).load()
    other_manifolds = Randman(**SMALL, manifold_seed=1).load()
    assert (base[0] != other_points[0]).any()
    np.testing.assert_array_equal(base[1], other_manifolds[1])
    assert (base[0] != other_manifolds[0]).any()
    assert (base[0][:30] != base[2]).any()


def test_training_and_test_examples_lie_on_the_same_manifolds():
    """The nearest training example has the class of a test example nearly always, and with other manifolds rarely."""
    sizes = {**SMALL, "units": 30, "train_examples": 200, "smoothness": 3.0, "dimension": 1}
    x, y, x_test, y_test = Randman(**sizes).load()
    elsewhere = Randman(**sizes, manifold_seed=1).load()

    def accuracy(inputs, labels):
        times, others = inputs.argmax(axis=1), x.argmax(axis=1)
        nearest = np.abs(times[:, None] - others).sum(axis=2).argmin(axis=1)
        return (y[nearest] == labels).mean()

    assert accuracy(x_test, y_test) > 0.9
    assert accuracy(elsewhere[2], elsewhere[3]) < 0.7


def test_loaded_examples_have_orders_of_their_own_and_a_planted_shared_one_is_found(monkeypatch):
    """With every count 10 of 20; planted is a published generator's fault, one order for all units and examples."""
    monkeypatch.setattr(module, "whole", lambda coordinates, time_steps: np.full(coordinates.shape, 9))
    assert orders_are_independent(Randman(**SMALL, code="rate").load()[0])

    def shared(random, counts, time_steps):
        order = random.permutation(time_steps)
        return (order[:, None] < counts[:, None, :]).astype(np.float32)

    monkeypatch.setattr(module, "spikes_at_random", shared)
    assert not orders_are_independent(Randman(**SMALL, code="rate").load()[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"classes": 1}, "classes"),
        ({"units": 0}, "units"),
        ({"time_steps": 0}, "time_steps"),
        ({"dimension": 0}, "dimension"),
        ({"smoothness": 0}, "smoothness must be .* above 0"),
        ({"smoothness": 11}, "at most 10"),
        ({"code": "times"}, "did you mean 'time'"),
        ({"train_examples": 0}, "train_examples"),
        ({"test_examples": 1.5}, "test_examples"),
        ({"manifold_seed": -1}, "manifold_seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        Randman(**arguments)


def test_the_smallest_sizes():
    x, y, _, _ = Randman(classes=2, units=1, time_steps=1, dimension=1, train_examples=1, test_examples=1).load()
    assert x.tolist() == [[[1.0]], [[1.0]]]
    assert sorted(y) == [0, 1]
