"""Adaptation: step size and mass found while a chain warms up, and frozen before the first draw that is kept.

Step size, by one of two recursions on the mean acceptance probability a_t (not on the accept-or-reject outcome):

    dual averaging   H̄_t = (1 - 1/(t + t₀)) H̄_{t-1} + (δ - a_t)/(t + t₀),   log ε_t = μ - H̄_t √t/γ,   μ = log 10 ε₀
                     log ε̄_t = t^-κ log ε_t + (1 - t^-κ) log ε̄_{t-1},   γ = 0.05, t₀ = 10, κ = 0.75;   ε̄ is kept
    Robbins-Monro    log ε_t = log ε_{t-1} + t^-0.6 (a_t - δ)

Mass, in Stan's windows: a first stretch for the step size alone, then windows that double in length, after each of
which M⁻¹ becomes the variance within it, shrunk by n/(n + 5) towards 1e-3, then a last stretch for the step size.

Reference: Y. Nesterov, Mathematical Programming 120:221, 2009; M. D. Hoffman, A. Gelman, Journal of Machine Learning
Research 15:1593, 2014, section 3.2; C. Andrieu, J. Thoms, A tutorial on adaptive MCMC, Statistics and Computing 18:343,
2008; Stan Reference Manual, "Automatic parameter tuning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neko_rules import arguments
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Kernel, State, Tuning

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
"""Of dual averaging: how far a step goes, how much the first are damped, how soon early ones are forgotten."""

RATE = 0.6
"""Of Robbins-Monro: weights t^-0.6, whose sum is infinite and whose squares' sum is finite."""

METHODS = ("dual_averaging", "robbins_monro")
MASSES = ("diagonal", "identity")

FIRST, BASE, LAST = 75, 25, 50
"""Stan's stretches: step size alone, first window, step size alone."""

SHORTEST = 50
"""Below so many transitions there is no window, as nothing would be left to fit the step size to the new mass."""


class StepSize(NamedTuple):
    """The state of a step-size recursion, plain numbers.

    Attributes:
        log_step: log ε_t, what the next transition uses.
        log_mean: log ε̄_t, what is kept.
        error: H̄_t.
        mu: where dual averaging is drawn to.
        updates: transitions since it began.
    """

    log_step: float
    log_mean: float
    error: float
    mu: float
    updates: int

    @classmethod
    def at(cls, step_size: float) -> StepSize:
        """The state at the beginning."""
        log_step = float(np.log(step_size))
        return cls(log_step, log_step, 0.0, float(np.log(10.0)) + log_step, 0)


def dual_averaging(state: StepSize, acceptance: float, target: float) -> StepSize:
    """One step of dual averaging.

    Example: a chain that accepts too much takes longer steps.

        >>> bool(dual_averaging(StepSize.at(1.0), acceptance=1.0, target=0.8).log_step > 0)
        True
    """
    updates = state.updates + 1
    weight = 1 / (updates + T0)
    error = (1 - weight) * state.error + weight * (target - acceptance)
    log_step = state.mu - error * np.sqrt(updates) / GAMMA
    share = updates**-KAPPA
    log_mean = share * log_step + (1 - share) * state.log_mean
    return StepSize(float(log_step), float(log_mean), error, state.mu, updates)


def robbins_monro(state: StepSize, acceptance: float, target: float) -> StepSize:
    """One step of the Robbins-Monro recursion; what is kept is where it stands.

    Example:
        >>> round(robbins_monro(StepSize.at(1.0), acceptance=1.0, target=0.8).log_step, 3)
        0.2
    """
    updates = state.updates + 1
    log_step = state.log_step + updates**-RATE * (acceptance - target)
    return StepSize(float(log_step), float(log_step), 0.0, state.mu, updates)


class Variance(NamedTuple):
    """Running mean and sum of squared deviations [dimension] (Welford 1962)."""

    samples: int
    mean: Vector
    squares: Vector

    @classmethod
    def empty(cls, dimension: int) -> Variance:
        """Nothing seen yet."""
        return cls(0, np.zeros(dimension), np.zeros(dimension))

    def add(self, positions: Vector) -> Variance:
        """With the positions of some chains [chains, dimension] added."""
        samples, mean, squares = self
        for position in positions:
            samples += 1
            difference = position - mean
            mean = mean + difference / samples
            squares = squares + difference * (position - mean)
        return Variance(samples, mean, squares)

    def shrunk(self) -> Vector:
        """The variance, shrunk towards 1e-3 by as much as five more samples of it would.

        Example:
            >>> Variance.empty(1).add(np.array([[1.0], [3.0]])).shrunk().round(4)
            array([0.5721])
        """
        n = self.samples
        return n / (n + 5) * self.squares / (n - 1) + 1e-3 * 5 / (n + 5)


def windows(warmup: int) -> tuple[int, list[int]]:
    """The first transition of the first window, and the transitions (counted from 1) at which windows end.

    Between 50 and 150 transitions there is one window, after 15 % and before 30 % of them (10 % in Stan, where the step
    size often is far too long at the end of a short warm-up).

    Example:
        >>> windows(1000)
        (75, [100, 150, 250, 450, 950])
        >>> windows(100), windows(10)
        ((15, [70]), (10, []))
    """
    if warmup < SHORTEST:
        return warmup, []
    first, base, last = FIRST, BASE, LAST
    if warmup < FIRST + BASE + LAST:
        first, last = int(0.15 * warmup), int(0.3 * warmup)
        base = warmup - first - last
    ends, at, size = [], first, base
    while at < warmup - last:
        # A window that would leave too little for one of twice its length takes the rest.
        at = warmup - last if at + size + 2 * size > warmup - last else at + size
        ends.append(at)
        size *= 2
    return first, ends


class Adapting(NamedTuple):
    """Where an adaptation stands.

    Attributes:
        transitions: made so far.
        step: of the step size.
        variance: of the positions in the current window.
        inverse_mass: M⁻¹ as it is now [dimension].
    """

    transitions: int
    step: StepSize
    variance: Variance
    inverse_mass: Vector


@dataclass(frozen=True)
class Adaptation:
    """How a chain is tuned while it warms up.

    Args:
        warmup: transitions before the first draw that may be kept.
        target_acceptance: δ; by default what is best for the kernel.
        method: ``"dual_averaging"`` or ``"robbins_monro"``.
        mass: ``"diagonal"`` or ``"identity"``.
        step_size: where to begin; found by doubling and halving if left out. With ``warmup=0`` it is what is used.
        kept: parts of the position of which M⁻¹ stays as it began.

    Example:
        >>> from neko_rules.samplers.hmc import HMCKernel
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> rng, kernel, adaptation = np.random.default_rng(0), HMCKernel(), Adaptation(warmup=0)
        >>> begun = adaptation.begin(rng, kernel, normal, kernel.init(normal, np.zeros((1, 2))))
        >>> 0.5 < adaptation.tuning(begun).step_size < 4
        True
    """

    warmup: int
    target_acceptance: float | None = None
    method: str = "dual_averaging"
    mass: str = "diagonal"
    step_size: float | None = None
    kept: tuple[slice, ...] = ()

    def __post_init__(self) -> None:
        arguments.integer("warmup", self.warmup, at_least=0)
        # As Python's own numbers: what a run was begun with is told by what they look like.
        if self.target_acceptance is not None:
            target = arguments.number("target_acceptance", self.target_acceptance, above=0, below=1)
            object.__setattr__(self, "target_acceptance", target)
        arguments.choice("method", self.method, METHODS)
        arguments.choice("mass", self.mass, MASSES)
        if self.step_size is not None:
            object.__setattr__(self, "step_size", arguments.number("step_size", self.step_size, above=0))

    def begin(
        self,
        rng: np.random.Generator,
        kernel: Kernel,
        density: Density,
        state: State,
        inverse_mass: Vector | None = None,
    ) -> Adapting:
        """The state before the first transition.

        Args:
            rng: for the search of the first step size.
            kernel: what is tuned.
            density: the target.
            state: where the chain is.
            inverse_mass: a first guess of M⁻¹; ones by default.
        """
        dimension = state.position.shape[1]
        inverse_mass = np.ones(dimension) if inverse_mass is None else np.array(inverse_mass, np.float64)
        step_size = self.step_size
        if step_size is None:
            step_size = initial_step_size(rng, kernel, density, state, inverse_mass)
        return Adapting(0, StepSize.at(step_size), Variance.empty(dimension), inverse_mass)

    def tuning(self, adapting: Adapting) -> Tuning:
        """What the next transition uses: ε_t while warming up, and after it what is kept."""
        step = adapting.step
        log_step = step.log_step if adapting.transitions < self.warmup else step.log_mean
        return Tuning(float(np.exp(log_step)), adapting.inverse_mass)

    def update(
        self,
        rng: np.random.Generator,
        kernel: Kernel,
        density: Density,
        state: State,
        acceptance: float,
        adapting: Adapting,
    ) -> Adapting:
        """The state after one more transition; nothing changes once the warm-up is over.

        Args:
            rng: for the search of a new step size after the mass has changed.
            kernel: what is tuned.
            density: the target.
            state: where the chain is now.
            acceptance: the mean acceptance probability of the transition.
            adapting: the state before it.
        """
        if adapting.transitions >= self.warmup:
            return adapting
        if not kernel.exact:
            return adapting._replace(transitions=adapting.transitions + 1)
        recursion = dual_averaging if self.method == "dual_averaging" else robbins_monro
        target = kernel.target_acceptance if self.target_acceptance is None else self.target_acceptance
        count, step = adapting.transitions + 1, recursion(adapting.step, acceptance, target)
        if self.mass == "identity":
            return adapting._replace(transitions=count, step=step)
        first, ends = windows(self.warmup)
        if count <= first or (ends and count > ends[-1]) or not ends:
            return adapting._replace(transitions=count, step=step)
        variance = adapting.variance.add(state.position)
        if count not in ends:
            return Adapting(count, step, variance, adapting.inverse_mass)
        inverse_mass = variance.shrunk()
        for place in self.kept:
            inverse_mass[place] = adapting.inverse_mass[place]
        found = initial_step_size(rng, kernel, density, state, inverse_mass, begin=float(np.exp(step.log_step)))
        return Adapting(count, StepSize.at(found), Variance.empty(len(inverse_mass)), inverse_mass)


def initial_step_size(
    rng: np.random.Generator,
    kernel: Kernel,
    density: Density,
    state: State,
    inverse_mass: Vector,
    begin: float = 1.0,
    doublings: int = 50,
) -> float:
    """Double or halve a step size until the acceptance probability of one step crosses 1/2 (Hoffman & Gelman 2014).

    Args:
        rng: of the trial steps.
        kernel: its ``probe`` makes the trial steps.
        density: the target.
        state: where they begin.
        inverse_mass: M⁻¹.
        begin: the first trial.
        doublings: when to stop on a density that accepts or refuses everything.
    """
    probe = kernel.probe()

    def accepts(step_size: float) -> bool:
        _, info = probe.step(rng, density, state, Tuning(step_size, inverse_mass))
        return bool(np.mean(info.acceptance_rate) > 0.5)

    step_size, growing = begin, accepts(begin)
    for _ in range(doublings):
        following = step_size * (2.0 if growing else 0.5)
        if accepts(following) != growing:
            return step_size if growing else following
        step_size = following
    return begin
