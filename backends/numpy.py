"""NumPy backend: the embedded default, needing nothing that the core does not install."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from neko_rules.backend import Array, Arrays, Parameters, ScanBody
from neko_rules.errors import BackendError
from neko_rules.threads import blas_on_one_thread, each, parts_of_product, products_are_shared_out

# The ufuncs' own reductions: np.sum and the like take longer to get there than to add up a few numbers.
_add: Any = np.add.reduce
_maximum: Any = np.maximum.reduce
_logical_or: Any = np.logical_or.reduce
_logical_and: Any = np.logical_and.reduce


class NumpyBackend:
    """NumPy on the CPU: no compilation, no automatic differentiation, always there.

    Example:
        >>> nx = NumpyBackend()
        >>> total, history = nx.scan(lambda c, x: ((c[0] + x[0],), (c[0],)), (np.zeros(1),), (np.ones((3, 1)),), 3)
        >>> total[0].item(), history[0].ravel().tolist()
        (3.0, [0.0, 1.0, 2.0])
    """

    name = "numpy"
    description = "NumPy on the CPU: the embedded default"
    differentiates = False

    @property
    def in_host_memory(self) -> bool:
        # Whoever changes an operation in a subclass wants to see it used, not passed by.
        return type(self) is NumpyBackend

    def host(self, array: Array) -> np.ndarray:
        return array if type(array) is np.ndarray else np.asarray(array)

    def from_host(self, array: np.ndarray) -> Array:
        return array

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        return np.asarray(value, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array)

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, (np.ndarray, np.generic))  # a sum over all axes is a np.generic

    def astype(self, array: Array, dtype: str) -> Array:
        return np.asarray(array).astype(dtype, copy=False)

    def dtype(self, array: Array) -> str:
        return _name(array.dtype)

    def full(self, shape: Sequence[int], value: float, dtype: str) -> Array:
        # Memory that is cleared when somebody looks at it, which of traces before the first step may be nobody.
        return np.zeros(tuple(shape), dtype) if value == 0 else np.full(tuple(shape), value, dtype=dtype)

    def eye(self, size: int, dtype: str) -> Array:
        return np.eye(size, dtype=dtype)

    def arange(self, size: int, dtype: str) -> Array:
        return np.arange(size, dtype=dtype)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        return np.reshape(array, tuple(shape))

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        shape = tuple(shape)
        return array if np.shape(array) == shape else np.broadcast_to(array, shape)

    def matmul(self, a: Array, b: Array) -> Array:
        if not products_are_shared_out() or np.ndim(a) != 2 or np.ndim(b) != 2:
            return np.matmul(a, b)
        rows, inner = a.shape
        columns = b.shape[1]
        ranges = parts_of_product(rows, inner, columns)
        if len(ranges) == 1:
            return np.matmul(a, b)
        product = np.empty((rows, columns), np.result_type(a, b))
        each(lambda _, first, last: np.matmul(a[first:last], b, out=product[first:last]), ranges)
        return product

    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        return np.transpose(array, tuple(axes))

    def expand_dims(self, array: Array, axis: int) -> Array:
        # NumPy's own function is many times as slow as the indexing that it comes down to.
        if axis == 0:
            return array[None]
        return array[..., None] if axis == -1 else np.expand_dims(array, axis)

    where = staticmethod(np.where)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    sqrt = staticmethod(np.sqrt)
    tanh = staticmethod(np.tanh)
    abs = staticmethod(np.abs)
    sign = staticmethod(np.sign)
    floor = staticmethod(np.floor)
    isfinite = staticmethod(np.isfinite)
    maximum = staticmethod(np.maximum)
    minimum = staticmethod(np.minimum)

    def sum(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return _add(array, axis=axis, keepdims=keepdims)

    def max(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return _maximum(array, axis=axis, keepdims=keepdims)

    def any(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return _logical_or(array, axis=axis, keepdims=keepdims)

    def all(self, array: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return _logical_and(array, axis=axis, keepdims=keepdims)

    mean = staticmethod(np.mean)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        return np.concatenate(list(arrays), axis=axis)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        return np.stack(list(arrays), axis=axis)

    def take(self, array: Array, indices: Array, axis: int) -> Array:
        return np.take(array, indices, axis=axis)

    def einsum(self, equation: str, *arrays: Array) -> Array:
        return np.einsum(equation, *arrays, optimize=True)

    def sigmoid(self, array: Array) -> Array:
        # 1/(1+e^-x) overflows for large negative x, and (tanh(x/2)+1)/2 loses all digits there; this does neither.
        decayed = np.exp(-np.abs(array))
        return np.where(array >= 0, 1, decayed) / (1 + decayed)

    def heaviside(self, array: Array) -> Array:
        return np.asarray(array > 0).astype(array.dtype)

    def softplus(self, array: Array) -> Array:
        return np.logaddexp(array, np.zeros((), dtype=array.dtype))

    def argmax(self, array: Array, axis: int) -> Array:
        return np.argmax(array, axis=axis)

    def stop_gradient(self, array: Array) -> Array:
        return array

    def value_and_grad(
        self, function: Callable[[Parameters], Array]
    ) -> Callable[[Parameters], tuple[Array, Parameters]]:
        raise BackendError(
            "the NumPy backend has no automatic differentiation",
            works="use BPTT(model), which computes the same gradient analytically, or backend torch, tensorflow or jax",
        )

    def scan(
        self, body: ScanBody, carry: Arrays, inputs: Arrays, length: int, reverse: bool = False
    ) -> tuple[Arrays, Arrays]:
        history: tuple[Array, ...] | None = None
        for t in reversed(range(length)) if reverse else range(length):
            carry, outputs = body(carry, tuple(array[t] for array in inputs))
            if history is None:
                history = tuple(np.empty((length, *np.shape(out)), dtype=out.dtype) for out in outputs)
            for record, out in zip(history, outputs, strict=True):
                record[t] = out
        assert history is not None, "a scan has at least one step"
        return carry, history

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def quiet(*arguments: Any) -> Any:
            # Like the other libraries: what overflows becomes infinite in silence, and a rule refuses it by name.
            with np.errstate(all="ignore"), blas_on_one_thread():
                return function(*arguments)

        return quiet


@lru_cache(maxsize=32)
def _name(dtype: np.dtype) -> str:
    """The name of a type; NumPy puts it together anew each time, which takes longer than many an operation here."""
    return str(dtype)
