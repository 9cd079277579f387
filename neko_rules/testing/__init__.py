"""Conformance suites: one call each that proves somebody's own part against the contract it must keep."""

from neko_rules.testing.backend_conformance import check_backend
from neko_rules.testing.neuron_conformance import check_neuron
from neko_rules.testing.rule_conformance import check_rule
from neko_rules.testing.surrogate_conformance import check_surrogate
from neko_rules.testing.verification import Verification, assert_backends_agree, verify_backends

__all__ = [
    "Verification",
    "assert_backends_agree",
    "check_backend",
    "check_neuron",
    "check_rule",
    "check_surrogate",
    "verify_backends",
]
