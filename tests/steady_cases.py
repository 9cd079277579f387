"""A rule beside one whose every step is like the first, for tests of steps that have all at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chain_cases import CLASSES, FEATURES, STEPS

from neko_rules import LearningRule
from neko_rules.clipping import CLIPPINGS

UPDATES: dict[str, dict[str, Any]] = {
    **{name: {"clipping": {"name": name, "limit": 1e-3}} for name in CLIPPINGS},
    "decay": {"weight_decay": 0.5},
    "rate factors": {"weight_decay": 0.5, "rate_factors": {"hidden": 0.5, "readout.input": 0}},
    "decay and clipping": {"weight_decay": 0.5, "clipping": {"name": "global_norm", "limit": 1e-3}},
}
"""What else an update may be."""


def pair(make: Callable[[], LearningRule]) -> tuple[LearningRule, LearningRule]:
    """A rule, and one whose every step is like the first."""
    one, other = make(), make()
    vars(other)["_stand_in"] = lambda arrays: None
    return one, other


def same_steps(one: LearningRule, other: LearningRule, *batches: tuple[np.ndarray, np.ndarray]) -> None:
    """Figures and states after the same batches are the same, bit for bit."""
    for x, y in batches:
        figures, expected = one.step(x, y), other.step(x, y)
        assert figures == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert one.steps == other.steps
    state, wanted = one.state(), other.state()
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def batches(
    count: int, examples: int = 24, rate: float = 0.3, seed: int = 5, steps: int = STEPS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Spikes and labels."""
    random = np.random.default_rng(seed)
    shape = examples, steps, FEATURES
    return [(1.0 * (random.random(shape) < rate), random.integers(0, CLASSES, examples)) for _ in range(count)]
