"""FPTT: forward propagation through time, a regularised update at every time step.

    minimise at step t    ℓ_t(W) + (α/2) ‖W - W̄_t - λ_t/(2α)‖²
    λ_{t+1} = λ_t - α (W_{t+1} - W̄_t),    W̄_{t+1} = (W̄_t + W_{t+1})/2 - λ_{t+1}/(2α),    λ_0 = 0,  W̄_0 = W_0

    temporal credit none by default, or that of another rule, whose gradient of ℓ_t is taken; schedule online

W_{t+1} is the weight after the optimiser's step. At a fixed point W = W̄ and λ/2 is the gradient of the whole loss,
which is how a loss of single steps comes to stand for that of the sequence.

References: A. Kag, V. Saligrama, Training recurrent neural networks via forward propagation through time, ICML 2021;
B. Yin, F. Corradi, S. M. Bohté, Accurate online training of dynamical spiking neural networks through forward
propagation through time, Nature Machine Intelligence 5, 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Parameters
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator
from neko_rules.kernels.elementwise import Loop
from neko_rules.rules.kept import Kept, Own
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.rule import RULES, UpdateOptions, rule_of

MEAN, DUAL = "fptt_mean", "fptt_dual"


@RULES.register("fptt", "forward_propagation_through_time")
class FPTT(LearningRule):
    """FPTT: every time step's own gradient, held to a running mean of the weights.

    Args:
        model: an Evaluator.
        alpha: α, the strength of the regulariser, at least 0; 0 leaves it out.
        gradient: another rule on the axes of credit, by name, mapping or object, whose gradient is taken instead of
            that of the time step alone.
        online: as for LearningRule; at every time step by default.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for LearningRule.
        seed: of feedback weights, if the gradient has some.

    Raises:
        IncompatibleError: the gradient's rule is known only at the end of a sequence.

    Example:
        >>> from neko_rules import ALIF, Evaluator
        >>> FPTT(Evaluator(ALIF(8, 2)), alpha=0.5)
        FPTT(temporal none, spatial symmetric, learning signal instantaneous, online)
        >>> FPTT(Evaluator(ALIF(8, 2)), gradient={"name": "eprop", "mode": "random"})
        FPTT(temporal neuron, spatial random, learning signal filtered, online)
    """

    options: ClassVar[type] = UpdateOptions
    about: ClassVar[dict[str, str]] = {
        "paper": "Kag & Saligrama 2021, Yin et al. 2023",
        "time": "O(N²) per example and step",
        "memory": "O(N) per example and twice the weights, flat in T",
        "identity": "α = 0: = the rule without temporal credit, online",
    }

    def __init__(
        self,
        model: Evaluator,
        alpha: float = 0.1,
        gradient: str | Mapping[str, Any] | LearningRule | None = None,
        online: bool | int = True,
        **options: Unpack[UpdateOptions],
    ) -> None:
        self.alpha = arguments.number("alpha", alpha, at_least=0)
        taken = None if gradient is None else rule_of(model, gradient)
        if taken is not None and not isinstance(taken, LearningRule):
            raise IncompatibleError(
                "FPTT takes the gradient of a rule on the axes of credit", received=taken, works="for example 'eprop'"
            )
        if not online:
            raise IncompatibleError(
                "FPTT changes the weights within a sequence", received="online=False", works="use online=True or k"
            )
        if taken is None:
            super().__init__(model, temporal="none", online=online, **options)
            return
        _check_taken(taken)
        credit, self.forward = taken.credit, taken.forward
        super().__init__(
            model,
            temporal=credit.temporal,
            spatial=credit.spatial,
            learning_signal=credit.learning_signal,
            trace=credit.trace,
            evaluation=taken.evaluation,
            trace_decay=taken.trace_decay,
            feedback_decay=taken.feedback_decay,
            mirror_rate=taken.mirror_rate,
            online=online,
            **options,
        )

    def applied(
        self,
        values: Parameters,
        own: Own,
        memory: dict[str, Parameters],
        drawn: Parameters,
        found: Parameters,
        rate: Array,
        count: Array,
    ) -> Kept:
        """The update by ∇ℓ_t + α (W - W̄_t) - λ_t/2, then λ_{t+1} and W̄_{t+1}."""
        if not self.alpha:
            return super().applied(values, own, memory, drawn, found, rate, count)
        means, duals = own[MEAN], own[DUAL]
        held = {name: self._held(g, values[name], means[name], duals[name]) for name, g in found.items()}
        after, own, memory, _ = super().applied(values, own, memory, drawn, held, rate, count)
        next_ones = {name: self._next(after[name], means[name], duals[name]) for name in means}
        mean, dual = ({name: pair[place] for name, pair in next_ones.items()} for place in (0, 1))
        return Kept(after, {**own, MEAN: mean, DUAL: dual}, memory)

    def _held(self, gradient: Array, value: Array, mean: Array, dual: Array) -> Array:
        """∇ℓ_t + α (W - W̄_t) - λ_t/2."""
        return gradient + self.alpha * (value - mean) - 0.5 * dual

    def _next(self, after: Array, mean: Array, dual: Array) -> tuple[Array, Array]:
        """W̄_{t+1} and λ_{t+1}."""
        dual = dual - self.alpha * (after - mean)
        return 0.5 * (mean + after) - dual / (2 * self.alpha), dual

    def update_loop(self, step_dtype: str) -> Loop | None:
        """The same for every entry; as for ``LearningRule``."""
        if not self.alpha:
            return super().update_loop(step_dtype)
        update = self.plain_update
        if update is None or (update.clipping is not None and update.clipping.norm):
            return None  # It is the norm of what is made of a gradient that would be asked for.

        def formula(nx: Any, given: Mapping[str, Any]) -> tuple[Any, ...]:
            before, mean, dual = given["p"], given[MEAN], given[DUAL]
            held = {**given, "g": self._held(given["g"], before, mean, dual)}
            after, *memory = update.changed(nx, held)
            return after, *memory, *self._next(after, mean, dual)

        own = type(self)
        key = "fptt", own._held, own._next, self.alpha
        return update.loop(key, formula, self.updated, self.model.network.dtype, step_dtype)

    @property
    def updated(self) -> tuple[str, ...]:
        """W̄ and λ."""
        return (MEAN, DUAL) if self.alpha else ()

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        first = super()._first()
        if not self.alpha:
            return first
        values = self.model.network.parameters
        return {**first, MEAN: values, DUAL: {name: np.zeros_like(value) for name, value in values.items()}}


def _check_taken(rule: LearningRule) -> None:
    """Refuse a rule that is more than its choice on the axes of credit, which is all that is taken of it."""
    if rule.regularizers or rule.clipping is not None or rule.weight_decay or rule.rate_factors:
        raise IncompatibleError(
            "regularizers, clipping, weight_decay and rate_factors are given to the rule that changes the weights",
            received=f"{type(rule).__name__} with some of them",
            works="give them to FPTT",
        )
    own = type(rule)
    others = "_judged_gradients", "_observe", "_follow"
    if not rule.plain or any(getattr(own, name) is not getattr(LearningRule, name) for name in others):
        raise IncompatibleError(
            "FPTT takes the axes of credit of a rule, and nothing that its class does beside them",
            received=own.__name__,
            works="use a rule on the axes, for example 'eprop', or subclass FPTT",
        )
