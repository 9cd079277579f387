"""How far SnAp-n is from the whole gradient on sparse recurrent layers: the table in docs/rules.md.

    python benchmarks/snap_on_sparse.py

One layer of 48 recurrent LIF neurons on Randman in the rate code (50 inputs, 50 steps, batch 8), of which a part of the
recurrent synapses is there; at initialisation, seeds 0, 1 and 2. It prints a Markdown table: how many neurons a weight
reaches within n steps, and the cosine of the gradient of the recurrent weights to BPTT's. With all synapses there a
weight reaches every neuron within two steps, and SnAp-2 is RTRL.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.progress import track

from neko_rules import BPTT, Evaluator, Layer, SnAp, Stack
from neko_rules.credit.influence import reach
from neko_rules.datasets import Randman

NEURONS, BATCH, SEEDS, STEPS = 48, 8, (0, 1, 2), (1, 2, 3)
PARTS = (0.03, 0.1, 0.3)
WEIGHT = "hidden.recurrent.weight"


def measured(part: float, seed: int) -> list[tuple[float, float]]:
    """For every n the share of neurons that a weight reaches, and the cosine to BPTT."""
    x, y, _, _ = Randman(seed=seed).load()
    layer = Layer(
        {"name": "lif", "tau_membrane": 10e-3},
        NEURONS,
        initializer={"name": "scaled_normal", "gain": 2.0},
        recurrent_initializer={"name": "scaled_normal", "gain": 1.5},
        recurrent_connectivity=part,
    )
    network = Stack([layer], int(y.max()) + 1, dtype="float64", seed=seed)
    model = Evaluator(network)
    truth = BPTT(model).gradients(x[:BATCH], y[:BATCH])[WEIGHT]
    found = []
    for n in STEPS:
        gradient = SnAp(model, reach=n).gradients(x[:BATCH], y[:BATCH])[WEIGHT]
        cosine = (gradient * truth).sum() / np.linalg.norm(gradient) / np.linalg.norm(truth)
        found.append((float(reach(network.graph, n)["hidden", "hidden"].mean()), float(cosine)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    todo = [(part, seed) for part in PARTS for seed in SEEDS]
    found = {each: measured(*each) for each in track(todo, "networks")}
    print("| recurrent synapses | " + " | ".join(f"SnAp-{n}" for n in STEPS) + " |")
    print("|---|" + "---|" * len(STEPS))
    for part in PARTS:
        means = np.mean([found[part, seed] for seed in SEEDS], axis=0)
        print(
            f"| {100 * part:.0f} % | "
            + " | ".join(f"{cosine:.3f} ({100 * share:.0f} %)" for share, cosine in means)
            + " |"
        )


if __name__ == "__main__":
    main()
