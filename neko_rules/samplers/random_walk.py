"""Random-walk Metropolis: a Gaussian step from where the chain is; the baseline that needs no gradient.

    θ' ~ N(θ, ε² M⁻¹),    accept with probability min(1, exp(U(θ) - U(θ')))

Reference: N. Metropolis, A. W. Rosenbluth, M. N. Rosenbluth, A. H. Teller, E. Teller, Journal of Chemical Physics
21:1087, 1953. Its best acceptance in high dimension is 0.234 (Roberts, Gelman & Gilks 1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, State, Tuning, acceptance, counts, moved, no_blocks, start


@dataclass(frozen=True)
class RandomWalkKernel:
    """Random-walk Metropolis.

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = RandomWalkKernel(), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.5, np.ones(2)))
        >>> state.position.shape, info.n_steps
        ((3, 2), array([1, 1, 1]))
    """

    exact: ClassVar[bool] = True
    target_acceptance: ClassVar[float] = 0.234

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return start(density, position, gradient=False)

    def probe(self) -> RandomWalkKernel:
        """The kernel itself: it is one step."""
        return self

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One proposal, accepted or not."""
        noise = rng.standard_normal(state.position.shape)
        position = state.position + tuning.step_size * np.sqrt(tuning.inverse_mass) * noise
        energy = density.energy(position)
        with np.errstate(invalid="ignore"):
            probability, log_ratio, diverging = acceptance(state.energy - energy, energy)
        accepted = rng.random(len(position)) < probability
        new = moved(accepted, State(position, energy, state.gradient, state.momentum), state)
        chains = len(position)
        ones, zeros = counts(chains, 1), counts(chains, 0)
        return new, Info(probability, accepted, new.energy, -log_ratio, diverging, ones, zeros, no_blocks(chains))
