"""Scoring: what a loss makes of what the output population did: scores, the loss, and its derivative.

Outputs are pooled as the network says, the loss makes scores of them at every step or of all steps together, and what
it finds goes back the same way. It is a sum over examples, so that parts of a batch can be judged one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from neko_rules.backend import Array, Backend
from neko_rules.layers.pooling import pool, unpool
from neko_rules.losses import Loss, weighed


class Scored(NamedTuple):
    """What a loss looks at.

    Attributes:
        pooled: the outputs after pooling, [steps, batch, neuron].
        steps: which of them are supervised, [steps, batch].
        scores: what the loss is computed from, [steps, batch, n_out]; of all steps together [1, batch, n_out].
        counted: which of these count.
    """

    pooled: Array
    steps: Array
    scores: Array
    counted: Array


class Scoring(NamedTuple):
    """How the outputs of a network are judged.

    Args:
        loss: what judges them.
        readout: how they are pooled over time.
        task_type: how targets are read.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> from neko_rules.losses import SpikeCountCrossentropy
        >>> nx, scoring = get_backend("numpy"), Scoring(SpikeCountCrossentropy(), "sequence", "classification")
        >>> spikes = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])[:, None]
        >>> scored = scoring.scored(nx, spikes, np.ones((1, 1)))
        >>> total, signal = scoring.judged(nx, spikes, np.array([[[0.0, 1.0]]]), scored, divisor=1.0)
        >>> scored.scores.tolist(), total.round(3).item(), signal.shape
        ([[[3.0, 1.0]]], 2.127, (3, 1, 2))
    """

    loss: Loss
    readout: str
    task_type: str

    def counting(self, nx: Backend, mask: Array, steps: int) -> tuple[Array, Array]:
        """The mask of so many steps of pooled outputs, and that of what counts in the loss.

        Args:
            nx: the backend.
            mask: [1 or steps, batch].
            steps: how many.
        """
        spread = mask if mask.shape[0] == steps else nx.broadcast_to(mask, (steps, mask.shape[1]))
        # A sequence that is judged as a whole counts if any of its steps does.
        return spread, spread if self.loss.online else nx.max(spread, axis=0, keepdims=True)

    def scored(self, nx: Backend, history: Array, mask: Array) -> Scored:
        """What the loss looks at.

        Args:
            nx: the backend.
            history: what it observes of the output population, [time, batch, neuron].
            mask: [1 or steps, batch].
        """
        pooled = pool(nx, self.readout, history)
        steps, counted = self.counting(nx, mask, pooled.shape[0])
        return Scored(pooled, steps, self.loss.scores(nx, pooled, steps), counted)

    def wanted(self, nx: Backend, neurons: int, target: Array, scored: Scored) -> Array:
        """The scores that a target asks for.

        Args:
            nx: the backend.
            neurons: of the output population.
            target: dense, [1 or steps, batch, n_out].
            scored: what the loss looks at.
        """
        supervised = nx.sum(scored.steps, axis=0, keepdims=True)
        group = neurons // self.loss.number_of_scores(neurons)
        return self.loss.desired(nx, scored.scores, target, supervised, self.task_type, group)

    def judged(
        self, nx: Backend, history: Array, target: Array, scored: Scored, divisor: Array | float
    ) -> tuple[Array, Array]:
        """The loss summed over what counts, and dE/dhistory [time, batch, neuron] of the sum over the divisor.

        Args:
            nx, history: as for ``scored``.
            target: dense, [1 or steps, batch, n_out].
            scored: what the loss looks at.
            divisor: how many outputs count.
        """
        wanted = self.wanted(nx, history.shape[-1], target, scored)
        total, gradient = weighed(nx, self.loss, scored.scores, wanted, scored.counted, scored.counted / divisor)
        pulled = self.loss.pull_back(nx, scored.pooled, scored.steps, gradient)
        return total, unpool(nx, self.readout, history, pulled)
