"""The influence on whole populations, taken through a time step by one loop, is that of operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from credit_cases import alive, data, distance, network_of

from neko_rules import BPTT, Evaluator, LearningRule
from neko_rules.backend import get_backend
from neko_rules.credit import fused_influence, influence, traces
from neko_rules.kernels.host import host_of, unfused
from neko_rules.threads import set_threads, threads

pytest.importorskip("numba")

SAME = 1e-12

AXES: dict[str, dict[str, Any]] = {
    "full": {"temporal": "full"},
    "layer": {"temporal": "layer"},
    "layer, filtered": {"temporal": "layer", "learning_signal": "filtered"},
    "sparse": {"temporal": "full", "trace": "sparse_2"},
}


@pytest.fixture
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is, the loop takes it."""
    monkeypatch.setattr(fused_influence, "WORTHWHILE", 0)


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "size", "pre"), [(1, 1, 1), (3, 5, 4), (2, 40, 33)])
def test_the_loop_is_the_equation(batch: int, size: int, pre: int, dtype: str) -> None:
    """Two states that act on each other and hear of what was sent, of two sources and the synapse's own input."""
    random = np.random.default_rng(size)
    columns, others = pre * size, 2 * size + 1

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(dtype)

    before = {"v": normal(batch, size, columns), "a": normal(batch, size, columns), "z": normal(batch, size, columns)}
    kept = {key: value.copy() for key, value in before.items()}
    other = normal(batch, others, columns) * (random.random((batch, others, 1)) < 0.4).astype(dtype)
    back, further, x = normal(size, size), normal(size, others), normal(batch, pre)
    local = {
        ("D", "v", "v"): 0.9,
        ("D", "a", "a"): normal(size),
        ("D", "a", "v"): normal(batch, size),
        ("r", "a"): 1,
        ("r", "v"): normal(batch, size),
        ("q", "v"): 1,
        ("h", "v"): normal(batch, size),
        ("h", "a"): normal(batch, size) * (random.random((batch, size)) < 0.5).astype(dtype),
    }
    host = host_of(get_backend("numpy"))
    assert host is not None
    like = np.zeros((batch, size), dtype)
    number = threads()
    set_threads(2)
    try:
        after = fused_influence.influenced_on(host, before, local, [(back, before["z"]), (further, other)], x, like)
    finally:
        set_threads(number)
    assert after is not None

    def over(value: Any) -> Any:
        return np.broadcast_to(value, like.shape)[:, :, None]

    own = (x[:, None, :, None] * np.eye(size)[None, :, None, :]).reshape(batch, size, columns)
    current = back @ kept["z"] + further @ other + own
    v = 0.9 * kept["v"] + over(local["r", "v"]) * kept["z"] + current
    a = over(local["D", "a", "a"]) * kept["a"] + over(local["D", "a", "v"]) * kept["v"] + kept["z"]
    expected = {"v": v, "a": a, "z": over(local["h", "v"]) * v + over(local["h", "a"]) * a}
    for key, value in expected.items():
        same = 1e-4 if dtype == "float32" else SAME
        np.testing.assert_allclose(after[key], value, rtol=same, atol=same * 10)
        assert np.array_equal(before[key], kept[key]), "what was before is somebody's still"


def gradients(model: Evaluator, axes: str) -> dict[str, np.ndarray]:
    return LearningRule(model, evaluation="traces", **AXES[axes]).gradients(*data())


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    "name", ["lif", "alif", "deep", "feedback", "autapses", "reset not detached", "tanh", "recurrent readout"]
)
def test_gradients_are_those_of_operations(name: str, axes: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend)
    model = Evaluator(network_of(name, backend))
    alive(model, data()[0])
    asked: list[int] = []

    def noted(*given: Any) -> Any:
        asked.append(1)
        return fused_influence.influenced_on(*given)

    for module in (traces, influence):
        monkeypatch.setattr(module, "influenced_on", noted)
    by_loop = gradients(model, axes)
    assert asked
    asked.clear()
    with unfused():
        by_operations = gradients(model, axes)
    assert not asked
    assert distance(by_loop, by_operations) < SAME


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("fault", ["back", "source", "drive"])
def test_faults_in_what_the_loop_is_given_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Evaluator(network_of("alif"))
    right = BPTT(model).gradients(*data())
    assert distance(gradients(model, "full"), right) < 1e-10

    def wrong(host: Any, before: Any, local: Any, through: Any, drive: Any, like: Any) -> Any:
        scale = {each: 0.9 if each == fault else 1.0 for each in ("back", "source", "drive")}
        through = [(scale["back"] * back, scale["source"] * z) for back, z in through]
        drive = None if drive is None else scale["drive"] * drive
        return fused_influence.influenced_on(host, before, local, through, drive, like)

    monkeypatch.setattr(influence, "influenced_on", wrong)
    assert distance(gradients(model, "full"), right) > 1e-3


def test_small_influences_are_left_to_operations() -> None:
    host, nx = host_of(get_backend("numpy")), get_backend("numpy")
    assert host is not None
    few, many = (nx.full((1, 16, size), 0.0, "float32") for size in (16, fused_influence.WORTHWHILE))
    given: Any = {("q", "v"): 1}, [], None, np.zeros((1, 16), "float32")
    assert fused_influence.influenced_on(host, {"v": few, "z": few}, *given) is None
    assert fused_influence.influenced_on(host, {"v": many, "z": many}, *given) is not None
