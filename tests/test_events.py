"""Events: lists of what is not zero give what dense products give, and the density up to which they are worth it."""

from __future__ import annotations

import numpy as np
import pytest

from neko_rules.kernels.events import Events, crossover, listed


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 4, 300), (40, 16, 70)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("graded", [False, True])
def test_gradient_of_events_is_the_dense_product(shape: tuple[int, int, int], density: float, graded: bool) -> None:
    rng = np.random.default_rng(0)
    values = (rng.random(shape) < density) * (rng.normal(size=shape) if graded else 1.0)
    delta = rng.normal(size=(*shape[:2], 6))
    events = listed(values)
    assert events.ones == (not graded or not values.any())
    assert events.density == pytest.approx(np.count_nonzero(values) / values.size)
    expected = np.einsum("tbi,tbj->ij", values, delta)
    np.testing.assert_allclose(events.gradient(delta), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("senders", [1, 28, 100, 5000])
def test_the_crossover_is_a_density_and_is_measured_once(senders: int) -> None:
    assert 0 < crossover(senders) <= 1
    first = crossover(senders)
    crossover.cache_clear()
    assert crossover(senders) == first


def test_dense_events_are_not_walked() -> None:
    dense = np.ones((4, 3, 5))
    assert not listed(dense).sparse
    sparse = np.zeros((40, 30, 50))
    sparse[0, 0, 0] = 1
    assert listed(sparse).sparse


def test_events_of_some_steps() -> None:
    values = np.arange(6.0).reshape(3, 1, 2)
    later: Events = listed(values)[1:]
    assert later.count.tolist() == [[2], [2]]
    assert np.shares_memory(later.values, values)
