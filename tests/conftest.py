"""What all tests share: one thread for every library, the backends, and the data folder beside the repository.

Three environment variables turn what would be skipped into failures:

    NEKO_REQUIRE_BACKENDS=1    every array library must be installed
    NEKO_REQUIRE_BROWSER=1     Chromium and node must be installed, in which the HTML report is opened
    NEKO_REQUIRE_SHARED=1      the folder ``shared`` must lie beside the repository, and no test that reads it may skip
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal

# A job started in the background by a script has Ctrl-C ignored, and Python then installs no handler for it; the tests
# of an interrupted run send that signal, to themselves and to subprocesses.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any import that starts threads: a second thread makes stepping small matrices slower by one or two orders of
# magnitude on a small machine, and sums in another order. Subprocesses inherit this.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    VECLIB_MAXIMUM_THREADS="1",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="3",  # TensorFlow announces its processor features and missing GPUs on stderr
    TF_ENABLE_ONEDNN_OPTS="0",
    NPROC="1",  # the size of XLA's thread pool
)

# Triton before TensorFlow: PyTorch loads it when it first looks for compilers, and a process that has both ends there
# if TensorFlow came first (Triton 3.9 and TensorFlow 2.21, each with an LLVM of its own).
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

import ctypes
import gc
import mmap
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from trees import converted

from neko_rules.backend import BUILT_IN, get_backend, is_installed

# What tests give to XLA runs for milliseconds and takes seconds to compile. It takes a third to a half of that, in JAX
# and in TensorFlow, where machine code is not optimised and loops are written in an older way. All that XLA does to
# operations before that is as users have it; and some tests run once more by what users have, in
# test_optimised_by_xla.py. Where XLA_FLAGS is set it stays as it is: XLA_FLAGS= runs all tests by what users have.
QUICK = ("xla_backend_optimization_level=0", "xla_cpu_use_fusion_emitters=false")


def _knows(library: str, flags: tuple[str, ...]) -> bool:
    """Whether the name of every flag is in the library: XLA ends a process that gives it one that it does not know.

    Searched for in the files themselves, which takes a tenth of a second; to import both libraries takes ten.
    """
    found = importlib.util.find_spec(library)
    wanted = {flag.split("=")[0].encode() for flag in flags}
    for folder in (found.submodule_search_locations or ()) if found else ():
        for file in [each for each in Path(folder).iterdir() if {".so", ".dylib", ".pyd"} & set(each.suffixes)]:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
                wanted -= {name for name in wanted if text.find(name) >= 0}
    return found is None or not wanted


# Before either library is imported. Subprocesses inherit this too, pytest-xdist's workers among them.
if "XLA_FLAGS" not in os.environ and _knows("jaxlib", QUICK) and _knows("tensorflow", QUICK):
    os.environ["XLA_FLAGS"] = " ".join(f"--{flag}" for flag in QUICK)

# The rule of the tutorial is registered before any test asks which rules there are: they run on it like on any other.
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_spec = importlib.util.spec_from_file_location("user_rule", EXAMPLES / "user_rule.py")
assert _spec is not None
assert _spec.loader is not None
_spec.loader.exec_module(importlib.util.module_from_spec(_spec))

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def required(what: str) -> bool:
    return os.environ.get(f"NEKO_REQUIRE_{what}", "") not in ("", "0")


def pytest_configure() -> None:
    missing = [name for name in BUILT_IN if not is_installed(name)]
    if required("BACKENDS") and missing:
        raise pytest.UsageError(f"NEKO_REQUIRE_BACKENDS is set, but not installed: {', '.join(missing)}")
    if required("SHARED") and not SHARED.is_dir():
        raise pytest.UsageError(f"NEKO_REQUIRE_SHARED is set, but there is no folder {SHARED}")


def pytest_collection_finish() -> None:
    """Look for garbage less often: compiling and tracing make objects by the million, few of which are any.

    By itself Python looks through the young ones after every 700, and ever so often through all that the libraries
    hold, which is left out here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 5)


def pytest_unconfigure() -> None:
    # Extension modules complain at the end of what was not freed.
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def _memory_handed_back() -> Generator[None, None, None]:
    """Let go of what JAX has compiled for a file, and of what the allocator keeps: two workers took 20 GB otherwise."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc's
            trim(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NEKO_REQUIRE_SHARED, a skip in a file that reads the shared folder is a failure, whatever its reason."""
    report = yield
    reads_shared = "shared" in item.path.read_text(encoding="utf-8").lower()
    if report.skipped and not hasattr(report, "wasxfail") and required("SHARED") and reads_shared:
        report.outcome = "failed"
        report.longrepr = f"skipped although NEKO_REQUIRE_SHARED is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and golden files beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("there is no folder 'shared' beside the repository")
    return SHARED


def _installed(name: str) -> str:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(params=list(BUILT_IN))
def backend(request: pytest.FixtureRequest) -> str:
    """The name of one built-in backend after the other."""
    return _installed(request.param)


@pytest.fixture(params=[name for name in BUILT_IN if name != "numpy"])
def autodiff_backend(request: pytest.FixtureRequest) -> str:
    """The name of one backend with automatic differentiation after the other."""
    return _installed(request.param)


@pytest.fixture
def evaluate(backend: str) -> Callable[..., Any]:
    """Runs function(nx, *arrays) compiled on one backend after the other, NumPy arrays in and out."""
    nx = get_backend(backend)

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        result = nx.jit(lambda *arrays: function(nx, *arrays))(*converted(nx.asarray, arguments))
        return converted(nx.to_numpy, result)

    return run
