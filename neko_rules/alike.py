"""Alike: parts of a model are equal if all that they hold is, whatever their class says of itself.

What is compiled for a part is kept for others that are equal to it. A subclass of a dataclass that is none itself would
be compared by the fields of its base alone: two of a user's that differ in what it has beside them would share a loop.
"""

from __future__ import annotations

from typing import Any


class Alike:
    """Objects of one class are equal if all their attributes are; those that cannot be compared are by identity.

    Example:
        >>> from neko_rules.optimizers import SGD
        >>> class Scaled(SGD):
        ...     def __init__(self, factor: float) -> None:
        ...         super().__init__(0.1)
        ...         object.__setattr__(self, "factor", factor)
        >>> Scaled(2.0) == Scaled(2.0), Scaled(2.0) == Scaled(3.0), hash(Scaled(2.0)) == hash(Scaled(2.0))
        (True, False, True)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Before a decorator sees the class: a dataclass keeps what is there.
        own = vars(cls)
        if "__eq__" not in own and "__hash__" not in own:
            cls.__eq__, cls.__hash__ = Alike.__eq__, Alike.__hash__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        held, others = vars(self), vars(other)
        return self is other or (
            held.keys() == others.keys() and all(_same(value, others[name]) for name, value in held.items())
        )

    def __hash__(self) -> int:
        held = vars(self).values()
        try:
            return hash((type(self), *held))
        except TypeError:
            return hash((type(self), *(value if _comparable(value) else id(value) for value in held)))


def _same(value: Any, other: Any) -> bool:
    return value is other or (_comparable(value) and _comparable(other) and bool(value == other))


def _comparable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
