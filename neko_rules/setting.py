"""Setting: an argument of a rule or model that may be assigned again, and is looked at as when that was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Setting(Generic[Value]):
    """An attribute that keeps what a function makes of what is assigned to it.

    Args:
        resolve: the function of the object and of what is assigned: it refuses what that cannot be made with.

    Example:
        >>> from neko_rules import BPTT, LIF, Evaluator
        >>> rule = BPTT(Evaluator(LIF(8, 2)))
        >>> rule.clipping = {"name": "global_norm", "limit": 1.0}
        >>> rule.clipping
        ClipGlobalNorm(limit=1.0)
    """

    def __init__(self, resolve: Callable[[Any, Any], Value]) -> None:
        self._resolve = resolve

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, rule: Any, _: type | None = None) -> Value:
        # Asked for by its class it is what it is, as a property is.
        held: Any = self if rule is None else vars(rule)[self._name]
        found: Value = held
        return found

    def __set__(self, rule: Any, value: Any) -> None:
        vars(rule)[self._name] = self._resolve(rule, value)
