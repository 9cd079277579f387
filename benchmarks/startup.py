"""Start-up: seconds from the start of a process to an import, to help, and to the first training step.

    python benchmarks/startup.py                    # medians of nine processes each, on a warm cache
    python benchmarks/startup.py --slowest 5        # and which packages take the time (python -X importtime)

Each figure is of whole processes, interpreter start included, one after the other in turns; a first turn, which fills
the caches of files and of compiled kernels, is not counted. The first training step is e-prop on workload A.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from neko_rules.backend import BUILT_IN, is_installed

STEP = """
from neko_rules import ALIF, EProp, Evaluator
from neko_rules.experiments.workloads import WORKLOADS
x, y = WORKLOADS["A"].data()
EProp(Evaluator(ALIF(128, 10, backend={backend!r}))).step(x, y)"""

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import neko_rules": ["-c", "import neko_rules"],
    "neko --help": ["-m", "neko_rules", "--help"],
    **{
        f"first e-prop step, {backend}": ["-c", STEP.format(backend=backend)]
        for backend in BUILT_IN
        if is_installed(backend)
    },
}

LIMITS = {"import neko_rules": 0.3, "neko --help": 0.5, "first e-prop step, numpy": 3.0}
"""Seconds that users should never wait longer for."""


def seconds(arguments: list[str]) -> float:
    """How long a process takes from its start to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    return time.perf_counter() - begin


def slowest_packages(arguments: list[str], count: int) -> list[tuple[float, str]]:
    """The packages whose modules' own code takes longest to import, in milliseconds."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    own: Counter[str] = Counter()
    for microseconds, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.stderr):
        own[module.split(".")[0]] += int(microseconds)
    return [(taken / 1e3, package) for package, taken in own.most_common(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--slowest", type=int, default=0, help="packages to list for each command")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(given.processes + 1):
        for name, arguments in COMMANDS.items():
            took = seconds(arguments)
            if turn:
                found[name].append(took)
    print("| | seconds, median | fastest | at most |\n|---|--:|--:|--:|")
    for name, values in found.items():
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {limit} |")
    for name, arguments in COMMANDS.items() if given.slowest else ():
        print(f"\n{name}: milliseconds to import, by package")
        for taken, package in slowest_packages(arguments, given.slowest):
            print(f"  {taken:8.1f}  {package}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
