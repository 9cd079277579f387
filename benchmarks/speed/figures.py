"""Figures: seconds per step of every contender by suite, and how they grow with the size of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neko_rules.report.style import BLACK, BLUE, STYLE, VERMILION, looks
from speed.suites import QUOTED
from speed.tables import Record, Row, timed

GREY = "#8c8c8c"
MARKERS = {"numpy": "o", "torch": "s", "jax": "D", "tensorflow": "^"}
"""By the backend of this package."""

OTHER = "o"

AXES = {
    "neurons": "Neurons",
    "T": "Time steps",
    "batch": "Batch",
    "spikes": "Spikes per neuron\nand time step",
    "threads": "Threads",
}
"""What is changed, as the figure calls it."""


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


def contender(row: Row) -> tuple[str, str]:
    """What a contender is called in the figure, and its backend: this package on several backends is one contender.

    Example:
        >>> contender({"label": "neko jax by XLA, e-prop"}), contender({"label": "norse, BPTT"})
        (('neko by XLA, e-prop', 'jax'), ('norse, BPTT', ''))
    """
    label: str = row["label"]
    backend = next((name for name in MARKERS if label.startswith(f"neko {name}")), "")
    return (label.replace(f"neko {backend}", "neko", 1) if backend else label), backend


def by_suite(records: Sequence[Record]) -> Figure:
    """A panel for each suite: median and quartiles of every contender, the fastest at the top."""
    names = list(dict.fromkeys(record["suite"] for record in records))
    found = {name: {r["threads"]: r for r in records if r["suite"] == name} for name in names}
    tallest = [max(len(_order(record)) for record in found[name].values()) + (name in QUOTED) for name in names]
    columns = min(2, len(names))
    rows = [names[start : start + columns] for start in range(0, len(names), columns)]
    heights = [max(tallest[names.index(name)] for name in row) for row in rows]
    backends = {contender(row)[1] for record in records for row in record["rows"]}
    threads = sorted({record["threads"] for record in records})
    with matplotlib.rc_context(STYLE):
        size = (3.7 * columns, 0.5 + 0.62 * len(rows) + 0.125 * sum(heights))
        drawn = Figure(figsize=size, layout="constrained")
        axes = drawn.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for place, ax in enumerate(axes.flat):
            if place >= len(names):
                ax.set_axis_off()
                continue
            panel(ax, found[names[place]])
        marks = [(f"neko on {name}", MARKERS[name], BLUE, BLUE) for name in MARKERS if name in backends]
        marks += [("peer", OTHER, GREY, GREY)] if any(r["peer"] for each in records for r in each["rows"]) else []
        if len(threads) > 1:
            words = [f"{number} thread{'s' if number > 1 else ''}" for number in threads]
            marks += [(words[0], "o", BLACK, BLACK), *((word, "o", BLACK, "white") for word in words[1:])]
        handles = [
            Line2D([], [], color=edge, marker=marker, markerfacecolor=face, markersize=4, linestyle="", label=label)
            for label, marker, edge, face in marks
        ]
        drawn.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=7)
    return drawn


def _order(record: Record) -> list[str]:
    return list(dict.fromkeys(contender(row)[0] for row in timed(record["rows"])))


def panel(ax: Axes, records: Mapping[int, Record]) -> None:
    """The contenders of one suite, ordered as with the fewest threads, which are filled."""
    fewest = min(records)
    labels = {label: place for place, label in enumerate(_order(records[fewest]))}
    for threads, record in records.items():
        for row in timed(record["rows"]):
            label, backend = contender(row)
            place = labels.setdefault(label, len(labels))
            low, middle, high = (1e3 * row[key] for key in ("low", "median", "high"))
            face = colour(row) if threads == fewest else "white"
            ax.plot([low, high], [place, place], color=colour(row), linewidth=1)
            ax.plot(
                middle,
                place,
                MARKERS.get(backend, OTHER),
                color=colour(row),
                markerfacecolor=face,
                markersize=3.2,
                markeredgewidth=0.7,
            )
    first = records[fewest]
    if first["suite"] in QUOTED:
        labels["mlGeNN (quoted)"] = len(labels)
        ax.plot(1e3 * QUOTED[first["suite"]], labels["mlGeNN (quoted)"], "x", color=VERMILION, markersize=4)
    ax.set_yticks(list(labels.values()), list(labels), fontsize=6)
    ax.tick_params(axis="y", length=0, pad=2)
    for text in ax.get_yticklabels():
        text.set_color(BLUE if text.get_text().startswith("neko") else BLACK)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    # Powers of ten alone are too few to read by on few decades, and more are too many on several.
    spans = ((3000, (1.0,)), (100, (1.0, 3.0)), (4, (1.0, 2.0, 5.0)), (0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    subs = next(found for span, found in spans if high > span * low)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", linewidth=0.3)
    ax.set_title(first["title"].replace(", T ", "\nT ", 1), fontsize=7)
    ax.tick_params(axis="x", which="both", labelsize=6)
    ax.set_xlabel("ms per training step", fontsize=7)


def by_size(curves: Mapping[str, Mapping[str, Sequence[tuple[float, Row]]]]) -> Figure:
    """Two panels for each axis: time per step and peak memory by contender.

    Memory is the most that a process has ever held: interpreter, libraries and what was compiled in it included. A
    process that had to compile therefore shows more than one that found it done, whatever the size of its network.

    Args:
        curves: axis → label → (value on the axis, row).
    """
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(max(5.0, 1.9 * len(curves)), 4.9), layout="constrained")
        axes = drawn.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row")
        shown = looks(dict.fromkeys(label for lines in curves.values() for label in lines))
        for column, (axis, lines) in enumerate(curves.items()):
            for row, (key, factor) in enumerate((("median", 1e3), ("peak_bytes", 1e-6))):
                ax = axes[row, column]
                for label, points in lines.items():
                    look = shown[label]
                    ax.plot(
                        [value for value, _ in points],
                        [factor * each[key] for _, each in points],
                        look.line,
                        color=look.colour,
                        marker=look.marker,
                        markersize=3.5,
                        linewidth=1,
                        label=label,
                    )
                ax.set_xscale("log")
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
                ax.yaxis.set_minor_formatter(NullFormatter())
                ax.grid(axis="y", linewidth=0.3)
            values = sorted({value for points in lines.values() for value, _ in points})
            ax.set_xticks(values, [plain_number(value) for value in values])
            ax.minorticks_off()
            ax.set_xlabel(AXES.get(axis, axis))
        axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
        axes[0, 0].set_ylabel("ms per training step")
        axes[1, 0].set_ylabel("Peak memory of the process,\nlibraries and compilation\nincluded (MB)")
        handles = {
            label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        drawn.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, frameon=False)
    return drawn
