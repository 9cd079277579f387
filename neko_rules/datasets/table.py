"""Tables: a CSV file of numbers, one example per row, with one column of labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from neko_rules.errors import ArgumentError, DataError, nearest


def read_table(
    path: Path, label_column: str | int = -1, features: int = 1, header: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [examples, time, features] and labels [examples], both float64, from a comma-separated file.

    Args:
        path: the file, in UTF-8; empty lines are skipped.
        label_column: name or number of the column of labels; negative numbers count from the right.
        features: per time step; the other columns, from left to right, are the features of the first step, then those
            of the second, and so on.
        header: whether the first row holds names; None: it does if no cell of it is a number.

    Raises:
        ArgumentError: there is no such label column, or the other columns are no multiple of ``features``.
        DataError: the file cannot be read, has no examples, rows of different lengths, or a cell that is no number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.csv"
        ...     _ = path.write_text("a0,b0,a1,b1,label\\n1,2,3,4,0\\n5,6,7,8,1\\n")
        ...     x, y = read_table(path, label_column="label", features=2)
        >>> x[0].tolist(), y.tolist()
        ([[1.0, 2.0], [3.0, 4.0]], [0.0, 1.0])
    """
    numbered_rows = _rows(path)
    if not numbered_rows:
        raise DataError(f"{path} must hold at least one row of numbers", received="an empty file")
    first = numbered_rows[0][1]
    names = first if header or (header is None and not any(map(_is_number, first))) else None
    if names is not None:
        numbered_rows = numbered_rows[1:]
        if not numbered_rows:
            raise DataError(f"{path} must hold at least one row of numbers", received="a header alone")
    width = len(first)
    values = np.array([_numbers(path, line, row, width) for line, row in numbered_rows], np.float64)
    column = _column(path, label_column, names, width)
    others = np.delete(values, column, axis=1)
    if others.shape[1] == 0 or others.shape[1] % features:
        raise ArgumentError(
            f"features must divide the {others.shape[1]} columns of {path} beside the labels", received=features
        )
    return others.reshape(len(values), -1, features), values[:, column]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with its line number in the file."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would otherwise be part of the first cell.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"{path} must exist") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be comma-separated text in UTF-8", received=str(error)) from None
    except OSError as error:
        raise DataError(f"{path} must be readable", received=error.strerror or str(error)) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number; no table means that.


def _numbers(path: Path, line: int, row: list[str], width: int) -> list[float]:
    if len(row) != width:
        raise DataError(f"every row of {path} must have {width} cells like the first", f"{len(row)} in row {line}")
    for i, cell in enumerate(row):
        if not _is_number(cell):
            raise DataError(
                f"every cell of {path} must be a number",
                received=f"{cell!r} in row {line}, column {i + 1}",
                works="a header is a first row without any number, or is declared with header=True",
            )
    return [float(cell) for cell in row]


def _column(path: Path, wanted: str | int, names: list[str] | None, width: int) -> int:
    if isinstance(wanted, int):
        if not -width <= wanted < width:
            raise ArgumentError(
                f"label_column must be from {-width} to {width - 1}, the columns of {path}", received=wanted
            )
        return wanted % width
    if names is None:
        raise ArgumentError(
            f"label_column must be a number because {path} has no header", received=wanted, works="use -1 for the last"
        )
    if names.count(wanted) != 1:
        works = "give its number instead" if wanted in names else nearest(wanted, names)
        raise ArgumentError(f"label_column must name exactly one column of {path}", received=wanted, works=works)
    return names.index(wanted)
