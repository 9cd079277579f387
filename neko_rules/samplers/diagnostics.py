"""Diagnostics: R-hat, effective sample size and Monte-Carlo standard error of draws [chains, draws, …].

    R̂   = √(var⁺ / W),   var⁺ = (n - 1)/n W + B/n         W within, B between chains, each chain split in two
    ESS = m n / τ,        τ = -1 + 2 Σ_k P_k,   P_k = ρ_2k + ρ_2k+1    summed while positive, made falling (Geyer 1992)
    ρ_t = 1 - (W - mean_m c_t) / var⁺                                  c_t the autocovariance of a chain

R-hat and bulk ESS are of ranks, turned into normal scores, so that heavy tails do not matter, and R-hat also of the
distance from the median; tail ESS is the smaller of those of the 5 % and 95 % quantiles. These are the definitions that
ArviZ and Stan use, kept here so that NumPy and SciPy suffice.

Reference: A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, Bayesian Analysis 16:667, 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neko_rules.errors import DataError


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat, over the first two axes [chains, draws]; NaN if nothing moves.

    Example: chains that agree, and chains that do not.

        >>> rng = np.random.default_rng(0)
        >>> same = rng.normal(size=(4, 500))
        >>> bool(r_hat(same) < 1.01), bool(r_hat(same + np.arange(4)[:, None]) > 1.2)
        (True, True)
    """

    def one(chains: np.ndarray) -> float:
        halves = _split(chains)
        folded = np.abs(halves - np.median(halves))
        return max(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))

    return _each(draws, one)


def ess_bulk(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the ranks: how many independent draws would tell as much of the centre.

    Example:
        >>> bool(ess_bulk(np.random.default_rng(0).normal(size=(4, 500))) > 1500)
        True
    """
    return _each(draws, lambda chains: _ess(_normal_scores(_split(chains))))


def ess_mean(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean of the values themselves."""
    return _each(draws, lambda chains: _ess(_split(chains)))


def ess_tail(draws: np.ndarray) -> np.ndarray:
    """The smaller of the effective sample sizes of the 5 % and the 95 % quantile."""

    def one(chains: np.ndarray) -> float:
        if np.isnan(chains).any():
            return float("nan")
        limits = np.quantile(chains, [0.05, 0.95])
        return min(_ess(_split((chains <= limit).astype(np.float64))) for limit in limits)

    return _each(draws, one)


def mcse_mean(draws: np.ndarray) -> np.ndarray:
    """Monte-Carlo standard error of the mean: standard deviation / √ESS.

    Example:
        >>> error = mcse_mean(np.random.default_rng(0).normal(size=(4, 500)))
        >>> bool(abs(error * np.sqrt(2000) - 1) < 0.2)
        True
    """
    return np.std(np.asarray(draws, np.float64), axis=(0, 1), ddof=1) / np.sqrt(ess_mean(draws))


def _each(draws: np.ndarray, function: Callable[[np.ndarray], float]) -> np.ndarray:
    """A function of [chains, draws] over every further index."""
    draws = np.asarray(draws, np.float64)
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise DataError(
            "diagnostics need draws of shape [chains, draws, …] with at least 4 draws", received=draws.shape
        )
    flat = draws.reshape(*draws.shape[:2], -1)
    found = np.array([function(flat[:, :, place]) for place in range(flat.shape[2])])
    return found.reshape(draws.shape[2:])


def _split(chains: np.ndarray) -> np.ndarray:
    """Every chain as two: [2 chains, draws // 2]; the middle draw of an odd number is left out."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _normal_scores(chains: np.ndarray) -> np.ndarray:
    """Φ⁻¹((r - 3/8) / (n + 1/4)) of the ranks r over all chains, ties sharing theirs (Blom 1958)."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(chains, method="average").reshape(chains.shape)
    return ndtri((ranks - 0.375) / (chains.size + 0.25))


def _r_hat(chains: np.ndarray) -> float:
    length = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    if not within > 0:
        return float("nan")
    between = chains.mean(axis=1).var(ddof=1)
    return float(np.sqrt((length - 1) / length + between / within))


def _ess(chains: np.ndarray) -> float:
    """m n / τ; the number of draws where nothing varies, which is as well known as can be."""
    number, length = chains.shape
    covariance = _autocovariance(chains)
    within = covariance[:, 0].mean() * length / (length - 1)
    pooled = covariance[:, 0].mean() + (chains.mean(axis=1).var(ddof=1) if number > 1 else 0.0)
    if not pooled > 0:
        return float(chains.size) if np.isfinite(pooled) else float("nan")
    correlation = 1 - (within - covariance.mean(axis=0)) / pooled
    correlation[0] = 1.0
    pairs = correlation[: 2 + max(0, (length - 3) // 2 * 2)].reshape(-1, 2).sum(axis=1)
    # The last lags are means over hardly any draws: the sum ends there at the latest.
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs) - 1
    falling = np.minimum.accumulate(pairs[:stop])
    # The first term of the pair that ends the sum still counts if it is positive: it lowers bias for antithetic chains.
    rest = max(correlation[2 * stop], 0.0)
    tau = max(-1 + 2 * falling.sum() + rest, 1 / np.log10(chains.size))
    return float(chains.size / tau)


def _autocovariance(chains: np.ndarray) -> np.ndarray:
    """Σ_i (x_i - x̄)(x_{i+t} - x̄) / n at every lag t, by the fast Fourier transform: [chains, lags]."""
    length = chains.shape[1]
    centred = chains - chains.mean(axis=1, keepdims=True)
    size = 1 << (2 * length - 1).bit_length()
    spectrum = np.fft.rfft(centred, size, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, :length] / length
