"""Sampling runs: the same chain on every backend, on disk, after a kill, in processes; predictions and exports.

Run as a program (``python test_sampling.py FOLDER``), this file samples slowly, to be killed from outside.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from posterior_cases import linear, linear_data, posterior_of, spiking, spiking_data
from rich.console import Console
from scipy import stats

from neko_rules import (
    BPTT,
    HMC,
    LIF,
    MALA,
    NUTS,
    SGHMC,
    SGLD,
    EProp,
    Evaluator,
    FiringRate,
    Posterior,
    RandomWalk,
    Trainer,
)
from neko_rules.errors import ArgumentError, CheckpointError, DataError, IncompatibleError, NekoError
from neko_rules.probabilistic import SAMPLING_RULES, sample
from neko_rules.probabilistic import arviz as adapter
from neko_rules.probabilistic.chain_files import STATISTICS, ChainRecord
from neko_rules.probabilistic.comparisons import MonteCarloDropout
from neko_rules.probabilistic.predictive import entropies, of_logits, of_values
from neko_rules.samplers import Chain, ess_bulk, r_hat
from neko_rules.trainers.sampling_progress import SamplingProgress

X, Y = spiking_data(12)
RUN = {"draws": 12, "warmup": 25, "chains": 2, "seed": 3}


def rule_of(make=MALA, model=None, **options):
    model = model or spiking()
    if make in (SGLD, SGHMC):
        options = {"step_size": 0.01, "batch_size": 5} | options
    return make(Posterior(model, prior_scale=1.0), gradient=EProp(model, mode="random"), **options)


def drawn(samples):
    return np.stack([np.asarray(record.draws) for record in samples.records])


def same(one, other):
    np.testing.assert_array_equal(drawn(one), drawn(other))
    for name in STATISTICS:
        np.testing.assert_array_equal(one.statistics[name], other.statistics[name])
    assert one.evaluations == other.evaluations


# The battery over all samplers.


@pytest.mark.parametrize("name", list(SAMPLING_RULES))
def test_every_sampler_gives_samples(name):
    rule = rule_of(SAMPLING_RULES[name])
    before = rule.model.network.parameters
    samples = Trainer(rule).sample(X, Y, **RUN)
    assert drawn(samples).shape == (2, 12, 3)
    assert np.isfinite(drawn(samples)).all()
    assert np.ptp(drawn(samples), axis=1).max() > 0
    assert not np.array_equal(*drawn(samples))
    for parameter, value in rule.model.network.parameters.items():
        np.testing.assert_array_equal(value, before[parameter])
    density = rule.posterior.density(X, Y)
    for chain in range(2):
        np.testing.assert_allclose(samples.statistics["lp"][chain], -density.energy(drawn(samples)[chain]), rtol=1e-12)
        likelihood = [rule.posterior.log_likelihood(vector, X, Y).sum() for vector in drawn(samples)[chain]]
        np.testing.assert_allclose(samples.statistics["log_likelihood"][chain], likelihood, rtol=1e-9)
    assert len(np.unique(samples.statistics["step_size"][0])) == 1  # P5: frozen over the kept draws
    assert samples.exact == rule.kernel.exact
    assert ("approximate" in str(samples.summary())) == (not rule.kernel.exact)
    same(samples, Trainer(rule_of(SAMPLING_RULES[name])).sample(X, Y, **RUN))
    other = Trainer(rule).sample(X, Y, **RUN | {"seed": 4})
    assert not np.array_equal(drawn(samples), drawn(other))


@pytest.mark.parametrize("make", [MALA, NUTS])
def test_a_seed_is_the_same_chain_on_every_backend(backend, make):
    reference = Trainer(rule_of(make)).sample(X[:4], Y[:4], draws=4, warmup=6, chains=1)
    found = Trainer(rule_of(make, spiking(backend=backend))).sample(X[:4], Y[:4], draws=4, warmup=6, chains=1)
    np.testing.assert_allclose(drawn(found), drawn(reference), rtol=1e-8)
    np.testing.assert_allclose(found.statistics["lp"], reference.statistics["lp"], rtol=1e-8)


def test_the_gradient_is_a_choice_and_changes_the_chain():
    model = spiking()
    runs = {}
    for name, gradient in {"default": None, "bptt": "bptt", "object": BPTT(model), "eprop": {"name": "eprop"}}.items():
        rule = MALA(Posterior(model, prior_scale=1.0), gradient=gradient)
        runs[name] = drawn(Trainer(rule).sample(X, Y, **RUN))
    random = drawn(Trainer(rule_of(MALA, model)).sample(X, Y, **RUN))
    np.testing.assert_array_equal(runs["default"], runs["bptt"])
    np.testing.assert_array_equal(runs["default"], runs["object"])
    assert not np.array_equal(runs["default"], random)
    assert not np.array_equal(runs["eprop"], random)


@pytest.mark.parametrize(
    "change",
    [
        {"step_size": 3.0},
        {"target_acceptance": 0.9},
        {"adaptation": "robbins_monro"},
        {"mass": "identity"},
        {"scales": {"hidden": 0.1}},
        {"neurons": {"readout": 1}},
        {"start": "model"},
    ],
)
def test_every_option_changes_the_chain(change):
    run = RUN | {"warmup": 60, "chains": 1}  # the shortest with a window for the mass is 50
    usual = drawn(Trainer(rule_of(HMC, steps=2)).sample(X, Y, **run))
    assert not np.array_equal(usual, drawn(Trainer(rule_of(HMC, steps=2, **change)).sample(X, Y, **run)))


def test_chains_begin_at_the_model_if_asked():
    rule = rule_of(MALA, start="model")
    np.testing.assert_array_equal(
        rule.begin(np.random.default_rng(0))[0], rule.posterior.vector(rule.model.network.parameters)
    )


def test_scales_say_how_far_a_layer_moves_beside_the_others():
    rule = rule_of(MALA, scales={"hidden": 0.01, "readout.input.weight": 2.0})
    rule.model.check(X, Y)
    np.testing.assert_allclose(rule.inverse_mass(), np.array([0.01, 2.0, 2.0]) ** 2)
    samples = Trainer(rule).sample(X, Y, **RUN)
    moved = np.abs(np.diff(drawn(samples), axis=1)).mean(axis=(0, 1))
    assert moved[0] < 0.05 * moved[1:].min()
    with pytest.raises(ArgumentError, match="did you mean 'hidden'"):
        rule_of(MALA, scales={"hiden": 0.1})
    with pytest.raises(ArgumentError, match="above 0"):
        rule_of(MALA, scales={"hidden": 0})


def wide(**options):
    network = LIF(6, 2, inputs=3, readout="mean", tau_membrane=2e-3, dtype="float64", seed=1, **options)
    return Evaluator(network)


WIDE = np.random.default_rng(5).normal(size=(10, 6, 3)), np.arange(10) % 2


@pytest.mark.parametrize("neurons", [None, {"hidden": 2}])
def test_the_mass_that_is_found_leaves_scales_as_they_were_given(neurons):
    rule = HMC(Posterior(wide()), steps=3, gradient="eprop", scales={"hidden": 1e-4}, neurons=neurons)
    samples = Trainer(rule).sample(*WIDE, draws=5, warmup=120, chains=1)
    found, given = samples.inverse_mass[0], rule.inverse_mass()
    for name, _, place in rule.posterior.layout:
        assert np.array_equal(found[place], given[place]) == name.startswith("hidden"), name


@pytest.mark.parametrize("make", [HMC, NUTS, MALA, RandomWalk])
def test_neurons_move_alone_where_a_trajectory_does_not_take_them(make):
    # Scales so far apart ask for as long a trajectory as may be.
    short = {"max_depth": 6} if make is NUTS else {}

    def run(**options):
        rule = rule_of(make, wide(), scales={"hidden": 1e-6}, **short, **options)
        samples = Trainer(rule).sample(*WIDE, draws=30, warmup=10, chains=1, seed=2)
        return rule.posterior, samples

    posterior, samples = run(neurons={"hidden": 2})
    vectors, neurons = drawn(samples)[0], posterior.neurons("hidden")
    assert [len(neuron) for neuron in neurons] == [3 + 5 + 1] * 6  # inputs, the other neurons, and the bias
    assert not set(np.concatenate(neurons)) & set(np.concatenate(posterior.neurons("readout")))
    jumped = np.array([[np.abs(np.diff(vectors[:, each], axis=0)).max(axis=1) > 1e-3] for each in neurons])[:, 0]
    assert jumped.any(axis=1).all()
    assert jumped.sum(axis=0).max() == 2  # two neurons a transition, accepted or not
    assert samples.statistics["n_steps"].min() >= 3
    # The mean of probabilities is that of acceptances, over 60 moves.
    rate = samples.statistics["block_acceptance_rate"].mean()
    assert abs(jumped.sum() / 58 - rate) < 0.25
    assert f"acceptance of moves of single neurons {rate:.3f}" in str(samples.summary())
    np.testing.assert_allclose(samples.statistics["lp"][0], -posterior.density(*WIDE).energy(vectors), rtol=1e-12)
    _, without = run()
    hidden = np.concatenate(neurons)
    assert np.ptp(drawn(without)[0][:, hidden], axis=0).max() < 1e-3
    assert np.isnan(without.statistics["block_acceptance_rate"]).all()
    assert "single neurons" not in str(without.summary())


def test_neurons_move_alone_the_same_on_every_backend(backend):
    def run(**options):
        rule = rule_of(HMC, wide(**options), steps=2, neurons={"hidden": 3, "readout": 1})
        return Trainer(rule).sample(*WIDE, draws=4, warmup=4, chains=1)

    reference, found = run(), run(backend=backend)
    np.testing.assert_allclose(drawn(found), drawn(reference), rtol=1e-8)
    assert found.evaluations == reference.evaluations


def test_neurons_that_cannot_move_alone_are_refused():
    with pytest.raises(ArgumentError, match="neurons must be one of hidden, readout"):
        rule_of(MALA, neurons={"hiden": 1})
    with pytest.raises(ArgumentError, match=r"neurons\['hidden'\] must be"):
        rule_of(MALA, neurons={"hidden": 0})
    with pytest.raises(ArgumentError, match="7 moves of 6 blocks"):
        Trainer(rule_of(MALA, wide(), neurons={"hidden": 7})).sample(*WIDE, draws=1, warmup=0)
    model = wide()
    fixed = MALA(Posterior(model, fixed=["hidden"]), neurons={"hidden": 1})
    with pytest.raises(ArgumentError, match="a layer with sampled weights"):
        Trainer(fixed).sample(*WIDE, draws=1, warmup=0)
    with pytest.raises(IncompatibleError, match="no accept step"):
        rule_of(SGLD, neurons={"hidden": 1})


def test_thinning_keeps_every_so_manieth():
    whole = Trainer(rule_of()).sample(X, Y, **RUN | {"draws": 12})
    thin = Trainer(rule_of()).sample(X, Y, **RUN | {"draws": 4}, thin=3)
    np.testing.assert_array_equal(drawn(thin), drawn(whole)[:, 2::3])
    np.testing.assert_array_equal(thin.statistics["n_steps"], 3)
    mean = whole.statistics["acceptance_rate"].reshape(2, 4, 3).mean(axis=2)
    np.testing.assert_allclose(thin.statistics["acceptance_rate"], mean)


# Disk.


def test_draws_on_disk_are_those_in_memory(tmp_path):
    in_memory = Trainer(rule_of()).sample(X, Y, **RUN)
    on_disk = Trainer(rule_of()).sample(X, Y, **RUN, folder=tmp_path / "run")
    same(in_memory, on_disk)
    assert isinstance(on_disk.records[0].draws, np.memmap)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "chain-1" / "draws.npy"), drawn(in_memory)[1])
    again = Trainer(rule_of()).sample(X, Y, **RUN, folder=tmp_path / "run", resume=True)
    same(in_memory, again)


@pytest.mark.parametrize("options", [{"make": MALA}, {"make": NUTS}, {"make": SGHMC}, {"neurons": {"readout": 1}}])
@pytest.mark.parametrize("stop", [1, 20, 31, 45])
def test_a_run_that_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, options, stop):
    whole = Trainer(rule_of(**options)).sample(X, Y, **RUN)
    advance, left = Chain.advance, [stop]

    def failing(chain):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return advance(chain)

    with monkeypatch.context() as patched:
        patched.setattr(Chain, "advance", failing)
        with pytest.raises(KeyboardInterrupt):
            sample(rule_of(**options), X, Y, **RUN, folder=tmp_path / "run", seconds=0)
    resumed = sample(rule_of(**options), X, Y, **RUN, folder=tmp_path / "run", resume=True, seconds=0)
    same(whole, resumed)


SLOW = {"draws": 60, "warmup": 30, "chains": 1, "seed": 8}


def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, __file__, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    end, draws = time.monotonic() + 60, folder / "chain-0" / "draws.npy"
    while time.monotonic() < end and not (draws.exists() and np.load(draws, mmap_mode="r")[10].any()):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not np.load(draws)[-1].any(), "killed before its end"
    resumed = sample(rule_of(), X, Y, **SLOW, folder=folder, resume=True)
    same(resumed, sample(rule_of(), X, Y, **SLOW))


def test_the_files_of_a_chain_have_their_names_only_when_they_are_whole(tmp_path, monkeypatch):
    def killed(source, target):
        raise KeyboardInterrupt

    folder = tmp_path / "chain-0"
    with monkeypatch.context() as patched:
        patched.setattr("neko_rules.probabilistic.chain_files.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            ChainRecord.begin(60, 3, "float64", folder)
    assert not [*folder.glob("*.npy")]
    record = ChainRecord.begin(60, 3, "float64", folder)
    record.draws[4] = [1.0, 2.0, 3.0]
    seen = ChainRecord.read(folder)
    assert [each.name for each in sorted(folder.iterdir())] == ["draws.npy", "statistics.npy"]
    np.testing.assert_array_equal(seen.draws, record.draws)
    assert seen.statistics.shape == (60, len(STATISTICS))


def test_a_folder_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "run"
    Trainer(rule_of()).sample(X, Y, **RUN, folder=folder)
    with pytest.raises(CheckpointError, match="must be new"):
        Trainer(rule_of()).sample(X, Y, **RUN, folder=folder)
    changes = {
        "seed": lambda: Trainer(rule_of()).sample(X, Y, **RUN | {"seed": 4}, folder=folder, resume=True),
        "data": lambda: Trainer(rule_of()).sample(X + 0.1, Y, **RUN, folder=folder, resume=True),
        "rule": lambda: Trainer(rule_of(RandomWalk)).sample(X, Y, **RUN, folder=folder, resume=True),
        "neurons": lambda: Trainer(rule_of(neurons={"readout": 2})).sample(X, Y, **RUN, folder=folder, resume=True),
        "adaptation": lambda: Trainer(rule_of(mass="identity")).sample(X, Y, **RUN, folder=folder, resume=True),
    }
    for name, run in changes.items():
        with pytest.raises(CheckpointError, match=f"resumed with the {name}"):
            run()
    with pytest.raises(CheckpointError, match=r"received: no sampling\.json in .*rum\); leave resume out to begin"):
        Trainer(rule_of()).sample(X, Y, **RUN, folder=tmp_path / "rum", resume=True)
    assert not (tmp_path / "rum").exists()
    (folder / "chain-0" / "state.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="state of a chain must be a whole"):
        Trainer(rule_of()).sample(X, Y, **RUN, folder=folder, resume=True)


def test_processes_give_the_same_chains(tmp_path):
    alone = Trainer(rule_of()).sample(X, Y, **RUN)
    same(alone, Trainer(rule_of()).sample(X, Y, **RUN, processes=2))


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("backend_name", ["numpy", "torch", "jax"])
def test_a_rule_that_was_compiled_can_be_sent_to_a_process(backend_name, chained, monkeypatch):
    """Also one that has taken steps, of a model that was evaluated, by compiled loops."""
    import pickle

    pytest.importorskip(backend_name)
    from neko_rules.probabilistic.processes import packed

    if chained:
        monkeypatch.setattr("neko_rules.chains.running.WORTHWHILE", 0)
    rule = rule_of(MALA, spiking(backend=backend_name))
    rule.gradient.step(X, Y)
    rule.gradient.gradients(X, Y)
    rule.posterior.model.evaluate(X, Y)
    twin = pickle.loads(packed(rule))
    assert twin.gradient.model is twin.posterior.model
    for name, gradient in twin.gradient.gradients(X, Y).items():
        np.testing.assert_array_equal(gradient, rule.gradient.gradients(X, Y)[name])
    assert twin.posterior.model.evaluate(X, Y) == rule.posterior.model.evaluate(X, Y)


# Progress.


def progress_of(terminal, **options):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    with SamplingProgress(25, 12, 2, console=console, **options) as told:
        samples = sample(rule_of(), X, Y, **RUN, told=told)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()), samples


def test_progress_is_shown_where_there_is_a_terminal_and_changes_nothing(monkeypatch):
    # A run this short is over before the second drawing is due.
    monkeypatch.setattr("neko_rules.trainers.sampling_progress._REDRAW", 0.0)
    text, samples = progress_of(True, delay=0.0)
    assert "chain 1 of 2, warm-up" in text
    assert "/74 · " in text
    assert "left" in text
    same(samples, sample(rule_of(), X, Y, **RUN))
    lines, _ = progress_of(False, delay=0.0)
    assert [line.split(" after ")[0] for line in lines.splitlines()] == [
        f"chain {chain} of 2 has made its 37 transitions" for chain in (1, 2)
    ]
    assert progress_of(True, delay=60.0)[0] == ""


# Refusals.


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(IncompatibleError, match="takes a Posterior"):
        MALA(spiking())
    with pytest.raises(ArgumentError, match="did you mean 'gradient'"):
        MALA(Posterior(spiking()), gradiant="bptt")
    with pytest.raises(ArgumentError, match="needs a step_size"):
        SGLD(Posterior(spiking()))
    with pytest.raises(IncompatibleError, match="does not train"):
        Trainer(rule_of()).train(X, Y, epochs=1)
    with pytest.raises(IncompatibleError, match="sample needs a rule that samples"):
        Trainer(BPTT(spiking())).sample(X, Y)
    with pytest.raises(DataError, match="batch_size must be at most"):
        Trainer(rule_of(SGLD, batch_size=50)).sample(X, Y, **RUN)
    with pytest.raises(ArgumentError, match="draws must be"):
        Trainer(rule_of()).sample(X, Y, draws=0)


# Predictions.


def test_predictions_are_means_over_the_networks():
    samples = Trainer(rule_of()).sample(X, Y, **RUN)
    told = samples.predict(X)
    each = []
    for chain in range(2):
        for draw in range(12):
            model = spiking()
            model.network.set_parameters(samples.parameters(chain, draw))
            logits = model.predict(X)
            each.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(told.probabilities, mean, rtol=1e-12)
    np.testing.assert_allclose(told.entropy, [stats.entropy(p) for p in mean], rtol=1e-12)
    expected = told.entropy - np.mean([[stats.entropy(p) for p in one] for one in each], axis=0)
    np.testing.assert_allclose(told.mutual_information, expected, atol=1e-12)
    assert told.networks == 24
    assert (told.classes == np.argmax(mean, axis=1)).all()
    assert samples.predict(X, most=6).networks == 6
    assert np.abs(samples.predict(X, most=6).probabilities - mean).max() > 1e-6


def test_entropy_and_mutual_information_of_known_cases():
    assert entropies(np.array([[1.0, 0.0]])) == 0
    agreed = of_logits([np.array([[0.0, 0.0]])] * 3)
    np.testing.assert_allclose([agreed.entropy[0], agreed.mutual_information[0]], [np.log(2), 0], atol=1e-15)
    apart = of_logits([np.array([[1e3, 0.0]]), np.array([[0.0, 1e3]])])
    np.testing.assert_allclose([apart.entropy[0], apart.mutual_information[0]], [np.log(2), np.log(2)])


def test_regression_predicts_the_known_distribution():
    x, y = linear_data()
    samples = Trainer(MALA(posterior_of(linear()))).sample(x, y, draws=1500, warmup=300, chains=2)
    told = samples.predict(x)
    from posterior_cases import NOISE, conjugate

    mean, covariance = conjugate(x, y)
    design = np.column_stack([x[:, 0], np.ones(len(x))])
    np.testing.assert_allclose(told.mean[:, 0], design @ mean, atol=0.06)
    np.testing.assert_allclose(told.epistemic[:, 0], np.einsum("ij,jk,ik->i", design, covariance, design), rtol=0.25)
    np.testing.assert_allclose(told.variance, told.epistemic + NOISE**2, rtol=1e-12)
    assert of_values([y, y]).epistemic.max() == 0


# Diagnostics and export.


def test_the_summary_is_of_what_is_identified():
    samples = Trainer(rule_of()).sample(X, Y, **RUN | {"draws": 40})
    summary = samples.summary(X[:3])
    likelihood = samples.statistics["log_likelihood"]
    assert summary.rows["log_likelihood"]["r_hat"] == float(r_hat(likelihood))
    assert summary.rows["log_likelihood"]["ess_bulk"] == float(ess_bulk(likelihood))
    told = np.array([of_logits([o]).probabilities for o in samples.outputs(X[:3])]).reshape(2, 40, -1)
    assert summary.rows["predictions"]["r_hat"] == max(r_hat(told))
    assert summary.evaluations == 2 * (25 + 40)
    assert 0 < summary.acceptance_rate < 1
    text = str(summary)
    assert "R-hat" in text
    assert f"{summary.acceptance_rate:.3f}" in text
    assert not summary.converged


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arviz_gets_its_schema():
    arviz = pytest.importorskip("arviz")
    samples = Trainer(rule_of(NUTS)).sample(X, Y, **RUN)
    data = samples.to_arviz(pointwise=True)
    wanted = {"lp", "acceptance_rate", "step_size", "n_steps", "tree_depth", "diverging", "energy", "energy_error"}
    assert set(data.sample_stats.data_vars) == wanted
    assert data.sample_stats["diverging"].dtype == bool
    assert data.sample_stats["lp"].dims == ("chain", "draw")
    weight = data.posterior["readout.input.weight"]
    assert weight.dims[:2] == ("chain", "draw")
    assert weight.shape == (2, 12, 1, 2)
    np.testing.assert_array_equal(weight[1, 7], samples.parameters(1, 7)["readout.input.weight"])
    np.testing.assert_allclose(data.log_likelihood["y"].sum("y_dim_0"), samples.statistics["log_likelihood"], rtol=1e-9)
    moving = Trainer(rule_of(MALA, neurons={"readout": 1})).sample(X, Y, **RUN).to_arviz(weights=False)
    assert set(moving.sample_stats.data_vars) == wanted | {"block_acceptance_rate"}
    assert set(samples.to_arviz(weights=False).posterior.data_vars) == {"total_log_likelihood"}
    assert np.isfinite(float(arviz.rhat(data)["hidden.input.weight"].max()))


class Version1:
    """ArviZ 1.x as far as the adapter uses it: from_dict takes one mapping of groups, and attributes by group."""

    __version__ = "1.2.0"

    @staticmethod
    def from_dict(data, *, attrs=None, dims=None, coords=None):
        return {"groups": data, "attrs": attrs}


def test_the_adapter_speaks_to_the_next_version_too():
    samples = Trainer(rule_of()).sample(X, Y, **RUN)
    found = adapter.converted(Version1, adapter.groups(samples, weights=True, pointwise=False), samples.about)
    assert set(found["groups"]) == {"posterior", "sample_stats"}
    assert found["attrs"]["/"]["inference_library"] == "neko_rules"


def test_without_arviz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    samples = Trainer(rule_of()).sample(X, Y, **RUN)
    with pytest.raises(NekoError, match=r"neko_rules\[bayes\]"):
        samples.to_arviz()


def test_importing_the_samplers_loads_nothing_heavy():
    libraries = ["scipy", "arviz", "matplotlib", "torch"]
    code = f"import sys; from neko_rules import MALA; print([m for m in {libraries} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_recurrent_networks_in_float32_are_sampled_too():
    model = Evaluator(LIF(6, 3, readout="mean"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 6, 2)), rng.integers(3, size=10)
    rule = MALA(Posterior(model, chunk_size=4), gradient=EProp(model, mode="random"))
    samples = Trainer(rule).sample(x, y, draws=10, warmup=60, chains=1)
    assert samples.records[0].draws.dtype == np.float32
    assert samples.statistics["acceptance_rate"].mean() > 0.1
    np.testing.assert_array_equal(np.diag(samples.parameters(0, 3)["hidden.recurrent.weight"]), 0)


def main(folder):
    """A run that is slow and writes its state after every transition."""
    advance = Chain.advance

    def slowly(chain):
        time.sleep(0.02)
        return advance(chain)

    Chain.advance = slowly
    sample(rule_of(), X, Y, **SLOW, folder=Path(folder), seconds=0)


if __name__ == "__main__":
    main(sys.argv[1])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("populations", {"tau_membrane": 5e-3}),
        ("populations", {"threshold": 0.5}),
        ("populations", {"surrogate": "fast_sigmoid"}),
        ("readout", {"readout": "last"}),
        ("dt", {"dt": 2e-3}),
    ],
    ids=str,
)
def test_a_chain_is_not_taken_up_on_another_model(name, changed, tmp_path):
    """Two posteriors would be spliced into one chain."""

    def sampled(resume, **options):
        model = Evaluator(LIF(4, 2, **{"inputs": X.shape[2], "readout": "mean", "dtype": "float64", **options}))
        return Trainer(MALA(Posterior(model))).sample(X, Y, **RUN, folder=tmp_path / "run", resume=resume)

    sampled(False)
    with pytest.raises(CheckpointError, match=f"resumed with the {name}"):
        sampled(True, **changed)
    sampled(True)


def test_a_chain_is_not_taken_up_by_another_force_or_from_other_weights(tmp_path):
    def sampled(folder, resume, *, seed=0, weights=0, **options):
        model = Evaluator(LIF(4, 2, inputs=X.shape[2], readout="mean", dtype="float64", seed=weights))
        rule = MALA(Posterior(model), gradient=EProp(model, mode="random", seed=seed, **options), start="model")
        return Trainer(rule).sample(X, Y, **RUN, folder=tmp_path / folder, resume=resume)

    sampled("run", False)
    for name, changed in (
        ("feedback", {"seed": 1}),
        ("gradient", {"regularizers": [FiringRate(target=10.0)]}),
        ("start", {"weights": 1}),
    ):
        with pytest.raises(CheckpointError, match=f"resumed with the {name}"):
            sampled("run", True, **changed)
    sampled("run", True)


def test_a_step_of_dropout_that_fails_leaves_the_weights():
    model = Evaluator(LIF(4, 2, inputs=X.shape[2], readout="mean", dtype="float64"))
    dropout, before = MonteCarloDropout(EProp(model), rate=0.5), model.network.parameters
    with pytest.raises(DataError):
        dropout.step(X, np.full(len(Y), 7))
    assert all(np.array_equal(before[name], each) for name, each in model.network.parameters.items())


def test_numbers_of_numpy_are_those_of_python(tmp_path):
    def sampled(number, whole, **more):
        rule = rule_of(MALA, wide(), step_size=number(0.1), neurons={"hidden": whole(2)}, target_acceptance=number(0.6))
        return Trainer(rule).sample(*WIDE, draws=4, warmup=2, chains=1, folder=tmp_path / "run", **more)

    begun = sampled(np.float64, np.int64)
    same(begun, sampled(float, int, resume=True))
