"""SGLD: stochastic gradient Langevin dynamics, approximate: mini-batches, and no accept step.

    θ' = θ - h A ĝ(θ) + √(2h A) ξ,    ξ ~ N(0, I),    ĝ an unbiased estimate of dU/dθ

The step size stays as it is, so the error stays too: on N(0, 1) with the exact gradient the variance is 1/(1 - h/2),
and noise of variance s² in ĝ adds h s²/(2 - h). Wherever ĝ is not an estimate of the derivative of U (a surrogate, a
local rule) nothing corrects it. Use MALA or HMC where the full data can be afforded.

Reference: M. Welling, Y. W. Teh, Bayesian learning via stochastic gradient Langevin dynamics, ICML 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, State, Tuning, counts, no_blocks, start
from neko_rules.samplers.mala import drift, scale


@dataclass(frozen=True)
class SGLDKernel:
    """Stochastic gradient Langevin dynamics (approximate).

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = SGLDKernel(), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.1, np.ones(2)))
        >>> state.position.shape, kernel.exact
        ((3, 2), False)
    """

    exact: ClassVar[bool] = False
    target_acceptance: ClassVar[float] = 1.0

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return start(density, position, gradient=False)

    def probe(self) -> SGLDKernel:
        """The kernel itself; without an accept step it finds no step size."""
        return self

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One step, always made; the energy of the new state is left unknown (NaN), as it would need all data."""
        gradient = density.estimated_gradient(rng, state.position)
        noise = rng.standard_normal(state.position.shape)
        position = state.position + drift(gradient, tuning) + np.sqrt(scale(tuning)) * noise
        return unjudged(State(position, np.full(len(position), np.nan), state.gradient, state.momentum))


def unjudged(state: State) -> tuple[State, Info]:
    """A state that was reached without an accept step; a position that is not finite is told as a divergence."""
    chains = len(state.position)
    diverging = ~np.isfinite(state.position).all(axis=1)
    unknown, ones, zeros, always = np.full(chains, np.nan), counts(chains, 1), counts(chains, 0), np.ones(chains)
    return state, Info(always, always > 0, unknown, unknown, diverging, ones, zeros, no_blocks(chains))
