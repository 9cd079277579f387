"""Callbacks: what is done beside training after every step and every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.arguments import choice, integer, number
from neko_rules.errors import ArgumentError, CheckpointError, nearest
from neko_rules.trainers.history import History, Record

if TYPE_CHECKING:
    from neko_rules.trainers.trainer import Trainer


class Callback:
    """Something done at fixed points of a training run; every method may be left out.

    A callback may read the trainer (``rule``, ``history``, ``epoch``, ``step``, ``total_steps``) and end the run with
    ``trainer.stop("reason")``. Callbacks are called in the order given, and those that write checkpoints last, so that
    a checkpoint holds the others' state after the same step.

    Example:
        >>> class StopBelow(Callback):
        ...     "Ends the run once the loss is below a bound."
        ...     def on_epoch_end(self, trainer, epoch_record):
        ...         if epoch_record["loss"] < 0.1:
        ...             trainer.stop("the loss is below 0.1")
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first step; after a checkpoint has been loaded, if the run resumes from one."""

    def on_step_begin(self, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> None:
        """Before every update, with its batch."""

    def on_step_end(self, trainer: Trainer, step_metrics: dict[str, float]) -> None:
        """After every update, with the loss and metrics of its batch."""

    def on_epoch_end(self, trainer: Trainer, epoch_record: Record) -> None:
        """After every epoch and its validation; ``epoch_record`` is already in the history."""

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        """After the last step of a run that ended, was stopped or was interrupted, but not of one that failed."""

    def close(self) -> None:
        """Release what the callback holds; called however the run ends."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs of this callback, in values that JSON can hold."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""


class EarlyStopping(Callback):
    """Ends a run when a quantity has stopped improving.

    Args:
        monitor: the quantity, a key of the epoch records such as ``"validation_loss"``.
        patience: how many epochs in a row without improvement end the run.
        minimum_change: an epoch improves if it beats the best one by more than this.
        mode: ``"min"`` if lower is better, ``"max"`` if higher is; by default known for losses and accuracies.

    Raises:
        ArgumentError: an argument is out of range, the mode of this quantity is not known, or the records have no such
            quantity.

    Example:
        >>> EarlyStopping("validation_accuracy", patience=3).mode
        'max'
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        patience: int = 5,
        minimum_change: float = 0.0,
        mode: str | None = None,
    ) -> None:
        self.monitor = str(monitor)
        self.patience = integer("patience", patience, at_least=1)
        self.minimum_change = number("minimum_change", minimum_change, at_least=0)
        self.mode = _known_mode(self.monitor) if mode is None else choice("mode", mode, ["min", "max"])
        self.best: float | None = None
        self.wait = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Refuse to watch a validation without data, and end a resumed run whose patience had already run out."""
        if self.monitor.startswith("validation_") and not trainer.validates:
            raise ArgumentError(
                f"EarlyStopping on {self.monitor!r} needs validation data",
                works="pass validation_data=(x, y) to train, or monitor a quantity of training such as 'loss'",
            )
        if not trainer.history.epochs:
            self.best, self.wait = None, 0
        self._stop_if_due(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch_record: Record) -> None:
        """Count the epochs since the best one."""
        if self.monitor not in epoch_record:
            raise ArgumentError(
                "EarlyStopping must monitor a quantity of the epoch records",
                received=self.monitor,
                works=nearest(self.monitor, epoch_record),
            )
        value = float(epoch_record[self.monitor])
        if self._improves(value):
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        self._stop_if_due(trainer)

    def state(self) -> dict[str, Any]:
        """The best value so far and the epochs since."""
        return {"best": self.best, "wait": self.wait}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        try:
            best, wait = state["best"], int(state["wait"])
            self.best, self.wait = None if best is None else float(best), wait
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("the state of EarlyStopping must have 'best' and 'wait'", received=state) from error

    def _improves(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.minimum_change

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.wait >= self.patience:
            epochs = "1 epoch" if self.wait == 1 else f"{self.wait} epochs"
            trainer.stop(f"{self.monitor} has not improved for {epochs}")


def _known_mode(monitor: str) -> str:
    for word, mode in [("loss", "min"), ("accuracy", "max")]:
        if word in monitor:
            return mode
    raise ArgumentError(
        "EarlyStopping knows by itself only whether losses and accuracies should fall or rise",
        received=monitor,
        works="pass mode='min' or mode='max'",
    )
