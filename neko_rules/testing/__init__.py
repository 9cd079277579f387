"""Conformance suites: one call each that proves somebody's own part against the contract it must keep."""

from neko_rules.testing.backend_conformance import check_backend

__all__ = ["check_backend"]
