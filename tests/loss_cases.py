"""Cases for tests of losses: which look at outputs of any kind, and which at spikes and membranes."""

from __future__ import annotations

from neko_rules.losses import LOSSES


def of_any_output(name: str) -> bool:
    loss = LOSSES.resolve(name)
    return loss.observes == "z" and not loss.of_spikes


OF_OUTPUTS = [name for name in LOSSES if of_any_output(name)]
OF_SPIKES = [name for name in LOSSES if not of_any_output(name)]
