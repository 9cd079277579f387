"""Spike times: five outputs learn when to fire their first spike, from the times of their spikes alone.

    python examples/spike_times.py
    python examples/spike_times.py --backend jax --dt 5e-4

Thirty input neurons fire once each. EventProp moves the spikes of hidden and output neurons until every output comes at
the time that it is asked for, with no surrogate derivative; only a penalty that wakes silent outputs has one.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from neko_rules import LIF, Evaluator, EventProp, FiringRateLowerBound

WANTED = np.array([15.0, 20.0, 25.0, 30.0, 35.0])
"""When the outputs should fire, in ms."""


def main() -> None:
    """Train, and print when every output fires before and after."""
    parser = argparse.ArgumentParser(description="First spikes at wanted times, by EventProp.")
    parser.add_argument("--backend", default="numpy", help="numpy, torch, tensorflow or jax")
    parser.add_argument("--dt", type=float, default=1e-3, help="time step in seconds")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    steps, inputs = round(50e-3 / given.dt), 30
    x = np.zeros((1, steps, inputs))
    x[0, np.linspace(0, 0.9 * steps, inputs).astype(int), np.arange(inputs)] = 1.0
    wanted = WANTED[None] * 1e-3 / given.dt

    neurons: dict[str, Any] = {
        "tau_synapse": 5e-3,
        "tau_membrane": 20e-3,
        "surrogate": {"name": "fast_sigmoid", "slope": 2.0},
    }
    network = LIF(
        60,
        len(WANTED),
        inputs=inputs,
        recurrent=False,
        **neurons,
        output_cell={"name": "lif", **neurons},
        initializer={"name": "scaled_normal", "gain": 1.5e3 * given.dt},
        readout_initializer={"name": "scaled_normal", "gain": 1.5e3 * given.dt},
        dt=given.dt,
        task_type="regression",
        backend=given.backend,
        seed=given.seed,
    )
    model = Evaluator(network, loss="first_spike_squared_error")
    # An output that is silent has no spike to move; this wakes it, and is zero once it fires.
    alive = FiringRateLowerBound(bound=20.0, strength=10.0, populations=["readout"])
    rule = EventProp(model, optimizer={"name": "adam", "learning_rate": 5 * given.dt}, regularizers=[alive])

    def fired() -> np.ndarray:
        z = model.trajectory(x).z("readout")[:, 0]
        return np.where(z.any(axis=0), z.argmax(axis=0) * given.dt * 1e3, np.nan)

    before = fired()
    for _ in range(given.updates):
        rule.step(x, wanted)
    print("output   wanted   before    after")
    for output, times in enumerate(zip(WANTED, before, fired(), strict=True)):
        print(f"{output:6}", *("   silent" if np.isnan(each) else f"{each:6.1f} ms" for each in times), sep="")
    print(f"off by {np.abs(fired() - WANTED).mean():.2f} ms on average, where a time step is {1e3 * given.dt:g} ms")


if __name__ == "__main__":
    main()
