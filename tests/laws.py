"""Closed forms that the package is tested against, each written down independently of it."""

import numpy as np


def sgd_variance(eta, c, h):
    """Var x of x <- x - eta (h x + noise), noise of variance c a step."""
    return eta * c / (h * (2 - eta * h))


def heavy_ball(eta, c, h, m):
    """Var x, Cov(x, v) and Var v of v <- m v - eta g, x <- x + v."""
    denominator = 2 * (1 + m) - eta * h
    var_v = 2 * eta**2 * c / ((1 - m) * denominator)
    return eta * c * (1 + m) / (h * (1 - m) * denominator), var_v / 2, var_v


def least_squares_variance(eta, h, c0, c1):
    """E d**2 for 1-D least squares with noise c0 + 2 c01 d + c1 d**2 a step."""
    return eta * c0 / (2 * h - eta * h**2 - eta * c1)


def critical_noise(rise, det_a, det_b, sigma):
    """The eta/S at which a minimum higher by ``rise`` and flatter (det_a < det_b) draws level."""
    return 2 * rise / (sigma**2 * np.log(np.sqrt(det_b / det_a)))


def first_order_ratio_factor(eta, laplacian_a, laplacian_b):
    """What a finite step multiplies p_A/p_B by, to O(eta); Gibbs averages of the Laplacian."""
    return 1 - eta / 4 * (laplacian_a - laplacian_b)


def sampling_factor(n, s, replacement):
    """The variance of a batch mean over that of s independent draws."""
    return 1.0 if replacement else (n - s) / (n - 1)
