"""Credit: the choices that decide which gradient a learning rule computes, as one small validated value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from neko_rules import arguments
from neko_rules.errors import ArgumentError, IncompatibleError

TEMPORAL = {
    "full": "through everything, later states of other layers included (BPTT, RTRL)",
    "layer": "through a layer's own states and its own recurrent weights, not through later states of other layers",
    "neuron": "through a neuron's own states only",
    "presynaptic": "through the leak of the membrane alone: a decaying trace of the input, whatever the neuron does",
    "none": "not at all: only the input of the same time step",
}
"""Along which paths in time a gradient flows."""

TRACES = {
    "exact": "in full",
    "rank_one": "as a presynaptic and a postsynaptic factor (pp-prop)",
    "sparse_N": "for the neurons that a weight reaches within N time steps (SnAp-N)",
    "random_projection": "projected on random signs, right on average (UORO)",
}
"""In what form a weight's influence is carried forward through time."""

SPATIAL = {
    "symmetric": "the transposed forward weights",
    "random": "fixed random weights (feedback alignment)",
    "adaptive": "weights that follow the forward weights' updates while both decay (Kolen & Pollack 1994)",
    "mirror": "weights that learn the forward weights from the response to noise (weight mirror)",
    "sign": "the signs of the forward weights at one strength",
    "direct": "fixed random weights from the output straight to every layer (direct feedback alignment)",
    "target": "fixed random weights from the target straight to every layer, without an error",
    "local": "each layer's own fixed random readout and its own loss; no error crosses layers",
    "modulator": "one signal for all neurons, such as a reward, given in place of the target",
}
"""Through which weights an error reaches the populations below."""

CHAINS = ("symmetric", "random", "adaptive", "mirror", "sign")
"""The spatial credits that hand an error down from layer to layer."""

LEARNING_SIGNAL = {
    "exact": "with all its paths through time (only for full temporal credit)",
    "filtered": "through the memory of the readout, then within the time step",
    "instantaneous": "within the time step at every layer, the readout's memory left out",
    "estimated": "through the memory of the layer above by the leaky sum of the layer's own traces (OTPE)",
}
"""Along which paths in time an error travels on its way down to a population."""

SPIKE_DERIVATIVES = {
    "surrogate": "a function of the membrane potential stands for dz/du, whether there is a spike or not",
    "spike_time": "an error moves the times of the spikes that there are (EventProp)",
}
"""What stands for the derivative of a spike."""

_USUAL_SIGNAL = {
    "full": "exact",
    "layer": "instantaneous",
    "neuron": "filtered",
    "presynaptic": "instantaneous",
    "none": "instantaneous",
}


@dataclass(frozen=True)
class Credit:
    """One point on the axes of credit assignment.

    Args:
        temporal: ``"full"``, ``"layer"``, ``"neuron"``, ``"presynaptic"`` or ``"none"``.
        spatial: ``"symmetric"``, ``"random"``, ``"adaptive"``, ``"mirror"``, ``"sign"``, ``"direct"``, ``"target"``,
            ``"local"`` or ``"modulator"``.
        learning_signal: ``"exact"``, ``"filtered"``, ``"instantaneous"`` or ``"estimated"``; by default what the rules
            of the literature with this temporal credit use: exact for full (BPTT), filtered for neuron (e-prop),
            instantaneous for the others (OSTL, OTTT) and wherever no error of the output is used.
        trace: ``"exact"``, ``"rank_one"``, ``"sparse_N"`` with a number N from 1, or ``"random_projection"``.
        spike_derivative: ``"surrogate"``, or ``"spike_time"`` for full temporal credit in an exact form.

    Raises:
        ArgumentError: a value is unknown.
        IncompatibleError: a combination without a meaning; it says why.

    Example:
        >>> Credit("neuron", "random").learning_signal
        'filtered'
        >>> Credit("full", learning_signal="filtered")
        Traceback (most recent call last):
        neko_rules.errors.IncompatibleError: temporal credit 'full' and an exact learning signal go together
        (received: temporal='full', learning_signal='filtered'); use temporal 'layer' or 'neuron' with a 'filtered'
        or 'instantaneous' signal.
    """

    temporal: str
    spatial: str = "symmetric"
    learning_signal: str = ""
    trace: str = "exact"
    spike_derivative: str = "surrogate"

    def __post_init__(self) -> None:
        arguments.choice("temporal", self.temporal, tuple(TEMPORAL))
        arguments.choice("spatial", self.spatial, tuple(SPATIAL))
        if not self.learning_signal:
            errorless = self.outside_chain and self.temporal != "full"
            usual = "instantaneous" if errorless else _USUAL_SIGNAL[self.temporal]
            object.__setattr__(self, "learning_signal", usual)
        arguments.choice("learning_signal", self.learning_signal, tuple(LEARNING_SIGNAL))
        if not re.fullmatch(r"exact|rank_one|sparse_[1-9]\d*|random_projection", str(self.trace)):
            raise ArgumentError(
                "trace must be exact, rank_one, sparse_N with a whole number N from 1, or random_projection",
                received=self.trace,
            )
        arguments.choice("spike_derivative", self.spike_derivative, tuple(SPIKE_DERIVATIVES))
        self._check_signal()
        self._check_trace()
        self._check_spike_derivative()

    def _check_signal(self) -> None:
        if (self.temporal == "full") != (self.learning_signal == "exact"):
            raise IncompatibleError(
                "temporal credit 'full' and an exact learning signal go together",
                received=f"temporal={self.temporal!r}, learning_signal={self.learning_signal!r}",
                works="use temporal 'layer' or 'neuron' with a 'filtered' or 'instantaneous' signal",
            )
        if self.temporal == "full" and not self.passes_down:
            raise IncompatibleError(
                "full temporal credit follows the error through the layers above, which this feedback bypasses",
                received=f"temporal='full', spatial={self.spatial!r}",
                works="use temporal 'layer', which keeps a layer's own recurrence",
            )
        if self.outside_chain and self.learning_signal != "instantaneous":
            raise IncompatibleError(
                f"{self.spatial} feedback has no error of the output whose memory could be followed",
                received=f"learning_signal={self.learning_signal!r}",
                works="use learning_signal='instantaneous'",
            )
        if self.temporal == "none" and self.learning_signal != "instantaneous":
            raise IncompatibleError(
                "without temporal credit the error has no memory either",
                received=f"learning_signal={self.learning_signal!r}",
                works="use learning_signal='instantaneous'",
            )
        if self.learning_signal == "estimated" and not self.passes_down:
            raise IncompatibleError(
                "an estimate of the memory of the layer above needs an error that comes from there",
                received=f"spatial={self.spatial!r}",
                works=f"use one of {', '.join(CHAINS)}",
            )

    def _check_trace(self) -> None:
        if self.trace == "rank_one" and (self.temporal != "neuron" or self.learning_signal != "instantaneous"):
            raise IncompatibleError(
                "a rank-one trace stands for a neuron's own memory, with learning signals within the time step",
                received=f"temporal={self.temporal!r}, learning_signal={self.learning_signal!r}",
                works="use temporal='neuron', learning_signal='instantaneous'",
            )
        if self.trace.startswith(("sparse", "random")) and self.temporal != "full":
            raise IncompatibleError(
                f"the trace {self.trace!r} approximates full temporal credit",
                received=f"temporal={self.temporal!r}",
                works="use temporal='full'",
            )

    def _check_spike_derivative(self) -> None:
        if self.timed and (self.temporal != "full" or self.trace != "exact"):
            raise IncompatibleError(
                "what changes if a spike comes later is known from all that follows it, in full",
                received=f"spike_derivative='spike_time', temporal={self.temporal!r}, trace={self.trace!r}",
                works="use temporal='full', trace='exact', as EventProp does, or spike_derivative='surrogate'",
            )

    @property
    def timed(self) -> bool:
        """Whether errors move spikes in time."""
        return self.spike_derivative == "spike_time"

    @property
    def passes_down(self) -> bool:
        """Whether errors are handed down from layer to layer."""
        return self.spatial in CHAINS

    @property
    def outside_chain(self) -> bool:
        """Whether every layer has a signal of its own, which no layer above hands down."""
        return self.spatial in ("target", "local", "modulator")

    @property
    def has_feedback(self) -> bool:
        """Whether errors travel through weights of their own."""
        return self.spatial not in ("symmetric", "sign", "modulator")

    @property
    def reach(self) -> int:
        """N of a sparse trace; 0 for any other."""
        return int(self.trace.removeprefix("sparse_")) if self.trace.startswith("sparse_") else 0

    @property
    def forward_only(self) -> bool:
        """Whether the gradient can only be had forward in time, by traces; a sparse one can be on some networks."""
        return self.trace == "random_projection"
