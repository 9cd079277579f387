"""MNIST with a 784-64-32-10 perceptron, as a torch and as a Keras model: backpropagation and the Manhattan family.

    python benchmarks/mnist_manhattan.py table      # test accuracies, three seeds; prints Markdown
    python benchmarks/mnist_manhattan.py figure     # accuracy against pulses and energy for four presets; writes a PNG

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

from neko_rules import BPTT, Crossbar, Evaluator, KerasModel, Manhattan, TorchModel, Trainer
from neko_rules.datasets import MNIST
from neko_rules.devices import Constant, SoftBounds, presets

DOCS = Path(__file__).resolve().parents[1] / "docs"
SEEDS = (0, 1, 2)
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

PRESETS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "idealised": (presets.Idealized, {}),
    "ECRAM": (presets.EcRam, {}),
    "capacitor": (presets.Capacitor, {}),
    "ReRAM, soft bounds": (presets.ReRamSB, {}),
}


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


def figure(epochs: int, out: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    arrays = data()
    rows: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name, (make, options) in PRESETS.items():
        for dead_zone in (0.0, 1.0):
            key = f"{name} / {dead_zone}"
            if key in rows:
                continue
            begin = time.perf_counter()
            model = Evaluator(torch_perceptron(0), metrics=["accuracy"])
            crossbar = Crossbar(make(), w_max=1.0, **options)
            rule = Manhattan(model, 1e-3, crossbar=crossbar, dead_zone=dead_zone)
            points: list[tuple[float, float, float]] = []
            for _ in range(epochs):
                curve = accuracy_of_epoch(rule, arrays, len(points))
                report = rule.crossbar.report()  # type: ignore[union-attr]
                points.append((report.pulses / report.devices, report.energy, curve))
            rows[key] = points
            out.write_text(json.dumps(rows, indent=1))
            print(f"{key}: {points[-1]}  ({time.perf_counter() - begin:.0f} s)", flush=True)
    colours = dict(zip(PRESETS, ("#000000", "#009E73", "#0072B2", "#D55E00"), strict=True))
    drawing = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)
    for key, points in rows.items():
        name, dead = key.split(" / ")
        on = float(dead) > 0
        label = f"{name}{', dead zone' if on else ''}"
        for axes, place in ((left, 0), (right, 1)):
            line = [(point[place], point[2]) for point in points]
            axes.plot(*zip(*line, strict=True), "o-" if on else "s--", markersize=3.5, color=colours[name], label=label)
    left.set(xscale="log", xlabel="Pulses per device", ylabel="Test accuracy (%)")
    right.set(xscale="log", xlabel="Energy of all pulses (J)")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
    (DOCS / "figures").mkdir(parents=True, exist_ok=True)
    drawing.savefig(DOCS / "figures" / "pulses_and_energy.png", dpi=150)


def accuracy_of_epoch(rule: Any, arrays: tuple[np.ndarray, ...], epoch: int) -> float:
    x_train, y_train, x_test, y_test = arrays
    Trainer(rule).train(x_train, y_train, epochs=1, seed=1000 + epoch, progress=False)
    return 100 * rule.model.evaluate(x_test, y_test)["accuracy"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "figure"])
    parser.add_argument("--rules", nargs="*", default=list(RULES))
    parser.add_argument("--libraries", nargs="*", default=list(PERCEPTRONS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_manhattan.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.what == "table":
        table(options.rules, options.libraries, options.out)
    else:
        figure(options.epochs, options.out.with_name("pulses_and_energy.json"))
