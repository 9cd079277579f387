"""Exact in spite of a wrong gradient: one posterior, four forces, and what each costs.

    python benchmarks/wrong_gradients.py

A linear model in two layers, whose posterior is Gaussian in closed form (the readout is held fixed), and a spiking
neuron that feeds itself (four weights), whose posterior is summed over 65,536 points, are sampled by MALA and HMC,
driven by BPTT, symmetric e-prop, e-prop with random feedback, and minus the gradient; a random walk, which needs no
gradient, is the baseline.

Eight chains begin at draws of the prior and share what they adapt. It prints a Markdown table: the largest error of
the followed expectations in Monte-Carlo standard errors; the p-value of Student's t-test of the chains' means against
the truth, Bonferroni over the expectations; mean acceptance; and the bulk ESS of the slowest expectation per 1,000
gradients (for the random walk: per 1,000 energies), which is the price. It ends with an error if a p-value is below
1e-5, which happens to samplers that are right once in 5,000 runs of the 18 rows.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from neko_rules.samplers import Adaptation, HMCKernel, Kernel, MALAKernel, RandomWalkKernel, draw, ess_mean, mcse_mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
cases: Any = importlib.import_module("posterior_cases")
"""The models of the tests, with their known posteriors."""

CHAINS, WARMUP, STEPS = 8, 300, 3
ALPHA = 1e-5

TARGETS = {"random e-prop": 0.4, "sign flipped": 0.3}
"""Mean acceptance to adapt to: the less a force knows of the density, the nearer to the 0.234 of a random walk."""

LONGER = {"random e-prop": 2, "sign flipped": 5}
"""How many times as many draws, so that all chains are long against their memory."""

SAMPLERS: dict[str, tuple[Kernel, tuple[str, ...]]] = {
    "MALA": (MALAKernel(), cases.FORCES),
    f"HMC, {STEPS} steps": (HMCKernel(STEPS, jitter=0.2), cases.FORCES),
    "random walk": (RandomWalkKernel(), ("none",)),
}


def row(model: str, sampler: str, force: str, draws: int) -> tuple[str, float]:
    """A line of the table, and the p-value in it."""
    posterior, x, y, followed, truth = getattr(cases, f"{model}_case")()
    density = posterior.density(x, y) if force == "none" else cases.driven(posterior, x, y, force)
    begin = time.perf_counter()
    kernel = SAMPLERS[sampler][0]
    rng = np.random.default_rng(1)
    start = np.stack([posterior.draw_prior(rng) for _ in range(CHAINS)])
    drawn = draw(kernel, density, start, draws, Adaptation(WARMUP, TARGETS.get(force), mass="identity"), seed=3)
    values = followed(drawn.positions)
    errors = np.abs(values.mean(axis=(0, 1)) - truth) / mcse_mean(values)
    p_value = min(1.0, cases.chain_mean_p_value(values, truth))
    price = 1000 * ess_mean(values).min() / drawn.info.n_steps.sum()
    figures = [
        f"{errors.max():.1f}",
        f"{p_value:.2g}",
        f"{drawn.info.acceptance_rate.mean():.2f}",
        f"{drawn.tuning.step_size:.2g}",
        f"{price:.3g}",
        f"{time.perf_counter() - begin:.0f} s",
    ]
    return f"| {model} | {sampler} | {force} | {' | '.join(figures)} |", p_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draws", type=int, default=1000, help="per chain by MALA with a right force; HMC makes a third of them"
    )
    parser.add_argument("--model", choices=["linear", "spiking"], help="one of the two; both by default")
    given = parser.parse_args()
    print("| model | sampler | force | largest error | p-value | acceptance | step size | ESS per 1,000 | time |")
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = []
    for model in ("linear", "spiking"):
        if given.model not in (None, model):
            continue
        for sampler, (kernel, forces) in SAMPLERS.items():
            for force in forces:
                draws = LONGER.get(force, 1) * given.draws // (STEPS if isinstance(kernel, HMCKernel) else 1)
                line, p_value = row(model, sampler, force, draws)
                print(line, flush=True)
                if p_value < ALPHA:
                    wrong.append(line)
    if wrong:
        raise SystemExit("the posterior was missed by:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
