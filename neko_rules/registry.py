"""Registries: every part that a user can name in Python or YAML, with a line on what it is.

A part is named by a string (``"adam"``), a mapping (``{"name": "adam", "learning_rate": 2e-3}``) or given as an
object; a mapping's other keys are the arguments of the class, so YAML and Python accept exactly the same things.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from neko_rules.errors import ArgumentError, instead, nearest

Part = TypeVar("Part")
Maker = TypeVar("Maker", bound=Callable[..., Any])


def folded(name: str) -> str:
    """A name without case, hyphens and underscores, so that ``EProp``, ``e-prop`` and ``eprop`` are one.

    Example:
        >>> folded("Categorical_CrossEntropy")
        'categoricalcrossentropy'
    """
    return name.replace("-", "").replace("_", "").replace(" ", "").lower()


def construct(maker: Callable[..., Part], label: str, arguments: Mapping[str, Any], *positional: Any) -> Part:
    """Call a class by argument names, refusing names that it does not have with the nearest one it has.

    Raises:
        ArgumentError: an argument is unknown or missing.
    """
    parameters = inspect.signature(maker).parameters
    accepted = list(parameters)[len(positional) :]
    for key in arguments:
        if key not in accepted:
            raise ArgumentError(f"{label} has no argument {key!r}", works=instead(str(key), accepted))
    for key in accepted:
        if key not in arguments and parameters[key].default is inspect.Parameter.empty:
            raise ArgumentError(f"{label} needs the argument {key!r}")
    return maker(*positional, **arguments)


def create(cls: type[Part], value: Any) -> Part:
    """An instance of a class that is not registered: the value itself, or made from a mapping of its arguments.

    Example:
        >>> from neko_rules.layers.models import Population
        >>> create(Population, {"cell": "lif", "size": 3}).size
        3
    """
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return construct(cls, _article(cls.__name__), value)
    rule = f"{_article(cls.__name__)} must be given as one, or as a mapping of its arguments"
    raise ArgumentError(rule, received=value)


class Registry(Generic[Part]):
    """Named parts of one kind.

    Args:
        kind: what the parts are, in the singular, for error messages ("optimizer").
        base: the class that every part is an instance of.

    Example:
        >>> class Shape: "A shape."
        >>> shapes = Registry("shape", Shape)
        >>> @shapes.register("disc")
        ... class Disc(Shape):
        ...     "A filled circle."
        ...     def __init__(self, radius: float = 1.0) -> None:
        ...         self.radius = radius
        >>> shapes.resolve({"name": "Disc", "radius": 2.0}).radius
        2.0
        >>> shapes.resolve({"name": "disc", "radios": 2.0})
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: disc has no argument 'radios'; did you mean 'radius'?
    """

    def __init__(self, kind: str, base: type[Part]) -> None:
        self.kind = kind
        self.base = base
        self._makers: dict[str, Callable[..., Part]] = {}
        self._spellings: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[Maker], Maker]:
        """Make a class (or a function that returns a part) known by ``name`` and further spellings."""

        def add(maker: Maker) -> Maker:
            for spelling in (name, *aliases, maker.__name__):
                taken = self._spellings.setdefault(folded(spelling), name)
                if taken != name:
                    raise ArgumentError(f"{self.kind} names must be unique", received=spelling)
            self._makers[name] = maker
            return maker

        return add

    @property
    def _one(self) -> str:
        return _article(self.kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __contains__(self, name: str) -> bool:
        return folded(name) in self._spellings

    def __getitem__(self, name: str) -> Callable[..., Part]:
        """The class of that name, whichever of its spellings is used."""
        key = self._spellings.get(folded(name)) if isinstance(name, str) else None
        if key is None:
            raise ArgumentError(f"unknown {self.kind}", received=name, works=nearest(str(name), list(self._makers)))
        return self._makers[key]

    def canonical(self, name: str) -> str:
        """The first spelling under which a part was registered."""
        self[name]
        return self._spellings[folded(name)]

    def describe(self) -> list[tuple[str, str]]:
        """Name and first docstring line of every part, in the order of registration."""
        return [(name, (inspect.getdoc(maker) or "").split("\n")[0]) for name, maker in self._makers.items()]

    def create(self, name: str, arguments: Mapping[str, Any], *positional: Any) -> Part:
        """Call the class of that name, refusing arguments it does not have with the nearest one it has."""
        return construct(self[name], self.canonical(name), arguments, *positional)

    def resolve(self, spec: Any) -> Part:
        """Turn a name, a mapping with a ``name``, or a part itself into a part."""
        if isinstance(spec, self.base):
            return spec
        if isinstance(spec, str):
            return self.create(spec, {})
        if isinstance(spec, Mapping):
            if not isinstance(spec.get("name"), str):
                raise ArgumentError(f"{self._one} given as a mapping needs a 'name'", received=dict(spec))
            return self.create(spec["name"], {key: value for key, value in spec.items() if key != "name"})
        raise ArgumentError(
            f"{self._one} must be a name, a mapping with a name, or {_article(self.base.__name__)}",
            received=spec,
            works="known: " + ", ".join(repr(name) for name in self),
        )


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
