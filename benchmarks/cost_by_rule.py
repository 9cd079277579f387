"""Time and memory by rule over 100, 1,000 and 10,000 time steps: what an online rule saves.

    python benchmarks/cost_by_rule.py

One sequence on a recurrent layer of 32 ALIF neurons, 16 inputs, 4 outputs, float32, NumPy backend, one thread.
Deferred rules get the sequence in one call of ``step``, online rules step by step through ``stream().observe``. Memory
is the peak of what Python and NumPy allocate while they learn, beyond what was there before; time is per time step,
the median of three runs, measured apart from memory. Results go to docs/results/cost_by_rule.json, and what that file
has already is not measured again, so that tables and figure are made anew within seconds: delete it for new numbers.
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
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: E402
from rich.progress import track  # noqa: E402

from neko_rules import ALIF, Evaluator  # noqa: E402
from neko_rules.kernels.host import BUFFERS  # noqa: E402
from neko_rules.report.style import BLUE, STYLE, VERMILION, save  # noqa: E402
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
KINDS = (("deferred", VERMILION, "o"), ("online, in a stream", BLUE, "D"))
AREAS = (6.0, 16.0, 34.0)
"""Of the marks of the three lengths, in square points."""

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
    """Time and peak memory by rule, the fastest first: a mark each for deferred and online, larger for longer T."""
    places = {rule: place for place, rule in enumerate(_by_time(results))}
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(7.4, 1.3 + 0.24 * len(places)), layout="constrained")
        axes = drawn.subplots(1, 2, sharey=True)
        for ax, key, factor, label in zip(
            axes, ("ms", "mb"), (1e3, 1), ("Time per time step (µs)", "Peak memory (MB)"), strict=True
        ):
            for (kind, colour, marker), cases, aside in zip(KINDS, (DEFERRED, ONLINE), (-0.16, 0.16), strict=True):
                for name in cases:
                    values = [factor * results[f"{name}/{NEURON}/{steps}"][key] for steps in LENGTHS]
                    at = places[name.removesuffix(", online")] + aside
                    ax.plot(values, [at] * len(values), color=colour, linewidth=0.8, alpha=0.5)
                    ax.scatter(values, [at] * len(values), s=AREAS, c=colour, marker=marker, linewidths=0, label=kind)
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            if key == "mb":
                ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.grid(axis="x", linewidth=0.3)
            ax.set_axisbelow(True)
            for place in places.values():
                ax.axhspan(place - 0.5, place + 0.5, color="0.96" if place % 2 else "white", zorder=0, linewidth=0)
            ax.set_xlabel(label)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(list(places.values()), list(places))
        axes[0].set_ylim(len(places) - 0.5, -0.5)
        handles = [Line2D([], [], color=c, marker=m, markersize=5, linewidth=0, label=kind) for kind, c, m in KINDS]
        handles += [
            Line2D([], [], color="0.5", marker="o", markersize=area**0.5, linewidth=0, label=f"T = {steps:,}")
            for steps, area in zip(LENGTHS, AREAS, strict=True)
        ]
        drawn.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False, columnspacing=1.2)
    return drawn


def _by_time(results: dict[str, Any]) -> list[str]:
    """Rules, deferred and online as one, the fastest at the greatest length first."""
    best: dict[str, float] = {}
    for name in (*DEFERRED, *ONLINE):
        rule = name.removesuffix(", online")
        best[rule] = min(best.get(rule, float("inf")), results[f"{name}/{NEURON}/{LENGTHS[-1]}"]["ms"])
    return sorted(best, key=lambda rule: best[rule])


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
    save(figure(results), DOCS / "figures" / "cost_by_rule.png")


if __name__ == "__main__":
    main()
