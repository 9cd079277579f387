"""Learning within a sequence: online, every k steps, in windows and in streams, against the deferred gradient."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from credit_cases import alive, data, distance, network_of, stack
from eager import eager

from neko_rules import (
    ALIF,
    BPTT,
    LIF,
    OTTT,
    UORO,
    EProp,
    Evaluator,
    FiringRate,
    LearningRule,
    MembraneBounds,
    TruncatedBPTT,
    WeightMirror,
)
from neko_rules.errors import CheckpointError, DataError, IncompatibleError, NonFiniteError
from neko_rules.kernels import filtering
from neko_rules.kernels.host import unfused
from neko_rules.layers.forward import add_signals
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.optimizers import SGD, Adam
from neko_rules.rules import rule_of
from neko_rules.rules.online import Online, in_chunks
from neko_rules.trees import leaves

SAME = 1e-12

POINTS: dict[str, dict[str, Any]] = {
    "neuron": {"temporal": "neuron"},
    "neuron, random": {"temporal": "neuron", "spatial": "random"},
    "neuron, direct": {"temporal": "neuron", "spatial": "direct"},
    "neuron, target": {"temporal": "neuron", "spatial": "target"},
    "layer": {"temporal": "layer"},
    "presynaptic, local": {"temporal": "presynaptic", "spatial": "local"},
    "none": {"temporal": "none"},
    "full": {"temporal": "full", "evaluation": "traces"},
    "rank one": {"temporal": "neuron", "trace": "rank_one", "learning_signal": "instantaneous"},
}


def model_of(name: str, backend: Any = "numpy", **options: Any) -> Evaluator:
    return Evaluator(network_of(name, backend), metrics=["accuracy", "firing_rate"], **options)


# Online against deferred.


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["alif", "deep", "feedback", "last output", "reset not detached", "refractory"])
def test_one_change_at_the_end_is_the_deferred_update(
    point: str, name: str, carried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of single steps add up to the deferred gradient as long as the weights stay as they are."""
    x, y = data()
    if carried:
        monkeypatch.setattr(Online, "rewinds", lambda *_: False)
    online, deferred = (
        LearningRule(model_of(name), **POINTS[point], optimizer="naive", online=steps) for steps in (14, False)
    )
    figures = online.step(x, y), deferred.step(x, y)
    assert distance(online.model.network.parameters, deferred.model.network.parameters) < SAME
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)
    assert online.steps == deferred.steps == 1


AT_ONCE: dict[str, dict[str, Any]] = {
    "presynaptic": {"temporal": "presynaptic", "learning_signal": "instantaneous"},
    "presynaptic, local": {"temporal": "presynaptic", "spatial": "local"},
    "neuron": {"temporal": "neuron", "learning_signal": "instantaneous"},
    "neuron, direct": {"temporal": "neuron", "spatial": "direct", "learning_signal": "instantaneous"},
    "neuron, target": {"temporal": "neuron", "spatial": "target"},
    "none": {"temporal": "none", "learning_signal": "instantaneous"},
    "neuron, filtered": {"temporal": "neuron"},
    "neuron, random, filtered": {"temporal": "neuron", "spatial": "random"},
    "neuron, direct, filtered": {"temporal": "neuron", "spatial": "direct"},
    "none, filtered": {"temporal": "none"},
}


EVERY_POINT = [(name, point) for name in ("lif", "if") for point in AT_ONCE]
ONE_VECTOR = [
    (name, point)
    for name in ("deep", "last output", "feedback", "recurrent readout")
    for point in ("presynaptic", "presynaptic, local", "none")
]


ON_BACKENDS = [("numpy", *each) for each in EVERY_POINT + ONE_VECTOR] + [
    (backend, *each)
    for backend in ("torch", "jax", "tensorflow")
    for each in (("lif", "neuron, filtered"), ("deep", "presynaptic"), ("recurrent readout", "presynaptic, local"))
]


@pytest.mark.parametrize(("backend", "name", "point"), ON_BACKENDS)
def test_steps_between_two_changes_are_gone_through_at_once(
    backend: str, name: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces at the ends of pieces of five steps, the last of four: the weights that traces at every step give."""
    x, y = data()
    found = []
    for at_once in (True, False):
        rule = LearningRule(model_of(name, backend), **AT_ONCE[point], optimizer=SGD(0.3), online=5)
        if at_once:
            assert Online(rule, 5).spans is not None
        else:
            monkeypatch.setattr(Online, "spans", None)
        figures = rule.step(x, y)
        found.append((rule.model.network.parameters, figures))
        assert rule.steps == 3
    assert distance(found[0][0], found[1][0]) < SAME
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-12)


class Pushed(LearningRule):
    """A user's signal on spikes, beside that of the loss."""

    def signals(self, trajectory: Any, *arguments: Any, **named: Any) -> Any:
        z = trajectory.z("hidden")
        return add_signals(super().signals(trajectory, *arguments, **named), {("hidden", "z"): 0.01 * (z - 0.1)})


class Seen(LearningRule):
    """A user's way back that looks at membranes."""

    def adjoint(self, values: Any, own: Any, trajectory: Any, signals: Any) -> Any:
        assert trajectory.records["hidden"].states["v"].shape == trajectory.z("hidden").shape
        return super().adjoint(values, own, trajectory, signals)


@pytest.mark.parametrize("kind", [Pushed, Seen])
def test_what_a_subclass_makes_of_signals_and_the_way_back_is_asked_for_at_every_step(kind: Any) -> None:
    x, y = data()
    assert LearningRule(model_of("lif"), temporal="neuron", online=14).plain
    online, deferred = (
        kind(model_of("lif"), temporal="neuron", optimizer="naive", online=steps) for steps in (14, False)
    )
    online.step(x, y)
    deferred.step(x, y)
    assert Online(online, 14).spans is None
    assert distance(online.model.network.parameters, deferred.model.network.parameters) < SAME


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize(("kind", "by_events"), [("spikes", 2), ("graded", 2), ("dense", 1)])
@pytest.mark.parametrize("rule", ["eprop", "ottt"])
def test_traces_between_two_changes_are_taken_from_events(
    rule: str, kind: str, by_events: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fires little is added up event by event: the weights that products with all of it give."""
    pytest.importorskip(backend)
    rng = np.random.default_rng(0)
    x = (rng.random((5, 14, 11)) < 0.15) * 1.0
    x = {"spikes": x, "graded": x * rng.random(x.shape), "dense": rng.standard_normal(x.shape)}[kind]
    y, seen = np.array([0, 2, 1, 0, 1]), []
    filtered = filtering.filtered

    def counted(*arguments: Any) -> Any:
        seen.append(arguments)
        return filtered(*arguments)

    monkeypatch.setattr(filtering, "filtered", counted)
    found = []
    for fused in (True, False):
        network = LIF(30, 3, inputs=11, recurrent=True, dtype="float64", backend=backend, seed=2)
        trained = rule_of(Evaluator(network), {"name": rule, "optimizer": SGD(0.3), "online": 4})
        with nullcontext() if fused else unfused():
            trained.step(x, y)
        found.append(network.parameters)
    assert distance(*found) < SAME
    # 14 steps in pieces of 4: the last two are one more piece, after which nobody asks for traces.
    assert len(seen) == (3 * by_events if rule == "eprop" else 0)


def test_a_fault_in_traces_from_events_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: events of a delayed connection that meet what belongs to the step before."""
    x, y = np.random.default_rng(0).random((5, 14, 11)) < 0.15, np.array([0, 2, 1, 0, 1])
    filtered, found = filtering.filtered, []
    for wrong in (False, True):

        def late(events: Any, *arguments: Any, wrong: bool = wrong) -> Any:
            *others, factor = arguments
            return filtered(events, *others, np.roll(factor, 1, axis=0) if wrong else factor)

        monkeypatch.setattr(filtering, "filtered", late)
        network = LIF(30, 3, inputs=11, recurrent=True, dtype="float64", seed=2)
        EProp(Evaluator(network), optimizer=SGD(0.3), online=4).step(x * 1.0, y)
        found.append(network.parameters)
    assert distance(*found) > 1e-6


def test_traces_of_every_synapse_are_stepped_one_by_one() -> None:
    for name, options in {
        "alif": {"temporal": "neuron", "learning_signal": "instantaneous"},
        "readout per neuron": AT_ONCE["presynaptic"],
    }.items():
        assert Online(LearningRule(model_of(name), **options, online=5), 5).spans is None
    penalised = LearningRule(model_of("lif"), **AT_ONCE["neuron"], online=5, regularizers=[FiringRate(target=5.0)])
    assert Online(penalised, 5).spans is None


@pytest.mark.parametrize("name", ["alif", "deep", "feedback"])
def test_weights_that_change_within_a_sequence_give_another_result(name: str) -> None:
    x, y = data()
    found = {}
    for every in (1, 4, 14):
        rule = EProp(model_of(name), optimizer=SGD(0.5), online=every)
        rule.step(x, y)
        assert rule.steps == -(-14 // every)
        found[every] = rule.model.network.parameters
    assert distance(found[1], found[14]) > 1e-4
    assert distance(found[4], found[14]) > 1e-4
    assert distance(found[1], found[4]) > 1e-4


@pytest.mark.parametrize("every", [1, 3])
def test_the_first_change_is_by_the_gradient_of_the_first_steps(every: int) -> None:
    """With a learning rate that is zero after the first update, only the first steps' gradient acts."""
    x, y = data()
    schedule = {"name": "piecewise_constant", "boundaries": [1], "values": [1.0, 1e-300]}
    rule = EProp(model_of("alif"), optimizer=SGD(schedule), online=every)  # type: ignore[arg-type]
    before = rule.model.network.parameters
    rule.step(x, y)
    first = EProp(model_of("alif")).gradients(x[:, :every], y)
    for name, value in rule.model.network.parameters.items():
        np.testing.assert_allclose(value, before[name] - first[name] * every / 14, rtol=1e-11, atol=1e-14)


def test_a_label_at_the_last_step_alone_gives_one_change_which_is_the_deferred_one() -> None:
    x, _ = data()
    y = np.full((3, 14), -1)
    y[:, -1] = 1
    rule, deferred = (EProp(model_of("alif"), optimizer=SGD(0.1), online=online) for online in (True, False))
    rule.step(x, y)
    deferred.step(x, y)
    assert distance(rule.model.network.parameters, deferred.model.network.parameters) < SAME


def test_online_regularisers_use_the_rate_so_far() -> None:
    """On a network that fires at one rate, the online penalties add up to the deferred one."""
    x = np.full((2, 20, 4), 5.0)
    y = np.zeros((2, 20, 3))
    regularizers = [FiringRate(target=100.0, strength=10.0), MembraneBounds(upper=0.5, strength=3.0)]
    found = []
    for options in ({"online": 20}, {}):
        network = LIF(5, 3, recurrent=False, membrane_decay=0.0, reset="none", task_type="regression", dtype="float64",
                      readout_initializer="zeros", initializer={"name": "constant", "value": 0.2})  # fmt: skip
        model = Evaluator(network, metrics=["firing_rate"])
        rule = EProp(model, optimizer="naive", regularizers=regularizers, **options)  # type: ignore[arg-type]
        assert model.evaluate(x, y)["firing_rate"] == pytest.approx(1000.0)
        before = network.parameters
        rule.step(x, y)
        found.append({n: v - before[n] for n, v in network.parameters.items() if n.startswith("hidden")})
    assert distance(found[0], found[1]) < SAME


@pytest.mark.parametrize("online", [1, 4])
@pytest.mark.parametrize("name", ["tensorflow", "jax"])
def test_compiled_online_learning_equals_numpy(name: str, online: int) -> None:
    """Compiled once each; the matrix shows the same numbers uncompiled for every rule."""
    pytest.importorskip(name)
    x, y = data(steps=6)
    states = []
    for backend in ("numpy", name):
        rule = EProp(Evaluator(stack(ALIFCell(beta=0.3))(backend)), optimizer=Adam(1e-2), online=online)
        rule.step(x, y)
        states.append(rule.state())
    for key, value in states[0].items():
        np.testing.assert_allclose(states[1][key], value, rtol=1e-9, atol=1e-12, err_msg=key)


def test_what_is_known_at_the_end_cannot_be_learned_before() -> None:
    with pytest.raises(IncompatibleError, match="known only at the end"):
        BPTT(model_of("alif"), online=True)
    with pytest.raises(IncompatibleError, match="at the time step itself"):
        EProp(model_of("mean output"), online=True)
    with pytest.raises(IncompatibleError, match="either online or after each window"):
        EProp(model_of("alif"), online=True, window=3)
    with pytest.raises(IncompatibleError, match="use online=3"):
        LearningRule(model_of("alif"), temporal="neuron", evaluation="traces", window=3)
    spiking = Evaluator(LIF(5, 3, output_cell="lif"), loss="ce_count")
    with pytest.raises(IncompatibleError, match="has no value before the end"):
        OTTT(spiking, online=True)


# Pieces of a sequence.


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("steps", "size"), [(6, 2), (7, 3), (5, 5), (3, 8), (4, 1)])
def test_pieces_are_taken_in_order_and_none_is_left_out(steps: int, size: int, apart: bool) -> None:
    nx = eager("numpy")
    known: list[bool] = []

    def body(carry: Any, given: Any, entry: Any, length: int, last: bool) -> tuple[Any, Any]:
        assert len(given["x"]) == length
        known.append(last)
        return {"seen": carry["seen"] * 10 + given["x"].sum() + entry}, given["x"] + entry

    entries = np.arange(float(-(-steps // size))) * 100
    x = {"x": np.arange(float(steps))}
    carry, outputs = in_chunks(nx, size, {"seen": np.zeros(())}, x, entries, steps, body, apart)
    assert known == [False] * (len(entries) - 1) + [apart or steps % size > 0 or steps == size]
    pieces = [np.arange(float(steps))[k * size : (k + 1) * size] for k in range(len(entries))]
    expected = 0.0
    for k, piece in enumerate(pieces):
        expected = expected * 10 + piece.sum() + 100 * k
    assert float(carry["seen"]) == expected
    assert outputs.tolist() == [value + 100 * (t // size) for t, value in enumerate(range(steps))]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("options", [{"online": True}, {"online": 5}, {"window": 5}])
def test_an_update_without_a_supervised_step_is_one_with_a_gradient_of_zero(
    options: dict[str, Any], optimizer: str
) -> None:
    """The number of updates of a sequence is that of its time steps; with plain SGD such an update changes nothing."""
    x, y = data()
    labels = np.repeat(y[:, None], 14, axis=1)
    labels[:, 5:] = -1
    made = {"name": optimizer, "learning_rate": 0.02}
    whole, part = (LearningRule(model_of("alif"), temporal="neuron", optimizer=made, **options) for _ in range(2))
    figures = whole.step(x, labels)
    assert part.step(x[:, :5], y)["loss"] == pytest.approx(figures["loss"], rel=1e-12)
    nx, values, memory = part.nx, part.model.network.values, part.prepared()[1]
    supervised, rate = dict(values), nx.full((), 0.02, "float64")
    nothing = {name: 0 * value for name, value in values.items()}
    for number in range(part.steps, whole.steps):
        count = nx.full((), number + 1.0, "float64")
        updates, memory = part.optimizer.update(nx, nothing, memory, values, rate, count)
        values = {name: value + updates[name] for name, value in values.items()}
    found = whole.model.network.parameters
    assert whole.steps == -(-14 // (part.online or part.window or 0))
    assert distance(found, values) < SAME
    assert (distance(found, supervised) < SAME) == (optimizer == "sgd")


# Streams.


@pytest.mark.parametrize("name", ["alif", "deep", "feedback"])
def test_a_stream_equals_an_online_step_over_the_same_sequence(name: str) -> None:
    """A stream weighs every step with 1, a sequence of T steps with 1/T: the same with SGD at a T-th of the rate."""
    x, y = data()
    rule = EProp(model_of(name), optimizer=SGD(0.7), online=True)
    rule.step(x, y)
    streamed = EProp(model_of(name), optimizer=SGD(0.7 / 14), online=True)
    learner = streamed.stream(batch_size=3)
    outputs = [learner.observe(x[:, t], y) for t in range(14)]
    assert distance(streamed.model.network.parameters, rule.model.network.parameters) < 1e-11
    assert outputs[0].shape == (3, 3)
    assert learner.time == 14
    assert streamed.steps == 14


@pytest.mark.parametrize("many", [False, True])
def test_the_label_minus_one_is_no_target(many: bool) -> None:
    """As in a sequence: of all sequences side by side it is None, of some the loss is that of the others."""
    x, y = data()
    some = np.where(np.arange(14) % 3 == 1, y[0], -1)

    def stream(batch_size: int, **options: Any) -> Any:
        return EProp(model_of("alif"), optimizer=Adam(1e-2), online=True, **options).stream(batch_size)

    one, other, beside = stream(1), stream(1), stream(3)
    labels = [None if label < 0 else label for label in some]
    outputs = [one.observe(x[0, t], label) for t, label in enumerate(labels)]
    apart = np.stack([some, np.full(14, -1), np.full(14, -1)], axis=1)
    if many:
        found, side = other.observe_many(x[0], some), beside.observe_many(x.swapaxes(0, 1), apart)
    else:
        found = np.stack([other.observe(x[0, t], some[t]) for t in range(14)])
        side = np.stack([beside.observe(x[:, t], apart[t]) for t in range(14)])
    assert np.array_equal(found, outputs)
    np.testing.assert_allclose(side[:, 0], outputs, rtol=SAME, atol=SAME)
    assert one.rule.steps == other.rule.steps == beside.rule.steps == 5
    assert distance(beside.rule.model.network.parameters, one.rule.model.network.parameters) < 1e-10
    with pytest.raises(DataError, match=r"label -2"):
        other.observe(x[0, 0], -2)


def test_a_gradient_outlasts_the_beginning_of_another_sequence(tmp_path: Path) -> None:
    """With a change every eight steps and sequences of four, what was found in the first is not lost."""
    x, y = data(batch=2, steps=4)
    learner = EProp(model_of("alif"), optimizer="naive", online=8).stream()
    model = learner.rule.model
    before = model.network.parameters
    deferred = EProp(model)
    found = [deferred.gradients(x[k : k + 1], y[k : k + 1]) for k in range(2)]
    for k in range(2):
        for t in range(4):
            assert learner.rule.steps == 0
            learner.observe(x[k, t], y[k])
        learner.reset()
    assert learner.rule.steps == 1
    for name, value in model.network.parameters.items():
        np.testing.assert_allclose(before[name] - value, 4 * (found[0][name] + found[1][name]), rtol=1e-10, atol=1e-13)


def test_t_steps_then_t_steps_equal_2t_steps(tmp_path: Path) -> None:
    """Also through a file, with a new rule and a new model; and not if the states were put back to rest in between."""
    x, y = data(batch=1, steps=12)

    def make() -> Any:
        return EProp(model_of("deep"), optimizer=Adam(1e-2), online=3).stream()

    whole, first, reset = make(), make(), make()
    outputs = [whole.observe(x[0, t], y[0]) for t in range(12)]
    for t in range(5):
        first.observe(x[0, t], y[0])
        reset.observe(x[0, t], y[0])
    second = make()
    first.save(tmp_path / "learner.safetensors")
    second.load(tmp_path / "learner.safetensors")
    reset.reset()
    found = [second.observe(x[0, t], y[0]) for t in range(5, 12)]
    after = [reset.observe(x[0, t], y[0]) for t in range(5, 12)]
    assert all(np.array_equal(one, other) for one, other in zip(found, outputs[5:], strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(after, outputs[5:], strict=True))
    one, other = second.rule.state(), whole.rule.state()
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_compiled_stream_goes_on_from_its_file(tmp_path: Path) -> None:
    """JAX returns dicts in alphabetical order; what is saved must not depend on it."""
    pytest.importorskip("jax")
    x, y = data(batch=1, steps=4)
    first, second = (
        EProp(Evaluator(stack(ALIFCell(beta=0.3))("jax")), optimizer=Adam(1e-2), online=True).stream() for _ in range(2)
    )
    first.observe_many(x[0, :3], [y[0]] * 3)
    first.save(tmp_path / "learner.safetensors")
    second.load(tmp_path / "learner.safetensors")
    assert np.array_equal(first.observe(x[0, 3], y[0]), second.observe(x[0, 3], y[0]))
    one, other = first.rule.state(), second.rule.state()
    assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("make", [
    lambda model: UORO(model, online=True, seed=3),
    lambda model: WeightMirror(model, temporal="neuron", online=True, seed=3),
    lambda model: EProp(model, mode="adaptive", online=True, regularizers=["firing_rate"]),
], ids=["uoro", "mirror", "adaptive"])  # fmt: skip
def test_many_steps_in_one_call_equal_one_call_each(make: Any, backend: str) -> None:
    x, y = data(batch=1, steps=6)
    streams = [make(Evaluator(stack(LIFCell(threshold=0.5))(eager(backend)))).stream() for _ in range(2)]
    outputs = np.stack([streams[0].observe(x[0, t], y[0]) for t in range(6)])
    together = streams[1].observe_many(x[0], [y[0]] * 6)
    np.testing.assert_allclose(together, outputs, rtol=1e-10, atol=1e-12)
    one, other = streams[0].rule.state(), streams[1].rule.state()
    assert all(np.allclose(one[key], other[key], rtol=1e-9, atol=1e-12) for key in one)
    assert streams[0].time == streams[1].time == 6


def test_a_step_without_a_target_changes_no_weights_and_is_not_forgotten() -> None:
    x, y = data(batch=1)
    learner = EProp(model_of("alif"), optimizer=Adam(1e-2), online=True).stream()
    learner.observe(x[0, 0], y[0])
    before = learner.rule.model.network.parameters
    for t in range(1, 6):
        learner.observe(x[0, t])
    assert all(np.array_equal(before[n], v) for n, v in learner.rule.model.network.parameters.items())
    # What came without a target still has its traces: the next step's gradient is not that of the step alone.
    fresh = EProp(model_of("alif"), optimizer=Adam(1e-2), online=True)
    fresh.load_state(learner.rule.state())
    alone = fresh.stream()
    learner.observe(x[0, 6], y[0])
    alone.observe(x[0, 6], y[0])
    name = "hidden.input.weight"
    assert not np.array_equal(learner.rule.model.network.parameters[name], fresh.model.network.parameters[name])


def test_a_stream_learns_and_its_state_does_not_grow() -> None:
    rng = np.random.default_rng(0)
    network = LIF(20, 2, recurrent=False, threshold=0.3, tau_membrane=2e-3, tau_readout=1e-3, seed=1)
    learner = OTTT(Evaluator(network), optimizer=Adam(1e-2), online=True)
    stream, losses, sizes = learner.stream(), [], []
    for step in range(600):
        if step % 10 == 0:
            label = int(rng.integers(2))
        x = np.zeros(4)
        x[label] = 1.0
        stream.observe(x + 0.1 * rng.standard_normal(4), label)
        losses.append(stream.loss)
        sizes.append(sum(np.size(leaf) for leaf in leaves(stream._carry())))
    assert np.mean(losses[-100:]) < 0.5 * np.mean(losses[:100])
    assert len(set(sizes)) == 1


def test_wrong_data_in_a_stream_are_refused() -> None:
    learner = EProp(Evaluator(LIF(5, 3, inputs=4)), online=True).stream()
    for x, target, match in [
        ([1.0, 2.0], 0, "4 input features"),
        ([1.0, np.nan, 0.0, 0.0], 0, "must be finite"),
        ([1.0, 2.0, 3.0, 4.0], 7, "between 0 and 2"),
        ([[1.0] * 4] * 2, 0, "must have shape"),
        ("words", 0, "array of numbers"),
    ]:
        with pytest.raises(DataError, match=match):
            learner.observe(x, target)
    with pytest.raises(IncompatibleError, match="no end at which"):
        EProp(Evaluator(LIF(5, 3))).stream()
    with pytest.raises(IncompatibleError, match="at every time step"):
        EProp(Evaluator(LIF(5, 3, readout="last")), online=True).stream()


def test_a_stream_that_diverges_keeps_the_last_good_weights() -> None:
    learner = OTTT(Evaluator(LIF(5, 3, inputs=4, task_type="regression")), optimizer=SGD(1e36), online=True).stream()
    learner.observe(np.ones(4), np.zeros(3))
    before = learner.rule.state()
    with pytest.raises(NonFiniteError):
        learner.observe(1e5 * np.ones(4), 1e5 * np.ones(3))
    assert all(np.array_equal(before[key], value) for key, value in learner.rule.state().items())


def test_a_file_of_another_stream_is_refused(tmp_path: Path) -> None:
    learner = EProp(Evaluator(LIF(5, 3, inputs=4)), online=True).stream()
    learner.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="the rule it was begun with"):
        OTTT(Evaluator(LIF(5, 3, inputs=4)), online=True).stream().load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="batch_size"):
        EProp(Evaluator(LIF(5, 3, inputs=4)), online=True).stream(2).load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        EProp(Evaluator(LIF(6, 3, inputs=4)), online=True).stream().load(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="whole safetensors file"):
        learner.load(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="must be writable"):
        learner.save(tmp_path / "missing" / "a.safetensors")


# Windows.


def test_windows_change_the_weights_after_each() -> None:
    x, y = data()
    rule = TruncatedBPTT(model_of("deep"), window=5, optimizer=SGD(0.5))
    figures = rule.step(x, y)
    assert rule.steps == 3
    assert set(figures) == {"loss", "accuracy", "firing_rate"}
    by_hand = model_of("deep")
    network, values = by_hand.network, by_hand.network.values
    inputs, target, mask = by_hand.batch(x, y)
    start = None
    for piece in (slice(0, 5), slice(5, 10), slice(10, 14)):
        exact = BPTT(by_hand)
        trajectory = network.forward(values, inputs[piece], start)
        share = len(inputs[piece]) / 14
        signals = {k: share * v for k, v in by_hand.judge(trajectory, target, mask).signals.items()}
        found = exact.adjoint(values, {"feedback": {}}, trajectory, signals)
        values = {name: value - 0.5 * found[name] for name, value in values.items()}
        start = trajectory.end()
    assert distance(rule.model.network.parameters, values) < 1e-11


def test_online_learning_trains_float32_on_every_backend(backend: str) -> None:
    x, y = data(batch=8, steps=6)
    network = ALIF(12, 3, threshold=0.5, backend=eager(backend), seed=1)
    rule = OTTT(Evaluator(network), optimizer=Adam(5e-3), online=True)
    losses = [rule.step(x, y)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    assert all(value.dtype == np.float32 for value in network.parameters.values())


def test_networks_of_the_stream_tests_are_alive() -> None:
    x, _ = data()
    for name in ("alif", "deep", "feedback"):
        alive(model_of(name), x)
