"""``neko compare`` and ``neko verify``: what they write and show, exit codes, every configuration on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neko_rules.backend
from neko_rules import Comparison
from neko_rules.backend import BUILT_IN, is_installed
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.cli import main
from neko_rules.experiments.compare import Spelled
from neko_rules.experiments.verify import verify

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))
INSTALLED = [name for name in BUILT_IN if is_installed(name)]

TINY = """
data: {name: mnist1d, num_samples: 60}
model: {name: ALIF, hidden: 12, outputs: 10, threshold: 0.2}
rule: {name: bptt, optimizer: {name: adam, learning_rate: 2e-3}, weight_decay: 1e-4}
train: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize("command", ["compare", "verify", "landscape", "report"])
def test_help_says_what_a_command_does(command: str, capsys: Any) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    assert command == "report" or f"neko {command}" in shown


class TestCompare:
    def test_writes_and_shows(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        rules = ["bptt", "eprop:symmetric", "eprop:random", "ottt"]
        assert main(["compare", str(tiny), "--rules", *rules, "--out", str(out), "--keep-every", "2"]) == 0
        shown = capsys.readouterr().out
        for expected in ("eprop:random", "hidden.recurrent.weight", "cosine", "change of each rule", str(out)):
            assert expected in shown
        result = Comparison.load(out / "comparison")
        assert result.rules == rules[1:]
        assert result.kept == [0, 2]
        np.testing.assert_allclose(result.statistic("eprop:random", "readout", "cosine"), 1, atol=1e-5)
        assert result.statistic("eprop:random", "hidden", "cosine").max() < 0.9
        for name in ("config.yaml", "environment.json", "summary.json", "weights.safetensors", "metrics.jsonl"):
            assert (out / name).is_file()
        assert {"comparison.png", "comparison.svg"} <= {path.name for path in (out / "comparison").iterdir()}
        assert str(out / "comparison" / "comparison.png") in shown
        assert main(["show", str(out)]) == 0
        again = capsys.readouterr().out
        for expected in ("gradient of each rule", "change of each rule", "comparison.png", "finished after 1 of 1"):
            assert expected in again
        # What training the first rule did not need is not shown as None.
        assert "None" not in again
        for line in shown.splitlines():
            if "weight" in line:
                assert line in again

    def test_a_reference_that_is_not_compared_leaves_nothing_behind(
        self, tiny: Path, tmp_path: Path, capsys: Any
    ) -> None:
        out = tmp_path / "run"
        command = ["compare", str(tiny), "--rules", "bptt", "eprop", "--reference", "ottt", "--out", str(out)]
        assert main(command) == 2
        assert "ottt" in capsys.readouterr().err
        assert not out.exists()

    @pytest.mark.skipif(not is_installed("torch"), reason="torch is not installed")
    def test_rules_on_several_backends_and_another_reference(self, tiny: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        rules = ["eprop:random", "bptt", "bptt@torch"]
        command = ["compare", str(tiny), "--rules", *rules, "--reference", "bptt", "--out", str(out), "-q"]
        assert main([*command, "--set", "dtype=float64"]) == 0
        result = Comparison.load(out / "comparison")
        assert (result.primary, result.reference) == ("eprop:random", "bptt")
        assert np.abs(result.statistic("bptt@torch", "all") - 1).max() < 1e-10

    def test_the_configurations_rule_gives_its_update_to_all(self, tiny: Path) -> None:
        from neko_rules.experiments.config import load

        found = Spelled.read("eprop:mode=random,online=true").configured(load(tiny)).rule
        assert found["optimizer"]["learning_rate"] == 2e-3
        assert found["weight_decay"] == 1e-4
        assert (found["mode"], found["online"]) == ("random", True)

    @pytest.mark.parametrize(
        ("rules", "said"),
        [
            (["bptt"], "at least two rules"),
            (["bptt", "epropp"], "did you mean 'eprop'"),
            (["bptt", "ottt:fast"], "ottt has no mode"),
            (["bptt", "eprop:fast"], "mode must be one of"),
            (["bptt", "bptt"], "compared once"),
            (["bptt", "ottt", "bptt@numpy"], "compared once (received: bptt and bptt@numpy, which are the same"),
            (["eprop:symmetric", "eprop:mode=symmetric"], "eprop:symmetric and eprop:mode=symmetric, which are the"),
            (["bptt", "eprop@nunpy"], "unknown backend"),
            (["bptt", "truncated_bptt:widow=3"], "did you mean 'window'"),
        ],
    )
    def test_refusals(self, tiny: Path, rules: list[str], said: str, capsys: Any) -> None:
        assert main(["compare", str(tiny), "--rules", *rules]) == 2
        assert said in " ".join(capsys.readouterr().err.split())

    def test_a_dead_network_is_refused(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        command = ["compare", str(tiny), "--rules", "bptt", "ottt", "--set", "model.threshold=1e6"]
        assert main([*command, "--out", str(tmp_path / "run")]) == 2
        assert "in which neurons spike" in " ".join(capsys.readouterr().err.split())
        assert main(["show", str(tmp_path / "run")]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "failed after 0 of 1 epochs" in shown
        assert "in which neurons spike" in shown


class Twin(NumpyBackend):
    """NumPy under another name."""

    name = "twin"


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(neko_rules.backend._instances, "twin", Twin())
    return "twin"


class TestVerify:
    def test_agreement(self, tiny: Path, twin: str, capsys: Any) -> None:
        assert main(["verify", str(tiny), "--backends", "numpy", twin, "--examples", "4"]) == 0
        shown = capsys.readouterr().out
        assert "same numbers" in shown
        assert "float32" in shown

    def test_a_planted_fault(self, tiny: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Planted(NumpyBackend):
            name = "planted"

            def exp(self, array: np.ndarray) -> np.ndarray:
                return np.asarray(np.exp(array) * (1 + 1e-7 * (array < -1)))

        monkeypatch.setitem(neko_rules.backend._instances, "planted", Planted())
        assert main(["verify", str(tiny), "--backends", "numpy", "planted", "--steps", "2", "--float64-only"]) == 1
        shown = " ".join(capsys.readouterr().out.split())
        assert "fault in step 1: loss is" in shown
        assert "the forward passes agree" in shown

    def test_a_backend_is_not_compared_with_itself(self, tiny: Path, capsys: Any) -> None:
        assert main(["verify", str(tiny), "--backends", "numpy", "numpy"]) == 2
        assert "each backend can be compared once, since with itself it agrees (received: numpy, numpy)" in " ".join(
            capsys.readouterr().err.split()
        )

    def test_one_backend_is_not_enough(self, tiny: Path, capsys: Any) -> None:
        assert main(["verify", str(tiny), "--backends", "numpy"]) == 2
        assert "at least two backends" in capsys.readouterr().err

    def test_the_last_time_steps_keep_their_targets(self, twin: str) -> None:
        config = next(path for path in CONFIGS if path.stem.startswith("evidence"))
        settings = ["data.train_examples=4", "data.test_examples=1"]
        found = verify(config, ["numpy", twin], settings, examples=2, steps=1, time_steps=160, float32=False)
        assert found.agree


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_on_every_backend(config: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEKO_DATA_DIR", str(shared / "data"))
    settings = []
    if config.stem.startswith("evidence"):
        # Trials take 2250 time steps; the last 160 hold the recall period, in which there are targets.
        settings = ["data.train_examples=4", "data.test_examples=1"]
    if config.stem == "mnist1d_eprop":
        settings = ["data.num_samples=50"]
    # An encoder makes the time steps itself.
    last = None if "encoder:" in config.read_text() else 160
    found = verify(config, INSTALLED, settings, examples=4, steps=2, time_steps=last, float32=False)
    assert found.agree, found.partings
    assert found.partings == {}
