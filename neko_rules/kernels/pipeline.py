"""Pipeline: Numba's compiler as kernels need it, which may take more for granted than it does by itself."""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.typed_passes import NativeLowering

from neko_rules.kernels.compiling import GENERATED

WIDE_REGISTERS = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]
"""Whether kernels are compiled for registers of 64 bytes, of which there are 32; others are taken to have 16 of 32."""

REGISTER = 64 if WIDE_REGISTERS else 32
"""Bytes of a vector register."""


class _Wide(Lower):  # type: ignore[misc]
    """Lowering that lets the loops of generated kernels take whole registers.

    For Intel's processors LLVM makes loops of half of them, since the first that had them ran slower while they were in
    use. Rows and products take them anyway, written out. In processes that took turns on an Emerald Rapids, a step of A
    took 0.95 of what it took before, and of B 0.94; the kernels of rows and products gain nothing.
    """

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        if WIDE_REGISTERS and fndesc.modname.startswith(GENERATED):
            # A set of names, of which llvmlite knows those without a value; it prints all.
            set.add(self.function.attributes, f'"prefer-vector-width"="{8 * REGISTER}"')


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(NativeLowering):  # type: ignore[misc]
    _name = "native_lowering_of_kernels"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Wide


class _Lightly(JITCodeLibrary):  # type: ignore[misc]
    """Machine code that is optimised as little as lets numbers stay in registers."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager(opt=1, loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _ThinLowering(NativeLowering):  # type: ignore[misc]
    _name = "native_lowering_of_thin_kernels"

    def run_pass(self, state: Any) -> bool:
        state.library = _Lightly(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return bool(super().run_pass(state))


class Pipeline(CompilerBase):  # type: ignore[misc]
    """Numba's compiler, told that the arrays of one call do not overlap, and that registers are as wide as they are.

    What a kernel writes overlaps with nothing else that it is given. Without that promise every inner loop first
    compares all pairs of pointers, and runs number by number where there are too many; measured: half the speed.
    """

    lowering: type[NativeLowering] = _WideLowering

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state.flags.noalias = True

    def define_pipelines(self) -> list[PassManager]:
        """Numba's own passes, but for one."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [(self.lowering if step is NativeLowering else step, told) for step, told in manager.passes]
        manager.finalize()
        return [manager]


class Thin(Pipeline):
    """The same for kernels of which ``kernels.lowering`` has written all that they do."""

    lowering = _ThinLowering
