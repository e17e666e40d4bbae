"""Functions made of the precision's own elementary ones, in arithmetic alone as those are."""

import math

from langevin.kernels.float64 import (
    HALF_PI_LOW,
    exp,
    half_hyperbolic,
    real,
    small_atan,
    small_log1p,
)

HALF_PI = real(math.pi / 2)
QUARTER_PI = real(math.pi / 4)


def sinh(x):
    """Hyperbolic sine."""
    s = half_hyperbolic(abs(x))[0]
    return -(s + s) if x < real(0) else s + s


def cosh(x):
    """Hyperbolic cosine."""
    c = half_hyperbolic(abs(x))[1]
    return c + c


def atan(x):
    """Inverse tangent: about 0, 1 or infinity, whichever is nearest."""
    a = abs(x)
    near_one, far = a > real(0.4142135623730950), a > real(2.414213562373095)
    top = real(-1) if far else (a - real(1) if near_one else a)
    bottom = a if far else (a + real(1) if near_one else real(1))
    base = HALF_PI if far else (QUARTER_PI if near_one else real(0))
    low = HALF_PI_LOW if far else (HALF_PI_LOW * real(0.5) if near_one else real(0))
    t = top / bottom
    y = base + (t + (small_atan(t) + low))
    return -y if x < real(0) else y


def sigmoid(x):
    """``1/(1 + exp(-x))``, to full relative accuracy at both ends."""
    e = exp(-abs(x))
    return (real(1) if x >= real(0) else e) / (real(1) + e)


def softplus(x):
    """``log(1 + exp(x))``, to full relative accuracy at both ends."""
    return (x if x > real(0) else real(0)) + small_log1p(exp(-abs(x)))
