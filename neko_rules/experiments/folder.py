"""Run folders: what a run writes, where, and how it is read back.

=======================  ==========================================================================================
``config.yaml``          the whole configuration, defaults and absolute paths included; ``neko run`` takes it again
``environment.json``     versions, backend, machine, command line and git commit
``metrics.jsonl``        one line per finished epoch, written as it ends
``checkpoints/``         everything that the next update depends on, for ``neko run --resume``
``weights.safetensors``  the last finite parameters by name
``learning_curve.png``   the figure, and the same as ``.svg``
``summary.json``         how the run ended, why, and its last figures
``samples/``             of a run that samples, in place of epochs and weights: draws and states of its chains
``uncertainty.png``      of a run that samples: doubt about the test data, and the curves as ``uncertainty.json``
=======================  ==========================================================================================
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules import tensor_file
from neko_rules.errors import CheckpointError, ConfigurationError


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Args:
        path: the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as temporary:
        ...     folder = RunFolder.create(Path(temporary) / "first")
        ...     folder.append_metrics({"epoch": 1, "loss": 0.5})
        ...     folder.read_metrics()
        [{'epoch': 1, 'loss': 0.5}]
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new folder, or an empty one that exists.

        Raises:
            ConfigurationError: there is something in it already, or it cannot be written to.
        """
        require_free(path)
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that a run has written.

        Raises:
            CheckpointError: it is missing, or no run has written it.
        """
        folder = cls(path)
        if not path.is_dir():
            raise CheckpointError(
                f"the run folder {path} must exist", works="give a folder that 'neko run' has written"
            )
        if not folder.config.is_file():
            raise CheckpointError(
                f"{path} must be the folder of a run", received="no config.yaml in it", works="see the folders in runs/"
            )
        return folder

    @property
    def config(self) -> Path:
        """The whole configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The last finite parameters."""
        return self.path / "weights.safetensors"

    @property
    def figure(self) -> Path:
        """The learning curve."""
        return self.path / "learning_curve.png"

    @property
    def metrics(self) -> Path:
        """One line of JSON per epoch."""
        return self.path / "metrics.jsonl"

    def write_text(self, name: str, text: str) -> None:
        """Write a small file whole or not at all."""
        with _writing(self.path / name):
            temporary = self.path / f".{name}.writing"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path / name)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a mapping as indented JSON; NaN and infinity, which JSON does not have, become null."""
        self.write_text(name, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """A mapping written by ``write_json``; empty if there is no such file.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.path / name
        if not path.exists():
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} must be readable JSON", received=str(error)) from None
        if not isinstance(value, dict):
            raise CheckpointError(f"{path} must hold a JSON object", received=value)
        return value

    def write_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of all epochs so far."""
        self.write_text(self.metrics.name, "".join(_line(record) for record in records))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add the record of one epoch, on the disk when this returns."""
        with _writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(_line(record))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records of all finished epochs.

        Raises:
            CheckpointError: a line is damaged.
        """
        if not self.metrics.exists():
            return []
        records = []
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.metrics} must be readable text", received=str(error)) from None
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                record["epoch"]
            except (ValueError, TypeError, KeyError):
                raise CheckpointError(
                    f"every line of {self.metrics} must be the JSON record of an epoch",
                    received=f"{line!r} in line {number}",
                    works="delete that line, or begin a new run",
                ) from None
            records.append(record)
        return records

    def write_weights(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Write parameters by name in the safetensors format, whole or not at all."""
        tensor_file.write(self.weights, parameters, tensor_file.WEIGHTS)

    def read_weights(self) -> dict[str, np.ndarray]:
        """The parameters by name.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        if not self.weights.exists():
            raise CheckpointError(f"{self.weights} must exist", works="the run has not ended yet")
        return tensor_file.read(self.weights, tensor_file.WEIGHTS)[0]


def require_free(path: Path) -> None:
    """Refuse a place where something is already."""
    if path.is_file():
        raise ConfigurationError(f"the run folder {path} must not be a file", works="choose another --out")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigurationError(
            f"the run folder {path} must be new or empty",
            received="a folder with files",
            works="choose another --out, or go on with --resume",
        )


def free_path(name: str, now: datetime, base: Path = Path("runs")) -> Path:
    """``runs/<name>-<time>``, with a number behind it if two runs begin in the same second.

    Example:
        >>> free_path("mnist", datetime(2026, 1, 31, 12, 0, 5)).as_posix()
        'runs/mnist-20260131-120005'
    """
    first = base / f"{name}-{now:%Y%m%d-%H%M%S}"
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{path} must be writable", received=error.strerror or str(error), works="choose another --out"
        ) from error
