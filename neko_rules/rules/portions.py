"""Portions: a batch gone through a few examples at a time, so that their histories stay in the processor's cache.

A loss is a mean over supervised steps and examples, and so is its gradient: with n_p of the n steps that count in
portion p,

    dE/dθ = Σ_p (n_p / n) dE_p/dθ

A forward pass fills arrays of [time, batch, neuron] that the way back reads again. Of a large batch they fit no cache,
and both passes wait for the memory, not for the processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.backend import Parameters
from neko_rules.chains.running import numbers_of_a_step
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.kernels.host import host_of
from neko_rules.kernels.writer import TOGETHER
from neko_rules.rules.kept import Batch, Own
from neko_rules.threads import threads

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule

CACHED = 64 << 20
"""Bytes of histories in a portion. Measured on a processor with 32 MB of third-level cache: between half of this and
twice as much a step takes the same time; with everything at once a tenth more on NumPy, a quarter on PyTorch."""


def examples_at_once(model: Evaluator, steps: int, examples: int) -> int:
    """How many examples of a batch to take at a time: all of them where the histories are small anyway.

    Example:
        >>> from neko_rules import LIF
        >>> examples_at_once(Evaluator(LIF(16, 4, inputs=8)), steps=100, examples=64)
        64
    """
    network = model.network
    graph = network.graph
    if host_of(network.nx) is None or any(len(component) > 1 for component in graph.components):
        return examples
    if any(connection.converters is not None for connection in graph.connections):
        return examples  # the range of a converter may be that of the whole batch
    room = CACHED // (steps * numbers_of_a_step(network.graph) * np.dtype(network.dtype).itemsize)
    if examples <= room:
        return examples
    size = max(1, room // (TOGETHER * threads())) * TOGETHER * threads()
    portions = math.ceil(examples / size)
    return min(examples, math.ceil(examples / portions / TOGETHER) * TOGETHER)


def judged_by_portions(
    rule: LearningRule, values: Parameters, own: Own, batch: Batch, size: int
) -> tuple[Judgement, Parameters]:
    """What ``LearningRule`` finds for a batch, from portions of it.

    Args:
        rule: whose signals are those of the loss.
        values, own, batch: as for the rule.
        size: examples in a portion.
    """
    nx, model = rule.nx, rule.model
    inputs, target, mask = batch
    steps, examples, _ = inputs.shape
    count = nx.maximum(model.counted(mask, steps), 1.0)
    found: Parameters = {}
    totals: dict[str, tuple[Any, Any]] = {}
    at = 0
    while at < examples:
        here = slice(at, min(examples, at + size))
        part = (inputs[:, here], target[:, here], mask[:, here])
        share = model.counted(part[2], steps) / count
        judgement, gradients, trajectory = rule.judged_part(values, own, part, share)
        found = {name: found[name] + each for name, each in gradients.items()} if found else gradients
        for name, pair in judgement.totals.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + pair[0], before[1] + pair[1])
        at = here.stop
        if not rule.model.network.graph.senders <= set(trajectory.events):
            size = examples  # no compiled loop: a step of Python for every time step, which a portion only repeats
    total, number = totals["loss"]
    return Judgement(total / nx.maximum(number, 1.0), {}, totals), found
