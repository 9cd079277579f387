"""Rows: products of spikes and weights that touch only what is not zero.

    current[b] += Σ_{j fired} W[j]             a presynaptic spike adds its row of weights
    dE/dW[j]   += Σ_{(t, b): j fired} δ[t, b]  and its row of weights receives what the targets sent back

A list of events is [time, batch, neuron] of neuron numbers, of which the first ``count[time, batch]`` are valid.
"""

from __future__ import annotations

import numpy as np

from neko_rules.kernels.compiling import kernel


@kernel
def list_events(first, last, values, index, count):  # type: ignore[no-untyped-def]
    """Which neurons are not zero, at every time step and example of a range: returns how many are, and not 1."""
    steps, _, size = values.shape
    odd = 0
    for t in range(steps):
        for b in range(first, last):
            row, found = values[t, b], index[t, b]
            k = 0
            for n in range(size):
                found[k] = n
                k += row[n] != 0
                odd += (row[n] != 0) & (row[n] != 1)
            count[t, b] = k
    return odd


@kernel
def add_rows(out, matrix, index, count):  # type: ignore[no-untyped-def]
    """out[n] += Σ_k matrix[index[k], n], eight rows at a time, so that out is read and written an eighth as often."""
    size = out.shape[0]
    k = 0
    while k + 8 <= count:
        a, b, c, d = matrix[index[k]], matrix[index[k + 1]], matrix[index[k + 2]], matrix[index[k + 3]]
        e, f, g, h = matrix[index[k + 4]], matrix[index[k + 5]], matrix[index[k + 6]], matrix[index[k + 7]]
        for n in range(size):
            out[n] += ((a[n] + b[n]) + (c[n] + d[n])) + ((e[n] + f[n]) + (g[n] + h[n]))
        k += 8
    while k + 2 <= count:
        a, b = matrix[index[k]], matrix[index[k + 1]]
        for n in range(size):
            out[n] += a[n] + b[n]
        k += 2
    if k < count:
        a = matrix[index[k]]
        for n in range(size):
            out[n] += a[n]


@kernel
def add_scaled_rows(out, matrix, index, count, values):  # type: ignore[no-untyped-def]
    """out[n] += Σ_k values[index[k]] matrix[index[k], n], four rows at a time."""
    size = out.shape[0]
    k = 0
    while k + 4 <= count:
        i, j, l, m = index[k], index[k + 1], index[k + 2], index[k + 3]  # noqa: E741
        a, b, c, d = matrix[i], matrix[j], matrix[l], matrix[m]
        p, q, r, s = values[i], values[j], values[l], values[m]
        for n in range(size):
            out[n] += (p * a[n] + q * b[n]) + (r * c[n] + s * d[n])
        k += 4
    while k < count:
        i = index[k]
        a, p = matrix[i], values[i]
        for n in range(size):
            out[n] += p * a[n]
        k += 1


@kernel
def gathered(first, last, matrix, index, count, values, ones, out):  # type: ignore[no-untyped-def]
    """out[t, b] = Σ_k values[t, b, index[k]] matrix[index[k]] for a range of examples; all values are 1 if ``ones``."""
    steps, _, size = out.shape
    for b in range(first, last):
        for t in range(steps):
            row = out[t, b]
            for n in range(size):
                row[n] = 0
            if ones:
                add_rows(row, matrix, index[t, b], count[t, b])
            else:
                add_scaled_rows(row, matrix, index[t, b], count[t, b], values[t, b])


@kernel
def add_outer(first, last, index, count, values, ones, delta, gradient):  # type: ignore[no-untyped-def]
    """gradient[j] += Σ_{t, b} values[t, b, j] delta[t, b] over the events of a range of examples."""
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
def add_outer_by_row(first, last, index, count, values, ones, delta, gradient, listed, length):  # type: ignore[no-untyped-def]
    """The same for gradients larger than the cache: the events of a few steps are sorted by presynaptic neuron first.

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
            while ones and k + 4 <= length[j]:
                p, q, r, s = rows[events[k]], rows[events[k + 1]], rows[events[k + 2]], rows[events[k + 3]]
                for n in range(size):
                    into[n] += (p[n] + q[n]) + (r[n] + s[n])
                k += 4
            while k < length[j]:
                x, p = inputs[events[k], j], rows[events[k]]
                for n in range(size):
                    into[n] += x * p[n]
                k += 1
