"""Feedback: the weights through which errors travel down, where they are not the forward weights themselves.

A feedback matrix B has the shape [source, target] of the connection it stands for and takes the place of its weight W
in the backward direction only: G_source += (…) Bᵀ. Delayed connections keep their own weights.

    random      B is drawn once and never changes                         (Lillicrap et al. 2016, Bellec et al. 2020)
    adaptive    B receives the updates of W, and both decay equally       (Kolen & Pollack 1994, Akrout et al. 2019)

Under the adaptive rule W - B shrinks by the factor 1 - decay in each step, whatever the data, where decay is the
learning rate times the sum of weight_decay and feedback_decay.
"""

from __future__ import annotations

import numpy as np

from neko_rules.backend import Array, Backend, Parameters
from neko_rules.credit.axes import Credit
from neko_rules.initializers import ScaledNormal
from neko_rules.layers.graph import INPUT, Connection, Graph
from neko_rules.seeding import stream


def carriers(graph: Graph) -> list[Connection]:
    """The connections through which errors travel down within a time step: all between populations, without delay."""
    return [c for name in graph.order for c in graph.into(name) if c.delay == 0 and c.source != INPUT]


def draw(graph: Graph, credit: Credit, seed: int) -> dict[str, np.ndarray]:
    """First feedback weights by the name of the weight they stand for; none for symmetric feedback.

    They are drawn from N(0, 1 / fan_in), each in a stream of its own, whatever the weights start from: a readout that
    starts at zero still sends errors down.
    """
    if not credit.has_feedback:
        return {}
    drawn = {}
    for connection in carriers(graph):
        shape = graph.parameter_shapes(inputs=0)[connection.weight]
        drawn[connection.weight] = ScaledNormal().sample(stream(seed, f"feedback/{connection.weight}"), *shape)
    return drawn


def backward_weight(connection: Connection, weight: Array, feedback: Parameters) -> Array:
    """What stands for a connection's weight in the backward direction."""
    return weight if connection.delay else feedback.get(connection.weight, weight)


def follow(nx: Backend, feedback: Parameters, updates: Parameters, credit: Credit, decay: Array) -> Parameters:
    """Feedback after one step: (1 - decay) B + ΔW for the adaptive rule, unchanged otherwise."""
    if credit.spatial != "adaptive":
        return feedback
    return {name: matrix + (updates[name] - decay * matrix) for name, matrix in feedback.items()}
