"""Rarer elementary functions. All but tan call libm: correct, but it stops the vectoriser."""

import math

from langevin.kernels.float64 import cos, exp, real, sin


def tan(x):
    """Tangent."""
    return sin(x) / cos(x)


def sinh(x):
    """Hyperbolic sine."""
    return real(math.sinh(x))


def cosh(x):
    """Hyperbolic cosine."""
    return real(math.cosh(x))


def atan(x):
    """Inverse tangent."""
    return real(math.atan(x))


def expm1(x):
    """exp(x) - 1."""
    return exp(x) - real(1)
