"""Pooling: the outputs of a readout taken at every time step, at the last, averaged, or at their maximum over time.

sequence    o_t = y_t                    dE/dy_t = dE/do_t
last        o = y_{T-1}                  dE/dy_t = dE/do [t = T-1]
mean        o = Σ_t y_t / T              dE/dy_t = dE/do / T
max         o_k = max_t y_tk             dE/dy_tk = dE/do_k [t = argmax_t y_tk]
"""

from __future__ import annotations

from neko_rules.backend import Array, Backend

POOLINGS = ("sequence", "last", "mean", "max")


def pool(nx: Backend, mode: str, outputs: Array) -> Array:
    """Outputs [time, batch, n_out] to [steps, batch, n_out] with steps = time for ``sequence`` and 1 otherwise."""
    if mode == "last":
        return outputs[-1:]
    if mode == "mean":
        return nx.mean(outputs, axis=0, keepdims=True)
    if mode == "max":
        return nx.max(outputs, axis=0, keepdims=True)
    return outputs


def unpool(nx: Backend, mode: str, outputs: Array, gradient: Array) -> Array:
    """dE/dy [time, batch, n_out] from dE/do [steps, batch, n_out]."""
    steps = outputs.shape[0]
    if mode == "last":
        zeros = nx.full((steps - 1, *outputs.shape[1:]), 0.0, nx.dtype(outputs))
        return nx.concat([zeros, gradient], 0)
    if mode == "mean":
        return nx.broadcast_to(gradient / steps, outputs.shape)
    if mode == "max":
        # The first maximum takes the gradient, also where several steps share it.
        places = nx.reshape(nx.arange(steps, "int64"), (steps, 1, 1))
        chosen = places == nx.expand_dims(nx.argmax(outputs, axis=0), 0)
        return gradient * nx.astype(chosen, nx.dtype(outputs))
    return gradient
