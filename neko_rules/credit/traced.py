"""Traced step: one step back of a population written down as statements, from which an adjoint kernel is made.

``Recursion.step`` is called with values that stand for one neuron. The one thing that is not elementwise, the error
that comes back through recurrent weights, becomes a value that is gathered from all neurons before the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.credit.recursion import Carried as Sent
from neko_rules.credit.recursion import Constant as Learnable
from neko_rules.credit.recursion import Recursion, Setting
from neko_rules.kernels.tracing import Body, Dialect, Memo, Traced, TracingBackend
from neko_rules.kernels.writer import Carried, Constant, group_of
from neko_rules.layers.forward import Z, project
from neko_rules.layers.graph import Connection, Graph

Solved = tuple[dict[str, Array], dict[str, Array], dict[Learnable, Array], dict[str, Array]]
"""By population: δ; q_t·h_t G_t where that is what goes down, [time, batch, neuron]; dE/dc; Σ_t δ_t if it is known."""

Arriving = tuple[tuple[str, str], ...]
"""Keys of the signals that arrive at a population."""


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
        self.products: list[tuple[str, str]] = []

    def matmul(self, error: Traced, back: Connection) -> Traced:
        """Σ_target error · back, gathered under the name of the connection's weight."""
        name = f"m{len(self.products)}"
        self.products.append((name, error.name))
        return self.body.argument(f"g_{name}")


@dataclass(frozen=True)
class TracedStep:
    """One step back of a population, written down; it holds on to no network.

    Args:
        name: of the population.
        body: the statements.
        constants: of the cell; traced as ``c_name``.
        signals: traced names of the signals that arrive.
        products_of: for each of them, whether it arrives as a product.
        recorded: names of the histories that are needed, as ``Jacobians`` names them; traced as ``i_name``.
        carried: what goes from step to step.
        keys: what of, as ``Recursion`` names it.
        products: (name, what goes through a matrix): gathered values, traced as ``g_name``.
        outgoing: the connections whose matrices those are.
        errors: traced names of δ, and of the error within the time step where it goes down apart.
        learned: traced names of the derivatives of learnable constants.
        learnable: those constants.
        biased: whether the population has a bias, whose gradient is Σ_t δ_t.
    """

    name: str
    body: Body
    constants: list[Constant]
    signals: list[str]
    products_of: tuple[bool, ...]
    recorded: list[str]
    carried: list[Carried]
    keys: list[Sent]
    products: list[tuple[str, str]]
    outgoing: list[Connection]
    errors: list[str]
    learned: list[str]
    learnable: list[Learnable]
    biased: bool

    def together(self, size: int) -> int:
        """How many examples go through the time steps together, of so many neurons each.

        Args:
            size: of the population.
        """
        numbers = len(self.carried) + len(self.outgoing) + sum(self.products_of) + self.biased + len(self.learned)
        return group_of(numbers * size * np.dtype(self.body.dtype).itemsize, bool(self.outgoing))

    def solved(self, errors: Sequence[Array], learned: Sequence[Array], summed: dict[str, Array]) -> Solved:
        """What was found, by population."""
        delta, *within = errors
        within_step = {self.name: within[0]} if within else {}
        return {self.name: delta}, within_step, dict(zip(self.learnable, learned, strict=True)), summed


def _traced(
    setting: Setting,
    name: str,
    arriving: Arriving,
    products: tuple[bool, ...],
    ranks: tuple[int, ...],
    body: Body,
) -> TracedStep:
    nx: Any = _Products(body)
    names = list(setting.constants[name])
    tokens: Any = {name: {key: body.argument(f"c_{key}") for key in names}}
    recursion = Recursion(
        setting._replace(nx=nx, constants=tokens, back=lambda connection: connection),
        (name,),
        tuple(key for key in arriving if key[1] != Z),
    )
    carry = [f"l{i}" for i, _ in enumerate(recursion.carried)]
    signals = [f"i_signal{i}" for i, _ in enumerate(arriving)]
    inputs = [
        body.argument(signals[arriving.index(each)]) if each in arriving else body.literal(0.0, body.dtype)
        for each in recursion.arriving
    ]
    recorded = [key for _, key in recursion.recorded]
    inputs += [body.argument(f"i_{key}") for key in recorded]
    after, results = recursion.step(tuple(body.argument(each) for each in carry), tuple(inputs))
    values = [body.value(each).name for each in results]
    errors = 1 + len(recursion.instantaneous)
    return TracedStep(
        name,
        body,
        [Constant(f"p_{key}", rank > 0) for key, rank in zip(names, ranks, strict=True)],
        signals,
        products,
        recorded,
        [Carried(each, body.value(value).name) for each, value in zip(carry, after, strict=True)],
        recursion.carried,
        nx.products,
        [connection for connection, _ in recursion.outgoing[name]],
        values[:errors],
        values[errors:],
        recursion.learnable,
        setting.graph.populations[name].bias,
    )


Made = TypeVar("Made")


class Steps(Generic[Made]):
    """What is made of a population's step back, once for every network and form of the step.

    Args:
        dialect: how its operations are spelled.
        make: from a step that was written down.
    """

    def __init__(self, dialect: Dialect, make: Callable[[TracedStep], Made]) -> None:
        self._dialect, self._make = dialect, make
        self._made: WeakKeyDictionary[Graph, Memo[Made]] = WeakKeyDictionary()

    def of(
        self, setting: Setting, name: str, arriving: Arriving, products: tuple[bool, ...], dtype: str
    ) -> Made | None:
        """What belongs to a population; None where its recursion has no scalar form.

        Args:
            setting: the network.
            name: of the population.
            arriving: keys of the signals that arrive.
            products: for each of them, whether it arrives as a product.
            dtype: of all arrays.
        """
        ranks = tuple(len(value.shape) for value in setting.constants[name].values())

        def made() -> Made:
            return self._make(_traced(setting, name, arriving, products, ranks, Body(dtype, self._dialect)))

        key = (name, setting.credit, setting.jacobians[name], arriving, products, ranks, dtype)
        return self._made.setdefault(setting.graph, Memo()).of(key, made)
