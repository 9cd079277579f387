"""Autodiff: the framework's own automatic differentiation of the same network, as an oracle for the engine."""

from __future__ import annotations

from neko_rules.backend import Array, Parameters
from neko_rules.evaluator import Evaluator
from neko_rules.layers.forward import run


def gradients(
    model: Evaluator, parameters: Parameters, inputs: Array, target: Array, mask: Array, detach_delayed: bool = False
) -> Parameters:
    """dE/dparameter by torch, TensorFlow or JAX, stepping the network with differentiable spikes.

    Args:
        model: what is differentiated.
        parameters: name → array.
        inputs: [time, batch, feature].
        target: dense, [1 or steps, batch, n_out].
        mask: [1 or steps, batch].
        detach_delayed: cut the gradient through delayed connections, which gives e-prop for one hidden layer.

    Raises:
        BackendError: the backend has no automatic differentiation (NumPy).
    """
    network = model.network

    def loss(values: Parameters) -> Array:
        trajectory = run(
            network.nx,
            network.graph,
            network.constants_with(values),
            values,
            inputs,
            differentiable=True,
            detach_delayed=detach_delayed,
        )
        return model.judge(trajectory, target, mask).loss

    _, found = network.nx.value_and_grad(loss)(parameters)
    return found
