"""Figures of a comparison of rules: how gradients deviate in a batch, and how that changes while a network learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.report.style import BLACK, Look, given_or_new, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = Mapping[str, np.ndarray]

WIDEST = 40
"""A batch among very many has a column of this part of the training, so that it can be seen."""


def deviation_distributions(deviations: Series, ax: Axes | None = None, bins: int = 61) -> Axes:
    """The distribution of the entries' deviations in one batch: a snapshot, upper panel of Neko's figure 4.

    Args:
        deviations: rule → g_rule - g_reference, of any shape.
        ax: where to draw; a figure of its own by default.
        bins: number of bins, common to all rules.

    Example:
        >>> ax = deviation_distributions({"random": np.array([-1.0, 0.0, 1.0])})
        >>> ax.get_xlabel()
        'Deviation of gradient'
    """
    ax = given_or_new(ax)
    largest = max((float(np.abs(each).max()) for each in deviations.values()), default=0.0) or 1.0
    edges = np.linspace(-largest, largest, bins + 1)
    for (name, values), look in zip(deviations.items(), looks(deviations).values(), strict=True):
        share, _ = np.histogram(values, edges)
        ax.stairs(share / max(np.size(values), 1), edges, color=look.colour, linestyle=look.line, label=name, lw=1.4)
    ax.set_yscale("log")
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("Deviation of gradient")
    ax.set_ylabel("Share of weights per bin")
    ax.legend(frameon=False, loc="best", handlelength=2.4)
    return ax


def deviation_heat(
    batches: Sequence[int],
    deviations: Sequence[np.ndarray],
    ax: Axes | None = None,
    bins: int = 61,
    extent: tuple[float, float] | None = None,
    largest: float | None = None,
    bar: bool = True,
) -> Axes:
    """The distribution of deviations over training: a column of shading per batch, on a logarithmic scale.

    A column stands over its batch; it is one batch wide, or a fortieth of the training where that can be seen better
    and the columns stay apart. What lies between is not known and stays white. The scale reaches from one weight to all
    of them, so that figures of equally many weights can be compared.

    Args:
        batches: number of the batch of every column.
        deviations: the deviations in each of these batches.
        ax: where to draw.
        bins: number of rows.
        extent: first and last batch of the training; by default those of the columns.
        largest: deviation up to which the rows reach; by default one that 99.9 % of all do not exceed.
        bar: whether the scale is drawn beside.

    Example:
        >>> ax = deviation_heat([0, 100], [np.zeros(3), np.ones(3)], extent=(0, 124))
        >>> ax.get_xlabel(), [float(limit) for limit in ax.get_xlim()]
        ('Batch', [-1.55, 125.55])
    """
    from matplotlib.colors import LogNorm

    ax = given_or_new(ax)
    reach = typical_largest(deviations) if largest is None else largest
    edges = np.linspace(-reach, reach, bins + 1)
    shares = np.stack([np.histogram(each, edges)[0] / max(np.size(each), 1) for each in deviations], axis=1)
    places = np.asarray(batches, float)
    first, last = (float(places[0]), float(places[-1])) if extent is None else extent
    width = max(1.0, min([(last - first) / WIDEST, *np.diff(places).tolist()]))
    shares, columns = _apart(np.ma.masked_equal(shares, 0), places, width)
    scale = LogNorm(min(1 / max(max(map(np.size, deviations)), 1), 0.5), 1.0)
    mesh = ax.pcolormesh(columns, edges, shares, norm=scale, cmap="cividis", rasterized=True)
    if bar:
        ax.figure.colorbar(mesh, ax=ax, label="Share of weights")
    ax.set_xlim(first - width / 2, last + width / 2)
    ax.set_xlabel("Batch")
    ax.set_ylabel("Deviation of gradient")
    return ax


def _apart(shares: np.ndarray, places: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns of a width around their places with masked ones between, and the edges of all."""
    columns, edges = [shares[:, 0]], [places[0] - width / 2, places[0] + width / 2]
    for place, column in zip(places[1:], shares.T[1:], strict=True):
        if place - width / 2 > edges[-1]:
            columns.append(np.ma.array(np.zeros_like(column), mask=True))
            edges.append(place - width / 2)
        columns.append(column)
        edges.append(place + width / 2)
    return np.ma.stack(columns, axis=1), np.array(edges)


def typical_largest(deviations: Sequence[np.ndarray]) -> float:
    """The size of deviation that 99.9 % of all do not exceed; 1 where there is no deviation."""
    return float(np.quantile(np.abs(np.concatenate([np.ravel(each) for each in deviations])), 0.999)) or 1.0


def over_training(
    batches: np.ndarray, series: Series, label: str, ax: Axes | None = None, window: int | None = None
) -> Axes:
    """A figure of every rule over the batches of a training: pale as it is, and bold as a running mean.

    Args:
        batches: numbers of the batches.
        series: rule → one value per batch.
        label: of the vertical axis, unit included.
        ax: where to draw.
        window: batches in the running mean; a fortieth of all by default.

    Example:
        >>> ax = over_training(np.arange(3), {"random": np.array([0.0, 45.0, 90.0])}, "Angle to BPTT (°)")
        >>> ax.get_ylabel()
        'Angle to BPTT (°)'
    """
    ax = given_or_new(ax)
    width = max(1, len(batches) // 40) if window is None else window
    for (name, values), look in zip(series.items(), looks(series).values(), strict=True):
        _curve(ax, np.asarray(batches), np.asarray(values, float), width, name, look)
    ax.set_xlabel("Batch")
    ax.set_ylabel(label)
    ax.margins(x=0.01)
    ax.legend(frameon=False, loc="best", handlelength=2.4)
    return ax


def _curve(ax: Axes, batches: np.ndarray, values: np.ndarray, width: int, name: str, look: Look) -> None:
    if width > 1:
        ax.plot(batches, values, color=look.colour, alpha=0.2, linewidth=0.6)
    line = running_mean(values, width)
    ax.plot(batches, line, look.line, color=look.colour, label=name, linewidth=1.4)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Means over the ``width`` values around each, fewer at the ends; NaN do not count.

    Example:
        >>> running_mean(np.array([0.0, 3.0, np.nan, 5.0]), 3).tolist()
        [1.5, 1.5, 4.0, 5.0]
    """
    known = np.isfinite(values)
    ones = np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), ones, "full")
    count = np.convolve(known.astype(float), ones, "full")
    first = (width - 1) // 2 if width % 2 else width // 2
    kept = slice(first, first + len(values))
    with np.errstate(invalid="ignore"):
        return np.asarray(total[kept] / np.where(count[kept] > 0, count[kept], np.nan))


def bias_and_variance(
    rows: Sequence[Mapping[str, Any]], ax: Axes | None = None, shown: Mapping[str, Look] | None = None
) -> Axes:
    """The mean square deviation of every rule and parameter as a share of the reference's, split in bias² and variance.

    Bars stand by parameter, whose name is above them, and every bar has the name of its rule.

    Args:
        rows: mappings with ``rule``, ``parameter``, ``squared_bias``, ``variance`` and ``reference_square`` (the
            reference's mean square entry).
        ax: where to draw.
        shown: rule → its look; by default by the order of the rules in the rows.

    Example:
        >>> row = {"rule": "random", "parameter": "w", "squared_bias": 1.0, "variance": 2.0, "reference_square": 2.0}
        >>> ax = bias_and_variance([row])
        >>> [float(bar.get_width()) for bar in ax.patches], [text.get_text() for text in ax.get_yticklabels()]
        ([0.5, 1.0], ['w', 'random'])
    """
    from matplotlib.patches import Patch

    ax = given_or_new(ax)
    drawn = [row for row in rows if row["reference_square"] > 0]
    rules = looks(dict.fromkeys(row["rule"] for row in drawn)) if shown is None else shown
    names: list[tuple[str, str]] = []
    for parameter in dict.fromkeys(row["parameter"] for row in drawn):
        names.append((str(parameter).removesuffix(".weight"), BLACK))
        for row in (row for row in drawn if row["parameter"] == parameter):
            bias, variance = (row[key] / row["reference_square"] for key in ("squared_bias", "variance"))
            colour = rules[row["rule"]].colour
            ax.barh(len(names), bias, color=colour, edgecolor=colour)
            ax.barh(len(names), variance, left=bias, color="white", edgecolor=colour, hatch="////")
            names.append((row["rule"], colour))
    ax.set_yticks(range(len(names)), [name for name, _ in names], fontsize=7)
    for text, (name, colour) in zip(ax.get_yticklabels(), names, strict=True):
        text.set(color=colour, fontweight="normal" if name in rules else "bold")
    ax.tick_params(axis="y", length=0)
    # Below the last bar there is room for the key.
    ax.set_ylim(len(names) + 0.5 + 0.06 * len(names), -0.6)
    ax.set_xlabel("Mean square deviation / reference")
    if drawn:
        kinds = [Patch(facecolor="0.4", edgecolor="0.4", label="bias²")]
        kinds.append(Patch(facecolor="white", edgecolor="0.4", hatch="////", label="variance"))
        ax.legend(handles=kinds, frameon=False, loc="lower right", ncols=2, borderpad=0, borderaxespad=0.2)
    return ax
