"""Loss landscapes: normalised directions, principal planes, the loss on a grid, and ``neko landscape``."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from neko_rules import ALIF, LIF, Evaluator
from neko_rules.cli import main
from neko_rules.errors import ArgumentError
from neko_rules.report.landscape import loss_landscape, round_ticks
from neko_rules.report.style import STYLE, new_figure
from neko_rules.trainers.landscape import Plane, loss_surface

TINY = """
data: {name: mnist1d, num_samples: 60}
model: {name: ALIF, hidden: 8, outputs: 10, threshold: 0.2}
rule: RULE
train: {epochs: 3, batch_size: 16, checkpoint: {every_epochs: 1, keep: null}}
"""


def model() -> Evaluator:
    return Evaluator(ALIF(6, 2, inputs=5, dtype="float64", seed=1))


def data() -> tuple[np.ndarray, np.ndarray]:
    return 3 * np.random.default_rng(0).standard_normal((4, 7, 5)), np.array([0, 1, 0, 1])


class TestPlanes:
    def test_random_directions_are_filter_normalised(self) -> None:
        origin = model().network.parameters
        plane = Plane.random(origin, seed=3)
        for direction in (plane.first, plane.second):
            for name, value in origin.items():
                if value.ndim == 2:
                    lengths = [np.linalg.norm(each, axis=0) for each in (direction[name], value)]
                    np.testing.assert_allclose(*lengths, rtol=1e-12)
                else:
                    assert not direction[name].any()
            assert not np.diagonal(direction["hidden.recurrent.weight"]).any()
        assert not np.allclose(plane.first["hidden.input.weight"], plane.second["hidden.input.weight"])

    def test_seed(self) -> None:
        origin = model().network.parameters
        one, again, other = (Plane.random(origin, seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one.first["hidden.input.weight"], again.first["hidden.input.weight"])
        assert not np.allclose(one.first["hidden.input.weight"], other.first["hidden.input.weight"])

    def test_points_on_a_plane_are_found_again(self) -> None:
        rng = np.random.default_rng(0)
        origin = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
        ways = [{name: rng.standard_normal(value.shape) for name, value in origin.items()} for _ in range(2)]
        points = [
            {name: origin[name] + s * ways[0][name] + t * ways[1][name] for name in origin}
            for s, t in rng.standard_normal((6, 2))
        ]
        plane = Plane.principal(points, origin)
        assert plane.explained is not None
        assert sum(plane.explained) == pytest.approx(1)
        flat = [np.concatenate([each[name].ravel() for name in origin]) for each in (plane.first, plane.second)]
        np.testing.assert_allclose(np.array(flat) @ np.array(flat).T, np.eye(2), atol=1e-12)
        for point in points:
            a, b, outside = plane.project(point)
            assert outside < 1e-10
            for name, value in plane.at(a, b).items():
                np.testing.assert_allclose(value, point[name], atol=1e-12)

    def test_what_sticks_out_is_told(self) -> None:
        origin = {"w": np.zeros((3, 1))}
        plane = Plane(origin, {"w": np.eye(3)[:, :1]}, {"w": np.eye(3)[:, 1:2]})
        assert plane.project({"w": np.array([[3.0], [0.0], [4.0]])}) == pytest.approx((3, 0, 4))

    def test_a_line_is_no_plane(self) -> None:
        origin = {"w": np.zeros((3, 1))}
        with pytest.raises(ArgumentError, match="not on a line"):
            Plane.principal([{"w": np.full((3, 1), k)} for k in (1.0, 2.0, 3.0)], origin)


def test_the_surface_is_the_loss_at_every_point() -> None:
    evaluator, (x, y) = model(), data()
    plane = Plane.random(evaluator.network.parameters)
    before = evaluator.network.parameters
    surface = loss_surface(evaluator, x, y, plane, [-0.5, 0.0, 1.0], [0.0, 0.25])
    for name, value in before.items():
        np.testing.assert_array_equal(evaluator.network.parameters[name], value)
    other = model()
    other.network.set_parameters(plane.at(1.0, 0.25))
    assert surface.loss[1, 2] == other.evaluate(x, y)["loss"]
    assert surface.loss[0, 1] == evaluator.evaluate(x, y)["loss"]


def test_a_bowl_is_drawn_with_its_ways() -> None:
    grid = np.linspace(-2, 2, 9)
    loss = 0.1 + grid[:, None] ** 2 + grid**2
    loss[0, 0] = np.nan
    ax = loss_landscape(grid, grid, loss, {"one": [(1.5, 1.0), (0.0, 0.0)]}, unit="Cross-entropy (nats)")
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [1.5, 0.0])
    loss_landscape(grid, grid, np.ones((9, 9)))
    bar = ax.figure.axes[-1]
    assert bar.get_ylabel() == "Cross-entropy (nats), logarithmic scale"
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0.1", "0.3", "1", "3"]
    even = loss_landscape(grid, grid, 1 + 0.1 * np.abs(grid) + np.zeros((9, 1)), unit="Loss").figure.axes[-1]
    assert even.get_ylabel() == "Loss"


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-0.75, 1.35), (-0.0123, 0.0123), (1000.2, 1001.3), (-130, 170)])
def test_labels_of_ticks_do_not_run_into_each_other(low: float, high: float) -> None:
    grid = np.linspace(low, high, 9)
    with matplotlib.rc_context(STYLE):
        ax: Any = new_figure(1, width=3.6, height=3.0).axes[0]
        loss_landscape(grid, grid, 1 + np.linspace(0, 1, 9)[:, None] + np.linspace(0, 1, 9), ax=ax)
    ax.figure.draw_without_rendering()
    shown = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [tick.label1.get_window_extent() for tick in shown]
    assert 3 <= len(boxes) <= 5
    em = ax.figure.dpi * shown[0].label1.get_fontsize() / 72
    assert all(left.x1 + 0.5 * em <= right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(("low", "high"), [(0.562, 8.2), (0.91, 3.1), (1e-5, 3.0), (2.1, 2.2), (0.0, 1.0), (5, 6)])
def test_ticks_of_the_colours_are_round_and_several(low: float, high: float) -> None:
    for logarithmic in {False, low > 0 and high / low > 3}:
        ticks = round_ticks(low, high, logarithmic)
        assert 4 <= len(ticks) <= 11
        assert low <= min(ticks) <= max(ticks) <= high
        assert all(len(f"{tick:.4g}".strip("0.").replace(".", "")) <= 3 for tick in ticks)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landscape")
    for rule in ("bptt", "ottt"):
        (folder / f"{rule}.yaml").write_text(TINY.replace("RULE", rule))
        assert main(["run", str(folder / f"{rule}.yaml"), "--out", str(folder / f"run-{rule}"), "-q"]) == 0
    return folder


class TestCommand:
    def test_random_directions(self, runs: Path) -> None:
        assert main(["landscape", str(runs / "run-bptt"), "--points", "3", "--examples", "8"]) == 0
        with np.load(runs / "run-bptt" / "landscape.npz") as found:
            assert found["loss"].shape == (3, 3)
            np.testing.assert_array_equal(found["a"], [-1, 0, 1])

    def test_trajectories_of_two_rules(self, runs: Path, capsys: Any) -> None:
        both = [str(runs / "run-bptt"), str(runs / "run-ottt")]
        out = runs / "both.png"
        command = ["landscape", both[0], "--trajectories", *both, "--points", "4", "--examples", "8"]
        assert main([*command, "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"run-ottt: [1-9]\d?% of the distance", shown)
        assert out.is_file()
        assert "First principal component" in out.with_suffix(".svg").read_text()

    def test_networks_that_differ_are_refused(self, runs: Path, tmp_path: Path, capsys: Any) -> None:
        other = tmp_path / "other"
        config = str(runs / "bptt.yaml")
        assert main(["run", config, "--set", "model.hidden=9", "--out", str(other), "-q"]) == 0
        assert main(["landscape", str(runs / "run-bptt"), "--trajectories", str(other)]) == 2
        assert "the same parameters" in " ".join(capsys.readouterr().err.split())


def test_networks_on_other_backends_have_the_same_plane() -> None:
    one, two = (Plane.random(LIF(4, 2, inputs=3, backend="numpy", dtype=d).parameters) for d in ("float32", "float64"))
    np.testing.assert_allclose(one.first["hidden.input.weight"], two.first["hidden.input.weight"], rtol=1e-6)
