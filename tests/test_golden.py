"""Golden gradients: the engine against an independent program, on every backend; and faults that must not pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import NAMES, RULES, Golden

from neko_rules import BPTT, OSTL, OTTT, EProp, Evaluator, LearningRule
from neko_rules.credit import adjoint, fused, recursion
from neko_rules.kernels.events import Events
from neko_rules.kernels.host import unfused
from neko_rules.layers import forward
from neko_rules.layers.graph import Connection
from neko_rules.layers.jacobians import Jacobians

TOLERANCE = 1e-10

MAKERS: dict[str, Callable[[Evaluator], LearningRule]] = {
    "bptt": BPTT,
    "eprop_symmetric": EProp,
    "eprop_random": lambda model: EProp(model, mode="random"),
    "ostl": OSTL,
    "ottt": OTTT,
}


def built(golden: Golden, rule_name: str, backend: str) -> LearningRule:
    rule = MAKERS[rule_name](golden.model(backend))
    if rule_name == "eprop_random":
        rule.load_state({**rule.state(), "feedback/readout.input.weight": golden.arrays["feedback"]})
    return rule


def error(golden: Golden, rule_name: str, backend: str) -> float:
    """The largest absolute difference from the stored gradient."""
    found = built(golden, rule_name, backend).gradients(golden.x, golden.y)
    stored = golden.stored(f"grad/{rule_name}/")
    assert stored
    assert all(np.abs(value).max() > 1e-8 for value in stored.values())
    return max(float(np.abs(found[name] - value).max()) for name, value in stored.items())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_every_rule_equal_the_golden_ones(name: str, backend: str, shared: Path) -> None:
    golden = Golden(name)
    errors = {rule: error(golden, rule, backend) for rule in golden.rules()}
    assert len(errors) >= 2
    assert max(errors.values()) < TOLERANCE, errors


def test_every_rule_is_in_some_golden_file(shared: Path) -> None:
    assert {rule for name in NAMES for rule in Golden(name).rules()} == set(RULES)


@pytest.mark.parametrize("name", NAMES)
def test_traces_equal_the_golden_gradients_too(name: str, shared: Path) -> None:
    golden = Golden(name)
    for rule_name in golden.rules():
        rule = built(golden, rule_name, "numpy")
        rule.evaluation = "traces"
        found, stored = rule.gradients(golden.x, golden.y), golden.stored(f"grad/{rule_name}/")
        assert max(float(np.abs(found[key] - value).max()) for key, value in stored.items()) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_loss_outputs_and_spikes_equal_the_golden_ones(name: str, backend: str, shared: Path) -> None:
    golden = Golden(name)
    model = golden.model(backend)
    assert abs(model.evaluate(golden.x, golden.y)["loss"] - float(golden.arrays["loss"])) < 1e-12
    np.testing.assert_allclose(model.predict(golden.x).transpose(1, 0, 2), golden.arrays["output"], atol=1e-12)
    recorded = model.trajectory(golden.x)
    for place, hidden in enumerate(model.network.spiking):
        assert np.array_equal(recorded.z(hidden), golden.arrays[f"spikes/hidden{place}"])


# Planted faults: each is one that a public code has, or that a slip would make. Every one must be seen.


def without_readout_memory(patch: pytest.MonkeyPatch) -> None:
    """The readout's leak left out of the learning signal."""
    patch.setattr(recursion, "keeps_paths", lambda credit, graph, name: credit.temporal == "full")


def without_adaptation_path(patch: pytest.MonkeyPatch) -> None:
    """∂a_t/∂z_{t-1} dropped: spikes leave no eligibility in the threshold."""
    original = Jacobians.evaluate
    dropped = ("r", "a")
    patch.setattr(Jacobians, "evaluate", lambda *a, **k: {e: v for e, v in original(*a, **k).items() if e != dropped})


def surrogate_one_step_early(patch: pytest.MonkeyPatch) -> None:
    """ψ taken from the step before."""
    history = forward.Record.history
    patch.setattr(forward.Record, "history", lambda self, nx, name: forward.shift_later(nx, history(self, nx, name)))
    run = fused.Loop.run

    def later(nx: Any, record: Any) -> Any:
        shifted = copy.copy(record)
        states = {key: forward.shift_later(nx, value) for key, value in record.states.items()}
        slope = None if record.slope is None else forward.shift_later(nx, record.slope)
        for name, value in {"states": states, "slope": slope}.items():
            object.__setattr__(shifted, name, value)
        return shifted

    def early(self: Any, host: Any, setting: Any, records: Any, signals: Any) -> Any:
        return run(self, host, setting, {name: later(setting.nx, one) for name, one in records.items()}, signals)

    patch.setattr(fused.Loop, "run", early)


def recurrent_input_without_delay(patch: pytest.MonkeyPatch) -> None:
    """The recurrent weight gradient with z_t in the place of z_{t-1}."""
    patch.setattr(
        adjoint, "meeting", lambda problem, connection, delta: (problem.trajectory.z(connection.source), delta)
    )
    of_steps = Events.__getitem__
    patch.setattr(Events, "__getitem__", lambda self, steps: of_steps(self, slice(1, None)))


def diagonal_not_masked(patch: pytest.MonkeyPatch) -> None:
    """Autapses get a gradient although there are none."""
    patch.setattr(adjoint, "by_parameter", lambda nx, connection, gradient: gradient)
    patch.setattr(Connection, "clear", lambda self, matrix: None)


def decay_left_out_of_the_presynaptic_trace(patch: pytest.MonkeyPatch) -> None:
    """a_t = x_t instead of λ a_{t-1} + x_t."""
    cut = Jacobians.cut
    patch.setattr(Jacobians, "cut", lambda self, temporal: cut(self, "none" if temporal == "presynaptic" else temporal))


def surrogate_without_threshold_scale(patch: pytest.MonkeyPatch) -> None:
    """dz/dv = ψ instead of ψ/θ."""
    original = Jacobians.evaluate

    def scaled(self: Any, nx: Any, cell: Any, constants: Any, recorded: Any) -> Any:
        found = original(self, nx, cell, constants, recorded)
        return {e: v * constants["theta"] if e[0] == "h" and "theta" in constants else v for e, v in found.items()}

    patch.setattr(Jacobians, "evaluate", scaled)


FAULTS = [
    (without_readout_memory, "alif_recurrent", "eprop_symmetric"),
    (without_adaptation_path, "alif_recurrent", "eprop_symmetric"),
    (without_adaptation_path, "alif_regression", "bptt"),
    (surrogate_one_step_early, "lif_recurrent", "bptt"),
    (surrogate_one_step_early, "alif_recurrent", "ostl"),
    (recurrent_input_without_delay, "lif_recurrent", "eprop_random"),
    (diagonal_not_masked, "alif_recurrent_deep", "bptt"),
    (surrogate_without_threshold_scale, "lif_feedforward_deep", "ostl"),
    (surrogate_one_step_early, "lif_feedforward_deep", "ottt"),
    (decay_left_out_of_the_presynaptic_trace, "lif_feedforward_deep", "ottt"),
]


@pytest.mark.parametrize("engine", [nullcontext, unfused])
@pytest.mark.parametrize(("fault", "name", "rule"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_fault_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None],
    name: str,
    rule: str,
    engine: Callable[[], AbstractContextManager[None]],
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden = Golden(name)
    with engine():
        assert error(golden, rule, "numpy") < TOLERANCE
        fault(monkeypatch)
        assert error(golden, rule, "numpy") > 1e-4
