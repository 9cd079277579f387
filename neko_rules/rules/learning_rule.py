"""LearningRule: a point on the axes of credit assignment, together with how a gradient becomes a weight change."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, TypedDict

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.clipping import CLIPPINGS, Clipping
from neko_rules.credit import adjoint
from neko_rules.credit.axes import Credit
from neko_rules.credit.feedback import carriers, draw, follow
from neko_rules.errors import ArgumentError, CheckpointError, IncompatibleError, NonFiniteError, nearest
from neko_rules.evaluator import Evaluator, Judgement, ratios
from neko_rules.layers.forward import Trajectory
from neko_rules.optimizers import OPTIMIZERS, AdamW, Optimizer
from neko_rules.registry import Registry
from neko_rules.regularizers import REGULARIZERS, Regularizer

WEIGHT = ".weight"


class UpdateOptions(TypedDict, total=False):
    """The arguments that every rule has: how a gradient becomes a weight change."""

    optimizer: str | Mapping[str, Any] | Optimizer
    regularizers: Sequence[str | Mapping[str, Any] | Regularizer]
    weight_decay: float
    clipping: str | Mapping[str, Any] | Clipping | None
    seed: int


class LearningRule:
    """A learning rule as a choice on the axes of credit assignment; the named rules pick values.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows: ``"full"``, ``"layer"`` or ``"neuron"``.
        spatial: through which weights an error reaches the populations below: ``"symmetric"``, ``"random"`` or
            ``"adaptive"``.
        learning_signal: along which paths in time an error travels on its way down: ``"exact"``, ``"filtered"`` or
            ``"instantaneous"``; by default the usual one for the temporal credit.
        feedback_decay: adaptive feedback only: decay of the feedback weights and of the forward weights they stand
            for, in units of the learning rate.
        optimizer: name, mapping or Optimizer.
        regularizers: names, mappings or Regularizers.
        weight_decay: all weights (not biases) shrink by learning rate times this in each step (decoupled, as in
            Loshchilov & Hutter 2019).
        clipping: name, mapping or Clipping of the gradients.
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

    __signature__: ClassVar[inspect.Signature]

    requires: ClassVar[str] = "cells"
    """What the model must offer: neurons with known local derivatives."""

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
        if not isinstance(model, Evaluator):
            raise IncompatibleError(
                f"{type(self).__name__} takes an Evaluator",
                received=model,
                works="wrap the network: Evaluator(network)",
            )
        self.model = model
        self.credit = Credit(temporal, spatial, learning_signal)
        self.optimizer = OPTIMIZERS.resolve(optimizer)
        self.regularizers = tuple(REGULARIZERS.resolve(regularizer) for regularizer in regularizers)
        self.weight_decay = arguments.number("weight_decay", weight_decay, at_least=0)
        self.feedback_decay = arguments.number("feedback_decay", feedback_decay, at_least=0)
        self.clipping = None if clipping is None else CLIPPINGS.resolve(clipping)
        self.seed = arguments.integer("seed", seed, at_least=0)
        self.steps = 0
        """Updates made so far."""
        self._feedback: Parameters | None = None
        self._memory: dict[str, Parameters] | None = None
        self._check_fit()

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Refuse an argument that the rule does not have, with the nearest one that it has."""
        known = cls.__signature__.parameters
        for key in options:
            if key not in known:
                raise ArgumentError(f"{cls.__name__} has no argument {key!r}", works=nearest(key, known))
        return super().__new__(cls)

    def __init_subclass__(cls) -> None:
        """A named rule's arguments are its own and those of every rule; spell them out for help, YAML and errors."""
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        own = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = inspect.signature(LearningRule.__init__).parameters
        common = [shared[name] for name in UpdateOptions.__annotations__ if name not in {p.name for p in own}]
        cls.__signature__ = inspect.Signature([*own, *common])

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
        if self.regularizers and not network.spiking:
            raise IncompatibleError(
                "a firing-rate regulariser needs spiking neurons", received=f"{network!r}", works="use ALIF or LIF"
            )

    def _check_decay(self, rate: float) -> None:
        """Refuse a decay that would turn weights over within one step."""
        if rate * (self.weight_decay + self.feedback_decay) >= 1:
            raise IncompatibleError(
                "learning rate times (weight_decay + feedback_decay) must be below 1",
                received=f"{rate:g} · ({self.weight_decay:g} + {self.feedback_decay:g})",
            )

    @property
    def nx(self) -> Backend:
        """The backend of the model."""
        return self.model.nx

    @property
    def feedback(self) -> dict[str, np.ndarray]:
        """Feedback weights by the name of the weight that they stand for, as NumPy copies."""
        self.model.network.require_built()
        return {name: self.nx.to_numpy(value) for name, value in self._prepared()[0].items()}

    # What a user calls.

    def gradients(self, x: Any, y: Any) -> dict[str, np.ndarray]:
        """The gradient of the loss (and regularisers) by parameter; changes nothing.

        Args:
            x: [batch, time, feature].
            y: targets.
        """
        batch = self._batch(x, y)
        feedback, _ = self._prepared()
        _, found = self._compiled_gradients(self.model.network.values, feedback, *batch)
        return {name: self.nx.to_numpy(found[name]) for name in self.model.network.values}

    def step(self, x: Any, y: Any) -> dict[str, float]:
        """Make one update from a batch, and return its loss and metrics as they were before the update.

        Args:
            x: [batch, time, feature].
            y: targets.

        Raises:
            NonFiniteError: the loss or a parameter became NaN or infinite; the parameters keep their last good values.
        """
        batch = self._batch(x, y)
        feedback, memory = self._prepared()
        network = self.model.network
        rate = self.optimizer.learning_rate_at(self.steps)
        self._check_decay(rate)
        scalars = self.nx.asarray(np.array(rate, network.dtype)), self.nx.asarray(np.array(self.steps + 1, np.float64))
        values, feedback, memory, totals, finite = self._compiled_step(
            network.values, feedback, memory, *batch, *scalars
        )
        sound = self.nx.to_numpy(finite)
        if not sound.all():
            raise NonFiniteError([*network.values, "loss"][int(np.argmin(sound))], self.steps + 1)
        # A compiled function may return a dict in another order.
        network.values = {name: values[name] for name in network.values}
        self._feedback, self._memory = feedback, memory
        self.steps += 1
        figures = {name: [float(self.nx.to_numpy(part)) for part in totals[name]] for name in self.model.figures}
        return ratios(figures)

    def clone(self) -> LearningRule:
        """The same rule in the same state, on a clone of its model."""
        twin = copy.copy(self)
        for compiled in ("_compiled_step", "_compiled_gradients"):
            twin.__dict__.pop(compiled, None)
        twin.model = self.model.clone()
        return twin

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, by name, as NumPy copies."""
        feedback, memory = self._prepared()
        arrays = {f"parameters/{name}": value for name, value in self.model.network.values.items()}
        arrays |= {f"feedback/{name}": value for name, value in feedback.items()}
        arrays |= {f"optimizer/{slot}/{name}": v for slot, values in memory.items() for name, v in values.items()}
        return {**{name: self.nx.to_numpy(v) for name, v in arrays.items()}, "steps": np.array(self.steps, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state that ``state`` gave.

        Raises:
            CheckpointError: a name or a shape is not that of this rule and model, or a value is NaN, infinite or
                beyond the range of the model's type.
        """
        network = self.model.network
        if not network.built:
            network.build(_input_features(network.graph.connections, state))
        current = self.state()
        _check_entries(current, state)

        def taken(prefix: str) -> Parameters:
            # In the order of this rule, whatever the order of the mapping: sums over parameters depend on it.
            names = [name for name in current if name.startswith(prefix)]
            copies = {name: np.array(state[name], network.dtype) for name in names}
            return {name.removeprefix(prefix): self.nx.asarray(value) for name, value in copies.items()}

        network.values = taken("parameters/")
        self._feedback = taken("feedback/")
        self._memory = {slot: taken(f"optimizer/{slot}/") for slot in self._prepared()[1]}
        self.steps = int(state["steps"])

    # Pure functions of parameters and data, in backend arrays.

    def _judged_gradients(
        self, parameters: Parameters, feedback: Parameters, inputs: Array, target: Array, mask: Array
    ) -> tuple[Judgement, Parameters]:
        network = self.model.network
        trajectory = network.forward(parameters, inputs)
        judgement = self.model.judge(trajectory, target, mask)
        problem = adjoint.Problem(
            self.nx, network.graph, network.jacobians, network.constants, parameters, feedback, trajectory, self.credit
        )
        return judgement, adjoint.gradients(problem, self._signals(trajectory, judgement))

    def _signals(self, trajectory: Trajectory, judgement: Judgement) -> dict[str, Array]:
        """∂E/∂z from the loss at the output, and from regularisers at the spiking populations."""
        network = self.model.network
        signals = {network.graph.output: judgement.output_gradient}
        spikes = {name: trajectory.z(name) for name in network.spiking}
        for regularizer in self.regularizers:
            for name, part in regularizer.gradient(self.nx, spikes, network.dt).items():
                signals[name] = signals[name] + part if name in signals else part
        return signals

    def _update(
        self,
        parameters: Parameters,
        feedback: Parameters,
        memory: dict[str, Parameters],
        inputs: Array,
        target: Array,
        mask: Array,
        rate: Array,
        count: Array,
    ) -> tuple[Parameters, Parameters, dict[str, Parameters], dict[str, tuple[Array, Array]], Array]:
        nx = self.nx
        judgement, found = self._judged_gradients(parameters, feedback, inputs, target, mask)
        if self.clipping is not None:
            found = self.clipping.apply(nx, found)
        updates, memory = self.optimizer.update(nx, found, memory, parameters, rate, count)
        values = {}
        for name, value in parameters.items():
            decay = (self.weight_decay if name.endswith(WEIGHT) else 0.0) + self._feedback_decay(name)
            # The decay is added to the update first: 1 - rate·decay would round to 1 in float32.
            values[name] = value + (updates[name] - rate * decay * value if decay else updates[name])
        feedback = follow(nx, feedback, updates, self.credit, rate * (self.weight_decay + self.feedback_decay))
        kept = [values, feedback, *memory.values()]
        checks = [self._finite(name, kept) for name in self.model.network.values] + [nx.isfinite(judgement.loss)]
        return values, feedback, memory, judgement.totals, nx.stack(checks, 0)

    def _finite(self, name: str, kept: Sequence[Parameters]) -> Array:
        """Whether a parameter, its feedback and what the optimiser remembers of it are all finite."""
        sound = [self.nx.all(self.nx.isfinite(values[name])) for values in kept if name in values]
        return self.nx.all(self.nx.stack(sound, 0))

    def _feedback_decay(self, name: str) -> float:
        followed = {connection.weight for connection in carriers(self.model.network.graph)}
        return self.feedback_decay if name in followed else 0.0

    @cached_property
    def _compiled_gradients(self) -> Callable[..., Any]:
        def judged(*batch: Any) -> Any:
            judgement, found = self._judged_gradients(*batch)
            return judgement.totals, found

        return self.nx.jit(judged)

    @cached_property
    def _compiled_step(self) -> Callable[..., Any]:
        return self.nx.jit(self._update)

    # State.

    def _batch(self, x: Any, y: Any) -> tuple[Array, ...]:
        return tuple(self.nx.asarray(array) for array in self.model.batch(x, y))

    def _prepared(self) -> tuple[Parameters, dict[str, Parameters]]:
        """Feedback weights and the optimiser's memory, made when the weights exist."""
        network = self.model.network
        network.require_built()
        if self._feedback is None:
            drawn = draw(network.graph, self.credit, self.seed)
            self._feedback = {name: self.nx.asarray(value, network.dtype) for name, value in drawn.items()}
        if self._memory is None:
            self._memory = self.optimizer.init(self.nx, network.values)
        return self._feedback, self._memory

    def __repr__(self) -> str:
        c = self.credit
        return f"{type(self).__name__}(temporal {c.temporal}, spatial {c.spatial}, learning signal {c.learning_signal})"


LearningRule.__signature__ = inspect.Signature(list(inspect.signature(LearningRule.__init__).parameters.values())[1:])

RULES: Registry[LearningRule] = Registry("rule", LearningRule)


def _input_features(connections: Sequence[Any], state: Mapping[str, np.ndarray]) -> int:
    """The number of input features that a saved state was made for."""
    for connection in connections:
        weight = state.get(f"parameters/{connection.weight}")
        if connection.source == "input" and weight is not None:
            return int(np.shape(weight)[0])
    raise CheckpointError("the saved state has no weights from the input", works="it was made with another model")


def _check_entries(current: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Refuse a state that is not one of this rule and model."""
    for name in given:
        if name not in current:
            raise CheckpointError("the saved state has an entry that this rule lacks", name, nearest(name, current))
    for name, value in current.items():
        if name not in given:
            raise CheckpointError("the saved state lacks an entry", name, "it was made by another rule or model")
        if np.shape(given[name]) != value.shape:
            raise CheckpointError(f"{name} must have shape {value.shape}", np.shape(given[name]))
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(given[name]).astype(value.dtype)).all()
        if not finite:
            raise CheckpointError(f"{name} must be finite in {value.dtype}", "NaN, infinite or too large values")
    if int(given["steps"]) < 0:
        raise CheckpointError("steps must be at least 0", int(given["steps"]))
