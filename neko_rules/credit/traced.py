"""Traced step: one step back of populations written down as statements, from which an adjoint kernel is made.

``Recursion.stepped`` is called with values that stand for one neuron. The one thing that is not elementwise, the error
that comes back through weights between them, becomes a value that is gathered from all neurons before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.credit.recursion import DECAYS, Recursion, Setting
from neko_rules.credit.recursion import Carried as Sent
from neko_rules.credit.recursion import Constant as Learnable
from neko_rules.kernels.tracing import Body, Dialect, Memo, Traced, TracingBackend
from neko_rules.kernels.writer import Carried, Constant, group_of
from neko_rules.layers.forward import Z, project
from neko_rules.layers.graph import Connection, Graph

Solved = tuple[dict[str, Array], dict[str, Array], dict[Learnable, Array], dict[str, Array]]
"""By population: δ; q_t·h_t G_t where that is what goes down, [time, batch, neuron]; dE/dc; Σ_t δ_t if it is known."""

DECAY = "decay_of_credit"
"""What the number by which factors decay is called among the constants of a cell."""

Arriving = tuple[tuple[str, str], ...]
"""Keys of the signals that arrive at populations."""


class Product(NamedTuple):
    """A signal that was not multiplied out: the errors of a population above, and the matrix that carries them back.

    Args:
        errors: [time, batch, above].
        back: [above, neuron].
    """

    errors: Array
    back: Array

    def whole(self, nx: Backend) -> Array:
        """[time, batch, neuron]."""
        return project(nx, self.errors, self.back)


class _Products(TracingBackend):
    """Traced operations, with a product that stands for a value gathered from all neurons."""

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self.products: list[tuple[str, Connection]] = []

    def matmul(self, error: Traced, back: Connection) -> Traced:
        """Σ_target error · back, gathered under a name."""
        name = f"m{len(self.products)}"
        self.products.append((name, back))
        return self.body.argument(f"g_{name}")


class Gathered(NamedTuple):
    """A value that is gathered from all neurons of a population.

    Args:
        name: traced as ``g_name``.
        of: what it is gathered from, something that is carried.
        connection: whose matrix it comes through; with a delay from what was carried to this step, else from what this
            step carries on.
    """

    name: str
    of: str
    connection: Connection


@dataclass(frozen=True)
class Stage:
    """One step back of a population.

    Args:
        name: of the population.
        statements: of the step.
        constants: of the cell, and by what factors decay.
        signals: traced names of the signals that arrive.
        products_of: for each of them, whether it arrives as a product.
        recorded: traced name → the history that is needed, as ``Jacobians`` names it.
        carried: what goes from step to step.
        keys: what of, as ``Recursion`` names it.
        gathered: what comes through matrices.
        errors: traced names of δ, and of the error within the time step where it goes down apart.
        learned: traced names of the derivatives of learnable constants.
        learnable: those constants.
        biased: whether the population has a bias, whose gradient is Σ_t δ_t.
    """

    name: str
    statements: list[str]
    constants: list[Constant]
    signals: list[str]
    products_of: tuple[bool, ...]
    recorded: dict[str, str]
    carried: list[Carried]
    keys: list[Sent]
    gathered: list[Gathered]
    errors: list[str]
    learned: list[str]
    learnable: list[Learnable]
    biased: bool

    @property
    def numbers(self) -> int:
        """How many numbers of each of its neurons go from step to step."""
        return len(self.carried) + len(self.gathered) + sum(self.products_of) + self.biased + len(self.learned)


@dataclass(frozen=True)
class TracedStep:
    """One step back of populations, written down; it holds on to no network.

    Args:
        body: of all statements.
        stages: the populations, in the order in which they are gone through.
        varying: whether matrices differ from time step to time step.
    """

    body: Body
    stages: tuple[Stage, ...]
    varying: bool

    def together(self, sizes: Sequence[int]) -> int:
        """How many examples go through the time steps together.

        Args:
            sizes: of the populations, in the order of the stages.
        """
        numbers = sum(stage.numbers * size for stage, size in zip(self.stages, sizes, strict=True))
        return group_of(numbers * np.dtype(self.body.dtype).itemsize, any(stage.gathered for stage in self.stages))


def _traced(
    setting: Setting,
    group: tuple[str, ...],
    arriving: Arriving,
    products: tuple[bool, ...],
    ranks: tuple[tuple[int, ...], ...],
    body: Body,
) -> TracedStep:
    nx: Any = _Products(body)
    backward = list(reversed(group))
    constants: dict[str, dict[str, Constant]] = {}
    for place, (name, of) in enumerate(zip(backward, reversed(ranks), strict=True)):
        ranked = zip(setting.constants[name], of, strict=True)
        constants[name] = {key: Constant(f"p{place}_{key}", rank > 0) for key, rank in ranked}
    tokens: Any = {
        name: {key: body.argument(one.traced) for key, one in own.items()} for name, own in constants.items()
    }
    decays = {name: Constant(f"p{place}_{DECAY}", False) for place, name in enumerate(backward)}
    tokens[DECAYS] = {name: body.argument(one.traced) for name, one in decays.items()}
    recursion = Recursion(
        setting._replace(nx=nx, constants=tokens, back=lambda connection: connection, versions=None),
        group,
        tuple(key for key in arriving if key[1] != Z),
    )
    carries: dict[Sent, str] = {}
    for place, name in enumerate(backward):
        own = [key for key in recursion.carried if key[0] == name]
        carries |= {key: f"l{place}_{i}" for i, key in enumerate(own)}
        # A connection without delay takes δ of this very step from where that of the step after would be.
        if any(c.target == name for edges in recursion.outgoing.values() for c, _ in edges):
            carries.setdefault((name, "delta", ""), f"l{place}_{len(own)}")
    later = {key: body.argument(carries[key]) for key in recursion.carried}
    signals = {key: f"i_signal{backward.index(key[0])}_{i}" for i, key in enumerate(arriving)}
    nothing = body.literal(0.0, body.dtype)
    given = {key: body.argument(signals[key]) if key in signals else nothing for key in recursion.arriving}
    recorded = {key: f"i{backward.index(key[0])}_{key[1]}" for key in recursion.recorded}
    histories = {key: body.argument(name) for key, name in recorded.items()}
    delta: dict[str, Array] = {}
    stages = []
    for name in backward:
        begin, sums = len(body.statements), len(nx.products)
        found = recursion.stepped(name, later, given, histories, delta, {})
        delta[name] = found.delta
        sent = {**found.sent, (name, "delta", ""): found.delta}
        keys = [key for key in carries if key[0] == name]
        learnable = [key for key in recursion.learnable if key[0] == name]
        errors = [found.delta] if found.within_step is None else [found.delta, found.within_step]
        carried = [Carried(carries[key], body.value(sent[key]).name) for key in keys]
        learned = [found.constants[constant] for _, constant in learnable]
        values = [body.value(each).name for each in (*errors, *learned)]
        stages.append(
            Stage(
                name,
                body.statements[begin:],
                [*constants[name].values(), *([decays[name]] if name in setting.factored else [])],
                [of for key, of in signals.items() if key[0] == name],
                tuple(product for key, product in zip(arriving, products, strict=True) if key[0] == name),
                {of: key[1] for key, of in recorded.items() if key[0] == name},
                carried,
                keys,
                [Gathered(each, carries[c.target, "delta", ""], c) for each, c in nx.products[sums:]],
                values[: len(errors)],
                values[len(errors) :],
                learnable,
                setting.graph.populations[name].bias,
            )
        )
    return TracedStep(body, tuple(stages), setting.versions is not None)


Made = TypeVar("Made")


class Steps(Generic[Made]):
    """What is made of a step back of populations, once for every network and form of the step.

    Args:
        dialect: how its operations are spelled.
        make: from a step that was written down.
    """

    def __init__(self, dialect: Dialect, make: Callable[[TracedStep], Made]) -> None:
        self._dialect, self._make = dialect, make
        self._made: WeakKeyDictionary[Graph, Memo[Made]] = WeakKeyDictionary()

    def of(
        self, setting: Setting, group: tuple[str, ...], arriving: Arriving, products: tuple[bool, ...], dtype: str
    ) -> Made | None:
        """What belongs to populations that are stepped together; None where their recursion has no scalar form.

        Args:
            setting: the network.
            group: the populations.
            arriving: keys of the signals that arrive.
            products: for each of them, whether it arrives as a product.
            dtype: of all arrays.
        """
        ranks = tuple(tuple(len(value.shape) for value in setting.constants[name].values()) for name in group)

        def made() -> Made:
            return self._make(_traced(setting, group, arriving, products, ranks, Body(dtype, self._dialect)))

        jacobians = tuple(setting.jacobians[name] for name in group)
        form = setting.credit, setting.alone, setting.versions is not None
        key = group, form, jacobians, arriving, products, ranks, dtype
        return self._made.setdefault(setting.graph, Memo()).of(key, made)
