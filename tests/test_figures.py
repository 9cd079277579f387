"""Figures show the numbers they are given, with units, in colours that all can tell apart."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from neko_rules import ALIF, BPTT, LIF, OTTT, RNN, EProp, Evaluator, GradientComparison
from neko_rules.backend import is_installed
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.layers.margins import margins, thresholds
from neko_rules.report import activity, comparison_figures, learning_curve, style
from neko_rules.rules import PPProp
from neko_rules.rules.synapse import synapse_traces

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ["numpy", *(name for name in ("torch",) if is_installed(name))]


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 4 * rng.standard_normal((3, 12, 5)), np.array([0, 1, 1])


def words_within(figure: Any) -> list[str]:
    """The texts of a figure, none of which may reach over its edge."""
    figure.draw_without_rendering()
    found, beyond = [], set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond |= {label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        if text.get_visible() and text.get_text().strip() and text not in beyond:
            assert box.x0 > -2, text
            assert box.y0 > -2, text
            assert box.x1 < figure.bbox.x1 + 2, text
            assert box.y1 < figure.bbox.y1 + 2, text
            found.append(text.get_text())
    return found


@pytest.fixture
def benchmark_named(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Benchmarks by their name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


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

    def test_the_key_of_a_membrane_lies_on_no_trace(self) -> None:
        ax = activity.membrane(np.linspace(0, 1, 9), 0.5, np.ones(9))
        words_within(ax.figure)
        assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1  # type: ignore[union-attr]

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
        assert {"sender", "receiver", traces.name} <= set(words_within(ax.figure))

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
        other = {**row, "rule": "b"}
        ax = comparison_figures.bias_and_variance([row, other, {**row, "parameter": "u"}])
        assert [text.get_text() for text in ax.get_yticklabels()] == ["w", "a", "b", "u", "a"]
        key = ax.get_legend().get_patches()  # type: ignore[union-attr]
        assert len({patch.get_edgecolor() for patch in key} & {bar.get_edgecolor() for bar in ax.patches}) == 0

    def test_distribution_and_heat_hold_all_entries(self) -> None:
        deviations = np.random.default_rng(0).standard_normal(500)
        ax = comparison_figures.deviation_distributions({"a": deviations})
        assert ax.patches[0].get_data().values.sum() == pytest.approx(1)  # type: ignore[attr-defined]
        heat = comparison_figures.deviation_heat([0, 10, 20], [deviations, deviations, 0 * deviations])
        shares = np.ma.getdata(heat.collections[0].get_array())
        assert shares[:, -1].max() == pytest.approx(1)

    @pytest.mark.parametrize("kept", [[0, 100], [0], [5, 6, 40, 124], list(range(125))])
    def test_only_batches_that_were_kept_have_a_column(self, kept: list[int]) -> None:
        deviations = np.random.default_rng(0).standard_normal(500)
        heat = comparison_figures.deviation_heat(kept, [deviations] * len(kept), extent=(0, 124))
        mesh: Any = heat.collections[0]
        edges, shown = mesh.get_coordinates()[0, :, 0], ~np.ma.getmaskarray(mesh.get_array()).all(axis=0)
        middles, widths = (0.5 * (edges[1:] + edges[:-1]))[shown], np.diff(edges)[shown]
        np.testing.assert_allclose(middles, kept, atol=1e-12)
        # At least a batch wide, which is all of the way to the next where every batch was kept.
        np.testing.assert_allclose(widths, 1.0 if len(kept) > 3 else 124 / 40)
        low, high = heat.get_xlim()
        assert (low, high) == (pytest.approx(-widths[0] / 2), pytest.approx(124 + widths[0] / 2))

    def test_one_kept_batch_is_no_course(self) -> None:
        x, y = data()
        model = Evaluator(ALIF(6, 2, seed=1, threshold=0.2))
        result = GradientComparison(BPTT(model), {"random": EProp(model, mode="random")}).train(x, y, 4, 3)
        assert result.kept == [0]
        figure = result.plot()
        last = next(ax for ax in figure.axes if "Deviations over training" in ax.get_title(loc="left"))
        assert not last.collections
        assert any("1 batch was kept in full" in word for word in words_within(figure))

    @pytest.mark.parametrize("hidden", [6, [6, 5]])
    def test_a_comparison_shows_every_rule_alike_in_every_panel(self, hidden: Any) -> None:
        x, y = data()
        model = Evaluator(ALIF(hidden, 2, seed=1, threshold=0.2))
        others = {"symmetric": EProp(model), "random": EProp(model, mode="random"), "ottt": OTTT(model)}
        result = GradientComparison(BPTT(model), others, keep_every=4).train(x, y, epochs=7, batch_size=3)
        figure = result.plot()
        words = words_within(figure)
        titles = {ax.get_title(loc="left").partition("  ")[2]: ax for ax in figure.axes if ax.get_title(loc="left")}
        assert len(titles) == 6

        def forms(title: str) -> set[tuple[str, str]]:
            return {(str(line.get_color()), line.get_linestyle()) for line in titles[title].get_lines()}

        assert len(forms("Direction")) == 3
        assert forms("Direction") == forms("Direction by layer") == forms("Size of the deviations")
        layers = 1 if hidden == 6 else 2
        marked = {line.get_marker() for line in titles["Direction by layer"].get_lines()}
        assert len(marked) == layers
        assert len(titles["Direction by layer"].get_lines()) == 3 * layers
        whole = (-0.5, 6.5)
        strips = [ax for ax in figure.axes if ax.collections and ax.get_xlim() == whole and ax.get_ylabel() != "x"]
        assert len([ax for ax in strips if any(text.get_text() in others for text in ax.texts)]) == 3
        assert not [text for text in words if "weight (" in text]


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


class TestBenchmarks:
    def test_cosines_are_in_cells_of_their_own_and_none_is_cut_off(self, benchmark_named: Any) -> None:
        benchmark = benchmark_named("cosine_to_bptt")
        rules = ["BPTT", "OTTT", "DFA"]
        results = {
            f"{rule}/{code}/{depth}/{seed}": [cosine] * depth + [1.0]
            for rule, cosine in zip(rules, (1.0, 0.5, -0.9), strict=True)
            for code in benchmark.CODES
            for depth in benchmark.DEPTHS
            for seed in (0, 1)
        }
        figure = benchmark.figure(results, rules, [0, 1])
        words = words_within(figure)
        panels = [ax for ax in figure.axes if ax.images]
        assert len(panels) == len(benchmark.CODES) * len(benchmark.DEPTHS)
        for ax in panels:
            [image] = ax.images
            assert image.get_clim() == (-1, 1)
            assert len(ax.texts) == image.get_array().size
            assert len({(round(text.get_position()[0]), round(text.get_position()[1])) for text in ax.texts}) == len(
                ax.texts
            )
            assert not [line for line in ax.get_lines() if len(set(line.get_ydata())) > 2]
        assert "−.90" in words
        assert [text.get_text() for text in panels[0].get_yticklabels()] == rules

    def test_a_part_of_the_cosines_leaves_the_docs_as_they_are(
        self, benchmark_named: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        benchmark = benchmark_named("cosine_to_bptt")
        shown = benchmark.places(benchmark.NAME, True)
        kept = [shown.results, *shown.figure.parent.glob("cosine_to_bptt.*")]
        before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
        monkeypatch.setattr(sys, "argv", ["cosine_to_bptt.py", "--seeds", "0", "--rules", "DFA", "OTTT"])
        monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
        benchmark.main()
        assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept] == before
        found = json.loads((tmp_path / "cosine_to_bptt.json").read_text())
        assert {key.split("/")[0] for key in found} == {"DFA", "OTTT"}
        printed = capsys.readouterr().out
        assert str(tmp_path) in printed
        assert {line.split(" | ")[0] for line in printed.splitlines() if line[2:3].isupper()} == {"| DFA", "| OTTT"}

    def test_what_is_measured_as_the_docs_show_it_goes_there(self, benchmark_named: Any, tmp_path: Path) -> None:
        places = benchmark_named("cosine_to_bptt").places
        docs = Path(__file__).parents[1] / "docs"
        assert places("speed", True) == (docs / "results" / "speed.json", docs / "figures" / "speed.png")
        assert places("speed", True, tmp_path / "new") == (tmp_path / "new/speed.json", tmp_path / "new/speed.png")
        looked = places("speed", False, ending=".npz")
        assert looked.results.name == "speed.npz"
        assert docs not in looked.results.parents
        assert looked.figure.parent.is_dir()

    def test_costs_stand_by_rule_the_fastest_first(self, benchmark_named: Any) -> None:
        benchmark = benchmark_named("cost_by_rule")
        results = json.loads((benchmark.DOCS / "results" / "cost_by_rule.json").read_text())
        figure = benchmark.figure(results)
        words_within(figure)
        times, memory = figure.axes
        rules = {name.removesuffix(", online") for name in (*benchmark.DEFERRED, *benchmark.ONLINE)}
        names = [text.get_text() for text in times.get_yticklabels()]
        assert len(names) == len(rules)
        assert set(names) == rules
        best = [
            min(v["ms"] for k, v in results.items() if k in {f"{n}/ALIF/10000", f"{n}, online/ALIF/10000"})
            for n in names
        ]
        assert best == sorted(best)
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(set(legend)) == len(legend) == 5
        assert len(memory.collections) == len(benchmark.DEFERRED) + len(benchmark.ONLINE)
        heights = [tuple(each.get_offsets()[:, 1]) for each in memory.collections]
        assert len(set(heights)) == len(heights)

    def test_figures_of_speed_keep_within_their_edges(self, benchmark_named: Any) -> None:
        figures = benchmark_named("speed.figures")
        tables = benchmark_named("speed.tables")
        suites = benchmark_named("speed.suites").SUITES
        kept = tables.read_records(ROOT / "docs" / "results" / "speed.json")["records"]
        kept = sorted(kept, key=lambda record: (suites.index(record["suite"]), record["threads"]))
        figure = figures.by_suite(tables.by_processor(kept)[0])
        words_within(figure)
        assert figure.get_figheight() < 14
        for ax in figure.axes:
            low, high = ax.get_xlim()
            shown = [text.get_window_extent() for text in ax.get_xticklabels() if low <= text.get_position()[0] <= high]
            assert len(shown) >= 2
            assert all(left.x1 < right.x0 for left, right in pairwise(shown))
        curves = json.loads((ROOT / "docs" / "results" / "speed_scaling.json").read_text())["curves"]
        figure = figures.by_size(curves)
        words_within(figure)
        low, high = figure.axes[len(curves)].get_ylim()
        assert len([tick for tick in figure.axes[len(curves)].get_yticks() if low <= tick <= high]) >= 4
        assert "process" in figure.axes[len(curves)].get_ylabel()
