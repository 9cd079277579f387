"""Fused traces: one time step of all synapses of a parameter by one compiled loop, from trace to gradient.

    ε_t = D_t ε_{t-1} + r_t (h_{t-1}·ε_{t-1}) + q_t x_t,    e_t = h_t·ε_t,    ē_t = κ ē_{t-1} + e_t
    Σ_batch (G_t h_t + g_t)·ε_t       and       Σ_batch Ḡ_t ē_t

The arrays [batch, pre, post] are as large as a cache. Each is read and written once here, where one operation after the
other would go through several of them many times. States whose vector does not depend on the postsynaptic neuron stay
[batch, pre, 1] and are advanced outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.credit.recursion import Local
from neko_rules.kernels.compiling import module_of
from neko_rules.kernels.host import BUFFERS, HostBackend, contiguous, host_of
from neko_rules.kernels.parallel import each
from neko_rules.kernels.tracing import Memo
from neko_rules.kernels.writer import Source
from neko_rules.threads import parts


@dataclass(frozen=True)
class Form:
    """What the source of such a loop depends on.

    Args:
        wide: states with a vector for every synapse, in order.
        narrow: states with one for every presynaptic neuron.
        entries: the local derivatives in use: ("D", k, j), ("r", k), ("q", k) of wide states, ("h", k) of the trace.
        emitting: the states of which the trace of the step before is made; none if it does not come back.
        projected: wide states that meet a signal as they are.
        filtered: whether there is a filtered trace.
        signal: whether it meets a signal.
    """

    wide: tuple[str, ...]
    narrow: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    emitting: tuple[str, ...]
    projected: tuple[str, ...]
    filtered: bool
    signal: bool


_loops: Memo[Callable[..., Any]] = Memo()


def advanced(
    host: HostBackend,
    form: Form,
    *,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    drive: Array | None,
    local: Local,
    earlier: Mapping[str, Array],
    factors: Mapping[str, Array],
    filtered: Array | None,
    leak: Array | None,
    signal: Array | None,
    shape: tuple[int, int, int],
) -> tuple[dict[str, Array], Array | None, list[Array]]:
    """The wide states and the filtered trace after a step, and the parts of the gradient that they give.

    Args:
        host: the backend.
        form: which loop.
        before: ε_{t-1} by state, [batch, pre, post], or [batch, pre, 1] of narrow states.
        after: ε_t of the narrow states.
        drive: x_t [batch, pre].
        local: the local derivatives, each [batch, post].
        earlier: h_{t-1} by state, [batch, post].
        factors: what wide states meet, [batch, post].
        filtered: ē_{t-1} [batch, pre, post].
        leak: κ [batch, post].
        signal: what ē_t meets, [batch, post].
        shape: (batch, pre, post).
    """
    run = _loops.of(form, lambda: module_of(_source(form)).run)
    assert run is not None, "sums and products have a scalar form"
    _, pre, post = shape

    def held(array: Array) -> np.ndarray:
        return contiguous(host.host(array))

    given = {f"before_{k}": held(before[k]) for k in form.wide}
    given |= {f"narrow_{k}": held(before[k]) for k in form.narrow}
    given |= {f"now_{k}": held(after[k]) for k in form.narrow}
    if drive is not None:
        given["drive"] = held(drive)
    given |= {"_".join(entry): held(local[entry]) for entry in form.entries}
    given |= {f"earlier_{k}": held(earlier[k]) for k in form.emitting}
    given |= {f"factor_{k}": held(factors[k]) for k in form.projected}
    dtype = next(iter(given.values())).dtype
    out = {f"after_{k}": BUFFERS.empty(shape, dtype) for k in form.wide}
    sums = {}
    if form.projected:
        sums["plain"] = np.empty((pre, post), dtype)
    if form.filtered:
        given |= {"filtered": held(filtered), "leak": held(leak)}
        out["smooth"] = BUFFERS.empty(shape, dtype)
        if form.signal:
            given["signal"] = held(signal)
            sums["through"] = np.empty((pre, post), dtype)
    arguments = (given | out | sums).values()

    def part(_: int, first: int, last: int) -> None:
        run(first, last, *arguments)

    each(part, parts(pre, shape[0] * pre * post))
    states = {k: host.from_host(out[f"after_{k}"]) for k in form.wide}
    smooth = host.from_host(out["smooth"]) if form.filtered else None
    return states, smooth, [host.from_host(total) for total in sums.values()]


def filtered_on(nx: Backend, decay: float, before: Array, vectors: Array, slope: Array) -> Array:
    """decay · ē + Σ_t slope_t x_t for every synapse: [batch, pre, post].

    Args:
        nx: the backend.
        decay: of ē over all time steps.
        before: ē [batch, pre, post].
        vectors: x_t [time, batch, pre].
        slope: what every x_t is multiplied by, [time, batch, post].
    """
    host = host_of(nx)
    if host is None:
        each_step = nx.matmul(nx.transpose(vectors, (1, 2, 0)), nx.transpose(slope, (1, 0, 2)))
        return decay * before + each_step
    from neko_rules.kernels.products import filter_on

    earlier, presynaptic, postsynaptic = (contiguous(host.host(array)) for array in (before, vectors, slope))
    after, leak = BUFFERS.empty(earlier.shape, earlier.dtype), earlier.dtype.type(decay)

    def part(_: int, first: int, last: int) -> None:
        filter_on(first, last, leak, earlier, presynaptic, postsynaptic, after)

    each(part, parts(len(earlier), len(presynaptic) * earlier.size))
    return host.from_host(after)


def reached_on(
    host: HostBackend, before: Array, leak: Array, paths: Array, trace: Array, error: Array
) -> tuple[Array, Array]:
    """leak · P + paths · e, the influence of every synapse on K units, and Σ_batch,unit error · that.

    Args:
        host: the backend.
        before: P [batch, K, pre · post].
        leak: [batch, K].
        paths: [batch, K, post].
        trace: e [batch, pre, post].
        error: [batch, K].

    Returns:
        [batch, K, pre · post] and [pre, post].
    """
    from neko_rules.kernels.reaching import reach_on

    kept, path, own, wrong = (contiguous(host.host(array)) for array in (leak, paths, trace, error))
    batch, pre, post = own.shape
    shape = (batch, kept.shape[1], pre, post)
    held, after = contiguous(host.host(before)).reshape(shape), BUFFERS.empty(shape, own.dtype)
    total = np.empty((pre, post), own.dtype)

    def part(_: int, first: int, last: int) -> None:
        reach_on(first, last, held, kept, path, own, wrong, after, total)

    each(part, parts(pre, held.size))
    return host.from_host(after.reshape(before.shape)), host.from_host(total)


def met_by(nx: Backend, traces: Array, signal: Array) -> Array:
    """Σ_batch signal · ē, [pre, post].

    Args:
        nx: the backend.
        traces: ē [batch, pre, post].
        signal: [batch, post].
    """
    host = host_of(nx)
    if host is None and hasattr(nx, "in_host_memory"):
        return nx.sum(traces * nx.expand_dims(signal, 1), axis=0)
    if host is None:

        def body(carry: tuple[Array, ...], given: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            return (carry[0] + given[0] * given[1],), ()

        # In a library that compiles: XLA's sum over the first axis goes from entry to entry, and takes ten times as
        # long as one that goes from example to example.
        return nx.scan(body, (0 * traces[0],), (traces, nx.expand_dims(signal, 1)), traces.shape[0])[0][0]
    from neko_rules.kernels.rows import add_met

    held, factor = (contiguous(host.host(array)) for array in (traces, signal))
    total = np.empty(held.shape[1:], held.dtype)
    each(lambda _, first, last: add_met(first, last, held, factor, total), parts(held.shape[1], held.size))
    return host.from_host(total)


def _source(form: Form) -> str:
    rows = [f"before_{k}" for k in form.wide]
    scalars = [*(f"narrow_{k}" for k in form.narrow), *(f"now_{k}" for k in form.narrow)]
    if any(entry[0] == "q" for entry in form.entries):
        scalars.append("drive")
    coefficients = ["_".join(entry) for entry in form.entries]
    coefficients += [f"earlier_{k}" for k in form.emitting]
    coefficients += [f"factor_{k}" for k in form.projected]
    out = [f"after_{k}" for k in form.wide]
    sums = ["plain"] if form.projected else []
    tail = ["filtered", "leak"] if form.filtered else []
    if form.filtered:
        out.append("smooth")
        if form.signal:
            tail.append("signal")
            sums.append("through")
    source = Source("Eligibility traces of one parameter, one time step")
    source.function("run", ["first", "last", *rows, *scalars, *coefficients, *tail, *out, *sums])
    source.add(1, f"batch, _, size = {out[0]}.shape", *(f"{name}[first:last] = 0" for name in sums))
    # One example after the other: the arrays are gone through as they lie in memory.
    source.add(1, "for b in range(batch):")
    per_example = [*coefficients, *(name for name in tail if name != "filtered")]
    per_synapse = [*rows, *out, *(name for name in tail if name == "filtered")]
    source.add(2, *(f"r_{name} = {name}[b]" for name in per_example), "for i in range(first, last):")
    source.add(3, *(f"s_{name} = {name}[b, i]{'' if name == 'drive' else '[0]'}" for name in scalars))
    source.add(3, *(f"r_{name} = {name}[b, i]" for name in per_synapse))
    source.add(3, *(f"into_{name} = {name}[i]" for name in sums))
    source.add(3, "for n in range(size):")

    def earlier(k: str) -> str:
        return f"r_before_{k}[n]" if k in form.wide else f"s_narrow_{k}"

    if form.emitting:
        source.add(4, "emitted = " + " + ".join(f"r_earlier_{k}[n] * {earlier(k)}" for k in form.emitting))
    for k in form.wide:
        terms = [f"r_{'_'.join(e)}[n] * {earlier(e[2])}" for e in form.entries if e[0] == "D" and e[1] == k]
        terms += [f"r_r_{k}[n] * emitted" for e in form.entries if e == ("r", k)]
        terms += [f"r_q_{k}[n] * s_drive" for e in form.entries if e == ("q", k)]
        source.add(4, f"v_{k} = {' + '.join(terms)}", f"r_after_{k}[n] = v_{k}")
    for k in form.projected:
        source.add(4, f"into_plain[n] += r_factor_{k}[n] * v_{k}")
    if form.filtered:
        terms = [
            f"r_h_{e[1]}[n] * {f'v_{e[1]}' if e[1] in form.wide else f's_now_{e[1]}'}"
            for e in form.entries
            if e[0] == "h"
        ]
        source.add(4, f"smooth_now = r_leak[n] * r_filtered[n] + {' + '.join(terms)}", "r_smooth[n] = smooth_now")
        if form.signal:
            source.add(4, "into_through[n] += r_signal[n] * smooth_now")
    return source.text()
