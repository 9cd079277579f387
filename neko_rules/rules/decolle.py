"""DECOLLE: deep continuous local learning, where every layer has a fixed random readout and a loss of its own.

    y^l_t = z^l_t M^l,    dE/dW = Σ_t a_tᵀ (σ_t (∂L(y^l_t, y*_t)/∂y^l_t) M^lᵀ),    a_t = λ a_{t-1} + x_t

    temporal credit presynaptic, learning signals instantaneous, spatial credit local

No error crosses layers. The network's own readout learns by its own error and does not reach the layers below.

Reference: J. Kaiser, H. Mostafa, E. Neftci, Synaptic plasticity dynamics for deep continuous local learning (DECOLLE),
Frontiers in Neuroscience 14:424, 2020.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("decolle")
class DECOLLE(LearningRule):
    """DECOLLE: a decaying trace of the input times the error of the layer's own fixed random readout.

    Args:
        model: an Evaluator; its loss is also that of the layers' own readouts.
        online: as for LearningRule; at every time step by default.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for LearningRule.
        seed: of the layers' readouts.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> DECOLLE(Evaluator(LIF([8, 8], 2, recurrent=False)))
        DECOLLE(temporal presynaptic, spatial local, learning signal instantaneous, online)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Kaiser et al. 2020",
        "time": "O(N²) per example and step",
        "memory": "O(N) per example where a layer leaks at one rate, flat in T",
        "identity": "= OTTT of each layer alone under a readout without memory that is held fixed",
    }

    def __init__(self, model: Evaluator, online: bool | int = True, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="presynaptic", spatial="local", online=online, **options)
