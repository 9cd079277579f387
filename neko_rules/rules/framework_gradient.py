"""FrameworkGradient: the gradient of a wrapped model, by the automatic differentiation of its own library.

It is what ``BPTT(model)`` makes for a TorchModel, KerasModel or JaxModel; for the networks of this package BPTT is the
adjoint recursion instead, which gives the same number.
"""

from __future__ import annotations

from typing import ClassVar

from neko_rules.backend import Parameters
from neko_rules.evaluator import Judgement
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.rule import Rule


class FrameworkGradient(Rule):
    """Backpropagation through a wrapped model, by its library.

    Args:
        model: an Evaluator of a wrapped model.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed: as for Rule.

    Example:
        >>> import torch
        >>> from neko_rules import BPTT, Evaluator, TorchModel
        >>> BPTT(Evaluator(TorchModel(torch.nn.Linear(3, 2))))
        FrameworkGradient(TorchModel(Linear, 8 parameters, float32))
    """

    requires: ClassVar[str] = "loss_gradient"

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        return self.model.network.loss_gradient(self.model, values, *batch)  # type: ignore[attr-defined]
