"""Experiments: runs described in YAML, each written to a folder from which it can be repeated and resumed."""
