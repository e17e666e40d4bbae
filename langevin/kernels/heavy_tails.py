"""Heavy-tailed variables from two independent standard normals, arithmetic alone.

A pair of normals is an exponential ``w = (z0**2 + z1**2)/2`` and an independent angle, so neither
a trigonometric function of it nor a rejection is needed.
"""

from langevin.kernels.float64 import cos, exp, expm1, log, real, sin, sqrt
from langevin.kernels.library import atan


def student_t(z0, z1, dof):
    """``cos(angle) sqrt(nu (exp(2 w/nu) - 1))``: Student's t with nu degrees of freedom.

    Bailey 1994: the polar method with u**(-2/nu) = exp(2 w/nu), w exponential.
    """
    square = z0 * z0 + z1 * z1
    square = square if square > real(1e-30) else real(1e-30)
    return z0 * sqrt(dof * expm1(square / dof) / square)


def symmetric_stable(z0, z1, alpha, inverse, exponent):
    """A symmetric alpha-stable variable with characteristic function ``exp(-|u|**alpha)``.

    Chambers, Mallows and Stuck 1976: ``sin(alpha v) / cos(v)**(1/alpha) * (cos((1 - alpha) v)/w)**
    ((1 - alpha)/alpha)``, with v uniform in (-pi/2, pi/2) and w exponential. v is the arctangent of
    a ratio of normals, whose cosine needs no function; ``inverse`` = 1/alpha, ``exponent`` =
    (1 - alpha)/alpha.
    """
    divisor = abs(z1) if abs(z1) > real(1e-30) else real(1e-30)
    v = atan(z0 / divisor)
    square = z0 * z0 + divisor * divisor
    cosine = divisor / sqrt(square)
    w = real(0.5) * square
    other = cos((real(1) - alpha) * v)
    other = other if other > cosine else cosine  # |1 - alpha| <= 1; rounding must not make it < 0
    return sin(alpha * v) * exp(exponent * log(other / w) - inverse * log(cosine))
