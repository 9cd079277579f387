"""Chain: warm-up and draws of one kernel on one density, to be put down after any transition and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from neko_rules import arguments
from neko_rules.samplers import generator
from neko_rules.samplers.adaptation import Adaptation, Adapting, StepSize, Variance
from neko_rules.samplers.density import Density, Vector
from neko_rules.samplers.kernel import Info, Kernel, State, Tuning


class Chain:
    """A kernel at work: transitions that adapt while the chain warms up, and do not afterwards.

    Several chains may move in lockstep, one per row of the position; they then share a generator and the tuning, which
    takes their mean acceptance and the variance over all of them.

    Args:
        kernel: makes a transition.
        density: the target.
        adaptation: how the kernel is tuned; it is frozen after ``adaptation.warmup`` transitions.
        position: where to begin, [chains, dimension].
        rng: all randomness comes from it; a chain that is put down needs one of NumPy's own bit generators.
        inverse_mass: a first guess of M⁻¹ [dimension]; ones by default.

    Raises:
        ArgumentError: what is given as random numbers is no NumPy Generator, or the chain cannot begin there.

    Example:
        >>> from neko_rules.samplers.mala import MALAKernel
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> chain = Chain(MALAKernel(), normal, Adaptation(warmup=50), np.zeros((1, 2)), np.random.default_rng(0))
        >>> for _ in range(60):
        ...     info = chain.advance()
        >>> chain.warming, chain.transitions
        (False, 60)
    """

    def __init__(
        self,
        kernel: Kernel,
        density: Density,
        adaptation: Adaptation,
        position: Vector,
        rng: np.random.Generator,
        inverse_mass: Vector | None = None,
    ) -> None:
        self.kernel, self.density, self.adaptation, self.rng = kernel, density, adaptation, generator.checked(rng)
        self.transitions = 0
        self.state = kernel.init(density, position)
        self.adapting = adaptation.begin(rng, kernel, density, self.state, inverse_mass)

    @property
    def warming(self) -> bool:
        """Whether the next transition belongs to the warm-up."""
        return self.transitions < self.adaptation.warmup

    @property
    def tuning(self) -> Tuning:
        """Step size and mass of the next transition."""
        return self.adaptation.tuning(self.adapting)

    def advance(self) -> Info:
        """Make one transition."""
        self.state, info = self.kernel.step(self.rng, self.density, self.state, self.tuning)
        acceptance = float(np.mean(info.acceptance_rate))
        self.adapting = self.adaptation.update(
            self.rng, self.kernel, self.density, self.state, acceptance, self.adapting
        )
        self.transitions += 1
        return info

    def energy(self) -> Vector:
        """U of the current state [chains], evaluated if the kernel has left it unknown."""
        if np.isnan(self.state.energy).any():
            self.state = self.state._replace(energy=self.density.energy(self.state.position))
        return self.state.energy

    def snapshot(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that the rest of the chain depends on: arrays by name, and values that JSON can hold without loss.

        Raises:
            CheckpointError: the bit generator is none of NumPy's own.
        """
        adapting = self.adapting
        arrays = {f"state/{name}": value for name, value in self.state._asdict().items()}
        arrays |= {
            "inverse_mass": adapting.inverse_mass,
            "variance/mean": adapting.variance.mean,
            "variance/squares": adapting.variance.squares,
        }
        plain = {
            "transitions": self.transitions,
            "adapted": adapting.transitions,
            "window": adapting.variance.samples,
            "step": adapting.step._asdict(),
            "rng": generator.told(self.rng),
        }
        return {name: np.array(value) for name, value in arrays.items()}, plain

    @classmethod
    def resume(
        cls,
        kernel: Kernel,
        density: Density,
        adaptation: Adaptation,
        arrays: Mapping[str, np.ndarray],
        plain: Mapping[str, Any],
    ) -> Chain:
        """The chain of a snapshot, which goes on bit for bit as it would have."""
        chain = cls.__new__(cls)
        chain.kernel, chain.density, chain.adaptation = kernel, density, adaptation
        chain.rng = generator.restored(plain["rng"])
        chain.transitions = int(plain["transitions"])
        chain.state = State(**{name: np.array(arrays[f"state/{name}"]) for name in State._fields})
        variance = Variance(int(plain["window"]), arrays["variance/mean"], arrays["variance/squares"])
        step = StepSize(**plain["step"])
        chain.adapting = Adapting(int(plain["adapted"]), step, variance, np.array(arrays["inverse_mass"]))
        return chain


class Drawn(NamedTuple):
    """Draws of a density.

    Attributes:
        positions: [chains, draws, dimension].
        info: of the transition that led to each draw, every field [chains, draws].
        tuning: the step size and mass of all of them.
        evaluations: of the gradient over the whole run, warm-up included, [chains].
    """

    positions: Vector
    info: Info
    tuning: Tuning
    evaluations: np.ndarray


def draw(
    kernel: Kernel,
    density: Density,
    position: Vector,
    draws: int,
    adaptation: Adaptation,
    seed: int | Sequence[int] = 0,
    thin: int = 1,
) -> Drawn:
    """Warm up, then draw; all in memory, for densities that are not networks.

    Args:
        kernel: makes a transition.
        density: the target.
        position: where to begin, [chains, dimension].
        draws: how many to keep of every chain.
        adaptation: how the kernel is tuned, and how long.
        seed: of all randomness, as NumPy's ``default_rng`` takes it: a whole number, or several.
        thin: transitions per draw.

    Example:
        >>> from neko_rules.samplers.nuts import NUTSKernel
        >>> normal = Density(lambda q: 0.5 * (q**2).sum(1), lambda q: (0.5 * (q**2).sum(1), q))
        >>> drawn = draw(NUTSKernel(), normal, np.zeros((4, 2)), draws=500, adaptation=Adaptation(warmup=100))
        >>> drawn.positions.shape, bool(abs(drawn.positions.var() - 1) < 0.2)
        ((4, 500, 2), True)
    """
    arguments.integer("draws", draws, at_least=1)
    arguments.integer("thin", thin, at_least=1)
    chain = Chain(kernel, density, adaptation, position, np.random.default_rng(seed))
    evaluations = np.zeros(len(chain.state.position), np.int64)
    while chain.warming:
        evaluations += chain.advance().n_steps
    positions, infos = [], []
    for _ in range(draws):
        for _ in range(thin):
            info = chain.advance()
            evaluations += info.n_steps
        positions.append(chain.state.position)
        infos.append(info)
    joined = Info(*(np.stack(field, axis=1) for field in zip(*infos, strict=True)))
    return Drawn(np.stack(positions, axis=1), joined, chain.tuning, evaluations)
