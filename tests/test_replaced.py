"""Another optimiser counts from the next step on, with its own memory or what there is, whoever takes the step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from neko_rules import BPTT, LIF, EProp, Evaluator, TruncatedBPTT
from neko_rules.errors import CheckpointError
from neko_rules.kernels.host import by_library, unfused
from neko_rules.optimizers import SGD, Adam
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.streaming import StreamLearner

STEPS, EXAMPLES, FEATURES, CLASSES = 12, 6, 5, 3

RULES: dict[str, Callable[..., LearningRule]] = {
    "whole sequences": BPTT,
    "windows": lambda model, **options: TruncatedBPTT(model, window=4, **options),
    "every few steps": lambda model, **options: EProp(model, online=5, **options),
    "every step": lambda model, **options: EProp(model, online=True, **options),
}

WAYS: dict[str, Callable[[], Any]] = {"as usual": nullcontext, "by the library": by_library, "by operations": unfused}

CASES = [(name, way, "numpy") for name in RULES for way in WAYS]
# Other libraries take seconds to compile each of them.
CASES += [("whole sequences", "by the library", library) for library in ("torch", "jax", "tensorflow")]
CASES += [("every few steps", "as usual", library) for library in ("torch", "jax")]
CASES += [("every step", "by the library", "jax")]

KINDS = {"of another class": (SGD(0.02), Adam(0.01)), "without memory": (Adam(0.01), SGD(0.02))}


def model(backend: str) -> Evaluator:
    return Evaluator(LIF(8, CLASSES, inputs=FEATURES, backend=backend, dtype="float64", seed=3))


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    shape = EXAMPLES, STEPS, FEATURES
    return [(3.0 * (random.random(shape) < 0.3), random.integers(0, CLASSES, EXAMPLES)) for _ in range(count)]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "way", "backend"), CASES)
def test_one_of_another_class_begins_anew(name: str, way: str, backend: str, kind: str) -> None:
    """As does a new rule on the same weights, to which nothing has happened before."""
    pytest.importorskip(backend)
    before, after = KINDS[kind]
    with WAYS[way]():
        rule = RULES[name](model(backend), optimizer=before)
        *earlier, last, one_more = batches(4)
        for batch in earlier:
            rule.step(*batch)
        rule.optimizer = after
        fresh = RULES[name](rule.model.clone(), optimizer=after)
        for batch in (last, one_more):
            rule.step(*batch)
            fresh.step(*batch)
    same(rule.model.network.parameters, fresh.model.network.parameters)
    assert rule.steps > fresh.steps


@pytest.mark.parametrize(("name", "way", "backend"), CASES)
def test_one_of_the_same_class_goes_on(name: str, way: str, backend: str) -> None:
    """With the memory that there is, and other numbers from the next step on."""
    pytest.importorskip(backend)
    before, after = Adam(0.01, beta_1=0.9), Adam(0.03, beta_1=0.5)
    with WAYS[way]():
        rule, kept = (RULES[name](model(backend), optimizer=before) for _ in range(2))
        first, *rest = batches(3)
        rule.step(*first)
        kept.step(*first)
        other = RULES[name](rule.model.clone(), optimizer=after)
        other.load_state(rule.state())
        rule.optimizer = after
        for batch in rest:
            rule.step(*batch)
            other.step(*batch)
            kept.step(*batch)
    same(rule.state(), other.state())
    assert any(
        np.abs(value - kept.model.network.parameters[key]).max() > 1e-4
        for key, value in rule.model.network.parameters.items()
    ), "the numbers of the one before would be others"


def test_a_saved_state_says_where_it_began() -> None:
    rule = BPTT(model("numpy"), optimizer="sgd")
    first, second, third = batches(3)
    rule.step(*first)
    assert "optimizer/begun" not in rule.state()
    rule.optimizer = "adam"
    rule.step(*second)
    other, forgetful = BPTT(model("numpy"), optimizer="adam"), BPTT(model("numpy"), optimizer="adam")
    state = rule.state()
    other.load_state(state)
    # Negative control: as if Adam had made all updates so far.
    forgetful.load_state({name: value for name, value in state.items() if name != "optimizer/begun"})
    for each in (rule, other, forgetful):
        each.step(*third)
    same(rule.state(), other.state())
    key = "hidden.input.weight"
    assert np.abs(rule.model.network.parameters[key] - forgetful.model.network.parameters[key]).max() > 1e-5
    with pytest.raises(CheckpointError, match="between 0 and steps, 2"):
        other.load_state({**state, "optimizer/begun": np.array(3)})


@pytest.mark.parametrize("kind", [*KINDS, "of the same class"])
@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_stream_follows(kind: str, sessions: bool, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a chain is kept at hand, or operations take the steps."""
    pytest.importorskip(backend)
    before, after = {**KINDS, "of the same class": (Adam(0.01), Adam(0.05, beta_1=0.5))}[kind]
    if sessions:
        monkeypatch.setattr("neko_rules.rules.session._STEPS_KEPT", 4)
        monkeypatch.setattr("neko_rules.chains.running.WORTHWHILE", 0)

    def stream() -> StreamLearner:
        return EProp(model(backend), online=True, optimizer=before).stream()

    one, other = stream(), stream()
    other.__dict__["_begun"] = lambda features: None
    random = np.random.default_rng(1)
    for t in range(20):
        if t == 9:
            one.rule.optimizer = other.rule.optimizer = after
        x, y = 3.0 * (random.random(FEATURES) < 0.4), int(random.integers(CLASSES))
        np.testing.assert_allclose(one.observe(x, y), other.observe(x, y), rtol=1e-9, atol=1e-12)
    same(one.rule.state(), other.rule.state())
    assert ("optimizer/begun" in one.rule.state()) == (type(before) is not type(after))
