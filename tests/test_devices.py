"""Devices: closed-form pulse curves, noise, spread, stuck devices, drift, and presets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from device_cases import HIGH, LOW, MODELS, PRESETS, every_device
from hypothesis import given, settings
from hypothesis import strategies as st

from neko_rules.backend import get_backend
from neko_rules.devices import (
    DEVICES,
    Constant,
    Device,
    Linear,
    SoftBounds,
    from_aihwkit,
    presets,
)
from neko_rules.errors import ArgumentError

NX = get_backend("numpy")


# Curves.


def test_constant_steps_add_up_to_the_bound() -> None:
    n = np.arange(20)
    expected = np.minimum(LOW + n * 7e-6 * 1.2, HIGH)
    np.testing.assert_allclose(MODELS["constant"].curve([1] * 19), expected, rtol=1e-12)
    down = np.maximum(HIGH - n * 7e-6 * 0.8, LOW)
    np.testing.assert_allclose(MODELS["constant"].curve([-1] * 19, start=HIGH), down, rtol=1e-12)


def test_linear_steps_are_a_geometric_series() -> None:
    n, span = np.arange(30), HIGH - LOW
    for directions, start, gamma in (([1] * 29, LOW, 0.6), ([-1] * 29, HIGH, 0.3)):
        # u_n = (1 - (1 - γ a)^n)/γ with a = ΔG/range, as far as the bound.
        u = np.minimum((1 - (1 - gamma * 7e-6 / span) ** n) / gamma, 1.0)
        expected = LOW + u * span if directions[0] > 0 else HIGH - u * span
        np.testing.assert_allclose(MODELS["linear"].curve(directions, start), expected, rtol=1e-12)


def test_soft_bounds_approach_the_end_exponentially() -> None:
    n, span = np.arange(200), HIGH - LOW
    expected = HIGH - span * (1 - 0.7 * 7e-6 / span) ** n
    np.testing.assert_allclose(MODELS["soft_bounds"].curve([1] * 199), expected, rtol=1e-12)


@pytest.mark.parametrize("pulses", [1, 10, 173])
def test_pulses_reach_exactly_the_other_end(pulses: int) -> None:
    alpha = 2.5 / pulses
    device = Linear.reaching(pulses=pulses, alpha=alpha, g_min=LOW, g_max=HIGH)
    amplitude = (HIGH - LOW) / (1 - math.exp(-alpha * pulses))
    expected = LOW + amplitude * (1 - np.exp(-alpha * np.arange(pulses + 1)))
    np.testing.assert_allclose(device.curve([1] * pulses), expected, rtol=1e-12)
    assert device.curve([1] * pulses)[-1] == pytest.approx(HIGH, rel=1e-12)
    assert device.curve([-1] * pulses, start=HIGH)[-1] == pytest.approx(LOW, rel=1e-11)
    if pulses > 1:  # α instead of 1 - e^{-α} is too large a step, by half of α
        naive = replace(device, step=amplitude * alpha)
        assert naive.curve([1] * (pulses - 1))[-1] > expected[-2] * (1 + 0.05 * alpha)


def written_out(name: str, u: float, d: int) -> float:
    """f of three models in plain Python, independent of the package."""
    if name == "power":
        return (1 - u) ** (2.0 if d > 0 else 1.5)
    if name == "exponential":
        return max(0.0, 1 - 0.2 * math.exp(1.5 * u)) if d > 0 else max(0.0, 1 + math.exp(-3 * u))
    nodes = (1.0, 0.6, 0.1) if d > 0 else (0.9, 0.5)
    return float(np.interp(u, np.linspace(0, 1, len(nodes)), nodes))


@pytest.mark.parametrize("name", ["power", "exponential", "tabulated"])
def test_curve_is_the_equation_written_out(name: str) -> None:
    directions = [1] * 15 + [-1] * 25 + [1, -1] * 3
    g, expected = LOW, [LOW]
    for d in directions:
        u = (g - LOW) / (HIGH - LOW)
        g = min(max(g + d * 7e-6 * written_out(name, u if d > 0 else 1 - u, d), LOW), HIGH)
        expected.append(g)
    np.testing.assert_allclose(MODELS[name].curve(directions), expected, rtol=1e-12)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_is_the_same_on_every_backend(name: str, evaluate: Callable[..., Any]) -> None:
    device = replace(MODELS[name], cycle_noise=0.3, step_spread=0.2, stuck=0.1)
    rng = np.random.default_rng(0)
    cells = device.draw((4, 5), rng)
    g = rng.uniform(LOW, HIGH, (4, 5))
    counts = rng.integers(-3, 4, (4, 5)).astype(float)
    noise = rng.standard_normal((3, 4, 5))
    arrays = {key: np.broadcast_to(np.asarray(value, np.float64), (4, 5)) for key, value in cells.items()}

    def moved(nx: Any, *given: Any) -> Any:
        return device.pulses(nx, given[0], given[1], dict(zip(arrays, given[3:], strict=True)), given[2], limit=3)

    expected = device.pulses(NX, g, counts, cells, noise, limit=3)
    np.testing.assert_allclose(evaluate(moved, g, counts, noise, *arrays.values()), expected, rtol=1e-13)
    assert np.any(expected != g)


# Noise and spread.


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_noise_of_pulses_adds_as_the_root_of_their_number(kind: str) -> None:
    """Standard errors are 0.35 % of the mean's unit and 0.5 % of the deviation: four of them, 1 in 8000 fails."""
    n, devices = 9, 20_000
    device = Constant(step=1e-6, asymmetry=0.25, cycle_noise=0.5, noise=kind)
    noise = np.random.default_rng(1).standard_normal((n, devices))
    start = np.full(devices, 50e-6)
    moved = device.pulses(NX, start, np.full(devices, float(n)), device.nominal(), noise, limit=n) - start
    sigma = 0.5e-6 * (1.25 if kind == "multiplicative" else 1.0)
    assert moved.mean() == pytest.approx(n * 1.25e-6, abs=4 * sigma * math.sqrt(n / devices))
    assert moved.std() == pytest.approx(sigma * math.sqrt(n), rel=4 * 0.005)


def test_noise_is_per_pulse_and_needed() -> None:
    device = Constant(step=1e-6, cycle_noise=0.5)
    with pytest.raises(ArgumentError, match="needs the noise"):
        device.pulse(NX, np.array([50e-6]), np.array([1.0]), device.nominal())
    assert np.ptp(device.curve([1] * 10, seed=0) - device.curve([1] * 10)) > 0
    assert np.array_equal(device.curve([1] * 10, seed=3), device.curve([1] * 10, seed=3))


@pytest.mark.parametrize("distribution", ["normal", "lognormal"])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_spread_has_its_mean_deviation_and_correlation(distribution: str, correlation: float) -> None:
    """40,000 devices: four standard errors of each estimate, at most 1 in 4000 fails."""
    device = Constant(step_spread=0.2, step_distribution=distribution, step_correlation=correlation, asymmetry=0.1)
    cells = device.draw((200, 200), np.random.default_rng(2))
    up, down = cells["step_up"].ravel() / 1.1e-6, cells["step_down"].ravel() / 0.9e-6
    assert up.mean() == pytest.approx(1, abs=0.004)
    wanted = 0.2 if distribution == "normal" else math.sqrt(math.expm1(0.04))
    assert up.std() == pytest.approx(wanted, rel=0.02)
    assert np.corrcoef(up, down)[0, 1] == pytest.approx(correlation, abs=0.02)


def test_range_spread_keeps_ends_in_order_and_above_zero() -> None:
    cells = Constant(g_min_spread=0.5, g_max_spread=0.5).draw((1000,), np.random.default_rng(0))
    assert (cells["g_min"] >= 0).all()
    assert (cells["g_max"] > cells["g_min"]).all()
    assert cells["g_min"].std() > 0


@pytest.mark.parametrize("where", ["random", "low", "high"])
def test_stuck_devices_never_move(where: str) -> None:
    """The number of 10,000 devices is binomial: four standard deviations are 1.2 %."""
    device = Constant(stuck=0.1, stuck_at=where)
    rng = np.random.default_rng(0)
    cells = device.draw((10_000,), rng)
    g = device.settled(np.full(10_000, 50e-6), cells)
    moved = device.pulse(NX, g, rng.choice([-1.0, 1.0], 10_000), cells)
    stuck = cells["free"] == 0
    assert np.array_equal(moved[stuck], g[stuck])
    assert (moved[~stuck] != g[~stuck]).all()
    assert stuck.mean() == pytest.approx(0.1, abs=0.012)
    ends = {"low": 0.0, "high": 100e-6}
    assert where == "random" or np.allclose(g[stuck], ends[where])
    assert where != "random" or g[stuck].std() > 20e-6


def test_levels_are_few_and_a_step_must_reach_the_next() -> None:
    device = SoftBounds(levels=11, step=30e-6)
    rng = np.random.default_rng(0)
    g = device.settled(rng.uniform(0, 100e-6, 500), device.nominal())
    for _ in range(20):
        g = device.pulse(NX, g, rng.choice([-1.0, 0.0, 1.0], 500), device.nominal())
        np.testing.assert_allclose(g / 10e-6, np.round(g / 10e-6), atol=1e-9)
    assert 5 < len(np.unique(g.round(9))) <= 11
    with pytest.raises(ArgumentError, match="reach the next of the levels"):
        SoftBounds(levels=11, step=4e-6)


def test_drift_and_retention() -> None:
    drifting = Constant(drift=0.05, drift_start=2.0)
    cells = {**drifting.nominal(), "drift": 0.05}
    g = np.array([40e-6])
    later = drifting.wait(NX, g, cells, seconds=98.0)
    np.testing.assert_allclose(later, g * 50**-0.05, rtol=1e-12)
    halves = drifting.wait(NX, drifting.wait(NX, g, cells, 8.0), cells, 90.0, since=10.0)
    np.testing.assert_allclose(halves, later, rtol=1e-12)
    leaking = Constant(retention=3.0, rest=0.5)
    expected = 50e-6 - 10e-6 * math.exp(-2)
    np.testing.assert_allclose(leaking.wait(NX, g, leaking.nominal(), 6.0), expected, rtol=1e-12)
    assert np.array_equal(Constant().wait(NX, g, Constant().nominal(), 1e9), g)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(range(len(MODELS) + len(PRESETS))))
def test_bounds_are_never_exceeded(seed: int, which: int) -> None:
    device, rng = every_device()[which], np.random.default_rng(seed)
    cells = device.draw((30,), rng)
    g = device.settled(rng.uniform(device.g_min, device.g_max, 30), cells)
    for _ in range(6):
        counts = rng.integers(-2, 3, 30).astype(float)
        g = device.pulses(NX, g, counts, cells, 3 * rng.standard_normal((2, 30)), limit=2)
        shown = device.seen(NX, g, rng.standard_normal(30), cells)
        for each in (g, shown):
            assert (each >= cells["g_min"]).all()
            assert (each <= cells["g_max"]).all()


@pytest.mark.parametrize("device", every_device(), ids=lambda device: type(device).__name__)
def test_no_pulse_changes_no_bit(device: Device) -> None:
    rng = np.random.default_rng(0)
    cells = device.draw((50,), rng)
    g = device.settled(rng.uniform(device.g_min, device.g_max, 50), cells)
    after = device.pulses(NX, g, np.zeros(50), cells, rng.standard_normal((2, 50)), limit=2)
    assert np.array_equal(after, g)
    assert device.energy(NX, g, np.zeros(50)).sum() == 0


# Symmetry point.


def test_symmetry_point_of_soft_bounds_is_its_closed_form() -> None:
    published = {"class": "SoftBoundsDevice", "dw_min": 0.02, "up_down": 0.1, "w_max": 1.25, "w_min": -0.75}
    device = from_aihwkit(published)
    up, down = 0.02, 0.02 * 0.9  # aihwkit's bias shortens the smaller step
    expected = (up - down) / (up / 1.25 + down / 0.75)  # b_min = -0.75
    found = -0.75 + 2.0 * device.symmetry_point() / device.range
    assert found == pytest.approx(expected, rel=1e-12)


def test_random_pulses_drift_to_the_symmetry_point() -> None:
    """2000 devices of step 0.02: spread about 0.1 of the range, four standard errors of the mean are 0.9 %."""
    device = SoftBounds(step=2e-6, asymmetry=0.3)
    rng, g = np.random.default_rng(0), np.full(2000, 5e-6)
    for _ in range(600):
        g = device.pulse(NX, g, rng.choice([-1.0, 1.0], 2000), device.nominal())
    assert g.mean() / device.symmetry_point() == pytest.approx(1, abs=0.015)
    assert device.symmetry_point() == pytest.approx(65e-6, rel=1e-9)


def test_symmetry_point_of_constant_steps_is_an_end_or_the_middle() -> None:
    found = [Constant(asymmetry=beta).symmetry_point() for beta in (-0.1, 0.0, 0.1)]
    np.testing.assert_allclose(found, [0.0, 50e-6, 100e-6], atol=1e-12)


# Description.


def test_printing_shows_what_differs_and_fields_carry_units() -> None:
    assert repr(SoftBounds()) == "SoftBounds()"
    assert repr(SoftBounds(stuck=0.1)) == "SoftBounds(stuck=0.1)"
    assert "1e-07 s" in SoftBounds().table()
    for device in every_device():
        assert repr(type(device)()) == f"{type(device).__name__}()"
        assert len(device.table().splitlines()) == len(fields(device))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"g_max": 0.0}, "g_max must be a finite number above 0"),
        ({"step": 1.0}, "at most 0.0001"),
        ({"stuck": 1.5}, "stuck must be"),
        ({"noise": "pink"}, "noise must be one of"),
        ({"levels": 1}, "at least 2 levels"),
    ],
)
def test_wrong_fields_are_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        Constant(**arguments)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_cite_their_paper_and_refuse_to_leave_their_range(name: str) -> None:
    preset = DEVICES[name]
    assert any(character.isdigit() for character in preset.source)
    device = preset()
    for change in ({"g_max": 2 * device.g_max}, {"step": device.step / 2}, {"set_voltage": 1.5}, {"pulse_width": 1e-6}):
        with pytest.raises(ArgumentError, match="holds for"):
            preset(**change)
    assert preset(cycle_noise=0.0).cycle_noise == 0


PUBLISHED = {
    "reram_es": {
        "class": "ExpStepDevice",
        "dw_min": 0.00135,
        "up_down": 0.259359,
        "w_max": 1.0,
        "w_min": -1.0,
        "a": -0.5,
        "b": -0.5,
        "gamma_up": 5.0,
        "gamma_down": 5.0,
        "A_up": -1.18445,
        "A_down": -0.081404,
        "dw_min_dtod": 0.2,
        "up_down_dtod": 0.05,
        "w_max_dtod": 0.3,
        "w_min_dtod": 0.3,
        "dw_min_std": 5.0,
        "write_noise_std": 75.0,
    },
    "reram_sb": {
        "class": "SoftBoundsDevice",
        "dw_min": 0.002,
        "w_max": 1.25,
        "w_min": -0.75,
        "mult_noise": False,
        "dw_min_dtod": 0.3,
        "up_down_dtod": 0.01,
        "w_max_dtod": 0.3 / 1.25,
        "w_min_dtod": 0.3 / 0.75,
        "dw_min_std": 3.75,
        "write_noise_std": 56,
    },
    "reram_hfo2": {
        "class": "SoftBoundsReferenceDevice",
        "dw_min": 0.4622,
        "w_max": 1.0,
        "w_min": -1.0,
        "dw_min_dtod_log_normal": True,
        "dw_min_dtod": 0.7125,
        "up_down_dtod": 0.01,
        "w_max_dtod": 0.4295,
        "w_min_dtod": 0.5990,
        "dw_min_std": 0.2174,
        "write_noise_std": 0.5841,
        "corrupt_devices_prob": 0.0977,
    },
    "capacitor": {
        "class": "LinearStepDevice",
        "dw_min": 0.005,
        "w_max": 1.0,
        "w_min": -1.0,
        "mult_noise": False,
        "gamma_up": 0.05,
        "gamma_down": 0.05,
        "dw_min_dtod": 0.1,
        "up_down_dtod": 0.06,
        "w_max_dtod": 0.07,
        "w_min_dtod": 0.07,
        "dw_min_std": 0.3,
    },
    "ecram": {
        "class": "LinearStepDevice",
        "dw_min": 0.002,
        "w_max": 1.1724,
        "w_min": -0.8276,
        "gamma_up": 0.1153,
        "gamma_down": 0.5085,
        "dw_min_dtod": 0.1,
        "up_down_dtod": 0.01,
        "w_max_dtod": 0.05,
        "w_min_dtod": 0.05,
        "dw_min_std": 0.3,
    },
    "pcm": {
        "class": "ExpStepDevice",
        "dw_min": 0.01,
        "w_max": 2.0,
        "w_min": 0.0,
        "a": -1.0,
        "b": 0.0,
        "gamma_up": 2.5,
        "gamma_down": 2.5,
        "A_up": -27.235,
        "A_down": -2.235,
        "dw_min_dtod": 0.2,
        "up_down_dtod": 0.05,
        "w_max_dtod": 0.1,
        "dw_min_std": 0.6,
    },
    "idealized": {
        "class": "ConstantStepDevice",
        "dw_min": 0.0002,
        "w_max": 1.0,
        "w_min": -1.0,
        "dw_min_dtod": 0.3,
        "dw_min_std": 0.3,
        "w_max_dtod": 0.3,
        "w_min_dtod": 0.3,
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_figures(name: str) -> None:
    preset, published = DEVICES[name](), from_aihwkit(PUBLISHED[name])
    for field in (each.name for each in fields(published)):
        if field in ("drift", "one_way", "pulse_energy", "rest"):
            continue  # not part of the fits
        ours, theirs = getattr(preset, field), getattr(published, field)
        assert ours == (theirs if isinstance(theirs, str) else pytest.approx(theirs, rel=1e-12, abs=1e-12)), field


def test_preset_module_holds_what_is_registered() -> None:
    assert {DEVICES[name].__name__ for name in PRESETS} == {
        name for name, value in vars(presets).items() if isinstance(value, type) and getattr(value, "source", "")
    }
