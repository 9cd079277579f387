"""Evaluator: a model with its loss and metrics; one forward pass, and everything else is read from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

import numpy as np

from neko_rules.backend import Array, Backend, Parameters, get_backend, given
from neko_rules.encoders import ENCODERS, Encoder
from neko_rules.errors import DataError, IncompatibleError
from neko_rules.fit import loss_of, metrics_of
from neko_rules.inputs import Inputs
from neko_rules.kernels.host import HostBackend, host_of
from neko_rules.layers.adaptors.adaptor import Adaptor
from neko_rules.layers.forward import Record, Signals, Trajectory, Z
from neko_rules.layers.network import Network
from neko_rules.layers.pooling import pool, unpool
from neko_rules.losses import Loss
from neko_rules.metrics import Measurement, Metric
from neko_rules.pairs import Pairs, parts
from neko_rules.portable import Portable
from neko_rules.recorded import Recorded
from neko_rules.replaced import forget_compiled, forget_if_replaced
from neko_rules.scoring import Scored, Scoring
from neko_rules.setting import Setting
from neko_rules.targets import Targets, as_array, encode, of_whole_sequence

if TYPE_CHECKING:
    from neko_rules.chains.judging import Judging
    from neko_rules.chains.running import Ran

_USUAL_LOSS = {"classification": "categorical_crossentropy", "regression": "mean_squared_error"}


@dataclass(frozen=True)
class Judgement:
    """What a forward pass is worth, in backend arrays.

    Args:
        loss: the loss, a scalar.
        signals: ∂E/∂z or ∂E/∂state [time, batch, neuron] of the output population, whichever the loss looks at.
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


class Evaluator(Portable):
    """A model, the loss it is judged by, and the metrics that are reported.

    Args:
        network: the model.
        loss: name, mapping or Loss; cross-entropy for classification and squared error for regression by default.
        metrics: names, mappings or Metrics.
        encoder: what makes spikes or currents of the values that the data are, by name, mapping or object; None for
            data [batch, time, feature].

    The loss is the mean over examples and supervised time steps. Where the model's outputs are taken at every step and
    a target is given once per sequence, it holds at every step. A loss of the whole sequence, such as one of spike
    counts, has one value per example, made from its supervised steps, and the loss is the mean over examples. Metrics
    decide on what the loss is computed from: the largest output, count or membrane, or the earliest spike.

    Example:
        >>> from neko_rules import LIF
        >>> model = Evaluator(LIF(8, 2, inputs=3), metrics=["accuracy"])
        >>> x, y = np.ones((4, 5, 3)), [0, 1, 0, 1]
        >>> sorted(model.evaluate(x, y))
        ['accuracy', 'loss']
        >>> model.predict(x).shape
        (4, 5, 2)
    """

    loss = Setting[Loss](lambda model, value: loss_of(model.network, value))
    metrics = Setting[tuple[Metric, ...]](lambda model, value: metrics_of(model.network, model.loss, value))
    encoder = Setting["Encoder | None"](lambda model, value: model._encoding(value))

    def __init__(
        self,
        network: Network | Adaptor,
        loss: str | Mapping[str, Any] | Loss | None = None,
        metrics: Sequence[str | Mapping[str, Any] | Metric] = (),
        encoder: str | Mapping[str, Any] | Encoder | None = None,
    ) -> None:
        if not isinstance(network, (Network, Adaptor)):
            raise IncompatibleError(
                "an Evaluator takes a Network such as ALIF(128, 10)",
                received=network,
                works="wrap a model of another library in TorchModel, KerasModel or JaxModel",
            )
        # To a type checker a wrapped model is a network: what it lacks, rules ask for by their ``requires``.
        self.network: Network = network  # type: ignore[assignment]
        self.loss = loss if loss is not None else _USUAL_LOSS[network.task_type]
        self.metrics = metrics
        self.encoder = encoder

    def __repr__(self) -> str:
        encoder = "" if self.encoder is None else f", encoder={self.encoder!r}"
        return f"Evaluator({self.network!r}, loss={self.loss!r}, metrics={list(self.metrics)!r}{encoder})"

    @property
    def plain(self) -> bool:
        """Whether what is looked at, and how it is judged, is as in this class, in whose place a chain may stand."""
        own = "judge", "judge_loss", "_judged", "_scored", "_scoring", "counted", "observed"
        return all(getattr(type(self), name) is getattr(Evaluator, name) for name in own)

    @property
    def scores(self) -> int:
        """The number of outputs that a target has: output neurons, or classes of a population code."""
        return self.loss.number_of_scores(self.network.outputs)

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
        twin.forget_compiled()
        twin.network = self.network.clone()
        return twin

    def forget_compiled(self) -> None:
        """Compile anew what runs the network, after something but its weights has changed."""
        forget_compiled(self)

    # Data in.

    def check(self, x: Any, y: Any = None, *, whole: bool = True) -> None:
        """Refuse data that do not fit, before anything runs; builds the network for the data's features.

        Args:
            x, y: inputs and targets.
            whole: whether these are all of the data, of which a time step must be supervised; of a part, none may be.

        Raises:
            DataError: wrong number of axes, NaN or infinite values, a feature count other than the network's, labels
                out of range, or targets of another shape.
        """
        inputs = self._inputs
        shape = inputs.shape(inputs.checked(x))
        if y is not None:
            _require_supervised(bool(np.count_nonzero(self._targets(shape, y).mask)) or not whole)

    def batch(self, x: Any, y: Any, update: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Time-major inputs, dense targets and mask of a batch, checked, encoded, in the model's type.

        The inputs may be a view of ``x``. A batch may lack supervised steps, where the data set has some: there is then
        nothing to be learned from its loss, which is NaN among the figures.

        Args:
            x, y: inputs, or values to be encoded, and targets.
            update: the number of the update that the batch is for, which an encoder's spikes are drawn for; None for
                those of an evaluation.
        """
        inputs = self._inputs
        array = inputs.encoded(inputs.checked(x), update=update)
        return self._converted(array, self._targets(array.shape, y))

    def _converted(self, array: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dtype = self.network.dtype
        return self._inputs.time_major(array), targets.dense.astype(dtype), targets.mask.astype(dtype)

    def _encoding(self, encoder: str | Mapping[str, Any] | Encoder | None) -> Encoder | None:
        found = None if encoder is None else ENCODERS.resolve(encoder)
        Inputs(self.network, found).check_fit()
        return found

    @property
    def _inputs(self) -> Inputs:
        return Inputs(self.network, self.encoder)

    def encoded(self, x: Any) -> np.ndarray:
        """What the network is given for data, [batch, time, feature]: as in an evaluation, where they are encoded.

        Example:
            >>> from neko_rules import LIF
            >>> model = Evaluator(LIF(8, 2, readout="mean"), encoder={"name": "latency", "steps": 5})
            >>> model.encoded(np.array([[0.0, 0.5, 1.0]])).argmax(axis=1)
            array([[0, 2, 0]])
        """
        inputs = self._inputs
        return inputs.encoded(inputs.checked(x))

    @property
    def _static(self) -> bool:
        """Whether the model takes each example as it is, which makes it a sequence of one time step."""
        return self.network.static

    def _targets(self, shape: tuple[int, ...], y: Any) -> Targets:
        task = self.network.task_type
        # Values of a whole sequence are given once; its labels may be given by step, to say which steps count.
        once = self.network.readout != "sequence" or (not self.loss.online and task == "regression")
        targets = encode(
            y,
            task_type=task,
            batch=shape[0],
            steps=1 if once else shape[1],
            outputs=self.scores,
            labels_only=self.loss.target_kind == "labels",
            time=0 if self._static else shape[1],
        )
        if not targets.one_hot:
            self.loss.check_target(targets.dense[targets.mask.astype(bool)])
        return targets if self.loss.online else of_whole_sequence(targets)

    # Pure functions of parameters and data, in backend arrays.

    def judge(self, trajectory: Trajectory, target: Array, mask: Array) -> Judgement:
        """Loss, its derivative with respect to what it looks at, and the metrics, read from a forward pass.

        The loss is differentiable by the backend too, if the trajectory is; the derivative of a spike time is then the
        one that is defined for it.
        """
        network = self.network
        scored = self._scored(trajectory, mask, network.readout)
        judgement = self._judged(trajectory, target, network.readout, scored)
        # Looked at by a metric of spikes alone: a rule may not have kept them as arrays.
        looks = any(metric.requires == "spikes" for metric in self.metrics)
        spikes = {name: trajectory.z(name) for name in network.spiking} if looks else {}
        counted = mask if self.loss.online else scored.counted
        measurement = Measurement(scored.scores, target, counted, spikes, network.dt)
        return Judgement(judgement.loss, judgement.signals, {**judgement.totals, **self.measured(measurement)})

    def totals_of(
        self, host: HostBackend, ran: Ran, count: float, batch: tuple[Array, Array, Array]
    ) -> dict[str, tuple[Array, Array]]:
        """Total and count of the loss and of every metric, from what a chain found; for the engine.

        Args:
            host: the backend of the arrays that are wanted: the model's, or NumPy where that computes for it.
            ran: what the chain found.
            count: how many outputs count in the loss.
            batch: inputs, target and mask.
        """
        dtype, network = self.network.dtype, self.network
        total, counted = (host.from_host(np.asarray(each, dtype)) for each in (ran.loss, count))
        if not self.metrics:
            return {"loss": (total, counted)}
        fired = {name: host.from_host(sums) for name, sums in ran.spikes.items()}
        scores = host.from_host(ran.scores)
        nx, (inputs, target, mask) = cast(Backend, host), batch
        if not self.loss.online:
            _, mask = self._scoring().counting(nx, mask, len(mask))
        measurement = Measurement(scores, target, mask, fired, network.dt, len(inputs))
        if nx.name == self.nx.name:
            return {"loss": (total, counted), **self.measured(measurement)}
        measured = {metric.name: metric.measure(nx, measurement) for metric in self.metrics}
        return {"loss": (total, counted), **measured}

    def measured(self, measurement: Measurement) -> dict[str, tuple[Array, Array]]:
        """Total and count of every metric."""
        return {metric.name: metric.measure(self.nx, measurement) for metric in self.metrics}

    def judge_loss(self, trajectory: Trajectory, target: Array, mask: Array, readout: str | None = None) -> Judgement:
        """The loss and its derivative with respect to what it looks at, without the metrics.

        Args:
            trajectory: a forward pass.
            target: dense, [1 or steps, batch, n_out].
            mask: [1 or steps, batch].
            readout: how the outputs are taken, if not as the network says.
        """
        readout = readout or self.network.readout
        return self._judged(trajectory, target, readout, self._scored(trajectory, mask, readout))

    def _judged(self, trajectory: Trajectory, target: Array, readout: str, scored: Scored) -> Judgement:
        nx, network = self.nx, self.network
        count = nx.sum(scored.counted)
        # A part of a data set may have no supervised step; it then counts nothing.
        divisor = nx.maximum(count, 1.0)
        total, signal = self._scoring(readout).judged(nx, self.observed(trajectory), target, scored, divisor)
        return Judgement(
            total / divisor, {(network.graph.output, self.loss.observes): signal}, {"loss": (total, count)}
        )

    def _scoring(self, readout: str | None = None) -> Scoring:
        """How outputs are judged, as the network says or by another readout."""
        return Scoring(self.loss, readout or self.network.readout, self.network.task_type)

    def _scored(self, trajectory: Trajectory, mask: Array, readout: str) -> Scored:
        """What the loss looks at."""
        return self._scoring(readout).scored(self.nx, self.observed(trajectory), mask)

    def counted(self, mask: Array, steps: int) -> Array:
        """How many outputs count in the loss of a batch, a scalar.

        Args:
            mask: [1 or steps, batch], as ``batch`` gives it.
            steps: number of time steps.
        """
        return self.nx.sum(
            self._scoring().counting(self.nx, mask, steps if self.network.readout == "sequence" else 1)[1]
        )

    def observed(self, trajectory: Trajectory) -> Array:
        """What the loss looks at in the output population: [time, batch, neuron]."""
        output, observes = self.network.graph.output, self.loss.observes
        return trajectory.z(output) if observes == Z else trajectory.records[output].states[observes]

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

    def example_losses(self, trajectory: Trajectory, target: Array, mask: Array) -> Array:
        """Every example's part of the loss, [batch]: they add up to it."""
        nx, network = self.nx, self.network
        scored = self._scored(trajectory, mask, network.readout)
        wanted = self._scoring().wanted(nx, network.outputs, target, scored)
        share = scored.counted / nx.maximum(nx.sum(scored.counted), 1.0)
        return nx.sum(share * self.loss.value(nx, scored.scores, wanted), axis=0)

    # What a user calls.

    def predict(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """What the loss is computed from and decisions are made on: the largest is the predicted class.

        For most losses these are the outputs, [batch, time, n_out], or [batch, n_out] where the readout takes the last,
        mean or maximum. For a loss of the whole sequence they are its scores over all steps, [batch, n_out]: spike
        counts, membranes, or times with a minus sign.
        """
        inputs = self._inputs
        array = inputs.checked(x)
        encoded = (inputs.encoded(array[part], part.start) for part in parts(len(array), batch_size))
        pieces = map(inputs.time_major, encoded)
        joined = np.concatenate([self._scores(piece).transpose(1, 0, 2) for piece in pieces])
        return joined if self.network.readout == "sequence" and self.loss.online else joined[:, 0]

    def _scores(self, inputs: np.ndarray) -> np.ndarray:
        """The scores for time-major inputs: [1 or time, batch, n_out]."""
        judging = self._judging()
        found = None if judging is None else judging.scores(self.network.values, inputs.transpose(1, 0, 2))
        if found is not None:
            return found
        return self.nx.to_numpy(self.scored(self.network.values, self.nx.asarray(inputs)))

    def scored(self, values: Parameters, inputs: Array) -> Array:
        """The scores for inputs in arrays of the backend, at some parameters; for the engine."""
        forget_if_replaced(self)
        return self._compiled_prediction(values, inputs)

    def trajectory(self, x: Any) -> Trajectory:
        """Every state and every spike of a forward pass, as NumPy arrays [time, batch, neuron].

        Example:
            >>> from neko_rules import LIF
            >>> recorded = Evaluator(LIF(8, 2)).trajectory(np.ones((4, 5, 3)))
            >>> recorded.z("hidden").shape, sorted(recorded.records["hidden"].states)
            ((5, 4, 8), ['v'])
        """
        return self._recorded(self.encoded(x))

    def _recorded(self, array: np.ndarray) -> Trajectory:
        """The same of inputs."""
        inputs = np.ascontiguousarray(self._inputs.time_major(array))
        forget_if_replaced(self)
        recorded = self._compiled_records(self.network.values, self.nx.asarray(inputs))
        records = {
            name: Record({key: self.nx.to_numpy(v) for key, v in states.items()}, self.nx.to_numpy(z), None)
            for name, (states, z) in recorded.items()
        }
        return Trajectory(inputs, records)

    @overload
    def evaluate(self, x: Any, y: Any = None, batch_size: int = 256) -> dict[str, float]: ...

    @overload
    def evaluate(
        self, x: Any, y: Any = None, batch_size: int = 256, *, recorders: Sequence[Observer]
    ) -> tuple[dict[str, float], dict[str, Recorded]]: ...

    def evaluate(
        self, x: Any, y: Any = None, batch_size: int = 256, *, recorders: Sequence[Observer] | None = None
    ) -> dict[str, float] | tuple[dict[str, float], dict[str, Recorded]]:
        """Loss and metrics over a whole data set; the batch size does not change them, apart from rounding.

        Args:
            x: [batch, time, feature], or an iterable of batches (x, y), such as a DataLoader, without y.
            y: targets.
            batch_size: examples that run side by side, at most.
            recorders: such as ``SpikeRecorder``; what they kept is returned beside the figures, by their keys.
        """
        for recorder in recorders or ():
            recorder.begin()
        first, sums = 0, {name: [0.0, 0.0] for name in self.figures}
        for piece, targets in self._pieces([(x, y)] if y is not None else Pairs(x), batch_size):
            # A part may lack supervised steps; the whole may not.
            for name, (total, count) in self.totals(self.network.values, self._converted(piece, targets)).items():
                sums[name][0] += total
                sums[name][1] += count
            if recorders:
                trajectory = self._recorded(piece)
                for recorder in recorders:
                    recorder.observe(trajectory, first)
            first += len(piece)
        _require_supervised(sums["loss"][1] > 0)
        if recorders is None:
            return ratios(sums)
        return ratios(sums), {recorder.key: recorder.recorded for recorder in recorders}

    def _pieces(self, batches: Iterable[tuple[Any, Any]], size: int) -> Iterator[tuple[np.ndarray, Targets]]:
        """Checked inputs and targets of at most so many examples."""
        inputs, before = self._inputs, 0
        for x, y in batches:
            array = inputs.checked(x)
            labels = as_array(y, len(array), 0 if self._static else inputs.shape(array)[1])
            for part in parts(len(array), size):
                piece = inputs.encoded(array[part], before + part.start)
                yield piece, self._targets(piece.shape, labels[part])
            before += len(array)

    def totals(self, values: Parameters, batch: tuple[Array, Array, Array]) -> dict[str, tuple[float, float]]:
        """Total and count of every figure at some parameters, of a batch that ``batch`` has made; for the engine."""
        on_host = isinstance(batch[0], np.ndarray)
        judging = self._judging() if on_host else None
        met = None if judging is None else judging.ran(values, batch[0].transpose(1, 0, 2), *batch[1:])
        if met is None:
            nx = self.nx
            forget_if_replaced(self)
            totals = self._compiled_forward(values, *((given(nx, each) for each in batch) if on_host else batch))
        else:
            nx = get_backend("numpy")
            totals = self.totals_of(cast(HostBackend, nx), *met, batch)
        return {name: (float(nx.to_numpy(each)), float(nx.to_numpy(count))) for name, (each, count) in totals.items()}

    def judged_by_chain(
        self,
        host: HostBackend,
        values: Parameters,
        batch: tuple[Array, Array, Array],
        measured: bool = True,
        batches: int = 1,
    ) -> Judgement | None:
        """``judge`` of a forward pass, without signals, by a chain that goes forward alone; for the engine.

        Args:
            host: the model's backend.
            values: parameters, in its arrays.
            batch: inputs, target and mask, in its arrays.
            measured: whether totals are wanted, or the loss alone.
            batches: how many such batches there were, this one included.

        Returns:
            None where there is no chain, or no use for one.
        """
        judging = self._judging(measured)
        inputs, target, mask = map(host.host, batch)
        met = None if judging is None else judging.ran(values, inputs.transpose(1, 0, 2), target, mask, batches)
        if met is None:
            return None
        ran, count = met
        loss = host.from_host(np.asarray(ran.loss / max(count, 1.0), self.network.dtype))
        return Judgement(loss, {}, self.totals_of(host, ran, count, batch) if measured else {})

    def _judging(self, measured: bool = True) -> Judging | None:
        """The chains by which this model is judged on a processor, with NumPy's numbers; None where there are none."""
        network, own = self.network, type(self)
        if host_of(get_backend("numpy")) is None or not isinstance(network, Network):
            return None
        # What a user's class measures may be written for the arrays of one library.
        measures = own.measured is Evaluator.measured or network.nx.name == "numpy"
        if not self.plain or own._inferred is not Evaluator._inferred or not measures:
            return None
        # Under names that a clone leaves behind.
        name, metrics = ("_compiled_judging", self.metrics) if measured else ("_compiled_losses", ())
        known: Judging | None = vars(self).get(name)
        if known is None or not known.fit(network, self.loss, metrics):
            from neko_rules.chains.judging import Judging

            known = vars(self)[name] = Judging(network, self.loss, metrics)
        return known

    def _inferred(self, parameters: Parameters, inputs: Array) -> Trajectory:
        """A forward pass in evaluation mode, which a wrapped model may have."""
        return self.network.infer(self.network.seen(parameters), inputs)

    @cached_property
    def _compiled_forward(self) -> Callable[..., dict[str, tuple[Array, Array]]]:
        def judged(parameters: Parameters, inputs: Array, target: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
            return self.judge(self._inferred(parameters, inputs), target, mask).totals

        return self.network.compiled(judged)

    @cached_property
    def _compiled_records(self) -> Callable[..., dict[str, tuple[dict[str, Array], Array]]]:
        def recorded(parameters: Parameters, inputs: Array) -> dict[str, tuple[dict[str, Array], Array]]:
            records = self._inferred(parameters, inputs).records
            return {name: (record.states, record.z) for name, record in records.items()}

        return self.network.compiled(recorded)

    @cached_property
    def _compiled_prediction(self) -> Callable[..., Array]:
        def predicted(parameters: Parameters, inputs: Array) -> Array:
            history = self.observed(self._inferred(parameters, inputs))
            pooled = pool(self.nx, self.network.readout, history)
            every_step = self.nx.full(tuple(pooled.shape[:2]), 1.0, self.nx.dtype(pooled))
            return self.loss.scores(self.nx, pooled, every_step)

        return self.network.compiled(predicted)


def _require_supervised(some: bool) -> None:
    if not some:
        raise DataError("at least one time step must be supervised", received="only labels of -1")


def ratios(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """total / count for every name; NaN where nothing was counted."""
    return {name: total / count if count else float("nan") for name, (total, count) in sums.items()}
