"""MALA, HMC, NUTS and the random walk as rules: draws from the posterior itself, whatever gradient proposes."""

from __future__ import annotations

from typing import Unpack

from neko_rules.probabilistic.posterior import Posterior
from neko_rules.probabilistic.sampling_rule import SAMPLING_RULES, SamplingOptions, SamplingRule
from neko_rules.samplers import HMCKernel, MALAKernel, NUTSKernel, RandomWalkKernel


@SAMPLING_RULES.register("mala")
class MALA(SamplingRule):
    """Metropolis-adjusted Langevin algorithm: one noisy step down a rule's gradient, corrected exactly.

    See ``neko_rules.samplers.mala`` for the equations.

    Args:
        posterior: the density to draw from.
        gradient, step_size, target_acceptance, adaptation, mass, scales, neurons, start: as for SamplingRule; the
            step size is h.

    Example:
        >>> from neko_rules import EProp, Evaluator, LIF
        >>> model = Evaluator(LIF(8, 2, readout="mean"))
        >>> MALA(Posterior(model, prior_scale=0.5), gradient=EProp(model, mode="random"))
        MALA(MALAKernel(), gradient EProp(temporal neuron, spatial random, learning signal filtered))
    """

    def __init__(self, posterior: Posterior, **options: Unpack[SamplingOptions]) -> None:
        super().__init__(posterior, **options)
        self.kernel = MALAKernel()


@SAMPLING_RULES.register("hmc", "hamiltonian_monte_carlo")
class HMC(SamplingRule):
    """Hamiltonian Monte Carlo: leapfrog steps under a rule's force, accepted by the true energy of the network.

    See ``neko_rules.samplers.hmc`` for the equations.

    Args:
        posterior: the density to draw from.
        steps: leapfrog steps per draw.
        jitter: part of the step size by which it is varied at random from draw to draw.
        gradient, step_size, target_acceptance, adaptation, mass, scales, neurons, start: as for SamplingRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> HMC(Posterior(Evaluator(LIF(8, 2, readout="mean"))), steps=5).kernel
        HMCKernel(steps=5, jitter=0.1)
    """

    def __init__(
        self, posterior: Posterior, *, steps: int = 10, jitter: float = 0.1, **options: Unpack[SamplingOptions]
    ) -> None:
        super().__init__(posterior, **options)
        self.kernel = HMCKernel(steps, jitter)


@SAMPLING_RULES.register("nuts", "no_u_turn")
class NUTS(SamplingRule):
    """No-U-turn sampler: Hamiltonian Monte Carlo that finds the length of each trajectory itself.

    See ``neko_rules.samplers.nuts`` for the equations.

    Args:
        posterior: the density to draw from.
        max_depth: doublings of a trajectory at most.
        gradient, step_size, target_acceptance, adaptation, mass, scales, neurons, start: as for SamplingRule.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> NUTS(Posterior(Evaluator(LIF(8, 2, readout="mean"))), max_depth=6).kernel
        NUTSKernel(max_depth=6)
    """

    def __init__(self, posterior: Posterior, *, max_depth: int = 10, **options: Unpack[SamplingOptions]) -> None:
        super().__init__(posterior, **options)
        self.kernel = NUTSKernel(max_depth)


@SAMPLING_RULES.register("random_walk", "metropolis")
class RandomWalk(SamplingRule):
    """Random-walk Metropolis: steps without any gradient, the baseline.

    Args:
        posterior: the density to draw from.
        gradient, step_size, target_acceptance, adaptation, mass, scales, neurons, start: as for SamplingRule; no
            gradient is asked for.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> RandomWalk(Posterior(Evaluator(LIF(8, 2, readout="mean")))).kernel.target_acceptance
        0.234
    """

    def __init__(self, posterior: Posterior, **options: Unpack[SamplingOptions]) -> None:
        super().__init__(posterior, **options)
        self.kernel = RandomWalkKernel()
