"""Samplers beside blackjax: means, variances and effective sample size per gradient on four densities.

    pip install 'neko_rules[bayes]' blackjax
    python benchmarks/samplers_beside_blackjax.py

Both libraries get the same targets in float64, the same starts, 500 transitions of warm-up (Stan's windows, diagonal
mass) and 1,000 draws of 4 chains, which here move in lockstep and share what they adapt. HMC takes 10 leapfrog steps;
blackjax has no adaptation for MALA, and is given our step size for a mass of 1.

It prints a Markdown table: the largest error of a mean and of a variance in units of its Monte-Carlo standard error,
and the smallest bulk ESS over the coordinates per 1,000 gradients. For logistic regression the reference is a NUTS run
of 10,000 draws, whose own error is in the figures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from neko_rules.samplers import Adaptation, Density, HMCKernel, MALAKernel, NUTSKernel, draw, ess_bulk, mcse_mean

jax.config.update("jax_enable_x64", True)

STEPS = 10


class Target(NamedTuple):
    """A density by its logarithm in JAX, where to begin, and its means and variances."""

    log_density: Callable[[Any], Any]
    start: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def targets() -> dict[str, Target]:
    """The four densities."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(20, 20)) / np.sqrt(20) + np.eye(20)
    covariance = factor @ factor.T
    precision = jnp.asarray(np.linalg.inv(covariance))
    x = rng.normal(size=(200, 8))
    labels = jnp.asarray(rng.random(200) < 1 / (1 + np.exp(-x @ np.linspace(-1, 1, 8))))
    design = jnp.asarray(x)

    def logistic(q: Any) -> Any:
        logits = design @ q
        return jnp.sum(jnp.where(labels, logits, 0.0) - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(q**2)

    def funnel(q: Any) -> Any:
        return -0.5 * q[0] ** 2 - 0.5 * jnp.exp(-q[0]) * jnp.sum(q[1:] ** 2) - 0.5 * 5 * q[0]

    from scipy.special import digamma, polygamma

    def starts(dimension: int) -> np.ndarray:
        return 0.5 * rng.normal(size=(4, dimension))

    unknown = np.full(8, np.nan)
    found = {
        "Gaussian, 20": Target(lambda q: -0.5 * q @ precision @ q, starts(20), np.zeros(20), np.diag(covariance)),
        "log-gamma, 5": Target(
            lambda q: jnp.sum(2 * q - jnp.exp(q)), starts(5), np.full(5, digamma(2)), np.full(5, polygamma(1, 2))
        ),
        "funnel, 6": Target(funnel, starts(6), np.zeros(6), np.concatenate([[1.0], np.full(5, np.exp(0.5))])),
        "logistic, 8": Target(logistic, starts(8), unknown, unknown),
    }
    long = neko(found["logistic, 8"], NUTSKernel(), 2500)[0]
    found["logistic, 8"] = found["logistic, 8"]._replace(mean=long.mean(axis=(0, 1)), variance=long.var(axis=(0, 1)))
    return found


def density_of(target: Target) -> Density:
    """The target as our samplers take it."""
    both = jax.jit(jax.vmap(jax.value_and_grad(lambda q: -target.log_density(q))))

    def energy_and_gradient(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, gradient = both(q)
        return np.asarray(energy), np.asarray(gradient)

    return Density(lambda q: energy_and_gradient(q)[0], energy_and_gradient)


def neko(target: Target, kernel: Any, draws: int, warmup: int = 500) -> tuple[np.ndarray, int, float]:
    """(draws [chains, draws, dimension], gradients after the warm-up, mean acceptance)."""
    drawn = draw(kernel, density_of(target), target.start, draws, Adaptation(warmup))
    return drawn.positions, int(drawn.info.n_steps.sum()), float(drawn.info.acceptance_rate.mean())


def theirs(target: Target, name: str, draws: int, warmup: int = 500) -> tuple[np.ndarray, int, float]:
    """The same by blackjax; MALA, for which it has no adaptation, is given the step size that ours found."""
    positions, gradients, rates = [], 0, []
    step_size = step_size_of_ours(target, warmup) if name == "MALA" else 0.0
    for c, q in enumerate(target.start):
        key, tune = jax.random.split(jax.random.key(c))
        if name == "MALA":
            kernel = blackjax.mala(target.log_density, step_size)
            state: Any = kernel.init(jnp.asarray(q))
        else:
            algorithm = blackjax.nuts if name == "NUTS" else blackjax.hmc
            more: dict[str, Any] = {} if name == "NUTS" else {"num_integration_steps": STEPS}
            rate = NUTSKernel.target_acceptance if name == "NUTS" else HMCKernel.target_acceptance
            adaptation = blackjax.window_adaptation(algorithm, target.log_density, target_acceptance_rate=rate, **more)
            (state, parameters), _ = adaptation.run(tune, jnp.asarray(q), num_steps=warmup)
            kernel = algorithm(target.log_density, **parameters)

        def one(state: Any, key: Any, kernel: Any = kernel) -> Any:
            state, info = kernel.step(key, state)
            return state, (state.position, getattr(info, "num_integration_steps", 1), info.acceptance_rate)

        _, (each, steps, accepted) = jax.lax.scan(one, state, jax.random.split(key, draws))
        positions.append(np.asarray(each))
        gradients += int(np.sum(np.broadcast_to(np.asarray(steps), draws)))
        rates.append(float(np.mean(accepted)))
    return np.stack(positions), gradients, float(np.mean(rates))


def step_size_of_ours(target: Target, warmup: int) -> float:
    """The step size that MALA adapts to here without a mass, as blackjax' MALA has none."""
    adaptation = Adaptation(warmup, mass="identity")
    return draw(MALAKernel(), density_of(target), target.start, 1, adaptation).tuning.step_size


def row(target: Target, drawn: tuple[np.ndarray, int, float]) -> str:
    """Errors in Monte-Carlo standard errors, acceptance and ESS per 1,000 gradients."""
    positions, gradients, acceptance = drawn
    squares = (positions - target.mean) ** 2
    of_mean = np.abs(positions.mean(axis=(0, 1)) - target.mean) / mcse_mean(positions)
    of_variance = np.abs(squares.mean(axis=(0, 1)) - target.variance) / mcse_mean(squares)
    ess = 1000 * float(np.min(ess_bulk(positions))) / gradients
    return f"{of_mean.max():.1f} | {of_variance.max():.1f} | {acceptance:.2f} | {ess:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="", help="the densities whose name begins so")
    given = parser.parse_args()
    kernels = {"MALA": MALAKernel(), "HMC": HMCKernel(STEPS), "NUTS": NUTSKernel()}
    print("| density, dimension | sampler | library | mean: error | variance: error | acceptance | ESS per 1,000 |")
    print("|---|---|---|---|---|---|---|")
    for name, target in targets().items():
        if not name.startswith(given.only):
            continue
        for sampler, kernel in kernels.items():
            print(f"| {name} | {sampler} | neko_rules | {row(target, neko(target, kernel, given.draws))} |", flush=True)
            print(
                f"| {name} | {sampler} | blackjax | {row(target, theirs(target, sampler, given.draws))} |", flush=True
            )


if __name__ == "__main__":
    main()
