"""Settings: all that a rule's steps depend on beside arrays, to see whether any of it was replaced."""

from __future__ import annotations

from functools import cached_property
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neko_rules.rules.rule import Rule


class Settings:
    """What a rule, its model and its network were made with.

    Args:
        rule: on a network that is built.
    """

    def __init__(self, rule: Rule) -> None:
        self._asked = [itemgetter(*_names(part)) for part in _parts(rule)]
        self._known = self._looked_at(rule)

    def are_those_of(self, rule: Rule) -> bool:
        """Whether a rule has the same."""
        return all(map(is_, self._looked_at(rule), self._known))

    def _looked_at(self, rule: Rule) -> list[Any]:
        return [value for asked, part in zip(self._asked, _parts(rule), strict=True) for value in asked(vars(part))]


_MOVING = frozenset({"steps", "_own", "_memory", "model", "network", "held"})
"""What a step changes, and what is looked into itself."""


def _parts(rule: Rule) -> tuple[Any, ...]:
    return rule, rule.model, rule.model.network


def _names(of: Any) -> list[str]:
    """The names of what an object was made with: all but what is made from it when asked for."""
    kind = type(of)
    return [
        name
        for name in vars(of)
        if name not in _MOVING
        and not name.startswith("_compiled")
        and not isinstance(getattr(kind, name, None), cached_property)
    ]
