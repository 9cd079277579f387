"""Conformance of a learning rule: what trainers, comparisons and checkpoints take for granted of every rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neko_rules.evaluator import Evaluator
from neko_rules.layers.models import Layer, Stack
from neko_rules.rules.plain_update import UpdatedByLoop
from neko_rules.rules.rule import Rule
from neko_rules.testing.failures import Failures, installed

Make = Callable[..., Rule]
"""A model, and perhaps ``optimizer=…``, to a rule: the class itself, or a function that gives it arguments."""

Arrays = dict[str, np.ndarray]


def check_rule(
    make: Make,
    network: Callable[[str], Any] | None = None,
    backends: Sequence[str] | None = None,
    *,
    equals: Make | None = None,
    averages: bool = True,
    tolerance: float = 1e-10,
) -> None:
    """Prove a learning rule on a small spiking network.

    Args:
        make: from an Evaluator (and an ``optimizer``) to the rule: the class, or for example
            ``lambda model, **options: EProp(model, mode="random", **options)``.
        network: backend name → float64 Network with 4 input features and 3 classes; by default a recurrent layer of
            ALIF neurons.
        backends: names; all built-in ones that are installed by default.
        equals: a rule whose gradient this one's must be on that network, as an identity claims.
        averages: whether the gradient of a batch is the mean of those of its parts.
        tolerance: largest relative difference of an equality, in float64.

    Raises:
        AssertionError: it lists every equation that broke, and both sides.

    Example:
        >>> from neko_rules import BPTT, EProp
        >>> check_rule(EProp, backends=["numpy"])
        >>> class Doubled(BPTT):
        ...     def _judged_gradients(self, values, own, drawn, batch):
        ...         judgement, found = super()._judged_gradients(values, own, drawn, batch)
        ...         return judgement, {name: 2 * value for name, value in found.items()}
        >>> check_rule(Doubled, backends=["numpy"], equals=BPTT)
        Traceback (most recent call last):
        AssertionError: rule Doubled fails 5 checks:
        - gradient of hidden.input.weight = that of BPTT, on numpy: ...
    """
    build = _usual if network is None else network
    x, y = _data()
    names = installed(backends)
    rule = make(Evaluator(build(names[0])))
    failures = Failures("rule", rule)
    failures.where = f"on {names[0]}"
    truth = _check_gradients(failures, rule, x, y)
    if not failures.found:
        _check_step(failures, make, build(names[0]), x, y)
        _check_state(failures, make, build, names[0], x, y)
        if averages and not rule._draw(x.shape[1], len(x)):
            _check_average(failures, rule, x, y, truth, tolerance)
        if equals is not None:
            other = equals(Evaluator(build(names[0])))
            for name, value in other.gradients(x, y).items():
                equation = f"gradient of {name} = that of {type(other).__name__}"
                failures.equal(equation, truth[name], value, rtol=tolerance, atol=1e-14)
        for backend in names[1:]:
            failures.where = f"on {backend}"
            found = make(Evaluator(build(backend))).gradients(x, y)
            for name, value in found.items():
                failures.equal(f"gradient of {name} = on {names[0]}", value, truth[name], rtol=tolerance, atol=1e-14)
    failures.report()


def _usual(backend: str) -> Any:
    strong = {"name": "scaled_normal", "gain": 1.5}
    layer = Layer("alif", 7, initializer=strong, recurrent_initializer=strong)
    return Stack([layer], 3, inputs=4, backend=backend, dtype="float64", seed=3)


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 2 * rng.standard_normal((6, 11, 4)), np.array([0, 1, 2, 0, 1, 2])


def _check_gradients(failures: Failures, rule: Rule, x: np.ndarray, y: np.ndarray) -> Arrays:
    """Names, shapes, types; nothing changed, and the same twice."""
    rule.model.check(x, y)
    before = rule.state()
    kept = x.copy()
    found = rule.gradients(x, y)
    parameters = rule.model.network.parameters
    if list(found) != list(parameters):
        failures.add("gradients() has an entry for every parameter", f"{list(found)} instead of {list(parameters)}")
        return found
    for name, value in found.items():
        expected = parameters[name]
        if value.shape != expected.shape or value.dtype != expected.dtype:
            failures.add(f"gradient of {name} has the shape and type of {name}", f"{value.shape} {value.dtype}")
        elif not np.isfinite(value).all():
            failures.add(f"gradient of {name} is finite", "NaN or infinite values")
    if not any(np.abs(value).max() > 1e-8 for value in found.values()):
        failures.add("some gradient differs from 0", "all are 0 on a network that spikes")
    after = rule.state()
    if any(not np.array_equal(after[name], value) for name, value in before.items()) or not np.array_equal(x, kept):
        failures.add("gradients() changes nothing", "state or data differ after it")
    for name, value in rule.gradients(x, y).items():
        failures.equal(f"gradient of {name}, called twice, is the same", value, found[name], rtol=0)
    return found


def _check_step(failures: Failures, make: Make, network: Any, x: np.ndarray, y: np.ndarray) -> None:
    """The loss before the update; and for one update per sequence Δp = -g under the naive optimiser."""
    rule = make(Evaluator(network), optimizer="naive")
    expected = rule.model.evaluate(x, y)["loss"]
    before, gradient = rule.model.network.parameters, rule.gradients(x, y)
    loss = rule.step(x, y)["loss"]
    deferred = rule._updates_once()
    if deferred and abs(loss - expected) > 1e-10 * abs(expected):
        failures.add("step() returns the loss before the update", f"{loss:g} and {expected:g}")
    after = rule.model.network.parameters
    if all(np.array_equal(before[name], after[name]) for name in before):
        failures.add("step() changes the weights", "none has changed")
    plain = rule.clipping is None and not rule.weight_decay and not getattr(rule, "feedback_decay", 0.0)
    if deferred and plain and type(rule).applied in (Rule.applied, UpdatedByLoop.applied):
        nx = rule.nx
        moved = {name: nx.asarray(before[name] - gradient[name]) for name in before}
        wanted = {name: nx.to_numpy(value) for name, value in nx.jit(rule._bounded)(moved).items()}
        for name in before:
            change = after[name] - before[name]
            expected = wanted[name] - before[name]
            failures.equal(f"Δ({name}) = -gradient (naive)", change, expected, rtol=1e-9, atol=1e-13)
    if rule.steps < 1:
        failures.add("steps counts the updates", f"{rule.steps} after a step")


def _check_state(
    failures: Failures, make: Make, build: Callable[[str], Any], backend: str, x: np.ndarray, y: np.ndarray
) -> None:
    """A clone that goes its own way, and a state from which another rule goes on the same way."""
    rule = make(Evaluator(build(backend)))
    rule.step(x, y)
    saved = rule.state()
    twin = rule.clone()
    twin.step(x, y)
    if any(not np.array_equal(saved[name], value) for name, value in rule.state().items()):
        failures.add("a step of clone() leaves the rule alone", "its state has changed")
    fresh = make(Evaluator(build(backend)))
    fresh.load_state(saved)
    fresh.step(x, y)
    expected = twin.state()
    for name, value in fresh.state().items():
        failures.equal(f"load_state(state()), then a step: {name}", value, expected[name], rtol=0)


def _check_average(failures: Failures, rule: Rule, x: np.ndarray, y: np.ndarray, whole: Arrays, rtol: float) -> None:
    """g(A ∪ B) = (|A| g(A) + |B| g(B)) / (|A| + |B|), and the order of the examples does not matter."""
    first, second = rule.gradients(x[:2], y[:2]), rule.gradients(x[2:], y[2:])
    share = 2 / len(x)
    for name, value in whole.items():
        mean = share * first[name] + (1 - share) * second[name]
        failures.equal(f"gradient of {name} = mean over parts of the batch", mean, value, rtol=rtol, atol=1e-13)
    turned = rule.gradients(x[::-1], y[::-1])
    for name, value in whole.items():
        failures.equal(f"gradient of {name} does not depend on the order", turned[name], value, rtol=rtol, atol=1e-13)
