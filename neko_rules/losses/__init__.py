"""Losses: of outputs at every step, and of spike counts, membranes and spike times of spiking outputs."""

from neko_rules.losses.loss import LOSSES, Loss, compiled_pass, output_gradient, weighed, weighted_total
from neko_rules.losses.outputs import (
    CategoricalCrossentropy,
    KLDivergence,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SparseCategoricalCrossentropy,
)
from neko_rules.losses.spikes import (
    FirstSpikeCrossentropy,
    FirstSpikeSquaredError,
    MaximumMembraneCrossentropy,
    MembraneCrossentropy,
    MembraneSquaredError,
    RelativeFirstSpikeSquaredError,
    SpikeCountCrossentropy,
    SpikeCountSquaredError,
    SpikeRateCrossentropy,
    SummedMembraneCrossentropy,
)

__all__ = [
    "LOSSES",
    "CategoricalCrossentropy",
    "FirstSpikeCrossentropy",
    "FirstSpikeSquaredError",
    "KLDivergence",
    "Loss",
    "MaximumMembraneCrossentropy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MembraneCrossentropy",
    "MembraneSquaredError",
    "Poisson",
    "RelativeFirstSpikeSquaredError",
    "SparseCategoricalCrossentropy",
    "SpikeCountCrossentropy",
    "SpikeCountSquaredError",
    "SpikeRateCrossentropy",
    "SummedMembraneCrossentropy",
    "compiled_pass",
    "output_gradient",
    "weighed",
    "weighted_total",
]
