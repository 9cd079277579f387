"""Networks in the formats of other programs: NIR, the Neuromorphic Intermediate Representation."""

from neko_rules.exchange.nir_export import to_nir
from neko_rules.exchange.nir_import import from_nir

__all__ = ["from_nir", "to_nir"]
