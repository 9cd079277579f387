"""Equations: what a cell computes, written down as text by calling it; equal texts have equal derivatives.

>>> from neko_rules.layers.integrate_and_fire import LIFCell
>>> print(written(LIFCell(), dt=1e-3))
constants theta, alpha; learned none
%0 = stop_gradient(previous.z)
%1 = p.alpha * previous.v
%2 = %1 + current
%3 = p.theta * %0
%4 = %2 - %3
s.v = %4
%5 = s.v - p.theta
%6 = %5 / p.theta
%7 = spike(%6)
z = %7
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from neko_rules.layers.cell import Cell

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def written(cell: Cell, dt: float) -> str:
    """The equations of a cell, one operation in a line; numbers that they hold stand in them, constants by name.

    Args:
        cell: the cell.
        dt: time step in seconds, of which no more depends than the values of constants.

    Raises:
        TypeError: they hold something that has no text by which it is told from all others.
    """
    constants, states = tuple(cell.constants(dt)), cell.state_names()
    text = _Text()

    def named(names: tuple[str, ...], of: str) -> SimpleNamespace:
        return SimpleNamespace(**{name: _Term(text, f"{of}.{name}") for name in names})

    received = _Term(text, "previous.z"), _Term(text, "current")
    after = cell.update(text, named(constants, "p"), named(states, "previous"), *received)
    text.lines += [f"s.{name} = {text.name(after[name])}" for name in states]
    emitted = cell.emit(text, named(constants, "p"), named(states, "s"))
    learned = ", ".join(cell.trainable[name].constant for name in cell.learnable) or "none"
    head = f"constants {', '.join(constants)}; learned {learned}"
    return "\n".join([head, *text.lines, f"z = {text.name(emitted)}"])


class _Text:
    """Stands for the operations that a cell may use, and writes down those that it does."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: dict[str, _Term] = {}

    def __getattr__(self, name: str) -> Callable[..., _Term]:
        if name.startswith("_"):
            raise AttributeError(name)

        def called(*given: Any, **named: Any) -> _Term:
            arguments = [*map(self.name, given), *(f"{key}={self.name(value)}" for key, value in named.items())]
            return self.term(f"{name}({', '.join(arguments)})")

        return called

    def term(self, expression: str) -> _Term:
        """The value of an expression, which is written unless it was before."""
        if expression not in self._known:
            # No constant or state can be called like this.
            self._known[expression] = _Term(self, f"%{len(self._known)}")
            self.lines.append(f"{self._known[expression].name} = {expression}")
        return self._known[expression]

    def name(self, value: Any) -> str:
        """What a value is called: a number by its type and all of its digits."""
        if isinstance(value, _Term):
            return value.name
        if isinstance(value, (int, str)):
            return repr(value)
        if isinstance(value, (float, np.generic)) or getattr(value, "shape", None) == ():
            return f"{type(value).__name__} {float(value).hex()}"
        raise TypeError(f"equations with {type(value).__name__} in them have no text")


class _Term:
    """A number that is not known yet.

    Args:
        text: where operations on it are written.
        name: what it is called there.
    """

    def __init__(self, text: _Text, name: str) -> None:
        self.text, self.name = text, name

    def __pos__(self) -> _Term:
        return self

    def __neg__(self) -> _Term:
        return self.text.term(f"-{self.name}")

    def __abs__(self) -> _Term:
        return self.text.term(f"abs({self.name})")


def _operation(symbol: str, *, swapped: bool = False) -> Callable[[_Term, Any], _Term]:
    def method(self: _Term, other: Any) -> _Term:
        left, right = (other, self) if swapped else (self, other)
        return self.text.term(f"{self.text.name(left)} {symbol} {self.text.name(right)}")

    return method


for _name, _symbol in {**_OPERATORS, **_COMPARISONS}.items():
    setattr(_Term, f"__{_name}__", _operation(_symbol))
for _name, _symbol in _OPERATORS.items():
    setattr(_Term, f"__r{_name}__", _operation(_symbol, swapped=True))
