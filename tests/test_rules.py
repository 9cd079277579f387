"""Learning rules: what an update is, what each option does, what is refused, and that nothing changes by the way."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from credit_cases import DEFERRED, NETWORKS, PULSED, alive, by_autodiff, data, deferred, distance, stack
from eager import eager

from neko_rules import (
    ALIF,
    BPTT,
    LIF,
    OSTL,
    OTTT,
    RNN,
    Backprop,
    EProp,
    Eprop,
    Evaluator,
    FiringRate,
    LearningRule,
    Network,
)
from neko_rules.clipping import CLIPPINGS
from neko_rules.credit.axes import SPATIAL, TEMPORAL, Credit
from neko_rules.credit.feedback import carriers
from neko_rules.errors import ArgumentError, CheckpointError, IncompatibleError, NonFiniteError
from neko_rules.layers.cell import Cell
from neko_rules.optimizers import OPTIMIZERS, Adam
from neko_rules.regularizers import Activity
from neko_rules.rules import RULES


def model_of(name: str = "alif", backend: str = "numpy") -> Evaluator:
    return Evaluator(NETWORKS[name](backend), metrics=["accuracy"])


def snapshot(rule: LearningRule) -> dict[str, np.ndarray]:
    return rule.state()


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


# One battery for every registered rule.


@pytest.mark.parametrize("name", DEFERRED)
class TestEveryRuleThatWaits:
    def test_a_step_returns_the_figures_before_it_and_changes_the_weights(self, name: str) -> None:
        x, y = data()
        rule = deferred(name, model_of())
        figures = rule.model.evaluate(x, y)
        before, gradient = rule.model.network.parameters, rule.gradients(x, y)
        assert rule.step(x, y) == pytest.approx(figures, rel=1e-12)
        after = rule.model.network.parameters
        moved = {key for key in before if not np.array_equal(before[key], after[key])}
        assert moved >= {key for key in before if gradient[key].any()}
        # A rule that descends the loss leaves no parameter out.
        assert moved == set(before) or (moved and rule.descends == "never")
        assert rule.steps == 1

    def test_naive_update_is_the_gradient_itself(self, name: str) -> None:
        x, y = data()
        rule = deferred(name, model_of(), optimizer="naive")
        before, gradient = rule.model.network.parameters, rule.gradients(x, y)
        rule.step(x, y)
        expected = rule._bounded({key: before[key] - gradient[key] for key in before})
        for key, value in rule.model.network.parameters.items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in RULES if name not in PULSED])
class TestEveryRule:
    def test_gradients_change_nothing_and_repeat(self, name: str) -> None:
        x, y = data()
        kept = x.copy(), y.copy()
        rule = RULES[name](model_of())
        before = snapshot(rule)
        first, second = rule.gradients(x, y), rule.gradients(x, y)
        assert same(first, second)
        assert same(before, snapshot(rule))
        assert rule.steps == 0
        assert np.array_equal(x, kept[0])
        assert np.array_equal(y, kept[1])

    def test_state_restores_a_rule_in_the_middle_of_training(self, name: str) -> None:
        x, y = data()
        rule = RULES[name](model_of())
        rule.step(x, y)
        saved = rule.state()
        rule.step(x, y)
        fresh = RULES[name](Evaluator(NETWORKS["alif"]("numpy")))
        fresh.load_state(saved)
        fresh.step(x, y)
        assert same(rule.state(), fresh.state())

    def test_same_seed_same_run_on_every_backend(self, name: str, backend: str) -> None:
        x, y = data(steps=8)
        states = []
        for library in ("numpy", backend):
            rule = RULES[name](Evaluator(NETWORKS["alif"](eager(library))), optimizer=Adam(1e-2))
            for _ in range(3):
                rule.step(x, y)
            states.append(rule.state())
        for key, value in states[0].items():
            np.testing.assert_allclose(states[1][key], value, rtol=1e-8, atol=1e-10, err_msg=key)

    @pytest.mark.parametrize("backend", ["numpy", "torch"])
    def test_training_lowers_the_loss_in_float32(self, name: str, backend: str) -> None:
        """By four tenths for what always descends; what descends on average or never has tests of its own."""
        x, y = data(batch=8, steps=8)
        network = ALIF(24, 3, threshold=0.5, backend=backend, seed=1)
        rule = RULES[name](Evaluator(network), optimizer=Adam(2e-2))
        losses = [rule.step(x, y)["loss"] for _ in range(40 if rule.descends == "always" else 2)]
        assert np.isfinite(losses).all()
        assert losses[-1] < 0.6 * losses[0] or rule.descends != "always"
        assert all(value.dtype == np.float32 for value in network.parameters.values())

    def test_sizes_of_one(self, name: str) -> None:
        rule = RULES[name](Evaluator(ALIF(1, 1, tau_membrane=0.0, task_type=RULES[name].tasks[-1])))
        assert np.isfinite(rule.step(np.ones((1, 1, 1)), np.ones((1, 1, 1)))["loss"])

    def test_a_clone_trains_on_its_own(self, name: str) -> None:
        x, y = data()
        rule = RULES[name](model_of())
        rule.step(x, y)
        twin = rule.clone()
        before = rule.state()
        assert same(before, twin.state())
        twin.step(x, y)
        assert same(before, rule.state())
        rule.step(x, y)
        assert same(rule.state(), twin.state())

    def test_describes_itself_and_its_arguments(self, name: str) -> None:
        assert (RULES[name].__doc__ or "").split("\n")[0].endswith(".")
        assert RULES[name].descends in ("always", "on average", "never")
        assert set(RULES[name].about) >= {"paper", "time", "memory", "identity"}
        assert {"model", "optimizer", "clipping", "seed"} <= set(inspect.signature(RULES[name]).parameters)

    def test_refuses_what_is_not_an_evaluator(self, name: str) -> None:
        with pytest.raises(IncompatibleError, match="takes an Evaluator"):
            RULES[name](ALIF(3, 2))  # type: ignore[arg-type]


def test_the_accepted_spellings() -> None:
    assert Eprop is EProp
    assert Backprop is BPTT
    assert RULES["E-Prop"] is RULES["eprop"] is EProp
    assert RULES["Backprop"] is BPTT


# Feedback.


def adaptive(backend: str = "numpy", **options: Any) -> EProp:
    return EProp(model_of(backend=backend), mode="adaptive", **options)


def test_adaptive_feedback_approaches_the_readout_by_a_known_factor(backend: str) -> None:
    """W - B shrinks by (1 - η·decay) in each step, whatever the data (Kolen & Pollack 1994)."""
    x, y = data(steps=6)
    rate, decay, weight_decay, steps = 0.01, 3.0, 2.0, 12
    rule = adaptive(backend, feedback_decay=decay, weight_decay=weight_decay, optimizer=Adam(rate))
    name = "readout.input.weight"
    first = rule.model.network.parameters[name] - rule.feedback[name]
    assert np.abs(first).max() > 0.1
    for _ in range(steps):
        rule.step(x, y)
    last = rule.model.network.parameters[name] - rule.feedback[name]
    np.testing.assert_allclose(last, first * (1 - rate * (decay + weight_decay)) ** steps, atol=1e-12)


def test_random_feedback_never_changes_and_depends_on_its_seed_alone() -> None:
    x, y = data()
    rule = EProp(model_of(), mode="random", seed=4)
    before = rule.feedback
    rule.step(x, y)
    assert same(before, rule.feedback)
    assert same(before, EProp(model_of(), mode="random", seed=4).feedback)
    other = EProp(model_of(), mode="random", seed=5)
    assert not same(before, other.feedback)
    assert distance(other.gradients(x, y), EProp(model_of(), mode="random", seed=4).gradients(x, y)) > 0.1


def test_modes_differ_in_hidden_gradients_only() -> None:
    x, y = data()
    model = model_of()
    alive(model, x)
    symmetric, random = EProp(model).gradients(x, y), EProp(model, mode="random").gradients(x, y)
    for name, value in symmetric.items():
        assert (np.abs(random[name] - value).max() > 1e-3) == name.startswith("hidden"), name


def test_random_feedback_equal_to_the_weights_is_symmetric() -> None:
    x, y = data()
    model = model_of("deep")
    rule = EProp(model, mode="random")
    weights = model.network.parameters
    rule.load_state({**rule.state(), **{f"feedback/{name}": weights[name] for name in rule.feedback}})
    assert distance(rule.gradients(x, y), EProp(model).gradients(x, y)) < 1e-12


def test_deep_networks_have_feedback_for_every_layer() -> None:
    rule = EProp(model_of("deep"), mode="random")
    assert set(rule.feedback) == {"hidden1.input.weight", "hidden2.input.weight", "readout.input.weight"}
    assert EProp(model_of("deep")).feedback == {}


# Regularisers, decay, clipping.


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_bptt_with_a_firing_rate_target_is_the_gradient_of_the_sum(library: str) -> None:
    pytest.importorskip(library)
    x, y = data()
    model = Evaluator(NETWORKS["alif"](library))
    regularizer = FiringRate(target=20.0, strength=50.0)
    nx, network = model.nx, model.network
    inputs = nx.asarray(np.ascontiguousarray(x.transpose(1, 0, 2)))

    def penalty(values: Any) -> Any:
        from neko_rules.layers.forward import run

        recorded = run(nx, network.graph, network.constants, values, inputs, differentiable=True)
        return regularizer.value(nx, Activity.of(network, recorded), network.dt)

    found = nx.jit(lambda values: nx.value_and_grad(penalty)(values)[1])(network.values)
    loss = by_autodiff(model, x, y)
    total = {name: loss[name] + nx.to_numpy(found[name]) for name in loss}
    assert distance(BPTT(model, regularizers=[regularizer]).gradients(x, y), total) < 1e-12
    assert distance(BPTT(model).gradients(x, y), total) > 1e-2


@pytest.mark.parametrize("rule", [name for name in DEFERRED if RULES[name].descends == "always"])
def test_a_firing_rate_target_is_reached(rule: str) -> None:
    """With the loss next to nothing, the mean rate settles at the target, from above and from below."""
    x = np.random.default_rng(0).standard_normal((8, 50, 4))
    y = np.zeros((8, 50, 1))
    for target in (30.0, 200.0):
        network = ALIF(20, 1, task_type="regression", threshold=0.7, readout_initializer="zeros", seed=2)
        model = Evaluator(network, metrics=["firing_rate"])
        regularizers = [FiringRate(target=target, strength=1e6)]
        trained = deferred(rule, model, optimizer=Adam(1e-2), regularizers=regularizers)
        before = model.evaluate(x, y)["firing_rate"]
        for _ in range(150):
            trained.step(x, y)
        after = model.evaluate(x, y)["firing_rate"]
        assert abs(after - target) < 0.15 * target, (before, after)
        assert abs(before - target) > 0.3 * target


def test_weight_decay_shrinks_weights_and_leaves_biases() -> None:
    x, y = data()
    free, decayed = BPTT(model_of(), optimizer="naive"), BPTT(model_of(), optimizer="naive", weight_decay=0.1)
    before = free.model.network.parameters
    free.step(x, y)
    decayed.step(x, y)
    for name, value in decayed.model.network.parameters.items():
        shrink = 0.1 * before[name] if name.endswith(".weight") else 0.0
        np.testing.assert_allclose(value, free.model.network.parameters[name] - shrink, atol=1e-15)


@pytest.mark.parametrize("name", list(CLIPPINGS))
def test_clipping_acts_on_the_update_and_not_on_the_reported_gradient(name: str) -> None:
    x, y = data()
    clipped = BPTT(model_of(), optimizer="naive", clipping={"name": name, "limit": 1e-3})
    before, gradient = clipped.model.network.parameters, clipped.gradients(x, y)
    assert same(gradient, BPTT(model_of()).gradients(x, y))
    clipped.step(x, y)
    moved = {key: value - before[key] for key, value in clipped.model.network.parameters.items()}
    assert max(float(np.abs(value).max()) for value in moved.values()) <= 1e-3 * (1 + 1e-9)
    assert any(np.abs(value).max() > 0 for value in moved.values())


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_drives_every_temporal_credit(name: str) -> None:
    x, y = data()
    for temporal in TEMPORAL:
        rule = LearningRule(model_of(), temporal=temporal, optimizer=name)
        assert np.isfinite(rule.step(x, y)["loss"])
        assert np.isfinite(rule.step(x, y)["loss"])


def test_a_schedule_is_followed() -> None:
    x, y = data()
    schedule = {"name": "step_decay", "initial": 1.0, "rate": 1e-30, "steps": 2}
    rule = BPTT(model_of(), optimizer={"name": "sgd", "learning_rate": schedule})
    rule.step(x, y)
    rule.step(x, y)
    frozen = rule.model.network.parameters
    rule.step(x, y)
    assert same(frozen, rule.model.network.parameters)


# What goes wrong.


def test_a_diverging_step_is_refused_by_name_and_leaves_the_last_good_weights(backend: str) -> None:
    x, y = data(steps=6)
    network = RNN(5, 3, activation="relu", inputs=4, backend=backend)
    rule = BPTT(Evaluator(network), optimizer={"name": "sgd", "learning_rate": 1e36})
    rule.step(x, y)
    before = rule.state()
    with pytest.raises(NonFiniteError) as caught:
        rule.step(x * 1e3, y)
    assert caught.value.quantity in set(network.parameters)
    assert caught.value.step == 2
    assert same(before, rule.state())


def test_points_without_meaning_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="go together"):
        Credit("full", learning_signal="instantaneous")
    with pytest.raises(IncompatibleError, match="go together"):
        Credit("neuron", learning_signal="exact")
    with pytest.raises(ArgumentError, match="did you mean 'neuron'"):
        LearningRule(model_of(), temporal="neurons")
    with pytest.raises(ArgumentError, match="did you mean 'learning_signal'"):
        LearningRule(model_of(), signal="filtered")  # type: ignore[call-arg]
    for name in ("lr", "learning_rate"):
        with pytest.raises(ArgumentError, match=rf"no argument '{name}'.*optimizer=\{{'name': 'adam', 'learning_rate'"):
            EProp(model_of(), **{name: 1e-3})  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="belongs to adaptive"):
        EProp(model_of(), feedback_decay=0.1)
    with pytest.raises(ArgumentError, match="symmetric, random, adaptive"):
        EProp(model_of(), mode="randon")
    with pytest.raises(IncompatibleError, match="needs spiking neurons"):
        BPTT(model_of("tanh"), regularizers=["firing_rate"])


def test_random_feedback_is_refused_without_a_hidden_population() -> None:
    network = Network(
        {"readout": {"cell": "leaky_readout", "size": 2}}, [{"source": "input", "target": "readout"}], "readout"
    )
    with pytest.raises(IncompatibleError, match="needs a hidden population"):
        EProp(Evaluator(network), mode="random")
    assert carriers(network.graph) == []
    assert np.isfinite(EProp(Evaluator(network)).step(np.ones((2, 3, 4)), [0, 1])["loss"])


def test_every_axis_value_is_explained() -> None:
    for axis in (TEMPORAL, SPATIAL):
        assert all(len(text.split()) >= 3 for text in axis.values())


def test_a_state_of_another_model_is_refused() -> None:
    rule, deep = EProp(model_of()), EProp(model_of("deep"))
    with pytest.raises(CheckpointError):
        rule.load_state(deep.state())
    with pytest.raises(CheckpointError, match="lacks an entry"):
        rule.load_state({k: v for k, v in rule.state().items() if not k.startswith("optimizer")})
    with pytest.raises(CheckpointError, match="must have shape"):
        rule.load_state({**rule.state(), "parameters/hidden.bias": np.zeros(99)})


def test_a_state_can_be_loaded_before_any_data_was_seen() -> None:
    x, y = data()
    rule = OSTL(Evaluator(LIF(5, 3)))
    rule.step(x, y)
    fresh = OSTL(Evaluator(LIF(5, 3)))
    fresh.load_state(rule.state())
    assert fresh.model.network.inputs == 4
    assert same(rule.state(), fresh.state())


def test_a_dead_network_gives_no_gradient_below_its_readout_and_none_is_invented() -> None:
    x, y = data()
    network = stack({"name": "lif"})("numpy")
    found = BPTT(Evaluator(network)).gradients(0 * x, y)
    assert all(np.array_equal(value, 0 * value) for name, value in found.items() if name != "readout.bias")


def test_ottt_refuses_a_leak_that_is_not_constant() -> None:
    @dataclass(frozen=True)
    class QuadraticCell(Cell):
        states = ("v",)

        def constants(self, dt: float) -> dict[str, float]:
            return {"k": 0.1}

        def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
            return {"v": s.v + p.k * s.v * s.v + current}

        def emit(self, nx: Any, p: Any, s: Any) -> Any:
            return nx.spike(s.v - 1)

    with pytest.raises(IncompatibleError, match="leak between spikes is constant"):
        OTTT(Evaluator(stack(QuadraticCell())("numpy")))
