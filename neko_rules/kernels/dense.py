"""Dense: a product of matrices by the backend's own library, or by our loop where that is the faster.

A library picks its loops by the processor that it takes the machine for, and one that is newer than the library may get
those of a much older one: half the speed, where registers are twice as wide. So the two are timed once per machine,
number of threads and version of the library.
"""

from __future__ import annotations

import sys

import numpy as np

from neko_rules.backend import Array, Backend
from neko_rules.kernels.host import host_of
from neko_rules.kernels.measured import kept, seconds
from neko_rules.threads import threads

_WORTHWHILE = 1 << 20
"""Products of two numbers below which calling a kernel takes as long as they do."""

_SLIM = 32
"""Rows or columns below which a tile has more to load and to keep than to multiply."""


def multiplied(nx: Backend, left: Array, right: Array) -> Array:
    """left · right of two matrices of a backend, by our loop where that is the faster.

    Args:
        nx: backend.
        left: [m, k].
        right: [k, n].
    """
    host = host_of(nx)
    large = left.shape[0] * left.shape[1] * right.shape[1] >= _WORTHWHILE
    if host is None or not large or right.shape[1] < _SLIM or min(left.shape) < _SLIM or times_as_long(nx) <= 1.1:
        return nx.matmul(left, right)
    from neko_rules.kernels.products import product

    a, b = host.host(left), host.host(right)
    return nx.matmul(left, right) if a.dtype != b.dtype else host.from_host(product(a, b))


_known: dict[tuple[type, str], float] = {}


def times_as_long(nx: Backend) -> float:
    """How many times as long as our loop the backend takes for a product on this machine, with as many threads.

    Example:
        >>> from neko_rules.backend import get_backend
        >>> 0.1 < times_as_long(get_backend("numpy")) < 10
        True
    """
    library = getattr(sys.modules.get(nx.name), "__version__", "")
    name = f"products-{nx.name}{library}-{threads()}"
    if (type(nx), name) not in _known:
        _known[type(nx), name] = kept(name, lambda: _measured(nx))
    return _known[type(nx), name]


def _measured(nx: Backend, rows: int = 1024, size: int = 256) -> float:
    """The same for a product of a usual size."""
    from neko_rules.kernels.products import product

    random = np.random.default_rng(0)
    left, right = (random.standard_normal((n, size)).astype(np.float32) for n in (rows, size))
    a, b = nx.asarray(left), nx.asarray(right)
    theirs, ours = nx.jit(lambda: seconds(lambda: nx.matmul(a, b), lambda: product(left, right)))()
    return float(theirs / ours)
