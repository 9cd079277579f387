"""RewardSTDP: reward-modulated STDP: eligibility by spike timing, made a weight change by a delayed reward.

    c_t = exp(-dt/τ_e) c_{t-1} + STDP_t          Δw = (R - b) c at the time of the reward

STDP_t is what pair-based STDP would do in step t, the reward that of the head of reward.py. The eligibility decays
through the sequence and through the delay, so that c at the reward is Σ_t k_t STDP_t with k_t = exp(-((T-1-t) dt +
delay)/τ_e); no trace per synapse is kept. The readout learns from the same number, by REINFORCE: no label reaches it.

References: R. V. Florian, Reinforcement learning through modulation of spike-timing-dependent synaptic plasticity,
Neural Computation 19:1468, 2007 (MSTDPET); E. M. Izhikevich, Solving the distal reward problem through linkage of STDP
and dopamine signaling, Cerebral Cortex 17:2443, 2007; N. Frémaux, W. Gerstner, Neuromodulated spike-timing-dependent
plasticity, and theory of three-factor learning rules, Frontiers in Neural Circuits 9:85, 2016 (the baseline).
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.backend import Parameters
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.reward import RewardDriven
from neko_rules.rules.rule import RULES
from neko_rules.rules.stdp import STDP, PlasticityOptions


@RULES.register("reward_stdp", "r_stdp")
class RewardSTDP(RewardDriven, STDP):
    """Reward-modulated STDP: what spike timing would change waits for a reward that comes late (R-STDP).

    dw = F₊(w) Σ_t m_t A₊ x̂_tᵀ z_t - F₋(w) Σ_t m_t A₋ s_tᵀ ŷ_t with m_t = k_t (R - b), the mean over the examples.

    The decision is drawn from the softmax of the mean supervised outputs and rewarded with 1 if it is the label. The
    readout's parameters follow the policy gradient (R - b)(π - a); hidden biases stay as they are. Homeostasis and
    bounds are those of STDP and do not wait for the reward. Spikes are a function of the input here, and the
    decision's noise is added after them: hidden synapses learn which spikes go along with a reward above the average,
    not which spikes caused the decision; that needs noise in the spikes, which the input may have.

    Args:
        model: an Evaluator of a classification network with spiking neurons.
        tau_eligibility: τ_e in seconds; Izhikevich 2007 has 1 s.
        delay: seconds from the end of the sequence to the reward.
        baseline_rate: ρ, from 0 (b stays at 1/n_out) to 1 (b is the last batch's mean reward).
        potentiation, depression, tau_plus, tau_minus: as for STDP.
        connections, pairing, bounds, w_min, w_max, target_rate, scaling: as for STDP.
        optimizer, weight_decay, clipping, rate_factors: as for STDP.
        seed: of the decisions, which depend on it and on the number of updates made, and on nothing else.

    Example:
        >>> import numpy as np
        >>> from neko_rules import LIF, Evaluator, RewardSTDP
        >>> rule = RewardSTDP(Evaluator(LIF(8, 2)), delay=0.2, baseline_rate=0.5)
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> sorted(rule.step(x, y)), 0.25 <= rule.baseline <= 0.75
        (['loss'], True)
    """

    options: ClassVar[type] = PlasticityOptions
    about: ClassVar[dict[str, str]] = {
        "axes": "spike timing · reward",
        "paper": "Florian 2007, Neural Computation 19:1468; Izhikevich 2007, Cerebral Cortex 17:2443",
        "time": "two products O(B N²) per connection, and O(B N) for its traces",
        "memory": "one forward pass and four traces per connection, O(T B N)",
        "identity": "with a reward of 1 above the baseline and slow eligibility it is STDP",
    }

    def __init__(
        self,
        model: Evaluator,
        *,
        tau_eligibility: float = 1.0,
        delay: float = 0.0,
        baseline_rate: float = 0.1,
        potentiation: float = 0.5,
        depression: float = 0.525,
        tau_plus: float = 20e-3,
        tau_minus: float = 20e-3,
        **options: Unpack[PlasticityOptions],
    ) -> None:
        super().__init__(
            model,
            potentiation=potentiation,
            depression=depression,
            tau_plus=tau_plus,
            tau_minus=tau_minus,
            **options,
        )
        self._set_reward(tau_eligibility, delay, baseline_rate)

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        trajectory = self.model.network.forward(values, batch[0])
        judgement = self.model.judge(trajectory, *batch[1:])
        judgement, gain = self._rewarded(trajectory, judgement, batch, own, drawn)
        return judgement, self._found(values, trajectory, judgement.signals, gain)
