"""Verify: the first steps of a configuration on several backends, compared number by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neko_rules.arguments import integer
from neko_rules.errors import ArgumentError
from neko_rules.experiments.config import load
from neko_rules.experiments.run import Experiment, load_data
from neko_rules.probabilistic.sampling_rule import SamplingRule
from neko_rules.rules import Rule
from neko_rules.testing import Verification, verify_backends
from neko_rules.testing.failures import distinct
from neko_rules.testing.verification import TOLERANCE
from neko_rules.trainers.batches import BatchOrder


def verify(
    config: Path,
    backends: Sequence[str],
    settings: Sequence[str] = (),
    seed: int | None = None,
    *,
    steps: int = 3,
    examples: int | None = None,
    time_steps: int | None = None,
    tolerance: float = TOLERANCE,
    float32: bool = True,
) -> Verification:
    """Make the first steps of a run on every backend and compare losses, gradients and weights.

    Of a rule that draws weights it is the rule whose gradient proposes them that is gone through.

    Args:
        config: a YAML file; its own backend and dtype do not matter.
        backends: names; the first is the reference.
        settings: changes such as ``"rule.mode=random"``.
        seed: in place of the file's.
        steps: training steps.
        examples: per step; the file's batch size by default.
        time_steps: how many of the time steps are gone through; all by default.
        tolerance: largest relative difference in float64.
        float32: whether differences in float32 are reported beside.

    Raises:
        NekoError: anything is wrong with the file, the data or a backend, or the network is dead.
    """
    distinct(backends)  # before the data are loaded
    steps = integer("--steps", steps, at_least=1)
    configuration = load(config, settings, seed)
    size = configuration.train.batch_size if examples is None else integer("--examples", examples, at_least=1)
    reference = Experiment.build(configuration.model_copy(update={"backend": backends[0]}))
    (x, y), _ = load_data(reference)
    batches = BatchOrder(len(x), configuration.train.batch_size).steps
    if time_steps is not None and reference.rule.model.encoder is not None:
        raise ArgumentError(
            "--time-steps cuts data that have time steps, and an encoder makes those of this run",
            received=time_steps,
            works=f"--set encoder.steps={time_steps}",
        )
    if time_steps is not None:
        # The last ones, where tasks with a delay have their targets.
        kept = integer("--time-steps", time_steps, at_least=1)
        y = y[:, -kept:] if y.ndim > 1 and y.shape[1] == x.shape[1] else y
        x = x[:, -kept:]
    order = np.arange(steps * size) % len(x)
    data = [(x[part], y[part]) for part in np.split(order, steps)]

    def make(backend: str, dtype: str) -> Rule:
        rule = Experiment.build(configuration.model_copy(update={"backend": backend, "dtype": dtype})).rule
        rule = rule.gradient if isinstance(rule, SamplingRule) else rule
        if rule.in_epochs:
            rule.pace(batches, x)
        return rule

    return verify_backends(make, data, backends, tolerance=tolerance, float32=float32)
