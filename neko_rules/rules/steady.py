"""Steady: training steps like the one before, whose chain and update are at hand.

A step by a chain is two calls of compiled loops: one makes the gradient of a batch, and one the update. What has to be
looked up, laid out and handed over for them takes five times as long as both do for a few neurons, and it is the same
as in the step before, as long as batches are of one size, nothing was replaced, and nobody else changed the parameters.
Only what is another every time is then handed over. Where anything turns out otherwise, the step is not taken here, and
nothing has happened: parameters after an update are new arrays, as ever.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.chains.running import Given, Plan, Ran, arguments, called, prepared
from neko_rules.evaluator import ratios
from neko_rules.kernels.buffers import Form
from neko_rules.kernels.elementwise import laid_out
from neko_rules.kernels.host import BUFFERS, handed_over
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained import backs_of
from neko_rules.threads import threads

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked, Told
    from neko_rules.rules.kept import Arrays
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.rule import Rule

Held = tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]
"""Parameters, own arrays and the optimiser's memory, in NumPy arrays."""

_SIZES = 64
"""Sizes of batches for which chains are kept at hand: sequences may be of any length."""

_OF_BATCH = frozenset({"inputs", "target", "counted", "weight"})
"""Arguments of a chain that belong to a batch."""


class _Ready(NamedTuple):
    """A chain for batches of a size, with all that it is called with.

    Attributes:
        links, plan: the chain.
        known: what it takes that is the same every time, by argument.
        parameters: which of its arguments are which parameters.
        gradients: of every thread, with the vector that they are parts of as the last.
    """

    links: Linked
    plan: Plan
    known: dict[str, Any]
    parameters: dict[str, str]
    gradients: list[list[np.ndarray]]


class Steady:
    """The steps of a rule on NumPy that are a gradient by a chain and an update by a loop, and nothing else.

    Args:
        rule: of which nothing is replaced as long as this is asked.
    """

    def __init__(self, rule: LearningRule) -> None:
        self._numpy = cast(Any, get_backend("numpy"))
        self._chains = rule.chains()
        network = rule.model.network
        self._names, self._slots = list(network.values), rule.optimizer.slots
        loop = rule.update_loop(rule.nx.dtype(rule.rates(1)[1]))
        assert loop is not None, "asked only of a rule that updates plainly"
        self._loop, self._of_each = loop, rule.of_each
        shapes = tuple(tuple(value.shape) for value in network.values.values())
        self._form, self._sizes = laid_out(shapes, 1 + len(self._slots), loop.dtype)
        # Of results within their vector: of parameters, then of what the optimiser keeps.
        self._offsets = np.array(self._form.begins).reshape(-1, len(shapes))
        self._addresses = np.zeros((2 + len(self._slots), len(shapes)), np.int64)
        """Where gradients, parameters and the optimiser's memory lie: what the update reads."""
        self._held: Held = {}, {}, {}
        """Whose addresses these are."""
        self._arrays: list[np.ndarray] = []
        """The parameters themselves, which somebody may exchange one by one."""
        self._now: _Ready | None = None
        self._ready: dict[Any, _Ready | None] = {}
        self._gradients: dict[Form, list[list[np.ndarray]]] = {}

    def gradients(self, rule: Rule, arrays: Arrays) -> dict[str, np.ndarray] | None:
        """None: of a gradient alone there is nothing that it would make shorter."""
        return None

    def stepped(
        self, rule: Rule, arrays: Arrays, observed: bool
    ) -> tuple[dict[str, float], dict[str, np.ndarray]] | None:
        """``Rule.stepped``; None, and the rule is as it was, where the step is to be taken as any other.

        Args:
            rule: the same, or a clone of it.
            arrays: inputs [time, batch, feature], targets and mask, as ``Evaluator.batch`` makes them.
            observed: whether the gradient is wanted too.
        """
        inputs, target, mask = arrays
        rule = cast("LearningRule", rule)
        if not self._chains.serves(rule, *inputs.shape) or not self._meets(rule):
            return None
        model, (values, own, _) = rule.model, self._held
        given, count = prepared(model.network, model.loss, values, inputs.transpose(1, 0, 2), target, mask)
        inputs = handed_over(given.inputs, model.network.dtype)
        given = given._replace(inputs=inputs, constants=rule.constants_with(values))
        penalised = self._chains.penalised(rule, given, lambda: self._counted(rule, given))
        met = None if penalised is None else self._gone_through(rule, penalised)
        if met is None:
            return None
        ready, ran = met
        with np.errstate(over="ignore", invalid="ignore"):
            loss = np.asarray(ran.loss, model.network.dtype) / given.divisor
        if not np.isfinite(loss):
            return None
        if ready is not self._now:
            self._addresses[0] = [self._loop.address(ran.gradients[name]) for name in self._names]
            self._now = ready
        rates, counts = rule.rates(1)
        *made, whole = BUFFERS.lent(self._form)
        if not self._loop.run_all(self._sizes, self._addresses, whole, rates[0], counts[0], *self._of_each):
            return None
        found = {name: ran.gradients[name].copy() for name in self._names} if observed else {}
        rows = [dict(zip(self._names, made[i:], strict=False)) for i in range(0, len(made), len(self._names))]
        self._held = rows[0], own, dict(zip(self._slots, rows[1:], strict=True))
        self._arrays = made[: len(self._names)]
        rule.hold(self._held, rule.steps + 1)
        np.add(self._offsets, self._loop.address(whole), out=self._addresses[1:])
        totals = model.totals_of(self._numpy, ran, count, arrays)
        return ratios({name: [float(part) for part in totals[name]] for name in model.figures}), found

    def _meets(self, rule: LearningRule) -> bool:
        """Whether parameters and memory are as the loops take them; and where they lie is known."""
        held = rule.held
        if all(map(is_, held, self._held)) and all(map(is_, self._held[0].values(), self._arrays)):
            return True
        values, own, memory = held
        if not (isinstance(values, dict) and isinstance(own, dict) and isinstance(memory, dict)):
            return False
        rows = [[group[name] for name in self._names] for group in (values, *(memory[slot] for slot in self._slots))]
        if any(handed_over(array, self._loop.dtype) is not array for row in rows for array in row):
            return False
        # What is no synapse is left out of what a chain is given.
        if not all(each.is_clear(values[each.weight]) for each in rule.model.network.graph.connections):
            return False
        self._addresses[1:] = [[self._loop.address(array) for array in row] for row in rows]
        self._held, self._arrays = (values, own, memory), rows[0]
        return True

    def _counted(self, rule: LearningRule, given: Given) -> Ran | None:
        """How often every neuron fires, by the chain for that; None where that goes another way."""
        met = self._gone_through(rule, given, counting=True)
        return None if met is None else met[1]

    def _gone_through(self, rule: LearningRule, given: Given, counting: bool = False) -> tuple[_Ready, Ran] | None:
        """A batch gone through by the chain for it; None where that goes another way."""
        chains, (examples, steps, features) = self._chains, given.inputs.shape
        group = chains.group(steps, examples, features)
        walked, odd = chains.walked(given.inputs, group)
        while True:
            key = given.inputs.shape, given.target.shape, given.counted.shape, walked, odd, threads(), counting
            if key not in self._ready:
                if len(self._ready) >= _SIZES:
                    self._ready.clear()
                links = chains.linked(rule, given, walked, INPUT in walked and not odd, counting=counting)
                rows = steps, given.target.shape[0]
                plan = None if links is None else chains.plan(links, self._numpy, given, group, rows)
                self._ready[key] = None if links is None or plan is None else self._made(rule, links, plan, given)
            ready = self._ready[key]
            if ready is None:
                return None
            ran = self._ran(rule, ready, given)
            if isinstance(ran, Ran):
                return ready, ran
            # Begun anew, as in any other step.
            if ran.kind == "odd":
                odd = True
            else:
                walked -= {ran.source}

    def _made(self, rule: LearningRule, links: Linked, plan: Plan, given: Given) -> _Ready | None:
        asks = "observed" in links.chain.given
        if asks or any(len(connections) > 1 for connections in links.weights.values()):
            return None
        # The same for batches of all sizes.
        gradients = self._gradients.setdefault(plan.gradients, [])
        gradients += [BUFFERS.lent(plan.gradients) for _ in plan.ranges[len(gradients) :]]
        every = arguments(links, plan, self._numpy, given, {})
        parameters = {name: connections[0].weight for name, connections in links.weights.items()} | plan.biases
        # Whose arrays they are may throw them away.
        others = _OF_BATCH.union(parameters, links.pushes)
        known = {name: value for name, value in every.items() if name not in others}
        return _Ready(links, plan, known, parameters, gradients[: len(plan.ranges)])

    def _ran(self, rule: LearningRule, ready: _Ready, given: Given) -> Ran | Told:
        """What the chain finds; or what it tells, where it is not the one for this batch."""
        links, dtype, (values, own, _) = ready.links, rule.model.network.dtype, self._held
        every = {**ready.known, "inputs": given.inputs, "target": handed_over(given.target, dtype)}
        every["counted"], every["weight"] = handed_over(given.counted, dtype), handed_over(given.weight, dtype)
        every |= {name: values[parameter] for name, parameter in ready.parameters.items()}
        every |= {name: given.pushes[population] for name, population in links.pushes.items()}
        every |= backs_of(rule, self._numpy, values, own["feedback"], links)
        return called(links, ready.plan, rule.model.network.graph, given, every, ready.gradients)
