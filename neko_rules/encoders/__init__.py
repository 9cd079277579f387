"""How values become spikes or currents over time, before a network sees them."""

from neko_rules.encoders.constant import Constant
from neko_rules.encoders.delta import Delta
from neko_rules.encoders.encoder import ENCODERS, Encoder
from neko_rules.encoders.latency import Latency
from neko_rules.encoders.rate import Rate

__all__ = ["ENCODERS", "Constant", "Delta", "Encoder", "Latency", "Rate"]
