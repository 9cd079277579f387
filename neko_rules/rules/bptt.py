"""BPTT: backpropagation through time with surrogate gradients, in full or within windows.

    temporal credit full, learning signals exact, spatial credit symmetric

The gradient is computed by the adjoint recursion over the neurons' local derivatives, not by automatic
differentiation, and is the same number; so it exists on every backend, NumPy included. Truncated to windows of k steps,
states go on from one window to the next and credit ends at the window's edge.

References: P. J. Werbos, Backpropagation through time: what it does and how to do it, Proceedings of the IEEE 78:1550,
1990; R. J. Williams, J. Peng, An efficient gradient-based algorithm for on-line training of recurrent network
trajectories, Neural Computation 2:490, 1990 (truncation); E. O. Neftci, H. Mostafa, F. Zenke, Surrogate gradient
learning in spiking neural networks, IEEE Signal Processing Magazine 36:51, 2019.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.framework_gradient import FrameworkGradient
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("bptt", "backprop", "backpropagation_through_time")
class BPTT(LearningRule):
    """Backpropagation through time: the exact (surrogate) gradient, backward through every path in time.

    dE/dW = Σ_t x_tᵀ δ_t with δ from the full adjoint; resets are detached where the neuron says so.

    Args:
        model: an Evaluator.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, window: as for LearningRule.

    Example:
        >>> from neko_rules import BPTT, Evaluator, LIF
        >>> BPTT(Evaluator(LIF(8, 2)), optimizer={"name": "adam", "learning_rate": 2e-3})
        BPTT(temporal full, spatial symmetric, learning signal exact)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Werbos 1990",
        "time": "O(N²) per example and step",
        "memory": "O(T N) per example",
        "identity": "= automatic differentiation; = central differences on smooth networks",
    }

    requires: ClassVar[str] = "loss_gradient"

    def __new__(cls, model: Evaluator | None = None, **options: Any) -> Any:
        """A wrapped model has no neurons that the recursion could go through: its library differentiates it."""
        if isinstance(model, Evaluator) and "cells" not in model.network.offers:
            return FrameworkGradient(model, **options)
        return super().__new__(cls, model, **options)

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="full", **options)


@RULES.register("truncated_bptt", "tbptt")
class TruncatedBPTT(LearningRule):
    """Truncated BPTT: backpropagation within windows of time steps, and a change of the weights after each.

    States go on from one window to the next as numbers; no error crosses a window's edge.

    Args:
        model: an Evaluator.
        window: time steps in a window.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> TruncatedBPTT(Evaluator(LIF(8, 2)), window=20)
        TruncatedBPTT(temporal full, spatial symmetric, learning signal exact, window 20)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Williams & Peng 1990",
        "time": "O(N²) per example and step",
        "memory": "O(k N) per example for windows of k steps",
        "identity": "= BPTT where a window holds the sequence",
    }

    def __init__(self, model: Evaluator, window: int = 10, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="full", window=window, **options)


Backprop = BPTT
