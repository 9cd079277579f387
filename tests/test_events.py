"""Events: lists of what is not zero give what dense products give, and the density up to which they are worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neko_rules.kernels import events
from neko_rules.kernels.buffers import LINE
from neko_rules.kernels.events import Events, crossover, listed, sorted_together


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 4, 300), (40, 16, 70)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("graded", [False, True])
def test_gradient_of_events_is_the_dense_product(shape: tuple[int, int, int], density: float, graded: bool) -> None:
    rng = np.random.default_rng(0)
    values = (rng.random(shape) < density) * (rng.normal(size=shape) if graded else 1.0)
    delta = rng.normal(size=(*shape[:2], 6))
    found = listed(values)
    assert found.ones == (not graded or not values.any())
    assert found.density == pytest.approx(np.count_nonzero(values) / values.size)
    expected = np.einsum("tbi,tbj->ij", values, delta)
    np.testing.assert_allclose(found.gradient(delta), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("senders", [1, 28, 100, 5000])
def test_the_crossover_is_a_density_and_is_measured_once(senders: int) -> None:
    assert 0 < crossover(senders) <= 1
    first = crossover(senders)
    crossover.cache_clear()
    assert crossover(senders) == first


def test_the_crossover_is_measured_in_memory_like_that_of_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """On lines of the cache: rows that lie across them made events look up to twice as slow."""
    from neko_rules.kernels import gathering, products, rows

    places: list[int] = []

    def looked(*arguments: Any) -> None:
        arrays = [each for each in arguments if isinstance(each, np.ndarray) and each.dtype == np.float32]
        places.extend(each.ctypes.data % LINE for each in arrays if each.size)

    for module, name in ((gathering, "from_events"), (rows, "add_outer_sorted"), (products, "multiply")):
        monkeypatch.setattr(module, name, looked)
    monkeypatch.setattr(products, "multiply_transposed", looked)
    monkeypatch.setattr(events, "seconds", lambda *functions: [each() or 1.0 for each in functions])
    monkeypatch.setattr(events, "compiled", lambda wanted: None)
    assert events._measured_crossover(64) == 0.1, "all took as long"
    assert len(places) > 10
    assert set(places) == {0}


@pytest.mark.parametrize("examples", [1, 4, 12, 24, 128, 240, 250, 256, 1000])
def test_lists_of_sorted_events_begin_at_every_place_of_a_page(examples: int) -> None:
    """As many lines as begin at one place modulo 4,096 bytes must not be all of them."""
    stride = 4 * sorted_together(examples)
    assert stride >= 4 * examples
    assert len({number * stride % 4096 // LINE for number in range(64)}) == 64


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
