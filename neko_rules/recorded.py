"""Recorded: what a recorder has kept of a training or an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from neko_rules.errors import ArgumentError

Which = int | slice | Sequence[int] | None
"""A choice of neurons, examples or time steps: one, a slice, several, or (None) all."""


@dataclass
class Recorded:
    """Arrays in the order in which they were recorded.

    Args:
        axes: what the axes of each array are, such as ``("example", "time", "neuron")``.
        places: number of the update (from 1), or of the example (from 0) in an evaluation, that each belongs to.
        values: one array per place.

    Example:
        >>> recorded = Recorded(("neuron",), [1, 2], [np.zeros(3), np.ones(3)])
        >>> recorded.array.shape, len(recorded)
        ((2, 3), 2)
    """

    axes: tuple[str, ...]
    places: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def array(self) -> np.ndarray:
        """All of them with a new first axis.

        Raises:
            ArgumentError: they differ in shape, as the last batch of an epoch may be smaller.
        """
        shapes = {value.shape for value in self.values}
        if len(shapes) != 1:
            raise ArgumentError(
                "recorded arrays can be stacked if they all have one shape",
                received=sorted(shapes) if shapes else "nothing recorded",
                works="choose examples that every batch has",
            )
        return np.stack(self.values)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(value.nbytes for value in self.values)


def chosen(which: Which, size: int, what: str) -> np.ndarray:
    """The indices that a choice stands for.

    Raises:
        ArgumentError: an index is out of range.

    Example:
        >>> chosen(slice(0, 5, 2), 4, "neurons").tolist(), chosen(-1, 4, "neurons").tolist()
        ([0, 2], [3])
    """
    if which is None:
        return np.arange(size)
    if isinstance(which, slice):
        return np.arange(size)[which]
    indices = np.atleast_1d(np.asarray(which))
    if indices.dtype.kind not in "iu" or indices.ndim != 1 or (np.abs(indices + 0.5) > size).any():
        raise ArgumentError(f"{what} must be whole numbers below {size}, or a slice", received=which)
    return np.arange(size)[indices]
