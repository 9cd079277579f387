"""Loaded crossbar: a crossbar with what training has left in its devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neko_rules.devices.crossbar import Crossbar
from neko_rules.devices.crossbar_report import CrossbarReport


@dataclass(frozen=True)
class LoadedCrossbar:
    """A crossbar with the conductances and counters that training has left in it.

    Args:
        crossbar: its description.
        state: its state as NumPy arrays.
    """

    crossbar: Crossbar
    state: dict[str, dict[str, np.ndarray]]

    def report(self) -> CrossbarReport:
        """Pulses, set and reset, energy, endurance used and stuck devices."""
        return self.crossbar.report(self.state)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights that it holds, read without noise."""
        from neko_rules.backend import get_backend

        return self.crossbar.weights(get_backend("numpy"), self.state)
