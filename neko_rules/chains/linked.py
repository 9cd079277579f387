"""Linked: what a chain depends on, and a chain with where everything that it takes comes from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from neko_rules.kernels.ahead import Wanted
from neko_rules.kernels.chain import Chained
from neko_rules.layers.graph import Connection
from neko_rules.losses import Loss

Calls = tuple[Wanted | None, ...]
"""What a loop calls at addresses that it is given, in their order; None where it calls nothing."""


class Kind(NamedTuple):
    """What a chain depends on beside the network.

    Attributes:
        lean: hidden populations of which the way back needs no more than ψ and when they fired.
        keeps_current: populations whose input current is recorded.
        loss: what the outputs are judged by, each step of them by itself; None where a function of Python's is asked.
        observes: what of the output population is judged.
        formulas: its value and its gradient, as its class has them.
        pooling: how the outputs that are judged are made of those of every time step.
        scored: whether the scores are wanted.
        rates: whether it is wanted how often every neuron fired.
        dtype: of all arrays.
        inputs: number of features.
        walked: the populations, and the input, whose events are taken to be few.
        ones: whether those of the input are all 1.
        ranks: how many axes the constants of every population have.
        windows: whether it goes through the windows of a sequence.
        back: what the way back depends on; None where there is none.
    """

    lean: frozenset[str]
    keeps_current: frozenset[str]
    loss: Loss | None
    observes: str
    formulas: tuple[Callable[..., Any], ...]
    pooling: str
    scored: bool
    rates: bool
    dtype: str
    inputs: int
    walked: frozenset[str]
    ones: bool
    ranks: tuple[tuple[int, ...], ...]
    windows: bool
    back: Hashable


class Told(NamedTuple):
    """Why a chain ends before its time.

    Attributes:
        source: a population, or the input.
        kind: ``"many"``: its events are not few; ``"odd"``: they are not all 1.
    """

    source: str
    kind: str


class Linked(NamedTuple):
    """A chain for a network, and where what it takes comes from.

    Attributes:
        kind: which chain.
        chain: the kernel.
        sizes: whole numbers that it is given.
        weights: argument → the connections whose weights it is the sum of.
        backs: argument → the population that the matrix carries an error to, and the connection.
        biases: argument → the population.
        constants: argument → a population and the constant's name.
        gradients: argument → the parameter whose gradient it is.
        told: what the kernel may find that it was not made for, by the number, from 1, with which it ends.
        crossovers: argument → how many neurons there are whose events are few below that density.
        spikes: argument → the population whose spikes it counts.
        pushes: argument → the population whose neurons have that signal.
        synapses: argument → the connection whose synapses it says, 1 where there is one.
        calls: argument → what loops call that are given where it begins.
        handed: what it takes from the time steps before and hands on; nothing for whole sequences.
        update: the place in its addresses of what changes the parameters between two windows.
    """

    kind: Kind
    chain: Chained
    sizes: dict[str, int]
    weights: dict[str, tuple[Connection, ...]]
    backs: dict[str, tuple[str, Connection | None]]
    biases: dict[str, str]
    constants: dict[str, tuple[str, str]]
    gradients: dict[str, str]
    told: list[Told]
    crossovers: dict[str, int]
    spikes: dict[str, str]
    pushes: dict[str, str]
    synapses: dict[str, Connection]
    calls: dict[str, Calls]
    handed: Handed
    update: int


class Handed(NamedTuple):
    """What a chain over some time steps takes from those before, and what it hands on.

    Attributes:
        starts: argument → a population and a state before the first time step.
        ends: argument → a population and a state after the last.
        traces: argument → what of a trace it is, and the parameter or population.
        fired: argument → the population whose spikes it fills, [time, example, neuron], before it asks for ``pushes``.
        follows: condition → a weight's argument and that of the matrix that errors come down by: whether it is the same
            matrix, turned, also after an update.
    """

    starts: dict[str, tuple[str, str]]
    ends: dict[str, tuple[str, str]]
    traces: dict[str, tuple[str, str]]
    fired: dict[str, str]
    follows: dict[str, tuple[str, str]]
