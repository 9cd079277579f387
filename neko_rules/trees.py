"""Trees: nested dicts and tuples of arrays, taken apart and put together again, so that a scan can carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from neko_rules.backend import Arrays, Backend

Tree = Any
"""An array, or a dict or tuple of trees."""


def leaves(tree: Tree) -> tuple[Any, ...]:
    """The arrays of a tree, in its own order.

    Example:
        >>> leaves({"b": 1, "a": (2, {"c": 3})})
        (1, 2, 3)
    """
    if isinstance(tree, dict):
        return tuple(leaf for branch in tree.values() for leaf in leaves(branch))
    if isinstance(tree, tuple):
        return tuple(leaf for branch in tree for leaf in leaves(branch))
    return (tree,)


def rebuilt(tree: Tree, arrays: Iterator[Any]) -> Tree:
    """A tree of the same form with other arrays.

    Example:
        >>> rebuilt({"b": 1, "a": (2, {"c": 3})}, iter("xyz"))
        {'b': 'x', 'a': ('y', {'c': 'z'})}
    """
    if isinstance(tree, dict):
        return {key: rebuilt(branch, arrays) for key, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(rebuilt(branch, arrays) for branch in tree)
    return next(arrays)


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """A tree with a function applied to every array.

    Example:
        >>> mapped(lambda x: 2 * x, {"a": (1, 2)})
        {'a': (2, 4)}
    """
    return rebuilt(tree, iter([function(leaf) for leaf in leaves(tree)]))


def scan(
    nx: Backend, body: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, inputs: Tree, length: int
) -> tuple[Tree, Tree]:
    """A scan whose carry, inputs and outputs are trees; a dict that comes back in another order is put in order.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> step = lambda carry, x: ({"sum": carry["sum"] + x["x"]}, {"seen": x["x"]})
        >>> total, seen = scan(get_backend("numpy"), step, {"sum": np.zeros(())}, {"x": np.arange(4.0)}, 4)
        >>> float(total["sum"]), seen["seen"].tolist()
        (6.0, [0.0, 1.0, 2.0, 3.0])
    """
    carried, given_to = form_of(form(carry)), form_of(form(inputs))
    seen: list[Form] = []

    def flat(values: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        after, outputs = body(carried.built(values), given_to.built(given))
        if not seen:
            ordered(after, carry)
            seen.append(form_of(form(outputs)))
        return carried.taken(after), seen[0].taken(outputs)

    last, outputs = nx.scan(flat, carried.taken(carry), given_to.taken(inputs), length)
    return carried.built(last), seen[0].built(outputs)


class Form(NamedTuple):
    """How to take trees of one form apart and to put them together, as two functions without a recursion.

    A scan in Python does both at every step, and walking down a tree of thirty arrays takes longer than a product of
    small matrices.

    Attributes:
        taken: a tree to its arrays, in the order of the first tree of this form.
        built: arrays to a tree.
    """

    taken: Callable[[Tree], tuple[Any, ...]]
    built: Callable[[Any], Tree]


def form(tree: Tree) -> Any:
    """What two trees have in common that differ in their arrays alone; it can be hashed.

    Example:
        >>> form({"a": (1, 2)}) == form({"a": ("x", "y")}) != form({"a": (1,)})
        True
    """
    if isinstance(tree, dict):
        return dict, tuple((key, form(branch)) for key, branch in tree.items())
    if isinstance(tree, tuple):
        return tuple, tuple((place, form(branch)) for place, branch in enumerate(tree))
    return None


@lru_cache(maxsize=512)
def form_of(form: Any) -> Form:
    """The two functions of a form, written out as expressions.

    Example:
        >>> pair = form_of(form({"b": 1, "a": (2, {"c": 3})}))
        >>> pair.taken({"a": ("y", {"c": "z"}), "b": "x"})
        ('x', 'y', 'z')
        >>> pair.built("xyz")
        {'b': 'x', 'a': ('y', {'c': 'z'})}
    """
    places: list[str] = []

    def written(form: Any, place: str) -> str:
        if form is None:
            places.append(place)
            return f"arrays[{len(places) - 1}]"
        kind, branches = form
        parts = [(key, written(branch, f"{place}[{key!r}]")) for key, branch in branches]
        if kind is dict:
            return "{" + ", ".join(f"{key!r}: {part}" for key, part in parts) + "}"
        return "(" + "".join(f"{part}, " for _, part in parts) + ")"

    building = written(form, "tree")
    taking = "(" + "".join(f"{place}, " for place in places) + ")"
    return Form(eval(f"lambda tree: {taking}"), eval(f"lambda arrays: {building}"))


def ordered(tree: Tree, like: Tree) -> Tree:
    """The same tree with the keys of every dict in the order of another tree of that form."""
    if isinstance(like, dict):
        assert set(tree) == set(like), f"a step must keep the names of what it carries: {set(tree) ^ set(like)}"
        return {key: ordered(tree[key], branch) for key, branch in like.items()}
    if isinstance(like, tuple):
        return tuple(ordered(one, other) for one, other in zip(tree, like, strict=True))
    return tree


@dataclass(frozen=True, eq=False)
class OnHost:
    """A tree of NumPy arrays that stands for one of a backend's own until somebody asks for these.

    Args:
        tree: the arrays, which nothing changes.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> held = OnHost({"w": np.ones(2)})
        >>> made(get_backend("numpy"), held)["w"].tolist()
        [1.0, 1.0]
    """

    tree: Tree
    _made: list[Any] = field(default_factory=list, repr=False)

    def of(self, nx: Backend) -> Tree:
        """The same in a backend's arrays, made once."""
        if not self._made:
            self._made.append(mapped(nx.asarray, self.tree))
        return self._made[0]


class Moving(OnHost):
    """A tree of arrays that go on changing where they lie: whoever asks for it is given copies.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> held = Moving({"w": np.ones(2)})
        >>> then = made(get_backend("numpy"), held)
        >>> held.tree["w"][:] = 2
        >>> then["w"].tolist(), made(get_backend("numpy"), held)["w"].tolist()
        ([1.0, 1.0], [2.0, 2.0])
    """

    def of(self, nx: Backend) -> Tree:
        """Copies, as they are now."""
        return mapped(lambda array: nx.asarray(np.array(array)), self.tree)


def still(nx: Backend, tree: Tree) -> Tree:
    """A tree that nothing changes: the same, or copies of one that is moving."""
    return tree.of(nx) if isinstance(tree, Moving) else tree


def made(nx: Backend, tree: Tree) -> Tree:
    """A tree of a backend's arrays, or the one that NumPy's stand for."""
    return tree.of(nx) if isinstance(tree, OnHost) else tree
