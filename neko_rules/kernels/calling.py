"""Calling: compiled functions called from a kernel at their addresses, and vectors that lie at an address.

Numba compiles what a kernel calls into it once more. For kernels that are large and are called a few times that gains
nothing, and was measured to take more than half of the time in which the caller is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.ahead import Wanted, called, is_called
from neko_rules.kernels.compiling import Kernel, kernel

Type = Any
"""A type of Numba's."""


def check_called(function: Any, types: tuple[Type, ...]) -> None:
    """Refuse to call a function at its address with types for which nobody is known to compile it."""
    if not is_called(function, types):
        name = function.py_func.__name__
        raise TypingError(f"{name} is called at an address with types for which nobody compiles it: {types}")


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def call(typing: Any, function: Any, addresses: Any, number: Any, arguments: Any) -> Any:
    """Call the ``function``, which returns nothing, at ``addresses[number]`` with a tuple of arguments.

    It has to be known that it will be compiled for just these types: ``ahead.called``.
    """
    given = tuple(arguments.types)
    check_called(function.dispatcher, given)

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(types.none, given)
        address = _entry(context, builder, addresses, values[1], number)
        unpacked = cgutils.unpack_tuple(builder, values[3])
        pointer = builder.inttoptr(address, kind.as_pointer())
        status, _ = convention.call_function(builder, pointer, types.none, given, unpacked)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(function, addresses, number, arguments), generated


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def vector(typing: Any, dtype: Any, address: Any, size: Any) -> Any:
    """The vector of a type, by its name, and of a size that begins at an address.

    It does not keep the memory.
    """
    array = array_type(dtype.literal_value, 1)

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind, word = context.get_value_type(array.dtype), context.get_value_type(types.intp)
        made = context.make_array(array)(context, builder)
        made.data, made.nitems = builder.inttoptr(values[1], kind.as_pointer()), values[2]
        made.itemsize = word(context.get_abi_sizeof(kind))
        made.shape = cgutils.pack_array(builder, [made.nitems], word)
        made.strides = cgutils.pack_array(builder, [made.itemsize], word)
        made.meminfo = ir.Constant(made.meminfo.type, None)
        made.parent = ir.Constant(made.parent.type, None)
        return made._getvalue()

    return array(dtype, types.intp, types.intp), generated


def _entry(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    """An entry of a vector of whole numbers."""
    data = context.make_array(kind)(context, builder, array).data
    word = context.get_value_type(types.intp)
    return builder.load(builder.gep(data, [word(number.literal_value)]))


def array_type(dtype: str, rank: int) -> Type:
    """The type of an array in C order; of a number for no axes.

    Example:
        >>> array_type("float32", 2), array_type("float32", 0)
        (Array(float32, 2, 'C', False, aligned=True), float32)
    """
    kind = getattr(types, dtype)
    return types.Array(kind, rank, "C") if rank else kind


@kernel
def address(array: np.ndarray) -> int:
    """Where an array begins; NumPy's own way takes ten times as long."""
    return int(array.ctypes.data)


def wanted(function: Kernel, arguments: Sequence[Any]) -> Wanted:
    """A function for arguments like these."""
    return Wanted(function, tuple(map(numba.typeof, arguments)))


def address_of(function: Wanted) -> int:
    """Where the machine code of a function for arguments of some types begins; compiled if it is not yet."""
    called([function])
    function.compile()
    dispatcher: Any = function.run
    compiled = dispatcher.overloads[function.types]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


@lru_cache(maxsize=64)
def addresses_of(functions: tuple[Wanted | None, ...]) -> np.ndarray:
    """Where functions begin, and 0 for none."""
    return np.array([address_of(each) if each else 0 for each in functions], np.int64)
