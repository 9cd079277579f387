"""Exchange with aihwkit: its curves, fields and parameters there and back, and refusals of what has no counterpart."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import HIGH, LOW, MODELS

from neko_rules.devices import DEVICES, Constant, Device, SoftBounds, from_aihwkit, presets, to_aihwkit
from neko_rules.errors import ArgumentError

AIHWKIT = json.loads((Path(__file__).parent / "aihwkit_curves.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(AIHWKIT))
def test_same_curve_as_aihwkit(name: str) -> None:
    """Curves of aihwkit 1.1.0 (float32), 12 pulses up and 20 down from w = 0, noise and spread off."""
    parameters, curve = AIHWKIT[name]["parameters"], np.array(AIHWKIT[name]["curve"])
    device = from_aihwkit({"class": name, **parameters})
    low, span = parameters["w_min"], parameters["w_max"] - parameters["w_min"]
    start = device.g_min - low / span * device.range
    ours = low + span * (device.curve([1] * 12 + [-1] * 20, start) - device.g_min) / device.range
    np.testing.assert_allclose(ours, curve, atol=2e-6)
    assert np.ptp(curve) > 0.1


def test_aihwkit_itself_gives_these_curves() -> None:
    pytest.importorskip("aihwkit")
    import torch
    from aihwkit.simulator.configs import PulseType, SingleRPUConfig, devices
    from aihwkit.simulator.tiles import AnalogTile

    for name, case in AIHWKIT.items():
        config = SingleRPUConfig(device=getattr(devices, name)(**case["parameters"]))
        config.update.pulse_type = PulseType.DETERMINISTIC_IMPLICIT
        config.update.desired_bl, config.update.fixed_bl = 1, True
        config.update.update_bl_management = config.update.update_management = False
        tile = AnalogTile(1, 1, config, bias=False)
        tile.set_learning_rate(case["parameters"]["dw_min"])
        tile.set_weights(torch.zeros(1, 1))
        curve = [0.0]
        for direction in [-1.0] * 12 + [1.0] * 20:
            tile.update(torch.ones(1, 1), torch.full((1, 1), direction))
            curve.append(float(tile.get_weights()[0]))
        np.testing.assert_allclose(curve, case["curve"], atol=1e-7)


@pytest.mark.parametrize("name", list(MODELS))
def test_parameters_survive_the_way_to_aihwkit_and_back(name: str) -> None:
    device = replace(
        MODELS[name], step_spread=0.2, asymmetry_spread=0.05, g_max_spread=0.1, cycle_noise=0.4, stuck=0.05
    )
    if name == "exponential":
        device = replace(device, k_down=3.0)
    there = to_aihwkit(device, w_min=-0.6, w_max=1.0)
    back = from_aihwkit(there, g_min=LOW, g_max=HIGH)
    for field in (each.name for each in fields(device)):
        value = getattr(device, field)
        assert getattr(back, field) == (value if isinstance(value, (str, tuple)) else pytest.approx(value, rel=1e-9)), (
            field
        )
    with pytest.raises(ArgumentError, match="no read_noise"):
        to_aihwkit(replace(device, read_noise=0.1))
    with pytest.raises(ArgumentError, match="no counterpart"):
        from_aihwkit({"class": "JARTv1bDevice", "dw_min": 0.1})


OTHER: dict[str, Any] = {
    "step_distribution": "lognormal",
    "noise": "additive",
    "step_correlation": 0.3,
    "stuck_at": "low",
    "levels": 16,
    "one_way": True,
    "drift_start": 2.0,
    "retention": 10.0,
    "endurance": 1e6,
    "table_up": (1.0, 0.3),
    "table_down": (0.7, 0.2),
}
"""Values that no model of MODELS has, of the fields that are not simply a number from 0 to 1."""


def sent(device: Device) -> dict[str, Any] | str:
    """A device in aihwkit's parameters, or the refusal."""
    try:
        return to_aihwkit(device, w_min=-0.6, w_max=1.0)
    except ArgumentError as error:
        return str(error)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_field_survives_the_way_to_aihwkit_or_is_refused_by_name(name: str) -> None:
    every = {"step_spread": 0.2, "cycle_noise": 0.4, "stuck": 0.05, "drift": 0.1, "retention": 5.0}
    refused = set()
    for field in (each.name for each in fields(MODELS[name])):
        if field in ("g_min", "g_max", "step"):
            continue
        # With what lets it have an effect: noise needs an amplitude, and a rest something that decays.
        kept = {"rest": ("retention",), "drift_start": ("drift",)}.get(field, ("step_spread", "cycle_noise", "stuck"))
        device = replace(MODELS[name], **{each: every[each] for each in kept})
        if name == "exponential":
            device = replace(device, k_down=3.0)
        device = replace(device, **{field: OTHER.get(field, 0.21)})
        there = sent(device)
        if isinstance(there, str):
            # What lets them have an effect is refused before them.
            assert field in there or field in ("rest", "drift_start")
            refused.add(field)
            continue
        back = from_aihwkit(there, g_min=LOW, g_max=HIGH)
        value = getattr(device, field)
        exact = isinstance(value, (str, tuple))
        assert getattr(back, field) == (value if exact else pytest.approx(value, rel=1e-9)), field
    never = {"read_noise", "levels", "step_correlation", "stuck_at", "one_way", "retention", "rest", "endurance"}
    never |= {"drift", "drift_spread", "drift_start"}
    never |= {"set_voltage", "reset_voltage", "pulse_width", "pulse_energy"}
    if name not in ("linear", "soft_bounds"):
        never.add("noise")
    if name == "constant":
        never.add("write_noise")
    assert refused == never


def test_presets_go_to_aihwkit_and_back_or_are_refused() -> None:
    for name in ("reram_es", "reram_sb", "reram_hfo2", "capacitor", "idealized"):
        low, high = (-0.75, 1.25) if name == "reram_sb" else (-1.0, 1.0)
        preset = DEVICES[name]()
        back = from_aihwkit(to_aihwkit(preset, low, high))
        for field in (each.name for each in fields(preset)):
            if field != "rest":  # of what decays, which the capacitor does only when one says how fast
                ours = getattr(preset, field)
                theirs = getattr(back, field)
                assert theirs == (ours if isinstance(ours, str) else pytest.approx(ours, rel=1e-9, abs=1e-15)), field
    with pytest.raises(ArgumentError, match="no drift"):
        to_aihwkit(presets.PCM())
    with pytest.raises(ArgumentError, match=r"no pulse_energy.*set pulse_energy=0"):
        to_aihwkit(presets.EcRam())
    assert to_aihwkit(presets.EcRam(pulse_energy=0.0))["class"] == "LinearStepDevice"


SOFT = {"class": "SoftBoundsDevice", "dw_min": 0.02, "w_max": 1.0, "w_min": -1.0}
LINEAR = {**SOFT, "class": "LinearStepDevice", "gamma_up": 0.3, "gamma_down": 0.3}


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({**SOFT, "dw_mn": 0.02}, r"dw_mn.*did you mean 'dw_min'"),
        ({**SOFT, "reverse_up_down": False}, "reverse_up_down"),
        ({**SOFT, "reverse_up": True}, r"reverse_up .*set reverse_up=False"),
        ({**SOFT, "gamma_up": 0.3}, "gamma_up"),
        ({**LINEAR, "gamma_up_dtod": 0.05}, r"gamma_up_dtod .*set gamma_up_dtod=0"),
        ({**LINEAR, "gamma_up": -0.3}, "allow_increasing"),
        ({**SOFT, "lifetime": 100.0}, "lifetime"),
        ({**SOFT, "diffusion": 0.1}, "diffusion"),
        ({**SOFT, "drift": {"nu": 0.05}}, "drift"),
        ({**SOFT, "class": "SoftBoundsReferenceDevice", "subtract_symmetry_point": True}, "subtract_symmetry_point"),
        ({**SOFT, "class": "ExpStepDevice", "dw_min_std_slope": 0.1}, "dw_min_std_slope"),
        ({**SOFT, "class": "PowStepDevice", "pow_gamma_dtod": 0.1}, "pow_gamma_dtod"),
        ({**SOFT, "corrupt_devices_prob": 0.1, "corrupt_devices_range": 0.01}, "corrupt_devices_range"),
        ({**SOFT, "w_min": 0.0}, "w_min must be a finite number below 0"),
        ({**LINEAR, "w_max": 0.0}, "w_max must be a finite number above 0"),
        ({**SOFT, "class": "ConstantStepDevice", "w_min": 1.0, "w_max": -1.0}, "w_max must be .* above 1"),
        ({**SOFT, "class": "ConstantStepDevice", "write_noise_std": 0.1}, "write_noise_std"),
        ({**SOFT, "up_down": 2.0}, "up_down must be"),
        ({**SOFT, "dw_min": "0.02"}, "dw_min must be"),
    ],
)
def test_what_is_not_understood_of_aihwkit_is_refused(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        from_aihwkit(parameters)


def test_neutral_and_irrelevant_parameters_of_aihwkit_are_taken() -> None:
    neutral = {"reverse_up": False, "reverse_offset": 0.01, "lifetime": 0.0, "lifetime_dtod": 0.3, "drift": {"nu": 0.0}}
    said = {"construction_seed": 3, "reset_std": 0.01, "corrupt_devices_range": 0.01, "enforce_consistency": True}
    assert from_aihwkit({**SOFT, **neutral, **said}) == from_aihwkit(SOFT)
    wide = {"corrupt_devices_prob": 0.1, "corrupt_devices_range": 1000}
    assert from_aihwkit({**SOFT, **wide}).stuck == 0.1
    increasing = from_aihwkit({**LINEAR, "gamma_up": -0.3, "allow_increasing": True})
    assert to_aihwkit(increasing)["allow_increasing"] is True
    assert from_aihwkit(to_aihwkit(increasing)).gamma_up == pytest.approx(increasing.gamma_up, rel=1e-12)
    flat = from_aihwkit({**SOFT, "class": "PiecewiseStepDevice"})
    assert (flat.table_up, flat.table_down) == ((1.0, 1.0), (1.0, 1.0))


@pytest.mark.parametrize(("w_min", "w_max"), [(0.0, 1.0), (-1.0, 0.0), (1.0, -1.0), (-1.0, float("nan"))])
def test_wrong_bounds_of_weights_are_refused(w_min: float, w_max: float) -> None:
    with pytest.raises(ArgumentError, match="w_m"):
        to_aihwkit(SoftBounds(), w_min, w_max)
    with pytest.raises(ArgumentError, match="w_m"):
        to_aihwkit(Constant(g_min_spread=0.1, g_max_spread=0.1), w_min, w_max)
