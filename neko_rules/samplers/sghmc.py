"""SGHMC: stochastic gradient Hamiltonian Monte Carlo, approximate: momentum, friction, mini-batches, no accept step.

    v' = (1 - α) v - η A ĝ(θ) + √(2 (α - β̂) η A) ξ,    θ' = θ + v',    ξ ~ N(0, I)

η is the step size, α the friction and β̂ the part of the noise that the mini-batches are thought to bring themselves.
As in SGLD the step stays, and so does the error that it makes.

Reference: T. Chen, E. B. Fox, C. Guestrin, Stochastic gradient Hamiltonian Monte Carlo, ICML 2014, equation 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, State, Tuning, start
from neko_rules.samplers.sgld import unjudged


@dataclass(frozen=True)
class SGHMCKernel:
    """Stochastic gradient Hamiltonian Monte Carlo (approximate).

    Args:
        friction: α.
        gradient_noise: β̂, at most α; 0 if unknown.

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = SGHMCKernel(friction=0.2), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.01, np.ones(2)))
        >>> state.momentum.shape
        (3, 2)
    """

    friction: float = 0.1
    gradient_noise: float = 0.0

    exact: ClassVar[bool] = False
    target_acceptance: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        arguments.number("friction", self.friction, above=0, at_most=1)
        arguments.number("gradient_noise", self.gradient_noise, at_least=0, at_most=self.friction)

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position, at rest."""
        state = start(density, position, gradient=False)
        return state._replace(momentum=np.zeros_like(state.position))

    def probe(self) -> SGHMCKernel:
        """The kernel itself; without an accept step it finds no step size."""
        return self

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One step, always made; the energy of the new state is left unknown (NaN), as it would need all data."""
        gain = tuning.step_size * tuning.inverse_mass
        noise = np.sqrt(2 * (self.friction - self.gradient_noise) * gain) * rng.standard_normal(state.position.shape)
        force = -gain * density.estimated_gradient(rng, state.position)
        velocity = (1 - self.friction) * state.momentum + force + noise
        position = state.position + velocity
        return unjudged(State(position, np.full(len(position), np.nan), state.gradient, velocity))
