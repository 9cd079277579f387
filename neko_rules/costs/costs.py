"""Costs of a rule: operations of its forward pass, its learning and its updates, what it keeps, and what it writes.

All are those of the rule's equations as the engine has them in plain operations, counted while they are done on data:
deferred rules go backward in time, online ones carry their traces forward. What compiled loops spare on this machine
is another matter, and measured in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import trees
from neko_rules.backend import Parameters
from neko_rules.costs.counting import Count, CountingBackend
from neko_rules.errors import IncompatibleError
from neko_rules.layers.forward import Z
from neko_rules.layers.network import Network
from neko_rules.rules import LearningRule, Rule
from neko_rules.rules.kept import Kept

MULTIPLICATION, ADDITION = 3.7e-12, 0.9e-12
"""Joules of an operation in 32 bits at 45 nm: M. Horowitz, Computing's energy problem, ISSCC 2014."""


@dataclass(frozen=True)
class Costs:
    """What a rule asks for, of an example and a time step unless it says otherwise.

    Args:
        rule: which.
        forward: operations of one forward pass.
        learning: what comes to it until there is a gradient: losses, errors, traces, further passes.
        update: what makes of gradients weight changes.
        kept: bytes for an example that are kept from one time step to the next for learning alone; None of a rule that
            is none on the axes of credit.
        grows: whether there are as many for every time step until the sequence ends.
        parameters: how many numbers are learned; entries that are no synapse are none.
        writes: how often a parameter was changed, in a sequence.
        spikes: the share of neurons and time steps with a spike.
    """

    rule: str
    forward: Count
    learning: Count
    update: Count
    kept: int | None
    grows: bool
    parameters: int
    writes: int
    spikes: float

    @property
    def energy(self) -> float:
        """Joules of the arithmetic at 45 nm, for an example and a time step; moving numbers to it takes more."""
        every = self.forward + self.learning + self.update
        return MULTIPLICATION * every.multiplications + ADDITION * (every.additions + every.others)


def costs(rule: Rule, x: Any, y: Any) -> Costs:
    """Count what a step of a rule takes; the rule and its model stay as they are.

    Args:
        rule: any, of a network on any backend.
        x, y: a batch, as ``rule.step`` takes it.

    Raises:
        IncompatibleError: the model is one of a library's own, whose operations are not seen.

    Example:
        >>> from neko_rules import BPTT, LIF, EProp, Evaluator
        >>> x = (np.random.default_rng(0).random((4, 20, 30)) < 0.1).astype(np.float32)
        >>> model = Evaluator(LIF(16, 2, seed=1))
        >>> deferred, online = (costs(rule, x, [0, 1, 0, 1]) for rule in (BPTT(model), EProp(model, online=True)))
        >>> deferred.grows, online.grows, online.writes > 5 * deferred.writes
        (True, False, True)
    """
    if not isinstance(rule.model.network, Network):
        raise IncompatibleError(
            "the operations of a library's own model are not seen", received=rule.model.network, works="count a Network"
        )
    nx = CountingBackend()
    twin, x = _twin(rule, nx, x, y)
    inputs = twin.model.batch(x, y, 0)[0]
    network, steps, examples = twin.model.network, *inputs.shape[:2]
    with nx.counting() as forward:
        trajectory = twin.model.trajectory(x)
    updating = _Apart(nx, twin.applied)
    vars(twin)["applied"] = updating
    with nx.counting() as learning:
        twin.step(x, y)
    parameters, spiking = network.size, [trajectory.z(name) for name in network.spiking]
    kept, grows = _kept(twin, steps, inputs.shape[2])
    return Costs(
        repr(rule),
        forward * (1 / (steps * examples)),
        (learning - forward) * (1 / (steps * examples)),
        updating.count * (1 / (steps * examples)),
        kept,
        grows,
        parameters,
        updating.writes,
        float(np.mean([np.mean(z) for z in spiking])) if spiking else math.nan,
    )


class _Apart:
    """A rule's updates, whose operations have a count of their own, and how many parameters they change."""

    def __init__(self, nx: CountingBackend, function: Callable[..., Kept]) -> None:
        self._nx, self._function, self.count, self.writes = nx, function, Count(), 0

    def __call__(self, values: Parameters, *arguments: Any) -> Kept:
        with self._nx.counting() as found:
            kept = self._function(values, *arguments)
        self.count = self.count + found
        changed = (np.asarray(kept.values[name]) != np.asarray(value) for name, value in values.items())
        self.writes += sum(int(np.count_nonzero(each)) for each in changed)
        return kept


def _twin(rule: Rule, nx: CountingBackend, x: Any, y: Any) -> tuple[Rule, Any]:
    """The same rule and model on another backend, with nothing to be measured beside, and what it is given."""
    twin = rule.clone()
    twin.model.network = rule.model.network.on(nx)
    twin.model.metrics = ()
    if twin.model.encoder is not None:
        x = np.moveaxis(twin.model.batch(x, y, rule.steps)[0], 0, 1)
        twin.model.encoder = None
    if isinstance(twin, LearningRule) and twin.online:
        twin.evaluation = "traces"
    return twin, x


def _kept(rule: Rule, steps: int, inputs: int) -> tuple[int | None, bool]:
    """Bytes of an example for learning between two time steps, and whether there are as many for every one of them."""
    rule = getattr(rule, "gradient", rule)
    if not isinstance(rule, LearningRule):
        return None, False
    if rule.online or rule.evaluation == "traces":
        return sum(np.asarray(each).nbytes for each in trees.leaves(rule.stepwise.start(1))), False
    network, numbers = rule.model.network, inputs
    for name, jacobians in rule.jacobians.items():
        asked = {key.removeprefix("previous_") for key in (jacobians.with_slope or jacobians).arguments}
        numbers += len({*asked, Z} - {*network.constants[name]}) * network.graph.populations[name].size
    size = np.dtype(network.dtype).itemsize
    return numbers * size * (1 if rule.window is None else min(steps, rule.window)), rule.window is None
