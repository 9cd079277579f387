"""Generator: where a NumPy generator stands, in values that JSON can hold without loss.

The state of a bit generator is a tree of whole numbers and arrays of such: PCG64 and PCG64DXSM have numbers alone,
MT19937, Philox and SFC64 have arrays too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neko_rules.errors import ArgumentError, CheckpointError

BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
"""NumPy's own."""


def checked(rng: np.random.Generator) -> np.random.Generator:
    """The generator, which must be one of NumPy's ``Generator``.

    Raises:
        ArgumentError: it is something else, such as a seed or a ``RandomState``.
    """
    if not isinstance(rng, np.random.Generator):
        raise ArgumentError(
            "the random numbers of a chain come from a NumPy Generator",
            received=rng,
            works="give np.random.default_rng(seed)",
        )
    return rng


def told(rng: np.random.Generator) -> dict[str, Any]:
    """Where a generator stands.

    Raises:
        CheckpointError: its bit generator is none of NumPy's, so that it could not be found again by its name.

    Example:
        >>> import json
        >>> rng = np.random.Generator(np.random.Philox(0))
        >>> _ = rng.random(5)
        >>> bool(restored(json.loads(json.dumps(told(rng)))).random() == rng.random())
        True
    """
    found: dict[str, Any] = _plain(rng.bit_generator.state)
    if found.get("bit_generator") not in BIT_GENERATORS:
        raise CheckpointError(
            "a chain that is put down needs a bit generator of NumPy's own",
            received=type(rng.bit_generator).__name__,
            works=f"use one of {', '.join(BIT_GENERATORS)}",
        )
    return found


def restored(plain: Mapping[str, Any]) -> np.random.Generator:
    """The generator that ``told`` described, which goes on bit for bit.

    Raises:
        CheckpointError: it is none of NumPy's.
    """
    name = plain.get("bit_generator")
    if name not in BIT_GENERATORS:
        raise CheckpointError(
            "a chain is taken up with a bit generator of NumPy's own",
            received=str(name),
            works=f"known: {', '.join(BIT_GENERATORS)}",
        )
    bits = getattr(np.random, name)()
    bits.state = _filled(bits.state, plain)
    return np.random.Generator(bits)


def _plain(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _filled(like: Any, plain: Any) -> Any:
    """A state of the form of another, with the arrays of its types."""
    if isinstance(like, Mapping):
        return {key: _filled(value, plain[key]) for key, value in like.items()}
    return np.array(plain, like.dtype) if isinstance(like, np.ndarray) else plain
