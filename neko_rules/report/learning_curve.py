"""Learning curves: how loss and metrics change over the epochs of a run, for training and validation data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neko_rules.report.style import BLUE, STYLE, VERMILION, looks, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALIDATION = "validation_"

NOT_CURVES = ("epoch", "steps", "seconds")
"""Entries of an epoch's record that are not quantities to be followed."""

LABELS = {
    "accuracy": ("Accuracy (%)", 100.0),
    "firing_rate": ("Firing rate (Hz)", 1.0),
    "spike_sparsity": ("Neuron-steps without spike (%)", 100.0),
}
"""Axis label of a metric, and the factor from the metric to the label's unit."""

LOSSES = {
    "categorical_crossentropy": "Cross-entropy (nats)",
    "sparse_categorical_crossentropy": "Cross-entropy (nats)",
    "kl_divergence": "KL divergence (nats)",
}
"""Axis label of a loss that has a unit."""

MARKED = 30
"""Epochs up to which each has a marker; more would hide the line."""


def quantities(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The quantities that the records follow, without the prefix of validation, the loss first.

    Example:
        >>> quantities([{"epoch": 1, "steps": 9, "accuracy": 0.1, "loss": 2.3, "validation_loss": 2.2, "seconds": 1.0}])
        ['loss', 'accuracy']
    """
    names = [name.removeprefix(VALIDATION) for record in records for name in record if name not in NOT_CURVES]
    return sorted(dict.fromkeys(names), key=lambda name: name != "loss")


def values(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """One quantity over the epochs, NaN where a record lacks it.

    Example:
        >>> values([{"loss": 2.3}, {"loss": None}, {}], "loss")
        [2.3, nan, nan]
    """
    found = (record.get(name) for record in records)
    return [math.nan if value is None else float(value) for value in found]


def axis_label(quantity: str, loss: str = "") -> tuple[str, float]:
    """What to write beside a quantity, unit included, and the factor from the records to that unit.

    Args:
        quantity: ``"loss"`` or the name of a metric.
        loss: name of the loss, which decides its unit.

    Example:
        >>> axis_label("loss", "categorical_crossentropy"), axis_label("accuracy")
        (('Cross-entropy (nats)', 1.0), ('Accuracy (%)', 100.0))
    """
    if quantity == "loss" and loss:
        return LOSSES.get(loss, loss.replace("_", " ").capitalize()), 1.0
    if quantity.startswith("top_"):
        return f"{quantity.replace('_', ' ').capitalize()} accuracy (%)", 100.0
    return LABELS.get(quantity, (quantity.replace("_", " ").capitalize(), 1.0))


def learning_curve(
    records: Sequence[Mapping[str, Any]], ax: Axes | None = None, quantity: str = "loss", label: str | None = None
) -> Axes:
    """Draw one quantity over the epochs, training solid and validation dashed.

    Args:
        records: one mapping per epoch, as in ``History.epochs`` or a line of ``metrics.jsonl``.
        ax: where to draw; a figure of its own by default.
        quantity: ``"loss"`` or the name of a metric.
        label: of the vertical axis, unit included.

    Returns:
        The axes, to be changed or saved.

    Example:
        >>> records = [{"epoch": 1, "loss": 2.3, "validation_loss": 2.2}, {"epoch": 2, "loss": 1.5}]
        >>> learning_curve(records).get_xlabel()
        'Epoch'
    """
    from matplotlib.ticker import MaxNLocator

    ax = new_figure(1).axes[0] if ax is None else ax
    usual, factor = axis_label(quantity)
    epochs = [int(record["epoch"]) for record in records]
    size = 3 if len(epochs) <= MARKED else 0
    for name, word, colour, form in (
        (quantity, "training", BLUE, "o-"),
        (VALIDATION + quantity, "validation", VERMILION, "s--"),
    ):
        if any(name in record for record in records):
            curve = [factor * value for value in values(records, name)]
            ax.plot(epochs, curve, form, color=colour, label=word, linewidth=1.4, markersize=size, mfc="white")
    ax.set_xlabel("Epoch")
    ax.set_ylabel(usual if label is None else label)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if len(epochs) == 1:
        ax.set_xlim(epochs[0] - 1, epochs[0] + 1)
    ax.margins(y=0.08)
    return ax


def learning_curve_bands(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    quantity: str = "loss",
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """One quantity over the epochs for several rules or settings: the mean over seeds, and their range as a band.

    Args:
        runs: name → the records of every seed's run.
        quantity: ``"loss"``, a metric, or either with ``validation_`` in front.
        ax: where to draw; a figure of its own by default.
        label: of the vertical axis, unit included.

    Example:
        >>> seeds = [[{"epoch": 1, "loss": 2.0}], [{"epoch": 1, "loss": 1.0}]]
        >>> ax = learning_curve_bands({"bptt": seeds})
        >>> float(ax.get_lines()[0].get_ydata()[0])
        1.5
    """
    import numpy as np

    ax = new_figure(1).axes[0] if ax is None else ax
    usual, factor = axis_label(quantity.removeprefix(VALIDATION))
    for (name, seeds), look in zip(runs.items(), looks(runs).values(), strict=True):
        epochs = min((len(records) for records in seeds), default=0)
        curves = np.array([[factor * value for value in values(records[:epochs], quantity)] for records in seeds])
        at = [int(record["epoch"]) for record in seeds[0][:epochs]]
        size = 3 if epochs <= MARKED else 0
        (line,) = ax.plot(
            at, curves.mean(0), look.line, color=look.colour, marker=look.marker, markersize=size, mfc="white"
        )
        line.set_label(f"{name} ({len(seeds)} seeds)")
        if len(seeds) > 1:
            ax.fill_between(at, curves.min(0), curves.max(0), color=look.colour, alpha=0.2, linewidth=0)
    ax.set_xlabel("Epoch")
    ax.set_ylabel(usual if label is None else label)
    ax.legend(frameon=False, loc="best", handlelength=2.4)
    return ax


def learning_curves(records: Sequence[Mapping[str, Any]], loss: str = "") -> Figure:
    """A figure with one panel for the loss and one for each metric.

    Args:
        records: one mapping per epoch.
        loss: name of the loss, which decides its unit.

    Example:
        >>> figure = learning_curves([{"epoch": 1, "loss": 2.3, "accuracy": 0.1}], loss="categorical_crossentropy")
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['Cross-entropy (nats)', 'Accuracy (%)']
    """
    import matplotlib

    names = quantities(records)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(len(names))
        for ax, name in zip(figure.axes, names, strict=True):
            learning_curve(records, ax, name, axis_label(name, loss)[0])
        if len(figure.axes[0].get_lines()) > 1:
            figure.axes[0].legend(frameon=False, loc="best", handlelength=2.4)
    return figure


def save_learning_curves(records: Sequence[Mapping[str, Any]], path: Path, loss: str = "") -> None:
    """Write the figure as ``.png`` (300 dots per inch) at ``path`` and as ``.svg`` beside it."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = learning_curves(records, loss)
        figure.savefig(path, dpi=300)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
