"""Sampling runs from YAML: what they write, that they say what Python says, how they go on, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neko_rules import LIF, MALA, EProp, Evaluator, Posterior, Trainer
from neko_rules.cli import main
from neko_rules.datasets import DATASETS
from neko_rules.errors import ConfigurationError, NekoWarning
from neko_rules.experiments import sampling
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.rules import ALL_RULES
from neko_rules.experiments.run import resume, run
from neko_rules.experiments.sampling import report
from neko_rules.experiments.yaml_file import read_mapping
from neko_rules.probabilistic import SAMPLING_RULES
from neko_rules.probabilistic.chain_files import STATISTICS, ChainRecord
from neko_rules.report.readable import figure
from neko_rules.rules import RULES
from neko_rules.samplers import Chain

TINY = """
name: tiny
seed: 3
dtype: float64
data: {name: mnist1d, num_samples: 60}
model: {name: LIF, hidden: 4, outputs: 10, readout: mean, tau_membrane: 1e-3}
posterior: {prior: student_t, prior_scale: 0.4, layers: {readout: {name: laplace, scale: 0.3}}}
rule: {name: mala, gradient: {name: eprop, mode: random}}
sample: {draws: 6, warmup: 8, chains: 2}
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def draws_of(folder):
    return np.stack([ChainRecord.read(folder / "samples" / f"chain-{chain}").draws for chain in range(2)])


def test_yaml_says_what_python_says(tiny, tmp_path):
    run(tiny, out=tmp_path / "run", progress=False)
    x_train, y_train, x_test, y_test = DATASETS.resolve({"name": "mnist1d", "num_samples": 60}).load()
    network = LIF(4, 10, readout="mean", tau_membrane=1e-3, dtype="float64", seed=3)
    model = Evaluator(network, loss="categorical_crossentropy")
    layers = {"readout": {"name": "laplace", "scale": 0.3}}
    posterior = Posterior(model, prior="student_t", prior_scale=0.4, layers=layers)
    rule = MALA(posterior, gradient=EProp(model, mode="random", seed=3))
    samples = Trainer(rule).sample(x_train, y_train, draws=6, warmup=8, chains=2, seed=3)
    np.testing.assert_array_equal(draws_of(tmp_path / "run"), [record.draws for record in samples.records])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    found = report(samples, x_test, y_test)
    assert summary["sampling"]["test_accuracy"] == found["test_accuracy"]
    assert summary["sampling"]["gradients"] == 28
    assert {"test_expected_calibration_error", "log_likelihood_r_hat", "test_mutual_information"} <= set(found)
    assert (tmp_path / "run" / "uncertainty.png").stat().st_size > 1000


def test_neurons_move_alone_from_yaml(tiny, tmp_path):
    out = tmp_path / "run"
    run(tiny, settings=["rule.neurons={hidden: 2}"], out=out, progress=False)
    assert read_mapping(out / "config.yaml")["rule"]["neurons"] == {"hidden": 2}
    found = json.loads((out / "summary.json").read_text())["sampling"]
    assert 0 < found["block_acceptance_rate"] <= 1
    assert found["gradients"] == 28 * (1 + 2 + 1)  # MALA's own, two energies, and the gradient where they lead
    with pytest.raises(ConfigurationError, match="'hidden'"):
        run(tiny, settings=["rule.neurons={hiden: 2}"], out=tmp_path / "other", progress=False)


def test_the_written_configuration_gives_the_same_run(tiny, tmp_path):
    run(tiny, settings=["sample.draws=4"], out=tmp_path / "one", progress=False)
    written = read_mapping(tmp_path / "one" / "config.yaml")
    assert written["sample"] == {"draws": 4, "warmup": 8, "chains": 2, "thin": 1, "processes": 1}
    assert written["rule"]["gradient"]["mode"] == "random"
    assert "train" not in written
    run(tmp_path / "one" / "config.yaml", out=tmp_path / "two", progress=False)
    np.testing.assert_array_equal(draws_of(tmp_path / "one"), draws_of(tmp_path / "two"))


def test_a_section_train_is_told_to_have_no_effect(tiny, tmp_path):
    with pytest.warns(NekoWarning, match=r"'train' belongs to rules that train .*mala.* how many draws in") as told:
        run(tiny, settings=["train.epochs=100"], out=tmp_path / "run", progress=False)
    assert len(told) == 1
    assert "train" not in read_mapping(tmp_path / "run" / "config.yaml")


def test_a_run_that_was_interrupted_goes_on_from_its_folder(tiny, tmp_path, monkeypatch):
    run(tiny, out=tmp_path / "whole", progress=False)
    advance, left = Chain.advance, [20]

    def failing(chain):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return advance(chain)

    with monkeypatch.context() as patched:
        patched.setattr(Chain, "advance", failing)
        assert main(["run", str(tiny), "--out", str(tmp_path / "cut"), "--quiet"]) == 130
    assert RunFolder(tmp_path / "cut").read_json("summary.json")["status"] == "interrupted"
    assert resume(tmp_path / "cut", progress=False).status == "finished"
    np.testing.assert_array_equal(draws_of(tmp_path / "whole"), draws_of(tmp_path / "cut"))
    with pytest.raises(ConfigurationError, match="must have draws left"):
        resume(tmp_path / "cut", progress=False)


def test_run_and_show_print_what_was_found(tiny, tmp_path, capsys):
    assert main(["run", str(tiny), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "acceptance rate" in printed
    assert main(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    for words in ("mala", "random", "student_t", "test accuracy", "test expected calibration error", "finished after"):
        assert words in shown
    assert main(["list", "priors"]) == 0
    assert "Horseshoe" in capsys.readouterr().out


def test_regression_is_reported_by_its_error(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4, 2))
    np.savez(tmp_path / "data.npz", x=x, y=x.sum(axis=(1, 2))[:, None])
    path = tmp_path / "values.yaml"
    path.write_text(
        f"data: {{name: arrays, path: {tmp_path / 'data.npz'}, task_type: regression}}\n"
        "model: {name: RNN, hidden: 3, outputs: 1, readout: last, task_type: regression}\n"
        "posterior: {noise_scale: 0.5}\nrule: hmc\nsample: {draws: 5, warmup: 40, chains: 1}\n",
        encoding="utf-8",
    )
    found = run(path, out=tmp_path / "run", progress=False).summary["sampling"]
    assert found["test_variance"] > 0.25
    assert found["test_squared_error"] > 0


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("posterior.prior=gauss", "unknown prior"),
        ("posterior.temperature=0", "temperature must be"),
        ("posterior.scale=1", "has no 'scale'"),
        ("sample.draw=5", "did you mean 'draws'"),
        ("sample.draws=0", "draws must be"),
        ("rule.gradient.mode=adaptive", "would change while sampling"),
        ("rule.gradient=epropp", "unknown rule"),
        ("rule.steps=3", "has no 'steps'"),
        ("rule=eprop", "belongs to rules that sample"),
        ("rule=sgld", "needs a step_size"),
        ("model.readout=sequence", "one observation"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tiny, tmp_path, setting, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        run(tiny, settings=[setting], out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_both_kinds_of_rules_have_names_of_their_own():
    assert not set(RULES) & set(SAMPLING_RULES)
    assert list(ALL_RULES) == [*RULES, *SAMPLING_RULES]
    lines = [line for _, line in ALL_RULES.describe()]
    assert len(set(lines)) == len(lines)
    assert all(line.endswith(".") for line in lines)


def test_the_example_is_a_configuration():
    from neko_rules.experiments.config import load
    from neko_rules.experiments.run import Experiment

    experiment = Experiment.build(load(Path(__file__).parents[1] / "configs" / "mnist1d_mala.yaml"))
    assert isinstance(experiment.rule, MALA)


def test_the_report_of_a_run_holds_its_chains_and_its_doubt(tiny, tmp_path):
    run(tiny, out=tmp_path / "run", progress=False)
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for heading in ("What was run", "Chains", "Uncertainty", "Activity", "Environment"):
        assert f"<h2>{heading}</h2>" in page
    found = RunFolder(tmp_path / "run").read_json("summary.json")["sampling"]
    for words in ("finished after 12 of 12 draws of 2 chains", "The chains do not agree", "the last drawn network"):
        assert words.lower() in page.lower()
    for name in ("log_likelihood_r_hat", "predictions_ess_bulk", "test_accuracy", "test_mutual_information"):
        assert f">{figure(found[name])}<" in page
    charts = {chart["y"]: chart for chart in json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])}
    statistics = [ChainRecord.read(tmp_path / "run" / "samples" / f"chain-{chain}").statistics for chain in range(2)]
    traces = charts["Log density (nats)"]["series"]
    assert [trace["name"] for trace in traces] == ["chain 0", "chain 1"]
    for trace, chain in zip(traces, statistics, strict=True):
        np.testing.assert_allclose(trace["y"], chain[:, STATISTICS.index("lp")], rtol=1e-5)
    risk = charts["Error (%)"]["series"][0]
    assert risk["x"][-1] == 100
    assert risk["y"][-1] == pytest.approx(100 * (1 - found["test_accuracy"]), rel=1e-5)
    assert not re.search(r"https?:", page)


DYING = """
import os, sys
from pathlib import Path
from neko_rules.experiments.run import run
from neko_rules.probabilistic import sampling
from neko_rules.samplers import Chain
advance, left = Chain.advance, [8 + 6 + 8 + 5]
def dying(chain):
    left[0] -= 1
    return advance(chain) if left[0] >= 0 else os._exit(9)  # without a word, as by a kill
Chain.advance, sampling.sample.__kwdefaults__["seconds"] = dying, 0.0
run(Path(sys.argv[1]), out=Path(sys.argv[2]), progress=False)
"""


def test_a_run_that_was_killed_is_shown_and_reported_as_far_as_it_came(tiny, tmp_path, capsys):
    killed = subprocess.run([sys.executable, "-c", DYING, str(tiny), str(tmp_path / "run")], check=False)
    assert killed.returncode == 9
    assert main(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "unfinished after 11 of 12 draws of 2 chains" in shown
    assert "log density of 2 chains" in shown
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "unfinished after 11 of 12 draws" in page
    assert "<td>log-likelihood</td>" in page
    assert "<h2>Uncertainty</h2>" not in page
    resume(tmp_path / "run", progress=False)
    run(tiny, out=tmp_path / "whole", progress=False)
    np.testing.assert_array_equal(draws_of(tmp_path / "whole"), draws_of(tmp_path / "run"))


def test_a_run_that_has_drawn_nothing_has_a_report(tiny, tmp_path):
    run(tiny, out=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "run" / "samples")
    (tmp_path / "run" / "summary.json").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "unfinished after 0 of 12 draws of 2 chains" in page
    assert "must hold a draw" in page


def test_chains_that_never_moved_do_not_agree() -> None:
    """R-hat of such is not a number, which a file has as null."""
    figures = {f"{name}_{figure}": None for name in sampling.FOLLOWED for figure in ("r_hat", "ess_bulk")}
    assert sampling.converged({**figures, "chains": 4, "draws": 100}) is False
    assert sampling.converged({**figures, "chains": 4, "draws": 1}) is None
    good = {key: 1.0 if key.endswith("r_hat") else 5000.0 for key in figures}
    assert sampling.converged({**good, "chains": 4, "draws": 2000}) is True
