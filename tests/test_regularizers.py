"""Regularizers: closed forms, derivatives by central differences, the online form, every backend, and every rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from credit_cases import HOLDING, NETWORKS, alive, by_autodiff, data, distance, stack

from neko_rules import BPTT, STDP, Evaluator
from neko_rules.backend import Parameters, get_backend
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.forward import run
from neko_rules.layers.integrate_and_fire import ALIFCell
from neko_rules.regularizers import (
    REGULARIZERS,
    Activity,
    FiringRate,
    FiringRateLowerBound,
    FiringRateUpperBound,
    MembraneBounds,
    Regularizer,
    SpikeL1,
)
from neko_rules.rules import RULES

NX = get_backend("numpy")
DT = 1e-3
BITING: dict[str, Callable[..., Regularizer]] = {
    "firing_rate": FiringRate,
    "firing_rate_lower_bound": lambda **options: FiringRateLowerBound(**{"bound": 300.0, **options}),
    "firing_rate_upper_bound": lambda **options: FiringRateUpperBound(**{"bound": 50.0, **options}),
    "spike_l1": SpikeL1,
    "membrane_bounds": lambda **options: MembraneBounds(**{"lower": -0.5, "upper": 0.5, **options}),
}
"""Every regularizer with options for which it penalises the activity below."""

Arrays = dict[str, np.ndarray]


def activity(spikes: Any, membranes: Any) -> Activity:
    return Activity(spikes, {(name, "v"): v for name, v in membranes.items()}, "readout")


def layers(seed: int = 0) -> tuple[Arrays, Arrays]:
    """Spikes of two populations, [20, 3, neuron], about 200 Hz, and their membranes and a readout's."""
    rng = np.random.default_rng(seed)
    sizes = {"first": 4, "second": 2}
    spikes = {name: (rng.uniform(size=(20, 3, n)) < 0.2).astype(float) for name, n in sizes.items()}
    return spikes, {name: rng.normal(size=(20, 3, n)) for name, n in {**sizes, "readout": 2}.items()}


def value(regularizer: Regularizer) -> Callable[..., Any]:
    return lambda nx, spikes, membranes: regularizer.value(nx, activity(spikes, membranes), DT)


def flat(signals: Any) -> dict[str, Any]:
    return {f"{population}/{of}": signal for (population, of), signal in signals.items()}


def gradient(regularizer: Regularizer) -> Callable[..., Any]:
    return lambda nx, spikes, membranes: flat(regularizer.gradient(nx, activity(spikes, membranes), DT))


def test_every_regularizer_has_a_case_and_is_exported() -> None:
    import neko_rules

    assert list(BITING) == list(REGULARIZERS)
    for name in REGULARIZERS:
        assert type(REGULARIZERS.resolve(name)) is type(BITING[name]())
        assert hasattr(neko_rules, type(BITING[name]()).__name__)


# Values and derivatives.


@pytest.mark.parametrize("name", BITING)
def test_gradient_is_that_of_central_differences(name: str) -> None:
    regularizer, parts, h = BITING[name](), layers(), 1e-5
    found = gradient(regularizer)(NX, *parts)
    assert found
    checked = 0
    for key, analytic in found.items():
        population, of = key.split("/")
        place = 0 if of == "z" else 1
        full = np.broadcast_to(analytic, parts[place][population].shape)
        assert np.abs(full).max() > 1e-6
        for index in [(0, 0, 0), (7, 2, 1), (19, 1, 0), (3, 1, 1), (11, 0, 0)]:
            ends = []
            for sign in (1, -1):
                moved = [{name: array.copy() for name, array in part.items()} for part in parts]
                moved[place][population][index] += sign * h
                ends.append(value(regularizer)(NX, *moved))
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(full[index], rel=1e-5, abs=1e-11)
            checked += full[index] != 0
    assert checked >= 2


def everything(nx: Any, spikes: Any, membranes: Any) -> dict[str, Any]:
    """Value, derivative and online form of every penalty."""
    seen, found = activity(spikes, membranes), {}
    one = activity(*({name: each[:1] for name, each in part.items()} for part in (spikes, membranes)))
    running = {name: nx.mean(each, axis=0, keepdims=True) for name, each in spikes.items()}
    for name, make in BITING.items():
        found[f"{name}/value"] = make().value(nx, seen, DT)
        found |= {f"{name}/{key}": each for key, each in flat(make().gradient(nx, seen, DT)).items()}
        online = flat(make().online(nx, one, running, DT))
        found |= {f"{name}/online/{key}": each for key, each in online.items()}
    return found


def test_same_on_every_backend(evaluate: Callable[..., Any]) -> None:
    parts, copies = layers(), layers()
    expected, found = everything(NX, *parts), evaluate(everything, *parts)
    assert set(found) == set(expected)
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key], rtol=1e-10, err_msg=key)
    for part, copy in zip(parts, copies, strict=True):
        for population, array in part.items():
            np.testing.assert_array_equal(array, copy[population])


def test_float32_and_small_sizes(evaluate: Callable[..., Any]) -> None:
    spikes = {"one": np.ones((1, 1, 1), np.float32), "none": np.ones((4, 1, 0), np.float32)}
    for key, array in evaluate(everything, spikes, spikes).items():
        assert array.dtype == np.float32, key
        assert np.isfinite(array).all(), key
        if "/none/" in key:
            assert np.broadcast_to(array, (4, 1, 0)).size == 0


def test_firing_rate_in_closed_form() -> None:
    spikes, membranes = layers()
    rates = np.concatenate([array.mean(axis=(0, 1)) / DT for array in spikes.values()])
    regularizer = FiringRate(target=50.0, strength=3.0)
    expected = 0.5 * 3.0 * np.sum(((rates - 50.0) * DT) ** 2)
    assert value(regularizer)(NX, spikes, membranes) == pytest.approx(expected, rel=1e-12)
    first = regularizer.gradient(NX, activity(spikes, membranes), DT)["first", "z"]
    np.testing.assert_allclose(first.ravel(), 3.0 * (rates[:4] - 50.0) * DT / 60, rtol=1e-12)


def test_bounds_in_closed_form() -> None:
    """Neurons at 0, 100, 200 and 700 Hz: the lower bound sees each of them, the upper one their mean of 250 Hz."""
    spikes = np.zeros((10, 2, 4))
    for neuron, each in enumerate((0, 1, 2, 7)):
        spikes[:each, :, neuron] = 1.0
    seen = activity({"h": spikes}, {})
    lower, upper = FiringRateLowerBound(bound=150.0, strength=2.0), FiringRateUpperBound(bound=200.0, strength=2.0)
    assert lower.value(NX, seen, DT) == pytest.approx(0.15**2 + 0.05**2, rel=1e-12)
    np.testing.assert_allclose(
        lower.gradient(NX, seen, DT)["h", "z"].ravel(), -2.0 * np.array([0.15, 0.05, 0, 0]) / 20, atol=1e-15
    )
    assert upper.value(NX, seen, DT) == pytest.approx(4 * 0.05**2, rel=1e-12)
    np.testing.assert_allclose(upper.gradient(NX, seen, DT)["h", "z"].ravel(), np.full(4, 2.0 * 0.05 / 20), rtol=1e-12)
    assert FiringRateUpperBound(bound=250.1).value(NX, seen, DT) == 0
    assert not FiringRateUpperBound(bound=250.1).gradient(NX, seen, DT)["h", "z"].any()
    assert SpikeL1(strength=3.0).value(NX, seen, DT) == pytest.approx(3.0, rel=1e-12)


def test_membrane_bounds_in_closed_form() -> None:
    v = np.array([[[3.0, 0.0]], [[-1.5, 1.0]]])
    seen = activity({"h": 0 * v}, {"h": v, "readout": 100 * v})
    both = MembraneBounds(lower=-1.0, upper=2.0, strength=4.0)
    assert both.value(NX, seen, DT) == pytest.approx(0.5 * 4.0 * (1.0 + 0.25) / 2, rel=1e-12)
    assert both.gradient(NX, seen, DT)["h", "v"].tolist() == [[[2.0, 0.0]], [[-1.0, 0.0]]]
    assert set(both.gradient(NX, seen, DT)) == {("h", "v")}
    named = MembraneBounds(lower=-1.0, upper=2.0, populations=["readout"])
    assert set(named.gradient(NX, seen, DT)) == {("readout", "v")}
    assert MembraneBounds(lower=None, upper=2.0).gradient(NX, seen, DT)["h", "v"].ravel().tolist() == [0.5, 0, 0, 0]
    assert MembraneBounds(lower=-1.0, upper=None).gradient(NX, seen, DT)["h", "v"].ravel()[2] == -0.25


def test_firing_rate_pushes_towards_its_target() -> None:
    silent, busy = activity({"h": np.zeros((10, 2, 1))}, {}), activity({"h": np.ones((10, 2, 1))}, {})
    assert FiringRate(10.0).gradient(NX, silent, DT)["h", "z"] < 0
    assert FiringRate(10.0).gradient(NX, busy, DT)["h", "z"] > 0
    at_target = activity({"h": np.eye(10)[:, :1, None]}, {})
    assert FiringRate(100.0).value(NX, at_target, DT) == pytest.approx(0.0, abs=1e-30)


@pytest.mark.parametrize("name", BITING)
def test_no_penalty_depends_on_the_sizes_of_batch_and_time(name: str) -> None:
    parts = layers()
    longer = [{key: np.tile(array, (3, 2, 1)) for key, array in part.items()} for part in parts]
    regularizer = BITING[name]()
    assert value(regularizer)(NX, *longer) == pytest.approx(value(regularizer)(NX, *parts), rel=1e-12)


@pytest.mark.parametrize("name", BITING)
def test_the_online_form_is_the_gradient_of_one_step_with_the_rates_so_far(name: str) -> None:
    """With rates that have settled, the mean over steps of the online form is the deferred gradient."""
    spikes, membranes = layers()
    regularizer, steps = BITING[name](), 20
    expected = regularizer.gradient(NX, activity(spikes, membranes), DT)
    settled = {key: array.mean(axis=0, keepdims=True) for key, array in spikes.items()}
    for t in range(steps):
        parts = [{key: array[t : t + 1] for key, array in part.items()} for part in (spikes, membranes)]
        found = regularizer.online(NX, activity(*parts), settled, DT)
        assert set(found) == set(expected)
        for key, signal in found.items():
            assert signal.shape[0] == 1
            whole = np.broadcast_to(expected[key], (steps, 3, signal.shape[-1]))
            np.testing.assert_allclose(np.broadcast_to(signal / steps, whole[:1].shape)[0], whole[t], rtol=1e-12)
        one = regularizer.gradient(NX, activity(*parts), DT)
        for key, signal in regularizer.online(NX, activity(*parts), parts[0], DT).items():
            np.testing.assert_allclose(signal, one[key], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *[(name, {"strength": 2.0}) for name in BITING],
        *[(name, {"populations": ["first"]}) for name in BITING],
        ("firing_rate", {"target": 20.0}),
        ("firing_rate_lower_bound", {"bound": 250.0}),
        ("firing_rate_upper_bound", {"bound": 70.0}),
        ("membrane_bounds", {"lower": -0.2}),
        ("membrane_bounds", {"upper": 0.2}),
    ],
)
def test_every_knob_matters(name: str, changed: dict[str, Any]) -> None:
    usual, other = (value(BITING[name](**options))(NX, *layers()) for options in ({}, changed))
    assert other != pytest.approx(usual, rel=1e-3)
    assert np.isfinite(other)


def test_another_state_can_be_bounded() -> None:
    a = np.array([[[5.0]]])
    seen = Activity({"h": a}, {("h", "v"): 0 * a, ("h", "a"): a}, "readout")
    assert set(MembraneBounds(state="a").gradient(NX, seen, DT)) == {("h", "a")}


# Within rules.


def penalised(model: Evaluator, regularizer: Regularizer, x: np.ndarray) -> dict[str, np.ndarray]:
    """The derivative of a penalty by the backend's automatic differentiation."""
    nx, network = model.nx, model.network
    inputs = nx.asarray(np.ascontiguousarray(x.transpose(1, 0, 2)))

    def penalty(values: Parameters) -> Any:
        recorded = run(nx, network.graph, network.constants, values, inputs, differentiable=True)
        return regularizer.value(nx, Activity.of(network, recorded), network.dt)

    found = nx.value_and_grad(penalty)(network.values)[1]
    return {name: nx.to_numpy(array) for name, array in found.items()}


@pytest.mark.parametrize("network", ["deep", "refractory"])
@pytest.mark.parametrize("name", BITING)
def test_bptt_with_a_regularizer_is_autodiff_of_the_sum(name: str, network: str) -> None:
    pytest.importorskip("torch")
    x, y = data()
    model = Evaluator(NETWORKS[network]("torch"))
    alive(model, x)
    regularizer = BITING[name](strength=50.0)
    loss, penalty = by_autodiff(model, x, y), penalised(model, regularizer, x)
    total = {key: loss[key] + penalty[key] for key in loss}
    found = BPTT(model, regularizers=[regularizer]).gradients(x, y)
    assert distance(found, total) < 1e-12
    assert np.linalg.norm(penalty["readout.input.weight"]) == 0
    assert max(np.linalg.norm(array) for array in penalty.values()) > 1e-6


@pytest.mark.parametrize("name", BITING)
@pytest.mark.parametrize("rule", list(RULES))
def test_no_rule_ignores_a_regularizer(rule: str, name: str) -> None:
    """Every rule's gradient moves with every penalty, in proportion to its strength, and not at all without one.

    A rule that has no loss for a penalty to join says so.
    """
    x, y = data()
    model = Evaluator(stack(ALIFCell(beta=0.3))("numpy"))
    alive(model, x)
    if issubclass(RULES[rule], STDP):  # type: ignore[arg-type]
        with pytest.raises(IncompatibleError, match="no loss that a regulariser could join"):
            RULES[rule](model, regularizers=[BITING[name]()])
        return
    options = HOLDING.get(rule, {})
    plain = RULES[rule](model, **options).gradients(x, y)
    none, once, twice = (
        RULES[rule](model, regularizers=[BITING[name](strength=c)], **options).gradients(x, y)["hidden.input.weight"]
        for c in (0.0, 10.0, 20.0)
    )
    own = plain["hidden.input.weight"]
    np.testing.assert_allclose(none, own, rtol=0, atol=1e-15)
    assert np.linalg.norm(once - own) > 1e-3 * np.linalg.norm(own)
    np.testing.assert_allclose(twice - own, 2 * (once - own), rtol=1e-9, atol=1e-12)


def test_membranes_of_rate_units_can_be_bounded() -> None:
    x, y = data()
    model = Evaluator(NETWORKS["tanh"]("numpy"))
    bounded = BPTT(model, regularizers=[MembraneBounds(lower=-0.1, upper=0.1)]).gradients(x, y)
    assert distance(bounded, BPTT(model).gradients(x, y)) > 1e-3


# What is refused.


@pytest.mark.parametrize("name", BITING)
def test_activity_of_the_wrong_kind_is_refused(name: str) -> None:
    for method in (BITING[name]().value, BITING[name]().gradient):
        with pytest.raises(IncompatibleError, match="needs"):
            method(NX, Activity({}, {}, "readout"), DT)


@pytest.mark.parametrize(
    ("regularizer", "network", "said"),
    [
        (FiringRate(), "tanh", "FiringRate needs spiking neurons"),
        (SpikeL1(), "relu", "SpikeL1 needs spiking neurons"),
        (FiringRate(populations=["hiden"]), "lif", "did you mean 'hidden'"),
        (FiringRate(populations=["hidden", "readout"]), "lif", "needs spiking neurons"),
        (MembraneBounds(populations=["hiden"]), "tanh", "did you mean 'hidden'"),
        (MembraneBounds(state="w"), "lif", "needs neurons with the state"),
        (MembraneBounds(state="a", populations=["readout"]), "alif", "needs neurons with the state"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_when_the_rule_is_built(
    regularizer: Regularizer, network: str, said: str
) -> None:
    with pytest.raises(IncompatibleError, match=said):
        BPTT(Evaluator(NETWORKS[network]("numpy")), regularizers=[regularizer])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("firing_rate", {"target": -1.0}),
        ("firing_rate", {"target": float("nan")}),
        ("firing_rate_lower_bound", {"bound": -1.0}),
        ("firing_rate_upper_bound", {"bound": "high"}),
        ("membrane_bounds", {"lower": float("inf")}),
        ("membrane_bounds", {"state": 3}),
        *[(name, {"strength": -1.0}) for name in REGULARIZERS],
        *[(name, {"populations": wrong}) for name in ("firing_rate", "membrane_bounds") for wrong in ("h", [], [1])],
    ],
)
def test_refusals(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        REGULARIZERS.resolve({"name": name, **wrong})


def test_membrane_bounds_without_a_bound_or_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ArgumentError, match="need a lower bound"):
        MembraneBounds(lower=None, upper=None)
    with pytest.raises(ArgumentError, match="at most the upper"):
        MembraneBounds(lower=1.0, upper=0.0)
