"""pp-prop: traces as a presynaptic and a postsynaptic factor, so that any neuron needs O(N) memory.

    x̄_t = a x̄_{t-1} + x_t,   f_t = a D_t f_{t-1} + (1 - a) q_t,   dE/dW = Σ_t x̄_tᵀ (G_t h_t·f_t) / (1 - a^{t+1})

Learned at the end of a sequence, the same sum has its order turned: f forward, and then what meets x_t backward, which
leaks with a (``credit.factors``).

    temporal credit neuron, trace rank one, learning signals instantaneous, spatial credit symmetric

D_t here holds what a neuron's own spike does to itself as well.

Reference: C. Wang et al. 2026; ES-D-RTRL in the authors' program.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("pp_prop", "es_d_rtrl")
class PPProp(LearningRule):
    """pp-prop: a smoothed presynaptic factor times a smoothed postsynaptic one.

    Args:
        model: an Evaluator.
        decay: a, from 0 to below 1.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import ALIF, Evaluator
        >>> PPProp(Evaluator(ALIF(8, 2)), online=True)
        PPProp(temporal neuron, spatial symmetric, learning signal instantaneous, trace rank_one, online)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Wang et al. 2026",
        "time": "O(N²) per example and step",
        "memory": "deferred O(T N) per example; online O(N) for any neuron, flat in T",
        "identity": "a = 0: = the rule without temporal credit",
    }

    def __init__(self, model: Evaluator, decay: float = 0.9, **options: Unpack[CreditOptions]) -> None:
        super().__init__(
            model,
            temporal="neuron",
            trace="rank_one",
            learning_signal="instantaneous",
            trace_decay=decay,
            **options,
        )
