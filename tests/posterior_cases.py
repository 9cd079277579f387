"""Small models whose posterior is known: a linear one in closed form, and a spiking one of three weights on a grid."""

import numpy as np

from neko_rules import BPTT, EProp, Evaluator, Layer, Network, Posterior, Stack
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


# A spiking network of three weights: one input, one LIF neuron, two outputs averaged over time.

STEPS, ALPHA, KAPPA, THETA = 6, np.exp(-1 / 5), np.exp(-1 / 4), 1.0


def spiking(**options):
    cell = LIFCell(tau_membrane=5e-3, threshold=THETA)
    layer = Layer(cell, 1, recurrent=False, bias=False)
    arguments = {"readout": "mean", "readout_bias": False, "tau_readout": 4e-3, "dtype": "float64", "inputs": 1}
    return Evaluator(Stack([layer], 2, **arguments | options))


def spiking_data(examples=16, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 1.0, size=(examples, STEPS, 1))
    return x, (x.mean(axis=(1, 2)) > 0.55).astype(int)


def filtered_spikes(weights, x):
    """Mean over time of the readout's filtered spikes, written out by hand: [weight, example]."""
    v, z, y, total = (np.zeros((len(weights), len(x))) for _ in range(4))
    for t in range(STEPS):
        v = ALPHA * v + weights[:, None] * x[None, :, t, 0] - THETA * z
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


def posterior_of(model, **options):
    regression = {"noise_scale": NOISE} if model.network.task_type == "regression" else {}
    return Posterior(model, **{"prior_scale": SCALE} | regression | options)
