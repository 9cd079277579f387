"""Judging: batches that are gone through forward alone, for their scores, the loss and what metrics ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Parameters, get_backend
from neko_rules.chains.running import Given, Ran, Runner, kept, kind_of, may_be_judged, prepared
from neko_rules.kernels.host import HostBackend, host_of, lends
from neko_rules.layers.network import Network
from neko_rules.losses import Loss
from neko_rules.metrics import Metric

_PACKAGE = __name__.partition(".")[0]


def is_ours(*parts: Any) -> bool:
    """Whether the classes of all parts are this package's: what a user adds may be written for one library.

    Example:
        >>> from neko_rules.losses import MeanSquaredError
        >>> Own = type("Own", (MeanSquaredError,), {"__module__": "mine"})
        >>> is_ours(MeanSquaredError()), is_ours(Own())
        (True, False)
    """
    classes = [each for part in parts for each in type(part).__mro__]
    return all(each.__module__.partition(".")[0] in (_PACKAGE, "builtins", "abc", "typing") for each in classes)


class Judging(Runner):
    """The chains by which an Evaluator judges; as ``Runner``.

    Args:
        network: the network.
        loss: what its outputs are judged by.
        metrics: what else is asked of them, and of spikes.
    """

    def __init__(self, network: Network, loss: Loss, metrics: Sequence[Metric]) -> None:
        super().__init__(network.graph, network.dtype)
        self._seen = network, network.graph, network.readout, loss, metrics
        self._loss, self._rates = loss, any(metric.requires == "spikes" for metric in metrics)
        self._possible = may_be_judged(network, loss, metrics)
        self._ours = is_ours(network, loss, *metrics)
        self._twin: Network | None = None

    def fit(self, network: Network, loss: Loss, metrics: Sequence[Metric]) -> bool:
        """Whether all that was looked at when they were made is still what a model has."""
        now = network, network.graph, network.readout, loss, metrics
        return all(one is other for one, other in zip(self._seen, now, strict=True))

    def ran(
        self, values: Parameters, inputs: np.ndarray, target: np.ndarray, mask: np.ndarray
    ) -> tuple[Ran, float] | None:
        """What a chain finds, and how many outputs count in the loss; None where there is none, or no use for one.

        Args:
            values: parameters, in arrays of the network's backend.
            inputs: [batch, time, feature].
            target, mask: as ``Evaluator.batch`` gives them.
        """
        examples, steps, features = inputs.shape
        if not self._possible or self.lacking or not self.worthwhile(steps, examples, features):
            return None
        found = self._on_numpy(values)
        if found is None:
            return None
        host, network, values = found
        given, count = prepared(network, network.seen(values), inputs, target, mask)

        def linked(walked: frozenset[str], ones: bool) -> Any:
            return self.known((walked, ones), lambda: self._made(network, given, walked, ones))

        ran = self.through(host, given, linked)
        return None if ran is None else (ran, count)

    def _made(self, network: Network, given: Given, walked: frozenset[str], ones: bool) -> Any:
        from neko_rules.chains.linking import Linking

        # Of what only sends, when it fired is all that has to be known.
        lean = network.spiking_once & set(network.graph.senders) - {network.graph.output}
        kind = kind_of(network, self._loss, given, walked, ones)._replace(lean=lean, scored=True, rates=self._rates)
        return kept(network.graph, (Linking, kind), lambda: Linking(network.graph, given.constants, kind).linked())

    def _on_numpy(self, values: Parameters) -> tuple[HostBackend, Network, Parameters] | None:
        """NumPy, and the network and its parameters there; None where the network's own backend is to compute."""
        network, numpy = self._seen[0], get_backend("numpy")
        host = host_of(numpy)
        if host is None or network.nx is numpy:
            return None if host is None else (host, network, values)
        if not lends(network.nx) or not self._ours:
            return None
        if self._twin is None:
            self._twin = network.on(numpy)
        self._twin.weight_bits = network.weight_bits
        copied = network.nx.to_numpy
        return host, self._twin, {name: copied(value) for name, value in values.items()}
