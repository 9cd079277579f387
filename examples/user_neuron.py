"""A neuron and a surrogate of your own: written once, trained by e-prop, with the same numbers on two backends.

    python examples/user_neuron.py
    python examples/user_neuron.py numpy jax

The neuron is resonate-and-fire (Izhikevich 2001): a damped oscillator, which answers to inputs in its own rhythm.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules import EProp, Evaluator, Layer, Stack, by_library
from neko_rules.backend import Array, Backend
from neko_rules.layers.cell import Cell
from neko_rules.surrogates import Surrogate


@dataclass(frozen=True)
class Biweight(Surrogate):
    """dz/du = max(0, 1 - u²)² / 2: a smooth bump about the threshold."""

    def derivative(self, nx: Backend, u: Array) -> Array:
        """max(0, 1 - u²)² / 2."""
        return 0.5 * nx.maximum(1 - u * u, 0.0) ** 2


@dataclass(frozen=True)
class ResonateCell(Cell):
    """x_t + i v_t = exp(dt (2πi f - 1/τ)) (x_{t-1} + i v_{t-1}) + I_t, with a spike where v_t > θ."""

    frequency: float = 40.0  # f in Hz
    tau: float = 30e-3  # of the damping, in seconds

    states = ("x", "v")

    def constants(self, dt: float) -> dict[str, Any]:
        """Damping times the rotation of one step, and the threshold."""
        damping, angle = math.exp(-dt / self.tau), 2 * math.pi * self.frequency * dt
        return {"c": damping * math.cos(angle), "s": damping * math.sin(angle), "theta": 0.5}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        """Turn and shrink the oscillator's state, and add the input."""
        return {"x": p.c * s.x - p.s * s.v + current, "v": p.s * s.x + p.c * s.v}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        """A spike above the threshold."""
        return nx.spike((s.v - p.theta) / p.theta)


def trained(backend: str, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Twenty updates, and the gradient after them."""
    network = Stack([Layer(ResonateCell(surrogate=Biweight()), 32)], 2, backend=backend, dtype="float64")
    rule = EProp(Evaluator(network), optimizer={"name": "adam", "learning_rate": 1e-2})
    losses = [rule.step(x, y)["loss"] for _ in range(20)]
    print(f"loss on {backend}: {losses[0]:.6f} → {losses[-1]:.6f}")
    return rule.gradients(x, y)


def main() -> None:
    """Tell two rhythms apart on two backends, and print how far their numbers differ."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=64)
    rhythm = np.sin(2 * np.pi * np.where(y, 40.0, 15.0)[:, None] * np.arange(80) * 1e-3)
    x = (rng.random((64, 80, 10)) < 0.2 + 0.2 * rhythm[:, :, None]).astype(float)

    with by_library():  # elsewhere NumPy's compiled loops take the steps of other libraries too
        first, second = (trained(backend, x, y) for backend in sys.argv[1:] or ["numpy", "torch"])
    furthest = max(float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max()) for name in first)
    print(f"largest relative difference of the gradients: {furthest:.0e}")


if __name__ == "__main__":
    main()
