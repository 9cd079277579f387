"""EventProp: exact gradients of spiking networks by the times of their spikes.

    temporal credit full, learning signals exact, spatial credit symmetric, spike derivative: its time

A spike is an event: an error does not make it more or less present, it moves it in time, by one over the speed at which
the neuron crossed its threshold. Between spikes the adjoint λ decays like the neuron's states, backward in time; at a
spike it jumps,

    λ_V ← λ_V + (1/V̇) (j·Δλ + Σ_k W_k Δδ_k + ∂E/∂t)

with V̇ the speed of the crossing, j what the spike adds to its own neuron, and Δ what changes if it comes later: of the
neuron's own λ through its reset, of the errors δ of those that receive the spike, and of the loss. Nothing is detached,
and no surrogate enters. Neurons are those of every other rule, stepped in time; the gradient is that of their events up
to O(dt). That takes currents that flow, such as those of synapses with a memory (``tau_synapse``): where a membrane is
driven by jumps alone, its speed at the threshold depends on dt.

Spikes are told apart by their steps: gradients explode where neurons fire at hundreds of Hz in steps of 1 ms. A neuron
that is silent has no spike to move, and no gradient of the loss. Penalties on firing rates, which want spikes
to be there and not when, have the gradient of BPTT, and wake it. Losses of how often outputs spike are refused.

Reference: T. C. Wunderlich, C. Pehle, Event-based backpropagation can compute exact gradients for spiking neural
networks, Scientific Reports 11:12829, 2021. On discrete time steps, and on losses: T. Nowotny, J. P. Turner, J. C.
Knight, Loss shaping enhances exact gradient learning with Eventprop in spiking neural networks, Neuromorphic Computing
and Engineering 5:014001, 2025.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

from neko_rules.evaluator import Evaluator
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.rule import RULES


@RULES.register("event_prop", "eventprop")
class EventProp(LearningRule):
    """EventProp: the exact gradient of spike times, backward through every path in time.

    dE/dW = Σ_t x_tᵀ δ_t with the adjoint of BPTT, but h_t = z_t/Δu_t ∂u/∂s at spikes and 0 elsewhere, which meets what
    changes if the spike comes a step later. Resets are never detached.

    Args:
        model: an Evaluator.
        slowest_crossing: the slowest crossing of a threshold, in thresholds per second, that counts as what it is; a
            gradient grows without bound as a membrane touches its threshold without crossing it.
        optimizer, regularizers, weight_decay, clipping, rate_factors, seed, window: as for LearningRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> network = LIF(32, 2, tau_synapse=5e-3, output_cell={"name": "lif", "tau_synapse": 5e-3})
        >>> EventProp(Evaluator(network, loss="first_spike_crossentropy"))
        EventProp(temporal full, spatial symmetric, learning signal exact, spikes that move in time)
    """

    about: ClassVar[dict[str, str]] = {
        "paper": "Wunderlich & Pehle 2021",
        "time": "O(N²) per example and step",
        "memory": "O(T N) per example",
        "identity": "→ derivatives of exact spike times, as dt → 0; = BPTT on smooth networks",
    }

    def __init__(self, model: Evaluator, slowest_crossing: float = 1.0, **options: Unpack[CreditOptions]) -> None:
        super().__init__(
            model, temporal="full", spike_derivative="spike_time", slowest_crossing=slowest_crossing, **options
        )
