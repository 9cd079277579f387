"""Densities with exact draws, on which samplers are tested: a correlated Gaussian, a log-gamma density and a funnel."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from neko_rules.samplers import Density


@dataclass(frozen=True)
class Target:
    """A density, how to draw from it, and how to turn its draws into independent standard normal numbers."""

    density: Density
    draw: Callable[[np.random.Generator, int], np.ndarray]
    whiten: Callable[[np.ndarray], np.ndarray]


COVARIANCE = np.array([[1.0, 0.8, 0.1], [0.8, 2.0, -0.3], [0.1, -0.3, 0.25]])
MEAN = np.array([1.0, -2.0, 0.5])


def gaussian(mean=MEAN, covariance=COVARIANCE) -> Target:
    precision, factor = np.linalg.inv(covariance), np.linalg.cholesky(covariance)

    def both(q):
        pulled = (q - mean) @ precision
        return 0.5 * np.sum((q - mean) * pulled, axis=1), pulled

    return Target(
        Density(lambda q: both(q)[0], both),
        lambda rng, n: mean + rng.standard_normal((n, len(mean))) @ factor.T,
        lambda q: np.linalg.solve(factor, (q - mean).T).T,
    )


def log_gamma(shape=2.0, dimension=2) -> Target:
    """θ = log G with G gamma distributed: U = e^θ - a θ, steep on the right and flat on the left."""

    def both(q):
        with np.errstate(over="ignore"):
            grown = np.exp(q)
        return np.sum(grown - shape * q, axis=1), grown - shape

    return Target(
        Density(lambda q: both(q)[0], both),
        lambda rng, n: np.log(rng.gamma(shape, size=(n, dimension))),
        lambda q: special.ndtri(np.clip(special.gammainc(shape, np.exp(q)), 1e-300, 1 - 1e-16)),
    )


def funnel(scale=1.0, dimension=2) -> Target:
    """v ~ N(0, scale²), x_i ~ N(0, e^v): Neal's funnel (2003), whose width changes with v."""

    def both(q):
        v, x = q[:, 0], q[:, 1:]
        with np.errstate(over="ignore"):
            squared = np.exp(-v)[:, None] * x**2
            energy = 0.5 * v**2 / scale**2 + 0.5 * squared.sum(1) + 0.5 * dimension * v
            of_v = v / scale**2 - 0.5 * squared.sum(1) + 0.5 * dimension
            return energy, np.concatenate([of_v[:, None], np.exp(-v)[:, None] * x], axis=1)

    def draw(rng, n):
        v = scale * rng.standard_normal(n)
        return np.column_stack([v, np.exp(v / 2)[:, None] * rng.standard_normal((n, dimension))])

    def whiten(q):
        return np.column_stack([q[:, 0] / scale, np.exp(-q[:, :1] / 2) * q[:, 1:]])

    return Target(Density(lambda q: both(q)[0], both), draw, whiten)


def smallest_p_value(white: np.ndarray) -> float:
    """Least p-value of: all coordinates are normal (KS), with mean 0 and variance 1, and no two correlated."""
    n = len(white)
    p_values = [stats.kstest(column, "norm").pvalue for column in white.T]
    z = [np.sqrt(n) * white.mean(axis=0), np.sqrt(n / 2) * (np.mean(white**2, axis=0) - 1)]
    z.append(np.sqrt(n) * np.mean(white[:, :-1] * white[:, 1:], axis=0))
    return float(min([*p_values, *(2 * stats.norm.sf(np.abs(np.concatenate(z))))]))
