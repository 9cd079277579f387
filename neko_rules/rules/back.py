"""Back: what the way back of a chain depends on beside the network."""

from __future__ import annotations

from typing import NamedTuple

from neko_rules.credit.axes import Credit
from neko_rules.credit.spans import Wide
from neko_rules.layers.jacobians import Jacobians
from neko_rules.regularizers import MembraneBounds

OF_FACTORS = "factors_"
"""What the states are called in which windows hand on what factors carry, before the name of each."""


class Window(NamedTuple):
    """What goes on from some time steps of a sequence to the next, beside the states of the network.

    Attributes:
        traced: the populations whose traces go on, and the state through which a neuron's output feels them if what is
            above filters them; empty if not.
        wide: those of them that have a state whose trace differs from synapse to synapse.
    """

    traced: tuple[tuple[str, str], ...]
    wide: tuple[tuple[str, Wide], ...] = ()


class Back(NamedTuple):
    """What the way back depends on beside the network.

    Attributes:
        credit: which gradient.
        jacobians: the derivatives of every population's cell.
        window: what goes on beyond the time steps of the chain; None for whole sequences.
        pushed: the populations whose neurons have one more signal each, the same for all examples, and at all time
            steps of whole sequences.
        bounded: by population and state, the penalties on every entry of the state.
    """

    credit: Credit
    jacobians: tuple[Jacobians, ...]
    window: Window | None
    pushed: frozenset[str]
    bounded: tuple[tuple[tuple[str, str], tuple[MembraneBounds, ...]], ...]
