"""Optimizers: how a gradient becomes a change of the parameters.

Each is a pair of pure functions on flat dicts of arrays, equal on every backend: ``init`` makes the state, ``update``
returns what to add to the parameters and the next state. Equations are for one parameter p with gradient g, learning
rate η and update number t = 1, 2, …; all operations are entry by entry.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Self

from neko_rules.alike import Alike
from neko_rules.arguments import number
from neko_rules.backend import Array, Backend, Parameters
from neko_rules.kernels.elementwise import Loop, evaluated, kernel_of
from neko_rules.kernels.host import host_of
from neko_rules.registry import Registry
from neko_rules.schedules import Schedule, resolve_learning_rate

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Momentum",
    "Naive",
    "Nesterov",
    "Optimizer",
    "OptimizerState",
    "RMSprop",
]

OptimizerState = dict[str, Parameters]
"""What an optimizer remembers: slot name, then parameter name, then an array shaped like the parameter."""

LearningRate = float | Schedule | Mapping[str, Any]


class Applied(NamedTuple):
    """What an optimizer does with a gradient.

    Attributes:
        updates: what is added to every parameter that has a gradient; may be empty where nobody asked.
        parameters: all parameters, with that added.
        state: the next state of the optimizer.
        finite: whether all updates, parameters and states of those that have a gradient are; None where nobody looked.
    """

    updates: Parameters
    parameters: Parameters
    state: OptimizerState
    finite: bool | None = None


@dataclass(frozen=True)
class Optimizer(Alike, ABC):
    """A map from gradients to changes of the parameters.

    Attributes:
        learning_rate: a number, a schedule, or a mapping that names a schedule.
        slots: names of the arrays remembered for every parameter, all zero before the first update.
    """

    learning_rate: LearningRate = 1e-3
    slots: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", resolve_learning_rate(self.learning_rate))

    def learning_rate_at(self, step: int) -> float:
        """The learning rate after ``step`` updates, so 0 for the first one.

        Example:
            >>> SGD({"name": "step_decay", "initial": 1.0, "rate": 0.5, "steps": 10}).learning_rate_at(10)
            0.5
        """
        rate = self.learning_rate
        if isinstance(rate, Schedule):
            return rate(step)
        assert isinstance(rate, float)
        return rate

    @property
    def in_epochs(self) -> bool:
        """Whether its learning rate is a schedule in epochs."""
        return isinstance(self.learning_rate, Schedule) and self.learning_rate.in_epochs

    def in_updates(self, per_epoch: int) -> Self:
        """The same with a schedule in updates, of which an epoch has so many."""
        twin = copy.copy(self)
        if isinstance(self.learning_rate, Schedule):
            object.__setattr__(twin, "learning_rate", self.learning_rate.in_updates(per_epoch))
        return twin

    def init(self, nx: Backend, parameters: Parameters) -> OptimizerState:
        """The state before the first update; an empty dict when nothing is remembered."""
        return {
            slot: {name: nx.full(tuple(p.shape), 0.0, nx.dtype(p)) for name, p in parameters.items()}
            for slot in self.slots
        }

    def extended(self, nx: Backend, state: OptimizerState, parameters: Parameters) -> OptimizerState:
        """A state that also remembers parameters that were not there before, with zeros.

        Example:
            >>> import numpy as np
            >>> from neko_rules.backend import get_backend
            >>> nx, momentum = get_backend("numpy"), Momentum()
            >>> state = momentum.init(nx, {"w": np.ones(1)})
            >>> momentum.extended(nx, state, {"w": np.ones(1), "b": np.ones(2)})
            {'velocity': {'w': array([0.]), 'b': array([0., 0.])}}
        """
        new = {name: p for name, p in parameters.items() if any(name not in state[slot] for slot in self.slots)}
        return {slot: {**state[slot], **zeros} for slot, zeros in self.init(nx, new).items()} if new else state

    def update(
        self,
        nx: Backend,
        gradients: Parameters,
        state: OptimizerState,
        parameters: Parameters,
        learning_rate: Array,
        step: Array,
    ) -> tuple[Parameters, OptimizerState]:
        """What to add to every parameter that has a gradient, and the next state.

        Args:
            nx: the backend of the arrays.
            gradients: by parameter name; a parameter without one keeps its value and its state.
            state: of :meth:`init` or of the update before.
            parameters: by name.
            learning_rate: η, a backend scalar of the parameters' type.
            step: t, 1 for the first update, a backend scalar; of float64, since 1 - β^t loses digits in float32.

        Example:
            >>> import numpy as np
            >>> from neko_rules.backend import get_backend
            >>> nx, p, g = get_backend("numpy"), {"w": np.zeros(2)}, {"w": np.array([1.0, -3.0])}
            >>> adam = Adam()
            >>> updates, state = adam.update(nx, g, adam.init(nx, p), p, np.asarray(0.1), np.asarray(1.0))
            >>> updates["w"].round(6), state["first_moment"]["w"].round(6)
            (array([-0.1,  0.1]), array([ 0.1, -0.3]))
        """
        made = self._made(nx, gradients, state, parameters, learning_rate, step, True)
        return made.updates, made.state

    def applied(
        self,
        nx: Backend,
        gradients: Parameters,
        state: OptimizerState,
        parameters: Parameters,
        learning_rate: Array,
        step: Array,
        wanted: bool = True,
    ) -> Applied:
        """``update``, and the parameters with it added, in one loop where there is one.

        Args:
            nx, gradients, state, parameters, learning_rate, step: as for ``update``.
            wanted: whether the updates themselves are; writing them takes an eighth of Adam's time.
        """
        given = nx, gradients, state, parameters, learning_rate, step
        if type(self).update is Optimizer.update:
            return self._made(*given, wanted)
        # A user's, who has written what is added to the parameters.
        updates, after = self.update(*given)
        moved = {name: parameters[name] + update for name, update in updates.items()}
        return Applied(updates, {**parameters, **moved}, after)

    @property
    def by_entry(self) -> bool:
        """Whether an update is what ``_change`` makes of every entry, and nothing else; for the engine."""
        own = type(self)
        return own.update is Optimizer.update and own.applied is Optimizer.applied

    def _made(
        self,
        nx: Backend,
        gradients: Parameters,
        state: OptimizerState,
        parameters: Parameters,
        learning_rate: Array,
        step: Array,
        wanted: bool,
    ) -> Applied:
        """``applied`` by ``_change``."""
        updates: Parameters = {}
        moved = dict(parameters)
        after = {slot: dict(state[slot]) for slot in self.slots}
        host = host_of(nx)
        loop = None
        if host is not None and len(kinds := {nx.dtype(gradient) for gradient in gradients.values()}) == 1:
            loop = loop_of(self, type(self)._change, kinds.pop(), nx.dtype(step), wanted)
        if host is not None and loop is not None:
            groups = [gradients, parameters, *(state[slot] for slot in self.slots)]
            arrays = [[group[name] for name in gradients] for group in groups]
            made = [*([updates] if wanted else []), moved, *after.values()]
            rows, finite = evaluated(host, loop, arrays, (learning_rate, step), len(made))
            for group, row in zip(made, rows, strict=True):
                group.update(zip(gradients, row, strict=True))
            return Applied(updates, moved, after, finite)
        for name, gradient in gradients.items():
            before = tuple(state[slot][name] for slot in self.slots)
            updates[name], remembered = self._change(nx, gradient, before, parameters[name], learning_rate, step)
            for slot, array in zip(self.slots, remembered, strict=True):
                after[slot][name] = array
            moved[name] = parameters[name] + updates[name]
        return Applied(updates, moved, after)

    @abstractmethod
    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """The update of one parameter and its next memory, in the order of ``slots``."""


@lru_cache(maxsize=64)
def loop_of(optimizer: Optimizer, change: Callable[..., Any], dtype: str, step_dtype: str, wanted: bool) -> Loop | None:
    """The change of every entry, the entry after it and its memory as one loop.

    Args:
        optimizer: whose they are.
        change: its ``_change``.
        dtype: of the parameters.
        step_dtype: of the number of the update.
        wanted: whether the changes are among its results.
    """
    slots = optimizer.slots

    def formula(nx: Any, given: Mapping[str, Any]) -> tuple[Any, ...]:
        memory = tuple(given[slot] for slot in slots)
        moved, after = change(optimizer, nx, given["g"], memory, given["p"], given["rate"], given["t"])
        return *((moved,) if wanted else ()), given["p"] + moved, *after

    return kernel_of((optimizer, change, wanted), formula, ("g", "p", *slots), {"rate": dtype, "t": step_dtype}, dtype)


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", Optimizer)  # type: ignore[type-abstract]


@OPTIMIZERS.register("sgd", "gradient_descent")
@dataclass(frozen=True)
class SGD(Optimizer):
    """Δp = -η g: stochastic gradient descent.

    Reference:
        H. Robbins, S. Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.

    Example:
        >>> SGD(0.5).learning_rate_at(0)
        0.5
    """

    learning_rate: LearningRate = 1e-2

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        return -rate * g, ()


@OPTIMIZERS.register("momentum", "heavy_ball")
@dataclass(frozen=True)
class Momentum(Optimizer):
    """v ← μ v + g, Δp = -η v: a heavy ball that rolls on along the gradients so far.

    The learning rate multiplies v as a whole, so a change of it acts at once.

    Args:
        learning_rate: η.
        momentum: μ, at least 0 and below 1.

    Reference:
        B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
        and Mathematical Physics 4, 1964.

    Example:
        >>> Momentum(momentum=0.5)
        Momentum(learning_rate=0.01, momentum=0.5)
    """

    learning_rate: LearningRate = 1e-2
    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "momentum", number("momentum", self.momentum, at_least=0, below=1))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        (velocity,) = memory
        velocity = self.momentum * velocity + g
        return -rate * velocity, (velocity,)


@OPTIMIZERS.register("nesterov", "nesterov_momentum", "nag")
@dataclass(frozen=True)
class Nesterov(Momentum):
    """v ← μ v + g, Δp = -η (g + μ v): momentum that looks one step ahead.

    Written for the point looked at from, so that the gradient is taken at p itself.

    Args:
        learning_rate: η.
        momentum: μ, at least 0 and below 1.

    Reference:
        Y. Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k²)", Soviet
        Mathematics Doklady 27, 1983; in this form I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of
        initialization and momentum in deep learning", ICML 2013.

    Example:
        >>> Nesterov().momentum
        0.9
    """

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        (velocity,) = memory
        velocity = self.momentum * velocity + g
        return -rate * (g + self.momentum * velocity), (velocity,)


@OPTIMIZERS.register("adam")
@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β₁m + (1-β₁)g, s ← β₂s + (1-β₂)g², Δp = -η m̂ / (√ŝ + ε): adaptive moments.

    m̂ = m / (1 - β₁ᵗ) and ŝ = s / (1 - β₂ᵗ) undo the start from zero; ε stands outside the root, after the correction.

    Args:
        learning_rate: η.
        beta_1: β₁, at least 0 and below 1.
        beta_2: β₂, at least 0 and below 1.
        epsilon: ε, above 0, in the unit of the gradients.

    Reference:
        D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Example:
        >>> Adam(2e-3)
        Adam(learning_rate=0.002, beta_1=0.9, beta_2=0.999, epsilon=1e-08)
    """

    learning_rate: LearningRate = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "beta_1", number("beta_1", self.beta_1, at_least=0, below=1))
        object.__setattr__(self, "beta_2", number("beta_2", self.beta_2, at_least=0, below=1))
        object.__setattr__(self, "epsilon", number("epsilon", self.epsilon, above=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        first, second = memory
        first = self.beta_1 * first + (1 - self.beta_1) * g
        second = self.beta_2 * second + (1 - self.beta_2) * (g * g)
        first_corrected = first * _correction(nx, self.beta_1, t, p)
        second_corrected = second * _correction(nx, self.beta_2, t, p)
        return -rate * first_corrected / (nx.sqrt(second_corrected) + self.epsilon), (first, second)


@OPTIMIZERS.register("adamw")
@dataclass(frozen=True)
class AdamW(Adam):
    """Δp = Δp of Adam - η λ p: weight decay that the adaptive scale does not touch.

    Args:
        learning_rate: η.
        beta_1: β₁, at least 0 and below 1.
        beta_2: β₂, at least 0 and below 1.
        epsilon: ε, above 0, in the unit of the gradients.
        weight_decay: λ, at least 0; multiplied by the learning rate.

    Reference:
        I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2; their schedule
        multiplier is the learning rate here.

    Example:
        >>> AdamW().weight_decay
        0.01
    """

    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight_decay", number("weight_decay", self.weight_decay, at_least=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        adaptive, memory = super()._change(nx, g, memory, p, rate, t)
        return adaptive - (rate * self.weight_decay) * p, memory


@OPTIMIZERS.register("rmsprop")
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s ← ρ s + (1-ρ) g², Δp = -η g / (√s + ε): the gradient over its recent size.

    Args:
        learning_rate: η.
        rho: ρ, at least 0 and below 1.
        epsilon: ε, above 0, in the unit of the gradients.

    Reference:
        T. Tieleman, G. Hinton, "Lecture 6.5, RMSprop: divide the gradient by a running average of its recent
        magnitude", Coursera: Neural Networks for Machine Learning, 2012.

    Example:
        >>> RMSprop()
        RMSprop(learning_rate=0.001, rho=0.9, epsilon=1e-08)
    """

    learning_rate: LearningRate = 1e-3
    rho: float = 0.9
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("mean_square",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rho", number("rho", self.rho, at_least=0, below=1))
        object.__setattr__(self, "epsilon", number("epsilon", self.epsilon, above=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        (mean_square,) = memory
        mean_square = self.rho * mean_square + (1 - self.rho) * (g * g)
        return -rate * g / (nx.sqrt(mean_square) + self.epsilon), (mean_square,)


@OPTIMIZERS.register("adamax")
@dataclass(frozen=True)
class Adamax(Optimizer):
    """m ← β₁m + (1-β₁)g, u ← max(β₂u, |g| + ε), Δp = -η m / ((1 - β₁ᵗ) u): Adam with the largest recent gradient.

    The ε is not in the paper; it keeps a gradient that was always zero from giving 0/0.

    Args:
        learning_rate: η.
        beta_1: β₁, at least 0 and below 1.
        beta_2: β₂, at least 0 and below 1.
        epsilon: ε, above 0, in the unit of the gradients.

    Reference:
        D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2.

    Example:
        >>> Adamax().learning_rate
        0.002
    """

    learning_rate: LearningRate = 2e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("first_moment", "infinity_norm")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "beta_1", number("beta_1", self.beta_1, at_least=0, below=1))
        object.__setattr__(self, "beta_2", number("beta_2", self.beta_2, at_least=0, below=1))
        object.__setattr__(self, "epsilon", number("epsilon", self.epsilon, above=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        first, largest = memory
        first = self.beta_1 * first + (1 - self.beta_1) * g
        largest = nx.maximum(self.beta_2 * largest, nx.abs(g) + self.epsilon)
        return -(rate * _correction(nx, self.beta_1, t, p)) * (first / largest), (first, largest)


@OPTIMIZERS.register("adagrad")
@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s ← s + g², Δp = -η g / (√s + ε): a learning rate of its own for every weight, falling as it is used.

    Args:
        learning_rate: η.
        epsilon: ε, above 0, in the unit of the gradients.

    Reference:
        J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
        Journal of Machine Learning Research 12, 2011.

    Example:
        >>> Adagrad()
        Adagrad(learning_rate=0.01, epsilon=1e-08)
    """

    learning_rate: LearningRate = 1e-2
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("sum_of_squares",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", number("epsilon", self.epsilon, above=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        (squares,) = memory
        squares = squares + g * g
        return -rate * g / (nx.sqrt(squares) + self.epsilon), (squares,)


@OPTIMIZERS.register("adadelta")
@dataclass(frozen=True)
class Adadelta(Optimizer):
    """s ← ρs + (1-ρ)g², d = g √(x + ε) / √(s + ε), x ← ρx + (1-ρ)d², Δp = -η d: steps in the unit of the weights.

    The paper has no learning rate; η = 1 is its algorithm.

    Args:
        learning_rate: η, a factor on the step.
        rho: ρ, at least 0 and below 1.
        epsilon: ε, above 0; sets the size of the first steps.

    Reference:
        M. D. Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, 2012, algorithm 1.

    Example:
        >>> Adadelta()
        Adadelta(learning_rate=1.0, rho=0.95, epsilon=1e-06)
    """

    learning_rate: LearningRate = 1.0
    rho: float = 0.95
    epsilon: float = 1e-6
    slots: ClassVar[tuple[str, ...]] = ("mean_square", "mean_square_step")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rho", number("rho", self.rho, at_least=0, below=1))
        object.__setattr__(self, "epsilon", number("epsilon", self.epsilon, above=0))

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        mean_square, mean_square_step = memory
        mean_square = self.rho * mean_square + (1 - self.rho) * (g * g)
        step = g * (nx.sqrt(mean_square_step + self.epsilon) / nx.sqrt(mean_square + self.epsilon))
        mean_square_step = self.rho * mean_square_step + (1 - self.rho) * (step * step)
        return -rate * step, (mean_square, mean_square_step)


@OPTIMIZERS.register("naive")
@dataclass(frozen=True)
class Naive(Optimizer):
    """Δp = -g: the gradient itself, for rules whose gradient is already a weight change; it has no learning rate.

    Reference:
        No paper; it is the identity of the update axis, on which the weight changes of rules are compared as they are.

    Example:
        >>> Naive().learning_rate_at(7)
        1.0
    """

    learning_rate: LearningRate = field(default=1.0, init=False, repr=False)

    def _change(
        self, nx: Backend, g: Array, memory: tuple[Array, ...], p: Array, rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        return -g, ()


def _correction(nx: Backend, beta: float, t: Array, p: Array) -> Array:
    """1/(1 - β^t) in the type of t, then in that of the parameter: one division for all entries."""
    return nx.astype(1 / (1 - beta**t), nx.dtype(p))
