"""Streaming: millions of time steps on one core, without growth, and killed and taken up again without a trace of it.

    python benchmarks/streaming.py                              # ten million steps, memory every million
    python benchmarks/streaming.py --steps 200000 --kill        # killed at a random step, resumed, compared

A sensor that never ends: two of eight channels flicker, which two is a state that switches at random every few hundred
steps and is to be told at every step. The learner is e-prop on 32 recurrent ALIF neurons, with Adam, batch 1; data of
any stretch are a function of the seed and its number. It saves itself after every stretch.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse  # noqa: E402
import random  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from neko_rules import ALIF, EProp, Evaluator  # noqa: E402

CHANNELS, STATES, SWITCH = 8, 4, 300


def stretch(number: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spikes [time, channel] and the state to be told [time]."""
    rng = np.random.default_rng([seed, number])
    switches = np.cumsum(rng.random(length) < 1 / SWITCH)
    labels = (np.random.default_rng([seed, number, 1]).integers(0, STATES, switches[-1] + 1))[switches]
    rates = np.full((length, CHANNELS), 0.02)
    rates[np.arange(length), 2 * labels] = rates[np.arange(length), 2 * labels + 1] = 0.3
    return (rng.random((length, CHANNELS)) < rates).astype(np.float32), labels


def memory() -> float:
    """MB that the process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def learn(steps: int, length: int, backend: str, file: Path, report: int) -> None:
    """Learn on the stream from where the file says, or from its beginning."""
    model = Evaluator(ALIF(32, STATES, inputs=CHANNELS, threshold=0.5, tau_readout=10e-3, backend=backend, seed=1))
    learner = EProp(model, optimizer={"name": "adam", "learning_rate": 5e-4}, online=True).stream()
    if file.exists():
        learner.load(file)
    begin, right = time.perf_counter(), []
    while learner.time < steps:
        x, y = stretch(learner.time // length, length)
        outputs = learner.observe_many(x, y)
        right.append(float((outputs.argmax(axis=1) == y).mean()))
        learner.save(file)
        if report and learner.time % report == 0:
            took = time.perf_counter() - begin
            print(
                f"{learner.time:>12,} steps  {took:8.1f} s  {memory():7.1f} MB  accuracy {np.mean(right):.3f}",
                flush=True,
            )
            right = []


def kill_and_compare(steps: int, length: int, backend: str) -> None:
    """Two runs, one of which is killed at random moments until it is through: the same file to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "whole.safetensors", Path(folder) / "killed.safetensors"
        common = ["--steps", str(steps), "--stretch", str(length), "--backend", backend, "--report", "0", "--file"]
        command = [sys.executable, str(Path(__file__).resolve()), *common]
        subprocess.run([*command, str(files[0])], check=True)
        kills, dice = 0, random.Random(0)
        while True:
            process = subprocess.Popen([*command, str(files[1])])
            try:
                process.wait(timeout=dice.uniform(6, 14) if kills < 3 else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        same = files[0].read_bytes() == files[1].read_bytes()
        print(f"killed {kills} times in {steps:,} steps; the file of the run is {'the same' if same else 'ANOTHER'}")
        assert kills
        assert same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--stretch", type=int, default=10_000, help="time steps between two saves")
    parser.add_argument("--report", type=int, default=1_000_000, help="time steps between two lines")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--file", type=Path, default=None, help="where the learner is kept")
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    if given.kill:
        kill_and_compare(given.steps, given.stretch, given.backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = given.file or Path(folder) / "learner.safetensors"
        learn(given.steps, given.stretch, given.backend, file, given.report)


if __name__ == "__main__":
    main()
