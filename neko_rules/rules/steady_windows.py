"""Steady windows: training steps with changes within the sequence, whose chain and updates are at hand.

As ``rules.steady``, for online rules and windows: one call goes through all windows and makes the updates between them,
in memory that is kept. Parameters after a step are new arrays, as ever.
"""

from __future__ import annotations

from functools import reduce
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from neko_rules.backend import get_backend
from neko_rules.chains.running import Given
from neko_rules.evaluator import ratios
from neko_rules.kernels.host import handed_over
from neko_rules.layers.graph import INPUT
from neko_rules.rules.chained_pass import Carried, Data, data_of
from neko_rules.rules.online import Online, Windowed
from neko_rules.rules.ready import Ready, ready_chain, turn
from neko_rules.rules.updates import LearningPlainly, learning
from neko_rules.scoring import Scoring
from neko_rules.threads import threads

if TYPE_CHECKING:
    from neko_rules.rules.kept import Arrays
    from neko_rules.rules.learning_rule import LearningRule
    from neko_rules.rules.rule import Rule


class _OfMask(NamedTuple):
    """What follows from the mask of a batch.

    Attributes:
        mask: as it was given.
        steps: time steps of the batch.
        counted, weight, some: as in ``Data``.
    """

    mask: np.ndarray
    steps: int
    counted: np.ndarray
    weight: np.ndarray
    some: np.ndarray


class SteadyWindows:
    """The steps of a rule on NumPy that are windows by a chain, with plain updates between them, and nothing else.

    Args:
        rule: of which nothing is replaced as long as this is asked.
    """

    def __init__(self, rule: LearningRule) -> None:
        self._numpy, self._chains = cast(Any, get_backend("numpy")), rule.chains()
        self._spans = Online(rule, rule.online).windows if rule.online else None
        self._size = rule.online or rule.window or 1
        self._refused: set[Any] = set()
        """What there is no such chain for."""
        self._of_mask: _OfMask | None = None
        self._for: tuple[Any, ...] = ()
        """Parameters, own arrays, memory and sizes that all that follows is for: what windows change, and chains."""
        self._values: list[np.ndarray] = []
        self._now: Ready | None = None

    def gradients(self, rule: Rule, arrays: Arrays) -> dict[str, np.ndarray] | None:
        """None: of a gradient alone there is nothing that it would make shorter."""
        return None

    def stepped(
        self, rule: Rule, arrays: Arrays, observed: bool
    ) -> tuple[dict[str, float], dict[str, np.ndarray]] | None:
        """As ``Steady.stepped``; None too where the gradient is wanted, which is another than those of the windows."""
        steps, examples, features = arrays[0].shape
        rule = cast("LearningRule", rule)
        if observed or not self._chains.serves(rule, steps, examples, features):
            return None
        schedule = (Online if rule.online else Windowed)(rule, self._size)
        data = self._data(schedule, arrays)
        walked, odd = self._chains.walked(data.inputs, examples)
        group = self._chains.group(min(self._size, steps), examples, features)
        look = walked, not odd, min(self._size, steps), group, threads()
        if look in self._refused:
            return None
        if not self._meets(rule, examples, features):
            self._begin(rule, examples, features)
        # Parameters are the rule's own arrays between two steps, into which somebody may have written.
        self._updates.take_back()
        # Windows change what is kept, which is for no rule until a step has come to its end.
        self._for, self._now = (), None
        going = _Going(rule, data, walked, not odd, group)
        whole, rest = divmod(steps, self._size)
        went = self._through(going, 0, whole, self._size) and self._through(going, whole, min(rest, 1), rest)
        loss = reduce(np.add, going.losses.astype(going.scores.dtype))
        if not went or not np.isfinite(loss) or not self._updates.still_finite:
            self._refused |= set() if went else {look}
            return None
        spikes = {name: sums[0] for name, sums in self._sums.items()}
        met = {"loss": (loss, reduce(np.add, data.some)), "spikes": spikes}
        totals = schedule.totals(met, going.scores, arrays)
        kept = self._updates.copied()
        held = kept.values, kept.own, kept.memory
        rule.hold(held, rule.steps + len(data.some))
        self._for, self._values = (*held, examples, features), list(kept.values.values())
        return ratios({name: [float(part) for part in totals[name]] for name in rule.model.figures}), {}

    def _data(self, schedule: Online | Windowed, arrays: Arrays) -> Data:
        """What a pass goes through; what follows from the mask alone, which mostly is as it was, is kept."""
        inputs, target, mask = arrays
        steps, known, dtype = len(inputs), self._of_mask, schedule.rule.model.network.dtype
        if known is None or known.steps != steps or not np.array_equal(known.mask, mask):
            data = data_of(schedule.rule, self._numpy, schedule.by_step(arrays), self._size)
            self._of_mask = _OfMask(mask.copy(), steps, data.counted, data.weight, data.some)
            return data
        spread = np.broadcast_to(target, (steps, *target.shape[1:])) if len(target) != steps else target
        given = handed_over(inputs.transpose(1, 0, 2), dtype), handed_over(spread, dtype)
        return Data(*given, known.counted, known.weight, known.some)

    def _meets(self, rule: LearningRule, examples: int, features: int) -> bool:
        """Whether all that is kept is for the rule as it is."""
        now = *rule.held, examples, features
        if len(self._for) != len(now) or self._for[3:] != now[3:] or not all(map(is_, now[:3], self._for)):
            return False
        return all(map(is_, self._for[0].values(), self._values))

    def _begin(self, rule: LearningRule, examples: int, features: int) -> None:
        """Keep what windows change, for the rule as it is."""
        network, (own, memory) = rule.model.network, rule.prepared()
        self._carried = Carried(rule, self._numpy, self._spans, examples, features)
        self._at_rest = [array.copy() for array in self._carried.starts]
        updates = learning(rule, self._numpy, network.values, own, memory, {}, *rule.rates(1))
        assert isinstance(updates, LearningPlainly), "asked only of a rule that updates plainly"
        self._updates = updates
        sizes = {name: network.graph.populations[name].size for name in network.spiking}
        self._sums = {name: np.zeros((1, examples, size), network.dtype) for name, size in sizes.items()}
        self._ready: dict[Any, Ready | None] = {}
        self._backs: dict[Any, np.ndarray] = {}

    def _through(self, going: _Going, base: int, count: int, steps: int) -> bool:
        """So many windows of as many time steps each, from that window on: whether there was a chain for them."""
        carried, opening = self._carried, 0
        if not base:
            carried.begun = False
            for array, rest in zip(carried.starts, self._at_rest, strict=True):
                array[...] = rest
            for sums in self._sums.values():
                sums[...] = 0
        while opening < count:
            ready = self._of(going, steps)
            if ready is None:
                return False
            if ready is not self._now:
                turn(going.rule, self._updates, ready.links, self._backs)
                self._updates.meet(ready.gradients)
                self._now = ready
            ready.put(**going.put, before=carried.begun, after=base + count < len(going.losses))
            told = ready.run((opening, count, base * self._size, base))
            if told is None:
                opening = count
            else:
                # The windows before that one are done with.
                going.walked -= {told.source}
                opening = int(going.reached[0])
            carried.begun |= opening > 0
        return True

    def _of(self, going: _Going, steps: int) -> Ready | None:
        key = going.walked, going.ones and INPUT in going.walked, steps, going.group, threads()
        if key not in self._ready:
            rule, values = going.rule, self._updates.values
            scoring = Scoring(rule.model.loss, "sequence", rule.model.network.task_type)
            given = Given(values, rule.constants_with(values), *going.data[:4], scoring)
            kept = self._carried, self._updates, self._backs, self._sums
            self._ready[key] = ready_chain(rule, given, key[:2], (going.group, steps), *kept, going.put)
        return self._ready[key]


class _Going:
    """A step on its way.

    Args:
        rule, data: whose step it is, and of what.
        walked, ones: what is taken to have few events, and whether those of the input are all 1.
        group: examples of a group.

    Attributes:
        scores: what the loss observes, [time, batch, n_out].
        losses: of every window.
        put: what chains are called with that is another in every step, by argument.
    """

    def __init__(self, rule: LearningRule, data: Data, walked: frozenset[str], ones: bool, group: int) -> None:
        self.rule, self.data, self.walked, self.ones, self.group = rule, data, walked, ones, group
        graph, dtype = rule.model.network.graph, data.weight.dtype
        examples, steps, _ = data.inputs.shape
        self.scores = np.empty((steps, examples, graph.populations[graph.output].size), dtype)
        self.losses, self.reached = np.zeros(len(data.some)), np.zeros(1, np.int64)
        rates, counts = rule.rates(len(data.some))
        self.put = {"inputs": data.inputs, "target": data.target, "counted": data.counted, "weight": data.weight}
        self.put |= {"scores": self.scores, "total": self.losses, "reached": self.reached}
        self.put |= {"rates": rates, "counts": counts}
