"""Examples: a data set that a posterior is conditioned on, in chunks so that memory does not grow with it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import DataError, IncompatibleError
from neko_rules.evaluator import Evaluator
from neko_rules.probabilistic.force import Chunk
from neko_rules.targets import as_array


class Examples:
    """Inputs and targets, checked once, converted chunk by chunk whenever they are asked for.

    Args:
        model: the evaluator whose form and type the chunks have.
        x: [examples, time, feature], or values that the model's encoder makes inputs of: once, as in an evaluation.
        y: targets.
        chunk_size: examples that the network runs at once.

    Example:
        >>> from neko_rules import LIF
        >>> examples = Examples(Evaluator(LIF(4, 2, readout="mean")), np.ones((5, 3, 1)), [0, 1, 0, 1, 1], chunk_size=2)
        >>> [inputs.shape for inputs, _, _ in examples.chunks()]
        [(3, 2, 1), (3, 2, 1), (3, 1, 1)]
    """

    def __init__(self, model: Evaluator, x: Any, y: Any, chunk_size: int = 256) -> None:
        self.chunk_size = arguments.integer("chunk_size", chunk_size, at_least=1)
        model.check(x, y)
        self.model, self.x = model, np.asarray(x)
        self._inputs = self.x if model.encoder is None else model.encoded(x)
        self.y = as_array(y, len(self.x))
        self._whole: Chunk | None = None
        self._check_observations()

    def __len__(self) -> int:
        return len(self.x)

    def _check_observations(self) -> None:
        """Refuse one label for many outputs: it was observed once, and would be counted at every step."""
        _, dense, _ = self.model.batch(self.x[:1], self._first_supervised())
        steps = self._inputs.shape[1] if self.model.network.readout == "sequence" else 1
        if dense.shape[0] == 1 and steps > 1:
            raise IncompatibleError(
                "a label given once per sequence is one observation, and needs one output",
                received=f"readout='sequence' with {steps} outputs per label",
                works="use readout='mean' (or 'last', 'max') in the model, or labels for every step",
            )

    def _first_supervised(self) -> np.ndarray:
        """The targets of one example, with every step supervised, to see what form they have."""
        first = self.y[:1]
        return np.maximum(first, 0) if first.dtype.kind in "iu" else first

    def chunks(self) -> Iterator[Chunk]:
        """All examples once, as backend arrays."""
        if len(self) <= self.chunk_size:
            if self._whole is None:
                self._whole = self.take(slice(None))
            yield self._whole
            return
        for start in range(0, len(self), self.chunk_size):
            yield self.take(slice(start, start + self.chunk_size))

    def take(self, places: Any) -> Chunk:
        """Some examples as backend arrays; they may lack supervised steps."""
        array = self._inputs[places]
        inputs, dense, mask = self.model._converted(array, self.model._targets(array.shape, self.y[places]))
        nx = self.model.nx
        # Kept from one evaluation to the next, whatever becomes of the memory that they were given in.
        return nx.asarray(np.array(inputs, order="C")), nx.asarray(dense), nx.asarray(mask)

    def draw(self, rng: np.random.Generator, size: int) -> Chunk:
        """A mini-batch without replacement.

        Raises:
            DataError: there are fewer examples than that.
        """
        if size > len(self):
            raise DataError("a mini-batch must have at most as many examples as there are", received=size)
        return self.take(np.sort(rng.choice(len(self), size, replace=False)))

    def fingerprint(self) -> str:
        """A checksum of the data, so that a run is not taken up with others."""
        arrays = self._inputs, self.y
        return ", ".join(f"{each.shape} {each.dtype} {self._checksum(each):08x}" for each in arrays)

    def _checksum(self, array: np.ndarray) -> int:
        """CRC-32 of the bytes, chunk by chunk."""
        found = 0
        for start in range(0, len(array), self.chunk_size):
            found = zlib.crc32(np.ascontiguousarray(array[start : start + self.chunk_size]).data, found)
        return found
