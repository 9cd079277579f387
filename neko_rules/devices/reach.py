"""Reach: a warning of weights that are written to a crossbar, and are larger than what it holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.errors import warn


def warn_of_cut(nx: Backend, weights: Mapping[str, Array], largest: Callable[[str], float]) -> None:
    """Say how many weights are larger than what can be held, and which is the largest.

    Args:
        nx: the backend of the weights.
        weights: by name; those without numbers, as while a function is compiled or mapped, are passed over.
        largest: w_max of a name.
    """
    known = {name: found for name, weight in weights.items() if (found := _numbers(nx, weight)) is not None}
    # In single precision a weight that was read at the end of its range may be beyond it by its last bits.
    beyond = {name: np.abs(w) > largest(name) * (1 + 1e-6) for name, w in known.items()}
    cut = sum(int(each.sum()) for each in beyond.values())
    if cut:
        sizes = {name: float(np.abs(known[name]).max()) for name, each in beyond.items() if each.any()}
        name = max(sizes, key=lambda each: sizes[each] / largest(each))
        warn(
            "weights that are written to a crossbar must lie within ±w_max",
            received=f"{cut} of {sum(each.size for each in beyond.values())} beyond it, "
            f"up to {sizes[name]:.3g} in {name}, whose w_max is {largest(name):g}",
            works="they are written as ±w_max; give the Crossbar a larger w_max, or begin with smaller weights",
        )


def _numbers(nx: Backend, array: Array) -> np.ndarray | None:
    """The numbers of an array; None of one that stands for others while a function is compiled or mapped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of TensorFlow's
            return nx.to_numpy(array)
    except (TypeError, NotImplementedError, RuntimeError):  # in this order JAX, TensorFlow, PyTorch
        return None
