"""OTPE: online training with postsynaptic estimates of what a spike leaves in the layer above.

    R_t = λ R_{t-1} + e_t,    dE/dθ = Σ_t G_t R_t                                 hidden layers
    ḡ_t: the running mean of σ with decay λ,    to the layer below (G_t ḡ_t) Wᵀ

    temporal credit layer (OTPE) or presynaptic (approximate OTPE), learning signals estimated, spatial credit symmetric

e_t is OSTL's trace, λ the leak of the layer above, G_t the error at its membrane in the time step brought down by its
weights. Approximate OTPE keeps the factors apart, ζ_t = λ ζ_{t-1} + a_t with OTTT's trace a_t, and dE/dW = Σ_t ζ_tᵀ
(G_t ḡ_t). The output layer is OSTL's, or OTTT's. The loss of the paper's F-OTPE sees a leaky sum of the output's
spikes, which here is a leaky readout above a spiking layer.

Learned at the end of a sequence, errors leak backward in time with λ in the place of traces that leak forward, so that
layers connected among themselves cost no more than by OSTL.

Reference: M. Summe, C. J. S. Schaefer, S. Joshi, Estimating post-synaptic effects for online training of feed-forward
SNNs, arXiv:2311.16151, 2023.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("otpe")
class OTPE(LearningRule):
    """OTPE: OSTL's traces summed with the leak of the layer above, to which a spike goes on to matter.

    Args:
        model: an Evaluator on a chain of layers, each below one whose membrane does no more than leak, at one rate.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> OTPE(Evaluator(LIF([8, 8], 2, recurrent=False)))
        OTPE(temporal layer, spatial symmetric, learning signal estimated)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Summe et al. 2023",
        "time": "deferred O(N²) per example and step; online in a recurrent layer O(T N²), O(N⁴) in streams",
        "memory": "deferred O(T N) per example; online O(N²), flat in T",
        "identity": "= BPTT for one hidden LIF layer below a LIF or leaky output, resets detached",
    }

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="layer", learning_signal="estimated", **options)


@RULES.register("approximate_otpe", "a_otpe")
class ApproximateOTPE(LearningRule):
    """Approximate OTPE: a presynaptic trace of a trace, times the error and the mean of the surrogate derivative.

    Args:
        model: an Evaluator on a chain of layers, each below one whose membrane does no more than leak, at one rate.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> ApproximateOTPE(Evaluator(LIF([8, 8], 2, recurrent=False)))
        ApproximateOTPE(temporal presynaptic, spatial symmetric, learning signal estimated)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Summe et al. 2023",
        "time": "O(N²) per example and step",
        "memory": "deferred O(T N) per example; online O(N) where a layer leaks at one rate, flat in T",
        "identity": "= OTTT where the layer above does not remember",
    }

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="presynaptic", learning_signal="estimated", **options)
