"""The posterior and whole pipelines: known posteriors (P1, P2, P7), joint distribution tests (P3, P4), densities.

Expectations are asked to lie within four Monte-Carlo standard errors (false failures below 7e-5 each), p-values above
1e-6; all are seeded. Each such test has a control that must fail.
"""

import tracemalloc

import numpy as np
import pytest
from posterior_cases import (
    FOLLOWED,
    FORCES,
    NOISE,
    SCALE,
    chain_mean_p_value,
    conjugate,
    driven,
    filtered_spikes,
    forces,
    grid_posterior,
    linear,
    linear_case,
    linear_data,
    posterior_of,
    recurrent_posterior,
    spiking,
    spiking_case,
    spiking_data,
)
from scipy import stats

from neko_rules import BPTT, HMC, LIF, MALA, NUTS, RNN, EProp, Evaluator, Posterior, RandomWalk, Trainer
from neko_rules.chains import running
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.probabilistic import posterior as posterior_module
from neko_rules.probabilistic.examples import Examples
from neko_rules.probabilistic.priors import PRIORS, scaled_exponential_integral
from neko_rules.samplers import Adaptation, HMCKernel, MALAKernel, Tuning, blockwise, draw, mala, mcse_mean


def vectors(samples):
    return np.stack(list(samples.vectors())).reshape(samples.chains, samples.draws, -1)


def within_four_errors(draws, expected):
    assert np.all(np.abs(draws.mean(axis=(0, 1)) - expected) < 4 * mcse_mean(draws))


def check_gaussian(draws, mean, covariance):
    """Means, and all products of deviations from the known mean."""
    within_four_errors(draws, mean)
    deviation = draws - mean
    places = np.triu_indices(len(mean))
    within_four_errors(deviation[:, :, places[0]] * deviation[:, :, places[1]], covariance[places])


# P1 and P2: the conjugate model.


@pytest.mark.parametrize(
    ("make", "draws"),
    [(MALA, 1500), (HMC, 400), (NUTS, 400), (RandomWalk, 3000)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_p1_linear_regression_has_its_known_posterior(make, draws):
    x, y = linear_data()
    options, warmup = {"steps": 4} if make is HMC else {}, 600 if make is RandomWalk else 200
    samples = Trainer(make(posterior_of(linear()), **options)).sample(x, y, draws, warmup, chains=2, seed=1)
    check_gaussian(vectors(samples), *conjugate(x, y))
    assert 0.1 < samples.statistics["acceptance_rate"].mean() < 0.97


def test_p2_twice_the_data_is_twice_the_precision():
    x, y = linear_data()
    twice = np.concatenate([x, x]), np.concatenate([y, y])
    drawn = []
    for data in ((x, y), twice):
        samples = Trainer(MALA(posterior_of(linear()))).sample(*data, draws=1500, warmup=200, chains=2)
        check_gaussian(vectors(samples), *conjugate(*data))
        drawn.append(vectors(samples).var(axis=(0, 1)))
    shrinkage = drawn[1] / drawn[0]
    assert (shrinkage < 0.65).all()


def test_p2_a_mean_instead_of_a_sum_is_noticed(monkeypatch):
    x, y = linear_data()
    rightly = posterior_module.scaled
    monkeypatch.setattr(posterior_module, "scaled", lambda *args: tuple(part / len(x) for part in rightly(*args)))
    samples = Trainer(MALA(posterior_of(linear()))).sample(x, y, draws=500, warmup=200, chains=2)
    with pytest.raises(AssertionError):
        check_gaussian(vectors(samples), *conjugate(x, y))


# Exact in spite of a wrong gradient. Each of the 16 tests of chains' means fails by chance below 1e-5, all below 2e-4.

TARGETS = {"random e-prop": 0.4, "sign flipped": 0.3}  # the less a force knows, the nearer to 0.234, a random walk's
LONGER = {"random e-prop": 2, "sign flipped": 5}


def p_value_of_force(case, force, kernel, draws, chains=8, warmup=300):
    """That of Student's t-test of the means of chains, begun at draws of the prior, against the known posterior."""
    posterior, x, y, followed, truth = case()
    density, rng = driven(posterior, x, y, force), np.random.default_rng(0)
    begin = np.stack([posterior.draw_prior(rng) for _ in range(chains)])
    adaptation = Adaptation(warmup, TARGETS.get(force), mass="identity")
    drawn = draw(kernel, density, begin, LONGER.get(force, 1) * draws, adaptation, seed=2)
    assert 0.2 < drawn.info.acceptance_rate.mean() < 0.8
    return chain_mean_p_value(followed(drawn.positions), truth)


@pytest.mark.parametrize("force", FORCES)
def test_every_force_gives_the_same_gaussian(force):
    assert p_value_of_force(linear_case, force, MALAKernel(), draws=400) > 1e-5


@pytest.mark.parametrize("force", [*FORCES[:3], pytest.param(FORCES[3], marks=pytest.mark.long)])
def test_every_force_gives_the_same_posterior_of_a_spiking_network(force):
    assert p_value_of_force(spiking_case, force, MALAKernel(), draws=300) > 1e-5


@pytest.mark.long
@pytest.mark.parametrize("force", FORCES)
@pytest.mark.parametrize("case", [linear_case, spiking_case])
def test_every_force_gives_the_same_posterior_by_hamiltonian_dynamics(case, force):
    assert p_value_of_force(case, force, HMCKernel(3, jitter=0.2), draws=300) > 1e-5


def test_without_an_accept_step_a_wrong_force_gives_another_posterior(monkeypatch):
    def always(log_ratio, energy, error=None):
        return np.ones(len(energy)), log_ratio, np.zeros(len(energy), bool)

    posterior, x, y, followed, truth = spiking_case()
    density, rng = driven(posterior, x, y, "random e-prop"), np.random.default_rng(0)
    monkeypatch.setattr(mala, "acceptance", always)
    begin = np.stack([posterior.draw_prior(rng) for _ in range(16)])
    drawn = draw(MALAKernel(), density, begin, 500, Adaptation(0, step_size=0.3), seed=2)
    assert chain_mean_p_value(followed(drawn.positions[:, 100:]), truth) < 1e-5


def test_the_forces_are_not_the_same_force():
    for case, same in ((linear_case, True), (spiking_case, False)):
        posterior, x, y, _, _ = case()
        q = posterior.draw_prior(np.random.default_rng(1))[None]
        found = {name: driven(posterior, x, y, name).energy_and_gradient(q) for name in FORCES}
        energy, right = found["BPTT"]
        for other_energy, _ in found.values():
            np.testing.assert_allclose(other_energy, energy, rtol=1e-13)
        # Linear and one step: nothing to cut off. Where a neuron feeds itself, e-prop leaves a path out.
        assert np.allclose(found["symmetric e-prop"][1], right, rtol=1e-10) == same
        assert np.abs(found["random e-prop"][1] - right).max() > 0.5


# P7: a spiking network of three weights against brute force.

FUNCTIONS = {
    "w": lambda w, c0, c1: w + 0 * c0,
    "w²": lambda w, c0, c1: w**2 + 0 * c0,
    "c₁ - c₀": lambda w, c0, c1: c1 - c0 + 0 * w,
    "(c₁ - c₀)²": lambda w, c0, c1: (c1 - c0) ** 2 + 0 * w,
    "w (c₁ - c₀)": lambda w, c0, c1: w * (c1 - c0),
    "w > 1.5": lambda w, c0, c1: (w > 1.5) + 0.0 * c0,
}


@pytest.mark.parametrize("force", ["BPTT", "random e-prop"])
def test_p7_a_spiking_network_has_the_posterior_of_a_grid(force):
    model, (x, y) = spiking(), spiking_data()
    expectation = grid_posterior(x, y, scale=1.5)
    # The posterior has a narrow mode beside a broad one: a step size adapted in either is no good for the other.
    rule = MALA(Posterior(model, prior_scale=1.5), gradient=forces(model)[force], step_size=0.35)
    samples = Trainer(rule).sample(x, y, draws=3000, warmup=0, chains=2, seed=5)
    drawn = vectors(samples)
    for name, function in FUNCTIONS.items():
        values = function(*np.moveaxis(drawn, 2, 0))
        error = float(mcse_mean(values))
        assert abs(values.mean() - expectation(function)) < 4 * error, name
        assert error < 0.2 * values.std(), name
    assert 0.3 < samples.statistics["acceptance_rate"].mean() < 0.9


def test_p7_neurons_that_move_alone_reach_the_posterior_of_a_grid(monkeypatch):
    model, (x, y) = spiking(), spiking_data()
    expectation = grid_posterior(x, y, scale=1.5)

    def largest_error():
        # The steps of MALA are so short that it is the neurons' own moves which go anywhere.
        rule = MALA(Posterior(model, prior_scale=1.5), step_size=0.01, neurons={"hidden": 1, "readout": 2})
        samples = Trainer(rule).sample(x, y, draws=2000, warmup=0, chains=2, seed=6)
        assert 0.1 < samples.statistics["block_acceptance_rate"].mean() < 0.9
        values = {name: function(*np.moveaxis(vectors(samples), 2, 0)) for name, function in FUNCTIONS.items()}
        errors = {name: float(mcse_mean(each)) for name, each in values.items()}
        assert all(errors[name] < 0.2 * each.std() for name, each in values.items())
        return max(abs(each.mean() - expectation(FUNCTIONS[name])) / errors[name] for name, each in values.items())

    assert largest_error() < 4
    monkeypatch.setattr(blockwise, "log_reference", lambda whitened: np.zeros(len(whitened)))
    assert largest_error() > 4


def test_p7_the_grid_knows_the_network_and_the_prior_from_the_posterior():
    model, (x, y) = spiking(), spiking_data()
    values = {"hidden.input.weight": np.array([[1.9]]), "readout.input.weight": np.array([[-0.4, 0.7]])}
    model.network.set_parameters(values)
    by_hand = filtered_spikes(np.array([1.9]), x)[0]
    assert by_hand.max() > 0.5
    np.testing.assert_allclose(model.predict(x), by_hand[:, None] * [-0.4, 0.7], rtol=1e-12)
    model = spiking(recurrent=True)
    own = {"hidden.recurrent.weight": np.array([[0.6]])}
    model.network.set_parameters(values | own)
    by_hand = filtered_spikes(np.array([1.9]), x, 0.6)[0]
    np.testing.assert_allclose(model.predict(x), by_hand[:, None] * [-0.4, 0.7], rtol=1e-12)
    posterior, prior = grid_posterior(x, y, 1.5), grid_posterior(x[:0], y[:0], 1.5)
    assert abs(prior(FUNCTIONS["w"])) < 1e-9
    assert posterior(FUNCTIONS["c₁ - c₀"]) > 0.3
    assert posterior(FUNCTIONS["w"]) < -0.4
    assert posterior(FUNCTIONS["w > 1.5"]) < 0.05 < 0.15 < prior(FUNCTIONS["w > 1.5"])
    # With the neuron's weight to itself summed over as well, more points of equal weight change nothing any more.
    coarse, fine = (recurrent_posterior(x, y, 1.5, log_points) for log_points in (14, 16))
    for function in FOLLOWED:
        assert abs(coarse(function) - fine(function)) < 5e-3


# P3 and P4: weights from the prior, data from the weights.


def simulated(posterior, vector, x, rng):
    """Labels drawn from a network."""
    twin = posterior.model.clone()
    twin.network.set_parameters(posterior.parameters(vector))
    logits = twin.predict(x)
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return (rng.random((len(x), 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)


def geweke(replicates, factor=1.0, seed=0):
    """Weights from the prior, labels from them, some transitions on those: (before, after, gain in log-likelihood)."""
    model = spiking()
    posterior = Posterior(model, prior_scale=1.5, temperature=1 / factor)
    rng, x = np.random.default_rng(seed), spiking_data(8)[0]
    kernel, rule = HMCKernel(steps=2), EProp(model, mode="random")
    before, after, gained = [], [], []
    for _ in range(replicates):
        theta = posterior.draw_prior(rng)
        y = simulated(posterior, theta, x, rng)
        density = posterior.density(x, y, rule)
        state = kernel.init(density, theta[None])
        for _ in range(3):
            state, _ = kernel.step(rng, density, state, Tuning(1.0, np.ones(3)))
        before.append(theta)
        after.append(state.position[0])
        gained.append(posterior.log_likelihood(after[-1], x, y).sum() - posterior.log_likelihood(theta, x, y).sum())
    return np.array(before), np.array(after), np.array(gained)


def geweke_p_value(after, gained):
    p_values = [stats.kstest(column / 1.5, "norm").pvalue for column in after.T]
    z = np.sqrt(len(gained)) * gained.mean() / gained.std()
    return min([*p_values, 2 * stats.norm.sf(abs(z))])


def test_p3_weights_and_labels_stay_jointly_distributed():
    before, after, gained = geweke(400)
    assert np.abs(after - before).mean() > 0.5
    assert geweke_p_value(after, gained) > 1e-6


def test_p3_a_likelihood_that_is_a_mean_over_the_examples_is_noticed():
    _, after, gained = geweke(400, factor=1 / 8, seed=1)
    assert geweke_p_value(after, gained) < 1e-6


def ranks(replicates, temperature=1.0, draws=7, between=3, seed=0):
    """Rank of the weights that made the data among draws (Gandy & Scott 2021): the chain runs both ways from them."""
    model, (x, _) = linear(), linear_data(8)
    posterior = posterior_of(model, temperature=temperature)
    rng, kernel = np.random.default_rng(seed), MALAKernel()
    found = []
    for _ in range(replicates):
        theta = posterior.draw_prior(rng)
        y = (x[:, 0] @ theta[:2] + theta[2] + NOISE * rng.normal(size=len(x)))[:, None]
        density = posterior.density(x, y)
        start = kernel.init(density, theta[None])
        backward = rng.integers(draws + 1)
        others = []
        for length in (backward, draws - backward):
            state = start
            for _ in range(length):
                for _ in range(between):
                    state, _ = kernel.step(rng, density, state, Tuning(0.03, np.ones(3)))
                others.append([*state.position[0], state.energy[0]])
        found.append(np.sum(np.array(others) < [*theta, start.energy[0]], axis=0))
    return np.array(found)


def sbc_p_value(found, draws=7):
    counts = [np.bincount(column, minlength=draws + 1) for column in found.T]
    return min(stats.chisquare(count).pvalue for count in counts)


def test_p4_ranks_are_uniform():
    assert sbc_p_value(ranks(300)) > 1e-6


def test_p4_a_likelihood_of_the_wrong_scale_makes_them_uneven():
    assert sbc_p_value(ranks(300, temperature=0.25)) < 1e-6
    assert sbc_p_value(ranks(300, temperature=4.0)) < 1e-6


# Densities.


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_prior_is_normalised_and_its_gradient_is_its_derivative(name):
    prior = PRIORS.resolve(name)
    # Substituting w = sinh(u) spreads what is at 0 and in the tails.
    u = np.linspace(-25, 25, 400_001) + 1e-9
    w = np.sinh(u) ** 3
    mass = np.trapezoid(np.exp(-prior.energy(w, 0.7)) * np.abs(3 * np.sinh(u) ** 2 * np.cosh(u)), u)
    assert abs(mass - 1) < 2e-3
    w = np.array([-8.0, -1.0, -0.1, 0.02, 0.5, 3.0, 40.0])
    h = 1e-6 * np.abs(w)
    slope = (prior.energy(w + h, 0.7) - prior.energy(w - h, 0.7)) / (2 * h)
    np.testing.assert_allclose(prior.gradient(w, 0.7), slope, rtol=1e-6)
    np.testing.assert_allclose(prior.energy(-w, 0.7), prior.energy(w, 0.7), rtol=1e-13)
    np.testing.assert_allclose(prior.energy(2 * w, 1.4) - prior.energy(w, 0.7), np.log(2), rtol=1e-9)


@pytest.mark.parametrize("name", list(PRIORS))
def test_draws_of_a_prior_have_its_density(name):
    prior = PRIORS.resolve(name)
    drawn = prior.draw(np.random.default_rng(0), 20_000, 0.7)
    u = np.linspace(-12, 12, 20_001) + 1e-9
    w = np.sinh(u) ** 3
    density = np.exp(-prior.energy(w, 0.7)) * np.abs(3 * np.sinh(u) ** 2 * np.cosh(u))
    cumulative = np.cumsum(density) * (u[1] - u[0])
    p_value = stats.kstest(drawn, lambda value: np.interp(value, w, cumulative)).pvalue
    assert p_value > 1e-6
    assert stats.kstest(1.2 * drawn, lambda value: np.interp(value, w, cumulative)).pvalue < 1e-6


def test_the_horseshoe_is_that_of_the_integral():
    from scipy.integrate import quad

    for w in (0.05, 0.6, 4.0, 30.0):

        def joint(t, w=w):  # λ = tan t is half Cauchy if t is uniform
            scale = 0.7 * np.tan(t)
            return stats.norm.pdf(w, scale=scale) * 2 / np.pi

        density = quad(joint, 1e-6, np.pi / 2 - 1e-9, limit=400, points=[np.arctan(w / 0.7)])[0]
        assert abs(-np.log(density) - PRIORS.resolve("horseshoe").energy(np.array([w]), 0.7)[0]) < 1e-5
    np.testing.assert_allclose(np.diff(scaled_exponential_integral(np.array([49.999999999, 50.0]))), 0, atol=1e-12)


def test_the_energy_is_the_sum_over_examples_and_the_prior():
    model = Evaluator(RNN(3, 2, inputs=2, readout="mean", dtype="float64"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4, 2)), rng.integers(2, size=7)
    posterior = Posterior(model, prior_scale=0.4, chunk_size=3)
    theta = 0.5 * rng.normal(size=posterior.dimension)
    model.network.set_parameters(posterior.parameters(theta))
    logits = model.predict(x)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    expected = -log_p[np.arange(7), y]
    np.testing.assert_allclose(-posterior.log_likelihood(theta, x, y), expected, rtol=1e-12)
    energy = posterior.density(x, y).energy(theta[None])[0]
    prior = -stats.norm(scale=0.4).logpdf(theta).sum()
    np.testing.assert_allclose(energy, expected.sum() + prior, rtol=1e-12)
    np.testing.assert_allclose(posterior.density(x, y).energy_and_gradient(theta[None])[0][0], energy, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "noise", "log_density"),
    [
        ("mean_squared_error", stats.norm(scale=0.3), "logpdf"),
        ("mean_absolute_error", stats.laplace(scale=0.3), "logpdf"),
    ],
)
def test_regression_has_the_density_of_its_noise(loss, noise, log_density):
    model = Evaluator(RNN(3, 2, inputs=2, task_type="regression", dtype="float64"), loss=loss)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 4, 2))
    posterior = Posterior(model, noise_scale=0.3)
    theta = posterior.draw_prior(rng)
    model.network.set_parameters(posterior.parameters(theta))
    expected = getattr(noise, log_density)(y - model.predict(x)).sum(axis=(1, 2))
    np.testing.assert_allclose(posterior.log_likelihood(theta, x, y), expected, rtol=1e-12)
    prior = posterior.prior_density().energy(theta[None])[0]
    np.testing.assert_allclose(posterior.density(x, y).energy(theta[None])[0], prior - expected.sum(), rtol=1e-12)


def test_poisson_is_the_density_of_counts():
    model = Evaluator(RNN(3, 1, inputs=2, task_type="regression", dtype="float64"), loss="poisson")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 2)), rng.integers(4, size=(5, 4, 1)).astype(float)
    posterior = Posterior(model)
    theta = posterior.draw_prior(rng)
    model.network.set_parameters(posterior.parameters(theta))
    expected = stats.poisson(np.exp(model.predict(x))).logpmf(y)
    np.testing.assert_allclose(posterior.log_likelihood(theta, x, y), expected.sum(axis=(1, 2)), rtol=1e-11)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_the_gradient_is_the_derivative_and_chunks_change_nothing(chunk_size):
    model = Evaluator(RNN(3, 2, inputs=2, readout="mean", dtype="float64"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4, 2)), rng.integers(2, size=7)
    posterior = Posterior(model, prior="student_t", layers={"readout": "laplace"}, chunk_size=chunk_size)
    density = posterior.density(x, y)
    theta, h = rng.normal(size=posterior.dimension), 1e-6
    moved = theta + h * np.concatenate([np.eye(len(theta)), -np.eye(len(theta))])
    energies = density.energy(moved).reshape(2, -1)
    gradient = density.energy_and_gradient(theta[None])[1][0]
    np.testing.assert_allclose(gradient, (energies[0] - energies[1]) / (2 * h), rtol=1e-5, atol=1e-7)
    whole = Posterior(model, prior="student_t", layers={"readout": "laplace"}).density(x, y)
    np.testing.assert_allclose(gradient, whole.energy_and_gradient(theta[None])[1][0], rtol=1e-11)


def test_memory_does_not_grow_with_the_data_set():
    model = Evaluator(LIF(16, 3, inputs=16, readout="mean"))
    posterior, rng, peaks = Posterior(model, chunk_size=64), np.random.default_rng(0), []
    theta = posterior.draw_prior(rng)[None]
    for examples in (64, 128, 8192):  # the first compiles
        x, y = rng.normal(size=(examples, 8, 16)).astype(np.float32), rng.integers(3, size=examples)
        density, data = posterior.density(x, y), posterior.examples(x, y)
        tracemalloc.start()
        data.fingerprint()
        density.energy_and_gradient(theta)
        density.energy(theta)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What lies about until Python collects it grows with the number of chunks, by a kilobyte for each.
    assert peaks[2] - peaks[1] < 0.1 * x.nbytes
    assert peaks[2] < 0.2 * x.nbytes


def test_the_mini_batch_gradient_is_unbiased():
    model = Evaluator(RNN(2, 2, inputs=2, readout="mean", dtype="float64"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3, 2)), rng.integers(2, size=6)
    posterior = Posterior(model, temperature=0.5)
    theta = rng.normal(size=(1, posterior.dimension))
    density = posterior.density(x, y, batch_size=2)
    estimates = np.array([density.estimated_gradient(rng, theta)[0] for _ in range(600)])
    exact = density.energy_and_gradient(theta)[1][0]
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert np.all(np.abs(estimates.mean(axis=0) - exact) < 4.5 * error + 1e-12)
    assert (estimates.std(axis=0) > 0).all()


def test_weights_to_vector_and_back_leave_out_what_is_no_parameter():
    model = Evaluator(LIF(4, 2, inputs=3, readout="mean"))
    posterior = Posterior(model, fixed=["readout.bias"])
    sizes = {name: int(mask.sum()) for name, mask, _ in posterior.layout}
    assert sizes["hidden.recurrent.weight"] == 12
    assert "readout.bias" not in sizes
    theta = np.random.default_rng(0).normal(size=posterior.dimension)
    parameters = posterior.parameters(theta)
    assert parameters["hidden.recurrent.weight"].dtype == np.float32
    np.testing.assert_array_equal(np.diag(parameters["hidden.recurrent.weight"]), 0)
    np.testing.assert_allclose(posterior.vector(parameters), theta, rtol=1e-6)
    np.testing.assert_array_equal(parameters["readout.bias"], model.network.parameters["readout.bias"])


def test_scales_are_by_layer_and_by_fan_in_unless_given():
    model = Evaluator(LIF(4, 2, inputs=9, readout="mean"))
    layers = {"readout": {"name": "normal", "scale": 0.2}, "hidden.bias": "laplace"}
    posterior = Posterior(model, layers=layers)
    scales = {name: set(posterior.prior_scales()[place]) for name, _, place in posterior.layout}
    assert scales["hidden.input.weight"] == {1 / 3}
    assert scales["hidden.recurrent.weight"] == {0.5}
    assert scales["hidden.bias"] == {1.0}
    assert scales["readout.input.weight"] == scales["readout.bias"] == {0.2}
    given = Posterior(model, prior_scale=0.7, layers=layers).prior_scales()
    assert set(given) == {0.7, 0.2}


# Refusals.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prior": "gauss"}, "unknown prior"),
        ({"prior_scale": 0}, "prior_scale must be a finite number above 0"),
        ({"layers": {"hiden": "normal"}}, "did you mean 'hidden'"),
        ({"fixed": ["nothing"]}, "fixed must name layers or parameters"),
        ({"fixed": "hidden"}, "must be a list"),
        ({"noise_scale": 1.0}, "noise_scale belongs to"),
        ({"temperature": -1}, "temperature must be"),
        ({"prior": {"name": "student_t", "degrees": 0}}, "degrees must be"),
    ],
)
def test_a_posterior_refuses_what_has_no_meaning(options, sentence):
    with pytest.raises((ArgumentError, IncompatibleError), match=sentence):
        Posterior(Evaluator(LIF(4, 2, readout="mean")), **options)


def test_a_label_for_many_outputs_is_refused():
    model = Evaluator(LIF(4, 2))
    with pytest.raises(IncompatibleError, match="one observation"):
        Posterior(model).density(np.ones((2, 5, 3)), [0, 1])
    per_step = Posterior(model).density(np.ones((2, 5, 3)), np.array([[0, 1, 0, -1, 1], [-1, 1, 1, 0, 0]]))
    assert np.isfinite(per_step.energy(np.zeros((1, Posterior(model).dimension)))).all()


def test_a_loss_that_is_no_likelihood_is_refused():
    network = LIF(4, 2, output_cell="lif")
    with pytest.raises(IncompatibleError, match="negative logarithm of a density"):
        Posterior(Evaluator(network, loss="spike_count_crossentropy"))


def test_everything_fixed_leaves_nothing_to_sample():
    with pytest.raises(ArgumentError, match="something must be left"):
        assert Posterior(linear(), fixed=["readout"]).dimension


class Dithered(BPTT):
    """A rule that is random and does not say so."""

    def _judged_gradients(self, *batch):
        judgement, found = super()._judged_gradients(*batch)
        rng = np.random.default_rng()
        return judgement, {name: value + rng.normal(size=value.shape) for name, value in found.items()}


def test_a_rule_that_is_random_or_changes_is_refused():
    model = spiking()
    posterior = Posterior(model)
    with pytest.raises(IncompatibleError, match="adaptive feedback is learned"):
        MALA(posterior, gradient=EProp(model, mode="adaptive"))
    with pytest.raises(IncompatibleError, match="no step could be undone"):
        MALA(posterior, gradient="uoro")
    with pytest.raises(IncompatibleError, match="mirror feedback is learned"):
        MALA(posterior, gradient="weight_mirror")
    last = spiking(readout="last")
    with pytest.raises(IncompatibleError, match="online rule changes"):
        MALA(Posterior(last), gradient=EProp(last, online=True))
    x, y = spiking_data()
    with pytest.raises(IncompatibleError, match="two different gradients"):
        Trainer(MALA(posterior, gradient=Dithered(model))).sample(x, y, draws=1, warmup=0, chains=1)
    with pytest.raises(IncompatibleError, match="rule of the posterior's model"):
        MALA(posterior, gradient=BPTT(spiking()))
    with pytest.raises(IncompatibleError, match="must be a learning rule"):
        MALA(posterior, gradient=3)


def test_a_diverged_position_is_not_run_through_the_network():
    density = posterior_of(linear()).density(*linear_data())
    energy, gradient = density.energy_and_gradient(np.array([[np.inf, 0, 0], [0.0, 0, 0]]))
    assert np.isnan(energy[0])
    assert np.isfinite(energy[1])
    assert np.isnan(gradient[0]).all()


def test_scale_of_the_case():
    assert conjugate(*linear_data())[1].diagonal().max() < SCALE**2


def test_data_that_change_after_they_were_looked_at_do_not_change_a_sampler() -> None:
    x, y = np.random.default_rng(0).random((6, 5, 3)), [0, 1, 0, 1, 1, 0]
    examples = Examples(Evaluator(LIF(4, 2, readout="mean", dtype="float64")), x, y)
    (first,) = examples.chunks()
    seen = np.array(first[0])
    x[:] = 0
    (again,) = examples.chunks()
    np.testing.assert_array_equal(again[0], seen)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_samplers_go_through_the_smallest_batch_by_a_chain(backend, monkeypatch):
    """They ask thousands of times; whoever asks a rule once does not wait until a chain is compiled."""
    pytest.importorskip(backend)
    pytest.importorskip("numba")
    went = []
    ran = running.run
    monkeypatch.setattr(running, "run", lambda *given: went.append(None) or ran(*given))
    model = Evaluator(LIF(4, 2, inputs=3, readout="mean", dtype="float64", backend=backend))
    random = np.random.default_rng(0)
    x, y = 5.0 * (random.random((6, 5, 3)) < 0.5), random.integers(2, size=6)
    posterior = Posterior(model)
    theta = posterior.draw_prior(random)
    model.network.set_parameters(posterior.parameters(theta))
    BPTT(model).gradients(x, y)
    assert not went
    energy, gradient = posterior.density(x, y).energy_and_gradient(theta[None])
    assert went
    del went[:]
    with unfused():
        plain, derivative = posterior.density(x, y).energy_and_gradient(theta[None])
    assert not went
    np.testing.assert_allclose(energy, plain, rtol=1e-12)
    np.testing.assert_allclose(gradient, derivative, rtol=0, atol=1e-11 * np.abs(derivative).max())
