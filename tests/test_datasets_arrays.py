"""A user's own data: what is read as what, and one sentence for everything that cannot be."""

import numpy as np
import pytest

from neko_rules.datasets import Arrays
from neko_rules.datasets.table import read_table
from neko_rules.errors import ArgumentError, DataError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(10, 4, 3))
Y = np.arange(10) % 2


@pytest.fixture
def saved(tmp_path):
    """Write arrays to an .npz file and give its path."""

    def save(**arrays):
        np.savez(tmp_path / "my.npz", **arrays)
        return tmp_path / "my.npz"

    return save


@pytest.fixture
def table(tmp_path):
    """Write a CSV file and give its path."""

    def save(text, encoding="utf-8"):
        (tmp_path / "my.csv").write_text(text, encoding=encoding)
        return tmp_path / "my.csv"

    return save


def refusal(error, action):
    with pytest.raises(error) as caught:
        action()
    sentence = str(caught.value)
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    return sentence


# Archives.


def test_given_test_arrays_are_used(saved):
    path = saved(x=X, y=Y, x_test=X[:3, :2], y_test=Y[:3], something=np.zeros(3))
    x_train, y_train, x_test, y_test = Arrays(path).load()
    np.testing.assert_array_equal(x_train, X.astype(np.float32))
    np.testing.assert_array_equal(x_test, X[:3, :2].astype(np.float32))
    np.testing.assert_array_equal(y_train, Y)
    np.testing.assert_array_equal(y_test, Y[:3])


def test_a_split_loses_and_repeats_nothing(saved):
    path = saved(x=np.arange(10.0).reshape(10, 1, 1), y=np.arange(10))
    for fraction, tested in ((0.2, 2), (0.5, 5), (0.001, 1), (0.999, 9)):
        x_train, y_train, x_test, y_test = Arrays(path, test_fraction=fraction).load()
        assert len(y_test) == tested
        assert sorted([*y_train, *y_test]) == list(range(10))
        np.testing.assert_array_equal(x_train[:, 0, 0], y_train)
        np.testing.assert_array_equal(x_test[:, 0, 0], y_test)


def test_the_seed_decides_the_split(saved):
    path = saved(x=X, y=np.arange(10))
    tests = [Arrays(path, seed=seed).load()[3].tolist() for seed in (0, 0, 1, 2)]
    assert tests[0] == tests[1]
    assert len({tuple(test) for test in tests}) > 1


@pytest.mark.parametrize(
    ("y", "task_type", "dtype", "shape"),
    [
        (Y, None, np.int64, (8,)),
        (Y.astype(np.uint8), None, np.int64, (8,)),
        (Y.astype(bool), None, np.int64, (8,)),
        (Y.astype(float), None, np.int64, (8,)),
        (Y, "regression", np.float32, (8, 1)),
        (Y + 0.5, None, np.float32, (8, 1)),
        (np.where(np.arange(4) < 2, -1, Y[:, None]), None, np.int64, (8, 4)),
        (RANDOM.normal(size=(10, 2)), None, np.float32, (8, 2)),
        (np.eye(2)[Y], "classification", np.float32, (8, 2)),
        (RANDOM.normal(size=(10, 4, 2)), None, np.float32, (8, 4, 2)),
        (-Y[:, None], "regression", np.float32, (8, 1)),
    ],
)
def test_what_targets_are_read_as(y, task_type, dtype, shape, saved):
    _, y_train, _, _ = Arrays(saved(x=X, y=y), task_type=task_type).load()
    assert (y_train.dtype, y_train.shape) == (dtype, shape)
    values = np.asarray(y, dtype)
    np.testing.assert_array_equal(np.sort(y_train.ravel())[[0, -1]], [values.min(), values.max()])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, bool])
def test_inputs_of_any_real_type(dtype, saved):
    x = RANDOM.integers(0, 2, (10, 4, 3)).astype(dtype)
    assert Arrays(saved(x=x, y=Y)).load()[0].dtype == np.float32


@pytest.mark.parametrize("shape", [(10, 12), (10, 2, 6, 6)])
def test_pictures_for_an_encoder(shape, saved):
    pictures = RANDOM.random(shape)
    x, _, x_test, _ = Arrays(saved(x=pictures, y=Y)).load()
    assert x.shape == (8, *shape[1:])
    assert x_test.shape == (2, *shape[1:])


def with_value(value, place=(2, 3, 1)):
    x = X.copy()
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, r"must hold an array 'y' \(received: \['x'\]\)"),
        ({"X": X, "y": Y}, "must hold an array 'x' .*did you mean 'X'"),
        ({"x_train": X, "y_train": Y}, r"\['x_train', 'y_train'\]\); name the arrays x and y, .*: x, not x_train"),
        ({"x": X, "y": Y, "x_test": X}, "both x_test and y_test, or neither .*x_test alone"),
        ({"x": X[:, 0, 0], "y": Y}, r"x in .* must be \[examples, time, feature\], .* \(received: shape \[10\]\)"),
        ({"x": X[:, :0], "y": Y}, r"shape \[10, 0, 3\]"),
        ({"x": X[:0], "y": Y[:0]}, r"shape \[0, 4, 3\]"),
        ({"x": X, "y": Y[:9]}, "equally many examples .*10 and 9"),
        ({"x": X, "y": np.int64(3)}, "1 to 3 dimensions"),
        ({"x": X, "y": np.zeros((10, 4, 1, 1))}, "1 to 3 dimensions"),
        ({"x": X, "y": np.zeros((10, 0))}, r"shape \[10, 0\]"),
        ({"x": X, "y": np.zeros((10, 5, 1))}, r"shape \[10, 5, 1\] beside x of shape \[10, 4, 3\]"),
        ({"x": with_value(np.nan), "y": Y}, "nan at example 2, step 3, feature 1"),
        ({"x": with_value(-np.inf), "y": Y}, "-inf at example 2, step 3, feature 1"),
        ({"x": with_value(1e39), "y": Y}, "finite in float32 .*1e\\+39 at example 2"),
        ({"x": X, "y": np.where(Y == 1, np.nan, 0.5)}, "y in .* nan at example 1"),
        ({"x": X, "y": with_value(np.nan)[:, :, 0].T[:1].repeat(10, 0) * np.nan}, "at example 0, position 0"),
        ({"x": X, "y": with_value(np.inf)}, "inf at example 2, step 3, output 1"),
        ({"x": X.astype(complex), "y": Y}, "real numbers .*complex128"),
        ({"x": X.astype(str), "y": Y}, "real numbers"),
        ({"x": X, "y": np.array(list("ababababab"))}, "y in .* real numbers"),
        ({"x": X.astype(object), "y": Y}, "'x' .* without pickle"),
        ({"x": X, "y": Y.astype(object)}, "'y' .* without pickle"),
        ({"x": X, "y": Y - 5}, "-1 where not supervised .*-5.*task_type='regression'"),
        ({"x": X, "y": Y + 2**40}, "must be classes"),
        ({"x": X[:1], "y": Y[:1]}, "at least 2 examples"),
        ({"x": X, "y": Y, "x_test": X[:, :, :2], "y_test": Y}, "equally many features .*4, 3. and .10, 4, 2"),
        ({"x": X[:, 0], "y": Y, "x_test": X, "y_test": Y}, "equally many features .*10, 3. and .10, 4, 3"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 0.5}, "targets of one kind"),
        ({"x": X, "y": np.eye(2)[Y], "x_test": X, "y_test": np.eye(3)[Y]}, "targets of one kind"),
        ({"x": X, "y": Y, "x_test": with_value(np.nan), "y_test": Y}, "x_test in .* nan"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y[:2]}, "x_test and y_test .*10 and 2"),
    ],
)
def test_malformed_archives(arrays, said, saved):
    path = saved(**arrays)
    with pytest.raises(DataError, match=said):
        Arrays(path).load()


def test_classes_that_are_not_whole(saved):
    sentence = refusal(DataError, Arrays(saved(x=X, y=Y + 0.5), task_type="classification").load)
    assert "whole numbers" in sentence


def test_files_that_are_no_archives(tmp_path, saved):
    assert "must exist" in refusal(DataError, Arrays(tmp_path / "none.npz").load)
    (tmp_path / "folder.npz").mkdir()
    assert "not a folder" in refusal(DataError, Arrays(tmp_path / "folder.npz").load)
    for name, content in (("text.npz", b"x,y\n"), ("empty.npz", b""), ("cut.npz", saved(x=X, y=Y).read_bytes()[:200])):
        (tmp_path / name).write_bytes(content)
        assert "must be a whole NumPy file" in refusal(DataError, Arrays(tmp_path / name).load)
    np.save(tmp_path / "single.npy", X)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    assert "name it .npy" in refusal(DataError, Arrays(tmp_path / "single.npz").load)


def test_a_missing_file_is_named_with_its_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for arrays in (Arrays("none.npz"), Arrays("none.csv"), Arrays("none.npy", labels="y.npy")):
        assert str(tmp_path / "none.") in refusal(DataError, arrays.load)


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = saved(x=X, y=Y)
    monkeypatch.setattr("builtins.open", denied)
    assert "must be readable (received: Permission denied)" in refusal(DataError, Arrays(path).load)


def test_a_damaged_member(saved):
    path = saved(x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)
    assert "'x'" in refusal(DataError, Arrays(path).load)


def test_pickles_are_never_run(tmp_path):
    """Unpickling the trap fails the test; the file is refused with a DataError of one sentence instead."""

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "y.npy", Y)
    refusal(DataError, Arrays(tmp_path / "x.npy", labels=tmp_path / "y.npy").load)


# Pairs.


def test_a_pair(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    x_train, y_train, x_test, y_test = Arrays(str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy")).load()
    assert (x_train.shape, y_train.shape, x_test.shape, y_test.shape) == ((8, 4, 3), (8,), (2, 4, 3), (2,))


def test_a_broken_pair(tmp_path, saved):
    np.save(tmp_path / "x.npy", X)
    assert "y.npy must exist" in refusal(DataError, Arrays(tmp_path / "x.npy", labels=tmp_path / "y.npy").load)
    saved(x=X, y=Y).rename(tmp_path / "y.npy")
    assert "name it .npz" in refusal(DataError, Arrays(tmp_path / "x.npy", labels=tmp_path / "y.npy").load)
    (tmp_path / "y.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-3])
    assert "y.npy must be a whole" in refusal(DataError, Arrays(tmp_path / "x.npy", labels=tmp_path / "y.npy").load)


# Tables.


@pytest.mark.parametrize("header", ["", "a0,b0,a1,b1,label\n", "\ufeffa0,b0,a1,b1,label\n"])
def test_columns_are_steps_of_features(header, table):
    x, y = read_table(table(header + "1,2,3,4,0\n5,6,7,8,1\n\n"), features=2)
    assert x.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert y.tolist() == [0, 1]


@pytest.mark.parametrize("column", [1, -2, "label", " label "])
def test_the_label_column_by_number_or_name(column, table):
    path = table('a, "label",b\n1,9,2\n3,8,4\n'.replace(' "label"', "label"))
    if column == " label ":
        assert "did you mean 'label'" in refusal(ArgumentError, lambda: read_table(path, column))
        return
    x, y = read_table(path, column)
    assert x.tolist() == [[[1], [2]], [[3], [4]]]
    assert y.tolist() == [9, 8]


def test_a_header_of_numbers_must_be_declared(table):
    path = table("0,1,2\n5,6,1\n7,8,0\n")
    assert read_table(path)[0].shape == (3, 2, 1)
    assert read_table(path, header=True)[0].shape == (2, 2, 1)
    assert read_table(path, "2", header=True)[1].tolist() == [1, 0]


def test_a_table_as_a_data_set(table):
    path = table("".join(f"{i},{i + 0.5},{i % 3}\n" for i in range(20)))
    x_train, y_train, x_test, y_test = Arrays(path).load()
    assert (x_train.shape, x_test.shape, y_train.dtype, y_test.dtype) == ((16, 2, 1), (4, 2, 1), np.int64, np.int64)
    np.testing.assert_array_equal(x_train[:, 0, 0].astype(int) % 3, y_train)
    _, values, _, _ = Arrays(path, task_type="regression").load()
    assert (values.dtype, values.shape) == (np.float32, (16, 1))


@pytest.mark.parametrize(
    ("text", "arguments", "error", "said"),
    [
        ("", {}, DataError, "an empty file"),
        ("\n\n", {}, DataError, "an empty file"),
        ("a,b,c\n", {}, DataError, "a header alone"),
        ("1,2,0\n1,x,0\n", {}, DataError, "'x' in row 2, column 2"),
        ("a,b\n1,\n", {}, DataError, "'' in row 2, column 2"),
        ("1,2,setosa\n", {}, DataError, "'setosa' in row 1, column 3.*header=True"),
        ("a,b\n1,2\n", {"header": False}, DataError, "'a' in row 1, column 1"),
        ("1,2\n1_000,2\n", {}, DataError, "'1_000' in row 2, column 1"),
        ("1,2,0\n1,2\n", {}, DataError, "3 cells like the first .*2 in row 2"),
        ("1,2,0\n1,nan,0\n", {}, DataError, "nan at example 1, step 1, feature 0"),
        ("1,2,0\n1,inf,0\n", {}, DataError, "inf at example 1, step 1, feature 0"),
        ('1,2\n"1,2\n', {}, DataError, "comma-separated text"),
        ("1;2;0\n3;4;1\n", {}, DataError, "header=True"),
        ("1\n2\n", {}, ArgumentError, "features must divide the 0 columns"),
        ("1,2,3,0\n", {"features": 2}, ArgumentError, "features must divide the 3 columns"),
        ("1,2,0\n", {"label_column": 3}, ArgumentError, "from -3 to 2"),
        ("1,2,0\n", {"label_column": "label"}, ArgumentError, "has no header"),
        (
            "a,b,c\n1,2,0\n",
            {"label_column": "d"},
            ArgumentError,
            "must name exactly one column .*received: d.*known: 'a'",
        ),
        ("a,a,c\n1,2,0\n", {"label_column": "a"}, ArgumentError, "give its number instead"),
    ],
)
def test_malformed_tables(text, arguments, error, said, table):
    path = table(text)
    with pytest.raises(error, match=said):
        Arrays(path, **arguments).load()


def test_tables_that_cannot_be_read(tmp_path, table):
    assert "must exist" in refusal(DataError, Arrays(tmp_path / "none.csv").load)
    assert "UTF-8" in refusal(DataError, Arrays(table("ä,b\n1,2\n", encoding="latin-1")).load)
    (tmp_path / "folder.csv").mkdir()
    assert "readable" in refusal(DataError, Arrays(tmp_path / "folder.csv").load)


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": 3}, "path must be the path of a file"),
        ({"path": ""}, "path must be the path of a file"),
        ({"path": "my.mat"}, "path must end in .npz, .npy, .csv"),
        ({"path": "x.npy"}, "labels must name the .npy file"),
        ({"path": "x.npz", "labels": "y.npy"}, "labels must be left out"),
        ({"path": "x.csv", "labels": "y.npy"}, "labels must be left out"),
        ({"path": "x.npy", "labels": 7}, "labels must be the path"),
        ({"path": "x.npz", "features": 2}, "must be left out unless path is a .csv"),
        ({"path": "x.csv", "features": 0}, "features"),
        ({"path": "x.csv", "label_column": 1.0}, "label_column must be a column's name or number"),
        ({"path": "x.csv", "label_column": True}, "label_column must be a column's name or number"),
        ({"path": "x.csv", "header": "yes"}, "header must be true or false"),
        ({"path": "x.npz", "test_fraction": 0}, "test_fraction"),
        ({"path": "x.npz", "test_fraction": 1}, "test_fraction"),
        ({"path": "x.npz", "seed": -1}, "seed"),
        ({"path": "x.npz", "task_type": "classify"}, "did you mean 'classification'"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        Arrays(**arguments)


def test_the_home_folder_is_understood(monkeypatch, tmp_path, saved):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(x=X, y=Y)
    assert Arrays("~/my.npz").load()[0].shape == (8, 4, 3)
