"""MALA: the Metropolis-adjusted Langevin algorithm, a step down the gradient with noise, and its exact correction.

    θ' ~ q(·|θ) = N(θ - h A g(θ), 2h A),     A = M⁻¹
    log r = U(θ) - U(θ') + log q(θ|θ') - log q(θ'|θ)
          = U(θ) - U(θ') + [‖θ' - θ + h A g(θ)‖² - ‖θ - θ' + h A g(θ')‖²] / (4h),     ‖x‖² = xᵀ A⁻¹ x

Both proposal densities are needed because the drift makes them differ. They hold for any drift: with g not the
derivative of U the chain is slower and samples the same density.

Reference: J. Besag, Journal of the Royal Statistical Society B 56:591, 1994 (comment); G. O. Roberts, R. L. Tweedie,
Bernoulli 2:341, 1996; the best acceptance in high dimension, 0.574: G. O. Roberts, J. S. Rosenthal, Journal of the
Royal Statistical Society B 60:255, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, State, Tuning, acceptance, counts, moved, no_blocks, start


@dataclass(frozen=True)
class MALAKernel:
    """The Metropolis-adjusted Langevin algorithm; the step size is h.

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = MALAKernel(), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.5, np.ones(2)))
        >>> state.position.shape, info.diverging.any()
        ((3, 2), np.False_)
    """

    exact: ClassVar[bool] = True
    target_acceptance: ClassVar[float] = 0.574

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return start(density, position)

    def probe(self) -> MALAKernel:
        """The kernel itself: it is one step."""
        return self

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One proposal, accepted or not."""
        noise = rng.standard_normal(state.position.shape)
        position = state.position + drift(state.gradient, tuning) + np.sqrt(scale(tuning)) * noise
        with np.errstate(invalid="ignore", over="ignore"):
            energy, gradient = density.energy_and_gradient(position)
            proposed = State(position, energy, gradient, state.momentum)
            probability, log_ratio, diverging = acceptance(log_acceptance_ratio(state, proposed, tuning), energy)
        accepted = rng.random(len(position)) < probability
        new = moved(accepted, proposed, state)
        chains = len(position)
        ones, zeros = counts(chains, 1), counts(chains, 0)
        return new, Info(probability, accepted, new.energy, -log_ratio, diverging, ones, zeros, no_blocks(chains))


def drift(gradient: Vector, tuning: Tuning) -> Vector:
    """The mean of a proposal less the position: -h A g."""
    return -tuning.step_size * tuning.inverse_mass * gradient


def scale(tuning: Tuning) -> Vector:
    """The variance of a proposal: 2h A [dimension]."""
    return 2 * tuning.step_size * tuning.inverse_mass


def log_proposal(position: Vector, origin: State, tuning: Tuning) -> Vector:
    """log q(position | origin) up to a constant that is the same in both directions, [chains]."""
    residual = position - origin.position - drift(origin.gradient, tuning)
    return -0.5 * np.sum(residual**2 / scale(tuning), axis=1)


def log_acceptance_ratio(current: State, proposed: State, tuning: Tuning) -> Vector:
    """log r [chains], antisymmetric in its two states."""
    forth = log_proposal(proposed.position, current, tuning)
    back = log_proposal(current.position, proposed, tuning)
    return current.energy - proposed.energy + back - forth
