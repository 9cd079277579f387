"""Which examples make up which batch: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neko_rules.arguments import flag, integer


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
