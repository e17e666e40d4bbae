"""Closed forms that the package is tested against, each written down independently of it."""

import numpy as np
from scipy.integrate import quad


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


def mean_first_passage(energy, temperature, start, target, low):
    """Mean time of dx = -U' dt + sqrt(2 T) dW from start to a target above it; U = inf below low.

    ``(1/T) int_start^target e^(U(y)/T) int_low^y e^(-U(z)/T) dz dy``.
    """

    def inner(y):
        return quad(lambda z: np.exp((energy(y) - energy(z)) / temperature), low, y, limit=200)[0]

    return quad(inner, start, target, epsrel=1e-6, limit=200)[0] / temperature


def hitting_time(gradient, temperature, dt, start, target, low, n=400):
    """Mean number of steps in which the Euler-Maruyama chain first exceeds ``target``.

    Solves h = 1 + K h on Gauss-Legendre nodes of (low, target), K the chain's transition density.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n)
    x = low + (target - low) * (nodes + 1) / 2
    weights = weights * (target - low) / 2
    variance = 2 * temperature * dt

    def density(origin):
        mean = origin - dt * gradient(origin)
        away = (x[None, :] - np.atleast_1d(mean)[:, None]) ** 2
        return np.exp(-away / (2 * variance)) / np.sqrt(2 * np.pi * variance) * weights

    h = np.linalg.solve(np.eye(n) - density(x), np.ones(n))
    return 1 + float((density(np.array([start])) @ h)[0])
