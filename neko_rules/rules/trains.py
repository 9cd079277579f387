"""Trains: traces of spikes just before those of a time step enter them, and products of two trains of which one is few.

x̂_t = λ x_{t-1},    x_t = x̂_t + s_t, or s_t + (1 - s_t) x̂_t where only the nearest spike counts
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from neko_rules.backend import Array, Arrays, Backend
from neko_rules.kernels.host import BUFFERS, contiguous, host_of
from neko_rules.kernels.parallel import each
from neko_rules.threads import parts


def before(nx: Backend, train: Array, decay: float, nearest: bool) -> Array:
    """x̂_t of a train of spikes [time, batch, neuron].

    Args:
        nx: backend.
        train: s_t.
        decay: λ.
        nearest: whether a spike sets a trace to 1, instead of adding to it.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> before(get_backend("numpy"), np.ones((4, 1, 1)), 0.5, nearest=False).ravel().tolist()
        [0.0, 0.5, 0.75, 0.875]
    """
    host = host_of(nx)
    if host is not None:
        spikes = contiguous(host.host(train))
        steps, batch, size = spikes.shape
        found, carried = BUFFERS.empty(spikes.shape, spikes.dtype), np.zeros((batch, size), spikes.dtype)
        loop, kept = _loop(nearest, spikes.dtype.name), spikes.dtype.type(decay)
        each(lambda _, first, last: loop(first, last, spikes, kept, found, carried), parts(batch, steps * batch * size))
        return host.from_host(found)

    def step(carry: Arrays, arriving: Arrays) -> tuple[Arrays, Arrays]:
        (trace,), (spikes,) = carry, arriving
        left = decay * trace
        return (_entered(spikes, left, nearest),), (left,)

    zero = nx.full(tuple(train.shape[1:]), 0.0, nx.dtype(train))
    return nx.scan(step, (zero,), (train,), train.shape[0])[1][0]


def _entered(spikes: Any, left: Any, nearest: bool) -> Any:
    """x_t."""
    return spikes + (1 - spikes) * left if nearest else spikes + left


@lru_cache(maxsize=8)
def _loop(nearest: bool, dtype: str) -> Any:
    """The same over a range of examples."""
    from neko_rules.kernels.compiling import module_of
    from neko_rules.kernels.tracing import Body
    from neko_rules.kernels.writer import Back, Carried, Constant, carried_source

    body, decay = Body(dtype), Constant("p_decay", False)
    left = body.argument(decay.traced) * body.argument("l_trace")
    after = _entered(body.argument("i_train"), left, nearest)
    of = Back(
        statements=body.statements,
        constants=[decay],
        loads={decay.traced: decay.loading, "l_trace": "carry_trace[n]", "i_train": "r_train[n]"},
        signals={},
        recorded=["train"],
        starts={},
        carried=[Carried("trace", after.name)],
        products=[],
        outputs={"before": left.name},
        totals={},
    )
    return module_of(carried_source(body, of)).run


def overlap(nx: Backend, few: Array, many: Array) -> Array:
    """Σ over time and examples of few ⊗ many, [few, many], of [time, batch, few] and [time, batch, many].

    Args:
        nx: backend.
        few: of which most entries are zero: where it has few events they are walked.
        many: any.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> overlap(get_backend("numpy"), np.eye(2)[:, None], np.arange(6.0).reshape(2, 1, 3)).tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    host = host_of(nx)
    if host is not None:
        from neko_rules.kernels.events import listed

        events = listed(contiguous(host.host(few)))
        if events.sparse:
            return host.from_host(events.gradient(contiguous(host.host(many))))
    rows = few.shape[0] * few.shape[1]
    flat = nx.reshape(few, (rows, few.shape[2]))
    return nx.matmul(nx.transpose(flat, (1, 0)), nx.reshape(many, (rows, many.shape[2])))
