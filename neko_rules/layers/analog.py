"""Analog: a network whose weights lie on a crossbar, and whose products go through its converters.

    I = ADC(DAC(z) W̃) + b        W̃ = one noisy read of the devices that hold W

Every connection has arrays and converters of its own, so that the currents of two connections are added digitally, and
so are biases. The derivative is straight-through (``neko_rules.devices.converters``): every rule sees that of z W̃.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from neko_rules import arguments
from neko_rules.backend import Backend, Parameters, get_backend
from neko_rules.devices import Crossbar
from neko_rules.errors import IncompatibleError
from neko_rules.layers.forward import connected
from neko_rules.layers.graph import Graph
from neko_rules.layers.protocol import NetworkProtocol

Model = TypeVar("Model", bound=NetworkProtocol)


def on_crossbar(network: Model, crossbar: Crossbar, *, read: int = 0) -> Model:
    """The same network as a crossbar shows it: its weights written to devices and read once, its products converted.

    Weights are written as ``Crossbar.first`` does, by write-verify where it has a budget. The network can be run,
    evaluated, and trained on by any rule; to train it by pulses on the devices, give the crossbar to ``Manhattan``.

    Args:
        network: a network, or a wrapped model on a crossbar with exact converters; not changed.
        crossbar: the devices, how they hold weights, and the converters.
        read: which read it is: another number has other read noise, with the crossbar's seed.

    Raises:
        IncompatibleError: a wrapped model was to be read through converters.
        ArgumentError: the network has no weights yet, or the crossbar names a parameter that it lacks.

    Example:
        >>> import numpy as np
        >>> from neko_rules import LIF, Crossbar, Evaluator
        >>> network, x = LIF(8, 2, inputs=3), np.random.default_rng(0).normal(size=(4, 5, 3))
        >>> bar = Crossbar(w_max=4.0, dac_bits=4, dac_bound=3.0, adc_bits=3, adc_bound=2.0)
        >>> coarse = on_crossbar(network, bar)
        >>> np.allclose(coarse.parameters["hidden.input.weight"], network.parameters["hidden.input.weight"])
        True
        >>> np.allclose(Evaluator(coarse).predict(x), Evaluator(network).predict(x))
        False
    """
    network.require_built()
    arguments.integer("read", read, at_least=0)
    twin = network.clone()
    convert(twin, crossbar)
    state = crossbar.first(twin.parameters)
    shapes = {name: value.shape for name, value in state["plus.conductance"].items()}
    read_out = crossbar.weights(get_backend("numpy"), state, crossbar.draw(shapes, read))
    twin.set_parameters(of_synapses(get_backend("numpy"), twin, read_out))
    return twin


def of_synapses(nx: Backend, network: NetworkProtocol, read: Parameters) -> Parameters:
    """What was read of an array, without the noise of devices where the network has no synapse."""
    partial = network.partial
    return {name: connected(nx, partial[name], value) if name in partial else value for name, value in read.items()}


def convert(network: NetworkProtocol, crossbar: Crossbar) -> None:
    """Let a network's products with the weights on a crossbar go through its converters, from now on.

    Raises:
        IncompatibleError: the products are those of a wrapped model.
    """
    converters = None if crossbar.converters.exact else crossbar.converters
    graph = network.graph
    if not isinstance(graph, Graph):
        if converters is not None:
            raise IncompatibleError(
                "the products of a wrapped model are its own, and pass no converters",
                received=converters,
                works="leave dac_bits and adc_bits at 0, or build the network from populations and connections",
            )
        return
    connections = [
        # Every weight matrix has two axes, whatever their lengths.
        replace(each, converters=converters) if crossbar.holds(each.weight, (1, 1)) else each
        for each in graph.connections
    ]
    network.graph = Graph(graph.populations, tuple(connections), graph.output)
