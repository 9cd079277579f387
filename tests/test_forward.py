"""Forward pass: against loops over single neurons written from the equations on every backend, and facts about time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, RNN, Evaluator, Layer, Network, Stack
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell

DT = 1e-3
STRONG = {"name": "scaled_normal", "gain": 2.0}


def noise(batch: int = 2, steps: int = 15, features: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, steps, features))


def with_biases(network: Network, seed: int = 1) -> Network:
    """First weights, and biases that are not zero."""
    rng = np.random.default_rng(seed)
    network.set_parameters(
        {n: rng.normal(0, 0.3, v.shape) for n, v in network.parameters.items() if n.endswith("bias")}
    )
    return network


def histories(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """``population.state`` and ``population.z`` → [time, batch, neuron]."""
    recorded = Evaluator(network).trajectory(x)
    found = {f"{name}.{key}": v for name, record in recorded.records.items() for key, v in record.states.items()}
    return {**found, **{f"{name}.z": record.z for name, record in recorded.records.items()}}


# Two adaptive layers with recurrent weights and a leaky readout, neuron by neuron.

TAU, TAU_A, BETA, THETA, KAPPA = [20e-3, 5e-3, 10e-3, 8e-3], 50e-3, [0.0, 0.3, 0.5, 0.2], 0.7, 0.8


def deep(backend: str = "numpy", **options: Any) -> Network:
    first = ALIFCell(tau_membrane=TAU, tau_adaptation=TAU_A, beta=BETA, threshold=THETA)
    layers = [
        Layer(cell, size, initializer=STRONG, recurrent_initializer=STRONG) for cell, size in [(first, 4), ("alif", 3)]
    ]
    return with_biases(
        Stack(layers, 2, inputs=3, backend=backend, dtype="float64", readout_decay=KAPPA, seed=4, **options)
    )


def deep_by_loops(parameters: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """The equations of two ALIF layers and a readout over plain numbers, one neuron at a time."""
    batch, steps, _ = x.shape
    layers = [
        ("hidden0", 4, [math.exp(-DT / tau) for tau in TAU], [math.exp(-DT / TAU_A)] * 4, BETA, THETA),
        ("hidden1", 3, [math.exp(-DT / 20e-3)] * 3, [math.exp(-DT / 200e-3)] * 3, [0.1] * 3, 1.0),
    ]
    sizes = {"hidden0": 4, "hidden1": 3, "readout": 2}
    found = {f"{name}.{key}": np.zeros((steps, batch, sizes[name])) for name in sizes for key in ("v", "a", "z")}
    for b in range(batch):
        for t in range(steps):
            below = [float(value) for value in x[b, t]]
            for name, size, alpha, rho, beta, theta in layers:
                W, V, bias = (parameters[f"{name}.{part}"] for part in ("input.weight", "recurrent.weight", "bias"))
                v, a, z = (found[f"{name}.{key}"] for key in ("v", "a", "z"))
                for j in range(size):
                    current = bias[j] + sum(below[i] * W[i, j] for i in range(len(below)))
                    last = (v[t - 1, b, j], a[t - 1, b, j], z[t - 1, b, j]) if t else (0.0, 0.0, 0.0)
                    if t:
                        current += sum(z[t - 1, b, i] * V[i, j] for i in range(size) if i != j)
                    v[t, b, j] = alpha[j] * last[0] + current - theta * last[2]
                    a[t, b, j] = rho[j] * last[1] + last[2]
                    z[t, b, j] = 1.0 if v[t, b, j] > theta + beta[j] * a[t, b, j] else 0.0
                below = [z[t, b, j] for j in range(size)]
            y = found["readout.v"]
            for k in range(2):
                before = y[t - 1, b, k] if t else 0.0
                sent = sum(below[j] * parameters["readout.input.weight"][j, k] for j in range(3))
                y[t, b, k] = found["readout.z"][t, b, k] = KAPPA * before + sent + parameters["readout.bias"][k]
    del found["readout.a"]
    return found


def test_deep_adaptive_network_equals_loops_over_neurons(backend: str) -> None:
    network, x = deep(backend), noise()
    expected = deep_by_loops(network.parameters, x)
    found = histories(network, x)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12, rtol=0, err_msg=name)
    for name in ("hidden0", "hidden1"):
        assert 0.05 < expected[f"{name}.z"].mean() < 0.95


@pytest.mark.parametrize("name", ["hidden0.recurrent.weight", "hidden1.input.weight", "hidden0.bias", "readout.bias"])
def test_loops_notice_when_a_parameter_changes(name: str) -> None:
    network, x = deep(), noise()
    before = deep_by_loops(network.parameters, x)
    network.set_parameters({name: 0.5 * network.parameters[name]})
    assert not np.allclose(histories(network, x)["readout.z"], before["readout.z"])


# Populations that feed back to each other, stepped together.


def feedback_network(backend: str) -> Network:
    ends = [("input", "low", 0), ("low", "low", 1), ("low", "high", 0), ("high", "low", 1), ("high", "readout", 0)]
    ends += [("low", "readout", 0), ("input", "high", 1), ("low", "late", 1), ("late", "readout", 0)]
    network = Network(
        {
            "readout": {"cell": {"name": "leaky_readout", "membrane_decay": KAPPA}, "size": 2},
            "high": {"cell": LIFCell(reset="zero", threshold=0.5), "size": 4},
            "low": {"cell": {"name": "alif", "beta": 0.3}, "size": 5},
            "late": {"cell": "tanh", "size": 2, "bias": False},
        },
        [{"source": s, "target": t, "delay": d, "initializer": STRONG} for s, t, d in ends],
        "readout",
        inputs=3,
        backend=backend,
        dtype="float64",
    )
    return with_biases(network)


def feedback_by_loop(p: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """The same network as one loop over time, written out."""
    alpha, rho = math.exp(-DT / 20e-3), math.exp(-DT / 200e-3)
    off_diagonal = p["low.recurrent.weight"] * (1 - np.eye(5))
    batch = len(x)
    v_low, a, z_low = np.zeros((3, batch, 5))
    v_high, z_high = np.zeros((2, batch, 4))
    y, x_before = np.zeros((batch, 2)), np.zeros((batch, 3))
    keys = ("low.v", "low.a", "low.z", "high.v", "high.z", "late.v", "late.z", "readout.v", "readout.z")
    rows: list[tuple[np.ndarray, ...]] = []
    for x_now in x.transpose(1, 0, 2):
        into_low = x_now @ p["low.from_input.weight"] + z_low @ off_diagonal + z_high @ p["low.from_high.weight"]
        late = z_low @ p["late.from_low.weight"]
        v_low, a = alpha * v_low + into_low + p["low.bias"] - z_low, rho * a + z_low
        z_low = (v_low - 1 - 0.3 * a > 0).astype(float)
        into_high = z_low @ p["high.from_low.weight"] + x_before @ p["high.from_input.weight"] + p["high.bias"]
        v_high = alpha * v_high * (1 - z_high) + into_high
        z_high = (v_high > 0.5).astype(float)
        sent = [(z_high, "high"), (z_low, "low"), (np.tanh(late), "late")]
        y = KAPPA * y + sum(z @ p[f"readout.from_{name}.weight"] for z, name in sent) + p["readout.bias"]
        x_before = x_now
        rows.append((v_low, a, z_low, v_high, z_high, late, np.tanh(late), y, y))
    return {key: np.array([row[place] for row in rows]) for place, key in enumerate(keys)}


def test_feedback_and_skip_connections_equal_one_loop_over_time(backend: str) -> None:
    network, x = feedback_network(backend), noise(steps=20)
    assert network.graph.components == (("low", "high"), ("late",), ("readout",))
    expected = feedback_by_loop(network.parameters, x)
    found = histories(network, x)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12, rtol=0, err_msg=name)
    assert 0.05 < expected["low.z"].mean() < 0.95
    assert 0.05 < expected["high.z"].mean() < 0.95


# Facts about time and batch.


@pytest.mark.parametrize("make", [deep, feedback_network], ids=["deep", "feedback"])
def test_the_past_does_not_depend_on_the_future(make: Any) -> None:
    network, x = make("numpy"), noise(steps=20)
    whole, other = histories(network, x), x.copy()
    other[:, 12:] += 1.0
    short, changed = histories(network, x[:, :12]), histories(network, other)
    for name, value in whole.items():
        np.testing.assert_allclose(short[name], value[:12], atol=1e-12)
        np.testing.assert_allclose(changed[name][:12], value[:12], atol=1e-12)
    assert not np.allclose(changed["readout.z"][12], whole["readout.z"][12])


@pytest.mark.parametrize("make", [deep, feedback_network], ids=["deep", "feedback"])
def test_each_example_alone_is_as_in_the_batch(make: Any) -> None:
    network, x = make("numpy"), noise(batch=4)
    together = histories(network, x)
    for example in range(4):
        for name, value in histories(network, x[example : example + 1]).items():
            np.testing.assert_allclose(value[:, 0], together[name][:, example], atol=1e-12)


def test_silence_before_the_input_only_shifts_the_answer() -> None:
    network = ALIF(6, 2, inputs=3, bias=False, readout_bias=False, dtype="float64", initializer=STRONG)
    x = noise()
    late = np.concatenate([np.zeros((2, 5, 3)), x], axis=1)
    now, shifted = histories(network, x), histories(network, late)
    assert now["hidden.z"].any()
    for name, value in now.items():
        np.testing.assert_allclose(shifted[name][5:], value, atol=1e-12)
        assert not shifted[name][:5].any()


def test_what_a_delay_does() -> None:
    """A pulse arrives at once without delay, one step later with it."""
    for delay in (0, 1):
        network = Network(
            {"readout": {"cell": {"name": "leaky_readout", "membrane_decay": 0.0}, "size": 1}},
            [
                {
                    "source": "input",
                    "target": "readout",
                    "delay": delay,
                    "initializer": {"name": "constant", "value": 2.0},
                }
            ],
            "readout",
            inputs=1,
        )
        pulse = np.array([0, 1, 0, 0], "f4").reshape(1, 4, 1)
        assert Evaluator(network).predict(pulse).ravel().tolist() == ([0, 2, 0, 0] if delay == 0 else [0, 0, 2, 0])


def test_a_recurrent_weight_onto_oneself_counts_only_with_autapses() -> None:
    x = noise()
    for autapses in (False, True):
        network = RNN(4, 2, inputs=3, autapses=autapses, dtype="float64")
        before = histories(network, x)["hidden.z"]
        weight = network.parameters["hidden.recurrent.weight"]
        network.set_parameters({"hidden.recurrent.weight": weight + np.eye(4)})
        assert np.array_equal(histories(network, x)["hidden.z"], before) is not autapses


def test_a_population_that_receives_nothing_rests() -> None:
    network = Network({"alone": {"cell": "lif", "size": 2, "bias": False}}, [], "alone", inputs=1)
    assert (
        not Evaluator(network, loss="mse" if network.task_type == "regression" else None)
        .predict(np.ones((1, 3, 1)))
        .any()
    )


def test_one_neuron_one_step_one_example(backend: str) -> None:
    network = ALIF(1, 1, inputs=1, backend=backend, dtype="float64", readout_decay=0.5)
    network.set_parameters({"hidden.input.weight": [[3.0]], "readout.input.weight": [[0.25]], "readout.bias": [1.0]})
    found = histories(network, np.full((1, 1, 1), 0.5))
    scalars = {name: value.item() for name, value in found.items()}
    assert scalars == {"hidden.v": 1.5, "hidden.a": 0.0, "hidden.z": 1.0, "readout.v": 1.25, "readout.z": 1.25}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_histories_keep_the_type_of_the_network(dtype: str, backend: str) -> None:
    network = ALIF(3, 2, inputs=3, backend=backend, dtype=dtype, refractory_period=2e-3)
    for name, value in histories(network, noise(steps=3)).items():
        assert value.dtype == dtype, name
