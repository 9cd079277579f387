"""Convolution: synapses that share weights as the places of a picture do, or of the means of its patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError
from neko_rules.layers.connectivity import CONNECTIVITIES, ReceptiveFields
from neko_rules.layers.mean_pool import MeanPool
from neko_rules.layers.patches import Patches
from neko_rules.layers.shared_weights import SharedWeights


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
