"""Updates: what becomes of the gradient of every window of a pass, in host memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.kernels.elementwise import Iterated
from neko_rules.kernels.host import HostBackend
from neko_rules.optimizers import loop_of
from neko_rules.rules.rule import Kept, Own

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule

Memory = dict[str, Parameters]
"""What an optimiser remembers: slot → parameter → array."""


class Updates(ABC):
    """Parameters from window to window.

    Attributes:
        values: the parameters as they are, as NumPy arrays.
        feedback: the rule's own matrices, as NumPy arrays.
    """

    values: dict[str, np.ndarray]
    feedback: dict[str, np.ndarray]

    @abstractmethod
    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
        """Do what is done with the gradient of a window, by its number."""


class Summed(Updates):
    """Gradients of all windows are added up, and the parameters stay as they are.

    Args:
        host: the backend.
        values, feedback: in backend arrays.
    """

    def __init__(self, host: HostBackend, values: Parameters, feedback: Parameters) -> None:
        self.values, self.feedback = _seen(host, values), _seen(host, feedback)
        self.total = {name: np.zeros_like(value) for name, value in self.values.items()}

    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
        """Add them."""
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

    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
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


class _LearningPlainly(Learning):
    """The same for a rule whose updates are its optimiser's and nothing else: by one loop, in memory that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        optimizer, host = self.rule.optimizer, self.host
        loop = loop_of(
            optimizer, type(optimizer)._change, self.rule.model.network.dtype, self.rule.nx.dtype(self.counts), False
        )
        assert loop is not None, "a rule says that it updates plainly only where there is a loop"
        memory = [[host.host(self.memory[slot][name]) for name in self.values] for slot in optimizer.slots]
        self._loop = Iterated(loop, [[*self.values.values()], *memory])
        self._scalars = list(zip(host.host(self.rates), host.host(self.counts), strict=True))

    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
        """Change the parameters by the loop."""
        self.finite = self._loop.step([gradients[name] for name in self.values], *self._scalars[number])
        self.values = dict(zip(self.values, self._loop.rows[0], strict=True))

    def after(self) -> Kept:
        """As for ``Learning``."""
        view = self.host.from_host
        values, *memory = ({n: view(v) for n, v in zip(self.values, row, strict=True)} for row in self._loop.rows)
        return Kept(values, self.own, dict(zip(self.rule.optimizer.slots, memory, strict=True)), self.finite)


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
    kind = _LearningPlainly if rule.updates_plainly else Learning
    return kind(rule, host, values, own, memory, noise, rates, counts)


def _seen(host: HostBackend, arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: host.host(array) for name, array in arrays.items()}
