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
HALF_PI_LOW = np.float32(-4.371139000186241e-08)
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


def nearest_power(x):
    """n (an integer) and r with x = n ln 2 + r, |r| <= ln(2)/2, for |x| <= 104."""
    shifted_n = x * real(1.44269504088896341) + ROUND
    k = shifted_n - ROUND
    r = x - k * real(0.693359375)
    r = r + k * real(2.12194440e-4)
    return np.int32(np.float32(shifted_n).view(np.int32) - ROUND_BITS), r


def small_expm1(r):
    """exp(r) - 1 for |r| <= ln(2)/2 (minimax)."""
    y = real(0.0013841008767485619) * r + real(0.008369368501007557)
    y = y * r + real(0.041668083518743515)
    y = y * r + real(0.16666515171527863)
    y = y * r + real(0.4999999403953552)
    return y * (r * r) + r


def exp(x):
    """Exponential; 0 below -104, inf above 89.

    The scale 2**(n - 1) leaves room for n = 128; where the result may be denormal, 2**64 more.
    """
    x = real(89.2) if x > real(89.2) else x
    x = real(-104) if x < real(-104) else x
    n, r = nearest_power(x)
    low = x < real(-80)
    bias = np.int32(190 << 23) if low else np.int32(126 << 23)
    scale = np.int32(np.int32(n << np.int32(23)) + bias).view(np.float32)
    y = (small_expm1(r) * real(2) + real(2)) * scale
    return y * real(2.0**-64) if low else y


def expm1(x):
    """``exp(x) - 1`` without cancellation near 0; -1 below -20, inf above 89."""
    x = real(89) if x > real(89) else x
    x = real(-20) if x < real(-20) else x
    n, r = nearest_power(x)
    half = power_of_two(np.int32(n - np.int32(1)))
    y = half * small_expm1(r) + (half - real(0.5))
    return y + y


def small_log1p(e):
    """``log(1 + e)`` for 0 <= e <= 1, as 2 atanh(e/(2 + e)) (minimax)."""
    t = (e + e) / (real(2) + e)
    z = t * t
    y = real(0.0005474499193951488) * z + real(0.0021873603109270334)
    y = y * z + real(0.012506796978414059)
    y = y * z + real(0.08333301544189453)
    return y * z * t + t


def half_hyperbolic(a):
    """``sinh(a)/2`` and ``cosh(a)/2`` for a >= 0: from n ln 2 and r by the addition theorem."""
    a = real(89.5) if a > real(89.5) else a
    n, r = nearest_power(a)
    z = r * r
    s = (real(0.00019973007147200406) * z + real(0.008333176374435425)) * z
    s = (s + real(0.1666666716337204)) * z * r + r
    c = (real(0.001393545768223703) * z + real(0.041666459292173386)) * z
    c = (c + real(0.5)) * z
    up = power_of_two(np.int32(n - np.int32(2)))
    down = power_of_two(np.int32(np.int32(-2) - n) if n < np.int32(100) else np.int32(-102))
    sinh_n, cosh_n = up - down, up + down
    return (sinh_n * c + cosh_n * s) + sinh_n, (cosh_n * c + sinh_n * s) + cosh_n


def small_atan(t):
    """``atan(t) - t`` for |t| <= tan(pi/8) (minimax)."""
    z = t * t
    y = real(-0.060903552919626236) * z + real(0.10599356889724731)
    y = y * z - real(0.14244422316551208)
    y = y * z + real(0.1999852955341339)
    y = y * z - real(0.33333316445350647)
    return y * z * t


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
    """sin and cos of x reduced by pi/2 in four parts; accurate for |x| <= 1e5.

    In ulps where the CPU fuses multiply and add; elsewhere the error near a zero is absolute.
    """
    shifted_n = x * real(0.636619772367581343) + ROUND
    n = np.int32(np.float32(shifted_n).view(np.int32) - ROUND_BITS)
    k = shifted_n - ROUND
    r = x - k * real(1.5703125)
    r = r - k * real(4.837512969970703125e-4)
    r = r - k * real(7.549789948768648e-8)
    r = r - k * real(-1.7151245100058819e-15)
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


def tan(x):
    """Tangent."""
    s, c, n = circular(x)
    odd = (n & np.int32(1)) != np.int32(0)
    return (-c if odd else s) / (s if odd else c)


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
