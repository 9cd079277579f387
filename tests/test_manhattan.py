"""The Manhattan family: signSGD exactly, every decision against its equation, crossbars, per sample, and Tiki-Taka."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, PULSED, data

from neko_rules import (
    BPTT,
    LIF,
    RNN,
    EProp,
    Evaluator,
    FiringRate,
    Manhattan,
    TikiTaka,
    TikiTakaV2,
    TorchModel,
)
from neko_rules.backend import get_backend
from neko_rules.devices import Constant, Crossbar, SoftBounds, presets
from neko_rules.errors import IncompatibleError
from neko_rules.rules import DECISIONS, RULES
from neko_rules.rules.pulses import AccumulateAndFire, MultiPulse, SignOfMomentum, StochasticPulse, TopK

NX = get_backend("numpy")


def model_of(backend: str = "numpy") -> Evaluator:
    return Evaluator(NETWORKS["alif"](backend), metrics=["accuracy"])


def noisy(**options: Any) -> Crossbar:
    device = replace(
        SoftBounds(step=2e-6), cycle_noise=0.3, step_spread=0.2, write_noise=0.02, read_noise=0.01, stuck=0.05
    )
    return Crossbar(**{"device": device, "w_max": 2.0, **options})


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


# signSGD.


def test_without_a_crossbar_it_is_sign_sgd_exactly() -> None:
    x, y = data()
    rule = Manhattan(model_of(), delta=0.01)
    truth = BPTT(model_of()).gradients(x, y)
    assert same(rule.gradients(x, y), truth)
    before = rule.model.network.parameters
    rule.step(x, y)
    for name, value in rule.model.network.parameters.items():
        assert np.array_equal(value, before[name] - 0.01 * np.sign(truth[name])), name


@pytest.mark.parametrize("encoding", ["differential", "one_fixed", "reference_column"])
def test_an_ideal_crossbar_is_sign_sgd_too(encoding: str) -> None:
    x, y = data()
    crossbar = Crossbar(Constant(step=0.05e-6), encoding=encoding, w_max=10.0)
    delta = crossbar.weight_step("w")
    analog, digital = Manhattan(model_of(), delta, crossbar=crossbar), Manhattan(model_of(), delta)
    for _ in range(3):
        figures = analog.step(x, y)
        assert digital.step(x, y)["loss"] == pytest.approx(figures["loss"], rel=1e-10)
    for name, value in digital.model.network.parameters.items():
        np.testing.assert_allclose(analog.model.network.parameters[name], value, rtol=1e-10, atol=1e-12)


def test_a_zero_gradient_moves_nothing() -> None:
    x, y = data()
    for options in ({}, {"crossbar": noisy()}, {"crossbar": noisy(encoding="one_sided", budget=5)}):
        network = NETWORKS["alif"]("numpy")
        rule = Manhattan(Evaluator(network), dead_zone=1e9, dead_zone_unit="absolute", **options)
        rule.step(x, y)
        before = rule.state()
        rule.step(x, y)
        after = rule.state()
        moved = {name for name, value in before.items() if not np.array_equal(value, after[name])}
        # Read noise is drawn anew for every read.
        assert moved <= {"steps", *(f"parameters/{name}" for name in network.parameters if options)}
        written = rule.crossbar is not None and rule.crossbar.crossbar.budget  # the first weights cost pulses then
        assert rule.crossbar is None or written or rule.crossbar.report().pulses == 0


def test_silent_neurons_weights_stay_where_they_are() -> None:
    """The ancestor pulsed on a gradient of zero, so that weights of silent neurons drifted."""
    x, y = data()
    x = x.copy()
    x[:, :, 0] = 0
    rule = Manhattan(model_of(), delta=0.01)
    gradient = rule.gradients(x, y)["hidden.input.weight"]
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()
    before = rule.model.network.parameters["hidden.input.weight"]
    rule.step(x, y)
    assert np.array_equal(rule.model.network.parameters["hidden.input.weight"][0], before[0])


# Decisions.


def counts(decision: Any, u: np.ndarray, unit: float, memory: Any = None, seed: int = 0) -> tuple[np.ndarray, Any]:
    noise = np.random.default_rng(seed).random(u.shape)
    memory = memory if memory is not None else tuple(np.zeros_like(u) for _ in decision.slots)
    return decision.counts(NX, u, unit, memory, noise)


@pytest.mark.parametrize("name", list(DECISIONS))
def test_every_decision_gives_whole_numbers_within_its_limit_and_none_for_zero(name: str) -> None:
    decision = DECISIONS[name]()
    u = np.random.default_rng(0).normal(size=(6, 7))
    u[2] = 0
    n, _ = counts(decision, u, 0.3)
    assert np.array_equal(n, np.round(n))
    assert np.abs(n).max() <= decision.pulses
    assert not n[2].any()
    assert n.any()
    assert (n * u >= 0).all()
    assert decision.random or np.array_equal(n, counts(decision, u, 0.3, seed=1)[0])


def test_stochastic_pulses_are_unbiased_below_saturation() -> None:
    """20,000 draws: the standard error of the mean count is at most 0.0035; four of them."""
    u = np.tile([-0.7, -0.1, 0.02, 0.5, 0.99], (20_000, 1))
    n, _ = counts(StochasticPulse(), u, 1.0)
    np.testing.assert_allclose(n.mean(0), u[0], atol=0.015)
    assert set(np.unique(n)) == {-1.0, 0.0, 1.0}
    many, _ = counts(StochasticPulse(limit=8), 5.3 * u, 1.0)
    np.testing.assert_allclose(many.mean(0), 5.3 * u[0], atol=0.015)
    assert np.abs(counts(StochasticPulse(reference=0.1), u, 1.0)[0][:, 0]).min() == 1


@pytest.mark.parametrize("axis", ["row", "column"])
def test_top_k_pulses_the_largest(axis: str) -> None:
    u = np.random.default_rng(0).normal(size=(5, 7))
    n, _ = counts(TopK(k=3, axis=axis), u, 1.0)
    along = 1 if axis == "row" else 0
    assert (np.abs(n).sum(along) == 3).all()
    smallest_taken = np.where(n != 0, np.abs(u), np.inf).min(along)
    largest_left = np.where(n == 0, np.abs(u), 0).max(along)
    assert (smallest_taken > largest_left).all()


def test_accumulate_and_fire_becomes_sgd_as_the_pulse_becomes_small() -> None:
    x, y = data()
    plain = BPTT(model_of(), optimizer={"name": "sgd", "learning_rate": 0.1})
    distances = []
    for epsilon in (1e-2, 1e-4, 1e-6):
        decision = AccumulateAndFire(limit=10**9)
        rule = Manhattan(model_of(), epsilon, decision=decision, optimizer={"name": "sgd", "learning_rate": 0.1})
        reference = plain.clone()
        for _ in range(3):
            rule.step(x, y)
            reference.step(x, y)
        ours, theirs = rule.model.network.parameters, reference.model.network.parameters
        distances.append(max(np.abs(ours[name] - theirs[name]).max() for name in ours))
    assert distances[0] > 1e-3
    assert distances[1] < 1e-2 * distances[0] * 10
    assert distances[2] < 2e-6


def test_accumulate_and_fire_loses_nothing() -> None:
    rng, decision = np.random.default_rng(0), AccumulateAndFire()
    memory, total, fired = (np.zeros(9),), np.zeros(9), np.zeros(9)
    for _ in range(50):
        u = 0.3 * rng.normal(size=9)
        n, memory = counts(decision, u, 0.5, memory)
        total, fired = total + u, fired + 0.5 * n
    np.testing.assert_allclose(fired + memory[0], total, atol=1e-12)


def test_signum_and_multi_pulse_are_their_equations() -> None:
    rng, mean = np.random.default_rng(0), np.zeros(5)
    memory: Any = (mean,)
    for _ in range(6):
        u = rng.normal(size=5)
        mean = 0.8 * mean + 0.2 * u
        n, memory = counts(SignOfMomentum(0.8), u, 1.0, memory)
        assert np.array_equal(n, np.sign(mean))
    u = np.array([-7.0, -0.4, 0.0, 0.6, 2.4])
    assert np.array_equal(counts(MultiPulse(limit=5), u, 1.0)[0], [-5, 0, 0, 1, 2])


def test_the_dead_zone_lets_only_large_gradients_through() -> None:
    x, y = data()
    rule = Manhattan(model_of(), delta=0.01, dead_zone=0.5)
    gradient, before = rule.gradients(x, y), rule.model.network.parameters
    rule.step(x, y)
    for name, value in rule.model.network.parameters.items():
        passed = np.abs(gradient[name]) > 0.5 * np.sqrt(np.mean(gradient[name] ** 2))
        assert np.array_equal(value, before[name] - 0.01 * np.sign(gradient[name]) * passed)
        assert value.ndim < 2 or 0 < passed.mean() < 1


# A battery for all that pulse.


@pytest.mark.parametrize("name", PULSED)
class TestEveryRule:
    def test_gradients_change_nothing_and_state_restores(self, name: str) -> None:
        x, y = data()
        rule = RULES[name](model_of(), crossbar=noisy())
        before = rule.state()
        assert same(rule.gradients(x, y), rule.gradients(x, y))
        assert same(before, rule.state())
        rule.step(x, y)
        saved, twin = rule.state(), rule.clone()
        rule.step(x, y)
        fresh = RULES[name](model_of(), crossbar=noisy())
        fresh.load_state(saved)
        fresh.step(x, y)
        twin.step(x, y)
        assert same(rule.state(), fresh.state())
        assert same(rule.state(), twin.state())

    def test_same_run_on_every_backend(self, name: str, backend: str) -> None:
        x, y = data(steps=6)
        states = []
        for library in ("numpy", backend):
            rule = RULES[name](
                model_of(library), crossbar=noisy(half_select=0.01), optimizer={"name": "sgd", "learning_rate": 0.5}
            )
            for _ in range(3):
                rule.step(x, y)
            states.append(rule.state())
        for key, value in states[0].items():
            np.testing.assert_allclose(states[1][key], value, rtol=1e-7, atol=1e-12, err_msg=key)
        assert any("conductance" in key for key in states[0])

    def test_it_lowers_the_loss(self, name: str) -> None:
        x, y = data(batch=16, steps=8)
        device = Constant(step=0.5e-6) if name == "manhattan" else SoftBounds(step=1e-6)
        rule = RULES[name](
            Evaluator(LIF(24, 3, threshold=0.5, seed=1)),
            crossbar=Crossbar(device, w_max=2.0),
            optimizer={"name": "sgd", "learning_rate": 0.2},
        )
        losses = [rule.step(x, y)["loss"] for _ in range(60)]
        assert losses[-1] < 0.9 * losses[0]

    def test_describes_itself_and_refuses(self, name: str) -> None:
        assert (RULES[name].__doc__ or "").split("\n")[0].endswith(".")
        with pytest.raises(IncompatibleError, match="takes an Evaluator"):
            RULES[name](LIF(3, 2))  # type: ignore[arg-type]


# With any rule, on any model.


def test_any_rules_gradient_decides() -> None:
    x, y = data()
    model = model_of()
    rule = Manhattan(model, 0.01, gradient=EProp(model, mode="random", seed=3))
    gradient, before = EProp(model_of(), mode="random", seed=3).gradients(x, y), model.network.parameters
    rule.step(x, y)
    for name, value in model.network.parameters.items():
        assert np.array_equal(value, before[name] - 0.01 * np.sign(gradient[name]))
    named = Manhattan(model_of(), 0.01, gradient={"name": "eprop", "mode": "random", "seed": 3})
    named.step(x, y)
    assert same(named.model.network.parameters, model.network.parameters)


def test_adaptive_feedback_follows_the_pulses() -> None:
    x, y = data()
    model = model_of()
    inner = EProp(model, mode="adaptive", feedback_decay=0.0)
    rule = Manhattan(model, 0.01, gradient=inner)
    feedback = {name: value for name, value in rule.state().items() if "feedback" in name}
    before = model.network.parameters["readout.input.weight"]
    rule.step(x, y)
    (name,) = feedback
    moved = rule.state()[name] - feedback[name]
    np.testing.assert_allclose(moved, model.network.parameters["readout.input.weight"] - before, atol=1e-15)
    assert np.abs(moved).max() == pytest.approx(0.01)


def test_a_torch_module_lives_on_a_crossbar() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    crossbar = Crossbar(presets.Idealized(), w_max=1.0)
    rule = Manhattan(Evaluator(TorchModel(module)), delta=1e-2, crossbar=crossbar, dead_zone=0.1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    losses = [rule.step(x, y)["loss"] for _ in range(150)]
    assert losses[-1] < 0.9 * losses[0]
    assert rule.crossbar is not None
    np.testing.assert_allclose(module[0].weight.detach().numpy(), rule.crossbar.weights["0.weight"], atol=1e-6)
    assert set(rule.crossbar.weights) == {"0.weight", "2.weight"}


def test_per_sample_is_one_example_after_the_other() -> None:
    x, y = data()
    for options in ({}, {"crossbar": noisy()}, {"decision": "stochastic", "optimizer": "sgd"}):
        whole = Manhattan(model_of(), 0.01, per_sample=True, **options)
        single = Manhattan(model_of(), 0.01, **options)
        whole.step(x, y)
        for i in range(len(x)):
            single.step(x[i : i + 1], y[i : i + 1])
        ours, theirs = whole.state(), single.state()
        for name in ours:
            if name != "steps":
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert not same(whole.state(), Manhattan(model_of(), 0.01).state())


def test_one_sided_pairs_are_refreshed_on_time() -> None:
    x, y = data()
    crossbar = Crossbar(
        Constant(step=10e-6), encoding="one_sided", budget=12, tolerance=0.06, refresh_at=0.5, w_max=2.0
    )
    rule = Manhattan(model_of(), crossbar=crossbar, refresh_every=3)
    for _ in range(3):
        rule.step(x, y)
    assert rule.crossbar is not None
    report = rule.crossbar.report()
    assert report.down > 0
    assert all(
        np.array_equal(rule.crossbar.weights[k], rule.model.network.parameters[k]) for k in rule.crossbar.weights
    )
    with pytest.raises(IncompatibleError, match="budget"):
        Manhattan(model_of(), crossbar=Crossbar(encoding="one_sided"))


@pytest.mark.parametrize("name", PULSED)
def test_waiting_leaks_every_device_of_a_rule_and_its_network_sees_it(name: str, backend: str) -> None:
    x, y = data(steps=4)
    device = Constant(step=1e-6, retention=10.0, rest=0.5)
    rule = RULES[name](model_of(backend), crossbar=Crossbar(device, w_max=4.0))
    rule.step(x, y)
    before = rule.model.network.parameters
    rule.wait(5.0)
    for key, value in rule.model.network.parameters.items():
        # Both devices of a pair decay towards the middle of their range, where the weight is 0.
        left = value if value.ndim == 1 else before[key] * np.exp(-0.5)
        np.testing.assert_allclose(value, left, rtol=1e-9, atol=1e-12, err_msg=key)
    assert np.isfinite(rule.step(x, y)["loss"])


def test_drift_takes_pcm_weights_down_by_its_power_law() -> None:
    x, y = data(steps=4)
    crossbar = Crossbar(presets.PCM(cycle_noise=0.0), encoding="one_sided", budget=40, w_max=4.0)
    rule = Manhattan(model_of(), crossbar=crossbar)
    rule.step(x, y)
    before = rule.model.network.parameters["hidden.input.weight"]
    rule.wait(99.0)
    np.testing.assert_allclose(rule.model.network.parameters["hidden.input.weight"], before * 100**-0.05, rtol=1e-9)
    with pytest.raises(IncompatibleError, match="only weights on a crossbar"):
        Manhattan(model_of()).wait(1.0)


def test_what_does_not_fit_is_refused() -> None:
    model = model_of()
    with pytest.raises(IncompatibleError, match="of the same model"):
        Manhattan(model, gradient=BPTT(model_of()))
    with pytest.raises(IncompatibleError, match="within it"):
        Manhattan(model, gradient=EProp(model, online=True))
    with pytest.raises(IncompatibleError, match="give them to Manhattan"):
        Manhattan(model, gradient=BPTT(model, weight_decay=0.1))
    with pytest.raises(IncompatibleError, match="whose gradient decides"):
        Manhattan(model, gradient=BPTT(model), regularizers=[FiringRate()])
    given = Manhattan(model, gradient="eprop", regularizers=[FiringRate()])
    assert given.gradient.regularizers == (FiringRate(),)
    with pytest.raises(IncompatibleError, match="pulsed both ways"):
        TikiTaka(model, Crossbar(encoding="one_sided", budget=3))


# Tiki-Taka.


def test_the_fast_array_starts_at_its_symmetry_point_and_drifts_back_to_it() -> None:
    x, y = data()
    device = SoftBounds(step=5e-6, asymmetry=0.4, step_spread=0.2, asymmetry_spread=0.1)
    rule = TikiTaka(model_of(), Crossbar(device, w_max=4.0))
    own = rule.fast
    assert all(np.abs(value).max() == 0 for value in own.weights.values())
    state, bar = own.state, own.crossbar
    rng = np.random.default_rng(0)
    for _ in range(200):
        sent = {k: rng.choice([-1.0, 1.0], v.shape) for k, v in state["plus.conductance"].items()}
        state = bar.pulse(NX, state, sent)
    for value in bar.weights(NX, state).values():
        assert abs(value.mean()) < 4 * value.std() / np.sqrt(value.size) + 0.05
    rule.step(x, y)


def test_a_transfer_takes_one_column_in_turn_and_the_buffer_waits() -> None:
    x, y = data()
    crossbar = Crossbar(Constant(step=1e-6), w_max=4.0)
    options = {"optimizer": {"name": "sgd", "learning_rate": 5.0}, "transfer_every": 2}
    eager = TikiTaka(model_of(), crossbar, transfer_rate=50.0, **options)
    patient = TikiTakaV2(model_of(), crossbar, transfer_rate=1e-3, **options)
    start = eager.crossbar.weights["readout.input.weight"]  # type: ignore[union-attr]
    for column in (None, 0, 0, 1):
        eager.step(x, y)
        patient.step(x, y)
        moved = np.abs(eager.crossbar.weights["readout.input.weight"] - start).max(0) > 1e-12  # type: ignore[union-attr]
        assert list(np.flatnonzero(moved)) == ([] if column is None else list(range(column + 1)))
    buffer = patient.state()["buffer/readout.input.weight"]
    assert buffer[:, :2].any()
    assert not buffer[:, 2:].any()
    assert patient.crossbar.report().pulses == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("decision", "accumulate", "stochastic pulses that it was made with"),
        ("decision", {"name": "stochastic", "limit": 9}, "make another one with limit"),
        ("per_sample", True, "a batch as a whole"),
    ],
)
def test_what_it_has_no_argument_for_cannot_be_assigned_either(name: str, value: Any, reason: str) -> None:
    rule = TikiTaka(model_of(), Crossbar(w_max=4.0), limit=2)
    rule.decision, rule.per_sample = rule.decision, False
    with pytest.raises(IncompatibleError, match=reason):
        setattr(rule, name, value)
    rule.step(*data())


def test_gamma_adds_the_fast_array_to_the_weights() -> None:
    x, y = data()
    rule = TikiTaka(Evaluator(RNN(4, 3, dtype="float64")), Crossbar(Constant(step=1e-6)), gamma=0.5, transfer_every=100)
    rule.model.check(x, y)
    rule.step(x, y)
    fast, slow = rule.fast.weights, rule.crossbar.weights  # type: ignore[union-attr]
    for name, value in slow.items():
        np.testing.assert_allclose(rule.model.network.parameters[name], value + 0.5 * fast[name], atol=1e-12)
    assert any(value.any() for value in fast.values())
