"""Pairs: the batches (x, y) that an iterable such as PyTorch's DataLoader gives, as NumPy arrays."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np

from neko_rules.arguments import integer
from neko_rules.errors import ArgumentError, DataError

Pair = tuple[np.ndarray, np.ndarray]
"""Inputs and targets of the same examples."""

ONCE = (Generator, zip, map, filter, enumerate, itertools.chain, itertools.islice)
"""Iterables that are known to give what they have once."""

AGAIN = "pass a list, a DataLoader, or an object whose __iter__ begins anew"


class Pairs:
    """The batches of an iterable that can be gone through several times, checked as they come.

    Args:
        batches: gives pairs (x, y) of NumPy arrays, or of PyTorch's, TensorFlow's or JAX's on any device.
        name: what it is called in errors.

    Raises:
        ArgumentError: it is an array, or no iterable.
        DataError: while it is gone through: what it gives is no pair of arrays with as many examples, it gives
            nothing, or, a second time, nothing any more.

    Example:
        >>> batches = Pairs([(np.zeros((2, 5, 3)), [0, 1]), (np.zeros((1, 5, 3)), [1])])
        >>> [(x.shape, y.tolist()) for x, y in batches]
        [((2, 5, 3), [0, 1]), ((1, 5, 3), [1])]
        >>> len(list(batches)), batches.length
        (2, 2)
        >>> once = Pairs(pair for pair in [(np.zeros((2, 5, 3)), [0, 1])])
        >>> [len(list(once)) for _ in range(2)]
        Traceback (most recent call last):
        neko_rules.errors.DataError: x must be an iterable of batches that can be gone through once per epoch (received:
        generator, exhausted after the first time); pass a list, a DataLoader, or an object whose __iter__ begins anew.
    """

    def __init__(self, batches: Iterable[Any], name: str = "x") -> None:
        kind = type(batches).__name__
        if hasattr(batches, "shape") or hasattr(batches, "__array__"):
            raise ArgumentError(
                f"{name} must be an iterable of batches (x, y) where no targets are given beside it",
                received=kind,
                works="pass x and y",
            )
        if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
            raise ArgumentError(
                f"{name} must be arrays x and y, or an iterable of batches (x, y)",
                received=kind,
                works="for example a DataLoader",
            )
        self.batches, self.name = batches, name
        self._begun = False

    @property
    def again(self) -> bool:
        """Whether it may be gone through more than once, as far as one can tell without trying."""
        return not isinstance(self.batches, ONCE)

    @property
    def fresh(self) -> bool:
        """Whether going through it certainly begins anew every time, and does not go on with what is left."""
        return not isinstance(self.batches, Iterator)

    @property
    def length(self) -> int | None:
        """How many batches there are, where the iterable says so."""
        try:
            return len(self.batches)  # type: ignore[arg-type]
        except TypeError:  # it has no length, or PyTorch's loader of a data set that has none
            return None

    def require_again(self, times: int) -> None:
        """Refuse what is known to give its batches once, if they are wanted more often."""
        if times > 1 and not self.again:
            raise self._exhausted(f"for {times} epochs")

    def __iter__(self) -> Iterator[Pair]:
        """All batches, once."""
        begun, self._begun = self._begun, True
        number = 0
        for number, batch in enumerate(self.batches, start=1):
            yield self._pair(batch, f"batch {number} of {self.name}")
        if number == 0:
            if begun:
                raise self._exhausted("exhausted after the first time")
            raise DataError(f"{self.name} must give at least one batch", received=f"an empty {self._kind}")

    def peeked(self) -> Iterator[Pair]:
        """The same batches as they would come, without counting as one time through them."""
        return iter(Pairs(self.batches, self.name))

    @property
    def _kind(self) -> str:
        return type(self.batches).__name__

    def _exhausted(self, said: str) -> DataError:
        return DataError(
            f"{self.name} must be an iterable of batches that can be gone through once per epoch",
            received=f"{self._kind}, {said}",
            works=AGAIN,
        )

    def _pair(self, batch: Any, which: str) -> Pair:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            found = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
            works = (
                "pass x and y as two arguments" if hasattr(batch, "shape") else "give x and y alone, by a collate_fn"
            )
            raise DataError(f"{which} must be a pair (x, y)", received=found, works=works)
        x, y = (array(f"{part} of {which}", each) for part, each in zip("xy", batch, strict=True))
        return require_equal(f"x and y of {which}", x, y)


def array(name: str, value: Any) -> np.ndarray:
    """An array with one entry per example, from whatever library and device.

    Example:
        >>> array("x", [[1.0], [2.0]]).shape
        (2, 1)
    """
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        # A tensor of PyTorch may lie on another device, or belong to a graph of its gradients.
        value = value.detach().cpu()
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} must be an array whose examples all have one shape", received=str(error)) from error
    except TypeError as error:
        raise DataError(f"{name} must be of a type that NumPy has", received=str(error), works="use float32") from error
    if found.ndim == 0 or found.dtype == object:
        raise DataError(
            f"{name} must be an array with one entry per example",
            received=type(value).__name__ if found.dtype == object else f"a single {type(value).__name__}",
            works="a Dataset gives single examples: wrap it in a DataLoader" if " of batch " in name else "",
        )
    return found


def arrays(names: str, x: Any, y: Any) -> Pair:
    """Inputs and targets of the same examples; ``names`` is what both are called, such as ``"x and y"``.

    Example:
        >>> x, y = arrays("x and y", [[1.0], [2.0]], [0, 1])
        >>> len(x), len(y)
        (2, 2)
    """
    of_x, of_y = names.split(" and ")
    return require_equal(names, array(of_x, x), array(of_y, y))


def require_equal(names: str, x: np.ndarray, y: np.ndarray) -> Pair:
    """Refuse inputs and targets of other numbers of examples, or of none."""
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"{names} must have the same number of examples, at least 1", received=f"{len(x)} and {len(y)}")
    return x, y


def hold_batches(value: Any) -> bool:
    """Whether validation data are batches, and not one pair of arrays.

    Example:
        >>> x, y = np.zeros((2, 5, 3)), [0, 1]
        >>> hold_batches((x, y)), hold_batches([x, y]), hold_batches([(x, y), (x, y)]), hold_batches(zip([x], [y]))
        (False, False, True, True)
    """
    if isinstance(value, list):
        return all(isinstance(each, (tuple, list)) and each and hasattr(each[0], "shape") for each in value)
    return hasattr(value, "__iter__") and not isinstance(value, tuple) and not hasattr(value, "shape")


def parts(examples: int, size: int) -> list[slice]:
    """Consecutive pieces of at most ``size`` examples.

    Example:
        >>> parts(5, 3)
        [slice(0, 3, None), slice(3, 6, None)]
    """
    integer("batch_size", size, at_least=1)
    return [slice(start, start + size) for start in range(0, examples, size)]
