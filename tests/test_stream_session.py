"""A stream by a chain that is kept at hand: every time step as by operations, undone if it fails, saved bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_cases import answers
from credit_cases import distance

from neko_rules import ALIF, LIF, Evaluator, Network
from neko_rules.chains import running
from neko_rules.errors import NonFiniteError
from neko_rules.kernels.host import by_library
from neko_rules.layers.integrate_and_fire import ALIFCell, LIFCell
from neko_rules.optimizers import SGD
from neko_rules.regularizers import FiringRate
from neko_rules.rules import chained, chained_pass, rule_of, session
from neko_rules.rules.session import Session
from neko_rules.rules.streaming import StreamLearner

SAME = 1e-12
STEPS, FEATURES, CLASSES = 30, 7, 3
DOUBLE: dict[str, Any] = {"inputs": FEATURES, "dtype": "float64"}
NETWORKS: dict[str, Any] = {
    "lif": lambda backend: LIF(14, CLASSES, backend=backend, **DOUBLE),
    "alif": lambda backend: ALIF(14, CLASSES, backend=backend, **DOUBLE),
    "layers": lambda backend: LIF([12, 9], CLASSES, backend=backend, **DOUBLE),
    "learned through resets": lambda backend: layer(LIFCell(detach_reset=False), backend),
    "some adaptive": lambda backend: layer(ALIFCell(beta=[0.0, 0.2] * 6), backend),
}
RULES: dict[str, tuple[str, ...]] = {
    "lif": ("eprop", "ottt", "pp_prop", "decolle", "etlp", "fptt", "rflo"),
    "alif": ("eprop", "pp_prop"),
    "layers": ("ottt", "pp_prop"),
    "learned through resets": ("eprop",),
    "some adaptive": ("eprop",),
}
CASES = [(name, rule) for name, rules in RULES.items() for rule in rules]


def layer(cell: Any, backend: str) -> Network:
    ends = [("input", "hidden", 0), ("hidden", "hidden", 1), ("hidden", "readout", 0)]
    return Network(
        {"hidden": {"cell": cell, "size": 12}, "readout": {"cell": "leaky_readout", "size": CLASSES}},
        [{"source": s, "target": t, "delay": d} for s, t, d in ends],
        "readout",
        backend=backend,
        **DOUBLE,
    )


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Sessions from the fifth time step on; which of their steps went well."""
    monkeypatch.setattr(session, "_STEPS_KEPT", 4)
    monkeypatch.setattr(running.Runner, "worthwhile", lambda self, steps, *_: steps >= 5)
    monkeypatch.setattr(chained, "times_as_long", lambda nx: 1.0)
    return answers(monkeypatch, Session, "step")


def learner(name: str, rule: str, backend: str = "numpy", batch: int = 1, **options: Any) -> StreamLearner:
    given = {"optimizer": {"name": "adam", "learning_rate": 0.01}, "online": True, **options}
    found: StreamLearner = rule_of(Evaluator(NETWORKS[name](backend)), {"name": rule, **given}).stream(batch)
    return found


def plainly(stream: StreamLearner) -> StreamLearner:
    """The same step for step by operations."""
    stream.__dict__["_begun"] = lambda features: None
    return stream


def data(batch: int = 1, graded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = (rng.random((STEPS, batch, FEATURES)) < 0.3) * 1.0
    x, y = (x * rng.random(x.shape) if graded else x), rng.integers(CLASSES, size=(STEPS, batch))
    return (x[:, 0], y[:, 0]) if batch == 1 else (x, y)


def targets(y: np.ndarray) -> list[Any]:
    """Labels of most time steps."""
    return [None if t % 7 == 3 else label for t, label in enumerate(y)]


@pytest.mark.parametrize(("name", "rule"), CASES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_every_step_is_that_of_operations(name: str, rule: str, backend: str, stepped: list[bool]) -> None:
    pytest.importorskip(backend)
    for batch, graded in [(1, False), (3, True)]:
        x, y = data(batch, graded)
        one, other = learner(name, rule, backend, batch), plainly(learner(name, rule, backend, batch))
        for t, label in enumerate(targets(y)):
            np.testing.assert_allclose(one.observe(x[t], label), other.observe(x[t], label), rtol=0, atol=SAME)
            assert one.loss == pytest.approx(other.loss, rel=SAME, nan_ok=True)
            if t % 9 == 0:
                found, wanted = one.rule.model.network.parameters, other.rule.model.network.parameters
                for key, value in wanted.items():
                    np.testing.assert_allclose(found[key], value, rtol=0, atol=SAME)
        assert one.rule.steps == other.rule.steps
        assert set(one.rule.state()) == set(other.rule.state())
        for key, value in other.rule.state().items():
            np.testing.assert_allclose(one.rule.state()[key], value, rtol=0, atol=1e-10, err_msg=key)
    assert stepped
    assert all(stepped)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("rule", ["eprop", "decolle", "etlp"])
def test_some_sequences_have_no_target_and_others_begin_anew(rule: str, backend: str, stepped: list[bool]) -> None:
    pytest.importorskip(backend)
    x, y = data(batch=3)
    y[np.random.default_rng(2).random(y.shape) < 0.5] = -1
    y[7], y[20] = -1, -1
    one, other = (learner("lif", rule, backend, batch=3, online=4) for _ in range(2))
    plainly(other)
    for t in range(STEPS):
        np.testing.assert_allclose(one.observe(x[t], y[t]), other.observe(x[t], y[t]), rtol=0, atol=SAME)
        assert one.loss == pytest.approx(other.loss, rel=SAME, nan_ok=True)
        if t in (9, 17):
            one.reset()
            other.reset()
    assert one.rule.steps == other.rule.steps == int((y >= 0).any(axis=1).sum()) // 4
    for key, value in other.rule.state().items():
        np.testing.assert_allclose(one.rule.state()[key], value, rtol=0, atol=1e-10, err_msg=key)
    assert stepped
    assert all(stepped)


@pytest.mark.parametrize("every", [2, 5])
@pytest.mark.parametrize(("name", "rule"), [("alif", "eprop"), ("layers", "ottt"), ("lif", "fptt")])
def test_changes_every_few_steps(name: str, rule: str, every: int, stepped: list[bool], tmp_path: Path) -> None:
    """What the gradient has come to is handed on, saved in between, and from a chain by events to one by products."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((STEPS, FEATURES)) * 3 * (rng.random((STEPS, FEATURES)) < rng.random((STEPS, 1)))
    _, y = data()
    one, other = learner(name, rule, online=every), plainly(learner(name, rule, online=every))
    for t, label in enumerate(targets(y)):
        np.testing.assert_allclose(one.observe(x[t], label), other.observe(x[t], label), rtol=0, atol=1e-11)
        if t % 6 == 4:
            one.save(tmp_path / "stream")
            one = learner(name, rule, online=every)
            one = plainly(one) if t % 4 else one
            one.load(tmp_path / "stream")
    assert one.rule.steps == other.rule.steps > 0
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < 1e-10
    assert all(stepped)


@pytest.mark.parametrize("rule", ["eprop", "pp_prop"])
def test_inputs_and_neurons_of_every_density(rule: str, stepped: list[bool]) -> None:
    """By events or by products, as every time step has them alone."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((STEPS, FEATURES)) * 3 * (rng.random((STEPS, FEATURES)) < rng.random((STEPS, 1)))
    one, other = learner("lif", rule), plainly(learner("lif", rule))
    for t in range(STEPS):
        found, wanted = one.observe(x[t], t % CLASSES), other.observe(x[t], t % CLASSES)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < 1e-10
    assert one._session is not None
    assert len(one._session._ready) > 1
    assert all(stepped)


def test_a_stream_that_is_stopped_is_where_it_was(stepped: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    one, other = learner("alif", "eprop"), learner("alif", "eprop")
    for t in range(STEPS):
        if t == 14:
            before = one.rule.state()
            with monkeypatch.context() as pressed:

                def stop(self: Session, learns: bool) -> bool:
                    raise KeyboardInterrupt

                pressed.setattr(Session, "_finite", stop)
                with pytest.raises(KeyboardInterrupt):
                    one.observe(x[t], y[t])
            for key, value in one.rule.state().items():
                np.testing.assert_array_equal(value, before[key])
        np.testing.assert_array_equal(one.observe(x[t], y[t]), other.observe(x[t], y[t]))
    assert one.time == other.time
    # Also while what came since is gone through again.
    step = Session._stepped

    def stopped(self: Session, given: Any) -> bool:
        if self._undoing:
            raise KeyboardInterrupt
        return step(self, given)

    for t in range(3):
        with monkeypatch.context() as pressed:
            pressed.setattr(Session, "_finite", lambda self, updating: False)
            pressed.setattr(Session, "_stepped", stopped)
            if one._session is not None and one._session._copy.since:
                with pytest.raises(KeyboardInterrupt):
                    one.observe(x[t], y[t])
        np.testing.assert_array_equal(one.observe(x[t], y[t]), other.observe(x[t], y[t]))


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_other_libraries_take_the_same_steps(backend: str, stepped: list[bool]) -> None:
    """By NumPy's loops, as they do with batches; what they are asked for is theirs."""
    pytest.importorskip(backend)
    x, y = data()
    one, other = learner("alif", "eprop", backend), learner("alif", "eprop")
    for t, label in enumerate(targets(y)):
        np.testing.assert_allclose(one.observe(x[t], label), other.observe(x[t], label), rtol=0, atol=SAME)
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < 1e-10
    values = one.rule.model.network.values
    assert all(one.rule.nx.is_tensor(value) for value in values.values())
    batch = np.ones((4, 20, FEATURES)), np.zeros(4, int)
    before = one.rule.gradients(*batch)
    assert distance(before, other.rule.gradients(*batch)) < 1e-9
    one.observe(x[0], 1)
    assert distance(one.rule.gradients(*batch), before) > 1e-6
    with by_library():
        one.observe(x[1], 1)
    assert stepped.count(True) > STEPS
    assert all(stepped)


def test_a_stream_that_is_taken_up_again_goes_on_bit_for_bit(stepped: list[bool], tmp_path: Path) -> None:
    """Saved at every third step, in a session or before there is one; what was saved is not changed by going on."""
    x, y = data()
    whole = learner("alif", "eprop")
    outputs = [whole.observe(x[t], label) for t, label in enumerate(targets(y))]
    for at in range(2, STEPS, 3):
        first, second = learner("alif", "eprop"), learner("alif", "eprop")
        for t, label in enumerate(targets(y)[:at]):
            first.observe(x[t], label)
        first.save(tmp_path / "stream")
        first.observe(x[at], 1)
        second.load(tmp_path / "stream")
        for t, label in list(enumerate(targets(y)))[at:]:
            np.testing.assert_array_equal(second.observe(x[t], label), outputs[t])
        for key, value in whole.rule.state().items():
            np.testing.assert_array_equal(second.rule.state()[key], value)
    assert stepped


@pytest.mark.parametrize("at", [6, 8, 9, 11, 25])
def test_a_step_that_fails_is_undone(at: int, stepped: list[bool]) -> None:
    """And the stream goes on as if it had not been."""
    x, y = data()

    def rates(step: int) -> float:
        return np.inf if step == at and failing else 0.1

    one, other, failing, own = learner("alif", "eprop"), learner("alif", "eprop"), True, np.zeros(FEATURES)
    for stream in one, other:
        stream.rule.optimizer = SGD(0.1)
        stream.rule._memory = None
    for t in range(STEPS):
        if t == at:
            before = one.rule.state()
            object.__setattr__(one.rule.optimizer, "learning_rate_at", rates)
            with pytest.raises(NonFiniteError):
                one.observe(x[t], y[t])
            failing = False
            for key, value in one.rule.state().items():
                np.testing.assert_array_equal(value, before[key])
        # An array that is filled anew with every input.
        own[:] = x[t]
        found, wanted = one.observe(own, y[t]), other.observe(x[t], y[t])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME)
    assert one.time == other.time == STEPS
    assert stepped.count(False) == 1


def test_whoever_looks_sees_what_is_and_keeps_it(stepped: list[bool]) -> None:
    """Weights that were asked for, a clone and another learner do not change with the stream."""
    x, y = data()
    one = learner("lif", "ottt")
    for t in range(10):
        one.observe(x[t], y[t])
    network = one.rule.model.network
    values, state = dict(network.values), one.rule.state()
    twin = one.rule.clone()
    for t in range(10, 20):
        one.observe(x[t], y[t])
    for key, value in values.items():
        np.testing.assert_array_equal(value, state[f"parameters/{key}"])
        assert not np.array_equal(value, network.parameters[key])
    for key, value in twin.state().items():
        np.testing.assert_array_equal(value, state[key])
    assert all(stepped)


def test_weights_that_somebody_sets_are_those_that_go_on(stepped: list[bool]) -> None:
    x, y = data()
    one, other = learner("lif", "eprop"), plainly(learner("lif", "eprop"))
    for stream in one, other:
        for t in range(STEPS):
            if t == 12:
                network = stream.rule.model.network
                network.set_parameters({name: 0.5 * value for name, value in network.parameters.items()})
            if t == 20:
                stream.rule.step(x[None, :20], y[:1])
            stream.observe(x[t], y[t])
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < SAME
    one.reset()
    other.reset()
    np.testing.assert_allclose(one.observe(x[0], 1), other.observe(x[0], 1), rtol=0, atol=SAME)
    assert all(stepped)


def test_a_copy_goes_on_by_itself(stepped: list[bool]) -> None:
    x, y = data()
    one = learner("alif", "eprop")
    for t in range(12):
        one.observe(x[t], y[t])
    before = one.rule.state()
    other = copy.deepcopy(one)
    for t in range(12, 20):
        other.observe(x[t], y[t])
    for key, value in one.rule.state().items():
        np.testing.assert_array_equal(value, before[key])
    for t in range(12, 20):
        one.observe(x[t], y[t])
    for key, value in one.rule.state().items():
        np.testing.assert_array_equal(value, other.rule.state()[key])
    assert all(stepped)


def test_a_first_step_that_is_stopped_leaves_no_traces(
    stepped: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory of a session that had no time step yet is anything; here it is filled with sevens."""
    monkeypatch.setattr(chained_pass.BUFFERS, "empty", lambda shape, dtype: np.full(shape, 7, dtype))
    x, y = data()
    one, other = learner("alif", "eprop"), plainly(learner("alif", "eprop"))
    for stream in one, other:
        for t in range(8):
            stream.observe(x[t], y[t])
        stream.reset()
    with monkeypatch.context() as pressed:

        def stop(self: Session, updating: bool) -> bool:
            raise KeyboardInterrupt

        pressed.setattr(Session, "_finite", stop)
        with pytest.raises(KeyboardInterrupt):
            one.observe(x[0], y[0])
    one.save(tmp_path / "stream")
    one = plainly(learner("alif", "eprop"))
    one.load(tmp_path / "stream")
    for t in range(10):
        np.testing.assert_allclose(one.observe(x[t], y[t]), other.observe(x[t], y[t]), rtol=0, atol=SAME)
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < SAME


def test_penalties_that_come_later_see_the_rates_since_then(stepped: list[bool], tmp_path: Path) -> None:
    """Whichever way the time steps before went; and those of a stream that is saved go on."""
    x, y = data()
    one, other = learner("lif", "eprop"), plainly(learner("lif", "eprop"))
    for t in range(STEPS):
        for stream in one, other:
            if t == 14:
                stream.rule.regularizers = (FiringRate(target=20.0),)
            stream.observe(x[t], y[t])
        if t == 20:
            one.save(tmp_path / "stream")
            one = learner("lif", "eprop", regularizers=[FiringRate(target=20.0)])
            one.load(tmp_path / "stream")
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) < SAME
    assert len(stepped) == 14 - 5


def test_two_learners_of_one_rule_take_turns(stepped: list[bool]) -> None:
    x, y = data()
    pairs = []
    for way in (lambda stream: stream, plainly):
        first = learner("lif", "eprop")
        second = first.rule.stream()
        way(first)
        way(second)
        for t in range(STEPS):
            first.observe(x[t], y[t])
            second.observe(x[-t], y[-t])
        pairs.append(first.rule.model.network.parameters)
    assert distance(*pairs) < SAME
    assert all(stepped)


@pytest.mark.parametrize("fault", ["no memory of the step before", "no update", "matrices that do not follow"])
def test_faults_are_seen(fault: str, stepped: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in what a chain is called with."""
    x, y = data()
    made = Session._made

    def wrong(self: Session, *given: Any) -> Any:
        ready = made(self, *given)
        assert ready is not None
        names = {name: place for place, name in enumerate(ready.links.chain.given)}
        if fault == "no memory of the step before":
            ready.put(before=False)
            del ready.places["before"]
        if fault == "matrices that do not follow":
            for name in ready.links.handed.follows:
                ready.given[names[name]] = False
        if fault == "no update":
            ready.addresses[ready.links.update] = links_nothing(ready)
        return ready

    def links_nothing(ready: Any) -> int:
        return int(ready.links.chain.addresses[ready.links.update])

    monkeypatch.setattr(Session, "_made", wrong)
    which = ("alif", "eprop") if fault == "no memory of the step before" else ("layers", "ottt")
    one, other = learner(*which), plainly(learner(*which))
    for t in range(STEPS):
        one.observe(x[t], y[t])
        other.observe(x[t], y[t])
    assert stepped
    assert distance(one.rule.model.network.parameters, other.rule.model.network.parameters) > 1e-6


@pytest.mark.parametrize("rule", ["eprop", "fptt"])
@pytest.mark.parametrize(
    "options",
    [{"weight_decay": 0.1}, {"clipping": {"name": "value", "limit": 1e-3}}, {"rate_factors": {"hidden": 0.5}}],
)
def test_decay_clipping_and_rate_factors(rule: str, options: dict[str, Any], stepped: list[bool]) -> None:
    x, y = data()
    one, other, plain = learner("lif", rule, **options), plainly(learner("lif", rule, **options)), learner("lif", rule)
    for t in range(STEPS):
        for each in (one, other, plain):
            each.observe(x[t], y[t])
    assert all(stepped)
    found = one.rule.model.network.parameters
    assert distance(found, other.rule.model.network.parameters) < SAME
    assert distance(found, plain.rule.model.network.parameters) > 1e-6


def test_what_has_no_chain_goes_by_operations(stepped: list[bool]) -> None:
    """Penalties, feedback that learns: a session is not for them."""
    x, y = data()
    for options in ({"regularizers": ["firing_rate"]}, {"mode": "adaptive"}):
        stream = learner("lif", "eprop", **options)
        for t in range(12):
            stream.observe(x[t], y[t])
    assert not stepped


def test_a_short_stream_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain is made once a stream has been as long as a batch for which one is."""
    begun: list[int] = []
    init = Session.__init__
    monkeypatch.setattr(Session, "__init__", lambda self, *given: (begun.append(1), init(self, *given))[1])
    x, y = data()
    stream = learner("lif", "ottt")
    for t in range(STEPS):
        stream.observe(x[t], y[t])
    assert not begun
    stream._seen = 10_000
    stream.observe(x[0], y[0])
    assert begun
