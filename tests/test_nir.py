"""NIR: graphs that are networks by their exact solution, there and back, and refusals of what has no counterpart."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import (
    ALIF,
    LIF,
    RNN,
    Connection,
    Crossbar,
    Evaluator,
    Network,
    on_crossbar,
    quantize,
)
from neko_rules.cli import main
from neko_rules.errors import ArgumentError, IncompatibleError, NekoError, NekoWarning
from neko_rules.nir import from_nir, to_nir

nir = pytest.importorskip("nir")

from nir_cases import NETWORKS, NEURONS, N, data, order, outputs, pictures, random_network, randomised, spikes, stack  # noqa: E402
from nir_simulation import Simulator  # noqa: E402

# A step of ours is the exact solution of NIR's equation.


@pytest.mark.parametrize("gain", ["neurons", "weights"])
@pytest.mark.parametrize("dt", [1e-3, 0.4e-3])
@pytest.mark.parametrize("neurons", NEURONS)
def test_steps_are_the_exact_solution(neurons: str, dt: float, gain: str) -> None:
    network, x = stack(neurons, dt=dt), data()
    graph = to_nir(network, gain=gain)
    there = Simulator(graph, dt, order(graph, network)).run(x)
    z = spikes(network, x)
    assert 0.02 < z.mean() < 0.9
    np.testing.assert_array_equal(there["hidden"], z)
    np.testing.assert_allclose(there["output"].swapaxes(0, 1), outputs(network, x), rtol=1e-11, atol=1e-11)


COUNTING = {
    "LIF and LI": ("r", "tau", "v_leak", "v_threshold", "v_reset"),
    "IF and I": ("r", "v_threshold", "v_reset"),
    "CubaLIF and CubaLI": ("r", "tau_mem", "tau_syn", "w_in", "v_leak", "v_threshold", "v_reset"),
    "Threshold and Affine": ("threshold",),
}


@pytest.mark.parametrize(("neurons", "field"), [(name, field) for name in COUNTING for field in COUNTING[name]])
def test_a_wrong_parameter_would_be_found(neurons: str, field: str) -> None:
    network, x = stack(neurons), data()
    graph = to_nir(network)
    node = graph.nodes["hidden"]
    setattr(node, field, getattr(node, field) * 1.05 + (0.05 if field in ("v_leak", "v_reset") else 0.0))
    there = Simulator(graph, network.dt, order(graph, network)).run(x)
    assert np.abs(there["output"].swapaxes(0, 1) - outputs(network, x)).max() > 1e-3


def test_two_equations_solved_together_are_a_mean_of_two_of_our_steps() -> None:
    x, dt = data(), 1e-3
    readout = Network(
        {"readout": {"cell": NEURONS["CubaLIF and CubaLI"][1], "size": 2}},
        [Connection("input", "readout")],
        "readout",
        inputs=4,
        dtype="float64",
    )
    there = Simulator(to_nir(readout), dt, ["readout"], together=True).run(x)["output"].swapaxes(0, 1)
    ours = outputs(readout, x)
    before = np.concatenate([np.zeros_like(ours[:, :1]), ours[:, :-1]], axis=1)
    tau, syn = np.array([5e-3, 40e-3]), np.array([5.5e-3, 3e-3])
    alpha, epsilon = np.exp(-dt / tau), np.exp(-dt / syn)
    K = (epsilon - alpha) / (1 - tau / syn)
    p = (1 - alpha - K) / ((1 - alpha) * (1 - epsilon))
    assert ((p > 0.4) & (p < 0.6)).all()
    np.testing.assert_allclose(there, p * ours + (1 - p) * before, rtol=1e-10, atol=1e-12)
    assert np.abs(there - ours).max() > 1e-2


@pytest.mark.parametrize("neurons", ["LIF and LI", "CubaLIF and CubaLI", "CubaLIF and CubaLI by decays"])
def test_eulers_scheme_is_that_of_other_simulators(neurons: str) -> None:
    network, x = stack(neurons, recurrent=False), data()
    graph, dt = to_nir(network, scheme="euler"), network.dt
    u = x @ graph.nodes["hidden_input"].weight.T + graph.nodes["hidden_input"].bias
    node = graph.nodes["hidden"]
    v = current = np.zeros((3, N))
    z = spikes(network, x)
    for t in range(x.shape[1]):
        if isinstance(node, nir.CubaLIF):
            current = current + dt / node.tau_syn * (node.w_in * u[:, t] - current)
        else:
            current = u[:, t]
        v = v + dt / getattr(node, "tau", getattr(node, "tau_mem", None)) * (node.r * current - v)
        np.testing.assert_array_equal(v > node.v_threshold, z[t] > 0)
        v = np.where(v > node.v_threshold, 0, v)
    assert z.mean() > 0.02
    again = from_nir(graph, dtype="float64")
    np.testing.assert_allclose(outputs(again, x), outputs(network, x), rtol=1e-12, atol=1e-12)


# There and back.


@pytest.mark.parametrize("gain", ["neurons", "weights"])
@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back_by_a_file(name: str, gain: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    if name == "learned":
        rng = np.random.default_rng(2)
        low = {"hidden.threshold": 0.2, "hidden.membrane_decay": 0.7, "hidden.synapse_decay": 0.2}
        network.set_parameters({key: rng.uniform(each, each + 0.25, 7) for key, each in low.items()})
    randomised(network)
    x = data(network.inputs)
    nir.write(tmp_path / "model.nir", to_nir(network, gain=gain))
    again = from_nir(tmp_path / "model.nir", dtype="float64")
    assert again.dt == network.dt
    for population in network.spiking:
        z = spikes(network, x, population)
        assert z.mean() > 0.01
        np.testing.assert_array_equal(spikes(again, x, population), z)
    np.testing.assert_allclose(outputs(again, x), outputs(network, x), rtol=1e-12, atol=1e-12)
    if name not in ("learned", "weights of 3 bits") and not name.startswith("pictures"):
        assert {key: value.shape for key, value in again.parameters.items()} == {
            key: value.shape for key, value in network.parameters.items()
        }
        for key, value in network.parameters.items():
            np.testing.assert_allclose(again.parameters[key], value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "name", ["feedback", "against the walk", "pictures", "pictures, recurrent", "pooled", "several layers"]
)
def test_whole_graphs_are_what_another_simulator_runs(name: str) -> None:
    network = randomised(NETWORKS[name]())
    x = data(network.inputs)
    graph = to_nir(network)
    there = Simulator(graph, network.dt, order(graph, network)).run(x)
    np.testing.assert_allclose(there["output"].swapaxes(0, 1), outputs(network, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_simulated_alike_and_come_back(seed: int, tmp_path: Path) -> None:
    network, x = random_network(seed), data(3, steps=25)
    graph, expected = to_nir(network, gain=("neurons", "weights")[seed % 2]), outputs(network, x)
    nir.write(tmp_path / "model.nir", graph)
    again = from_nir(tmp_path / "model.nir", dtype="float64")
    assert set(again.parameters) == set(network.parameters)
    largest = np.abs(expected).max()
    assert largest > 0.01
    np.testing.assert_allclose(outputs(again, x), expected, rtol=0, atol=1e-12 * max(1, largest))
    there = Simulator(graph, network.dt, order(graph, network)).run(x)["output"].swapaxes(0, 1)
    np.testing.assert_allclose(there, expected, rtol=0, atol=1e-11 * max(1, largest))


def test_convolutions_stay_convolutions_and_what_cannot_be_one_is_a_matrix() -> None:
    graph = to_nir(randomised(pictures()))
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert kinds["hidden0_input"] == kinds["hidden1_input"] == "Conv2d"
    assert graph.nodes["hidden0_input"].weight.shape == (3, 2, 3, 3)
    assert graph.nodes["hidden0"].tau.shape == (3, 4, 4)
    assert kinds["readout_input_flatten"] == "Flatten"
    again = from_nir(graph, dtype="float64")
    assert again.parameters["hidden0.input.weight"].shape == (18, 3)
    kinds = {name: type(node).__name__ for name, node in to_nir(NETWORKS["pooled"]()).nodes.items()}
    assert [kinds[f"{name}_input_pool"] for name in ("hidden0", "hidden1", "readout")] == ["AvgPool2d"] * 3
    assert kinds["hidden1_input"] == "Conv2d"
    assert kinds["readout_input"] == "Affine"
    oblong = to_nir(pictures(window=(3, 2)))
    assert type(oblong.nodes["hidden0_input"]).__name__ == "Affine"


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_every_library_reads_the_same(backend: str) -> None:
    pytest.importorskip(backend)
    network, x = stack("CubaLIF and CubaLI"), data()
    again = from_nir(to_nir(network.on(backend)), backend=backend, dtype="float64")
    assert again.backend == backend
    shared = pictures(recurrent=True)
    matrices = [to_nir(each).nodes["hidden1_input"].weight for each in (shared, shared.on(backend))]
    assert matrices[0].ndim == 2
    np.testing.assert_array_equal(*matrices)
    np.testing.assert_allclose(outputs(again, x), outputs(network, x), rtol=1e-10, atol=1e-12)


def test_single_precision_stays_single() -> None:
    network = LIF(8, 2, inputs=4, reset="zero", threshold=0.3)
    graph = to_nir(network)
    assert graph.nodes["hidden"].tau.dtype == graph.nodes["hidden_input"].weight.dtype == np.float32
    np.testing.assert_allclose(outputs(from_nir(graph), data()), outputs(network, data()), rtol=1e-4, atol=1e-5)


# What NIR cannot say.


LEFT_OUT: dict[str, tuple[Any, str]] = {
    "subtract": (lambda: LIF(6, 2, inputs=4), "hidden: reset='subtract'"),
    "none": (lambda: LIF(6, 2, inputs=4, reset="none"), "hidden: reset='none'"),
    "refractory": (lambda: LIF(6, 2, inputs=4, reset="zero", refractory_period=2e-3), "hidden: the refractory period"),
    "adaptation": (lambda: ALIF(6, 2, inputs=4, reset="zero"), "hidden: the adaptive threshold"),
    "one adapts": (lambda: ALIF(2, 2, inputs=4, reset="zero", beta=[0.0, 0.1]), "hidden: the adaptive threshold"),
    "membrane bits": (lambda: quantize(stack("LIF and LI"), membrane_bits=6), "hidden: a membrane of 6 bits"),
    "pooling": (lambda: LIF(6, 2, inputs=4, reset="zero", readout="mean"), "readout='mean'"),
    "converters": (
        lambda: on_crossbar(stack("LIF and LI"), Crossbar(w_max=4.0, adc_bits=3, adc_bound=2.0)),
        "hidden.input.weight: converters",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_nir_cannot_say_is_refused_by_name_or_listed(name: str) -> None:
    make, said = LEFT_OUT[name]
    network = make()
    with pytest.raises(IncompatibleError) as refused:
        to_nir(network)
    assert said in str(refused.value)
    with pytest.warns(NekoWarning) as warned:
        graph = to_nir(network, approximate=True)
    assert [said in str(each.message) for each in warned] == [True]
    assert outputs(from_nir(graph), data()).shape[-1] == 2


def test_several_are_listed_at_once() -> None:
    with pytest.raises(IncompatibleError) as refused:
        to_nir(ALIF(6, 2, inputs=4, refractory_period=2e-3, readout="last"))
    assert [each in str(refused.value) for each in ("reset=", "refractory", "adaptive", "readout='last'")] == [True] * 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RNN(6, 2, inputs=4), "TanhCell of hidden"),
        (lambda: RNN(6, 2, inputs=4, activation="relu"), "ReLUCell of hidden"),
        (lambda: LIF(2, 2, inputs=4, reset="zero", tau_membrane=[0.0, 1e-2]), "memory of the membrane"),
        (lambda: LIF(2, 2, inputs=4, reset="zero", membrane_decay=[1.0, 0.5]), "memory of the membrane"),
        (lambda: LIF(2, 2, inputs=4, reset="zero", tau_synapse=[0.0, 1e-2]), "memory of the synapse"),
        (lambda: LIF(2, 2, inputs=4, reset="zero", membrane_decay=1.0, tau_synapse=1e-2), "some decay of hidden is 1"),
    ],
)
def test_what_nir_has_no_neuron_for_is_refused_even_nearly(make: Any, said: str) -> None:
    with pytest.raises(IncompatibleError, match=said):
        to_nir(make(), approximate=True)


def test_no_network_and_no_weights() -> None:
    with pytest.raises(ArgumentError, match="no weights"):
        to_nir(LIF(6, 2, reset="zero"))
    with pytest.raises(ArgumentError, match="to_nir takes"):
        to_nir(Evaluator(LIF(6, 2, inputs=4, reset="zero")))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="from_nir takes"):
        from_nir(nir.Linear(np.ones((2, 2))))
    with pytest.raises(ArgumentError, match="scheme"):
        to_nir(LIF(6, 2, inputs=4, reset="zero"), scheme="heun")


def test_dead_ends_are_refused() -> None:
    cell = {"name": "lif", "reset": "zero"}
    parts: Any = {"a": {"cell": cell, "size": 2}, "b": {"cell": cell, "size": 2}}
    with pytest.raises(IncompatibleError, match="sends to nothing"):
        to_nir(Network(parts, [Connection("input", "a"), Connection("a", "b")], "a", inputs=3))
    with pytest.raises(IncompatibleError, match="something receives"):
        to_nir(Network(parts, [Connection("a", "b")], "b", inputs=3))


# The library.


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (lambda: to_nir(LIF(6, 2, inputs=4, reset="zero")), lambda: from_nir("model.nir")):
        with pytest.raises(NekoError, match=r"neko_rules\[nir\]"):
            call()


def test_the_library_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, neko_rules, neko_rules.nir; print([m for m in ('nir', 'h5py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_exact_export_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_nir(stack("LIF and LI"), approximate=True)


# The command.


RUN = """
data: {name: mnist1d, num_samples: 50}
model: {name: LIF, hidden: 6, outputs: 10, threshold: 0.2, reset: zero}
rule: bptt
train: {epochs: 1, batch_size: 16}
"""


def ran(tmp_path: Path, configuration: str = RUN) -> Path:
    (tmp_path / "run.yaml").write_text(configuration)
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    return tmp_path / "run"


def test_a_run_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = ran(tmp_path), tmp_path / "model.nir"
    assert main(["export", str(folder), str(file)]) == 0
    assert "model.nir" in capsys.readouterr().out
    x = data(from_nir(file).inputs or 0)
    trained = LIF(6, 10, inputs=x.shape[-1], threshold=0.2, reset="zero")
    trained.load(folder / "weights.safetensors")
    assert spikes(trained, x).any()
    np.testing.assert_allclose(outputs(from_nir(file), x), outputs(trained, x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("always")
def test_what_cannot_be_exported_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = ran(tmp_path, RUN.replace(", reset: zero", "")), tmp_path / "model.nir"
    assert main(["export", str(folder), str(file)]) == 2
    assert "hidden: reset='subtract'" in capsys.readouterr().err
    assert not file.exists()
    assert main(["export", str(folder), str(tmp_path / "nowhere" / "model.nir"), "--approximate"]) == 2
    assert "must be writable" in capsys.readouterr().err
    assert main(["export", str(folder), str(file), "--approximate"]) == 0
    assert "hidden: reset='subtract'" in capsys.readouterr().err
    assert nir.read(file).nodes["hidden"].tau.shape == (6,)
    assert main(["export", str(folder), str(file), "--approximate", "--scheme", "heun"]) == 2
    assert "scheme" in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_an_encoder_stays_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded = RUN + "encoder: {name: constant, steps: 5}\n"
    encoded = encoded.replace("mnist1d, num_samples: 50", f"arrays, path: {arrays(tmp_path)}")
    folder, file = ran(tmp_path, encoded), tmp_path / "model.nir"
    assert main(["export", str(folder), str(file)]) == 0
    assert "the network alone" in capsys.readouterr().err
    assert from_nir(file).inputs == 4


def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.random((40, 1, 4)), y=rng.integers(10, size=40))
    return tmp_path / "data.npz"
