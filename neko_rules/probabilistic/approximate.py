"""SGLD and SGHMC as rules: mini-batches and no accept step; approximate, and wrong where the gradient is."""

from __future__ import annotations

from typing import Unpack

from neko_rules import arguments
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.probabilistic.posterior import Posterior
from neko_rules.probabilistic.sampling_rule import SAMPLING_RULES, SamplingOptions, SamplingRule
from neko_rules.samplers import SGHMCKernel, SGLDKernel


@SAMPLING_RULES.register("sgld", "stochastic_gradient_langevin")
class SGLD(SamplingRule):
    """Stochastic gradient Langevin dynamics (approximate): noisy steps on mini-batches, never refused.

    See ``neko_rules.samplers.sgld`` for the equations and the error. On a spiking network the surrogate gradient adds
    an error of its own, which MALA corrects and this does not.

    Args:
        posterior: the density to draw near.
        step_size: h; it is not adapted.
        batch_size: examples per mini-batch, drawn without replacement.
        gradient, scales, start: as for SamplingRule; target_acceptance, adaptation and mass have no effect, since
            nothing is adapted, and neurons are refused.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> SGLD(Posterior(Evaluator(LIF(8, 2, readout="mean"))), step_size=1e-4).kernel.exact
        False
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        batch_size: int = 128,
        **options: Unpack[SamplingOptions],
    ) -> None:
        _check_options(type(self).__name__, options)
        super().__init__(posterior, **options)
        self.batch_size = arguments.integer("batch_size", batch_size, at_least=1)
        self.kernel = SGLDKernel()


@SAMPLING_RULES.register("sghmc", "stochastic_gradient_hmc")
class SGHMC(SamplingRule):
    """Stochastic gradient Hamiltonian Monte Carlo (approximate): momentum with friction on mini-batches.

    See ``neko_rules.samplers.sghmc`` for the equations.

    Args:
        posterior: the density to draw near.
        step_size: η; it is not adapted.
        batch_size: examples per mini-batch, drawn without replacement.
        friction: α, the part of the momentum lost in a step.
        gradient_noise: β̂, the part of the noise that the mini-batches are thought to bring.
        gradient, scales, start: as for SamplingRule; target_acceptance, adaptation and mass have no effect, since
            nothing is adapted, and neurons are refused.

    Example:
        >>> from neko_rules import Evaluator, LIF
        >>> SGHMC(Posterior(Evaluator(LIF(8, 2, readout="mean"))), step_size=1e-4, friction=0.2).kernel.friction
        0.2
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        batch_size: int = 128,
        friction: float = 0.1,
        gradient_noise: float = 0.0,
        **options: Unpack[SamplingOptions],
    ) -> None:
        _check_options(type(self).__name__, options)
        super().__init__(posterior, **options)
        self.batch_size = arguments.integer("batch_size", batch_size, at_least=1)
        self.kernel = SGHMCKernel(friction, gradient_noise)


def _check_options(name: str, options: SamplingOptions) -> None:
    """Refuse to go without a step size, which nothing here can find, and moves that have to be accepted."""
    if options.get("neurons"):
        raise IncompatibleError(
            f"neurons move alone by the true energy, and {name} has no accept step",
            received=f"neurons={options['neurons']}",
            works="use MALA, HMC, NUTS or RandomWalk",
        )
    if options.get("step_size") is None:
        raise ArgumentError(
            f"{name} needs a step_size: without an accept step there is nothing to adapt it by",
            works="try step_size=1e-4, and halve it until the results no longer change",
        )
