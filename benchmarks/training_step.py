"""Time per training step: every backend and rule beside a plain PyTorch loop, interleaved on one thread.

    python benchmarks/training_step.py                 # 128 recurrent ALIF, 28 inputs, 28 steps, batch 128
    python benchmarks/training_step.py --hidden 256 --inputs 80 --steps 200 --batch 32 --rounds 10

Every round times each contender once, in turn, so that drifting machine speed hits all alike; the ratio to the plain
loop is taken within the round. A contender's time in a round is the median of a few steps; compilation and warm-up are
timed apart. Needs the torch extra; backends whose library is missing are left out of the table by name.
"""

from __future__ import annotations

import os

THREADS = "1"
for _variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
):
    os.environ[_variable] = THREADS
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from plain_torch import training_step  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from neko_rules import ALIF, BPTT, EProp, Evaluator  # noqa: E402
from neko_rules.backend import BUILT_IN, is_installed  # noqa: E402

PLAIN = ("plain loop", "torch autograd")
Contender = tuple[str, str]


def contenders(x: np.ndarray, y: np.ndarray, hidden: int, outputs: int) -> dict[Contender, Callable[[], object]]:
    """A closure per backend and rule that makes one training step."""
    found: dict[Contender, Callable[[], object]] = {PLAIN: training_step(x, y, hidden, outputs)}
    for backend in BUILT_IN:
        if not is_installed(backend):
            print(f"left out: {backend} (not installed)")
            continue
        for name, rule_class in (("BPTT", BPTT), ("EProp", EProp)):
            rule = rule_class(Evaluator(ALIF(hidden, outputs, backend=backend)))
            found[backend, name] = partial(rule.step, x, y)
    return found


def measure(
    steppers: dict[Contender, Callable[[], object]], rounds: int, repeats: int
) -> dict[Contender, dict[str, float]]:
    """Seconds per step by contender: median and quartiles over rounds, ratio to the plain loop, first call."""
    first: dict[Contender, float] = {}
    seconds: dict[Contender, list[float]] = {key: [] for key in steppers}
    for key, step in steppers.items():
        start = time.perf_counter()
        step()
        first[key] = time.perf_counter() - start
        for _ in range(3):
            step()
    for _ in track(range(rounds), description="rounds"):
        for key, step in steppers.items():
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                step()
                times.append(time.perf_counter() - start)
            seconds[key].append(statistics.median(times))
    results = {}
    for key, values in seconds.items():
        ratios = [mine / plain for mine, plain in zip(values, seconds[PLAIN], strict=True)]
        low, median, high = np.percentile(values, [25, 50, 75])
        results[key] = {
            "median": median,
            "low": low,
            "high": high,
            "ratio": statistics.median(ratios),
            "first": first[key],
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {
        "hidden": 128,
        "inputs": 28,
        "steps": 28,
        "batch": 128,
        "outputs": 10,
        "rounds": 15,
        "repeats": 5,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    x = (rng.random((options.batch, options.steps, options.inputs)) < 0.2).astype(np.float32)
    y = rng.integers(0, options.outputs, options.batch)
    results = measure(contenders(x, y, options.hidden, options.outputs), options.rounds, options.repeats)
    title = (
        f"{options.hidden} recurrent ALIF, {options.inputs} inputs, T {options.steps}, batch {options.batch}, 1 thread"
    )
    table = Table(title=title)
    for heading in ("backend", "rule"):
        table.add_column(heading)
    for heading in ("ms per step", "quartiles", "plain loop = 1", "first call s"):
        table.add_column(heading, justify="right")
    for (backend, rule), r in results.items():
        spread = f"{1e3 * r['low']:.1f} to {1e3 * r['high']:.1f}"
        table.add_row(backend, rule, f"{1e3 * r['median']:.2f}", spread, f"{r['ratio']:.2f}", f"{r['first']:.2f}")
    Console(width=110).print(table)
    if options.json:
        rows = [{"backend": b, "rule": r, **values} for (b, r), values in results.items()]
        options.json.write_text(
            json.dumps(
                {"machine": platform.processor(), "workload": vars(options) | {"json": None}, "rows": rows}, indent=1
            )
        )


if __name__ == "__main__":
    main()
