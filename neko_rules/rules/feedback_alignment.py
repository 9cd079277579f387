"""Feedback alignment and its relatives: errors that come down through other weights than the forward ones.

    G = δ Bᵀ      with B random (feedback alignment), the signs of W (sign-symmetric), a follower of W (Kolen-Pollack),
                  a mirror of W (weight mirror), or from the output straight to each layer (direct feedback alignment)
    G = - B y*    the target in the place of the error (direct random target projection)

Each goes with any temporal credit, ``full`` by default where the error passes through the layers above, else ``layer``.

References: T. P. Lillicrap, D. Cownden, D. B. Tweed, C. J. Akerman, Random synaptic feedback weights support error
backpropagation for deep learning, Nature Communications 7:13276, 2016; A. Nøkland, Direct feedback alignment provides
learning in deep neural networks, NeurIPS 2016; Q. Liao, J. Z. Leibo, T. Poggio, How important is weight symmetry in
backpropagation?, AAAI 2016; J. F. Kolen, J. B. Pollack, Backpropagation without weight transport, ICNN 1994;
M. Akrout, C. Wilson, P. Humphreys, T. Lillicrap, D. Tweed, Deep learning without weight transport, NeurIPS 2019;
C. Frenkel, M. Lefebvre, D. Bol, Learning without feedback: fixed random learning signals allow for feedforward training
of deep neural networks, Frontiers in Neuroscience 15:629892, 2021.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.eprop import usual_decay
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES

COST = {"time": "that of its temporal credit", "memory": "that of its temporal credit, and the feedback weights"}


@RULES.register("feedback_alignment", "fa")
class FeedbackAlignment(LearningRule):
    """Feedback alignment: errors come down through fixed random weights.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the feedback weights.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> FeedbackAlignment(Evaluator(LIF(8, 2)))
        FeedbackAlignment(temporal full, spatial random, learning signal exact)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Lillicrap et al. 2016",
        **COST,
        "identity": "= BPTT where the feedback weights are the forward ones",
    }

    def __init__(self, model: Evaluator, temporal: str = "full", **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal=temporal, spatial="random", **options)


@RULES.register("dfa", "direct_feedback_alignment")
class DFA(LearningRule):
    """DFA: the output's error goes to every layer straight through fixed random weights.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows; not ``"full"``, which goes through the layers above.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the feedback weights.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> DFA(Evaluator(LIF([8, 8], 2)))
        DFA(temporal layer, spatial direct, learning signal filtered)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Nøkland 2016",
        **COST,
        "identity": "= feedback alignment at one hidden layer",
    }

    def __init__(self, model: Evaluator, temporal: str = "layer", **options: Unpack[CreditOptions]) -> None:
        signal = "filtered" if temporal in ("layer", "neuron") else ""
        super().__init__(model, temporal=temporal, spatial="direct", learning_signal=signal, **options)


@RULES.register("sign_symmetric")
class SignSymmetric(LearningRule):
    """Sign-symmetric feedback: errors come down through the signs of the forward weights, at one strength.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online, window: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> SignSymmetric(Evaluator(LIF(8, 2)))
        SignSymmetric(temporal full, spatial sign, learning signal exact)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Liao et al. 2016",
        **COST,
        "identity": "= BPTT where every forward weight is ± 1/√fan-in",
    }

    def __init__(self, model: Evaluator, temporal: str = "full", **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal=temporal, spatial="sign", **options)


@RULES.register("kolen_pollack")
class KolenPollack(LearningRule):
    """Kolen-Pollack: feedback weights receive the updates of the forward weights while both decay, and so align.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows.
        feedback_decay: decay of both, in units of the learning rate; by default as for EProp.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the first feedback weights.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> KolenPollack(Evaluator(LIF(8, 2)))
        KolenPollack(temporal full, spatial adaptive, learning signal exact)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Kolen & Pollack 1994, Akrout et al. 2019",
        **COST,
        "identity": "W - B shrinks by 1 - η (decays) at each update",
    }

    def __init__(
        self,
        model: Evaluator,
        temporal: str = "full",
        feedback_decay: float | None = None,
        **options: Unpack[CreditOptions],
    ) -> None:
        decay = usual_decay(options.get("optimizer", "adam")) if feedback_decay is None else feedback_decay
        super().__init__(model, temporal=temporal, spatial="adaptive", feedback_decay=decay, **options)


@RULES.register("weight_mirror")
class WeightMirror(LearningRule):
    """Weight mirror: feedback weights learn the forward ones from what these make of white noise.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows.
        mirror_rate: part of the way to what the noise shows that is gone at each update, above 0, at most 1.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the first feedback weights and of the noise.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> WeightMirror(Evaluator(LIF(8, 2)))
        WeightMirror(temporal full, spatial mirror, learning signal exact)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Akrout et al. 2019",
        **COST,
        "identity": "mean of W - B shrinks by 1 - η_m at each update while W is held",
    }

    def __init__(
        self,
        model: Evaluator,
        temporal: str = "full",
        mirror_rate: float = 0.02,
        **options: Unpack[CreditOptions],
    ) -> None:
        super().__init__(model, temporal=temporal, spatial="mirror", mirror_rate=mirror_rate, **options)


@RULES.register("drtp", "direct_random_target_projection")
class DRTP(LearningRule):
    """DRTP: a fixed random projection of the target stands for the error at every hidden layer.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows; not ``"full"``, which goes through the layers above.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online, window: as for LearningRule.
        seed: of the projection.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> DRTP(Evaluator(LIF([8, 8], 2)))
        DRTP(temporal layer, spatial target, learning signal instantaneous)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Frenkel et al. 2021",
        **COST,
        "identity": "= OSTTP for layer credit",
    }

    def __init__(self, model: Evaluator, temporal: str = "layer", **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal=temporal, spatial="target", **options)
