"""Patches: windows of pictures side by side, means of patches, and what comes back scattered onto the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from neko_rules.kernels.compiling import kernel
from neko_rules.kernels.host import BUFFERS
from neko_rules.kernels.parallel import each
from neko_rules.threads import parts

Array = Any
"""An array in C order."""


def cut(sent: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``sent[row, index[n]]``, [row, n]; 0 where the index is the number of sources.

    Example:
        >>> cut(np.array([[5.0, 7.0]]), np.array([1, 0, 2], np.int32))
        array([[7., 5., 0.]])
    """
    into = BUFFERS.empty((len(sent), len(index)), sent.dtype)
    each(lambda _, first, last: _cut(first, last, sent, index, into), parts(len(sent), into.size))
    return into


def scattered(patches: np.ndarray, index: np.ndarray, sources: int) -> np.ndarray:
    """``Σ_n patches[row, n]`` over the n whose index is a source, [row, source].

    Example:
        >>> scattered(np.array([[1.0, 10.0, 100.0]]), np.array([1, 1, 2], np.int32), sources=2)
        array([[ 0., 11.]])
    """
    into = BUFFERS.empty((len(patches), sources), patches.dtype)
    each(lambda _, first, last: _scatter(first, last, patches, index, into), parts(len(patches), patches.size))
    return into


def averaged(sent: np.ndarray, shape: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The means of disjoint patches of pictures, [row, pixel of the smaller pictures].

    Args:
        sent: [row, pixel].
        shape: pictures, rows and columns.
        size: rows and columns of a patch.

    Example:
        >>> averaged(np.array([[1.0, 2.0, 9.0, 5.0, 6.0, 9.0]]), (1, 2, 3), (2, 2))
        array([[3.5]])
    """
    many, rows, columns = shape[0], shape[1] // size[0], shape[2] // size[1]
    into = BUFFERS.empty((len(sent), many * rows * columns), sent.dtype)
    each(lambda _, first, last: _average(first, last, sent, into, shape, size), parts(len(sent), sent.size))
    return into


def shared_out(errors: np.ndarray, shape: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The transposed: to every pixel its part of the error of its mean, [row, pixel].

    Example:
        >>> shared_out(np.array([[8.0]]), (1, 2, 3), (2, 2))
        array([[2., 2., 0., 2., 2., 0.]])
    """
    into = BUFFERS.empty((len(errors), shape[0] * shape[1] * shape[2]), errors.dtype)
    each(lambda _, first, last: _share_out(first, last, errors, into, shape, size), parts(len(errors), into.size))
    return into


@kernel
def _average(first: int, last: int, sent: Array, into: Array, shape: Any, size: Any) -> None:
    high, wide = size
    rows, columns = shape[1] // high, shape[2] // wide
    part = into.dtype.type(1 / (high * wide))
    for r in range(first, last):
        row, found, at = sent[r], into[r], 0
        for picture in range(shape[0]):
            for i in range(rows):
                begin = (picture * shape[1] + i * high) * shape[2]
                for j in range(columns):
                    total = into.dtype.type(0)
                    for down in range(high):
                        for across in range(wide):
                            total += row[begin + down * shape[2] + j * wide + across]
                    found[at] = part * total
                    at += 1


@kernel
def _share_out(first: int, last: int, errors: Array, into: Array, shape: Any, size: Any) -> None:
    high, wide = size
    rows, columns = shape[1] // high, shape[2] // wide
    part = into.dtype.type(1 / (high * wide))
    for r in range(first, last):
        row, found, at = errors[r], into[r], 0
        for picture in range(shape[0]):
            for i in range(shape[1]):
                before = (picture * rows + i // high) * columns
                for j in range(columns if i // high < rows else 0):
                    error = part * row[before + j]
                    for across in range(wide):
                        found[at + j * wide + across] = error
                for j in range(columns * wide if i // high < rows else 0, shape[2]):
                    found[at + j] = 0
                at += shape[2]


@kernel
def _cut(first: int, last: int, sent: Array, index: Array, into: Array) -> None:
    sources = sent.shape[1]
    for r in range(first, last):
        row, found = sent[r], into[r]
        for n in range(index.shape[0]):
            source = index[n]
            if source < sources:
                found[n] = row[source]
            else:
                found[n] = 0


@kernel
def _scatter(first: int, last: int, patches: Array, index: Array, into: Array) -> None:
    sources = into.shape[1]
    for r in range(first, last):
        row, found = patches[r], into[r]
        for source in range(sources):
            found[source] = 0
        for n in range(index.shape[0]):
            source = index[n]
            if source < sources:
                found[source] += row[n]
