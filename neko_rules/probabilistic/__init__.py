"""Probabilistic learning: posteriors over weights, the samplers that draw from them, and predictions with doubt."""

from neko_rules.probabilistic.approximate import SGHMC, SGLD
from neko_rules.probabilistic.exact import HMC, MALA, NUTS, RandomWalk
from neko_rules.probabilistic.posterior import Posterior
from neko_rules.probabilistic.predictive import Predictive, PredictiveValues
from neko_rules.probabilistic.priors import PRIORS, Horseshoe, Laplace, Normal, Prior, StudentT
from neko_rules.probabilistic.samples import Samples, Summary
from neko_rules.probabilistic.sampling import sample
from neko_rules.probabilistic.sampling_rule import SAMPLING_RULES, SamplingRule

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "PRIORS",
    "SAMPLING_RULES",
    "SGHMC",
    "SGLD",
    "Horseshoe",
    "Laplace",
    "Normal",
    "Posterior",
    "Predictive",
    "PredictiveValues",
    "Prior",
    "RandomWalk",
    "Samples",
    "SamplingRule",
    "StudentT",
    "Summary",
    "sample",
]
