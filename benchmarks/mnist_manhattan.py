"""MNIST with a 784-64-32-10 perceptron, as a torch and as a Keras model: backpropagation and the Manhattan family.

    python benchmarks/mnist_manhattan.py table      # test accuracies, three seeds; prints Markdown
    python benchmarks/mnist_manhattan.py figure     # accuracy, pulses and energy of four presets; draws a figure,
                                                    # that of the docs with as many epochs and seeds as there

All 60,000 images for training, 10,000 for the test, pixels between 0 and 1, batches of 128. The test accuracy is that
after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
from places import places

from neko_rules import BPTT, Crossbar, Evaluator, KerasModel, Manhattan, TorchModel, Trainer
from neko_rules.datasets import MNIST
from neko_rules.devices import Constant, SoftBounds, presets

SEEDS = (0, 1, 2)
DRAWN = {"epochs": 10, "seeds": [0, 1]}
"""What the figure of the docs is of."""

FALLING = {"name": "exponential_decay", "initial": 1.5e-3, "rate": 0.7, "steps": 469}
"""δ, a factor 0.7 smaller after every epoch of 469 updates."""

EPOCHS = 12


def torch_perceptron(seed: int) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return TorchModel(
        nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), inputs=784
    )


def keras_perceptron(seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    dense = keras.layers.Dense
    return KerasModel(keras.Sequential([dense(64, "relu"), dense(32, "relu"), dense(10)]), inputs=784)


PERCEPTRONS: dict[str, Callable[[int], Any]] = {"torch": torch_perceptron, "Keras": keras_perceptron}


def hard(seed: int) -> Crossbar:
    """Conductances with equal steps, 2,000 from end to end, up to hard bounds; pairs that hold ±1."""
    return Crossbar(Constant(step=5e-8), w_max=1.0, seed=seed)


def soft(seed: int) -> Crossbar:
    """The same with soft bounds: steps that shrink to nothing towards the end."""
    return Crossbar(SoftBounds(step=5e-8), w_max=1.0, seed=seed)


RULES: dict[str, Callable[[Evaluator, int], Any]] = {
    "backpropagation (Adam)": lambda m, s: BPTT(m, optimizer={"name": "adam", "learning_rate": 1e-3}),
    "Manhattan, δ = 0.001": lambda m, s: Manhattan(m, 1e-3, seed=s),
    "Manhattan, bounded conductances": lambda m, s: Manhattan(m, 1e-3, crossbar=hard(s), seed=s),
    "sign of momentum, δ falling": lambda m, s: Manhattan(m, FALLING, decision="momentum", seed=s),
    "sign of momentum, soft-bounds conductances": lambda m, s: Manhattan(
        m, 1e-3, crossbar=soft(s), decision="momentum", seed=s
    ),
}

PRESETS: dict[str, Callable[[], Any]] = {
    "idealised": presets.Idealized,
    "ECRAM": presets.EcRam,
    "capacitor": presets.Capacitor,
    "ReRAM, soft bounds": presets.ReRamSB,
}
LOOKS = (("#000000", "o"), ("#009E73", "s"), ("#0072B2", "^"), ("#D55E00", "D"))
"""Colour and marker of every preset, which can be told apart without colour vision."""


def data() -> tuple[np.ndarray, ...]:
    x_train, y_train, x_test, y_test = MNIST().load()
    flat = (x.reshape(len(x), 784).astype(np.float32) for x in (x_train, x_test))
    x_train, x_test = flat
    return x_train, y_train, x_test, y_test


def accuracy(rule: Any, arrays: tuple[np.ndarray, ...], epochs: int, seed: int) -> list[float]:
    x_train, y_train, x_test, y_test = arrays
    history = Trainer(rule).train(
        x_train, y_train, epochs=epochs, validation_data=(x_test, y_test), seed=seed, progress=False
    )
    return [100 * value for value in history["validation_accuracy"]]


def table(names: list[str], libraries: list[str], out: Path) -> None:
    arrays, rows = data(), json.loads(out.read_text()) if out.exists() else {}
    for library in libraries:
        for name in names:
            make = RULES[name]
            for seed in SEEDS:
                key = f"{name} / {library} / {seed}"
                if key in rows:
                    continue
                begin = time.perf_counter()
                model = Evaluator(PERCEPTRONS[library](seed), metrics=["accuracy"])
                curve = accuracy(make(model, seed), arrays, EPOCHS, seed)
                rows[key] = curve
                print(f"{key}: {curve[-1]:.2f} %  ({time.perf_counter() - begin:.0f} s)", flush=True)
                out.write_text(json.dumps(rows, indent=1))
    print("\n| rule | " + " | ".join(libraries) + " |\n|---|" + "---|" * len(libraries))
    for name in names:
        cells = []
        for library in libraries:
            last = [rows[f"{name} / {library} / {seed}"][-1] for seed in SEEDS]
            cells.append(f"{np.mean(last):.1f} % ({min(last):.1f} to {max(last):.1f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


def figure(epochs: int, seeds: list[int], out: Path) -> None:
    arrays = data()
    rows: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for seed in seeds:
        for name, make in PRESETS.items():
            for dead_zone in (0.0, 1.0):
                key = f"{name} / {dead_zone} / {seed}"
                if key not in rows:
                    begin = time.perf_counter()
                    rows[key] = pulses_and_accuracy(make(), dead_zone, seed, arrays, epochs)
                    out.write_text(json.dumps(rows, indent=1))
                    print(f"{key}: {rows[key][-1]}  ({time.perf_counter() - begin:.0f} s)", flush=True)
    print("\n| devices | dead zone | test accuracy | pulses per device | energy |\n|---|---|---|---|---|")
    for name in PRESETS:
        for dead_zone in (0.0, 1.0):
            runs = np.array([rows[f"{name} / {dead_zone} / {seed}"] for seed in seeds])[:, -1]
            pulses, energy, last = runs.mean(0)
            spread = f"({runs[:, 2].min():.1f} to {runs[:, 2].max():.1f})"
            said = "on" if dead_zone else "off"
            print(f"| {name} | {said} | {last:.1f} % {spread} | {pulses:.0f} | {energy:.1e} J |")
    draw(rows, seeds, places("pulses_and_energy", {"epochs": epochs, "seeds": seeds} == DRAWN).figure)


def pulses_and_accuracy(
    device: Any, dead_zone: float, seed: int, arrays: tuple[np.ndarray, ...], epochs: int
) -> list[tuple[float, float, float]]:
    """Pulses per device, energy of all pulses in J, and test accuracy in per cent after every epoch."""
    x_train, y_train, x_test, y_test = arrays
    model = Evaluator(torch_perceptron(seed), metrics=["accuracy"])
    rule = Manhattan(model, 1e-3, crossbar=Crossbar(device, w_max=1.0, seed=seed), dead_zone=dead_zone, seed=seed)
    points = []
    for epoch in range(epochs):
        Trainer(rule).train(x_train, y_train, epochs=1, seed=1000 * seed + epoch, progress=False)
        report = rule.crossbar.report()  # type: ignore[union-attr]
        found = 100 * model.evaluate(x_test, y_test)["accuracy"]
        points.append((report.pulses / report.devices, report.energy, found))
    return points


def draw(rows: dict[str, Any], seeds: list[int], path: Path) -> None:
    """Test accuracy against pulses and energy: lines are means over seeds, bands reach from the least to the most."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    drawing = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)
    for name, (colour, marker) in zip(PRESETS, LOOKS, strict=True):
        for dead_zone in (0.0, 1.0):
            runs = np.array([rows[f"{name} / {dead_zone} / {seed}"] for seed in seeds])
            filled = "white" if dead_zone else colour
            for axes, place in ((left, 0), (right, 1)):
                x, y = runs[:, :, place].mean(0), runs[:, :, 2]
                axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, linewidth=0)
                axes.plot(
                    x, y.mean(0), marker=marker, markersize=4, color=colour, linewidth=1.1, markerfacecolor=filled
                )
    left.set(xscale="log", xlabel="Pulses per device", ylabel="Test accuracy (%)")
    right.set(xscale="log", xlabel="Energy of all pulses (J)")
    keys = [Line2D([], [], color=c, marker=m, markersize=4, label=n) for n, (c, m) in zip(PRESETS, LOOKS, strict=True)]
    for face, label in (("0.4", "no dead zone"), ("white", "dead zone, 1 rms")):
        keys.append(Line2D([], [], color="0.4", marker="o", markersize=4, markerfacecolor=face, label=label))
    drawing.legend(handles=keys, frameon=False, fontsize=8, loc="outside upper center", ncols=6, columnspacing=1.2)
    for axes, letter in ((left, "a"), (right, "b")):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(letter, loc="left", fontweight="bold", fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
    drawing.savefig(path, dpi=250)
    print(f"\nFigure: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "figure"])
    parser.add_argument("--rules", nargs="*", default=list(RULES))
    parser.add_argument("--libraries", nargs="*", default=list(PERCEPTRONS))
    parser.add_argument("--epochs", type=int, default=DRAWN["epochs"], help="of the figure")
    parser.add_argument("--seeds", type=int, nargs="+", default=DRAWN["seeds"], help="of the figure")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_manhattan.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.what == "table":
        table(options.rules, options.libraries, options.out)
    else:
        figure(options.epochs, options.seeds, options.out.with_name("pulses_and_energy.json"))
