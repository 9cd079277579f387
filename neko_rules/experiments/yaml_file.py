"""YAML files: read safely and strictly, written so that they read back the same.

Stricter than YAML itself where YAML hides mistakes: a key given twice is refused, and ``1e-3`` and ``1.5e3`` are
numbers (YAML 1.1 reads them as text because one has no point and the other no sign).
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from neko_rules.errors import ConfigurationError

DEEPEST = 32
"""Levels of nesting that a configuration may have; an alias that contains itself would have no end."""

FLOAT_TAG = "tag:yaml.org,2002:float"
SCIENTIFIC = re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


class StrictLoader(yaml.SafeLoader):
    """The safe loader, refusing a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping, or an error at the line of the second spelling of a key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key_node, yaml.ScalarNode) and key != "<<":
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} given twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


class ReadableDumper(yaml.SafeDumper):
    """The safe dumper, with the loader's idea of a number and short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts in full rather than as references."""
        return True


for _class in (StrictLoader, ReadableDumper):
    _class.add_implicit_resolver(FLOAT_TAG, SCIENTIFIC, list("-+.0123456789"))


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigurationError: the file is missing, unreadable, no valid YAML, empty, or not a mapping with text keys.
    """
    if not path.exists():
        raise ConfigurationError(f"the configuration {path} must exist", works="give the path of a YAML file")
    if not path.is_file():
        raise ConfigurationError(
            f"the configuration {path} must be a file, not a folder",
            works=f"use {path / 'config.yaml'}" if (path / "config.yaml").is_file() else "give the path of a YAML file",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} must be text in UTF-8", received=f"byte {error.start} is not") from None
    except OSError as error:
        raise ConfigurationError(f"{path} must be readable", received=error.strerror or str(error)) from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Example:
        >>> parse_mapping("rule: {name: bptt, optimizer: {name: adam, learning_rate: 1e-3}}", "my.yaml")
        {'rule': {'name': 'bptt', 'optimizer': {'name': 'adam', 'learning_rate': 0.001}}}
        >>> parse_mapping("seed: 1\\nseed: 2", "my.yaml")
        Traceback (most recent call last):
        neko_rules.errors.ConfigurationError: my.yaml must be valid YAML (received: key 'seed' given twice in line 2);
        give every key of a mapping once.
    """
    value = parse(text, source)
    if value is None:
        raise ConfigurationError(
            f"{source} must describe a run", received="an empty file", works="give at least data, model and rule"
        )
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{source} must be a mapping of keys to values",
            received=f"a {_kind(value)}",
            works="write for example 'seed: 1' on a line",
        )
    return value


def parse(text: str, source: str) -> Any:
    """Any value written in YAML, made of mappings with text keys, lists, texts, numbers, booleans and null.

    Example:
        >>> parse("[2e-3, true, adam]", "--set")
        [0.002, True, 'adam']
    """
    try:
        value = yaml.load(text, Loader=StrictLoader)  # a SafeLoader, so no object is ever made
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{source} must be valid YAML", received=_problem(error), works=_remedy(error, text)
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{source} must not be nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # such as the date 2024-99-99
        raise ConfigurationError(
            f"{source} must be valid YAML", received=str(error), works="put it in quotes"
        ) from None
    _check_plain(value, source, DEEPEST)
    return value


def dump(value: Any) -> str:
    """A value as YAML text that reads back the same.

    Example:
        >>> print(dump({"rate": 1e-5, "name": "1e-5", "hidden": [64, 32]}), end="")
        rate: 1.0e-05
        name: '1e-5'
        hidden: [64, 32]
    """
    return yaml.dump(
        value, Dumper=ReadableDumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong and in which line, without the excerpt that PyYAML prints."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())  # a character that YAML does not allow
    mark = error.problem_mark or error.context_mark
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{error.problem or error.context}{where}"


def _remedy(error: yaml.YAMLError, text: str) -> str:
    problem = getattr(error, "problem", None) or ""
    if "given twice" in problem:
        return "give every key of a mapping once"
    if "could not determine a constructor" in problem:
        return "leave out the tag: only plain numbers, texts, lists and mappings are read"
    if "\\t" in problem or "\t" in text:
        return "indent with spaces, not tabs"
    return "put spaces after colons, close every bracket and quote, and indent with spaces"


def _check_plain(value: Any, source: str, levels: int) -> None:
    if levels == 0:
        raise ConfigurationError(f"{source} must not be nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigurationError(f"every key in {source} must be text", received=key, works="put it in quotes")
            _check_plain(inner, source, levels - 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, source, levels - 1)
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        raise ConfigurationError(
            f"values in {source} must be numbers, texts, lists or mappings",
            received=str(value),
            works="put it in quotes if it is a text",
        )


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "truth value", int: "number", float: "number"}[type(value)]
