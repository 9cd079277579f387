"""Real rules on every backend: a run stopped at any step and resumed is bit for bit the unstopped run.

A rule is compiled anew for every object and every batch shape, which takes seconds; so one rule per backend goes
through most tests, put back to its first state each time.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trainer_toy import same_state, timeless, wait_for_step

from neko_rules import ALIF, BPTT, EProp, Evaluator, FiringRate
from neko_rules.backend import is_installed
from neko_rules.errors import CheckpointError, DataError, NonFiniteError
from neko_rules.trainers import Callback, Checkpoint, EarlyStopping, History, Trainer

BACKENDS = [name for name in ("numpy", "torch", "tensorflow", "jax") if is_installed(name)]


def make_run(examples):
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=examples)
    x = (rng.normal(size=(examples, 6, 4)) + np.eye(4)[labels][:, None] * 2).astype(np.float32)
    return {"x": x, "y": labels, "validation_data": (x[:4], labels[:4]), "epochs": 2, "batch_size": 4, "seed": 2}


# Eleven examples leave three for the last batch; libraries that compile are spared that second shape.
RUNS = {name: make_run(11 if name in ("numpy", "torch") else 8) for name in BACKENDS}


def make(kind, backend, learning_rate=0.05, weight_decay=1e-3):
    network = ALIF(8, 3, backend=backend, seed=4)
    model = Evaluator(network, loss="categorical_crossentropy", metrics=["accuracy", "firing_rate"])
    options = {
        "optimizer": {"name": "adam", "learning_rate": learning_rate},
        "regularizers": [FiringRate()],
        "weight_decay": weight_decay,
    }
    return BPTT(model, **options) if kind == "bptt" else EProp(model, mode=kind, **options)


@dataclass
class Unstopped:
    """A run that was not stopped, with a checkpoint of every step."""

    backend: str
    rule: Any
    first: dict[str, np.ndarray]
    last: dict[str, np.ndarray]
    history: History
    files: list[Path]

    @classmethod
    def train(cls, kind, backend, folder):
        run, rule = RUNS[backend], make(kind, backend)
        rule.model.check(run["x"], run["y"])
        first = rule.state()
        callbacks = [EarlyStopping(patience=9), Checkpoint(folder, every_steps=1, keep=None)]
        history = Trainer(rule, callbacks=callbacks).train(**run)
        return cls(backend, rule, first, rule.state(), history, sorted(folder.iterdir()))

    def is_reached(self, rule, resume):
        """Whether a rule that goes on from a checkpoint comes to the same end."""
        history = Trainer(rule, callbacks=[EarlyStopping(patience=9)]).train(**RUNS[self.backend], resume=resume)
        same_state(rule.state(), self.last)
        assert timeless(history.epochs) == timeless(self.history.epochs)
        return True


@pytest.fixture(scope="module", params=BACKENDS)
def unstopped(request, tmp_path_factory):
    return Unstopped.train("adaptive", request.param, tmp_path_factory.mktemp(request.param))


def test_the_run_changes_what_it_trains(unstopped):
    for name in ("parameters/hidden.input.weight", "parameters/hidden.recurrent.weight"):
        assert not np.array_equal(unstopped.first[name], unstopped.last[name])
    assert unstopped.last["steps"] == len(unstopped.files) == 2 * -(-len(RUNS[unstopped.backend]["x"]) // 4)


def test_every_checkpoint_leads_to_the_end_of_the_unstopped_run(unstopped):
    # The rule's own past must not matter, so it takes up all checkpoints in turn …
    for file in unstopped.files:
        assert unstopped.is_reached(unstopped.rule, file)
    # … and a rule without any past takes up one in the middle of an epoch.
    assert unstopped.is_reached(make("adaptive", unstopped.backend), unstopped.files[-2])


@pytest.mark.parametrize("kind", ["bptt", "symmetric", "random"])
def test_every_checkpoint_of_the_other_rules_leads_to_the_end(tmp_path, kind):
    run = Unstopped.train(kind, "numpy", tmp_path)
    for file in run.files:
        assert run.is_reached(make(kind, "numpy"), file)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_interrupted_by_ctrl_c_is_resumed(tmp_path, unstopped, stop):
    class Press(Callback):
        def on_step_end(self, trainer, step_metrics):
            if trainer.total_steps == stop:
                os.kill(os.getpid(), signal.SIGINT)

    rule = unstopped.rule
    rule.load_state(unstopped.first)
    history = Trainer(rule, callbacks=[Press(), Checkpoint(tmp_path)]).train(**RUNS[unstopped.backend])
    assert history.interrupted
    assert rule.steps == stop
    assert unstopped.is_reached(rule, tmp_path)


def test_a_killed_process_is_resumed(tmp_path, unstopped):
    command = [sys.executable, __file__, str(tmp_path), unstopped.backend]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        wait_for_step(process, 2)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert unstopped.is_reached(unstopped.rule, tmp_path)


def test_numbers_that_are_not_finite_leave_parameters_and_checkpoint(tmp_path, unstopped):
    class Spoil(Callback):
        """Makes the readout so large that its outputs overflow in the next step."""

        def on_step_end(self, trainer, step_metrics):
            if trainer.total_steps == 1:
                name = "parameters/readout.input.weight"
                largest = np.full_like(unstopped.first[name], 3e38)
                unstopped.rule.load_state(unstopped.rule.state() | {name: largest})

    rule = unstopped.rule
    rule.load_state(unstopped.first)
    checkpoint = Checkpoint(tmp_path, every_steps=1)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError) as caught:
        Trainer(rule, callbacks=[checkpoint, Spoil()]).train(**RUNS[unstopped.backend])
    assert caught.value.step == 2
    assert caught.value.quantity in {"loss", *rule.model.network.parameters}
    assert rule.steps == 1
    assert all(np.isfinite(array).all() for array in rule.state().values())
    (file,) = tmp_path.iterdir()
    assert checkpoint.last == file
    assert repr(str(file)) in str(caught.value)


def test_a_learning_rate_far_too_large_ends_the_run():
    rule = make("symmetric", "numpy", learning_rate=3e38, weight_decay=0.0)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"in epoch 1.*no checkpoint was written"):
        Trainer(rule).train(**RUNS["numpy"])
    assert all(np.isfinite(array).all() for array in rule.state().values())


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    Trainer(make("symmetric", "numpy"), callbacks=[Checkpoint(tmp_path)]).train(**RUNS["numpy"])
    larger = EProp(Evaluator(ALIF(9, 3), metrics=["accuracy"]))
    with pytest.raises(CheckpointError, match="must have shape"):
        Trainer(larger).train(**RUNS["numpy"], resume=tmp_path)
    with pytest.raises(CheckpointError, match="lacks an entry"):
        Trainer(make("random", "numpy")).train(**RUNS["numpy"], resume=tmp_path)


def test_data_that_do_not_fit_are_refused_before_the_first_step():
    rule, run = make("symmetric", "numpy"), RUNS["numpy"]
    with pytest.raises(DataError):
        Trainer(rule).train(**run | {"validation_data": (run["x"][:5, :, :3], run["y"][:5])})
    with pytest.raises(DataError):
        Trainer(rule).train(**run | {"y": run["y"] + 1})
    assert rule.steps == 0


def main(folder, backend):
    """A run with a checkpoint of every step, telling each of them, that waits to be killed after the second."""

    class Telling(Callback):
        def on_step_end(self, trainer, step_metrics):
            print("step", trainer.total_steps, flush=True)

    checkpoint = Checkpoint(folder, every_steps=1, keep=2)
    run = RUNS[backend] | {"epochs": 1000}
    Trainer(make("adaptive", backend), callbacks=[checkpoint, Telling()]).train(**run)


if __name__ == "__main__":
    main(*sys.argv[1:])
