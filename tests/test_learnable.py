"""Learnable constants of neurons: decays, thresholds and adaptation, by every gradient that is defined for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from credit_cases import AUTODIFF_BACKENDS, INPUTS, OUTPUTS, alive, by_autodiff, by_traces, data, distance, stack

from neko_rules import ALIF, BPTT, LIF, OSTL, OTTT, RTRL, UORO, EProp, Evaluator, Layer, Stack
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.delayed import DelayedCell
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell, TanhCell
from neko_rules.optimizers import SGD

SAME = 1e-12

CELLS_THAT_LEARN: dict[str, Any] = {
    "if": IFCell(threshold=2.0, learnable=["threshold"]),
    "lif": LIFCell(learnable=["membrane_decay", "threshold"]),
    "lif, reset to zero, attached": LIFCell(
        reset="zero", detach_reset=False, learnable=["membrane_decay", "threshold"]
    ),
    "alif": ALIFCell(beta=0.3, learnable=["membrane_decay", "threshold", "adaptation_decay", "beta"]),
    "alif, attached": ALIFCell(beta=0.3, detach_reset=False, learnable=["beta", "adaptation_decay", "threshold"]),
    "alif, refractory": ALIFCell(beta=0.3, threshold=0.5, refractory_period=2e-3, learnable=["beta", "threshold"]),
    "tanh": TanhCell(membrane_decay=0.6, learnable=["membrane_decay"]),
    "delays": DelayedCell(LIFCell(threshold=0.5), steps=1.4, longest=3, learnable=["steps", "threshold"]),
    "whole delays": DelayedCell(ALIFCell(threshold=0.5), steps=2, longest=2, learnable=["steps"]),
}


def model_of(name: str, backend: str = "numpy", deep: bool = False) -> Evaluator:
    cell = CELLS_THAT_LEARN[name]
    # No error comes down within a time step through a layer whose input is late.
    above = cell if cell.prompt else LIFCell(threshold=0.5)
    return Evaluator(stack(*([cell, above] if deep else [cell]))(backend))


@pytest.mark.parametrize("deep", [False, True], ids=["one layer", "deep"])
@pytest.mark.parametrize("name", CELLS_THAT_LEARN)
def test_bptt_equals_autodiff(name: str, deep: bool) -> None:
    x, y = data()
    model = model_of(name, "torch", deep)
    alive(model, x)
    found = BPTT(model).gradients(x, y)
    layer = "hidden0" if deep else "hidden"
    assert {f"{layer}.{argument}" for argument in CELLS_THAT_LEARN[name].learnable} <= set(found)
    assert distance(found, by_autodiff(model, x, y)) < SAME


@pytest.mark.parametrize("library", AUTODIFF_BACKENDS[1:])
def test_bptt_equals_autodiff_of_the_other_libraries(library: str) -> None:
    pytest.importorskip(library)
    x, y = data(steps=6)
    model = model_of("alif", library)
    assert distance(BPTT(model).gradients(x, y), by_autodiff(model, x, y)) < SAME


@pytest.mark.parametrize("name", CELLS_THAT_LEARN)
@pytest.mark.parametrize("rule", [EProp, OSTL, OTTT])
def test_adjoint_equals_traces(rule: Any, name: str) -> None:
    x, y = data()
    made = rule(model_of(name, deep=True))
    assert distance(by_traces(made, x, y), made.gradients(x, y)) < SAME


@pytest.mark.parametrize("name", CELLS_THAT_LEARN)
def test_rtrl_equals_bptt(name: str) -> None:
    x, y = data()
    assert (
        distance(RTRL(model_of(name), evaluation="traces").gradients(x, y), BPTT(model_of(name)).gradients(x, y)) < SAME
    )


def test_bptt_equals_central_differences_on_a_smooth_network() -> None:
    x, y = data(batch=2, steps=7)
    model = model_of("tanh")
    found, network = BPTT(model).gradients(x, y), model.network
    name, step = "hidden.membrane_decay", 1e-6
    value = network.parameters[name]
    numeric = np.zeros_like(value)
    for place in range(len(value)):
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * step
            network.set_parameters({name: moved})
            numeric[place] += sign * model.evaluate(x, y)["loss"] / (2 * step)
    np.testing.assert_allclose(found[name], numeric, rtol=1e-6, atol=1e-9)


def test_a_readout_s_decay_is_learned() -> None:
    x, y = data()
    readout = LeakyReadoutCell(membrane_decay=0.9, learnable=["membrane_decay"])
    model = Evaluator(Stack([Layer(LIFCell(threshold=0.5), 6)], OUTPUTS, inputs=INPUTS, output_cell=readout,
                            dtype="float64", backend="torch"))  # fmt: skip
    assert distance(BPTT(model).gradients(x, y), by_autodiff(model, x, y)) < SAME
    assert distance(by_traces(EProp(model), x, y), EProp(model).gradients(x, y)) < SAME


def test_first_values_are_those_of_the_neuron_and_act_as_they_did() -> None:
    x, _ = data()
    plain, learned = (Evaluator(ALIF(4, 2, inputs=4, beta=[0, 0.1, 0.2, 0.3], tau_membrane=10e-3, dtype="float64",
                                     learnable=names)) for names in ((), ("beta", "membrane_decay")))  # fmt: skip
    np.testing.assert_allclose(learned.network.parameters["hidden.beta"], [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(learned.network.parameters["hidden.membrane_decay"], np.exp(-0.1))
    np.testing.assert_array_equal(plain.predict(x), learned.predict(x))
    learned.network.set_parameters({"hidden.membrane_decay": np.full(4, 0.5)})
    assert not np.allclose(plain.predict(x), learned.predict(x))


def test_learned_values_stay_within_their_bounds() -> None:
    x, y = data()
    model = Evaluator(
        ALIF(6, 3, dtype="float64", learnable=["membrane_decay", "threshold", "beta", "adaptation_decay"])
    )
    rule = BPTT(model, optimizer=SGD(1e4))
    for _ in range(3):
        rule.step(x, y)
    values = model.network.parameters
    for name, (lowest, highest) in {"membrane_decay": (0, 1), "adaptation_decay": (0, 1), "beta": (0, np.inf),
                                    "threshold": (1e-3, np.inf)}.items():  # fmt: skip
        value = values[f"hidden.{name}"]
        assert lowest <= value.min()
        assert value.max() <= highest
    assert values["hidden.membrane_decay"].min() == 0 or values["hidden.membrane_decay"].max() == 1


@pytest.mark.parametrize(
    ("name", "value"), [("hidden.membrane_decay", 1.5), ("hidden.threshold", 0.0), ("hidden.beta", -0.1)]
)
def test_values_outside_their_bounds_are_refused(name: str, value: float) -> None:
    network = ALIF(3, 2, inputs=2, learnable=["membrane_decay", "threshold", "beta"])
    with pytest.raises(ArgumentError, match="must lie within"):
        network.set_parameters({name: np.full(3, value)})
    network.set_parameters({"hidden.membrane_decay": np.array([0.0, 0.5, 1.0]), "hidden.threshold": np.full(3, 1e-3)})


def test_a_decay_that_is_learned_lowers_the_loss_where_it_is_all_that_can() -> None:
    """A leaky line of tanh units must forget at the right rate; the weights are not touched."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 20, 1))
    y = np.zeros((16, 20, 1))
    for t in range(20):
        y[:, t] = 0.5 * (y[:, t - 1] if t else 0) + x[:, t]
    network = Stack(
        [Layer(TanhCell(), 1, recurrent=False, bias=False)],
        1,
        output_cell=LeakyReadoutCell(membrane_decay=0.9, learnable=["membrane_decay"]),
        readout_bias=False,
        task_type="regression",
        dtype="float64",
        inputs=1,
    )
    held = {"hidden.input.weight": np.full((1, 1), 1e-3), "readout.input.weight": np.full((1, 1), 1e3)}
    network.set_parameters(held)
    rule = BPTT(Evaluator(network), optimizer=SGD(2e-3))
    for _ in range(300):
        rule.step(x, y)
        network.set_parameters(held)
    assert abs(float(network.parameters["readout.membrane_decay"][0]) - 0.5) < 0.02


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(ArgumentError, match="cannot learn this argument"):
        LIFCell(learnable=["reset"])
    with pytest.raises(ArgumentError, match="did you mean 'threshold'"):
        LIF(3, 2, learnable=["treshold"])
    with pytest.raises(IncompatibleError, match="states of the neurons alone"):
        UORO(Evaluator(LIF(3, 2, learnable=["threshold"])))
