"""RTRL: real-time recurrent learning, in full and in the sparse and random forms that make it affordable.

    temporal credit full, forward in time, spatial credit symmetric

    RTRL    the influence of every parameter on every neuron is carried forward      dE_t/dθ = (∂E_t/∂s_t) ∂s_t/∂θ
    SnAp-n  only on the neurons that a weight reaches within n time steps
    UORO    only as a product of two vectors, projected on random signs: right on average

A recurrence is gone through as by BPTT, so that none of them waits for the end of a sequence. SnAp-n is RTRL from the
network's diameter on, which is 2 for one recurrent layer in which every neuron is connected with every other.

What is carried may be had in other ways, to the same numbers. Learned at the end of a sequence, RTRL, SnAp-1 of layers
and SnAp-n from the diameter on go backward in time, and UORO's vector of parameters is summed up from the time steps in
the end. Learned on the way, the same ones go back through the sequence so far, with the weights of every time step,
unless it is so long that keeping it takes several times the memory of the influence (``credit.rewinding``). Streams
carry the influence.

References: R. J. Williams, D. Zipser, A learning algorithm for continually running fully recurrent neural networks,
Neural Computation 1:270, 1989; J. Menick, E. Elsen, U. Evci, S. Osindero, K. Simonyan, A. Graves, Practical real time
recurrent learning with a sparse approximation, ICLR 2021; C. Tallec, Y. Ollivier, Unbiased online recurrent
optimization, ICLR 2018.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules import arguments
from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("rtrl", "real_time_recurrent_learning")
class RTRL(LearningRule):
    """RTRL: the influence of every parameter on every neuron, carried forward; BPTT's gradient at every time step.

    Args:
        model: an Evaluator.
        evaluation: of whole sequences: ``"adjoint"``, which is the usual one, or ``"traces"``, as the rule is written.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> RTRL(Evaluator(LIF(8, 2)), online=True)
        RTRL(temporal full, spatial symmetric, learning signal exact, online)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Williams & Zipser 1989",
        "time": "deferred O(N²) per example and step; online O(T N²), in streams O(N² P) = O(N⁴) for P parameters",
        "memory": "deferred O(T N) per example; online at most O(N P) = O(N³), flat in T",
        "identity": "= BPTT",
    }
    forward = True

    def __init__(self, model: Evaluator, evaluation: str = "", **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="full", evaluation=evaluation, **options)


@RULES.register("snap", "sparse_n_step_approximation")
class SnAp(LearningRule):
    """SnAp-n: the influence of a weight on the neurons that it reaches within n time steps, carried forward.

    Args:
        model: an Evaluator.
        reach: n, from 1, where a weight reaches the neuron that it ends on and all that this one acts on in the step.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, online: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> SnAp(Evaluator(LIF(8, 2)), reach=1)
        SnAp(temporal full, spatial symmetric, learning signal exact, trace sparse_1)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Menick et al. 2021",
        "time": "deferred O(N²) per example and step; online O(T N²), in streams O(P K) for n = 1 to O(N² P)",
        "memory": "deferred O(T N) per example; online at most O(P K) to O(N P), flat in T",
        "identity": "n = 1: = e-prop without autapses, for one hidden layer; n from the diameter on: = RTRL",
    }
    forward = True

    def __init__(self, model: Evaluator, reach: int = 1, **options: Unpack[CreditOptions]) -> None:
        arguments.integer("reach", reach, at_least=1)
        super().__init__(model, temporal="full", trace=f"sparse_{reach}", **options)


@RULES.register("uoro", "unbiased_online_recurrent_optimization")
class UORO(LearningRule):
    """UORO: the influence of all parameters on all states as one random product, right on average.

    One gradient is nearly all noise: the deviation grows with the number of neurons and with the length of the
    sequence, so learning rates have to be small.

    Args:
        model: an Evaluator, without learnable constants of neurons.
        optimizer, regularizers, weight_decay, clipping, rate_factors, online: as for LearningRule.
        seed: of the random signs.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> UORO(Evaluator(LIF(8, 2)))
        UORO(temporal full, spatial symmetric, learning signal exact, trace random_projection)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Tallec & Ollivier 2018",
        "time": "O(N²) per example and step; deferred O(N² + T N) of products while T² is of the order of P",
        "memory": "O(P) per example, flat in T; deferred O(T² + T N) of them",
        "identity": "mean over the random signs = RTRL",
    }
    forward = True

    def __init__(self, model: Evaluator, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="full", trace="random_projection", **options)
