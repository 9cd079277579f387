"""Convolution: synapses that share weights as the places of a picture do, and small matrix products for them.

The matrix of a convolution is mostly zero. Where windows are small beside their picture, what was sent is cut into the
windows that it is seen in, side by side, and one product with the few weights stands for that with the matrix; so it is
for the gradient, and for errors on their way back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError
from neko_rules.kernels.host import contiguous, host_of
from neko_rules.layers.connectivity import CONNECTIVITIES, ReceptiveFields
from neko_rules.layers.mean_pool import MeanPool
from neko_rules.layers.shared_weights import SharedWeights

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
        index: int [place, pixel of the window], which source it is; -1 beyond the picture.
        sources: how many there are.
        filters: how many neurons there are at each place.
        pool: what makes of what was sent the pictures that are cut, whose pixels ``index`` then numbers.

    Example: a window of two pixels on a line of three.

        >>> from neko_rules.backend import get_backend
        >>> nx, patches = get_backend("numpy"), Patches(np.array([[0, 1], [1, 2]]), sources=3, filters=1)
        >>> weights = np.array([[1.0], [10.0]])
        >>> patches.product(nx, np.array([[1.0, 2.0, 3.0]]), weights)
        array([[21., 32.]])
        >>> patches.back(nx, np.array([[1.0, 2.0]]), weights)
        array([[ 1., 12., 20.]])
    """

    def __init__(self, index: np.ndarray, sources: int, filters: int, pool: MeanPool | None = None) -> None:
        self.places, self.inputs = index.shape
        self.sources, self.filters, self._pool = sources, filters, pool
        self._pixels = sources if pool is None else int(pool.number().max()) + 1
        self._padded = bool((index < 0).any())
        self._index = np.where(index < 0, self._pixels, index).ravel().astype(np.int32)

    @cached_property
    def _seen_by(self) -> np.ndarray:
        """Which entries [place · pixel of the window] each source is, int32 [source, most]; one more for none."""
        order = np.argsort(self._index, kind="stable")
        counts = np.bincount(self._index, minlength=self._pixels + 1)[: self._pixels]
        there = np.arange(max(1, counts.max())) < counts[:, None]
        found = np.full(there.shape, self._index.size, np.int32)
        found[there] = order[: counts.sum()]
        return found

    @property
    def pay(self) -> bool:
        """Whether products by patches take less time than by the matrix [source, target]."""
        return self.inputs * (self.filters + _GATHERED) < self.sources * self.filters

    def beat_events(self, density: float) -> bool:
        """Whether they take less time than adding the rows of the matrix of those that sent something.

        Args:
            density: the share of sources that did.
        """
        rows = _ADDED * density * self.sources * self.filters * self.places
        return self.pay and self.places * self.inputs * (self.filters + _GATHERED) < rows

    @property
    def pay_back(self) -> bool:
        """Whether errors come back faster by patches than by the matrix."""
        gathered = _GATHERED * self._seen_by.size
        return self.places * self.inputs * self.filters + gathered < self.sources * self.places * self.filters

    def product(self, nx: Backend, sent: Array, weights: Array) -> Array:
        """What arrives at the targets, [row, target], of what was sent, [row, source]."""

        def part(sent: Array) -> Array:
            found = nx.reshape(nx.matmul(self._cut(nx, sent), weights), (sent.shape[0], self.places, self.filters))
            return nx.reshape(nx.transpose(found, (0, 2, 1)), (sent.shape[0], self.filters * self.places))

        parts = [part(sent[rows]) for rows in _pieces(sent.shape[0], self._index.size)]
        return parts[0] if len(parts) == 1 else nx.concat(parts, 0)

    def gradient(self, nx: Backend, sent: Array, delta: Array) -> Array:
        """dE/dk of the derivatives by what arrived, [row, target]."""

        def part(sent: Array, delta: Array) -> Array:
            return nx.matmul(nx.transpose(self._cut(nx, sent), (1, 0)), self._by_place(nx, delta))

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

                return self._spread(
                    nx, host.from_host(patches.scattered(host.host(of_pixels), self._index, self._pixels))
                )
            padded = nx.concat([of_pixels, nx.full((rows, 1), 0.0, nx.dtype(delta))], 1)
            found = nx.take(padded, nx.asarray(seen_by.ravel(), "int32"), 1)
            return self._spread(nx, nx.sum(nx.reshape(found, (rows, *seen_by.shape)), axis=2))

        parts = [part(delta[rows]) for rows in _pieces(delta.shape[0], seen_by.size)]
        return parts[0] if len(parts) == 1 else nx.concat(parts, 0)

    def _spread(self, nx: Backend, errors: Array) -> Array:
        """[row, source] of errors at the pixels that are cut."""
        return errors if self._pool is None else self._pool.back(nx, errors)

    def _by_place(self, nx: Backend, delta: Array) -> Array:
        """[row · place, filter] of [row, target]."""
        apart = nx.reshape(delta, (delta.shape[0], self.filters, self.places))
        return nx.reshape(nx.transpose(apart, (0, 2, 1)), (delta.shape[0] * self.places, self.filters))

    def _cut(self, nx: Backend, sent: Array) -> Array:
        """[row · place, pixel of the window]."""
        rows = sent.shape[0]
        if self._pool is not None:
            sent = self._pool.means(nx, sent)
        host = host_of(nx)
        if host is not None:
            from neko_rules.kernels import patches

            found = host.from_host(patches.cut(contiguous(host.host(sent)), self._index))
        else:
            if self._padded:
                sent = nx.concat([sent, nx.full((rows, 1), 0.0, nx.dtype(sent))], 1)
            found = nx.take(sent, nx.asarray(self._index, "int32"), 1)
        return nx.reshape(found, (rows * self.places, self.inputs))


def _pieces(rows: int, gathered: int) -> list[slice]:
    """Consecutive rows, of each of which so many numbers are gathered.

    Example:
        >>> _pieces(3, 10), _pieces(4, _TOGETHER)
        ([slice(0, 3, None)], [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None), slice(3, 4, None)])
    """
    pieces = min(_PIECES, max(1, -(-rows * gathered // _TOGETHER)))
    size = -(-rows // pieces)
    return [slice(begin, min(rows, begin + size)) for begin in range(0, rows, size)]


@CONNECTIVITIES.register("convolution")
@dataclass(frozen=True)
class Convolution(SharedWeights):
    """A convolution: every neuron sees a window of a picture, and those of one filter have one set of weights.

    The current of the neuron of filter f at place (r, c) is

        I_frc = Σ_k Σ_ij  k_kij,f  x_k,(r s + i - p),(c s + j - p)

    with k the channels, s the stride and p the padding, as convolutional layers of deep networks have it, and x the
    pictures, or with ``pool`` those of the means of their patches. Sources and targets lie as for ``ReceptiveFields``,
    so that the ``places`` and ``filters`` of one are the ``shape`` and ``channels`` of the next. The parameter has the
    shape [channels · rows · columns of the window, filters]; a file of weights, an optimiser and a sampler know no more
    of it than that.

    Args:
        shape: rows and columns of the picture.
        filters: how many sets of weights there are, and neurons at each place.
        window: rows and columns that a neuron sees, or one number for both.
        stride: by how many pixels neighbours' windows lie apart, or two numbers.
        channels: pictures one after the other, all of which a neuron sees.
        padding: rows and columns of nothing that are put around the picture, or two numbers.
        pool: rows and columns of the patches, side by side, whose means are what the window sees; what is left over at
            the far edges is left out. With a window as large as what is left of the picture it is a dense layer behind
            a pooling one.

    Example: 28 by 28 pixels, 8 filters of 5 by 5, and 16 of all of these.

        >>> first = Convolution((28, 28), filters=8, stride=2)
        >>> first.places, first.neurons, first.weight_shape
        ((12, 12), 1152, (25, 8))
        >>> second = Convolution(first.places, filters=16, stride=2, channels=first.filters)
        >>> second.places, second.neurons, second.weight_shape
        ((4, 4), 256, (200, 16))

    A layer that has one need not be told its size:

        >>> from neko_rules import Layer, Stack
        >>> layers = [Layer("lif", connectivity=each, recurrent=False) for each in (first, second)]
        >>> Stack(layers, 10, inputs=784)
        Stack(hidden0 1152, hidden1 256, readout 10; numpy, float32)

    Raises:
        ArgumentError: the window does not fit into the picture.
    """

    shape: Sequence[int]
    filters: int
    window: int | Sequence[int] = 5
    stride: int | Sequence[int] = 1
    channels: int = 1
    padding: int | Sequence[int] = 0
    pool: int | Sequence[int] = 1

    def __post_init__(self) -> None:
        arguments.integer("filters", self.filters, at_least=1)
        for name in ("shape", "pool"):
            object.__setattr__(self, name, arguments.pair(name, getattr(self, name), at_least=1))
        if min(self._seen) < 1:
            raise ArgumentError(
                "a patch must fit into the picture", received=f"pool {self.pool} of {self.shape} pixels"
            )
        for name in ("window", "stride", "padding"):
            object.__setattr__(self, name, getattr(self._fields, name))

    @property
    def _seen(self) -> tuple[int, int]:
        """Rows and columns of the picture that the window sees."""
        (rows, columns), (high, wide) = self.shape, self.pool  # type: ignore[misc]
        return rows // high, columns // wide

    @property
    def _pool(self) -> MeanPool | None:
        rows, columns = self.shape
        return None if self.part == 1 else MeanPool((self.channels, rows, columns), self.pool)  # type: ignore[arg-type]

    @property
    def _fields(self) -> ReceptiveFields:
        return ReceptiveFields(self._seen, self.window, self.stride, self.channels, self.padding)

    @property
    def part(self) -> float:
        """Of a mean every pixel has its part."""
        return 1 / math.prod(self.pool)  # type: ignore[arg-type]

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of places that the window takes."""
        return self._fields.places

    @property
    def neurons(self) -> int:
        """How many neurons receive: one of each filter at every place."""
        rows, columns = self.places
        return self.filters * rows * columns

    @property
    def weight_shape(self) -> tuple[int, int]:
        """[channels · rows · columns of the window, filters]."""
        rows, columns = self._fields.window  # type: ignore[misc]
        return self.channels * rows * columns, self.filters

    def numbers(self) -> np.ndarray:
        """The same pixel of every window has the same weight to the neurons of one filter."""
        fields, (inputs, filters) = self._fields, self.weight_shape
        seen = fields.seen()[None, :, None, :]
        channel = (inputs // self.channels) * np.arange(self.channels)[:, None, None, None]
        number = (channel + seen) * filters + np.arange(filters)[:, None]
        found = np.where(seen >= 0, number, -1).reshape(fields.sources, self.neurons)
        pool = self._pool
        # One more row, of what is part of no patch.
        return found if pool is None else np.concatenate([found, np.full_like(found[:1], -1)])[pool.number()]

    @property
    def patches(self) -> Patches:
        """The windows of pictures side by side."""
        fields, (inputs, filters) = self._fields, self.weight_shape
        seen, within = fields.seen(), inputs // self.channels
        index = np.full((self.channels, seen.shape[1], within), -1)
        pixels, places = np.nonzero(seen >= 0)
        for channel in range(self.channels):
            index[channel, places, seen[pixels, places]] = channel * len(seen) + pixels
        sources = self.channels * math.prod(self.shape)
        return Patches(index.transpose(1, 0, 2).reshape(seen.shape[1], inputs), sources, filters, self._pool)
