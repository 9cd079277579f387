"""Evidence accumulation: count cues on two sides, remember for a second, then say which side had more.

    python examples/evidence_accumulation.py
    python examples/evidence_accumulation.py --backend jax --epochs 30 --mode random

Half of the neurons adapt: each spike raises their threshold for about two seconds, which is the only memory in the
network that outlasts the delay, and e-prop assigns credit through it (Bellec et al. 2020, figure 4).
"""

from __future__ import annotations

import argparse

from neko_rules import ALIF, EProp, Evaluator, FiringRate, Trainer
from neko_rules.datasets import EvidenceAccumulation


def main() -> None:
    """Train by e-prop, and print how often the network is right on trials that it has not seen."""
    parser = argparse.ArgumentParser(description="Evidence accumulation by e-prop.")
    parser.add_argument("--backend", default="numpy", help="numpy, torch, tensorflow or jax")
    parser.add_argument("--mode", default="symmetric", help="symmetric, random or adaptive feedback")
    parser.add_argument("--neurons", type=int, default=100, help="half of them adaptive")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--delay", type=float, default=1.05, help="seconds between the last cue and the answer")
    given = parser.parse_args()

    task = EvidenceAccumulation(train_examples=given.trials, test_examples=128, delay=given.delay)
    x_train, y_train, x_test, y_test = task.load()

    plain, adaptive = given.neurons // 2, given.neurons - given.neurons // 2
    network = ALIF(
        given.neurons,
        2,
        backend=given.backend,
        beta=(0.0,) * plain + (0.03,) * adaptive,
        tau_adaptation=2.0,
        refractory_period=5e-3,
    )
    model = Evaluator(network, metrics=["accuracy", "firing_rate"])
    rule = EProp(
        model,
        mode=given.mode,
        optimizer={"name": "adam", "learning_rate": 5e-3},
        regularizers=[FiringRate(target=10.0)],
    )
    Trainer(rule).train(x_train, y_train, epochs=given.epochs, batch_size=64)

    figures = model.evaluate(x_test, y_test, batch_size=64)
    print(f"right in {figures['accuracy']:.1%} of the answers, {figures['firing_rate']:.1f} Hz")


if __name__ == "__main__":
    main()
