"""Posterior: the density of a network's weights given data, p(θ | x, y) ∝ p(y | x, θ)^(1/T) p(θ).

    U(θ) = Σ_examples Σ_supervised outputs -log p(y | f_θ(x)) / T  +  Σ_weights -log p(w)

The likelihood is that whose negative logarithm the evaluator's loss is, *summed* over the data:

    categorical cross-entropy, KL divergence    the class has probability softmax(f)
    mean squared error                          y = f + σ ξ,          -log p = Σ_k (y_k - f_k)²/(2σ²) + K log σ√(2π)
    mean absolute error                         Laplace noise,        -log p = Σ_k |y_k - f_k|/σ + K log 2σ
    poisson                                     counts of rate e^f    (log y! is left out)

What is sampled is the density of the network as it runs, spikes and all: a function of the weights that is piecewise
constant upstream of a spike. A surrogate gradient is not its derivative; it only proposes, the accept step decides.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Parameters
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, nearest
from neko_rules.evaluator import Evaluator
from neko_rules.losses import (
    CategoricalCrossentropy,
    KLDivergence,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SparseCategoricalCrossentropy,
)
from neko_rules.probabilistic.examples import Examples
from neko_rules.probabilistic.force import check_repeatable, force_of, loss_sums, resolve
from neko_rules.probabilistic.priors import PRIORS, Prior
from neko_rules.rules import Rule
from neko_rules.samplers import Density, tempered

LIKELIHOODS: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    KLDivergence,
    MeanSquaredError,
    MeanAbsoluteError,
    Poisson,
)
"""The losses that are negative logarithms of a density of the target, given the output of its step alone."""


class Posterior:
    """The weights of a model as random variables.

    Args:
        model: an Evaluator; its loss is the likelihood.
        prior: of all weights, by name, mapping or Prior.
        prior_scale: of all priors that have no scale of their own; by default 1/√fan_in for weights, which keeps the
            input to a neuron of order 1 however many inputs it has, and 1 for biases (Neal 1996).
        layers: priors of single layers or parameters, such as ``{"readout": {"name": "laplace", "scale": 0.1}}``.
        fixed: layers or parameters that keep the values they have and are not sampled. Constants of neurons that a
            rule could learn, such as a time constant, keep theirs too.
        noise_scale: σ of the outputs' noise, for regression.
        temperature: T of the likelihood. 1 is the posterior; less is a cold posterior, which is another density.
        chunk_size: examples that the network runs at once, which bounds the memory and changes nothing else.

    Raises:
        ArgumentError: an argument is out of range, or names a layer that there is none of.
        IncompatibleError: noise where the likelihood has none.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> model = Evaluator(LIF(4, 2, inputs=3, readout="mean", dtype="float64"))
        >>> posterior = Posterior(model, prior="normal", prior_scale=0.5, layers={"hidden": "laplace"})
        >>> x, y = np.ones((6, 5, 3)), np.array([0, 1, 0, 1, 0, 1])
        >>> density = posterior.density(x, y)
        >>> posterior.dimension, density.energy(np.zeros((1, posterior.dimension))).shape
        (38, (1,))
    """

    def __init__(
        self,
        model: Evaluator,
        prior: str | Mapping[str, Any] | Prior = "normal",
        prior_scale: float | None = None,
        *,
        layers: Mapping[str, str | Mapping[str, Any] | Prior] | None = None,
        fixed: Sequence[str] = (),
        noise_scale: float | None = None,
        temperature: float = 1.0,
        chunk_size: int = 256,
    ) -> None:
        if not isinstance(model, Evaluator):
            raise IncompatibleError(
                "a Posterior takes an Evaluator", received=model, works="wrap the network: Evaluator(network)"
            )
        self.model = model
        self.prior = PRIORS.resolve(prior)
        self.prior_scale = None if prior_scale is None else arguments.number("prior_scale", prior_scale, above=0)
        self.layers = {name: PRIORS.resolve(each) for name, each in (layers or {}).items()}
        if isinstance(fixed, str):
            raise ArgumentError("fixed must be a list of layers or parameters", received=fixed)
        self.fixed = tuple(fixed)
        self.temperature = arguments.number("temperature", temperature, above=0)
        self.chunk_size = arguments.integer("chunk_size", chunk_size, at_least=1)
        if type(model.loss) not in LIKELIHOODS:
            raise IncompatibleError(
                "a posterior needs a loss that is the negative logarithm of a density of the targets",
                received=f"the loss {type(model.loss).__name__}",
                works=f"use one of {', '.join(each.__name__ for each in LIKELIHOODS)}",
            )
        noisy = isinstance(model.loss, (MeanSquaredError, MeanAbsoluteError))
        if noise_scale is not None and not noisy:
            raise IncompatibleError(
                "noise_scale belongs to mean_squared_error and mean_absolute_error",
                received=f"a model with the loss {type(model.loss).__name__}",
                works="leave noise_scale out",
            )
        self.noise_scale = arguments.number("noise_scale", 1.0 if noise_scale is None else noise_scale, above=0)
        self._check_names()
        self._layout: list[tuple[str, np.ndarray, slice]] | None = None

    def _check_names(self) -> None:
        for argument, names in (("layers", self.layers), ("fixed", self.fixed)):
            for name in names:
                self.check_name(argument, name)

    def check_name(self, argument: str, name: str) -> str:
        """The name, which must be that of a layer or a parameter.

        Raises:
            ArgumentError: it is not; the sentence says which argument gave it, and the nearest name there is.
        """
        known = [*self.model.network.layers, *self.model.network.names]
        if name not in known:
            raise ArgumentError(
                f"{argument} must name layers or parameters", received=name, works=nearest(str(name), known)
            )
        return name

    def __repr__(self) -> str:
        return f"Posterior({self.model.network!r}, prior={self.prior!r}, prior_scale={self.prior_scale})"

    # Weights as a vector.

    @property
    def layout(self) -> list[tuple[str, np.ndarray, slice]]:
        """Name, mask of the sampled entries, and place in the vector, of every parameter that is sampled.

        What is no synapse is no parameter, and has no place.
        """
        if self._layout is None:
            network = self.model.network
            network.require_built()
            partial = {connection.weight: connection for connection in network.graph.connections if connection.partial}
            layout, at = [], 0
            for name, value in network.values.items():
                if name in network.learned or any(name == each or name.startswith(f"{each}.") for each in self.fixed):
                    continue
                shape = tuple(value.shape)
                mask = partial[name].synapses(*shape) if name in partial else np.ones(shape, bool)
                layout.append((name, mask, slice(at, at + int(mask.sum()))))
                at += int(mask.sum())
            if not at:
                raise ArgumentError("something must be left to sample", received=f"fixed={list(self.fixed)}")
            self._layout = layout
        return self._layout

    @property
    def dimension(self) -> int:
        """How many numbers are sampled."""
        return self.layout[-1][2].stop

    def vector(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """The sampled entries of parameters, float64 [dimension]."""
        return np.concatenate([np.asarray(parameters[name], np.float64)[mask] for name, mask, _ in self.layout])

    def parameters(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """All parameters by name in the network's type, with the sampled entries put in."""
        network = self.model.network
        filled = network.parameters if self.fixed or network.learned else {}
        for name, mask, place in self.layout:
            value = np.zeros(mask.shape, network.dtype)
            value[mask] = vector[place]
            filled[name] = value
        return {name: filled[name] for name in network.values}

    def _values(self, vector: np.ndarray) -> Parameters:
        return {name: self.model.nx.asarray(value) for name, value in self.parameters(vector).items()}

    # Densities.

    def _priors(self) -> list[tuple[Prior, float, slice]]:
        network, found = self.model.network, []
        for name, mask, place in self.layout:
            layer = next((layer for layer in self.layers if name.startswith(f"{layer}.")), name)
            prior = self.layers.get(name, self.layers.get(layer, self.prior))
            usual = 1.0 if mask.ndim < 2 else 1 / math.sqrt(network.fan_in(name))
            given = prior.scale if prior.scale is not None else self.prior_scale
            found.append((prior, usual if given is None else given, place))
        return found

    def prior_density(self) -> Density:
        """p(θ) as a density."""
        priors = self._priors()

        def energy(position: np.ndarray) -> np.ndarray:
            return np.sum([prior.energy(position[:, at], scale).sum(axis=1) for prior, scale, at in priors], axis=0)

        def both(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            parts = [prior.gradient(position[:, at], scale) for prior, scale, at in priors]
            return energy(position), np.concatenate(parts, axis=1)

        return Density(energy, both, lambda rng, position: both(position)[1])

    def prior_scales(self) -> np.ndarray:
        """The prior's scale of every sampled number [dimension]."""
        scales = np.empty(self.dimension)
        for _, scale, place in self._priors():
            scales[place] = scale
        return scales

    def neurons(self, layer: str) -> list[np.ndarray]:
        """The places in the vector of what enters each neuron of a layer: its incoming weights and its bias.

        Args:
            layer: the name of a layer; channels stand for neurons where weights are shared, as in a convolution.

        Raises:
            ArgumentError: nothing of the layer is sampled, or its parameters do not belong to one neuron each.

        Example:
            >>> from neko_rules import Evaluator, LIF
            >>> Posterior(Evaluator(LIF(4, 2, inputs=3))).neurons("readout")
            [array([28, 30, 32, 34, 36]), array([29, 31, 33, 35, 37])]
        """
        owners: list[np.ndarray] = []
        for name, mask, place in self.layout:
            owner = np.full(place.stop - place.start, -1)
            if name.startswith(f"{layer}."):
                owner = np.broadcast_to(np.arange(mask.shape[-1]), mask.shape)[mask]
            owners.append(owner)
        sizes = sorted({mask.shape[-1] for name, mask, _ in self.layout if name.startswith(f"{layer}.")})
        if len(sizes) != 1:
            raise ArgumentError(
                "neurons moved one at a time must be those of a layer with sampled weights, one column each",
                received=f"{layer!r}, with columns {sizes}",
                works=f"name one of {', '.join(self.model.network.layers)}",
            )
        every = np.concatenate(owners)
        return [np.flatnonzero(every == neuron) for neuron in range(sizes[0])]

    def draw_prior(self, rng: np.random.Generator) -> np.ndarray:
        """Weights drawn from the prior, [dimension]."""
        return np.concatenate([prior.draw(rng, at.stop - at.start, scale) for prior, scale, at in self._priors()])

    def likelihood_density(
        self, examples: Examples, gradient: Rule | None = None, batch_size: int | None = None
    ) -> Density:
        """p(y | x, θ) as a density of θ.

        Args:
            examples: the data.
            gradient: the rule whose gradient proposes; without one there is an energy only.
            batch_size: examples of the mini-batches from which the gradient is estimated.
        """
        factor, constant = _likelihood(self.model.loss, self.noise_scale, self.model.network.outputs)
        force = None if gradient is None else force_of(gradient)
        if force is not None:
            check_repeatable(force, self.model.network.values, examples.take(slice(0, min(len(examples), 8))))

        def rows(position: np.ndarray, one: Any) -> tuple[np.ndarray, np.ndarray]:
            energies, gradients = np.full(len(position), np.nan), np.full_like(position, np.nan)
            for row, vector in enumerate(position):
                if np.isfinite(vector).all():  # a trajectory that has diverged is not run through the network
                    with np.errstate(all="ignore"):
                        energies[row], gradients[row] = one(vector)
            return energies, gradients

        def energy_of(vector: np.ndarray) -> tuple[float, float]:
            values = self._values(vector)
            sums = [loss_sums(self.model, values, chunk) for chunk in examples.chunks()]
            return sum(factor * total + constant * count for total, count in sums), np.nan

        def both_of(vector: np.ndarray) -> tuple[float, np.ndarray]:
            assert force is not None, "asked for with a rule only"
            values, energy, found = self._values(vector), 0.0, np.zeros(self.dimension)
            for chunk in examples.chunks():
                (total, count), gradients = force(values, chunk)
                energy += factor * total + constant * count
                found += factor * self.vector(gradients)
            return energy, found

        def estimate(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
            assert force is not None, "asked for with a rule only"
            size = batch_size or len(examples)
            chunk = examples.draw(rng, size) if size < len(examples) else None
            if chunk is None:
                return rows(position, both_of)[1]

            def one(vector: np.ndarray) -> tuple[float, np.ndarray]:
                _, gradients = force(self._values(vector), chunk)
                return 0.0, factor * len(examples) / size * self.vector(gradients)

            return rows(position, one)[1]

        return Density(
            lambda position: rows(position, energy_of)[0], lambda position: rows(position, both_of), estimate
        )

    def examples(self, x: Any, y: Any) -> Examples:
        """Data in the form that the likelihood takes them, checked against the model, which is then built."""
        return Examples(self.model, x, y, self.chunk_size)

    def fingerprint(self) -> str:
        """How many numbers are sampled, and a checksum of the weights that are not."""
        sampled = {name for name, _, _ in self.layout}
        held = [value for name, value in self.model.network.parameters.items() if name not in sampled]
        return f"{self.dimension} sampled, {checksum(held)}"

    def density(self, x: Any, y: Any, gradient: Rule | None = None, batch_size: int | None = None) -> Density:
        """p(θ | x, y) as a density that a sampler can take, driven by a rule (BPTT by default).

        Args:
            x: inputs, [examples, time, feature].
            y: targets.
            gradient: the rule whose gradient proposes.
            batch_size: examples of the mini-batches of the approximate samplers.

        Raises:
            DataError: the data do not fit the model.
        """
        examples = self.examples(x, y)
        if batch_size is not None and batch_size > len(examples):
            raise DataError("batch_size must be at most the number of examples", received=batch_size)
        likelihood = self.likelihood_density(examples, resolve(gradient, self.model), batch_size)
        return tempered(likelihood, self.prior_density(), self.temperature)

    def log_likelihood(self, vector: np.ndarray, x: Any, y: Any) -> np.ndarray:
        """log p(y | x, θ) of every example, [examples], at temperature 1."""
        factor, constant = _likelihood(self.model.loss, self.noise_scale, self.model.network.outputs)
        examples, values = self.examples(x, y), self._values(vector)
        found = []
        for start in range(0, len(examples), self.chunk_size):
            inputs, target, mask = examples.take(slice(start, start + self.chunk_size))
            outputs = self.model.scored(values, inputs)
            nx = self.model.nx
            weights = nx.broadcast_to(mask, outputs.shape[:2])
            each = weights * (factor * self.model.loss.value(nx, outputs, target) + constant)
            found.append(-nx.to_numpy(nx.sum(each, axis=0)))
        return np.concatenate(found).astype(np.float64)


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """CRC-32 of the bytes of arrays, one after the other."""
    return f"{zlib.crc32(b''.join(each.tobytes() for each in arrays)):08x}"


def _likelihood(loss: Loss, noise_scale: float, outputs: int) -> tuple[float, float]:
    """(factor, constant) with -log p of an output = factor · loss + constant."""
    if isinstance(loss, MeanSquaredError):
        return 1 / (2 * noise_scale**2), outputs * math.log(noise_scale * math.sqrt(2 * math.pi))
    if isinstance(loss, MeanAbsoluteError):
        return 1 / noise_scale, outputs * math.log(2 * noise_scale)
    return 1.0, 0.0
