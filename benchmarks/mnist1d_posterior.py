"""MNIST-1D with 1,000 spiking neurons: is the posterior mean less sure where it is wrong? Beside a deep ensemble.

    python benchmarks/mnist1d_posterior.py --out docs/figures

One feed-forward layer of 1,000 LIF neurons with membranes of 1 to 20 ms is trained with symmetric e-prop on 1,000
examples, then its weights are drawn by HMC, whose proposals follow the same rule's gradient. A deep ensemble is given
as many passes over the data. It prints a Markdown table and writes mnist1d_posterior.png: calibration, risk against
coverage, and entropy of right and wrong predictions with a rank test.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from neko_rules import HMC, LIF, EProp, Evaluator, Posterior, Trainer
from neko_rules.datasets import DATASETS
from neko_rules.probabilistic import Predictive
from neko_rules.probabilistic.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    rank_test,
)
from neko_rules.probabilistic.comparisons import deep_ensemble
from neko_rules.report.uncertainty import save_uncertainty_figure

NEURONS, EPOCHS, BATCH = 1000, 30, 50


def rule_of(seed: int, backend: str) -> EProp:
    """An untrained network and its rule."""
    membranes = np.geomspace(1e-3, 20e-3, NEURONS).tolist()
    network = LIF(NEURONS, 10, recurrent=False, readout="mean", tau_membrane=membranes, backend=backend, seed=seed)
    return EProp(Evaluator(network, metrics=["accuracy"]), optimizer={"name": "adam", "learning_rate": 3e-3})


def row(name: str, told: Predictive, labels: np.ndarray, passes: int, seconds: float) -> str:
    """A line of the table."""
    right = told.classes == labels
    chance, p_value = rank_test(told.entropy, right)
    figures = [
        f"{100 * right.mean():.1f} %",
        f"{negative_log_likelihood(told.probabilities, labels):.3f}",
        f"{100 * expected_calibration_error(told.probabilities, labels):.1f} %",
        f"{100 * area_under_risk_coverage(told.entropy, right):.1f} %",
        f"{np.median(told.entropy[right]):.2f} / {np.median(told.entropy[~right]):.2f}",
        f"{chance:.3f} ({p_value:.0e})",
        f"{passes}",
        f"{seconds:.0f} s",
    ]
    return f"| {name} | " + " | ".join(figures) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--warmup", type=int, default=45)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--members", type=int, help="of the ensemble; by default as many as the passes of HMC allow")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    given = parser.parse_args()
    x, y, x_test, y_test = DATASETS.resolve({"name": "mnist1d", "num_samples": 5000}).load()
    x, y = x[: given.examples], y[: given.examples]

    def train(rule: Any) -> None:
        Trainer(rule).train(x, y, epochs=EPOCHS, batch_size=BATCH, progress=False)

    begin = time.perf_counter()
    rule = rule_of(0, given.backend)
    train(rule)
    trained = time.perf_counter() - begin
    one = deep_ensemble(lambda seed: rule, lambda rule: None, 1).predict(x_test)
    assert isinstance(one, Predictive)

    begin = time.perf_counter()
    sampler = HMC(Posterior(rule.model, chunk_size=1000), gradient=rule, steps=given.steps, start="model")
    samples = Trainer(sampler).sample(x, y, draws=given.draws, warmup=given.warmup, chains=given.chains)
    posterior = samples.predict(x_test)
    assert isinstance(posterior, Predictive)
    drawn = time.perf_counter() - begin
    passes = sum(samples.evaluations) + EPOCHS

    begin = time.perf_counter()
    members = given.members or max(2, passes // EPOCHS)
    ensemble = deep_ensemble(lambda seed: rule_of(seed, given.backend), train, members).predict(x_test)
    assert isinstance(ensemble, Predictive)
    assembled = time.perf_counter() - begin

    heads = ["", "accuracy", "negative log likelihood", "ECE", "AURC", "median entropy right / wrong"]
    heads += ["wrong less sure than right (p)", "passes", "time"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    print(row("one network", one, y_test, EPOCHS, trained))
    print(row(f"posterior mean, {samples.chains * samples.draws} draws", posterior, y_test, passes, trained + drawn))
    print(row(f"deep ensemble, {members} members", ensemble, y_test, members * EPOCHS, assembled))
    print()
    print(samples.summary(x_test[:16]))
    print(f"prior and posterior: {samples.posterior.dimension} weights")
    figures = {"posterior": posterior, "deep ensemble": ensemble, "one network": one}
    save_uncertainty_figure(figures, y_test, given.out / "mnist1d_posterior.png")


if __name__ == "__main__":
    main()
