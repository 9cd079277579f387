"""STDP: spike-timing-dependent plasticity of pairs of spikes, with bounds and homeostasis, below a taught readout.

    Δw = F₊(w) A₊ exp(-Δt/τ₊)  for Δt > 0        Δw = -F₋(w) A₋ exp(Δt/τ₋)  for Δt < 0        Δt = t_post - t_pre

summed over all pairs of spikes, or over nearest ones only, by one trace for each neuron:

    dw = F₊(w) Σ_t A₊ x̂_tᵀ z_t - F₋(w) Σ_t A₋ s_tᵀ ŷ_t
    x̂_t = λ₊ x_{t-1},  x_t = x̂_t + s_t        ŷ_t = λ₋ y_{t-1},  y_t = ŷ_t + z_t        λ = exp(-dt/τ)

s_t is what arrives at the synapse (one step later at a delayed connection), z_t the neuron's own spikes. In a time
step the traces decay, then the weight changes, then the step's spikes enter the traces: a pair at Δt = 0 does not
count. With nearest pairing a spike sets its trace to 1 instead of adding to it. The weight in F is that before the
sequence.

    bounds     "none"   F₊ = F₋ = 1                                          additive
               "hard"   F₊ = F₋ = 1, the weight clipped to [w_min, w_max]    additive, as in Song et al. 2000
               "soft"   F₊ = w_max - w,  F₋ = w - w_min, then clipped        multiplicative
    homeostasis         dw += s (f* - f_j)/f* |w|                            synaptic scaling to the rate f*

References: S. Song, K. D. Miller, L. F. Abbott, Competitive Hebbian learning through spike-timing-dependent synaptic
plasticity, Nature Neuroscience 3:919, 2000; J. Rubin, D. D. Lee, H. Sompolinsky, Equilibrium properties of temporally
asymmetric Hebbian plasticity, Physical Review Letters 86:364, 2001 (bounds); A. Morrison, M. Diesmann, W. Gerstner,
Phenomenological models of synaptic plasticity based on spike timing, Biological Cybernetics 98:459, 2008 (traces,
pairing schemes); M. C. W. van Rossum, G. Q. Bi, G. G. Turrigiano, Stable Hebbian learning from spike timing-dependent
plasticity, Journal of Neuroscience 20:8812, 2000 (scaling; here its proportional term, and |w| so that it fits
inhibition too).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from neko_rules import arguments
from neko_rules.backend import Array, Parameters
from neko_rules.clipping import Clipping
from neko_rules.credit import adjoint
from neko_rules.credit.axes import Credit
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, nearest
from neko_rules.evaluator import Evaluator, Judgement
from neko_rules.layers.forward import Signals, Trajectory, by_parameter, connected, effective_weight
from neko_rules.layers.graph import INPUT, Connection
from neko_rules.optimizers import Optimizer
from neko_rules.regularizers import Regularizer
from neko_rules.rules.kept import Arrays, Batch, Own
from neko_rules.rules.rule import RULES, Rule, UpdateOptions
from neko_rules.rules.trains import before, overlap

PAIRINGS = ("all", "nearest")
BOUNDS = ("none", "hard", "soft")


class PlasticityOptions(UpdateOptions, total=False):
    """The arguments that every rule of spike timing has."""

    connections: Sequence[str] | None
    pairing: str
    bounds: str
    w_min: float
    w_max: float
    target_rate: float | None
    scaling: float


@RULES.register("stdp", "pair_stdp")
class STDP(Rule):
    """Spike-timing-dependent plasticity of spike pairs; the readout learns by its own error.

    dw = F₊(w) Σ_t A₊ x̂_tᵀ z_t - F₋(w) Σ_t A₋ s_tᵀ ŷ_t, the mean over the examples; ``gradients`` gives -dw, so that
    gradient descent applies dw times the learning rate. Plain descent is the default, since an optimiser that divides
    by the size of past changes would take away the balance of potentiation and depression that the rule is about.

    No error reaches the plastic connections. Every other parameter of the output population (the readout) learns by
    the exact gradient of the loss with the spikes below it given (the delta rule through the readout's memory); all
    that is left, such as biases of hidden neurons, stays as it is.

    An input counts as that many spikes, whole or not: dw is linear in s_t for given z_t. So a graded input between 0
    and 1 changes a weight as spikes of that probability do on average, and a negative one the other way round, which
    makes dw of Gaussian inputs their correlation with the spikes that follow, less that with those before. With nearest
    pairing, where s_t + (1 - s_t) x̂_t is a trace for 0 ≤ s_t ≤ 1 alone, other inputs are refused.

    Args:
        model: an Evaluator, of a network with spiking neurons.
        connections: names of the plastic weights; by default all from the input or spiking neurons to spiking neurons.
        potentiation: A₊ at least 0, in units of the learning rate: one pair changes a weight by learning rate times A₊.
            The defaults are those of Song et al. 2000 at the default learning rate of 1e-2: 0.005 and 1.05 times that.
        depression: A₋ at least 0, likewise.
        tau_plus: τ₊ in seconds.
        tau_minus: τ₋ in seconds.
        pairing: ``"all"`` pairs of spikes, or only the ``"nearest"``: each spike with the last one of the other side.
        bounds: ``"none"``, ``"hard"`` or ``"soft"``, for the plastic weights; the first update brings a weight that
            starts outside to the nearest bound.
        w_min: the lowest weight.
        w_max: the highest weight.
        target_rate: f* in Hz, the mean rate to which each neuron's plastic weights are scaled; None: no homeostasis.
        scaling: s at least 0, the strength of homeostasis in units of the learning rate.
        optimizer: name, mapping or Optimizer.
        regularizers: refused, as there is no loss for them to join.
        weight_decay, clipping, rate_factors: as for Rule.
        seed: not used.

    Raises:
        IncompatibleError: the network has no such connection, hidden constants are learned, or regularisers are given.
        DataError: in a step with nearest pairing, an input is below 0 or above 1.

    Example: one synapse, whose neuron fires 2 ms after the input.

        >>> import numpy as np
        >>> from neko_rules import LIF, Evaluator, STDP
        >>> network = LIF(1, 1, inputs=2, recurrent=False, threshold=0.5)
        >>> network.set_parameters({"hidden.input.weight": [[0.1], [0.9]]})
        >>> rule = STDP(Evaluator(network), potentiation=1.0, tau_plus=10e-3)
        >>> x = np.zeros((1, 6, 2))
        >>> x[0, 1, 0] = x[0, 3, 1] = 1  # The second input makes it fire at step 3, in its own time step.
        >>> -rule.gradients(x, [0])["hidden.input.weight"].ravel().round(4), round(float(np.exp(-0.2)), 4)
        (array([0.8187, 0.    ], dtype=float32), 0.8187)
    """

    options: ClassVar[type] = PlasticityOptions
    descends: ClassVar[str] = "never"
    about: ClassVar[dict[str, str]] = {
        "axes": "spike timing, no error",
        "paper": "Song, Miller & Abbott 2000, Nature Neuroscience 3:919",
        "time": "two products O(B N²) per connection, and O(B N) for its traces",
        "memory": "one forward pass and four traces per connection, O(T B N)",
        "identity": "an isolated pair gives the closed-form window",
    }

    def __init__(
        self,
        model: Evaluator,
        *,
        connections: Sequence[str] | None = None,
        potentiation: float = 0.5,
        depression: float = 0.525,
        tau_plus: float = 20e-3,
        tau_minus: float = 20e-3,
        pairing: str = "all",
        bounds: str = "hard",
        w_min: float = -1.0,
        w_max: float = 1.0,
        target_rate: float | None = None,
        scaling: float = 1.0,
        optimizer: str | Mapping[str, Any] | Optimizer = "sgd",
        regularizers: Sequence[str | Mapping[str, Any] | Regularizer] = (),
        weight_decay: float = 0.0,
        clipping: str | Mapping[str, Any] | Clipping | None = None,
        rate_factors: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            regularizers=regularizers,
            weight_decay=weight_decay,
            clipping=clipping,
            rate_factors=rate_factors,
            seed=seed,
        )
        self.connections = None if connections is None else _names(connections)
        self.potentiation = arguments.number("potentiation", potentiation, at_least=0)
        self.depression = arguments.number("depression", depression, at_least=0)
        self.tau_plus = arguments.number("tau_plus", tau_plus, above=0)
        self.tau_minus = arguments.number("tau_minus", tau_minus, above=0)
        self.pairing = arguments.choice("pairing", pairing, PAIRINGS)
        self.bounds = arguments.choice("bounds", bounds, BOUNDS)
        self.w_min = arguments.number("w_min", w_min)
        self.w_max = arguments.number("w_max", w_max, above=self.w_min)
        self.target_rate = None if target_rate is None else arguments.number("target_rate", target_rate, above=0)
        self.scaling = arguments.number("scaling", scaling, at_least=0)
        self._check_fit()

    def _penalised_by(self, regularizers: Any) -> tuple[Regularizer, ...]:
        if regularizers:
            raise IncompatibleError(
                f"{type(self).__name__} descends no loss that a regulariser could join",
                received=regularizers,
                works="use target_rate, which scales weights towards a firing rate",
            )
        return ()

    def _check_fit(self) -> None:
        """Refuse a network without a connection to change, or with constants that nothing would learn."""
        network = self.model.network
        possible = [c.weight for c in self._between_spikes]
        for name in self.connections or ():
            if name not in possible:
                raise IncompatibleError(
                    "a plastic connection leads from the input or spiking neurons to spiking neurons",
                    received=name,
                    works=nearest(name, possible),
                )
        if not self.plastic:
            cells = (f"{name} of {type(network.graph.cell(name)).__name__}" for name in network.graph.order)
            raise IncompatibleError(
                f"{type(self).__name__} needs a connection to spiking neurons",
                received=", ".join(cells),
                works="use spiking neurons such as LIF",
            )
        frozen = [name for name, (owner, *_) in network.learned.items() if owner != network.graph.output]
        if frozen:
            raise IncompatibleError(
                f"{type(self).__name__} changes weights, not the constants of hidden neurons", received=frozen[0]
            )

    @property
    def _between_spikes(self) -> list[Connection]:
        spiking = self.model.network.spiking
        return [
            c for c in self.model.network.graph.connections if c.target in spiking and c.source in (INPUT, *spiking)
        ]

    @cached_property
    def plastic(self) -> dict[str, Connection]:
        """The connections that change by spike timing, by the name of their weight."""
        chosen = self.connections
        return {c.weight: c for c in self._between_spikes if chosen is None or c.weight in chosen}

    def stepped(self, arrays: Arrays, observed: bool = False) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """As for ``Rule``, of inputs that have traces."""
        self._require_traces(arrays[0])
        return super().stepped(arrays, observed)

    def gradients_of(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """As for ``Rule``, of inputs that have traces."""
        self._require_traces(arrays[0])
        return super().gradients_of(arrays)

    def _require_traces(self, inputs: np.ndarray) -> None:
        """Refuse inputs that are no spikes, where a spike sets its trace to 1."""
        if self.pairing == "all" or all(connection.source != INPUT for connection in self.plastic.values()):
            return
        low, high = float(inputs.min()), float(inputs.max())
        if low < 0 or high > 1:
            raise DataError(
                "nearest pairing takes inputs from 0 to 1, since a spike sets its trace to 1",
                received=f"values from {low:g} to {high:g}",
                works="use pairing='all', which takes graded inputs, or make spikes of them",
            )

    # Pure functions of parameters and data, in backend arrays.

    def _judged_gradients(
        self, values: Parameters, own: Own, drawn: Parameters, batch: Batch
    ) -> tuple[Judgement, Parameters]:
        inputs, target, mask = batch
        trajectory = self.model.network.forward(values, inputs)
        judgement = self.model.judge(trajectory, target, mask)
        gain = self.nx.full((1, 1, 1), 1 / inputs.shape[1], self.nx.dtype(inputs))
        return judgement, self._found(values, trajectory, judgement.signals, gain)

    def _found(self, values: Parameters, trajectory: Trajectory, signals: Signals, gain: Array) -> Parameters:
        """-dw of the plastic weights, the readout's gradient from its signals, and zero for all that is left.

        Args:
            values: parameters by name.
            trajectory: the forward pass.
            signals: ∂E/∂z_t of the output population.
            gain: broadcastable to [time, batch, 1]: what a change that happens then counts.
        """
        found = {name: self.nx.full(tuple(value.shape), 0.0, self.nx.dtype(value)) for name, value in values.items()}
        found.update(self._output_gradients(values, trajectory, signals))
        for name, connection in self.plastic.items():
            weight = effective_weight(self.nx, connection, values)
            found[name] = -self._change(connection, weight, trajectory, gain)
        return found

    def _output_gradients(self, values: Parameters, trajectory: Trajectory, signals: Signals) -> Parameters:
        """dE/dparameter of the output population, whose own recurrence counts and whose input is given."""
        network = self.model.network
        constants = network.constants_with(values)
        credit = Credit("layer", "local")  # No error goes down from the output.
        problem = adjoint.Problem(self.nx, network.graph, network.jacobians, constants, values, {}, trajectory, credit)
        prefix = network.graph.output + "."
        return {name: g for name, g in adjoint.gradients(problem, signals).items() if name.startswith(prefix)}

    def _change(self, connection: Connection, weight: Array, trajectory: Trajectory, gain: Array) -> Array:
        """dw of one connection, in the shape of its parameter."""
        nx = self.nx
        sent, fired = trajectory.sent(nx, connection), trajectory.z(connection.target)
        up, down = self._window(sent, fired, nx.broadcast_to(gain, (*fired.shape[:2], 1)))
        if self.bounds == "soft":
            within = nx.minimum(nx.maximum(weight, self.w_min), self.w_max)
            up, down = (self.w_max - within) * up, (within - self.w_min) * down
        change = up - down
        if self.target_rate is not None:
            rate = nx.mean(fired, axis=(0, 1)) / self.model.network.dt
            change = change + (self.scaling * (1 - rate / self.target_rate)) * nx.abs(weight)
        return by_parameter(nx, connection, change)

    def _window(self, sent: Array, fired: Array, gain: Array) -> tuple[Array, Array]:
        """Potentiation and depression summed over time and examples, each [pre, post], apart from F(w)."""
        nx = self.nx
        x, y = self._trace(sent, self.tau_plus), self._trace(fired, self.tau_minus)
        up = nx.transpose(overlap(nx, fired, gain * x), (1, 0))
        return self.potentiation * up, self.depression * overlap(nx, sent, gain * y)

    def _trace(self, spikes: Array, tau: float) -> Array:
        """The trace of a train of spikes [time, batch, neuron] just before the spikes of the step enter it."""
        return before(self.nx, spikes, math.exp(-self.model.network.dt / tau), self.pairing == "nearest")

    def _bounded(self, values: Parameters) -> Parameters:
        nx, after = self.nx, super()._bounded(values)
        if self.bounds != "none":
            for name, connection in self.plastic.items():
                within = nx.minimum(nx.maximum(after[name], self.w_min), self.w_max)
                after[name] = connected(nx, connection, within)
        return after

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.plastic)}; {self.pairing} pairs, {self.bounds} bounds)"


def _names(connections: Sequence[str]) -> tuple[str, ...]:
    if isinstance(connections, str) or not all(isinstance(name, str) for name in connections):
        raise ArgumentError(
            "connections must be a list of names of weights",
            received=connections,
            works="for example ['hidden.input.weight']",
        )
    return tuple(connections)
