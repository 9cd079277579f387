"""Reaching: what all synapses of a parameter leave in units that remember it, and what an error there makes of that."""

from __future__ import annotations

from typing import Any

from neko_rules.kernels.compiling import kernel

Array = Any
"""An array in C order."""


@kernel
def reach_on(
    first: int,
    last: int,
    before: Array,
    leak: Array,
    paths: Array,
    trace: Array,
    error: Array,
    after: Array,
    total: Array,
) -> None:
    """after[b, k, i] = leak[b, k] before[b, k, i] + paths[b, k] trace[b, i] for a range of presynaptic neurons i.

    And total[i] = Σ_{b, k} error[b, k] after[b, k, i]. The arrays of all units are as large as the third cache: each is
    read and written once.

    Args:
        first, last: the range.
        before: [batch, unit, pre, post].
        leak: [batch, unit].
        paths: [batch, unit, post].
        trace: [batch, pre, post].
        error: [batch, unit].
        after: as ``before``.
        total: [pre, post].
    """
    batch, units, _, size = before.shape
    total[first:last] = 0
    for b in range(batch):
        for k in range(units):
            kept, wrong, path = leak[b, k], error[b, k], paths[b, k]
            for i in range(first, last):
                held, sent, into, summed = before[b, k, i], trace[b, i], after[b, k, i], total[i]
                for n in range(size):
                    reached = kept * held[n] + path[n] * sent[n]
                    into[n] = reached
                    summed[n] += wrong * reached
