"""Lowering: what lies between the calls of a chain becomes machine code without most of Numba's compiler.

A chain is a hundred pieces of memory cut into arrays, and some twenty calls, in a language of few statements. Inferred,
lowered and optimised by Numba that took a second or two, as long as any of the loops that it calls. Here the statements
are gone through once, an array is its data and its sizes, and what is left to optimise is little.

The language, in Python's syntax:

    name = expression                                  a whole number or a condition, or several of them at once
    name = cut(memory, k, skip, (axis, …))             the array in C order at ``memory[places[k] + skip]``
    function(argument, …)                              the function of these types, at its number in ``addresses``
    array[0] = expression
    if condition: …
    for name in range(first, last, step): …
    return number

An expression has names, whole numbers, ``array[0]``, ``min``, ``+ - *``, comparisons, ``and``, ``or`` and ``not``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from neko_rules.kernels.calling import check_called

_WORD, _BIT, _REAL = ir.IntType(64), ir.IntType(1), ir.DoubleType()


class _Array(NamedTuple):
    """An array as statements see it.

    Attributes:
        kind: Numba's type.
        count, width: how many entries, and bytes of one.
        data: a pointer to the first.
        sizes, strides: by axis; strides in bytes.
    """

    kind: Any
    count: Any
    width: Any
    data: Any
    sizes: Sequence[Any]
    strides: Sequence[Any]


def lowered(names: Sequence[str], text: str, functions: Mapping[str, Any]) -> Any:
    """A function for kernels, of one tuple of arguments, that does what statements say and returns a whole number.

    Args:
        names: of the arguments, among them ``addresses`` and ``places``.
        text: the statements.
        functions: by name, what they call, in the order of ``addresses``; compiled for the types that it is called
            with, as ``ahead.called`` knows.
    """
    statements = ast.parse(text).body

    @intrinsic  # type: ignore[untyped-decorator]
    def run(typing: Any, arguments: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            given = cgutils.unpack_tuple(builder, values[0])
            lowering = _Lowering(context, builder, functions)
            for name, kind, value in zip(names, arguments.types, given, strict=True):
                lowering.take(name, kind, value)
            return lowering.result_of(statements)

        return types.intp(arguments), generated

    return run


class _Lowering:
    """Statements on their way into instructions.

    Args:
        context, builder: Numba's, at the place where they begin.
        functions: by name, what statements call.
    """

    def __init__(self, context: Any, builder: Any, functions: Mapping[str, Any]) -> None:
        self._context, self._builder, self._functions = context, builder, functions
        self._arrays: dict[str, _Array] = {}
        self._numbers: dict[str, tuple[Any, Any]] = {}
        """Numba's type, and the place that holds it."""
        self._places: dict[Any, Any] = {}
        self._result = cgutils.alloca_once(builder, _WORD)
        self._end = builder.append_basic_block("end")
        self._failed = builder.append_basic_block("failed")

    def take(self, name: str, kind: Any, value: Any) -> None:
        """Know an argument."""
        if not isinstance(kind, types.Array):
            self._hold(name, kind, value)
            return
        array = self._context.make_array(kind)(self._context, self._builder, value)
        sizes, strides = (cgutils.unpack_tuple(self._builder, each) for each in (array.shape, array.strides))
        self._arrays[name] = _Array(kind, array.nitems, array.itemsize, array.data, sizes, strides)

    def result_of(self, statements: Sequence[ast.stmt]) -> Any:
        """What they return."""
        self._go(statements)
        builder = self._builder
        if not builder.block.is_terminated:
            builder.branch(self._end)
        builder.position_at_end(self._failed)
        # No loop of ours raises anything.
        self._context.call_conv.return_user_exc(builder, RuntimeError, ("a loop that a chain calls has failed",))
        builder.position_at_end(self._end)
        return builder.load(self._result)

    def _go(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="cut"), args=arguments)):
                    self._arrays[name] = self._cut(*arguments)
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=expressions)):
                    found = [self._value(each) for each in expressions]
                    for each, (kind, value) in zip(names, found, strict=True):
                        self._hold(_name(each), kind, value)
                case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                    self._hold(name, *self._value(expression))
                case ast.Assign(targets=[ast.Subscript(value=array, slice=ast.Constant(value=0))], value=expression):
                    self._builder.store(self._value(expression)[1], self._arrays[_name(array)].data)
                case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=arguments)) if name in self._functions:
                    self._call(name, arguments)
                case ast.If(test=condition, body=body, orelse=[]):
                    with self._builder.if_then(self._condition(condition)):
                        self._go(body)
                case ast.For(
                    target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), body=body
                ):
                    self._repeat(name, bounds, body)
                case ast.Return(value=ast.expr() as expression):
                    self._builder.store(self._value(expression)[1], self._result)
                    self._builder.branch(self._end)
                case _:
                    raise TypingError(f"a chain has no statement like {ast.unparse(statement)}")

    def _hold(self, name: str, kind: Any, value: Any) -> None:
        if name not in self._numbers:
            self._numbers[name] = kind, cgutils.alloca_once(self._builder, value.type)
        self._builder.store(value, self._numbers[name][1])

    def _repeat(self, name: str, bounds: Sequence[ast.expr], body: Sequence[ast.stmt]) -> None:
        """Go through whole numbers, the third of ``bounds`` apart, or 1."""
        builder = self._builder
        first, last, *step = (self._value(each)[1] for each in bounds)
        blocks = [builder.append_basic_block(f"{name}.{what}") for what in ("asked", "body", "after")]
        asked, going, after = blocks
        self._hold(name, types.intp, first)
        _, place = self._numbers[name]
        counter = cgutils.alloca_once_value(builder, first)
        builder.branch(asked)
        builder.position_at_end(asked)
        builder.cbranch(builder.icmp_signed("<", builder.load(counter), last), going, after)
        builder.position_at_end(going)
        builder.store(builder.load(counter), place)
        self._go(body)
        builder.store(builder.add(builder.load(counter), step[0] if step else _WORD(1)), counter)
        builder.branch(asked)
        builder.position_at_end(after)

    # Expressions.

    def _value(self, expression: ast.expr) -> tuple[Any, Any]:
        """Numba's type and the value: a whole number of 64 bits, a condition, or a real number."""
        builder = self._builder
        match expression:
            case ast.Name(id=("true" | "false") as name):
                return types.boolean, _BIT(name == "true")
            case ast.Name(id=name):
                kind, place = self._numbers[name]
                return kind, builder.load(place)
            case ast.Constant(value=int(value)):
                return types.intp, _WORD(value)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=0)):
                array = self._arrays[name]
                return types.intp, builder.sext(builder.load(array.data), _WORD)
            case ast.BinOp(left=left, op=(ast.Add() | ast.Sub() | ast.Mult()) as op, right=right):
                kind, one, other = self._alike(left, right)
                return kind, _OPERATIONS[type(op)][kind == types.float64](builder, one, other)
            case ast.Call(func=ast.Name(id="min"), args=[left, right]):
                one, other = self._value(left)[1], self._value(right)[1]
                return types.intp, builder.select(builder.icmp_signed("<", one, other), one, other)
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return types.boolean, self._condition(expression)
        raise TypingError(f"a chain has no expression like {ast.unparse(expression)}")

    def _condition(self, expression: ast.expr) -> Any:
        builder = self._builder
        match expression:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                kind, one, other = self._alike(left, right)
                compare = builder.fcmp_ordered if kind == types.float64 else builder.icmp_signed
                return compare(_COMPARISONS[type(op)], one, other)
            case ast.BoolOp(op=op, values=values):
                # No part of a condition does anything, so that all may be looked at.
                both = builder.and_ if isinstance(op, ast.And) else builder.or_
                found, *others = map(self._condition, values)
                for each in others:
                    found = both(found, each)
                return found
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return builder.not_(self._condition(operand))
        return self._value(expression)[1]

    def _alike(self, left: ast.expr, right: ast.expr) -> tuple[Any, Any, Any]:
        """Two values as numbers of one type: whole ones, or real ones where one of them is."""
        builder, pair = self._builder, [self._value(left), self._value(right)]
        if any(kind == types.boolean for kind, _ in pair):
            raise TypingError(f"a chain has no numbers that are conditions: {ast.unparse(left)}, {ast.unparse(right)}")
        if all(kind == types.intp for kind, _ in pair):
            return types.intp, pair[0][1], pair[1][1]
        one, other = (
            builder.sitofp(value, _REAL) if kind == types.intp else builder.fpext(value, _REAL) for kind, value in pair
        )
        return types.float64, one, other

    # Memory and calls.

    def _cut(self, memory: ast.expr, number: ast.expr, skip: ast.expr, shape: ast.expr) -> _Array:
        assert isinstance(number, ast.Constant), "written as one"
        assert isinstance(number.value, int), "a place"
        assert isinstance(shape, ast.Tuple), "written as one"
        builder, whole = self._builder, self._arrays[_name(memory)]
        kind = types.Array(whole.kind.dtype, len(shape.elts), "C")
        begin = builder.add(self._entry("places", number.value), self._value(skip)[1])
        width = _WORD(self._context.get_abi_sizeof(self._context.get_data_type(kind.dtype)))
        sizes = [self._value(each)[1] for each in shape.elts]
        count, strides = _WORD(1), []
        for size in reversed(sizes):
            strides.append(builder.mul(count, width))
            count = builder.mul(count, size)
        return _Array(kind, count, width, builder.gep(whole.data, [begin]), sizes, strides[::-1])

    def _call(self, name: str, arguments: Sequence[ast.expr]) -> None:
        kinds: list[Any] = []
        handed: list[Any] = []
        for each in arguments:
            if isinstance(each, ast.Name) and each.id in self._arrays:
                array = self._arrays[each.id]
                kinds.append(array.kind)
                # As Numba hands arrays on: without an owner.
                nobody = ir.Constant(cgutils.voidptr_t, None)
                handed += [nobody, nobody, array.count, array.width, array.data, *array.sizes, *array.strides]
            else:
                kind, value = self._value(each)
                kinds.append(kind)
                handed.append(self._context.data_model_manager[kind].as_argument(self._builder, value))
        address = self._entry("addresses", list(self._functions).index(name))
        self._call_at(address, self._functions[name], tuple(kinds), handed)

    def _call_at(self, address: Any, function: Any, kinds: tuple[Any, ...], handed: Sequence[Any]) -> None:
        check_called(function, kinds)
        builder = self._builder
        kind = self._context.call_conv.get_function_type(types.none, kinds)
        places = [self._place(each.pointee) for each in kind.args[:2]]
        status = builder.call(builder.inttoptr(address, kind.as_pointer()), [*places, *handed])
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("==", status, status.type(0)), after, self._failed)
        builder.position_at_end(after)

    def _place(self, kind: Any) -> Any:
        """Where functions put what nobody reads: results, which are nothing, and exceptions."""
        if kind not in self._places:
            self._places[kind] = cgutils.alloca_once(self._builder, kind, zfill=True)
        return self._places[kind]

    def _entry(self, vector: str, number: int) -> Any:
        """An entry of a vector of whole numbers."""
        return self._builder.load(self._builder.gep(self._arrays[vector].data, [_WORD(number)]))


_OPERATIONS: dict[type[ast.operator], tuple[Callable[..., Any], Callable[..., Any]]] = {
    ast.Add: (ir.IRBuilder.add, ir.IRBuilder.fadd),
    ast.Sub: (ir.IRBuilder.sub, ir.IRBuilder.fsub),
    ast.Mult: (ir.IRBuilder.mul, ir.IRBuilder.fmul),
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def _name(of: ast.expr) -> str:
    assert isinstance(of, ast.Name), "written as one"
    return of.id
