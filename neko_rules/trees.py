"""Trees: nested dicts and tuples of arrays, taken apart and put together again, so that a scan can carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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
    form: list[Tree] = []

    def flat(values: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        after, outputs = body(rebuilt(carry, iter(values)), rebuilt(inputs, iter(given)))
        form.append(outputs)
        return leaves(ordered(after, carry)), leaves(ordered(outputs, form[0]))

    last, outputs = nx.scan(flat, leaves(carry), leaves(inputs), length)
    return rebuilt(carry, iter(last)), rebuilt(form[0], iter(outputs))


def ordered(tree: Tree, like: Tree) -> Tree:
    """The same tree with the keys of every dict in the order of another tree of that form."""
    if isinstance(like, dict):
        assert set(tree) == set(like), f"a step must keep the names of what it carries: {set(tree) ^ set(like)}"
        return {key: ordered(tree[key], branch) for key, branch in like.items()}
    if isinstance(like, tuple):
        return tuple(ordered(one, other) for one, other in zip(tree, like, strict=True))
    return tree
