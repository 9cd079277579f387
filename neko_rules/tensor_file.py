"""Tensor file: arrays by name and what is said of them in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.errors import CheckpointError

ENTRY = "neko_rules"
"""The metadata entry that holds what is said of the arrays, in JSON, whose floats Python reads as it wrote them."""

WEIGHTS = "a file of weights"
"""What errors call one that holds parameters alone."""


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], what: str, about: Mapping[str, Any] | None = None
) -> None:
    """Write a file that at every moment, even if the machine stops, is the new one or the old one.

    Args:
        path: of the file, in a folder that is there.
        arrays: by name.
        what: it is, for an error.
        about: what is said of them, in values that JSON can hold; None for nothing.

    Raises:
        CheckpointError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/file", {"w": np.ones(2)}, "a file", {"time": 0.1})
        ...     read(f"{folder}/file", "a file")
        ({'w': array([1., 1.])}, {'time': 0.1})
    """
    from safetensors.numpy import save

    target = Path(path)
    content = save(
        {name: np.asarray(array, order="C") for name, array in arrays.items()},
        metadata=None if about is None else {ENTRY: json.dumps(about)},
    )
    writing = target.with_name(f".{target.name}.writing")
    try:
        _write(writing, target, content)
    except OSError as error:
        received = f"{error.strerror}: {target}"
        raise CheckpointError(f"{what} must be writable", received=received, works="choose another folder") from error
    finally:
        writing.unlink(missing_ok=True)


def _write(writing: Path, target: Path, content: bytes) -> None:
    # The contents must be on the disk before the name points at them, and the name before anything old is removed.
    with open(writing, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(writing, target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str], what: str) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """The arrays of a file, and what is said of them; None where nothing is.

    Raises:
        CheckpointError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            said = (opened.metadata() or {}).get(ENTRY)
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        about: dict[str, Any] | None = None if said is None else json.loads(said)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{what} must be a whole safetensors file", received=f"{path}: {error}") from error
    return arrays, about
