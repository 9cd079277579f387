"""Comparisons: deep ensembles and Monte-Carlo dropout, the usual ways to doubt that need no sampler.

A deep ensemble is a network trained several times from other weights (Lakshminarayanan, Pritzel & Blundell 2017).
Monte-Carlo dropout silences neurons at random in training and in prediction alike (Gal & Ghahramani 2016):

    W̃ = diag(m) W / (1 - rate),    m_j ~ Bernoulli(1 - rate) for every neuron j that sends,

one mask per mini-batch and for all its time steps, on all weights from hidden populations; what comes back is
multiplied by the same mask. It is done to the weights, so that every rule can train every model with it as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.errors import DataError, IncompatibleError
from neko_rules.evaluator import Evaluator
from neko_rules.layers.graph import INPUT
from neko_rules.probabilistic.likelihood import checked_noise, foretold
from neko_rules.probabilistic.predictive import Predictive, PredictiveValues
from neko_rules.rules import Rule


class Ensemble:
    """Several trained models that predict together.

    Args:
        models: Evaluators of one task, with one loss and as many outputs.

    Raises:
        DataError: there are none.
        IncompatibleError: one is no Evaluator, or they differ in task, loss or number of outputs.

    Example:
        >>> from neko_rules import LIF
        >>> ensemble = Ensemble([Evaluator(LIF(4, 2, readout="mean", seed=seed)) for seed in range(3)])
        >>> ensemble.predict(np.ones((5, 6, 2))).networks
        3
    """

    def __init__(self, models: Sequence[Evaluator]) -> None:
        if not models:
            raise DataError("an ensemble needs at least one model", received=list(models))
        self.models = list(models)
        for model in self.models:
            if not isinstance(model, Evaluator):
                raise IncompatibleError(
                    "an ensemble takes Evaluators", received=model, works="wrap the network: Evaluator(network)"
                )
        kinds = [(each.network.task_type, type(each.loss).__name__, each.network.outputs) for each in self.models]
        for place, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise IncompatibleError(
                    "the models of an ensemble must have one task, loss and number of outputs",
                    received=f"{kinds[0]}, and {kind} of model {place}",
                )

    def predict(self, x: Any, noise_scale: float | None = None) -> Predictive | PredictiveValues:
        """What the members say together of every example.

        Args:
            x: inputs, [examples, time, feature].
            noise_scale: σ of the noise that a squared or absolute error stands for, in units of the targets; without
                it ``variance`` is that between members alone.

        Raises:
            IncompatibleError: the loss has no noise, or says nothing of the probabilities of classes.
        """
        return together(self.models[0], (model.predict(x) for model in self.models), noise_scale)


def deep_ensemble(make: Callable[[int], Rule], train: Callable[[Rule], Any], members: int) -> Ensemble:
    """Train a rule several times from other weights.

    Args:
        make: a seed to an untrained rule on a model of that seed.
        train: what is done to each, such as ``lambda rule: Trainer(rule).train(x, y, epochs=5)``.
        members: how many.
    """
    rules = [make(seed) for seed in range(arguments.integer("members", members, at_least=1))]
    for rule in rules:
        train(rule)
    return Ensemble([rule.model for rule in rules])


class MonteCarloDropout:
    """Training and prediction with neurons silenced at random.

    Args:
        rule: the rule that trains; its model's weights are those without a mask.
        rate: how probably a neuron is silenced.
        seed: of the masks.

    Raises:
        IncompatibleError: hidden neurons share weights, as those below a convolution do: what is silenced is a weight.

    Example:
        >>> from neko_rules import EProp, LIF
        >>> x, y = np.ones((4, 6, 2)), np.array([0, 1, 0, 1])
        >>> dropout = MonteCarloDropout(EProp(Evaluator(LIF(8, 2, readout="mean"))), rate=0.2)
        >>> loss = dropout.step(x, y)["loss"]
        >>> dropout.predict(x, networks=5).probabilities.shape
        (4, 2)
    """

    def __init__(self, rule: Rule, rate: float = 0.1, seed: int = 0) -> None:
        self.rule, self.rate = rule, arguments.number("rate", rate, at_least=0, below=1)
        self.rng = np.random.default_rng(arguments.integer("seed", seed, at_least=0))
        for connection in rule.model.network.graph.connections:
            if connection.shares and connection.source != INPUT:
                raise IncompatibleError(
                    "a neuron is silenced by its weights, which must be its own",
                    received=f"{connection.weight}, which synapses share",
                    works="convolve the input alone, or use an Ensemble",
                )

    @property
    def model(self) -> Evaluator:
        """The model that is trained."""
        return self.rule.model

    def masks(self) -> dict[str, np.ndarray]:
        """For every weight from a hidden population a column [neuron, 1] of 0 and 1/(1 - rate), one per population."""
        network = self.model.network
        sizes = {name: each.size for name, each in network.graph.populations.items()}
        kept: dict[str, np.ndarray] = {}
        found = {}
        for connection in network.graph.connections:
            if connection.source != INPUT:
                size = sizes[connection.source]
                if connection.source not in kept:
                    kept[connection.source] = (self.rng.random((size, 1)) >= self.rate) / (1 - self.rate)
                found[connection.weight] = kept[connection.source]
        return found

    def step(self, x: Any, y: Any) -> dict[str, float]:
        """One update by the rule with some neurons silenced: what they send is neither used nor changed."""
        network, masks = self.model.network, self.masks()
        network.require_built() if network.built else self.model.check(x, y)
        before = network.parameters
        network.set_parameters({name: before[name] * mask for name, mask in masks.items()})
        masked = network.parameters
        try:
            metrics = self.rule.step(x, y)
        except BaseException:
            # Ctrl-C too: what is silenced for a step must not stay so.
            network.set_parameters(before)
            raise
        after = network.parameters
        # The update of a masked weight is that of the weight times the mask (chain rule); a silenced one stays.
        changes = {name: before[name] + mask * (after[name] - masked[name]) for name, mask in masks.items()}
        network.set_parameters(changes)
        return metrics

    def train(self, x: np.ndarray, y: np.ndarray, epochs: int, batch_size: int = 128, seed: int = 0) -> None:
        """Epochs of updates in an order drawn from the seed.

        Args:
            x: inputs, [examples, time, feature].
            y: targets.
            epochs: how often all examples are gone through.
            batch_size: examples per update; the last of an epoch may have fewer.
            seed: of the order.
        """
        x, y = np.asarray(x), np.asarray(y)
        arguments.integer("epochs", epochs, at_least=0)
        arguments.integer("batch_size", batch_size, at_least=1)
        self.model.check(x, y)
        rng = np.random.default_rng(arguments.integer("seed", seed, at_least=0))
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for start in range(0, len(x), batch_size):
                batch = order[start : start + batch_size]
                self.step(x[batch], y[batch])

    def predict(self, x: Any, networks: int = 30, noise_scale: float | None = None) -> Predictive | PredictiveValues:
        """What so many networks with other neurons silenced say together.

        Args:
            x: inputs, [examples, time, feature].
            networks: how many.
            noise_scale: as for ``Ensemble.predict``.
        """
        arguments.integer("networks", networks, at_least=1)

        def outputs() -> Iterator[np.ndarray]:
            twin, whole = self.model.clone(), self.model.network.parameters
            for _ in range(networks):
                twin.network.set_parameters({name: whole[name] * mask for name, mask in self.masks().items()})
                yield twin.predict(x)

        return together(self.model, outputs(), noise_scale)


def together(
    model: Evaluator, outputs: Iterator[np.ndarray], noise_scale: float | None = None
) -> Predictive | PredictiveValues:
    """The joint prediction of networks of one task.

    Raises:
        ArgumentError: the scale of the noise is out of range.
        IncompatibleError: the loss has no noise, or says nothing of the probabilities of classes.
    """
    noise = checked_noise(model.loss, noise_scale)
    return foretold(outputs, model.network.task_type, model.loss, noise)
