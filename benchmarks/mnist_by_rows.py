"""MNIST by rows after BPTT and the three modes of e-prop: the README's table and its figure, from real runs.

    python benchmarks/mnist_by_rows.py --backend jax --seeds 0 1 2 --out runs/mnist_by_rows

Each run is that of configs/mnist_bptt.yaml or configs/mnist_eprop.yaml in a folder of its own; runs that are finished
are not made again, so the command can be stopped and repeated. It prints a Markdown table and writes
learning_curves.png with the range over seeds as a band.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.run import run
from neko_rules.report.style import STYLE

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RULES = {
    "BPTT": ("mnist_bptt.yaml", ()),
    "e-prop, symmetric": ("mnist_eprop.yaml", ("rule.mode=symmetric",)),
    "e-prop, adaptive": ("mnist_eprop.yaml", ("rule.mode=adaptive",)),
    "e-prop, random": ("mnist_eprop.yaml", ("rule.mode=random",)),
}
LOOKS = {  # colours of M. Okabe & K. Ito (2008), and lines that differ without colour
    "BPTT": ("#000000", "-"),
    "e-prop, symmetric": ("#0072B2", "-"),
    "e-prop, adaptive": ("#009E73", "--"),
    "e-prop, random": ("#D55E00", ":"),
}


def records(rule: str, seed: int, backend: str, out: Path) -> list[dict[str, Any]]:
    """The epochs of one run, made if it is not there."""
    config, settings = RULES[rule]
    path = out / f"{rule.replace(', ', '-')}-{seed}"
    if not (path / "weights.safetensors").exists():
        run(CONFIGS / config, settings=[*settings, f"backend={backend}"], seed=seed, out=path)
    return RunFolder(path).read_metrics()


def table(accuracy: dict[str, np.ndarray]) -> str:
    """Final test accuracy by rule as Markdown: mean and range over seeds."""
    lines = ["| rule | test accuracy | range | command |", "|---|---|---|---|"]
    for rule, values in accuracy.items():
        config, settings = RULES[rule]
        command = " ".join(["neko run", f"configs/{config}", *(f"--set {setting}" for setting in settings)])
        last = 100 * values[:, -1]
        lines.append(f"| {rule} | {last.mean():.1f} % | {last.min():.1f} to {last.max():.1f} | `{command}` |")
    return "\n".join(lines)


def figure(accuracy: dict[str, np.ndarray]) -> Figure:
    """Test accuracy over epochs by rule, the range over seeds as a band."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(4.2, 2.8), layout="constrained")
        ax = drawn.add_subplot()
        for rule, values in accuracy.items():
            colour, line = LOOKS[rule]
            epochs, percent = np.arange(1, values.shape[1] + 1), 100 * values
            ax.fill_between(epochs, percent.min(0), percent.max(0), color=colour, alpha=0.15, linewidth=0)
            ax.plot(epochs, percent.mean(0), color=colour, linestyle=line, label=rule)
        ax.set(xlabel="Epoch", ylabel="Test accuracy (%)", xticks=range(2, values.shape[1] + 1, 2), ylim=(80, 98))
        ax.legend(frameon=False, loc="lower right")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_by_rows"))
    options = parser.parse_args()
    runs = {rule: [records(rule, seed, options.backend, options.out) for seed in options.seeds] for rule in RULES}
    accuracy = {
        rule: np.array([[e["validation_accuracy"] for e in one] for one in each]) for rule, each in runs.items()
    }
    print(table(accuracy))
    figure(accuracy).savefig(options.out / "learning_curves.png", dpi=200)


if __name__ == "__main__":
    main()
