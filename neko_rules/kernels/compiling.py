"""Compiling: generated source becomes a module on disk, and Numba keeps its machine code beside it.

The module's name is a digest of its source, so the second process that needs the same kernel finds it compiled. The
folder is ``neko_rules/kernels`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, or in the temporary folder where that cannot be
written. What was compiled or measured belongs to the text of all files here: a kernel's machine code holds that of
functions of other files, where Numba looks at the kernel's own file alone and would run what another release left.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from neko_rules.kernels.files import write_whole
from neko_rules.kernels.machine_code import MachineCode

Function = TypeVar("Function", bound=Callable[..., Any])

Kernel = Callable[..., Any]
"""A compiled function of arrays and numbers."""


GENERATED = "neko_rules_kernel_"
"""What names of generated modules begin with."""

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    "no_cfunc_wrapper": True,
}
"""Without reference counts: a kernel makes no arrays but parts of those that it is given, which outlive it. Counted,
every row of every example and time step is a call or two, before which vector registers have to be saved: in processes
that took turns on an Emerald Rapids a step of A took 0.97 and of B 0.92 of what it did with counts. Nobody calls
kernels from C, for which Numba would compile another function beside each."""


@lru_cache(maxsize=1)
def release() -> str:
    """A digest of all files of kernels."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:12]


def _compiled(function: Function, **options: Any) -> Function:
    """The function, whose machine code on disk belongs to all files of kernels."""
    import numba

    compiled: Any = numba.njit(**options, **_OPTIONS)(function)
    # Not there where Numba was told to compile nothing, or finds no place to keep it.
    cache: Any = getattr(compiled, "_cache", None)
    if hasattr(cache, "_cache_file"):
        cache._cache_file = MachineCode(cache._cache_file, release())
    found: Function = compiled
    return found


def kernel(function: Function) -> Function:
    """A function compiled by Numba on first use: no interpreter lock, no exceptions from arithmetic, kept on disk.

    No array that it writes may overlap with another of its arguments.
    """
    from neko_rules.kernels.pipeline import Pipeline

    return _compiled(function, pipeline_class=Pipeline)


def thin(function: Function) -> Function:
    """A kernel of which ``kernels.lowering`` has written all that it does: little of it is left to optimise."""
    from neko_rules.kernels.pipeline import Thin

    return _compiled(function, pipeline_class=Thin)


def within(function: Function) -> Function:
    """A function of numbers that is compiled into every kernel that calls it, so that its loops become vector code.

    Numba takes its statements into those of the kernel, and compiles nothing else: made into machine code of its own as
    well, which nobody runs, such functions were a quarter of the time that a first step takes.
    """
    return _compiled(function, inline="always")


_loading = threading.RLock()


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where generated modules are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neko_rules" / "kernels"
    for place in (cache, Path(tempfile.gettempdir()) / f"neko_rules-{os.getuid() if hasattr(os, 'getuid') else 0}"):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    return Path(tempfile.mkdtemp(prefix="neko_rules-"))


def module_of(source: str) -> ModuleType:
    """The module with that source, written if it is not there yet."""
    # One thread at a time: a module is in sys.modules before it has all its functions.
    with _loading:
        return _loaded(source)


@lru_cache(maxsize=512)
def _loaded(source: str) -> ModuleType:
    name = GENERATED + hashlib.sha256(source.encode()).hexdigest()[:20]
    path = folder() / f"{name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != source:
        write_whole(path, source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a file with a Python suffix has a loader"
    assert spec.loader is not None, "a file with a Python suffix has a loader"
    module = importlib.util.module_from_spec(spec)
    # Numba looks the module up by name when it loads machine code.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
