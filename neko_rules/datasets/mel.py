"""Log-mel spectrograms: the energy of a sound in bands that are equally wide to the ear, on a logarithmic scale.

    mel(f) = 2595 log10(1 + f / 700)
    P_t(f) = |Σ_n w_n x_{tH+n} e^(-2πi f n / r)|² / Σ_n w_n²       w a Hann window, H samples from frame to frame, r Hz
    E_tc = log(10⁻⁸ + Σ_f triangle_c(f) P_t(f))

Band c is a triangle in mel: 0 at the centre of band c-1, 1 at its own and 0 at that of band c+1.
"""

from __future__ import annotations

import numpy as np

from neko_rules.datasets.frames import frames
from neko_rules.errors import ArgumentError

FLOOR = 1e-8
"""Energy, relative to a constant signal of amplitude 1, that is added so that silence has a logarithm."""


def mel(frequency: np.ndarray | float) -> np.ndarray:
    """Frequencies in Hz on the mel scale, in the form of O'Shaughnessy (1987) that the HTK program uses.

    References:
        D. O'Shaughnessy (1987), Speech Communication: Human and Machine, Addison-Wesley, p. 150; S. Young et al.,
        The HTK Book, section 5.4.

    Example:
        >>> mel(np.array([0.0, 700.0, 1000.0])).round(1).tolist()
        [0.0, 781.2, 1000.0]
    """
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def mel_bands(channels: int, lowest: float, highest: float, points: int, sample_rate: int) -> np.ndarray:
    """The triangles at the frequencies of a real FFT of so many points, [frequencies, channels].

    Raises:
        ArgumentError: a band is so narrow that it holds no frequency of the FFT.

    Example:
        >>> bands = mel_bands(3, 100.0, 3800.0, points=512, sample_rate=8000)
        >>> bands.shape, bands.max(axis=0).round(2).tolist()
        ((257, 3), [1.0, 0.99, 1.0])
    """
    edges = np.linspace(mel(lowest), mel(highest), channels + 2)
    at = mel(np.fft.rfftfreq(points, 1 / sample_rate))[:, None]
    width = edges[1] - edges[0]
    bands = np.maximum(0, 1 - np.abs(at - edges[1:-1]) / width)
    if not bands.any(axis=0).all():
        raise ArgumentError(
            "channels must be few enough for every mel band to hold a frequency of the FFT",
            received=channels,
            works="use fewer channels or longer frames",
        )
    return bands


def log_mel(sound: np.ndarray, bands: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Log energies E, [frames, channels], of frames of so many samples, one every ``hop`` samples.

    Example:
        >>> time = np.arange(4000) / 8000
        >>> bands = mel_bands(20, 100.0, 3800.0, points=512, sample_rate=8000)
        >>> energies = log_mel(np.sin(2 * np.pi * 1000 * time), bands, frame=200, hop=80)
        >>> energies.shape, set(energies.argmax(axis=1)[:-1].tolist())
        ((49, 20), {8})
    """
    # Periodic: the window of a frame that is one of many.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    spectrum = np.fft.rfft(frames(sound, frame, hop) * window, 2 * (len(bands) - 1), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) / np.sum(window**2)
    return np.log(FLOOR + power @ bands)
