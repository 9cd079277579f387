"""Listing: every part that can be named, with its one line on what it is."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from neko_rules.errors import ArgumentError, NekoError, nearest

if TYPE_CHECKING:
    from rich.table import Table

KINDS = {
    "rules": "rule",
    "models": "model",
    "neurons": "cell",
    "losses": "loss",
    "metrics": "metrics",
    "optimizers": "optimizer",
    "schedules": "learning_rate",
    "clippings": "clipping",
    "regularizers": "regularizers",
    "surrogates": "surrogate",
    "initializers": "initializer",
    "connectivities": "connectivity",
    "priors": "prior",
    "datasets": "data",
    "encoders": "encoder",
    "devices": "device",
    "decisions": "decision",
    "backends": "backend",
}
"""What can be listed, and the key of a configuration where its names are used."""


def listing(kind: str) -> list[tuple[str, str]]:
    """Names of one kind, each with its line.

    Raises:
        ArgumentError: there is no such kind.

    Example:
        >>> [name for name, line in listing("clippings")]
        ['value', 'norm', 'global_norm']
    """
    from neko_rules.experiments.parts import registry_of

    if kind not in KINDS:
        raise ArgumentError("unknown kind of part", received=kind, works=nearest(kind, KINDS))
    if kind == "backends":
        return [(name, line) for name, _, line in backends()]
    registry = registry_of(KINDS[kind])
    assert registry is not None, "every other kind has a registry"
    return registry.describe()


def shown_listing(kind: str | None = None) -> Table:
    """The names of one kind for the terminal, each with its line; without a kind, all kinds with their names.

    Raises:
        ArgumentError: there is no such kind.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True)
    if kind == "backends":
        table.add_column(no_wrap=True)
        for name, installed, line in backends():
            table.add_row(name, Text("installed", "green") if installed else Text("not installed", "dim"), Text(line))
    elif kind is None:
        for each in KINDS:
            table.add_row(each, Text(", ".join(name for name, _ in listing(each))))
    else:
        for name, line in listing(kind):
            table.add_row(name, Text(line))
    return table


def backends() -> list[tuple[str, bool, str]]:
    """Name of every backend, whether its library is installed, and its line; no array library is imported."""
    from neko_rules.backend import available, is_installed

    return [(name, is_installed(name), _description(name, source)) for name, source in available().items()]


def _description(name: str, source: object) -> str:
    """A built-in backend's line, read from its file; that of another package, asked from the package."""
    if isinstance(source, tuple):
        spec = importlib.util.find_spec(source[0])
        assert spec is not None, "built-in backends are part of the package"
        assert spec.origin is not None, "and lie in files"
        return _described_in(Path(spec.origin)) or name
    from neko_rules.backend import get_backend

    try:
        return get_backend(name).description
    except (NekoError, ImportError, AttributeError) as error:
        return f"cannot be loaded: {error}"


def _described_in(path: Path) -> str:
    """The value of ``description = "…"`` in a class of a Python file that is not run."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["description"]:
            return str(ast.literal_eval(node.value))
    return ""
