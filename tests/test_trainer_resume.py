"""Checkpoints: a run stopped or killed at any step and resumed is bit for bit the unstopped run."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import RUN, Momentum, StopAt, X, Y, same_state, start, timeless, wait_for_step, whole_run

from neko_rules.errors import CheckpointError
from neko_rules.trainers import Checkpoint, Trainer
from neko_rules.trainers.checkpoint import read_snapshot

# Resuming.


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_run_stopped_at_any_step_and_resumed_is_the_unstopped_run(tmp_path, stop):
    expected, unstopped = whole_run()
    first = Momentum()
    stopped = Trainer(first, callbacks=[StopAt(stop), Checkpoint(tmp_path)]).train(X, Y, **RUN)
    assert stopped.stopped == "enough"
    assert first.steps == stop
    assert stopped.partial is not None
    assert stopped.partial["steps"] == (stop - 1) % 3 + 1

    second = Momentum()
    resumed = Trainer(second, callbacks=[Checkpoint(tmp_path)]).train(X, Y, **RUN, resume=tmp_path)
    same_state(second.state(), expected.state())
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)
    assert len(second.batches) == 9 - stop, "no step is made twice"


def test_a_run_resumed_after_every_single_step_is_the_unstopped_run(tmp_path):
    expected, unstopped = whole_run()
    for stop in range(1, 10):
        rule = Momentum()
        resume = tmp_path if stop > 1 else None
        history = Trainer(rule, callbacks=[StopAt(stop), Checkpoint(tmp_path)]).train(X, Y, **RUN, resume=resume)
    rule = Momentum()
    history = Trainer(rule).train(X, Y, **RUN, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(history.epochs) == timeless(unstopped.epochs)


@pytest.mark.parametrize("every_steps", [1, 2, 4])
def test_every_checkpoint_of_a_run_leads_to_its_end(tmp_path, every_steps):
    expected = Momentum()
    callback = Checkpoint(tmp_path, every_steps=every_steps, keep=None)
    unstopped = Trainer(expected, callbacks=[callback]).train(X, Y, **RUN)
    files = sorted(tmp_path.iterdir())
    assert [int(file.stem.split("-")[1]) for file in files] == sorted({*range(every_steps, 10, every_steps), 3, 6, 9})
    for file in files:
        rule = Momentum()
        history = Trainer(rule).train(X, Y, **RUN, resume=file)
        same_state(rule.state(), expected.state())
        assert timeless(history.epochs) == timeless(unstopped.epochs)


def test_a_finished_run_can_be_prolonged(tmp_path):
    expected, unstopped = whole_run(epochs=5)
    whole_run(tmp_path, epochs=3)
    rule = Momentum()
    history = Trainer(rule).train(X, Y, **RUN | {"epochs": 5}, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(history.epochs) == timeless(unstopped.epochs)
    again = Trainer(Momentum()).train(X, Y, **RUN, resume=tmp_path)
    assert len(again) == 3, "nothing is left to do"


@pytest.mark.parametrize(
    ("changes", "names"),
    [({"seed": 6}, "seed"), ({"batch_size": 5}, "batch_size"), ({"shuffle": False}, "shuffle")],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, names):
    whole_run(tmp_path)
    rule = Momentum()
    with pytest.raises(
        CheckpointError, match=rf"resumed with the {names} it was begun with \(received: \S+ instead of"
    ):
        Trainer(rule).train(X, Y, **RUN | changes, resume=tmp_path)
    assert rule.steps == 0
    with pytest.raises(CheckpointError, match=r"number of examples .*10 instead of 11"):
        Trainer(rule).train(X[:10], Y[:10], **RUN, resume=tmp_path)

    class Other(Momentum):
        pass

    with pytest.raises(CheckpointError, match=r"rule .*'Other' instead of 'Momentum'"):
        Trainer(Other()).train(X, Y, **RUN, resume=tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    def refused(path, match):
        with pytest.raises(CheckpointError, match=match) as caught:
            Trainer(Momentum()).train(X, Y, **RUN, resume=path)
        assert "\n" not in str(caught.value)

    from safetensors.numpy import save_file

    refused(tmp_path / "missing", "file or a folder that holds one")
    refused(tmp_path, "file or a folder that holds one")
    (tmp_path / "run").mkdir()
    whole_run(tmp_path / "run")
    (file,) = (tmp_path / "run").iterdir()
    cut = tmp_path / "cut.safetensors"
    for length in (0, 5, 100, file.stat().st_size - 1):
        cut.write_bytes(file.read_bytes()[:length])
        refused(cut, "whole safetensors file")
    save_file({"a": np.zeros(2)}, tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", "position of its run")
    save_file({"a": np.zeros(2)}, tmp_path / "odd.safetensors", metadata={"neko_rules": '{"format": 1}'})
    refused(tmp_path / "odd.safetensors", "must be complete")
    save_file(
        {"a": np.zeros(2)}, tmp_path / "new.safetensors", metadata={"neko_rules": '{"format": 99, "version": "9"}'}
    )
    refused(tmp_path / "new.safetensors", "layout 99.*read it with neko_rules 9")


# Checkpoint files.


def test_checkpoints_hold_arrays_and_a_description_without_pickle(tmp_path):
    rule, history = whole_run(tmp_path)
    (file,) = tmp_path.iterdir()
    snapshot = read_snapshot(file)
    same_state(dict(snapshot.state), rule.state())
    assert snapshot.epochs == history.epochs
    assert snapshot.run == {
        "rule": "Momentum", "number of examples": 11, "batch_size": 4, "shuffle": True, "seed": 5,
    }  # fmt: skip
    header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])
    about = json.loads(header["__metadata__"]["neko_rules"])
    assert about["format"] == 1
    assert about["version"]


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    Trainer(Momentum(), callbacks=[Checkpoint(tmp_path, every_steps=1, keep=2)]).train(X, Y, **RUN)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "step-00000008.safetensors",
        "step-00000009.safetensors",
    ]


def test_a_new_run_does_not_write_over_an_older_one(tmp_path):
    whole_run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    rule = Momentum()
    with pytest.raises(CheckpointError, match=r"pass resume=.* or choose another folder"):
        Trainer(rule, callbacks=[Checkpoint(tmp_path)]).train(X, Y, **RUN)
    assert rule.steps == 0
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    whole_run(tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    callback = Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="No space left on device"):
        Trainer(Momentum(), callbacks=[callback]).train(X, Y, **RUN | {"epochs": 4}, resume=tmp_path)
    assert callback.last == file
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    rule = Momentum()
    with pytest.raises(CheckpointError, match="folder of checkpoints must be writable"):
        Trainer(rule, callbacks=[Checkpoint(tmp_path / "file")]).train(X, Y, **RUN)
    assert rule.steps == 0


# Killed from outside.


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path, seed):
    expected, unstopped = whole_run()
    rng = random.Random(seed)
    with start(tmp_path) as process:
        wait_for_step(process, rng.randrange(2, 9))
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    rule = Momentum()
    history = Trainer(rule, callbacks=[Checkpoint(tmp_path)]).train(X, Y, **RUN, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(history.epochs) == timeless(unstopped.epochs)
