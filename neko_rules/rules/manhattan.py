"""Manhattan: weights changed by pulses, whose number any rule's gradient decides, digitally or on a crossbar.

    Δw = δ n  (digital),    G± ← device's answer to ±n pulses  (crossbar),    n = decision(u),  u = -g by default

With the decision ``sign`` and no crossbar it is signSGD; on a crossbar it is the Manhattan rule of Zamanidoost et al.
A zero gradient asks for nothing, nor does one within the dead zone; what an optimiser or a decision remembers of
earlier ones may still be pulsed.

References: E. Zamanidoost, F. M. Bayat, D. Strukov, I. Kataeva, Manhattan rule training for memristive crossbar
circuit pattern classifiers, IEEE WISP 2015; further ones with each decision in ``neko_rules.rules.pulses``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Parameters
from neko_rules.clipping import Clipping
from neko_rules.devices import Crossbar
from neko_rules.devices.loaded_crossbar import LoadedCrossbar
from neko_rules.errors import CheckpointError, IncompatibleError
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.analog import convert, of_synapses
from neko_rules.optimizers import Optimizer
from neko_rules.registry import create
from neko_rules.regularizers import Regularizer
from neko_rules.replaced import forget_compiled
from neko_rules.rules.kept import Arrays, Batch, Kept, Own
from neko_rules.rules.pulses import DECISIONS, Decision
from neko_rules.rules.rule import RULES, Rule, rule_of
from neko_rules.schedules import Schedule, resolve_learning_rate
from neko_rules.seeding import stream
from neko_rules.setting import Setting
from neko_rules.trees import OnHost, made

GRADIENT, DECISION, CROSSBAR, READ = "gradient.", "decision.", "crossbar.", ".read/"
DEAD_ZONES = ("rms", "absolute")
DELTA = "delta of the step"
MOST = 1000
"""Pulses on a noisy device at once, at most."""

EXAMPLES = 1 << 24
"""Examples of a batch at most, whose pulses each have random numbers of their own."""

_BETWEEN = -(1 << 40)
"""Where the numbers of reads between updates begin, far from those of updates."""


class PulseOptions(TypedDict, total=False):
    """The arguments that a rule of pulses passes on to Rule."""

    weight_decay: float
    clipping: str | Mapping[str, Any] | Clipping | None
    rate_factors: Mapping[str, float] | None
    seed: int


@RULES.register("manhattan", "sign_sgd")
class Manhattan(Rule):
    """Pulses from the sign of any rule's gradient: signSGD, or the Manhattan rule on a crossbar of devices.

    Args:
        model: an Evaluator.
        delta: δ, the change of a digital weight by one pulse: a number or a schedule.
        gradient: the rule whose gradient decides: a Rule of the same model, or its name or mapping; BPTT by default.
        crossbar: the Crossbar (or a mapping of its arguments) that the weights live on; None for digital weights.
            Parameters that do not live on it, such as biases, are digital. From then on the network's products with
            its weights go through its converters, in evaluation too; their derivative is straight-through. Weights
            that are set or loaded afterwards are written to its devices before the next step. Without a seed of its
            own it has the rule's.
        decision: how many pulses: ``"sign"``, ``"stochastic"``, ``"top_k"``, ``"accumulate"``, ``"momentum"``,
            ``"multi_pulse"``, a mapping, or a Decision.
        dead_zone: θ: gradients of at most this size count as zero.
        dead_zone_unit: θ as a multiple of the root mean square of each parameter's gradient (``"rms"``), or
            ``"absolute"``.
        per_sample: whether every example of a batch sends its own pulses, one after the other, instead of the batch
            as a whole. The weights have changed when the next example is looked at.
        refresh_every: one-sided pairs: updates between looks for pairs that are nearly full.
        optimizer: makes u of the gradient: by default u = -g (``"naive"``); with ``"sgd"`` or ``"adam"`` the pulses
            stand for their updates. ``accumulate`` and ``multi_pulse`` compare u with the weight change of a pulse, so
            that it has to have a size: use ``"sgd"``.
        regularizers: of the gradient; given to its rule instead where that is an object. A rule that is made here has
            this one's seed, unless its mapping gives another.
        weight_decay, clipping, rate_factors, seed: as for Rule; what has the factor 0 has no pulses.

    Raises:
        IncompatibleError: the gradient's rule is of another model, changes weights within a sequence or is one of
            pulses itself, or one-sided pairs have no budget of pulses to be written again.

    Example:
        >>> from neko_rules import LIF, EProp, Evaluator, Manhattan
        >>> from neko_rules.devices import Crossbar, SoftBounds
        >>> model = Evaluator(LIF(8, 2, inputs=3))
        >>> crossbar = Crossbar(SoftBounds(), w_max=2.0)
        >>> rule = Manhattan(model, gradient=EProp(model), crossbar=crossbar, dead_zone=0.1)
        >>> figures = rule.step(np.ones((4, 5, 3)), np.array([0, 1, 0, 1]))
        >>> report = rule.crossbar.report()
        >>> report.devices, 0 < report.pulses <= report.devices
        (208, True)
    """

    options: ClassVar[type] = PulseOptions
    arrays = (*Rule.arrays, "_shown")
    requires: ClassVar[str] = "loss_gradient"
    about: ClassVar[dict[str, str]] = {
        "paper": "Zamanidoost et al. 2015",
        "time": "that of its gradient",
        "memory": "that of its gradient",
        "identity": "= signSGD without a crossbar",
    }

    delta = Setting[float | Schedule](lambda _, value: resolve_learning_rate(value, "delta"))
    gradient = Setting[Rule](lambda rule, value: rule._led_by(value))
    decision = Setting[Decision](lambda rule, value: rule._decided_by(value))
    dead_zone = Setting[float](lambda _, value: arguments.number("dead_zone", value, at_least=0))
    dead_zone_unit = Setting[str](lambda _, value: arguments.choice("dead_zone_unit", value, DEAD_ZONES))
    per_sample = Setting[bool](lambda _, value: arguments.flag("per_sample", value))
    refresh_every = Setting[int](lambda _, value: arguments.integer("refresh_every", value, at_least=1))

    def __init__(
        self,
        model: Evaluator,
        delta: float | Schedule | Mapping[str, Any] = 1e-3,
        *,
        gradient: str | Mapping[str, Any] | Rule | None = None,
        crossbar: Crossbar | Mapping[str, Any] | None = None,
        decision: str | Mapping[str, Any] | Decision = "sign",
        dead_zone: float = 0.0,
        dead_zone_unit: str = "rms",
        per_sample: bool = False,
        refresh_every: int = 100,
        optimizer: str | Mapping[str, Any] | Optimizer = "naive",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        **options: Unpack[PulseOptions],
    ) -> None:
        super().__init__(model, optimizer=optimizer, **options)
        self.delta = delta
        if isinstance(gradient, Rule) and regularizers:
            raise IncompatibleError(
                "regularizers are given to the rule whose gradient decides",
                received=f"regularizers beside gradient={gradient!r}",
                works="give them to that rule",
            )
        self.gradient = "bptt" if gradient is None else gradient
        if regularizers:
            self.regularizers = regularizers
        self._shown: Parameters | OnHost | None = None
        self._crossbar = None if crossbar is None else create(Crossbar, crossbar).seeded(self.seed)
        self.decision = decision
        self.dead_zone, self.dead_zone_unit = dead_zone, dead_zone_unit
        self.per_sample, self.refresh_every = per_sample, refresh_every
        if self._crossbar is not None:
            convert(model.network, self._crossbar)
            model.forget_compiled()
        if self._crossbar is not None and self._crossbar.encoding == "one_sided" and not self._crossbar.budget:
            raise IncompatibleError(
                "one-sided pairs fill up in training, and have to be written again",
                received="a crossbar with budget=0",
                works="give the crossbar a budget of pulses, such as budget=50",
            )
        if model.network.built:
            self.prepared()

    def _led_by(self, gradient: str | Mapping[str, Any] | Rule) -> Rule:
        """The rule whose gradient decides, as one of its own, whose updates nobody else counts."""
        if isinstance(gradient, Rule):
            led = copy.copy(gradient)
            forget_compiled(led)
        else:
            spec = {"name": gradient} if isinstance(gradient, str) else gradient
            name = spec.get("name") if isinstance(spec, Mapping) else None
            # Refused before it is made: it would write the weights to a crossbar of its own.
            if isinstance(name, str) and name in RULES and _pulses(RULES[name]):
                self._refuse_pulses(name)
            led = rule_of(self.model, {"seed": self.seed, **spec} if isinstance(spec, Mapping) else spec)
        self._check_gradient(led)
        if self._own is not None:
            self._begin_anew(GRADIENT, {GRADIENT + group: each for group, each in led._first().items()})
        return led

    def _decided_by(self, decision: str | Mapping[str, Any] | Decision) -> Decision:
        """A decision; one that remembers other things than the one before begins without memory."""
        found, known = DECISIONS.resolve(decision), vars(self).get("decision")
        self._check_pulses(found)
        if self._own is not None and known is not None and known.slots != found.slots:
            self._begin_anew(DECISION, self._remembered(found))
        return found

    def _begin_anew(self, prefix: str, first: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put others in the place of the own arrays of a prefix."""
        kept = {group: each for group, each in self.prepared()[0].items() if not group.startswith(prefix)}
        self._own = kept | self._in_backend(first)

    def _check_pulses(self, decision: Decision) -> None:
        noisy = self._crossbar is not None and self._crossbar.memristor.noisy
        if noisy and decision.pulses > MOST:
            raise IncompatibleError(
                f"devices with noise are sent at most {MOST} pulses at once, since it is drawn for every one",
                received=f"{decision!r}",
                works="give the decision a smaller limit",
            )

    def _remembered(self, decision: Decision) -> dict[str, dict[str, np.ndarray]]:
        """What a decision remembers at first."""
        shapes = {name: tuple(value.shape) for name, value in self.model.network.values.items()}
        return {DECISION + slot: {name: np.zeros(shape) for name, shape in shapes.items()} for slot in decision.slots}

    @staticmethod
    def _refuse_pulses(name: str) -> None:
        raise IncompatibleError(
            "pulses are decided by a gradient",
            received=f"{name}, which sends pulses itself",
            works="use a rule on the axes of credit, such as bptt or eprop",
        )

    def _check_gradient(self, gradient: Rule) -> None:
        name = type(gradient).__name__
        if isinstance(gradient, Manhattan):
            self._refuse_pulses(name)
        if gradient.model is not self.model:
            raise IncompatibleError("the gradient's rule must be of the same model", received=f"{name} of another")
        if gradient._updates_in(1000) != 1 or getattr(gradient, "window", None) is not None:
            raise IncompatibleError(
                "pulses are decided by a gradient of the whole sequence",
                received=f"{name}, which changes weights within it",
                works="use it without online and window",
            )
        if gradient.weight_decay or gradient.rate_factors or gradient.clipping is not None:
            raise IncompatibleError(
                "weight_decay, clipping and rate_factors are given to the rule that changes the weights",
                received=f"{name} with some of them",
                works="give them to Manhattan",
            )

    def _penalised_by(self, regularizers: Any) -> tuple[Regularizer, ...]:
        """Penalties are those of the rule whose gradient decides, to which they are handed on."""
        deciding: Rule | None = vars(self).get("gradient")
        if deciding is not None:
            deciding.regularizers = regularizers
        return () if deciding is None else deciding.regularizers

    @property
    def crossbar(self) -> LoadedCrossbar | None:
        """The crossbar as it is now, or None for digital weights."""
        if self._crossbar is None:
            return None
        return LoadedCrossbar(self._crossbar, self._on_host(self.prepared()[0], CROSSBAR))

    @property
    def crossbars(self) -> dict[str, LoadedCrossbar]:
        """All arrays of devices by what they are called in the summary of a run."""
        return {} if self.crossbar is None else {"crossbar": self.crossbar}

    # Own arrays and random numbers.

    def _on_crossbar(self) -> dict[str, tuple[int, ...]]:
        shapes = {name: tuple(value.shape) for name, value in self.model.network.values.items()}
        return {name: s for name, s in shapes.items() if self._crossbar is not None and self._crossbar.holds(name, s)}

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        first = {GRADIENT + group: values for group, values in self.gradient._first().items()}
        first |= self._remembered(self.decision)
        if self._crossbar is not None:
            held = self._crossbar.first(self.model.network.parameters)
            first |= {CROSSBAR + group: values for group, values in held.items()}
        return first

    def prepared(self) -> tuple[Own, dict[str, Parameters]]:
        """Own arrays and memory. Weights that the crossbar does not show yet, as at first, are written to it."""
        new = self._own is None
        own, memory = super().prepared()
        if self._crossbar is not None:
            if new:
                self._show(own)
            elif self._shown is not None:
                own = self._with_weights_set(own)
        return own, memory

    def _show(self, own: Own) -> None:
        """Read the crossbar, whose weights the network then has."""
        network = self.model.network
        network.values = {**network.values, **self._compiled_read(own, self._between())}
        self._shown = self._on_it(network.values)

    def _on_it(self, values: Parameters) -> Parameters:
        return {name: values[name] for name in self._on_crossbar()}

    def _with_weights_set(self, own: Own) -> Own:
        """Own arrays with weights written to the crossbar that were set since it was read."""
        assert self._crossbar is not None, "only a crossbar is written to"
        nx, now, shown = self.nx, self._on_it(self.model.network.values), made(self.nx, self._shown)
        others = {name: nx.to_numpy(each) for name, each in now.items() if each is not shown[name]}
        given = {name: each for name, each in others.items() if not np.array_equal(each, nx.to_numpy(shown[name]))}
        if not given:
            self._shown = now
            return own
        state, number = self._on_host(own, CROSSBAR), _BETWEEN - self.steps
        written = self._crossbar.rewritten(state, self._stored(own, given), number)
        self._own = own = {**own, **self._in_backend({CROSSBAR + group: each for group, each in written.items()})}
        self._show(own)
        return own

    def _stored(self, own: Own, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the crossbar has to hold, for the network to have these weights."""
        return weights

    def _on_host(self, own: Own, prefix: str) -> dict[str, dict[str, np.ndarray]]:
        """The state of an array as NumPy arrays."""
        return {
            group: {name: self.nx.to_numpy(value) for name, value in values.items()}
            for group, values in _group(own, prefix).items()
        }

    def _between(self) -> Parameters:
        """The noise of a read that no update makes, by prefix and name."""
        assert self._crossbar is not None, "only a crossbar is read"
        return self._noise_of_reading(self._crossbar, CROSSBAR)

    def _noise_of_reading(self, crossbar: Crossbar, prefix: str) -> Parameters:
        drawn = crossbar.draw(self._on_crossbar(), _BETWEEN - self.steps)
        dtype = self.model.network.dtype
        return {prefix + name: self.nx.asarray(each, dtype) for name, each in drawn.items() if READ in name}

    @cached_property
    def _compiled_read(self) -> Callable[..., Any]:
        return self.nx.jit(self._read)

    def take(self, values: Parameters, own: Own, memory: dict[str, Parameters], updates: int) -> None:
        """As for ``Rule``: the weights are what the crossbar among the own arrays shows."""
        super().take(values, own, memory, updates)
        if self._crossbar is not None:
            self._shown = self._on_it(self.model.network.values)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """As for ``Rule``.

        Raises:
            CheckpointError: also where the conductances would stand for other weights than those that were saved.
        """
        before = self.state() if self.model.network.built else None
        super().load_state(state)
        wrong = self._held_otherwise()
        if wrong:
            if before is not None:
                super().load_state(before)
            raise CheckpointError(
                "the conductances of a saved state must stand for its weights",
                received=f"others of {', '.join(wrong)}",
                works="give the crossbar the w_max, encoding and range that it was saved with",
            )

    def _held_otherwise(self) -> list[str]:
        """Weights on the crossbar that are not those which it shows, by more than noise of reads."""
        if self._crossbar is None:
            return []
        network, shown = self.model.network, self._compiled_read(self.prepared()[0], {})
        # A learned constant is kept within its range, whatever its device shows.
        names = [name for name in shown if name not in network.learned]
        now = {name: (self.nx.to_numpy(network.values[name]), self.nx.to_numpy(shown[name])) for name in names}
        return [name for name, (held, read) in now.items() if np.abs(held - read).max(initial=0) > self._blur(name)]

    def _blur(self, name: str) -> float:
        """By how much two reads of a weight differ at most."""
        return 0.0 if self._crossbar is None else _blur(self._crossbar, name)

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        self.gradient.steps = self.steps
        drawn = {GRADIENT + name: value for name, value in self.gradient._draw(steps, examples).items()}
        if self.per_sample:
            each = [self._draw_pulses(self.steps * EXAMPLES + i) for i in range(examples)]
            drawn |= {name: np.stack([one[name] for one in each]) for name in each[0]}
        else:
            drawn |= self._draw_pulses(self.steps)
        rate = self.delta(self.steps) if isinstance(self.delta, Schedule) else self.delta
        return {**drawn, DELTA: np.array(rate)}

    def _draw_pulses(self, number: int) -> dict[str, np.ndarray]:
        drawn: dict[str, np.ndarray] = {}
        if self.decision.random:
            for name, value in self.model.network.values.items():
                drawn[DECISION + name] = stream(self.seed, f"decision/{number}/{name}").random(tuple(value.shape))
        if self._crossbar is not None:
            noise = self._crossbar.draw(self._on_crossbar(), number, self.decision.pulses)
            drawn |= {CROSSBAR + name: value for name, value in noise.items()}
        return drawn

    # From gradient to pulses, in backend arrays.

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        return self.gradient._judged_gradients(values, _group(own, GRADIENT), _group(drawn, GRADIENT), batch)

    def _read(self, own: Own, drawn: Parameters) -> Parameters:
        """The weights that the crossbar shows."""
        assert self._crossbar is not None, "only a crossbar is read"
        shown = self._crossbar.weights(self.nx, _group(own, CROSSBAR), _group(drawn, CROSSBAR))
        return of_synapses(self.nx, self.model.network, shown)

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
        """What is kept after the pulses for a gradient."""
        _, wanted, memory = self._wanted(values, memory, found, rate, count)
        pulses, own = self._decided(wanted, own, drawn)
        pulses |= {name: 0.0 * pulses[name] for name, factor in self.rate_factors.items() if not factor}
        after, own = self._written(values, own, drawn, pulses)
        after = self.model.network.within_bounds(after)
        changes = {name: after[name] - value for name, value in values.items()}
        followed = self.gradient._follow(
            _group(own, GRADIENT), _group(drawn, GRADIENT), values, changes, rate * 0.0 + 1.0
        )
        return Kept(after, {**own, **{GRADIENT + group: each for group, each in followed.items()}}, memory)

    def _limited(self, found: Parameters) -> Parameters:
        """The gradient as the optimiser takes it: clipped, and without what lies in the dead zone."""
        found = super()._limited(found)
        return {name: self._outside(each) for name, each in found.items()} if self.dead_zone else found

    def _outside(self, gradient: Array) -> Array:
        nx = self.nx
        theta = self.dead_zone if self.dead_zone_unit == "absolute" else self.dead_zone * nx.sqrt(nx.mean(gradient**2))
        return nx.where(nx.abs(gradient) > theta, gradient, 0.0 * gradient)

    def _unit(self, name: str, drawn: Parameters) -> Any:
        """The weight change of one pulse."""
        if self._crossbar is not None and name in self._on_crossbar():
            return self._crossbar.weight_step(name)
        return drawn[DELTA]

    def _decided(self, wanted: Parameters, own: Own, drawn: Parameters) -> tuple[Parameters, Own]:
        own = {group: dict(values) for group, values in own.items()}
        pulses = {}
        for name, u in wanted.items():
            memory = tuple(own[DECISION + slot][name] for slot in self.decision.slots)
            noise = drawn.get(DECISION + name)
            pulses[name], memory = self.decision.counts(self.nx, u, self._unit(name, drawn), memory, noise)
            for slot, array in zip(self.decision.slots, memory, strict=True):
                own[DECISION + slot][name] = array
        return pulses, own

    def _written(self, values: Parameters, own: Own, drawn: Parameters, pulses: Parameters) -> tuple[Parameters, Own]:
        """Weights and own arrays after the pulses: crossbars by their devices, digital ones by δ."""
        analog = self._on_crossbar()
        after = {name: value + drawn[DELTA] * pulses[name] for name, value in values.items() if name not in analog}
        if self._crossbar is not None:
            state = _group(own, CROSSBAR)
            sent = {name: pulses[name] for name in analog}
            state = self._crossbar.pulse(self.nx, state, sent, _group(drawn, CROSSBAR), self.decision.pulses)
            own = {**own, **{CROSSBAR + group: each for group, each in state.items()}}
            after |= self._read(own, drawn)
        return {name: after[name] for name in values}, own

    def _trained(
        self,
        values: Parameters,
        own: Own,
        memory: dict[str, Parameters],
        drawn: Parameters,
        batch: Batch,
        rates: Array,
        counts: Array,
    ) -> tuple[Parameters, Own, dict[str, Parameters], dict[str, tuple[Array, Array]], Parameters]:
        if not self.per_sample:
            return super()._trained(values, own, memory, drawn, batch, rates, counts)
        from neko_rules import trees

        nx = self.nx
        inputs, target, mask = batch
        swapped = tuple(nx.transpose(each, (1, 0, *range(2, len(each.shape)))) for each in (inputs, target, mask))
        noise = {name: each for name, each in drawn.items() if name.startswith((DECISION, CROSSBAR))}
        constant = {name: each for name, each in drawn.items() if name not in noise}

        def one(carry: Any, given: Any) -> tuple[Any, Any]:
            values, own, memory = carry
            example, sent = given
            # One example as a batch of its own: [time, 1, …].
            single = tuple(nx.expand_dims(each, 1) for each in example)
            here = {**constant, **sent}
            seen = self.model.network.seen(values)
            judgement, found = self._judged_gradients(seen, own, here, single)
            after = self.applied(values, own, memory, here, found, rates[0], counts[0])
            return after[:3], (judgement.loss, judgement.totals)

        carry, (losses, totals) = trees.scan(nx, one, (values, own, memory), (swapped, noise), inputs.shape[1])
        summed = {name: (nx.sum(each[0]), nx.sum(each[1])) for name, each in totals.items()}
        return *carry, summed, self.finite(Kept(*carry), nx.sum(losses))

    def stepped(self, arrays: Arrays, observed: bool = False) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Make one update from a batch, and refresh one-sided pairs when it is time."""
        found = super().stepped(arrays, observed)
        one_sided = self._crossbar is not None and self._crossbar.encoding == "one_sided"
        if one_sided and self.steps % self.refresh_every == 0:
            self._refresh()
        return found

    def _refresh(self) -> None:
        assert self._crossbar is not None, "only a crossbar is refreshed"
        network = self.model.network
        noise = self._crossbar.draw(self._on_crossbar(), -2 - self.steps, self._crossbar.budget, verified=True)
        drawn = {name: self.nx.asarray(value, network.dtype) for name, value in noise.items()}
        own, _ = self.prepared()
        state = self._compiled_refresh(_group(own, CROSSBAR), drawn)
        self._own = own = {**own, **{CROSSBAR + group: each for group, each in state.items()}}
        self._show(own)

    def wait(self, seconds: float, since: float | None = None) -> None:
        """Let time pass without a pulse: every device drifts and leaks, and the network's weights are what is left.

        Waiting twice is waiting once for both times. The time of a device begins with its last pulse, at t₀.

        Args:
            seconds: how long.
            since: the time since the devices were programmed at which the wait begins; by default as it is.

        Raises:
            IncompatibleError: the weights are digital.
        """
        if self._crossbar is None:
            raise IncompatibleError(
                "only weights on a crossbar change by waiting", received="digital weights", works="give crossbar=…"
            )
        self._own = own = self._waited(self.prepared()[0], self._crossbar, CROSSBAR, seconds, since)
        self._show(own)

    def _waited(self, own: Own, crossbar: Crossbar, prefix: str, seconds: float, since: float | None) -> Own:
        state = self.nx.jit(lambda held: crossbar.wait(self.nx, held, seconds, since))(_group(own, prefix))
        return {**own, **{prefix + group: values for group, values in state.items()}}

    @cached_property
    def _compiled_refresh(self) -> Callable[..., Any]:
        assert self._crossbar is not None, "only a crossbar is refreshed"
        crossbar = self._crossbar
        return self.nx.jit(lambda state, drawn: crossbar.refresh(self.nx, state, drawn))

    def clone(self) -> Any:
        """The same rule in the same state, on a clone of its model."""
        twin = super().clone()
        led = self.gradient.clone()
        led.model = twin.model
        vars(twin)["gradient"] = led
        return twin

    def __repr__(self) -> str:
        said = [f"gradient {self.gradient!r}", f"decision {self.decision!r}"]
        if self.dead_zone:
            said.append(f"dead zone {self.dead_zone:g} ({self.dead_zone_unit})")
        said.append("digital" if self._crossbar is None else repr(self._crossbar))
        return f"{type(self).__name__}({', '.join(said)})"


def _blur(crossbar: Crossbar, name: str) -> float:
    """By how much two reads of a weight differ at most: rounding, and twelve standard deviations of one's noise."""
    return crossbar.scale(name) * (1e-4 + 12 * crossbar.memristor.read_noise)


def _pulses(maker: Any) -> bool:
    """Whether a class is of rules that send pulses."""
    return isinstance(maker, type) and issubclass(maker, Manhattan)


def _group(groups: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries of a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in groups.items() if name.startswith(prefix)}
