"""NUTS: the no-U-turn sampler, multinomial, which finds the length of every trajectory itself.

The trajectory is doubled forward or backward in time, at random, until its ends begin to approach each other,

    (θ_late - θ_early)·p_early ≤ 0   or   (θ_late - θ_early)·p_late ≤ 0,

in the whole or in any of the balanced halves, quarters, … it was built of. A state is drawn with probability ∝ exp(-H):
uniformly progressive within a half, and biased towards the newer half (Betancourt 2017, appendix A.3.2). A half that
turned within itself, or diverged, is left out whole, as from some of its states it could not have been built.

The halves are not built by recursion but leaf by leaf: leaf n (from 0) of a half closes as many balanced subtrees as
n has trailing ones in binary; where those began is kept in one slot per level (as in Phan, Pradhan & Jankowiak 2019).
Many chains step in lockstep, each leaving when it is done.

Reference: M. D. Hoffman, A. Gelman, Journal of Machine Learning Research 15:1593, 2014; M. Betancourt, A conceptual
introduction to Hamiltonian Monte Carlo, arXiv:1701.02434, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from neko_rules import arguments
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.hmc import HMCKernel
from neko_rules.samplers.kernel import Info, State, Tuning, acceptance, no_blocks, start
from neko_rules.samplers.leapfrog import Point, draw_momentum, kinetic_energy, leapfrog


class _Half(NamedTuple):
    """A new half of a trajectory: its far end, the state drawn from it, and sums over its leaves; rows are chains."""

    whole: np.ndarray
    """Whether it was completed without a U-turn and without divergence."""
    end: Point
    drawn: Point
    hamiltonian: Vector
    log_weight: Vector
    acceptance: Vector
    leaves: np.ndarray
    diverging: np.ndarray


@dataclass(frozen=True)
class NUTSKernel:
    """The multinomial no-U-turn sampler.

    Args:
        max_depth: doublings at most; a trajectory has at most 2^max_depth - 1 leapfrog steps.

    Example:
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> kernel, rng = NUTSKernel(), np.random.default_rng(0)
        >>> state, info = kernel.step(rng, normal, kernel.init(normal, np.zeros((3, 2))), Tuning(0.5, np.ones(2)))
        >>> bool((info.n_steps >= 2**info.tree_depth / 2).all())
        True
    """

    max_depth: int = 10

    exact: ClassVar[bool] = True
    target_acceptance: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        arguments.integer("max_depth", self.max_depth, at_least=1, at_most=20)

    def init(self, density: Density, position: Vector) -> State:
        """The state at a position."""
        return start(density, position)

    def probe(self) -> HMCKernel:
        """One leapfrog step."""
        return HMCKernel(steps=1)

    def step(self, rng: np.random.Generator, density: Density, state: State, tuning: Tuning) -> tuple[State, Info]:
        """One trajectory and a state drawn from it."""
        momentum = draw_momentum(rng, state.position.shape, tuning.inverse_mass)
        origin = Point(state.position, momentum, state.energy, state.gradient)
        before = state.energy + kinetic_energy(momentum, tuning.inverse_mass)
        chains = len(before)
        early, late, drawn = _copy(origin), _copy(origin), _copy(origin)
        hamiltonian, log_weight, total = before.copy(), np.zeros(chains), np.zeros(chains)
        leaves, depth = np.zeros(chains, np.int64), np.zeros(chains, np.int64)
        diverging, accepted = np.zeros(chains, bool), np.zeros(chains, bool)
        active = np.arange(chains)
        for doubling in range(self.max_depth):
            forward = rng.random(active.size) < 0.5
            ends = Point(*(_rows(forward, new[active], old[active]) for new, old in zip(late, early, strict=True)))
            half = _grow(rng, density, ends, forward, before[active], doubling, tuning)
            total[active] += half.acceptance
            leaves[active] += half.leaves
            diverging[active] |= half.diverging
            depth[active] += 1
            newer = half.log_weight - log_weight[active]
            taken = half.whole & (-rng.standard_exponential(active.size) < newer)
            _put(drawn, active[taken], half.drawn, taken)
            hamiltonian[active[taken]] = half.hamiltonian[taken]
            accepted[active[taken]] = True
            for side, onward in ((late, forward), (early, ~forward)):
                _put(side, active[half.whole & onward], half.end, half.whole & onward)
            active, added = active[half.whole], half.log_weight[half.whole]
            log_weight[active] = np.logaddexp(log_weight[active], added)
            active = active[~_turning(_take(early, active), _take(late, active), 1.0)]
            if not active.size:
                break
        new = State(drawn.position, drawn.energy, drawn.gradient, state.momentum)
        error = hamiltonian - before
        return new, Info(total / leaves, accepted, hamiltonian, error, diverging, leaves, depth, no_blocks(chains))


def _grow(
    rng: np.random.Generator,
    density: Density,
    point: Point,
    forward: np.ndarray,
    before: Vector,
    doubling: int,
    tuning: Tuning,
) -> _Half:
    """Integrate 2^doubling leaves on from a point, checking every balanced subtree on the way."""
    chains = len(before)
    sign = np.where(forward, 1.0, -1.0)[:, None]
    end, drawn, hamiltonian = _copy(point), _copy(point), before.copy()
    log_weight, total = np.full(chains, -np.inf), np.zeros(chains)
    leaves, diverging, whole = np.zeros(chains, np.int64), np.zeros(chains, bool), np.zeros(chains, bool)
    begun = [_copy(point) for _ in range(max(doubling, 1))]
    rows = np.arange(chains)
    for leaf in range(2**doubling):
        with np.errstate(invalid="ignore", over="ignore"):
            point = leapfrog(density, point, sign * tuning.step_size, tuning.inverse_mass)
            after = point.energy + kinetic_energy(point.momentum, tuning.inverse_mass)
            probability, log_ratio, wrong = acceptance(before[rows] - after, point.energy)
        total[rows] += probability
        leaves[rows] += 1
        diverging[rows] |= wrong
        rows, point, sign = rows[~wrong], _take(point, ~wrong), sign[~wrong]
        after, log_ratio = after[~wrong], log_ratio[~wrong]
        if not rows.size:
            break
        log_weight[rows] = np.logaddexp(log_weight[rows], log_ratio)
        taken = -rng.standard_exponential(rows.size) < log_ratio - log_weight[rows]
        _put(drawn, rows[taken], point, taken)
        hamiltonian[rows[taken]] = after[taken]
        first, last = _levels(leaf)
        if leaf % 2 == 0:
            _put(begun[last], rows, point, slice(None))
            continue
        turned = np.zeros(rows.size, bool)
        for level in range(first, last + 1):
            turned |= _turning(_take(begun[level], rows), point, sign)
        rows, point, sign = rows[~turned], _take(point, ~turned), sign[~turned]
        if not rows.size:
            break
    _put(end, rows, point, slice(None))
    whole[rows] = True
    return _Half(whole, end, drawn, hamiltonian, log_weight, total, leaves, diverging)


def _levels(leaf: int) -> tuple[int, int]:
    """The slots of the subtrees that a leaf closes (odd leaves), or of the one that it begins (even leaves).

    Example: leaf 3 closes the pair that leaf 2 began, and the four that leaf 0 began.

        >>> [_levels(leaf) for leaf in range(4)]
        [(1, 0), (0, 0), (2, 1), (0, 1)]
    """
    last = (leaf >> 1).bit_count()
    trailing_ones = (~leaf & (leaf + 1)).bit_length() - 1
    return last - trailing_ones + 1, last


def _turning(begin: Point, end: Point, sign: float | Vector) -> np.ndarray:
    """Whether the two ends of a stretch approach each other; the sign is that of time from ``begin`` to ``end``."""
    span = sign * (end.position - begin.position)
    return (np.sum(span * begin.momentum, axis=1) <= 0) | (np.sum(span * end.momentum, axis=1) <= 0)


def _copy(point: Point) -> Point:
    return Point(*(array.copy() for array in point))


def _take(point: Point, rows: np.ndarray) -> Point:
    return Point(*(array[rows] for array in point))


def _put(into: Point, rows: np.ndarray, source: Point, chosen: np.ndarray | slice) -> None:
    for target, array in zip(into, source, strict=True):
        target[rows] = array[chosen]


def _rows(chosen: np.ndarray, yes: Vector, no: Vector) -> Vector:
    return np.where(chosen.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
