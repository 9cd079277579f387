"""Weight and node perturbation: the estimate by its formula, unbiased with a small standard error, and its variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, alive, data, distance

from neko_rules import ALIF, BPTT, LIF, SPSA, Evaluator, FiringRate, Layer, NodePerturbation, Stack, WeightPerturbation
from neko_rules.chains import running
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.kernels.host import unfused
from neko_rules.layers.rate import TanhCell
from neko_rules.optimizers import Adam
from neko_rules.regularizers import Activity
from neko_rules.rules import RULES, Rule

Gradients = dict[str, np.ndarray]


def smooth() -> Evaluator:
    """A recurrent tanh network with 26 parameters, 3 of which (the diagonal) do nothing."""
    layer = Layer(TanhCell(membrane_decay=0.6), 3)
    return Evaluator(Stack([layer], 2, inputs=2, tau_readout=2e-3, dtype="float64", seed=1))


def flat(gradients: Gradients) -> np.ndarray:
    return np.concatenate([value.ravel() for value in gradients.values()])


def estimates(make: Callable[[int], Rule], x: np.ndarray, y: Any, groups: int) -> np.ndarray:
    """Independent estimates [group, parameter], one for each seed."""
    return np.stack([flat(make(seed).gradients(x, y)) for seed in range(groups)])


def assert_unbiased(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    """The mean over groups is within 4 standard errors, which are small beside the gradient.

    The squared error in units of its expectation has a mean of 1; a value of 16 has a probability below 1e-6 for the
    parameter counts here, even if only a few directions dominate.
    """
    error = np.linalg.norm(found.mean(0) - expected)
    standard_error = math.sqrt(found.var(0, ddof=1).sum() / len(found))
    assert standard_error < bound * np.linalg.norm(expected)
    assert error < 4 * standard_error


# Weight perturbation.


def test_spsa_is_weight_perturbation_with_its_defaults() -> None:
    assert SPSA is RULES["SPSA"] is RULES["weight_perturbation"] is WeightPerturbation


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("distribution", ["signs", "normal"])
def test_the_estimate_is_a_difference_of_true_losses(antithetic: bool, distribution: str) -> None:
    """On spiking neurons, with a penalty: two evaluations of moved copies of the model, averaged over directions."""
    x, y = data()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    alive(model, x)
    penalty, c = FiringRate(target=20.0, strength=50.0), 0.05
    options: dict[str, Any] = {"antithetic": antithetic, "distribution": distribution, "regularizers": [penalty]}
    rule = WeightPerturbation(model, size=c, directions=3, **options)
    found, drawn = rule.gradients(x, y), rule._draw(14, 3)

    def loss(k: int, distance: float) -> float:
        twin = model.clone()
        moved = {name: value + distance * drawn[name][k] for name, value in model.network.parameters.items()}
        twin.network.set_parameters(moved)
        activity = Activity.of(twin.network, twin.trajectory(x))
        return twin.evaluate(x, y)["loss"] + float(penalty.value(twin.nx, activity, twin.network.dt))

    slopes = [(loss(k, c) - loss(k, -c)) / (2 * c) if antithetic else (loss(k, c) - loss(k, 0)) / c for k in range(3)]
    for name, value in found.items():
        expected = np.mean([slope * drawn[name][k] for k, slope in enumerate(slopes)], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
    assert not np.diag(found["hidden.recurrent.weight"]).any()
    assert set(np.unique(drawn["hidden.bias"])) == {-1.0, 1.0} or distribution == "normal"


@pytest.mark.parametrize(("antithetic", "distribution", "size"), [(True, "signs", 1e-3), (False, "normal", 1e-6)])
def test_weight_perturbation_is_unbiased(antithetic: bool, distribution: str, size: float) -> None:
    """On a smooth network, against BPTT; and the mean squared error of one direction is (P ∓ 1) |∇E|²."""
    x, y = data(batch=2, steps=4, inputs=2, outputs=2)
    groups, directions, moved = 32, 100, 23
    expected = flat(BPTT(smooth()).gradients(x, y))

    def make(seed: int) -> Rule:
        options: dict[str, Any] = {"antithetic": antithetic, "distribution": distribution}
        return WeightPerturbation(smooth(), size=size, directions=directions, seed=seed, **options)

    found = estimates(make, x, y, groups)
    assert_unbiased(found, expected, bound=0.12)
    squared = ((found - expected) ** 2).sum(1).mean() * directions / (expected**2).sum()
    # 32 groups with 23 parameters: a relative standard deviation of about 6 %; failing needs 5 of them.
    assert squared == pytest.approx(moved - 1 if distribution == "signs" else moved + 1, rel=0.3)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_losses_by_chains_are_those_of_operations(
    backend: str, antithetic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With figures for the weights as they are; penalties and weights of few bits go operation by operation."""
    pytest.importorskip(backend)
    pytest.importorskip("numba")
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    went: list[None] = []
    ran = running.run
    monkeypatch.setattr(running, "run", lambda *given: went.append(None) or ran(*given))
    random = np.random.default_rng(0)
    x, y = 3.0 * (random.random((6, 12, 5)) < 0.4), random.integers(0, 3, 6)

    def rule(**options: Any) -> SPSA:
        network = ALIF(9, 3, inputs=5, backend=backend, dtype="float64", seed=2)
        model = Evaluator(network, metrics=["accuracy", "firing_rate"])
        return SPSA(model, directions=3, antithetic=antithetic, size=0.3, **options)

    figures, found = rule().observed_step(x, y)
    assert len(went) == 1 + 3 * (1 + antithetic)
    del went[:]
    with unfused():
        wanted, expected = rule().observed_step(x, y)
    assert figures == pytest.approx(wanted, rel=1e-12)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10 * np.abs(value).max())
    assert any(np.abs(value).max() > 1e-3 for value in found.values())
    rule(regularizers=[FiringRate(10.0)]).gradients(x, y)
    coarse = rule()
    coarse.model.network.weight_bits = 4
    coarse.gradients(x, y)
    assert not went


def test_small_batches_have_chains_when_they_were_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the count of steps, which is part of a saved state: who goes on from it does as the one that was saved."""
    pytest.importorskip("numba")
    went: list[int] = []
    ran = running.run
    x, y = data(batch=2, steps=6)

    def rule() -> SPSA:
        return SPSA(Evaluator(ALIF(8, 2, inputs=x.shape[-1], seed=1)), optimizer="sgd")

    own = rule()
    monkeypatch.setattr(running, "run", lambda *given: went.append(own.steps) or ran(*given))
    chains = own.model._judging()
    assert chains is not None
    monkeypatch.setattr(running, "WORTHWHILE", 2 * chains._bytes_of_each(3 * 6, x.shape[-1]))
    for _ in range(4):
        own.step(x, y)
    assert set(went) == {2, 3}
    twin, state = rule(), own.state()
    twin.load_state(state)
    del went[:]
    for each in (own, twin):
        each.step(x, y)
    assert len(went) == 2 * 3
    for name, value in own.state().items():
        np.testing.assert_array_equal(value, twin.state()[name])


def test_a_wrong_sign_or_scale_would_be_found() -> None:
    """What the test of unbiasedness can tell apart: an estimate that is 1.5 times too large is refused."""
    x, y = data(batch=2, steps=4, inputs=2, outputs=2)
    expected = flat(BPTT(smooth()).gradients(x, y))
    found = estimates(lambda seed: SPSA(smooth(), size=1e-3, directions=100, seed=seed), x, y, 32)
    with pytest.raises(AssertionError):
        assert_unbiased(1.5 * found, expected, bound=0.2)


# Node perturbation.


def test_an_extra_current_is_what_a_bias_does() -> None:
    x, _ = data()
    network = NETWORKS["deep"]("numpy")
    extra = {name: np.random.default_rng(1).standard_normal(p.size) for name, p in network.graph.populations.items()}
    inputs = x.transpose(1, 0, 2)
    currents = {name: np.broadcast_to(value, (14, 3, len(value))) for name, value in extra.items()}
    found = network.forward(network.values, inputs, extra_current=currents)
    biased = {**network.values, **{f"{name}.bias": value for name, value in extra.items()}}
    expected = network.forward(biased, inputs)
    for name in network.graph.order:
        np.testing.assert_allclose(found.z(name), expected.z(name), atol=1e-12)
    assert np.abs(network.forward(network.values, inputs).z("readout") - found.z("readout")).max() > 0.1


def test_node_perturbation_is_unbiased_for_bptt_on_a_smooth_network() -> None:
    x, y = data(batch=2, steps=4, inputs=2, outputs=2)
    expected = flat(BPTT(smooth()).gradients(x, y))

    def make(seed: int) -> Rule:
        return NodePerturbation(smooth(), size=1e-4, directions=500, seed=seed)

    found = estimates(make, x, y, 32)
    assert_unbiased(found, expected, bound=0.06)
    with pytest.raises(AssertionError):
        assert_unbiased(1.5 * found, expected, bound=0.2)


def test_node_perturbation_is_the_gradient_of_the_smoothed_loss_of_a_spiking_neuron() -> None:
    """One neuron, one step, closed form: it spikes with probability p = Φ((w x + b - θ)/σ).

    ⟨E⟩ = p ((w_out + b_out - t)² + r₁) + (1 - p) ((b_out - t)² + r₀) + σ², r the penalty with and without a spike.
    """
    sigma, w, bias, w_out, b_out, target = 0.4, 0.8, 0.1, 0.7, 0.2, 0.5
    strength, rate = 0.6, 250.0
    network = LIF(1, 1, inputs=1, recurrent=False, tau_readout=0.0, task_type="regression", dtype="float64")
    values = {"hidden.input.weight": [[w]], "hidden.bias": [bias], "readout.input.weight": [[w_out]]}
    network.set_parameters({**values, "readout.bias": [b_out]})
    u = (w + bias - 1) / sigma
    p, density = 0.5 * (1 + math.erf(u / math.sqrt(2))), math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    on, off = w_out + b_out - target, b_out - target
    penalties = [0.5 * strength * (z - rate * 1e-3) ** 2 for z in (0, 1)]
    rise = density / sigma * (on**2 - off**2 + penalties[1] - penalties[0])
    expected = np.array([rise, rise, 2 * p * on, 2 * (p * on + (1 - p) * off)])
    regularizers = [FiringRate(target=rate, strength=strength)]

    def make(seed: int) -> Rule:
        model = Evaluator(network)
        return NodePerturbation(model, size=sigma, directions=2000, seed=seed, regularizers=regularizers)

    x, y = np.ones((1, 1, 1)), np.full((1, 1, 1), target)
    found = estimates(make, x, y, 40)
    names = list(network.parameters)
    assert names == ["hidden.input.weight", "hidden.bias", "readout.input.weight", "readout.bias"]
    assert_unbiased(found, expected, bound=0.03)
    # Without noise the neuron is silent: what arrives at the readout has to be what the noisy passes sent.
    assert not Evaluator(network).trajectory(x).z("hidden").any()


def test_the_losses_of_the_examples_add_up() -> None:
    x, _ = data()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    y = np.full((3, 14), -1)
    y[0, 3:], y[1] = 2, 1
    inputs, target, mask = model.batch(x, y)
    parts = model.example_losses(model.network.forward(model.network.values, inputs), target, mask)
    alone = [model.evaluate(x[[k]], y[[k]])["loss"] * (y[k] >= 0).sum() / (y >= 0).sum() for k in (0, 1)]
    np.testing.assert_allclose(parts, [*alone, 0.0], rtol=1e-12)
    assert parts.sum() == pytest.approx(model.evaluate(x, y)["loss"], rel=1e-12)


def test_an_example_is_credited_with_its_own_loss() -> None:
    """An example without a supervised step contributes nothing, whatever its noise; the other one is unchanged."""
    x, _ = data(batch=2)
    model = Evaluator(NETWORKS["tanh"]("numpy"))
    y = np.full((2, 14), -1)
    y[0] = 1
    other = x.copy()
    other[1] = 5.0
    first, second = (NodePerturbation(model, directions=3).gradients(each, y) for each in (x, other))
    assert distance(first, second) < 1e-12


# Both.


@pytest.mark.parametrize("name", ["weight_perturbation", "node_perturbation"])
class TestBoth:
    def test_they_learn(self, name: str) -> None:
        """The loss falls to 0.4 of what it was; in 20 of 20 other seeds it fell to 0.02 to 0.19."""
        x, y = data(batch=8, steps=8)
        network = ALIF(12, 3, threshold=0.5, seed=1, tau_readout=5e-3)
        rule = RULES[name](Evaluator(network), size=0.1, directions=8, optimizer=Adam(2e-2))
        losses = [rule.step(x, y)["loss"] for _ in range(150)]
        assert losses[-1] < 0.4 * losses[0]

    def test_the_seed_and_the_step_make_the_noise(self, name: str) -> None:
        x, y = data()
        rules = [RULES[name](Evaluator(NETWORKS["alif"]("numpy")), seed=seed) for seed in (1, 1, 2)]
        first, same, other = (rule.gradients(x, y) for rule in rules)
        assert distance(same, first) == 0
        assert distance(other, first) > 0.1
        rules[0].steps = 1
        assert distance(rules[0].gradients(x, y), first) > 0.1

    @pytest.mark.parametrize(("knob", "value"), [("size", 0.3), ("directions", 2)])
    def test_each_knob_matters(self, name: str, knob: str, value: Any) -> None:
        x, y = data()
        model = Evaluator(NETWORKS["alif"]("numpy"))
        usual = RULES[name](model).gradients(x, y)
        assert np.abs(flat(RULES[name](model, **{knob: value}).gradients(x, y)) - flat(usual)).max() > 1e-6

    def test_refusals(self, name: str) -> None:
        model = Evaluator(NETWORKS["alif"]("numpy"))
        with pytest.raises(ArgumentError, match="size must be a finite number above 0"):
            RULES[name](model, size=0.0)
        with pytest.raises(ArgumentError, match="directions must be a whole number"):
            RULES[name](model, directions=0)
        assert RULES[name].requires in ("forward", "nodes")


def test_learned_constants_are_moved_by_one_and_refused_by_the_other() -> None:
    x, y = data()
    model = Evaluator(LIF(6, 3, inputs=4, learnable=["threshold"], dtype="float64"))
    assert np.abs(WeightPerturbation(model).gradients(x, y)["hidden.threshold"]).max() > 0
    with pytest.raises(IncompatibleError, match=r"weights and biases only .*hidden\.threshold"):
        NodePerturbation(model)
