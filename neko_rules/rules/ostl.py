"""OSTL and OSTTP: a layer's own recurrence in full; errors, or the target, within the time step.

    dE/dθ = Σ_t L_t e_t,   ε_t = ∂s_t/∂θ within the layer, its recurrent weights included,   e_t = ∂z_t/∂θ

    temporal credit layer, learning signals instantaneous, spatial credit symmetric (OSTL) or target (OSTTP)

The learning signal comes down through the layers above within the time step; by the rule's definition the memory of
the readout is left out for hidden layers. For one hidden layer and a readout without memory OSTL equals BPTT. OSTTP
takes a fixed random projection of the target in its place, so that no error has to come back.

References: T. Bohnstingl, S. Woźniak, A. Pantazi, E. Eleftheriou, Online spatio-temporal learning in deep neural
networks, IEEE Transactions on Neural Networks and Learning Systems 34, 2023; T. Ortner, L. Pes, J. Gentinetta,
C. Frenkel, A. Pantazi, Online spatio-temporal learning with target projection, AICAS 2023.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions


@RULES.register("ostl")
class OSTL(LearningRule):
    """OSTL: each layer's own recurrence in full, errors between layers within the time step.

    Args:
        model: an Evaluator.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import OSTL, Evaluator, LIF
        >>> OSTL(Evaluator(LIF(8, 2)))
        OSTL(temporal layer, spatial symmetric, learning signal instantaneous)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Bohnstingl et al. 2023",
        "time": "deferred O(N²) per example and step; online in a recurrent layer O(T N²), O(N⁴) in streams",
        "memory": "deferred O(T N) per example; online at most O(N³), or O(N²), flat in T",
        "identity": "= BPTT for one hidden layer and a readout without memory",
    }

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="layer", **options)


@RULES.register("osttp")
class OSTTP(LearningRule):
    """OSTTP: OSTL's traces with a fixed random projection of the target as learning signal.

    The readout itself learns by its own error.

    Args:
        model: an Evaluator.
        online: as for LearningRule; at every time step by default.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> OSTTP(Evaluator(LIF(8, 2)), online=False)
        OSTTP(temporal layer, spatial target, learning signal instantaneous)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Ortner et al. 2023",
        "time": "O(T N²) per example and step in a recurrent layer, O(N⁴) in streams; O(N²) in a feed-forward one",
        "memory": "at most O(N³), or O(N²), per example, flat in T",
        "identity": "= OSTL where the projected target stands for the error",
    }

    def __init__(self, model: Evaluator, online: bool | int = True, **options: Unpack[UpdateOptions]) -> None:
        super().__init__(model, temporal="layer", spatial="target", online=online, **options)
