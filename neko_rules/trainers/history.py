"""What a training run has measured: one record per finished epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neko_rules.errors import ArgumentError, nearest
from neko_rules.recorded import Recorded

NOT_FIGURES = ("epoch", "steps", "seconds")
"""What a record holds beside the figures that were measured."""

Record = dict[str, Any]
"""The numbers of one epoch: ``epoch`` (from 1), ``steps`` (updates made in it), the loss and the metrics averaged over
its examples, the same with ``validation_`` in front where there is validation data, and ``seconds``."""


@dataclass
class History:
    """The records of a training run, in the order of its epochs.

    Args:
        epochs: one record per finished epoch, validation included.
        partial: the record of the epoch in which the run stopped, over the steps that it made; None if the run
            stopped between epochs.
        interrupted: whether Ctrl-C ended the run before its last epoch.
        stopped: the reason that a callback gave for ending the run, or "".
        recorded: what recorders kept, by their keys.

    Example:
        >>> history = History([{"epoch": 1, "loss": 2.3}, {"epoch": 2, "loss": 1.1}])
        >>> history["loss"]
        [2.3, 1.1]
        >>> len(history), history.interrupted
        (2, False)
        >>> history
        History(2 epochs: loss 1.1)

    As a figure, with a panel for the loss and one for each metric:

        >>> from neko_rules.report.learning_curve import learning_curves
        >>> figure = learning_curves(history.epochs, loss="categorical_crossentropy")
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['Cross-entropy (nats)']
    """

    epochs: list[Record] = field(default_factory=list)
    partial: Record | None = None
    interrupted: bool = False
    stopped: str = ""
    recorded: dict[str, Recorded] = field(default_factory=dict)

    def __repr__(self) -> str:
        """How many epochs there are, the figures of the last one, and why the run ended early if it did."""
        last = self.epochs[-1] if self.epochs else {}
        figures = [
            f"{name} {value:.4g}" for name, value in last.items() if name not in NOT_FIGURES and value is not None
        ]
        said = f"{len(self)} epoch{'' if len(self) == 1 else 's'}"
        said += f": {', '.join(figures)}" if figures else ""
        ended = "interrupted" if self.interrupted else self.stopped
        return f"History({said}; {ended})" if ended else f"History({said})"

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, name: str) -> list[float]:
        """One quantity over the finished epochs.

        Raises:
            ArgumentError: no epoch, or not every epoch, has that quantity.
        """
        if not all(name in record for record in self.epochs):
            raise ArgumentError(f"the history has no {name!r}", works=nearest(name, self.names()))
        return [record[name] for record in self.epochs]

    def names(self) -> list[str]:
        """The quantities that the history has for every finished epoch.

        Example:
            >>> History([{"epoch": 1, "loss": 2.3}]).names()
            ['epoch', 'loss']
        """
        first, *others = self.epochs or [{}]
        return [name for name in first if all(name in record for record in others)]


@dataclass
class RunningMean:
    """Means over the examples seen so far: Σ_b n_b m_b / Σ_b n_b for batches b of n_b examples with metrics m_b.

    A batch in which nothing counts for a metric, which is then NaN, is left out of its mean.

    Args:
        sums: Σ_b n_b m_b of every metric.
        examples: Σ_b n_b.
        without: those of them that are left out, by metric.

    Example:
        >>> mean = RunningMean()
        >>> mean.add({"loss": 1.0}, examples=3)
        >>> mean.add({"loss": 5.0}, examples=1)
        >>> mean.add({"loss": float("nan")}, examples=2)
        >>> mean.values()
        {'loss': 2.0}
    """

    sums: dict[str, float] = field(default_factory=dict)
    examples: int = 0
    without: dict[str, int] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float], examples: int) -> None:
        """Count one batch."""
        for name, value in metrics.items():
            known = self.sums.setdefault(name, 0.0)
            if math.isnan(value):
                self.without[name] = self.without.get(name, 0) + examples
            else:
                self.sums[name] = known + examples * float(value)
        self.examples += examples

    def values(self) -> dict[str, float]:
        """The mean of every metric."""
        counted = {name: self.examples - self.without.get(name, 0) for name in self.sums}
        return {name: total / counted[name] if counted[name] else math.nan for name, total in self.sums.items()}
