"""Delayed exclusive or: the label is what the cues say, and neither cue alone says anything.

Random counts are compared with their mean within five standard deviations. A right generator fails such a comparison
with probability 6e-7; the seeds are fixed, so that what passes once passes always.
"""

import numpy as np
import pytest

from neko_rules.datasets import DelayedXOR
from neko_rules.errors import ArgumentError


def assert_rate(spikes, probability):
    """Each entry of ``spikes`` was 1 with the given probability."""
    mean, deviation = spikes.size * probability, np.sqrt(spikes.size * probability * (1 - probability))
    assert abs(spikes.sum(dtype=np.float64) - mean) < 5 * deviation


@pytest.fixture(scope="module")
def trials():
    return DelayedXOR(train_examples=600, test_examples=200, cue_rate=200.0, seed=3).load()


FIRST, SECOND, RECALL = slice(0, 50), slice(150, 200), slice(250, 300)


def cue(x, window):
    """0 or 1 per trial: the one population that fires in the window."""
    zero, one = x[:, window, :10].sum(axis=(1, 2)), x[:, window, 10:20].sum(axis=(1, 2))
    assert ((zero == 0) != (one == 0)).all()
    return (one > 0).astype(int)


def test_the_label_is_the_exclusive_or_of_the_cues(trials):
    for x, y in (trials[:2], trials[2:]):
        first, second = cue(x, FIRST), cue(x, SECOND)
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y[:, RECALL], np.repeat((first != second)[:, None], 50, axis=1))
        assert (y[:, :250] == -1).all()


def test_labels_and_cues_are_balanced_and_neither_cue_tells_the_label(trials):
    x, y = trials[:2]
    first, second, label = cue(x, FIRST), cue(x, SECOND), y[:, -1]
    for fair in (first, second, label, first == label, second == label):
        assert abs(fair.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(fair))


def test_timing_and_rates(trials):
    x = trials[0]
    assert x.shape == (600, 300, 40)
    assert set(np.unique(x)) == {0, 1}
    on = np.zeros(300, bool)
    for window in (FIRST, SECOND):
        on[window] = True
        assert_rate(x[:, window, :20], 0.1)  # 200 Hz in one population of two
    assert x[:, ~on, :20].sum() == 0
    assert x[:, :250, 20:30].sum() == 0
    assert_rate(x[:, RECALL, 20:30], 0.2)
    assert_rate(x[:, :, 30:], 0.01)


def test_delays_vary_and_recall_stays_at_the_end():
    dataset = DelayedXOR(train_examples=100, test_examples=1, delay=[0.02, 0.2], cue_rate=1000.0)
    assert dataset.delay == (0.02, 0.2)
    x, y, _, _ = dataset.load()
    assert x.shape[1] == dataset.time_steps == 2 * 50 + 200 + 50 + 50
    on = x[:, :, :20].any(axis=2)
    assert on[:, 250:300].all()
    assert not on[:, 300:].any()
    assert (on.sum(axis=1) == 100).all()
    delays = 250 - (on.argmax(axis=1) + 50)
    assert delays.min() >= 20
    assert delays.max() <= 200
    assert np.ptp(delays) > 100
    assert ((y >= 0) == (np.arange(400) >= 350)).all()


def test_cues_may_follow_each_other_at_once():
    dataset = DelayedXOR(
        train_examples=20, test_examples=1, cue_duration=0.02, delay=0, pause=0, recall_duration=0.01, dt=2e-3,
        population_size=1, cue_rate=500.0,
    )  # fmt: skip
    x, y, _, _ = dataset.load()
    assert x.shape == (20, 25, 4)
    cues = x[:, :20, :2]
    assert (cues.sum(axis=2) == 1).all()
    np.testing.assert_array_equal(y[:, -1], cues[:, 0, 1] != cues[:, 10, 1])


def test_train_and_test_trials_differ_and_seeds_matter(trials):
    assert (trials[0][:200] != trials[2]).any(axis=(1, 2)).all()
    other = DelayedXOR(train_examples=2, test_examples=1, cue_rate=200.0, seed=4).load()
    assert (trials[0][:2] != other[0]).any()


def test_more_examples_begin_with_the_same_ones(trials):
    fewer = DelayedXOR(train_examples=7, test_examples=3, cue_rate=200.0, seed=3).load()
    for few, many in zip(fewer, trials, strict=True):
        np.testing.assert_array_equal(few, many[: len(few)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train_examples": 0}, "train_examples"),
        ({"test_examples": 0}, "test_examples"),
        ({"cue_duration": 0}, "cue_duration"),
        ({"cue_duration": 0.0005}, "whole number of time steps of 0.001 s"),
        ({"pause": -0.1}, "pause"),
        ({"delay": -1}, "delay"),
        ({"delay": [0.2, 0.1]}, "shortest, longest"),
        ({"delay": [0.1]}, "shortest and the longest"),
        ({"delay": "long"}, "delay"),
        ({"recall_duration": 0}, "recall_duration"),
        ({"population_size": 0}, "population_size"),
        ({"cue_rate": 2000}, "at most one spike per time step"),
        ({"background_rate": -1}, "background_rate"),
        ({"dt": 0}, "dt"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        DelayedXOR(**arguments)
