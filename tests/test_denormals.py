"""Denormals: what decays in silence becomes zero in kernels, and numbers outside of them keep what they had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neko_rules import LIF, EProp, Evaluator
from neko_rules.backend import Parameters, get_backend
from neko_rules.kernels.host import unfused
from neko_rules.kernels.parallel import each
from neko_rules.optimizers import Adam

denormals = pytest.importorskip("neko_rules.kernels.denormals")

if not denormals._BITS:
    pytest.skip("no mode is known for this processor", allow_module_level=True)


def too_small(array: np.ndarray) -> int:
    """How many entries are denormal in single precision."""
    return int(((array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)).sum())


def denormal_product() -> np.float32:
    return np.float32(1e-37) * np.float32(1e-2)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_membrane_that_decays_in_silence_becomes_zero(backend: str) -> None:
    """1,200 steps of 0.9: the way that is not compiled ends at the smallest numbers that there are."""
    model = Evaluator(LIF(64, 2, inputs=4, membrane_decay=0.9, recurrent=False, backend=backend))
    network, x = model.network, np.zeros((1200, 32, 4), np.float32)
    x[0] = 0.2
    nx = network.nx

    def forward(values: Parameters, inputs: Any) -> Any:
        return network.forward(values, inputs).records["hidden"].states["v"]

    def membranes() -> np.ndarray:
        return nx.to_numpy(network.compiled(forward)(network.values, nx.asarray(x)))

    with unfused():
        plain = membranes()
    fused = membranes()
    assert too_small(plain[-1]) > plain[-1].size / 2
    assert too_small(fused) == 0
    assert not fused[-1].any()
    np.testing.assert_allclose(fused, plain, rtol=1e-5, atol=1e-37)


def test_the_memory_of_an_optimizer_becomes_zero() -> None:
    nx, optimizer = get_backend("numpy"), Adam()
    values = {"w": np.ones((40, 30), np.float32)}

    def last_moment() -> np.ndarray:
        state = optimizer.init(nx, values)
        gradient = np.ones_like(values["w"])
        for number in range(1, 1200):
            count = np.array(float(number))
            state = optimizer.applied(nx, {"w": gradient}, state, values, np.float32(1e-3)[()], count).state
            gradient = np.zeros_like(gradient)
        return np.asarray(state["first_moment"]["w"])

    with unfused():
        assert too_small(last_moment()) == values["w"].size
    assert not last_moment().any()


def test_whoever_calls_a_kernel_finds_the_mode_as_it_was() -> None:
    def failing() -> None:
        assert denormal_product() == 0
        raise ValueError("a kernel that fails")

    assert denormal_product() != 0
    assert denormals.flushed(denormal_product) == 0
    assert denormal_product() != 0
    with pytest.raises(ValueError, match="a kernel that fails"):
        denormals.flushed(failing)
    assert denormal_product() != 0


def test_every_part_of_a_batch_runs_in_that_mode() -> None:
    ranges = [(0, 1), (1, 2), (2, 3)]
    assert each(lambda part, first, last: float(denormal_product()), ranges) == [0.0, 0.0, 0.0]
    assert denormal_product() != 0


def test_a_step_leaves_the_mode_alone() -> None:
    rng = np.random.default_rng(0)
    rule = EProp(Evaluator(LIF(64, 2, inputs=20)))
    rule.step((rng.random((32, 100, 20)) < 0.1).astype(np.float32), rng.integers(0, 2, 32))
    assert denormal_product() != 0
