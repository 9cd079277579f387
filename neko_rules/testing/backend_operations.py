"""The operations of a backend in numbers: a table of cases, each beside the NumPy expression that it must equal."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend

ROUNDING = {"float32": 1e-5, "float64": 1e-12}
"""Largest error allowed, relative to the sum of the absolute values of all terms that were added."""

ELEMENTARY = {"float32": 2e-6, "float64": 1e-12}
"""Largest error allowed of one elementary function, relative to its value."""

TIME, BATCH, NEURONS = 100, 32, 256

MANY = 512
"""A batch beyond the size (batch times outputs of 4096) at which jaxlib 0.10.2 was found to sum wrongly."""

REAL = (TIME, BATCH, NEURONS)


# Comparison.


def same(got: Any, expected: Any, allowed: Any = 0.0) -> None:
    """Equal shape, and every entry within ``allowed`` of what was expected (NaN is equal to NaN)."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape} instead of {expected.shape}"
    if got.dtype == bool or expected.dtype == bool:
        got, expected = got.astype(int), expected.astype(int)
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((got == expected) | (np.isnan(got) & np.isnan(expected)), 0.0, np.abs(got - expected))
    wrong = ~(difference <= allowed)
    assert not wrong.any(), f"largest difference {np.max(difference[wrong]):.3g}"


def typed(nx: Backend, array: Array, dtype: str) -> None:
    """An array of this backend whose type has the given name, also after leaving the backend."""
    assert nx.is_tensor(array), f"{type(array).__name__} instead of an array of the backend"
    assert nx.dtype(array) == dtype, f"type {nx.dtype(array)} instead of {dtype}"
    assert str(nx.to_numpy(array).dtype) == dtype, f"to_numpy gives type {nx.to_numpy(array).dtype} instead of {dtype}"


# Operations in numbers.


@dataclass(frozen=True)
class Case:
    """One operation on arrays of given shapes, and the NumPy expression that it must equal.

    Args:
        name: the operation, and the variant of it.
        call: the operation on a backend, the name of the float type, and arrays.
        reference: the same in NumPy on float64.
        shapes: the shapes of the arrays, once per size at which it is tried.
        data: which numbers the arrays hold, a key of ``DATA``.
        dtype: type of the result, if it is not that of the arrays.
        summed: whether terms are added, so that their order may change the last digits.
        operators: whether operators are used, which a backend promises inside compiled functions only. The other
            operations are called directly, and at the last of the sizes compiled.
    """

    name: str
    call: Callable[..., Array]
    reference: Callable[..., Any]
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    data: str = "normal"
    dtype: str = ""
    summed: bool = False
    operators: bool = False


DATA: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "moderate": lambda rng, shape: rng.uniform(-20, 20, size=shape),
    "positive": lambda rng, shape: rng.uniform(1e-3, 1e3, size=shape),
    "extreme": lambda rng, shape: rng.permutation(np.resize([-1000, -90, -40, -1, -1e-8, 0, 1e-3, 20, 1000.0], shape)),
    "exact": lambda rng, shape: rng.integers(1, 100, size=shape) / 8,
    "ties": lambda rng, shape: rng.integers(-1, 2, size=shape) * 1.0,
    "non-finite": lambda rng, shape: rng.choice([0.0, 1.0, np.nan, np.inf, -np.inf], size=shape),
}


@lru_cache(maxsize=64)
def numbers(data: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random numbers of one kind; drawing them anew for every case would take most of the time."""
    return DATA[data](np.random.default_rng(seed), shape)


@dataclass(frozen=True)
class Trial:
    """A case at one of its sizes, in one float type."""

    case: Case
    dtype: str
    size: int

    def __str__(self) -> str:
        how = "compiled, " if self.compiled else ""
        return f"{self.case.name}, {how}{self.dtype}, shapes {list(self.case.shapes[self.size])}"

    @property
    def compiled(self) -> bool:
        """Whether it is called through ``jit``."""
        return self.case.operators or self.size == len(self.case.shapes) - 1

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The same numbers every time, in memory of their own."""
        shapes = self.case.shapes[self.size]
        return tuple(numbers(self.case.data, shape, i).astype(self.dtype) for i, shape in enumerate(shapes))

    def run(self, nx: Backend, *given: Array) -> Array:
        """The operation on arrays of the backend."""
        return self.case.call(nx, self.dtype, *given)

    def check(self, nx: Backend, outcome: tuple[Array, tuple[Array, ...]] | None) -> None:
        """Compare a result, which is computed here if it is not given together with the arguments it came from."""
        case, arrays = self.case, self.arrays()
        if outcome is None:
            given = tuple(nx.asarray(array) for array in self.arrays())
            result = nx.jit(partial(self.run, nx))(*given) if self.compiled else self.run(nx, *given)
        else:
            result, given = outcome
        for array, after in zip(arrays, given, strict=True):
            assert np.array_equal(array, nx.to_numpy(after), equal_nan=True), "changed its argument"
        typed(nx, result, case.dtype or self.dtype)
        wide = [array.astype(np.float64) for array in arrays]
        expected = np.asarray(case.reference(*wide))
        if case.summed:
            allowed = ROUNDING[self.dtype] * np.abs(case.reference(*(np.abs(array) for array in wide)))
        else:
            # Below the smallest normal number a library may round to zero.
            finite = np.where(np.isfinite(expected), expected, 0)
            allowed = ELEMENTARY[self.dtype] * np.abs(finite) + np.finfo(self.dtype).tiny
        same(nx.to_numpy(result), expected, allowed)


def compiled_together(nx: Backend, trials: Sequence[Trial]) -> dict[Trial, tuple[Array, tuple[Array, ...]]]:
    """Results and arguments of many trials in one program, since compilers take far longer for as many small ones.

    Where that fails there are no results, and each trial is then compiled alone to find out which it was.
    """

    def program(*arguments: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(trial.run(nx, *given) for trial, given in zip(trials, arguments, strict=True))

    try:
        given = [tuple(nx.asarray(array) for array in trial.arrays()) for trial in trials]
        return dict(zip(trials, zip(nx.jit(program)(*given), given, strict=True), strict=True))
    except Exception:  # whatever the library raises
        return {}


ONE = (((0, 3),), ((1, 1),), ((BATCH, NEURONS),))
TWO = tuple(shapes * 2 for shapes in ONE)


def _elementwise() -> Iterator[Case]:
    def case(name: str, reference: Callable[..., Any], data: str, dtype: str = "") -> Case:
        return Case(name, lambda nx, _, x: getattr(nx, name)(x), reference, ONE, data, dtype)

    yield case("exp", np.exp, "moderate")
    yield case("log", np.log, "positive")
    yield case("sqrt", np.sqrt, "positive")
    yield case("tanh", np.tanh, "extreme")
    yield case("sigmoid", lambda x: np.exp(-np.logaddexp(0, -x)), "extreme")
    yield case("softplus", lambda x: np.logaddexp(0, x), "extreme")
    yield case("softplus", lambda x: np.logaddexp(0, x), "moderate")
    yield case("abs", np.abs, "extreme")
    yield case("sign", np.sign, "ties")
    yield case("floor", np.floor, "moderate")
    yield case("heaviside", lambda x: (x > 0).astype(x.dtype), "ties")
    yield case("isfinite", np.isfinite, "non-finite", "bool")
    yield case("stop_gradient", lambda x: x, "normal")
    for name, reference in (("maximum", np.maximum), ("minimum", np.minimum)):
        yield Case(name, lambda nx, _, x, y, name=name: getattr(nx, name)(x, y), reference, TWO, "ties")
        clipped = lambda nx, _, x, name=name: getattr(nx, name)(x, 0.1)  # noqa: E731
        yield Case(f"{name} with a number", clipped, lambda x, f=reference: f(x, 0.1), ONE, "ties")
    choices: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
        ("where", lambda nx, _, x, y: nx.where(x > y, x, y), lambda x, y: np.where(x > y, x, y)),
        ("where with a number", lambda nx, _, x, y: nx.where(y > x, x, 0.0), lambda x, y: np.where(y > x, x, 0)),
        ("where with a number", lambda nx, _, x, y: nx.where(y > x, 2, x), lambda x, y: np.where(y > x, 2, x)),
    )
    for name, call, chosen in choices:
        yield Case(name, call, chosen, TWO, operators=True)


def _reductions() -> Iterator[Case]:
    empty: tuple[tuple[tuple[int, ...], ...], ...] = (((0, 3),),)
    filled: tuple[tuple[tuple[int, ...], ...], ...] = (((1, 1),), (REAL,))
    places: tuple[tuple[str, dict[str, Any]], ...] = (
        ("all axes", {}),
        ("axis 0", {"axis": 0}),
        ("last axis, kept", {"axis": -1, "keepdims": True}),
        ("two axes", {"axis": (0, 1)}),
        ("all axes, kept", {"axis": None, "keepdims": True}),
    )
    for place, options in places:
        for name, shapes, summed in (("sum", empty + filled, True), ("mean", filled, True), ("max", filled, False)):
            yield Case(
                f"{name} over {place}",
                lambda nx, _, x, name=name, options=options: getattr(nx, name)(x, **options),
                lambda x, name=name, options=options: getattr(np, name)(x, **options),
                shapes,
                summed=summed,
            )
        for name, level in (("any", 3.0), ("all", -3.0)):
            yield Case(
                f"{name} over {place}",
                lambda nx, _, x, name=name, options=options, level=level: getattr(nx, name)(x > level, **options),
                lambda x, name=name, options=options, level=level: getattr(np, name)(x > level, **options),
                empty + filled,
                dtype="bool",
                operators=True,
            )
    for axis in (0, -1):
        yield Case(
            f"argmax over axis {axis}",
            lambda nx, _, x, axis=axis: nx.argmax(x, axis),
            lambda x, axis=axis: np.argmax(x, axis),
            filled,
            "ties",
            "int64",
        )


def _shapes_and_creation() -> Iterator[Case]:
    last = (((0, 3),), ((1, 1),), ((MANY, NEURONS),))
    pairs = tuple(shapes * 2 for shapes in last)
    yield Case("reshape", lambda nx, _, x: nx.reshape(x, (-1,)), np.ravel, ONE)
    yield Case("reshape", lambda nx, _, x: nx.reshape(x, (*x.shape, 1)), lambda x: x[..., None], ONE)
    yield Case(
        "broadcast_to",
        lambda nx, _, x: nx.broadcast_to(x, (2, *x.shape)),
        lambda x: np.broadcast_to(x, (2, *x.shape)),
        ONE,
    )
    yield Case("transpose", lambda nx, _, x: nx.transpose(x, (1, 0)), np.transpose, last)
    yield Case("expand_dims", lambda nx, _, x: nx.expand_dims(x, 1), lambda x: x[:, None], last)
    yield Case("expand_dims", lambda nx, _, x: nx.expand_dims(x, -1), lambda x: x[..., None], last)
    yield Case("concat", lambda nx, _, x, y: nx.concat([x, y], 0), lambda x, y: np.concatenate([x, y]), pairs)
    yield Case("concat", lambda nx, _, x, y: nx.concat([x, y], -1), lambda x, y: np.concatenate([x, y], -1), pairs)
    yield Case("stack", lambda nx, _, x, y: nx.stack([x, y], 0), lambda x, y: np.stack([x, y]), pairs)
    yield Case("stack", lambda nx, _, x, y: nx.stack((x, y), -1), lambda x, y: np.stack([x, y], -1), pairs)
    for axis in (0, 1):
        for chosen in ([0, 0, 0], []):
            yield Case(
                f"take along axis {axis}",
                lambda nx, _, x, axis=axis, chosen=chosen: nx.take(x, nx.asarray(chosen, "int64"), axis),
                lambda x, axis=axis, chosen=chosen: np.take(x, np.array(chosen, int), axis),
                (((1, 1),), ((MANY, NEURONS),)),
            )
    yield Case(
        "take by argmax",
        lambda nx, _, x: nx.take(x, nx.argmax(x, 0), 0),
        lambda x: np.take(x, np.argmax(x, 0), 0),
        (((MANY, NEURONS),),),
    )
    yield Case("index", lambda nx, _, x: x[0], lambda x: x[0], ONE[1:])
    yield Case("index", lambda nx, _, x: x[:-1, 0:1], lambda x: x[:-1, :1], ONE)
    yield Case("full", lambda nx, dtype: nx.full((2, 0, 3), 1.0, dtype), lambda: np.ones((2, 0, 3)), ((), ()))
    yield Case("full", lambda nx, dtype: nx.full([2, 3], 0.1, dtype), lambda: np.full((2, 3), 0.1), ((), ()))
    yield Case("full", lambda nx, _: nx.full((3,), True, "bool"), lambda: np.ones(3), ((), ()), dtype="bool")
    yield Case("eye", lambda nx, dtype: nx.eye(3, dtype), lambda: np.eye(3), ((), ()))
    yield Case("arange", lambda nx, dtype: nx.arange(3, dtype), lambda: np.arange(3), ((), ()))
    yield Case("arange", lambda nx, _: nx.arange(3, "int64"), lambda: np.arange(3), ((), ()), dtype="int64")


def _linear() -> Iterator[Case]:
    T, B, N = TIME, BATCH, NEURONS
    products: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((1, 1), (1, 1)),
        ((B, N), (N, N)),
        ((T, B, N), (N, N)),
        ((T, B, 4), (T, 4, 3)),
    )
    yield Case("matmul", lambda nx, _, x, y: nx.matmul(x, y), np.matmul, products, summed=True)
    equations: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = (
        ("bi,bj->ij", ((0, 3), (0, 2))),
        ("bi,bj->ij", ((1, 1), (1, 1))),
        ("bi,bj->ij", ((MANY, 128), (MANY, 128))),
        ("tbi,tbj->ij", ((T, B, N), (T, B, N))),
        ("tb,tbi,tbj->ij", ((28, MANY), (28, MANY, 64), (28, MANY, 32))),
        ("tbi,ij->tbj", ((T, B, N), (N, 10))),
        ("bi,bi->b", ((MANY, N), (MANY, N))),
        ("tbi->i", ((T, B, N),)),
        ("ij->ji", ((N, 3),)),
        # Per-sample products, summed over a large batch.
        ("bka,bika->ik", ((MANY, 16, 3), (MANY, 8, 16, 3))),
        ("bka,bika->bik", ((MANY, 16, 3), (MANY, 8, 16, 3))),
    )
    for equation, shapes in equations:
        yield Case(
            f"einsum {equation}",
            lambda nx, _, *arrays, equation=equation: nx.einsum(equation, *arrays),
            lambda *arrays, equation=equation: np.einsum(equation, *arrays, optimize=True),
            (shapes,),
            summed=True,
        )


def _operators() -> Iterator[Case]:
    def case(name: str, function: Callable[..., Any], shapes: Any, data: str, dtype: str = "") -> Case:
        return Case(name, lambda nx, _, *arrays: function(*arrays), function, shapes, data, dtype, operators=True)

    for sign, function in {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}.items():
        yield case(f"x {sign} y", function, TWO, "exact")
        for number in (3, 0.1):
            yield case(f"x {sign} {number}", lambda x, f=function, n=number: f(x, n), ONE, "exact")
            yield case(f"{number} {sign} x", lambda x, f=function, n=number: f(n, x), ONE, "exact")
    yield case("x ** 2", lambda x: x**2, ONE, "normal")
    yield case("x ** 0.5", lambda x: x**0.5, ONE, "positive")
    yield case("-x", operator.neg, ONE, "normal")
    comparisons = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    for sign, function in comparisons.items():
        yield case(f"x {sign} y", function, TWO, "ties", "bool")
        yield case(f"x {sign} 0", lambda x, f=function: f(x, 0), ONE, "ties", "bool")
    yield case("x == y", operator.eq, TWO, "ties", "bool")
    yield case("x != y", operator.ne, TWO, "ties", "bool")
    yield case("& | ~", lambda x, y: ((x > 0) & ~(y > 0)) | (x > y), TWO, "ties", "bool")


CASES = (*_elementwise(), *_reductions(), *_shapes_and_creation(), *_linear(), *_operators())
