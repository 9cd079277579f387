"""Judging: figures and predictions by a chain that goes forward alone are those of the engine by operations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from chain_cases import (
    CLASSES,
    EXAMPLES,
    FEATURES,
    NETWORKS,
    PENALISED,
    STEPS,
    data,
    exciting_each_other,
    groups,
    layers,
)

from neko_rules import EProp, Evaluator, Network
from neko_rules.chains import judging, running
from neko_rules.kernels.host import by_library, unfused
from neko_rules.layers.quantized import quantize
from neko_rules.losses import LOSSES, CategoricalCrossentropy
from neko_rules.losses import MeanSquaredError as SquaredLoss
from neko_rules.metrics import METRICS, Accuracy
from neko_rules.threads import set_threads

__all__ = ["groups"]  # a fixture

SAME = 1e-12
BACKENDS = ["numpy", "torch", "jax", "tensorflow"]
JUDGED: dict[str, Callable[[], Network]] = {
    **{name: make for name, (make, _) in NETWORKS.items()},
    **PENALISED,
    "weights of few bits": lambda: quantize(layers(16), weight_bits=4),
    "populations that excite each other": lambda: exciting_each_other(FEATURES),
}


def same(model: Evaluator, x: np.ndarray, y: np.ndarray, tolerance: float = SAME) -> None:
    """Figures and predictions, beside those by operations."""
    figures, outputs = model.evaluate(x, y, batch_size=9), model.predict(x, batch_size=9)
    with unfused():
        wanted, expected = model.evaluate(x, y), model.predict(x)
    assert figures == pytest.approx(wanted, rel=tolerance)
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["spikes", "graded", "dense"])
@pytest.mark.parametrize("network", JUDGED)
def test_figures_and_predictions(network: str, kind: str, groups: list[Any]) -> None:
    if network == "on PyTorch":
        pytest.importorskip("torch")
    x, y = data(kind)
    made = JUDGED[network]()
    model = Evaluator(made, metrics=["accuracy", *(["firing_rate", "spike_sparsity"] if made.spiking else [])])
    same(model, x[:, :, : made.inputs], y)
    assert len(groups) == 2 * -(-EXAMPLES // 9), "a chain for every part, or nothing is tested"


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss(name: str, groups: list[Any]) -> None:
    x, y = data()
    spikes = LOSSES.resolve(name).of_spikes
    task = "regression" if LOSSES.resolve(name).target_kind == "values" else "classification"
    network = layers(12, task_type=task, **({"output_cell": "lif"} if spikes else {}))
    shape = (EXAMPLES, STEPS, CLASSES) if LOSSES.resolve(name).online else (EXAMPLES, CLASSES)
    goal = np.random.default_rng(2).random(shape) if task == "regression" else y
    same(Evaluator(network, loss=name), x, goal)
    assert groups


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_libraries_have_it_from_numpy(backend: str, groups: list[Any]) -> None:
    """Equation: the numbers are the library's own; after the weights changed, and where a clone changes its own."""
    pytest.importorskip(backend)
    x, y = data()
    model = Evaluator(layers(16, cell="alif", backend=backend), metrics=["accuracy", "firing_rate"])
    rule = EProp(model)
    for _ in range(2):
        found, outputs = model.evaluate(x, y), model.predict(x)
        seen = len(groups)
        assert seen >= 2
        with by_library():
            assert model.evaluate(x, y) == pytest.approx(found, rel=1e-9)
            np.testing.assert_allclose(model.predict(x), outputs, rtol=1e-9, atol=1e-11)
        assert len(groups) == seen, "the library's own went by a chain"
        other = model.clone()
        other.network.set_parameters({"readout.bias": np.full(CLASSES, 3.0)})
        assert np.abs(other.predict(x) - outputs).max() > 1e-3
        np.testing.assert_array_equal(model.predict(x), outputs)
        rule.step(x, y)
        assert np.abs(model.predict(x) - outputs).max() > 1e-9
    outputs, model.network.weight_bits = model.predict(x), 3
    model.forget_compiled()
    assert np.abs(model.predict(x) - outputs).max() > 1e-9
    with by_library():
        expected = model.predict(x)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("readout", ["sequence", "last"])
def test_labels_of_single_steps_and_parts_without_any(readout: str, groups: list[Any]) -> None:
    x, _ = data()
    y = np.random.default_rng(1).integers(-1, CLASSES, size=(EXAMPLES, STEPS))
    y[:9] = -1
    same(Evaluator(layers(12), metrics=["accuracy"]), x, y)
    assert groups


def test_populations_that_fire_much(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "crossover", lambda senders: 0.04)
    same(Evaluator(layers(24), metrics=["accuracy", "firing_rate"]), *data())
    assert {"hidden" in walked for walked in groups} == {True, False}


def test_several_threads(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "parts", lambda batch, work: [(0, 2), (2, batch)])
    set_threads(2)
    try:
        same(Evaluator(layers(24), metrics=["accuracy", "firing_rate"]), *data())
    finally:
        set_threads(None)
    assert groups


def test_what_is_looked_at_may_be_replaced(groups: list[Any]) -> None:
    """Another loss or metric, or weights that are set, count from the next evaluation on."""
    x, y = data()
    model = Evaluator(layers(12), metrics=["accuracy"])
    same(model, x, y)
    model.metrics = ()
    assert set(model.evaluate(x, y)) == {"loss"}
    model.loss = LOSSES.resolve("mean_squared_error")
    same(model, x, y)
    before = model.evaluate(x, y)["loss"]
    model.network.set_parameters({"readout.bias": np.full(CLASSES, 3.0)})
    same(model, x, y)
    assert abs(model.evaluate(x, y)["loss"] - before) > 1e-3
    assert groups


class Doubled(Evaluator):
    """One that judges in its own way."""

    def judge(self, *given: Any) -> Any:
        found = super().judge(*given)
        total, count = found.totals["loss"]
        return type(found)(2 * found.loss, found.signals, {**found.totals, "loss": (2 * total, count)})


class Weighed(Evaluator):
    """One that measures in its own way."""

    def measured(self, measurement: Any) -> Any:
        return {name: (2 * total, count) for name, (total, count) in super().measured(measurement).items()}


class Inferring(Network):
    """A network that evaluates in its own way."""

    def infer(self, parameters: Any, inputs: Any) -> Any:
        return self.forward({name: 0 * value for name, value in parameters.items()}, inputs)


class OneScore(SquaredLoss):
    """A loss of a user's, of one score."""

    def number_of_scores(self, neurons: int) -> int:
        return 1


class HardToRead(SquaredLoss):
    """Another, which nobody can look into."""

    def value(self, nx: Any, outputs: Any, target: Any) -> Any:
        return super().value(nx, np.asarray(outputs), np.asarray(target))


@dataclass(frozen=True)
class Gentle(CategoricalCrossentropy):
    """A loss of a user's, who may have one library in mind."""

    def scores(self, nx: Any, history: Any, mask: Any) -> Any:
        return 0.5 * history

    def pull_back(self, nx: Any, history: Any, mask: Any, gradient: Any) -> Any:
        return 0.5 * gradient


class Own(Accuracy):
    """A metric of a user's, who may have one library in mind."""


def test_what_a_user_made_goes_its_own_way(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what takes too little to be worth a chain; on NumPy a loss of the user's is asked about its arrays."""
    pytest.importorskip("torch")
    x, y = data()
    own, model = Doubled(layers(12)), Evaluator(layers(12))
    assert own.evaluate(x, y)["loss"] == pytest.approx(2 * model.evaluate(x, y)["loss"], rel=SAME)
    assert len(groups) == 1, "that of the plain one"
    Evaluator(layers(12, backend="torch"), metrics=[Own()]).evaluate(x, y)
    Evaluator(layers(12, backend="torch"), loss=Gentle()).evaluate(x, y)
    monkeypatch.setattr(running, "WORTHWHILE", 1 << 20)
    model.evaluate(x, y)
    assert len(groups) == 1


def test_what_a_user_overrides_is_asked(groups: list[Any]) -> None:
    x, y = data()
    model = Weighed(layers(12), metrics=["accuracy"])
    same(model, x, y)
    assert (
        model.evaluate(x, y)["accuracy"] == 2 * Evaluator(layers(12), metrics=["accuracy"]).evaluate(x, y)["accuracy"]
    )
    assert EProp(model).step(x, y)["accuracy"] > 0
    made = layers(12)
    own = Inferring(made.graph.populations, made.graph.connections, made.graph.output, inputs=FEATURES, dtype="float64")
    same(Evaluator(own), x, y)
    values = np.random.default_rng(3).random((EXAMPLES, STEPS, 1))
    same(Evaluator(layers(12, task_type="regression"), loss=OneScore()), x, values)
    scores = Evaluator(layers(12, task_type="regression"), loss=HardToRead()).predict(x)
    np.testing.assert_array_equal(scores, Evaluator(layers(12, task_type="regression")).predict(x))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_constants_and_metrics_may_be_replaced(backend: str, groups: list[Any]) -> None:
    pytest.importorskip(backend)
    x, y = data()
    model = Evaluator(layers(12, backend=backend), metrics=[Accuracy()])
    before = model.evaluate(x, y)
    model.metrics = [*model.metrics, METRICS.resolve("firing_rate")]
    assert set(model.evaluate(x, y)) - set(before) == {"firing_rate"}
    model.network.constants = layers(12, backend=backend, threshold=0.3).constants
    assert abs(model.evaluate(x, y)["loss"] - before["loss"]) > 1e-3
    model.forget_compiled()
    found = model.evaluate(x, y)
    with unfused():
        assert model.evaluate(x, y) == pytest.approx(found, rel=SAME)
    assert groups


def test_without_numba_it_is_judged_too() -> None:
    code = """
import sys
sys.modules.update(numba=None, llvmlite=None)
import numpy as np
from neko_rules import LIF, Evaluator
model = Evaluator(LIF(64, 3), metrics=["accuracy"])
x = np.ones((64, 50, 7))
print(model.evaluate(x, np.zeros(64, int))["loss"] > 0, model.predict(x).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "True (64, 50, 3)"


@pytest.mark.parametrize("fault", ["other weights", "another mask", "outputs of the first group"])
def test_faults_are_seen(fault: str, groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ran, scores = judging.Judging.ran, judging.Judging.scores

    def wrong(self: Any, values: Any, inputs: Any, target: Any, mask: Any) -> Any:
        if fault == "other weights":
            values = {name: 1.001 * value for name, value in values.items()}
        if fault == "another mask":
            mask = mask * (np.arange(mask.shape[1]) > 0)
        return ran(self, values, inputs, target, mask)

    def cut(self: Any, values: Any, inputs: Any) -> Any:
        found = scores(self, values, inputs)
        if fault == "outputs of the first group":
            found[:, 8:] = 0
        return found

    monkeypatch.setattr(judging.Judging, "ran", wrong)
    monkeypatch.setattr(judging.Judging, "scores", cut)
    with pytest.raises(AssertionError):
        same(Evaluator(layers(24), metrics=["accuracy"]), *data())
    assert groups
