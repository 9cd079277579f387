"""NIR: networks written as its graphs and read back, against the equations that its nodes stand for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from credit_cases import network_of

from neko_rules import ALIF, LIF, RNN, Convolution, EProp, Evaluator, Layer, Network, Stack, quantize
from neko_rules.cli import main
from neko_rules.errors import DataError, IncompatibleError, NekoError, NekoWarning
from neko_rules.exchange import from_nir, nir_library, to_nir

nir = pytest.importorskip("nir")

ZERO = {"reset": "zero"}
LIF_ZERO = {"name": "lif", **ZERO}
FIRST = Convolution((6, 6), filters=3, window=3, stride=2)
SECOND = Convolution(FIRST.places, filters=4, window=2, channels=3, padding=1)


def circuit() -> Network:
    """Two populations that feed back to each other, a skip connection, and an input that comes later."""
    ends = [("input", "low", 0), ("low", "low", 1), ("low", "high", 0), ("high", "low", 1), ("high", "readout", 0)]
    ends += [("low", "readout", 0), ("input", "high", 1)]
    populations = {"low": {"cell": LIF_ZERO, "size": 6}, "high": {"cell": LIF_ZERO, "size": 5}}
    return Network(
        {**populations, "readout": {"cell": "leaky_readout", "size": 3}},
        [{"source": s, "target": t, "delay": d} for s, t, d in ends],
        "readout",
        inputs=4,
        dtype="float64",
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    "recurrent": lambda: LIF(6, 2, inputs=3, dtype="float64", **ZERO),
    "two layers": lambda: LIF([6, 5], 2, inputs=3, dtype="float64", recurrent=False, **ZERO),
    "per neuron": lambda: LIF(
        3, 2, inputs=3, dtype="float64", membrane_decay=[0.9, 0.8, 0.95], threshold=[0.5, 1, 0.7], tau_readout=0.01,
        **ZERO,
    ),
    "synaptic currents": lambda: LIF(
        5, 2, inputs=3, dtype="float64", tau_synapse=5e-3,
        output_cell={"name": "leaky_readout", "tau_synapse": 3e-3}, **ZERO,
    ),
    "without leak": lambda: Stack([Layer({"name": "if", **ZERO}, 6)], 2, inputs=3, dtype="float64"),
    "integrating outputs": lambda: LIF(6, 2, inputs=3, dtype="float64", readout_decay=1.0, **ZERO),
    "spiking outputs": lambda: LIF(6, 2, inputs=3, dtype="float64", output_cell=LIF_ZERO, **ZERO),
    "sparse": lambda: LIF(
        8, 2, inputs=3, dtype="float64", connectivity=0.6, recurrent_connectivity=0.3, **ZERO
    ),
    "learned constants": lambda: LIF(
        4, 2, inputs=3, dtype="float64", learnable=["membrane_decay", "threshold"], **ZERO
    ),
    "another step": lambda: LIF(6, 2, inputs=3, dtype="float64", dt=4e-3, **ZERO),
    "convolutions": lambda: Stack(
        [Layer(LIF_ZERO, connectivity=each, recurrent=False) for each in (FIRST, SECOND)], 2, inputs=36, dtype="float64"
    ),
    "a convolution, and among themselves": lambda: Stack(
        [Layer(LIF_ZERO, connectivity=FIRST)], 2, inputs=36, dtype="float64", seed=1
    ),
    "convolved among themselves": lambda: Stack(
        [Layer(LIF_ZERO, connectivity=FIRST, recurrent_connectivity=Convolution(FIRST.places, 3, 3, 1, 3, 1))], 2,
        inputs=36, dtype="float64", seed=1,
    ),
    "circuit": circuit,
}  # fmt: skip


def alive(network: Network, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases with which some neurons fire, inputs, and the outputs for them."""
    rng = np.random.default_rng(seed)
    values = {k: 1.5 * v + 0.1 * rng.normal(size=v.shape) * k.endswith("bias") for k, v in network.parameters.items()}
    learned = {k: np.clip(v, 0.5, 0.97) for k, v in values.items() if k in network.learned}
    network.set_parameters({**values, **learned})
    x = 2 * rng.random((3, 20, network.inputs or 0))
    recorded = Evaluator(network).trajectory(x)
    assert any(0.01 < recorded.z(name).mean() < 0.99 for name in network.spiking)
    return x, Evaluator(network).predict(x)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_that_is_written_and_read_is_the_same(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    x, expected = alive(network)
    nir.write(tmp_path / "model.nir", to_nir(network))
    for backend in ("numpy", "torch"):
        found = from_nir(tmp_path / "model.nir", dt=network.dt, backend=backend, dtype="float64")
        np.testing.assert_allclose(Evaluator(found).predict(x), expected, rtol=1e-12, atol=1e-12)
    assert sorted(p.size for p in found.graph.populations.values()) == sorted(
        p.size for p in network.graph.populations.values()
    )
    y = np.zeros(3, int)
    assert np.isfinite(EProp(Evaluator(found)).step(x, y)["loss"])


@pytest.mark.parametrize("name", ["per neuron", "synaptic currents", "convolutions", "circuit"])
def test_for_simulators_that_take_euler_s_steps_it_is_another_graph_of_the_same(name: str) -> None:
    network = NETWORKS[name]()
    x, expected = alive(network)
    graph = to_nir(network, scheme="euler")
    found = from_nir(graph, dt=network.dt, scheme="euler", dtype="float64")
    np.testing.assert_allclose(Evaluator(found).predict(x), expected, rtol=1e-10, atol=1e-12)
    other = from_nir(graph, dt=network.dt, dtype="float64")
    assert np.abs(Evaluator(other).predict(x) - expected).max() > 1e-4


def test_euler_s_steps() -> None:
    """v ← v + dt/τ (v_leak - v + R I), as simulators write it, with a resistance of 1 as many of them take it to be."""
    network = LIF(5, 2, inputs=3, dtype="float64", recurrent=False, output_cell=LIF_ZERO, **ZERO)
    x, expected = alive(network)
    nodes = to_nir(network, scheme="euler").nodes
    found = []
    for example in x:
        v, w = np.zeros(5), np.zeros(2)
        for step in example:
            one, two = nodes["hidden"], nodes["readout"]
            given = nodes["hidden_input"]
            v = v + network.dt / one.tau * (one.v_leak - v + given.weight @ step + given.bias)
            z = v > one.v_threshold
            v = np.where(z, one.v_reset, v)
            given = nodes["readout_input"]
            w = w + network.dt / two.tau * (two.v_leak - w + given.weight @ z + given.bias)
            found.append(w > two.v_threshold)
            w = np.where(found[-1], two.v_reset, w)
    assert all(np.all(nodes[name].r == 1) for name in ("hidden", "readout"))
    assert np.array_equal(np.reshape(found, expected.shape), expected)


def test_convolutions_stay_convolutions() -> None:
    found = from_nir(to_nir(NETWORKS["convolutions"]()), dtype="float64")
    assert [c.connectivity for c in found.graph.connections if c.shares] == [FIRST, SECOND]


def solved(graph: Any, x: np.ndarray, dt: float, pieces: int = 60) -> np.ndarray:
    """One matrix and one node of neurons, NIR's equations by Runge and Kutta's method: what the neurons send.

    Currents are constant within a step of dt; at its end a neuron above its threshold fires and is reset, from where it
    begins, too.
    """
    (neurons,) = [n for n in graph.nodes.values() if hasattr(n, "r")]
    (weights,) = [n for n in graph.nodes.values() if hasattr(n, "weight")]
    kind = type(neurons).__name__

    def over_a_step(slope: Callable[[np.ndarray], np.ndarray], y: np.ndarray) -> np.ndarray:
        h = dt / pieces
        for _ in range(pieces):
            one = slope(y)
            two = slope(y + h / 2 * one)
            three = slope(y + h / 2 * two)
            y = y + h / 6 * (one + 2 * two + 2 * three + slope(y + h * three))
        return y

    v, i, found = getattr(neurons, "v_reset", 0.0) + 0 * neurons.r, 0 * neurons.r, []
    for step in x:
        current = weights.weight @ step + weights.bias
        if "Cuba" in kind:
            i = over_a_step(lambda i, given=current: (neurons.w_in * given - i) / neurons.tau_syn, i)
            current = i
        if kind in ("IF", "I"):
            v = over_a_step(lambda v, given=current: neurons.r * given, v)
        else:
            tau = neurons.tau_mem if "Cuba" in kind else neurons.tau
            v = over_a_step(lambda v, given=current, tau=tau: (neurons.v_leak - v + neurons.r * given) / tau, v)
        if not hasattr(neurons, "v_threshold"):
            found.append(v)
            continue
        fired = v > neurons.v_threshold
        v = np.where(fired, neurons.v_reset, v)
        found.append(fired.astype(float))
    return np.stack(found)


TAU, SYN, R = np.array([0.02, 0.007, 0.05]), np.array([0.004, 0.01, 0.002]), np.array([1.5, 3.0, 0.7])
THETA, LEAK = np.array([0.5, 0.8, 0.3]), np.array([0.1, -0.2, 0.05])
NODES: dict[str, Callable[[], Any]] = {
    "LIF": lambda: nir.LIF(tau=TAU, r=R, v_leak=LEAK, v_threshold=THETA, v_reset=np.array([0.0, -0.1, 0.1])),
    "IF": lambda: nir.IF(r=20 * R, v_threshold=THETA, v_reset=np.array([0.0, 0.0, 0.0])),
    "CubaLIF": lambda: nir.CubaLIF(
        tau_syn=SYN, tau_mem=TAU, r=R, v_leak=0 * R, v_threshold=THETA, v_reset=0 * R, w_in=np.array([2.0, 1.0, 3.0])
    ),
    "LI": lambda: nir.LI(tau=TAU, r=R, v_leak=LEAK),
    "I": lambda: nir.I(r=20 * R),
    "CubaLI": lambda: nir.CubaLI(tau_syn=SYN, tau_mem=TAU, r=R, v_leak=0 * R, w_in=np.array([2.0, 1.0, 3.0])),
}


@pytest.mark.parametrize("kind", list(NODES))
@pytest.mark.parametrize("dt", [1e-3, 3e-3])
def test_a_network_solves_the_equations_of_its_graph(kind: str, dt: float) -> None:
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(3, 4)), 0.3 * rng.normal(size=3)
    nodes = {"input": nir.Input(np.array([4])), "w": nir.Affine(weight, bias), "n": NODES[kind]()}
    graph = nir.NIRGraph({**nodes, "output": nir.Output(np.array([3]))}, [("input", "w"), ("w", "n"), ("n", "output")])
    x = 3 * rng.random((25, 4))
    network = from_nir(graph, dt=dt, dtype="float64", task_type="regression")
    expected = solved(graph, x, dt)
    found = Evaluator(network).predict(x[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(expected).max() > 0.1
    assert np.any(expected != expected[:1])


def test_scales_and_chains_of_matrices_are_one_connection() -> None:
    rng = np.random.default_rng(2)
    one, two, scale, bias = rng.normal(size=(5, 4)), rng.normal(size=(3, 5)), rng.random(5), rng.normal(size=5)
    nodes = {
        "input": nir.Input(np.array([4])),
        "one": nir.Affine(one, bias),
        "scale": nir.Scale(scale),
        "two": nir.Linear(two),
        "n": nir.LI(tau=TAU, r=R, v_leak=0 * R),
        "output": nir.Output(np.array([3])),
    }
    chain = ["input", "one", "scale", "two", "n", "output"]
    network = from_nir(nir.NIRGraph(nodes, list(pairwise(chain))), dtype="float64")
    (connection,) = network.graph.connections
    gain = (1 - np.exp(-1e-3 / TAU)) * R
    np.testing.assert_allclose(network.parameters[connection.weight], (two @ np.diag(scale) @ one).T * gain, rtol=1e-12)
    np.testing.assert_allclose(network.parameters["n.bias"], gain * (two @ (scale * bias)), rtol=1e-12)


def test_outputs_without_neurons_and_edges_without_weights() -> None:
    nodes = {
        "input": nir.Input(np.array([3])),
        "n": nir.LIF(tau=TAU, r=R, v_leak=0 * R, v_threshold=THETA),
        "w": nir.Linear(np.ones((2, 3))),
        "output": nir.Output(np.array([2])),
    }
    graph = nir.NIRGraph(nodes, [("input", "n"), ("n", "w"), ("w", "output")])
    network = from_nir(graph, dtype="float64")
    x = 30 * np.random.default_rng(3).random((2, 30, 3))
    recorded = Evaluator(network).trajectory(x)
    assert recorded.z("n").any()
    np.testing.assert_allclose(recorded.z("output"), recorded.z("n").sum(axis=2, keepdims=True) * np.ones(2))
    assert network.synapses["n.from_input.weight"].sum() == 3


def test_what_an_exact_graph_does_not_hold_is_refused_or_told() -> None:
    for network, word in (
        (LIF(4, 2, inputs=3), "reset='subtract'"),
        (LIF(4, 2, inputs=3, refractory_period=2e-3, **ZERO), "a refractory period"),
    ):
        with pytest.raises(IncompatibleError, match="NIR has no word for"):
            to_nir(network)
        with pytest.warns(NekoWarning, match=word):
            assert "hidden" in to_nir(network, approximate=True).nodes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ALIF(4, 2, inputs=3, **ZERO), "neurons of hidden"),
        (lambda: RNN(4, 2, inputs=3), "neurons of hidden"),
        (lambda: quantize(LIF(4, 2, inputs=3, **ZERO), membrane_bits=6), "neurons of hidden"),
        (lambda: LIF(4, 2, inputs=3, readout_decay=0.0, **ZERO), "between 0 and 1"),
        (lambda: LIF(4, 2, inputs=3, membrane_decay=[1.0, 0.9, 0.9, 0.9], **ZERO), "between 0 and 1"),
        (lambda: network_of("alif"), "neurons of hidden"),
        (lambda: "a network", "a network of populations"),
    ],
)
def test_a_network_that_has_no_graph_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        to_nir(make())


def test_weights_of_few_bits_are_written_as_they_are_seen() -> None:
    network = quantize(LIF(6, 2, inputs=3, dtype="float64", **ZERO), weight_bits=3)
    assert len(np.unique(np.abs(to_nir(network).nodes["hidden_input"].weight))) <= 4


CIRCLE = [("input", "n0"), ("n0", "n1"), ("n1", "n0"), ("n0", "n2"), ("n2", "output")]


def of(*nodes: Any, edges: list[tuple[str, str]] | None = None) -> Any:
    named = {"input": nir.Input(np.array([3])), **{f"n{k}": node for k, node in enumerate(nodes)}}
    named["output"] = nir.Output(np.array([3]))
    chain = list(named)
    return nir.NIRGraph(named, edges or list(pairwise(chain)), type_check=False)


def lif(**changes: Any) -> Any:
    return nir.LIF(**{"tau": TAU, "r": R, "v_leak": 0 * R, "v_threshold": THETA, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(lif(v_threshold=-THETA)), "v_threshold above v_reset"),
        (lambda: of(lif(tau=0 * TAU)), "time constants lie above 0"),
        (lambda: of(nir.CubaLI(tau_syn=SYN, tau_mem=TAU, r=R, v_leak=LEAK)), "a v_leak that is where"),
        (lambda: of(nir.Threshold(np.ones(3))), "of a kind that a network does not have"),
        (lambda: of(nir.Delay(np.full(3, 5e-3)), lif()), "one time step at most"),
        (lambda: of(nir.Scale(np.ones(3)), nir.Scale(np.ones(3)), lif(), edges=CIRCLE), "a circle must pass neurons"),
        (lambda: of(edges=[("input", "output")]), "something but the input"),
    ],
)
def test_a_graph_that_is_no_network_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        from_nir(make())


def test_a_delay_of_one_step_is_one() -> None:
    network = from_nir(of(nir.Delay(np.full(3, 1e-3)), lif()), dtype="float64")
    assert [c.delay for c in network.graph.connections] == [1]


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "no.nir").write_text("no")
    for path in (tmp_path / "no.nir", tmp_path / "none.nir"):
        with pytest.raises(DataError, match="cannot be read"):
            from_nir(path)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(NekoError, match=r"neko_rules\[nir\]"):
        nir_library.nir_library()


def test_a_run_is_exported(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(
        "data: {name: delayed_xor, train_examples: 32, test_examples: 16}\n"
        "model: {name: LIF, hidden: 6, outputs: 2, reset: zero}\nrule: bptt\ntrain: {epochs: 1}\n"
    )
    assert main(["run", str(config), "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model.nir")]) == 0
    found = from_nir(tmp_path / "model.nir")
    network = LIF(6, 2, inputs=40, **ZERO)
    network.load(tmp_path / "run" / "weights.safetensors")
    x = np.random.default_rng(0).random((2, 30, 40)) < 0.2
    np.testing.assert_allclose(Evaluator(found).predict(x), Evaluator(network).predict(x), rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model.txt")]) == 2
    assert "must end in .nir" in capsys.readouterr().err
