"""Versions: the matrices that carry errors back through time, as they were in every time step.

Weights that change within a sequence are others in every piece of it. An error that goes back through time meets those
that the network had when it sent what the error is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.layers.graph import Connection


class Versions(NamedTuple):
    """Transposed weights of every piece of a sequence, from its first time step on.

    Attributes:
        size: time steps of a piece.
        back: weight name → [piece, target, source].
        down: whether errors go down through them too, and not through the weights as they are now.
        now: populations that meet, of what comes down, that through the weights as they are now: their traces are
            filtered, and know of no weight.
        panels: the same in panels [piece, panel, target, width], for compiled loops; empty without them.
    """

    size: int
    back: Mapping[str, Array]
    down: bool
    now: frozenset[str] = frozenset()
    panels: Mapping[str, np.ndarray] = {}

    def which(self, steps: int) -> np.ndarray:
        """The piece that every time step belongs to, and one more for the step after the last: [time + 1]."""
        found = np.arange(steps + 1) // self.size
        found[-1] = found[-2]
        return found

    def by_step(self, nx: Backend, connection: Connection, steps: int, ahead: int = 0) -> Array:
        """What a connection had at every time step, or so many steps ahead of it: [time, target, source].

        Args:
            nx: backend.
            connection: the connection.
            steps: number of time steps.
            ahead: 1 for what meets δ of the step after.
        """
        back = self.back[connection.weight]
        if self.size == 1 and not ahead:
            return back[:steps]
        return nx.take(back, nx.asarray(self.which(steps)[ahead : ahead + steps], "int32"), 0)
