"""Surrogate derivatives: what stands for the derivative dz/du of a spike z = [u > 0], which is zero almost everywhere.

The voltage enters normalised, ``u = (v - threshold) / threshold`` (dimensionless), so that ``u = 0`` at threshold and
``u = -1`` at rest. Every surrogate is symmetric about the threshold and has there its peak ``gamma`` (dimensionless),
the dampening factor that keeps gradients from exploding over many time steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from neko_rules.alike import Alike
from neko_rules.arguments import number
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError
from neko_rules.registry import Registry

__all__ = [
    "SURROGATES",
    "ArcTan",
    "Custom",
    "FastSigmoid",
    "Gaussian",
    "Sigmoid",
    "StraightThrough",
    "Surrogate",
    "Triangular",
    "resolve_surrogate",
]


class Surrogate(Alike, ABC):
    """A function of the normalised voltage that stands for dz/du."""

    @abstractmethod
    def derivative(self, nx: Backend, u: Array) -> Array:
        """The pseudo-derivative dz/du at every ``u``, in the shape and type of ``u``.

        Args:
            nx: the backend that ``u`` belongs to.
            u: normalised distance of the voltage from threshold, any shape, dimensionless.
        """


SURROGATES: Registry[Surrogate] = Registry("surrogate", Surrogate)  # type: ignore[type-abstract]


@SURROGATES.register("triangular", "piecewise_linear")
@dataclass(frozen=True)
class Triangular(Surrogate):
    """dz/du = γ max(0, 1 - |u|): a triangle of half-width one threshold.

    Its support ends at rest, so neurons at rest or far above threshold receive no gradient.

    Args:
        gamma: peak at threshold, at least 0.

    Reference:
        G. Bellec, D. Salaj, A. Subramoney, R. Legenstein, W. Maass, "Long short-term memory and learning-to-learn in
        networks of spiking neurons", NeurIPS 2018, where γ = 0.3.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> Triangular().derivative(get_backend("numpy"), np.array([-1.0, 0.0, 0.5]))
        array([0.  , 0.3 , 0.15])
    """

    gamma: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """γ max(0, 1 - |u|)."""
        return self.gamma * nx.maximum(1 - nx.abs(u), 0.0)


@SURROGATES.register("fast_sigmoid", "superspike")
@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """dz/du = γ / (1 + s|u|)²: the derivative of the fast sigmoid γu / (1 + s|u|), with heavy tails.

    Args:
        gamma: peak at threshold, at least 0.
        slope: s, how fast the derivative falls off, above 0.

    Reference:
        F. Zenke, S. Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural
        Computation 30, 2018.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> FastSigmoid(slope=1.0).derivative(get_backend("numpy"), np.array([-1.0, 0.0, 3.0]))
        array([0.25  , 1.    , 0.0625])
    """

    gamma: float = 1.0
    slope: float = 25.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))
        object.__setattr__(self, "slope", number("slope", self.slope, above=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """γ / (1 + s|u|)²."""
        root = 1 + self.slope * nx.abs(u)
        return self.gamma / (root * root)


@SURROGATES.register("arctan", "atan")
@dataclass(frozen=True)
class ArcTan(Surrogate):
    """dz/du = γ / (1 + (π α u / 2)²): the derivative of an arctangent.

    The paper writes α/2 for the peak; its default α = 2 makes that 1, as here.

    Args:
        gamma: peak at threshold, at least 0.
        alpha: α, inverse width, above 0.

    Reference:
        W. Fang, Z. Yu, Y. Chen, T. Masquelier, T. Huang, Y. Tian, "Incorporating learnable membrane time constant to
        enhance learning of spiking neural networks", ICCV 2021.

    Example:
        >>> import math, numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ArcTan().derivative(get_backend("numpy"), np.array([0.0, 1 / math.pi]))
        array([1. , 0.5])
    """

    gamma: float = 1.0
    alpha: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))
        object.__setattr__(self, "alpha", number("alpha", self.alpha, above=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """γ / (1 + (π α u / 2)²)."""
        scaled = (0.5 * math.pi * self.alpha) * u
        return self.gamma / (1 + scaled * scaled)


@SURROGATES.register("sigmoid", "logistic")
@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """dz/du = 4γ σ(su) (1 - σ(su)): the derivative of a logistic function, scaled to its peak γ.

    With γ = s/4 (the default) it is exactly the derivative of σ(su).

    Args:
        gamma: peak at threshold, at least 0.
        slope: s, the steepness of the logistic function, above 0.

    Reference:
        E. O. Neftci, H. Mostafa, F. Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal
        Processing Magazine 36, 2019.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> Sigmoid().derivative(get_backend("numpy"), np.array([-0.5, 0.0, 0.5])).round(3)
        array([0.42, 1.  , 0.42])
    """

    gamma: float = 1.0
    slope: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))
        object.__setattr__(self, "slope", number("slope", self.slope, above=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """4γ σ(su) (1 - σ(su))."""
        level = nx.sigmoid(self.slope * u)
        return (4 * self.gamma) * level * (1 - level)


@SURROGATES.register("gaussian", "normal")
@dataclass(frozen=True)
class Gaussian(Surrogate):
    """dz/du = γ exp(-u² / 2w²): a bell curve.

    Args:
        gamma: peak at threshold, at least 0.
        width: w, the standard deviation in units of the threshold, above 0.

    Reference:
        B. Yin, F. Corradi, S. M. Bohté, "Accurate and efficient time-domain classification with adaptive spiking
        recurrent neural networks", Nature Machine Intelligence 3, 2021.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> Gaussian(width=1.0).derivative(get_backend("numpy"), np.array([-1.0, 0.0])).round(4)
        array([0.6065, 1.    ])
    """

    gamma: float = 1.0
    width: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))
        object.__setattr__(self, "width", number("width", self.width, above=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """γ exp(-u² / 2w²)."""
        scaled = u / self.width
        return self.gamma * nx.exp(-0.5 * (scaled * scaled))


@SURROGATES.register("straight_through", "identity")
@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """dz/du = γ everywhere: the spike is treated as a linear unit.

    Args:
        gamma: the derivative, at least 0.

    Reference:
        Y. Bengio, N. Léonard, A. Courville, "Estimating or propagating gradients through stochastic neurons for
        conditional computation", arXiv:1308.3432, 2013.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> StraightThrough().derivative(get_backend("numpy"), np.array([-7.0, 0.0]))
        array([1., 1.])
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, at_least=0))

    def derivative(self, nx: Backend, u: Array) -> Array:
        """γ in the shape of ``u``."""
        return nx.full(u.shape, self.gamma, nx.dtype(u))


@dataclass(frozen=True)
class Custom(Surrogate):
    """dz/du = function(nx, u): a user's own surrogate.

    Args:
        function: takes a backend and the normalised voltage, and returns dz/du in the same shape, in operations of
            the backend.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> box = Custom(lambda nx, u: nx.where(nx.abs(u) < 0.5, nx.full(u.shape, 1.0, nx.dtype(u)), 0.0))
        >>> box.derivative(get_backend("numpy"), np.array([-1.0, 0.2]))
        array([0., 1.])
    """

    function: Callable[[Backend, Array], Array]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ArgumentError(
                "a surrogate of one's own must be a function",
                received=self.function,
                works="give a function(nx, u) that returns dz/du",
            )

    def derivative(self, nx: Backend, u: Array) -> Array:
        """What the function returns, refused when its shape is not that of ``u``."""
        slope = self.function(nx, u)
        if not nx.is_tensor(slope) or (slope.shape is not u.shape and tuple(slope.shape) != tuple(u.shape)):
            raise ArgumentError(
                "a surrogate function must return an array in the shape of u",
                received=f"{getattr(slope, 'shape', slope)} for u of shape {tuple(u.shape)}",
            )
        return slope


def resolve_surrogate(spec: str | Mapping[str, Any] | Surrogate | Callable[[Backend, Array], Array]) -> Surrogate:
    """A surrogate from its name, a mapping, an object, or a function of one's own.

    Raises:
        ArgumentError: the name or an argument is unknown, or the argument is none of these.

    Example:
        >>> resolve_surrogate({"name": "triangular", "gamma": 0.5})
        Triangular(gamma=0.5)
        >>> resolve_surrogate("fast_sigmod")
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: unknown surrogate (received: fast_sigmod); did you mean 'fast_sigmoid'?
    """
    if callable(spec) and not isinstance(spec, (type, Surrogate)):
        return Custom(spec)
    return SURROGATES.resolve(spec)
