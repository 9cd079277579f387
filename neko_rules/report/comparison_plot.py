"""The figure of a comparison: snapshot and course of the deviations, angle, bias and variance, cosine by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from neko_rules.errors import ArgumentError
from neko_rules.report.comparison_figures import (
    bias_and_variance,
    deviation_distributions,
    deviation_heat,
    over_training,
    running_mean,
)
from neko_rules.report.style import STYLE, given_or_new, looks, new_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Compared(Protocol):
    """What is read of a comparison."""

    rules: list[str]
    reference: str
    batches: np.ndarray

    @property
    def kept(self) -> list[int]:
        """Batches with full matrices."""

    @property
    def layers(self) -> list[str]:
        """Populations."""

    def statistic(self, rule: str, group: str, name: str = ..., quantity: str = ...) -> np.ndarray:
        """A figure in every batch."""

    def deviation(self, rule: str, parameter: str, batch: int, quantity: str = ...) -> np.ndarray:
        """Rule minus reference."""

    def summary(self, quantity: str = ...) -> list[dict[str, Any]]:
        """Rows of figures."""


def comparison_figure(result: Compared, parameter: str, batch: int | None = None) -> Figure:
    """Six panels.

    (a) distribution of the deviations in one batch and (b) mean absolute deviation over training, the two panels of
    figure 4 of Zhao et al. 2021 (Neko, ICONS); (c) the angle to the reference over training; (d) bias² and variance by
    parameter; (e) cosine of every layer over training, as in figure 10b of the Slax paper (Summe et al. 2024); (f) the
    distribution of the deviations of the last rule over training.

    Args:
        result: a ``Comparison``.
        parameter: whose deviations are shown.
        batch: of the snapshot; by default the last that was kept.
    """
    import matplotlib

    with_gradient = [r for r in result.rules if r in rules_with(result, parameter)]
    if not result.kept or not with_gradient:
        raise ArgumentError(
            "the figure of a comparison needs gradients that were kept in full",
            received=f"{len(result.kept)} batches, {len(with_gradient)} rules with a gradient",
            works="compare gradient rules with keep_every=100",
        )
    at = result.kept[-1] if batch is None else batch
    to = result.reference
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3, rows=2, height=2.6)
        snapshot, course, angle, shares, layers, heat = figure.axes
        deviation_distributions({rule: result.deviation(rule, parameter, at) for rule in with_gradient}, snapshot)
        snapshot.set_title(f"a  batch {at}", loc="left", fontsize=9)
        absolute = {rule: result.statistic(rule, parameter, "mean_absolute") for rule in with_gradient}
        over_training(result.batches, absolute, "Mean absolute deviation", course)
        course.set_title("b", loc="left", fontsize=9)
        if any((values > 0).any() for values in absolute.values()):
            course.set_yscale("log")
        angles = {rule: result.statistic(rule, parameter, "angle") for rule in with_gradient}
        over_training(result.batches, angles, f"Angle to {to} (°)", angle)
        angle.set_title("c", loc="left", fontsize=9)
        rows = [row for row in result.summary() if "variance" in row and row["parameter"].endswith("weight")]
        bias_and_variance([row for row in rows if row["squared_bias"] + row["variance"] > 0], shares)
        shares.set_title("d", loc="left", fontsize=9)
        cosine_by_layer(result, with_gradient, layers)
        layers.set_title("e", loc="left", fontsize=9)
        kept = result.kept
        deviation_heat(kept, [result.deviation(with_gradient[-1], parameter, each) for each in kept], heat)
        heat.set_title(f"f  {with_gradient[-1]}", loc="left", fontsize=9)
        for ax in (snapshot, course, angle):
            if (legend := ax.get_legend()) is not None:
                legend.remove()
        figure.suptitle(f"{parameter} (a, b, c, f) and all (d, e), compared with {to}", x=0.01, ha="left", fontsize=9)
        handles, labels = angle.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, handlelength=3)
    return figure


def cosine_by_layer(result: Compared, rules: list[str], ax: Axes | None = None) -> Axes:
    """The cosine to the reference over training: a colour per rule, a line form per layer.

    The readout is left out where there is another layer: its gradient is the same for most rules.
    """
    from matplotlib.lines import Line2D

    ax = given_or_new(ax)
    names = [name for name in result.layers if len(result.layers) == 1 or name != result.layers[-1]]
    width = max(1, len(result.batches) // 40)
    for rule, look in looks(rules).items():
        for layer, form in zip(names, looks(names).values(), strict=True):
            curve = running_mean(result.statistic(rule, layer, "cosine"), width)
            ax.plot(result.batches, curve, form.line, color=look.colour, linewidth=1.4)
    ax.set_xlabel("Batch")
    ax.set_ylabel(f"Cosine to {result.reference}")
    ax.set_ylim(min(-0.05, ax.get_ylim()[0]), 1.03)
    lines: list[Any] = []
    for layer, form in looks(names).items():
        lines.append(Line2D([], [], color="black", label=layer))
        lines[-1].set_linestyle(form.line)
    ax.legend(handles=lines, frameon=False, loc="best", handlelength=2.4)
    return ax


def rules_with(result: Compared, group: str) -> list[str]:
    """The rules that have a gradient to be compared."""
    import numpy as np

    return [rule for rule in result.rules if np.isfinite(result.statistic(rule, group, "reference_norm")).any()]
