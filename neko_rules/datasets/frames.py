"""Frames: a signal cut into equally long pieces that may overlap, the last one filled up with zeros."""

from __future__ import annotations

import numpy as np


def frame_count(samples: int, frame: int, hop: int) -> int:
    """How many frames it takes until every sample is in one.

    Example:
        >>> frame_count(10, frame=4, hop=2), frame_count(11, frame=4, hop=2), frame_count(1, frame=4, hop=2)
        (4, 5, 1)
    """
    return 1 + max(0, -(-(samples - frame) // hop))


def frames(signal: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Pieces of a signal [..., samples] as [..., frames, frame]; a view where nothing had to be filled up.

    Example:
        >>> frames(np.arange(1, 6), frame=4, hop=2).tolist()
        [[1, 2, 3, 4], [3, 4, 5, 0]]
    """
    missing = (frame_count(signal.shape[-1], frame, hop) - 1) * hop + frame - signal.shape[-1]
    if missing > 0:
        signal = np.concatenate([signal, np.zeros((*signal.shape[:-1], missing), signal.dtype)], axis=-1)
    return np.lib.stride_tricks.sliding_window_view(signal, frame, axis=-1)[..., ::hop, :]
