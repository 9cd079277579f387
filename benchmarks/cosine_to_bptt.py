"""Cosine to BPTT by layer on Randman, for every gradient rule: the table and the figure of docs/rules.md.

    python benchmarks/cosine_to_bptt.py --seeds 0 1 2

Feed-forward stacks of 1, 3 and 5 hidden layers of 128 LIF neurons below 10 LIF output neurons whose spikes are judged
at every time step: 50 inputs, 50 steps, batch 64, fast sigmoid of slope 25, membrane decay sigmoid(2), resets not
detached; at initialisation, the setting of Summe et al. (arXiv:2311.16151). A cosine over all weights at once would
hide that lower layers go wrong first, so it is taken layer by layer. Results go to docs/results/cosine_to_bptt.json;
rules that are there already are not computed again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from rule_cases import CASES, COLOURS, Case

from neko_rules import BPTT, Evaluator, Network
from neko_rules.datasets import Randman
from neko_rules.report.style import STYLE

DOCS = Path(__file__).resolve().parents[1] / "docs"
DEPTHS = (1, 3, 5)
CODES = ("rate", "time")
BATCH = 64

GAINS = {"rate": 1.3, "time": 3.0}
"""Standard deviation of the first weights times √fan-in: enough for every layer to spike; the time code is sparse."""

# At initialisation these have the gradient of another row: BPTT, symmetric e-prop, OTTT, random feedback.
SAME_AT_FIRST = {
    *("e-prop, adaptive", "Kolen-Pollack", "weight mirror", "FPTT"),
    *("OTTT, online", "OSTL, online", "RTRL, online"),
}


def network(code: str, depth: int, seed: int, backend: str) -> Network:
    """Hidden layers h0, h1, … and the output, with one membrane decay."""
    cell = {
        "name": "lif",
        "membrane_decay": float(1 / (1 + np.exp(-2))),
        "surrogate": {"name": "fast_sigmoid", "slope": 25.0},
        "detach_reset": False,
    }
    names = [f"h{i}" for i in range(depth)]
    sizes = {**dict.fromkeys(names, 128), "output": 10}
    below = ["input", *names]
    return Network(
        {name: {"cell": cell, "size": size} for name, size in sizes.items()},
        [
            {
                "source": one,
                "target": two,
                "label": "input",
                "initializer": {"name": "scaled_normal", "gain": GAINS[code]},
            }
            for one, two in zip(below, sizes, strict=True)
        ],
        "output",
        inputs=50,
        backend=backend,
        seed=seed,
    )


def cosines(case: Case, code: str, depth: int, seed: int, backend: str) -> list[float]:
    """The cosine of every layer's weight gradient with BPTT's, the first layer first."""
    x, y, _, _ = Randman(code=code, train_examples=7, test_examples=1, manifold_seed=seed, seed=seed).load()
    model = Evaluator(network(code, depth, seed, backend))
    arguments = {} if "online" not in case.arguments else {"online": False}
    found = case.make(model, **arguments).gradients(x[:BATCH], y[:BATCH])
    truth = BPTT(model).gradients(x[:BATCH], y[:BATCH])
    assert min(float(model.trajectory(x[:BATCH]).z(name).mean()) for name in model.network.spiking) > 0, "a dead layer"
    values = []
    for name in (name for name in truth if name.endswith("weight")):
        one, two = found[name].astype(float).ravel(), truth[name].astype(float).ravel()
        norms = float(np.linalg.norm(one) * np.linalg.norm(two))
        values.append(float(one @ two) / norms if norms > 0 else float("nan"))
    return values


def table(results: dict[str, Any], code: str, depth: int, seeds: list[int]) -> str:
    """Mean over seeds as Markdown, a column per layer."""
    columns = [f"layer {i + 1}" for i in range(depth)] + ["output"]
    lines = [f"| {code} code, {depth} hidden | " + " | ".join(columns) + " |", "|---" * (depth + 2) + "|"]
    for label in CASES:
        runs = [results.get(f"{label}/{code}/{depth}/{seed}") for seed in seeds]
        if all(run is not None for run in runs):
            means = np.mean(np.array(runs), axis=0)
            lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in means) + " |")
    return "\n".join(lines)


def figure(results: dict[str, Any], seeds: list[int]) -> Figure:
    """Cosine by layer: a row per code, a column per depth, a line per rule."""
    marks = ["o", "s", "^", "v", "D", "P", "X", "*", "<", ">", "p", "h"]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(10, 6.4), layout="constrained")
        axes = drawn.subplots(len(CODES), len(DEPTHS), sharey=True, squeeze=False)
        known = [label for label in CASES if any(key.startswith(f"{label}/") for key in results)]
        for row, code in enumerate(CODES):
            for column, depth in enumerate(DEPTHS):
                ax = axes[row][column]
                for place, label in enumerate(known):
                    runs = [results.get(f"{label}/{code}/{depth}/{seed}") for seed in seeds]
                    if any(run is None for run in runs):
                        continue
                    values = np.array(runs)
                    where = np.arange(1, depth + 2)
                    look = {"color": COLOURS[CASES[label].group], "marker": marks[place % len(marks)], "markersize": 4}
                    ax.plot(where, values.mean(axis=0), label=label, linewidth=1, **look)
                    ax.fill_between(where, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.08)
                ax.axhline(0, color="0.6", linewidth=0.6)
                ax.set_ylim(-0.35, 1.05)
                ax.set_xticks(range(1, depth + 2), [*map(str, range(1, depth + 1)), "out"])
                ax.set_title(f"{code} code, {depth} hidden layer{'s' if depth > 1 else ''}")
                if column == 0:
                    ax.set_ylabel("cosine to BPTT")
                if row == len(CODES) - 1:
                    ax.set_xlabel("layer")
        handles, labels = axes[0][-1].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rules", nargs="+", default=[label for label in CASES if label not in SAME_AT_FIRST])
    given = parser.parse_args()
    path = DOCS / "results" / "cosine_to_bptt.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    wanted = [
        (label, code, depth, seed)
        for code in CODES
        for depth in DEPTHS
        for seed in given.seeds
        for label in given.rules
        if f"{label}/{code}/{depth}/{seed}" not in results
    ]
    for label, code, depth, seed in track(wanted, description="Gradients"):
        results[f"{label}/{code}/{depth}/{seed}"] = cosines(CASES[label], code, depth, seed, given.backend)
        path.write_text(json.dumps(results, indent=0) + "\n")
    for code in CODES:
        for depth in DEPTHS:
            print(table(results, code, depth, given.seeds), end="\n\n")
    drawn = figure(results, given.seeds)
    for suffix in ("png", "svg"):
        drawn.savefig(DOCS / "figures" / f"cosine_to_bptt.{suffix}", dpi=150)


if __name__ == "__main__":
    main()
