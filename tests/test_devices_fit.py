"""Fitting a device to a measured pulse curve: parameters found, errors that mean something, files and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neko_rules.devices import (
    Constant,
    Device,
    Exponential,
    Linear,
    Power,
    SoftBounds,
    Tabulated,
    curve_of,
    fit,
    presets,
    read_curve,
)
from neko_rules.errors import ArgumentError, DataError

DIRECTIONS = [1] * 60 + [-1] * 60
TRUE: list[Device] = [
    Constant(step=1.2e-6, asymmetry=0.1),
    Linear(step=2e-6, gamma_up=0.4, gamma_down=0.2),
    SoftBounds(step=4e-6, asymmetry=-0.2),
    Power(step=5e-6, gamma_up=1.5, gamma_down=1.2),
    Exponential(step=3e-6, a_up=0.2, k_up=1.2, a_down=0.1, k_down=1.0),
]


@pytest.mark.parametrize("device", TRUE, ids=lambda device: type(device).__name__)
def test_the_curve_of_a_noise_free_device_is_found(device: Device) -> None:
    curve = device.curve(DIRECTIONS, start=10e-6)
    found = fit(curve, type(device))
    assert found.determination > 1 - 1e-4
    assert np.abs(found.residuals).max() < 2e-2 * np.ptp(curve)
    assert set(found.uncertainty) >= {"step", "asymmetry"}


SATURATED = [
    Constant(step=4e-6),
    Linear(step=6e-6, gamma_up=0.4, gamma_down=0.2),
    Exponential(step=3e-6, a_up=-1.0, k_up=-5.0, a_down=-1.0, k_down=-3.0),
]


@pytest.mark.parametrize("device", SATURATED, ids=lambda device: type(device).__name__)
def test_a_curve_that_rests_at_its_ends_most_of_the_time_is_found(device: Device) -> None:
    """Its bounds are hard ones, and what they cut off is no noise of a device that has none."""
    curve = device.curve(DIRECTIONS)
    assert np.sum(np.diff(curve) == 0) > 60
    found = fit(curve_of(curve, DIRECTIONS), type(device))
    assert np.abs(found.residuals).max() < 1e-4 * np.ptp(curve)
    for name in found.uncertainty:
        assert getattr(found.device, name) == pytest.approx(getattr(device, name), rel=1e-3, abs=1e-6), name
    assert found.device.cycle_noise < 1e-6


def test_both_kinds_of_exponential_steps_are_found_in_each_direction() -> None:
    device = Exponential(step=1e-6, a_up=-1.0, k_up=-5.0, a_down=0.2, k_down=1.5)
    directions = [1] * 40 + [-1] * 30
    found = fit(curve_of(device.curve(directions), directions), Exponential)
    # Its range is that of the curve, of which shapes are functions: the curve itself is what has to be found.
    assert np.abs(found.residuals).max() < 1e-6 * np.ptp(found.curve.conductances)
    assert found.device.a_up < 0 > found.device.k_up  # type: ignore[attr-defined]
    assert found.device.a_down > 0 < found.device.k_down  # type: ignore[attr-defined]
    assert fit(found.curve, Exponential, k_up=-5.0).device.k_up == -5.0  # type: ignore[attr-defined]


def test_soft_bounds_are_found_with_an_uncertainty_that_covers_the_truth() -> None:
    """Of 20 curves with read noise, the true step lies within two standard errors of at least 14 (fails 1 in 300)."""
    device = SoftBounds(g_min=10e-6, step=5e-6, asymmetry=0.1)
    clean = device.curve(DIRECTIONS)
    hits = []
    for seed in range(20):
        noisy = clean + 0.5e-6 * np.random.default_rng(seed).standard_normal(len(clean))
        found = fit(curve_of(noisy, DIRECTIONS), SoftBounds)
        error = found.uncertainty["step"]
        assert 0 < error < 1e-6
        hits.append(abs(found.device.step - device.step) < 2 * error)
    assert sum(hits) >= 14


@pytest.mark.parametrize("device", [Constant(g_min=10e-6, asymmetry=0.1), SoftBounds(g_min=10e-6, step=5e-6)])
def test_estimates_spread_by_their_standard_error(device: Device) -> None:
    """The deviation of 60 normal numbers has a standard error of 9.2 %: four of them, 37 %, fail 1 in 16,000."""
    clean = device.curve(DIRECTIONS, start=12e-6)
    found = []
    for seed in range(60):
        noisy = clean + 0.5e-6 * np.random.default_rng(seed).standard_normal(len(clean))
        found.append(fit(curve_of(noisy, DIRECTIONS), type(device)))
    for name in ("step", "asymmetry"):
        spread = np.std([getattr(each.device, name) for each in found], ddof=1)
        error = np.sqrt(np.mean([each.uncertainty[name] ** 2 for each in found]))
        assert spread == pytest.approx(error, rel=0.37), name


def test_what_was_fixed_has_no_uncertainty_and_lends_the_rest_none() -> None:
    curve = SoftBounds(g_min=10e-6, step=5e-6, asymmetry=0.1).curve(DIRECTIONS)
    noisy = curve_of(curve + 0.2e-6 * np.random.default_rng(0).standard_normal(len(curve)), DIRECTIONS)
    free = fit(noisy, SoftBounds).uncertainty
    assert set(free) == {"step", "asymmetry", "g_min", "g_max"}
    for name in free:
        held = fit(noisy, SoftBounds, **{name: getattr(SoftBounds(g_min=10e-6, step=5e-6, asymmetry=0.1), name)})
        assert set(held.uncertainty) == set(free) - {name}
        assert all(0 < error < 1.5 * free[other] for other, error in held.uncertainty.items())
    shape = fit(Linear(step=2e-6).curve(DIRECTIONS), Linear, gamma_up=0.5).uncertainty
    assert "gamma_down" in shape
    assert "gamma_up" not in shape


def test_cycle_noise_is_found_from_the_scatter_of_the_steps() -> None:
    """120 steps: the standard error of a deviation is 6.5 %, four of them 26 %."""
    device = Constant(step=1e-6, cycle_noise=0.5)
    found = fit(curve_of(device.curve(DIRECTIONS, start=10e-6, seed=0), DIRECTIONS), Constant)
    assert found.device.cycle_noise == pytest.approx(0.5, rel=0.26)
    assert found.device.noise == "additive"


def test_a_table_follows_what_no_formula_does() -> None:
    device = Tabulated(step=8e-6, table_up=(1.0, 0.2, 1.0, 0.2, 1.0), table_down=(1.0, 0.5, 1.0, 0.5, 1.0))
    directions = [1] * 24 + [-1] * 24
    curve = curve_of(device.curve(directions), directions)
    assert fit(curve, "tabulated").determination > 0.998
    assert fit(curve, Constant).determination < 0.995


def test_file_picture_and_text(tmp_path: Path) -> None:
    curve = SoftBounds(step=4e-6).curve([1] * 40 + [-1] * 40)
    rows = ["direction,conductance", f",{float(curve[0])}"]
    rows += [f"{'up' if i < 40 else 'down'},{float(g)}" for i, g in enumerate(curve[1:])]
    path = tmp_path / "measured.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    found = fit(path, pulse_width=1e-6)
    assert found.device.pulse_width == 1e-6
    assert found.plot(tmp_path / "fit.png").stat().st_size > 10_000
    assert "±" in str(found)
    assert "step" in str(found)
    path.write_text("conductance\n" + "\n".join(map(str, curve.tolist())), encoding="utf-8")
    assert fit(path).device.step == pytest.approx(found.device.step, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("g\n1\n2\n", "column 'conductance'"),
        ("conductance\n1e-6\n2e-6\n", "at least four"),
        ("conductance\n1e-6\nx\n", "line 3"),
        ("conductance\n1e-6\n1e-6\n1e-6\n1e-6\n", "must vary"),
        ("conductance,direction\n1e-6,\n2e-6,up\n3e-6,sideways\n4e-6,up\n", "line 4 .* up or down"),
        ("conductance,direction,Direction\n1e-6,,\n2e-6,up,up\n", "one column 'direction'.* 2 of that name"),
        ("conductance, Conductance\n1e-6,1e-6\n", "one column 'conductance'.* 2 of that name"),
        ("conductance,pulse_direction\n1e-6,\n2e-6,up\n", "pulse_direction.*call it 'direction'"),
        ("", "no rows"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        fit(path)


@pytest.mark.parametrize("header", ["Conductance, Direction,note", " CONDUCTANCE ,direction ,Time (s)"])
def test_names_of_columns_may_be_padded_and_capital_and_others_beside_them(tmp_path: Path, header: str) -> None:
    conductances, directions = [1e-6, 3e-6, 2e-6, 4e-6, 3e-6], ["", "up", "down", "up", "down"]
    path = tmp_path / "curve.csv"
    rows = [f"{g}, {way},x" for g, way in zip(conductances, directions, strict=True)]
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    curve = read_curve(path)
    assert curve.conductances.tolist() == conductances
    assert curve.directions.tolist() == [1, -1, 1, -1]
    assert curve_of(conductances).directions.tolist() != [1, -1, 1, -1]


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_bytes("conductance,Größe\n1e-6,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"UTF-8 .*curve\.csv"):
        fit(path)


def test_presets_are_not_fitted_and_missing_files_named(tmp_path: Path) -> None:
    curve = SoftBounds(step=4e-6).curve(DIRECTIONS)
    with pytest.raises(ArgumentError, match="takes a model class"):
        fit(curve, presets.ReRamES)
    for wrong in (None, SoftBounds()):
        with pytest.raises(ArgumentError, match=r"takes a model class \(received: (None|SoftBounds\(\))\)"):
            fit(curve, wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ArgumentError, match=r"SoftBounds has no field 'pulse_widht' to set; did you mean 'pulse_width'"
    ):
        fit(curve, pulse_widht=1e-6)
    with pytest.raises(DataError, match="readable CSV"):
        fit(tmp_path / "nothing.csv")
    one_way = fit(replace(SoftBounds(), step=4e-6).curve([1] * 50))
    assert one_way.device.step == pytest.approx(4e-6, rel=0.05)
