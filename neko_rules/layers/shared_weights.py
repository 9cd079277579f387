"""Shared weights: synapses that have one weight together, as all places of a convolution have.

The parameter k of such a connection has fewer numbers than the matrix W that a network runs with,

    W_ij = k_n(i,j) / p,  0 where there is no synapse        dE/dk_m = Σ_(i,j): n(i,j)=m dE/dW_ij / p

with p = 1, or how many neurons reach another with the mean of what they send, which has one weight. Whatever finds
dE/dW so finds dE/dk: every rule takes a convolution as it takes a dense connection, and what it keeps of parameters (an
optimiser's memory, a sampler's chain, a crossbar's devices, a file) is of k alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError
from neko_rules.kernels.host import contiguous, host_of
from neko_rules.layers.connectivity import Connectivity
from neko_rules.layers.patches import Patches


class Sharing:
    """Which synapses have which weight.

    Args:
        numbers: int [source, target], the place of a synapse's weight among all; -1 where there is no synapse.
        shape: of the weights.
        pooled: p, how many synapses of a neuron stand for one weight of their mean.

    Example: two weights for the two inputs of each of two neurons.

        >>> from neko_rules.backend import get_backend
        >>> nx, sharing = get_backend("numpy"), Sharing(np.array([[0, -1], [1, 0], [-1, 1]]), (2, 1))
        >>> matrix = sharing.spread(nx, np.array([[0.5], [2.0]]))
        >>> matrix
        array([[0.5, 0. ],
               [2. , 0.5],
               [0. , 2. ]])
        >>> sharing.gathered(nx, np.array([[1.0, 9.0], [10.0, 2.0], [9.0, 20.0]]))
        array([[ 3.],
               [30.]])
    """

    def __init__(self, numbers: np.ndarray, shape: tuple[int, int], pooled: int = 1) -> None:
        self.ends = numbers.shape
        self.shape, self.pooled = shape, pooled
        flat = numbers.ravel()
        self._places = np.flatnonzero(flat >= 0)
        self._which = flat[self._places]
        self.synapses = np.bincount(self._which, minlength=shape[0] * shape[1]).reshape(shape)
        """How many synapses have each weight."""

    @cached_property
    def _of_place(self) -> np.ndarray:
        """The weight of every place of the matrix, and for what is no synapse one more: int32, flat."""
        found = np.full(self.ends[0] * self.ends[1], self.synapses.size, np.int32)
        found[self._places] = self._which
        return found

    @cached_property
    def _of_weight(self) -> tuple[np.ndarray, np.ndarray]:
        """The places of every weight, [weight, place], and which of them there are."""
        order = np.argsort(self._which, kind="stable")
        counts = self.synapses.ravel()
        there = np.arange(max(1, counts.max())) < counts[:, None]
        places = np.zeros(there.shape, np.int32)
        places[there] = self._places[order]
        return places, there

    def spread(self, nx: Backend, weights: Array) -> Array:
        """The matrix [source, target] of weights in the shape of the parameter."""
        host = host_of(nx)
        weights = self._divided(nx, weights)
        if host is not None:
            given = host.host(weights)
            matrix = np.zeros(self.ends[0] * self.ends[1], given.dtype)
            matrix[self._places] = given.reshape(-1)[self._which]
            return host.from_host(matrix.reshape(self.ends))
        none = nx.full((1,), 0.0, nx.dtype(weights))
        padded = nx.concat([nx.reshape(weights, (-1,)), none], 0)
        return nx.reshape(nx.take(padded, nx.asarray(self._of_place, "int32"), 0), self.ends)

    def gathered(self, nx: Backend, matrix: Array) -> Array:
        """dE/dk of dE/dW: what a matrix [source, target] has at the synapses of each weight, summed, over p."""
        host, (places, there) = host_of(nx), self._of_weight
        if host is not None:
            flat = contiguous(host.host(matrix)).reshape(-1)
            found = np.where(there, flat[places], 0).sum(axis=1, dtype=flat.dtype)
            return self._divided(nx, host.from_host(found.reshape(self.shape)))
        flat = nx.take(nx.reshape(matrix, (-1,)), nx.asarray(places.ravel(), "int32"), 0)
        of_weight = nx.reshape(flat, places.shape) * nx.asarray(there, nx.dtype(matrix))
        return self._divided(nx, nx.reshape(nx.sum(of_weight, axis=1), self.shape))

    def mean(self, nx: Backend, matrix: Array) -> Array:
        """The weights whose matrix comes nearest to this: p times means over synapses; 0 of what no synapse has."""
        many = np.maximum(self.synapses, 1) / self.pooled**2
        return self.gathered(nx, matrix) / nx.asarray(many, nx.dtype(matrix))

    def _divided(self, nx: Backend, weights: Array) -> Array:
        return weights if self.pooled == 1 else weights / nx.full((1,), self.pooled, nx.dtype(weights))


@dataclass(frozen=True)
class SharedWeights(Connectivity):
    """A connectivity whose synapses share weights.

    One of your own says in ``numbers`` which weight each synapse has, and where weights are of means, in ``pooled``, of
    how many.
    """

    @property
    def pooled(self) -> int:
        """How many neurons reach another with the mean of what they send: each synapse is its weight over that."""
        return 1

    @property
    def patches(self) -> Patches | None:
        """What makes small matrix products in the place of those with the matrix, if anything does."""
        return None

    @property
    @abstractmethod
    def weight_shape(self) -> tuple[int, int]:
        """The shape of the weights: how many a neuron sums over, and how many neurons have others."""

    @abstractmethod
    def numbers(self) -> np.ndarray:
        """The place of every synapse's weight among the weights made flat: int [source, target]; -1 for none."""

    def sharing(self, hollow: bool = False) -> Sharing:
        """Which synapses have which weight.

        Args:
            hollow: whether the diagonal is left out.
        """
        found = np.array(self.numbers())
        if hollow:
            np.fill_diagonal(found, -1)
        return Sharing(found, self.weight_shape, self.pooled)

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        """Where there is a synapse, in populations of the right numbers of neurons."""
        found = self.numbers()
        if found.shape != (sources, targets):
            raise ArgumentError(
                f"{self} leads from {found.shape[0]} to {found.shape[1]} neurons",
                received=f"from {sources} to {targets}",
            )
        return found >= 0
