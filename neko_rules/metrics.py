"""Metrics: figures that a person follows while training, read from a forward pass that has been made anyway.

A metric gives a total and a count whose ratio is the figure, so that adding both over batches of any size gives exactly
the figure of all the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from neko_rules.arguments import integer
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.registry import Registry

__all__ = [
    "METRICS",
    "Accuracy",
    "FiringRateMetric",
    "Measurement",
    "Metric",
    "SpikeSparsity",
    "TopK",
    "resolve_metrics",
]


@dataclass(frozen=True)
class Measurement:
    """What one forward pass offers to the metrics.

    Args:
        outputs: [steps, batch, n_out].
        target: [1 or steps, batch, n_out], one-hot (or a distribution) for classification; a first axis of 1 beside
            several steps means one target for the whole sequence.
        mask: [1 or steps, batch], 1 where the example is supervised at that step, else 0, of the outputs' type.
        spikes: of every spiking layer by name, 0 or 1, [time, batch, neuron].
        dt: time step in s.
        steps: where spikes are not given step by step but as their sum over time, [1, batch, neuron]: the number of
            time steps that were summed.
    """

    outputs: Array
    target: Array
    mask: Array
    spikes: Mapping[str, Array] = field(default_factory=dict)
    dt: float = 1e-3
    steps: int | None = None


class Metric(ABC):
    """A figure that is a ratio of two sums.

    Attributes:
        requires: what it is computed from: ``"classes"`` (outputs and a target over classes) or ``"spikes"``.
        of_counts: whether it is the same from spikes summed over time, which spares keeping them step by step.
    """

    requires: ClassVar[str]
    of_counts: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The key under which it is logged."""

    @abstractmethod
    def measure(self, nx: Backend, m: Measurement) -> tuple[Array, Array]:
        """Total and count, two scalars; the metric over several measurements is Σ total / Σ count.

        Raises:
            IncompatibleError: the network lacks what the metric is computed from.
        """


METRICS: Registry[Metric] = Registry("metric", Metric)  # type: ignore[type-abstract]


def resolve_metrics(given: Sequence[str | Mapping[str, Any] | Metric]) -> tuple[Metric, ...]:
    """Metrics from a list of names, mappings or objects.

    Raises:
        ArgumentError: it is no list, or one of them is unknown.

    Example:
        >>> resolve_metrics(["accuracy"])
        (Accuracy(),)
    """
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise ArgumentError("metrics must be a list", received=given, works="for example ['accuracy']")
    return tuple(METRICS.resolve(metric) for metric in given)


@METRICS.register("accuracy", "acc")
@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of decisions in which the largest output is the target class (the first one on ties).

    With one target per sequence, the outputs are averaged over the supervised steps and every supervised example is one
    decision; with a target per step, every supervised step of every example is one.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> y = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.2, 0.8], [0.9, 0.1]]])     # two steps, two examples
        >>> m = Measurement(outputs=y, target=np.array([[[1.0, 0.0], [0.0, 1.0]]]), mask=np.ones((1, 2)))
        >>> total, count = Accuracy().measure(get_backend("numpy"), m)
        >>> float(total), float(count)
        (1.0, 2.0)
    """

    requires: ClassVar[str] = "classes"

    @property
    def name(self) -> str:
        """``accuracy``."""
        return "accuracy"

    def measure(self, nx: Backend, m: Measurement) -> tuple[Array, Array]:
        """Σ [argmax y = argmax target] and the number of decisions."""
        outputs, target_class, weight = _decisions(nx, m)
        hits = nx.astype(nx.argmax(outputs, axis=-1) == target_class, nx.dtype(outputs))
        return nx.sum(weight * hits), nx.sum(weight)


@METRICS.register("top_k", "top_k_accuracy")
@dataclass(frozen=True)
class TopK(Metric):
    """Share of decisions in which the target class is among the k largest outputs; k = 1 is the accuracy.

    Args:
        k: at least 1, and at most the number of outputs.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> y, target = np.array([[[3.0, 2.0, 1.0]]]), np.array([[[0.0, 1.0, 0.0]]])
        >>> m = Measurement(outputs=y, target=target, mask=np.ones((1, 1)))
        >>> [float(TopK(k).measure(get_backend("numpy"), m)[0]) for k in (1, 2)]
        [0.0, 1.0]
    """

    k: int = 5
    requires: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", integer("k", self.k, at_least=1))

    @property
    def name(self) -> str:
        """``top_5`` for k = 5."""
        return f"top_{self.k}"

    def measure(self, nx: Backend, m: Measurement) -> tuple[Array, Array]:
        """Σ [fewer than k outputs come before the target class's] and the number of decisions."""
        outputs, target_class, weight = _decisions(nx, m)
        if self.k > outputs.shape[-1]:
            raise IncompatibleError(
                "the k of a top-k metric must be at most the number of outputs",
                received=f"k = {self.k} for {outputs.shape[-1]} outputs",
            )
        classes, chosen = nx.arange(outputs.shape[-1], "int64"), nx.expand_dims(target_class, -1)
        zeros = nx.full(tuple(outputs.shape), 0.0, nx.dtype(outputs))
        own = nx.sum(nx.where(classes == chosen, outputs, zeros), axis=-1, keepdims=True)
        # Equal outputs are ranked by their index, as argmax does.
        before = (outputs > own) | ((outputs == own) & (classes < chosen))
        rank = nx.sum(nx.astype(before, nx.dtype(outputs)), axis=-1)
        return nx.sum(weight * nx.astype(rank < self.k, nx.dtype(outputs))), nx.sum(weight)


@METRICS.register("firing_rate", "rate")
@dataclass(frozen=True)
class FiringRateMetric(Metric):
    """Mean firing rate in Hz over all spiking neurons, examples and time steps.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> none, spikes = np.zeros((1, 1, 1)), {"hidden": np.eye(10).reshape(10, 1, 10)}
        >>> m = Measurement(none, none, none[0], spikes, dt=1e-3)
        >>> total, count = FiringRateMetric().measure(get_backend("numpy"), m)
        >>> float(total), round(float(total / count), 6)
        (10.0, 100.0)
    """

    requires: ClassVar[str] = "spikes"
    of_counts: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``firing_rate``."""
        return "firing_rate"

    def measure(self, nx: Backend, m: Measurement) -> tuple[Array, Array]:
        """Number of spikes, and neuron seconds."""
        spikes, neuron_steps = _spike_counts(nx, m, self.name)
        return spikes, neuron_steps * m.dt


@METRICS.register("spike_sparsity", "sparsity")
@dataclass(frozen=True)
class SpikeSparsity(Metric):
    """Share of neuron-steps without a spike: 1 for a silent network, 0 for one that always fires.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> none, spikes = np.zeros((1, 1, 1)), {"hidden": np.array([1.0, 0.0, 0.0, 0.0]).reshape(4, 1, 1)}
        >>> total, count = SpikeSparsity().measure(get_backend("numpy"), Measurement(none, none, none[0], spikes))
        >>> float(total / count)
        0.75
    """

    requires: ClassVar[str] = "spikes"
    of_counts: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``spike_sparsity``."""
        return "spike_sparsity"

    def measure(self, nx: Backend, m: Measurement) -> tuple[Array, Array]:
        """Number of neuron-steps without a spike, and of all."""
        spikes, neuron_steps = _spike_counts(nx, m, self.name)
        return neuron_steps - spikes, neuron_steps


def _decisions(nx: Backend, m: Measurement) -> tuple[Array, Array, Array]:
    """Outputs [decisions…, n_out], target class [decisions…] and weight 0 or 1 [decisions…]."""
    target_class = nx.argmax(m.target, axis=-1)
    if m.target.shape[0] == 1:
        # The sum over the supervised steps has the same argmax as their mean, also where there is none.
        outputs = nx.sum(m.outputs * nx.expand_dims(m.mask, -1), axis=0)
        return outputs, target_class[0], nx.max(m.mask, axis=0)
    return m.outputs, target_class, nx.broadcast_to(m.mask, tuple(m.outputs.shape[:2]))


def _spike_counts(nx: Backend, m: Measurement, name: str) -> tuple[Array, Array]:
    """Number of spikes and of neuron-steps over all spiking layers."""
    layers = list(m.spikes.values())
    if not layers:
        raise IncompatibleError(
            f"the metric {name} needs spiking neurons, and the network has none",
            works="use spiking neurons such as LIF or ALIF, or leave the metric out",
        )
    totals = [nx.sum(layer) for layer in layers]
    neuron_steps = sum((m.steps or layer.shape[0]) * layer.shape[1] * layer.shape[2] for layer in layers)
    return sum(totals[1:], totals[0]), nx.full((), neuron_steps, nx.dtype(layers[0]))
