"""Rules: those that train and those that sample under one key, as a configuration names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from neko_rules.errors import ArgumentError, nearest
from neko_rules.probabilistic import SAMPLING_RULES
from neko_rules.registry import Registry
from neko_rules.rules import RULES


class Joined(Registry[Any]):
    """Several registries as one, which always knows what they know.

    Example:
        >>> "eprop" in ALL_RULES, "mala" in ALL_RULES, ALL_RULES.canonical("Metropolis")
        (True, True, 'random_walk')
    """

    def __init__(self, kind: str, *parts: Registry[Any]) -> None:
        super().__init__(kind, object)
        self.parts = parts

    def _holder(self, name: Any) -> Registry[Any]:
        for part in self.parts:
            if isinstance(name, str) and name in part:
                return part
        raise ArgumentError(f"unknown {self.kind}", received=name, works=nearest(str(name), list(self)))

    def __iter__(self) -> Iterator[str]:
        return (name for part in self.parts for name in part)

    def __contains__(self, name: str) -> bool:
        return any(name in part for part in self.parts)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The class of that name, whichever registry knows it."""
        return self._holder(name)[name]

    def canonical(self, name: str) -> str:
        """The first spelling under which a part was registered."""
        return self._holder(name).canonical(name)

    def describe(self) -> list[tuple[str, str]]:
        """Name and first docstring line of every part."""
        return [row for part in self.parts for row in part.describe()]


ALL_RULES = Joined("rule", RULES, SAMPLING_RULES)
