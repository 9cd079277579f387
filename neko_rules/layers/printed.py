"""Printed: derivatives as text and source, kept on disk, so that SymPy is loaded for equations that are new.

Loading it takes as long as a training step and its kernels together.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neko_rules.kernels.compiling import folder


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

    Args:
        key: what it depends on.
        derive: finds it.
    """
    path = folder() / f"derivatives-{hashlib.sha256((_edition() + key).encode()).hexdigest()[:20]}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("key") == key:
            return Printed(**{name: _tuples(value) for name, value in found.items()})
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or cut off: found anew below.
        pass
    printed = derive()
    # Whole or not at all, for other processes that look for it now.
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump({"key": key, **asdict(printed)}, stream)
    Path(temporary).replace(path)
    return printed


def _tuples(value: Any) -> Any:
    """Lists as tuples, however deep."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@lru_cache(maxsize=1)
def _edition() -> str:
    """What derives and prints: the text of this package's module that does, and the version of SymPy."""
    text = Path(__file__).with_name("jacobians.py").read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest() + version("sympy")
