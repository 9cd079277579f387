"""Uncertainty figures: doubt about right and wrong predictions, calibration, and risk against coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neko_rules.probabilistic.calibration import calibration_curve, rank_test, risk_coverage
from neko_rules.probabilistic.predictive import Predictive
from neko_rules.report.style import STYLE, Look, looks, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 5
"""Predictions in a bin below which its accuracy says too little to be drawn."""


def uncertainty_figure(predictions: Mapping[str, Predictive], labels: np.ndarray, bins: int = 10) -> Figure:
    """Three panels: entropy of right and wrong predictions, accuracy over confidence, and error over coverage.

    Boxes reach from quartile to quartile, whiskers from the 5th to the 95th percentile. Above them stands the chance
    that a wrong prediction has the larger entropy, and the p-value of the one-sided rank test (Mann & Whitney 1947).

    Args:
        predictions: method → its predictions of the same examples.
        labels: [examples].
        bins: of the calibration curve; those of fewer than five predictions are left out.

    Example:
        >>> from neko_rules.probabilistic.predictive import of_logits
        >>> told = of_logits([np.random.default_rng(0).normal(size=(50, 3))])
        >>> figure = uncertainty_figure({"one network": told}, np.arange(50) % 3)
        >>> [ax.get_xlabel() for ax in figure.axes]
        ['', 'Confidence (%)', 'Coverage (%)']
    """
    import matplotlib
    from matplotlib.ticker import PercentFormatter

    look = looks(predictions)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3, width=3.0, height=2.7)
        boxes, calibration, risk = figure.axes
        # The boxes of several methods need more room than the curves.
        grid = boxes.get_gridspec()
        assert grid is not None, "made by subplots"
        grid.set_width_ratios([1 + 0.12 * len(predictions), 1, 1])
        calibration.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for place, (name, told) in enumerate(predictions.items()):
            right = told.classes == labels
            _boxes(boxes, place, told.entropy, right, look[name].colour)
            _calibration(calibration, told, labels, bins, name, look[name])
            coverage, error = risk_coverage(told.entropy, right)
            risk.plot(100 * coverage, 100 * error, look[name].line, color=look[name].colour, label=name, linewidth=1.2)
        _finish_boxes(boxes, list(predictions), look)
        calibration.set(xlabel="Confidence (%)", ylabel="Accuracy (%)", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for axis in (calibration.xaxis, calibration.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=""))
        risk.set(xlabel="Coverage (%)", ylabel="Error (%)", xlim=(0, 100), ylim=(0, None))
        risk.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=7)
        for letter, ax in zip("abc", figure.axes, strict=True):
            at = ax.transAxes
            ax.text(-0.08, 1.04, letter, transform=at, ha="right", va="bottom", fontweight="bold", fontsize=10)
    return figure


def _boxes(ax: Axes, place: int, entropy: np.ndarray, right: np.ndarray, colour: str) -> None:
    """A pair of boxes, right and wrong, and above it how well entropy tells them apart."""
    for side, chosen, fill in zip((-0.2, 0.2), (right, ~right), SIDES.values(), strict=True):
        if chosen.any():
            ax.boxplot(
                entropy[chosen],
                positions=[place + side],
                widths=0.32,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": (colour, fill), "edgecolor": colour},
                medianprops={"color": "black", "linewidth": 1.2},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                manage_ticks=False,
            )
    if right.any() and not right.all():
        chance, p_value = rank_test(entropy, right)
        above = ax.get_xaxis_transform()
        ax.text(
            place, 1.0, f"AUROC {chance:.2f}\n{_power(p_value)}", transform=above, ha="center", va="bottom", fontsize=7
        )


def _power(p_value: float) -> str:
    """A p-value as it is printed.

    Example:
        >>> _power(0.0312), _power(2.34e-31)
        ('$p$ = 0.031', '$p$ = $2\\\\times10^{-31}$')
    """
    if p_value >= 1e-3:
        return f"$p$ = {p_value:.2g}"
    if p_value == 0:
        return "$p$ < $10^{-300}$"
    exponent = math.floor(math.log10(p_value))
    return rf"$p$ = ${p_value / 10.0**exponent:.0f}\times10^{{{exponent}}}$"


def _finish_boxes(ax: Axes, names: list[str], look: Mapping[str, Look]) -> None:
    """Names of the methods, and a key in which a side has the fill that it has in the boxes of every method."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    ax.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
    ax.set_ylabel("Predictive entropy (nats)")
    fills = [
        tuple(Patch(facecolor=(look[name].colour, fill), edgecolor=look[name].colour) for name in names)
        for fill in SIDES.values()
    ]
    ax.legend(
        fills,
        list(SIDES),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
        frameon=False,
        ncols=2,
        loc="upper center",
        handlelength=1.1 * len(names),
        handletextpad=0.5,
        columnspacing=1.2,
    )


SIDES = {"right": 0.15, "wrong": 0.75}
"""Opacity of the boxes of right and wrong predictions."""


def _calibration(ax: Axes, told: Predictive, labels: np.ndarray, bins: int, name: str, look: Look) -> None:
    curve = calibration_curve(told.probabilities, labels, bins)
    shown = curve.counts >= FEW
    ax.plot(
        curve.confidence[shown],
        curve.accuracy[shown],
        look.line,
        marker=look.marker,
        color=look.colour,
        label=name,
        linewidth=1.2,
        markersize=3.5,
    )


def save_uncertainty_figure(predictions: Mapping[str, Predictive], labels: np.ndarray, path: Path) -> None:
    """Write the figure as ``.png`` at ``path`` and as ``.svg`` beside it."""
    save(uncertainty_figure(predictions, labels), path)
