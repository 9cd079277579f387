"""The command line: help, lists, runs and their pictures, exit codes."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import neko_rules.backend
from neko_rules import __version__
from neko_rules.cli import main
from neko_rules.experiments.explaining import KEYS, rule_facts
from neko_rules.experiments.listing import KINDS, listing
from neko_rules.experiments.parts import registry_of

TINY = """
data: {name: mnist1d, num_samples: 50}
model: {name: LIF, hidden: 4, outputs: 10}
rule: bptt
train: {epochs: 2, batch_size: 16}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)


class TestHelp:
    def test_version(self, capsys: Any) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"neko_rules {__version__}\n"

    @pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "-h"], ["show", "--help"]])
    def test_help_exits_with_0(self, arguments: list[str], capsys: Any) -> None:
        assert main(arguments) == 0
        assert "Usage" in capsys.readouterr().out

    @pytest.mark.parametrize("command", ["run", "compare", "verify"])
    def test_a_setting_may_be_repeated_and_help_says_so(self, command: str, capsys: Any) -> None:
        assert main([command, "--help"]) == 0
        assert "may be given repeatedly" in " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())

    def test_list_help_names_every_kind(self, capsys: Any) -> None:
        assert main(["list", "--help"]) == 0
        text = capsys.readouterr().out
        assert [kind for kind in KINDS if kind not in text] == []

    def test_run_help_has_examples(self, capsys: Any) -> None:
        main(["run", "--help"])
        text = capsys.readouterr().out
        assert "Examples" in text
        assert "neko run configs/mnist1d_eprop.yaml" in text

    def test_without_a_command_help_is_shown(self, capsys: Any) -> None:
        assert main([]) == 0
        shown = capsys.readouterr()
        assert "Usage" in shown.out
        assert shown.err == ""

    def test_python_m_is_the_same(self) -> None:
        done = python("-m", "neko_rules", "--version")
        assert (done.returncode, done.stdout) == (0, f"neko_rules {__version__}\n")

    def test_help_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; from neko_rules.cli import main; main(['--help']); "
            "heavy = {'numpy', 'scipy', 'sympy', 'matplotlib', 'pydantic', 'yaml', 'torch', 'jax', 'tensorflow'}; "
            "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
        )
        assert python("-c", code).stderr.strip() == "[]"


class TestThreads:
    CODE = (
        "import os, sys; from neko_rules.cli import main; main({arguments}); "
        "names = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'); "
        "print([os.environ[name] for name in names], file=sys.stderr)"
    )

    def test_one_by_default_and_what_the_user_has_set_stays(self) -> None:
        clean = {"OPENBLAS_NUM_THREADS": "3"}
        code = "import os; os.environ.pop('OMP_NUM_THREADS', None); os.environ.pop('MKL_NUM_THREADS', None); "
        done = python("-c", code + self.CODE.format(arguments=["--version"]), **clean)
        assert done.stderr.strip() == "['1', '3', '1']"

    def test_option(self) -> None:
        done = python("-c", self.CODE.format(arguments=["run", "missing.yaml", "--threads", "2"]))
        assert done.stderr.splitlines()[-1] == "['2', '2', '2']"


class TestList:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "backends"])
    def test_every_registered_part_has_a_line(self, kind: str, capsys: Any) -> None:
        assert main(["list", kind]) == 0
        text = capsys.readouterr().out
        registry = registry_of(KINDS[kind])
        assert registry is not None
        for name, line in registry.describe():
            assert line, f"{name} says nothing about itself"
            assert name in text
            # Rules are shown with what they cost and equal instead; their line is in 'neko explain'.
            assert line.split()[0] in text or kind == "rules"

    def test_rules_are_shown_with_their_axes_cost_needs_identity_and_paper(self, capsys: Any) -> None:
        assert main(["list", "rules"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for said in (
            "presynaptic · symmetric",
            "online at most O(N P)",
            "flat in T",
            "cells",
            "= BPTT",
            "Bellec et al. 2020",
        ):
            assert said in text
        for row in rule_facts():
            assert all((row.axes, row.time, row.memory, row.requires, row.identity, row.paper)), row

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            (
                "e-prop",
                ["ε_t = (∂s_t/∂s_{t-1}) ε_{t-1}", "neuron · symmetric · filtered", "Nature Communications", "Args:"],
            ),
            ("alif", ["∂a/∂z' = 1", "neurons"]),
            ("adam", ["adaptive moments"]),
        ],
    )
    def test_explain_gives_equations_limits_and_cost(self, name: str, said: list[str], capsys: Any) -> None:
        assert main(["explain", name]) == 0
        text = capsys.readouterr().out
        assert all(each in text for each in said), text

    @pytest.mark.parametrize(
        ("name", "others"),
        [
            ("firing_rate", ["regularizers"]),
            ("top_k", ["decisions"]),
            ("constant", ["initializers", "devices"]),
            ("alif", ["models"]),
        ],
    )
    def test_explain_tells_of_other_kinds_with_the_name(self, name: str, others: list[str], capsys: Any) -> None:
        assert main(["explain", name]) == 0
        text = capsys.readouterr().out
        for kind in others:
            [command] = [line for line in text.splitlines() if line.endswith(f"--kind {kind}")]
            assert main(command.partition(": neko ")[2].split()) == 0
            asked = capsys.readouterr().out
            assert f"one of the {kind}" in asked
            assert "--kind" not in asked

    @pytest.mark.parametrize("columns", [80, 120])
    @pytest.mark.parametrize("command", [["list"], ["list", "rules"], ["list", "losses"], ["explain", "eprop"]])
    def test_nothing_is_cut_and_no_word_broken(
        self, command: list[str], columns: int, monkeypatch: Any, capsys: Any
    ) -> None:
        monkeypatch.setattr("neko_rules.cli.WIDE", 1000)
        main(command)
        whole = capsys.readouterr().out
        monkeypatch.setattr("neko_rules.cli.WIDE", columns)
        main(command)
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= columns
        assert sorted(text.split()) == sorted(whole.split())

    def test_a_rule_takes_few_lines(self, monkeypatch: Any, capsys: Any) -> None:
        monkeypatch.setattr("neko_rules.cli.WIDE", 80)
        main(["list", "rules"])
        assert len(capsys.readouterr().out.splitlines()) < 7 * len(listing("rules"))

    @pytest.mark.parametrize("name", list(KEYS))
    def test_explain_knows_what_has_no_name_but_arguments(self, name: str, capsys: Any) -> None:
        assert main(["explain", name]) == 0
        text = capsys.readouterr().out
        module, of_class = KEYS[name]
        maker = getattr(importlib.import_module(module), of_class)
        supplied = ("model", "folder")
        assert all(each in text for each in inspect.signature(maker).parameters if each not in supplied), text

    def test_explain_of_a_kind_says_how_it_is_listed(self, capsys: Any) -> None:
        for name in ("connectivity", "connectivities"):
            assert main(["explain", name]) == 2
            assert "neko list connectivities" in capsys.readouterr().err

    def test_explain_says_what_is_near_an_unknown_name(self, capsys: Any) -> None:
        assert main(["explain", "eporp"]) == 2
        assert "did you mean 'eprop'" in capsys.readouterr().err

    def test_without_a_kind_all_kinds_are_shown(self, capsys: Any) -> None:
        assert main(["list"]) == 0
        text = capsys.readouterr().out
        assert all(kind in text for kind in KINDS)
        assert "eprop" in text

    def test_backends_say_whether_they_are_installed_without_being_imported(
        self, monkeypatch: Any, capsys: Any
    ) -> None:
        real = neko_rules.backend.is_installed
        monkeypatch.setattr(neko_rules.backend, "is_installed", lambda name: name != "torch" and real(name))
        assert main(["list", "backends"]) == 0
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert "not installed" in lines["torch"]
        assert "PyTorch" in lines["torch"]
        assert "not installed" not in lines["numpy"]
        assert [name for name, _ in listing("backends")][:4] == ["numpy", "torch", "tensorflow", "jax"]

    def test_a_fresh_process_lists_every_neuron(self) -> None:
        """In this process other modules have been imported already, which may have registered more."""
        code = "from neko_rules.cli import main; main(['list', 'neurons'])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for name in ("if", "lif", "alif", "tanh", "relu", "leaky_readout"):
            assert re.search(rf"^ *{name} ", done.stdout, flags=re.MULTILINE), done.stdout

    def test_listing_backends_imports_no_array_library(self) -> None:
        code = (
            "import sys; from neko_rules.cli import main; main(['list', 'backends']); "
            "print(sorted({'torch', 'jax', 'tensorflow'} & set(sys.modules)), file=sys.stderr)"
        )
        assert python("-c", code).stderr.strip() == "[]"


class TestRunAndShow:
    def test_a_run_shows_progress_summary_and_folder(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        assert main(["run", str(tiny), "--out", str(out), "--seed", "4"]) == 0
        shown = capsys.readouterr()
        assert "1/2" in shown.err
        assert "accuracy" in shown.err
        for expected in ("training", "validation", "accuracy", "finished after 2 of 2 epochs", str(out)):
            assert expected in shown.out
        assert "seed: 4" in (out / "config.yaml").read_text()

    def test_quiet_says_nothing(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        assert main(["run", str(tiny), "--out", str(tmp_path / "run"), "-q"]) == 0
        assert capsys.readouterr() == ("", "")

    def test_show(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        main(["run", str(tiny), "--out", str(out), "-q"])
        assert main(["show", str(out)]) == 0
        text = capsys.readouterr().out
        for expected in ("tiny", "mnist1d", "LIF(hidden=4, outputs=10)", "bptt", "Cross-entropy", "Accuracy (%)"):
            assert expected in text
        assert "finished after 2 of 2 epochs" in text
        assert "learning_curve.png" in text
        # What is no synapse is no parameter: of the recurrent weights the diagonal.
        assert f"[{1 * 4 + 4 * 3 + 4 + 4 * 10 + 10} parameters]" in text

    def test_one_epoch_is_shown_as_figures_without_a_curve(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        main(["run", str(tiny), "--out", str(out), "-q", "--set", "train.epochs=1"])
        assert main(["show", str(out)]) == 0
        text = capsys.readouterr().out
        assert "best validation" in text
        assert "Cross-entropy (nats)" not in text

    def test_show_of_a_run_that_was_killed(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        main(["run", str(tiny), "--out", str(out), "-q"])
        for name in ("summary.json", "weights.safetensors", "learning_curve.png", "metrics.jsonl"):
            (out / name).unlink()
        assert main(["show", str(out)]) == 0
        assert "unfinished after 0 of 2 epochs" in capsys.readouterr().out

    def test_resume(self, tiny: Path, tmp_path: Path, capsys: Any) -> None:
        out = tmp_path / "run"
        main(["run", str(tiny), "--out", str(out), "-q"])
        assert main(["run", "--resume", str(out), "--set", "train.epochs=3"]) == 0
        assert "finished after 3 of 3 epochs" in capsys.readouterr().out
        assert len((out / "metrics.jsonl").read_text().splitlines()) == 3

    def test_a_pipe_that_closes_early_is_no_error(self) -> None:
        command = f"{sys.executable} -m neko_rules list | head -n 1"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
        assert done.stderr == ""
        assert done.stdout.startswith("rules")

    def test_a_terminal_without_unicode_gets_other_characters(self, tiny: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        main(["run", str(tiny), "--out", str(out), "-q"])
        done = python("-m", "neko_rules", "show", str(out), PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert "finished" in done.stdout


def test_what_the_operating_system_refuses_is_said_in_one_line(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["run", str(tiny), "--out", str(tmp_path / ("x" * 300))]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "File name too long" in said
