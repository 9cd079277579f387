"""The named rules, one short file each: the axes it picks, its paper, its limits."""

from neko_rules.rules.bptt import BPTT, Backprop
from neko_rules.rules.eprop import EProp, Eprop
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.node_perturbation import NodePerturbation
from neko_rules.rules.ostl import OSTL
from neko_rules.rules.reward_eprop import RewardEProp
from neko_rules.rules.reward_stdp import RewardSTDP
from neko_rules.rules.rule import RULES, Rule, UpdateOptions
from neko_rules.rules.stdp import STDP
from neko_rules.rules.triplet_stdp import TripletSTDP
from neko_rules.rules.weight_perturbation import SPSA, WeightPerturbation

__all__ = [
    "BPTT",
    "OSTL",
    "RULES",
    "SPSA",
    "STDP",
    "Backprop",
    "EProp",
    "Eprop",
    "LearningRule",
    "NodePerturbation",
    "RewardEProp",
    "RewardSTDP",
    "Rule",
    "TripletSTDP",
    "UpdateOptions",
    "WeightPerturbation",
]
