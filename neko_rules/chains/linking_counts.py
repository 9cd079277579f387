"""Linking of counts: a chain that goes forward alone, and counts how often every neuron fires.

A penalty on mean rates is an error that is the same at all time steps of all examples, and is known once all of a batch
has been gone through: forward for its rates, and then forward and back.
"""

from __future__ import annotations

from neko_rules.chains.linking import Linking


class LinkingCounts(Linking):
    """Writes such a chain; as ``Linking``."""

    def _write(self) -> None:
        self._begin()
        components = self.graph.components
        # What is above all that spikes need not be known.
        spiking = [i for i, names in enumerate(components) if any(self.graph.cell(name).spiking for name in names)]
        for component in components[: spiking[-1] + 1]:
            self._forward(component)
        self._count_all()
