"""Devices: one of every model, with steps and shapes of their own, and the names of the presets."""

from __future__ import annotations

from neko_rules.devices import DEVICES, Constant, Device, Exponential, Linear, Power, SoftBounds, Tabulated

LOW, HIGH = 10e-6, 110e-6
MODELS: dict[str, Device] = {
    "constant": Constant(g_min=LOW, g_max=HIGH, step=7e-6, asymmetry=0.2),
    "linear": Linear(g_min=LOW, g_max=HIGH, step=7e-6, gamma_up=0.6, gamma_down=0.3),
    "soft_bounds": SoftBounds(g_min=LOW, g_max=HIGH, step=7e-6, asymmetry=-0.3),
    "power": Power(g_min=LOW, g_max=HIGH, step=7e-6, gamma_up=2.0, gamma_down=1.5),
    "exponential": Exponential(g_min=LOW, g_max=HIGH, step=7e-6, a_up=0.2, k_up=1.5, a_down=-1.0, k_down=-3.0),
    "tabulated": Tabulated(g_min=LOW, g_max=HIGH, step=7e-6, table_up=(1.0, 0.6, 0.1), table_down=(0.9, 0.5)),
}
PRESETS = [name for name in DEVICES if name not in MODELS]


def every_device() -> list[Device]:
    return [*MODELS.values(), *(DEVICES[name]() for name in PRESETS)]
