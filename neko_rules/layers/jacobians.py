"""Jacobians: the local derivatives D, r, q and h of a cell, derived by calling its equations with symbols.

    D_t = ∂s_t/∂s_{t-1}     r_t = ∂s_t/∂z_{t-1}     q_t = ∂s_t/∂I_t     h_t = ∂z_t/∂s_t
    c_t = ∂s_t/∂c and ∂z_t/∂c for every constant c of the cell that is learned

Entries that are identically zero are left out, so a rule never multiplies by them, and entries that contain only
constants are known not to change in time, so they are never stored per step. SymPy derives them once; afterwards they
are found on disk by the text of the equations.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from neko_rules.backend import Array, Backend
from neko_rules.errors import IncompatibleError
from neko_rules.layers.cell import Cell, CellOperations, Constants
from neko_rules.layers.equations import written
from neko_rules.layers.printed import Printed, kept

Entry = tuple[str, ...]
"""Which derivative: ("D", "v", "a") is ∂v_t/∂a_{t-1}, ("r", "a") is ∂a_t/∂z_{t-1}, ("q", "v"), ("h", "v").

("c", "v", "alpha") is ∂v_t/∂α for a learned α, and ("c", "z", "theta") is ∂z_t/∂θ.
"""

PREVIOUS = "previous_"

SLOPE = "slope"
"""What a forward pass may record of a cell that emits by a single spike: ψ(u) at every step."""


class SymbolicOperations:
    """The operations that a cell may use, over SymPy expressions."""

    def __init__(self) -> None:
        functions = symbolic_functions()
        self._functions = functions
        self.spike = functions["Spike"]
        self.stop_gradient = functions["Detached"]
        self.maximum = functions["Maximum"]
        self.minimum = functions["Minimum"]
        self.rounded = functions["Rounded"]

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """A choice whose condition is a comparison ``a > b`` or ``a < b``."""
        import sympy

        if isinstance(condition, (sympy.Gt, sympy.StrictGreaterThan, sympy.Lt, sympy.StrictLessThan)):
            return self._functions["Choice"](condition.gts - condition.lts, yes, no)
        raise TypeError(f"nx.where in a cell takes a strict comparison such as s.v > 0, not {condition!r}")

    def __getattr__(self, name: str) -> Any:
        import sympy

        if name in ("exp", "log", "sqrt", "tanh"):
            return getattr(sympy, name)
        if name == "abs":
            return self._functions["Absolute"]
        raise AttributeError(f"a cell cannot use nx.{name}: its derivative is not known")


@lru_cache(maxsize=1)
def symbolic_functions() -> dict[str, Any]:
    """SymPy functions with the derivatives that the engine's conventions give them (SymPy is loaded on first use).

    They stay opaque, because SymPy's own Max, Abs and Piecewise carry values at ties (Heaviside(0) = 1/2) that no
    array library shares. ``Choice(m, a, b)`` is a where m > 0, else b.
    """
    import sympy

    def opaque(name: str, derivative: Callable[..., Any]) -> Any:
        return type(name, (sympy.Function,), {"fdiff": lambda self, argindex=1: derivative(argindex, *self.args)})

    derivative_of_spike = sympy.Function("SpikeDerivative")
    zero, one = sympy.Integer(0), sympy.Integer(1)
    choice = opaque("Choice", lambda i, m, a, b: (zero, choice(m, one, zero), choice(m, zero, one))[i - 1])
    return {
        "Choice": choice,
        "Detached": opaque("Detached", lambda i, x: zero),
        "Rounded": opaque("Rounded", lambda i, x, apart: one if i == 1 else zero),
        "Spike": opaque("Spike", lambda i, u: derivative_of_spike(u)),
        "Absolute": opaque("Absolute", lambda i, x: choice(x, one, choice(-x, -one, zero))),
        "Maximum": opaque("Maximum", lambda i, a, b: choice(a - b, one, zero) if i == 1 else choice(a - b, zero, one)),
        "Minimum": opaque("Minimum", lambda i, a, b: choice(b - a, one, zero) if i == 1 else choice(b - a, zero, one)),
    }


class EntryOperations(CellOperations):
    """The functions that a printed expression calls, over arrays."""

    def spike_derivative(self, u: Array) -> Array:
        """ψ(u)."""
        return self.surrogate.derivative(self.nx, u)

    def choice(self, margin: Array, yes: Any, no: Any) -> Array:
        """``yes`` where the margin is positive, else ``no``."""
        if not self.nx.is_tensor(yes) and not self.nx.is_tensor(no):
            yes = self.nx.full((), yes, self.nx.dtype(margin))
        return self.nx.where(margin > 0, yes, no)


class Symbolic(NamedTuple):
    """Derivatives as SymPy has them.

    Attributes:
        states, constants, learnable: names, as in ``Jacobians``.
        entries: the derivatives that are not identically zero.
        spikes: how many different spikes a step evaluates.
        after: the equation of every state.
        emitted: that of the output.
    """

    states: tuple[str, ...]
    constants: tuple[str, ...]
    learnable: tuple[str, ...]
    entries: dict[Entry, Any]
    spikes: int
    after: dict[str, Any]
    emitted: Any


@dataclass(frozen=True, eq=False)
class Jacobians:
    """The local derivatives of one cell as expressions, and as functions of a trajectory.

    Args:
        states: state names.
        expressions: the entries that are not identically zero, as text.
        depends: the names that each of them depends on.
        constants: names of the cell's constants.
        arguments: names that the entries depend on, in the order in which ``function`` takes them.
        function: all entries from an ``EntryOperations`` and the values of the arguments.
        learnable: names of the constants that are learned.
        spikes: how many different spikes a step evaluates.
        key: what they depend on, as text; empty where that has none.
        symbolic: derives them, for whoever goes on from the expressions themselves.
        timed: whether an error moves spikes in time, and h is of that.

    Example:
        >>> from neko_rules.layers.integrate_and_fire import ALIFCell
        >>> print(Jacobians.of(ALIFCell(), dt=1e-3))
        ∂v/∂v' = alpha
        ∂a/∂a' = rho
        ∂a/∂z' = 1
        ∂v/∂I = 1
        ∂z/∂v = SpikeDerivative((-a*beta - theta + v)/theta)/theta
        ∂z/∂a = -beta*SpikeDerivative((-a*beta - theta + v)/theta)/theta
    """

    states: tuple[str, ...]
    expressions: dict[Entry, str]
    depends: dict[Entry, tuple[str, ...]]
    constants: tuple[str, ...]
    arguments: tuple[str, ...]
    function: Callable[..., list[Any]]
    learnable: tuple[str, ...]
    spikes: int
    key: str
    symbolic: Callable[[], Symbolic]
    timed: bool = False

    @staticmethod
    def of(cell: Cell, dt: float) -> Jacobians:
        """Derive them, or look them up if a cell with the same equations has been seen."""
        try:
            key: Hashable = written(cell, dt)
        except (TypeError, AttributeError, ValueError):
            # Whatever has no text may have derivatives all the same, and if not the reason is told there.
            key = cell, dt
        if key not in _derived:
            # As it is now, since it may be asked for its equations once more.
            own = copy.copy(cell)
            _derived[key] = _found(key if isinstance(key, str) else "", lambda: _derive(own, dt))
        return _derived[key]

    def cut(self, temporal: str) -> Jacobians:
        """The same derivatives with fewer paths through time, as a temporal credit below ``neuron`` has them.

        Args:
            temporal: ``"presynaptic"`` keeps the leak of the states between spikes, D at z_{t-1} = 0, so that the trace
                of an input does not depend on what the neuron does; ``"none"`` keeps no path from one step to the next.

        Raises:
            IncompatibleError: a leak that is not constant, for presynaptic credit.

        Example:
            >>> from neko_rules.layers.integrate_and_fire import LIFCell
            >>> print(Jacobians.of(LIFCell(reset="zero", detach_reset=False), dt=1e-3).cut("presynaptic"))
            ∂v/∂v' = alpha
            ∂v/∂I = 1
            ∂z/∂v = SpikeDerivative((-theta + v)/theta)/theta
        """
        return _cut(self, temporal)

    def in_time(self, slowest: float) -> Jacobians:
        """The derivatives by which an error moves spikes in time (``spike_times``); of a smooth neuron, the same.

        Args:
            slowest: the slowest crossing of the threshold that counts as what it is, in thresholds per time step.

        Raises:
            IncompatibleError: the neuron spikes within its update, or its output is no single spike.

        Example:
            >>> from neko_rules.layers.integrate_and_fire import LIFCell
            >>> print(Jacobians.of(LIFCell(threshold=2.0), dt=1e-3).in_time(slowest=1e-3))  # doctest: +ELLIPSIS
            ∂v/∂v' = alpha
            ∂v/∂t of z' = theta*(1 - alpha)
            ∂v/∂I = 1
            ∂z/∂v = Choice(...
        """
        return self if not self.spikes else _in_time(self, slowest)

    @property
    def with_slope(self) -> Jacobians | None:
        """The same derivatives with ψ as one more name that is recorded; None where a step has not exactly one spike.

        Example:
            >>> from neko_rules.layers.integrate_and_fire import ALIFCell
            >>> Jacobians.of(ALIFCell(), dt=1e-3).with_slope.arguments
            ('alpha', 'beta', 'rho', 'slope', 'theta')
        """
        return _with_slope(self) if self.spikes == 1 else None

    def evaluate(
        self, nx: Backend, cell: Cell, constants: Constants, recorded: Callable[[str], Array]
    ) -> dict[Entry, Array]:
        """Every entry as an array: of the shape of what is recorded where it varies, a scalar or [neuron] where not.

        ``recorded`` gives a name at one time step or its history over all: a state (``"v"``), a state one step earlier
        (``"previous_v"``), ``"previous_z"``, ``"current"`` or, with slope, ``"slope"``.
        """
        values = [constants[name] if name in constants else recorded(name) for name in self.arguments]
        results = self.function(EntryOperations(nx, cell.surrogate), *values)  # type: ignore[arg-type]
        return dict(zip(self.expressions, results, strict=True))

    def __str__(self) -> str:
        letters = {"D": "∂{}/∂{}'", "q": "∂{}/∂I", "h": "∂z/∂{}", "c": "∂{}/∂{}"}
        letters["r"] = "∂{}/∂t of z'" if self.timed else "∂{}/∂z'"
        lines = (f"{letters[e[0]].format(*e[1:])} = {value}" for e, value in self.expressions.items())
        return "\n".join(lines)


_derived: dict[Hashable, Jacobians] = {}

_printing = threading.RLock()
"""SymPy numbers the sources that it makes of expressions; one thread at a time asks for its own."""


def _found(key: str, derive: Callable[[], Symbolic]) -> Jacobians:
    """What belongs to a key, from disk or derived."""
    symbolic = cache(derive)

    def fresh() -> Printed:
        with _printing:
            return _printed(symbolic())

    printed = kept(key, fresh) if key else fresh()
    return Jacobians(
        printed.states,
        dict(zip(printed.entries, printed.texts, strict=True)),
        dict(zip(printed.entries, printed.depends, strict=True)),
        printed.constants,
        printed.arguments,
        printed.function,
        printed.learnable,
        printed.spikes,
        key,
        symbolic,
    )


def symbols(names: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """The symbols of names."""
    import sympy

    return {name: sympy.Symbol(prefix + name, real=True) for name in names}


def attached(value: Any) -> Any:
    """An expression of which nothing is detached."""
    return value.replace(symbolic_functions()["Detached"], lambda x: x)


def _derive(cell: Cell, dt: float) -> Symbolic:
    """Call the cell with symbols, and differentiate."""
    import sympy

    nx = SymbolicOperations()
    states, constants = cell.state_names(), tuple(cell.constants(dt))
    _refuse_equality(cell, constants)
    p = SimpleNamespace(**symbols(constants))
    before, now = symbols(states, PREVIOUS), symbols(states)
    z, current = symbols((PREVIOUS + "z", "current")).values()
    stepped = cell.update(nx, p, SimpleNamespace(**before), z, current)
    emitted = sympy.sympify(cell.emit(nx, p, SimpleNamespace(**now)))
    learnable = tuple(cell.trainable[name].constant for name in cell.learnable)
    after = {name: sympy.sympify(stepped[name]) for name in states}
    entries: dict[Entry, Any] = {}
    for name in states:
        entries.update({("D", name, other): sympy.diff(after[name], before[other]) for other in states})
    entries.update({("r", name): sympy.diff(after[name], z) for name in states})
    entries.update({("q", name): sympy.diff(after[name], current) for name in states})
    entries.update({("h", name): sympy.diff(emitted, now[name]) for name in states})
    for name, symbol in symbols(learnable).items():
        entries.update({("c", state, name): sympy.diff(after[state], symbol) for state in states})
        entries["c", "z", name] = sympy.diff(emitted, symbol)
    # Where a detached term remains after differentiation its value is wanted; only its derivative was zero.
    nonzero = {e: attached(value) for e, value in entries.items() if value != 0}
    spike = symbolic_functions()["Spike"]
    spikes = set().union(*(each.atoms(spike) for each in (*after.values(), emitted)))
    return Symbolic(states, constants, learnable, nonzero, len(spikes), after, emitted)


def _refuse_equality(cell: Cell, constants: tuple[str, ...]) -> None:
    """Refuse == and != between values: symbols would be told apart as such, whatever numbers they stand for."""
    from neko_rules.kernels.tracing import Body, NotTraceableError
    from neko_rules.layers.traced import traced_results

    body = Body("float64")
    try:
        traced_results(cell, constants, body)
    except NotTraceableError:
        return
    if any(sign in statement for statement in body.statements for sign in (" == ", " != ")):
        raise TypeError("a cell compares its values by > or <, whose derivatives are known, not by == or !=")


def _printed(symbolic: Symbolic) -> Printed:
    """Expressions as text, and the source of the function that evaluates them."""
    import sympy

    values = symbolic.entries.values()
    depends = [sorted(value.free_symbols, key=str) for value in values]
    arguments = sorted(set().union(*depends), key=str)
    function = sympy.lambdify(
        [sympy.Symbol("ops"), *arguments], list(values), printer=_printer(), modules=[{}], cse=True
    )
    source = inspect.getsource(function).replace(f"def {function.__name__}(", "def derivatives(", 1)
    return Printed(
        symbolic.states,
        symbolic.constants,
        symbolic.learnable,
        tuple(symbolic.entries),
        tuple(map(str, values)),
        tuple(tuple(map(str, names)) for names in depends),
        tuple(map(str, arguments)),
        source,
        symbolic.spikes,
    )


@lru_cache(maxsize=256)
def _cut(jacobians: Jacobians, temporal: str) -> Jacobians:
    return _found(
        jacobians.key and f"{jacobians.key}\ncut {temporal}", lambda: _cut_off(jacobians.symbolic(), temporal)
    )


def _cut_off(symbolic: Symbolic, temporal: str) -> Symbolic:
    import sympy

    z = sympy.Symbol(PREVIOUS + "z", real=True)
    known = set(symbols(symbolic.constants).values())
    left: dict[Entry, Any] = {}
    for entry, value in symbolic.entries.items():
        if entry[0] == "D" and temporal == "presynaptic":
            leak = sympy.simplify(value.subs(z, 0))
            if not leak.free_symbols <= known:
                raise IncompatibleError(
                    "presynaptic credit needs neurons whose leak between spikes is constant",
                    received=f"∂{entry[1]}/∂{entry[2]}' = {leak}",
                    works="use temporal credit 'neuron', as e-prop does",
                )
            if leak != 0:
                left[entry] = leak
        elif entry[0] not in ("D", "r"):
            left[entry] = value
    return symbolic._replace(entries=left)


@lru_cache(maxsize=256)
def _in_time(jacobians: Jacobians, slowest: float) -> Jacobians:
    from neko_rules.layers.spike_times import in_time

    key = jacobians.key and f"{jacobians.key}\nin time, from {slowest!r} on"
    return replace(_found(key, lambda: in_time(jacobians.symbolic(), slowest)), timed=True)


@lru_cache(maxsize=256)
def _with_slope(jacobians: Jacobians) -> Jacobians:
    return _found(jacobians.key and f"{jacobians.key}\nwith slope", lambda: _sloped(jacobians.symbolic()))


def _sloped(symbolic: Symbolic) -> Symbolic:
    import sympy

    slope, derivative = sympy.Symbol(SLOPE, real=True), sympy.Function("SpikeDerivative")
    return symbolic._replace(
        entries={entry: value.replace(derivative, lambda u: slope) for entry, value in symbolic.entries.items()}
    )


def _printer() -> Any:
    """Prints an expression as calls of an ``EntryOperations`` named ``ops``."""
    import sympy
    from sympy.printing.pycode import PythonCodePrinter

    names = {"SpikeDerivative": "spike_derivative", "Choice": "choice", "Absolute": "abs"}

    class Printer(PythonCodePrinter):  # type: ignore[misc]
        def _print_Function(self, expr: Any) -> str:  # noqa: N802
            name = type(expr).__name__
            return f"ops.{names.get(name, name.lower())}({', '.join(self._print(a) for a in expr.args)})"

        def _print_NumberSymbol(self, expr: Any) -> str:  # noqa: N802
            return repr(float(expr))

        _print_Exp1 = _print_Pi = _print_EulerGamma = _print_GoldenRatio = _print_NumberSymbol  # noqa: N815

        _print_exp = _print_log = _print_tanh = _print_Abs = _print_sign = _print_Function  # noqa: N815

        def _print_Pow(self, expr: Any, rational: bool = False) -> str:  # noqa: N802
            if expr.exp == sympy.Rational(1, 2):
                return f"ops.sqrt({self._print(expr.base)})"
            return str(super()._print_Pow(expr, rational=True))

    return Printer({"fully_qualified_modules": False, "allow_unknown_functions": True})
