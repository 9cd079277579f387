"""Saved: what the saved state of a rule has to be like to be gone on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules.errors import CheckpointError, nearest


def input_features(connections: Sequence[Any], state: Mapping[str, np.ndarray]) -> int:
    """The number of input features that a saved state was made for."""
    for connection in connections:
        weight = state.get(f"parameters/{connection.weight}")
        if connection.source == "input" and weight is not None:
            return int(np.shape(weight)[0])
    raise CheckpointError("the saved state has no weights from the input", works="it was made with another model")


def check_entries(current: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Refuse a state that is not one of this rule and model."""
    for name in given:
        if name not in current:
            raise CheckpointError("the saved state has an entry that this rule lacks", name, nearest(name, current))
    for name, value in current.items():
        if name not in given:
            raise CheckpointError("the saved state lacks an entry", name, "it was made by another rule or model")
        if np.shape(given[name]) != value.shape:
            raise CheckpointError(f"{name} must have shape {value.shape}", np.shape(given[name]))
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(given[name]).astype(value.dtype)).all()
        if not finite:
            raise CheckpointError(f"{name} must be finite in {value.dtype}", "NaN, infinite or too large values")
    if int(given["steps"]) < 0:
        raise CheckpointError("steps must be at least 0", int(given["steps"]))
