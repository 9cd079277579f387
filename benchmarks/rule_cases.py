"""Rule cases: the rules that the benchmarks compare, with the settings in which each is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neko_rules import Evaluator
from neko_rules.rules import RULES, Rule


@dataclass(frozen=True)
class Case:
    """A rule as the benchmarks use it.

    Args:
        label: what tables call it.
        name: its name in the registry.
        arguments: its arguments.
        group: ``"backward"``, ``"local"``, ``"feedback"``, ``"target"`` or ``"sampled"``, for the figures.
    """

    label: str
    name: str
    arguments: dict[str, Any]
    group: str

    def make(self, model: Evaluator, **options: Any) -> Rule:
        """The rule for a model."""
        return RULES.create(self.name, {**self.arguments, **options}, model)


CASES = {
    case.label: case
    for case in (
        Case("BPTT", "bptt", {}, "backward"),
        Case("EventProp", "event_prop", {}, "backward"),
        Case("truncated BPTT, 10 steps", "truncated_bptt", {"window": 10}, "backward"),
        Case("e-prop, symmetric", "eprop", {}, "local"),
        Case("e-prop, random", "eprop", {"mode": "random"}, "local"),
        Case("e-prop, adaptive", "eprop", {"mode": "adaptive"}, "local"),
        Case("RTRL, online", "rtrl", {"online": True}, "backward"),
        Case("OSTL", "ostl", {}, "local"),
        Case("OSTL, online", "ostl", {"online": True}, "local"),
        Case("OTTT", "ottt", {}, "local"),
        Case("OTTT, online", "ottt", {"online": True}, "local"),
        Case("OTPE", "otpe", {}, "local"),
        Case("approximate OTPE", "approximate_otpe", {}, "local"),
        Case("pp-prop", "pp_prop", {"decay": 0.9}, "local"),
        Case("RFLO", "rflo", {}, "local"),
        Case("feedback alignment", "feedback_alignment", {}, "feedback"),
        Case("DFA", "dfa", {}, "feedback"),
        Case("sign-symmetric", "sign_symmetric", {}, "feedback"),
        Case("Kolen-Pollack", "kolen_pollack", {}, "feedback"),
        Case("weight mirror", "weight_mirror", {}, "feedback"),
        Case("DRTP", "drtp", {}, "target"),
        Case("ETLP", "etlp", {"online": True}, "target"),
        Case("OSTTP", "osttp", {"online": True}, "target"),
        Case("DECOLLE", "decolle", {"online": True}, "target"),
        Case("FPTT", "fptt", {"alpha": 0.1}, "backward"),
        Case("UORO", "uoro", {}, "sampled"),
        Case("weight perturbation, 64", "weight_perturbation", {"size": 1e-2, "directions": 64}, "sampled"),
        Case("node perturbation, 16", "node_perturbation", {"size": 0.3, "directions": 16}, "sampled"),
        Case("reward-based e-prop", "reward_eprop", {}, "sampled"),
        Case("STDP", "stdp", {"bounds": "soft", "target_rate": 50.0}, "sampled"),
        Case("triplet STDP", "triplet_stdp", {}, "sampled"),
        Case("reward-modulated STDP", "reward_stdp", {}, "sampled"),
    )
}

COLOURS = {  # M. Okabe & K. Ito (2008)
    "backward": "#000000",
    "local": "#0072B2",
    "feedback": "#D55E00",
    "target": "#009E73",
    "sampled": "#CC79A7",
}
