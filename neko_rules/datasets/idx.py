"""IDX files: the gzip-compressed arrays of bytes in which MNIST and its relatives are published.

The format (LeCun, Cortes & Burges, "The MNIST database of handwritten digits"): two zero bytes, a type code, the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from neko_rules.errors import DataError

UNSIGNED_BYTE = 0x08
"""The only type code that MNIST uses."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of a gzip-compressed IDX file as a uint8 array.

    Args:
        path: the file.
        dimensions: how many dimensions its array must have (3 for images, 1 for labels).

    Raises:
        DataError: the file is missing, is not gzip, is cut, is not IDX, or holds fewer or more values than it declares.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.gz"
        ...     _ = path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([5, 0, 4])))
        ...     read_idx(path, dimensions=1)
        array([5, 0, 4], dtype=uint8)
    """
    return parse_idx(_uncompressed(path), dimensions, str(path))


def parse_idx(content: bytes, dimensions: int, name: str) -> np.ndarray:
    """The array in the uncompressed content of an IDX file; ``name`` is what errors call it.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]), 1, "labels")
        array([5, 0, 4], dtype=uint8)
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5]), 1, "labels")
        Traceback (most recent call last):
        neko_rules.errors.DataError: labels must hold the 3 values of its shape [3] (received: 1 of them); the file is
        cut, so fetch it again.
    """
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise DataError(
            f"{name} must be an IDX file of bytes with {dimensions} dimension(s), which begins with {magic.hex()}",
            received=content[:4].hex() or "an empty file",
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{name} must begin with a header of {start} bytes", received=f"{len(content)} bytes in all")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=dimensions, offset=4))
    expected, found = math.prod(shape), len(content) - start
    if found != expected:
        said = f"{found} of them" if found < expected else f"{found - expected} bytes too many"
        works = "the file is cut, so fetch it again" if found < expected else "fetch the file again"
        raise DataError(f"{name} must hold the {expected} values of its shape {list(shape)}", said, works)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _uncompressed(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{path} must exist", works="put the file there") from None
    except EOFError:
        raise DataError(
            f"{path} must be a whole gzip file", received="one that ends early", works="fetch it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} must be an undamaged gzip file", received=str(error), works="fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} must be readable", received=error.strerror or str(error)) from None
