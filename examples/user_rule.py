"""Your own rule: error-triggered e-prop, in twenty lines; what docs/your_own_rule.md walks through.

    python examples/user_rule.py numpy torch

A time step's error counts only where it is larger than a threshold, so that most steps cause no traffic on a chip
(Payvand, Fouda, Kurdahi, Eltawil & Neftci, Error-triggered three-factor learning dynamics for crossbar arrays, AICAS
2020).
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar, Unpack

import numpy as np

from neko_rules import ALIF, Evaluator, LearningRule, by_library
from neko_rules.rules import RULES, CreditOptions


@RULES.register("error_triggered")
class ErrorTriggered(LearningRule):
    """Error-triggered e-prop: an output's error at a time step counts only where it exceeds a threshold."""

    about: ClassVar[dict[str, str]] = {
        "paper": "Payvand et al. 2020",
        "time": "O(N²) per example and step with an error",
        "memory": "O(T N) per example; online O(N²), flat in T",
        "identity": "threshold = 0: = e-prop",
    }

    def __init__(self, model: Evaluator, threshold: float = 0.1, **options: Unpack[CreditOptions]) -> None:
        super().__init__(model, temporal="neuron", **options)
        self.threshold = threshold

    def signals(self, trajectory: Any, judged: Any, own: Any, target: Any, weights: Any, rates: bool = True) -> Any:
        """∂E/∂y_t where it is larger than the threshold, in units of the weight of its step; zero elsewhere."""
        nx, least = self.nx, self.threshold * self.nx.expand_dims(weights, -1)
        large = {key: nx.where(nx.abs(error) > least, error, 0 * error) for key, error in judged.items()}
        return super().signals(trajectory, large, own, target, weights, rates)


def main(backends: list[str]) -> None:
    """Train on two kinds of flicker on several backends, and print that the numbers are the same."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 64)
    x = (rng.random((64, 30, 8)) < np.where(np.arange(8) % 2 == y[:, None], 0.3, 0.05)[:, None]).astype(float)
    found = []
    for backend in backends:
        rule = ErrorTriggered(Evaluator(ALIF(24, 2, backend=backend, dtype="float64")), threshold=0.2, online=5)
        with by_library():  # in training NumPy's compiled loops take the steps of PyTorch too
            losses = [rule.step(x, y)["loss"] for _ in range(20)]
        print(f"loss on {backend}: {losses[0]:.4f} → {losses[-1]:.4f}")
        found.append(rule.model.network.parameters["hidden.recurrent.weight"])
    print(f"largest difference between backends: {max(float(np.abs(w - found[0]).max()) for w in found):.1e}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["numpy"])
