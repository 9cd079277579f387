"""MNIST-1D with 1,000 spiking neurons: is the posterior mean less sure where it is wrong? Beside a deep ensemble.

    python benchmarks/mnist1d_posterior.py

A window of 8 of the 40 points moves by 2 a step over 1,000 LIF neurons with membranes of 0.3 to 2 ms; what is
classified is their mean over time. The weights are drawn by HMC, whose proposals follow the gradient of symmetric
e-prop, in chains that begin at draws of the prior, two at a time in processes of their own. Members of a deep ensemble
are trained by the same rule on the same examples; the first of them, with and without dropout, stands for one network.
Sampling makes far more passes over the data than an ensemble can use: how it goes on with more members is printed.

The surrogate has the area 1, and the gradient goes through the reset. Averaged over many spikes it then is nearly the
slope of the hard network's energy, which is what a proposal wants; with a peak of 0.3 and a detached reset, the
defaults for training, it is not, and the chain must go in shorter steps.

A trajectory is about a prior scale long, after which the readout weights, whose energy is smooth, are drawn anew.
Hidden weights, upstream of every spike, have a rough energy: between trajectories those of 200 neurons move, a neuron
at a time.

It prints a Markdown table and writes mnist1d_posterior.png and .svg: entropy of right and wrong predictions with a rank
test, calibration, and risk against coverage. The predictions are kept in mnist1d_posterior.npz; ``--draw`` draws them
again without computing anything.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from places import places

from neko_rules import HMC, LIF, EProp, Evaluator, Posterior, Trainer
from neko_rules.datasets import DATASETS
from neko_rules.probabilistic import Predictive, Samples
from neko_rules.probabilistic.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    rank_test,
)
from neko_rules.probabilistic.comparisons import Ensemble, MonteCarloDropout
from neko_rules.report.uncertainty import save_uncertainty_figure

NEURONS, WIDTH, STRIDE = 1000, 8, 2
EPOCHS, BATCH, CHUNK, DROPOUT, MASKS = 30, 50, 25, 0.2, 50
TOLD = (1, 8, 16, 32)
"""Members after which the ensemble predicts, beside the last."""

PRIORS = {
    "hidden.input.weight": {"name": "normal", "scale": 1.5 / WIDTH**0.5},
    "hidden.bias": {"name": "normal", "scale": 0.3},
    "readout": {"name": "normal", "scale": 1.0},
}
NAME = "mnist1d_posterior"
METHODS = ("posterior mean", "one network", "deep ensemble", "dropout")
"""In the order of the table and the figure."""


def windows(x: np.ndarray) -> np.ndarray:
    """[examples, 40, 1] → [examples, 20, 8]: at step t the points from 2t - 3 to 2t + 4, zeros beyond the ends."""
    padded = np.pad(x[:, :, 0], ((0, 0), ((WIDTH - STRIDE) // 2, WIDTH)))
    return np.stack([padded[:, at : at + WIDTH] for at in range(0, x.shape[1], STRIDE)], axis=1)


def rule_of(seed: int, backend: str, surrogate: dict[str, Any] | None = None, detach_reset: bool = False) -> EProp:
    """An untrained network and its rule; the surrogate is a triangle of area 1 unless another is given."""
    network = LIF(
        NEURONS,
        10,
        recurrent=False,
        readout="mean",
        readout_decay=0.0,
        tau_membrane=np.geomspace(0.3e-3, 2e-3, NEURONS).tolist(),
        surrogate=surrogate or {"name": "triangular", "gamma": 1.0},
        detach_reset=detach_reset,
        backend=backend,
        seed=seed,
    )
    return EProp(Evaluator(network, metrics=["accuracy"]), optimizer={"name": "adam", "learning_rate": 3e-3})


def hidden_way(samples: Samples, chain: int) -> float:
    """How far the hidden weights of a chain went from its first draw to its last, in prior scales (rms)."""
    first, last = (np.asarray(samples.records[chain].draws[at], np.float64) for at in (0, -1))
    hidden = [at for name, _, at in samples.posterior.layout if name.startswith("hidden.")]
    way = (last - first) / samples.posterior.prior_scales()
    return float(np.sqrt(np.mean(np.concatenate([way[at] for at in hidden]) ** 2)))


def row(name: str, told: Predictive, labels: np.ndarray, passes: int) -> str:
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
    ]
    return f"| {name} | " + " | ".join(figures) + " |"


def table(results: dict[str, tuple[Predictive, int]], labels: np.ndarray) -> str:
    """The table of all methods."""
    heads = ["", "accuracy", "negative log likelihood", "ECE", "AURC", "median entropy right / wrong"]
    heads += ["wrong less sure than right (p)", "passes"]
    lines = [row(f"{name}, {told.networks}", told, labels, passes) for name, (told, passes) in results.items()]
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines])


def compute(given: argparse.Namespace, stored: Path) -> None:
    """Sample, train, predict, and keep: name → (predictions, passes over the data)."""
    x, y, x_test, y_test = DATASETS.resolve({"name": "mnist1d", "num_samples": 5000}).load()
    x, y, x_test = windows(x)[: given.examples], y[: given.examples], windows(x_test)
    results: dict[str, tuple[Predictive, int]] = {}

    def add(name: str, told: Any, passes: int) -> None:
        assert isinstance(told, Predictive)
        results[name] = (told, passes)

    rule = rule_of(0, given.backend)
    posterior = Posterior(rule.model, layers=PRIORS, chunk_size=CHUNK)
    sampler = HMC(
        posterior,
        gradient=rule,
        steps=given.steps,
        jitter=0.2,
        step_size=given.step_size,
        target_acceptance=0.6,
        adaptation="robbins_monro",
        mass="identity",
        scales={"hidden": given.hidden},
        neurons={"hidden": given.neurons},
    )
    plan = {"draws": given.draws, "warmup": given.warmup, "chains": given.chains, "folder": given.folder}
    plan["processes"] = given.processes
    begin = time.perf_counter()
    samples = Trainer(sampler).sample(x, y, **plan, resume=given.folder is not None and given.folder.exists())
    passes = sum(samples.evaluations)
    add("posterior mean", samples.predict(x_test), passes)
    print(f"{posterior.dimension} weights, {time.perf_counter() - begin:.0f} s", flush=True)
    print(samples.summary(x_test[:100]), flush=True)
    for chain in range(given.chains):
        print(f"chain {chain}: hidden weights moved {hidden_way(samples, chain):.4f} prior scales", flush=True)

    dropout = MonteCarloDropout(rule_of(0, given.backend), DROPOUT)
    dropout.train(x, y, EPOCHS, BATCH)
    add("dropout", dropout.predict(x_test, MASKS), EPOCHS)

    begin = time.perf_counter()
    models: list[Evaluator] = []
    for seed in range(given.members):
        rule = rule_of(seed, given.backend)
        Trainer(rule).train(x, y, epochs=EPOCHS, batch_size=BATCH, seed=seed, progress=False)
        models.append(rule.model)
        if len(models) in TOLD or len(models) == given.members:
            told = Ensemble(models).predict(x_test)
            assert isinstance(told, Predictive)
            add("deep ensemble" if seed else "one network", told, len(models) * EPOCHS)
            right = 100 * (told.classes == y_test).mean()
            loss = negative_log_likelihood(told.probabilities, y_test)
            print(
                f"{seed + 1} members: {right:.1f} %, {loss:.3f} nats, {time.perf_counter() - begin:.0f} s", flush=True
            )
            # What there is so far: a run may be stopped.
            keep(results, y_test, stored)


def keep(results: dict[str, tuple[Predictive, int]], labels: np.ndarray, path: Path) -> None:
    """Write what was predicted, and at what cost."""
    arrays: dict[str, Any] = {"labels": labels.astype(np.int8)}
    for name, (told, _) in results.items():
        arrays[f"{name}/probabilities"] = told.probabilities.astype(np.float32)
        arrays[f"{name}/mutual_information"] = told.mutual_information.astype(np.float32)
    about = {name: [told.networks, passes] for name, (told, passes) in results.items()}
    np.savez_compressed(path, about=json.dumps(about), **arrays)


def kept(path: Path) -> tuple[dict[str, tuple[Predictive, int]], np.ndarray]:
    """Read it back."""
    from neko_rules.probabilistic.predictive import entropies

    results: dict[str, tuple[Predictive, int]] = {}
    with np.load(path) as stored:
        for name, (networks, passes, *_) in json.loads(str(stored["about"])).items():
            probabilities = stored[f"{name}/probabilities"].astype(np.float64)
            doubt = stored[f"{name}/mutual_information"].astype(np.float64)
            told = Predictive(probabilities, entropies(probabilities), doubt, networks)
            results[name] = (told, passes)
        results = {name: results[name] for name in METHODS if name in results}
        return results, stored["labels"].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--draws", type=int, default=280)
    parser.add_argument("--warmup", type=int, default=70)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step-size", type=float, default=0.027, help="where adaptation begins, in prior scales")
    parser.add_argument(
        "--hidden", type=float, default=1e-5, help="how far hidden weights move in a trajectory, in prior scales"
    )
    parser.add_argument("--neurons", type=int, default=200, help="hidden neurons that move alone in a transition")
    parser.add_argument("--processes", type=int, default=2, help="chains side by side")
    parser.add_argument("--members", type=int, default=64, help="of the ensemble")
    parser.add_argument("--folder", type=Path, help="where the draws are kept; a run that was stopped goes on")
    parser.add_argument("--out", type=Path, help="of results and figure; docs/ with the usual plan, else a new folder")
    parser.add_argument("--draw", action="store_true", help="draw the figure from the results that are there")
    given = parser.parse_args()
    plan = ("examples", "draws", "warmup", "chains", "steps", "step_size", "hidden", "neurons", "members")
    usual = all(getattr(given, name) == parser.get_default(name) for name in plan)
    stored, drawing = places(NAME, usual, given.out, ".npz")
    if not given.draw:
        compute(given, stored)
    results, labels = kept(stored)
    print(table(results, labels))
    save_uncertainty_figure({name: told for name, (told, _) in results.items()}, labels, drawing)
    print(f"Results: {stored}\nFigure: {drawing}")


if __name__ == "__main__":
    main()
