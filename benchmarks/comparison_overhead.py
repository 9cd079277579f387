"""Cost of comparing k rules, in training steps: at most k + 1 and a tenth.

    python benchmarks/comparison_overhead.py                 # 128 recurrent ALIF, 28 inputs, 28 steps, batch 128
    python benchmarks/comparison_overhead.py --backend jax

Every round times in turn one step of each rule by itself and one batch of the comparison, figures, moments and files
included, so that drifting machine speed hits all alike. The bound is k steps of the mean rule and one of the primary,
and 10 % more, where k counts the rules compared with the primary.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):
    os.environ[_variable] = "1"

import argparse  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from neko_rules import ALIF, BPTT, OTTT, EProp, Evaluator, GradientComparison, Rule  # noqa: E402
from neko_rules.trainers.comparison import _Watched  # noqa: E402


def rules(backend: str, hidden: int) -> dict[str, Rule]:
    def model() -> Evaluator:
        return Evaluator(ALIF(hidden, 10, backend=backend))

    return {
        "bptt": BPTT(model()),
        "symmetric": EProp(model(), mode="symmetric"),
        "random": EProp(model(), mode="random"),
        "ottt": OTTT(model()),
    }


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy")
    for name, value in {"hidden": 128, "inputs": 28, "steps": 28, "batch": 128, "rounds": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = (rng.random((options.batch, options.steps, options.inputs)) < 0.2).astype(np.float32)
    y = rng.integers(0, 10, options.batch)
    alone = rules(options.backend, options.hidden)
    compared = rules(options.backend, options.hidden)
    primary = compared.pop("bptt")
    with tempfile.TemporaryDirectory() as folder:
        watched = _Watched(GradientComparison(primary, compared), Path(folder))
        watched.model.check(x, y)
        for _ in range(3):
            watched.step(x, y)
            for rule in alone.values():
                rule.step(x, y)
        ratios = []
        for _ in range(options.rounds):
            by_rule = {name: seconds(lambda rule=rule: rule.step(x, y)) for name, rule in alone.items()}  # type: ignore[misc]
            together = seconds(lambda: watched.step(x, y))
            ratios.append(together / (sum(by_rule.values()) / len(by_rule)))
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    k = len(compared)
    print(f"{options.backend}: {k} rules compared with the primary cost {middle:.2f} training steps per batch")
    print(f"quartiles {low:.2f} to {high:.2f}; the bound is {k + 1} + 10 % = {1.1 * (k + 1):.2f}")
    print(f"mean {statistics.mean(ratios):.2f} of {options.rounds} rounds")


if __name__ == "__main__":
    main()
