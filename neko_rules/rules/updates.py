"""Updates: what becomes of the gradient of every window of a pass, in host memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.kernels.elementwise import Iterated
from neko_rules.kernels.host import HostBackend
from neko_rules.rules.kept import Kept, Own

if TYPE_CHECKING:
    from neko_rules.chains.linked import Linked
    from neko_rules.rules.learning_rule import LearningRule

Memory = dict[str, Parameters]
"""What an optimiser remembers: slot → parameter → array."""


class Changes(NamedTuple):
    """What a chain does with the gradient of a window before the next.

    Attributes:
        address: where the machine code that changes the parameters begins; 0 for nothing.
        given: what the chain takes for it, by argument; ``"adding"``, whether gradients of windows add up, among it.
    """

    address: int
    given: dict[str, Any]


class Updates(ABC):
    """Parameters from window to window.

    Attributes:
        values: the parameters as they are, as NumPy arrays.
        feedback: the rule's own matrices, as NumPy arrays.
    """

    values: dict[str, np.ndarray]
    feedback: dict[str, np.ndarray]

    def looped(self, links: Linked) -> bool:
        """Whether a chain can do all there is to do between windows."""
        return False

    def changes(self, links: Linked, gradients: Mapping[str, np.ndarray], looped: bool) -> Changes:
        """What a chain, which writes gradients there, does between windows."""
        nothing = {"slots": _NONE, "table": _NONE[None], "odd": _NONE, "counts": _NONE.astype("float64")}
        nothing |= dict.fromkeys(("rates", "decays", "factors"), _NONE.astype(links.kind.dtype))
        flags = {"updating": False, "adding": False, **dict.fromkeys(links.handed.follows, False)}
        return Changes(0, {**nothing, **flags})

    @abstractmethod
    def take(self, number: int, gradients: Mapping[str, np.ndarray], looped: bool) -> None:
        """Do what is done with the gradient of a window, by its number, if a chain has not done it."""


_NONE = np.zeros(1, np.int64)


class Summed(Updates):
    """Gradients of all windows are added up, and the parameters stay as they are.

    Args:
        host: the backend.
        values, feedback: in backend arrays.
    """

    def __init__(self, host: HostBackend, values: Parameters, feedback: Parameters) -> None:
        self.values, self.feedback = _seen(host, values), _seen(host, feedback)
        self.total = {name: np.zeros_like(value) for name, value in self.values.items()}

    def looped(self, links: Linked) -> bool:
        """A chain adds them up."""
        return True

    def changes(self, links: Linked, gradients: Mapping[str, np.ndarray], looped: bool) -> Changes:
        """It does not clear them."""
        given = super().changes(links, gradients, looped).given
        return Changes(0, given | {"adding": looped})

    def take(self, number: int, gradients: Mapping[str, np.ndarray], looped: bool) -> None:
        """Add them, or their sum."""
        for name, total in self.total.items():
            total += gradients[name]


@dataclass(eq=False)
class Learning(Updates):
    """An update after every window.

    Args:
        rule: whose updates they are.
        host: its backend.
        parameters, own, memory: with its own arrays and the optimiser's memory, all in backend arrays.
        noise: what was drawn for every update.
        rates, counts: of every update.
    """

    rule: LearningRule
    host: HostBackend
    parameters: Parameters
    own: Own
    memory: Memory
    noise: Parameters
    rates: Array
    counts: Array
    finite: bool | None = field(default=None, init=False)
    """Whether all that the last update changed is finite; None where nobody looked."""

    def __post_init__(self) -> None:
        self.values, self.feedback = _seen(self.host, self.parameters), _seen(self.host, self.own["feedback"])

    def take(self, number: int, gradients: Mapping[str, np.ndarray], looped: bool) -> None:
        """Change the parameters, as the rule does it."""
        found = {name: self.host.from_host(gradients[name]) for name in self.parameters}
        noise = {name: each[number] for name, each in self.noise.items()}
        rate, count, before = self.rates[number], self.counts[number], self.own
        kept = self.rule.applied(self.parameters, before, self.memory, noise, found, rate, count)
        self.parameters, self.own, self.memory, self.finite = kept
        self.values = _seen(self.host, self.parameters)
        if self.own is not before:
            self.feedback = _seen(self.host, self.own["feedback"])

    def after(self) -> Kept:
        """Parameters, own arrays and memory in backend arrays, and whether all that was changed is finite, if known."""
        return Kept(self.parameters, self.own, self.memory, self.finite)


class LearningPlainly(Learning):
    """The same for a rule whose update is one loop and nothing else, in memory of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        host, loop = self.host, self.rule.update_loop(self.rule.nx.dtype(self.counts))
        assert loop is not None, "a rule says that it updates plainly only where there is a loop"
        groups = [*(self.memory[slot] for slot in self._slots), *(self.own[key] for key in self.rule.updated)]
        memory = [[host.host(group[name]) for name in self.values] for group in groups]
        rows = [[*self.values.values()], *memory]
        scalars = [host.host(self.rates), host.host(self.counts)]
        self._loop = Iterated(loop, rows, scalars, self.rule.of_each)
        self.values = dict(zip(self.values, self._loop.rows[0], strict=True))
        # What is no synapse, which then is none after an update either.
        names, graph = list(self.values), self.rule.model.network.graph
        placed = [(names.index(connection.weight), connection) for connection in graph.connections]
        self._clear = all(connection.is_clear(row[place]) for row in rows for place, connection in placed)

    def looped(self, links: Linked) -> bool:
        """Where a chain sees the parameters themselves, and the transposed ones follow by being transposed."""
        alone = all(len(several) == 1 for several in links.weights.values())
        # Of a sum of weights, and of signs of weights, it is given what was made of them.
        return alone and self._clear and self.rule.credit.spatial != "sign"

    def changes(self, links: Linked, gradients: Mapping[str, np.ndarray], looped: bool) -> Changes:
        """It calls the loop."""
        if not looped:
            return super().changes(links, gradients, looped)
        self.meet(gradients)
        sizes, table, odd, (rates, counts), (decays, factors) = self._loop.arguments
        given: dict[str, Any] = {"slots": sizes, "table": table, "odd": odd, "rates": rates, "counts": counts}
        given |= {"decays": decays, "factors": factors}
        for follows, (_, back) in links.handed.follows.items():
            connection = links.backs[back][1]
            assert connection is not None, "only what goes back through a connection follows its weight"
            given[follows] = bool(connection.delay) or connection.weight not in self.feedback
        return Changes(self._loop.address(), {**given, "updating": True, "adding": False})

    def meet(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Say where a chain that was told of ``changes`` writes gradients."""
        self._loop.meet([gradients[name] for name in self.values])

    def take_rates(self, rate: Any, count: Any) -> None:
        """The learning rate and the number of the one update that is next."""
        rates, counts = self._loop.arguments[3]
        rates[0], counts[0] = rate, count

    @property
    def changing(self) -> list[np.ndarray]:
        """All that an update changes."""
        return [each for row in self._loop.rows for each in row]

    @property
    def still_finite(self) -> bool:
        """Whether all that a chain's last update changed is."""
        return self._loop.finite

    def take(self, number: int, gradients: Mapping[str, np.ndarray], looped: bool) -> None:
        """Change the parameters by the loop."""
        if not looped:
            self._loop.step(number, [gradients[name] for name in self.values])
        self.finite = self._loop.finite

    def after(self) -> Kept:
        """As for ``Learning``."""
        return self._kept(self._loop.rows)

    def copied(self) -> Kept:
        """The same, which stays as it is when the next update is made."""
        return self._kept(self._loop.copied())

    def take_back(self) -> None:
        """Go on from what ``copied`` gave last, as it is now."""
        self._loop.take_back()

    def _kept(self, rows: Sequence[Sequence[np.ndarray]]) -> Kept:
        view = self.host.from_host
        values, *others = ({n: view(v) for n, v in zip(self.values, row, strict=True)} for row in rows)
        memory, own = others[: len(self._slots)], others[len(self._slots) :]
        updated = self.own | dict(zip(self.rule.updated, own, strict=True))
        return Kept(values, updated, dict(zip(self._slots, memory, strict=True)), self.finite)

    @property
    def _slots(self) -> tuple[str, ...]:
        return self.rule.optimizer.slots


def learning(
    rule: LearningRule,
    host: HostBackend,
    values: Parameters,
    own: Own,
    memory: Memory,
    noise: Parameters,
    rates: Array,
    counts: Array,
) -> Learning:
    """An update after every window, as ``Learning``, by the shortest way."""
    kind = LearningPlainly if rule.updates_plainly else Learning
    return kind(rule, host, values, own, memory, noise, rates, counts)


def _seen(host: HostBackend, arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: host.host(array) for name, array in arrays.items()}
