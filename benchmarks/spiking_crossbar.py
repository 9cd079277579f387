"""A spiking network on a crossbar: e-prop in floating point against the signs of e-prop's gradient as pulses.

    python benchmarks/spiking_crossbar.py train     # test accuracy, pulses and energy; prints Markdown
    python benchmarks/spiking_crossbar.py read      # the same network read through converters and with noise

MNIST-1D (40 time steps of one feature, ten classes), 128 ALIF neurons, the settings of configs/mnist1d_eprop.yaml. On
the crossbar all weight matrices live on pairs of devices and only pulses change them; biases are digital. The read path
is looked at twice: with the network trained in floating point, and trained through the converters.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from neko_rules import ALIF, Crossbar, EProp, Evaluator, Manhattan, Trainer, on_crossbar
from neko_rules.datasets import MNIST1D
from neko_rules.devices import Constant, Converters, presets

FALLING = {"name": "cosine_decay", "initial": 5e-3, "steps": 2500}
W_MAX = {"hidden.input.weight": 4.0, "hidden.recurrent.weight": 1.0, "readout.input.weight": 1.0}


def by_pulses(model: Evaluator, seed: int, device: Any, mode: str) -> Manhattan:
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
    "crossbar, idealised devices": lambda m, s: by_pulses(m, s, presets.Idealized(), "symmetric"),
    "crossbar, ECRAM": lambda m, s: by_pulses(m, s, presets.EcRam(), "symmetric"),
    "crossbar, ECRAM, random feedback": lambda m, s: by_pulses(m, s, presets.EcRam(), "random"),
}


READ_PATHS = [(0, 0.0), *((bits, 0.0) for bits in (8, 6, 5, 4, 3)), *((0, noise) for noise in (0.01, 0.02, 0.05))]
"""Bits of DAC and ADC, and read noise as a fraction of the conductance range."""


def trained(rule: Any, data: tuple[np.ndarray, ...], epochs: int, seed: int) -> float:
    x_train, y_train, x_test, y_test = data
    Trainer(rule).train(x_train, y_train, epochs=epochs, batch_size=32, seed=seed, progress=False)
    return 100 * rule.model.evaluate(x_test, y_test)["accuracy"]


def evaluator(seed: int) -> Evaluator:
    network = ALIF(128, 10, tau_membrane=1e-3, readout="mean", inputs=1, seed=seed)
    return Evaluator(network, metrics=["accuracy"])


def train(names: list[str], seeds: list[int], epochs: int) -> None:
    data = MNIST1D().load()
    lines = ["| weights | test accuracy | range | pulses per device | energy |", "|---|---|---|---|---|"]
    for name in names:
        found, cost = [], "| | |"
        for seed in seeds:
            begin = time.perf_counter()
            rule = RULES[name](evaluator(seed), seed)
            found.append(trained(rule, data, epochs, seed))
            if isinstance(rule, Manhattan) and rule.crossbar is not None:
                report = rule.crossbar.report()
                cost = f"| {report.pulses / report.devices:.0f} | {report.energy:.1e} J |"
            print(f"{name}, seed {seed}: {found[-1]:.1f} %  ({time.perf_counter() - begin:.0f} s)", flush=True)
        lines.append(f"| {name} | {np.mean(found):.1f} % | {min(found):.1f} to {max(found):.1f} {cost}")
    print("\n".join(lines))


def read_path(bits: int, noise: float, weights: dict[str, np.ndarray], seed: int) -> Crossbar:
    """Nearly ideal devices; every matrix has the range that its largest weight needs."""
    largest = {name: 1.01 * float(np.abs(weights[name]).max()) for name in W_MAX}
    converters = Converters(bits, dac_bound=4.5, adc_bits=bits, adc_bound=8.0)
    return Crossbar(Constant(step=1e-8, read_noise=noise), w_max=largest, seed=seed, **asdict(converters))


def read(seeds: list[int], epochs: int, through: list[int]) -> None:
    """Accuracies with weights that were trained in floating point, and that were trained through the converters."""
    data = MNIST1D().load()
    before: dict[tuple[int, float], list[float]] = {path: [] for path in READ_PATHS}
    after: dict[tuple[int, float], list[float]] = {(bits, 0.0): [] for bits in through}
    for seed in seeds:
        rule = RULES["floating point, Adam"](evaluator(seed), seed)
        trained(rule, data, epochs, seed)
        weights = rule.model.network.parameters
        for bits, noise in READ_PATHS:
            shown = on_crossbar(rule.model.network, read_path(bits, noise, weights, seed))
            figures = Evaluator(shown, metrics=["accuracy"]).evaluate(*data[2:])
            before[bits, noise].append(100 * figures["accuracy"])
        for bits, noise in after:
            first = evaluator(seed).network
            converted = on_crossbar(first, read_path(bits, noise, first.parameters, seed))
            model = Evaluator(converted, metrics=["accuracy"])
            after[bits, noise].append(trained(RULES["floating point, Adam"](model, seed), data, epochs, seed))
            both = f"{before[bits, noise][-1]:.1f} %, {after[bits, noise][-1]:.1f} %"
            print(f"{bits} bits, seed {seed}: {both}", flush=True)
    print("| converters | read noise | trained in floating point | trained through them |\n|---|---|---|---|")
    for bits, noise in READ_PATHS:
        cells = [before[bits, noise], after.get((bits, noise), [])]
        shown = [f"{np.mean(each):.1f} % ({min(each):.1f} to {max(each):.1f})" if each else "" for each in cells]
        print(f"| {f'{bits} bits' if bits else 'exact'} | {100 * noise:g} % | {shown[0]} | {shown[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "read"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    parser.add_argument("--through", type=int, nargs="*", default=[5, 4], help="bits of converters to train through")
    options = parser.parse_args()
    if options.what == "train":
        train(options.rules, options.seeds, options.epochs)
    else:
        read(options.seeds, options.epochs, options.through)


if __name__ == "__main__":
    main()
