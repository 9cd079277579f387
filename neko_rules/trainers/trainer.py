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
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from neko_rules.arguments import flag, integer
from neko_rules.errors import ArgumentError, CheckpointError, DataError, IncompatibleError, NonFiniteError
from neko_rules.pairs import Pairs, arrays, hold_batches
from neko_rules.trainers.batches import ARRAYS, ArrayBatches, Batches, BatchOrder, IterableBatches
from neko_rules.trainers.callbacks import Callback
from neko_rules.trainers.checkpoint import Checkpoint, Snapshot, find_checkpoint, read_snapshot
from neko_rules.trainers.history import History, Record, RunningMean
from neko_rules.trainers.interruption import Interruption
from neko_rules.trainers.progress import ProgressBar

if TYPE_CHECKING:
    from neko_rules.probabilistic import Samples


class TrainableModel(Protocol):
    """What a trainer needs of a model."""

    def check(self, x: np.ndarray, y: np.ndarray, /, *, whole: bool = True) -> object:
        """Refuse data that do not fit the model; a part of the data, if not whole, need have nothing to learn from."""

    def evaluate(self, x: Any, y: np.ndarray | None, /, *, batch_size: int) -> Mapping[str, float]:
        """The loss and the metrics over a data set, without changing anything; y is None where x gives batches."""


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


@runtime_checkable
class PacedRule(Protocol):
    """What a trainer needs of a rule whose learning rate may follow epochs."""

    @property
    def in_epochs(self) -> bool:
        """Whether a schedule counts epochs."""

    def pace(self, batches: int, x: np.ndarray, /) -> None:
        """Let it count updates: of an epoch of so many batches, with inputs like these."""


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
        steps_per_epoch: batches per epoch; None as long as an iterable has not said how many it gives.
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

    An iterable of batches, such as PyTorch's DataLoader, in the place of arrays:

        >>> loader = [(x[:4], y[:4]), (x[4:], y[4:])]
        >>> history = Trainer(rule).train(loader, epochs=2, validation_data=loader)
        >>> history.epochs[0]["steps"], history.names()[-3:]
        (2, ['validation_loss', 'validation_accuracy', 'seconds'])
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
        self.steps_per_epoch: int | None = 0
        self.validates = False
        self.resumed_from: Path | None = None
        self._mean = RunningMean()
        self._seconds = 0.0
        self._batches: Batches = ArrayBatches(np.zeros(1), np.zeros(1), BatchOrder(1, 1))
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
        y: Any = None,
        epochs: int = 30,
        batch_size: int | None = None,
        *,
        validation_data: Any = None,
        shuffle: bool | None = None,
        seed: int | None = None,
        resume: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train for a number of epochs, each of which uses every example once.

        Metrics of an epoch are means over its examples, each taken from the update that used the example. Ctrl-C ends
        the run after the update in progress (a validation in progress is left out), with all checkpoints written and
        the history returned; a second Ctrl-C raises KeyboardInterrupt at once.

        Args:
            x: inputs, [examples, time, feature]; or, without y, an iterable of batches (x, y) that is gone through once
                per epoch, such as PyTorch's DataLoader or a list: of NumPy arrays, or tensors on any device. Its
                batches and their order are its own, and each is checked when it comes, the first before training.
            y: targets, one entry per example, as the model's loss wants them; None for an iterable.
            epochs: when to end, counted from the first epoch of the run, also if it is resumed.
            batch_size: examples per update, by default 128; the last update of an epoch uses those left over.
            validation_data: inputs and targets (x, y) that are evaluated after every epoch, or an iterable of batches.
            shuffle: whether the examples of every epoch are put in a new order, drawn from the seed and the epoch; by
                default they are.
            seed: the seed of that order, by default 0.
            resume: a checkpoint file, or a folder whose newest one is taken, to go on from; the run then gives bit for
                bit what it would have given without the stop. An iterable promises that only if it gives the same
                batches in the same order in every epoch (``shuffle=False``); where it is seen not to, a warning says
                so.
            progress: whether to show a progress bar; by default if there is a terminal to show it and the run takes
                more than two seconds.

        Raises:
            ArgumentError: an argument is out of range, or belongs to arrays and is given beside an iterable.
            DataError: the data are empty, differ in length or do not fit the model; an iterable gives no batches, or
                none any more after the first epoch.
            CheckpointError: the checkpoint cannot be read or belongs to another run.
            IncompatibleError: a schedule is in epochs, and an iterable does not say how many batches these have.
            NonFiniteError: the loss, a gradient or a parameter became NaN or infinite; it names what, the step, the
                epoch and the last checkpoint. The rule keeps its last good parameters.
        """
        self.epochs = integer("epochs", epochs, at_least=1)
        batches = _batches(x, y, {"batch_size": batch_size, "shuffle": shuffle, "seed": seed})
        validation = None if validation_data is None else _validation(validation_data)
        batches.check(self.rule.model)
        if validation is not None:
            _check_validation(self.rule.model, *validation)
        _pace(self.rule, batches)
        self._begin(batches, validates=validation is not None, progress=progress)
        if resume is not None:
            self._restore(find_checkpoint(resume))
        for given in (batches, None if validation is None else validation[0]):
            if isinstance(given, (Batches, Pairs)):
                given.require_again(self.epochs - len(self.history))
        with ExitStack() as stack:
            for callback in self._active:
                stack.callback(callback.close)
            self._interruption = stack.enter_context(Interruption())
            self._run(validation)
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
            CheckpointError: the folder holds another run, one and ``resume`` is not set, or none and it is.
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
            run=self._identity() | self._batches.mark(),
            step=self.step,
            mean=self._mean,
            seconds=self._seconds,
            total_steps=self.total_steps,
            epochs=self.history.epochs,
            callbacks={key: state for key, callback in self._named_callbacks() if (state := callback.state())},
        )

    def _begin(self, batches: Batches, validates: bool, progress: bool | None) -> None:
        self.history = History()
        self.step = self.total_steps = 0
        self._mean, self._seconds = RunningMean(), 0.0
        self._batches, self.steps_per_epoch, self.validates = batches, batches.steps, validates
        self.resumed_from = None
        bar = None if any(isinstance(each, ProgressBar) for each in self.callbacks) else _progress_bar(progress)
        active = self.callbacks if bar is None else [*self.callbacks, bar]
        # A checkpoint holds the state of the other callbacks, which must therefore have seen the same step.
        self._active = sorted(active, key=lambda each: isinstance(each, Checkpoint))

    def _run(self, validation: tuple[Any, np.ndarray | None] | None) -> None:
        for callback in self._active:
            callback.on_train_begin(self)
        try:
            while len(self.history) < self.epochs and not self._ends():
                self._train_epoch()
                if self._ends() or not self._finish_epoch(validation):
                    break
        except NonFiniteError as error:
            raise NonFiniteError(error.quantity, error.step, self._way_back(), epoch=self.epoch) from error
        finally:
            self.history.interrupted = self._interruption.requested and len(self.history) < self.epochs
            self.history.partial = self._record() if self.step else None
        for callback in self._active:
            callback.on_train_end(self, self.history)

    def _train_epoch(self) -> None:
        """Make the updates of an epoch that are left."""
        batches = self._batches.of_epoch(self.epoch, first=self.step)
        while not self._ends():
            begin = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                self.steps_per_epoch = self._batches.steps
                return
            for callback in self._active:
                callback.on_step_begin(self, *batch)
            try:
                metrics = {name: float(value) for name, value in self.rule.step(*batch).items()}
            except DataError as error:
                error.add_note(f"That was batch {self.step + 1} of epoch {self.epoch}.")
                raise
            self._seconds += time.perf_counter() - begin
            self._mean.add(metrics, len(batch[0]))
            self.step += 1
            self.total_steps += 1
            if self.steps_per_epoch is not None and self.step > self.steps_per_epoch:
                self.steps_per_epoch = None
            for callback in self._active:
                callback.on_step_end(self, metrics)

    def _finish_epoch(self, validation: tuple[Any, np.ndarray | None] | None) -> bool:
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

    def _validate(self, x: Any, y: np.ndarray | None) -> dict[str, float] | None:
        """Metrics of the validation data; None if Ctrl-C came first, which may stop it anywhere as nothing changes."""
        begin = time.perf_counter()
        try:
            self._interruption.immediate = True
            measured = self.rule.model.evaluate(x, y, batch_size=self._batches.size)
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
        return {"rule": type(self.rule).__name__, **self._batches.identity()}

    def _restore(self, path: Path) -> None:
        """Take up the run of a checkpoint."""
        snapshot = read_snapshot(path)
        begun = {**ARRAYS, **snapshot.run}
        for name, here in (ARRAYS | self._identity()).items():
            there = begun.get(name)
            if there != here:
                raise CheckpointError(
                    f"a run must be resumed with the {name} it was begun with",
                    received=f"{here!r} instead of {there!r}",
                    works=f"go on from {str(path)!r} with {there!r}, or begin a new run without resume",
                )
        self._batches.resume(snapshot.run)
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


def _pace(rule: TrainableRule, batches: Batches) -> None:
    """Tell a rule whose schedules are in epochs how long these are."""
    if not isinstance(rule, PacedRule) or not rule.in_epochs:
        return
    if batches.steps is None:
        raise IncompatibleError(
            "a schedule in epochs needs the number of batches of an epoch before it begins",
            received="an iterable without a length",
            works="give one that has a length, or the schedule in updates",
        )
    rule.pace(batches.steps, batches.sample)


def _progress_bar(progress: bool | None) -> ProgressBar | None:
    if progress is None:
        return ProgressBar(delay=2.0) if sys.stderr is not None and sys.stderr.isatty() else None
    return ProgressBar() if flag("progress", progress) else None


def _batches(x: Any, y: Any, order: Mapping[str, Any]) -> Batches:
    """What is trained on: arrays in an order, or the batches of an iterable, which have an order of their own."""
    given = {name: value for name, value in order.items() if value is not None}
    if y is None:
        batches = IterableBatches(Pairs(x))
        if given:
            raise ArgumentError(
                "batch_size, shuffle and seed belong to arrays: an iterable makes its batches itself",
                received=", ".join(given),
                works="give them to the iterable, such as DataLoader(data, batch_size=…, shuffle=…)",
            )
        return batches
    if isinstance(y, int) and not hasattr(x, "shape") and hasattr(x, "__iter__"):
        raise ArgumentError(
            "y must be the targets of x", received=y, works="for an iterable of batches write train(x, epochs=…)"
        )
    x, y = arrays("x and y", x, y)
    settings = {"batch_size": 128, "shuffle": True, "seed": 0} | given
    return ArrayBatches(x, y, BatchOrder(len(x), **settings))


def _validation(data: Any) -> tuple[Any, np.ndarray | None]:
    """Inputs and targets, or batches and None."""
    if hold_batches(data):
        return Pairs(data, "validation_data"), None
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ArgumentError(
            "validation_data must be a pair (x, y) or an iterable of such batches",
            received=type(data).__name__,
            works="or None for none",
        )
    return arrays("x and y of validation_data", *data)


def _check_validation(model: TrainableModel, x: Any, y: np.ndarray | None) -> None:
    """Refuse validation data that do not fit; of batches the first, unless looking at it would use it up."""
    if y is not None:
        model.check(x, y)
    elif x.fresh:
        model.check(*next(x.peeked()), whole=False)
