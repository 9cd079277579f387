"""Crossbar: weights held as conductances of devices in arrays, written by pulses and read through converters.

The state of a crossbar is a dict of groups, each a dict of arrays by the name of the weight:

    plus.conductance  minus.conductance      G⁺ and G⁻ in siemens
    plus.up  plus.down  plus.energy          pulses up and down, and joules spent, of every device; also of minus
    plus.offset                              ξ of the last write, for devices with write noise; also of minus
    plus.age                                 seconds since every device was programmed, if they drift; also of minus
    plus.step_up  plus.g_max …               constants of single devices, where they differ; also of minus

A weight's rows are all of its axes but the last, its columns the last one. All functions are pure; random numbers are
drawn by ``draw`` on the host and handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neko_rules import arguments, trees
from neko_rules.backend import Array, Backend, Parameters, get_backend
from neko_rules.devices.converters import Converters
from neko_rules.devices.crossbar_report import CrossbarReport, report
from neko_rules.devices.device import DEVICES, Cells, Device, unless_stuck
from neko_rules.devices.encoding import ENCODINGS, pulsed, scale, shape_of, split
from neko_rules.devices.reach import warn_of_cut
from neko_rules.devices.steps import SoftBounds
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.seeding import stream

State = dict[str, Parameters]
SIDES = ("plus", "minus")
COUNTERS = ("up", "down", "energy")
CELLS = ("g_min", "g_max", "step_up", "step_down", "free", "stuck_at", "drift")
WHICH = ("weights", "all")
NAMED = "a crossbar is told of weights by the names of those that live on it"


@dataclass(frozen=True, repr=False)
class Crossbar:
    """Arrays of devices that hold weights as w = scale (G⁺ - G⁻)/(G_max - G_min).

    Args:
        device: a Device, or the name or mapping of one.
        encoding: ``"differential"``, ``"one_fixed"``, ``"one_sided"`` or ``"reference_column"``
            (``neko_rules.devices.encoding``).
        w_max: the largest weight that can be held; a number, or one by the name of the parameter.
        parameters: which parameters live here: ``"weights"`` (all with at least two axes), ``"all"``, or their names;
            the others stay digital.
        half_select: part of a step that a pulse, of write-verify too, also gives to every other device of its row and
            of its column, which see half of its voltage.
        dac_bits, dac_bound: resolution (0: exact) and largest size of the inputs of a product with the weights.
        adc_bits, adc_bound: the same of its outputs (``neko_rules.devices.converters``).
        tolerance: write-verify: how far from its target a conductance may be read, as a fraction of the range.
        budget: write-verify: pulses spent on a device at most; 0 writes the first weights exactly.
        refresh_at: one-sided: a pair is written again when one of the two is above this fraction of the range.
        seed: of the devices and of all noise; None: that of the rule that trains on it, or 0.

    Example:
        >>> from neko_rules.devices import Constant
        >>> bar = Crossbar(Constant(step=1e-6), w_max=2.0)
        >>> state = bar.first({"w": np.array([[0.5, -1.0]]), "b": np.zeros(2)})
        >>> state["plus.conductance"]["w"]
        array([[6.25e-05, 2.50e-05]])
        >>> from neko_rules.backend import get_backend
        >>> nx = get_backend("numpy")
        >>> bar.weights(nx, bar.pulse(nx, state, {"w": np.array([[1.0, 0.0]])}))["w"].round(6)
        array([[ 0.54, -1.  ]])
    """

    device: Device | str | Mapping[str, Any] = field(default_factory=SoftBounds)
    encoding: str = "differential"
    w_max: float | Mapping[str, float] = 1.0
    parameters: str | Sequence[str] = "weights"
    half_select: float = 0.0
    dac_bits: int = 0
    dac_bound: float = 1.0
    adc_bits: int = 0
    adc_bound: float = 12.0
    tolerance: float = 0.01
    budget: int = 0
    refresh_at: float = 0.9
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", DEVICES.resolve(self.device))
        arguments.choice("encoding", self.encoding, ENCODINGS)
        limits = self.w_max.items() if isinstance(self.w_max, Mapping) else [("w_max", self.w_max)]
        for name, limit in limits:
            arguments.number(f"w_max of {name}" if name != "w_max" else name, limit, above=0)
        if isinstance(self.parameters, str):
            arguments.choice("parameters", self.parameters, WHICH)
        elif not isinstance(self.parameters, Sequence) or not all(isinstance(each, str) for each in self.parameters):
            raise ArgumentError(
                "parameters must be 'weights', 'all', or a list of names of parameters", received=self.parameters
            )
        arguments.number("half_select", self.half_select, at_least=0, at_most=1)
        _ = self.converters  # checks what belongs to them
        arguments.number("tolerance", self.tolerance, above=0)
        arguments.integer("budget", self.budget, at_least=0)
        arguments.number("refresh_at", self.refresh_at, above=0, at_most=1)
        if self.seed is not None:
            arguments.integer("seed", self.seed, at_least=0)
        if self.memristor.one_way and self.encoding != "one_sided":
            raise IncompatibleError(
                f"{type(self.memristor).__name__} is gradual upwards only",
                received=f"the encoding {self.encoding!r}",
                works="use encoding='one_sided'",
            )

    @property
    def memristor(self) -> Device:
        """The device, as one."""
        assert isinstance(self.device, Device)
        return self.device

    @property
    def converters(self) -> Converters:
        """What its inputs and outputs go through."""
        return Converters(self.dac_bits, self.dac_bound, self.adc_bits, self.adc_bound)

    def seeded(self, seed: int) -> Crossbar:
        """The same with a seed, if it has none of its own."""
        return self if self.seed is not None else replace(self, seed=seed)

    def _random(self, what: str) -> np.random.Generator:
        return stream(self.seed or 0, what)

    # Which weights live here, and in what units.

    def holds(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a parameter lives on the crossbar."""
        if isinstance(self.parameters, str):
            return self.parameters == "all" or len(shape) >= 2
        return name in self.parameters

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse names that a model lacks.

        Raises:
            ArgumentError: ``parameters`` or ``w_max`` names an unknown parameter, or nothing would live here.
        """
        named = [] if isinstance(self.parameters, str) else list(self.parameters)
        named += self.w_max if isinstance(self.w_max, Mapping) else ()
        arguments.known("the crossbar names an unknown parameter", named, shapes)
        held = [name for name, shape in shapes.items() if self.holds(name, shape)]
        if not held:
            raise ArgumentError("no parameter would live on the crossbar", received=self.parameters)
        if isinstance(self.w_max, Mapping):
            for name in held:
                if name not in self.w_max:
                    raise ArgumentError("w_max by name needs every parameter on the crossbar", received=f"no {name}")

    def largest(self, name: str) -> float:
        """w_max of a parameter."""
        if isinstance(self.w_max, Mapping):
            arguments.known("w_max by name needs every parameter on the crossbar", [name], self.w_max)
            return float(self.w_max[name])
        return float(self.w_max)

    def scale(self, name: str) -> float:
        """The weight of a whole conductance range."""
        return scale(self.encoding, self.largest(name))

    def weight_step(self, name: str) -> float:
        """The weight of one full nominal pulse ΔG, to both sides where both are pulsed at once."""
        both = 2 if self.encoding == "differential" else 1
        return both * self.scale(name) * self.memristor.step / self.memristor.range

    # The state.

    def first(self, weights: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """The state with the given weights written, on the host: devices drawn, counters at zero.

        With a ``budget`` the weights are written by write-verify from the middle of the range (one-sided: from its
        low end), otherwise exactly; either way as far as every device reaches. Of weights beyond ±w_max, which are
        written as ±w_max, a warning says how many they are.
        """
        self.check({name: np.shape(value) for name, value in weights.items()})
        held = {name: value for name, value in weights.items() if self.holds(name, np.shape(value))}
        warn_of_cut(get_backend("numpy"), held, self.largest)
        state: dict[str, dict[str, np.ndarray]] = {}
        for name, value in weights.items():
            if self.holds(name, np.shape(value)):
                for group, array in self._first_of(name, np.asarray(value, np.float64)).items():
                    state.setdefault(group, {})[name] = array
        if self.budget:
            nx = get_backend("numpy")
            targets = {name: np.asarray(weights[name], np.float64) for name in state["plus.conductance"]}
            drawn = self.draw(self._shapes(state), -1, self.budget, verified=True)
            state, _ = self._verified(nx, state, targets, drawn)
        return state

    def _first_of(self, name: str, weight: np.ndarray) -> dict[str, np.ndarray]:
        rest = np.zeros_like(weight) if self.budget else weight
        found: dict[str, np.ndarray] = {}
        for side, g in split(self.encoding, self.memristor, rest, self.largest(name)).items():
            rng = self._random(f"devices/{side}/{name}")
            cells = self.memristor.draw(g.shape, rng)
            found[f"{side}.conductance"] = self.memristor.settled(g, cells)
            if self.memristor.write_noise:
                found[f"{side}.offset"] = rng.standard_normal(g.shape)
            if self.memristor.drifts:
                found[f"{side}.age"] = np.full(g.shape, self.memristor.drift_start)
            found |= {f"{side}.{key}": value for key, value in cells.items() if isinstance(value, np.ndarray)}
            found |= {f"{side}.{counter}": np.zeros(g.shape) for counter in COUNTERS}
        return found

    def rewritten(
        self, state: Mapping[str, Mapping[str, np.ndarray]], weights: Mapping[str, np.ndarray], step: int
    ) -> dict[str, Any]:
        """The state with other weights on the same devices, on the host: counters go on.

        As ``first`` it writes them by write-verify where there is a ``budget``, from what the devices hold, and exactly
        otherwise, as far as every device reaches, and warns of weights beyond ±w_max.

        Args:
            state: the state; not changed.
            weights: those to be written, by name; the others stay.
            step: a number on which noise depends beside the seed.

        Raises:
            ArgumentError: no weight of that name is on the crossbar.
        """
        arguments.known(NAMED, weights, state["plus.conductance"])
        warn_of_cut(get_backend("numpy"), weights, self.largest)
        after = {group: dict(values) for group, values in state.items()}
        if self.budget:
            shapes = {name: np.shape(weight) for name, weight in weights.items()}
            drawn = self.draw(shapes, step, self.budget, verified=True)
            return self._verified(get_backend("numpy"), after, dict(weights), drawn)[0]
        for name, weight in weights.items():
            for side, g in split(self.encoding, self.memristor, weight, self.largest(name)).items():
                after[f"{side}.conductance"][name] = self.memristor.settled(g, self._cells(after, side, name))
                if self.memristor.write_noise:
                    rng = self._random(f"written/{step}/{side}/{name}")
                    after[f"{side}.offset"][name] = rng.standard_normal(g.shape)
                if self.memristor.drifts:
                    after[f"{side}.age"][name] = np.full(g.shape, self.memristor.drift_start)
        return after

    def draw(
        self, shapes: Mapping[str, Sequence[int]], step: int, limit: int = 1, *, verified: bool = False
    ) -> dict[str, np.ndarray]:
        """The random numbers of one update: cycle noise, write noise, read noise; none that the device does not need.

        Args:
            shapes: of the parameters on the crossbar.
            step: number of the update, on which the numbers depend beside the seed.
            limit: the largest number of pulses on a device.
            verified: whether also what write-verify needs: an offset for every pulse, and read noise for every look.
        """
        drawn: dict[str, np.ndarray] = {}
        device = self.memristor
        for name, shape in shapes.items():
            rng = self._random(f"noise/{step}/{name}")
            for side in SIDES:
                devices = shape_of(self.encoding, side, tuple(shape))
                if side in pulsed(self.encoding):
                    if device.noisy:
                        drawn[f"{side}.pulse/{name}"] = rng.standard_normal((limit, *devices))
                    if device.write_noise:
                        drawn[f"{side}.write/{name}"] = rng.standard_normal(devices)
                if device.read_noise:
                    drawn[f"{side}.read/{name}"] = rng.standard_normal(devices)
            if verified:
                drawn |= self._draw_looks(name, tuple(shape), step, limit)
        return drawn

    def _draw_looks(self, name: str, shape: tuple[int, ...], step: int, limit: int) -> dict[str, np.ndarray]:
        drawn: dict[str, np.ndarray] = {}
        # A stream of its own: what an update without write-verify draws does not depend on it.
        rng = self._random(f"looks/{step}/{name}")
        for side in pulsed(self.encoding):
            devices = shape_of(self.encoding, side, shape)
            if self.memristor.write_noise:
                drawn[f"{side}.rewrite/{name}"] = rng.standard_normal((limit, *devices))
            if self.memristor.read_noise:
                drawn[f"{side}.look/{name}"] = rng.standard_normal((limit + 1, *devices))
        return drawn

    def _shapes(self, state: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(g.shape) for name, g in state["plus.conductance"].items()}

    def _cells(self, state: Mapping[str, Parameters], side: str, name: str) -> Cells:
        cells = self.memristor.nominal()
        if self.memristor.drift:
            cells["drift"] = self.memristor.drift
        return cells | {key: state[f"{side}.{key}"][name] for key in CELLS if name in state.get(f"{side}.{key}", {})}

    # Reading.

    def weights(self, nx: Backend, state: State, drawn: Parameters | None = None) -> Parameters:
        """One read of every weight, noisy where the devices are.

        Args:
            nx: the backend of the state.
            state: the state.
            drawn: what ``draw`` gave; without it the read is free of read noise.
        """
        return {name: self._weight(nx, state, name, drawn or {}) for name in state["plus.conductance"]}

    def _weight(self, nx: Backend, state: State, name: str, drawn: Parameters) -> Array:
        plus, minus = (self._look(nx, state, side, name, drawn) for side in SIDES)
        return (plus - minus) * (self.scale(name) / self.memristor.range)

    def _look(self, nx: Backend, state: State, side: str, name: str, drawn: Parameters) -> Array:
        """The conductances that a reader sees."""
        offset = state.get(f"{side}.offset", {}).get(name)
        g = self.memristor.seen(nx, state[f"{side}.conductance"][name], offset, self._cells(state, side, name))
        return self.memristor.read(nx, g, drawn.get(f"{side}.read/{name}"))

    def multiply(self, nx: Backend, inputs: Array, weight: Array) -> Array:
        """inputs @ weight through the converters: inputs rounded and cut by the DAC, outputs by the ADC.

        A network's own products go through them by ``neko_rules.layers.analog.on_crossbar``, and in Manhattan.
        """
        return self.converters.multiply(nx, inputs, weight)

    # Writing.

    def pulse(
        self, nx: Backend, state: State, counts: Parameters, drawn: Parameters | None = None, limit: int = 1
    ) -> State:
        """The state after pulses that raise a weight (positive counts) or lower it (negative ones).

        Args:
            nx: the backend of the state.
            state: the state; not changed.
            counts: whole numbers by weight.
            drawn: what ``draw`` gave for that limit.
            limit: the largest number of pulses on a device: more are neither sent nor counted.

        Raises:
            ArgumentError: no weight of that name is on the crossbar.
        """
        arguments.known(NAMED, counts, state["plus.conductance"])
        after = {group: dict(values) for group, values in state.items()}
        for name, count in counts.items():
            for side in pulsed(self.encoding):
                due = self._due(nx, side, nx.minimum(nx.maximum(count, -float(limit)), float(limit)))
                self._pulse_side(nx, after, side, name, due, drawn or {}, limit)
        return after

    def _due(self, nx: Backend, side: str, count: Array) -> Array:
        signed = count if side == "plus" else -count
        return nx.maximum(signed, 0.0) if self.encoding == "one_sided" else signed

    def _pulse_side(
        self, nx: Backend, after: State, side: str, name: str, due: Array, drawn: Parameters, limit: int
    ) -> None:
        device, cells = self.memristor, self._cells(after, side, name)
        g = after[f"{side}.conductance"][name]
        moved = device.pulses(nx, g, due, cells, drawn.get(f"{side}.pulse/{name}"), limit)
        up, down = nx.maximum(due, 0.0), nx.maximum(-due, 0.0)
        if self.half_select:
            moved = self._disturbed(nx, moved, up, down, cells)
        if device.write_noise:
            old = after[f"{side}.offset"][name]
            after[f"{side}.offset"][name] = _offsets_after(nx, old, drawn[f"{side}.write/{name}"], due, cells)
        after[f"{side}.conductance"][name] = moved
        self._renew(nx, after, side, name, due)
        after[f"{side}.up"][name] = after[f"{side}.up"][name] + up
        after[f"{side}.down"][name] = after[f"{side}.down"][name] + down
        # Conductance before the pulses: for several it is a little off where steps are large.
        spent = device.energy(nx, g, nx.sign(due)) * nx.abs(due)
        after[f"{side}.energy"][name] = after[f"{side}.energy"][name] + spent

    def _renew(self, nx: Backend, after: State, side: str, name: str, pulses: Array) -> None:
        """Let devices that were pulsed be as young as when they were first programmed."""
        if self.memristor.drifts:
            age = after[f"{side}.age"][name]
            after[f"{side}.age"][name] = nx.where(pulses == 0, age, 0.0 * age + self.memristor.drift_start)

    def _disturbed(self, nx: Backend, g: Array, up: Array, down: Array, cells: Cells) -> Array:
        """Every device moved a little by the pulses on the others of its row and of its column."""
        device, one = self.memristor, 0.0 * g + 1.0
        rows = tuple(range(len(g.shape) - 1))

        def others(pulses: Array) -> Array:
            row = nx.sum(pulses, axis=len(g.shape) - 1, keepdims=True)
            return row + nx.sum(pulses, axis=rows, keepdims=True) - 2 * pulses if rows else row - pulses

        moved = others(up) * device.change(nx, g, one, cells) + others(down) * device.change(nx, g, -one, cells)
        after = nx.minimum(nx.maximum(g + self.half_select * moved, cells["g_min"]), cells["g_max"])
        return unless_stuck(nx, after, g, cells)

    def write_verify(
        self,
        nx: Backend,
        state: State,
        targets: Parameters,
        drawn: Parameters | None = None,
        only: Parameters | None = None,
    ) -> tuple[State, Parameters]:
        """Write weights in a closed loop: in each of ``budget`` rounds, read, and pulse towards the target.

        Pulsed is what is read further than ``tolerance`` from its target, unless a pulse would take it no nearer: a
        device whose steps are coarse stays at the nearest that they reach, and one whose pulses are noisy goes on as
        long as the noise of those left, up to two standard deviations, may bring it nearer (``Device.nearest``). A
        reader sees G + σ_w ξ with the offset of the last pulse, and read noise of its own at every look; a device that
        was left is pulsed again when a later look, or the disturbance by its neighbours' pulses, says otherwise. As
        ``first`` it warns of weights beyond ±w_max, but not in a compiled function, whose arrays have no numbers yet.

        Args:
            nx: the backend of the state.
            state: the state; not changed.
            targets: weights by name.
            drawn: what ``draw`` gave for a limit of ``budget`` and ``verified=True``.
            only: for every target 1 where a weight is written and 0 where it gets no pulse; by default all are.

        Returns:
            The state, and by name for every weight whether all of its devices are within the tolerance (1 or 0) in a
            last look after all pulses.

        Raises:
            ArgumentError: the budget is 0, a name is unknown, or random numbers of a noisy device are missing.
        """
        arguments.known(NAMED, targets, state["plus.conductance"])
        arguments.known("only must have an entry for every target", targets, targets if only is None else only)
        written = targets if only is None else {name: target * only[name] for name, target in targets.items()}
        warn_of_cut(nx, written, self.largest)
        return self._verified(nx, state, targets, drawn, only)

    def _verified(
        self,
        nx: Backend,
        state: State,
        targets: Parameters,
        drawn: Parameters | None,
        only: Parameters | None = None,
    ) -> tuple[State, Parameters]:
        if not self.budget:
            raise ArgumentError("write-verify needs a budget of pulses", works="set budget=… of the Crossbar")
        drawn = drawn or {}
        after = {group: dict(values) for group, values in state.items()}
        reached: Parameters = {}
        for name, target in targets.items():
            wanted = self._targets(nx, target, name)
            for side in pulsed(self.encoding):
                chosen = None if only is None else only[name]
                within = self._written(nx, after, side, name, wanted[side], drawn, chosen)
                reached[name] = within if name not in reached else reached[name] * within
        return after, reached

    def _targets(self, nx: Backend, weight: Array, name: str) -> Parameters:
        """The conductances that stand for weights on nominal devices."""
        device = self.memristor
        fraction = nx.minimum(nx.maximum(weight / self.scale(name), -1.0), 1.0)
        if self.encoding == "one_sided":
            sides = {"plus": nx.maximum(fraction, 0.0), "minus": nx.maximum(-fraction, 0.0)}
        elif self.encoding == "differential":
            sides = {"plus": 0.5 + fraction / 2, "minus": 0.5 - fraction / 2}
        else:
            sides = {"plus": nx.minimum(nx.maximum(0.5 + fraction, 0.0), 1.0)}
        return {side: device.g_min + u * device.range for side, u in sides.items()}

    def _written(
        self,
        nx: Backend,
        after: State,
        side: str,
        name: str,
        target: Array,
        drawn: Parameters,
        chosen: Array | None,
    ) -> Array:
        device, cells = self.memristor, self._cells(after, side, name)
        allowed = self.tolerance * device.range
        noise = self._noise(side, name, drawn)
        kinds = ["conductance", *(["offset"] if device.write_noise else []), *COUNTERS]

        def error(held: Parameters, look: Array | None) -> Array:
            return target - device.read(nx, device.seen(nx, held["conductance"], held.get("offset"), cells), look)

        def one(held: Parameters, each: Parameters) -> tuple[Parameters, Parameters]:
            off = error(held, each.get("look"))
            due = nx.where(nx.abs(off) > allowed, nx.sign(off), 0.0 * off)
            nearest = device.nearest(nx, target - off, due, target, cells, each["left"])
            due = nx.where(nx.abs(target - nearest) < nx.abs(off), due, 0.0 * off)
            due = due if chosen is None else due * chosen
            up, down = nx.maximum(due, 0.0), nx.maximum(-due, 0.0)
            moved = device.pulse(nx, held["conductance"], due, cells, each.get("pulse"))
            now = {
                "conductance": self._disturbed(nx, moved, up, down, cells) if self.half_select else moved,
                "up": held["up"] + up,
                "down": held["down"] + down,
                "energy": held["energy"] + device.energy(nx, held["conductance"], due),
            }
            if device.write_noise:
                now["offset"] = _offsets_after(nx, held["offset"], each["rewrite"], due, cells)
            return now, {}

        begin = {kind: after[f"{side}.{kind}"][name] for kind in kinds}
        rounds = {kind: values[: self.budget] for kind, values in noise.items()}
        rounds["left"] = self.budget - nx.arange(self.budget, nx.dtype(target))
        end, _ = trees.scan(nx, one, begin, rounds, self.budget)
        self._renew(nx, after, side, name, end["up"] + end["down"] - begin["up"] - begin["down"])
        for kind, array in end.items():
            after[f"{side}.{kind}"][name] = array
        last = noise["look"][self.budget] if device.read_noise else None
        return nx.astype(nx.abs(error(end, last)) <= allowed, nx.dtype(end["conductance"]))

    def _noise(self, side: str, name: str, drawn: Parameters) -> Parameters:
        """The random numbers of write-verify on one side of a weight, by kind."""
        device = self.memristor
        needed = {"pulse": device.noisy, "rewrite": device.write_noise > 0, "look": device.read_noise > 0}
        missing = [kind for kind, is_needed in needed.items() if is_needed and f"{side}.{kind}/{name}" not in drawn]
        if missing:
            raise ArgumentError(
                "write-verify of a noisy device needs the random numbers of its pulses and looks",
                received=f"none for {', '.join(missing)} of {name}",
                works="pass drawn=crossbar.draw(shapes, step, limit=crossbar.budget, verified=True)",
            )
        return {kind: drawn[f"{side}.{kind}/{name}"] for kind, is_needed in needed.items() if is_needed}

    def refresh(self, nx: Backend, state: State, drawn: Parameters | None = None) -> State:
        """One-sided pairs of which one device is nearly full, reset and written again by write-verify.

        Which are full, and the weights to be written, are what one read shows. Every reset is a pulse down on both
        devices. Pairs that are not full get no pulse.

        Args:
            nx: the backend of the state.
            state: the state; not changed.
            drawn: what ``draw`` gave for a limit of ``budget`` and ``verified=True``.
        """
        if self.encoding != "one_sided":
            raise ArgumentError("only one-sided pairs are refreshed", received=self.encoding)
        drawn = drawn or {}
        weights = self.weights(nx, state, drawn)
        cleared = {group: dict(values) for group, values in state.items()}
        full: Parameters = {}
        for name in weights:
            fractions = []
            for side in SIDES:
                cells, seen = self._cells(state, side, name), self._look(nx, state, side, name, drawn)
                fractions.append((seen - cells["g_min"]) / (cells["g_max"] - cells["g_min"]))
            is_full = nx.maximum(fractions[0], fractions[1]) > self.refresh_at
            for side in SIDES:
                self._noise(side, name, drawn)
                cells, g = self._cells(state, side, name), state[f"{side}.conductance"][name]
                one = full[name] = nx.astype(is_full, nx.dtype(g))
                reset = unless_stuck(nx, nx.where(is_full, cells["g_min"] + 0.0 * g, g), g, cells)
                if self.half_select:
                    reset = self._disturbed(nx, reset, 0.0 * one, one, cells)
                cleared[f"{side}.conductance"][name] = reset
                self._renew(nx, cleared, side, name, one)
                cleared[f"{side}.down"][name] = state[f"{side}.down"][name] + one
                if self.memristor.write_noise:
                    old, fresh = state[f"{side}.offset"][name], drawn[f"{side}.write/{name}"]
                    cleared[f"{side}.offset"][name] = _offsets_after(nx, old, fresh, one, cells)
                spent = self.memristor.energy(nx, g, -one)
                cleared[f"{side}.energy"][name] = state[f"{side}.energy"][name] + spent
        return self._verified(nx, cleared, weights, drawn, full)[0]

    def wait(self, nx: Backend, state: State, seconds: float, since: float | None = None) -> State:
        """The state after time has passed without a pulse: drift and retention of every device.

        Waiting twice is waiting once for both times: the state holds the time since each device was programmed, at
        first or by its last pulse, which was t₀ before.

        Args:
            nx: the backend of the state.
            state: the state; not changed.
            seconds: how long.
            since: the time since programming at which the wait begins, of all devices; by default as the state has it.
        """
        after = {group: dict(values) for group, values in state.items()}
        for side in SIDES:
            for name, g in state[f"{side}.conductance"].items():
                cells, ages = self._cells(state, side, name), after.get(f"{side}.age", {})
                begin = ages.get(name) if since is None else since
                after[f"{side}.conductance"][name] = self.memristor.wait(nx, g, cells, seconds, begin)
                if name in ages:
                    ages[name] = (ages[name] if since is None else 0.0 * ages[name] + since) + seconds
        return after

    def report(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> CrossbarReport:
        """Pulses, energy, endurance used and stuck devices, from a state of NumPy arrays."""
        return report(self.memristor, self.encoding, state)

    def __repr__(self) -> str:
        shown = [f"{self.memristor!r}"]
        for name, each in type(self).__dataclass_fields__.items():
            if name != "device" and getattr(self, name) != each.default:
                shown.append(f"{name}={getattr(self, name)!r}")
        return f"Crossbar({', '.join(shown)})"


def _offsets_after(nx: Backend, offset: Array, fresh: Array, pulses: Array, cells: Cells) -> Array:
    """The offsets ξ of devices after pulses: a new one for each that was pulsed and is not stuck."""
    return unless_stuck(nx, nx.where(pulses == 0, offset, fresh), offset, cells)
