"""Cycles: which connections of a graph act one step later, where the graph itself does not say.

NIR has no time step, and a cycle of its graph no place at which one begins. Here one connection of every cycle takes a
step: the one by which a walk from the input, deeper before wider, comes back to where it has come through.
"""

from __future__ import annotations

from collections.abc import Sequence


def closing(edges: Sequence[tuple[str, str]], first: str) -> set[int]:
    """The places of the edges that close a cycle on a walk that takes them in the order given.

    Args:
        edges: (source, target).
        first: where the walk begins; what it does not reach is taken up afterwards.

    Example:
        >>> closing([("input", "a"), ("a", "a"), ("a", "b"), ("b", "a")], "input")
        {1, 3}
    """
    leaving: dict[str, list[tuple[int, str]]] = {first: []}
    for place, (source, target) in enumerate(edges):
        leaving.setdefault(source, []).append((place, target))
        leaving.setdefault(target, [])
    found: set[int] = set()
    done: set[str] = set()
    for start in leaving:
        if start in done:
            continue
        way, waiting = [start], {start: iter(leaving[start])}
        while way:
            place, target = next(waiting[way[-1]], (-1, ""))
            if place < 0:
                done.add(way[-1])
                del waiting[way.pop()]
            elif target in waiting:
                found.add(place)
            elif target not in done:
                way.append(target)
                waiting[target] = iter(leaving[target])
    return found


def to_be_said(edges: Sequence[tuple[str, str]], late: Sequence[bool], first: str) -> set[int]:
    """The places of late edges that the walk would take for others, so that a delay has to be written.

    Args:
        edges: (source, target), those that are not late without a cycle among them.
        late: of every edge whether it takes a step.
        first: where the walk begins.

    Example: of a cycle of two, the walk takes the second for late.

        >>> cycle = [("input", "a"), ("a", "b"), ("b", "a")]
        >>> to_be_said(cycle, [False, False, True], "input"), to_be_said(cycle, [False, True, False], "input")
        (set(), {1})
    """
    said: set[int] = set()
    while True:
        left = [place for place in range(len(edges)) if place not in said]
        closed = {left[place] for place in closing([edges[place] for place in left], first)}
        missed = {place for place in left if late[place] and place not in closed}
        if not missed:
            # A cycle that an edge without delay closes has a late one on the way, which would have been missed.
            return said
        said |= missed
