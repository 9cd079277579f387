"""Crossbars: encodings, counters and energy, disturb, converters, write-verify, refresh, and reports."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.devices import Constant, Crossbar, Linear, SoftBounds, presets
from neko_rules.devices.encoding import ENCODINGS, pulsed, split
from neko_rules.devices.quantization import quantized, straight_through
from neko_rules.errors import ArgumentError, IncompatibleError, NekoWarning

NX = get_backend("numpy")
RNG = np.random.default_rng(0)
WEIGHT = RNG.uniform(-0.9, 0.9, (6, 4))
IDEAL = Constant(step=0.5e-6)


def bar(encoding: str = "differential", **options: Any) -> Crossbar:
    return Crossbar(**{"device": IDEAL, "encoding": encoding, **options})


@pytest.mark.parametrize("encoding", ENCODINGS)
class TestEveryEncoding:
    def test_a_written_weight_is_read(self, encoding: str) -> None:
        crossbar = bar(encoding, w_max=2.0)
        state = crossbar.first({"w": WEIGHT, "b": np.zeros(4)})
        assert list(state["plus.conductance"]) == ["w"]
        np.testing.assert_allclose(crossbar.weights(NX, state)["w"], WEIGHT, rtol=1e-12)
        with pytest.warns(NekoWarning, match=r"within ±w_max \(received: 24 of 24 beyond it, up to 5 in w, whose"):
            beyond = crossbar.first({"w": 5 * np.sign(WEIGHT), "b": np.full(4, 9.0)})
        np.testing.assert_allclose(crossbar.weights(NX, beyond)["w"], 2 * np.sign(WEIGHT), rtol=1e-12)

    def test_a_pulse_moves_a_weight_by_its_step(self, encoding: str) -> None:
        crossbar = bar(encoding)
        state = crossbar.first({"w": WEIGHT})
        counts = np.sign(WEIGHT) * (np.abs(WEIGHT) > 0.3)
        after = crossbar.pulse(NX, state, {"w": counts})
        moved = crossbar.weights(NX, after)["w"] - crossbar.weights(NX, state)["w"]
        np.testing.assert_allclose(moved, crossbar.weight_step("w") * counts, atol=1e-12)
        assert crossbar.weight_step("w") == pytest.approx(0.005 if encoding == "one_sided" else 0.01)

    def test_counters_equal_the_devices_that_changed(self, encoding: str) -> None:
        crossbar = bar(encoding)
        state = crossbar.first({"w": WEIGHT})
        counts = {"w": np.random.default_rng(1).integers(-1, 2, WEIGHT.shape).astype(float)}
        after = crossbar.pulse(NX, state, counts)
        for side in ("plus", "minus"):
            g, later = (each[f"{side}.conductance"]["w"] for each in (state, after))
            assert np.array_equal(after[f"{side}.up"]["w"] > 0, later > g)
            assert np.array_equal(after[f"{side}.down"]["w"] > 0, later < g)
            energy = after[f"{side}.energy"]["w"]
            np.testing.assert_allclose(energy, np.where(later != g, g * 1.0**2 * 100e-9, 0.0), rtol=1e-12)
        report = crossbar.report(after)
        assert report.pulses == np.sum(counts["w"] != 0) * (2 if encoding == "differential" else 1)
        assert report.energy == pytest.approx(sum(after[f"{s}.energy"]["w"].sum() for s in ("plus", "minus")))

    @pytest.mark.parametrize("limit", [1, 3])
    def test_pulses_beyond_the_limit_are_neither_sent_nor_counted(self, encoding: str, limit: int) -> None:
        crossbar = bar(encoding)
        state = crossbar.first({"w": 0.5 * WEIGHT})
        counts = np.random.default_rng(1).integers(-6, 7, WEIGHT.shape).astype(float)
        cut = crossbar.pulse(NX, state, {"w": np.clip(counts, -limit, limit)}, limit=limit)
        found = crossbar.pulse(NX, state, {"w": counts}, limit=limit)
        assert all(np.array_equal(found[group]["w"], cut[group]["w"]) for group in cut)
        assert found["plus.up"]["w"].max() == limit
        report = crossbar.report(found)
        moved = np.abs(crossbar.weights(NX, found)["w"] - crossbar.weights(NX, state)["w"]).sum()
        sent = report.pulses / (2 if encoding == "differential" else 1)
        assert moved == pytest.approx(sent * crossbar.weight_step("w"))

    def test_no_pulse_changes_nothing_at_all(self, encoding: str) -> None:
        device = replace(SoftBounds(step=2e-6), cycle_noise=0.5, write_noise=0.1, step_spread=0.3, stuck=0.1)
        crossbar = bar(encoding, device=device, half_select=0.1)
        state = crossbar.first({"w": WEIGHT})
        drawn = crossbar.draw({"w": WEIGHT.shape}, step=0)
        after = crossbar.pulse(NX, state, {"w": np.zeros(WEIGHT.shape)}, drawn)
        assert all(np.array_equal(after[group]["w"], state[group]["w"]) for group in state)

    def test_same_on_every_backend(self, encoding: str, evaluate: Callable[..., Any]) -> None:
        device = replace(SoftBounds(step=2e-6), cycle_noise=0.5, write_noise=0.1, read_noise=0.02, stuck=0.1)
        crossbar = bar(encoding, device=device, half_select=0.1, budget=5, refresh_at=0.5)
        state = crossbar.first({"w": WEIGHT})
        assert all(np.array_equal(state[g]["w"], crossbar.first({"w": WEIGHT})[g]["w"]) for g in state)
        counts = np.random.default_rng(1).integers(-2, 3, WEIGHT.shape).astype(float)
        drawn = crossbar.draw({"w": WEIGHT.shape}, 3, limit=5, verified=True)

        def run(nx: Any, state: Any, counts: Any, drawn: Any) -> Any:
            after = crossbar.pulse(
                nx, state, {"w": counts}, {k: v[:2] if ".pulse" in k else v for k, v in drawn.items()}, 2
            )
            after, _ = crossbar.write_verify(nx, after, {"w": 0.3 * counts}, drawn)
            if encoding == "one_sided":
                after = crossbar.refresh(nx, after, drawn)
            return crossbar.weights(nx, after, drawn)["w"], after

        expected, end = run(NX, state, counts, drawn)
        found, found_end = evaluate(run, state, counts, drawn)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        for group, values in end.items():
            np.testing.assert_allclose(found_end[group]["w"], values["w"], rtol=1e-12, err_msg=group)
        assert np.abs(expected - WEIGHT).max() > 0.01


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_neither_pulses_nor_time_move_a_stuck_device(encoding: str) -> None:
    device = Constant(step=2e-6, write_noise=0.1, stuck=0.4, drift=0.1, retention=50.0)
    crossbar = bar(encoding, device=device, half_select=0.1, budget=4)
    state = crossbar.first({"w": WEIGHT})
    drawn = crossbar.draw({"w": WEIGHT.shape}, step=0, limit=4, verified=True)
    pulsed_on = crossbar.pulse(NX, state, {"w": np.ones(WEIGHT.shape)}, drawn)
    written, _ = crossbar.write_verify(NX, pulsed_on, {"w": -WEIGHT}, drawn)
    later = crossbar.wait(NX, written, seconds=100.0)
    stuck = {side: state[f"{side}.free"]["w"] == 0 for side in ("plus", "minus")}
    for side in pulsed(encoding):
        assert 0 < stuck[side].sum() < stuck[side].size
        before, after = (each[f"{side}.offset"]["w"] for each in (state, written))
        assert np.array_equal(after[stuck[side]], before[stuck[side]])
        assert (after != before)[~stuck[side]].any()
    for side in ("plus", "minus"):
        before, after = (each[f"{side}.conductance"]["w"] for each in (state, later))
        assert np.array_equal(after[stuck[side]], before[stuck[side]])
        assert (after != before)[~stuck[side] & (before > 0)].all()


def test_half_select_moves_the_rest_of_row_and_column() -> None:
    crossbar = bar("one_fixed", half_select=0.1)
    state = crossbar.first({"w": np.zeros((3, 4))})
    counts = np.zeros((3, 4))
    counts[1, 2] = 1
    after = crossbar.weights(NX, crossbar.pulse(NX, state, {"w": counts}))["w"]
    step = crossbar.weight_step("w")
    expected = np.zeros((3, 4))
    expected[1, :] = expected[:, 2] = 0.1 * step
    expected[1, 2] = step
    np.testing.assert_allclose(after, expected, atol=1e-12)


def test_converters_round_and_cut() -> None:
    crossbar = Crossbar(dac_bits=4, dac_bound=1.0, adc_bits=6, adc_bound=3.1)
    x, w = np.random.default_rng(0).normal(size=(50, 6)), WEIGHT
    held = np.clip(np.round(np.clip(x, -1, 1) * 7), -7, 7) / 7
    expected = np.clip(np.round(np.clip(held @ w, -3.1, 3.1) / 0.1), -31, 31) * 0.1
    np.testing.assert_allclose(crossbar.multiply(NX, x, w), expected, atol=1e-12)
    assert np.array_equal(Crossbar().multiply(NX, x, w), x @ w)
    fine = Crossbar(dac_bits=16, dac_bound=5.0, adc_bits=16, adc_bound=20.0).multiply(NX, x, w)
    assert 0 < np.abs(fine - x @ w).max() < 2e-3


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_quantised_values_are_few_and_near(bits: int, evaluate: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 500)
    rounded = evaluate(lambda nx, a: quantized(nx, a, bits, 1.0), x)
    assert len(np.unique(rounded)) <= 2**bits - 1
    assert np.abs(rounded - x).max() <= 0.5 / (2 ** (bits - 1) - 1) + 1e-12
    assert np.abs(rounded - x).max() > 0.2 / (2 ** (bits - 1) - 1)


def test_straight_through_has_the_derivative_of_its_argument(autodiff_backend: str) -> None:
    nx = get_backend(autodiff_backend)

    def loss(p: Any) -> Any:
        return nx.sum(straight_through(nx, p["x"], quantized(nx, p["x"], 3, 1.0)) ** 2)

    x = np.array([0.2, -0.5, 0.9])
    value, gradient = nx.value_and_grad(loss)({"x": nx.asarray(x)})
    rounded = quantized(NX, x, 3, 1.0)
    np.testing.assert_allclose(nx.to_numpy(gradient["x"]), 2 * rounded, rtol=1e-6)
    assert float(nx.to_numpy(value)) == pytest.approx(float(np.sum(rounded**2)), rel=1e-6)


# Write-verify and refresh.


def test_write_verify_reaches_its_tolerance_and_counts() -> None:
    device = replace(SoftBounds(step=3e-6), cycle_noise=0.3, step_spread=0.3)
    crossbar = Crossbar(device, tolerance=0.02, budget=200)
    state = crossbar.first({"w": WEIGHT})
    written = crossbar.weights(NX, state)["w"]
    assert np.abs(written - WEIGHT).max() <= 2 * 0.02 * 1.0
    report = crossbar.report(state)
    assert 0 < report.pulses <= 200 * report.devices
    few = replace(crossbar, budget=3)
    assert np.abs(few.weights(NX, few.first({"w": WEIGHT}))["w"] - WEIGHT).max() > 0.3
    assert few.report(few.first({"w": WEIGHT})).arrays[0].busiest <= 3
    with pytest.raises(ArgumentError, match="needs a budget"):
        Crossbar().write_verify(NX, state, {"w": WEIGHT})


@pytest.mark.parametrize("noise", ["write_noise", "read_noise"])
def test_write_verify_reports_what_it_reads_at_the_end(noise: str) -> None:
    device = replace(Constant(step=3e-6), **{noise: 0.03})
    crossbar = Crossbar(device, tolerance=0.02, budget=40)
    state = crossbar.first({"w": np.zeros(WEIGHT.shape)})
    drawn = crossbar.draw({"w": WEIGHT.shape}, 7, limit=40, verified=True)
    after, reached = crossbar.write_verify(NX, state, {"w": WEIGHT}, drawn)
    truly, shown = np.ones(WEIGHT.shape, bool), np.ones(WEIGHT.shape, bool)
    for side, target in (("plus", 0.5 + WEIGHT / 2), ("minus", 0.5 - WEIGHT / 2)):
        g = after[f"{side}.conductance"]["w"] / device.range
        last = after[f"{side}.offset"]["w"] if noise == "write_noise" else drawn[f"{side}.look/w"][-1]
        seen = np.clip(g + 0.03 * last, 0, 1) if noise == "write_noise" else g + 0.03 * last
        truly &= np.abs(g - target) <= 0.02
        shown &= np.abs(seen - target) <= 0.02
    assert np.array_equal(reached["w"], shown.astype(float))
    assert (truly != shown).any()
    if noise == "write_noise":
        found = crossbar.weights(NX, after)["w"]
        assert np.abs(found - WEIGHT)[shown].max() <= 2 * 0.02 + 1e-12


@pytest.mark.parametrize("levels", [0, 11])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_write_verify_stops_at_the_nearest_conductance_that_coarse_steps_reach(encoding: str, levels: int) -> None:
    """From 0 in steps of a tenth of the range, which is more than twice the tolerance."""
    crossbar = bar(encoding, device=Constant(step=10e-6, levels=levels), tolerance=0.01, budget=50)
    state = crossbar.first({"w": np.zeros(WEIGHT.shape)})
    after, reached = crossbar.write_verify(NX, state, {"w": WEIGHT})
    within = np.ones(WEIGHT.shape, bool)
    for side in pulsed(encoding):
        wanted = split(encoding, crossbar.memristor, WEIGHT, 1.0)[side]
        steps = np.rint((wanted - state[f"{side}.conductance"]["w"]) / 10e-6)
        np.testing.assert_allclose(
            after[f"{side}.conductance"]["w"], state[f"{side}.conductance"]["w"] + 10e-6 * steps, atol=1e-18
        )
        pulses = after[f"{side}.up"]["w"] - after[f"{side}.down"]["w"]
        assert np.array_equal(pulses, steps)
        assert np.array_equal(after[f"{side}.up"]["w"] + after[f"{side}.down"]["w"], np.abs(steps))
        within &= np.abs(after[f"{side}.conductance"]["w"] - wanted) <= 1e-6
    assert np.array_equal(reached["w"], within)
    assert 0 < within.sum() < within.size


def test_write_verify_goes_back_and_forth_where_the_noise_of_pulses_helps() -> None:
    found = {}
    for noise in (0.0, 0.3):
        crossbar = bar("one_fixed", device=Constant(step=10e-6, cycle_noise=noise), tolerance=0.01, budget=50)
        state = crossbar.first({"w": np.zeros((20, 20))})
        wanted = np.random.default_rng(1).uniform(-0.8, 0.8, (20, 20))
        drawn = crossbar.draw({"w": (20, 20)}, 2, limit=50, verified=True)
        found[noise] = float(crossbar.write_verify(NX, state, {"w": wanted}, drawn)[1]["w"].mean())
    assert found[0.0] < 0.3
    assert found[0.3] > 0.98


def test_write_verify_sends_no_pulse_to_a_device_at_the_end_of_its_own_range() -> None:
    crossbar = bar("one_fixed", device=replace(IDEAL, g_max_spread=0.2), budget=300)
    state = crossbar.first({"w": np.zeros((8, 8))})
    after, reached = crossbar.write_verify(NX, state, {"w": np.ones((8, 8))})
    ends = state["plus.g_max"]["w"]
    short = ends < 99e-6
    assert np.array_equal(reached["w"] == 0, short)
    assert np.array_equal(after["plus.conductance"]["w"][short], ends[short])
    np.testing.assert_allclose(after["plus.up"]["w"][short], np.ceil((ends[short] - 50e-6) / 0.5e-6 - 1e-9))


def test_write_verify_draws_an_offset_at_every_pulse_and_leaves_other_draws_alone() -> None:
    crossbar = bar(device=replace(IDEAL, write_noise=0.2, read_noise=0.1, cycle_noise=0.5), tolerance=0.2, budget=1)
    state = crossbar.first({"w": np.zeros(WEIGHT.shape)})
    drawn = crossbar.draw({"w": WEIGHT.shape}, 7, verified=True)
    after, _ = crossbar.write_verify(NX, state, {"w": WEIGHT}, drawn)
    for side in ("plus", "minus"):
        pulses = (after[f"{side}.{way}"]["w"] - state[f"{side}.{way}"]["w"] for way in ("up", "down"))
        written = sum(pulses) > 0
        assert 0 < written.sum() < written.size
        expected = np.where(written, drawn[f"{side}.rewrite/w"][0], state[f"{side}.offset"]["w"])
        assert np.array_equal(after[f"{side}.offset"]["w"], expected)
    for name, value in crossbar.draw({"w": WEIGHT.shape}, 7).items():
        assert np.array_equal(value, drawn[name])
    for device in (replace(IDEAL, write_noise=0.2), replace(IDEAL, read_noise=0.1)):
        with pytest.raises(ArgumentError, match="verified=True"):
            replace(crossbar, device=device).write_verify(NX, state, {"w": WEIGHT}, {})


def test_write_verify_disturbs_the_rest_of_row_and_column() -> None:
    crossbar = bar("one_fixed", half_select=0.1, budget=1, tolerance=0.001)
    state = bar("one_fixed").first({"w": np.zeros((3, 4))})
    wanted = np.zeros((3, 4))
    wanted[1, 2] = 0.5
    written, _ = crossbar.write_verify(NX, state, {"w": wanted})
    pulsed_once = crossbar.pulse(NX, state, {"w": np.sign(wanted)})
    for group, values in pulsed_once.items():
        assert np.array_equal(written[group]["w"], values["w"]), group
    assert (written["plus.conductance"]["w"] != state["plus.conductance"]["w"]).sum() == 6


def test_refresh_draws_new_offsets_of_the_devices_that_it_resets() -> None:
    crossbar = bar("one_sided", device=replace(IDEAL, write_noise=0.01), budget=200, refresh_at=0.5)
    state = crossbar.first({"w": np.array([[0.9, 0.1]])})
    drawn = crossbar.draw({"w": (1, 2)}, 3, limit=200, verified=True)
    after = crossbar.refresh(NX, state, drawn)
    for side in ("plus", "minus"):
        changed = after[f"{side}.offset"]["w"] != state[f"{side}.offset"]["w"]
        assert changed.tolist() == [[True, False]]
    np.testing.assert_allclose(crossbar.weights(NX, after)["w"], crossbar.weights(NX, state)["w"], atol=0.021)


def test_refresh_gives_no_pulse_to_pairs_that_are_not_full_and_disturbs_them() -> None:
    """A full pair beside three that stand where write-verify would not leave them."""
    kept = bar("one_sided", budget=200, refresh_at=0.9)
    state = kept.first({"w": np.array([[0.95, 0.0], [0.0, 0.0]])})
    for side in ("plus", "minus"):
        g = state[f"{side}.conductance"]["w"].copy()
        g[[0, 1, 1], [1, 0, 1]] = 40e-6
        state[f"{side}.conductance"]["w"] = g
    disturbing = replace(kept, half_select=0.01)
    for crossbar, moved in ((kept, [[0, 0], [0, 0]]), (disturbing, [[0, 1], [1, 0]])):
        after = crossbar.refresh(NX, state)
        for side in ("plus", "minus"):
            before, later = (each[f"{side}.conductance"]["w"] for each in (state, after))
            pulses = after[f"{side}.up"]["w"] + after[f"{side}.down"]["w"]
            pulses = pulses - state[f"{side}.up"]["w"] - state[f"{side}.down"]["w"]
            assert np.array_equal(pulses > 0, [[True, False], [False, False]])
            others = [[0, 1], [1, 1]] & (later != before)
            assert np.array_equal(others, moved)


def test_refresh_keeps_the_weight_and_frees_the_pair() -> None:
    crossbar = bar("one_sided", budget=250, tolerance=0.005, refresh_at=0.9)
    state = crossbar.first({"w": np.zeros((2, 2))})
    raised = np.array([[185.0, 100.0], [0.0, 0.0]])
    lowered = np.array([[150.0, 90.0], [0.0, 0.0]])
    for counts in (raised, -lowered):
        state = crossbar.pulse(NX, state, {"w": counts}, limit=200)
    before = crossbar.weights(NX, state)["w"]
    after = crossbar.refresh(NX, state)
    np.testing.assert_allclose(crossbar.weights(NX, after)["w"], before, atol=0.011)
    assert after["plus.conductance"]["w"][0, 0] < 30e-6 < state["plus.conductance"]["w"][0, 0]
    for group in state:  # nothing but the full pair was touched
        assert np.array_equal(after[group]["w"][1], state[group]["w"][1])
        assert after[group]["w"][0, 1] == state[group]["w"][0, 1]
    assert after["minus.down"]["w"][0, 0] == 1
    assert after["minus.energy"]["w"][0, 0] > state["minus.energy"]["w"][0, 0]
    with pytest.raises(ArgumentError, match="only one-sided"):
        Crossbar().refresh(NX, state)


def test_waiting_drifts_weights_towards_zero() -> None:
    crossbar = Crossbar(presets.PCM(), encoding="one_sided")
    state = crossbar.first({"w": WEIGHT})
    before = crossbar.weights(NX, state)["w"]
    after = crossbar.weights(NX, crossbar.wait(NX, state, seconds=99.0))["w"]
    assert np.abs(after).sum() == pytest.approx(np.abs(before).sum() * 100**-0.05, rel=1e-6)


# Reading, reporting, refusing.


def test_read_noise_is_drawn_per_read_and_per_step() -> None:
    crossbar = bar(device=replace(IDEAL, read_noise=0.05))
    state = crossbar.first({"w": WEIGHT})
    reads = [crossbar.weights(NX, state, crossbar.draw({"w": WEIGHT.shape}, step))["w"] for step in (0, 1, 1)]
    assert np.array_equal(reads[1], reads[2])
    assert np.abs(reads[0] - reads[1]).min() > 0
    np.testing.assert_allclose(crossbar.weights(NX, state)["w"], WEIGHT, rtol=1e-12)


def test_report_names_what_training_cost() -> None:
    crossbar = bar(device=replace(IDEAL, stuck=0.25, endurance=1000.0))
    state = crossbar.first({"w": WEIGHT})
    for _ in range(10):
        state = crossbar.pulse(NX, state, {"w": np.ones(WEIGHT.shape)})
    report = crossbar.report(state)
    assert (report.up, report.down, report.devices) == (240, 240, 48)
    assert report.endurance_used == pytest.approx(0.01)
    stuck = sum(int((state[f"{side}.free"]["w"] == 0).sum()) for side in ("plus", "minus"))
    assert report.stuck == stuck > 0
    assert "480" not in str(report)
    assert all(word in str(report) for word in ("240", "energy", "stuck", "1 % of the endurance"))
    assert "endurance not known" in str(bar().report(bar().first({"w": WEIGHT})))
    assert "busiest device: 0 % of the endurance" in str(crossbar.report(crossbar.first({"w": WEIGHT})))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"encoding": "thermometer"}, "encoding must be one of"),
        ({"w_max": -1.0}, "w_max must be"),
        ({"adc_bits": 1}, "adc_bits is 0"),
        ({"adc_bits": 1100}, "adc_bits must be .* at most 32"),
        ({"dac_bits": 33}, "dac_bits must be .* at most 32"),
        ({"device": "sand"}, "unknown device"),
        ({"parameters": "biases"}, "parameters must be one of"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        Crossbar(**options)


def test_names_are_checked_against_the_model() -> None:
    with pytest.raises(ArgumentError, match=r"unknown parameter .* did you mean 'hidden\.weight'"):
        Crossbar(parameters=["hiden.weight"]).first({"hidden.weight": WEIGHT})
    with pytest.raises(ArgumentError, match="no parameter would live"):
        Crossbar().first({"bias": np.zeros(3)})
    with pytest.raises(ArgumentError, match="needs every parameter"):
        Crossbar(w_max={"a": 1.0}).first({"a": WEIGHT, "b": WEIGHT})
    assert list(Crossbar(parameters="all").first({"a": np.zeros(3)})["plus.up"]) == ["a"]


@pytest.mark.parametrize("budget", [0, 30])
def test_weights_beyond_w_max_are_told_of_when_they_are_written(budget: int) -> None:
    crossbar = bar(budget=budget, w_max={"a": 1.0, "b": 3.0})
    weights = {"a": np.array([[0.5, -1.5], [1.2, 1.0]]), "b": np.array([[3.3, 0.0]])}
    said = r"received: 3 of 6 beyond it, up to 1\.5 in a, whose w_max is 1\); they are written as ±w_max; give"
    with pytest.warns(NekoWarning, match=said) as told:
        state = crossbar.first(weights)
    assert told[0].filename == __file__
    with pytest.warns(NekoWarning, match=r"received: 1 of 2 beyond it, up to 4 in b, whose w_max is 3\)"):
        crossbar.rewritten(state, {"b": np.array([[1.0, -4.0]])}, 0)
    if budget:
        with pytest.warns(NekoWarning, match=r"received: 1 of 2 beyond it, up to 4 in b, whose w_max is 3\)") as told:
            crossbar.write_verify(NX, state, {"b": np.array([[1.0, -4.0]])})
        assert [each.filename for each in told] == [__file__]
    # What was read at the end of the range, in single precision, is no larger weight.
    crossbar.first({"a": np.full((2, 2), np.float32(1.0) * np.float32(1 + 2e-7)), "b": np.zeros((1, 2))})


def test_write_verify_tells_of_weights_beyond_w_max(backend: str, evaluate: Callable[..., Any]) -> None:
    crossbar, nx = bar(budget=3), get_backend(backend)
    state, wanted = crossbar.first({"w": WEIGHT}), np.full(WEIGHT.shape, 5.0)
    held = {group: {"w": nx.asarray(values["w"], "float32")} for group, values in state.items()}
    large = {"w": nx.asarray(wanted, "float32")}
    with pytest.warns(NekoWarning, match=r"received: 24 of 24 beyond it, up to 5 in w, whose w_max is 1\)"):
        crossbar.write_verify(nx, held, large)
    one = np.zeros(WEIGHT.shape)
    one[0, 0] = 1.0
    with pytest.warns(NekoWarning, match=r"received: 1 of 24 beyond it"):  # the others get no pulse
        crossbar.write_verify(nx, held, large, only={"w": nx.asarray(one, "float32")})
    # Compiled, where weights have no numbers to be looked at, it does the same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NekoWarning)
        expected, _ = crossbar.write_verify(NX, state, {"w": wanted})
        found = evaluate(lambda nx, *given: crossbar.write_verify(nx, *given)[0], state, {"w": wanted})
    np.testing.assert_allclose(found["plus.conductance"]["w"], expected["plus.conductance"]["w"], rtol=1e-12)


def test_write_verify_is_mapped_over_weights_in_torch() -> None:
    torch = pytest.importorskip("torch")
    crossbar, nx = bar(budget=3), get_backend("torch")
    state = {g: {"w": nx.asarray(each["w"])} for g, each in crossbar.first({"w": WEIGHT}).items()}
    targets = nx.asarray(np.stack([0.9 * WEIGHT, -WEIGHT]))

    def written(target: Any) -> Any:
        return crossbar.write_verify(nx, state, {"w": target})[0]["plus.conductance"]["w"]

    together = torch.func.vmap(written)(targets)
    assert all(torch.equal(one, written(target)) for one, target in zip(together, targets, strict=True))


def test_a_name_that_is_not_on_a_crossbar_is_told_of_the_nearest() -> None:
    crossbar = bar(budget=3)
    state = crossbar.first({"hidden.weight": WEIGHT, "hidden.bias": np.zeros(4)})
    wrong = {"hiden.weight": WEIGHT}
    for call in (
        lambda: crossbar.pulse(NX, state, wrong),
        lambda: crossbar.write_verify(NX, state, wrong),
        lambda: crossbar.rewritten(state, wrong, 1),
        lambda: crossbar.write_verify(NX, state, {"hidden.weight": WEIGHT}, only=wrong),
        lambda: replace(crossbar, w_max=dict.fromkeys(wrong, 1.0)).weight_step("hidden.weight"),
    ):
        with pytest.raises(ArgumentError, match=r"did you mean 'hid"):
            call()
    with pytest.raises(ArgumentError, match=r"live on it \(received: hidden\.bias\); did you mean 'hidden\.weight'"):
        crossbar.pulse(NX, state, {"hidden.bias": np.ones(4)})


def test_one_way_devices_need_one_sided_pairs() -> None:
    with pytest.raises(IncompatibleError, match="one_sided"):
        Crossbar(presets.PCM())
    assert Crossbar(presets.PCM(), encoding="one_sided").scale("w") == 1.0


def test_bounds_hold_under_many_pulses() -> None:
    for encoding in ENCODINGS:
        crossbar = Crossbar(Linear(step=20e-6, cycle_noise=1.0, g_max_spread=0.1), encoding=encoding, half_select=0.05)
        state, rng = crossbar.first({"w": WEIGHT}), np.random.default_rng(0)
        for step in range(30):
            counts = rng.integers(-1, 2, WEIGHT.shape).astype(float)
            state = crossbar.pulse(NX, state, {"w": counts}, crossbar.draw({"w": WEIGHT.shape}, step))
        for side in pulsed(encoding):
            g = state[f"{side}.conductance"]["w"]
            assert (g >= 0).all()
            assert (g <= state[f"{side}.g_max"]["w"]).all()


def test_printing_shows_what_differs() -> None:
    assert repr(Crossbar()) == "Crossbar(SoftBounds())"
    assert repr(Crossbar("constant", half_select=0.1)) == "Crossbar(Constant(), half_select=0.1)"
