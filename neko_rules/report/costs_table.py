"""Costs table: what rules ask of a machine, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from neko_rules.costs import Costs

if TYPE_CHECKING:
    from rich.table import Table

_PREFIXES = ("", "k", "M", "G", "T")


def costs_table(found: Mapping[str, Costs]) -> Table:
    """A row for every rule: operations, memory, writes and energy of an example and a time step."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for name in ("forward", "learning", "update", "dense", "kept", "writes", "energy"):
        table.add_column(name, justify="right")
    for label, each in found.items():
        every = each.forward + each.learning + each.update
        table.add_row(
            label,
            *(amount(count.total) for count in (each.forward, each.learning, each.update)),
            amount(every.dense),
            "" if each.kept is None else f"{amount(each.kept)}B{' × T' if each.grows else ''}",
            amount(each.writes),
            f"{1e9 * each.energy:.3g} nJ",
        )
    return table


def caption(found: Mapping[str, Costs]) -> list[str]:
    """What the columns are, in lines."""
    first = next(iter(found.values()))
    return [
        "Operations of an example and a time step, without those of zeros and spikes; dense: with them.",
        "kept: bytes of an example from one time step to the next, for learning alone; × T: so many of every step.",
        "writes: changes of parameters in a sequence. energy: of the arithmetic in 32 bits at 45 nm, without memory.",
        f"{first.parameters:,} parameters; spikes in {100 * first.spikes:.2g} % of neurons and time steps.",
    ]


def amount(number: float) -> str:
    """A number to three digits, with the prefix of its thousands behind a space.

    Example:
        >>> amount(0), amount(7.25), amount(1234), amount(5.6e7)
        ('0 ', '7.25 ', '1.23 k', '56.0 M')
    """
    place = 0
    while number >= 999.5 and place < len(_PREFIXES) - 1:
        number, place = number / 1000, place + 1
    digits = f"{number:.3g}" if place == 0 else f"{number:#.3g}".rstrip(".")
    return f"{digits} {_PREFIXES[place]}"
