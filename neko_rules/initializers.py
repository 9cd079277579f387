"""Initializers: how the weights of a connection are drawn before training.

All are drawn by NumPy from a generator that the caller seeds, so one seed gives the same weights on every backend.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from neko_rules.arguments import integer, number
from neko_rules.registry import Registry

__all__ = [
    "INITIALIZERS",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunUniform",
    "Orthogonal",
    "ScaledNormal",
    "Zeros",
]


@dataclass(frozen=True)
class Initializer(ABC):
    """A distribution of weight matrices [fan_in, fan_out].

    Args:
        gain: factor on every weight (dimensionless).
    """

    gain: float = field(default=1.0, kw_only=True)

    by_inputs: ClassVar[bool] = True
    """Whether weights are the smaller the more inputs a neuron has, of which a sparse connection leaves out some."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", number("gain", self.gain))

    def sample(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        """A weight matrix.

        Args:
            rng: the generator that the numbers are taken from.
            fan_in: number of presynaptic neurons, 0 or more.
            fan_out: number of postsynaptic neurons, 0 or more.

        Returns:
            float64 [fan_in, fan_out].
        """
        fan_in = integer("fan_in", fan_in, at_least=0)
        fan_out = integer("fan_out", fan_out, at_least=0)
        return self.gain * self._draw(rng, fan_in, fan_out)

    @abstractmethod
    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        """A weight matrix of gain 1."""


INITIALIZERS: Registry[Initializer] = Registry("initializer", Initializer)  # type: ignore[type-abstract]


def _normal(rng: np.random.Generator, fan_in: int, fan_out: int, variance: float) -> np.ndarray:
    return rng.standard_normal((fan_in, fan_out)) * math.sqrt(variance)


def _uniform(rng: np.random.Generator, fan_in: int, fan_out: int, variance: float) -> np.ndarray:
    # U(-a, a) has variance a²/3.
    limit = math.sqrt(3 * variance)
    return rng.uniform(-limit, limit, (fan_in, fan_out))


@INITIALIZERS.register("scaled_normal", "normal", "lecun_normal")
@dataclass(frozen=True)
class ScaledNormal(Initializer):
    """N(0, gain² / fan_in): keeps the variance of the summed input at that of one input.

    Reference:
        Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient backprop", Neural Networks: Tricks of the Trade, 1998;
        as used in recurrent spiking networks by G. Bellec et al., NeurIPS 2018.

    Example:
        >>> weight = ScaledNormal(gain=2.0).sample(np.random.default_rng(0), 400, 100)
        >>> weight.shape, round(float(weight.std()), 2)
        ((400, 100), 0.1)
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _normal(rng, fan_in, fan_out, 1 / max(fan_in, 1))


@INITIALIZERS.register("lecun_uniform")
@dataclass(frozen=True)
class LecunUniform(Initializer):
    """U(-a, a), a = gain √(3 / fan_in): variance gain² / fan_in.

    Reference:
        Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient backprop", Neural Networks: Tricks of the Trade, 1998.

    Example:
        >>> bool(abs(LecunUniform().sample(np.random.default_rng(0), 300, 10)).max() <= 0.1)
        True
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, fan_in, fan_out, 1 / max(fan_in, 1))


@INITIALIZERS.register("glorot_normal", "xavier_normal")
@dataclass(frozen=True)
class GlorotNormal(Initializer):
    """N(0, gain² · 2 / (fan_in + fan_out)): a compromise between forward and backward variance.

    Reference:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Example:
        >>> round(float(GlorotNormal().sample(np.random.default_rng(0), 150, 50).std()), 2)
        0.1
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _normal(rng, fan_in, fan_out, 2 / max(fan_in + fan_out, 1))


@INITIALIZERS.register("glorot_uniform", "xavier_uniform")
@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """U(-a, a), a = gain √(6 / (fan_in + fan_out)): variance gain² · 2 / (fan_in + fan_out).

    Reference:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Example:
        >>> bool(abs(GlorotUniform().sample(np.random.default_rng(0), 400, 200)).max() <= 0.1)
        True
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, fan_in, fan_out, 2 / max(fan_in + fan_out, 1))


@INITIALIZERS.register("he_normal", "kaiming_normal")
@dataclass(frozen=True)
class HeNormal(Initializer):
    """N(0, gain² · 2 / fan_in): makes up for rectifiers that silence half of their inputs.

    Reference:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Example:
        >>> round(float(HeNormal().sample(np.random.default_rng(0), 200, 100).std()), 2)
        0.1
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _normal(rng, fan_in, fan_out, 2 / max(fan_in, 1))


@INITIALIZERS.register("he_uniform", "kaiming_uniform")
@dataclass(frozen=True)
class HeUniform(Initializer):
    """U(-a, a), a = gain √(6 / fan_in): variance gain² · 2 / fan_in.

    Reference:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Example:
        >>> bool(abs(HeUniform().sample(np.random.default_rng(0), 600, 10)).max() <= 0.1)
        True
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, fan_in, fan_out, 2 / max(fan_in, 1))


@INITIALIZERS.register("orthogonal")
@dataclass(frozen=True)
class Orthogonal(Initializer):
    """gain · Q with orthonormal columns (rows when fan_in < fan_out), so that all singular values are the gain.

    Reference:
        A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
        neural networks", ICLR 2014; the sign correction after F. Mezzadri, Notices of the AMS 54, 2007.

    Example:
        >>> weight = Orthogonal().sample(np.random.default_rng(0), 3, 3)
        >>> bool(np.allclose(weight @ weight.T, np.eye(3)))
        True
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        tall = rng.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out)))
        q, r = np.linalg.qr(tall)
        # QR leaves the sign of each column open; a positive diagonal of R makes Q uniform (Haar).
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return q if fan_in >= fan_out else q.T


@INITIALIZERS.register("zeros", "zero")
@dataclass(frozen=True)
class Zeros(Initializer):
    """All weights 0.

    Example:
        >>> Zeros().sample(np.random.default_rng(0), 1, 2)
        array([[0., 0.]])
    """

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return np.zeros((fan_in, fan_out))


@INITIALIZERS.register("constant")
@dataclass(frozen=True)
class Constant(Initializer):
    """All weights gain · value.

    Args:
        value: the weight.

    Example:
        >>> Constant(0.5).sample(np.random.default_rng(0), 1, 2)
        array([[0.5, 0.5]])
    """

    value: float = 0.0

    by_inputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", number("value", self.value))

    def _draw(self, rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
        return np.full((fan_in, fan_out), self.value)
