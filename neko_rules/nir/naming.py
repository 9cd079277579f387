"""Naming: names of nodes by which the import knows what the export put there."""

from __future__ import annotations

OURS = "neko_rules"
"""The key of our notes in the metadata of a graph: dt and scheme."""


def bias_node(population: str) -> str:
    """The node of zero weights that holds a bias which has no other place.

    Example:
        >>> bias_node("hidden")
        'hidden_bias'
    """
    return f"{population}_bias"


def weight_node(population: str, label: str) -> str:
    """The node that holds the weights of a connection.

    Example:
        >>> weight_node("hidden", "input")
        'hidden_input'
    """
    return f"{population}_{label}"


def label_of(node: str, population: str) -> str:
    """The label of the connection whose weights a node holds: the inverse of ``weight_node``, or the node's name.

    Example:
        >>> label_of("hidden_input", "hidden"), label_of("fc1", "lif1")
        ('input', 'fc1')
    """
    return node.removeprefix(f"{population}_")
