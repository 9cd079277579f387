"""Patches: small matrix products in the place of large ones that are mostly zero, as a convolution's are.

Where windows are small beside their picture, what was sent is cut into the windows that it is seen in, side by side,
and one product with the few weights stands for that with the matrix; so it is for the gradient, and for errors on their
way back.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.host import contiguous, host_of
from neko_rules.layers.average_pooling import AveragePooling

_GATHERED = 50
"""How many multiplications of a matrix product take as long as gathering one number."""

_ADDED = 5
"""How many multiplications of a matrix product take as long as adding one number of a row for an event."""

_TOGETHER = 2**22
"""Numbers that are gathered at a time, 16 MiB in single precision, unless that makes too many pieces."""

_PIECES = 16
"""Of the rows at most, each of which a library compiles by itself."""


class Patches:
    """The windows of pictures side by side, with which a convolution is a small matrix product instead of a large one.

    Args:
        index: int [place, pixel of the window], which pixel of the pictures it is; -1 beyond them.
        sources: how many pixels there are.
        filters: how many neurons there are at each place.
        pooling: what makes these pictures of larger ones, which are sent; None where they are sent themselves.

    Example: a window of two pixels on a line of three.

        >>> from neko_rules.backend import get_backend
        >>> nx, patches = get_backend("numpy"), Patches(np.array([[0, 1], [1, 2]]), sources=3, filters=1)
        >>> weights = np.array([[1.0], [10.0]])
        >>> patches.product(nx, np.array([[1.0, 2.0, 3.0]]), weights)
        array([[21., 32.]])
        >>> patches.back(nx, np.array([[1.0, 2.0]]), weights)
        array([[ 1., 12., 20.]])
    """

    def __init__(self, index: np.ndarray, sources: int, filters: int, pooling: AveragePooling | None = None) -> None:
        self.places, self.inputs = index.shape
        self.filters = filters
        self.sources = sources if pooling is None else pooling.sources
        """How many neurons send: pixels before they are pooled."""
        self._pooling, self._pixels = pooling, sources
        self._averaged = 0 if pooling is None else _GATHERED * pooling.sources
        self._padded = bool((index < 0).any())
        self._index = np.where(index < 0, sources, index).ravel().astype(np.int32)

    @cached_property
    def _seen_by(self) -> np.ndarray:
        """Which entries [place · pixel of the window] each pixel is, int32 [pixel, most]; one more for none."""
        order = np.argsort(self._index, kind="stable")
        counts = np.bincount(self._index, minlength=self._pixels + 1)[: self._pixels]
        there = np.arange(max(1, counts.max())) < counts[:, None]
        found = np.full(there.shape, self._index.size, np.int32)
        found[there] = order[: counts.sum()]
        return found

    @property
    def _multiplied(self) -> int:
        """How many multiplications take as long as a product by patches."""
        return self.places * self.inputs * (self.filters + _GATHERED) + self._averaged

    @property
    def pay(self) -> bool:
        """Whether products by patches take less time than by the matrix [source, target]."""
        return self._multiplied < self.sources * self.filters * self.places

    def beat_events(self, density: float) -> bool:
        """Whether they take less time than adding the rows of the matrix of those that sent something.

        Args:
            density: the share of sources that did.
        """
        rows = _ADDED * density * self.sources * self.filters * self.places
        return self.pay and self._multiplied < rows

    @property
    def pay_back(self) -> bool:
        """Whether errors come back faster by patches than by the matrix."""
        gathered = _GATHERED * self._seen_by.size + self._averaged
        return self.places * self.inputs * self.filters + gathered < self.sources * self.places * self.filters

    def product(self, nx: Backend, sent: Array, weights: Array) -> Array:
        """What arrives at the targets, [row, target], of what was sent, [row, source]."""

        def part(sent: Array) -> Array:
            found = nx.reshape(nx.matmul(self._cut(nx, sent), weights), (sent.shape[0], self.places, self.filters))
            return nx.reshape(nx.transpose(found, (0, 2, 1)), (sent.shape[0], self.filters * self.places))

        sent = self._pooled(nx, sent)
        parts = [part(sent[rows]) for rows in _pieces(sent.shape[0], self._index.size)]
        return parts[0] if len(parts) == 1 else nx.concat(parts, 0)

    def gradient(self, nx: Backend, sent: Array, delta: Array) -> Array:
        """dE/dk of the derivatives by what arrived, [row, target]."""

        def part(sent: Array, delta: Array) -> Array:
            return nx.matmul(nx.transpose(self._cut(nx, sent), (1, 0)), self._by_place(nx, delta))

        sent = self._pooled(nx, sent)
        parts = [part(sent[rows], delta[rows]) for rows in _pieces(sent.shape[0], self._index.size)]
        return sum(parts[1:], parts[0])

    def back(self, nx: Backend, delta: Array, weights: Array) -> Array:
        """δ Wᵀ: what comes back to the sources, [row, source], of errors at the targets, [row, target]."""
        seen_by, transposed = self._seen_by, nx.transpose(weights, (1, 0))

        def part(delta: Array) -> Array:
            rows = delta.shape[0]
            of_pixels = nx.reshape(nx.matmul(self._by_place(nx, delta), transposed), (rows, self._index.size))
            host = host_of(nx)
            if host is not None:
                from neko_rules.kernels import patches

                return host.from_host(patches.scattered(host.host(of_pixels), self._index, self._pixels))
            padded = nx.concat([of_pixels, nx.full((rows, 1), 0.0, nx.dtype(delta))], 1)
            found = nx.take(padded, nx.asarray(seen_by.ravel(), "int32"), 1)
            return nx.sum(nx.reshape(found, (rows, *seen_by.shape)), axis=2)

        parts = [part(delta[rows]) for rows in _pieces(delta.shape[0], seen_by.size)]
        found = parts[0] if len(parts) == 1 else nx.concat(parts, 0)
        return found if self._pooling is None else self._pooling.back(nx, found)

    def _pooled(self, nx: Backend, sent: Array) -> Array:
        """The pictures that windows are of."""
        return sent if self._pooling is None else self._pooling.means(nx, sent)

    def _by_place(self, nx: Backend, delta: Array) -> Array:
        """[row · place, filter] of [row, target]."""
        apart = nx.reshape(delta, (delta.shape[0], self.filters, self.places))
        return nx.reshape(nx.transpose(apart, (0, 2, 1)), (delta.shape[0] * self.places, self.filters))

    def _cut(self, nx: Backend, sent: Array) -> Array:
        """[row · place, pixel of the window]."""
        host = host_of(nx)
        if host is not None:
            from neko_rules.kernels import patches

            found = host.from_host(patches.cut(contiguous(host.host(sent)), self._index))
        else:
            if self._padded:
                sent = nx.concat([sent, nx.full((sent.shape[0], 1), 0.0, nx.dtype(sent))], 1)
            found = nx.take(sent, nx.asarray(self._index, "int32"), 1)
        return nx.reshape(found, (sent.shape[0] * self.places, self.inputs))


def _pieces(rows: int, gathered: int) -> list[slice]:
    """Consecutive rows, of each of which so many numbers are gathered.

    Example:
        >>> _pieces(3, 10), _pieces(4, _TOGETHER)
        ([slice(0, 3, None)], [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None), slice(3, 4, None)])
    """
    pieces = min(_PIECES, max(1, -(-rows * gathered // _TOGETHER)))
    size = -(-rows // pieces)
    return [slice(begin, min(rows, begin + size)) for begin in range(0, rows, size)]
