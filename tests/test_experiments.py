"""Runs from YAML: what they write, that they can be repeated and resumed, and that YAML says what Python says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from neko_rules.cli import main
from neko_rules.errors import ConfigurationError, NekoError
from neko_rules.experiments.config import Configuration, checked, load, resolved
from neko_rules.experiments.environment import environment
from neko_rules.experiments.folder import RunFolder
from neko_rules.experiments.parts import REGISTRIES, registry_of, shortened, written_out
from neko_rules.experiments.run import Experiment
from neko_rules.experiments.run import resume as resume_run
from neko_rules.experiments.run import run as run_file
from neko_rules.experiments.settings import apply_setting
from neko_rules.experiments.yaml_file import dump, parse, parse_mapping

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

TINY = """
name: tiny
seed: 3
data: {name: mnist1d, num_samples: 100}
model: {name: ALIF, hidden: 6, outputs: 10}
metrics: [accuracy, firing_rate]
rule: {name: eprop, mode: random, optimizer: {name: adam, learning_rate: 1e-2}}
train: {epochs: 3, batch_size: 16}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def records(folder: Path, seconds: bool = False) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if seconds or key != "seconds"} for line in lines]


class TestRunFolder:
    def test_holds_everything(self, tiny: Path, tmp_path: Path) -> None:
        outcome = run_file(tiny, out=tmp_path / "run", progress=False)
        assert outcome.status == "finished"
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert names == {
            "config.yaml",
            "environment.json",
            "metrics.jsonl",
            "weights.safetensors",
            "checkpoints",
            "learning_curve.png",
            "learning_curve.svg",
            "summary.json",
        }
        assert [record["epoch"] for record in records(tmp_path / "run")] == [1, 2, 3]
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert (summary["status"], summary["epochs"]) == ("finished", 3)
        assert summary["final"] == records(tmp_path / "run", seconds=True)[-1]
        about = json.loads((tmp_path / "run" / "environment.json").read_text())
        assert (about["backend"], about["seed"]) == ("numpy", 3)
        assert about["libraries"]["numpy"] == np.__version__
        assert (tmp_path / "run" / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    def test_what_training_cost_a_crossbar_is_told(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        device = "{name: constant, stuck: 0.2, endurance: 1000}"
        on_devices = f"{{name: manhattan, crossbar: {{device: {device}, w_max: 4.0}}}}"
        said = []
        for rule in (on_devices, "manhattan"):
            folder = tmp_path / f"run{len(said)}"
            settings = ["--set", f"rule={rule}", "--set", "train.epochs=1"]
            assert main(["run", str(tiny), "--out", str(folder), *settings]) == 0
            assert main(["show", str(folder)]) == 0
            said.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("crossbar ")])
        found = json.loads((tmp_path / "run0" / "summary.json").read_text())["crossbar"]
        assert found["pulses"] == found["up"] + found["down"] > 100
        assert 0.15 < found["stuck"] / found["devices"] < 0.25
        assert found["energy"] > 0
        assert 0 < found["endurance_used"] < 0.1
        assert len(said[0]) == 2
        assert said[0][0] == said[0][1]
        assert f"{found['pulses']:,} pulses" in said[0][0]
        assert f"{found['stuck']} of {found['devices']:,} devices stuck" in said[0][0]
        assert main(["report", str(tmp_path / "run0"), "--no-activity"]) == 0
        assert said[0][0].removeprefix("crossbar  ") in (tmp_path / "run0" / "report.html").read_text()
        assert said[1] == []
        assert "crossbar" not in json.loads((tmp_path / "run1" / "summary.json").read_text())

    @pytest.mark.parametrize("rule", ["tiki_taka", "tiki_taka_v2"])
    def test_what_training_cost_the_fast_array_is_told_too(
        self, rule: str, tiny: Path, tmp_path: Path, capsys: Any
    ) -> None:
        arrays = "crossbar: {w_max: 4.0}, fast: {device: {name: soft_bounds, stuck: 0.3}, w_max: 4.0}"
        settings = ["--set", f"rule={{name: {rule}, {arrays}}}", "--set", "train.epochs=1"]
        assert main(["run", str(tiny), "--out", str(tmp_path / "run"), *settings]) == 0
        assert main(["show", str(tmp_path / "run")]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if " pulses (" in line]
        assert [line.split("  ")[0] for line in lines] == ["crossbar", "fast crossbar"] * 2
        assert lines[:2] == lines[2:]
        found = json.loads((tmp_path / "run" / "summary.json").read_text())
        slow, fast = found["crossbar"], found["fast_crossbar"]
        assert fast["pulses"] == fast["up"] + fast["down"] > 0
        # Half of the devices of the fast array are the fixed side of their pairs.
        assert fast["devices"] == slow["devices"]
        assert (slow["stuck"], fast["energy"] > 0) == (0, True)
        assert 0.25 < fast["stuck"] / fast["devices"] < 0.35
        assert f"{fast['pulses']:,} pulses" in lines[1]
        assert f"{fast['stuck']:,} of {fast['devices']:,} devices stuck" in lines[1]
        assert main(["report", str(tmp_path / "run"), "--no-activity"]) == 0
        assert all(line in (tmp_path / "run" / "report.html").read_text() for line in lines)

    @pytest.mark.filterwarnings("always::neko_rules.errors.NekoWarning")
    def test_a_warning_is_one_line_without_the_place_in_the_program(
        self, tiny: Path, tmp_path: Path, capsys: Any
    ) -> None:
        settings = ["--set", "rule={name: manhattan, crossbar: {w_max: 0.1}}", "--set", "train.epochs=1"]
        assert main(["run", str(tiny), "--out", str(tmp_path / "run"), *settings]) == 0
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "Warning" in each]
        assert line.startswith("Warning: weights that are written to a crossbar must lie within ±w_max (received: ")
        assert ".py" not in line

    def test_weights_are_those_that_were_measured(self, tiny: Path, tmp_path: Path) -> None:
        run_file(tiny, out=tmp_path / "run", progress=False)
        experiment = Experiment.build(load(tmp_path / "run" / "config.yaml"))
        _, _, x, y = experiment.dataset.load()
        model = experiment.rule.model
        model.check(x, y)
        untrained = model.evaluate(x, y)
        model.network.set_parameters(load_file(tmp_path / "run" / "weights.safetensors"))
        last = records(tmp_path / "run")[-1]
        assert model.evaluate(x, y, batch_size=16)["loss"] == pytest.approx(last["validation_loss"], rel=1e-6)
        assert untrained["loss"] != pytest.approx(last["validation_loss"], rel=1e-3)

    def test_config_of_a_run_gives_the_same_numbers(self, tiny: Path, tmp_path: Path) -> None:
        run_file(tiny, settings=["model.beta=0.2"], seed=7, out=tmp_path / "first", progress=False)
        run_file(tmp_path / "first" / "config.yaml", out=tmp_path / "second", progress=False)
        assert records(tmp_path / "first") == records(tmp_path / "second")
        first, second = ((tmp_path / each / "config.yaml").read_text() for each in ("first", "second"))
        assert first == second
        run_file(tmp_path / "first" / "config.yaml", seed=8, out=tmp_path / "third", progress=False)
        assert records(tmp_path / "first") != records(tmp_path / "third")

    def test_default_place_has_name_and_time(self, tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        first = run_file(tiny, settings=["train.epochs=1"], progress=False).folder.path
        second = run_file(tiny, settings=["train.epochs=1"], progress=False).folder.path
        assert first != second
        assert first.parent == Path("runs")
        assert first.name.startswith("tiny-20")

    def test_a_folder_with_files_is_refused_and_left_alone(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        with pytest.raises(ConfigurationError, match="new or empty"):
            run_file(tiny, out=tmp_path / "full", progress=False)
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]

    def test_wrong_data_leave_no_folder(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "bad.npz", x=np.zeros((8, 4, 2)), y=np.arange(8))
        path = tmp_path / "bad.yaml"
        model = "model: {name: LIF, hidden: 4, outputs: 3}"
        path.write_text(f"data: {{name: arrays, path: {tmp_path / 'bad.npz'}}}\n{model}\nrule: bptt")
        with pytest.raises(NekoError):
            run_file(path, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()

    def test_paths_of_data_become_absolute(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        rng = np.random.default_rng(0)
        np.savez("my.npz", x=rng.normal(size=(20, 4, 2)), y=rng.integers(3, size=20))
        Path("my.yaml").write_text(
            "data: {name: arrays, path: my.npz}\n"
            "model: {name: LIF, hidden: 4, outputs: 3}\n"
            "rule: bptt\ntrain: {epochs: 1}"
        )
        run_file(Path("my.yaml"), out=Path("run"), progress=False)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        run_file(tmp_path / "run" / "config.yaml", out=tmp_path / "again", progress=False)
        assert records(tmp_path / "run") == records(tmp_path / "again")


class TestStopping:
    def test_nan_is_a_failure_with_everything_written(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        settings = ["rule.optimizer={name: sgd, learning_rate: 1e30}", "model={name: RNN, hidden: 6, outputs: 10}"]
        settings += ["metrics=[accuracy]", "loss=mean_squared_error", "model.task_type=regression", "metrics=[]"]
        command = ["run", str(tiny), "--out", str(tmp_path / "run"), "--quiet"]
        for setting in [*settings, "data={name: pattern_generation, time_steps: 20}", "model.outputs=3"]:
            command += ["--set", setting]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "finite" in error
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert summary["status"] == "failed"
        assert "NaN or infinity" in summary["reason"]
        weights = load_file(tmp_path / "run" / "weights.safetensors")
        assert all(np.isfinite(value).all() for value in weights.values())

    def test_resumed_run_equals_the_unstopped_one(self, tiny: Path, tmp_path: Path) -> None:
        run_file(tiny, out=tmp_path / "whole", progress=False)
        run_file(tiny, settings=["train.epochs=1"], out=tmp_path / "parts", progress=False)
        resume_run(tmp_path / "parts", settings=["train.epochs=3"], progress=False)
        assert records(tmp_path / "whole") == records(tmp_path / "parts")
        whole, parts = (load_file(tmp_path / each / "weights.safetensors") for each in ("whole", "parts"))
        assert all(np.array_equal(whole[name], parts[name]) for name in whole)

    def test_resuming_changes_nothing_but_the_epochs(self, tiny: Path, tmp_path: Path) -> None:
        run_file(tiny, settings=["train.epochs=1"], out=tmp_path / "run", progress=False)
        with pytest.raises(ConfigurationError, match=r"train\.epochs alone"):
            resume_run(tmp_path / "run", settings=["seed=9"], progress=False)
        with pytest.raises(ConfigurationError, match="epochs left"):
            resume_run(tmp_path / "run", progress=False)

    @pytest.mark.skipif(os.name != "posix", reason="signals of this kind exist on POSIX alone")
    def test_ctrl_c_ends_cleanly_and_the_run_goes_on(self, tiny: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        command = [
            sys.executable,
            "-m",
            "neko_rules",
            "run",
            str(tiny),
            "--out",
            str(out),
            "--set",
            "train.epochs=100000",
        ]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (out / "metrics.jsonl").exists():
            time.sleep(0.05)
        while time.monotonic() < deadline and not (out / "metrics.jsonl").read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in error
        assert f"neko run --resume {out}" in error
        summary = json.loads((out / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        finished = len(records(out))
        assert finished >= 1
        assert (out / "weights.safetensors").exists()
        assert (out / "learning_curve.png").exists()
        resume_run(out, settings=[f"train.epochs={finished + 2}"], progress=False)
        whole = run_file(tiny, settings=[f"train.epochs={finished + 2}"], out=tmp_path / "whole", progress=False)
        assert records(out) == records(whole.folder.path)

    def test_early_stopping_says_why(self, tiny: Path, tmp_path: Path) -> None:
        settings = ["train.epochs=50", "train.early_stopping={patience: 1, minimum_change: 100.0}"]
        outcome = run_file(tiny, settings=settings, out=tmp_path / "run", progress=False)
        assert outcome.status == "finished"
        assert "validation_loss has not improved" in outcome.reason
        assert len(records(tmp_path / "run")) == 2


class TestConfiguration:
    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_every_config_of_the_repository_builds(self, path: Path) -> None:
        experiment = Experiment.build(load(path))
        assert experiment.configuration.name == path.stem

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_writing_out_loses_nothing_and_is_final(self, path: Path) -> None:
        configuration = load(path)
        written = parse_mapping(dump(configuration.model_dump()), "config.yaml")
        assert resolved(checked(written, "config.yaml")) == configuration

    def test_yaml_and_python_make_the_same_model(self, tiny: Path) -> None:
        from neko_rules import ALIF

        model = Experiment.build(load(tiny)).rule.model
        model.network.build(1)
        python = ALIF(6, 10, inputs=1, seed=3).parameters
        assert all(np.array_equal(value, python[name]) for name, value in model.network.parameters.items())

    def test_seed_decides_weights_and_feedback(self, tiny: Path) -> None:
        def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
            rule = Experiment.build(load(tiny, seed=seed)).rule
            rule.model.network.build(1)
            return rule.model.network.parameters["hidden.input.weight"], next(iter(rule.feedback.values()))

        assert all(np.array_equal(a, b) for a, b in zip(drawn(1), drawn(1), strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(drawn(1), drawn(2), strict=True))

    def test_a_part_may_have_a_seed_of_its_own(self, tiny: Path) -> None:
        configuration = load(tiny, settings=["model.seed=11"], seed=1)
        assert Experiment.build(configuration).rule.model.network.seed == 11
        assert Experiment.build(configuration).rule.seed == 1

    def test_loss_and_metrics_follow_the_task(self) -> None:
        values = {"data": "pattern_generation", "model": {"name": "LIF", "hidden": 4, "outputs": 3}, "rule": "bptt"}
        configuration = resolved(checked(values, "my.yaml"))
        assert configuration.loss == {"name": "mean_squared_error"}
        assert configuration.metrics == []
        assert Experiment.build(configuration).rule.model.network.task_type == "regression"
        classes = resolved(checked({**values, "data": "mnist1d"}, "my.yaml"))
        assert classes.loss["name"] == "categorical_crossentropy"  # type: ignore[index]
        assert classes.metrics == [{"name": "accuracy"}]

    def test_backend_as_an_argument_of_the_model_counts_for_the_run(self) -> None:
        model = {"name": "LIF", "hidden": 4, "outputs": 3, "dtype": "float64"}
        assert checked({"data": "mnist", "model": model, "rule": "bptt"}, "my.yaml").dtype == "float64"

    def test_schema_has_no_part_that_python_lacks(self) -> None:
        for key in REGISTRIES:
            registry = registry_of(key)
            assert registry is not None
            for name in registry:
                assert shortened(written_out(name, key), key) == {"name": name}

    def test_configuration_is_a_value(self) -> None:
        one = Configuration(data="mnist1d", model="ALIF", rule="bptt")
        with pytest.raises(ValueError, match="frozen"):
            one.seed = 3  # type: ignore[misc]


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            ("seed=4", {"seed": 4}),
            ("rule.mode=random", {"rule": {"name": "eprop", "mode": "random"}}),
            (
                "rule.optimizer.learning_rate=1e-3",
                {"rule": {"name": "eprop", "optimizer": {"name": "adam", "learning_rate": 1e-3}}},
            ),
            ("model.hidden=[8, 4]", {"model": {"name": "ALIF", "hidden": [8, 4]}}),
            ("metrics.0=loss=1", {"metrics": ["loss=1"]}),
            ("train.early_stopping.patience=2", {"train": {"early_stopping": {"patience": 2}}}),
            ("data=mnist", {"data": "mnist"}),
        ],
    )
    def test_sets_one_value(self, setting: str, expected: dict[str, Any]) -> None:
        raw: dict[str, Any] = {"data": "mnist1d", "model": "ALIF", "metrics": ["accuracy"], "rule": "eprop"}
        before = dict(raw)
        apply_setting(raw, setting)
        assert raw == {**before, **expected}

    @pytest.mark.parametrize(
        ("setting", "named", "hint"),
        [
            ("sed=4", "sed", "seed"),
            ("rule.mod=random", "mod", "mode"),
            ("rule.optimizer.learning_rat=1", "learning_rat", "learning_rate"),
            ("train.epoch=1", "epoch", "epochs"),
            ("train.checkpoint.folder=x", "folder", "every_epochs"),
            ("seed.x=1", "seed", "mapping"),
            ("metrics.7=loss", "7", "from 0 to 0"),
            ("rule.model=3", "model", "mode"),
        ],
    )
    def test_a_path_that_leads_nowhere_is_refused(self, setting: str, named: str, hint: str) -> None:
        raw: dict[str, Any] = {"seed": 0, "data": "mnist1d", "model": "ALIF", "metrics": ["accuracy"], "rule": "eprop"}
        with pytest.raises(ConfigurationError) as error:
            apply_setting(raw, setting)
        assert named in str(error.value)
        assert hint in str(error.value)


class TestYaml:
    @pytest.mark.parametrize(
        "value", [1e-3, 1e-05, 1e22, "1e-3", "null", "yes", "", 3, True, None, [1, [2.5]], "ä b: c"]
    )
    def test_values_read_back_the_same(self, value: Any) -> None:
        assert parse(dump({"key": value}), "text") == {"key": value}

    @pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e3", 1500.0), ("1e", "1e")])
    def test_numbers_need_no_point(self, text: str, value: Any) -> None:
        assert parse(text, "text") == value

    def test_an_alias_that_contains_itself_has_an_end(self) -> None:
        with pytest.raises(ConfigurationError, match="nested"):
            parse("&a [*a]", "text")


class TestReading:
    def test_a_folder_reads_back_what_it_wrote(self, tmp_path: Path) -> None:
        folder = RunFolder.create(tmp_path / "run")
        written = [{"epoch": 1, "loss": 0.1 + 0.2, "rate": float("nan")}, {"epoch": 2, "loss": 1e-300, "rate": 1.0}]
        for record in written:
            folder.append_metrics(record)
        assert folder.read_metrics() == [{**written[0], "rate": None}, written[1]]
        weights = {"hidden.bias": np.arange(3, dtype=np.float32), "scalar": np.array(2.0)}
        folder.write_weights(weights)
        assert all(np.array_equal(value, weights[name]) for name, value in folder.read_weights().items())
        assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []

    def test_environment_names_versions_and_command(self) -> None:
        about = environment("torch", 5, ["neko", "run"])
        assert set(about["libraries"]) == {"neko_rules", "numpy", "numba", "scipy", "sympy", "torch"}
        assert about["command"] == ["neko", "run"]


SPIKING_OUTPUT = """
data: {name: mnist1d, num_samples: 100}
model: {name: LIF, hidden: 6, outputs: 20, output_cell: {name: lif, tau_membrane: 5e-3, reset: none}}
loss: {name: ce_count, classes: 10}
metrics: [accuracy]
rule: {name: eprop, regularizers: [{name: membrane_bounds, upper: 1.5, populations: [hidden]}, rate_upper_bound]}
train: {epochs: 1, batch_size: 50}
"""


def test_outputs_losses_and_regularisers_of_spikes_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "spiking.yaml"
    path.write_text(SPIKING_OUTPUT)
    run_file(path, out=tmp_path / "run", progress=False)
    written = parse_mapping((tmp_path / "run" / "config.yaml").read_text(), "config.yaml")
    assert written["model"]["output_cell"]["tau_membrane"] == 5e-3
    assert written["model"]["output_cell"]["threshold"] == 1.0
    assert written["loss"] == {"name": "spike_count_crossentropy", "classes": 10}
    assert [each["name"] for each in written["rule"]["regularizers"]] == ["membrane_bounds", "firing_rate_upper_bound"]
    # What a run wrote down can be run again, and is the same run.
    run_file(tmp_path / "run" / "config.yaml", out=tmp_path / "again", progress=False)
    assert records(tmp_path / "again") == records(tmp_path / "run")
    plain = {"name": "LIF", "hidden": 6, "outputs": 2, "tau_readout": 0.01}
    models = registry_of("model")
    assert models is not None
    again = models.resolve(written_out(plain, "model"))
    assert again.graph.cell("readout").tau_membrane == 0.01
