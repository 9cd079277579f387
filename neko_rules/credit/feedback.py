"""Feedback: the weights through which errors travel down, where they are not the forward weights themselves.

In a chain, a feedback matrix B has the shape of the weights of the connection it stands for, which it shares among
synapses as these do, and takes the place of its weight W in the backward direction only: G_source += (…) Bᵀ. Delayed
connections keep their own weights.

    random      B is drawn once and never changes                         (Lillicrap et al. 2016, Bellec et al. 2020)
    adaptive    B receives the updates of W, and both decay equally       (Kolen & Pollack 1994, Akrout et al. 2019)
    mirror      B ← B + η_m (⟨ξᵀ (ξ W)⟩ - B), ξ white noise               (weight mirror, Akrout et al. 2019)
    sign        B = sign(W) / √fan_in                                     (Liao, Leibo & Poggio 2016)

Other matrices lead to a population [neuron, n_out] from outside of the chain:

    direct      G = (∂E/∂I_out) Bᵀ, the error at the output's current     (Nøkland 2016)
    target      G = - w y* Bᵀ, the target with the weight of its step     (Frenkel, Lefebvre & Bol 2021)
    local       G = (∂L/∂(z B)) Bᵀ, the loss of the layer's own readout   (Mostafa et al. 2018, Kaiser et al. 2020)
    modulator   G = - w m at every neuron, m the signal that is given

Under the adaptive rule W - B shrinks by the factor 1 - decay in each step, whatever the data, where decay is the
learning rate times the sum of weight_decay and feedback_decay. Under the mirror rule the mean of W - B shrinks by the
factor 1 - η_m, as ⟨ξᵀ ξ⟩ is the identity; the response to noise ξ W is linear, the current into the layer above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.initializers import ScaledNormal
from neko_rules.layers.forward import Signals, Z, connected, effective_weight, project, spread
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.losses import Loss, output_gradient
from neko_rules.seeding import stream


def carriers(graph: Graph) -> list[Connection]:
    """The connections through which errors travel down within a time step: all between populations, without delay."""
    return [c for name in graph.order for c in graph.into(name) if c.delay == 0 and c.source != INPUT]


def direct_name(population: str) -> str:
    """The name of the matrix that leads to a population from outside of the chain."""
    return f"{population}.feedback"


def draw(graph: Graph, credit: Credit, seed: int, targets: int) -> dict[str, np.ndarray]:
    """First feedback weights by the name of the weight or population they belong to; none where there are none.

    They are drawn from N(0, 1 / fan_in), each in a stream of its own, whatever the weights start from: a readout that
    starts at zero still sends errors down. The fan-in of a matrix [neuron, n_out] is the number of neurons. What takes
    the place of a sparse connection has its synapses.

    Args:
        graph: the network.
        credit: which spatial credit.
        seed: of the numbers.
        targets: the number of outputs that a target has, which is that of the output neurons but in population codes.
    """
    if not credit.has_feedback:
        return {}
    if credit.passes_down:
        like = (replace(each, initializer=ScaledNormal()) for each in carriers(graph))
        return {c.weight: c.drawn(stream(seed, f"feedback/{c.weight}"), *graph.ends(c, inputs=0)) for c in like}
    outputs = graph.populations[graph.output].size if credit.spatial == "direct" else targets
    wanted = {
        direct_name(name): (graph.populations[name].size, outputs) for name in graph.order if name != graph.output
    }
    return {name: ScaledNormal().sample(stream(seed, f"feedback/{name}"), *shape) for name, shape in wanted.items()}


def backward_weight(nx: Backend, connection: Connection, weight: Array, feedback: Parameters, credit: Credit) -> Array:
    """What stands for a connection's weight in the backward direction."""
    if connection.delay:
        return weight
    if credit.spatial == "sign":
        return nx.sign(weight) / _root_of_fan_in(nx, connection, weight)
    return spread(nx, connection, feedback[connection.weight]) if connection.weight in feedback else weight


def backward_parameter(connection: Connection, parameters: Parameters, feedback: Parameters) -> Array:
    """The same in the shape of the parameter, but for signs."""
    held = parameters if connection.delay or connection.weight not in feedback else feedback
    return held[connection.weight]


def _root_of_fan_in(nx: Backend, connection: Connection, weight: Array) -> Array | float:
    """√ of how many synapses each neuron receives, [1, target] where that is not the same for all."""
    sources, targets = weight.shape
    if connection.complete:
        return math.sqrt(sources)
    received = connection.synapses(sources, targets).sum(axis=0, keepdims=True)
    return nx.asarray(np.sqrt(np.maximum(received, 1)), nx.dtype(weight))


def follow(feedback: Parameters, updates: Parameters, decays: Mapping[str, Array]) -> Parameters:
    """Adaptive feedback after one step: (1 - decay) B + ΔW, each with the decay of its weights."""
    return {name: matrix + (updates[name] - decays[name] * matrix) for name, matrix in feedback.items()}


def mirror(
    nx: Backend, graph: Graph, feedback: Parameters, values: Parameters, noise: Parameters, rate: float
) -> Parameters:
    """Mirrored feedback after one step: B + η_m (⟨ξᵀ (ξ W)⟩ - B), the mean over the rows of the noise [row, source]."""
    after = {}
    for connection in carriers(graph):
        matrix, xi = feedback[connection.weight], noise[connection.weight]
        response = nx.matmul(xi, effective_weight(nx, connection, values))
        seen = nx.matmul(nx.transpose(xi, (1, 0)), response) / xi.shape[0]
        seen = connection.sharing.mean(nx, seen) if connection.shares else connected(nx, connection, seen)
        after[connection.weight] = matrix + rate * (seen - matrix)
    return after


def outside_chain(
    nx: Backend,
    credit: Credit,
    feedback: Parameters,
    output: str,
    sent: dict[str, Array],
    loss: Loss,
    target: Array,
    weights: Array,
) -> Signals:
    """G of every population where signals do not come down from the output: target, local and modulator feedback.

    Args:
        nx: backend.
        credit: which spatial credit.
        feedback: the matrices, as ``draw`` names them.
        output: the population that is read out.
        sent: population → z [time, batch, neuron].
        loss: of the layers' own readouts, and what a target means.
        target: [1 or time, batch, n_out].
        weights: how much each step and example counts, [time, batch].
    """
    found: Signals = {}
    weighted = -nx.expand_dims(weights, -1)
    if credit.spatial == "modulator":
        for name, z in sent.items():
            signal = target if name == output else nx.mean(target, axis=-1, keepdims=True)
            found[name, Z] = nx.broadcast_to(weighted * signal, z.shape)
        return found
    for name, z in sent.items():
        if name == output:
            continue
        matrix = feedback[direct_name(name)]
        down = nx.transpose(matrix, (1, 0))
        if credit.spatial == "target":
            shape = (*weights.shape, target.shape[-1])
            found[name, Z] = project(nx, nx.broadcast_to(weighted * target, shape), down)
        else:
            error = output_gradient(nx, loss, project(nx, z, matrix), target, weights)
            found[name, Z] = project(nx, error, down)
    return found
