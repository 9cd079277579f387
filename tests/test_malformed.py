"""Malformed input: each of these gets one sentence that names what is wrong and what would work, and exit code 2."""

from __future__ import annotations

import gzip
import importlib
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neko_rules.cli import main

DATA = "data: {name: mnist1d, num_samples: 50}\n"
MODEL = "model: {name: LIF, hidden: 4, outputs: 10}\n"
RULE = "rule: bptt\n"
TRAIN = "train: {epochs: 1}\n"
GOOD = DATA + MODEL + RULE + TRAIN


def network(wrong: str) -> str:
    """A network of populations, one of whose arguments is wrong."""
    good = {"populations": "{a: {cell: leaky_readout, size: 10}}", "connections": "[]", "output": "a"}
    key, _, value = wrong.partition(": ")
    return f"model: {{name: network, {', '.join(f'{name}: {each}' for name, each in (good | {key: value}).items())}}}\n"


@dataclass(frozen=True)
class Case:
    """A malformed configuration or setting.

    Args:
        text: contents of the YAML file.
        named: what the sentence must name.
        hint: what it must say that would work, or what the rule is.
        settings: values of ``--set``.
    """

    text: str | bytes
    named: str
    hint: str
    settings: tuple[str, ...] = ()


CONFIGURATIONS = {
    "unknown key": Case(GOOD + "epochz: 3\n", "epochz", "known"),
    "misspelt key": Case(GOOD.replace("rule:", "rul:"), "rul", "did you mean 'rule'"),
    "misspelt key of a section": Case(GOOD.replace("epochs", "epoch"), "epoch", "did you mean 'epochs'"),
    "key missing": Case(DATA + RULE, "model", "add for example"),
    "section is a number": Case(DATA + MODEL + RULE + "train: 3\n", "train", "mapping"),
    "part is a number": Case(DATA + MODEL + "rule: 3\n", "rule", "must be a name"),
    "epochs beside train": Case(GOOD + "epochs: 3\n", "epochs", "it belongs to train.epochs"),
    "argument of the rule beside it": Case(GOOD + "online: true\n", "online", "it belongs to rule.online"),
    "learning rate beside the rule": Case(GOOD + "lr: 1e-3\n", "lr", "it belongs to rule.optimizer.learning_rate"),
    "argument of the model beside it": Case(GOOD + "hidden: 4\n", "hidden", "it belongs to model.hidden"),
    "optimizer of train": Case(GOOD.replace("epochs: 1", "optimizer: adam"), "optimizer", "rule.optimizer"),
    "seed of train": Case(GOOD.replace("epochs: 1", "seed: 1"), "seed", "it belongs to seed, beside data"),
    "schedule of train": Case(GOOD.replace("epochs: 1", "schedule: x"), "schedule", "to rule.optimizer.learning_rate"),
    "schedule of a rule": Case(GOOD.replace("bptt", "{name: bptt, schedule: x}"), "schedule", "optimizer={'name'"),
    "schedule of an optimizer": Case(
        GOOD.replace("bptt", "{name: bptt, optimizer: {name: adam, scheduler: x}}"),
        "scheduler",
        "'name': 'cosine_decay'",
    ),
    "misspelt schedule": Case(
        GOOD.replace(
            "bptt", "{name: bptt, optimizer: {name: adam, learning_rate: {name: cosin, initial: 1, steps: 2}}}"
        ),
        "unknown schedule",
        "did you mean 'cosine_decay'",
    ),
    "optimizer without a name": Case(
        GOOD.replace("bptt", "{name: bptt, optimizer: {learning_rate: 1}}"), "in 'rule': optimizer", "'adam'"
    ),
    "optimizer that is a number": Case(
        GOOD.replace("bptt", "{name: bptt, optimizer: 1}"), "an optimizer must be", "or an Optimizer"
    ),
    "encoder of the model": Case(
        GOOD.replace("hidden: 4", "hidden: 4, encoder: rate"), "in 'model'", "it belongs to encoder, beside data"
    ),
    "argument of the model in the rule": Case(
        GOOD.replace("bptt", "{name: bptt, connectivity: 0.1}"), "in 'rule'", "it belongs to model.connectivity"
    ),
    "argument of train in the data": Case(
        GOOD.replace("num_samples: 50", "batch_size: 5"), "in 'data'", "it belongs to train.batch_size"
    ),
    "part without a name": Case(DATA + "model: {hidden: 4}\n" + RULE, "model", "ALIF"),
    "seed is text": Case(GOOD + "seed: many\n", "seed", "whole number"),
    "seed is not whole": Case(GOOD + "seed: 1.5\n", "seed", "whole number"),
    "seed is negative": Case(GOOD + "seed: -1\n", "seed", "at least 0"),
    "zero epochs": Case(GOOD.replace("epochs: 1", "epochs: 0"), "train.epochs", "at least 1"),
    "batch size is text": Case(GOOD.replace("epochs: 1", "batch_size: big"), "train.batch_size", "whole number"),
    "unknown dtype": Case(GOOD + "dtype: float16\n", "float16", "float32"),
    "metrics is no list": Case(GOOD + "metrics: accuracy\n", "metrics", "list"),
    "name no folder can have": Case(GOOD + "name: ../up\n", "../up", "letters"),
    "unknown backend": Case(GOOD + "backend: numpi\n", "numpi", "did you mean 'numpy'"),
    "backend given twice": Case(GOOD.replace("hidden", "backend: torch, hidden") + "backend: jax\n", "jax", "once"),
    "unknown rule": Case(GOOD.replace("bptt", "bppt"), "bppt", "did you mean 'bptt'"),
    "unknown model": Case(GOOD.replace("LIF", "LIV"), "LIV", "did you mean 'LIF'"),
    "unknown data set": Case(GOOD.replace("mnist1d", "mnist2d"), "mnist2d", "did you mean 'mnist"),
    "unknown loss": Case(GOOD + "loss: hinge\n", "hinge", "known"),
    "unknown metric": Case(GOOD + "metrics: [acuracy]\n", "acuracy", "did you mean 'accuracy'"),
    "unknown argument of a model": Case(GOOD.replace("hidden", "hiden"), "hiden", "did you mean 'hidden'"),
    "wrong type of an argument": Case(GOOD.replace("hidden: 4", "hidden: 2.5"), "2.5", "whole number"),
    "number as text": Case(GOOD.replace("hidden: 4", 'hidden: "4"'), "hidden", "(received: '4'); write 4 without"),
    "epochs as text": Case(GOOD.replace("epochs: 1", "epochs: '1'"), "train.epochs", "write 1 without quotes"),
    "argument missing": Case(GOOD.replace(", outputs: 10", ""), "outputs", "needs the argument"),
    "unknown optimizer argument": Case(
        GOOD.replace("bptt", "{name: bptt, optimizer: {name: adam, rate: 1}}"), "rate", "learning_rate"
    ),
    "negative learning rate": Case(
        GOOD.replace("bptt", "{name: bptt, optimizer: {name: adam, learning_rate: -0.1}}"), "-0.1", "at least 0"
    ),
    "unknown mode of a rule": Case(
        GOOD.replace("bptt", "{name: eprop, mode: randm}"), "randm", "did you mean 'random'"
    ),
    "negative time constant": Case(GOOD.replace("hidden", "tau_membrane: -1, hidden"), "tau_membrane", "at least 0"),
    "what is learned is no list": Case(GOOD.replace("hidden", "learnable: true, hidden"), "True", "'membrane_decay'"),
    "what is learned has no name": Case(GOOD.replace("hidden", "learnable: [[1]], hidden"), "[1]", "known"),
    "populations are a list": Case(GOOD.replace(MODEL, network("populations: [3]")), "[3]", "a mapping from names"),
    "connections are a number": Case(GOOD.replace(MODEL, network("connections: 3")), "3", "must be a list"),
    "output is a list": Case(GOOD.replace(MODEL, network("output: [a]")), "['a']", "must be a population"),
    "window of a field is no number": Case(
        GOOD.replace("hidden", "connectivity: {name: receptive_fields, shape: 4, window: null}, hidden"),
        "window",
        "whole number",
    ),
    "mask is no matrix": Case(
        GOOD.replace("hidden", "connectivity: [[0, 1], [1]], hidden"), "[[0, 1], [1]]", "zeros and ones"
    ),
    "unknown surrogate": Case(GOOD.replace("hidden", "surrogate: boxy, hidden"), "boxy", "known"),
    "metric and model that do not fit": Case(
        GOOD.replace("LIF", "RNN") + "metrics: [firing_rate]\n", "firing_rate", "spiking"
    ),
    "loss and task that do not fit": Case(
        GOOD.replace("outputs: 10", "outputs: 10, task_type: regression") + "loss: categorical_crossentropy\n",
        "regression",
        "mean_squared_error",
    ),
    "rule and model that do not fit": Case(
        GOOD.replace("LIF", "RNN").replace("bptt", "{name: eprop, regularizers: [firing_rate]}"), "RNN", "spiking"
    ),
    "early stopping on nothing": Case(
        GOOD.replace("epochs: 1", "epochs: 1, early_stopping: {monitor: validation_los}"),
        "validation_los",
        "did you mean 'validation_loss'",
    ),
    "unknown argument of a callback": Case(
        GOOD.replace("epochs: 1", "checkpoint: {every: 2}"), "every", "did you mean 'every_"
    ),
    "labels that the outputs lack": Case(GOOD.replace("outputs: 10", "outputs: 5"), "label", "between 0 and 4"),
    "value of a data set out of range": Case(GOOD.replace("50", "7"), "num_samples", "at least 10"),
    "syntax error": Case("data: [mnist1d\n" + MODEL, "line 2", "close every bracket"),
    "tabs": Case("data:\n\tname: mnist1d\n", "line 2", "spaces"),
    "duplicate key": Case(GOOD + "seed: 1\nseed: 2\n", "'seed' given twice in line 6", "once"),
    "duplicate key inside": Case(GOOD.replace("hidden: 4", "hidden: 4, hidden: 5"), "'hidden' given twice", "once"),
    "empty file": Case("", "empty file", "data, model and rule"),
    "comments alone": Case("# nothing\n", "empty file", "data, model and rule"),
    "list at the top": Case("- data\n- model\n", "list", "mapping"),
    "text at the top": Case("mnist\n", "text", "mapping"),
    "unsafe tag": Case("data: !!python/object/apply:os.system ['true']\n", "python/object", "plain"),
    "two documents": Case(GOOD + "---\n" + GOOD, "document", "YAML"),
    "key that is no text": Case(GOOD + "3: x\n", "3", "quotes"),
    "date": Case(GOOD + "name: 2026-01-31\n", "2026-01-31", "quotes"),
    "not UTF-8": Case(b"data: mnist1d \xff\xfe\n", "bad.yaml", "UTF-8"),
    "binary": Case(b"\x00\x01\x02\x03", "bad.yaml", "YAML"),
    "setting without =": Case(GOOD, "seed", "key=value", ("seed",)),
    "setting without a key": Case(GOOD, "=3", "key=value", ("=3",)),
    "setting of an unknown path": Case(GOOD, "modus", "did you mean 'model'", ("modus.hidden=3",)),
    "setting beside its section": Case(GOOD, "epochs", "it belongs to train.epochs", ("epochs=3",)),
    "setting of an unknown argument": Case(GOOD, "hiden", "did you mean 'hidden'", ("model.hiden=3",)),
    "setting of another rule's name": Case(
        GOOD.replace("bptt", "{name: eprop, mode: random, seed: 1}"),
        "bptt has no 'mode'",
        "--set 'rule={name: bptt}', with seed if wanted",
        ("rule.name=bptt",),
    ),
    "setting of a learning rate": Case(GOOD, "lr", "--set rule.optimizer.learning_rate=", ("rule.lr=0.1",)),
    "learning rate of a rule": Case(GOOD.replace("bptt", "{name: bptt, learning_rate: 1e-3}"), "rate", "optimizer={"),
    "rule of every step on a mean": Case(
        GOOD.replace("bptt", "fptt").replace("outputs: 10", "outputs: 10, readout: mean"), "FPTT", "readout='sequence'"
    ),
    "setting below a number": Case(GOOD + "seed: 0\n", "seed", "mapping", ("seed.x=3",)),
    "setting that is no YAML": Case(GOOD, "--set seed=[", "bracket", ("seed=[",)),
    "setting of a wrong value": Case(GOOD, "train.epochs", "whole number", ("train.epochs=0.5",)),
}


def refused(capsys: Any, named: str, hint: str, *arguments: str) -> str:
    """Run a command that must be refused, and return its sentence."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("Error: ")
    assert lines[0].endswith((".", "?"))
    assert "Traceback" not in lines[0]
    assert "pydantic" not in lines[0]
    assert named in lines[0], lines[0]
    assert hint in lines[0], lines[0]
    return lines[0]


def written(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("case", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_configuration(case: Case, tmp_path: Path, capsys: Any) -> None:
    settings = [word for setting in case.settings for word in ("--set", setting)]
    out = tmp_path / "run"
    refused(capsys, case.named, case.hint, "run", written(tmp_path, case.text), "--out", str(out), *settings)
    assert not out.exists()


def test_the_configuration_that_all_of_these_spoil_runs(tmp_path: Path) -> None:
    assert main(["run", written(tmp_path, GOOD), "--out", str(tmp_path / "run"), "-q"]) == 0


# Files of data.


def examples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(20, 5, 3)).astype(np.float32), "y": rng.integers(4, size=20)}


def changed(key: str, change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    arrays: dict[str, Any] = dict(examples())
    arrays[key] = change(arrays[key].copy())
    return arrays


def with_nan(x: np.ndarray) -> np.ndarray:
    x[2, 1, 0] = np.nan
    return x


def as_objects(x: np.ndarray) -> np.ndarray:
    return np.array([[1], [2, 3]], dtype=object)


ARRAYS: dict[str, tuple[dict[str, Any], str, str]] = {
    "x has two dimensions": (
        changed("x", lambda x: x[:, :, 0]),
        "give the Evaluator an encoder",
        "[batch, time, feature]",
    ),
    "x has one dimension": (changed("x", lambda x: x[:, 0, 0]), "x", "[examples, time, feature]"),
    "x and y differ in length": (changed("y", lambda y: y[:-1]), "20 and 19", "equally many"),
    "y has the wrong shape": (changed("y", lambda y: np.zeros((20, 7, 2))), "[20, 7, 2]", "[examples, time, outputs]"),
    "label out of range": (changed("y", lambda y: y + 2), "label 5", "between 0 and 3"),
    "NaN": (changed("x", with_nan), "example 2, step 1, feature 0", "finite"),
    "infinity": (changed("x", lambda x: np.full_like(x, np.inf)), "x", "finite"),
    "text": (changed("x", lambda x: x.astype(str)), "x", "real numbers"),
    "objects": (changed("x", as_objects), "x", "without pickle"),
    "no y": ({"x": examples()["x"], "z": examples()["y"]}, "'y'", "z"),
    "no examples": (changed("x", lambda x: x[:0]), "x", "example"),
}


def own(path: Path) -> str:
    """A configuration that reads a user's own file."""
    return f"data: {{name: arrays, path: {path}}}\n" + MODEL.replace("outputs: 10", "outputs: 4") + RULE + TRAIN


@pytest.mark.parametrize(("arrays", "named", "hint"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays(arrays: dict[str, Any], named: str, hint: str, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "my.npz", **arrays)
    out = tmp_path / "run"
    config = written(tmp_path, own(tmp_path / "my.npz"))
    refused(capsys, named, hint, "run", config, "--out", str(out))
    assert not out.exists()


def test_the_arrays_that_all_of_these_spoil_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "my.npz", **examples())
    config = written(tmp_path, own(tmp_path / "my.npz"))
    assert main(["run", config, "--out", str(tmp_path / "run"), "-q"]) == 0


FILES: dict[str, tuple[str, bytes | None, str, str]] = {
    "missing": ("my.npz", None, "my.npz", "must exist"),
    "no archive": ("my.npz", b"this is no archive", "my.npz", "NumPy file"),
    "empty archive": ("my.npz", b"", "my.npz", "NumPy file"),
    "unknown suffix": ("my.parquet", b"", "my.parquet", ".npz"),
    "table with a text cell": ("my.csv", b"1,2,0\n3,four,1\n", "'four' in row 2", "number"),
    "ragged table": ("my.csv", b"1,2,0\n3,1\n", "row 2", "3 cells"),
    "empty table": ("my.csv", b"", "my.csv", "at least one row"),
}


@pytest.mark.parametrize(("name", "content", "named", "hint"), FILES.values(), ids=FILES.keys())
def test_file(name: str, content: bytes | None, named: str, hint: str, tmp_path: Path, capsys: Any) -> None:
    """A data file with this fault ends the run with status 2 and one line that names it: ``refused`` asserts that."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(capsys, named, hint, "run", written(tmp_path, own(tmp_path / name)))


def test_cut_archive(tmp_path: Path, capsys: Any) -> None:
    """Half an archive ends the run with status 2 and one line that says what a whole one is."""
    np.savez(tmp_path / "my.npz", **examples())
    whole = (tmp_path / "my.npz").read_bytes()
    (tmp_path / "my.npz").write_bytes(whole[: len(whole) // 2])
    refused(capsys, "my.npz", "whole NumPy file", "run", written(tmp_path, own(tmp_path / "my.npz")))


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


MNIST_FILES = {
    "train-images-idx3-ubyte.gz": idx(np.zeros((10, 28, 28))),
    "train-labels-idx1-ubyte.gz": idx(np.arange(10)),
    "t10k-images-idx3-ubyte.gz": idx(np.zeros((10, 28, 28))),
    "t10k-labels-idx1-ubyte.gz": idx(np.arange(10)),
}


@pytest.mark.parametrize(
    ("file", "content", "hint"),
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(MNIST_FILES["train-images-idx3-ubyte.gz"][:-1]), ""),
        ("train-images-idx3-ubyte.gz", gzip.compress(MNIST_FILES["train-images-idx3-ubyte.gz"])[:-9], ""),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.arange(9))), "equally many"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.arange(10) + 5)), "digits 0 to 9"),
        ("t10k-labels-idx1-ubyte.gz", None, "must exist"),
    ],
    ids=["cut IDX", "cut gzip", "a label short", "label out of range", "missing"],
)
def test_mnist(file: str, content: bytes | None, hint: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "mnist").mkdir()
    for name, whole in MNIST_FILES.items():
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(whole))
    monkeypatch.setenv("NEKO_DATA_DIR", str(tmp_path))
    config = written(tmp_path, GOOD.replace(DATA, "data: mnist\n"))
    assert main(["run", config, "--out", str(tmp_path / "good"), "-q"]) == 0
    (tmp_path / "mnist" / file).unlink()
    if content is not None:
        (tmp_path / "mnist" / file).write_bytes(content)
    refused(capsys, file, hint, "run", config, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# The machine and the command line.


def test_backend_that_is_not_installed(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The run ends with status 2 and one line that says what to install."""
    import neko_rules.backend

    def import_module(name: str, package: str | None = None) -> Any:
        if name == "neko_rules.backends.jax":
            raise ModuleNotFoundError("No module named 'jax'", name="jax")
        return importlib.__import__(name, fromlist=["_"])

    monkeypatch.setattr(neko_rules.backend, "_instances", {})
    monkeypatch.setattr(neko_rules.backend.importlib, "import_module", import_module)
    config = written(tmp_path, GOOD + "backend: jax\n")
    refused(capsys, "jax", "pip install 'neko_rules[jax]'", "run", config)


@pytest.mark.parametrize(
    ("arguments", "named", "hint"),
    [
        (["rnu"], "rnu", "did you mean 'run'"),
        (["run"], "neither", "neko run configs/"),
        (["run", "missing.yaml"], "missing.yaml", "must exist"),
        (["run", "."], "folder", "YAML file"),
        (["run", "a.yaml", "--resume", "b"], "both", "neko run configs/"),
        (["run", "--resume", "missing"], "missing", "neko run"),
        (["run", "--resume", "missing", "--seed", "3"], "--seed", "leave"),
        (["run", "a.yaml", "--seed", "x"], "--seed", "integer"),
        (["run", "a.yaml", "--threads", "0"], "--threads", "1"),
        (["run", "a.yaml", "--sed", "3"], "--sed", "--seed"),
        (["run", "a.yaml", "b.yaml"], "b.yaml", "neko run --help"),
        (["list", "rulez"], "rulez", "did you mean 'rules'"),
        (["show"], "folder", "neko show --help"),
        (["show", "missing"], "missing", "neko run"),
        (["show", "."], "config.yaml", "runs/"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command(arguments: list[str], named: str, hint: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """A command line with this fault ends with status 2 and one line that names it and what would work."""
    monkeypatch.chdir(tmp_path)
    refused(capsys, named, hint, *arguments)


def test_output_that_exists(tmp_path: Path, capsys: Any) -> None:
    """Nothing is written over: status 2, and one line that names the folder, the file or what cannot be written."""
    config = written(tmp_path, GOOD)
    refused(capsys, str(tmp_path), "new or empty", "run", config, "--out", str(tmp_path))
    refused(capsys, config, "--out", "run", config, "--out", config)
    refused(capsys, "runs", "writable", "run", config, "--out", str(Path(config) / "runs"))


# Folders of runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert main(["run", written(folder, GOOD), "--out", str(folder / "run"), "-q"]) == 0
    return folder / "run"


SHOWN = {
    "metrics": ("metrics.jsonl", b'{"epoch": 1, "loss"', "line 1", "JSON"),
    "metrics that are binary": ("metrics.jsonl", b"\xff\xfe\x00", "metrics.jsonl", "text"),
    "summary": ("summary.json", b"{", "summary.json", "JSON"),
    "summary that is a list": ("summary.json", b"[]", "summary.json", "object"),
    "weights": ("weights.safetensors", b"nothing", "weights.safetensors", "safetensors"),
    "config": ("config.yaml", b"seed: [", "config.yaml", "bracket"),
}


@pytest.mark.parametrize(("file", "content", "named", "hint"), SHOWN.values(), ids=SHOWN.keys())
def test_show_of_a_damaged_folder(
    file: str, content: bytes, named: str, hint: str, finished: Path, capsys: Any
) -> None:
    whole = (finished / file).read_bytes()
    try:
        (finished / file).write_bytes(content)
        refused(capsys, named, hint, "show", str(finished))
    finally:
        (finished / file).write_bytes(whole)
    assert main(["show", str(finished)]) == 0


def test_resume_of_a_damaged_folder(finished: Path, capsys: Any) -> None:
    resume = ["run", "--resume", str(finished), "--set", "train.epochs=2"]
    refused(capsys, "1 of 1 finished", "--set train.epochs=2", "run", "--resume", str(finished))
    refused(capsys, "model.hidden=5", "train.epochs alone", "run", "--resume", str(finished), "--set", "model.hidden=5")
    results = {
        name: (finished / name).read_bytes() for name in ("weights.safetensors", "summary.json", "metrics.jsonl")
    }
    [checkpoint] = (finished / "checkpoints").glob("*.safetensors")
    whole = checkpoint.read_bytes()
    for content in (b"nothing", whole[: len(whole) // 2]):
        checkpoint.write_bytes(content)
        refused(capsys, checkpoint.name, "safetensors", *resume)
    assert results == {name: (finished / name).read_bytes() for name in results}
    checkpoint.unlink()
    refused(capsys, "checkpoints", "begin anew", *resume)
    checkpoint.write_bytes(whole)
    assert main([*resume, "-q"]) == 0


def test_no_traceback_from_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neko_rules", "run", written(tmp_path, GOOD.replace("bptt", "bppt"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: in 'rule': unknown rule (received: bppt)")
