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
    typical_largest,
)
from neko_rules.report.style import BLACK, STYLE, given_or_new, looks, new_figure

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

    def synapses(self, parameter: str) -> np.ndarray:
        """Which entries are learned."""

    def summary(self, quantity: str = ...) -> list[dict[str, Any]]:
        """Rows of figures."""


NEGLIGIBLE = 1e-9
"""Mean square deviation, as a share of the reference's, below which two gradients are the same but for rounding."""


def comparison_figure(result: Compared, parameter: str, batch: int | None = None) -> Figure:
    """Six panels.

    (a) distribution of the deviations in one batch and (b) mean absolute deviation over training, the two panels of
    figure 4 of Zhao et al. 2021 (Neko, ICONS); (c) the angle to the reference over training; (d) bias² and variance by
    parameter, those left out in which a rule does not deviate; (e) cosine of every layer over training, as in figure
    10b of the Slax paper (Summe et al. 2024); (f) the distribution of the deviations of every rule in the batches that
    were kept, if these are at least two.

    Args:
        result: a ``Comparison``.
        parameter: whose deviations are shown.
        batch: of the snapshot; by default the last that was kept.
    """
    import matplotlib

    with_gradient = rules_with(result, parameter)
    if not result.kept or not with_gradient:
        raise ArgumentError(
            "the figure of a comparison needs gradients that were kept in full",
            received=f"{len(result.kept)} batches, {len(with_gradient)} rules with a gradient",
            works="compare gradient rules with keep_every=100",
        )
    learned = result.synapses(parameter)
    if not learned.any():
        raise ArgumentError("the figure of a comparison needs a parameter with a synapse", received=parameter)
    at = result.kept[-1] if batch is None else batch
    to = result.reference
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3, rows=2, height=2.6)
        figure.set_layout_engine("constrained", w_pad=0.08)
        snapshot, course, angle, shares, layers, heat = figure.axes
        shown = {rule: result.deviation(rule, parameter, at)[learned] for rule in with_gradient}
        deviation_distributions(shown, snapshot)
        absolute = {rule: result.statistic(rule, parameter, "mean_absolute") for rule in with_gradient}
        over_training(result.batches, absolute, "Mean absolute deviation", course)
        if any((values > 0).any() for values in absolute.values()):
            course.set_yscale("log")
        angles = {rule: result.statistic(rule, parameter, "angle") for rule in with_gradient}
        over_training(result.batches, angles, f"Angle to {to} (°)", angle)
        rows = [row for row in result.summary() if "variance" in row and row["parameter"].endswith("weight")]
        apart = [r for r in rows if r["squared_bias"] + r["variance"] > NEGLIGIBLE * r["reference_square"]]
        named = [row for row in apart if row["rule"] in with_gradient]
        bias_and_variance(named, shares, looks(with_gradient))
        cosine_by_layer(result, with_gradient, layers)
        bottom = max(len(with_gradient), (len(named) + len({row["parameter"] for row in named})) / 4)
        grid = heat.get_gridspec()
        assert grid is not None, "made by subplots"
        if bottom > 4:
            figure.set_figheight(2.6 + 0.65 * bottom)
            grid.set_height_ratios([2.6, 0.65 * bottom])
        in_strips = len(result.kept) > 1
        first = _heats(result, with_gradient, parameter, heat) if in_strips else _without_course(heat)
        titles = (
            f"Deviations in batch {at}",
            "Size of the deviations",
            "Direction",
            "Bias and variance",
            "Direction by layer",
            "Deviations over training",
        )
        for letter, title, ax in zip("abcdef", titles, (snapshot, course, angle, shares, layers, first), strict=True):
            # Above the first strip stands the name of its rule.
            pad = 13 if ax is first and in_strips else None
            ax.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left", fontsize=9, pad=pad)
        handles, labels = angle.get_legend_handles_labels()
        if (marks := layers.get_legend()) is not None:
            handles += marks.get_lines()
            labels += [text.get_text() for text in marks.get_texts()]
        for ax in (snapshot, course, angle, layers):
            if (legend := ax.get_legend()) is not None:
                legend.remove()
        said = f"Gradients compared with those of {to}: {in_words(parameter)} (a, b, c, f), all weights (d), layers (e)"
        figure.suptitle(said, x=0.01, ha="left", fontsize=9)
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, handlelength=3)
    return figure


def in_words(parameter: str) -> str:
    """A parameter as one reads it.

    Example:
        >>> [in_words(name) for name in ("hidden.recurrent.weight", "readout.bias", "hidden.tau")]
        ['recurrent weights of hidden', 'biases of readout', 'tau of hidden']
    """
    population, _, rest = parameter.partition(".")
    *label, kind = rest.split(".") if rest else [population]
    words = {"weight": "weights", "bias": "biases"}.get(kind, kind)
    return " ".join([*label, words]) + (f" of {population}" if rest else "")


def _without_course(ax: Axes) -> Axes:
    """A panel that says why it is empty."""
    ax.set_axis_off()
    said = "Only 1 batch was kept in full,\nwhich shows no course (keep_every)"
    ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", va="center", fontsize=8)
    return ax


def _heats(result: Compared, rules: list[str], parameter: str, whole: Axes) -> Axes:
    """A strip of shading for every rule in the place of one panel, on common scales; the uppermost is returned."""
    figure, kept = whole.figure, result.kept
    place = whole.get_subplotspec()
    assert place is not None, "made by subplots"
    whole.remove()
    strips = place.subgridspec(len(rules), 1, hspace=0.08).subplots(sharex=True, sharey=True, squeeze=False)[:, 0]
    learned = result.synapses(parameter)
    found = {rule: [result.deviation(rule, parameter, each)[learned] for each in kept] for rule in rules}
    largest = max(map(typical_largest, found.values()))
    extent = float(result.batches[0]), float(result.batches[-1])
    for ax, (rule, deviations) in zip(strips, found.items(), strict=True):
        deviation_heat(kept, deviations, ax, extent=extent, largest=largest, bar=False)
        colour, above = looks(rules)[rule].colour, "offset points"
        ax.annotate(rule, (1, 1), (0, 1), "axes fraction", above, ha="right", va="bottom", fontsize=7, color=colour)
        ax.locator_params(axis="y", nbins=3)
        ax.set_ylabel("")
        ax.label_outer()
    strips[len(strips) // 2].set_ylabel("Deviation of gradient")
    figure.colorbar(strips[0].collections[0], ax=list(strips), label="Share of weights", pad=0.02)
    return strips[0]


def cosine_by_layer(result: Compared, rules: list[str], ax: Axes | None = None) -> Axes:
    """The cosine to the reference over training: colour and line form say the rule, marks the layer if several.

    The readout is left out where there is another layer: its gradient is the same for most rules.
    """
    from matplotlib.lines import Line2D

    ax = given_or_new(ax)
    names = [name for name in result.layers if len(result.layers) == 1 or name != result.layers[-1]]
    width = max(1, len(result.batches) // 40)
    apart = max(1, len(result.batches) // 6)
    marks = {name: look.marker if len(names) > 1 else "" for name, look in looks(names).items()}
    for rule, look in looks(rules).items():
        for place, layer in enumerate(names):
            ax.plot(
                result.batches,
                running_mean(result.statistic(rule, layer, "cosine"), width),
                look.line,
                color=look.colour,
                linewidth=1.4,
                marker=marks[layer],
                markersize=4,
                # Marks of one rule's layers stand beside each other where the lines coincide.
                markevery=(place * apart // len(names), apart),
            )
    ax.set_xlabel("Batch")
    ax.set_ylabel(f"Cosine to {result.reference}" + (f", {names[0]}" if len(names) == 1 else ""))
    ax.set_ylim(min(-0.05, ax.get_ylim()[0]), 1.03)
    ax.margins(x=0.01)
    if len(names) > 1:
        keys = [
            Line2D([], [], color=BLACK, marker=marks[name], markersize=4, linewidth=0, label=name) for name in names
        ]
        ax.legend(handles=keys, frameon=False, loc="best")
    return ax


def rules_with(result: Compared, group: str) -> list[str]:
    """The rules that have a gradient to be compared."""
    import numpy as np

    return [rule for rule in result.rules if np.isfinite(result.statistic(rule, group, "reference_norm")).any()]
