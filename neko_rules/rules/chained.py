"""Chained: loss and gradient of a batch by one compiled loop over groups of examples, with all of a step in each.

Groups add up as portions do, and their histories stay in the second cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from neko_rules.backend import Backend, Parameters
from neko_rules.chains.running import Given, Plan, Ran, Runner, kept, kind_of, may_be_judged, prepared, same
from neko_rules.credit.adjoint import FEW_ABOVE, back_to
from neko_rules.credit.factors import kinds
from neko_rules.credit.recursion import Setting
from neko_rules.evaluator import Judgement
from neko_rules.kernels.dense import times_as_long
from neko_rules.kernels.host import HostBackend, handed_over
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.ours import is_ours
from neko_rules.regularizers import MembraneBounds, of_rates, of_states
from neko_rules.rules.back import Back, Window
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.penalties import on_rates, slopes

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked
    from neko_rules.rules.chained_pass import Carried
    from neko_rules.rules.learning_rule import LearningRule

_FED_BACK = 12
"""Examples of a group at least, where errors go back through recurrent weights: a product of fewer rows takes longer
for each of them than do the histories of more examples, which lie in no cache."""

_SLOWEST = 0.75
"""How many times as long as ours a backend's product has to take at least, where large ones are part of a chain: they
are then ours, and what a chain saves elsewhere was measured to be a fifth."""


class Chains(Runner):
    """The chains of a rule; as ``Runner``.

    Args:
        rule: the rule.
    """

    def __init__(self, rule: LearningRule) -> None:
        graph = rule.model.network.graph
        fed_back = rule.credit.temporal == "full" and any(map(graph.within, graph.components))
        super().__init__(graph, rule.model.network.dtype, _FED_BACK if fed_back else 1)
        self._seen = _seen(rule)
        self.possible = _possible(rule)
        late_inputs = any(c.delay and c.source == INPUT for c in graph.connections)
        self.has_windows = self.possible and rule.model.loss.is_of_outputs and not late_inputs
        """Whether there may be chains of windows: of losses of single steps, and of inputs that come at once."""

    def fit(self, rule: LearningRule) -> bool:
        """Whether all that was looked at when they were made is still what the rule has."""
        return same(self._seen, _seen(rule))

    def judged(
        self, rule: LearningRule, host: HostBackend, values: Parameters, own: Own, batch: Batch
    ) -> tuple[Judgement, Parameters] | None:
        """What ``LearningRule`` finds for a batch; None where there is no chain for it, or no use for one.

        Args:
            rule: the same rule, whose gradient goes backward in time.
            host: its backend.
            values, own, batch: as for the rule.
        """
        if not self.serves(rule, *batch[0].shape):
            return None
        network = rule.model.network
        inputs, target, mask = map(host.host, batch)
        given, count = prepared(network, rule.model.loss, values, inputs.transpose(1, 0, 2), target, mask)
        given = given._replace(constants=rule.constants_with(values))
        counted = partial(self._ran, rule, host, given, own["feedback"], counting=True)
        penalised = self.penalised(rule, given, counted)
        ran = None if penalised is None else self._ran(rule, host, penalised, own["feedback"])
        if ran is None:
            return None
        totals = rule.model.totals_of(host, ran, count, batch)
        # A part of a data set may have no supervised step; it then counts nothing.
        loss = np.asarray(ran.loss, network.dtype) / given.divisor
        gradients = {name: host.from_host(ran.gradients[name]) for name in values}
        return Judgement(host.from_host(np.asarray(loss)), {}, totals), gradients

    def penalised(self, rule: LearningRule, given: Given, counted: Callable[[], Ran | None]) -> Given | None:
        """The same with what penalties on mean rates add to errors, by population and neuron.

        Args:
            rule: the rule.
            given: parameters and data.
            counted: how often every neuron fires, from a chain that only counts spikes; None where there is none.

        Returns:
            None where the chain was asked for and there is none.
        """
        penalties, network, (examples, steps, _) = on_rates(rule), rule.model.network, given.inputs.shape
        given = given._replace(share=1.0 / (steps * examples))
        if not penalties:
            return given
        rates = {
            name: np.zeros((1, 1, network.graph.populations[name].size), network.dtype) for name in network.spiking
        }
        if any(penalty.reads_rates for penalty in penalties):
            ran = counted()
            if ran is None:
                return None
            rates = {name: sums.mean(axis=1, keepdims=True) / steps for name, sums in ran.spikes.items()}
        found = slopes(penalties, rates, network.dt)
        pushes = {name: handed_over(np.ravel(each) / (steps * examples), network.dtype) for name, each in found.items()}
        return given._replace(pushes=pushes)

    def serves(self, rule: LearningRule, steps: int, examples: int, features: int) -> bool:
        """Whether there may be a chain for so much of a batch, and it is worth compiling one.

        Batches that are as large in sum as one that is worth it by itself have been worth it: the steps of a rule are
        part of its state, so that one that goes on from a saved state does as the one that was saved.
        """
        return self.possible and self.worthwhile((rule.steps + 1) * steps, examples, features)

    def _ran(
        self, rule: LearningRule, host: HostBackend, given: Given, feedback: Parameters, counting: bool = False
    ) -> Ran | None:
        """What a chain finds for whole sequences, or one that only counts spikes; None where there is none."""
        linked = partial(self.linked, rule, given, counting=counting)
        backs = partial(backs_of, rule, host, given.values, feedback)
        return self.through(host, given, linked, backs)

    def linked(
        self,
        rule: LearningRule,
        given: Given,
        walked: frozenset[str],
        ones: bool,
        window: Window | None = None,
        counting: bool = False,
    ) -> Linked | None:
        """The chain for what is taken to have few events; None where there is none.

        Args:
            rule: the rule.
            given: parameters and data.
            walked: populations, and the input.
            ones: whether the events of the input are all 1.
            window: what goes on beyond the time steps of the chain; None for whole sequences.
            counting: whether it only counts spikes.
        """
        look = walked, ones, window, counting
        return self.known(look, lambda: _made(rule, given, *look))

    def plan_of_windows(
        self, links: Linked, host: HostBackend, given: Given, group: int, steps: int, carried: Carried
    ) -> Plan:
        """How a chain goes through windows of so many time steps; as ``plan``."""
        # What penalties on rates make of a window is asked for once all examples went through it.
        more, together = partial(carried.constants, links, steps), bool(links.handed.fired)
        return self.plan(links, host, given, group, (steps, steps), more, together)


def backs_of(
    rule: LearningRule, host: HostBackend, values: Parameters, feedback: Parameters, links: Linked
) -> dict[str, np.ndarray]:
    """The matrices that carry errors back, by argument of a chain."""
    backend, dtype = cast(Backend, host), links.kind.dtype
    return {
        name: handed_over(host.host(back_to(backend, rule.credit, values, feedback, source, connection)), dtype)
        for name, (source, connection) in links.backs.items()
    }


def _seen(rule: LearningRule) -> tuple[Any, ...]:
    """What chains depend on that may be replaced in a rule or its model."""
    model, network = rule.model, rule.model.network
    now = model, network, network.graph, network.constants, network.readout, model.loss, rule.regularizers
    return *now, *model.metrics


def _possible(rule: LearningRule) -> bool:
    """Whether the rule's gradient is a sum over examples and made of loops that a chain can call."""
    model, network = rule.model, rule.model.network
    graph, full = network.graph, rule.credit.temporal == "full"
    asked = [] if model.loss.is_of_outputs else [model.loss]
    return (
        rule.plain
        and not rule.alone
        and model.plain
        # Where spikes move in time the gradient of a penalty on rates is another's, gone back for by itself.
        and all(of_states(penalty) or (of_rates(penalty) and not rule.credit.timed) for penalty in rule.regularizers)
        # They are asked about NumPy's arrays, where what a user wrote may be for those of one library.
        and (rule.nx.name == "numpy" or is_ours(*rule.regularizers, *asked))
        and (not rule.credit.outside_chain or _has_signals(rule))
        and may_be_judged(network, model.metrics)
        and (not any(_is_wide(graph, c, full) for c in graph.connections) or times_as_long(rule.nx) > _SLOWEST)
    )


def _has_signals(rule: LearningRule) -> bool:
    """Whether signals from outside of the chain of layers, of each population's own, are among what chains have."""
    model = rule.model
    of_every_step = model.network.readout == "sequence" and model.loss.is_of_outputs
    return rule.credit.spatial in ("target", "local") and of_every_step


def _is_wide(graph: Graph, connection: Connection, full: bool) -> bool:
    """Whether the error that a connection carries down is a large product, and not gathered in a loop back."""
    names = connection.source, connection.target
    ends = [graph.populations[name].size for name in names if name != INPUT]
    gathered = names[0] == names[1] or (full and any(set(names) <= set(component) for component in graph.components))
    return len(ends) == 2 and min(ends) > FEW_ABOVE and not gathered


def _bounded(rule: LearningRule) -> dict[tuple[str, str], tuple[MembraneBounds, ...]]:
    """The penalties on entries of states, by population and state."""
    found: dict[tuple[str, str], tuple[MembraneBounds, ...]] = {}
    for penalty in filter(None, map(of_states, rule.regularizers)):
        for name in penalty.at_states(rule.model.network):
            found[name, penalty.state] = (*found.get((name, penalty.state), ()), penalty)
    return found


def _made(
    rule: LearningRule, given: Given, walked: frozenset[str], ones: bool, window: Window | None, counting: bool
) -> Linked | None:
    """The chain for a rule and such data, by whose events are few or all 1, and by what goes on beyond it."""
    from neko_rules.chains.linking_counts import LinkingCounts
    from neko_rules.rules.linking_back import LinkingBack
    from neko_rules.rules.linking_synapses import LinkingSynapses
    from neko_rules.rules.linking_window import LinkingWindow

    network, metrics = rule.model.network, rule.model.metrics
    jacobians = tuple(rule.jacobians[name] for name in network.graph.order)
    bounded = {} if counting else _bounded(rule)
    back = None if counting else Back(rule.credit, jacobians, window, frozenset(given.pushes), tuple(bounded.items()))
    kind = kind_of(network, given, walked, ones)._replace(
        lean=rule.lean - {name for name, _ in bounded},
        scored=not counting and (bool(metrics) or window is not None),
        rates=counting or any(metric.requires == "spikes" for metric in metrics),
        windows=window is not None,
        back=back,
    )
    graph, constants = network.graph, given.constants
    if counting:
        return kept(graph, (LinkingCounts, kind), lambda: LinkingCounts(graph, constants, kind).linked())
    written: type[LinkingBack] = LinkingBack
    if window is not None:
        written = LinkingSynapses if window.wide else LinkingWindow
    factored = kinds(graph, rule.jacobians, constants, rule.credit)
    setting = Setting(rule.nx, graph, rule.jacobians, constants, rule.credit, lambda connection: connection, factored)
    return kept(graph, (written, kind), lambda: written(setting, kind).linked())
