"""Blockwise: between the transitions of another kernel, Metropolis moves of one block of coordinates at a time.

    b drawn from the blocks without replacement,   ξ ~ N(0, 1)
    β = 1 in one half of the moves, log β ~ U(log SMALLEST, 0) in the other
    θ'_b = √(1 - β²) θ_b + β σ_b ξ
    accept with probability min(1, exp(U(θ) - U(θ') + Σ_b (θ'² - θ²)/(2σ²)))

The proposal leaves N(0, σ²) as it is. Where that is the prior, a move is accepted by the likelihood alone, and β = 1
draws the block from the prior; for any other density the sum corrects it. A long move of all coordinates of a rough
energy is refused where that of a few is not: the roughness of n independent steps grows as √n. A fixed mixture of
lengths asks for no tuning, and suits blocks of which some are held fast by the data and others hardly at all. In a wide
network most neurons are free enough to be drawn anew, which takes a chain further than any number of short moves.

Every move is reversible, and so is a sequence of them in random order. A coin decides whether the other kernel comes
before or after it, which makes the whole reversible where the other kernel is.

Reference: S. L. Cotter, G. O. Roberts, A. M. Stuart, D. White, MCMC methods for functions, Statistical Science 28:424,
2013, on the proposal; L. Tierney, Markov chains for exploring posterior distributions, Annals of Statistics 22:1701,
1994, on mixtures and cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, Kernel, State, Tuning, acceptance, select

SMALLEST = 0.1
"""The smallest β, of moves by a tenth of σ."""


class BlockwiseKernel:
    """Another kernel, and between its transitions moves of single blocks.

    Args:
        inner: the kernel whose step size, mass and acceptance are adapted and told.
        groups: of blocks, each with how many of its blocks, drawn anew, move in a transition; a block is the list of
            its coordinates.
        scale: σ [dimension], best that of the prior.

    Raises:
        ArgumentError: a group has fewer blocks than are to move.
        IncompatibleError: the inner kernel has no accept step.

    Example:
        >>> from neko_rules.samplers.hmc import HMCKernel
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel = BlockwiseKernel(HMCKernel(steps=5), [([[0], [1, 2]], 2)], scale=np.ones(3))
        >>> state = kernel.init(normal, np.zeros((4, 3)))
        >>> state, info = kernel.step(np.random.default_rng(0), normal, state, Tuning(0.5, np.ones(3)))
        >>> info.n_steps, info.block_acceptance_rate.shape
        (array([8, 8, 8, 8]), (4,))
    """

    exact: ClassVar[bool] = True

    def __init__(
        self, inner: Kernel, groups: Sequence[tuple[Sequence[Sequence[int] | np.ndarray], int]], scale: Vector
    ) -> None:
        self.inner, self.scale = inner, np.asarray(scale, np.float64)
        self.groups = [([np.asarray(block, np.intp) for block in blocks], moves) for blocks, moves in groups]
        if not inner.exact:
            raise IncompatibleError(
                "moves of blocks are accepted by the energy, which the other kernel must know",
                received=f"{inner!r}, which has no accept step",
                works="use MALA, HMC, NUTS or a random walk",
            )
        for blocks, moves in self.groups:
            if not 1 <= arguments.integer("moves", moves) <= len(blocks):
                raise ArgumentError(
                    "a transition moves every block once at most",
                    received=f"{moves} moves of {len(blocks)} blocks",
                    works=f"1 to {len(blocks)} moves",
                )

    @property
    def target_acceptance(self) -> float:
        """Of the inner kernel."""
        return self.inner.target_acceptance

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return self.inner.init(density, position)

    def probe(self) -> Kernel:
        """That of the inner kernel, whose step size is the one to be found."""
        return self.inner.probe()

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """The inner transition and the moves, in the order that a coin decides."""
        blocks_first = rng.random() < 0.5
        if blocks_first:
            state, rate, evaluations = self._move_blocks(rng, density, state)
        state, info = self.inner.step(rng, density, state, tuning)
        if not blocks_first:
            before = state.energy
            state, rate, evaluations = self._move_blocks(rng, density, state)
            info = info._replace(energy=info.energy + state.energy - before)
        return state, info._replace(n_steps=info.n_steps + evaluations, block_acceptance_rate=rate)

    def _move_blocks(self, rng: np.random.Generator, density: Density, state: State) -> tuple[State, Vector, int]:
        """Move blocks in random order; the state, the mean acceptance probability [chains], and evaluations."""
        position, energy = state.position.copy(), state.energy
        chosen = [blocks[at] for blocks, moves in self.groups for at in rng.permutation(len(blocks))[:moves]]
        chains, rate = len(energy), np.zeros(len(energy))
        for place in rng.permutation(len(chosen)):
            block = chosen[place]
            length = SMALLEST ** max(0.0, 2 * rng.random() - 1)
            noise = rng.standard_normal((chains, len(block)))
            here = position[:, block] / self.scale[block]
            moved = np.sqrt(1 - length**2) * here + length * noise
            proposed = position.copy()
            proposed[:, block] = moved * self.scale[block]
            there = density.energy(proposed)
            with np.errstate(invalid="ignore"):
                log_ratio = energy - there + log_reference(here) - log_reference(moved)
                probability, _, _ = acceptance(log_ratio, there)
            accepted = rng.random(chains) < probability
            position, energy = select(accepted, proposed, position), select(accepted, there, energy)
            rate += probability / len(chosen)
        gradient = state.gradient
        if gradient.shape[1] == 0:
            return state._replace(position=position, energy=energy), rate, len(chosen)
        # The inner kernel goes on from here by the energy that its own evaluation gives, whose last digits may differ.
        energy, gradient = density.energy_and_gradient(position)
        return State(position, energy, gradient, state.momentum), rate, len(chosen) + 1

    def __repr__(self) -> str:
        told = ", ".join(f"{moves} of {len(blocks)} blocks" for blocks, moves in self.groups)
        return f"{type(self).__name__}({self.inner!r}, {told})"


def log_reference(whitened: Vector) -> Vector:
    """log N(θ_b; 0, σ²) [chains] without its constant, of θ_b/σ [chains, block]: what the proposal leaves as it is."""
    return -0.5 * np.sum(whitened**2, axis=1)
