"""Linking of counts: a chain that goes forward alone, and counts how often every neuron fires.

A penalty on mean rates is an error that is the same at all time steps of all examples, and is known once all of a batch
has been gone through: forward for its rates, and then forward and back.
"""

from __future__ import annotations

from neko_rules.chains.linking import Linking


class LinkingCounts(Linking):
    """Writes such a chain; as ``Linking``."""

    def _write(self) -> None:
        # What is above all that spikes need not be known.
        each = enumerate(self.graph.components)
        spiking = [i for i, names in each if any(self.graph.cell(name).spiking for name in names)]
        self._go_forward(spiking[-1] + 1)
        self._count_all()
