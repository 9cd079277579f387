"""RewardEProp: e-prop whose learning signal is a decision times a delayed reward: three factors, without a critic.

    dE/dW_ji = (R - b) Σ_t k_t L_t^j ē_t^ji        L_t^j = Σ_k B_jk (π_k - 1[k = a]) / T

ē is e-prop's eligibility trace, filtered by the readout's memory; L what the decision a sends to the neurons; their
product decays with τ_e until the reward, by k_t = exp(-((T-1-t) dt + delay)/τ_e), T the number of supervised steps
(whose outputs are averaged into the policy π). This is e-prop's gradient of E = -⟨R⟩ by the likelihood ratio; with a
slow τ_e its mean over decisions is e-prop's gradient of the expected reward. The paper's actor also has a value network
as the baseline and decides in every step; here b is a running average and there is one decision per sequence.

References: G. Bellec et al., A solution to the learning dilemma for recurrent networks of spiking neurons, Nature
Communications 11:3625, 2020 (reward-based e-prop); R. J. Williams, Simple statistical gradient-following algorithms for
connectionist reinforcement learning, Machine Learning 8:229, 1992; N. Frémaux, W. Gerstner, Neuromodulated
spike-timing-dependent plasticity, and theory of three-factor learning rules, Frontiers in Neural Circuits 9:85, 2016.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules import arguments
from neko_rules.backend import Parameters
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.forward import add_signals
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.reward import RewardDriven
from neko_rules.rules.rule import RULES, UpdateOptions

MODES = ("symmetric", "random")


@RULES.register("reward_eprop")
class RewardEProp(RewardDriven, LearningRule):
    """Three-factor e-prop: eligibility, what the decision broadcasts, and a delayed scalar reward.

    dE/dW_ji = (R - b) Σ_t k_t L_t^j ē_t^ji, L_t^j = Σ_k B_jk (π_k - 1[k = a])/T, the mean over the examples.

    The decision is drawn from the softmax of the mean supervised outputs and rewarded with 1 if it is the label.
    Regularisers keep their own gradient, as in e-prop; it does not wait for the reward. Detached as in e-prop: what
    goes through other neurons in time.

    Args:
        model: an Evaluator of a classification network.
        mode: ``"symmetric"`` or ``"random"`` feedback B.
        tau_eligibility: τ_e in seconds.
        delay: seconds from the end of the sequence to the reward.
        baseline_rate: ρ, from 0 (b stays at 1/n_out) to 1 (b is the last batch's mean reward).
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for Rule.
        seed: of the decisions and of random feedback.

    Example:
        >>> import numpy as np
        >>> from neko_rules import ALIF, Evaluator, RewardEProp
        >>> rule = RewardEProp(Evaluator(ALIF(8, 2)), delay=0.2)
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> sorted(rule.step(x, y)), 0.44 < rule.baseline < 0.56
        (['loss'], True)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Bellec et al. 2020, Nature Communications 11:3625 (reward-based e-prop)",
        "time": "that of e-prop, O(B N²)",
        "memory": "one forward pass, O(T B N)",
        "identity": "its mean over decisions is e-prop's gradient of the expected reward, as tau_eligibility → ∞",
    }

    def __init__(
        self,
        model: Evaluator,
        mode: str = "symmetric",
        *,
        tau_eligibility: float = 1.0,
        delay: float = 0.0,
        baseline_rate: float = 0.1,
        **options: Unpack[UpdateOptions],
    ) -> None:
        super().__init__(model, temporal="neuron", spatial=arguments.choice("mode", mode, MODES), **options)
        self._set_reward(tau_eligibility, delay, baseline_rate)

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        trajectory = self.model.network.forward(values, batch[0])
        judgement = self.model.judge(trajectory, *batch[1:])
        judgement, _ = self._rewarded(trajectory, judgement, batch, own, drawn)
        signals = add_signals(judgement.signals, self.regularized(trajectory))
        return judgement, self.adjoint(values, own, trajectory, signals)
