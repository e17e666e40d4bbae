"""float64: normals and elementary functions in arithmetic alone, so that loops vectorise.

The twin of float32.py, name for name. Logarithm after fdlibm (Sun), sine, cosine and exponential
after Cephes (S. Moshier); error bounds are tested in ulps.
"""

import math

import numpy as np

real = np.float64
ROUND = np.float64(6755399441055744.0)  # 1.5 * 2**52: adding it rounds to an integer
ROUND_BITS = np.int64(0x4338000000000000)
LN2 = np.float64(0.6931471805599453)
HALF_PI_LOW = np.float64(6.123233995736766e-17)
HALF_TURN = np.float64(math.pi * 2.0**-32)
SIGN = np.uint64(0x80000000)


def ratio(a, b):
    """a / b for b between 1 and 4 and |a| below 1, 0 or above 2**-900."""
    return a / b


def log_parts(x):
    """``log(m)`` and e with x = m 2**e, sqrt(1/2) <= m < sqrt(2), for positive normal x."""
    bits = np.float64(x).view(np.int64)
    e = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
    f = np.int64(bits - (e << np.int64(52))).view(np.float64) - real(1)
    s = ratio(f, real(2) + f)
    z = s * s
    w = z * z
    odd = (w * real(1.531383769920937332e-1) + real(2.222219843214978396e-1)) * w
    odd = (odd + real(3.999999999940941908e-1)) * w
    even = (w * real(1.479819860511658591e-1) + real(1.818357216161805012e-1)) * w
    even = ((even + real(2.857142874366239149e-1)) * w + real(6.666666666666735130e-1)) * z
    half = real(0.5) * f * f
    return f - (half - s * (half + odd + even)), real(e)


def sine_cosine(t):
    """sin t and cos t for |t| <= pi/4."""
    z = t * t
    s = real(1.58962301576546568060e-10) * z - real(2.50507477628578072866e-8)
    s = s * z + real(2.75573136213857245213e-6)
    s = s * z - real(1.98412698295895385996e-4)
    s = s * z + real(8.33333333332211858878e-3)
    s = s * z - real(1.66666666666666307295e-1)
    c = real(-1.13585365213876817300e-11) * z + real(2.08757008419747316778e-9)
    c = c * z - real(2.75573141792967388112e-7)
    c = c * z + real(2.48015872888517045348e-5)
    c = c * z - real(1.38888888888730564116e-3)
    c = c * z + real(4.16666666666665929218e-2)
    return t + t * z * s, real(1) - real(0.5) * z + z * z * c


def half_turn(t):
    """sin t and cos t for |t| <= pi/2, within 2e-16 (minimax)."""
    z = t * t
    s = real(-7.374387503862757e-13) * z + real(1.6048168318165643e-10)
    s = (s * z - real(2.505188194671259e-08)) * z + real(2.7557316609073673e-06)
    s = (s * z - real(1.9841269824861897e-04)) * z + real(8.333333333282756e-03)
    s = t + t * z * (s * z - real(1.6666666666666072e-01))
    c = real(4.6276759850181716e-14) * z - real(1.1464689885720029e-11)
    c = (c * z + real(2.0876630867422994e-09)) * z - real(2.755731776732053e-07)
    c = (c * z + real(2.4801587292446213e-05)) * z - real(1.3888888888860709e-03)
    c = (c * z + real(4.166666666666634e-02)) * z - real(5.0e-01)
    return s, c * z + real(1)


def radius_of(square):
    """The root of a number that is 0 or between 2**-60 and 2**60."""
    return real(math.sqrt(square))


def normal_pair(w0, w1, w2, w3):
    """Two standard normals from four 32-bit words (Box-Muller, both outputs).

    ``sqrt(-2 ln u) (cos a, sin a)`` with a = 2 pi (w2 + w3/2**32)/2**32: half a turn is computed,
    the other half is its negative, which the two upper bits tell. The radius has a 53-bit uniform
    in (0, 1], so |z| <= sqrt(2 * 54 ln 2) = 8.65; the angle has 64 bits.
    """
    bits = (np.uint64(w0) << np.uint64(21)) ^ (np.uint64(w1) >> np.uint64(11))
    log_m, e = log_parts((real(np.uint64(bits).view(np.int64)) + real(0.5)) * real(2.0**-53))
    radius = radius_of(real(-2) * (log_m + e * LN2))
    doubled = np.uint32(w2 << np.uint32(1))
    fine = real(w3) * real(2.0**-31)
    s, c = half_turn((real(np.uint32(doubled).view(np.int32)) + fine) * HALF_TURN)
    sign = (np.uint64(np.uint32(w2 ^ doubled)) & SIGN) << np.uint64(32)
    radius = np.uint64(np.uint64(np.float64(radius).view(np.uint64)) ^ sign).view(np.float64)
    return radius * c, radius * s


def power_of_two(n):
    """2**n for an integer -1022 <= n <= 1023."""
    return np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64)


def nearest_power(x):
    """n (an integer) and r with x = n ln 2 + r, |r| <= ln(2)/2, for |x| <= 746."""
    shifted_n = x * real(1.4426950408889634) + ROUND
    k = shifted_n - ROUND
    r = x - k * real(6.93145751953125e-1)
    r = r - k * real(1.42860682030941723212e-6)
    return np.int64(np.float64(shifted_n).view(np.int64) - ROUND_BITS), r


def small_expm1(r):
    """exp(r) - 1 for |r| <= ln(2)/2 (minimax)."""
    y = real(2.4999746946675356e-08) * r + real(2.763048558677337e-07)
    y = y * r + real(2.755758863809909e-06)
    y = y * r + real(2.4801492505075044e-05)
    y = y * r + real(0.00019841269502703766)
    y = y * r + real(0.0013888888944123062)
    y = y * r + real(0.008333333333496807)
    y = y * r + real(0.04166666666652866)
    y = y * r + real(0.16666666666666408)
    y = y * r + real(0.5000000000000011)
    return y * (r * r) + r


def exp(x):
    """Exponential; 0 below -746, inf above 710.

    The scale 2**(n - 1) leaves room for n = 1024; where the result may be denormal, 2**128 more.
    """
    x = real(710.2) if x > real(710.2) else x
    x = real(-746) if x < real(-746) else x
    n, r = nearest_power(x)
    low = x < real(-700)
    bias = np.int64(1150 << 52) if low else np.int64(1022 << 52)
    scale = np.int64((n << np.int64(52)) + bias).view(np.float64)
    y = (small_expm1(r) * real(2) + real(2)) * scale
    return y * real(2.0**-128) if low else y


def expm1(x):
    """``exp(x) - 1`` without cancellation near 0; -1 below -40, inf above 710."""
    x = real(709.9) if x > real(709.9) else x
    x = real(-40) if x < real(-40) else x
    n, r = nearest_power(x)
    half = power_of_two(n - np.int64(1))
    y = half * small_expm1(r) + (half - real(0.5))
    return y + y


def small_log1p(e):
    """``log(1 + e)`` for 0 <= e <= 1, as 2 atanh(e/(2 + e)) (minimax)."""
    t = (e + e) / (real(2) + e)
    z = t * t
    y = real(8.114199695534731e-08) * z + real(1.5909545200674144e-07)
    y = y * z + real(9.236005998976597e-07)
    y = y * z + real(4.059146345362015e-06)
    y = y * z + real(1.878241795070951e-05)
    y = y * z + real(8.877804731899731e-05)
    y = y * z + real(0.0004340278118027518)
    y = y * z + real(0.0022321428553092114)
    y = y * z + real(0.012500000000048816)
    y = y * z + real(0.08333333333333288)
    return y * z * t + t


def half_hyperbolic(a):
    """``sinh(a)/2`` and ``cosh(a)/2`` for a >= 0: from n ln 2 and r by the addition theorem."""
    a = real(710.5) if a > real(710.5) else a
    n, r = nearest_power(a)
    z = r * r
    s = (real(2.510932985375047e-08) * z + real(2.7557243431163294e-06)) * z
    s = ((s + real(0.00019841269886831052)) * z + real(0.008333333333321383)) * z
    s = (s + real(0.16666666666666677)) * z * r + r
    c = (real(2.092179280241969e-09) * z + real(2.755725176056755e-07)) * z
    c = ((c + real(2.4801587349251228e-05)) * z + real(0.001388888888887327)) * z
    c = ((c + real(0.041666666666666685)) * z + real(0.5)) * z
    up = power_of_two(n - np.int64(2))
    down = power_of_two(np.int64(-2) - n if n < np.int64(1000) else np.int64(-1002))
    sinh_n, cosh_n = up - down, up + down
    return (sinh_n * c + cosh_n * s) + sinh_n, (cosh_n * c + sinh_n * s) + cosh_n


def small_atan(t):
    """``atan(t) - t`` for |t| <= tan(pi/8) (minimax)."""
    z = t * t
    y = real(-0.017908358042708628) * z + real(0.03806593974691639)
    y = y * z - real(0.050393723839960394)
    y = y * z + real(0.058479073712835825)
    y = y * z - real(0.06663106955768945)
    y = y * z + real(0.07692060508024431)
    y = y * z - real(0.0909089777634027)
    y = y * z + real(0.11111110784185269)
    y = y * z - real(0.14285714280212827)
    y = y * z + real(0.19999999999953771)
    y = y * z - real(0.333333333333332)
    return y * z * t


def log(x):
    """Natural logarithm; -inf at 0, NaN below."""
    tiny = x < real(2.2250738585072014e-308)
    log_m, e = log_parts(x * real(4503599627370496.0) if tiny else x)
    e = e - real(52) if tiny else e
    y = log_m + e * real(1.90821492927058770002e-10)
    y = y + e * real(6.93147180369123816490e-1)
    y = y if x > real(0) else (real(-math.inf) if x == real(0) else real(math.nan))
    return y if x < real(math.inf) else x


def circular(x):
    """sin and cos of x reduced by pi/2 in four parts; accurate for |x| <= 1e12.

    In ulps where the CPU fuses multiply and add; elsewhere the error near a zero is absolute.
    """
    shifted_n = x * real(0.636619772367581343) + ROUND
    n = np.int64(np.float64(shifted_n).view(np.int64) - ROUND_BITS)
    k = shifted_n - ROUND
    r = x - k * real(1.57079625129699707031)
    r = r - k * real(7.54978941586159635335e-8)
    r = r - k * real(5.39030285815811905290e-15)
    r = r - k * real(8.4784276603689e-32)
    r = real(0.8) if r > real(0.8) else r  # beyond the range: inaccurate, still bounded
    r = real(-0.8) if r < real(-0.8) else r
    s, c = sine_cosine(r)
    return s, c, n


def sin(x):
    """Sine."""
    s, c, n = circular(x)
    y = c if (n & np.int64(1)) != np.int64(0) else s
    return -y if (n & np.int64(2)) != np.int64(0) else y


def cos(x):
    """Cosine."""
    s, c, n = circular(x)
    y = s if (n & np.int64(1)) != np.int64(0) else c
    return -y if (np.int64(n + np.int64(1)) & np.int64(2)) != np.int64(0) else y


def tan(x):
    """Tangent."""
    s, c, n = circular(x)
    odd = (n & np.int64(1)) != np.int64(0)
    return (-c if odd else s) / (s if odd else c)


def tanh(x):
    """Hyperbolic tangent."""
    a = abs(x)
    z = x * x
    p = real(-9.64399179425052238628e-1) * z - real(9.92877231001918586564e1)
    p = p * z - real(1.61468768441708447952e3)
    q = (z + real(1.12811678491632931402e2)) * z + real(2.23548839060100448583e3)
    q = q * z + real(4.84406305325125486048e3)
    small = x + x * z * (p / q)
    a = real(25) if a > real(25) else a
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
