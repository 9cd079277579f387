"""On request: what an object makes from the rest of it when asked for, and which a copy makes for itself."""

from __future__ import annotations

from functools import cached_property
from typing import Any

COMPILED = "_compiled"
"""How the names begin under which objects keep what is compiled for them."""


def is_cached(of: Any, name: str) -> bool:
    """Whether an attribute is what a cached property has found."""
    return isinstance(getattr(type(of), name, None), cached_property)


def is_made(of: Any, name: str) -> bool:
    """Whether an attribute is made from others, or compiled for them."""
    return name.startswith(COMPILED) or is_cached(of, name)


def own_state(of: Any) -> dict[str, Any]:
    """What an object holds itself: what there is to be pickled of it."""
    return {name: value for name, value in vars(of).items() if not is_made(of, name)}
