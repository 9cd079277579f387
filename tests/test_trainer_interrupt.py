"""Ctrl-C: no step is cut in two, everything is written, a second one interrupts at once."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import RUN, Momentum, X, Y, same_state, start, timeless, wait_for_step, whole_run

from neko_rules.trainers import Callback, Checkpoint, Trainer


class InterruptAt(Callback):
    """Presses Ctrl-C at a step or at the end of an epoch."""

    def __init__(self, total_steps=None, epoch=None, times=1):
        self.at, self.in_epoch, self.times = total_steps, epoch, times

    def press(self):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)

    def on_step_end(self, trainer, step_metrics):
        if trainer.total_steps == self.at:
            self.press()

    def on_epoch_end(self, trainer, epoch_record):
        if epoch_record["epoch"] == self.in_epoch:
            self.press()


@pytest.mark.parametrize("at", range(1, 9))
def test_ctrl_c_ends_a_run_that_can_be_resumed(tmp_path, at):
    expected, unstopped = whole_run()
    before = signal.getsignal(signal.SIGINT)
    rule = Momentum()
    callbacks = [InterruptAt(at), Checkpoint(tmp_path)]
    history = Trainer(rule, callbacks=callbacks).train(X, Y, **RUN)
    assert signal.getsignal(signal.SIGINT) is before
    assert history.interrupted
    assert rule.steps == at
    assert history.partial["steps"] == (at - 1) % 3 + 1
    assert len(history) == (at - 1) // 3, "an epoch whose validation is missing is not finished"
    assert "validation_loss" not in history.partial
    seen = np.concatenate(rule.batches[3 * len(history) :])
    assert len(seen) == min(4 * history.partial["steps"], 11)

    rule = Momentum()
    resumed = Trainer(rule).train(X, Y, **RUN, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)


def test_ctrl_c_between_epochs_leaves_no_partial_epoch(tmp_path):
    history = Trainer(Momentum(), callbacks=[InterruptAt(epoch=2)]).train(X, Y, **RUN)
    assert history.interrupted
    assert history.partial is None
    assert len(history) == 2


def test_ctrl_c_after_the_last_epoch_interrupts_nothing():
    history = Trainer(Momentum(), callbacks=[InterruptAt(epoch=3)]).train(X, Y, **RUN)
    assert not history.interrupted
    assert len(history) == 3


def test_ctrl_c_ends_a_long_validation(tmp_path):
    expected, unstopped = whole_run()
    rule = Momentum()
    rule.model.check = lambda x, y: setattr(rule.model, "pause", 0.0)

    def evaluate(x, y, batch_size, plain=rule.model.evaluate):
        if len(x) == 7:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return plain(x, y, batch_size)

    rule.model.evaluate = evaluate
    begin = time.monotonic()
    history = Trainer(rule, callbacks=[Checkpoint(tmp_path)]).train(X, Y, **RUN)
    assert time.monotonic() - begin < 5
    assert history.interrupted
    assert len(history) == 0
    assert history.partial["steps"] == 3
    rule = Momentum()
    resumed = Trainer(rule).train(X, Y, **RUN, resume=tmp_path)
    same_state(rule.state(), expected.state())
    assert timeless(resumed.epochs) == timeless(unstopped.epochs)


def test_a_second_ctrl_c_interrupts_at_once(tmp_path):
    closed = []

    class Closing(InterruptAt):
        def close(self):
            closed.append(True)

    before = signal.getsignal(signal.SIGINT)
    trainer = Trainer(Momentum(), callbacks=[Checkpoint(tmp_path), Closing(4, times=2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train(X, Y, **RUN)
    assert signal.getsignal(signal.SIGINT) is before
    assert closed == [True]
    assert len(trainer.history) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["step-00000003.safetensors"]


def test_signal_handlers_are_left_alone_outside_the_main_thread():
    before = signal.getsignal(signal.SIGINT)
    histories = []
    thread = threading.Thread(target=lambda: histories.append(Trainer(Momentum()).train(X, Y, **RUN)))
    thread.start()
    thread.join()
    assert len(histories[0]) == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = Trainer(Momentum(), callbacks=[InterruptAt(2)]).train(X, Y, **RUN)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not history.interrupted
    assert len(history) == 3


def test_a_run_ended_by_sigint_from_outside_has_everything_written(tmp_path):
    expected, unstopped = whole_run()
    with start(tmp_path, "--rarely") as process:
        wait_for_step(process, 4)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["interrupted"]
    assert 4 <= result["steps"] < 9
    assert result["whole"], "the step in progress was finished"
    rule = Momentum()
    history = Trainer(rule).train(X, Y, **RUN, resume=tmp_path)
    assert len(rule.batches) == 9 - result["steps"]
    same_state(rule.state(), expected.state())
    assert timeless(history.epochs) == timeless(unstopped.epochs)
