"""Cells for tests: every registered one and its variants, stepped one population at a time in plain functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from trees import converted

from neko_rules.backend import get_backend
from neko_rules.layers.cell import CELLS, Cell, CellOperations, backend_constants, namespace
from neko_rules.layers.delayed import DelayedCell
from neko_rules.layers.integrate_and_fire import ALIFCell, IFCell, LIFCell
from neko_rules.layers.rate import LeakyReadoutCell, ReLUCell, TanhCell
from neko_rules.surrogates import SURROGATES

DT = 1e-3
SIZE = 3

VARIANTS: dict[str, Cell] = {
    **{name: CELLS[name]() for name in CELLS},
    **{f"alif, {name}": ALIFCell(surrogate=name) for name in SURROGATES},
    "if, reset to zero": IFCell(reset="zero", threshold=0.7),
    "if, no reset": IFCell(reset="none"),
    "lif, reset to zero": LIFCell(reset="zero"),
    "lif, no reset": LIFCell(reset="none"),
    "lif, reset by subtraction, attached": LIFCell(detach_reset=False, threshold=0.6),
    "lif, reset to zero, attached": LIFCell(reset="zero", detach_reset=False),
    "alif, attached": ALIFCell(detach_reset=False, beta=0.4),
    "alif, reset to zero, attached": ALIFCell(reset="zero", detach_reset=False, beta=0.4),
    "lif, synaptic current": LIFCell(tau_synapse=5e-3, threshold=0.8),
    "alif, synaptic currents, attached": ALIFCell(
        synapse_decay=[0.0, 0.5, 0.8], detach_reset=False, beta=0.4, refractory_period=1e-3
    ),
    "lif, refractory": LIFCell(refractory_period=2e-3),
    "alif, refractory per neuron": ALIFCell(refractory_period=[0.0, 1e-3, 3e-3], beta=0.2),
    "lif, refractory, reset to zero, attached": LIFCell(refractory_period=2e-3, reset="zero", detach_reset=False),
    "alif, all per neuron": ALIFCell(
        threshold=[1, 0.5, 2], tau_membrane=[5e-3, 0, 1e-2], tau_adaptation=[0.1, 0.2, 0.05], beta=[0, 0.3, 1.0]
    ),
    "alif, decays": ALIFCell(membrane_decay=[0.2, 0.5, 0.9], adaptation_decay=0.8, beta=0.3),
    "tanh, leaky": TanhCell(membrane_decay=0.7),
    "relu, leaky per neuron": ReLUCell(tau_membrane=[1e-3, 5e-3, 0.0]),
    "readout, synaptic current": LeakyReadoutCell(tau_synapse=3e-3),
    "lif, delays per neuron": DelayedCell(LIFCell(threshold=0.7), steps=[0, 1.3, 3]),
    "alif, delays that may be longer": DelayedCell(ALIFCell(beta=0.3), steps=2, longest=4),
    "readout per neuron": LeakyReadoutCell(membrane_decay=[0.0, 0.5, 1.0]),
}


def operations(cell: Cell, backend: str = "numpy") -> CellOperations:
    return CellOperations(get_backend(backend), cell.surrogate)  # type: ignore[arg-type]


def step(
    cell: Cell,
    states: Mapping[str, Any],
    z: Any,
    current: Any,
    size: int = SIZE,
    dt: float = DT,
    backend: str = "numpy",
    nx: CellOperations | None = None,
) -> tuple[dict[str, Any], Any]:
    """s_t and z_t from s_{t-1}, z_{t-1} and I_t."""
    nx = nx or operations(cell, backend)
    p = namespace(backend_constants(nx.nx, cell, size, dt, "float64", "test"))
    after = cell.update(nx, p, namespace(states), z, current)
    return after, cell.emit(nx, p, namespace(after))


def trajectory(cell: Cell, currents: np.ndarray, dt: float = DT) -> dict[str, np.ndarray]:
    """Every state and ``z`` [time, …, neuron] from rest, under input currents of that shape."""
    zero = np.zeros(currents.shape[1:])
    states, z = dict.fromkeys(cell.state_names(), zero), zero
    history: dict[str, list[np.ndarray]] = {name: [] for name in (*cell.state_names(), "z")}
    for current in currents:
        states, z = step(cell, states, z, current, currents.shape[-1], dt)
        for name, value in {**states, "z": z}.items():
            history[name].append(value)
    return {name: np.array(values) for name, values in history.items()}


def trajectories_on(backend: str, cells: Mapping[str, Cell], currents: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The trajectories of several cells, stepped side by side in one compiled scan."""
    nx = get_backend(backend)
    names = {label: (*cell.state_names(), "z") for label, cell in cells.items()}

    def split(flat: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
        values = iter(flat)
        return {label: {name: next(values) for name in each} for label, each in names.items()}

    def body(carry: Any, given: Any) -> Any:
        flat: list[Any] = []
        for label, before in split(carry).items():
            after, z = step(cells[label], before, before["z"], given[0], currents.shape[-1], backend=backend)
            flat += [{**after, "z": z}[name] for name in names[label]]
        return tuple(flat), tuple(flat)

    def stepped(currents: Any) -> dict[str, dict[str, Any]]:
        zero = nx.full(currents.shape[1:], 0.0, "float64")
        return split(nx.scan(body, (zero,) * sum(map(len, names.values())), (currents,), currents.shape[0])[1])

    return converted(nx.to_numpy, nx.jit(stepped)(nx.asarray(currents)))


def noise(*shape: int, seed: int = 0, scale: float = 0.8) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)
