"""Crossbar report: what training has cost the devices of a crossbar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neko_rules.devices.device import Device
from neko_rules.devices.encoding import pulsed


@dataclass(frozen=True)
class ArrayReport:
    """One weight's devices.

    Args:
        name: the weight.
        devices: how many devices hold it.
        up: pulses up (set), all devices together.
        down: pulses down (reset), all devices together.
        busiest: pulses on the device with the most.
        energy: joules spent on them.
        stuck: devices that nothing moves.
        at_bounds: fraction of the pulsed devices at an end of their range.
    """

    name: str
    devices: int
    up: int
    down: int
    busiest: int
    energy: float
    stuck: int
    at_bounds: float

    @property
    def pulses(self) -> int:
        """Pulses up and down."""
        return self.up + self.down


@dataclass(frozen=True)
class CrossbarReport:
    """What a crossbar has been through; ``print`` shows it as a table.

    Args:
        device: the device.
        encoding: the encoding.
        arrays: one entry per weight.
    """

    device: Device
    encoding: str
    arrays: tuple[ArrayReport, ...]

    @property
    def devices(self) -> int:
        """Devices of all arrays."""
        return sum(each.devices for each in self.arrays)

    @property
    def pulses(self) -> int:
        """Pulses on all devices."""
        return sum(each.pulses for each in self.arrays)

    @property
    def up(self) -> int:
        """Pulses up (set)."""
        return sum(each.up for each in self.arrays)

    @property
    def down(self) -> int:
        """Pulses down (reset)."""
        return sum(each.down for each in self.arrays)

    @property
    def energy(self) -> float:
        """Joules spent on all pulses."""
        return sum(each.energy for each in self.arrays)

    @property
    def stuck(self) -> int:
        """Devices that nothing moves."""
        return sum(each.stuck for each in self.arrays)

    @property
    def endurance_used(self) -> float:
        """The part of its endurance that the busiest device has used; 0 where the endurance is not known."""
        busiest = max((each.busiest for each in self.arrays), default=0)
        return busiest / self.device.endurance if math.isfinite(self.device.endurance) else 0.0

    def totals(self) -> dict[str, float | None]:
        """What all arrays have been through together, as numbers; ``endurance_used`` is None where it is not known.

        Example:
            >>> array = ArrayReport("w", devices=8, up=3, down=2, busiest=2, energy=1e-9, stuck=0, at_bounds=0.0)
            >>> CrossbarReport(Device(endurance=100.0), "differential", (array,)).totals()["endurance_used"]
            0.02
        """
        return {
            "devices": self.devices,
            "pulses": self.pulses,
            "up": self.up,
            "down": self.down,
            "energy": self.energy,
            "stuck": self.stuck,
            "endurance_used": self.endurance_used if math.isfinite(self.device.endurance) else None,
        }

    def __str__(self) -> str:
        names = f"{'set':>10} {'reset':>10} {'busiest':>8} {'energy':>10} {'stuck':>6} {'at end':>7}"
        head = f"{'weight':28} {'devices':>8} {names}"
        rows = [
            f"{each.name:28} {each.devices:8} {each.up:10} {each.down:10} {each.busiest:8} {each.energy:8.2e} J "
            f"{each.stuck:6} {100 * each.at_bounds:5.1f} %"
            for each in self.arrays
        ]
        total = f"{'all':28} {self.devices:8} {self.up:10} {self.down:10} {'':8} {self.energy:8.2e} J {self.stuck:6}"
        known = math.isfinite(self.device.endurance)
        used = f"{100 * self.endurance_used:.2g} % of the endurance" if known else "endurance not known"
        return "\n".join([f"{self.device!r}, {self.encoding}; busiest device: {used}", head, *rows, total])


def report(device: Device, encoding: str, state: Mapping[str, Mapping[str, np.ndarray]]) -> CrossbarReport:
    """The report of a crossbar's state in NumPy arrays."""
    arrays = []
    for name, plus in state["plus.conductance"].items():
        sides = {"plus": plus, "minus": state["minus.conductance"][name]}
        counts = {
            kind: [np.asarray(state[f"{side}.{kind}"][name], np.float64) for side in sides]
            for kind in ("up", "down", "energy")
        }
        ends, moving = 0, 0
        for side in pulsed(encoding):
            g = sides[side]
            low, high = (state.get(f"{side}.{end}", {}).get(name, getattr(device, end)) for end in ("g_min", "g_max"))
            # In single precision a bound is met up to its last bits.
            slack = 1e-6 * device.range
            ends += int(np.sum((g <= low + slack) | (g >= high - slack)))
            moving += g.size
        free = [state.get(f"{side}.free", {}).get(name) for side in sides]
        arrays.append(
            ArrayReport(
                name,
                devices=sum(g.size for g in sides.values()),
                up=round(sum(float(each.sum()) for each in counts["up"])),
                down=round(sum(float(each.sum()) for each in counts["down"])),
                busiest=round(max(float((a + b).max()) for a, b in zip(counts["up"], counts["down"], strict=True))),
                energy=sum(float(each.sum()) for each in counts["energy"]),
                stuck=sum(int(np.sum(each <= 0)) for each in free if each is not None),
                at_bounds=ends / moving,
            )
        )
    return CrossbarReport(device, encoding, tuple(arrays))
