"""The trainer: order of batches, means over an epoch, early stopping, numbers that are not finite, refusals."""

import dataclasses
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import RUN, VALIDATION, Momentum, StopAt, X, Y, same_state, timeless

from neko_rules.errors import ArgumentError, NekoError, NonFiniteError
from neko_rules.trainers import Callback, Checkpoint, EarlyStopping, History, Trainer
from neko_rules.trainers.checkpoint import read_snapshot

# Order of batches and means.


def test_every_epoch_uses_every_example_in_the_order_of_its_seed_and_number():
    rule = Momentum()
    Trainer(rule).train(X, Y, **RUN)
    sizes = [len(batch) for batch in rule.batches]
    assert sizes == [4, 4, 3] * 3
    for epoch in (1, 2, 3):
        seen = np.concatenate(rule.batches[3 * (epoch - 1) : 3 * epoch])
        assert (seen == Y[np.random.default_rng([5, epoch]).permutation(11)]).all()


def test_without_shuffling_examples_are_taken_as_they_lie():
    rule = Momentum()
    Trainer(rule).train(X, Y, epochs=2, batch_size=4, shuffle=False)
    assert (np.concatenate(rule.batches) == np.concatenate([Y, Y])).all()


def test_another_seed_gives_another_run():
    one, other = Momentum(), Momentum()
    Trainer(one).train(X, Y, **RUN)
    Trainer(other).train(X, Y, **RUN | {"seed": 6})
    assert not np.array_equal(one.model.weight, other.model.weight)


def test_metrics_of_an_epoch_are_means_over_its_examples():
    # With a learning rate of 0 the mean over batches of 4, 4 and 3 must be that over all 11 examples at once.
    rule = Momentum(learning_rate=0.0)
    history = Trainer(rule).train(X, Y, epochs=1, batch_size=4, validation_data=VALIDATION)
    whole = rule.model.evaluate(X, Y, batch_size=11)
    assert history["loss"] == pytest.approx([whole["loss"]], rel=1e-14)
    assert history["accuracy"] == pytest.approx([whole["accuracy"]], rel=1e-14)
    assert history["validation_loss"] == [rule.model.evaluate(*VALIDATION, batch_size=4)["loss"]]
    names = ["epoch", "steps", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]
    assert list(history.epochs[0]) == names


def test_records_have_epoch_steps_and_seconds():
    history = Trainer(Momentum(pause=0.002)).train(X, Y, epochs=2, batch_size=4)
    assert history["epoch"] == [1, 2]
    assert history["steps"] == [3, 3]
    assert all(seconds >= 3 * 2 * 0.002 for seconds in history["seconds"])
    assert (history.interrupted, history.partial, history.stopped) == (False, None, "")


def test_a_history_is_shown_in_a_line():
    history = Trainer(Momentum()).train(X, Y, epochs=2)
    assert repr(history) == f"History(2 epochs: loss {history['loss'][-1]:.4g}, accuracy {history['accuracy'][-1]:.4g})"
    assert repr(History([{"epoch": 1, "loss": None}], stopped="no gain")) == "History(1 epoch; no gain)"
    assert repr(History(interrupted=True)) == "History(0 epochs; interrupted)"


def test_the_history_refuses_what_it_does_not_have():
    history = Trainer(Momentum()).train(X, Y, epochs=1)
    with pytest.raises(ArgumentError, match=r"no 'acuracy'; did you mean 'accuracy'\?"):
        history["acuracy"]


# Early stopping.


def test_early_stopping_waits_for_its_patience():
    values = iter([3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0, 2.0])
    rule = Momentum()
    rule.model.evaluate = lambda x, y, batch_size: {"loss": next(values) if len(x) == 7 else 0.0}
    history = Trainer(rule, callbacks=[EarlyStopping(patience=3)]).train(X, Y, **RUN | {"epochs": 30})
    assert history["validation_loss"] == [3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0, 2.0]
    assert history.stopped == "validation_loss has not improved for 3 epochs"
    assert not history.interrupted


def test_early_stopping_knows_that_accuracies_should_rise():
    values = iter([0.1, 0.2, 0.3, 0.25, 0.3])
    rule = Momentum()
    rule.model.evaluate = lambda x, y, batch_size: {"loss": 0.0, "accuracy": next(values) if len(x) == 7 else 0.0}
    history = Trainer(rule, [EarlyStopping("validation_accuracy", patience=2)]).train(X, Y, **RUN | {"epochs": 30})
    assert len(history) == 5
    assert EarlyStopping("firing_rate", mode="min").mode == "min"
    with pytest.raises(ArgumentError, match="pass mode="):
        EarlyStopping("firing_rate")


def test_minimum_change_is_what_an_epoch_must_beat():
    def epochs(minimum_change):
        values = iter([1.0, 0.95, 0.9, 0.85, 0.8, 0.75])
        rule = Momentum()
        rule.model.evaluate = lambda x, y, batch_size: {"loss": next(values) if len(x) == 7 else 0.0}
        callback = EarlyStopping(patience=2, minimum_change=minimum_change)
        return len(Trainer(rule, [callback]).train(X, Y, **RUN | {"epochs": 6}))

    assert epochs(0.0) == 6
    assert epochs(0.2) == 3


@pytest.mark.parametrize("stop", range(1, 15))
@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_early_stopping_is_resumed_exactly(tmp_path, stop, checkpoint_first):
    # The loss falls towards its floor, so that a wide minimum change stops the run in its fifth epoch.
    run = RUN | {"epochs": 30}

    def train(*extra, **changes):
        callbacks = [EarlyStopping("loss", patience=2, minimum_change=1.0), *extra]
        return Trainer(Momentum(), callbacks[::-1] if checkpoint_first else callbacks).train(X, Y, **run, **changes)

    unstopped = train()
    assert 1 < len(unstopped) < 30
    train(StopAt(stop), Checkpoint(tmp_path))
    resumed = train(Checkpoint(tmp_path), resume=tmp_path)
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)
    assert resumed.stopped == unstopped.stopped
    assert timeless(train(resume=tmp_path).epochs) == timeless(unstopped.epochs), "a stopped run stays stopped"


def test_early_stopping_refuses_what_is_not_measured():
    with pytest.raises(ArgumentError, match="needs validation data; pass validation_data"):
        Trainer(Momentum(), [EarlyStopping()]).train(X, Y)
    with pytest.raises(ArgumentError, match=r"received: validation_los\).*did you mean 'validation_loss'"):
        Trainer(Momentum(), [EarlyStopping("validation_los", mode="min")]).train(X, Y, **RUN)


# Numbers that are not finite.


def test_a_run_that_diverges_names_parameter_step_epoch_and_checkpoint(tmp_path):
    rule = Momentum(learning_rate=50.0)
    trainer = Trainer(rule, callbacks=[Checkpoint(tmp_path, every_steps=1)])
    with pytest.raises(NonFiniteError) as caught:
        trainer.train(X, Y, **RUN | {"epochs": 30})
    error = caught.value
    assert error.quantity == "line.weight"
    assert error.step == rule.steps + 1
    assert error.epoch == rule.steps // 3 + 1
    (file,) = tmp_path.iterdir()
    for part in ("line.weight", f"step {error.step}", f"epoch {error.epoch}", repr(str(file))):
        assert part in str(error)
    assert "\n" not in str(error)
    same_state(dict(read_snapshot(tmp_path).state), rule.state())
    assert len(trainer.history) == rule.steps // 3
    assert (trainer.history.partial or {"steps": 0})["steps"] == rule.steps % 3


def test_without_a_checkpoint_the_error_says_how_to_have_one():
    with pytest.raises(NonFiniteError, match=r"no checkpoint was written.*callbacks=\[Checkpoint\(folder\)\]"):
        Trainer(Momentum(learning_rate=50.0)).train(X, Y, **RUN | {"epochs": 30})


def test_a_validation_that_is_not_finite_stops_the_run():
    rule = Momentum()
    rule.model.evaluate = lambda x, y, batch_size: {"loss": np.inf if len(x) == 7 and rule.steps > 3 else 1.0}
    trainer = Trainer(rule)
    with pytest.raises(NonFiniteError, match="validation_loss at step 6, in epoch 2"):
        trainer.train(X, Y, **RUN)
    assert len(trainer.history) == 1


def test_the_error_survives_the_way_between_processes():
    error = NonFiniteError("hidden.bias", 7, works="rest", epoch=2)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.quantity, copy.step, copy.epoch) == (str(error), "hidden.bias", 7, 2)


# Arguments.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"shuffle": "yes"}, "shuffle must be true or false"),
        ({"progress": 1}, "progress must be true or false"),
        ({"x": X[:0], "y": Y[:0]}, r"same number of examples, at least 1 \(received: 0 and 0\)"),
        ({"y": Y[:3]}, r"x and y must have the same number of examples, at least 1 \(received: 11 and 3\)"),
        ({"x": np.full_like(X, np.nan)}, "x must be finite"),
        ({"x": [[[1.0]], [[1.0, 2.0]]], "y": [1, 2]}, "x must be an array whose examples all have one shape"),
        ({"x": 3.0}, "x must be an array with one entry per example"),
        ({"validation_data": X}, r"validation_data must be a pair \(x, y\)"),
        ({"validation_data": (X,)}, r"validation_data must be a pair \(x, y\)"),
        ({"validation_data": (X, Y[:2])}, "x and y of validation_data must have the same number.*11 and 2"),
        ({"validation_data": (np.full_like(X, np.nan), Y)}, "x must be finite"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence_before_training(changes, match):
    rule = Momentum()
    with pytest.raises(NekoError, match=match) as caught:
        Trainer(rule).train(**{"x": X, "y": Y} | RUN | changes)
    assert "\n" not in str(caught.value)
    assert rule.steps == 0


def test_callbacks_must_be_callbacks(tmp_path):
    with pytest.raises(ArgumentError, match="callbacks must be Callback objects"):
        Trainer(Momentum(), callbacks=[EarlyStopping])
    for wrong in ({"every_epochs": 0}, {"every_steps": 0.5}, {"keep": 0}, {"folder": 3}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            Checkpoint(**{"folder": tmp_path} | wrong)


def test_callbacks_are_called_in_order(tmp_path):
    calls = []

    class Noting(Callback):
        def on_train_begin(self, trainer):
            calls.append("begin")

        def on_step_end(self, trainer, step_metrics):
            calls.append(trainer.step)
            assert set(step_metrics) == {"loss", "accuracy"}

        def on_epoch_end(self, trainer, epoch_record):
            calls.append("epoch")
            assert trainer.history.epochs[-1] is epoch_record

        def on_train_end(self, trainer, history):
            calls.append("end")
            assert history is trainer.history

        def close(self):
            calls.append("close")

    history = Trainer(Momentum(), callbacks=[Noting()]).train(X, Y, epochs=2, batch_size=6)
    assert calls == ["begin", 1, 2, "epoch", 1, 2, "epoch", "end", "close"]
    assert dataclasses.replace(history, epochs=[]) == History()
