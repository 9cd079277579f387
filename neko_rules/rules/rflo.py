"""RFLO: random feedback local online learning.

    dE/dW = Σ_t L_t e_t,   L_t = B (∂E/∂y_t),   e_t a neuron's own trace

    temporal credit neuron, learning signals instantaneous, spatial credit random

Derived for rate networks without a memory in the readout; on a readout with memory it leaves that out.

Reference: J. M. Murray, Local online learning in recurrent networks with random feedback, eLife 8:e43299, 2019.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("rflo", "random_feedback_local_online")
class RFLO(LearningRule):
    """RFLO: a neuron's own trace times the output's error in the time step, through fixed random weights.

    Args:
        model: an Evaluator.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the feedback weights.

    Example:
        >>> from neko_rules import Evaluator, RNN
        >>> RFLO(Evaluator(RNN(8, 2)), online=True)
        RFLO(temporal neuron, spatial random, learning signal instantaneous, online)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Murray 2019",
        "time": "O(N²) per example and step",
        "memory": "O(N²) per example, flat in T (online)",
        "identity": "= e-prop with random feedback for a readout without memory",
    }

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="neuron", spatial="random", learning_signal="instantaneous", **options)
