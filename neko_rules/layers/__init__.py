"""What a model is made of: neurons, connections, networks, readouts, and the one-line models."""

# The neurons that come with the package are known by name whichever part of it is imported first.
from neko_rules.layers import integrate_and_fire, rate

__all__ = ["integrate_and_fire", "rate"]
