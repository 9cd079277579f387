"""Patches: the windows of pictures gathered side by side, and what comes back to them scattered onto the pictures."""

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
