"""Swap the rule: MNIST by rows, with the learning rule as the only thing that changes.

    python examples/swap_the_rule.py bptt
    python examples/swap_the_rule.py eprop-random --backend torch --epochs 5

An image is 28 time steps of 28 pixels. The files are downloaded once, or read from ``$NEKO_DATA_DIR/mnist``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from neko_rules import ALIF, BPTT, OSTL, EProp, Evaluator, LearningRule, Trainer
from neko_rules.datasets import MNIST

ADAM = {"name": "adam", "learning_rate": 2e-3}

RULES: dict[str, Callable[[Evaluator], LearningRule]] = {
    "bptt": lambda model: BPTT(model, optimizer=ADAM),
    "eprop-symmetric": lambda model: EProp(model, mode="symmetric", optimizer=ADAM),
    "eprop-random": lambda model: EProp(model, mode="random", optimizer=ADAM),
    "eprop-adaptive": lambda model: EProp(model, mode="adaptive", optimizer=ADAM),
    "ostl": lambda model: OSTL(model, optimizer=ADAM),
}


def main() -> None:
    """Train by the rule that the command line names, and print what it reached on the test images."""
    parser = argparse.ArgumentParser(description="MNIST by rows, with a learning rule of your choice.")
    parser.add_argument("rule", choices=list(RULES))
    parser.add_argument("--backend", default="numpy", help="numpy, torch, tensorflow or jax")
    parser.add_argument("--hidden", type=int, default=128, help="number of ALIF neurons")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, default=None, help="train and test on the first so many images only")
    given = parser.parse_args()

    x_train, y_train, x_test, y_test = MNIST(train_examples=given.examples, test_examples=given.examples).load()
    network = ALIF(given.hidden, 10, backend=given.backend, task_type="classification")
    model = Evaluator(network, loss="categorical_crossentropy", metrics=["accuracy", "firing_rate"])
    rule = RULES[given.rule](model)
    Trainer(rule).train(x_train, y_train, epochs=given.epochs)

    figures = model.evaluate(x_test, y_test)
    print(f"{rule}: test accuracy {figures['accuracy']:.2%}, {figures['firing_rate']:.1f} Hz")


if __name__ == "__main__":
    main()
