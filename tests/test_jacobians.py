"""Jacobians: D, r, q and h of every cell against central differences, and against the equations written by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cell_cases import DT, SIZE, VARIANTS, operations, step
from trees import converted

from neko_rules import BPTT, LIF, Evaluator, Layer, Stack
from neko_rules.backend import get_backend
from neko_rules.kernels.host import unfused
from neko_rules.layers import jacobians, printed
from neko_rules.layers.cell import CELLS, Cell, CellOperations, PerNeuron, SlopeKeeping, backend_constants, namespace
from neko_rules.layers.equations import written
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.jacobians import SLOPE, Entry, Jacobians, Symbolic
from neko_rules.layers.rate import LeakyReadoutCell, TanhCell

NX = get_backend("numpy")
SHAPE = (4, 2, SIZE)
"""[time, batch, neuron] of the points at which derivatives are compared."""


def point(cell: Cell, seed: int = 0) -> dict[str, np.ndarray]:
    """States, z and current before and after a step, everywhere away from the places where a derivative jumps."""
    rng = np.random.default_rng(seed)
    names = (*cell.state_names(), *(f"previous_{name}" for name in (*cell.state_names(), "z")), "current")
    values = {name: rng.uniform(0.05, 1.9, SHAPE) * rng.choice([-1, 1], SHAPE) for name in names}
    values["previous_z"] = rng.integers(0, 2, SHAPE).astype(np.float64)
    for name in ("refractory", "previous_refractory"):
        if name in values:
            values[name] = rng.integers(0, 3, SHAPE).astype(np.float64)
    return values


def evaluated(cell: Cell, values: dict[str, np.ndarray]) -> dict[Entry, np.ndarray]:
    """Every entry, also those left out because they are zero, in the full shape."""
    constants = backend_constants(NX, cell, SIZE, DT, "float64", "test")
    found = Jacobians.of(cell, DT).evaluate(NX, cell, constants, values.__getitem__)
    return {entry: np.broadcast_to(value, SHAPE) for entry, value in found.items()}


class Unrounded(CellOperations):
    """Rounding left out: its derivative is by definition that of what is rounded."""

    def rounded(self, array: Any, apart: Any) -> Any:
        return array


def by_differences(cell: Cell, values: dict[str, np.ndarray], detached: frozenset[str]) -> dict[Entry, np.ndarray]:
    """D, r and q by central differences of ``update``, where z as it enters through ``detached`` states is constant."""
    states, epsilon = cell.state_names(), 1e-6
    given = {**{name: values[f"previous_{name}"] for name in states}, "z": values["previous_z"], "I": values["current"]}

    def after(moved: str, by: float) -> dict[str, np.ndarray]:
        at = {**given, moved: given[moved] + by}
        unrounded = Unrounded(NX, cell.surrogate)  # type: ignore[arg-type]
        result, _ = step(cell, {name: at[name] for name in states}, at["z"], at["I"], nx=unrounded)
        return result

    found: dict[Entry, np.ndarray] = {}
    for moved in given:
        up, down = after(moved, epsilon), after(moved, -epsilon)
        for name in states:
            slope = (up[name] - down[name]) / (2 * epsilon)
            entry = ("r", name) if moved == "z" else ("q", name) if moved == "I" else ("D", name, moved)
            if name == "refractory" or (moved == "z" and name in detached):
                slope = 0 * slope
            if np.abs(slope).max() > 1e-9:
                found[entry] = slope
    return found


def without_gradient(cell: Cell) -> frozenset[str]:
    """The states that z enters through the reset only, if that is detached."""
    return frozenset({"v"}) if getattr(neuron(cell), "detach_reset", False) else frozenset()


def neuron(cell: Cell) -> Any:
    """The neuron itself, where another cell rounds its states."""
    return getattr(cell, "inner", cell)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_update_derivatives_equal_central_differences(name: str) -> None:
    cell = VARIANTS[name]
    values = point(cell)
    found = {entry: value for entry, value in evaluated(cell, values).items() if entry[0] != "h"}
    expected = by_differences(cell, values, without_gradient(cell))
    assert set(found) == {*expected, *(entry for entry, value in found.items() if not value.any())}
    for entry, value in expected.items():
        np.testing.assert_allclose(found[entry], value, rtol=1e-7, atol=1e-8, err_msg=str(entry))


@pytest.mark.parametrize("name", [name for name, cell in VARIANTS.items() if not cell.spiking])
def test_emission_of_rate_units_equals_central_differences(name: str) -> None:
    cell = VARIANTS[name]
    values = point(cell)
    nx = operations(cell)
    p = namespace(backend_constants(NX, cell, SIZE, DT, "float64", "test"))
    ends = [cell.emit(nx, p, namespace({"v": values["v"] + sign * 1e-6})) for sign in (1, -1)]
    np.testing.assert_allclose(evaluated(cell, values)["h", "v"], (ends[0] - ends[1]) / 2e-6, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, cell in VARIANTS.items() if cell.spiking])
def test_emission_of_spiking_cells_is_the_surrogate_of_the_distance_to_threshold(name: str) -> None:
    """h_v = ψ(u)/θ and h_a = -β ψ(u)/θ with u = (v - θ - β a)/θ, and 0 while refractory."""
    cell = VARIANTS[name]
    values = point(cell)
    theta, beta = np.asarray(neuron(cell).threshold), np.asarray(getattr(neuron(cell), "beta", 0.0))
    u = (values["v"] - theta - beta * values.get("a", 0.0)) / theta
    ready = np.where(values["refractory"] > 0, 0.0, 1.0) if "refractory" in values else 1.0
    slope = cell.surrogate.derivative(NX, u) * ready / theta  # type: ignore[union-attr]
    found = evaluated(cell, values)
    expected = {("h", "v"): slope} | ({("h", "a"): -beta * slope} if "a" in values else {})
    assert {entry for entry in found if entry[0] == "h"} == set(expected)
    for entry, value in expected.items():
        np.testing.assert_allclose(found[entry], value, rtol=1e-13, atol=1e-15)
    assert slope.any()


def test_triangular_surrogate_by_hand() -> None:
    found = evaluated(LIFCell(threshold=2.0), {"v": np.broadcast_to([2.0, 3.0, 5.0], SHAPE)})
    np.testing.assert_allclose(found["h", "v"][0, 0], [0.15, 0.075, 0.0], rtol=1e-14)


# Entries that must be there, or must not.


def entries(cell: Cell) -> set[Entry]:
    return set(Jacobians.of(cell, DT).expressions)


def test_a_detached_reset_leaves_no_path_through_z() -> None:
    assert entries(LIFCell()) == {("D", "v", "v"), ("q", "v"), ("h", "v")}
    assert entries(LIFCell(reset="zero")) == entries(LIFCell())
    assert entries(LIFCell(refractory_period=2e-3)) == entries(LIFCell())
    assert entries(ALIFCell()) == entries(LIFCell()) | {("D", "a", "a"), ("r", "a"), ("h", "a")}


def test_an_attached_reset_by_subtraction_takes_the_threshold() -> None:
    cell = LIFCell(detach_reset=False, threshold=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluated(cell, point(cell))["r", "v"], np.broadcast_to([-1.0, -2.0, -3.0], SHAPE))


def test_a_reset_to_zero_cuts_the_leak_where_there_was_a_spike() -> None:
    cell = LIFCell(reset="zero", membrane_decay=0.5, detach_reset=False)
    values = point(cell)
    found = evaluated(cell, values)
    np.testing.assert_array_equal(found["D", "v", "v"], 0.5 * (1 - values["previous_z"]))
    np.testing.assert_array_equal(found["r", "v"], -0.5 * values["previous_v"])
    detached = evaluated(LIFCell(reset="zero", membrane_decay=0.5), values)
    np.testing.assert_array_equal(detached["D", "v", "v"], found["D", "v", "v"])
    assert ("r", "v") not in detached


def test_no_reset_needs_no_path_also_when_attached() -> None:
    assert entries(LIFCell(reset="none", detach_reset=False)) == {("D", "v", "v"), ("q", "v"), ("h", "v")}


@pytest.mark.parametrize("name", [name for name, cell in VARIANTS.items() if "refractory" in cell.state_names()])
def test_nothing_flows_through_the_count_of_refractory_steps(name: str) -> None:
    assert not [entry for entry in entries(VARIANTS[name]) if "refractory" in entry]


def test_only_the_histories_that_are_needed_are_asked_for() -> None:
    assert Jacobians.of(ALIFCell(), DT).arguments == ("a", "alpha", "beta", "rho", "theta", "v")
    assert Jacobians.of(LeakyReadoutCell(), DT).arguments == ("alpha",)
    assert "previous_z" in Jacobians.of(LIFCell(reset="zero"), DT).arguments


# The same numbers on every backend.


def test_same_derivatives_on_every_backend(backend: str) -> None:
    nx = get_backend(backend)
    points = {name: point(cell) for name, cell in VARIANTS.items()}

    def derivatives(given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found = {}
        for name, cell in VARIANTS.items():
            constants = backend_constants(nx, cell, SIZE, DT, "float64", "test")
            values = Jacobians.of(cell, DT).evaluate(nx, cell, constants, given[name].__getitem__)
            found[name] = {"".join(entry): v * nx.full((), 1.0, "float64") for entry, v in values.items()}
        return found

    found = converted(nx.to_numpy, nx.jit(derivatives)(converted(nx.asarray, points)))
    for name, cell in VARIANTS.items():
        for entry, value in evaluated(cell, points[name]).items():
            np.testing.assert_allclose(found[name]["".join(entry)] + np.zeros(SHAPE), value, atol=1e-12, rtol=1e-12)


# Cells of one's own.


@dataclass(frozen=True)
class EveryOperation(Cell):
    """A cell without a meaning that uses every operation a cell may use."""

    scale: float = 0.5
    states = ("v", "w")
    spiking = False

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        return {"tau": 3.0}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        v = nx.exp(-s.v * s.v) + self.scale * nx.log(1 + s.w * s.w) * current - nx.tanh(z * s.v) / p.tau
        w = nx.sqrt(1 + nx.abs(s.v)) + nx.maximum(s.w, current) - nx.minimum(s.v * s.w, 0.3) + nx.maximum(s.w, 0)
        return {"v": v, "w": w + nx.where(s.v > s.w, s.v * s.v, current / (2 + s.w)) + nx.stop_gradient(s.v * s.w)}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.where(s.v < 0.2, s.v**3, nx.abs(s.w) * s.v) - 1 / (3 + s.v)


def test_every_operation_a_cell_may_use(backend: str) -> None:
    nx, cell = get_backend(backend), EveryOperation()
    values = point(cell, seed=3)

    def derivatives(given: dict[str, Any]) -> dict[str, Any]:
        constants = backend_constants(nx, cell, SIZE, DT, "float64", "test")
        return {
            "".join(e): v for e, v in Jacobians.of(cell, DT).evaluate(nx, cell, constants, given.__getitem__).items()
        }

    found = converted(nx.to_numpy, nx.jit(derivatives)(converted(nx.asarray, values)))
    expected = {"".join(e): v for e, v in by_differences(cell, values, frozenset()).items()}
    # What is detached enters the differences of w, though not its derivatives.
    expected["Dwv"] = expected["Dwv"] - values["previous_w"]
    expected["Dww"] = expected["Dww"] - values["previous_v"]
    for entry, value in expected.items():
        np.testing.assert_allclose(found[entry], value, rtol=1e-6, atol=1e-7, err_msg=entry)
    v, w = values["v"], values["w"]
    h = {"hv": np.where(v < 0.2, 3 * v * v, np.abs(w)) + 1 / (3 + v) ** 2, "hw": np.where(v < 0.2, 0.0, np.sign(w) * v)}
    for entry, value in h.items():
        np.testing.assert_allclose(found[entry], value, rtol=1e-12, atol=1e-12, err_msg=entry)
    assert set(found) == {*expected, *h}


def test_a_number_written_into_the_equations_is_not_mistaken_for_another() -> None:
    """Two cells of one class differ in a field that their equations use directly, so their derivatives differ."""
    values = point(EveryOperation())
    half, double = evaluated(EveryOperation(), values), evaluated(EveryOperation(scale=2.0), values)
    np.testing.assert_allclose(double["q", "v"], 4 * half["q", "v"], rtol=1e-14)


@dataclass(frozen=True)
class Amplified(LIFCell):
    """A LIF cell whose input is amplified."""

    gain: float = 1.0

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return super().update(nx, p, s, z, self.gain * current)


def test_a_subclass_of_a_cell_has_derivatives_of_its_own() -> None:
    values = point(LIFCell())
    for gain in (1.0, 3.0):
        assert evaluated(Amplified(gain=gain), values)["q", "v"][0, 0, 0] == gain


def test_equal_equations_are_differentiated_once() -> None:
    assert Jacobians.of(LIFCell(threshold=0.5, tau_membrane=[1e-3] * 3), DT) is Jacobians.of(LIFCell(), 2 * DT)
    assert Jacobians.of(LIFCell(reset="zero"), DT) is not Jacobians.of(LIFCell(), DT)


def test_equations_are_told_apart_by_all_that_they_hold() -> None:
    cells = [LIFCell(), LIFCell(reset="zero"), LIFCell(detach_reset=False), LIFCell(learnable="threshold"), ALIFCell()]
    cells += [Amplified(gain=gain) for gain in (1.0, 3.0, 3)]
    texts = [written(cell, DT) for cell in cells]
    assert len(set(texts)) == len(texts)
    assert written(LIFCell(threshold=0.5, tau_membrane=[1e-3] * 3), DT) == written(LIFCell(), 2 * DT)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_derivatives_on_disk_are_those_that_were_derived(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printed, "folder", lambda: tmp_path)
    cell = VARIANTS[name]
    key, constants = written(cell, DT), backend_constants(NX, cell, SIZE, DT, "float64", "test")
    values = {**point(cell), SLOPE: np.full(SHAPE, 0.3)}

    def again() -> Symbolic:
        raise AssertionError("derived although it is on disk")

    derived = jacobians._found(key, lambda: jacobians._derive(cell, DT))
    forms = [derived, derived.with_slope] if cell.spiking else [derived]
    for form in forms:
        assert form is not None
        loaded = jacobians._found(form.key, again)
        assert str(loaded) == str(form)
        assert (loaded.depends, loaded.arguments) == (form.depends, form.arguments)
        one, other = (each.evaluate(NX, cell, constants, values.__getitem__) for each in (form, loaded))
        for entry, value in one.items():
            np.testing.assert_array_equal(other[entry], value)


class Named(LIFCell):
    """Equations of a user's own around one function of constants, states before and input current."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        object.__setattr__(self, "function", function)

    def constants(self, dt: float) -> dict[str, PerNeuron]:
        return {"t0": 0.5, "alpha": 0.9, "theta": 1.0}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": self.function(nx, p, s.v, current)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A constant that is called as a line of the text might be.
        (lambda nx, p, v, i: p.alpha * v + p.t0 * i, lambda nx, p, v, i: p.alpha * v + p.alpha * v * i),
        # Numbers that are printed alike.
        (lambda nx, p, v, i: v * np.array(0.12345678912) + i, lambda nx, p, v, i: v * np.array(0.12345678999) + i),
        (lambda nx, p, v, i: np.float32(0.1) * v + i, lambda nx, p, v, i: 0.1 * v + i),
    ],
)
def test_equations_that_differ_have_texts_that_differ(one: Callable[..., Any], other: Callable[..., Any]) -> None:
    assert written(Named(one), DT) != written(Named(other), DT)


def test_numbers_that_sympy_knows_by_name_are_there_when_derivatives_come_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printed, "folder", lambda: tmp_path)
    cell = Named(lambda nx, p, v, i: nx.exp(1) * v + i)
    constants = backend_constants(NX, LIFCell(), SIZE, DT, "float64", "test") | {"t0": np.array(0.5)}
    for _ in range(2):
        found = jacobians._found(written(cell, DT), lambda: jacobians._derive(cell, DT))
        values = found.evaluate(NX, cell, constants, point(LIFCell()).__getitem__)
        np.testing.assert_allclose(values["D", "v", "v"], np.e, rtol=1e-15)


def test_signs_and_arguments_by_name_may_be_written() -> None:
    cell = Named(lambda nx, p, v, i: nx.where(condition=v > 0, yes=+v, no=-v) + i)
    assert "where(condition=" in written(cell, DT)
    assert ("D", "v", "v") in Jacobians.of(cell, DT).expressions


def test_without_a_folder_to_keep_them_derivatives_are_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printed, "folder", lambda: tmp_path / "gone")
    key = written(LIFCell(), DT)
    found = jacobians._found(key, lambda: jacobians._derive(LIFCell(), DT))
    assert str(found) == str(Jacobians.of(LIFCell(), DT))


@pytest.mark.parametrize("left", ["", '{"key": ', '{"key": "another"}', "[]"])
def test_what_is_left_of_a_file_on_disk_is_derived_anew(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printed, "folder", lambda: tmp_path)
    key = written(LIFCell(), DT)
    whole = jacobians._found(key, lambda: jacobians._derive(LIFCell(), DT))
    (path,) = tmp_path.iterdir()
    path.write_text(left, encoding="utf-8")
    assert str(jacobians._found(key, lambda: jacobians._derive(LIFCell(), DT))) == str(whole)
    assert str(jacobians._found(key, lambda: pytest.fail("derived again"))) == str(whole)


def test_a_process_that_meets_a_known_neuron_does_not_load_sympy(tmp_path: Path) -> None:
    code = (
        "import sys; from neko_rules import ALIF, BPTT, EProp, OTTT, Evaluator, LIF; "
        "[rule(Evaluator(model(4, 2))).lean for rule in (BPTT, EProp) for model in (LIF, ALIF)]; "
        "OTTT(Evaluator(LIF(4, 2))).lean; print('sympy' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for loaded in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == loaded


@pytest.mark.parametrize(
    ("emit", "error", "says"),
    [
        (lambda nx, s: nx.floor(s.v), AttributeError, "a cell cannot use nx.floor: its derivative is not known"),
        (lambda nx, s: nx.where(s.v >= 0, s.v, 0), TypeError, "takes a strict comparison such as s.v > 0"),
    ],
)
def test_an_operation_without_a_known_derivative_is_refused(
    emit: Callable[[Any, Any], Any], error: type[Exception], says: str
) -> None:
    class Wrong(TanhCell):
        def emit(self, nx: Any, p: Any, s: Any) -> Any:
            return emit(nx, s)

    with pytest.raises(error, match=says):
        Jacobians.of(Wrong(), DT)


def test_printed_derivatives_read_like_the_equations() -> None:
    assert str(Jacobians.of(TanhCell(), DT)) == "∂v/∂v' = alpha\n∂v/∂I = 1\n∂z/∂v = 1 - tanh(v)**2"
    assert "∂v/∂z' = -theta" in str(Jacobians.of(IFCell(detach_reset=False), DT))


def test_every_registered_cell_has_an_input_and_an_output() -> None:
    for name in CELLS:
        letters = {entry[0] for entry in entries(CELLS[name]())}
        assert {"q", "h"} <= letters, name


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_case_of_every_cell_is_alive(name: str) -> None:
    cell = VARIANTS[name]
    without_memory = cell.constants(DT).get("alpha") == 0.0
    for entry, value in evaluated(cell, point(cell)).items():
        assert value.any() or (without_memory and entry == ("D", "v", "v")), entry


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recorded_slope_stands_for_what_it_depends_on(name: str) -> None:
    """Every entry from ψ(u) that a step kept equals the entry from the states, at every cell of a single spike."""
    cell = VARIANTS[name]
    derived = Jacobians.of(cell, DT)
    sloped = derived.with_slope
    if not cell.spiking:
        assert sloped is None
        return
    assert sloped is not None
    constants = backend_constants(NX, cell, SIZE, DT, "float64", "test")
    values = point(cell)
    keeping = SlopeKeeping(NX, cell.surrogate)  # type: ignore[arg-type]
    now = namespace({state: values[state] for state in cell.state_names()})
    cell.emit(keeping, namespace(constants), now)
    (slope,) = keeping.slopes
    assert (slope > 0).any()
    known = {**values, SLOPE: slope}
    one = derived.evaluate(NX, cell, constants, values.__getitem__)
    other = sloped.evaluate(NX, cell, constants, known.__getitem__)
    assert one.keys() == other.keys()
    for entry, value in one.items():
        np.testing.assert_allclose(other[entry], value, rtol=1e-14, atol=1e-14)


class TwoSpikes(LIFCell):
    """Falls silent beyond three times the threshold."""

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.spike(s.v - p.theta) * nx.spike(3 * p.theta - s.v)


def test_two_spikes_in_a_step_have_no_single_slope() -> None:
    derived = Jacobians.of(TwoSpikes(), DT)
    assert derived.spikes == 2
    assert derived.with_slope is None
    model = Evaluator(LIF(6, 2, inputs=3, dtype="float64"))
    layers = [Layer(TwoSpikes(), 6, initializer={"name": "scaled_normal", "gain": 3.0})]
    twice = Evaluator(Stack(layers, 2, inputs=3, dtype="float64"))
    x, y = np.random.default_rng(0).standard_normal((3, 12, 3)), np.array([0, 1, 1])
    with unfused():
        for evaluator, kept in ((model, True), (twice, False)):
            network = evaluator.network
            forward = network.forward(network.values, np.ascontiguousarray(x.transpose(1, 0, 2)), keep_slopes=True)
            assert (forward.records[network.graph.order[0]].slope is not None) == kept
        plain = BPTT(twice).gradients(x, y)
    fused = BPTT(twice).gradients(x, y)
    for name, value in plain.items():
        np.testing.assert_allclose(fused[name], value, rtol=1e-12, atol=1e-14)
    assert np.abs(plain["hidden.input.weight"]).max() > 0
