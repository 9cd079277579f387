"""Benchmark: contenders in processes of their own, timed one step at a time in random order over rounds.

Frameworks that share a process share its threads and its memory, and a machine that others use is fast at one moment
and slow at the next. Every contender is therefore a process that is kept alive and asked for a step when its turn
comes; every round asks all of them, in an order drawn anew, and ratios are taken within a round.

A contender is named ``module:function``; the function makes from a Workload something with ``step() -> loss`` and
``rates() -> spikes per neuron and step of each hidden layer``. Imports NumPy and the standard library alone, so that a
worker can run in an environment without this package's other needs.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from neko_rules.experiments.workloads import Workload
from neko_rules.threads import VARIABLE

THREAD_VARIABLES = (
    VARIABLE,
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""What this package and array libraries read their number of threads from; XLA takes as many as there are cores."""

REPEATED = 0.1
"""Seconds that a contender gets in its turn: a step that is shorter is repeated, and the median of the repeats kept."""

WARM = 3
"""Steps after the first that no figure counts: some libraries compile again in the second and the third."""

NEKO = "neko_rules.experiments.benchmark:neko"


class Contender(Protocol):
    """One way of making a training step of a workload."""

    def step(self) -> float:
        """Make a whole training step from the batch as NumPy arrays, and return its loss."""

    def rates(self) -> list[float]:
        """Spikes per neuron and time step of each hidden layer, as the contender has them now."""


@dataclass(frozen=True)
class Case:
    """A contender on a workload.

    Args:
        label: what tables call it.
        workload: the task.
        contender: ``module:function``, which is called with the workload, the number of threads and the options.
        options: further arguments of the function.
        peer: whether the fastest of its kind is what ratios are taken to.
        note: in what it differs from the workload, if it does.
    """

    label: str
    workload: Workload
    contender: str = NEKO
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False
    note: str = ""

    @property
    def key(self) -> str:
        """What a worker knows it by."""
        return f"{self.label}/{self.workload.name}/{self.note}"


@dataclass
class Result:
    """What was measured of a case: seconds per step by round, of the wall and of the processor."""

    case: Case
    threads: int
    import_seconds: float = 0.0
    build_seconds: float = 0.0
    first_seconds: float = 0.0
    loss: float = float("nan")
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    peak_bytes: int = 0
    error: str = ""

    @property
    def median(self) -> float:
        """Median seconds per step."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")

    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the seconds per step."""
        low, high = np.percentile(self.seconds, [25, 75]) if self.seconds else (float("nan"), float("nan"))
        return float(low), float(high)

    def ratio(self, other: Result) -> float:
        """Seconds per step in units of another's: the median over the rounds that both have."""
        theirs = dict(zip(other.rounds, other.seconds, strict=True))
        mine = zip(self.rounds, self.seconds, strict=True)
        shared = [seconds / theirs[number] for number, seconds in mine if number in theirs]
        return float(np.median(shared)) if shared else float("nan")

    def summary(self) -> dict[str, Any]:
        """Everything, in values that JSON can hold."""
        low, high = self.quartiles()
        figures = {name: value for name, value in vars(self).items() if name != "case"}
        cpu = float(np.median(self.cpu_seconds)) if self.cpu_seconds else float("nan")
        return {**asdict(self.case), **figures, "median": self.median, "low": low, "high": high, "cpu": cpu}


def fastest_peer(results: Sequence[Result]) -> Result | None:
    """The peer with the smallest median, if there is any."""
    peers = [result for result in results if result.case.peer and result.seconds]
    return min(peers, key=lambda result: result.median) if peers else None


# The worker: one process, one case or several.


def neko(
    workload: Workload, threads: int, *, backend: str, rule: str, alone: bool = False, **options: Any
) -> Contender:
    """This package on a workload.

    Args:
        workload: the task.
        threads: how many the process has.
        backend: name of the array library.
        rule: name of the learning rule.
        alone: whether the library computes all of a step, where loops of NumPy's may take it.
        options: further arguments of the rule.
    """
    return (_ByLibrary if alone else _Neko)(workload, backend, rule, options)


class _Neko:
    """A rule of this package, stepped on the workload's batch."""

    def __init__(self, workload: Workload, backend: str, rule: str, options: Mapping[str, Any]) -> None:
        from neko_rules import Evaluator
        from neko_rules.experiments.workloads import FAST_SIGMOID_SLOPE, LEARNING_RATE, TRIANGULAR_PEAK
        from neko_rules.layers.models import Layer, Stack
        from neko_rules.rules import RULES

        surrogate = {
            "triangular": {"name": "triangular", "gamma": TRIANGULAR_PEAK},
            "fast_sigmoid": {"name": "fast_sigmoid", "slope": FAST_SIGMOID_SLOPE},
        }[workload.surrogate]
        cell = {"name": workload.cell, "surrogate": surrogate}
        layers = [Layer(cell, size, recurrent=workload.recurrent) for size in workload.hidden]
        network = Stack(layers, workload.outputs, inputs=workload.inputs, backend=backend)
        names = ["hidden"] if len(layers) == 1 else [f"hidden{place}" for place in range(len(layers))]
        given = workload.weights()
        weights = {"readout.input.weight": given["readout"]}
        for place, name in enumerate(names):
            weights[f"{name}.input.weight"] = given[f"input{place}"]
            if workload.recurrent:
                weights[f"{name}.recurrent.weight"] = given[f"recurrent{place}"]
        network.set_parameters(weights)
        self.x, self.y = workload.data()
        self.names = names
        self.rule = RULES.create(
            rule, {"optimizer": {"name": "adam", "learning_rate": LEARNING_RATE}, **options}, Evaluator(network)
        )

    def step(self) -> float:
        """A step of training, and its loss."""
        return self.rule.step(self.x, self.y)["loss"]

    def rates(self) -> list[float]:
        """Spikes per step of every hidden layer."""
        trajectory = self.rule.model.trajectory(self.x[:8])
        return [float(trajectory.z(name).mean()) for name in self.names]


class _ByLibrary(_Neko):
    """The same without loops of NumPy's."""

    def step(self) -> float:
        from neko_rules.kernels.host import by_library

        with by_library():
            return super().step()


def peak_bytes() -> int:
    """The most memory that this process has held so far; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _timed(function: Callable[[], float], seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of the wall and of the processor of each call, for so long, at least one and at most 50.

    One call more goes before, so that the caches, and the memory that was given back, are this contender's again.
    """
    wall: list[float] = []
    cpu: list[float] = []
    function()
    while not wall or (sum(wall) < seconds and len(wall) < 50):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
    return wall, cpu


def _give_back() -> None:
    """Return freed memory to the system, since dozens of processes that wait would hold it otherwise."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # Another C library: it keeps what it has.


def _made(order: Mapping[str, Any], threads: int) -> tuple[Contender, dict[str, Any]]:
    """A contender that has made its first steps, and what it took."""
    module, _, name = order["contender"].partition(":")
    begin = time.perf_counter()
    function = getattr(importlib.import_module(module), name)
    imported = time.perf_counter()
    given = dict(order["workload"])
    workload = Workload(**{**given, "hidden": tuple(given["hidden"]), "gains": tuple(given["gains"])})
    made = function(workload, threads, **order["options"])
    built = time.perf_counter()
    loss = made.step()
    first = time.perf_counter()
    for _ in range(WARM):
        made.step()
    rates = made.rates() if order["rates"] else []
    return made, {
        "import_seconds": imported - begin,
        "build_seconds": built - imported,
        "first_seconds": first - built,
        "loss": float(loss),
        "rates": [float(rate) for rate in rates],
    }


def serve(orders: IO[str], replies: IO[str], threads: int) -> None:
    """Answer orders, one JSON object a line, until there are no more; what goes wrong is an answer too."""
    contenders: dict[str, Contender] = {}
    for line in orders:
        order = json.loads(line)
        answer: dict[str, Any]
        try:
            if "make" in order:
                contenders[order["make"]], answer = _made(order, threads)
            else:
                wall, cpu = _timed(contenders[order["time"]].step, order["seconds"])
                answer = {"seconds": float(np.median(wall)), "cpu_seconds": float(np.median(cpu))}
        except Exception as error:  # The process that asks reports it beside the others' figures.
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        _give_back()
        replies.write(json.dumps({**answer, "peak_bytes": peak_bytes()}) + "\n")
        replies.flush()


def main(arguments: Sequence[str]) -> None:
    """The worker's process: ``python -m neko_rules.experiments.benchmark THREADS``."""
    threads = int(arguments[0])
    # What a library prints must not come between the answers.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies, threads)


# The arena: all workers, asked in turn.


class Worker:
    """A process with contenders in it.

    Args:
        threads: how many it may use; it is bound to as many cores where the system can do that.
        python: the interpreter.
        paths: folders where it finds modules before its own, instead of the caller's.
        place: which cores: workers of different places get different ones, as far as they go; the last core is place 0,
            since systems use the first one for themselves.
    """

    def __init__(self, threads: int, python: str = sys.executable, paths: Sequence[Path] = (), place: int = 0) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        if paths:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        environment["TF_CPP_MIN_LOG_LEVEL"] = "2"
        # Lives as long as the process; close() closes it.
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        cores = sorted(os.sched_getaffinity(0), reverse=True) if hasattr(os, "sched_getaffinity") else []
        mine = {cores[(place * threads + number) % len(cores)] for number in range(threads)} if cores else set()
        self.process = subprocess.Popen(
            [python, "-m", "neko_rules.experiments.benchmark", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        if mine:
            # Before it loads any library, so that XLA makes no more threads than it has cores.
            os.sched_setaffinity(self.process.pid, mine)

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to an order."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.log.seek(0)
        said = self.log.read().split("\n")
        return {"error": f"the process ended: {' '.join(said[-4:]).strip()[-300:] or self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                # What is left for a process that has ended is sent once more when its pipe is closed, to nobody.
                with suppress(BrokenPipeError):
                    stream.close()


def make(worker: Worker, case: Case, threads: int, rates: bool = True) -> Result:
    """Have a worker make a case and its first steps, and count its spikes if they are wanted."""
    order = {
        "make": case.key,
        "workload": asdict(case.workload),
        "contender": case.contender,
        "options": dict(case.options),
        "rates": rates,
    }
    return Result(case, threads, **worker.ask(order))


def time_rounds(
    entries: Sequence[tuple[Worker, Result]], rounds: int, seed: int = 0, seconds: float = REPEATED
) -> Iterator[tuple[int, Result]]:
    """Ask every contender for its steps, in another order in every round; tells which has just been asked.

    Args:
        entries: workers, with the results of the cases that they have made, which are added to.
        rounds: how often each is asked.
        seed: of the orders.
        seconds: how long each repeats its step in its turn.
    """
    rng = np.random.default_rng(seed)
    for number in range(rounds):
        for place in rng.permutation(len(entries)):
            worker, result = entries[place]
            if not result.error:
                answer = worker.ask({"time": result.case.key, "seconds": seconds})
                result.error = answer.get("error", "")
                if not result.error:
                    result.seconds.append(answer["seconds"])
                    result.cpu_seconds.append(answer["cpu_seconds"])
                    result.rounds.append(number)
                    result.peak_bytes = answer["peak_bytes"]
            yield number, result


if __name__ == "__main__":
    main(sys.argv[1:])
