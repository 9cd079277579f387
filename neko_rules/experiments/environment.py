"""Environment: what a run was made with, so that a difference between two runs can be explained."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("neko_rules", "numpy", "numba", "scipy", "sympy")
"""Libraries whose version may change numbers on every backend: without Numba there are no compiled loops."""

BACKEND_LIBRARIES = {"torch": ("torch",), "tensorflow": ("tensorflow", "keras"), "jax": ("jax", "jaxlib")}
"""Further libraries behind each backend; NumPy's is above."""

THREAD_VARIABLES = ("NEKO_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment(backend: str, seed: int, command: list[str]) -> dict[str, Any]:
    """Versions, machine and command of the run about to begin, in values that JSON can hold.

    Example:
        >>> environment("numpy", seed=3, command=["neko", "run", "my.yaml"])["libraries"]["numpy"] is not None
        True
    """
    return {
        "command": command,
        "seed": seed,
        "backend": backend,
        "libraries": {name: version(name) for name in (*LIBRARIES, *BACKEND_LIBRARIES.get(backend, (backend,)))},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "working_directory": str(Path.cwd()),
        "git_commit": git_commit(Path.cwd()),
    }


def version(distribution: str) -> str | None:
    """The installed version of a library, without importing it.

    Example:
        >>> version("a-library-that-does-not-exist") is None
        True
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def git_commit(folder: Path) -> str | None:
    """The commit that a folder is at, with ``+`` behind it if files differ from it; None outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
