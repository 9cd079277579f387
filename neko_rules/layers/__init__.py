"""What a model is made of: neurons, connections, networks, readouts, and the one-line models."""

# The neurons and connectivities that come with the package are known by name whichever part of it is imported first.
from neko_rules.layers import convolution, integrate_and_fire, rate

# isort: split
from neko_rules.layers import delayed  # listed behind those that it delays

__all__ = ["convolution", "delayed", "integrate_and_fire", "rate"]
