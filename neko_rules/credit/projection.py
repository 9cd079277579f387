"""Projection: the influence of all parameters on all states as one random product, right on average (UORO).

With a vector ν of independent random signs over all states, drawn anew at every step,

    s̃_t = ρ₀ (∂s_t/∂s_{t-1}) s̃_{t-1} + ρ₁ ν            [batch, state]
    θ̃_t = θ̃_{t-1} / ρ₀ + νᵀ (∂s_t/∂θ) / ρ₁             [batch, parameter]
    dE_t/dθ = Σ_batch (∂E_t/∂s_t · s̃_t) θ̃_t

has the mean of RTRL's gradient for any ρ; those that keep both factors alike keep the variance low:
ρ₀² = ‖θ̃_{t-1}‖ / ‖(∂s_t/∂s_{t-1}) s̃_{t-1}‖ and ρ₁² = ‖νᵀ ∂s_t/∂θ‖ / ‖ν‖. The state is that of all cells after a whole
time step, through all connections within the step. Memory O(parameters) per example, whatever the number of neurons;
over a whole sequence θ̃ need not be carried at all.

Reference: C. Tallec, Y. Ollivier, Unbiased online recurrent optimization, ICLR 2018.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules import trees
from neko_rules.backend import Array, Arrays, Backend, Parameters
from neko_rules.credit.recursion import Local, times, total
from neko_rules.credit.stepwise import Model, Now, State
from neko_rules.credit.traces import Synapses, added, synapses
from neko_rules.kernels.dense import multiplied
from neko_rules.layers.forward import Signals, Z
from neko_rules.layers.graph import INPUT, Graph

SMALLEST = 1e-7
"""What is added to norms, so that a factor that is zero stays finite."""


_FEW_PRODUCTS = 1 << 16
"""Products of pairs of time steps of an example that are kept in any case."""

_ENOUGH_NEURONS = 16
"""Neurons from which on sums of random signs of all of them are hardly ever zero."""


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
        state: State = {_tangent_of(name): tangent for name, tangent in self._at_rest(batch).items()}
        for of in self.of:
            state[of.name] = {"projected": m.nx.full((batch, of.pre, of.post), 0.0, m.dtype)}
        return state

    def step(self, state: State, now: Now, signals: Signals) -> tuple[State, Parameters]:
        """Both factors after a time step, and their product with the signals."""
        nx, local = now.model.nx, now.local()
        tangents = {name: state[_tangent_of(name)] for name in now.model.graph.order}
        carried = self._carried(tangents, now, local)
        errors = self._pulled_back(now, local)
        pulled = {
            of.name: of.sent(nx, now.moment, errors[of.population])[:, :, None] * errors[of.population][:, None, :]
            for of in self.of
        }
        old = self._norm([state[of.name]["projected"] for of in self.of])
        rho_0, rho_1 = self._scales(old, self._norm(list(pulled.values())), carried, now.drawn)
        tangents = self._renewed(carried, rho_0, rho_1, now.drawn, local)
        after: State = {_tangent_of(name): tangent for name, tangent in tangents.items()}
        for of in self.of:
            both = state[of.name]["projected"] / rho_0[:, None, None] + pulled[of.name] / rho_1[:, None, None]
            after[of.name] = {"projected": both}
        along = self._along(tangents, signals)[:, None, None]
        found = {of.name: of.shaped(nx, nx.sum(along * after[of.name]["projected"], axis=0)) for of in self.of}
        return {key: after[key] for key in state}, found

    def _at_rest(self, batch: int) -> dict[str, dict[str, Array]]:
        """s̃ before the first time step, and what it makes of the outputs, by population."""
        m = self.model
        zero = {name: m.nx.full((batch, m.graph.populations[name].size), 0.0, m.dtype) for name in m.graph.order}
        return {name: dict.fromkeys((*m.jacobians[name].states, Z), zero[name]) for name in m.graph.order}

    def over_time_pays(self, steps: int) -> bool:
        """Whether ``over_time`` takes about as much memory as ``step``, or little, and finds as much of a small norm.

        What time steps give may cancel to the last bit where neurons are few and send the same all the time. Carried
        forward it is zero then; the norm made of products in single precision is a thousandth of what has cancelled.
        """
        neurons = sum(population.size for population in self.model.graph.populations.values())
        few = steps * steps <= max(_FEW_PRODUCTS, 4 * sum(of.pre * of.post for of in self.of))
        return few and neurons >= _ENOUGH_NEURONS

    def over_time(self, now: Now, signals: Signals) -> Parameters:
        """The gradient of a whole sequence, to the number that ``step`` finds by and by.

        θ̃_t = Σ_s c_ts g_s is a sum of what the time steps gave, g_s = νᵀ ∂s_s/∂θ, each of which is a product of what
        was sent and of an error. Its norm is known from the products g_t·g_s, and what it adds to the gradient by how
        much of the steps' signals meets each g_s in the end, so that no vector of parameters is carried:

            ‖θ̃_t‖² = ‖θ̃_{t-1}‖² / ρ₀² + 2 Σ_s c_(t-1)s g_s·g_t / (ρ₀ ρ₁) + ‖g_t‖² / ρ₁²
            dE/dθ = Σ_batch,s a_s g_s / ρ₁,s    a_s = ∂E_s/∂s_s · s̃_s + a_{s+1} / ρ₀,s+1

        Args:
            now: a whole forward pass as one moment, and all that was drawn, [time, batch, neuron].
            signals: as for ``step``, of all time steps.
        """
        nx, model, local = now.model.nx, now.model, now.local()
        errors = self._pulled_back(now, local)
        moving = {
            (name, entry): value
            for name, entries in local.items()
            for entry, value in entries.items()
            if len(getattr(value, "shape", ())) == 3
        }
        steps, batch, _ = now.moment.after[model.graph.output][Z].shape
        alike = self._products(now, errors)
        each = nx.eye(steps, model.dtype)
        squares = nx.transpose(nx.sum(alike * each, axis=2), (1, 0))
        inputs = (moving, now.drawn, signals, nx.transpose(alike, (1, 0, 2)), each, squares)

        def forward(carry: Any, given: Any) -> tuple[Any, Any]:
            tangents, shares, square = carry
            derivatives, drawn, arriving, products, here, own = given
            at_step = {
                name: {entry: derivatives.get((name, entry), value) for entry, value in entries.items()}
                for name, entries in local.items()
            }
            carried = self._carried(tangents, now, at_step)
            rho_0, rho_1 = self._scales(nx.sqrt(square), nx.sqrt(own), carried, drawn)
            tangents = self._renewed(carried, rho_0, rho_1, drawn, at_step)
            # Where nothing was given ρ is next to nothing, and what is divided by it for a while is not finite.
            kept, taken = nx.heaviside(square) / rho_0, nx.heaviside(own) / rho_1
            met = nx.sum(shares * products, axis=1)
            square = kept * kept * square + 2.0 * kept * taken * met + taken * taken * own
            shares = kept[:, None] * shares + taken[:, None] * here
            # A sum of squares, but for rounding.
            return (tangents, shares, nx.maximum(square, 0.0)), (self._along(tangents, arriving), kept, taken)

        zero = nx.full((batch, steps), 0.0, model.dtype)
        start = self._at_rest(batch), zero, zero[:, 0]
        _, (along, kept, taken) = trees.scan(nx, forward, start, inputs, steps)

        def backward(carry: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
            meets = given[0] + carry[0]
            return (meets * given[1],), (meets * given[2],)

        _, (weights,) = nx.scan(backward, (zero[:, 0],), (along, kept, taken), steps, reverse=True)
        weights = nx.expand_dims(weights, 2)
        return {of.name: self._summed(of, now, weights * errors[of.population]) for of in self.of}

    def _carried(
        self, before_all: dict[str, dict[str, Array]], now: Now, local: dict[str, Local]
    ) -> dict[str, dict[str, Array]]:
        """(∂s_t/∂s_{t-1}) s̃_{t-1} of every population."""
        nx, graph = now.model.nx, now.model.graph
        found: dict[str, dict[str, Array]] = {}
        for name in graph.order:
            before = before_all[name]
            currents = []
            for connection in graph.into(name):
                if connection.source != INPUT:
                    source = before_all[connection.source] if connection.delay else found[connection.source]
                    currents.append(nx.matmul(source[Z], nx.transpose(now.back(connection), (1, 0))))
            tangent: dict[str, Array] = {}
            for k in now.model.jacobians[name].states:
                parts = [
                    times(local[name]["D", k, j], before[j]) for j in before if j != Z and ("D", k, j) in local[name]
                ]
                parts += [times(local[name]["r", k], before[Z])] if ("r", k) in local[name] else []
                parts += [times(local[name]["q", k], added(currents))] if currents and ("q", k) in local[name] else []
                tangent[k] = added(parts) if parts else 0 * before[k]
            found[name] = _emitting(tangent, local[name], before[Z])
        return found

    def _scales(
        self, old: Array, new: Array, carried: dict[str, dict[str, Array]], drawn: Parameters
    ) -> tuple[Array, Array]:
        """ρ₀ and ρ₁ [batch], by ‖θ̃_{t-1}‖ and ‖νᵀ ∂s_t/∂θ‖."""
        nx = self.model.nx
        forward = [each for states in carried.values() for key, each in states.items() if key != Z]
        signs = [drawn[sign_name(name, key)] for name, states in carried.items() for key in states if key != Z]
        rho_0 = nx.sqrt(old / (self._norm(forward) + SMALLEST)) + SMALLEST
        return rho_0, nx.sqrt(new / (self._norm(signs) + SMALLEST)) + SMALLEST

    def _renewed(
        self,
        carried: dict[str, dict[str, Array]],
        rho_0: Array,
        rho_1: Array,
        drawn: Parameters,
        local: dict[str, Local],
    ) -> dict[str, dict[str, Array]]:
        """s̃_t, and what it makes of the outputs."""
        after: dict[str, dict[str, Array]] = {}
        for name, states in carried.items():
            tangent = {
                key: rho_0[:, None] * value + rho_1[:, None] * drawn[sign_name(name, key)]
                for key, value in states.items()
                if key != Z
            }
            after[name] = _emitting(tangent, local[name], states[Z])
        return after

    def _along(self, tangents: dict[str, dict[str, Array]], signals: Signals) -> Array:
        """∂E_t/∂s_t · s̃_t, [batch]."""
        return added([self.model.nx.sum(each * tangents[name][key], axis=1) for (name, key), each in signals.items()])

    def _pulled_back(self, now: Now, local: dict[str, Local]) -> dict[str, Array]:
        """νᵀ ∂s_t/∂I_t by population, of one time step or of all: the adjoint with ν in the place of the error."""
        nx, graph = now.model.nx, now.model.graph
        arriving: dict[str, Array] = {}
        found: dict[str, Array] = {}
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
            found[name] = delta
        return found

    def _products(self, now: Now, errors: dict[str, Array]) -> Array:
        """g_s·g_t of all pairs of time steps, [batch, time, time]."""
        nx, found = now.model.nx, []
        for name, error in errors.items():
            own = [of for of in self.of if of.population == name]
            sent = [_products_in_time(nx, now.moment.sent(of.connection)) for of in own if of.connection]
            # A bias is sent 1 at every time step.
            biased = any(of.connection is None for of in own)
            if own:
                found.append(_products_in_time(nx, error) * (added(sent) + 1.0 * biased if sent else 1.0))
        return added(found)

    def _summed(self, of: Synapses, now: Now, error: Array) -> Array:
        """Σ_t x_tᵀ δ_t over the batch."""
        nx = now.model.nx
        flat = nx.reshape(error, (-1, of.post))
        if of.connection is None:
            return of.shaped(nx, nx.sum(flat, axis=0))
        sent = nx.reshape(now.moment.sent(of.connection), (-1, of.pre))
        return of.shaped(nx, multiplied(nx, nx.transpose(sent, (1, 0)), flat))

    def _norm(self, arrays: list[Array]) -> Array:
        """Euclidean norm over everything but the batch, [batch]."""
        nx = self.model.nx
        squares = [nx.sum(nx.reshape(each * each, (each.shape[0], -1)), axis=1) for each in arrays]
        return nx.sqrt(added(squares))


def _tangent_of(population: str) -> str:
    """The name of s̃ of a population in what is carried."""
    return f"{population} tangent"


def _emitting(tangent: dict[str, Array], local: Local, like: Array) -> dict[str, Array]:
    """s̃ of a population's states, with what it makes of the output."""
    emitted = [times(local["h", k], each) for k, each in tangent.items() if ("h", k) in local]
    return {**tangent, Z: added(emitted) if emitted else 0 * like}


def _products_in_time(nx: Backend, array: Array) -> Array:
    """Of [time, batch, neuron] the products of all pairs of time steps, [batch, time, time]."""
    return nx.matmul(nx.transpose(array, (1, 0, 2)), nx.transpose(array, (1, 2, 0)))
