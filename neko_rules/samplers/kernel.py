"""Kernel: one transition of a Markov chain; its state, what it tells, and the accept step that all exact ones share.

A transition is ``kernel.step(rng, density, state, tuning) -> (state, info)``, pure but for the generator: ``State`` is
what the next transition needs, ``Info`` is what a person needs. The first axis of every array counts chains.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from neko_rules.errors import ArgumentError
from neko_rules.samplers.density import Density, Vector

DIVERGENT = 1000.0
"""An energy error above which a trajectory counts as divergent, as in Stan."""

APART = 1e-2
"""How far the two energies of a density may differ, as a part of 1 + |U|: in float32 rounding may move a spike."""


class State(NamedTuple):
    """What the next transition depends on.

    Attributes:
        position: θ [chains, dimension].
        energy: U(θ) [chains].
        gradient: g(θ) [chains, dimension]; [chains, 0] for kernels that use none.
        momentum: [chains, dimension] for kernels that keep their momentum (SGHMC); else [chains, 0].
    """

    position: Vector
    energy: Vector
    gradient: Vector
    momentum: Vector


class Info(NamedTuple):
    """What a transition has to tell, each [chains].

    Attributes:
        acceptance_rate: the probability with which the proposal was accepted; for NUTS the mean over the trajectory.
        accepted: whether the chain moved.
        energy: U + kinetic energy of the new state, the Hamiltonian; U alone where there is no momentum.
        energy_error: -log of the acceptance ratio of the proposal; for NUTS that of the state chosen.
        diverging: whether the energy was NaN, infinite, or off by more than ``DIVERGENT``.
        n_steps: evaluations of the gradient (of the energy, for a random walk).
        tree_depth: doublings of the trajectory (NUTS), else 0.
        block_acceptance_rate: the mean of that probability over moves of single blocks; NaN where there are none.
    """

    acceptance_rate: Vector
    accepted: np.ndarray
    energy: Vector
    energy_error: Vector
    diverging: np.ndarray
    n_steps: np.ndarray
    tree_depth: np.ndarray
    block_acceptance_rate: Vector


class Tuning(NamedTuple):
    """What adaptation finds and then leaves alone.

    Attributes:
        step_size: ε of the leapfrog integrator, h of MALA, the standard deviation of a random walk.
        inverse_mass: diagonal of M⁻¹ [dimension]: the scale² of every coordinate.
    """

    step_size: float
    inverse_mass: Vector


class Kernel(Protocol):
    """A way to make one transition."""

    @property
    def exact(self) -> bool:
        """Whether the density is left invariant exactly; the mini-batch samplers are approximate."""

    @property
    def target_acceptance(self) -> float:
        """The mean acceptance probability that adaptation aims at."""

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One transition."""

    def probe(self) -> Kernel:
        """The kernel whose acceptance finds the first step size: one step of the same integrator."""


def start(density: Density, position: Vector, gradient: bool = True) -> State:
    """The state at a position, from which a chain can begin.

    Raises:
        ArgumentError: the position is not [chains, dimension], its energy or gradient is not finite, or the energies
            that a density gives alone and with the gradient differ there by more than rounding.
    """
    position = np.array(position, np.float64)
    if position.ndim != 2 or not position.size:
        raise ArgumentError(
            "positions must have shape [chains, dimension], with at least one of each",
            received=f"shape {position.shape}",
            works="write one position as position[None]" if position.ndim == 1 and position.size else "",
        )
    none = np.empty((len(position), 0))
    energy, found = density.energy_and_gradient(position) if gradient else (density.energy(position), none)
    if not (np.isfinite(energy).all() and np.isfinite(found).all()):
        raise ArgumentError(
            "a chain must begin where the energy and its gradient are finite",
            received=f"energies {energy}",
            works="begin elsewhere, for example at another seed",
        )
    if gradient:
        _check_agreement(energy, density.energy(position))
    return State(position, energy, found, none)


def _check_agreement(energy: Vector, alone: Vector) -> None:
    # Once, and not at every transition: it costs an evaluation.
    apart = ~(np.abs(energy - alone) <= APART * (1 + np.abs(energy)))
    if apart.any():
        at = int(np.argmax(apart))
        raise ArgumentError(
            "energy and energy_and_gradient of a density must give the same energy",
            received=f"{alone[at]:.6g} and {energy[at]:.6g} at the first position of chain {at}",
            works="let energy be lambda q: energy_and_gradient(q)[0]; the gradient may be any function of q",
        )


def acceptance(log_ratio: Vector, energy: Vector, error: Vector | None = None) -> tuple[Vector, Vector, np.ndarray]:
    """(probability min(1, r), log r, divergent) with every energy that is NaN or ±infinite made a certain rejection.

    An energy of -inf is a density of +inf: a chain that went there would never leave, so it counts as a fault too.

    Args:
        log_ratio: log r [chains], perhaps NaN.
        energy: U at the proposal [chains].
        error: the energy error if it is not -log r.

    Example:
        >>> acceptance(np.log([0.5, 2.0, 1.0]), np.array([1.0, 1.0, np.nan]))[0]
        array([0.5, 1. , 0. ])
    """
    faulty = ~(np.isfinite(energy) & (log_ratio > -np.inf) & (log_ratio < np.inf))
    log_ratio = np.where(faulty, -np.inf, log_ratio)
    diverging = faulty | (-log_ratio > DIVERGENT)
    return np.exp(np.minimum(log_ratio, 0.0)), log_ratio, diverging


def select(accepted: np.ndarray, proposed: Vector, current: Vector) -> Vector:
    """The proposed rows where accepted, else the current ones, untouched."""
    chosen = accepted.reshape(-1, *[1] * (current.ndim - 1))
    return np.where(chosen, proposed, current)


def moved(accepted: np.ndarray, proposed: State, current: State) -> State:
    """The proposed state where accepted; where not, everything is as it was."""
    return State(*(select(accepted, new, old) for new, old in zip(proposed, current, strict=True)))


def no_blocks(chains: int) -> Vector:
    """The acceptance of moves of single blocks in a transition that has none."""
    return np.full(chains, np.nan)


def counts(chains: int, number: int) -> np.ndarray:
    """The same whole number for every chain."""
    return np.full(chains, number)
