"""A spiking network on a crossbar: e-prop in floating point against the signs of e-prop's gradient as pulses.

    python benchmarks/spiking_crossbar.py --seeds 0 1 2

MNIST-1D (40 time steps of one feature, ten classes), 128 ALIF neurons, the settings of configs/mnist1d_eprop.yaml. On
the crossbar all weight matrices live on pairs of devices and only pulses change them; biases are digital.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from neko_rules import ALIF, Crossbar, EProp, Evaluator, Manhattan, Trainer
from neko_rules.datasets import MNIST1D
from neko_rules.devices import presets

FALLING = {"name": "cosine_decay", "initial": 5e-3, "steps": 2500}
W_MAX = {"hidden.input.weight": 4.0, "hidden.recurrent.weight": 1.0, "readout.input.weight": 1.0}


def on_crossbar(model: Evaluator, seed: int, device: Any, mode: str) -> Manhattan:
    """Pulses by the sign of the momentum of e-prop's gradient."""
    crossbar = Crossbar(device, w_max=W_MAX, seed=seed)
    return Manhattan(
        model, FALLING, gradient=EProp(model, mode=mode, seed=seed), crossbar=crossbar, decision="momentum", seed=seed
    )


RULES: dict[str, Callable[[Evaluator, int], Any]] = {
    "floating point, Adam": lambda m, s: EProp(m, optimizer={"name": "adam", "learning_rate": FALLING}, seed=s),
    "floating point, signs of momentum": lambda m, s: Manhattan(
        m, {**FALLING, "initial": 2e-3}, gradient=EProp(m, seed=s), decision="momentum", seed=s
    ),
    "crossbar, idealised devices": lambda m, s: on_crossbar(m, s, presets.Idealized(), "symmetric"),
    "crossbar, ECRAM": lambda m, s: on_crossbar(m, s, presets.EcRam(), "symmetric"),
    "crossbar, ECRAM, random feedback": lambda m, s: on_crossbar(m, s, presets.EcRam(), "random"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    options = parser.parse_args()
    x_train, y_train, x_test, y_test = MNIST1D().load()
    lines = ["| weights | test accuracy | range | pulses per device | energy |", "|---|---|---|---|---|"]
    for name in options.rules:
        found, cost = [], "| | |"
        for seed in options.seeds:
            begin = time.perf_counter()
            network = ALIF(128, 10, tau_membrane=1e-3, readout="mean", seed=seed)
            model = Evaluator(network, metrics=["accuracy"])
            rule = RULES[name](model, seed)
            Trainer(rule).train(x_train, y_train, epochs=options.epochs, batch_size=32, seed=seed, progress=False)
            found.append(100 * model.evaluate(x_test, y_test)["accuracy"])
            if isinstance(rule, Manhattan) and rule.crossbar is not None:
                report = rule.crossbar.report()
                cost = f"| {report.pulses / report.devices:.0f} | {report.energy:.1e} J |"
            print(f"{name}, seed {seed}: {found[-1]:.1f} %  ({time.perf_counter() - begin:.0f} s)", flush=True)
        lines.append(f"| {name} | {np.mean(found):.1f} % | {min(found):.1f} to {max(found):.1f} {cost}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
