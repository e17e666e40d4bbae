"""Scalar steps of a Cholesky factorisation that may meet a semi-definite matrix."""

from langevin.kernels.float64 import real


def pivot(value, diagonal):
    """A pivot; one below zero by rounding alone (1e-5 of its diagonal) counts as 0."""
    return value if value > real(0) or value < real(-1e-5) * diagonal else value * real(0)


def quotient(value, pivot_root):
    """``value / pivot_root``, or 0 where the pivot is 0 and so the row's value is."""
    return value / pivot_root if pivot_root != real(0) else value * real(0)
