"""Time and memory by rule over 100, 1,000 and 10,000 time steps: what an online rule saves.

    python benchmarks/cost_by_rule.py

One sequence on a recurrent layer of 32 ALIF neurons, 16 inputs, 4 outputs, float32, NumPy backend, one thread.
Deferred rules get the sequence in one call of ``step``, online rules step by step through ``stream().observe``. Memory
is the peak of what Python and NumPy allocate while they learn, beyond what was there before; time is per time step,
the median of three runs, measured apart from memory. Results go to docs/results/cost_by_rule.json, and what that file
has already is not measured again: delete it for new numbers.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from rich.progress import track  # noqa: E402

from neko_rules import ALIF, Evaluator  # noqa: E402
from neko_rules.kernels.host import BUFFERS  # noqa: E402
from neko_rules.report.style import STYLE  # noqa: E402
from neko_rules.rules import RULES  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs"
LENGTHS = (100, 1_000, 10_000)
Cases = dict[str, tuple[str, dict[str, Any]]]
DEFERRED: Cases = {
    "BPTT": ("bptt", {}),
    "truncated BPTT, 10 steps": ("truncated_bptt", {"window": 10}),
    "e-prop": ("eprop", {}),
    "OSTL": ("ostl", {}),
    "OTTT": ("ottt", {}),
    "OTPE": ("otpe", {}),
    "pp-prop": ("pp_prop", {}),
}
ONLINE: Cases = {
    "e-prop, online": ("eprop", {"online": True}),
    "e-prop, random, online": ("eprop", {"mode": "random", "online": True}),
    "OSTL, online": ("ostl", {"online": True}),
    "OTTT, online": ("ottt", {"online": True}),
    "approximate OTPE, online": ("approximate_otpe", {"online": True}),
    "pp-prop, online": ("pp_prop", {"online": True}),
    "RFLO, online": ("rflo", {"online": True}),
    "ETLP": ("etlp", {"online": True}),
    "OSTTP": ("osttp", {"online": True}),
    "DECOLLE": ("decolle", {"online": True}),
    "FPTT": ("fptt", {}),
    "SnAp-1": ("snap", {"reach": 1, "online": True}),
    "UORO": ("uoro", {"online": True}),
    "RTRL": ("rtrl", {"online": True}),
}
NEURON = "ALIF"
INPUTS, HIDDEN, OUTPUTS = 16, 32, 4


def work(rule: str, arguments: dict[str, Any], steps: int, online: bool) -> Callable[[], None]:
    """A closure that learns from one sequence."""
    rng = np.random.default_rng(0)
    x = (rng.random((1, steps, INPUTS)) < 0.1).astype(np.float32)
    y = np.array([1])
    model = Evaluator(ALIF(HIDDEN, OUTPUTS, inputs=INPUTS, threshold=0.5))
    made = RULES.create(rule, {**arguments, "optimizer": {"name": "adam", "learning_rate": 1e-5}}, model)
    if not online:
        return lambda: (made.step(x, y), None)[1]
    learner = made.stream()  # type: ignore[attr-defined]

    def observed() -> None:
        for t in range(steps):
            learner.observe(x[0, t], 1)

    return observed


def measure(rule: str, arguments: dict[str, Any], steps: int, online: bool) -> dict[str, float]:
    """Milliseconds per time step, and MB at the peak."""
    run = work(rule, arguments, steps, online)
    if steps <= 1_000:
        run()
    times = []
    for _ in range(3 if steps <= 1_000 else 1):
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin) / steps)
    # What the runs before have left to be used again would not be counted.
    BUFFERS.clear()
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    run()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return {"ms": statistics.median(times), "mb": peak / 1e6}


def table(results: dict[str, Any]) -> str:
    """Time and memory as Markdown."""
    heads = [f"T = {steps:,}" for steps in LENGTHS]
    columns = [*(f"µs, {h}" for h in heads), *(f"MB, {h}" for h in heads)]
    lines = [f"| {NEURON} | " + " | ".join(columns) + " |"]
    lines.append("|---" + "|--:" * (2 * len(LENGTHS)) + "|")
    for label in (*DEFERRED, *ONLINE):
        found = [results.get(f"{label}/{NEURON}/{steps}") for steps in LENGTHS]
        if all(found):
            times = " | ".join(_three_digits(1e3 * each["ms"]) for each in found if each)
            sizes = " | ".join(f"{each['mb']:.2f}" for each in found if each)
            lines.append(f"| {label} | {times} | {sizes} |")
    return "\n".join(lines)


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}"


def figure(results: dict[str, Any]) -> Figure:
    """Peak memory over the length of the sequence."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(6.4, 3.8), layout="constrained")
        ax = drawn.subplots()
        for place, label in enumerate((*DEFERRED, *ONLINE)):
            values = [results[f"{label}/{NEURON}/{steps}"]["mb"] for steps in LENGTHS]
            colour = "#D55E00" if label in DEFERRED else "#0072B2"
            line = ("-", "--", ":", "-.")[place % 4]
            ax.plot(
                LENGTHS, values, line, marker="osv^D"[place % 5], markersize=4, color=colour, linewidth=1, label=label
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("time steps of the sequence")
        ax.set_ylabel("peak memory (MB)")
        drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    return drawn


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    path = DOCS / "results" / "cost_by_rule.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    cases = [
        (label, steps)
        for label in (*DEFERRED, *ONLINE)
        for steps in LENGTHS
        if f"{label}/{NEURON}/{steps}" not in results
    ]
    for label, steps in track(cases, description="Rules"):
        rule, arguments = {**DEFERRED, **ONLINE}[label]
        results[f"{label}/{NEURON}/{steps}"] = measure(rule, arguments, steps, label in ONLINE)
        path.write_text(json.dumps(results, indent=0) + "\n")
    print(table(results))
    drawn = figure(results)
    for suffix in ("png", "svg"):
        drawn.savefig(DOCS / "figures" / f"cost_by_rule.{suffix}", dpi=150)


if __name__ == "__main__":
    main()
