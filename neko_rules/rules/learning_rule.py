"""LearningRule: a point on the axes of credit assignment; the named rules pick values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from neko_rules import arguments, trees
from neko_rules.backend import Array, Parameters
from neko_rules.clipping import Clipping
from neko_rules.credit import adjoint
from neko_rules.credit.axes import Credit
from neko_rules.credit.factors import kinds
from neko_rules.credit.feedback import carriers, draw, follow, mirror, outside_chain
from neko_rules.credit.influence import Influence, goes_back
from neko_rules.credit.projection import RandomProjection, draw_signs
from neko_rules.credit.recursion import DECAYS
from neko_rules.credit.rewinding import carried
from neko_rules.credit.spans import Earlier
from neko_rules.credit.stepwise import LocalTraces, Model, Now, Stepwise
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.kernels.host import host_of, lends
from neko_rules.layers.cell import Constants
from neko_rules.layers.forward import Signals, Trajectory, Z, add_signals
from neko_rules.layers.jacobians import SLOPE, Jacobians
from neko_rules.layers.moment import moments
from neko_rules.layers.network import Network
from neko_rules.optimizers import Optimizer
from neko_rules.regularizers import Activity, Regularizer
from neko_rules.rules.chained import Chains
from neko_rules.rules.fit import check_fit, check_schedule
from neko_rules.rules.kept import Arrays, Batch, Own, Trained
from neko_rules.rules.online import Online, Windowed
from neko_rules.rules.plain_update import UpdatedByLoop
from neko_rules.rules.portions import examples_at_once, judged_by_portions
from neko_rules.rules.rule import UpdateOptions
from neko_rules.rules.stand_in import StandIn
from neko_rules.rules.steady import Steady
from neko_rules.rules.steady_windows import SteadyWindows
from neko_rules.rules.streaming import StreamLearner

EVALUATIONS = ("adjoint", "traces")

PRESENCE = "presence"
"""What a penalty wants of spikes as such, where errors move them in time: its gradient is that of the surrogate."""

MIRROR_ROWS = 32
"""Rows of noise that a weight mirror sees in one update."""


class CreditOptions(UpdateOptions, total=False):
    """The arguments that every rule on the axes of credit has."""

    online: bool | int
    window: int | None


class LearningRule(UpdatedByLoop):
    """A learning rule as a choice on the axes of credit assignment.

    Args:
        model: an Evaluator.
        temporal: along which paths in time a gradient flows: ``"full"``, ``"layer"``, ``"neuron"``,
            ``"presynaptic"`` or ``"none"``.
        spatial: through which weights an error reaches the populations below: ``"symmetric"``, ``"random"``,
            ``"adaptive"``, ``"mirror"``, ``"sign"``, ``"direct"``, ``"target"``, ``"local"`` or ``"modulator"``.
        learning_signal: along which paths in time an error travels on its way down: ``"exact"``, ``"filtered"``,
            ``"instantaneous"`` or ``"estimated"``; by default the usual one for the other choices.
        trace: in what form influence is carried forward: ``"exact"``, ``"rank_one"``, ``"sparse_N"`` or
            ``"random_projection"``.
        spike_derivative: what stands for the derivative of a spike: ``"surrogate"``, or ``"spike_time"``, where an
            error moves the times of spikes.
        slowest_crossing: spike times only: the slowest crossing of a threshold, in thresholds per second, that counts
            as what it is; a spike moves the further, the slower its neuron reached the threshold.
        evaluation: of whole sequences: ``"adjoint"`` (backward in time) or ``"traces"`` (forward); they give the same
            number where both can. By default the adjoint wherever it can.
        trace_decay: a of the rank-one trace, from 0 to below 1.
        feedback_decay: adaptive feedback only: decay of the feedback weights and of the forward weights they stand
            for, in units of the learning rate.
        mirror_rate: mirror feedback only: η_m, the part of the way to what the noise shows that is gone at each update.
        online: whether the weights change at every time step (True), or every so many (a number), instead of once at
            the end of the sequence. Where no step since the last change has a target (label -1), the gradient of the
            loss is zero, and the optimiser makes an update all the same: it is counted, momentum goes on, and penalties
            and decay have their effect. A ``stream`` makes none.
        window: cut the sequence into windows of so many time steps. States go on from one window to the next, credit
            does not, and the weights change after each, also where no step of it has a target.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for Rule.
        seed: of the feedback weights and of all that is drawn at random.

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

    options: ClassVar[type] = CreditOptions
    forward: bool = False
    """Whether full temporal credit is carried forward in time, so that weights may change within a sequence."""

    def __init__(
        self,
        model: Evaluator,
        *,
        temporal: str,
        spatial: str = "symmetric",
        learning_signal: str = "",
        trace: str = "exact",
        spike_derivative: str = "surrogate",
        slowest_crossing: float = 1.0,
        evaluation: str = "",
        trace_decay: float = 0.9,
        feedback_decay: float = 0.0,
        mirror_rate: float = 0.02,
        online: bool | int = False,
        window: int | None = None,
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        weight_decay: float = 0.0,
        clipping: str | Mapping[str, Any] | Clipping | None = None,
        rate_factors: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            regularizers=regularizers,
            weight_decay=weight_decay,
            clipping=clipping,
            rate_factors=rate_factors,
            seed=seed,
        )
        self.credit = Credit(temporal, spatial, learning_signal, trace, spike_derivative)
        self.slowest_crossing = arguments.number("slowest_crossing", slowest_crossing, above=0)
        self.trace_decay = arguments.number("trace_decay", trace_decay, at_least=0, below=1)
        self.feedback_decay = arguments.number("feedback_decay", feedback_decay, at_least=0)
        self.mirror_rate = arguments.number("mirror_rate", mirror_rate, above=0, at_most=1)
        self.online = int(online) if isinstance(online, bool) else arguments.integer("online", online, at_least=1)
        self.window = None if window is None else arguments.integer("window", window, at_least=1)
        # A sparse trace that no rule of that name asks for is what was asked for, wherever weights change on the way.
        sparse = bool(self.credit.reach and self.online and not self.forward)
        usual = "adjoint" if self.goes_back and not sparse else "traces"
        self.evaluation = arguments.choice("evaluation", evaluation or usual, EVALUATIONS)
        if not self.in_epochs:  # else with the first update
            self._check_decay(self.optimizer.learning_rate_at(0))
        check_fit(self)
        check_schedule(self)

    def _check_decay(self, rate: float) -> None:
        """Refuse a decay that would turn weights over within one step."""
        rate *= self._largest_factor
        if rate * (self.weight_decay + self.feedback_decay) >= 1:
            raise IncompatibleError(
                "learning rate times (weight_decay + feedback_decay) must be below 1",
                received=f"{rate:g} · ({self.weight_decay:g} + {self.feedback_decay:g})",
            )

    @property
    def feedback(self) -> dict[str, np.ndarray]:
        """Feedback weights by the name of the weight or population they belong to, as NumPy copies."""
        self.model.network.require_built()
        return {name: self.nx.to_numpy(value) for name, value in self.prepared()[0]["feedback"].items()}

    def stream(self, batch_size: int = 1) -> StreamLearner:
        """A learner on endless data, one time step at a time, whose memory does not grow.

        What it is given is what the network receives, also where the model has an encoder.

        Args:
            batch_size: number of sequences that run side by side.

        Raises:
            IncompatibleError: the rule changes weights at the end of a sequence, which does not come.

        Example:
            >>> from neko_rules import EProp, Evaluator, LIF
            >>> learner = EProp(Evaluator(LIF(8, 2, inputs=3)), online=True).stream()
            >>> learner.observe([1.0, 0.0, 1.0], 1).shape
            (2,)
        """
        return StreamLearner(self, batch_size)

    # How credit is assigned.

    @cached_property
    def jacobians(self) -> dict[str, Jacobians]:
        """The local derivatives of every population, cut to the temporal credit, or of spikes that move in time."""
        network, temporal = self.model.network, self.credit.temporal
        found = network.jacobians
        if self.credit.timed:
            return {name: each.in_time(self.slowest_crossing * network.dt) for name, each in found.items()}
        if temporal not in ("presynaptic", "none"):
            return found
        return {name: each.cut(temporal) for name, each in found.items()}

    @cached_property
    def goes_back(self) -> str:
        """How the gradient can be had backward in time: ``"whole"``, ``"alone"`` (SnAp-1), or empty if it cannot be."""
        reach = self.credit.reach
        return goes_back(self.model.network.graph, reach) if reach else "" if self.credit.forward_only else "whole"

    @property
    def alone(self) -> bool:
        """Whether what a weight does stays with its own neuron, of the population that it ends on."""
        return self.goes_back == "alone"

    def _credit_model(self, inputs: int) -> Model:
        network = self.model.network
        constants = {
            name: {
                # A learned constant has one value per neuron, whatever it started from.
                key: self.nx.broadcast_to(value, (network.graph.populations[name].size,))
                if (name, key) in {each[:2] for each in network.learned.values()}
                else value
                for key, value in values.items()
            }
            for name, values in network.constants.items()
        }
        return Model(self.nx, network.graph, self.jacobians, constants, self.credit, inputs, network.dtype)

    def _local_traces(self, inputs: int) -> LocalTraces:
        return LocalTraces(self._credit_model(inputs), self.trace_decay)

    @cached_property
    def stepwise(self) -> Stepwise:
        """The gradient forward in time."""
        network = self.model.network
        network.require_built()
        assert network.inputs is not None, "a network that is built knows its inputs"
        if self.credit.temporal != "full":
            return self._local_traces(network.inputs)
        model = self._credit_model(network.inputs)
        return RandomProjection(model) if self.credit.trace == "random_projection" else Influence(model)

    @cached_property
    def carried(self) -> int:
        """How many numbers per example are carried where the gradient goes forward in time; for the engine."""
        return carried(self.stepwise)

    @cached_property
    def decays(self) -> dict[str, Array]:
        """By what the factors of every population decay: a, or the leak of the layer above; of those that have some."""
        network, nx = self.model.network, self.nx
        found = kinds(network.graph, self.jacobians, network.constants, self.credit)
        if not found:
            return {}
        if self.credit.trace == "rank_one":
            decays = dict.fromkeys(found, self.trace_decay)
        else:
            traces = self._local_traces(inputs=1)
            decays = {name: traces.leak_above(name, network.constants) for name in found}
        return {name: nx.asarray(decay, network.dtype) for name, decay in decays.items()}

    def prepared(self) -> tuple[Own, dict[str, Parameters]]:
        """As for ``Rule``."""
        # Made while a library traces a step they would be values of that trace.
        _ = self.decays
        return super().prepared()

    def constants_with(self, values: Parameters) -> dict[str, Constants]:
        """The constants of every population, and by what factors decay, for the engine.

        Args:
            values: parameters by name.
        """
        constants = self.model.network.constants_with(values)
        if not self.decays:
            return constants
        known: tuple[Any, dict[str, Constants]] | None = vars(self).get("_compiled_constants")
        if known is None or known[0] is not constants:
            # The same object as long as the network's are: plans of chains are told apart by it. A clone makes its own.
            known = vars(self)["_compiled_constants"] = constants, {**constants, DECAYS: self.decays}
        return known[1]

    def now(self, values: Parameters, own: Own, moment: Any, drawn: Parameters) -> Now:
        """One time step as the stepwise engines see it."""
        constants = self.constants_with(values)
        return Now(self.stepwise.model, values, own["feedback"], constants, moment, drawn)

    # Pure functions of parameters and data, in backend arrays.

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        if self.window is not None:
            return Windowed(self, self.window).gradients(values, own, batch)
        if self.evaluation == "adjoint":
            host = host_of(self.nx)
            chained = None if host is None else self.chains().judged(self, host, values, own, batch)
            if chained is not None:
                return chained
            steps, examples, _ = batch[0].shape
            size = examples_at_once(self.model, steps, examples) if self._adds_up() else examples
            if size < examples:
                return judged_by_portions(self, values, own, batch, size)
            return self.judged_part(values, own, batch)[:2]
        judgement, trajectory, signals = self._judged(values, own, batch)
        return judgement, self._traced(values, own, drawn, trajectory, signals)

    def _adds_up(self) -> bool:
        """Whether the gradient of a batch is a sum over its examples: a penalty on mean rates is not."""
        own = type(self)
        same = own.signals is LearningRule.signals and own.regularized is LearningRule.regularized
        return same and not self.regularizers

    @property
    def plain(self) -> bool:
        """Whether signals and the way back are those of this class, and not what a subclass makes of a trajectory."""
        own = type(self)
        return all(
            getattr(own, name) is getattr(LearningRule, name)
            for name in ("signals", "regularized", "adjoint", "judged_part", "_judged")
        )

    @cached_property
    def lean(self) -> frozenset[str]:
        """The hidden populations of which the way back needs no more than when they fired, and ψ; for the engine."""
        graph = self.model.network.graph
        found = set()
        for name in graph.order:
            sloped, cell = self.jacobians[name].with_slope, graph.cell(name)
            if name == graph.output or not cell.spiking or sloped is None:
                continue
            if set(sloped.arguments) <= {*sloped.constants, SLOPE}:
                found.add(name)
        return frozenset(found)

    def _stand_in(self, arrays: Arrays) -> StandIn | Steady | SteadyWindows | None:
        if not lends(self.nx):
            return None if host_of(self.nx) is None or self.nx.name != "numpy" else self._compiled_steady
        known = self._compiled_stand_in
        return known if known.serves(self, arrays) else None

    @cached_property
    def _compiled_stand_in(self) -> StandIn:
        return StandIn(self)

    @cached_property
    def _compiled_steady(self) -> Steady | SteadyWindows | None:
        """What takes steps like the one before; None where a step is more than gradients and their updates."""
        own, network, chains = type(self), self.model.network, self.chains()
        names = "_judged_gradients", "_updated_once", "_trained", "_observe", "_updates_in", "take", "rates"
        if any(getattr(own, name) is not getattr(LearningRule, name) for name in names) or not self.updates_plainly:
            return None
        if self.in_epochs:  # no step can be made yet
            return None
        if network.stochastic or network.weight_bits or type(network).seen is not Network.seen or self._draw(1, 1):
            return None
        if self._updates_once():
            return Steady(self) if chains.possible and self.evaluation == "adjoint" and not self.updated else None
        windows = chains.has_windows and not (self.online and Online(self, self.online).windows is None)
        return SteadyWindows(self) if windows and not self.regularizers else None

    def chains(self) -> Chains:
        """The compiled loops over groups of examples, for the engine."""
        # Under a name that a clone leaves behind.
        known: Chains | None = vars(self).get("_compiled_chains")
        if known is None or not known.fit(self):
            known = vars(self)["_compiled_chains"] = Chains(self)
        return known

    def judged_part(
        self, values: Parameters, own: Own, batch: Batch, share: Array | None = None
    ) -> tuple[Judgement, Parameters, Trajectory]:
        """Loss, gradient backward in time and forward pass of some examples.

        Args:
            values: parameters by name.
            own: the rule's own arrays.
            batch: inputs, target and mask.
            share: what the examples count in the loss whose gradient is wanted; 1 if left out.
        """
        judgement, trajectory, signals = self._judged(values, own, batch, share)
        return judgement, self.adjoint(values, own, trajectory, signals), trajectory

    def _judged(
        self, values: Parameters, own: Own, batch: Batch, share: Array | None = None
    ) -> tuple[Judgement, Trajectory, Signals]:
        """Loss, forward pass and signals of some examples; as for ``judged_part``."""
        inputs, target, mask = batch
        backward = self.evaluation == "adjoint"
        network = self.model.network
        if backward and self.plain and not self.regularizers:
            trajectory = network.forward(values, inputs, keep_slopes=True, lean=self.lean)
        else:
            trajectory = network.forward(values, inputs, keep_slopes=backward)
        judgement = self.model.judge(trajectory, target, mask)
        # Only an error that goes round the chain needs them, or what a rule of a user's makes of its signals.
        asked = self.credit.outside_chain or type(self).signals is not LearningRule.signals
        weights, arriving = self.model.step_weights(mask, inputs.shape[0]) if asked else None, judgement.signals
        if share is not None:
            weights = None if weights is None else share * weights
            arriving = {key: share * each for key, each in arriving.items()}
        return judgement, trajectory, self.signals(trajectory, arriving, own, target, weights)

    def adjoint(
        self,
        values: Parameters,
        own: Own,
        trajectory: Trajectory,
        signals: Signals,
        earlier: Earlier | None = None,
    ) -> Parameters:
        """The gradient backward in time; ``earlier`` as in ``adjoint.Problem``."""
        network = self.model.network
        constants = self.constants_with(values)
        given = self.jacobians, constants, values, own["feedback"], trajectory, self.credit, earlier, self.alone
        problem = adjoint.Problem(self.nx, network.graph, *given)
        wanted = {(name, Z): each for (name, key), each in signals.items() if key == PRESENCE}
        if not wanted:
            return adjoint.gradients(problem, signals)
        found = adjoint.gradients(problem, {key: each for key, each in signals.items() if key[1] != PRESENCE})
        surrogate = replace(self.credit, spike_derivative="surrogate")
        more = adjoint.gradients(problem._replace(jacobians=network.jacobians, credit=surrogate), wanted)
        return {name: found[name] + more[name] for name in found}

    def _traced(
        self, values: Parameters, own: Own, drawn: Parameters, trajectory: Trajectory, signals: Signals
    ) -> Parameters:
        """The gradient forward in time, over a sequence that is there as a whole."""
        nx = self.nx
        steps, batch, _ = trajectory.inputs.shape
        whole = moments(nx, trajectory)
        spread = {key: nx.broadcast_to(each, trajectory.z(key[0]).shape) for key, each in signals.items()}
        by_step = {name: value for name, value in drawn.items() if name.startswith("signs/")}
        if isinstance(self.stepwise, RandomProjection) and self.stepwise.over_time_pays(steps):
            return self.stepwise.over_time(self.now(values, own, whole, by_step), spread)
        inputs = (whole.before, whole.after, whole.currents, spread, by_step)

        def body(carry: Any, given: Any) -> tuple[Any, Any]:
            state, total = carry
            before, after, currents, arriving, signs = given
            moment = type(whole)(before, after, currents)
            state, found = self.stepwise.step(state, self.now(values, own, moment, signs), arriving)
            return (state, {name: total[name] + found[name] for name in total}), ()

        zero = {name: 0 * value for name, value in values.items()}
        (_, total), _ = trees.scan(nx, body, (self.stepwise.start(batch), zero), inputs, steps)
        return total

    def signals(
        self,
        trajectory: Trajectory,
        judged: Signals,
        own: Own,
        target: Array,
        weights: Array | None,
        rates: bool = True,
    ) -> Signals:
        """∂E/∂z and ∂E/∂s: from the loss at the output, from outside of the chain, and from regularisers.

        Args:
            trajectory: the forward pass.
            judged: what the loss says.
            own: the rule's own arrays.
            target: [1 or time, batch, n_out].
            weights: how much each step and example counts, [time, batch]; None where nothing asks for it.
            rates: whether the regularisers see this trajectory.
        """
        network = self.model.network
        signals = judged
        if self.credit.outside_chain:
            sent = {name: trajectory.z(name) for name in network.graph.order}
            parts = outside_chain(
                self.nx, self.credit, own["feedback"], network.graph.output, sent, self.model.loss, target, weights
            )
            # A modulator stands in the place of the loss.
            signals = parts if self.credit.spatial == "modulator" else add_signals(signals, parts)
        return add_signals(signals, self.regularized(trajectory)) if rates else signals

    def regularized(self, trajectory: Trajectory) -> Signals:
        """∂E/∂z and ∂E/∂s of all regularisers together."""
        signals: Signals = {}
        if not self.regularizers:
            return signals
        network = self.model.network
        activity = Activity.of(network, trajectory)
        for regularizer in self.regularizers:
            signals = add_signals(signals, regularizer.gradient(self.nx, activity, network.dt))
        if self.credit.timed:
            return {(name, PRESENCE if key == Z else key): each for (name, key), each in signals.items()}
        return signals

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
        if not self.online and self.window is None:
            return super()._trained(values, own, memory, drawn, batch, rates, counts)
        schedule = Online(self, self.online) if self.online else Windowed(self, self.window or 1)
        return schedule.trained(values, own, memory, drawn, batch, rates, counts)

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
        by_update = {name: value[0] for name, value in drawn.items() if name.startswith("noise/")}
        return super()._updated_once(values, own, memory, {**drawn, **by_update}, batch, rates, counts)

    def _updates_once(self) -> bool:
        return type(self)._trained is LearningRule._trained and not self.online and self.window is None

    # What a rule keeps and draws.

    def _updates_in(self, steps: int) -> int:
        size = self.online or self.window
        return -(-steps // size) if size else 1

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        return {"feedback": draw(self.model.network.graph, self.credit, self.seed, self.model.scores)}

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        return self.draw_at(steps, examples, (0, self.steps))

    def draw_at(self, steps: int, examples: int, moment: tuple[int, int]) -> dict[str, np.ndarray]:
        """Random signs of every time step (``signs/…``) and noise of every update (``noise/…``).

        Args:
            steps: time steps.
            examples: sequences side by side.
            moment: which numbers: 0 and the updates made before a batch, or 1 and the time steps seen by a stream.
        """
        found: dict[str, np.ndarray] = {}
        if self.credit.trace != "random_projection" and self.credit.spatial != "mirror":
            return found
        random = np.random.default_rng([self.seed, *moment])
        if self.credit.trace == "random_projection":
            found |= draw_signs(self.model.network.graph, random, steps, examples)
        if self.credit.spatial == "mirror":
            updates = self._updates_in(steps)
            for connection in carriers(self.model.network.graph):
                size = self.model.network.graph.populations[connection.source].size
                found[f"noise/{connection.weight}"] = random.standard_normal((updates, MIRROR_ROWS, size))
        return found

    def _follow(self, own: Own, drawn: Parameters, values: Parameters, updates: Parameters, rate: Array) -> Own:
        if self.credit.spatial == "adaptive":
            decays = {name: rate * self._scaled_decay(name) for name in own["feedback"]}
            return {**own, "feedback": follow(own["feedback"], updates, decays)}
        if self.credit.spatial == "mirror":
            given = self.nx, self.model.network.graph, own["feedback"]
            noise = {n.removeprefix("noise/"): value for n, value in drawn.items() if n.startswith("noise/")}
            return {**own, "feedback": mirror(*given, values, noise, self.mirror_rate)}
        return own

    @property
    def _follows(self) -> bool:
        return self.credit.spatial in ("adaptive", "mirror") or type(self)._follow is not LearningRule._follow

    @property
    def _follows_updates(self) -> bool:
        return self.credit.spatial == "adaptive" or type(self)._follow is not LearningRule._follow

    def _decay_of(self, name: str) -> float:
        followed = self.feedback_decay and name in {c.weight for c in carriers(self.model.network.graph)}
        return super()._decay_of(name) + (self.feedback_decay if followed else 0.0)

    @property
    def _ever_decays(self) -> bool:
        return max(self.weight_decay, self.feedback_decay) > 0 or type(self)._decay_of is not LearningRule._decay_of

    def __repr__(self) -> str:
        c = self.credit
        said = f"temporal {c.temporal}, spatial {c.spatial}, learning signal {c.learning_signal}"
        said += f", trace {c.trace}" if c.trace != "exact" else ""
        said += ", spikes that move in time" if c.timed else ""
        if self.online:
            said += ", online" if self.online == 1 else f", every {self.online} steps"
        return f"{type(self).__name__}({said}{f', window {self.window}' if self.window else ''})"
