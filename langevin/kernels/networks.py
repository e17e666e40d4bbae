"""Activations of a network and their slopes, told by the activation itself; what losses add up."""

from langevin.kernels.float64 import exp, log, real


def rectified(x, slope):
    """``x`` above 0, ``slope x`` below; NaN stays NaN."""
    return slope * x if x < real(0) else x


def rectified_slope(a, slope):
    """Of `rectified`, at the side that its value ``a`` is on; ``slope`` at 0, as in PyTorch."""
    return real(1) if a > real(0) else slope


def tanh_slope(a):
    """Of the hyperbolic tangent, from its value."""
    return real(1) - a * a


def sigmoid_slope(a):
    """Of the logistic function, from its value."""
    return a * (real(1) - a)


def log_partition(total, top):
    """``log sum exp(z)`` from the sum of ``exp(z - top)``."""
    return log(total) + top


def unnormalised(z, top):
    """``exp(z - top)``: with the largest z for ``top`` nothing overflows."""
    return exp(z - top)
