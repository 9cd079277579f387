"""Connectivity: which neurons of one population reach which of another; the other weights are zero and stay zero.

Weights stay one matrix W [source, target], of which only M ∘ W counts, and so does only M ∘ dE/dW: every rule, sampler
and backend takes a sparse network as it takes a dense one. Masks are drawn by NumPy, from a seed and the name of the
weight: one seed means the same synapses on every backend.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.alike import Alike
from neko_rules.errors import ArgumentError
from neko_rules.registry import Registry

__all__ = [
    "CONNECTIVITIES",
    "Connectivity",
    "Dense",
    "FixedInDegree",
    "Mask",
    "OneToOne",
    "ReceptiveFields",
    "Sparse",
    "connectivity",
]


@dataclass(frozen=True)
class Connectivity(Alike, ABC):
    """Which entries of a weight matrix [source, target] are synapses.

    A connectivity of your own says it in ``draw``, and is registered as any other:
    ``@CONNECTIVITIES.register("ring")``.
    """

    complete: ClassVar[bool] = False
    """Whether every neuron reaches every other, whatever their numbers."""

    def mask(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        """Where there is a synapse: bool [sources, targets].

        Args:
            rng: the generator that is drawn from.
            sources: number of presynaptic neurons.
            targets: number of postsynaptic neurons.

        Raises:
            ArgumentError: the connectivity is not one of such numbers of neurons.
        """
        found = np.asarray(self.draw(rng, sources, targets))
        if found.shape != (sources, targets) or not np.isin(found, (0, 1)).all():
            raise ArgumentError(
                f"{type(self).__name__} must give a mask of zeros and ones of shape {(sources, targets)}",
                received=f"shape {found.shape}" if found.shape != (sources, targets) else "other values",
            )
        return found.astype(bool)

    def hollow(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Where there is a synapse within a population whose neurons do not reach themselves: bool [size, size]."""
        found = self.mask(rng, size, size)
        np.fill_diagonal(found, False)
        return found

    @abstractmethod
    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        """The mask, of any type that holds zeros and ones."""


NPY = b"\x93NUMPY"
"""What a file of ``numpy.save`` begins with."""

CONNECTIVITIES: Registry[Connectivity] = Registry("connectivity", Connectivity)  # type: ignore[type-abstract]


@CONNECTIVITIES.register("dense", "all_to_all")
@dataclass(frozen=True)
class Dense(Connectivity):
    """All to all: every neuron reaches every other.

    Example:
        >>> Dense().mask(np.random.default_rng(0), 1, 2)
        array([[ True,  True]])
    """

    complete: ClassVar[bool] = True

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        return np.ones((sources, targets), bool)


@CONNECTIVITIES.register("sparse", "fixed_probability")
@dataclass(frozen=True)
class Sparse(Connectivity):
    """Every synapse is there with a probability p, independently of the others.

    A number stands for it: ``connectivity=0.1``.

    Args:
        probability: p, above 0 and at most 1.

    Example:
        >>> round(float(Sparse(0.1).mask(np.random.default_rng(0), 300, 200).mean()), 2)
        0.1
    """

    probability: float

    def __post_init__(self) -> None:
        given = arguments.number("probability", self.probability, above=0, at_most=1)
        object.__setattr__(self, "probability", given)

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        return rng.random((sources, targets)) < self.probability


@CONNECTIVITIES.register("fixed_in_degree")
@dataclass(frozen=True)
class FixedInDegree(Connectivity):
    """Every neuron receives from the same number of neurons, drawn without repetition; of others, without autapses.

    Args:
        number: synapses of each postsynaptic neuron, at least 1 and at most the number of presynaptic neurons.

    Example:
        >>> FixedInDegree(2).mask(np.random.default_rng(0), 5, 3).sum(axis=0).tolist()
        [2, 2, 2]
    """

    number: int

    def __post_init__(self) -> None:
        arguments.integer("number", self.number, at_least=1)

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        return self._lowest(rng.random((sources, targets)), sources)

    def hollow(self, rng: np.random.Generator, size: int) -> np.ndarray:
        drawn = rng.random((size, size))
        np.fill_diagonal(drawn, 1.0)
        return self._lowest(drawn, size - 1)

    def _lowest(self, drawn: np.ndarray, sources: int) -> np.ndarray:
        if self.number > sources:
            raise ArgumentError(
                "a neuron cannot receive from more neurons than there are",
                received=f"number={self.number} of {sources}",
            )
        lowest: np.ndarray = drawn.argsort(axis=0).argsort(axis=0) < self.number
        return lowest


@CONNECTIVITIES.register("one_to_one")
@dataclass(frozen=True)
class OneToOne(Connectivity):
    """Neuron k reaches neuron k alone; both populations have the same number.

    Example:
        >>> OneToOne().mask(np.random.default_rng(0), 2, 2).tolist()
        [[True, False], [False, True]]
    """

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        if sources != targets:
            raise ArgumentError("one to one takes populations of one size", received=f"{sources} and {targets} neurons")
        return np.eye(sources, dtype=bool)

    def hollow(self, rng: np.random.Generator, size: int) -> np.ndarray:
        raise ArgumentError("synapses of neurons with themselves alone are autapses", received="autapses=False")


@CONNECTIVITIES.register("receptive_fields", "locally_connected")
@dataclass(frozen=True)
class ReceptiveFields(Connectivity):
    """Every neuron sees a window of a picture, as in a convolution, with weights of its own (locally connected).

    The sources are the pixels of ``channels`` pictures, [channel, row, column] made flat, as frames of events are; the
    targets lie [filter, row, column] likewise, one of each filter at every place of the window.

    Args:
        shape: rows and columns of the picture.
        window: rows and columns that a neuron sees, or one number for both.
        stride: by how many pixels neighbours' windows lie apart, or two numbers.
        channels: pictures one after the other, all of which a neuron sees.
        padding: rows and columns of nothing that are put around the picture, or two numbers.

    Example: 28 by 28 pixels, windows of 7 by 7 at 4 by 4 places, 8 neurons at each.

        >>> fields = ReceptiveFields((28, 28), window=7, stride=7)
        >>> fields.places
        (4, 4)
        >>> fields.mask(np.random.default_rng(0), 784, 8 * 16).sum(axis=0)[:3].tolist()
        [49, 49, 49]
    """

    shape: Sequence[int]
    window: int | Sequence[int] = 5
    stride: int | Sequence[int] = 1
    channels: int = 1
    padding: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        for name, least in (("shape", 1), ("window", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, arguments.pair(name, getattr(self, name), at_least=least))
        arguments.integer("channels", self.channels, at_least=1)
        if any(many < 1 for many in self.places):
            around = f" with {self.padding} around" if any(self.padding) else ""  # type: ignore[arg-type]
            raise ArgumentError(
                "a window must fit into the picture", received=f"{self.window} pixels in {self.shape}{around}"
            )

    @property
    def _sides(self) -> list[tuple[int, int, int, int]]:
        """Of rows and of columns: how many there are, are seen, lie between neighbours, and are put around."""
        return list(zip(self.shape, self.window, self.stride, self.padding, strict=True))  # type: ignore[arg-type]

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of places that the window takes."""
        rows, columns = ((side + 2 * around - seen) // apart + 1 for side, seen, apart, around in self._sides)
        return rows, columns

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        places = math.prod(self.places)
        if sources != self.sources:
            raise ArgumentError(
                f"receptive fields on {self.channels} picture(s) of {self.shape} pixels have {self.sources} inputs",
                received=sources,
            )
        if targets % places:
            raise ArgumentError(
                f"the window takes {self.places} places, and at each there is one neuron of every filter",
                received=f"{targets} neurons",
                works=f"a multiple of {places}",
            )
        return np.tile(self.seen() >= 0, (self.channels, targets // places))

    @property
    def sources(self) -> int:
        """How many pixels there are, in all pictures."""
        return self.channels * math.prod(self.shape)

    def seen(self) -> np.ndarray:
        """Which pixel of the window each pixel of a picture is: int [pixel, place], row by row; -1 beyond it."""
        found = []
        for (side, within, apart, around), many in zip(self._sides, self.places, strict=True):
            offset = np.arange(side)[:, None] + around - apart * np.arange(many)
            found.append(np.where((offset >= 0) & (offset < within), offset, -1))
        rows, columns, across = found[0][:, None, :, None], found[1][None, :, None, :], self._sides[1][1]
        number = np.where((rows >= 0) & (columns >= 0), rows * across + columns, -1)
        return number.reshape(math.prod(self.shape), math.prod(self.places))


@CONNECTIVITIES.register("mask")
@dataclass(frozen=True)
class Mask(Connectivity):
    """Synapses where you say: a matrix of zeros and ones stands for it, ``connectivity=matrix``.

    Args:
        synapses: [source, target], 1 or True where there is a synapse: lists, or a matrix of any array library or
            of SciPy's sparse ones; or the path of a file that ``numpy.save`` wrote.

    Example:
        >>> Mask([[0, 1], [1, 1]]).mask(np.random.default_rng(0), 2, 2).tolist()
        [[False, True], [True, True]]

    Raises:
        ArgumentError: it is no matrix of zeros and ones, or the file cannot be read.
    """

    synapses: Any

    def __post_init__(self) -> None:
        given = _read(self.synapses) if isinstance(self.synapses, str | Path) else _array(self.synapses)
        if given.ndim != 2 or given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
            raise ArgumentError("a mask is a matrix [source, target] of zeros and ones", received=self.synapses)
        held = given.astype(bool)
        held.setflags(write=False)
        object.__setattr__(self, "synapses", held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.synapses, other.synapses)

    def __hash__(self) -> int:
        return hash((self.synapses.shape, self.synapses.tobytes()))

    def __repr__(self) -> str:
        sources, targets = self.synapses.shape
        return f"Mask({int(self.synapses.sum())} of {sources}×{targets})"

    def draw(self, rng: np.random.Generator, sources: int, targets: int) -> np.ndarray:
        found: np.ndarray = self.synapses
        return found

    def hollow(self, rng: np.random.Generator, size: int) -> np.ndarray:
        found = super().hollow(rng, size)
        return found if found.any() or not self.synapses.any() else OneToOne().hollow(rng, size)


def _read(path: str | Path) -> np.ndarray:
    try:
        with Path(path).expanduser().open("rb") as file:
            begins = file.read(len(NPY))
            file.seek(0)
            if begins == NPY:
                found: np.ndarray = np.load(file, allow_pickle=False)
                return found
    except (OSError, ValueError) as error:
        raise ArgumentError(f"a mask cannot be read: {error}", received=str(path)) from error
    raise ArgumentError("a mask is read from a file that numpy.save wrote", received=str(path))


def _array(given: Any) -> np.ndarray:
    """A matrix of whatever library as NumPy's; what is none comes back in a form that is no mask either."""
    if hasattr(given, "toarray"):  # SciPy's sparse matrices
        given = given.toarray()
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        return np.asarray(given)
    except ValueError:  # lists of several lengths
        return np.asarray(None)


ConnectivityLike = Connectivity | float | str | Mapping[str, Any] | np.ndarray | Sequence[Any]
"""What ``connectivity`` makes one of: a probability, a name, a mapping, or a matrix."""


def connectivity(given: ConnectivityLike) -> Connectivity:
    """A connectivity from one, its name, a mapping with its name, a probability, or a matrix of zeros and ones.

    Example:
        >>> connectivity(0.1), connectivity("one_to_one")
        (Sparse(probability=0.1), OneToOne())
    """
    if isinstance(given, Real) and not isinstance(given, bool):
        return Sparse(float(given))
    matrix = hasattr(given, "shape") and not isinstance(given, Connectivity)
    if matrix or (isinstance(given, Sequence) and not isinstance(given, str)):
        return Mask(given)
    return CONNECTIVITIES.resolve(given)
