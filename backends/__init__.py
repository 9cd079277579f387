"""The four array libraries, one file each; ``numpy_backend``, ``torch_backend`` and so on are made on first use."""

from __future__ import annotations

from typing import Any

from neko_rules.backend import BUILT_IN, get_backend

__all__ = ["jax_backend", "numpy_backend", "tensorflow_backend", "torch_backend"]


def __getattr__(name: str) -> Any:
    backend = name.removesuffix("_backend")
    if backend != name and backend in BUILT_IN:
        return get_backend(backend)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
