"""Ahead: kernels are compiled by other processes too, and machine code on disk is that of the types that it is for."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.core.errors import TypingError

from neko_rules import ALIF, LIF, EProp, Evaluator
from neko_rules.chains import running
from neko_rules.chains.linked import Linked
from neko_rules.kernels import ahead, machine_code
from neko_rules.kernels.ahead import Wanted, called, compiled, helpers
from neko_rules.kernels.calling import address_of
from neko_rules.kernels.compiling import GENERATED, folder
from neko_rules.kernels.machine_code import MachineCode, on_disk
from neko_rules.threads import set_threads, threads

TYPES = (numba.float64, numba.float64)
LONG = 250
"""Statements that are worth a process: some thousand bytes of instructions."""


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = threads()
    set_threads(2)
    yield
    set_threads(before)


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> ahead._Workshop:
    """One of which nobody else knows, whose processes wait for more no longer than a test does."""
    own = ahead._Workshop()
    monkeypatch.setattr(ahead, "_workshop", own)
    monkeypatch.setattr(ahead, "_IDLE", 0.5)
    return own


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Makes a module of long kernels ``run0``, ``run1``, … that find x · 2 + y."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name: str, statements: int = LONG, kernels: int = 3) -> ModuleType:
        lines = ["from neko_rules.kernels.compiling import kernel"]
        for i in range(kernels):
            body = ["    z = x + y", *["    z = z * 1.0 + 0.0"] * (statements - i), "    return z + x"]
            lines += ["", "", "@kernel", f"def run{i}(x, y):", *body]
        (tmp_path / f"{name}.py").write_text("\n".join(lines) + "\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return made


def wanted_of(module: ModuleType, kernels: int = 3) -> list[Wanted]:
    return [Wanted(getattr(module, f"run{i}"), TYPES) for i in range(kernels)]


def found_on_disk(wanted: Wanted) -> int:
    """How often this process has loaded it."""
    function: Any = wanted.run
    return int(function.stats.cache_hits[TYPES])


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def assert_compiled_by_another(workshop: ahead._Workshop, wanted: list[Wanted]) -> None:
    """Nothing is compiled here until all of it is on disk, and nothing after."""
    workshop.add(wanted, helpers())
    until(lambda: all(on_disk(each.run, TYPES) for each in wanted) and not workshop.begun)
    assert not any(map(found_on_disk, wanted))
    compiled(wanted)
    assert all(found_on_disk(each) == 1 for each in wanted)
    assert_run(wanted)


def assert_run(wanted: list[Wanted]) -> None:
    for each in wanted:
        assert each.run(1.5, 2.0) == 5.0


# Other processes.


@pytest.mark.usefixtures("two_threads")
def test_another_process_compiles_and_this_one_loads(
    workshop: ahead._Workshop, make: Callable[..., ModuleType]
) -> None:
    wanted = wanted_of(make("by_another"))
    workshop.add(wanted, helpers())
    assert workshop.helpers == 1
    assert_compiled_by_another(workshop, wanted)
    until(lambda: workshop.helpers == 0)


@pytest.mark.usefixtures("two_threads")
def test_both_take_the_longest_that_nobody_has_begun(
    workshop: ahead._Workshop, make: Callable[..., ModuleType]
) -> None:
    module = make("by_both")
    wanted = wanted_of(module)
    taken: list[int] = []
    workshop._helped = lambda: None  # type: ignore[method-assign]
    workshop.add(wanted[::-1], helpers())
    assert [each.size for each in workshop.waiting] == sorted((each.size for each in wanted), reverse=True)
    workshop.add(wanted, helpers())
    assert len(workshop.waiting) == 3, "nothing is waited for twice"
    while (one := workshop._taken(None)) is not None:
        taken.append(wanted.index(one))
    assert taken == [0, 1, 2]


def test_no_process_is_started_by_one_thread_or_for_little(
    workshop: ahead._Workshop, make: Callable[..., ModuleType]
) -> None:
    before = threads()
    try:
        set_threads(1)
        assert helpers() == 0
        workshop.add(wanted_of(make("one_thread")), helpers())
        assert workshop.helpers == 0
        set_threads(64)
        assert helpers() == 3
        workshop.waiting.clear()
        workshop.add(wanted_of(make("little", statements=3)), helpers())
        assert workshop.helpers == 0
    finally:
        set_threads(before)


def test_what_is_known_is_not_put_on_the_list(workshop: ahead._Workshop, make: Callable[..., ModuleType]) -> None:
    wanted = wanted_of(make("known", statements=3))
    compiled(wanted[:1])
    workshop.add(wanted, helpers())
    assert workshop.waiting == wanted[1:]
    again = wanted_of(make("known", statements=3))
    assert again[0].run is not wanted[0].run
    assert again[0].known, "on disk"
    assert not again[1].known


def test_who_watches_is_told_how_far_it_is_where_that_takes_seconds(
    workshop: ahead._Workshop, make: Callable[..., ModuleType]
) -> None:
    told: list[tuple[int, int]] = []

    def noted(done: int, of: int) -> None:
        told.append((done, of))

    ahead.watch(noted)
    try:
        compiled(wanted_of(make("watched")))
        assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
        compiled(wanted_of(make("little_is_not_told", statements=3)))
        compiled(wanted_of(make("watched")))
        assert len(told) == 4, "little, and what is on disk"
    finally:
        ahead.unwatch(noted)
    compiled(wanted_of(make("not_watched")))
    assert len(told) == 4
    ahead.unwatch(noted)


@pytest.mark.usefixtures("two_threads")
def test_what_a_process_prints_is_no_answer(
    workshop: ahead._Workshop, make: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds: with NUMBA_DUMP_LLVM it waited for ever for somebody to read it, and all for it."""
    monkeypatch.setenv("NUMBA_DUMP_LLVM", "1")
    assert_compiled_by_another(workshop, wanted_of(make("printed", statements=2 * LONG)))


@pytest.mark.usefixtures("two_threads")
def test_a_process_finds_modules_by_paths_of_any_kind(
    workshop: ahead._Workshop, make: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make("by_path")
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path[1:]])
    wanted = wanted_of(module)
    assert not all(isinstance(each, str) for each in sys.path)
    assert_compiled_by_another(workshop, wanted)


@pytest.mark.usefixtures("two_threads")
def test_without_more_threads_there_is_less_help(
    workshop: ahead._Workshop, make: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        compiled(wanted_of(make("no_thread")))
    assert workshop.helpers == 0
    workshop.add(wanted_of(make("a_thread_again")), helpers())
    assert workshop.helpers == 1
    until(lambda: workshop.helpers == 0)


def test_what_fails_is_nobody_else_s(workshop: ahead._Workshop, make: Callable[..., ModuleType]) -> None:
    good = wanted_of(make("a_good_one", statements=3))
    with pytest.raises(TypingError):
        compiled([Wanted(each.run, (numba.types.none, numba.types.none)) for each in good])
    assert not workshop.waiting
    assert not workshop.begun
    compiled(good)
    assert_run(good)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("where", ["taken", "compiling"])
def test_an_interruption_leaves_nothing_that_looks_begun(
    where: str, workshop: ahead._Workshop, make: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wanted_of(make(f"interrupted_{where}", statements=3))
    right = workshop._taken

    def taken(*given: Any) -> Wanted | None:
        right(*given)
        raise KeyboardInterrupt

    def interrupted(_: Wanted) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "taken":
            patch.setattr(workshop, "_taken", taken)
        else:
            patch.setattr(Wanted, "compile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compiled(wanted)
    assert not workshop.begun
    compiled(wanted)
    assert_run(wanted)


NOBODY: dict[str, list[str]] = {
    "it is not there": ["/nowhere/python"],
    "it ends at once": [sys.executable, "-c", "pass"],
    "it ends when it is asked": [
        sys.executable,
        "-c",
        "import sys; print('!', end='', flush=True); sys.stdin.buffer.read(1)",
    ],
}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("why", NOBODY)
def test_what_a_process_leaves_is_compiled_here(
    why: str, workshop: ahead._Workshop, make: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started() -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(NOBODY[why], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet)

    monkeypatch.setattr(ahead, "_helper", started)
    wanted = wanted_of(make("left_" + why.replace(" ", "_"), kernels=2), 2)
    workshop.add(wanted, helpers())
    until(lambda: workshop.helpers == 0)
    assert not workshop.begun
    compiled(wanted)
    assert_run(wanted)
    assert not any(map(found_on_disk, wanted))


@pytest.mark.usefixtures("two_threads")
def test_errors_of_the_compiler_are_those_of_who_needs_the_kernel(
    workshop: ahead._Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "\n".join(["    x = x.nothing"] * LONG)
    kernels = "".join(f"\n\n\n@kernel\ndef run{i}(x, y):\n{body}\n" for i in range(2))
    (tmp_path / "wrong.py").write_text("from neko_rules.kernels.compiling import kernel" + kernels)
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = wanted_of(importlib.import_module("wrong"), 2)
    with pytest.raises(TypingError, match="nothing"):
        compiled(wanted)
    until(lambda: workshop.helpers == 0)
    assert not workshop.begun


FORKED = """
import os, sys
sys.path[:] = {path!r}
import by_the_forked as module
from neko_rules.kernels.ahead import Wanted, compiled, _workshop
from neko_rules.threads import set_threads
import numba
set_threads(2)
wanted = [Wanted(getattr(module, f"run{{i}}"), (numba.float64, numba.float64)) for i in range(3)]
_workshop.add(wanted, 1)
child = os.fork()
compiled(wanted)
assert [each.run(1.5, 2.0) for each in wanted] == [5.0] * 3
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("both")
"""


LEFT_BY_A_FORK = """
import os, sys, time
sys.path[:] = {path!r}
import left_by_a_fork as module
from neko_rules.kernels import ahead
import numba
ahead._IDLE = 0.5
wanted = [ahead.Wanted(getattr(module, f"run{{i}}"), (numba.float64, numba.float64)) for i in range(3)]
started = []
helper = ahead._helper
ahead._helper = lambda: started.append(helper()) or started[0]
ahead._workshop.add(wanted, 1)
while not started or ahead._workshop.waiting:
    time.sleep(0.05)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
end = time.monotonic() + 30
while ahead._workshop.helpers and time.monotonic() < end:
    time.sleep(0.05)
while started[0].poll() is None and time.monotonic() < end:
    time.sleep(0.05)
print(ahead._workshop.helpers, started[0].poll())
os.kill(child, 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
def test_a_forked_process_keeps_no_other_waiting(make: Callable[..., ModuleType]) -> None:
    """It has the pipe that says by its end that nothing comes any more."""
    make("left_by_a_fork")
    program = LEFT_BY_A_FORK.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0 0\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
def test_a_forked_process_waits_for_nobody_of_the_other(make: Callable[..., ModuleType]) -> None:
    make("by_the_forked")
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(path=sys.path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "both\n", done.stderr


def test_a_function_at_an_address_is_called_with_types_that_it_is_compiled_for(
    make: Callable[..., ModuleType], tmp_path: Path
) -> None:
    """Planted: nobody has said so. Called at the address of another, it would work on other memory."""

    def calling(name: str) -> Wanted:
        (tmp_path / f"calls_{name}.py").write_text(
            f"from {name} import run0\nfrom neko_rules.kernels.calling import call\n"
            "from neko_rules.kernels.compiling import kernel\n\n\n"
            "@kernel\ndef run(addresses, x):\n    call(run0, addresses, 0, (x, x))\n"
        )
        types = (numba.types.Array(numba.int64, 1, "C"), numba.float64)
        return Wanted(importlib.import_module(f"calls_{name}").run, types)

    make("never_said", statements=1, kernels=1)
    with pytest.raises(TypingError, match="run0 is called at an address with types for which nobody compiles it"):
        calling("never_said").compile()
    module = make("said_before", statements=1, kernels=1)
    called([Wanted(module.run0, TYPES)])
    calling("said_before").compile()
    assert address_of(Wanted(module.run0, TYPES))


START = """
from neko_rules import ALIF, EProp, Evaluator
from neko_rules.experiments.workloads import WORKLOADS
x, y = WORKLOADS["A"].data()
print(repr(EProp(Evaluator(ALIF(128, 10, seed=0))).step(x, y)))
"""


def test_a_first_step_that_is_compiled_by_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """And all of its own kernels are on disk, each once."""
    said, kept = [], []
    for number in ("1", "2"):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / number), "NEKO_THREADS": number}
        done = subprocess.run(
            [sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True
        )
        said.append(done.stdout)
        files = (tmp_path / number / "neko_rules" / "kernels" / "__pycache__").glob(f"{GENERATED}*.nbc")
        kept.append(sorted(file.name.split(".")[0] for file in files))
    assert said[0] == said[1]
    assert kept[0] == kept[1]
    assert len(kept[0]) >= 5


@pytest.mark.parametrize("online", [False, True, 20])
def test_a_chain_is_called_with_the_types_that_it_was_compiled_for(
    online: bool | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for others, it would be compiled once more by its first call."""
    chains: list[Any] = []
    planned = running.planned

    def noted(links: Linked, *given: Any) -> running.Plan:
        chains.append(links.chain)
        return planned(links, *given)

    monkeypatch.setattr(running, "planned", noted)
    random = np.random.default_rng(0)
    x, y = (random.random((32, 60, 40)) < 0.1).astype(np.float32), random.integers(0, 10, 32)
    for model in (LIF, ALIF):
        rule = EProp(Evaluator(model(32, 10)), online=online)
        rule.step(x, y)
        rule.model.evaluate(x, y)
        rule.model.predict(x)
    assert len(chains) == 6
    for chain in chains:
        assert list(chain.run.overloads) == [chain.whole.types]


# On disk.


def _numbered(place: Path) -> Any:
    return IndexDataCacheFile(str(place), "run-1.py3", ("stamp", 1))


def test_numbered_files_may_hold_what_another_process_compiled_for_other_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Numba's own files do when two processes save at the same time, and named ones do not."""
    one, other = _numbered(tmp_path), _numbered(tmp_path)
    # Each looks at the index before the other writes it, and one is slower to write what it compiled.
    late: list[tuple[str, str]] = []
    monkeypatch.setattr(one, "_save_data", lambda *given: late.append(given))
    monkeypatch.setattr(other, "_load_index", dict)
    one.save("float32", "for float32")
    other.save("float64", "for float64")
    IndexDataCacheFile._save_data(one, *late[0])
    assert _numbered(tmp_path).load("float64") == "for float32"

    first, second = (MachineCode(_numbered(tmp_path), "release") for _ in range(2))
    first.save("float32", "for float32")
    second.save("float64", "for float64")
    assert first.load("float32") == second.load("float32") == "for float32"
    assert first.load("float64") == second.load("float64") == "for float64"
    assert first.load("int64") is None


def test_processes_of_one_number_save_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that share a folder have processes of the same numbers."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    files = [MachineCode(_numbered(tmp_path), "release") for _ in range(2)]
    wrong: list[object] = []

    def save(own: MachineCode) -> None:
        for _ in range(200):
            try:
                own.save("key", "a" * 10_000)
                if own.load("key") != "a" * 10_000:
                    wrong.append("half of it")
            except Exception as error:
                wrong.append(error)

    threads_ = [threading.Thread(target=save, args=(own,)) for own in files]
    for each in threads_:
        each.start()
    for each in threads_:
        each.join()
    assert wrong == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".nbc"], "nothing unfinished is left"


def test_machine_code_of_another_release_is_another_file(tmp_path: Path) -> None:
    old, new = (MachineCode(_numbered(tmp_path), release) for release in ("old", "new"))
    old.save("key", 1)
    assert new.load("key") is None
    new.save("key", 2)
    assert (old.load("key"), new.load("key")) == (1, 2)
    new.flush()
    assert (old.load("key"), new.load("key")) == (1, None)


def test_machine_code_is_forgotten_once_nobody_has_used_it_for_long(tmp_path: Path) -> None:
    files = MachineCode(_numbered(tmp_path), "release")
    files.save("used", 1)
    files.save("unused", 2)
    others = ["run-1.py3.1.nbc", "run-1.py3.nbi", "a_module.py", "a_module.pyc"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    long_ago = time.time() - machine_code._KEPT - 60
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert files.load("used") == 1
    files.save("later", 3)
    assert files.load("unused") == 2, "a process looks once"
    os.utime(files.path("unused"), (long_ago, long_ago))
    machine_code._forget_unused.cache_clear()
    files.save("last", 4)
    assert [files.load(key) for key in ("used", "unused", "later", "last")] == [1, None, 3, 4]
    left = {path.name for path in tmp_path.iterdir() if path.suffix not in (".nbc", ".nbi")}
    assert left == set(others[2:]), "nothing else is deleted"
    assert not any((tmp_path / name).exists() for name in others[:2]), "what Numba numbered"


def test_what_numba_keeps_of_kernels_is_in_named_files() -> None:
    from neko_rules.kernels.gathering import from_events

    function: Any = from_events
    assert isinstance(function._cache._cache_file, MachineCode)
    assert folder().name == "kernels"
