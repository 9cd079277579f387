"""Cases for tests of credit assignment: networks that are alive, data, and comparisons that refuse a dead reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neko_rules import Convolution, Evaluator, Layer, Network, PooledDense, Stack
from neko_rules.credit import autodiff
from neko_rules.errors import IncompatibleError
from neko_rules.layers.delayed import DelayedCell
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell
from neko_rules.rules import RULES, LearningRule, Rule

AUTODIFF_BACKENDS = ("torch", "tensorflow", "jax")
INPUTS, OUTPUTS = 4, 3
STRONG = {"name": "scaled_normal", "gain": 2.0}


def data(
    batch: int = 3, steps: int = 14, inputs: int = INPUTS, outputs: int = OUTPUTS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [batch, time, feature] and labels per sequence."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, steps, inputs)), rng.integers(0, outputs, batch)


def stack(*cells: Any, size: int = 6, **options: Any) -> Callable[[str], Network]:
    """A recurrent stack of one layer per cell, with strong weights so that it spikes."""

    def build(backend: str) -> Network:
        strong = {"name": "scaled_normal", "gain": 1.5}
        layers = [
            Layer(cell, size + place, initializer=strong, recurrent_initializer=strong)
            for place, cell in enumerate(cells)
        ]
        return Stack(layers, OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=3, **options)

    return build


def feedback_network(backend: str) -> Network:
    """Two populations that feed back to each other, a skip connection, and delayed connections across layers."""
    strong = {"name": "scaled_normal", "gain": 1.5}
    ends = [("input", "low", 0), ("low", "low", 1), ("low", "high", 0), ("high", "low", 1), ("high", "readout", 0)]
    ends += [("low", "readout", 0), ("input", "high", 1), ("low", "late", 1), ("late", "readout", 0)]
    return Network(
        {
            "low": {"cell": "alif", "size": 6},
            "high": {"cell": LIFCell(reset="zero"), "size": 5},
            "late": {"cell": "lif", "size": 4, "bias": False},
            "readout": {"cell": "leaky_readout", "size": OUTPUTS},
        },
        [{"source": s, "target": t, "delay": d, "initializer": strong} for s, t, d in ends],
        "readout",
        inputs=INPUTS,
        backend=backend,
        dtype="float64",
        seed=5,
    )


def recurrent_readout(backend: str) -> Network:
    """Spiking neurons below a readout whose units are connected among themselves."""
    strong = {"name": "scaled_normal", "gain": 1.5}
    ends = [("input", "hidden", 0), ("hidden", "hidden", 1), ("hidden", "readout", 0), ("readout", "readout", 1)]
    return Network(
        {"hidden": {"cell": "alif", "size": 6}, "readout": {"cell": "leaky_readout", "size": OUTPUTS}},
        [{"source": s, "target": t, "delay": d, "initializer": strong} for s, t, d in ends],
        "readout",
        inputs=INPUTS,
        backend=backend,
        dtype="float64",
        seed=6,
    )


PER_NEURON = ALIFCell(
    tau_membrane=[5e-3, 20e-3, 10e-3, 8e-3, 30e-3, 12e-3],
    beta=[0.0, 0.3, 0.0, 0.2, 0.1, 0.5],
    threshold=[1, 0.5, 0.8, 1.2, 0.7, 1],
)

NETWORKS: dict[str, Callable[[str], Network]] = {
    "lif": stack(LIFCell()),
    "alif": stack(ALIFCell(beta=0.3)),
    "if": stack(IFCell(threshold=2.0)),
    "tanh": stack(TanhCell(membrane_decay=0.6)),
    "relu": stack(ReLUCell()),
    "per neuron": stack(PER_NEURON),
    "autapses": lambda backend: Stack(
        [Layer(ALIFCell(), 6, autapses=True, initializer={"name": "scaled_normal", "gain": 2.0})],
        OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64",
    ),
    "sparse": lambda backend: Stack(
        [
            Layer("alif", 8, initializer=STRONG, connectivity=0.6, recurrent_connectivity=0.4),
            Layer(
                LIFCell(threshold=0.4), 6, initializer=STRONG, recurrent_initializer=STRONG,
                connectivity={"name": "fixed_in_degree", "number": 3}, recurrent_connectivity=0.5,
            ),
        ],
        OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=2, readout_connectivity=0.7,
    ),
    "convolution": lambda backend: Stack(
        [
            # Among themselves, too, but for each with itself.
            Layer(
                "alif", connectivity=Convolution((2, 2), filters=2, window=2, padding=1), initializer=STRONG,
                recurrent_connectivity=Convolution((3, 3), filters=2, window=3, channels=2, padding=1),
            ),
            Layer(
                LIFCell(threshold=0.4), connectivity=Convolution((3, 3), filters=3, window=2, channels=2),
                recurrent=False, initializer=STRONG,
            ),
        ],
        OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=2,
    ),
    "pooling": lambda backend: Stack(
        [
            Layer("alif", connectivity=Convolution((2, 2), filters=2, window=2, padding=1), initializer=STRONG),
            # Of three rows the last fills no patch.
            Layer(
                LIFCell(threshold=0.4), recurrent=False, initializer=STRONG,
                connectivity=Convolution((3, 3), filters=4, window=(1, 2), channels=2, pool=(2, 1)),
            ),
        ],
        OUTPUTS, inputs=INPUTS, backend=backend, dtype="float64", seed=2,
        readout_connectivity=PooledDense((1, 2), OUTPUTS, pool=(1, 2), channels=4),
    ),
    "reset to zero": stack(LIFCell(reset="zero")),
    "reset not detached": stack(ALIFCell(detach_reset=False, beta=0.3)),
    "reset to zero, not detached": stack(LIFCell(reset="zero", detach_reset=False)),
    "refractory": stack(ALIFCell(refractory_period=2e-3, threshold=0.5)),
    "synaptic currents": stack(
        LIFCell(tau_synapse=3e-3, threshold=1.5), ALIFCell(synapse_decay=0.4, reset="zero"),
        output_cell=LeakyReadoutCell(tau_synapse=4e-3),
    ),
    "delays": stack(
        DelayedCell(ALIFCell(beta=0.3, threshold=0.5), steps=[0, 1, 0.4, 3, 2.5, 1]), LIFCell(threshold=0.3),
    ),
    "gaussian surrogate": stack(LIFCell(surrogate="gaussian")),
    "deep": stack(ALIFCell(beta=0.3, threshold=0.5), LIFCell(threshold=0.3), ALIFCell(threshold=0.3)),
    "deep, no readout memory": stack(ALIFCell(), TanhCell(), tau_readout=0.0),
    "readout per neuron": stack(LIFCell(), tau_readout=[5e-3, 20e-3, 0.0]),
    "recurrent readout": recurrent_readout,
    "last output": stack(ALIFCell(), readout="last"),
    "mean output": stack(ALIFCell(), readout="mean"),
    "maximum output": stack(ALIFCell(), readout="max"),
}  # fmt: skip


def network_of(name: str, backend: str = "numpy") -> Network:
    """One of ``NETWORKS``, or that in which populations feed back to each other."""
    return (feedback_network if name == "feedback" else NETWORKS[name])(backend)


def alive(model: Evaluator, x: np.ndarray) -> None:
    """Refuse to compare gradients on a network in which some spiking population never spikes, or always does."""
    recorded = model.trajectory(x)
    for name in model.network.spiking:
        rate = float(recorded.z(name).mean())
        assert 0.01 < rate < 0.99, f"{name} fires in {rate:.3f} of all steps: a comparison would prove nothing"


def distance(found: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Largest relative error over parameters; refuses a reference without a norm."""
    assert set(found) == set(reference)
    errors = []
    for name, value in reference.items():
        norm = np.linalg.norm(value)
        assert norm > 1e-8, f"the reference gradient of {name} has norm {norm:.1e}: a comparison would prove nothing"
        errors.append(float(np.linalg.norm(found[name] - value) / norm))
    return max(errors)


def by_autodiff(model: Evaluator, x: np.ndarray, y: Any, detach_delayed: bool = False) -> dict[str, np.ndarray]:
    """The gradient by the backend's own automatic differentiation."""
    nx = model.nx

    def differentiate(*batch: Any) -> dict[str, Any]:
        return autodiff.gradients(model, *batch, detach_delayed=detach_delayed)

    batch = [nx.asarray(array) for array in model.batch(x, y)]
    return {name: nx.to_numpy(value) for name, value in nx.jit(differentiate)(model.network.values, *batch).items()}


def by_traces(rule: LearningRule, x: np.ndarray, y: Any, **changed: Any) -> dict[str, np.ndarray]:
    """The gradient of a rule's credit by traces, through the same feedback weights."""
    credit = rule.credit
    axes = {"temporal": credit.temporal, "spatial": credit.spatial, "learning_signal": credit.learning_signal}
    twin = LearningRule(
        rule.model, **{**axes, **changed}, evaluation="traces", regularizers=rule.regularizers, seed=rule.seed
    )
    return twin.gradients(x, y)


def deferred(name: str, model: Evaluator, **options: Any) -> Rule:
    """A registered rule that changes its weights at the end of a sequence alone, and as its gradient says."""
    known = inspect.signature(RULES[name]).parameters
    wanted: dict[str, Any] = {}
    if "online" in known and known["online"].default:
        wanted["online"] = False
    if "window" in known and known["window"].default:
        wanted["window"] = 1000
    if "feedback_decay" in known and known["temporal" if "temporal" in known else "feedback_decay"].default == "full":
        wanted["feedback_decay"] = 0.0
    return RULES[name](model, **{**wanted, **options})


def _can_be_deferred(name: str) -> bool:
    try:
        deferred(name, Evaluator(stack(LIFCell())("numpy")))
    except IncompatibleError:
        return False
    return True


PULSED = ("manhattan", "tiki_taka", "tiki_taka_v2")
"""The rules whose update is no multiple of a gradient; they have a battery of their own, in test_manhattan.py."""

HOLDING: dict[str, dict[str, Any]] = {name: {"crossbar": {"w_max": 10.0}} for name in ("tiki_taka", "tiki_taka_v2")}
"""What rules whose weights always live on devices need to hold the strong weights of these networks."""

DEFERRED = [name for name in RULES if name not in PULSED and _can_be_deferred(name)]
"""Every registered rule that does not refuse to wait for the end of a sequence."""
