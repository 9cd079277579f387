"""Suites: which contenders are measured together on which workload, and what other programs' authors have measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neko_rules.backend import BUILT_IN
from neko_rules.experiments.benchmark import Case
from neko_rules.experiments.workloads import WORKLOADS, Workload

BACKENDS = tuple(BUILT_IN)
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "BPTT": ("bptt", {}),
    "e-prop": ("eprop", {}),
    "e-prop, online": ("eprop", {"online": True}),
    "e-prop, online every 20": ("eprop", {"online": 20}),
    "e-prop, online every 100": ("eprop", {"online": 100}),
    "pp-prop": ("pp_prop", {}),
    "OTTT": ("ottt", {}),
    "OTTT, online": ("ottt", {"online": True}),
    "OTTT, online every 20": ("ottt", {"online": 20}),
    "OTTT, online every 100": ("ottt", {"online": 100}),
    "RTRL, online": ("rtrl", {"online": True}),
}
BY_XLA = ("tensorflow", "jax")
"""Backends that compile whole steps."""

TORCH, JAX = "speed.torch_contenders", "speed.jax_contenders"

LIBRARIES = {"norse": "torch", "snnTorch": "torch", "SpikingJelly": "torch", "Spyx": "jax", "braintrace": "jax"}
"""Of each peer, the backend whose array library it is built on; plain loops say theirs in their label."""

QUOTED = {"D 128": 5.3e-3, "D 512": 91e-3}
"""Seconds per example of mlGeNN's compiled CPU code on another day, N 128 and T 100, N 512 and T 200.

It no longer installs, so these are figures of an earlier measurement, on a machine of the same kind, and not measured
beside the others."""


def neko_cases(workload: Workload, rules: Sequence[str]) -> list[Case]:
    """This package on every backend, and by XLA alone where loops of NumPy's take the steps of a backend."""
    cases = []
    for rule in rules:
        name, more = RULES[rule]
        for backend in BACKENDS:
            options = {"backend": backend, "rule": name, **more}
            cases.append(Case(f"neko {backend}, {rule}", workload, options=options))
            if backend in BY_XLA and "online" not in rule:
                cases.append(Case(f"neko {backend} by XLA, {rule}", workload, options={**options, "alone": True}))
    return cases


def peer(label: str, workload: Workload, function: str, note: str = "", **options: Any) -> Case:
    """A contender that ratios may be taken to."""
    return Case(label, workload, function, options, peer=True, note=note)


def recurrent_peers(workload: Workload, lif: Workload, chunk: int) -> list[Case]:
    """Peers on a recurrent layer; those without adaptation run LIF neurons, which is less work."""
    only_lif = "" if workload is lif else "LIF: has no recurrent ALIF"
    jelly = "reset before the leak"
    return [
        peer("plain PyTorch, BPTT", workload, f"{TORCH}:plain"),
        peer("plain PyTorch compiled, BPTT", workload, f"{TORCH}:plain", f"{chunk} steps at a time", chunk=chunk),
        peer("plain PyTorch, e-prop", workload, f"{TORCH}:plain", "recurrent spikes detached", detached=True),
        peer("norse, BPTT", workload, f"{TORCH}:norse", "synaptic current, reset to zero"),
        peer("snnTorch, BPTT", lif, f"{TORCH}:snntorch", only_lif),
        peer("SpikingJelly, BPTT", lif, f"{TORCH}:spikingjelly", f"{only_lif}; {jelly}" if only_lif else jelly),
        peer("plain JAX, BPTT", workload, f"{JAX}:plain", products=True),
        peer("plain JAX, e-prop", workload, f"{JAX}:plain", "recurrent spikes detached", products=True, detached=True),
        peer("Spyx, BPTT", lif, f"{JAX}:spyx", only_lif),
        peer("braintrace, pp-prop", workload, f"{JAX}:braintrace", "rank-one traces", algorithm="pp_prop"),
    ]


def tracing_peers(workload: Workload) -> list[Case]:
    """braintrace's rules that keep a trace per synapse."""
    return [
        peer(f"braintrace, {label}", workload, f"{JAX}:braintrace", algorithm=name)
        for label, name in (("e-prop", "eprop"), ("D-RTRL", "d_rtrl"))
    ]


def feedforward_peers(workload: Workload) -> list[Case]:
    """Peers on feed-forward layers, and the dense products alone."""
    return [
        peer("plain PyTorch, BPTT", workload, f"{TORCH}:plain"),
        peer("plain PyTorch compiled, BPTT", workload, f"{TORCH}:plain", "10 steps at a time", chunk=10),
        peer("norse, BPTT", workload, f"{TORCH}:norse", "reset to zero"),
        peer("snnTorch, BPTT", workload, f"{TORCH}:snntorch"),
        peer("SpikingJelly, BPTT", workload, f"{TORCH}:spikingjelly", "reset before the leak"),
        peer("plain JAX, BPTT", workload, f"{JAX}:plain", "one scan", one_scan=True),
        peer("plain JAX layer by layer, BPTT", workload, f"{JAX}:plain"),
        peer("Spyx, BPTT", workload, f"{JAX}:spyx"),
        Case(DENSE, workload, f"{TORCH}:dense_products", note="no step of training: a bound for dense code"),
    ]


DENSE = "dense products alone"


def suite(name: str) -> list[Case]:
    """The contenders of a workload, by its name."""
    workload = WORKLOADS[name]
    if name.startswith("C"):
        return [*neko_cases(workload, ("BPTT", "e-prop")), *feedforward_peers(workload)]
    if name.startswith("D"):
        few = [
            case
            for case in recurrent_peers(workload, workload, 10)
            if case.label in ("plain PyTorch, e-prop", "plain JAX, e-prop", "braintrace, pp-prop")
        ]
        found = [*neko_cases(workload, ("e-prop", "e-prop, online")), *few, *tracing_peers(workload)]
        # Of 512 neurons the influence is 0.7 GB for an example.
        by_hand = peer("plain JAX, RTRL, online", workload, f"{JAX}:rtrl", "the influence of every weight")
        return [*found, *neko_cases(workload, ("RTRL, online",)), by_hand] if name == "D 128" else found
    if name == "E":
        return [*neko_cases(workload, ("BPTT", "e-prop", "e-prop, online")), *recurrent_peers(workload, workload, 20)]
    letter = name[0]
    lif = WORKLOADS[f"{letter} LIF"]
    adaptive = ("BPTT", "e-prop", "pp-prop", *(("e-prop, online", "e-prop, online every 20") if name == "B" else ()))
    rules = tuple(rule for rule in RULES if rule != "RTRL, online") if name == "B LIF" else adaptive
    chunk = {"A": 28, "B": 10}[letter]
    return [*neko_cases(workload, rules), *recurrent_peers(workload, lif, chunk), *tracing_peers(workload)]


SUITES = tuple(WORKLOADS)
