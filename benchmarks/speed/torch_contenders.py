"""Contenders on PyTorch: the loop that one writes by hand, plain and compiled, and the libraries built on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from neko_rules.experiments import workloads
from neko_rules.experiments.workloads import ALPHA, BETA, KAPPA, RHO, Workload

Tensor = Any
"""A torch.Tensor."""

Forward = Callable[[Tensor], tuple[Tensor, list[Tensor]]]


class TorchContender:
    """A model stepped by Adam on the workload's batch.

    Args:
        workload: the task.
        threads: of PyTorch.
        model: what holds the parameters; called with [time, batch, feature], it returns logits [time, batch, class] and
            the spikes of its hidden layers.
    """

    def __init__(self, workload: Workload, threads: int, model: Any) -> None:
        torch.set_num_threads(threads)
        self.x, y = workload.data()
        self.labels = torch.as_tensor(y).repeat(workload.steps)
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=workloads.LEARNING_RATE, fused=True)

    def step(self) -> float:
        logits, _ = self.model(torch.as_tensor(self.x).transpose(0, 1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def rates(self) -> list[float]:
        with torch.no_grad():
            _, spikes = self.model(torch.as_tensor(self.x[:8]).transpose(0, 1))
        return [float(each.mean()) for each in spikes]


class Spike(torch.autograd.Function):  # type: ignore[misc]
    """Heaviside forward; a subclass writes what stands for the derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)


class Triangular(Spike):
    """γ max(0, 1 - |u|) backward."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return g * workloads.TRIANGULAR_PEAK * torch.clamp(1 - u.abs(), min=0)


class FastSigmoid(Spike):
    """1 / (1 + s|u|)² backward."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return g / (1 + workloads.FAST_SIGMOID_SLOPE * u.abs()) ** 2


def linear(weight: np.ndarray, scale: float = 1.0) -> Any:
    """A linear layer with the workload's weights [n_pre, n_post] and no bias at first."""
    made = torch.nn.Linear(*weight.shape)
    with torch.no_grad():
        made.weight.copy_(scale * torch.as_tensor(weight.T))
        made.bias.zero_()
    return made


def leaky(currents: Tensor) -> Tensor:
    """The leaky readout: y_t = κ y_{t-1} + current_t over [time, batch, class]."""
    y = torch.zeros_like(currents[0])
    outputs = []
    # Unbound once: indexing in the loop would make a gradient as long as the sequence in every step.
    for current in currents.unbind(0):
        y = KAPPA * y + current
        outputs.append(y)
    return torch.stack(outputs)


# By hand.


class PlainLoop(torch.nn.Module):  # type: ignore[misc]
    """LIF or ALIF neurons stepped in a Python loop; products of inputs over all time steps at once.

    Args:
        workload: the task.
        chunk: steps in a function that is compiled; 0: nothing is.
        detached: whether recurrent spikes carry no gradient, which makes automatic differentiation e-prop.
    """

    def __init__(self, workload: Workload, chunk: int, detached: bool) -> None:
        super().__init__()
        given = workload.weights()
        count = range(len(workload.hidden))
        self.inputs = torch.nn.ModuleList([linear(given[f"input{place}"]) for place in count])
        self.recurrent = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.as_tensor(given[f"recurrent{place}"])) for place in count if workload.recurrent]
        )
        self.readout = linear(given["readout"])
        spikes: dict[str, Any] = {"triangular": Triangular, "fast_sigmoid": FastSigmoid}
        self.spike = spikes[workload.surrogate].apply
        self.beta = BETA if workload.cell == "alif" else 0.0
        self.detached = detached
        self.chunk = chunk or workload.steps
        self.stepped = torch.compile(self.unrolled, dynamic=False) if chunk else self.unrolled

    def unrolled(
        self, currents: Sequence[Tensor], v: Tensor, a: Tensor, z: Tensor, recurrent: Tensor | None
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """The neurons over some steps."""
        spikes = []
        for current in currents:
            drive = ALPHA * v + current - z.detach()
            if recurrent is not None:
                drive = drive + (z.detach() if self.detached else z) @ recurrent
            v = drive
            u = v - 1
            if self.beta:
                a = RHO * a + z
                u = u - self.beta * a
            z = self.spike(u)
            spikes.append(z)
        return spikes, v, a, z

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        below, found = x, []
        for place, layer in enumerate(self.inputs):
            currents = layer(below).unbind(0)
            recurrent = self.recurrent[place] if len(self.recurrent) else None
            v = a = z = torch.zeros_like(currents[0])
            spikes: list[Tensor] = []
            for start in range(0, len(currents), self.chunk):
                more, v, a, z = self.stepped(currents[start : start + self.chunk], v, a, z, recurrent)
                spikes.extend(more)
            below = torch.stack(spikes)
            found.append(below)
        return leaky(self.readout(below)), found


def plain(workload: Workload, threads: int, chunk: int = 0, detached: bool = False) -> TorchContender:
    """A loop by hand with automatic differentiation."""
    return TorchContender(workload, threads, PlainLoop(workload, chunk, detached))


# Libraries.


class Assembled(torch.nn.Module):  # type: ignore[misc]
    """A forward pass beside the modules whose parameters it uses."""

    def __init__(self, parts: Sequence[Any], run: Forward) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)
        self.run = run

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.run(x)


def snntorch(workload: Workload, threads: int) -> TorchContender:
    """snnTorch: Leaky or RLeaky in a loop over time, as its tutorials have it, linear layers over all steps at once."""
    import snntorch as snn
    from snntorch import surrogate

    given = workload.weights()
    gradient = surrogate.fast_sigmoid(slope=workloads.FAST_SIGMOID_SLOPE)
    neurons: list[Any] = []
    for place, size in enumerate(workload.hidden):
        if workload.recurrent:
            neuron = snn.RLeaky(beta=ALPHA, linear_features=size, spike_grad=gradient)
            with torch.no_grad():
                neuron.recurrent.weight.copy_(torch.as_tensor(given[f"recurrent{place}"].T))
                neuron.recurrent.bias.zero_()
        else:
            neuron = snn.Leaky(beta=ALPHA, spike_grad=gradient)
        neurons.append(neuron)
    inputs = [linear(given[f"input{place}"]) for place in range(len(neurons))]
    readout = linear(given["readout"])
    output = snn.Leaky(beta=KAPPA, reset_mechanism="none")

    def run(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        below, found = x, []
        for layer, neuron in zip(inputs, neurons, strict=True):
            currents = layer(below).unbind(0)
            spike = membrane = torch.zeros_like(currents[0])
            spikes = []
            for current in currents:
                if workload.recurrent:
                    spike, membrane = neuron(current, spike, membrane)
                else:
                    spike, membrane = neuron(current, membrane)
                spikes.append(spike)
            below = torch.stack(spikes)
            found.append(below)
        currents = readout(below).unbind(0)
        membrane = torch.zeros_like(currents[0])
        outputs = []
        for current in currents:
            _, membrane = output(current, membrane)
            outputs.append(membrane)
        return torch.stack(outputs), found

    return TorchContender(workload, threads, Assembled([*inputs, *neurons, readout, output], run))


def spikingjelly(workload: Workload, threads: int) -> TorchContender:
    """SpikingJelly: its multi-step mode, which takes a whole sequence through one layer after the other.

    Recurrent layers are stepped in a loop: its LinearRecurrentContainer would multiply the input's current once more.
    """
    from spikingjelly.activation_based import functional, neuron, surrogate

    given = workload.weights()
    count = range(len(workload.hidden))
    neurons = [
        neuron.LIFNode(
            tau=1 / (1 - ALPHA),
            decay_input=False,
            v_reset=None,
            detach_reset=True,
            surrogate_function=surrogate.SoftSign(alpha=workloads.FAST_SIGMOID_SLOPE),
            step_mode="s" if workload.recurrent else "m",
        )
        for _ in count
    ]
    inputs = [linear(given[f"input{place}"]) for place in count]
    recurrent = [linear(given[f"recurrent{place}"]) for place in count if workload.recurrent]
    readout = linear(given["readout"])

    def run(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        below, found = x, []
        for place, made in enumerate(neurons):
            functional.reset_net(made)
            currents = inputs[place](below)
            if workload.recurrent:
                spike, spikes = torch.zeros_like(currents[0]), []
                for current in currents.unbind(0):
                    spike = made(current + recurrent[place](spike))
                    spikes.append(spike)
                below = torch.stack(spikes)
            else:
                below = made(currents)
            found.append(below)
        return leaky(readout(below)), found

    return TorchContender(workload, threads, Assembled([*inputs, *recurrent, *neurons, readout], run))


def norse(workload: Workload, threads: int) -> TorchContender:
    """Norse: LSNNRecurrent or LIFRecurrent over a sequence, or LIFBoxCells in a loop; its neurons reset to zero."""
    import norse.torch as library

    given = workload.weights()
    surrogate = {
        "triangular": {"method": "triangle", "alpha": workloads.TRIANGULAR_PEAK},
        "fast_sigmoid": {"method": "super", "alpha": workloads.FAST_SIGMOID_SLOPE},
    }[workload.surrogate]
    rate = torch.as_tensor(1 / workloads.TAU_MEMBRANE)
    leak = workloads.TAU_MEMBRANE / workloads.STEP  # Its input moves the membrane by dt/τ.
    readout = linear(given["readout"], leak)
    output = library.LIBoxCell(library.LIBoxParameters(tau_mem_inv=torch.as_tensor(1 / workloads.TAU_READOUT)))
    hidden: list[Any] = []
    layers: list[Any] = []
    if workload.recurrent:
        common = {"tau_mem_inv": rate, **surrogate}
        if workload.cell == "alif":
            adaptation = torch.as_tensor(1 / workloads.TAU_ADAPTATION)
            p: Any = library.LSNNParameters(tau_adapt_inv=adaptation, beta=torch.as_tensor(BETA), **common)
            made: Any = library.LSNNRecurrent(workload.inputs, workload.hidden[0], p)
        else:
            made = library.LIFRecurrent(workload.inputs, workload.hidden[0], p=library.LIFParameters(**common))
        hidden.append(made)
        weights = [made.input_weights]
        with torch.no_grad():
            made.recurrent_weights.copy_(torch.as_tensor(given["recurrent0"].T))
    else:
        hidden = [library.LIFBoxCell(library.LIFBoxParameters(tau_mem_inv=rate, **surrogate)) for _ in workload.hidden]
        layers = [linear(given[f"input{place}"], leak) for place in range(len(hidden))]
        weights = [layer.weight for layer in layers]

    def run(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        below, found = x, []
        for place, neuron in enumerate(hidden):
            if workload.recurrent:
                below, _ = neuron(below)
            else:
                state, spikes = None, []
                for current in layers[place](below).unbind(0):
                    spike, state = neuron(current, state)
                    spikes.append(spike)
                below = torch.stack(spikes)
            found.append(below)
        state, outputs = None, []
        for current in readout(below).unbind(0):
            membrane, state = output(current, state)
            outputs.append(membrane)
        return torch.stack(outputs), found

    made_contender = TorchContender(workload, threads, Assembled([*hidden, *layers, readout, output], run))
    for place, weight in enumerate(weights):
        first = torch.as_tensor(given[f"input{place}"].T)

        def rate_at(scale: float, place: int = place, weight: Tensor = weight, first: Tensor = first) -> float:
            with torch.no_grad():
                weight.copy_(scale * first)
            return made_contender.rates()[place]

        # Another neuron needs another gain to spike as often; the last trial may be to either side of the result.
        rate_at(workloads.scale_for_rate(rate_at, workload.hidden_rate, trials=10))
    return made_contender


# The bound.


class DenseProducts:
    """The matrix products of a training step of feed-forward layers, each over all time steps at once, and no more."""

    def __init__(self, workload: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        rng = np.random.default_rng(0)
        rows = workload.steps * workload.batch
        sizes = (workload.inputs, *workload.hidden, workload.outputs)
        x = workload.data()[0].reshape(rows, -1)
        spikes = [(rng.random((rows, size)) < workload.hidden_rate).astype(np.float32) for size in workload.hidden]
        self.sent = [torch.as_tensor(array) for array in (x, *spikes)]
        self.errors = [torch.as_tensor(rng.standard_normal((rows, size), np.float32)) for size in sizes[1:]]
        self.weights = [torch.as_tensor(rng.standard_normal((pre, post), np.float32)) for pre, post in pairwise(sizes)]
        self.workload = workload

    def step(self) -> float:
        total = 0.0
        for place, (sent, weight, error) in enumerate(zip(self.sent, self.weights, self.errors, strict=True)):
            forward = sent @ weight
            gradient = sent.T @ error
            total += float(forward[0, 0]) + float(gradient[0, 0])
            if place:
                total += float((error @ weight.T)[0, 0])
        return total

    def rates(self) -> list[float]:
        return [float(spikes.mean()) for spikes in self.sent[1:]]


def dense_products(workload: Workload, threads: int) -> DenseProducts:
    """The dense matrix products alone, by the BLAS of PyTorch."""
    return DenseProducts(workload, threads)
