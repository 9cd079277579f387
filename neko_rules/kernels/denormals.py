"""Denormals: numbers below the smallest of full precision are zero in kernels.

What decays and is not fed any more, as a trace whose input has fallen silent, never becomes zero by itself: rounding
holds it at one of the smallest numbers that there are, and many processors take a hundred times as long for those. The
mode belongs to a thread, and whoever calls a kernel finds it afterwards as it was.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from neko_rules.kernels.compiling import kernel

_MACHINE = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine(), "")

_BITS = {"x86": 0x8040, "arm": 1 << 24, "": 0}[_MACHINE]
"""Results, and operands, that are denormal become zero: FTZ and DAZ of MXCSR (Intel 64 manual, volume 1, 10.2.3), or FZ
of FPCR (Arm architecture reference manual, C5.2.8). On other machines nothing is changed."""


@intrinsic  # type: ignore[untyped-decorator]
def _mode(typing: Any) -> Any:
    """What the register holds."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, short = ir.IntType(64), ir.IntType(32)
        if _MACHINE == "x86":
            room = cgutils.alloca_once(builder, short)
            _x86(builder, "stmxcsr", room)
            return builder.zext(builder.load(room), word)
        if _MACHINE == "arm":
            read = ir.InlineAsm(ir.FunctionType(word, []), "mrs $0, fpcr", "=r", side_effect=True)
            return builder.call(read, [])
        return word(0)

    return types.int64(), generated


@intrinsic  # type: ignore[untyped-decorator]
def _set_mode(typing: Any, mode: Any) -> Any:
    """Let the register hold something else."""

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, short = ir.IntType(64), ir.IntType(32)
        if _MACHINE == "x86":
            room = cgutils.alloca_once(builder, short)
            builder.store(builder.trunc(arguments[0], short), room)
            _x86(builder, "ldmxcsr", room)
        if _MACHINE == "arm":
            write = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [word]), "msr fpcr, $0", "r", side_effect=True)
            builder.call(write, [arguments[0]])
        return context.get_dummy_value()

    return types.void(types.int64), generated


def _x86(builder: Any, name: str, room: Any) -> None:
    pointer = cgutils.voidptr_t
    kind = ir.FunctionType(ir.VoidType(), [pointer])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(room, pointer)])


@kernel
def _flush() -> int:
    mode = _mode()
    _set_mode(mode | _BITS)
    return mode


@kernel
def _restore(mode: int) -> None:
    _set_mode(mode)


def flushed(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns that runs without denormals.

    Example:
        >>> import numpy as np
        >>> tenth, small = np.float32(0.1), np.float32(1e-37)
        >>> float(flushed(lambda: tenth * tenth * small)), bool(tenth * tenth * small)
        (0.0, True)
    """
    mode = _flush()
    try:
        return function(*arguments)
    finally:
        _restore(mode)
