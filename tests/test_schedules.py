"""Learning-rate schedules: closed forms, ends, monotony, and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.schedules import (
    SCHEDULES,
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    LinearWarmup,
    PiecewiseConstant,
    Schedule,
    StepDecay,
    resolve_learning_rate,
)

EXAMPLES: dict[str, dict[str, Any]] = {
    "constant": {"value": 0.1},
    "exponential_decay": {"initial": 0.1, "rate": 0.5, "steps": 10},
    "step_decay": {"initial": 0.1, "rate": 0.5, "steps": 10},
    "cosine_decay": {"initial": 0.1, "steps": 50, "final": 0.01},
    "inverse_time_decay": {"initial": 0.1, "steps": 10},
    "piecewise_constant": {"boundaries": [10, 20], "values": [0.1, 0.05, 0.01]},
    "linear_warmup": {"steps": 5, "then": {"name": "cosine_decay", "initial": 0.1, "steps": 20}},
}


COUNTS: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in given.items() if key in ("steps", "boundaries")}
    for name, given in EXAMPLES.items()
}


def example(name: str) -> Schedule:
    return SCHEDULES.resolve({"name": name, **EXAMPLES[name]})


def test_every_schedule_has_an_example() -> None:
    assert set(EXAMPLES) == set(SCHEDULES)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_pure_function_with_plain_numbers(name: str) -> None:
    schedule = example(name)
    rates = [schedule(step) for step in range(100)]
    assert all(type(rate) is float for rate in rates)
    assert all(0 <= rate <= 0.1 + 1e-15 for rate in rates)
    assert rates == [schedule(step) for step in range(100)]
    assert rates == [example(name)(step) for step in range(100)]
    assert math.isfinite(schedule(10**9))
    assert schedule == example(name)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in ("constant", "linear_warmup")])
def test_decays_start_at_the_top_and_never_rise(name: str) -> None:
    rates = [example(name)(step) for step in range(100)]
    assert rates[0] == 0.1
    assert np.all(np.diff(rates) <= 0)
    assert rates[-1] < 0.05


def test_closed_forms() -> None:
    steps = np.arange(40)
    for schedule, expected in [
        (Constant(0.3), np.full(40, 0.3)),
        (ExponentialDecay(2.0, 0.5, 10), 2.0 * np.exp2(-steps / 10)),
        (StepDecay(2.0, 0.5, 10), 2.0 * np.repeat([1, 0.5, 0.25, 0.125], 10)),
        (InverseTimeDecay(2.0, 10), 20.0 / (10 + steps)),
        (PiecewiseConstant([1, 30], [3.0, 2.0, 1.0]), np.repeat([3.0, 2.0, 1.0], [1, 29, 10])),
        (LinearWarmup(4, 2.0), np.minimum((steps + 1) / 4, 1.0) * 2.0),
    ]:
        np.testing.assert_allclose([schedule(int(step)) for step in steps], expected, rtol=1e-14)


def test_cosine_decay() -> None:
    schedule = CosineDecay(initial=1.0, steps=60, final=0.2)
    assert schedule(0) == 1.0
    assert schedule(20) == pytest.approx(0.2 + 0.8 * 0.75)
    assert schedule(30) == pytest.approx(0.6)
    assert schedule(60) == schedule(61) == pytest.approx(0.2)


def test_warmup_joins_the_schedule_that_follows() -> None:
    following = ExponentialDecay(1.0, 0.5, 10)
    schedule = LinearWarmup(5, following)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [schedule(5 + step) for step in range(30)] == [following(step) for step in range(30)]
    mapping = LinearWarmup(5, {"name": "exponential_decay", "initial": 1.0, "rate": 0.5, "steps": 10})
    assert mapping == schedule


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_every_argument_matters(name: str) -> None:
    changes: dict[str, Any] = {"boundaries": [7, 9], "values": [0.1, 0.04, 0.02], "then": 0.01, "steps": 7}
    for key, value in EXAMPLES[name].items():
        changed = SCHEDULES.create(
            name, {**EXAMPLES[name], key: changes.get(key, 0.8 * value if key not in changes else 0)}
        )
        assert [changed(step) for step in range(60)] != [example(name)(step) for step in range(60)], key


COUNTED = [name for name in SCHEDULES if name != "constant"]


@pytest.mark.parametrize("name", COUNTED)
def test_epochs_are_updates_of_which_an_epoch_has_so_many(name: str) -> None:
    times = {
        key: [7 * each for each in value] if key == "boundaries" else 7 * value for key, value in COUNTS[name].items()
    }
    schedule = SCHEDULES.create(name, {**EXAMPLES[name], "unit": "epochs"})
    found = schedule.in_updates(7)
    assert schedule.in_epochs
    assert not found.in_epochs
    assert found == SCHEDULES.create(name, {**EXAMPLES[name], **times})
    assert found.in_updates(3) is found or found.in_updates(3) == found
    assert "unit='epochs'" in repr(schedule)
    assert "unit" not in repr(found)
    with pytest.raises(IncompatibleError, match=r"how many updates an epoch has.*unit='epochs'"):
        schedule(0)


def test_parts_of_epochs_are_rounded_to_updates_of_at_least_one() -> None:
    assert CosineDecay(0.1, 0.5, unit="epochs").in_updates(10) == CosineDecay(0.1, 5)
    assert CosineDecay(0.1, 0.01, unit="epochs").in_updates(10) == CosineDecay(0.1, 1)
    assert PiecewiseConstant([0.1, 1.5], [3, 2, 1], unit="epochs").in_updates(10) == PiecewiseConstant(
        [1, 15], [3, 2, 1]
    )


def test_a_warm_up_and_what_follows_have_each_a_unit_of_its_own() -> None:
    after = {"name": "cosine_decay", "initial": 0.1, "steps": 3}
    in_epochs = {**after, "unit": "epochs"}
    for first, then, expected in (
        ({"steps": 20}, in_epochs, LinearWarmup(20, CosineDecay(0.1, 30))),
        ({"steps": 2, "unit": "epochs"}, after, LinearWarmup(20, CosineDecay(0.1, 3))),
        ({"steps": 2, "unit": "epochs"}, in_epochs, LinearWarmup(20, CosineDecay(0.1, 30))),
    ):
        schedule = LinearWarmup(**first, then=then)
        assert schedule.in_epochs
        assert schedule.in_updates(10) == expected
        with pytest.raises(IncompatibleError, match="how many updates"):
            schedule(0)


def test_resolved_from_numbers_mappings_and_objects() -> None:
    assert resolve_learning_rate(1) == 1.0
    assert resolve_learning_rate(np.float32(0.5)) == 0.5
    assert resolve_learning_rate(Constant(0.1)) == Constant(0.1)
    assert resolve_learning_rate({"name": "StepDecay", "initial": 1, "rate": 0.5, "steps": 3}) == StepDecay(1.0, 0.5, 3)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (-0.1, "learning_rate"),
        (None, "learning_rate"),
        ("cosine", "learning_rate"),
        (False, "learning_rate"),
        ({"initial": 0.1}, "name"),
        ({"name": "cosin", "initial": 0.1, "steps": 3}, "cosine_decay"),
        ({"name": "constant", "value": -1}, "value"),
        ({"name": "exponential_decay", "initial": 0.1, "rate": 1.5, "steps": 3}, "rate"),
        ({"name": "step_decay", "initial": 0.1, "rate": 0.5, "steps": 0}, "steps"),
        ({"name": "step_decay", "initial": 0.1, "rate": 0.5, "steps": 2.5}, "steps"),
        ({"name": "cosine_decay", "initial": 0.1, "steps": 3, "final": -1}, "final"),
        ({"name": "piecewise_constant", "boundaries": [3, 3], "values": [1, 2, 3]}, "rise"),
        ({"name": "piecewise_constant", "boundaries": [3], "values": [1]}, "one more"),
        ({"name": "piecewise_constant", "boundaries": 3, "values": [1, 2]}, "list"),
        ({"name": "linear_warmup", "steps": 3, "then": "soon"}, "then"),
        (
            {"name": "cosine", "initial": 0.1, "epochs": 3},
            "'epochs'; give steps, which are epochs with unit='epochs'",
        ),
        ({"name": "warmup", "epochs": 3, "then": 0.1}, "give steps, which are epochs with unit='epochs'"),
        ({"name": "piecewise", "epochs": [3], "values": [1, 2]}, "give boundaries, which are epochs"),
        ({"name": "cosine_decay", "initial": 0.1, "steps": 3, "unit": "epoch"}, "did you mean 'epochs'"),
        (
            {"name": "cosine_decay", "initial": 0.1, "steps": 0, "unit": "epochs"},
            "steps must be a finite number above 0",
        ),
        ({"name": "constant", "value": 0.1, "unit": "epochs"}, "no argument 'unit'"),
    ],
)
def test_refusals(spec: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        resolve_learning_rate(spec)
