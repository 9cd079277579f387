"""Nested arrays: the same conversion for every array in a tuple or dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def converted(convert: Callable[[Any], Any], tree: Any) -> Any:
    """A nested tuple or dict with every array converted."""
    if isinstance(tree, dict):
        return {key: converted(convert, value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(converted(convert, value) for value in tree)
    return convert(tree)
