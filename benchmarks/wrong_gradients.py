"""Exact in spite of a wrong gradient: one posterior, four forces, and what each costs.

    python benchmarks/wrong_gradients.py

A linear model in two layers, whose posterior is Gaussian in closed form (the readout is held fixed), and a spiking
network of three weights, whose posterior is summed over a grid, are sampled by MALA and HMC, driven by BPTT, symmetric
e-prop, e-prop with random feedback, and minus the gradient. It prints a Markdown table: the largest error of the
expectations in units of their Monte-Carlo standard error, which is 4 once in 15,000 if the sampler is right; the mean
acceptance; and the effective sample size of the slowest expectation per 1,000 gradients, which is the price.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from neko_rules import Posterior
from neko_rules.samplers import Adaptation, Density, HMCKernel, MALAKernel, draw, ess_mean, mcse_mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
cases: Any = importlib.import_module("posterior_cases")
"""The models of the tests, with their known posteriors."""

FORCES = ("BPTT", "symmetric e-prop", "random e-prop", "sign flipped")
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    lambda w, c0, c1: w + 0 * c0,
    lambda w, c0, c1: w**2 + 0 * c0,
    lambda w, c0, c1: c1 - c0 + 0 * w,
    lambda w, c0, c1: (c1 - c0) ** 2 + 0 * w,
)


def linear(force: str) -> tuple[Density, int, Any, Any]:
    """The density, its dimension, what is followed, and its true expectation."""
    model = cases.two_layers()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 1, 2)), rng.normal(size=(10, 2))
    posterior = cases.posterior_of(model, fixed=["readout"])
    mean, covariance = cases.two_layer_conjugate(model, x, y)

    def followed(positions: np.ndarray) -> np.ndarray:
        return np.concatenate([positions, (positions - mean) ** 2], axis=2)

    return driven(posterior, model, x, y, force), 4, followed, np.concatenate([mean, np.diag(covariance)])


def spiking(force: str) -> tuple[Density, int, Any, Any]:
    """The same for the spiking network."""
    model, (x, y) = cases.spiking(), cases.spiking_data()
    expectation = cases.grid_posterior(x, y, 1.5)

    def followed(positions: np.ndarray) -> np.ndarray:
        return np.stack([function(*np.moveaxis(positions, 2, 0)) for function in FUNCTIONS], axis=2)

    posterior = Posterior(model, prior_scale=1.5)
    return driven(posterior, model, x, y, force), 3, followed, np.array([expectation(f) for f in FUNCTIONS])


def driven(posterior: Posterior, model: Any, x: np.ndarray, y: np.ndarray, force: str) -> Density:
    """The posterior's density, driven by one of the forces."""
    if force == "sign flipped":
        density: Density = cases.sign_flipped(posterior, x, y)
        return density
    return posterior.density(x, y, cases.forces(model)[force])


def adapted(model: Any, kernel: Any, force: str) -> Adaptation:
    """How a chain is tuned.

    A flipped force asks for shorter steps than the usual ones, which it seldom accepts far out. The spiking posterior
    has a narrow mode beside a broad one, and a step adapted in one is no good for the other: it is given, h = ε²/2.
    """
    if model is spiking:
        return Adaptation(0, step_size=1.26 if isinstance(kernel, HMCKernel) else 0.8)
    return Adaptation(300, target_acceptance=0.85 if force == "sign flipped" else 0.7, mass="identity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--model", choices=["linear", "spiking"], help="one of the two; both by default")
    given = parser.parse_args()
    print("| model | sampler | force | largest error | acceptance | ESS per 1,000 gradients |")
    print("|---|---|---|---|---|---|")
    for model in (linear, spiking):
        if given.model not in (None, model.__name__):
            continue
        for sampler, kernel in (("MALA", MALAKernel()), ("HMC, 3 steps", HMCKernel(3, jitter=0.2))):
            for force in FORCES:
                density, dimension, followed, truth = model(force)
                adaptation = adapted(model, kernel, force)
                draws = given.draws // (3 if isinstance(kernel, HMCKernel) else 1)
                if model is linear and force == "sign flipped":
                    draws *= 4
                start = 0.5 * np.random.default_rng(1).normal(size=(2, dimension))
                drawn = draw(kernel, density, start, draws, adaptation, seed=3)
                values = followed(drawn.positions)
                errors = np.abs(values.mean(axis=(0, 1)) - truth) / mcse_mean(values)
                price = 1000 * ess_mean(values).min() / drawn.info.n_steps.sum()
                print(
                    f"| {model.__name__} | {sampler} | {force} | {errors.max():.1f} "
                    f"| {drawn.info.acceptance_rate.mean():.2f} | {price:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
