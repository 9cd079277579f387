"""Chain files: what one chain writes while it runs, so that a kill loses nothing but time.

    draws.npy        [draws, dimension] in the network's type, row by row as they come, in NumPy's own format
    statistics.npy   [draws, statistic], float64
    state.safetensors   all that the next transition depends on, replaced whole every few seconds

A run that is taken up again begins at its state: rows behind it are drawn again, and come out the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neko_rules import tensor_file
from neko_rules.errors import CheckpointError

STATISTICS = (
    "lp",
    "acceptance_rate",
    "step_size",
    "n_steps",
    "tree_depth",
    "diverging",
    "energy",
    "energy_error",
    "log_likelihood",
    "block_acceptance_rate",
)
"""What is kept of every draw: the names of ArviZ' schema, the log-likelihood at temperature 1, and the acceptance of
moves of single neurons, NaN where there are none."""

_WRITING = ".writing"
"""The name of a file that is not whole yet."""


@dataclass
class ChainRecord:
    """The draws of one chain, in memory or on disk.

    Args:
        draws: [draws, dimension].
        statistics: [draws, len(STATISTICS)].
        folder: where they lie; None in memory.
    """

    draws: np.ndarray
    statistics: np.ndarray
    folder: Path | None = None

    @classmethod
    def begin(cls, draws: int, dimension: int, dtype: str, folder: Path | None) -> ChainRecord:
        """Room for all draws; on disk it takes space only as it is filled."""
        shapes: dict[str, tuple[tuple[int, int], Any]] = {
            "draws": ((draws, dimension), np.dtype(dtype)),
            "statistics": ((draws, len(STATISTICS)), np.float64),
        }
        if folder is None:
            in_memory, told = (np.zeros(shape, kind) for shape, kind in shapes.values())
            return cls(in_memory, told)
        folder.mkdir(parents=True, exist_ok=True)
        for name, (shape, kind) in shapes.items():
            # A file takes its name once it has its full length: who looks on while a run begins reads a whole one.
            writing = folder / _WRITING
            np.lib.format.open_memmap(writing, mode="w+", dtype=kind, shape=shape)
            os.replace(writing, folder / f"{name}.npy")
        return cls.read(folder, "r+")

    @classmethod
    def read(cls, folder: Path, mode: Literal["r", "r+"] = "r") -> ChainRecord:
        """The files of a chain, mapped into memory and read as they are asked for.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        try:
            draws, statistics = (np.load(folder / f"{name}.npy", mmap_mode=mode) for name in ("draws", "statistics"))
        except (OSError, ValueError) as error:
            raise CheckpointError("the files of a chain must be whole", received=f"{folder}: {error}") from error
        return cls(draws, statistics, folder)

    def save(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Bring the rows so far to the disk, and then the state that knows of them."""
        if self.folder is None:
            return
        for array in (self.draws, self.statistics):
            assert isinstance(array, np.memmap), "on disk"
            array.flush()
        tensor_file.write(self.folder / "state.safetensors", arrays, "the state of a chain", plain)


def read_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """What ``save`` wrote last, or None if it has not.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    arrays, plain = tensor_file.read(path, "the state of a chain")
    if plain is None:
        raise CheckpointError("the state of a chain must say where it is", received=str(path))
    return arrays, plain
