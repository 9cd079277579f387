"""A small rule and a small run, on which the trainer is tested.

Run as a program (``python trainer_toy.py FOLDER``), this file trains the small run slowly, to be killed or interrupted
from outside.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from neko_rules.errors import DataError, NonFiniteError
from neko_rules.trainers import Callback, Checkpoint, Trainer


class Line:
    """A linear regression, the smallest thing that can be trained."""

    def __init__(self):
        self.weight = np.zeros(2)
        self.pause = 0.0

    def check(self, x, y, whole=True):
        if not np.isfinite(x).all():
            raise DataError("x must be finite")

    def evaluate(self, x, y, batch_size):
        end = time.monotonic() + self.pause
        while time.monotonic() < end:
            time.sleep(0.01)
        error = x[:, 0] @ self.weight - y
        return {"loss": float(np.mean(error**2)), "accuracy": float(np.mean(np.abs(error) < 0.5))}


class Momentum:
    """Momentum descent on a line, with the interface of a learning rule."""

    def __init__(self, learning_rate=0.05, pause=0.0):
        self.model = Line()
        self.learning_rate = learning_rate
        self.velocity = np.zeros(2)
        self.steps = 0
        self.pause = pause
        self.batches = []

    def step(self, x, y):
        time.sleep(self.pause)
        self.batches.append(y)
        metrics = self.model.evaluate(x, y, batch_size=len(x))
        gradient = 2 * x[:, 0].T @ (x[:, 0] @ self.model.weight - y) / len(x)
        velocity = 0.9 * self.velocity - self.learning_rate * gradient
        if not np.isfinite(velocity).all() or np.abs(velocity).max() > 1e12:
            raise NonFiniteError("line.weight", self.steps + 1)
        # Two assignments with a pause between: an interruption that could cut a step in two would be seen.
        self.velocity = velocity
        time.sleep(self.pause)
        self.model.weight = self.model.weight + velocity
        self.steps += 1
        return metrics

    def state(self):
        return {
            "parameters/line.weight": self.model.weight.copy(),
            "optimizer/velocity": self.velocity.copy(),
            "steps": np.array(self.steps, dtype=np.int64),
        }

    def load_state(self, state):
        self.model.weight = state["parameters/line.weight"].copy()
        self.velocity = state["optimizer/velocity"].copy()
        self.steps = int(state["steps"])


def data(examples=11):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 1, 2))
    return x, x[:, 0] @ np.array([1.0, -2.0]) + 0.1 * rng.normal(size=examples)


X, Y = data()
VALIDATION = data(7)
RUN = {"epochs": 3, "batch_size": 4, "validation_data": VALIDATION, "seed": 5}


class StopAt(Callback):
    """Ends a run after a number of updates."""

    def __init__(self, total_steps):
        self.at = total_steps

    def on_step_end(self, trainer, step_metrics):
        if trainer.total_steps == self.at:
            trainer.stop("enough")


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def same_state(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].shape == other[name].shape
        assert one[name].tobytes() == other[name].tobytes(), name


def whole_run(folder=None, callbacks=(), **changes):
    rule = Momentum()
    extra = [] if folder is None else [Checkpoint(folder)]
    history = Trainer(rule, callbacks=[*callbacks, *extra]).train(X, Y, **RUN | changes)
    return rule, history


def start(folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_step(process, step):
    for line in process.stdout:
        if line.split() == ["step", str(step)]:
            return
    raise AssertionError(f"the run ended before step {step}: {process.stderr.read()}")


def main(folder, *arguments):
    """The small run, slowly, telling every step; a checkpoint after every one unless asked for few."""

    class Telling(Callback):
        def on_step_end(self, trainer, step_metrics):
            print("step", trainer.total_steps, flush=True)

    often = None if "--rarely" in arguments else 1
    rule = Momentum(pause=0.02)
    checkpoint = Checkpoint(Path(folder), every_epochs=None, every_steps=often, keep=2)
    history = Trainer(rule, callbacks=[checkpoint, Telling()]).train(X, Y, **RUN)
    replayed = Momentum()
    Trainer(replayed, callbacks=[StopAt(rule.steps)]).train(X, Y, **RUN)
    whole = np.array_equal(replayed.model.weight, rule.model.weight)
    print(json.dumps({"interrupted": history.interrupted, "steps": rule.steps, "whole": whole}))


if __name__ == "__main__":
    main(*sys.argv[1:])
