"""Chains: the loops of a step linked into one kernel over groups of examples, and how such a kernel is run."""
