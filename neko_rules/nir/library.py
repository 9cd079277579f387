"""The library ``nir``, imported when it is asked for, and graphs read from files by it."""

from __future__ import annotations

import importlib
import os
from typing import Any

from neko_rules.errors import DataError, NekoError


def library() -> Any:
    """The module ``nir``.

    Raises:
        NekoError: it is not installed.
    """
    try:
        return importlib.import_module("nir")
    except ModuleNotFoundError as error:
        if error.name != "nir":
            raise
        raise NekoError(
            "exchange with NIR needs the library 'nir', which is not installed",
            works="install it with pip install 'neko_rules[nir]'",
        ) from error


def read(path: str | os.PathLike[str]) -> Any:
    """The graph in a file.

    Raises:
        DataError: it cannot be read, or holds no graph.
    """
    nir = library()
    try:
        try:
            found = nir.read(path)
        except (ValueError, NotImplementedError, AssertionError):
            # Its check of shapes refuses scalars that stand for a layer, which other programs write.
            found = nir.read(path, type_check=False)
    except Exception as error:
        raise DataError(f"{os.fspath(path)} must be a file that nir can read", received=str(error)) from error
    if not isinstance(found, nir.NIRGraph):
        raise DataError(f"{os.fspath(path)} must hold a graph", received=type(found).__name__)
    return found
