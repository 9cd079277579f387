"""A user's own data: arrays in ``.npz`` or ``.npy`` files, or a ``.csv`` table, checked before anything is trained."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neko_rules.arguments import choice, flag, integer, number
from neko_rules.datasets.dataset import DATASETS, Dataset, Split
from neko_rules.datasets.table import read_table
from neko_rules.errors import ArgumentError, DataError, nearest

SUFFIXES = (".npz", ".npy", ".csv")

UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files and members that are damaged, or pickled."""


@DATASETS.register("arrays")
@dataclass(frozen=True)
class Arrays(Dataset):
    """Your own data: an .npz with x and y, an .npy pair, or a .csv with one example per row.

    ``.npz``: ``x`` [examples, time, feature] and ``y``, and optionally ``x_test`` and ``y_test``; other arrays in the
    file are ignored. For a model with an encoder x may have any axes behind that of the examples. ``.npy``: ``path``
    holds x, and ``labels`` names the file that holds y. ``.csv``: one row per example; the columns other than
    ``label_column`` are its time steps, ``features`` columns each.

    Targets are classes [examples] or per time step [examples, time] (-1: this step is not supervised), or values
    [examples, outputs] or [examples, time, outputs]. Whole numbers become int64 and the others float32, where a
    one-dimensional array of whole floats counts as classes; ``task_type="regression"`` makes them values all the same.
    One-dimensional values become [examples, 1]. Files are never unpickled.

    Args:
        path: the file with the inputs, which its suffix tells apart; ``~`` is the home folder.
        labels: the ``.npy`` file with the targets; for ``.npy`` only.
        label_column: name or number of the label column, by default the last; for ``.csv`` only.
        features: per time step; for ``.csv`` only.
        header: whether the first row holds names; None: it does if no cell of it is a number; for ``.csv`` only.
        test_fraction: the part of the examples drawn for testing where the file holds no ``x_test`` and ``y_test``.
        seed: of that draw.
        task_type: ``"classification"`` or ``"regression"``; None leaves it to the targets.

    Raises:
        ArgumentError: an argument is wrong or does not fit the kind of file.
        DataError: a file is missing or damaged, or its arrays are not finite numbers of these shapes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "my.npz"
        ...     np.savez(path, x=np.zeros((10, 5, 3)), y=np.arange(10) % 2)
        ...     x_train, y_train, x_test, y_test = Arrays(path=path).load()
        >>> x_train.shape, y_train.dtype.name, x_test.shape
        ((8, 5, 3), 'int64', (2, 5, 3))
    """

    path: str | Path
    labels: str | Path | None = None
    label_column: str | int = -1
    features: int = 1
    header: bool | None = None
    test_fraction: float = 0.2
    seed: int = 0
    task_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", _path("path", self.path))
        if self.labels is not None:
            object.__setattr__(self, "labels", _path("labels", self.labels))
        self._check_kind()
        if isinstance(self.label_column, bool) or not isinstance(self.label_column, (str, int)):
            raise ArgumentError("label_column must be a column's name or number", received=self.label_column)
        integer("features", self.features, at_least=1)
        if self.header is not None:
            flag("header", self.header)
        number("test_fraction", self.test_fraction, above=0, below=1)
        integer("seed", self.seed, at_least=0)
        if self.task_type is not None:
            choice("task_type", self.task_type, ["classification", "regression"])

    def _check_kind(self) -> None:
        suffix = Path(self.path).suffix.lower()
        if suffix not in SUFFIXES:
            raise ArgumentError(f"path must end in {', '.join(SUFFIXES)}", received=str(self.path))
        if suffix == ".npy" and self.labels is None:
            raise ArgumentError(
                "labels must name the .npy file with the targets of an .npy path", received=str(self.path)
            )
        if suffix != ".npy" and self.labels is not None:
            raise ArgumentError(f"labels must be left out where path is a {suffix} file", received=str(self.labels))
        if suffix != ".csv" and (self.label_column, self.features, self.header) != (-1, 1, None):
            raise ArgumentError(
                "label_column, features and header must be left out unless path is a .csv file",
                received=str(self.path),
            )

    def load(self) -> Split:
        """The arrays ``x_train, y_train, x_test, y_test``, from the file or by a random split of its examples."""
        arrays = self._read()
        x, y = checked_examples(arrays["x"], arrays["y"], self.task_type, "x", "y", str(self.path))
        if "x_test" not in arrays:
            return split(x, y, self.test_fraction, self.seed)
        x_test, y_test = checked_examples(
            arrays["x_test"], arrays["y_test"], self.task_type, "x_test", "y_test", str(self.path)
        )
        _check_alike(x, x_test, y, y_test, str(self.path))
        return x, y, x_test, y_test

    def _read(self) -> dict[str, np.ndarray]:
        path = Path(self.path).absolute()
        if path.suffix.lower() == ".csv":
            x, y = read_table(path, self.label_column, self.features, self.header)
            return {"x": x, "y": y}
        if path.suffix.lower() == ".npz":
            return _read_npz(path)
        return {"x": _read_npy(path), "y": _read_npy(Path(str(self.labels)).absolute())}


def checked_examples(
    x: np.ndarray, y: np.ndarray, task_type: str | None, x_name: str, y_name: str, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as float32 [examples, …] and targets as int64 or float32, or one sentence on what is wrong.

    Example:
        >>> x = np.ones((2, 3, 1))
        >>> x[1, 2, 0] = np.nan
        >>> checked_examples(x, np.array([0, 1]), None, "x", "y", "my.npz")
        Traceback (most recent call last):
        neko_rules.errors.DataError: x in my.npz must be finite in float32 (received: nan at example 1, step 2, feature
        0).
    """
    if x.ndim < 2:
        raise DataError(
            f"{x_name} in {source} must be [examples, time, feature], or values [examples, …] for an encoder",
            received=f"shape {list(x.shape)}",
        )
    if 0 in x.shape:
        raise DataError(
            f"{x_name} in {source} must have an example, a time step and a feature", f"shape {list(x.shape)}"
        )
    if not 1 <= y.ndim <= 3:
        raise DataError(f"{y_name} in {source} must have 1 to 3 dimensions", received=f"shape {list(y.shape)}")
    if len(x) != len(y):
        raise DataError(
            f"{x_name} and {y_name} in {source} must hold equally many examples", received=f"{len(x)} and {len(y)}"
        )
    if 0 in y.shape or (x.ndim == y.ndim == 3 and y.shape[1] != x.shape[1]):
        raise DataError(
            f"{y_name} in {source} must be [examples], [examples, time or outputs] or [examples, time, outputs]",
            received=f"shape {list(y.shape)} beside {x_name} of shape {list(x.shape)}",
        )
    axes = ("example", "step", "feature") if x.ndim == 3 else ("example", *("value",) * (x.ndim - 1))
    inputs = _finite(_real(x, x_name, source), x_name, source, axes)
    return inputs, _targets(_real(y, y_name, source), task_type, y_name, source)


def split(x: np.ndarray, y: np.ndarray, test_fraction: float, seed: int) -> Split:
    """Examples dealt at random into training and test sets, at least one to each.

    Example:
        >>> x, y = np.zeros((10, 1, 1)), np.arange(10)
        >>> _, y_train, _, y_test = split(x, y, test_fraction=0.3, seed=0)
        >>> len(y_train), len(y_test), sorted([*y_train.tolist(), *y_test.tolist()]) == list(range(10))
        (7, 3, True)
    """
    if len(x) < 2:
        raise DataError(
            "there must be at least 2 examples to split into training and test sets",
            received=len(x),
            works="give x_test and y_test in an .npz file",
        )
    tested = min(max(round(len(x) * test_fraction), 1), len(x) - 1)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.sort(order[tested:]), np.sort(order[:tested])
    return x[train], y[train], x[test], y[test]


def _targets(y: np.ndarray, task_type: str | None, name: str, source: str) -> np.ndarray:
    axes = ("example",) if y.ndim == 1 else ("example", "position") if y.ndim == 2 else ("example", "step", "output")
    values = _finite(y, name, source, axes)
    whole = y.dtype.kind in "biu" or (y.ndim == 1 and bool((y == np.floor(y)).all()))
    if task_type == "regression" or not whole:
        if task_type == "classification" and y.ndim == 1:
            wrong = y[y != np.floor(y)][0]
            raise DataError(f"{name} in {source} must be whole numbers, the classes", received=float(wrong))
        return values[:, None] if y.ndim == 1 else values
    if y.dtype.kind != "b" and (y.max() > np.iinfo(np.int32).max or y.min() < -1):
        wrong = int(y.min() if y.min() < -1 else y.max())
        raise DataError(
            f"{name} in {source} must be classes from 0, or -1 where not supervised",
            received=wrong,
            works="use task_type='regression' if these are values",
        )
    return y.astype(np.int64)


def _real(array: np.ndarray, name: str, source: str) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} in {source} must hold real numbers", received=f"dtype {array.dtype}")
    return array


def _finite(array: np.ndarray, name: str, source: str, axes: tuple[str, ...]) -> np.ndarray:
    """The array in float32, refused with the place of its first value that is not finite there."""
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        result = array.astype(np.float32)
    wrong = ~np.isfinite(result)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        where = ", ".join(f"{axis} {int(i)}" for axis, i in zip(axes, place, strict=True))
        raise DataError(f"{name} in {source} must be finite in float32", received=f"{array[place]} at {where}")
    return result


def _check_alike(x: np.ndarray, x_test: np.ndarray, y: np.ndarray, y_test: np.ndarray, source: str) -> None:
    """Training and test examples may have different numbers of time steps, but nothing else."""
    behind = 1 if x.ndim == 2 else 2
    if x.ndim != x_test.ndim or x.shape[behind:] != x_test.shape[behind:]:
        raise DataError(
            f"x and x_test in {source} must have equally many features",
            received=f"shapes {list(x.shape)} and {list(x_test.shape)}",
        )
    outputs_differ = y.dtype.kind == "f" and y.shape[-1] != y_test.shape[-1]
    if y.ndim != y_test.ndim or y.dtype != y_test.dtype or outputs_differ:
        raise DataError(
            f"y and y_test in {source} must be targets of one kind",
            received=f"{y.dtype} {list(y.shape)} and {y_test.dtype} {list(y_test.shape)}",
        )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with _opened(path) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} must be an .npz archive", received="a single array", works="name it .npy")
        names = ["x", "y"]
        for name in names:
            if name not in archive.files:
                raise DataError(
                    f"{path} must hold an array {name!r}", received=archive.files, works=_renamed(name, archive.files)
                )
        given = [name for name in ("x_test", "y_test") if name in archive.files]
        if len(given) == 1:
            raise DataError(f"{path} must hold both x_test and y_test, or neither", received=f"{given[0]} alone")
        return {name: _member(archive, name, path) for name in names + given}


def _renamed(name: str, held: list[str]) -> str:
    """What would work, where an archive holds its arrays under other names."""
    wrong = [each for each in held if each.lower() == name]
    if wrong:
        return nearest(name, wrong)
    accepted = "name the arrays x and y, and x_test and y_test if there are test data"
    train = f"{name}_train"
    return f"{accepted}: {name}, not {train}" if train in held else accepted


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except UNREADABLE as error:
        raise DataError(f"the array {name!r} in {path} must be readable without pickle", str(error)) from None


def _read_npy(path: Path) -> np.ndarray:
    with _opened(path) as loaded:
        if not isinstance(loaded, np.ndarray):
            raise DataError(f"{path} must be one array", received="an .npz archive", works="name it .npz")
        return loaded


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """What NumPy finds in a file: an array, or an archive that can be read until the file is closed on leaving."""
    if not path.is_file():
        raise DataError(f"{path} must exist" if not path.exists() else f"{path} must be a file, not a folder")
    # Opened here, because numpy.load leaves its own file open when an archive turns out to be damaged.
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed by the with statement below
    except OSError as error:
        raise DataError(f"{path} must be readable", received=error.strerror or str(error)) from None
    with file:
        try:
            loaded = np.load(file, allow_pickle=False)
        except UNREADABLE as error:
            raise DataError(
                f"{path} must be a whole NumPy file without pickled objects", received=str(error) or "an empty file"
            ) from None
        yield loaded


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise ArgumentError(f"{name} must be the path of a file", received=value)
    return Path(value).expanduser()
