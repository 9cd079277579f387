"""What is replaced between steps counts from the next one on, whoever takes it: optimiser, clipping, penalty, loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from neko_rules import BPTT, LIF, EProp, Evaluator, TruncatedBPTT
from neko_rules.clipping import ClipValue
from neko_rules.errors import CheckpointError
from neko_rules.kernels.host import by_library, unfused
from neko_rules.losses import MeanSquaredError
from neko_rules.metrics import Accuracy, TopK
from neko_rules.optimizers import SGD, Adam
from neko_rules.regularizers import FiringRate
from neko_rules.replaced import forget_if_replaced
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import Rule
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


def clipped(rule: Rule) -> None:
    rule.clipping = ClipValue(1e-6)


def decaying(rule: Rule) -> None:
    rule.weight_decay = 2.0


def penalised(rule: Rule) -> None:
    rule.regularizers = (FiringRate(target=20.0, strength=0.1),)


def judged_otherwise(rule: Rule) -> None:
    rule.model.loss = MeanSquaredError()


REPLACED = (clipped, decaying, penalised, judged_otherwise)

OTHER_CASES = [(name, "as usual", "numpy", each) for name in RULES for each in REPLACED]
OTHER_CASES += [("whole sequences", "by the library", "jax", each) for each in REPLACED]
OTHER_CASES += [("whole sequences", "by the library", library, clipped) for library in ("torch", "tensorflow")]
OTHER_CASES += [("whole sequences", "as usual", "torch", clipped), ("every step", "by the library", "jax", clipped)]


def twin_with(replace: Callable[[Rule], None], rule: LearningRule, make: Callable[..., LearningRule]) -> LearningRule:
    """A rule that never was without what is replaced, in the state of one that was."""
    twin = make(model(rule.nx.name), optimizer=SGD(0.05))
    replace(twin)
    twin.load_state(rule.state())
    return twin


@pytest.mark.parametrize(("name", "way", "backend", "replace"), OTHER_CASES)
def test_what_is_replaced_counts_from_the_next_step(
    name: str, way: str, backend: str, replace: Callable[[Rule], None]
) -> None:
    pytest.importorskip(backend)
    with WAYS[way]():
        rule, kept = (RULES[name](model(backend), optimizer=SGD(0.05)) for _ in range(2))
        first, *rest = batches(3)
        for each in (rule, kept):
            each.step(*first)
            each.gradients(*first)
        other = twin_with(replace, rule, RULES[name])
        replace(rule)
        same(rule.gradients(*rest[0]), other.gradients(*rest[0]))
        for batch in rest:
            assert rule.step(*batch) == pytest.approx(other.step(*batch), rel=1e-9)
            kept.step(*batch)
    same(rule.state(), other.state())
    before = kept.model.network.parameters
    after = rule.model.network.parameters
    assert any(np.abs(after[key] - value).max() > 1e-6 for key, value in before.items()), "nothing was replaced"


@pytest.mark.parametrize(
    ("backend", "replace"),
    [("numpy", clipped), ("numpy", decaying), ("numpy", judged_otherwise), ("torch", decaying), ("jax", clipped)],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_stream_follows_what_is_replaced(backend: str, many: bool, replace: Callable[[Rule], None]) -> None:
    """Beside a stream that forgets all that it has compiled at every step."""
    pytest.importorskip(backend)
    one, other = (EProp(model(backend), online=True, optimizer=SGD(0.05)).stream() for _ in range(2))
    random = np.random.default_rng(1)
    before = {}
    for t in range(4):
        if t == 2:
            before = one.rule.model.network.parameters
            for each in (one, other):
                replace(each.rule)
        for name in [name for name in vars(other) if name.startswith("_compiled")]:
            del vars(other)[name]
        x, y = 3.0 * (random.random((5, FEATURES)) < 0.4), random.integers(CLASSES, size=5)
        found = [each.observe_many(x, y) if many else each.observe(x[0], int(y[0])) for each in (one, other)]
        np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)
    same(one.rule.state(), other.rule.state())
    assert any(np.any(value != one.rule.model.network.parameters[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("way", "backend"),
    [("as usual", "numpy"), *(("by the library", library) for library in ("numpy", "torch", "jax", "tensorflow"))],
)
def test_a_model_is_judged_by_what_it_has(backend: str, way: str) -> None:
    pytest.importorskip(backend)
    x, y = batches(1)[0]
    with WAYS[way]():
        replaced, fresh = (Evaluator(LIF(8, CLASSES, inputs=FEATURES, backend=backend, seed=3)) for _ in range(2))
        first = replaced.evaluate(x, y)
        replaced.predict(x)
        for each in (replaced, fresh):
            each.loss, each.metrics = MeanSquaredError(), (Accuracy(), TopK(2))
        found = replaced.evaluate(x, y)
        assert found == fresh.evaluate(x, y)
        np.testing.assert_array_equal(replaced.predict(x), fresh.predict(x))
    assert set(first) == {"loss"}
    assert found["loss"] != first["loss"]
    assert set(found) == {"loss", "accuracy", "top_2"}


def test_of_a_users_class_what_it_was_made_with_is_looked_at() -> None:
    """What else it holds may change at every step, and nothing is compiled anew for it."""

    class Pulling(Rule):
        def __init__(self, model: Evaluator, *, strength: float = 1.0, **options: Any) -> None:
            super().__init__(model, **options)
            self.strength, self.asked = strength, 0

        def _judged_gradients(self, values: Any, own: Any, drawn: Any, batch: Any) -> Any:
            trajectory = self.model.network.forward(values, batch[0])
            return self.model.judge(trajectory, *batch[1:]), {n: self.strength * v for n, v in values.items()}

    rule = Pulling(model("numpy"))
    assert forget_if_replaced(rule)
    rule.asked += 1
    rule.steps += 1
    assert not forget_if_replaced(rule)
    for change in (lambda: setattr(rule, "strength", 2.0), lambda: clipped(rule), lambda: judged_otherwise(rule)):
        change()
        assert forget_if_replaced(rule)
        assert not forget_if_replaced(rule)
