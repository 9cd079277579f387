"""Rule: what every learning rule shares: a model, how a gradient becomes a weight change, and all of its state."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, Parameters, given
from neko_rules.clipping import CLIPPINGS, Clipping
from neko_rules.errors import ArgumentError, IncompatibleError, NonFiniteError, instead
from neko_rules.evaluator import Evaluator, Judgement, ratios
from neko_rules.kernels.elementwise import finite_names
from neko_rules.layers.network import TASK_TYPES
from neko_rules.optimizers import OPTIMIZERS, Optimizer
from neko_rules.portable import Portable
from neko_rules.registry import Registry
from neko_rules.regularizers import Regularizer, resolve_regularizers
from neko_rules.replaced import forget_compiled, forget_if_replaced
from neko_rules.rules.kept import Arrays, Batch, Kept, Own, Trained
from neko_rules.rules.pacing import in_epochs, pace
from neko_rules.rules.rate_factors import rate_factors
from neko_rules.rules.saved import load, saved
from neko_rules.seeding import stream
from neko_rules.setting import Setting
from neko_rules.trees import OnHost, made, still

if TYPE_CHECKING:
    from neko_rules.rules.stand_in import Held, StandIn
    from neko_rules.rules.steady import Steady
    from neko_rules.rules.steady_windows import SteadyWindows

NEEDS = {
    "cells": "neurons whose local derivatives are known",
    "nodes": "neurons or layers that noise can be added to",
    "loss_gradient": "the gradient of the loss",
    "forward": "a forward pass",
}
"""What a model lacks that does not offer it."""

DROPOUT = "dropout of the model"


class UpdateOptions(TypedDict, total=False):
    """The arguments that every rule has: how a gradient becomes a weight change."""

    optimizer: str | Mapping[str, Any] | Optimizer
    regularizers: Sequence[str | Mapping[str, Any] | Regularizer]
    weight_decay: float
    clipping: str | Mapping[str, Any] | Clipping | None
    rate_factors: Mapping[str, float] | None
    seed: int


class Rule(Portable):
    """A learning rule; subclass it and write ``_judged_gradients`` to add one that is no point on the axes of credit.

    Args:
        model: an Evaluator.
        optimizer: name, mapping or Optimizer.
        regularizers: names, mappings or Regularizers.
        weight_decay: all weights (not biases; of a wrapped model what has two axes or more) shrink by learning rate
            times this in each step (decoupled, as in Loshchilov & Hutter 2019).
        clipping: name, mapping or Clipping of the gradients.
        rate_factors: by what the changes of some parameters are multiplied, their decay among them: a mapping from
            names, or how these begin. ``{"hidden": 0}`` leaves all of ``hidden`` as it is, ``{"hidden": 0,
            "hidden.steps": 100}`` but for its delays, which change a hundred times as fast as they would.
        seed: of whatever the rule draws at random.

    Example: a rule that pulls every weight towards zero and looks at no data.

        >>> from neko_rules import LIF, Evaluator
        >>> class Forgetting(Rule):
        ...     def _judged_gradients(self, values, own, drawn, batch):
        ...         trajectory = self.model.network.forward(values, batch[0])
        ...         return self.model.judge(trajectory, *batch[1:]), dict(values)
        >>> rule = Forgetting(Evaluator(LIF(8, 2)), optimizer={"name": "sgd", "learning_rate": 0.5})
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> rule.model.check(x, y)
        >>> before = np.abs(rule.model.network.parameters["hidden.input.weight"]).sum()
        >>> sorted(rule.step(x, y)), rule.steps
        (['loss'], 1)
        >>> round(float(np.abs(rule.model.network.parameters["hidden.input.weight"]).sum() / before), 6)
        0.5
    """

    __signature__: ClassVar[inspect.Signature]

    options: ClassVar[type] = UpdateOptions
    """The arguments that a subclass with ``**options`` passes on."""

    about: ClassVar[dict[str, str]] = {}
    """What ``neko list rules`` says beside the axes: ``paper``, ``time`` and ``memory`` (cost), ``identity``."""

    requires: ClassVar[str] = "cells"
    """What the model must offer: ``"cells"`` (neurons with known derivatives), ``"nodes"`` (what noise can be
    added to), ``"loss_gradient"`` or ``"forward"``."""

    descends: ClassVar[str] = "always"
    """Whether ``gradients`` descends the loss: ``"always"``, ``"on average"`` over what it draws, or ``"never"``."""

    tasks: ClassVar[tuple[str, ...]] = TASK_TYPES
    """The task types of models that it can train."""

    arrays: ClassVar[tuple[str, ...]] = ("_own", "_memory")
    optimizer = Setting[Optimizer](lambda rule, value: rule._optimised_by(value))
    """What makes a gradient into a weight change; another one counts from the next step on. One of the same class goes
    on with the memory that there is, one of another begins anew: Adam corrects its averages by their number."""
    regularizers = Setting[tuple[Regularizer, ...]](lambda rule, value: rule._penalised_by(value))
    weight_decay = Setting[float](lambda _, value: arguments.number("weight_decay", value, at_least=0))
    rate_factors = Setting[dict[str, float]](lambda rule, value: rate_factors(rule.model.network, value))
    clipping = Setting[Clipping | None](lambda _, value: None if value is None else CLIPPINGS.resolve(value))
    in_epochs, pace = property(in_epochs), pace

    def __init__(
        self,
        model: Evaluator,
        *,
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        weight_decay: float = 0.0,
        clipping: str | Mapping[str, Any] | Clipping | None = None,
        rate_factors: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, Evaluator):
            raise IncompatibleError(
                f"{type(self).__name__} takes an Evaluator",
                received=model,
                works="wrap the network: Evaluator(network)",
            )
        if self.requires not in model.network.offers:
            raise IncompatibleError(
                f"{type(self).__name__} needs {NEEDS[self.requires]}",
                received=f"{model.network!r}",
                works="use BPTT, Manhattan, Tiki-Taka, a sampler or weight perturbation, which need only its loss",
            )
        self.model = model
        self.steps = 0
        """Updates made so far."""
        self.begun = 0
        """How many of them were made before this optimiser's first."""
        self._own: Own | OnHost | None = None
        self._memory: dict[str, Parameters] | OnHost | None = None
        self.optimizer = optimizer
        self.regularizers = regularizers
        self.weight_decay = weight_decay
        self.clipping = clipping
        self.rate_factors = rate_factors
        self.seed = arguments.integer("seed", seed, at_least=0)
        if model.network.task_type not in self.tasks:
            raise IncompatibleError(
                f"{type(self).__name__} is for {' and '.join(self.tasks)}",
                received=f"a model with task_type={model.network.task_type!r}",
            )

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Refuse an argument that the rule does not have, with the nearest one that it has."""
        known = cls.__signature__.parameters
        for key in options:
            if key not in known:
                raise ArgumentError(f"{cls.__name__} has no argument {key!r}", works=instead(key, known))
        return super().__new__(cls)

    def __init_subclass__(cls) -> None:
        """A named rule's arguments are its own and those it passes on; spell them out for help, YAML and errors."""
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own)
        own = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        common = []
        if open_ended:
            shared: dict[str, inspect.Parameter] = {}
            for base in reversed(cls.__mro__[1:-1]):
                shared.update(inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {})
            taken = {p.name for p in own}
            common = [shared[name] for name in cls.options.__annotations__ if name not in taken]
        cls.__signature__ = inspect.Signature([*own, *common])

    @property
    def nx(self) -> Backend:
        """The backend of the model."""
        return self.model.nx

    # What a subclass writes.

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        """The forward pass judged, and dE/dparameter for every parameter: a pure function in backend arrays.

        Args:
            values: parameters by name.
            own: the rule's own arrays, as ``_first`` made them or ``_follow`` left them.
            drawn: what ``_draw`` drew for this step.
            batch: inputs, targets, mask.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _judged_gradients()")

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        """The rule's own arrays before its first step, once the weights exist."""
        return {}

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        """Random numbers for the next step, from the seed and the number of updates made: the same on every backend.

        Args:
            steps: time steps of the batch.
            examples: its examples.
        """
        return {}

    def _follow(self, own: Own, drawn: Parameters, values: Parameters, updates: Parameters, rate: Array) -> Own:
        """The rule's own arrays after an update.

        Args:
            own: as they were.
            drawn: what was drawn for this step.
            values: the parameters before the update.
            updates: what the optimiser added to them, decay left out; may be empty if ``_follows_updates`` is False.
            rate: the learning rate.
        """
        return own

    @property
    def _follows_updates(self) -> bool:
        """Whether ``_follow`` looks at updates."""
        return type(self)._follow is not Rule._follow

    def _observe(self, own: Own, judgement: Judgement) -> Own:
        """The rule's own arrays after a forward pass was judged, before the update that it led to."""
        return own

    def _bounded(self, values: Parameters) -> Parameters:
        """The parameters brought back into the ranges that they may take: what ends every update."""
        return self.model.network.within_bounds(values)

    def _decay_of(self, name: str) -> float:
        """The decay of a parameter, in units of the learning rate."""
        return self.weight_decay if self.model.network.is_weight(name) else 0.0

    @property
    def _ever_decays(self) -> bool:
        """Whether ``_decay_of`` may be anything but 0."""
        return self.weight_decay > 0 or type(self)._decay_of is not Rule._decay_of

    def _updates_in(self, steps: int) -> int:
        """How many updates one call of ``step`` makes on a batch of so many time steps."""
        return 1

    # What a user calls.

    def gradients(self, x: Any, y: Any) -> dict[str, np.ndarray]:
        """The gradient of the loss (and regularisers) by parameter; changes nothing.

        Args:
            x: [batch, time, feature].
            y: targets.
        """
        return self.gradients_of(self.model.batch(x, y, self.steps))

    def gradients_of(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The same of a batch that ``Evaluator.batch`` has made; for the engine."""
        forget_if_replaced(self)
        if (stand_in := self._stand_in(arrays)) and (met := stand_in.gradients(self, arrays)) is not None:
            return met
        batch = self._given(arrays)
        own, values = self.prepared()[0], self.model.network.values
        found = self._compiled_gradients(values, own, self._drawn(batch), batch)[1]
        return {name: self.nx.to_numpy(found[name]) for name in values}

    def step(self, x: Any, y: Any) -> dict[str, float]:
        """Make one update from a batch, and return its loss and metrics as they were before the update.

        An online rule makes an update at every time step or every few, and returns the figures met on the way.

        Args:
            x: [batch, time, feature].
            y: targets.

        Raises:
            NonFiniteError: the loss or a parameter became NaN or infinite; the parameters keep their last good values.
        """
        return self.stepped(self.model.batch(x, y, self.steps))[0]

    def observed_step(self, x: Any, y: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """``step`` and ``gradients`` of the same batch, in one evaluation where an update is made from one gradient.

        The gradient is the one with the weights as they were before the step, so a rule that changes weights within
        the sequence evaluates twice.

        Args:
            x: [batch, time, feature].
            y: targets.

        Raises:
            NonFiniteError: as for ``step``.
        """
        return self.stepped(self.model.batch(x, y, self.steps), observed=True)

    def stepped(self, arrays: Arrays, observed: bool = False) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """``step`` or ``observed_step`` with a batch that ``Evaluator.batch`` has made; for the engine."""
        forget_if_replaced(self)
        if (stand_in := self._stand_in(arrays)) and (met := stand_in.stepped(self, arrays, observed)) is not None:
            return met
        batch = self._given(arrays)
        network, (own, memory) = self.model.network, self.prepared()
        updates = self._updates_in(batch[0].shape[0])
        handed = network.values, own, memory, self._drawn(batch), batch, *self.rates(updates)
        trained, found = self._compiled_observed_step(*handed) if observed else (self._compiled_step(*handed), {})
        values, own, memory, totals, finite = trained
        odd = {name for name, flag in finite.items() if not bool(self.nx.to_numpy(flag))}
        for name in (*network.values, *odd) if odd else ():
            if name in odd:
                raise NonFiniteError(name, self.steps + updates)
        with network.seeded(handed[3].get(DROPOUT)):
            network.observe(batch[0])
        self.take(values, own, memory, updates)
        figures = {name: [float(self.nx.to_numpy(part)) for part in totals[name]] for name in self.model.figures}
        names = network.values if observed else ()
        # A compiled function may return a dict in another order.
        return ratios(figures), {name: self.nx.to_numpy(found[name]) for name in names}

    def _stand_in(self, arrays: Arrays) -> StandIn | Steady | SteadyWindows | None:
        """What takes a step with such a batch in the place of the model's own backend; None for itself."""
        return None

    def take(self, values: Parameters, own: Own, memory: dict[str, Parameters], updates: int) -> None:
        """Keep what a compiled step has made of parameters, own arrays and the optimiser's memory."""
        # A compiled function may return a dict in another order.
        self.model.network.values = {name: values[name] for name in self.model.network.values}
        self._own, self._memory = own, memory
        self.steps += updates

    def clone(self) -> Self:
        """The same rule in the same state, on a clone of its model."""
        twin = copy.copy(self)
        forget_compiled(twin)
        twin.model = self.model.clone()
        twin._own, twin._memory = still(self.nx, self._own), still(self.nx, self._memory)
        return twin

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, by name, as NumPy copies."""
        return saved(self)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state that ``state`` gave.

        Raises:
            CheckpointError: it is not one of this rule and model, or holds what is not finite in the model's type.
        """
        load(self, state)

    def _optimised_by(self, optimizer: str | Mapping[str, Any] | Optimizer) -> Optimizer:
        """An optimiser; one of another class than before begins without memory, and counts updates from there."""
        found = OPTIMIZERS.resolve(optimizer)
        if type(vars(self).get("optimizer")) is not type(found):
            self._memory, self.begun = None, self.steps
        return found

    def _penalised_by(self, regularizers: Sequence[str | Mapping[str, Any] | Regularizer]) -> tuple[Regularizer, ...]:
        """Penalties, for a model that they fit."""
        found = resolve_regularizers(regularizers)
        for each in found:
            each.check(self.model.network)
        return found

    # From gradient to weight change, in backend arrays.

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
        """What is kept after one update by a gradient."""
        decays = self._decays(values)
        wanted = bool(decays or self.rate_factors) or self._follows_updates
        step = self.optimizer.applied(self.nx, self._limited(found), memory, values, rate, count, wanted)
        scaled = self._scaled(step.updates) if self.rate_factors else {}
        updates = step.updates | scaled
        changed = scaled | self._decaying(decays, values, updates, rate)
        after = self._bounded(step.parameters | {name: values[name] + change for name, change in changed.items()})
        after |= {name: values[name] for name, factor in self.rate_factors.items() if not factor}
        followed = self._follow(own, drawn, values, updates, rate)
        return Kept(after, followed, step.state, None if changed or followed is not own else step.finite)

    def _wanted(
        self, values: Parameters, memory: dict[str, Parameters], found: Parameters, rate: Array, count: Array
    ) -> tuple[Parameters, Parameters, dict[str, Parameters]]:
        """The optimiser's updates for a gradient, the changes that they and the weight decay ask for, its memory."""
        updates, memory = self.optimizer.update(self.nx, self._limited(found), memory, values, rate, count)
        updates = updates | self._scaled(updates)
        return updates, updates | self._decaying(self._decays(values), values, updates, rate), memory

    def _decaying(
        self, decays: Mapping[str, float], values: Parameters, updates: Parameters, rate: Array
    ) -> Parameters:
        """Update and weight decay together, of the parameters that have a decay."""
        # The decay is added to the update before the value is: 1 - rate·decay would round to 1 in float32.
        return {name: updates[name] - rate * decay * values[name] for name, decay in decays.items()}

    def _scaled(self, updates: Parameters) -> Parameters:
        """The optimiser's updates times the factors of their parameters, of those that have one."""
        return {name: factor * updates[name] for name, factor in self.rate_factors.items() if name in updates}

    def _decays(self, values: Parameters) -> dict[str, float]:
        """The decay of every parameter that has one."""
        return {name: d for name in values if (d := self._scaled_decay(name))} if self._ever_decays else {}

    def _scaled_decay(self, name: str) -> float:
        """The decay of a parameter times its factor."""
        return self._decay_of(name) * self.rate_factors.get(name, 1.0)

    def _limited(self, found: Parameters) -> Parameters:
        """The gradient as the optimiser takes it: clipped."""
        return found if self.clipping is None else self.clipping.apply(self.nx, found)

    def _trained(
        self,
        values: Parameters,
        own: Own,
        memory: dict[str, Parameters],
        drawn: Parameters,
        batch: Batch,
        rates: Array,
        counts: Array,
    ) -> Trained:
        """One step: the state after it, the figures, and by name whether everything is finite."""
        return self._updated_once(values, own, memory, drawn, batch, rates, counts)[0]

    def _updated_once(
        self,
        values: Parameters,
        own: Own,
        memory: dict[str, Parameters],
        drawn: Parameters,
        batch: Batch,
        rates: Array,
        counts: Array,
    ) -> tuple[Trained, Parameters]:
        """What ``_trained`` returns for a step that is one update by one gradient, and that gradient."""
        judgement, found = self._judged_gradients(self.model.network.seen(values), own, drawn, batch)
        observed = self._observe(own, judgement)
        kept = self.applied(values, observed, memory, drawn, found, rates[0], counts[0])
        if observed is not own:
            kept = kept._replace(finite=None)
        return (*kept[:3], judgement.totals, self.finite(kept, judgement.loss)), found

    def _updates_once(self) -> bool:
        """Whether a step is one update by the gradient of ``_judged_gradients``."""
        return type(self)._trained is Rule._trained

    def finite(self, kept: Kept, loss: Array) -> Parameters:
        """By name, whether all that is kept under it is finite: a parameter, its feedback, the optimiser's memory."""
        of_loss = {"loss": self.nx.isfinite(loss)}
        # What did not change is finite as before: it was drawn, or looked at when it was given.
        if kept.finite:
            return of_loss
        return finite_names(self.nx, [kept.values, *kept.own.values(), *kept.memory.values()]) | of_loss

    def _measured(self, values: Parameters, *arguments: Any) -> Any:
        judgement, found = self._judged_gradients(self.model.network.seen(values), *arguments)
        return judgement.totals, found

    @cached_property
    def _compiled_gradients(self) -> Callable[..., Any]:
        return self.model.network.compiled(self._seeded(self._measured, 2))

    @cached_property
    def _compiled_evaluation_gradients(self) -> Callable[..., Any]:
        """Gradients of the model in evaluation mode, a fixed function of its weights: what samplers follow."""
        if not self.model.network.stochastic:
            return self._compiled_gradients

        def measured(*arguments: Any) -> Any:
            with self.model.network.evaluating():
                return self._measured(*arguments)

        return self.model.network.compiled(measured)

    @cached_property
    def _compiled_step(self) -> Callable[..., Any]:
        return self.model.network.compiled(self._seeded(self._trained, 3))

    def _seeded(self, function: Callable[..., Any], place: int) -> Callable[..., Any]:
        """The function with the dropout of a wrapped model drawn from what is drawn for the step, its argument."""

        def run(*arguments: Any) -> Any:
            with self.model.network.seeded(arguments[place].get(DROPOUT)):
                return function(*arguments)

        return run

    @cached_property
    def _compiled_observed_step(self) -> Callable[..., Any]:
        def observed(
            values: Parameters, own: Own, memory: Any, drawn: Parameters, batch: Batch, *scalars: Array
        ) -> Any:
            if self._updates_once():
                return self._updated_once(values, own, memory, drawn, batch, *scalars)
            _, found = self._judged_gradients(self.model.network.seen(values), own, drawn, batch)
            return self._trained(values, own, memory, drawn, batch, *scalars), found

        return self.model.network.compiled(self._seeded(observed, 3))

    # State.

    def _given(self, arrays: Arrays) -> Batch:
        inputs, target, mask = (given(self.nx, array) for array in arrays)
        return inputs, target, mask

    def _drawn(self, batch: Batch) -> Parameters:
        steps, examples = batch[0].shape[:2]
        dtype = self.model.network.dtype
        drawn = dict(self._draw(steps, examples))
        if self.model.network.stochastic:
            # Whole numbers up to 2^23 are exact in single precision.
            drawn[DROPOUT] = np.array(stream(self.seed, f"dropout/{self.steps}").integers(2**23))
        return {name: given(self.nx, value, dtype) for name, value in drawn.items()}

    def rates(self, updates: int) -> tuple[Array, Array]:
        """Learning rate and number of each of the next updates."""
        numbers = range(self.steps, self.steps + updates)
        rates = [self.optimizer.learning_rate_at(number) for number in numbers]
        self._check_decay(max(rates))
        counts = np.array([number - self.begun + 1.0 for number in numbers])
        return given(self.nx, np.array(rates, self.model.network.dtype)), given(self.nx, counts)

    @property
    def _largest_factor(self) -> float:
        """By what the fastest parameter's changes are multiplied."""
        return max([1.0, *self.rate_factors.values()])

    def _check_decay(self, rate: float) -> None:
        """Refuse a decay that would turn weights over within one step."""
        rate *= self._largest_factor
        if rate * self.weight_decay >= 1:
            raise IncompatibleError(
                "learning rate times weight_decay must be below 1", received=f"{rate:g} · {self.weight_decay:g}"
            )

    def prepared(self) -> tuple[Own, dict[str, Parameters]]:
        """The rule's own arrays and the optimiser's memory, made when the weights exist."""
        network = self.model.network
        network.require_built()
        if self._own is None:
            self._own = self._in_backend(self._first())
        if self._memory is None:
            self._memory = self.optimizer.init(self.nx, network.values)
        return made(self.nx, self._own), self.optimizer.extended(self.nx, made(self.nx, self._memory), network.values)

    def _in_backend(self, groups: Mapping[str, Mapping[str, np.ndarray]]) -> Own:
        dtype = self.model.network.dtype
        return {g: {name: self.nx.asarray(each, dtype) for name, each in of.items()} for g, of in groups.items()}

    @property
    def held(self) -> Held:
        """Parameters, own arrays and memory as they lie, for the engine."""
        return self.model.network.held, self._own, self._memory

    def hold(self, held: Held, steps: int) -> None:
        """Keep the same, as they are after so many updates."""
        self.model.network.held, self._own, self._memory = held
        self.steps = steps

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.network!r})"


Rule.__signature__ = inspect.Signature(list(inspect.signature(Rule.__init__).parameters.values())[1:])

RULES: Registry[Rule] = Registry("rule", Rule)


def rule_of(model: Evaluator, spec: str | Mapping[str, Any] | Rule) -> Rule:
    """A rule by name or mapping, made for a model; or the given rule itself.

    Example:
        >>> from neko_rules import LIF, Evaluator
        >>> rule_of(Evaluator(LIF(8, 2)), {"name": "eprop", "mode": "random"})
        EProp(temporal neuron, spatial random, learning signal filtered)
    """
    if isinstance(spec, Rule):
        return spec
    if isinstance(spec, str):
        return RULES.create(spec, {}, model)
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        return RULES.create(spec["name"], {key: value for key, value in spec.items() if key != "name"}, model)
    raise ArgumentError("a rule must be a name, a mapping with a 'name', or a Rule", received=spec)
