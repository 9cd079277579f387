"""Traces: gradients forward in time, by the influence of every synapse on its neuron's state (neuron credit).

    ε_t = (D_t + r_t h_{t-1}ᵀ) ε_{t-1} + q_t x_t        the eligibility vector [batch, state, pre, post]
    e_t = h_t·ε_t                                       the eligibility trace  [batch, pre, post]
    dE/dW = Σ_t G_t e_t                                 G_t = ∂E/∂z_t from outside the population

A bias is a synapse with constant input 1. This is the same number as the adjoint with neuron credit, at O(N²) memory
per example instead of O(T·N), and it can be had at every time step. Where G_t is only known within the time step
because the readout has a memory κ, the same for all its units, the traces of the population below it are filtered
instead of the signal: Σ_t κ^{t'-t} e_t for t ≤ t'.

Reference: G. Bellec et al., Nature Communications 11:3625, 2020, results and methods on eligibility traces.
"""

from __future__ import annotations

from typing import Any

from neko_rules.backend import Array, Arrays, Parameters, shift_later
from neko_rules.credit.adjoint import Problem, times
from neko_rules.layers.forward import without_diagonal
from neko_rules.layers.graph import bias_name
from neko_rules.layers.jacobians import Entry


def gradients(problem: Problem, signals: dict[str, Array], leak: float = 0.0) -> Parameters:
    """dE/dparameter of every weight and bias into the populations that ``signals`` names.

    Args:
        problem: the forward pass.
        signals: population name → G_t [time, batch, neuron].
        leak: κ with which the traces are filtered; 0 where the signals have all their paths through time.
    """
    nx, found = problem.nx, {}
    for name, signal in signals.items():
        for connection in problem.graph.into(name):
            sent = problem.trajectory.sent(nx, connection)
            gradient = _eligibility_gradient(problem, name, sent, signal, leak)
            found[connection.weight] = without_diagonal(nx, gradient) if connection.masked else gradient
        if problem.graph.populations[name].bias:
            ones = nx.full((*signal.shape[:2], 1), 1.0, nx.dtype(signal))
            found[bias_name(name)] = _eligibility_gradient(problem, name, ones, signal, leak)[0]
    return found


def _eligibility_gradient(problem: Problem, name: str, sent: Array, signal: Array, leak: float) -> Array:
    """Σ_t G_t e_t for one connection, stepping its eligibility vectors forward: [pre, post]."""
    nx = problem.nx
    steps, batch, neurons = signal.shape
    record, cell, constants = problem.trajectory.records[name], problem.graph.cell(name), problem.constants[name]
    derivatives = problem.jacobians[name].evaluate(nx, cell, constants, lambda key: record.history(nx, key))
    local = {
        entry: nx.broadcast_to(value if nx.is_tensor(value) else nx.full((), value, nx.dtype(signal)), signal.shape)
        for entry, value in derivatives.items()
    }
    states = tuple(dict.fromkeys(entry[1] for entry in local))
    entries = list(local)
    before = {("h", state): shift_later(nx, local["h", state]) for state in states if ("h", state) in local}

    def step(carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        *vectors, filtered, total = carry
        x, g, *rest = inputs
        now = {entry: value[:, None, :] for entry, value in zip(entries, rest, strict=False)}
        earlier = {entry: value[:, None, :] for entry, value in zip(before, rest[len(entries) :], strict=True)}
        emitted = _sum(earlier[entry] * vectors[states.index(entry[1])] for entry in earlier)
        after = [_sum(_contributions(now, k, states, vectors, emitted, x[:, :, None]), like=vectors[0]) for k in states]
        trace = _sum(now["h", k] * after[i] for i, k in enumerate(states) if ("h", k) in now)
        filtered = leak * filtered + trace
        return (*after, filtered, total + nx.sum(g[:, None, :] * filtered, axis=0)), ()

    zero = nx.full((batch, sent.shape[2], neurons), 0.0, nx.dtype(signal))
    carry = (*(zero for _ in states), zero, nx.full((sent.shape[2], neurons), 0.0, nx.dtype(signal)))
    last, _ = nx.scan(step, carry, (sent, signal, *(local[e] for e in entries), *before.values()), steps)
    return last[-1]


def _contributions(
    now: dict[Entry, Array], k: str, states: tuple[str, ...], vectors: list[Array], emitted: Any, x: Array
) -> list[Array]:
    """The terms of ε_t for state k: Σ_j D_kj ε_j + r_k (h_{t-1}·ε_{t-1}) + q_k x_t."""
    terms = [now["D", k, j] * vectors[i] for i, j in enumerate(states) if ("D", k, j) in now]
    if ("r", k) in now:
        terms.append(now["r", k] * emitted)
    if ("q", k) in now:
        terms.append(times(now["q", k], x))
    return terms


def _sum(parts: Any, like: Array | None = None) -> Any:
    """A sum of arrays; zeros like a given one if there are none."""
    total: Any = None
    for part in parts:
        total = part if total is None else total + part
    return total if like is None or total is not None else 0 * like
