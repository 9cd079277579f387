"""Small models whose posterior is known: linear ones in closed form, spiking ones of three and four weights summed."""

import numpy as np
from scipy import stats

from neko_rules import BPTT, EProp, Evaluator, Layer, Network, Posterior, Stack
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.layers.integrate_and_fire import LIFCell

NOISE, SCALE = 0.5, 0.8


def linear(inputs=2, bias=True):
    """y = x W + b in one step, a network without hidden neurons."""
    readout = {"cell": {"name": "leaky_readout", "membrane_decay": 0.0}, "size": 1, "bias": bias}
    connections = [{"source": "input", "target": "readout"}]
    options = {"task_type": "regression", "dtype": "float64", "readout": "last", "inputs": inputs}
    return Evaluator(Network({"readout": readout}, connections, "readout", **options))


def linear_data(examples=15, inputs=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, 1, inputs))
    y = x[:, 0] @ np.linspace(1, -1, inputs) + 0.3 + NOISE * rng.normal(size=examples)
    return x, y[:, None]


def conjugate(x, y, noise=NOISE, scale=SCALE, bias=True):
    """Mean and covariance of the Gaussian posterior of the weights, the bias last."""
    design = np.column_stack([x[:, 0], np.ones(len(x))]) if bias else x[:, 0]
    precision = design.T @ design / noise**2 + np.eye(design.shape[1]) / scale**2
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y[:, 0] / noise**2, covariance


def two_layers(inputs=2):
    """y = (x W) C with C held fixed: linear in W, but only the transposed C tells W what to do."""
    cell = {"name": "leaky_readout", "membrane_decay": 0.0}
    network = Network(
        {
            "hidden": {"cell": cell, "size": 2, "bias": False},
            "readout": {"cell": cell, "size": 2, "bias": False},
        },
        [{"source": "input", "target": "hidden"}, {"source": "hidden", "target": "readout"}],
        "readout",
        task_type="regression",
        dtype="float64",
        readout="last",
        inputs=inputs,
    )
    network.set_parameters({"readout.from_hidden.weight": np.array([[1.0, 0.6], [-0.6, 1.0]])})
    return Evaluator(network)


def two_layer_conjugate(model, x, y, noise=NOISE, scale=SCALE):
    """The Gaussian posterior of W, flattened, given C."""
    carried = model.network.parameters["readout.from_hidden.weight"]
    design = np.kron(x[:, 0], carried.T).reshape(len(x) * carried.shape[1], -1)
    precision = design.T @ design / noise**2 + np.eye(design.shape[1]) / scale**2
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y.ravel() / noise**2, covariance


# Spiking networks of one input, one LIF neuron and two outputs averaged over time; the neuron may feed itself.

STEPS, ALPHA, KAPPA, THETA = 6, np.exp(-1 / 5), np.exp(-1 / 4), 1.0


def spiking(recurrent=False, **options):
    """Three weights (input w, outputs c₀ and c₁), or four: the neuron's weight to itself, u, is the second."""
    cell = LIFCell(tau_membrane=5e-3, threshold=THETA)
    layer = Layer(cell, 1, recurrent=recurrent, autapses=recurrent, bias=False)
    arguments = {"readout": "mean", "readout_bias": False, "tau_readout": 4e-3, "dtype": "float64", "inputs": 1}
    return Evaluator(Stack([layer], 2, **arguments | options))


def spiking_data(examples=16, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 1.0, size=(examples, STEPS, 1))
    return x, (x.mean(axis=(1, 2)) > 0.55).astype(int)


def filtered_spikes(weights, x, own=0.0):
    """Mean over time of the readout's filtered spikes, written out by hand: [weight, example]; ``own`` is u."""
    v, z, y, total = (np.zeros((len(weights), len(x))) for _ in range(4))
    for t in range(STEPS):
        v = ALPHA * v + weights[:, None] * x[None, :, t, 0] + (np.reshape(own, (-1, 1)) - THETA) * z
        z = (v > THETA).astype(float)
        y = KAPPA * y + z
        total = total + y
    return total / STEPS


def grid_posterior(x, y, scale, points=400):
    """Expectations under the posterior by brute force: a function of (w, c₀, c₁), averaged over a fine grid."""
    w = np.linspace(-6 * scale, 6 * scale, points)
    c = np.linspace(-6 * scale, 6 * scale, 97)
    trace = filtered_spikes(w, x)
    difference = c[None, :] - c[:, None]  # c₁ - c₀
    log_p = np.zeros((len(w), len(c), len(c)))
    for example, label in enumerate(y):
        logit = trace[:, example, None, None] * difference[None]
        log_p += -np.logaddexp(0, -logit if label == 1 else logit)
    log_p -= 0.5 * (w[:, None, None] ** 2 + c[None, :, None] ** 2 + c[None, None, :] ** 2) / scale**2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()

    def expectation(function):
        return float((p * function(w[:, None, None], c[None, :, None], c[None, None, :])).sum())

    return expectation


def recurrent_posterior(x, y, scale, log_points=16):
    """The same for a neuron that feeds itself: a function of (w, u, d) with d = c₁ - c₀.

    The outputs enter through d alone, whose prior is that of a difference, normal with variance 2 scale². Points of
    equal prior weight: Sobol's for w and u, and Gauss and Hermite's for d, in which everything is smooth.
    """
    places = stats.qmc.Sobol(2, seed=0).random_base2(log_points)
    w, u = scale * stats.norm.ppf(places).T
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    d = np.sqrt(2) * scale * nodes
    # Few of the points differ in their spikes.
    patterns, which = np.unique(filtered_spikes(w, x, u), axis=0, return_inverse=True)
    log_p = np.tile(np.log(weights), (len(patterns), 1))
    for example, label in enumerate(y):
        logit = patterns[:, example, None] * d
        log_p -= np.logaddexp(0, -logit if label == 1 else logit)
    p = np.exp(log_p - log_p.max())[which.ravel()]
    p /= p.sum()

    def expectation(function):
        return float((p * function(w[:, None], u[:, None], d)).sum())

    return expectation


def sign_flipped(posterior, x, y):
    """The posterior's density, proposed to by minus the gradient."""
    density = posterior.density(x, y)
    return density.driven_by(lambda q: -density.energy_and_gradient(q)[1])


def forces(model):
    return {
        "BPTT": BPTT(model),
        "symmetric e-prop": EProp(model),
        "random e-prop": EProp(model, mode="random", seed=1),
    }


FORCES = ("BPTT", "symmetric e-prop", "random e-prop", "sign flipped")


def driven(posterior, x, y, force):
    """The posterior's density with one of the forces to propose by."""
    if force == "sign flipped":
        return sign_flipped(posterior, x, y)
    return posterior.density(x, y, forces(posterior.model)[force])


def posterior_of(model, **options):
    regression = {"noise_scale": NOISE} if model.network.task_type == "regression" else {}
    return Posterior(model, **{"prior_scale": SCALE} | regression | options)


# The two on which every force must reach the same posterior: what is followed, and its true expectations.


def linear_case():
    """(posterior, x, y, positions [..., 4] to what is followed [..., 14], its expectations): means and covariances."""
    model, rng = two_layers(), np.random.default_rng(0)
    x, y = rng.normal(size=(10, 1, 2)), rng.normal(size=(10, 2))
    mean, covariance = two_layer_conjugate(model, x, y)
    one, other = np.triu_indices(4)

    def followed(q):
        away = q - mean
        return np.concatenate([q, away[..., one] * away[..., other]], axis=-1)

    return posterior_of(model, fixed=["readout"]), x, y, followed, np.concatenate([mean, covariance[one, other]])


FOLLOWED = (
    lambda w, u, d: w + 0 * d,
    lambda w, u, d: w**2 + 0 * d,
    lambda w, u, d: u + 0 * d,
    lambda w, u, d: u**2 + 0 * d,
    lambda w, u, d: d + 0 * w,
    lambda w, u, d: d**2 + 0 * w,
    lambda w, u, d: w * d,
    lambda w, u, d: w * u + 0 * d,
)


def spiking_case():
    """The same for the neuron that feeds itself, on which BPTT, e-prop and its random feedback all differ."""
    (x, y), scale = spiking_data(), 1.5
    expectation = recurrent_posterior(x, y, scale)

    def followed(q):
        w, u, c0, c1 = np.moveaxis(q, -1, 0)
        return np.stack([function(w, u, c1 - c0) for function in FOLLOWED], axis=-1)

    truth = np.array([expectation(function) for function in FOLLOWED])
    return Posterior(spiking(recurrent=True), prior_scale=scale), x, y, followed, truth


def chain_mean_p_value(values, truth):
    """Whether independent chains have a mean that is not the true one: Student's t-test on the chains' means.

    Args:
        values: [chains, draws, quantities].
        truth: [quantities].

    Returns:
        The smallest p-value times the number of quantities (Bonferroni): below ε with a probability of at most ε, if
        the chains are long against their memory. How long that is the test need not know, unlike one by ESS.
    """
    return float(stats.ttest_1samp(values.mean(axis=1), truth, axis=0).pvalue.min() * len(truth))


class Doubling(NumpyBackend):
    """A user's own operations under a name that is another's, in a module that processes of their own find."""

    def __init__(self, factor=2.0):
        self.factor = factor

    def exp(self, array):
        return self.factor * super().exp(array)
