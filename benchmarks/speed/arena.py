"""Arena: a suite's processes started, timed in rounds and described, with the machine they ran on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from neko_rules.experiments.benchmark import NEKO, Case, Result, Worker, make, time_rounds

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = (
    "numpy",
    "numba",
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "jaxlib",
    "snntorch",
    "norse",
    "spikingjelly",
    "spyx",
    "flax",
    "optax",
    "braintrace",
    "brainstate",
)


@dataclass(frozen=True)
class Arena:
    """How contenders are run.

    Args:
        peers: interpreter of the environment that peers are installed in.
        rounds: how often each contender is asked for steps.
        only: regular expression; contenders whose label does not contain it are left out.
        seed: of the orders.
    """

    peers: str
    rounds: int
    only: str = ""
    seed: int = 0

    def run(self, cases: Sequence[Case], threads: int, title: str) -> list[Result]:
        """Measure cases together with so many threads each."""
        cases = [case for case in cases if re.search(self.only, case.label)]
        workers, entries = [], []
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=len(cases) * (self.rounds + 1))
            try:
                for case in cases:
                    progress.update(task, description=f"{title}: first step of {case.label}")
                    own = case.contender == NEKO
                    workers.append(
                        Worker(threads, sys.executable)
                        if own
                        else Worker(threads, self.peers, (ROOT, ROOT / "benchmarks"))
                    )
                    entries.append((workers[-1], make(workers[-1], case, threads)))
                    progress.advance(task)
                    if entries[-1][1].error:
                        progress.console.print(f"left out: {case.label}: {entries[-1][1].error}", markup=False)
                        workers[-1].close()
                for number, _ in time_rounds(entries, self.rounds, self.seed):
                    progress.update(task, advance=1, description=f"{title}: round {number + 1} of {self.rounds}")
            finally:
                for worker in workers:
                    worker.close()
        return [result for _, result in entries]


def machine(peers: str) -> dict[str, Any]:
    """Processor, cores, memory, and the versions of the libraries in both environments."""
    model, memory = platform.processor() or platform.machine(), 0
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        pairs = (line.partition(":") for line in text.splitlines())
        told = {key.strip(): value.strip() for key, _, value in pairs}
        registers = "AVX-512" if "avx512f" in told["flags"] else "AVX2" if "avx2" in told["flags"] else "SSE"
        # Names such as "AMD EPYC" are those of several generations.
        model = f"{told['model name']} (family {told['cpu family']}, model {told['model']}, {registers})"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, KeyError):
        pass  # Another system than Linux on such a processor: what Python knows has to do.
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": versions(sys.executable),
        "peers": versions(peers),
    }


def versions(python: str) -> dict[str, str]:
    """The installed versions of the libraries that matter, as an interpreter has them."""
    code = f"""
import json
from importlib import metadata
found = {{}}
for name in {DISTRIBUTIONS}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
