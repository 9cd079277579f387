"""JAX backend: compiled by XLA, with 64-bit types inside and the process's own setting left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from neko_rules.backend import Array, Arrays, Parameters, ScanBody

P = ParamSpec("P")
R = TypeVar("R")


def _wide(function: Callable[P, R]) -> Callable[P, R]:
    """Run with 64-bit types enabled, for this thread and this call only.

    ``jax_enable_x64`` is a setting of the whole process that would change what the user's own JAX code computes.
    Entering the context costs about a microsecond.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        with jax.enable_x64(True):
            return function(*arguments, **named)

    return run


@functools.cache
def _on_processor() -> bool:
    return jax.default_backend() == "cpu"


class JaxBackend:
    """JAX with XLA compilation.

    Operators between arrays and numbers (``2.0 * x``) belong into functions given to ``jit``, ``scan`` or
    ``value_and_grad``. Written outside of these they follow the process's own setting, under which JAX cuts a float64
    result to float32, with a warning; the operations of this class never do.

    Example:
        >>> nx = JaxBackend()
        >>> double = nx.jit(lambda tree: {"y": 2.0 * tree["x"]})
        >>> str(double({"x": nx.asarray([0.1], "float64")})["y"].dtype), str(jnp.zeros(1).dtype)
        ('float64', 'float32')
    """

    name = "jax"
    description = "JAX, compiled by XLA"
    differentiates = True

    @property
    def on_processor(self) -> bool:
        """Whether arrays lie in the memory of this process, so that NumPy's loops may take a step in its place."""
        # Whoever changes an operation in a subclass wants to see it used.
        return type(self) is JaxBackend and _on_processor()

    @_wide
    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        return jnp.asarray(value if isinstance(value, jax.Array) else np.asarray(value), dtype)

    def given(self, value: np.ndarray, dtype: str | None = None) -> np.ndarray:
        """What a compiled function takes in the place of an array; see ``neko_rules.backend.given``."""
        return np.asarray(value, dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array)

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, jax.Array)

    @_wide
    def astype(self, array: Array, dtype: str) -> Array:
        return array.astype(dtype)

    def dtype(self, array: Array) -> str:
        return str(array.dtype)

    @_wide
    def full(self, shape: Sequence[int], value: float, dtype: str) -> Array:
        return jnp.full(tuple(shape), value, dtype)

    @_wide
    def eye(self, size: int, dtype: str) -> Array:
        return jnp.eye(size, dtype=dtype)

    @_wide
    def arange(self, size: int, dtype: str) -> Array:
        return jnp.arange(size, dtype=dtype)

    @_wide
    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        return jnp.reshape(array, tuple(shape))

    @_wide
    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        return jnp.broadcast_to(array, tuple(shape))

    @_wide
    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        return jnp.transpose(array, tuple(axes))

    @_wide
    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        return jnp.concatenate(list(arrays), axis=axis)

    @_wide
    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        return jnp.stack(list(arrays), axis=axis)

    @_wide
    def matmul(self, left: Array, right: Array) -> Array:
        # The default precision on GPUs and TPUs would round float32 factors to fewer bits.
        return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)

    @_wide
    def einsum(self, equation: str, *arrays: Array) -> Array:
        return jnp.einsum(equation, *arrays, precision=lax.Precision.HIGHEST)

    @_wide
    def softplus(self, array: Array) -> Array:
        return jnp.logaddexp(array, jnp.zeros((), array.dtype))

    @_wide
    def argmax(self, array: Array, axis: int) -> Array:
        return jnp.argmax(array, axis=axis)

    expand_dims = staticmethod(_wide(jnp.expand_dims))
    take = staticmethod(_wide(jnp.take))
    where = staticmethod(_wide(jnp.where))
    exp = staticmethod(_wide(jnp.exp))
    log = staticmethod(_wide(jnp.log))
    sqrt = staticmethod(_wide(jnp.sqrt))
    tanh = staticmethod(_wide(jnp.tanh))
    sigmoid = staticmethod(_wide(jax.nn.sigmoid))
    abs = staticmethod(_wide(jnp.abs))
    sign = staticmethod(_wide(jnp.sign))
    floor = staticmethod(_wide(jnp.floor))
    isfinite = staticmethod(_wide(jnp.isfinite))
    heaviside = staticmethod(_wide(lambda array: (array > 0).astype(array.dtype)))
    maximum = staticmethod(_wide(jnp.maximum))
    minimum = staticmethod(_wide(jnp.minimum))
    sum = staticmethod(_wide(jnp.sum))
    mean = staticmethod(_wide(jnp.mean))
    max = staticmethod(_wide(jnp.max))
    any = staticmethod(_wide(jnp.any))
    all = staticmethod(_wide(jnp.all))
    stop_gradient = staticmethod(_wide(lax.stop_gradient))

    def value_and_grad(
        self, function: Callable[[Parameters], Array]
    ) -> Callable[[Parameters], tuple[Array, Parameters]]:
        return _wide(jax.value_and_grad(function))

    @_wide
    def scan(
        self, body: ScanBody, carry: Arrays, inputs: Arrays, length: int, reverse: bool = False
    ) -> tuple[Arrays, Arrays]:
        # Unrolling was measured: fifty steps run nine times slower and all of 500 compile for minutes.
        return lax.scan(body, carry, inputs, length, reverse=reverse, unroll=1)

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _wide(jax.jit(function))
