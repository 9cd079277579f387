"""Models in one line: their signatures, their layers, and what each argument reaches."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

from neko_rules import ALIF, LIF, RNN, Evaluator, Layer, Network, Stack
from neko_rules.errors import ArgumentError
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.layers.network import MODELS
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell

OF_NETWORK = {"inputs", "backend", "dtype", "task_type", "readout", "dt", "seed"}
OF_STACK = OF_NETWORK | {"output_cell", "tau_readout", "readout_decay", "readout_bias", "readout_initializer"}
OF_STACK |= {"readout_connectivity"}
OF_LAYER = {"recurrent", "bias", "initializer", "recurrent_initializer", "autapses"}
OF_LAYER |= {"connectivity", "recurrent_connectivity"}


def arguments_of(model: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(model).parameters)


# Signatures.


@pytest.mark.parametrize(("model", "cell"), [(ALIF, ALIFCell), (LIF, LIFCell), (RNN, TanhCell)])
def test_signatures_list_every_argument(model: Any, cell: Any) -> None:
    found, of_cell = arguments_of(model), arguments_of(cell)
    assert list(found)[:2] == ["hidden", "outputs"]
    chooser = {"activation"} if model is RNN else set()
    assert set(found) == {"hidden", "outputs"} | OF_LAYER | OF_STACK | chooser | set(of_cell)
    assert not {p.kind for p in found.values()} & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    for name, parameter in of_cell.items():
        assert found[name].default == parameter.default
        assert found[name].kind is inspect.Parameter.KEYWORD_ONLY
    of_stack = arguments_of(Stack)
    for name in OF_STACK:
        assert found[name].default == of_stack[name].default


def test_signatures_of_stack_and_network() -> None:
    assert set(arguments_of(Stack)) == {"layers", "outputs"} | OF_STACK
    assert set(arguments_of(Network)) == {"populations", "connections", "output"} | OF_NETWORK


def test_a_rate_network_has_no_arguments_of_spikes() -> None:
    assert not {"surrogate", "threshold", "reset", "refractory_period"} & set(arguments_of(RNN))


def test_every_model_can_be_made_from_a_mapping() -> None:
    specs: dict[str, dict[str, Any]] = {
        "network": {"populations": {"a": {"cell": "lif", "size": 2}}, "connections": [], "output": "a"},
        "stack": {
            "layers": [{"cell": "alif", "size": 3}, {"cell": "lif", "size": 2, "recurrent": False}],
            "outputs": 2,
        },
        "ALIF": {"hidden": 3, "outputs": 2},
        "LIF": {"hidden": [3, 2], "outputs": 2},
        "RNN": {"hidden": 3, "outputs": 2},
    }
    assert set(specs) == set(MODELS)
    for name, arguments in specs.items():
        made = MODELS.resolve({"name": name, **arguments})
        assert type(made) is MODELS[name]
        assert MODELS.describe()[list(MODELS).index(name)][1].endswith((".", "?"))


# Layers.


@pytest.mark.parametrize("hidden", [5, [5], (5,), np.int64(5), np.array([5])])
def test_one_layer_is_called_hidden(hidden: Any) -> None:
    assert list(LIF(hidden, 2).graph.populations) == ["hidden", "readout"]


def test_several_layers_are_numbered_from_the_lowest() -> None:
    shapes = {name: value.shape for name, value in ALIF([5, 4], 2, inputs=3).parameters.items()}
    assert shapes == {
        "hidden0.input.weight": (3, 5), "hidden0.recurrent.weight": (5, 5), "hidden0.bias": (5,),
        "hidden1.input.weight": (5, 4), "hidden1.recurrent.weight": (4, 4), "hidden1.bias": (4,),
        "readout.input.weight": (4, 2), "readout.bias": (2,),
    }  # fmt: skip


def test_layers_with_neurons_of_their_own() -> None:
    mixed = Stack([Layer("alif", 4), {"cell": "tanh", "size": 3, "recurrent": False, "bias": False}], 2, inputs=1)
    assert [type(mixed.graph.cell(name)) for name in mixed.graph.order] == [ALIFCell, TanhCell, LeakyReadoutCell]
    assert {name for name in mixed.parameters if name.startswith("hidden1")} == {"hidden1.input.weight"}


def test_activation_of_a_rate_network() -> None:
    assert isinstance(RNN(3, 2).graph.cell("hidden"), TanhCell)
    assert isinstance(RNN(3, 2, activation="tanh", membrane_decay=0.5).graph.cell("hidden"), TanhCell)
    assert isinstance(RNN(3, 2, activation="relu").graph.cell("hidden"), ReLUCell)
    x = np.random.default_rng(0).standard_normal((1, 4, 3))
    one, other = (Evaluator(RNN(5, 2, inputs=3, activation=name)).predict(x) for name in ("tanh", "relu"))
    assert not np.allclose(one, other)


# Each argument arrives.


def test_arguments_of_the_cell_arrive() -> None:
    changed = {
        "threshold": 0.5, "reset": "zero", "detach_reset": False, "refractory_period": 2e-3, "beta": (0.0, 0.5),
        "learnable": ("beta", "threshold"), "surrogate": "gaussian",
    }  # fmt: skip
    times = {"tau_membrane": 5e-3, "tau_adaptation": 0.1, "tau_synapse": 1e-3}
    decays = {"membrane_decay": 0.3, "adaptation_decay": 0.7, "synapse_decay": (0.0, 0.4)}
    for either in times, decays:
        cell = ALIF(2, 2, **changed, **either).graph.cell("hidden")  # type: ignore[arg-type]
        assert cell == ALIFCell(**changed, **either)  # type: ignore[arg-type]
    assert {f.name for f in dataclasses.fields(ALIFCell)} == {*changed, *times, *decays}


def test_arguments_of_the_layer_and_the_readout_arrive() -> None:
    constant = {name: {"name": "constant", "value": value} for name, value in [("in", 2.0), ("rec", 3.0), ("out", 4.0)]}
    network = LIF(
        3, 2, inputs=1, autapses=True, initializer=constant["in"], recurrent_initializer=constant["rec"],
        readout_initializer=constant["out"], bias=False, readout_bias=False, readout_decay=0.25,
    )  # fmt: skip
    assert {name: set(value.ravel().tolist()) for name, value in network.parameters.items()} == {
        "hidden.input.weight": {2.0}, "hidden.recurrent.weight": {3.0}, "readout.input.weight": {4.0},
    }  # fmt: skip
    assert network.graph.cell("readout") == LeakyReadoutCell(membrane_decay=0.25)
    assert "hidden.recurrent.weight" not in LIF(3, 2, inputs=1, recurrent=False).parameters
    assert LIF(3, 2, tau_readout=5e-3).graph.cell("readout").tau_membrane == 5e-3  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", [ALIF, LIF, RNN])
def test_the_output_may_be_any_cell(model: Any) -> None:
    assert model(3, 2).graph.cell("readout") == LeakyReadoutCell(tau_membrane=20e-3)
    for given in ("alif", {"name": "alif"}, ALIFCell()):
        network = model(3, 2, inputs=1, output_cell=given)
        assert network.graph.cell("readout") == ALIFCell()
        assert "readout" in network.spiking
        assert network.parameters["readout.input.weight"].shape == (3, 2)
    slow = {"name": "lif", "tau_membrane": 0.1, "reset": "none", "learnable": ["threshold"]}
    network = MODELS.resolve({"name": model.__name__, "hidden": 3, "outputs": 2, "inputs": 1, "output_cell": slow})
    assert network.graph.cell("readout") == LIFCell(tau_membrane=0.1, reset="none", learnable=("threshold",))
    assert "readout.threshold" in network.parameters


def test_time_constants_are_in_seconds() -> None:
    x = np.random.default_rng(0).standard_normal((1, 10, 3))
    outputs = [
        Evaluator(RNN(4, 2, inputs=3, tau_membrane=10 * dt, tau_readout=20 * dt, dt=dt, dtype="float64")).predict(x)
        for dt in (1e-3, 5e-3)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-12)


# What is refused.


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ALIF(3, 2, tau_membran=1.0), "ALIF has no argument 'tau_membran'; did you mean 'tau_membrane'?"),
        (lambda: LIF(3, 2, beta=0.1), "LIF has no argument 'beta'"),
        (lambda: LIF(3, 2, hiden=1), "did you mean 'hidden'?"),
        (lambda: LIF(3, 2, activation="tanh"), "LIF has no argument 'activation'"),
        (lambda: RNN(3, 2, activation="sigmoid"), "activation must be one of tanh, relu (received: sigmoid)"),
        (lambda: RNN(3, 2, surrogate="gaussian"), "RNN has no argument 'surrogate'"),
        (lambda: LIF(0, 2), "hidden must be a whole number of at least 1 (received: 0)"),
        (lambda: LIF([3, -1], 2), "hidden[1] must be a whole number of at least 1 (received: -1)"),
        (lambda: LIF([], 2), "a stack needs a list of at least one layer"),
        (
            lambda: LIF("12", 2),
            "hidden must be a whole number of at least 1 (received: '12'); write 12 without quotes.",
        ),
        (lambda: LIF(None, 2), "hidden must be a whole number of at least 1 (received: None)."),
        (lambda: ALIF(16), "ALIF needs numbers of neurons and outputs (received: no outputs); write for example ALIF("),
        (lambda: RNN(), "RNN needs numbers of neurons and outputs (received: no hidden and no outputs)"),
        (lambda: LIF(outputs=2), "received: no hidden"),
        (lambda: LIF(3, 0), "outputs must be a whole number of at least 1 (received: 0)"),
        (lambda: LIF(3, 2, recurrent="no"), "recurrent must be true or false"),
        (lambda: LIF(3, 2, bias=0), "bias must be true or false"),
        (lambda: LIF(3, 2, readout_bias="x"), "bias must be true or false"),
        (lambda: LIF(3, 2, initializer="othogonal"), "did you mean 'orthogonal'?"),
        (lambda: LIF(3, 2, tau_readout=-1.0), "tau_membrane must be a finite number of at least 0"),
        (lambda: LIF(3, 2, output_cell="lif", tau_readout=0.02), "belong to the leaky readout, which output_cell repl"),
        (lambda: LIF(3, 2, output_cell="lif", readout_decay=0.5), "belong to the leaky readout"),
        (lambda: LIF(3, 2, tau_readout=5e-3, readout_decay=0.5), "readout_decay stands in the place of tau_readout"),
        (lambda: LIF(3, 2, output_cell="lief"), "did you mean 'lif'?"),
        (lambda: LIF(3, 2, output_cell={"name": "lif", "tau_membran": 1.0}), "did you mean 'tau_membrane'?"),
        (lambda: Stack([], 2), "a stack needs a list of at least one layer (received: [])"),
        (lambda: Stack(Layer("lif", 2), 2), "a stack needs a list of at least one layer"),
        (lambda: Stack([{"cell": "lif"}], 2), "a layer must be told its size"),
        (lambda: Stack([{"cell": "lif", "size": 2, "recurent": True}], 2), "did you mean 'recurrent'?"),
        (lambda: Stack(["lif"], 2), "a Layer must be given as one, or as a mapping of its arguments"),
        (lambda: MODELS.resolve("ALIFF"), "did you mean 'ALIF'?"),
        (lambda: MODELS.resolve({"name": "ALIF", "hidden": 3}), "ALIF needs the argument 'outputs'"),
        (lambda: MODELS.resolve({"name": "ALIF", "hidden": 3, "outputs": 2, "betta": 1}), "did you mean 'beta'?"),
    ],
)
def test_refusals_are_one_sentence(call: Any, says: str) -> None:
    with pytest.raises(ArgumentError) as refusal:
        call()
    sentence = str(refusal.value)
    assert says in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
