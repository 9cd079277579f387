"""Checkpoints: everything that the rest of a run depends on, in one file that is whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import tensor_file
from neko_rules.arguments import integer
from neko_rules.errors import ArgumentError, CheckpointError
from neko_rules.trainers.callbacks import Callback
from neko_rules.trainers.history import History, Record, RunningMean

if TYPE_CHECKING:
    from neko_rules.trainers.trainer import Trainer

FORMAT = 1
"""The version of the layout; raised whenever an older reader would misread a newer file."""

_NAME = re.compile(r"step-(\d+)\.safetensors")
_WRITING = ".writing.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """A run between two of its steps.

    Args:
        state: ``rule.state()``: parameters, optimizer state and all else that the next update depends on.
        run: what must be equal for the run to be the same one: rule, number of examples, batch size, shuffle, seed.
        step: updates made in the epoch that was begun.
        mean: sums of the metrics over those updates.
        seconds: time spent in that epoch.
        total_steps: updates made since the run began.
        epochs: records of the finished epochs.
        callbacks: the state of every callback that has one.
    """

    state: Mapping[str, np.ndarray]
    run: Mapping[str, Any]
    step: int = 0
    mean: RunningMean = field(default_factory=RunningMean)
    seconds: float = 0.0
    total_steps: int = 0
    epochs: list[Record] = field(default_factory=list)
    callbacks: Mapping[str, Any] = field(default_factory=dict)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint file that at every moment, even if the machine stops, is either the new one or the old one.

    The file is in the safetensors format, holding the arrays of the state by name and one metadata entry
    ``neko_rules`` in JSON (whose floats Python writes and reads without loss).

    Raises:
        CheckpointError: the file cannot be written.
    """
    about = {name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__ if name != "state"}
    about |= {"mean": asdict(snapshot.mean), "format": FORMAT, "version": _version()}
    tensor_file.write(path, snapshot.state, "a checkpoint", about)


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Read a checkpoint file, or the newest one of a folder.

    Raises:
        CheckpointError: there is none, it is damaged, or it is not a checkpoint of this library.
    """
    file = find_checkpoint(path)
    state, about = tensor_file.read(file, "a checkpoint")
    if about is None:
        raise CheckpointError(
            "a checkpoint to resume from must hold the position of its run",
            received=str(file),
            works="resume from a file that the callback Checkpoint wrote; files with weights alone have no position",
        )
    try:
        if about["format"] == FORMAT:
            fields = {name: about[name] for name in Snapshot.__dataclass_fields__ if name not in ("state", "mean")}
            return Snapshot(state=state, mean=RunningMean(**about["mean"]), **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("the description in a checkpoint must be complete", received=str(file)) from error
    raise CheckpointError(
        f"a checkpoint must have layout {FORMAT}",
        received=f"{file} with layout {about['format']}",
        works=f"read it with neko_rules {about.get('version')}",
    )


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The file itself, or the checkpoint of a folder that was taken after the most steps."""
    path = Path(path)
    if path.is_file():
        return path
    found = _checkpoints(path)
    if not found:
        raise CheckpointError(
            "resume must be a checkpoint file or a folder that holds one",
            received=str(path),
            works="leave resume out to begin a new run",
        )
    return found[-1]


class Checkpoint(Callback):
    """Writes checkpoints from which ``Trainer.train(..., resume=folder)`` goes on as if it had never stopped.

    A checkpoint is also written when the run ends, is stopped or is interrupted by Ctrl-C. When a loss or a parameter
    turns NaN or infinite nothing is written, so that the last checkpoint is a good one.

    Args:
        folder: where to write ``step-<updates made>.safetensors``; created if missing.
        every_epochs: write after every so many epochs; None for never.
        every_steps: write after every so many updates; None for never.
        keep: how many of the newest to keep; None for all.

    Raises:
        ArgumentError: a number is not a whole number of at least 1.
        CheckpointError: when the run begins, if the folder cannot be written to or has checkpoints of later steps than
            the one where the run begins, which this run would mix with its own.

    Example:
        >>> callback = Checkpoint("runs/first/checkpoints", every_steps=500)
        >>> callback.last is None
        True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        keep: int | None = 1,
    ) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise ArgumentError("folder must be a path", received=folder)
        self.folder = Path(folder)
        self.every_epochs = None if every_epochs is None else integer("every_epochs", every_epochs, at_least=1)
        self.every_steps = None if every_steps is None else integer("every_steps", every_steps, at_least=1)
        self.keep = None if keep is None else integer("keep", keep, at_least=1)
        self.last: Path | None = None
        """The newest checkpoint of this run, None as long as there is none."""
        self._last_position: tuple[int, int] | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Refuse a folder that cannot be used, before time is spent on training."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                "the folder of checkpoints must be writable", received=f"{error.strerror}: {self.folder}"
            ) from error
        later = [path for path in _checkpoints(self.folder) if _steps(path) > trainer.total_steps]
        if later:
            raise CheckpointError(
                "a folder of checkpoints must hold none of later steps than where the run begins",
                received=str(later[-1]),
                works=f"pass resume={str(self.folder)!r} to go on from there, or choose another folder",
            )
        self.last = trainer.resumed_from
        self._last_position = None if trainer.resumed_from is None else _position(trainer)

    def on_step_end(self, trainer: Trainer, step_metrics: dict[str, float]) -> None:
        """Write if the number of updates is due."""
        if self.every_steps is not None and trainer.total_steps % self.every_steps == 0:
            self._write(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch_record: Record) -> None:
        """Write if the number of epochs is due."""
        if self.every_epochs is not None and len(trainer.history) % self.every_epochs == 0:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, history: History) -> None:
        """Write where the run ended, if that has not been done."""
        if self._last_position != _position(trainer):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        path = self.folder / f"step-{trainer.total_steps:08d}.safetensors"
        write_snapshot(path, trainer.snapshot())
        self.last, self._last_position = path, _position(trainer)
        if self.keep is not None:
            for old in _checkpoints(self.folder)[: -self.keep]:
                old.unlink(missing_ok=True)


def _position(trainer: Trainer) -> tuple[int, int]:
    """Where a run is; the steps alone do not tell the end of an epoch from the end of its validation."""
    return trainer.total_steps, len(trainer.history)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder by rising number of steps."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_steps)


def _steps(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None, "only checkpoints are asked for their steps"
    return int(match.group(1))


def _version() -> str:
    try:
        return metadata.version("neko_rules")
    except metadata.PackageNotFoundError:
        return "unknown"
