"""Judging: batches that are gone through forward alone, for their scores, the loss and what metrics ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.backend import Parameters, get_backend
from neko_rules.chains.running import Ran, Runner, kept, kind_of, may_be_judged, prepared, same
from neko_rules.kernels.host import HostBackend, host_of, lends
from neko_rules.layers.network import Network
from neko_rules.losses import Loss
from neko_rules.metrics import Metric
from neko_rules.ours import is_ours

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked
    from neko_rules.chains.linking import Linking


class Judging(Runner):
    """The chains by which an Evaluator judges; as ``Runner``.

    Args:
        network: the network.
        loss: what its outputs are judged by.
        metrics: what else is asked of them, and of spikes.
    """

    def __init__(self, network: Network, loss: Loss, metrics: Sequence[Metric]) -> None:
        super().__init__(network.graph, network.dtype)
        self._network, self._loss, self._metrics = network, loss, tuple(metrics)
        self._seen = _seen(network, loss, metrics)
        self._possible = may_be_judged(network, metrics) and type(network).infer is Network.infer
        self._ours = is_ours(network, loss, *metrics)
        self._twin: Network | None = None

    def fit(self, network: Network, loss: Loss, metrics: Sequence[Metric]) -> bool:
        """Whether all that was looked at when they were made is still what a model has."""
        return same(self._seen, _seen(network, loss, metrics))

    def ran(
        self, values: Parameters, inputs: np.ndarray, target: np.ndarray, mask: np.ndarray, batches: int = 1
    ) -> tuple[Ran, float] | None:
        """What a chain finds, and how many outputs count in the loss; None where there is none, or no use for one.

        Args:
            values: parameters, in arrays of the network's backend.
            inputs: [batch, time, feature].
            target, mask: as ``Evaluator.batch`` gives them.
            batches: how many such batches there were, this one included: all of them have to be worth a chain.
        """
        from neko_rules.chains.linking import Linking

        rates = any(metric.requires == "spikes" for metric in self._metrics)
        return self._ran(Linking, (bool(self._metrics), rates), values, inputs, target, mask, batches)

    def scores(self, values: Parameters, inputs: np.ndarray) -> np.ndarray | None:
        """The scores alone, [1 or time, batch, n_out]; None as for ``ran``."""
        from neko_rules.chains.linking_scores import LinkingScores

        every = np.ones((1, len(inputs)), self._dtype)
        met = self._ran(LinkingScores, (True, False), values, inputs, np.zeros((1, len(inputs), 0), self._dtype), every)
        return None if met is None else met[0].scores

    def _ran(
        self,
        written: type[Linking],
        wanted: tuple[bool, bool],
        values: Parameters,
        inputs: np.ndarray,
        target: np.ndarray,
        mask: np.ndarray,
        batches: int = 1,
    ) -> tuple[Ran, float] | None:
        """What a chain of a kind finds, with scores and with counts of spikes where these are wanted."""
        examples, steps, features = inputs.shape
        if not self._possible or self.lacking or not self.worthwhile(steps * batches, examples, features):
            return None
        found = self._on_numpy(values)
        if found is None:
            return None
        host, network, values = found
        given, count = prepared(network, self._loss, network.seen(values), inputs, target, mask)

        def made(walked: frozenset[str], ones: bool) -> Linked | None:
            # Of what only sends, when it fired is all that has to be known.
            lean = network.spiking_once & set(network.graph.senders) - {network.graph.output}
            kind = kind_of(network, given, walked, ones)._replace(lean=lean, scored=wanted[0], rates=wanted[1])
            return kept(network.graph, (written, kind), lambda: written(network.graph, given.constants, kind).linked())

        def linked(walked: frozenset[str], ones: bool) -> Linked | None:
            return self.known((written, walked, ones), lambda: made(walked, ones))

        ran = self.through(host, given, linked)
        return None if ran is None else (ran, count)

    def _on_numpy(self, values: Parameters) -> tuple[HostBackend, Network, Parameters] | None:
        """NumPy, and the network and its parameters there; None where the network's own backend is to compute."""
        network, numpy = self._network, get_backend("numpy")
        host = host_of(numpy)
        if host is None:
            return None
        if type(network.nx) is type(numpy):
            return host, network, values
        if not lends(network.nx) or not self._ours:
            return None
        if self._twin is None:
            self._twin = network.on(numpy)
        self._twin.weight_bits = network.weight_bits
        copied = network.nx.to_numpy
        return host, self._twin, {name: copied(value) for name, value in values.items()}


def _seen(network: Network, loss: Loss, metrics: Sequence[Metric]) -> tuple[Any, ...]:
    return network, network.graph, network.constants, network.readout, loss, *metrics
