"""Delays: input that arrives late, in closed form, in every gradient, learned, and refused where errors are lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cell_cases import noise, trajectory
from credit_cases import INPUTS, OUTPUTS, STRONG, alive, by_autodiff, by_traces, data, distance, stack

from neko_rules import BPTT, DFA, OTTT, EProp, Evaluator, EventProp, Layer, Stack, quantize
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.cell import CELLS
from neko_rules.layers.delayed import DelayedCell
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell, TanhCell
from neko_rules.optimizers import SGD

SAME = 1e-12


def late(array: np.ndarray, steps: int) -> np.ndarray:
    """A history [time, …] that begins so many steps later."""
    return np.concatenate([np.zeros_like(array[:steps]), array[: len(array) - steps]])


@pytest.mark.parametrize("cell", [LIFCell(threshold=0.5), ALIFCell(tau_synapse=3e-3), TanhCell(membrane_decay=0.6)])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_delayed_neuron_does_later_what_the_neuron_does(cell: Any, steps: int) -> None:
    currents = noise(20, 2, 3)
    plain, delayed = trajectory(cell, currents), trajectory(DelayedCell(cell, steps), currents)
    for name, history in plain.items():
        np.testing.assert_array_equal(delayed[name], late(history, steps))


@pytest.mark.parametrize("longest", [None, 5])
@pytest.mark.parametrize("learned", [(), ("steps",)])
def test_between_steps_currents_are_interpolated(longest: int | None, learned: tuple[str, ...]) -> None:
    steps = [0.0, 0.25, 1.0, 2.5, 3.0]
    currents = noise(12, 2, 5)
    cell = DelayedCell(LeakyReadoutCell(0.0), steps, longest, learnable=learned)
    for neuron, d in enumerate(steps):
        k = int(d)
        expected = (k + 1 - d) * late(currents, k) + (d - k) * late(currents, k + 1)
        found = trajectory(cell, currents)["z"][..., neuron]
        np.testing.assert_allclose(found, expected[..., neuron], rtol=0, atol=1e-15)


def test_what_is_spread_arrives_as_a_triangle_of_sum_one() -> None:
    currents = np.zeros((20, 1, 3))
    currents[0] = 1
    for learned in ((), ("steps",)):
        cell = DelayedCell(LeakyReadoutCell(0.0), [4.0, 6.5, 0.0], longest=9, spread=3, learnable=learned)
        arrived = trajectory(cell, currents)["z"][:, 0]
        np.testing.assert_allclose(arrived[:8, 0], np.array([0, 0, 1, 2, 3, 2, 1, 0]) / 9, rtol=0, atol=1e-15)
        np.testing.assert_allclose(arrived[3:11, 1], np.array([0, 0.5, 1.5, 2.5, 2.5, 1.5, 0.5, 0]) / 9, atol=1e-15)
        # What would come before it is sent comes at once.
        np.testing.assert_allclose(arrived[:4, 2], np.array([6, 2, 1, 0]) / 9, rtol=0, atol=1e-15)


def test_what_is_far_from_a_learned_delay_leaves_nothing() -> None:
    """Of a current that is large and long ago no rest of rounding arrives."""
    currents = np.zeros((40, 1, 2))
    currents[0] = 1e12
    cell = DelayedCell(LeakyReadoutCell(0.0), [3.3, 11.7], longest=30, learnable=["steps"])
    arrived = trajectory(cell, currents)["z"][:, 0]
    assert [np.flatnonzero(each).tolist() for each in arrived.T] == [[3, 4], [11, 12]]


def deep(**options: Any) -> Evaluator:
    """Delays below, above and at the output."""
    return Evaluator(
        stack(
            DelayedCell(ALIFCell(threshold=0.4, beta=0.3), [0, 1, 2, 3.5, 1, 2]),
            DelayedCell(LIFCell(threshold=0.2), 2),
            output_cell=DelayedCell(LeakyReadoutCell(5e-3), 1),
            **options,
        )("torch")
    )


def test_bptt_through_late_layers_equals_autodiff() -> None:
    x, y = data(steps=24)
    model = deep()
    alive(model, x)
    assert distance(BPTT(model).gradients(x, y), by_autodiff(model, x, y)) < SAME


@pytest.mark.parametrize("rule", [EProp, OTTT])
@pytest.mark.parametrize("late_output", [False, True])
def test_traces_equal_the_adjoint_below_a_readout_that_is_late_or_not(rule: Any, late_output: bool) -> None:
    x, y = data(steps=20)
    cell = DelayedCell(ALIFCell(threshold=0.4), [0, 1, 2, 3.5, 1, 2])
    output = DelayedCell(LeakyReadoutCell(5e-3), 2) if late_output else LeakyReadoutCell(5e-3)
    model = Evaluator(stack(cell, output_cell=output)("numpy"))
    if late_output and rule is OTTT:
        with pytest.raises(IncompatibleError, match="within a time step"):
            rule(model)
        return
    made = rule(model)
    found = made.gradients(x, y)
    assert distance(found, by_traces(made, x, y)) < SAME
    if late_output:
        assert distance(found, by_autodiff(Evaluator(model.network.on("torch")), x, y, detach_delayed=True)) < SAME


@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize("steps", [[1.0, 2.0, 3.0, 2.0, 1.0, 3.0], [0.3, 1.6, 2.2, 3.9, 0.7, 2.5]])
def test_the_derivative_by_a_delay_is_the_central_difference_at_whole_steps_too(
    steps: list[float], spread: int
) -> None:
    x, y = data(batch=2, steps=9)
    cell = DelayedCell(TanhCell(membrane_decay=0.6), steps, longest=4, spread=spread, learnable=["steps"])
    model = Evaluator(stack(cell)("numpy"))
    found, network = BPTT(model).gradients(x, y)["hidden.steps"], model.network
    step, numeric = 1e-6, np.zeros(6)
    for place in range(6):
        for sign in (1, -1):
            moved = np.array(steps)
            moved[place] += sign * step
            network.set_parameters({"hidden.steps": moved})
            numeric[place] += sign * model.evaluate(x, y)["loss"] / (2 * step)
    np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-9)
    assert np.abs(found).min() > 1e-6


def test_a_delay_finds_the_lag_of_its_target() -> None:
    """Units that hand on what they receive learn by how much their targets are late; weights are left alone."""
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal((32, 60, 1)), axis=1)
    lags = np.array([2, 7, 11])
    y = np.concatenate([np.moveaxis(late(np.moveaxis(x, 1, 0), lag), 0, 1) for lag in lags], axis=2)
    cell = DelayedCell(LeakyReadoutCell(0.0), steps=5.0, longest=15, spread=3, learnable=["steps"])
    network = Stack(
        [Layer(TanhCell(), 1, recurrent=False, bias=False)], 3, inputs=1, output_cell=cell, readout_bias=False,
        task_type="regression", dtype="float64",
    )  # fmt: skip
    held = {"hidden.input.weight": np.full((1, 1), 1e-3), "readout.input.weight": np.full((1, 3), 1e3)}
    network.set_parameters(held)
    rule = BPTT(Evaluator(network, loss="mean_squared_error"), optimizer=SGD(0.2))
    for _ in range(300):
        rule.step(x, y)
        network.set_parameters(held)
    np.testing.assert_allclose(network.parameters["readout.steps"], lags, atol=0.2)


def test_learned_delays_stay_on_their_line() -> None:
    x, y = data()
    cell = DelayedCell(LIFCell(threshold=0.4), 1.0, longest=3, learnable=["steps"])
    model = Evaluator(stack(cell)("numpy"))
    rule = BPTT(model, optimizer=SGD(1e5))
    for _ in range(3):
        rule.step(x, y)
    found = model.network.parameters["hidden.steps"]
    assert (found >= 0).all()
    assert (found <= 3).all()
    assert {0.0, 3.0} & set(found.tolist())


def test_a_longer_delay_than_the_line_is_not_loaded() -> None:
    """Beyond its end nothing would arrive."""
    longer, shorter = (
        Stack([Layer(DelayedCell("lif", 2.0, longest=longest, learnable=["steps"]), 3)], 2, inputs=2)
        for longest in (6, 3)
    )
    longer.set_parameters({"hidden.steps": [1.0, 2.0, 5.0]})
    with pytest.raises(ArgumentError, match=r"hidden\.steps must lie within 0 and 3"):
        shorter.set_parameters(longer.parameters)


def test_event_prop_goes_through_late_input() -> None:
    """Delays of all neurons of the layers below the output shift its response, and no derivative changes."""
    x = np.random.default_rng(0).random((4, 60, INPUTS)) < 0.2
    y = np.arange(4) % OUTPUTS
    gradients = []
    for steps in (0, 3):
        cell = DelayedCell(LIFCell(threshold=0.4, tau_synapse=5e-3), steps)
        network = Stack(
            [Layer(cell, 8, recurrent=False, bias=False, initializer=STRONG)], OUTPUTS, inputs=INPUTS, dtype="float64",
            readout="last",
        )  # fmt: skip
        shifted = np.concatenate([np.zeros((4, 3 - steps, INPUTS)), x, np.zeros((4, steps, INPUTS))], axis=1)
        gradients.append(EventProp(Evaluator(network)).gradients(shifted.astype(float), y))
    assert distance(gradients[1], gradients[0]) < SAME
    assert np.abs(gradients[0]["hidden.input.weight"]).max() > 1e-4


def test_learnable_arguments_of_the_neuron_may_be_named_on_either() -> None:
    inside = DelayedCell(LIFCell(learnable=["threshold"]), 2, learnable=["steps"])
    outside = DelayedCell("lif", 2, learnable=["steps", "threshold"])
    assert inside == outside
    assert inside.learnable == ("threshold", "steps")


def test_it_is_written_as_any_neuron_in_configurations_and_its_membrane_can_be_quantised() -> None:
    cell = CELLS.resolve({"name": "delayed", "cell": {"name": "alif", "beta": 0.2}, "steps": [0, 2.5], "longest": 4})
    assert cell == DelayedCell(ALIFCell(beta=0.2), [0, 2.5], 4)
    network = quantize(Stack([Layer(cell, 2)], 2, inputs=3), membrane_bits=4)
    x = np.random.default_rng(0).standard_normal((1, 9, 3)).astype("float32")
    v = Evaluator(network).trajectory(x).records["hidden"].states["v"]
    assert len(np.unique(v)) <= 15


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: DelayedCell("lif", -1), "steps must be"),
        (lambda: DelayedCell("lif", 2.5, longest=2), "use longest=3"),
        (lambda: DelayedCell(DelayedCell("lif")), "a neuron has one delay"),
        (lambda: DelayedCell("lif", 0, learnable="steps"), "0 steps"),
        (lambda: DelayedCell("lif", learnable="delay"), "cannot learn"),
        (lambda: DelayedCell("lif", spread=0), "spread must be"),
        (lambda: Stack([Layer(DelayedCell("lif", [1, 2]), 3)], 2, inputs=1), "steps of hidden needs one value"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: Any, part: str) -> None:
    with pytest.raises(ArgumentError, match=part):
        make()


def test_errors_of_a_time_step_are_not_sought_through_late_layers() -> None:
    layers = [Layer("lif", 4), Layer(DelayedCell("lif", 2), 4)]
    model = Evaluator(Stack(layers, 2, inputs=3))
    with pytest.raises(IncompatibleError, match="'hidden1' with delays, above 'hidden0'"):
        EProp(model)
    # Straight from the output, and through time, they arrive.
    x, y = data(inputs=3, outputs=2)
    for rule in (DFA, BPTT):
        assert np.abs(rule(model).gradients(x, y)["hidden0.input.weight"]).max() > 0
