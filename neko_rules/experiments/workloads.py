"""Workloads: the frozen training tasks by which speed is measured, with their data and first weights.

    A   128 recurrent ALIF, 28 inputs (a fifth of them not zero, graded, as in rows of MNIST), 28 steps, batch 128
    B   256 recurrent ALIF or LIF, 80 inputs at 5 %, 200 steps, batch 32
    C   512-512-512-20 feed-forward LIF, inputs at 5 %, 500 steps, batch 64, fast-sigmoid surrogate
    D   128 or 512 recurrent ALIF, 80 inputs at 5 %, 100 or 200 steps, one example at a time
    E   16 recurrent LIF, 28 inputs (a fifth of them not zero, graded), 20 steps, one example at a time

Every step is a full training step: forward pass, softmax cross-entropy of a leaky readout at every time step, gradient
and an update by Adam. The rates are spikes per neuron and time step. All contenders begin with the same weights, whose
gains are such that hidden neurons spike at the workload's ``hidden_rate``; the learning rate is so small that they go
on doing so. C is the network of T. Summe et al., Slax, 2024, figure 11; D that of mlGeNN's e-prop classifiers.

Imports NumPy alone, so that an environment without this package's other needs can use it from its source.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

LEARNING_RATE = 1e-5
"""Of Adam: large enough to be computed, too small to change within a measurement how many neurons spike."""

TAU_MEMBRANE, TAU_ADAPTATION, TAU_READOUT, STEP = 20e-3, 200e-3, 20e-3, 1e-3
"""Time constants and the length of a step in seconds."""

ALPHA, RHO, KAPPA = (math.exp(-STEP / tau) for tau in (TAU_MEMBRANE, TAU_ADAPTATION, TAU_READOUT))
BETA = 0.1
"""Decay of membrane, adaptation and readout per step; strength of the adaptation. The threshold is 1."""

TRIANGULAR_PEAK, FAST_SIGMOID_SLOPE = 0.3, 25.0
"""γ of the surrogate γ max(0, 1 - |u|), and s of the surrogate 1 / (1 + s|u|)²."""


@dataclass(frozen=True)
class Workload:
    """One task: the network, the data and the spike rates.

    Args:
        name: letter, and what sets it apart.
        cell: ``"alif"`` or ``"lif"``.
        inputs: input channels.
        hidden: neurons of each hidden layer, the lowest first.
        outputs: classes.
        recurrent: whether hidden layers are connected among themselves.
        steps: time steps T.
        batch: examples per training step.
        input_rate: share of inputs that are not zero.
        hidden_rate: share of hidden neurons that spike in a step at the beginning, which the gains were found for.
        surrogate: ``"triangular"`` or ``"fast_sigmoid"``.
        graded: whether inputs that are not zero are uniform in 0 … 1 rather than 1.
        gains: factor on the feed-forward weights of each hidden layer.
        seed: of data and weights.
    """

    name: str
    cell: str
    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    recurrent: bool
    steps: int
    batch: int
    input_rate: float
    hidden_rate: float
    surrogate: str = "triangular"
    graded: bool = False
    gains: tuple[float, ...] = ()
    seed: int = 0

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs [batch, time, feature] in float32 and a class per example."""
        rng = np.random.default_rng(self.seed)
        shape = (self.batch, self.steps, self.inputs)
        x = (rng.random(shape, np.float32) < self.input_rate).astype(np.float32)
        if self.graded:
            x *= rng.random(shape, np.float32)
        return x, rng.integers(0, self.outputs, self.batch)

    def weights(self) -> dict[str, np.ndarray]:
        """First weights by name, [n_pre, n_post] in float32: ``input0``, ``recurrent0``, …, ``readout``."""
        rng = np.random.default_rng([self.seed, 1])
        found: dict[str, np.ndarray] = {}
        below = self.inputs
        for place, (size, gain) in enumerate(zip(self.hidden, self.gains or (1.0,) * len(self.hidden), strict=True)):
            found[f"input{place}"] = gain * rng.standard_normal((below, size)) / math.sqrt(below)
            if self.recurrent:
                found[f"recurrent{place}"] = rng.standard_normal((size, size)) * (1 - np.eye(size)) / math.sqrt(size)
            below = size
        found["readout"] = rng.standard_normal((below, self.outputs)) / math.sqrt(below)
        return {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}

    def title(self) -> str:
        """What it is, in one line.

        Example:
            >>> WORKLOADS["B"].title()
            'B: 80-256-20 recurrent ALIF, T 200, batch 32, inputs at 5 %'
        """
        kind = "recurrent" if self.recurrent else "feed-forward"
        sizes = "-".join(str(size) for size in (self.inputs, *self.hidden, self.outputs))
        return (
            f"{self.name}: {sizes} {kind} {self.cell.upper()}, T {self.steps}, batch {self.batch}, "
            f"inputs at {100 * self.input_rate:g} %"
        )


def firing_rates(workload: Workload, examples: int = 8) -> list[float]:
    """Spikes per neuron and step of each hidden layer with the first weights, on some examples: the model itself.

        v_t = α v_{t-1} + I_t - z_{t-1},  a_t = ρ a_{t-1} + z_{t-1},  z_t = [v_t > 1 + β a_t]

    Example:
        >>> [round(rate, 2) for rate in firing_rates(WORKLOADS["B"])]
        [0.05]
    """
    weights = workload.weights()
    current = np.ascontiguousarray(workload.data()[0][:examples].swapaxes(0, 1))
    beta = BETA if workload.cell == "alif" else 0.0
    rates = []
    for place in range(len(workload.hidden)):
        drive = current @ weights[f"input{place}"]
        recurrent = weights.get(f"recurrent{place}")
        v = a = z = np.zeros_like(drive[0])
        spikes = np.empty_like(drive)
        for t in range(workload.steps):
            a = np.float32(RHO) * a + z
            v = np.float32(ALPHA) * v + drive[t] - z
            if recurrent is not None:
                v = v + z @ recurrent
            z = (v > 1 + np.float32(beta) * a).astype(np.float32)
            spikes[t] = z
        rates.append(float(spikes.mean()))
        current = spikes
    return rates


def scale_for_rate(rate_at: Callable[[float], float], wanted: float, trials: int = 14) -> float:
    """The factor at which a rate that grows with it is as wanted, by bisection of its logarithm in 2⁻⁶ … 2⁶.

    Example:
        >>> round(scale_for_rate(lambda scale: scale / 10, 0.25, trials=30), 3)
        2.5
    """
    low, high = -6.0, 6.0
    for _ in range(trials):
        middle = (low + high) / 2
        low, high = (low, middle) if rate_at(2**middle) > wanted else (middle, high)
    return 2 ** ((low + high) / 2)


def calibrated(workload: Workload) -> Workload:
    """The workload with the gains at which each hidden layer spikes at ``hidden_rate``, the lowest layer first."""
    gains = [1.0] * len(workload.hidden)
    for place in range(len(gains)):

        def rate_at(gain: float, place: int = place) -> float:
            tried = (*gains[:place], gain, *gains[place + 1 :])
            return firing_rates(replace(workload, gains=tried))[place]

        gains[place] = round(scale_for_rate(rate_at, workload.hidden_rate), 3)
    return replace(workload, gains=tuple(gains))


_A = Workload("A", "alif", 28, (128,), 10, True, 28, 128, 0.2, 0.05, graded=True, gains=(1.14,))
_B = Workload("B", "alif", 80, (256,), 20, True, 200, 32, 0.05, 0.05, gains=(2.263,))
_C = Workload("C", "lif", 512, (512, 512), 20, False, 500, 64, 0.05, 0.05, "fast_sigmoid", gains=(2.103, 1.742))
_E = Workload("E", "lif", 28, (16,), 10, True, 20, 1, 0.2, 0.05, graded=True, gains=(2.204,))
_D = Workload("D 128", "alif", 80, (128,), 20, True, 100, 1, 0.05, 0.05, gains=(1.887,))

WORKLOADS = {
    workload.name: workload
    for workload in (
        _A,
        replace(_A, name="A LIF", cell="lif", gains=(1.018,)),
        _B,
        replace(_B, name="B LIF", cell="lif", gains=(1.725,)),
        _C,
        replace(_C, name="C 30 %", input_rate=0.3, hidden_rate=0.3, gains=(3.178, 2.342)),
        _D,
        replace(_D, name="D 512", hidden=(512,), steps=200, gains=(2.144,)),
        _E,
    )
}
"""By name; the gains are those that ``calibrated`` finds."""
