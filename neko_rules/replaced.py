"""Replaced: what an object has compiled is forgotten when anything that it was made with has been replaced."""

from __future__ import annotations

import inspect
from operator import is_, itemgetter
from typing import Any

from neko_rules.layers.network import Network
from neko_rules.on_request import COMPILED, is_made
from neko_rules.ours import is_ours

_MOVING = frozenset({"steps", "_own", "_memory", "_shown", "model", "network", "held"})
"""What a step changes, and what is looked into itself."""


class Settings:
    """What a model, or a rule and its model, was made with, to see whether any of it was replaced.

    Of an object of this package that is all it holds but what a step changes and what is compiled for it. What a
    user's class holds beside the arguments it was made with may change at every step, and is not looked at; nor is a
    wrapped model of another library, which holds its state as it pleases.

    Args:
        of: a rule or an Evaluator, with a network that is built.
    """

    def __init__(self, of: Any) -> None:
        # The first name twice: asked for one alone, itemgetter gives no tuple.
        self._asked = [itemgetter(names[0], *names) if (names := _names(part)) else _nothing for part in _parts(of)]
        self._known = self._looked_at(of)

    def are_those_of(self, of: Any) -> bool:
        """Whether the same object, or another in its place, has the same."""
        return all(map(is_, self._looked_at(of), self._known))

    def _looked_at(self, of: Any) -> list[Any]:
        return [value for asked, part in zip(self._asked, _parts(of), strict=True) for value in asked(vars(part))]


def forget_compiled(of: Any) -> None:
    """Forget all that an object makes when asked for, compiled functions among it."""
    for name in [name for name in vars(of) if is_made(of, name)]:
        del vars(of)[name]


def forget_if_replaced(holder: Any, of: Any = None) -> bool:
    """Forget all that is held in cached properties, compiled functions among it, if anything was replaced.

    Args:
        holder: what holds them; those of the rule or Evaluator are forgotten too.
        of: the rule or the Evaluator that they were compiled for; by default the holder.

    Returns:
        Whether anything was replaced since this was asked before; True the first time.

    Example:
        >>> from neko_rules import BPTT, LIF, Evaluator
        >>> rule = BPTT(Evaluator(LIF(8, 2, inputs=3)))
        >>> [forget_if_replaced(rule) for _ in range(2)]
        [True, False]
        >>> rule.weight_decay = 0.01
        >>> forget_if_replaced(rule)
        True
    """
    of = holder if of is None else of
    known: Settings | None = vars(holder).get(_FOR)
    if known is not None and known.are_those_of(of):
        return False
    # Not of the model, which others may have too and which looks for itself.
    for each in (holder, of, getattr(of, "gradient", None)):
        if hasattr(each, "__dict__"):
            forget_compiled(each)
    vars(holder)[_FOR] = Settings(of)
    return True


_FOR = COMPILED + "_for"


def _parts(of: Any) -> tuple[Any, ...]:
    model = getattr(of, "model", None)
    if model is not None:
        # A rule may be made with another, whose gradient it takes.
        inner = getattr(of, "gradient", None)
        return of, *(_parts(inner) if hasattr(inner, "model") else _parts(model))
    return (of, of.network) if isinstance(of.network, Network) else (of,)


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


def _names(of: Any) -> list[str]:
    """The names of what an object was made with: all but what is made from it when asked for."""
    made_with = None if is_ours(of) else {*inspect.signature(type(of)).parameters}
    return [
        name
        for name in vars(of)
        if name not in _MOVING and not is_made(of, name) and (made_with is None or name in made_with)
    ]
