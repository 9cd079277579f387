"""The matrix: every rule on every neuron, on every backend, feed-forward, recurrent and deep: equal, or refused.

A cell of the matrix is *equal* where gradients and the weights after two updates agree with NumPy's to 1e-10, and
*refused* where building the rule gives a reason; anything else fails. What is refused is refused alike on all backends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from credit_cases import HOLDING, INPUTS, OUTPUTS, data
from eager import eager

from neko_rules import Convolution, Evaluator, Layer, Network, Stack
from neko_rules.backend import BUILT_IN, Backend
from neko_rules.errors import IncompatibleError
from neko_rules.layers.cell import CELLS
from neko_rules.optimizers import SGD
from neko_rules.rules import RULES

TOPOLOGIES = {"feed-forward": ([5], False), "recurrent": ([5], True), "deep": ([6, 5], True)}
"""Sizes of the hidden layers, and whether they are recurrent; the lower of two convolves, and the upper is sparse."""
COMPILING = {"jax": ("deep",), "tensorflow": ("deep",)}
"""What is tried on the libraries that take a moment for every operation on every new shape: deep networks, which hold
the connections of both others."""
TOLERANCE = 1e-10

NO_LEAK = "leak between spikes is constant"
REFUSED: dict[str, tuple[str, ...]] = {
    # A membrane that is clipped to a few bits does not leak at a constant rate.
    "ottt": (NO_LEAK,),
    "decolle": (NO_LEAK,),
    "otpe": ("at one rate", "one membrane", NO_LEAK),
    "approximate_otpe": ("at one rate", "one membrane", NO_LEAK),
    "stdp": ("needs a connection to spiking neurons",),
    "triplet_stdp": ("needs a connection to spiking neurons",),
    "reward_stdp": ("needs a connection to spiking neurons",),
}
"""The rules that refuse some network of the matrix, and parts of the reasons that they give."""


def network(cell: str, topology: str, backend: Backend) -> Network:
    sizes, recurrent = TOPOLOGIES[topology]
    strong = {"name": "scaled_normal", "gain": 2.0}
    layers = [Layer(cell, size, recurrent, initializer=strong, recurrent_initializer=strong) for size in sizes]
    if topology == "deep":
        layers[0] = replace(layers[0], connectivity=Convolution((1, INPUTS), filters=3, window=(1, 3)))
        # Above neurons of one kind others, where errors of a time step do not come through that kind.
        above = cell if CELLS[cell]().prompt else "lif"
        layers[1] = replace(layers[1], cell=above, connectivity=0.8, recurrent_connectivity=0.6)
    return Stack(layers, OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=2)


def outcome(rule_name: str, cell: str, topology: str, backend: Backend) -> dict[str, np.ndarray] | str:
    """Gradients and weights after two updates, or the reason of a refusal."""
    x, y = data(batch=2, steps=5)
    try:
        options: dict[str, Any] = {"optimizer": SGD(0.1), "seed": 1, **HOLDING.get(rule_name, {})}
        rule = RULES[rule_name](Evaluator(network(cell, topology, backend)), **options)
    except IncompatibleError as refusal:
        return str(refusal)
    found: dict[str, Any] = {f"gradient {name}": value for name, value in rule.gradients(x, y).items()}
    rule.step(x, y)
    rule.step(x, y)
    return {**found, **rule.state()}


@pytest.fixture(scope="module")
def references() -> dict[tuple[str, str, str], dict[str, np.ndarray] | str]:
    return {}


@pytest.mark.parametrize(
    ("backend", "topology"),
    [(backend, topology) for backend in BUILT_IN for topology in COMPILING.get(backend, TOPOLOGIES)],
    indirect=["backend"],
)
@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("rule", list(RULES))
def test_a_rule_on_a_neuron_is_equal_on_every_backend_or_refused(
    rule: str, cell: str, topology: str, backend: str, references: dict[Any, Any]
) -> None:
    key = rule, cell, topology
    if key not in references:
        references[key] = outcome(*key, eager("numpy"))
    reference = references[key]
    found = reference if backend == "numpy" else outcome(*key, eager(backend))
    if isinstance(reference, str):
        assert found == reference
        assert any(reason in reference for reason in REFUSED.get(rule, ())), reference
        return
    assert not isinstance(found, str), found
    assert set(found) == set(reference)
    moved = False
    for name, value in reference.items():
        assert np.isfinite(value).all(), name
        scale = max(float(np.linalg.norm(value)), 1e-3)
        assert float(np.linalg.norm(found[name] - value)) <= TOLERANCE * scale, name
        moved |= name.startswith("gradient") and bool(np.abs(value).max() > 1e-8)
    assert moved, "no gradient at all: a comparison would prove nothing"
