"""Leapfrog: the integrator of Hamiltonian samplers, reversible and volume preserving whatever the force.

    p ← p - (ε/2) g(θ)        θ ← θ + ε M⁻¹ p        p ← p - (ε/2) g(θ)

Each of the three is a shear, whose Jacobian has determinant 1 for any g that depends on the position alone, and
stepping with -ε undoes it. So the surrogate gradient of a spiking network, or that of any deterministic rule, may stand
for dU/dθ: only the energy error grows, and with it the number of rejections.

Reference: R. M. Neal, MCMC using Hamiltonian dynamics, in Handbook of Markov Chain Monte Carlo, 2011, section 2.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neko_rules.samplers.density import Density, Vector


class Point(NamedTuple):
    """A point of phase space: position θ and momentum p [chains, dimension], U [chains], g [chains, dimension]."""

    position: Vector
    momentum: Vector
    energy: Vector
    gradient: Vector


def leapfrog(density: Density, point: Point, step_size: float | Vector, inverse_mass: Vector) -> Point:
    """One step of size ε, which may differ between chains ([chains, 1]) and may be negative.

    Example: free fall under the force -1 from rest, exact for the integrator.

        >>> fall = Density(lambda q: q[:, 0], lambda q: (q[:, 0], np.ones_like(q)))
        >>> origin = Point(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)))
        >>> leapfrog(fall, origin, 2.0, np.ones(1)).position
        array([[-2.]])
    """
    half = point.momentum - 0.5 * step_size * point.gradient
    position = point.position + step_size * inverse_mass * half
    energy, gradient = density.energy_and_gradient(position)
    return Point(position, half - 0.5 * step_size * gradient, energy, gradient)


def kinetic_energy(momentum: Vector, inverse_mass: Vector) -> Vector:
    """K = pᵀ M⁻¹ p / 2, [chains]."""
    return 0.5 * np.sum(momentum**2 * inverse_mass, axis=1)


def draw_momentum(rng: np.random.Generator, shape: tuple[int, ...], inverse_mass: Vector) -> Vector:
    """p ~ N(0, M)."""
    return rng.standard_normal(shape) / np.sqrt(inverse_mass)
