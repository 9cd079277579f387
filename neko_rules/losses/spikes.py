"""Losses of spiking outputs: of spikes and membranes at every step, of counts, membranes and first spikes of sequences.

The output population is any cell, such as ``LIF(64, 10, output_cell="lif")``. m_t is 1 at a supervised step, else 0.

    count             n_k = Σ_t m_t z_tk                                ∂n_k/∂z_tk = m_t
    largest membrane  max over supervised t of v_tk                     1 at the (first) maximum, else 0
    summed membrane   Σ_t m_t v_tk                                      m_t
    first spike       t_k = number of supervised steps before it        -1 at the first spike, else 0

**Times** are in steps, counted from the first supervised one. An output that does not fire has t_k = T, the number of
supervised steps of the example, and its derivative is -1 at the last of them, so that it can learn to fire. The -1 is
a definition, as a time in whole steps has no derivative: more membrane means a spike, and a spike means an earlier one.
It stands for SpikeProp's ∂t/∂v = -1/(dv/dt), with a slope of 1 that does not vanish or explode, and dz/dv follows it.

**Steps that do not count** are labels of -1 in y [batch, time]: with sequences of different lengths, the label at every
step of the example and -1 in its padding. A loss of the whole sequence takes one class (or one distribution) per
example, so the other labels must agree.

**Population codes**: with ``classes``, the output neurons are as many groups of equal size, consecutive neurons
belonging together, and the spikes (or membranes) of a group are summed; targets and metrics then have ``classes``
entries.

References:
    S. M. Bohte, J. N. Kok, H. La Poutré, "Error-backpropagation in temporally encoded networks of spiking neurons",
    Neurocomputing 48, 2002 (SpikeProp).
    J. K. Eshraghian et al., "Training spiking neural networks using lessons from deep learning", Proceedings of the
    IEEE 111, 2023; the aliases (``ce_count``, …) are the names of its library snnTorch, which takes the mean over
    outputs where the squared errors here take the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend
from neko_rules.errors import DataError, IncompatibleError
from neko_rules.losses.loss import LOSSES, Loss
from neko_rules.losses.outputs import CategoricalCrossentropy, MeanSquaredError

BELOW_ALL = -1e30
"""Stands for a membrane at a step that does not count; within the range of float32."""


# What is made of a sequence.


@dataclass(frozen=True)
class _Grouped(Loss):
    """Scores summed over groups of output neurons, if there are more neurons than classes."""

    classes: int | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", arguments.integer("classes", self.classes, at_least=1))

    @property
    def is_of_outputs(self) -> bool:
        """As for every loss; where each neuron is a class, scores are the outputs as they are."""
        own, base = type(self), _Grouped
        as_here = own.scores is base.scores and own.pull_back is base.pull_back and own.desired is Loss.desired
        return self.online and self.classes is None and as_here and own.number_of_scores is base.number_of_scores

    def number_of_scores(self, neurons: int) -> int:
        if self.classes is None:
            return neurons
        if neurons % self.classes:
            raise IncompatibleError(
                f"a population code of {self.classes} classes needs a multiple of {self.classes} output neurons",
                received=f"{neurons} outputs",
            )
        return self.classes

    def scores(self, nx: Backend, history: Array, mask: Array) -> Array:
        return self._grouped(nx, history)

    def pull_back(self, nx: Backend, history: Array, mask: Array, gradient: Array) -> Array:
        return self._spread(nx, history, gradient)

    def _grouped(self, nx: Backend, array: Array) -> Array:
        """[steps, batch, neuron] summed to [steps, batch, classes]."""
        if self.classes is None:
            return array
        steps, batch, neurons = array.shape
        return nx.sum(nx.reshape(array, (steps, batch, self.classes, neurons // self.classes)), axis=-1)

    def _spread(self, nx: Backend, history: Array, gradient: Array) -> Array:
        """The transpose of ``_grouped``: every neuron of a group has the gradient of its class."""
        if self.classes is None:
            return gradient
        steps, batch, classes = gradient.shape
        neurons = history.shape[-1]
        wide = nx.broadcast_to(nx.expand_dims(gradient, -1), (steps, batch, classes, neurons // classes))
        return nx.reshape(wide, (steps, batch, neurons))


@dataclass(frozen=True)
class _Summed(_Grouped):
    """Scores Σ_t m_t h_t over the sequence, and over the groups of a population code."""

    online: ClassVar[bool] = False

    def scores(self, nx: Backend, history: Array, mask: Array) -> Array:
        return self._grouped(nx, nx.sum(history * nx.expand_dims(mask, -1), axis=0, keepdims=True))

    def pull_back(self, nx: Backend, history: Array, mask: Array, gradient: Array) -> Array:
        return self._spread(nx, history, gradient) * nx.expand_dims(mask, -1)


@dataclass(frozen=True)
class _FirstSpike(Loss):
    """Scores that fall with the time of the first spike."""

    online: ClassVar[bool] = False
    of_spikes: ClassVar[bool] = True
    of_times: ClassVar[bool] = True

    def scores(self, nx: Backend, history: Array, mask: Array) -> Array:
        times, chosen = first_spikes(nx, history, mask)
        # Automatic differentiation sees the derivative of -1 that is defined above; the added zero is exact.
        spikes = nx.sum(chosen * history, axis=0, keepdims=True)
        return self._score(nx, times - (spikes - nx.stop_gradient(spikes)), mask)

    def pull_back(self, nx: Backend, history: Array, mask: Array, gradient: Array) -> Array:
        times, chosen = first_spikes(nx, history, mask)
        return -chosen * (gradient * self._slope(nx, times, mask))

    def _score(self, nx: Backend, times: Array, mask: Array) -> Array:
        """The score of a time, [1, batch, neuron]."""
        return -times

    def _slope(self, nx: Backend, times: Array, mask: Array) -> Array:
        """Derivative of the score with respect to the time."""
        return nx.full((), -1.0, nx.dtype(times))


def first_spikes(nx: Backend, spikes: Array, mask: Array) -> tuple[Array, Array]:
    """Number of supervised steps before the first supervised spike, and the step that takes the derivative.

    Args:
        nx: the backend of the arrays.
        spikes: 0 or 1, [time, batch, neuron].
        mask: 0 or 1, [time, batch].

    Returns:
        Times [1, batch, neuron], T where there is no spike; and 1 at the first spike (at the last supervised step where
        there is none), else 0, [time, batch, neuron].

    Example:
        >>> from neko_rules.backend import get_backend
        >>> spikes = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])[:, None]
        >>> times, chosen = first_spikes(get_backend("numpy"), spikes, np.ones((3, 1)))
        >>> times.ravel(), chosen[:, 0].tolist()
        (array([1., 3.]), [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    """
    steps, dtype = spikes.shape[0], nx.dtype(spikes)
    counted = nx.expand_dims(mask, -1)
    places = nx.reshape(nx.arange(steps, "int64"), (steps, 1, 1))
    supervised = spikes * counted
    fired = nx.max(supervised, axis=0, keepdims=True) > 0
    first = nx.expand_dims(nx.argmax(supervised, axis=0), 0)
    last = nx.expand_dims(nx.argmax(counted * nx.astype(places + 1, dtype), axis=0), 0)
    before = nx.astype((places < first) | ~fired, dtype)
    chosen = nx.astype(places == nx.where(fired, first, last), dtype)
    return nx.sum(counted * before, axis=0, keepdims=True), counted * chosen


def _per_class(target: Array, correct: Array | float, incorrect: Array | float) -> Array:
    """One number for the class of the target and another for the rest, from one-hot rows."""
    return incorrect + (correct - incorrect) * target


# Cross-entropies.


@LOSSES.register("spike_rate_crossentropy", "ce_rate", "ce_rate_loss")
@dataclass(frozen=True)
class SpikeRateCrossentropy(_Grouped, CategoricalCrossentropy):
    """Cross-entropy of softmax(z_t) at every supervised step: the class should fire at all of them, the rest at none.

    Args:
        classes: number of classes of a population code; left out, every output neuron is a class.

    Example:
        >>> from neko_rules import LIF, Evaluator
        >>> model = Evaluator(LIF(16, 6, output_cell="lif"), {"name": "ce_rate", "classes": 3})
        >>> model.predict(np.ones((2, 5, 4))).shape
        (2, 5, 3)
    """

    of_spikes: ClassVar[bool] = True


@LOSSES.register("spike_count_crossentropy", "ce_count", "ce_count_loss")
@dataclass(frozen=True)
class SpikeCountCrossentropy(_Summed, CategoricalCrossentropy):
    """Cross-entropy of softmax(n), n_k the spike count of output k over the supervised steps.

    Args:
        classes: number of classes of a population code; left out, every output neuron is a class.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, z = get_backend("numpy"), np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])[:, None]
        >>> SpikeCountCrossentropy().scores(nx, z, np.ones((3, 1))).tolist()
        [[[3.0, 1.0]]]
    """

    of_spikes: ClassVar[bool] = True


@LOSSES.register("membrane_crossentropy", "ce_membrane")
@dataclass(frozen=True)
class MembraneCrossentropy(_Grouped, CategoricalCrossentropy):
    """Cross-entropy of softmax(v_t) of the output membranes at every supervised step.

    Args:
        classes: number of classes of a population code; left out, every output neuron is a class.

    Example:
        >>> from neko_rules import LIF, Evaluator
        >>> Evaluator(LIF(16, 3, output_cell="lif"), "membrane_crossentropy").predict(np.ones((2, 5, 4))).shape
        (2, 5, 3)
    """

    observes: ClassVar[str] = "v"


@LOSSES.register("maximum_membrane_crossentropy", "ce_max_membrane", "ce_max_membrane_loss")
@dataclass(frozen=True)
class MaximumMembraneCrossentropy(CategoricalCrossentropy):
    """Cross-entropy of softmax(max_t v_t): of the largest membrane of every output over the supervised steps.

    Usually the output has no reset (``output_cell={"name": "lif", "reset": "none"}``) or is the leaky readout.

    Reference:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg spiking data sets for the systematic evaluation
        of spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33, 2022.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, v = get_backend("numpy"), np.array([[0.5, -1.0], [0.2, -3.0]])[:, None]
        >>> MaximumMembraneCrossentropy().scores(nx, v, np.ones((2, 1))).tolist()
        [[[0.5, -1.0]]]
    """

    online: ClassVar[bool] = False
    observes: ClassVar[str] = "v"

    def scores(self, nx: Backend, history: Array, mask: Array) -> Array:
        """max_t v_t."""
        return nx.max(self._counted(nx, history, mask), axis=0, keepdims=True)

    def pull_back(self, nx: Backend, history: Array, mask: Array, gradient: Array) -> Array:
        """The gradient at the first maximum."""
        places = nx.reshape(nx.arange(history.shape[0], "int64"), (history.shape[0], 1, 1))
        chosen = places == nx.expand_dims(nx.argmax(self._counted(nx, history, mask), axis=0), 0)
        return gradient * nx.astype(chosen, nx.dtype(history))

    def _counted(self, nx: Backend, history: Array, mask: Array) -> Array:
        return nx.where(nx.expand_dims(mask, -1) > 0, history, BELOW_ALL)


@LOSSES.register("summed_membrane_crossentropy", "ce_sum_membrane")
@dataclass(frozen=True)
class SummedMembraneCrossentropy(_Summed, CategoricalCrossentropy):
    """Cross-entropy of softmax(Σ_t v_t): of every output's membrane summed over the supervised steps.

    Args:
        classes: number of classes of a population code; left out, every output neuron is a class.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, v = get_backend("numpy"), np.array([[0.5, -1.0], [0.25, -3.0]])[:, None]
        >>> SummedMembraneCrossentropy().scores(nx, v, np.ones((2, 1))).tolist()
        [[[0.75, -4.0]]]
    """

    observes: ClassVar[str] = "v"


@LOSSES.register("first_spike_crossentropy", "ce_temporal", "ce_temporal_loss")
@dataclass(frozen=True)
class FirstSpikeCrossentropy(_FirstSpike, CategoricalCrossentropy):
    """Cross-entropy of softmax(-t/τ), t_k the time of output k's first spike: the class should fire before the rest.

    Args:
        inverse: ``"negate"`` (-t/τ) or ``"reciprocal"`` (1/(t/τ + 1)): what makes early times large.
        time_scale: τ in steps: a lead of so many steps is a factor of e (for ``"negate"``).

    Reference:
        J. Göltz et al., "Fast and energy-efficient neuromorphic deep learning with first-spike times", Nature Machine
        Intelligence 3, 2021 (softmax of the times in units of a time constant).

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, z = get_backend("numpy"), np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])[:, None]
        >>> FirstSpikeCrossentropy().scores(nx, z, np.ones((3, 1))).tolist()
        [[[-1.0, -3.0]]]
    """

    inverse: str = "negate"
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        arguments.choice("inverse", self.inverse, ("negate", "reciprocal"))
        object.__setattr__(self, "time_scale", arguments.number("time_scale", self.time_scale, above=0))

    def _score(self, nx: Backend, times: Array, mask: Array) -> Array:
        scaled = times / self.time_scale
        return -scaled if self.inverse == "negate" else 1 / (scaled + 1)

    def _slope(self, nx: Backend, times: Array, mask: Array) -> Array:
        slope = nx.full((), -1 / self.time_scale, nx.dtype(times))
        return slope if self.inverse == "negate" else slope / (times / self.time_scale + 1) ** 2


# Squared errors.


@LOSSES.register("spike_count_squared_error", "mse_count", "mse_count_loss")
@dataclass(frozen=True)
class SpikeCountSquaredError(_Summed, MeanSquaredError):
    """Σ_k (n_k - n*_k)², n_k the spike count of output k (or of its group) over the T supervised steps.

    For classification n* is ``correct`` · T spikes of every neuron of the class and ``incorrect`` · T of every other;
    for regression the target [batch, n_out] gives it.

    Args:
        correct: spikes per step of a neuron of the class, from 0 to 1.
        incorrect: spikes per step of every other neuron, from 0 to 1.
        classes: number of classes of a population code; left out, every output neuron is a class.

    Reference:
        S. B. Shrestha, G. Orchard, "SLAYER: spike layer error reassignment in time", NeurIPS 2018.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, loss = get_backend("numpy"), SpikeCountSquaredError(correct=0.5)
        >>> counts, steps, label = np.array([[[3.0, 1.0]]]), np.array([[10.0]]), np.array([[[1.0, 0.0]]])
        >>> wanted = loss.desired(nx, counts, label, steps, "classification")
        >>> wanted.tolist(), loss.value(nx, counts, wanted).tolist()
        ([[[5.0, 0.0]]], [[5.0]])
    """

    of_spikes: ClassVar[bool] = True
    correct: float = 1.0
    incorrect: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("correct", "incorrect"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name), at_least=0, at_most=1))

    def desired(
        self, nx: Backend, scores: Array, target: Array, supervised: Array, task_type: str, group: int = 1
    ) -> Array:
        """n*."""
        if task_type == "regression":
            return target
        return group * nx.expand_dims(supervised, -1) * _per_class(target, self.correct, self.incorrect)

    def check_target(self, target: np.ndarray) -> None:
        """Refuse negative counts."""
        super().check_target(target)
        _check_not_negative(target, "spike counts")


@LOSSES.register("membrane_squared_error", "mse_membrane", "mse_membrane_loss")
@dataclass(frozen=True)
class MembraneSquaredError(MeanSquaredError):
    """Σ_k (v_k - v*_k)² of the output membranes at every supervised step.

    For classification v* is ``correct`` for the class and ``incorrect`` for the rest; for regression the target
    [batch, time, n_out] gives it.

    Args:
        correct: membrane potential of the output of the class, in the units of the weights.
        incorrect: membrane potential of every other output.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, loss = get_backend("numpy"), MembraneSquaredError(correct=0.75)
        >>> v, label = np.array([[[0.5, 0.25]]]), np.array([[[1.0, 0.0]]])
        >>> wanted = loss.desired(nx, v, label, np.ones((1, 1)), "classification")
        >>> wanted.tolist(), loss.value(nx, v, wanted).tolist()
        ([[[0.75, 0.0]]], [[0.125]])
    """

    observes: ClassVar[str] = "v"
    correct: float = 1.0
    incorrect: float = 0.0

    def __post_init__(self) -> None:
        for name in ("correct", "incorrect"):
            object.__setattr__(self, name, arguments.number(name, getattr(self, name)))

    def desired(
        self, nx: Backend, scores: Array, target: Array, supervised: Array, task_type: str, group: int = 1
    ) -> Array:
        """v*."""
        return target if task_type == "regression" else _per_class(target, self.correct, self.incorrect)


@dataclass(frozen=True)
class _FirstSpikeError(_FirstSpike, MeanSquaredError):
    """Scores -t/T, so that errors are fractions of the supervised steps."""

    def _score(self, nx: Backend, times: Array, mask: Array) -> Array:
        return -times / _at_least_one(nx, mask)

    def _slope(self, nx: Backend, times: Array, mask: Array) -> Array:
        return -1 / _at_least_one(nx, mask)


@LOSSES.register("first_spike_squared_error", "mse_temporal", "mse_temporal_loss")
@dataclass(frozen=True)
class FirstSpikeSquaredError(_FirstSpikeError):
    """Σ_k ((t_k - t*_k)/T)², t_k the step of output k's first spike, T the number of supervised steps.

    For classification t* is ``correct`` for the class and ``incorrect`` for the rest; for regression the target
    [batch, n_out] gives it, in steps.

    Args:
        correct: step at which the output of the class should fire first.
        incorrect: step at which every other output should; left out, not at all (T).
        tolerance: an error of fewer steps does not count.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, loss = get_backend("numpy"), FirstSpikeSquaredError()
        >>> z, mask = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])[:, None], np.ones((4, 1))
        >>> scores = loss.scores(nx, z, mask)
        >>> wanted = loss.desired(nx, scores, np.array([[[1.0, 0.0]]]), np.array([[4.0]]), "classification")
        >>> loss.value(nx, scores, wanted).tolist()
        [[0.0625]]
    """

    correct: float = 0.0
    incorrect: float | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("correct", "tolerance", "incorrect"):
            if getattr(self, name) is not None or name != "incorrect":
                object.__setattr__(self, name, arguments.number(name, getattr(self, name), at_least=0))

    def desired(
        self, nx: Backend, scores: Array, target: Array, supervised: Array, task_type: str, group: int = 1
    ) -> Array:
        """-t*/T; the score itself where the error is within the tolerance."""
        steps = nx.expand_dims(nx.maximum(supervised, 1.0), -1)
        times = target
        if task_type == "classification":
            times = _per_class(target, self.correct, steps if self.incorrect is None else self.incorrect)
        wanted = -times / steps
        if not self.tolerance:
            return wanted
        scores = nx.stop_gradient(scores)
        return nx.where(nx.abs(scores - wanted) * steps < self.tolerance, scores, wanted)

    def check_target(self, target: np.ndarray) -> None:
        """Refuse negative times."""
        super().check_target(target)
        _check_not_negative(target, "spike times in steps")


@LOSSES.register("relative_first_spike_squared_error", "mse_relative_temporal", "mse_temporal_relative")
@dataclass(frozen=True)
class RelativeFirstSpikeSquaredError(_FirstSpikeError):
    """Σ_k ((t_k - t*_k)/T)² with t* relative to the earliest output: the class should lead by ``margin`` steps.

    With t_min the earliest of the outputs' first spikes, t* = t_min for the class, and for every other output t_k if
    that is at least t_min + margin, else min(t_min + margin, T). If no output fires, t* is T - margin for the class (0
    at least) and T for the rest. As a target t* is a constant, also where it is a spike time.

    Args:
        margin: γ in steps.

    Reference:
        S. R. Kheradpisheh, T. Masquelier, "Temporal backpropagation for spiking neural networks with one spike per
        neuron", International Journal of Neural Systems 30, 2020.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> nx, loss = get_backend("numpy"), RelativeFirstSpikeSquaredError(margin=2)
        >>> scores = -np.array([[[1.0, 2.0, 4.0]]]) / 8
        >>> -8 * loss.desired(nx, scores, np.array([[[0.0, 1.0, 0.0]]]), np.array([[8.0]]), "classification")
        array([[[3., 1., 4.]]])
    """

    target_kind: ClassVar[str] = "classes"
    margin: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", arguments.number("margin", self.margin, above=0))

    def desired(
        self, nx: Backend, scores: Array, target: Array, supervised: Array, task_type: str, group: int = 1
    ) -> Array:
        """-t*/T."""
        # In units of T, where a time is minus a score and an output that does not fire has the time 1.
        margin = self.margin / nx.expand_dims(nx.maximum(supervised, 1.0), -1)
        times = -nx.stop_gradient(scores)
        earliest = -nx.max(-times, axis=-1, keepdims=True)
        none = earliest >= 1 - margin / (2 * self.margin)
        late = nx.minimum(earliest + margin, 1.0)
        others = nx.maximum(times, late)
        own = nx.where(none, nx.maximum(1 - margin, 0.0), earliest)
        return -_per_class(target, own, others)


def _at_least_one(nx: Backend, mask: Array) -> Array:
    """Number of supervised steps of every example, or 1 where there is none: [1, batch, 1]."""
    return nx.maximum(nx.expand_dims(nx.sum(mask, axis=0, keepdims=True), -1), 1.0)


def _check_not_negative(target: np.ndarray, what: str) -> None:
    if np.any(target < 0):
        raise DataError(f"{what} must be at least 0", received=float(target.min()))
