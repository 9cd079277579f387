"""Optional: libraries that need not be there: array libraries, and those without which all runs slower."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache


def installed(library: str) -> bool:
    """Whether a library can be imported, without importing it.

    Example:
        >>> installed("numpy"), installed("a_library_that_nobody_wrote")
        (True, False)
    """
    # Python's own register comes first: what is imported needs no search, and an entry of None forbids the import.
    if library in sys.modules:
        return sys.modules[library] is not None
    return _found(library)


@lru_cache(maxsize=16)
def _found(library: str) -> bool:
    """Whether the search for a library that is not imported finds it; asked in every step, so searched for once."""
    return importlib.util.find_spec(library) is not None
