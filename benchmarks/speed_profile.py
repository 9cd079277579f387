"""Where the time of a training step goes: the kernels of its chain one by one, and the Python around them.

    python benchmarks/speed_profile.py                          # NumPy, e-prop and BPTT, workloads A, B and C
    python benchmarks/speed_profile.py --docs                   # … and the tables go to docs/speed.md
    python benchmarks/speed_profile.py --backend torch --rules bptt --workloads B

For the backends whose steps are compiled chains, NumPy and PyTorch on the CPU. Medians over some steps after the first
ones.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NEKO_THREADS"):
    os.environ.setdefault(_variable, "1")

import argparse  # noqa: E402
import re  # noqa: E402
import time  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from neko_rules.experiments.benchmark import neko  # noqa: E402
from neko_rules.experiments.workloads import WORKLOADS  # noqa: E402
from neko_rules.rules.learning_rule import LearningRule  # noqa: E402
from speed.chain_clock import clocked  # noqa: E402
from speed.tables import write_block  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

REST = "Python, the update of the weights, what lies between steps"


def profile(workload: str, backend: str, rule: str, least: float) -> tuple[float, list[tuple[str, float]]]:
    """Seconds per step, and the share of each part, over so many seconds."""
    with clocked() as clock:
        contender: Any = neko(WORKLOADS[workload], 1, backend=backend, rule=rule)
        for _ in range(5):
            contender.step()
        seconds: list[float] = []
        cycles: list[np.ndarray] = []
        until = time.perf_counter() + least
        while time.perf_counter() < until or len(seconds) < 3:
            clock.start()
            begin = time.perf_counter()
            contender.step()
            seconds.append(time.perf_counter() - begin)
            cycles.append(clock.read())
    middle = np.median(cycles, axis=0)
    found = {REST: middle[0]}
    names = names_of(contender.rule)
    for (title, arguments), count in zip(clock.kernels, middle[1:], strict=True):
        name = part(title, arguments, names)
        found[name] = found.get(name, 0.0) + count
    shares = [(name, count / middle.sum()) for name, count in found.items()]
    return float(np.median(seconds)), sorted(shares, key=lambda each: -each[1])


def names_of(rule: LearningRule) -> dict[str, str]:
    """What arguments of a rule's chains stand for: parameters by their gradients, populations by their numbers."""
    graph = rule.model.network.graph
    names = {f"bias_{number}": name for number, name in enumerate(graph.order)}
    names |= {f"constant_{number}": name for number, name in enumerate(graph.order)}
    for links in rule.chains()._found.values():
        if links is not None:
            names |= links.gradients | {f"panels_{back}": source for back, (source, _) in links.backs.items()}
    return names


def part(title: str, arguments: Sequence[str], names: Mapping[str, str]) -> str:
    """What a reader calls a kernel of a chain."""
    known = [names[each] for each in (re.sub(r"(constant_\d+)_\w+", r"\1", one) for one in arguments) if each in names]
    of = known[0] if known else ""
    match title.split()[:2]:
        case ["A", "forward"]:
            return f"forward: {of}"
        case ["An", "adjoint"]:
            return f"back through time: {of}"
        case ["A", "function"]:
            return "loss and its gradient"
        case [name] if name.startswith(("add_outer", "multiply_transposed", "add_rows_of_group")):
            return f"gradient: {of}"
        case ["multiply"]:
            return f"dense product: errors to {of}" if of else "dense product: currents"
        case _:
            return "lists of what is not zero, copies, sums"


def table(workload: str, backend: str, rule: str, least: float) -> str:
    """The profile of one workload as Markdown."""
    seconds, shares = profile(workload, backend, rule, least)
    lines = [f"**{WORKLOADS[workload].title()}; {backend}, {rule}, 1 thread: {1e3 * seconds:.1f} ms per step**", ""]
    lines += ["| share | ms | |", "|--:|--:|---|"]
    lines += [
        f"| {100 * share:.0f} % | {1e3 * share * seconds:.2f} | {name} |" for name, share in shares if share > 0.005
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", choices=["numpy", "torch"])
    parser.add_argument("--rules", nargs="+", default=["eprop", "bptt"])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["A", "B", "C"])
    parser.add_argument("--seconds", type=float, default=3.0, help="for how long a rule is looked at, or three steps")
    parser.add_argument("--docs", action="store_true", help="write the tables to docs/speed.md")
    given = parser.parse_args()
    if given.docs and any(
        getattr(given, each) != parser.get_default(each) for each in ("backend", "rules", "workloads")
    ):
        parser.error(
            "docs/speed.md shows e-prop and BPTT on NumPy, workloads A, B and C: leave the others out with --docs"
        )
    cases = [(name, rule) for name in given.workloads for rule in given.rules]
    text = "\n\n".join(table(name, given.backend, rule, given.seconds) for name, rule in cases)
    print(text)
    if given.docs:
        write_block(ROOT / "docs" / "speed.md", text, "profile")


if __name__ == "__main__":
    main()
