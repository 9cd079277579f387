"""Every registered data set: what it loads, that it repeats itself, and that importing it is cheap."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neko_rules.datasets import DATASETS, Dataset
from neko_rules.errors import ArgumentError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Arguments that make each data set quick to load, by name."""
    path = tmp_path / "my.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(8, 4, 2)), y=np.arange(8) % 3)
    monkeypatch.setenv("NEKO_DATA_DIR", str(SHARED))
    return {
        "mnist": {"train_examples": 20, "test_examples": 10},
        "mnist1d": {"num_samples": 50},
        "pattern_generation": {"time_steps": 60, "examples": 2},
        "evidence_accumulation": {"train_examples": 3, "test_examples": 2},
        "arrays": {"path": str(path)},
        "randman": {"classes": 3, "units": 5, "train_examples": 2, "test_examples": 1},
        "delayed_xor": {"train_examples": 3, "test_examples": 2},
        "spoken_digits": {"train_examples": 20, "test_examples": 10},
    }


@pytest.mark.parametrize("name", list(DATASETS))
def test_what_every_data_set_loads(name, small):
    if name in ("mnist", "spoken_digits") and not SHARED.is_dir():
        pytest.skip("the files of this data set are not here")
    dataset = DATASETS.resolve({"name": name, **small[name]})
    assert isinstance(dataset, Dataset)
    assert dataset.task_type in ("classification", "regression", None)
    x_train, y_train, x_test, y_test = dataset.load()
    for x, y in ((x_train, y_train), (x_test, y_test)):
        assert x.dtype == np.float32
        assert x.ndim == 3
        assert len(x) == len(y) > 0
        assert np.isfinite(x).all()
        assert y.dtype == (np.float32 if dataset.task_type == "regression" else np.int64)
    for first, second in zip(dataset.load(), (x_train, y_train, x_test, y_test), strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)


@pytest.mark.parametrize("name", list(DATASETS))
def test_data_sets_are_frozen_values(name, small):
    dataset = DATASETS.resolve({"name": name, **small[name]})
    assert dataset == DATASETS.resolve({"name": name, **small[name]})
    field = dataclasses.fields(dataset)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(dataset, field, None)


def test_a_class_is_found_by_its_own_name_and_described():
    assert DATASETS.canonical("EvidenceAccumulation") == "evidence_accumulation"
    assert DATASETS.canonical("MNIST1D") == "mnist1d"
    assert all(line.endswith(".") for _, line in DATASETS.describe())


def test_unknown_arguments_name_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'train_examples'"):
        DATASETS.resolve({"name": "mnist", "train_example": 3})


def test_the_base_class_has_no_examples():
    assert Dataset().task_type is None
    with pytest.raises(NotImplementedError, match="Dataset must define load"):
        Dataset().load()


def test_import_brings_in_nothing_heavy():
    code = "import sys, neko_rules.datasets; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"scipy", "rich", "sympy", "matplotlib", "pydantic", "typer", "torch", "tensorflow", "jax"}


def test_loading_leaves_the_global_generator_alone(small):
    def state():
        return np.random.get_state()[1].copy()  # noqa: NPY002

    before = state()
    for name in ("mnist1d", "pattern_generation", "evidence_accumulation", "arrays", "randman", "delayed_xor"):
        DATASETS.resolve({"name": name, **small[name]}).load()
    np.testing.assert_array_equal(state(), before)
