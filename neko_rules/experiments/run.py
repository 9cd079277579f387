"""Run: a configuration made into objects, trained, and written down."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.errors import CheckpointError, ConfigurationError, NonFiniteError, nearest
from neko_rules.evaluator import Evaluator
from neko_rules.experiments import sampling
from neko_rules.experiments.config import Configuration, checked, load, resolved
from neko_rules.experiments.environment import environment
from neko_rules.experiments.folder import RunFolder, free_path, require_free
from neko_rules.experiments.parts import registry_of, supplied, within
from neko_rules.experiments.settings import apply_setting
from neko_rules.experiments.yaml_file import dump, read_mapping
from neko_rules.layers.protocol import NetworkProtocol
from neko_rules.probabilistic import SamplingRule
from neko_rules.registry import construct
from neko_rules.rules import Rule
from neko_rules.trainers import Callback, Checkpoint, EarlyStopping, History, ProgressBar, Trainer

if TYPE_CHECKING:
    from neko_rules.datasets import Dataset
    from neko_rules.encoders import Encoder

CHANGEABLE = "train.epochs"
"""What may be set when a run is resumed: all else must be as it was for the run to be one run."""


@dataclass(frozen=True)
class Experiment:
    """A configuration and the objects that it describes; no data have been loaded yet.

    Attributes:
        configuration: the run.
        dataset: where its data come from.
        rule: the learning rule or sampling rule, which knows the model.
    """

    configuration: Configuration
    dataset: Dataset
    rule: Any

    @classmethod
    def build(cls, configuration: Configuration) -> Experiment:
        """Make everything but the data, so that whatever is wrong is said before anything long begins.

        Raises:
            ConfigurationError: a part refuses its arguments, or two parts do not fit together.
            BackendError: the backend is unknown or not installed.
        """
        backend = get_backend(configuration.backend)
        with within("data"):
            dataset = _registry("data").resolve(configuration.data)
        offered = {"backend": backend, "dtype": configuration.dtype, "seed": configuration.seed}
        if dataset.task_type is not None:
            offered["task_type"] = dataset.task_type
        with within("model"):
            arguments = supplied("model", configuration.model, offered)
            network = _registry("model").create(configuration.model["name"], arguments)
        with within("loss"):
            loss = _registry("loss").resolve(configuration.loss)
        with within("metrics"):
            metrics = [_registry("metrics").resolve(metric) for metric in configuration.metrics or []]
        with within("encoder"):
            encoder = _encoder(configuration)
        with within("model, encoder, loss and metrics"):
            model = Evaluator(network, loss=loss, metrics=metrics, encoder=encoder)
        with within("rule"):
            if sampling.is_sampling(configuration.rule):
                rule = sampling.build(configuration, model)
            else:
                arguments = supplied("rule", configuration.rule, {"seed": configuration.seed})
                rule = _registry("rule").create(configuration.rule["name"], arguments, model)
        experiment = cls(_with_absolute_paths(configuration, dataset), dataset, rule)
        experiment.callbacks(Path("."))
        return experiment

    @classmethod
    def of_run(cls, folder: RunFolder) -> Experiment:
        """What a run in a folder was made with.

        Raises:
            ConfigurationError: its configuration is damaged, or is not one any more.
        """
        return cls.build(resolved(checked(read_mapping(folder.config), str(folder.config))))

    def callbacks(self, checkpoints: Path) -> list[Callback]:
        """Early stopping and checkpoints, as the configuration says."""
        made: list[Callback] = []
        train = self.configuration.train
        if train.early_stopping is not None:
            with within("train.early_stopping"):
                self._check_monitor(train.early_stopping.get("monitor"))
                made.append(construct(EarlyStopping, "early_stopping", train.early_stopping))
        if train.checkpoint is not None:
            with within("train.checkpoint"):
                made.append(construct(Checkpoint, "checkpoint", train.checkpoint, checkpoints))
        return made

    def _check_monitor(self, monitor: Any) -> None:
        measured = ["loss", *(metric.name for metric in self.rule.model.metrics)]
        known = [prefix + name for prefix in ("validation_", "") for name in measured]
        if monitor is not None and monitor not in known:
            raise ConfigurationError(
                "'train.early_stopping' must monitor the loss or a metric",
                received=monitor,
                works=nearest(str(monitor), known),
            )


def _encoder(configuration: Configuration) -> Encoder | None:
    """What makes inputs of the data, drawing from the seed of the run unless it is given one of its own."""
    if configuration.encoder is None:
        return None
    arguments = supplied("encoder", configuration.encoder, {"seed": configuration.seed})
    found: Encoder = _registry("encoder").create(configuration.encoder["name"], arguments)
    return found


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        folder: where everything is written.
        status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        reason: why it ended before its last epoch; empty otherwise.
        history: what it measured.
        seconds: how long it took, loading of the data included.
        parameters: how many numbers were learned; None before they are known.
        crossbars: what it cost the devices that the weights live on, if they do, by the name of their array.
    """

    folder: RunFolder
    status: str = "failed"
    reason: str = ""
    history: History = field(default_factory=History)
    seconds: float = 0.0
    parameters: int | None = None
    crossbars: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The contents of ``summary.json``."""
        return {
            "status": self.status,
            "reason": self.reason,
            "epochs": len(self.history),
            "final": self.history.epochs[-1] if self.history.epochs else None,
            "unfinished_epoch": self.history.partial,
            "seconds": round(self.seconds, 3),
            "parameters": self.parameters,
            **self.crossbars,
        }


class MetricsFile(Callback):
    """Writes every epoch's record into ``metrics.jsonl`` as it ends."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin with the epochs that a resumed run has behind it, so that none is there twice."""
        self.folder.write_metrics(trainer.history.epochs)

    def on_epoch_end(self, trainer: Trainer, epoch_record: dict[str, Any]) -> None:
        """Add a line."""
        self.folder.append_metrics(epoch_record)


def run(
    config: Path, settings: Sequence[str] = (), seed: int | None = None, out: Path | None = None, progress: bool = True
) -> Outcome | sampling.Drawn:
    """Run a configuration file in a new folder.

    Args:
        config: a YAML file.
        settings: changes such as ``"rule.mode=random"``.
        seed: in place of the file's.
        out: the folder to write, new or empty; by default ``runs/<name>-<time>``.
        progress: whether to show a progress bar.

    Raises:
        NekoError: anything is wrong with the file, a setting, a part, the data or the folder; nothing has then been
            written. A run that turns NaN or infinite raises NonFiniteError, with everything up to there written.
    """
    experiment = Experiment.build(load(config, settings, seed))
    if out is not None:
        require_free(out)
    begin = time.perf_counter()
    data = load_data(experiment)
    path = out if out is not None else free_path(experiment.configuration.name, datetime.now())
    folder = RunFolder.create(path)
    folder.write_text("config.yaml", dump(as_written(experiment.configuration)))
    folder.write_json("environment.json", environment_now(experiment.configuration))
    if isinstance(experiment.rule, SamplingRule):
        return sampling.run(experiment.rule, experiment.configuration, data, folder, begin, False, progress)
    return _train(experiment, data, folder, begin, resume=None, progress=progress)


def resume(path: Path, settings: Sequence[str] = (), progress: bool = True) -> Outcome | sampling.Drawn:
    """Go on with a run that was stopped, in its own folder.

    Args:
        path: the folder of the run.
        settings: ``"train.epochs=…"``, if the run is to become longer.
        progress: whether to show a progress bar.

    Raises:
        NekoError: the folder holds no run, its files are damaged, or there is nothing left to do.
    """
    folder = RunFolder.existing(path)
    raw = read_mapping(folder.config)
    for setting in settings:
        if setting.partition("=")[0].strip() != CHANGEABLE:
            raise ConfigurationError(
                f"a resumed run may change {CHANGEABLE} alone",
                received=setting,
                works=f"begin a new run with: neko run {folder.config} --set {setting}",
            )
        apply_setting(raw, setting)
    configuration = resolved(checked(raw, str(folder.config)))
    if sampling.is_sampling(configuration.rule):
        return _resume_sampling(configuration, folder, progress)
    finished = len(folder.read_metrics())
    if finished >= configuration.train.epochs:
        raise ConfigurationError(
            f"the run in {path} must have epochs left",
            received=f"{finished} of {configuration.train.epochs} finished",
            works=f"make it longer with --set {CHANGEABLE}={2 * finished}",
        )
    if not any(folder.checkpoints.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder.checkpoints} must hold a checkpoint to go on from", works=f"begin anew: neko run {folder.config}"
        )
    experiment = Experiment.build(configuration)
    begin = time.perf_counter() - float(folder.read_json("summary.json").get("seconds") or 0.0)
    data = load_data(experiment)
    made_with = folder.read_json("environment.json")
    made_with["resumed"] = [*made_with.get("resumed", []), environment_now(experiment.configuration)]
    folder.write_json("environment.json", made_with)
    folder.write_text("config.yaml", dump(as_written(experiment.configuration)))
    return _train(experiment, data, folder, begin, resume=folder.checkpoints, progress=progress)


def _resume_sampling(configuration: Configuration, folder: RunFolder, progress: bool) -> sampling.Drawn:
    """Go on with chains that were stopped."""
    summary = folder.read_json("summary.json")
    sampling.check_resumable(summary, folder.path)
    experiment = Experiment.build(configuration)
    assert isinstance(experiment.rule, SamplingRule), "its configuration names one"
    begin = time.perf_counter() - float(summary.get("seconds") or 0.0)
    return sampling.run(experiment.rule, configuration, load_data(experiment), folder, begin, True, progress)


def as_written(configuration: Configuration) -> dict[str, Any]:
    """The configuration as it is written down: the sections of the kind of rule that it has."""
    unused = ("train",) if sampling.is_sampling(configuration.rule) else sampling.SECTIONS
    return {key: value for key, value in configuration.model_dump().items() if key not in unused}


def environment_now(configuration: Configuration) -> dict[str, Any]:
    """What a run that begins now is made with, and when."""
    now = datetime.now().astimezone().isoformat("T", "seconds")
    return {"begun": now, **environment(configuration.backend, configuration.seed, sys.argv)}


Data = tuple[tuple[Any, Any], tuple[Any, Any]]


def load_data(experiment: Experiment) -> Data:
    """Training and test data, checked against the model, which is then built.

    Raises:
        ConfigurationError: the data are missing, damaged, or do not fit the model.
    """
    with within("data"):
        x_train, y_train, x_test, y_test = experiment.dataset.load()
    model = experiment.rule.model
    if not model.network.built and model.encoder is None and np.ndim(x_train) == 3:
        # What does not go with the number of features, as a mask of another size, is a mistake in the model.
        with within("model"):
            model.network.build(np.shape(x_train)[-1])
    with within("data"):
        model.check(x_train, y_train)
        model.check(x_test, y_test)
        if isinstance(experiment.rule, SamplingRule):
            experiment.rule.posterior.examples(x_train, y_train)
    # What a rule cannot begin with is said before anything is written: a crossbar's names of parameters.
    if isinstance(experiment.rule, Rule):
        with within("rule"):
            experiment.rule.prepared()
    return (x_train, y_train), (x_test, y_test)


def _train(
    experiment: Experiment, data: Data, folder: RunFolder, begin: float, resume: Path | None, progress: bool
) -> Outcome:
    train = experiment.configuration.train
    callbacks = [MetricsFile(folder), *experiment.callbacks(folder.checkpoints)]
    trainer = Trainer(experiment.rule, [*callbacks, ProgressBar()] if progress else callbacks)
    outcome = Outcome(folder)
    try:
        # The trainer names whatever is not finite; NumPy's warnings about the same would only come in between.
        with np.errstate(all="ignore"):
            history = trainer.train(
                *data[0],
                epochs=train.epochs,
                batch_size=train.batch_size,
                validation_data=data[1],
                shuffle=train.shuffle,
                seed=experiment.configuration.seed,
                resume=resume,
                progress=False,
            )
        outcome.status = "interrupted" if history.interrupted else "finished"
        outcome.reason = "Ctrl-C" if history.interrupted else history.stopped
    except KeyboardInterrupt:
        outcome.status, outcome.reason = "interrupted", "Ctrl-C, twice"
    except NonFiniteError as error:
        outcome.reason = f"NaN or infinity in {error.quantity} at step {error.step}"
        written = sorted(folder.checkpoints.glob("*.safetensors")) if folder.checkpoints.is_dir() else []
        last = f"the last good checkpoint is {written[-1]}" if written else "no checkpoint had been written yet"
        works = f"use a smaller learning rate or gradient clipping; {last}"
        raise NonFiniteError(error.quantity, error.step, works, error.epoch) from error
    except BaseException as error:
        outcome.reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        outcome.history, outcome.seconds = trainer.history, time.perf_counter() - begin
        # A run that could not be taken up again keeps the results that it has.
        if resume is None or trainer.resumed_from is not None:
            loaded = getattr(experiment.rule, "crossbars", {})
            outcome.crossbars = {name: each.report().totals() for name, each in loaded.items()}
            write_results(outcome, experiment.rule.model.network, experiment.configuration)
    return outcome


def write_results(outcome: Outcome, network: NetworkProtocol, configuration: Configuration) -> None:
    """Write weights, summary and learning curve."""
    from neko_rules.report.learning_curve import save_learning_curves

    outcome.folder.write_weights(network.parameters)
    outcome.parameters = network.size
    outcome.folder.write_json("summary.json", outcome.summary())
    if outcome.history.epochs:
        assert isinstance(configuration.loss, Mapping), "a resolved configuration names its loss in a mapping"
        save_learning_curves(outcome.history.epochs, outcome.folder.figure, loss=configuration.loss["name"])


def _registry(key: str) -> Any:
    registry = registry_of(key)
    assert registry is not None, "asked for the outer keys only"
    return registry


def _with_absolute_paths(configuration: Configuration, dataset: Dataset) -> Configuration:
    """The configuration with the paths of data files written so that they hold in every folder."""
    paths = {
        argument: str(Path(getattr(dataset, argument)).absolute())
        for argument in configuration.data
        if isinstance(getattr(dataset, argument, None), Path)
    }
    return configuration.model_copy(update={"data": {**configuration.data, **paths}})
