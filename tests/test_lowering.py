"""The statements of a chain do what Python does with them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from neko_rules.kernels.ahead import Wanted, called
from neko_rules.kernels.calling import addresses_of, array_type

SIZES = {"first": 1, "last": 12, "group": 4, "steps": 3, "opening": 0, "closing": 2}

FUNCTIONS = '''
import numpy as np

from neko_rules.kernels.compiling import kernel, thin
from neko_rules.kernels.lowering import lowered


@kernel
def note(number, flag, log):
    """Write down a number, and a half more where a flag is set."""
    place = int(log[0])
    log[0] = place + 1
    log[place] = number + 0.5 * flag


@kernel
def add(matrix, amount, onto):
    """Add an amount times its place to every entry of an array, one after the other."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] += amount * (10 * i + j + 1)
            onto[0] += matrix.strides[0] + matrix.size + matrix.itemsize
'''

LOOPS = """
n = group
for window in range(opening, closing):
    at, which = window * steps + 1, 2 - window
    begun = before or window > opening
    if begun:
        note(which, true, log)
    for begin in range(first, last, group):
        n = min(group, last - begin)
        rows = (steps - 1) * n
        note(rows, begun, log)
        if not begun and n < group:
            note(at, false, log)
        if n >= 4 and before or at != 1:
            told[0] = begin + 100 * window
"""

CUTS = """
once = cut(number, 1, 0, (steps, 2,))
add(once, share, told)
for begin in range(first, last, group):
    n = min(group, last - begin)
    room = cut(number, 0, 0, (steps, n,))
    view = cut(number, 0, n, (steps - 1, n,))
    part = cut(given, 2, begin * 2, (n, 2,))
    add(room, share, told)
    add(view, share, told)
    add(part, share, told)
    add(given, share, told)
    if told[0] > limit * n:
        return begin
return 0 - steps
"""

ARRAYS = {"places": ("int64", 1), "log": ("float64", 1), "told": ("int64", 1), "number": ("float64", 1)}
ARRAYS |= {"given": ("float64", 2), "addresses": ("int64", 1)}
NUMBERS = {"before": "boolean", "share": "float64", "limit": "float64"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """A module of a folder of its own, with statements for a chain."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def module(name: str, statements: str) -> ModuleType:
        arguments = (*SIZES, *ARRAYS, *NUMBERS)
        text = f'statements = """{statements}"""\nnames = {arguments}\n'
        text += "body = lowered(names, statements, {'note': note, 'add': add})\n\n\n@thin\n"
        text += f"def run({', '.join(arguments)}):\n    return body(({', '.join(arguments)}))\n"
        (tmp_path / f"{name}.py").write_text(FUNCTIONS + "\n\n" + text)
        made.append(name)
        return importlib.import_module(name)

    yield module
    for name in made:
        sys.modules.pop(name, None)


def types_of(kinds: dict[str, Any]) -> list[Any]:
    return [array_type(*each) if isinstance(each, tuple) else array_type(each, 0) for each in kinds.values()]


def functions(module: ModuleType) -> list[Wanted]:
    """What the statements call, for the types that they call it with."""
    of_note = (array_type("int64", 0), array_type("boolean", 0), array_type("float64", 1))
    of_add = (array_type("float64", 2), array_type("float64", 0), array_type("int64", 1))
    return [Wanted(module.note, of_note), Wanted(module.add, of_add)]


def data(**options: float) -> dict[str, Any]:
    arrays = {"places": np.array([2, 20, 0]), "log": np.ones(40), "told": np.zeros(1, np.int64)}
    arrays |= {"number": np.zeros(40), "given": np.arange(24.0).reshape(12, 2)}
    return {**arrays, "before": False, "share": 0.25, "limit": 1e6, **options}


def by_python(statements: str, known: dict[str, Any]) -> int:
    """The same statements as Python takes them, an array for what is cut."""

    def cut(memory: np.ndarray, place: int, skip: int, shape: tuple[int, ...]) -> np.ndarray:
        begin = known["places"][place] + skip
        return memory.reshape(-1)[begin : begin + int(np.prod(shape))].reshape(shape)

    def note(number: float, flag: bool, log: np.ndarray) -> None:
        log[int(log[0])] = number + 0.5 * flag
        log[0] += 1

    def add(matrix: np.ndarray, amount: float, onto: np.ndarray) -> None:
        rows, columns = matrix.shape
        matrix += amount * (10 * np.arange(rows)[:, None] + np.arange(columns) + 1)
        onto[0] += rows * columns * (8 * columns + matrix.size + 8)

    lines = ["def run():", *(f"    {line}" for line in statements.splitlines()), "    return 0"]
    names = {**SIZES, **known, "cut": cut, "note": note, "add": add, "true": True, "false": False}
    exec("\n".join(lines), names)
    return int(names["run"]())


def by_machine(module: ModuleType, known: dict[str, Any]) -> int:
    wanted = functions(module)
    called(wanted)
    given = [*SIZES.values(), *(known.get(name) for name in ARRAYS if name != "addresses")]
    return int(module.run(*given, addresses_of(tuple(wanted)), *(known[name] for name in NUMBERS)))


@pytest.mark.parametrize(
    ("statements", "options"),
    [
        (LOOPS, {}),
        (LOOPS, {"before": True}),
        (LOOPS + "return told[0] + steps\n", {}),
        (CUTS, {}),
        (CUTS, {"limit": 2e3}),
        (CUTS, {"limit": 0.5, "share": -2.0}),
    ],
)
def test_statements_do_what_they_say(
    statements: str, options: dict[str, Any], make: Callable[[str, str], ModuleType]
) -> None:
    one, other = data(**options), data(**options)
    module = make(f"said_{abs(hash((statements, *options.items())))}", statements)
    assert by_machine(module, one) == by_python(statements, other)
    for name in ARRAYS:
        if name != "addresses":
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert any(np.any(one[name] != value) for name, value in data().items()), "nothing was done"


@pytest.mark.parametrize(
    "statement",
    [
        "n = steps // 2",
        "while true:\n    n = 1",
        "n = max(first, last)",
        "told[1] = 3",
        "unknown(steps)",
        "n = before + 1",
    ],
)
def test_what_is_not_of_the_language_is_refused(statement: str, make: Callable[[str, str], ModuleType]) -> None:
    module = make(f"refused_{abs(hash(statement))}", statement)
    called(functions(module))
    with pytest.raises(TypingError, match="a chain has no"):
        module.run.compile((*[numba.int64] * len(SIZES), *types_of(ARRAYS), *types_of(NUMBERS)))


def test_a_function_is_called_with_types_that_it_is_compiled_for(make: Callable[[str, str], ModuleType]) -> None:
    """Planted: an array where a number belongs. At the address of the function it would be taken for one."""
    module = make("misled", "note(told, true, log)")
    called(functions(module))
    with pytest.raises(TypingError, match="note is called at an address with types for which nobody compiles it"):
        module.run.compile((*[numba.int64] * len(SIZES), *types_of(ARRAYS), *types_of(NUMBERS)))
