"""Optional: libraries that need not be there: array libraries, and those without which all runs slower."""

from __future__ import annotations

import importlib.util
from functools import lru_cache


@lru_cache(maxsize=16)
def installed(library: str) -> bool:
    """Whether a library can be imported, without importing it.

    Example:
        >>> installed("numpy"), installed("a_library_that_nobody_wrote")
        (True, False)
    """
    return importlib.util.find_spec(library) is not None
