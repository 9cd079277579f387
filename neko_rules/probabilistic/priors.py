"""Priors: how probable a weight is before any data, independent for every weight of a layer.

    normal       U = w²/(2s²)                            Neal 1996
    laplace      U = |w|/s                               many weights near 0
    student_t    U = (ν+1)/2 log(1 + w²/(ν s²))          a few large weights
    horseshoe    U = -log(eˣ E₁(x)),  x = w²/(2s²)       most near 0, the rest hardly shrunk

The horseshoe is w ~ N(0, s² λ²) with λ half Cauchy; λ is integrated out, which leaves the exponential integral E₁
(Carvalho, Polson & Scott 2010). Its density is infinite at w = 0, so no chain can begin there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.registry import Registry


@dataclass(frozen=True)
class Prior(ABC):
    """A density of single weights.

    Args:
        scale: s, in units of the weight; by default that of the posterior.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            arguments.number("scale", self.scale, above=0)

    @abstractmethod
    def energy(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """-log p of every weight, normalised."""

    @abstractmethod
    def gradient(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """The derivative of the energy."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
        """Independent draws."""


PRIORS: Registry[Prior] = Registry("prior", Prior)  # type: ignore[type-abstract]


@PRIORS.register("normal", "gaussian")
@dataclass(frozen=True)
class Normal(Prior):
    """Normal prior: U = w²/(2s²).

    Example:
        >>> Normal().gradient(np.array([0.5]), scale=0.5)
        array([2.])
    """

    def energy(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """w²/(2s²) + log s√(2π)."""
        return 0.5 * (weights / scale) ** 2 + math.log(scale * math.sqrt(2 * math.pi))

    def gradient(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """w/s²."""
        return weights / scale**2

    def draw(self, rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
        """s ξ."""
        return scale * rng.standard_normal(size)


@PRIORS.register("laplace")
@dataclass(frozen=True)
class Laplace(Prior):
    """Laplace prior: U = |w|/s.

    Example:
        >>> Laplace().gradient(np.array([0.5, -0.5]), scale=0.5)
        array([ 2., -2.])
    """

    def energy(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """|w|/s + log 2s."""
        return np.abs(weights) / scale + math.log(2 * scale)

    def gradient(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """sign(w)/s."""
        return np.sign(weights) / scale

    def draw(self, rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
        """An exponential number with a random sign."""
        return rng.laplace(0.0, scale, size)


@PRIORS.register("student_t", "t")
@dataclass(frozen=True)
class StudentT(Prior):
    """Student-t prior: U = (ν+1)/2 log(1 + w²/(ν s²)).

    Args:
        scale: s, in units of the weight; by default that of the posterior.
        degrees: degrees of freedom ν; 1 is the Cauchy density, many are the normal one.

    Example:
        >>> StudentT(degrees=1.0).gradient(np.array([1.0]), scale=1.0)
        array([1.])
    """

    degrees: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.number("degrees", self.degrees, above=0)

    def energy(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """(ν+1)/2 log(1 + w²/(ν s²)) + log(s √(νπ) Γ(ν/2)/Γ((ν+1)/2))."""
        nu = self.degrees
        constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi) + math.log(scale)
        return 0.5 * (nu + 1) * np.log1p((weights / scale) ** 2 / nu) + constant

    def gradient(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """(ν+1) w/(ν s² + w²)."""
        return (self.degrees + 1) * weights / (self.degrees * scale**2 + weights**2)

    def draw(self, rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
        """S times a Student-t number."""
        return scale * rng.standard_t(self.degrees, size)


@PRIORS.register("horseshoe")
@dataclass(frozen=True)
class Horseshoe(Prior):
    """Horseshoe prior: U = -log(eˣ E₁(x)) with x = w²/(2s²).

    Example:
        >>> bool(Horseshoe().energy(np.array([1e-9]), scale=1.0) < Horseshoe().energy(np.array([1.0]), scale=1.0))
        True
    """

    def energy(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """-log(eˣ E₁(x)) + log(s √(2π³))."""
        with np.errstate(divide="ignore"):
            decay = scaled_exponential_integral(0.5 * (weights / scale) ** 2)
            return -np.log(decay) + math.log(scale * math.sqrt(2 * math.pi**3))

    def gradient(self, weights: np.ndarray, scale: float) -> np.ndarray:
        """(1/(x eˣ E₁(x)) - 1) w/s²."""
        x = 0.5 * (weights / scale) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return (1 / (x * scaled_exponential_integral(x)) - 1) * weights / scale**2

    def draw(self, rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
        """S λ ξ with λ = |Cauchy|."""
        return scale * np.abs(rng.standard_cauchy(size)) * rng.standard_normal(size)


def scaled_exponential_integral(x: np.ndarray) -> np.ndarray:
    """eˣ E₁(x) for x ≥ 0, by its asymptotic series where eˣ would overflow.

    Example:
        >>> scaled_exponential_integral(np.array([1.0, 1e3])).round(6)
        array([0.596347, 0.000999])
    """
    from scipy.special import exp1

    # The series Σ_k k!/(-x)^k / x with 16 terms is exact to 1e-15 from x = 50 on.
    near = np.minimum(x, 50.0)
    far = np.maximum(x, 50.0)
    series, term = np.zeros_like(far), np.ones_like(far)
    for k in range(16):
        series += term
        term = -term * (k + 1) / far
    return np.where(x < 50.0, np.exp(near) * exp1(near), series / far)
