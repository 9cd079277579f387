"""One epoch of MNIST by rows on one thread: 60,000 images, 128 ALIF, e-prop: seconds by backend.

    python benchmarks/mnist_epoch.py
    python benchmarks/mnist_epoch.py --backends numpy torch --examples 12800    # a part, and what an epoch would take

Each backend is a process of its own with one thread on one core; data are read before the clock starts, and the first
step, which compiles, is told apart. Batches of 128, shuffled, Adam, 469 steps, no evaluation. The library Neko is no
longer installed here: its row is 469 times the median of its training step, 0.052 s with PyTorch and 0.35 s with
TensorFlow as it is shipped, measured on a machine of the same kind.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from typing import Any

from neko_rules.backend import BUILT_IN, is_installed

EXAMPLES, BATCH = 60_000, 128
STEPS = math.ceil(EXAMPLES / BATCH)
NEKO_STEP = {"neko 2021, PyTorch": 0.052, "neko 2021, TensorFlow as shipped": 0.35}
"""Median seconds of a training step, measured on another day."""


def train(backend: str, examples: int) -> dict[str, Any]:
    """One pass over the training data in this process."""
    import numpy as np

    from neko_rules import ALIF, EProp, Evaluator
    from neko_rules.datasets import MNIST

    x, y, _, _ = MNIST(train_examples=examples).load()
    # The network of configs/mnist_eprop.yaml.
    network = ALIF(128, 10, tau_membrane=10e-3, beta=0.3, readout="mean", backend=backend)
    rule = EProp(Evaluator(network), optimizer={"name": "adam", "learning_rate": 3e-3})
    order = np.random.default_rng(0).permutation(len(x))
    times, losses = [], []
    for start in range(0, len(x), BATCH):
        chosen = order[start : start + BATCH]
        begin = time.perf_counter()
        losses.append(rule.step(x[chosen], y[chosen])["loss"])
        times.append(time.perf_counter() - begin)
    return {"first": times[0], "rest": sum(times[1:]), "steps": len(times), "loss": [losses[0], losses[-1]]}


def in_a_process(backend: str, examples: int) -> dict[str, Any]:
    """``train`` in a process with one thread on one core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    more = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {**os.environ, **dict.fromkeys((*names, *more), "1"), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, __file__, "--worker", backend, "--examples", str(examples)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=[name for name in BUILT_IN if is_installed(name)])
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(train(options.worker, options.examples)))
        return
    print("| | epoch s | of it first step s | ms per step | loss, first to last batch |\n|---|--:|--:|--:|--:|")
    for backend in options.backends:
        found = in_a_process(backend, options.examples)
        step = found["rest"] / (found["steps"] - 1)
        first, last = found["loss"]
        whole = found["first"] + step * (STEPS - 1)
        print(f"| {backend} | {whole:.1f} | {found['first']:.1f} | {1e3 * step:.1f} | {first:.2f} to {last:.2f} |")
    for name, step in NEKO_STEP.items():
        print(f"| {name} | {STEPS * step:.1f} (computed) | | {1e3 * step:.0f} (quoted) | |")


if __name__ == "__main__":
    main()
