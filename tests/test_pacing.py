"""Schedules in epochs: what trains makes schedules in updates of them, and elsewhere they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import (
    BPTT,
    LIF,
    Checkpoint,
    EProp,
    Evaluator,
    GradientComparison,
    LearningRule,
    Manhattan,
    Rule,
    Trainer,
)
from neko_rules.backend import _instances
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.errors import IncompatibleError
from neko_rules.experiments.run import run
from neko_rules.experiments.verify import verify

EXAMPLES, STEPS = 11, 12
X = np.random.default_rng(0).standard_normal((EXAMPLES, STEPS, 5))
Y = np.random.default_rng(1).integers(2, size=EXAMPLES)

LEARNING: dict[str, tuple[dict[str, Any], int]] = {
    "deferred": ({}, 1),
    "online": ({"online": True}, 12),
    "every 5": ({"online": 5}, 3),
    "window": ({"window": 4}, 3),
}
"""Arguments of a rule, and how many updates it makes of a sequence."""


def cosine(updates_per_epoch: int = 0) -> dict[str, Any]:
    """Two epochs down; in epochs, or in updates of which an epoch has so many."""
    if updates_per_epoch:
        return {"name": "cosine_decay", "initial": 0.02, "steps": 2 * updates_per_epoch}
    return {"name": "cosine_decay", "initial": 0.02, "steps": 2, "unit": "epochs"}


def rule(rate: Any, **options: Any) -> LearningRule:
    model = Evaluator(LIF(8, 2, dtype="float64", seed=3))
    return LearningRule(model, temporal="neuron", optimizer={"name": "adam", "learning_rate": rate}, **options)


def same(one: Rule, other: Rule) -> bool:
    ours, theirs = one.state(), other.state()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", LEARNING)
def test_a_trainer_knows_how_many_updates_an_epoch_has(name: str) -> None:
    """Eleven examples in batches of four: three batches of an epoch, of arrays as of a list."""
    options, updates = LEARNING[name]
    expected, found, listed = rule(cosine(3 * updates), **options), rule(cosine(), **options), rule(cosine(), **options)
    batches = [(X[part : part + 4], Y[part : part + 4]) for part in (0, 4, 8)]
    for trained in (expected, found):
        Trainer(trained).train(X, Y, epochs=3, batch_size=4, shuffle=False)
    Trainer(listed).train(batches, epochs=3)
    assert same(expected, found)
    assert same(expected, listed)
    assert found.steps == 9 * updates
    assert found.optimizer == expected.optimizer
    assert not same(expected, trained_with(cosine(3 * updates + 1), **options))


def trained_with(rate: Any, **options: Any) -> Rule:
    found = rule(rate, **options)
    Trainer(found).train(X, Y, epochs=3, batch_size=4, shuffle=False)
    return found


def test_an_encoder_says_how_many_time_steps_there_are() -> None:
    model = Evaluator(LIF(8, 2), encoder={"name": "constant", "steps": 6})
    encoded = EProp(model, online=2, optimizer={"name": "sgd", "learning_rate": cosine()})
    Trainer(encoded).train(X[:, 0], Y, epochs=1, batch_size=4)
    assert encoded.optimizer.learning_rate.steps == 2 * 3 * 3


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_is_taken_up_follows_the_same_schedule(epochs: int, tmp_path: Path) -> None:
    whole, part, again = rule(cosine(), online=5), rule(cosine(), online=5), rule(cosine(), online=5)
    Trainer(whole).train(X, Y, epochs=4, batch_size=4)
    Trainer(part, [Checkpoint(tmp_path, every_steps=2)]).train(X, Y, epochs=epochs, batch_size=4)
    Trainer(again).train(X, Y, epochs=4, batch_size=4, resume=tmp_path)
    assert same(whole, again)


def test_rules_that_are_compared_follow_each_its_own_updates() -> None:
    model = Evaluator(LIF(8, 2, dtype="float64", seed=3))
    rates = {"optimizer": {"name": "sgd", "learning_rate": cosine()}}
    comparison = GradientComparison(BPTT(model, **rates), {"often": EProp(model, online=5, **rates)})
    comparison.train(4 * X, Y, epochs=1, batch_size=4)
    found = [each.optimizer.learning_rate.steps for each in comparison.rules.values()]
    assert found == [6, 18]


def test_the_change_of_a_pulse_may_follow_epochs() -> None:
    expected, found = (Manhattan(Evaluator(LIF(8, 2, seed=3)), cosine(updates)) for updates in (3, 0))
    for each in (expected, found):
        Trainer(each).train(X, Y, epochs=2, batch_size=4)
    assert same(expected, found)


def test_whoever_does_not_know_epochs_refuses_them() -> None:
    said = r"needs to know how many updates an epoch has.*in_updates"
    deferred, online = rule(cosine()), rule(cosine(), online=True)
    assert set(deferred.gradients(X, Y)) == set(deferred.model.network.values)
    for step in (
        lambda: deferred.step(X, Y),
        lambda: online.step(X, Y),
        lambda: online.stream().observe(X[0, 0], 1),
        lambda: Manhattan(Evaluator(LIF(8, 2)), cosine()).step(X, Y),
    ):
        with pytest.raises(IncompatibleError, match=said):
            step()
    assert deferred.steps == online.steps == 0
    deferred.pace(3, X)
    deferred.step(X, Y)
    assert deferred.optimizer.learning_rate_at(6) == 0

    class Unmeasured:
        def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            yield X[:4], Y[:4]

    with pytest.raises(IncompatibleError, match="an iterable without a length"):
        Trainer(online).train(Unmeasured(), epochs=2)
    Trainer(rule(1e-3)).train(Unmeasured(), epochs=2)


def test_a_run_is_verified_and_taken_up_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {name: mnist1d, num_samples: 50}\n"
        "model: {name: LIF, hidden: 24, outputs: 10}\n"
        "rule: {name: eprop, online: 20, optimizer: {name: adam, learning_rate: {name: cosine, initial: 5e-3, steps: 2,"
        " unit: epochs}}}\n"
        "train: {epochs: 2, batch_size: 16}\n"
    )
    outcome = run(path, out=tmp_path / "run", progress=False)
    assert "unit: epochs" in (tmp_path / "run" / "config.yaml").read_text()
    assert len(outcome.history) == 2
    monkeypatch.setitem(_instances, "twin", NumpyBackend())
    assert verify(path, ["numpy", "twin"], steps=1, examples=4).agree
