"""Surfaces and helpers that several tests of the predictions share."""

import numpy as np
from scipy.integrate import quad

from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import Isotropic

TILTED = "x**4/4 - a*x**3/3 - x**2/2"


def tilted(**options):
    return Surface(TILTED, a=0.4, **options)


def parabola(h, sigma=1.0):
    return Surface("h*x**2/2", h=h, noise=Isotropic(sigma))


def form(matrix, sigma=1.0):
    """x'Hx/2 as a formula of x0, x1, ..."""
    terms = [
        f"({float(v)!r})*x{i}*x{j}/2" for (i, j), v in np.ndenumerate(np.asarray(matrix, float))
    ]
    return Surface(" + ".join(terms), noise=Isotropic(sigma))


class Anisotropic:
    """A quadratic surface whose gradient noise has any constant covariance."""

    hessian_is_constant, noise, name = True, None, "anisotropic"

    def __init__(self, hessian, covariance):
        self.h, self.c, self.dim = np.asarray(hessian), np.asarray(covariance), len(hessian)

    def gradient(self, points):
        return np.asarray(points) @ self.h

    def hessian(self, points):
        return np.broadcast_to(self.h, np.shape(points)[:-1] + self.h.shape)

    def noise_covariance(self, points):
        return np.broadcast_to(self.c, np.shape(points)[:-1] + self.c.shape)

    def minima(self, within=None):
        class Minimum:
            position, energy, hessian = np.zeros(self.dim), 0.0, self.h

        return (Minimum(),)


def integral(f, low, high):
    return quad(f, low, high, epsabs=0, epsrel=1e-13, limit=400)[0]


def regression(n, d, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    u = rng.normal(size=(n, d)) * np.linspace(0.5, 1.5, d)
    v = u @ np.ones(d) + rng.normal(size=n)
    return FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v}), u, v
