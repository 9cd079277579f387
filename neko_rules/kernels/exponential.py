"""Exponential: e^x, tanh x and ln x by arithmetic alone, so that a loop that calls them becomes vector code.

    e^x = 2^n e^r,             n = ⌊x/ln 2 + 1/2⌋,   |r| ≤ (ln 2)/2
    ln x = n ln 2 + ln(1 + r),   x = 2^n (1 + r),      √½ ≤ 1 + r < √2

The C library's functions are called number by number, which takes four times as long, for tanh ten times. e^r and
ln(1 + r) are polynomials in single and quotients of polynomials in double precision; coefficients and the quotient for
tanh are those of the Cephes library (S. L. Moshier, Methods and Programs for Mathematical Functions, 1989). Errors stay
below two units in the last place. What is smaller than the smallest normal number is zero.
"""

from __future__ import annotations

import numpy as np
from numpy import float32, float64, int32, int64

from neko_rules.kernels.compiling import within

_LOWEST32, _HIGHEST32 = float32(-87.33654), float32(88.72283)
_LOWEST64, _HIGHEST64 = -708.3964, 709.782712893384


@within
def exp_float32(x: float32) -> float32:
    """e^x."""
    # A comparison with NaN is false: it takes a bound here and comes back at the end.
    y = x if x < _HIGHEST32 else _HIGHEST32
    y = y if y > _LOWEST32 else _LOWEST32
    n = np.floor(y * float32(1.44269504088896341) + float32(0.5))
    # ln 2 in two parts, of which the first has so few digits that its product with n is exact.
    r = (y - n * float32(0.693359375)) - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4) * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    power = (p * (r * r) + r) + float32(1)
    # 2^n in two factors: it alone may be too large a number.
    k = int32(n)
    half = k >> int32(1)
    first = int32((half + int32(127)) << int32(23)).view(float32)
    second = int32((k - half + int32(127)) << int32(23)).view(float32)
    power = (power * first) * second
    power = power if x >= _LOWEST32 else float32(0)
    power = power if x <= _HIGHEST32 else float32(np.inf)
    return power if x == x else x


@within
def exp_float64(x: float64) -> float64:
    """e^x."""
    y = x if x < _HIGHEST64 else _HIGHEST64
    y = y if y > _LOWEST64 else _LOWEST64
    n = np.floor(y * 1.4426950408889634074 + 0.5)
    r = (y - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6
    s = r * r
    p = r * ((1.26177193074810590878e-4 * s + 3.02994407707441961300e-2) * s + 9.99999999999999999910e-1)
    q = ((3.00198505138664455042e-6 * s + 2.52448340349684104192e-3) * s + 2.27265548208155028766e-1) * s + 2.0
    power = 1.0 + 2.0 * (p / (q - p))
    k = int64(int32(n))
    half = k >> int64(1)
    first = int64((half + int64(1023)) << int64(52)).view(float64)
    second = int64((k - half + int64(1023)) << int64(52)).view(float64)
    power = (power * first) * second
    power = power if x >= _LOWEST64 else 0.0
    power = power if x <= _HIGHEST64 else np.inf
    return power if x == x else x  # type: ignore[return-value]


@within
def tanh_float32(x: float32) -> float32:
    """tanh x: x + x·polynomial(x²) near zero, 1 - 2/(e^{2|x|} + 1) with the sign of x elsewhere."""
    size = abs(x)
    s = x * x
    p = float32(-5.70498872745e-3) * s + float32(2.06390887954e-2)
    p = p * s + float32(-5.37397155531e-2)
    p = p * s + float32(1.33314422036e-1)
    p = p * s + float32(-3.33332819422e-1)
    near = x + x * (s * p)
    sign = float32(1) if x > 0 else float32(-1)
    far = sign * (float32(1) - float32(2) / (exp_float32(float32(2) * size) + float32(1)))
    return near if size < float32(0.625) else far


@within
def tanh_float64(x: float64) -> float64:
    """tanh x: x + x·quotient(x²) near zero, 1 - 2/(e^{2|x|} + 1) with the sign of x elsewhere."""
    size = abs(x)
    s = x * x
    p = (-9.64399179425052238628e-1 * s - 9.92877231001918586564e1) * s - 1.61468768441708447952e3
    q = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
    near = x + x * (s * (p / q))
    sign = 1.0 if x > 0 else -1.0
    far = sign * (1.0 - 2.0 / (exp_float64(2.0 * size) + 1.0))
    return near if size < 0.625 else far


_NORMAL32, _NORMAL64 = float32(1.17549435e-38), 2.2250738585072014e-308
"""The smallest numbers of full precision."""


@within
def log_float32(x: float32) -> float32:
    """ln x."""
    y = x if x >= _NORMAL32 else _NORMAL32
    bits = float32(y).view(int32)
    n = float32((bits >> int32(23)) - int32(126))
    m = int32((bits & int32(0x007FFFFF)) | int32(0x3F000000)).view(float32)
    low = m < float32(0.707106781186547524)
    n = n - float32(1) if low else n
    r = (m + m) - float32(1) if low else m - float32(1)
    s = r * r
    p = float32(7.0376836292e-2) * r + float32(-1.1514610310e-1)
    p = p * r + float32(1.1676998740e-1)
    p = p * r + float32(-1.2420140846e-1)
    p = p * r + float32(1.4249322787e-1)
    p = p * r + float32(-1.6668057665e-1)
    p = p * r + float32(2.0000714765e-1)
    p = p * r + float32(-2.4999993993e-1)
    p = p * r + float32(3.3333331174e-1)
    found = (r + ((p * r * s + n * float32(-2.12194440e-4)) - float32(0.5) * s)) + n * float32(0.693359375)
    found = found if x >= _NORMAL32 else float32(-np.inf)
    found = found if x <= float32(3.4028235e38) else float32(np.inf)
    return found if x >= float32(0) else float32(np.nan)


@within
def log_float64(x: float64) -> float64:
    """ln x."""
    y = x if x >= _NORMAL64 else _NORMAL64
    bits = float64(y).view(int64)
    n = float64((bits >> int64(52)) - int64(1022))
    m = int64((bits & int64(0x000FFFFFFFFFFFFF)) | int64(0x3FE0000000000000)).view(float64)
    low = m < 0.70710678118654752440
    n = n - 1.0 if low else n
    r = (m + m) - 1.0 if low else m - 1.0
    s = r * r
    p = 1.01875663804580931796e-4 * r + 4.97494994976747001425e-1
    p = p * r + 4.70579119878881725854
    p = p * r + 1.44989225341610930846e1
    p = p * r + 1.79368678507819816313e1
    p = p * r + 7.70838733755885391666
    q = r + 1.12873587189167450590e1
    q = q * r + 4.52279145837532221105e1
    q = q * r + 8.29875266912776603211e1
    q = q * r + 7.11544750618563894466e1
    q = q * r + 2.31251620126765340583e1
    found = (r + ((r * (s * (p / q)) - n * 2.121944400546905827679e-4) - 0.5 * s)) + n * 0.693359375
    found = found if x >= _NORMAL64 else float64(-np.inf)
    found = found if x <= 1.7976931348623157e308 else float64(np.inf)
    return found if x >= 0 else float64(np.nan)
