"""Style: the colours, line forms and sizes that all figures share, and figures that belong to nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Colours that people with any colour vision tell apart, from M. Okabe & K. Ito (2008), "Color universal design"."""

PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)

LINES = ("-", "--", "-.", ":")
"""Line forms; a second cue beside the colour, for print without colours."""

MARKERS = "osD^vP*"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "neko_rules",
}
"""Sizes that stay legible when a panel is printed 8 cm wide; text in SVG stays text."""


class Look(NamedTuple):
    """How one of several curves is drawn."""

    colour: str
    line: str
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by its place: the same names in the same order look alike in every figure.

    Example:
        >>> [look.colour for look in looks(["bptt", "eprop"]).values()]
        ['#0072B2', '#D55E00']
    """
    return {
        name: Look(PALETTE[i % len(PALETTE)], LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def new_figure(panels: int, rows: int = 1, width: float = 3.15, height: float = 2.4) -> Figure:
    """A figure that belongs to nobody else: no global state of pyplot, no window.

    Args:
        panels: panels in a row.
        rows: rows.
        width: inches per panel; 3.15 inches, 8 cm, is a column of a two-column page.
        height: inches per row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, panels)
    return figure


def given_or_new(ax: Axes | None) -> Axes:
    """The axes to draw on: those given, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return new_figure(1).axes[0]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``.png`` (300 dots per inch) and, beside it, as ``.svg``."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=300)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
