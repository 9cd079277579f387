"""Fit: choices of credit that have no meaning for a model, or not together, refused with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neko_rules.credit.adjoint import receiving
from neko_rules.credit.feedback import carriers
from neko_rules.credit.recursion import keeps_paths
from neko_rules.errors import IncompatibleError
from neko_rules.layers.forward import Z
from neko_rules.optimizers import AdamW

if TYPE_CHECKING:
    from neko_rules.rules.learning_rule import LearningRule


def check_fit(rule: LearningRule) -> None:
    """Refuse choices that have no meaning for this model."""
    network, credit = rule.model.network, rule.credit
    if (credit.has_feedback or credit.spatial == "sign") and not carriers(network.graph):
        raise IncompatibleError(
            f"{credit.spatial} feedback needs a hidden population below the output",
            received=f"{network!r}",
            works="use symmetric feedback",
        )
    if rule.feedback_decay and credit.spatial != "adaptive":
        raise IncompatibleError("feedback_decay belongs to adaptive feedback", received=f"spatial={credit.spatial!r}")
    if credit.spatial == "adaptive" and isinstance(rule.optimizer, AdamW) and rule.optimizer.weight_decay:
        raise IncompatibleError(
            "adaptive feedback has to decay like the weights it follows, and AdamW decays the weights alone",
            works="use adam with the rule's own weight_decay, which is the same decoupled decay",
        )
    if credit.spatial == "local" and not rule.model.loss.online:
        raise IncompatibleError(
            "a layer's own readout is judged at every time step",
            received=f"the loss {type(rule.model.loss).__name__}, which has no value before the end",
            works="use a loss of single steps, such as categorical_crossentropy",
        )
    if rule.evaluation == "adjoint" and not rule.goes_back:
        raise IncompatibleError(
            "this gradient can only be had forward in time",
            received=f"evaluation='adjoint', trace={credit.trace!r}, learning_signal={credit.learning_signal!r}",
            works="use evaluation='traces'",
        )
    if credit.timed:
        _check_spike_times(rule)
    _check_prompt(rule)
    if credit.trace == "random_projection" and network.learned:
        raise IncompatibleError(
            "a random projection follows the states of the neurons alone, not constants that act on their output",
            received=f"learnable {', '.join(network.learned)}",
            works="use trace='exact', or leave learnable out",
        )
    # A cut that a cell does not allow is refused where it is made, and a memory that cannot be estimated.
    for name in ("jacobians", "decays"):
        getattr(rule, name)


def _check_spike_times(rule: LearningRule) -> None:
    if rule.evaluation == "traces":
        raise IncompatibleError(
            "what changes if a spike comes later is known backward in time",
            received="spike_derivative='spike_time', evaluation='traces'",
            works="use evaluation='adjoint'",
        )
    loss, graph = rule.model.loss, rule.model.network.graph
    if loss.observes == Z and not loss.of_times and graph.cell(graph.output).spiking:
        raise IncompatibleError(
            "how often outputs spike does not change with the times at which they do",
            received=f"spike_derivative='spike_time', the loss {type(loss).__name__} of spiking outputs",
            works="use a loss of first spikes or membranes, outputs that do not spike, or BPTT",
        )


def _check_prompt(rule: LearningRule) -> None:
    """Refuse to hand errors down, within a time step, through neurons whose input acts in a later one."""
    graph, credit = rule.model.network.graph, rule.credit
    for name in graph.order:
        sends = receiving(graph, credit, name, ())
        if sends and not keeps_paths(credit, graph, name) and not graph.cell(name).prompt:
            raise IncompatibleError(
                f"{type(rule).__name__} hands errors down within a time step, in which none comes through late neurons",
                received=f"{name!r} with delays, above {', '.join(map(repr, sorted({below for below, _ in sends})))}",
                works="have delays in the lowest population alone, or use BPTT, or DFA",
            )


def check_schedule(rule: LearningRule) -> None:
    """Refuse to change weights within a sequence where nothing is known before its end."""
    if not rule.online and rule.window is None:
        return
    name = type(rule).__name__
    how = "at every time step" if rule.online == 1 else f"every {rule.online or rule.window} time steps"
    asked = f"{name} changes weights {how}"
    if rule.model.network.weight_bits:
        raise IncompatibleError(
            f"{asked}, and weights that change within a sequence are not rounded",
            received=f"a network with weight_bits={rule.model.network.weight_bits}",
            works="change them at the end of a sequence, or quantise after training",
        )
    if rule.online and rule.window is not None:
        raise IncompatibleError(
            "weights change within a sequence either online or after each window",
            received=f"{name} with online={rule.online}, window={rule.window}",
        )
    if not rule.model.loss.online:
        raise IncompatibleError(
            f"{asked}, which needs a loss of every time step",
            received=f"the loss {type(rule.model.loss).__name__}, which has no value before the end",
            works="use a loss of single steps, such as categorical_crossentropy, or learn at the end",
        )
    if rule.model.network.readout not in ("sequence", "last"):
        raise IncompatibleError(
            f"{asked}, which needs an error at the time step itself",
            received=f"a model with readout={rule.model.network.readout!r}, which is known at the end",
            works="use readout='sequence' or 'last', or a rule that changes weights at the end",
        )
    if rule.online and rule.credit.temporal == "full" and rule.evaluation == "adjoint" and not rule.forward:
        raise IncompatibleError(
            "full temporal credit by the adjoint is known only at the end of a sequence",
            received=f"{name} with online={rule.online}",
            works="use RTRL, SnAp or UORO, which carry it forward, or a window of time steps",
        )
    if rule.window is not None and rule.evaluation == "traces":
        raise IncompatibleError(
            "a window is gone through backward, and traces go on from step to step",
            received=f"{name} with window={rule.window}, evaluation='traces'",
            works=f"use online={rule.window}: traces, and a change of the weights every {rule.window} steps",
        )
