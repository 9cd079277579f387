"""Fused influence: the influence on whole populations taken through a time step by one compiled loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neko_rules.backend import Array
from neko_rules.credit.recursion import Local
from neko_rules.kernels.buffers import LINE
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous
from neko_rules.kernels.parallel import each
from neko_rules.layers.forward import Z
from neko_rules.threads import parts

WORTHWHILE = 1 << 16
"""Numbers of an influence from which on one loop takes less time than to ask for it."""


def influenced_on(
    host: HostBackend,
    before: Mapping[str, Array],
    local: Local,
    through: Sequence[tuple[Array, Array]],
    drive: Array | None,
    like: Array,
) -> dict[str, Array] | None:
    """S_t = D_t S_{t-1} + r_t Z_{t-1} + q_t ∂I_t and Z_t = h_t·S_t, with ∂I_t of connections and of the synapse itself.

    Args:
        host: the backend.
        before: S_{t-1} by state, and Z_{t-1} as ``"z"``: [batch, neuron, pre · post].
        local: the local derivatives of the neurons.
        through: the transposed weights [neuron, source] of connections, and Z of what sends through them.
        drive: x_t [batch, pre] of a parameter that ends on these neurons; None for others.
        like: [batch, neuron], of the type of all arrays.

    Returns:
        As ``before``; None where there is so little that operations are as fast.
    """
    if math.prod(before[Z].shape) < WORTHWHILE:
        return None
    from neko_rules.kernels.calling import addresses_of
    from neko_rules.kernels.influencing import BLOCK, calls, take_on

    dtype = host.host(like).dtype
    batch, size = like.shape
    states = [key for key in before if key != Z]

    def entries(*keys: Any) -> np.ndarray:
        found = np.zeros((len(keys), batch, size), dtype)
        for into, key in zip(found, keys, strict=True):
            if key in local:
                value = local[key]
                into[:] = value if isinstance(value, int | float) else host.host(value)
        return found

    leaks = entries(*(("D", k, j) for k in states for j in states)).reshape(len(states), len(states), batch, size)
    returns, gains, slopes = (entries(*((name, k) for k in states)) for name in "rqh")
    held = tuple(contiguous(host.host(before[k])) for k in states)
    sent_before = contiguous(host.host(before[Z]))
    *after, sent = (BUFFERS.empty(sent_before.shape, dtype) for _ in (*states, Z))
    backs = tuple(contiguous(host.host(back)) for back, _ in through)
    sources = tuple(contiguous(host.host(z)) for _, z in through)
    if not through:
        # A loop over sources is compiled for one at least.
        backs, sources = (np.empty((size, 0), dtype),), (np.empty((batch, 0, sent.shape[2]), dtype),)
    senders = sum(back.shape[1] for back in backs)
    x = np.empty((batch, 0), dtype) if drive is None else contiguous(host.host(drive))
    addresses, into = addresses_of(calls(str(dtype))), tuple(after)
    block, line = BLOCK // dtype.itemsize, LINE // dtype.itemsize

    def part(_: int, first: int, last: int) -> None:
        take_on(
            first,
            last,
            addresses,
            backs,
            sources,
            leaks,
            returns,
            gains,
            slopes,
            held,
            sent_before,
            x,
            into,
            sent,
            np.empty((size, senders), dtype),
            np.empty((2, senders), np.int64),
            BUFFERS.lined((senders, block + line), dtype),
            BUFFERS.lined((size, block), dtype),
        )

    blocks = -(-sent.shape[2] // block)
    each(part, parts(blocks, sent.size * (1 + senders // 16)))
    return dict(zip((*states, Z), map(host.from_host, (*after, sent)), strict=True))
