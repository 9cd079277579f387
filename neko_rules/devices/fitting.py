"""Fitting: a device model from a measured pulse curve, with the uncertainty of every parameter and a picture."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.devices.device import DEVICES, Device
from neko_rules.devices.steps import Constant, Exponential, Linear, Power, SoftBounds, Tabulated, shape_fields
from neko_rules.errors import ArgumentError, DataError, nearest

DIRECTIONS = {"up": 1, "set": 1, "1": 1, "+1": 1, "1.0": 1, "down": -1, "reset": -1, "-1": -1, "-1.0": -1}
NODES = 5
"""Values in a fitted table."""

PRECISION: dict[str, Any] = {"ftol": 1e-12, "xtol": 1e-12, "max_nfev": 150}
"""Of least squares: how near, and after how many trials a start is left that leads nowhere."""


@dataclass(frozen=True)
class Curve:
    """A pulse curve: conductances before the first and after every pulse, in siemens, and the pulses' directions."""

    conductances: np.ndarray
    directions: np.ndarray


@dataclass(frozen=True)
class Fit:
    """A fitted device.

    Args:
        device: the device; its ``cycle_noise`` is what the steps scatter by.
        uncertainty: standard error of every fitted field, in its unit, none of those that were fixed; ``step`` and
            ``asymmetry`` have theirs from the covariance of the steps up and down.
        curve: what was measured.
        predicted: the noise-free curve of the device, in S.
    """

    device: Device
    uncertainty: dict[str, float]
    curve: Curve
    predicted: np.ndarray

    @property
    def residuals(self) -> np.ndarray:
        """Measured minus predicted, in S."""
        return self.curve.conductances - self.predicted

    @property
    def determination(self) -> float:
        """R², the part of the variance of the measured conductances that the fit explains."""
        measured = self.curve.conductances
        return float(1 - np.sum(self.residuals**2) / np.sum((measured - measured.mean()) ** 2))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the measured curve, the fit and the residuals, and write them to a file (PNG, SVG or PDF)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        pulses = np.arange(len(self.predicted))
        upper.plot(pulses, 1e6 * self.curve.conductances, ".", markersize=3, color="#0072B2", label="measured")
        upper.plot(pulses, 1e6 * self.predicted, color="#D55E00", label=type(self.device).__name__)
        upper.set_ylabel("Conductance (µS)")
        upper.legend(frameon=False)
        upper.set_title(f"R² = {self.determination:.4f}", fontsize=9)
        lower.axhline(0, color="0.7", linewidth=0.8)
        lower.plot(pulses, 1e6 * self.residuals, ".", markersize=3, color="#0072B2")
        lower.set_ylabel("Residual (µS)")
        lower.set_xlabel("Pulse")
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)
        return Path(path)

    def __str__(self) -> str:
        units = {each.name: Device.__dataclass_fields__.get(each.name) for each in fields(self.device)}
        lines = [f"{type(self.device).__name__}, R² = {self.determination:.4f}"]
        for name, error in self.uncertainty.items():
            known = units.get(name)
            unit = known.metadata["unit"] if known else ""
            lines.append(f"  {name:12} {getattr(self.device, name):.4g} ± {error:.2g} {unit}".rstrip())
        return "\n".join(lines)


def read_curve(path: str | os.PathLike[str]) -> Curve:
    """Read a pulse curve from a CSV file with the columns ``conductance`` (S) and ``direction``.

    The first row is the conductance before the first pulse; the direction of each other row is that of the pulse
    before it: ``up`` or ``down`` (or 1 and -1, set and reset). Without the column, pulses are up as far as the largest
    conductance and down from there, which noise may shift by a few pulses. Names may be padded and have capitals, and
    other columns may stand beside them.

    Raises:
        DataError: the file lacks the column or has two of one name, calls the direction something else, has fewer than
            four rows, is not in UTF-8, or holds something else.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            table.fieldnames = _columns(table.fieldnames or ())
            rows = list(table)
    except OSError as error:
        raise DataError("a pulse curve must be a readable CSV file", received=f"{error.strerror}: {path}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("a pulse curve must be a CSV file in UTF-8", received=f"{path}: {error}") from error
    if not rows or "conductance" not in rows[0]:
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise DataError("a pulse curve must have the column 'conductance', in siemens", received=found)
    values = []
    for line, row in enumerate(rows, start=2):
        try:
            values.append(float(row["conductance"]))
        except (TypeError, ValueError) as error:
            raise DataError(f"line {line} of {path} must hold a conductance", received=row["conductance"]) from error
    if "direction" not in rows[0]:
        return curve_of(values)
    directions = []
    for line, row in enumerate(rows[1:], start=3):
        word = str(row["direction"]).strip().lower()
        if word not in DIRECTIONS:
            raise DataError(f"line {line} of {path} must hold a direction, up or down", received=row["direction"])
        directions.append(DIRECTIONS[word])
    return curve_of(values, directions)


def _columns(header: Sequence[str]) -> list[str]:
    """The names of columns without capitals and padding, refused where it is not clear which one is meant."""
    names = [name.strip().lower() for name in header]
    for wanted in ("conductance", "direction"):
        if names.count(wanted) > 1:
            raise DataError(
                f"a pulse curve must have one column {wanted!r}", received=f"{names.count(wanted)} of that name"
            )
    near = [name for name in names if "direction" in name]
    if near and "direction" not in near:
        raise DataError(
            "which column holds the directions must be clear, or they would be guessed",
            received=", ".join(near),
            works="call it 'direction'",
        )
    return names


def curve_of(conductances: Sequence[float], directions: Sequence[int] | None = None) -> Curve:
    """A pulse curve from numbers: conductances in S, and the direction (±1) of the pulse before each but the first.

    Raises:
        DataError: too few or non-finite values, or another number of directions.
    """
    measured = np.asarray(conductances, np.float64)
    if measured.ndim != 1 or len(measured) < 4 or not np.isfinite(measured).all():
        raise DataError("a pulse curve needs at least four finite conductances", received=f"shape {measured.shape}")
    if np.ptp(measured) <= 0 or measured.min() < 0:
        raise DataError(
            "conductances must vary and not be negative", received=f"{measured.min():g} … {measured.max():g} S"
        )
    if directions is None:
        # Up to the (last) largest value and down from there, the usual form of a measurement.
        top = len(measured) - 1 - int(np.argmax(measured[::-1]))
        directions = [1 if place < top else -1 for place in range(len(measured) - 1)]
    given = np.asarray(directions, np.float64)
    if given.shape != (len(measured) - 1,) or not np.isin(given, (-1, 1)).all():
        raise DataError(
            "a pulse curve needs a direction, 1 or -1, for every conductance but the first", received=f"{given.shape}"
        )
    return Curve(measured, given)


def fit(
    curve: Curve | str | os.PathLike[str] | Sequence[float], model: type[Device] | str = SoftBounds, **fixed: Any
) -> Fit:
    """Fit a device model to a pulse curve by least squares on the conductances.

    Fitted are the steps up and down, the shape of the model, the first conductance, and for soft bounds and powers the
    ends of the range, which the curve does not reach; the other models' range is that of the curve. The standard
    errors come from the covariance s² (JᵀJ)⁻¹ with s² the residual variance: they hold for noise of the reads, and take
    a range that is the curve's for known. Cycle noise adds up along a curve, and where it is large they are too small:
    fit several curves and look at the spread. The fitted cycle noise is the scatter of the measured changes about the
    predicted ones, relative to ΔG, so that ``noise`` is additive: read noise in the measurement counts to it.

    Args:
        curve: a Curve, a CSV file as ``read_curve`` takes it, or conductances up to a maximum and down again.
        model: a model class or its name.
        fixed: fields that are not fitted but set, such as ``pulse_width``.

    Raises:
        DataError: the curve is not one.
        ArgumentError: the model is a preset or no class, or has no field of a name that is set.

    Example:
        >>> measured = SoftBounds(step=4e-6, asymmetry=0.1).curve([1] * 60 + [-1] * 60)
        >>> found = fit(measured)
        >>> print(f"{found.device.step:.2e} {found.device.asymmetry:.3f} {found.determination:.4f}")
        4.00e-06 0.100 1.0000
    """
    if isinstance(model, str):
        model = DEVICES[model]  # type: ignore[assignment]
    if not isinstance(model, type) or model not in _STARTS:
        raise ArgumentError(
            "a fit takes a model class",
            received=model.__name__ if isinstance(model, type) else model,
            works="Constant, Linear, SoftBounds, Power, …",
        )
    known = [each.name for each in fields(model)]
    for name in fixed:
        if name not in known:
            raise ArgumentError(f"a {model.__name__} has no field {name!r} to set", works=nearest(name, known))
    if isinstance(curve, (str, os.PathLike)):
        curve = read_curve(curve)
    elif not isinstance(curve, Curve):
        curve = curve_of(curve)
    problem = _Problem(curve, model, fixed)
    return problem.solved()


class _Problem:
    """The least-squares problem in numbers of order one: conductances in units of the curve's range."""

    def __init__(self, curve: Curve, model: type[Device], fixed: dict[str, Any]) -> None:
        self.curve, self.model, self.fixed = curve, model, fixed
        self.low, self.high = float(curve.conductances.min()), float(curve.conductances.max())
        self.unit = self.high - self.low
        self.open = model in (SoftBounds, Power)
        self.flat = not self.open and _rests(curve.conductances, self.low, self.high) > 2
        """Whether the curve stays at an end of its range, where a hard bound must be."""
        self.shape = tuple(name for name in shape_fields(model) if name not in fixed)
        sides = [side for side, sign in (("up", 1), ("down", -1)) if (curve.directions == sign).any()]
        self.sides = sides
        names = ["start", *(f"step_{side}" for side in sides)]
        first, lower, upper = [curve.conductances[0] / self.unit], [-np.inf], [np.inf]
        for side in sides:
            sign = 1 if side == "up" else -1
            moves = np.diff(curve.conductances)[curve.directions == sign] * sign
            # The largest of smoothed moves: where the steps start.
            window = max(1, len(moves) // 10)
            smooth = np.convolve(moves, np.ones(window) / window, "valid")
            first.append(float(np.clip(smooth.max() / self.unit, 1e-5, 0.9)))
            lower.append(1e-7)
            upper.append(1.0)
        if self.open:
            names += ["below", "above"]  # how far the range goes beyond the curve
            first += [0.02, 0.05]
            # Read noise reaches beyond the range, so that the range may also end within the curve.
            lower += [-0.2, -0.2]
            upper += [min(self.low / self.unit, 5.0) + 1e-12, 5.0]
        self.layout: list[tuple[str, int]] = []
        for name in self.shape:
            start, bounds = _STARTS[model][name.split("_")[0]]
            if name.split("_")[-1] not in sides:
                continue  # nothing is known about a direction without pulses
            values = start if isinstance(start, tuple) else (start,)
            self.layout.append((name, len(values)))
            for i, value in enumerate(values):
                # The first value of a table is 1: its scale is the step's.
                tied = isinstance(start, tuple) and i == 0
                if not tied:
                    names.append(f"{name}[{i}]" if isinstance(start, tuple) else name)
                    first.append(value)
                    lower.append(bounds[0])
                    upper.append(bounds[1])
        self.names, self.first, self.bounds = names, np.array(first), (np.array(lower), np.array(upper))
        self.first = np.clip(self.first, self.bounds[0], self.bounds[1])

    def device(self, x: np.ndarray, **more: Any) -> Device:
        """The device of a point."""
        p = {name: float(value) for name, value in zip(self.names, x, strict=True)}
        below, above = p.get("below", 0.0) * self.unit, p.get("above", 0.0) * self.unit
        up = p.get("step_up", p.get("step_down", 0.0)) * self.unit
        down = p.get("step_down", p.get("step_up", 0.0)) * self.unit
        shape: dict[str, Any] = {}
        for name, count in self.layout:
            shape[name] = p[name] if name in p else (1.0, *(p[f"{name}[{i}]"] for i in range(1, count)))
        given = {
            "g_min": max(self.low - below, 0.0),
            "g_max": self.high + above,
            "step": (up + down) / 2,
            "asymmetry": (up - down) / (up + down),
            **shape,
        }
        return self.model(**{**given, **self.fixed, **more})

    def predicted(self, x: np.ndarray) -> np.ndarray:
        """The noise-free curve of a point."""
        device, nx = self.device(x), get_backend("numpy")
        cells, held = device.nominal(), [np.array(x[0] * self.unit)]
        for direction in self.curve.directions:
            after = held[-1] + device.change(nx, held[-1], direction, cells)
            # Without a bound where none was met: it would make kinks, at which a fit gets stuck.
            held.append(np.clip(after, self.low, self.high) if self.flat else after)
        return np.array(held)

    def solved(self) -> Fit:
        """The best point, its uncertainty, and the noise that is left."""
        from scipy.optimize import least_squares

        def residuals(x: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):  # a trial that leaves the range far behind
                return (self.predicted(x) - self.curve.conductances) / self.unit

        # Bounds make kinks, at which one start may get stuck.
        found = min(
            (
                least_squares(residuals, start, bounds=self.bounds, x_scale="jac", **PRECISION)
                for start in self._starts()
            ),
            key=lambda result: float(result.cost),
        )
        predicted = self.predicted(found.x)
        freedom = max(len(predicted) - len(found.x), 1)
        variance = float(np.sum(found.fun**2)) / freedom
        covariance = variance * np.linalg.pinv(found.jac.T @ found.jac)
        device = self.device(found.x)
        noise = self._noise(device)
        if noise > 1e-9 and "cycle_noise" not in self.fixed:
            device = self.device(found.x, cycle_noise=noise, noise="additive")
        return Fit(device, self._uncertainty(found.x, covariance), self.curve, predicted)

    def _starts(self) -> list[np.ndarray]:
        steps = np.array([name.startswith("step_") for name in self.names])
        tried = [np.where(steps, factor * each, each) for each in self._shapes() for factor in (1.0, 0.7)]
        return [np.clip(each, self.bounds[0], self.bounds[1]) for each in tried]

    def _shapes(self) -> list[np.ndarray]:
        """Where shapes start: where a model has shapes of two kinds, with each of them in each direction."""
        shapes = [self.first]
        for side in self.sides:
            for each in list(shapes) if self.model is Exponential else ():
                other = dict(zip(self.names, each.tolist(), strict=True))
                if f"a_{side}" in other and f"k_{side}" in other:
                    # The first step is then 1 - A times as long.
                    other |= {f"a_{side}": -1.0, f"k_{side}": -4.0, f"step_{side}": other[f"step_{side}"] / 2}
                    shapes.append(np.array(list(other.values())))
        return shapes

    def _noise(self, device: Device) -> float:
        """The scatter of measured changes about those predicted from the measured conductance, relative to ΔG."""
        nx, measured = get_backend("numpy"), self.curve.conductances
        within = np.clip(measured[:-1], device.g_min, device.g_max)
        expected = device.change(nx, within, self.curve.directions, device.nominal())
        # What the end of the range cuts off is no noise.
        whole = (within + expected >= device.g_min) & (within + expected <= device.g_max)
        scatter = (np.diff(measured) - expected)[whole]
        return float(np.std(scatter) / device.step) if scatter.size else 0.0

    def _uncertainty(self, x: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
        """Standard errors √(gᵀ C g) of the device's fields, g being a field's gradient in the fitted numbers."""

        def error(**gradient: float) -> float:
            g = np.array([gradient.get(name, 0.0) for name in self.names])
            # Rounding may leave a variance of nothing a little below 0.
            return math.sqrt(max(float(g @ covariance @ g), 0.0))

        p = dict(zip(self.names, x.tolist(), strict=True))
        up, down = (p.get(f"step_{side}") for side in ("up", "down"))
        said: dict[str, float] = {}
        if up is not None and down is not None:
            total = (up + down) ** 2
            said["step"] = self.unit * error(step_up=0.5, step_down=0.5)
            said["asymmetry"] = error(step_up=2 * down / total, step_down=-2 * up / total)
        else:
            said["step"] = self.unit * error(**{f"step_{self.sides[0]}": 1.0})
        if self.open:
            said |= {"g_min": self.unit * error(below=1.0), "g_max": self.unit * error(above=1.0)}
        said |= {name: error(**{name: 1.0}) for name, count in self.layout if count == 1}
        return {name: value for name, value in said.items() if name not in self.fixed}


def _rests(conductances: np.ndarray, low: float, high: float) -> int:
    """How many pulses at an end of the range (within a hundredth of it) moved nothing to speak of."""
    moves = np.abs(np.diff(conductances))
    slack = 0.01 * (high - low)
    at_end = (conductances[1:] >= high - slack) | (conductances[1:] <= low + slack)
    # Of those elsewhere: most pulses of a curve may have come when its end was reached.
    usual = np.median(moves[~at_end]) if not at_end.all() else moves.max()
    return int(np.sum((moves < 0.05 * usual) & at_end))


_STARTS: dict[type[Device], dict[str, tuple[Any, tuple[float, float]]]] = {
    Constant: {},
    Linear: {"gamma": (0.5, (-5.0, 1.0))},
    SoftBounds: {},
    Power: {"gamma": (1.0, (0.0, 8.0))},
    Exponential: {"a": (0.2, (-20.0, 1.0)), "k": (1.0, (-8.0, 8.0))},
    Tabulated: {"table": ((1.0,) * NODES, (0.0, 5.0))},
}
"""Where the shape parameters of a model start, by the first part of their names, and their bounds."""
