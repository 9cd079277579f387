"""Optimised by XLA: some tests once more by the machine code that users get, which conftest.py spares the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neko_rules.backend import is_installed

TESTS = (
    "test_golden.py::test_gradients_of_every_rule_equal_the_golden_ones[{}-alif_recurrent_deep]",
    "test_rewinding.py::test_every_library_goes_back_by_its_own_operations[{}-feed-forward-e-prop]",
)


def test_numbers_are_the_same_where_xla_optimises(shared: Path) -> None:
    libraries = [library for library in ("jax", "tensorflow") if is_installed(library)]
    if not libraries:
        pytest.skip("neither JAX nor TensorFlow is installed")
    tests = [f"tests/{test.format(library)}" for test in TESTS for library in libraries]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "XLA_FLAGS": ""},
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tests)} passed" in done.stdout
