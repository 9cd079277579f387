"""Rate factors: what has one changes so many times as fast, in every rule, or not at all; the rest as without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from credit_cases import INPUTS, OUTPUTS, alive, data, stack

from neko_rules import BPTT, FPTT, LIF, EProp, Evaluator, Manhattan, TorchModel
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.optimizers import Adam
from neko_rules.rules import RULES

FIXED = ("hidden.input.weight", "hidden.bias")
BY_PULSES = ("manhattan", "tiki_taka", "tiki_taka_v2")


def model_of(backend: str = "numpy") -> Evaluator:
    model = Evaluator(stack("alif")(backend))
    alive(model, data()[0])
    return model


def made(name: str, factors: dict[str, float] | None, backend: str = "numpy", **options: Any) -> Any:
    if name in BY_PULSES:
        given: dict[str, Any] = {"crossbar": {"w_max": 4.0}, "seed": 1}
        given |= {"transfer_every": 1, "transfer_rate": 5.0} if name.startswith("tiki") else {}
    else:
        given = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "seed": 1}
    return RULES[name](model_of(backend), rate_factors=factors, **given, **options)


@pytest.mark.parametrize("name", list(RULES))
def test_what_has_the_factor_0_stays_in_every_rule(name: str) -> None:
    x, y = data()
    rule = made(name, {"hidden": 0, "hidden.recurrent": 1})
    if name in BY_PULSES:
        rule.prepared()
    before = rule.model.network.parameters
    for _ in range(12):
        rule.step(x, y)
    after = rule.model.network.parameters
    for each in FIXED:
        np.testing.assert_array_equal(after[each], before[each], err_msg=each)
    changed = {each for each in after if (after[each] != before[each]).any()}
    assert changed & {"hidden.recurrent.weight", "readout.input.weight"}, "nothing has changed at all"


def plain_descent(name: str) -> bool:
    """Whether a step is one update by a gradient and nothing else."""
    if name in BY_PULSES or "stdp" in name:
        return False
    rule = made(name, None)
    return not getattr(rule, "online", 0) and getattr(rule, "window", None) is None


@pytest.mark.parametrize("name", [name for name in RULES if plain_descent(name)])
def test_a_first_change_is_so_many_times_what_it_was(name: str) -> None:
    """Where weights change on the way, later changes follow from earlier ones."""
    x, y = data()
    plain, other = made(name, None), made(name, {"hidden.input": 0.5, "readout": 3.0})
    changes = []
    for rule in (plain, other):
        before = rule.model.network.parameters
        rule.step(x, y)
        changes.append({key: value - before[key] for key, value in rule.model.network.parameters.items()})
    for key, change in changes[0].items():
        factor = {"hidden.input.weight": 0.5}.get(key, 3.0 if key.startswith("readout") else 1.0)
        np.testing.assert_allclose(changes[1][key], factor * change, rtol=1e-9, atol=1e-15, err_msg=key)


def test_groups_of_pytorch_s_adam_do_the_same() -> None:
    """Independent: parameter groups with learning rates of their own, decoupled decay among them."""
    torch = pytest.importorskip("torch")
    x, y = data()
    factors = {"hidden": 0.25, "hidden.bias": 2.0, "readout.bias": 0.0}
    rule = BPTT(model_of(), optimizer=Adam(0.02), weight_decay=0.1, rate_factors=factors)
    of_each = {name: rule.rate_factors.get(name, 1.0) for name in rule.model.network.names}
    free = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in rule.model.network.parameters.items()}
    groups = [
        {"params": [p], "lr": 0.02 * of_each[name], "weight_decay": 0.1 * name.endswith(".weight")}
        for name, p in free.items()
    ]
    theirs = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=Adam().epsilon)
    for _ in range(4):
        for name, gradient in rule.gradients(x, y).items():
            free[name].grad = torch.tensor(gradient)
        theirs.step()
        rule.step(x, y)
        for name, value in rule.model.network.parameters.items():
            np.testing.assert_allclose(value, free[name].detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_feedback_that_follows_weights_follows_their_pace() -> None:
    """Kolen and Pollack: W - B shrinks by the decay of W at every update, whatever the pace of W."""
    x, y = data()
    rate, decay, factor = 0.05, 2.0, 0.5
    options: dict[str, Any] = {"optimizer": {"name": "sgd", "learning_rate": rate}, "feedback_decay": decay}
    for given, pace in ((None, 1.0), ({"readout": factor}, factor), ({"readout": 0.0}, 0.0)):
        rule = EProp(model_of(), mode="adaptive", rate_factors=given, **options)
        name = "readout.input.weight"
        apart = rule.model.network.parameters[name] - rule.feedback[name]
        for _ in range(3):
            rule.step(x, y)
        found = rule.model.network.parameters[name] - rule.feedback[name]
        np.testing.assert_allclose(found, apart * (1 - pace * rate * decay) ** 3, rtol=1e-10)


@pytest.mark.parametrize("backend", ["torch", "tensorflow", "jax"])
def test_every_library_does_the_same(backend: str) -> None:
    pytest.importorskip(backend)
    x, y = data(steps=6)
    states = []
    for each in ("numpy", backend):
        rule = EProp(model_of(each), weight_decay=0.1, rate_factors={"hidden": 0.2, "hidden.input": 0})
        for _ in range(2):
            rule.step(x, y)
        states.append(rule.state())
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-10, atol=1e-13, err_msg=name)


def test_they_may_be_assigned_between_steps_and_go_with_a_wrapped_model() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(INPUTS, 5), torch.nn.Tanh(), torch.nn.Linear(5, OUTPUTS))
    rule = BPTT(Evaluator(TorchModel(module)), rate_factors={"0": 0})
    x, y = data()[0][:, 0].astype("float32"), data()[1]
    first = rule.model.network.parameters
    rule.step(x, y)
    second = rule.model.network.parameters
    assert (second["0.weight"] == first["0.weight"]).all()
    assert (second["2.weight"] != first["2.weight"]).any()
    rule.rate_factors = {"2": 0.0}
    rule.step(x, y)
    third = rule.model.network.parameters
    assert (third["0.weight"] != second["0.weight"]).any()
    assert (third["2.weight"] == second["2.weight"]).all()


def test_a_model_without_names_yet_is_built_first() -> None:
    keras = pytest.importorskip("keras")
    from neko_rules import KerasModel

    model = Evaluator(KerasModel(keras.Sequential([keras.layers.Dense(3, name="top")])))
    x, y = data()[0][:, 0].astype("float32"), data()[1]
    with pytest.raises(ArgumentError, match="no weights yet"):
        BPTT(model, rate_factors={"top": 0})
    model.predict(x)
    rule = BPTT(model, rate_factors={"top.bias": 0})
    before = model.network.parameters
    rule.step(x, y)
    after = model.network.parameters
    assert (after["top.bias"] == before["top.bias"]).all()
    assert (after["top.kernel"] != before["top.kernel"]).any()


def test_what_makes_no_sense_is_refused() -> None:
    model = Evaluator(LIF(4, 2, inputs=3))
    with pytest.raises(ArgumentError, match=r"did you mean 'hidden\.input'"):
        BPTT(model, rate_factors={"hidden.inputs": 0})
    with pytest.raises(ArgumentError, match="the rate factor of 'hidden' must be"):
        BPTT(model, rate_factors={"hidden": -1})
    with pytest.raises(ArgumentError, match="must be a mapping"):
        BPTT(model, rate_factors=["hidden"])  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="must be below 1"):
        BPTT(model, weight_decay=10.0, rate_factors={"hidden": 200})
    for rule in (Manhattan, FPTT):
        with pytest.raises(IncompatibleError, match="given to the rule that changes"):
            rule(model, gradient=EProp(model, rate_factors={"hidden": 0}))
