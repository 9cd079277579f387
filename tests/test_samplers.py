"""Samplers, deterministically: integrator, proposal densities, mass, rejections, faulty energies, seeds (D1 to D10)."""

import numpy as np
import pytest
from sampler_targets import COVARIANCE, MEAN, funnel, gaussian
from scipy import stats

from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.samplers import (
    Adaptation,
    BlockwiseKernel,
    Chain,
    Density,
    HMCKernel,
    MALAKernel,
    NUTSKernel,
    RandomWalkKernel,
    SGHMCKernel,
    SGLDKernel,
    State,
    Tuning,
    draw,
    tempered,
)
from neko_rules.samplers.kernel import acceptance
from neko_rules.samplers.leapfrog import Point, kinetic_energy, leapfrog
from neko_rules.samplers.mala import drift, log_acceptance_ratio, scale
from neko_rules.samplers.nuts import _levels

EXACT = [RandomWalkKernel(), MALAKernel(), HMCKernel(steps=4), NUTSKernel(max_depth=5)]
ALL = [*EXACT, SGLDKernel(), SGHMCKernel()]
BLOCKWISE = [BlockwiseKernel(inner, [([[0], [1, 2]], 2)], np.ones(3)) for inner in (EXACT[0], EXACT[2])]
INVERSE_MASS = np.array([0.5, 2.0, 0.1])


def named(kernel):
    return repr(kernel) if isinstance(kernel, BlockwiseKernel) else type(kernel).__name__


def swirl(q):
    """A force that is the derivative of nothing: its curl is not 0."""
    return np.stack([np.sin(q[:, 1]) + q[:, 0], q[:, 2] - q[:, 0], np.cos(q[:, 0] * q[:, 1])], axis=1)


FORCES = {"gradient": gaussian().density, "wrong": gaussian().density.driven_by(swirl)}


def point_at(density, q, p):
    energy, gradient = density.energy_and_gradient(q)
    return Point(q, p, energy, gradient)


def integrated(density, point, step_size, steps, inverse_mass=INVERSE_MASS):
    for _ in range(steps):
        point = leapfrog(density, point, step_size, inverse_mass)
    return point


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# The integrator.


@pytest.mark.parametrize("force", FORCES)
def test_d1_leapfrog_is_reversible(rng, force):
    density = FORCES[force]
    begin = point_at(density, rng.normal(size=(5, 3)), rng.normal(size=(5, 3)))
    end = integrated(density, begin, 0.05, 50)
    assert np.abs(end.position - begin.position).max() > 0.1
    back = integrated(density, end._replace(momentum=-end.momentum), 0.05, 50)
    np.testing.assert_allclose(back.position, begin.position, rtol=0, atol=1e-10)
    np.testing.assert_allclose(-back.momentum, begin.momentum, rtol=0, atol=1e-10)
    by_sign = integrated(density, end, -0.05, 50)
    np.testing.assert_allclose(by_sign.position, begin.position, rtol=0, atol=1e-10)


@pytest.mark.parametrize("force", FORCES)
def test_d2_leapfrog_preserves_volume(rng, force):
    density, h = FORCES[force], 1e-5
    z = rng.normal(size=6)
    moved = np.concatenate([z + h * np.eye(6), z - h * np.eye(6)])
    end = integrated(density, point_at(density, moved[:, :3], moved[:, 3:]), 0.2, 10)
    ends = np.concatenate([end.position, end.momentum], axis=1)
    jacobian = (ends[:6] - ends[6:]) / (2 * h)
    assert np.abs(jacobian - np.eye(6)).max() > 0.3
    assert abs(np.linalg.det(jacobian) - 1) < 1e-7


def test_d2_an_integrator_that_is_not_leapfrog_changes_volume(rng):
    # Explicit Euler, the control: the determinant of one step on an oscillator is 1 + ε².
    jacobian = np.array([[1, 0.2], [-0.2, 1]])
    assert abs(np.linalg.det(jacobian) - 1) > 0.03


def test_d3_energy_error_falls_with_the_square_of_the_step(rng):
    density = funnel().density
    begin = point_at(density, rng.normal(size=(50, 3)), rng.normal(size=(50, 3)))

    def error(steps):
        end = integrated(density, begin, 0.32 / steps, steps, np.ones(3))
        change = end.energy + kinetic_energy(end.momentum, np.ones(3)) - begin.energy
        return np.abs(change - kinetic_energy(begin.momentum, np.ones(3)))

    ratio = np.median(error(8) / error(16))
    assert abs(ratio - 4) < 0.1


def test_d4_free_fall_is_exact():
    fall = Density(lambda q: 9.81 * q[:, 0], lambda q: (9.81 * q[:, 0], np.full_like(q, 9.81)))
    end = integrated(fall, point_at(fall, np.array([[2.0]]), np.array([[3.0]])), 0.1, 10, np.ones(1))
    np.testing.assert_allclose(end.position, 2 + 3 - 9.81 / 2, rtol=1e-13)
    np.testing.assert_allclose(end.momentum, 3 - 9.81, rtol=1e-13)


def test_d4_oscillator_turns_by_the_known_angle():
    # On U = q²/2 a step turns (q √(1 - ε²/4), p) by φ with cos φ = 1 - ε²/2.
    normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
    step, n = 0.7, 23
    end = integrated(normal, point_at(normal, np.array([[1.0]]), np.array([[0.5]])), step, n, np.ones(1))
    angle, narrow = n * np.arccos(1 - step**2 / 2), np.sqrt(1 - step**2 / 4)
    np.testing.assert_allclose(end.position, np.cos(angle) + 0.5 * np.sin(angle) / narrow, rtol=1e-12)
    np.testing.assert_allclose(end.momentum, 0.5 * np.cos(angle) - narrow * np.sin(angle), rtol=1e-12)


# The accept step.


@pytest.mark.parametrize("force", FORCES)
def test_d5_mala_is_hmc_with_one_step(force):
    density, step = FORCES[force], 0.8
    q = np.random.default_rng(0).normal(size=(200, 3))
    by_mala, by_hmc = MALAKernel().init(density, q), HMCKernel(1).init(density, q)
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    seen = set()
    for _ in range(5):
        by_mala, told = MALAKernel().step(one, density, by_mala, Tuning(step**2 / 2, INVERSE_MASS))
        by_hmc, also = HMCKernel(steps=1).step(other, density, by_hmc, Tuning(step, INVERSE_MASS))
        np.testing.assert_allclose(by_mala.position, by_hmc.position, rtol=1e-11)
        np.testing.assert_allclose(told.acceptance_rate, also.acceptance_rate, rtol=1e-9, atol=1e-300)
        seen |= set(told.accepted.tolist())
    assert seen == {True, False}


def test_d6_log_ratio_is_that_of_the_densities(rng):
    target, tuning = gaussian(), Tuning(0.3, INVERSE_MASS)
    for density in FORCES.values():
        a = MALAKernel().init(density, rng.normal(size=(1000, 3)))
        b = MALAKernel().init(density, rng.normal(size=(1000, 3)))
        ratio = log_acceptance_ratio(a, b, tuning)
        posterior = stats.multivariate_normal(MEAN, COVARIANCE)
        spread = stats.multivariate_normal(np.zeros(3), np.diag(2 * 0.3 * INVERSE_MASS))

        def proposal(to, start, spread=spread):
            return spread.logpdf(to.position - start.position + 0.3 * INVERSE_MASS * start.gradient)

        expected = posterior.logpdf(b.position) - posterior.logpdf(a.position) + proposal(a, b) - proposal(b, a)
        np.testing.assert_allclose(ratio, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(log_acceptance_ratio(b, a, tuning), -ratio, rtol=1e-12)
    assert target.density is not FORCES["wrong"]


def test_d6_drift_and_variance_of_a_proposal():
    tuning = Tuning(0.3, INVERSE_MASS)
    np.testing.assert_allclose(drift(np.ones((1, 3)), tuning), [-0.3 * INVERSE_MASS])
    np.testing.assert_allclose(scale(tuning), 0.6 * INVERSE_MASS)


@pytest.mark.parametrize("kernel", ALL, ids=named)
def test_d7_a_mass_is_a_change_of_scale(kernel):
    # A kernel with inverse mass A on θ is one with mass 1 on φ = A^(-1/2) θ.
    density, root = gaussian().density, np.sqrt(INVERSE_MASS)

    def both(phi):
        energy, gradient = density.energy_and_gradient(phi * root)
        return energy, gradient * root

    scaled = Density(lambda phi: both(phi)[0], both)
    theta = np.random.default_rng(0).normal(size=(40, 3))
    one, other = kernel.init(density, theta), kernel.init(scaled, theta / root)
    rng, same = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(4):
        one, told = kernel.step(rng, density, one, Tuning(0.3, INVERSE_MASS))
        other, also = kernel.step(same, scaled, other, Tuning(0.3, np.ones(3)))
        np.testing.assert_allclose(one.position, other.position * root, rtol=1e-10)
        np.testing.assert_array_equal(told.accepted, also.accepted)
    unscaled = kernel.step(rng, density, one, Tuning(0.3, np.ones(3)))[0]
    assert np.abs(unscaled.position - one.position).max() > 0.01


@pytest.mark.parametrize("kernel", EXACT, ids=named)
def test_d8_a_rejection_restores_everything(kernel):
    density = gaussian().density.driven_by(swirl)
    state = kernel.init(density, np.random.default_rng(0).normal(size=(500, 3)))
    kept = State(*(array.copy() for array in state))
    new, info = kernel.step(np.random.default_rng(1), density, state, Tuning(0.5, np.ones(3)))
    assert 20 < info.accepted.sum() < 480
    for name in State._fields:
        before, after = getattr(kept, name), getattr(new, name)
        np.testing.assert_array_equal(getattr(state, name), before)  # nothing is changed in place
        np.testing.assert_array_equal(after[~info.accepted], before[~info.accepted])
    energy, gradient = density.energy_and_gradient(new.position)
    np.testing.assert_allclose(new.energy, energy, rtol=1e-12)
    if new.gradient.size:
        np.testing.assert_allclose(new.gradient, gradient, rtol=1e-12)
    assert (np.abs(new.position - kept.position).max(axis=1) > 0)[info.accepted].all()


@pytest.mark.parametrize("kernel", BLOCKWISE, ids=named)
def test_d8_moves_of_blocks_leave_energy_and_gradient_those_of_the_position(kernel):
    density = gaussian().density.driven_by(swirl)
    state = kernel.init(density, np.random.default_rng(0).normal(size=(500, 3)))
    kept = State(*(array.copy() for array in state))
    new, info = kernel.step(np.random.default_rng(1), density, state, Tuning(0.5, np.ones(3)))
    stayed = (new.position == kept.position).all(axis=1)
    assert 5 < stayed.sum() < 250
    assert not info.accepted[stayed].any()
    energy, gradient = density.energy_and_gradient(new.position)
    np.testing.assert_allclose(new.energy, energy, rtol=1e-12)
    for name in State._fields:
        np.testing.assert_array_equal(getattr(state, name), getattr(kept, name))  # nothing is changed in place
    if new.gradient.size:
        np.testing.assert_allclose(new.gradient, gradient, rtol=1e-12)
    assert 0.2 < info.block_acceptance_rate.mean() < 0.9
    inner = kernel.inner.step(np.random.default_rng(1), density, kept, Tuning(0.5, np.ones(3)))[1]
    assert np.isnan(inner.block_acceptance_rate).all()


def test_a_block_moves_alone():
    normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
    kernel = BlockwiseKernel(RandomWalkKernel(), [([[0, 3], [1], [2]], 1)], np.ones(4))
    state, rng, seen = kernel.init(normal, np.zeros((1, 4))), np.random.default_rng(0), set()
    for _ in range(60):
        new, _ = kernel.step(rng, normal, state, Tuning(1e-9, np.ones(4)))
        moved = tuple(np.flatnonzero(np.abs(new.position - state.position)[0] > 1e-6))
        seen.add(moved)
        state = new
    assert seen == {(0, 3), (1,), (2,)}  # the density is the one that proposals leave as it is: every move is accepted


def test_blocks_that_cannot_move_are_refused():
    with pytest.raises(ArgumentError, match="4 moves of 3 blocks"):
        BlockwiseKernel(HMCKernel(), [([[0], [1], [2]], 4)], np.ones(3))
    with pytest.raises(IncompatibleError, match="no accept step"):
        BlockwiseKernel(SGLDKernel(), [([[0], [1], [2]], 1)], np.ones(3))


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", [*EXACT, *BLOCKWISE], ids=named)
def test_d9_a_faulty_energy_is_rejected_and_counted(kernel, fault):
    def both(q):
        wrong = q[:, 0] > 1
        energy = np.where(wrong, fault, 0.5 * np.sum(q**2, axis=1))
        return energy, np.where(wrong[:, None], fault, q)

    density = Density(lambda q: both(q)[0], both)
    state = kernel.init(density, np.zeros((300, 3)))
    rng, faults = np.random.default_rng(0), 0
    for _ in range(20):
        state, info = kernel.step(rng, density, state, Tuning(0.7, np.ones(3)))
        faults += info.diverging.sum()
        assert all(np.isfinite(array).all() for array in state)
        assert (state.position[:, 0] <= 1).all()
        assert np.isfinite(info.acceptance_rate).all()
    assert faults > 100
    assert np.abs(state.position).max() > 1


def test_d9_an_error_beyond_a_thousand_is_divergent():
    probability, log_ratio, diverging = acceptance(np.array([-999.0, -1001.0, np.nan, 5.0]), np.zeros(4))
    assert diverging.tolist() == [False, True, True, False]
    assert probability.tolist() == [0, 0, 0, 1]
    assert log_ratio[2] == -np.inf


def test_d9_a_chain_cannot_begin_in_a_faulty_place():
    nowhere = Density(lambda q: np.full(len(q), np.inf), lambda q: (np.full(len(q), np.inf), q))
    for kernel in EXACT:
        with pytest.raises(ArgumentError, match="must begin where the energy and its gradient are finite"):
            kernel.init(nowhere, np.zeros((1, 2)))
    with pytest.raises(ArgumentError, match=r"\[chains, dimension\]"):
        MALAKernel().init(gaussian().density, np.zeros(3))


@pytest.mark.parametrize("kernel", [*ALL, *BLOCKWISE], ids=named)
def test_d10_a_seed_is_a_chain(kernel):
    density = gaussian().density
    adaptation = Adaptation(warmup=30, step_size=None if kernel.exact else 0.01)

    def chain(seed):
        return draw(kernel, density, np.zeros((1, 3)), 20, adaptation, seed=seed).positions

    np.testing.assert_array_equal(chain(3), chain(3))
    split = [draw(kernel, density, np.zeros((1, 3)), 20, adaptation, seed=[3, c]).positions for c in range(2)]
    assert not np.array_equal(*split)
    assert not np.array_equal(chain(3), chain(4))


@pytest.mark.parametrize("stop", [0, 7, 40, 90, 130])
@pytest.mark.parametrize("kernel", [*ALL, *BLOCKWISE], ids=named)
def test_a_chain_taken_up_again_is_the_same_chain(kernel, stop):
    density, adaptation = gaussian().density, Adaptation(warmup=100, step_size=0.05)

    def run(chain, steps):
        for _ in range(steps):
            chain.advance()
        return chain

    whole = run(Chain(kernel, density, adaptation, np.zeros((1, 3)), np.random.default_rng(5)), 140)
    first = run(Chain(kernel, density, adaptation, np.zeros((1, 3)), np.random.default_rng(5)), stop)
    second = run(Chain.resume(kernel, density, adaptation, *first.snapshot()), 140 - stop)
    for one, other in zip(whole.state, second.state, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.tuning.step_size == second.tuning.step_size
    np.testing.assert_array_equal(whole.tuning.inverse_mass, second.tuning.inverse_mass)


# NUTS' bookkeeping.


def test_leaves_close_the_subtrees_that_end_with_them():
    # By hand, for the eight leaves of a tree of depth 3: the leaves that began the subtrees which end at an odd one.
    slot, closed = {}, {}
    for leaf in range(8):
        first, last = _levels(leaf)
        if leaf % 2 == 0:
            slot[last] = leaf
        else:
            closed[leaf] = sorted(slot[level] for level in range(first, last + 1))
    assert closed == {1: [0], 3: [0, 2], 5: [4], 7: [0, 4, 6]}


def test_a_trajectory_stops_when_it_turns():
    # In many dimensions orbits on a normal density are nearly circles, on which half a turn takes π/ε = 63 steps: a
    # trajectory of 32 states never turns, and one of 128 always does.
    normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
    state = NUTSKernel().init(normal, np.random.default_rng(0).normal(size=(100, 300)))
    _, info = NUTSKernel().step(np.random.default_rng(1), normal, state, Tuning(0.05, np.ones(300)))
    assert info.n_steps.min() >= 63
    assert info.n_steps.max() <= 127
    _, shallow = NUTSKernel(max_depth=3).step(np.random.default_rng(1), normal, state, Tuning(0.05, np.ones(300)))
    assert shallow.tree_depth.max() == 3
    assert shallow.n_steps.max() == 7


def test_rows_do_not_know_of_each_other():
    # A chain in lockstep with one that diverges at once makes the same kind of step as alone: its energy is that of its
    # position, and its trajectory is whole.
    cliff = Density(
        lambda q: np.where(q[:, 0] > 10, np.nan, 0.5 * q[:, 0] ** 2),
        lambda q: (np.where(q[:, 0] > 10, np.nan, 0.5 * q[:, 0] ** 2), q),
    )
    state = NUTSKernel().init(cliff, np.array([[0.0], [9.999]]))
    new, info = NUTSKernel().step(np.random.default_rng(3), cliff, state, Tuning(0.3, np.ones(1)))
    assert info.n_steps[0] > 1
    np.testing.assert_allclose(new.energy, 0.5 * new.position[:, 0] ** 2)


# Tempering.


def test_a_temperature_divides_the_energy_of_the_likelihood_alone(rng):
    prior, likelihood, q = gaussian(np.zeros(3), np.eye(3)).density, gaussian().density, rng.normal(size=(4, 3))
    energy, gradient = tempered(likelihood, prior, temperature=0.25).energy_and_gradient(q)
    np.testing.assert_allclose(energy, prior.energy(q) + 4 * likelihood.energy(q), rtol=1e-13)
    np.testing.assert_allclose(gradient, q + 4 * likelihood.energy_and_gradient(q)[1], rtol=1e-13)
    np.testing.assert_allclose(tempered(likelihood, prior, 0.25).energy(q), energy, rtol=1e-13)
    assert np.abs(tempered(likelihood, prior, 1.0).energy(q) - energy).max() > 0.1
    with pytest.raises(ArgumentError, match="temperature must be a finite number above 0"):
        tempered(likelihood, prior, 0)


def test_a_temperature_holds_for_mini_batches_too(rng):
    noisy = Density(lambda q: q[:, 0], lambda q: (q[:, 0], np.ones_like(q)), lambda rng, q: 2 * np.ones_like(q))
    estimate = tempered(noisy, noisy, 0.5).estimated_gradient(rng, np.zeros((1, 1)))
    np.testing.assert_allclose(estimate, [[2 + 4]])
    with pytest.raises(IncompatibleError, match="or neither"):
        tempered(noisy, gaussian().density)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"jitter": 1.0}, {"steps": 2.5}])
def test_hmc_refuses_what_has_no_meaning(wrong):
    with pytest.raises(ArgumentError, match="must be"):
        HMCKernel(**wrong)


def test_sghmc_and_nuts_refuse_what_has_no_meaning():
    for make in (lambda: SGHMCKernel(friction=0), lambda: SGHMCKernel(gradient_noise=0.5), lambda: NUTSKernel(0)):
        with pytest.raises(ArgumentError, match="must be"):
            make()


def test_jitter_changes_the_step():
    density = gaussian().density
    state = HMCKernel().init(density, np.ones((1, 3)))
    ends = [
        kernel.step(np.random.default_rng(0), density, state, Tuning(0.1, np.ones(3)))[0].position
        for kernel in (HMCKernel(3), HMCKernel(3, jitter=0.5))
    ]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
