"""Landscape: the loss around a run's weights, and the ways of runs across it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.arguments import integer, number
from neko_rules.errors import IncompatibleError
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.run import Experiment, load_data
from neko_rules.report.learning_curve import axis_label
from neko_rules.report.style import STYLE, new_figure, save
from neko_rules.trainers.checkpoint import read_snapshot
from neko_rules.trainers.landscape import Arrays, Plane, Surface, loss_surface

PREFIX = "parameters/"


@dataclass(frozen=True)
class Landscape:
    """A surface with the ways of runs.

    Args:
        surface: the loss.
        ways: run → points (a, b).
        outside: run → √(Σ d_i² / Σ ‖θ_i - θ‖²), d_i being the distance of its i-th point from the plane.
        figure: the file that was drawn.
    """

    surface: Surface
    ways: dict[str, list[tuple[float, float]]]
    outside: dict[str, float]
    figure: Path


def landscape(
    path: Path,
    trajectories: Sequence[Path] = (),
    *,
    points: int = 21,
    span: float = 1.0,
    examples: int = 512,
    seed: int = 0,
    out: Path | None = None,
) -> Landscape:
    """Draw the loss on a plane through the weights that a run ended with.

    Without trajectories the plane is random and filter-normalised. With trajectories it is that of the principal
    components of their first weights, their checkpoints and their last weights.

    Args:
        path: folder of the run.
        trajectories: folders of runs of networks with the same parameters, ``path`` itself perhaps among them.
        points: along each side of the grid.
        span: how far a random plane reaches, 1 being as far as the weights are long.
        examples: test examples on which the loss is taken.
        seed: of random directions.
        out: where to draw, as ``.png`` and ``.svg``; by default ``landscape.png`` in the run's folder.

    Raises:
        NekoError: a folder holds no run, or runs do not fit together.
    """
    points = integer("--points", points, at_least=3)
    span = number("--span", span, above=0)
    examples = integer("--examples", examples, at_least=1)
    folder = RunFolder.existing(path)
    experiment = Experiment.of_run(folder)
    _, (x, y) = load_data(experiment)
    model = experiment.rule.model
    end = folder.read_weights()
    model.network.set_parameters(end)
    found: dict[str, list[Arrays]] = {}
    for each in trajectories:
        name = each.name if each.name not in found else str(each)
        found[name] = _trajectory(RunFolder.existing(each), model.network.parameters, model.network.inputs)
    if found:
        plane = Plane.principal([point for way in found.values() for point in way], end)
    else:
        plane = Plane.random(end, seed)
    projected = {name: [plane.project(point) for point in way] for name, way in found.items()}
    ways = {name: [(a, b) for a, b, _ in each] for name, each in projected.items()}
    places = np.array([(0.0, 0.0), *(point for way in ways.values() for point in way)])
    along, up = (_side(places[:, axis], span if not found else None, points) for axis in (0, 1))
    surface = loss_surface(model, x[:examples], y[:examples], plane, along, up)
    outside = {name: _share_outside(np.array(each)) for name, each in projected.items()}
    target = (path / "landscape.png") if out is None else out
    loss = experiment.configuration.loss
    _draw(surface, ways, target, axis_label("loss", loss["name"] if isinstance(loss, dict) else "")[0])
    np.savez(target.with_suffix(".npz"), a=surface.a, b=surface.b, loss=surface.loss)
    return Landscape(surface, ways, outside, target.with_suffix(".png"))


def _trajectory(folder: RunFolder, like: Arrays, inputs: int) -> list[Arrays]:
    """First weights, checkpoints and last weights of a run, in order."""
    network: Any = Experiment.of_run(folder).rule.model.network
    network.build(inputs)
    ways = [network.parameters]
    for file in sorted(folder.checkpoints.glob("*.safetensors")):
        state = read_snapshot(file).state
        ways.append({n.removeprefix(PREFIX): value for n, value in state.items() if n.startswith(PREFIX)})
    ways.append(folder.read_weights())
    for point in ways:
        if {n: v.shape for n, v in point.items()} != {n: v.shape for n, v in like.items()}:
            raise IncompatibleError(
                "trajectories on one surface need networks with the same parameters",
                received=str(folder.path),
                works="give runs that differ in their rule or seed alone",
            )
    return ways


def _share_outside(points: np.ndarray) -> float:
    """From (a, b, distance) on orthogonal axes of length 1."""
    whole = float(np.sum(points**2))
    return float(np.sqrt(np.sum(points[:, 2] ** 2) / whole)) if whole else 0.0


def _side(places: np.ndarray, span: float | None, points: int) -> np.ndarray:
    if span is not None:
        return np.linspace(-span, span, points)
    low, high = float(places.min()), float(places.max())
    margin = 0.25 * ((high - low) or 1.0)
    return np.linspace(low - margin, high + margin, points)


def _draw(surface: Surface, ways: dict[str, list[tuple[float, float]]], target: Path, unit: str) -> None:
    import matplotlib

    from neko_rules.report.landscape import loss_landscape

    labels = ("Step along δ (lengths of the weights)", "Step along η")
    if surface.plane.explained is not None:
        one, two = surface.plane.explained
        labels = (f"First principal component ({one:.0%})", f"Second ({two:.0%})")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1, width=4.2, height=3.3)
        loss_landscape(surface.a, surface.b, surface.loss, ways, figure.axes[0], labels, unit)
    save(figure, target)
