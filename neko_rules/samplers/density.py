"""Density: what a sampler knows of its target: an energy, a gradient to move by, and nothing else.

    U(θ) = -log p(θ) + const          g(θ) ≈ dU/dθ

Arrays are NumPy, float64, and their first axis counts chains: positions [chains, dimension], energies [chains]. The
gradient g proposes and U decides, so g may be any deterministic function of θ; only where there is no accept step
(SGLD, SGHMC) must it be the derivative of U.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, IncompatibleError

Vector = np.ndarray
"""float64, [chains, dimension] or [chains]."""


@dataclass(frozen=True)
class Density:
    """An unnormalised density by its energy, with the gradient that proposals follow.

    Args:
        energy: positions [chains, dimension] → U [chains].
        energy_and_gradient: positions → (U [chains], g [chains, dimension]). Its U has to be that of ``energy``, and is
            compared with it where a chain of a kernel with gradients begins.
        estimate: generator, positions → an unbiased estimate of dU/dθ [chains, dimension], for the samplers that work
            on mini-batches; the gradient itself if left out.

    The functions get a copy of the positions each time, and what they return is copied: they may work in place. It may
    be anything that NumPy makes an array of real numbers of, NaN and infinity among them.

    Raises:
        ArgumentError: something given is no function, or, when it is asked, what it returns has another shape or type.

    Example: a standard normal density.

        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> normal.energy(np.array([[1.0, 1.0], [0.0, 2.0]]))
        array([1., 2.])
    """

    energy: Callable[[Vector], Vector]
    energy_and_gradient: Callable[[Vector], tuple[Vector, Vector]]
    estimate: Callable[[np.random.Generator, Vector], Vector] | None = None

    def __post_init__(self) -> None:
        for name, checked in (
            ("energy", _energy),
            ("energy_and_gradient", _energy_and_gradient),
            ("estimate", _estimate),
        ):
            function = getattr(self, name)
            if function is None and name == "estimate":
                continue
            if not callable(function):
                raise ArgumentError(f"{name} of a density must be a function", received=function)
            object.__setattr__(self, name, checked(function))

    def estimated_gradient(self, rng: np.random.Generator, position: Vector) -> Vector:
        """The mini-batch estimate of the gradient, or the gradient if there is none."""
        if self.estimate is not None:
            return self.estimate(rng, position)
        return self.energy_and_gradient(position)[1]

    def driven_by(self, gradient: Callable[[Vector], Vector]) -> Density:
        """The same density, proposed to by another gradient: positions → g [chains, dimension].

        Example: a force of the wrong sign, which costs efficiency and nothing else.

            >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
            >>> normal.driven_by(lambda q: -q).energy_and_gradient(np.array([[2.0]]))
            (array([2.]), array([[-2.]]))
        """
        return Density(self.energy, lambda position: (self.energy(position), gradient(position)))


def _energy(function: Callable[[Vector], Any]) -> Callable[[Vector], Vector]:
    def energy(position: Vector) -> Vector:
        return _numbers("the energy", function(position.copy()), position.shape[:1], "one for each of the positions")

    return energy


def _energy_and_gradient(function: Callable[[Vector], Any]) -> Callable[[Vector], tuple[Vector, Vector]]:
    def energy_and_gradient(position: Vector) -> tuple[Vector, Vector]:
        found = function(position.copy())
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise ArgumentError(
                "energy_and_gradient of a density must return a pair (energy, gradient)",
                received=f"{type(found).__name__}{f' of {len(found)}' if isinstance(found, (tuple, list)) else ''}",
                works="for example lambda q: (0.5 * (q**2).sum(axis=1), q)",
            )
        energy = _numbers("the energy", found[0], position.shape[:1], "one for each of the positions")
        return energy, _numbers("the gradient", found[1], position.shape, "one for each coordinate")

    return energy_and_gradient


def _estimate(
    function: Callable[[np.random.Generator, Vector], Any],
) -> Callable[[np.random.Generator, Vector], Vector]:
    def estimate(rng: np.random.Generator, position: Vector) -> Vector:
        found = function(rng, position.copy())
        return _numbers("the estimate of the gradient", found, position.shape, "one for each coordinate")

    return estimate


def _numbers(what: str, found: Any, shape: tuple[int, ...], which: str) -> Vector:
    """What a function has returned, as an array of its own."""
    wanted = f"{what} of a density must be real numbers of shape {shape}, {which}"
    try:
        array = np.asarray(found)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArgumentError(wanted, received=f"{type(found).__name__}, of which NumPy says: {error}") from error
    if array.dtype.kind not in "iuf" or array.shape != shape:
        kind = "None" if found is None else f"{array.dtype} of shape {array.shape}"
        summed = array.dtype.kind in "iuf" and array.shape != shape and len(shape) == 1
        works = "sum over the coordinates of each position alone: .sum(axis=1)" if summed else ""
        raise ArgumentError(wanted, received=kind, works=works)
    return array.astype(np.float64)


def tempered(likelihood: Density, prior: Density, temperature: float = 1.0) -> Density:
    """The density p(θ) L(θ)^(1/T): the likelihood at a temperature, the prior as it is.

    T = 1 is the posterior. T < 1 is a "cold posterior" (Wenzel et al. 2020), which claims to have seen each example 1/T
    times and is not the posterior; T → ∞ is the prior.

    Args:
        likelihood: with U = -log L.
        prior: with U = -log p.
        temperature: T, above 0.

    Example:
        >>> half = Density(lambda q: q[:, 0], lambda q: (q[:, 0], np.ones_like(q)))
        >>> tempered(half, half, temperature=0.5).energy_and_gradient(np.array([[2.0]]))
        (array([6.]), array([[3.]]))
    """
    temperature = arguments.number("temperature", temperature, above=0)
    if (likelihood.estimate is None) != (prior.estimate is None):
        raise IncompatibleError("likelihood and prior must both have an estimate of the gradient, or neither")

    def energy(position: Vector) -> Vector:
        return prior.energy(position) + likelihood.energy(position) / temperature

    def energy_and_gradient(position: Vector) -> tuple[Vector, Vector]:
        of_prior, back = prior.energy_and_gradient(position)
        of_data, forth = likelihood.energy_and_gradient(position)
        return of_prior + of_data / temperature, back + forth / temperature

    def estimate(rng: np.random.Generator, position: Vector) -> Vector:
        return prior.estimated_gradient(rng, position) + likelihood.estimated_gradient(rng, position) / temperature

    return Density(energy, energy_and_gradient, None if likelihood.estimate is None else estimate)
