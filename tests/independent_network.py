"""An independent network: the equations stepped in PyTorch, its gradients by autograd, and credit by what is detached.

Nothing here comes from the package under test. For a population with input current I_t,

    v_t = α v_{t-1} + I_t                                     tanh, ReLU and linear units, z_t = f(v_t)
    v_t = α v_{t-1} + I_t - (what the reset takes away)       spiking neurons, α = 1 without leak
    A_t = ϑ + β a_t,  a_t = ρ a_{t-1} + z_{t-1}               adaptive threshold; A_t = ϑ without adaptation
    z_t = H(v_t - A_t) where no refractory step is left, and dz/dv = 0.3 max(0, 1 - |u|)/ϑ with u = (v_t - A_t)/ϑ

Arrays are time-major, [time, batch, feature], and float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

INPUT = "input"
SPIKING = ("lif", "alif", "if")
RATE_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda v: v,
}

Tensors = Mapping[str, torch.Tensor]
Gradients = dict[str, np.ndarray]
Loss = Callable[[Tensors], torch.Tensor]
"""From the recorded outputs of all populations, [time, batch, neuron] each, to a scalar."""


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(np.asarray(values, np.float64))


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


@dataclass(frozen=True)
class Neuron:
    """Constants of a population: numbers, or one number per neuron.

    ``refractory_steps`` is how many steps after a spike stay silent.
    """

    kind: str
    decay: object = 1.0
    threshold: object = 1.0
    reset: str = "subtract"
    detach_reset: bool = True
    refractory_steps: object = 0.0
    adaptation_decay: object = 0.0
    beta: object = 0.0


@dataclass(frozen=True)
class Population:
    name: str
    size: int
    bias: bool
    neuron: Neuron


@dataclass(frozen=True)
class Edge:
    """A connection; ``weight`` names its parameter, [source, target]; ``synapses`` are all that count of it.

    With ``numbers`` the parameter has fewer entries, and they say which of them each synapse has; -1 for none.
    """

    source: str
    target: str
    delay: int
    autapses: bool
    weight: str
    synapses: tuple[tuple[int, ...], ...] | None = None
    numbers: tuple[tuple[int, ...], ...] | None = None

    def effective(self, parameters: Tensors) -> torch.Tensor:
        """The weight without what is stored where there is no synapse: from a neuron onto itself, for example."""
        weight = self.spread(parameters[self.weight])
        if self.synapses is not None:
            weight = weight * torch.tensor(self.synapses, dtype=weight.dtype)
        if self.source == self.target and not self.autapses:
            weight = weight * (1 - torch.eye(len(weight), dtype=weight.dtype))
        return weight

    def spread(self, parameter: torch.Tensor) -> torch.Tensor:
        """The matrix [source, target] of the parameter."""
        if self.numbers is None:
            return parameter
        numbers = torch.tensor(self.numbers)
        return torch.where(numbers >= 0, parameter.reshape(-1)[numbers.clamp(min=0)], 0.0)


class Spike(torch.autograd.Function):
    """H(u) forward, 0.3 max(0, 1 - |u|) backward."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient * 0.3 * torch.clamp(1 - u.abs(), min=0)


class ThroughFeedback(torch.autograd.Function):
    """x W forward; backward the error reaches x through Bᵀ instead of Wᵀ."""

    @staticmethod
    def forward(ctx, x, weight, feedback):
        ctx.save_for_backward(x, feedback)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):
        x, feedback = ctx.saved_tensors
        return gradient @ feedback.T, x.T @ gradient, None


@dataclass(frozen=True)
class State:
    """A population at one step: v, adaptation a, refractory steps left q, output z, each [batch, neuron]."""

    v: torch.Tensor
    a: torch.Tensor
    q: torch.Tensor
    z: torch.Tensor

    def detached(self) -> State:
        return State(self.v.detach(), self.a.detach(), self.q, self.z.detach())


def step(neuron: Neuron, state: State, current: torch.Tensor) -> State:
    """The next state of a population."""
    leaked = tensor(neuron.decay) * state.v
    if neuron.kind not in SPIKING:
        v = leaked + current
        return State(v, state.a, state.q, RATE_FUNCTIONS[neuron.kind](v))
    threshold = tensor(neuron.threshold)
    spiked = state.z.detach() if neuron.detach_reset else state.z
    v = {
        "zero": lambda: leaked * (1 - spiked) + current,
        "subtract": lambda: leaked + current - threshold * spiked,
        "none": lambda: leaked + current,
    }[neuron.reset]()
    a = tensor(neuron.adaptation_decay) * state.a + state.z
    q = torch.where(state.z > 0, tensor(neuron.refractory_steps), torch.clamp(state.q - 1, min=0)).detach()
    z = Spike.apply((v - threshold - tensor(neuron.beta) * a) / threshold) * (q <= 0).to(v.dtype)
    return State(v, a, q, z)


@dataclass(frozen=True)
class IndependentNetwork:
    """Populations in the order in which they are stepped, edges between them, and the name of the output.

    An edge without delay comes from the input or from a population earlier in the order.
    """

    populations: tuple[Population, ...]
    edges: tuple[Edge, ...]
    output: str

    def run(self, parameters: Tensors, x: torch.Tensor, feedback: Tensors | None = None) -> dict[str, torch.Tensor]:
        """What every population puts out; with feedback, errors go back through B where there is one."""
        feedback = feedback or {}
        batch = x.shape[1]
        state = {p.name: _resting(p, batch) for p in self.populations}
        recorded: dict[str, list[torch.Tensor]] = {p.name: [] for p in self.populations}
        before = {INPUT: torch.zeros_like(x[0]), **{name: each.z for name, each in state.items()}}
        for x_t in x:
            now = {INPUT: x_t}
            for p in self.populations:
                current = zeros(batch, p.size) + _bias(p, parameters)
                for edge in self.into(p):
                    source = (before if edge.delay else now)[edge.source]
                    weight = edge.effective(parameters)
                    back = edge.spread(feedback[edge.weight]) if edge.weight in feedback else None
                    current = current + (
                        source @ weight if back is None else ThroughFeedback.apply(source, weight, back)
                    )
                state[p.name] = step(p.neuron, state[p.name], current)
                now[p.name] = state[p.name].z
                recorded[p.name].append(now[p.name])
            before = now
        return {name: torch.stack(values) for name, values in recorded.items()}

    def into(self, population: Population) -> list[Edge]:
        return [edge for edge in self.edges if edge.target == population.name]

    def full_gradients(self, parameters: Tensors, x: torch.Tensor, loss: Loss, feedback: Tensors) -> Gradients:
        """Automatic differentiation through everything."""
        leaves = _leaves(parameters)
        return _gradients(loss(self.run(leaves, x, feedback)), leaves)

    def local_gradients(
        self, parameters: Tensors, x: torch.Tensor, loss: Loss, temporal: str, signal: str, feedback: Tensors
    ) -> Gradients:
        """Each population differentiated alone, from the top down, with its inputs held fixed.

        Args:
            parameters: name → tensor.
            x: inputs.
            loss: of the recorded outputs.
            temporal: ``"layer"`` keeps a population's connections to itself, ``"neuron"`` detaches them.
            signal: ``"instantaneous"`` sends down the error of one step, its state before detached; ``"filtered"``
                does so everywhere but at the output, whose error keeps its paths through time.
            feedback: weight name → B, where B takes the weight's place on the way down.
        """
        recorded = {name: z.detach() for name, z in self.run(parameters, x).items()}
        outputs = _leaves(recorded)
        arriving = {name: tensor(g) for name, g in _gradients(loss(outputs), outputs).items()}
        found: Gradients = {}
        for p in reversed(self.populations):
            own = _leaves({name: value for name, value in parameters.items() if name.startswith(f"{p.name}.")})
            current = torch.zeros_like(recorded[p.name]).requires_grad_()
            z = self._alone(p, {**parameters, **own}, x, recorded, current, temporal == "layer")
            assert torch.equal(z.detach(), recorded[p.name]), "stepped alone, a population must do what it did"
            gradients = _gradients((z * arriving[p.name]).sum(), {**own, "current": current})
            delta = tensor(gradients.pop("current"))
            found.update(gradients)
            if signal == "instantaneous" or p.name != self.output:
                z = self._alone(p, parameters, x, recorded, current, recurrent=False, one_step=True)
                delta = tensor(_gradients((z * arriving[p.name]).sum(), {"current": current})["current"])
            for edge in self.into(p):
                if edge.source != INPUT and not edge.delay:
                    known = edge.weight in feedback
                    back = edge.spread(feedback[edge.weight]) if known else edge.effective(parameters)
                    arriving[edge.source] = arriving[edge.source] + delta @ back.T
        return found

    def _alone(
        self,
        p: Population,
        parameters: Tensors,
        x: torch.Tensor,
        recorded: Tensors,
        extra_current: torch.Tensor,
        recurrent: bool,
        one_step: bool = False,
    ) -> torch.Tensor:
        """One population's output from what the others put out; differentiable by parameters and an extra current."""
        sources = {INPUT: x, **recorded}
        state, outputs = _resting(p, x.shape[1]), []
        for t in range(len(x)):
            if one_step:
                state = state.detached()
            current = extra_current[t] + _bias(p, parameters)
            for edge in self.into(p):
                sequence = sources[edge.source]
                if edge.source == p.name:
                    source = state.z if recurrent else state.z.detach()
                elif edge.delay:
                    source = sequence[t - 1] if t else torch.zeros_like(sequence[0])
                else:
                    source = sequence[t]
                current = current + source @ edge.effective(parameters)
            state = step(p.neuron, state, current)
            outputs.append(state.z)
        return torch.stack(outputs)


def pooled(z: torch.Tensor, pooling: str) -> torch.Tensor:
    """The output that is judged: every step, the last, the mean over time, or the (first) largest, [step, batch, k]."""
    if pooling == "last":
        return z[-1:]
    if pooling == "mean":
        return z.mean(0, keepdim=True)
    if pooling == "max":
        first = torch.tensor(np.argmax(z.detach().numpy(), axis=0))
        return torch.gather(z, 0, first[None])
    return z


def mean_loss(outputs: torch.Tensor, y: np.ndarray) -> torch.Tensor:
    """Cross-entropy of labels, -1 left out, or squared error summed over units; the mean over steps that count."""
    parts = []
    for b, t in np.ndindex(*y.shape[:2]):
        if y.ndim == 3:
            parts.append(((outputs[t, b] - tensor(y[b, t])) ** 2).sum())
        elif y[b, t] >= 0:
            parts.append(-torch.log_softmax(outputs[t, b], 0)[int(y[b, t])])
    return torch.stack(parts).mean()


def rate_penalty(z: torch.Tensor, target: float, strength: float, dt: float = 1e-3) -> torch.Tensor:
    """½ c Σ_j ((f_j - f*) dt)², f_j the mean firing rate of a neuron."""
    rate = z.mean((0, 1)) / dt
    return 0.5 * strength * (((rate - target) * dt) ** 2).sum()


def _resting(p: Population, batch: int) -> State:
    return State(*(zeros(batch, p.size) for _ in range(4)))


def _bias(p: Population, parameters: Tensors) -> torch.Tensor:
    return parameters[f"{p.name}.bias"] if p.bias else zeros(p.size)


def _leaves(values: Tensors) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def _gradients(scalar: torch.Tensor, leaves: Tensors) -> Gradients:
    """The derivative by every leaf, zero where the scalar does not depend on it."""
    found = [None] * len(leaves)
    if scalar.requires_grad and leaves:
        found = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: np.zeros(tuple(leaf.shape)) if g is None else g.numpy() for (name, leaf), g in pairs}
