"""Counting: a backend that does as NumPy does, and counts the operations, and those that it need not have done.

A multiplication or addition of which one side is zero need not be made by a machine that goes from event to event, and
one by a spike, 0 or 1, is none: a row of weights is added up, or is not. What is left are *effective* operations, as
distinct from all that dense arrays take.

Reference: J. Yik et al., The neurobench framework for benchmarking neuromorphic computing algorithms and systems,
Nature Communications 2025 (arXiv:2304.04640), which so counts the synaptic operations of inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial, wraps
from typing import Any

import numpy as np

from neko_rules.backend import Array
from neko_rules.backends.numpy import NumpyBackend  # type: ignore[import-not-found]

_FREE = frozenset({np.positive, np.logical_and, np.logical_or, np.logical_not, np.isfinite})
"""Whose results are no numbers, or the same."""


@dataclass
class Count:
    """Numbers of operations.

    Args:
        multiplications: effective ones.
        additions: effective ones.
        others: exponentials, quotients, comparisons and the like, one for every entry.
        dense: all of these with every entry that is zero.
    """

    multiplications: float = 0.0
    additions: float = 0.0
    others: float = 0.0
    dense: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Count) -> Count:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Count:
        return Count(*(getattr(self, f.name) * factor for f in fields(self)))

    @property
    def total(self) -> float:
        """All effective operations."""
        return self.multiplications + self.additions + self.others


class Counted(np.ndarray):
    """An array whose operations are counted by the backend that it is of."""

    counter: CountingBackend | None = None

    def __array_finalize__(self, given: Any) -> None:
        self.counter = getattr(given, "counter", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        counter = next(each.counter for each in inputs if isinstance(each, Counted))
        given = [np.asarray(each) if isinstance(each, Counted) else each for each in inputs]
        if isinstance(options.get("where"), Counted):
            options["where"] = np.asarray(options["where"])
        out = options.get("out")
        if out is not None:
            options["out"] = tuple(np.asarray(each) for each in out)
        result = getattr(ufunc, method)(*given, **options)
        if counter is None:
            return result
        counter.note(ufunc, method, given, result)
        return counter.counted(result) if out is None else out[0]


class CountingBackend(NumpyBackend):  # type: ignore[misc]
    """NumPy, with a count of all multiplications, additions and other operations in floating point.

    Example: of a product of two matrices, the one of spikes, three rows are added up to nothing.

        >>> nx = CountingBackend()
        >>> spikes = nx.asarray(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
        >>> weights = nx.asarray(np.ones((3, 10)))
        >>> with nx.counting() as found:
        ...     _ = nx.matmul(spikes, weights)
        >>> found
        Count(multiplications=0.0, additions=30.0, others=0.0, dense=120.0)
    """

    name = "counting"
    description = "NumPy that counts its operations"

    def __init__(self) -> None:
        self._count = Count()

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """What is done within goes to a count of its own."""
        before, self._count = self._count, Count()
        found = self._count
        try:
            yield found
        finally:
            self._count = before

    def counted(self, value: Any) -> Any:
        """An array whose operations are counted from here on."""
        if isinstance(value, tuple):
            return tuple(map(self.counted, value))
        if not isinstance(value, (np.ndarray, np.generic)) or np.asarray(value).dtype.kind != "f":
            return value
        seen = np.asarray(value).view(Counted)
        seen.counter = self
        return seen

    def note(self, ufunc: Any, method: str, given: list[Any], result: Any) -> None:
        """Count what a function of NumPy's has done."""
        count, first = self._count, np.asarray(given[0])
        if ufunc in _FREE or first.dtype.kind != "f" or not isinstance(result, (np.ndarray, np.generic)):
            return
        if method == "reduce":
            summed = first.size - np.size(result)
            count.dense += summed
            if ufunc is np.add:
                count.additions += max(0, int(np.count_nonzero(first)) - int(np.count_nonzero(result)))
            else:
                count.others += summed
            return
        if ufunc is np.matmul:
            self._products("...ij,...jk->", given)
            return
        count.dense += np.size(result)
        if ufunc is np.multiply:
            count.multiplications += 0 if any(map(_selects, given)) else _both(given, np.shape(result))
        elif ufunc in (np.add, np.subtract):
            count.additions += _both(given, np.shape(result))
        elif ufunc is not np.negative:
            count.others += np.size(result)

    def _products(self, equation: str, given: list[Any]) -> None:
        """Sums of products: two operations for each, of which a spike leaves one and a zero none."""
        there = [(np.asarray(each) != 0).astype(np.float64) for each in given]
        met = float(np.einsum(equation, *there, optimize=True).sum())
        every = float(np.einsum(equation, *map(np.ones_like, there), optimize=True).sum())
        self._count.dense += 2 * every
        self._count.additions += met
        self._count.multiplications += 0.0 if any(map(_selects, given)) else met

    def einsum(self, equation: str, *arrays: Array) -> Array:
        """As NumPy's."""
        plain = [np.asarray(each) for each in arrays]
        self._products(equation.split("->")[0] + "->", plain)
        return self.counted(super().einsum(equation, *plain))

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, of arrays whose operations are counted."""
        quiet = super().jit(function)

        def run(*arguments: Any) -> Any:
            from neko_rules import trees

            return quiet(*trees.mapped(self.counted, arguments))

        return run


def _selects(value: Any) -> bool:
    """Whether a factor is nothing but zeros and ones."""
    array = np.asarray(value)
    return bool(((array == 0) | (array == 1)).all())


def _both(given: list[Any], shape: tuple[int, ...]) -> int:
    """How many entries of a result have no side that is zero."""
    left, right = (np.asarray(each) != 0 for each in given[:2])
    return int(np.count_nonzero(np.broadcast_to(left & right, shape)))


def _counted(name: str) -> Callable[..., Any]:
    plain = getattr(NumpyBackend, name)

    @wraps(plain)
    def run(self: CountingBackend, *arguments: Any, **options: Any) -> Any:
        bound = plain if isinstance(vars(NumpyBackend)[name], staticmethod) else partial(plain, self)
        return self.counted(bound(*arguments, **options))

    return run


_PLAIN = ("asarray", "astype", "full", "eye", "broadcast_to", "where", "take", "concat", "stack", "heaviside", "scan")
"""What gives plain arrays whatever it is given."""

for _name in _PLAIN:
    setattr(CountingBackend, _name, _counted(_name))
