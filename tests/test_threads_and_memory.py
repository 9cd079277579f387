"""Threads and memory: kernels share processors with BLAS, and histories with nobody who still looks at them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from neko_rules import ALIF, BPTT, LIF, EProp, Evaluator
from neko_rules import threads as threads_module
from neko_rules.backend import get_backend
from neko_rules.kernels import host
from neko_rules.kernels.buffers import Buffers, together
from neko_rules.threads import products_are_shared_out, set_threads, threads

NX = get_backend("numpy")


def test_threads_do_not_change_the_numbers() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((16, 60, 40)) < 0.1).astype(np.float64)
    y = rng.integers(0, 3, 16)
    found = []
    before = threads()
    try:
        for number in (1, 3):
            set_threads(number)
            found.append(BPTT(Evaluator(ALIF(96, 3, inputs=40, dtype="float64"))).gradients(x, y))
    finally:
        set_threads(before)
    for name, gradient in found[0].items():
        np.testing.assert_allclose(gradient, found[1][name], rtol=0, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("rule", [BPTT, EProp])
@pytest.mark.parametrize(("hidden", "examples", "outputs"), [(3, 7, 2), (40, 13, 31), (70, 9, 33), (24, 1, 3)])
def test_ranges_of_examples_and_sizes_that_fill_no_vector_give_the_engine_s_numbers(
    rule: type, hidden: int, examples: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that begin within a batch, and readouts too narrow for a loop of their own."""
    monkeypatch.setattr(threads_module, "_WORTHWHILE", 10)
    rng = np.random.default_rng(0)
    x = (rng.random((examples, 20, 12)) < 0.3).astype(np.float64)
    y = rng.integers(0, outputs, examples)
    model = Evaluator(ALIF(hidden, outputs, inputs=12, dtype="float64"))
    with host.unfused():
        expected = rule(model.clone()).gradients(x, y)
    before = threads()
    try:
        for number in (1, 3):
            set_threads(number)
            for name, gradient in rule(model).gradients(x, y).items():
                bound = 1e-12 * np.abs(expected[name]).max()
                np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=bound)
    finally:
        set_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = threads()
    set_threads(2)
    # Libraries that another test has loaded since the first look are not NumPy's, and not what this is about.
    threads_module._controller.cache_clear()
    yield
    set_threads(before)


def blas_threads() -> set[int]:
    controller = pytest.importorskip("threadpoolctl").ThreadpoolController()
    return {each["num_threads"] for each in controller.info() if each["user_api"] == "blas"}


def test_blas_keeps_to_one_thread_while_kernels_use_several(two_threads: None) -> None:
    limits = pytest.importorskip("threadpoolctl")
    seen = []

    def step(fails: bool) -> None:
        seen.append((products_are_shared_out(), blas_threads()))
        if fails:
            raise ValueError

    with limits.threadpool_limits(2, user_api="blas"):
        outside = blas_threads()
        NX.jit(step)(False)
        with pytest.raises(ValueError):
            NX.jit(step)(True)
        assert seen == [(True, {1})] * 2
        assert not products_are_shared_out()
        assert blas_threads() == outside, "given back, also after an error"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_that_is_shared_out_is_the_same(dtype: str, two_threads: None) -> None:
    pytest.importorskip("threadpoolctl")
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2001, 300)).astype(dtype), random.normal(size=(300, 100)).astype(dtype)
    product = NX.jit(lambda: NX.matmul(a, b))()
    assert product.dtype == dtype
    np.testing.assert_allclose(product, a @ b, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


def test_memory_is_lent_to_one_at_a_time() -> None:
    buffers = Buffers()
    one = buffers.empty((1 << 18,), "float64")
    view = one[10:]
    other = buffers.empty((1 << 18,), "float64")
    assert not np.shares_memory(one, other)
    address = one.ctypes.data
    del one
    assert not np.shares_memory(buffers.empty((1 << 18,), "float64"), view), "a view keeps its memory"
    del view
    assert buffers.empty((1 << 18,), "float64").ctypes.data == address


def test_memory_comes_back_once_nobody_holds_it_in_any_form() -> None:
    buffers = Buffers()
    array = buffers.empty((300, 100), "float64")
    for hold in (lambda a: a, lambda a: a[3:], lambda a: a.T, memoryview, lambda a: a.view(np.uint8)[5:]):
        held = hold(array)
        del array
        other = buffers.empty((300, 100), "float64")
        assert not np.shares_memory(np.asarray(held), other), "somebody still looks at it"
        address = np.asarray(held).__array_interface__["data"][0]
        del held
        array = buffers.empty((300, 100), "float64")
        assert 0 <= address - array.ctypes.data < array.nbytes, "nobody does any more"
        del other


def several(buffers: Buffers, shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A vector, and the arrays that are parts of it."""
    *arrays, whole = buffers.lent(together(tuple(shapes), np.dtype("float64")))
    return whole, arrays


def test_each_of_several_arrays_keeps_their_memory() -> None:
    buffers, shapes = Buffers(), [(300, 100), (7,), (200, 100)]
    for hold in (lambda w, a: w, lambda w, a: a[1], lambda w, a: a[2].T, lambda w, a: a[0][3:, 2:], lambda w, a: w[:1]):
        whole, arrays = several(buffers, shapes)
        address, held = whole.ctypes.data, hold(whole, arrays)
        del whole, arrays
        others = several(buffers, shapes)[1]
        assert not any(np.shares_memory(held, other) for other in others), "somebody still looks at it"
        del held, others
        assert several(buffers, shapes)[0].ctypes.data == address, "nobody does any more"


def test_memory_that_serves_two_forms_in_turn_gives_the_same_arrays_again() -> None:
    buffers, one, other = Buffers(), [(300, 100), (7,)], [(100, 300), (5,)]

    def given(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        return several(buffers, shapes)[1]

    first, second = [id(array) for array in given(one)], [id(array) for array in given(other)]
    held = buffers.held
    assert [id(array) for array in given(one)] == first
    small = given(other)[1]
    assert id(small) == second[1]
    assert not {id(array) for array in given(one)} & set(first), "somebody holds an array of the other form"
    del small
    assert [id(array) for array in given(one)] == first
    assert buffers.held == 2 * held
    given(one)[0].flags.writeable = False
    assert given(one)[0].flags.writeable, "an array that was made read-only is not given out again"


def test_a_trajectory_that_is_kept_does_not_change() -> None:
    """The next step must not write into what someone still looks at."""
    rng = np.random.default_rng(0)
    model = Evaluator(LIF(256, 2, inputs=20))
    x = (rng.random((200, 32, 20)) < 0.2).astype(np.float32)
    kept = model.network.forward(model.network.values, x)
    before = {key: value.copy() for key, value in kept.records["hidden"].states.items()}
    for _ in range(3):
        model.network.forward(model.network.values, 1 - x)
    for key, value in before.items():
        np.testing.assert_array_equal(kept.records["hidden"].states[key], value)


def test_a_step_leaves_no_history_to_the_garbage_collector() -> None:
    """A cycle of references would keep the memory of a step until the collector runs, and the next ask for more."""
    rng = np.random.default_rng(0)
    x = (rng.random((32, 100, 20)) < 0.1).astype(np.float32)
    rule = BPTT(Evaluator(ALIF(256, 2, inputs=20)))
    y = rng.integers(0, 2, 32)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            rule.step(x, y)
        before = host.BUFFERS._peak
        for _ in range(3):
            rule.step(x, y)
        assert host.BUFFERS._peak == before
    finally:
        gc.enable()
