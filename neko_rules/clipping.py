"""Gradient clipping: bounds on the size of a gradient, so that a single steep place cannot throw the weights far away.

Reference:
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from neko_rules.alike import Alike
from neko_rules.arguments import number
from neko_rules.backend import Backend, Parameters, global_norm
from neko_rules.registry import Registry

__all__ = ["CLIPPINGS", "ClipGlobalNorm", "ClipNorm", "ClipValue", "Clipping"]


@dataclass(frozen=True)
class Clipping(Alike, ABC):
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


class EntryClipping(Clipping):
    """A bound that is a formula of an entry and of the length of a gradient, so that it can be part of a loop."""

    norm: ClassVar[Literal["", "each", "all"]] = ""
    """Whose length it is: of the gradient of every parameter, of all together, or of none."""

    @abstractmethod
    def limited(self, nx: Any, g: Any, norm: Any) -> Any:
        """One gradient, or an entry of one.

        Args:
            nx: backend.
            g: the gradient.
            norm: the length that ``norm`` says; None where it is none.
        """


CLIPPINGS: Registry[Clipping] = Registry("clipping", Clipping)  # type: ignore[type-abstract]


@CLIPPINGS.register("value", "clip_value")
@dataclass(frozen=True)
class ClipValue(EntryClipping):
    """g ← min(max(g, -limit), limit), entry by entry; the direction of the gradient may change.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipValue(1.0).apply(get_backend("numpy"), {"w": np.array([-3.0, 0.5])})
        {'w': array([-1. ,  0.5])}
    """

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """Every entry brought into [-limit, limit]."""
        return {name: self.limited(nx, g, None) for name, g in gradients.items()}

    def limited(self, nx: Any, g: Any, norm: Any) -> Any:
        """An entry brought into [-limit, limit]."""
        return nx.minimum(nx.maximum(g, -self.limit), self.limit)


@CLIPPINGS.register("norm", "clip_norm")
@dataclass(frozen=True)
class ClipNorm(EntryClipping):
    """g ← g · limit / max(‖g‖, limit) for each parameter by itself; each keeps its direction.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipNorm(1.0).apply(get_backend("numpy"), {"w": np.array([3.0, 4.0]), "b": np.array([0.5])})
        {'w': array([0.6, 0.8]), 'b': array([0.5])}
    """

    norm: ClassVar[Literal["", "each", "all"]] = "each"

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """Every parameter's gradient shortened to the limit."""
        return {name: self.limited(nx, g, global_norm(nx, {name: g})) for name, g in gradients.items()}

    def limited(self, nx: Any, g: Any, norm: Any) -> Any:
        """A gradient times limit / max(norm, limit)."""
        # 1 for a short gradient, and for a zero one no division by zero.
        return g * (self.limit / nx.maximum(norm, self.limit))


@CLIPPINGS.register("global_norm", "clip_global_norm")
@dataclass(frozen=True)
class ClipGlobalNorm(ClipNorm):
    """g ← g · limit / max(‖all g‖, limit): the gradients as one vector, which keeps its direction.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> ClipGlobalNorm(1.0).apply(get_backend("numpy"), {"w": np.array([3.0]), "b": np.array([4.0])})
        {'w': array([0.6]), 'b': array([0.8])}
    """

    norm: ClassVar[Literal["", "each", "all"]] = "all"

    def apply(self, nx: Backend, gradients: Parameters) -> Parameters:
        """All gradients shortened by one factor."""
        if not gradients:
            return {}
        norm = global_norm(nx, gradients)
        return {name: self.limited(nx, g, norm) for name, g in gradients.items()}
