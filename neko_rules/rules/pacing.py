"""Pacing: schedules of a rule that are in epochs, made into schedules in updates, of which an epoch has so many."""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules.inputs import Inputs

SCHEDULED = ("optimizer", "delta")
"""What of a rule may go by a schedule: its learning rate, and the weight change of a pulse."""


def in_epochs(rule: Any) -> bool:
    """Whether a schedule counts epochs, so that no step can be made before ``pace`` has said how long one is."""
    return any(getattr(getattr(rule, name, None), "in_epochs", False) for name in SCHEDULED)


def pace(rule: Any, batches: int, x: np.ndarray) -> None:
    """Let schedules in epochs count updates from now on.

    Args:
        rule: a rule, which is changed.
        batches: of an epoch.
        x: inputs as a step is given them, whose time steps say how many updates it makes.

    Example: two updates of every sequence, of which an epoch has 50.

        >>> from neko_rules import LIF, EProp, Evaluator
        >>> halved = {"name": "step_decay", "initial": 0.1, "rate": 0.5, "steps": 3, "unit": "epochs"}
        >>> rule = EProp(Evaluator(LIF(4, 2)), online=10, optimizer={"name": "sgd", "learning_rate": halved})
        >>> pace(rule, 50, np.zeros((8, 20, 3)))
        >>> rule.optimizer.learning_rate
        StepDecay(initial=0.1, rate=0.5, steps=300)
    """
    per_epoch = batches * rule._updates_in(Inputs(rule.model.network, rule.model.encoder).steps(x))
    for name in SCHEDULED:
        given: Any = getattr(rule, name, None)
        if getattr(given, "in_epochs", False):
            setattr(rule, name, given.in_updates(per_epoch))
