"""Mean pool: pictures of the means of patches, and errors spread over these on their way back."""

from __future__ import annotations

import math

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.host import contiguous, host_of


class MeanPool:
    """Pictures whose pixels are the means of disjoint patches; what is left over at the far edges is left out.

    Args:
        shape: pictures, rows and columns.
        size: rows and columns of a patch.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, pool = get_backend("numpy"), MeanPool((1, 2, 5), (2, 2))
        >>> pool.means(nx, np.array([[1.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0, 8.0, 9.0]]))
        array([[3.5, 5.5]])
        >>> pool.back(nx, np.array([[4.0, 8.0]]))
        array([[1., 1., 2., 2., 0., 1., 1., 2., 2., 0.]])
    """

    def __init__(self, shape: tuple[int, int, int], size: tuple[int, int]) -> None:
        self._shape, self._size = shape, size
        self._pooled = (shape[0], shape[1] // size[0], shape[2] // size[1])

    def means(self, nx: Backend, sent: Array) -> Array:
        """[row, pixel of the smaller pictures] of [row, pixel]."""
        host = host_of(nx)
        if host is not None:
            from neko_rules.kernels import patches

            return host.from_host(patches.averaged(contiguous(host.host(sent)), self._shape, self._size))
        (many, rows, columns), (high, wide) = self._pooled, self._size
        whole = nx.reshape(sent, (sent.shape[0], *self._shape))[:, :, : rows * high, : columns * wide]
        parts = nx.reshape(whole, (sent.shape[0], many, rows, high, columns, wide))
        return nx.reshape(nx.sum(parts, axis=(3, 5)) / (high * wide), (sent.shape[0], many * rows * columns))

    def back(self, nx: Backend, errors: Array) -> Array:
        """The transposed: to every pixel its part of the error of its mean."""
        host = host_of(nx)
        if host is not None:
            from neko_rules.kernels import patches

            return host.from_host(patches.shared_out(contiguous(host.host(errors)), self._shape, self._size))
        (many, rows, columns), (high, wide) = self._pooled, self._size
        apart = nx.reshape(errors / (high * wide), (errors.shape[0], many, rows, 1, columns, 1))
        spread = nx.broadcast_to(apart, (errors.shape[0], many, rows, high, columns, wide))
        found = nx.reshape(spread, (errors.shape[0], many, rows * high, columns * wide))
        for axis, missing in enumerate((self._shape[1] - rows * high, self._shape[2] - columns * wide), 2):
            if missing:
                shape = [*found.shape]
                shape[axis] = missing
                found = nx.concat([found, nx.full(tuple(shape), 0.0, nx.dtype(errors))], axis)
        return nx.reshape(found, (errors.shape[0], math.prod(self._shape)))

    def number(self) -> np.ndarray:
        """Which of the smaller pictures' pixels each pixel is part of: int [pixel], -1 of none."""
        _, rows, columns = self._pooled
        picture, row, column = np.indices(self._shape)
        row, column = row // self._size[0], column // self._size[1]
        inside = (row < rows) & (column < columns)
        return np.where(inside, (picture * rows + row) * columns + column, -1).ravel()
