"""NodePerturbation: gradients from the loss alone, with noise added to the input current of every neuron.

    I± = x± W ± σ ξ        ξ ~ N(0, 1), for every neuron, example and time step
    dE/dW = (1/n) Σ_k Σ_b Σ_t ((E_b⁺ - E_b) x_t⁺ᵀ ξ_t - (E_b⁻ - E_b) x_t⁻ᵀ ξ_t) / (2σ)

E_b is an example's part of the loss without noise and serves as a baseline; ± are two forward passes with the same
noise and opposite signs, x± what arrives at the synapse in them. The sum is the score-function estimate for currents
distributed as N(x W, σ²): its mean is exactly the gradient of the loss smoothed by the noise, on spiking and on smooth
networks alike and for any σ (a spike enters only by its effect on the loss, so no surrogate is used). As σ → 0 on a
smooth network x± → x, the sum becomes (E⁺ - E⁻)/(2σ) Σ_t x_tᵀ ξ_t, and its mean the gradient of BPTT.

In a wrapped model the nodes are the outputs of its layers that have parameters, o = f(x; θ) ± σ ξ, and x_tᵀ ξ_t becomes
the derivative of ξ·f(x; θ) with respect to that layer's θ, by the library. Where batch normalisation lets one example
into the outputs of another, all examples are credited with the loss of the batch.

References: I. R. Fiete, H. S. Seung, Gradient learning in spiking neural networks by dynamic perturbation of
conductances, Physical Review Letters 97:048104, 2006; J. Werfel, X. Xie, H. S. Seung, Learning curves for stochastic
gradient descent in linear feedforward networks, Neural Computation 17:2699, 2005 (node against weight perturbation).
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Unpack

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Arrays, Parameters
from neko_rules.credit import adjoint
from neko_rules.credit.axes import Credit
from neko_rules.errors import IncompatibleError
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.adaptors import Adaptor
from neko_rules.layers.forward import Record, Trajectory
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.rule import DROPOUT, RULES, Rule, UpdateOptions
from neko_rules.rules.weight_perturbation import penalty
from neko_rules.seeding import stream


@RULES.register("node_perturbation")
class NodePerturbation(Rule):
    """Node perturbation: noise on every neuron's input current, and how it changes the loss of its example.

    dE/dW = (1/n) Σ_k Σ_b Σ_t ((E_b⁺ - E_b) x_t⁺ᵀ ξ_t - (E_b⁻ - E_b) x_t⁻ᵀ ξ_t) / (2σ), dE/db likewise with x = 1.

    Its variance grows with the number of neurons times time steps; each example has noise of its own and is credited
    with its own loss, so a batch averages. A regulariser looks at all examples at once, and its change is credited to
    the noise of all of them.

    Args:
        model: an Evaluator.
        size: σ > 0, the standard deviation of the current at every step, in the units of the membrane (the threshold
            of a LIF neuron is 1).
        directions: n, how many pairs of noisy passes are averaged in an update; they are run as one larger batch.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for Rule.
        seed: of the noise, which depends on it and on the number of updates made, and on nothing else.

    Raises:
        IncompatibleError: the network has learned constants, which a current says nothing about, or is a JaxModel,
            whose function has no layers that could be seen.

    Example:
        >>> from neko_rules import LIF, Evaluator, NodePerturbation
        >>> rule = NodePerturbation(Evaluator(LIF(8, 2, inputs=3)), size=0.1, directions=4)
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 0, 1])
        >>> rule.gradients(x, y)["hidden.input.weight"].shape
        (3, 8)
    """

    requires: ClassVar[str] = "nodes"
    descends: ClassVar[str] = "on average"
    about: ClassVar[dict[str, str]] = {
        "axes": "loss differences, currents moved at random",
        "paper": "Fiete & Seung 2006, Physical Review Letters 97:048104",
        "time": "(1 + 2n) forward passes and n weight gradients, O(n B N²) per time step",
        "memory": "the noise and the noisy passes, O(n T B N)",
        "identity": "its mean is the gradient of the loss smoothed by the noise; BPTT as size → 0 on a smooth network",
    }

    def __init__(
        self, model: Evaluator, *, size: float = 0.1, directions: int = 1, **options: Unpack[UpdateOptions]
    ) -> None:
        super().__init__(model, **options)
        self.size = arguments.number("size", size, above=0)
        self.directions = arguments.integer("directions", directions, at_least=1)
        if model.network.learned:
            raise IncompatibleError(
                "node perturbation gives gradients of weights and biases only",
                received=f"the learned constants {', '.join(model.network.learned)}",
                works="use weight_perturbation, or leave learnable out",
            )

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        """ξ [time, n · batch, neuron] by population, or [n, …] by layer of a wrapped model."""
        network = self.model.network
        if isinstance(network, Adaptor):
            return {
                name: stream(self.seed, f"noise/{self.steps}/{name}").standard_normal((self.directions, *shape))
                for name, shape in network.nodes(steps, examples).items()
            }
        populations = network.graph.populations
        return {
            name: stream(self.seed, f"noise/{self.steps}/{name}").standard_normal(
                (steps, self.directions * examples, population.size)
            )
            for name, population in populations.items()
        }

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        nx, network, model = self.nx, self.model.network, self.model
        if isinstance(network, Adaptor):
            return self._by_layers(network, values, drawn, batch)
        inputs, target, mask = batch
        trajectory = network.forward(values, inputs)
        judgement = model.judge(trajectory, target, mask)
        # All noisy passes are one batch: every direction forwards, then every direction backwards.
        passes = 2 * self.directions
        signed = {name: nx.concat([xi, -xi], 1) for name, xi in drawn.items()}
        noise = {name: self.size * xi for name, xi in signed.items()}
        noisy = network.forward(values, nx.concat([inputs] * passes, 1), extra_current=noise)
        # The loss is a mean over its batch, here of all passes together.
        losses = passes * model.example_losses(noisy, nx.concat([target] * passes, 1), nx.concat([mask] * passes, 1))
        rise = losses - nx.concat([model.example_losses(trajectory, target, mask)] * passes, 0)
        if self.regularizers:
            rise = rise + self._penalty_rise(noisy, trajectory)
        factor = (rise / (passes * self.size))[None, :, None]
        problem = adjoint.Problem(
            nx, network.graph, network.jacobians, network.constants, values, {}, noisy, Credit("none")
        )
        found: Parameters = {}
        for name in network.graph.order:
            found.update(adjoint.weight_gradients(problem, name, factor * signed[name]))
        return judgement, {name: found[name] for name in values}

    def _by_layers(
        self, network: Adaptor, values: Parameters, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        """The same for the layers of a wrapped model; every pass is a batch of its own, with the same dropout."""
        nx, model = self.nx, self.model
        inputs, target, mask = batch
        trajectory = network.forward(values, inputs)
        judgement, before = model.judge(trajectory, target, mask), model.example_losses(trajectory, target, mask)
        layers, parts = [name for name in drawn if name != DROPOUT], 2 * self.directions

        def score_gradient(noise: Parameters, xi: Parameters) -> Parameters:
            rise = model.example_losses(network.noisy(values, inputs, noise), target, mask) - before
            if network.observes:
                rise = nx.sum(rise) + 0 * rise
            factor = rise / (parts * self.size)
            weights = {
                name: nx.stop_gradient(nx.reshape(factor, (-1, *(1,) * (len(each.shape) - 1))) * each)
                for name, each in xi.items()
            }
            return nx.value_and_grad(partial(network.node_score, inputs=inputs, noise=noise, weights=weights))(values)[
                1
            ]

        def add(total: Arrays, direction: Arrays) -> tuple[Arrays, Arrays]:
            for sign in (1.0, -1.0):
                xi = {name: sign * each for name, each in zip(layers, direction, strict=True)}
                found = score_gradient({name: self.size * each for name, each in xi.items()}, xi)
                total = tuple(part + found[name] for part, name in zip(total, values, strict=True))
            return total, ()

        zeros = tuple(0 * value for value in values.values())
        total, _ = nx.scan(add, zeros, tuple(drawn[name] for name in layers), self.directions)
        return judgement, dict(zip(values, total, strict=True))

    def _penalty_rise(self, noisy: Trajectory, trajectory: Trajectory) -> Array:
        """What each noisy pass adds to the penalty of the regularisers, for each of its examples: [2n · batch]."""
        nx, examples = self.nx, trajectory.inputs.shape[1]
        before = penalty(self.model, self.regularizers, trajectory)
        rises = []
        for first in range(0, noisy.inputs.shape[1], examples):
            part = slice(first, first + examples)
            records = {
                name: Record({key: state[:, part] for key, state in record.states.items()}, record.z[:, part], None)
                for name, record in noisy.records.items()
            }
            one = Trajectory(noisy.inputs[:, part], records)
            rise = penalty(self.model, self.regularizers, one) - before
            rises.append(nx.broadcast_to(rise, (examples,)))
        return nx.concat(rises, 0)
