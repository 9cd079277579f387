"""ETLP: event-based three-factor local plasticity, e-prop's traces with the target as third factor.

    dE/dW = Σ_t L_t e_t,   L_t = - B y*_t,   e_t a neuron's own trace

    temporal credit neuron, learning signals instantaneous, spatial credit target

The readout learns by its own error. The paper's rule acts at the events of a teaching neuron, which makes the learning
signal sparse; here it acts at every supervised time step.

Reference: F. M. Quintana, F. Perez-Peña, P. L. Galindo, E. O. Neftci, E. Chicca, L. Khacef, ETLP: event-based
three-factor local plasticity for online learning with neuromorphic hardware, Neuromorphic Computing and Engineering,
2024.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("etlp")
class ETLP(LearningRule):
    """ETLP: a neuron's own trace times a fixed random projection of the target.

    Args:
        model: an Evaluator.
        online: as for LearningRule; at every time step by default.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for LearningRule.
        seed: of the projection.

    Example:
        >>> from neko_rules import ALIF, Evaluator
        >>> ETLP(Evaluator(ALIF(8, 2)))
        ETLP(temporal neuron, spatial target, learning signal instantaneous, online)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Quintana et al. 2024",
        "time": "O(N²) per example and step",
        "memory": "O(N²) per example, flat in T",
        "identity": "= OSTTP in a feed-forward layer",
    }

    def __init__(self, model: Evaluator, online: bool | int = True, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="neuron", spatial="target", online=online, **options)
