"""EventProp: its gradient becomes that of neurons in continuous time as the time step becomes small; and its limits.

Oracles: the derivative of a first spike in closed form; central differences of a program that goes from event to event
(``event_simulation``); BPTT, where nothing spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from credit_cases import data, distance, stack
from event_simulation import Circuit

from neko_rules import ALIF, BPTT, LIF, Evaluator, EventProp, LearningRule, Network
from neko_rules.errors import IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.layers.cell import Cell
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.rate import LeakyReadoutCell
from neko_rules.regularizers import FiringRate

INPUTS, HIDDEN, OUTPUTS, DURATION = 3, 3, 2, 0.03
FREE = 1e-9
"""A slowest crossing that cuts off nothing."""

CASES: dict[str, dict[str, Any]] = {
    "reset by subtraction": {},
    "reset to zero": {"reset": "zero"},
    "adaptive": {"beta": 0.3},
    "adaptive, reset to zero": {"beta": 0.3, "reset": "zero"},
    "outputs that jump": {"output_has_synapse": False},
}
"""What is special about a circuit."""

SEED = 5
"""Of weights with which no spike hardly comes about: at such a one the gradient has a pole."""


@cache
def reference(name: str) -> tuple[Circuit, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A circuit, its weights and the gradient in continuous time."""
    special, random = CASES[name], np.random.default_rng(SEED)
    spikes = [(float(t), k) for k in range(INPUTS) for t in random.uniform(1e-3, 0.8 * DURATION, 4)]
    scale = 100.0 if special.get("output_has_synapse", True) else 0.5
    weights = {
        "W": random.uniform(60, 160, (INPUTS, HIDDEN)),
        "V": random.normal(0, 40, (HIDDEN, HIDDEN)) * (1 - np.eye(HIDDEN)),
        "O": random.normal(0, scale, (HIDDEN, OUTPUTS)),
        "b": random.uniform(0, 5, HIDDEN),
    }
    circuit = Circuit(tuple(sorted(spikes)), DURATION, random.normal(0, 1, OUTPUTS), **special)
    return circuit, weights, circuit.gradients(weights)


def stepped(name: str, dt: float, **options: Any) -> tuple[dict[str, np.ndarray], float]:
    """EventProp's gradient with respect to the weights of continuous time, and the loss, in time steps."""
    circuit, weights, _ = reference(name)
    steps = round(DURATION / dt)
    x = np.zeros((1, steps, INPUTS))
    for time, source in circuit.spikes:
        x[0, round(time / dt), source] = 1.0
    given: dict[str, Any] = {
        "threshold": circuit.theta, "tau_membrane": circuit.tau_membrane, "tau_synapse": circuit.tau_synapse,
        "reset": circuit.reset, "dt": dt, "dtype": "float64", "inputs": INPUTS, "task_type": "regression",
        "readout_bias": False,
    }  # fmt: skip
    # A current acts on a membrane once per time step, and on the synapse of an output as well.
    scales = {"W": dt, "V": dt, "O": dt, "b": dt * dt}
    if circuit.output_has_synapse:
        given["output_cell"] = LeakyReadoutCell(circuit.tau_output, tau_synapse=circuit.tau_synapse)
    else:
        given["tau_readout"], scales["O"] = circuit.tau_output, 1.0
    adaptive = {"beta": circuit.beta, "tau_adaptation": circuit.tau_adaptation}
    network: Network = ALIF(HIDDEN, OUTPUTS, **adaptive, **given) if circuit.beta else LIF(HIDDEN, OUTPUTS, **given)
    names = {
        "W": "hidden.input.weight", "V": "hidden.recurrent.weight", "O": "readout.input.weight", "b": "hidden.bias",
    }  # fmt: skip
    network.set_parameters({names[key]: scales[key] * value for key, value in weights.items()})
    model, wanted = Evaluator(network, loss="mean_squared_error"), np.tile(circuit.wanted, (1, steps, 1))
    found = EventProp(model, slowest_crossing=FREE, **options).gradients(x, wanted)
    return {key: scales[key] * found[names[key]] for key in weights}, model.evaluate(x, wanted)["loss"]


@pytest.mark.parametrize("name", list(CASES))
def test_the_gradient_becomes_that_of_exact_spike_times(name: str) -> None:
    circuit, weights, exact = reference(name)
    (coarse, _), (fine, loss) = stepped(name, 4e-5), stepped(name, 5e-6)
    assert loss == pytest.approx(circuit.loss(weights), rel=5e-3)
    assert circuit.counted[-1] >= 6, "too few spikes to prove anything"
    assert distance(fine, exact) < 0.01
    # An eighth of the time step, an eighth of the error.
    assert distance(fine, exact) < 0.2 * distance(coarse, exact)


def without_the_reset(jacobians: Jacobians, *arguments: Any) -> Any:
    return {entry: value for entry, value in EVALUATE(jacobians, *arguments).items() if entry[0] != "r"}


EVALUATE = Jacobians.evaluate


@pytest.mark.parametrize(
    ("name", "place", "fault"),
    [
        ("reset to zero", "layers.jacobians.Jacobians.evaluate", without_the_reset),
        ("outputs that jump", "credit.adjoint._with_earlier", lambda nx, history: history),
    ],
)
def test_a_part_that_is_left_out_is_seen(name: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what a reset adds, or the mean about the jump of an output, no time step is small enough."""
    exact = reference(name)[2]
    with unfused():
        assert distance(stepped(name, 1e-5)[0], exact) < 0.02
        monkeypatch.setattr(f"neko_rules.{place}", fault)
        assert distance(stepped(name, 1e-5)[0], exact) > 0.1


def rate(current: float) -> tuple[float, float]:
    """t* = τ ln(Iτ/(Iτ - θ)): when a neuron at rest fires first under a constant current; and the derivative."""
    tau, theta = 20e-3, 1.0
    driven = current * tau
    return tau * np.log(driven / (driven - theta)), tau * (1 / current - tau / (driven - theta))


@pytest.mark.parametrize(("dt", "tolerance"), [(1e-4, 2e-2), (1e-5, 2e-3)])
def test_the_first_spike_in_closed_form(dt: float, tolerance: float) -> None:
    currents, duration = np.array([80.0, 104.0]), 0.06
    steps = round(duration / dt)
    network = LIF(
        2, 2, inputs=1, dt=dt, dtype="float64", recurrent=False, output_cell={"name": "lif", "tau_membrane": 20e-3}
    )  # fmt: skip
    still = {"hidden.input.weight": np.zeros((1, 2)), "readout.input.weight": np.zeros((2, 2))}
    network.set_parameters({**still, "readout.bias": currents * dt})
    model = Evaluator(network, loss="first_spike_squared_error")
    # The output of the class should fire at once, the other at the end: E = Σ ((t - t*)/T)².
    found = EventProp(model, slowest_crossing=FREE).gradients(np.zeros((1, steps, 1)), np.array([0]))
    times, derivatives = rate(currents)
    wanted = 2 * (times - np.array([0.0, duration])) / duration**2 * derivatives
    np.testing.assert_allclose(found["readout.bias"] * dt, wanted, rtol=tolerance)
    by_surrogate = BPTT(model).gradients(np.zeros((1, steps, 1)), np.array([0]))["readout.bias"] * dt
    assert np.abs(by_surrogate / wanted).max() < 0.1, "the comparison would prove nothing"


def test_smooth_networks_have_the_gradient_of_bptt() -> None:
    model = Evaluator(stack("tanh", "relu")("numpy"))
    x, y = data()
    assert distance(EventProp(model).gradients(x, y), BPTT(model).gradients(x, y)) < 1e-14


def test_a_reset_is_never_detached() -> None:
    x, y = data()
    rules = [EventProp(Evaluator(stack(LIFCell(detach_reset=each, threshold=0.6))("numpy"))) for each in (False, True)]
    first, second = (rule.gradients(x, y) for rule in rules)
    assert distance(first, second) < 1e-14
    none = EventProp(Evaluator(stack(LIFCell(reset="none", threshold=0.6))("numpy"))).gradients(x, y)
    assert distance(none, first) > 1e-2


def test_spikes_that_follow_each_other_closely_have_gradients_that_stay() -> None:
    """What a spike does to its neuron if it comes a step later is small, whatever another spike does just then."""
    network = LIF(64, 4, inputs=80, recurrent=False, dtype="float64", tau_synapse=5e-3, seed=0)
    x = (np.random.default_rng(0).random((16, 200, 80)) < 0.05).astype(float)
    model = Evaluator(network)
    z = model.trajectory(x).z("hidden")
    assert z.mean() > 0.1
    assert (z[1:] * z[:-1]).mean() > 0.01, "few spikes follow each other at once: this would prove nothing"
    found, wanted = (rule(model).gradients(x, np.arange(16) % 4)["hidden.input.weight"] for rule in (EventProp, BPTT))
    assert np.linalg.norm(found) < np.linalg.norm(wanted)


def test_a_surrogate_has_no_part_in_it() -> None:
    x, y = data()
    found = [EventProp(Evaluator(stack(LIFCell(surrogate=name))("numpy"))) for name in ("triangular", "fast_sigmoid")]
    assert distance(*(rule.gradients(x, y) for rule in found)) == 0.0


def test_the_slowest_crossing_bounds_a_gradient() -> None:
    model, (x, y) = Evaluator(stack(LIFCell(tau_synapse=5e-3))("numpy")), data()

    def largest(slowest: float) -> float:
        found = EventProp(model, slowest_crossing=slowest).gradients(x, y)
        return float(np.abs(found["hidden.input.weight"]).max())

    assert largest(1e5) < 0.1 * largest(1e-6)


@pytest.mark.parametrize("options", [{}, {"window": 5}], ids=["at the end", "windows"])
def test_penalties_on_rates_have_the_gradient_of_bptt(options: dict[str, Any]) -> None:
    model, (x, y) = Evaluator(stack(LIFCell(threshold=[0.5] * 6, learnable="threshold"), "alif")("numpy")), data()
    penalty = FiringRate(target=20.0, strength=10.0)

    def of_penalty(rule: type[LearningRule]) -> dict[str, np.ndarray]:
        plain, penalised = (rule(model, regularizers=each, **options).gradients(x, y) for each in ([], [penalty]))
        return {key: penalised[key] - plain[key] for key in plain if not key.startswith("readout")}

    assert distance(of_penalty(EventProp), of_penalty(BPTT)) < 1e-9


def test_a_penalty_wakes_a_silent_neuron() -> None:
    network = LIF(6, 2, inputs=4, dtype="float64", threshold=1.5, recurrent=False)
    network.set_parameters({"hidden.input.weight": np.full((4, 6), 0.01)})
    model, x, y = Evaluator(network, metrics=["firing_rate"]), np.ones((3, 20, 4)), np.array([0, 1, 0])
    assert model.evaluate(x, y)["firing_rate"] == 0.0
    assert np.abs(EventProp(model).gradients(x, y)["hidden.input.weight"]).max() == 0.0
    waking = EventProp(model, regularizers=[FiringRate(target=50.0, strength=1.0)])
    for _ in range(200):
        waking.step(x, y)
    assert model.evaluate(x, y)["firing_rate"] > 10.0


def test_the_order_of_spikes_is_learned() -> None:
    """Which of two inputs comes first, told by which output fires first: a matter of times alone."""
    random = np.random.default_rng(3)
    early, late = random.integers(2, 8, 128), random.integers(12, 20, 128)
    y, x = random.integers(0, 2, 128), np.zeros((128, 40, 2))
    x[np.arange(128), early, y] = 1.0
    x[np.arange(128), late, 1 - y] = 1.0
    spiking = {"name": "lif", "tau_synapse": 5e-3}
    network = LIF(30, 2, inputs=2, tau_synapse=5e-3, output_cell=spiking, recurrent=False, seed=1)
    # So strong that all outputs fire: one that does not has no time to move.
    network.set_parameters({name: 4.0 * value for name, value in network.parameters.items()})
    model = Evaluator(network, loss="first_spike_crossentropy", metrics=["accuracy"])
    rule = EventProp(model, optimizer={"name": "adam", "learning_rate": 1e-2}, clipping={"name": "norm", "limit": 1.0})
    assert model.evaluate(x, y)["accuracy"] < 0.6
    for _ in range(100):
        rule.step(x, y)
    assert model.evaluate(x, y)["accuracy"] == 1.0


@dataclass(frozen=True)
class Impulsive(LIFCell):
    """One that fires within its update."""

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": p.alpha * s.v + current - 0.1 * nx.spike(s.v - p.theta)}


@dataclass(frozen=True)
class Graded(LIFCell):
    """One that sends how far it is above its threshold."""

    spiking = False

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.spike(s.v - p.theta) + 0.1 * s.v


@dataclass(frozen=True)
class Twofold(LIFCell):
    """One of two thresholds."""

    spiking = False

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return 0.5 * nx.spike(s.v - p.theta) + 0.5 * nx.spike(s.v - 2 * p.theta)


@pytest.mark.parametrize("cell", [Impulsive(), Graded(), Twofold()], ids=lambda cell: type(cell).__name__)
def test_neurons_whose_spikes_have_no_time_are_refused(cell: Cell) -> None:
    with pytest.raises(IncompatibleError, match=r"the time of a spike can be moved where .* use BPTT"):
        EventProp(Evaluator(stack(cell)("numpy")))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temporal": "neuron"}, "known from all that follows it"),
        ({"temporal": "full", "trace": "sparse_1"}, "known from all that follows it"),
        ({"temporal": "full", "evaluation": "traces"}, "known backward in time"),
        ({"temporal": "full", "online": True}, "known only at the end of a sequence"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(IncompatibleError, match=reason):
        LearningRule(Evaluator(stack("lif")("numpy")), spike_derivative="spike_time", **options)


def test_through_fixed_random_weights_it_is_a_rule_without_a_name() -> None:
    model, (x, y) = Evaluator(stack("lif", "lif")("numpy")), data()
    found = LearningRule(model, temporal="full", spatial="random", spike_derivative="spike_time").gradients(x, y)
    assert distance(found, EventProp(model).gradients(x, y)) > 1e-2


def test_losses_of_counts_are_refused() -> None:
    spiking = LIF(8, 2, output_cell={"name": "lif", "tau_synapse": 5e-3})
    for loss in ("ce_count", "ce_rate", "categorical_crossentropy"):
        with pytest.raises(IncompatibleError, match="does not change with the times"):
            EventProp(Evaluator(spiking, loss))
    for loss in ("first_spike_crossentropy", "membrane_crossentropy"):
        EventProp(Evaluator(spiking, loss))
