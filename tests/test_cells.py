"""Cells: closed-form trajectories, resets and refractory periods, per-neuron constants, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import numpy as np
import pytest
from cell_cases import DT, VARIANTS, noise, step, trajectories_on, trajectory

from neko_rules.backend import get_backend, is_installed
from neko_rules.errors import ArgumentError
from neko_rules.layers.cell import CELLS, Cell, backend_constants, decay
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell

SPIKING = [name for name, cell in VARIANTS.items() if cell.spiking]
TAU = 20e-3
ALPHA = math.exp(-DT / TAU)


def constant(value: float, steps: int, size: int = 1) -> np.ndarray:
    return np.full((steps, 1, size), value)


def spike_times(found: dict[str, np.ndarray], neuron: int = 0) -> np.ndarray:
    return np.flatnonzero(found["z"][:, 0, neuron])


# Closed forms.


def test_lif_below_threshold_rises_geometrically() -> None:
    current, steps = 0.04, 60
    found = trajectory(LIFCell(), constant(current, steps))
    t = np.arange(steps)
    np.testing.assert_allclose(found["v"][:, 0, 0], current * (1 - ALPHA ** (t + 1)) / (1 - ALPHA), rtol=1e-12)
    assert not found["z"].any()


def test_lif_first_spike_is_where_the_closed_form_crosses_the_threshold() -> None:
    current = 0.1
    found = trajectory(LIFCell(), constant(current, 40))
    # I (1 - α^{n}) / (1 - α) > θ for the first time at n = ⌊log(1 - θ (1 - α) / I) / log α⌋ + 1 steps.
    steps = math.floor(math.log(1 - (1 - ALPHA) / current) / math.log(ALPHA)) + 1
    assert spike_times(found)[0] == steps - 1


@pytest.mark.parametrize(("current", "steps"), [(0.25, 41), (0.375, 50), (0.75, 33)])
def test_if_neuron_spikes_once_per_threshold_of_charge(current: float, steps: int) -> None:
    """With reset by subtraction charge is conserved: v_T + θ (spikes before T) = T I, and the sums here are exact."""
    found = trajectory(IFCell(), constant(current, steps))
    before_last = found["z"][:-1].sum()
    assert found["v"][-1, 0, 0] == steps * current - before_last
    # The strict threshold spikes at the step after charge n has been reached exactly, hence the ceiling less one.
    assert found["z"].sum() == math.ceil(steps * current) - 1


def test_membrane_equals_the_sum_of_its_decayed_inputs_and_resets() -> None:
    current = noise(40, 2, 3)
    found = trajectory(LIFCell(), current)
    assert 0 < found["z"].mean() < 1
    fed = current.copy()
    fed[1:] -= found["z"][:-1]
    for t in range(40):
        weights = ALPHA ** (t - np.arange(t + 1))
        np.testing.assert_allclose(found["v"][t], np.einsum("s,sbn->bn", weights, fed[: t + 1]), atol=1e-12)


def test_adaptation_is_the_sum_of_decayed_spikes_up_to_the_step_before() -> None:
    cell = ALIFCell(beta=0.3, tau_adaptation=50e-3)
    found = trajectory(cell, noise(60, 1, 2, scale=1.5))
    rho = math.exp(-DT / 50e-3)
    assert found["z"].sum() > 5
    for t in range(60):
        expected = sum(rho ** (t - 1 - s) * found["z"][s] for s in range(t))
        np.testing.assert_allclose(found["a"][t], expected + np.zeros((1, 2)), atol=1e-12)


def test_alif_threshold_after_k_spikes_in_a_row() -> None:
    """a = (1 - ρ^k)/(1 - ρ) after k spikes in k steps; the neuron fires exactly while v exceeds θ + β a."""
    rho, beta, theta, k = 0.9, 0.5, 1.0, 6
    cell = ALIFCell(adaptation_decay=rho, beta=beta, threshold=theta, membrane_decay=0.0, reset="none")
    huge = trajectory(cell, constant(1e3, k + 1))
    adapted = (1 - rho**k) / (1 - rho)
    assert huge["z"][:k].all()
    assert huge["a"][k, 0, 0] == pytest.approx(adapted, rel=1e-12)
    for excess, fires in [(-1e-9, 0.0), (1e-9, 1.0)]:
        current = constant(1e3, k + 1)
        current[k] = theta + beta * adapted + excess
        assert trajectory(cell, current)["z"][k, 0, 0] == fires


def test_alif_fires_ever_more_slowly_under_constant_current() -> None:
    intervals = np.diff(spike_times(trajectory(ALIFCell(beta=0.2), constant(0.3, 400))))
    plain = np.diff(spike_times(trajectory(LIFCell(), constant(0.3, 400))))
    assert intervals[0] < intervals[-1]
    assert plain.max() - plain.min() <= 1


def test_rate_units_follow_their_equations() -> None:
    current, kappa = noise(20, 2, 3), math.exp(-DT / TAU)
    filtered = np.array([sum(kappa ** (t - s) * current[s] for s in range(t + 1)) for t in range(20)])
    leaky = {"tau_membrane": TAU}
    np.testing.assert_allclose(trajectory(LeakyReadoutCell(), current)["z"], filtered, atol=1e-12)
    np.testing.assert_allclose(trajectory(TanhCell(**leaky), current)["z"], np.tanh(filtered), atol=1e-12)
    np.testing.assert_allclose(trajectory(ReLUCell(**leaky), current)["z"], np.maximum(filtered, 0), atol=1e-12)
    np.testing.assert_allclose(trajectory(TanhCell(), current)["z"], np.tanh(current), atol=0)


# Threshold, reset, refractory period.


@pytest.mark.parametrize("cell", [IFCell(), LIFCell(), ALIFCell(), LIFCell(threshold=0.25)])
def test_the_threshold_is_strict(cell: LIFCell) -> None:
    theta = float(cell.threshold)  # type: ignore[arg-type]
    at = trajectory(cell, constant(theta, 1))
    above = trajectory(cell, constant(np.nextafter(theta, 2), 1))
    assert at["z"][0, 0, 0] == 0
    assert above["z"][0, 0, 0] == 1


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    ("reset", "after"), [("subtract", 0.9 * 2.5 - 1.0 + 0.125), ("zero", 0.125), ("none", 0.9 * 2.5 + 0.125)]
)
def test_membrane_in_the_step_after_a_spike(reset: str, after: float, detach: bool) -> None:
    cell = LIFCell(reset=reset, membrane_decay=0.9, detach_reset=detach)
    found = trajectory(cell, np.array([2.5, 0.125]).reshape(2, 1, 1))
    assert found["z"][0, 0, 0] == 1
    assert found["v"][1, 0, 0] == pytest.approx(after, rel=1e-15)


@pytest.mark.parametrize("cell", [IFCell, LIFCell, ALIFCell])
@pytest.mark.parametrize("silent", [0, 1, 2, 5])
def test_refractory_period_sets_the_interval_between_spikes(cell: type[IFCell], silent: int) -> None:
    """Silence in the n steps after a spike, so under a huge current every interval is n + 1 steps."""
    found = trajectory(cell(refractory_period=silent * DT), constant(1e6, 30))
    assert spike_times(found)[0] == 0
    assert set(np.diff(spike_times(found))) == {silent + 1}


def test_refractory_period_per_neuron_and_by_time_step() -> None:
    cell = LIFCell(refractory_period=[0.0, 1e-3, 4e-3])
    for dt, silent in [(1e-3, (0, 1, 4)), (0.5e-3, (0, 2, 8))]:
        found = trajectory(cell, constant(1e6, 40, size=3), dt=dt)
        for neuron, steps in enumerate(silent):
            assert set(np.diff(spike_times(found, neuron))) == {steps + 1}


def test_a_neuron_integrates_while_it_is_refractory() -> None:
    found = trajectory(IFCell(refractory_period=3e-3), np.array([1.5, 2.0, 0.0, 0.0, 0.0]).reshape(5, 1, 1))
    assert found["z"].ravel().tolist() == [1, 0, 0, 0, 1]
    assert found["v"].ravel().tolist() == [1.5, 2.5, 2.5, 2.5, 2.5]


# Per-neuron constants and decays.


def test_mixed_layer_equals_two_populations() -> None:
    mixed = ALIFCell(beta=[0.0, 0.0, 0.4, 0.4], tau_membrane=[10e-3, 10e-3, 30e-3, 30e-3])
    current = noise(50, 2, 4)
    found = trajectory(mixed, current)
    lif = trajectory(LIFCell(tau_membrane=10e-3), current[..., :2])
    alif = trajectory(ALIFCell(beta=0.4, tau_membrane=30e-3), current[..., 2:])
    for name in ("v", "z"):
        np.testing.assert_array_equal(found[name], np.concatenate([lif[name], alif[name]], axis=-1))
    assert found["z"][..., :2].any()
    assert found["z"][..., 2:].any()
    assert not np.array_equal(trajectory(LIFCell(tau_membrane=30e-3), current[..., 2:])["z"], alif["z"])


@pytest.mark.parametrize("name", [name for name in VARIANTS if "per neuron" not in name and "decays" not in name])
def test_a_number_means_the_same_for_every_neuron(name: str) -> None:
    cell = VARIANTS[name]
    numbers = {
        f.name: [value] * 3
        for f in dataclasses.fields(cell)
        if isinstance(value := getattr(cell, f.name), float) and not isinstance(value, bool)
    }
    assert numbers
    spelled_out = dataclasses.replace(cell, **numbers)
    for key, value in trajectory(cell, noise(30, 2, 3)).items():
        np.testing.assert_array_equal(value, trajectory(spelled_out, noise(30, 2, 3))[key])


@pytest.mark.parametrize("cell", [LIFCell, ALIFCell, TanhCell, ReLUCell, LeakyReadoutCell])
def test_a_decay_may_stand_in_place_of_a_time_constant(cell: type[Cell]) -> None:
    by_time = trajectory(cell(tau_membrane=TAU), noise(20, 1, 2))  # type: ignore[call-arg]
    by_decay = trajectory(cell(membrane_decay=ALPHA), noise(20, 1, 2))  # type: ignore[call-arg]
    for name, value in by_time.items():
        np.testing.assert_array_equal(value, by_decay[name])


def test_decay_of_a_time_constant() -> None:
    assert decay(TAU, None, DT) == math.exp(-0.05)
    assert decay(TAU, None, 2 * DT) == pytest.approx(decay(TAU, None, DT) ** 2, rel=1e-15)
    assert decay((TAU, 0.0), None, DT) == (math.exp(-0.05), 0.0)
    assert decay(0.0, None, DT) == 0.0
    assert decay(TAU, (0.5, 1.0), DT) == (0.5, 1.0)


# The battery over every cell.


def test_same_trajectory_on_every_backend(backend: str) -> None:
    current = noise(12, 2, 3, scale=1.2)
    for label, found in trajectories_on(backend, VARIANTS, current).items():
        reference = trajectory(VARIANTS[label], current)
        assert set(found) == set(reference)
        for key, value in reference.items():
            np.testing.assert_allclose(found[key], value, atol=1e-12, rtol=0, err_msg=label)


@pytest.mark.parametrize("name", SPIKING)
def test_spikes_are_zero_or_one_and_the_case_is_alive(name: str) -> None:
    z = trajectory(VARIANTS[name], noise(12, 2, 3, scale=1.2))["z"]
    assert set(np.unique(z)) == {0.0, 1.0}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_neurons_and_examples_do_not_touch_each_other(name: str) -> None:
    cell, current = VARIANTS[name], noise(10, 3, 3)
    found = trajectory(cell, current)
    for example in range(3):
        alone = trajectory(cell, current[:, example : example + 1])
        for key, value in alone.items():
            np.testing.assert_array_equal(value[:, 0], found[key][:, example])
    other = current.copy()
    other[..., 1] += 1.0
    for key, value in trajectory(cell, other).items():
        np.testing.assert_array_equal(value[..., [0, 2]], found[key][..., [0, 2]])


def test_one_neuron_one_example_one_step(backend: str) -> None:
    cells = {name: CELLS[name]() for name in CELLS}
    for name, found in trajectories_on(backend, cells, np.full((1, 1, 1), 1.5)).items():
        expected = {"tanh": math.tanh(1.5), "relu": 1.5, "leaky_readout": 1.5, "delayed": 0.0}.get(name, 1.0)
        assert found["v"].shape == found["z"].shape == (1, 1, 1)
        apart = cells[name].constants(DT).get("membrane_apart")
        if name == "delayed":
            assert found["v"].item() == 0
            continue
        v = 1.5 if apart is None else math.floor(1.5 / apart + 0.5) * apart  # a membrane of few bits
        assert found["v"].item() == pytest.approx(v, rel=0 if apart is None else 1e-15)
        assert found["z"].item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("mutable", ["numpy", "torch"])
def test_inputs_are_not_changed(name: str, mutable: str) -> None:
    if not is_installed(mutable):
        pytest.skip(f"{mutable} is not installed")
    nx, cell = get_backend(mutable), VARIANTS[name]
    given = {
        key: nx.asarray(np.abs(noise(2, 3, seed=i))) for i, key in enumerate((*cell.state_names(), "z", "current"))
    }
    before = {key: nx.to_numpy(value) for key, value in given.items()}
    step(cell, {key: given[key] for key in cell.state_names()}, given["z"], given["current"], backend=mutable)
    for key, value in before.items():
        np.testing.assert_array_equal(nx.to_numpy(given[key]), value)


# Every argument does something.

OTHER: dict[str, Any] = {
    "surrogate": "gaussian",
    "threshold": 0.7,
    "detach_reset": False,
    "reset": "none",
    "refractory_period": 2e-3,
    "tau_membrane": 5e-3,
    "membrane_decay": 0.5,
    "tau_synapse": 5e-3,
    "synapse_decay": 0.5,
    "tau_adaptation": 10e-3,
    "adaptation_decay": 0.5,
    "beta": 0.9,
    "cell": "alif",
    "bits": 3,
    "bound": 0.5,
    "state": "a",
    "steps": 2.5,
    "longest": 3,
    "spread": 2,
}
KNOBS = [(name, key) for name in CELLS for key in inspect.signature(CELLS[name]).parameters]


@pytest.mark.parametrize(("name", "key"), KNOBS)
def test_every_argument_changes_the_trajectory_or_the_derivatives(name: str, key: str) -> None:
    cell = CELLS[name](cell="alif") if key == "state" else CELLS[name]()
    changed = dataclasses.replace(cell, **{key: list(cell.trainable) if key == "learnable" else OTHER[key]})
    assert _fingerprint(changed) != _fingerprint(cell)


def _fingerprint(cell: Cell) -> tuple[Any, ...]:
    """A trajectory and the derivatives along it, as bytes."""
    nx, found = get_backend("numpy"), trajectory(cell, noise(30, 2, 3, scale=1.2))
    shifted = {f"previous_{key}": np.concatenate([np.zeros_like(v[:1]), v[:-1]]) for key, v in found.items()}
    constants = backend_constants(nx, cell, 3, DT, "float64", "test")
    history = {**found, **shifted, "current": noise(30, 2, 3, scale=1.2)}
    entries = Jacobians.of(cell, DT).evaluate(nx, cell, constants, history.__getitem__)
    parts = {**found, **{"".join(entry): value for entry, value in entries.items()}}
    return tuple(sorted((key, np.asarray(value, dtype=np.float64).tobytes()) for key, value in parts.items()))


# What is refused.


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("lif", {"threshold": 0.0}, "threshold must be a finite number above 0"),
        ("lif", {"threshold": [1.0, -1.0]}, "threshold[1]"),
        ("lif", {"threshold": "high"}, "high"),
        ("lif", {"tau_membrane": -1e-3}, "tau_membrane"),
        ("lif", {"tau_membrane": math.nan}, "tau_membrane"),
        ("lif", {"membrane_decay": 1.5}, "membrane_decay"),
        ("lif", {"refractory_period": -1.0}, "refractory_period"),
        ("lif", {"refractory_period": math.inf}, "refractory_period"),
        ("lif", {"reset": "substract"}, "did you mean 'subtract'?"),
        ("lif", {"detach_reset": "yes"}, "detach_reset must be true or false (received: 'yes')"),
        ("lif", {"surrogate": "triangle"}, "did you mean 'triangular'?"),
        ("lif", {"treshold": 1.0}, "did you mean 'threshold'?"),
        ("lif", {"beta": 0.1}, "lif has no argument 'beta'"),
        ("alif", {"beta": -0.1}, "beta"),
        ("alif", {"beta": []}, "one number per neuron"),
        ("alif", {"adaptation_decay": -0.1}, "adaptation_decay"),
        ("if", {"tau_membrane": 1.0}, "has no argument 'tau_membrane'"),
        ("tanh", {"membrane_decay": [0.5, 2.0]}, "membrane_decay[1]"),
        ("tanh", {"surrogate": "gaussian"}, "tanh has no argument 'surrogate'"),
        ("aliff", {}, "did you mean 'alif'?"),
        ("lif", {"tau_membrane": 5e-3, "membrane_decay": 0.9}, "membrane_decay stands in the place of tau_membrane"),
        ("alif", {"tau_adaptation": 0.5, "adaptation_decay": [0.9]}, "which would have no effect"),
        ("leaky_readout", {"tau_synapse": 5e-3, "synapse_decay": 0.0}, "give one of them"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        CELLS.resolve({"name": name, **arguments})
    sentence = str(refusal.value)
    assert says in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


def test_a_time_constant_at_its_default_may_stand_beside_the_decay() -> None:
    """The configuration of a run has every default written out."""
    written = LIFCell(tau_membrane=LIFCell().tau_membrane, membrane_decay=0.9, tau_synapse=0.0, synapse_decay=0.5)
    assert written == LIFCell(membrane_decay=0.9, synapse_decay=0.5)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            LIFCell(threshold=[1.0, 2.0]),
            "threshold of hidden needs one value, or one per neuron (3) (received: 2 values)",
        ),
        (LIFCell(tau_membrane=[TAU] * 4), "tau_membrane of hidden needs one value"),
        (LIFCell(membrane_decay=[0.5] * 2), "membrane_decay of hidden"),
        (ALIFCell(tau_adaptation=[TAU] * 2), "tau_adaptation of hidden"),
        (ALIFCell(beta=[0.1]), "beta of hidden needs one value, or one per neuron (3) (received: 1 values)"),
        (LIFCell(refractory_period=[DT] * 5), "refractory_period of hidden"),
    ],
)
def test_a_wrong_number_of_values_names_the_argument(cell: Cell, says: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        backend_constants(get_backend("numpy"), cell, 3, DT, "float64", "hidden")
    assert says in str(refusal.value)


def test_every_registered_cell_is_described_and_reached_by_its_class_name() -> None:
    for name, line in CELLS.describe():
        assert len(line) > 20
        assert CELLS.canonical(CELLS[name].__name__) == name  # type: ignore[attr-defined]
