"""Losses of outputs: closed forms, derivatives by central differences and autodiff, extremes, equality of backends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from loss_cases import OF_OUTPUTS

from neko_rules.backend import get_backend
from neko_rules.errors import DataError
from neko_rules.kernels.host import unfused
from neko_rules.losses import (
    LOSSES,
    CategoricalCrossentropy,
    Loss,
    compiled_pass,
    output_gradient,
    weighed,
    weighted_total,
)

NX = get_backend("numpy")
SOFTMAX = ["categorical_crossentropy", "sparse_categorical_crossentropy", "kl_divergence"]


def problem(name: str, target_steps: int = 4, seed: int = 0) -> tuple[Loss, np.ndarray, np.ndarray, np.ndarray]:
    """A loss with outputs [4, 3, 5], a target that suits it, and weights [4, 3]."""
    rng = np.random.default_rng(seed)
    loss, outputs = LOSSES.resolve(name), rng.normal(size=(4, 3, 5))
    shape = (target_steps, 3, 5)
    if loss.target_kind == "labels":
        target = np.eye(5)[rng.integers(0, 5, shape[:2])]
    elif loss.target_kind == "classes":
        target = rng.dirichlet(np.ones(5), shape[:2])
    elif name == "poisson":
        target = rng.poisson(2.0, shape).astype(float)
    else:
        target = rng.normal(size=shape)
    return loss, outputs, target, rng.uniform(size=(4, 3))


def total(loss: Loss) -> Callable[..., Any]:
    return lambda nx, y, t, w: weighted_total(nx, loss, y, t, w)


def gradient(loss: Loss) -> Callable[..., Any]:
    return lambda nx, y, t, w: output_gradient(nx, loss, y, t, w)


def closed_form(name: str, y: np.ndarray, t: np.ndarray) -> float:
    """The loss of one step of one example in plain floats."""
    log_normalizer = math.log(sum(math.exp(a) for a in y))
    terms = {
        "categorical_crossentropy": lambda a, b: -b * (a - log_normalizer),
        "sparse_categorical_crossentropy": lambda a, b: -b * (a - log_normalizer),
        "mean_squared_error": lambda a, b: (a - b) ** 2,
        "mean_absolute_error": lambda a, b: abs(a - b),
        "kl_divergence": lambda a, b: b * (math.log(b) - (a - log_normalizer)) if b > 0 else 0.0,
        "poisson": lambda a, b: math.exp(a) - b * a,
    }
    return math.fsum(terms[name](a, b) for a, b in zip(y.tolist(), t.tolist(), strict=True))


@pytest.mark.parametrize("target_steps", [1, 4])
@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_closed_form(name: str, target_steps: int) -> None:
    loss, y, t, w = problem(name, target_steps)
    values = loss.value(NX, y, t)
    expected = [[closed_form(name, y[s, b], t[s % target_steps, b]) for b in range(3)] for s in range(4)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert weighted_total(NX, loss, y, t, w) == pytest.approx(np.sum(w * np.array(expected)), rel=1e-12)


@pytest.mark.parametrize("target_steps", [1, 4])
@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_gradient_is_that_of_central_differences(name: str, target_steps: int) -> None:
    loss, y, t, w = problem(name, target_steps, seed=1)
    analytic = output_gradient(NX, loss, y, t, w)
    numeric, h = np.zeros_like(y), 1e-5
    for index in np.ndindex(*y.shape):
        shift = np.zeros_like(y)
        shift[index] = h
        numeric[index] = (weighted_total(NX, loss, y + shift, t, w) - weighted_total(NX, loss, y - shift, t, w)) / (
            2 * h
        )
    assert np.linalg.norm(numeric) > 1e-2
    assert np.linalg.norm(analytic - numeric) < 1e-6 * np.linalg.norm(numeric)


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_gradient_is_that_of_automatic_differentiation(name: str, autodiff_backend: str) -> None:
    nx = get_backend(autodiff_backend)
    loss, y, t, w = problem(name, seed=2)
    _, derivative = nx.value_and_grad(lambda p: weighted_total(nx, loss, p["y"], nx.asarray(t), nx.asarray(w)))(
        {"y": nx.asarray(y)}
    )
    np.testing.assert_allclose(nx.to_numpy(derivative["y"]), output_gradient(NX, loss, y, t, w), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("target_steps", [1, 4])
@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_same_on_every_backend(name: str, target_steps: int, evaluate: Callable[..., Any]) -> None:
    loss, *arrays = problem(name, target_steps, seed=3)
    copies = [array.copy() for array in arrays]
    assert evaluate(total(loss), *arrays) == pytest.approx(total(loss)(NX, *arrays), rel=1e-10)
    np.testing.assert_allclose(evaluate(gradient(loss), *arrays), gradient(loss)(NX, *arrays), rtol=1e-10, atol=1e-14)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_float32_stays_float32(name: str, evaluate: Callable[..., Any]) -> None:
    loss, *arrays = problem(name)
    narrow = [array.astype("float32") for array in arrays]
    value, derivative = evaluate(total(loss), *narrow), evaluate(gradient(loss), *narrow)
    assert (value.dtype, derivative.dtype) == (np.float32, np.float32)
    assert value == pytest.approx(total(loss)(NX, *arrays), rel=1e-5)
    np.testing.assert_allclose(derivative, gradient(loss)(NX, *arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*SOFTMAX, "mean_squared_error", "mean_absolute_error"])
def test_extreme_outputs_stay_finite(name: str, dtype: str, evaluate: Callable[..., Any]) -> None:
    loss = LOSSES.resolve(name)
    y = np.array([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 1e4]]], dtype)
    t = np.array([[[0.0, 1.0, 0.0]]], dtype)
    w = np.ones((1, 1), dtype)
    assert np.isfinite(evaluate(total(loss), y, t, w))
    assert np.all(np.isfinite(evaluate(gradient(loss), y, t, w)))


@pytest.mark.parametrize("name", SOFTMAX)
def test_extreme_logits_in_closed_form(name: str) -> None:
    loss = LOSSES.resolve(name)
    y, t = np.array([[[1e4, -1e4, 0.0]]]), np.array([[[0.0, 1.0, 0.0]]])
    np.testing.assert_allclose(loss.value(NX, y, t), [[2e4]])
    np.testing.assert_allclose(loss.gradient(NX, y, t), [[[1.0, -1.0, 0.0]]])


def test_poisson_at_its_extremes() -> None:
    loss, counts = LOSSES.resolve("poisson"), np.array([[[3.0]]])
    np.testing.assert_allclose(loss.value(NX, np.array([[[-1e4]]]), counts), [[3e4]])
    np.testing.assert_allclose(loss.gradient(NX, np.array([[[-1e4]]]), counts), [[[-3.0]]])
    assert np.isfinite(loss.value(NX, np.array([[[700.0]]]), counts))[0, 0]


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_another_target_gives_another_loss_and_gradient(name: str) -> None:
    loss, y, t, w = problem(name)
    other = np.roll(t, 1, axis=-1)
    assert weighted_total(NX, loss, y, other, w) != pytest.approx(weighted_total(NX, loss, y, t, w), rel=1e-3)
    assert not np.allclose(output_gradient(NX, loss, y, other, w), output_gradient(NX, loss, y, t, w))


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_a_weight_of_zero_leaves_a_step_out(name: str) -> None:
    loss, y, t, w = problem(name)
    w[2] = 0.0
    assert weighted_total(NX, loss, y, t, w) == pytest.approx(
        sum(weighted_total(NX, loss, y[[s]], t[[s]], w[[s]]) for s in (0, 1, 3)), rel=1e-13
    )
    assert not np.any(output_gradient(NX, loss, y, t, w)[2])
    assert np.any(output_gradient(NX, loss, y, t, w)[1])


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_sizes_zero_and_one(name: str, evaluate: Callable[..., Any]) -> None:
    loss = LOSSES.resolve(name)
    one = np.ones((1, 1, 1))
    assert evaluate(total(loss), one, one, np.ones((1, 1))).shape == ()
    empty = np.ones((2, 0, 3))
    assert evaluate(total(loss), empty, empty, np.ones((2, 0))) == 0
    assert evaluate(gradient(loss), empty, empty, np.ones((2, 0))).shape == (2, 0, 3)


def test_zero_where_outputs_agree_with_the_target() -> None:
    t = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3))
    kl = LOSSES.resolve("kl_divergence")
    np.testing.assert_allclose(kl.value(NX, np.log(t) + 3.0, t), np.zeros((2, 3)), atol=1e-14)
    np.testing.assert_allclose(kl.gradient(NX, np.log(t) + 3.0, t), np.zeros((2, 3, 4)), atol=1e-14)
    for name in ("mse", "mae"):
        assert not np.any(LOSSES.resolve(name).value(NX, t, t))
        assert not np.any(LOSSES.resolve(name).gradient(NX, t, t))
    counts = np.array([[[1.0, 2.0, 5.0]]])
    np.testing.assert_allclose(LOSSES.resolve("poisson").gradient(NX, np.log(counts), counts), 0 * counts, atol=1e-14)


def test_kl_divergence_is_crossentropy_less_entropy() -> None:
    kl, y, t, _ = problem("kl")
    entropy = -np.sum(t * np.log(t), axis=-1)
    crossentropy = LOSSES.resolve("categorical_crossentropy").value(NX, y, t)
    np.testing.assert_allclose(kl.value(NX, y, t), crossentropy - entropy, rtol=1e-12)
    assert np.all(kl.value(NX, y, t) > 0)


def test_kl_divergence_of_a_target_with_zeros(evaluate: Callable[..., Any]) -> None:
    y, t = np.array([[[0.0, 0.0, 0.0, 0.0]]]), np.array([[[0.5, 0.5, 0.0, 0.0]]])
    assert evaluate(total(LOSSES.resolve("kl")), y, t, np.ones((1, 1))) == pytest.approx(math.log(2.0), rel=1e-12)


@pytest.mark.parametrize("spelling", ["mse", "MeanSquaredError", "mean-squared-error", "mean_squared_error"])
def test_spellings(spelling: str) -> None:
    assert type(LOSSES.resolve(spelling)).__name__ == "MeanSquaredError"


def test_target_kinds() -> None:
    kinds = {name: LOSSES.resolve(name).target_kind for name in OF_OUTPUTS}
    assert kinds == {
        "categorical_crossentropy": "classes",
        "sparse_categorical_crossentropy": "labels",
        "mean_squared_error": "values",
        "mean_absolute_error": "values",
        "kl_divergence": "classes",
        "poisson": "values",
    }


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_suitable_targets_pass_the_check(name: str) -> None:
    loss, _, t, _ = problem(name)
    loss.check_target(t)
    loss.check_target(t.astype("float32"))
    loss.check_target(t[:0])


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("mse", [[[math.nan]]], "finite"),
        ("poisson", [[[2.0, -1.0]]], "counts"),
        ("kl", [[[0.5, 0.6]]], "sum to 1"),
        ("kl", [[[1.5, -0.5]]], "at least 0"),
        ("categorical_crossentropy", [[[0.0, 0.0]]], "sum to 1"),
    ],
)
def test_unsuitable_targets_are_refused(name: str, target: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        LOSSES.resolve(name).check_target(np.array(target))


@pytest.mark.parametrize("batch", [16, 15])
@pytest.mark.parametrize("goals", [1, 64])
def test_more_rows_than_a_block_of_a_compiled_pass_has(batch: int, goals: int) -> None:
    """Targets of whole sequences begin anew with a block, or within it."""
    pytest.importorskip("numba")
    rng, nx = np.random.default_rng(0), get_backend("numpy")
    outputs, wanted = rng.normal(size=(64, batch, 10)), rng.dirichlet(np.ones(10), (goals, batch))
    weight = rng.random((64, batch))
    rows = compiled_pass(CategoricalCrossentropy(), "float64")
    assert rows is not None
    assert rows.block(10) < 64 * batch
    assert (rows.block(10) % 16, rows.block(10) % 15 > 0) == (0, True)
    total, gradient = weighed(nx, CategoricalCrossentropy(), outputs, wanted, weight, weight)
    with unfused():
        expected, slope = weighed(nx, CategoricalCrossentropy(), outputs, wanted, weight, weight)
    assert total == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-14)
