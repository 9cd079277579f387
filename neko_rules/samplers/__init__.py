"""Samplers: Markov chains on any log density, which know nothing of networks."""

from neko_rules.samplers.adaptation import Adaptation, initial_step_size
from neko_rules.samplers.blockwise import BlockwiseKernel
from neko_rules.samplers.chain import Chain, Drawn, draw
from neko_rules.samplers.density import Density, tempered
from neko_rules.samplers.diagnostics import ess_bulk, ess_mean, ess_tail, mcse_mean, r_hat
from neko_rules.samplers.hmc import HMCKernel
from neko_rules.samplers.kernel import Info, Kernel, State, Tuning
from neko_rules.samplers.mala import MALAKernel
from neko_rules.samplers.nuts import NUTSKernel
from neko_rules.samplers.random_walk import RandomWalkKernel
from neko_rules.samplers.sghmc import SGHMCKernel
from neko_rules.samplers.sgld import SGLDKernel

__all__ = [
    "Adaptation",
    "BlockwiseKernel",
    "Chain",
    "Density",
    "Drawn",
    "HMCKernel",
    "Info",
    "Kernel",
    "MALAKernel",
    "NUTSKernel",
    "RandomWalkKernel",
    "SGHMCKernel",
    "SGLDKernel",
    "State",
    "Tuning",
    "draw",
    "ess_bulk",
    "ess_mean",
    "ess_tail",
    "initial_step_size",
    "mcse_mean",
    "r_hat",
    "tempered",
]
