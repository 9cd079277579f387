"""Conformance of a backend: every operation of the protocol against NumPy in float64, and every rule that it states.

Operations are compared with NumPy expressions for both float types at sizes 0, 1 and those of real networks
(``backend_operations``); ``BEHAVIOURS`` and ``DERIVATIVES`` are the rules that are not one number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neko_rules.backend import Array, Backend, Parameters, get_backend
from neko_rules.errors import BackendError
from neko_rules.testing.backend_operations import (
    BATCH,
    CASES,
    NEURONS,
    REAL,
    ROUNDING,
    Trial,
    compiled_together,
    numbers,
    same,
    typed,
)

FLOATS = ("float32", "float64")


def check_backend(backend: str | Backend) -> None:
    """Prove a backend against the protocol: values, types, scans, compilation and derivatives.

    Args:
        backend: a name that ``get_backend`` knows, or a backend object.

    Raises:
        AssertionError: something differs; it lists every failure with operation, type and largest difference.
        BackendError: the name is unknown, or the object lacks an operation.

    Example:
        >>> check_backend("numpy")
        >>> from neko_rules.backends.numpy import NumpyBackend
        >>> class Late(NumpyBackend):
        ...     name = "late"
        ...     def arange(self, size, dtype):
        ...         return super().arange(size, dtype) + 1
        >>> check_backend(Late())
        Traceback (most recent call last):
        AssertionError: backend 'late' fails 8 checks:
        - arange, float32, shapes []: largest difference 1
        ...
    """
    nx = get_backend(backend)
    if not __debug__:
        raise BackendError("check_backend needs assertions", works="run Python without -O")
    failures = [failure for failure in _failures(nx) if failure]
    numbers.cache_clear()
    if failures:
        count = f"{len(failures)} check{'s' if len(failures) > 1 else ''}"
        raise AssertionError(f"backend {nx.name!r} fails {count}:\n" + "\n".join(f"- {line}" for line in failures))


def _failures(nx: Backend) -> Iterator[str]:
    """A line for every check that fails, and an empty string for every one that holds."""
    for dtype in FLOATS:
        trials = [Trial(case, dtype, size) for case in CASES for size in range(len(case.shapes))]
        together = compiled_together(nx, [trial for trial in trials if trial.compiled])
        for trial in trials:
            yield _attempt(str(trial), trial.check, nx, together.get(trial))
        for behaviour in BEHAVIOURS + (DERIVATIVES if nx.differentiates else (refuses_to_differentiate,)):
            yield _attempt(f"{behaviour.__name__.replace('_', ' ')}, {dtype}", behaviour, nx, dtype)


def _attempt(what: str, check: Callable[..., None], *arguments: Any) -> str:
    try:
        check(*arguments)
    except AssertionError as error:
        return f"{what}: {error}"
    except Exception as error:  # A library has its own errors; the others are checked nevertheless.
        return f"{what}: raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


# Rules that are not one number.


def describes_itself(nx: Backend, dtype: str) -> None:
    """It has a name and a description, and knows its own arrays."""
    for text in (nx.name, nx.description):
        assert isinstance(text, str), "name and description must be strings"
        assert text, "name and description must not be empty"
    assert isinstance(nx.differentiates, bool), "differentiates must be True or False"
    for other in (1.0, [1.0], "x", None):
        assert not nx.is_tensor(other), f"is_tensor takes {other!r} for an array"


def asarray_keeps_the_type_of_the_contents(nx: Backend, dtype: str) -> None:
    """Without a dtype, Python floats become float64 and whole numbers int64, as in NumPy."""
    typed(nx, nx.asarray([0.1]), "float64")
    typed(nx, nx.asarray([1, 2]), "int64")
    typed(nx, nx.asarray([True]), "bool")
    typed(nx, nx.asarray(0.5), "float64")
    typed(nx, nx.asarray(np.ones(2, dtype)), dtype)
    typed(nx, nx.asarray(nx.asarray(np.ones(2, dtype))), dtype)
    same(nx.to_numpy(nx.asarray([0.1])), [0.1])
    assert nx.asarray(0.5).shape == (), "a number must become an array without axes"


def asarray_and_astype_convert(nx: Backend, dtype: str) -> None:
    """Every type converts into every other, from NumPy and from an array of the backend."""
    for start in ("bool", "int32", "int64", "float32", "float64"):
        for array in (np.array([0, 1], start), nx.asarray(np.array([0, 1], start))):
            typed(nx, nx.asarray(array, dtype), dtype)
            same(nx.to_numpy(nx.asarray(array, dtype)), [0, 1])
        for end in ("bool", "int32", "int64", "float32", "float64"):
            converted = nx.astype(nx.asarray([0, 1], start), end)
            typed(nx, converted, end)
            same(nx.to_numpy(converted), [0, 1])
    same(nx.to_numpy(nx.astype(nx.asarray([-1.7, 1.7], dtype), "int64")), [-1, 1])


def asarray_takes_any_layout_of_memory(nx: Backend, dtype: str) -> None:
    """Read-only, transposed, reversed and broadcast arrays are taken without a warning."""
    array = np.arange(6.0).reshape(2, 3).astype(dtype)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layout in (array, array.T, array[:, ::-1], np.broadcast_to(array[0], (4, 3)), array[1, 2]):
            same(nx.to_numpy(nx.asarray(layout)), layout)


def to_numpy_gives_a_copy(nx: Backend, dtype: str) -> None:
    """What leaves the backend may be changed by whoever received it."""
    array = nx.full((3,), 1.0, dtype)
    copy = nx.to_numpy(array)
    assert type(copy) is np.ndarray, f"{type(copy).__name__} instead of a NumPy array"
    copy[:] = 7.0
    same(nx.to_numpy(array), np.ones(3))


def integers_stay_integers(nx: Backend, dtype: str) -> None:
    """Counters beyond 32 bits keep their value."""
    doubled = nx.jit(lambda count: count * 2 + 1)(nx.asarray([2**40, 3], "int64"))
    typed(nx, doubled, "int64")
    same(nx.to_numpy(doubled), [2**41 + 1, 7])
    typed(nx, nx.sum(nx.asarray([1, 2], "int64")), "int64")


def _leaky(nx: Backend, dtype: str, reverse: bool, shape: tuple[int, ...], compiled: bool) -> None:
    """A leaky recurrent layer with a counter: two carries of different type, one of which is not an output."""
    time, batch, neurons = shape
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(dtype)
    mask = (rng.uniform(size=(time, batch, 1)) > 0.3).astype(dtype)
    V = (rng.normal(size=(neurons, neurons)) / (2 * np.sqrt(neurons))).astype(dtype)

    def run(x: Array, mask: Array, V: Array, v: Array, count: Array) -> Any:
        def body(carry: tuple[Array, ...], step: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            (v, count), (x_t, mask_t) = carry, step
            new = nx.tanh(0.9 * v + nx.matmul(v, V) + x_t) * mask_t
            return (new, count + 1), (count, v, new)

        return nx.scan(body, (v, count), (x, mask), time, reverse)

    start = (nx.full((batch, neurons), 0.5, dtype), nx.asarray(0, "int64"))
    run = nx.jit(run) if compiled else run
    (v, count), outputs = run(nx.asarray(x), nx.asarray(mask), nx.asarray(V), *start)

    state = np.full((batch, neurons), 0.5)
    expected = {"count": np.zeros(time), "before": np.zeros(shape), "after": np.zeros(shape)}
    for k, t in enumerate(reversed(range(time)) if reverse else range(time)):
        expected["count"][t], expected["before"][t] = k, state
        state = np.tanh(0.9 * state + state @ V.astype(float) + x[t].astype(float)) * mask[t]
        expected["after"][t] = state
    for array, name, kind in zip(outputs, expected, ("int64", dtype, dtype), strict=True):
        typed(nx, array, kind)
        same(nx.to_numpy(array), expected[name], {"float32": 1e-4, "float64": 1e-12}[dtype])
    same(nx.to_numpy(v), state, {"float32": 1e-4, "float64": 1e-12}[dtype])
    typed(nx, v, dtype)
    same(nx.to_numpy(count), time)


def scan_forward_at_real_size(nx: Backend, dtype: str) -> None:
    """Outputs in the order of time, the last carry after the last step."""
    _leaky(nx, dtype, False, REAL, compiled=True)


def scan_in_reverse_at_real_size(nx: Backend, dtype: str) -> None:
    """Steps from the last to the first, outputs still in the order of the inputs."""
    _leaky(nx, dtype, True, REAL, compiled=True)


def scan_of_one_step(nx: Backend, dtype: str) -> None:
    """The shortest sequence."""
    for reverse in (False, True):
        _leaky(nx, dtype, reverse, (1, 2, 3), compiled=True)


def scan_of_an_empty_batch(nx: Backend, dtype: str) -> None:
    """A batch without samples keeps its shapes."""
    _leaky(nx, dtype, True, (3, 0, 2), compiled=True)


def scan_without_inputs(nx: Backend, dtype: str) -> None:
    """A recurrence that is driven by nothing."""
    powers = nx.jit(lambda start: nx.scan(lambda carry, _: ((carry[0] * 2.0,), carry), (start,), (), 5, True))
    (last,), (history,) = powers(nx.full((2,), 1.0, dtype))
    same(nx.to_numpy(last), [32, 32])
    same(nx.to_numpy(history), np.repeat([[16], [8], [4], [2], [1]], 2, axis=1))


def scan_without_outputs(nx: Backend, dtype: str) -> None:
    """A recurrence of which only the last state is wanted."""
    total = nx.jit(lambda x: nx.scan(lambda carry, step: ((carry[0] + step[0],), ()), (x[0],), (x,), 3))
    (last,), outputs = total(nx.asarray([1.0, 2.0, 4.0], dtype))
    same(nx.to_numpy(last), 8)
    assert tuple(outputs) == (), f"{len(outputs)} outputs instead of none"


def scan_outside_of_jit(nx: Backend, dtype: str) -> None:
    """The same numbers when nothing is compiled."""
    for reverse in (False, True):
        _leaky(nx, dtype, reverse, (4, 2, 3), compiled=False)


def jit_of_nested_dicts_and_tuples(nx: Backend, dtype: str) -> None:
    """Arguments and results are trees, which keep their form."""

    def swap(tree: dict[str, Any], pair: tuple[Array, Array]) -> tuple[Any, ...]:
        return {"b": tree["z"]["x"] * 2.0, "a": (pair[1], {"n": pair[0] + tree["y"][0]})}, tree["y"][0]

    one, two = nx.full((2,), 1.0, dtype), nx.full((2,), 2.0, dtype)
    result, plain = nx.jit(swap)({"z": {"x": one}, "y": (one,)}, (one, two))
    assert sorted(dict(result)) == ["a", "b"], "a dict must keep its keys"
    assert isinstance(result["a"], tuple), "a tuple must stay a tuple"
    for array, expected in ((result["b"], 2), (result["a"][0], 2), (result["a"][1]["n"], 2), (plain, 1)):
        typed(nx, array, dtype)
        same(nx.to_numpy(array), [expected] * 2)


def jit_with_changing_sizes_and_values(nx: Backend, dtype: str) -> None:
    """A compiled function serves another batch size and does not remember old values."""
    function = nx.jit(lambda x: nx.sum(x * 2.0, axis=(1, 2)))
    for batch, value in ((3, 1.0), (1, 1.0), (0, 1.0), (3, 5.0)):
        same(nx.to_numpy(function(nx.full((batch, 2, 2), value, dtype))), np.full(batch, 8 * value))


BEHAVIOURS: tuple[Callable[[Backend, str], None], ...] = (
    describes_itself,
    asarray_keeps_the_type_of_the_contents,
    asarray_and_astype_convert,
    asarray_takes_any_layout_of_memory,
    to_numpy_gives_a_copy,
    integers_stay_integers,
    scan_forward_at_real_size,
    scan_in_reverse_at_real_size,
    scan_of_one_step,
    scan_of_an_empty_batch,
    scan_without_inputs,
    scan_without_outputs,
    scan_outside_of_jit,
    jit_of_nested_dicts_and_tuples,
    jit_with_changing_sizes_and_values,
)


# Derivatives.


def refuses_to_differentiate(nx: Backend, dtype: str) -> None:
    """A backend without automatic differentiation says so."""
    try:
        nx.value_and_grad(lambda parameters: nx.sum(parameters["w"]))
    except BackendError:
        return
    raise AssertionError("a backend that does not differentiate must say so with a BackendError")


def _gradient(nx: Backend, function: Callable[[Parameters], Array], parameters: dict[str, np.ndarray]) -> Any:
    """Value and gradient as NumPy arrays, which must be the same within a compiled function and outside of one."""
    given = {name: nx.asarray(array) for name, array in parameters.items()}
    eager, compiled = nx.value_and_grad(function)(given), nx.jit(nx.value_and_grad(function))(given)
    for value, gradient in (eager, compiled):
        assert tuple(value.shape) == (), f"the value has shape {tuple(value.shape)} instead of none"
        assert sorted(gradient) == sorted(parameters), (
            f"gradients of {sorted(gradient)} instead of {sorted(parameters)}"
        )
        for name, array in gradient.items():
            typed(nx, array, str(parameters[name].dtype))
            assert tuple(array.shape) == parameters[name].shape, f"gradient of shape {tuple(array.shape)}"
    numbers = [(nx.to_numpy(value), {n: nx.to_numpy(a) for n, a in grad.items()}) for value, grad in (eager, compiled)]
    for name, array in numbers[0][1].items():
        same(numbers[1][1][name], array, 1e-5 * np.abs(array).max(initial=1.0) if array.dtype == np.float32 else 1e-12)
    return numbers[0]


def gradient_in_closed_form(nx: Backend, dtype: str) -> None:
    """d/dW of |xW|² is 2xᵀxW."""
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(BATCH, NEURONS)).astype(dtype), rng.normal(size=(NEURONS, 3)).astype(dtype)
    inputs = nx.asarray(x)
    value, gradient = _gradient(nx, lambda p: nx.sum(nx.matmul(inputs, p["w"]) ** 2), {"w": w})
    product = x.astype(float) @ w.astype(float)
    same(value, np.sum(product**2), ROUNDING[dtype] * np.sum(product**2))
    same(gradient["w"], 2 * x.T @ product, ROUNDING[dtype] * 100 * np.abs(product).max())


def gradient_of_an_unused_parameter_is_zero(nx: Backend, dtype: str) -> None:
    """Zeros, never a missing entry, also behind stop_gradient."""
    parameters = {"used": np.ones(2, dtype), "unused": np.ones((3, 2), dtype)}
    _, gradient = _gradient(nx, lambda p: nx.sum(p["used"]), parameters)
    same(gradient["used"], np.ones(2))
    same(gradient["unused"], np.zeros((3, 2)))
    _, gradient = _gradient(nx, lambda p: nx.sum(nx.stop_gradient(p["used"])), parameters)
    same(gradient["used"], np.zeros(2))


def gradient_of_one_array_under_two_names(nx: Backend, dtype: str) -> None:
    """Gradients belong to names, not to the arrays in memory."""
    array = nx.full((2,), 3.0, dtype)
    _, gradient = nx.value_and_grad(lambda p: nx.sum(p["a"] * nx.stop_gradient(p["b"])))({"a": array, "b": array})
    same(nx.to_numpy(gradient["a"]), [3, 3])
    same(nx.to_numpy(gradient["b"]), [0, 0])


def gradient_through_take(nx: Backend, dtype: str) -> None:
    """Entries taken twice count twice."""
    chosen = nx.asarray([2, 0, 2], "int64")
    _, gradient = _gradient(nx, lambda p: nx.sum(nx.take(p["w"], chosen, 0)), {"w": np.ones((3, 2), dtype)})
    same(gradient["w"], [[1, 1], [0, 0], [2, 2]])


def gradient_through_scan_by_central_differences(nx: Backend, dtype: str) -> None:
    """Backpropagation through time equals the slope of the loss, in both directions."""
    if dtype == "float32":
        return  # too coarse for differences
    rng = np.random.default_rng(3)
    time, batch, neurons = 20, 3, 4
    x = nx.asarray(rng.normal(size=(time, batch, neurons)))
    target = nx.asarray(rng.normal(size=(time, batch, neurons)))
    point = {"V": rng.normal(size=(neurons, neurons)) / 2, "start": rng.normal(size=(batch, neurons))}

    def loss(reverse: bool) -> Callable[[Parameters], Array]:
        def function(p: Parameters) -> Array:
            def body(carry: tuple[Array, ...], step: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
                state = nx.tanh(nx.matmul(carry[0], p["V"]) + step[0])
                return (state,), (nx.softplus(state) * nx.sigmoid(state),)

            (last,), (history,) = nx.scan(body, (p["start"],), (x,), time, reverse)
            return nx.sum((history - target) ** 2) + nx.sum(nx.exp(last))

        return function

    for reverse in (False, True):
        _, gradient = _gradient(nx, loss(reverse), point)
        value = nx.jit(loss(reverse))
        for name in point:
            differences = _central_differences(nx, value, point, name)
            same(gradient[name], differences, 1e-7 * np.abs(differences).max())
            assert np.abs(differences).max() > 1e-3, "the comparison needs a gradient"


def _central_differences(nx: Backend, value: Callable[..., Array], point: dict[str, Any], name: str) -> np.ndarray:
    step, slopes = 1e-5, np.zeros_like(point[name])
    for index in np.ndindex(slopes.shape):
        ends = []
        for sign in (1, -1):
            moved = {key: array.copy() for key, array in point.items()}
            moved[name][index] += sign * step
            ends.append(float(nx.to_numpy(value({key: nx.asarray(array) for key, array in moved.items()}))))
        slopes[index] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def spike_is_exact_and_has_its_surrogate_derivative(nx: Backend, dtype: str) -> None:
    """A spike is 0 or 1 to the last bit, and its derivative is the surrogate."""
    u = np.array([-1000.0, -1.5, -0.7, -1e-7, 0.0, 1e-7, 0.1, 0.9999, 3.3, 1e6], dtype)

    def spike(u: Array) -> Array:
        psi = 0.3 * nx.maximum(1.0 - nx.abs(u), 0.0)
        return nx.heaviside(u) + nx.stop_gradient(psi) * (u - nx.stop_gradient(u))

    same(nx.to_numpy(nx.jit(spike)(nx.asarray(u))), u > 0)
    _, gradient = _gradient(nx, lambda p: nx.sum(spike(p["u"])), {"u": u})
    same(gradient["u"], 0.3 * np.maximum(1 - np.abs(u), 0), np.finfo(dtype).eps)


DERIVATIVES: tuple[Callable[[Backend, str], None], ...] = (
    gradient_in_closed_form,
    gradient_of_an_unused_parameter_is_zero,
    gradient_of_one_array_under_two_names,
    gradient_through_take,
    gradient_through_scan_by_central_differences,
    spike_is_exact_and_has_its_surrogate_derivative,
)
