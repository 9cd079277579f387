"""Grouped: a few examples taken out of a batch, pooled over time, and added up; what a chain does between its loops.

Of a batch [time, batch, …], or of inputs [batch, time, feature], a group is the examples from ``begin`` on, as many as
the array has that they are written to.
"""

from __future__ import annotations

from typing import Any

from neko_rules.kernels.buffers import LINE
from neko_rules.kernels.compiling import kernel

Array = Any
"""An array in C order."""

_LINE = LINE // 4
"""Entries of a line of the cache, in float32."""


@kernel
def take_inputs(begin: int, at: int, inputs: Array, group: Array) -> None:
    """group[t, b, k] = inputs[begin + b, at + t, k]."""
    for b in range(group.shape[1]):
        for t in range(group.shape[0]):
            row, into = inputs[begin + b, at + t], group[t, b]
            for k in range(group.shape[2]):
                into[k] = row[k]


@kernel
def take_group(begin: int, batch: Array, group: Array) -> None:
    """group[t, b, k] = batch[t, begin + b, k]."""
    for t in range(group.shape[0]):
        for b in range(group.shape[1]):
            for k in range(group.shape[2]):
                group[t, b, k] = batch[t, begin + b, k]


@kernel
def take_numbers(begin: int, batch: Array, group: Array) -> None:
    """group[t, b] = batch[t, begin + b], of a batch with one number per example that of all steps."""
    for t in range(group.shape[0]):
        row = batch[min(t, batch.shape[0] - 1)]
        for b in range(group.shape[1]):
            group[t, b] = row[begin + b]


@kernel
def put_group(begin: int, group: Array, batch: Array) -> None:
    """batch[t, begin + b, k] = group[t, b, k]."""
    for t in range(group.shape[0]):
        for b in range(group.shape[1]):
            for k in range(group.shape[2]):
                batch[t, begin + b, k] = group[t, b, k]


@kernel
def copy_rows(rows: Array, into: Array) -> None:
    """into[b, k] = rows[b, k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            into[b, k] = rows[b, k]


@kernel
def add_rows(rows: Array, into: Array) -> None:
    """into[b, k] += rows[b, k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            into[b, k] += rows[b, k]


@kernel
def scale_rows(factor: float, rows: Array, into: Array) -> None:
    """into[b, k] = factor · rows[b, k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            into[b, k] = factor * rows[b, k]


@kernel
def scale_rows_and_add(factor: float, rows: Array, number: float, into: Array) -> None:
    """into[b, k] = factor · rows[b, k] + number."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            into[b, k] = factor * rows[b, k] + number


@kernel
def add_product(rows: Array, factors: Array, more: Array, into: Array) -> None:
    """into[b, k] = rows[b, k] + factors[b, k] · more[b, k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            into[b, k] = rows[b, k] + factors[b, k] * more[b, k]


@kernel
def spread_row(row: Array, rows: Array) -> None:
    """rows[b, k] = row[k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            rows[b, k] = row[k]


@kernel
def add_row(row: Array, rows: Array) -> None:
    """rows[b, k] += row[k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            rows[b, k] += row[k]


@kernel
def spread_row_of_each(rows: Array, history: Array) -> None:
    """history[t, b, k] = rows[t, k]."""
    for t in range(history.shape[0]):
        for b in range(history.shape[1]):
            for k in range(history.shape[2]):
                history[t, b, k] = rows[t, k]


@kernel
def append_row(matrix: Array, row: Array, into: Array) -> None:
    """The matrix with one more row."""
    last, size = matrix.shape
    for k in range(size):
        for i in range(last):
            into[i, k] = matrix[i, k]
        into[last, k] = row[k]


@kernel
def append_ones(history: Array, into: Array) -> None:
    """A history [time, example, entry] with one more entry, which is 1."""
    size = history.shape[2]
    for t in range(history.shape[0]):
        for b in range(history.shape[1]):
            row, found = history[t, b], into[t, b]
            for k in range(size):
                found[k] = row[k]
            found[size] = 1


@kernel
def spread_steps(numbers: Array, history: Array) -> None:
    """history[t, b, k] = numbers[t]."""
    for t in range(history.shape[0]):
        history[t] = numbers[t]


@kernel
def shift_earlier(history: Array, into: Array) -> None:
    """into[t] = history[t + 1], and 0 at the last step: what arrived one step later, when it was sent."""
    steps, examples, size = history.shape
    for t in range(steps):
        for b in range(examples):
            row = into[t, b]
            for n in range(size):
                row[n] = 0
            if t + 1 < steps:
                later = history[t + 1, b]
                for n in range(size):
                    row[n] = later[n]


@kernel
def mean_with_earlier(history: Array, into: Array) -> None:
    """into[t] = (history[t - 1] + history[t]) / 2, and history[0] at the first step."""
    steps, examples, size = history.shape
    half = history.dtype.type(0.5)
    for t in range(steps):
        for b in range(examples):
            row, now, before = into[t, b], history[t, b], history[max(t - 1, 0), b]
            for n in range(size):
                row[n] = half * (before[n] + now[n])


@kernel
def weigh_targets(target: Array, weight: Array, into: Array) -> None:
    """into[t, b] = -weight[t, b] target[t, b], or of a target that is the same at all time steps."""
    steps, examples, size = into.shape
    for t in range(steps):
        goal = t if target.shape[0] > 1 else 0
        for b in range(examples):
            row, wanted = into[t, b], target[goal, b]
            for n in range(size):
                row[n] = -weight[t, b] * wanted[n]


@kernel
def list_constant(index: Array, count: Array) -> None:
    """The events of a source of one neuron that sends 1 at every time step."""
    index[:] = 0
    count[:] = 1


@kernel
def clear(array: Array) -> None:
    """Zero everywhere."""
    array[:] = 0


@kernel
def clear_diagonal(matrix: Array) -> None:
    """matrix[k, k] = 0."""
    for k in range(matrix.shape[0]):
        matrix[k, k] = 0


@kernel
def clear_absent(matrix: Array, synapses: Array) -> None:
    """matrix[i, k] = 0 wherever synapses[i, k] = 0."""
    for i in range(matrix.shape[0]):
        for k in range(matrix.shape[1]):
            matrix[i, k] = matrix[i, k] if synapses[i, k] else 0


@kernel
def transpose(matrix: Array, into: Array) -> None:
    """into[k, i] = matrix[i, k], some rows at a time, so that what is written fills lines of the cache."""
    rows, columns = matrix.shape
    for begin in range(0, rows, _LINE):
        for k in range(columns):
            row = into[k]
            for i in range(begin, min(begin + _LINE, rows)):
                row[i] = matrix[i, k]


@kernel
def count_group(count: Array, found: Array) -> None:
    """found[0] = Σ count."""
    found[0] = 0
    for t in range(count.shape[0]):
        for b in range(count.shape[1]):
            found[0] += count[t, b]


@kernel
def count_spikes(begin: int, index: Array, count: Array, onto: bool, sums: Array) -> None:
    """sums[0, begin + b, k] = Σ_t of the spikes that are listed; or the same added to it."""
    for b in range(count.shape[1]):
        row = sums[0, begin + b]
        if not onto:
            row[:] = 0
        for t in range(count.shape[0]):
            fired = index[t, b]
            for k in range(count[t, b]):
                row[fired[k]] += 1


@kernel
def sum_spikes(begin: int, spikes: Array, onto: bool, sums: Array) -> None:
    """sums[0, begin + b, k] = Σ_t spikes[t, b, k]; or the same added to it."""
    for b in range(spikes.shape[1]):
        row = sums[0, begin + b]
        if not onto:
            row[:] = 0
        for t in range(spikes.shape[0]):
            for k in range(spikes.shape[2]):
                row[k] += spikes[t, b, k]


@kernel
def add_rows_of_group(rows: Array, total: Array) -> None:
    """total[k] += Σ_b rows[b, k]."""
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            total[k] += rows[b, k]


@kernel
def add_loss(begin: int, weight: Array, values: Array, total: Array) -> None:
    """total[0] += Σ_{t, b} weight[t, begin + b] values[t, b], with the weight of all steps if there is but one."""
    for t in range(values.shape[0]):
        row = weight[min(t, weight.shape[0] - 1)]
        for b in range(values.shape[1]):
            total[0] += row[begin + b] * values[t, b]


@kernel
def pool_mean(history: Array, pooled: Array) -> None:
    """pooled[b, k] = 1/T Σ_t history[t, b, k]."""
    steps = history.shape[0]
    pooled[:] = 0
    for t in range(steps):
        for b in range(history.shape[1]):
            for k in range(history.shape[2]):
                pooled[b, k] += history[t, b, k] / steps


@kernel
def spread_mean(slope: Array, signal: Array) -> None:
    """signal[t, b, k] = slope[b, k] / T."""
    steps = signal.shape[0]
    for t in range(steps):
        for b in range(signal.shape[1]):
            for k in range(signal.shape[2]):
                signal[t, b, k] = slope[b, k] / steps


@kernel
def pool_largest(history: Array, pooled: Array, chosen: Array) -> None:
    """pooled[b, k] = max_t history[t, b, k], and the first t that has it; a NaN is not smaller than anything."""
    for b in range(history.shape[1]):
        for k in range(history.shape[2]):
            most, at = history[0, b, k], 0
            for t in range(1, history.shape[0]):
                y = history[t, b, k]
                if most == most and not y <= most:
                    most, at = y, t
            pooled[b, k], chosen[b, k] = most, at


@kernel
def spread_largest(slope: Array, chosen: Array, signal: Array) -> None:
    """signal[t, b, k] = slope[b, k] at the chosen t, zero elsewhere."""
    signal[:] = 0
    for b in range(slope.shape[0]):
        for k in range(slope.shape[1]):
            signal[chosen[b, k], b, k] = slope[b, k]


@kernel
def clear_before_last(signal: Array) -> None:
    """signal[t] = 0 but for the last step."""
    signal[: signal.shape[0] - 1] = 0


@kernel
def update_nothing(
    sizes: Array, addresses: Array, number: int, odd: Array, rates: Array, counts: Array, decays: Array, factors: Array
) -> None:
    """Stands in a chain where the loop of an optimiser is called: ``iterate`` of ``kernels.elementwise.Loop``."""
