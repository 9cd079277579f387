"""Projection: the influence of all parameters on all states as one random product, right on average (UORO).

With a vector ν of independent random signs over all states, drawn anew at every step,

    s̃_t = ρ₀ (∂s_t/∂s_{t-1}) s̃_{t-1} + ρ₁ ν            [batch, state]
    θ̃_t = θ̃_{t-1} / ρ₀ + νᵀ (∂s_t/∂θ) / ρ₁             [batch, parameter]
    dE_t/dθ = Σ_batch (∂E_t/∂s_t · s̃_t) θ̃_t

has the mean of RTRL's gradient for any ρ; those that keep both factors alike keep the variance low:
ρ₀² = ‖θ̃_{t-1}‖ / ‖(∂s_t/∂s_{t-1}) s̃_{t-1}‖ and ρ₁² = ‖νᵀ ∂s_t/∂θ‖ / ‖ν‖. The state is that of all cells after a whole
time step, through all connections within the step. Memory O(parameters) per example, whatever the number of neurons.

Reference: C. Tallec, Y. Ollivier, Unbiased online recurrent optimization, ICLR 2018.
"""

from __future__ import annotations

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.credit.recursion import Local, times, total
from neko_rules.credit.stepwise import Model, Now, State
from neko_rules.credit.traces import added, full, synapses
from neko_rules.layers.forward import Signals, Z
from neko_rules.layers.graph import INPUT, Graph
from neko_rules.layers.jacobians import Entry

SMALLEST = 1e-7
"""What is added to norms, so that a factor that is zero stays finite."""


def draw_signs(graph: Graph, random: np.random.Generator, steps: int, examples: int) -> dict[str, np.ndarray]:
    """ν for every step: (population and state) → -1 or 1, [time, batch, neuron]."""
    return {
        sign_name(name, state): random.integers(0, 2, (steps, examples, graph.populations[name].size)) * 2.0 - 1.0
        for name in graph.order
        for state in graph.cell(name).state_names()
    }


def sign_name(population: str, state: str) -> str:
    """The name of the random signs of a state."""
    return f"signs/{population}.{state}"


class RandomProjection:
    """UORO's two factors.

    Args:
        model: what credit is assigned in.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.of = [of for name in model.graph.order for of in synapses(model.graph, name, model.inputs)]

    def start(self, batch: int) -> State:
        """No influence yet: zeros."""
        m = self.model
        state: State = {}
        for name in m.graph.order:
            zero = m.nx.full((batch, m.graph.populations[name].size), 0.0, m.dtype)
            state[f"{name} tangent"] = dict.fromkeys((*m.jacobians[name].states, Z), zero)
        for of in self.of:
            state[of.name] = {"projected": m.nx.full((batch, of.pre, of.post), 0.0, m.dtype)}
        return state

    def step(self, state: State, now: Now, signals: Signals) -> tuple[State, Parameters]:
        """Both factors after a time step, and their product with the signals."""
        nx, local = now.model.nx, now.local()
        carried = self._tangent(state, now, local)
        pulled = self._pulled_back(now, local)
        old = [state[of.name]["projected"] for of in self.of]
        new = [pulled[of.name] for of in self.of]
        forward = [each for name in carried for key, each in carried[name].items() if key != Z]
        signs = [now.drawn[sign_name(name, key)] for name in carried for key in carried[name] if key != Z]
        rho_0 = nx.sqrt(self._norm(old) / (self._norm(forward) + SMALLEST)) + SMALLEST
        rho_1 = nx.sqrt(self._norm(new) / (self._norm(signs) + SMALLEST)) + SMALLEST
        after: State = {}
        for name, states in carried.items():
            tangent = {
                key: rho_0[:, None] * value + rho_1[:, None] * now.drawn[sign_name(name, key)]
                for key, value in states.items()
                if key != Z
            }
            emitted = [times(local[name]["h", k], tangent[k]) for k in tangent if ("h", k) in local[name]]
            after[f"{name} tangent"] = {**tangent, Z: added(emitted) if emitted else 0 * states[Z]}
        for of in self.of:
            both = state[of.name]["projected"] / rho_0[:, None, None] + pulled[of.name] / rho_1[:, None, None]
            after[of.name] = {"projected": both}
        return {key: after[key] for key in state}, self._gradients(after, now, signals)

    def _tangent(self, state: State, now: Now, local: dict[str, Local]) -> dict[str, dict[str, Array]]:
        """(∂s_t/∂s_{t-1}) s̃_{t-1} of every population."""
        nx, graph = now.model.nx, now.model.graph
        found: dict[str, dict[str, Array]] = {}
        for name in graph.order:
            before = state[f"{name} tangent"]
            currents = []
            for connection in graph.into(name):
                if connection.source != INPUT:
                    source = state[f"{connection.source} tangent"] if connection.delay else found[connection.source]
                    currents.append(nx.matmul(source[Z], nx.transpose(now.back(connection), (1, 0))))
            tangent: dict[str, Array] = {}
            for k in now.model.jacobians[name].states:
                parts = [
                    times(local[name]["D", k, j], before[j]) for j in before if j != Z and ("D", k, j) in local[name]
                ]
                parts += [times(local[name]["r", k], before[Z])] if ("r", k) in local[name] else []
                parts += [times(local[name]["q", k], added(currents))] if currents and ("q", k) in local[name] else []
                tangent[k] = added(parts) if parts else 0 * before[k]
            emitted = [times(local[name]["h", k], tangent[k]) for k in tangent if ("h", k) in local[name]]
            tangent[Z] = added(emitted) if emitted else 0 * before[Z]
            found[name] = tangent
        return found

    def _pulled_back(self, now: Now, local: dict[str, Local]) -> Parameters:
        """νᵀ (∂s_t/∂θ) per example: one step of the adjoint with ν in the place of the error."""
        nx, graph = now.model.nx, now.model.graph
        arriving: dict[str, Array] = {}
        found: Parameters = {}
        like = now.moment.after
        for name in reversed(graph.order):
            z = arriving.get(name, 0.0 * like[name][Z])
            lam = {}
            for k in now.model.jacobians[name].states:
                lam[k] = now.drawn[sign_name(name, k)]
                if ("h", k) in local[name]:
                    lam[k] = lam[k] + times(local[name]["h", k], z)
            delta = total(nx, local[name], [("q", k) for k in lam], lam, z)
            for connection in graph.into(name):
                if connection.source != INPUT and not connection.delay:
                    part = nx.matmul(delta, now.back(connection))
                    known = arriving.get(connection.source)
                    arriving[connection.source] = part if known is None else known + part
            for of in (each for each in self.of if each.population == name):
                if of.constant:
                    entries: list[Entry] = [("c", k, of.constant) for k in (*lam, Z)]
                    error = total(nx, local[name], entries, {**lam, Z: z}, z)
                    found[of.name] = full(nx, error, z)[:, None, :]
                else:
                    found[of.name] = of.sent(nx, now.moment, z)[:, :, None] * delta[:, None, :]
        return found

    def _norm(self, arrays: list[Array]) -> Array:
        """Euclidean norm over everything but the batch, [batch]."""
        nx = self.model.nx
        squares = [nx.sum(nx.reshape(each * each, (each.shape[0], -1)), axis=1) for each in arrays]
        return nx.sqrt(added(squares))

    def _gradients(self, state: State, now: Now, signals: Signals) -> Parameters:
        nx = now.model.nx
        parts = [nx.sum(signal * state[f"{name} tangent"][key], axis=1) for (name, key), signal in signals.items()]
        along = added(parts)[:, None, None]
        return {of.name: of.shaped(nx, nx.sum(along * state[of.name]["projected"], axis=0)) for of in self.of}
