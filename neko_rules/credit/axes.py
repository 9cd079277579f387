"""Credit: the choices that decide which gradient a learning rule computes, as one small validated value."""

from __future__ import annotations

from dataclasses import dataclass

from neko_rules import arguments
from neko_rules.errors import IncompatibleError

TEMPORAL = {
    "full": "through everything, later states of other layers included (BPTT)",
    "layer": "through a layer's own states and its own recurrent weights, not through later states of other layers",
    "neuron": "through a neuron's own states only",
}
"""Along which paths in time a gradient flows."""

SPATIAL = {
    "symmetric": "the transposed forward weights",
    "random": "fixed random weights",
    "adaptive": "weights that follow the forward weights' updates while both decay (Kolen & Pollack 1994)",
}
"""Through which weights an error reaches the populations below."""

LEARNING_SIGNAL = {
    "exact": "with all its paths through time (only for full temporal credit)",
    "filtered": "through the memory of the readout, then within the time step",
    "instantaneous": "within the time step at every layer, the readout's memory left out",
}
"""Along which paths in time an error travels on its way down to a population."""

_USUAL_SIGNAL = {"full": "exact", "layer": "instantaneous", "neuron": "filtered"}


@dataclass(frozen=True)
class Credit:
    """One point on the axes of credit assignment.

    Args:
        temporal: ``"full"``, ``"layer"`` or ``"neuron"``.
        spatial: ``"symmetric"``, ``"random"`` or ``"adaptive"``.
        learning_signal: ``"exact"``, ``"filtered"`` or ``"instantaneous"``; by default what the rules of the
            literature with this temporal credit use: exact for full (BPTT), instantaneous for layer (OSTL),
            filtered for neuron (e-prop).

    Raises:
        ArgumentError: a value is unknown.
        IncompatibleError: full temporal credit without an exact learning signal, or the other way round.

    Example:
        >>> Credit("neuron", "random")
        Credit(temporal='neuron', spatial='random', learning_signal='filtered')
        >>> Credit("full", learning_signal="filtered")
        Traceback (most recent call last):
        neko_rules.errors.IncompatibleError: temporal credit 'full' and an exact learning signal go together
        (received: temporal='full', learning_signal='filtered'); use temporal 'layer' or 'neuron' with a 'filtered'
        or 'instantaneous' signal.
    """

    temporal: str
    spatial: str = "symmetric"
    learning_signal: str = ""

    def __post_init__(self) -> None:
        arguments.choice("temporal", self.temporal, tuple(TEMPORAL))
        arguments.choice("spatial", self.spatial, tuple(SPATIAL))
        if not self.learning_signal:
            object.__setattr__(self, "learning_signal", _USUAL_SIGNAL[self.temporal])
        arguments.choice("learning_signal", self.learning_signal, tuple(LEARNING_SIGNAL))
        if (self.temporal == "full") != (self.learning_signal == "exact"):
            raise IncompatibleError(
                "temporal credit 'full' and an exact learning signal go together",
                received=f"temporal={self.temporal!r}, learning_signal={self.learning_signal!r}",
                works="use temporal 'layer' or 'neuron' with a 'filtered' or 'instantaneous' signal",
            )

    @property
    def has_feedback(self) -> bool:
        """Whether errors travel through weights of their own."""
        return self.spatial != "symmetric"
