"""Where the time of a training step goes: shares of the functions that take most of it, by workload.

    python benchmarks/speed_profile.py                                  # NumPy backend, e-prop, workloads A, B and C
    python benchmarks/speed_profile.py --backend torch --rule bptt --workloads B --docs

Python's own profiler over some steps after the first ones: a function's time is what it and compiled code that it calls
take, without the Python functions that it calls. Profiling makes each call of a Python function dearer, so shares of
small functions are too large rather than too small. With --docs the tables go to docs/speed.md.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import argparse  # noqa: E402
import cProfile  # noqa: E402
import pstats  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from neko_rules.experiments.benchmark import Contender, neko  # noqa: E402
from neko_rules.experiments.workloads import WORKLOADS  # noqa: E402
from speed.tables import write_block  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def shares(contender: Contender, steps: int, count: int) -> tuple[float, list[tuple[float, float, str]]]:
    """Seconds per step without the profiler; share, calls per step and name of the functions that take most."""
    for _ in range(3):
        contender.step()
    begin = time.process_time()
    for _ in range(steps):
        contender.step()
    seconds = (time.process_time() - begin) / steps
    profile = cProfile.Profile(time.process_time)
    for _ in range(steps):
        profile.runcall(contender.step)
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    rows = [(own / total, calls / steps, named(*place)) for place, (_, calls, own, _, _) in stats.items()]
    return seconds, sorted(rows, reverse=True)[:count]


def named(file: str, line: int, function: str) -> str:
    """A function as a table calls it: its module in this package, or what the profiler says of compiled code."""
    if file == "~":
        return function.strip("<>").replace("built-in method ", "").replace("method ", "")
    path = Path(file)
    if path.is_relative_to(ROOT):
        return f"{path.relative_to(ROOT).with_suffix('')}: {function}"
    return f"{path.stem}: {function}"


def table(workload: str, backend: str, rule: str, steps: int, count: int) -> str:
    """The profile of one workload as Markdown."""
    task = WORKLOADS[workload]
    seconds, rows = shares(neko(task, 1, backend=backend, rule=rule), steps, count)
    lines = [f"**{task.title()}; {backend}, {rule}, 1 thread: {1e3 * seconds:.1f} ms of the processor per step**", ""]
    lines += ["| share | calls per step | function |", "|--:|--:|---|"]
    lines += [f"| {100 * share:.0f} % | {calls:.0f} | `{name}` |" for share, calls, name in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rule", default="eprop")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["A", "B", "C"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--count", type=int, default=10, help="functions to list")
    parser.add_argument("--docs", action="store_true", help="write the tables to docs/speed.md")
    given = parser.parse_args()
    text = "\n\n".join(table(name, given.backend, given.rule, given.steps, given.count) for name in given.workloads)
    print(text)
    if given.docs:
        write_block(ROOT / "docs" / "speed.md", text, "profile")


if __name__ == "__main__":
    main()
