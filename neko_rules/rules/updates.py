"""Updates: what becomes of the gradient of every window of a pass, in host memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.kernels.elementwise import Iterated
from neko_rules.kernels.host import HostBackend
from neko_rules.optimizers import loop_of

if TYPE_CHECKING:
    from neko_rules.rules.rule import Own, Rule

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


class Learning(Updates):
    """An update after every window.

    Args:
        rule: whose updates they are.
        host: its backend.
        values, own, memory: its parameters, own arrays and the optimiser's memory, in backend arrays.
        noise: what was drawn for every update.
        rates, counts: of every update.
    """

    def __init__(
        self,
        rule: Rule,
        host: HostBackend,
        values: Parameters,
        own: Own,
        memory: Memory,
        noise: Parameters,
        rates: Array,
        counts: Array,
    ) -> None:
        self.rule, self.host, self.noise, self.rates, self.counts = rule, host, noise, rates, counts
        self.values, self.feedback = _seen(host, values), _seen(host, own["feedback"])
        self._backend, self._own, self._memory = values, own, memory
        self._finite: bool | None = None

    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
        """Change the parameters, as the rule does it."""
        found = {name: self.host.from_host(gradients[name]) for name in self._backend}
        noise = {name: each[number] for name, each in self.noise.items()}
        rate, count = self.rates[number], self.counts[number]
        kept = self.rule.applied(self._backend, self._own, self._memory, noise, found, rate, count)
        if kept.own is not self._own:
            self.feedback = _seen(self.host, kept.own["feedback"])
        self._backend, self._own, self._memory, self._finite = kept
        self.values = _seen(self.host, self._backend)

    def after(self) -> tuple[Parameters, Own, Memory, bool | None]:
        """Parameters, own arrays and memory in backend arrays, and whether all that was changed is finite, if known."""
        return self._backend, self._own, self._memory, self._finite


class LearningPlainly(Learning):
    """The same for a rule whose updates are its optimiser's and nothing else: by one loop, in memory that is there."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        optimizer, nx = self.rule.optimizer, self.rule.nx
        dtype = self.rule.model.network.dtype
        loop = loop_of(optimizer, type(optimizer)._change, dtype, nx.dtype(self.counts), False)
        assert loop is not None, "a rule says that it updates plainly only where there is a loop"
        memory = (_seen(self.host, self._memory[slot]).values() for slot in optimizer.slots)
        self._loop = Iterated(loop, [[*self.values.values()], *([*each] for each in memory)])
        self._scalars = list(zip(self.host.host(self.rates), self.host.host(self.counts), strict=True))

    def take(self, number: int, gradients: Mapping[str, np.ndarray]) -> None:
        """Change the parameters by the loop."""
        self._finite = self._loop.step([gradients[name] for name in self.values], *self._scalars[number])
        self.values = dict(zip(self.values, self._loop.rows[0], strict=True))

    def after(self) -> tuple[Parameters, Own, Memory, bool | None]:
        """As for ``Learning``."""
        view = self.host.from_host
        values, *memory = ({n: view(v) for n, v in zip(self.values, row, strict=True)} for row in self._loop.rows)
        return values, self._own, dict(zip(self.rule.optimizer.slots, memory, strict=True)), self._finite


def _seen(host: HostBackend, arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: host.host(array) for name, array in arrays.items()}
