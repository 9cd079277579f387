"""Factors: what neurons make of an influence by themselves, carried forward in time, so that a gradient need only leak.

A rank-one trace is a presynaptic vector that decays at one rate a, times a factor of the postsynaptic neuron,

    f_t = a (D_t + r_t h_{t-1}ᵀ) f_{t-1} + (1 - a) q_t,      n_t = a n_{t-1} + 1 - a = 1 - a^{t+1}
    dE/dW = Σ_t x̄_tᵀ P_t = Σ_t x_tᵀ δ_t,                     x̄_t = a x̄_{t-1} + x_t
    P_t = (G_t h_t·f_t + g_t·f_t) / n_t,                     δ_t = P_t + a δ_{t+1}

and OTPE brings errors down by the running mean of the pseudo-derivative, while what a spike leaves in the layer above
decays with that layer's leak λ,

    ḡ_t = (λ n_{t-1} ḡ_{t-1} + h_t) / n_t,                   n_t = λ n_{t-1} + 1
    dE/dθ = Σ_t G_t R_t = Σ_t Ĝ_t e_t,                       R_t = λ R_{t-1} + e_t,    Ĝ_t = G_t + λ Ĝ_{t+1}

so that both go backward in time like an adjoint, once their factors went forward. In approximate OTPE it is G_t ḡ_t
that leaks, and arrives at the membrane.

References: C. Wang et al. 2026, pp-prop (ES-D-RTRL in the authors' program); M. Summe, C. J. S. Schaefer, S. Joshi,
Estimating post-synaptic effects for online training of feed-forward SNNs, arXiv:2311.16151, 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import numpy as np

from neko_rules.backend import Array, Arrays, Backend, get_backend
from neko_rules.credit.axes import Credit
from neko_rules.credit.recursion import APART, FACTOR, MEAN, RANK_ONE, Local, driven_of, times
from neko_rules.credit.traces import added, factorised, full, reached
from neko_rules.layers.cell import Cell, Constants
from neko_rules.layers.forward import Z
from neko_rules.layers.graph import Graph
from neko_rules.layers.jacobians import Jacobians


def kinds(
    graph: Graph, jacobians: Mapping[str, Jacobians], constants: Mapping[str, Constants], credit: Credit
) -> dict[str, str]:
    """The populations that have factors, and of which kind.

    Args:
        graph: the network.
        jacobians: population name → the derivatives of its cell, cut to the temporal credit.
        constants: population name → the constants of its cell, of which only the shapes matter.
        credit: which gradient.
    """
    if credit.trace == "rank_one":
        return {name: RANK_ONE for name in graph.order if reached(jacobians[name].expressions)}
    if credit.learning_signal != "estimated":
        return {}
    found = {}
    for name in graph.order:
        states = reached(jacobians[name].expressions)
        apart = credit.temporal == "presynaptic" and len(states) == 1
        if name != graph.output:
            found[name] = APART if apart and factorised(jacobians[name], constants[name], states) else MEAN
    return found


class Factors:
    """The factors of one population, as they go from time step to time step.

    Args:
        kind: one of ``kinds``.
        jacobians: the derivatives of the population's cell, cut to the temporal credit.

    Attributes:
        carried: names of what is carried, [batch, neuron] each; zeros before the first time step.
        made: names of what a time step makes of it, as ``Recursion`` asks for its history.
    """

    def __init__(self, kind: str, jacobians: Jacobians) -> None:
        entries = jacobians.expressions
        self.kind, self._states = kind, reached(entries)
        self._emitting = [k for k in self._states if ("h", k) in entries]
        if kind == RANK_ONE:
            returns = self._emitting and any(("r", k) in entries for k in self._states)
            self.carried = (*self._states, *(("emitted",) if returns else ()), "norm")
            self.made = tuple(FACTOR + k for k in (Z, *self._states))
        else:
            self.carried, self.made = ("mean", "count"), (FACTOR + Z,)

    def step(
        self, nx: Backend, before: Mapping[str, Array], local: Local, decay: Array, like: Array, wanted: Collection[str]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """What is carried after a time step, and what the step makes of it.

        Args:
            nx: backend.
            before: what was carried.
            local: the local derivatives of the step.
            decay: a, or λ.
            like: an array [batch, neuron].
            wanted: those of ``made`` that are asked for.
        """
        if self.kind != RANK_ONE:
            driven = driven_of(local)
            earlier = decay * before["count"]
            count = earlier + 1.0
            mean = (earlier * before["mean"] + full(nx, local["h", driven], like)) / count
            return {"mean": mean, "count": count}, {FACTOR + Z: mean}
        after = {k: self._advanced(nx, k, before, local, decay, like) for k in self._states}
        after["norm"] = decay * before["norm"] + (1.0 - decay)
        parts = {k: after[k] for k in self._states}
        emitted = [times(local["h", k], after[k]) for k in self._emitting]
        parts[Z] = added(emitted) if emitted else 0.0 * after["norm"]
        if "emitted" in self.carried:
            after["emitted"] = parts[Z]
        return after, {FACTOR + k: part / after["norm"] for k, part in parts.items() if FACTOR + k in wanted}

    def _advanced(
        self, nx: Backend, k: str, before: Mapping[str, Array], local: Local, decay: Array, like: Array
    ) -> Array:
        """f_t of one state: a (D f_{t-1} + r h_{t-1}·f_{t-1}) + (1 - a) q, as far as there is each of them."""
        parts = [times(local["D", k, j], before[j]) for j in self._states if ("D", k, j) in local]
        parts += [times(local["r", k], before["emitted"])] if ("r", k) in local and "emitted" in before else []
        new = [(1.0 - decay) * full(nx, local["q", k], like)] if ("q", k) in local else []
        return added([*([decay * added(parts)] if parts else []), *new])


def of_factors(population: str) -> str:
    """What the factors of a population are called in a state."""
    return f"{population} factors"


def leak_of(nx: Backend, cell: Cell, jacobians: Jacobians, constants: Constants) -> float:
    """λ of a population: how its one membrane leaks, whatever a spike of its own does to it.

    Args:
        nx: the backend of the constants.
        cell: the population's.
        jacobians: of the cell.
        constants: of the cell.
    """
    cut = jacobians.cut("presynaptic")
    (state,) = reached(cut.expressions)
    held = {name: np.asarray(nx.to_numpy(value)) for name, value in constants.items()}
    # A leak depends on constants alone, so that any state is as good as another.
    with np.errstate(all="ignore"):
        entries = cut.evaluate(get_backend("numpy"), cell, held, lambda name: np.ones(()))
    return float(entries.get(("D", state, state), 0.0))


Key = TypeVar("Key")


def by_operations(
    nx: Backend,
    factors: Factors,
    histories: Mapping[Key, Array],
    local: Callable[[dict[Key, Array]], Local],
    decay: Array,
    start: Mapping[str, Array],
    wanted: tuple[str, ...],
    steps: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """All time steps, by operations: what is carried after the last, and the histories [time, batch, neuron] made.

    Args:
        nx: backend.
        factors: of the population.
        histories: by any key, all that the derivatives depend on in time.
        local: the local derivatives of a step, from the entries of the histories.
        decay: a, or λ.
        start: what is carried before the first time step.
        wanted: what is to be made.
        steps: number of time steps.
    """
    names = tuple(histories)

    def body(carry: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        before = dict(zip(factors.carried, carry, strict=True))
        like = before[factors.carried[0]]
        after, made = factors.step(nx, before, local(dict(zip(names, given, strict=True))), decay, like, wanted)
        return tuple(after[key] for key in factors.carried), tuple(made[key] for key in wanted)

    carry = tuple(start[key] for key in factors.carried)
    last, found = nx.scan(body, carry, tuple(histories.values()), steps)
    return dict(zip(factors.carried, last, strict=True)), dict(zip(wanted, found, strict=True))
