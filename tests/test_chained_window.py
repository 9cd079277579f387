"""Windows by a chain: time steps between two changes of the weights give what the engine gives by operations."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from chain_cases import (
    GROUP,
    NETWORKS,
    ONLINE,
    STEPS,
    Halved,
    data,
    exciting_each_other,
    groups,
    layers,
    passes,
    same_weights,
)
from credit_cases import distance

from neko_rules import Evaluator, Network
from neko_rules.chains import running
from neko_rules.chains.running import numbers_of_a_step
from neko_rules.errors import NonFiniteError
from neko_rules.kernels import filtering
from neko_rules.kernels.chain import Chain
from neko_rules.kernels.host import unfused
from neko_rules.optimizers import SGD
from neko_rules.rules import FPTT, EProp, chained_pass, rule_of, updates

__all__ = ["groups", "passes"]  # fixtures

pytestmark = pytest.mark.usefixtures("passes")

SAME = 1e-12
EVERY = 6
"""Time steps of a window; the last one has two."""


def taught(network: Network, rule: str, **options: Any) -> Any:
    of_spikes = ["firing_rate"] if network.spiking else []
    model = Evaluator(network, metrics=["accuracy", *of_spikes])
    return rule_of(model, {"name": rule, "optimizer": SGD(0.3), **options})


LATE = "an input that is late"


@pytest.mark.parametrize("every", [EVERY, 1])
@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, (_, rules) in ONLINE.items() for rule in rules])
def test_online_learning_by_a_chain(name: str, rule: str, every: int, groups: list[Any]) -> None:
    if "PyTorch" in name:
        pytest.importorskip("torch")
    make = ONLINE[name][0]
    x, y = data()
    x = x[:, :, : make().inputs]
    same_weights(lambda: taught(make(), rule, online=every), x, y)
    assert len(groups) >= 2 * -(-STEPS // every), "a chain for every window, or nothing is tested"


@pytest.mark.parametrize(("kind", "rule"), list(product(["graded", "dense"], ["eprop", "ottt"])))
def test_traces_of_inputs_of_every_kind(kind: str, rule: str, groups: list[Any]) -> None:
    x, y = data(kind)
    same_weights(lambda: taught(layers(24), rule, online=EVERY), x, y)
    assert {("input" in walked) for walked in groups} == {kind == "graded"}


@pytest.mark.parametrize("rule", ["eprop", "ottt"])
def test_an_input_whose_first_examples_are_all_ones(
    rule: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says nothing about the others: all of them are looked at."""
    # Of so few senders events may be worth it at any density.
    monkeypatch.setattr(running, "crossover", lambda senders: 0.5)
    rng = np.random.default_rng(0)
    _, y = data()
    x = (rng.random((len(y), STEPS, 7)) < 0.9) * 1.0
    x[GROUP:] *= rng.random(x[GROUP:].shape)
    same_weights(lambda: taught(layers(24), rule, online=EVERY), x, y)
    assert not any("input" in walked for walked in groups)


# Where every step is a window no error reaches what sends a step late.
WINDOWS = [
    (name, window) for name in NETWORKS for window in (EVERY, 1) if (name, window) != ("layers that are late", 1)
]


@pytest.mark.parametrize(
    ("name", "window"), [each for each in WINDOWS if each[0] not in ("mean output", "largest output", LATE)]
)
def test_windows_by_a_chain(name: str, window: int, groups: list[Any]) -> None:
    if name == "on PyTorch":
        pytest.importorskip("torch")
    x, y = data()
    same_weights(lambda: taught(NETWORKS[name][0](), "truncated_bptt", window=window), x, y)
    assert groups


class Doubled(SGD):
    """An optimiser of a user's, whose change has a compiled loop as any other."""

    def _change(self, nx: Any, g: Any, memory: Any, p: Any, rate: Any, t: Any) -> Any:
        return 2 * super()._change(nx, g, memory, p, rate, t)[0], ()


UPDATES: dict[str, tuple[bool, dict[str, Any]]] = {
    "adam": (True, {"optimizer": {"name": "adam", "learning_rate": 0.01}}),
    "an optimiser of a user's": (True, {"optimizer": Doubled(0.1)}),
    "a schedule": (True, {"optimizer": SGD({"name": "step_decay", "initial": 0.3, "rate": 0.5, "steps": 2})}),
    "decay": (True, {"weight_decay": 0.1}),
    "rate factors": (True, {"weight_decay": 0.1, "rate_factors": {"hidden.recurrent": 0, "readout": 3}}),
    "clipping": (True, {"clipping": {"name": "value", "limit": 0.002}}),
    "clipping of norms": (True, {"clipping": {"name": "norm", "limit": 0.05}}),
    "clipping of all": (True, {"clipping": {"name": "global_norm", "limit": 0.05}, "weight_decay": 0.1}),
    "a clipping of a user's": (False, {"clipping": Halved(1.0)}),
    "feedback that learns": (False, {"mode": "adaptive"}),
    "feedback that mirrors": (False, {"mode": "mirror"}),
}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_every_kind(name: str, backend: str, groups: list[Any]) -> None:
    """By the loop of an update between two windows of one chain, or by the rule where it does more."""
    pytest.importorskip(backend)
    plain, options = UPDATES[name]
    x, y = data()
    assert taught(layers(24), "eprop", online=EVERY, **options).updates_plainly == plain
    same_weights(lambda: taught(layers(24, backend=backend), "eprop", online=EVERY, **options), x, y)
    assert groups


def test_a_rule_that_changes_updates_is_asked(groups: list[Any]) -> None:
    """What a subclass makes of an update is what is kept."""

    class Half(EProp):
        def applied(self, values: Any, *others: Any) -> Any:
            kept = super().applied(values, *others)
            return kept._replace(values={name: 0.5 * (kept.values[name] + values[name]) for name in values})

    class Held(FPTT):
        """As one that has a loop of its own, which knows nothing of this."""

        applied = Half.applied

    x, y = data()
    assert taught(layers(24), "fptt").updates_plainly
    assert not Held(Evaluator(layers(24))).updates_plainly
    optimizer = {"name": "sgd", "learning_rate": 0.3}
    same_weights(lambda: Half(Evaluator(layers(24)), optimizer=optimizer, online=EVERY), x, y)
    half, whole = (make(Evaluator(layers(24)), optimizer=optimizer, online=EVERY) for make in (Half, EProp))
    for rule in half, whole:
        rule.step(x, y)
    assert groups
    assert distance(half.model.network.parameters, whole.model.network.parameters) > 1e-3


def test_a_step_that_is_refused_leaves_everything_as_it_was(groups: list[Any]) -> None:
    """What the first of four updates makes of the weights, the others make worse."""
    x, y = data()
    rule = taught(layers(24), "eprop", online=EVERY)
    rule.step(x, y)
    before = rule.state()
    rule.optimizer = SGD(1e308)
    with pytest.raises(NonFiniteError):
        rule.step(x, y)
    assert groups
    for name, value in rule.state().items():
        np.testing.assert_array_equal(value, before[name])


STREAMS = [(name, rule) for name, (_, rules) in ONLINE.items() for rule in rules if "last output" not in name]


@pytest.mark.parametrize(("name", "rule"), STREAMS)
def test_a_stream_by_a_chain(name: str, rule: str, groups: list[Any]) -> None:
    """Many time steps at once, twice, and then one by one, beside one by one from the beginning."""
    if "PyTorch" in name:
        pytest.importorskip("torch")
    make = ONLINE[name][0]
    x, y = data()
    x = x.transpose(1, 0, 2)[:, :, : make().inputs]
    many, single = (taught(make(), rule, online=True).stream(batch_size=len(y)) for _ in range(2))
    wanted = np.stack([single.observe(each, y) for each in x])
    assert not groups, "a single time step has no chain"
    parts = [many.observe_many(x[:9], [y] * 9)]
    before = many.rule.state()
    parts.append(many.observe_many(x[9:17], [y] * 8))
    assert len(groups) >= 17
    parts.append(np.stack([many.observe(each, y) for each in x[17:]]))
    assert distance({"": np.concatenate(parts)}, {"": wanted}) < SAME
    assert many.loss == pytest.approx(single.loss, rel=SAME)
    assert (many.time, many.rule.steps) == (single.time, single.rule.steps)
    assert distance(many.rule.state(), single.rule.state()) < SAME
    assert distance(many.rule.state(), before) > 1e-3


def test_a_stream_that_is_refused_is_as_it_was(groups: list[Any]) -> None:
    x, y = data()
    x = x.transpose(1, 0, 2)
    many, other = (taught(layers(24), "eprop", online=True).stream(batch_size=len(y)) for _ in range(2))
    for each in many, other:
        each.observe_many(x[:6], [y] * 6)
    optimizer, many.rule.optimizer = many.rule.optimizer, SGD(1e308)
    with pytest.raises(NonFiniteError):
        many.observe_many(x[6:12], [y] * 6)
    many.rule.optimizer = optimizer
    assert groups
    for each in many, other:
        each.observe_many(x[6:12], [y] * 6)
    for name, value in other.rule.state().items():
        np.testing.assert_array_equal(value, many.rule.state()[name])


def test_gradients_of_windows_add_up(groups: list[Any]) -> None:
    x, y = data()
    rule = taught(layers(16, 12, cell="alif"), "truncated_bptt", window=EVERY)
    found = rule.gradients(x, y)
    assert groups
    with unfused():
        assert distance(found, rule.gradients(x, y)) < SAME


def test_populations_that_fire_much_and_labels_of_single_steps(
    groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    x, _ = data()
    y = np.random.default_rng(1).integers(-1, 3, size=(len(x), STEPS))
    same_weights(lambda: taught(layers(24), "eprop", online=EVERY), x, y)
    assert {"hidden" in walked for walked in groups} == {True, False}


@pytest.mark.parametrize("options", [{"rule": "eprop", "online": EVERY}, {"rule": "truncated_bptt", "window": EVERY}])
def test_a_batch_is_gone_through_alike_after_any_other(
    options: dict[str, Any], groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in which a population fires much says nothing of the next; a rule that was resumed knows of neither."""
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    x, y = data()
    rule, resumed = taught(layers(24), **options), taught(layers(24), **options)
    rule.step(x, y)
    resumed.load_state(rule.state())
    assert {"hidden" in walked for walked in groups} == {True, False}
    quiet, ways = x * (np.arange(STEPS) == 3)[:, None], []
    for each in rule, resumed:
        groups.clear()
        each.step(quiet, y)
        ways.append(list(groups))
    assert ways[0] == ways[1]
    assert any("hidden" in walked for walked in ways[0])
    for name, value in rule.state().items():
        np.testing.assert_array_equal(value, resumed.state()[name])


def test_gradients_of_windows_before_one_that_is_begun_anew_count(
    groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a window in the middle a population fires too much for the chain that added up those before."""
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    x, y = data()
    x = x * (np.arange(STEPS) >= 2 * EVERY)[:, None]
    rule = taught(layers(24), "truncated_bptt", window=EVERY)
    network = rule.model.network
    # Before it fires at all, errors reach what depends on membranes alone.
    network.set_parameters({"hidden.bias": np.full(24, 0.01), "readout.bias": np.arange(3) / 3})
    found = rule.gradients(x, y)
    assert ["hidden" in walked for walked in groups][:2] == [True, True]
    assert ["hidden" in walked for walked in groups][-1:] == [False]
    with unfused():
        assert distance(found, rule.gradients(x, y)) < SAME


def test_windows_of_inputs_that_are_late_go_by_operations(groups: list[Any]) -> None:
    x, y = data()
    same_weights(lambda: taught(NETWORKS[LATE][0](), "truncated_bptt", window=EVERY), x, y)
    assert not groups


def test_windows_of_populations_that_feed_back_to_each_other(groups: list[Any]) -> None:
    x, y = data()
    same_weights(lambda: taught(exciting_each_other(x.shape[2]), "truncated_bptt", window=EVERY), x, y)
    assert groups


def test_a_short_sequence_has_no_chain(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WORTHWHILE", 1 << 30)
    x, y = data()
    same_weights(lambda: taught(layers(24), "eprop", online=EVERY), x, y)
    assert not groups


def test_short_sequences_have_one_when_they_were_many(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As does a rule that goes on from a saved state: its steps say how many they were."""
    x, y = data()
    rule = rule_of(Evaluator(layers(24)), {"name": "bptt"})
    rule.model.check(x, y)
    once = x.shape[1] * x.shape[0] * (numbers_of_a_step(rule.model.network.graph) + x.shape[2]) * 8
    monkeypatch.setattr(running, "WORTHWHILE", 3 * once)
    rule.step(x, y)
    rule.step(x, y)
    assert not groups
    state = rule.state()
    rule.step(x, y)
    assert groups
    del groups[:]
    other = rule_of(Evaluator(layers(24)), {"name": "bptt"})
    other.load_state(state)
    other.step(x, y)
    assert groups
    for name, value in rule.state().items():
        np.testing.assert_array_equal(other.state()[name], value)


HANDED = ("traces are not handed on", "no start", "the first signal is not met", "never begun", "always the last")
CHANGED = ("no updates", "only the first update", "gradients that add up", "matrices that do not follow")


@pytest.mark.parametrize("looped", [True, False])
@pytest.mark.parametrize("rule", ["eprop", "ottt", "pp_prop", "truncated_bptt"])
def test_windows_by_one_call_are_those_one_by_one(
    rule: str, looped: bool, groups: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that makes the updates, or one that waits for them; the last window is shorter in both."""
    calls: list[tuple[int, int]] = []
    run = chained_pass._Pass._run

    def counting(self: Any, links: Any, plan: Any, every: Any, windows: Any, *others: Any) -> Any:
        calls.append(windows[:2])
        return run(self, links, plan, every, windows, *others)

    monkeypatch.setattr(chained_pass._Pass, "_run", counting)
    if not looped:
        monkeypatch.setattr(updates.LearningPlainly, "looped", lambda self, links: False)
    x, y = data()
    which = {"window": EVERY} if rule == "truncated_bptt" else {"online": EVERY}
    same_weights(lambda: taught(layers(24), rule, **which), x, y)
    assert calls == 2 * ([(0, 3), (0, 1)] if looped else [(0, 1), (1, 2), (2, 3), (0, 1)])


@pytest.mark.parametrize("few", [0.04, 0.5])
@pytest.mark.parametrize("rule", ["eprop", "ottt"])
def test_windows_by_several_threads(rule: str, few: float, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one of them finds more spikes than the chain was made for, and others have gone on."""
    monkeypatch.setattr(running, "crossover", lambda senders: few)
    monkeypatch.setattr(running, "parts", lambda batch, work: [(0, 5), (5, batch)])
    x, y = data()
    same_weights(lambda: taught(layers(24), rule, online=EVERY), x, y)
    assert {"hidden" in walked for walked in groups} == ({True, False} if few < 0.1 else {True})


@pytest.mark.parametrize("fault", HANDED + CHANGED)
def test_faults_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what would leave out the time steps before a window, or the update between two."""
    x, y = data()
    handed, changes = chained_pass.Carried.handed, updates.LearningPlainly.changes
    arguments = chained_pass.arguments

    def wrong(self: Any, links: Any, looped: bool) -> dict[str, Any]:
        found = handed(self, links, looped)
        for argument, (what, _) in links.handed.traces.items():
            if what == "after" and fault == "traces are not handed on":
                found[argument] = np.zeros_like(found[argument])
        for argument in links.handed.starts:
            if fault == "no start":
                found[argument] = np.zeros_like(found[argument])
        return found

    def constant(links: Any, *others: Any) -> dict[str, Any]:
        found = arguments(links, *others)
        for argument, (what, _) in links.handed.traces.items():
            if what == "kappa" and fault == "the first signal is not met":
                found[argument] = 0 * found[argument]
        return found

    def changed(self: Any, links: Any, gradients: Any, looped: bool) -> Any:
        found = changes(self, links, gradients, looped)
        given = dict(found.given)
        if fault == "no updates":
            given["updating"] = False
        elif fault == "only the first update":
            given["rates"] = given["rates"] * (np.arange(len(given["rates"])) == 0)
        elif fault == "gradients that add up":
            given["adding"] = True
        elif fault == "matrices that do not follow":
            given |= dict.fromkeys(links.handed.follows, False)
        return found._replace(given=given)

    def flags(name: str, expression: str, flag: Any = Chain.flag) -> Any:
        planted = {"begun": "never begun", "kept": "always the last"}.get(name)
        return lambda self: flag(self, name, "false" if planted == fault else expression)

    monkeypatch.setattr(chained_pass.Carried, "handed", wrong)
    monkeypatch.setattr(chained_pass, "arguments", constant)
    monkeypatch.setattr(updates.LearningPlainly, "changes", changed)
    monkeypatch.setattr(Chain, "flag", lambda self, name, expression: flags(name, expression)(self))
    with pytest.raises(AssertionError):
        same_weights(lambda: taught(layers(24), "eprop", online=EVERY), x, y)
    assert groups


@pytest.mark.parametrize("fault", ["emitted", "wide", "last", "filter"])
def test_faults_of_adaptive_neurons_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: traces of adaptive thresholds without what went before, or without what happens now."""
    x, y = data()
    handed, arguments = chained_pass.Carried.handed, chained_pass.arguments

    def without(links: Any, found: dict[str, Any]) -> dict[str, Any]:
        for argument, (what, _) in links.handed.traces.items():
            if what == fault and argument in found:
                found[argument] = np.zeros_like(found[argument])
        return found

    monkeypatch.setattr(
        chained_pass.Carried, "handed", lambda self, links, *of: without(links, handed(self, links, *of))
    )
    monkeypatch.setattr(chained_pass, "arguments", lambda links, *of: without(links, arguments(links, *of)))
    with pytest.raises(AssertionError):
        same_weights(lambda: taught(layers(24, cell="alif"), "eprop", online=EVERY), x, y)
    assert groups


def test_filtered_events_meet_the_first_signal_while_they_are_at_hand() -> None:
    """ē_T and Σ_b κ G_b ē_0 by the loop, and by sums."""
    rng = np.random.default_rng(0)
    steps, batch, pre, post, kappa, leak = 4, 7, 5, 6, 0.7, 0.9
    z = (rng.random((steps, batch, pre)) < 0.4) * 1.0
    index, count = np.zeros((steps, batch, pre), np.uint16), np.zeros((steps, batch), np.int32)
    for t, b in np.ndindex(steps, batch):
        fired = np.flatnonzero(z[t, b])
        index[t, b, : len(fired)], count[t, b] = fired, len(fired)
    before, begin, signal = rng.random((batch, pre, post)), rng.random((batch, pre)), rng.random((batch, post))
    slope = rng.random((steps, batch, post))
    chi = filtering.back_filtered(kappa, leak, 1.0, slope)
    nothing, eligible, traces = np.empty((0, 0, 0)), begin, np.zeros_like(before)
    for t in range(steps):
        eligible = (leak * eligible if t else begin) + z[t]
        traces = kappa * traces + eligible[:, :, None] * slope[t][:, None, :]
    given = kappa**steps, begin, chi[0], index, count, nothing, True, chi
    for begun, kept in np.ndindex(2, 2):
        total, held = np.zeros((pre, post)), before.copy() if begun else np.full_like(before, np.nan)
        filtering.meet_and_filter(0, batch, bool(begun), bool(kept), *given, held, kappa, signal, total)
        np.testing.assert_allclose(total, begun * kappa * np.einsum("bj,bij->ij", signal, before), rtol=SAME)
        if kept:
            np.testing.assert_allclose(held, begun * kappa**steps * before + traces, rtol=SAME)
