"""Fit: losses and metrics that have no meaning for a model, refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.layers.forward import Z
from neko_rules.losses import LOSSES, Loss
from neko_rules.metrics import Metric, TopK, resolve_metrics

if TYPE_CHECKING:
    from neko_rules.layers.network import Network

_TASK_OF_TARGETS = {"classes": "classification", "labels": "classification", "values": None}


def loss_of(network: Network, given: str | Mapping[str, Any] | Loss) -> Loss:
    """A loss that has a meaning for a model.

    Raises:
        IncompatibleError: it is for other targets, for outputs of another kind, or for another way to read them out.
    """
    loss = LOSSES.resolve(given)
    name, task, cell = type(loss).__name__, network.task_type, network.graph.cell(network.graph.output)
    needed = _TASK_OF_TARGETS[loss.target_kind]
    if needed not in (None, task):
        raise IncompatibleError(
            f"the loss {name} is for {needed}",
            received=f"a model with task_type={task!r}",
            works="use mean_squared_error, mean_absolute_error or poisson, or task_type='classification'",
        )
    if network.sized:
        loss.number_of_scores(network.outputs)
    if loss.of_spikes and not cell.spiking:
        raise IncompatibleError(
            f"the loss {name} needs an output population that spikes",
            received=f"{type(cell).__name__} as output",
            works="give output_cell='lif' to the model, or use a loss of membranes such as ce_max_membrane",
        )
    if loss.observes not in (Z, *cell.state_names()):
        raise IncompatibleError(
            f"the loss {name} needs an output population with the state {loss.observes!r}",
            received=f"{type(cell).__name__} as output, with {', '.join(cell.state_names()) or 'no state'}",
        )
    if not loss.online and network.readout != "sequence":
        raise IncompatibleError(
            f"the loss {name} reads the whole sequence itself",
            received=f"a model with readout={network.readout!r}",
            works="leave readout at 'sequence'",
        )
    return loss


def metrics_of(network: Network, loss: Loss, given: Sequence[str | Mapping[str, Any] | Metric]) -> tuple[Metric, ...]:
    """Metrics that have a meaning for a model and its loss.

    Raises:
        ArgumentError: one is given twice.
        IncompatibleError: one is for other targets or outputs, or for neurons that spike.
    """
    found = resolve_metrics(given)
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ArgumentError("each metric can be given once", received=names)
    for metric in found:
        if isinstance(metric, TopK) and network.sized:
            _check_top_k(metric, loss.number_of_scores(network.outputs))
        if metric.requires == "classes" and network.task_type != "classification":
            raise IncompatibleError(
                f"the metric {metric.name} is for classification",
                received=f"a model with task_type={network.task_type!r}",
            )
        if metric.requires == "spikes" and not network.spiking:
            raise IncompatibleError(
                f"the metric {metric.name} needs spiking neurons",
                received=f"{network!r}",
                works="use ALIF or LIF, or leave the metric out",
            )
    return found


def _check_top_k(metric: TopK, scores: int) -> None:
    if metric.k > scores:
        raise IncompatibleError(
            "top-k accuracy needs a k of at most the number of outputs", received=f"k = {metric.k} for {scores} outputs"
        )
