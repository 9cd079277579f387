"""Adaptation and diagnostics: step sizes, mass, windows, what is frozen when (P5); R-hat and ESS calibrated (P6)."""

import numpy as np
import pytest
from sampler_targets import gaussian

from neko_rules.errors import ArgumentError, DataError
from neko_rules.samplers import (
    Adaptation,
    Chain,
    Density,
    HMCKernel,
    MALAKernel,
    NUTSKernel,
    RandomWalkKernel,
    SGLDKernel,
    draw,
    ess_bulk,
    ess_mean,
    ess_tail,
    initial_step_size,
    mcse_mean,
    r_hat,
)
from neko_rules.samplers.adaptation import StepSize, Variance, dual_averaging, robbins_monro, windows

NORMAL = Density(lambda q: 0.5 * np.sum(q**2, axis=1), lambda q: (0.5 * np.sum(q**2, axis=1), q))


# Step size.


def test_dual_averaging_is_the_published_recursion():
    state, rates, target = StepSize.at(0.5), [0.9, 0.1, 0.6, 1.0], 0.8
    for rate in rates:
        state = dual_averaging(state, rate, target)
    mu, gamma, t0, kappa, error, mean = np.log(5.0), 0.05, 10, 0.75, 0.0, np.log(0.5)
    for t, rate in enumerate(rates, start=1):
        error = (1 - 1 / (t + t0)) * error + (target - rate) / (t + t0)
        log_step = mu - np.sqrt(t) / gamma * error
        mean = t**-kappa * log_step + (1 - t**-kappa) * mean
    np.testing.assert_allclose([state.log_step, state.log_mean], [log_step, mean], rtol=1e-13)
    assert abs(log_step - mean) > 0.1


@pytest.mark.parametrize("recursion", [dual_averaging, robbins_monro])
def test_a_step_size_finds_its_acceptance(recursion):
    # The acceptance of one leapfrog step falls with ε as this one does; the target is reached where ε = log 2.
    state, rng = StepSize.at(30.0), np.random.default_rng(0)
    for _ in range(4000):
        rate = np.exp(-np.exp(state.log_step)) + 0.2 * (rng.random() - 0.5)
        state = recursion(state, rate, target=0.5)
    assert abs(np.exp(state.log_mean) / np.log(2) - 1) < 0.05


def test_the_first_step_size_crosses_one_half():
    for scale in (1e-4, 1.0, 1e4):
        density = Density(
            lambda q, s=scale: 0.5 * np.sum(q**2, axis=1) / s**2,
            lambda q, s=scale: (0.5 * np.sum(q**2, axis=1) / s**2, q / s**2),
        )
        state = HMCKernel().init(density, scale * np.ones((200, 1)))
        found = initial_step_size(np.random.default_rng(0), NUTSKernel(), density, state, np.ones(1))
        assert 0.5 < found / scale < 4


def test_a_flat_density_has_no_first_step_size_and_ends_the_search():
    flat = Density(lambda q: np.zeros(len(q)), lambda q: (np.zeros(len(q)), np.zeros_like(q)))
    state = MALAKernel().init(flat, np.zeros((1, 1)))
    assert initial_step_size(np.random.default_rng(0), MALAKernel(), flat, state, np.ones(1)) == 1.0


@pytest.mark.parametrize("method", ["dual_averaging", "robbins_monro"])
@pytest.mark.parametrize("target", [0.6, 0.9])
def test_the_target_acceptance_is_reached(method, target):
    adaptation = Adaptation(warmup=600, target_acceptance=target, method=method)
    drawn = draw(MALAKernel(), gaussian().density, np.zeros((8, 3)), 300, adaptation)
    assert abs(drawn.info.acceptance_rate.mean() - target) < 0.05


# Mass.


@pytest.mark.parametrize("warmup", [0, 1, 20, 49, 50, 100, 149, 150, 151, 200, 500, 1000, 1234])
def test_windows_lie_within_the_warm_up(warmup):
    first, ends = windows(warmup)
    assert 0 <= first <= warmup
    assert ends == sorted(set(ends))
    assert all(first < end <= warmup for end in ends)
    assert bool(ends) == (warmup >= 50)
    lengths = np.diff([first, *ends])
    assert (lengths[1:] >= 2 * lengths[:-1]).all()


def test_the_running_variance_is_the_variance_and_is_shrunk():
    positions = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 10.0, 0.1]
    variance = Variance.empty(3).add(positions[:15]).add(positions[15:])
    np.testing.assert_allclose(variance.mean, positions.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance.squares / 39, positions.var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(variance.shrunk(), 40 / 45 * positions.var(axis=0, ddof=1) + 1e-3 * 5 / 45, rtol=1e-12)


def test_the_mass_becomes_the_variance():
    scales = np.array([0.1, 1.0, 10.0])
    density = Density(
        lambda q: 0.5 * np.sum((q / scales) ** 2, axis=1),
        lambda q: (0.5 * np.sum((q / scales) ** 2, axis=1), q / scales**2),
    )
    drawn = draw(NUTSKernel(), density, scales * np.ones((1, 3)), 100, Adaptation(warmup=500))
    np.testing.assert_allclose(np.sqrt(drawn.tuning.inverse_mass) / scales, 1, atol=0.3)
    assert drawn.info.n_steps.mean() < 10
    without = draw(NUTSKernel(), density, scales * np.ones((1, 3)), 20, Adaptation(warmup=50, mass="identity"))
    np.testing.assert_array_equal(without.tuning.inverse_mass, np.ones(3))
    assert without.info.n_steps.mean() > 30


# Frozen (P5).


@pytest.mark.parametrize("kernel", [RandomWalkKernel(), MALAKernel(), HMCKernel(), NUTSKernel()])
def test_p5_nothing_adapts_after_the_warm_up(kernel):
    chain = Chain(kernel, gaussian().density, Adaptation(warmup=60), np.zeros((1, 3)), np.random.default_rng(0))
    steps = []
    while chain.warming:
        steps.append(chain.tuning.step_size)
        chain.advance()
    assert len(set(steps)) > 40
    tuning = chain.tuning
    adapting = chain.adapting
    for _ in range(30):
        chain.advance()
        assert chain.tuning.step_size == tuning.step_size
        np.testing.assert_array_equal(chain.tuning.inverse_mass, tuning.inverse_mass)
    assert chain.adapting is adapting


def test_p5_what_is_kept_is_the_mean_of_dual_averaging_and_not_its_last_value():
    chain = Chain(HMCKernel(), gaussian().density, Adaptation(warmup=60), np.zeros((1, 3)), np.random.default_rng(0))
    while chain.warming:
        chain.advance()
    assert chain.tuning.step_size == np.exp(chain.adapting.step.log_mean)
    assert chain.tuning.step_size != np.exp(chain.adapting.step.log_step)


def test_a_given_step_size_is_used_where_nothing_adapts():
    for kernel, warmup in ((HMCKernel(), 0), (SGLDKernel(), 40)):
        drawn = draw(kernel, NORMAL, np.zeros((1, 2)), 5, Adaptation(warmup=warmup, step_size=0.125))
        assert abs(drawn.tuning.step_size - 0.125) < 1e-15


@pytest.mark.parametrize(
    "wrong",
    [
        {"warmup": -1},
        {"warmup": 5, "target_acceptance": 1},
        {"warmup": 5, "method": "adam"},
        {"warmup": 5, "mass": "x"},
    ],
)
def test_an_adaptation_refuses_what_has_no_meaning(wrong):
    with pytest.raises(ArgumentError, match="must be"):
        Adaptation(**wrong)


def test_drawn_counts_every_gradient():
    drawn = draw(HMCKernel(4), NORMAL, np.zeros((2, 2)), 10, Adaptation(warmup=5, step_size=0.5), thin=3)
    assert drawn.evaluations.tolist() == [4 * 35] * 2
    assert drawn.positions.shape == (2, 10, 2)


# Diagnostics (P6).


def autoregressive(phi, chains, draws, seed):
    """x_t = φ x_{t-1} + ξ_t from its stationary density, whose ESS is n (1 - φ)/(1 + φ)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((chains, draws))
    noise[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, draws):
        noise[:, t] += phi * noise[:, t - 1]
    return noise


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.4])
def test_p6_effective_sample_sizes_are_calibrated(phi):
    found = [ess_mean(autoregressive(phi, 4, 2000, seed)) for seed in range(20)]
    expected = 8000 * (1 - phi) / (1 + phi)
    assert abs(np.mean(found) / expected - 1) < 0.1
    found = [ess_bulk(autoregressive(phi, 4, 2000, seed)) for seed in range(20)]
    assert abs(np.mean(found) / expected - 1) < 0.1


def test_p6_the_standard_error_covers_as_often_as_it_says():
    covered = [abs(x.mean()) < 2 * mcse_mean(x) for x in (autoregressive(0.7, 4, 500, seed) for seed in range(400))]
    # 95.4 % in theory; four binomial standard errors of 400 are 4.2 %.
    assert 0.91 < np.mean(covered) < 0.997


def test_p6_r_hat_is_one_for_chains_that_agree_and_more_for_those_that_do_not():
    same = [float(r_hat(autoregressive(0.3, 4, 500, seed))) for seed in range(50)]
    assert max(same) < 1.02
    shifted = autoregressive(0.3, 4, 500, 0) + 0.5 * np.arange(4)[:, None]
    assert r_hat(shifted) > 1.05
    wider = autoregressive(0.3, 4, 500, 0) * np.array([1, 1, 1, 3])[:, None]
    assert r_hat(wider) > 1.05  # seen by the folded ranks alone
    trend = autoregressive(0.3, 4, 500, 0) + np.linspace(0, 2, 500)
    assert r_hat(trend) > 1.05  # seen because chains are split


def test_r_hat_of_the_definition():
    # A hand-made case without ranks in the way: the split halves are normal scores of themselves.
    x = np.random.default_rng(0).normal(size=(3, 10, 2, 2))
    assert r_hat(x).shape == ess_tail(x).shape == (2, 2)
    assert np.isnan(ess_tail(np.where(np.arange(10)[:, None, None] == 3, np.nan, x))).all()
    np.testing.assert_allclose(r_hat(x)[1, 0], r_hat(x[:, :, 1, 0]))
    np.testing.assert_allclose(r_hat(np.exp(x)), r_hat(x), rtol=0.2)


def test_a_chain_that_does_not_move_has_no_r_hat():
    assert np.isnan(r_hat(np.ones((2, 10))))
    assert ess_bulk(np.ones((2, 10))) == 20
    with pytest.raises(DataError, match="at least 4 draws"):
        r_hat(np.ones((2, 3)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("phi", [0.0, 0.6, 0.95, -0.5])
def test_diagnostics_are_those_of_arviz(phi):
    arviz = pytest.importorskip("arviz")
    for chains, draws in ((4, 400), (1, 103), (2, 37)):
        x = autoregressive(phi, chains, draws, seed=3)
        for method, own in (("bulk", ess_bulk), ("tail", ess_tail), ("mean", ess_mean)):
            np.testing.assert_allclose(own(x), arviz.ess(x, method=method), rtol=1e-10)
        if chains > 1:
            np.testing.assert_allclose(r_hat(x), arviz.rhat(x), rtol=1e-10)
        np.testing.assert_allclose(mcse_mean(x), arviz.mcse(x), rtol=1e-10)
