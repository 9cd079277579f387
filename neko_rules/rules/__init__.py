"""The named rules, one short file each: the axes it picks, its paper, its limits."""

from neko_rules.rules.bptt import BPTT, Backprop
from neko_rules.rules.eprop import EProp, Eprop
from neko_rules.rules.learning_rule import LearningRule
from neko_rules.rules.ostl import OSTL
from neko_rules.rules.rule import RULES, Rule, UpdateOptions

__all__ = ["BPTT", "OSTL", "RULES", "Backprop", "EProp", "Eprop", "LearningRule", "Rule", "UpdateOptions"]
