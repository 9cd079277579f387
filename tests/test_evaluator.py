"""Evaluator: loss and metrics against formulas over single numbers, whatever the batch size, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from loss_cases import OF_OUTPUTS

from neko_rules import ALIF, LIF, RNN, Evaluator
from neko_rules.errors import ArgumentError, DataError, IncompatibleError, NekoError
from neko_rules.layers.forward import Record
from neko_rules.layers.pooling import POOLINGS
from neko_rules.losses import LOSSES, MeanSquaredError

BATCH, STEPS, FEATURES, CLASSES = 5, 7, 3, 4
OF_CLASSES = [name for name in OF_OUTPUTS if LOSSES[name]().target_kind != "values"]
OF_VALUES = [name for name in OF_OUTPUTS if LOSSES[name]().target_kind == "values"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


X = rng().standard_normal((BATCH, STEPS, FEATURES))
LABELS = rng(1).integers(0, CLASSES, BATCH)
BY_STEP = rng(2).integers(-1, CLASSES, (BATCH, STEPS))


def model(
    loss: str | None = None, metrics: Any = (), backend: str = "numpy", cell: Any = ALIF, **options: Any
) -> Evaluator:
    strong = {"name": "scaled_normal", "gain": 3.0}
    shared = {"inputs": FEATURES, "dtype": "float64", "backend": backend, "seed": 1, "initializer": strong}
    return Evaluator(cell(6, CLASSES, readout_initializer=strong, **shared, **options), loss, metrics)


# One number for each loss, written with the math module.


def cross_entropy(y: np.ndarray, target: np.ndarray) -> float:
    normaliser = math.log(sum(math.exp(value) for value in y))
    return -sum(t * (value - normaliser) for t, value in zip(target, y, strict=True))


def kl(y: np.ndarray, target: np.ndarray) -> float:
    return cross_entropy(y, target) + sum(t * math.log(t) for t in target if t > 0)


ONE_STEP: dict[str, Any] = {
    "categorical_crossentropy": cross_entropy,
    "sparse_categorical_crossentropy": cross_entropy,
    "kl_divergence": kl,
    "mean_squared_error": lambda y, t: sum((a - b) ** 2 for a, b in zip(y, t, strict=True)),
    "mean_absolute_error": lambda y, t: sum(abs(a - b) for a, b in zip(y, t, strict=True)),
    "poisson": lambda y, t: sum(math.exp(a) - b * a for a, b in zip(y, t, strict=True)),
}


def test_every_loss_has_a_formula_to_be_tested_against() -> None:
    assert set(ONE_STEP) == set(OF_OUTPUTS)


def read_out(readout: str, outputs: np.ndarray) -> np.ndarray:
    """[batch, time, n_out] to [batch, steps, n_out]."""
    if readout == "sequence":
        return outputs
    pick = {"last": lambda y: y[-1], "mean": lambda y: sum(y) / len(y), "max": lambda y: y.max(axis=0)}[readout]
    return np.array([[pick(sequence)] for sequence in outputs])


def mean_loss(loss: str, outputs: np.ndarray, targets: dict[tuple[int, int], np.ndarray]) -> float:
    """Mean over the supervised (example, step)."""
    return sum(ONE_STEP[loss](outputs[place], target) for place, target in targets.items()) / len(targets)


@pytest.mark.parametrize("loss", OF_CLASSES)
@pytest.mark.parametrize("readout", POOLINGS)
def test_loss_of_one_label_per_sequence(loss: str, readout: str) -> None:
    """The label holds at every output in time."""
    outputs = read_out(readout, model().predict(X))
    every = {(b, t): np.eye(CLASSES)[LABELS[b]] for b in range(BATCH) for t in range(outputs.shape[1])}
    found = model(loss, readout=readout).evaluate(X, LABELS)["loss"]
    assert found == pytest.approx(mean_loss(loss, outputs, every), rel=1e-12)


@pytest.mark.parametrize("loss", OF_CLASSES)
def test_loss_of_labels_per_step_counts_supervised_steps_only(loss: str) -> None:
    outputs = model().predict(X)
    places = [(b, t) for b in range(BATCH) for t in range(STEPS) if BY_STEP[b, t] >= 0]
    assert 0 < len(places) < BATCH * STEPS
    every = {place: np.eye(CLASSES)[BY_STEP[place]] for place in places}
    assert model(loss).evaluate(X, BY_STEP)["loss"] == pytest.approx(mean_loss(loss, outputs, every), rel=1e-12)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "kl_divergence"])
@pytest.mark.parametrize("by_step", [False, True])
def test_loss_of_distributions(loss: str, by_step: bool) -> None:
    y = rng(3).dirichlet(np.ones(CLASSES), (BATCH, STEPS) if by_step else BATCH)
    every = {(b, t): y[b, t] if by_step else y[b] for b in range(BATCH) for t in range(STEPS)}
    assert model(loss).evaluate(X, y)["loss"] == pytest.approx(mean_loss(loss, model().predict(X), every), rel=1e-12)


@pytest.mark.parametrize("loss", OF_VALUES)
@pytest.mark.parametrize("readout", POOLINGS)
def test_loss_of_regression(loss: str, readout: str) -> None:
    outputs = read_out(readout, model().predict(X))
    y = rng(4).uniform(0, 3, outputs.shape)
    every = {(b, t): y[b, t] for b in range(BATCH) for t in range(outputs.shape[1])}
    found = model(loss, readout=readout, task_type="regression").evaluate(X, y)["loss"]
    assert found == pytest.approx(mean_loss(loss, outputs, every), rel=1e-12)


def test_usual_losses() -> None:
    assert type(model().loss).__name__ == "CategoricalCrossentropy"
    assert type(model(task_type="regression").loss).__name__ == "MeanSquaredError"
    values = rng(4).uniform(0, 3, (BATCH, STEPS, CLASSES))
    given = model(MeanSquaredError(), task_type="regression").evaluate(X, values)  # type: ignore[arg-type]
    assert given == model(task_type="regression").evaluate(X, values)


def test_the_same_targets_in_another_form_give_the_same_figures() -> None:
    metrics = ["accuracy", {"name": "top_k", "k": 2}]
    expected = model(metrics=metrics).evaluate(X, LABELS)
    for y in (LABELS.tolist(), np.eye(CLASSES)[LABELS], np.eye(CLASSES, dtype=int)[LABELS], LABELS.astype(np.uint8)):
        assert model(metrics=metrics).evaluate(X, y) == expected
    assert model("sparse_categorical_crossentropy", metrics).evaluate(X, LABELS) == expected


# The derivative at the outputs.


@pytest.mark.parametrize("readout", POOLINGS)
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "kl_divergence", "mean_squared_error", "poisson"])
def test_output_gradient_equals_central_differences(loss: str, readout: str) -> None:
    """Every entry of dE/dy, for every pooling: ``compare_output_gradient`` asserts it."""
    task = "regression" if loss in OF_VALUES else "classification"
    judged = model(loss, readout=readout, task_type=task)
    y = (
        rng(4).uniform(0, 3, (BATCH, STEPS if readout == "sequence" else 1, CLASSES))
        if task == "regression"
        else LABELS
    )
    compare_output_gradient(judged, y)


def test_output_gradient_of_labels_per_step_equals_central_differences() -> None:
    """The same with a label at every step, some of which do not count."""
    compare_output_gradient(model(), BY_STEP)


def compare_output_gradient(judged: Evaluator, y: np.ndarray) -> None:
    inputs, target, mask = judged.batch(X, y)
    trajectory = judged.network.forward(judged.network.values, inputs)
    outputs = 0.2 * trajectory.records["readout"].z
    trajectory.records["readout"] = Record({}, outputs, None)
    found = judged.judge(trajectory, target, mask).signals["readout", "z"]
    numeric, epsilon = np.zeros_like(outputs), 1e-5
    for place in np.ndindex(outputs.shape):
        for sign in (1, -1):
            moved = outputs.copy()
            moved[place] += sign * epsilon
            trajectory.records["readout"] = Record({}, moved, None)
            numeric[place] += sign * float(judged.judge(trajectory, target, mask).loss) / (2 * epsilon)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-8)
    assert np.abs(found).max() > 1e-3


def test_unsupervised_steps_have_no_gradient() -> None:
    judged = model()
    inputs, target, mask = judged.batch(X, BY_STEP)
    found = judged.judge(judged.network.forward(judged.network.values, inputs), target, mask).signals["readout", "z"]
    assert not found[BY_STEP.T < 0].any()
    assert np.abs(found[BY_STEP.T >= 0]).sum(axis=-1).all()


# Metrics.


def test_metrics_against_counting() -> None:
    judged = model(metrics=["accuracy", {"name": "top_k", "k": 2}, "firing_rate", "spike_sparsity"])
    found, outputs = judged.evaluate(X, LABELS), judged.predict(X)
    order = np.argsort(-outputs.mean(axis=1), axis=-1)
    spikes = judged.trajectory(X).z("hidden")
    assert found["accuracy"] == pytest.approx(np.mean(order[:, 0] == LABELS))
    assert found["top_2"] == pytest.approx(np.mean((order[:, :2] == LABELS[:, None]).any(axis=1)))
    assert found["firing_rate"] == pytest.approx(spikes.sum() / (BATCH * 6 * STEPS * 1e-3))
    assert found["spike_sparsity"] == pytest.approx(1 - spikes.mean())
    assert 0 < spikes.mean() < 1


def test_accuracy_per_step_counts_supervised_steps_only() -> None:
    judged = model(metrics=["accuracy"])
    hits, supervised = judged.predict(X).argmax(axis=-1) == BY_STEP, BY_STEP >= 0
    assert judged.evaluate(X, BY_STEP)["accuracy"] == pytest.approx(hits[supervised].mean())


def test_firing_rate_is_in_hertz() -> None:
    slow, fast = (
        model(metrics=["firing_rate"], dt=dt, tau_membrane=20 * dt, tau_adaptation=200 * dt) for dt in (1e-3, 1e-4)
    )
    assert fast.evaluate(X, LABELS)["firing_rate"] == pytest.approx(10 * slow.evaluate(X, LABELS)["firing_rate"])


# Batches, backends, types.


@pytest.mark.parametrize("y", [LABELS, BY_STEP], ids=["sequence", "step"])
def test_figures_do_not_depend_on_the_batch_size(y: np.ndarray) -> None:
    judged = model(metrics=["accuracy", "firing_rate"])
    expected, outputs = judged.evaluate(X, y), judged.predict(X)
    for size in (1, 2, 3, 5, 100):
        assert judged.evaluate(X, y, batch_size=size) == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(judged.predict(X, batch_size=size), outputs, atol=1e-12)


def test_a_part_without_a_supervised_step_counts_nothing(backend: str) -> None:
    y = BY_STEP.copy()
    y[2] = -1
    kept = [0, 1, 3, 4]
    judged = model(metrics=["accuracy"], backend=backend)
    assert judged.evaluate(X, y, batch_size=1) == pytest.approx(judged.evaluate(X[kept], y[kept]), rel=1e-12)


def test_same_figures_on_every_backend(backend: str) -> None:
    metrics = ["accuracy", {"name": "top_k", "k": 2}, "firing_rate", "spike_sparsity"]
    for readout in ("sequence", "max"):
        expected, found = (model(metrics=metrics, backend=name, readout=readout) for name in ("numpy", backend))
        assert found.evaluate(X, LABELS) == pytest.approx(expected.evaluate(X, LABELS), rel=1e-12)
        np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-12)


@pytest.mark.parametrize("readout", POOLINGS)
def test_shape_of_predictions(readout: str) -> None:
    shape = (BATCH, STEPS, CLASSES) if readout == "sequence" else (BATCH, CLASSES)
    found = model(readout=readout).predict(X)
    assert found.shape == shape
    np.testing.assert_allclose(found.reshape(BATCH, -1, CLASSES), read_out(readout, model().predict(X)), atol=1e-14)


def test_one_example_one_step() -> None:
    found = model(metrics=["accuracy"]).evaluate(X[:1, :1], [LABELS[0]])
    outputs = model().predict(X[:1, :1])[0, 0]
    assert found["loss"] == pytest.approx(cross_entropy(outputs, np.eye(CLASSES)[LABELS[0]]))
    assert found["accuracy"] == float(outputs.argmax() == LABELS[0])


@pytest.mark.parametrize("kind", ["f4", "i8", "u1", "?"])
def test_data_of_any_number_type(kind: str) -> None:
    x = (np.abs(X) * 2).astype(kind)
    np.testing.assert_array_equal(model().predict(x), model().predict(x.astype(float)))
    assert model().evaluate(x.tolist(), LABELS) == model().evaluate(x, LABELS)


def test_data_are_not_changed(backend: str) -> None:
    x, y = X.copy(), BY_STEP.copy()
    judged = model(backend=backend)
    judged.evaluate(x, y)
    judged.predict(x)[...] = 5
    judged.trajectory(x).inputs[...] = 5
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, BY_STEP)


# Clones.


def test_shown_with_model_loss_and_metrics() -> None:
    assert repr(Evaluator(LIF(8, 2), metrics=["accuracy"])) == (
        "Evaluator(LIF(hidden 8, readout 2; numpy, float32), loss=CategoricalCrossentropy(), metrics=[Accuracy()])"
    )


def test_a_clone_follows_its_own_weights(backend: str) -> None:
    judged = model(metrics=["accuracy"], backend=backend)
    before = judged.evaluate(X, LABELS)
    twin = judged.clone()
    assert twin.evaluate(X, LABELS) == before
    twin.network.set_parameters({"readout.bias": [3.0, 0, 0, 0]})
    assert judged.evaluate(X, LABELS) == before
    assert twin.evaluate(X, LABELS)["loss"] != before["loss"]
    assert twin.trajectory(X).z("readout")[0, 0, 0] != judged.trajectory(X).z("readout")[0, 0, 0]


# What is refused.


def test_check_builds_the_network_and_returns_nothing() -> None:
    judged = Evaluator(LIF(3, CLASSES))
    assert judged.check(X, LABELS) is None
    assert judged.network.inputs == FEATURES


def holed(value: float) -> np.ndarray:
    x = X.copy()
    x[3, 5, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X[0], "x must have shape [batch, time, feature] (received: shape (7, 3))"),
        (X[:, :, :2], "this network takes 3 input features (received: 2 features)"),
        (X[:0], "x must have at least one example, time step and feature (received: shape (0, 7, 3))"),
        (X[:, :0], "at least one example, time step and feature"),
        (X[:, :, :0], "at least one example, time step and feature"),
        (holed(np.nan), "x must be finite (received: nan at example 3, step 5, feature 1)"),
        (holed(np.inf), "x must be finite (received: inf at example 3, step 5, feature 1)"),
        (np.stack([holed(np.inf), holed(-np.inf)])[:, 3], "x must be finite"),
        (X.astype(str), "x must hold numbers"),
        (X + 1j, "x must hold numbers"),
        ([[[1, 2, 3]], [[1, 2]]], "x must be a rectangular array of numbers"),
        (None, "x must hold numbers"),
        (3.0, "x must have shape [batch, time, feature] (received: shape ())"),
    ],
)
def test_inputs_that_are_refused(x: Any, says: str) -> None:
    judged = model()
    for call in (
        lambda: judged.check(x),
        lambda: judged.predict(x),
        lambda: judged.evaluate(x, LABELS),
        lambda: judged.trajectory(x),
    ):
        refused(call, DataError, says)


def test_values_beyond_the_type_are_refused_and_large_ones_are_not() -> None:
    refused(lambda: Evaluator(LIF(3, 2)).predict(np.full((1, 2, 3), -1e300)), DataError, "within the range of float32")
    assert np.isfinite(Evaluator(LIF(3, 2, dtype="float64")).predict(np.full((1, 2, 3), 1e150))).all()
    Evaluator(LIF(3, 2, dtype="float64")).check(np.full((2, 2, 3), 1e308))


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (LABELS[:3], "y must have one entry per example (5) (received: shape (3,))."),
        (np.zeros(STEPS, int), "x is [batch, time, feature]: turn one that has time first by x.swapaxes(0, 1)."),
        (np.full((BATCH, CLASSES), -0.5), "task_type='regression' and a loss such as mean_squared_error."),
        (LABELS + 1, "a label must be between 0 and 3 (received: label 4)"),
        (np.full((BATCH, STEPS), -1), "at least one time step must be supervised (received: only labels of -1)"),
        (np.full((BATCH, CLASSES), 0.5), "the probabilities of a target must sum to 1 (received: a sum of 2)"),
        (np.full((BATCH, STEPS, CLASSES), -0.25), "the probabilities of a target must be at least 0 (received: -0.25)"),
        (np.ones((BATCH, CLASSES), int), "the probabilities of a target must sum to 1"),
    ],
)
def test_targets_that_are_refused(y: Any, says: str) -> None:
    judged = model()
    refused(lambda: judged.check(X, y), DataError, says)
    refused(lambda: judged.evaluate(X, y), DataError, says)


def test_negative_counts_are_refused() -> None:
    poisson = model("poisson", task_type="regression")
    refused(
        lambda: poisson.check(X, np.full((BATCH, STEPS, CLASSES), -1.0)),
        DataError,
        "counts of at least 0 (received: -1.0)",
    )


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: Evaluator("ALIF"),
            IncompatibleError,
            "an Evaluator takes a Network such as ALIF(128, 10) (received: ALIF)",
        ),
        (lambda: model("mean_square_error"), ArgumentError, "did you mean 'mean_squared_error'?"),
        (lambda: model(metrics=["accurancy"]), ArgumentError, "did you mean 'accuracy'?"),
        (
            lambda: model("kl", task_type="regression"),
            IncompatibleError,
            "received: a model with task_type='regression'",
        ),
        (
            lambda: model(metrics=["accuracy"], task_type="regression"),
            IncompatibleError,
            "accuracy is for classification",
        ),
        (lambda: model(metrics=["firing_rate"], cell=RNN), IncompatibleError, "firing_rate needs spiking neurons"),
        (lambda: model(metrics=[{"name": "top_k", "k": 0}]), ArgumentError, "k must be a whole number of at least 1"),
        (
            lambda: model().evaluate(X, LABELS, batch_size=0),
            ArgumentError,
            "batch_size must be a whole number of at least 1",
        ),
        (lambda: model().predict(X, batch_size=2.5), ArgumentError, "batch_size must be a whole number"),
        (
            lambda: model(metrics=[{"name": "top_k", "k": 5}]).evaluate(X, LABELS),
            IncompatibleError,
            "(received: k = 5 for 4 outputs)",
        ),
        (lambda: model(metrics="accuracy"), ArgumentError, "metrics must be a list"),
        (lambda: model(metrics={"name": "accuracy"}), ArgumentError, "metrics must be a list"),
        (lambda: model().evaluate(X, [[0, 1], [0]]), DataError, "y must be a rectangular array of numbers"),
    ],
)
def test_refusals(call: Any, error: type[NekoError], says: str) -> None:
    """The error has the given type and says what was received or would work, in one sentence."""
    refused(call, error, says)


def refused(call: Any, error: type[NekoError], says: str) -> None:
    with pytest.raises(error) as refusal:
        call()
    sentence = str(refusal.value)
    assert says in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


def test_a_loss_or_metric_that_is_assigned_has_to_fit_too() -> None:
    model = Evaluator(LIF(4, 2), metrics=["accuracy"])
    with pytest.raises(IncompatibleError, match="needs an output population that spikes"):
        model.loss = "ce_count"
    with pytest.raises(ArgumentError, match="each metric can be given once"):
        model.metrics = ["accuracy", "accuracy"]
    assert model.figures == ("loss", "accuracy")
