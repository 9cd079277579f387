"""How much of the hard network's energy a surrogate gradient foretells, and how rough that energy is.

    python benchmarks/energy_roughness.py
    python benchmarks/energy_roughness.py --folder runs/posterior     # from a draw of mnist1d_posterior.py --folder

The network of mnist1d_posterior.py is trained for 30 epochs on 500 examples, or takes the last draw of a chain. From
these weights θ all hidden weights are moved along random directions δ, a part of their prior's scale, and (U(θ + δ) -
U(θ - δ))/2, U being minus the log-likelihood of the network with its hard spikes, is held against what a surrogate
gradient g says of it, g·δ. It prints a Markdown table: the standard deviation of the first over 32 directions, and, for
every surrogate, the slope of the regression through the origin and the correlation of the two.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from mnist1d_posterior import BATCH, CHUNK, EPOCHS, PRIORS, rule_of, windows

from neko_rules import EProp, Evaluator, Posterior, Trainer
from neko_rules.datasets import DATASETS
from neko_rules.probabilistic.chain_files import ChainRecord

BELL = {"name": "gaussian", "width": 0.3, "gamma": 1 / (0.3 * (2 * np.pi) ** 0.5)}

SURROGATES: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "triangle, peak 0.3, reset detached": ({"name": "triangular"}, True),
    "triangle of area 1, reset detached": ({"name": "triangular", "gamma": 1.0}, True),
    "triangle of area 1, through the reset": (None, False),
    "bell of area 1, width 0.3, through the reset": (BELL, False),
    "bell of area 1, width 0.3, reset detached": (BELL, True),
}
"""Name → the surrogate (None for that of the benchmark) and whether the reset is detached."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--directions", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="of a sampling run, whose first chain's last draw is taken")
    given = parser.parse_args()
    x, y, _, _ = DATASETS.resolve({"name": "mnist1d", "num_samples": 5000}).load()
    x, y = windows(x)[: given.examples], y[: given.examples]
    trained = rule_of(0, given.backend)
    if given.folder:
        trained.model.check(x, y)
        draw = ChainRecord.read(given.folder / "chain-0").draws[-1]
        trained.model.network.set_parameters(Posterior(trained.model).parameters(np.asarray(draw, np.float64)))
    else:
        Trainer(trained).train(x, y, epochs=EPOCHS, batch_size=BATCH, progress=False)

    gradients = {}
    for name, (surrogate, detached) in SURROGATES.items():
        rule: EProp = rule_of(0, given.backend, surrogate, detached)
        posterior = Posterior(Evaluator(rule.model.network), layers=PRIORS, chunk_size=CHUNK)
        posterior.model.check(x, y)
        theta = posterior.vector(trained.model.network.parameters)[None]
        density = posterior.likelihood_density(posterior.examples(x, y), EProp(posterior.model))
        gradients[name] = density.energy_and_gradient(theta)[1][0]

    hidden = np.zeros(posterior.dimension)
    for name, _, place in posterior.layout:
        hidden[place] = name.startswith("hidden")
    rng, reach = np.random.default_rng(0), posterior.prior_scales() * hidden
    rows: dict[str, list[str]] = {"standard deviation (nats)": [], **{name: [] for name in SURROGATES}}
    sizes = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    for size in sizes:
        moves = size * reach * rng.normal(size=(given.directions, posterior.dimension))
        found = np.array([density.energy(theta + move)[0] - density.energy(theta - move)[0] for move in moves]) / 2
        rows["standard deviation (nats)"].append(f"{found.std():.2f}")
        for name, gradient in gradients.items():
            told = moves @ gradient
            slope, correlation = found @ told / (told @ told), np.corrcoef(found, told)[0, 1]
            rows[name].append(f"{slope:.2f} ({correlation:.2f})")
    print("| move, in prior scales | " + " | ".join(f"{size}" for size in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
