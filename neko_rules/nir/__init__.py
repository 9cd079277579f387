"""NIR: exchange of networks by the Neuromorphic Intermediate Representation, which simulators and chips read.

``to_nir`` makes a ``nir.NIRGraph`` of a network, ``from_nir`` a network of a graph or its file. NIR's neurons are
differential equations without a time step; ``neko_rules.nir.equations`` says how they and ours are the same numbers.

Reference: J. E. Pedersen et al., Neuromorphic intermediate representation: a unified instruction set for interoperable
brain-inspired computing, Nature Communications 15:8122, 2024.
"""

from __future__ import annotations

from neko_rules.nir.exporting import to_nir
from neko_rules.nir.importing import from_nir

__all__ = ["from_nir", "to_nir"]
