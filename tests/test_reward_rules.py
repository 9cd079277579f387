"""Delayed reward: the mean over decisions in closed form, the wait, the baseline, and learning from a single number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, alive, data, distance, stack

from neko_rules import LIF, STDP, EProp, Evaluator, FiringRate, LearningRule, RewardEProp, RewardSTDP
from neko_rules.backend import Array, Backend, get_backend, softmax
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.integrate_and_fire import ALIFCell
from neko_rules.losses import CategoricalCrossentropy
from neko_rules.optimizers import Adam
from neko_rules.rules import RULES
from neko_rules.rules.reward import sampled

SLOW = 1e12
"""A τ of the eligibility with which nothing is lost before the reward."""

BOTH = ("reward_eprop", "reward_stdp")


@dataclass(frozen=True)
class MinusExpectedReward(CategoricalCrossentropy):
    """-Σ_k softmax(y)_k t_k: what is descended on average, written as a loss."""

    def value(self, nx: Backend, outputs: Array, target: Array) -> Array:
        return -nx.sum(softmax(nx, outputs) * target, axis=-1)

    def gradient(self, nx: Backend, outputs: Array, target: Array) -> Array:
        policy = softmax(nx, outputs)
        return -policy * (target - nx.sum(policy * target, axis=-1, keepdims=True))


def mean_output(backend: str = "numpy") -> Any:
    return stack(ALIFCell(threshold=0.7), readout="mean")(backend)


def with_decision(rule: Any, *numbers: float) -> Any:
    """The rule with given numbers in place of those that it would draw."""
    rule._draw = lambda steps, examples: {"decision": np.array(numbers)}
    return rule


def policy_of(model: Evaluator, x: np.ndarray) -> np.ndarray:
    return softmax(get_backend("numpy"), model.predict(x))


def spikes(batch: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.random((batch, 14, 4)) < 0.5).astype(float), rng.integers(0, 3, batch)


# The decision.


def test_decisions_have_the_probabilities_of_the_policy() -> None:
    """On an even grid of 1000 numbers each action is taken as often as its probability says; the ends are safe."""
    policy = np.array([0.1234, 0.0, 0.5006, 0.376])
    grid = (np.arange(1000) + 0.5) / 1000
    taken = sampled(get_backend("numpy"), np.tile(policy, (1000, 1)), grid)
    assert np.array_equal(taken.sum(1), np.ones(1000))
    assert np.abs(taken.mean(0) - policy).max() <= 1e-3
    short = np.array([[0.5, 0.5 - 1e-3]] * 2)  # Rounding may leave a sum below one.
    assert np.array_equal(sampled(get_backend("numpy"), short, np.array([0.0, 0.9999])), [[1, 0], [0, 1]])


# Reward-based e-prop.


@pytest.mark.parametrize("baseline", [0.0, 0.7])
@pytest.mark.parametrize("target", [[0.0, 1.0, 0.0], [0.2, 0.5, 0.3]])
def test_the_mean_over_decisions_is_eprop_on_the_expected_reward(baseline: float, target: list[float]) -> None:
    """Every action once, weighted with its probability; a baseline changes each of them and not the mean."""
    x, y = data(batch=1)[0], np.array([target])
    model = Evaluator(mean_output())
    alive(model, x)
    policy = policy_of(model, x)[0]
    assert policy.min() > 0.02
    total: dict[str, np.ndarray] = {}
    single = []
    for action, probability in enumerate(policy):
        middle = policy[:action].sum() + probability / 2
        rule = with_decision(RewardEProp(model, tau_eligibility=SLOW), middle)
        rule.load_state({**rule.state(), "baseline/reward": np.array(baseline)})
        single.append(rule.gradients(x, y))
        for name, value in single[-1].items():
            total[name] = total.get(name, 0.0) + probability * value
    expected = EProp(Evaluator(model.network, loss=MinusExpectedReward())).gradients(x, y)
    assert distance(total, expected) < 1e-9
    assert distance(single[0], expected) > 0.1


def test_outputs_of_supervised_steps_are_averaged() -> None:
    """With labels in some steps only, the policy is that of their mean, and no other step gets a signal."""
    x = data(batch=2)[0]
    y = np.full((2, 14), -1)
    y[0, [3, 9]], y[1, 5:] = 1, 2
    network = stack(ALIFCell(threshold=0.7), tau_readout=0.0)("numpy")
    model = Evaluator(network)
    rule = with_decision(RewardEProp(model, tau_eligibility=10e-3, delay=4e-3), 0.0, 0.999999)
    found = rule.gradients(x, y)["readout.bias"]
    outputs, expected = model.predict(x), np.zeros(3)
    for example, steps, action in ((0, [3, 9], 0), (1, range(5, 14), 2)):
        chosen = list(steps)
        policy = softmax(get_backend("numpy"), outputs[example, chosen].mean(0))
        reward = float(action == y[example, chosen[0]])
        left = sum(np.exp(-((13 - t) * 1e-3 + 4e-3) / 10e-3) for t in chosen) / len(chosen)
        expected += (reward - 1 / 3) * left * (policy - np.eye(3)[action]) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.abs(found).max() > 1e-3


def test_an_example_without_a_supervised_step_counts_nothing() -> None:
    x = data(batch=2)[0]
    y = np.full((2, 14), -1)
    y[0] = 1
    model = Evaluator(NETWORKS["alif"]("numpy"))
    both = with_decision(RewardEProp(model, baseline_rate=1.0), 0.5, 0.5)
    one = with_decision(RewardEProp(model, baseline_rate=1.0), 0.5)
    both.load_state({**both.state(), "baseline/reward": np.array(0.3)})
    one.load_state({**one.state(), "baseline/reward": np.array(0.3)})
    assert distance(both.gradients(x, y), one.gradients(x[:1], y[:1])) < 1e-12
    both.step(x, y)
    assert both.baseline in (0.0, 1.0)


def test_regularizers_do_not_wait_for_the_reward() -> None:
    x, y = data()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    regularizer = FiringRate(target=20.0, strength=50.0)
    plain = EProp(model).gradients(x, y)
    share = EProp(model, regularizers=[regularizer]).gradients(x, y)
    without = RewardEProp(model, delay=0.5).gradients(x, y)
    found = RewardEProp(model, delay=0.5, regularizers=[regularizer]).gradients(x, y)
    for name, value in found.items():
        np.testing.assert_allclose(value - without[name], share[name] - plain[name], atol=1e-12)
    assert np.abs(found["hidden.bias"] - without["hidden.bias"]).max() > 1e-3


def test_random_feedback_changes_hidden_gradients_only() -> None:
    x, y = data()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    symmetric = RewardEProp(model, seed=1).gradients(x, y)
    random = RewardEProp(model, mode="random", seed=1).gradients(x, y)
    for name, value in symmetric.items():
        assert (np.abs(random[name] - value).max() > 1e-6) == name.startswith("hidden"), name


# Reward-modulated STDP.


def test_with_a_sure_reward_at_once_it_is_stdp() -> None:
    x, y = spikes()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    alive(model, x)
    # A distribution that gives every action a reward of one third: R - b = 1 at a baseline of -2/3.
    shared = np.full((3, 3), 1 / 3)
    rule = RewardSTDP(model, tau_eligibility=SLOW)
    rule.load_state({**rule.state(), "baseline/reward": np.array(-2 / 3)})
    found, expected = rule.gradients(x, shared), STDP(model).gradients(x, y)
    for name in rule.plastic:
        assert np.abs(expected[name]).max() > 0.1
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12)
    assert (
        distance({n: found[n] for n in rule.plastic}, {n: STDP(model).gradients(1 - x, y)[n] for n in rule.plastic})
        > 0.1
    )


def test_eligibility_decays_from_the_spike_to_the_reward() -> None:
    """One pair, completed at step 9 of 20; the reward comes 30 ms after the last step."""
    network = LIF(1, 2, inputs=2, recurrent=False, tau_membrane=0.0, reset="none", dtype="float64")
    network.set_parameters({"hidden.input.weight": [[0.0], [2.0]]})
    x = np.zeros((1, 20, 2))
    x[0, 5, 0] = x[0, 9, 1] = 1
    rule = RewardSTDP(Evaluator(network), tau_eligibility=50e-3, delay=30e-3, potentiation=1.0)
    with_decision(rule, 0.0).load_state({**rule.state(), "baseline/reward": np.array(0.0)})
    dw = -rule.gradients(x, [0])["hidden.input.weight"][0, 0]
    assert dw == pytest.approx(np.exp(-4 / 20) * np.exp(-(10 + 30) / 50), rel=1e-12)
    rule.load_state({**rule.state(), "baseline/reward": np.array(0.25)})
    assert -rule.gradients(x, [0])["hidden.input.weight"][0, 0] == pytest.approx(0.75 * dw, rel=1e-12)
    assert -rule.gradients(x, [1])["hidden.input.weight"][0, 0] == pytest.approx(-0.25 * dw, rel=1e-12)


# Both.


@pytest.mark.parametrize("name", BOTH)
class TestBoth:
    def model(self) -> Evaluator:
        return Evaluator(NETWORKS["alif"]("numpy"))

    def test_a_longer_wait_is_a_smaller_change_by_the_factor(self, name: str) -> None:
        x, y = spikes()
        soon = RULES[name](self.model(), tau_eligibility=0.3, delay=0.1, seed=2).gradients(x, y)
        late = RULES[name](self.model(), tau_eligibility=0.3, delay=0.45, seed=2).gradients(x, y)
        assert any(value.any() for value in soon.values())
        for key, value in soon.items():
            np.testing.assert_allclose(late[key], value * np.exp(-0.35 / 0.3), rtol=1e-12, atol=1e-16)

    def test_a_reward_equal_to_the_baseline_changes_nothing(self, name: str) -> None:
        x, _ = spikes()
        rule = with_decision(RULES[name](self.model(), baseline_rate=0.0), 0.0, 0.0, 0.0)
        rule.load_state({**rule.state(), "baseline/reward": np.array(1.0)})
        assert not any(value.any() for value in rule.gradients(x, [0, 0, 0]).values())
        assert any(value.any() for value in rule.gradients(x, [0, 0, 1]).values())
        before = rule.state()
        rule.step(x, [0, 0, 0])
        after = rule.state()
        for key in rule.model.network.parameters:
            expected = rule._bounded(rule.model.network.values)[key]
            assert np.array_equal(after[f"parameters/{key}"], expected)
            assert np.array_equal(before[f"parameters/{key}"], expected) or key in getattr(rule, "plastic", ())

    def test_only_the_reward_tells_the_label(self, name: str) -> None:
        """Two labels that the decision misses alike lead to the same update."""
        x, _ = spikes(batch=1)
        updates = []
        for label in (1, 2, 0):
            rule = with_decision(RULES[name](self.model(), baseline_rate=0.5), 0.0)
            rule.load_state({**rule.state(), "baseline/reward": np.array(0.4)})
            updates.append(rule.gradients(x, [label]))
        assert distance_of_all(updates[0], updates[1]) == 0
        assert distance_of_all(updates[0], updates[2]) > 1e-3

    def test_the_baseline_is_a_running_average_and_part_of_the_state(self, name: str) -> None:
        x, y = spikes(batch=8)
        rule = RULES[name](self.model(), baseline_rate=0.25, seed=3)
        expected = 1 / 3
        for _ in range(4):
            policy = policy_of(self.evaluated(rule), x)
            taken = sampled(get_backend("numpy"), policy, rule._draw(14, 8)["decision"]).argmax(1)
            rule.step(x, y)
            expected += 0.25 * ((taken == y).mean() - expected)
            assert rule.baseline == pytest.approx(expected, abs=1e-12)
        assert expected != 1 / 3
        assert rule.state()["baseline/reward"] == rule.baseline
        fixed = RULES[name](self.model(), baseline_rate=0.0)
        fixed.step(x, y)
        assert fixed.baseline == 1 / 3

    @staticmethod
    def evaluated(rule: Any) -> Evaluator:
        """The mean of the outputs over time, as the policy sees them."""
        twin = rule.model.clone()
        twin.network.readout = "mean"
        return twin

    def test_it_learns_above_chance(self, name: str) -> None:
        """Two classes by their input channels: from 0.5 to above 0.85, as in 39 of 40 runs with other seeds."""
        x, y = two_classes()
        rule = learner(name, seed=0)
        assert rule.model.evaluate(x, y)["accuracy"] == 0.5
        for _ in range(STEPS):
            rule.step(x, y)
        assert rule.model.evaluate(x, y)["accuracy"] > 0.85

    def test_it_does_not_learn_when_the_reward_comes_too_late(self, name: str) -> None:
        x, y = two_classes()
        rule = learner(name, seed=0, delay=1e3)
        before = rule.model.network.parameters
        for _ in range(3):
            rule.step(x, y)
        after = rule.model.network.parameters
        assert all(np.abs(after[key] - before[key]).max() < 1e-6 for key in before)

    def test_refusals(self, name: str) -> None:
        with pytest.raises(IncompatibleError, match="is for classification"):
            RULES[name](Evaluator(LIF(4, 2, task_type="regression")))
        with pytest.raises(ArgumentError, match="tau_eligibility"):
            RULES[name](self.model(), tau_eligibility=0.0)
        with pytest.raises(ArgumentError, match="delay"):
            RULES[name](self.model(), delay=-1.0)
        with pytest.raises(ArgumentError, match="baseline_rate"):
            RULES[name](self.model(), baseline_rate=1.5)


STEPS = 250


def distance_of_all(found: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(found[name] - other[name]).max()) for name in found)


def two_classes(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Spike trains of 6 channels, of which the class decides which three are busy."""
    rng = np.random.default_rng(seed)
    y = np.arange(32) % 2
    busy = np.arange(6)[None, None] // 3 == y[:, None, None]
    return (rng.random((32, 15, 6)) < 0.1 + 0.4 * busy).astype(float), y


def learner(name: str, seed: int, **options: Any) -> LearningRule:
    """A rule whose readout starts at zero, so that no class has a head start."""
    network = LIF(12, 2, inputs=6, threshold=0.5, readout_initializer="zeros", seed=seed)
    if name == "reward_stdp":
        options |= {"optimizer": {"name": "sgd", "learning_rate": 0.2}, "potentiation": 0.02, "depression": 0.021}
    else:
        options |= {"optimizer": Adam(1e-2)}
    return RULES[name](Evaluator(network, metrics=["accuracy"]), seed=seed, **{"delay": 0.1, **options})
