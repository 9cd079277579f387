"""Regularizers: penalties on what the populations do, added to the loss to keep a network alive, sparse and in range.

A regularizer sees the spikes and states of the populations, time-major, and gives a scalar E and its derivatives, which
join the learning signal of each population like the derivative of the loss does.

Every penalty here is a mean over batch and time, so its strength does not depend on their sizes. Learning online it is
taken at every step from that step alone, on the scale of one step: the mean over the steps of what ``online`` gives is
the deferred gradient, with firing rates replaced by the means over the steps so far, as the future is not known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from neko_rules.alike import Alike
from neko_rules.arguments import number
from neko_rules.backend import Array, Backend
from neko_rules.errors import ArgumentError, IncompatibleError, nearest
from neko_rules.layers.forward import Signals, Trajectory, Z
from neko_rules.layers.network import Network
from neko_rules.registry import Registry

__all__ = [
    "REGULARIZERS",
    "Activity",
    "FiringRate",
    "FiringRateLowerBound",
    "FiringRateUpperBound",
    "MembraneBounds",
    "Regularizer",
    "SpikeL1",
    "resolve_regularizers",
]


@dataclass(frozen=True)
class Activity:
    """What the populations of a network did.

    Args:
        spikes: of every spiking population by name, 0 or 1, [time, batch, neuron].
        states: of every population and state, [time, batch, neuron].
        output: the population that is read out.
    """

    spikes: Mapping[str, Array]
    states: Mapping[tuple[str, str], Array]
    output: str

    @classmethod
    def of(cls, network: Network, trajectory: Trajectory) -> Activity:
        """The activity in a forward pass, or in a part of one.

        Example:
            >>> import numpy as np
            >>> from neko_rules import LIF, Evaluator
            >>> model = Evaluator(LIF(8, 2))
            >>> seen = Activity.of(model.network, model.trajectory(np.ones((4, 5, 3))))
            >>> list(seen.spikes), list(seen.states)
            (['hidden'], [('hidden', 'v'), ('readout', 'v')])
        """
        spikes = {name: trajectory.z(name) for name in network.spiking}
        records = trajectory.records
        states = {(name, key): array for name in records for key, array in records[name].states.items()}
        return cls(spikes, states, network.graph.output)


class Regularizer(Alike, ABC):
    """A penalty on what the populations do."""

    @abstractmethod
    def check(self, network: Network) -> None:
        """Refuse a network on which the penalty has no meaning.

        Raises:
            IncompatibleError: it has no population of the kind that is penalised, or not the one that is named.
        """

    @abstractmethod
    def value(self, nx: Backend, activity: Activity, dt: float) -> Array:
        """The penalty E, a scalar.

        Args:
            nx: the backend of the arrays.
            activity: of the populations, [time, batch, neuron].
            dt: time step in s.
        """

    @abstractmethod
    def gradient(self, nx: Backend, activity: Activity, dt: float) -> Signals:
        """∂E/∂z or ∂E/∂state by (population, ``"z"`` or state), in a shape that broadcasts to [time, batch, neuron]."""

    @abstractmethod
    def online(self, nx: Backend, activity: Activity, running: Mapping[str, Array], dt: float) -> Signals:
        """What ``gradient`` gives for a sequence of one step, with firing rates that were measured over more.

        Over the T steps of a sequence, each of these is to be weighted by 1/T.

        Args:
            nx: the backend of the arrays.
            activity: of one step, [1, batch, neuron].
            running: mean spikes of every spiking population over the steps so far, [1, batch, neuron].
            dt: time step in s.
        """


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", Regularizer)  # type: ignore[type-abstract]


@dataclass(frozen=True, kw_only=True)
class _Selecting(Regularizer):
    """A penalty on some populations, or on all of a kind."""

    populations: Sequence[str] | None = None

    what: ClassVar[str]
    """What the penalised populations need, for error messages."""

    works: ClassVar[str]

    def __post_init__(self) -> None:
        given: Any = self.populations
        if given is None:
            return
        if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(n, str) for n in given):
            raise ArgumentError("populations must be a list of names", received=given, works="for example ['hidden']")
        if not given:
            raise ArgumentError("populations must name at least one", received=given, works="leave it out for all")
        object.__setattr__(self, "populations", tuple(dict.fromkeys(given)))

    def _check_names(self, network: Network, suitable: Sequence[str]) -> None:
        """Refuse names that the network lacks or that do not suit, and a network without any that does."""
        name = type(self).__name__
        for each in self.populations or ():
            if each not in network.graph.populations:
                raise IncompatibleError(
                    f"the regularizer {name} names a population that the network lacks",
                    received=each,
                    works=nearest(each, list(network.graph.populations)),
                )
            if each not in suitable:
                raise IncompatibleError(f"the regularizer {name} needs {self.what}", each, self.works)
        if not suitable:
            raise IncompatibleError(f"the regularizer {name} needs {self.what}", f"{network!r}", self.works)


@dataclass(frozen=True, kw_only=True)
class OnRates(_Selecting):
    """A penalty Σ_j e(r_j) on mean spikes per step r_j, of which a subclass writes the terms and their slope."""

    what: ClassVar[str] = "spiking neurons"
    works: ClassVar[str] = "use spiking neurons such as LIF or ALIF, or leave the regularizer out"
    reads_rates: ClassVar[bool] = True
    """Whether the slope depends on rates."""

    def check(self, network: Network) -> None:
        """Refuse a network without spiking neurons, and names of populations that do not spike."""
        self._check_names(network, network.spiking)

    def value(self, nx: Backend, activity: Activity, dt: float) -> Array:
        """Σ over populations."""
        parts = [self._penalty(nx, self._rates(nx, z), dt) for z in self._chosen(activity.spikes).values()]
        return sum(parts[1:], parts[0])

    def gradient(self, nx: Backend, activity: Activity, dt: float) -> Signals:
        """slope(r_j) / (T B), [1, 1, neuron] for every population."""
        return {
            (name, Z): self._slope(nx, self._rates(nx, z), dt) / (z.shape[0] * z.shape[1])
            for name, z in self._chosen(activity.spikes).items()
        }

    def online(self, nx: Backend, activity: Activity, running: Mapping[str, Array], dt: float) -> Signals:
        """slope(r_j) / B with the rates so far, [1, 1, neuron] for every population."""
        return {
            (name, Z): self._slope(nx, self._rates(nx, mean), dt) / mean.shape[1]
            for name, mean in self._chosen(running).items()
        }

    def at_rates(self, nx: Backend, rates: Mapping[str, Array], dt: float) -> dict[str, Array]:
        """slope(r_j) for every population, [1, 1, neuron], at rates of that shape of all that spike; for the engine."""
        return {name: self._slope(nx, mean, dt) for name, mean in self._chosen(rates).items()}

    def _chosen(self, spikes: Mapping[str, Array]) -> dict[str, Array]:
        """The populations that are penalised."""
        chosen = {name: z for name, z in spikes.items() if self.populations is None or name in self.populations}
        if not chosen:
            raise IncompatibleError(
                f"the regularizer {type(self).__name__} needs {self.what}", f"spikes of {list(spikes)}", self.works
            )
        return chosen

    def _rates(self, nx: Backend, spikes: Array) -> Array:
        """Mean spikes per step of every neuron, [1, 1, neuron]."""
        return nx.mean(spikes, axis=(0, 1), keepdims=True)

    def _penalty(self, nx: Backend, rates: Array, dt: float) -> Array:
        """E of one population, a scalar."""
        raise NotImplementedError

    def _slope(self, nx: Backend, rates: Array, dt: float) -> Array:
        """∂E/∂r_j, [1, 1, neuron]."""
        raise NotImplementedError


def of_rates(regularizer: Regularizer) -> OnRates | None:
    """The regularizer, if all that its gradient depends on is the mean rate of every neuron; otherwise None.

    Example:
        >>> of_rates(FiringRate()), of_rates(MembraneBounds())
        (FiringRate(populations=None, target=10.0, strength=1.0), None)
    """
    own = type(regularizer)
    if not isinstance(regularizer, OnRates):
        return None
    # A subclass may make more of spikes than their mean.
    asked = "gradient", "online", "at_rates", "_chosen", "_rates"
    return regularizer if all(getattr(own, name) is getattr(OnRates, name) for name in asked) else None


class _SquaredExcess(OnRates):
    """½ c Σ_j excess_j² with an excess whose derivative with respect to r_j is ±1 where it is not 0."""

    strength: float
    sign: ClassVar[float] = 1.0

    def _penalty(self, nx: Backend, rates: Array, dt: float) -> Array:
        excess = self._excess(nx, rates, dt)
        return (0.5 * self.strength) * nx.sum(excess * excess)

    def _slope(self, nx: Backend, rates: Array, dt: float) -> Array:
        return (self.sign * self.strength) * self._excess(nx, rates, dt)

    def _excess(self, nx: Backend, rates: Array, dt: float) -> Array:
        """How far each rate is from where it should be, in spikes per step, [1, 1, neuron]."""
        raise NotImplementedError


@REGULARIZERS.register("firing_rate", "rate")
@dataclass(frozen=True)
class FiringRate(_SquaredExcess):
    """E = ½ c Σ_j ((f_j - f*) dt)²: pulls the mean firing rate f_j of every neuron towards a target f*.

    f_j is the mean over batch and time, so dE/dz_j = c (f_j - f*) dt / (T B) at every step of every example. Rates
    enter in spikes per time step, so c has no dimension and the penalty of a given rate does not depend on T and B.
    A target of 0 is an L2 penalty on rates.

    Args:
        target: f*, in Hz, at least 0.
        strength: c, at least 0.
        populations: names of those that are penalised; left out, all that spike.

    Reference:
        G. Bellec, F. Scherr, A. Subramoney, E. Hajek, D. Salaj, R. Legenstein, W. Maass, "A solution to the learning
        dilemma for recurrent networks of spiking neurons", Nature Communications 11, 2020, Methods.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> seen = Activity({"hidden": np.array([1.0, 0.0, 0.0, 0.0]).reshape(4, 1, 1)}, {}, "readout")
        >>> FiringRate(target=50.0).value(get_backend("numpy"), seen, dt=1e-3).item()
        0.02...
        >>> FiringRate(target=50.0).gradient(get_backend("numpy"), seen, dt=1e-3)
        {('hidden', 'z'): array([[[0.05]]])}
    """

    target: float = 10.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", number("target", self.target, at_least=0))
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))

    def _excess(self, nx: Backend, rates: Array, dt: float) -> Array:
        """(f_j - f*) dt."""
        return rates - self.target * dt


@REGULARIZERS.register("firing_rate_lower_bound", "rate_lower_bound")
@dataclass(frozen=True)
class FiringRateLowerBound(_SquaredExcess):
    """E = ½ c Σ_j max(0, (f_min - f_j) dt)²: lifts every neuron whose mean firing rate f_j is below a bound.

    f_j is the mean over batch and time, so dE/dz_j = -c max(0, (f_min - f_j) dt) / (T B) at every step of every
    example.

    Args:
        bound: f_min, in Hz, at least 0.
        strength: c, at least 0.
        populations: names of those that are penalised; left out, all that spike.

    Reference:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg spiking data sets for the systematic evaluation
        of spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33, 2022 (on another
        scale).

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> seen = Activity({"hidden": np.array([[[1.0, 0.0]], [[0.0, 0.0]]])}, {}, "readout")
        >>> FiringRateLowerBound(bound=100.0).gradient(get_backend("numpy"), seen, dt=1e-3)
        {('hidden', 'z'): array([[[-0.  , -0.05]]])}
    """

    bound: float = 1.0
    strength: float = 1.0
    sign: ClassVar[float] = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bound", number("bound", self.bound, at_least=0))
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))

    def _excess(self, nx: Backend, rates: Array, dt: float) -> Array:
        """max(0, (f_min - f_j) dt)."""
        return nx.maximum(self.bound * dt - rates, 0.0)


@REGULARIZERS.register("firing_rate_upper_bound", "rate_upper_bound")
@dataclass(frozen=True)
class FiringRateUpperBound(_SquaredExcess):
    """E = ½ c Σ_l N_l max(0, (f_l - f_max) dt)²: lowers every population whose mean firing rate f_l is above a bound.

    f_l is the mean over the N_l neurons, batch and time, so dE/dz_j = c max(0, (f_l - f_max) dt) / (T B) for every
    neuron j of the population: single neurons may fire more, as long as the population does not.

    Args:
        bound: f_max, in Hz, at least 0.
        strength: c, at least 0.
        populations: names of those that are penalised; left out, all that spike.

    Reference:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg spiking data sets for the systematic evaluation
        of spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33, 2022 (on another
        scale).

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> seen = Activity({"hidden": np.array([[[1.0, 0.0]], [[0.0, 0.0]]])}, {}, "readout")
        >>> FiringRateUpperBound(bound=150.0).gradient(get_backend("numpy"), seen, dt=1e-3)
        {('hidden', 'z'): array([[[0.05, 0.05]]])}
    """

    bound: float = 50.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bound", number("bound", self.bound, at_least=0))
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))

    def _excess(self, nx: Backend, rates: Array, dt: float) -> Array:
        """max(0, (f_l - f_max) dt), the same for every neuron."""
        # A population without neurons has no mean.
        of_population = nx.sum(rates, axis=-1, keepdims=True) / max(rates.shape[-1], 1)
        return nx.broadcast_to(nx.maximum(of_population - self.bound * dt, 0.0), rates.shape)


@REGULARIZERS.register("spike_l1", "l1_rate_sparsity")
@dataclass(frozen=True)
class SpikeL1(OnRates):
    """E = c Σ_j f_j dt: an L1 penalty on spikes, the same for each, so that only those that pay are kept.

    f_j dt is the mean of neuron j's spikes over batch and time, so dE/dz_j = c / (T B) at every step of every example.

    Args:
        strength: c, at least 0.
        populations: names of those that are penalised; left out, all that spike.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> seen = Activity({"hidden": np.array([[[1.0, 0.0]], [[0.0, 0.0]]])}, {}, "readout")
        >>> SpikeL1(strength=2.0).value(get_backend("numpy"), seen, dt=1e-3).item()
        1.0
        >>> SpikeL1(strength=2.0).gradient(get_backend("numpy"), seen, dt=1e-3)
        {('hidden', 'z'): array([[[1., 1.]]])}
    """

    strength: float = 1e-3
    reads_rates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))

    def _penalty(self, nx: Backend, rates: Array, dt: float) -> Array:
        return self.strength * nx.sum(rates)

    def _slope(self, nx: Backend, rates: Array, dt: float) -> Array:
        return nx.full(tuple(rates.shape), self.strength, nx.dtype(rates))


@REGULARIZERS.register("membrane_bounds", "voltage")
@dataclass(frozen=True)
class MembraneBounds(_Selecting):
    """E = ½ c Σ_j ⟨max(0, v_tj - upper)² + max(0, lower - v_tj)²⟩: keeps membranes within bounds, as hardware must.

    ⟨·⟩ is the mean over batch and time, so dE/dv_tj = c (max(0, v_tj - upper) - max(0, lower - v_tj)) / (T B).

    Args:
        lower: lower bound, in the units of the weights; left out, there is none.
        upper: upper bound; left out, there is none.
        strength: c, at least 0.
        populations: names of those that are penalised; left out, all that have a membrane, apart from an output that
            does not spike, whose membrane is what the task asks for.
        state: the state that is bounded, by its name in the neuron's equations.

    Example:
        >>> import numpy as np
        >>> from neko_rules.backend import get_backend
        >>> v = np.array([[[3.0, 0.5]], [[0.0, -4.0]]])
        >>> seen = Activity({"hidden": 0 * v}, {("hidden", "v"): v}, "readout")
        >>> MembraneBounds(lower=-1.0, upper=1.0).value(get_backend("numpy"), seen, dt=1e-3).item()
        3.25
        >>> MembraneBounds(upper=1.0).gradient(get_backend("numpy"), seen, dt=1e-3)["hidden", "v"].tolist()
        [[[1.0, 0.0]], [[0.0, -1.0]]]
    """

    lower: float | None = -2.0
    upper: float | None = 2.0
    strength: float = 1.0
    state: str = "v"
    what: ClassVar[str] = "neurons with the state that it bounds"
    works: ClassVar[str] = "name populations with that state, or leave the regularizer out"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lower", "upper"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, number(name, getattr(self, name)))
        if self.lower is None and self.upper is None:
            raise ArgumentError("membrane bounds need a lower bound, an upper one, or both", received="neither")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ArgumentError("the lower bound must be at most the upper one", f"{self.lower:g} > {self.upper:g}")
        object.__setattr__(self, "strength", number("strength", self.strength, at_least=0))
        if not isinstance(self.state, str):
            raise ArgumentError("state must be the name of a state", received=self.state)

    def check(self, network: Network) -> None:
        """Refuse a network in which no population (or not the named one) has the state."""
        self._check_names(network, self._suitable(network))

    def _suitable(self, network: Network) -> list[str]:
        """The populations that may be penalised; if none is named, those that are."""
        graph = network.graph
        having = [name for name in graph.order if self.state in graph.cell(name).state_names()]
        if self.populations is not None:
            return having
        return [name for name in having if name in network.spiking or name != graph.output]

    def value(self, nx: Backend, activity: Activity, dt: float) -> Array:
        """½ c Σ_j of the mean squared violation."""
        parts = [
            nx.sum(nx.mean(over * over + under * under, axis=(0, 1)))
            for over, under in (self._violations(nx, v) for v in self._chosen(activity).values())
        ]
        return (0.5 * self.strength) * sum(parts[1:], parts[0])

    def gradient(self, nx: Backend, activity: Activity, dt: float) -> Signals:
        """c (max(0, v - upper) - max(0, lower - v)) / (T B), [time, batch, neuron]."""
        return {
            (name, self.state): self.slope(nx, v) / (v.shape[0] * v.shape[1])
            for name, v in self._chosen(activity).items()
        }

    def online(self, nx: Backend, activity: Activity, running: Mapping[str, Array], dt: float) -> Signals:
        """The gradient of one step; no mean over time enters."""
        return self.gradient(nx, activity, dt)

    def _chosen(self, activity: Activity) -> dict[str, Array]:
        """The state of the populations that are penalised."""
        chosen = {}
        for (name, state), history in activity.states.items():
            usual = name in activity.spikes or name != activity.output
            if state == self.state and (usual if self.populations is None else name in self.populations):
                chosen[name] = history
        if not chosen:
            raise IncompatibleError(f"the regularizer MembraneBounds needs {self.what}", self.state, self.works)
        return chosen

    def at_states(self, network: Network) -> tuple[str, ...]:
        """The populations that are penalised; for the engine."""
        return tuple(self.populations or self._suitable(network))

    def slope(self, nx: Backend, v: Array) -> Array:
        """c (max(0, v - upper) - max(0, lower - v)), entry by entry; for the engine."""
        over, under = self._violations(nx, v)
        return self.strength * (over - under)

    def _violations(self, nx: Backend, v: Array) -> tuple[Array, Array]:
        """How far above the upper bound, and how far below the lower one."""
        over = 0.0 * v if self.upper is None else nx.maximum(v - self.upper, 0.0)
        return over, 0.0 * v if self.lower is None else nx.maximum(self.lower - v, 0.0)


def resolve_regularizers(given: Iterable[str | Mapping[str, Any] | Regularizer]) -> tuple[Regularizer, ...]:
    """Penalties from a list of names, mappings or objects.

    Raises:
        ArgumentError: it is no list, or one of them is unknown.

    Example:
        >>> resolve_regularizers(["spike_l1"])
        (SpikeL1(populations=None, strength=0.001),)
    """
    if isinstance(given, (str, Mapping, Regularizer)) or not isinstance(given, Iterable):
        raise ArgumentError(
            "regularizers must be a list", received=given, works="put a single one in a list: ['firing_rate']"
        )
    return tuple(REGULARIZERS.resolve(each) for each in given)


def of_states(regularizer: Regularizer) -> MembraneBounds | None:
    """The regularizer, if its gradient is a function of one state, entry by entry; otherwise None.

    Example:
        >>> of_states(FiringRate()), of_states(MembraneBounds(upper=1.0, lower=None))
        (None, MembraneBounds(populations=None, lower=None, upper=1.0, strength=1.0, state='v'))
    """
    if not isinstance(regularizer, MembraneBounds):
        return None
    asked = "gradient", "online", "at_states", "slope", "_chosen", "_suitable", "_violations"
    return regularizer if all(getattr(type(regularizer), n) is getattr(MembraneBounds, n) for n in asked) else None
