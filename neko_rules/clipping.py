"""Gradient clipping: bounds on the size of a gradient, so that a single steep place cannot throw the weights far away.

Reference:
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from neko_rules.arguments import number
from neko_rules.backend import Array, Backend, Parameters, global_norm
from neko_rules.registry import Registry

__all__ = ["CLIPPINGS", "ClipGlobalNorm", "ClipNorm", "ClipValue", "Clipping"]


@dataclass(frozen=True)
class Clipping(ABC):
    """A bound on gradients.

    Args:
        limit: the largest size that is left as it is, above 0, in the unit of the gradients.
    """

    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", number("limit", self.limit, above=0))

    @abstractmethod
    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """The gradients by parameter name, none larger than the limit allows; shapes and types stay."""


CLIPPINGS: Registry[Clipping] = Registry("clipping", Clipping)  # type: ignore[type-abstract]


@CLIPPINGS.register("value", "clip_value")
@dataclass(frozen=True)
class ClipValue(Clipping):
    """g ← min(max(g, -limit), limit), entry by entry; the direction of the gradient may change.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipValue(1.0).apply(get_backend("numpy"), {"w": np.array([-3.0, 0.5])})
        {'w': array([-1. ,  0.5])}
    """

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """Every entry brought into [-limit, limit]."""
        return {name: nx.minimum(nx.maximum(g, -self.limit), self.limit) for name, g in gradients.items()}


@CLIPPINGS.register("norm", "clip_norm")
@dataclass(frozen=True)
class ClipNorm(Clipping):
    """g ← g · limit / max(‖g‖, limit) for each parameter by itself; each keeps its direction.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipNorm(1.0).apply(get_backend("numpy"), {"w": np.array([3.0, 4.0]), "b": np.array([0.5])})
        {'w': array([0.6, 0.8]), 'b': array([0.5])}
    """

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """Every parameter's gradient shortened to the limit."""
        return {name: g * _factor(nx, {name: g}, self.limit) for name, g in gradients.items()}


@CLIPPINGS.register("global_norm", "clip_global_norm")
@dataclass(frozen=True)
class ClipGlobalNorm(Clipping):
    """g ← g · limit / max(‖all g‖, limit): the gradients as one vector, which keeps its direction.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipGlobalNorm(1.0).apply(get_backend("numpy"), {"w": np.array([3.0]), "b": np.array([4.0])})
        {'w': array([0.6]), 'b': array([0.8])}
    """

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """All gradients shortened by one factor."""
        if not gradients:
            return {}
        factor = _factor(nx, gradients, self.limit)
        return {name: g * factor for name, g in gradients.items()}


def _factor(nx: Backend, gradients: Parameters, limit: float) -> Array:
    """limit / max(norm, limit): 1 for a short gradient, and for a zero one no division by zero."""
    return limit / nx.maximum(global_norm(nx, gradients), limit)
