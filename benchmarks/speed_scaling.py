"""How seconds and memory per training step grow with neurons, steps, batch, spikes and threads: curves from workload B.

    python benchmarks/speed_scaling.py --peers .peers/bin/python                   # all axes, about half an hour
    python benchmarks/speed_scaling.py --peers .peers/bin/python --axes T spikes   # these anew, the others as they are
    python benchmarks/speed_scaling.py --axes T --rounds 3 --backends numpy        # a look: the docs stay as they are
    python benchmarks/speed_scaling.py --axes                                      # the figure alone

Workload B (80 inputs, 256 recurrent ALIF, T 200, batch 32, one thread) with one thing changed at a time, weights scaled
anew so that hidden neurons spike at the wanted rate. Contenders are measured as by speed_table.py. Results go to
docs/results/speed_scaling.json and docs/figures/speed_scaling.png; with fewer rounds or other backends than usual, to a
folder of their own, whose path is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from places import places

from neko_rules.experiments.workloads import WORKLOADS, Workload, calibrated
from speed.arena import Arena, machine
from speed.figures import by_size
from speed.suites import neko_cases, recurrent_peers
from speed.tables import Row, milliseconds

ROUNDS = 7
BACKENDS = ["numpy", "torch", "jax"]
BASE = WORKLOADS["B"]
AXES: dict[str, Sequence[float]] = {
    "neurons": (64, 128, 256, 512, 1024),
    "T": (50, 100, 200, 400, 1000),
    "batch": (1, 8, 32, 128),
    "spikes": (0.01, 0.02, 0.05, 0.1, 0.2),
    "threads": (1, 2),
}
PEERS = ("plain PyTorch, BPTT", "plain JAX, e-prop", "norse, BPTT")


def changed(axis: str, value: float) -> Workload:
    """Workload B with one thing changed; with other threads it stays what it is."""
    name = f"B, {axis} {value:g}"
    if axis == "neurons":
        return calibrated(replace(BASE, name=name, hidden=(int(value),)))
    if axis == "spikes":
        return calibrated(replace(BASE, name=name, input_rate=value, hidden_rate=value))
    if axis == "T":
        return replace(BASE, name=name, steps=int(value))
    return replace(BASE, name=name, batch=int(value)) if axis == "batch" else replace(BASE, name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=list(AXES), metavar="AXIS")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--peers", default=sys.executable, help="Python of the peers' environment")
    parser.add_argument("--folder", type=Path, help="of results and figure; docs/ by default, or a new one for a look")
    options = parser.parse_args()
    shown = options.rounds >= ROUNDS and options.backends == BACKENDS
    path, drawing = places("speed_scaling", shown, options.folder)
    arena = Arena(options.peers, options.rounds)
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"curves": {}}
    for axis in options.axes:
        lines: dict[str, list[tuple[float, Row]]] = {}
        for value in AXES[axis]:
            workload = changed(axis, value)
            mine = [case for case in neko_cases(workload, ("e-prop",)) if case.options["backend"] in options.backends]
            peers = [case for case in recurrent_peers(workload, workload, 10) if case.label in PEERS]
            threads = int(value) if axis == "threads" else 1
            for result in arena.run([*mine, *peers], threads, workload.name):
                if result.seconds:
                    lines.setdefault(result.case.label, []).append((value, result.summary()))
                    print(f"{workload.name:20} {result.case.label:24} {milliseconds(result.median):>8} ms", flush=True)
        kept["machine"] = machine(options.peers)
        kept["curves"][axis] = lines
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    curves = {axis: kept["curves"][axis] for axis in AXES if axis in kept["curves"]}
    if curves:
        by_size(curves).savefig(drawing, dpi=200)
        print(f"Results: {path}\nFigure: {drawing}")


if __name__ == "__main__":
    main()
