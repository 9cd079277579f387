"""A quick benchmark: seconds per training step of every installed backend on this machine, within a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from neko_rules import arguments
from neko_rules.backend import BUILT_IN, available, is_installed
from neko_rules.errors import ArgumentError, nearest
from neko_rules.experiments.benchmark import Case, Result, Worker, make, time_rounds
from neko_rules.experiments.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from rich.console import RenderableType

RULES = {"bptt": "BPTT", "eprop": "e-prop"}
DEFAULT = (WORKLOADS["A"], WORKLOADS["B"])

PREPARING = 0.6
"""Share of the time in which contenders are made; one that has not been begun by then is left out."""

ROUNDS = 20
"""After so many rounds the medians no longer move, even if time is left."""

CAPTION = (
    "ms per step: the median over the rounds. fastest = 1: the ratio to the fastest, taken within every round, in "
    "which both meet the same load of the machine, and then the median; it may differ from the ratio of the medians."
)


def quick_benchmark(
    backends: Sequence[str] | None = None,
    *,
    threads: int = 1,
    seconds: float = 45.0,
    workloads: Sequence[Workload] = DEFAULT,
) -> list[Result]:
    """Time a training step of every backend, rule and workload, in random order over rounds, with a progress bar.

    Args:
        backends: names; left out, all that are installed.
        threads: CPU threads of each backend, which has a process of its own.
        seconds: time to take in all; what is not ready by then is left out, and says so in ``error``.
        workloads: what to train.

    Raises:
        ArgumentError: a backend is unknown or not installed, or a number is out of range.
    """
    arguments.integer("threads", threads, at_least=1)
    arguments.number("seconds", seconds, above=0)
    names = list(backends) if backends else [name for name in BUILT_IN if is_installed(name)]
    for name in names:
        if name not in available():
            raise ArgumentError("unknown backend", received=name, works=nearest(name, available()))
        if not is_installed(name):
            raise ArgumentError("the library of the backend must be installed", received=name)
    from rich.console import Console
    from rich.progress import Progress

    begin = time.monotonic()
    cases = {
        name: [
            Case(name, workload, options={"backend": name, "rule": rule}, note=rule)
            for workload in workloads
            for rule in RULES
        ]
        for name in names
    }
    workers = [Worker(threads, place=place) for place in range(len(names))]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("first steps", total=sum(map(len, cases.values())))
        lock = threading.Lock()

        def prepared(worker: Worker, several: list[Case]) -> list[tuple[Worker, Result]]:
            found = []
            for case in several:
                if time.monotonic() - begin < PREPARING * seconds:
                    result = make(worker, case, threads, rates=False)
                else:
                    result = Result(case, threads, error="time was up")
                found.append((worker, result))
                with lock:
                    progress.advance(task)
            return found

        try:
            # Each on other cores, as far as there are some; compiling is not what is measured against each other.
            with ThreadPoolExecutor(len(workers)) as pool:
                entries = [entry for found in pool.map(prepared, workers, cases.values()) for entry in found]
            timing = progress.add_task("rounds", total=ROUNDS * len(entries))
            for number, _ in time_rounds(entries, ROUNDS):
                progress.advance(timing)
                # The first round is finished in any case, so that every contender has a figure.
                if number and time.monotonic() - begin > seconds:
                    break
        finally:
            for worker in workers:
                worker.close()
    return [result for _, result in entries]


def table(results: Sequence[Result], threads: int) -> list[RenderableType]:
    """What was measured for the terminal: a table for each workload, the fastest first, and how to read it."""
    from rich.text import Text

    from neko_rules.report.split_table import SplitTable

    parts: list[RenderableType] = []
    for name in dict.fromkeys(result.case.workload.name for result in results):
        mine = [result for result in results if result.case.workload.name == name]
        timed = sorted((result for result in mine if result.seconds), key=lambda result: result.median)
        title = f"{mine[0].case.workload.title()}; {threads} thread{'s' if threads > 1 else ''}"
        shown = SplitTable(names=2, title=title)
        for heading in ("backend", "rule"):
            shown.add_column(heading, style="bold cyan" if heading == "backend" else "")
        for heading in ("ms per step", "quartiles", "fastest = 1", "first step s", "peak MB"):
            shown.add_column(heading, justify="right")
        for result in timed:
            low, high = result.quartiles()
            shown.add_row(
                result.case.label,
                RULES[result.case.note],
                f"{1e3 * result.median:.2f}",
                f"{1e3 * low:.2f} to {1e3 * high:.2f}",
                f"{result.ratio(timed[0]):.2f}",
                f"{result.first_seconds:.1f}",
                f"{result.peak_bytes / 1e6:.0f}",
            )
        parts.append(shown)
        left_out = [f"{r.case.label}, {RULES[r.case.note]}: {r.error}" for r in mine if r.error]
        parts.append(Text("\n".join([*(f"left out: {each}" for each in left_out), ""]), "yellow"))
    return [*parts, Text(CAPTION, "dim")] if any(result.seconds for result in results) else parts
