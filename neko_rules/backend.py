"""The Backend protocol: the few array operations that everything else is written in, and how backends are found.

A backend is one object in one file. The four that come with the package live in ``neko_rules.backends``; another
package offers its own through an entry point in the group ``neko_rules.backends`` (name = spelling, value = a class
or function without arguments that returns the backend) and proves it with ``neko_rules.testing.check_backend``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

import numpy as np

from neko_rules.errors import BackendError, nearest
from neko_rules.optional import installed

Array = Any
"""An array of whichever library the backend speaks for."""

Arrays = tuple[Array, ...]

ScanBody = Callable[[Arrays, Arrays], tuple[Arrays, Arrays]]
"""One step of a scan: carry and inputs to the next carry and outputs."""

Parameters = dict[str, Array]
"""Parameters, gradients or updates by name, such as ``hidden.recurrent.weight``."""

ENTRY_POINT_GROUP = "neko_rules.backends"

BUILT_IN = {
    "numpy": ("neko_rules.backends.numpy", "NumpyBackend", "numpy"),
    "torch": ("neko_rules.backends.torch", "TorchBackend", "torch"),
    "tensorflow": ("neko_rules.backends.tensorflow", "TensorflowBackend", "tensorflow"),
    "jax": ("neko_rules.backends.jax", "JaxBackend", "jax"),
}
"""Name of each built-in backend: its module, its class, and the library that it needs."""


@runtime_checkable
class Backend(Protocol):
    """What an array library must offer.

    Arrays also support ``+ - * / **``, unary ``-``, comparisons, ``& | ~`` on booleans, ``.shape``, and indexing by
    integers and slices (no assignment into an array: everything here is functional). ``axis`` may be an integer, a
    tuple of integers, or ``None`` for all axes. Data types are the strings ``"float32"``, ``"float64"``, ``"int64"``,
    ``"int32"`` and ``"bool"``. No operation changes its arguments.

    A Python number beside an array takes the array's type. This is promised inside ``jit``, ``scan`` and
    ``value_and_grad``, where all arithmetic of this package runs; outside, JAX rounds operators to 32 bits.
    """

    name: str
    description: str
    """One line on what it is, for ``neko list backends``."""

    differentiates: bool
    """Whether ``value_and_grad`` works."""

    # Conversion.
    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        """A backend array with the given contents; without a dtype, that of the contents."""

    def to_numpy(self, array: Array) -> np.ndarray:
        """The contents as a NumPy array of the same type that the caller may keep and change."""

    def is_tensor(self, value: Any) -> bool:
        """Whether ``value`` is an array of this backend."""

    def astype(self, array: Array, dtype: str) -> Array:
        """The array with another type (True becomes 1)."""

    def dtype(self, array: Array) -> str:
        """The name of the array's type."""

    # Creation.
    def full(self, shape: Sequence[int], value: float, dtype: str) -> Array:
        """An array filled with one number."""

    def eye(self, size: int, dtype: str) -> Array:
        """The identity matrix."""

    def arange(self, size: int, dtype: str) -> Array:
        """0, 1, … size - 1."""

    # Shape.
    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """The same numbers in another shape, C order; one length may be -1."""

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        """The array repeated to a larger shape by the usual broadcasting."""

    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        """Axes in another order."""

    def expand_dims(self, array: Array, axis: int) -> Array:
        """A new axis of length 1."""

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        """Joined along an axis that exists."""

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """Joined along a new axis."""

    def take(self, array: Array, indices: Array, axis: int) -> Array:
        """The entries at integer ``indices`` (one axis) along ``axis``."""

    def where(self, condition: Array, yes: Array | float, no: Array | float) -> Array:
        """``yes`` where the condition holds, else ``no``; at least one of them is an array."""

    # Linear algebra.
    def matmul(self, left: Array, right: Array) -> Array:
        """Matrix product over the last two axes."""

    def einsum(self, equation: str, *arrays: Array) -> Array:
        """Einstein summation with an explicit output."""

    # Elementwise.
    def exp(self, array: Array) -> Array: ...
    def log(self, array: Array) -> Array: ...
    def sqrt(self, array: Array) -> Array: ...
    def tanh(self, array: Array) -> Array: ...
    def sigmoid(self, array: Array) -> Array: ...
    def softplus(self, array: Array) -> Array: ...
    def abs(self, array: Array) -> Array: ...
    def sign(self, array: Array) -> Array: ...
    def floor(self, array: Array) -> Array: ...
    def isfinite(self, array: Array) -> Array: ...

    def heaviside(self, array: Array) -> Array:
        """1 where the array is positive (strictly), else 0, in the array's type; its derivative is 0 everywhere."""

    def maximum(self, left: Array, right: Array | float) -> Array: ...
    def minimum(self, left: Array, right: Array | float) -> Array: ...

    # Reductions.
    def sum(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array: ...
    def mean(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array: ...
    def max(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array: ...
    def any(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array: ...
    def all(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array: ...

    def argmax(self, array: Array, axis: int) -> Array:
        """Index of the largest entry along one axis, the first one on ties, as int64."""

    # Automatic differentiation.
    def stop_gradient(self, array: Array) -> Array:
        """The same numbers, constant for differentiation."""

    def value_and_grad(
        self, function: Callable[[Parameters], Array]
    ) -> Callable[[Parameters], tuple[Array, Parameters]]:
        """A scalar function of a dict of arrays, made to return its value and its gradient (0 for unused entries)."""

    # Control.
    def scan(
        self, body: ScanBody, carry: Arrays, inputs: Arrays, length: int, reverse: bool = False
    ) -> tuple[Arrays, Arrays]:
        """Step ``carry, outputs_t = body(carry, inputs_t)`` over the first axis of every input.

        Returns the last carry and the outputs stacked along a new first axis, in the order of the inputs also when
        the steps are taken in reverse. ``inputs`` may be empty, ``length`` is at least 1, and a carry keeps its
        shapes and types.
        """

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled, if the library compiles; no gradient flows into or out of it.

        Arguments and result are arrays, or dicts and tuples of such, nested as needed; a dict in the arguments or the
        result keeps its keys.
        """


def available() -> dict[str, Any]:
    """Every backend that can be named: the built-in ones, then those of entry points, with where each comes from."""
    found: dict[str, Any] = dict(BUILT_IN)
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, entry)
    return found


_instances: dict[str, Backend] = {}


def get_backend(backend: str | Backend) -> Backend:
    """A backend by name, or the given backend itself.

    Raises:
        BackendError: the name is unknown, or the array library it needs is not installed (it says which extra to
            install).

    Example:
        >>> nx = get_backend("numpy")
        >>> nx.maximum(nx.asarray([-1.0, 2.0]), 0.0)
        array([0., 2.])
    """
    if not isinstance(backend, str):
        if isinstance(backend, Backend):
            return backend
        lacks = [n for n in (*Backend.__annotations__, *vars(Backend)) if n[0] != "_" and not hasattr(backend, n)]
        raise BackendError(
            "a backend must be a name or an object that has every Backend operation",
            received=backend,
            works=f"it lacks {', '.join(lacks[:5])}{' …' if len(lacks) > 5 else ''}",
        )
    if backend not in _instances:
        found = available()
        if backend not in found:
            raise BackendError("unknown backend", received=backend, works=nearest(backend, found))
        source = found[backend]
        _instances[backend] = _built_in(backend, *source) if isinstance(source, tuple) else get_backend(source.load()())
    return _instances[backend]


def goes_by_name(nx: Backend) -> bool:
    """Whether the name of a backend stands for this very one, and not for another with other options."""
    return nx.name in available() and get_backend(nx.name) is nx


def _built_in(name: str, module: str, cls: str, library: str) -> Backend:
    try:
        return getattr(importlib.import_module(module), cls)()
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise BackendError(
            f"backend {name!r} needs the library {library!r}, which is not installed",
            works=f"install it with pip install 'neko_rules[{name}]'",
        ) from error


def is_installed(name: str) -> bool:
    """Whether a backend's library can be imported here, without importing it."""
    source = available()[name]
    return not isinstance(source, tuple) or installed(source[2])


# Derived operations: written once, in terms of the protocol.


def given(nx: Backend, value: np.ndarray, dtype: str | None = None) -> Array:
    """An array as an argument of a function that ``nx.jit`` has made.

    Compiled functions of JAX take NumPy arrays as they are, in a tenth of the time in which ``asarray`` makes an array
    of its own of one. A backend says so by a method ``given``; it is no part of the protocol.

    Args:
        nx: backend.
        value: the array.
        dtype: its type, if it is to have another.
    """
    convert: Callable[..., Array] = getattr(nx, "given", nx.asarray)
    return convert(value, dtype)


def log_softmax(nx: Backend, logits: Array) -> Array:
    """log softmax over the last axis, shifted by the maximum so that no exponential overflows.

    Example:
        >>> log_softmax(get_backend("numpy"), np.array([1000.0, 1000.0])).round(4)
        array([-0.6931, -0.6931])
    """
    shifted = logits - nx.max(logits, axis=-1, keepdims=True)
    return shifted - nx.log(nx.sum(nx.exp(shifted), axis=-1, keepdims=True))


def softmax(nx: Backend, logits: Array) -> Array:
    """softmax over the last axis; it shares its exponentials with ``log_softmax`` where a loop computes both."""
    exponentials = nx.exp(logits - nx.max(logits, axis=-1, keepdims=True))
    return exponentials / nx.sum(exponentials, axis=-1, keepdims=True)


def shift_later(nx: Backend, array: Array) -> Array:
    """``array[t - 1]`` at every ``t``, with zeros at ``t = 0``: states and spikes before the start are zero.

    Example:
        >>> shift_later(get_backend("numpy"), np.array([[1.0], [2.0]])).ravel()
        array([0., 1.])
    """
    first = nx.full((1, *array.shape[1:]), 0.0, nx.dtype(array))
    return nx.concat([first, array[:-1]], 0)


def global_norm(nx: Backend, tree: Mapping[str, Array]) -> Array:
    """Euclidean norm of all entries of a dict of arrays taken as one vector.

    Scaled by the largest entry, so that squares neither overflow nor vanish.

    Example:
        >>> norm = global_norm(get_backend("numpy"), {"w": np.array([3e30, 4e30], np.float32)})
        >>> round(float(norm) / 1e30, 4)
        5.0
    """
    filled = [array for array in tree.values() if 0 not in array.shape]
    if not filled:
        return nx.sum(next(iter(tree.values())))
    largest: Array = nx.max(nx.stack([nx.max(nx.abs(array)) for array in filled], 0))
    scale = nx.where(largest > 0, largest, nx.full((), 1.0, nx.dtype(largest)))
    total: Array = 0.0
    for array in filled:
        total = total + nx.sum((array / scale) ** 2)
    return scale * nx.sqrt(total)
