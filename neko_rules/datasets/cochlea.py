"""A cochlea: gammatone filters, half-wave rectification, the mean of a frame, and compression by a power.

    b_c(t) = (h_c * x)(t)                      h_c(t) ∝ t³ e^(-2π 1.019 ERB(f_c) t) cos(2π f_c t), gain 1 at f_c
    y_tc = (mean over frame t of max(0, b_c))^0.3
    ERB(f) = 24.7 (4.37 f/1000 + 1)            the width of the ear's filter at f, in Hz

The centre frequencies f_c are equally spaced in the number of such widths below them,
E(f) = 21.4 log10(1 + 4.37 f/1000).
"""

from __future__ import annotations

import numpy as np

from neko_rules.datasets.frames import frames

COMPRESSION = 0.3
"""Exponent that stands for the compression of the basilar membrane and the auditory nerve, dimensionless."""


def centre_frequencies(channels: int, lowest: float, highest: float) -> np.ndarray:
    """Frequencies in Hz from the lowest to the highest, equally spaced for the ear; of one channel, halfway.

    References:
        B. R. Glasberg & B. C. J. Moore (1990), "Derivation of auditory filter shapes from notched-noise data", Hearing
        Research 47, 103-138, equations 3 and 4.

    Example:
        >>> centre_frequencies(3, 100.0, 3800.0).round().tolist()
        [100.0, 922.0, 3800.0]
    """
    ends = 21.4 * np.log10(1 + 4.37e-3 * np.array([lowest, highest]))
    spaced = np.linspace(ends[0], ends[1], channels) if channels > 1 else ends.mean(keepdims=True)
    return (10 ** (spaced / 21.4) - 1) / 4.37e-3


def gammatone_filters(frequencies: np.ndarray, sample_rate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of one recursive filter of order eight for each centre frequency in Hz.

    References:
        M. Slaney (1993), "An efficient implementation of the Patterson-Holdsworth auditory filter bank", Apple
        Computer Technical Report 35, as implemented by ``scipy.signal.gammatone``.

    Example:
        >>> [(numerator, denominator)] = gammatone_filters(np.array([1000.0]), 8000)
        >>> len(numerator), len(denominator)
        (5, 9)
    """
    from scipy.signal import gammatone

    return [gammatone(float(f), "iir", fs=sample_rate) for f in frequencies]


def cochleagram(sound: np.ndarray, filters: list[tuple[np.ndarray, np.ndarray]], frame: int, hop: int) -> np.ndarray:
    """Compressed means y, [frames, channels], of frames of so many samples, one every ``hop`` samples.

    Example:
        >>> time = np.arange(4000) / 8000
        >>> filters = gammatone_filters(centre_frequencies(3, 100.0, 3800.0), 8000)
        >>> cochleagram(np.sin(2 * np.pi * 922 * time), filters, frame=200, hop=80)[20].round(2).tolist()
        [0.02, 0.71, 0.12]
    """
    from scipy.signal import lfilter

    moving = np.stack([lfilter(numerator, denominator, sound) for numerator, denominator in filters])
    return frames(np.maximum(moving, 0), frame, hop).mean(axis=-1).T ** COMPRESSION
