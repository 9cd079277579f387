"""Figures: seconds per step of every contender by suite, and how they grow with the size of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from neko_rules.report.style import BLACK, BLUE, STYLE, VERMILION, looks
from speed.suites import QUOTED
from speed.tables import Record, Row, timed

GREY = "#8c8c8c"
MARKERS = {1: "o", 2: "D"}
"""By number of threads; ``"s"`` for any other."""


def plain_number(value: float, _: Any = None) -> str:
    """A tick of a logarithmic axis without an exponent.

    Example:
        >>> plain_number(1000.0), plain_number(0.5)
        ('1000', '0.5')
    """
    return f"{value:g}"


def colour(row: Row) -> str:
    """Blue for this package, black for a bound, grey for a peer."""
    return GREY if row["peer"] else BLUE if row["label"].startswith("neko") else BLACK


def by_suite(records: Sequence[Record]) -> Figure:
    """A panel for each suite: median and quartiles of every contender, the fastest at the top, by threads."""
    names = list(dict.fromkeys(record["suite"] for record in records))
    found = {name: {r["threads"]: r for r in records if r["suite"] == name} for name in names}
    tallest = [max(len(timed(record["rows"])) for record in found[name].values()) for name in names]
    columns = min(2, len(names))
    rows = [names[start : start + columns] for start in range(0, len(names), columns)]
    heights = [max(tallest[names.index(name)] for name in row) for row in rows]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(3.6 * columns, 0.6 * len(rows) + 0.145 * sum(heights)), layout="constrained")
        axes = drawn.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for place, ax in enumerate(axes.flat):
            if place >= len(names):
                ax.set_axis_off()
                continue
            panel(ax, found[names[place]])
        handles = [
            matplotlib.lines.Line2D([], [], color=BLACK, marker=MARKERS.get(threads, "s"), linestyle="", label=label)
            for threads in sorted({record["threads"] for record in records})
            for label in [f"{threads} thread" if threads == 1 else f"{threads} threads"]
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return drawn


def panel(ax: Any, records: Mapping[int, Record]) -> None:
    """The contenders of one suite, ordered as with the fewest threads."""
    order = [row["label"] for row in timed(records[min(records)]["rows"])]
    labels = {label: place for place, label in enumerate(order)}
    for threads, record in records.items():
        for row in timed(record["rows"]):
            place = labels.setdefault(row["label"], len(labels))
            low, middle, high = (1e3 * row[key] for key in ("low", "median", "high"))
            ax.plot([low, high], [place, place], color=colour(row), linewidth=1)
            face = colour(row) if threads == min(records) else "white"
            ax.plot(middle, place, MARKERS.get(threads, "s"), color=colour(row), markerfacecolor=face, markersize=3.5)
    name = next(iter(records.values()))["suite"]
    if name in QUOTED:
        labels["mlGeNN (quoted)"] = len(labels)
        ax.plot(1e3 * QUOTED[name], labels["mlGeNN (quoted)"], "x", color=VERMILION, markersize=4)
    ax.set_yticks(list(labels.values()), list(labels), fontsize=6)
    for text in ax.get_yticklabels():
        text.set_color(BLUE if text.get_text().startswith("neko") else BLACK)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
    # Less than a decade has too few powers of ten to be read by.
    low, high = ax.get_xlim()
    ax.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0) if high < 20 * low else tuple(range(2, 10))))
    ax.xaxis.set_minor_formatter(FuncFormatter(plain_number if high < 20 * low else lambda value, _: ""))
    ax.grid(axis="x", linewidth=0.3)
    ax.set_title(next(iter(records.values()))["title"].replace(", T ", "\nT ", 1), fontsize=6.2, loc="left")
    ax.tick_params(axis="x", which="both", labelsize=5.5)
    ax.set_xlabel("ms per training step", fontsize=7)


def by_size(curves: Mapping[str, Mapping[str, Sequence[tuple[float, Row]]]]) -> Figure:
    """Two panels for each axis: seconds and peak memory by contender.

    Args:
        curves: axis → label → (value on the axis, row).
    """
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(max(5.0, 1.9 * len(curves)), 4.4), layout="constrained")
        axes = drawn.subplots(2, len(curves), squeeze=False, sharey="row")
        shown = looks(dict.fromkeys(label for lines in curves.values() for label in lines))
        for column, (axis, lines) in enumerate(curves.items()):
            for row, key, factor in ((0, "median", 1e3), (1, "peak_bytes", 1e-6)):
                ax = axes[row, column]
                for label, points in lines.items():
                    look = shown[label]
                    values = [factor * each[key] for _, each in points]
                    ax.plot(
                        [value for value, _ in points],
                        values,
                        look.line,
                        color=look.colour,
                        marker=look.marker,
                        markersize=3,
                        linewidth=1,
                        label=label,
                    )
                ax.set_xscale("log")
                ax.set_yscale("log")
                ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
                ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
                ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
                ax.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
                ax.yaxis.set_minor_formatter(FuncFormatter(plain_number))
                ax.set_xticks([value for value, _ in max(lines.values(), key=len)])
                ax.set_xlabel(axis if row else "")
            axes[0, 0].set_ylabel("ms per training step")
            axes[1, 0].set_ylabel("peak memory (MB)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return drawn
