"""float32: normals and elementary functions in arithmetic alone, so that loops vectorise.

A call into libm would stop the vectoriser. Polynomials after Cephes (S. Moshier) in single
precision; error bounds are tested in ulps.
"""

import math

import numpy as np

real = np.float32
ROUND = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer
ROUND_BITS = np.int32(0x4B400000)
LN2 = np.float32(0.6931471805599453)
HALF_TURN = np.float32(math.pi * 2.0**-32)
SIGN = np.uint32(0x80000000)


def log_parts(x):
    """``log(m) `` and e with x = m 2**e, sqrt(1/2) <= m < sqrt(2), for positive normal x."""
    bits = np.float32(x).view(np.int32)
    e = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32) - real(1)
    z = f * f
    y = real(7.0376836292e-2)
    y = y * f - real(1.1514610310e-1)
    y = y * f + real(1.1676998740e-1)
    y = y * f - real(1.2420140846e-1)
    y = y * f + real(1.4249322787e-1)
    y = y * f - real(1.6668057665e-1)
    y = y * f + real(2.0000714765e-1)
    y = y * f - real(2.4999993993e-1)
    y = y * f + real(3.3333331174e-1)
    return y * f * z - real(0.5) * z + f, real(e)


def sine_cosine(t):
    """sin t and cos t for |t| <= pi/4."""
    z = t * t
    s = (real(-1.9515295891e-4) * z + real(8.3321608736e-3)) * z - real(1.6666654611e-1)
    c = (real(2.443315711809948e-5) * z - real(1.388731625493765e-3)) * z
    c = c + real(4.166664568298827e-2)
    return t + t * z * s, real(1) - real(0.5) * z + z * z * c


def half_turn(t):
    """sin t and cos t for |t| <= pi/2, within 6e-8 (minimax)."""
    z = t * t
    s = real(2.6052249213065206e-6) * z - real(1.98090752938704691e-4)
    s = (s * z + real(8.33305106348305089e-3)) * z - real(1.66666579919169388e-1)
    s = (s * z + real(0.999999995732819849)) * t
    c = real(2.31943867279537685e-5) * z - real(1.38559271957591728e-3)
    c = (c * z + real(4.16639894564809946e-2)) * z - real(0.499999322931311567)
    return s, c * z + real(1)


def normal_pair(w0, w1):
    """Two standard normals from two 32-bit words (Box-Muller, both outputs).

    ``sqrt(-2 ln u) (cos a, sin a)`` with a = 2 pi w1/2**32: half a turn is computed, the other
    half is its negative, which the two upper bits tell. The radius has a 32-bit uniform in (0, 1],
    so |z| <= sqrt(2 * 33 ln 2) = 6.76.
    """
    log_m, e = log_parts((real(w0) + real(0.5)) * real(2.0**-32))
    radius = real(math.sqrt(real(-2) * (log_m + e * LN2)))
    doubled = np.uint32(w1 << np.uint32(1))
    s, c = half_turn(real(np.uint32(doubled).view(np.int32)) * HALF_TURN)
    sign = np.uint32(np.uint32(w1 ^ doubled) & SIGN)
    radius = np.uint32(np.uint32(np.float32(radius).view(np.uint32)) ^ sign).view(np.float32)
    return radius * c, radius * s


def power_of_two(n):
    """2**n for an integer -126 <= n <= 127."""
    return np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def exp(x):
    """Exponential; 0 below -104, inf above 89."""
    x = real(89) if x > real(89) else x
    x = real(-104) if x < real(-104) else x
    shifted_n = x * real(1.44269504088896341) + ROUND
    n = np.int32(np.float32(shifted_n).view(np.int32) - ROUND_BITS)
    k = shifted_n - ROUND
    r = x - k * real(0.693359375)
    r = r + k * real(2.12194440e-4)
    y = real(1.9875691500e-4)
    y = y * r + real(1.3981999507e-3)
    y = y * r + real(8.3334519073e-3)
    y = y * r + real(4.1665795894e-2)
    y = y * r + real(1.6666665459e-1)
    y = y * r + real(5.0000001201e-1)
    y = y * (r * r) + r + real(1)
    half = np.int32(n >> np.int32(1))
    return y * power_of_two(half) * power_of_two(np.int32(n - half))


def log(x):
    """Natural logarithm; -inf at 0, NaN below."""
    tiny = x < real(1.17549435e-38)
    log_m, e = log_parts(x * real(8388608.0) if tiny else x)
    e = e - real(23) if tiny else e
    y = log_m + e * real(-2.12194440e-4)
    y = y + e * real(0.693359375)
    y = y if x > real(0) else (real(-math.inf) if x == real(0) else real(math.nan))
    return y if x < real(math.inf) else x


def circular(x):
    """sin and cos of x reduced by pi/2 in three parts; accurate for |x| < 8000."""
    shifted_n = x * real(0.636619772367581343) + ROUND
    n = np.int32(np.float32(shifted_n).view(np.int32) - ROUND_BITS)
    k = shifted_n - ROUND
    r = x - k * real(1.5703125)
    r = r - k * real(4.837512969970703125e-4)
    r = r - k * real(7.549789948768648e-8)
    r = real(0.8) if r > real(0.8) else r  # beyond the range: inaccurate, still bounded
    r = real(-0.8) if r < real(-0.8) else r
    s, c = sine_cosine(r)
    return s, c, n


def sin(x):
    """Sine."""
    s, c, n = circular(x)
    y = c if (n & np.int32(1)) != np.int32(0) else s
    return -y if (n & np.int32(2)) != np.int32(0) else y


def cos(x):
    """Cosine."""
    s, c, n = circular(x)
    y = s if (n & np.int32(1)) != np.int32(0) else c
    return -y if (np.int32(n + np.int32(1)) & np.int32(2)) != np.int32(0) else y


def tanh(x):
    """Hyperbolic tangent."""
    a = abs(x)
    z = x * x
    y = real(-5.70498872745e-3)
    y = y * z + real(2.06390887954e-2)
    y = y * z - real(5.37397155531e-2)
    y = y * z + real(1.33314422036e-1)
    y = y * z - real(3.33332819422e-1)
    small = y * z * x + x
    a = real(10) if a > real(10) else a
    large = real(1) - real(2) / (exp(a + a) + real(1))
    large = -large if x < real(0) else large
    y = small if z < real(0.390625) else large
    return y if x == x else x


def sqrt(x):
    """Square root; NaN below 0."""
    return real(math.sqrt(x))


def sign(x):
    """-1, 0 or 1."""
    return real(1) if x > real(0) else (real(-1) if x < real(0) else x * real(0))
