"""Rows: products of spikes and weights that touch only what is not zero.

    current[b] += Σ_{j fired} W[j]             a presynaptic spike adds its row of weights
    dE/dW[j]   += Σ_{(t, b): j fired} δ[t, b]  and its row of weights receives what the targets sent back

A list of events is [time, batch, neuron] of neuron numbers, of which the first ``count[time, batch]`` are valid.
"""

from __future__ import annotations

from typing import Any

from neko_rules.kernels.compiling import kernel

Array = Any
"""An array in C order."""


@kernel
def list_events(first: int, last: int, values: Array, index: Array, count: Array) -> int:
    """Which neurons are not zero, at every time step and example of a range: returns how many are, and not 1."""
    steps, _, size = values.shape
    odd = 0
    for t in range(steps):
        for b in range(first, last):
            row, found = values[t, b], index[t, b]
            # Two loops: this one becomes vector code, which the list, entry after entry, cannot.
            for n in range(size):
                odd += (row[n] != 0) & (row[n] != 1)
            k = 0
            for n in range(size):
                found[k] = n
                k += row[n] != 0
            count[t, b] = k
    return odd


@kernel
def add_outer(
    first: int, last: int, index: Array, count: Array, values: Array, ones: bool, delta: Array, gradient: Array
) -> None:
    """gradient[j] += Σ_{t, b} values[t, b, j] delta[t, b] over the events of a range of examples, in order of time."""
    steps, _, size = delta.shape
    for t in range(steps):
        for b in range(first, last):
            row, listed = delta[t, b], index[t, b]
            for k in range(count[t, b]):
                into = gradient[listed[k]]
                if ones:
                    for n in range(size):
                        into[n] += row[n]
                else:
                    x = values[t, b, listed[k]]
                    for n in range(size):
                        into[n] += x * row[n]


@kernel
def add_outer_sorted(
    first: int,
    last: int,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    delta: Array,
    gradient: Array,
    listed: Array,
    length: Array,
) -> None:
    """The same, with the events of a few steps sorted by presynaptic neuron, so that its row is written less often.

    ``listed`` [presynaptic, events] and ``length`` [presynaptic] are scratch; the room for events of one presynaptic
    neuron, divided by the number of examples, is the number of steps that are sorted together.
    """
    steps, batch, size = delta.shape
    rows, inputs = delta.reshape(steps * batch, size), values.reshape(steps * batch, values.shape[2])
    block = listed.shape[1] // (last - first)
    for start in range(0, steps, block):
        for j in range(length.shape[0]):
            length[j] = 0
        for t in range(start, min(steps, start + block)):
            for b in range(first, last):
                for k in range(count[t, b]):
                    j = index[t, b, k]
                    listed[j, length[j]] = t * batch + b
                    length[j] += 1
        for j in range(length.shape[0]):
            into, events, k = gradient[j], listed[j], 0
            while ones and k + 8 <= length[j]:
                p, q, r, s = rows[events[k]], rows[events[k + 1]], rows[events[k + 2]], rows[events[k + 3]]
                u, v, w, x = rows[events[k + 4]], rows[events[k + 5]], rows[events[k + 6]], rows[events[k + 7]]
                for n in range(size):
                    into[n] += ((p[n] + q[n]) + (r[n] + s[n])) + ((u[n] + v[n]) + (w[n] + x[n]))
                k += 8
            while ones and k + 2 <= length[j]:
                p, q = rows[events[k]], rows[events[k + 1]]
                for n in range(size):
                    into[n] += p[n] + q[n]
                k += 2
            while not ones and k + 4 <= length[j]:
                p, q, r, s = rows[events[k]], rows[events[k + 1]], rows[events[k + 2]], rows[events[k + 3]]
                y, z = inputs[events[k], j], inputs[events[k + 1], j]
                g, h = inputs[events[k + 2], j], inputs[events[k + 3], j]
                for n in range(size):
                    into[n] += (y * p[n] + z * q[n]) + (g * r[n] + h * s[n])
                k += 4
            while k < length[j]:
                y, p = inputs[events[k], j], rows[events[k]]
                for n in range(size):
                    into[n] += y * p[n]
                k += 1
