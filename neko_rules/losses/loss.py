"""Loss: how far what the output population did is from the target, and the derivative, which is where learning starts.

A loss looks at the outputs z or a state of the output population, [time, batch, neuron], and makes scores of it, on
which it is computed and decisions are made (the largest score wins): one set of scores at every step, or one for the
whole sequence, such as spike counts. It reduces the last axis of the scores only: scores [steps, batch, n] give values
[steps, batch]. Which of them count, and by how much, is a weight [steps, batch] that is the same for value and
gradient, so both stay consistent:

    E = Σ_{t,b} weight_{tb} · value_{tb},      dE/dscore_{tbk} = weight_{tb} · gradient_{tbk}.

A loss looks at every example by itself: it is asked about a few of a batch at a time, on several threads by several at
once, and the loss of the batch is the sum. The arrays that it is given are used again for the next ones: what it keeps
has to be a copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from neko_rules.alike import Alike
from neko_rules.backend import Array, Backend
from neko_rules.errors import DataError
from neko_rules.kernels.host import host_of
from neko_rules.kernels.rowwise import Pass, pass_of
from neko_rules.registry import Registry


@dataclass(frozen=True)
class Loss(Alike, ABC):
    """A distance of outputs from a target.

    Attributes:
        target_kind: what a target is: ``"classes"`` (one-hot or a distribution over the outputs; the softmax is part of
            the loss), ``"labels"`` (integers 0 … n_out - 1, made one-hot before they reach the loss), ``"values"``.
        online: whether it has a value at every time step, so that weights may change while a sequence goes on; a loss
            of the whole sequence has none until its end.
        observes: what it looks at in the output population: ``"z"`` or the name of a state.
        of_spikes: whether it has a meaning only for an output population that spikes.
        of_times: whether of its spikes it looks at when they are, and not at how many.
    """

    target_kind: ClassVar[str]
    online: ClassVar[bool] = True
    observes: ClassVar[str] = "z"
    of_spikes: ClassVar[bool] = False
    of_times: ClassVar[bool] = False

    @property
    def is_of_outputs(self) -> bool:
        """Whether it judges the outputs of every time step by themselves, as they are, and by the target as it is."""
        own = "scores", "pull_back", "desired", "number_of_scores"
        return self.online and all(getattr(type(self), name) is getattr(Loss, name) for name in own)

    @abstractmethod
    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """The loss of every step and example.

        Args:
            nx: the backend of the arrays.
            outputs: the scores, [steps, batch, n_out]; for classes the logits.
            target: [1 or steps, batch, n_out], of the type of the outputs.

        Returns:
            [steps, batch].
        """

    @abstractmethod
    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        """The derivative of every value with respect to the scores of its step, [steps, batch, n_out]."""

    def scores(self, nx: Backend, history: Array, mask: Array) -> Array:
        """What the value is computed from and decisions are made on: by default the history as it is.

        Args:
            nx: the backend of the arrays.
            history: what the loss observes, [time, batch, neuron].
            mask: [time, batch], 1 where the example is supervised at that step, else 0.

        Returns:
            [time, batch, n_out], or [1, batch, n_out] for a loss of the whole sequence.
        """
        return history

    def pull_back(self, nx: Backend, history: Array, mask: Array, gradient: Array) -> Array:
        """dE/dhistory [time, batch, neuron] from dE/dscores."""
        return gradient

    def desired(
        self, nx: Backend, scores: Array, target: Array, supervised: Array, task_type: str, group: int = 1
    ) -> Array:
        """The scores that a target asks for; a constant for differentiation.

        Args:
            nx: the backend of the arrays.
            scores: as ``scores`` gave them.
            target: [1 or steps, batch, n_out], one-hot (or a distribution) for classification.
            supervised: number of supervised steps of every example, [1, batch].
            task_type: ``"classification"`` or ``"regression"``.
            group: how many output neurons make one score.
        """
        return target

    def number_of_scores(self, neurons: int) -> int:
        """How many scores the output population gives, which is how many values a target has.

        Raises:
            IncompatibleError: the loss has no meaning for that number of neurons.
        """
        return neurons

    def check_target(self, target: np.ndarray) -> None:
        """Refuse a dense target [..., n_out] that the loss has no meaning for.

        Raises:
            DataError: the first thing wrong with it.
        """
        if not np.all(np.isfinite(target)):
            raise DataError(
                "a target must be finite", received=f"{np.count_nonzero(~np.isfinite(target))} NaN or infinite"
            )


LOSSES: Registry[Loss] = Registry("loss", Loss)  # type: ignore[type-abstract]


def weighted_total(nx: Backend, loss: Loss, outputs: Array, target: Array, weights: Array) -> Array:
    """E = Σ_{t,b} weight · value, a scalar.

    Args:
        nx: the backend of the arrays.
        loss: the loss of one step.
        outputs: [steps, batch, n_out].
        target: [1 or steps, batch, n_out].
        weights: [1 or steps, batch].

    Example:
        >>> from neko_rules.backend import get_backend
        >>> from neko_rules.losses import MeanSquaredError
        >>> y, t = np.ones((2, 1, 1)), np.zeros((1, 1, 1))
        >>> weighted_total(get_backend("numpy"), MeanSquaredError(), y, t, np.array([[0.5], [0.25]])).item()
        0.75
    """
    return nx.sum(weights * loss.value(nx, outputs, target))


def weighed(
    nx: Backend, loss: Loss, outputs: Array, target: Array, counted: Array, weights: Array
) -> tuple[Array, Array]:
    """Σ_{t,b} counted · value, a scalar, and weight · gradient [steps, batch, n_out], in one pass where there is one.

    Args:
        nx: the backend of the arrays.
        loss: the loss of one step.
        outputs: [steps, batch, n_out].
        target: [1 or steps, batch, n_out].
        counted: the weight of the values, [steps, batch].
        weights: of the gradients, [steps, batch].

    Example:
        >>> from neko_rules.backend import get_backend
        >>> from neko_rules.losses import MeanSquaredError
        >>> y, t, w = np.ones((2, 1, 1)), np.zeros((1, 1, 1)), np.array([[0.5], [0.25]])
        >>> total, gradient = weighed(get_backend("numpy"), MeanSquaredError(), y, t, w, 2 * w)
        >>> total.item(), gradient.ravel()
        (0.75, array([2., 1.]))
    """
    host = host_of(nx)
    alike = outputs.shape[-1] == target.shape[-1]
    rows = compiled_pass(loss, nx.dtype(outputs)) if host is not None and alike else None
    if host is None or rows is None:
        return weighted_total(nx, loss, outputs, target, counted), output_gradient(nx, loss, outputs, target, weights)
    value, gradient = rows.run(host, outputs, target, weights)
    return nx.sum(counted * value), gradient


def compiled_pass(loss: Loss, dtype: str) -> Pass | None:
    """Value and gradient of a loss as one compiled loop over rows of scores; None where they have no such form.

    Example:
        >>> from neko_rules.losses import MeanSquaredError
        >>> compiled_pass(MeanSquaredError(), "float32").numbers
        1
    """

    def both(operations: Any, y: Any, wanted: Any) -> tuple[Any, Any]:
        # What the two have in common, such as the logarithm of a softmax, is written down once.
        return loss.value(operations, y, wanted), loss.gradient(operations, y, wanted)

    return pass_of((loss, type(loss).value, type(loss).gradient), both, dtype)


def output_gradient(nx: Backend, loss: Loss, outputs: Array, target: Array, weights: Array) -> Array:
    """dE/dy = weight · gradient [steps, batch, n_out] for the E of :func:`weighted_total`.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> from neko_rules.losses import MeanSquaredError
        >>> y, t = np.ones((2, 1, 1)), np.zeros((1, 1, 1))
        >>> output_gradient(get_backend("numpy"), MeanSquaredError(), y, t, np.array([[0.5], [0.25]])).ravel()
        array([1. , 0.5])
    """
    return nx.expand_dims(weights, -1) * loss.gradient(nx, outputs, target)
