"""Samplers, statistically: one kernel at a time on densities with exact draws (S1 to S6), and the approximate ones.

A comparison that could fail by chance does so with a probability below 1e-6 (p-values) or 7e-5 (four standard errors);
over the comparisons of this file that is less than 1 in 1,000, and all are seeded, so that they fail always or never.
Invariance begins with exact draws, which any kernel that leaves the density alone must leave exact, at acceptance
between 0.5 and 0.9 (at 0.98 a wrong accept step is hardly ever asked); controls that must fail show the power.
"""

from functools import cache

import numpy as np
import pytest
from sampler_targets import funnel, gaussian, log_gamma, smallest_p_value
from scipy.linalg import solve_discrete_lyapunov

from neko_rules.samplers import (
    Adaptation,
    BlockwiseKernel,
    Density,
    HMCKernel,
    MALAKernel,
    NUTSKernel,
    RandomWalkKernel,
    SGHMCKernel,
    SGLDKernel,
    Tuning,
    draw,
    hmc,
    mala,
    mcse_mean,
    nuts,
    random_walk,
)
from neko_rules.samplers import blockwise as blocks
from neko_rules.samplers.leapfrog import leapfrog

ALPHA = 1e-6
DRAWS = 200_000
TARGETS = {"gaussian": gaussian(), "log-gamma": log_gamma(), "funnel": funnel()}
DRIFTS = {
    "": lambda g: g,
    "sign of the gradient": np.sign,
    "gradient with coordinates exchanged": lambda g: 0.5 * g[:, [1, 2, 0]],
}
SCALES = {"gaussian": [1.0, 1.5, 0.25], "log-gamma": [1.0, 1.0], "funnel": [1.0, 1.0, 1.0]}


def blockwise(inner, dimension=3):
    """Two blocks, the second of all coordinates but one, with scales that are not those of the target."""
    return BlockwiseKernel(inner, [([[0], list(range(1, dimension))], 2)], np.full(dimension, 1.3))


CASES = [  # kernel, target, drift, step size
    (RandomWalkKernel(), "gaussian", "", 0.5),
    (RandomWalkKernel(), "log-gamma", "", 0.7),
    (MALAKernel(), "gaussian", "", 0.25),
    (MALAKernel(), "log-gamma", "", 0.5),
    (MALAKernel(), "gaussian", "gradient with coordinates exchanged", 0.1),
    (HMCKernel(steps=5), "gaussian", "", 0.6),
    (HMCKernel(steps=5), "log-gamma", "", 0.8),
    (HMCKernel(steps=3, jitter=0.3), "gaussian", "sign of the gradient", 0.4),
    (NUTSKernel(), "gaussian", "", 0.7),
    (NUTSKernel(), "log-gamma", "", 1.0),
    (NUTSKernel(), "funnel", "", 0.6),
    (NUTSKernel(), "gaussian", "sign of the gradient", 0.35),
    (blockwise(RandomWalkKernel()), "gaussian", "", 0.5),
    (blockwise(HMCKernel(steps=3, jitter=0.3)), "gaussian", "sign of the gradient", 0.4),
    (blockwise(MALAKernel(), dimension=2), "log-gamma", "", 0.5),
]


def named(kernel):
    name = type(kernel).__name__.removesuffix("Kernel")
    return f"{name} and {named(kernel.inner)}" if isinstance(kernel, BlockwiseKernel) else name


IDS = [f"{named(kernel)}, {target}{drift and ', ' + drift}" for kernel, target, drift, _ in CASES]


def density_of(target, drift):
    density = TARGETS[target].density
    return density.driven_by(lambda q: DRIFTS[drift](density.energy_and_gradient(q)[1])) if drift else density


@cache
def one_step(case, draws=DRAWS, seed=0):
    """Exact draws, whitened; the same one transition later; and what the transition told."""
    kernel, target, drift, step_size = CASES[case]
    rng, density = np.random.default_rng([seed, case]), density_of(target, drift)
    state = kernel.init(density, TARGETS[target].draw(rng, draws))
    before = state.position
    state, info = kernel.step(rng, density, state, Tuning(step_size, np.array(SCALES[target])))
    return TARGETS[target].whiten(before), TARGETS[target].whiten(state.position), info


def after(case, steps, draws, density=None, step_size=None, seed=1):
    """Whitened positions some transitions after exact draws of the target."""
    kernel, target, drift, usual = CASES[case]
    rng, density = np.random.default_rng([seed, case]), density or density_of(target, drift)
    state = kernel.init(density, TARGETS[target].draw(rng, draws))
    for _ in range(steps):
        state, _ = kernel.step(rng, density, state, Tuning(step_size or usual, np.array(SCALES[target])))
    return TARGETS[target].whiten(state.position)


def case_of(kernel, target="gaussian"):
    return next(place for place, case in enumerate(CASES) if type(case[0]) is kernel and case[1] == target)


# S1 and S2: invariance, and what must fail it.


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_s1_exact_draws_stay_exact_for_one_step(case):
    before, now, _ = one_step(case)
    assert smallest_p_value(before) > ALPHA
    assert smallest_p_value(now) > ALPHA


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_s1_exact_draws_stay_exact_for_twenty_steps(case):
    # A NUTS transition costs ten times as much: a tenth of the draws here, all of them in the long test.
    draws = DRAWS // 10 if isinstance(CASES[case][0], NUTSKernel) else DRAWS
    assert smallest_p_value(after(case, 20, draws)) > ALPHA


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in range(len(CASES)) if isinstance(CASES[case][0], NUTSKernel)])
def test_s1_exact_draws_stay_exact_for_twenty_steps_of_nuts_in_full(case):
    assert smallest_p_value(after(case, 20, DRAWS)) > ALPHA


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_s2_a_density_that_is_ten_percent_off_is_noticed(case):
    kernel, target, drift, _ = CASES[case]
    right = density_of(target, drift)

    def both(q):
        energy, gradient = right.energy_and_gradient(q)
        return 1.1 * energy, 1.1 * gradient

    draws = DRAWS // 20 if isinstance(kernel, NUTSKernel) else DRAWS // 4
    steps = 5 if isinstance(kernel, NUTSKernel) else 20
    assert smallest_p_value(after(case, steps, draws, Density(lambda q: 1.1 * right.energy(q), both))) < ALPHA


def without_proposal_densities(current, proposed, tuning):
    return current.energy - proposed.energy


def only_forward(current, proposed, tuning):
    return current.energy - proposed.energy + mala.log_proposal(current.position, proposed, tuning)


def half_kick_forgotten(density, point, step_size, inverse_mass):
    moved = leapfrog(density, point, step_size, inverse_mass)
    return moved._replace(momentum=moved.momentum + 0.5 * step_size * moved.gradient)


def unscaled(momentum, inverse_mass):
    return 0.5 * np.sum(momentum**2, axis=1)


def always(log_ratio, energy, error=None):
    return np.ones(len(energy)), log_ratio, np.zeros(len(energy), bool)


FAULTS = {
    "MALA accepts by the energies alone, as the public ancestor does": (
        MALAKernel, [(mala, "log_acceptance_ratio", without_proposal_densities)]),
    "MALA with one proposal density of the two": (MALAKernel, [(mala, "log_acceptance_ratio", only_forward)]),
    "MALA with noise of half the variance": (MALAKernel, [(mala, "scale", lambda t: t.step_size * t.inverse_mass)]),
    "MALA accepts everything": (MALAKernel, [(mala, "acceptance", always)]),
    "random walk accepts everything": (RandomWalkKernel, [(random_walk, "acceptance", always)]),
    "HMC with a half kick left out": (HMCKernel, [(hmc, "leapfrog", half_kick_forgotten)]),
    "HMC with a kinetic energy that ignores the mass": (HMCKernel, [(hmc, "kinetic_energy", unscaled)]),
    "HMC accepts everything": (HMCKernel, [(hmc, "acceptance", always)]),
    "moves of blocks accepted by the energies alone": (
        BlockwiseKernel, [(blocks, "log_reference", lambda whitened: np.zeros(len(whitened)))]),
    "moves of blocks that are all accepted": (BlockwiseKernel, [(blocks, "acceptance", always)]),
    "NUTS without checks of the subtrees": (NUTSKernel, [(nuts, "_levels", lambda leaf: (1, 0))]),
    "NUTS with a half kick left out": (NUTSKernel, [(nuts, "leapfrog", half_kick_forgotten)]),
    "NUTS with a kinetic energy that ignores the mass": (NUTSKernel, [(nuts, "kinetic_energy", unscaled)]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_s2_a_planted_fault_is_noticed(fault, monkeypatch):
    kernel, replacements = FAULTS[fault]
    for module, name, replacement in replacements:
        monkeypatch.setattr(module, name, replacement)
    # Scaling every proposal of MALA also scales its density, which is then right: the noise must be drawn as usual.
    if fault == "MALA with noise of half the variance":
        rightly = mala.log_acceptance_ratio

        def as_if_unscaled(current, proposed, tuning):
            with monkeypatch.context() as patched:
                patched.setattr(mala, "scale", lambda t: 2 * t.step_size * t.inverse_mass)
                return rightly(current, proposed, tuning)

        monkeypatch.setattr(mala, "log_acceptance_ratio", as_if_unscaled)
    draws = DRAWS // 4 if kernel is NUTSKernel else DRAWS
    assert smallest_p_value(after(case_of(kernel), 5, draws)) < ALPHA


# S3 to S5: movement, reversibility, and acceptance.


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_s3_the_tests_have_power_acceptance_is_in_range_and_chains_move(case):
    before, now, info = one_step(case)
    assert 0.5 < info.acceptance_rate.mean() < 0.9
    assert np.sqrt(np.mean((now - before) ** 2, axis=0)).min() > 0.2
    assert info.diverging.mean() < 0.01


FUNCTIONS = [
    (lambda z: z[:, 0], lambda z: z[:, 0] ** 2),
    (lambda z: z[:, 0], lambda z: np.sign(z[:, 1]) * (np.abs(z[:, 1]) > 1)),
    (lambda z: z[:, 1] ** 2, lambda z: z[:, 0] ** 2),
    (lambda z: z[:, 0], lambda z: z[:, 0] ** 3),
]


def reversibility_scores(before, now):
    """z-scores of f(x₀)g(x₁) - g(x₀)f(x₁), whose mean is 0 for a reversible chain in its stationary density."""
    differences = [f(before) * g(now) - g(before) * f(now) for f, g in FUNCTIONS]
    return np.array([np.sqrt(len(d)) * d.mean() / d.std() for d in differences])


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_s4_transitions_are_reversible(case):
    before, now, _ = one_step(case)
    assert np.abs(reversibility_scores(before, now)).max() < 4.9  # two-sided p = 1e-6


def test_s4_a_chain_with_a_sense_of_direction_is_noticed():
    # x₁ = |x₀|-wise rotation: it leaves the normal density invariant, but is not reversible.
    before = np.random.default_rng(0).standard_normal((DRAWS, 2))
    turned = before @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    d = before[:, 0] * turned[:, 1] - before[:, 1] * turned[:, 0]
    assert smallest_p_value(turned) > ALPHA
    assert abs(np.sqrt(DRAWS) * d.mean() / d.std()) > 4.9


@pytest.mark.parametrize("case", [c for c in range(len(CASES)) if not isinstance(CASES[c][0], NUTSKernel)])
def test_s5_the_acceptance_probability_is_the_acceptance_frequency(case):
    _, _, info = one_step(case)
    difference = info.accepted - info.acceptance_rate
    assert abs(np.sqrt(DRAWS) * difference.mean() / difference.std()) < 4.9
    assert difference.std() > 0.1


# S6: long runs, adapted, from far away.


@pytest.mark.parametrize(
    ("kernel", "target"),
    [
        (RandomWalkKernel(), "gaussian"),
        (MALAKernel(), "gaussian"),
        (MALAKernel(), "log-gamma"),
        (HMCKernel(steps=6, jitter=0.2), "gaussian"),
        (HMCKernel(steps=6, jitter=0.2), "log-gamma"),
        (NUTSKernel(), "gaussian"),
        (NUTSKernel(), "funnel"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_s6_long_runs_have_the_right_moments(kernel, target):
    # Far out where a density falls faster than a Gaussian no step is small enough, and a chain may stay for ever.
    away = 3.0 if target == "gaussian" else 0.5
    begin = away * np.random.default_rng(0).normal(size=(40, len(SCALES[target])))
    drawn = draw(kernel, TARGETS[target].density, begin, 1500, Adaptation(warmup=500), seed=4)
    shape = drawn.positions.shape
    white = TARGETS[target].whiten(drawn.positions.reshape(-1, shape[2])).reshape(shape)
    for values, expected in ((white, 0.0), (white**2, 1.0)):
        assert np.all(np.abs(values.mean(axis=(0, 1)) - expected) < 4 * mcse_mean(values))
    assert mcse_mean(white).max() < 0.05


# The approximate ones, whose errors are known on a normal density.

NORMAL = Density(lambda q: 0.5 * np.sum(q**2, axis=1), lambda q: (0.5 * np.sum(q**2, axis=1), q))
NOISY = Density(NORMAL.energy, NORMAL.energy_and_gradient, lambda rng, q: q + 2.0 * rng.standard_normal(q.shape))


def stationary(kernel, density, step_size, steps, draws=DRAWS):
    """Positions after enough transitions from the origin to forget it."""
    state, rng = kernel.init(density, np.zeros((draws, 1))), np.random.default_rng(0)
    for _ in range(steps):
        state, info = kernel.step(rng, density, state, Tuning(step_size, np.ones(1)))
    assert np.isnan(state.energy).all()
    assert not info.diverging.any()
    return state.position[:, 0]


@pytest.mark.parametrize(("density", "noise"), [(NORMAL, 0.0), (NOISY, 4.0)], ids=["full data", "mini-batches"])
def test_sgld_has_the_error_that_its_documentation_says(density, noise):
    # θ' = (1 - h) θ + √(2h) ξ - h s ζ, whose stationary variance is (2h + h² s²)/(1 - (1 - h)²).
    h = 0.4
    variance = (1 + h * noise / 2) / (1 - h / 2)
    found = stationary(SGLDKernel(), density, h, 40).var()
    assert abs(found / variance - 1) < 4 * np.sqrt(2 / DRAWS)
    assert abs(variance - 1) > 0.2
    assert abs(stationary(SGLDKernel(), NORMAL, 0.02, 300, 20_000).var() - 1) < 0.05


def test_sghmc_has_the_stationary_variance_of_its_linear_recursion():
    eta, alpha, beta = 0.3, 0.5, 0.1
    step = np.array([[1 - eta, 1 - alpha], [-eta, 1 - alpha]])
    noise = 2 * (alpha - beta) * eta * np.ones((2, 2))
    variance = solve_discrete_lyapunov(step, noise)[0, 0]
    found = stationary(SGHMCKernel(friction=alpha, gradient_noise=beta), NORMAL, eta, 40).var()
    assert abs(found / variance - 1) < 4 * np.sqrt(2 / DRAWS)
    without = stationary(SGHMCKernel(friction=alpha), NORMAL, eta, 40).var()
    assert abs(without / found - alpha / (alpha - beta)) < 0.02
    assert abs(stationary(SGHMCKernel(friction=0.1), NORMAL, 1e-3, 1500, 20_000).var() - 1) < 0.05
