"""Networks, data and the look at which chains were used, for tests of what goes by one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from credit_cases import distance, recurrent_readout

from neko_rules import ALIF, LIF, Network
from neko_rules.chains import running
from neko_rules.clipping import Clipping
from neko_rules.kernels.host import unfused
from neko_rules.layers.delayed import DelayedCell
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.regularizers import FiringRate, MembraneBounds
from neko_rules.rules import chained, chained_pass
from neko_rules.rules.steady import Steady
from neko_rules.rules.steady_windows import SteadyWindows

STEPS, EXAMPLES, FEATURES, CLASSES = 20, 22, 7, 3
GROUP = 8
SAME = 1e-12
READOUT = {"cell": "leaky_readout", "size": CLASSES}
DOUBLE: dict[str, Any] = {"inputs": FEATURES, "dtype": "float64"}


def layers(*sizes: int, cell: Any = "lif", recurrent: bool = True, backend: str = "numpy", **options: Any) -> Network:
    model = {"lif": LIF, "alif": ALIF}.get(cell)
    if model is not None:
        return model(list(sizes), CLASSES, recurrent=recurrent, backend=backend, **DOUBLE, **options)
    populations: dict[str, Any] = {f"hidden{i}": {"cell": cell, "size": size} for i, size in enumerate(sizes)}
    names = ["input", *populations, "readout"]
    edges = [{"source": one, "target": other} for one, other in pairwise(names)]
    edges += [{"source": name, "target": name, "delay": 1} for name in populations if recurrent]
    populations["readout"] = READOUT
    return Network(populations, edges, "readout", backend=backend, **DOUBLE, **options)


def skipping() -> Network:
    """A readout that receives from two populations, so that the lower one has errors from two."""
    populations = {"low": 12, "high": 70}
    edges = [("input", "low"), ("low", "high"), ("low", "readout"), ("high", "readout"), ("input", "readout")]
    return Network(
        {
            **{n: {"cell": "lif", "size": s} for n, s in populations.items()},
            "readout": READOUT,
        },
        [{"source": one, "target": other} for one, other in edges],
        "readout",
        **DOUBLE,
    )


def exciting_each_other(inputs: int) -> Network:
    strong = {"name": "scaled_normal", "gain": 1.5}
    ends = [("input", "low", 0), ("low", "low", 1), ("low", "high", 0), ("high", "low", 1), ("high", "readout", 0)]
    return Network(
        {
            "low": {"cell": "alif", "size": 6},
            "high": {"cell": "lif", "size": 5},
            "readout": READOUT,
        },
        [{"source": s, "target": t, "delay": d, "initializer": strong} for s, t, d in ends],
        "readout",
        inputs=inputs,
        dtype="float64",
        seed=5,
    )


def twice_recurrent() -> Network:
    """Two matrices of recurrent weights, through both of which one and the same error comes back."""
    edges = [("input", "hidden", 0, ""), ("hidden", "hidden", 1, "slow"), ("hidden", "hidden", 1, "fast")]
    return Network(
        {"hidden": {"cell": "alif", "size": 24}, "readout": READOUT},
        [{"source": s, "target": t, "delay": d, "label": name} for s, t, d, name in edges]
        + [{"source": "hidden", "target": "readout"}],
        "readout",
        **DOUBLE,
    )


def circuit(*leaks: str) -> Network:
    """Three populations that feed back to each other: within a step, a step later, twice between the same two.

    Args:
        leaks: populations of which every neuron leaks by a number of its own, or by a learned one.
    """
    ends = [("low", "low", 1, ""), ("low", "high", 0, "now"), ("low", "high", 1, "later"), ("low", "rate", 0, "")]
    ends += [("high", "low", 1, ""), ("high", "high", 1, ""), ("rate", "low", 1, ""), ("rate", "high", 0, "")]
    ends += [("input", "low", 0, ""), ("input", "high", 0, ""), ("high", "readout", 0, ""), ("rate", "readout", 0, "")]
    own = {"low": "alif", "high": "lif", "rate": "tanh"}
    cells: dict[str, Any] = {name: {"name": cell} for name, cell in own.items()}
    if "low" in leaks:
        cells["low"] |= {"learnable": ["membrane_decay", "beta"]}
    if "high" in leaks:
        cells["high"] |= {"membrane_decay": [0.7, 0.8, 0.9, 0.95, 0.6, 0.85, 0.9]}
    strong = {"name": "scaled_normal", "gain": 1.5}
    return Network(
        {
            "low": {"cell": cells["low"], "size": 12},
            "high": {"cell": cells["high"], "size": 7},
            "rate": {"cell": cells["rate"], "size": 5},
            "readout": READOUT,
        },
        [{"source": s, "target": t, "delay": d, "label": name, "initializer": strong} for s, t, d, name in ends],
        "readout",
        **DOUBLE,
    )


def late(first: int = 0) -> Network:
    """Layers whose spikes arrive a step after they were sent; a wide one too, and analogue neurons.

    Args:
        first: the delay of the input.
    """
    sizes = {"low": ("lif", 14), "wide": ("alif", 70), "rate": ("tanh", 9)}
    ends = [("input", "low", first), ("low", "low", 1), ("low", "wide", 1), ("wide", "rate", 1), ("rate", "readout", 1)]
    ends += [("low", "readout", 1), ("wide", "readout", 0), ("input", "rate", first)]
    return Network(
        {**{name: {"cell": cell, "size": size} for name, (cell, size) in sizes.items()}, "readout": READOUT},
        [{"source": s, "target": t, "delay": d} for s, t, d in ends],
        "readout",
        **DOUBLE,
    )


def late_between(wide: int = 10) -> Network:
    """Two layers that the readout receives from at once, of which one hears of the other a step later."""
    ends = [("input", "low", 0), ("low", "low", 1), ("low", "high", 1), ("low", "readout", 0), ("high", "readout", 0)]
    return Network(
        {"low": {"cell": "lif", "size": 12}, "high": {"cell": "lif", "size": wide}, "readout": READOUT},
        [{"source": s, "target": t, "delay": d} for s, t, d in ends],
        "readout",
        **DOUBLE,
    )


FEW: dict[str, Any] = {"connectivity": 0.5, "recurrent_connectivity": 0.3, "readout_connectivity": 0.7}
ESTIMATED = ("otpe", "approximate_otpe")
NETWORKS: dict[str, tuple[Callable[[], Network], tuple[str, ...]]] = {
    "one recurrent layer": (lambda: layers(24, cell="alif"), ("bptt", "eprop", "ottt", "pp_prop", *ESTIMATED)),
    "on PyTorch": (lambda: layers(24, cell="alif", backend="torch"), ("bptt", "pp_prop")),
    "layers": (lambda: layers(16, 12, recurrent=False), ("bptt", "eprop", "pp_prop", *ESTIMATED)),
    "wide layers": (lambda: layers(70, 66), ("bptt", "eprop", "pp_prop", *ESTIMATED)),
    "last output": (lambda: layers(16, readout="last"), ("bptt", "eprop", "pp_prop")),
    "mean output": (lambda: layers(16, readout="mean"), ("eprop",)),
    "largest output": (lambda: layers(16, readout="max"), ("eprop",)),
    "analogue neurons": (lambda: layers(16, 12, cell="tanh"), ("bptt", "eprop", "pp_prop", *ESTIMATED)),
    "spikes judged": (lambda: layers(12, output_cell="lif"), ("bptt",)),
    "constants per neuron": (
        lambda: layers(3, cell=LIFCell(threshold=[0.4, 0.3, 0.2], learnable=["membrane_decay"])),
        ("bptt", "pp_prop", "event_prop", *ESTIMATED),
    ),
    "synaptic currents": (
        lambda: layers(16, 12, cell=LIFCell(tau_synapse=5e-3, reset="zero")),
        ("bptt", "eprop", "event_prop"),
    ),
    "a reset that is learned through": (lambda: layers(24, cell=ALIFCell(detach_reset=False)), ("pp_prop", "otpe")),
    "two recurrent matrices": (twice_recurrent, ("bptt", "eprop")),
    "layers that are late": (late, ("bptt", "eprop", "ottt", "pp_prop", "event_prop")),
    "an input that is late": (lambda: late(1), ("bptt", "eprop")),
    "neurons that are late": (
        lambda: layers(16, cell=DelayedCell("alif", list(range(16)))),
        ("bptt", "eprop", "ottt", "pp_prop", "event_prop"),
    ),
    "delays that are learned": (
        lambda: layers(16, 12, cell=DelayedCell("lif", 0.5, longest=6, learnable=["steps"])),
        ("bptt",),
    ),
    "a circuit": (circuit, ("bptt", "eprop", "pp_prop", "event_prop")),
    "a circuit of neurons that differ": (lambda: circuit("low", "high"), ("bptt", "eprop", "pp_prop")),
    "connections that skip": (skipping, ("bptt", "eprop")),
    "few synapses": (lambda: layers(24, 12, **FEW), ("bptt", "eprop", "pp_prop")),
}

ONLINE: dict[str, tuple[Callable[[], Network], tuple[str, ...]]] = {
    "one recurrent layer": (lambda: layers(24), ("eprop", "ottt", "decolle", "etlp", "pp_prop", "fptt")),
    "on PyTorch": (lambda: layers(24, backend="torch"), ("eprop", "ottt", "pp_prop")),
    "layers": (lambda: layers(16, 12), ("ottt", "decolle", "pp_prop", "fptt")),
    "wide layers": (lambda: layers(70, 66), ("ottt",)),
    "wide readout": (lambda: layers(70), ("eprop",)),
    "no recurrence": (lambda: layers(16, recurrent=False), ("eprop",)),
    "last output": (lambda: layers(16, readout="last"), ("eprop",)),
    "a threshold of one half": (lambda: layers(16, cell=LIFCell(threshold=0.5)), ("eprop",)),
    "a connection that is late": (late_between, ("eprop", "ottt", "pp_prop")),
    "recurrent readout": (lambda: recurrent_readout("numpy"), ("ottt",)),
    "adaptive thresholds": (lambda: layers(24, cell="alif"), ("eprop", "ottt", "pp_prop")),
    "adaptive, on PyTorch": (lambda: layers(24, cell="alif", backend="torch"), ("eprop",)),
    "adaptive, no recurrence": (lambda: layers(16, cell="alif", recurrent=False), ("eprop",)),
    "adaptive, last output": (lambda: layers(16, cell="alif", readout="last"), ("eprop",)),
    "some of them adaptive": (lambda: layers(12, cell=ALIFCell(beta=[0.0, 0.1, 0.3] * 4)), ("eprop",)),
    "a reset that is learned through": (lambda: layers(24, cell=LIFCell(detach_reset=False)), ("eprop", "pp_prop")),
    "a reset to zero": (lambda: layers(24, cell=LIFCell(reset="zero")), ("eprop",)),
    "few synapses": (lambda: layers(24, **FEW), ("eprop", "ottt", "pp_prop", "fptt")),
    "few synapses, adaptive thresholds": (lambda: layers(24, cell="alif", **FEW), ("eprop",)),
    "adaptive layers": (lambda: layers(16, 12, cell="alif", recurrent=False), ("ostl", "etlp")),
}


PENALTIES: dict[str, list[Any]] = {
    "a rate": [{"name": "firing_rate", "target": 20.0, "strength": 10.0}],
    "bounds": ["firing_rate_lower_bound", {"name": "firing_rate_upper_bound", "bound": 1.0, "populations": ["hidden"]}],
    "every spike": [{"name": "spike_l1", "strength": 0.5}],
    "membranes": [
        {"name": "membrane_bounds", "lower": -0.2, "upper": 0.3, "strength": 0.2},
        {"name": "membrane_bounds", "lower": None, "upper": 0.1, "strength": 0.2, "populations": ["hidden", "readout"]},
    ],
    "a rate and membranes": ["firing_rate", {"name": "membrane_bounds", "upper": 0.3, "lower": None, "strength": 0.2}],
}


class Bursts(FiringRate):
    """A penalty of a user's, who makes more of spikes than their mean."""

    def gradient(self, nx: Any, activity: Any, dt: float) -> Any:
        return {key: 2 * each for key, each in super().gradient(nx, activity, dt).items()}

    def online(self, nx: Any, activity: Any, running: Any, dt: float) -> Any:
        return {key: 2 * each for key, each in super().online(nx, activity, running, dt).items()}


class Halved(Clipping):
    """A clipping of a user's, who asks for whole gradients."""

    def apply(self, nx: Any, gradients: Any) -> Any:
        return {name: 0.5 * gradient for name, gradient in gradients.items()}


class Leaning(MembraneBounds):
    """Another, who makes of one bound twice what it is."""

    def slope(self, nx: Any, v: Any) -> Any:
        return super().slope(nx, v) + nx.maximum(v, 0.0)


PENALISED: dict[str, Callable[[], Any]] = {
    "a readout above": lambda: layers(24, cell="alif"),
    "many above": lambda: Network(
        {"hidden": {"cell": "lif", "size": 12}, "wide": {"cell": "lif", "size": 70}, "readout": READOUT},
        [{"source": s, "target": t} for s, t in pairwise(["input", "hidden", "wide", "readout"])],
        "readout",
        **DOUBLE,
    ),
    "an output that spikes": lambda: layers(12, output_cell="lif"),
}


def data(kind: str = "spikes") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (rng.random((EXAMPLES, STEPS, FEATURES)) < 0.2) * 1.0
    x = {"spikes": x, "graded": x * rng.random(x.shape), "dense": rng.standard_normal(x.shape)}[kind]
    return x, rng.integers(CLASSES, size=EXAMPLES)


def same_weights(make: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Weights after two steps by chains: these, and the figures, are those of the engine."""
    rule, plain = make(), make()
    for _ in range(2):
        figures = rule.step(x, y)
        with unfused():
            wanted = plain.step(x, y)
        assert figures == pytest.approx(wanted, rel=SAME)
    assert rule.steps == plain.steps
    found: dict[str, np.ndarray] = rule.model.network.parameters
    assert distance(found, plain.model.network.parameters) < SAME
    return found


def answers(monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> list[bool]:
    """Of every call of a method from now on, whether it answers anything."""
    seen: list[bool] = []
    asked = getattr(kind, method)

    def counting(self: Any, *given: Any) -> Any:
        found = asked(self, *given)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(kind, method, counting)
    return seen


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No windows whose chain is at hand: every sequence is a pass of its own."""
    monkeypatch.setattr(SteadyWindows, "stepped", lambda *_: None)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Groups of 8 examples, of batches however small, and the sources whose events every chain took to be few.

    Of a chain of windows they are there for every window. Four examples of a group go through the time steps of a loop
    before the next.
    """
    seen: list[Any] = []
    run, run_windows = running.run, chained_pass._Pass._run

    def looked_at(links: Any, plan: Any) -> None:
        # What penalties make of a window is asked for once all examples went through it.
        most = EXAMPLES if links.handed.fired else GROUP
        assert [size for size, _ in plan.groups] == [min(most, last - first) for first, last in plan.ranges]
        few = {each: size for each, size in links.sizes.items() if each.startswith("most_")}
        assert few == dict.fromkeys(few, GROUP // 2)

    def counting(links: Any, plan: Any, *others: Any) -> Any:
        looked_at(links, plan)
        seen.append(links.kind.walked)
        return run(links, plan, *others)

    def counting_windows(self: Any, links: Any, plan: Any, every: Any, windows: Any, *others: Any) -> Any:
        looked_at(links, plan)
        told = run_windows(self, links, plan, every, windows, *others)
        end = windows[1] if told is None else self._reached[0] + 1
        seen.extend([links.kind.walked] * (end - windows[0]))
        return told

    ran = Steady._ran

    def counting_steady(self: Any, rule: Any, ready: Any, given: Any) -> Any:
        looked_at(ready.links, ready.plan)
        seen.append(ready.links.kind.walked)
        return ran(self, rule, ready, given)

    monkeypatch.setattr(Steady, "_ran", counting_steady)
    monkeypatch.setattr(running, "run", counting)
    monkeypatch.setattr(chained_pass._Pass, "_run", counting_windows)
    monkeypatch.setattr(running, "group_size", lambda *_: GROUP)
    for cache in ("_FIRST_CACHE", "_SECOND_CACHE"):
        monkeypatch.setattr(f"neko_rules.kernels.writer.{cache}", 1)
    monkeypatch.setattr(running, "WORTHWHILE", 0)
    # Whether large products of ours are fast enough to be part of a chain is measured, on a machine that may be busy.
    monkeypatch.setattr(chained, "times_as_long", lambda nx: 1.0)
    return seen
