"""Test accuracy by rule: Randman in both codes, MNIST by rows, and spoken digits; the tables of docs/rules.md.

    python benchmarks/accuracy_by_rule.py randman_time --seeds 0 1 2 3 4
    python benchmarks/accuracy_by_rule.py randman_rate --seeds 0 1 2 3 4
    python benchmarks/accuracy_by_rule.py mnist
    python benchmarks/accuracy_by_rule.py spoken_digits

Within a task every rule has the same network, loss, optimiser and number of epochs; the learning rate is one of two
that a rule is tried with on seed 0, judged by accuracy on examples held out from training. Losses are taken at every
time step, so that online rules and deferred ones minimise the same. Results go to docs/results/accuracy_by_rule.json;
runs that are there already are not made again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rule_cases import CASES, Case

from neko_rules import ALIF, LIF, Evaluator, Trainer
from neko_rules.datasets import MNIST, Randman, SpokenDigits
from neko_rules.errors import NonFiniteError

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "accuracy_by_rule.json"

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Task:
    """Data, network and length of training.

    Args:
        load: the data of a seed: x_train, y_train, x_test, y_test.
        network: the network of a seed on a backend.
        epochs: passes over the training data.
        batch_size: sequences per step.
        rates: learning rates of Adam that a rule is tried with; of an online rule, divided by ``slower``.
        slower: how much smaller the learning rates of rules are that change weights at every time step.
        held_out: training examples that a learning rate is judged by.
        tried: training examples that it is tried on.
    """

    load: Callable[[int], Split]
    network: Callable[[int, str], Any]
    epochs: int
    batch_size: int
    rates: tuple[float, ...] = (5e-3, 2e-3)
    slower: float = 10.0
    held_out: int = 128
    tried: int = 832


DECAY = float(1 / (1 + np.exp(-2)))


def randman(code: str) -> Task:
    """Three feed-forward layers of 128 LIF neurons; 96 training and 200 test examples of each class."""

    def load(seed: int) -> Split:
        return Randman(code=code, train_examples=96, test_examples=200, manifold_seed=seed, seed=seed).load()

    def network(seed: int, backend: str) -> LIF:
        return LIF(
            [128, 128, 128],
            10,
            recurrent=False,
            membrane_decay=DECAY,
            readout_decay=DECAY,
            surrogate={"name": "fast_sigmoid", "slope": 25.0},
            seed=seed,
            backend=backend,
        )

    return Task(load, network, epochs=5, batch_size=64)


def mnist() -> Task:
    """One recurrent layer of 128 ALIF neurons, 28 rows of 28 pixels, all 60,000 images."""
    return Task(
        lambda seed: MNIST().load(),
        lambda seed, backend: ALIF(128, 10, tau_membrane=10e-3, beta=0.3, seed=seed, backend=backend),
        epochs=1,
        batch_size=64,
        rates=(3e-3, 1e-3),
        held_out=2000,
        tried=8000,
    )


def spoken_digits() -> Task:
    """One recurrent layer of 128 ALIF neurons, 50 frames of 32 log-mel channels, 2,700 recordings."""
    return Task(
        lambda seed: SpokenDigits(channels=32, hop=20e-3, time_steps=50).load(),
        lambda seed, backend: ALIF(
            128, 10, dt=20e-3, tau_membrane=0.1, tau_adaptation=0.5, tau_readout=0.1, seed=seed, backend=backend
        ),
        epochs=10,
        batch_size=64,
        rates=(3e-3, 1e-3),
        held_out=300,
        tried=2304,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "randman_time": lambda: randman("time"),
    "randman_rate": lambda: randman("rate"),
    "mnist": mnist,
    "spoken_digits": spoken_digits,
}


def is_online(case: Case) -> bool:
    """Whether a rule changes its weights within a sequence, at every time step."""
    return bool(case.arguments.get("online")) or case.name == "fptt"


class Contender:
    """A rule on a task, compiled once and put back to a new beginning for every run."""

    def __init__(self, case: Case, task: Task, backend: str) -> None:
        self.case, self.task, self.backend = case, task, backend
        self.rule = self._fresh(0, 1e-3, 1, 1)

    def _fresh(self, seed: int, rate: float, updates: int, steps: int) -> Any:
        model = Evaluator(self.task.network(seed, self.backend), metrics=["accuracy"])
        count = updates * (steps if is_online(self.case) else 1)
        schedule = {"name": "cosine_decay", "initial": rate, "steps": count}
        return self.case.make(model, optimizer={"name": "adam", "learning_rate": schedule}, seed=seed)

    def run(self, seed: int, rate: float, data: Split, epochs: int) -> dict[str, float]:
        """Accuracy on the second half of the data after training on the first, and seconds."""
        x, y, x_test, y_test = data
        updates = -(-len(x) // self.task.batch_size) * epochs
        if self.case.name == "truncated_bptt":
            updates *= -(-x.shape[1] // self.case.arguments["window"])
        fresh = self._fresh(seed, rate, updates, x.shape[1])
        fresh.model.check(x, y)
        self.rule.load_state(fresh.state())
        self.rule.optimizer, self.rule.seed = fresh.optimizer, seed
        begin = time.perf_counter()
        try:
            trainer = Trainer(self.rule)
            trainer.train(x, y, epochs=epochs, batch_size=self.task.batch_size, seed=seed, progress=False)
        except NonFiniteError:
            return {"accuracy": float("nan"), "seconds": time.perf_counter() - begin}
        seconds = time.perf_counter() - begin
        return {"accuracy": self.rule.model.evaluate(x_test, y_test, batch_size=500)["accuracy"], "seconds": seconds}

    def best_rate(self) -> float:
        """The learning rate with the best accuracy on held-out training examples, on seed 0 and some of the epochs."""
        task = self.task
        x, y, _, _ = task.load(0)
        order = np.random.default_rng(0).permutation(len(x))[: task.tried + task.held_out]
        kept, held = order[: task.tried], order[task.tried :]
        rates = [rate / (task.slower if is_online(self.case) else 1.0) for rate in task.rates]
        epochs = max(1, -(-task.epochs // 3))
        scores = [self.run(0, rate, (x[kept], y[kept], x[held], y[held]), epochs)["accuracy"] for rate in rates]
        return rates[int(np.nanargmax(scores))] if not np.all(np.isnan(scores)) else min(rates)


def table(results: dict[str, Any], task: str) -> str:
    """Mean and range over seeds as Markdown."""
    lines = ["| rule | test accuracy | range | seeds | learning rate |", "|---|---|---|---|---|"]
    rows = []
    for label in CASES:
        found = {key: value for key, value in results.items() if key.startswith(f"{task}/{label}/")}
        values = [100 * each["accuracy"] for each in found.values()]
        if values:
            rate = next(iter(found.values()))["rate"]
            mean = float(np.mean(values))
            spread = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else ""
            rows.append((mean, f"| {label} | {mean:.1f} % | {spread} | {len(values)} | {rate:g} |"))
    rows.sort(key=lambda row: -row[0] if np.isfinite(row[0]) else np.inf)
    return "\n".join([*lines, *(row for _, row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--rules", nargs="+", default=list(CASES))
    given = parser.parse_args()
    console, task = Console(), TASKS[given.task]()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for label in given.rules:
        case = CASES[label]
        wanted = [seed for seed in given.seeds if f"{given.task}/{label}/{seed}" not in results]
        if not wanted:
            continue
        contender = Contender(case, task, given.backend)
        known = [value["rate"] for key, value in results.items() if key.startswith(f"{given.task}/{label}/")]
        rate = known[0] if known else contender.best_rate()
        for seed in wanted:
            found = contender.run(seed, rate, task.load(seed), task.epochs)
            console.print(f"{given.task:14} {label:26} seed {seed}  {found['accuracy']:.4f}  {found['seconds']:.0f} s")
            # Another command may have written its results meanwhile.
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results[f"{given.task}/{label}/{seed}"] = {**found, "rate": rate}
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=0, sort_keys=True) + "\n")
    print(table(results, given.task))


if __name__ == "__main__":
    main()
