"""HTML report: one file that needs nothing else, with charts that tell their values and rules that can be hidden.

Charts are drawn by the page's own script from the numbers that are in it; without a script the tables remain. Nothing
is loaded from anywhere.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from neko_rules.report.comparison_figures import running_mean
from neko_rules.report.comparison_table import COLUMNS, Verified, cells
from neko_rules.report.learning_curve import VALIDATION, axis_label, quantities, values
from neko_rules.report.readable import figure as readable

POINTS = 400
"""Points of a curve in the file; longer ones are averaged."""

DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Dash patterns of the layers of one rule."""


@dataclass
class Page:
    """A report while it is put together.

    Args:
        title: its heading.
        subtitle: the line below.

    Example:
        >>> page = Page("mnist", "finished")
        >>> page.section("Curves", page.chart("runs", "Epoch", "Loss", [curve("training", [1, 2], [2.0, 1.0])]))
        >>> text = page.text()
        >>> text.startswith("<!doctype html>"), "http" in text
        (True, False)
    """

    title: str
    subtitle: str = ""
    sections: list[str] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)

    def section(self, heading: str, *parts: str) -> None:
        """Add a section of HTML."""
        self.sections.append(f"<section><h2>{escaped(heading)}</h2>\n{''.join(parts)}</section>")

    def chart(
        self,
        scope: str,
        x: str,
        y: str,
        series: Sequence[Mapping[str, Any]],
        kind: str = "lines",
        height: int = 230,
        extent: tuple[float, float, float, float] | None = None,
    ) -> str:
        """A chart whose series are those of ``curve``; series of one scope and group are hidden together.

        Args:
            scope: charts, legends and tables of one scope belong together.
            x: label of the horizontal axis, unit included.
            y: label of the vertical axis, unit included.
            series: what is drawn.
            kind: ``"lines"`` or ``"points"``.
            height: in pixels.
            extent: first and last x, first and last y that are shown; by default those of the series.
        """
        chart = {"scope": scope, "x": x, "y": y, "series": list(series), "kind": kind, "height": height}
        self.charts.append(chart if extent is None else {**chart, "extent": list(extent)})
        number = len(self.charts) - 1
        return f'<figure data-chart="{number}"><figcaption>{escaped(y)}</figcaption><div class="plot"></div></figure>\n'

    def text(self) -> str:
        """The whole file."""
        files = resources.files("neko_rules.report.page")
        style, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
        # "<" would end the script early where a name holds "</script>".
        numbers = json.dumps(self.charts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
        body = "\n".join(self.sections)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escaped(self.title)}</title>\n<style>\n{style}</style></head>\n<body><main>\n"
            f'<header><div><h1>{escaped(self.title)}</h1><p class="soft">{escaped(self.subtitle)}</p></div>'
            '<button id="theme" type="button">Dark</button></header>\n'
            f"{body}\n</main>\n"
            f'<script type="application/json" id="charts">{numbers}</script>\n'
            f"<script>\n{script}</script></body></html>\n"
        )


def escaped(text: object) -> str:
    """Text that is text in HTML, whatever it holds.

    Example:
        >>> escaped("<b>&")
        '&lt;b&gt;&amp;'
    """
    return html.escape(str(text), quote=True)


def curve(name: str, x: Sequence[float], y: Sequence[float], group: str = "", dash: str = "") -> dict[str, Any]:
    """A series of a chart; NaN becomes a gap, and a long one is averaged to 400 points.

    Example:
        >>> curve("loss", [1, 2], [0.5, float("nan")])
        {'name': 'loss', 'group': 'loss', 'x': [1.0, 2.0], 'y': [0.5, None], 'dash': ''}
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    step = -(-len(xs) // POINTS)
    if step > 1:
        ys = running_mean(ys, step)[step // 2 :: step]
        xs = xs[step // 2 :: step]
    found = [float(f"{value:.6g}") if math.isfinite(value) else None for value in ys]
    return {"name": name, "group": group or name, "x": [float(value) for value in xs], "y": found, "dash": dash}


def table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], rules: Sequence[str] = (), numbers: int = 0
) -> str:
    """A table; its columns from ``numbers`` on are figures, and a row belongs to the rule of its place.

    Of keys with values, those that have none are left out. A table that is too wide scrolls.

    Example:
        >>> print(table(["key", "value"], [["seed", 3], ["posterior", ""]]))
        <div class="scroll"><table class="words"><tr><th>key</th><th>value</th></tr>
        <tr><td>seed</td><td>3</td></tr>
        </table></div>
    """
    figures = [' class="number"' if numbers and place >= numbers else "" for place in range(len(headings))]
    head = "".join(f"<th{kind}>{escaped(each)}</th>" for each, kind in zip(headings, figures, strict=True))
    pairs = len(headings) == 2 and not numbers
    lines = []
    for place, row in enumerate(rows):
        if pairs and row[1] in ("", None):
            continue
        belongs = f' data-rule="{escaped(rules[place])}"' if rules else ""
        cells_of_row = "".join(f"<td{kind}>{escaped(each)}</td>" for each, kind in zip(row, figures, strict=True))
        lines.append(f"<tr{belongs}>{cells_of_row}</tr>\n")
    kind = ' class="words"' if pairs else ""
    return f'<div class="scroll"><table{kind}><tr>{head}</tr>\n{"".join(lines)}</table></div>'


def legend(scope: str) -> str:
    """Buttons that hide and show the rules of a scope."""
    return f'<div class="legend" data-scope="{escaped(scope)}"></div>\n'


def folded(heading: str, text: str) -> str:
    """Text that is shown when it is asked for."""
    return f"<details><summary>{escaped(heading)}</summary><pre>{escaped(text)}</pre></details>\n"


def learning_section(page: Page, records: Sequence[Mapping[str, Any]], loss: str = "") -> None:
    """Curves of training and validation over the epochs, and the last figures."""
    charts, rows = [], []
    epochs = [float(record["epoch"]) for record in records]
    for name in quantities(records):
        label, factor = axis_label(name, loss)
        series = []
        for kind, key, dash in (("training", name, ""), ("validation", VALIDATION + name, DASHES[1])):
            found = [factor * value for value in values(records, key)]
            if any(math.isfinite(value) for value in found):
                series.append(curve(kind, epochs, found, dash=dash))
        charts.append(page.chart("learning", "Epoch", label, series))
        last = [_last(factor, records, key) for key in (name, VALIDATION + name)]
        rows.append([label, *last])
    page.section(
        "Learning",
        legend("learning"),
        f'<div class="charts">{"".join(charts)}</div>\n',
        table(["after the last epoch", "training", "validation"], rows, numbers=1),
    )


def _last(factor: float, records: Sequence[Mapping[str, Any]], key: str) -> str:
    value = records[-1].get(key)
    return "" if value is None else readable(factor * float(value))


def comparison_section(page: Page, result: Any) -> None:
    """Cosine, angle and norm ratio of every rule over the batches, by layer, and the table.

    Args:
        page: the report, whose title says from now on that it is one of a comparison.
        result: a ``Comparison``.
    """
    several = "1 rule" if len(result.rules) == 1 else f"{len(result.rules)} rules"
    page.title = f"{page.title}: {several} compared with {result.reference}"
    wanted = (
        ("cosine", f"Cosine to {result.reference}"),
        ("angle", f"Angle to {result.reference} (°)"),
        ("norm_ratio", f"Norm / norm of {result.reference}"),
        ("mean_absolute", "Mean absolute deviation"),
    )
    charts = []
    for name, label in wanted:
        series = [
            curve(f"{rule}, {layer}", result.batches, result.statistic(rule, layer, name), rule, DASHES[place % 4])
            for rule in result.rules
            for place, layer in enumerate(result.layers)
        ]
        charts.append(page.chart("comparison", "Batch", f"{label}, by layer", series, height=260))
    parts = []
    for quantity in ("gradient", "change"):
        rows = result.summary(quantity)
        headings = ["rule", "parameter", *(heading for heading, _ in COLUMNS.values())]
        lines = [[row["rule"], row["parameter"], *cells(row)] for row in rows]
        words = f"<h3>{quantity.capitalize()}, means over {len(result.batches)} batches</h3>"
        parts.append(words + table(headings, lines, [row["rule"] for row in rows], numbers=2))
    lines_by_layer = ", ".join(
        f"{layer} {['solid', 'dashed', 'dotted', 'dash-dotted'][i % 4]}" for i, layer in enumerate(result.layers)
    )
    page.section(
        f"Rules compared with {result.reference}",
        f'<p class="soft">{escaped(result.primary)} trains; lines: {escaped(lines_by_layer)}</p>',
        legend("comparison"),
        f'<div class="charts">{"".join(charts)}</div>\n',
        f'<div data-scope="comparison">{"".join(parts)}</div>\n',
    )


def activity_section(page: Page, layers: Mapping[str, np.ndarray], dt: float, words: str) -> None:
    """A raster of every spiking population for one example, and its firing rates.

    Args:
        page: the report.
        layers: population → spikes [time, neuron].
        dt: time step, seconds.
        words: which example.
    """
    parts = []
    for name, spikes in layers.items():
        times, neurons = np.nonzero(spikes)
        points = {
            "name": name,
            "group": name,
            "x": [round(1e3 * dt * float(t), 6) for t in times],
            "y": [int(n) for n in neurons],
        }
        rate = float(np.mean(spikes)) / dt
        steps, count = spikes.shape
        extent = (0.0, round(1e3 * dt * steps, 6), 0.0, float(count - 1))
        parts.append(page.chart(f"raster {name}", "Time (ms)", "Neuron", [points], "points", 260, extent))
        parts.append(f'<p class="soft">{escaped(name)}: {spikes.shape[1]} neurons, mean rate {readable(rate)} Hz</p>')
    page.section("Activity", f"<p>{escaped(words)}</p>", *parts)


def verification_section(page: Page, found: Verified) -> None:
    """Largest differences between backends and verdicts."""
    rows = []
    for each in found.verdicts:
        verdict = "reported only" if each.dtype == "float32" else str(each.parting or "same numbers")
        rows.append(
            [each.backend, each.dtype, *(f"{each.largest[k]:.1e}" for k in ("loss", "gradient", "weight")), verdict]
        )
    words = f"{found.steps} steps, largest relative difference to {found.reference}"
    headings = ["backend", "dtype", "loss", "gradient", "weight", "verdict"]
    page.section("Backends", f'<p class="soft">{escaped(words)}</p>', table(headings, rows))
