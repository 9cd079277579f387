"""Linear maps: what a chain of NIR's nodes does between two populations, folded into the weights of one connection."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.errors import DataError
from neko_rules.layers.average_pooling import AveragePooling
from neko_rules.layers.convolution import Convolution, PooledDense


@dataclass(frozen=True)
class LinearMap:
    """A map of vectors: a factor for each element, average pooling, synapses that share weights, or a matrix.

    Args:
        shape: of what comes out; its elements lie row by row.
        factors: one for each element, if that is all.
        pooling: of pictures, if that is all.
        shared: the synapses that share ``weights``, if it is such.
        weights: those, or the matrix [source, target].

    Example:
        >>> twice = LinearMap.identity((3,)).scaled(np.array([2.0, 2.0, 4.0]))
        >>> twice.matrix().tolist()
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]]
        >>> twice.times(np.ones((3, 1))).weights.tolist()
        [[2.0], [2.0], [4.0]]
    """

    shape: tuple[int, ...]
    factors: np.ndarray | None = None
    pooling: AveragePooling | None = None
    shared: Convolution | PooledDense | None = None
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
        nx = get_backend("numpy")
        if self.pooling is not None:
            return np.asarray(self.pooling.means(nx, np.eye(self.pooling.sources)))
        assert self.weights is not None, "what is neither factors nor pooling has weights"
        return self.weights if self.shared is None else np.asarray(self.shared.sharing().spread(nx, self.weights))

    def parameter(self) -> np.ndarray:
        """The weights as a connection has them."""
        return self.matrix() if self.shared is None or self.weights is None else self.weights

    def reshaped(self, shape: tuple[int, ...]) -> LinearMap:
        """The same elements in another shape."""
        return replace(self, shape=shape)

    def scaled(self, factors: np.ndarray) -> LinearMap:
        """Followed by a factor for each element."""
        if self.factors is not None:
            return replace(self, factors=self.factors * factors)
        if self.shared is not None and self.weights is not None:
            of_filter = per_filter(factors, self.weights.shape[1])
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
        if self.pooling is not None:
            pictures = self.pooling
            pooled = PooledDense(pictures.shape, matrix.shape[1], pictures.pool, pictures.channels)
            return LinearMap((matrix.shape[1],), shared=pooled, weights=matrix)
        whole = matrix if self.is_identity else self.matrix() @ matrix
        return LinearMap((matrix.shape[1],), weights=whole)

    def convolved(self, convolution: Convolution, weights: np.ndarray) -> LinearMap:
        """Followed by a convolution.

        Raises:
            DataError: its pictures have another number of elements.
        """
        after = LinearMap((convolution.filters, *convolution.places), shared=convolution, weights=weights)
        pixels = convolution.channels * math.prod(convolution.shape)
        if pixels != self.size:
            raise DataError(f"a convolution takes {pixels} values", received=f"{self.size} of them")
        if self.is_identity:
            return after
        if self.pooling is not None:
            return replace(after, shared=replace(convolution, shape=self.pooling.shape, pool=self.pooling.pool))
        return LinearMap(after.shape, weights=self.matrix() @ after.matrix())

    def pooled(self, pooling: AveragePooling) -> LinearMap:
        """Followed by average pooling.

        Raises:
            DataError: its pictures have another number of elements.
        """
        if pooling.sources != self.size:
            raise DataError(f"average pooling takes {pooling.sources} values", received=f"{self.size} of them")
        after = LinearMap((pooling.channels, *pooling.places), pooling=pooling)
        return after if self.is_identity else LinearMap(after.shape, weights=self.matrix() @ after.matrix())


def per_filter(values: np.ndarray, filters: int) -> np.ndarray | None:
    """The value of each filter, where all its places have one; None where they differ.

    Example:
        >>> per_filter(np.array([1.0, 1.0, 3.0, 3.0]), 2).tolist(), per_filter(np.array([1.0, 2.0, 3.0, 3.0]), 2)
        ([1.0, 3.0], None)
    """
    of_place = values.reshape(filters, -1)
    first = of_place[:, 0]
    return first if bool((of_place == first[:, None]).all()) else None
