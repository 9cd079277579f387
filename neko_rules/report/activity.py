"""Figures of activity: rasters with firing rates, membranes with thresholds, the traces of a synapse, histograms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neko_rules.errors import DataError
from neko_rules.report.style import BLACK, BLUE, GREEN, STYLE, VERMILION, given_or_new, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MILLISECONDS = 1e3


class Synapse(Protocol):
    """What is read of ``neko_rules.rules.synapse.SynapseTraces``; arrays are [time, batch]."""

    @property
    def sent(self) -> np.ndarray:
        """What the sending neuron sends."""

    @property
    def received(self) -> np.ndarray:
        """Spikes of the receiving neuron."""

    @property
    def eligibility(self) -> np.ndarray:
        """e_t."""

    @property
    def learning_signal(self) -> np.ndarray:
        """G_t."""

    @property
    def dt(self) -> float:
        """Seconds."""

    @property
    def name(self) -> str:
        """For the title."""


def raster(spikes: np.ndarray, dt: float = 1e-3, ax: Axes | None = None, rates: bool = True) -> Axes:
    """A dot for every spike, and beside it the firing rate of every neuron.

    Args:
        spikes: [time, neuron], 0 or 1.
        dt: time step, seconds.
        ax: where to draw; a figure of its own by default.
        rates: whether firing rates (Hz) are drawn at the right.

    Example:
        >>> ax = raster(np.eye(5), dt=2e-3)
        >>> ax.get_xlabel(), ax.get_ylabel(), ax.child_axes[0].get_xlabel()
        ('Time (ms)', 'Neuron', 'Rate (Hz)')
    """
    array = _matrix("spikes", spikes)
    ax = given_or_new(ax)
    times, neurons = np.nonzero(array)
    size = float(np.clip(400 / max(array.shape), 0.6, 5))
    ax.scatter(MILLISECONDS * dt * times, neurons, s=size, c=BLACK, marker="|" if array.shape[1] < 60 else ".", lw=0.8)
    ax.set_xlim(-0.5 * MILLISECONDS * dt, MILLISECONDS * dt * (len(array) - 0.5))
    ax.set_ylim(-0.5, array.shape[1] - 0.5)
    ax.set_xlabel("Time (ms)")
    ax.set_ylabel("Neuron")
    if rates:
        beside = ax.inset_axes((1.03, 0, 0.2, 1), sharey=ax)
        beside.barh(np.arange(array.shape[1]), array.mean(0) / dt, height=1.0, color=BLUE)
        beside.set_xlabel("Rate (Hz)")
        beside.tick_params(labelleft=False)
        for side in ("top", "right"):
            beside.spines[side].set_visible(False)
    return ax


def membrane(
    v: np.ndarray, threshold: np.ndarray | float, spikes: np.ndarray, dt: float = 1e-3, ax: Axes | None = None
) -> Axes:
    """The membrane of one neuron, its threshold, and its spikes as strokes above.

    Args:
        v: [time], in units of the weights.
        threshold: [time] or a number, in the same units.
        spikes: [time].
        dt: time step, seconds.
        ax: where to draw.

    Example:
        >>> membrane(np.array([0.0, 1.2]), 1.0, np.array([0, 1])).get_ylabel()
        'Membrane (weight units)'
    """
    import matplotlib

    ax = given_or_new(ax)
    values = np.asarray(v, float)
    time = MILLISECONDS * dt * np.arange(len(values))
    limit = np.broadcast_to(np.asarray(threshold, float), values.shape)
    ax.plot(time, values, color=BLUE, linewidth=1.2, label="membrane")
    ax.plot(time, limit, "--", color=VERMILION, linewidth=1.2, label="threshold")
    top = max(float(values.max()), float(limit.max()))
    reach = 0.06 * (top - float(values.min()) or 1.0)
    fired = time[np.asarray(spikes) > 0]
    ax.vlines(fired, top + reach, top + 2 * reach, color=BLACK, linewidth=1.0, label="spike")
    ax.set_xlabel("Time (ms)")
    ax.set_ylabel("Membrane (weight units)")
    with matplotlib.rc_context(STYLE):
        # Above the axes, where no trace runs.
        ax.legend(
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=3,
            borderaxespad=0.2,
            handlelength=1.5,
            columnspacing=1.0,
            handletextpad=0.4,
        )
    return ax


def synapse(traces: Synapse, example: int = 0, ax: Axes | None = None) -> Axes:
    """Spikes of both neurons, eligibility trace (left axis) and learning signal (right axis) of one synapse.

    Args:
        traces: as ``synapse_traces`` gives them.
        example: in the batch.
        ax: where to draw.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator
        >>> from neko_rules.rules.synapse import synapse_traces
        >>> x, y = np.ones((1, 9, 4)), np.array([1])
        >>> traces = synapse_traces(EProp(Evaluator(ALIF(6, 2))), x, y, "hidden.recurrent.weight", 0, 1)
        >>> synapse(traces).get_ylabel()
        'Eligibility trace $e_t$'
    """
    import matplotlib

    ax = given_or_new(ax)
    time = MILLISECONDS * traces.dt * np.arange(len(traces.sent))
    eligibility, signal = traces.eligibility[:, example], traces.learning_signal[:, example]
    ax.plot(time, eligibility, color=BLUE, linewidth=1.2, label="eligibility trace")
    with matplotlib.rc_context(STYLE):
        right = ax.twinx()
    right.plot(time, signal, "--", color=VERMILION, linewidth=1.2, label="learning signal")
    right.spines["right"].set_visible(True)
    right.set_ylabel("Learning signal $∂E/∂z_t$", color=VERMILION)
    ax.set_ylabel("Eligibility trace $e_t$", color=BLUE)
    ax.set_xlabel("Time (ms)")
    across = ax.get_xaxis_transform()
    for place, events, colour, words in (
        (1.02, traces.sent, GREEN, "sender"),
        (1.09, traces.received, BLACK, "receiver"),
    ):
        fired = time[events[:, example] > 0]
        ax.vlines(fired, place, place + 0.045, color=colour, transform=across, clip_on=False, linewidth=0.9)
        at = ax.transAxes
        ax.text(1.015, place + 0.022, words, transform=at, va="center", fontsize=7, color=colour)
    ax.set_title(traces.name, loc="left", fontsize=9, pad=22)
    return ax


def histogram(values: Mapping[str, np.ndarray], label: str, ax: Axes | None = None, bins: int = 50) -> Axes:
    """Distributions of weights, gradients or rates over common bins.

    Args:
        values: name → numbers of any shape.
        label: of the horizontal axis, unit included.
        ax: where to draw.
        bins: how many.

    Example:
        >>> histogram({"hidden.bias": np.zeros(3)}, "Weight").get_ylabel()
        'Share'
    """
    ax = given_or_new(ax)
    flat = {name: np.ravel(np.asarray(each, float)) for name, each in values.items()}
    everything = np.concatenate(list(flat.values())) if flat else np.zeros(1)
    edges = np.histogram_bin_edges(everything, bins)
    for (name, each), look in zip(flat.items(), looks(flat).values(), strict=True):
        share, _ = np.histogram(each, edges)
        ax.stairs(share / max(each.size, 1), edges, color=look.colour, linestyle=look.line, label=name, linewidth=1.3)
    ax.set_xlabel(label)
    ax.set_ylabel("Share")
    ax.legend(frameon=False, loc="best")
    return ax


def _matrix(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2:
        raise DataError(f"{name} must be [time, neuron]", received=f"shape {array.shape}", works="choose one example")
    return array
