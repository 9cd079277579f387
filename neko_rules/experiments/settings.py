"""Settings: ``--set rule.optimizer.learning_rate=1e-3`` as a change of a configuration that is not yet checked."""

from __future__ import annotations

import inspect
from typing import Any

from neko_rules.errors import ConfigurationError, instead
from neko_rules.experiments import sampling
from neko_rules.experiments.parts import SUPPLIED, parameters, registry_of
from neko_rules.experiments.yaml_file import parse


def apply_setting(raw: dict[str, Any], setting: str) -> None:
    """Change one value of a configuration in place.

    A part given by its name alone becomes a mapping with that name, and a part that is only a default is written down
    first, so that ``rule.optimizer.learning_rate`` can be set where the file says no more than ``rule: eprop``.

    Raises:
        ConfigurationError: the setting has no ``=``, its value is no YAML, or its path leads nowhere.

    Example:
        >>> raw = {"data": "mnist1d", "model": "ALIF", "rule": "bptt", "seed": 0}
        >>> apply_setting(raw, "seed=3")
        >>> apply_setting(raw, "data.num_samples=100")
        >>> raw["seed"], raw["data"]
        (3, {'name': 'mnist1d', 'num_samples': 100})
    """
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigurationError(
            "--set must be followed by key=value", received=setting, works="write for example --set train.epochs=5"
        )
    node: Any = raw
    key = ""
    for depth, child in enumerate(keys):
        place = ".".join(keys[:depth])
        _check_key(node, key, child, place)
        if depth == len(keys) - 1:
            value = parse(text, f"the value in --set {setting}")
            if child == "name":
                _check_renamed(node, key, place, value)
            _assign(node, child, value)
        else:
            node, key = _descend(node, key, child, f"{place}.{child}".lstrip(".")), child


def _check_key(node: Any, key: str, child: str, place: str) -> None:
    """Refuse a step that leads nowhere."""
    from neko_rules.experiments.config import belongs_to

    if isinstance(node, list):
        if not child.isdecimal() or int(child) >= len(node):
            raise ConfigurationError(
                f"--set must name an entry of {place!r} by its number from 0 to {len(node) - 1}", received=child
            )
        return
    known = _known_keys(node, key, place)
    if known is not None and child not in known:
        where = f"{place!r}" if place else "a configuration"
        home = "" if place else belongs_to(child, node)
        works = f"it belongs to {home}" if home else instead(child, known)
        if "optimizer=" in works:
            works = f"the learning rate belongs to the optimizer: --set {place}.optimizer.learning_rate=1e-3"
        raise ConfigurationError(f"--set got an unknown key: {where} has no {child!r}", works=works)


def _check_renamed(node: Any, key: str, place: str, name: Any) -> None:
    """Refuse another part under arguments that it does not have."""
    registry = registry_of(key)
    if registry is None or not isinstance(name, str) or name not in registry or not isinstance(node, dict):
        return
    known = _known_keys({"name": name}, key, place)
    assert known is not None, "the part is known"
    foreign = [argument for argument in node if argument not in known]
    if foreign:
        kept = ", ".join(argument for argument in node if argument in known and argument != "name")
        raise ConfigurationError(
            f"--set {place}.name={name} keeps the arguments of {place!r}, and {name} has no {foreign[0]!r}",
            works=f"give all of it: --set '{place}={{name: {name}}}'{f', with {kept} if wanted' if kept else ''}",
        )


def _known_keys(node: dict[str, Any], key: str, place: str) -> list[str] | None:
    """The keys that a mapping may have; None where only the part itself can tell."""
    from neko_rules.experiments.config import Configuration, Training
    from neko_rules.trainers import Checkpoint, EarlyStopping

    if place == "":
        return list(Configuration.model_fields)
    if place == "train":
        return list(Training.model_fields)
    if place in sampling.SECTIONS:
        return sampling.arguments_of(place)
    if place == "train.early_stopping":
        return list(inspect.signature(EarlyStopping).parameters)
    if place == "train.checkpoint":
        return [name for name in inspect.signature(Checkpoint).parameters if name != "folder"]
    registry = registry_of(key)
    if registry is None or not isinstance(node.get("name"), str) or node["name"] not in registry:
        return None
    # What a rule is made on comes from other sections.
    made_on = (SUPPLIED[key][0], "posterior") if key in ("rule", "gradient") else ()
    return ["name", *(name for name in parameters(registry, node["name"]) if name not in made_on)]


def _descend(node: Any, key: str, child: str, place: str) -> Any:
    """The mapping or list under a key, made from a name or a default where there is none yet."""
    index: Any = int(child) if isinstance(node, list) else child
    part = key if isinstance(node, list) else child
    value = node[index] if isinstance(node, list) or child in node else _default(node, key, child)
    if isinstance(value, str) and registry_of(part) is not None:
        value = {"name": value}
    elif value is None and place in ("train", "train.early_stopping", "train.checkpoint", *sampling.SECTIONS):
        value = {}
    elif isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, (dict, list)):
        raise ConfigurationError(f"--set can only go below {place!r} where it is a mapping or a list", received=value)
    node[index] = value
    return value


def _default(node: dict[str, Any], key: str, child: str) -> Any:
    """The default of a part's argument that the configuration does not mention."""
    registry = registry_of(key)
    if registry is None or not isinstance(node.get("name"), str) or node["name"] not in registry:
        return None
    parameter = parameters(registry, node["name"]).get(child)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _assign(node: Any, child: str, value: Any) -> None:
    node[int(child) if isinstance(node, list) else child] = value
