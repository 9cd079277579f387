"""Average pooling: of pictures smaller ones, each of whose pixels is the mean of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError
from neko_rules.kernels.host import contiguous, host_of


@dataclass(frozen=True)
class AveragePooling:
    """Pictures, [channel, row, column] made flat, of whose patches, side by side, only the means are seen.

    Rows and columns at the lower and right edges that do not fill a patch are left out.

    Args:
        shape: rows and columns of a picture.
        pool: rows and columns of a patch, or one number for both.
        channels: how many pictures there are.

    Example: two by two pixels each of a picture of two rows and five columns, the last of which is left out.

        >>> from neko_rules.backend import get_backend
        >>> pooling = AveragePooling((2, 5), pool=2)
        >>> pooling.places, pooling.together
        ((1, 2), 4)
        >>> pooling.means(get_backend("numpy"), np.arange(10.0)[None])
        array([[3., 5.]])

    Raises:
        ArgumentError: a patch does not fit into the picture.
    """

    shape: Sequence[int]
    pool: int | Sequence[int]
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("shape", "pool"):
            object.__setattr__(self, name, arguments.pair(name, getattr(self, name), at_least=1))
        arguments.integer("channels", self.channels, at_least=1)
        if not all(self.places):
            raise ArgumentError(
                "what is pooled together must fit into the picture", received=f"{self.pool} pixels of {self.shape}"
            )

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of a pooled picture."""
        rows, columns = (side // pooled for side, pooled in zip(self.shape, self.pool, strict=True))  # type: ignore[arg-type]
        return rows, columns

    @property
    def together(self) -> int:
        """How many pixels a mean is of."""
        return math.prod(self.pool)  # type: ignore[arg-type]

    @property
    def sources(self) -> int:
        """How many pixels there are, in all pictures."""
        return self.channels * math.prod(self.shape)

    @property
    def pixels(self) -> int:
        """How many pixels the pooled pictures have, in all."""
        return self.channels * math.prod(self.places)

    @cached_property
    def of_pixel(self) -> np.ndarray:
        """Which pixel of the pooled pictures each pixel counts to: int32 [source]; -1 of those that are left out."""
        columns = self.places[1]
        row, column = (
            np.where((counted := np.arange(side) // pooled) < many, counted, -1)
            for side, pooled, many in zip(self.shape, self.pool, self.places, strict=True)  # type: ignore[arg-type]
        )
        there = (row >= 0)[:, None] & (column >= 0)
        within = np.where(there, row[:, None] * columns + column, -1).ravel()
        picture = math.prod(self.places) * np.arange(self.channels)[:, None]
        return np.where(within >= 0, picture + within, -1).ravel().astype(np.int32)

    @cached_property
    def _counts_to(self) -> np.ndarray:
        """The same with a pixel more for what is left out, as loops take it."""
        return np.where(self.of_pixel < 0, self.pixels, self.of_pixel)

    @cached_property
    def _members(self) -> np.ndarray:
        """The pixels of every patch, int32, [pixel of the pooled pictures · pixel of the patch]."""
        order = np.argsort(self._counts_to, kind="stable")
        return order[: self.pixels * self.together].astype(np.int32)

    def means(self, nx: Backend, sent: Array) -> Array:
        """The pooled pictures, [row, pixel], of pictures [row, source]."""
        host, rows = host_of(nx), sent.shape[0]
        if host is not None:
            from neko_rules.kernels import patches

            sums = patches.scattered(contiguous(host.host(sent)), self._counts_to, self.pixels)
            sums /= self.together
            return host.from_host(sums)
        found = nx.reshape(nx.take(sent, nx.asarray(self._members, "int32"), 1), (rows, self.pixels, self.together))
        return nx.mean(found, axis=2)

    def back(self, nx: Backend, errors: Array) -> Array:
        """What comes back to the pictures, [row, source], of errors at the pooled ones."""
        host, shares = host_of(nx), errors / nx.full((1,), self.together, nx.dtype(errors))
        if host is not None:
            from neko_rules.kernels import patches

            return host.from_host(patches.cut(contiguous(host.host(shares)), self._counts_to))
        padded = nx.concat([shares, nx.full((errors.shape[0], 1), 0.0, nx.dtype(errors))], 1)
        return nx.take(padded, nx.asarray(self._counts_to, "int32"), 1)
