"""Kept: the kinds of what a rule's step takes, and of what it keeps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neko_rules.backend import Array, Parameters

Own = dict[str, Parameters]
"""A rule's own arrays: what they are (``"feedback"``) → the name they belong to → array."""

Trained = tuple[Parameters, Own, dict[str, Parameters], dict[str, tuple[Array, Array]], Parameters]
"""Parameters, own arrays and the optimiser's memory after a step, the figures, and by name whether all is finite."""

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The same as ``Batch`` in NumPy arrays, as ``Evaluator.batch`` makes them."""

Batch = tuple[Array, Array, Array]
"""Inputs [time, batch, feature], dense targets and mask [1 or steps, batch], in backend arrays."""


class Kept(NamedTuple):
    """What a rule keeps of an update.

    Attributes:
        values: parameters.
        own: the rule's own arrays.
        memory: the optimiser's.
        finite: whether all that was changed is; None where nobody looked.
    """

    values: Parameters
    own: Own
    memory: dict[str, Parameters]
    finite: bool | None = None
