"""Asking: a function of Python's that a kernel calls, where what is computed is small and written by whoever likes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from neko_rules.kernels.compiling import kernel

Array = Any
"""An array in C order."""


@intrinsic  # type: ignore[untyped-decorator]
def _call(typing: Any, address: Any) -> Any:
    """Call the function of C's at an address, which takes nothing and returns nothing."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.intp), generated


@kernel
def ask(address: int, asked: Array) -> None:
    """Call what a ``Question`` says, at its address, and count it."""
    asked[0] += 1
    _call(address)


@kernel
def ask_about(address: int, asked: Array, begin: int, examples: int, place: Array) -> None:
    """The same about some examples of a batch: ``place`` says the first one, and how many."""
    place[0], place[1] = begin, examples
    ask(address, asked)


class Question:
    """A function of Python's at an address. It is called by a kernel, which waits, and knows of no exceptions.

    Args:
        function: takes nothing and returns nothing: it works on arrays that the kernel has too.
        raised: takes what it raises; questions that share it are not answered any more after the first exception.

    Attributes:
        address: where it begins, as long as this object lives.
        asked: how often a kernel has asked, in an array.

    Example:
        >>> found = []
        >>> question = Question(lambda: found.append(len(found)))
        >>> ask(question.address, question.asked)
        >>> ask(question.address, question.asked)
        >>> question.check()
        >>> found
        [0, 1]
    """

    def __init__(self, function: Callable[[], None], raised: list[BaseException] | None = None) -> None:
        self._raised: list[BaseException] = [] if raised is None else raised
        self._answered = np.zeros(1, np.int64)
        self.asked = np.zeros(1, np.int64)
        # Kept, since an address keeps nothing. A method of this object would keep it in turn, and all that it works on.
        self._called = ctypes.CFUNCTYPE(None)(_answering(function, self._answered, self._raised))
        # Read, since a pointer that is cast to another keeps itself.
        self.address = int(ctypes.c_void_p.from_buffer_copy(self._called).value or 0)

    def check(self) -> None:
        """Raise what the function raised, after the kernel has returned.

        Raises:
            KeyboardInterrupt: it was not answered to its end, as where a signal's handler raises before it begins.

        Example:
            >>> question = Question(lambda: [][0])
            >>> ask(question.address, question.asked)
            >>> question.check()
            Traceback (most recent call last):
            IndexError: list index out of range
        """
        if self._raised:
            raise self._raised[0]
        if self._answered[0] != self.asked[0]:
            raise KeyboardInterrupt


def _answering(function: Callable[[], None], answered: np.ndarray, raised: list[BaseException]) -> Callable[[], None]:
    """The function as C calls it, with nobody above it to raise to: nothing is asked after its first exception."""

    def answer() -> None:
        if not raised:
            try:
                function()
            except BaseException as exception:
                raised.append(exception)
        answered[0] += 1

    return answer
