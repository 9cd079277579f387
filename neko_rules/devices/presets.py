"""Presets: devices with the figures of published fits, each of which names its paper and refuses to leave its range.

The fits were published in units of weight, between w_min and w_max; steps, shapes, spreads and noise are theirs (by
way of aihwkit's presets of nearly the same names), written here as fractions of the range, R = w_max - w_min. Siemens,
volts and seconds are not part of the fits: those of ``Device``, 0 to 100 µS and pulses of 1 V and 100 ns, stand for
them where nothing else is said. They set the scale of energies, and no accuracy depends on them. A step belongs to
one pulse, so voltage and width cannot be changed without another measurement, and the range can only be narrowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import ClassVar

from neko_rules.devices.device import DEVICES
from neko_rules.devices.steps import Constant, Exponential, Linear, SoftBounds

_FULL = 100e-6
"""G_max - G_min in siemens."""


@DEVICES.register("reram_es")
@dataclass(frozen=True, kw_only=True, repr=False)
class ReRamES(Exponential):
    """One HfO2 ReRAM cell, exponential steps: dw 0.00135 in a range of 2, up larger than down, much noise.

    Example:
        >>> ReRamES()
        ReRamES()
        >>> ReRamES(set_voltage=2.0)
        Traceback (most recent call last):
        neko_rules.errors.ArgumentError: ReRamES holds for set_voltage = 1 V (Gong et al., Nature Communications 9:2102,
        2018) (received: 2.0); fit a device to a curve of your own: neko_rules.devices.fit.
    """

    # z = 2 a w/R + b with a = b = -0.5, γ = 5 in both directions: k = 2 a γ = -5; at w_min z = 0, at w_max z = -1.
    # Steps down are smaller than steps up by the factor 1 - 0.259359.
    step: float = 0.00135 * (1 - 0.259359 / 2) / 2 * _FULL
    asymmetry: float = 0.259359 / (2 - 0.259359)
    a_up: float = -1.18445
    a_down: float = -0.081404 * exp(5)
    k_up: float = -5.0
    k_down: float = -5.0
    step_spread: float = 0.2
    asymmetry_spread: float = 0.05 / 2
    g_min_spread: float = 0.15
    g_max_spread: float = 0.15
    cycle_noise: float = 5.0
    write_noise: float = 75.0 * 0.00135 / 2

    source: ClassVar[str] = "Gong et al., Nature Communications 9:2102, 2018"


@DEVICES.register("reram_sb")
@dataclass(frozen=True, kw_only=True, repr=False)
class ReRamSB(SoftBounds):
    """One HfO2 ReRAM cell, soft bounds: dw 0.002 in a weight range of -0.75 to 1.25."""

    # ΔG± = dw R/|bound|: 0.002/1.25 and 0.002/0.75 of the range, so that the symmetry point stands for w = 0.
    step: float = 0.002 * (1 / 1.25 + 1 / 0.75) / 2 * _FULL
    asymmetry: float = (1 / 1.25 - 1 / 0.75) / (1 / 1.25 + 1 / 0.75)
    step_spread: float = 0.3
    asymmetry_spread: float = 0.01 / 2
    g_min_spread: float = 0.15
    g_max_spread: float = 0.15
    noise: str = "additive"
    cycle_noise: float = 3.75 / (1 / 1.25 + 1 / 0.75)
    write_noise: float = 56 * 0.002 / 2

    source: ClassVar[str] = "Gong et al., Nature Communications 9:2102, 2018"


@DEVICES.register("reram_hfo2")
@dataclass(frozen=True, kw_only=True, repr=False)
class ReRamHfO2(SoftBounds):
    """An array of HfO2 ReRAM in 14 nm CMOS: dw 0.4622 in a range of 2, few states, 9.8 % of the devices stuck."""

    # 0.4622 is the median of log-normal steps; their mean is larger by exp(s²/2).
    step: float = 0.4622 * exp(0.7125**2 / 2) * _FULL
    step_spread: float = 0.7125
    step_distribution: str = "lognormal"
    asymmetry_spread: float = 0.01 / 2
    g_min_spread: float = 0.5990 / 2
    g_max_spread: float = 0.4295 / 2
    noise: str = "additive"
    cycle_noise: float = 0.2174 / 2 / exp(0.7125**2 / 2)
    write_noise: float = 0.5841 * 0.4622 / 2
    stuck: float = 0.0977

    source: ClassVar[str] = "Gong, Rasch et al., IEDM 2022, baseline HfO2 array"


@DEVICES.register("capacitor")
@dataclass(frozen=True, kw_only=True, repr=False)
class Capacitor(Linear):
    """A trench capacitor in 14 nm CMOS, nearly linear and symmetric: dw 0.005 in a range of 2; it leaks.

    The leak is ``retention`` (towards the middle of the range), in seconds: set it for your capacitor.
    """

    # f at the end where a pulse starts is 1 + γ = 1.05 of that at w = 0, and f(u) = 1 - (2 γ/(1 + γ)) u from there.
    step: float = 0.005 / 2 * 1.05 * _FULL
    gamma_up: float = 0.1 / 1.05
    gamma_down: float = 0.1 / 1.05
    step_spread: float = 0.1
    asymmetry_spread: float = 0.06 / 2
    g_min_spread: float = 0.035
    g_max_spread: float = 0.035
    noise: str = "additive"
    cycle_noise: float = 0.3 / 1.05
    rest: float = 0.5

    source: ClassVar[str] = "Li et al., Symposium on VLSI Technology 2018"


@DEVICES.register("ecram")
@dataclass(frozen=True, kw_only=True, repr=False)
class EcRam(Linear):
    """Lithium ECRAM: dw 0.002 in a weight range of -0.8276 to 1.1724, about 1000 states.

    It is written through a gate, so that its energy is not V² G t: 1 fJ is what the paper projects for a device of
    100 nm by 100 nm.
    """

    # Up: (1 + 0.1153·0.8276/1.1724) of dw at the low end; down: (1 + 0.5085·1.1724/0.8276) at the high end.
    step: float = 0.002 / 2 * (1 + (0.1153 * 0.8276 / 1.1724 + 0.5085 * 1.1724 / 0.8276) / 2) * _FULL
    asymmetry: float = (0.1153 * 0.8276 / 1.1724 - 0.5085 * 1.1724 / 0.8276) / (
        2 + 0.1153 * 0.8276 / 1.1724 + 0.5085 * 1.1724 / 0.8276
    )
    gamma_up: float = 0.1153 * 2 / 1.1724 / (1 + 0.1153 * 0.8276 / 1.1724)
    gamma_down: float = 0.5085 * 2 / 0.8276 / (1 + 0.5085 * 1.1724 / 0.8276)
    step_spread: float = 0.1
    asymmetry_spread: float = 0.01 / 2
    g_min_spread: float = 0.05 * 0.8276 / 2
    g_max_spread: float = 0.05 * 1.1724 / 2
    cycle_noise: float = 0.3
    pulse_energy: float = 1e-15

    source: ClassVar[str] = "Tang et al., IEDM 2018"


@DEVICES.register("pcm")
@dataclass(frozen=True, kw_only=True, repr=False)
class PCM(Exponential):
    """Phase-change memory of Ge2Sb2Te5: dw 0.01 in a range of 0 to 2, gradual upwards only, and it drifts.

    Only crystallisation is gradual: a pulse down resets the device, so it needs the ``one_sided`` encoding. The noise
    of a pulse is the multiplicative part of the fit. The drift exponent is not from the fit: 0.05 is usual for
    Ge2Sb2Te5 in its reset state.
    """

    # z = 2 a w/R = -2 u with a = -1: k = -2·2.5. Down, unused here: A e^{-γ z} = A e^5 e^{-5 u'}.
    step: float = 0.01 / 2 * _FULL
    a_up: float = -27.235
    a_down: float = -2.235 * exp(5)
    k_up: float = -5.0
    k_down: float = -5.0
    step_spread: float = 0.2
    asymmetry_spread: float = 0.05 / 2
    g_max_spread: float = 0.1
    cycle_noise: float = 0.6
    drift: float = 0.05
    one_way: bool = True

    source: ClassVar[str] = "Nandakumar et al., Frontiers in Neuroscience 14:406, 2020"


@DEVICES.register("idealized")
@dataclass(frozen=True, kw_only=True, repr=False)
class Idealized(Constant):
    """A device to compare with: symmetric, 10,000 steps of dw 0.0002 over a range of 2, with spread and noise."""

    step: float = 0.0002 / 2 * _FULL
    step_spread: float = 0.3
    cycle_noise: float = 0.3
    g_min_spread: float = 0.15
    g_max_spread: float = 0.15

    source: ClassVar[str] = "Rasch, Gokmen, Haensch, IEEE Design & Test 37:19, 2020"
