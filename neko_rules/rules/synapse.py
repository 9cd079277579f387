"""Synapse: what e-prop multiplies at one synapse, step by step: the eligibility trace and the learning signal.

    ε_t = (D_t + r_t h_{t-1}ᵀ) ε_{t-1} + q_t x_t,    e_t = h_t·ε_t,    dE/dW_ij = Σ_batch Σ_t G_t^j e_t^ij

x_t is what the sending neuron sends, and D, r, q, h are the receiving neuron's own derivatives. G_t = ∂E/∂z_t has the
readout's memory in it, where the rule's learning signal has. For one hidden layer the sum is e-prop's gradient exactly.
The trace of pp-prop is of rank one, e_t = x̄_t F_t with the receiving neuron's factor (``credit.factors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.backend import Parameters, get_backend
from neko_rules.credit import adjoint
from neko_rules.credit.factors import Factors, by_operations
from neko_rules.credit.recursion import FACTOR, RANK_ONE
from neko_rules.errors import ArgumentError, IncompatibleError, nearest
from neko_rules.layers.forward import Z
from neko_rules.layers.jacobians import Jacobians
from neko_rules.layers.margins import constants_of
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.trains import before


@dataclass(frozen=True)
class SynapseTraces:
    """One synapse over time, [time, batch] each.

    Args:
        sent: x_t of the sending neuron.
        received: z_t of the receiving neuron.
        eligibility: e_t.
        learning_signal: G_t = ∂E/∂z_t.
        dt: time step, seconds.
        name: parameter and neurons, for titles.
    """

    sent: np.ndarray
    received: np.ndarray
    eligibility: np.ndarray
    learning_signal: np.ndarray
    dt: float
    name: str

    @property
    def gradient(self) -> float:
        """Σ_batch Σ_t G_t e_t."""
        return float(np.sum(self.learning_signal * self.eligibility))


def synapse_traces(rule: LearningRule, x: Any, y: Any, parameter: str, source: int, target: int) -> SynapseTraces:
    """Eligibility trace and learning signal of one synapse of a rule with ``neuron`` temporal credit.

    Args:
        rule: such as EProp.
        x: [batch, time, feature].
        y: targets.
        parameter: name of a weight matrix into a population with states.
        source: row, the sending neuron.
        target: column, the receiving neuron.

    Raises:
        IncompatibleError: the rule's temporal credit is not ``neuron``, or the neurons' derivatives depend on their
            input current.
        ArgumentError: there is no such synapse.

    Example:
        >>> from neko_rules import ALIF, EProp, Evaluator
        >>> x, y = 3 * np.random.default_rng(0).normal(size=(2, 9, 4)), np.array([0, 1])
        >>> rule = EProp(Evaluator(ALIF(6, 2, dtype="float64")))
        >>> traces = synapse_traces(rule, x, y, "hidden.input.weight", 1, 3)
        >>> bool(np.isclose(traces.gradient, rule.gradients(x, y)["hidden.input.weight"][1, 3], rtol=1e-12))
        True
    """
    if not isinstance(rule, LearningRule) or rule.credit.temporal != "neuron":
        raise IncompatibleError(
            "one synapse has an eligibility trace for rules with temporal credit 'neuron'",
            received=rule,
            works="use EProp",
        )
    rule.model.check(x, y)
    network = rule.model.network
    connections = {connection.weight: connection for connection in network.graph.connections}
    if parameter not in connections:
        raise ArgumentError("unknown weight matrix", received=parameter, works=nearest(parameter, connections))
    connection = connections[parameter]
    assert network.inputs is not None, "a network whose data were checked knows its inputs"
    shape = network.graph.ends(connection, network.inputs)
    if not (0 <= source < shape[0] and 0 <= target < shape[1]):
        raise ArgumentError(f"{parameter} has {shape[0]} sources and {shape[1]} targets", received=(source, target))
    population = connection.target
    jacobians = rule.jacobians[population]
    if "current" in jacobians.arguments:
        raise IncompatibleError(
            "the derivatives of the neuron must not depend on its input current",
            received=repr(network.graph.cell(population)),
        )
    nx = rule.nx

    def signals(values: Parameters, own: Own, batch: Batch) -> Any:
        inputs, given, mask = batch
        trajectory = network.forward(values, inputs)
        judgement = rule.model.judge(trajectory, given, mask)
        weights = rule.model.step_weights(mask, inputs.shape[0])
        arriving = rule.signals(trajectory, judgement.signals, own, given, weights)
        problem = adjoint.Problem(
            nx,
            network.graph,
            rule.jacobians,
            rule.constants_with(values),
            values,
            own["feedback"],
            trajectory,
            rule.credit,
        )
        return adjoint.learning_signals(problem, arriving)[population, Z]

    signal = nx.to_numpy(nx.jit(signals)(network.values, rule.prepared()[0], rule._given(rule.model.batch(x, y))))[
        :, :, target
    ]
    trajectory = rule.model.trajectory(x)
    history = trajectory.z(connection.source)[:, :, source]
    sent = np.concatenate([0 * history[:1], history[:-1]]) if connection.delay else history
    if not connection.synapses(*shape)[source, target]:
        sent = 0 * sent
    record = trajectory.records[population]
    nx_numpy = get_backend("numpy")
    constants = vars(constants_of(network, population))
    local = jacobians.evaluate(
        nx_numpy, network.graph.cell(population), constants, lambda name: record.history(nx_numpy, name)
    )
    size = record.z.shape
    own_neuron = {entry: np.broadcast_to(value, size)[:, :, target] for entry, value in local.items()}
    if rule.credit.trace == "rank_one":
        eligibility = _rank_one(jacobians, rule.trace_decay, own_neuron, sent)
    else:
        eligibility = _eligibility(jacobians.states, own_neuron, sent)
    name = f"{parameter}[{source}, {target}]"
    return SynapseTraces(sent, record.z[:, :, target], eligibility, signal, network.dt, name)


def _eligibility(states: tuple[str, ...], local: dict[Any, np.ndarray], sent: np.ndarray) -> np.ndarray:
    """e_t of one synapse, [time, batch], from the derivatives of the receiving neuron and what is sent."""
    steps = len(sent)
    epsilon = {state: np.zeros_like(sent[0]) for state in states}
    fired = np.zeros_like(sent[0])
    found = []
    zero = np.zeros_like(sent)
    for t in range(steps):
        before = epsilon
        epsilon = {}
        for state in states:
            own = sum(local.get(("D", state, other), zero)[t] * before[other] for other in states)
            through_spike = local.get(("r", state), zero)[t] * fired
            epsilon[state] = own + through_spike + local.get(("q", state), zero)[t] * sent[t]
        fired = sum((local.get(("h", state), zero)[t] * epsilon[state] for state in states), np.zeros_like(sent[0]))
        found.append(fired)
    return np.stack(found)


def _rank_one(jacobians: Jacobians, decay: float, local: dict[Any, np.ndarray], sent: np.ndarray) -> np.ndarray:
    """The same of a rank-one trace: x̄_t times the factor of the receiving neuron."""
    nx: Any = get_backend("numpy")
    factors = Factors(RANK_ONE, jacobians)
    start = dict.fromkeys(factors.carried, np.zeros_like(sent[0]))
    made = by_operations(nx, factors, local, dict, np.asarray(decay), start, (FACTOR + Z,), len(sent))[1]
    # In time, examples and one neuron.
    trace = before(nx, sent[:, :, None], decay, nearest=False)[:, :, 0] + sent
    found: np.ndarray = trace * made[FACTOR + Z]
    return found
