"""Average pooling before a convolution or a dense layer: what is seen of a picture, and how strongly it drives.

That it is PyTorch's, and that rules, samplers and devices take it, is in test_convolution.py and its networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neko_rules import LIF, Connection, Convolution, PooledDense
from neko_rules.backend import get_backend
from neko_rules.errors import ArgumentError


@pytest.mark.parametrize("made", [Convolution, PooledDense])
def test_of_what_is_pooled_only_means_are_seen(made: Any) -> None:
    """And nothing of a row and a column that fill no patch; a pool of one is none."""
    nx, (r, c) = get_backend("numpy"), np.indices((5, 5))
    flat, board = np.ones(25), (-1.0) ** (r + c).ravel()
    edge = np.maximum(r, c).ravel() == 4
    for pool in (1, 2):
        chosen = made((5, 5), 3, pool=pool) if made is PooledDense else made((5, 5), 3, window=2, pool=pool)
        weights = np.random.default_rng(5).standard_normal(chosen.weight_shape)
        matrix = chosen.sharing().spread(nx, weights)
        np.testing.assert_allclose(flat @ matrix, np.repeat(weights.sum(axis=0), chosen.neurons // 3), rtol=1e-12)
        found = np.abs(board @ matrix).max(), np.abs(matrix[edge]).max()
        assert max(found) < 1e-12 if pool == 2 else min(found) > 0.1


@pytest.mark.parametrize(
    "made",
    [lambda pool: Convolution((12, 12), 64, 3, channels=2, pool=pool), lambda pool: PooledDense((12, 12), 64, pool)],
)
def test_first_weights_drive_as_much_of_independent_sources_as_without_pooling(made: Any) -> None:
    """The variance of the summed input of sources of variance 1 is Σ_i W_ij²: that of ``scaled_normal`` is 1."""
    for pool in (1, 2, (1, 3)):
        connection = Connection("a", "b", connectivity=made(pool))
        sources, targets = connection.sharing.ends
        weights = connection.drawn(np.random.default_rng(6), sources, targets)
        matrix = connection.sharing.spread(get_backend("numpy"), weights)
        # Five standard deviations of the mean of as many squares of normal numbers as there are weights.
        assert abs((matrix**2).sum(axis=0).mean() - 1) < 5 * np.sqrt(2 / weights.size)
        given = {"name": "constant", "value": 0.3}
        same = Connection("a", "b", connectivity=made(pool), initializer=given)
        assert (same.drawn(np.random.default_rng(6), sources, targets) == 0.3).all(), "as it says, whatever is pooled"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution((8, 8), 2, pool=0), "pool must be a whole number of at least 1"),
        (lambda: Convolution((8, 8), 2, pool=2), r"on \(8, 8\) pixels pooled by \(2, 2\): a window must fit into"),
        (lambda: Convolution((8, 8), 2, pool=(1, 9)), "what is pooled together must fit into the picture"),
        (lambda: PooledDense((8, 8), 2, pool=9), "what is pooled together must fit into the picture"),
        (lambda: PooledDense((8, 8), 0), "neurons"),
        (
            lambda: LIF(8, 2, inputs=16, readout_connectivity=PooledDense((2, 2), 3, channels=2)),
            "leads from 8 to 3 neurons .*from 8 to 2",
        ),
    ],
)
def test_what_cannot_be_pooled_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
