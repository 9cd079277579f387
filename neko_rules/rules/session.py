"""Session: a stream's compiled chain, kept from time step to time step with all that it changes in memory of its own.

What has to be looked up, laid out and handed over for a chain takes ten times as long as a time step of a hundred
neurons. It is done once, and a time step is one call that changes states, traces and parameters where they lie. Whoever
asks for them is given copies. Every so many steps all of it is copied too: a step that fails is undone by going on from
there with what has come since, which gives the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from neko_rules import trees
from neko_rules.backend import get_backend
from neko_rules.chains.running import Given
from neko_rules.kernels.host import BUFFERS
from neko_rules.layers.forward import Z
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained_pass import Begin, Carried
from neko_rules.rules.ready import Ready, ready_chain, turn
from neko_rules.rules.updates import LearningPlainly, learning
from neko_rules.scoring import Scoring
from neko_rules.trees import Moving

if TYPE_CHECKING:
    from neko_rules.credit.spans import Spans
    from neko_rules.rules.learning_rule import LearningRule

_STEPS_KEPT = 64
"""Time steps between two copies of everything: a copy takes about as long as a time step."""


class _Step(NamedTuple):
    """What a time step was given.

    Attributes:
        inputs, dense, mask: as for ``Session.step``.
        rate, count: learning rate and number of the update.
        adding, updating: as for a chain.
    """

    inputs: np.ndarray
    dense: np.ndarray
    mask: np.ndarray
    rate: Any
    count: Any
    adding: bool
    updating: bool


class _Copy(NamedTuple):
    """Everything as it was, and what has come since.

    Attributes:
        arrays: all that time steps change.
        begun: whether there was a time step before.
        last: the input before.
        since: what has come since.
    """

    arrays: list[np.ndarray]
    begun: bool
    last: np.ndarray
    since: list[_Step]


class Session:
    """Time steps of a stream by chains that are at hand.

    Args:
        rule: the rule, or its twin on NumPy; it updates plainly, and its traces go by chains.
        spans: how traces go on.
        batch_size: sequences side by side.
        features: of the input.
        begin: what came before, in NumPy arrays; None for nothing.
        total: the gradient since the last change of the weights, by parameter.

    Attributes:
        rule: as given.
        lacking: whether there was a time step that no chain could be made for.
        held: parameters, own arrays and the optimiser's memory, for the rule to hold: they change where they lie.
    """

    def __init__(
        self,
        rule: LearningRule,
        spans: Spans,
        batch_size: int,
        features: int,
        begin: Begin | None,
        total: dict[str, np.ndarray],
    ) -> None:
        self.rule, self._numpy = rule, cast(Any, get_backend("numpy"))
        network, dtype = rule.model.network, rule.model.network.dtype
        self._inputs = np.zeros((batch_size, 1, features), dtype)
        self._target = np.zeros((1, batch_size, rule.model.scores), dtype)
        self._counted, self._weight = np.zeros((2, 1, batch_size), dtype)
        self._outputs = np.zeros((1, batch_size, network.graph.populations[network.graph.output].size), dtype)
        self._loss, self._reached = np.zeros(1), np.zeros(1, np.int64)
        self._carried = Carried(rule, self._numpy, spans, batch_size, features, begin)
        self._last = np.zeros((batch_size, features), dtype) if begin is None else begin.states[INPUT][Z]
        own, memory = rule.prepared()
        updates = learning(rule, self._numpy, network.values, own, memory, {}, *rule.rates(1))
        assert isinstance(updates, LearningPlainly), "asked only of a rule that updates plainly"
        self._updates = updates
        kept = updates.after()
        self.held = Moving(kept.values), Moving(kept.own), Moving(kept.memory)
        self._ready: dict[tuple[frozenset[str], bool], Ready | None] = {}
        self._backs: dict[Any, np.ndarray] = {}
        self._now: Ready | None = None
        self._updated = False
        self.lacking = False
        self._undoing = False
        self._total = {name: np.array(value) for name, value in total.items()}
        self._copy = self._copied()

    # One time step.

    def step(
        self, inputs: np.ndarray, dense: np.ndarray, mask: np.ndarray, adding: bool, updating: bool
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None:
        """What the loss observes [batch, n_out], and the loss and how much it is of; None where it fails.

        A step that fails is undone: something is not finite, or there is no chain for it.

        Args:
            inputs: [batch, feature].
            dense: targets [batch, n_out].
            mask: which of them count, [batch].
            adding: whether the gradient is added to what there is of it.
            updating: whether the weights change.
        """
        if self._undoing:
            self._undo()
        if len(self._copy.since) >= _STEPS_KEPT:
            self._copy = self._copied()
        rate, count = (each[0] for each in self.rule.rates(1)) if updating else (0.0, 0.0)
        # Whose array the input is may fill it with the next before this one is gone through again.
        now = _Step(inputs.copy(), dense, mask, rate, count, adding, updating)
        try:
            went = self._stepped(now) and self._finite(updating)
            loss = np.asarray(self._loss[0], self._inputs.dtype), np.asarray(self._counted.sum())
            found = self._outputs[0].copy(), loss
        except BaseException:
            # Whoever stops a stream from the keyboard finds it where it was before this step.
            self._undo()
            raise
        if not went:
            self._undo()
            return None
        self._copy.since.append(now)
        return found

    def _finite(self, updating: bool) -> bool:
        return bool(np.isfinite(self._loss[0])) and (not updating or self._updates.still_finite)

    def _stepped(self, step: _Step) -> bool:
        """Whether there was a chain for a time step."""
        self._inputs[:, 0], self._target[0], self._counted[0] = step.inputs, step.dense, step.mask
        np.divide(self._counted, max(1.0, float(step.mask.sum())), out=self._weight)
        chains = self.rule.chains()
        walked, odd = chains.walked(self._inputs, len(self._inputs))
        while True:
            ready = self._of(walked, INPUT in walked and not odd)
            if ready is None:
                self.lacking = True
                return False
            if ready is not self._now:
                self._go_over_to(ready)
            self._updates.take_rates(step.rate, step.count)
            ready.put(adding=step.adding, updating=step.updating, before=self._carried.begun)
            self._loss[0] = 0.0
            told = ready.run((0, 1, 0, 0))
            if told is None:
                break
            # By how many events this time step has alone, so that a stream that is taken up again goes on alike.
            walked -= {told.source}
        self._carried.begun, self._updated = True, step.updating
        self._last = step.inputs
        return True

    def _go_over_to(self, ready: Ready) -> None:
        """The gradient so far, and where updates find it, for another chain."""
        for name, gradient in (self._total if self._now is None else self._now.gradients).items():
            ready.gradients[name][...] = gradient
        self._updates.meet(ready.gradients)
        self._now = ready

    def _of(self, walked: frozenset[str], ones: bool) -> Ready | None:
        key = walked, ones
        if key not in self._ready:
            self._ready[key] = self._made(walked, ones)
        return self._ready[key]

    def _made(self, walked: frozenset[str], ones: bool) -> Ready | None:
        rule, network = self.rule, self.rule.model.network
        examples, _, features = self._inputs.shape
        scoring, values = Scoring(rule.model.loss, "sequence", network.task_type), self._updates.values
        data = self._inputs, self._target, self._counted, self._weight, scoring
        of = Given(values, rule.constants_with(values), *data)
        sizes = rule.chains().group(1, examples, features), 1
        sums = {name: np.zeros((1, examples, network.graph.populations[name].size)) for name in network.spiking}
        sums = {name: each.astype(network.dtype) for name, each in sums.items()}
        own = {"scores": self._outputs, "reached": self._reached, "total": self._loss}
        return ready_chain(rule, of, (walked, ones), sizes, self._carried, self._updates, self._backs, sums, own)

    # What was, and what is.

    def _changing(self) -> list[np.ndarray]:
        """All that time steps change, but for what is made of it anew."""
        return [*self._carried.arrays, *self._updates.changing, *self._total.values()]

    def _copied(self) -> _Copy:
        """A copy of everything."""
        self._take_total()
        arrays = [BUFFERS.empty(array.shape, array.dtype) for array in self._changing()]
        for copy, array in zip(arrays, self._changing(), strict=True):
            copy[...] = array
        return _Copy(arrays, self._carried.begun, self._last, [])

    def _undo(self) -> None:
        """Go on from the copy with what has come since; from its beginning, should it be stopped on the way."""
        self._undoing = True
        for copy, array in zip(self._copy.arrays, self._changing(), strict=True):
            array[...] = copy
        self._carried.begun, self._last, self._now = self._copy.begun, self._copy.last, None
        for ready in filter(None, self._ready.values()):
            turn(self.rule, self._updates, ready.links, self._backs)
        for step in self._copy.since:
            went = self._stepped(step)
            assert went, "it went before"
        self._undoing = False

    def _take_total(self) -> None:
        """Take over the gradient since the last change of the weights from the chain that has it."""
        if self._now is not None:
            for name, gradient in self._now.gradients.items():
                self._total[name][...] = 0 if self._updated else gradient

    @property
    def begun(self) -> bool:
        """Whether there was a time step: before the first, traces are anything."""
        return self._carried.begun

    def went(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """States of the network, traces and the gradient as the engine has them, copied to NumPy arrays."""
        if self._undoing:
            self._undo()
        self._take_total()
        network = self._carried.network() | {INPUT: {Z: self._last}}
        return tuple(trees.mapped(np.array, tree) for tree in (network, self._carried.credit(), self._total))
