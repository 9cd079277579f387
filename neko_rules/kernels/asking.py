"""Asking: a function of Python's that a kernel calls, where what is computed is small and written by whoever likes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from neko_rules.kernels.compiling import kernel


@intrinsic  # type: ignore[untyped-decorator]
def _call(typing: Any, address: Any) -> Any:
    """Call the function of C's at an address, which takes nothing and returns nothing."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.intp), generated


@kernel
def ask(address: int) -> None:
    """Call what a ``Question`` says, at its address."""
    _call(address)


class Question:
    """A function of Python's at an address. It is called by a kernel, which waits, and knows of no exceptions.

    Args:
        function: takes nothing and returns nothing: it works on arrays that the kernel has too.

    Attributes:
        address: where it begins, as long as this object lives.

    Example:
        >>> found = []
        >>> question = Question(lambda: found.append(len(found)))
        >>> ask(question.address)
        >>> ask(question.address)
        >>> question.check()
        >>> found
        [0, 1]
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._raised: BaseException | None = None
        # Kept, since an address keeps nothing.
        self._called = ctypes.CFUNCTYPE(None)(self._run)
        self.address = int(ctypes.cast(self._called, ctypes.c_void_p).value or 0)

    def _run(self) -> None:
        # What C calls has nobody above it to raise to: the first exception is kept, and nothing is asked after it.
        if self._raised is None:
            try:
                self._function()
            except BaseException as raised:
                self._raised = raised

    def check(self) -> None:
        """Raise what the function raised, after the kernel has returned.

        Example:
            >>> question = Question(lambda: [][0])
            >>> ask(question.address)
            >>> question.check()
            Traceback (most recent call last):
            IndexError: list index out of range
        """
        if self._raised is not None:
            raise self._raised
