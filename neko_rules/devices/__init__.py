"""Resistive memory devices and crossbars of them: pure functions of state that know nothing of networks."""

from neko_rules.devices import presets
from neko_rules.devices.aihwkit_exchange import from_aihwkit, to_aihwkit
from neko_rules.devices.converters import Converters
from neko_rules.devices.crossbar import Crossbar
from neko_rules.devices.crossbar_report import CrossbarReport
from neko_rules.devices.device import DEVICES, Cells, Device
from neko_rules.devices.fitting import Curve, Fit, curve_of, fit, read_curve
from neko_rules.devices.steps import Constant, Exponential, Linear, Power, SoftBounds, Tabulated

__all__ = [
    "DEVICES",
    "Cells",
    "Constant",
    "Converters",
    "Crossbar",
    "CrossbarReport",
    "Curve",
    "Device",
    "Exponential",
    "Fit",
    "Linear",
    "Power",
    "SoftBounds",
    "Tabulated",
    "curve_of",
    "fit",
    "from_aihwkit",
    "presets",
    "read_curve",
    "to_aihwkit",
]
