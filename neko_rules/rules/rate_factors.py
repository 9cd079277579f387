"""Rate factors: by what some parameters' changes are multiplied; those with 0 stay as they are.

A factor belongs to a parameter (``"hidden.recurrent.weight"``) or to all whose names begin so (``"hidden"``,
``"hidden.recurrent"``); of several the one with the longest name counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neko_rules import arguments
from neko_rules.errors import ArgumentError, nearest

if TYPE_CHECKING:
    from neko_rules.layers.protocol import NetworkProtocol


def rate_factors(network: NetworkProtocol, given: Mapping[str, float] | None) -> dict[str, float]:
    """The factor of every parameter that has one other than 1.

    Args:
        network: whose parameters they are.
        given: factors by beginnings of names.

    Raises:
        ArgumentError: no parameter begins like that, a factor is negative, or nothing has a name yet.

    Example:
        >>> from neko_rules import ALIF
        >>> rate_factors(ALIF(8, 2), {"hidden": 0.0, "hidden.bias": 2.0})
        {'hidden.input.weight': 0.0, 'hidden.recurrent.weight': 0.0, 'hidden.bias': 2.0}
    """
    found = arguments.mapping("rate_factors", given, "{'hidden': 0}")
    if not found:
        return {}
    names = network.names
    if not names:
        network.require_built()  # a library's own model, which has no names before
    beginnings = dict.fromkeys(start for name in names for start in _beginnings(name))
    for start, factor in found.items():
        if start not in beginnings:
            raise ArgumentError(
                "rate_factors must name parameters, or how they begin",
                received=start,
                works=nearest(str(start), beginnings),
            )
        arguments.number(f"the rate factor of {start!r}", factor, at_least=0)
    of_names = {name: [start for start in _beginnings(name) if start in found] for name in names}
    return {name: float(found[of[-1]]) for name, of in of_names.items() if of and found[of[-1]] != 1}


def _beginnings(name: str) -> list[str]:
    """A name up to each of its dots, and whole.

    Example:
        >>> _beginnings("hidden.input.weight")
        ['hidden', 'hidden.input', 'hidden.input.weight']
    """
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
