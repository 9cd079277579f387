"""Rules exactly: each part of an update against its closed form, so that a part applied elsewhere or twice is seen."""

from __future__ import annotations

import numpy as np
import pytest
from credit_cases import INPUTS, NETWORKS, alive, data, distance, feedback_network, stack

from neko_rules import BPTT, OSTL, RNN, EProp, Evaluator, FiringRate, LearningRule, Network
from neko_rules.backend import get_backend
from neko_rules.clipping import ClipGlobalNorm
from neko_rules.errors import CheckpointError, IncompatibleError, NonFiniteError
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.optimizers import SGD, Adam

WEIGHT = ".weight"


def deep(mode: str = "adaptive", **options: object) -> EProp:
    return EProp(Evaluator(NETWORKS["deep"]("numpy")), mode=mode, **options)  # type: ignore[arg-type]


def with_feedback(rule: LearningRule, given: dict[str, np.ndarray]) -> LearningRule:
    rule.load_state({**rule.state(), **{f"feedback/{name}": value for name, value in given.items()}})
    return rule


# Feedback.


def test_every_layer_s_adaptive_feedback_approaches_its_weight() -> None:
    x, y = data()
    rate, decay = 0.01, 2.0
    rule = deep(feedback_decay=decay, optimizer=Adam(rate))
    assert len(rule.feedback) == 3
    first = {name: rule.model.network.parameters[name] - value for name, value in rule.feedback.items()}
    for _ in range(5):
        rule.step(x, y)
    for name, value in rule.feedback.items():
        gap = rule.model.network.parameters[name] - value
        np.testing.assert_allclose(gap, first[name] * (1 - rate * decay) ** 5, atol=1e-12)


def test_feedback_decay_acts_on_the_weights_with_feedback_alone() -> None:
    x, y = data()
    decayed, free = (deep(feedback_decay=value, optimizer="naive") for value in (0.25, 0.0))
    before = free.model.network.parameters
    decayed.step(x, y)
    free.step(x, y)
    for name, value in decayed.model.network.parameters.items():
        shrink = 0.25 * before[name] if name in free.feedback else 0.0
        np.testing.assert_allclose(value, free.model.network.parameters[name] - shrink, atol=1e-14)


def test_adaptive_feedback_refuses_a_decay_that_it_cannot_follow() -> None:
    with pytest.raises(IncompatibleError, match="AdamW decays the weights alone"):
        deep(optimizer="adamw")
    assert deep(optimizer={"name": "adamw", "weight_decay": 0.0}).feedback_decay > 0
    with pytest.raises(IncompatibleError, match="must be below 1"):
        deep(optimizer="naive", feedback_decay=1.0)


def test_the_usual_feedback_decay_takes_at_most_a_thousandth_per_step() -> None:
    for name in ("naive", "adadelta", "sgd", "adam"):
        rule = deep(optimizer=name)
        assert 0 < rule.optimizer.learning_rate_at(0) * rule.feedback_decay <= 1e-3 * (1 + 1e-12)


def test_a_readout_that_starts_at_zero_still_sends_errors_down_random_feedback() -> None:
    x, y = data()
    network = stack(LIFCell(threshold=0.5), readout_initializer="zeros")("numpy")
    found = EProp(Evaluator(network), mode="random").gradients(x, y)
    assert np.abs(found["hidden.input.weight"]).max() > 1e-3
    assert np.abs(EProp(Evaluator(network)).gradients(x, y)["hidden.input.weight"]).max() == 0


def test_first_feedback_is_independent_of_the_weights_and_of_other_layers() -> None:
    """Two unrelated matrices of 64 x 64 have a correlation below 0.1 but with probability 2e-10."""
    same_size = Network(
        {f"p{i}": {"cell": "lif", "size": 64} for i in range(4)},
        [{"source": "input", "target": "p0"}, *({"source": f"p{i}", "target": f"p{i + 1}"} for i in range(3))],
        "p3",
        inputs=INPUTS,
    )
    rule = EProp(Evaluator(same_size), mode="random")
    matrices = [*rule.feedback.values(), *(same_size.parameters[name] for name in rule.feedback)]
    assert len(matrices) == 6
    flat = np.array([matrix.ravel() for matrix in matrices])
    assert np.abs(np.corrcoef(flat) - np.eye(6)).max() < 0.1


def test_feedback_alignment_equals_random_eprop_where_nothing_recurs() -> None:
    """Full credit through random feedback, on one feed-forward layer: the same paths as e-prop's."""
    x, y = data()
    network = stack(LIFCell(threshold=0.5))("numpy")
    zero = np.zeros_like(network.parameters["hidden.recurrent.weight"])
    network.set_parameters({"hidden.recurrent.weight": zero})
    model = Evaluator(network)
    alive(model, x)
    full = LearningRule(model, temporal="full", spatial="random", seed=3)
    local = EProp(model, mode="random", seed=3)
    names = [name for name in network.parameters if "recurrent" not in name]
    found, reference = full.gradients(x, y), local.gradients(x, y)
    assert distance({n: found[n] for n in names}, {n: reference[n] for n in names}) < 1e-12
    assert distance({n: BPTT(model).gradients(x, y)[n] for n in names}, {n: reference[n] for n in names}) > 0.1


@pytest.mark.parametrize("changed", ["high.from_low.weight", "readout.from_high.weight", "readout.from_low.weight"])
def test_full_credit_goes_through_every_feedback_matrix(changed: str) -> None:
    """Also through one between two populations that are stepped together, which the recursion itself carries."""
    x, y = data()
    model = Evaluator(feedback_network("numpy"))
    weights = model.network.parameters
    rule = LearningRule(model, temporal="full", spatial="random")
    as_weights = {name: weights[name] for name in rule.feedback}
    exact = BPTT(model).gradients(x, y)["low.from_input.weight"]
    one = with_feedback(rule, as_weights).gradients(x, y)["low.from_input.weight"]
    assert distance({"low": one}, {"low": exact}) < 1e-12
    other = with_feedback(rule, {**as_weights, changed: -weights[changed]}).gradients(x, y)["low.from_input.weight"]
    assert distance({"low": other}, {"low": exact}) > 1e-2


# Regularisers.


@pytest.mark.parametrize("rule_class", [BPTT, EProp])
def test_regularisers_add_up(rule_class: type[LearningRule]) -> None:
    x, y = data()
    model = Evaluator(NETWORKS["deep"]("numpy"))
    one, two = FiringRate(target=10.0, strength=30.0), FiringRate(target=300.0, strength=70.0)
    plain = rule_class(model).gradients(x, y)
    parts = [rule_class(model, regularizers=[each]).gradients(x, y) for each in (one, two)]  # type: ignore[call-arg]
    both = rule_class(model, regularizers=[one, two]).gradients(x, y)  # type: ignore[call-arg]
    expected = {name: parts[0][name] + parts[1][name] - plain[name] for name in plain}
    assert distance(both, expected) < 1e-12
    assert all(distance({"w": both["hidden0.input.weight"]}, {"w": p["hidden0.input.weight"]}) > 1e-3 for p in parts)


def test_a_regulariser_reaches_every_spiking_population_at_its_own_rate() -> None:
    """With random feedback of zero nothing comes down from above: each layer sees its own rate alone."""
    x, y = data()
    model = Evaluator(NETWORKS["deep"]("numpy"))
    rule = EProp(model, mode="random", regularizers=[FiringRate(target=50.0, strength=100.0)])
    with_feedback(rule, {name: 0 * value for name, value in rule.feedback.items()})
    found = rule.gradients(x, y)
    assert all(np.abs(found[f"hidden{layer}.input.weight"]).max() > 1e-6 for layer in range(3))


def test_a_regulariser_adds_to_the_loss_at_a_spiking_output() -> None:
    x, y = data()
    populations = {"hidden": {"cell": "lif", "size": 8}, "out": {"cell": LIFCell(threshold=0.5), "size": 3}}
    ends = [{"source": "input", "target": "hidden"}, {"source": "hidden", "target": "out"}]
    model = Evaluator(Network(populations, ends, "out", inputs=INPUTS, dtype="float64"))
    alive(model, x)
    regularizer = FiringRate(target=10.0, strength=40.0)
    whole = BPTT(model, regularizers=[regularizer]).gradients(x, y)["out.from_hidden.weight"]
    loss_alone = BPTT(model).gradients(x, y)["out.from_hidden.weight"]
    strong = BPTT(model, regularizers=[FiringRate(target=10.0, strength=80.0)]).gradients(x, y)[
        "out.from_hidden.weight"
    ]
    np.testing.assert_allclose(strong - whole, whole - loss_alone, atol=1e-13)
    assert np.abs(whole - loss_alone).max() > 1e-6
    assert np.abs(loss_alone).max() > 1e-6


# From gradient to weight change.


def test_clipping_comes_before_the_optimiser() -> None:
    x, y = data()
    rate, limit = 0.1, 1e-3
    rule = BPTT(Evaluator(NETWORKS["alif"]("numpy")), optimizer=SGD(rate), clipping=ClipGlobalNorm(limit))
    before, gradient = rule.model.network.parameters, rule.gradients(x, y)
    norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
    assert norm > limit
    rule.step(x, y)
    for name, value in rule.model.network.parameters.items():
        np.testing.assert_allclose(value, before[name] - rate * gradient[name] * limit / norm, atol=1e-15)


def test_the_first_update_is_number_one() -> None:
    """Adam's first step has the length of the learning rate: its bias correction divides by 1 - β^1."""
    x, y = data()
    rule = BPTT(Evaluator(NETWORKS["tanh"]("numpy")), optimizer=Adam(0.01, epsilon=1e-300))
    before, gradient = rule.model.network.parameters, rule.gradients(x, y)
    rule.step(x, y)
    for name, value in rule.model.network.parameters.items():
        np.testing.assert_allclose(value - before[name], -0.01 * np.sign(gradient[name]), rtol=1e-9, atol=1e-15)


def test_a_schedule_is_read_at_the_number_of_updates_made() -> None:
    x, y = data()
    schedule = {"name": "piecewise_constant", "boundaries": [1, 2], "values": [1.0, 0.1, 0.01]}
    rule = BPTT(Evaluator(NETWORKS["tanh"]("numpy")), optimizer=SGD(schedule))  # type: ignore[arg-type]
    for rate in (1.0, 0.1, 0.01):
        before, gradient = rule.model.network.parameters, rule.gradients(x, y)
        rule.step(x, y)
        for name, value in rule.model.network.parameters.items():
            np.testing.assert_allclose(value, before[name] - rate * gradient[name], rtol=1e-12, atol=1e-15)


def test_a_loss_that_overflows_is_refused_although_its_gradient_does_not() -> None:
    x, y = np.ones((2, 3, 4)), np.full((2, 3, 1), 1e30)
    network = RNN(3, 1, task_type="regression", inputs=4)
    rule = BPTT(Evaluator(network), optimizer=SGD(1e-35))
    before = network.parameters
    with pytest.raises(NonFiniteError, match="in loss at step 1"):
        rule.step(x, y)
    assert all(np.array_equal(before[name], value) for name, value in network.parameters.items())


def test_an_optimiser_whose_memory_overflows_is_refused() -> None:
    """Adam's second moment: a gradient of 1e20 is finite in float32, its square is not."""
    x, y = np.ones((2, 3, 4)), np.zeros((2, 3, 1))
    network = RNN(3, 1, task_type="regression", inputs=4, activation="relu")
    rule = BPTT(Evaluator(network, loss="mean_absolute_error"), optimizer=Adam(1e-3))
    rule.step(x, y)
    before = rule.state()
    with pytest.raises(NonFiniteError, match="at step 2"):
        rule.step(1e30 * x, y)
    assert all(np.array_equal(before[name], value) for name, value in rule.state().items())


def test_norm_clipping_keeps_the_direction_of_huge_gradients() -> None:
    nx = get_backend("numpy")
    clipped = ClipGlobalNorm(1.0).apply(nx, {"w": np.array([3e19, 4e19], np.float32)})
    np.testing.assert_allclose(clipped["w"], [0.6, 0.8], rtol=1e-6)


def test_adam_is_corrected_for_its_bias_in_float32_too() -> None:
    x, y = data()
    network = RNN(3, 3, inputs=4, dtype="float32")
    rule = BPTT(Evaluator(network), optimizer=Adam(1.0, beta_2=1 - 1e-7, epsilon=1e-30))
    before, gradient = network.parameters, rule.gradients(x, y)
    rule.step(x, y)
    for name, value in network.parameters.items():
        moved = np.abs(value - before[name])[np.abs(gradient[name]) > 1e-6]
        np.testing.assert_allclose(moved, 1.0, rtol=1e-5)


def test_a_state_with_unusable_numbers_is_refused_and_its_order_does_not_matter() -> None:
    x, y = data()
    rule = deep()
    rule.step(x, y)
    state = rule.state()
    for name, value in (("parameters/readout.bias", np.nan), ("feedback/readout.input.weight", np.inf), ("steps", -1)):
        with pytest.raises(CheckpointError):
            deep().load_state({**state, name: np.full_like(state[name], value)})
    twin = deep()
    twin.load_state(dict(sorted(state.items(), reverse=True)))
    assert list(twin.state()) == list(state)


@pytest.mark.parametrize("rule_class", [BPTT, EProp, OSTL])
def test_a_diagonal_that_a_user_sets_acts_in_neither_direction(rule_class: type[LearningRule]) -> None:
    x, y = data()
    model = Evaluator(NETWORKS["alif"]("numpy"))
    reference, outputs = rule_class(model).gradients(x, y), model.predict(x)  # type: ignore[call-arg]
    weight = model.network.parameters["hidden.recurrent.weight"]
    model.network.set_parameters({"hidden.recurrent.weight": weight + 3 * np.eye(len(weight))})
    np.testing.assert_array_equal(model.predict(x), outputs)
    assert distance(rule_class(model).gradients(x, y), reference) < 1e-15  # type: ignore[call-arg]


def test_weight_decay_is_scaled_by_the_learning_rate() -> None:
    x, y = data()
    rule = BPTT(Evaluator(NETWORKS["tanh"]("numpy")), optimizer=SGD(0.1), weight_decay=0.3)
    before, gradient = rule.model.network.parameters, rule.gradients(x, y)
    rule.step(x, y)
    for name, value in rule.model.network.parameters.items():
        kept = 1 - 0.1 * 0.3 if name.endswith(WEIGHT) else 1.0
        np.testing.assert_allclose(value, kept * before[name] - 0.1 * gradient[name], rtol=1e-12, atol=1e-15)
