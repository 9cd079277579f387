"""Golden networks: small networks with gradients that an independent program computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules import Evaluator, Layer, Stack
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
GOLDEN = SHARED / "golden"
NAMES = ("alif_recurrent", "alif_recurrent_deep", "alif_regression", "lif_feedforward_deep", "lif_recurrent")
RULES = ("bptt", "eprop_symmetric", "eprop_random", "ostl", "ottt")


class Golden:
    """One golden file, and the same network built here."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))

    @property
    def x(self) -> np.ndarray:
        return self.arrays["x"].transpose(1, 0, 2)

    @property
    def y(self) -> np.ndarray:
        return self.arrays["target"].transpose(1, 0, 2)

    def rules(self) -> list[str]:
        return [rule for rule in RULES if any(key.startswith(f"grad/{rule}/") for key in self.arrays)]

    def ours(self, theirs: str) -> str:
        """Our name of a parameter: ``hidden0.V`` is ``hidden.recurrent.weight`` if there is one hidden layer."""
        layer, kind = theirs.split(".")
        if len(self.meta["layers"]) == 1:
            layer = layer.replace("hidden0", "hidden")
        return f"{layer}." + {"W": "input.weight", "V": "recurrent.weight", "b": "bias"}[kind]

    def stored(self, prefix: str) -> dict[str, np.ndarray]:
        found = {key.removeprefix(prefix): v for key, v in self.arrays.items() if key.startswith(prefix)}
        return {self.ours(key): value for key, value in found.items()}

    def model(self, backend: str, dtype: str = "float64") -> Evaluator:
        layers = []
        for place, numbers in enumerate(self.meta["layers"]):
            common = {
                "membrane_decay": numbers["alpha"],
                "threshold": numbers["theta"],
                "surrogate": {"name": "triangular", "gamma": numbers["gamma"]},
            }
            adaptive = {"adaptation_decay": numbers["rho"], "beta": numbers["beta"]}
            cell = ALIFCell(**common, **adaptive) if self.meta["adaptive"] else LIFCell(**common)
            size = self.arrays[f"param/hidden{place}.b"].shape[0]
            layers.append(Layer(cell, size, recurrent=self.meta["recurrent"]))
        network = Stack(
            layers,
            self.y.shape[2],
            inputs=self.x.shape[2],
            readout_decay=self.meta["kappa"],
            task_type=self.meta["task"],
            backend=backend,
            dtype=dtype,
        )
        network.set_parameters(self.stored("param/"))
        return Evaluator(network)
