"""Printed: derivatives as text and source, kept on disk, so that SymPy is loaded for equations that are new.

Loading it takes as long as a training step and its kernels together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neko_rules.kernels.compiling import folder
from neko_rules.kernels.files import write_whole


@dataclass(frozen=True)
class Printed:
    """The derivatives of one cell.

    Args:
        states, constants, learnable: names, as in ``Jacobians``.
        entries: which derivatives are not identically zero.
        texts: what each of them is.
        depends: the names that each depends on.
        arguments: all of these names.
        source: of a function ``derivatives(ops, *arguments)`` that gives all of them.
        spikes: how many different spikes a step evaluates.
    """

    states: tuple[str, ...]
    constants: tuple[str, ...]
    learnable: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    depends: tuple[tuple[str, ...], ...]
    arguments: tuple[str, ...]
    source: str
    spikes: int

    @property
    def function(self) -> Callable[..., list[Any]]:
        """The function of the source."""
        known: dict[str, Any] = {}
        exec(compile(self.source, "<derivatives of a cell>", "exec"), known)
        function: Callable[..., list[Any]] = known["derivatives"]
        return function


def kept(key: str, derive: Callable[[], Printed]) -> Printed:
    """What was derived for a key by this version of the package and of SymPy; derived if it is not known yet.

    Where nothing can be read or written, all is derived in every process.

    Args:
        key: what it depends on.
        derive: finds it.
    """
    path = None
    try:
        path = folder() / f"derivatives-{hashlib.sha256((_edition() + key).encode()).hexdigest()[:20]}.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("key") == key:
            return Printed(**{name: _tuples(value) for name, value in found.items()})
    except (OSError, ImportError, ValueError, KeyError, TypeError, AttributeError):
        # Not there, cut off, or of another form: derived below.
        pass
    printed = derive()
    try:
        if path is not None:
            write_whole(path, json.dumps({"key": key, **asdict(printed)}))
    except OSError:
        # A full disk, or a folder that is gone: the next process derives it once more.
        pass
    return printed


def _tuples(value: Any) -> Any:
    """Lists as tuples, however deep."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@lru_cache(maxsize=1)
def _edition() -> str:
    """What derives and prints: the text of this package's modules that do, and the version of SymPy."""
    modules = [Path(__file__).with_name(f"{name}.py") for name in ("equations", "jacobians", "printed", "spike_times")]
    text = "".join(path.read_text(encoding="utf-8") for path in modules)
    return hashlib.sha256(text.encode()).hexdigest() + version("sympy")
