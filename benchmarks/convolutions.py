"""A step of a spiking network that convolves, beside PyTorch's convolutions: the table in docs/speed.md.

    pip install snntorch                  # of benchmarks/peers.txt; without it that row is left out
    python benchmarks/convolutions.py

Pictures of 28 by 28 pixels, 64 a batch, of which a fifth of the pixels is not zero; 12 filters of 5 by 5, then 32 of 5
by 5 at every second place, LIF neurons, a leaky readout of 10; BPTT and Adam. Beside this package on every library
stand a loop in PyTorch that convolves at every time step, the same with a convolution of all time steps at once before
each layer's loop, and snnTorch's neurons in that loop. All in one process, one thread, in turns: medians, in ms.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "NEKO_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse  # noqa: E402
import importlib  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.progress import track  # noqa: E402
from torch.nn import functional  # noqa: E402

from neko_rules import BPTT, Convolution, Evaluator, Layer, Stack  # noqa: E402
from neko_rules.backend import BUILT_IN, is_installed  # noqa: E402

BATCH, DECAY, FILTERS, UPPER, WINDOW, CLASSES = 64, 0.8, 12, 32, 5, 10

WORKLOADS = {
    "currents, 10 steps, every second pixel": ("constant", 10, 2),
    "spikes, 25 steps, every second pixel": ("rate", 25, 2),
    "currents, 10 steps, every pixel": ("constant", 10, 1),
}
"""Encoder, time steps, and the stride of the first convolution."""

Step = Callable[[], object]


class Spike(torch.autograd.Function):  # type: ignore[misc]
    """H(u) forward, the triangle max(0, 1 - |u|) backward."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 0.3 * torch.clamp(1 - ctx.saved_tensors[0].abs(), min=0)


class Plain(torch.nn.Module):  # type: ignore[misc]
    """Two convolutions and a readout, stepped in Python.

    Args:
        stride: of the first convolution.
        at_once: whether a layer's input is convolved for all time steps at once.
        neurons: snnTorch's, of which each layer has one; None for an equation written down.
    """

    def __init__(self, stride: int, at_once: bool, neurons: Callable[[], Any] | None = None) -> None:
        super().__init__()
        lower = (28 - WINDOW) // stride + 1
        upper = (lower - WINDOW) // 2 + 1
        self.layers = torch.nn.ModuleList(
            [torch.nn.Conv2d(1, FILTERS, WINDOW, stride), torch.nn.Conv2d(FILTERS, UPPER, WINDOW, 2)]
        )
        self.readout = torch.nn.Linear(UPPER * upper**2, CLASSES)
        self.at_once = at_once
        self.neurons = torch.nn.ModuleList([neurons(), neurons()]) if neurons else None

    def fired(self, place: int, v: torch.Tensor, z: torch.Tensor, current: torch.Tensor) -> tuple[Any, Any]:
        if self.neurons is not None:
            z, v = self.neurons[place](current, v)
            return v, z
        v = DECAY * v + current - z.detach()
        return v, Spike.apply(v - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch = x.shape[:2]
        if self.at_once:
            for place, layer in enumerate(self.layers):
                currents = layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
                v = z = torch.zeros_like(currents[0])
                sent = []
                for current in currents:
                    v, z = self.fired(place, v, z, current)
                    sent.append(z)
                x = torch.stack(sent)
            return self.read(self.readout(x.flatten(2)))
        states: list[Any] = [(torch.zeros(()), torch.zeros(()))] * 2
        found = []
        for given in x:
            z = given
            for place, layer in enumerate(self.layers):
                v, before = states[place]
                v, z = self.fired(place, v, before, layer(z))
                states[place] = v, z
            found.append(self.readout(z.flatten(1)))
        return self.read(torch.stack(found))

    def read(self, currents: torch.Tensor) -> torch.Tensor:
        y, total = torch.zeros_like(currents[0]), torch.zeros_like(currents[0])
        for current in currents:
            y = DECAY * y + current
            total = total + y
        return total / len(currents)


def by_torch(net: Plain, x: np.ndarray, y: np.ndarray) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    inputs = torch.tensor(np.ascontiguousarray(x.swapaxes(0, 1)).reshape(x.shape[1], BATCH, 1, 28, 28))
    labels = torch.tensor(y)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()

    return step


def by_this(backend: str, stride: int, x: np.ndarray, y: np.ndarray) -> Step:
    first = Convolution((28, 28), FILTERS, WINDOW, stride)
    second = Convolution(first.places, UPPER, WINDOW, 2, channels=FILTERS)
    cell = {"name": "lif", "membrane_decay": DECAY}
    layers = [Layer(cell, connectivity=each, recurrent=False) for each in (first, second)]
    network = Stack(layers, CLASSES, inputs=784, backend=backend, readout="mean", readout_decay=DECAY)
    rule = BPTT(Evaluator(network))
    return lambda: rule.step(x, y)


def snntorch_neurons() -> Any:
    import snntorch

    return snntorch.Leaky(beta=DECAY, init_hidden=False)


def contenders(encoder: str, steps: int, stride: int) -> dict[str, Step]:
    from neko_rules.encoders import ENCODERS

    rng = np.random.default_rng(0)
    pictures = rng.random((BATCH, 784)) * (rng.random((BATCH, 784)) < 0.2)
    x = ENCODERS.create(encoder, {"steps": steps}).encode(pictures, rng, 1e-3).astype(np.float32)
    y = rng.integers(0, CLASSES, BATCH)
    found = {name: by_this(name, stride, x, y) for name in BUILT_IN if is_installed(name)}
    found["PyTorch, a convolution at every step"] = by_torch(Plain(stride, at_once=False), x, y)
    found["PyTorch, all steps at once"] = by_torch(Plain(stride, at_once=True), x, y)
    if find_spec("snntorch"):
        found["snnTorch"] = by_torch(Plain(stride, at_once=False, neurons=snntorch_neurons), x, y)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if find_spec("triton"):
        # PyTorch loads it when it first makes an optimiser, and a process that has TensorFlow by then ends there.
        importlib.import_module("triton")
    print("| workload | by | ms | spread | part of the fastest other |")
    print("|---|---|---|---|---|")
    for workload, given in WORKLOADS.items():
        made = contenders(*given)
        times: dict[str, list[float]] = {name: [] for name in made}
        for round_ in track(range(options.rounds + 2), workload):
            for name, step in made.items():
                begin = time.perf_counter()
                step()
                # The first are those that compile.
                if round_ > 1:
                    times[name].append(1e3 * (time.perf_counter() - begin))
        medians = {name: statistics.median(each) for name, each in times.items()}
        fastest = min(median for name, median in medians.items() if name not in BUILT_IN)
        for name, median in medians.items():
            low, high = np.quantile(times[name], (0.25, 0.75))
            print(f"| {workload} | {name} | {median:.1f} | {low:.1f} to {high:.1f} | {median / fastest:.2f} |")


if __name__ == "__main__":
    main()
