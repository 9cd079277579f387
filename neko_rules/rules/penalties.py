"""Penalties on firing rates while a sequence is under way: the signals that they add, from what has fired.

A chain of windows asks for them between the way forward and the way back of each window: ``rules.linking_window``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neko_rules.backend import Array, Backend, get_backend
from neko_rules.regularizers import OnRates, of_rates

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule

HORIZON = 10_000
"""Time steps over which a firing rate so far is averaged: all of them at first, then with an exponential window."""


class SoFar(NamedTuple):
    """Firing rates so far, in spikes per step.

    Attributes:
        clock: the time steps that they are a mean of, at most ``HORIZON``.
        rates: by population, [batch, neuron].
    """

    clock: Array
    rates: dict[str, Array]

    def after(self, nx: Backend, fired: Mapping[str, Array]) -> SoFar:
        """Those after one more time step, of populations whose spikes are given, [batch, neuron]."""
        clock = nx.minimum(self.clock + 1, float(HORIZON))
        return SoFar(clock, {name: self.rates[name] + (z - self.rates[name]) / clock for name, z in fired.items()})


def on_rates(rule: LearningRule) -> list[OnRates]:
    """The penalties of a rule that are on mean rates."""
    return [penalty for each in rule.regularizers if (penalty := of_rates(each)) is not None]


def slopes(penalties: Sequence[OnRates], rates: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
    """Σ over penalties of ∂E/∂r, [1, 1, neuron], at mean rates of that shape, of the populations that are penalised."""
    found: dict[str, np.ndarray] = {}
    for penalty in penalties:
        for name, slope in penalty.at_rates(get_backend("numpy"), rates, dt).items():
            found[name] = found[name] + slope if name in found else slope
    return found


class Penalties(ABC):
    """The signals of a rule's penalties: on mean rates, and what share time steps have of those on states.

    Args:
        rule: the rule.
        steps: time steps of the whole sequence, of which each has its share of a penalty.

    Attributes:
        sizes: neurons of the populations whose spikes it is told.
        populations: those whose rates are penalised.
    """

    def __init__(self, rule: LearningRule, steps: int) -> None:
        network = rule.model.network
        self._penalties, self._dt, self._steps = on_rates(rule), network.dt, steps
        self.sizes = {name: network.graph.populations[name].size for name in network.spiking}
        at_rest = {name: np.zeros((1, 1, size), network.dtype) for name, size in self.sizes.items()}
        self.populations = tuple(self._slopes(at_rest))

    def _slopes(self, rates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return slopes(self._penalties, rates, self._dt)

    def share(self, examples: int) -> float:
        """What every time step of every example has of a penalty on states."""
        return 1.0 / (self._steps * examples)

    @abstractmethod
    def fill(self, fired: Mapping[str, np.ndarray], pushes: Mapping[str, np.ndarray]) -> None:
        """Write what every neuron's signal has more in the next time steps, the same for all examples.

        Args:
            fired: the spikes of these time steps, [time, batch, neuron], of those in ``sizes``.
            pushes: to be written, [time, neuron], of ``populations``.
        """


class OfWindow(Penalties):
    """Penalties at the mean rates of a window, weighted by its share of the sequence."""

    def fill(self, fired: Mapping[str, np.ndarray], pushes: Mapping[str, np.ndarray]) -> None:
        """As ``Penalties``: the same at all time steps."""
        slopes = self._slopes({name: z.mean(axis=(0, 1), keepdims=True) for name, z in fired.items()})
        for name, into in pushes.items():
            into[:] = slopes[name][0] / (self._steps * fired[name].shape[1])


class OfRatesSoFar(Penalties):
    """Penalties at every time step, at the rates so far in the place of those of the sequence.

    Args:
        rule, steps: as for ``Penalties``.
        before: the rates before the first time step.

    Attributes:
        now: the rates after the last time step that was asked for.
    """

    def __init__(self, rule: LearningRule, steps: int, before: SoFar) -> None:
        super().__init__(rule, steps)
        self.now = before

    def fill(self, fired: Mapping[str, np.ndarray], pushes: Mapping[str, np.ndarray]) -> None:
        """As ``Penalties``."""
        for t in range(len(next(iter(fired.values())))):
            self.now = self.now.after(get_backend("numpy"), {name: z[t] for name, z in fired.items()})
            slopes = self._slopes({name: rate.mean(axis=0)[None, None] for name, rate in self.now.rates.items()})
            for name, into in pushes.items():
                into[t] = slopes[name][0, 0] / (self._steps * fired[name].shape[1])
        # NumPy makes a number of what is to go on as an array.
        self.now = self.now._replace(clock=np.asarray(self.now.clock))
