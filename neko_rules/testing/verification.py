"""Verification: the same seed, weights and batches on several backends give the same numbers, or here is where not.

Every backend makes the same few steps. After each, loss, gradients and weights are compared with those of the first
backend: the difference of two arrays a and b is max|a - b| / max(max|a|, max|b|). Where it is above the tolerance for
the first time, the forward passes of that step are gone through again, spike by spike, to tell two things apart:

- a **spike flip**: a membrane that comes to rest on its threshold to within rounding, so that one backend counts it
  above and another below. From there on the numbers go apart, and no one is wrong.
- a **fault**: states, spikes or gradients that differ by more than rounding before any such flip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, ComparisonError
from neko_rules.kernels.host import by_library
from neko_rules.layers.forward import Trajectory
from neko_rules.layers.margins import margins
from neko_rules.rules.rule import Rule
from neko_rules.testing.failures import distinct, installed

if TYPE_CHECKING:
    from rich.table import Table

TOLERANCE = 1e-9
"""Of float64, relative: a thousand steps of rounding, and far below any difference that an equation would make."""

Make = Callable[[str, str], Rule]
"""A rule with its model for the name of a backend and a dtype, always from the same seed."""

Data = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class SpikeDifference:
    """The first spike that one of two backends has and the other has not.

    Args:
        time: time step.
        population: where.
        example: in the batch.
        neuron: in the population.
        spikes: 0 or 1 on each of the two.
        margins: u = (membrane - threshold)/threshold on each, dimensionless; a spike is u > 0.
    """

    time: int
    population: str
    example: int
    neuron: int
    spikes: tuple[int, int]
    margins: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"first spike that differs: {self.population}, neuron {self.neuron}, example {self.example}, time step "
            f"{self.time}; the membrane is {self.margins[0]:+.2g} and {self.margins[1]:+.2g} thresholds from it"
        )


@dataclass(frozen=True)
class StateDifference:
    """The first state that differs by more than the tolerance before any flip."""

    time: int
    population: str
    state: str
    example: int
    neuron: int
    values: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"first state that differs: {self.state} of {self.population}, neuron {self.neuron}, example "
            f"{self.example}, time step {self.time}: {self.values[0]!r} and {self.values[1]!r}"
        )


@dataclass(frozen=True)
class Parting:
    """Where two backends part company.

    Args:
        step: the step, from 1.
        quantity: ``"loss"``, ``"gradient"`` or ``"weight"``.
        parameter: which; empty for the loss.
        index: the entry with the largest difference.
        values: that entry on the reference and on the other backend.
        difference: relative, of the whole parameter.
        kind: ``"spike flip"`` or ``"fault"``.
        spike: the first spike that differs in the forward pass of that step, if one does.
        state: the first state that differs before it, if one does.
    """

    step: int
    quantity: str
    parameter: str
    index: tuple[int, ...]
    values: tuple[float, float]
    difference: float
    kind: str
    spike: SpikeDifference | None
    state: StateDifference | None

    @property
    def layer(self) -> str:
        """The population that the parameter belongs to."""
        return self.parameter.split(".")[0]

    def __str__(self) -> str:
        where = f" of {self.parameter}{list(self.index)}" if self.parameter else ""
        said = f"{self.kind} in step {self.step}: {self.quantity}{where} is {self.values[0]!r} and {self.values[1]!r}"
        for found in (self.state, self.spike):
            said += f"; {found}" if found is not None else ""
        if self.state is None and self.spike is None:
            said += "; the forward passes agree"
        return said


@dataclass(frozen=True)
class Verdict:
    """How one backend compares with the reference in one number format.

    Args:
        backend: its name.
        dtype: ``"float64"`` or ``"float32"``.
        largest: the largest relative difference of ``"loss"``, ``"gradient"`` and ``"weight"`` over all steps.
        parting: the first difference above the tolerance; in float32, which is only reported, always None.
    """

    backend: str
    dtype: str
    largest: dict[str, float]
    parting: Parting | None

    @property
    def agrees(self) -> bool:
        """Whether nothing differs that a spike flip does not explain."""
        return self.parting is None or self.parting.kind == "spike flip"


@dataclass(frozen=True)
class Verification:
    """What a verification has found.

    Args:
        reference: the backend that all others are compared with.
        steps: training steps made.
        tolerance: in float64, relative.
        verdicts: one per other backend and number format.
    """

    reference: str
    steps: int
    tolerance: float
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """Whether all backends agree, apart from spike flips."""
        return all(verdict.agrees for verdict in self.verdicts)

    @property
    def partings(self) -> dict[str, Parting]:
        """Backend → where it parts from the reference."""
        return {verdict.backend: verdict.parting for verdict in self.verdicts if verdict.parting is not None}

    def summary(self) -> dict[str, Any]:
        """All that was found in values that JSON can hold."""
        verdicts = [
            {
                "backend": each.backend,
                "dtype": each.dtype,
                "largest": each.largest,
                "parting": None if each.parting is None else str(each.parting),
            }
            for each in self.verdicts
        ]
        return {"reference": self.reference, "steps": self.steps, "tolerance": self.tolerance, "verdicts": verdicts}

    def table(self) -> Table:
        """Largest differences by backend and number format, and the verdict."""
        from neko_rules.report.comparison_table import verification_table

        return verification_table(self)


def verify_backends(
    make: Make,
    data: Data,
    backends: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    float32: bool = True,
) -> Verification:
    """Train by the same rule on several backends and compare after every step.

    Args:
        make: backend name and dtype → rule, with the same seed every time.
        data: one (x, y) per step.
        backends: names; the first is the reference.
        tolerance: largest relative difference in float64.
        float32: whether differences in float32 are reported beside.

    Raises:
        ArgumentError: fewer than two backends, one of them twice, or no data.
        ComparisonError: no neuron of the reference's network spikes.
        BackendError: a backend is unknown or not installed.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator
        >>> make = lambda backend, dtype: EProp(Evaluator(ALIF(6, 2, backend=backend, dtype=dtype)))
        >>> x, y = 4 * np.random.default_rng(0).normal(size=(4, 8, 5)), np.array([0, 1, 0, 1])
        >>> verify_backends(make, [(x, y)] * 2, ["numpy", "torch"]).agree
        True
    """
    names = distinct(backends)
    if len(names) < 2:
        raise ArgumentError("a verification needs at least two backends", received=names)
    if not data:
        raise ArgumentError("a verification needs the data of at least one step", received="none")
    tolerance = arguments.number("tolerance", tolerance, above=0)
    result = Verification(names[0], len(data), tolerance)
    for dtype in ("float64", "float32") if float32 else ("float64",):
        truth = _Trace.run(make(names[0], dtype), data)
        if dtype == "float64":
            _refuse_silence(truth.rule, data[0][0], names[0])
        for name in names[1:]:
            other = _Trace.run(make(name, dtype), data)
            parting = _first_parting(truth, other, data, tolerance) if dtype == "float64" else None
            result.verdicts.append(Verdict(name, dtype, _largest(truth, other), parting))
    return result


def assert_backends_agree(
    make: Make,
    x: np.ndarray,
    y: np.ndarray,
    backends: Sequence[str] | None = None,
    *,
    steps: int = 3,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Prove that a rule and a model give the same numbers on all backends, in float64; for tests.

    Args:
        make: backend name and dtype → rule, with the same seed every time.
        x: [batch, time, feature], the batch of every step.
        y: targets.
        backends: names; all built-in ones that are installed by default.
        steps: training steps.
        tolerance: largest relative difference of losses, gradients and weights.

    Raises:
        ArgumentError: as for ``verify_backends``.
        AssertionError: two backends part, not by a spike flip; it says at which step, layer, parameter and spike.

    Example:
        >>> from neko_rules import BPTT, LIF, Evaluator
        >>> make = lambda backend, dtype: BPTT(Evaluator(LIF(6, 2, backend=backend, dtype=dtype)))
        >>> x, y = 4 * np.random.default_rng(0).normal(size=(4, 8, 5)), np.array([0, 1, 0, 1])
        >>> assert_backends_agree(make, x, y, ["numpy", "torch"]).partings
        {}
    """
    found = verify_backends(make, [(x, y)] * steps, installed(backends), tolerance=tolerance, float32=False)
    wrong = [f"- {v.backend}: {v.parting}" for v in found.verdicts if not v.agrees]
    if wrong:
        raise AssertionError("\n".join([f"{len(wrong)} backends part from {found.reference}:", *wrong]))
    return found


Arrays = dict[str, np.ndarray]


@dataclass
class _Trace:
    """What a rule did: losses, gradients, and weights before each step and after the last."""

    rule: Rule
    losses: list[float] = field(default_factory=list)
    gradients: list[Arrays] = field(default_factory=list)
    weights: list[Arrays] = field(default_factory=list)

    @classmethod
    def run(cls, rule: Rule, data: Data) -> _Trace:
        trace = cls(rule)
        rule.model.check(*data[0])
        trace.weights.append(rule.model.network.parameters)
        for x, y in data:
            # Loops of NumPy that took a library's steps would agree with themselves.
            with by_library():
                figures, gradients = rule.observed_step(x, y)
            trace.losses.append(figures["loss"])
            trace.gradients.append(gradients)
            trace.weights.append(rule.model.network.parameters)
        return trace

    def compared(self, step: int) -> dict[str, Arrays]:
        """Everything of a step in the order in which it came to be."""
        return {
            "loss": {"": np.array(self.losses[step])},
            "gradient": self.gradients[step],
            "weight": self.weights[step + 1],
        }

    def trajectory(self, step: int, x: np.ndarray) -> Trajectory:
        """The forward pass of a step."""
        network = self.rule.model.network
        network.set_parameters(self.weights[step])
        found = self.rule.model.trajectory(x)
        network.set_parameters(self.weights[-1])
        return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """max|a - b| / max(max|a|, max|b|); 0 for two arrays of zeros, infinite where one is NaN.

    Example:
        >>> difference(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
        0.5
    """
    if not one.size:
        return 0.0
    apart = np.abs(np.asarray(one, np.float64) - other).max()
    if np.isnan(apart):
        return float("inf")
    largest = max(float(np.abs(one).max()), float(np.abs(other).max()))
    return float(apart) / largest if apart else 0.0


def _largest(truth: _Trace, other: _Trace) -> dict[str, float]:
    found = dict.fromkeys(("loss", "gradient", "weight"), 0.0)
    for step in range(len(truth.losses)):
        given = other.compared(step)
        for quantity, arrays in truth.compared(step).items():
            differences = (difference(arrays[name], given[quantity][name]) for name in arrays)
            found[quantity] = max(found[quantity], *differences)
    return found


def _first_parting(truth: _Trace, other: _Trace, data: Data, tolerance: float) -> Parting | None:
    for step in range(len(data)):
        given = other.compared(step)
        for quantity, arrays in truth.compared(step).items():
            for name, one in arrays.items():
                apart = difference(one, given[quantity][name])
                if apart > tolerance:
                    two = given[quantity][name]
                    place = tuple(int(i) for i in np.unravel_index(np.abs(one - two).argmax(), one.shape))
                    kind, spike, state = _explained(truth, other, step, data[step][0], tolerance)
                    values = float(one[place]), float(two[place])
                    return Parting(step + 1, quantity, name, place, values, apart, kind, spike, state)
    return None


def _explained(
    truth: _Trace, other: _Trace, step: int, x: np.ndarray, tolerance: float
) -> tuple[str, SpikeDifference | None, StateDifference | None]:
    """Kind of a parting, from the forward passes of its step."""
    one, two = truth.trajectory(step, x), other.trajectory(step, x)
    network = truth.rule.model.network
    spike = _first_spike(truth, one, two, step)
    until = x.shape[1] if spike is None else spike.time + 1
    state = None
    for time in range(until):
        for population in network.graph.order:
            state = state or _state_difference(one, two, population, time, tolerance)
            if spike is not None and time == spike.time and population == spike.population:
                break
    on_threshold = spike is not None and max(map(abs, spike.margins)) <= tolerance
    return ("spike flip" if state is None and on_threshold else "fault"), spike, state


def _first_spike(truth: _Trace, one: Trajectory, two: Trajectory, step: int) -> SpikeDifference | None:
    network = truth.rule.model.network
    places = []
    for order, population in enumerate(network.graph.order):
        if population in network.spiking:
            found = np.argwhere(one.z(population) != two.z(population))
            places += [(int(t), order, int(b), int(n)) for t, b, n in found[:1]]
    if not places:
        return None
    time, order, example, neuron = min(places)
    population = network.graph.order[order]
    at = (time, example, neuron)
    missed = [margins(network, each, population, truth.weights[step])[at] for each in (one, two)]
    spikes = int(one.z(population)[at]), int(two.z(population)[at])
    return SpikeDifference(time, population, example, neuron, spikes, (float(missed[0]), float(missed[1])))


def _state_difference(
    one: Trajectory, two: Trajectory, population: str, time: int, tolerance: float
) -> StateDifference | None:
    for name, history in one.records[population].states.items():
        a, b = history[time], two.records[population].states[name][time]
        # Against the largest value of the whole history: a state that passes through zero is not wrong there.
        scale = max(float(np.abs(history).max()), 1e-300)
        apart = np.abs(a - b)
        if np.isnan(apart).any() or apart.max() > tolerance * scale:
            example, neuron = (int(i) for i in np.unravel_index(np.nan_to_num(apart, nan=np.inf).argmax(), a.shape))
            values = float(a[example, neuron]), float(b[example, neuron])
            return StateDifference(time, population, name, example, neuron, values)
    return None


def _refuse_silence(rule: Rule, x: np.ndarray, backend: str) -> None:
    spiking = rule.model.network.spiking
    trajectory = rule.model.trajectory(x)
    if spiking and not any(np.any(trajectory.z(name)) for name in spiking):
        raise ComparisonError(
            "backends can be compared only on a network in which neurons spike",
            received=f"no spike on {backend}",
            works="use larger first weights, stronger inputs or a lower threshold",
        )
