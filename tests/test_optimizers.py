"""Optimizers: equations in plain floats, torch.optim, the backends against each other, and what training relies on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from trees import converted

from neko_rules.backend import get_backend, is_installed
from neko_rules.errors import ArgumentError
from neko_rules.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Momentum, Naive, Optimizer
from neko_rules.schedules import CosineDecay, StepDecay

NX = get_backend("numpy")
STEPS = 20


def problem(dtype: str = "float64") -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Parameters and a gradient for each of 20 steps, with one entry that never has any."""
    rng = np.random.default_rng(0)
    shapes = {"hidden.weight": (3, 4), "hidden.bias": (4,)}
    parameters = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    gradients = [{name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()} for _ in range(STEPS)]
    for gradient in gradients:
        gradient["hidden.bias"][0] = 0.0
    return parameters, gradients


def trajectory(
    optimizer: Optimizer,
    parameters: dict[str, np.ndarray],
    gradients: list[dict[str, np.ndarray]],
    state: Any = None,
    first: int = 0,
) -> tuple[dict[str, np.ndarray], Any]:
    """Parameters and state after one update for every gradient, in NumPy."""
    state = optimizer.init(NX, parameters) if state is None else state
    for step, gradient in enumerate(gradients, start=first):
        dtype = next(iter(parameters.values())).dtype
        rate, count = np.asarray(optimizer.learning_rate_at(step), dtype), np.asarray(step + 1, dtype)
        updates, state = optimizer.update(NX, gradient, state, parameters, rate, count)
        parameters = {name: parameters[name] + updates[name] for name in parameters}
    return parameters, state


# Each equation for one weight in plain floats: (weight, gradients, learning rate) -> weight.


def plain_sgd(p: float, gradients: list[float], rate: float) -> float:
    return p - rate * math.fsum(gradients)


def plain_momentum(p: float, gradients: list[float], rate: float) -> float:
    # The velocity written out as a sum over the past.
    for t in range(len(gradients)):
        p -= rate * math.fsum(0.9 ** (t - s) * gradients[s] for s in range(t + 1))
    return p


def plain_nesterov(p: float, gradients: list[float], rate: float) -> float:
    for t in range(len(gradients)):
        p -= rate * (gradients[t] + math.fsum(0.9 ** (t - s + 1) * gradients[s] for s in range(t + 1)))
    return p


def plain_adam(p: float, gradients: list[float], rate: float, decay: float = 0.0) -> float:
    for t in range(len(gradients)):
        weights_1 = [0.9 ** (t - s) for s in range(t + 1)]
        weights_2 = [0.999 ** (t - s) for s in range(t + 1)]
        # A bias-corrected running mean is the normalised weighted mean.
        mean = math.fsum(w * g for w, g in zip(weights_1, gradients, strict=False)) / math.fsum(weights_1)
        square = math.fsum(w * g * g for w, g in zip(weights_2, gradients, strict=False)) / math.fsum(weights_2)
        p -= rate * (mean / (math.sqrt(square) + 1e-8) + decay * p)
    return p


def plain_adamw(p: float, gradients: list[float], rate: float) -> float:
    return plain_adam(p, gradients, rate, decay=1e-2)


def plain_rmsprop(p: float, gradients: list[float], rate: float) -> float:
    for t in range(len(gradients)):
        square = math.fsum(0.1 * 0.9 ** (t - s) * gradients[s] ** 2 for s in range(t + 1))
        p -= rate * gradients[t] / (math.sqrt(square) + 1e-8)
    return p


def plain_adamax(p: float, gradients: list[float], rate: float) -> float:
    for t in range(len(gradients)):
        weights = [0.9 ** (t - s) for s in range(t + 1)]
        mean = math.fsum(w * g for w, g in zip(weights, gradients, strict=False)) / math.fsum(weights)
        largest = max(0.999 ** (t - s) * (abs(gradients[s]) + 1e-8) for s in range(t + 1))
        p -= rate * mean / largest
    return p


def plain_adagrad(p: float, gradients: list[float], rate: float) -> float:
    for t in range(len(gradients)):
        p -= rate * gradients[t] / (math.sqrt(math.fsum(g * g for g in gradients[: t + 1])) + 1e-8)
    return p


def plain_adadelta(p: float, gradients: list[float], rate: float) -> float:
    steps: list[float] = []
    for t in range(len(gradients)):
        size = math.fsum(0.05 * 0.95 ** (t - s) * gradients[s] ** 2 for s in range(t + 1))
        moved = math.fsum(0.05 * 0.95 ** (t - 1 - s) * steps[s] ** 2 for s in range(t))
        steps.append(gradients[t] * math.sqrt(moved + 1e-6) / math.sqrt(size + 1e-6))
        p -= rate * steps[-1]
    return p


def plain_naive(p: float, gradients: list[float], rate: float) -> float:
    return p - math.fsum(gradients)


PLAIN: dict[str, Callable[..., float]] = {
    "sgd": plain_sgd,
    "momentum": plain_momentum,
    "nesterov": plain_nesterov,
    "adam": plain_adam,
    "adamw": plain_adamw,
    "rmsprop": plain_rmsprop,
    "adamax": plain_adamax,
    "adagrad": plain_adagrad,
    "adadelta": plain_adadelta,
    "naive": plain_naive,
}


def test_every_optimizer_has_an_equation_to_be_tested_against() -> None:
    assert set(PLAIN) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_equation_in_plain_floats(name: str) -> None:
    optimizer = OPTIMIZERS.resolve(name)
    parameters, gradients = problem()
    found, _ = trajectory(optimizer, parameters, gradients)
    for key, array in parameters.items():
        for index in np.ndindex(*array.shape):
            seen = [float(gradient[key][index]) for gradient in gradients]
            expected = PLAIN[name](float(array[index]), seen, optimizer.learning_rate_at(0))
            assert found[key][index] == pytest.approx(expected, rel=1e-11, abs=1e-13), (key, index)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "naive"])
def test_torch_optim_where_it_says_the_same(name: str) -> None:
    # The equations agree for all nine; the defaults do not: PyTorch has alpha 0.99 in RMSprop, rho 0.9 in Adadelta,
    # eps 1e-10 in Adagrad and no default momentum, so every argument is given here.
    if not is_installed("torch"):
        pytest.skip("torch is not installed")
    import torch

    make = {
        "sgd": lambda p, rate: torch.optim.SGD(p, rate),
        "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9),
        "nesterov": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9, nesterov=True),
        "adam": lambda p, rate: torch.optim.Adam(p, rate, betas=(0.9, 0.999), eps=1e-8),
        "adamw": lambda p, rate: torch.optim.AdamW(p, rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2),
        "rmsprop": lambda p, rate: torch.optim.RMSprop(p, rate, alpha=0.9, eps=1e-8),
        "adamax": lambda p, rate: torch.optim.Adamax(p, rate, betas=(0.9, 0.999), eps=1e-8),
        "adagrad": lambda p, rate: torch.optim.Adagrad(p, rate, eps=1e-8),
        "adadelta": lambda p, rate: torch.optim.Adadelta(p, rate, rho=0.95, eps=1e-6),
    }[name]
    optimizer = OPTIMIZERS.resolve(name)
    parameters, gradients = problem()
    leaves = {key: torch.tensor(array, requires_grad=True) for key, array in parameters.items()}
    reference = make(list(leaves.values()), optimizer.learning_rate_at(0))
    for gradient in gradients:
        for key, leaf in leaves.items():
            leaf.grad = torch.tensor(gradient[key])
        reference.step()
    found, _ = trajectory(optimizer, parameters, gradients)
    for key, leaf in leaves.items():
        np.testing.assert_allclose(found[key], leaf.detach().numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_same_on_every_backend(name: str, dtype: str, backend: str) -> None:
    nx, optimizer = get_backend(backend), OPTIMIZERS.resolve(name)
    parameters, gradients = problem(dtype)
    expected, expected_state = trajectory(optimizer, *problem("float64"))
    traces = 0

    def one_step(p: Any, g: Any, state: Any, rate: Any, step: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = optimizer.update(nx, g, state, p, rate, step)
        return {key: p[key] + updates[key] for key in p}, state

    compiled = nx.jit(one_step)
    values = converted(nx.asarray, parameters)
    state = optimizer.init(nx, values)
    for step, gradient in enumerate(gradients):
        rate = nx.asarray(optimizer.learning_rate_at(step), dtype)
        values, state = compiled(values, converted(nx.asarray, gradient), state, rate, nx.asarray(step + 1, dtype))
    found, found_state = converted(nx.to_numpy, (values, state))

    tolerance = {"float64": 1e-10, "float32": 1e-4}[dtype]
    # JAX sorts the keys of the dicts that go through jit, so only the set of names is compared.
    assert set(found_state) == set(expected_state) == set(optimizer.slots)
    for left, right in [(found, expected), *((found_state[slot], expected_state[slot]) for slot in optimizer.slots)]:
        assert set(left) == set(right)
        for key, array in left.items():
            assert array.dtype == dtype
            np.testing.assert_allclose(array, right[key], rtol=tolerance, atol=tolerance * 1e-2)
    if backend in ("tensorflow", "jax"):
        assert traces == 1, "another learning rate or step must not compile again"


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_stop_and_a_round_trip_of_the_state_change_nothing(name: str) -> None:
    optimizer = OPTIMIZERS.resolve(name)
    parameters, gradients = problem("float32")
    whole, whole_state = trajectory(optimizer, parameters, gradients)
    half, state = trajectory(optimizer, parameters, gradients[:8])
    flat = {f"{slot}/{key}": array.tobytes() for slot, arrays in state.items() for key, array in arrays.items()}
    restored = {
        slot: {
            key: np.frombuffer(flat[f"{slot}/{key}"], np.float32).reshape(parameters[key].shape) for key in parameters
        }
        for slot in optimizer.slots
    }
    resumed, resumed_state = trajectory(optimizer, half, gradients[8:], restored, first=8)
    for key in parameters:
        np.testing.assert_array_equal(resumed[key], whole[key])
        for slot in optimizer.slots:
            np.testing.assert_array_equal(resumed_state[slot][key], whole_state[slot][key])


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_nothing_given_is_changed(name: str) -> None:
    optimizer = OPTIMIZERS.resolve(name)
    parameters, gradients = problem()
    _, state = trajectory(optimizer, parameters, gradients[:2])
    given = (parameters, gradients[2], state)
    copies = converted(np.array, given)
    optimizer.update(NX, gradients[2], state, parameters, np.asarray(0.1), np.asarray(3.0))
    for left, right in zip(given[:2], copies[:2], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])
    for slot, arrays in state.items():
        for key in arrays:
            np.testing.assert_array_equal(arrays[key], copies[2][slot][key])


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_sizes_zero_and_one(name: str, evaluate: Callable[..., Any]) -> None:
    optimizer = OPTIMIZERS.resolve(name)
    parameters = {"none": np.zeros((0, 3)), "one": np.ones(1), "scalar": np.ones(())}

    def one_step(nx: Any, p: Any, rate: Any, step: Any) -> Any:
        return optimizer.update(nx, p, optimizer.init(nx, p), p, rate, step)

    updates, state = evaluate(one_step, parameters, np.asarray(0.1), np.asarray(1.0))
    assert {key: array.shape for key, array in updates.items()} == {"none": (0, 3), "one": (1,), "scalar": ()}
    assert np.isfinite(updates["one"]).all()
    assert updates["one"] < 0
    assert set(state) == set(optimizer.slots)
    assert optimizer.update(NX, {}, optimizer.init(NX, {}), {}, np.asarray(0.1), np.asarray(1.0))[0] == {}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_zero_gradient_moves_nothing_and_a_missing_one_keeps_the_state(name: str) -> None:
    optimizer = OPTIMIZERS.create(name, {"weight_decay": 0.0} if name == "adamw" else {})
    parameters, gradients = problem()
    still = {key: np.zeros_like(array) for key, array in parameters.items()}
    moved, _ = trajectory(optimizer, parameters, [still] * 3)
    for key in parameters:
        np.testing.assert_array_equal(moved[key], parameters[key])
    _, state = trajectory(optimizer, parameters, gradients[:1])
    one = {"hidden.bias": gradients[1]["hidden.bias"]}
    updates, after = optimizer.update(NX, one, state, parameters, np.asarray(0.1), np.asarray(2.0))
    assert list(updates) == ["hidden.bias"]
    for slot in optimizer.slots:
        np.testing.assert_array_equal(after[slot]["hidden.weight"], state[slot]["hidden.weight"])
        assert np.any(after[slot]["hidden.bias"] != state[slot]["hidden.bias"])


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_finds_the_minimum_of_a_quadratic(name: str) -> None:
    # E = ½ Σ_i c_i (p_i - m_i)², curvatures below 1 so that the gradient itself is a stable step.
    curvature, minimum = np.array([0.05, 0.3, 0.9]), np.array([1.0, -2.0, 0.5])
    own: dict[str, dict[str, Any]] = {
        "naive": {},
        "adadelta": {},
        "sgd": {"learning_rate": 1.0},
        "adagrad": {"learning_rate": 1.0},
        "adamw": {"learning_rate": StepDecay(initial=0.1, rate=0.5, steps=200), "weight_decay": 0.0},
    }
    optimizer = OPTIMIZERS.create(name, own.get(name, {"learning_rate": StepDecay(initial=0.1, rate=0.5, steps=200)}))
    p = {"p": np.zeros(3)}
    state = optimizer.init(NX, p)
    for step in range(2000):
        rate, count = np.asarray(optimizer.learning_rate_at(step)), np.asarray(step + 1.0)
        updates, state = optimizer.update(NX, {"p": curvature * (p["p"] - minimum)}, state, p, rate, count)
        p = {"p": p["p"] + updates["p"]}
    np.testing.assert_allclose(p["p"], minimum, rtol=0.02)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_argument_matters(name: str) -> None:
    default = OPTIMIZERS.resolve(name)
    parameters, gradients = problem()
    expected, _ = trajectory(default, parameters, gradients)
    for field in fields(default):
        if not field.init:
            continue
        old = getattr(default, field.name)
        changed = replace(default, **{field.name: 1e-2 if field.name == "epsilon" else 0.5 * old})
        found, _ = trajectory(changed, parameters, gradients)
        assert not np.allclose(found["hidden.weight"], expected["hidden.weight"], rtol=1e-6), field.name


def test_first_steps_in_closed_form() -> None:
    parameters, gradients = {"w": np.array([2.0])}, [{"w": np.array([-4.0])}]
    for optimizer, expected in [
        (SGD(0.5), 4.0),
        (Naive(), 6.0),
        (Momentum(0.5), 4.0),
        (Adam(0.5), 2.5),
        (AdamW(0.5, weight_decay=0.1), 2.5 - 0.5 * 0.1 * 2.0),
    ]:
        assert trajectory(optimizer, parameters, gradients)[0]["w"][0] == pytest.approx(expected, rel=1e-8)


def test_weight_decay_is_decoupled_from_the_gradient_scale() -> None:
    parameters, gradients = problem()
    scaled = [{key: 1e3 * array for key, array in gradient.items()} for gradient in gradients]
    decays = []
    for seen in (gradients, scaled):
        with_decay, _ = trajectory(AdamW(weight_decay=0.1), parameters, seen[:1])
        without, _ = trajectory(AdamW(weight_decay=0.0), parameters, seen[:1])
        decays.append(with_decay["hidden.weight"] - without["hidden.weight"])
    np.testing.assert_allclose(decays[0], -1e-3 * 0.1 * parameters["hidden.weight"], rtol=1e-9)
    np.testing.assert_allclose(decays[0], decays[1], rtol=1e-9)


def test_naive_ignores_the_learning_rate_that_it_is_called_with() -> None:
    gradient = {"w": np.array([3.0])}
    updates, state = Naive().update(NX, gradient, {}, {"w": np.zeros(1)}, np.asarray(1e-9), np.asarray(1.0))
    assert updates["w"][0] == -3.0
    assert state == {}


def test_learning_rates_are_numbers_schedules_or_mappings() -> None:
    assert Adam(1e-2).learning_rate == 1e-2
    assert Adam(CosineDecay(1.0, 10)).learning_rate_at(5) == pytest.approx(0.5)
    spec = {"name": "adam", "learning_rate": {"name": "cosine_decay", "initial": 1.0, "steps": 10}}
    assert OPTIMIZERS.resolve(spec) == Adam(CosineDecay(1.0, 10))
    parameters, gradients = problem()
    constant, _ = trajectory(SGD(1.0), parameters, gradients)
    decaying, _ = trajectory(SGD(CosineDecay(1.0, 10)), parameters, gradients)
    assert not np.allclose(constant["hidden.weight"], decaying["hidden.weight"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "adam", "learning_rate": -1e-3}, "learning_rate"),
        ({"name": "adam", "learning_rate": math.nan}, "learning_rate"),
        ({"name": "adam", "learning_rate": "fast"}, "learning_rate"),
        ({"name": "adam", "learning_rate": True}, "learning_rate"),
        ({"name": "adam", "learning_rate": {"name": "cosine", "initial": 1.0}}, "steps"),
        ({"name": "adam", "beta_1": 1.0}, "beta_1"),
        ({"name": "adam", "beta1": 0.5}, "beta_1"),
        ({"name": "adam", "epsilon": 0}, "epsilon"),
        ({"name": "adamw", "weight_decay": -0.1}, "weight_decay"),
        ({"name": "momentum", "momentum": 1.5}, "momentum"),
        ({"name": "rmsprop", "rho": -0.1}, "rho"),
        ({"name": "naive", "learning_rate": 0.1}, "learning_rate"),
        ("adan", "adam"),
    ],
)
def test_refusals(spec: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        OPTIMIZERS.resolve(spec)
