"""Ahead: kernels that are needed soon are compiled by several processes at once, of which each keeps them on disk.

Numba compiles one function at a time in a process. What a first step needs is known before the first of it runs: some
twenty functions that do not depend on each other. Where the process may use several processors, others are started that
take the longest of what nobody has begun, until nothing is left; this one takes its part and then loads what the others
made. A process that cannot be started, or ends, leaves its part to this one.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from neko_rules.kernels.compiling import GENERATED, Kernel
from neko_rules.kernels.machine_code import on_disk
from neko_rules.threads import threads

Types = tuple[Any, ...]
"""Of arguments, as Numba has them."""

_MOST = 3
"""Processes beside this one: the longest of some twenty functions takes an eighth of the time of all."""

_WORTHWHILE = 4000
"""Bytes of Python's instructions for which a process is started: they take two seconds, and its start one. A thousand
were measured to take 0.40 to 0.48 s, whatever they are of."""

_ANSWER = b"!"
"""What a process says when it is ready, and when it has done what it was asked for."""

_IDLE = 10.0
"""Seconds that a process waits for more before it ends."""


class Wanted(NamedTuple):
    """A function that is to be compiled.

    Attributes:
        run: compiled by ``kernel``.
        types: of its arguments.
    """

    run: Kernel
    types: Types

    @property
    def known(self) -> bool:
        """Whether this process has it, or finds it on disk."""
        function: Any = self.run
        return self.types in function.overloads or on_disk(function, self.types)

    @property
    def size(self) -> int:
        """Bytes of Python's instructions, which say how long it takes."""
        return _size(self.run)

    def compile(self) -> None:
        """Have it compiled in this process, or loaded."""
        function: Any = self.run
        function.compile(self.types)


_called: set[tuple[str, str, Types]] = set()
"""What is called at an address by other functions, or will be: module, name and types of arguments."""


def called(wanted: Iterable[Wanted]) -> None:
    """Say that functions will be called at their addresses, before those that call them are compiled."""
    _called.update((*_name(each.run), each.types) for each in wanted)


def is_called(function: Any, types: Types) -> bool:
    """Whether a function will be called with these types at its address."""
    return (*_name(function), types) in _called


def _size(function: Any) -> int:
    """Bytes of the instructions of a function, and of those that are compiled into it."""
    code, known = function.py_func.__code__, function.py_func.__globals__
    parts = [known[name] for name in code.co_names if name in known]
    return len(code.co_code) + sum(
        _size(each) for each in parts if getattr(each, "targetoptions", {}).get("inline") == "always"
    )


def _name(function: Any) -> tuple[str, str]:
    code = function.py_func
    return code.__module__, code.__name__


_watchers: list[Callable[[int, int], None]] = []


def watch(told: Callable[[int, int], None]) -> None:
    """Have a function told how many functions are compiled, and of how many, while that takes some seconds."""
    _watchers.append(told)


def unwatch(told: Callable[[int, int], None]) -> None:
    """Tell it no more."""
    if told in _watchers:
        _watchers.remove(told)


class _Workshop:
    """What is to be compiled, and who compiles it.

    Attributes:
        changed: notified when something was added or is done.
        waiting: what nobody has begun.
        begun: what somebody compiles now, and who.
        together: all that was put on the list since there was nothing.
        helpers: how many processes beside this one are counted on.
        pipes: to them, which a forked process has to close.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: list[Wanted] = []
        self.begun: list[tuple[object, Wanted]] = []
        self.together: list[Wanted] = []
        self.helpers = 0
        self.pipes: set[int] = set()

    def add(self, wanted: Sequence[Wanted], helpers: int) -> None:
        """Put on the list what is not known, and start processes if it is worth that.

        Args:
            wanted: needed soon.
            helpers: how many there may be.
        """
        with self.changed:
            listed = [*self.waiting, *(each for _, each in self.begun)]
            unknown = [each for each in wanted if each not in listed and not each.known]
            self.together = self.together + unknown if self.waiting or self.begun else unknown
            self.waiting = sorted(self.waiting + unknown, key=lambda each: -each.size)
            worth = sum(each.size for each in self.waiting) // _WORTHWHILE
            more = min(helpers, worth, len(self.waiting) - 1) - self.helpers
            self.changed.notify_all()
            for _ in range(more):
                try:
                    threading.Thread(target=self._helped, name="neko_rules compiler", daemon=True).start()
                except RuntimeError:
                    # No more threads may be started, here or at the end of a process: there is less help.
                    break
                self.helpers += 1

    def compile(self, wanted: Sequence[Wanted]) -> None:
        """Have all of this compiled, by whoever is free."""
        me = object()
        try:
            while True:
                self._tell()
                # Taken where it is given back, so that an interruption leaves nothing that looks begun.
                try:
                    with self.changed:
                        mine = self._taken(me, wanted)
                        if mine is None and not any(each in wanted for _, each in self.begun):
                            break
                        if mine is None:
                            self.changed.wait()
                    if mine is not None:
                        mine.compile()
                finally:
                    self._done(me)
        finally:
            # What is left after an error is for whoever needs it next.
            with self.changed:
                self.waiting = [each for each in self.waiting if each not in wanted]
        for each in wanted:
            each.compile()

    def _tell(self) -> None:
        """Tell who watches how far it is, if all of it takes long enough for somebody to wonder."""
        with self.changed:
            together, left = self.together, len(self.waiting) + len(self.begun)
        if sum(each.size for each in together) >= _WORTHWHILE:
            for told in _watchers:
                told(len(together) - left, len(together))

    def _taken(self, who: object, wanted: Sequence[Wanted] | None = None) -> Wanted | None:
        """The longest of these, or of all, that nobody has begun, which somebody begins now."""
        found = next((each for each in self.waiting if wanted is None or each in wanted), None)
        if found is not None:
            self.begun.append((who, found))
            self.waiting.remove(found)
        return found

    def _done(self, who: object) -> None:
        """Nobody waits any more for what somebody has begun."""
        with self.changed:
            left = [(other, each) for other, each in self.begun if other is not who]
            if len(left) < len(self.begun):
                self.begun = left
                self.changed.notify_all()

    def _helped(self) -> None:
        """Have a process compile what nobody has begun, until there was nothing for a while."""
        counted = True
        try:
            # Nothing depends on a process that cannot be started, or has ended: who needs what it had compiles that.
            with suppress(OSError), _helper() as process:
                assert process.stdin is not None, "asked for"
                assert process.stdout is not None, "asked for"
                pipe = process.stdin.fileno()
                self.pipes.add(pipe)
                try:
                    # It says when it is ready, and when it has done what it was asked for; nothing once it has ended.
                    answer = process.stdout.read(1)
                    while answer == _ANSWER and (wanted := self._awaited(process)) is not None:
                        try:
                            _ask(process.stdin, wanted)
                            answer = process.stdout.read(1)
                        finally:
                            self._done(process)
                    counted = answer != _ANSWER
                finally:
                    self.pipes.discard(pipe)
        finally:
            if counted:
                with self.changed:
                    self.helpers -= 1

    def _awaited(self, process: object) -> Wanted | None:
        """The next for another process; None, and one process less that is counted on, if nothing came for a while."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, _IDLE)
            found = self._taken(process)
            self.helpers -= found is None
            return found


_workshop = _Workshop()


def _begin_anew() -> None:
    """A process that was forked has neither the threads nor the pipes of the other."""
    global _workshop
    # As long as one of them is open, the process at its other end waits for more.
    for pipe in _workshop.pipes:
        with suppress(OSError):
            os.close(pipe)
    _workshop = _Workshop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def helpers() -> int:
    """How many processes may compile beside this one: as many as there are other processors to use, but not many."""
    return 0 if getattr(sys, "frozen", False) or not sys.executable else min(threads() - 1, _MOST)


def compiled(wanted: Sequence[Wanted]) -> None:
    """Compile what is not known yet, together with other processes.

    Args:
        wanted: needed now.
    """
    _workshop.add(wanted, helpers())
    _workshop.compile(wanted)


def _helper() -> subprocess.Popen[bytes]:
    places = [os.fspath(each) for each in sys.path if isinstance(each, str | os.PathLike)]
    program = f"import sys; sys.path[:] = {places!r}; from neko_rules.kernels.ahead import serve; serve()"
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=quiet)


def _ask(pipe: IO[bytes], wanted: Wanted) -> None:
    function: Any = wanted.run
    file = function.py_func.__globals__["__file__"]
    # Its compiler asks what is called at addresses.
    pickle.dump((*_name(function), file, wanted.types, _called.copy()), pipe)
    pipe.flush()


def serve() -> None:
    """Compile what comes in by standard input; standard output has a byte when that can begin, and one for each."""
    import numba  # noqa: F401 - which takes most of the time until then

    # What is printed would be taken for answers, and fill a pipe that nobody empties: it goes where errors do.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    while True:
        answers.write(_ANSWER)
        try:
            module, name, file, types, calls = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        # Generated modules import each other by their names.
        if module.startswith(GENERATED) and (folder := str(Path(file).parent)) not in sys.path:
            sys.path.append(folder)
        _called.update(calls)
        # The times of folders may be too coarse to tell that a module has come.
        importlib.invalidate_caches()
        Wanted(getattr(importlib.import_module(module), name), types).compile()
