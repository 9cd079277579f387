"""The named rules, one short file each: the axes it picks, its paper, its limits."""

from neko_rules.rules.bptt import BPTT, Backprop, TruncatedBPTT
from neko_rules.rules.decolle import DECOLLE
from neko_rules.rules.eprop import EProp, Eprop
from neko_rules.rules.etlp import ETLP
from neko_rules.rules.event_prop import EventProp
from neko_rules.rules.feedback_alignment import DFA, DRTP, FeedbackAlignment, KolenPollack, SignSymmetric, WeightMirror
from neko_rules.rules.fptt import FPTT
from neko_rules.rules.learning_rule import CreditOptions, LearningRule
from neko_rules.rules.manhattan import Manhattan
from neko_rules.rules.node_perturbation import NodePerturbation
from neko_rules.rules.ostl import OSTL, OSTTP
from neko_rules.rules.otpe import OTPE, ApproximateOTPE
from neko_rules.rules.ottt import OTTT
from neko_rules.rules.pp_prop import PPProp
from neko_rules.rules.pulses import DECISIONS, Decision
from neko_rules.rules.reward_eprop import RewardEProp
from neko_rules.rules.reward_stdp import RewardSTDP
from neko_rules.rules.rflo import RFLO
from neko_rules.rules.rtrl import RTRL, UORO, SnAp
from neko_rules.rules.rule import RULES, Rule, UpdateOptions, rule_of
from neko_rules.rules.stdp import STDP
from neko_rules.rules.streaming import StreamLearner
from neko_rules.rules.tiki_taka import TikiTaka, TikiTakaV2
from neko_rules.rules.triplet_stdp import TripletSTDP
from neko_rules.rules.weight_perturbation import SPSA, WeightPerturbation

__all__ = [
    "BPTT",
    "DECISIONS",
    "DECOLLE",
    "DFA",
    "DRTP",
    "ETLP",
    "FPTT",
    "OSTL",
    "OSTTP",
    "OTPE",
    "OTTT",
    "RFLO",
    "RTRL",
    "RULES",
    "SPSA",
    "STDP",
    "UORO",
    "ApproximateOTPE",
    "Backprop",
    "CreditOptions",
    "Decision",
    "EProp",
    "Eprop",
    "EventProp",
    "FeedbackAlignment",
    "KolenPollack",
    "LearningRule",
    "Manhattan",
    "NodePerturbation",
    "PPProp",
    "RewardEProp",
    "RewardSTDP",
    "Rule",
    "SignSymmetric",
    "SnAp",
    "StreamLearner",
    "TikiTaka",
    "TikiTakaV2",
    "TripletSTDP",
    "TruncatedBPTT",
    "UpdateOptions",
    "WeightMirror",
    "WeightPerturbation",
    "rule_of",
]
