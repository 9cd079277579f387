"""Comparison folders: what a comparison of rules writes while it lasts, and how it is read back.

=======================  ===========================================================================================
``comparison.json``      rules, reference, parameters and their shapes, names of the figures
``figures-000000.npz``   a chunk of batches: ``batch`` [n], ``loss`` [n] and ``values``
                         [n, rule, quantity, group, statistic]
``matrices-000000.npz``  gradients and weight changes of all rules in one batch, as ``quantity/rule/parameter``
``synapses.npz``         which entries of a parameter are synapses, where not all are
``moments.npz``          mean and sum of squares over batches of every entry, as ``mean/quantity/rule/parameter``
=======================  ===========================================================================================

Memory holds one chunk and the moments, whatever the number of batches.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.errors import CheckpointError
from neko_rules.trainers.deviation import STATISTICS, Moments

QUANTITIES = ("gradient", "change")
"""What is compared: dE/dparameter, and what a step added to the parameter."""

Matrices = Mapping[str, Mapping[str, Mapping[str, np.ndarray] | None]]
"""Quantity → rule → parameter → array; None for the gradient of a rule that has none."""


class ComparisonFolder:
    """Writes a comparison in pieces.

    Args:
        path: a folder, made if it does not exist.
        about: what ``comparison.json`` says.
        synapses: which entries of a parameter are synapses, by its name, where not all are.
        chunk: batches per file of figures.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as temporary:
        ...     folder = ComparisonFolder(Path(temporary), {"rules": ["random"]}, {}, chunk=2)
        ...     for batch in range(3):
        ...         folder.append(batch, 0.5, np.zeros((1, 2, 3, len(STATISTICS))))
        ...     folder.flush()
        ...     read_figures(Path(temporary))["values"].shape
        (3, 1, 2, 3, 10)
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any], synapses: Mapping[str, np.ndarray], chunk: int = 256
    ) -> None:
        self.path, self.chunk = path, chunk
        path.mkdir(parents=True, exist_ok=True)
        for old in (*path.glob("figures-*.npz"), *path.glob("matrices-*.npz"), *path.glob("moments.npz")):
            old.unlink()
        self._chunks = 0
        self._waiting: list[tuple[int, float, np.ndarray]] = []
        (path / "comparison.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _save(path / "synapses.npz", synapses)

    def append(self, batch: int, loss: float, values: np.ndarray) -> None:
        """Add the figures of one batch."""
        self._waiting.append((batch, loss, values))
        if len(self._waiting) >= self.chunk:
            self.flush()

    def flush(self) -> None:
        """Write the figures that are still in memory."""
        if self._waiting:
            batches, losses, values = zip(*self._waiting, strict=True)
            whole = {"batch": np.array(batches), "loss": np.array(losses), "values": np.stack(values)}
            _save(self.path / f"figures-{self._chunks:06d}.npz", whole)
            self._chunks += 1
            self._waiting = []

    def keep(self, batch: int, matrices: Matrices) -> None:
        """Write gradients and changes in full."""
        arrays = {
            f"{quantity}/{rule}/{parameter}": array
            for quantity, rules in matrices.items()
            for rule, parameters in rules.items()
            if parameters is not None
            for parameter, array in parameters.items()
        }
        _save(self.path / f"matrices-{batch:06d}.npz", arrays)

    def write_moments(self, moments: Mapping[tuple[str, str, str], Moments]) -> None:
        """Write the moments by quantity, rule and parameter."""
        arrays: dict[str, np.ndarray] = {}
        for key, each in moments.items():
            name = "/".join(key)
            arrays |= {
                f"mean/{name}": each.mean,
                f"squares/{name}": each.squares,
                f"count/{name}": np.array(each.count),
            }
        _save(self.path / "moments.npz", arrays)


def read_about(path: Path) -> dict[str, Any]:
    """What ``comparison.json`` says.

    Raises:
        CheckpointError: no comparison has been written there.
    """
    try:
        about = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be the folder of a comparison",
            received=f"{type(error).__name__} in comparison.json",
            works="give a folder that GradientComparison or 'neko compare' has written",
        ) from None
    if about.get("statistics") not in (None, list(STATISTICS)):
        raise CheckpointError(f"{path} must hold the figures of this version", received=about["statistics"])
    return dict(about)


def read_figures(path: Path) -> dict[str, np.ndarray]:
    """All chunks of figures joined: ``batch``, ``loss``, ``values``."""
    parts = [_load(file) for file in sorted(path.glob("figures-*.npz"))]
    if not parts:
        raise CheckpointError(
            f"{path} must hold the figures of at least one batch", works="compare for at least a step"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in ("batch", "loss", "values")}


def kept_batches(path: Path) -> list[int]:
    """The batches whose matrices were kept."""
    return sorted(int(file.stem.rpartition("-")[2]) for file in path.glob("matrices-*.npz"))


def read_matrices(path: Path, batch: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Some matrices of a batch, by ``quantity/rule/parameter``; those that a rule does not have are left out."""
    with np.load(path / f"matrices-{batch:06d}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in keys if key in file.files}


def read_synapses(path: Path) -> dict[str, np.ndarray]:
    """Which entries of a parameter are synapses, where not all are; a folder without the file tells of all entries."""
    return _load(path / "synapses.npz") if (path / "synapses.npz").exists() else {}


def read_moments(path: Path, synapses: Mapping[str, np.ndarray]) -> dict[tuple[str, str, str], Moments]:
    """The moments by quantity, rule and parameter; their averages are of synapses."""
    arrays = _load(path / "moments.npz")
    found = {}
    for key, mean in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "mean":
            quantity, rule, parameter = name.split("/")
            count, squares = int(arrays[f"count/{name}"]), arrays[f"squares/{name}"]
            moments = Moments(count, mean, squares, synapses.get(parameter))
            found[quantity, rule, parameter] = moments
    return found


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    with open(temporary, "wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]
    os.replace(temporary, path)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} must be a whole .npz file", received=str(error)) from None
