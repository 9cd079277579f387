"""Calibration, risk and coverage, deep ensembles, Monte-Carlo dropout, and the figures of doubt."""

import numpy as np
import pytest
from scipy import stats

from neko_rules import BPTT, LIF, RNN, EProp, Evaluator, Trainer
from neko_rules.errors import ArgumentError, DataError, IncompatibleError
from neko_rules.probabilistic.calibration import (
    area_under_risk_coverage,
    calibration_curve,
    expected_calibration_error,
    negative_log_likelihood,
    rank_test,
    risk_coverage,
)
from neko_rules.probabilistic.comparisons import Ensemble, MonteCarloDropout, deep_ensemble
from neko_rules.probabilistic.predictive import Predictive, of_logits
from neko_rules.report.uncertainty import save_uncertainty_figure, uncertainty_figure


def honest(examples, seed=0, sharpen=1.0):
    """Probabilities that are frequencies, and labels drawn from them; sharpened, they claim too much."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), size=examples)
    labels = (rng.random((examples, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    told = p**sharpen / np.sum(p**sharpen, axis=1, keepdims=True)
    return told, labels


def test_honest_probabilities_are_calibrated_and_sharpened_ones_are_not():
    told, labels = honest(100_000)
    curve = calibration_curve(told, labels)
    filled = curve.counts > 200
    error = np.sqrt(curve.confidence * (1 - curve.confidence) / np.maximum(curve.counts, 1))
    assert (np.abs(curve.accuracy - curve.confidence)[filled] < 4.5 * error[filled]).all()
    assert expected_calibration_error(told, labels) < 0.01
    boastful, _ = honest(100_000, sharpen=3.0)
    assert expected_calibration_error(boastful, labels) > 0.1
    assert negative_log_likelihood(boastful, labels) > negative_log_likelihood(told, labels)


def test_bins_are_counted_by_hand():
    told = np.array([[0.55, 0.45], [0.6, 0.4], [0.95, 0.05], [0.95, 0.05], [1.0, 0.0]])
    curve = calibration_curve(told, np.array([0, 1, 0, 1, 0]))
    assert curve.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    np.testing.assert_allclose(curve.accuracy[[5, 9]], [1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.confidence[[5, 9]], [0.575, 2.9 / 3])
    expected = 2 / 5 * 0.075 + 3 / 5 * (2.9 / 3 - 2 / 3)
    assert abs(expected_calibration_error(told, np.array([0, 1, 0, 1, 0])) - expected) < 1e-12


def test_risk_rises_with_coverage_if_doubt_is_where_errors_are():
    rng = np.random.default_rng(0)
    doubt = rng.random(2000)
    right = rng.random(2000) > doubt / 2
    coverage, risk = risk_coverage(doubt, right)
    assert coverage[-1] == 1
    assert risk[-1] == np.mean(~right)
    assert risk[999] < 0.7 * risk[-1]
    assert area_under_risk_coverage(doubt, right) < area_under_risk_coverage(rng.random(2000), right)
    assert area_under_risk_coverage((~right).astype(float), right) < area_under_risk_coverage(doubt, right)
    chance, p_value = rank_test(doubt, right)
    wrong, sure = doubt[~right][:, None], doubt[right][None]
    assert abs(chance - np.mean(wrong > sure)) < 1e-12
    assert p_value < 1e-10
    assert rank_test(-doubt, right)[1] > 0.99


def test_what_does_not_fit_is_refused():
    told, labels = honest(10)
    with pytest.raises(DataError, match="integer labels"):
        calibration_curve(told, labels.astype(float))
    with pytest.raises(DataError, match="same examples"):
        risk_coverage(np.ones(3), np.ones(4, bool))
    with pytest.raises(DataError, match="right predictions and wrong ones"):
        rank_test(np.ones(3), np.ones(3, bool))
    with pytest.raises(ArgumentError, match="rate must be"):
        MonteCarloDropout(BPTT(Evaluator(LIF(4, 2))), rate=1.0)
    with pytest.raises(DataError, match="at least one model"):
        Ensemble([])


def data(examples=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=examples)
    return rng.normal(size=(examples, 8, 2)) + (2 * y - 1)[:, None, None], y


def test_a_deep_ensemble_is_the_mean_of_its_members():
    x, y = data()
    ensemble = deep_ensemble(
        lambda seed: EProp(
            Evaluator(LIF(10, 2, readout="mean", seed=seed, dtype="float64")),
            optimizer={"name": "adam", "learning_rate": 1e-2},
        ),
        lambda rule: Trainer(rule).train(x, y, epochs=6, batch_size=20),
        members=3,
    )
    logits = [model.predict(x) for model in ensemble.models]
    np.testing.assert_allclose(ensemble.predict(x).probabilities, of_logits(logits).probabilities, rtol=1e-12)
    assert ensemble.predict(x).mutual_information.max() > 1e-3
    assert np.mean(ensemble.predict(x).classes == y) > 0.8


def test_dropout_without_dropping_is_the_rule_itself():
    x, y = data()
    plain, dropped = (EProp(Evaluator(LIF(10, 2, readout="mean", dtype="float64"))) for _ in range(2))
    wrapped = MonteCarloDropout(dropped, rate=0.0)
    for _ in range(3):
        plain.step(x, y)
        wrapped.step(x, y)
    for name, value in plain.model.network.parameters.items():
        np.testing.assert_allclose(dropped.model.network.parameters[name], value, rtol=1e-12)


def test_a_step_with_dropout_is_the_gradient_with_the_mask():
    # With plain gradient descent, Δw = -learning rate · mask · gradient at the masked weights.
    x, y = data()
    rule = BPTT(Evaluator(RNN(6, 2, readout="mean", dtype="float64")), optimizer={"name": "sgd", "learning_rate": 0.1})
    rule.model.check(x, y)
    before = rule.model.network.parameters
    masks = MonteCarloDropout(rule, rate=0.4, seed=3).masks()
    assert masks.keys() == {"hidden.recurrent.weight", "readout.input.weight"}
    np.testing.assert_array_equal(*masks.values())
    assert {0.0, 1 / 0.6} == set(masks["readout.input.weight"].ravel().tolist())
    MonteCarloDropout(rule, rate=0.4, seed=3).step(x, y)
    after = rule.model.network.parameters
    twin = BPTT(Evaluator(RNN(6, 2, readout="mean", dtype="float64", inputs=2)))
    twin.model.network.set_parameters(before | {name: before[name] * mask for name, mask in masks.items()})
    for name, gradient in twin.gradients(x, y).items():
        expected = -0.1 * masks.get(name, 1.0) * gradient
        np.testing.assert_allclose(after[name] - before[name], expected, rtol=1e-9, atol=1e-15)


def test_dropout_trains_and_doubts():
    x, y = data()
    dropout = MonteCarloDropout(
        EProp(Evaluator(LIF(20, 2, readout="mean")), optimizer={"name": "adam", "learning_rate": 1e-2}), rate=0.3
    )
    dropout.train(x, y, epochs=8, batch_size=20)
    told = dropout.predict(x, networks=20)
    assert isinstance(told, Predictive)
    assert np.mean(told.classes == y) > 0.85
    assert told.mutual_information.max() > 1e-4
    network = MonteCarloDropout(dropout.rule, rate=0.0).predict(x, networks=2)
    assert network.mutual_information.max() < 1e-9


def test_the_masks_of_dropout_have_the_mean_one():
    dropout = MonteCarloDropout(BPTT(Evaluator(LIF(50, 2, inputs=2))), rate=0.25)
    masks = np.array([dropout.masks()["readout.input.weight"] for _ in range(400)])
    assert abs(masks.mean() - 1) < 4 * np.sqrt(0.25 / 0.75 / masks.size)
    assert stats.binomtest(int((masks == 0).sum()), masks.size, 0.25).pvalue > 1e-6


def test_the_figure_shows_what_it_was_given(tmp_path):
    told, labels = honest(300)
    one = Predictive(told, stats.entropy(told, axis=1), np.zeros(300), 1)
    sharp = honest(300, sharpen=3.0)[0]
    figure = uncertainty_figure(
        {"honest": one, "sharp": Predictive(sharp, stats.entropy(sharp, axis=1), np.zeros(300), 1)}, labels
    )
    boxes, calibration, risk = figure.axes
    curve = calibration_curve(told, labels)
    np.testing.assert_array_equal(calibration.lines[1].get_ydata(), curve.accuracy[curve.counts >= 5])
    assert [text.get_text() for text in risk.get_legend().get_texts()] == ["honest", "sharp"]
    expected = 100 * risk_coverage(one.entropy, one.classes == labels)[1]
    np.testing.assert_allclose(risk.lines[0].get_ydata(), expected)
    right = one.classes == labels
    medians = [
        line.get_ydata()[0] for line in boxes.lines if len(set(line.get_ydata())) == 1 and line.get_color() == "black"
    ]
    assert medians[:2] == pytest.approx([np.median(one.entropy[right]), np.median(one.entropy[~right])])
    assert f"AUROC {rank_test(one.entropy, right)[0]:.2f}" in boxes.texts[0].get_text()
    save_uncertainty_figure({"honest": one}, labels, tmp_path / "doubt.png")
    assert (tmp_path / "doubt.svg").stat().st_size > 1000


@pytest.mark.parametrize("labels", [[-1, 0], [0, 2]])
def test_labels_that_are_no_class_are_refused(labels: list[int]) -> None:
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2]])
    for figure in (negative_log_likelihood, expected_calibration_error):
        with pytest.raises(DataError, match="labels of 2 classes lie from 0 to 1"):
            figure(probabilities, np.array(labels))


def test_equally_sure_examples_count_by_their_mean_error_in_whatever_order() -> None:
    rng = np.random.default_rng(2)
    doubt, right = rng.integers(4, size=40).astype(float), rng.random(40) < 0.6
    coverage, risk = risk_coverage(doubt, right)
    orders = [rng.permutation(40) for _ in range(4000)]
    for order in orders[:20]:
        np.testing.assert_allclose(risk_coverage(doubt[order], right[order])[1], risk, rtol=1e-12)
    # The mean over orders in which ties fall by chance, within 5 standard errors: false failures below 40 * 6e-7.
    broken = [risk_coverage(doubt[order] + 1e-6 * np.arange(40), right[order])[1] for order in orders]
    error = np.std(broken, axis=0) / np.sqrt(len(orders))
    assert np.all(np.abs(np.mean(broken, axis=0) - risk) < 5 * error + 1e-12)
    assert coverage[-1] == 1
    np.testing.assert_allclose(area_under_risk_coverage(np.zeros(40), right), np.mean(~right))


@pytest.mark.parametrize(
    "wrong", [[[3.0, -2.0], [0.5, 0.5]], [[0.2, 0.9], [0.5, 0.5]], [[np.nan, np.nan], [0.5, 0.5]], np.zeros((0, 2))]
)
def test_what_is_no_probability_is_refused(wrong) -> None:
    labels = np.zeros(len(wrong), int)
    for figure in (negative_log_likelihood, expected_calibration_error, calibration_curve):
        with pytest.raises(DataError, match=r"sum to 1 over the classes .* for example 0|of some examples"):
            figure(np.array(wrong), labels)


def test_doubt_that_is_nan_or_of_other_examples_is_refused() -> None:
    for figure in (risk_coverage, rank_test, area_under_risk_coverage):
        with pytest.raises(DataError, match=r"must be a number \(received: 1 NaN\)"):
            figure(np.array([np.nan, 1.0, 2.0]), np.array([True, False, True]))
        with pytest.raises(DataError, match="same examples"):
            figure(np.array([1.0, 2.0]), np.array([True, False, True]))


def test_models_that_do_not_belong_together_are_no_ensemble() -> None:
    def model(outputs=2, **options):
        return Evaluator(LIF(4, outputs, inputs=2, readout="mean"), **options)

    for others in ([model(3)], [model(loss="kl_divergence")]):
        with pytest.raises(IncompatibleError, match="one task, loss and number of outputs"):
            Ensemble([model(), *others])
    with pytest.raises(IncompatibleError, match="takes Evaluators"):
        Ensemble([LIF(4, 2)])


def test_dropout_takes_lists_and_looks_at_its_arguments() -> None:
    x, y = data(8)

    def trained(*given, **options):
        model = Evaluator(LIF(6, 2, inputs=2, readout="mean", dtype="float64"))
        dropout = MonteCarloDropout(BPTT(model), rate=0.3)
        dropout.train(*given, **options)
        return model.predict(x)

    np.testing.assert_array_equal(trained(x.tolist(), y.tolist(), 2, 4), trained(x, y, 2, 4))
    for wrong in ({"epochs": 1.5}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "seed": -1}):
        with pytest.raises(ArgumentError, match="must be a whole number"):
            trained(x, y, **wrong)
    with pytest.raises(DataError, match="one entry per example"):
        trained(x, y[:3], 1)
    with pytest.raises(ArgumentError, match="networks must be"):
        MonteCarloDropout(BPTT(Evaluator(LIF(6, 2, inputs=2, readout="mean")))).predict(x, networks=0)
