"""Tables of comparisons: how near rules come to a reference, and where backends part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.table import Table


class Verified(Protocol):
    """What is read of a verification of backends."""

    @property
    def reference(self) -> str:
        """The backend that all others are compared with."""

    @property
    def steps(self) -> int:
        """Training steps made."""

    @property
    def verdicts(self) -> Sequence[Any]:
        """One per backend and number format."""


COLUMNS = {
    "cosine": ("cosine", "{:.3f}"),
    "spread": ("± over batches", "{:.3f}"),
    "angle": ("angle (°)", "{:.1f}"),
    "norm_ratio": ("norm ratio", "{:.3f}"),
    "relative_error": ("relative error", "{:.3f}"),
    "sign_agreement": ("same sign (%)", "{:.1%}"),
    "bias": ("bias", "{:+.1e}"),
    "bias_error": ("± s.e.", "{:.1e}"),
    "std": ("std of deviation", "{:.1e}"),
    "bias_share": ("bias² of deviation² (%)", "{:.1%}"),
}
"""Columns of the table: heading and form of the number."""


def comparison_table(rows: Sequence[Mapping[str, Any]], reference: str, batches: int, quantity: str) -> Table:
    """Rule × parameter, figures as means over the batches.

    Args:
        rows: as ``Comparison.summary`` gives them.
        reference: name of the rule that all are compared with.
        batches: how many there were.
        quantity: ``"gradient"`` or ``"change"``.

    Example:
        >>> row = {"rule": "random", "parameter": "all", "cosine": 0.5, "angle": 60.0}
        >>> comparison_table([row], "bptt", 3, "gradient").row_count
        1
    """
    from neko_rules.report.split_table import SplitTable

    title = f"{quantity} of each rule compared with that of {reference}, means over {batches} batches"
    table = SplitTable(names=2, grouped=True, title=title)
    for heading in ("rule", "parameter"):
        table.add_column(heading, no_wrap=True)
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    rule = ""
    for row in rows:
        if rule and row["rule"] != rule:
            table.add_section()
        table.add_row(row["rule"] if row["rule"] != rule else "", row["parameter"], *cells(row))
        rule = row["rule"]
    return table


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row's figures as text; nothing where there is none.

    Example:
        >>> cells({"cosine": 0.5, "angle": 60.0})[:3]
        ['0.500', '', '60.0']
    """
    square = row.get("squared_bias", math.nan) + row.get("variance", math.nan)
    share = row.get("squared_bias", math.nan) / square if square > 0 else math.nan
    found = {**row, "bias_share": share}
    return [
        form.format(found[name]).rstrip("%")
        if isinstance(found.get(name), float) and math.isfinite(found[name])
        else ""
        for name, (_, form) in COLUMNS.items()
    ]


def verification_table(found: Verified) -> Table:
    """Largest relative differences by backend and number format, and the verdict.

    Args:
        found: a ``neko_rules.testing.Verification``.
    """
    from rich.table import Table
    from rich.text import Text

    title = f"{found.steps} steps, compared with {found.reference}: largest relative difference"
    table = Table(title=title, title_justify="left", pad_edge=False, box=None, padding=(0, 3, 0, 0))
    for heading in ("backend", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("loss", "gradient", "weight"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for each in found.verdicts:
        figures = [f"{each.largest[name]:.1e}" for name in ("loss", "gradient", "weight")]
        if each.dtype == "float32":
            verdict = Text("reported only", style="dim")
        elif each.parting is None:
            verdict = Text("same numbers", style="green")
        else:
            verdict = Text(str(each.parting), style="yellow" if each.agrees else "bold red")
        table.add_row(each.backend, each.dtype, *figures, verdict)
    return table
