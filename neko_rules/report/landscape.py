"""Figure of a loss landscape: contours of the loss on a plane, and the ways of trainings across it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.report.style import given_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WAYS = ("#ffffff", "#E69F00", "#CC79A7", "#D55E00")
"""Colours that stand out, with a dark rim, from the shading, which goes from violet over green to yellow."""


def loss_landscape(
    a: np.ndarray,
    b: np.ndarray,
    loss: np.ndarray,
    ways: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    ax: Axes | None = None,
    labels: tuple[str, str] = ("Step along the first direction", "Step along the second direction"),
    unit: str = "Loss",
) -> Axes:
    """Contours of the loss at equal ratios, and a line with a dot per point for every training.

    Where the loss changes by more than a factor of three its colours are logarithmic, which their label says.

    Args:
        a: [columns].
        b: [rows].
        loss: [rows, columns].
        ways: name → points (a, b) in the order of the training.
        ax: where to draw; a figure of its own by default.
        labels: of the two axes.
        unit: label of the colours.

    Example:
        >>> grid = np.linspace(-1, 1, 5)
        >>> ax = loss_landscape(grid, grid, 1 + grid[:, None] ** 2 + grid**2, {"bptt": [(1, 1), (0, 0)]})
        >>> ax.get_legend_handles_labels()[1]
        ['bptt']
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patheffects import withStroke

    ax = given_or_new(ax)
    values = np.ma.masked_invalid(loss)
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high / low > 3
    levels = np.geomspace(low, high, 18) if logarithmic else np.linspace(low, high or low + 1, 18)
    if levels[-1] <= levels[0]:
        levels = np.array([low, low + 1])
    scale: Any = LogNorm(levels[0], levels[-1]) if logarithmic else Normalize(levels[0], levels[-1])
    shade = ax.contourf(a, b, values, levels=levels, norm=scale, cmap="viridis")
    ax.contour(a, b, values, levels=levels, colors="white", linewidths=0.3)
    bar = ax.figure.colorbar(shade, ax=ax, label=f"{unit}, logarithmic scale" if logarithmic else unit)
    ticks = round_ticks(float(levels[0]), float(levels[-1]), logarithmic)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    for place, (name, points) in enumerate((ways or {}).items()):
        colour = WAYS[place % len(WAYS)]
        rim = [withStroke(linewidth=2.8, foreground="black")]
        xs, ys = zip(*points, strict=True)
        ax.plot(xs, ys, "o-", color=colour, label=name, markersize=3, linewidth=1.4, path_effects=rim)
        ax.plot(xs[-1], ys[-1], "*", color=colour, markersize=10, markeredgecolor="black", markeredgewidth=0.6)
    if ways:
        ax.legend(loc="best", facecolor="0.75", framealpha=0.9)
    # The scale of colours leaves little width, in which more labels would run into each other.
    ax.locator_params(axis="x", nbins=4, steps=[1, 2, 4, 5, 6, 10])
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return ax


def round_ticks(low: float, high: float, logarithmic: bool = False) -> list[float]:
    """Four to nine round numbers between two, at equal steps or, on a logarithmic scale, at nearly equal ratios.

    Example:
        >>> round_ticks(0.562, 7.3, logarithmic=True), round_ticks(1.02, 2.1)
        ([0.7, 1.0, 2.0, 3.0, 5.0, 7.0], [1.2, 1.4, 1.6, 1.8, 2.0])
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    if not logarithmic:
        ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(f"{tick:.10g}") for tick in ticks if low <= tick <= high]
    found: list[float] = []
    for subs in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        values = LogLocator(subs=subs, numticks=50).tick_values(low, high)
        found = [float(f"{tick:.10g}") for tick in values if low <= tick <= high]
        if len(found) >= 4:
            break
    return found
