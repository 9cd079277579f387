"""Ours: which objects are of classes of this package, and which a user has added."""

from __future__ import annotations

from typing import Any

_PACKAGE = __name__.partition(".")[0]


def is_ours(*parts: Any) -> bool:
    """Whether the classes of all parts are this package's: what a user adds may be written for one library.

    Example:
        >>> from neko_rules.losses import MeanSquaredError
        >>> Own = type("Own", (MeanSquaredError,), {"__module__": "mine"})
        >>> is_ours(MeanSquaredError()), is_ours(Own())
        (True, False)
    """
    classes = [each for part in parts for each in type(part).__mro__]
    return all(each.__module__.partition(".")[0] in (_PACKAGE, "builtins", "abc", "typing") for each in classes)
