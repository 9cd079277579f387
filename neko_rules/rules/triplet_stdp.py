"""TripletSTDP: spike-timing-dependent plasticity of pairs and triplets of spikes.

    a postsynaptic spike:   Δw = F₊(w) r̂1 (A2₊ + A3₊ ô2)
    a presynaptic spike:    Δw = -F₋(w) ô1 (A2₋ + A3₋ r̂2)

r1, r2 are traces of the presynaptic spikes with τ₊, τ_x, and o1, o2 of the postsynaptic ones with τ₋, τ_y; the hat says
just before the step's own spikes enter (the paper's t - ε), so a pair at Δt = 0 does not count. With all-to-all pairing
a spike adds 1 to its traces, with nearest-spike pairing it sets them to 1. Bounds, homeostasis, what is plastic and
what the readout does are those of STDP; with A3₊ = A3₋ = 0 this is STDP.

Reference: J.-P. Pfister, W. Gerstner, Triplets of spikes in a model of spike timing-dependent plasticity, Journal of
Neuroscience 26:9673, 2006, equations 2 to 4.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules import arguments
from neko_rules.backend import Array
from neko_rules.evaluator import Evaluator
from neko_rules.rules.rule import RULES
from neko_rules.rules.stdp import STDP, PlasticityOptions
from neko_rules.rules.trains import overlap


@RULES.register("triplet_stdp")
class TripletSTDP(STDP):
    """Triplet STDP: potentiation grows with the neuron's recent spikes, as in data on the frequency of pairings.

    dw = F₊(w) Σ_t r̂1_tᵀ [z_t (A2₊ + A3₊ ô2_t)] - F₋(w) Σ_t [s_t (A2₋ + A3₋ r̂2_t)]ᵀ ô1_t, the mean over the examples.
    Graded inputs are as for STDP, apart from the term of A3₋, which is quadratic in them.

    Args:
        model: an Evaluator, of a network with spiking neurons.
        potentiation: A2₊ at least 0, in units of the learning rate, like all amplitudes. The defaults are the paper's
            all-to-all fit to visual cortex at the default learning rate of 1e-2: A2₊ = 5e-10, A2₋ = 7e-3, A3₊ = 6.2e-3,
            A3₋ = 2.3e-4, with τ₊ = 16.8, τ₋ = 33.7, τ_x = 101 and τ_y = 125 ms.
        depression: A2₋ at least 0.
        triplet_potentiation: A3₊ at least 0.
        triplet_depression: A3₋ at least 0.
        tau_plus: τ₊ in seconds.
        tau_minus: τ₋ in seconds.
        tau_x: τ_x in seconds, of the second presynaptic trace.
        tau_y: τ_y in seconds, of the second postsynaptic trace.
        connections, pairing, bounds, w_min, w_max, target_rate, scaling: as for STDP.
        optimizer, weight_decay, clipping, rate_factors, seed: as for STDP.

    Example:
        >>> from neko_rules import LIF, Evaluator, TripletSTDP
        >>> TripletSTDP(Evaluator(LIF(8, 2)), pairing="nearest", bounds="soft")
        TripletSTDP(hidden.input.weight, hidden.recurrent.weight; nearest pairs, soft bounds)
    """

    about: ClassVar[dict[str, str]] = {
        "axes": "spike timing, no error",
        "paper": "Pfister & Gerstner 2006, Journal of Neuroscience 26:9673",
        "time": "two products O(B N²) per connection, and O(B N) for its traces",
        "memory": "one forward pass and four traces per connection, O(T B N)",
        "identity": "an isolated triplet gives the closed form; without triplet terms it is STDP",
    }

    def __init__(
        self,
        model: Evaluator,
        *,
        potentiation: float = 5e-8,
        depression: float = 0.7,
        triplet_potentiation: float = 0.62,
        triplet_depression: float = 0.023,
        tau_plus: float = 16.8e-3,
        tau_minus: float = 33.7e-3,
        tau_x: float = 101e-3,
        tau_y: float = 125e-3,
        **options: Unpack[PlasticityOptions],
    ) -> None:
        super().__init__(
            model,
            potentiation=potentiation,
            depression=depression,
            tau_plus=tau_plus,
            tau_minus=tau_minus,
            **options,
        )
        self.triplet_potentiation = arguments.number("triplet_potentiation", triplet_potentiation, at_least=0)
        self.triplet_depression = arguments.number("triplet_depression", triplet_depression, at_least=0)
        self.tau_x = arguments.number("tau_x", tau_x, above=0)
        self.tau_y = arguments.number("tau_y", tau_y, above=0)

    def _window(self, sent: Array, fired: Array, gain: Array) -> tuple[Array, Array]:
        nx = self.nx
        r1, r2 = self._trace(sent, self.tau_plus), self._trace(sent, self.tau_x)
        o1, o2 = self._trace(fired, self.tau_minus), self._trace(fired, self.tau_y)
        up = fired * (self.potentiation + self.triplet_potentiation * o2)
        down = sent * (self.depression + self.triplet_depression * r2)
        return nx.transpose(overlap(nx, up, gain * r1), (1, 0)), overlap(nx, down, gain * o1)
