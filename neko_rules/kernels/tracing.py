"""Tracing: a backend that writes its operations down as scalar statements, the body of a loop over neurons.

A value stands for one number of one neuron in one example at one time step. Every operation becomes a statement in
static single assignment; the same operation on the same values is written once.

    >>> body = Body("float32")
    >>> nx = TracingBackend(body)
    >>> v = body.argument("v")
    >>> _ = nx.maximum(1 - nx.abs(v), 0.0) + nx.abs(v)
    >>> print("\\n".join(body.statements))
    t0 = abs(v)
    t1 = K0 - t0
    t2 = K1 if t1 <= K1 else t1
    t3 = t2 + t0
    >>> body.literals
    {'K0': ('float32', 1.0), 'K1': ('float32', 0.0)}
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

BOOL = "bool"


class Dialect:
    """How operations are spelled in the language of a kernel: here, scalars in a loop that Numba compiles."""

    named_literals = True
    """Whether numbers are names of typed constants, or stand in the text."""

    functions: ClassVar[dict[str, str]] = {
        "abs": "abs",
        "exp": "exp_{dtype}",
        "log": "log_{dtype}",
        "sqrt": "np.sqrt",
        "tanh": "tanh_{dtype}",
        "floor": "np.floor",
        "isfinite": "math.isfinite",
    }
    operators: ClassVar[dict[str, str]] = {"and": "and", "or": "or"}

    def choice(self, condition: str, yes: str, no: str) -> str:
        """One of two values."""
        return f"{yes} if {condition} else {no}"

    def cast(self, value: str, dtype: str) -> str:
        """A value of another type."""
        return f"{dtype}({value})"

    def negation(self, condition: str) -> str:
        """The opposite of a condition."""
        return f"not {condition}"


SCALARS = Dialect()


class NotTraceableError(Exception):
    """An equation asks for an operation that has no scalar form."""


Made = TypeVar("Made")


_MISSING: Any = object()


class Memo(Generic[Made]):
    """What was made for a key, once; None where an operation that was asked for has no scalar form.

    Example:
        >>> memo = Memo[str]()
        >>> memo.of("a", lambda: "made"), memo.of("a", lambda: "made again")
        ('made', 'made')
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Made | None] = {}

    def of(self, key: Hashable, make: Callable[[], Made]) -> Made | None:
        """What belongs to a key."""
        # One look-up: the hash of a key that holds a neuron with all its constants takes as long as a small loop.
        found = self._made.get(key, _MISSING)
        if found is _MISSING:
            try:
                found = make()
            except NotTraceableError:
                found = None
            # Another thread may have made it in between.
            found = self._made.setdefault(key, found)
        return found


class Body:
    """The statements of one loop, in order, and the literals that they use.

    Args:
        dtype: type of a Python number that meets no array.
        dialect: how operations are spelled.
    """

    def __init__(self, dtype: str, dialect: Dialect = SCALARS) -> None:
        self.dtype = dtype
        self.dialect = dialect
        self.statements: list[str] = []
        self.literals: dict[str, tuple[str, float]] = {}
        self._written: dict[tuple[str, str], Traced] = {}
        self._literal_names: dict[tuple[str, str], str] = {}

    def argument(self, name: str, dtype: str = "") -> Traced:
        """A value that the loop finds under a name."""
        return Traced(self, name, dtype or self.dtype)

    def literal(self, value: float, dtype: str) -> Traced:
        """A number, typed, so that single precision stays single."""
        if not self.dialect.named_literals:
            return Traced(self, repr(float(value)), dtype, number=float(value))
        key = (dtype, repr(float(value)))
        if key not in self._literal_names:
            name = f"K{len(self.literals)}"
            self._literal_names[key] = name
            self.literals[name] = (dtype, float(value))
        return Traced(self, self._literal_names[key], dtype, number=float(value))

    def statement(self, expression: str, dtype: str) -> Traced:
        """The value of an expression, which is written unless it was before."""
        key = (dtype, expression)
        if key not in self._written:
            name = f"t{len(self.statements)}"
            self.statements.append(f"{name} = {expression}")
            self._written[key] = Traced(self, name, dtype)
        return self._written[key]

    def value(self, value: Any, like: Traced | None = None) -> Traced:
        """A traced value as it is, a Python number as a literal of the type of what it meets."""
        if isinstance(value, Traced):
            return value
        if not isinstance(value, (int, float, np.number, np.bool_)) and (np.ndim(value) or not hasattr(value, "dtype")):
            raise NotTraceableError(f"{type(value).__name__} among numbers")
        return self.literal(float(value), self.dtype if like is None or like.dtype == BOOL else like.dtype)


class _Shape:
    """The shape of arrays of which one number is looked at: it can be handed on, and says nothing of itself."""

    def _refuse(self, *_: Any) -> Any:
        raise NotTraceableError("a shape among numbers")

    __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = __ne__ = __add__ = __radd__ = __index__ = _refuse
    __hash__ = object.__hash__


SHAPE: Any = _Shape()


class Traced:
    """A number that is not known yet.

    Args:
        body: where operations on it are written.
        name: of the variable that holds it.
        dtype: ``"float32"``, ``"float64"`` or ``"bool"``.
        number: its value if it is a literal.
    """

    shape = SHAPE

    def __init__(self, body: Body, name: str, dtype: str, number: float | None = None) -> None:
        self.body, self.name, self.dtype, self.number = body, name, dtype, number

    def _with(self, sign: str, other: Any, dtype: str = "", swapped: bool = False) -> Traced:
        right = self.body.value(other, self)
        left: Traced = self
        if swapped:
            left, right = right, left
        if sign == "+" and 0.0 in (left.number, right.number):
            return right if left.number == 0.0 else left
        if sign == "*" and 1.0 in (left.number, right.number):
            return right if left.number == 1.0 else left
        return self.body.statement(f"{left.name} {sign} {right.name}", dtype or self.dtype)

    def __add__(self, other: Any) -> Traced:
        return self._with("+", other)

    def __radd__(self, other: Any) -> Traced:
        return self._with("+", other, swapped=True)

    def __sub__(self, other: Any) -> Traced:
        return self._with("-", other)

    def __rsub__(self, other: Any) -> Traced:
        return self._with("-", other, swapped=True)

    def __mul__(self, other: Any) -> Traced:
        return self._with("*", other)

    def __rmul__(self, other: Any) -> Traced:
        return self._with("*", other, swapped=True)

    def __truediv__(self, other: Any) -> Traced:
        return self._with("/", other)

    def __rtruediv__(self, other: Any) -> Traced:
        return self._with("/", other, swapped=True)

    def __abs__(self) -> Traced:
        return self.body.statement(f"{self.body.dialect.functions['abs']}({self.name})", self.dtype)

    def __pos__(self) -> Traced:
        return self

    def __neg__(self) -> Traced:
        return self.body.statement(f"-{self.name}", self.dtype)

    def __pow__(self, exponent: Any) -> Traced:
        if isinstance(exponent, (int, float)) and exponent == int(exponent) and 1 <= abs(exponent) <= 8:
            power = self
            for _ in range(abs(int(exponent)) - 1):
                power = power * self
            return power if exponent > 0 else 1 / power
        return self._with("**", exponent)

    def __rpow__(self, base: Any) -> Traced:
        return self._with("**", base, swapped=True)

    # What is equal is a matter of the numbers, as it is of arrays.

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self._with("==", other, BOOL)

    def __ne__(self, other: object) -> Any:
        return self._with("!=", other, BOOL)

    def __gt__(self, other: Any) -> Traced:
        return self._with(">", other, BOOL)

    def __lt__(self, other: Any) -> Traced:
        return self._with("<", other, BOOL)

    def __ge__(self, other: Any) -> Traced:
        return self._with(">=", other, BOOL)

    def __le__(self, other: Any) -> Traced:
        return self._with("<=", other, BOOL)

    def __and__(self, other: Traced) -> Traced:
        return self._with(self.body.dialect.operators["and"], other, BOOL)

    def __or__(self, other: Traced) -> Traced:
        return self._with(self.body.dialect.operators["or"], other, BOOL)

    def __invert__(self) -> Traced:
        return self.body.statement(self.body.dialect.negation(self.name), BOOL)

    def __bool__(self) -> bool:
        raise NotTraceableError("a decision on the value of a neuron")

    # What a user's equation may ask for beside: it then goes by operations.

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotTraceableError("an operation that a number does not have")

    __getitem__ = __iter__ = __len__ = __float__ = __int__ = __index__ = __array__ = __array_function__ = _refuse
    __matmul__ = __rmatmul__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __xor__ = _refuse

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise NotTraceableError("an operation of PyTorch's own")

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, **options: Any) -> Any:
        """An operation of a number of NumPy's with this one."""
        operation = _OPERATORS.get(ufunc.__name__)
        if operation is None or method != "__call__" or options or any(np.ndim(each) for each in given):
            raise NotTraceableError(f"{ufunc.__name__} of NumPy")
        return operation(*(each if isinstance(each, Traced) else float(each) for each in given))

    def __getattr__(self, name: str) -> Any:
        raise NotTraceableError(f"{name} of a number")


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "negative": operator.neg,
    "greater": operator.gt,
    "less": operator.lt,
    "greater_equal": operator.ge,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "absolute": operator.abs,
}
"""What NumPy calls the operators of Python."""


class TracingBackend:
    """The elementwise operations of a backend, over traced values.

    Args:
        body: where they are written.
    """

    name = "tracing"

    def __init__(self, body: Body) -> None:
        self.body = body

    def __getattr__(self, name: str) -> Any:
        raise NotTraceableError(f"nx.{name}")

    def _call(self, function: str, given: Any) -> Traced:
        array = self.body.value(given)
        called = self.body.dialect.functions[function].format(dtype=array.dtype)
        return self.body.statement(f"{called}({array.name})", array.dtype)

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a traced value."""
        return isinstance(value, Traced)

    def dtype(self, array: Traced) -> str:
        """The name of its type."""
        return array.dtype

    def astype(self, array: Traced, dtype: str) -> Traced:
        """The value with another type."""
        if array.dtype == dtype:
            return array
        if array.dtype == BOOL:
            return self.where(array, self.body.literal(1.0, dtype), self.body.literal(0.0, dtype))
        return self.body.statement(self.body.dialect.cast(array.name, dtype), dtype)

    def full(self, shape: Sequence[int], value: float, dtype: str) -> Traced:
        """A literal."""
        return self.body.literal(value, dtype)

    def broadcast_to(self, array: Traced, shape: Sequence[int]) -> Traced:
        """The value as it is."""
        return array

    def stop_gradient(self, array: Traced) -> Traced:
        """The value as it is."""
        return array

    def where(self, condition: Traced, yes: Any, no: Any) -> Traced:
        """A choice."""
        if not isinstance(condition, Traced):
            raise NotTraceableError("a choice by what is no comparison of numbers")
        like = yes if isinstance(yes, Traced) else no if isinstance(no, Traced) else None
        yes, no = self.body.value(yes, like), self.body.value(no, like)
        return self._chosen(condition.name, yes, no)

    def _chosen(self, condition: str, yes: Traced, no: Traced) -> Traced:
        return self.body.statement(self.body.dialect.choice(condition, yes.name, no.name), yes.dtype)

    def heaviside(self, array: Traced) -> Traced:
        """1 where positive, else 0."""
        return self.astype(array > 0, array.dtype)

    # A NaN on the left must come through, as it does with every array library.

    def maximum(self, left: Traced, right: Any) -> Traced:
        """The larger of two."""
        other = self.body.value(right, left)
        return self._chosen(f"{left.name} <= {other.name}", other, left)

    def minimum(self, left: Traced, right: Any) -> Traced:
        """The smaller of two."""
        other = self.body.value(right, left)
        return self._chosen(f"{left.name} >= {other.name}", other, left)

    def abs(self, array: Traced) -> Traced:
        """|x|."""
        return self._call("abs", array)

    def sign(self, array: Traced) -> Traced:
        """-1, 0 or 1."""
        return self.where(array > 0, 1.0 + 0 * array, self.where(array < 0, -1.0 + 0 * array, 0 * array))

    def exp(self, array: Traced) -> Traced:
        """e^x."""
        return self._call("exp", array)

    def log(self, array: Traced) -> Traced:
        """Natural logarithm."""
        return self._call("log", array)

    def sqrt(self, array: Traced) -> Traced:
        """Square root."""
        return self._call("sqrt", array)

    def tanh(self, array: Traced) -> Traced:
        """Hyperbolic tangent."""
        return self._call("tanh", array)

    def floor(self, array: Traced) -> Traced:
        """The largest whole number that is not larger."""
        return self._call("floor", array)

    def sigmoid(self, array: Traced) -> Traced:
        """1/(1 + e^-x), without overflow and without loss of digits for large negative x."""
        decayed = self.exp(-self.abs(array))
        return self.where(array >= 0, 1.0 + 0 * decayed, decayed) / (1 + decayed)

    def isfinite(self, array: Traced) -> Traced:
        """Whether it is neither NaN nor infinite."""
        return self.body.statement(f"{self.body.dialect.functions['isfinite']}({array.name})", BOOL)
