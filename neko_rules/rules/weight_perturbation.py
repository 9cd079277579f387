"""WeightPerturbation: gradients from the loss alone, at weights moved at random; with its defaults it is SPSA.

    g = (1/n) Σ_k (E(w + c d_k) - E(w - c d_k)) / (2c) · d_k        two-sided (antithetic), n directions d_k
    g = (1/n) Σ_k (E(w + c d_k) - E(w)) / c · d_k                   one-sided

The entries of d are random signs (SPSA; 1/d = d) or standard normal numbers. ⟨d dᵀ⟩ is the identity, so ⟨g⟩ = ∇E up to
terms of order c² (two-sided) or c (one-sided) on a smooth network. E is the true loss of the hard network: no surrogate
stands for the spikes, whose loss is piecewise constant in the weights below them; there ⟨g⟩ is a difference quotient at
the distance c (with normal directions two-sided, exactly the gradient of the loss smoothed by a normal of width c), and
a c that moves no spike gives nothing.

References: J. C. Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient approximation,
IEEE Transactions on Automatic Control 37:332, 1992; one-sided: G. Cauwenberghs, A fast stochastic error-descent
algorithm for supervised learning and optimization, Advances in Neural Information Processing Systems 5, 1993.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Arrays, Parameters
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.kernels.host import host_of
from neko_rules.layers.forward import Trajectory
from neko_rules.layers.network import Network
from neko_rules.regularizers import Activity, Regularizer
from neko_rules.rules.kept import Batch, Own
from neko_rules.rules.rule import RULES, Rule, UpdateOptions
from neko_rules.seeding import stream

DISTRIBUTIONS = ("signs", "normal")


@RULES.register("weight_perturbation", "spsa")
class WeightPerturbation(Rule):
    """Weight perturbation: the loss at weights moved at random, forward passes only (SPSA).

    g = (1/n) Σ_k (E(w + c d_k) - E(w - c d_k)) / (2c) · d_k, d_k of random signs.

    The mean squared error of g is (P - 1)/n times |∇E|² for signs, P the number of parameters ((P + 1)/n for normal
    directions): right on average, and noisy in proportion to the size of the network. Penalties of regularisers count
    in E by their value. What is no synapse is not moved.

    Args:
        model: an Evaluator.
        size: c > 0, in the units of the parameters. On spiking neurons it has to be large enough to move spikes; in
            float32, differences below 1e-7 E/c are rounding.
        directions: n, how many directions are averaged in an update.
        antithetic: whether each direction is also taken backwards.
        distribution: of the entries of a direction, ``"signs"`` (±1 with equal probability) or ``"normal"``.
        optimizer, regularizers, weight_decay, clipping, rate_factors: as for Rule.
        seed: of the directions, which depend on it and on the number of updates made, and on nothing else.

    Example:
        >>> from neko_rules import RNN, WeightPerturbation, Evaluator
        >>> model = Evaluator(RNN(4, 2, inputs=3, dtype="float64"))
        >>> rule = WeightPerturbation(model, directions=8, size=1e-4, seed=1)
        >>> x, y = np.ones((4, 5, 3)), np.array([0, 1, 1, 1])
        >>> before = rule.step(x, y)["loss"]
        >>> bool(rule.step(x, y)["loss"] < before)
        True
    """

    requires: ClassVar[str] = "forward"
    descends: ClassVar[str] = "on average"
    about: ClassVar[dict[str, str]] = {
        "axes": "loss differences, weights moved at random",
        "paper": "Spall 1992, IEEE Transactions on Automatic Control 37:332",
        "time": "(1 + 2n) forward passes, O(n B N²) per time step",
        "memory": "one forward pass and n directions, O(T B N + n N²)",
        "identity": "its mean over directions is the gradient, as size → 0 on a smooth network",
    }

    def __init__(
        self,
        model: Evaluator,
        *,
        size: float = 0.1,
        directions: int = 1,
        antithetic: bool = True,
        distribution: str = "signs",
        **options: Unpack[UpdateOptions],
    ) -> None:
        super().__init__(model, **options)
        self.size = arguments.number("size", size, above=0)
        self.directions = arguments.integer("directions", directions, at_least=1)
        self.antithetic = arguments.flag("antithetic", antithetic)
        self.distribution = arguments.choice("distribution", distribution, DISTRIBUTIONS)

    def _draw(self, steps: int, examples: int) -> dict[str, np.ndarray]:
        """The directions [n, *parameter] of the next update, by the name of the parameter."""
        network = self.model.network
        partial, drawn = network.partial, {}
        for name, value in network.values.items():
            shape = tuple(value.shape)
            rng = stream(self.seed, f"perturbation/{self.steps}/{name}")
            size = (self.directions, *shape)
            signs = self.distribution == "signs"
            direction = 2.0 * rng.integers(0, 2, size) - 1.0 if signs else rng.standard_normal(size)
            drawn[name] = direction * partial[name].synapses(*shape) if name in partial else direction
        return drawn

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        nx, network, size = self.nx, self.model.network, self.size
        judgement, here = self._judged(values, batch)

        def loss_at(direction: Arrays, distance: float) -> Array:
            moved = {name: values[name] + distance * d for name, d in zip(values, direction, strict=True)}
            return self._judged(network.within_bounds(moved), batch, measured=False)[1]

        def add(total: Arrays, direction: Arrays) -> tuple[Arrays, Arrays]:
            ahead = loss_at(direction, size)
            slope = (ahead - loss_at(direction, -size)) / (2 * size) if self.antithetic else (ahead - here) / size
            return tuple(t + (slope / self.directions) * d for t, d in zip(total, direction, strict=True)), ()

        zeros = tuple(0 * value for value in values.values())
        found, _ = nx.scan(add, zeros, tuple(drawn[name] for name in values), self.directions)
        return judgement, dict(zip(values, found, strict=True))

    def _judged(self, values: Parameters, batch: Batch, measured: bool = True) -> tuple[Judgement, Array]:
        """A forward pass judged, with figures if they are wanted, and its loss with penalties."""
        nx, model = self.nx, self.model
        # A chain would see weights of few bits, to which those that have been moved would be rounded.
        plain = not self.regularizers and isinstance(model.network, Network) and not model.network.weight_bits
        host = host_of(nx) if plain else None
        found = None if host is None else model.judged_by_chain(host, values, batch, measured, self.steps + 1)
        if found is not None:
            return found, found.loss
        inputs, target, mask = batch
        trajectory = model.network.forward(values, inputs)
        if measured:
            found = model.judge(trajectory, target, mask)
        else:
            found = Judgement(nx.sum(model.example_losses(trajectory, target, mask)), {}, {})
        return found, found.loss + penalty(model, self.regularizers, trajectory)


def penalty(model: Evaluator, regularizers: Sequence[Regularizer], trajectory: Trajectory) -> Array | float:
    """The sum of the penalties of a forward pass."""
    network, total = model.network, 0.0
    activity = Activity.of(network, trajectory)
    for regularizer in regularizers:
        total = total + regularizer.value(model.nx, activity, network.dt)
    return total


SPSA = WeightPerturbation
