"""The batches of every epoch of a training: cut from arrays by the seed and the epoch, or given by an iterable."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.arguments import flag, integer
from neko_rules.errors import CheckpointError, warn
from neko_rules.pairs import Pair, Pairs

KIND = "kind of data"
ARRAYS = {KIND: "arrays"}
"""What a run was begun with whose checkpoints say nothing of it."""


@dataclass(frozen=True)
class BatchOrder:
    """The batches of every epoch.

    The permutation of epoch e (from 1) is drawn from ``np.random.default_rng([seed, e])``, so that any batch of any
    epoch is known without going through those before it. The last batch of an epoch holds what is left over.

    Args:
        examples: how many examples there are.
        batch_size: examples per batch.
        shuffle: whether every epoch has an order of its own; otherwise examples are taken as they lie.
        seed: a whole number of at least 0.

    Example:
        >>> order = BatchOrder(examples=5, batch_size=2, shuffle=False)
        >>> order.steps
        3
        >>> [np.arange(5)[batch].tolist() for batch in order.batches(epoch=1, first=1)]
        [[2, 3], [4]]
    """

    examples: int
    batch_size: int
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        integer("the number of examples", self.examples, at_least=1)
        for name, value in [
            ("batch_size", integer("batch_size", self.batch_size, at_least=1)),
            ("shuffle", flag("shuffle", self.shuffle)),
            ("seed", integer("seed", self.seed, at_least=0)),
        ]:
            object.__setattr__(self, name, value)

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-self.examples // self.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[np.ndarray | slice]:
        """The indices of every batch of an epoch (from 1), from batch number ``first`` (from 0) on."""
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.examples) if self.shuffle else None
        for start in range(first * self.batch_size, self.examples, self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield batch if shuffled is None else shuffled[batch]


class Batches(ABC):
    """What a run is trained on.

    Attributes:
        size: examples of a batch, the last of an epoch aside.
        steps: batches per epoch; None as long as that is not known.
    """

    size: int
    steps: int | None

    @abstractmethod
    def check(self, model: Any) -> None:
        """Refuse data that do not fit the model, before anything runs; this builds it."""

    @property
    @abstractmethod
    def sample(self) -> np.ndarray:
        """Inputs of some examples, once the data were looked at."""

    @abstractmethod
    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """Inputs and targets of every batch of an epoch (from 1), from batch number ``first`` (from 0) on."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on as the same one."""

    @abstractmethod
    def mark(self) -> dict[str, Any]:
        """What else a checkpoint keeps of the batches."""

    @abstractmethod
    def require_again(self, times: int) -> None:
        """Refuse what is known to give its batches fewer times."""

    @abstractmethod
    def resume(self, run: Mapping[str, Any]) -> None:
        """Look at what the checkpoint of a run that goes on has kept of its batches."""


class ArrayBatches(Batches):
    """The batches of arrays, in an order that is a function of the seed and the epoch.

    Example:
        >>> batches = ArrayBatches(np.arange(5), np.arange(5), BatchOrder(5, 2, shuffle=False))
        >>> batches.steps, [x.tolist() for x, y in batches.of_epoch(1, first=1)]
        (3, [[2, 3], [4]])
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, order: BatchOrder) -> None:
        self.x, self.y, self.order = x, y, order
        self.size, self.steps = order.batch_size, order.steps

    def check(self, model: Any) -> None:
        """All of the data."""
        model.check(self.x, self.y)

    @property
    def sample(self) -> np.ndarray:
        """The first."""
        return self.x[:1]

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """Cut from the arrays as they are asked for."""
        for batch in self.order.batches(epoch, first):
            yield self.x[batch], self.y[batch]

    def identity(self) -> dict[str, Any]:
        """How many examples there are, and what decides their order."""
        order = self.order
        return {
            "number of examples": order.examples,
            "batch_size": order.batch_size,
            "shuffle": order.shuffle,
            "seed": order.seed,
        }

    def mark(self) -> dict[str, Any]:
        """Nothing: the identity says it all."""
        return {}

    def require_again(self, times: int) -> None:
        """Arrays are there as often as they are wanted."""

    def resume(self, run: Mapping[str, Any]) -> None:
        """The order of every epoch is known."""


class IterableBatches(Batches):
    """The batches of an iterable, such as PyTorch's DataLoader, that is gone through once per epoch.

    A run that is resumed within an epoch goes through the batches that had been used without using them. It is bit for
    bit the run without a stop if every epoch has the same batches in the same order; for what can be seen of that, the
    first batch of every epoch is looked at.

    Example:
        >>> batches = IterableBatches(Pairs([(np.zeros((2, 5, 3)), [0, 1]), (np.zeros((1, 5, 3)), [1])]))
        >>> batches.steps, [len(x) for x, y in batches.of_epoch(1, first=1)]
        (2, [1])
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.size, self.steps = 1, pairs.length
        self._opened: Iterator[Pair] | None = None
        self._met: Pair | None = None
        self._mark: str | None = None
        self._fixed = True

    def check(self, model: Any) -> None:
        """The first batch, which the first epoch then begins with; the others are looked at when they come."""
        self._open()
        assert self._met is not None, "the first batch was met"
        model.check(*self._met, whole=False)

    @property
    def sample(self) -> np.ndarray:
        """Those of the first batch."""
        assert self._met is not None, "the first batch was met"
        return self._met[0]

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Pair]:
        """As the iterable gives them."""
        if self._opened is None:
            self._open()
        opened, met = self._opened, self._met
        self._opened = self._met = None
        assert opened is not None, "opened above"
        assert met is not None, "opened above"
        number = 0
        for number, pair in enumerate(_with_first(met, opened), start=1):
            if number > first:
                yield pair
        if number < first:
            raise CheckpointError(
                f"{self.pairs.name} must give the batches of the epoch that a resumed run was stopped in",
                received=f"{number} of the {first} that had been used",
                works="resume with the iterable that the run was begun with",
            )
        self.steps = number

    def identity(self) -> dict[str, Any]:
        """The kind of data alone: an iterable may be of any length, and in any order."""
        return {KIND: "batches of an iterable"}

    def mark(self) -> dict[str, Any]:
        """A checksum of the batch with which every epoch begins; None if they have differed."""
        return {"first batch": self._mark if self._fixed else None}

    def require_again(self, times: int) -> None:
        """A generator gives what it has once."""
        self.pairs.require_again(times)

    def resume(self, run: Mapping[str, Any]) -> None:
        """Say so where the batches are seen not to come as they came before."""
        if run.get("first batch") != self._mark:
            self._fixed = False
            warn(
                "a resumed run is bit for bit the run without a stop only if its batches are the same in every epoch",
                received=f"{self.pairs.name} that begins with others",
                works="it goes on with those; use shuffle=False, or arrays, whose order is known for every epoch",
            )

    def _open(self) -> None:
        """Begin to go through the iterable, and look at its first batch."""
        self._opened = iter(self.pairs)
        self._met = next(self._opened)
        self.size = len(self._met[0])
        mark = _checksum(self._met)
        self._mark, self._fixed = self._mark or mark, self._fixed and self._mark in (None, mark)


def _with_first(first: Pair, others: Iterator[Pair]) -> Iterator[Pair]:
    yield first
    yield from others


def _checksum(pair: Pair) -> str:
    return " ".join(f"{zlib.crc32(np.ascontiguousarray(each).tobytes()):08x}" for each in pair)
