"""SamplingRule: a posterior, a kernel and a gradient to propose by; what ``Trainer(rule).sample`` takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NoReturn, Self, TypedDict

import numpy as np

from neko_rules import arguments
from neko_rules.errors import ArgumentError, IncompatibleError, nearest
from neko_rules.evaluator import Evaluator
from neko_rules.layers.network import Network
from neko_rules.probabilistic.force import resolve
from neko_rules.probabilistic.posterior import Posterior, checksum
from neko_rules.registry import Registry
from neko_rules.rules import Rule
from neko_rules.samplers import Adaptation, BlockwiseKernel, Kernel

STARTS = ("prior", "model")


class SamplingOptions(TypedDict, total=False):
    """The arguments that every sampling rule has."""

    gradient: str | Mapping[str, Any] | Rule | None
    step_size: float | None
    target_acceptance: float | None
    adaptation: str
    mass: str
    scales: Mapping[str, float] | None
    neurons: Mapping[str, int] | None
    start: str


class SamplingRule:
    """A Markov chain on the weights of a model.

    Args:
        posterior: the density to draw from.
        gradient: the rule whose gradient proposes: a rule of the same model, its name or a mapping; BPTT by default. It
            may be wrong, but must be a fixed function of the weights.
        step_size: where adaptation begins; found by doubling and halving if left out. It is relative to the scales in
            the mass, which begin as those of the prior.
        target_acceptance: mean acceptance probability to adapt to; by default what is best for the sampler.
        adaptation: of the step size: ``"dual_averaging"`` or ``"robbins_monro"``.
        mass: ``"diagonal"``, found in windows, or ``"identity"``: the prior's scales, kept.
        scales: layer or parameter → how far it moves beside the others, a factor of the prior's scale, above 0. Where a
            weight is upstream of many spikes the energy is rough, and long steps of a readout ask for short ones there:
            ``{"hidden": 0.01}``. Their part of the mass stays as it is.
        neurons: layer → how many of its neurons, drawn anew in every transition, also move alone: all that enters a
            neuron makes a random step in units of the prior's scales, accepted by the true energy, which costs a
            forward pass over the data. It is how hidden weights get anywhere where ``scales`` must be small:
            ``{"hidden": 100}``. See ``neko_rules.samplers.blockwise``.
        start: where chains begin: at draws of the ``"prior"``, or at the weights of the ``"model"``.

    Raises:
        IncompatibleError: the gradient is random, changes while sampling, or is of another model; or neurons are to
            move alone beside a sampler without an accept step.
    """

    __signature__: ClassVar[inspect.Signature]

    kernel: Kernel
    batch_size: int | None = None

    def __init__(
        self,
        posterior: Posterior,
        *,
        gradient: str | Mapping[str, Any] | Rule | None = None,
        step_size: float | None = None,
        target_acceptance: float | None = None,
        adaptation: str = "dual_averaging",
        mass: str = "diagonal",
        scales: Mapping[str, float] | None = None,
        neurons: Mapping[str, int] | None = None,
        start: str = "prior",
    ) -> None:
        if not isinstance(posterior, Posterior):
            raise IncompatibleError(
                f"{type(self).__name__} takes a Posterior",
                received=posterior,
                works="wrap the model: Posterior(model, prior='normal')",
            )
        self.posterior = posterior
        self.gradient = resolve(gradient, posterior.model)
        self.start = arguments.choice("start", start, STARTS)
        self.scales = {
            posterior.check_name("scales", name): arguments.number(f"scales[{name!r}]", factor, above=0)
            for name, factor in arguments.mapping("scales", scales, "{'hidden': 0.01}").items()
        }
        self.neurons = {
            arguments.choice("neurons", name, posterior.model.network.layers): arguments.integer(
                f"neurons[{name!r}]", moves, at_least=1
            )
            for name, moves in arguments.mapping("neurons", neurons, "{'hidden': 4}").items()
        }
        self._adaptation = Adaptation(0, target_acceptance, adaptation, mass, step_size)

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Refuse an argument that the rule does not have, with the nearest one that it has."""
        known = cls.__signature__.parameters
        for key in options:
            if key not in known:
                raise ArgumentError(f"{cls.__name__} has no argument {key!r}", works=nearest(key, known))
        return super().__new__(cls)

    def __init_subclass__(cls) -> None:
        """A named sampler's arguments are its own and the shared ones; spell them out for help, YAML and errors."""
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        own = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = inspect.signature(SamplingRule.__init__).parameters
        common = [shared[name] for name in SamplingOptions.__annotations__ if name not in {p.name for p in own}]
        cls.__signature__ = inspect.Signature([*own, *common])

    @property
    def model(self) -> Evaluator:
        """The model whose weights are drawn."""
        return self.posterior.model

    def adaptation(self, warmup: int) -> Adaptation:
        """How a chain is tuned over its warm-up."""
        # What somebody has set is not found anew: a window of draws says nothing of how rough the energy is.
        kept = tuple(place for name, _, place in self.posterior.layout if self._scale(name) is not None)
        return replace(self._adaptation, warmup=warmup, kept=kept)

    def inverse_mass(self) -> np.ndarray:
        """The M⁻¹ that adaptation begins with, [dimension]: the square of how far each weight is to move."""
        moves = self.posterior.prior_scales()
        for name, _, place in self.posterior.layout:
            scale = self._scale(name)
            moves[place] *= 1.0 if scale is None else scale
        return moves**2

    def _scale(self, name: str) -> float | None:
        """What was given for a parameter, or for its layer."""
        return self.scales.get(name, self.scales.get(name.split(".")[0]))

    def transitions(self) -> Kernel:
        """What moves a chain: the kernel, and moves of single neurons beside it if they were asked for.

        Raises:
            ArgumentError: more neurons were asked for than a layer has, or nothing of it is sampled.
            IncompatibleError: the kernel has no accept step.
        """
        if not self.neurons:
            return self.kernel
        groups = [(self.posterior.neurons(name), moves) for name, moves in self.neurons.items()]
        return BlockwiseKernel(self.kernel, groups, self.posterior.prior_scales())

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """Where a chain begins, [1, dimension]."""
        if self.start == "model":
            return self.posterior.vector(self.model.network.parameters)[None]
        return self.posterior.draw_prior(rng)[None]

    def describe(self) -> dict[str, Any]:
        """What must be equal for a run to go on as the same one, in values that JSON can hold."""
        posterior, network, gradient = self.posterior, self.model.network, self.gradient
        begun = network.parameters if self.start == "model" else {}
        return {
            "rule": type(self).__name__,
            "kernel": _told(self.kernel),
            "gradient": f"{type(gradient).__name__}: {gradient!r}, {gradient.regularizers!r}",
            "feedback": checksum(each for name, each in gradient.state().items() if name.startswith("feedback/")),
            "batch_size": self.batch_size,
            "adaptation": repr(self._adaptation),
            "scales": self.scales,
            "neurons": self.neurons,
            "start": f"{self.start} {checksum(begun.values())}" if begun else self.start,
            **_described(network),
            "likelihood": f"{self.model.loss!r}, noise scale {posterior.noise_scale}",
            "prior": f"{posterior.prior!r}, scale {posterior.prior_scale}, {posterior.layers!r}",
            "fixed": list(posterior.fixed),
            "temperature": posterior.temperature,
        }

    # What a trainer asks of rules that train.

    def step(self, x: Any, y: Any) -> NoReturn:
        """Refused: a chain on mini-batches would sample no density at all."""
        raise IncompatibleError(
            f"{type(self).__name__} draws weights from all data at once and does not train",
            received="a training step",
            works="use Trainer(rule).sample(x, y)",
        )

    def state(self) -> dict[str, np.ndarray]:
        """The weights of the model, as NumPy copies."""
        return {f"parameters/{name}": value for name, value in self.model.network.parameters.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put weights into the model."""
        self.model.network.set_parameters({name.removeprefix("parameters/"): each for name, each in state.items()})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kernel!r}, gradient {self.gradient!r})"


def _described(network: Any) -> dict[str, Any]:
    """A model by all that its outputs depend on beside its weights; a wrapped one by what it says of itself."""
    if not isinstance(network, Network):
        return {"model": repr(network)}
    return {
        "model": repr(network),
        "populations": {name: _told(each) for name, each in network.graph.populations.items()},
        "connections": [_told(each) for each in network.graph.connections],
        "readout": network.readout,
        "dt": network.dt,
        "weight_bits": network.weight_bits,
    }


def _told(part: Any) -> str:
    """What a part says of itself, or what it holds where that would be its place in memory."""
    told = repr(part)
    return told if " object at 0x" not in told else f"{type(part).__name__} {sorted(vars(part).items())}"


SamplingRule.__signature__ = inspect.Signature(list(inspect.signature(SamplingRule.__init__).parameters.values())[1:])

SAMPLING_RULES: Registry[SamplingRule] = Registry("sampling rule", SamplingRule)
