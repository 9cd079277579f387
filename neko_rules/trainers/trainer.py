"""The trainer: epochs of updates by a rule, with validation, callbacks, checkpoints and a clean end."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neko_rules.arguments import flag, integer
from neko_rules.errors import ArgumentError, CheckpointError, DataError, IncompatibleError, NonFiniteError
from neko_rules.trainers.batches import BatchOrder
from neko_rules.trainers.callbacks import Callback
from neko_rules.trainers.checkpoint import Checkpoint, Snapshot, find_checkpoint, read_snapshot
from neko_rules.trainers.history import History, Record, RunningMean
from neko_rules.trainers.interruption import Interruption
from neko_rules.trainers.progress import ProgressBar

if TYPE_CHECKING:
    from neko_rules.probabilistic import Samples


class TrainableModel(Protocol):
    """What a trainer needs of a model."""

    def check(self, x: np.ndarray, y: np.ndarray, /) -> object:
        """Refuse data that do not fit the model."""

    def evaluate(self, x: np.ndarray, y: np.ndarray, /, *, batch_size: int) -> Mapping[str, float]:
        """The loss and the metrics over a data set, without changing anything."""


class TrainableRule(Protocol):
    """What a trainer needs of a learning rule."""

    @property
    def model(self) -> TrainableModel:
        """The model that the rule trains."""

    def step(self, x: np.ndarray, y: np.ndarray, /) -> Mapping[str, float]:
        """One update on one batch; its loss and metrics."""

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next update depends on."""

    def load_state(self, state: dict[str, np.ndarray], /) -> None:
        """The inverse of ``state``."""


class Trainer:
    """Trains a model by a learning rule.

    Args:
        rule: the learning rule, which knows its model.
        callbacks: what to do beside training, such as ``EarlyStopping`` and ``Checkpoint``.

    Attributes:
        rule: the learning rule.
        history: the history of the run, kept up to date while it lasts and there still after an error.
        step: updates made in the epoch that was begun.
        total_steps: updates made since the run began.
        epochs: the number of epochs asked for.
        steps_per_epoch: updates per epoch.
        validates: whether the run has validation data.
        resumed_from: the checkpoint that the run goes on from, or None.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(8, 5, 3)), rng.integers(2, size=8)
        >>> rule = EProp(Evaluator(ALIF(4, 2), loss="categorical_crossentropy", metrics=["accuracy"]))
        >>> history = Trainer(rule).train(x, y, epochs=3, batch_size=4)
        >>> len(history["loss"]), history.epochs[0]["steps"]
        (3, 2)
    """

    def __init__(self, rule: TrainableRule, callbacks: Sequence[Callback] = ()) -> None:
        if not all(hasattr(rule, name) for name in ("model", "step", "state", "load_state")):
            raise ArgumentError("a Trainer takes a learning rule", received=rule, works="for example EProp(model)")
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise ArgumentError(
                    "callbacks must be Callback objects", received=callback, works="for example [EarlyStopping()]"
                )
        self.rule = rule
        self.callbacks = list(callbacks)
        self.history = History()
        self.step = 0
        self.total_steps = 0
        self.epochs = 0
        self.steps_per_epoch = 0
        self.validates = False
        self.resumed_from: Path | None = None
        self._mean = RunningMean()
        self._seconds = 0.0
        self._order = BatchOrder(1, 1)
        self._interruption = Interruption()
        self._active: list[Callback] = []

    @property
    def epoch(self) -> int:
        """The epoch, counted from 1, that is in progress or would be next."""
        return len(self.history) + 1

    @property
    def metrics(self) -> dict[str, float]:
        """The loss and the metrics averaged over the examples seen so far in the epoch that was begun."""
        return self._mean.values()

    def stop(self, reason: str) -> None:
        """End the run after the step in progress; for callbacks."""
        self.history.stopped = self.history.stopped or reason

    def train(
        self,
        x: Any,
        y: Any,
        epochs: int = 30,
        batch_size: int = 128,
        *,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        resume: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train for a number of epochs, each of which uses every example once.

        Metrics of an epoch are means over its examples, each taken from the update that used the example. Ctrl-C ends
        the run after the update in progress (a validation in progress is left out), with all checkpoints written and
        the history returned; a second Ctrl-C raises KeyboardInterrupt at once.

        Args:
            x: inputs, [examples, time, feature].
            y: targets, one entry per example, as the model's loss wants them.
            epochs: when to end, counted from the first epoch of the run, also if it is resumed.
            batch_size: examples per update; the last update of an epoch uses those left over.
            validation_data: inputs and targets that are evaluated after every epoch.
            shuffle: whether the examples of every epoch are put in a new order, drawn from the seed and the epoch.
            seed: the seed of that order.
            resume: a checkpoint file, or a folder whose newest one is taken, to go on from; the run then gives bit for
                bit what it would have given without the stop.
            progress: whether to show a progress bar; by default if there is a terminal to show it and the run takes
                more than two seconds.

        Raises:
            ArgumentError: an argument is out of range.
            DataError: the data are empty, differ in length or do not fit the model.
            CheckpointError: the checkpoint cannot be read or belongs to another run.
            NonFiniteError: the loss, a gradient or a parameter became NaN or infinite; it names what, the step, the
                epoch and the last checkpoint. The rule keeps its last good parameters.
        """
        self.epochs = integer("epochs", epochs, at_least=1)
        batch_size = integer("batch_size", batch_size, at_least=1)
        x, y = _paired("x and y", x, y)
        order = BatchOrder(len(x), batch_size, shuffle, seed)
        validation = None if validation_data is None else _pair(validation_data)
        for data in [(x, y)] if validation is None else [(x, y), validation]:
            self.rule.model.check(*data)
        self._begin(order, validates=validation is not None, progress=progress)
        if resume is not None:
            self._restore(find_checkpoint(resume))
        with ExitStack() as stack:
            for callback in self._active:
                stack.callback(callback.close)
            self._interruption = stack.enter_context(Interruption())
            self._run(x, y, validation)
        return self.history

    def sample(
        self,
        x: Any,
        y: Any,
        draws: int = 1000,
        warmup: int = 1000,
        chains: int = 4,
        *,
        thin: int = 1,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        processes: int = 1,
        progress: bool | None = None,
    ) -> Samples:
        """Draw weights from the posterior of a sampling rule such as ``MALA``; the model keeps its own weights.

        Args:
            x: inputs, [examples, time, feature].
            y: targets.
            draws: kept draws per chain.
            warmup: transitions per chain before them, in which step size and mass are adapted.
            chains: how many, each from a start of its own.
            thin: transitions per kept draw.
            seed: of all randomness; with it a chain is the same on every backend and in any process.
            folder: where draws are written as they come; by default they are kept in memory.
            resume: go on with the run in the folder, bit for bit as it would have gone on.
            processes: how many chains run at once, each in a Python of its own.
            progress: whether to show a progress bar; by default if there is a terminal to show it and the run takes
                longer than two seconds.

        Raises:
            IncompatibleError: the rule trains and does not sample.
            DataError: the data do not fit the model.
            CheckpointError: the folder holds another run, or one and ``resume`` is not set.
        """
        from neko_rules.probabilistic import SamplingRule, sample
        from neko_rules.trainers.sampling_progress import SamplingProgress

        if not isinstance(self.rule, SamplingRule):
            raise IncompatibleError(
                "sample needs a rule that samples", received=self.rule, works="for example MALA(Posterior(model))"
            )
        shown = sys.stderr.isatty() if progress is None else flag("progress", progress)
        run: dict[str, Any] = {"thin": thin, "seed": seed, "folder": folder, "resume": resume, "processes": processes}
        if not shown:
            return sample(self.rule, x, y, draws, warmup, chains, **run)
        with SamplingProgress(warmup, draws, chains, thin) as told:
            return sample(self.rule, x, y, draws, warmup, chains, **run, told=told)

    def snapshot(self) -> Snapshot:
        """The run as it is between two steps, for a checkpoint."""
        return Snapshot(
            state=self.rule.state(),
            run=self._identity(),
            step=self.step,
            mean=self._mean,
            seconds=self._seconds,
            total_steps=self.total_steps,
            epochs=self.history.epochs,
            callbacks={key: state for key, callback in self._named_callbacks() if (state := callback.state())},
        )

    def _begin(self, order: BatchOrder, validates: bool, progress: bool | None) -> None:
        self.history = History()
        self.step = self.total_steps = 0
        self._mean, self._seconds = RunningMean(), 0.0
        self._order, self.steps_per_epoch, self.validates = order, order.steps, validates
        self.resumed_from = None
        bar = None if any(isinstance(each, ProgressBar) for each in self.callbacks) else _progress_bar(progress)
        active = self.callbacks if bar is None else [*self.callbacks, bar]
        # A checkpoint holds the state of the other callbacks, which must therefore have seen the same step.
        self._active = sorted(active, key=lambda each: isinstance(each, Checkpoint))

    def _run(self, x: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None) -> None:
        for callback in self._active:
            callback.on_train_begin(self)
        try:
            while len(self.history) < self.epochs and not self._ends():
                self._train_epoch(x, y)
                if self._ends() or not self._finish_epoch(validation):
                    break
        except NonFiniteError as error:
            raise NonFiniteError(error.quantity, error.step, self._way_back(), epoch=self.epoch) from error
        finally:
            self.history.interrupted = self._interruption.requested and len(self.history) < self.epochs
            self.history.partial = self._record() if self.step else None
        for callback in self._active:
            callback.on_train_end(self, self.history)

    def _train_epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        """Make the updates of an epoch that are left."""
        for batch in self._order.batches(self.epoch, first=self.step):
            if self._ends():
                return
            begin = time.perf_counter()
            inputs, targets = x[batch], y[batch]
            for callback in self._active:
                callback.on_step_begin(self, inputs, targets)
            metrics = {name: float(value) for name, value in self.rule.step(inputs, targets).items()}
            self._seconds += time.perf_counter() - begin
            self._mean.add(metrics, len(inputs))
            self.step += 1
            self.total_steps += 1
            for callback in self._active:
                callback.on_step_end(self, metrics)

    def _finish_epoch(self, validation: tuple[np.ndarray, np.ndarray] | None) -> bool:
        """Validate and record an epoch; False if Ctrl-C came first, so that a resumed run validates it."""
        measured = {} if validation is None else self._validate(*validation)
        if measured is None:
            return False
        record = self._record(measured)
        self.history.epochs.append(record)
        self.step, self._mean, self._seconds = 0, RunningMean(), 0.0
        for callback in self._active:
            callback.on_epoch_end(self, record)
        return True

    def _validate(self, x: np.ndarray, y: np.ndarray) -> dict[str, float] | None:
        """Metrics of the validation data; None if Ctrl-C came first, which may stop it anywhere as nothing changes."""
        begin = time.perf_counter()
        try:
            self._interruption.immediate = True
            measured = self.rule.model.evaluate(x, y, batch_size=self._order.batch_size)
            self._interruption.immediate = False
        except KeyboardInterrupt:
            self._interruption.immediate = False
            self._interruption.requested = True
            return None
        self._seconds += time.perf_counter() - begin
        record = {f"validation_{name}": float(value) for name, value in measured.items()}
        if not math.isfinite(record.get("validation_loss", 0.0)):
            raise NonFiniteError("validation_loss", self.total_steps)
        return record

    def _record(self, measured: Mapping[str, float] | None = None) -> Record:
        """The epoch as far as it has come, with what was measured on the validation data."""
        return {"epoch": self.epoch, "steps": self.step, **self.metrics, **(measured or {}), "seconds": self._seconds}

    def _ends(self) -> bool:
        return self._interruption.requested or bool(self.history.stopped)

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on as the same one."""
        order = self._order
        return {
            "rule": type(self.rule).__name__,
            "number of examples": order.examples,
            "batch_size": order.batch_size,
            "shuffle": order.shuffle,
            "seed": order.seed,
        }

    def _restore(self, path: Path) -> None:
        """Take up the run of a checkpoint."""
        snapshot = read_snapshot(path)
        for name, here in self._identity().items():
            there = snapshot.run.get(name)
            if there != here:
                raise CheckpointError(
                    f"a run must be resumed with the {name} it was begun with",
                    received=f"{here!r} instead of {there!r}",
                    works=f"go on from {str(path)!r} with {there!r}, or begin a new run without resume",
                )
        self.rule.load_state(dict(snapshot.state))
        self.step, self.total_steps = snapshot.step, snapshot.total_steps
        self._mean, self._seconds = snapshot.mean, snapshot.seconds
        self.history.epochs = list(snapshot.epochs)
        self.resumed_from = path
        for key, callback in self._named_callbacks():
            if key in snapshot.callbacks:
                callback.load_state(snapshot.callbacks[key])

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Callbacks by class name and number, such as ``EarlyStopping 1``."""
        seen: Counter[str] = Counter()
        for callback in self._active:
            name = type(callback).__name__
            seen[name] += 1
            yield f"{name} {seen[name]}", callback

    def _way_back(self) -> str:
        """How to go on after the numbers have gone wrong."""
        written = [each.last for each in self._active if isinstance(each, Checkpoint) and each.last is not None]
        last = written[-1] if written else self.resumed_from
        mend = "a smaller learning rate or gradient clipping"
        if last is None:
            return (
                "no checkpoint was written, but the rule still has its last good parameters: use "
                f"{mend}, and Trainer(rule, callbacks=[Checkpoint(folder)]) to have one"
            )
        return f"the last good checkpoint is {str(last)!r}: pass resume={str(last)!r} with {mend}"


def _progress_bar(progress: bool | None) -> ProgressBar | None:
    if progress is None:
        return ProgressBar(delay=2.0) if sys.stderr is not None and sys.stderr.isatty() else None
    return ProgressBar() if flag("progress", progress) else None


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} must be an array whose examples all have one shape", received=str(error)) from error
    if array.ndim == 0 or array.dtype == object:
        raise DataError(f"{name} must be an array with one entry per example", received=type(value).__name__)
    return array


def _paired(names: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the same examples."""
    of_x, of_y = names.split(" and ")
    x, y = _array(of_x, x), _array(of_y, y)
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"{names} must have the same number of examples, at least 1", received=f"{len(x)} and {len(y)}")
    return x, y


def _pair(validation_data: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise ArgumentError(
            "validation_data must be a pair (x, y)", received=type(validation_data).__name__, works="or None for none"
        )
    return _paired("x and y of validation_data", *validation_data)
