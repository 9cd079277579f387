"""Stand-in: a rule on NumPy that takes the steps of the same rule on another library.

XLA goes through time by a few products and loops over arrays for every time step, and multiplies by all that is zero.
On a processor a chain of NumPy's loops (``neko_rules/rules/chained.py``) takes a third to an eighth of its time. Of
PyTorch's tensors chains can be made too; a step of a small network is then mostly the making of tensors. What the rule
holds lies in NumPy arrays, from which those of the library are made once somebody asks for them.

A stand-in takes steps where there is a chain for them, and those of online rules that go back through the sequence so
far (``credit.rewinding``), whose loops are compiled alike. For all else, within ``kernels.host.by_library``, and on
other devices the library computes.
"""

from __future__ import annotations

from functools import cached_property
from operator import is_
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from neko_rules import trees
from neko_rules.kernels.tracing import Body, NotTraceableError, TracingBackend
from neko_rules.layers.network import Network
from neko_rules.ours import is_ours
from neko_rules.rules.online import Online
from neko_rules.surrogates import Surrogate
from neko_rules.trees import Moving, OnHost

if TYPE_CHECKING:
    from neko_rules.backend import Parameters
    from neko_rules.rules.kept import Arrays, Own
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.rule import Rule

Held: TypeAlias = "tuple[Parameters | OnHost, Own | OnHost | None, dict[str, Parameters] | OnHost | None]"
"""Parameters, a rule's own arrays and its optimiser's memory as they lie; None where there are none yet."""


class StandIn:
    """A rule's twin on NumPy.

    Args:
        rule: on a backend that ``kernels.host.lends``, with a network that is built; nothing of it is replaced as long
            as this is asked.
    """

    def __init__(self, rule: LearningRule) -> None:
        self._twin = on_numpy(rule)
        self._held: Held | None = None

    def serves(self, rule: LearningRule, arrays: Arrays) -> bool:
        """Whether there is a chain for such a batch, as far as is known, or a way back, and it is the faster."""
        twin = self._twin
        if twin is None:
            return False
        if rule.online and Online(rule, rule.online).rewinds(*arrays[0].shape[:2]):
            return True
        if not self._chained:
            return False
        # A library that loops can work on has its own large products, which may be the faster.
        if hasattr(rule.nx, "in_host_memory") and not rule.chains().possible:
            return False
        chains = twin.chains()
        return not chains.lacking and chains.serves(rule, *arrays[0].shape)

    @cached_property
    def _chained(self) -> bool:
        """Whether the rule is one that chains are for."""
        assert self._twin is not None, "asked of a twin"
        if not self._twin.online and self._twin.window is None:
            return self._twin.evaluation == "adjoint"
        if not self._twin.chains().has_windows:
            return False
        if self._twin.window is not None:
            return True
        spans = Online(self._twin, self._twin.online).windows
        # Python that updates the weights takes longer than a time step of XLA's, unless there is a trace per synapse.
        often = self._twin.online == 1 and not self._twin.updates_plainly
        return spans is not None and (spans.per_synapse or not often)

    def gradients(self, rule: Rule, arrays: Arrays) -> dict[str, np.ndarray] | None:
        """``Rule.gradients_of``; None where it turns out that there is no chain."""
        twin = self._ready(rule)
        found = twin.gradients_of(arrays)
        return None if twin.chains().lacking else found

    def stepped(
        self, rule: Rule, arrays: Arrays, observed: bool
    ) -> tuple[dict[str, float], dict[str, np.ndarray]] | None:
        """``Rule.stepped``; None, and the rule is as it was, where it turns out that there is no chain."""
        twin = self._ready(rule)
        found = twin.stepped(arrays, observed)
        if twin.chains().lacking:
            return None  # And it serves no more, so that nobody asks in which state it is.
        values, own, memory = twin.held
        self._held = OnHost(values), OnHost(own), OnHost(memory)
        rule.hold(self._held, twin.steps)
        return found

    def _ready(self, rule: Rule) -> LearningRule:
        """The twin in the rule's state."""
        twin = self._twin
        assert twin is not None, "asked only for what it serves"
        moving = any(isinstance(each, Moving) for each in rule.held)
        if moving or self._held is None or not all(map(is_, rule.held, self._held)):
            copied, (own, memory) = rule.nx.to_numpy, rule.prepared()
            values, own, memory = (trees.mapped(copied, tree) for tree in (rule.model.network.values, own, memory))
            twin.take(values, own, memory, updates=0)
            self._held = rule.held
        twin.steps = rule.steps
        return twin


def on_numpy(rule: LearningRule) -> LearningRule | None:
    """A rule's twin on NumPy; None where something of it may be written for the one library that it is used with."""
    if not _is_ours(rule):
        return None
    twin = rule.clone()
    twin.model.network = rule.model.network.on("numpy")
    return twin


def _is_of_all(surrogate: Surrogate) -> bool:
    """Whether a surrogate is written in operations that every library has."""
    body = Body("float64")
    try:
        surrogate.derivative(cast(Any, TracingBackend(body)), body.argument("u"))
    except NotTraceableError:
        return False
    return True


def _is_ours(rule: LearningRule) -> bool:
    """Whether all of it is this package's: what a user adds may be written for the one library that it is used with."""
    network = rule.model.network
    if not isinstance(network, Network):
        return False
    if not all(map(_is_of_all, {network.graph.cell(name).surrogate for name in network.graph.order})):
        return False
    parts = (rule, rule.model, network, rule.model.loss, *rule.model.metrics, rule.optimizer, rule.clipping)
    return is_ours(*parts, *rule.regularizers)
