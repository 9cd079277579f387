"""Uncertainty figures: calibration, risk against coverage, and doubt about right and wrong predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.probabilistic.calibration import calibration_curve, rank_test, risk_coverage
from neko_rules.probabilistic.predictive import Predictive
from neko_rules.report.style import BLUE, STYLE, VERMILION, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#000000")
LINES = ("o-", "s--", "^:", "v-.", "D-")


def uncertainty_figure(predictions: Mapping[str, Predictive], labels: np.ndarray, bins: int = 10) -> Figure:
    """Three panels: accuracy over confidence, error over coverage, and entropy of right and wrong predictions.

    Args:
        predictions: method → its predictions of the same examples; the boxes are those of the first.
        labels: [examples].
        bins: of the calibration curve.

    Example:
        >>> from neko_rules.probabilistic.predictive import of_logits
        >>> told = of_logits([np.random.default_rng(0).normal(size=(50, 3))])
        >>> figure = uncertainty_figure({"one network": told}, np.arange(50) % 3)
        >>> [ax.get_xlabel() for ax in figure.axes]
        ['Confidence', 'Coverage (%)', 'Prediction']
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(3)
        calibration, risk, boxes = figure.axes
        calibration.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for place, (name, told) in enumerate(predictions.items()):
            colour, form = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
            curve = calibration_curve(told.probabilities, labels, bins)
            looks: dict[str, Any] = {"color": colour, "label": name, "linewidth": 1.2}
            calibration.plot(curve.confidence, curve.accuracy, form, markersize=3, mfc="white", **looks)
            coverage, error = risk_coverage(told.entropy, told.classes == labels)
            risk.plot(100 * coverage, 100 * error, form[1:], **looks)
        calibration.set_xlabel("Confidence")
        calibration.set_ylabel("Accuracy")
        calibration.legend(frameon=False)
        risk.set_xlabel("Coverage (%)")
        risk.set_ylabel("Error (%)")
        first = next(iter(predictions.values()))
        right = first.classes == labels
        boxes.boxplot([first.entropy[right], first.entropy[~right]], widths=0.5, medianprops={"color": VERMILION})
        boxes.set_xticks([1, 2], [f"right ({right.sum()})", f"wrong ({(~right).sum()})"])
        boxes.set_xlabel("Prediction")
        boxes.set_ylabel("Predictive entropy (nats)")
        if right.any() and not right.all():
            chance, p_value = rank_test(first.entropy, right)
            boxes.set_title(f"AUROC {chance:.2f}, p = {p_value:.1g}", fontsize=8)
    return figure


def save_uncertainty_figure(predictions: Mapping[str, Predictive], labels: np.ndarray, path: Path) -> None:
    """Write the figure as ``.png`` at ``path`` and as ``.svg`` beside it."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = uncertainty_figure(predictions, labels)
        figure.savefig(path, dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
