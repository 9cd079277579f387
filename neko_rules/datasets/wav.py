"""WAV files: one channel of 16-bit samples at a known rate, as numbers from -1 to 1."""

from __future__ import annotations

import io
import wave

import numpy as np

from neko_rules.errors import DataError


def parse_wav(content: bytes, sample_rate: int, name: str) -> np.ndarray:
    """The samples in the content of a WAV file, float64 in [-1, 1); ``name`` is what errors call it.

    Args:
        content: the file.
        sample_rate: what the file must have, in Hz.
        name: of the file.

    Raises:
        DataError: the content is no WAV file, is cut, is empty, or has other channels, sample sizes or rates.

    Example:
        >>> file = io.BytesIO()
        >>> with wave.open(file, "wb") as recording:
        ...     recording.setparams((1, 2, 8000, 0, "NONE", ""))
        ...     recording.writeframes(np.array([0, 16384, -32768], "<i2").tobytes())
        >>> parse_wav(file.getvalue(), 8000, "three.wav").tolist()
        [0.0, 0.5, -1.0]
        >>> parse_wav(file.getvalue()[:-1], 8000, "three.wav")
        Traceback (most recent call last):
        neko_rules.errors.DataError: three.wav must hold the 3 samples that it declares (received: 5 of 6 bytes); the
        file is cut, so fetch it again.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, size, rate, declared = file.getparams()[:4]
            samples = file.readframes(declared)
    except (wave.Error, EOFError) as error:
        raise DataError(
            f"{name} must be a whole WAV file of uncompressed samples", received=str(error) or "one that ends early"
        ) from None
    if (channels, size, rate) != (1, 2, sample_rate):
        raise DataError(
            f"{name} must hold one channel of 16-bit samples at {sample_rate} Hz",
            received=f"{channels} channel(s) of {8 * size}-bit samples at {rate} Hz",
        )
    if len(samples) != 2 * declared:
        raise DataError(
            f"{name} must hold the {declared} samples that it declares",
            received=f"{len(samples)} of {2 * declared} bytes",
            works="the file is cut, so fetch it again",
        )
    if declared == 0:
        raise DataError(f"{name} must hold at least one sample", received="none")
    return np.frombuffer(samples, "<i2").astype(np.float64) / 2**15
