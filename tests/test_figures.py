"""Figures show the numbers they are given, with units, in colours that all can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, LIF, RNN, EProp, Evaluator
from neko_rules.backend import is_installed
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.layers.margins import margins, thresholds
from neko_rules.report import activity, comparison_figures, learning_curve, style
from neko_rules.rules import PPProp
from neko_rules.rules.synapse import synapse_traces

BACKENDS = ["numpy", *(name for name in ("torch",) if is_installed(name))]


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 4 * rng.standard_normal((3, 12, 5)), np.array([0, 1, 1])


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class TestActivity:
    def test_a_raster_has_a_dot_per_spike_and_a_rate_per_neuron(self) -> None:
        spikes = (np.random.default_rng(0).random((40, 7)) < 0.3).astype(float)
        ax = activity.raster(spikes, dt=2e-3)
        dots = np.asarray(ax.collections[0].get_offsets())
        expected = np.argwhere(spikes) * [2.0, 1.0]
        np.testing.assert_allclose(sorted(map(tuple, dots)), sorted(map(tuple, expected)))
        rates = [bar.get_width() for bar in ax.child_axes[0].patches]
        np.testing.assert_allclose(rates, spikes.sum(0) / 0.08)
        assert not activity.raster(spikes, rates=False).child_axes
        with pytest.raises(DataError, match=r"\[time, neuron\]"):
            activity.raster(spikes[None])

    def test_a_membrane_and_its_threshold(self) -> None:
        x, _ = data()
        model = Evaluator(ALIF(6, 2, beta=0.5, threshold=0.7, dtype="float64", seed=1))
        trajectory = model.trajectory(x)
        states = trajectory.records["hidden"].states
        limit = thresholds(model.network, trajectory, "hidden")
        np.testing.assert_allclose(limit, 0.7 + 0.5 * states["a"], rtol=1e-12)
        u = margins(model.network, trajectory, "hidden")
        np.testing.assert_array_equal(u > 0, trajectory.z("hidden") > 0)
        ax = activity.membrane(states["v"][:, 0, 1], limit[:, 0, 1], trajectory.z("hidden")[:, 0, 1])
        np.testing.assert_array_equal(ax.get_lines()[1].get_ydata(), limit[:, 0, 1])
        assert len(ax.collections[0].get_segments()) == int(trajectory.z("hidden")[:, 0, 1].sum())

    def test_no_threshold_without_one(self) -> None:
        model = Evaluator(RNN(3, 2))
        with pytest.raises(IncompatibleError, match="membrane v"):
            thresholds(model.network, model.trajectory(data()[0]), "hidden")
        with pytest.raises(IncompatibleError, match="only spiking"):
            margins(model.network, model.trajectory(data()[0]), "hidden")

    def test_histogram(self) -> None:
        values = {"a": np.array([0.0, 0.0, 1.0]), "b": np.array([1.0])}
        ax = activity.histogram(values, "Weight", bins=2)
        np.testing.assert_allclose([p.get_data().values for p in ax.patches], [[2 / 3, 1 / 3], [0, 1]])


class TestSynapse:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(("parameter", "source", "target"), [("input", 1, 3), ("recurrent", 2, 0)])
    @pytest.mark.parametrize("mode", ["symmetric", "random"])
    def test_trace_times_signal_is_the_gradient(
        self, backend: str, parameter: str, source: int, target: int, mode: str
    ) -> None:
        x, y = data()
        network = ALIF(6, 2, backend=backend, dtype="float64", seed=1, detach_reset=False, refractory_period=1e-3)
        rule = EProp(Evaluator(network), mode=mode)
        traces = synapse_traces(rule, x, y, f"hidden.{parameter}.weight", source, target)
        gradient = rule.gradients(x, y)[f"hidden.{parameter}.weight"][source, target]
        assert abs(gradient) > 1e-8
        assert traces.gradient == pytest.approx(gradient, rel=1e-11)
        assert traces.eligibility.shape == (12, 3)

    def test_that_of_a_rank_one_trace(self) -> None:
        x, y = data()
        rule = PPProp(Evaluator(ALIF(6, 2, dtype="float64", seed=1, detach_reset=False)), decay=0.8)
        for parameter, source, target in [("input", 1, 3), ("recurrent", 2, 0)]:
            traces = synapse_traces(rule, x, y, f"hidden.{parameter}.weight", source, target)
            gradient = rule.gradients(x, y)[f"hidden.{parameter}.weight"][source, target]
            assert abs(gradient) > 1e-8
            assert traces.gradient == pytest.approx(gradient, rel=1e-11)

    def test_an_excluded_autapse_has_none(self) -> None:
        rule = EProp(Evaluator(ALIF(6, 2)))
        assert not synapse_traces(rule, *data(), "hidden.recurrent.weight", 2, 2).eligibility.any()

    def test_drawing(self) -> None:
        rule = EProp(Evaluator(ALIF(6, 2, seed=1)))
        traces = synapse_traces(rule, *data(), "hidden.input.weight", 1, 3)
        ax = activity.synapse(traces, example=1)
        np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), traces.eligibility[:, 1])

    def test_refusals(self) -> None:
        with pytest.raises(IncompatibleError, match="temporal credit 'neuron'"):
            synapse_traces(BPTT(Evaluator(ALIF(6, 2))), *data(), "hidden.input.weight", 0, 0)
        rule = EProp(Evaluator(LIF(6, 2)))
        with pytest.raises(ArgumentError, match="did you mean"):
            synapse_traces(rule, *data(), "hidden.inputs.weight", 0, 0)
        with pytest.raises(ArgumentError, match="5 sources and 6 targets"):
            synapse_traces(rule, *data(), "hidden.input.weight", 5, 0)


class TestCurves:
    def test_bands_are_mean_and_range_over_seeds(self) -> None:
        seeds = [[{"epoch": e, "accuracy": a + 0.1 * e} for e in (1, 2)] for a in (0.2, 0.4)]
        ax = learning_curve.learning_curve_bands({"bptt": seeds, "eprop": seeds[:1]}, "accuracy")
        np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [40, 50])
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (pytest.approx(30), pytest.approx(60))
        assert ax.get_ylabel() == "Accuracy (%)"
        assert len(ax.collections) == 1  # one seed has no band

    def test_a_running_mean_is_a_mean(self) -> None:
        values = np.random.default_rng(0).standard_normal(20)
        for width in (1, 2, 5):
            smooth = comparison_figures.running_mean(values, width)
            middle = 10
            low = middle - (width // 2 if width % 2 else width // 2 - 1)
            np.testing.assert_allclose(smooth[middle], values[low : low + width].mean())
        assert comparison_figures.running_mean(np.full(5, 3.0), 4).tolist() == [3.0] * 5

    def test_bias_and_variance_bars(self) -> None:
        row = {"rule": "a", "parameter": "w", "squared_bias": 1.0, "variance": 3.0, "reference_square": 2.0}
        ax = comparison_figures.bias_and_variance([row, {**row, "reference_square": 0.0}])
        assert [float(bar.get_width()) for bar in ax.patches] == [0.5, 1.5]

    def test_distribution_and_heat_hold_all_entries(self) -> None:
        deviations = np.random.default_rng(0).standard_normal(500)
        ax = comparison_figures.deviation_distributions({"a": deviations})
        assert ax.patches[0].get_data().values.sum() == pytest.approx(1)  # type: ignore[attr-defined]
        heat = comparison_figures.deviation_heat([0, 10, 20], [deviations, deviations, 0 * deviations])
        shares = np.ma.getdata(heat.collections[0].get_array())
        assert shares[:, 2].max() == pytest.approx(1)


class TestStyle:
    def test_colours_differ_in_lightness_too(self) -> None:
        light = sorted(luminance(colour) for colour in style.PALETTE[:3])
        assert min(np.diff(light)) > 0.01
        assert len({(look.colour, look.line) for look in style.looks(map(str, range(20))).values()}) == 20

    def test_a_name_looks_the_same_in_every_figure(self) -> None:
        one, other = style.looks(["a", "b"]), style.looks(["a", "b", "c"])
        assert [one[name] for name in "ab"] == [other[name] for name in "ab"]

    def test_figures_are_written_as_png_and_svg_with_text(self, tmp_path: Path) -> None:
        figure: Any = activity.raster(np.eye(4)).figure
        style.save(figure, tmp_path / "raster.png")
        assert (tmp_path / "raster.png").read_bytes()[:4] == b"\x89PNG"
        assert "Time (ms)" in (tmp_path / "raster.svg").read_text()

    def test_axes_given_are_axes_returned(self) -> None:
        ax = style.new_figure(1).axes[0]
        assert activity.raster(np.eye(3), ax=ax) is ax
        assert activity.histogram({"a": np.ones(2)}, "Weight", ax) is ax
        assert comparison_figures.over_training(np.arange(2), {"a": np.ones(2)}, "x", ax) is ax
