"""Networks: first weights, parameters in and out, types, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, LIF, EProp, Evaluator, Layer, Network, Stack
from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError, BackendError, CheckpointError, DataError, NekoError


def data(batch: int = 4, steps: int = 5, features: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, steps, features)), rng.integers(0, 2, batch)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# First weights.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_means_the_same_weights_on_every_backend(backend: str, dtype: str) -> None:
    options: dict[str, Any] = {"inputs": 3, "dtype": dtype, "seed": 7}
    assert_same(ALIF([5, 4], 2, backend=backend, **options).parameters, ALIF([5, 4], 2, **options).parameters)


def test_float32_weights_are_the_rounded_float64_weights() -> None:
    narrow, wide = (ALIF(5, 2, inputs=3, dtype=dtype).parameters for dtype in ("float32", "float64"))
    assert_same(narrow, {name: value.astype(np.float32) for name, value in wide.items()})


def test_another_seed_means_other_weights() -> None:
    one, other = (ALIF(5, 2, inputs=3, seed=seed).parameters for seed in (1, 2))
    for name, value in one.items():
        assert np.array_equal(value, other[name]) is name.endswith("bias"), name


def test_no_two_parameters_are_drawn_from_the_same_numbers() -> None:
    weights = [
        v.ravel()[1:9] for n, v in LIF([4, 4, 4], 4, inputs=4, autapses=True).parameters.items() if "weight" in n
    ]
    for i, one in enumerate(weights):
        assert not any(np.array_equal(one, other) for other in weights[:i])


def test_adding_a_layer_does_not_change_the_weights_of_the_others() -> None:
    two, three = LIF([4, 5], 2, inputs=3).parameters, LIF([4, 5, 6], 2, inputs=3).parameters
    hidden = [name for name in two if name.startswith("hidden")]
    assert len(hidden) == 6
    assert_same({name: three[name] for name in hidden}, {name: two[name] for name in hidden})


def test_statistics_of_the_first_weights() -> None:
    gain = {"name": "scaled_normal", "gain": 2.0}
    found = LIF(200, 50, inputs=100, dtype="float64", recurrent_initializer=gain).parameters
    for name, deviation, zeros in [
        ("hidden.input.weight", 0.1, 0),
        ("hidden.recurrent.weight", 2 / np.sqrt(200), 200),
        ("readout.input.weight", 1 / np.sqrt(200), 0),
    ]:
        drawn = found[name][found[name] != 0]
        assert found[name].size - drawn.size == zeros
        assert drawn.mean() == pytest.approx(0, abs=5 * deviation / np.sqrt(drawn.size))
        assert drawn.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * drawn.size))
    assert not found["hidden.bias"].any()
    assert not found["readout.bias"].any()


@pytest.mark.parametrize("autapses", [False, True])
def test_the_diagonal_of_recurrent_weights_stays_zero_through_training(autapses: bool) -> None:
    x, y = data()
    network = ALIF(6, 2, inputs=3, threshold=0.3, autapses=autapses)
    rule = EProp(Evaluator(network), optimizer="adam")
    for _ in range(3):
        assert np.diagonal(network.parameters["hidden.recurrent.weight"]).all() == autapses
        assert np.diagonal(network.parameters["hidden.recurrent.weight"]).any() == autapses
        rule.step(x, y)


# Parameters in and out.


def test_parameters_go_out_and_in_again(backend: str) -> None:
    one, other = (ALIF(4, 2, inputs=3, backend=backend, seed=seed) for seed in (1, 2))
    other.set_parameters(one.parameters)
    assert_same(other.parameters, one.parameters)


def test_some_parameters_may_be_set_alone_and_as_lists() -> None:
    network = LIF(2, 2, inputs=3)
    before = network.parameters
    network.set_parameters({"hidden.bias": [1, 2]})
    assert_same(network.parameters, {**before, "hidden.bias": np.array([1, 2], np.float32)})


def test_parameters_are_copies(backend: str) -> None:
    network = LIF(2, 2, inputs=3, backend=backend)
    before, taken = network.parameters, network.parameters
    given = {name: value + 1 for name, value in before.items()}
    for value in taken.values():
        value[...] = -5
    assert_same(network.parameters, before)
    network.set_parameters(given)
    kept = network.parameters
    for value in given.values():
        value[...] = -5
    assert_same(network.parameters, kept)


def test_a_clone_has_a_life_of_its_own(backend: str) -> None:
    network = LIF(3, 2, inputs=3, backend=backend)
    before, twin = network.parameters, network.clone()
    assert type(twin) is LIF
    assert_same(twin.parameters, before)
    twin.set_parameters({name: value + 1 for name, value in before.items()})
    assert_same(network.parameters, before)
    unbuilt = LIF(3, 2)
    unbuilt.clone().build(4)
    assert not unbuilt.built


# Types.


def test_float32_stays_float32_through_training(backend: str) -> None:
    x, y = data()
    network = ALIF(4, 2, backend=backend, threshold=0.3)
    model = Evaluator(network, metrics=["accuracy", "firing_rate"])
    rule = BPTT(model, optimizer="adam", clipping={"name": "norm", "limit": 0.1}, weight_decay=0.01)
    for _ in range(3):
        rule.step(x, y)
    found = {**network.parameters, **rule.gradients(x, y), "outputs": model.predict(x)}
    assert {value.dtype.name for value in found.values()} == {"float32"}
    assert {network.nx.dtype(value) for value in network.values.values()} == {"float32"}
    recorded = model.trajectory(x).records.values()
    assert {value.dtype.name for record in recorded for value in (*record.states.values(), record.z)} == {"float32"}


def test_float64_on_request(backend: str) -> None:
    x, y = data()
    network = LIF(4, 2, backend=backend, dtype="float64")
    model = Evaluator(network)
    rule = BPTT(model)
    rule.step(x.astype(np.float32), y)
    found = {**network.parameters, "outputs": model.predict(x.astype(np.float32))}
    assert {value.dtype.name for value in found.values()} == {"float64"}


# Building.


def test_the_number_of_features_is_found_at_the_first_data() -> None:
    network = LIF(4, 2, seed=3)
    assert not network.built
    assert network.inputs is None
    Evaluator(network).check(data()[0])
    assert network.built
    assert network.inputs == 3
    assert_same(network.parameters, LIF(4, 2, inputs=3, seed=3).parameters)


def test_building_twice_for_the_same_features_changes_nothing() -> None:
    network = LIF(4, 2, inputs=3)
    network.set_parameters({"hidden.bias": np.ones(4)})
    network.build(3)
    assert network.parameters["hidden.bias"].all()


def test_a_network_can_be_asked_what_it_is() -> None:
    network = Stack([Layer("alif", 3), Layer("tanh", 2)], 4, inputs=5, task_type="regression", dt=2e-3)
    assert (network.backend, network.dtype, network.inputs, network.outputs) == ("numpy", "float32", 5, 4)
    assert network.spiking == ("hidden0",)
    assert repr(network) == "Stack(hidden0 3, hidden1 2, readout 4; numpy, float32)"
    assert float(network.constants["hidden0"]["alpha"]) == pytest.approx(np.exp(-0.1))


def test_the_backend_may_be_given_as_an_object(backend: str) -> None:
    assert LIF(2, 2, backend=get_backend(backend)).backend == backend


# What is refused.

POPULATIONS = {"a": {"cell": "lif", "size": 2}}
CONNECTIONS = [{"source": "input", "target": "a"}]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: LIF(2, 2).parameters, ArgumentError, "no weights yet; give inputs=… or run it on data first"),
        (lambda: LIF(2, 2).set_parameters({}), ArgumentError, "no weights yet"),
        (lambda: LIF(2, 2, inputs=3).build(4), DataError, "this network takes 3 input features (received: 4 features)"),
        (lambda: LIF(2, 2).build(0), ArgumentError, "inputs must be a whole number of at least 1"),
        (lambda: LIF(2, 2, inputs=2.5), ArgumentError, "inputs must be a whole number of at least 1 (received: 2.5)"),
        (
            lambda: LIF(2, 2, inputs=1).set_parameters({"hidden.bais": [0]}),
            ArgumentError,
            "did you mean 'hidden.bias'?",
        ),
        (
            lambda: LIF(2, 2, inputs=1).set_parameters({"hidden.bias": [0]}),
            ArgumentError,
            "must have shape (2,) (received: (1,))",
        ),
        (lambda: LIF(2, 2, inputs=1).set_parameters({"hidden.bias": [0, np.nan]}), ArgumentError, "must be finite"),
        (lambda: LIF(2, 2, inputs=1).set_parameters({"hidden.bias": [0, 1e300]}), ArgumentError, "finite in float32"),
        (lambda: LIF(2, 2, inputs=1).set_parameters({"hidden.bias": ["a", "b"]}), ArgumentError, "must hold numbers"),
        (
            lambda: LIF(2, 2, dtype="float16"),
            ArgumentError,
            "dtype must be one of float32, float64 (received: float16)",
        ),
        (lambda: LIF(2, 2, task_type="classify"), ArgumentError, "did you mean 'classification'?"),
        (lambda: LIF(2, 2, readout="final"), ArgumentError, "readout must be one of sequence, last, mean, max"),
        (lambda: LIF(2, 2, dt=0), ArgumentError, "dt must be a finite number above 0"),
        (lambda: LIF(2, 2, seed=-1), ArgumentError, "seed must be a whole number of at least 0"),
        (lambda: LIF(2, 2, backend="pytorch"), BackendError, "did you mean 'torch'?"),
        (lambda: LIF(2, 2, backend=3), BackendError, "a backend must be a name or an object"),
        (lambda: LIF(3, 2, beta=1), ArgumentError, "LIF has no argument 'beta'"),
        (lambda: ALIF(3, 2, beta=[0.1, 0.2]), ArgumentError, "beta of hidden needs one value, or one per neuron (3)"),
        (lambda: LIF(2, 2, tau_readout=[0.1] * 3), ArgumentError, "tau_membrane of readout needs one value"),
        (
            lambda: Network(POPULATIONS, CONNECTIONS, "b"),
            ArgumentError,
            "the output must be a population (received: b)",
        ),
        (lambda: Network({"a": {"cell": "lif", "sise": 2}}, [], "a"), ArgumentError, "did you mean 'size'?"),
        (lambda: Network({"a": {"cell": "lif"}}, [], "a"), ArgumentError, "a Population needs the argument 'size'"),
        (lambda: Network({"a": "lif"}, [], "a"), ArgumentError, "a Population must be given as one, or as a mapping"),
        (lambda: Network(POPULATIONS, [("input", "a")], "a"), ArgumentError, "a Connection must be given as one"),
    ],
)
def test_refusals_are_one_sentence(call: Any, error: type[NekoError], says: str) -> None:
    with pytest.raises(error) as refusal:
        call()
    sentence = str(refusal.value)
    assert says in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


def test_a_refused_set_of_parameters_changes_nothing() -> None:
    network = LIF(2, 2, inputs=1)
    before = network.parameters
    with pytest.raises(ArgumentError):
        network.set_parameters({"hidden.bias": [1, 2], "readout.bias": [1, 2, 3]})
    assert_same(network.parameters, before)


def test_weights_go_from_one_library_to_another_by_a_file(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    trained = ALIF(6, 2, inputs=3, backend=backend, seed=1, dtype="float64")
    trained.save(path)
    for dtype in ("float64", "float32"):
        other = ALIF(6, 2, inputs=3, seed=2, dtype=dtype)
        other.load(path)
        for name, value in trained.parameters.items():
            np.testing.assert_array_equal(other.parameters[name], value.astype(dtype), err_msg=name)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_files_of_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    network = LIF(6, 2, inputs=3, seed=1)
    before = network.parameters
    with pytest.raises(CheckpointError, match="whole safetensors file"):
        network.load(path)
    ALIF(6, 2, inputs=4).save(path)
    with pytest.raises(ArgumentError, match="must have shape"):
        network.load(path)
    LIF(6, 2, inputs=3, recurrent=False).save(path)
    with pytest.raises(ArgumentError, match=r"must hold all parameters \(received: no hidden.recurrent.weight"):
        network.load(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="whole safetensors file"):
        network.load(path)
    with pytest.raises(CheckpointError, match="must be writable"):
        network.save(tmp_path / "nowhere" / "weights.safetensors")
    for name, value in network.parameters.items():
        np.testing.assert_array_equal(value, before[name])
