"""Adaptors: models of torch, Keras and JAX users, for every rule that needs a loss and its gradient alone."""

from neko_rules.layers.adaptors.adaptor import Adaptor
from neko_rules.layers.adaptors.jax import JaxModel
from neko_rules.layers.adaptors.keras import KerasModel
from neko_rules.layers.adaptors.torch import TorchModel

__all__ = ["Adaptor", "JaxModel", "KerasModel", "TorchModel"]
