"""Portions: a batch gone through a few examples at a time gives the loss, figures and gradient of the whole batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, LIF, OSTL, EProp, Evaluator
from neko_rules.kernels.host import unfused
from neko_rules.rules import portions, rule_of
from neko_rules.rules.portions import examples_at_once

STEPS, EXAMPLES, FEATURES, CLASSES = 30, 22, 7, 3
SAME = 1e-12
RULES: dict[str, Any] = {
    "bptt": BPTT,
    "eprop": EProp,
    "random feedback": lambda model: EProp(model, mode="random"),
    "target projection": lambda model: rule_of(model, "drtp"),
    "ostl": OSTL,
}


def model_of(backend: str, readout: str) -> Evaluator:
    options: dict[str, Any] = {"inputs": FEATURES, "dtype": "float64", "backend": backend, "readout": readout}
    network = (
        ALIF(24, CLASSES, **options) if readout == "sequence" else LIF([16, 12], CLASSES, recurrent=False, **options)
    )
    return Evaluator(network, metrics=["accuracy", "firing_rate"])


def data(readout: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = (rng.random((EXAMPLES, STEPS, FEATURES)) < 0.3) * 1.0, rng.integers(CLASSES, size=EXAMPLES)
    if readout == "sequence":
        y = np.where(rng.random((EXAMPLES, STEPS)) < 0.4, -1, y[:, None])
        y[8:16] = -1  # a whole portion in which no step counts
    return x, y


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Portions of 8 examples, of batches that have no chain, and how many examples every forward pass had."""
    seen: list[int] = []
    judge = Evaluator.judge

    def counting(self: Evaluator, trajectory: Any, *rest: Any) -> Any:
        seen.append(trajectory.inputs.shape[1])
        return judge(self, trajectory, *rest)

    monkeypatch.setattr(Evaluator, "judge", counting)
    monkeypatch.setattr("neko_rules.chains.running.WORTHWHILE", math.inf)
    monkeypatch.setattr("neko_rules.rules.learning_rule.examples_at_once", lambda model, steps, examples: 8)
    return seen


@pytest.mark.parametrize("readout", ["sequence", "mean", "last"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", RULES)
def test_portions_add_up(name: str, backend: str, readout: str, parts: list[int]) -> None:
    pytest.importorskip(backend)
    x, y = data(readout)
    split = RULES[name](model_of(backend, readout)).observed_step(x, y)
    assert parts == [8, 8, 6], "in portions, or nothing is tested"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neko_rules.rules.learning_rule.examples_at_once", lambda model, steps, examples: examples)
        whole = RULES[name](model_of(backend, readout)).observed_step(x, y)
    assert parts[3:] == [EXAMPLES]
    assert split[0] == pytest.approx(whole[0], rel=SAME)
    for key, value in whole[1].items():
        np.testing.assert_allclose(split[1][key], value, rtol=0, atol=SAME * np.abs(value).max())
    assert any(np.abs(value).max() > 1e-6 for value in whole[1].values())


def test_a_portion_counts_by_its_supervised_steps(parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with equal shares for all portions the gradient is another."""
    x, y = data("sequence")
    whole = EProp(model_of("numpy", "sequence")).gradients(x, y)
    counted = Evaluator.counted

    def equal(self: Evaluator, mask: Any, steps: int) -> Any:
        return counted(self, mask, steps) if mask.shape[1] == EXAMPLES else np.float64(8)

    monkeypatch.setattr(Evaluator, "counted", equal)
    wrong = EProp(model_of("numpy", "sequence")).gradients(x, y)
    assert max(np.abs(wrong[key] - value).max() / np.abs(value).max() for key, value in whole.items()) > 1e-3


def test_a_penalty_on_mean_rates_sees_the_whole_batch(parts: list[int]) -> None:
    x, y = data("mean")
    EProp(model_of("numpy", "mean"), regularizers=["firing_rate"]).gradients(x, y)
    assert parts == [EXAMPLES]


def test_what_has_no_compiled_loop_goes_through_the_rest_at_once(parts: list[int]) -> None:
    x, y = data("mean")
    with unfused():
        EProp(model_of("numpy", "mean")).gradients(x, y)
    assert parts == [8, EXAMPLES - 8]


def test_a_portion_fills_the_cache_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("numpy", "mean")
    assert examples_at_once(model, STEPS, EXAMPLES) == EXAMPLES
    # Two hidden populations and the readout with v, z, what comes and what goes: 4 numbers of 8 bytes.
    one = STEPS * (16 + 12 + CLASSES) * 4 * 8
    monkeypatch.setattr(portions, "CACHED", 9 * one)
    monkeypatch.setattr(portions, "threads", lambda: 1)
    assert examples_at_once(model, STEPS, EXAMPLES) == 8
    monkeypatch.setattr(portions, "threads", lambda: 2)
    assert examples_at_once(model, STEPS, 2 * EXAMPLES) == 8
    monkeypatch.setattr(portions, "CACHED", one)
    assert examples_at_once(model, STEPS, EXAMPLES) >= 4, "a portion never is smaller than what a kernel takes at once"
    with unfused():
        assert examples_at_once(model, STEPS, EXAMPLES) == EXAMPLES
