"""Config: what a run is, as a YAML mapping checked key by key, with every default written out.

The outer keys are those of ``Configuration``. What stands under ``data``, ``encoder``, ``model``, ``loss``, ``metrics``
and ``rule`` is the name of a public class, or a mapping with that ``name`` and the arguments of the class: nothing
exists in YAML that does not exist in Python.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from neko_rules.arguments import without_quotes
from neko_rules.errors import LEARNING_RATE, SCHEDULE, ArgumentError, ConfigurationError, nearest
from neko_rules.experiments import sampling
from neko_rules.experiments.parts import parameters, registry_of, with_defaults, within, written_out
from neko_rules.experiments.yaml_file import read_mapping

RULE = "rule"
"""Type of the errors whose message already is the whole rule."""


def _checked(holds: Callable[[Any], bool], rule: str) -> BeforeValidator:
    """A validator with a sentence of its own."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError(RULE, "{rule}", {"rule": rule})
        return value

    return BeforeValidator(check)


def _is_part(value: Any) -> bool:
    return isinstance(value, (str, dict))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Part = Annotated[Any, _checked(_is_part, "must be a name, or a mapping with a 'name' and arguments")]
Parts = Annotated[
    list[Any],
    _checked(
        lambda value: isinstance(value, list) and all(map(_is_part, value)), "must be a list of names or mappings"
    ),
]
Count = Annotated[int, _checked(lambda value: _is_whole(value) and value >= 1, "must be a whole number of at least 1")]
Seed = Annotated[int, _checked(lambda value: _is_whole(value) and value >= 0, "must be a whole number of at least 0")]
Flag = Annotated[bool, _checked(lambda value: isinstance(value, bool), "must be true or false")]
Word = Annotated[str, _checked(lambda value: isinstance(value, str), "must be text")]
Arguments = Annotated[
    dict[str, Any] | None,
    _checked(lambda value: value is None or isinstance(value, dict), "must be a mapping of arguments, or null"),
]
FileName = Annotated[
    str,
    _checked(
        lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", value) is not None,
        "must be letters, digits, '.', '_', '+' and '-', as it becomes part of a folder's name",
    ),
]


class Training(BaseModel):
    """How long and in what order: the arguments of ``Trainer.train``, ``EarlyStopping`` and ``Checkpoint``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count = 10
    batch_size: Count = 128
    shuffle: Flag = True
    early_stopping: Arguments = None
    checkpoint: Arguments = Field(default_factory=dict)


class Configuration(BaseModel):
    """One run, whole: together with the version of the library it decides every number.

    Attributes:
        name: how the run's folder begins.
        seed: of the first weights, the feedback matrices and the order of the examples; a data set that draws random
            numbers has a seed of its own.
        backend: the array library.
        dtype: ``"float32"`` or ``"float64"``.
        data: the data set.
        encoder: what makes spikes or currents of values; none by default.
        model: the network.
        loss: what is minimised; by default the categorical cross-entropy for classes and the mean squared error for
            values.
        metrics: what is measured beside it; by default the accuracy for classes.
        rule: the learning rule.
        train: epochs, batches and when to stop, for rules that train.
        posterior: arguments of Posterior, for rules that sample.
        sample: how many draws, for rules that sample.

    Example:
        >>> configuration = Configuration(data="mnist", model={"name": "ALIF", "hidden": 8, "outputs": 10}, rule="bptt")
        >>> configuration.backend, configuration.train.epochs
        ('numpy', 10)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FileName = "run"
    seed: Seed = 0
    backend: Word = "numpy"
    dtype: Literal["float32", "float64"] = "float32"
    data: Part
    encoder: Part | None = None
    model: Part
    loss: Part | None = None
    metrics: Parts | None = None
    rule: Part
    train: Training = Field(default_factory=Training)
    posterior: Arguments = None
    sample: Arguments = None


def load(path: Path, settings: Sequence[str] = (), seed: int | None = None) -> Configuration:
    """The configuration of a file, changed by ``key=value`` settings, with every default written out.

    Raises:
        ConfigurationError: the file, a key, a value or a setting is wrong.
    """
    from neko_rules.experiments.settings import apply_setting

    raw = {"name": _default_name(path), **read_mapping(path)}
    for setting in settings:
        apply_setting(raw, setting)
    if seed is not None:
        raw["seed"] = seed
    return resolved(checked(raw, str(path)))


def checked(raw: Mapping[str, Any], source: str) -> Configuration:
    """A mapping as a Configuration, or one sentence on the first thing wrong with it.

    Example:
        >>> checked({"data": "mnist1d", "model": "ALIF", "rule": "eprop", "epoch": 3}, "my.yaml")
        Traceback (most recent call last):
        neko_rules.errors.ConfigurationError: my.yaml has no key 'epoch'; known: 'name', 'seed', 'backend', ...
    """
    try:
        return Configuration.model_validate(_with_lifted(dict(raw), source))
    except ValidationError as error:
        raise _sentence(error.errors(include_url=False), source, raw) from None


def resolved(configuration: Configuration) -> Configuration:
    """The configuration with first spellings as names and every default of every part written out.

    Raises:
        ConfigurationError: a name is unknown.
    """
    parts: dict[str, Any] = {}
    for key in ("data", "encoder", "model", "rule"):
        with within(key):
            parts[key] = written_out(getattr(configuration, key), key)
            _refuse_stray(key, parts[key], configuration)
    task_type = parts["model"].get("task_type") or _task_type_of_data(parts["data"])
    classes = task_type != "regression"
    with within("loss"):
        default = "categorical_crossentropy" if classes else "mean_squared_error"
        parts["loss"] = written_out(configuration.loss if configuration.loss is not None else default, "loss")
    with within("metrics"):
        given = configuration.metrics if configuration.metrics is not None else ["accuracy"] if classes else []
        parts["metrics"] = written_out(given, "metrics")
    parts["train"] = _training(configuration.train)
    parts.update(sampling.sections(configuration, parts["train"] != _training(Training())))
    return configuration.model_copy(update=parts)


def _refuse_stray(section: str, part: Mapping[str, Any] | None, configuration: Configuration) -> None:
    """Refuse an argument that a part does not have, and another section has."""
    registry = registry_of(section)
    assert registry is not None, "only parts have arguments"
    if part is None:
        return
    accepted = parameters(registry, part["name"])
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in accepted.values()):
        return
    for key in part:
        home = "" if key == "name" or key in accepted else belongs_to(key, dict(configuration))
        # What it has under another name its own refusal says best.
        if home and not home.startswith(f"{section}."):
            raise ArgumentError(f"{part['name']} has no argument {key!r}", works=f"it belongs to {home}")


def _training(train: Training) -> Training:
    """The section ``train`` with the defaults of its callbacks written out."""
    from neko_rules.trainers import Checkpoint, EarlyStopping

    written = {}
    for key, maker in (("early_stopping", EarlyStopping), ("checkpoint", Checkpoint)):
        given = getattr(train, key)
        written[key] = None if given is None else with_defaults(maker, given)
    return train.model_copy(update=written)


def _task_type_of_data(data: Mapping[str, Any]) -> str | None:
    from neko_rules.datasets import DATASETS

    with within("data"):
        return DATASETS.resolve(data).task_type


def _with_lifted(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """A backend or type given as an argument of the model, which is right in Python, counts for the whole run."""
    model = raw.get("model")
    if not isinstance(model, dict):
        return raw
    for key in ("backend", "dtype"):
        if key in model:
            if raw.get(key, model[key]) != model[key]:
                raise ConfigurationError(
                    f"{source} must give {key!r} once",
                    received=f"{raw[key]!r} and model.{key} {model[key]!r}",
                    works=f"leave model.{key} out",
                )
            raw[key] = model[key]
    raw["model"] = {key: value for key, value in model.items() if key not in ("backend", "dtype")}
    return raw


def belongs_to(key: str, raw: Mapping[str, Any]) -> str:
    """Where a key belongs that stands in the wrong section; nothing where no section has it.

    Example:
        >>> belongs_to("epochs", {}), belongs_to("hidden", {"model": "LIF"}), belongs_to("lr", {"rule": "eprop"})
        ('train.epochs', 'model.hidden', 'rule.optimizer.learning_rate')
    """
    if key in Training.model_fields:
        return f"train.{key}"
    if key in Configuration.model_fields:
        return f"{key}, beside data, model and rule"
    for section in ("rule", "model", "data"):
        spec, registry = raw.get(section), registry_of(section)
        name = spec.get("name") if isinstance(spec, dict) else spec
        if registry is None or not isinstance(name, str) or name not in registry:
            continue
        accepted = parameters(registry, name)
        if key in accepted:
            return f"{section}.{key}"
        if key in (*LEARNING_RATE, *SCHEDULE) and "optimizer" in accepted:
            return "rule.optimizer.learning_rate"
    return ""


def _sentence(errors: list[ErrorDetails], source: str, raw: Mapping[str, Any]) -> ConfigurationError:
    """The first error in one sentence; an unknown key comes first, as it may be why another is missing."""
    error = sorted(errors, key=lambda each: each["type"] != "extra_forbidden")[0]
    *outer, key = [str(part) for part in error["loc"]]
    section = f"{'.'.join(outer)!r} in {source}" if outer else source
    if error["type"] == "extra_forbidden":
        known = list((Training if outer == ["train"] else Configuration).model_fields)
        home = belongs_to(key, raw)
        works = f"it belongs to {home}" if home else nearest(key, known)
        return ConfigurationError(f"{section} has no key {key!r}", works=works)
    if error["type"] == "missing":
        return ConfigurationError(
            f"{section} needs the key {key!r}", works=f"add for example '{key}: {_EXAMPLES[key]}'"
        )
    where = f"{'.'.join([*outer, key])!r} in {source}"
    if error["type"] == "literal_error":
        return ConfigurationError(f"{where} must be {error['ctx']['expected']}", received=error["input"])
    if error["type"] == RULE:
        works = without_quotes(error["input"]) if "whole number" in error["msg"] else ""
        return ConfigurationError(f"{where} {error['msg']}", received=repr(error["input"]), works=works)
    return ConfigurationError(f"{where} must be a mapping of keys to values", received=error["input"])


_EXAMPLES = {"data": "mnist1d", "model": "{name: ALIF, hidden: 128, outputs: 10}", "rule": "eprop"}


def _default_name(path: Path) -> str:
    """The file's name without what a folder's name should not hold."""
    return re.sub(r"[^\w.+-]+", "-", path.stem, flags=re.ASCII).strip("-._+")[:100] or "run"
