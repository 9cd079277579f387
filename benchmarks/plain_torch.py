"""Plain PyTorch: the step-by-step loop with autograd that one would write by hand, as the yardstick."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch


class SurrogateSpike(torch.autograd.Function):  # type: ignore[misc]
    """Heaviside forward, triangular surrogate backward."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: torch.Tensor) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        return g * 0.3 * torch.clamp(1 - u.abs(), min=0)


class PlainALIF(torch.nn.Module):  # type: ignore[misc]
    """Recurrent ALIF neurons with a leaky readout, stepped in a Python loop."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input = torch.nn.Linear(inputs, hidden)
        self.recurrent = torch.nn.Parameter(torch.randn(hidden, hidden) / math.sqrt(hidden))
        self.readout = torch.nn.Linear(hidden, outputs)
        self.register_buffer("mask", 1 - torch.eye(hidden))
        self.alpha, self.rho, self.kappa, self.beta = math.exp(-1 / 20), math.exp(-1 / 200), math.exp(-1 / 20), 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        currents = self.input(x).unbind(0)
        recurrent = self.recurrent * self.mask
        v = a = z = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            a = self.rho * a + z
            v = self.alpha * v + current + z @ recurrent - z.detach()
            z = SurrogateSpike.apply(v - 1 - self.beta * a)
            spikes.append(z)
        y = torch.zeros(())
        outputs = []
        for current in self.readout(torch.stack(spikes)).unbind(0):
            y = self.kappa * y + current
            outputs.append(y)
        return torch.stack(outputs)


def training_step(x: np.ndarray, y: np.ndarray, hidden: int, outputs: int) -> Callable[[], object]:
    """A closure that makes one training step with Adam on a batch [batch, time, feature]."""
    torch.manual_seed(0)
    model = PlainALIF(x.shape[2], hidden, outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    labels = torch.as_tensor(y)

    def step() -> float:
        inputs = torch.as_tensor(np.ascontiguousarray(x.transpose(1, 0, 2)))
        logits = model(inputs)
        steps = logits.shape[0]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
