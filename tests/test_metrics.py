"""Metrics: closed forms by counting, exact sums over batches, masks, and equality of the backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trees import converted

from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError, IncompatibleError
from neko_rules.metrics import METRICS, Accuracy, FiringRateMetric, Measurement, Metric, SpikeSparsity, TopK

NX = get_backend("numpy")
DT = 2e-3


def measurement(target_steps: int = 6, mask_steps: int = 6, seed: int = 0, batch: int = 9) -> Measurement:
    """Six steps, nine examples, seven classes, two spiking layers."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(6, batch, 7))
    target = np.eye(7)[rng.integers(0, 7, (target_steps, batch))]
    mask = (rng.uniform(size=(mask_steps, batch)) < 0.7).astype(float)
    spikes = {name: (rng.uniform(size=(8, batch, n)) < 0.2).astype(float) for name, n in (("first", 4), ("second", 3))}
    return Measurement(outputs, target, mask, spikes, DT)


def arrays_of(m: Measurement) -> tuple[Any, ...]:
    return m.outputs, m.target, m.mask, dict(m.spikes)


def measured(metric: Metric) -> Callable[..., Any]:
    return lambda nx, outputs, target, mask, spikes: metric.measure(nx, Measurement(outputs, target, mask, spikes, DT))


def ratio(metric: Metric, m: Measurement) -> float:
    total, count = metric.measure(NX, m)
    return float(total) / float(count)


def counted(m: Measurement, k: int) -> tuple[int, int]:
    """Hits and decisions of a top-k metric, example by example."""
    hits = decisions = 0
    steps, batch = m.outputs.shape[:2]
    mask = np.broadcast_to(m.mask, (steps, batch))
    for b in range(batch):
        if len(m.target) == 1:
            supervised = [m.outputs[t, b] for t in range(steps) if mask[t, b]]
            pairs = [(np.mean(supervised, axis=0), m.target[0, b])] if supervised else []
        else:
            pairs = [(m.outputs[t, b], m.target[t, b]) for t in range(steps) if mask[t, b]]
        for output, target in pairs:
            best = sorted(range(len(output)), key=lambda c: (-output[c], c))[:k]
            hits += int(np.argmax(target)) in best
            decisions += 1
    return hits, decisions


@pytest.mark.parametrize(("target_steps", "mask_steps"), [(1, 1), (1, 6), (6, 1), (6, 6)])
@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_accuracy_and_top_k_are_what_counting_gives(k: int, target_steps: int, mask_steps: int) -> None:
    for seed in range(3):
        m = measurement(target_steps, mask_steps, seed)
        assert tuple(map(float, TopK(k).measure(NX, m))) == counted(m, k)
    if k == 1:
        assert tuple(map(float, Accuracy().measure(NX, m))) == counted(m, 1)


def test_one_target_per_sequence_averages_the_outputs() -> None:
    # Two steps say class 0 weakly, one says class 1 strongly: the mean decides for 1, the majority would for 0.
    outputs = np.array([[[0.1, 0.0]], [[0.1, 0.0]], [[0.0, 1.0]]])
    target = np.array([[[0.0, 1.0]]])
    assert ratio(Accuracy(), Measurement(outputs, target, np.ones((1, 1)))) == 1.0
    assert ratio(Accuracy(), Measurement(outputs, target, np.array([[1.0], [1.0], [0.0]]))) == 0.0
    per_step = Measurement(outputs, np.broadcast_to(target, outputs.shape), np.ones((3, 1)))
    assert ratio(Accuracy(), per_step) == pytest.approx(1 / 3)


def test_equal_outputs_are_ranked_like_argmax() -> None:
    outputs = np.zeros((1, 3, 3))
    m = Measurement(outputs, np.eye(3)[None], np.ones((1, 3)))
    assert [float(TopK(k).measure(NX, m)[0]) for k in (1, 2, 3)] == [1.0, 2.0, 3.0]
    assert float(Accuracy().measure(NX, m)[0]) == 1.0


def test_an_unsupervised_example_does_not_count() -> None:
    m = Measurement(np.ones((2, 2, 2)), np.ones((1, 2, 2)), np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert float(Accuracy().measure(NX, m)[1]) == 1.0


def test_firing_rate_and_sparsity_are_what_counting_gives() -> None:
    m = measurement()
    flat = np.concatenate([array.ravel() for array in m.spikes.values()])
    assert ratio(FiringRateMetric(), m) == pytest.approx(flat.mean() / DT, rel=1e-12)
    assert ratio(SpikeSparsity(), m) == pytest.approx(1 - flat.mean(), rel=1e-12)
    silent = Measurement(m.outputs, m.target, m.mask, {"h": np.zeros((5, 2, 3))}, DT)
    assert (ratio(FiringRateMetric(), silent), ratio(SpikeSparsity(), silent)) == (0.0, 1.0)
    busy = Measurement(m.outputs, m.target, m.mask, {"h": np.ones((5, 2, 3))}, DT)
    assert (ratio(FiringRateMetric(), busy), ratio(SpikeSparsity(), busy)) == (pytest.approx(1 / DT), 0.0)


@pytest.mark.parametrize("target_steps", [1, 6])
@pytest.mark.parametrize("name", list(METRICS))
def test_batches_add_up_exactly(name: str, target_steps: int) -> None:
    metric, m = METRICS.resolve(name), measurement(target_steps, 6, batch=9)
    total = count = 0.0
    for part in (slice(0, 2), slice(2, 9)):
        spikes = {key: array[:, part] for key, array in m.spikes.items()}
        piece = Measurement(m.outputs[:, part], m.target[:, part], m.mask[:, part], spikes, DT)
        sums = metric.measure(NX, piece)
        total, count = total + float(sums[0]), count + float(sums[1])
    assert total / count == pytest.approx(ratio(metric, m), rel=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target_steps", [1, 6])
@pytest.mark.parametrize("name", list(METRICS))
def test_same_on_every_backend(name: str, target_steps: int, dtype: str, evaluate: Callable[..., Any]) -> None:
    metric, m = METRICS.resolve(name), measurement(target_steps)
    arrays = converted(lambda array: array.astype(dtype), arrays_of(m))
    copies = converted(np.array, arrays)
    found = evaluate(measured(metric), *arrays)
    expected = metric.measure(NX, m)
    for left, right in zip(found, expected, strict=True):
        assert left.shape == ()
        assert left.dtype == dtype
        assert left == pytest.approx(float(right), rel=1e-10 if dtype == "float64" else 1e-6)
    for left, right in zip(arrays[:3], copies[:3], strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", list(METRICS))
def test_what_it_is_computed_from_matters(name: str) -> None:
    metric = METRICS.resolve(name)
    assert ratio(metric, measurement(seed=1)) != ratio(metric, measurement(seed=2))


@pytest.mark.parametrize("name", list(METRICS))
def test_batches_of_zero_and_one(name: str, evaluate: Callable[..., Any]) -> None:
    metric = METRICS.resolve(name)
    for batch in (0, 1):
        total, count = evaluate(measured(metric), *arrays_of(measurement(batch=batch)))
        assert np.isfinite(total)
        assert np.isfinite(count)
        assert batch or (total, count) == (0, 0)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS.resolve(name).requires == "spikes"])
def test_a_network_without_spiking_neurons_is_refused(name: str) -> None:
    m = measurement()
    with pytest.raises(IncompatibleError, match="spiking neurons"):
        METRICS.resolve(name).measure(NX, Measurement(m.outputs, m.target, m.mask))


def test_names_under_which_they_are_logged() -> None:
    assert {name: METRICS.resolve(name).name for name in METRICS} == {
        "accuracy": "accuracy",
        "top_k": "top_5",
        "firing_rate": "firing_rate",
        "spike_sparsity": "spike_sparsity",
    }
    assert TopK(3).name == "top_3"


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="k must be"):
        TopK(0)
    with pytest.raises(IncompatibleError, match="number of outputs"):
        TopK(8).measure(NX, measurement())
