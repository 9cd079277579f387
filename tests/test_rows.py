"""Lists of what is not zero, and sums of the rows that they name: every width a tile can meet, against NumPy."""

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("numba")

from neko_rules.backend import get_backend
from neko_rules.credit.fused_traces import filtered_on, met_by
from neko_rules.kernels.bits import WORD, bits_of, bits_set
from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.gathering import back_through, from_above
from neko_rules.kernels.host import unfused
from neko_rules.kernels.listing import list_row
from neko_rules.kernels.products import panels_of, rest_for
from neko_rules.kernels.rows import (
    ALONE,
    LANES,
    add_rows,
    add_scaled_rows,
    scaled_rows_of_each,
)

NX = get_backend("numpy")
WIDTHS = [LANES * vectors + more for vectors in (1, 2, 3, 4, 6) for more in (0, 1, LANES - 1)]
SIZES = [1, 3, 4, 7, 8, 9, 15, 77, *WIDTHS, LANES * ALONE - 1, LANES * ALONE, 2 * LANES * ALONE + 21]
BOUND = {"float32": 1e-4, "float64": 1e-12}
ROWS = 40


@kernel
def list_rows(rows, index, count):
    for i in range(rows.shape[0]):
        count[i] = list_row(rows[i], rows.shape[1], index[i])


@kernel
def plain(into, matrix, rows, count):
    add_rows(into, into.shape[0], matrix, rows, count)


@kernel
def scaled(into, matrix, rows, count, factors):
    add_scaled_rows(into, into.shape[0], matrix, rows, count, factors)


@kernel
def together(a, b, c, d, matrix, p, q, r, s):
    scaled_rows_of_each((a, b, c, d), a.shape[0], matrix, (p, q, r, s))


@kernel
def words(row, length, found, count):
    for first in range(row.shape[0]):
        found[first] = bits_of(row, first, min(row.shape[0], first + length))
        count[first] = bits_set(found[first])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("size", SIZES)
def test_a_row_is_listed_as_numpy_lists_it(size, dtype):
    rng = np.random.default_rng(size)
    rows = rng.standard_normal((100, size)).astype(dtype)
    rows *= rng.random((100, size)) < rng.choice([0.0, 0.05, 0.5, 1.0], (100, 1))
    rows[3, size // 2], rows[4, size - 1] = np.nan, -0.0
    index, count = np.full((100, size), 60_000, np.uint16), np.empty(100, np.int32)
    list_rows(rows, index, count)
    for row, found, number in zip(rows, index, count, strict=True):
        np.testing.assert_array_equal(found[:number], np.flatnonzero(row))


def test_listing_stays_within_its_row():
    rows = np.ones((2, 13), np.float32)
    index, count = np.full((4, 13), 60_000, np.uint16), np.empty(2, np.int32)
    list_rows(rows[:1], index[1:2], count)
    assert (index[[0, 2, 3]] == 60_000).all()


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", ["uint16", "uint32"])
def test_rows_are_summed_as_numpy_sums_them(size, dtype, index):
    rng = np.random.default_rng(size)
    matrix = rng.standard_normal((ROWS, size)).astype(dtype)
    beside = rng.standard_normal((4, size + 2)).astype(dtype)
    factors = rng.standard_normal((4, ROWS, 3)).astype(dtype)
    for count in (0, 1, 5, ROWS):
        rows = rng.permutation(ROWS).astype(index)
        met = rows[:count]

        def close(found, expected):
            np.testing.assert_allclose(found[:, 1:-1], expected, rtol=0, atol=BOUND[dtype])
            np.testing.assert_array_equal(found[:, [0, -1]], beside[: len(found), [0, -1]])

        start = beside[:, 1:-1]
        sums = beside[:1].copy()
        plain(sums[0, 1:-1], matrix, rows, count)
        close(sums, start[:1] + matrix[met].sum(0))
        sums = beside[:1].copy()
        # A factor per row out of a column, as where events were sorted.
        scaled(sums[0, 1:-1], matrix, rows, count, factors[0, :, 1])
        close(sums, start[:1] + factors[0, met, 1] @ matrix[met])
        # What was there does not count.
        sums = beside.copy()
        sums[:, 1:-1] = np.nan
        together(*sums[:, 1:-1], matrix[:count], *factors[:, :count, 0])
        close(sums, factors[:, :count, 0] @ matrix[:count])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("length", [1, 7, 8, 9, 63, WORD])
def test_bits_say_what_is_not_zero(length, dtype):
    rng = np.random.default_rng(length)
    row = (rng.standard_normal(150) * (rng.random(150) < 0.5)).astype(dtype)
    row[70], row[71] = np.nan, -0.0
    found, count = np.empty(150, np.uint64), np.empty(150, np.int64)
    words(row, length, found, count)
    for first, word in enumerate(found):
        fired = np.flatnonzero(row[first : first + length])
        assert int(word) == sum(1 << int(k) for k in fired)
        assert count[first] == len(fired)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("examples", [1, 4, 6, 9])
def test_errors_come_from_above(examples, dtype):
    rng = np.random.default_rng(examples)
    errors, back = (rng.standard_normal(size).astype(dtype) for size in ((3, examples + 2, 5), (5, 2 * LANES + 3)))
    sums = np.full((examples, back.shape[1]), np.nan, dtype)
    from_above(1, 2, examples, errors, back, sums)
    np.testing.assert_allclose(sums, errors[1, 2:] @ back, rtol=0, atol=BOUND[dtype])


@pytest.mark.parametrize("turned", ["into", "matrix"])
def test_columns_that_do_not_lie_side_by_side_are_refused(turned):
    from numba.core.errors import TypingError

    matrix, into = np.ones((3, 8)), np.ones((8, 2))
    given = (into[:, 0], matrix) if turned == "into" else (np.ones(8), np.asfortranarray(matrix))
    with pytest.raises(TypingError, match="in C order"):
        plain(*given, np.zeros(1, np.uint16), 1)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 4, 21), (20, 2, 7, 130)])
def test_filtered_traces_are_taken_through_several_steps(dtype, shape):
    steps, batch, pre, post = shape
    rng = np.random.default_rng(0)
    before, vectors, slope, signal = (
        rng.standard_normal(size).astype(dtype)
        for size in ((batch, pre, post), (steps, batch, pre), (steps, batch, post), (batch, post))
    )
    after = 0.7 * before + np.einsum("tbi,tbj->bij", vectors, slope)
    gradient = np.einsum("bij,bj->ij", before, signal)
    for engine in (nullcontext, unfused):
        with engine():
            found = filtered_on(NX, 0.7, before, vectors, slope), met_by(NX, before, signal)
        assert all(each.dtype == dtype for each in found)
        np.testing.assert_allclose(found[0], after, rtol=0, atol=BOUND[dtype])
        np.testing.assert_allclose(found[1], gradient, rtol=0, atol=BOUND[dtype])


def errors_through(matrix, errors, sums, leak):
    panels = panels_of(matrix, matrix.dtype)
    back_through(len(errors), errors, matrix, panels, sums, rest_for(panels), matrix.dtype.type(leak))
    return sums


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("examples", [1, 4, 7])
@pytest.mark.parametrize("size", [1, 7, 16, *WIDTHS, LANES * ALONE, LANES * ALONE + 21, 2 * WORD + 13])
def test_errors_go_through_a_matrix_walked_and_whole(size, examples, dtype):
    rng = np.random.default_rng(size)
    matrix = rng.standard_normal((size, size)).astype(dtype)
    for density in (0.0, 0.2, 1.0):
        errors = (rng.standard_normal((examples, size)) * (rng.random((examples, size)) < density)).astype(dtype)
        before = rng.standard_normal((examples, size)).astype(dtype)
        found = errors_through(matrix, errors, before.copy(), 0.7)
        np.testing.assert_allclose(found, 0.7 * before + errors @ matrix, rtol=BOUND[dtype], atol=BOUND[dtype])
        nothing = np.full_like(before, np.nan)
        found = errors_through(matrix, errors, nothing, 0.0)
        np.testing.assert_allclose(found, errors @ matrix, rtol=BOUND[dtype], atol=BOUND[dtype])


def test_an_error_is_the_same_whichever_way_its_group_goes():
    """What an example gets depends on no other, to the last bit."""
    rng = np.random.default_rng(0)
    size = 2 * WORD
    matrix = rng.standard_normal((size, size)).astype(np.float32)
    errors = rng.standard_normal((6, size)).astype(np.float32)
    errors[4:] *= rng.random((2, size)) < 0.3
    whole = errors_through(matrix, errors, np.zeros_like(errors), 0)
    errors[:4] = 0
    walked = errors_through(matrix, errors, np.zeros_like(errors), 0)
    np.testing.assert_array_equal(whole[4:], walked[4:])
    assert not walked[:4].any()
    assert whole[:4].all()
