"""Loss landscapes: the loss on a plane through parameter space, and the ways of several rules across it.

    L(a, b) = L(θ + a δ + b η)

Directions δ, η are either random and filter-normalised: the weights into each neuron are drawn from a normal
distribution and given the length of that neuron's own weights, so that a step of 1 is as large for every neuron and
surfaces of differently scaled networks can be compared; or the first two principal components of trajectories
θ_0 … θ_n. Biases and learnable constants stay as they are on a random plane.

Reference: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, Visualizing the loss landscape of neural nets, NeurIPS
2018, sections 4 (filter normalisation) and 7 (trajectories).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, ComparisonError
from neko_rules.evaluator import Evaluator
from neko_rules.seeding import stream

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Plane:
    """A plane through parameter space.

    Args:
        origin: θ by parameter.
        first: δ.
        second: η.
        explained: the shares of the trajectories' variance along δ and η; None for random directions.

    Example:
        >>> from neko_rules import LIF
        >>> plane = Plane.random(LIF(8, 2, inputs=3).parameters, seed=1)
        >>> weight, direction = (each["hidden.input.weight"] for each in (plane.origin, plane.first))
        >>> bool(np.allclose(np.linalg.norm(weight, axis=0), np.linalg.norm(direction, axis=0)))
        True
    """

    origin: Arrays
    first: Arrays
    second: Arrays
    explained: tuple[float, float] | None = None

    @classmethod
    def random(cls, parameters: Mapping[str, np.ndarray], seed: int = 0) -> Plane:
        """Two random directions, filter-normalised.

        Args:
            parameters: θ.
            seed: of the directions, which are the same on every backend.
        """
        origin = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
        first, second = (
            {name: _filter_normalised(value, stream(seed, f"{way} {name}")) for name, value in origin.items()}
            for way in ("first", "second")
        )
        return cls(origin, first, second)

    @classmethod
    def principal(cls, points: Sequence[Mapping[str, np.ndarray]], origin: Mapping[str, np.ndarray]) -> Plane:
        """The plane of the first two principal components of θ_i - θ.

        Args:
            points: θ_i of all trajectories together.
            origin: θ, the end of a training.

        Raises:
            ArgumentError: the points span no plane.
        """
        start = {name: np.asarray(value, np.float64) for name, value in origin.items()}
        apart = np.stack([_flat(point, start) for point in points]) if points else np.zeros((0, 1))
        _, lengths, rows = np.linalg.svd(apart, full_matrices=False)
        if len(lengths) < 2 or lengths[1] <= 1e-9 * max(lengths[0], 1e-300):
            raise ArgumentError(
                "a plane needs trajectories with at least three points that are not on a line",
                received=f"{len(points)} points",
                works="keep more checkpoints (train.checkpoint.keep), or give more runs",
            )
        shares = lengths**2 / np.sum(lengths**2)
        # An axis may point either way: the one in which its largest entry is positive makes it unique.
        one, two = (row * np.sign(row[np.abs(row).argmax()]) for row in rows[:2])
        return cls(start, _unflat(one, start), _unflat(two, start), (float(shares[0]), float(shares[1])))

    def at(self, a: float, b: float) -> Arrays:
        """θ + a δ + b η."""
        return {name: value + a * self.first[name] + b * self.second[name] for name, value in self.origin.items()}

    def project(self, parameters: Mapping[str, np.ndarray]) -> tuple[float, float, float]:
        """The nearest point (a, b) of the plane, and its distance from the parameters."""
        apart = _flat(parameters, self.origin)
        zero = {name: np.zeros_like(value) for name, value in self.origin.items()}
        axes = np.stack([_flat(self.first, zero), _flat(self.second, zero)], axis=1)
        place, *_ = np.linalg.lstsq(axes, apart, rcond=None)
        return float(place[0]), float(place[1]), float(np.linalg.norm(apart - axes @ place))


@dataclass(frozen=True)
class Surface:
    """The loss on a grid of a plane.

    Args:
        plane: where.
        a: [columns], steps along δ.
        b: [rows], steps along η.
        loss: [rows, columns].
    """

    plane: Plane
    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray


def loss_surface(
    model: Evaluator,
    x: Any,
    y: Any,
    plane: Plane,
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    batch_size: int = 512,
) -> Surface:
    """The loss of a model on a grid of a plane; the model's own weights are left alone.

    Args:
        model: an Evaluator.
        x: [batch, time, feature].
        y: targets.
        plane: through the model's parameters.
        a: steps along the first direction.
        b: steps along the second.
        batch_size: examples that run side by side.

    Raises:
        ComparisonError: the loss is nowhere finite.

    Example:
        >>> from neko_rules import LIF
        >>> model = Evaluator(LIF(8, 2, inputs=3))
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> surface = loss_surface(model, x, y, Plane.random(model.network.parameters), [-1, 0, 1], [0])
        >>> surface.loss.shape, bool(np.isclose(surface.loss[0, 1], model.evaluate(x, y)["loss"]))
        ((1, 3), True)
    """
    twin = model.clone()
    twin.check(x, y)
    arguments.integer("batch_size", batch_size, at_least=1)
    found = np.full((len(b), len(a)), np.nan)
    with np.errstate(all="ignore"):
        for row, up in enumerate(b):
            for column, along in enumerate(a):
                twin.network.set_parameters(plane.at(float(along), float(up)))
                found[row, column] = twin.evaluate(x, y, batch_size=batch_size)["loss"]
    if not np.isfinite(found).any():
        raise ComparisonError("a loss surface needs a finite loss somewhere", received="NaN or infinite everywhere")
    return Surface(plane, np.asarray(a, float), np.asarray(b, float), found)


def _filter_normalised(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random matrix whose columns, the weights into one neuron each, are as long as those of the given one."""
    if value.ndim < 2:
        return np.zeros_like(value)
    drawn = random.standard_normal(value.shape)
    # What is exactly zero is no weight, such as the diagonal of recurrent connections.
    drawn[value == 0] = 0
    lengths = np.linalg.norm(drawn, axis=0)
    return drawn * (np.linalg.norm(value, axis=0) / np.where(lengths > 0, lengths, 1.0))


def _flat(parameters: Mapping[str, np.ndarray], origin: Arrays) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(parameters[name], np.float64) - origin[name]) for name in origin])


def _unflat(vector: np.ndarray, like: Arrays) -> Arrays:
    found, start = {}, 0
    for name, value in like.items():
        found[name] = vector[start : start + value.size].reshape(value.shape)
        start += value.size
    return found
