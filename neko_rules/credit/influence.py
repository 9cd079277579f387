"""Influence: the effect of every parameter on every neuron of the network, carried forward in time (RTRL, SnAp-n).

For the influence S of a parameter θ on the states of a population, and Z on its output,

    ∂I_t/∂θ = Σ W Z^below_t + Σ V Z_{t-1} + x_t δ            δ: the neuron that the synapse ends on
    S_t = D_t S_{t-1} + r_t Z_{t-1} + q_t ∂I_t/∂θ,   Z_t = h_t·S_t      [batch, neuron, pre · post]
    dE_t/dθ = Σ_batch,neuron G_t Z_t + g_t·S_t

over all populations, all of whose paths through time are kept: O(N) times the number of parameters in memory, and O(N²)
times in operations. SnAp-n keeps the entries of the neurons that the synapse's own neuron reaches within n time steps,
the step in which it acts being the first; within a step an effect goes up through all layers. From the network's
diameter on that is RTRL.

Where of its own population a synapse reaches the one neuron that it ends on, as for n = 1, that block is kept as
[batch, pre, post].

References: R. J. Williams, D. Zipser, A learning algorithm for continually running fully recurrent neural networks,
Neural Computation 1, 1989; J. Menick, E. Elsen, U. Evci, S. Osindero, K. Simonyan, A. Graves, Practical real time
recurrent learning with a sparse approximation, ICLR 2021.
"""

from __future__ import annotations

import numpy as np

from neko_rules.backend import Array, Parameters
from neko_rules.credit.fused_influence import influenced_on
from neko_rules.credit.recursion import Local
from neko_rules.credit.stepwise import Model, Now, State
from neko_rules.credit.traces import (
    Recurrent,
    Synapses,
    added,
    full,
    influenced,
    over_batch,
    over_synapses,
    synapses,
)
from neko_rules.kernels.host import host_of
from neko_rules.layers.forward import Signals, Z
from neko_rules.layers.graph import INPUT, Connection, Graph

_ALIKE = 3
"""Neurons of a population that stand for any number of more: what a dense matrix does to one it does to all."""


def reach(graph: Graph, steps: int, most: int | None = None) -> dict[tuple[str, str], np.ndarray]:
    """Which neurons each neuron reaches within a number of time steps: (population, from population) → [to, from].

    Args:
        graph: the network.
        steps: at least 1, the step in which a neuron is acted on being the first.
        most: how large a population is taken to be at most, where all connections are complete; None for all of it.

    Example:
        >>> from neko_rules import LIF
        >>> reach(LIF(3, 2).graph, 1)["hidden", "hidden"].astype(int)
        array([[1, 0, 0],
               [0, 1, 0],
               [0, 0, 1]])
        >>> bool(reach(LIF(3, 2).graph, 2)["hidden", "hidden"].all())
        True
    """
    sizes = {name: min(graph.populations[name].size, most or graph.populations[name].size) for name in graph.order}
    start, total = {}, 0
    for name in graph.order:
        start[name], total = total, total + sizes[name]
    within, later = np.eye(total, dtype=bool), np.eye(total, dtype=bool)
    for connection in graph.connections:
        if connection.source == INPUT:
            continue
        block = connection.synapses(sizes[connection.source], sizes[connection.target]).T
        to, of = start[connection.target], start[connection.source]
        matrix = later if connection.delay else within
        matrix[to : to + block.shape[0], of : of + block.shape[1]] |= block
    for _ in graph.order:
        within = _joined(within, within)
    found = within
    for _ in range(steps - 1):
        grown = _joined(within, _joined(later, found))
        if np.array_equal(grown, found):
            break
        found = grown
    return {
        (to, of): found[start[to] : start[to] + sizes[to], start[of] : start[of] + sizes[of]]
        for to in graph.order
        for of in graph.order
    }


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Boolean product of two matrices, as one that the library is fast at."""
    found: np.ndarray = left.astype(np.float32) @ right.astype(np.float32) > 0
    return found


def goes_back(graph: Graph, steps: int) -> str:
    """How the gradient of such a reach is had backward in time: ``"whole"``, ``"alone"``, or empty if it is not.

    Whole, where all that is ever reached is within reach: as BPTT. Alone, where of its own population a weight reaches
    the neuron that it ends on, and of those above all: errors come down through everything, and at a weight's own
    population they go back through that neuron only. That is SnAp-1 of layers that hear of each other within the step.

    Args:
        graph: the network.
        steps: n, at least 1.
    """
    most = _ALIKE if all(connection.complete for connection in graph.connections) else None
    neurons = sum(min(population.size, most or population.size) for population in graph.populations.values())
    near, ever = (reach(graph, each, most) for each in (steps, neurons))
    if all(np.array_equal(near[key], ever[key]) for key in near):
        return "whole"
    own = steps == 1 and all(not c.delay or c.source in (INPUT, c.target) for c in graph.connections)
    # Of sparse layers a weight may reach some neurons above within the step, and others through those later.
    above = all(np.array_equal(near[to, of], ever[to, of]) for to, of in near if to != of)
    return "alone" if own and above else ""


class Influence:
    """The influence of every parameter on every neuron, in full or within a reach.

    Args:
        model: what credit is assigned in.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        graph = model.graph
        self.of = [of for name in graph.order for of in synapses(graph, name, model.inputs)]
        # Within as many time steps as there are neurons everything reaches everything that it ever will.
        most = sum(population.size for population in graph.populations.values())
        found = reach(graph, model.credit.reach or most)
        self.blocks: dict[tuple[str, str], np.ndarray | None] = {}
        self.alone: set[str] = set()
        for of in self.of:
            for name in graph.order:
                mask = found[name, of.population]
                if name == of.population and np.array_equal(mask, np.eye(of.post, dtype=bool)):
                    self.alone.add(of.name)
                    self.blocks[name, of.name] = None
                elif mask.any():
                    whole = np.broadcast_to(mask[:, None, :], (mask.shape[0], of.pre, of.post))
                    # All that is ever reached needs no mask: what is not stays zero.
                    within = model.credit.reach and not mask.all()
                    self.blocks[name, of.name] = whole.reshape(mask.shape[0], -1) if within else None
        self.own = {of.name: Recurrent(model.nx, of, model.jacobians[of.population], ()) for of in self.of}

    def start(self, batch: int) -> State:
        """No influence yet: zeros."""
        m = self.model
        state: State = {}
        for of in self.of:
            for name in m.graph.order:
                if (name, of.name) in self.blocks:
                    shape: tuple[int, ...] = (batch, m.graph.populations[name].size, of.pre * of.post)
                    if self._is_alone(of, name):
                        shape = (batch, of.pre, of.post)
                    zero = m.nx.full(shape, 0.0, m.dtype)
                    state[f"{of.name} on {name}"] = dict.fromkeys((*m.jacobians[name].states, Z), zero)
        return state

    def step(self, state: State, now: Now, signals: Signals) -> tuple[State, Parameters]:
        """The influence after a time step, and its product with the signals."""
        local = now.local()
        after: State = {}
        found: Parameters = {}
        for of in self.of:
            for name in now.model.graph.order:
                if (name, of.name) in self.blocks:
                    after[f"{of.name} on {name}"] = self._advanced(of, name, state, after, now, local[name])
            found[of.name] = self._gradient(of, after, now, signals)
        return after, found

    def _whole(self, of: Synapses, name: str) -> bool:
        """Whether a block has all entries, and all that acts on it have."""
        senders = (c.source for c in self.model.graph.into(name) if c.source != INPUT)
        return self.blocks[name, of.name] is None and not any(self._is_alone(of, sender) for sender in senders)

    def _is_alone(self, of: Synapses, name: str) -> bool:
        """Whether a block is that of a synapse's own neuron, [batch, pre, post]."""
        return name == of.population and of.name in self.alone

    def _advanced(
        self, of: Synapses, name: str, state: State, after: State, now: Now, local: Local
    ) -> dict[str, Array]:
        nx, host = now.model.nx, host_of(now.model.nx)
        before, like = state[f"{of.name} on {name}"], now.moment.after[name][Z]
        through = []
        for connection in now.model.graph.into(name):
            key = f"{of.name} on {connection.source}"
            # A block that comes later in the step has not acted yet; a delayed one acted in the step before.
            source = state if connection.delay else after
            if connection.source != INPUT and key in source:
                through.append((connection, source[key][Z]))
        if host is not None and not of.constant and not self._is_alone(of, name) and self._whole(of, name):
            drive = of.sent(nx, now.moment, like) if of.population == name else None
            found = influenced_on(host, before, local, [(now.back(c), z) for c, z in through], drive, like)
            if found is not None:
                return found
        currents = [self._through(connection, of, z, now) for connection, z in through]
        if self._is_alone(of, name):
            return self._advanced_alone(of, before, currents, now, local)
        own, here = self.own[of.name], of.population == name
        if here and not of.constant:
            currents.append(own.onto_own_neuron(of.sent(nx, now.moment, like)))
        constants = own.constants(local, like) if here else {}
        after = influenced(before, local, added(currents) if currents else None, constants)
        return {key: self._masked(each, name, of) for key, each in after.items()}

    def _through(self, connection: Connection, of: Synapses, z: Array, now: Now) -> Array:
        """What a connection makes of the influence on its source: on all its targets, or on a synapse's own neuron."""
        nx, back = now.model.nx, now.back(connection)
        sends, receives = (self._is_alone(of, name) for name in (connection.source, connection.target))
        if not sends and not receives:
            return nx.matmul(back, z)
        if sends and receives:
            return nx.sum(back * nx.eye(of.post, now.model.dtype), axis=0) * z
        if sends:
            paths = back[None, :, None, :] * z[:, None, :, :]
            return nx.reshape(paths, (*paths.shape[:2], of.pre * of.post))
        apart = nx.reshape(z, (*z.shape[:2], of.pre, of.post))
        return nx.sum(nx.transpose(back, (1, 0))[None, :, None, :] * apart, axis=1)

    def _advanced_alone(
        self, of: Synapses, before: dict[str, Array], currents: list[Array], now: Now, local: Local
    ) -> dict[str, Array]:
        """The same where only a synapse's own neuron is kept."""
        nx, like = now.model.nx, now.moment.after[of.population][Z]
        constants: dict[str, Array] = {}
        if of.constant:
            own = (entry for entry in local if entry[0] == "c" and entry[2] == of.constant)
            constants = {entry[1]: over_synapses(full(nx, local[entry], like)) for entry in own}
        else:
            currents = [*currents, of.sent(nx, now.moment, like)[:, :, None] + 0.0 * before[Z]]
        return influenced(before, local, added(currents) if currents else None, constants, over_synapses)

    def _masked(self, influence: Array, name: str, of: Synapses) -> Array:
        mask = self.blocks[name, of.name]
        return influence if mask is None else influence * self.model.nx.asarray(mask, self.model.dtype)

    def _gradient(self, of: Synapses, state: State, now: Now, signals: Signals) -> Array:
        nx = now.model.nx
        parts = []
        for (name, key), signal in signals.items():
            block = state.get(f"{of.name} on {name}")
            if block is not None and key in block and self._is_alone(of, name):
                parts.append(nx.sum(block[key] * signal[:, None, :], axis=0))
            elif block is not None and key in block:
                parts.append(over_batch(nx, of, block[key], signal))
        if not parts:
            return of.shaped(nx, nx.full((of.pre, of.post), 0.0, now.model.dtype))
        return of.shaped(nx, added(parts))
