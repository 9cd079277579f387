"""Checks of arguments: each returns the value it was given in its proper type, or refuses it in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from neko_rules.errors import ArgumentError, nearest


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """A finite real number within bounds.

    Example:
        >>> number("learning_rate", 1e-3, above=0)
        0.001
        >>> number("decay", 1.5, at_least=0, at_most=1)
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: decay must be a finite number of at least 0 and at most 1 (received: 1.5).
    """
    bounds = [("above", above), ("of at least", at_least), ("below", below), ("at most", at_most)]
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    rule = f"{name} must be a finite number{' ' + said if said else ''}"
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(rule, received=repr(value), works=without_quotes(value))
    result = float(value)
    outside = (
        (above is not None and not result > above)
        or (at_least is not None and not result >= at_least)
        or (below is not None and not result < below)
        or (at_most is not None and not result <= at_most)
    )
    if outside:
        raise ArgumentError(rule, received=value)
    return result


def integer(name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """A whole number within bounds.

    Example:
        >>> integer("epochs", 3, at_least=1)
        3
    """
    bounds = [("of at least", at_least), ("at most", at_most)]
    said = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
    rule = f"{name} must be a whole number{' ' + said if said else ''}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentError(rule, received=repr(value), works=without_quotes(value))
    result = int(value)
    if (at_least is not None and result < at_least) or (at_most is not None and result > at_most):
        raise ArgumentError(rule, received=value)
    return result


def pair(name: str, value: int | Sequence[int], *, at_least: int) -> tuple[int, int]:
    """Two whole numbers of at least some other, of rows and of columns, or one for both.

    Example:
        >>> pair("window", 5, at_least=1), pair("window", [5, 3], at_least=1)
        ((5, 5), (5, 3))
    """
    both = tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value, value)
    if len(both) != 2:
        raise ArgumentError(f"{name} must be one number or two", received=value)
    first, second = (integer(name, each, at_least=at_least) for each in both)
    return first, second


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words.

    Example:
        >>> choice("reset", "zero", ["subtract", "zero", "none"])
        'zero'
    """
    if not isinstance(value, str) or value not in known:
        raise ArgumentError(f"{name} must be one of {', '.join(known)}", received=value, works=nearest(value, known))
    return value


def known(rule: str, names: Iterable[str], there: Iterable[str]) -> None:
    """Refuse a name that is not among those there are.

    Example:
        >>> known("unknown weight", ["hidden.biass"], ["hidden.bias", "hidden.weight"])
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: unknown weight (received: hidden.biass); did you mean 'hidden.bias'?
    """
    there = list(there)
    for name in names:
        if name not in there:
            raise ArgumentError(rule, received=name, works=nearest(name, there))


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely looks like it.

    Example:
        >>> flag("recurrent", True)
        True
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} must be true or false", received=repr(value))
    return bool(value)


def mapping(name: str, value: Any, example: str) -> dict[str, Any]:
    """A mapping from names, as a dict of its own; empty for None.

    Example:
        >>> mapping("scales", {"hidden": 0.1}, "{'hidden': 0.01}"), mapping("scales", None, "{'hidden': 0.01}")
        ({'hidden': 0.1}, {})
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name} must be a mapping from names", received=value, works=f"for example {example}")
    return dict(value)


def per_neuron(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> float | tuple[float, ...]:
    """A number, or one number per neuron as a tuple, each within bounds.

    Example:
        >>> per_neuron("beta", [0, 0.1], at_least=0)
        (0.0, 0.1)
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if not value:
            raise ArgumentError(f"{name} must be a number or one number per neuron", received=value)
        each = (number(f"{name}[{i}]", v, above=above, at_least=at_least, at_most=at_most) for i, v in enumerate(value))
        return tuple(each)
    return number(name, value, above=above, at_least=at_least, at_most=at_most)


def without_quotes(value: Any) -> str:
    """What would work, where a number was given as text; nothing where it was not.

    Example:
        >>> without_quotes("128"), without_quotes("many")
        ('write 128 without quotes', '')
    """
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return f"write {value.strip()} without quotes"
