"""TikiTaka: a fast array that collects gradients around its symmetry point, and a slow one that learns from it.

    A ← A + pulses for u          every update, u = -η g from the optimiser, stochastic pulses
    v = A[:, k]                   every ``transfer_every`` updates one column is read, k = 0, 1, … in turn
    v1:  C[:, k] ← C[:, k] + pulses for η_c v                                     (stochastic pulses)
    v2:  H[:, k] ← H[:, k] + η_c v;  n = trunc(H/ε_C);  C ← C + n pulses;  H ← H - n ε_C
    W = γ A + C

Asymmetric devices drift to the point where a pulse up and a pulse down cancel. The zero of A is put there, device by
device, so that the drift pulls A towards 0 and noise in the gradient averages out instead of adding up. In version 2
the digital buffer H averages over many transfers, so that few states and much noise in A are enough.

References: T. Gokmen, W. Haensch, Algorithm for training neural networks on resistive device arrays, Frontiers in
Neuroscience 14:103, 2020 (v1); T. Gokmen, Enabling training of neural networks on noisy hardware, Frontiers in
Artificial Intelligence 4:699148, 2021 (v2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Parameters, get_backend
from neko_rules.devices import Crossbar
from neko_rules.devices.loaded_crossbar import LoadedCrossbar
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator
from neko_rules.layers.analog import of_synapses
from neko_rules.optimizers import Optimizer
from neko_rules.registry import create
from neko_rules.regularizers import Regularizer
from neko_rules.rules.kept import Own
from neko_rules.rules.manhattan import DELTA, Manhattan, PulseOptions, _blur, _group
from neko_rules.rules.pulses import DECISIONS, AccumulateAndFire, Decision, StochasticPulse
from neko_rules.rules.rule import RULES, Rule
from neko_rules.seeding import stream
from neko_rules.setting import Setting

FAST, BUFFER, TRANSFER, COLUMN = "fast.", "buffer", "transfer.", "column."


@RULES.register("tiki_taka", "tiki_taka_v1")
class TikiTaka(Manhattan):
    """Tiki-Taka, version 1: gradients collected on a fast array around its symmetry point, moved to a slow one.

    Args:
        model: an Evaluator.
        crossbar: the slow array C, whose weights the network uses; not one-sided.
        fast: the fast array A: a Crossbar, whose devices should be asymmetric; by default like the slow one. Its pairs
            have a fixed side, at the symmetry point of the other.
        gradient: as for Manhattan.
        transfer_every: updates between transfers of a column.
        transfer_rate: η_c.
        gamma: γ, the part of A in the weights.
        limit: pulses on a device at most, at once.
        dead_zone, dead_zone_unit: as for Manhattan.
        optimizer: of u, and of the parameters that stay digital.
        regularizers, weight_decay, clipping, rate_factors, seed: as for Rule.

    Example:
        >>> from neko_rules import RNN, Evaluator, TikiTaka
        >>> rule = TikiTaka(Evaluator(RNN(8, 2, inputs=3)), {"w_max": 2.0}, transfer_every=2)
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> for _ in range(4):
        ...     figures = rule.step(x, y)
        >>> rule.fast.report().pulses > 0
        True
    """

    buffered: ClassVar[bool] = False
    per_sample = Setting[bool](lambda rule, value: rule._as_a_batch(value))
    about: ClassVar[dict[str, str]] = {
        "paper": "Gokmen & Haensch 2020",
        "time": "that of its gradient",
        "memory": "that of its gradient, and a second array",
        "identity": "weights = γ A + C; A starts, and with random pulses stays, at its symmetry point",
    }

    def __init__(
        self,
        model: Evaluator,
        crossbar: Crossbar | Mapping[str, Any] | None = None,
        *,
        fast: Crossbar | Mapping[str, Any] | None = None,
        gradient: str | Mapping[str, Any] | Rule | None = None,
        transfer_every: int = 1,
        transfer_rate: float = 0.1,
        gamma: float = 0.0,
        limit: int = 5,
        dead_zone: float = 0.0,
        dead_zone_unit: str = "rms",
        optimizer: str | Mapping[str, Any] | Optimizer = "sgd",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        **options: Unpack[PulseOptions],
    ) -> None:
        slow = create(Crossbar, crossbar if crossbar is not None else {}).seeded(options.get("seed", 0))
        if slow.encoding == "one_sided":
            raise IncompatibleError("Tiki-Taka needs devices that are pulsed both ways", received="one_sided pairs")
        given = slow if fast is None else create(Crossbar, fast).seeded(options.get("seed", 0))
        own = int(given.seed or 0) + 1
        self._fast = replace(given, encoding="one_fixed", parameters=slow.parameters, budget=0, seed=own)
        if self._fast.memristor.one_way:
            raise IncompatibleError("the fast array needs devices that are pulsed both ways", received=given)
        self.transfer_every = arguments.integer("transfer_every", transfer_every, at_least=1)
        self.transfer_rate = arguments.number("transfer_rate", transfer_rate, above=0)
        self.gamma = arguments.number("gamma", gamma, at_least=0)
        self._sent = AccumulateAndFire(limit) if self.buffered else StochasticPulse(limit=limit)
        super().__init__(
            model,
            gradient=gradient,
            crossbar=slow,
            decision=StochasticPulse(limit=limit),
            dead_zone=dead_zone,
            dead_zone_unit=dead_zone_unit,
            optimizer=optimizer,
            regularizers=regularizers,
            **options,
        )

    def _as_a_batch(self, value: bool) -> bool:
        if arguments.flag("per_sample", value):
            raise IncompatibleError(
                f"{type(self).__name__} sends the pulses of a batch as a whole",
                received="per_sample=True",
                works="use batches of one example, or Manhattan",
            )
        return value

    def _decided_by(self, decision: str | Mapping[str, Any] | Decision) -> Decision:
        """The stochastic pulses that it was made with: both arrays draw their noise for so many."""
        known = vars(self).get("decision")
        if known is not None and DECISIONS.resolve(decision) != known:
            raise IncompatibleError(
                f"{type(self).__name__} sends the stochastic pulses that it was made with",
                received=f"the decision {decision!r}",
                works="make another one with limit=…, or use Manhattan",
            )
        return super()._decided_by(decision)

    @property
    def fast(self) -> LoadedCrossbar:
        """The fast array as it is now."""
        return LoadedCrossbar(self._fast, self._on_host(self.prepared()[0], FAST))

    @property
    def crossbars(self) -> dict[str, LoadedCrossbar]:
        """The slow and the fast array."""
        return super().crossbars | {"fast_crossbar": self.fast}

    def _waited(self, own: Own, crossbar: Crossbar, prefix: str, seconds: float, since: float | None) -> Own:
        slow = super()._waited(own, crossbar, prefix, seconds, since)
        return super()._waited(slow, self._fast, FAST, seconds, since)

    def _between(self) -> Parameters:
        return super()._between() | self._noise_of_reading(self._fast, FAST)

    def _stored(self, own: Own, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self.gamma:
            return weights
        fast = self._fast.weights(get_backend("numpy"), self._on_host(own, FAST))
        return {name: weight - self.gamma * fast[name] for name, weight in weights.items()}

    def _blur(self, name: str) -> float:
        return super()._blur(name) + self.gamma * _blur(self._fast, name)

    def _first(self) -> dict[str, dict[str, np.ndarray]]:
        first = super()._first()
        weights = {name: np.zeros_like(value) for name, value in self.model.network.parameters.items()}
        state = self._fast.first(weights)
        for name, g in state["plus.conductance"].items():
            # Device by device: zero is where it would drift.
            cells = self._fast._cells(state, "plus", name)
            centre = np.broadcast_to(self._fast.memristor.symmetry_point(cells), g.shape)
            settled = self._fast.memristor.settled(centre, cells)
            state["plus.conductance"][name] = settled
            state["minus.conductance"][name] = np.array(settled)
            if "minus.offset" in state:
                state["minus.offset"][name] = np.zeros(g.shape)
                state["plus.offset"][name] = np.zeros(g.shape)
        for group in [group for group in state if group.startswith("minus.") and group[6:] in ("g_min", "g_max")]:
            # The reference is a stored number; its own range must not cut it.
            state[group] = {name: state["plus" + group[5:]][name] for name in state[group]}
        first |= {FAST + group: values for group, values in state.items()}
        if self.buffered:
            first[BUFFER] = {name: np.zeros(np.shape(weights[name])) for name in state["plus.conductance"]}
        return first

    def _draw_pulses(self, number: int) -> dict[str, np.ndarray]:
        drawn = super()._draw_pulses(number)
        shapes = self._on_crossbar()
        noise = self._fast.draw(shapes, number, self.decision.pulses)
        drawn |= {FAST + name: value for name, value in noise.items()}
        # Pulses of the transfer may be as many as those of an update: the noise is drawn for the same limit.
        due = (self.steps + 1) % self.transfer_every == 0
        turn = (self.steps + 1) // self.transfer_every - 1
        for name, shape in shapes.items():
            drawn[COLUMN + name] = np.eye(shape[-1])[turn % shape[-1]] if due else np.zeros(shape[-1])
            if self._sent.random:
                drawn[TRANSFER + name] = stream(self.seed, f"transfer/{number}/{name}").random(shape)
        return drawn

    def _decided(self, wanted: Parameters, own: Own, drawn: Parameters) -> tuple[Parameters, Own]:
        """Pulses for C, after those on A; the changes of digital parameters as they are."""
        nx, own = self.nx, {group: dict(values) for group, values in own.items()}
        sent = {}
        for name in self._on_crossbar():
            noise = drawn["decision." + name]
            unit = self._fast.weight_step(name)
            sent[name], _ = self.decision.counts(nx, wanted[name], unit, (), noise)
        state = self._fast.pulse(nx, _group(own, FAST), sent, _group(drawn, FAST), self.decision.pulses)
        own |= {FAST + group: values for group, values in state.items()}
        read = self._fast.weights(nx, state, _group(drawn, FAST))
        pulses = {name: u for name, u in wanted.items() if name not in read}
        for name, value in read.items():
            assert self._crossbar is not None, "Tiki-Taka has a slow array"
            moved = self.transfer_rate * value * drawn[COLUMN + name]
            memory: tuple[Array, ...] = (own[BUFFER][name],) if self.buffered else ()
            unit = self._crossbar.weight_step(name)
            pulses[name], memory = self._sent.counts(nx, moved, unit, memory, drawn.get(TRANSFER + name))
            if self.buffered:
                own[BUFFER][name] = memory[0]
        return pulses, own

    def _written(self, values: Parameters, own: Own, drawn: Parameters, pulses: Parameters) -> tuple[Parameters, Own]:
        # Digital parameters take the change itself: δ is 1 for them.
        return super()._written(values, own, {**drawn, DELTA: drawn[DELTA] * 0.0 + 1.0}, pulses)

    def _read(self, own: Own, drawn: Parameters) -> Parameters:
        slow = super()._read(own, drawn)
        if not self.gamma:
            return slow
        fast = self._fast.weights(self.nx, _group(own, FAST), _group(drawn, FAST))
        fast = of_synapses(self.nx, self.model.network, fast)
        return {name: value + self.gamma * fast[name] for name, value in slow.items()}


@RULES.register("tiki_taka_v2", "ttv2")
class TikiTakaV2(TikiTaka):
    """Tiki-Taka, version 2: a digital buffer between the fast and the slow array averages over many transfers.

    Args:
        model, crossbar, fast, gradient, transfer_every, transfer_rate, gamma, limit, optimizer: as for TikiTaka.

    Example:
        >>> from neko_rules import RNN, Evaluator, TikiTakaV2
        >>> TikiTakaV2(Evaluator(RNN(8, 2, inputs=3)), {"w_max": 2.0}, transfer_every=2).transfer_every
        2
    """

    buffered: ClassVar[bool] = True
    about: ClassVar[dict[str, str]] = {
        "paper": "Gokmen 2021",
        "time": "that of its gradient",
        "memory": "that of its gradient, a second array and a digital buffer",
        "identity": "pulses and buffer together hold all that was transferred",
    }
