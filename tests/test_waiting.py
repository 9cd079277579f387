"""Waiting: drift and leak of every device compose in time, in crossbars and rules, and begin anew with a pulse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, PULSED, data

from neko_rules import Evaluator
from neko_rules.backend import get_backend
from neko_rules.devices import DEVICES, Constant, Crossbar
from neko_rules.devices.encoding import ENCODINGS, pulsed
from neko_rules.rules import RULES

NX = get_backend("numpy")
WEIGHT = np.random.default_rng(0).uniform(-0.9, 0.9, (6, 4))
LAWS = {
    "drift": {"drift": 0.2, "drift_start": 2.0},
    "spread": {"drift": 0.1, "drift_spread": 0.05, "stuck": 0.2},
    "retention": {"retention": 20.0, "rest": 0.4},
    "both": {"drift": 0.1, "drift_spread": 0.05, "retention": 40.0, "rest": 0.6},
}


def aged(name: str, **options: Any) -> Crossbar:
    """A crossbar of devices of a name, with a law of time."""
    device = replace(DEVICES.resolve(name), **options)
    return Crossbar(device, encoding="one_sided" if device.one_way else "differential", w_max=1.0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", list(DEVICES))
def test_waiting_in_parts_is_waiting_once_for_every_device(name: str, law: str) -> None:
    crossbar = aged(name, **LAWS[law])
    state = crossbar.first({"w": WEIGHT})
    once = crossbar.wait(NX, state, 60.0)
    parts = state
    for seconds in (10.0, 10.0, 0.0, 39.0, 1.0):
        parts = crossbar.wait(NX, parts, seconds)
    assert set(parts) == set(state)
    for group, values in once.items():
        np.testing.assert_allclose(parts[group]["w"], values["w"], rtol=1e-12, err_msg=group)
    assert np.abs(once["plus.conductance"]["w"] - state["plus.conductance"]["w"]).max() > 1e-6


@pytest.mark.parametrize("law", LAWS)
def test_waiting_in_parts_is_waiting_once_on_every_backend(law: str, evaluate: Callable[..., Any]) -> None:
    crossbar = aged("constant", **LAWS[law])
    state = crossbar.first({"w": WEIGHT})
    expected = crossbar.wait(NX, state, 60.0)
    found = evaluate(lambda nx, held: crossbar.wait(nx, crossbar.wait(nx, held, 20.0), 40.0), state)
    for group, values in expected.items():
        np.testing.assert_allclose(found[group]["w"], values["w"], rtol=1e-12, err_msg=group)


def test_the_laws_are_those_of_their_equations() -> None:
    g = np.array([40e-6, 5e-6, 90e-6])
    drifting = Constant(g_min=4.5e-6, drift=0.1, drift_start=2.0)
    found = drifting.wait(NX, g, {**drifting.nominal(), "drift": 0.1}, 18.0)
    np.testing.assert_allclose(found, np.maximum(g * 10**-0.1, 4.5e-6), rtol=1e-12)
    both = Constant(drift=0.1, drift_start=2.0, retention=9.0, rest=0.5)
    found = both.wait(NX, g, {**both.nominal(), "drift": 0.1}, 18.0)
    np.testing.assert_allclose(found, 50e-6 + (g - 50e-6) * np.exp(-2) * 10**-0.1, rtol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_pulse_makes_its_device_young_again_and_no_other(encoding: str) -> None:
    crossbar = Crossbar(Constant(step=1e-6, drift=0.1, drift_start=2.0), encoding=encoding)
    old = crossbar.wait(NX, crossbar.first({"w": WEIGHT}), 98.0)
    counts = np.where(np.arange(24).reshape(6, 4) % 3 == 0, 1.0, 0.0)
    later = crossbar.wait(NX, crossbar.pulse(NX, old, {"w": counts}), 100.0)
    pulsed_on = crossbar.pulse(NX, old, {"w": counts})
    for side in ("plus", "minus"):
        # A one-sided pair is raised on one side only.
        due = counts if side in pulsed(encoding) and (encoding, side) != ("one_sided", "minus") else 0.0 * counts
        g, after = (each[f"{side}.conductance"]["w"] for each in (pulsed_on, later))
        due = due if due.shape == g.shape else np.zeros(g.shape)
        np.testing.assert_allclose(after, g * np.where(due, 51.0, 2.0) ** -0.1, rtol=1e-12)
        np.testing.assert_allclose(later[f"{side}.age"]["w"], np.where(due, 102.0, 200.0))


def test_write_verify_rewriting_and_refreshing_make_devices_young() -> None:
    device = Constant(step=1e-6, drift=0.01)
    verified = Crossbar(device, budget=60, tolerance=0.02)
    state = verified.wait(NX, verified.first({"w": WEIGHT}), 9.0)
    target = WEIGHT.copy()
    target[0] -= 0.3 * np.sign(target[0])
    before = state["plus.up"]["w"] + state["plus.down"]["w"]
    written, _ = verified.write_verify(NX, state, {"w": target})
    moved = written["plus.up"]["w"] + written["plus.down"]["w"] > before
    assert moved[0].all()
    assert not moved.all()
    assert np.array_equal(written["plus.age"]["w"], np.where(moved, 1.0, 10.0))
    exact = Crossbar(device)
    state = exact.wait(NX, exact.first({"w": WEIGHT, "v": WEIGHT}), 9.0)
    rewritten = exact.rewritten(state, {"w": target}, 0)
    assert (rewritten["minus.age"]["w"] == 1.0).all()
    assert (rewritten["minus.age"]["v"] == 10.0).all()
    sided = Crossbar(device, encoding="one_sided", budget=200, refresh_at=0.8)
    state = sided.first({"w": 0.5 * WEIGHT})
    state["plus.conductance"]["w"][0, 0] = state["minus.conductance"]["w"][0, 0] = 90e-6
    refreshed = sided.refresh(NX, sided.wait(NX, state, 9.0))
    assert refreshed["plus.age"]["w"][0, 0] == 1.0
    assert (refreshed["plus.age"]["w"].ravel()[1:] == 10.0).all()


def test_since_says_how_old_all_devices_are() -> None:
    crossbar = Crossbar(Constant(drift=0.1))
    state = crossbar.first({"w": WEIGHT})
    later = crossbar.wait(NX, state, 30.0, since=10.0)
    ratio = later["plus.conductance"]["w"] / state["plus.conductance"]["w"]
    np.testing.assert_allclose(ratio, 4**-0.1, rtol=1e-12)
    assert (later["plus.age"]["w"] == 40.0).all()
    assert not any("age" in group for group in Crossbar(Constant(retention=3.0)).first({"w": WEIGHT}))


@pytest.mark.parametrize("name", PULSED)
def test_a_rule_waits_in_parts_across_saving_as_it_waits_once(name: str, backend: str) -> None:
    x, y = data(steps=4)

    def made() -> Any:
        device = Constant(step=1e-6, drift=0.1, drift_spread=0.02, retention=200.0, rest=0.5)
        return RULES[name](Evaluator(NETWORKS["alif"](backend)), crossbar=Crossbar(device, w_max=4.0))

    once, parts = made(), made()
    for rule in (once, parts):
        rule.step(x, y)
    once.wait(50.0)
    parts.wait(20.0)
    saved = parts.state()
    taken_up = made()
    taken_up.load_state(saved)
    for rule in (parts, taken_up):
        rule.wait(30.0)
    for key, value in once.state().items():
        np.testing.assert_allclose(parts.state()[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
        assert np.array_equal(taken_up.state()[key], parts.state()[key]), key
    assert any("age" in key for key in saved)
