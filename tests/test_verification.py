"""Verification of backends: agreement, faults found and located, spike flips told from faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import neko_rules.backend
from neko_rules import ALIF, BPTT, LIF, RNN, EProp, Evaluator, Rule
from neko_rules.backend import BUILT_IN, get_backend, is_installed
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.errors import ArgumentError, BackendError, ComparisonError
from neko_rules.testing import assert_backends_agree, check_rule, verify_backends
from neko_rules.testing.verification import difference

INSTALLED = [name for name in BUILT_IN if is_installed(name)]


def data(examples: int = 4, steps: int = 10, inputs: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 4 * rng.standard_normal((examples, steps, inputs)), rng.integers(0, 2, examples)


def make(backend: str, dtype: str) -> Rule:
    return EProp(Evaluator(ALIF(6, 2, backend=backend, dtype=dtype, seed=1)))


class Changed(NumpyBackend):
    """NumPy with something changed."""

    name = "changed"

    def __init__(self, **operations: Any) -> None:
        for name, operation in operations.items():
            setattr(self, name, operation)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a backend called ``changed`` with some operations of its own."""

    def plant(**operations: Any) -> None:
        monkeypatch.setitem(neko_rules.backend._instances, "changed", Changed(**operations))

    return plant  # type: ignore[return-value]


def test_every_backend_agrees_with_numpy() -> None:
    found = assert_backends_agree(make, *data(), INSTALLED, steps=2)
    assert [verdict.backend for verdict in found.verdicts] == INSTALLED[1:]
    assert all(max(verdict.largest.values()) < 1e-12 for verdict in found.verdicts)


@pytest.mark.parametrize("backend", INSTALLED[1:])
def test_every_library_computes_all_of_it_by_itself(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of its own product is seen, also where NumPy's loops would take its steps in training."""
    x, y = data(examples=64, steps=100, inputs=20)

    def trained(backend: str, dtype: str) -> Rule:
        return EProp(Evaluator(ALIF(24, 2, backend=backend, dtype=dtype, seed=1)))

    nx = get_backend(backend)
    original = nx.matmul
    monkeypatch.setattr(nx, "matmul", lambda left, right: original(left, right) * (1 + 1e-6))
    assert trained(backend, "float64").step(x, y) == pytest.approx(trained("numpy", "float64").step(x, y), rel=1e-12)
    found = verify_backends(trained, [(x, y)], ["numpy", backend], float32=False)
    assert not found.agree


def test_float32_is_reported_beside(planted: Any) -> None:
    planted(exp=lambda array: np.exp(array) * (1 + 1e-7))
    found = verify_backends(make, [data()] * 2, ["numpy", "changed"], tolerance=1e-3)
    assert [verdict.dtype for verdict in found.verdicts] == ["float64", "float32"]
    assert found.agree
    assert found.table().row_count == 2


class TestFaults:
    def test_in_the_forward_pass_is_located(self, planted: Any) -> None:
        original = NumpyBackend()

        def matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            found = original.matmul(left, right)
            # Only the product with the recurrent weights, which is taken step by step.
            return found * (1 + 1e-6) if left.shape == (4, 6) and right.shape == (6, 6) else found

        planted(matmul=matmul)
        found = verify_backends(make, [data()] * 2, ["numpy", "changed"], float32=False)
        parting = found.partings["changed"]
        assert not found.agree
        assert (parting.kind, parting.step, parting.quantity) == ("fault", 1, "gradient")
        assert parting.state is not None
        assert (parting.state.population, parting.state.state) == ("hidden", "v")
        one = BPTT(Evaluator(ALIF(6, 2, dtype="float64", seed=1))).model.trajectory(data()[0])
        first = int(np.argwhere(one.z("hidden").any(axis=(1, 2)))[0, 0])
        assert parting.state.time == first + 1  # the first step that receives recurrent spikes
        assert "first state that differs: v of hidden" in str(parting)
        assert "fault in step 1" in found.table().columns[-1]._cells[0].plain  # type: ignore[union-attr]

    def test_in_the_backward_pass_is_located(self, planted: Any) -> None:
        class Wrong(EProp):
            def _judged_gradients(self, *arguments: Any) -> Any:
                judgement, found = super()._judged_gradients(*arguments)
                changed = found["hidden.recurrent.weight"] * (1 + 1e-6)
                return judgement, {**found, "hidden.recurrent.weight": changed}

        rules = iter([EProp, Wrong])

        def either(backend: str, dtype: str) -> Rule:
            return next(rules)(Evaluator(ALIF(6, 2, backend=backend, dtype=dtype, seed=1)))

        planted()
        parting = verify_backends(either, [data()], ["numpy", "changed"], float32=False).partings["changed"]
        assert (parting.kind, parting.quantity) == ("fault", "gradient")
        assert (parting.layer, parting.parameter) == ("hidden", "hidden.recurrent.weight")
        assert parting.values[1] == pytest.approx(parting.values[0] * (1 + 1e-6), rel=1e-12)
        assert "the forward passes agree" in str(parting)

    def test_in_the_update_is_located(self, planted: Any) -> None:
        planted(sqrt=lambda array: np.sqrt(array) * (1 + 1e-6))  # only Adam takes roots
        parting = verify_backends(make, [data()], ["numpy", "changed"], float32=False).partings["changed"]
        assert (parting.kind, parting.quantity) == ("fault", "weight")

    def test_a_threshold_that_is_not_one_is_no_flip(self, planted: Any) -> None:
        planted(heaviside=lambda array: (array > -1e-2).astype(array.dtype))
        found = verify_backends(make, [data(64)], ["numpy", "changed"], float32=False)
        parting = found.partings["changed"]
        assert parting.kind == "fault"
        assert parting.spike is not None
        assert parting.spike.spikes == (0, 1)
        assert -1e-2 < parting.spike.margins[0] < -1e-6
        with pytest.raises(AssertionError, match="first spike that differs: hidden"):
            assert_backends_agree(make, *data(64), ["numpy", "changed"], steps=1)

    def test_a_nan_is_a_difference(self) -> None:
        assert difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == np.inf
        assert difference(np.zeros(3), np.zeros(3)) == 0
        assert difference(np.zeros((0,)), np.zeros((0,))) == 0


def on_threshold(backend: str, dtype: str) -> Rule:
    """One neuron whose membrane is exactly at its threshold after the first step, and above it later."""
    network = LIF(1, 2, backend=backend, dtype=dtype, membrane_decay=0.5, recurrent=False)
    network.build(1)
    network.set_parameters({"hidden.input.weight": np.ones((1, 1))})
    return BPTT(Evaluator(network))


def test_a_spike_flip_is_told_from_a_fault(planted: Any) -> None:
    planted(matmul=lambda left, right: np.matmul(left, right) * (1 + 4e-16))
    x = np.array([[[1.0], [0.0], [3.0]]])
    found = verify_backends(on_threshold, [(x, np.array([1]))], ["numpy", "changed"], float32=False)
    parting = found.partings["changed"]
    assert parting.kind == "spike flip"
    assert found.agree
    assert parting.spike is not None
    assert (parting.spike.time, parting.spike.population, parting.spike.neuron) == (0, "hidden", 0)
    assert parting.spike.margins[0] == 0
    assert 0 < parting.spike.margins[1] < 1e-15
    assert_backends_agree(on_threshold, x, np.array([1]), ["numpy", "changed"], steps=1)


class TestRefusals:
    def test_a_silent_network(self, planted: Any) -> None:
        def silent(backend: str, dtype: str) -> Rule:
            return BPTT(Evaluator(LIF(3, 2, backend=backend, dtype=dtype, threshold=1e9)))

        planted()
        with pytest.raises(ComparisonError, match="no spike on numpy"):
            verify_backends(silent, [data()], ["numpy", "changed"])

    def test_arguments(self, planted: Any) -> None:
        planted()
        with pytest.raises(ArgumentError, match="two backends"):
            verify_backends(make, [data()], ["numpy"])
        with pytest.raises(ArgumentError, match="at least one step"):
            verify_backends(make, [], ["numpy", "changed"])
        with pytest.raises(BackendError, match="unknown backend"):
            verify_backends(make, [data()], ["numpy", "nunpy"])

    @pytest.mark.parametrize("names", [["numpy", "numpy"], ["numpy", "changed", "numpy"]])
    def test_a_backend_beside_itself(self, planted: Any, names: list[str]) -> None:
        planted()
        said = rf"each backend can be compared once, since with itself it agrees \(received: {', '.join(names)}\)"
        with pytest.raises(ArgumentError, match=said):
            verify_backends(make, [data()], names)
        with pytest.raises(ArgumentError, match=said):
            assert_backends_agree(make, *data(), names)
        with pytest.raises(ArgumentError, match=said):
            check_rule(BPTT, backends=names)


def test_networks_that_do_not_spike_are_compared_too(planted: Any) -> None:
    def rate(backend: str, dtype: str) -> Rule:
        return BPTT(Evaluator(RNN(4, 2, backend=backend, dtype=dtype)))

    planted()
    assert verify_backends(rate, [data()], ["numpy", "changed"]).agree
