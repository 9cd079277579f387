"""Device: a resistive memory whose conductance moves by pulses, as pure functions of its state on every backend.

A pulse of direction d = ±1 changes the conductance G of one device by

    G ← clip(G + d ΔG± f±(u) (1 + σ ξ), G_min, G_max),   u = (G - G_min) / (G_max - G_min), mirrored to 1 - u for d = -1

with its own ΔG±, G_min and G_max, drawn once per device, and a new standard normal ξ for every pulse, so that the
noise of n pulses adds as √n. The model classes in ``neko_rules.devices.steps`` differ in f± alone.

Nothing here knows of weights or networks. Random numbers are NumPy arrays that the caller draws and hands in, so that
one seed means one run on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Backend, get_backend
from neko_rules.errors import ArgumentError
from neko_rules.registry import Registry

Cells = dict[str, Any]
"""The constants of every single device by name: a number where all are alike, else an array of the devices' shape."""

STUCK_AT = ("random", "low", "high")
NOISES = ("multiplicative", "additive")
DISTRIBUTIONS = ("normal", "lognormal")
LIKELY = 2.0
"""Standard deviations of noise that may be hoped for."""

PULSE = ("step", "set_voltage", "reset_voltage", "pulse_width")
"""The fields that describe one pulse."""

BISECTIONS = 60
"""Halvings of the unit interval after which a float64 has no bits left to find."""


def quantity(default: Any, unit: str, meaning: str) -> Any:
    """A field of a device with its unit ("" for a pure number) and the equation in which it stands."""
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, kw_only=True, repr=False)
class Device:
    """A resistive memory device; subclass it with ``up`` and ``down`` to add a model.

    Every field carries its unit and its equation: ``print(device.table())``. ``print(device)`` shows what differs
    from the class's defaults.

    Example: a device whose steps shrink to half along its range.

        >>> @dataclass(frozen=True, kw_only=True, repr=False)
        ... class Halving(Device):
        ...     def up(self, nx, u):
        ...         return 1 - 0.5 * u
        ...     down = up
        >>> device = Halving(g_max=50e-6)
        >>> print(device)
        Halving(g_max=5e-05)
        >>> (1e6 * device.curve([1, 1, -1])).round(4)
        array([0.    , 1.    , 1.99  , 1.4701])
    """

    g_min: float = quantity(0.0, "S", "lower end of the range")
    g_max: float = quantity(100e-6, "S", "upper end of the range")
    step: float = quantity(1e-6, "S", "ΔG, mean over devices and directions; ΔG± = ΔG (1 ± β)")
    asymmetry: float = quantity(0.0, "", "β, mean over devices: up steps are larger by (1 + β)/(1 - β)")
    cycle_noise: float = quantity(
        0.0, "", "σ of every pulse, relative to its step (multiplicative) or to ΔG (additive)"
    )
    noise: str = quantity("multiplicative", "", "d ΔG± f±(u) (1 + σ ξ), or additive: d (ΔG± f±(u) + σ ΔG ξ)")
    write_noise: float = quantity(0.0, "", "σ_w: seen is G + σ_w (G_max - G_min) ξ, ξ redrawn at each pulse")
    read_noise: float = quantity(0.0, "", "σ_r: every read gives G + σ_r (G_max - G_min) ξ")
    step_spread: float = quantity(0.0, "", "standard deviation of ΔG± over devices, relative to the mean")
    step_distribution: str = quantity("normal", "", "ΔG± (1 + s x), cut at 0, or lognormal: ΔG± exp(s x - s²/2)")
    step_correlation: float = quantity(1.0, "", "correlation of x up and x down of one device, 0 to 1")
    asymmetry_spread: float = quantity(0.0, "", "standard deviation of β over devices")
    g_min_spread: float = quantity(0.0, "", "standard deviation of G_min over devices, relative to G_max - G_min")
    g_max_spread: float = quantity(0.0, "", "standard deviation of G_max over devices, relative to G_max - G_min")
    stuck: float = quantity(0.0, "", "fraction of devices that neither pulses nor time move")
    stuck_at: str = quantity("random", "", "where they stay: anywhere in their range, at its low or at its high end")
    levels: int = quantity(0, "", "number of distinct conductances, evenly spaced over the range; 0: continuous")
    drift: float = quantity(0.0, "", "ν: G(t) = G(t₀) (t/t₀)^-ν after programming; G - G_rest does where τ is finite")
    drift_spread: float = quantity(0.0, "", "standard deviation of ν over devices")
    drift_start: float = quantity(1.0, "s", "t₀, the time after programming at which G is what was programmed")
    retention: float = quantity(math.inf, "s", "τ: G - G_rest decays by exp(-t/τ)")
    rest: float = quantity(0.0, "", "where G_rest lies in the range, 0 to 1")
    set_voltage: float = quantity(1.0, "V", "V of a pulse up, whose energy is V² G t")
    reset_voltage: float = quantity(1.0, "V", "V of a pulse down, whose energy is V² G t")
    pulse_width: float = quantity(100e-9, "s", "t of a pulse")
    pulse_energy: float = quantity(0.0, "J", "energy of a pulse where it is not V² G t; 0: it is")
    endurance: float = quantity(math.inf, "", "pulses after which a device may fail")
    one_way: bool = quantity(False, "", "whether only pulses up are gradual; then a pulse down resets to G_min")

    source: ClassVar[str] = ""
    """The paper whose measurements a preset holds."""

    def __post_init__(self) -> None:
        n = arguments.number
        n("g_min", self.g_min, at_least=0)
        n("g_max", self.g_max, above=self.g_min)
        n("step", self.step, above=0, at_most=self.g_max - self.g_min)
        n("asymmetry", self.asymmetry, at_least=-1, at_most=1)
        for name in ("cycle_noise", "write_noise", "read_noise", "step_spread", "asymmetry_spread", "g_min_spread"):
            n(name, getattr(self, name), at_least=0)
        for name in ("g_max_spread", "drift", "drift_spread", "set_voltage", "reset_voltage", "pulse_energy"):
            n(name, getattr(self, name), at_least=0)
        for name in ("step_correlation", "stuck", "rest"):
            n(name, getattr(self, name), at_least=0, at_most=1)
        for name in ("drift_start", "pulse_width"):
            n(name, getattr(self, name), above=0)
        for name in ("retention", "endurance"):
            if getattr(self, name) != math.inf:
                n(name, getattr(self, name), above=0)
        arguments.choice("noise", self.noise, NOISES)
        arguments.choice("step_distribution", self.step_distribution, DISTRIBUTIONS)
        arguments.choice("stuck_at", self.stuck_at, STUCK_AT)
        arguments.flag("one_way", self.one_way)
        self._check_levels()
        self._check_measured()

    def _check_levels(self) -> None:
        levels = arguments.integer("levels", self.levels, at_least=0)
        if levels == 1:
            raise ArgumentError("a device has 0 (continuous) or at least 2 levels", received=levels)
        if levels and self.step < self.range / (levels - 1) / 2:
            raise ArgumentError(
                "a step must reach the next of the levels, or the device would never move",
                received=f"a step of {self.step:g} S and levels {self.range / (levels - 1):g} S apart",
                works="use fewer levels apart by at most two steps",
            )

    def _check_measured(self) -> None:
        """A preset's steps belong to one pulse, and its shape to one range, of which a part may be used."""
        if not self.source:
            return
        ends = self._default("g_min"), self._default("g_max")
        bounds = {name: (self._default(name),) * 2 for name in PULSE} | {"g_min": ends, "g_max": ends}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                unit = _described(type(self), name)["unit"]
                asked = f"{low:g} {unit}" if low == high else f"{low:g} to {high:g} {unit}"
                raise ArgumentError(
                    f"{type(self).__name__} holds for {name} = {asked.strip()} ({self.source})",
                    received=value,
                    works="fit a device to a curve of your own: neko_rules.devices.fit",
                )

    def _default(self, name: str) -> Any:
        return type(self).__dataclass_fields__[name].default

    # The step, which a subclass writes.

    def up(self, nx: Backend, u: Array) -> Array:
        """f⁺ of the fraction u of the range below G: 1 is the full step."""
        raise NotImplementedError(f"{type(self).__name__} must define up()")

    def down(self, nx: Backend, u: Array) -> Array:
        """f⁻ of the fraction u of the range above G: 1 is the full step."""
        raise NotImplementedError(f"{type(self).__name__} must define down()")

    # Devices of their own.

    @property
    def range(self) -> float:
        """G_max - G_min in siemens."""
        return self.g_max - self.g_min

    @property
    def noisy(self) -> bool:
        """Whether a pulse needs random numbers."""
        return self.cycle_noise > 0

    @property
    def drifts(self) -> bool:
        """Whether what time does to it depends on when it was programmed."""
        return self.drift > 0 or self.drift_spread > 0

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> Cells:
        """The constants of an array of devices.

        They are ``g_min``, ``g_max``, ``step_up`` and ``step_down``, and ``free``, ``stuck_at`` and ``drift`` where
        devices are stuck or drift.

        Example:
            >>> from neko_rules.devices import Constant
            >>> cells = Constant(step_spread=0.3).draw((1000,), np.random.default_rng(0))
            >>> sorted(cells), round(float(cells["step_up"].std() / 1e-6), 1)
            (['g_max', 'g_min', 'step_down', 'step_up'], 0.3)
        """
        shape = tuple(shape)
        cells: Cells = {"g_min": self.g_min, "g_max": self.g_max}
        if self.g_min_spread or self.g_max_spread:
            one = self.g_min + self.range * self.g_min_spread * rng.standard_normal(shape)
            other = self.g_max + self.range * self.g_max_spread * rng.standard_normal(shape)
            # Ends that cross change places, and no conductance is negative.
            cells["g_min"] = np.maximum(np.minimum(one, other), 0.0)
            cells["g_max"] = np.maximum(np.maximum(one, other), cells["g_min"] + 1e-3 * self.range)
        cells["step_up"], cells["step_down"] = self._steps(shape, rng)
        if self.stuck:
            cells["free"] = (rng.random(shape) >= self.stuck).astype(np.float64)
            place = {"low": 0.0, "high": 1.0}.get(self.stuck_at)
            u = rng.random(shape) if place is None else np.full(shape, place)
            cells["stuck_at"] = cells["g_min"] + u * (cells["g_max"] - cells["g_min"])
        if self.drift_spread:
            cells["drift"] = np.maximum(self.drift + self.drift_spread * rng.standard_normal(shape), 0.0)
        elif self.drift:
            cells["drift"] = self.drift
        return cells

    def _steps(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Any, Any]:
        beta: Any = self.asymmetry
        if self.asymmetry_spread:
            beta = beta + self.asymmetry_spread * rng.standard_normal(shape)
        factors: list[Any] = [1.0, 1.0]
        if self.step_spread:
            common, *own = rng.standard_normal((3, *shape))
            shared, apart = math.sqrt(self.step_correlation), math.sqrt(1 - self.step_correlation)
            drawn = [self.step_spread * (shared * common + apart * each) for each in own]
            if self.step_distribution == "lognormal":
                factors = [np.exp(each - self.step_spread**2 / 2) for each in drawn]
            else:
                factors = [np.maximum(1 + each, 0.0) for each in drawn]
        sizes = self.step * factors[0] * (1 + beta), self.step * factors[1] * (1 - beta)
        return tuple(np.maximum(size, 0.0) if isinstance(size, np.ndarray) else size for size in sizes)  # type: ignore[return-value]

    def settled(self, g: np.ndarray, cells: Cells) -> np.ndarray:
        """The conductances that devices take when told to hold ``g``: within their range, on a level, or stuck."""
        g = np.clip(g, cells["g_min"], cells["g_max"])
        if self.levels:
            apart = (cells["g_max"] - cells["g_min"]) / (self.levels - 1)
            g = np.minimum(cells["g_min"] + np.floor((g - cells["g_min"]) / apart + 0.5) * apart, cells["g_max"])
        return np.where(cells["free"] > 0, g, cells["stuck_at"]) if "free" in cells else g

    # Pure functions of conductances.

    def change(self, nx: Backend, g: Array, direction: Array, cells: Cells) -> Array:
        """The mean change by one pulse: ΔG⁺ f⁺(u) up, -ΔG⁻ f⁻(1 - u) down, 0 where the direction is 0."""
        u = (g - cells["g_min"]) / (cells["g_max"] - cells["g_min"])
        up = cells["step_up"] * self.up(nx, u)
        down = cells["g_min"] - g if self.one_way else -(cells["step_down"] * self.down(nx, 1 - u))
        # A step that does not depend on u is a number, which a where beside an array of the type takes.
        none = 0.0 * g
        return nx.where(direction > 0, none + up, nx.where(direction < 0, none + down, none))

    def pulse(self, nx: Backend, g: Array, direction: Array, cells: Cells, noise: Array | None = None) -> Array:
        """The conductances after one pulse.

        Args:
            nx: the backend of the arrays.
            g: conductances in S.
            direction: +1, -1 or 0 for every device.
            cells: what ``draw`` gave, as arrays of the backend.
            noise: ξ of every device; not needed without cycle noise.
        """
        change = self.change(nx, g, direction, cells)
        if self.noisy:
            if noise is None:
                raise ArgumentError("a device with cycle noise needs the noise of the pulse", works="pass noise=…")
            if self.noise == "multiplicative":
                change = change * (1 + self.cycle_noise * noise)
            else:
                change = change + direction * (self.step * self.cycle_noise) * noise
        after = _clipped(nx, g + change, cells["g_min"], cells["g_max"])
        if self.levels:
            after = self._on_a_level(nx, after, cells)
        # Exactly as it was, where nothing was pulsed: rounding must not move a device.
        return unless_stuck(nx, nx.where(direction == 0, g, after), g, cells)

    def nearest(
        self, nx: Backend, g: Array, direction: Array, wanted: Array, cells: Cells, left: float | Array = 1.0
    ) -> Array:
        """The conductance nearest to a wanted one that a pulse leads to: by its mean step and up to two σ of noise.

        With several pulses left, which may go back and forth, it is the noise of them all: √left as large.

        Args:
            nx: the backend of the arrays.
            g: conductances in S, as they are seen.
            direction: +1, -1 or 0 for every device.
            wanted: conductances in S.
            cells: what ``draw`` gave, as arrays of the backend.
            left: the number of pulses left, an array where the others are.

        Example: a step of 10 µS leads no nearer to 3 µS than 0 is.

            >>> from neko_rules.devices import Constant
            >>> device, nx = Constant(step=10e-6), get_backend("numpy")
            >>> after = device.nearest(nx, np.zeros(2), np.ones(2), np.array([3e-6, 60e-6]), device.nominal())
            >>> (1e6 * after).round(6)
            array([10., 10.])
        """
        g = _clipped(nx, g, cells["g_min"], cells["g_max"])
        size = nx.abs(self.change(nx, g, direction, cells))
        noise = self.cycle_noise * (size if self.noise == "multiplicative" else self.step)
        root = nx.sqrt(left) if nx.is_tensor(left) else math.sqrt(left)
        likely = LIKELY * root * (noise + self.write_noise * self.range)
        size = nx.minimum(nx.maximum(nx.abs(wanted - g), size - likely), size + likely)
        after = _clipped(nx, g + direction * size, cells["g_min"], cells["g_max"])
        # An offset is added to what is on a level.
        return self._on_a_level(nx, after, cells) if self.levels and not self.write_noise else after

    def pulses(
        self, nx: Backend, g: Array, counts: Array, cells: Cells, noise: Array | None = None, limit: int = 1
    ) -> Array:
        """The conductances after ``counts`` pulses on every device, negative counts being pulses down.

        Args:
            counts: whole numbers; more pulses than the limit are not sent.
            noise: ξ [limit, …devices], one of them for every pulse.
            limit: the largest number of pulses.
        """
        if limit == 1:
            return self.pulse(nx, g, nx.sign(counts), cells, None if noise is None else noise[0])
        numbers = nx.arange(limit, nx.dtype(g))

        def one(carry: tuple[Array, ...], each: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            (held,) = carry
            due = nx.where(nx.abs(counts) > each[0], nx.sign(counts), 0.0 * counts)
            return (self.pulse(nx, held, due, cells, each[1] if self.noisy else None),), ()

        given = (numbers, noise) if self.noisy else (numbers,)
        (after,), _ = nx.scan(one, (g,), given, limit)
        return after

    def seen(self, nx: Backend, g: Array, offset: Array | None, cells: Cells) -> Array:
        """What the array shows of conductances whose last write left an offset ξ: within the range."""
        if not self.write_noise or offset is None:
            return g
        return _clipped(nx, g + (self.write_noise * self.range) * offset, cells["g_min"], cells["g_max"])

    def read(self, nx: Backend, g: Array, noise: Array | None = None) -> Array:
        """One noisy read, G + σ_r (G_max - G_min) ξ."""
        return g if noise is None or not self.read_noise else g + (self.read_noise * self.range) * noise

    def wait(self, nx: Backend, g: Array, cells: Cells, seconds: float, since: float | Array | None = None) -> Array:
        """The conductances ``seconds`` later: drift as a power of time, and decay towards rest; the stuck stay.

            drift alone    G ← max(G (t/t_s)^-ν, G_min),   t = t_s + seconds
            otherwise      G ← G_rest + (G - G_rest) exp(-seconds/τ) (t/t_s)^-ν

        Two waits, of which the second begins when the first has ended, are one of both times. A conductance does not
        know how old it is, so that ``since`` has to say it; the state of a ``Crossbar`` does.

        Args:
            nx: the backend of the arrays.
            g: conductances in S.
            cells: what ``draw`` gave.
            seconds: how long.
            since: t_s, the time since programming at which the wait begins, of all or of every device; by default t₀.
        """
        arguments.number("seconds", seconds, at_least=0)
        begin = self.drift_start if since is None else since
        if not nx.is_tensor(begin):
            begin = arguments.number("since", begin, at_least=self.drift_start)
        kept: Any = math.exp(-seconds / self.retention)
        if "drift" in cells:
            older = (begin + seconds) / begin
            exponent = cells["drift"] * (nx.log(older) if nx.is_tensor(older) else math.log(older))
            kept = kept * (nx.exp(-exponent) if nx.is_tensor(exponent) else math.exp(-exponent))
        if self.retention == math.inf:
            after = nx.maximum(g * kept, cells["g_min"]) if "drift" in cells else g
        else:
            towards = cells["g_min"] + self.rest * (cells["g_max"] - cells["g_min"])
            after = towards + (g - towards) * kept
        return unless_stuck(nx, after, g, cells)

    def energy(self, nx: Backend, g: Array, direction: Array) -> Array:
        """The energy of a pulse on every device in joules: V² G t, or ``pulse_energy``; 0 without a pulse."""
        if self.pulse_energy:
            return self.pulse_energy * nx.abs(direction)
        up, down = (voltage**2 * self.pulse_width for voltage in (self.set_voltage, self.reset_voltage))
        return g * nx.where(direction > 0, up + 0.0 * g, nx.where(direction < 0, down + 0.0 * g, 0.0 * g))

    def _on_a_level(self, nx: Backend, g: Array, cells: Cells) -> Array:
        apart = (cells["g_max"] - cells["g_min"]) / (self.levels - 1)
        rounded = cells["g_min"] + nx.floor((g - cells["g_min"]) / apart + 0.5) * apart
        return nx.minimum(rounded, cells["g_max"])

    # On the host.

    def nominal(self) -> Cells:
        """The constants of a device without spread."""
        steps = self.step * (1 + self.asymmetry), self.step * (1 - self.asymmetry)
        return {"g_min": self.g_min, "g_max": self.g_max, "step_up": steps[0], "step_down": steps[1]}

    def curve(self, directions: Sequence[int], start: float | None = None, seed: int | None = None) -> np.ndarray:
        """Conductances before and after each of a row of pulses on one nominal device, noisy if a seed is given.

        Example:
            >>> from neko_rules.devices import SoftBounds
            >>> (1e6 * SoftBounds(step=50e-6).curve([1, 1])).round(6)
            array([ 0., 50., 75.])
        """
        device = self if seed is not None or not self.noisy else _silenced(self)
        nx, rng = get_backend("numpy"), np.random.default_rng(seed)
        held = [np.array(self.g_min if start is None else start, np.float64)]
        for direction in directions:
            noise = np.array(rng.standard_normal()) if device.noisy else None
            held.append(device.pulse(nx, held[-1], np.array(float(direction)), self.nominal(), noise))
        return np.array(held)

    def symmetry_point(self, cells: Cells | None = None) -> Any:
        """Where a pulse up and a pulse down cancel, ΔG⁺ f⁺(u) = ΔG⁻ f⁻(1 - u): random pulses drift there.

        It is found by bisection, since up steps shrink along the range and down steps grow. Where one of them is
        larger everywhere it is that end of the range, and where they cancel on a stretch, its middle. For soft bounds
        it is

            w* = (a⁺ - a⁻) / (a⁺/b_max - a⁻/b_min)

        with steps a± at w = 0 of a device whose range b_min … b_max has been shifted to contain 0 (Gokmen & Haensch,
        Frontiers in Neuroscience 14:103, 2020).
        """
        cells = self.nominal() if cells is None else cells
        nx = get_backend("numpy")
        shape = np.broadcast_shapes(*(np.shape(value) for value in cells.values()))
        ends = []
        for compare in (np.greater, np.greater_equal):
            low, high = np.zeros(shape), np.ones(shape)
            for _ in range(BISECTIONS):
                u = (low + high) / 2
                rises = compare(cells["step_up"] * self.up(nx, u), cells["step_down"] * self.down(nx, 1 - u))
                low, high = np.where(rises, u, low), np.where(rises, high, u)
            ends.append((low + high) / 2)
        return cells["g_min"] + (ends[0] + ends[1]) / 2 * (cells["g_max"] - cells["g_min"])

    def table(self) -> str:
        """Every field with its value, unit and equation.

        Example:
            >>> from neko_rules.devices import Constant
            >>> print(Constant().table().splitlines()[2])
            step               1e-06 S      ΔG, mean over devices and directions; ΔG± = ΔG (1 ± β)
        """
        lines = []
        for each in fields(self):
            value = getattr(self, each.name)
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            about = _described(type(self), each.name)
            lines.append(f"{each.name:18} {(shown + ' ' + about['unit']).strip():12} {about['meaning']}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        shown = [each for each in fields(self) if getattr(self, each.name) != each.default]
        return f"{type(self).__name__}({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in shown)})"


DEVICES: Registry[Device] = Registry("device", Device)


def unless_stuck(nx: Backend, after: Array, before: Array, cells: Cells) -> Array:
    """What devices hold after something that moves all but those that are stuck."""
    return nx.where(cells["free"] > 0, after, before) if "free" in cells else after


def _silenced(device: Device) -> Device:
    return replace(device, cycle_noise=0.0)


def _described(cls: type, name: str) -> Mapping[str, str]:
    """Unit and meaning of a field, which a preset that only sets its value inherits."""
    known = (vars(base).get("__dataclass_fields__", {}).get(name) for base in cls.__mro__)
    return next(each.metadata for each in known if each is not None and each.metadata)


def _clipped(nx: Backend, g: Array, low: Any, high: Any) -> Array:
    return nx.minimum(nx.maximum(g, low), high)
