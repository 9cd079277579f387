"""Saved: the state of a rule as NumPy arrays by name, and what one has to be like to be gone on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neko_rules.errors import CheckpointError, nearest
from neko_rules.layers.graph import check_synapses

if TYPE_CHECKING:
    from neko_rules.backend import Parameters
    from neko_rules.rules.rule import Rule

_BEGUN = "optimizer/begun"
"""The entry that says how many updates were made before the optimiser's first."""


def saved(rule: Rule) -> dict[str, np.ndarray]:
    """``Rule.state``."""
    network, (own, memory) = rule.model.network, rule.prepared()
    arrays = {f"parameters/{name}": value for name, value in network.values.items()}
    arrays |= {f"{group}/{name}": value for group, values in own.items() for name, value in values.items()}
    arrays |= {f"optimizer/{slot}/{name}": v for slot, values in memory.items() for name, v in values.items()}
    arrays |= {f"observed/{name}": value for name, value in network.observed.items()}
    numbers = {"steps": rule.steps} | ({_BEGUN: rule.begun} if rule.begun else {})
    copies = {name: rule.nx.to_numpy(value) for name, value in arrays.items()}
    return copies | {name: np.array(number, np.int64) for name, number in numbers.items()}


def load(rule: Rule, state: Mapping[str, np.ndarray]) -> None:
    """``Rule.load_state``."""
    network = rule.model.network
    if not network.built:
        network.build(input_features(network.graph.connections, state))
    current, state = dict(rule.state()), dict(state)
    current.pop(_BEGUN, None)
    begun = int(state.pop(_BEGUN, 0))
    check_entries(current, state)
    given = {n.removeprefix("parameters/"): value for n, value in state.items() if n.startswith("parameters/")}
    check_synapses(network.graph.connections, given)
    if not 0 <= begun <= int(state["steps"]):
        raise CheckpointError(f"{_BEGUN} must lie between 0 and steps, {int(state['steps'])}", begun)

    def taken(prefix: str) -> Parameters:
        # In the order of this rule, whatever the order of the mapping: sums over parameters depend on it.
        names = [name for name in current if name.startswith(prefix)]
        copies = {name: np.array(state[name], network.dtype) for name in names}
        return {name.removeprefix(prefix): rule.nx.asarray(value) for name, value in copies.items()}

    observed = {name: value for name, value in state.items() if name.startswith("observed/")}
    if observed:
        kept = {name.removeprefix("observed/"): rule.nx.asarray(np.array(v)) for name, v in observed.items()}
        network.observed = kept
    own, memory = rule.prepared()
    own, memory = {group: taken(f"{group}/") for group in own}, {slot: taken(f"optimizer/{slot}/") for slot in memory}
    rule.take(taken("parameters/"), own, memory, updates=0)
    rule.steps, rule.begun = int(state["steps"]), begun


def input_features(connections: Sequence[Any], state: Mapping[str, np.ndarray]) -> int:
    """The number of input features that a saved state was made for."""
    for connection in connections:
        weight = state.get(f"parameters/{connection.weight}")
        if connection.source == "input" and weight is not None:
            return int(np.shape(weight)[0])
    raise CheckpointError("the saved state has no weights from the input", works="it was made with another model")


def check_entries(current: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Refuse a state that is not one of this rule and model."""
    for name in given:
        if name not in current:
            raise CheckpointError("the saved state has an entry that this rule lacks", name, nearest(name, current))
    for name, value in current.items():
        if name not in given:
            raise CheckpointError("the saved state lacks an entry", name, "it was made by another rule or model")
        if np.shape(given[name]) != value.shape:
            raise CheckpointError(f"{name} must have shape {value.shape}", np.shape(given[name]))
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(given[name]).astype(value.dtype)).all()
        if not finite:
            raise CheckpointError(f"{name} must be finite in {value.dtype}", "NaN, infinite or too large values")
    if int(given["steps"]) < 0:
        raise CheckpointError("steps must be at least 0", int(given["steps"]))
