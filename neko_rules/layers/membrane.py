"""Membrane: what a leaking neuron has before it fires, if it does: a leak, and synapses that may have a memory.

    i_t = ε i_{t-1} + I_t        v_t = α v_{t-1} + i_t        α = exp(-dt/τ_membrane), ε = exp(-dt/τ_synapse)

Without a memory of the synapses i_t is I_t, and no state is kept for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from neko_rules.layers.cell import Cell, PerNeuron, Trainable, decay


@dataclass(frozen=True)
class Membrane(Cell):
    """The arguments of a membrane, their constants, and the current that arrives at it."""

    tau_membrane: PerNeuron = 20e-3
    membrane_decay: PerNeuron | None = None
    tau_synapse: PerNeuron = field(default=0.0, kw_only=True)
    synapse_decay: PerNeuron | None = field(default=None, kw_only=True)

    trainable: ClassVar[dict[str, Trainable]] = {
        "membrane_decay": Trainable("alpha", lowest=0, highest=1),
        "synapse_decay": Trainable("epsilon", lowest=0, highest=1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_decay("tau_membrane", "membrane_decay")
        self._check_decay("tau_synapse", "synapse_decay")

    @property
    def synaptic(self) -> bool:
        """Whether synapses of any neuron have a memory, or may learn to have one."""
        given = self.tau_synapse if self.synapse_decay is None else self.synapse_decay
        return "synapse_decay" in self.learnable or (any(given) if isinstance(given, tuple) else given > 0)

    def state_names(self) -> tuple[str, ...]:
        """The synaptic current after what the class has of its own, and before what options add to that."""
        names = super().state_names()
        own = len(self.states)
        return (*names[:own], "i", *names[own:]) if self.synaptic else names

    def _decays(self, dt: float) -> dict[str, PerNeuron]:
        """α, and ε where there is one."""
        found = {"alpha": decay(self.tau_membrane, self.membrane_decay, dt)}
        return {**found, "epsilon": decay(self.tau_synapse, self.synapse_decay, dt)} if self.synaptic else found

    def _arriving(self, p: Any, s: Any, current: Any) -> tuple[Any, dict[str, Any]]:
        """What drives the membrane, and the state that it is kept in, if it is."""
        if not self.synaptic:
            return current, {}
        arriving = p.epsilon * s.i + current
        return arriving, {"i": arriving}
