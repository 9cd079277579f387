"""Pattern generation and evidence accumulation: what the equations and the timing say must be in the arrays.

Counts of random spikes are compared with their mean within five standard deviations. A right generator fails such a
comparison with probability 6e-7; the seeds are fixed, so that what passes once passes always.
"""

import numpy as np
import pytest

from neko_rules.datasets import EvidenceAccumulation, PatternGeneration
from neko_rules.datasets.pattern_generation import sums_of_sinusoids
from neko_rules.datasets.timing import spike_probability, steps
from neko_rules.errors import ArgumentError


def assert_rate(spikes, probability):
    """Each entry of ``spikes`` was 1 with the given probability."""
    mean, deviation = spikes.size * probability, np.sqrt(spikes.size * probability * (1 - probability))
    assert abs(spikes.sum(dtype=np.float64) - mean) < 5 * deviation


# Pattern generation.


def test_curves_start_at_zero_and_reach_one():
    _, y, _, _ = PatternGeneration(outputs=5).load()
    assert y.shape == (1, 1000, 5)
    np.testing.assert_array_equal(y[0, 0], 0)
    np.testing.assert_allclose(np.abs(y[0]).max(axis=0), 1, rtol=1e-6)
    assert np.abs(y[0, :, 0] - y[0, :, 1]).max() > 0.1


def test_curves_hold_the_given_frequencies_and_no_other():
    """Over one second, the discrete Fourier transform of a sum of 1, 2, 3 and 5 Hz has exactly these lines."""
    _, y, _, _ = PatternGeneration().load()
    lines = np.abs(np.fft.rfft(y[0].astype(np.float64), axis=0)) / 1000
    present = np.isin(np.arange(len(lines)), [0, 1, 2, 3, 5])  # 0: the shift to start at zero
    assert (lines[[1, 2, 3, 5]] > 0.01).all()
    assert lines[~present].max() < 1e-6


def test_amplitudes_are_in_their_range():
    _, y, _, _ = PatternGeneration(outputs=200).load()
    lines = np.abs(np.fft.rfft(y[0].astype(np.float64), axis=0))[[1, 2, 3, 5]]
    ratio = lines.max(axis=0) / lines.min(axis=0)
    assert ratio.max() < 2.0 / 0.5 * (1 + 1e-4)
    assert ratio.max() > 2.5


def test_closed_form_of_one_sinusoid():
    times = np.arange(1000) * 1e-3
    curve = sums_of_sinusoids(times, np.array([2.0]), np.array([[1.7]]), np.array([[np.pi / 2]]))
    np.testing.assert_allclose(curve[:, 0], (np.cos(4 * np.pi * times) - 1) / 2, atol=1e-12)


def test_poisson_input_is_frozen_and_has_its_rate():
    x_train, y_train, x_test, y_test = PatternGeneration(examples=3, input_rate=80.0).load()
    assert set(np.unique(x_train)) == {0, 1}
    assert_rate(x_train[0], 0.08)
    for other in (x_train[1], x_train[2], *x_test):
        np.testing.assert_array_equal(x_train[0], other)
    np.testing.assert_array_equal(y_train, y_test)
    assert not np.shares_memory(x_train, x_test)


def test_clock_input():
    x, _, _, _ = PatternGeneration(input_kind="clock", input_neurons=20, input_rate=100.0).load()
    expected = np.zeros((1000, 20))
    for group in range(5):
        expected[200 * group : 200 * (group + 1) : 10, 4 * group : 4 * (group + 1)] = 1
    np.testing.assert_array_equal(x[0], expected)


def test_clock_with_a_rate_that_does_not_divide_the_time_step():
    x, _, _, _ = PatternGeneration(input_kind="clock", input_neurons=7, clock_groups=3, input_rate=30.0).load()
    times = np.flatnonzero(x[0].any(axis=1))
    assert len(times) == 30
    assert set(np.diff(times)) == {33, 34}
    assert (x[0].sum(axis=0) == 10).all()


def test_pattern_seeds():
    base, other = PatternGeneration(seed=1).load(), PatternGeneration(seed=2).load()
    assert (base[0] != other[0]).any()
    assert np.abs(base[1] - other[1]).max() > 0.1
    # Input and target have streams of their own: more input neurons leave the target as it was.
    np.testing.assert_array_equal(base[1], PatternGeneration(seed=1, input_neurons=7).load()[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"time_steps": 1}, "time_steps"),
        ({"dt": 0}, "dt"),
        ({"input_neurons": 0}, "input_neurons"),
        ({"outputs": 0}, "outputs"),
        ({"input_kind": "clocks"}, "did you mean 'clock'"),
        ({"input_rate": 0}, "input_rate"),
        ({"input_rate": 1001.0}, "at most one spike per time step, 1000 Hz"),
        ({"input_kind": "clock", "clock_groups": 101}, "clock_groups must be .* at most 100"),
        ({"frequencies": []}, "one or more numbers in Hz"),
        ({"frequencies": 3.0}, "one or more numbers in Hz"),
        ({"frequencies": [1, 500]}, r"frequencies\[1\] must be .* below 500"),
        ({"examples": 0}, "examples"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_wrong_arguments_of_pattern_generation(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        PatternGeneration(**arguments)


# Evidence accumulation.


def cue_windows(first=50, cues=7, cue=100, interval=50):
    """Slices of the steps in which cues are on, with the default timing."""
    return [slice(first + i * (cue + interval), first + i * (cue + interval) + cue) for i in range(cues)]


def sides(x):
    """Per trial and cue, 1 if the right population fired more while it was on."""
    windows = cue_windows()
    left = np.stack([x[:, w, :10].sum(axis=(1, 2)) for w in windows], axis=1)
    right = np.stack([x[:, w, 10:20].sum(axis=(1, 2)) for w in windows], axis=1)
    assert ((left == 0) != (right == 0)).all()  # exactly one side fires in each cue
    return (right > 0).astype(int)


@pytest.fixture(scope="module")
def trials():
    return EvidenceAccumulation(train_examples=100, test_examples=50, seed=5).load()


def test_the_majority_of_cues_is_the_label(trials):
    for x, y in (trials[:2], trials[2:]):
        majority = (sides(x).sum(axis=1) > 3).astype(int)
        np.testing.assert_array_equal(y[:, -150:], np.repeat(majority[:, None], 150, axis=1))
        assert (y[:, :-150] == -1).all()
        assert set(majority) == {0, 1}


def test_timing_and_rates(trials):
    x = trials[0]
    assert x.shape == (100, 2250, 40)
    assert set(np.unique(x)) == {0, 1}
    on = np.zeros(2250, bool)
    for window in cue_windows():
        on[window] = True
        assert_rate(x[:, window, :20], 0.02)  # 40 Hz on one side of two
    assert x[:, ~on, :20].sum() == 0
    assert x[:, :-150, 20:30].sum() == 0
    assert_rate(x[:, -150:, 20:30], 0.04)
    assert_rate(x[:, :, 30:], 0.01)


def test_cues_favour_one_side_with_the_given_probability():
    """The favoured side has a cue with 0.7: the number of right cues is a mixture of two binomial distributions."""
    x, _, _, _ = EvidenceAccumulation(train_examples=400, test_examples=1, cue_rate=400.0).load()
    right = sides(x).sum(axis=1)
    n, p = 7, 0.7
    # Mean and variance of the mixture of B(7, 0.7) and B(7, 0.3), and of B(7, 0.5), which it must not be.
    variance = n * p * (1 - p) + (n * (p - 0.5)) ** 2
    assert abs(right.mean() - n / 2) < 5 * np.sqrt(variance / len(right))
    fourth = np.mean((right - n / 2) ** 4.0)
    error = np.sqrt((fourth - variance**2) / len(right))
    spread = np.mean((right - n / 2) ** 2)
    assert abs(spread - variance) < 5 * error
    assert abs(spread - n * 0.25) > 5 * error


def test_certain_cues_are_all_on_one_side():
    x, _, _, _ = EvidenceAccumulation(train_examples=20, test_examples=1, cue_probability=1.0).load()
    assert set(sides(x).sum(axis=1)) == {0, 7}


def test_delays_vary_and_recall_stays_at_the_end():
    dataset = EvidenceAccumulation(
        train_examples=60, test_examples=1, delay=[0.5, 1.5], cue_rate=1000.0, background_rate=1000.0
    )
    assert dataset.delay == (0.5, 1.5)
    x, y, _, _ = dataset.load()
    assert x.shape[1] == dataset.time_steps == 7 * 150 + 1500 + 150
    cue_on = x[:, :, :20].any(axis=2)
    first = cue_on.argmax(axis=1)
    last = x.shape[1] - 1 - cue_on[:, ::-1].argmax(axis=1)
    delays = x.shape[1] - 150 - (last + 1)
    assert (last - first + 1 == 7 * 150 - 50).all()
    assert delays.min() >= 500
    assert delays.max() <= 1500
    assert delays.max() - delays.min() > 500
    assert x[:, -150:, 20:30].all()
    assert x[:, :, 30:].all()
    assert ((y >= 0) == (np.arange(x.shape[1]) >= x.shape[1] - 150)).all()


def test_train_and_test_trials_differ_and_seeds_matter(trials):
    assert (trials[0][:50] != trials[2]).any(axis=(1, 2)).all()
    other = EvidenceAccumulation(train_examples=2, test_examples=1, seed=6).load()
    assert (trials[0][:2] != other[0]).any()


def test_more_examples_begin_with_the_same_ones(trials):
    fewer = EvidenceAccumulation(train_examples=7, test_examples=3, seed=5).load()
    for few, many in zip(fewer, trials, strict=True):
        np.testing.assert_array_equal(few, many[: len(few)])


def test_other_sizes():
    dataset = EvidenceAccumulation(
        train_examples=2,
        test_examples=1,
        cues=3,
        cue_duration=0.02,
        cue_interval=0,
        delay=0,
        recall_duration=0.01,
        population_size=2,
        dt=2e-3,
    )
    x, y, _, _ = dataset.load()
    assert x.shape == (2, 35, 8)
    assert (y[:, -5:] >= 0).all()
    assert (y[:, :-5] == -1).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train_examples": 0}, "train_examples"),
        ({"test_examples": 0}, "test_examples"),
        ({"cues": 6}, "cues must be odd"),
        ({"cues": 0}, "cues"),
        ({"cue_probability": 0.3}, "cue_probability"),
        ({"cue_duration": 0.0005}, "whole number of time steps of 0.001 s"),
        ({"cue_duration": 0}, "cue_duration"),
        ({"cue_interval": -0.05}, "cue_interval"),
        ({"delay": -1}, "delay"),
        ({"delay": [1.5, 0.5]}, "shortest, longest"),
        ({"delay": [1.5]}, "shortest and the longest"),
        ({"delay": "long"}, "delay"),
        ({"delay": [0.5, 1.5005]}, "whole number of time steps"),
        ({"recall_duration": 1e-15}, "whole number of time steps"),
        ({"population_size": 0}, "population_size"),
        ({"cue_rate": 2000}, "at most one spike per time step"),
        ({"background_rate": -1}, "background_rate"),
        ({"dt": float("inf")}, "dt"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_of_evidence_accumulation(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        EvidenceAccumulation(**arguments)


def test_steps_and_probabilities():
    assert [steps("duration", k * 0.15, 1e-3) for k in range(8)] == [150 * k for k in range(8)]
    assert spike_probability("rate", 1000.0, 1e-3) == 1.0
