"""Cosine to BPTT by layer on Randman, for every gradient rule: the table and the figure of docs/rules.md.

    python benchmarks/cosine_to_bptt.py                                        # the docs
    python benchmarks/cosine_to_bptt.py --seeds 0 --rules UORO --folder here   # a part, and the docs stay as they are

Feed-forward stacks of 1, 3 and 5 hidden layers of 128 LIF neurons below 10 LIF output neurons whose spikes are judged
at every time step: 50 inputs, 50 steps, batch 64, fast sigmoid of slope 25, membrane decay sigmoid(2), resets not
detached; at initialisation, the setting of Summe et al. (arXiv:2311.16151). A cosine over all weights at once would
hide that lower layers go wrong first, so it is taken layer by layer. Results go to docs/results/cosine_to_bptt.json;
rules that are there already are not computed again, so that the figure is drawn anew within seconds. With other seeds,
rules or another backend, results and figure go to a folder of their own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from places import places
from rich.progress import track
from rule_cases import CASES, COLOURS, Case

from neko_rules import BPTT, Evaluator, Network
from neko_rules.datasets import Randman
from neko_rules.report.style import STYLE, save

NAME = "cosine_to_bptt"
DEPTHS = (1, 3, 5)
CODES = ("rate", "time")
SEEDS = (0, 1, 2)
BACKEND = "numpy"
BATCH = 64

GAINS = {"rate": 1.3, "time": 3.0}
"""Standard deviation of the first weights times √fan-in: enough for every layer to spike; the time code is sparse."""

# At initialisation these have the gradient of another row: BPTT, symmetric e-prop, OTTT, random feedback.
SAME_AT_FIRST = {
    *("e-prop, adaptive", "Kolen-Pollack", "weight mirror", "FPTT"),
    *("OTTT, online", "OSTL, online", "RTRL, online"),
}

LEFT_OUT = {*SAME_AT_FIRST, "EventProp"}
USUAL = [label for label, case in CASES.items() if label not in LEFT_OUT and case.group != "sampled"]
"""Rules of the docs: those left out have the row of another, or are right on average only, or follow spike times, which
have no derivative where membranes are driven by jumps as here."""

FAMILIES = {
    "backward": "back in time",
    "local": "local traces",
    "feedback": "feedback weights",
    "target": "local targets",
    "sampled": "samples",
}
"""Groups of rules as the figure calls them, in its order."""

LINE, ROOM = 0.17, 0.5
"""Inches that a rule takes in a panel, and that titles and ticks take."""


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


def of_seeds(results: dict[str, Any], label: str, code: str, depth: int, seeds: Sequence[int]) -> np.ndarray | None:
    """[seed, layer]; None unless every seed has been computed."""
    runs = [results.get(f"{label}/{code}/{depth}/{seed}") for seed in seeds]
    return None if any(run is None for run in runs) else np.array(runs, dtype=float)


def table(results: dict[str, Any], rules: Sequence[str], code: str, depth: int, seeds: Sequence[int]) -> str:
    """Mean over seeds as Markdown, a column per layer."""
    columns = [f"layer {i + 1}" for i in range(depth)] + ["output"]
    lines = [f"| {code} code, {depth} hidden | " + " | ".join(columns) + " |", "|---" * (depth + 2) + "|"]
    for label in rules:
        runs = of_seeds(results, label, code, depth, seeds)
        if runs is not None:
            lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in runs.mean(axis=0)) + " |")
    return "\n".join(lines)


def figure(results: dict[str, Any], rules: Sequence[str], seeds: Sequence[int]) -> Figure:
    """Mean cosine by rule and layer as shades with their numbers: a row of panels per code, a panel per depth.

    Rules stand by family, in each the one with the largest cosines in the hidden layers first. What seeds differ by is
    said below.
    """
    found = {
        (label, code, depth): runs
        for label in rules
        for code in CODES
        for depth in DEPTHS
        if (runs := of_seeds(results, label, code, depth, seeds)) is not None
    }
    order = sorted(dict.fromkeys(label for label, _, _ in found), key=lambda label: _place(found, label))
    with matplotlib.rc_context(STYLE):
        height = len(CODES) * (LINE * len(order) + ROOM) + 0.6
        drawn = Figure(figsize=(7.4, height), layout="constrained")
        widths = [depth + 1 for depth in DEPTHS]
        axes = drawn.subplots(len(CODES), len(DEPTHS), squeeze=False, sharey=True, width_ratios=widths)
        for row, code in enumerate(CODES):
            for column, depth in enumerate(DEPTHS):
                means = np.full((len(order), depth + 1), np.nan)
                for place, label in enumerate(order):
                    if (label, code, depth) in found:
                        means[place] = found[label, code, depth].mean(axis=0)
                shade = _panel(axes[row, column], means)
                hidden = "1 hidden layer" if depth == 1 else f"{depth} hidden layers"
                axes[row, column].set_title(hidden if row == 0 else "", fontsize=8)
            axes[row, 0].set_ylabel(f"{code.capitalize()} code")
        _name_families(drawn, axes, order)
        drawn.colorbar(shade, ax=axes, label="Cosine to BPTT", shrink=0.5, aspect=30, pad=0.02)
        ranges = np.concatenate([np.ptp(runs, axis=0) for runs in found.values()])
        drawn.supxlabel(
            f"Layer (out: output). Means over seeds {', '.join(map(str, seeds))}: from seed to seed a cosine\n"
            f"differs by {np.median(ranges):.2f} at the median over all cells, by at most {np.max(ranges):.2f}.",
            fontsize=8,
        )
    return drawn


def _place(found: dict[tuple[str, str, int], np.ndarray], label: str) -> tuple[int, float]:
    hidden = [runs[:, :-1].mean() for (name, _, _), runs in found.items() if name == label]
    return list(FAMILIES).index(CASES[label].group), -float(np.mean(hidden))


def _panel(ax: Axes, means: np.ndarray) -> AxesImage:
    """Shades and numbers of one network; a gap sets the output apart, whose gradient needs no credit for layers."""
    shade = ax.imshow(means, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(means):
        if np.isfinite(value):
            ink = "white" if abs(value) > 0.65 else "black"
            ax.text(column, row, _short(value), ha="center", va="center", fontsize=7, color=ink)
    last = means.shape[1] - 1
    ax.axvline(last - 0.5, color="white", linewidth=4)
    ax.set_xticks(range(last + 1), [*map(str, range(1, last + 1)), "out"])
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    return shade


def _short(value: float) -> str:
    """Two digits behind the point, without a nought before it.

    Example:
        >>> [_short(value) for value in (1.0, 0.974, -0.08, -0.001)]
        ['1', '.97', '−.08', '.00']
    """
    if round(abs(value), 2) == 0:
        return ".00"
    return f"{value:.2f}".replace("0.", ".", 1).replace("1.00", "1").replace("-", "−")


def _name_families(drawn: Figure, axes: np.ndarray, order: list[str]) -> None:
    """Names of rules in the colour of their family, gaps between families, and what each family is called."""
    groups = [CASES[label].group for label in order]
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(order)), order)
        for text, group in zip(ax.get_yticklabels(), groups, strict=True):
            text.set_color(COLOURS[group])
    kinds = list(dict.fromkeys(groups))
    for ax in axes.flat:
        for group in kinds[1:]:
            ax.axhline(groups.index(group) - 0.5, color="white", linewidth=4)
    handles = [Patch(color=COLOURS[group], label=FAMILIES[group]) for group in kinds]
    drawn.legend(handles=handles, loc="outside upper left", ncols=len(kinds), frameon=False, handlelength=0.8)


def complete(given: argparse.Namespace) -> bool:
    """Whether a run is what the docs show."""
    return given.seeds == list(SEEDS) and given.rules == USUAL and given.backend == BACKEND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--backend", default=BACKEND)
    parser.add_argument(
        "--rules", nargs="+", choices=CASES, default=USUAL, metavar="RULE", help="quote names with spaces"
    )
    parser.add_argument("--folder", type=Path, help="of results and figure; docs/ if all is asked for, else a new one")
    given = parser.parse_args()
    stored, (path, drawing) = places(NAME, True).results, places(NAME, complete(given), given.folder)
    known = json.loads(stored.read_text()) if stored.exists() and given.backend == BACKEND else {}
    wanted = {
        f"{label}/{code}/{depth}/{seed}": (CASES[label], code, depth, seed, given.backend)
        for code in CODES
        for depth in DEPTHS
        for seed in given.seeds
        for label in given.rules
    }
    results = known if path == stored else {key: known[key] for key in wanted if key in known}
    for key in track([key for key in wanted if key not in results], description="Gradients"):
        results[key] = cosines(*wanted[key])
        path.write_text(json.dumps(results, indent=0) + "\n")
    path.write_text(json.dumps(results, indent=0) + "\n")
    for code in CODES:
        for depth in DEPTHS:
            print(table(results, given.rules, code, depth, given.seeds), end="\n\n")
    save(figure(results, given.rules, given.seeds), drawing)
    print(f"Results: {path}\nFigure: {drawing}")


if __name__ == "__main__":
    main()
