"""LearningRule: a point on the axes of credit assignment; the named rules pick values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Parameters
from neko_rules.clipping import Clipping
from neko_rules.credit import adjoint
from neko_rules.credit.axes import Credit
from neko_rules.credit.feedback import carriers, draw, follow
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.forward import Signals, Trajectory, add_signals
from neko_rules.optimizers import AdamW, Optimizer
from neko_rules.regularizers import Activity, Regularizer
from neko_rules.rules.rule import Batch, Own, Rule


class LearningRule(Rule):
    """A learning rule as a choice on the axes of credit assignment.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows: ``"full"``, ``"layer"`` or ``"neuron"``.
        spatial: through which weights an error reaches the populations below: ``"symmetric"``, ``"random"`` or
            ``"adaptive"``.
        learning_signal: along which paths in time an error travels on its way down: ``"exact"``, ``"filtered"`` or
            ``"instantaneous"``; by default the usual one for the temporal credit.
        feedback_decay: adaptive feedback only: decay of the feedback weights and of the forward weights they stand
            for, in units of the learning rate.
        optimizer, regularizers, weight_decay, clipping: as for Rule.
        seed: of the feedback weights.

    Raises:
        IncompatibleError: the rule and the model, or two of its choices, do not fit together.

    Example: e-prop with learning signals that leave out the readout's memory, a rule without a name.

        >>> from neko_rules import ALIF, Evaluator
        >>> rule = LearningRule(Evaluator(ALIF(8, 2)), temporal="neuron", learning_signal="instantaneous")
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> before = rule.gradients(x, y)["hidden.input.weight"]
        >>> sorted(rule.step(x, y)), rule.steps
        (['loss'], 1)
    """

    def __init__(
        self,
        model: Evaluator,
        *,
        temporal: str,
        spatial: str = "symmetric",
        learning_signal: str = "",
        feedback_decay: float = 0.0,
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        weight_decay: float = 0.0,
        clipping: str | Mapping[str, Any] | Clipping | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            regularizers=regularizers,
            weight_decay=weight_decay,
            clipping=clipping,
            seed=seed,
        )
        self.credit = Credit(temporal, spatial, learning_signal)
        self.feedback_decay = arguments.number("feedback_decay", feedback_decay, at_least=0)
        self._check_fit()

    def _check_fit(self) -> None:
        """Refuse choices that have no meaning for this model."""
        network = self.model.network
        if self.credit.has_feedback and not carriers(network.graph):
            raise IncompatibleError(
                f"{self.credit.spatial} feedback needs a hidden population below the output",
                received=f"{network!r}",
                works="use symmetric feedback",
            )
        if self.feedback_decay and self.credit.spatial != "adaptive":
            raise IncompatibleError(
                "feedback_decay belongs to adaptive feedback", received=f"spatial={self.credit.spatial!r}"
            )
        if self.credit.spatial == "adaptive" and isinstance(self.optimizer, AdamW) and self.optimizer.weight_decay:
            raise IncompatibleError(
                "adaptive feedback has to decay like the weights it follows, and AdamW decays the weights alone",
                works="use adam with the rule's own weight_decay, which is the same decoupled decay",
            )
        self._check_decay(self.optimizer.learning_rate_at(0))

    def _check_decay(self, rate: float) -> None:
        """Refuse a decay that would turn weights over within one step."""
        if rate * (self.weight_decay + self.feedback_decay) >= 1:
            raise IncompatibleError(
                "learning rate times (weight_decay + feedback_decay) must be below 1",
                received=f"{rate:g} · ({self.weight_decay:g} + {self.feedback_decay:g})",
            )

    @property
    def feedback(self) -> dict[str, np.ndarray]:
        """Feedback weights by the name of the weight that they stand for, as NumPy copies."""
        self.model.network.require_built()
        return {name: self.nx.to_numpy(value) for name, value in self._prepared()[0]["feedback"].items()}

    # Pure functions of parameters and data, in backend arrays.

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        network = self.model.network
        inputs, target, mask = batch
        trajectory = network.forward(values, inputs)
        judgement = self.model.judge(trajectory, target, mask)
        problem = adjoint.Problem(
            self.nx,
            network.graph,
            network.jacobians,
            network.constants_with(values),
            values,
            own["feedback"],
            trajectory,
            self.credit,
        )
        return judgement, adjoint.gradients(problem, self._signals(trajectory, judgement))

    def _signals(self, trajectory: Trajectory, judgement: Judgement) -> Signals:
        """∂E/∂z and ∂E/∂state from the loss at the output, and from regularisers at the populations they penalise."""
        network, signals = self.model.network, judgement.signals
        activity = Activity.of(network, trajectory)
        for regularizer in self.regularizers:
            signals = add_signals(signals, regularizer.gradient(self.nx, activity, network.dt))
        return signals

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        return {"feedback": draw(self.model.network.graph, self.credit, self.seed)}

    def _follow(self, own: Own, drawn: Parameters, values: Parameters, updates: Parameters, rate: Array) -> Own:
        if self.credit.spatial == "adaptive":
            decay = rate * (self.weight_decay + self.feedback_decay)
            return {**own, "feedback": follow(self.nx, own["feedback"], updates, decay)}
        return own

    def _decay_of(self, name: str) -> float:
        followed = {connection.weight for connection in carriers(self.model.network.graph)}
        return super()._decay_of(name) + (self.feedback_decay if name in followed else 0.0)

    def __repr__(self) -> str:
        c = self.credit
        return f"{type(self).__name__}(temporal {c.temporal}, spatial {c.spatial}, learning signal {c.learning_signal})"
