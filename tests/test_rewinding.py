"""Online gradients that go back through the sequence so far are those of the influence that is carried forward."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, alive, data, distance, network_of, stack

from neko_rules import (
    DFA,
    FPTT,
    LIF,
    OSTL,
    OSTTP,
    OTPE,
    RTRL,
    EProp,
    Evaluator,
    FiringRate,
    LearningRule,
    MembraneBounds,
    SnAp,
)
from neko_rules.credit import rewinding, versions
from neko_rules.credit.rewinding import Rewinding
from neko_rules.errors import IncompatibleError
from neko_rules.kernels.host import BUFFERS, by_library, unfused
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.rules import online
from neko_rules.rules.online import Online

SAME = 1e-12

RULES: dict[str, Any] = {
    "RTRL": RTRL,
    "SnAp-1": SnAp,
    "SnAp-2": lambda model, **options: SnAp(model, reach=2, **options),
    "OSTL": OSTL,
    "OSTTP": OSTTP,
    "OTPE": OTPE,
    "DFA": DFA,
    "e-prop": EProp,
    "random e-prop": lambda model, **options: EProp(model, mode="random", **options),
    "adaptive e-prop": lambda model, **options: EProp(model, mode="adaptive", **options),
    "layer, filtered": lambda model, **options: LearningRule(
        model, temporal="layer", learning_signal="filtered", **options
    ),
    "layer, mirror": lambda model, **options: LearningRule(model, temporal="layer", spatial="mirror", **options),
}

MORE = {"feed-forward": lambda backend: deep(backend, False), "two layers": lambda backend: deep(backend, True)}


def deep(backend: str, recurrent: bool) -> Any:
    """Layers with a threshold that adapts, below one that only leaks."""
    cells = ALIFCell(beta=0.3, threshold=0.5), LIFCell(threshold=0.3)
    network = stack(*cells)(backend)
    if recurrent:
        return network
    from neko_rules import Layer, Stack

    strong = {"name": "scaled_normal", "gain": 1.5}
    layers = [Layer(cell, 6 + place, recurrent=False, initializer=strong) for place, cell in enumerate(cells)]
    return Stack(layers, 3, inputs=4, backend=backend, dtype="float64", seed=3)


def model_of(name: str, backend: str = "numpy") -> Evaluator:
    network = MORE[name](backend) if name in MORE else network_of(name, backend)
    return Evaluator(network, metrics=["firing_rate"] if network.spiking else [])


def taught(
    name: str,
    rule: str,
    back: bool,
    monkeypatch: pytest.MonkeyPatch,
    backend: str = "numpy",
    size: int = 3,
    **options: Any,
) -> tuple[dict[str, np.ndarray], list[Any], int]:
    """Weights after two batches at a large rate, loss and metrics of each, and how often it went back."""
    x, y = data()
    model = model_of(name, backend)
    went: list[int] = []
    own = Rewinding.gradients

    def noted(*given: Any) -> Any:
        went.append(1)
        return own(*given)

    with monkeypatch.context() as patched:
        patched.setattr(Rewinding, "gradients", noted)
        for bound in ("MUCH", "ENOUGH"):
            patched.setattr(online, bound, 0)
        if not back:
            patched.setattr(online, "rewinds", lambda *_: False)
        # What comes back among units of an output grows from step to step.
        rate = 0.02 if name == "recurrent readout" else 0.5
        made = RULES[rule](model, online=size, optimizer={"name": "sgd", "learning_rate": rate}, **options)
        # In networks as small as these little is carried.
        patched.setattr(LearningRule, "carried", 10**9)
        figures = [made.step(x, y) for _ in range(2)]
    return model.network.parameters, figures, len(went)


def goes_back(name: str, rule: str, **given: Any) -> None:
    """Compare with what is carried forward, and see that the weights were others at different times."""
    found, figures, went = taught(name, rule, True, **given)
    assert went, "the influence was carried"
    reference, expected, none = taught(name, rule, False, **given)
    assert not none
    assert distance(found, reference) < SAME
    for one, other in zip(figures, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


RECURRENT = ["RTRL", "SnAp-1", "SnAp-2", "OSTL", "OSTTP", "OTPE", "DFA", "layer, filtered", "layer, mirror"]
CASES = [(name, rule) for name in ("lif", "alif", "two layers") for rule in RECURRENT]
CASES += [("two layers", rule) for rule in ("e-prop", "random e-prop", "adaptive e-prop")]
CASES += [("feed-forward", rule) for rule in ("RTRL", "e-prop", "random e-prop", "adaptive e-prop")]
CASES += [(name, rule) for name in ("feedback", "last output", "recurrent readout") for rule in ("RTRL", "OSTL")]
CASES += [("per neuron", "RTRL"), ("refractory", "OSTL"), ("reset not detached", "RTRL"), ("tanh", "RTRL")]
CASES += [("autapses", "RTRL"), ("deep", "RTRL"), ("deep", "OSTL"), ("deep", "DFA")]
# What is carried to the output alone is less than a way back at every step.
EVERY_STEP = [(*each, 1) for each in CASES if not each[1].endswith("e-prop")]


@pytest.mark.parametrize(("name", "rule", "size"), [*((*each, 3) for each in CASES), *EVERY_STEP])
def test_the_gradient_is_that_of_the_influence(
    name: str, rule: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step and every three, of which the last piece is shorter; the weights change by half of a gradient."""
    alive(model_of(name), data()[0])
    goes_back(name, rule, size=size, monkeypatch=monkeypatch)


LIBRARIES = [("two layers", "RTRL"), ("two layers", "OSTL"), ("feed-forward", "e-prop"), ("lif", "SnAp-1")]
LIBRARIES += [("lif", "OTPE"), ("feedback", "RTRL"), ("lif", "DFA")]


@pytest.mark.parametrize(("name", "rule"), LIBRARIES)
@pytest.mark.parametrize("backend", ["numpy", "torch", "tensorflow", "jax"])
def test_every_library_goes_back_by_its_own_operations(
    backend: str, name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(backend)
    compiled, _, _ = taught(name, rule, True, monkeypatch)
    with by_library(), unfused() if backend in ("numpy", "torch") else nullcontext():
        found, _, went = taught(name, rule, True, monkeypatch, backend)
    assert went, "the influence was carried"
    assert distance(found, compiled) < 1e-10


@pytest.mark.parametrize("backend", ["torch", "tensorflow", "jax"])
def test_numpy_goes_back_for_other_libraries(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend)
    pytest.importorskip("numba")
    libraries: list[str] = []
    own = Rewinding.gradients

    def noted(self: Rewinding, *given: Any) -> Any:
        libraries.append(self.model.nx.name)
        return own(self, *given)

    monkeypatch.setattr(Rewinding, "gradients", noted)
    for bound in ("MUCH", "ENOUGH"):
        monkeypatch.setattr(online, bound, 0)
    x, y = data()
    ours, theirs = (OSTL(model_of("lif", name), online=True) for name in ("numpy", backend))
    figures = ours.step(x, y), theirs.step(x, y)
    assert set(libraries) == {"numpy"}
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)
    assert distance(theirs.model.network.parameters, ours.model.network.parameters) < SAME


@pytest.mark.parametrize("rule", ["RTRL", "OSTL", "e-prop"])
@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_penalties_are_those_at_rates_so_far(backend: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend)
    penalties = [FiringRate(target=50.0, strength=0.1), MembraneBounds(strength=0.1)]
    with by_library():
        goes_back("two layers", rule, monkeypatch=monkeypatch, backend=backend, regularizers=penalties)
        with_them, without = (
            taught("two layers", rule, True, monkeypatch, backend, regularizers=given)[0] for given in (penalties, [])
        )
    assert distance(with_them, without) > 1e-3


FAULTS = {
    "the matrices of now for all times": (versions.Versions, "which", lambda self, steps: np.full(steps + 1, 4)),
    "those of a step too late": (
        versions.Versions,
        "which",
        lambda self, steps: np.minimum(np.arange(1, steps + 2) // self.size, (steps - 1) // self.size),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rule", ["RTRL", "OSTL"])
def test_matrices_of_another_time_are_seen(rule: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    right, _, _ = taught("two layers", rule, True, monkeypatch)
    owner, method, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, method, wrong)
    found, _, _ = taught("two layers", rule, True, monkeypatch)
    assert distance(found, right) > 1e-6


@pytest.mark.parametrize("fault", ["everything through the weights of its time", "everything through those of now"])
def test_filtered_traces_meet_the_weights_of_now_and_paths_those_of_their_time(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, _, _ = taught("feed-forward", "e-prop", True, monkeypatch)
    own = Rewinding._versions

    def wrong(self: Rewinding, *given: Any) -> Any:
        made = own(self, *given)
        return made._replace(now=frozenset()) if "its time" in fault else made._replace(down=False)

    monkeypatch.setattr(Rewinding, "_versions", wrong)
    found, _, _ = taught("feed-forward", "e-prop", True, monkeypatch)
    assert distance(found, right) > 1e-6


# When it is done.


def test_it_takes_a_few_times_the_memory_of_the_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 neurons with 4 inputs and 3 outputs: five numbers of each at every step, and a share of two matrices."""
    monkeypatch.setattr(online, "ENOUGH", 0)
    rule = OSTL(model_of("lif"), online=2)
    schedule = Online(rule, 2)
    hidden, output = 6 * (4 + 6 + 1) * 6 * 2, 2 * 6 + 2 * 3
    assert hidden <= rule.carried <= hidden + 10 * output
    per_step, share = 5 * (6 + 3), 2 * (6 * 6 + 6 * 3) / (2 * 3)
    longest = int(rewinding.ROOM * rule.carried / (per_step + share))
    assert longest > 40
    assert schedule.rewinds(longest - 1, 3)
    assert not schedule.rewinds(longest + 2, 3)


def test_the_peak_of_memory_is_a_few_times_that_of_the_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the longest sequence that is gone back through, by what Python and NumPy allocate."""
    peaks = {}
    rng = np.random.default_rng(0)
    for back in (True, False):
        rule = OSTL(Evaluator(LIF(48, 2, inputs=4, dtype="float64")), online=4)
        schedule = Online(rule, 4)
        longest = max(steps for steps in range(8, 2000) if schedule.rewinds(steps, 2))
        assert longest > 200
        x, y = (rng.random((2, longest, 4)) < 0.3).astype("float64"), np.array([0, 1])
        if not back:
            # It is known by now, and kept.
            monkeypatch.setitem(vars(rule), "carried", 0)
        assert schedule.rewinds(longest, 2) is back
        rule.step(x, y)
        BUFFERS.clear()
        tracemalloc.start()
        rule.step(x, y)
        peaks[back] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[False] < peaks[True] < 1.2 * rewinding.ROOM * peaks[False], peaks


@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_small_influences_are_carried(library: str) -> None:
    pytest.importorskip(library)
    rule = OSTL(model_of("lif", library), online=True)
    bound = rewinding.MUCH if library == "jax" else rewinding.ENOUGH
    with by_library():
        few = bound // rule.carried
        assert not Online(rule, 1).rewinds(8, few)
        assert Online(rule, 1).rewinds(8, few + 1)


MANY = 1000
"""Examples of which much is carried."""


def test_what_is_no_product_of_recorded_matrices_is_carried_forward() -> None:
    """Learned constants, neurons that reach others later, autapses of SnAp-1, feed-forward layers, a user's signals."""

    class Own(OSTL):
        def signals(self, *given: Any, **more: Any) -> Any:
            return super().signals(*given, **more)

    assert Online(OSTL(model_of("lif"), online=True), 1).rewinds(8, MANY)
    assert not Online(Own(model_of("lif"), online=True), 1).rewinds(8, MANY)
    assert not Online(OSTL(model_of("feed-forward"), online=True), 1).rewinds(8, MANY)
    assert not Online(SnAp(model_of("feedback"), online=True), 1).rewinds(8, MANY)
    assert not Online(SnAp(model_of("autapses"), online=True), 1).rewinds(8, MANY)
    learned = LIF(6, 3, inputs=4, dtype="float64", learnable=["membrane_decay"])
    assert not Online(RTRL(Evaluator(learned), online=True), 1).rewinds(8, MANY)


@pytest.mark.parametrize("gradient", ["rtrl", "snap", "ostl"])
def test_fptt_takes_the_gradient_of_rules_that_go_forward(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    found = []
    for back in (True, False):
        rule = FPTT(model_of("lif"), gradient=gradient, online=2)
        monkeypatch.setattr(LearningRule, "carried", 10**9 if back else 0)
        assert Online(rule, 2).rewinds(14, 3) == back
        rule.step(x, y)
        found.append(rule.model.network.parameters)
    assert distance(*found) < SAME


def test_sparse_traces_without_a_name_are_carried_online() -> None:
    assert LearningRule(model_of("lif"), temporal="full", trace="sparse_1", online=True).evaluation == "traces"
    with pytest.raises(IncompatibleError, match="use RTRL"):
        LearningRule(model_of("lif"), temporal="full", online=True)
    with pytest.raises(IncompatibleError, match="use RTRL"):
        FPTT(model_of("lif"), gradient="bptt")


@pytest.mark.parametrize("name", NETWORKS)
def test_rtrl_of_a_whole_sequence_goes_back_unless_it_is_told_otherwise(name: str) -> None:
    x, y = data()
    model = Evaluator(NETWORKS[name]("numpy"))
    for learned in (RTRL(model), RTRL(model, online=2)) if model.network.readout in ("sequence", "last") else ():
        assert learned.evaluation == "adjoint"
    forward = RTRL(model, evaluation="traces")
    assert distance(forward.gradients(x, y), RTRL(model).gradients(x, y)) < SAME
