"""Exchange with aihwkit: its device parameters, in weights, from and to ours, in siemens.

aihwkit (https://github.com/IBM/aihwkit) holds a device as a weight w between w_min and w_max whose step is given at
w = 0; here it is a conductance whose step is given at the end of the range where a pulse starts. With R = w_max - w_min
and u = (w - w_min)/R the two are the same device:

    LinearStep        1 - γ w/w_max = (1 - γ w_min/w_max) - γ (R/w_max) u            up; down mirrored
    SoftBounds        the same with γ = 1:  ΔG⁺ = dw (R/w_max),  ΔG⁻ = dw (R/|w_min|)
    ExpStep           A exp(±γ (2 a w/R + b))  becomes  A± exp(k± u) with k± = 2 a γ
    PowStep           ((w_max - w)/R)^γ = (1 - u)^γ
    PiecewiseStep     nodes from w_min to w_max, those for pulses down in reverse

Its up_down β makes steps up dw min(1, 1 + β) and steps down dw min(1, 1 - β), and pow_up_down the exponents likewise
(measured with version 1.1; its documentation has 1 ± β), so that our asymmetry is half as large for small β.

What differs: aihwkit scales some shapes by every device's own bounds, here a shape belongs to the fraction u of the
device's own range. Its log-normal steps have the median dw (so measured with version 1.1), here ΔG is the mean.

Nothing is dropped: a field or a parameter without a counterpart is refused unless it has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from neko_rules import arguments
from neko_rules.devices.device import Device
from neko_rules.devices.steps import Constant, Exponential, Linear, Power, SoftBounds, Tabulated
from neko_rules.errors import ArgumentError, nearest

G_MAX = 100e-6
"""Siemens that stand for w_max unless another scale is given."""


def from_aihwkit(parameters: Any, g_min: float = 0.0, g_max: float = G_MAX, **others: Any) -> Device:
    """A device from aihwkit's: one of its objects, or a mapping with its ``class`` name and parameters.

    Args:
        parameters: such as ``aihwkit.simulator.presets.ReRamSBPresetDevice()``, or
            ``{"class": "SoftBoundsDevice", "dw_min": 0.002, "w_max": 1.25, "w_min": -0.75}``; a parameter left out of
            a mapping is aihwkit's noise-free, spread-free one.
        g_min, g_max: the conductances that stand for w_min and w_max, in S.
        others: fields to set beside.

    Raises:
        ArgumentError: the class has no counterpart, a parameter is unknown or has none and is not at the value at which
            it does nothing, or the bounds are not in order.

    Example:
        >>> device = from_aihwkit({"class": "SoftBoundsDevice", "dw_min": 0.02, "w_max": 1.0, "w_min": -1.0})
        >>> type(device).__name__, round(1e6 * device.step, 6)
        ('SoftBounds', 2.0)
    """
    p = dict(parameters) if isinstance(parameters, Mapping) else _read(parameters)
    kind = str(p.pop("class", ""))
    name = next((known for known in _SHAPES if known in _lineage(parameters, kind)), None)
    if name is None:
        raise ArgumentError("this aihwkit device has no counterpart here", received=kind, works=nearest(kind, _SHAPES))
    p = {"w_max": 0.6, "w_min": -0.6, "dw_min": 0.001, "up_down": 0.0, **p}
    _check_parameters(name, p)
    span = p["w_max"] - p["w_min"]
    scale = (g_max - g_min) / span
    model, shape, factors = _SHAPES[name](p, span)
    step, beta = p["dw_min"] * scale, p["up_down"]
    lognormal = bool(p.get("dw_min_dtod_log_normal", False))
    mean = math.exp(p.get("dw_min_dtod", 0.0) ** 2 / 2) if lognormal else 1.0
    up, down = step * min(1, 1 + beta) * factors[0], step * min(1, 1 - beta) * factors[1]
    ours = {
        "step": (up + down) / 2 * mean,
        "asymmetry": (up - down) / (up + down),
        "step_spread": p.get("dw_min_dtod", 0.0),
        "asymmetry_spread": p.get("up_down_dtod", 0.0) / 2,
        "g_max_spread": p.get("w_max_dtod", 0.0) * abs(p["w_max"]) / span,
        "g_min_spread": p.get("w_min_dtod", 0.0) * abs(p["w_min"]) / span,
        "write_noise": p.get("write_noise_std", 0.0) * p["dw_min"] / span,
        "stuck": p.get("corrupt_devices_prob", 0.0),
        **_cycle_noise(name, p, step, (up + down) / 2 * mean),
        **shape,
    }
    if lognormal:
        ours["step_distribution"] = "lognormal"
    return model(g_min=g_min, g_max=g_max, **{**ours, **others})


def to_aihwkit(device: Device, w_min: float = -1.0, w_max: float = 1.0) -> dict[str, Any]:
    """aihwkit's class name and parameters for a device, with which its class of that name can be called.

    Args:
        device: a device.
        w_min, w_max: the weights that stand for G_min and G_max.

    Raises:
        ArgumentError: the device has a property that aihwkit's model lacks, or the bounds are not in order.

    Example:
        >>> to_aihwkit(SoftBounds(step=2e-6))["class"], to_aihwkit(SoftBounds(step=2e-6))["dw_min"]
        ('SoftBoundsDevice', 0.02)
    """
    kind, writer = next(((name, write) for model, name, write in _WRITERS if isinstance(device, model)), ("", None))
    if writer is None:
        raise ArgumentError("this device has no counterpart in aihwkit", received=type(device).__name__)
    _check_bounds(kind, w_min, w_max)
    _check_fields(kind, device)
    for name, spread, bound in (("w_min", device.g_min_spread, w_min), ("w_max", device.g_max_spread, w_max)):
        if spread and not bound:
            raise ArgumentError(f"an aihwkit bound has no spread at {name} = 0", received=f"a spread of {spread:g}")
    span = w_max - w_min
    scale = span / device.range
    shape, factors = writer(device, w_min, w_max)
    up = device.step * (1 + device.asymmetry) * scale / factors[0]
    down = device.step * (1 - device.asymmetry) * scale / factors[1]
    lognormal = device.step_distribution == "lognormal"
    step = max(up, down) * (math.exp(-(device.step_spread**2) / 2) if lognormal else 1.0)
    noise = device.cycle_noise * (device.step * scale / step if device.noise == "additive" else 1.0)
    common = {
        "dw_min": step,
        "up_down": _bias(up, down),
        "w_min": w_min,
        "w_max": w_max,
        "dw_min_dtod": device.step_spread,
        "dw_min_dtod_log_normal": lognormal,
        "up_down_dtod": 2 * device.asymmetry_spread,
        "w_max_dtod": device.g_max_spread * span / abs(w_max) if w_max else 0.0,
        "w_min_dtod": device.g_min_spread * span / abs(w_min) if w_min else 0.0,
        "dw_min_std": noise,
        "corrupt_devices_prob": device.stuck,
        # Beyond both bounds stuck weights are anywhere between them; aihwkit's default keeps them near 0.
        **({"corrupt_devices_range": max(abs(w_min), abs(w_max))} if device.stuck else {}),
        **({"write_noise_std": device.write_noise * span / step} if device.write_noise else {}),
        **({"mult_noise": device.noise == "multiplicative"} if "mult_noise" in _OWN[kind] else {}),
    }
    return {"class": kind, **common, **shape}


def _check_fields(kind: str, device: Device) -> None:
    """Refuse fields without a counterpart that differ from their default and have an effect."""
    silent = {
        "noise": not device.cycle_noise or "mult_noise" in _OWN[kind],
        "write_noise": "write_noise_std" in _OWN[kind],
        "step_correlation": not device.step_spread,
        "stuck_at": not device.stuck,
        "drift_start": not (device.drift or device.drift_spread),
        "rest": device.retention == math.inf,
    }
    for each in fields(Device):
        value = getattr(device, each.name)
        if each.name not in _EXCHANGED and value != each.default and not silent.get(each.name, False):
            raise ArgumentError(
                f"a {kind} of aihwkit has no {each.name}", received=value, works=f"set {each.name}={each.default!r}"
            )


def _check_parameters(kind: str, p: Mapping[str, Any]) -> None:
    """Refuse parameters that are unknown or have no counterpart, and bounds and steps that are none."""
    neutral = {**_NEUTRAL, **_SWITCHED_OFF[kind]}
    known = [*_COMMON, *_OWN[kind], *neutral, *_NO_PULSE, "drift"]
    for name, value in p.items():
        if name not in known:
            raise ArgumentError(f"a parameter of {kind} is not known", received=name, works=nearest(name, known))
        if name in neutral and value != neutral[name]:
            raise ArgumentError(
                f"{name} of {kind} has no counterpart here", received=value, works=f"set {name}={neutral[name]!r}"
            )
    drift = p.get("drift") or {}
    if (drift if isinstance(drift, Mapping) else vars(drift)).get("nu"):
        raise ArgumentError(f"drift of {kind} has no counterpart here", received=drift, works="give drift=… beside it")
    _check_bounds(kind, p["w_min"], p["w_max"])
    arguments.number("dw_min", p["dw_min"], above=0)
    arguments.number("up_down", p["up_down"], at_least=-1, at_most=1)
    reach, furthest = p.get("corrupt_devices_range", math.inf), max(abs(p["w_min"]), abs(p["w_max"]))
    if p.get("corrupt_devices_prob") and reach < furthest:
        raise ArgumentError(
            f"stuck devices are anywhere in their range here, so corrupt_devices_range must be at least {furthest:g}",
            received=reach,
            works="leave it out",
        )
    grows = "allow_increasing" in _OWN[kind] and min(p.get("gamma_up", 0.0), p.get("gamma_down", 0.0)) < 0
    if grows and not p.get("allow_increasing", False):
        raise ArgumentError(
            f"{kind} takes a negative gamma for a positive one without allow_increasing",
            received=f"{p.get('gamma_up', 0.0)} and {p.get('gamma_down', 0.0)}",
            works="set allow_increasing=True",
        )


def _check_bounds(kind: str, low: Any, high: Any) -> None:
    # Steps that are scaled by a bound need one on either side of 0.
    scaled = kind in ("LinearStepDevice", "SoftBoundsDevice", "SoftBoundsReferenceDevice")
    arguments.number("w_min", low, below=0 if scaled else None)
    arguments.number("w_max", high, above=0 if scaled else low)


def _bias(up: float, down: float) -> float:
    """β of a pair that is x min(1, 1 + β) and x min(1, 1 - β)."""
    return 1 - down / up if up >= down and up else -(1 - up / down) if down else 0.0


def _read(device: Any) -> dict[str, Any]:
    if not hasattr(device, "dw_min"):
        raise ArgumentError("an aihwkit device has the parameter dw_min", received=device)
    return {"class": type(device).__name__, **vars(device)}


def _lineage(parameters: Any, kind: str) -> list[str]:
    """The class names that a device answers to, its own first."""
    return [kind] if isinstance(parameters, Mapping) else [each.__name__ for each in type(parameters).__mro__]


def _cycle_noise(name: str, p: Mapping[str, Any], step: float, ours: float) -> dict[str, Any]:
    sigma = p.get("dw_min_std", 0.0)
    multiplies = p.get("mult_noise", name not in ("SoftBoundsReferenceDevice",))
    if multiplies or name not in ("LinearStepDevice", "SoftBoundsDevice", "SoftBoundsReferenceDevice"):
        return {"cycle_noise": sigma}
    # Additive noise is relative to dw there and to ΔG here, which differ by the place where the step is given.
    return {"cycle_noise": sigma * step / ours, "noise": "additive"}


Shape = tuple[type[Device], dict[str, Any], tuple[float, float]]
"""Our model, its shape, and by how much steps up and down at the end where they start exceed those at w = 0."""


def _constant(p: Mapping[str, Any], span: float) -> Shape:
    return Constant, {}, (1.0, 1.0)


def _linear(p: Mapping[str, Any], span: float) -> Shape:
    low, high = p["w_min"], p["w_max"]
    up, down = p.get("gamma_up", 0.0), p.get("gamma_down", 0.0)
    first = 1 - up * low / high, 1 - down * high / low
    return Linear, {"gamma_up": up * span / high / first[0], "gamma_down": -down * span / low / first[1]}, first


def _soft(p: Mapping[str, Any], span: float) -> Shape:
    return SoftBounds, {}, (span / p["w_max"], span / abs(p["w_min"]))


def _exponential(p: Mapping[str, Any], span: float) -> Shape:
    a, b, low = p.get("a", 0.244), p.get("b", 0.2425), p["w_min"]
    up, down = p.get("gamma_up", 12.44625), p.get("gamma_down", 12.78785)
    return (
        Exponential,
        {
            "a_up": p.get("A_up", 0.00081) * math.exp(up * (2 * a * low / span + b)),
            "a_down": p.get("A_down", 0.36833) * math.exp(-down * (2 * a * (1 + low / span) + b)),
            "k_up": 2 * a * up,
            "k_down": 2 * a * down,
        },
        (1.0, 1.0),
    )


def _power(p: Mapping[str, Any], span: float) -> Shape:
    gamma, beta = p.get("pow_gamma", 1.0), p.get("pow_up_down", 0.0)
    return Power, {"gamma_up": gamma * min(1, 1 + beta), "gamma_down": gamma * min(1, 1 - beta)}, (1.0, 1.0)


def _table(p: Mapping[str, Any], span: float) -> Shape:
    up, down = (tuple(p.get(f"piecewise_{way}", (1.0,))) for way in ("up", "down"))
    tables = {"table_up": up, "table_down": down[::-1]}
    return Tabulated, {name: each * 2 if len(each) == 1 else each for name, each in tables.items()}, (1.0, 1.0)


_SHAPES = {
    "ConstantStepDevice": _constant,
    "LinearStepDevice": _linear,
    "SoftBoundsDevice": _soft,
    "SoftBoundsReferenceDevice": _soft,
    "ExpStepDevice": _exponential,
    "PowStepDevice": _power,
    "PiecewiseStepDevice": _table,
}

_COMMON = (
    "dw_min",
    "dw_min_dtod",
    "dw_min_dtod_log_normal",
    "dw_min_std",
    "up_down",
    "up_down_dtod",
    "w_min",
    "w_min_dtod",
    "w_max",
    "w_max_dtod",
    "corrupt_devices_prob",
    "corrupt_devices_range",
)
"""Parameters of every aihwkit device that have a counterpart."""

_NO_PULSE = (
    "construction_seed",
    "count_pulses",
    "reset",
    "reset_dtod",
    "reset_std",
    "diffusion_dtod",
    "lifetime_dtod",
    "reverse_offset",
    "mean_bound_reference",
)
"""Parameters that change nothing by themselves; how bounds scale shapes is said in the first lines of this file."""

_NEUTRAL: dict[str, Any] = {"diffusion": 0.0, "lifetime": 0.0, "perfect_bias": False, "enforce_consistency": True}
"""Parameters of every aihwkit device without a counterpart, with the value at which they do nothing."""

_WRITE = {"apply_write_noise_on_set": True}
_REVERSE = {"reverse_up": False, "reverse_down": False}

_SWITCHED_OFF: dict[str, dict[str, Any]] = {
    "ConstantStepDevice": {},
    "LinearStepDevice": {"gamma_up_dtod": 0.0, "gamma_down_dtod": 0.0, **_WRITE, **_REVERSE},
    "SoftBoundsDevice": {**_WRITE, **_REVERSE},
    "SoftBoundsReferenceDevice": {
        "slope_up_dtod": 0.0,
        "slope_down_dtod": 0.0,
        "reference_mean": 0.0,
        "reference_std": 0.0,
        "subtract_symmetry_point": False,
        **_WRITE,
    },
    "ExpStepDevice": {"dw_min_std_add": 0.0, "dw_min_std_slope": 0.0, **_WRITE},
    "PowStepDevice": {"pow_gamma_dtod": 0.0, "pow_up_down_dtod": 0.0, **_WRITE},
    "PiecewiseStepDevice": {**_WRITE},
}
"""The same of every class."""

_OWN: dict[str, tuple[str, ...]] = {
    "ConstantStepDevice": (),
    "LinearStepDevice": ("gamma_up", "gamma_down", "allow_increasing", "mult_noise", "write_noise_std"),
    "SoftBoundsDevice": ("mult_noise", "write_noise_std"),
    "SoftBoundsReferenceDevice": ("mult_noise", "write_noise_std"),
    "ExpStepDevice": ("A_up", "A_down", "gamma_up", "gamma_down", "a", "b", "write_noise_std"),
    "PowStepDevice": ("pow_gamma", "pow_up_down", "write_noise_std"),
    "PiecewiseStepDevice": ("piecewise_up", "piecewise_down", "write_noise_std"),
}
"""Parameters of single classes that have a counterpart."""

_EXCHANGED = (
    "g_min",
    "g_max",
    "step",
    "asymmetry",
    "cycle_noise",
    "step_spread",
    "step_distribution",
    "asymmetry_spread",
    "g_min_spread",
    "g_max_spread",
    "stuck",
)
"""Fields of every device that have a counterpart in each of aihwkit's classes."""

Written = tuple[dict[str, Any], tuple[float, float]]


def _write_linear(device: Any, low: float, high: float) -> Written:
    # The inverse of _linear: γ = γ' w_max/R / (1 + γ' w_min/R), and the step at w = 0 from that at the end.
    span = high - low
    up = device.gamma_up * high / span / (1 + device.gamma_up * low / span)
    down = device.gamma_down * -low / span / (1 - device.gamma_down * high / span)
    first = 1 - up * low / high, 1 - down * high / low
    spreads = {"gamma_up_dtod": 0.0, "gamma_down_dtod": 0.0}
    grows = {"allow_increasing": True} if min(up, down) < 0 else {}
    return {"gamma_up": up, "gamma_down": down, **spreads, **grows}, first


def _write_soft(device: Any, low: float, high: float) -> Written:
    return {}, ((high - low) / high, (high - low) / abs(low))


def _write_exponential(device: Any, low: float, high: float) -> Written:
    if device.k_up * device.k_down <= 0:
        raise ArgumentError("aihwkit's ExpStep needs k_up and k_down of one sign", received=device)
    a, share = math.copysign(0.5, device.k_up), low / (high - low)
    up, down = device.k_up / (2 * a), device.k_down / (2 * a)
    return (
        {
            "a": a,
            "b": 0.0,
            "gamma_up": up,
            "gamma_down": down,
            "A_up": device.a_up * math.exp(-up * 2 * a * share),
            "A_down": device.a_down * math.exp(down * 2 * a * (1 + share)),
        },
        (1.0, 1.0),
    )


def _write_power(device: Any, low: float, high: float) -> Written:
    beta = _bias(device.gamma_up, device.gamma_down)
    gamma = max(device.gamma_up, device.gamma_down)
    return {"pow_gamma": gamma, "pow_up_down": beta, "pow_gamma_dtod": 0.0}, (1.0, 1.0)


def _write_table(device: Any, low: float, high: float) -> Written:
    shape = {"piecewise_up": list(device.table_up), "piecewise_down": list(device.table_down[::-1])}
    return shape, (1.0, 1.0)


_WRITERS: tuple[tuple[type[Device], str, Callable[[Any, float, float], Written]], ...] = (
    (Linear, "LinearStepDevice", _write_linear),
    (SoftBounds, "SoftBoundsDevice", _write_soft),
    (Exponential, "ExpStepDevice", _write_exponential),
    (Power, "PowStepDevice", _write_power),
    (Tabulated, "PiecewiseStepDevice", _write_table),
    (Constant, "ConstantStepDevice", lambda device, low, high: ({}, (1.0, 1.0))),
)
