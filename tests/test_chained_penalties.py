"""Penalties within a sequence: chains that go through windows give what the engine gives by operations."""

from __future__ import annotations

import _thread
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from chain_cases import EXAMPLES, PENALISED, PENALTIES, STEPS, Bursts, Leaning, data, groups, layers, same_weights
from credit_cases import distance

from neko_rules import Evaluator, Network
from neko_rules.chains import running
from neko_rules.kernels.asking import Question, ask
from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.host import unfused
from neko_rules.optimizers import SGD
from neko_rules.regularizers import FiringRate
from neko_rules.rules import penalties, rule_of
from neko_rules.rules.linking_window import LinkingWindow

__all__ = ["groups"]  # a fixture

SAME = 1e-12
EVERY = 6
"""Time steps of a window; the last one has two."""

NETWORKS: dict[str, Callable[[], Network]] = {
    **PENALISED,
    "one that leaks": lambda: layers(24),
    "on PyTorch": lambda: layers(24, backend="torch"),
    "no recurrence": lambda: layers(16, recurrent=False),
    "a wide population": lambda: layers(70),
}
# What an output that spikes, or a second layer, remembers for e-prop is of every output: there is no chain.
ONLINE = [(name, rule) for name in NETWORKS for rule in ("eprop", "ottt") if name not in PENALISED or rule == "ottt"]
ONLINE.append(("a readout above", "eprop"))


def taught(network: Network, rule: str, penalised: Sequence[Any] = PENALTIES["a rate"], **options: Any) -> Any:
    given = {"optimizer": SGD(0.3), "regularizers": penalised, **options}
    return rule_of(Evaluator(network, metrics=["accuracy", "firing_rate"]), {"name": rule, **given})


def learned(network: str, rule: str, **options: Any) -> dict[str, np.ndarray]:
    """Weights after two steps by chains: these, and the figures, are those by operations."""
    if network == "on PyTorch":
        pytest.importorskip("torch")
    return same_weights(lambda: taught(NETWORKS[network](), rule, **options), *data())


@pytest.mark.parametrize("every", [EVERY, 1])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("network", "rule"), ONLINE)
def test_penalties_online(network: str, rule: str, penalty: str, every: int, groups: list[Any]) -> None:
    """Every time step has the rates so far; traces that are filtered by what is above meet nothing of them."""
    found = learned(network, rule, penalised=PENALTIES[penalty], online=every)
    assert len(groups) >= 2 * -(-STEPS // every), "a chain for every window, or nothing is tested"
    without = learned(network, rule, penalised=[], online=every)
    assert distance(found, without) > 1e-6, "or the penalty does nothing here"


@pytest.mark.parametrize("window", [EVERY, 1])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("network", PENALISED)
def test_penalties_of_windows(network: str, penalty: str, window: int, groups: list[Any]) -> None:
    found = learned(network, "truncated_bptt", penalised=PENALTIES[penalty], window=window)
    assert len(groups) >= 2 * -(-STEPS // window)
    without = learned(network, "truncated_bptt", penalised=[], window=window)
    assert distance(found, without) > 1e-6


def test_gradients_of_windows(groups: list[Any]) -> None:
    x, y = data()
    rule = taught(layers(16, 12), "truncated_bptt", window=EVERY)
    found = rule.gradients(x, y)
    assert groups
    with unfused():
        assert distance(found, rule.gradients(x, y)) < SAME


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"clipping": {"name": "norm", "limit": 0.05}}])
def test_updates_that_are_more_than_the_optimisers(options: dict[str, Any], groups: list[Any]) -> None:
    """They are part of its loop, which windows have between them all the same."""
    learned("one that leaks", "eprop", online=EVERY, **options)
    assert groups


def test_populations_that_fire_much(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is begun anew by a chain that multiplies, before it has asked."""
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    learned("one that leaks", "eprop", online=EVERY)
    assert {"hidden" in walked for walked in groups} == {True, False}


def test_several_threads_leave_a_window_to_one(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are of all examples: none of them may go back before all went forward."""
    monkeypatch.setattr(running, "parts", lambda batch, work: [(0, 5), (5, batch)])
    learned("one that leaks", "eprop", online=EVERY)
    assert groups


@pytest.mark.parametrize("penalty", ["a rate", "a rate and membranes"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_stream(backend: str, penalty: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of every example go on from time steps that came by themselves, and beyond their horizon."""
    pytest.importorskip(backend)
    monkeypatch.setattr(penalties, "HORIZON", 7)
    x, y = data()
    x = x.transpose(1, 0, 2)
    made = (taught(layers(24, backend=backend), "eprop", PENALTIES[penalty], online=True) for _ in range(2))
    many, single = (rule.stream(len(y)) for rule in made)
    wanted = np.stack([single.observe(each, y) for each in x])
    parts = [np.stack([many.observe(each, y) for each in x[:4]]), many.observe_many(x[4:9], [y] * 5)]
    parts.append(many.observe_many(x[9:17], [y] * 8))
    assert len(groups) >= 13
    parts.append(np.stack([many.observe(each, y) for each in x[17:]]))
    assert distance({"": np.concatenate(parts)}, {"": wanted}) < SAME
    assert distance(many.rule.state(), single.rule.state()) < SAME


FAULTS = (
    "no penalty",
    "the rates of now",
    "rates of half of the batch",
    "rates of one window",
    "filtered traces meet it",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in what is asked for, and in where it goes."""
    fill, begun = penalties.OfRatesSoFar.fill, []

    def wrong(self: Any, fired: Any, pushes: Any) -> None:
        if fault == "rates of half of the batch":
            fired = {name: np.repeat(z[:, : EXAMPLES // 2], 2, axis=1) for name, z in fired.items()}
        begun.append(self.now)
        if fault == "rates of one window":
            self.now = begun[0]
        fill(self, fired, pushes)
        if fault == "the rates of now":
            self.now = self.now._replace(clock=np.zeros(()))
        for push in pushes.values():
            push *= fault != "no penalty"

    push = LinkingWindow._push

    def met(self: Any, name: str) -> None:
        push(self, name)
        if fault == "filtered traces meet it":
            self._before_push.clear()

    monkeypatch.setattr(penalties.OfRatesSoFar, "fill", wrong)
    monkeypatch.setattr(LinkingWindow, "_push", met)
    with pytest.raises(AssertionError):
        learned("one that leaks", "eprop", online=EVERY)
    assert groups


def test_a_wrong_share_of_bounds_is_seen(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: bounds of membranes as if the sequence were twice as long."""
    share = penalties.Penalties.share
    monkeypatch.setattr(penalties.Penalties, "share", lambda self, examples: share(self, 2 * examples))
    with pytest.raises(AssertionError):
        learned("one that leaks", "eprop", penalised=PENALTIES["membranes"], online=EVERY)
    assert groups


def test_what_a_penalty_raises_is_raised(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled loops know of no exceptions: the step raises it, and leaves everything as it was."""
    x, y = data()
    rule = taught(layers(24), "eprop", online=EVERY)
    rule.step(x, y)
    before, slope = rule.state(), FiringRate._slope

    def refused(self: Any, nx: Any, rates: Any, dt: float) -> Any:
        if rates.any():
            raise ZeroDivisionError
        return slope(self, nx, rates, dt)

    with monkeypatch.context() as planted:
        planted.setattr(FiringRate, "_slope", refused)
        with pytest.raises(ZeroDivisionError):
            rule.step(x, y)
    assert groups
    for name, value in rule.state().items():
        np.testing.assert_array_equal(value, before[name])
    rule.step(x, y)


def test_a_question_is_not_asked_again_after_it_failed() -> None:
    asked: list[int] = []

    def failing() -> None:
        asked.append(len(asked))
        raise ZeroDivisionError

    question = Question(failing)
    ask(question.address, question.asked)
    ask(question.address, question.asked)
    with pytest.raises(ZeroDivisionError):
        question.check()
    assert asked == [0]


@kernel
def _ask_later(rounds: int, address: int, asked: np.ndarray) -> float:
    total = 1.0
    for k in range(rounds):
        total = total * 0.5 + k
    ask(address, asked)
    return total


def test_an_interrupt_while_a_kernel_runs_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before the function's first statement, where nobody can hear of it."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    answers: list[int] = []
    question = Question(lambda: answers.append(1))
    _ask_later(1, question.address, question.asked)
    question.check()
    timer = threading.Timer(0.05, _thread.interrupt_main)
    timer.start()
    # Two seconds: it fails where another thread is not run for as long.
    _ask_later(1_000_000_000, question.address, question.asked)
    timer.join()
    with pytest.raises(KeyboardInterrupt):
        question.check()
    assert len(answers) == 1


def test_a_question_keeps_nothing_alive() -> None:
    """Memory that is lent for a step comes back with it, and not when cycles are looked for."""

    class Held:
        def __call__(self) -> None: ...

    held = Held()
    gone, question = weakref.ref(held), Question(held)
    ask(question.address, question.asked)
    gc.disable()
    try:
        del held, question
        assert gone() is None
    finally:
        gc.enable()


def test_a_penalty_of_a_users_goes_step_by_step(groups: list[Any]) -> None:
    """A subclass that makes more of the rates so far than their slope, as it may."""

    for own in (Bursts(), Leaning()):
        learned("one that leaks", "eprop", penalised=[own], online=EVERY)
    assert not groups
