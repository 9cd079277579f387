"""Filtering: what events of several time steps leave in traces that leak, one of each neuron or of each synapse.

    x_T = b + Σ_t p_t z_t                                  [batch, pre]
    ē_T = κ^T ē_0 + b χ_0 + Σ_t z_t χ_t                    [batch, pre, post]
    χ_t = Σ_{s ≥ t} κ^(T-1-s) D^(s-t) h_s

A row of traces is touched where its neuron fired, and once for what is left of the traces before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from neko_rules.kernels.compiling import kernel, within
from neko_rules.kernels.events import Events
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.parallel import each
from neko_rules.kernels.writer import TOGETHER
from neko_rules.threads import parts

Array = Any
"""An array in C order."""

assert TOGETHER == 4, "four examples side by side are written out"


def summed(events: Events, powers: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """x_T: what events leave, each with the power of its time step.

    Args:
        events: z_t, [time, batch, pre].
        powers: p_t, [time].
        begin: b, [batch, pre]; it is added to in place.
    """
    values = events.factors(begin.dtype)
    add_events(0, len(begin), events.index, events.count, values, events.ones, powers.astype(begin.dtype), begin)
    return begin


@lru_cache(maxsize=256)
def powers(base: float, steps: int, factor: float = 1.0, dtype: str = "float64") -> np.ndarray:
    """factor · base^(T-1-t), [time], to be looked at only.

    Example:
        >>> powers(0.5, 3, factor=2.0).tolist()
        [0.5, 1.0, 2.0]
    """
    return (factor * base ** np.arange(steps - 1.0, -1.0, -1.0)).astype(dtype)


def back_filtered(kappa: float, leak: float, gain: float, slope: np.ndarray) -> np.ndarray:
    """q χ_t, [time, batch, post].

    Args:
        kappa: κ.
        leak: D.
        gain: q.
        slope: h_t, [time, batch, post].
    """
    into, kind = BUFFERS.empty(slope.shape, slope.dtype), slope.dtype.type
    kept = powers(kappa, len(slope), gain, slope.dtype.name)
    each(lambda _, a, b: filter_back(a, b, kept, kind(leak), slope, into), parts(slope.shape[1], slope.size))
    return into


def filtered(
    events: Events, decay: float, before: np.ndarray, begin: np.ndarray, first: np.ndarray, factor: np.ndarray
) -> np.ndarray:
    """ē_T of every synapse, [batch, pre, post].

    Args:
        events: z_t, [time, batch, pre].
        decay: κ^T.
        before: ē_0, [batch, pre, post].
        begin: b, [batch, pre].
        first: χ_0, [batch, post].
        factor: χ_t at the time steps of the events, [time, batch, post].
    """
    after, left = BUFFERS.empty(before.shape, before.dtype), before.dtype.type(decay)
    values = events.factors(before.dtype)

    def part(_: int, a: int, b: int) -> None:
        given = events.index, events.count, values, events.ones, factor
        _filter_events(a, b, left, before, begin, first, *given, after)

    each(part, parts(len(before), before.size))
    return after


@kernel
def add_events(
    first: int, last: int, index: Array, count: Array, values: Array, ones: bool, powers: Array, into: Array
) -> None:
    """into[b] += Σ_t p_t z_t[b] of examples ``first`` to ``last``."""
    for t in range(index.shape[0]):
        for b in range(first, last):
            fired, row = index[t, b], into[b]
            for k in range(count[t, b]):
                i = fired[k]
                row[i] += powers[t] if ones else powers[t] * values[t, b, i]


@kernel
def filter_back(first: int, last: int, kept: Array, leak: float, slope: Array, into: Array) -> None:
    """χ_t of examples ``first`` to ``last``, where ``kept`` is κ^(T-1-t)."""
    steps, _, size = slope.shape
    for t in range(steps - 1, -1, -1):
        for b in range(first, last):
            row, out = slope[t, b], into[t, b]
            for n in range(size):
                out[n] = kept[t] * row[n]
            if t + 1 < steps:
                later = into[t + 1, b]
                for n in range(size):
                    out[n] += leak * later[n]


@within
def _add_filtered(
    b: int, index: Array, count: Array, values: Array, ones: bool, factor: Array, after: Array, size: int
) -> None:
    """after[b] += Σ_t z_t χ_t."""
    for t in range(index.shape[0]):
        fired, met = index[t, b], factor[t, b]
        for k in range(count[t, b]):
            i = fired[k]
            into = after[b, i]
            if ones:
                for n in range(size):
                    into[n] += met[n]
            else:
                value = values[t, b, i]
                for n in range(size):
                    into[n] += value * met[n]


@kernel
def _filter_events(
    first: int,
    last: int,
    decay: float,
    before: Array,
    begin: Array,
    chi: Array,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    factor: Array,
    after: Array,
) -> None:
    _, pre, size = before.shape
    for b in range(first, last):
        row = chi[b]
        for i in range(pre):
            into, held, own = after[b, i], before[b, i], begin[b, i]
            for n in range(size):
                into[n] = decay * held[n] + own * row[n]
        _add_filtered(b, index, count, values, ones, factor, after, size)


@within
def _meet_four(
    b: int, kept: bool, kappa: float, decay: float, begin: Array, chi: Array, traces: Array, signal: Array, total: Array
) -> None:
    """total += Σ κ signal[b] ē[b] of four examples from ``b`` on, and if ``kept`` ē[b] ← κ^T ē[b] + begin[b] χ_0[b].

    A row of the sum is fetched once for all of them.
    """
    met0, met1, met2, met3 = signal[b], signal[b + 1], signal[b + 2], signal[b + 3]
    chi0, chi1, chi2, chi3 = chi[b], chi[b + 1], chi[b + 2], chi[b + 3]
    for i in range(traces.shape[1]):
        row0, row1, row2, row3 = traces[b, i], traces[b + 1, i], traces[b + 2, i], traces[b + 3, i]
        own0, own1, own2, own3 = begin[b, i], begin[b + 1, i], begin[b + 2, i], begin[b + 3, i]
        into = total[i]
        for n in range(into.shape[0]):
            held0, held1, held2, held3 = row0[n], row1[n], row2[n], row3[n]
            into[n] += kappa * ((met0[n] * held0 + met1[n] * held1) + (met2[n] * held2 + met3[n] * held3))
            if kept:
                row0[n] = decay * held0 + own0 * chi0[n]
                row1[n] = decay * held1 + own1 * chi1[n]
                row2[n] = decay * held2 + own2 * chi2[n]
                row3[n] = decay * held3 + own3 * chi3[n]


@within
def _meet_one(
    b: int, kept: bool, kappa: float, decay: float, begin: Array, chi: Array, traces: Array, signal: Array, total: Array
) -> None:
    """The same of one example."""
    met, row = signal[b], chi[b]
    for i in range(traces.shape[1]):
        held, own, into = traces[b, i], begin[b, i], total[i]
        for n in range(into.shape[0]):
            into[n] += kappa * met[n] * held[n]
            if kept:
                held[n] = decay * held[n] + own * row[n]


@kernel
def meet_and_filter(
    first: int,
    last: int,
    begun: bool,
    kept: bool,
    decay: float,
    begin: Array,
    chi: Array,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    factor: Array,
    traces: Array,
    kappa: float,
    signal: Array,
    total: Array,
) -> None:
    """``filtered`` in place of examples ``first`` to ``last``; and total += Σ_b κ signal[b] ē_0[b] while it is at hand.

    Args:
        begun: whether ē_0 is anything but zero; else it is not read.
        kept: whether ē_T is wanted; else it is not written.
    """
    _, pre, size = traces.shape
    for b in range(first, last, TOGETHER):
        end = min(b + TOGETHER, last)
        if begun and end - b == TOGETHER:
            _meet_four(b, kept, kappa, decay, begin, chi, traces, signal, total)
        elif begun:
            for each_one in range(b, end):
                _meet_one(each_one, kept, kappa, decay, begin, chi, traces, signal, total)
        elif kept:
            for each_one in range(b, end):
                row = chi[each_one]
                for i in range(pre):
                    into, own = traces[each_one, i], begin[each_one, i]
                    for n in range(size):
                        into[n] = own * row[n]
        if kept:
            for each_one in range(b, end):
                _add_filtered(each_one, index, count, values, ones, factor, traces, size)


@kernel
def meet_and_filter_constant(
    first: int,
    last: int,
    begun: bool,
    decay: float,
    begin: Array,
    factor: Array,
    traces: Array,
    kappa: float,
    signal: Array,
    total: Array,
) -> None:
    """The same of a bias: z_t is 1 at every time step, and total is [post]."""
    size = traces.shape[2]
    for b in range(first, last):
        held, own, row, met = traces[b, 0], begin[b, 0], factor[0, b], signal[b]
        if begun:
            for n in range(size):
                total[n] += kappa * met[n] * held[n]
                held[n] = decay * held[n] + own * row[n]
        else:
            for n in range(size):
                held[n] = own * row[n]
        for t in range(factor.shape[0]):
            later = factor[t, b]
            for n in range(size):
                held[n] += later[n]


@kernel
def meet_and_carry(
    first: int,
    last: int,
    begun: bool,
    kept: bool,
    vector: Array,
    sent: Array,
    later: bool,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    wide: Array,
    met: Array,
    by_vector: Array,
    by_wide: Array,
    at_first: Array,
    factor: Array,
    total: Array,
) -> None:
    """What is left of a state that differs from synapse to synapse meets its signal, and is taken on.

        total += Σ_b met[b] w[b]
        w[b, i] ← by_wide[b] w[b, i] + by_vector[b] vector[b, i] + Σ_t z_t[b, i] factor_t[b]

    Args:
        first, last: examples.
        begun: whether w is anything but zero; else it is not read.
        kept: whether it is wanted; else it is not written.
        vector: what is left in the trace that is the same for all postsynaptic neurons, [batch, pre].
        sent: what arrives at the first time step of what was sent before, [batch, pre].
        later: whether anything does.
        index, count, values, ones: the events z_t.
        wide: w, [batch, pre, post].
        met, by_vector, by_wide: [batch, post].
        at_first: what ``sent`` is multiplied by, [batch, post].
        factor: [time, batch, post].
        total: [pre, post].
    """
    _, pre, size = wide.shape
    for b in range(first, last):
        signal, from_vector, from_wide = met[b], by_vector[b], by_wide[b]
        for i in range(pre):
            row, into, own = wide[b, i], total[i], vector[b, i]
            if begun and kept:
                for n in range(size):
                    held = row[n]
                    into[n] += signal[n] * held
                    row[n] = from_wide[n] * held + own * from_vector[n]
            elif begun:
                for n in range(size):
                    into[n] += signal[n] * row[n]
            elif kept:
                for n in range(size):
                    row[n] = own * from_vector[n]
        if kept:
            _add_sent(b, sent, later, at_first, wide, size)
            _add_filtered(b, index, count, values, ones, factor, wide, size)


@kernel
def meet_and_carry_filtered(
    first: int,
    last: int,
    begun: bool,
    kept: bool,
    vector: Array,
    sent: Array,
    later: bool,
    index: Array,
    count: Array,
    values: Array,
    ones: bool,
    wide: Array,
    met: Array,
    by_vector: Array,
    by_wide: Array,
    at_first: Array,
    factor: Array,
    traces: Array,
    kappa: float,
    arriving: Array,
    decay: float,
    over_vector: Array,
    over_wide: Array,
    over_first: Array,
    over: Array,
    total: Array,
) -> None:
    """The same beside traces ē that are filtered by what is above: they take what is left of both.

    total += Σ_b κ arriving[b] ē[b]
    ē[b, i] ← κ^T ē[b, i] + over_wide[b] w[b, i] + over_vector[b] vector[b, i] + Σ_t z_t[b, i] over_t[b]
    """
    _, pre, size = wide.shape
    for b in range(first, last):
        signal, from_vector, from_wide = met[b], by_vector[b], by_wide[b]
        filtered_signal, over_from_vector, over_from_wide = arriving[b], over_vector[b], over_wide[b]
        for i in range(pre):
            row, smooth, into, own = wide[b, i], traces[b, i], total[i], vector[b, i]
            if begun and kept:
                for n in range(size):
                    held, before = row[n], smooth[n]
                    into[n] += signal[n] * held + kappa * filtered_signal[n] * before
                    row[n] = from_wide[n] * held + own * from_vector[n]
                    smooth[n] = decay * before + (over_from_wide[n] * held + own * over_from_vector[n])
            elif begun:
                for n in range(size):
                    into[n] += signal[n] * row[n] + kappa * filtered_signal[n] * smooth[n]
            elif kept:
                for n in range(size):
                    row[n] = own * from_vector[n]
                    smooth[n] = own * over_from_vector[n]
        if kept:
            _add_sent(b, sent, later, at_first, wide, size)
            _add_sent(b, sent, later, over_first, traces, size)
            _add_filtered(b, index, count, values, ones, factor, wide, size)
            _add_filtered(b, index, count, values, ones, over, traces, size)


@within
def _add_sent(b: int, sent: Array, later: bool, factor: Array, into: Array, size: int) -> None:
    """into[b, i] += sent[b, i] factor[b], if anything arrives at the first time step."""
    if later:
        met = factor[b]
        for i in range(into.shape[1]):
            value = sent[b, i]
            if value != 0:
                row = into[b, i]
                for n in range(size):
                    row[n] += value * met[n]
