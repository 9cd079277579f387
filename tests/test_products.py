"""Dense products in vector registers: those of NumPy in double precision, for all sizes and orders in memory."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from neko_rules.backend import get_backend
from neko_rules.kernels import compiling, dense, measured
from neko_rules.kernels.host import unfused

products = pytest.importorskip("neko_rules.kernels.products")

SIZES = [
    (1, 1, 1),
    (products._ROWS, 3, 32),  # one tile
    (products._ROWS + products._FEW_ROWS + 1, 5, 33),  # tiles of all three sizes, and columns that fill no panel
    (products.BLOCK + 3, products.DEPTH + 1, 70),  # more than a block of rows, and than a panel is deep
    (40, 0, 40),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_product_is_that_of_its_factors(size: tuple[int, int, int], dtype: str, order: str) -> None:
    rows, depth, columns = size
    random = np.random.default_rng(0)
    left = random.standard_normal((rows, depth)).astype(dtype, order=order)
    right = random.standard_normal((depth, columns)).astype(dtype, order=order)
    expected = left.astype(np.float64) @ right.astype(np.float64)
    # Every sum of `depth` products rounds at most so often.
    bound = np.finfo(dtype).eps * (depth + 1) * (abs(left).astype(np.float64) @ abs(right).astype(np.float64))
    found = products.product(left, right)
    assert found.dtype == dtype
    assert np.all(abs(found - expected) <= bound)


def test_every_entry_is_written() -> None:
    left, right = np.ones((400, 6), np.float32), np.ones((6, 137), np.float32)
    for _ in range(3):  # memory of the product before is used again, with what it holds
        assert np.array_equal(products.product(left, right), np.full((400, 137), 6, np.float32))


def test_ranges_of_rows_on_several_threads_and_any_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "parts_of_product", lambda rows, *_: [(0, 17), (17, 40), (40, rows)])
    random = np.random.default_rng(0)
    left, right = random.standard_normal((90, 1200))[:, ::2], random.standard_normal((70, 600)).T[::-1]
    right.flags.writeable = False
    np.testing.assert_allclose(products.product(left, right), left @ right, rtol=0, atol=1e-11)


def test_what_is_not_finite_stays_in_its_row_and_column() -> None:
    left, right = np.ones((20, 4)), np.ones((4, 40))
    left[3, 1], right[2, 35] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        expected = left @ right
    assert np.array_equal(products.product(left, right), expected, equal_nan=True)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("faster", [True, False])
def test_either_library_gives_the_same(name: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    nx = get_backend(name)
    calls = []
    monkeypatch.setattr(dense, "times_as_long", lambda nx: 2.0 if faster else 0.5)
    ours = products.product
    monkeypatch.setattr(products, "product", lambda *factors: calls.append(factors) or ours(*factors))
    random = np.random.default_rng(0)
    left, right = random.standard_normal((300, 100)), random.standard_normal((100, 90))

    def found(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        a, b = nx.asarray(left), nx.asarray(right)
        return nx.to_numpy(nx.jit(lambda: dense.multiplied(nx, a, b))())

    assert np.allclose(found(left, right), left @ right, rtol=1e-12, atol=1e-12)
    assert len(calls) == faster
    found(left[:, :8], right[:8])  # small, and slim: always the backend's own
    with unfused():
        found(left, right)
    assert len(calls) == faster


def test_which_is_faster_is_measured_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "folder", lambda: tmp_path)
    nx = get_backend("numpy")
    ratio = measured.kept("products-numpy", lambda: dense._measured(nx))
    assert 0.2 < ratio < 20
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["measured"] == ratio
    assert measured.kept("products-numpy", lambda: pytest.fail("measured again")) == ratio
    file.write_text("{")
    assert measured.kept("products-numpy", lambda: 3.0) == 3.0
    assert compiling.folder() != tmp_path


def test_machine_code_on_disk_belongs_to_all_files_that_it_may_be_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba looks at the file of the kernel alone, and would run what another release has compiled into it."""
    path = tmp_path / "a_kernel.py"
    path.write_text("from neko_rules.kernels.compiling import kernel\n\n\n@kernel\ndef run(x):\n    return x + 1\n")

    def found_on_disk() -> bool:
        """In a module that is loaded anew, as another process has it."""
        spec = importlib.util.spec_from_file_location("a_kernel", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "a_kernel", module)
        spec.loader.exec_module(module)
        assert module.run(1.0) == 2
        return bool(module.run.stats.cache_hits)

    assert not found_on_disk()
    assert found_on_disk()
    monkeypatch.setattr(compiling, "release", lambda: "another release")
    assert not found_on_disk()
    assert found_on_disk()
