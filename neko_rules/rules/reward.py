"""Reward: a network's decision, the reward for it, and a running baseline: what the rules of delayed reward share.

    π = softmax(ȳ)        ȳ the mean of the supervised outputs of an example
    a ~ π                 drawn with one uniform number per example
    R = 1 if a is the label, else 0 (for a distribution as the target: the probability that it gives to a)
    b ← b + ρ (⟨R⟩ - b)   after each update, from b = 1/n_out, the reward of a policy that knows nothing

R - b reaches the rule ``delay`` seconds after the end of the sequence. Until then what happened in step t decays with
τ_e, to k_t = exp(-((T-1-t) dt + delay)/τ_e). Labels are used for R and for nothing else.

References: R. J. Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning,
Machine Learning 8:229, 1992; N. Frémaux, W. Gerstner, Neuromodulated spike-timing-dependent plasticity, and theory of
three-factor learning rules, Frontiers in Neural Circuits 9:85, 2016.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters, softmax
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.forward import Signals, Trajectory, Z
from neko_rules.layers.pooling import pool, unpool
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.rule import Rule
from neko_rules.seeding import stream

REWARD = "reward"


@dataclass(frozen=True)
class Decision:
    """What a network decided for every example of a batch, and what it got for it.

    Args:
        policy: π [batch, n_out].
        action: the decision, one-hot [batch, n_out].
        reward: R [batch].
        counted: 1 for an example with a supervised step, else 0, [batch].
        share: what the output of a step counts in ȳ, [steps, batch].
    """

    policy: Array
    action: Array
    reward: Array
    counted: Array
    share: Array


def decide(model: Evaluator, trajectory: Trajectory, target: Array, mask: Array, uniform: Array) -> Decision:
    """Sample a decision for every example, with a number from [0, 1) each."""
    nx, network = model.nx, model.network
    outputs = pool(nx, network.readout, trajectory.z(network.graph.output))
    supervised = nx.broadcast_to(mask, outputs.shape[:2])
    steps = nx.sum(supervised, axis=0)
    share = supervised / nx.maximum(steps, 1.0)[None]
    policy = softmax(nx, nx.sum(share[:, :, None] * outputs, axis=0))
    # Divided last: a label that holds at every step is then exactly 1.
    wanted = nx.sum(supervised[:, :, None] * target, axis=0) / nx.maximum(steps, 1.0)[:, None]
    action = sampled(nx, policy, uniform)
    return Decision(policy, action, nx.sum(action * wanted, axis=-1), nx.minimum(steps, 1.0), share)


def sampled(nx: Backend, policy: Array, uniform: Array) -> Array:
    """One-hot [batch, n_out]: the first action whose cumulative probability exceeds the number drawn.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> sampled(get_backend("numpy"), np.array([[0.2, 0.5, 0.3]] * 3), np.array([0.1, 0.2, 0.99]))
        array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]])
    """
    actions, dtype = policy.shape[1], nx.dtype(policy)
    upto = nx.matmul(policy, nx.asarray(np.triu(np.ones((actions, actions))), dtype))
    passed = nx.astype(upto[:, :-1] <= uniform[:, None], dtype)  # The last is the one if no other is.
    first, last = nx.full((policy.shape[0], 1), 1.0, dtype), nx.full((policy.shape[0], 1), 0.0, dtype)
    return nx.concat([first, passed], 1) - nx.concat([passed, last], 1)


class RewardDriven(Rule):
    """A rule that is told one delayed number per example; a base to inherit from beside another rule."""

    descends: ClassVar[str] = "never"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def _set_reward(self, tau_eligibility: float, delay: float, baseline_rate: float) -> None:
        self.tau_eligibility = arguments.number("tau_eligibility", tau_eligibility, above=0)
        self.delay = arguments.number("delay", delay, at_least=0)
        self.baseline_rate = arguments.number("baseline_rate", baseline_rate, at_least=0, at_most=1)
        loss = self.model.loss
        if not loss.online or loss.observes != Z or self.model.scores != self.model.network.outputs:
            raise IncompatibleError(
                f"{type(self).__name__} draws a decision from the mean output, one number for each class",
                received=f"the loss {type(loss).__name__}, which decides otherwise",
                works="use categorical_crossentropy, and readout='mean' or 'sequence'",
            )

    @property
    def baseline(self) -> float:
        """b, the running average of the reward."""
        self.model.network.require_built()
        return float(self.nx.to_numpy(self.prepared()[0]["baseline"][REWARD]))

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        return {**super()._first(), "baseline": {REWARD: np.array(1 / self.model.network.outputs)}}

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        return {
            **super()._draw(steps, examples),
            "decision": stream(self.seed, f"decision/{self.steps}").random(examples),
        }

    def _rewarded(
        self, trajectory: Trajectory, judgement: Judgement, batch: Batch, own: Own, drawn: Parameters
    ) -> tuple[Judgement, Array]:
        """The judgement with the reward's signals in place of the loss's, and k_t (R - b)/B for every example.

        The signals are those of E = -⟨R⟩ by the likelihood ratio, ∂E/∂ȳ = (R - b)(π - a)/B, decayed by k_t.
        """
        nx, network, (inputs, target, mask) = self.nx, self.model.network, batch
        decision = decide(self.model, trajectory, target, mask, drawn["decision"])
        count = nx.sum(decision.counted)
        success = (decision.reward - own["baseline"][REWARD]) * decision.counted / nx.maximum(count, 1.0)
        left = nx.asarray(self._left(inputs.shape[0]), network.dtype)
        gradient = (success[None, :] * decision.share)[:, :, None] * (decision.policy - decision.action)[None]
        outputs = trajectory.z(network.graph.output)
        signal = unpool(nx, network.readout, outputs, gradient)
        totals = {**judgement.totals, REWARD: (nx.sum(decision.reward * decision.counted), count)}
        signals: Signals = {(network.graph.output, Z): signal * left}
        return dataclasses.replace(judgement, signals=signals, totals=totals), success[None, :, None] * left

    def _left(self, steps: int) -> np.ndarray:
        """k_t, what is left of step t when the reward arrives: [time, 1, 1]."""
        waiting = (steps - 1 - np.arange(steps)) * self.model.network.dt + self.delay
        return np.exp(-waiting / self.tau_eligibility)[:, None, None]

    def _observe(self, own: Own, judgement: Judgement) -> Own:
        total, count = judgement.totals[REWARD]
        before = own["baseline"][REWARD]
        after = before + self.baseline_rate * (total / self.nx.maximum(count, 1.0) - before)
        return {**super()._observe(own, judgement), "baseline": {REWARD: after}}
