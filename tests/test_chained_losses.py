"""Chained losses: what a loss makes of whole sequences, of groups of neurons or of its own targets, asked by a chain.

A chain asks about a few examples at a time; the loss, its signal, scores and metrics are those of the whole batch,
which the engine finds by operations.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from chain_cases import CLASSES, DOUBLE, EXAMPLES, STEPS, data, groups, layers, same_weights
from credit_cases import distance

from neko_rules import LIF, EProp, Evaluator
from neko_rules.chains import running
from neko_rules.errors import IncompatibleError
from neko_rules.kernels.host import by_library, unfused
from neko_rules.losses import LOSSES, CategoricalCrossentropy
from neko_rules.rules import rule_of
from neko_rules.scoring import Scored, Scoring
from neko_rules.threads import set_threads

__all__ = ["groups"]  # a fixture

SAME = 1e-12
ASKED: dict[str, Any] = {
    **{name: name for name in LOSSES if not LOSSES.resolve(name).is_of_outputs},
    "three neurons for a class, every step": {"name": "ce_rate", "classes": CLASSES},
    "three neurons for a class, counts": {"name": "ce_count", "classes": CLASSES},
    "three neurons for a class, counts wanted": {"name": "mse_count", "classes": CLASSES, "correct": 0.4},
    "three neurons for a class, membranes": {"name": "ce_membrane", "classes": CLASSES},
    "soon, as 1/t": {"name": "ce_temporal", "inverse": "reciprocal", "time_scale": 3.0},
    "soon enough": {"name": "mse_temporal", "tolerance": 3.0, "incorrect": 15.0},
}


def model(loss: Any, backend: str = "numpy", **options: Any) -> Evaluator:
    """Spiking outputs, three for a class where the loss says so."""
    many = isinstance(loss, dict) and "classes" in loss
    outputs = 3 * CLASSES if many else CLASSES
    network = LIF(12, outputs, recurrent=True, output_cell="lif", backend=backend, **DOUBLE, **options)
    return Evaluator(network, loss=loss, metrics=["accuracy", "firing_rate"])


def padded() -> np.ndarray:
    """Labels of sequences of several lengths, and of some that are not labelled at all, a whole group among them."""
    y = np.repeat(data()[1][:, None], STEPS, axis=1)
    y[np.arange(STEPS) >= np.random.default_rng(3).integers(8, STEPS + 1, EXAMPLES)[:, None]] = -1
    y[8:17] = -1
    return y


@pytest.mark.parametrize("labels", ["all", "padded"])
@pytest.mark.parametrize("rule", ["bptt", "eprop"])
@pytest.mark.parametrize("loss", ASKED)
def test_every_loss_that_is_asked(loss: str, rule: str, labels: str, groups: list[Any]) -> None:
    x, y = data()
    y = padded() if labels == "padded" else y
    before, after = model(ASKED[loss]).network.parameters, same_weights(lambda: rule_of(model(ASKED[loss]), rule), x, y)
    assert groups, "a chain, or nothing is tested"
    assert distance(before, after) > 1e-6
    judged = model(ASKED[loss])
    found, outputs = judged.evaluate(x, y, batch_size=9), judged.predict(x, batch_size=9)
    with unfused():
        assert found == pytest.approx(judged.evaluate(x, y), rel=SAME)
        np.testing.assert_allclose(outputs, judged.predict(x), rtol=SAME, atol=SAME)


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_outputs_that_are_pooled(readout: str, groups: list[Any]) -> None:
    x, y = data()
    loss = {"name": "ce_membrane", "classes": CLASSES}
    same_weights(lambda: rule_of(model(loss, readout=readout), "bptt"), x, y)
    assert groups


@pytest.mark.parametrize("penalty", ["firing_rate", {"name": "membrane_bounds", "upper": 0.3, "lower": None}])
def test_penalties_beside_it(penalty: Any, groups: list[Any]) -> None:
    x, y = data()
    same_weights(lambda: rule_of(model("ce_count"), {"name": "eprop", "regularizers": [penalty]}), x, y)
    assert groups


def test_threads_ask_about_their_own_examples(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "parts", lambda batch, work: [(0, 5), (5, 14), (14, batch)])
    set_threads(3)
    try:
        same_weights(lambda: rule_of(model("ce_count"), "eprop"), *data())
    finally:
        set_threads(None)
    assert groups


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
@pytest.mark.parametrize("loss", ["ce_count", "ce_max_membrane", "mse_temporal"])
def test_other_libraries_are_asked_alike(loss: str, backend: str, groups: list[Any]) -> None:
    pytest.importorskip(backend)
    x, y = data()
    rule, whole = (rule_of(model(loss, backend), "eprop") for _ in range(2))
    figures = rule.step(x, y)
    assert groups
    with by_library():
        assert whole.step(x, y) == pytest.approx(figures, rel=1e-9)
    assert distance(rule.model.network.parameters, whole.model.network.parameters) < 1e-9
    assert distance(model(loss).network.parameters, rule.model.network.parameters) > 1e-6


@dataclass(frozen=True)
class Later(CategoricalCrossentropy):
    """A user's, of the mean output of the second half of a sequence, written for NumPy."""

    online = False

    def scores(self, nx: Any, history: Any, mask: Any) -> Any:
        return np.mean(history[len(history) // 2 :], axis=0, keepdims=True)

    def pull_back(self, nx: Any, history: Any, mask: Any, gradient: Any) -> Any:
        late = np.arange(len(history)) >= len(history) // 2
        return late[:, None, None] * gradient / late.sum()


@dataclass(frozen=True)
class Broken(Later):
    """One that finds something wrong in the last examples."""

    def scores(self, nx: Any, history: Any, mask: Any) -> Any:
        if history.shape[1] < 8:
            raise IncompatibleError("no examples that few", received="a few")
        return super().scores(nx, history, mask)


def test_a_loss_of_a_users(groups: list[Any]) -> None:
    same_weights(lambda: EProp(Evaluator(layers(12), loss=Later(), metrics=["accuracy"])), *data())
    assert groups


def test_what_a_loss_raises_is_raised(groups: list[Any]) -> None:
    """After the chain has come to its end, and the weights are as they were."""
    rule = EProp(Evaluator(layers(12), loss=Broken()))
    before = rule.model.network.parameters
    with pytest.raises(IncompatibleError, match="no examples that few"):
        rule.step(*data())
    assert groups
    assert all(np.array_equal(value, before[name]) for name, value in rule.model.network.parameters.items())


def test_nobody_is_asked_any_more_after_an_exception(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that go on with their examples leave the loss alone."""
    monkeypatch.setattr(running, "parts", lambda batch, work: [(0, 4), (4, batch)])
    asked: list[int] = []

    @dataclass(frozen=True)
    class Once(Later):
        def scores(self, nx: Any, history: Any, mask: Any) -> Any:
            asked.append(history.shape[1])
            raise IncompatibleError("no examples", received="some")

    rule = EProp(Evaluator(layers(12), loss=Once()))
    set_threads(2)
    try:
        with pytest.raises(IncompatibleError, match="no examples"):
            rule.step(*data())
        time.sleep(0.2)
    finally:
        set_threads(None)
    # One of each thread at most, where both had begun.
    assert groups
    assert 1 <= len(asked) <= 2


def test_predictions_by_a_loss_that_holds_an_array(groups: list[Any]) -> None:
    """It has no hash, by which chains might be told apart."""

    @dataclass(frozen=True)
    class Scaled(Later):
        by: Any = None

        def scores(self, nx: Any, history: Any, mask: Any) -> Any:
            return self.by * super().scores(nx, history, mask)

    x, _ = data()
    found = [Evaluator(layers(12), loss=Scaled(by=by * np.ones(CLASSES))).predict(x) for by in (1.0, 2.0)]
    assert len(groups) == 2
    np.testing.assert_array_equal(2 * found[0], found[1])


@pytest.mark.parametrize("fault", ["", "mask", "divisor", "signal"])
def test_faults_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding that counts, the divisor of a group, the signal of the step before; and none of them."""
    scored, judged = Scoring.scored, Scoring.judged

    def as_scored(self: Scoring, nx: Any, history: Any, mask: Any) -> Scored:
        return scored(self, nx, history, np.ones_like(mask) if fault == "mask" and len(groups) % 2 else mask)

    def as_judged(self: Scoring, nx: Any, history: Any, target: Any, found: Scored, divisor: Any) -> Any:
        few = found.counted.sum() if fault == "divisor" and history.shape[1] < EXAMPLES else divisor
        total, signal = judged(self, nx, history, target, found, max(few, 1.0))
        return total, np.roll(signal, 1, axis=0) if fault == "signal" and history.shape[1] < EXAMPLES else signal

    monkeypatch.setattr(Scoring, "scored", as_scored)
    monkeypatch.setattr(Scoring, "judged", as_judged)
    make = lambda: rule_of(model("ce_max_membrane"), "bptt")  # noqa: E731
    found = make().gradients(data()[0], padded())
    assert len(groups) == 1
    monkeypatch.undo()
    with unfused():
        away = distance(found, make().gradients(data()[0], padded()))
    assert (away > 1e-6) if fault else (away < SAME)
