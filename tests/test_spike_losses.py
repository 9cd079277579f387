"""Losses of spiking outputs: scores by hand, derivatives three ways, masks, population codes, decisions, training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from credit_cases import DEFERRED, by_autodiff, deferred, distance
from loss_cases import OF_SPIKES
from trees import converted

from neko_rules import BPTT, LIF, RNN, Evaluator, FiringRate, Layer, Stack
from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.layers.forward import Record, Trajectory
from neko_rules.layers.pooling import POOLINGS
from neko_rules.losses import LOSSES, Loss, output_gradient, weighted_total
from neko_rules.losses.spikes import FirstSpikeSquaredError, RelativeFirstSpikeSquaredError, first_spikes
from neko_rules.rules import RULES

NX = get_backend("numpy")
TIMES = ["first_spike_crossentropy", "first_spike_squared_error", "relative_first_spike_squared_error"]
SMOOTH = [name for name in OF_SPIKES if name not in TIMES]
GROUPED = [name for name in OF_SPIKES if hasattr(LOSSES.resolve(name), "classes")]
WHOLE = [name for name in OF_SPIKES if not LOSSES.resolve(name).online]
CLASSES, STEPS, BATCH = 3, 8, 4

X = np.random.default_rng(0).standard_normal((BATCH, STEPS, 5))
LABELS = np.array([0, 2, 1, 2])
LENGTHS = np.array([8, 5, 3, 1])
PADDED = np.where(np.arange(STEPS) < LENGTHS[:, None], LABELS[:, None], -1)
MASK = (PADDED.T >= 0).astype(float)


def spiking(loss: Any, backend: str = "numpy", outputs: int = CLASSES, **options: Any) -> Evaluator:
    strong = {"name": "scaled_normal", "gain": 2.5}
    network = Stack(
        [Layer("lif", 7, initializer=strong)], outputs, inputs=5, backend=backend,
        **{"dtype": "float64", "seed": 2, "output_cell": "lif", "readout_initializer": strong, **options},
    )  # fmt: skip
    return Evaluator(network, loss, options.pop("metrics", ()))


def histories(seed: int = 3, neurons: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membranes of an output population, [8, 4, neuron]; its last neuron never fires in example 0."""
    rng = np.random.default_rng(seed)
    spikes = (rng.uniform(size=(STEPS, BATCH, neurons)) < 0.25).astype(float)
    spikes[:, 0, -1] = 0
    return spikes, rng.normal(size=(STEPS, BATCH, neurons))


def observed(loss: Loss, **options: Any) -> np.ndarray:
    return histories(**options)[loss.observes == "v"]


def total(loss: Loss, task: str = "classification", group: int = 1) -> Callable[..., Any]:
    """E of a history [time, batch, neuron], target and mask, as an Evaluator forms it."""

    def judged(nx: Any, history: Any, target: Any, mask: Any) -> Any:
        scores = loss.scores(nx, history, mask)
        counted = mask if loss.online else nx.max(mask, axis=0, keepdims=True)
        wanted = loss.desired(nx, scores, target, nx.sum(mask, axis=0, keepdims=True), task, group)
        return weighted_total(nx, loss, scores, wanted, counted)

    return judged


def derivative(loss: Loss, task: str = "classification", group: int = 1) -> Callable[..., Any]:
    def pulled(nx: Any, history: Any, target: Any, mask: Any) -> Any:
        scores = loss.scores(nx, history, mask)
        counted = mask if loss.online else nx.max(mask, axis=0, keepdims=True)
        wanted = loss.desired(nx, scores, target, nx.sum(mask, axis=0, keepdims=True), task, group)
        return loss.pull_back(nx, history, mask, output_gradient(nx, loss, scores, wanted, counted))

    return pulled


def target_of(classes: int = CLASSES) -> np.ndarray:
    return np.eye(classes)[LABELS % classes][None]


# Values by hand.


def log_softmax(row: list[float], k: int) -> float:
    return row[k] - math.log(sum(math.exp(each) for each in row))


def by_hand(name: str, history: list[list[float]], label: int) -> float:
    """The loss of one example whose every step is supervised, in plain floats; history [time][neuron]."""
    steps, neurons = len(history), len(history[0])
    columns = [[row[k] for row in history] for k in range(neurons)]
    times = [float(column.index(1.0)) if 1.0 in column else float(steps) for column in columns]
    if name in ("spike_rate_crossentropy", "membrane_crossentropy"):
        return sum(-log_softmax(row, label) for row in history)
    if name == "membrane_squared_error":
        return sum((each - (k == label)) ** 2 for row in history for k, each in enumerate(row))
    if name == "spike_count_squared_error":
        return sum((sum(column) - steps * (k == label)) ** 2 for k, column in enumerate(columns))
    if name == "first_spike_squared_error":
        return sum(((t - (0 if k == label else steps)) / steps) ** 2 for k, t in enumerate(times))
    if name == "relative_first_spike_squared_error":
        first = min(times)
        wanted = [t if t >= first + 3 else min(first + 3, steps) for t in times]
        wanted[label] = first if first < steps else steps - 3
        return sum(((t - w) / steps) ** 2 for t, w in zip(times, wanted, strict=True))
    scores = {
        "spike_count_crossentropy": [sum(column) for column in columns],
        "maximum_membrane_crossentropy": [max(column) for column in columns],
        "summed_membrane_crossentropy": [sum(column) for column in columns],
        "first_spike_crossentropy": [-t for t in times],
    }[name]
    return -log_softmax(scores, label)


@pytest.mark.parametrize("name", OF_SPIKES)
def test_value_by_hand(name: str) -> None:
    loss = LOSSES.resolve(name)
    history = observed(loss)
    expected = sum(by_hand(name, history[:, b].tolist(), int(LABELS[b])) for b in range(BATCH))
    assert total(loss)(NX, history, target_of(), np.ones((STEPS, BATCH))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", OF_SPIKES)
def test_padding_counts_for_nothing(name: str) -> None:
    """Sequences of different lengths in one batch: each is worth what it is worth alone, without its padding."""
    loss = LOSSES.resolve(name)
    history = observed(loss)
    alone = [by_hand(name, history[: LENGTHS[b], b].tolist(), int(LABELS[b])) for b in range(BATCH)]
    assert total(loss)(NX, history, target_of(), MASK) == pytest.approx(sum(alone), rel=1e-12)
    filled = np.where(MASK[..., None] > 0, history, 1.0)
    assert total(loss)(NX, filled, target_of(), MASK) == pytest.approx(sum(alone), rel=1e-12)
    assert not derivative(loss)(NX, history, target_of(), MASK)[MASK == 0].any()


def test_first_spikes_of_a_window_are_counted_from_its_start() -> None:
    spikes = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], float)[:, None]
    mask = np.array([0.0, 1, 1, 1, 0])[:, None]
    times, chosen = first_spikes(NX, spikes, mask)
    assert times.ravel().tolist() == [2.0, 1.0, 3.0]
    assert chosen[:, 0].T.tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]


def test_options_of_the_spike_times() -> None:
    spikes = np.array([[0, 0], [1, 0], [0, 0], [0, 0]], float)[:, None]
    mask, target = np.ones((4, 1)), np.array([[[1.0, 0.0]]])
    cases: list[tuple[dict[str, Any], float]] = [
        ({}, 1 / 16), ({"correct": 3}, 4 / 16), ({"incorrect": 2}, 5 / 16), ({"tolerance": 1.5}, 0.0),
        ({"incorrect": 2, "tolerance": 1.5}, 4 / 16), ({"tolerance": 1}, 1 / 16),
    ]  # fmt: skip
    for options, expected in cases:
        assert total(FirstSpikeSquaredError(**options))(NX, spikes, target, mask) == pytest.approx(expected), options
    given = total(FirstSpikeSquaredError(), "regression")(NX, spikes, np.array([[[3.0, 2.0]]]), mask)
    assert given == pytest.approx(8 / 16)
    negated = LOSSES.resolve({"name": "ce_temporal", "time_scale": 2.0}).scores(NX, spikes, mask)
    assert negated.ravel().tolist() == [-0.5, -2.0]
    reciprocal = LOSSES.resolve({"name": "ce_temporal", "inverse": "reciprocal"}).scores(NX, spikes, mask)
    assert reciprocal.ravel().tolist() == [0.5, 0.2]


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([2, 3, 8], [4, 2, 8]),
        ([2, 2, 3], [4, 2, 4]),
        ([8, 8, 8], [8, 6, 8]),
        ([7, 8, 8], [8, 7, 8]),
        ([1, 5, 3], [3, 1, 3]),
    ],
)
def test_relative_targets_by_hand(times: list[float], wanted: list[float]) -> None:
    """Eight steps, the class in the middle, a margin of two."""
    scores, label = -np.array([[times]], float) / 8, np.array([[[0.0, 1.0, 0.0]]])
    found = RelativeFirstSpikeSquaredError(margin=2).desired(NX, scores, label, np.full((1, 1), 8.0), "classification")
    np.testing.assert_allclose(-8 * found.ravel(), wanted, rtol=1e-12)


def test_rates_and_groups_of_a_count_target() -> None:
    loss = LOSSES.resolve({"name": "mse_count", "correct": 0.5, "incorrect": 0.25, "classes": 2})
    wanted = loss.desired(NX, np.zeros((1, 1, 2)), np.array([[[0.0, 1.0]]]), np.array([[8.0]]), "classification", 3)
    assert wanted.tolist() == [[[6.0, 12.0]]]
    given = loss.desired(NX, np.zeros((1, 1, 2)), np.array([[[5.0, 1.0]]]), np.array([[8.0]]), "regression", 3)
    assert given.tolist() == [[[5.0, 1.0]]]


def test_population_codes_sum_neighbours() -> None:
    spikes = histories(neurons=6)[0]
    loss = LOSSES.resolve({"name": "ce_count", "classes": 3})
    expected = spikes.sum(axis=0).reshape(BATCH, 3, 2).sum(axis=-1)
    np.testing.assert_array_equal(loss.scores(NX, spikes, np.ones((STEPS, BATCH)))[0], expected)
    one = LOSSES.resolve({"name": "ce_count", "classes": 6}).scores(NX, spikes, np.ones((STEPS, BATCH)))
    np.testing.assert_array_equal(one[0], spikes.sum(axis=0))


# Derivatives.


def check_central_differences(loss: Loss, history: np.ndarray, target: np.ndarray, group: int = 1) -> None:
    analytic, h = derivative(loss, group=group)(NX, history, target, MASK), 1e-6
    numeric = np.zeros_like(history)
    for index in np.ndindex(*history.shape):
        ends = []
        for sign in (1, -1):
            moved = history.copy()
            moved[index] += sign * h
            ends.append(float(total(loss, group=group)(NX, moved, target, MASK)))
        numeric[index] = (ends[0] - ends[1]) / (2 * h)
    assert np.linalg.norm(numeric) > 1e-2
    assert np.linalg.norm(analytic - numeric) < 1e-7 * np.linalg.norm(numeric)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivative_is_that_of_central_differences(name: str) -> None:
    """Spikes are taken as real numbers, in which these losses are smooth."""
    loss = LOSSES.resolve(name)
    check_central_differences(loss, observed(loss), target_of())


def test_a_derivative_that_forgets_the_mask_or_the_group_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Any = LOSSES.resolve("ce_count")
    monkeypatch.setattr(type(plain), "pull_back", lambda self, nx, history, mask, gradient: gradient + 0 * history)
    with pytest.raises(AssertionError):
        check_central_differences(plain, observed(plain), target_of())
    monkeypatch.undo()
    grouped: Any = LOSSES.resolve({"name": "ce_rate", "classes": 3})
    tiled = lambda self, nx, history, gradient: np.tile(gradient, 2)  # noqa: E731
    monkeypatch.setattr(type(grouped), "_spread", tiled)
    with pytest.raises(AssertionError):
        check_central_differences(grouped, observed(grouped, neurons=6), target_of(), group=2)


@pytest.mark.parametrize("name", GROUPED)
def test_derivative_of_a_population_code_is_that_of_central_differences(name: str) -> None:
    loss = LOSSES.resolve({"name": name, "classes": 3})
    check_central_differences(loss, observed(loss, neurons=6), target_of(), group=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in TIMES],
        ("ce_temporal", {"inverse": "reciprocal"}),
        ("ce_temporal", {"inverse": "reciprocal", "time_scale": 3.0}),
        ("ce_temporal", {"time_scale": 3.0}),
        ("mse_temporal", {"correct": 2, "incorrect": 5}),
        ("mse_temporal", {"tolerance": 2}),
        ("mse_temporal_relative", {"margin": 2}),
    ],
)
def test_derivative_of_spike_times_is_the_one_defined(name: str, options: dict[str, Any]) -> None:
    """dE/dz is -dE/dt at the first spike, dE/dt by central differences of the loss as a function of times."""
    loss: Any = LOSSES.resolve({"name": name, **options})
    history, target = observed(loss), target_of()
    times, chosen = first_spikes(NX, history, MASK)
    supervised = MASK.sum(axis=0, keepdims=True)
    wanted = loss.desired(NX, loss.scores(NX, history, MASK), target, supervised, "classification")

    def at(moved: np.ndarray) -> float:
        return float(loss.value(NX, loss._score(NX, moved, MASK), wanted).sum())

    slope, h = np.zeros_like(times), 1e-6
    for index in np.ndindex(*times.shape):
        shift = np.zeros_like(times)
        shift[index] = h
        slope[index] = (at(times + shift) - at(times - shift)) / (2 * h)
    assert np.abs(slope).max() > 1e-2
    np.testing.assert_allclose(derivative(loss)(NX, history, target, MASK), -chosen * slope, rtol=1e-6, atol=1e-8)
    assert chosen.sum() == BATCH * CLASSES


def test_a_late_class_is_pulled_forward_and_an_early_rival_pushed_back() -> None:
    spikes = np.array([[0, 1], [0, 0], [1, 0], [0, 0]], float)[:, None]
    for name in TIMES:
        found = derivative(LOSSES.resolve(name))(NX, spikes, np.array([[[1.0, 0.0]]]), np.ones((4, 1)))[:, 0]
        assert found[2, 0] < 0, name
        assert found[0, 1] > 0, name
        assert np.count_nonzero(found) == 2, name


def test_a_silent_class_learns_to_fire_at_its_last_step() -> None:
    for name in TIMES:
        found = derivative(LOSSES.resolve(name))(NX, np.zeros((4, 1, 2)), np.array([[[1.0, 0.0]]]), np.ones((4, 1)))
        assert found[3, 0, 0] < 0, name
        assert not found[:3].any(), name


@pytest.mark.parametrize("name", OF_SPIKES)
@pytest.mark.parametrize("y", [LABELS, PADDED], ids=["whole", "padded"])
def test_bptt_is_autodiff_through_the_network(name: str, y: np.ndarray) -> None:
    pytest.importorskip("torch")
    model = spiking(name, "torch")
    assert 0.02 < model.trajectory(X).z("readout").mean() < 0.98
    assert distance(BPTT(model).gradients(X, y), by_autodiff(model, X, y)) < 1e-12
    assert distance(BPTT(model).gradients(X, y), BPTT(spiking("ce_rate", "torch")).gradients(X, LABELS)) > 1e-3 or (
        name == "spike_rate_crossentropy" and y is LABELS
    )


@pytest.mark.parametrize("name", OF_SPIKES)
def test_judgement_is_that_of_the_loss(name: str) -> None:
    """Signals go to what the loss looks at, and are the derivative of the mean over what counts."""
    model = spiking(name)
    loss = model.loss
    inputs, target, mask = model.batch(X, PADDED)
    trajectory = model.network.forward(model.network.values, inputs)
    judged = model.judge(trajectory, target, mask)
    history = trajectory.z("readout") if loss.observes == "z" else trajectory.records["readout"].states["v"]
    count = MASK.sum() if loss.online else BATCH
    assert judged.loss == pytest.approx(total(loss)(NX, history, target, MASK) / count, rel=1e-12)
    assert list(judged.signals) == [("readout", loss.observes)]
    expected = derivative(loss)(NX, history, target, MASK) / count
    np.testing.assert_allclose(judged.signals["readout", loss.observes], expected, rtol=1e-12, atol=1e-15)
    assert float(judged.totals["loss"][1]) == count


# On every backend.


def test_same_on_every_backend(evaluate: Callable[..., Any]) -> None:
    """Value and derivative of every loss, with padding, and with a population code where there may be one."""
    groups = {name: 2 if name in GROUPED else 1 for name in OF_SPIKES}
    losses = {n: LOSSES.resolve({"name": n, **({"classes": 3} if n in GROUPED else {})}) for n in OF_SPIKES}
    arrays: Any = ({n: observed(loss, neurons=3 * groups[n]) for n, loss in losses.items()}, target_of(), MASK)
    copies = converted(np.copy, arrays)

    def everything(nx: Any, histories: Any, *given: Any) -> dict[str, Any]:
        return {
            name: (
                total(loss, group=groups[name])(nx, histories[name], *given),
                derivative(loss, group=groups[name])(nx, histories[name], *given),
            )
            for name, loss in losses.items()
        }

    expected, found = everything(NX, *arrays), evaluate(everything, *arrays)
    narrow = evaluate(everything, *converted(lambda array: array.astype("float32"), arrays))
    for name in OF_SPIKES:
        assert found[name][0] == pytest.approx(expected[name][0], rel=1e-10), name
        np.testing.assert_allclose(found[name][1], expected[name][1], rtol=1e-10, atol=1e-14)
        assert narrow[name][0].dtype == narrow[name][1].dtype == np.float32, name
        np.testing.assert_allclose(narrow[name][1], expected[name][1], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(arrays[0][name], copies[0][name])
    for array, copy in zip(arrays[1:], copies[1:], strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", OF_SPIKES)
def test_sizes_zero_and_one(name: str) -> None:
    loss = LOSSES.resolve(name)
    one = np.ones((1, 1, 1))
    assert total(loss)(NX, one, one, np.ones((1, 1))).shape == ()
    assert np.isfinite(derivative(loss)(NX, one, one, np.ones((1, 1)))).all()
    empty = np.ones((2, 0, 3))
    assert total(loss)(NX, empty, empty[:1], np.ones((2, 0))) == 0
    assert derivative(loss)(NX, empty, empty[:1], np.ones((2, 0))).shape == (2, 0, 3)


# Within an Evaluator.


@pytest.mark.parametrize("name", OF_SPIKES)
def test_accuracy_decides_as_the_loss_does(name: str) -> None:
    """The largest count or membrane, or the earliest spike, over the supervised steps alone."""
    model = Evaluator(spiking(name).network, name, ["accuracy", {"name": "top_k", "k": 2}])
    spikes, membranes = histories()
    record = Record({"v": membranes}, spikes, None)
    hidden = Record({"v": np.zeros((STEPS, BATCH, 7))}, np.zeros((STEPS, BATCH, 7)), None)
    _, target, mask = model.batch(X, PADDED)
    totals = model.judge(Trajectory(X.transpose(1, 0, 2), {"hidden": hidden, "readout": record}), target, mask).totals
    hits, count = 0, 0
    for b in range(BATCH):
        z, v = spikes[: LENGTHS[b], b], membranes[: LENGTHS[b], b]
        times = [int(np.argmax(z[:, k])) if z[:, k].any() else LENGTHS[b] for k in range(CLASSES)]
        if model.loss.online:
            rows = z if model.loss.observes == "z" else v
            hits, count = hits + int((rows.argmax(axis=1) == LABELS[b]).sum()), count + len(rows)
            continue
        decided = {"count": z.sum(axis=0).argmax(), "maximum": v.max(axis=0).argmax(), "summed": v.sum(axis=0).argmax()}
        chosen = next((decided[word] for word in decided if word in name), int(np.argmin(times)))
        hits, count = hits + int(chosen == LABELS[b]), count + 1
    assert [float(part) for part in totals["accuracy"]] == [hits, count]
    assert hits <= float(totals["top_2"][0]) <= count


@pytest.mark.parametrize("name", OF_SPIKES)
def test_predictions_are_what_decisions_are_made_on(name: str) -> None:
    model = spiking(name)
    found, recorded = model.predict(X, batch_size=3), model.trajectory(X)
    history = recorded.z("readout") if model.loss.observes == "z" else recorded.records["readout"].states["v"]
    scores = model.loss.scores(NX, history, np.ones((STEPS, BATCH)))
    expected = scores.transpose(1, 0, 2) if model.loss.online else scores[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", OF_SPIKES)
def test_figures_do_not_depend_on_the_batch_size(name: str) -> None:
    model = Evaluator(spiking(name).network, name, ["accuracy"])
    expected = model.evaluate(X, PADDED)
    assert model.evaluate(X, PADDED, batch_size=3) == pytest.approx(expected, rel=1e-12)
    # An example of which nothing counts changes nothing, not even in a part of its own.
    x, y = np.concatenate([X, X[:1]]), np.concatenate([PADDED, np.full((1, STEPS), -1)])
    assert model.evaluate(x, y, batch_size=4) == pytest.approx(expected, rel=1e-12)
    assert model.evaluate(X, LABELS)["loss"] != pytest.approx(expected["loss"], rel=1e-6)


def test_targets_and_metrics_of_a_population_code_have_its_classes() -> None:
    model = Evaluator(spiking("ce_count", outputs=12).network, {"name": "ce_count", "classes": 3}, ["accuracy"])
    assert (model.scores, model.predict(X).shape) == (3, (BATCH, 3))
    assert model.batch(X, LABELS)[1].shape == (1, BATCH, 3)
    counts = model.trajectory(X).z("readout").sum(axis=0).reshape(BATCH, 3, 4).sum(axis=-1)
    assert model.evaluate(X, LABELS)["accuracy"] == (counts.argmax(axis=1) == LABELS).mean()
    with pytest.raises(DataError, match="between 0 and 2"):
        model.check(X, LABELS + 1)
    with pytest.raises(IncompatibleError, match="top-k"):
        Evaluator(model.network, model.loss, [{"name": "top_k", "k": 4}])


@pytest.mark.parametrize("name", ["mse_count", "mse_temporal"])
def test_values_of_a_whole_sequence_are_given_once(name: str) -> None:
    model = spiking(name, task_type="regression")
    wanted = np.array([[1.0, 4.0, 2.0]] * BATCH)
    spikes = model.trajectory(X).z("readout")
    times = first_spikes(NX, spikes, np.ones((STEPS, BATCH)))[0][0]
    found = spikes.sum(axis=0) if name == "mse_count" else times / STEPS
    expected = ((found - (wanted if name == "mse_count" else wanted / STEPS)) ** 2).sum(axis=-1).mean()
    assert model.evaluate(X, wanted)["loss"] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(DataError, match="at least 0"):
        model.check(X, -wanted)
    with pytest.raises(DataError, match="regression targets"):
        model.check(X, np.zeros((BATCH, STEPS, CLASSES)))


def test_membranes_of_a_regression_are_given_at_every_step() -> None:
    model = spiking("mse_membrane", task_type="regression")
    wanted = np.random.default_rng(5).normal(size=(BATCH, STEPS, CLASSES))
    v = model.trajectory(X).records["readout"].states["v"].transpose(1, 0, 2)
    assert model.evaluate(X, wanted)["loss"] == pytest.approx(((v - wanted) ** 2).sum(axis=-1).mean(), rel=1e-12)


def test_losses_of_membranes_take_a_leaky_readout() -> None:
    """On the leaky readout the membrane is the output, and max_t is what the pooling gives."""
    plain = {"output_cell": None}
    one = spiking("ce_max_membrane", **plain).evaluate(X, LABELS)
    assert one == pytest.approx(spiking("cce", readout="max", **plain).evaluate(X, LABELS), rel=1e-12)
    assert spiking("ce_membrane", **plain).evaluate(X, LABELS) == pytest.approx(
        spiking("cce", **plain).evaluate(X, LABELS), rel=1e-12
    )
    assert spiking("ce_rate").evaluate(X, LABELS) == pytest.approx(spiking("cce").evaluate(X, LABELS), rel=1e-12)


WITHIN = ("decolle", "truncated_bptt")
"""Rules that judge parts of a sequence, which a loss of the whole cannot: a layer's own steps, or windows."""


@pytest.mark.parametrize("name", OF_SPIKES)
@pytest.mark.parametrize("rule", [name for name in DEFERRED if RULES[name].descends == "always"])
def test_training_lowers_every_loss_with_every_rule(rule: str, name: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, CLASSES, 24)
    x = np.zeros((24, 12, 6))
    x[np.arange(24), :, y] = 1.5
    x = x + 0.1 * rng.standard_normal(x.shape)
    # The times of spikes are followed where membranes are driven by currents that flow, and all outputs fire.
    synapses: dict[str, Any] = {"tau_synapse": 3e-3} if rule == "event_prop" else {}
    strong = {"readout_initializer": {"name": "scaled_normal", "gain": 2.0}} if synapses else {}
    output = {"name": "lif", "tau_membrane": 5e-3, **synapses}
    network = LIF(24, CLASSES, recurrent=False, output_cell=output, dtype="float64", **synapses, **strong)
    model = Evaluator(network, name, ["accuracy"])
    if rule == "event_prop" and model.loss.observes == "z" and not model.loss.of_times:
        with pytest.raises(IncompatibleError, match="does not change with the times"):
            deferred(rule, model)
        return
    if not model.loss.online and rule in WITHIN:
        with pytest.raises(IncompatibleError, match="has no value before the end"):
            deferred(rule, model)
        return
    trained = deferred(rule, model, optimizer={"name": "adam", "learning_rate": 0.01})
    network.build(6)
    before = trained.model.evaluate(x, y)
    for _ in range(60):
        trained.step(x, y)
    after = trained.model.evaluate(x, y)
    assert after["loss"] < 0.9 * before["loss"]
    assert after["accuracy"] > 0.8


def test_a_spiking_output_is_regularised_like_any_population() -> None:
    model = spiking("ce_count")
    plain = BPTT(model).gradients(X, LABELS)
    found = BPTT(model, regularizers=[FiringRate(populations=["readout"], strength=50.0)]).gradients(X, LABELS)
    assert np.linalg.norm(found["readout.bias"] - plain["readout.bias"]) > 1e-3


# Names, and what is refused.


def test_losses_are_found_under_the_names_of_snntorch() -> None:
    names = {
        "ce_rate": "SpikeRateCrossentropy", "ce_count": "SpikeCountCrossentropy",
        "ce_max_membrane": "MaximumMembraneCrossentropy", "ce_temporal": "FirstSpikeCrossentropy",
        "mse_count": "SpikeCountSquaredError", "mse_membrane": "MembraneSquaredError",
        "mse_temporal": "FirstSpikeSquaredError",
    }  # fmt: skip
    for name, expected in names.items():
        assert type(LOSSES.resolve(name)).__name__ == type(LOSSES.resolve(f"{name}_loss")).__name__ == expected
    online = {name for name in OF_SPIKES if LOSSES.resolve(name).online}
    assert online == {"spike_rate_crossentropy", "membrane_crossentropy", "membrane_squared_error"}
    assert all(LOSSES.resolve(name).online for name in LOSSES if name not in OF_SPIKES)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Evaluator(LIF(4, 3), "ce_count"), "output population that spikes"),
        (lambda: Evaluator(RNN(4, 3), "mse_temporal"), "output population that spikes"),
        (lambda: spiking({"name": "ce_count", "classes": 2}), "multiple of 2 output neurons"),
        (lambda: spiking("ce_count", task_type="regression"), "is for classification"),
        (lambda: spiking("relative_first_spike_squared_error", task_type="regression"), "is for classification"),
        *[
            (lambda n=name, r=readout: spiking(n, readout=r), "reads the whole sequence itself")
            for name in WHOLE
            for readout in POOLINGS[1:]
        ],
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(IncompatibleError, match=said):
        call()


def test_an_output_without_a_membrane_is_refused() -> None:
    from neko_rules.layers.cell import Cell

    class Stateless(Cell):
        states = ("u",)

        def constants(self, dt: float) -> dict[str, Any]:
            return {}

    with pytest.raises(IncompatibleError, match="with the state 'v'"):
        spiking("ce_max_membrane", output_cell=Stateless())


@pytest.mark.parametrize("name", WHOLE)
def test_labels_that_change_within_a_sequence_are_refused(name: str) -> None:
    changing = PADDED.copy()
    changing[0, 3] = 1
    with pytest.raises(DataError, match="one target per example"):
        spiking(name).check(X, changing)
    assert spiking("ce_rate").check(X, changing) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ce_count", {"classes": 0}), ("mse_count", {"correct": 1.5}), ("mse_count", {"incorrect": -0.1}),
        ("mse_membrane", {"correct": math.inf}), ("mse_temporal", {"correct": -1}), ("mse_temporal", {"incorrect": -1}),
        ("mse_temporal", {"tolerance": -1}), ("mse_temporal", {"correct": None}),
        ("mse_temporal_relative", {"margin": 0}),
        ("ce_temporal", {"inverse": "invert"}), ("ce_temporal", {"time_scale": 0}), ("mse_membrane", {"classes": 2}),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        LOSSES.resolve({"name": name, **options})
