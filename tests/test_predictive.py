"""What draws foretell: counts, classes and values against closed forms, and weights that are not sampled.

Expectations are asked to lie within four Monte-Carlo standard errors (false failures below 7e-5 each, fewer than 40 of
them); all are seeded.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from posterior_cases import NOISE, SCALE, linear, linear_data, posterior_of, spiking, spiking_data
from scipy import stats

from neko_rules import MALA, NUTS, SGHMC, SGLD, Evaluator, Network, Posterior, Trainer
from neko_rules.errors import ArgumentError, CheckpointError, DataError, IncompatibleError
from neko_rules.losses import LOSSES, MeanSquaredError, Poisson
from neko_rules.probabilistic import Prior
from neko_rules.probabilistic.comparisons import Ensemble
from neko_rules.probabilistic.likelihood import moments, nearest_distribution, probabilities
from neko_rules.probabilistic.predictive import of_moments
from neko_rules.samplers import mcse_mean


def read_out(loss, outputs=1, inputs=1, task_type="regression", **options):
    """f = x W in one step."""
    readout = {"cell": {"name": "leaky_readout", "membrane_decay": 0.0}, "size": outputs, "bias": False}
    arguments = {"task_type": task_type, "dtype": "float64", "readout": "last", "inputs": inputs} | options
    connections = [{"source": "input", "target": "readout"}]
    return Evaluator(Network({"readout": readout}, connections, "readout", **arguments), loss=loss)


def each_output(samples, x):
    """The outputs of every draw, [chains, draws, examples, outputs]."""
    found = np.stack(list(samples.outputs(x)))
    return found.reshape(samples.chains, samples.draws, *found.shape[1:])


def close(found, expected, draws):
    """Whether a mean over draws [chains, draws, …] lies within four standard errors of what is expected."""
    assert np.all(np.abs(found - expected) < 4 * mcse_mean(draws))


# Counts.


@dataclass(frozen=True)
class LogGamma(Prior):
    """log of a Gamma variable: U = -a w + b e^w, but for a constant; the scale is not used."""

    a: float = 2.0
    b: float = 0.5

    def energy(self, weights, scale):
        return self.b * np.exp(weights) - self.a * weights

    def gradient(self, weights, scale):
        return self.b * np.exp(weights) - self.a

    def draw(self, rng, size, scale):
        return np.log(rng.gamma(self.a, 1 / self.b, size))


def counts(examples=7, seed=0):
    return np.ones((examples, 1, 1)), np.random.default_rng(seed).poisson(4.0, size=(examples, 1)).astype(float)


@pytest.mark.parametrize("backend_name", ["numpy", "torch"])
def test_counts_are_foretold_as_the_negative_binomial_of_gamma_and_poisson(backend_name):
    pytest.importorskip(backend_name)
    x, y = counts()
    prior = LogGamma()
    rule = NUTS(Posterior(read_out("poisson", backend=backend_name), prior=prior))
    samples = Trainer(rule).sample(x, y, draws=600, warmup=200, chains=2, seed=1)
    told = samples.predict(x[:1])
    shape, rate = prior.a + y.sum(), prior.b + len(y)
    truth = stats.nbinom(shape, rate / (rate + 1))
    rates = np.exp(each_output(samples, x[:1]))[:, :, 0, 0]
    close(told.mean[0, 0], truth.mean(), rates)
    close(told.variance[0, 0], truth.var(), (rates - truth.mean()) ** 2 + rates)
    np.testing.assert_allclose(told.mean[0, 0], rates.mean(), rtol=1e-12)
    np.testing.assert_allclose(told.epistemic[0, 0], rates.var(), rtol=1e-10)
    np.testing.assert_allclose(told.variance, told.epistemic + told.mean, rtol=1e-12)
    # The log rate, in whose place the rate was foretold, is far from it.
    assert abs(np.log(rates).mean() - truth.mean()) > 1
    np.testing.assert_allclose(samples._told(np.log([[[3.0]]])), [[[3.0]]])


def test_the_likelihood_of_counts_is_their_probability():
    x, y = counts()
    posterior = Posterior(read_out("poisson"), prior_scale=2.0)
    theta = np.array([1.2])
    expected = stats.poisson(np.exp(1.2)).logpmf(y[:, 0])
    np.testing.assert_allclose(posterior.log_likelihood(theta, x, y), expected, rtol=1e-12)
    energy = -expected.sum() - stats.norm(scale=2.0).logpdf(1.2)
    density = posterior.density(x, y)
    np.testing.assert_allclose(density.energy(theta[None]), [energy], rtol=1e-12)
    np.testing.assert_allclose(density.energy_and_gradient(theta[None])[0], [energy], rtol=1e-12)
    samples = Trainer(MALA(posterior)).sample(x, y, draws=5, warmup=5, chains=1)
    rates = np.exp(np.stack(list(samples.vectors()))[:, 0])
    each = stats.poisson(rates[:, None]).logpmf(y[:, 0])
    np.testing.assert_allclose(samples.statistics["log_likelihood"][0], each.sum(axis=1), rtol=1e-9)


def test_a_rate_that_overflows_is_infinite_and_nothing_else_is():
    outputs = [np.array([[800.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[900.0, 0.0]])]
    with np.errstate(all="raise"):
        told = of_moments(moments(Poisson(), each, None) for each in outputs)
    assert np.isposinf([told.mean[0, 0], told.epistemic[0, 0], told.variance[0, 0]]).all()
    assert (told.mean[0, 1], told.epistemic[0, 1], told.variance[0, 1]) == (1.0, 0.0, 1.0)


def test_energies_that_are_rounded_too_coarsely_are_told():
    y = np.random.default_rng(0).poisson(1e6, size=(3, 1)).astype(float)
    x, told = np.ones((3, 1, 1)), {}
    for dtype in ("float32", "float64"):
        rule = NUTS(Posterior(read_out("poisson", dtype=dtype), prior_scale=5.0), max_depth=4)
        samples = Trainer(rule).sample(x, y, draws=10, warmup=60, chains=1)
        told[dtype] = samples.summary()
    # At the same weights the energies of the two differ by as much as was foretold, within a factor of ten.
    near = np.float32(np.log(1e6)) * (1 + 1e-4 * np.linspace(-1, 1, 200, dtype=np.float32))[:, None]
    energies = [Posterior(read_out("poisson", dtype=dtype)).density(x, y).energy(near) for dtype in told]
    foretold = told["float32"].rounding
    assert foretold / 10 < np.std(energies[0] - energies[1]) < 10 * foretold
    assert f"energies are rounded to about {foretold:.2g} nats: give the network dtype='float64'" in str(
        told["float32"]
    )
    assert told["float64"].rounding < 1e-6
    assert "rounded" not in str(told["float64"])


# Values.


@pytest.mark.parametrize(("loss", "noise"), [("mse", stats.norm(scale=0.3)), ("mae", stats.laplace(scale=0.3))])
def test_the_variance_of_values_is_that_of_networks_and_of_noise(loss, noise):
    x, y = linear_data(6)
    rule = MALA(Posterior(read_out(loss, inputs=2), noise_scale=0.3))
    samples = Trainer(rule).sample(x, y, draws=20, warmup=20, chains=2)
    told, outputs = samples.predict(x), each_output(samples, x)
    np.testing.assert_allclose(told.epistemic, outputs.var(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_allclose(told.variance, told.epistemic + noise.var(), rtol=1e-12)
    # Members of an ensemble have noise if its scale is given.
    ensemble = Ensemble([samples.posterior.model])
    np.testing.assert_allclose(ensemble.predict(x, noise_scale=0.3).variance, noise.var(), rtol=1e-12)
    assert ensemble.predict(x).variance.max() == 0


# Classes.


def test_classes_by_squared_error_have_the_probabilities_of_the_known_posterior():
    # Two outputs with one Gaussian posterior each: of their difference, and of (1 + f_0 - f_1)/2 within 0 and 1.
    rng = np.random.default_rng(4)
    labels = (rng.random(20) < 0.3).astype(int)
    x = np.stack([np.ones(20), rng.normal(size=20) + labels], axis=1)[:, None]
    rule = MALA(Posterior(read_out("mse", 2, 2, "classification"), prior_scale=1.0, noise_scale=0.4))
    samples = Trainer(rule).sample(x, labels, draws=1500, warmup=300, chains=2, seed=2)
    design = x[:, 0]
    covariance = np.linalg.inv(design.T @ design / 0.4**2 + np.eye(2))
    means = covariance @ design.T @ np.eye(2)[labels] / 0.4**2
    mean = (1 + design @ (means[:, 0] - means[:, 1])) / 2
    spread = np.sqrt(2 * np.einsum("ij,jk,ik->i", design, covariance, design)) / 2

    def above(bound):
        """E max(u - bound, 0) of a normal u."""
        z = (mean - bound) / spread
        return spread * (z * stats.norm.cdf(z) + stats.norm.pdf(z))

    told, f = samples.predict(x), each_output(samples, x)
    close(told.probabilities[:, 0], above(0) - above(1), np.clip((1 + f[..., 0] - f[..., 1]) / 2, 0, 1))
    np.testing.assert_allclose(told.probabilities.sum(axis=1), 1, rtol=1e-12)
    softmaxed = np.exp(f) / np.exp(f).sum(axis=-1, keepdims=True)
    assert np.abs(softmaxed.mean(axis=(0, 1)) - told.probabilities).max() > 0.15
    assert (told.mutual_information >= 0).all()


def test_outputs_of_a_squared_error_become_the_nearest_probabilities():
    rng = np.random.default_rng(0)
    values = 1.5 * rng.normal(size=(50, 4))
    p = nearest_distribution(values)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    others = rng.dirichlet(np.ones(4), size=2000)
    distances = ((values[:, None] - others) ** 2).sum(axis=-1)
    assert (((values - p) ** 2).sum(axis=1)[:, None] <= distances).all()
    # What is a distribution stays, and what all outputs have in common does not count.
    np.testing.assert_allclose(nearest_distribution(others), others, atol=1e-15)
    np.testing.assert_allclose(nearest_distribution(values + 3.7), p, atol=1e-14)


@pytest.mark.parametrize("loss", ["mse", "poisson", "cce"])
def test_where_a_loss_is_least_its_probabilities_are_the_frequencies(loss):
    from scipy.optimize import minimize

    from neko_rules.backend import get_backend

    nx, frequencies, part = get_backend("numpy"), np.array([0.6, 0.3, 0.1]), LOSSES.resolve(loss)
    targets = np.eye(3)[None]

    def mean_loss(f):
        outputs = np.broadcast_to(f, (1, 3, 3))
        return float(part.value(nx, outputs, targets)[0] @ frequencies)

    best = minimize(mean_loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(probabilities(part, best), frequencies, atol=1e-5)


def test_a_classifier_whose_loss_says_nothing_of_probabilities_is_refused():
    with pytest.raises(IncompatibleError, match="received: the loss MeanAbsoluteError"):
        Posterior(read_out("mae", 2, task_type="classification"))
    ensemble = Ensemble([read_out("mae", 2, task_type="classification")])
    with pytest.raises(IncompatibleError, match=r"use a crossentropy or mean_squared_error, or task_type='regression'"):
        ensemble.predict(np.ones((2, 1, 1)))
    with pytest.raises(IncompatibleError, match="noise_scale belongs to"):
        Ensemble([read_out("poisson")]).predict(np.ones((2, 1, 1)), noise_scale=0.1)
    squared = Ensemble([read_out("mse", 2, task_type="classification")])
    np.testing.assert_array_equal(
        squared.predict(np.ones((2, 1, 1))).probabilities,
        nearest_distribution(squared.models[0].predict(np.ones((2, 1, 1)))),
    )


# What is not sampled.


def test_samples_keep_the_fixed_weights_that_they_were_drawn_with():
    x, y = linear_data()
    model = linear()
    model.network.set_parameters({"readout.bias": np.array([0.3])})
    samples = Trainer(MALA(posterior_of(model, fixed=["readout.bias"]))).sample(x, y, draws=400, warmup=200, chains=2)
    before, data = samples.predict(x), samples.to_arviz(pointwise=True).log_likelihood["y"].values
    model.network.set_parameters({"readout.bias": np.array([5.0])})
    model.loss = "mae"
    after = samples.predict(x)
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.variance, before.variance)
    np.testing.assert_array_equal(samples.to_arviz(pointwise=True).log_likelihood["y"].values, data)
    assert samples.parameters(1, 3)["readout.bias"] == [0.3]
    # The conjugate posterior of what is left, with the bias taken from the targets.
    design, left = x[:, 0], y[:, 0] - 0.3
    covariance = np.linalg.inv(design.T @ design / NOISE**2 + np.eye(2) / SCALE**2)
    expected = design @ covariance @ design.T @ left / NOISE**2 + 0.3
    close(after.mean[:, 0], expected, each_output(samples, x)[..., 0])


def test_a_density_keeps_the_fixed_weights_that_it_was_made_with():
    x, y = linear_data()
    model = linear()
    posterior = posterior_of(model, fixed=["readout.bias"])
    density, at = posterior.density(x, y), np.array([[0.4, -0.2]])
    energy, gradient = density.energy_and_gradient(at)
    model.network.set_parameters({"readout.bias": np.array([5.0])})
    posterior.fixed = []
    np.testing.assert_array_equal(density.energy(at), energy)
    np.testing.assert_array_equal(density.energy_and_gradient(at)[1], gradient)
    new = posterior_of(model, fixed=["readout.bias"]).density(x, y).energy(at)
    assert new > energy + 10


def test_arguments_of_a_posterior_may_be_assigned_again_and_are_looked_at():
    posterior = posterior_of(linear(), fixed=["readout.bias"])
    assert posterior.dimension == 2
    posterior.fixed = []
    assert posterior.dimension == 3
    posterior.fixed = ["readout.from_input.weight"]
    assert [name for name, _, _ in posterior.layout] == ["readout.bias"]
    posterior.layers = {"readout": {"name": "normal", "scale": 0.25}}
    assert set(posterior.prior_scales()) == {0.25}
    with pytest.raises(ArgumentError, match="did you mean 'readout'"):
        posterior.fixed = ["redout"]
    with pytest.raises(ArgumentError, match=r"write fixed=\['readout'\]"):
        posterior.fixed = "readout"
    with pytest.raises(ArgumentError, match="temperature must be"):
        posterior.temperature = 0
    with pytest.raises(ArgumentError, match="noise_scale must be"):
        posterior.noise_scale = -1
    with pytest.raises(ArgumentError, match="unknown prior"):
        posterior.prior = "gauss"
    assert posterior.dimension == 1


def test_a_loss_that_was_replaced_by_one_that_is_no_likelihood_is_refused():
    x, y = linear_data()
    model = linear()
    posterior = posterior_of(model)
    model.loss = HalvedError()
    for ask in (lambda: posterior.density(x, y), lambda: posterior.log_likelihood(np.zeros(3), x, y)):
        with pytest.raises(IncompatibleError, match="negative logarithm of a density"):
            ask()


class HalvedError(MeanSquaredError):
    """A user's own loss."""

    def value(self, nx, outputs, target):
        return 0.5 * super().value(nx, outputs, target)


# Which draws.


def test_most_is_how_many_draws_there_are_at_most():
    x, y = linear_data(4)
    samples = Trainer(MALA(posterior_of(linear()))).sample(x, y, draws=7, warmup=5, chains=3)
    drawn = np.stack([np.asarray(record.draws) for record in samples.records])
    for most in (1, 2, 3, 5, 20, 21, 1000):
        vectors = np.stack(list(samples.vectors(most)))
        assert len(vectors) == samples.predict(x, most=most).networks == min(most, 21)
    np.testing.assert_array_equal(np.stack(list(samples.vectors(1))), drawn[:1, 3])
    np.testing.assert_array_equal(np.stack(list(samples.vectors(3))), drawn[:, 3])
    np.testing.assert_array_equal(np.stack(list(samples.vectors(21))), np.stack(list(samples.vectors())))
    for most in (0, -1, 2.5, "3", True):
        with pytest.raises(ArgumentError, match="most must be a whole number of at least 1"):
            samples.predict(x, most=most)
        with pytest.raises(ArgumentError, match="batch_size must be a whole number of at least 1"):
            samples.outputs(x, batch_size=most)


def test_a_draw_that_there_is_not_is_refused():
    samples = Trainer(MALA(posterior_of(linear()))).sample(*linear_data(4), draws=7, warmup=5, chains=3)
    last = samples.parameters(-1, -1)
    for name, value in samples.parameters(2, 6).items():
        np.testing.assert_array_equal(value, last[name])
    with pytest.raises(ArgumentError, match="chain must be a whole number of at least -3 and at most 2"):
        samples.parameters(3, 0)
    with pytest.raises(ArgumentError, match="draw must be a whole number of at least -7 and at most 6"):
        samples.parameters(0, 7)


def test_weights_of_another_shape_are_refused():
    x, y = linear_data(4)
    posterior = posterior_of(linear())
    for wrong in (np.zeros(2), np.zeros(4), np.zeros((1, 3)), 0.0):
        with pytest.raises(ArgumentError, match=r"must have shape \(3,\)"):
            posterior.log_likelihood(wrong, x, y)
    with pytest.raises(ArgumentError, match=r"readout.bias must be there with shape \(1,\)"):
        posterior.vector({"readout.from_input.weight": np.zeros((2, 1))})
    with pytest.raises(ArgumentError, match=r"with shape \(2, 1\) \(received: \(2,\)\)"):
        posterior.vector({"readout.from_input.weight": np.zeros(2), "readout.bias": np.zeros(1)})


# Mini-batches.


@pytest.mark.parametrize("make", [SGLD, SGHMC])
def test_a_mini_batch_of_more_examples_than_there_are_is_refused_with_their_number(make):
    x, y = spiking_data(12)
    sentence = (
        r"at most the number of examples, 12 \(received: 128\); give a batch_size from 1 to 12; SGLD and SGHMC take"
    )
    with pytest.raises(DataError, match=sentence):
        Trainer(make(Posterior(spiking()), step_size=1e-3)).sample(x, y, draws=2, warmup=0, chains=1)
    samples = Trainer(make(Posterior(spiking()), step_size=1e-3, batch_size=12)).sample(x, y, 2, 0, 1)
    assert samples.draws == 2
    for size in (0, 2.5):
        with pytest.raises(ArgumentError, match="batch_size must be a whole number of at least 1"):
            Posterior(spiking()).density(x, y, batch_size=size)


# Arguments of other types.


def test_what_is_no_mapping_list_or_folder_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ArgumentError, match="layers must be a mapping from names"):
        Posterior(linear(), layers=["readout"])
    for name in ("scales", "neurons"):
        with pytest.raises(ArgumentError, match=f"{name} must be a mapping from names"):
            MALA(Posterior(linear()), **{name: ["readout"]})
    for wrong in (None, 3):
        with pytest.raises(ArgumentError, match="fixed must be a list"):
            Posterior(linear(), fixed=wrong)
    rule, (x, y) = MALA(posterior_of(linear())), linear_data(4)
    with pytest.raises(ArgumentError, match="resume goes on with the run in a folder"):
        Trainer(rule).sample(x, y, 1, 0, 1, resume=True)
    with pytest.raises(ArgumentError, match="folder must be a path"):
        Trainer(rule).sample(x, y, 1, 0, 1, folder=3)
    (tmp_path / "notes").write_text("here")
    for place in ("notes", "notes/run"):
        with pytest.raises(CheckpointError, match="must not lie at or within a file"):
            Trainer(rule).sample(x, y, 1, 0, 1, folder=tmp_path / place)
