"""Encoders: every registered one through one battery, and its equation; with models, rules, trainers and samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from neko_rules import (
    LIF,
    MALA,
    Checkpoint,
    EProp,
    Evaluator,
    GradientComparison,
    Posterior,
    SpikeRecorder,
    TorchModel,
    Trainer,
)
from neko_rules.encoders import ENCODERS, Constant, Delta, Encoder, Latency, Rate
from neko_rules.errors import ArgumentError, ConfigurationError, DataError, IncompatibleError
from neko_rules.experiments.compare import compare
from neko_rules.experiments.run import run
from neko_rules.experiments.verify import verify
from neko_rules.inputs import Inputs

GIVEN: dict[str, dict[str, Any]] = {"rate": {"steps": 9}, "latency": {"steps": 9}, "constant": {"steps": 9}}
"""Arguments of those that need some."""
DT = 1e-3
X = np.random.default_rng(0).random((6, 5, 4))
Y = np.array([0, 1, 1, 0, 1, 0])


def made(name: str, **options: Any) -> Encoder:
    return ENCODERS.create(name, {**GIVEN.get(name, {}), **options})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def evaluator(encoder: Any = None, backend: str = "numpy", **options: Any) -> Evaluator:
    network = LIF(12, 2, backend=backend, dtype="float64", readout="mean", seed=1, **options)
    return Evaluator(network, metrics=["accuracy"], encoder=encoder)


# Every encoder.


@pytest.mark.parametrize("name", list(ENCODERS))
def test_an_encoder_makes_what_it_says(name: str) -> None:
    encoder, before = made(name), X.copy()
    encoder.check(X)
    found = encoder.encode(X, rng(), DT)
    assert found.shape == (len(X), *encoder.shape(X.shape))
    assert np.array_equal(X, before), "values are left as they are"
    assert np.isfinite(found).all()
    assert found.any()
    if name != "constant":
        assert np.isin(found, (0, 1)).all()
    assert np.array_equal(found, encoder.encode(X, rng(), DT))
    drawn = not np.array_equal(found, encoder.encode(X, rng(1), DT))
    assert drawn == (encoder.draws_from is not None)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_network_is_trained_through_it_alike_on_every_backend(name: str, backend: str) -> None:
    found = []
    for library in ("numpy", backend):
        rule = EProp(evaluator(made(name), library))
        figures = [rule.step(X, Y) for _ in range(3)]
        found.append((figures, rule.model.network.parameters, rule.model.evaluate(X, Y)))
    assert found[0][0] == [pytest.approx(each, rel=1e-10) for each in found[1][0]]
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-10)
    for key, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][key], value, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_what_is_encoded_does_not_depend_on_how_an_evaluation_is_cut(name: str) -> None:
    model = evaluator(made(name))
    inputs = model.encoded(X)
    assert inputs.shape == (len(X), *made(name).shape(X.shape))
    whole = model.evaluate(X, Y)
    assert model.evaluate(X, Y, batch_size=2) == pytest.approx(whole, rel=1e-12)
    assert model.evaluate([(X[:1], Y[:1]), (X[1:], Y[1:])], batch_size=4) == pytest.approx(whole, rel=1e-12)
    plain = Evaluator(model.network, metrics=["accuracy"])
    assert plain.evaluate(inputs.astype(float), Y) == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(model.predict(X, batch_size=4), plain.predict(inputs), rtol=1e-12)
    np.testing.assert_allclose(model.trajectory(X).inputs, inputs.swapaxes(0, 1))
    _, recorded = model.evaluate(X, Y, batch_size=4, recorders=[SpikeRecorder("hidden", examples=range(6))])
    spikes = plain.trajectory(inputs).z("hidden").swapaxes(0, 1)
    assert spikes.any()
    assert np.array_equal(recorded["hidden.spikes"].array.reshape(spikes.shape), spikes)


class Counted(Rate):
    """A rate that counts how often it is asked, and that may hold back what it draws, or draw more than it says."""

    calls, said, more = 0, True, 0

    def draws(self, given: tuple[int, ...]) -> int | None:  # type: ignore[override]
        return super().draws(given) if self.said else None

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        type(self).calls += 1
        found = super().encode(x, rng, dt)
        rng.random(self.more)
        return found


def test_all_of_a_batch_are_drawn_at_once_and_an_example_alike_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).random((300, 30))
    model = evaluator(Counted(40))
    whole = model.encoded(x)
    assert Counted.calls == 1
    alone = [Inputs(model.network, model.encoder).encoded(x[k : k + 1], first=k)[0] for k in range(len(x))]
    assert np.array_equal(whole, alone)
    # Of one value everywhere, no two examples have the same spikes.
    assert len(np.unique(model.encoded(np.full((300, 30), 0.5)).reshape(300, -1), axis=0)) == 300
    monkeypatch.setattr(Counted, "said", False)
    monkeypatch.setattr(Counted, "calls", 0)
    by_itself = model.encoded(x)
    assert Counted.calls == 300
    assert not np.array_equal(by_itself, whole)
    assert np.array_equal(by_itself[7:9], Inputs(model.network, model.encoder).encoded(x[7:9], first=7))


def test_an_encoder_that_draws_more_than_it_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "more", 1)
    with pytest.raises(ArgumentError, match=r"as many numbers as it says, 36 .* another number by Counted"):
        evaluator(Counted(9)).evaluate(X[:, 0], Y)


def test_series_of_several_lengths_share_no_draws() -> None:
    """Their places in a stream would overlap: 10 time steps of examples 0 to 5, and 5 time steps from example 6."""
    model = evaluator(Rate())
    model.network.build(1)
    short = Inputs(model.network, model.encoder).encoded(np.full((6, 5, 1), 0.5), first=6).ravel()
    long = Inputs(model.network, model.encoder).encoded(np.full((6, 10, 1), 0.5)).ravel()
    assert not np.array_equal(short, long[30:])


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_update_has_draws_of_its_own(name: str) -> None:
    """And the gradient is that of the next update."""
    encoder = made(name)
    rule = EProp(evaluator(encoder), optimizer={"name": "sgd", "learning_rate": 1e-12})
    first, same = rule.gradients(X, Y), rule.gradients(X, Y)
    assert all(np.array_equal(same[key], value) for key, value in first.items())
    rule.step(X, Y)
    after = rule.gradients(X, Y)
    changed = any(np.abs(after[key] - value).max() > 1e-6 for key, value in first.items())
    assert changed == (encoder.draws_from is not None)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_training_that_is_taken_up_is_the_one_that_was_not_stopped(name: str, tmp_path: Path) -> None:
    whole = Trainer(EProp(evaluator(made(name))))
    whole.train(X, Y, epochs=4, batch_size=4)
    parts = Trainer(EProp(evaluator(made(name))), [Checkpoint(tmp_path)])
    parts.train(X, Y, epochs=2, batch_size=4)
    again = Trainer(EProp(evaluator(made(name))))
    again.train(X, Y, epochs=4, batch_size=4, resume=tmp_path)
    for key, value in whole.rule.model.network.parameters.items():
        assert np.array_equal(again.rule.model.network.parameters[key], value)


# What each of them is.


def test_rates_are_those_asked_for() -> None:
    """Counts of spikes are binomial. Of 40 counts one is off by p < 1e-9: false failures below 1e-7."""
    values = np.linspace(0, 1, 20)[None]
    for encoder, chance in ((Rate(2000), values[0]), (Rate(2000, max_rate=200.0), 0.2 * values[0])):
        counts = encoder.encode(values, rng(3), DT)[0].sum(axis=0)
        for count, p in zip(counts, chance, strict=True):
            assert stats.binomtest(int(count), 2000, float(p)).pvalue > 1e-9
    series = np.zeros((1, 3000, 1))
    series[0, 1000:2000] = 1.0
    assert np.array_equal(Rate().encode(series, rng(), DT), series == 1)


def test_spikes_of_a_rate_are_independent_of_each_other() -> None:
    """Correlations of neighbours in time, feature and example, of 500,000 pairs: standard error 0.0014."""
    found = Rate(50).encode(np.full((100, 100), 0.3), rng(4), DT).astype(float) - 0.3
    for one, other in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1]), (found[..., 1:], found[..., :-1])):
        assert abs(np.mean(one * other) / 0.21) < 0.01


def test_larger_values_spike_earlier() -> None:
    values = np.array([[1.0, 0.75, 0.5, 0.011, 0.01, 0.0]])
    found = Latency(101).encode(values, rng(), DT)[0]
    assert found.sum(axis=0).tolist() == [1, 1, 1, 1, 0, 0]
    assert found.argmax(axis=0)[:4].tolist() == [0, 25, 50, 99]


def test_logarithmic_times_are_those_of_a_leaky_neuron() -> None:
    """A LIF neuron whose current is constant, τ dv/dt = x - v from v = 0, reaches θ at τ ln(x / (x - θ))."""
    tau, threshold, dt = 0.02, 0.2, 1e-4
    values = np.array([[1.0, 0.6, 0.3, 0.21, 0.2, 0.1]])
    found = Latency(2000, threshold=threshold, tau=tau).encode(values, rng(), dt)[0]
    potential = values * (1 - np.exp(-np.arange(2000)[:, None] * dt / tau))
    expected = (potential >= threshold).argmax(axis=0)
    assert found.sum(axis=0).tolist() == [1, 1, 1, 1, 0, 0]
    assert np.abs(found.argmax(axis=0)[:4] - expected[:4]).max() <= 1
    # The fourth comes after 61 ms.
    short = Latency(50, threshold=threshold, tau=tau).encode(values, rng(), 1e-3)[0]
    assert short.sum(axis=0).tolist() == [1, 1, 1, 0, 0, 0]


def test_the_level_of_delta_coding_follows_the_signal() -> None:
    """A signal that changes by less than θ in a step is known to within θ by its spikes."""
    signal = np.cumsum(rng(5).uniform(-0.09, 0.09, (3, 400, 2)), axis=1)
    spikes = Delta(0.1).encode(signal, rng(), DT).astype(float)
    level = signal[:, :1] + 0.1 * np.cumsum(spikes[..., :2] - spikes[..., 2:], axis=1)
    assert np.abs(signal - level).max() < 0.1 + 1e-9
    assert not (spikes[..., :2] * spikes[..., 2:]).any(), "never up and down at once"


def test_a_constant_is_a_current() -> None:
    found = Constant(4).encode(X, rng(), DT)
    assert np.array_equal(found, np.repeat(X.reshape(6, 1, 20), 4, axis=1))


# With what uses models.


@dataclass(frozen=True)
class Ramp(Encoder):
    """A user's own: currents that grow."""

    steps: int = 4

    def shape(self, given: tuple[int, ...]) -> tuple[int, int]:
        return self.steps, given[1]

    def encode(self, x: np.ndarray, rng: np.random.Generator, dt: float) -> np.ndarray:
        return x[:, None] * np.arange(1, self.steps + 1)[:, None]


def test_an_encoder_of_a_user_s() -> None:
    model = evaluator(Ramp())
    assert model.predict(X[:, 0]).shape == (6, 2)
    assert model.network.inputs == 4
    assert model.encoder == Ramp()


def test_an_encoder_that_is_assigned_counts_from_then_on() -> None:
    model = evaluator({"name": "constant", "steps": 3})
    rule = EProp(model)
    rule.step(X, Y)
    model.encoder = {"name": "constant", "steps": 5}
    rule.step(X, Y)
    assert model.encoded(X).shape == (6, 5, 20)
    assert model.clone().encoder == Constant(5)
    model.encoder = None
    with pytest.raises(DataError, match="this network takes 20 input features"):
        rule.step(X, Y)


def test_rules_that_are_compared_see_the_same_spikes(tmp_path: Path) -> None:
    """Also where one makes more updates of a batch than another."""
    network = LIF(12, 2, inputs=20, dtype="float64", seed=1)
    rules = {}
    for name, online in (("a", False), ("b", False), ("every 2", 2)):
        rules[name] = EProp(Evaluator(network.clone(), encoder=made("rate")), online=online, optimizer="naive")
    first = rules.pop("a")
    found = GradientComparison(first, rules, name="a", folder=tmp_path / "compared").train(X, Y, epochs=3, batch_size=3)
    for name in ("b", "every 2"):
        np.testing.assert_allclose(found.statistic(name, "all"), 1, rtol=1e-9)


def test_a_posterior_is_given_the_spikes_of_an_evaluation() -> None:
    model = evaluator(made("rate"))
    posterior = Posterior(model)
    examples = posterior.examples(X, Y)
    inputs = np.concatenate([np.asarray(chunk[0]) for chunk in examples.chunks()], axis=1)
    assert np.array_equal(inputs.swapaxes(0, 1), model.encoded(X))
    vector = posterior.vector(model.network.parameters)
    plain = Posterior(Evaluator(model.network))
    one, two = posterior.log_likelihood(vector, X, Y), plain.log_likelihood(vector, model.encoded(X), Y)
    np.testing.assert_allclose(one, two, rtol=1e-12)
    assert posterior.examples(X, Y).fingerprint() == examples.fingerprint()
    model.encoder = made("rate", seed=1)
    assert posterior.examples(X, Y).fingerprint() != examples.fingerprint()
    samples = Trainer(MALA(Posterior(model), gradient="bptt")).sample(X, Y, draws=3, warmup=3, chains=1)
    assert samples.predict(X).probabilities.shape == (6, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: evaluator("rat"), ArgumentError, "did you mean 'rate'"),
        (lambda: Rate(0), ArgumentError, "steps"),
        (lambda: Rate(5, max_rate=0.0), ArgumentError, "max_rate"),
        (lambda: Latency(5, threshold=1.0), ArgumentError, "threshold"),
        (lambda: Latency(5, threshold=0.0, tau=0.01), ArgumentError, "threshold"),
        (lambda: Delta(0.0), ArgumentError, "threshold"),
        (lambda: evaluator(Rate(5, max_rate=2000.0)).predict(X), ArgumentError, "at most 1/dt"),
        (lambda: evaluator(Rate(5)).predict(X + 1), DataError, "takes values from 0 to 1"),
        (lambda: evaluator(Latency(5)).predict(-X), DataError, "takes values from 0 to 1"),
        (lambda: evaluator(Rate()).predict(X[:, 0]), DataError, "without steps takes values"),
        (lambda: evaluator(Delta()).predict(X[:, 0]), DataError, "delta coding takes signals"),
        (lambda: evaluator(Constant(3)).predict(X[:, 0, 0]), DataError, "must have shape"),
        (lambda: evaluator(Constant(3), inputs=7).predict(X), DataError, "this network takes 7 input features"),
        (lambda: evaluator().predict(X[:, 0]), DataError, "give the Evaluator an encoder"),
    ],
)
def test_what_cannot_be_encoded_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_model_without_time_has_no_encoder() -> None:
    torch = pytest.importorskip("torch")
    model = TorchModel(torch.nn.Linear(4, 2))
    if model.static:
        with pytest.raises(IncompatibleError, match="takes each example as it is"):
            Evaluator(model, encoder=Constant(3))


# From YAML.

CONFIG = {
    "name": "encoded",
    "data": {"name": "mnist1d", "num_samples": 50},
    "encoder": {"name": "delta", "threshold": 0.3},
    "model": {"name": "LIF", "hidden": 8, "outputs": 10, "readout": "mean"},
    "rule": {"name": "eprop"},
    "train": {"epochs": 1, "batch_size": 20},
}


def written(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path


def test_a_run_with_an_encoder(tmp_path: Path) -> None:
    config = written(tmp_path / "encoded.yaml")
    outcome = run(config, out=tmp_path / "run", progress=False)
    assert outcome.status == "finished"
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["encoder"] == {"name": "delta", "threshold": 0.3}
    found = verify(config, ["numpy", "torch"], steps=2, examples=5)
    assert all(verdict.agrees for verdict in found.verdicts)
    with pytest.raises(ArgumentError, match="an encoder makes those of this run"):
        verify(config, ["numpy", "torch"], time_steps=5)
    assert compare(config, ["bptt", "eprop"], out=tmp_path / "comparison", progress=False)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "delt"}, "in 'encoder'"),
        ({"name": "delta", "treshold": 1}, "in 'encoder'"),
        ({"name": "rate", "steps": 5}, "in 'data'"),
    ],
)
def test_a_configuration_with_no_encoder_is_refused(encoder: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(written(tmp_path / "encoded.yaml", encoder=encoder), out=tmp_path / "run", progress=False)


def test_the_seed_of_a_run_is_that_of_its_encoder(tmp_path: Path) -> None:
    from neko_rules.experiments.config import load
    from neko_rules.experiments.run import Experiment

    config = written(tmp_path / "encoded.yaml", encoder={"name": "rate"})
    assert Experiment.build(load(config, (), seed=7)).rule.model.encoder == Rate(seed=7)
    assert Experiment.build(load(config, ("encoder.seed=3",), seed=7)).rule.model.encoder == Rate(seed=3)
