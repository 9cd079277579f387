"""OTTT: online training through time, with a trace of the input and the error within the time step.

    a_t = λ a_{t-1} + x_t,    dE/dW = Σ_t a_tᵀ (G_t σ_t),    to the layer below (G_t σ_t) Wᵀ

    temporal credit presynaptic, learning signals instantaneous, spatial credit symmetric

λ is the neuron's own membrane decay, σ_t its surrogate derivative. The paper's OTTT_A accumulates over the sequence
(deferred here), OTTT_O changes the weights at every time step (online=True). What a neuron's spikes do to itself, by
reset or adaptation, and what they do through recurrent weights, is left out.

Reference: M. Xiao, Q. Meng, Z. Zhang, D. He, Z. Lin, Online training through time for spiking neural networks,
NeurIPS 2022.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("ottt", "online_training_through_time")
class OTTT(LearningRule):
    """OTTT: a decaying trace of the input, whatever the neuron does, times the error of the same time step.

    Args:
        model: an Evaluator; its neurons must leak at a constant rate between spikes.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> OTTT(Evaluator(LIF(8, 2)), online=True)
        OTTT(temporal presynaptic, spatial symmetric, learning signal instantaneous, online)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Xiao et al. 2022",
        "time": "O(N²) per example and step",
        "memory": "O(N) per example where a layer leaks at one rate, flat in T (online)",
        "identity": "= OSTL for feed-forward LIF layers with the reset detached",
    }

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="presynaptic", **options)
