"""Parts: which registry a key of a configuration is looked up in, and what a part is with all its defaults written out.

Nothing here knows a single rule, model or data set: names come from the registries, arguments from the signatures.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neko_rules.errors import ArgumentError, ConfigurationError, NekoError
from neko_rules.registry import Registry

REGISTRIES = {
    "data": ("neko_rules.datasets", "DATASETS"),
    "model": ("neko_rules.layers.models", "MODELS"),
    "encoder": ("neko_rules.encoders", "ENCODERS"),
    "loss": ("neko_rules.losses", "LOSSES"),
    "metrics": ("neko_rules.metrics", "METRICS"),
    "rule": ("neko_rules.experiments.rules", "ALL_RULES"),
    "gradient": ("neko_rules.rules", "RULES"),
    "prior": ("neko_rules.probabilistic", "PRIORS"),
    "optimizer": ("neko_rules.optimizers", "OPTIMIZERS"),
    "learning_rate": ("neko_rules.schedules", "SCHEDULES"),
    "clipping": ("neko_rules.clipping", "CLIPPINGS"),
    "regularizers": ("neko_rules.regularizers", "REGULARIZERS"),
    "device": ("neko_rules.devices", "DEVICES"),
    "decision": ("neko_rules.rules", "DECISIONS"),
    "cell": ("neko_rules.layers.models", "CELLS"),
    "output_cell": ("neko_rules.layers.models", "CELLS"),
    "surrogate": ("neko_rules.surrogates", "SURROGATES"),
    "initializer": ("neko_rules.initializers", "INITIALIZERS"),
    "recurrent_initializer": ("neko_rules.initializers", "INITIALIZERS"),
    "readout_initializer": ("neko_rules.initializers", "INITIALIZERS"),
    "connectivity": ("neko_rules.layers.connectivity", "CONNECTIVITIES"),
    "recurrent_connectivity": ("neko_rules.layers.connectivity", "CONNECTIVITIES"),
    "readout_connectivity": ("neko_rules.layers.connectivity", "CONNECTIVITIES"),
}
"""The keys whose value names a part (or a list of parts), with the module and the registry that knows it."""

PLAIN = {"crossbar": ("neko_rules.devices", "Crossbar"), "fast": ("neko_rules.devices", "Crossbar")}
"""The keys whose value is the arguments of one class."""

FILES = ("synapses",)
"""The keys whose value, where it is text, is the path of a file; those of the data belong to the data set."""

SUPPLIED = {
    "model": ("backend", "dtype", "task_type", "seed"),
    "encoder": ("seed",),
    "rule": ("model", "seed"),
    "gradient": ("model", "seed"),
}
"""The arguments that a run supplies itself unless the configuration gives them for that part alone."""


def registry_of(key: str) -> Registry[Any] | None:
    """The registry that a key's value is looked up in, if it names a part.

    Example:
        >>> registry_of("optimizer").kind
        'optimizer'
        >>> registry_of("epochs") is None
        True
    """
    if key not in REGISTRIES:
        return None
    module, name = REGISTRIES[key]
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def parameters(registry: Registry[Any], name: str) -> dict[str, inspect.Parameter]:
    """The arguments of the part of that name."""
    return dict(inspect.signature(registry[name]).parameters)


def supplied(key: str, spec: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A part's arguments together with those that the run supplies and the part accepts."""
    registry = registry_of(key)
    assert registry is not None, "only parts are supplied with arguments"
    accepted = parameters(registry, spec["name"])
    given = {argument: value for argument, value in spec.items() if argument != "name"}
    return {argument: value for argument, value in values.items() if argument in accepted} | given


def written_out(spec: Any, key: str) -> Any:
    """A part's mapping with its first spelling as the name, and every default that YAML can hold.

    Paths of files are written so that they hold in every folder, as that of the run is another than one begins it in.
    Unknown names are refused here; unknown arguments are left for the part's own constructor to refuse.

    Raises:
        ArgumentError: the name is unknown, or a mapping that should name a part has none.

    Example:
        >>> written_out({"name": "Adam", "learning_rate": 2e-3}, "optimizer")["learning_rate"]
        0.002
        >>> written_out({"size": 4, "cell": "LIF"}, "layer")["cell"]["name"]
        'lif'
    """
    if isinstance(spec, (list, tuple)):
        return [written_out(each, key) for each in spec]
    if key in FILES and isinstance(spec, str):
        return str(Path(spec).expanduser().absolute())
    registry = registry_of(key)
    if key in PLAIN and isinstance(spec, Mapping):
        module, name = PLAIN[key]
        return with_defaults(getattr(importlib.import_module(module), name), spec)
    if registry is None:
        return _written_out_values(spec) if isinstance(spec, Mapping) else spec
    if not isinstance(spec, (str, Mapping)):
        return spec
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    if not isinstance(given.get("name"), str):
        raise ArgumentError(
            f"{key} must be a name or a mapping with a 'name'",
            received=given,
            works="known: " + ", ".join(repr(name) for name in registry),
        )
    name = registry.canonical(given.pop("name"))
    return {"name": name, **with_defaults(registry[name], given, SUPPLIED.get(key, ()))}


def with_defaults(maker: Callable[..., Any], given: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a class in the order of its signature, with every default that YAML can hold.

    Args:
        maker: the class.
        given: the arguments that are not left to their defaults, right or wrong.
        without: arguments whose default is not wanted.
    """
    values = {}
    for argument, parameter in inspect.signature(maker).parameters.items():
        default = _plain(parameter.default)
        if argument in given:
            values[argument] = given[argument]
        elif argument not in without and _is_plain(default):
            values[argument] = default
    return _written_out_values({**values, **given})


def shortened(spec: Any, key: str) -> Any:
    """The inverse of ``written_out``, for people: only the arguments that differ from their defaults.

    Example:
        >>> shortened({"name": "adam", "learning_rate": 0.002, "beta_1": 0.9, "beta_2": 0.999}, "optimizer")
        {'name': 'adam', 'learning_rate': 0.002}
    """
    if isinstance(spec, list):
        return [shortened(each, key) for each in spec]
    if not isinstance(spec, Mapping):
        return spec
    registry, name = registry_of(key), spec.get("name")
    defaults = written_out(name, key) if registry is not None and isinstance(name, str) and name in registry else {}
    return {
        argument: shortened(value, argument)
        for argument, value in spec.items()
        if argument == "name" or argument not in defaults or value != defaults[argument]
    }


def _written_out_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {argument: written_out(value, argument) for argument, value in values.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists and paths as text, as YAML knows them."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, (str, bool, int, float))


@contextmanager
def within(section: str) -> Iterator[None]:
    """Say in which section of the configuration a part was refused.

    Example:
        >>> with within("rule"):
        ...     raise NekoError("learning_rate must be above 0", received=-1)
        Traceback (most recent call last):
        neko_rules.errors.ConfigurationError: in 'rule': learning_rate must be above 0 (received: -1).
    """
    try:
        yield
    except ConfigurationError:
        raise
    except NekoError as error:
        raise ConfigurationError(f"in {section!r}: {error}") from error
