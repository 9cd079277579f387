"""Linear maps: what a chain of NIR's nodes does between two populations, folded into the weights of one connection."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.errors import DataError
from neko_rules.layers.convolution import Convolution


@dataclass(frozen=True)
class LinearMap:
    """A map of vectors: a factor for each element, a convolution, or a matrix.

    Args:
        shape: of what comes out; its elements lie row by row.
        factors: one for each element, if that is all.
        convolution: with its ``weights`` [channels · rows · columns, filters], if it is one.
        weights: of the convolution, or of the matrix [source, target].

    Example:
        >>> twice = LinearMap.identity((3,)).scaled(np.array([2.0, 2.0, 4.0]))
        >>> twice.matrix().tolist()
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]]
        >>> twice.times(np.ones((3, 1))).weights.tolist()
        [[2.0], [2.0], [4.0]]
    """

    shape: tuple[int, ...]
    factors: np.ndarray | None = None
    convolution: Convolution | None = None
    weights: np.ndarray | None = None

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> LinearMap:
        """What changes nothing."""
        return cls(shape, factors=np.ones(math.prod(shape)))

    @property
    def size(self) -> int:
        """How many elements come out."""
        return math.prod(self.shape)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.factors is not None and bool((self.factors == 1).all())

    def matrix(self) -> np.ndarray:
        """All weights [source, target]."""
        if self.factors is not None:
            return np.diag(self.factors)
        assert self.weights is not None, "what is no factor has weights"
        if self.convolution is None:
            return self.weights
        found: np.ndarray = self.convolution.sharing().spread(get_backend("numpy"), self.weights)
        return found

    def parameter(self) -> np.ndarray:
        """The weights as a connection has them."""
        return self.matrix() if self.convolution is None or self.weights is None else self.weights

    def reshaped(self, shape: tuple[int, ...]) -> LinearMap:
        """The same elements in another shape."""
        return replace(self, shape=shape)

    def scaled(self, factors: np.ndarray) -> LinearMap:
        """Followed by a factor for each element."""
        if self.factors is not None:
            return replace(self, factors=self.factors * factors)
        assert self.weights is not None, "what is no factor has weights"
        if self.convolution is None:
            return replace(self, weights=self.weights * factors)
        of_filter = per_filter(factors, self.convolution.filters)
        if of_filter is not None:
            return replace(self, weights=self.weights * of_filter)
        return LinearMap(self.shape, weights=self.matrix() * factors)

    def times(self, matrix: np.ndarray) -> LinearMap:
        """Followed by a matrix [source, target].

        Raises:
            DataError: it takes another number of elements.
        """
        if len(matrix) != self.size:
            raise DataError(f"a matrix takes {len(matrix)} values", received=f"{self.size} of them")
        whole = matrix if self.is_identity else self.matrix() @ matrix
        return LinearMap((matrix.shape[1],), weights=whole)

    def convolved(self, convolution: Convolution, weights: np.ndarray) -> LinearMap:
        """Followed by a convolution.

        Raises:
            DataError: its pictures have another number of elements.
        """
        after = LinearMap((convolution.filters, *convolution.places), convolution=convolution, weights=weights)
        pixels = convolution.channels * math.prod(convolution.shape)
        if pixels != self.size:
            raise DataError(f"a convolution takes {pixels} values", received=f"{self.size} of them")
        if self.is_identity:
            return after
        return LinearMap(after.shape, weights=self.matrix() @ after.matrix())


def per_filter(values: np.ndarray, filters: int) -> np.ndarray | None:
    """The value of each filter, where all its places have one; None where they differ.

    Example:
        >>> per_filter(np.array([1.0, 1.0, 3.0, 3.0]), 2).tolist(), per_filter(np.array([1.0, 2.0, 3.0, 3.0]), 2)
        ([1.0, 3.0], None)
    """
    of_place = values.reshape(filters, -1)
    first = of_place[:, 0]
    return first if bool((of_place == first[:, None]).all()) else None
