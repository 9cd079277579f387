"""Force: the one place where a learning rule becomes the gradient that a sampler follows.

A rule gives the gradient of the mean loss of some examples; a posterior needs that of the sum over all. Any rule that
is a fixed function of weights and data will do, right or wrong: leapfrog is reversible under any force, and the accept
step looks at the energy alone. What is random, or changes while a chain runs, is no function of the weights, and would
break reversibility without a trace; it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.chains.running import often
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator
from neko_rules.replaced import forget_if_replaced
from neko_rules.rules import BPTT, RULES, Rule

Chunk = tuple[Array, Array, Array]
"""Time-major inputs, dense targets and mask, as backend arrays."""

Sums = tuple[float, float]
"""Σ of the losses of all supervised outputs, and how many there were."""

Force = Callable[[Parameters, Chunk], tuple[Sums, dict[str, np.ndarray]]]
"""Weights and examples to the loss' sums and the gradient of the summed loss by parameter."""


def resolve(gradient: Any, model: Evaluator) -> Rule:
    """The rule that drives a sampler: a rule of this model, its name, a mapping of its arguments; BPTT by default.

    Raises:
        IncompatibleError: the rule is of another model, random, or changes while sampling.
    """
    if gradient is None:
        return BPTT(model)
    if isinstance(gradient, str):
        gradient = {"name": gradient}
    if isinstance(gradient, Mapping):
        given = {key: value for key, value in gradient.items() if key != "name"}
        rule = RULES.create(str(gradient.get("name", "")), given, model)
    else:
        rule = gradient
    if not isinstance(rule, Rule):
        raise IncompatibleError(
            "gradient must be a learning rule", received=gradient, works="for example gradient=EProp(model)"
        )
    _check_fixed(rule)
    if rule.model is not model:
        raise IncompatibleError(
            "the rule that gives the gradient must be a rule of the posterior's model",
            received=rule,
            works="make both from one Evaluator",
        )
    return rule


def _check_fixed(rule: Rule) -> None:
    """Refuse a rule whose gradient is not a fixed function of the weights."""
    credit = getattr(rule, "credit", None)
    reason = ""
    spatial = getattr(credit, "spatial", "")
    if spatial in ("adaptive", "mirror"):
        reason = f"{spatial} feedback is learned from every update, so the force would change while sampling"
    elif getattr(rule, "online", 0):
        reason = "an online rule changes the weights within the sequence that it is to differentiate"
    elif rule._draw(1, 1):
        reason = "a random gradient is another one on the way back, so no step could be undone"
    if reason:
        raise IncompatibleError(
            f"a sampler needs a force that is a fixed function of the weights: {reason}",
            received=rule,
            works="use a deterministic rule, such as BPTT(model) or EProp(model, mode='random')",
        )


def force_of(rule: Rule) -> Force:
    """The force of a rule; all that samplers know of a rule's inside is here."""
    nx, model = rule.nx, rule.model
    own, _ = rule.prepared()
    forget_if_replaced(rule)

    def force(values: Parameters, chunk: Chunk) -> tuple[Sums, dict[str, np.ndarray]]:
        with often():
            totals, found = rule._compiled_evaluation_gradients(values, own, {}, chunk)
        total, count = (float(nx.to_numpy(part)) for part in totals["loss"])
        # The rule's gradient is of the mean over the supervised outputs; of the sum it is count times that.
        return (total, count), {name: count * nx.to_numpy(found[name]) for name in model.network.values}

    return force


def check_repeatable(force: Force, values: Parameters, chunk: Chunk) -> None:
    """Ask twice, and refuse a force that gives two answers, whatever its rule says of itself."""
    (_, first), (_, second) = force(values, chunk), force(values, chunk)
    for name, gradient in first.items():
        if not np.array_equal(gradient, second[name], equal_nan=True):
            raise IncompatibleError(
                "a sampler needs a force that is a fixed function of the weights",
                received=f"two different gradients of {name} at the same weights",
                works="use a deterministic rule, such as BPTT(model) or EProp(model, mode='random')",
            )


def loss_sums(model: Evaluator, values: Parameters, chunk: Chunk) -> Sums:
    """The loss of the hard network alone: its sum over the supervised outputs, and how many there were."""
    with often():
        return model.totals(values, chunk)["loss"]
