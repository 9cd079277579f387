"""Evaluator: a model with its loss and metrics; one forward pass, and everything else is read from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.layers.forward import Record, Signals, Trajectory, Z
from neko_rules.layers.network import Network
from neko_rules.layers.pooling import pool, unpool
from neko_rules.losses import LOSSES, Loss, output_gradient, weighted_total
from neko_rules.metrics import METRICS, Measurement, Metric, TopK
from neko_rules.recorded import Recorded
from neko_rules.targets import Targets, as_array, encode

_TASK_OF_TARGETS = {"classes": "classification", "labels": "classification", "values": None}
_USUAL_LOSS = {"classification": "categorical_crossentropy", "regression": "mean_squared_error"}


@dataclass(frozen=True)
class Judgement:
    """What a forward pass is worth, in backend arrays.

    Args:
        loss: the loss, a scalar.
        signals: dE/dy [time, batch, n_out] of the output population, and of its states if the loss looks at them.
        totals: name → (total, count) of the loss and of every metric; their ratio is the figure, and batches add up.
    """

    loss: Array
    signals: Signals
    totals: dict[str, tuple[Array, Array]]


class Observer(Protocol):
    """What is told of the forward passes of an evaluation."""

    key: str
    recorded: Recorded

    def begin(self) -> None:
        """Forget what was recorded."""

    def observe(self, trajectory: Trajectory, first: int) -> None:
        """Look at a part of the data set, whose first example has that number."""


class Evaluator:
    """A model, the loss it is judged by, and the metrics that are reported.

    Args:
        network: the model.
        loss: name, mapping or Loss; cross-entropy for classification and squared error for regression by default.
        metrics: names, mappings or Metrics.

    The loss is the mean over examples and supervised time steps. Where the model's outputs are taken at every step and
    a target is given once per sequence, it holds at every step.

    Example:
        >>> from neko_rules import LIF
        >>> model = Evaluator(LIF(8, 2, inputs=3), metrics=["accuracy"])
        >>> x, y = np.ones((4, 5, 3)), [0, 1, 0, 1]
        >>> sorted(model.evaluate(x, y))
        ['accuracy', 'loss']
        >>> model.predict(x).shape
        (4, 5, 2)
    """

    def __init__(
        self,
        network: Network,
        loss: str | Mapping[str, Any] | Loss | None = None,
        metrics: Sequence[str | Mapping[str, Any] | Metric] = (),
    ) -> None:
        if not isinstance(network, Network):
            raise IncompatibleError("an Evaluator takes a Network such as ALIF(128, 10)", received=network)
        self.network = network
        self.loss = LOSSES.resolve(loss if loss is not None else _USUAL_LOSS[network.task_type])
        if isinstance(metrics, (str, Mapping)) or not isinstance(metrics, Sequence):
            raise ArgumentError("metrics must be a list", received=metrics, works="for example ['accuracy']")
        self.metrics = tuple(METRICS.resolve(metric) for metric in metrics)
        self._check_fit()

    def _check_fit(self) -> None:
        """Refuse a loss or metric that has no meaning for this model."""
        task = self.network.task_type
        needed = _TASK_OF_TARGETS[self.loss.target_kind]
        if needed not in (None, task):
            raise IncompatibleError(
                f"the loss {type(self.loss).__name__} is for {needed}",
                received=f"a model with task_type={task!r}",
                works="use mean_squared_error, mean_absolute_error or poisson, or task_type='classification'",
            )
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ArgumentError("each metric can be given once", received=names)
        for metric in self.metrics:
            if isinstance(metric, TopK) and metric.k > self.network.outputs:
                raise IncompatibleError(
                    "top-k accuracy needs a k of at most the number of outputs",
                    received=f"k = {metric.k} for {self.network.outputs} outputs",
                )
            if metric.requires == "classes" and task != "classification":
                raise IncompatibleError(
                    f"the metric {metric.name} is for classification", received=f"a model with task_type={task!r}"
                )
            if metric.requires == "spikes" and not self.network.spiking:
                raise IncompatibleError(
                    f"the metric {metric.name} needs spiking neurons",
                    received=f"{self.network!r}",
                    works="use ALIF or LIF, or leave the metric out",
                )

    @property
    def nx(self) -> Backend:
        """The backend of the model."""
        return self.network.nx

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that are reported, the loss first."""
        return ("loss", *(metric.name for metric in self.metrics))

    def clone(self) -> Evaluator:
        """The same model, loss and metrics, with weights of its own."""
        twin = copy.copy(self)
        for compiled in ("_judged_forward", "_predicted", "_recorded"):
            twin.__dict__.pop(compiled, None)
        twin.network = self.network.clone()
        return twin

    # Data in.

    def check(self, x: Any, y: Any = None) -> None:
        """Refuse data that do not fit, before anything runs; builds the network for the data's features.

        Raises:
            DataError: wrong number of axes, NaN or infinite values, a feature count other than the network's, labels
                out of range, or targets of another shape.
        """
        array = self._array(x)
        if y is not None:
            _require_supervised(bool(self._targets(array.shape, y).mask.any()))

    def batch(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Time-major inputs, dense targets and mask of a batch, checked, in the model's type."""
        array = self._array(x)
        targets = self._targets(array.shape, y)
        _require_supervised(bool(targets.mask.any()))
        return self._converted(array, targets)

    def _converted(self, array: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dtype = self.network.dtype
        return self._time_major(array), targets.dense.astype(dtype), targets.mask.astype(dtype)

    def _array(self, x: Any) -> np.ndarray:
        """The data as an array [batch, time, feature] of finite numbers."""
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise DataError("x must be a rectangular array of numbers", received=str(error)) from error
        if array.dtype.kind not in "iufb":
            raise DataError("x must hold numbers", received=f"an array of type {array.dtype}")
        if array.ndim != 3:
            raise DataError("x must have shape [batch, time, feature]", received=f"shape {array.shape}")
        if 0 in array.shape:
            raise DataError("x must have at least one example, time step and feature", received=f"shape {array.shape}")
        # A sum is finite only if all its terms are: a fast look before the slow search for the place.
        with np.errstate(over="ignore", invalid="ignore"):
            sound = array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64))
        if not sound:
            wrong = np.argwhere(~np.isfinite(array))
            if wrong.size:
                example, step, feature = wrong[0]
                place = f"at example {example}, step {step}, feature {feature}"
                raise DataError("x must be finite", received=f"{array[example, step, feature]} {place}")
        self.network.build(array.shape[2])
        return array

    def _time_major(self, array: np.ndarray) -> np.ndarray:
        dtype = self.network.dtype
        try:
            with np.errstate(over="raise"):
                return np.ascontiguousarray(array.transpose(1, 0, 2), dtype=dtype)
        except FloatingPointError as error:
            largest = f"{np.abs(array).max():g}"
            raise DataError(f"x must lie within the range of {dtype}", received=f"values up to {largest}") from error

    def _targets(self, shape: tuple[int, ...], y: Any) -> Targets:
        targets = encode(
            y,
            task_type=self.network.task_type,
            batch=shape[0],
            steps=shape[1] if self.network.readout == "sequence" else 1,
            outputs=self.network.outputs,
            labels_only=self.loss.target_kind == "labels",
        )
        self.loss.check_target(targets.dense[targets.mask.astype(bool)])
        return targets

    # Pure functions of parameters and data, in backend arrays.

    def judge(self, trajectory: Trajectory, target: Array, mask: Array) -> Judgement:
        """Loss, its derivative with respect to the outputs, and the metrics, read from a forward pass."""
        network = self.network
        judgement = self.judge_loss(trajectory, target, mask)
        outputs = pool(self.nx, network.readout, trajectory.z(network.graph.output))
        spikes = {name: trajectory.z(name) for name in network.spiking}
        measured = self.measured(Measurement(outputs, target, mask, spikes, network.dt))
        return Judgement(judgement.loss, judgement.signals, {**judgement.totals, **measured})

    def measured(self, measurement: Measurement) -> dict[str, tuple[Array, Array]]:
        """Total and count of every metric."""
        return {metric.name: metric.measure(self.nx, measurement) for metric in self.metrics}

    def judge_loss(self, trajectory: Trajectory, target: Array, mask: Array, readout: str | None = None) -> Judgement:
        """The loss and its derivative with respect to the outputs, without the metrics.

        Args:
            trajectory: a forward pass.
            target: dense, [1 or steps, batch, n_out].
            mask: [1 or steps, batch].
            readout: how the outputs are taken, if not as the network says.
        """
        nx, network = self.nx, self.network
        readout = readout or network.readout
        outputs = trajectory.z(network.graph.output)
        pooled = pool(nx, readout, outputs)
        counted = nx.broadcast_to(mask, pooled.shape[:2])
        count = nx.sum(counted)
        # A part of a data set may have no supervised step; it then counts nothing.
        divisor = nx.maximum(count, 1.0)
        total = weighted_total(nx, self.loss, pooled, target, counted)
        gradient = output_gradient(nx, self.loss, pooled, target, counted / divisor)
        signals = {(network.graph.output, Z): unpool(nx, readout, outputs, gradient)}
        return Judgement(total / divisor, signals, {"loss": (total, count)})

    def step_weights(self, mask: Array, steps: int) -> Array:
        """How much each time step and example counts in the loss: [time, batch], 1 in all.

        Args:
            mask: [1 or steps, batch], as ``batch`` gives it.
            steps: number of time steps.
        """
        nx = self.nx
        counted = nx.broadcast_to(mask, (steps, mask.shape[1])) if self.network.readout == "sequence" else mask
        share = nx.expand_dims(counted / nx.maximum(nx.sum(counted), 1.0), -1)
        like = nx.full((steps, mask.shape[1], 1), 0.0, nx.dtype(mask))
        # Every step has its part in the largest output over time.
        mode = "mean" if self.network.readout == "max" else self.network.readout
        return unpool(nx, mode, like, share)[:, :, 0]

    # What a user calls.

    def predict(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Outputs [batch, time, n_out], or [batch, n_out] where the readout takes the last, mean or maximum."""
        array = self._array(x)
        parts = []
        for part in _parts(array.shape[0], batch_size):
            inputs = self.nx.asarray(self._time_major(array[part]))
            parts.append(self.nx.to_numpy(self._predicted(self.network.values, inputs)).transpose(1, 0, 2))
        joined = np.concatenate(parts)
        return joined if self.network.readout == "sequence" else joined[:, 0]

    def trajectory(self, x: Any) -> Trajectory:
        """Every state and every spike of a forward pass, as NumPy arrays [time, batch, neuron].

        Example:
            >>> from neko_rules import LIF
            >>> recorded = Evaluator(LIF(8, 2)).trajectory(np.ones((4, 5, 3)))
            >>> recorded.z("hidden").shape, sorted(recorded.records["hidden"].states)
            ((5, 4, 8), ['v'])
        """
        inputs = self._time_major(self._array(x))
        recorded = self._recorded(self.network.values, self.nx.asarray(inputs))
        records = {
            name: Record({key: self.nx.to_numpy(v) for key, v in states.items()}, self.nx.to_numpy(z), None)
            for name, (states, z) in recorded.items()
        }
        return Trajectory(inputs, records)

    @overload
    def evaluate(self, x: Any, y: Any, batch_size: int = 256) -> dict[str, float]: ...

    @overload
    def evaluate(
        self, x: Any, y: Any, batch_size: int = 256, *, recorders: Sequence[Observer]
    ) -> tuple[dict[str, float], dict[str, Recorded]]: ...

    def evaluate(
        self, x: Any, y: Any, batch_size: int = 256, *, recorders: Sequence[Observer] | None = None
    ) -> dict[str, float] | tuple[dict[str, float], dict[str, Recorded]]:
        """Loss and metrics over a whole data set; the batch size does not change them, apart from rounding.

        Args:
            x: [batch, time, feature].
            y: targets.
            batch_size: examples that run side by side.
            recorders: such as ``SpikeRecorder``; what they kept is returned beside the figures, by their keys.
        """
        array = self._array(x)
        for recorder in recorders or ():
            recorder.begin()
        labels = as_array(y, len(array))
        sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in self.figures}
        for part in _parts(array.shape[0], batch_size):
            piece = array[part]
            # A part may lack supervised steps; the whole may not.
            converted = self._converted(piece, self._targets(piece.shape, labels[part]))
            values = (self.nx.asarray(value) for value in converted)
            for name, (total, count) in self._judged_forward(self.network.values, *values).items():
                sums[name][0] += float(self.nx.to_numpy(total))
                sums[name][1] += float(self.nx.to_numpy(count))
            if recorders:
                trajectory = self.trajectory(piece)
                for recorder in recorders:
                    recorder.observe(trajectory, part.start)
        _require_supervised(sums["loss"][1] > 0)
        if recorders is None:
            return ratios(sums)
        return ratios(sums), {recorder.key: recorder.recorded for recorder in recorders}

    @cached_property
    def _judged_forward(self) -> Callable[..., dict[str, tuple[Array, Array]]]:
        def judged(parameters: Parameters, inputs: Array, target: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
            return self.judge(self.network.forward(parameters, inputs), target, mask).totals

        return self.nx.jit(judged)

    @cached_property
    def _recorded(self) -> Callable[..., dict[str, tuple[dict[str, Array], Array]]]:
        def recorded(parameters: Parameters, inputs: Array) -> dict[str, tuple[dict[str, Array], Array]]:
            records = self.network.forward(parameters, inputs).records
            return {name: (record.states, record.z) for name, record in records.items()}

        return self.nx.jit(recorded)

    @cached_property
    def _predicted(self) -> Callable[..., Array]:
        def predicted(parameters: Parameters, inputs: Array) -> Array:
            outputs = self.network.forward(parameters, inputs).z(self.network.graph.output)
            return pool(self.nx, self.network.readout, outputs)

        return self.nx.jit(predicted)


def _require_supervised(some: bool) -> None:
    if not some:
        raise DataError("at least one time step must be supervised", received="only labels of -1")


def ratios(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """total / count for every name; NaN where nothing was counted."""
    return {name: total / count if count else float("nan") for name, (total, count) in sums.items()}


def _parts(examples: int, size: int) -> list[slice]:
    """Consecutive pieces of at most ``size`` examples."""
    arguments.integer("batch_size", size, at_least=1)
    return [slice(start, start + size) for start in range(0, examples, size)]
