"""BPTT: backpropagation through time with surrogate gradients.

    temporal credit full, learning signals exact, spatial credit symmetric

The gradient is computed by the adjoint recursion over the neurons' local derivatives, not by automatic
differentiation, and is the same number; so it exists on every backend, NumPy included.

References: P. J. Werbos, Backpropagation through time: what it does and how to do it, Proceedings of the IEEE 78:1550,
1990; E. O. Neftci, H. Mostafa, F. Zenke, Surrogate gradient learning in spiking neural networks, IEEE Signal Processing
Magazine 36:51, 2019.
"""

from __future__ import annotations

from typing import Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("bptt", "backprop", "backpropagation_through_time")
class BPTT(LearningRule):
    """Backpropagation through time: the exact (surrogate) gradient, backward through every path in time.

    dE/dW = Σ_t x_tᵀ δ_t with δ from the full adjoint; resets are detached where the neuron says so.

    Args:
        model: an Evaluator.
        optimizer, regularizers, weight_decay, clipping, seed: as for LearningRule.

    Example:
        >>> from neko_rules import BPTT, Evaluator, LIF
        >>> BPTT(Evaluator(LIF(8, 2)), optimizer={"name": "adam", "learning_rate": 2e-3})
        BPTT(temporal full, spatial symmetric, learning signal exact)
    """

    def __init__(self, model: Evaluator, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="full", **options)


Backprop = BPTT
