"""EProp: e-prop, eligibility propagation, with symmetric, random or adaptive feedback.

    dE/dW_ji = Σ_t L_t^j ē_t^ji,   e_t^ji = ∂z_t/∂s_t · ε_t^ji,   ε_t = (∂s_t/∂s_{t-1}) ε_{t-1} + ∂s_t/∂W_ji

    temporal credit neuron (own state only), learning signals through the readout's memory κ, then within the step

L_t^j = Σ_k B_jk (∂E/∂y_t)_k, where ∂E/∂y_t is y_t - y*_t up to a factor. B is the readout's own weights (symmetric),
fixed random weights, or weights that receive the readout's updates while both decay (adaptive). In networks of several
layers L goes down through the layers within the time step. The gradient is computed backward in time, where filtering
the learning signal with κ gives the same number as filtering the eligibility traces.

Reference: G. Bellec, F. Scherr, A. Subramoney, E. Hajek, D. Salaj, R. Legenstein, W. Maass, A solution to the learning
dilemma for recurrent networks of spiking neurons, Nature Communications 11:3625, 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from neko_rules import arguments
from neko_rules.evaluator import Evaluator
from neko_rules.optimizers import OPTIMIZERS, Optimizer
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES

MODES = ("symmetric", "random", "adaptive", "direct", "sign", "mirror")


@RULES.register("eprop")
class EProp(LearningRule):
    """e-prop: local eligibility traces times a learning signal broadcast from the readout.

    Args:
        model: an Evaluator.
        mode: ``"symmetric"``, ``"random"`` or ``"adaptive"`` feedback, as in the paper; or ``"direct"`` (random, from
            the output straight to every layer), ``"sign"`` or ``"mirror"``.
        feedback_decay: adaptive only: decay of feedback and readout weights, in units of the learning rate; the
            difference of the two shrinks by the factor 1 - learning rate·(feedback_decay + weight_decay) in each step.
            By default 0.1, or less where the learning rate is above 1e-2: at most 1e-3 per step.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator
        >>> EProp(Evaluator(ALIF(8, 2)), mode="random")
        EProp(temporal neuron, spatial random, learning signal filtered)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Bellec et al. 2020",
        "time": "O(N²) per example and step; online in lower layers O(N² K) for K outputs",
        "memory": "deferred O(T N) per example; online O(N²), in lower layers O(N² K), flat in T",
        "identity": "= automatic differentiation with the recurrent spikes detached; = RTRL with them cut",
    }

    def __init__(
        self,
        model: Evaluator,
        mode: str = "symmetric",
        *,
        feedback_decay: float | None = None,
        **options: Unpack[CreditOptions],
    ) -> None:
        arguments.choice("mode", mode, MODES)
        if feedback_decay is None:
            feedback_decay = usual_decay(options.get("optimizer", "adam")) if mode == "adaptive" else 0.0
        super().__init__(model, temporal="neuron", spatial=mode, feedback_decay=feedback_decay, **options)


def usual_decay(optimizer: str | Mapping[str, Any] | Optimizer) -> float:
    """0.1 per unit of learning rate, and at most 1e-3 per step.

    On MNIST by rows with Adam at 3e-3, a decay of 1 pulls the readout towards zero: 92.6 % of the test images are right
    instead of 95.3 %.
    """
    # A schedule in epochs begins with the same rate whatever their length, a warm-up aside.
    rate = OPTIMIZERS.resolve(optimizer).in_updates(1).learning_rate_at(0)
    return min(0.1, 1e-3 / rate) if rate > 0 else 0.1


Eprop = EProp
