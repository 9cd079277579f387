"""Comparing rules: identities of the figures, synchronisation, what is written, and dead networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules import (
    ALIF,
    BPTT,
    OTTT,
    RNN,
    Callback,
    Comparison,
    EProp,
    Evaluator,
    GradientComparison,
    LearningRule,
    Trainer,
)
from neko_rules.backend import BUILT_IN, is_installed
from neko_rules.errors import (
    ArgumentError,
    CheckpointError,
    ComparisonError,
    DataError,
    IncompatibleError,
    NonFiniteError,
)
from neko_rules.rules.rule import Rule
from neko_rules.trainers import comparison as module
from neko_rules.trainers.deviation import STATISTICS, Moments, compared, groups, statistics, sums

WEIGHTS = ("hidden.input.weight", "hidden.recurrent.weight", "readout.input.weight")


def data(examples: int = 12, steps: int = 12, inputs: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((examples, steps, inputs)), rng.integers(0, 3, examples)


def model(backend: str = "numpy", hidden: int = 10, dtype: str = "float64", seed: int = 1, **options: Any) -> Evaluator:
    return Evaluator(ALIF(hidden, 3, backend=backend, dtype=dtype, seed=seed, **options), metrics=["accuracy"])


def run(primary: Any, others: dict[str, Any], epochs: int = 2, **options: Any) -> Comparison:
    return GradientComparison(primary, others, **options).train(*data(), epochs=epochs, batch_size=4)


class SignFlipped(BPTT):
    """BPTT uphill."""

    def _judged_gradients(self, *arguments: Any) -> Any:
        judgement, found = super()._judged_gradients(*arguments)
        return judgement, {name: -value for name, value in found.items()}


class Jitter:
    """A rule that is none of ours and has no gradient: it adds a constant to one weight matrix."""

    def __init__(self, model: Evaluator) -> None:
        self.model = model

    def step(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        network = self.model.network
        name = "hidden.input.weight"
        network.set_parameters({name: network.parameters[name] + 0.25})
        return self.model.evaluate(x, y)


class TestFigures:
    def test_of_two_vectors_by_hand(self) -> None:
        a, b = np.array([3.0, 4.0, 0.0]), np.array([4.0, -3.0, 1.0])
        found = dict(zip(STATISTICS, statistics(sums(a, b)), strict=True))
        d = b - a
        expected = {
            "cosine": 0.0,
            "angle": 90.0,
            "norm_ratio": np.sqrt(26) / 5,
            "relative_error": np.linalg.norm(d) / 5,
            "sign_agreement": 0.5,  # of the two entries of a that have a sign
            "mean": d.mean(),
            "std": d.std(),
            "mean_absolute": np.abs(d).mean(),
            "norm": np.sqrt(26),
            "reference_norm": 5.0,
        }
        assert found == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("angle", [1e-6, 0.1, 45.0, 90.0, 135.0, 179.0])
    def test_angle_keeps_its_digits(self, angle: float) -> None:
        turned = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        longer = 3 if angle > 1e-3 else 1
        found = statistics(sums(np.array([1.0, 0.0]), longer * turned))
        assert found[STATISTICS.index("angle")] == pytest.approx(angle, rel=1e-6)

    def test_a_zero_vector_has_no_direction(self) -> None:
        found = dict(zip(STATISTICS, statistics(sums(np.zeros(3), np.ones(3))), strict=True))
        assert all(np.isnan(found[name]) for name in ("cosine", "angle", "norm_ratio", "relative_error"))
        assert found["mean"] == 1

    def test_a_population_is_one_long_vector(self) -> None:
        rng = np.random.default_rng(0)
        names = ("h.w", "h.b", "o.w")
        a, b = ({name: rng.standard_normal((3, 2)) for name in names} for _ in range(2))
        parts = groups(names)
        assert list(parts) == ["h.w", "h.b", "o.w", "h", "all"]
        found = compared(a, b, parts)
        joined = [np.concatenate([each["h.w"].ravel(), each["h.b"].ravel()]) for each in (a, b)]
        np.testing.assert_allclose(found[3], statistics(sums(*joined)), rtol=1e-12)

    def test_mean_square_is_bias_and_variance(self) -> None:
        values = np.random.default_rng(1).standard_normal((50, 4, 3)) + np.arange(3)
        moments = Moments()
        for each in values:
            moments.add(each)
        np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.variance, values.var(0), rtol=1e-12)
        np.testing.assert_allclose(moments.standard_error, values.std(0, ddof=1) / np.sqrt(50), rtol=1e-12)
        assert moments.squared_bias + moments.spread == pytest.approx(float(np.mean(values**2)), rel=1e-12)


class TestIdentities:
    def test_a_rule_compared_with_itself(self) -> None:
        rule = BPTT(model())
        result = run(rule, {"itself": BPTT(model())}, keep_every=1)
        for name in result.groups:
            np.testing.assert_allclose(result.statistic("itself", name, "cosine"), 1, rtol=1e-14)
            assert not result.statistic("itself", name, "angle").any()
            assert not result.statistic("itself", name, "std").any()
            np.testing.assert_allclose(result.statistic("itself", name, "cosine", "change"), 1, rtol=1e-14)
        for name in WEIGHTS:
            moments = result.moments("itself", name)
            assert moments.squared_bias == moments.spread == 0
            assert not result.deviation("itself", name, 0).any()

    def test_figures_are_of_synapses_alone(self) -> None:
        """Diagonals without autapses and what a sparse connectivity leaves out are zero in every gradient."""
        sparse = model(hidden=20, recurrent_connectivity=0.3)
        result = run(BPTT(sparse), {"random": EProp(sparse, mode="random", seed=3)}, keep_every=1)
        name = "hidden.recurrent.weight"
        mask = sparse.network.synapses[name]
        assert np.array_equal(result.synapses(name), mask)
        assert result.synapses("hidden.input.weight").all()
        deviations = np.stack([result.deviation("random", name, batch)[mask] for batch in result.kept])
        for figure, values in (
            ("mean", deviations.mean(1)),
            ("std", deviations.std(1)),
            ("mean_absolute", np.abs(deviations).mean(1)),
        ):
            np.testing.assert_allclose(result.statistic("random", name, figure), values, rtol=1e-12)
        parts = [result.statistic("random", each, "mean") * result.synapses(each).sum() for each in result.parameters]
        everywhere = result.statistic("random", "all", "mean") * sparse.network.size
        np.testing.assert_allclose(everywhere, np.sum(parts, axis=0), rtol=1e-12, atol=1e-14)
        row = next(row for row in result.summary() if row["parameter"] == name)
        assert row["squared_bias"] == pytest.approx(np.mean(deviations.mean(0) ** 2), rel=1e-12)
        assert row["variance"] == pytest.approx(np.mean(deviations.var(0)), rel=1e-12)
        truth = [result.matrix("bptt", name, batch)[mask] for batch in result.kept]
        assert row["reference_square"] == pytest.approx(np.mean(np.square(truth)), rel=1e-12)

    def test_a_neuron_without_a_synapse_with_itself_has_nothing_to_compare(self) -> None:
        lone = model(hidden=1)
        result = run(BPTT(lone), {"random": EProp(lone, mode="random")}, keep_every=1)
        assert np.isnan(result.statistic("random", "hidden.recurrent.weight", "mean")).all()
        assert np.isnan(result.moments("random", "hidden.recurrent.weight").squared_bias)
        assert result.usual_parameter() == "hidden.input.weight"
        with pytest.raises(ArgumentError, match="with a synapse"):
            result.plot("hidden.recurrent.weight")

    def test_networks_of_other_synapses_are_not_compared(self) -> None:
        one, other = (model(hidden=20, recurrent_connectivity=0.3, seed=seed) for seed in (1, 2))
        with pytest.raises(IncompatibleError, match=r"same synapses .*other and bptt differ in hidden\.rec"):
            run(BPTT(one), {"other": BPTT(other)})

    def test_a_sign_flipped_rule(self) -> None:
        result = run(BPTT(model()), {"flipped": SignFlipped(model())})
        for name in result.groups:
            np.testing.assert_allclose(result.statistic("flipped", name, "cosine"), -1, rtol=1e-14)
            np.testing.assert_allclose(result.statistic("flipped", name, "norm_ratio"), 1, rtol=1e-14)
            np.testing.assert_allclose(result.statistic("flipped", name, "angle"), 180, rtol=1e-6)
            assert not result.statistic("flipped", name, "sign_agreement").any()

    def test_bptt_on_numpy_and_on_the_other_backends(self) -> None:
        others = [name for name in BUILT_IN if name != "numpy" and is_installed(name)]
        result = run(BPTT(model()), {name: BPTT(model(name)) for name in others}, epochs=1)
        assert result.about["backends"] == {"bptt": "numpy", **{name: name for name in others}}
        for other in others:
            for name in result.groups:
                assert np.abs(result.statistic(other, name, "cosine") - 1).max() < 1e-10
                assert result.statistic(other, name, "relative_error").max() < 1e-10

    def test_changes_are_gradients_under_the_naive_optimiser(self) -> None:
        naive = {"optimizer": "naive"}
        result = run(BPTT(model(), **naive), {"random": EProp(model(), mode="random", **naive)}, epochs=1, keep_every=1)
        for batch in result.kept:
            for rule in ("bptt", "random"):
                for name in WEIGHTS:
                    change = result.matrix(rule, name, batch, "change")
                    # The weights are of order 1, so that their difference is right to 1e-16 absolutely.
                    np.testing.assert_allclose(change, -result.matrix(rule, name, batch), atol=1e-15)
        for name in result.groups:
            gradient, change = (result.statistic("random", name, "cosine", q) for q in ("gradient", "change"))
            np.testing.assert_allclose(gradient, change, rtol=1e-8)

    def test_adam_changes_are_not_gradients(self) -> None:
        result = run(BPTT(model()), {"random": EProp(model(), mode="random")})
        both = [result.statistic("random", "hidden", "norm_ratio", quantity) for quantity in ("gradient", "change")]
        assert np.abs(both[0] - both[1]).max() > 1e-2

    def test_figures_are_those_of_the_rules_called_one_by_one(self) -> None:
        x, y = data()
        result = GradientComparison(BPTT(model()), {"random": EProp(model(), mode="random")}, keep_every=1).train(
            x, y, batch_size=12, shuffle=False
        )
        truth, given = BPTT(model()).gradients(x, y), EProp(model(), mode="random").gradients(x, y)
        for name in WEIGHTS:
            np.testing.assert_array_equal(result.matrix("random", name, 0), given[name])
            np.testing.assert_array_equal(result.matrix("bptt", name, 0), truth[name])
            cosine = (truth[name] * given[name]).sum() / np.linalg.norm(truth[name]) / np.linalg.norm(given[name])
            assert result.statistic("random", name)[0] == pytest.approx(cosine, rel=1e-12)
        assert 0.01 < result.statistic("random", "hidden.input.weight")[0] < 0.999


class TestTraining:
    def test_the_primary_trains_as_usual(self) -> None:
        alone, watched = BPTT(model()), BPTT(model())
        history = Trainer(alone).train(*data(), epochs=2, batch_size=4)
        result = run(watched, {"random": EProp(model(), mode="random"), "ottt": OTTT(model())})
        assert result.history["loss"] == history["loss"]
        for name, value in alone.model.network.parameters.items():
            np.testing.assert_array_equal(value, watched.model.network.parameters[name])

    def test_what_was_compared_until_a_run_was_stopped_is_there(self) -> None:
        class StopAfterTwo(Callback):
            def on_step_end(self, trainer: Trainer, step_metrics: dict[str, float]) -> None:
                if trainer.total_steps == 2:
                    trainer.stop("enough")

        result = run(BPTT(model()), {"ottt": OTTT(model())}, callbacks=[StopAfterTwo()])
        assert len(result.batches) == 2
        assert result.history.stopped == "enough"

    def test_the_others_are_left_as_they_were(self) -> None:
        other = EProp(model(), mode="adaptive")
        other.model.check(*data())
        before = other.state()
        run(BPTT(model()), {"adaptive": other})
        after = other.state()
        assert all(np.array_equal(before[name], after[name]) for name in before)

    def test_rules_on_one_model_do_not_disturb_each_other(self) -> None:
        shared = model()
        result = run(BPTT(shared), {"eprop": EProp(shared), "itself": BPTT(shared)})
        assert not result.statistic("itself", "all", "angle").any()
        assert result.statistic("eprop", "hidden", "angle").min() > 1

    def test_without_synchronisation_the_figures_are_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unsynchronised(rule: Any, *_: Any) -> Any:
            return rule.model.network.parameters

        others = {"ottt": OTTT(model(seed=1), optimizer={"name": "sgd", "learning_rate": 1.0})}
        good = run(BPTT(model()), others).statistic("ottt", "readout")
        monkeypatch.setattr(module, "_synchronised", unsynchronised)
        bad = run(BPTT(model()), others).statistic("ottt", "readout")
        np.testing.assert_allclose(good, 1, rtol=1e-12)
        assert bad[-1] < 0.999

    def test_any_rule_may_be_the_reference(self) -> None:
        others = {"random": EProp(model(), mode="random"), "ottt": OTTT(model())}
        result = run(BPTT(model()), others, reference="random")
        assert result.rules == ["bptt", "ottt"]
        forward = run(BPTT(model()), {"random": EProp(model(), mode="random")})
        np.testing.assert_allclose(result.statistic("bptt", "all"), forward.statistic("random", "all"), rtol=1e-12)
        product = result.statistic("bptt", "all", "norm_ratio") * forward.statistic("random", "all", "norm_ratio")
        np.testing.assert_allclose(product, 1, rtol=1e-12)

    def test_a_rule_without_gradients_is_compared_by_its_changes(self) -> None:
        result = run(BPTT(model()), {"jitter": Jitter(model())}, keep_every=1)
        assert np.isnan(result.statistic("jitter", "all")).all()
        np.testing.assert_allclose(result.matrix("jitter", "hidden.input.weight", 2, "change"), 0.25, rtol=1e-12)
        ratio = result.statistic("jitter", "readout", "norm_ratio", "change")
        assert not ratio.any()
        with pytest.raises(ArgumentError, match="no gradient"):
            result.moments("jitter", "hidden.bias")
        assert result.table("change").row_count

    def test_an_online_rule_has_the_deferred_gradient_and_its_own_change(self) -> None:
        result = run(BPTT(model()), {"online": EProp(model(), online=True), "deferred": EProp(model())}, epochs=1)
        for name in WEIGHTS:
            both = [result.statistic(rule, name) for rule in ("online", "deferred")]
            np.testing.assert_allclose(both[0], both[1], rtol=1e-9)
        changes = [result.statistic(rule, "hidden", "cosine", "change") for rule in ("online", "deferred")]
        assert np.abs(changes[0] - changes[1]).max() > 1e-3

    def test_float32_beside_float64(self) -> None:
        result = run(BPTT(model()), {"single": BPTT(model(dtype="float32"))}, epochs=1)
        error = result.statistic("single", "all", "relative_error")
        assert 1e-9 < error.max() < 1e-3


class TestObservedStep:
    @pytest.mark.parametrize("options", [{}, {"online": True}, {"window": 5}], ids=str)
    def test_it_is_gradients_and_step(self, options: dict[str, Any]) -> None:
        x, y = data()
        separate, together = EProp(model(), **options), EProp(model(), **options)
        for _ in range(2):
            gradients = separate.gradients(x, y) if separate.model.network.built else None
            figures = separate.step(x, y)
            seen, found = together.observed_step(x, y)
            assert seen == figures
            if gradients is not None:
                for name, value in gradients.items():
                    np.testing.assert_array_equal(found[name], value)
        for name, value in separate.model.network.parameters.items():
            np.testing.assert_array_equal(together.model.network.parameters[name], value)

    def test_one_evaluation_where_a_step_is_one_update(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        original = BPTT._judged_gradients

        def counted(self: Any, *arguments: Any) -> Any:
            calls.append(self)
            return original(self, *arguments)

        monkeypatch.setattr(BPTT, "_judged_gradients", counted)
        BPTT(model()).observed_step(*data())
        assert len(calls) == 1

    def test_a_comparison_evaluates_every_rule_once_per_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        original = LearningRule._judged_gradients

        def counted(self: Any, *arguments: Any) -> Any:
            calls.append(type(self).__name__)
            return original(self, *arguments)

        monkeypatch.setattr(LearningRule, "_judged_gradients", counted)
        run(BPTT(model()), {"eprop": EProp(model()), "ottt": OTTT(model())}, epochs=1)
        assert sorted(calls) == 3 * ["BPTT"] + 3 * ["EProp"] + 3 * ["OTTT"]


class TestFolder:
    def test_memory_is_chunked_and_the_result_can_be_read_again(self, tmp_path: Path) -> None:
        result = run(BPTT(model()), {"ottt": OTTT(model())}, folder=tmp_path, chunk=2, keep_every=2)
        assert len(list(tmp_path.glob("figures-*.npz"))) == 3
        assert result.kept == [0, 2, 4]
        again = Comparison.load(tmp_path)
        np.testing.assert_array_equal(again.statistic("ottt", "hidden"), result.statistic("ottt", "hidden"))
        np.testing.assert_array_equal(again.batches, np.arange(6))
        assert again.moments("ottt", "hidden.bias").count == 6
        deviations = np.stack([again.deviation("ottt", "hidden.bias", batch) for batch in again.kept])
        assert np.abs(deviations).max() > 0

    def test_a_temporary_folder_goes_with_its_result(self) -> None:
        result = run(BPTT(model()), {"ottt": OTTT(model())}, epochs=1)
        path = result.path
        assert path.is_dir()
        del result
        assert not path.exists()

    def test_a_folder_of_something_else_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="folder of a comparison"):
            Comparison.load(tmp_path)

    def test_a_second_comparison_replaces_the_first(self, tmp_path: Path) -> None:
        run(BPTT(model()), {"ottt": OTTT(model())}, folder=tmp_path, keep_every=1)
        result = run(BPTT(model()), {"ottt": OTTT(model())}, folder=tmp_path, epochs=1, keep_every=None)
        assert len(result.batches) == 3
        assert result.kept == []
        with pytest.raises(ArgumentError, match="keep_every"):
            result.deviation("ottt", "hidden.bias", 0)


class TestShown:
    def test_table_and_figure(self, tmp_path: Path) -> None:
        others = {"random": EProp(model(), mode="random"), "ottt": OTTT(model())}
        result = run(BPTT(model()), others, keep_every=2)
        table = result.table()
        assert [str(column.header) for column in table.columns][:3] == ["rule", "parameter", "cosine"]
        assert table.row_count == 2 * len(result.groups)
        figure = result.plot()
        labels = [ax.get_ylabel() for ax in figure.axes]
        assert "Mean absolute deviation" in labels
        assert "Angle to bptt (°)" in labels
        result.save(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            "comparison.png",
            "comparison.svg",
            "summary_of_comparison.json",
        }
        rows = json.loads((tmp_path / "summary_of_comparison.json").read_text())
        row = next(r for r in rows if r["rule"] == "random" and r["parameter"] == "hidden.recurrent.weight")
        assert row["squared_bias"] + row["variance"] == pytest.approx(row["std"] ** 2, rel=2)


class TestRefusals:
    def test_a_silent_network(self) -> None:
        silent = model(threshold=1e6)
        with pytest.raises(ComparisonError, match="no spike in the first batch"):
            run(BPTT(silent), {"ottt": OTTT(silent)})

    def test_a_network_that_falls_silent(self) -> None:
        class Silence(Jitter):
            def state(self) -> dict[str, np.ndarray]:
                return {}

            def load_state(self, state: dict[str, np.ndarray]) -> None:
                raise AssertionError("nothing is resumed")

            def gradients(self, x: Any, y: Any) -> dict[str, np.ndarray]:
                return BPTT(self.model).gradients(x, y)

            def step(self, x: Any, y: Any) -> dict[str, float]:
                names = ("hidden.input.weight", "hidden.recurrent.weight")
                self.model.network.set_parameters({n: 0 * self.model.network.parameters[n] for n in names})
                return self.model.evaluate(x, y)

        with pytest.raises(ComparisonError, match="no spike in batch 1"):
            run(Silence(model()), {"ottt": OTTT(model())})

    def test_a_reference_without_length(self) -> None:
        class Nothing(BPTT):
            def _judged_gradients(self, *arguments: Any) -> Any:
                judgement, found = super()._judged_gradients(*arguments)
                return judgement, {name: 1e-12 * value for name, value in found.items()}

        with pytest.raises(ComparisonError, match="norm of at least 1e-08"):
            run(Nothing(model()), {"ottt": OTTT(model())})

    def test_a_network_that_does_not_spike_by_nature_is_no_dead_one(self) -> None:
        rate = Evaluator(RNN(6, 3, dtype="float64"))
        result = run(BPTT(rate), {"eprop": EProp(rate)})
        assert np.isfinite(result.statistic("eprop", "all")).all()

    def test_a_compared_rule_that_overflows_is_named(self) -> None:
        wild = OTTT(model(), optimizer={"name": "sgd", "learning_rate": 1e308}, clipping=None)
        with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="of 'wild' at step"):
            run(BPTT(model()), {"wild": wild})

    def test_networks_that_differ(self) -> None:
        with pytest.raises(IncompatibleError, match="ottt and bptt differ in hidden"):
            run(BPTT(model()), {"ottt": OTTT(model(hidden=11))})

    def test_names(self) -> None:
        with pytest.raises(ArgumentError, match="a name of its own"):
            GradientComparison(BPTT(model()), {"bptt": OTTT(model())})
        with pytest.raises(ArgumentError, match="did you mean 'ottt'"):
            GradientComparison(BPTT(model()), {"ottt": OTTT(model())}, reference="otttt")
        with pytest.raises(ArgumentError, match="without '/'"):
            GradientComparison(BPTT(model()), {"a/b": OTTT(model())})
        with pytest.raises(ArgumentError, match="at least one rule"):
            GradientComparison(BPTT(model()), {})
        with pytest.raises(ArgumentError, match="learning rules"):
            GradientComparison(BPTT(model()), {"ottt": "ottt"})
        with pytest.raises(ArgumentError, match="resume"):
            GradientComparison(BPTT(model()), {"ottt": OTTT(model())}).train(*data(), resume="x")

    def test_a_shared_network_that_cannot_be_cloned(self) -> None:
        shared = model()
        with pytest.raises(IncompatibleError, match="a network of its own"):
            GradientComparison(BPTT(shared), {"jitter": Jitter(shared)})

    def test_data_that_do_not_fit(self) -> None:
        x, y = data()
        with pytest.raises(DataError):
            GradientComparison(BPTT(model()), {"ottt": OTTT(model())}).train(x, y + 9)

    def test_unknown_names_of_a_result(self) -> None:
        result = run(BPTT(model()), {"ottt": OTTT(model())}, epochs=1)
        for arguments in (("otto", "all"), ("ottt", "hiden"), ("ottt", "all", "cosin"), ("ottt", "all", "cosine", "x")):
            with pytest.raises(ArgumentError):
                result.statistic(*arguments)
        with pytest.raises(ArgumentError, match="unknown parameter"):
            result.moments("ottt", "all")


def test_a_rule_is_one_of_ours_or_has_gradients() -> None:
    """The seam between the two ways of observing a rule."""
    assert issubclass(BPTT, Rule)
    assert not isinstance(Jitter(model()), Rule)
