"""Conformance of a neuron: what the engine derives from its two functions is checked against central differences.

``stop_gradient``, ``spike`` and ``rounded`` are where a derivative is not that of the numbers. For the differences,
what passes through ``stop_gradient`` is held at its value, a spike is the line H(u₀) + ψ(u₀)(u - u₀), and what is
rounded keeps its distance from the unrounded: so no automatic differentiation is needed, and nothing of the engine is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.credit import autodiff
from neko_rules.evaluator import Evaluator
from neko_rules.layers.cell import CELLS, Cell, CellOperations, namespace
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.models import Layer, Stack
from neko_rules.rules.bptt import BPTT
from neko_rules.testing.failures import Failures, installed

NEURONS, EXAMPLES, STEP = 4, 5, 1e-6
"""Neurons and examples at which a cell's functions are looked at, and the step of the central differences."""

Values = dict[str, np.ndarray]


def check_neuron(
    cell: str | dict[str, Any] | Cell, backends: Sequence[str] | None = None, *, dt: float = 1e-3, seed: int = 0
) -> None:
    """Prove a neuron model: its equations, the derivatives found for it, and that it runs alike everywhere.

    Args:
        cell: a name, mapping or Cell.
        backends: names; all built-in ones that are installed by default.
        dt: time step, seconds.
        seed: of the states and data at which it is looked at.

    Raises:
        AssertionError: it lists every equation that broke, and both sides.

    Example:
        >>> check_neuron("alif", ["numpy"])
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Forgetful(Cell):
        ...     states = ("v", "w")
        ...     def constants(self, dt):
        ...         return {"alpha": 0.9}
        ...     def update(self, nx, p, s, z, current):
        ...         return {"v": p.alpha * s.v + current}
        ...     def emit(self, nx, p, s):
        ...         return nx.spike(s.v - 1)
        >>> check_neuron(Forgetful(), ["numpy"])
        Traceback (most recent call last):
        AssertionError: neuron Forgetful fails 1 check:
        - update returns s_t of every state: ['v'] instead of ['v', 'w']
    """
    part = CELLS.resolve(cell)
    failures = Failures("neuron", part)
    point = _Point(part, dt, seed)
    after = point.update(point.now)
    if sorted(after) != sorted(part.state_names()):
        failures.add("update returns s_t of every state", f"{sorted(after)} instead of {sorted(part.state_names())}")
        failures.report()
    _check_values(failures, point)
    if not failures.found:
        _check_derivatives(failures, point)
        _check_networks(failures, part, installed(backends), dt, seed)
    failures.report()


class _Fixed:
    """Operations on NumPy that remember what passes through stop_gradient, spike and rounded, or hold it so."""

    def __init__(self, surrogate: Any, remembered: list[tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        self._nx = CellOperations(get_backend("numpy"), surrogate)
        self._surrogate = surrogate
        self.memory: list[tuple[np.ndarray, np.ndarray]] = []
        self._left = None if remembered is None else list(remembered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nx, name)

    def stop_gradient(self, array: Any) -> Any:
        """The array as it was at the point."""
        if self._left is not None:
            return self._left.pop(0)[0]
        self.memory.append((np.array(array), np.array(array)))
        return array

    def spike(self, u: Any) -> Any:
        """H(u₀) + ψ(u₀)(u - u₀)."""
        if self._left is not None:
            u0, slope = self._left.pop(0)
            return (u0 > 0) + slope * (u - u0)
        self.memory.append((np.array(u), np.asarray(self._surrogate.derivative(get_backend("numpy"), u))))
        return self._nx.spike(u)

    def rounded(self, array: Any, apart: Any) -> Any:
        """The array and the distance to its rounded value at the point."""
        if self._left is not None:
            return array + self._left.pop(0)[0]
        hard = self._nx.rounded(array, apart)
        self.memory.append((np.array(hard - array), np.array(array)))
        return hard


class _Point:
    """A random state of a cell at which its functions are evaluated."""

    def __init__(self, cell: Cell, dt: float, seed: int) -> None:
        self.cell, self.dt = cell, dt
        rng = np.random.default_rng(seed)
        shape = (EXAMPLES, NEURONS)
        self.p = {name: np.asarray(value, np.float64) for name, value in cell.constants(dt).items()}
        for value in self.p.values():
            if value.ndim:
                shape = (EXAMPLES, value.size)
        self.now: Values = {f"previous_{name}": rng.normal(0.4, 0.6, shape) for name in cell.state_names()}
        if "refractory" in cell.state_names():
            self.now["previous_refractory"] = rng.integers(0, 3, shape).astype(np.float64)
        self.now["previous_z"] = (
            rng.integers(0, 2, shape).astype(np.float64) if cell.spiking else rng.normal(0, 0.5, shape)
        )
        self.now["current"] = rng.normal(0.3, 0.5, shape)

    def update(self, values: Values, operations: Any = None, p: Values | None = None) -> Values:
        """s_t."""
        before = {name: values[f"previous_{name}"] for name in self.cell.state_names()}
        nx = _Fixed(self.cell.surrogate) if operations is None else operations
        given = namespace(self.p if p is None else p)
        return dict(self.cell.update(nx, given, namespace(before), values["previous_z"], values["current"]))

    def emit(self, states: Values, operations: Any = None, p: Values | None = None) -> np.ndarray:
        """z_t."""
        nx = _Fixed(self.cell.surrogate) if operations is None else operations
        return np.asarray(self.cell.emit(nx, namespace(self.p if p is None else p), namespace(states)))


def _check_values(failures: Failures, point: _Point) -> None:
    """Shapes, finiteness, arguments left alone, and one neuron that does not know of another."""
    kept = {name: value.copy() for name, value in point.now.items()}
    after = point.update(point.now)
    z = point.emit(after)
    shape = point.now["current"].shape
    for name, value in {**after, "z": z}.items():
        letter = "z_t" if name == "z" else f"{name}_t"
        if np.shape(value) != shape:
            failures.add(f"{letter} has the shape of I_t", f"{np.shape(value)} instead of {shape}")
        elif not np.isfinite(value).all():
            failures.add(f"{letter} is finite", "NaN or infinite values")
    if any(not np.array_equal(kept[name], value) for name, value in point.now.items()):
        failures.add("update and emit change none of their arguments", "one was changed in place")
    if point.cell.spiking and not np.isin(z, (0.0, 1.0)).all():
        failures.add("z_t is 0 or 1", f"{z[~np.isin(z, (0.0, 1.0))][0]:g}; set spiking = False for a graded output")
    if failures.found:
        return
    moved = {name: value.copy() for name, value in point.now.items()}
    for value in moved.values():
        value[:, 0] += 0.37
    others = point.update(moved)
    for name, value in others.items():
        failures.equal(f"{name}_t of a neuron depends on that neuron alone", value[:, 1:], after[name][:, 1:], rtol=0)


def _check_derivatives(failures: Failures, point: _Point) -> None:
    """Every entry of D, r, q, h and c against central differences."""
    cell = point.cell
    jacobians = Jacobians.of(cell, point.dt)
    recording = _Fixed(cell.surrogate)
    after = {name: np.asarray(value) for name, value in point.update(point.now, recording).items()}
    emitting = _Fixed(cell.surrogate)
    point.emit(after, emitting)
    recorded = {**point.now, **after}
    constants = {name: np.asarray(value) for name, value in point.p.items()}
    found = jacobians.evaluate(get_backend("numpy"), cell, constants, lambda name: recorded[name])
    names = cell.state_names()
    wanted: list[tuple[tuple[str, ...], str, str]] = [(("D", s, o), f"previous_{o}", s) for s in names for o in names]
    wanted += [(("r", s), "previous_z", s) for s in names]
    wanted += [(("q", s), "current", s) for s in names]
    for entry, moved, state in wanted:
        sides = []
        for sign in (1, -1):
            values = {**point.now, moved: point.now[moved] + sign * STEP}
            sides.append(point.update(values, _Fixed(cell.surrogate, recording.memory))[state])
        _compare(failures, f"∂{state}_t/∂{_shown(moved)}", found.get(entry), sides, after[state])
    for state in names:
        sides = [
            point.emit({**after, state: after[state] + sign * STEP}, _Fixed(cell.surrogate, emitting.memory))
            for sign in (1, -1)
        ]
        _compare(failures, f"∂z_t/∂{state}_t", found.get(("h", state)), sides, after[state])
    for constant in jacobians.learnable:
        for state in names:
            sides = []
            for sign in (1, -1):
                p = {**point.p, constant: point.p[constant] + sign * STEP}
                sides.append(point.update(point.now, _Fixed(cell.surrogate, recording.memory), p)[state])
            _compare(failures, f"∂{state}_t/∂{constant}", found.get(("c", state, constant)), sides, after[state])


def _compare(failures: Failures, equation: str, derived: Any, sides: list[Any], like: np.ndarray) -> None:
    numeric = (np.asarray(sides[0]) - np.asarray(sides[1])) / (2 * STEP)
    expected = np.broadcast_to(np.asarray(0.0 if derived is None else derived, np.float64), like.shape)
    failures.equal(
        f"{equation} as derived = central differences",
        expected,
        np.broadcast_to(numeric, like.shape),
        rtol=1e-6,
        atol=1e-7,
    )


def _shown(argument: str) -> str:
    return "I_t" if argument == "current" else f"{argument.removeprefix('previous_')}_t-1"


def _check_networks(failures: Failures, cell: Cell, backends: Sequence[str], dt: float, seed: int) -> None:
    """BPTT of a small network: the same on every backend, and that of automatic differentiation."""
    rng = np.random.default_rng(seed)
    size = max([NEURONS, *(np.size(value) for value in cell.constants(dt).values())])
    x, y = 3 * rng.standard_normal((3, 9, 4)), np.array([0, 1, 0])
    strong = {"name": "scaled_normal", "gain": 1.5}
    truth: Values = {}
    for name in backends:
        failures.where = f"on {name}"
        layer = Layer(cell, size, initializer=strong, recurrent_initializer=strong)
        model = Evaluator(Stack([layer], 2, backend=name, dtype="float64", inputs=4, dt=dt, seed=seed))
        found = BPTT(model).gradients(x, y)
        truth = truth or found
        for parameter, value in found.items():
            failures.equal(f"dE/d({parameter}) on {name} = on {backends[0]}", value, truth[parameter], rtol=1e-10)
        if model.nx.differentiates:
            batch = [model.nx.asarray(array) for array in model.batch(x, y)]
            expected = autodiff.gradients(model, model.network.values, *batch)
            for parameter, value in found.items():
                other = model.nx.to_numpy(expected[parameter])
                failures.equal(f"dE/d({parameter}) = automatic differentiation", value, other, rtol=1e-10, atol=1e-14)
