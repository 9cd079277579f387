"""Convolution: synapses that share weights as the places of a picture do, of pictures that may be pooled before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError
from neko_rules.layers.average_pooling import AveragePooling
from neko_rules.layers.connectivity import CONNECTIVITIES, ReceptiveFields
from neko_rules.layers.patches import Patches
from neko_rules.layers.shared_weights import SharedWeights


@CONNECTIVITIES.register("convolution")
@dataclass(frozen=True)
class Convolution(SharedWeights):
    """A convolution: every neuron sees a window of a picture, and those of one filter have one set of weights.

    The current of the neuron of filter f at place (r, c) is

        I_frc = Σ_k Σ_ij  k_kij,f  x_k,(r s + i - p),(c s + j - p)

    with k the channels, s the stride and p the padding, as convolutional layers of deep networks have it. Sources and
    targets lie as for ``ReceptiveFields``, so that the ``places`` and ``filters`` of one are the ``shape`` and
    ``channels`` of the next. The parameter has the shape [channels · rows · columns of the window, filters]; a file of
    weights, an optimiser and a sampler know no more of it than that.

    With ``pool``, average pooling comes before: x is then the mean of each patch of so many pixels, side by side, of
    what the sources send, and window, stride and padding are of that smaller picture. Rows and columns at the lower and
    right edges that do not fill a patch are left out. The first weights of initializers that go by the number of inputs
    are larger by √ of the pixels of a patch, since the mean of independent spikes varies less than one of them does.

    Args:
        shape: rows and columns of the picture.
        filters: how many sets of weights there are, and neurons at each place.
        window: rows and columns that a neuron sees, or one number for both.
        stride: by how many pixels neighbours' windows lie apart, or two numbers.
        channels: pictures one after the other, all of which a neuron sees.
        padding: rows and columns of nothing that are put around the picture, or two numbers.
        pool: rows and columns of the pixels that are averaged before, or one number for both; 1 for none.

    Example: 28 by 28 pixels, 8 filters of 5 by 5, and 16 of all of these.

        >>> first = Convolution((28, 28), filters=8, stride=2)
        >>> first.places, first.neurons, first.weight_shape
        ((12, 12), 1152, (25, 8))
        >>> second = Convolution(first.places, filters=16, stride=2, channels=first.filters)
        >>> second.places, second.neurons, second.weight_shape
        ((4, 4), 256, (200, 16))

    The second on means of two by two of what the neurons of the first send:

        >>> pooled = Convolution(first.places, filters=16, window=3, channels=first.filters, pool=2)
        >>> pooled.places, pooled.neurons, pooled.weight_shape
        ((4, 4), 256, (72, 16))

    A layer that has one need not be told its size:

        >>> from neko_rules import Layer, Stack
        >>> layers = [Layer("lif", connectivity=each, recurrent=False) for each in (first, second)]
        >>> Stack(layers, 10, inputs=784)
        Stack(hidden0 1152, hidden1 256, readout 10; numpy, float32)

    Raises:
        ArgumentError: the window, or what is pooled, does not fit into the picture.
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
            object.__setattr__(self, name, getattr(self.pooling, name))
        for name in ("window", "stride", "padding"):
            object.__setattr__(self, name, getattr(self._fields, name))

    @property
    def pooling(self) -> AveragePooling:
        """What makes the pictures that windows are of."""
        return AveragePooling(self.shape, self.pool, self.channels)

    @property
    def _fields(self) -> ReceptiveFields:
        try:
            return ReceptiveFields(self.pooling.places, self.window, self.stride, self.channels, self.padding)
        except ArgumentError as error:
            if self.pooled == 1:
                raise
            raise ArgumentError(f"on {self.shape} pixels pooled by {self.pool}: {error}") from error

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
    def pooled(self) -> int:
        """How many pixels are averaged into one."""
        return self.pooling.together

    @property
    def weight_shape(self) -> tuple[int, int]:
        """[channels · rows · columns of the window, filters]."""
        rows, columns = self._fields.window  # type: ignore[misc]
        return self.channels * rows * columns, self.filters

    def numbers(self) -> np.ndarray:
        """The same pixel of every window has the same weight to the neurons of one filter, and so have those pooled."""
        (inputs, filters), seen = self.weight_shape, self._fields.seen()[None, :, None, :]
        channel = (inputs // self.channels) * np.arange(self.channels)[:, None, None, None]
        number = (channel + seen) * filters + np.arange(filters)[:, None]
        of_means = np.where(seen >= 0, number, -1).reshape(self.pooling.pixels, self.neurons)
        if self.pooled == 1:
            return of_means
        # A pixel counts to one mean at most, and a window sees that once at most: no synapse has two weights.
        nothing = np.full((1, self.neurons), -1)
        return np.concatenate([of_means, nothing])[self.pooling.of_pixel]

    @property
    def patches(self) -> Patches:
        """The windows of pictures side by side."""
        (inputs, filters), seen = self.weight_shape, self._fields.seen()
        index = np.full((self.channels, seen.shape[1], inputs // self.channels), -1)
        pixels, places = np.nonzero(seen >= 0)
        for channel in range(self.channels):
            index[channel, places, seen[pixels, places]] = channel * len(seen) + pixels
        pooling = None if self.pooled == 1 else self.pooling
        return Patches(index.transpose(1, 0, 2).reshape(-1, inputs), self.pooling.pixels, filters, pooling)


@CONNECTIVITIES.register("pooled_dense")
@dataclass(frozen=True)
class PooledDense(SharedWeights):
    """All to all from pooled pictures: every neuron receives the means of the patches of all of them.

    The same as a ``Convolution`` with a window of the whole pooled picture, and as average pooling and a dense layer of
    deep networks: the parameter has the shape [channels · rows · columns of the pooled picture, neurons].

    Args:
        shape: rows and columns of a picture.
        neurons: how many receive; of a readout, the number of outputs.
        pool: rows and columns of the pixels that are averaged, side by side, or one number for both.
        channels: pictures one after the other.

    Example: convolution, pool, convolution, pool, dense.

        >>> from neko_rules import Layer, Stack
        >>> first = Convolution((28, 28), filters=6, padding=2)
        >>> second = Convolution(first.places, filters=16, channels=first.filters, pool=2)
        >>> last = PooledDense(second.places, neurons=10, pool=2, channels=second.filters)
        >>> layers = [Layer("lif", connectivity=each, recurrent=False) for each in (first, second)]
        >>> network = Stack(layers, 10, inputs=784, readout_connectivity=last)
        >>> network
        Stack(hidden0 4704, hidden1 1600, readout 10; numpy, float32)
        >>> network.parameters["readout.input.weight"].shape
        (400, 10)

    Raises:
        ArgumentError: what is pooled does not fit into the picture.
    """

    shape: Sequence[int]
    neurons: int
    pool: int | Sequence[int] = 2
    channels: int = 1

    def __post_init__(self) -> None:
        arguments.integer("neurons", self.neurons, at_least=1)
        for name in ("shape", "pool"):
            object.__setattr__(self, name, getattr(self.pooling, name))

    @property
    def pooling(self) -> AveragePooling:
        """What makes the pictures that neurons see."""
        return AveragePooling(self.shape, self.pool, self.channels)

    @property
    def _whole(self) -> Convolution:
        return Convolution(self.shape, self.neurons, self.pooling.places, channels=self.channels, pool=self.pool)

    @property
    def pooled(self) -> int:
        """How many pixels are averaged into one."""
        return self._whole.pooled

    @property
    def weight_shape(self) -> tuple[int, int]:
        """[channels · rows · columns of the pooled picture, neurons]."""
        return self._whole.weight_shape

    def numbers(self) -> np.ndarray:
        """The pixels of one mean have one weight to each neuron."""
        return self._whole.numbers()

    @property
    def patches(self) -> Patches:
        """Products with the weights, behind the pooling."""
        return self._whole.patches
