"""UORO: right on average, and the same by products of time steps as carried forward, on every network and library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from credit_cases import NETWORKS, OUTPUTS, data, distance, network_of, stack

from neko_rules import LIF, RTRL, UORO, Evaluator, Layer, Stack
from neko_rules.credit.projection import RandomProjection
from neko_rules.layers.integrate_and_fire import ALIFCell


def model_of(name: str, backend: str = "numpy") -> Evaluator:
    return Evaluator(network_of(name, backend))


def test_uoro_is_unbiased() -> None:
    """The mean over random signs lies within 4 standard errors of RTRL, and the standard error is small.

    Five parameters are tested along their true gradients: false failures below 5 · 6.4e-5 = 3.2e-4.
    """
    x, y = data(batch=2, steps=4)
    model = Evaluator(stack(ALIFCell(beta=0.3, threshold=0.5), size=4)("numpy"))
    exact = RTRL(model, evaluation="traces").gradients(x, y)
    # The signs of every example are its own: a batch of copies is as many draws, and its gradient their mean.
    copies, seeds = 500, 100
    many = np.tile(x, (copies, 1, 1)), np.tile(y, copies)
    samples = [UORO(model, seed=seed).gradients(*many) for seed in range(seeds)]
    for name, true in exact.items():
        norm = np.linalg.norm(true)
        assert norm > 1e-8
        along = np.array([(sample[name] * true).sum() / norm**2 for sample in samples])
        error = along.std(ddof=1) / np.sqrt(seeds)
        assert error < 0.15, f"{name}: the standard error {error:.2f} is too large to show anything"
        assert abs(along.mean() - 1) < 4 * error, f"{name}: {along.mean():.3f} ± {error:.3f}"


def test_uoro_depends_on_its_seed_and_on_nothing_else() -> None:
    x, y = data()
    one, same, other = (UORO(model_of("alif"), seed=seed).gradients(x, y) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert distance(other, one) > 0.1


def projected(model: Evaluator, over_time: bool, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """UORO's gradient by the products of time steps, or carried forward."""
    x, y = data()
    monkeypatch.setattr(RandomProjection, "over_time_pays", lambda _, steps: over_time)
    return UORO(model, seed=3, **options).gradients(x, y)


@pytest.mark.parametrize("network", [*NETWORKS, "feedback"])
def test_uoro_is_the_same_by_products_of_time_steps(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(network)
    one, other = (projected(model, each, monkeypatch) for each in (True, False))
    assert distance(one, other) < 1e-10


def test_uoro_is_the_same_by_products_of_time_steps_on_every_backend(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    penalties = [{"name": "firing_rate", "target": 20.0}, "membrane_bounds"]
    model = model_of("deep", backend)
    one, other = (projected(model, each, monkeypatch, regularizers=penalties) for each in (True, False))
    assert distance(one, other) < 1e-10


FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "products without their signs": ("_products", np.abs),
    "norms without what the steps have in common": ("_products", lambda found: found * np.eye(found.shape[1])),
    "a product that is not summed over time": ("_summed", lambda found: found / 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_the_products_of_time_steps_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, change = FAULTS[fault]
    model, right = model_of("alif"), getattr(RandomProjection, name)
    carried = projected(model, False, monkeypatch)
    monkeypatch.setattr(RandomProjection, name, lambda *given: change(right(*given)))
    assert distance(projected(model, True, monkeypatch), carried) > 1e-3


QUIET = {
    "a quiet beginning": lambda x: x * (np.arange(x.shape[1]) >= 60)[:, None],
    "a quiet end": lambda x: x * (np.arange(x.shape[1]) < 20)[:, None],
    "one empty example": lambda x: x * (np.arange(len(x)) > 0)[:, None, None],
    "nothing at all": lambda x: 0 * x,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("quiet", QUIET)
def test_uoro_of_neurons_without_biases_to_which_nothing_is_sent(
    quiet: str, dtype: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ρ is next to nothing as long as no weight has acted; what is divided by it is left out, as it is zero."""
    layer = Layer("lif", 12, bias=False, initializer={"name": "scaled_normal", "gain": 2.0})
    network = Stack([layer], OUTPUTS, inputs=6, readout_bias=False, backend=backend, dtype=dtype, seed=2)
    x, y = data(batch=3, steps=100, inputs=6)
    found = []
    for over_time in (True, False):
        monkeypatch.setattr(RandomProjection, "over_time_pays", lambda _, steps, over_time=over_time: over_time)
        rule = UORO(Evaluator(network), seed=3)
        found.append(rule.gradients(QUIET[quiet](x).astype(dtype), y))
    for name, carried in found[1].items():
        tolerance = (1e-5 if dtype == "float32" else 1e-12) * np.abs(carried).max()
        np.testing.assert_allclose(found[0][name], carried, rtol=0, atol=tolerance, err_msg=name)
        assert (np.abs(carried).max() > 0) == (quiet != "nothing at all")


def test_uoro_carries_its_vectors_through_a_sequence_of_which_all_pairs_of_steps_are_too_many() -> None:
    def pays(steps: int, neurons: int, inputs: int = 4) -> bool:
        engine = UORO(Evaluator(LIF(neurons, 4, inputs=inputs))).stepwise
        assert isinstance(engine, RandomProjection)
        return engine.over_time_pays(steps)

    assert pays(256, 12)
    assert not pays(257, 12)
    assert pays(290, 128, inputs=40)
    assert not pays(20, 11), "too few neurons"
