"""An independent program: spiking neurons in continuous time, stepped from event to event in closed form.

Nothing here comes from the package under test. Between events

    i' = -i/τ_s + b        v' = -v/τ_m + i        a' = -a/τ_a        w' = -w/τ_s        y' = -y/τ_r + w

with i raised by W at an input spike and by V at a neuron's own. A neuron spikes where v = θ + β a; v is then lowered by
θ, or set to zero, and a raised by one. An output's w, or y itself where it has no synaptic memory, is raised by O at a
hidden spike. The loss is the mean over time and the sum over outputs of (y - y*)², integrated in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq

GRID = 60
"""Points between two events among which a crossing is looked for before it is found to the last digit."""


@dataclass(frozen=True)
class Circuit:
    """Hidden neurons and leaky outputs, with what does not depend on a time step; times in seconds."""

    spikes: tuple[tuple[float, int], ...]
    duration: float
    wanted: np.ndarray
    reset: str = "subtract"
    beta: float = 0.0
    output_has_synapse: bool = True
    theta: float = 1.0
    tau_membrane: float = 20e-3
    tau_synapse: float = 5e-3
    tau_adaptation: float = 50e-3
    tau_output: float = 15e-3
    counted: list[int] = field(default_factory=list)

    def loss(self, weights: dict[str, np.ndarray]) -> float:
        """E for input (``W``), recurrent (``V``) and output (``O``) weights and a current (``b``)."""
        hidden, outputs = weights["O"].shape
        v, i, a = np.zeros((3, hidden))
        y, w = np.zeros((2, outputs))
        time, place, found, total = 0.0, 0, 0, 0.0
        while True:
            until = self.spikes[place][0] if place < len(self.spikes) else self.duration
            crossing = self._first_crossing(v, i, a, weights["b"], until - time)
            passed = until - time if crossing is None else crossing[0]
            total += self._integral(y, w, passed)
            y, w = self._output(y, w, passed)
            v, i = self._membrane(v, i, weights["b"], passed)
            a = a * np.exp(-passed / self.tau_adaptation)
            time += passed
            if crossing is not None:
                one = crossing[1]
                v[one] = 0.0 if self.reset == "zero" else v[one] - self.theta
                a[one] += 1.0
                i = i + weights["V"][one]
                y, w = (y, w + weights["O"][one]) if self.output_has_synapse else (y + weights["O"][one], w)
                found += 1
            elif place < len(self.spikes):
                i = i + weights["W"][self.spikes[place][1]]
                place += 1
            else:
                self.counted.append(found)
                return total / self.duration

    def gradients(self, weights: dict[str, np.ndarray], apart: float = 1e-5) -> dict[str, np.ndarray]:
        """Central differences, relative to the size of the weights; refuses two sides with other numbers of spikes."""
        found = {}
        for name, value in weights.items():
            found[name] = np.zeros_like(value)
            for place in np.ndindex(value.shape):
                if name == "V" and place[0] == place[1]:
                    continue
                step = apart * max(float(np.abs(value).max()), 1.0)
                self.counted.clear()
                sides = []
                for sign in (1.0, -1.0):
                    moved = value.copy()
                    moved[place] += sign * step
                    sides.append(self.loss({**weights, name: moved}))
                assert len(set(self.counted)) == 1, "a spike came or went: there is no derivative"
                found[name][place] = (sides[0] - sides[1]) / (2 * step)
        return found

    def _membrane(self, v: np.ndarray, i: np.ndarray, b: np.ndarray, passed: float) -> tuple[np.ndarray, np.ndarray]:
        slow, fast = np.exp(-passed / self.tau_membrane), np.exp(-passed / self.tau_synapse)
        rate = 1 / (1 / self.tau_membrane - 1 / self.tau_synapse)
        still = b * self.tau_synapse
        now = v * slow + (i - still) * rate * (fast - slow) + still * self.tau_membrane * (1 - slow)
        return now, (i - still) * fast + still

    def _first_crossing(
        self, v: np.ndarray, i: np.ndarray, a: np.ndarray, b: np.ndarray, within: float
    ) -> tuple[float, int] | None:
        def above(one: int) -> Callable[[float], float]:
            def distance(passed: float) -> float:
                now = self._membrane(v, i, b, passed)[0][one]
                return float(now - self.theta - self.beta * a[one] * np.exp(-passed / self.tau_adaptation))

            return distance

        grid = np.linspace(0.0, within, GRID)
        found: list[tuple[float, int]] = []
        for one in range(len(v)):
            values = [above(one)(passed) for passed in grid]
            rising = [k for k in range(GRID - 1) if values[k] <= 0 < values[k + 1]]
            if rising:
                found.append((float(brentq(above(one), grid[rising[0]], grid[rising[0] + 1], xtol=1e-16)), one))
        return min(found, default=None)

    def _parts(self, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of y, what decays with the synapse and what with the membrane."""
        fast = w / (1 / self.tau_output - 1 / self.tau_synapse)
        return fast, y - fast

    def _output(self, y: np.ndarray, w: np.ndarray, passed: float) -> tuple[np.ndarray, np.ndarray]:
        fast, slow = self._parts(y, w)
        decays = np.exp(-passed / self.tau_synapse), np.exp(-passed / self.tau_output)
        return fast * decays[0] + slow * decays[1], w * decays[0]

    def _integral(self, y: np.ndarray, w: np.ndarray, passed: float) -> float:
        """∫ Σ (y - y*)² dt over a time in which nothing happens."""
        fast, slow = self._parts(y, w)
        one, other = 1 / self.tau_synapse, 1 / self.tau_output

        def over(rate: float) -> float:
            return float(-np.expm1(-passed * rate) / rate)

        squares = fast * fast * over(2 * one) + slow * slow * over(2 * other) + 2 * fast * slow * over(one + other)
        crossed = -2 * self.wanted * (fast * over(one) + slow * over(other))
        return float(np.sum(squares + crossed + self.wanted**2 * passed))
