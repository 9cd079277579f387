"""Spike-timing-dependent plasticity against sums over pairs and triplets of spike times, bounds, homeostasis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, data, distance

from neko_rules import ALIF, BPTT, LIF, RNN, STDP, Evaluator, Layer, Network, Stack, TripletSTDP
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.optimizers import Adam, Naive

DT = 1e-3
OBEDIENT = LIFCell(tau_membrane=0.0, reset="none")
"""A neuron without memory: it fires exactly in the steps in which it is driven."""


def driven(weight: float = 0.0) -> Evaluator:
    """One neuron with two inputs: the first is the synapse that is looked at, the second makes the neuron fire."""
    network = Stack([Layer(OBEDIENT, 1, recurrent=False)], 1, inputs=2, dtype="float64", task_type="regression", dt=DT)
    network.set_parameters({"hidden.input.weight": [[weight], [2.0]]})
    return Evaluator(network)


def change(rule: STDP, pre: Any, post: Any, steps: int = 60) -> float:
    """dw of the synapse when the two sides fire in the given steps."""
    x = np.zeros((1, steps, 2))
    x[0, list(pre), 0] = 1
    x[0, list(post), 1] = 1
    fired = rule.model.trajectory(x).z("hidden")[:, 0, 0]
    assert np.array_equal(np.flatnonzero(fired), sorted(post))
    return -float(rule.gradients(x, np.zeros((1, steps, 1)))["hidden.input.weight"][0, 0])


PAIR: dict[str, Any] = {"potentiation": 0.8, "depression": 0.9, "tau_plus": 12e-3, "tau_minus": 25e-3}
TRIPLET: dict[str, Any] = {
    **PAIR, "triplet_potentiation": 0.6, "triplet_depression": 0.3, "tau_x": 40e-3, "tau_y": 70e-3,
}  # fmt: skip


@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("steps_apart", [1, 2, 7, 30, -1, -3, -20, 0])
def test_an_isolated_pair_gives_the_window(steps_apart: int, pairing: str) -> None:
    """A₊ exp(-Δt/τ₊) after, -A₋ exp(Δt/τ₋) before, and nothing at the same time."""
    apart = steps_apart * DT
    window = {1: 0.8 * np.exp(-apart / 12e-3), -1: -0.9 * np.exp(apart / 25e-3), 0: 0.0}
    expected = window[np.sign(steps_apart)]
    first = 25
    found = change(STDP(driven(), pairing=pairing, **PAIR), [first], [first + steps_apart])
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("rule", [STDP, TripletSTDP])
def test_graded_inputs_count_as_that_many_spikes(rule: type[STDP]) -> None:
    """dw is linear in the input of a synapse, also where it is negative, for given spikes of its neuron."""
    options = PAIR if rule is STDP else TRIPLET | {"triplet_depression": 0.0}
    made, rng = rule(driven(), **options), np.random.default_rng(0)
    x = np.zeros((1, 60, 2))
    x[0, [9, 20, 22, 41], 1] = 1.0
    graded, y = rng.standard_normal(60), np.zeros((1, 60, 1))

    def found(train: np.ndarray) -> float:
        given = x.copy()
        given[0, :, 0] = train
        return -float(made.gradients(given, y)["hidden.input.weight"][0, 0])

    single = [found(np.eye(60)[t]) for t in range(60)]
    assert found(graded) == pytest.approx(float(graded @ single), rel=1e-10)
    assert min(single) < 0 < max(single)


@pytest.mark.parametrize("rule", [STDP, TripletSTDP])
def test_nearest_pairing_refuses_inputs_that_have_no_trace(rule: type[STDP]) -> None:
    made, y = rule(driven(), pairing="nearest"), np.zeros((1, 6, 1))
    for values in ([-0.5, 1.0], [0.0, 2.0]):
        x = np.zeros((1, 6, 2))
        x[0, :2, 0] = values
        for call in (made.step, made.gradients, made.observed_step):
            with pytest.raises(DataError, match=r"from 0 to 1, since a spike sets its trace to 1 .*pairing='all'"):
                call(x, y)
    assert made.steps == 0
    between = rule(Evaluator(NETWORKS["alif"]("numpy")), pairing="nearest", connections=["hidden.recurrent.weight"])
    assert np.isfinite(between.step(*data())["loss"]), "no input is paired"


def by_pairs(pre: list[int], post: list[int], nearest: bool, p: dict[str, Any]) -> tuple[float, float]:
    """Potentiation and depression by a sum over spike times."""
    up = down = 0.0
    for t in post:
        earlier = [s for s in pre if s < t]
        up += sum(p["potentiation"] * np.exp(-(t - s) * DT / p["tau_plus"]) for s in earlier[-1 if nearest else 0 :])
    for t in pre:
        earlier = [s for s in post if s < t]
        down += sum(p["depression"] * np.exp(-(t - s) * DT / p["tau_minus"]) for s in earlier[-1 if nearest else 0 :])
    return up, down


def by_triplets(pre: list[int], post: list[int], nearest: bool, p: dict[str, Any]) -> tuple[float, float]:
    """The same with triplets (Pfister & Gerstner 2006, equations 3 and 4), traces written out as sums."""

    def trace(train: list[int], t: int, tau: float) -> float:
        earlier = [s for s in train if s < t]
        return sum(float(np.exp(-(t - s) * DT / tau)) for s in earlier[-1 if nearest else 0 :])

    up = sum(
        trace(pre, t, p["tau_plus"]) * (p["potentiation"] + p["triplet_potentiation"] * trace(post, t, p["tau_y"]))
        for t in post
    )
    down = sum(
        trace(post, t, p["tau_minus"]) * (p["depression"] + p["triplet_depression"] * trace(pre, t, p["tau_x"]))
        for t in pre
    )
    return up, down


@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("bounds", ["none", "soft"])
def test_random_trains_give_the_sum_over_pairs_and_triplets(pairing: str, bounds: str) -> None:
    rng = np.random.default_rng(3)
    pre, post = (sorted(rng.choice(60, 12, replace=False).tolist()) for _ in range(2))
    weight = 0.3
    for rule_class, p, closed_form in ((STDP, PAIR, by_pairs), (TripletSTDP, TRIPLET, by_triplets)):
        rule = rule_class(driven(weight), pairing=pairing, bounds=bounds, w_min=-0.5, w_max=1.5, **p)
        up, down = closed_form(pre, post, pairing == "nearest", p)
        if bounds == "soft":
            up, down = (1.5 - weight) * up, (weight + 0.5) * down
        assert change(rule, pre, post) == pytest.approx(up - down, rel=1e-12)
    assert by_triplets(pre, post, False, TRIPLET) != by_triplets(pre, post, True, TRIPLET)


@pytest.mark.parametrize(("pre", "post"), [([10, 20], [15]), ([15], [10, 20]), ([10, 30], [12]), ([5], [5, 9])])
def test_isolated_triplets_give_the_closed_form(pre: list[int], post: list[int]) -> None:
    up, down = by_triplets(pre, post, False, TRIPLET)
    assert change(TripletSTDP(driven(), **TRIPLET), pre, post) == pytest.approx(up - down, rel=1e-12)


def test_a_triplet_written_out() -> None:
    """Post, pre, post: the pair window before and after, and A3₊ with the time between the postsynaptic spikes."""
    found = change(TripletSTDP(driven(), **TRIPLET), [15], [10, 20])
    up = np.exp(-5 / 12) * (0.8 + 0.6 * np.exp(-10 / 70))
    assert found == pytest.approx(up - 0.9 * np.exp(-5 / 25), rel=1e-12)


def test_without_triplet_terms_it_is_pair_based() -> None:
    trains = [3, 9, 11, 40], [4, 10, 38, 41]
    rule = TripletSTDP(driven(), **{**TRIPLET, "triplet_potentiation": 0.0, "triplet_depression": 0.0})
    assert change(rule, *trains) == pytest.approx(change(STDP(driven(), **PAIR), *trains), rel=1e-12)
    for knob in ("triplet_potentiation", "triplet_depression", "tau_x", "tau_y"):
        changed = change(TripletSTDP(driven(), **{**TRIPLET, knob: 2 * TRIPLET[knob]}), *trains)
        assert abs(changed - change(TripletSTDP(driven(), **TRIPLET), *trains)) > 1e-3, knob


def test_a_delayed_connection_pairs_at_arrival() -> None:
    """A spike of one neuron arrives at the other one step later; the change is the mean over the examples."""
    layer = Layer(OBEDIENT, 2, initializer="zeros", recurrent_initializer="zeros")
    network = Stack([layer], 1, inputs=2, dtype="float64", task_type="regression", dt=DT)
    network.set_parameters({"hidden.input.weight": 2 * np.eye(2)})
    rule = STDP(Evaluator(network), connections=["hidden.recurrent.weight"], **PAIR)
    x = np.zeros((2, 20, 2))
    x[0, 5, 0] = x[0, 9, 1] = 1
    dw = -rule.gradients(x, np.zeros((2, 20, 1)))["hidden.recurrent.weight"]
    # 0 → 1 arrives at step 6, three steps before; 1 → 0 at step 10, five steps after.
    expected = [[0.0, 0.8 * np.exp(-3 / 12) / 2], [-0.9 * np.exp(-5 / 25) / 2, 0.0]]
    np.testing.assert_allclose(dw, expected, rtol=1e-12)
    assert not rule.gradients(x, np.zeros((2, 20, 1)))["hidden.input.weight"].any()


# Bounds.


@pytest.mark.parametrize("optimizer", [Naive(), Adam(0.3)])
@pytest.mark.parametrize("bounds", ["hard", "soft", "none"])
def test_bounds_are_never_exceeded(bounds: str, optimizer: Any) -> None:
    """Random spikes and large steps, with homeostasis, over several seeds; without bounds the weights leave."""
    outside = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, y = (rng.random((4, 40, 4)) < 0.4).astype(float), rng.integers(0, 3, 4)
        model = Evaluator(ALIF(8, 3, inputs=4, seed=seed, dtype="float32"))
        rule = TripletSTDP if seed % 2 else STDP
        limits: dict[str, Any] = {"w_min": -0.3, "w_max": 0.7, "target_rate": 100.0}
        trained = rule(model, bounds=bounds, optimizer=optimizer, **limits)
        for _ in range(6):
            trained.step(x, y)
            for name in trained.plastic:
                weight = model.network.parameters[name]
                outside += int((weight < np.float32(-0.3)).sum() + (weight > np.float32(0.7)).sum())
        assert not np.diag(model.network.parameters["hidden.recurrent.weight"]).any()
    assert (outside == 0) == (bounds != "none")


def test_soft_bounds_weaken_near_the_limit() -> None:
    far, near = (change(STDP(driven(w), bounds="soft", **PAIR), [10], [12]) for w in (0.0, 0.9))
    assert near == pytest.approx(0.1 * far, rel=1e-12)
    hard = [change(STDP(driven(w), bounds="hard", **PAIR), [10], [12]) for w in (0.0, 0.9)]
    assert hard[0] == hard[1]


# Homeostasis.


@pytest.mark.parametrize(("gain", "target"), [(0.2, 150.0), (2.0, 60.0)])
def test_homeostasis_moves_the_rate_to_its_target(gain: float, target: float) -> None:
    """Scaling alone, from below and from above; and its size is s (f* - f)/f* |w|."""
    rng = np.random.default_rng(0)
    x = (rng.random((8, 60, 20)) < 0.1).astype(float)
    y = np.zeros((8, 60, 1))
    initializer = {"name": "scaled_normal", "gain": gain}
    # A silent readout has no error, so the weights of the hidden neurons are all that changes.
    options = {"task_type": "regression", "readout_initializer": "zeros", "dtype": "float64"}
    network = LIF(10, 1, recurrent=False, initializer=initializer, **options)
    model = Evaluator(network, metrics=["firing_rate"])
    model.check(x)
    network.set_parameters({"hidden.input.weight": np.abs(network.parameters["hidden.input.weight"])})
    off: dict[str, Any] = {"potentiation": 0.0, "depression": 0.0, "bounds": "none"}
    rule = STDP(model, target_rate=target, optimizer={"name": "sgd", "learning_rate": 0.05}, **off)
    rates = model.trajectory(x).z("hidden").mean((0, 1)) / DT
    weight = network.parameters["hidden.input.weight"]
    found = -rule.gradients(x, y)["hidden.input.weight"]
    np.testing.assert_allclose(found, (1 - rates / target) * np.abs(weight), rtol=1e-12)
    before = model.evaluate(x, y)["firing_rate"]
    for _ in range(150):
        rule.step(x, y)
    after = model.evaluate(x, y)["firing_rate"]
    assert abs(before - target) > 0.3 * target
    assert abs(after - target) < 0.05 * target, (before, after)
    assert not STDP(model, **off).gradients(x, y)["hidden.input.weight"].any()


# The readout, and what is left alone.


@pytest.mark.parametrize("name", ["alif", "recurrent readout", "last output", "maximum output"])
def test_the_readout_learns_by_its_exact_gradient(name: str) -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.random((3, 14, 4)) < 0.5).astype(float), np.array([0, 1, 2])
    model = Evaluator(NETWORKS[name]("numpy"))
    found, expected = STDP(model).gradients(x, y), BPTT(model).gradients(x, y)
    readout = [key for key in found if key.startswith("readout")]
    assert len(readout) >= 2
    assert distance({key: found[key] for key in readout}, {key: expected[key] for key in readout}) < 1e-12
    hidden = {key: found[key].any() for key in found if key not in readout}
    assert hidden == {key: key.endswith(".weight") for key in hidden}


def test_it_classifies_by_its_readout() -> None:
    """Two classes with different input channels: the loss of the taught readout falls by more than half."""
    rng = np.random.default_rng(1)
    y = np.arange(32) % 2
    x = (rng.random((32, 20, 6)) < 0.1 + 0.4 * (np.arange(6)[None, None] // 3 == y[:, None, None])).astype(float)
    rule = STDP(Evaluator(LIF(16, 2, threshold=0.5), metrics=["accuracy"]))
    first = rule.step(x, y)
    for _ in range(150):
        last = rule.step(x, y)
    assert last["loss"] < 0.5 * first["loss"]
    assert last["accuracy"] > 0.9


def test_which_connections_are_plastic() -> None:
    model = Evaluator(NETWORKS["deep"]("numpy"))
    names = ["hidden0.input", "hidden0.recurrent", "hidden1.input", "hidden1.recurrent", "hidden2.input"]
    assert list(STDP(model).plastic) == [f"{name}.weight" for name in [*names, "hidden2.recurrent"]]
    with pytest.raises(IncompatibleError, match=r"did you mean 'hidden0\.input\.weight'"):
        STDP(model, connections=["hidden0.inputs.weight"])
    with pytest.raises(IncompatibleError, match="from the input or spiking neurons"):
        STDP(model, connections=["readout.input.weight"])
    with pytest.raises(ArgumentError, match="must be a list"):
        STDP(model, connections="hidden0.input.weight")
    with pytest.raises(IncompatibleError, match="needs a connection to spiking neurons"):
        STDP(Evaluator(RNN(4, 2)))


def test_a_spiking_output_is_plastic_too() -> None:
    populations = {"out": {"cell": OBEDIENT, "size": 2}}
    network = Network(populations, [{"source": "input", "target": "out"}], "out", inputs=2, dtype="float64")
    rule = STDP(Evaluator(network))
    assert list(rule.plastic) == ["out.from_input.weight"]
    network.set_parameters({"out.from_input.weight": 2 * np.eye(2)})
    x = np.zeros((1, 9, 2))
    x[0, 2, 0] = x[0, 5, 1] = 1
    found = -rule.gradients(x, [0])["out.from_input.weight"]
    expected = [[0, 0.5 * np.exp(-3 / 20)], [-0.525 * np.exp(-3 / 20), 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_refusals() -> None:
    model = Evaluator(LIF(4, 2, inputs=3))
    with pytest.raises(IncompatibleError, match="no loss that a regulariser"):
        STDP(model, regularizers=["firing_rate"])
    with pytest.raises(IncompatibleError, match="not the constants of hidden neurons"):
        STDP(Evaluator(LIF(4, 2, learnable=["threshold"])))
    with pytest.raises(ArgumentError, match=r"w_max must be a finite number above 0\.5"):
        STDP(model, w_min=0.5, w_max=0.5)
    with pytest.raises(ArgumentError, match="pairing must be one of"):
        STDP(model, pairing="every")
    with pytest.raises(ArgumentError, match="tau_x"):
        TripletSTDP(model, tau_x=0)
    with pytest.raises(ArgumentError, match="no argument 'potentation'"):
        TripletSTDP(model, potentation=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("few", [0.05, 0.9])
@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("rule", [STDP, TripletSTDP])
def test_walked_spikes_and_loops_give_what_operations_give(rule: type[STDP], pairing: str, few: float) -> None:
    """By the events of the train that is mostly zero, or by a product where neither is; traces by one loop."""
    rng = np.random.default_rng(0)
    x, y = (rng.random((6, 40, 9)) < few) * 1.0, rng.integers(3, size=6)
    made = rule(Evaluator(LIF([12, 8], 3, inputs=9, dtype="float64", threshold=0.3)), pairing=pairing)
    found = made.gradients(x, y)
    with unfused():
        expected = made.gradients(x, y)
    for name, value in expected.items():
        # Biases of hidden neurons do not change.
        assert np.abs(value).max() > 1e-8 or name.endswith(".bias"), name
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12 * np.abs(value).max(), err_msg=name)
