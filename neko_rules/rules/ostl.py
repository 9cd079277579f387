"""OSTL: online spatio-temporal learning, in its deferred form.

    dE/dθ = Σ_t L_t e_t,   ε_t = ∂s_t/∂θ within the layer, its recurrent weights included,   e_t = ∂z_t/∂θ

    temporal credit layer, learning signals instantaneous, spatial credit symmetric

The learning signal comes down through the layers above within the time step; by the rule's definition the memory of
the readout is left out for hidden layers. For one hidden layer and a readout without memory it equals BPTT.

Reference: T. Bohnstingl, S. Woźniak, A. Pantazi, E. Eleftheriou, Online spatio-temporal learning in deep neural
networks, IEEE Transactions on Neural Networks and Learning Systems 34, 2023.
"""

from __future__ import annotations

from typing import Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("ostl")
class OSTL(LearningRule):
    """OSTL: each layer's own recurrence in full, errors between layers within the time step.

    Args:
        model: an Evaluator.
        optimizer, regularizers, weight_decay, clipping, seed: as for LearningRule.

    Example:
        >>> from neko_rules import OSTL, Evaluator, LIF
        >>> OSTL(Evaluator(LIF(8, 2)))
        OSTL(temporal layer, spatial symmetric, learning signal instantaneous)
    """

    def __init__(self, model: Evaluator, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="layer", **options)
