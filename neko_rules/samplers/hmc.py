"""HMC: Hamiltonian Monte Carlo with a fixed number of leapfrog steps.

    p ~ N(0, M),    (θ', p') = L leapfrog steps of size ε,    accept with probability min(1, exp(H(θ, p) - H(θ', p')))

Reference: S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, Physics Letters B 195:216, 1987; R. M. Neal, MCMC using
Hamiltonian dynamics, 2011. The best acceptance in high dimension is 0.651: A. Beskos, N. Pillai, G. Roberts,
J.-M. Sanz-Serna, A. Stuart, Bernoulli 19:1501, 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, State, Tuning, acceptance, counts, moved, no_blocks, start
from neko_rules.samplers.leapfrog import Point, draw_momentum, kinetic_energy, leapfrog


@dataclass(frozen=True)
class HMCKernel:
    """Hamiltonian Monte Carlo.

    Args:
        steps: leapfrog steps per proposal, L.
        jitter: ε is drawn uniformly from ε (1 ± jitter) for every proposal, which keeps a trajectory from coming back
            to where it began again and again (Neal 2011, section 3.2).

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = HMCKernel(steps=5), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.5, np.ones(2)))
        >>> info.n_steps
        array([5, 5, 5])
    """

    steps: int = 10
    jitter: float = 0.0

    exact: ClassVar[bool] = True
    target_acceptance: ClassVar[float] = 0.7

    def __post_init__(self) -> None:
        arguments.integer("steps", self.steps, at_least=1)
        arguments.number("jitter", self.jitter, at_least=0, below=1)

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return start(density, position)

    def probe(self) -> HMCKernel:
        """One leapfrog step."""
        return HMCKernel(steps=1)

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One trajectory, accepted or not."""
        inverse_mass = tuning.inverse_mass
        momentum = draw_momentum(rng, state.position.shape, inverse_mass)
        step_size = tuning.step_size
        if self.jitter:
            step_size = step_size * (1 + self.jitter * (2 * rng.random() - 1))
        point = Point(state.position, momentum, state.energy, state.gradient)
        before = state.energy + kinetic_energy(momentum, inverse_mass)
        with np.errstate(invalid="ignore", over="ignore"):
            for _ in range(self.steps):
                point = leapfrog(density, point, step_size, inverse_mass)
            after = point.energy + kinetic_energy(point.momentum, inverse_mass)
            probability, log_ratio, diverging = acceptance(before - after, point.energy)
        chains = len(before)
        accepted = rng.random(chains) < probability
        new = moved(accepted, State(point.position, point.energy, point.gradient, state.momentum), state)
        hamiltonian = np.where(accepted, after, before)
        steps, depth = counts(chains, self.steps), counts(chains, 0)
        return new, Info(probability, accepted, hamiltonian, -log_ratio, diverging, steps, depth, no_blocks(chains))
