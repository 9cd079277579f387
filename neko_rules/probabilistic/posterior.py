"""Posterior: the density of a network's weights given data, p(θ | x, y) ∝ p(y | x, θ)^(1/T) p(θ).

    U(θ) = Σ_examples Σ_supervised outputs -log p(y | f_θ(x)) / T  +  Σ_weights -log p(w)

The likelihood is that whose negative logarithm the evaluator's loss is, *summed* over the data; ``likelihood`` says
what it makes of outputs:

    categorical cross-entropy, KL divergence    the class has probability softmax(f)
    mean squared error                          y = f + σ ξ,          -log p = Σ_k (y_k - f_k)²/(2σ²) + K log σ√(2π)
    mean absolute error                         Laplace noise,        -log p = Σ_k |y_k - f_k|/σ + K log 2σ
    poisson                                     counts of rate e^f,   -log p = Σ_k e^f_k - y_k f_k + log y_k!

What is sampled is the density of the network as it runs, spikes and all: a function of the weights that is piecewise
constant upstream of a spike. A surrogate gradient is not its derivative; it only proposes, the accept step decides.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Parameters
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, nearest
from neko_rules.evaluator import Evaluator
from neko_rules.probabilistic.examples import Examples
from neko_rules.probabilistic.force import check_repeatable, force_of, loss_sums, resolve
from neko_rules.probabilistic.likelihood import (
    checked_noise,
    leaves_out,
    of_targets,
    require_likelihood,
    require_probabilities,
    scaled,
)
from neko_rules.probabilistic.priors import PRIORS, Prior
from neko_rules.rules import Rule
from neko_rules.samplers import Density, tempered
from neko_rules.setting import Setting


class Posterior:
    """The weights of a model as random variables.

    Any argument may be assigned again, and is looked at as when the posterior was made. Densities that there are, and
    samples that were drawn, stay those of the posterior and of the fixed weights as they were.

    Args:
        model: an Evaluator; its loss is the likelihood.
        prior: of all weights, by name, mapping or Prior.
        prior_scale: of all priors that have no scale of their own; by default 1/√fan_in for weights, which keeps the
            input to a neuron of order 1 however many inputs it has, and 1 for biases (Neal 1996).
        layers: priors of single layers or parameters, such as ``{"readout": {"name": "laplace", "scale": 0.1}}``.
        fixed: layers or parameters that keep the values they have and are not sampled. Constants of neurons that a
            rule could learn, such as a time constant, keep theirs too.
        noise_scale: σ of the noise in the targets, in their units, for squared and absolute errors; 1 by default.
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

    model = Setting[Evaluator](lambda posterior, value: posterior._of(value))
    prior = Setting[Prior](lambda _, value: PRIORS.resolve(value))
    prior_scale = Setting[float | None](
        lambda _, value: None if value is None else arguments.number("prior_scale", value, above=0)
    )
    layers = Setting[dict[str, Prior]](lambda posterior, value: posterior._priors_of(value))
    fixed = Setting[tuple[str, ...]](lambda posterior, value: posterior._fixing(value))
    noise_scale = Setting[float](lambda posterior, value: checked_noise(posterior.model.loss, value) or 1.0)
    temperature = Setting[float](lambda _, value: arguments.number("temperature", value, above=0))
    chunk_size = Setting[int](lambda _, value: arguments.integer("chunk_size", value, at_least=1))

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
        self._layout: list[tuple[str, np.ndarray, slice]] | None = None
        self._held: dict[str, np.ndarray] | None = None
        given = {
            "model": model,
            "prior": prior,
            "prior_scale": prior_scale,
            "layers": layers,
            "fixed": fixed,
            "noise_scale": noise_scale,
            "temperature": temperature,
            "chunk_size": chunk_size,
        }
        for name, value in given.items():
            setattr(self, name, value)

    def _of(self, model: Evaluator) -> Evaluator:
        if not isinstance(model, Evaluator):
            raise IncompatibleError(
                "a Posterior takes an Evaluator", received=model, works="wrap the network: Evaluator(network)"
            )
        require_likelihood(model.loss)
        if model.network.task_type == "classification":
            require_probabilities(model.loss)
        self._layout = None
        return model

    def _priors_of(self, layers: Mapping[str, str | Mapping[str, Any] | Prior] | None) -> dict[str, Prior]:
        given = arguments.mapping("layers", layers, "{'readout': 'laplace'}")
        return {self.check_name("layers", name): PRIORS.resolve(each) for name, each in given.items()}

    def _fixing(self, names: Sequence[str]) -> tuple[str, ...]:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise ArgumentError(
                "fixed must be a list of layers or parameters",
                received=names,
                works=f"write fixed=[{names!r}]" if isinstance(names, str) else "leave it out to sample all",
            )
        self._layout = None
        return tuple(self.check_name("fixed", name) for name in names)

    def clone(self) -> Posterior:
        """The same posterior of a copy of the model as it is now, which no later change of either reaches.

        Example: weights that are held fixed are those of now.

            >>> from neko_rules import Evaluator, LIF
            >>> posterior = Posterior(Evaluator(LIF(4, 2, inputs=3)), fixed=["hidden"])
            >>> twin, weights = posterior.clone(), np.zeros(posterior.dimension)
            >>> posterior.model.network.set_parameters({"hidden.bias": np.ones(4)})
            >>> posterior.parameters(weights)["hidden.bias"], twin.parameters(weights)["hidden.bias"]
            (array([1., 1., 1., 1.], dtype=float32), array([0., 0., 0., 0.], dtype=float32))
        """
        twin = copy.copy(self)
        twin.model = self.model.clone()
        return twin

    def _as_it_is(self) -> Posterior:
        """The same posterior of the same model, with what is sampled and what is held fixed as it is now."""
        twin = copy.copy(self)
        twin._held = self._unsampled()
        return twin

    def _unsampled(self) -> dict[str, np.ndarray]:
        """The parameters that are not sampled."""
        sampled = {name for name, _, _ in self.layout}
        if self._held is not None or len(sampled) == len(self.model.network.names):
            return self._held or {}
        return {name: value for name, value in self.model.network.parameters.items() if name not in sampled}

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
            masks, layout, at = network.masks, [], 0
            for name, value in network.values.items():
                if name in network.learned or any(name == each or name.startswith(f"{each}.") for each in self.fixed):
                    continue
                shape = tuple(value.shape)
                mask = masks.get(name, np.ones(shape, bool))
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
        """The sampled entries of parameters, float64 [dimension].

        Raises:
            ArgumentError: a sampled parameter is not there, or of another shape.
        """
        for name, mask, _ in self.layout:
            received = np.shape(parameters[name]) if name in parameters else "none of that name"
            if received != mask.shape:
                raise ArgumentError(f"the parameter {name} must be there with shape {mask.shape}", received=received)
        return np.concatenate([np.asarray(parameters[name], np.float64)[mask] for name, mask, _ in self.layout])

    def parameters(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """All parameters by name in the network's type, with the sampled entries put in.

        Args:
            vector: [dimension]; what is not sampled has the values that the model has now.

        Raises:
            ArgumentError: the vector is of another shape.
        """
        network = self.model.network
        if np.shape(vector) != (self.dimension,):
            raise ArgumentError(
                f"weights as a vector must have shape {(self.dimension,)}, a number for each that is sampled",
                received=f"shape {np.shape(vector)}",
            )
        filled = dict(self._unsampled())
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
            batch_size: examples of the mini-batches from which the gradient is estimated; all by default.

        Raises:
            ArgumentError: the mini-batches have no example.
            DataError: they have more examples than there are.
        """
        require_likelihood(self.model.loss)
        if batch_size is not None and arguments.integer("batch_size", batch_size, at_least=1) > len(examples):
            raise DataError(
                f"batch_size must be at most the number of examples, {len(examples)}",
                received=batch_size,
                works=f"give a batch_size from 1 to {len(examples)}; SGLD and SGHMC take 128 if they are given none",
            )
        # What is sampled, and what is held fixed, is what it was when the density was made.
        posterior, beyond = self._as_it_is(), self._beyond(examples)
        factor, constant = self._scaled()
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
            values = posterior._values(vector)
            sums = [loss_sums(self.model, values, chunk) for chunk in examples.chunks()]
            return sum((factor * total + constant * count for total, count in sums), beyond), np.nan

        def both_of(vector: np.ndarray) -> tuple[float, np.ndarray]:
            assert force is not None, "asked for with a rule only"
            values, energy, found = posterior._values(vector), beyond, np.zeros(posterior.dimension)
            for chunk in examples.chunks():
                (total, count), gradients = force(values, chunk)
                energy += factor * total + constant * count
                found += factor * posterior.vector(gradients)
            return energy, found

        def estimate(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
            assert force is not None, "asked for with a rule only"
            size = batch_size or len(examples)
            chunk = examples.draw(rng, size) if size < len(examples) else None
            if chunk is None:
                return rows(position, both_of)[1]

            def one(vector: np.ndarray) -> tuple[float, np.ndarray]:
                _, gradients = force(posterior._values(vector), chunk)
                return 0.0, factor * len(examples) / size * posterior.vector(gradients)

            return rows(position, one)[1]

        return Density(
            lambda position: rows(position, energy_of)[0], lambda position: rows(position, both_of), estimate
        )

    def _scaled(self) -> tuple[float, float]:
        """Of the loss: what of -log p(y | x, θ) it is multiplied by, and what is added for every example."""
        return scaled(self.model.loss, self.noise_scale, self.model.network.outputs)

    def _beyond(self, examples: Examples) -> float:
        """What -log p(y | x, θ) of all examples has that depends on their targets alone."""
        nx, loss = self.model.nx, self.model.loss
        if not leaves_out(loss):
            return 0.0
        parts = ((nx.to_numpy(mask), of_targets(loss, nx.to_numpy(target))) for _, target, mask in examples.chunks())
        return sum(float(np.sum(mask * each)) for mask, each in parts)

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
            ArgumentError: the mini-batches have no example.
            DataError: the data do not fit the model, or have fewer examples than a mini-batch.
        """
        examples = self.examples(x, y)
        likelihood = self.likelihood_density(examples, resolve(gradient, self.model), batch_size)
        return tempered(likelihood, self.prior_density(), self.temperature)

    def rounding(self, vector: np.ndarray, examples: Examples) -> float:
        """About how far the energy is off, in nats, as the network computes in its type: ε √(Σ_chunks L²) / T.

        L is the summed loss of a chunk of examples, in nats, and ε the precision of the type, 1.2e-7 in float32. The
        accept step goes by differences of energies, so what is off by as much as 0.1 makes it decide by chance.

        Args:
            vector: θ, [dimension].
            examples: the data.

        Example: a loss of a hundred million nats, as of large counts, is known to 12 in float32.

            >>> from neko_rules import Evaluator, LIF
            >>> model = Evaluator(LIF(4, 1, inputs=3, readout="mean", task_type="regression"))
            >>> posterior = Posterior(model, noise_scale=1e-4, fixed=["hidden"])
            >>> round(posterior.rounding(np.zeros(5), posterior.examples(np.ones((2, 5, 3)), np.ones(2))))
            12
        """
        factor, _ = self._scaled()
        values = self._values(vector)
        sums = [factor * loss_sums(self.model, values, chunk)[0] for chunk in examples.chunks()]
        precision = np.finfo(self.model.network.dtype).eps
        return float(precision * np.sqrt(np.sum(np.square(sums))) / self.temperature)

    def log_likelihood(self, vector: np.ndarray, x: Any, y: Any) -> np.ndarray:
        """log p(y | x, θ) of every example, [examples], at temperature 1.

        Args:
            vector: θ, [dimension].
            x: inputs, [examples, time, feature].
            y: targets.
        """
        model, nx = self.model, self.model.nx
        require_likelihood(model.loss)
        factor, constant = self._scaled()
        examples, values = self.examples(x, y), self._values(vector)
        found = []
        for start in range(0, len(examples), self.chunk_size):
            inputs, target, mask = examples.take(slice(start, start + self.chunk_size))
            outputs = model.scored(values, inputs)
            weights = nx.to_numpy(nx.broadcast_to(mask, outputs.shape[:2]))
            each = factor * nx.to_numpy(model.loss.value(nx, outputs, target)) + constant
            found.append(-np.sum(weights * (each + of_targets(model.loss, nx.to_numpy(target))), axis=0))
        return np.concatenate(found).astype(np.float64)


def checksum(arrays: Iterable[np.ndarray]) -> str:
    """CRC-32 of the bytes of arrays, one after the other."""
    return f"{zlib.crc32(b''.join(each.tobytes() for each in arrays)):08x}"
