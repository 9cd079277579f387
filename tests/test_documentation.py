"""What documentation shows is run: examples in docstrings, Python code in Markdown files, the scripts in examples/."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import neko_rules
from neko_rules.backend import BUILT_IN, is_installed
from neko_rules.experiments.config import checked, resolved
from neko_rules.experiments.run import Experiment
from neko_rules.experiments.yaml_file import parse_mapping

ROOT = Path(__file__).resolve().parents[1]

# By dotted name: collected by path, backends/numpy.py would be imported a second time, under another name.
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(neko_rules.__path__, "neko_rules.")
    if found.name != "neko_rules.__main__"
)
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def script(*command: str, **environment: str) -> str:
    """The output of a Python process that must succeed."""
    environ = {**os.environ, **environment}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    library = name.removeprefix("neko_rules.backends.")
    if library in BUILT_IN and not is_installed(library):
        pytest.skip(f"{library} is not installed")
    if name.startswith("neko_rules.nir."):
        pytest.importorskip("nir")
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0  # What differed is in the captured output.


def test_docstrings_have_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        test for name in MODULES if "backends" not in name for test in finder.find(importlib.import_module(name))
    ]
    assert sum(bool(test.examples) for test in examples) > 50


def blocks(text: str) -> list[tuple[int, str]]:
    """First line and code of every ```python block, apart from those marked ```python no-run."""
    found = re.finditer(r"^```python *(.*)\n((?:.*\n)*?)```", text, flags=re.MULTILINE)
    return [(text[: m.start()].count("\n") + 1, m[2]) for m in found if m[1] != "no-run"]


def test_which_blocks_are_found() -> None:
    text = "# A\n```python\na = 1\n```\n```sh\nb\n```\n```python no-run\nc\n```\n```python\n\nd = 4\n```\n"
    assert blocks(text) == [(2, "a = 1\n"), (11, "\nd = 4\n")]


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_in_markdown(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a file are one program that ends without error, in a process of its own: it may register parts."""
    lines: list[str] = []
    for before, code in blocks(path.read_text(encoding="utf-8")):
        lines += [""] * (before - len(lines))  # A traceback names the line of the Markdown file.
        lines += code.splitlines()
    program = tmp_path / path.with_suffix(".py").name
    program.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    script(str(program))


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_in_markdown(path: Path) -> None:
    """Every ```yaml block is a configuration of which all but the data can be made."""
    for code in re.findall(r"^```yaml\n((?:.*\n)*?)```", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        Experiment.build(resolved(checked(parse_mapping(code, path.name), path.name)))


@pytest.mark.parametrize("rule", ["bptt", "eprop-adaptive"])
def test_swap_the_rule(rule: str, shared: Path) -> None:
    command = [str(ROOT / "examples" / "swap_the_rule.py"), rule, "--examples", "1500", "--hidden", "32"]
    said = script(*command, "--epochs", "15", NEKO_DATA_DIR=str(shared / "data"))
    accuracy = re.search(r"test accuracy ([\d.]+)%", said)
    assert accuracy, said
    assert float(accuracy[1]) > 25  # Chance is 10 %.


def test_evidence_accumulation() -> None:
    arguments = ["--trials", "8", "--epochs", "1", "--neurons", "6", "--delay", "0.05"]
    said = script(str(ROOT / "examples" / "evidence_accumulation.py"), *arguments)
    assert re.search(r"right in [\d.]+% of the answers", said), said


def test_spike_times_are_learned_to_the_time_step() -> None:
    said = script(str(ROOT / "examples" / "spike_times.py"))
    off = re.search(r"off by ([\d.]+) ms on average, where a time step is 1 ms", said)
    assert off, said
    assert float(off[1]) <= 0.2


@pytest.mark.parametrize("other", [name for name in BUILT_IN if name != "numpy"])
def test_user_neuron_has_the_same_numbers_on_two_backends(other: str) -> None:
    if not is_installed(other):
        pytest.skip(f"{other} is not installed")
    said = script(str(ROOT / "examples" / "user_neuron.py"), "numpy", other)
    (first, last), (other_first, other_last) = re.findall(r"loss on \w+: ([\d.]+) → ([\d.]+)", said)
    assert (first, last) == (other_first, other_last)
    assert float(last) < 0.5 * float(first)
    assert float(said.split()[-1]) < 1e-10


def test_user_rule_has_the_same_numbers_on_two_backends() -> None:
    pytest.importorskip("torch")
    said = script(str(ROOT / "examples" / "user_rule.py"), "numpy", "torch")
    assert float(said.split()[-1]) < 1e-10
    losses = re.findall(r"([\d.]+) → ([\d.]+)", said)
    assert len(losses) == 2
    assert all(float(last) < 0.5 * float(first) for first, last in losses)


def test_the_tutorial_s_rule_is_that_of_the_example() -> None:
    """Line by line, but for type hints and what the tutorial leaves out."""
    example = (ROOT / "examples" / "user_rule.py").read_text(encoding="utf-8")
    tutorial = (ROOT / "docs" / "your_own_rule.md").read_text(encoding="utf-8")
    lines = [line for line in blocks(tutorial)[0][1].splitlines() if line.startswith("        ")]
    assert len(lines) >= 5
    assert all(line in example for line in lines)
