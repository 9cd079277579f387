"""Smooth random manifolds: random functions of a few intrinsic coordinates, one for each unit that is embedded in.

Unit u sees a point x in [0, 1]^D of the manifold's intrinsic coordinates as

    f_u(x) = Π_d g_ud(x_d)        g_ud(x) = Σ_k  a_udk / (1 + (k+1)^α) · sin(2π (k b_udk x + c_udk)),   k = 1 … K-1

with a, b and c uniform in [0, 1), and K = ⌈1000^(1/α)⌉, at most 1000: modes weaker than a thousandth are left out. The
smoothness α is the fall-off of the spectrum. Every unit is brought to [0, 1] by the smallest and the largest value that
it takes on ``NORMALISING_POINTS`` random points of the manifold; the few points beyond are clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRECISION = 1e-3
"""Modes of a smaller amplitude than this, relative to the first, are left out."""

MOST_MODES = 1000
"""Modes are left out from here on, whatever their amplitude."""

NORMALISING_POINTS = 1000
"""Random points of the manifold that decide what becomes 0 and what becomes 1."""

HALF_WIDTH = 13
"""Grid points to each side that a Gaussian of the fast sum reaches: the relative error is e^(-π 13/√2), 3e-13."""


def modes(smoothness: float) -> int:
    """K, the number of modes, of which the constant one (k = 0) has no amplitude.

    Example:
        >>> modes(1.0), modes(2.0), modes(3.0)
        (1000, 32, 10)
    """
    return int(min(np.ceil(np.power(PRECISION, -1 / smoothness)), MOST_MODES))


@dataclass(frozen=True)
class RandomManifold:
    """One random manifold, normalised.

    Attributes:
        amplitudes: a_udk / (1 + (k+1)^α) for k = 1 … K-1, [units, dimension, K-1], dimensionless.
        frequencies: k b_udk, likewise, in cycles per unit of the intrinsic coordinate.
        phases: c_udk, likewise, in cycles.
        lowest: value of each unit that becomes 0, [units].
        highest: value of each unit that becomes 1, [units].

    References:
        F. Zenke & T. P. Vogels (2021), "The remarkable robustness of surrogate gradient learning for instilling complex
        function in spiking neural networks", Neural Computation 33(4), 899-925; spectrum, number of modes and the
        missing constant mode are those of the authors' published program, which normalises the very examples that it
        returns: there, what a unit does at a point of the manifold depends on which other points were drawn.

    Example:
        >>> manifold = RandomManifold.drawn(np.random.default_rng(0), units=5, dimension=2, smoothness=2.0)
        >>> manifold(np.array([[0.1, 0.9], [0.5, 0.5], [0.2, 0.3]])).shape
        (3, 5)
    """

    amplitudes: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def drawn(cls, random: np.random.Generator, units: int, dimension: int, smoothness: float) -> RandomManifold:
        """A manifold with the parameters that the generator draws."""
        k = np.arange(1, modes(smoothness))
        a, b, c = random.random((3, units, dimension, len(k)))
        points = random.random((NORMALISING_POINTS, dimension))
        amplitudes, frequencies = a / (1 + (k + 1.0) ** smoothness), k * b
        values = _products(amplitudes, frequencies, c, points)
        return cls(amplitudes, frequencies, c, values.min(axis=0), values.max(axis=0))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The units' values in [0, 1], [points, units], at intrinsic coordinates [points, dimension] in [0, 1]."""
        values = _products(self.amplitudes, self.frequencies, self.phases, points)
        return np.clip((values - self.lowest) / (self.highest - self.lowest), 0, 1)


def _products(amplitudes: np.ndarray, frequencies: np.ndarray, phases: np.ndarray, points: np.ndarray) -> np.ndarray:
    """f_u(x), [points, units]."""
    values = np.ones((len(points), len(amplitudes)))
    for d in range(points.shape[1]):
        values *= sums_of_sines(amplitudes[:, d], frequencies[:, d], phases[:, d], points[:, d])
    return values


def sums_of_sines(amplitudes: np.ndarray, frequencies: np.ndarray, phases: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Σ_k A_uk sin(2π (f_uk x_n + c_uk)), [points, units], for x in [0, 1], to a relative error of about 1e-12.

    A sum over thousands of sines at thousands of points takes seconds per manifold if it is done term by term. Here
    every frequency is spread over a grid by a Gaussian, an FFT gives values on a grid of x, and a second Gaussian
    brings them to the points; what the Gaussians do is divided out, exactly known, on the other side of the FFT.

    References:
        L. Greengard & J.-Y. Lee (2004), "Accelerating the nonuniform fast Fourier transform", SIAM Review 46(3),
        443-454; J.-Y. Lee & L. Greengard (2005), "The type 3 nonuniform FFT and its applications", Journal of
        Computational Physics 206(1), 1-5.

    Example:
        >>> x = np.array([0.0, 0.25, 0.9])
        >>> sums_of_sines(np.array([[2.0]]), np.array([[3.0]]), np.array([[0.25]]), x).round(9)[:, 0].tolist()
        [2.0, 0.0, -0.618033989]
    """
    from scipy.fft import next_fast_len
    from scipy.sparse import csr_array

    # Both variables centred: s = x - 1/2 and ν = f - F/2, so that e^(2πi f x) = e^(πi f) e^(πi F s) e^(2πi ν s).
    band = float(frequencies.max(initial=1.0))
    s, nu = x - 0.5, frequencies - band / 2
    # Grid spacings, each twice as fine as the other side's extent asks for, which includes the reach of a Gaussian.
    spacing_s, spacing_nu = 0.5 / band, 0.5
    for _ in range(50):
        spacing_s = 0.5 / (band + 2 * HALF_WIDTH * spacing_nu)
        spacing_nu = 0.5 / (1 + 2 * HALF_WIDTH * spacing_s)
    size = next_fast_len(int(np.ceil(1 / (spacing_s * spacing_nu))))
    spacing_nu = 1 / (size * spacing_s)

    # In grid points: the Gaussian's truncation and its aliases then make equal errors.
    deviation = np.sqrt(HALF_WIDTH / (np.pi * np.sqrt(2)))
    weights = (
        amplitudes * np.exp(2j * np.pi * (phases + frequencies / 2)) / _gaussian_transform(nu, deviation, spacing_s)
    )
    spread = np.zeros((len(amplitudes), size), complex)
    place, gaussians = _gaussians(nu / spacing_nu, deviation)
    for unit, (row, columns) in enumerate(zip(weights, place, strict=True)):
        spike = (row[:, None] * gaussians[unit]).ravel()
        spots = (columns % size).ravel()
        spread[unit] = np.bincount(spots, spike.real, size) + 1j * np.bincount(spots, spike.imag, size)
    on_grid = np.fft.ifft(spread, axis=1) * size

    index = np.fft.fftfreq(size, 1 / size)
    on_grid /= _gaussian_transform(index * spacing_s, deviation, spacing_nu)
    place, gaussians = _gaussians(s / spacing_s, deviation)
    rows = np.arange(len(x) + 1) * place.shape[1]
    interpolation = csr_array((gaussians.ravel(), (place % size).ravel(), rows), shape=(len(x), size))
    values = interpolation @ on_grid.T
    return np.imag(np.exp(1j * np.pi * band * s)[:, None] * values)


def _gaussians(position: np.ndarray, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """The grid points around each position, and the values of a Gaussian at the position there."""
    place = np.rint(position).astype(np.int64)[..., None] + np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    return place, np.exp(-0.5 * ((place - position[..., None]) / deviation) ** 2)


def _gaussian_transform(frequency: np.ndarray, deviation: float, spacing: float) -> np.ndarray:
    """Σ over a grid of that spacing of a Gaussian times e^(2πi · frequency · grid point)."""
    return np.sqrt(2 * np.pi) * deviation * np.exp(-2 * (np.pi * deviation * spacing * frequency) ** 2)
