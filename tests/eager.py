"""Eager backends: the libraries that compile, run operation by operation, so that many small cases take no compiling.

The numbers of every operation are the library's own; that compiled functions give the same is shown in other tests, on
fewer cases.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from neko_rules.backend import Backend, get_backend


@lru_cache
def eager(name: str) -> Backend:
    """A backend by name that compiles nothing."""
    if name == "jax":
        import jax

        from neko_rules.backends.jax import JaxBackend, _wide

        class EagerJax(JaxBackend):
            def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
                def run(*arguments: Any) -> Any:
                    with jax.disable_jit():
                        return _wide(function)(*arguments)

                return run

        return EagerJax()
    if name == "tensorflow":
        from neko_rules.backends.tensorflow import TensorflowBackend

        class EagerTensorflow(TensorflowBackend):
            def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
                return function

        return EagerTensorflow()
    return get_backend(name)
