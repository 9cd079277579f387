"""What is set from outside of a rule of pulses: weights, seeds, schedules that end, settings assigned between steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, data

from neko_rules import BPTT, EProp, Evaluator, GradientComparison, Manhattan, TikiTaka
from neko_rules.backend import BUILT_IN
from neko_rules.devices import Constant, Crossbar, presets
from neko_rules.errors import ArgumentError, CheckpointError, IncompatibleError, NekoWarning
from neko_rules.rules import DECISIONS, RULES
from neko_rules.schedules import CosineDecay

FINE = Crossbar(Constant(step=1e-8), w_max=4.0)
"""Devices that a pulse moves by a thousandth of the range of weights."""

ON_CROSSBARS: dict[str, Callable[[Evaluator], Manhattan]] = {
    "Manhattan": lambda model: Manhattan(model, crossbar=FINE),
    "Tiki-Taka": lambda model: TikiTaka(model, FINE),
    "Tiki-Taka, the fast array too": lambda model: TikiTaka(model, FINE, gamma=0.5),
}


def model_of(backend: str = "numpy") -> Evaluator:
    return Evaluator(NETWORKS["alif"](backend))


def halved(rule: Any) -> dict[str, np.ndarray]:
    """Set a rule's weights to half of what they are."""
    network = rule.model.network
    network.set_parameters({name: 0.5 * value for name, value in network.parameters.items()})
    return dict(network.parameters)


# Weights.


@pytest.mark.parametrize("backend", BUILT_IN, indirect=True)
@pytest.mark.parametrize("name", list(ON_CROSSBARS))
def test_weights_that_are_set_are_written_to_the_devices(name: str, backend: str) -> None:
    (x, y), rule = data(), ON_CROSSBARS[name](model_of(backend))
    rule.step(x, y)
    pulses = rule.crossbar.report().pulses  # type: ignore[union-attr]
    wanted = halved(rule)
    rule.step(x, y)
    for key, value in rule.model.network.parameters.items():
        moved = np.abs(value - wanted[key]).max()
        assert moved < 0.05 < np.abs(wanted[key]).max() or not key.endswith("weight"), (key, moved)
    # Counters go on: a device does not become new by being written.
    assert rule.crossbar.report().pulses >= pulses  # type: ignore[union-attr]


def test_weights_are_written_by_write_verify_where_there_is_a_budget() -> None:
    (x, y), crossbar = data(), Crossbar(Constant(step=1e-6), w_max=4.0, budget=200, tolerance=0.01)
    rule = Manhattan(model_of(), crossbar=crossbar)
    before = rule.crossbar.report().pulses  # type: ignore[union-attr]
    wanted = halved(rule)
    rule.gradients(x, y)
    shown = rule.model.network.parameters
    assert max(np.abs(shown[name] - wanted[name]).max() for name in wanted if name.endswith("weight")) < 0.2
    assert rule.crossbar.report().pulses > before  # type: ignore[union-attr]


def test_what_another_rule_trained_in_between_is_kept(tmp_path: Path) -> None:
    x, y = data()
    rule = Manhattan(model_of(), crossbar=FINE)
    other = BPTT(rule.model, optimizer={"name": "sgd", "learning_rate": 0.5})
    other.step(x, y)
    wanted = rule.model.network.parameters
    rule.step(x, y)
    shown = rule.model.network.parameters
    assert max(np.abs(shown[name] - wanted[name]).max() for name in wanted if name.endswith("weight")) < 0.02
    path = tmp_path / "weights.safetensors"
    model_of().network.save(path)
    rule.model.network.load(path)
    rule.step(x, y)
    for name, value in model_of().network.parameters.items():
        np.testing.assert_allclose(rule.model.network.parameters[name], value, atol=0.02, err_msg=name)


def test_a_state_that_is_taken_up_again_is_not_written_anew() -> None:
    (x, y), make = data(), lambda: Manhattan(model_of(), crossbar=Crossbar(presets.ReRamHfO2(), w_max=2.0))
    first, second = make(), make()
    first.step(x, y)
    second.load_state(first.state())
    assert first.step(x, y) == second.step(x, y)
    one, other = first.state(), second.state()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("backend", BUILT_IN, indirect=True)
@pytest.mark.parametrize("make", [Manhattan, TikiTaka])
def test_conductances_that_stand_for_other_weights_are_not_taken_up(make: type[Manhattan], backend: str) -> None:
    (x, y), device = data(), Constant(step=1e-6, read_noise=0.01, write_noise=0.02)
    saved = make(model_of(backend), crossbar=Crossbar(device, w_max=4.0))
    saved.step(x, y)
    state = saved.state()
    for other in ({"w_max": 2.0}, {"w_max": 4.0, "encoding": "one_fixed"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NekoWarning)  # of first weights that are cut
            rule = make(model_of(backend), crossbar=Crossbar(device, **other))
        before = rule.state()
        with pytest.raises(CheckpointError, match=r"stand for its weights .*hidden\.input\.weight.*w_max, encoding"):
            rule.load_state(state)
        assert all(np.array_equal(each, before[name]) for name, each in rule.state().items())
    again = make(model_of(backend), crossbar=Crossbar(device, w_max=4.0))
    again.load_state(state)
    assert again.step(x, y) == saved.step(x, y)


def test_a_comparison_shows_the_pulses_at_the_weights_of_its_primary() -> None:
    """Not the way back to what the crossbar held before."""
    (x, y), model = data(batch=8), model_of()
    primary = BPTT(model, optimizer={"name": "sgd", "learning_rate": 1.0})
    begun = model.network.parameters
    comparison = GradientComparison(primary, {"pulses": Manhattan(model_of(), crossbar=FINE)})
    comparison.train(x, y, epochs=8, batch_size=4)
    pulsed = comparison.rules["pulses"].model.network.parameters
    trained = comparison.rules[comparison.name].model.network.parameters
    name = "hidden.input.weight"
    gone, apart = np.abs(trained[name] - begun[name]).max(), np.abs(pulsed[name] - trained[name]).max()
    assert apart < 0.3 * gone, (apart, gone)


# Seeds.


@pytest.mark.parametrize("rule", ["manhattan", "tiki_taka"])
def test_the_seed_of_the_rule_is_that_of_feedback_and_devices(rule: str) -> None:
    x, y = data()

    def made(number: int, **crossbar: Any) -> dict[str, np.ndarray]:
        given = {"device": presets.ReRamSB(), "w_max": 4.0, **crossbar}
        feedback = {"name": "eprop", "mode": "random"}
        found = RULES[rule](model_of(), crossbar=given, gradient=feedback, seed=number)
        found.step(x, y)
        return found.state()

    first, again, other, own = made(1), made(1), made(2), made(2, seed=1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    drawn = "gradient.feedback/readout.input.weight", "crossbar.plus.step_up/hidden.input.weight"
    for name in drawn:
        assert not np.array_equal(first[name], other[name]), name
    # A crossbar's own seed stays its own.
    assert np.array_equal(first[drawn[1]], own[drawn[1]])


def test_a_mapping_may_give_the_deciding_rule_another_seed() -> None:
    x, y = data()
    feedback = {"name": "eprop", "mode": "random", "seed": 5}
    found = Manhattan(model_of(), gradient=feedback, seed=1).gradients(x, y)
    wanted = EProp(model_of(), mode="random", seed=5).gradients(x, y)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


# Schedules, noise.


@pytest.mark.parametrize("backend", BUILT_IN, indirect=True)
@pytest.mark.parametrize("decision", list(DECISIONS))
def test_a_step_of_zero_moves_nothing(decision: str, backend: str) -> None:
    (x, y), rule = data(), Manhattan(model_of(backend), CosineDecay(1e-2, 2), decision=decision, optimizer="sgd")
    for _ in range(2):
        rule.step(x, y)
    before = rule.model.network.parameters
    for _ in range(2):
        rule.step(x, y)
    after = rule.model.network.parameters
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_read_has_noise_of_its_own() -> None:
    (x, y), rule = data(), Manhattan(model_of(), crossbar=Crossbar(Constant(read_noise=0.05), w_max=4.0))
    crossbar: Any = rule.crossbar

    def noise() -> np.ndarray:
        return np.asarray(
            rule.model.network.parameters["hidden.input.weight"] - rule.crossbar.weights["hidden.input.weight"]  # type: ignore[union-attr]
        )

    first = noise()
    rule.step(x, y)
    stepped = noise()
    rule.wait(0.0)
    waited = noise()
    # Two devices each, of σ = 0.05 of a range that stands for 8: 0.05 √2 · 4 for 24 weights, within a factor of two.
    assert crossbar.crossbar.scale("hidden.input.weight") == 4.0
    for each in (first, stepped, waited):
        assert 0.14 < each.std() < 0.57
    assert not np.array_equal(first, stepped)
    assert not np.array_equal(stepped, waited)


def test_examples_of_batches_of_several_sizes_share_no_noise() -> None:
    rule = Manhattan(model_of(), per_sample=True, crossbar=Crossbar(Constant(cycle_noise=0.3), w_max=4.0))
    drawn = []
    for rule.steps, examples in ((1, 32), (10, 5), (11, 7)):
        drawn += list(rule._draw(1, examples)["crossbar.plus.pulse/hidden.input.weight"])
    assert len({each.tobytes() for each in drawn}) == 44


# Settings.


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("dead_zone", -1, "dead_zone must be"),
        ("dead_zone_unit", "rmss", "did you mean 'rms'"),
        ("refresh_every", 0, "refresh_every must be"),
        ("per_sample", 1, "per_sample must be"),
        ("delta", -1, "delta must be"),
        ("decision", "signn", "did you mean 'sign'"),
        ("gradient", 3, "a rule must be a name"),
        ("gradient", "manhattan", "which sends pulses itself"),
        ("gradient", {"name": "ttv2", "crossbar": {"w_max": 0.1}}, "which sends pulses itself"),
        ("regularizers", "firing_rate", "put a single one in a list"),
        ("regularizers", 3, "must be a list"),
    ],
    ids=str,
)
def test_what_is_assigned_is_looked_at_and_refused_leaves_all_as_it_was(name: str, value: Any, reason: str) -> None:
    rule = Manhattan(model_of())
    before, weights = getattr(rule, name), rule.model.network.parameters
    with pytest.raises((ArgumentError, IncompatibleError), match=reason):
        setattr(rule, name, value)
    assert getattr(rule, name) is before
    assert all(np.array_equal(weights[key], each) for key, each in rule.model.network.parameters.items())
    with pytest.raises((ArgumentError, IncompatibleError), match=reason):
        Manhattan(model_of(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decision", "momentum"),
        ("decision", "top_k"),
        ("gradient", {"name": "eprop", "mode": "random"}),
        ("delta", 0.5),
    ],
    ids=str,
)
def test_another_setting_acts_from_the_next_step_on(name: str, value: Any) -> None:
    x, y = data()
    rule, fresh = Manhattan(model_of(), 0.1), Manhattan(model_of(), **{"delta": 0.1, name: value})
    rule.step(x, y)
    fresh.model.network.set_parameters(rule.model.network.parameters)
    fresh.steps = rule.steps
    setattr(rule, name, value)
    rule.step(x, y)
    fresh.step(x, y)
    for key, wanted in fresh.model.network.parameters.items():
        assert np.array_equal(rule.model.network.parameters[key], wanted), key


def test_noise_is_not_drawn_for_millions_of_pulses() -> None:
    given: dict[str, Any] = {"decision": {"name": "multi_pulse", "limit": 10**8}, "optimizer": "sgd"}
    with pytest.raises(IncompatibleError, match="at most 1000 pulses at once"):
        Manhattan(model_of(), crossbar={"device": {"name": "constant", "cycle_noise": 0.1}}, **given)
    Manhattan(model_of(), crossbar={"device": {"name": "constant"}, "w_max": 4.0}, **given)
