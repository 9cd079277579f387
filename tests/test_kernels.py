"""Kernels: what is fused gives the numbers of the engine that is not, for every neuron, loss and optimizer."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cell_cases import VARIANTS
from credit_cases import OUTPUTS, data, feedback_network, recurrent_readout

from neko_rules import ALIF, BPTT, LIF, OSTL, EProp, Evaluator, EventProp, LearningRule, Network
from neko_rules.backend import get_backend
from neko_rules.credit import fused as fused_adjoint
from neko_rules.credit import traces
from neko_rules.credit.leaking import without_leak
from neko_rules.credit.traced import Product, Stage, TracedStep
from neko_rules.errors import NonFiniteError
from neko_rules.kernels import compiling, host
from neko_rules.kernels.elementwise import all_finite
from neko_rules.kernels.host import unfused
from neko_rules.kernels.rowwise import pass_of
from neko_rules.kernels.tracing import Body, NotTraceableError, TracingBackend
from neko_rules.kernels.writer import group_of
from neko_rules.layers import fused as fused_forward
from neko_rules.layers.cell import Cell
from neko_rules.layers.integrate_and_fire import LIFCell
from neko_rules.losses import LOSSES, weighed
from neko_rules.optimizers import OPTIMIZERS, SGD, Optimizer, loop_of
from neko_rules.regularizers import MembraneBounds
from neko_rules.rules import rule_of
from neko_rules.rules.online import Online
from neko_rules.threads import set_threads, threads

NX = get_backend("numpy")
SAME = 1e-12
RULES: dict[str, Callable[[Evaluator], Any]] = {"bptt": BPTT, "event_prop": EventProp, "eprop": EProp, "ostl": OSTL}


def network_of(cell: Any, size: int = 3, backend: str = "numpy", dtype: str = "float64") -> Network:
    strong = {"name": "scaled_normal", "gain": 1.5}
    return Network(
        {"hidden": {"cell": cell, "size": size}, "readout": {"cell": "leaky_readout", "size": OUTPUTS}},
        [
            {"source": "input", "target": "hidden", "initializer": strong},
            {"source": "hidden", "target": "hidden", "delay": 1, "initializer": strong},
            {"source": "hidden", "target": "readout"},
        ],
        "readout",
        inputs=4,
        backend=backend,
        dtype=dtype,
        seed=2,
    )


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Largest difference, relative to the largest entry of each parameter."""
    assert one.keys() == other.keys()
    assert any(np.abs(value).max() > 1e-6 for value in other.values()), "a dead gradient proves nothing"
    return max(float(np.abs(one[k] - v).max() / (np.abs(v).max() or 1.0)) for k, v in other.items())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a compiled loop ran forward and backward."""
    calls = {"forward": 0, "backward": 0}
    run, step = fused_adjoint.Loop.run, fused_forward.step_through

    def backward(*arguments: Any) -> Any:
        calls["backward"] += 1
        return run(*arguments)

    def forward(*arguments: Any, **named: Any) -> Any:
        found = step(*arguments, **named)
        calls["forward"] += found is not None
        return found

    monkeypatch.setattr(fused_adjoint.Loop, "run", backward)
    monkeypatch.setattr("neko_rules.layers.forward.step_through", forward)
    return calls


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("label", VARIANTS)
def test_every_neuron_is_fused_and_gives_the_same_gradients(label: str, rule: str, counted: dict[str, int]) -> None:
    model = Evaluator(network_of(VARIANTS[label]))
    x, y = data()
    fused = RULES[rule](model).gradients(x, y)
    assert counted == {"forward": 2, "backward": 2}
    with unfused():
        plain = RULES[rule](model).gradients(x, y)
    assert counted == {"forward": 2, "backward": 2}
    assert distance(fused, plain) < SAME


LEAKS = {
    "alif": "p0_alpha",
    "alif, attached": "p0_alpha",
    "lif, no reset": "p0_alpha",
    "tanh, leaky": "p0_alpha",
    "if": "1",
    "alif, decays": "",
    "relu, leaky per neuron": "",
    "lif, reset to zero": "",
}
"""By what errors decay that go through recurrent weights: by nothing where neurons, or spikes, differ in that."""


@pytest.mark.parametrize(("label", "leak"), LEAKS.items())
def test_what_decays_of_an_error_does_not_go_through_weights(
    label: str, leak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[Stage, Stage, dict[str, str]]] = []

    def seen(whole: TracedStep) -> tuple[TracedStep, dict[str, str]]:
        step, leaks = without_leak(whole)
        steps.append((*whole.stages, *step.stages, leaks))
        return step, leaks

    monkeypatch.setattr(fused_adjoint, "without_leak", seen)
    BPTT(Evaluator(network_of(VARIANTS[label]))).gradients(*data())
    ((whole, step, leaks),) = [each for each in steps if each[0].gathered]
    (through,) = (each.of for each in step.gathered)
    assert leaks == {through: leak}
    before, after = ({each.name: each.result for each in one.carried}[through] for one in (whole, step))
    assert before == whole.errors[0]
    assert (after != before) == bool(leak)


@pytest.mark.parametrize("rule", ["bptt", "eprop"])
def test_examples_may_go_through_time_in_groups(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven examples in groups of four, the last of three, with every neuron connected to every other."""
    model = Evaluator(network_of("alif", size=5))
    x, y = data(batch=11)
    whole = RULES[rule](model).gradients(x, y)
    for cache in ("_FIRST_CACHE", "_SECOND_CACHE"):
        monkeypatch.setattr(f"neko_rules.kernels.writer.{cache}", 1)
    assert group_of(1 << 20) == 4
    groups = RULES[rule](model).gradients(x, y)
    with unfused():
        plain = RULES[rule](model).gradients(x, y)
    assert distance(groups, plain) < SAME
    assert distance(groups, whole) < SAME


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [3, 11])
def test_signals_are_multiplied_out_in_the_loop_or_before_it(
    rule: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few neurons above: rows of weights times errors within the loop; many: a product over all time steps."""
    model = Evaluator(network_of("alif", size=5))
    x, y = data(batch=batch)
    products = []
    run = fused_adjoint.Loop.run

    def counted(loop: Any, nx: Any, setting: Any, record: Any, signals: Any) -> Any:
        products.append(any(isinstance(each, Product) for each in signals))
        return run(loop, nx, setting, record, signals)

    monkeypatch.setattr(fused_adjoint.Loop, "run", counted)
    within = RULES[rule](model).gradients(x, y)
    monkeypatch.setattr("neko_rules.credit.adjoint.FEW_ABOVE", 0)
    before = RULES[rule](model).gradients(x, y)
    assert products == [False, True, False, False]
    assert distance(within, before) < SAME


@pytest.mark.parametrize("label", VARIANTS)
@pytest.mark.parametrize("start", [False, True])
def test_a_lean_forward_pass_keeps_the_spikes_and_their_slope(label: str, start: bool) -> None:
    """As the scan records them, for every neuron with one spike, from rest or from within a sequence."""
    network = network_of(VARIANTS[label])
    hidden = frozenset({"hidden"})
    if not network.graph.cell("hidden").spiking or network.jacobians["hidden"].spikes != 1:
        assert hidden - BPTT(Evaluator(network)).lean == hidden
        return
    x = np.ascontiguousarray(data()[0].transpose(1, 0, 2))
    begin = network.forward(network.values, x[:3]).end() if start else None
    lean = network.forward(network.values, x[3:], begin, keep_slopes=True, lean=hidden).records
    with unfused():
        plain = network.forward(network.values, x[3:], begin, keep_slopes=True, lean=hidden).records
    if not network.keeps_current:
        assert lean["hidden"].states == {}
        np.testing.assert_allclose(lean["hidden"].slope, plain["hidden"].slope, rtol=0, atol=SAME)
    assert lean["hidden"].shape == plain["hidden"].shape
    np.testing.assert_array_equal(lean["hidden"].z, plain["hidden"].z)
    np.testing.assert_allclose(lean["readout"].z, plain["readout"].z, rtol=0, atol=SAME)


def test_a_step_makes_no_array_of_spikes_that_are_few() -> None:
    model = Evaluator(ALIF(64, 3, inputs=10))
    x = (np.random.default_rng(0).random((4, 30, 10)) < 0.1).astype(np.float32)
    rule = EProp(model)
    _, _, trajectory = rule.judged_part(
        model.network.values, rule.prepared()[0], rule._given(rule.model.batch(x, [0, 1, 2, 0]))
    )
    assert 0 < trajectory.events["hidden"].density < 0.1
    assert "z" not in vars(trajectory.records["hidden"])
    assert trajectory.z("hidden").mean() == pytest.approx(trajectory.events["hidden"].density)


def test_who_looks_at_states_has_them() -> None:
    """A penalty on membranes and a learned constant need histories that a lean pass does not keep."""
    x, y = data()
    learned = BPTT(Evaluator(network_of(LIFCell(learnable=["threshold"]))))
    assert BPTT(Evaluator(network_of("alif"))).lean == {"hidden"}
    assert learned.lean == frozenset()
    for rule in (learned, BPTT(Evaluator(network_of("alif")), regularizers=[MembraneBounds(upper=0.1)])):
        fused = rule.gradients(x, y)
        with unfused():
            assert distance(fused, rule.gradients(x, y)) < SAME


@pytest.mark.parametrize(("inputs", "weights"), [("float64", "float32"), ("float32", "float64")])
def test_inputs_of_another_type_than_the_weights(inputs: str, weights: str) -> None:
    network = LIF(20, 3, inputs=30, dtype=weights)
    x = (np.random.default_rng(0).random((12, 4, 30)) < 0.1).astype(inputs)
    mixed, pure = (network.forward(network.values, each) for each in (x, x.astype(weights)))
    assert 0 < pure.z("hidden").mean() < 0.5
    np.testing.assert_allclose(mixed.records["hidden"].states["v"], pure.records["hidden"].states["v"], atol=1e-5)
    np.testing.assert_allclose(mixed.z("readout"), pure.z("readout"), atol=1e-5)


@pytest.mark.parametrize("label", VARIANTS)
def test_every_neuron_has_the_same_states_and_spikes(label: str) -> None:
    network = network_of(VARIANTS[label])
    x = np.ascontiguousarray(data()[0].transpose(1, 0, 2))
    one = network.forward(network.values, x)
    with unfused():
        other = network.forward(network.values, x)
    for name, record in other.records.items():
        np.testing.assert_array_equal(one.records[name].z != 0, record.z != 0)
        for key, value in record.states.items():
            np.testing.assert_allclose(one.records[name].states[key], value, rtol=SAME, atol=SAME)
    assert (one.records["hidden"].z != 0).any()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[traces.Form]:
    """The loops over eligibility traces that ran."""
    forms: list[traces.Form] = []
    run = traces.advanced

    def advanced(host: Any, form: traces.Form, **given: Any) -> Any:
        forms.append(form)
        return run(host, form, **given)

    monkeypatch.setattr(traces, "advanced", advanced)
    return forms


def trained_online(network: Network, every: int, signal: str = "filtered") -> dict[str, np.ndarray]:
    """How far a network's parameters go in one online step of plain gradient descent."""
    options = {"temporal": "neuron", "learning_signal": signal, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    rule = LearningRule(Evaluator(network), online=every, **options)
    before = network.parameters
    rule.step(*data())
    return {name: value - before[name] for name, value in network.parameters.items()}


@pytest.mark.parametrize("signal", ["filtered", "instantaneous"])
@pytest.mark.parametrize("label", VARIANTS)
def test_traces_of_every_neuron_are_advanced_by_one_loop(
    label: str, signal: str, traced: list[traces.Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As at every step: several at once would need traces at their ends alone.
    monkeypatch.setattr(Online, "spans", None)
    # One change of the weights, at the end: a step earlier and chaos would make more of the last digit.
    fused = trained_online(network_of(VARIANTS[label]), 1000, signal)
    wide = any(form.wide for form in traced)
    assert wide or signal == "filtered" or not traced
    assert any(form.filtered and form.signal for form in traced) == (signal == "filtered")
    seen = len(traced)
    with unfused():
        plain = trained_online(network_of(VARIANTS[label]), 1000, signal)
    assert len(traced) == seen
    assert distance(fused, plain) < SAME


def test_traces_of_several_parts_and_of_torch_share_the_loops(traced: list[traces.Form]) -> None:
    found = {}
    for backend in ("numpy", "torch"):
        before = threads()
        try:
            set_threads(2)
            found[backend] = trained_online(network_of("alif", size=40, backend=backend), 2)
        finally:
            set_threads(before)
        assert traced
        traced.clear()
    assert distance(found["numpy"], found["torch"]) < SAME
    with unfused():
        assert distance(found["numpy"], trained_online(network_of("alif", size=40), 2)) < SAME
    assert distance(found["numpy"], trained_online(network_of("alif", size=40), 1000)) > 1e-3


@pytest.mark.parametrize("make", [feedback_network, recurrent_readout])
@pytest.mark.parametrize("rule", RULES)
def test_networks_of_several_populations(make: Callable[[str], Network], rule: str) -> None:
    model = Evaluator(make("numpy"))
    x, y = data()
    fused = RULES[rule](model).gradients(x, y)
    with unfused():
        assert distance(fused, RULES[rule](model).gradients(x, y)) < SAME


def loop_of_two(one: Any, other: Any, backend: str = "numpy") -> Network:
    """Two populations that feed back to themselves and to each other, one of the four ways within the time step."""
    ends = [("input", "one", 0), ("one", "one", 1), ("one", "other", 0), ("other", "one", 1), ("other", "other", 1)]
    ends += [("one", "readout", 0), ("other", "readout", 0)]
    strong = {"name": "scaled_normal", "gain": 1.5}
    return Network(
        {
            "one": {"cell": one, "size": 9},
            "other": {"cell": other, "size": 6},
            "readout": {"cell": "leaky_readout", "size": OUTPUTS},
        },
        [{"source": s, "target": t, "delay": d, "initializer": strong} for s, t, d in ends],
        "readout",
        inputs=4,
        backend=backend,
        dtype="float64",
        seed=3,
    )


@pytest.mark.parametrize("steps", [1, 2, 12])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("one", "other"), [("alif", "lif"), ("tanh", "alif"), ("lif", "tanh"), ("tanh", "relu")])
def test_populations_that_feed_back_to_each_other_are_one_loop(
    one: str, other: str, started: bool, steps: int, counted: dict[str, int]
) -> None:
    network = loop_of_two(one, other)
    x = np.random.default_rng(4).normal(size=(steps, 5, 4))
    start = network.forward(network.values, 2 * x).end() if started else None
    found = network.forward(network.values, x, start)
    assert counted["forward"] == 2 + 2 * started
    with unfused():
        expected = network.forward(network.values, x, start)
    assert counted["forward"] == 2 + 2 * started
    for name, record in expected.records.items():
        np.testing.assert_allclose(found.records[name].z, record.z, rtol=SAME, atol=SAME)
        for key, value in record.states.items():
            np.testing.assert_allclose(found.records[name].states[key], value, rtol=SAME, atol=SAME)
    if steps > 2:
        assert all((expected.records[name].z != 0).any() for name in ("one", "other"))


def test_a_loop_of_two_populations_on_torch_and_on_several_threads() -> None:
    pytest.importorskip("torch")
    x = np.random.default_rng(4).normal(size=(16, 30, 4))
    y = np.arange(16) % OUTPUTS
    found = [EProp(Evaluator(loop_of_two("alif", "lif", backend))).gradients(x, y) for backend in ("numpy", "torch")]
    before = threads()
    try:
        set_threads(3)
        found.append(EProp(Evaluator(loop_of_two("alif", "lif"))).gradients(x, y))
    finally:
        set_threads(before)
    with unfused():
        expected = EProp(Evaluator(loop_of_two("alif", "lif"))).gradients(x, y)
    for each in found:
        assert distance(each, expected) < SAME


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("batch", [1, 5, 40])
def test_sparse_and_dense_inputs(batch: int, density: float) -> None:
    """Several examples side by side and a remainder; inputs that are walked and inputs that are not."""
    rng = np.random.default_rng(0)
    x = (rng.random((batch, 20, 30)) < density) * rng.uniform(0.5, 2, (batch, 20, 30))
    y = rng.integers(0, 2, batch)
    model = Evaluator(ALIF(33, 2, inputs=30, dtype="float64"))
    for rule in (BPTT(model), EProp(model)):
        fused = rule.gradients(x, y)
        with unfused():
            plain = rule.gradients(x, y)
        assert max(float(np.abs(fused[k] - v).max()) for k, v in plain.items()) < SAME


def test_single_precision_and_torch_share_the_loops(counted: dict[str, int]) -> None:
    pytest.importorskip("torch")
    x, y = data()
    found = {
        backend: EProp(Evaluator(network_of(LIFCell(), backend=backend, dtype="float32"))).gradients(x, y)
        for backend in ("numpy", "torch")
    }
    assert counted == {"forward": 4, "backward": 4}
    assert distance(found["torch"], found["numpy"]) < 1e-5


def test_torch_records_what_it_differentiates(counted: dict[str, int]) -> None:
    """While a gradient is recorded, arrays must not leave PyTorch: the loops stay out of it."""
    torch = pytest.importorskip("torch")
    network = network_of(LIFCell(), backend="torch")
    values = {name: value.clone().requires_grad_() for name, value in network.values.items()}
    x = torch.as_tensor(data()[0].transpose(1, 0, 2).copy())
    network.forward(values, x).z("readout").sum().backward()
    assert counted["forward"] == 0
    assert values["readout.from_hidden.weight"].grad.abs().sum() > 0


# What is written down, and what is not.


@dataclass(frozen=True)
class Halving(Cell):
    """A neuron that nobody has registered: half of its membrane leaks away in each step."""

    states = ("v",)

    def constants(self, dt: float) -> dict[str, Any]:
        return {"theta": 1.0}

    def update(self, nx: Any, p: Any, s: Any, z: Any, current: Any) -> dict[str, Any]:
        return {"v": 0.5 * s.v + nx.tanh(current) - p.theta * nx.stop_gradient(z)}

    def emit(self, nx: Any, p: Any, s: Any) -> Any:
        return nx.spike((s.v - 0.3 * p.theta) / p.theta)


def test_a_users_own_neuron_is_fused_without_a_line_more(counted: dict[str, int]) -> None:
    model = Evaluator(network_of(Halving()))
    x, y = data()
    fused = BPTT(model).gradients(x, y)
    assert counted == {"forward": 2, "backward": 2}
    with unfused():
        assert distance(fused, BPTT(model).gradients(x, y)) < SAME


def test_a_surrogate_without_a_scalar_form_runs_as_it_is(counted: dict[str, int]) -> None:
    def slope(nx: Any, u: Any) -> Any:
        return nx.exp(-nx.abs(u)) * nx.reshape(nx.full((1,), 1.0, nx.dtype(u)), (1, 1))

    model = Evaluator(network_of(LIFCell(surrogate=slope)))  # type: ignore[arg-type]
    x, y = data()
    fused = BPTT(model).gradients(x, y)
    assert counted == {"forward": 2, "backward": 1}, "only the readout's way back has a loop"
    with unfused():
        assert distance(fused, BPTT(model).gradients(x, y)) < SAME


def test_a_decision_on_a_value_is_not_traceable() -> None:
    body = Body("float64")
    with pytest.raises(NotTraceableError):
        bool(body.argument("v") > 0)
    with pytest.raises(NotTraceableError, match="reshape"):
        TracingBackend(body).reshape(body.argument("v"), (1,))


def test_single_precision_stays_single() -> None:
    body = Body("float32")
    TracingBackend(body).sigmoid(0.5 * body.argument("v") + 1)
    assert {dtype for dtype, _ in body.literals.values()} == {"float32"}


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS)))
def test_every_optimizer_is_one_loop_and_gives_the_same_updates(name: str) -> None:
    optimizer = OPTIMIZERS.resolve(name)
    assert loop_of(optimizer, type(optimizer)._change, "float64", "float64", True) is not None

    def course() -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        values = {"w": rng.normal(size=(5, 4)), "b": np.zeros(4)}
        state, seen = optimizer.init(NX, values), []
        for step in range(4):
            gradient = {k: rng.normal(size=v.shape) for k, v in values.items()}
            rate = np.asarray(optimizer.learning_rate_at(step))
            updates, state = optimizer.update(NX, gradient, state, values, rate, np.asarray(step + 1.0))
            values = {k: v + updates[k] for k, v in values.items()}
            seen.append(values)
        return seen

    fused = course()
    with unfused():
        plain = course()
    assert max(distance(one, other) for one, other in zip(fused, plain, strict=True)) < SAME


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS)))
def test_updates_that_nobody_looks_at_are_not_written_and_all_else_is_the_same(name: str) -> None:
    optimizer, rng = OPTIMIZERS.resolve(name), np.random.default_rng(0)
    values, gradient = ({"w": rng.normal(size=(5, 4)), "b": rng.normal(size=4)} for _ in range(2))
    given = gradient, optimizer.init(NX, values), values, np.asarray(0.1), np.asarray(1.0)
    whole, less = optimizer.applied(NX, *given), optimizer.applied(NX, *given, wanted=False)
    assert less.updates == {}
    for one, other in zip(
        [whole.parameters, *whole.state.values()], [less.parameters, *less.state.values()], strict=True
    ):
        assert all(np.array_equal(one[key], other[key]) for key in values)


def test_a_rule_whose_feedback_follows_the_weights_is_given_their_updates() -> None:
    x, y = data()
    spec = {"name": "eprop", "mode": "adaptive", "feedback_decay": 0.0, "optimizer": SGD(0.3)}
    rule = rule_of(Evaluator(feedback_network("numpy")), spec)
    rule.model.network.build(x.shape[2])
    weights, feedback = dict(rule.model.network.parameters), rule.prepared()[0]["feedback"]
    rule.step(x, y)
    after = rule.prepared()[0]["feedback"]
    moved = {name: value - weights[name] for name, value in rule.model.network.parameters.items()}
    for name, matrix in after.items():
        np.testing.assert_allclose(matrix - feedback[name], moved[name], rtol=1e-9, atol=1e-15)
        assert np.abs(moved[name]).max() > 0


@pytest.mark.parametrize("wrong", [None, np.nan, np.inf, 1e200])
@pytest.mark.parametrize("name", ["w", "b"])
def test_a_loop_tells_whether_all_that_it_wrote_is_finite(name: str, wrong: float | None) -> None:
    """A gradient of 1e200 has a square that overflows, and with it Adam's memory alone is infinite."""
    optimizer = OPTIMIZERS.resolve("adam")
    values = {"w": np.ones((5, 40)), "b": np.zeros(3)}
    gradient = {key: np.ones_like(value) for key, value in values.items()}
    if wrong is not None:
        gradient[name].flat[2] = wrong
    found = optimizer.applied(NX, gradient, optimizer.init(NX, values), values, np.asarray(0.1), np.asarray(1.0))
    assert found.finite is (wrong is None)
    arrays = [found.parameters, found.updates, *found.state.values()]
    assert found.finite == all(np.isfinite(value).all() for group in arrays for value in group.values())


@dataclass(frozen=True)
class Widening(Optimizer):
    """Divides by a number in double precision: what it gives is finite until it is kept in single precision."""

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return -rate * g / (1 - 0.999**t), ()


def test_what_is_finite_before_it_is_kept_may_not_be_afterwards() -> None:
    values, gradient = ({"w": np.full(40, value, np.float32)} for value in (1.0, 1.0))
    found = Widening().applied(NX, gradient, {}, values, np.asarray(2e38, np.float32), np.asarray(1.0))
    assert not np.isfinite(found.parameters["w"]).all()
    assert found.finite is not True


@pytest.mark.parametrize("name", sorted(set(LOSSES)))
@pytest.mark.parametrize("steps", [1, 7])
def test_every_loss_of_a_step_is_one_pass_and_gives_the_same_numbers(name: str, steps: int) -> None:
    loss = LOSSES.resolve(name)
    rng = np.random.default_rng(0)
    y = rng.normal(size=(7, 5, 4)) * 3
    target = np.eye(4)[rng.integers(0, 4, (steps, 5))]
    counted, weights = rng.random((7, 5)), rng.random((7, 5))
    total, gradient = weighed(NX, loss, y, target, counted, weights)
    with unfused():
        plain_total, plain = weighed(NX, loss, y, target, counted, weights)
    assert total == pytest.approx(plain_total, rel=SAME)
    np.testing.assert_allclose(gradient, plain, rtol=SAME, atol=SAME)


def test_cross_entropy_has_a_pass() -> None:
    loss = LOSSES.resolve("categorical_crossentropy")
    assert pass_of(loss, lambda nx, y, t: (loss.value(nx, y, t), loss.gradient(nx, y, t)), "float64") is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["hidden.input.weight", "readout.bias"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    """A NaN must come through every comparison of a loop."""
    model = Evaluator(ALIF(8, 3, inputs=4))
    rule = EProp(model)
    x, y = data()
    rule.step(x, y)
    broken = model.network.parameters[name].copy()
    broken.flat[0] = value
    model.network.values = {**model.network.values, name: broken}
    with pytest.raises(NonFiniteError):
        rule.step(x, y)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of registers are those of x86")
def test_loops_of_generated_kernels_take_whole_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neko_rules.kernels.pipeline import WIDE_REGISTERS

    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    lines = ["def run(a, b):", "    for n in range(a.shape[0]):", "        b[n] = a[n] * a[n] + b[n]"]
    text = "\n".join(["from neko_rules.kernels.compiling import kernel", "@kernel", *lines, f"# {tmp_path}"])
    run: Any = compiling.module_of(text).run
    sums = np.ones(100, np.float32)
    run(np.arange(100, dtype=np.float32), sums)
    np.testing.assert_array_equal(sums, np.arange(100.0) ** 2 + 1)
    (assembly,) = run.inspect_asm().values()
    assert ("zmm" if WIDE_REGISTERS else "ymm") in assembly


def test_without_numba_everything_runs(monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]) -> None:
    monkeypatch.setattr(host, "installed", lambda library: False)
    model = Evaluator(ALIF(8, 3, inputs=4))
    EProp(model).step(*data())
    assert counted == {"forward": 0, "backward": 0}
    assert bool(all_finite(NX, [np.ones(2)]))
